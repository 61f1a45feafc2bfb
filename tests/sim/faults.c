#include "tests/sim/faults.h"

#include "tests/sim/cluster.h"

static bool is_module(const struct sim_proc *p)
{
    return p->kind == SIM_OSD || p->kind == SIM_SAN;
}

static void fault_kill(struct sim_cluster *c, struct sim_proc *p)
{
    struct rng *r = &c->rng;
    if (!p->alive)
        return;
    bool power = is_module(p) && rng_chance(r, 1, 2);
    sim_proc_kill(p, power);
    c->kills++;
    c->power_losses += power;
    /* often at once, sometimes much later */
    uint64_t away = rng_chance(r, 1, 2) ? rng_below(r, 50 * NS_PER_MS) : rng_below(r, 2 * NS_PER_S);
    p->up_at = sim_world_now(c->world) + away;
}

static void fault_pause(struct sim_cluster *c, struct sim_proc *p)
{
    if (!p->alive || p->paused)
        return;
    sim_proc_pause(p);
    p->resume_at = sim_world_now(c->world) + rng_below(&c->rng, 3 * NS_PER_S);
    c->pauses++;
}

static void fault_cut(struct sim_cluster *c, struct sim_proc *p)
{
    struct sim_proc *q = &c->procs[rng_below(&c->rng, SIM_PROCS)];
    if (p == q)
        return;
    sim_net_cut(c->net, p->number + 1, q->number + 1, rng_chance(&c->rng, 2, 3));
    c->cuts++;
}

void sim_faults_step(struct sim_cluster *c)
{
    struct rng *r = &c->rng;
    struct sim_proc *p = &c->procs[rng_below(r, SIM_PROCS)];
    switch (rng_below(r, 16)) {
    case 0:
    case 1:
        fault_kill(c, p);
        break;
    case 2:
        fault_pause(c, p);
        break;
    case 3:
        fault_cut(c, p);
        break;
    case 4:
    case 5:
        sim_net_heal_all(c->net);
        break;
    case 6:
        sim_net_break(c->net, p->number + 1);
        c->disconnects++;
        break;
    default: /* nothing, for now */
        break;
    }
}

void sim_faults_heal(struct sim_cluster *c)
{
    sim_net_heal_all(c->net);
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        struct sim_proc *p = &c->procs[i];
        if (!p->alive)
            p->up_at = sim_world_now(c->world);
        else if (p->paused)
            p->resume_at = sim_world_now(c->world);
    }
}
