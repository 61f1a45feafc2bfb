/* stage.c: see stage.h. */
#include "tests/sim/stage.h"

#include <stdio.h>

#include "services/mdc/mdc_internal.h"
#include "services/rwm/rwm_copies.h"
#include "tests/sim/admin.h"
#include "tests/sim/copies.h"
#include "tests/sim/setup.h"

struct sim_proc *stage_client(struct sim_cluster *c, unsigned client)
{
    return sim_cluster_proc(c, SIM_CLIENT, client);
}

static unsigned proc_of(const struct sim_cluster *c, uint32_t module)
{
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].alive && c->procs[i].rwm && c->procs[i].rwm->id == module)
            return i;
    return SIM_PROCS;
}

static void cast_add(const struct sim_cluster *c, struct stage_cast *out, const struct table_partition *p,
                     bool in_sync)
{
    for (unsigned i = 0; i < TABLE_MEMBERS_MAX && p->members[i] != 0; i++) {
        unsigned proc = proc_of(c, TABLE_MEMBER_ID(p->members[i]));
        if (((p->members[i] & TABLE_MEMBER_IN_SYNC) != 0) == in_sync && proc < SIM_PROCS &&
            out->count < ARRAY_LEN(out->proc))
            out->proc[out->count++] = proc;
    }
    if (in_sync)
        out->in_sync = out->count;
}

bool stage_cast(struct sim_cluster *c, unsigned volume, unsigned group, struct stage_cast *out)
{
    const struct mdc *mdc = c->procs[0].mdc;
    const struct table *t = mdc ? mdc_table(mdc) : NULL;
    const struct table_pool *pool = t ? table_pool_by_id(t, 1) : NULL;
    struct mdc_volume *v = mdc ? mdc_volume_by_name(mdc->state, sim_volume_name(volume)) : NULL;
    if (!pool || !v)
        return false;
    *out = (struct stage_cast){0};
    out->partition =
        placement_partition(placement_hash(v->rec.family, sim_client_stripe(group)), pool->partitions);
    const struct table_partition *p = table_partition_at(t, pool, out->partition);
    out->epoch = p->epoch;
    cast_add(c, out, p, true);
    cast_add(c, out, p, false);
    return out->in_sync > 0;
}

struct rwm *stage_module(struct sim_cluster *c, unsigned proc)
{
    return c->procs[proc].alive ? c->procs[proc].rwm : NULL;
}

struct rwm_copies *stage_copies(struct sim_cluster *c, const struct stage_cast *cast, unsigned place)
{
    struct rwm *m = stage_module(c, cast->proc[place]);
    return m ? rwm_copies_of(m, cast->partition) : NULL;
}

/* ---- waiting ---- */
bool stage_until(struct sim_cluster *c, bool (*is)(struct sim_cluster *c, void *arg), void *arg,
                 uint64_t step_ns, uint64_t limit_ns)
{
    uint64_t end = sim_world_now(c->world) + limit_ns;
    while (!is(c, arg))
        if (sim_world_now(c->world) >= end || !sim_advance(c, step_ns))
            return false;
    return true;
}

static bool is_ready(struct sim_cluster *c, void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        const struct sim_proc *p = &c->procs[i];
        struct rwm_stats stats = {0};
        bool away = p->twin && p->twin->alive; /* one agent is enough */
        if (away)
            continue;
        if (!p->alive || p->paused || (p->client && !sim_client_is_open(p->client)))
            return false;
        if (p->rwm)
            rwm_stats_get(p->rwm, &stats);
        if (p->data && (!p->rwm || !stats.serving || stats.copies_missing + stats.partitions_waiting > 0))
            return false;
    }
    struct stage_cast cast;
    return stage_cast(c, 0, 0, &cast) && cast.in_sync == cast.count && cast.count == c->options.copies;
}

bool stage_ready(struct sim_cluster *c, uint64_t limit_ns)
{
    return stage_until(c, is_ready, NULL, 5 * NS_PER_MS, limit_ns);
}

struct begun {
    unsigned client;
    int number;
};

static bool is_ended(struct sim_cluster *c, void *arg)
{
    const struct begun *b = arg;
    const struct sim_proc *p = stage_client(c, b->client);
    return !p->client || sim_client_result(p->client, b->number) != -EINPROGRESS;
}

bool stage_ended(struct sim_cluster *c, unsigned client, int begun, uint64_t limit_ns)
{
    struct begun b = {client, begun};
    if (begun < 0 || !stage_until(c, is_ended, &b, 50 * NS_PER_US, limit_ns))
        return false;
    const struct sim_proc *p = stage_client(c, client);
    return p->client && sim_client_result(p->client, begun) == 0;
}

bool stage_do(struct sim_cluster *c, unsigned client, enum volume_op op, unsigned volume, unsigned group)
{
    return stage_ended(c, client, stage_begin(c, client, op, volume, group), 2 * NS_PER_S);
}

static bool is_admin_done(struct sim_cluster *c, void *arg)
{
    (void)arg;
    return !sim_admin_busy(c);
}

bool stage_admin_done(struct sim_cluster *c, uint64_t limit_ns)
{
    return stage_until(c, is_admin_done, NULL, 100 * NS_PER_US, limit_ns);
}

bool stage_detach(struct sim_cluster *c, unsigned volume, unsigned client, uint64_t limit_ns)
{
    uint64_t before = c->detaches;
    return sim_admin_detach(c, volume, client) && stage_admin_done(c, limit_ns) && c->detaches > before;
}

/* ---- at once ---- */
int stage_begin(struct sim_cluster *c, unsigned client, enum volume_op op, unsigned volume, unsigned group)
{
    const struct sim_proc *p = stage_client(c, client);
    return p->client ? sim_client_do(p->client, op, volume, group) : -EAGAIN;
}

void stage_cut(struct sim_cluster *c, unsigned a, unsigned b)
{
    if (a == b)
        return;
    sim_net_cut(c->net, a + 1, b + 1, true);
    c->cuts++;
}

void stage_delay(struct sim_cluster *c, unsigned from, unsigned to, uint64_t for_ns)
{
    if (from != to)
        sim_net_delay(c->net, from + 1, to + 1, sim_world_now(c->world) + for_ns);
}

void stage_kill(struct sim_cluster *c, unsigned proc, bool power, uint64_t away_ns)
{
    struct sim_proc *p = &c->procs[proc];
    if (p->alive)
        sim_proc_kill(p, power);
    p->up_at = sim_world_now(c->world) + away_ns;
    c->kills++;
    c->power_losses += power;
}

void stage_copy_store(struct sim_cluster *c)
{
    if (c->backup)
        meta_sim_destroy(c->backup);
    c->backup = NULL;
    MUST(meta_sim_snapshot(c->meta, &c->backup) == 0);
}

void stage_restore_store(struct sim_cluster *c, uint64_t away_ns)
{
    if (c->procs[0].alive)
        sim_proc_kill(&c->procs[0], false);
    MUST(meta_sim_restore(c->meta, c->backup) == 0);
    meta_sim_destroy(c->backup);
    c->backup = NULL;
    c->restored_store = true;
    c->procs[0].up_at = sim_world_now(c->world) + away_ns;
    c->restores++;
}
