#include "tests/sim/faults.h"

#include "services/rwm/rwm_copies.h"
#include "services/rwm/store_internal.h"
#include "tests/sim/cluster.h"
#include "tests/sim/moves.h"

static bool is_module(const struct sim_proc *p)
{
    return p->kind == SIM_OSD || p->kind == SIM_SAN;
}

static void fault_kill(struct sim_cluster *c, struct sim_proc *p)
{
    struct rng *r = &c->rng;
    if (!p->alive || p->kind == SIM_ADMIN)
        return;
    bool power = is_module(p) && rng_chance(r, 1, 2);
    sim_proc_kill(p, power);
    c->kills++;
    c->power_losses += power;
    /* often at once, sometimes much later */
    uint64_t away = rng_chance(r, 1, 2) ? rng_below(r, 50 * NS_PER_MS) : rng_below(r, 2 * NS_PER_S);
    p->up_at = sim_world_now(c->world) + away;
}

/* Dies at a moment that no step of the schedule would hit: between two messages, within a commit. */
static void fault_doom(struct sim_cluster *c, struct sim_proc *p)
{
    if (!p->alive || p->kind == SIM_ADMIN || p->kind == SIM_CLIENT)
        return;
    p->doom_at = sim_world_now(c->world) + rng_below(&c->rng, 30 * NS_PER_MS);
}

void sim_faults_started(struct sim_proc *p)
{
    struct sim_cluster *c = p->cluster;
    if (c->faults_over || c->options.no_faults || c->options.rot || (!is_module(p) && p->kind != SIM_MDC))
        return;
    if (rng_chance(&c->rng, 1, 3))
        p->doom_at = sim_world_now(c->world) + rng_below(&c->rng, 20 * NS_PER_MS);
}

static void fault_pause(struct sim_cluster *c, struct sim_proc *p, uint64_t most_ns)
{
    if (!p->alive || p->paused)
        return;
    sim_proc_pause(p);
    p->resume_at = sim_world_now(c->world) + rng_below(&c->rng, most_ns);
    c->pauses++;
}

/* A gateway or a client's process stands still with work in hand, and whoever can goes elsewhere meanwhile.
 */
static void fault_ghost(struct sim_cluster *c)
{
    struct sim_proc *p = rng_chance(&c->rng, 2, 3)
                             ? sim_cluster_proc(c, SIM_GATEWAY, (unsigned)rng_below(&c->rng, SIM_GATEWAYS))
                             : sim_cluster_proc(c, SIM_CLIENT, (unsigned)rng_below(&c->rng, SIM_CLIENTS));
    fault_pause(c, p, NS_PER_S);
    if (rng_chance(&c->rng, 1, 2))
        sim_net_break(c->net, p->number + 1);
}

/*
 * What a gateway, or a client with tables, has under way to a module is held up, while the client loses its
 * connections and comes back by another way: what it writes then must not be overtaken by what is held up.
 * Sometimes the module starts again meanwhile, and whoever held the write sends it once more.
 */
static void fault_ghost_write(struct sim_cluster *c)
{
    struct rng *r = &c->rng;
    uint64_t now = sim_world_now(c->world), until = now + rng_below(r, 900 * NS_PER_MS);
    bool direct = rng_chance(r, 1, 4);
    struct sim_proc *from = sim_cluster_proc(c, direct ? SIM_CLIENT : SIM_GATEWAY,
                                             (unsigned)rng_below(r, direct ? SIM_CLIENTS : SIM_GATEWAYS));
    struct sim_proc *slow = rng_chance(r, 1, 2)
                                ? sim_cluster_proc(c, SIM_OSD, (unsigned)rng_below(r, SIM_OSDS))
                                : NULL; /* else all of them */
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        struct sim_proc *p = &c->procs[i];
        if (is_module(p) && (!slow || p == slow))
            sim_net_delay(c->net, from->number + 1, p->number + 1, until);
        if (p->kind == SIM_CLIENT && (direct ? p == from : rng_chance(r, 3, 4)))
            p->lose_at = now + rng_below(r, 20 * NS_PER_MS);
    }
    if (slow && slow->alive && rng_chance(r, 1, 3)) {
        slow->doom_at = now + rng_below(r, 40 * NS_PER_MS);
    }
    c->ghosts++;
}

/* Or the start before it may have. */
static bool has_promised(const struct sim_proc *p)
{
    if (!p->rwm)
        return false;
    if (p->rwm->promise_grace_ns > loop_clock_ns(p->env.loop))
        return true;
    list_for_each(n, &p->rwm->grants)
    {
        const struct rwm_grant *g = list_entry(n, struct rwm_grant, link);
        if (max_u64(g->until_ns, g->older_until_ns) > loop_clock_ns(p->env.loop))
            return true;
    }
    return false;
}

/*
 * A machine was suspended, or moved: its clock is ahead at once. The time that it shows has passed for all
 * others, too. Where somebody holds a promise of this one for some of it, it does pass: the machine stands
 * still for it.
 */
static void fault_jump(struct sim_cluster *c, struct sim_proc *p)
{
    if (!p->alive)
        return;
    uint64_t ahead_ns = rng_below(&c->rng, 10 * NS_PER_S);
    c->jumps++;
    if (!has_promised(p)) {
        sim_loop_jump(p->env.loop, ahead_ns);
    } else if (!p->paused) {
        sim_proc_pause(p);
        p->resume_at = sim_world_now(c->world) + ahead_ns / 5;
        c->pauses++;
    }
}

/* A copy of the metadata store is taken; later the controller dies, and starts again over that copy. */
static void fault_restore(struct sim_cluster *c)
{
    struct sim_proc *p = sim_cluster_proc(c, SIM_MDC, 0);
    if (!c->shape.restores || (!c->backup && sim_moves_growing(c)))
        return;
    if (!c->backup) {
        MUST(meta_sim_snapshot(c->meta, &c->backup) == 0);
        c->restored_store = false; /* that is the end of an earlier one's story */
        return;
    }
    if (p->alive)
        sim_proc_kill(p, false);
    MUST(meta_sim_restore(c->meta, c->backup) == 0);
    meta_sim_destroy(c->backup);
    c->backup = NULL;
    c->restored_store = true;
    p->up_at = sim_world_now(c->world) + rng_below(&c->rng, 200 * NS_PER_MS);
    c->kills++;
    c->restores++;
}

/* Beyond the journal and the pages of metadata: what rots there must be an error, never other data. */
static void fault_rot(struct sim_cluster *c, struct sim_proc *p)
{
    struct rng *r = &c->rng;
    if (!c->shape.rot || !p->data || p->kind != SIM_OSD)
        return;
    uint64_t first = c->shape.medium_bytes / 8 + c->shape.journal_bytes;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t at =
            round_down(first + rng_below(r, c->shape.medium_bytes - first - UNIT_BYTES), UNIT_BYTES);
        if (rng_chance(r, 1, 2))
            sim_medium_rot(p->data, at, UNIT_BYTES);
        else
            sim_medium_fail_range(p->data, 1u << DEVICE_READ, at, UNIT_BYTES, -EIO);
    }
    c->rots++;
}

/* What p has stored, a unit of some blocks each. A medium knows only so many places that cannot be read. */
static void fault_rot_stored(struct sim_cluster *c, struct sim_proc *p)
{
    struct rng *r = &c->rng;
    const struct store *s = p->rwm ? p->rwm->store : NULL;
    for (unsigned i = 0; s && i < 400; i++) {
        uint32_t entry = (uint32_t)rng_below(r, min_u64(s->index.entries, 400));
        uint64_t at = slot_offset(s, entry) + rng_below(r, UNITS_PER_BLOCK) * UNIT_BYTES;
        if (!index_live(&s->index, entry) || !entry_has_slot(entry) || !rng_chance(r, 1, 16))
            continue;
        if (c->options.seed % 2 == 0 && c->rots < 10 && rng_chance(r, 1, 4))
            sim_medium_fail_range(p->data, 1u << DEVICE_READ, at, UNIT_BYTES, -EIO);
        else
            sim_medium_rot(p->data, at, UNIT_BYTES);
        c->rots++;
    }
}

static void fault_cut(struct sim_cluster *c, struct sim_proc *p)
{
    struct sim_proc *q = &c->procs[rng_below(&c->rng, SIM_PROCS)];
    if (p == q)
        return;
    sim_net_cut(c->net, p->number + 1, q->number + 1, rng_chance(&c->rng, 2, 3));
    c->cuts++;
}

/* The other agent takes the LUN, while the first one may be alive, stand still or be dead. */
static void fault_takeover(struct sim_cluster *c)
{
    struct sim_proc *a = sim_cluster_proc(c, SIM_SAN, 0), *b = a->twin;
    if (a->alive && b->alive)
        return;
    struct sim_proc *old = b->alive || (!a->alive && b->up_at != UINT64_MAX) ? b : a;
    if (old->alive && rng_chance(&c->rng, 2, 3))
        fault_pause(c, old, NS_PER_S);
    if (!old->alive)
        old->up_at = UINT64_MAX;
    old->twin->up_at = sim_world_now(c->world) + rng_below(&c->rng, 20 * NS_PER_MS);
    c->takeovers++;
}

static void fault_medium(struct sim_cluster *c, struct sim_proc *p)
{
    struct rng *r = &c->rng;
    uint64_t now = sim_world_now(c->world);
    if (!p->data)
        return;
    struct sim_medium *m = p->log && rng_chance(r, 1, 2) ? p->log : p->data;
    c->media_faults++;
    switch (rng_below(r, p->kind == SIM_SAN ? 6 : 4)) {
    case 0:
        sim_medium_slow(m, 1 + rng_below(r, 50));
        break;
    case 1:
        sim_medium_slow(m, 1);
        break;
    case 2:
    case 3:
        sim_medium_stall(m, now + rng_below(r, NS_PER_S));
        break;
    case 4:
        sim_lun_disconnect(m, false);
        break;
    default:
        /* With both agents there one may send several writes before it has heard of the reset: the unit
         * attention stops only the first, and nothing on our side can stop the others. docs/testing.md says
         * so. */
        if (!(p->twin && p->alive && p->twin->alive))
            sim_lun_forget(m);
        break;
    }
}

void sim_faults_step(struct sim_cluster *c)
{
    struct rng *r = &c->rng;
    struct sim_proc *p = &c->procs[rng_below(r, SIM_PROCS)];
    if (c->options.rot) {
        if (rng_chance(r, 1, 2))
            fault_rot_stored(c, sim_cluster_proc(c, SIM_OSD, 0));
        return;
    }
    switch (rng_below(r, 34)) {
    case 0:
    case 1:
        fault_kill(c, p);
        break;
    case 2:
        fault_pause(c, p, 3 * NS_PER_S);
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
    case 7:
    case 8:
        fault_medium(c, p);
        break;
    case 9:
    case 10:
        fault_doom(c, rng_chance(r, 1, 3) ? &c->procs[0] : p);
        break;
    case 11:
    case 12:
        fault_ghost(c);
        break;
    case 13:
        fault_takeover(c);
        break;
    case 14:
    case 15:
    case 16:
        fault_ghost_write(c);
        break;
    case 17:
        fault_jump(c, p);
        break;
    case 18:
    case 19:
        fault_restore(c);
        break;
    case 20:
        fault_rot(c, p);
        break;
    default:
        sim_scene_start(c);
        break;
    case 33: /* nothing, for now */
        break;
    }
}

void sim_faults_heal(struct sim_cluster *c)
{
    struct sim_net_options o;
    uint64_t now = sim_world_now(c->world);
    sim_net_get_options(c->net, &o);
    o.break_num = 0;
    sim_net_set_options(c->net, &o);
    sim_net_heal_all(c->net);
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        struct sim_proc *p = &c->procs[i];
        p->doom_at = p->lose_at = UINT64_MAX;
        if (p->paused)
            p->resume_at = now;
        if (!p->alive && !p->twin)
            p->up_at = now;
        if (p->data) {
            sim_medium_slow(p->data, 1);
            sim_medium_stall(p->data, now);
        }
        if (p->log) {
            sim_medium_slow(p->log, 1);
            sim_medium_stall(p->log, now);
        }
    }
    struct sim_proc *a = sim_cluster_proc(c, SIM_SAN, 0);
    if (!a->alive && !a->twin->alive && a->up_at == UINT64_MAX && a->twin->up_at == UINT64_MAX)
        a->up_at = now;
}
