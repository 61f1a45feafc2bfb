/* plots_restore.c: the metadata store is put back from a copy, and does not know what was decided since. */
#include "services/mdc/mdc_internal.h"
#include "services/rwm/rwm_internal.h"
#include "tests/sim/admin.h"
#include "tests/sim/copies.h"
#include "tests/sim/plots.h"
#include "tests/sim/stage.h"

static bool is_sender(const struct sim_proc *p)
{
    return p->kind == SIM_CLIENT || p->kind == SIM_GATEWAY;
}

static bool is_module(const struct sim_proc *p)
{
    return p->kind == SIM_OSD || p->kind == SIM_SAN;
}

/* All modules go by the table of the present controller. */
static bool taken_over(struct sim_cluster *c, void *arg)
{
    const struct mdc *mdc = c->procs[0].mdc;
    (void)arg;
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        const struct sim_proc *p = &c->procs[i];
        if (is_module(p) && p->alive && (!mdc || p->rwm->force_term != mdc->state->term))
            return false;
    }
    return mdc != NULL;
}

/* Nobody who uses the volumes tells the controller what it has seen of them. */
static void cut_senders(struct sim_cluster *c)
{
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (is_sender(&c->procs[i]))
            stage_cut(c, i, 0);
}

/* A host was detached after the copy was made; what it has on its way arrives when modules go by the old
 * table. */
void plot_old_generation(struct sim_cluster *c)
{
    unsigned group = (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS);
    const struct sim_proc *host = stage_client(c, STAGE_FIRST);
    uint64_t begun = sim_world_now(c->world), late = sim_scene_within(c, 500, 900);
    if (!stage_do(c, STAGE_FIRST, VOLUME_WRITE, 0, group))
        return;
    stage_copy_store(c);
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (is_module(&c->procs[i]))
            stage_delay(c, host->number, i, late);
    (void)stage_begin(c, STAGE_FIRST, VOLUME_WRITE, 0, group);
    if (!sim_advance(c, NS_PER_MS))
        return;
    stage_cut(c, host->number, 0);
    if (!stage_detach(c, 0, STAGE_FIRST, 400 * NS_PER_MS) || !stage_do(c, STAGE_THIRD, VOLUME_READ, 0, group))
        return;
    cut_senders(c);
    stage_restore_store(c, rng_below(&c->rng, 20 * NS_PER_MS));
    if (!stage_until(c, taken_over, NULL, NS_PER_MS, begun + late - sim_world_now(c->world)))
        return;
    c->acts++;
    if (!sim_advance(c, begun + late + 20 * NS_PER_MS - sim_world_now(c->world)))
        return;
    sim_net_heal_all(c->net);
    (void)stage_do(c, STAGE_THIRD, VOLUME_READ, 0, group);
}

/* ... it stands still over all that, and goes on when the controller has heard everybody. */
void plot_still_attached(struct sim_cluster *c)
{
    unsigned group = (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS);
    struct sim_proc *host = stage_client(c, STAGE_FIRST);
    if (!stage_do(c, STAGE_FIRST, VOLUME_WRITE, 0, group))
        return;
    stage_copy_store(c);
    sim_proc_pause(host);
    host->resume_at = UINT64_MAX;
    bool detached = stage_detach(c, 0, STAGE_FIRST, NS_PER_S);
    if (detached)
        stage_restore_store(c, rng_below(&c->rng, 200 * NS_PER_MS));
    bool heard = detached && stage_until(c, taken_over, NULL, NS_PER_MS, 2 * NS_PER_S) &&
                 sim_advance(c, sim_scene_within(c, 10, 1500));
    host->resume_at = sim_world_now(c->world);
    if (!heard || !sim_advance(c, NS_PER_MS))
        return;
    c->acts++;
    for (unsigned i = 0; i < 5; i++)
        (void)stage_do(c, STAGE_FIRST, VOLUME_WRITE, 0, group);
}

/* ... and nobody lives who used the volume since: those who come know it from the controller alone. */
void plot_new_hosts(struct sim_cluster *c)
{
    unsigned group = (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS);
    if (!stage_do(c, STAGE_THIRD, VOLUME_WRITE, 0, group))
        return;
    stage_copy_store(c);
    if (!stage_detach(c, 0, STAGE_FIRST, NS_PER_S))
        return;
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (is_sender(&c->procs[i]))
            stage_kill(c, i, false, sim_scene_within(c, 100, 900));
    stage_restore_store(c, rng_below(&c->rng, 200 * NS_PER_MS));
    if (!stage_ready(c, 10 * NS_PER_S))
        return;
    c->acts++;
    (void)stage_do(c, STAGE_THIRD, VOLUME_READ, 0, group);
}

/* A host is detached after the store was put back: by a generation above all that modules have. */
void plot_detached_again(struct sim_cluster *c)
{
    unsigned group = (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS);
    stage_copy_store(c);
    for (unsigned i = 0; i < 2 + rng_below(&c->rng, 3); i++) {
        if (!stage_detach(c, 0, STAGE_THIRD, NS_PER_S))
            return;
        (void)stage_do(c, STAGE_THIRD, VOLUME_READ, 0, group); /* so it is told, and comes again */
        if (!stage_ready(c, 5 * NS_PER_S) || !stage_do(c, STAGE_FIRST, VOLUME_WRITE, 0, group))
            return;
    }
    cut_senders(c);
    stage_restore_store(c, rng_below(&c->rng, 100 * NS_PER_MS));
    if (!stage_until(c, taken_over, NULL, NS_PER_MS, NS_PER_S) ||
        !stage_detach(c, 0, STAGE_FIRST, 3 * NS_PER_S))
        return;
    c->acts++;
    int write = stage_begin(c, STAGE_FIRST, VOLUME_WRITE, 0, group);
    (void)stage_ended(c, STAGE_FIRST, write, 200 * NS_PER_MS);
    sim_net_heal_all(c->net);
    (void)stage_ended(c, STAGE_FIRST, write, 2 * NS_PER_S);
}

static uint64_t reads_of(struct sim_cluster *c, unsigned gateway)
{
    struct gateway_stats stats = {0};
    const struct sim_proc *p = sim_cluster_proc(c, SIM_GATEWAY, gateway);
    if (p->gateway)
        gateway_stats_get(p->gateway, &stats);
    return stats.reads;
}

/* The gateway that the host goes through; SIM_GATEWAYS: it cannot read. */
static unsigned way_of(struct sim_cluster *c, unsigned group)
{
    uint64_t before[SIM_GATEWAYS];
    for (unsigned i = 0; i < SIM_GATEWAYS; i++)
        before[i] = reads_of(c, i);
    (void)stage_do(c, STAGE_BY_GATEWAY, VOLUME_READ, 0, group);
    for (unsigned i = 0; i < SIM_GATEWAYS; i++)
        if (reads_of(c, i) > before[i])
            return i;
    return SIM_GATEWAYS;
}

/* It loses its connection and comes by the other gateway, or the same again. */
static bool comes_again(struct sim_cluster *c)
{
    stage_client(c, STAGE_BY_GATEWAY)->lose_at = sim_world_now(c->world);
    return sim_advance(c, 100 * NS_PER_MS) && stage_ready(c, 5 * NS_PER_S);
}

/* Each association at a gateway draws a turn; the last ones are not used before the store is put back. The
 * process of the gateway that has the last; SIM_PROCS: something went wrong. */
static unsigned turns_ahead(struct sim_cluster *c, unsigned group)
{
    unsigned way = SIM_GATEWAYS;
    for (unsigned i = 0; i < 2; i++) /* both gateways get to know the module */
        if (!stage_do(c, STAGE_BY_GATEWAY, VOLUME_WRITE, 0, group) || !comes_again(c))
            return SIM_PROCS;
    for (unsigned i = 0; i < 7; i++)
        if (!comes_again(c))
            return SIM_PROCS;
    way = way_of(c, group);
    return way < SIM_GATEWAYS ? sim_cluster_proc(c, SIM_GATEWAY, way)->number : SIM_PROCS;
}

/* More turns are given than the copy knows to have been allotted: by many opens, or by another start of the
 * controller. */
static bool many_turns(struct sim_cluster *c)
{
    if (rng_chance(&c->rng, 1, 2)) {
        stage_kill(c, 0, false, rng_below(&c->rng, 20 * NS_PER_MS));
        return sim_advance(c, 30 * NS_PER_MS) && stage_ready(c, 5 * NS_PER_S);
    }
    for (unsigned i = 0; i < TURN_BATCH + 20; i++)
        if (!sim_admin_open(c, 0) || !stage_admin_done(c, NS_PER_S))
            return false;
    return true;
}

/*
 * A gateway has drawn a write turn after the copy was made, and no module has seen that turn yet when the
 * store is put back. The host goes to the other gateway, whose turn has to be the higher one nevertheless.
 */
void plot_turn_twice(struct sim_cluster *c)
{
    unsigned group = (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS);
    stage_copy_store(c);
    if (!many_turns(c))
        return;
    unsigned from = turns_ahead(c, group);
    uint64_t late = sim_world_now(c->world) + 950 * NS_PER_MS;
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (is_module(&c->procs[i]) && from < SIM_PROCS)
            stage_delay(c, from, i, late - sim_world_now(c->world));
    int first = stage_begin(c, STAGE_BY_GATEWAY, VOLUME_WRITE, 0, group);
    if (first < 0 || !sim_advance(c, NS_PER_MS))
        return;
    stage_restore_store(c, rng_below(&c->rng, 10 * NS_PER_MS));
    if (!sim_advance(c, 15 * NS_PER_MS) || !stage_until(c, taken_over, NULL, NS_PER_MS, 400 * NS_PER_MS))
        return;
    stage_client(c, STAGE_BY_GATEWAY)->lose_at = sim_world_now(c->world);
    if (!stage_ended(c, STAGE_BY_GATEWAY, first, late - sim_world_now(c->world)) ||
        !stage_do(c, STAGE_BY_GATEWAY, VOLUME_WRITE, 0, group) ||
        !stage_do(c, STAGE_THIRD, VOLUME_READ, 0, group))
        return;
    c->acts += sim_world_now(c->world) < late;
    (void)sim_advance(c, late + 10 * NS_PER_MS - min_u64(late, sim_world_now(c->world)));
    (void)stage_do(c, STAGE_THIRD, VOLUME_READ, 0, group);
}
