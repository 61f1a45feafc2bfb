/* test_mdc_placement_plan.c: plans carried out step by step while modules come, go and fail; primaries; twice
 * as many partitions. */
#include "placement_cases.h"
#include "services/mdc/placement_plan.h"

static struct placement_set now[2 * CASE_PARTITIONS], want[2 * CASE_PARTITIONS], before[2 * CASE_PARTITIONS];
static struct placement_change changes[16384];

struct run {
    struct rng r;
    struct topology t;
    bool silent[CASE_MODULES];
    struct placement_limits limits;
    uint32_t joins;
};

static bool answers(const struct run *x, uint32_t id)
{
    for (uint32_t i = 0; i < x->t.count; i++) {
        if (x->t.m[i].id == id)
            return x->t.m[i].state != PLACEMENT_AWAY && !x->silent[i];
    }
    return false;
}

/* In-sync members that answer. */
static uint32_t good_copies(const struct run *x, const struct placement_set *s)
{
    uint32_t n = 0;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++)
        n += (s->members[k] & TABLE_MEMBER_IN_SYNC) && answers(x, TABLE_MEMBER_ID(s->members[k]));
    return n;
}

static uint32_t in_sync(const struct placement_set *s)
{
    uint32_t n = 0;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++)
        n += (s->members[k] & TABLE_MEMBER_IN_SYNC) != 0;
    return n;
}

static uint32_t first_good(const struct run *x, const struct placement_set *s)
{
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        if ((s->members[k] & TABLE_MEMBER_IN_SYNC) && answers(x, TABLE_MEMBER_ID(s->members[k])))
            return TABLE_MEMBER_ID(s->members[k]);
    }
    return 0;
}

static void sync_all(struct run *x)
{
    for (uint32_t p = 0; p < x->t.partitions; p++) {
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++)
            now[p].members[k] |= now[p].members[k] != 0 ? TABLE_MEMBER_IN_SYNC : 0;
    }
}

static void begin(struct run *x, uint64_t seed, uint32_t copies)
{
    memset(x, 0, sizeof(*x));
    memset(now, 0, sizeof(now));
    rng_seed(&x->r, seed);
    make_topology(&x->r, &x->t, copies, 1u << rng_below(&x->r, 9), 50);
    assign(&x->t, NULL, now);
    sync_all(x);
    x->limits = (struct placement_limits){.per_module = 1 + (uint32_t)rng_below(&x->r, 4),
                                          .total = 1 + (uint32_t)rng_below(&x->r, 64)};
}

/* How many copies on their way a module takes part in, by the sets alone. */
static void check_limits(const struct run *x)
{
    uint32_t total = 0, busy[CASE_MODULES] = {0};
    for (uint32_t p = 0; p < x->t.partitions; p++) {
        const uint32_t source = first_good(x, &now[p]);
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
            const uint32_t m = now[p].members[k], id = TABLE_MEMBER_ID(m);
            if (id == 0 || (m & TABLE_MEMBER_IN_SYNC) || !answers(x, id) || source == 0)
                continue;
            total++;
            for (uint32_t i = 0; i < x->t.count; i++)
                busy[i] += x->t.m[i].id == id || x->t.m[i].id == source;
        }
    }
    assert_true(total <= x->limits.total);
    for (uint32_t i = 0; i < x->t.count; i++)
        assert_true(busy[i] <= x->limits.per_module);
}

/* One change: what it must not do, judged from the sets before and after. */
static void check_change(const struct run *x, const struct placement_change *c,
                         const struct placement_set *old, const struct placement_set *new)
{
    const uint32_t wanted = (uint32_t)min_u64(x->t.rule.copies, limits_of(&x->t).copies);
    if (c->kind == PLACEMENT_LEAVE) {
        assert_true(placement_set_has(old, c->module) && !placement_set_has(new, c->module));
        const bool was_good = good_copies(x, new) < good_copies(x, old);
        if (was_good || in_sync(new) < in_sync(old))
            assert_true(good_copies(x, new) >= wanted);
        assert_true(good_copies(x, new) >= 1);
    } else {
        assert_int_equal(in_sync(new), in_sync(old)); /* nobody is in sync by being told to join */
        assert_true(placement_set_has(new, c->module));
    }
    if (c->kind == PLACEMENT_JOIN) {
        assert_false(placement_set_has(old, c->module));
        assert_true(answers(x, c->module));
        assert_true(first_good(x, old) != 0);
        assert_true(module_of(&x->t, c->module) != NULL && can_take(module_of(&x->t, c->module)));
    }
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) /* everybody else is still there */
        assert_true(old->members[k] == 0 || TABLE_MEMBER_ID(old->members[k]) == c->module ||
                    placement_set_has(new, TABLE_MEMBER_ID(old->members[k])));
}

/* Plans and carries out; returns what is left to do. */
static uint32_t step(struct run *x, bool all)
{
    struct placement_progress g;
    assign(&x->t, now, want);
    const uint32_t capacity =
        rng_chance(&x->r, 1, 4) ? 1 + (uint32_t)rng_below(&x->r, 8) : ARRAY_LEN(changes);
    assert_int_equal(placement_plan(x->t.m, x->silent, x->t.count, x->t.partitions, now, want, &x->limits,
                                    changes, capacity, &g),
                     0);
    assert_true(g.changes <= capacity);
    for (uint32_t i = 0; i < g.changes; i++) {
        if (!all && rng_chance(&x->r, 1, 5))
            continue; /* something came between */
        struct placement_set *s = &now[changes[i].partition], old = *s;
        placement_apply(&changes[i], s);
        check_change(x, &changes[i], &old, s);
        x->joins += changes[i].kind == PLACEMENT_JOIN;
    }
    return g.changes + g.moving + g.waiting + g.leaving;
}

/* Some of the copies on their way arrive. */
static void arrive(struct run *x, uint64_t num, uint64_t den)
{
    for (uint32_t p = 0; p < x->t.partitions; p++) {
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
            uint32_t *m = &now[p].members[k];
            if (*m != 0 && answers(x, TABLE_MEMBER_ID(*m)) && first_good(x, &now[p]) != 0 &&
                rng_chance(&x->r, num, den))
                *m |= TABLE_MEMBER_IN_SYNC;
        }
    }
}

/* Modules stop answering: where another good copy is, the controller takes them out of sync. */
static void fall_silent(struct run *x, uint32_t i)
{
    x->silent[i] = true;
    for (uint32_t p = 0; p < x->t.partitions; p++) {
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
            if (TABLE_MEMBER_ID(now[p].members[k]) == x->t.m[i].id && good_copies(x, &now[p]) != 0)
                now[p].members[k] &= ~TABLE_MEMBER_IN_SYNC;
        }
    }
}

static uint32_t stay_away(struct run *x)
{
    for (uint32_t i = 0; i < x->t.count && limits_of(&x->t).copies > 1; i++) {
        if (x->silent[i] && x->t.m[i].state == PLACEMENT_UP) {
            x->t.m[i].state = PLACEMENT_AWAY;
            return 1;
        }
    }
    return 0;
}

static void come_back(struct run *x)
{
    for (uint32_t i = 0; i < x->t.count; i++) {
        x->silent[i] = false;
        if (x->t.m[i].state == PLACEMENT_AWAY)
            x->t.m[i].state = PLACEMENT_UP;
    }
}

static void check_done(const struct run *x)
{
    check_rule(&x->t, now);
    check_balance(&x->t, now);
    for (uint32_t p = 0; p < x->t.partitions; p++) {
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++)
            assert_false(now[p].members[k] & TABLE_MEMBER_LEAVING);
        assert_int_equal(in_sync(&now[p]), limits_of(&x->t).copies);
    }
}

/* Change of modules, no failures: the plan ends, in limits, with not one copy moved more than at first said.
 */
static void test_plan_ends(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct run x;
        begin(&x, seed, 1 + (uint32_t)(seed % 4));
        for (uint64_t n = 1 + rng_below(&x.r, 4); n > 0; n--) {
            struct placement_module *m = &x.t.m[rng_below(&x.r, x.t.count)];
            if (rng_chance(&x.r, 1, 3) && x.t.count > 4)
                m->state = PLACEMENT_DRAINING;
            else if (rng_chance(&x.r, 1, 2))
                m->weight = (1 + rng_below(&x.r, 16)) * TIB;
            else
                add_module(&x.r, &x.t, m->host + (uint32_t)rng_below(&x.r, 2), m->rack);
        }
        if (limits_of(&x.t).copies == 0)
            continue;
        const struct placement_result res = assign(&x.t, now, want);
        int rounds = 0;
        while (step(&x, true) != 0) {
            check_limits(&x);
            arrive(&x, 1, 2);
            assert_true(rounds++ < 20000);
        }
        check_done(&x);
        assert_int_equal(x.joins, res.moves);
    }
}

/* Everything goes wrong for a while; when it is over, the plan ends. */
static void test_plan_under_faults(void **state)
{
    (void)state;
    uint32_t away = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct run x;
        begin(&x, 5000 + seed, 1 + (uint32_t)(seed % 4));
        for (int round = 0; round < 40; round++) {
            const uint32_t i = (uint32_t)rng_below(&x.r, x.t.count);
            switch (rng_below(&x.r, 8)) {
            case 0:
                fall_silent(&x, i);
                break;
            case 1: /* for longer than the setting */
                away += stay_away(&x);
                break;
            case 2:
                come_back(&x);
                break;
            case 3:
                if (limits_of(&x.t).copies > x.t.rule.copies)
                    x.t.m[i].state = PLACEMENT_DRAINING;
                break;
            case 4:
                x.t.m[i].weight = (1 + rng_below(&x.r, 8)) * TIB;
                break;
            case 5:
                if (x.t.count < 60)
                    add_module(&x.r, &x.t, 900 + (uint32_t)rng_below(&x.r, 3), 70);
                break;
            default:
                break;
            }
            if (limits_of(&x.t).copies == 0)
                x.t.m[i].state = PLACEMENT_UP;
            step(&x, false);
            arrive(&x, 1, 3);
        }
        come_back(&x);
        for (int rounds = 0; step(&x, true) != 0; rounds++) {
            arrive(&x, 1, 2);
            assert_true(rounds < 20000);
        }
        check_done(&x);
    }
    assert_true(away > 50);
}

/* A module that is lost: each of its partitions gets a copy elsewhere, those with one copy left first. */
static void test_lost_module(void **state)
{
    (void)state;
    struct run x = {.limits = {.per_module = 100, .total = 3}};
    x.t = (struct topology){.rule = {.copies = 2, .domain = PLACEMENT_RACK}, .partitions = 64};
    memset(now, 0, sizeof(now));
    for (uint32_t i = 0; i < 8; i++)
        x.t.m[x.t.count++] = (struct placement_module){.id = i + 1, .weight = TIB, .host = i, .rack = i / 2};
    assign(&x.t, NULL, now);
    sync_all(&x);
    struct placement_progress g;
    fall_silent(&x, 0);
    x.t.m[0].state = PLACEMENT_AWAY;
    /* one more reason to move, less urgent */
    x.t.m[7].state = PLACEMENT_DRAINING;
    assign(&x.t, now, want);
    assert_int_equal(
        placement_plan(x.t.m, x.silent, x.t.count, 64, now, want, &x.limits, changes, ARRAY_LEN(changes), &g),
        0);
    assert_true(g.changes > 0 && g.changes <= 3);
    for (uint32_t i = 0; i < g.changes; i++) {
        assert_int_equal(changes[i].kind, PLACEMENT_JOIN);
        assert_int_equal(good_copies(&x, &now[changes[i].partition]), 1);
        assert_int_equal(changes[i].instead, 1);
    }
    assert_int_equal(g.stuck, 0);
}

/* The only copy is away: nothing can be begun, nothing is given up. */
static void test_only_copy_away(void **state)
{
    (void)state;
    struct run x = {.limits = {.per_module = 4, .total = 100}};
    x.t = (struct topology){.rule = {.copies = 1, .domain = PLACEMENT_RACK}, .partitions = 16};
    memset(now, 0, sizeof(now));
    for (uint32_t i = 0; i < 4; i++)
        x.t.m[x.t.count++] = (struct placement_module){.id = i + 1, .weight = TIB, .host = i, .rack = i};
    assign(&x.t, NULL, now);
    sync_all(&x);
    x.t.m[2].state = PLACEMENT_AWAY;
    struct placement_progress g;
    const uint32_t held = load_of(&x.t, now, 3);
    assign(&x.t, now, want);
    assert_int_equal(
        placement_plan(x.t.m, NULL, x.t.count, 16, now, want, &x.limits, changes, ARRAY_LEN(changes), &g), 0);
    assert_int_equal(g.changes, 0);
    assert_true(held > 0 && g.stuck == held && g.waiting == held && g.leaving == held);
}

/* A drain that is taken back: what has not left stays, without being copied again. */
static void test_drain_taken_back(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct run x;
        begin(&x, 9000 + seed, 2);
        if (limits_of(&x.t).copies < 2 || x.t.count < 4)
            continue;
        memcpy(before, now, sizeof(now));
        x.t.m[0].state = PLACEMENT_DRAINING;
        for (int i = 0; i < 3; i++)
            step(&x, true);
        x.t.m[0].state = PLACEMENT_UP;
        for (int rounds = 0; step(&x, true) != 0; rounds++) {
            arrive(&x, 1, 2);
            assert_true(rounds < 20000);
        }
        check_done(&x);
        /* nothing had arrived when it was taken back: all that was begun is given up or balanced as it is */
        assert_true(x.joins <= 3 * x.limits.total);
    }
}

/* ---- primaries ---- */

static uint32_t primaries_of(const struct topology *t, const struct placement_set *s, uint32_t id)
{
    uint32_t n = 0;
    for (uint32_t p = 0; p < t->partitions; p++)
        n += placement_set_primary(&s[p]) == id;
    return n;
}

static bool wanted_primary(const struct topology *t, uint32_t m)
{
    const struct placement_module *x = module_of(t, TABLE_MEMBER_ID(m));
    return (m & TABLE_MEMBER_IN_SYNC) && x != NULL && x->state == PLACEMENT_UP && !(m & TABLE_MEMBER_LEAVING);
}

static uint32_t wanted_primaries(const struct topology *t, const struct placement_set *s)
{
    uint32_t n = 0;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++)
        n += wanted_primary(t, s->members[k]);
    return n;
}

static bool same_members(const struct placement_set *a, const struct placement_set *b)
{
    for (unsigned i = 0; i < TABLE_MEMBERS_MAX; i++) {
        bool there = a->members[i] == 0;
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++)
            there |= a->members[i] == b->members[k];
        if (!there)
            return false;
    }
    return true;
}

static void test_primaries(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct run x;
        uint32_t changed;
        begin(&x, 12000 + seed, 1 + (uint32_t)(seed % 5));
        for (uint32_t p = 0; p < x.t.partitions; p++) { /* some are not in sync, or leave */
            for (unsigned k = 1; k < TABLE_MEMBERS_MAX && rng_chance(&x.r, 1, 3); k++)
                now[p].members[k] &= ~TABLE_MEMBER_IN_SYNC;
            if (rng_chance(&x.r, 1, 8) && now[p].members[0] != 0)
                now[p].members[0] |= TABLE_MEMBER_LEAVING;
        }
        if (rng_chance(&x.r, 1, 2))
            x.t.m[0].state = PLACEMENT_DRAINING;
        memcpy(before, now, sizeof(now));
        assert_int_equal(placement_primaries(x.t.m, x.t.count, x.t.partitions, now, &changed), 0);
        uint32_t other = 0;
        for (uint32_t p = 0; p < x.t.partitions; p++) {
            assert_true(same_members(&before[p], &now[p]));
            other += placement_set_primary(&before[p]) != placement_set_primary(&now[p]);
            for (unsigned k = 0; wanted_primaries(&x.t, &now[p]) != 0 && k < TABLE_MEMBERS_MAX; k++) {
                if (TABLE_MEMBER_ID(now[p].members[k]) == placement_set_primary(&now[p])) {
                    assert_true(wanted_primary(&x.t, now[p].members[k]));
                    break;
                }
            }
        }
        assert_int_equal(other, changed);
        for (uint32_t i = 0; i < x.t.count; i++) {
            double share = 0;
            for (uint32_t p = 0; p < x.t.partitions; p++) {
                const uint32_t n = wanted_primaries(&x.t, &now[p]), all = in_sync(&now[p]);
                for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
                    const uint32_t m = now[p].members[k];
                    if (TABLE_MEMBER_ID(m) == x.t.m[i].id && (m & TABLE_MEMBER_IN_SYNC))
                        share += n == 0 ? 1.0 / all : wanted_primary(&x.t, m) ? 1.0 / n : 0;
                }
            }
            const uint32_t have = primaries_of(&x.t, now, x.t.m[i].id);
            assert_true(have >= floor_of(share) && have <= ceil_of(share));
        }
        memcpy(before, now, sizeof(now));
        assert_int_equal(placement_primaries(x.t.m, x.t.count, x.t.partitions, now, &changed), 0);
        assert_int_equal(changed, 0);
        assert_memory_equal(before, now, sizeof(now));
    }
}

/* ---- twice as many partitions ---- */

static void test_split(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct run x;
        begin(&x, 16000 + seed, 1 + (uint32_t)(seed % 4));
        const uint32_t n = x.t.partitions;
        memcpy(before, now, sizeof(now));
        placement_split(now, n, now);
        x.t.partitions = 2 * n;
        for (uint64_t stripe = 0; stripe < 2000; stripe++) { /* wherever something is, it stays */
            const uint64_t h = placement_hash(77 + seed, stripe);
            assert_memory_equal(&now[placement_partition(h, 2 * n)], &before[placement_partition(h, n)],
                                sizeof(now[0]));
        }
        /* balance afterwards costs at most a copy a module */
        const struct placement_result res = assign(&x.t, now, want);
        check_rule(&x.t, want);
        check_balance(&x.t, want);
        assert_true(res.moves <= x.t.count);
    }
}

/* ---- what comes from outside ---- */

static void test_refusals(void **state)
{
    (void)state;
    struct placement_progress g;
    const struct placement_limits l = {1, 1};
    struct placement_module m[2] = {{.id = 1, .weight = 1}, {.id = 1, .weight = 1}};
    struct placement_set s = {{1 | TABLE_MEMBER_IN_SYNC}};
    assert_int_equal(placement_plan(m, NULL, 2, 1, &s, &s, &l, changes, 1, &g), -EINVAL);
    assert_int_equal(placement_plan(m, NULL, 0, 1, &s, &s, &l, changes, 1, &g), -EINVAL);
    assert_int_equal(placement_primaries(m, 2, 1, &s, NULL), -EINVAL);
    assert_int_equal(placement_primaries(m, 0, 1, &s, NULL), -EINVAL);
    /* changes that do not fit any more */
    const struct placement_set old = s;
    placement_apply(&(struct placement_change){.kind = PLACEMENT_JOIN, .module = 1}, &s);
    placement_apply(&(struct placement_change){.kind = PLACEMENT_LEAVE, .module = 2}, &s);
    placement_apply(&(struct placement_change){.kind = PLACEMENT_STAY, .module = 2}, &s);
    assert_memory_equal(&s, &old, sizeof(s));
    for (uint32_t id = 2; id <= TABLE_MEMBERS_MAX + 3; id++)
        placement_apply(&(struct placement_change){.kind = PLACEMENT_JOIN, .module = id, .instead = 1}, &s);
    assert_true(s.members[0] == (1 | TABLE_MEMBER_IN_SYNC | TABLE_MEMBER_LEAVING));
    assert_int_equal(s.members[TABLE_MEMBERS_MAX - 1], TABLE_MEMBERS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_ends),
        cmocka_unit_test(test_plan_under_faults),
        cmocka_unit_test(test_lost_module),
        cmocka_unit_test(test_only_copy_away),
        cmocka_unit_test(test_drain_taken_back),
        cmocka_unit_test(test_primaries),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
