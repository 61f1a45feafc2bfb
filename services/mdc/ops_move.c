/*
 * ops_move.c: the mover. Each pool's members are held against what the placement wants, and brought there by
 * new epochs, a few at a time: a new member comes in that is not in sync, the primary fills it and reports it
 * (ops_member.c), then the one that it replaces goes. docs/replication.md, "Moving copies".
 *
 * Nothing is kept but the records themselves: after a restart of this controller the next look goes on from
 * what they say.
 */
#include "services/mdc/ops_place.h"
#include "services/mdc/placement_plan.h"

#include <stdlib.h>
#include <string.h>

#define CHANGES_MAX 256u /* of one look */
/* Primaries are changed one at a time, so far apart: each makes the requests to its partition wait for a
 * moment. */
#define HANDOVER_NS (500u * NS_PER_MS)

/* ---- a pool as it is, and as it should be ---- */

/*
 * A damaged store stays damaged until it is made anew, and what its module holds does not count. Others make
 * copies elsewhere, never it: so where it has the only copy, as in all of a pool with one, there is nothing
 * to be done without an operator.
 */
bool mdc_module_away(const struct mdc_state *s, const struct mdc_module *m, uint64_t now_ns)
{
    if (m->damaged && m->rec.pool != 0 && s->pools[m->rec.pool - 1].rec.copies > 1 &&
        now_ns - m->damaged_ns > s->moves.replace_ns)
        return true;
    return m->down && now_ns - m->heard_ns > s->moves.replace_ns;
}

void mdc_sight_free(struct mdc_sight *g)
{
    mdc_layout_free(&g->layout);
    free(g->silent);
    free(g->now);
    free(g->wanted);
    memset(g, 0, sizeof(*g));
}

int mdc_sight_make(struct mdc_state *s, const struct mdc_pool *pool, uint64_t now_ns, struct mdc_sight *out)
{
    struct mdc_sight g = {.silent = NULL};
    int rc = mdc_layout_of_pool(s, pool, &g.layout);
    if (rc != 0)
        return rc;
    g.silent = calloc(g.layout.count + 1, sizeof(*g.silent));
    g.now = mdc_sets_of(s, pool);
    g.wanted = calloc(pool->rec.partitions, sizeof(*g.wanted));
    for (uint32_t i = 0; g.silent != NULL && i < g.layout.count; i++) {
        const struct mdc_module *m = g.layout.of[i];
        g.silent[i] = !mdc_module_alive(m);
        if (mdc_module_away(s, m, now_ns))
            g.layout.modules[i].state = PLACEMENT_AWAY;
    }
    rc = g.silent != NULL && g.now != NULL && g.wanted != NULL
             ? placement_assign(&g.layout.rule, g.layout.modules, g.layout.count, pool->rec.partitions, g.now,
                                g.wanted, &g.result)
             : -ENOMEM;
    if (rc != 0) {
        mdc_sight_free(&g);
        return rc;
    }
    *out = g;
    return 0;
}

/* ---- carrying out ---- */

static bool answers(struct mdc_state *s, uint32_t id)
{
    const struct mdc_module *m = mdc_module_by_id(s, id);
    return m != NULL && mdc_module_alive(m);
}

/*
 * May the module leave the partition? Only when as many members as the pool keeps copies are in sync and
 * answer without it; so a pool with too few modules keeps what it has. One that is not in sync, and answers,
 * was on its way and is not wanted any more: it may go while anybody is in sync.
 */
static bool may_leave(struct mdc_state *s, const struct record_partition *p, uint32_t module, uint8_t copies)
{
    unsigned others = 0;
    bool in_sync = false;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t id = TABLE_MEMBER_ID(p->members[k]);
        const bool synced = (p->members[k] & TABLE_MEMBER_IN_SYNC) != 0;
        in_sync |= id == module && synced;
        others += id != module && synced && answers(s, id);
    }
    return others >= copies || (others != 0 && !in_sync && answers(s, module));
}

static void set_members(struct mdc_decision *d, uint32_t index, const struct placement_set *set)
{
    struct record_partition *p = &d->state->partitions[index];
    memcpy(p->members, set->members, sizeof(p->members));
    mdc_members_sort(p);
    mdc_member_new_epoch(d, index);
}

/* False: it is not done now. */
static bool carry_out(struct mdc_decision *d, const struct mdc_pool *pool,
                      const struct placement_change *change)
{
    const uint32_t index = pool->rec.first_partition + change->partition;
    const struct record_partition *p = &d->state->partitions[index];
    struct placement_set set;
    if (change->kind == PLACEMENT_LEAVE && !may_leave(d->state, p, change->module, pool->rec.copies))
        return false;
    memcpy(set.members, p->members, sizeof(set.members));
    placement_apply(change, &set);
    if (memcmp(set.members, p->members, sizeof(set.members)) == 0)
        return false;
    set_members(d, index, &set);
    return true;
}

static int make_moves(struct mdc_decision *d, struct mdc_pool *pool, const struct mdc_sight *g)
{
    struct mdc_state *s = d->state;
    struct mdc_moving *mv = &pool->moving;
    const struct placement_limits limits = {.per_module = s->moves.per_module, .total = s->moves.total};
    struct placement_change changes[CHANGES_MAX];
    struct placement_progress progress;
    bool any = false;
    int rc = placement_plan(g->layout.modules, g->silent, g->layout.count, pool->rec.partitions, g->now,
                            g->wanted, &limits, changes, CHANGES_MAX, &progress);
    if (rc != 0)
        return rc;
    mv->joining = progress.moving;
    mv->waiting = progress.waiting;
    mv->leaving = progress.leaving;
    mv->stuck = progress.stuck;
    for (uint32_t i = 0; i < progress.changes; i++) {
        const bool done = carry_out(d, pool, &changes[i]);
        any |= done;
        mv->joining += done && changes[i].kind == PLACEMENT_JOIN;
        mv->leaving += !done && changes[i].kind == PLACEMENT_LEAVE;
    }
    if (any)
        mdc_pool_count_partitions(s, pool);
    return 0;
}

/* ---- primaries ---- */

static bool at_rest(const struct mdc_state *s, const struct mdc_pool *pool)
{
    const struct mdc_moving *mv = &pool->moving;
    if (mv->joining + mv->waiting + mv->leaving + mv->stuck != 0)
        return false;
    for (uint32_t i = 0; i < pool->rec.partitions; i++) {
        const uint32_t *members = s->partitions[pool->rec.first_partition + i].members;
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
            if (members[k] != 0 && !(members[k] & TABLE_MEMBER_IN_SYNC))
                return false;
        }
    }
    return true;
}

static bool all_answer(const struct mdc_sight *g)
{
    for (uint32_t i = 0; i < g->layout.count; i++) {
        if (g->silent[i] && g->layout.modules[i].state != PLACEMENT_AWAY)
            return false;
    }
    return true;
}

/* One partition whose primary is to be another member. -EAGAIN: there are more. */
static int spread_primaries(struct mdc_decision *d, struct mdc_pool *pool, struct mdc_sight *g)
{
    uint32_t changed = 0;
    int rc = placement_primaries(g->layout.modules, g->layout.count, pool->rec.partitions, g->now, &changed);
    if (rc != 0 || changed == 0)
        return rc;
    for (uint32_t i = 0; i < pool->rec.partitions; i++) {
        const uint32_t index = pool->rec.first_partition + i;
        if (placement_set_primary(&g->now[i]) == mdc_partition_primary(&d->state->partitions[index]))
            continue;
        set_members(d, index, &g->now[i]);
        pool->moving.handover_ns = d->now_ns;
        return changed > 1 ? -EAGAIN : 0;
    }
    return 0;
}

static void look_at_primaries(struct mdc_decision *d, struct mdc_pool *pool, struct mdc_sight *g)
{
    struct mdc_moving *mv = &pool->moving;
    if (!at_rest(d->state, pool) || !all_answer(g)) {
        mv->rest_ns = 0;
        return;
    }
    if (pool->rec.copies < 2)
        return;
    if (mv->rest_ns == 0)
        mv->rest_ns = d->now_ns;
    const uint64_t due = max_u64(mv->rest_ns + d->state->moves.rest_ns, mv->handover_ns + HANDOVER_NS);
    if (d->now_ns < due)
        mv->look_ns = min_u64(mv->look_ns, due);
    else if (spread_primaries(d, pool, g) == -EAGAIN)
        mv->look_ns = min_u64(mv->look_ns, d->now_ns + HANDOVER_NS);
}

/* ---- modules that are taken out ---- */

/* It holds nothing of the pool any more, and has said so; or it is not there to say anything. */
static bool is_empty(struct mdc_decision *d, struct mdc_module *m)
{
    struct mdc_state *s = d->state;
    if (m->partitions != 0) {
        m->empty_version = 0;
        return false;
    }
    if (!mdc_module_serves(m))
        return true;
    if (m->empty_version == 0 && mdc_tx_publishes(d->tx))
        return false; /* at the next look its version is known */
    if (m->empty_version == 0)
        m->empty_version = s->version;
    return m->leaving_blocks == 0 && m->applied_term == s->term && m->applied_version >= m->empty_version;
}

/* True: some are not empty yet. */
static bool take_out_empty(struct mdc_decision *d, const struct mdc_pool *pool)
{
    struct mdc_state *s = d->state;
    bool wait = false;
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0 || m->rec.pool != pool->rec.id || m->rec.draining != RECORD_REMOVING)
            continue;
        if (!is_empty(d, m)) {
            wait = true;
            continue;
        }
        m->rec.pool = 0;
        m->rec.draining = 0;
        m->empty_version = 0;
        mdc_tx_record(d->tx, TABLE_MODULE, i);
    }
    return wait;
}

/* ---- looking ---- */

/* All modules of the pool were heard since this controller started, or are known to be down: so who is away
 * is known, and nobody has an epoch that is not. */
static bool all_heard(const struct mdc_state *s, const struct mdc_pool *pool)
{
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        const struct mdc_module *m = &s->modules[i];
        if (m->rec.id != 0 && m->rec.pool == pool->rec.id && !m->registered && !m->down)
            return false;
    }
    return true;
}

static uint32_t count_away(const struct mdc_sight *g)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->layout.count; i++)
        n += g->layout.modules[i].state == PLACEMENT_AWAY;
    return n;
}

static void look(struct mdc_decision *d, struct mdc_pool *pool)
{
    struct mdc_state *s = d->state;
    struct mdc_moving *mv = &pool->moving;
    struct mdc_sight g;
    const uint64_t soon = d->now_ns + (uint64_t)s->heartbeat_ms * NS_PER_MS;
    mv->look_ns = soon;
    if (!all_heard(s, pool) || mdc_unheard(d, pool->rec.id) != NULL || !mdc_pool_settled(s, pool))
        return;
    const bool removing = take_out_empty(d, pool);
    if (mdc_sight_make(s, pool, d->now_ns, &g) != 0)
        return;
    mv->away = count_away(&g);
    mv->missing = pool->rec.copies > g.result.copies ? (uint32_t)(pool->rec.copies - g.result.copies) : 0;
    if (make_moves(d, pool, &g) == 0) {
        const bool calm = mv->joining + mv->waiting + mv->leaving + mv->stuck == 0;
        /* Time alone makes modules be away, and members that are silent answer again. */
        if (calm && !removing && all_answer(&g))
            mv->look_ns = UINT64_MAX;
        look_at_primaries(d, pool, &g);
    }
    mdc_sight_free(&g);
}

void mdc_move_advance(struct mdc_decision *d)
{
    struct mdc_state *s = d->state;
    if (!s->move_due)
        return;
    s->move_due = false;
    for (uint32_t i = 0; i < s->limits.pools; i++) {
        if (s->pools[i].rec.id != 0 && s->pools[i].moving.look_ns <= d->now_ns)
            look(d, &s->pools[i]);
    }
}

bool mdc_move_is_due(struct mdc_state *s, uint64_t now_ns)
{
    for (uint32_t i = 0; i < s->limits.pools; i++)
        s->move_due |= s->pools[i].rec.id != 0 && s->pools[i].moving.look_ns <= now_ns;
    return s->move_due;
}

static uint32_t pool_of_change(const struct mdc_state *s, const struct tx_change *c)
{
    if (c->what != TX_PUBLISH)
        return 0;
    if (c->kind == TABLE_PARTITION)
        return s->partition_pool[c->index];
    if (c->kind == TABLE_MODULE)
        return s->modules[c->index].rec.id != 0 ? s->modules[c->index].rec.pool : 0;
    return 0;
}

bool mdc_move_note(struct mdc_state *s, const struct mdc_tx *tx)
{
    bool any = false;
    for (size_t i = 0; i < tx->count; i++) {
        const uint32_t id = pool_of_change(s, &tx->changes[i]);
        if (id == 0 || s->pools[id - 1].rec.id == 0)
            continue;
        s->pools[id - 1].moving.look_ns = 0;
        any = true;
    }
    return any;
}
