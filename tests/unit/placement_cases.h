/*
 * placement_cases.h: seeded topologies for the tests of the placement, and oracles that know the rules from
 * their description, not from the code.
 */
#ifndef CISTERN_TESTS_UNIT_PLACEMENT_CASES_H
#define CISTERN_TESTS_UNIT_PLACEMENT_CASES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/rng.h"
#include "services/mdc/placement.h"

#define CASE_MODULES    80
#define CASE_PARTITIONS 1024

struct topology {
    struct placement_rule rule;
    struct placement_module m[CASE_MODULES];
    uint32_t count, partitions;
    uint32_t next_id;
};

static inline bool can_take(const struct placement_module *m)
{
    return m->state == PLACEMENT_UP && m->weight != 0;
}

static inline const struct placement_module *module_of(const struct topology *t, uint32_t id)
{
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->m[i].id == id)
            return &t->m[i];
    }
    return NULL;
}

static inline void add_module(struct rng *r, struct topology *t, uint32_t host, uint32_t rack)
{
    assert_true(t->count < CASE_MODULES);
    t->next_id += 1 + (uint32_t)rng_below(r, 3);
    t->m[t->count++] = (struct placement_module){
        .id = t->next_id, .weight = (1 + rng_below(r, 32)) * TIB / 2, .host = host, .rack = rack};
}

static inline void shuffle_modules(struct rng *r, struct topology *t)
{
    for (uint32_t i = t->count; i > 1; i--) {
        uint32_t k = (uint32_t)rng_below(r, i);
        struct placement_module x = t->m[i - 1];
        t->m[i - 1] = t->m[k];
        t->m[k] = x;
    }
}

/* racks x hosts x modules, uneven; copies and partitions as given. */
static inline void make_topology(struct rng *r, struct topology *t, uint32_t copies, uint32_t partitions,
                                 uint32_t modules_max)
{
    memset(t, 0, sizeof(*t));
    t->rule = (struct placement_rule){.copies = (uint8_t)copies, .domain = PLACEMENT_RACK};
    t->partitions = partitions;
    uint32_t racks = 1 + (uint32_t)rng_below(r, 6), number = 100;
    bool even = rng_chance(r, 1, 4);
    for (uint32_t k = 0; k < racks; k++) {
        uint32_t hosts = even ? 3 : 1 + (uint32_t)rng_below(r, 5);
        for (uint32_t h = 0; h < hosts; h++, number += 7) {
            uint32_t n = even ? 2 : 1 + (uint32_t)rng_below(r, 4);
            for (uint32_t i = 0; i < n && t->count < modules_max; i++) {
                add_module(r, t, number, 50 - k);
                if (even)
                    t->m[t->count - 1].weight = 4 * TIB;
            }
        }
    }
    shuffle_modules(r, t);
}

/* ---- what the rule comes to ---- */

struct limits {
    uint32_t copies, per_rack, per_host;
};

/* Modules of host, or of rack, that can take copies, counted from the list. */
static inline uint32_t capacity_at(const struct topology *t, uint32_t per_host, uint32_t per_rack)
{
    uint32_t all = 0;
    for (uint32_t i = 0; i < t->count; i++) { /* i stands for its rack when it is the first of it */
        bool first_of_rack = can_take(&t->m[i]);
        for (uint32_t k = 0; k < i; k++)
            first_of_rack &= !can_take(&t->m[k]) || t->m[k].rack != t->m[i].rack;
        if (!first_of_rack)
            continue;
        uint32_t in_rack = 0;
        for (uint32_t h = 0; h < t->count; h++) {
            if (t->m[h].rack != t->m[i].rack || !can_take(&t->m[h]))
                continue;
            uint32_t before = 0;
            for (uint32_t k = 0; k < h; k++)
                before += can_take(&t->m[k]) && t->m[k].host == t->m[h].host;
            in_rack += before < per_host;
        }
        all += (uint32_t)min_u64(in_rack, per_rack);
    }
    return all;
}

static inline struct limits limits_of(const struct topology *t)
{
    struct limits l = {0};
    for (uint32_t i = 0; i < t->count; i++)
        l.copies += can_take(&t->m[i]);
    l.copies = (uint32_t)min_u64(l.copies, t->rule.copies);
    l.per_host = t->rule.domain >= PLACEMENT_HOST ? 1 : l.copies;
    while (capacity_at(t, l.per_host, UINT32_MAX) < l.copies)
        l.per_host++;
    l.per_rack = t->rule.domain >= PLACEMENT_RACK ? 1 : l.copies;
    while (capacity_at(t, l.per_host, l.per_rack) < l.copies)
        l.per_rack++;
    return l;
}

/* Members that count: not leaving. */
static inline uint32_t members_of(const struct placement_set *s, uint32_t ids[TABLE_MEMBERS_MAX])
{
    uint32_t n = 0;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        if (s->members[k] != 0 && !(s->members[k] & TABLE_MEMBER_LEAVING))
            ids[n++] = TABLE_MEMBER_ID(s->members[k]);
    }
    return n;
}

/* Each partition has its copies, on modules that take copies, as far apart as can be. */
static inline void check_rule(const struct topology *t, const struct placement_set *sets)
{
    const struct limits l = limits_of(t);
    for (uint32_t p = 0; p < t->partitions; p++) {
        uint32_t ids[TABLE_MEMBERS_MAX], n = members_of(&sets[p], ids);
        assert_int_equal(n, l.copies);
        for (uint32_t i = 0; i < n; i++) {
            const struct placement_module *m = module_of(t, ids[i]);
            uint32_t rack = 0, host = 0, same = 0;
            assert_non_null(m);
            assert_true(can_take(m));
            for (uint32_t k = 0; k < n; k++) {
                const struct placement_module *o = module_of(t, ids[k]);
                assert_non_null(o);
                rack += o->rack == m->rack;
                host += o->host == m->host;
                same += o->id == m->id;
            }
            assert_int_equal(same, 1);
            assert_true(rack <= l.per_rack);
            assert_true(host <= l.per_host);
        }
    }
}

/* ---- shares, by halving an interval ---- */

/* What module i has at a level (copies for a byte of weight). */
static inline double own_load(const struct topology *t, double level, uint32_t i)
{
    const double x = level * (double)t->m[i].weight;
    return x < t->partitions ? x : t->partitions;
}

static inline bool first_of(const struct topology *t, uint32_t i, bool by_rack)
{
    for (uint32_t k = 0; k < i; k++) {
        if (can_take(&t->m[k]) && (by_rack ? t->m[k].rack == t->m[i].rack : t->m[k].host == t->m[i].host))
            return false;
    }
    return can_take(&t->m[i]);
}

/* What all on the host of module i have at this level, as if the host had no limit. */
static inline double host_load(const struct topology *t, const struct limits *l, double level, uint32_t i)
{
    double sum = 0;
    (void)l;
    for (uint32_t k = 0; k < t->count; k++) {
        if (can_take(&t->m[k]) && t->m[k].host == t->m[i].host)
            sum += own_load(t, level, k);
    }
    return sum;
}

/* What all in the rack of module i have, hosts up to their limit. */
static inline double rack_load(const struct topology *t, const struct limits *l, double level, uint32_t i)
{
    double sum = 0;
    for (uint32_t k = 0; k < t->count; k++) {
        if (t->m[k].rack != t->m[i].rack || !first_of(t, k, false))
            continue;
        const double x = host_load(t, l, level, k), cap = (double)l->per_host * t->partitions;
        sum += x < cap ? x : cap;
    }
    return sum;
}

/* What all have, racks up to their limit. */
static inline double all_load(const struct topology *t, const struct limits *l, double level, uint32_t unused)
{
    double sum = 0;
    (void)unused;
    for (uint32_t k = 0; k < t->count; k++) {
        if (!first_of(t, k, true))
            continue;
        const double x = rack_load(t, l, level, k), cap = (double)l->per_rack * t->partitions;
        sum += x < cap ? x : cap;
    }
    return sum;
}

/* The level at which load comes to total, or to all it can be. */
static inline double level_for(const struct topology *t, const struct limits *l,
                               double (*load)(const struct topology *, const struct limits *, double,
                                              uint32_t),
                               uint32_t i, double total)
{
    double low = 0, high = 0;
    for (uint32_t k = 0; k < t->count; k++) {
        if (can_take(&t->m[k]) && t->partitions / (double)t->m[k].weight > high)
            high = t->partitions / (double)t->m[k].weight;
    }
    for (int n = 0; n < 50; n++) {
        const double mid = (low + high) / 2;
        if (load(t, l, mid, i) < total * (1 - 1e-12))
            low = mid;
        else
            high = mid;
    }
    return high;
}

/* share[i] of module i, in copies. */
static inline void oracle_shares(const struct topology *t, double *share)
{
    const struct limits l = limits_of(t);
    const double level = level_for(t, &l, all_load, 0, (double)t->partitions * l.copies);
    double rack_level = 0, host_level = 0;
    for (uint32_t i = 0; i < t->count; i++)
        share[i] = 0;
    for (uint32_t r = 0; r < t->count; r++) {
        if (!first_of(t, r, true))
            continue;
        const double want = rack_load(t, &l, level, r), cap = (double)l.per_rack * t->partitions;
        rack_level = level_for(t, &l, rack_load, r, want < cap ? want : cap);
        for (uint32_t h = 0; h < t->count; h++) {
            if (t->m[h].rack != t->m[r].rack || !first_of(t, h, false))
                continue;
            const double of_host = host_load(t, &l, rack_level, h), most = (double)l.per_host * t->partitions;
            host_level = level_for(t, &l, host_load, h, of_host < most ? of_host : most);
            for (uint32_t i = 0; i < t->count; i++) {
                if (can_take(&t->m[i]) && t->m[i].host == t->m[h].host)
                    share[i] = own_load(t, host_level, i);
            }
        }
    }
}

static inline uint32_t load_of(const struct topology *t, const struct placement_set *sets, uint32_t id)
{
    uint32_t n = 0;
    for (uint32_t p = 0; p < t->partitions; p++) {
        uint32_t ids[TABLE_MEMBERS_MAX], k = members_of(&sets[p], ids);
        for (uint32_t i = 0; i < k; i++)
            n += ids[i] == id;
    }
    return n;
}

#define NEAR_WHOLE 1e-3
static inline uint32_t floor_of(double share)
{
    return (uint32_t)(share + NEAR_WHOLE);
}
static inline uint32_t ceil_of(double share)
{
    uint32_t n = (uint32_t)(share - NEAR_WHOLE);
    return share > NEAR_WHOLE && share - NEAR_WHOLE > n ? n + 1 : n;
}

/* Each module has its share, rounded up or down. */
static inline void check_balance(const struct topology *t, const struct placement_set *sets)
{
    double share[CASE_MODULES];
    oracle_shares(t, share);
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t have = load_of(t, sets, t->m[i].id);
        if (have < floor_of(share[i]) || have > ceil_of(share[i]))
            fail_msg("module %u has %u copies, its share is %f", t->m[i].id, have, share[i]);
    }
}

/* Copies that `b` has and `a` has not, leaving ones of a included in what it has. */
static inline uint32_t moved(const struct topology *t, const struct placement_set *a,
                             const struct placement_set *b)
{
    uint32_t n = 0;
    for (uint32_t p = 0; p < t->partitions; p++) {
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++)
            n += b[p].members[k] != 0 && !placement_set_has(&a[p], TABLE_MEMBER_ID(b[p].members[k]));
    }
    return n;
}

static inline struct placement_result assign(const struct topology *t, const struct placement_set *old,
                                             struct placement_set *out)
{
    struct placement_result res;
    assert_int_equal(placement_assign(&t->rule, t->m, t->count, t->partitions, old, out, &res), 0);
    return res;
}

#endif
