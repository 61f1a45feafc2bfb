/* plays.c: see plays.h. */
#include "tests/sim/plays.h"

#include "tests/sim/client.h"
#include "tests/sim/cluster.h"

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

/*
 * The primary goes on with whoever does little but read there, and hears nothing any more: neither the
 * controller, which takes its session for lost, nor the members, whose promises run out. All others have
 * gone on long before its connections are found to be dead.
 */
void sim_play_deaf(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t for_ns = sim_scene_within(c, 600, 1200);
    (void)member;
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        const struct sim_proc *p = &c->procs[i];
        if (is_module(p))
            sim_scene_cut(c, primary, i, true, for_ns);
        if (!is_sender(p))
            continue;
        bool stays = p->client ? sim_client_reads(p->client) : rng_chance(&c->rng, 1, 4);
        sim_scene_cut(c, i, stays ? 0 : primary, true, for_ns);
        if (!stays)
            sim_deed(c, 0, DEED_BREAK, i, primary, true);
    }
    sim_scene_cut(c, primary, 0, true, for_ns);
    sim_deed(c, 0, DEED_BREAK, primary, 0, true);
}

/* What the primary forwarded to one member arrives when that has joined the epoch after, and was made equal
 * to the others. */
void sim_play_late_forward(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t late = sim_scene_within(c, 540, 900);
    bool others = rng_chance(&c->rng, 1, 3);
    sim_net_delay(c->net, host(primary), host(member), sim_world_now(c->world) + late);
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (is_module(&c->procs[i]) && i != member && !others)
            sim_scene_cut(c, primary, i, rng_chance(&c->rng, 1, 2), late + sim_scene_within(c, 100, 400));
    sim_scene_cut(c, primary, 0, true, late + sim_scene_within(c, 0, 300));
    sim_deed(c, 0, DEED_BREAK, primary, 0, true);
    if (rng_chance(&c->rng, 2, 3))
        sim_scene_clients_gone(c, rng_below(&c->rng, 2 * NS_PER_MS));
    else
        for (unsigned i = 0; i < SIM_PROCS; i++)
            if (is_sender(&c->procs[i]))
                sim_scene_cut(c, primary, i, true, late);
}

/*
 * What a module pulls from a gateway is held up; the hosts lose their connections and come by the other one
 * meanwhile. What was looked at before the pull is no longer true after it.
 */
void sim_play_pull(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t now = sim_world_now(c->world), until = now + sim_scene_within(c, 20, 500);
    unsigned first = sim_cluster_proc(c, SIM_GATEWAY, 0)->number;
    (void)member;
    sim_net_delay(c->net, host(first + (unsigned)rng_below(&c->rng, SIM_GATEWAYS)), host(primary), until);
    for (unsigned i = 0; i < SIM_CLIENTS; i++)
        sim_cluster_proc(c, SIM_CLIENT, i)->lose_at = now + rng_below(&c->rng, NS_PER_MS);
    c->ghosts++;
}

/*
 * A gateway's write is held up, the host wrote again by another way, and then host and primary are gone: the
 * next primary knows only by what it was told with forwards that the write is too old.
 */
void sim_play_outlived(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t now = sim_world_now(c->world), until = now + sim_scene_within(c, 150, 900);
    uint64_t end = sim_scene_within(c, 4, 40);
    unsigned away = (unsigned)((until - now) / NS_PER_MS), from;
    (void)member;
    from = sim_cluster_proc(c, SIM_GATEWAY, (unsigned)rng_below(&c->rng, SIM_GATEWAYS))->number;
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        if (is_module(&c->procs[i]))
            sim_net_delay(c->net, host(from), host(i), until);
        if (c->procs[i].kind != SIM_CLIENT)
            continue;
        c->procs[i].lose_at = now + rng_below(&c->rng, 2 * NS_PER_MS);
        sim_deed(c, end, DEED_KILL, i, away, false);
    }
    sim_deed(c, end + rng_below(&c->rng, 5 * NS_PER_MS), DEED_KILL, primary, away, false);
    c->ghosts++;
}

/*
 * The report that a member is equal is held up on the way, while that member is lost and the primary goes on
 * without it by an epoch that came about for another reason; then it arrives after all.
 */
static void old_report(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t now = sim_world_now(c->world), late = sim_scene_within(c, 120, 400);
    uint64_t apart = sim_scene_within(c, 3, 12);
    unsigned other = 1 + (unsigned)rng_below(&c->rng, SIM_OSDS);
    while (other == primary || other == member)
        other = 1 + other % SIM_OSDS;
    sim_net_delay(c->net, host(primary), host(0), now + late);
    sim_deed(c, apart, DEED_CUT, primary, member, true);
    sim_deed(c, late + sim_scene_within(c, 0, 30), DEED_HEAL, primary, member, true);
    /* Its connections begin anew: what they say by the new ones is not held up. */
    c->procs[primary].lose_at = now + apart + rng_below(&c->rng, 3 * NS_PER_MS);
    for (unsigned i = 1; i < SIM_PROCS; i++)
        if (i != primary)
            sim_deed(c, apart + 4 * NS_PER_MS, DEED_BREAK, primary, i, true);
    if (c->options.copies < 3 || rng_chance(&c->rng, 1, 4)) {
        sim_deed(c, apart, DEED_KILL, member, 0, false);
        sim_deed(c, apart + NS_PER_MS, DEED_START, member, 0, false);
    } else {
        sim_deed(c, apart, DEED_KILL, other, 1000, false);
    }
    sim_deed(c, late + sim_scene_within(c, 20, 250), DEED_KILL, primary, 500, rng_chance(&c->rng, 1, 2));
}

void sim_play_old_report(struct sim_cluster *c, unsigned primary, unsigned member)
{
    (void)primary;
    sim_deed(c, 0, DEED_KILL, member, 0, false);
    sim_deed(c, rng_below(&c->rng, 30 * NS_PER_MS), DEED_START, member, 0, false);
    c->scenes.moment = MOMENT_LOCKSTEP;
    c->scenes.begin = old_report;
    c->scenes.until_ns = sim_world_now(c->world) + NS_PER_S;
}
