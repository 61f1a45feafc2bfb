/* placement.c: see placement.h. The steps: what may stay stays; quotas; what goes at once; the rest by flow.
 */
#include "services/mdc/placement_work.h"

#include <string.h>

uint32_t placement_set_primary(const struct placement_set *s)
{
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        if (s->members[k] & TABLE_MEMBER_IN_SYNC)
            return TABLE_MEMBER_ID(s->members[k]);
    }
    return 0;
}

/* ---- what may stay ---- */

/* How far the module is above what it may have, by what it held at first. */
static int64_t excess_of(const struct pw_module *m, uint32_t held)
{
    return (int64_t)held - m->floor;
}

struct candidate {
    uint32_t module;
    unsigned place;
    bool in_sync;
};

/* Should a stay rather than b? */
static bool rather(const struct pw *w, const uint32_t *held, const struct candidate *a,
                   const struct candidate *b)
{
    if (a->in_sync != b->in_sync)
        return a->in_sync;
    const int64_t ea = excess_of(&w->m[a->module], held[a->module]);
    const int64_t eb = excess_of(&w->m[b->module], held[b->module]);
    return ea != eb ? ea < eb : a->place < b->place;
}

/* Fills the slots of p with as many of the wanted old members as the rule allows: limits that lie inside one
 * another allow the same number whichever comes first. Returns whether one had to go. */
static bool keep(struct pw *w, uint32_t p, const struct placement_set *old, uint32_t *held)
{
    struct candidate c[TABLE_MEMBERS_MAX];
    unsigned n = 0, kept = 0;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t u = w->old[p * TABLE_MEMBERS_MAX + k];
        if (u == PW_NONE || (old->members[k] & TABLE_MEMBER_LEAVING))
            continue;
        const struct candidate one = {u, k, (old->members[k] & TABLE_MEMBER_IN_SYNC) != 0};
        unsigned at = n++;
        for (; at > 0 && rather(w, held, &one, &c[at - 1]); at--)
            c[at] = c[at - 1];
        c[at] = one;
    }
    for (unsigned i = 0; i < n; i++) {
        if (kept < w->copies && pw_fits(w, p, PW_NONE, c[i].module))
            pw_set(w, p * w->copies + kept++, c[i].module);
        else
            held[c[i].module]--;
    }
    return kept < n;
}

/* Resolves the ids of the old members. *any: some are there; *spare: some are there that are not wanted. */
static int load_old(struct pw *w, const struct placement_set *old, uint32_t *held, bool *any, bool *spare)
{
    for (uint32_t p = 0; p < w->partitions; p++) {
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
            const uint32_t m = old[p].members[k], id = TABLE_MEMBER_ID(m);
            for (unsigned i = 0; id != 0 && i < k; i++) {
                if (TABLE_MEMBER_ID(old[p].members[i]) == id)
                    return -EINVAL;
            }
            const uint32_t u = id != 0 ? pw_find(w, id) : PW_NONE;
            w->old[p * TABLE_MEMBERS_MAX + k] = u;
            if (u == PW_NONE)
                continue;
            *any = true;
            *spare |= (m & TABLE_MEMBER_LEAVING) != 0;
            held[u] += (m & TABLE_MEMBER_LEAVING) == 0;
        }
    }
    for (uint32_t p = 0; *any && p < w->partitions; p++)
        *spare |= keep(w, p, &old[p], held);
    return 0;
}

/* ---- the answer ---- */

static uint32_t slot_of(const struct pw *w, uint32_t p, uint32_t u)
{
    for (uint32_t s = p * w->copies; s < (p + 1) * w->copies; s++) {
        if (w->slot[s].module == u)
            return s;
    }
    return PW_NONE;
}

/* Returns how many of its members are new. */
static uint32_t put_set(const struct pw *w, uint32_t p, const struct placement_set *old,
                        struct placement_set *out)
{
    struct placement_set set = {{0}};
    uint32_t n = 0, moves = 0;
    for (unsigned k = 0; old != NULL && k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t u = w->old[p * TABLE_MEMBERS_MAX + k];
        if (u != PW_NONE && slot_of(w, p, u) != PW_NONE)
            set.members[n++] = w->m[u].id | (old[p].members[k] & TABLE_MEMBER_IN_SYNC);
    }
    for (uint32_t s = p * w->copies; s < (p + 1) * w->copies; s++) {
        if (!pw_is_old(w, p, w->slot[s].module)) {
            set.members[n++] = w->m[w->slot[s].module].id;
            moves++;
        }
    }
    out[p] = set;
    return moves;
}

int placement_assign(const struct placement_rule *rule, const struct placement_module *modules,
                     uint32_t count, uint32_t partitions, const struct placement_set *old,
                     struct placement_set *out, struct placement_result *result)
{
    struct pw w;
    bool any = false, spare = false;
    int rc = pw_create(rule, modules, count, partitions, &w);
    if (rc != 0)
        return rc;
    pw_shares(&w);
    if (old != NULL)
        rc = load_old(&w, old, w.queue, &any, &spare); /* the queue is free yet: scratch */
    if (rc != 0) {
        pw_destroy(&w);
        return rc;
    }
    pw_quotas(&w);
    if (any) {
        if (spare)
            pw_balance(&w, true); /* back to where a copy still is, before any goes elsewhere */
        pw_fill_greedy(&w);
        pw_balance(&w, false);
        pw_fill_rest(&w);
    } else {
        pw_fill_empty(&w);
    }
    pw_describe(&w, result);
    for (uint32_t p = 0; p < partitions; p++)
        result->moves += put_set(&w, p, old, out);
    for (uint32_t u = 0; u < w.count; u++)
        result->unbalanced += w.m[u].load > w.m[u].ceil ? w.m[u].load - w.m[u].ceil : 0;
    pw_destroy(&w);
    return 0;
}

int placement_shares(const struct placement_rule *rule, const struct placement_module *modules,
                     uint32_t count, uint32_t partitions, uint64_t *share_milli,
                     struct placement_result *result)
{
    struct pw w;
    int rc = pw_create(rule, modules, count, partitions, &w);
    if (rc != 0)
        return rc;
    pw_shares(&w);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t u = pw_find(&w, modules[i].id);
        share_milli[i] = u != PW_NONE ? (w.m[u].share * 1000 + PW_COPY / 2) >> PW_FRAC : 0;
    }
    pw_describe(&w, result);
    pw_destroy(&w);
    return 0;
}

void placement_split(const struct placement_set *sets, uint32_t partitions, struct placement_set *out)
{
    memmove(out, sets, partitions * sizeof(*sets));
    memcpy(out + partitions, out, partitions * sizeof(*sets));
}

uint32_t placement_partitions_default(uint32_t modules)
{
    uint32_t n = 64;
    while (n < 4096 && n < (uint64_t)modules * 32)
        n *= 2;
    return n;
}
