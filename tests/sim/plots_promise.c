/* plots_promise.c: a primary goes on with those who do not hear that others have gone on without it. What
 * keeps it from answering them is the end of what the members promised. */
#include "services/rwm/rwm_copies.h"
#include "tests/sim/copies.h"
#include "tests/sim/plots.h"
#include "tests/sim/stage.h"

struct lonely {
    struct stage_cast cast;
    unsigned group, primary;
    uint64_t since[8]; /* of each member's promise, by the primary's clock */
};

static bool is_module(const struct sim_proc *p)
{
    return p->kind == SIM_OSD || p->kind == SIM_SAN;
}

static struct rwm_peer *peer_of(struct sim_cluster *c, const struct lonely *l, unsigned place)
{
    struct rwm *m = stage_module(c, l->primary), *other = stage_module(c, l->cast.proc[place]);
    return m && other ? rwm_peer_get(m, other->id) : NULL;
}

/* One that is primary; a first write, and everybody has its connections. */
static bool begin(struct sim_cluster *c, struct lonely *l)
{
    *l = (struct lonely){.group = (unsigned)rng_below(&c->rng, SIM_SMALL_GROUPS)};
    if (!stage_cast(c, 0, l->group, &l->cast))
        return false;
    l->primary = l->cast.proc[0];
    return stage_do(c, STAGE_THIRD, VOLUME_WRITE, 0, l->group) &&
           stage_do(c, STAGE_FIRST, VOLUME_READ, 0, l->group);
}

static bool asked_again(struct sim_cluster *c, void *arg)
{
    const struct lonely *l = arg;
    for (unsigned i = 1; i < l->cast.in_sync; i++) {
        const struct rwm_peer *peer = peer_of(c, l, i);
        if (!peer || peer->promise_sent_ns == l->since[i])
            return false;
    }
    return true;
}

/* Until the primary has asked every member once more. */
static bool ask_again(struct sim_cluster *c, struct lonely *l)
{
    for (unsigned i = 1; i < l->cast.in_sync; i++) {
        const struct rwm_peer *peer = peer_of(c, l, i);
        l->since[i] = peer ? peer->promise_sent_ns : 0;
    }
    return stage_until(c, asked_again, l, 100 * NS_PER_US, NS_PER_S);
}

static bool replaced(struct sim_cluster *c, void *arg)
{
    const struct lonely *l = arg;
    struct stage_cast now;
    return stage_cast(c, 0, l->group, &now) && now.epoch != l->cast.epoch && now.proc[0] != l->primary;
}

/*
 * The controller loses the primary, and everybody but one reader does; the primary hears nothing of the epoch
 * after. From the moment on that another one has taken a write, the reader must not be given what was before.
 */
static void left_alone(struct sim_cluster *c, struct lonely *l)
{
    stage_cut(c, stage_client(c, STAGE_FIRST)->number, 0);
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        const struct sim_proc *p = &c->procs[i];
        if (p->kind == SIM_GATEWAY || (p->kind == SIM_CLIENT && p != stage_client(c, STAGE_FIRST)))
            stage_cut(c, i, l->primary);
    }
    stage_cut(c, l->primary, 0);
    sim_net_break_pair(c->net, l->primary + 1, 1);
    if (!stage_until(c, replaced, l, 50 * NS_PER_US, NS_PER_S))
        return;
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (is_module(&c->procs[i]))
            stage_cut(c, i, l->primary);
    int write = stage_begin(c, STAGE_THIRD, VOLUME_WRITE, 0, l->group);
    if (!stage_ended(c, STAGE_THIRD, write, 1500 * NS_PER_MS))
        return;
    c->acts++;
    int read = stage_begin(c, STAGE_FIRST, VOLUME_READ, 0, l->group);
    (void)stage_ended(c, STAGE_FIRST, read, 200 * NS_PER_MS);
    sim_net_heal_all(c->net);
    (void)stage_ended(c, STAGE_FIRST, read, 5 * NS_PER_S);
}

/* Clocks that differ by nearly a tenth, which is what the margin is for: slow where a promise is held, quick
 * where it was given. */
void plot_slow_clock(struct sim_cluster *c)
{
    struct lonely l;
    if (!begin(c, &l))
        return;
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (is_module(&c->procs[i]) && c->procs[i].alive)
            sim_loop_set_drift(c->procs[i].env.loop, i == l.primary ? -47000 : 47000);
    if (!sim_advance(c, sim_scene_within(c, 600, 1000)) || !ask_again(c, &l))
        return;
    left_alone(c, &l);
}

static bool answered(struct sim_cluster *c, void *arg)
{
    const struct lonely *l = arg;
    for (unsigned i = 1; i < l->cast.in_sync; i++) {
        const struct rwm_peer *peer = peer_of(c, l, i);
        if (!peer || peer->promise_busy)
            return false;
    }
    return true;
}

/* The answer to a promise arrives long after it was given, and nothing later arrives at all. */
void plot_late_answer(struct sim_cluster *c)
{
    struct lonely l;
    if (!begin(c, &l) || !ask_again(c, &l) || !sim_advance(c, 5 * NS_PER_MS))
        return;
    for (unsigned i = 1; i < l.cast.in_sync; i++)
        stage_delay(c, l.cast.proc[i], l.primary, sim_scene_within(c, 380, 420));
    if (!ask_again(c, &l) || !sim_advance(c, NS_PER_MS))
        return;
    for (unsigned i = 1; i < l.cast.in_sync; i++)
        sim_net_cut(c->net, l.primary + 1, l.cast.proc[i] + 1, false);
    if (stage_until(c, answered, &l, 100 * NS_PER_US, 500 * NS_PER_MS))
        left_alone(c, &l);
}
