/* directed.c: see directed.h. */
#include "tests/sim/directed.h"

#include "services/mdc/mdc_internal.h"
#include "services/rwm/rwm_copies.h"
#include "services/rwm/store_internal.h"
#include "tests/sim/client.h"
#include "tests/sim/cluster.h"
#include "tests/sim/copies.h"
#include "tests/sim/moves.h"
#include "tests/sim/plays.h"

static uint32_t host(unsigned number)
{
    return number + 1;
}

static bool is_module(const struct sim_proc *p)
{
    return p->kind == SIM_OSD || p->kind == SIM_SAN;
}

static bool is_sender(const struct sim_proc *p)
{
    return p->kind == SIM_CLIENT || p->kind == SIM_GATEWAY;
}

static uint64_t now_of(const struct sim_cluster *c)
{
    return sim_world_now(c->world);
}

static unsigned some_module(struct sim_cluster *c)
{
    return 1 + (unsigned)rng_below(&c->rng, SIM_OSDS + 1);
}

/* ---- equal-with-writes-under-way ---- */
/* The last blocks that a member lacks are on their way to it. */
static bool last_blocks(const struct sim_cluster *c, const struct rwm *m, unsigned *member)
{
    list_for_each(n, &m->copies)
    {
        struct rwm_copies *p = list_entry(n, struct rwm_copies, link);
        if (p->state != COPIES_SERVING)
            continue;
        rwm_each_copy(k, p)
        {
            if (k->in_sync || !k->joined || !k->walk || !k->walked || k->to_go > 0 || k->reading == 0 ||
                k->reading != k->copying || k->peer->turns_told < m->turn_serial)
                continue;
            *member = sim_scene_process(c, k->module);
            return *member < SIM_PROCS;
        }
    }
    return false;
}

static void hold_forwards(struct sim_cluster *c, unsigned primary, unsigned member)
{
    sim_net_delay(c->net, host(primary), host(member), c->scenes.hold_ns + sim_scene_within(c, 2, 40));
}

/*
 * The member's medium holds the last blocks up; what is written meanwhile is forwarded to it, and held up on
 * the way until it is in sync by an epoch in which it takes none of that any more.
 */
static void play_under_way(struct sim_cluster *c, unsigned primary, unsigned member)
{
    struct sim_proc *p = &c->procs[member];
    uint64_t until = now_of(c) + sim_scene_within(c, 5, 40);
    (void)primary;
    sim_medium_stall(p->data, until);
    if (p->log)
        sim_medium_stall(p->log, until);
    c->scenes.hold_ns = until;
    sim_deed_call(c, rng_below(&c->rng, 2 * NS_PER_MS), hold_forwards, primary, member);
    uint64_t end = until - now_of(c) + sim_scene_within(c, 45, 90);
    if (rng_chance(&c->rng, 2, 3))
        sim_deed(c, end, DEED_KILL, primary, 500, false);
    if (rng_chance(&c->rng, 1, 3))
        sim_scene_clients_gone(c, until - now_of(c));
}

/* ---- claimed-does-not-promise ---- */
/* A member was just reported as equal, and clients read at the primary. */
static bool reported(const struct sim_cluster *c, const struct rwm *m, unsigned *member)
{
    if (!sim_scene_reads(m))
        return false;
    list_for_each(n, &m->copies)
    {
        struct rwm_copies *p = list_entry(n, struct rwm_copies, link);
        if (p->state != COPIES_SERVING)
            continue;
        rwm_each_copy(k, p)
        {
            *member = sim_scene_process(c, k->module);
            if (k->claimed && !k->in_sync && k->joined && *member < SIM_PROCS)
                return true;
        }
    }
    return false;
}

/* The primary does not hear what became of its report; then it goes on with its readers, and hears nobody. */
static void unheard(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t for_ns = 1200 * NS_PER_MS;
    sim_scene_cut(c, 0, primary, false, for_ns);
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        const struct sim_proc *p = &c->procs[i];
        if (is_sender(p) && !(p->client && sim_client_reads(p->client)))
            sim_scene_cut(c, i, primary, true, for_ns);
    }
    sim_deed_call(c, sim_scene_within(c, 2, 8), sim_play_deaf, primary, member);
}

static void play_unheard(struct sim_cluster *c, unsigned primary, unsigned member)
{
    (void)primary;
    (void)member;
    unsigned who = some_module(c);
    sim_deed(c, 0, DEED_KILL, who, 0, false);
    sim_deed(c, rng_below(&c->rng, 30 * NS_PER_MS), DEED_START, who, 0, false);
    sim_scene_await(c, reported, unheard, 2 * NS_PER_S);
}

/* ---- turns-stay-behind ---- */
/* A write is on its way to a member. */
static bool writes(const struct sim_cluster *c, const struct rwm *m, unsigned *member)
{
    list_for_each(n, &m->copies)
    {
        struct rwm_copies *p = list_entry(n, struct rwm_copies, link);
        if (p->state != COPIES_SERVING || list_empty(&p->flight))
            continue;
        rwm_each_copy(k, p)
        {
            *member = sim_scene_process(c, k->module);
            if (k->in_sync && *member < SIM_PROCS)
                return true;
        }
    }
    return false;
}

/*
 * A member that was away, and may not join anything yet, has not heard what the hosts of one gateway do now:
 * they go to the other one, of which it hears nothing, and write the same again before they are gone. Then
 * the member is filled, and is the primary when the gateway sends what it has in hand to somebody who lives.
 */
static void hosts_leave(struct sim_cluster *c, unsigned primary, unsigned gateway)
{
    uint64_t now = now_of(c), lost = 2 * NS_PER_US + rng_below(&c->rng, 2 * NS_PER_MS);
    (void)primary;
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        struct sim_proc *p = &c->procs[i];
        if (is_module(p))
            sim_net_delay(c->net, host(gateway), host(i), now + 600 * NS_PER_MS);
        if (p->kind != SIM_CLIENT)
            continue;
        p->lose_at = now + lost;
        sim_deed(c, lost - NS_PER_US, DEED_CUT, i, gateway, true);
        sim_deed(c, 2 * NS_PER_S, DEED_HEAL, i, gateway, true);
        sim_deed(c, sim_scene_within(c, 20, 90), DEED_KILL, i, 2000, false);
    }
}

/* A gateway has something of its hosts in hand. */
static bool in_hand(const struct sim_cluster *c, const struct rwm *m, unsigned *gateway)
{
    (void)m;
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        struct gateway_stats stats;
        if (!c->procs[i].gateway || c->procs[i].paused)
            continue;
        gateway_stats_get(c->procs[i].gateway, &stats);
        *gateway = i;
        if (stats.requests_active > 0)
            return true;
    }
    return false;
}

static void await_gateway(struct sim_cluster *c, unsigned primary, unsigned member)
{
    (void)primary;
    (void)member;
    sim_scene_await(c, in_hand, hosts_leave, 100 * NS_PER_MS);
}

static void play_filled(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t up = sim_scene_within(c, 30, 60);
    sim_deed(c, 0, DEED_KILL, member, 0, false);
    sim_deed(c, up, DEED_START, member, 0, false);
    sim_deed_call(c, up + sim_scene_within(c, 300, 400), await_gateway, primary, member);
    sim_deed(c, up + sim_scene_within(c, 650, 850), DEED_KILL, primary, 1500, false);
    c->ghosts++;
}

/* ---- keep-older-connection ---- */
/* What a client with tables has under way to the modules is held up; it comes back by new connections. */
static void play_older(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t now = now_of(c), until = now + sim_scene_within(c, 10, 400);
    (void)primary;
    (void)member;
    for (unsigned n = 0; n < SIM_CLIENTS; n++) {
        struct sim_proc *p = sim_cluster_proc(c, SIM_CLIENT, n);
        if (!p->alive || rng_chance(&c->rng, 1, 3))
            continue;
        for (unsigned i = 0; i < SIM_PROCS; i++)
            if (is_module(&c->procs[i]))
                sim_net_delay(c->net, host(p->number), host(i), until);
        p->lose_at = now + rng_below(&c->rng, 4 * NS_PER_MS);
    }
    c->ghosts++;
}

/* ---- one-copy-goes-on ---- */
/* Somebody else is to have the partition, too, says the controller; m, a disk with a journal of its own, had
 * it alone until now, and has not heard of it. */
static const struct table_partition *shared_soon(const struct sim_cluster *c, const struct rwm *m, uint32_t i)
{
    const struct table *t = c->procs[0].mdc ? mdc_table(c->procs[0].mdc) : NULL;
    const struct table_pool *pool = t ? table_pool_by_id(t, 1) : NULL;
    if (!pool || pool->partitions != m->part_count || !m->parts[i].primary || m->parts[i].copies)
        return NULL;
    const struct table_partition *p = table_partition_at(t, pool, i);
    bool soon =
        p && p->epoch > m->parts[i].epoch && table_partition_primary(p) == m->id && p->members[1] != 0;
    return soon ? p : NULL;
}

static bool about_to_share(const struct sim_cluster *c, const struct rwm *m, unsigned *member)
{
    const unsigned me = sim_scene_process(c, m->id);
    for (uint32_t i = 0; me < SIM_PROCS && c->procs[me].log && i < m->part_count; i++) {
        const struct table_partition *p = shared_soon(c, m, i);
        *member = p ? sim_scene_process(c, TABLE_MEMBER_ID(p->members[1])) : SIM_PROCS;
        if (*member < SIM_PROCS)
            return true;
    }
    return false;
}

/* It is about to take that over: its records are on their way to the journal. */
static bool takes_over(const struct sim_cluster *c, const struct rwm *m, unsigned *member)
{
    for (uint32_t i = 0; m->apply.out > 0 && i < m->part_count; i++) {
        *member = 0;
        if (m->parts[i].dirty && m->parts[i].staged_primary && shared_soon(c, m, i))
            return true;
    }
    return false;
}

/* What it writes from now on, alone for the last moment, takes long. */
static void hold_data(struct sim_cluster *c, unsigned primary, unsigned member)
{
    (void)member;
    sim_medium_stall(c->procs[primary].data, c->scenes.hold_ns + sim_scene_within(c, 30, 300));
}

static void hold_journal(struct sim_cluster *c, unsigned primary, unsigned member)
{
    (void)member;
    c->scenes.hold_ns = now_of(c) + sim_scene_within(c, 5, 60);
    sim_medium_stall(c->procs[primary].log, c->scenes.hold_ns);
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (is_sender(&c->procs[i])) /* else they wait for it to take over what they know already */
            sim_scene_cut(c, 0, i, false, c->scenes.hold_ns - now_of(c));
    sim_scene_await(c, takes_over, hold_data, c->scenes.hold_ns - now_of(c));
}

static void play_alone(struct sim_cluster *c, unsigned primary, unsigned member)
{
    (void)primary;
    (void)member;
    sim_moves_drain(c, some_module(c), rng_chance(&c->rng, 1, 2));
    sim_scene_await(c, about_to_share, hold_journal, NS_PER_S);
}

/* ---- join-beside-a-removal ---- */
/* m removes what it has left. */
static bool removes(const struct sim_cluster *c, const struct rwm *m, unsigned *member)
{
    (void)c;
    *member = 0;
    return m->leave.parts > 0 && m->leave.out > 0;
}

/* Its media stand still, and are slow then, while it becomes a member again. */
static void quick_again(struct sim_cluster *c, unsigned primary, unsigned member)
{
    struct sim_proc *p = &c->procs[primary];
    (void)member;
    if (p->data)
        sim_medium_slow(p->data, 1);
    if (p->log)
        sim_medium_slow(p->log, 1);
}

static void back_again(struct sim_cluster *c, unsigned primary, unsigned member)
{
    struct sim_proc *p = &c->procs[primary];
    uint64_t until = now_of(c) + sim_scene_within(c, 30, 120);
    (void)member;
    struct sim_medium *m = p->log ? p->log : p->data;
    if (!m)
        return;
    sim_medium_stall(m, until);
    sim_medium_slow(m, 20 + rng_below(&c->rng, 40));
    sim_moves_drain(c, p->rwm->id, true);
    sim_deed_call(c, until - now_of(c) + 60 * NS_PER_MS, quick_again, primary, 0);
}

static void play_back_again(struct sim_cluster *c, unsigned primary, unsigned member)
{
    (void)primary;
    (void)member;
    sim_moves_drain(c, some_module(c), false);
    sim_scene_await(c, removes, back_again, 2 * NS_PER_S);
}

/* ---- dropped-for-a-lost-session ---- */
/* Copies move once more, so that the last epochs that a module took over are of partitions that it left. */
static void rest_elsewhere(struct sim_cluster *c)
{
    for (unsigned i = 0; i < 3; i++) {
        uint32_t module = 1 + (uint32_t)rng_below(&c->rng, SIM_OSDS + 1);
        sim_moves_drain(c, module, true);
        if (!sim_advance(c, 300 * NS_PER_MS))
            return;
        sim_moves_weigh(c, module, (1 + rng_below(&c->rng, 8)) * 16 * MIB);
        if (!sim_advance(c, 900 * NS_PER_MS))
            return;
    }
}

/* ---- which seeds have which ---- */
static void few_places(struct sim_shape *s)
{
    s->focus = 2;
    s->tight = s->resizes = s->restores = false;
    s->medium_bytes = 96 * MIB;
}

static void same_places(struct sim_shape *s)
{
    few_places(s);
    s->rewrite = true;
}

static void same_places_calm(struct sim_shape *s)
{
    same_places(s);
    s->fast_fail = s->busy_gateways = true;
    s->calm = 6;
}

static void whole_blocks(struct sim_shape *s)
{
    few_places(s);
    s->logs = s->fresh = true;
    s->focus = 0;
    s->calm = 6;
    s->think_ns = 200 * NS_PER_US;
}

static void many_blocks(struct sim_shape *s)
{
    few_places(s);
    s->focus = 0;
}

/* What one of them is called for must not change where others are added: their places are their numbers. */
static const struct sim_directed still[] = {
    {.least = 2, .most = 3, .moment = last_blocks, .begin = play_under_way, .last = true},
    {.least = 2, .most = 2, .begin = play_unheard, .shape = few_places},
    {.least = 2, .most = 2, .moment = writes, .begin = play_filled, .shape = same_places_calm},
    {.least = 1, .most = 3, .begin = play_older, .shape = same_places},
};
static const struct sim_directed moving[] = {
    {.least = 1, .most = 1, .begin = play_alone, .shape = whole_blocks},
    {.least = 1, .most = 3, .begin = play_back_again, .shape = many_blocks},
    {.least = 2, .most = 3, .rest = rest_elsewhere},
};

const struct sim_directed *sim_directed_of(const struct sim_options *o)
{
    const struct sim_directed *all = o->moves ? moving : still;
    unsigned count = o->moves ? ARRAY_LEN(moving) : ARRAY_LEN(still);
    uint64_t h = (o->seed * 8 + o->copies * 2 + o->moves) * 0x9e3779b97f4a7c15ull;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9ull;
    h ^= h >> 32;
    h %= o->moves ? 10 : 40;
    if (o->rot || o->no_faults || h >= count || o->copies < all[h].least || o->copies > all[h].most)
        return NULL;
    return &all[h];
}
