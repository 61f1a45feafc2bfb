/* plots_copies.c: what only some members have, and who must not answer for the others. */
#include <stdio.h>

#include "services/rwm/rwm_copies.h"
#include "services/rwm/store_internal.h"
#include "tests/sim/admin.h"
#include "tests/sim/copies.h"
#include "tests/sim/plots.h"
#include "tests/sim/stage.h"

/* A member remembers one version that may not be committed. */
void plot_overflow_shape(struct sim_cluster *c)
{
    c->shape.recent_max = 1;
}

/* Writes of several blocks have reached one member and not the other one when the primary dies, and nobody
 * lives to repeat them. */
void plot_overflow(struct sim_cluster *c)
{
    unsigned stripe = (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS / 4);
    struct stage_cast cast;
    if (!stage_cast(c, 0, 4 * stripe, &cast) || cast.in_sync < 3)
        return;
    for (unsigned i = 0; i < 3; i++)
        if (!stage_do(c, STAGE_THIRD, VOLUME_WRITE, 0, 4 * stripe + i))
            return;
    stage_cut(c, cast.proc[0], cast.proc[1 + rng_below(&c->rng, 2)]);
    for (unsigned i = 0; i < 3; i++)
        (void)stage_begin(c, STAGE_FIRST, VOLUME_WRITE, 0, 4 * stripe + i);
    if (!sim_advance(c, sim_scene_within(c, 3, 30)))
        return;
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].kind == SIM_CLIENT || c->procs[i].kind == SIM_GATEWAY)
            stage_kill(c, i, false, 3 * NS_PER_S);
    stage_kill(c, cast.proc[0], rng_chance(&c->rng, 1, 2), sim_scene_within(c, 2000, 2500));
    sim_net_heal_all(c->net);
    c->acts++;
    (void)sim_advance(c, 4 * NS_PER_S);
}

/* The other agent has the LUN, and a block that was not there has been written, when the first one wakes up
 * and is asked for that block. */
void plot_lun_asleep(struct sim_cluster *c)
{
    struct sim_proc *old = NULL;
    struct stage_cast cast;
    unsigned group = (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS);
    for (unsigned i = 0; i < SIM_SMALL_GROUPS && !old; i++) {
        group = (group + 1) % SIM_SMALL_GROUPS;
        if (stage_cast(c, 0, group, &cast) && c->procs[cast.proc[0]].kind == SIM_SAN)
            old = &c->procs[cast.proc[0]];
    }
    if (!old || old->twin->alive || !stage_do(c, STAGE_FIRST, VOLUME_READ, 0, group) ||
        !stage_do(c, STAGE_THIRD, VOLUME_READ, 0, group))
        return;
    stage_cut(c, stage_client(c, STAGE_FIRST)->number, 0);
    stage_cut(c, old->number, 0); /* else it counts as alive for long */
    sim_net_break_pair(c->net, old->number + 1, 1);
    sim_proc_pause(old);
    old->resume_at = UINT64_MAX;
    old->twin->up_at = sim_world_now(c->world);
    c->takeovers++;
    int write = stage_begin(c, STAGE_THIRD, VOLUME_WRITE, 0, group);
    bool written = stage_ended(c, STAGE_THIRD, write, 900 * NS_PER_MS);
    int read = stage_begin(c, STAGE_FIRST, VOLUME_READ, 0, group);
    (void)sim_advance(c, 200 * NS_PER_US);
    old->resume_at = sim_world_now(c->world);
    c->acts += written;
    (void)stage_ended(c, STAGE_FIRST, read, 300 * NS_PER_MS);
    sim_net_heal_all(c->net);
    (void)stage_ended(c, STAGE_FIRST, read, 5 * NS_PER_S);
}

struct away {
    unsigned group, proc;
};

static bool is_away(struct sim_cluster *c, void *arg)
{
    const struct away *a = arg;
    struct stage_cast now;
    if (!stage_cast(c, 0, a->group, &now))
        return false;
    for (unsigned i = 0; i < now.count; i++)
        if (now.proc[i] == a->proc)
            return false;
    return true;
}

/* A module is emptied; who has not heard of it goes on asking it, also after its next start. */
void plot_emptied(struct sim_cluster *c)
{
    struct stage_cast cast;
    struct away a = {.group = (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS)};
    if (!stage_cast(c, 0, a.group, &cast) || !stage_do(c, STAGE_THIRD, VOLUME_WRITE, 0, a.group) ||
        !stage_do(c, STAGE_FIRST, VOLUME_READ, 0, a.group))
        return;
    a.proc = cast.proc[0];
    const struct rwm *m = stage_module(c, a.proc);
    if (!m || !sim_admin_drain(c, m->id) || !sim_advance(c, NS_PER_MS))
        return;
    stage_cut(c, stage_client(c, STAGE_FIRST)->number, 0);
    if (!stage_until(c, is_away, &a, 5 * NS_PER_MS, 20 * NS_PER_S))
        return;
    if (rng_chance(&c->rng, 2, 3))
        stage_kill(c, a.proc, false, 10 * NS_PER_MS);
    if (!sim_advance(c, sim_scene_within(c, 200, 600)) || !stage_do(c, STAGE_THIRD, VOLUME_WRITE, 0, a.group))
        return;
    c->acts++;
    int read = stage_begin(c, STAGE_FIRST, VOLUME_READ, 0, a.group);
    (void)stage_ended(c, STAGE_FIRST, read, 2 * NS_PER_S);
    sim_net_heal_all(c->net);
    (void)stage_ended(c, STAGE_FIRST, read, 5 * NS_PER_S);
}

/* ---- stores ---- */
static struct store *store_of(struct sim_cluster *c, unsigned proc)
{
    struct rwm *m = stage_module(c, proc);
    return m ? m->store : NULL;
}

static bool at_superblock(struct sim_cluster *c, void *arg)
{
    const struct store *s = store_of(c, *(unsigned *)arg);
    return s && s->ck.state == CK_SUPER;
}

/* The power fails while a checkpoint writes its superblock. */
void plot_checkpoint(struct sim_cluster *c)
{
    for (unsigned round = 0; round < 6; round++) {
        unsigned group = (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS);
        struct stage_cast cast;
        for (unsigned i = 0; i < 5; i++) /* the second time into the journal */
            if (!stage_do(c, STAGE_FIRST, VOLUME_WRITE, 0, group))
                return;
        if (!stage_cast(c, 0, group, &cast))
            return;
        struct store *s = store_of(c, cast.proc[0]);
        if (!s || c->procs[cast.proc[0]].kind != SIM_OSD)
            continue;
        checkpoint_want(s);
        if (!stage_until(c, at_superblock, &cast.proc[0], 2 * NS_PER_US, 100 * NS_PER_MS) ||
            !sim_advance(c, rng_below(&c->rng, 150 * NS_PER_US)))
            continue;
        stage_kill(c, cast.proc[0], true, 20 * NS_PER_MS);
        c->acts++;
        if (!sim_advance(c, 30 * NS_PER_MS) || !stage_ready(c, 10 * NS_PER_S))
            return;
        (void)stage_do(c, STAGE_THIRD, VOLUME_READ, 0, group);
    }
}

static bool is_clean(struct sim_cluster *c, void *arg)
{
    struct store *s = store_of(c, *(unsigned *)arg);
    if (s && !checkpoint_clean(s))
        checkpoint_want(s);
    return s && checkpoint_clean(s);
}

/* All that is stored there, those units of each block. */
static void rot(struct sim_cluster *c, unsigned proc, unsigned first, unsigned units)
{
    const struct store *s = store_of(c, proc);
    for (uint32_t entry = 0; s && entry < s->index.entries; entry++)
        if (index_live(&s->index, entry) && entry_has_slot(entry)) {
            sim_medium_rot(c->procs[proc].data, slot_offset(s, entry) + first * UNIT_BYTES,
                           units * UNIT_BYTES);
            c->rots++;
        }
}

/* The same units are rotten at two of three members: the third one has to be asked. */
void plot_rot_twice(struct sim_cluster *c)
{
    unsigned group = 4 * (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS / 4);
    struct stage_cast cast;
    if (!stage_cast(c, 0, group, &cast) || cast.in_sync < 3 ||
        !stage_do(c, STAGE_THIRD, VOLUME_WRITE, 0, group))
        return;
    for (unsigned i = 0; i < 3; i++)
        if (!stage_until(c, is_clean, &cast.proc[i], NS_PER_MS, NS_PER_S))
            return;
    rot(c, cast.proc[0], 4, 2); /* where the first group of a stripe lies */
    rot(c, cast.proc[1 + rng_below(&c->rng, 2)], 4, 2);
    c->acts++;
    if (!stage_do(c, STAGE_FIRST, VOLUME_READ, 0, group) && !c->error[0])
        snprintf(c->error, sizeof(c->error), "rot at two members could not be cured from the third");
}

static bool stored_here(struct sim_cluster *c, void *arg)
{
    const struct rwm_copies *p = stage_copies(c, arg, 0);
    return p && !list_empty(&p->flight) && list_entry(p->flight.next, struct rwm_piece, flight_link)->stored;
}

/* What the primary has just stored rots at once, and the members have the version before yet. */
void plot_rot_ahead(struct sim_cluster *c)
{
    unsigned group = SIM_SMALL_GROUPS + (unsigned)rng_below(&c->rng, SIM_BIG_GROUPS);
    struct stage_cast cast;
    if (!stage_cast(c, 0, group, &cast) || !stage_do(c, STAGE_THIRD, VOLUME_WRITE, 0, group) ||
        !stage_do(c, STAGE_FIRST, VOLUME_READ, 0, group))
        return;
    for (unsigned i = 1; i < cast.in_sync; i++)
        stage_delay(c, cast.proc[i], cast.proc[0], 300 * NS_PER_MS);
    int write = stage_begin(c, STAGE_THIRD, VOLUME_WRITE, 0, group);
    if (!stage_until(c, stored_here, &cast, 50 * NS_PER_US, 100 * NS_PER_MS))
        return;
    rot(c, cast.proc[0], 0, UNITS_PER_BLOCK);
    int read = stage_begin(c, STAGE_FIRST, VOLUME_READ, 0, group);
    c->acts++;
    (void)stage_ended(c, STAGE_THIRD, write, NS_PER_S);
    (void)stage_ended(c, STAGE_FIRST, read, NS_PER_S);
    (void)stage_do(c, STAGE_FIRST, VOLUME_READ, 0, group);
}

/* ---- room ---- */
void plot_short_grants_shape(struct sim_cluster *c)
{
    c->shape.medium_bytes = 24 * MIB;
}

/* One block is written and discarded so quickly that all that was granted is used up before more is asked
 * for, and there is room for all of it. */
void plot_short_grants(struct sim_cluster *c)
{
    unsigned group = SIM_SMALL_GROUPS + (unsigned)rng_below(&c->rng, SIM_BIG_GROUPS);
    for (unsigned i = 0; i < 300; i++)
        if (!stage_do(c, STAGE_FIRST, i % 2 == 0 ? VOLUME_WRITE : VOLUME_DISCARD, 0, group))
            return;
    c->acts++;
}

void plot_full_shape(struct sim_cluster *c)
{
    c->shape.tight = true;
    c->shape.medium_bytes = 6 * MIB + rng_below(&c->rng, 3) * MIB;
}

/* Of the module that has least. */
static uint64_t least_room(struct sim_cluster *c, uint64_t *overdrawn)
{
    uint64_t least = UINT64_MAX;
    *overdrawn = 0;
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        struct rwm_stats stats;
        if (!stage_module(c, i))
            continue;
        rwm_stats_get(stage_module(c, i), &stats);
        uint64_t used = stats.store.used_bytes + stats.store.reserved_bytes;
        least = min_u64(least, stats.store.capacity_bytes - min_u64(stats.store.capacity_bytes, used));
        *overdrawn += stats.overdrawn;
    }
    return least / BLOCK_BYTES;
}

/* The media fill up, slowly enough that everybody knows what everybody has: a member in sync has room for
 * every write that it is sent. */
void plot_full(struct sim_cluster *c)
{
    uint64_t overdrawn, room = least_room(c, &overdrawn);
    unsigned left = 40; /* when one is full, or all but */
    for (unsigned i = 0; i < 250 && left > 0; i++) {
        unsigned group = (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS + SIM_BIG_GROUPS);
        int begun = stage_begin(c, STAGE_THIRD, VOLUME_WRITE, i % SIM_VOLUMES, group);
        (void)stage_ended(c, STAGE_THIRD, begun, 2 * NS_PER_S);
        room = least_room(c, &overdrawn);
        left -= room < 16;
        if (overdrawn > 0 && !c->error[0])
            snprintf(c->error, sizeof(c->error), "a member in sync was sent a write that it had no room for");
        if (!sim_advance(c, room < 16 ? 250 * NS_PER_MS : 5 * NS_PER_MS))
            return;
    }
    c->acts += left == 0;
}
