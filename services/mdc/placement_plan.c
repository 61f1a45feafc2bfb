/* placement_plan.c: see placement_plan.h. */
#include "services/mdc/placement_plan.h"

#include <stdlib.h>
#include <string.h>

struct plan_module {
    uint32_t id;
    bool answers; /* and is not away */
    uint32_t busy;
};
#define COMPLETE UINT8_MAX
struct plan {
    struct plan_module *m;
    uint32_t count;
    uint8_t
        *copies; /* in-sync members that answer, of each partition; COMPLETE: all who are wanted are there */
    const struct placement_set *now, *wanted;
    const struct placement_limits *limits;
    struct placement_change *out;
    uint32_t capacity, total;
    struct placement_progress *progress;
};

static int by_id(const void *a, const void *b)
{
    const struct plan_module *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static struct plan_module *module_of(const struct plan *pl, uint32_t id)
{
    const struct plan_module key = {.id = id};
    return bsearch(&key, pl->m, pl->count, sizeof(*pl->m), by_id);
}

static bool answers(const struct plan *pl, uint32_t id)
{
    const struct plan_module *m = module_of(pl, id);
    return m != NULL && m->answers;
}

static uint32_t *member(struct placement_set *s, uint32_t id)
{
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        if (id != 0 && TABLE_MEMBER_ID(s->members[k]) == id)
            return &s->members[k];
    }
    return NULL;
}

void placement_apply(const struct placement_change *c, struct placement_set *set)
{
    uint32_t *m = member(set, c->module), *instead;
    unsigned n = 0;
    while (n < TABLE_MEMBERS_MAX && set->members[n] != 0)
        n++;
    switch ((enum placement_change_kind)c->kind) {
    case PLACEMENT_JOIN:
        if (m != NULL || n == TABLE_MEMBERS_MAX)
            return;
        set->members[n] = c->module;
        instead = member(set, c->instead);
        if (instead != NULL)
            *instead |= TABLE_MEMBER_LEAVING;
        return;
    case PLACEMENT_LEAVE:
        if (m == NULL)
            return;
        memmove(m, m + 1, (size_t)(&set->members[TABLE_MEMBERS_MAX] - (m + 1)) * sizeof(*m));
        set->members[TABLE_MEMBERS_MAX - 1] = 0;
        return;
    case PLACEMENT_STAY:
        if (m != NULL)
            *m &= ~TABLE_MEMBER_LEAVING;
        return;
    }
}

static bool put(struct plan *pl, uint32_t p, enum placement_change_kind kind, uint32_t module,
                uint32_t instead)
{
    if (pl->progress->changes == pl->capacity)
        return false;
    pl->out[pl->progress->changes++] = (struct placement_change){
        .partition = p, .kind = (uint8_t)kind, .module = module, .instead = instead};
    return true;
}

/* ---- one partition as it is ---- */

struct view {
    uint32_t source;  /* in-sync member that answers, the first: the primary; 0 = none */
    uint32_t copies;  /* in-sync members that answer */
    uint32_t wanted;  /* members wanted */
    uint32_t present; /* of them there */
    uint32_t good;    /* of them in sync, and answering */
    uint32_t room;    /* free places */
};

static struct view look(const struct plan *pl, uint32_t p)
{
    struct view v = {.room = 0};
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t m = pl->now[p].members[k], id = TABLE_MEMBER_ID(m);
        const bool good = (m & TABLE_MEMBER_IN_SYNC) && answers(pl, id);
        const bool wanted = placement_set_has(&pl->wanted[p], id);
        v.room += id == 0;
        v.copies += good;
        v.present += wanted;
        v.good += wanted && good;
        v.wanted += pl->wanted[p].members[k] != 0;
        if (good && v.source == 0)
            v.source = id;
    }
    return v;
}

/* Copies that are on their way already. */
static void count_busy(struct plan *pl, uint32_t p)
{
    const struct view v = look(pl, p);
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t m = pl->now[p].members[k];
        struct plan_module *to = module_of(pl, TABLE_MEMBER_ID(m)), *from = module_of(pl, v.source);
        if (to == NULL || (m & TABLE_MEMBER_IN_SYNC))
            continue;
        pl->progress->moving += placement_set_has(&pl->wanted[p], to->id);
        if (!to->answers || from == NULL)
            continue;
        to->busy++;
        from->busy++;
        pl->total++;
    }
}

/* ---- who stays, who may go ---- */

/*
 * Who is not wanted goes when all who are wanted are in sync and answer. One that is not in sync itself, and
 * answers, was on its way when something changed: it goes as soon as the others are there, for it is sent
 * what they need.
 */
static void settle(struct plan *pl, uint32_t p)
{
    const struct view v = look(pl, p);
    pl->copies[p] = v.present < v.wanted ? (uint8_t)v.copies : COMPLETE;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t m = pl->now[p].members[k], id = TABLE_MEMBER_ID(m);
        if (id == 0)
            continue;
        if (placement_set_has(&pl->wanted[p], id)) {
            if (m & TABLE_MEMBER_LEAVING)
                put(pl, p, PLACEMENT_STAY, id, 0);
            continue;
        }
        const bool useless = !(m & TABLE_MEMBER_IN_SYNC) && answers(pl, id) && v.present == v.wanted;
        const bool may = v.wanted != 0 && (v.good == v.wanted || (useless && v.copies != 0));
        if (!may || !put(pl, p, PLACEMENT_LEAVE, id, 0))
            pl->progress->leaving++;
    }
}

/* ---- who joins ---- */

/* Whose copy the next to join takes over: one that is not wanted and is not replaced yet (taken: by changes
 * of this call); those that do not answer, then those not in sync, first. */
static uint32_t replaced_by_next(const struct plan *pl, uint32_t p, const struct placement_set *taken)
{
    uint32_t best = 0;
    int best_rank = 3;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t m = pl->now[p].members[k], id = TABLE_MEMBER_ID(m);
        if (id == 0 || (m & TABLE_MEMBER_LEAVING) || placement_set_has(&pl->wanted[p], id) ||
            placement_set_has(taken, id))
            continue;
        const int rank = !answers(pl, id) ? 0 : (m & TABLE_MEMBER_IN_SYNC) ? 2 : 1;
        if (rank < best_rank) {
            best_rank = rank;
            best = id;
        }
    }
    return best;
}

static bool has_time(const struct plan *pl, const struct plan_module *m)
{
    return m != NULL && m->answers && m->busy < pl->limits->per_module;
}

static void join(struct plan *pl, uint32_t p)
{
    struct view v = look(pl, p);
    struct placement_set taken = {{0}};
    uint32_t begun = 0;
    if (v.present < v.wanted && v.source == 0)
        pl->progress->stuck++;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t id = TABLE_MEMBER_ID(pl->wanted[p].members[k]);
        if (id == 0 || placement_set_has(&pl->now[p], id))
            continue;
        struct plan_module *to = module_of(pl, id), *from = module_of(pl, v.source);
        const uint32_t instead = replaced_by_next(pl, p, &taken);
        if (v.room == 0 || pl->total >= pl->limits->total || !has_time(pl, to) || !has_time(pl, from) ||
            !put(pl, p, PLACEMENT_JOIN, id, instead)) {
            pl->progress->waiting++;
            continue;
        }
        to->busy++;
        from->busy++;
        pl->total++;
        v.room--;
        taken.members[begun++] = instead;
    }
}

int placement_plan(const struct placement_module *modules, const bool *silent, uint32_t count,
                   uint32_t partitions, const struct placement_set *now, const struct placement_set *wanted,
                   const struct placement_limits *limits, struct placement_change *out, uint32_t capacity,
                   struct placement_progress *progress)
{
    struct plan pl = {.count = count,
                      .now = now,
                      .wanted = wanted,
                      .limits = limits,
                      .out = out,
                      .capacity = capacity,
                      .progress = progress};
    if (count == 0 || count > PLACEMENT_MODULES_MAX || partitions > PLACEMENT_PARTITIONS_MAX)
        return -EINVAL;
    pl.m = malloc(count * sizeof(*pl.m) + partitions);
    if (pl.m == NULL)
        return -ENOMEM;
    pl.copies = (uint8_t *)(pl.m + count);
    for (uint32_t i = 0; i < count; i++)
        pl.m[i] = (struct plan_module){.id = modules[i].id,
                                       .answers = modules[i].state != PLACEMENT_AWAY &&
                                                  (silent == NULL || !silent[i])};
    qsort(pl.m, count, sizeof(*pl.m), by_id);
    for (uint32_t i = 1; i < count; i++) {
        if (pl.m[i].id == pl.m[i - 1].id) {
            free(pl.m);
            return -EINVAL;
        }
    }
    memset(progress, 0, sizeof(*progress));
    for (uint32_t p = 0; p < partitions; p++)
        count_busy(&pl, p);
    for (uint32_t p = 0; p < partitions; p++)
        settle(&pl, p);
    for (uint32_t copies = 0; copies <= TABLE_MEMBERS_MAX; copies++) { /* who has the fewest comes first */
        for (uint32_t p = 0; p < partitions; p++) {
            if (pl.copies[p] == copies)
                join(&pl, p);
        }
    }
    free(pl.m);
    return 0;
}
