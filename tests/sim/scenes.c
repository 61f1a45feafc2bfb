#include "tests/sim/scenes.h"

#include <stdio.h>

#include "services/mdc/mdc_internal.h"
#include "services/rwm/rwm_copies.h"
#include "tests/sim/admin.h"
#include "tests/sim/client.h"
#include "tests/sim/cluster.h"
#include "tests/sim/copies.h"
#include "tests/sim/directed.h"
#include "tests/sim/plays.h"

#define WATCH_NS (50u * NS_PER_US) /* how closely a moment is waited for */

static uint64_t now_of(const struct sim_cluster *c)
{
    return sim_world_now(c->world);
}

uint64_t sim_scene_within(struct sim_cluster *c, uint64_t least_ms, uint64_t most_ms)
{
    return least_ms * NS_PER_MS + rng_below(&c->rng, (most_ms - least_ms) * NS_PER_MS);
}

static bool is_module(const struct sim_proc *p)
{
    return p->kind == SIM_OSD || p->kind == SIM_SAN;
}

static uint32_t host(unsigned number)
{
    return number + 1;
}

/* ---- deeds ---- */
void sim_deed(struct sim_cluster *c, uint64_t after_ns, enum sim_deed_kind kind, unsigned a, unsigned b,
              bool both)
{
    struct sim_scenes *s = &c->scenes;
    if (s->planned == ARRAY_LEN(s->deeds))
        return;
    uint64_t at_ns = now_of(c) + after_ns + 1;
    s->due_ns = s->planned == 0 ? at_ns : min_u64(s->due_ns, at_ns);
    s->deeds[s->planned++] = (struct sim_deed){.at_ns = at_ns, .kind = kind, .a = a, .b = b, .both = both};
}

void sim_deed_call(struct sim_cluster *c, uint64_t after_ns,
                   void (*call)(struct sim_cluster *c, unsigned a, unsigned b), unsigned a, unsigned b)
{
    struct sim_scenes *s = &c->scenes;
    unsigned planned = s->planned;
    sim_deed(c, after_ns, DEED_CALL, a, b, false);
    if (s->planned > planned)
        s->deeds[planned].call = call;
}

void sim_scene_cut(struct sim_cluster *c, unsigned a, unsigned b, bool both, uint64_t for_ns)
{
    if (a == b)
        return;
    sim_net_cut(c->net, host(a), host(b), both);
    sim_deed(c, for_ns, DEED_HEAL, a, b, both);
    c->cuts++;
}

static void kill_now(struct sim_cluster *c, unsigned a, bool power, uint64_t away_ns)
{
    struct sim_proc *p = &c->procs[a];
    if (!p->alive)
        return;
    sim_proc_kill(p, power);
    p->up_at = now_of(c) + away_ns;
    c->kills++;
    c->power_losses += power;
}

void sim_scene_stall(struct sim_cluster *c, unsigned a, uint64_t for_ns)
{
    struct sim_proc *p = &c->procs[a];
    if (!p->alive || p->paused)
        return;
    sim_proc_pause(p);
    p->resume_at = now_of(c) + for_ns;
    c->pauses++;
}

static void put_back(struct sim_cluster *c);

static void deed_do(struct sim_cluster *c, const struct sim_deed *d)
{
    switch (d->kind) {
    case DEED_RESUME:
        if (c->procs[d->a].alive && c->procs[d->a].paused)
            sim_proc_resume(&c->procs[d->a]);
        break;
    case DEED_KILL:
        kill_now(c, d->a, d->both && is_module(&c->procs[d->a]),
                 sim_scene_within(c, 0, 200) + d->b * NS_PER_MS + (d->a ? c->scenes.away_ns : 0));
        c->scenes.away_ns = d->a ? 0 : c->scenes.away_ns;
        break;
    case DEED_START:
        if (!c->procs[d->a].alive && c->procs[d->a].up_at != UINT64_MAX)
            c->procs[d->a].up_at = now_of(c);
        break;
    case DEED_HEAL:
        sim_net_heal(c->net, host(d->a), host(d->b), d->both);
        break;
    case DEED_CUT:
        sim_net_cut(c->net, host(d->a), host(d->b), d->both);
        break;
    case DEED_BREAK:
        sim_net_break_pair(c->net, host(d->a), host(d->b));
        break;
    case DEED_PUT_BACK:
        put_back(c);
        break;
    case DEED_CALL:
        d->call(c, d->a, d->b);
        break;
    }
}

/* ---- moments ---- */
bool sim_scene_reads(const struct rwm *m)
{
    list_for_each(n, &m->area->requests)
    {
        const struct rwm_request *r = list_entry(n, struct rwm_request, all);
        if (r->method == BLOCK_METHOD_READ && r->from_module == 0 && r->state == RWM_REQUEST_RUNNING)
            return true;
    }
    return false;
}

static bool pulls(const struct rwm *m)
{
    list_for_each(n, &m->area->requests)
    {
        const struct rwm_request *r = list_entry(n, struct rwm_request, all);
        if (r->from_module == 0 && r->state == RWM_REQUEST_FETCH)
            return true;
    }
    return false;
}

unsigned sim_scene_process(const struct sim_cluster *c, uint32_t module)
{
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].alive && c->procs[i].rwm && c->procs[i].rwm->id == module)
            return i;
    return SIM_PROCS;
}

/* Is it the moment at this module? *member: the process of another one that it is about. */
static bool moment_at(const struct sim_cluster *c, const struct rwm *m, unsigned *member)
{
    enum sim_moment what = c->scenes.moment;
    if (what == MOMENT_OWN)
        return !c->scenes.own || c->scenes.own(c, m, member);
    if (((what == MOMENT_READING || what == MOMENT_QUIET) && !sim_scene_reads(m)) ||
        (what == MOMENT_PULLING && !pulls(m)))
        return false;
    if (c->options.copies < 2) {
        *member = 1 + (unsigned)(c->scenes.until_ns % SIM_OSDS);
        return what <= MOMENT_PULLING || (what == MOMENT_WRITING && !list_empty(&m->versioned));
    }
    list_for_each(n, &m->copies)
    {
        struct rwm_copies *p = list_entry(n, struct rwm_copies, link);
        bool now = p->state == COPIES_SERVING;
        if (what == MOMENT_WRITING || what == MOMENT_QUIET)
            now = now && list_empty(&p->flight) == (what == MOMENT_QUIET);
        else if (what == MOMENT_JOINING)
            now = p->state == COPIES_JOINING || p->state == COPIES_RECONCILE;
        rwm_each_copy(k, p)
        {
            bool fits = what < MOMENT_EQUAL ||
                        (!k->in_sync && (k->lockstep || k->claimed) && (what == MOMENT_EQUAL || !k->claimed));
            *member = sim_scene_process(c, k->module);
            if (now && fits && *member < SIM_PROCS)
                return true;
        }
    }
    return false;
}

static bool moment(struct sim_cluster *c, unsigned *primary, unsigned *member)
{
    if (c->scenes.moment == MOMENT_COMMIT) {
        *primary = *member = c->scenes.first;
        return c->procs[0].mdc && c->procs[0].mdc->committing;
    }
    unsigned first = (unsigned)rng_below(&c->rng, SIM_PROCS);
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        *primary = (first + i) % SIM_PROCS;
        const struct sim_proc *p = &c->procs[*primary];
        if (p->alive && !p->paused && p->rwm && moment_at(c, p->rwm, member))
            return true;
    }
    return false;
}

/* ---- the scenes ---- */
/*
 * The network falls apart: the controller and some of the clients and gateways do not reach the primary any
 * more, and those that still do not the controller: they go on with the table that they have.
 */
static void split(struct sim_cluster *c, unsigned primary, uint64_t for_ns)
{
    /* A write that the primary cannot finish holds up the reads of its block. */
    bool readers = rng_chance(&c->rng, 1, 2);
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        const struct sim_proc *p = &c->procs[i];
        if (p->kind != SIM_CLIENT && p->kind != SIM_GATEWAY)
            continue;
        bool stays = rng_chance(&c->rng, 1, 2);
        if (readers)
            stays = p->client && sim_client_reads(p->client);
        if (stays) {
            sim_scene_cut(c, i, 0, true, for_ns);
        } else {
            sim_scene_cut(c, i, primary, true, for_ns);
            sim_deed(c, 0, DEED_BREAK, i, primary, true);
        }
    }
    sim_scene_cut(c, primary, 0, true, for_ns);
    sim_deed(c, 0, DEED_BREAK, primary, 0, true);
}

/* The primary stands still, or is cut off from the controller; another one takes over; somebody still goes to
 * the first. */
static void scene_stale_primary(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t ms = sim_scene_within(c, 30, 1300), after = ms + sim_scene_within(c, 20, 600);
    split(c, primary, after);
    if (rng_chance(&c->rng, 1, 2))
        sim_scene_stall(c, primary, ms);
    if (rng_chance(&c->rng, 1, 3)) {
        sim_deed(c, sim_scene_within(c, 0, 400), DEED_CUT, primary, member, true);
        sim_deed(c, after, DEED_HEAL, primary, member, true);
    }
}

void sim_scene_clients_gone(struct sim_cluster *c, uint64_t after_ns)
{
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].kind == SIM_CLIENT || c->procs[i].kind == SIM_GATEWAY)
            sim_deed(c, after_ns, DEED_KILL, i, 0, false);
}

/* A write has reached some members when its primary goes. */
static void scene_half_way(struct sim_cluster *c, unsigned primary, unsigned member)
{
    sim_scene_cut(c, primary, member, rng_chance(&c->rng, 1, 3), sim_scene_within(c, 1, 300));
    if (rng_chance(&c->rng, 2, 3)) {
        sim_deed(c, rng_below(&c->rng, 30 * NS_PER_MS), DEED_KILL, primary, 0, rng_chance(&c->rng, 1, 2));
    } else {
        sim_scene_stall(c, primary, sim_scene_within(c, 50, 1200));
        sim_deed(c, 0, DEED_BREAK, primary, 0, true);
    }
    if (rng_chance(&c->rng, 1, 4))
        sim_deed(c, rng_below(&c->rng, 30 * NS_PER_MS), DEED_KILL, member, 0, rng_chance(&c->rng, 1, 2));
    if (rng_chance(&c->rng, 1, 2))
        sim_scene_clients_gone(c, rng_below(&c->rng, 30 * NS_PER_MS));
}

/* Someone is lost in the middle of a join, or comes back in it as a new start. */
static void scene_join(struct sim_cluster *c, unsigned primary, unsigned member)
{
    unsigned who = rng_chance(&c->rng, 3, 4) ? member : primary;
    uint64_t after = rng_below(&c->rng, 10 * NS_PER_MS);
    if (rng_chance(&c->rng, 1, 3)) {
        sim_deed(c, after, DEED_BREAK, primary, member, true);
    } else {
        sim_deed(c, after, DEED_KILL, who, 0, rng_chance(&c->rng, 1, 2));
        if (rng_chance(&c->rng, 2, 3))
            sim_deed(c, after + rng_below(&c->rng, 10 * NS_PER_MS), DEED_START, who, 0, false);
    }
    if (rng_chance(&c->rng, 1, 4))
        sim_scene_clients_gone(c, after);
}

/* A member was reported as equal, and is lost before the controller has heard of it. */
static void scene_late_report(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t now = now_of(c), after = rng_below(&c->rng, 8 * NS_PER_MS);
    sim_net_delay(c->net, host(primary), host(0), now + sim_scene_within(c, 1, 150));
    if (rng_chance(&c->rng, 1, 3)) {
        sim_scene_cut(c, primary, member, rng_chance(&c->rng, 1, 2), sim_scene_within(c, 1, 400));
        sim_deed(c, after, DEED_BREAK, primary, member, true);
    } else {
        sim_deed(c, after, DEED_KILL, member, 0, rng_chance(&c->rng, 1, 2));
        if (rng_chance(&c->rng, 2, 3))
            sim_deed(c, after + rng_below(&c->rng, 10 * NS_PER_MS), DEED_START, member, 0, false);
    }
    if (rng_chance(&c->rng, 1, 2))
        sim_deed(c, sim_scene_within(c, 5, 100), DEED_KILL, primary, 0, rng_chance(&c->rng, 1, 2));
}

/* The controller dies while it commits that a member is out, and whoever may have heard of it dies, too. */
static void scene_lost_commit(struct sim_cluster *c, unsigned primary, unsigned member)
{
    (void)member;
    sim_deed(c, rng_below(&c->rng, c->shape.commit_ns), DEED_KILL, 0, 0, false);
    sim_deed(c, sim_scene_within(c, 5, 150), DEED_KILL, primary, 0, rng_chance(&c->rng, 1, 2));
    c->scenes.away_ns = sim_scene_within(c, 1200, 2500);
}

static void scene_commit(struct sim_cluster *c, unsigned primary, unsigned member)
{
    struct sim_scenes *s = &c->scenes;
    kill_now(c, member, rng_chance(&c->rng, 1, 2), sim_scene_within(c, 30, 150));
    s->first = primary;
    s->moment = MOMENT_COMMIT;
    s->begin = scene_lost_commit;
    s->until_ns = now_of(c) + 200 * NS_PER_MS;
}

/* The promise comes late: counted from there it would be too long. Then nobody tells the primary that others
 * went on. */
static void scene_late_promise(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t late = sim_scene_within(c, 100, 450);
    for (unsigned i = 1; i < SIM_PROCS; i++)
        if (is_module(&c->procs[i]) && i != primary)
            sim_net_delay(c->net, host(i), host(primary), now_of(c) + late);
    split(c, primary, late + 800 * NS_PER_MS);
    for (unsigned i = 1; i < SIM_PROCS; i++) {
        if (!is_module(&c->procs[i]) || i == primary)
            continue;
        sim_deed(c, late + rng_below(&c->rng, NS_PER_MS), DEED_CUT, primary, i, true);
        sim_deed(c, late + 700 * NS_PER_MS, DEED_HEAL, primary, i, true);
    }
    (void)member;
}

/* Who promised starts again, and does not know of it; who was promised does not notice. */
static void scene_forgetful(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t after = sim_scene_within(c, 300, 900);
    split(c, primary, after);
    sim_scene_cut(c, primary, member, true, after);
    if (rng_chance(&c->rng, 2, 3)) {
        uint64_t when = sim_scene_within(c, 20, 200);
        sim_deed(c, when, DEED_KILL, member, 0, false);
        sim_deed(c, when + rng_below(&c->rng, 20 * NS_PER_MS), DEED_START, member, 0, false);
    }
}

/* A host is detached while a module hears nothing from the controller, or cannot write. */
static void scene_detach(struct sim_cluster *c, unsigned primary, unsigned member)
{
    struct sim_proc *p = &c->procs[rng_chance(&c->rng, 2, 3) ? primary : member];
    uint64_t for_ns = sim_scene_within(c, 20, 700);
    if (rng_chance(&c->rng, 1, 2)) {
        sim_scene_cut(c, p->number, 0, rng_chance(&c->rng, 1, 2), for_ns);
        for (unsigned i = 0; i < SIM_PROCS; i++)
            if ((c->procs[i].kind == SIM_CLIENT || c->procs[i].kind == SIM_GATEWAY) &&
                rng_chance(&c->rng, 1, 2))
                sim_scene_cut(c, i, 0, true, for_ns);
    } else if (p->data) {
        sim_medium_stall(p->log && rng_chance(&c->rng, 1, 2) ? p->log : p->data, now_of(c) + for_ns);
    }
    sim_admin_detach_now(c);
}

/* The power of the whole room fails. */
static void scene_dark(struct sim_cluster *c, unsigned primary, unsigned member)
{
    bool clients = rng_chance(&c->rng, 3, 4);
    uint64_t after = rng_below(&c->rng, rng_chance(&c->rng, 1, 2) ? 20 * NS_PER_MS : NS_PER_MS);
    if (rng_chance(&c->rng, 1, 2))
        sim_scene_cut(c, primary, member, false, after + NS_PER_MS);
    for (unsigned i = rng_chance(&c->rng, 1, 2); i < SIM_PROCS; i++) /* 0: the controller */
        if (is_module(&c->procs[i]) || i == 0)
            sim_deed(c, after, DEED_KILL, i, 0, true);
    if (clients)
        sim_scene_clients_gone(c, after);
}

/* Modules do not see one another, for moments. */
static void scene_short_cuts(struct sim_cluster *c, unsigned primary, unsigned member)
{
    for (unsigned i = 0; i < 1 + rng_below(&c->rng, 3); i++)
        sim_scene_cut(c, rng_chance(&c->rng, 1, 2) ? primary : member,
                      1 + (unsigned)rng_below(&c->rng, SIM_OSDS + SIM_AGENTS), rng_chance(&c->rng, 1, 2),
                      sim_scene_within(c, 1, 150));
}

/* What a gateway has under way to the primary is held up; the host goes elsewhere; and the primary dies
 * meanwhile. */
static void scene_ghost(struct sim_cluster *c, unsigned primary, unsigned member)
{
    uint64_t now = now_of(c), until = now + sim_scene_within(c, 20, 900);
    const struct sim_proc *from =
        sim_cluster_proc(c, SIM_GATEWAY, (unsigned)rng_below(&c->rng, SIM_GATEWAYS));
    (void)member;
    if (rng_chance(&c->rng, 1, 2)) {
        sim_scene_stall(c, from->number, until - now);
    } else {
        for (unsigned i = 0; i < SIM_PROCS; i++)
            if (is_module(&c->procs[i]))
                sim_net_delay(c->net, host(from->number), host(i), until);
    }
    for (unsigned i = 0; i < SIM_CLIENTS; i++)
        sim_cluster_proc(c, SIM_CLIENT, i)->lose_at = now + rng_below(&c->rng, 5 * NS_PER_MS);
    if (rng_chance(&c->rng, 2, 3))
        sim_deed(c, sim_scene_within(c, 5, 300), DEED_KILL, primary, 0, rng_chance(&c->rng, 1, 2));
    c->ghosts++;
}

/* The LUN is taken over from an agent that stands still, and is asked when it wakes up. */
static void scene_lun(struct sim_cluster *c, unsigned primary, unsigned member)
{
    struct sim_proc *a = sim_cluster_proc(c, SIM_SAN, 0), *b = a->twin;
    struct sim_proc *old = a->alive ? a : b;
    uint64_t ms = sim_scene_within(c, 50, 900);
    (void)primary;
    (void)member;
    if (!old->alive || old->paused || old->twin->alive)
        return;
    split(c, old->number, ms + sim_scene_within(c, 20, 300));
    if (rng_chance(&c->rng, 1, 2))
        sim_scene_stall(c, old->number, ms);
    old->twin->up_at = now_of(c) + rng_below(&c->rng, 20 * NS_PER_MS);
    c->takeovers++;
}

/* ---- a disk that is put back from an old copy ---- */
static void put_back(struct sim_cluster *c)
{
    struct sim_scenes *s = &c->scenes;
    struct sim_proc *p = &c->procs[s->rolled];
    if (!s->data)
        return;
    if (p->alive)
        sim_proc_kill(p, false);
    sim_medium_restore(p->data, s->data);
    medium_destroy(s->data);
    s->data = NULL;
    if (s->log) {
        sim_medium_restore(p->log, s->log);
        medium_destroy(s->log);
        s->log = NULL;
    }
    p->up_at = now_of(c);
}

static void scene_roll_back(struct sim_cluster *c)
{
    struct sim_scenes *s = &c->scenes;
    if (c->shape.restores || s->data)
        return; /* with both gone back nobody is left to tell */
    if (!s->old_data) {
        struct sim_proc *p = sim_cluster_proc(c, SIM_OSD, (unsigned)rng_below(&c->rng, SIM_OSDS));
        s->rolled = p->number;
        s->old_starts = p->starts;
        s->old_data = sim_medium_snapshot(p->data);
        s->old_log = p->log ? sim_medium_snapshot(p->log) : NULL;
        return;
    }
    struct sim_proc *p = &c->procs[s->rolled];
    struct rwm_stats stats = {0};
    if (p->rwm)
        rwm_stats_get(p->rwm, &stats);
    /* A copy is told by the starts that it has not seen. */
    if (!p->alive || !stats.serving || p->starts == s->old_starts)
        return;
    sim_proc_kill(p, false);
    c->kills++;
    s->data = sim_medium_snapshot(p->data);
    sim_medium_restore(p->data, s->old_data);
    if (p->log) {
        s->log = sim_medium_snapshot(p->log);
        sim_medium_restore(p->log, s->old_log);
        medium_destroy(s->old_log);
    }
    medium_destroy(s->old_data);
    s->old_data = s->old_log = NULL;
    p->up_at = now_of(c) + rng_below(&c->rng, 50 * NS_PER_MS);
    sim_deed(c, sim_scene_within(c, 100, 700), DEED_PUT_BACK, 0, 0, false);
}

/* ---- life ---- */
void sim_scene_start(struct sim_cluster *c)
{
    static const struct {
        enum sim_moment moment;
        void (*begin)(struct sim_cluster *c, unsigned primary, unsigned member);
    } scenes[] = {
        {MOMENT_READING, scene_stale_primary},
        {MOMENT_NONE, scene_stale_primary},
        {MOMENT_WRITING, scene_stale_primary},
        {MOMENT_WRITING, scene_half_way},
        {MOMENT_WRITING, scene_half_way},
        {MOMENT_JOINING, scene_join},
        {MOMENT_EQUAL, scene_late_report},
        {MOMENT_EQUAL, scene_late_report},
        {MOMENT_NONE, scene_short_cuts},
        {MOMENT_WRITING, scene_short_cuts},
        {MOMENT_WRITING, scene_ghost},
        {MOMENT_NONE, NULL},
        {MOMENT_WRITING, scene_commit},
        {MOMENT_READING, scene_late_promise},
        {MOMENT_READING, scene_forgetful},
        {MOMENT_WRITING, scene_detach},
        {MOMENT_NONE, scene_lun},
        {MOMENT_WRITING, scene_dark},
        {MOMENT_WRITING, scene_ghost},
        {MOMENT_QUIET, sim_play_deaf},
        {MOMENT_QUIET, sim_play_deaf},
        {MOMENT_WRITING, sim_play_late_forward},
        {MOMENT_PULLING, sim_play_pull},
        {MOMENT_WRITING, sim_play_outlived},
        {MOMENT_NONE, sim_play_old_report},
    };
    struct sim_scenes *s = &c->scenes;
    if (s->begin)
        return;
    if (c->shape.directed && c->shape.directed->begin && rng_chance(&c->rng, 2, 3)) {
        sim_scene_await(c, c->shape.directed->moment, c->shape.directed->begin, 300 * NS_PER_MS);
        return;
    }
    unsigned which = (unsigned)rng_below(&c->rng, ARRAY_LEN(scenes));
    if (c->shape.theme && rng_chance(&c->rng, 2, 3)) /* the same one again and again */
        which = (unsigned)(c->shape.theme % ARRAY_LEN(scenes));
    if (!scenes[which].begin) {
        scene_roll_back(c);
        return;
    }
    s->moment = scenes[which].moment;
    s->begin = scenes[which].begin;
    s->until_ns = now_of(c) + 100 * NS_PER_MS;
}

void sim_scene_await(struct sim_cluster *c,
                     bool (*own)(const struct sim_cluster *c, const struct rwm *m, unsigned *member),
                     void (*begin)(struct sim_cluster *c, unsigned primary, unsigned member), uint64_t for_ns)
{
    struct sim_scenes *s = &c->scenes;
    s->moment = MOMENT_OWN;
    s->own = own;
    s->begin = begin;
    s->until_ns = now_of(c) + for_ns;
}

/* In the order in which they were planned; what they plan themselves is due later. */
static void deeds_do(struct sim_cluster *c)
{
    struct sim_scenes *s = &c->scenes;
    unsigned left = 0;
    uint64_t due_ns = UINT64_MAX;
    for (unsigned i = 0; i < s->planned; i++) {
        struct sim_deed d = s->deeds[i];
        if (d.at_ns <= now_of(c)) {
            deed_do(c, &d);
            continue;
        }
        s->deeds[left++] = d;
        due_ns = min_u64(due_ns, d.at_ns);
    }
    s->planned = left;
    s->due_ns = due_ns;
}

void sim_scene_last(struct sim_cluster *c)
{
    static void (*const last[])(struct sim_cluster *, unsigned, unsigned) = {
        scene_half_way, scene_half_way, scene_dark, scene_join, sim_play_late_forward, sim_play_outlived};
    struct sim_scenes *s = &c->scenes;
    uint64_t played = s->played;
    sim_net_heal_all(c->net);
    if (!sim_advance(c, sim_scene_within(c, 100, 900)))
        return;
    s->begin = last[rng_below(&c->rng, ARRAY_LEN(last))];
    s->moment = MOMENT_WRITING;
    s->until_ns = now_of(c) + 300 * NS_PER_MS;
    if (c->shape.directed && c->shape.directed->last)
        sim_scene_await(c, c->shape.directed->moment, c->shape.directed->begin, NS_PER_S);
    bool outlived = s->begin == sim_play_outlived; /* the gateways hold what is to come late */
    while (s->begin)
        if (!sim_advance(c, 100 * NS_PER_US))
            return;
    if (s->played == played)
        return;
    c->faults_over = true; /* who starts again writes no more */
    if (!outlived)
        sim_scene_clients_gone(c, rng_below(&c->rng, 30 * NS_PER_MS));
    (void)sim_advance(c, outlived ? sim_scene_within(c, 300, 1000) : sim_scene_within(c, 10, 1000));
}

void sim_scenes_step(struct sim_cluster *c)
{
    struct sim_scenes *s = &c->scenes;
    if (s->planned > 0 && s->due_ns <= now_of(c))
        deeds_do(c);
    unsigned primary, member;
    if (s->begin && moment(c, &primary, &member)) {
        void (*begin)(struct sim_cluster *, unsigned, unsigned) = s->begin;
        s->begin = NULL;
        s->played++;
        begin(c, primary, member);
    } else if (s->begin && now_of(c) >= s->until_ns) {
        s->begin = NULL;
    }
}

uint64_t sim_scenes_due(const struct sim_cluster *c)
{
    uint64_t due = c->scenes.begin ? now_of(c) + WATCH_NS : UINT64_MAX;
    return c->scenes.planned > 0 ? min_u64(due, c->scenes.due_ns) : due;
}

void sim_scenes_end(struct sim_cluster *c)
{
    put_back(c);
    c->scenes.begin = NULL;
    c->scenes.planned = 0;
}

void sim_scenes_free(struct sim_cluster *c)
{
    struct medium *all[] = {c->scenes.old_data, c->scenes.old_log, c->scenes.data, c->scenes.log};
    for (unsigned i = 0; i < ARRAY_LEN(all); i++)
        medium_destroy(all[i]);
}

/* ---- the controller's nap ---- */
/* Modules that count as there, and copies that count as in sync. */
static unsigned standing(const struct sim_cluster *c)
{
    const struct table *t = c->procs[0].mdc ? mdc_table(c->procs[0].mdc) : NULL;
    unsigned count = 0;
    for (uint32_t i = 0; t && i < table_head(t)->section[TABLE_MODULE].used; i++) {
        const struct table_module *m = table_record(t, TABLE_MODULE, i);
        count += m && m->id != 0 && m->state == TABLE_MODULE_UP;
    }
    for (uint32_t i = 0; t && i < table_head(t)->section[TABLE_PARTITION].used; i++) {
        const struct table_partition *p = table_record(t, TABLE_PARTITION, i);
        for (unsigned k = 0; p && k < TABLE_MEMBERS_MAX; k++)
            count += (p->members[k] & TABLE_MEMBER_IN_SYNC) != 0;
    }
    return count;
}

static unsigned standing_all(const struct sim_cluster *c)
{
    const struct table *t = c->procs[0].mdc ? mdc_table(c->procs[0].mdc) : NULL;
    const struct table_pool *pool = t ? table_pool_by_id(t, 1) : NULL;
    return SIM_OSDS + 1 + (pool ? pool->partitions : 16) * c->options.copies;
}

bool sim_scene_nap(struct sim_cluster *c)
{
    struct sim_proc *mdc = &c->procs[0];
    struct sim_net_options net;
    sim_net_get_options(c->net, &net);
    net.spike_num = 0; /* a module that another one cannot reach for long does count as dead */
    sim_net_set_options(c->net, &net);
    for (unsigned i = 0; i < 150 && standing(c) < standing_all(c); i++)
        if (!sim_advance(c, 20 * NS_PER_MS))
            return true; /* another check failed */
    if (standing(c) < standing_all(c) || !sim_advance(c, 1500 * NS_PER_MS) || standing(c) < standing_all(c))
        return true;
    /* With its network: nobody gets an answer even from its kernel. */
    bool machine = rng_chance(&c->rng, 1, 2) || (c->shape.directed && c->shape.directed->rest);
    for (unsigned i = 1; machine && i < SIM_PROCS; i++)
        sim_net_cut(c->net, host(0), host(i), true);
    sim_scene_stall(c, 0, sim_scene_within(c, 500, 4000));
    while (mdc->paused)
        if (!sim_advance(c, 5 * NS_PER_MS))
            return true;
    sim_net_heal_all(c->net);
    for (unsigned i = 0; i < 400; i++) { /* at first as closely as one is taken for dead, and heard again */
        if (!sim_advance(c, i < 300 ? 100 * NS_PER_US : 10 * NS_PER_MS))
            return true;
        if (standing(c) < standing_all(c))
            return false;
    }
    return true;
}
