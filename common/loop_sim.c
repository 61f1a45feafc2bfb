/*
 * loop_sim.c: the loop of a simulated process.
 *
 * The loop has one event in its world. It stands for the next thing that the scheduler does with the process:
 *   asleep -> (something is due) -> runnable: the round's time is taken -> (delay) -> the round runs ->
 * asleep and, when a round was interrupted, for its continuation.
 */
#include "common/loop_internal.h"
#include "common/sim_internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MILLION             1000000
#define DELAY_MIN_NS        100
#define DELAY_DEFAULT_NS    (20 * NS_PER_US)
#define OFFSET_MIN_NS       (1 * NS_PER_S)
#define OFFSET_RANGE_NS     (999 * NS_PER_S)
#define INTERRUPTS_NUM      1
#define INTERRUPTS_DEN      64
#define WALL_AT_START_NS    (1767225600 * NS_PER_S) /* 2026-01-01T00:00:00Z */
#define FARTHEST_ELAPSED_NS (1ull << 62)

struct loop_sim {
    struct loop base;
    struct sim_world *world;
    struct rng rng;
    struct sim_event event;
    struct sim_clock clock;
    uint64_t delay_max_ns;
    uint64_t interrupts_num, interrupts_den;
    uint64_t runnable_since_ns; /* local time of the round to come */
    uint64_t last_read_ns;      /* the latest local time that anybody was given */
    bool runnable;
    bool kicked;
    bool paused;
    bool resuming; /* the handler that an interruption held back goes first */
    char name[];
};

static const struct loop_ops sim_ops;

static struct loop_sim *sim_of(const struct loop *loop)
{
    MUST(loop->ops == &sim_ops);
    return container_of(loop, struct loop_sim, base);
}

/* ---- the clock ---- */

static uint64_t local_of(const struct sim_clock *c, uint64_t world_ns)
{
    int64_t elapsed = (int64_t)(world_ns - c->base_world_ns);
    int64_t drift = elapsed / MILLION * c->drift_ppm + elapsed % MILLION * c->drift_ppm / MILLION;
    return c->base_local_ns + (uint64_t)(elapsed + drift);
}

/* The first moment of true time at which the clock shows local_ns or more; UINT64_MAX = never. */
static uint64_t world_of(const struct sim_clock *c, uint64_t local_ns)
{
    if (local_ns <= c->base_local_ns)
        return c->base_world_ns;
    uint64_t elapsed = local_ns - c->base_local_ns;
    if (elapsed >= FARTHEST_ELAPSED_NS / 2)
        return UINT64_MAX;
    uint64_t rate = (uint64_t)(MILLION + c->drift_ppm); /* local ns in a million ns */
    uint64_t whole = elapsed / rate;
    if (whole >= FARTHEST_ELAPSED_NS / MILLION)
        return UINT64_MAX;
    uint64_t world_ns = c->base_world_ns + whole * MILLION + elapsed % rate * MILLION / rate;
    while (local_of(c, world_ns) < local_ns)
        world_ns++;
    while (world_ns > c->base_world_ns && local_of(c, world_ns - 1) >= local_ns)
        world_ns--;
    return world_ns;
}

static uint64_t sim_clock_ns(const struct loop *loop)
{
    struct loop_sim *s = sim_of(loop);
    s->last_read_ns = local_of(&s->clock, s->world->now_ns);
    return s->last_read_ns;
}

static uint64_t sim_wall_ns(const struct loop *loop)
{
    return WALL_AT_START_NS + sim_of(loop)->world->now_ns;
}

void sim_loop_get_clock(const struct loop *loop, struct sim_clock *out)
{
    *out = sim_of(loop)->clock;
}

void sim_loop_set_clock(struct loop *loop, const struct sim_clock *clock)
{
    struct loop_sim *s = sim_of(loop);
    MUST(loop->timers.count == 0 && loop->phase == ROUND_NONE && !s->runnable);
    MUST(clock->drift_ppm > -MILLION && clock->base_world_ns <= s->world->now_ns);
    MUST(local_of(clock, s->world->now_ns) >= s->last_read_ns);
    s->clock = *clock;
}

/* ---- the scheduler ---- */

static void schedule_after_delay(struct loop_sim *s)
{
    uint64_t delay_ns = DELAY_MIN_NS + rng_below(&s->rng, s->delay_max_ns);
    sim_event_schedule(s->world, &s->event, s->world->now_ns + delay_ns);
}

/* True time at which the process has something to do; UINT64_MAX = never. */
static uint64_t next_due_ns(const struct loop_sim *s)
{
    if (s->kicked || !list_empty(&s->base.queued))
        return s->world->now_ns;
    uint64_t deadline_ns = loop_first_deadline(&s->base);
    return deadline_ns == UINT64_MAX ? UINT64_MAX
                                     : max_u64(world_of(&s->clock, deadline_ns), s->world->now_ns);
}

/* Sees to it that the event comes when the next thing is due. */
static void sim_wake(struct loop *loop)
{
    struct loop_sim *s = sim_of(loop);
    /* A round that runs, will run or is interrupted looks again at its end. */
    if (loop->dead || s->paused || s->runnable || loop->phase != ROUND_NONE)
        return;
    uint64_t due_ns = next_due_ns(s);
    if (due_ns == UINT64_MAX)
        sim_event_cancel(s->world, &s->event);
    else if (!sim_event_scheduled(&s->event) || s->event.node.deadline_ns != due_ns)
        sim_event_schedule(s->world, &s->event, due_ns);
}

static bool sim_go_on(struct loop *loop)
{
    struct loop_sim *s = sim_of(loop);
    if (loop->dead)
        return true; /* nothing is left to run: the round ends by itself */
    if (s->paused)
        return false;
    if (s->resuming) {
        s->resuming = false;
        return true;
    }
    return !rng_chance(&s->rng, s->interrupts_num, s->interrupts_den);
}

static void run_round(struct loop_sim *s)
{
    bool ended = loop_round_run(&s->base);
    if (s->base.dead)
        return;
    if (!ended) {
        s->resuming = true;
        if (!s->paused)
            schedule_after_delay(s);
        return;
    }
    s->resuming = false;
    if (s->base.polled > 0)
        s->kicked = true; /* a burst is bounded: there may be more */
    sim_wake(&s->base);
}

static void begin_round(struct loop_sim *s)
{
    s->runnable = false;
    s->kicked = false;
    /* Stale, but never before what the process has read outside of a round. */
    s->base.now_ns = max_u64(s->runnable_since_ns, s->last_read_ns);
    loop_round_begin(&s->base);
    run_round(s);
}

static void on_event(struct sim_event *ev)
{
    struct loop_sim *s = container_of(ev, struct loop_sim, event);
    if (s->base.phase != ROUND_NONE) {
        run_round(s);
    } else if (s->runnable) {
        begin_round(s);
    } else if (next_due_ns(s) > s->world->now_ns) {
        sim_wake(&s->base); /* what was due has been cancelled */
    } else {
        s->runnable = true;
        s->runnable_since_ns = local_of(&s->clock, s->world->now_ns);
        schedule_after_delay(s);
    }
}

void sim_loop_kick(struct loop *loop)
{
    struct loop_sim *s = sim_of(loop);
    if (loop->dead)
        return;
    s->kicked = true;
    sim_wake(loop);
}

void sim_loop_set_drift(struct loop *loop, int drift_ppm)
{
    MUST(drift_ppm > -MILLION);
    struct loop_sim *s = sim_of(loop);
    s->clock.base_local_ns = local_of(&s->clock, s->world->now_ns);
    s->clock.base_world_ns = s->world->now_ns;
    s->clock.drift_ppm = drift_ppm;
    sim_wake(loop); /* timers are due at another true time now */
}

void sim_loop_jump(struct loop *loop, uint64_t ns)
{
    struct loop_sim *s = sim_of(loop);
    s->clock.base_local_ns = local_of(&s->clock, s->world->now_ns) + ns;
    s->clock.base_world_ns = s->world->now_ns;
    sim_wake(loop);
}

/* ---- pause and kill ---- */

void sim_loop_pause(struct loop *loop)
{
    struct loop_sim *s = sim_of(loop);
    s->paused = true;
    sim_event_cancel(s->world, &s->event);
}

void sim_loop_resume(struct loop *loop)
{
    struct loop_sim *s = sim_of(loop);
    if (!s->paused || loop->dead)
        return;
    s->paused = false;
    if (loop_current() == loop)
        return; /* paused and resumed by one handler: the round just goes on */
    if (loop->phase != ROUND_NONE || s->runnable)
        schedule_after_delay(s);
    else
        sim_wake(loop);
}

bool sim_loop_paused(const struct loop *loop)
{
    return sim_of(loop)->paused;
}

void sim_loop_kill(struct loop *loop)
{
    struct loop_sim *s = sim_of(loop);
    loop->dead = true;
    timer_heap_clear(&loop->timers);
    while (list_pop_front(&loop->queued) != NULL)
        ;
    while (list_pop_front(&loop->running) != NULL)
        ;
    while (list_pop_front(&loop->pollers) != NULL)
        ;
    loop->cursor = &loop->pollers;
    s->runnable = s->kicked = s->paused = false;
    sim_event_cancel(s->world, &s->event);
    if (loop_current() != loop)
        loop->phase = ROUND_NONE;
}

bool sim_loop_killed(const struct loop *loop)
{
    return loop->dead;
}

void sim_loop_set_delay(struct loop *loop, uint64_t max_ns)
{
    MUST(max_ns >= 1);
    sim_of(loop)->delay_max_ns = max_ns;
}

void sim_loop_set_interrupts(struct loop *loop, uint64_t num, uint64_t den)
{
    MUST(den > 0 && num < den);
    struct loop_sim *s = sim_of(loop);
    s->interrupts_num = num;
    s->interrupts_den = den;
}

/* ---- the rest of loop.h ---- */

/* Steps the world; waiting is letting virtual time pass. */
static unsigned sim_run_once(struct loop *loop, uint64_t max_wait_ns)
{
    struct sim_world *world = sim_of(loop)->world;
    uint64_t until_ns = max_wait_ns > UINT64_MAX - world->now_ns ? UINT64_MAX : world->now_ns + max_wait_ns;
    if (world->events.count > 0 && sim_world_next_ns(world) <= until_ns)
        return sim_world_step(world);
    MUST(until_ns != UINT64_MAX); /* nothing will ever happen */
    world->now_ns = until_ns;
    return 0;
}

static void sim_destroy(struct loop *loop)
{
    struct loop_sim *s = sim_of(loop);
    loop_base_fini(loop);
    sim_event_cancel(s->world, &s->event);
    s->world->loops--;
    free(s);
}

static const struct loop_ops sim_ops = {
    .destroy = sim_destroy,
    .clock_ns = sim_clock_ns,
    .wall_ns = sim_wall_ns,
    .wake = sim_wake,
    .run_once = sim_run_once,
    .go_on = sim_go_on,
};

int loop_create_sim(struct sim_world *world, const char *name, int drift_ppm, struct loop **out)
{
    MUST(drift_ppm > -MILLION);
    struct loop_sim *s = calloc(1, sizeof *s + strlen(name) + 1);
    if (s == NULL)
        return -ENOMEM;
    int rc = loop_base_init(&s->base, &sim_ops);
    if (rc != 0) {
        free(s);
        return rc;
    }
    memcpy(s->name, name, strlen(name) + 1);
    s->world = world;
    sim_world_fork_rng(world, name, &s->rng);
    sim_event_init(&s->event, on_event);
    s->clock =
        (struct sim_clock){world->now_ns, OFFSET_MIN_NS + rng_below(&s->rng, OFFSET_RANGE_NS), drift_ppm};
    s->delay_max_ns = DELAY_DEFAULT_NS;
    s->interrupts_num = INTERRUPTS_NUM;
    s->interrupts_den = INTERRUPTS_DEN;
    world->loops++;
    *out = &s->base;
    return 0;
}

bool loop_is_sim(const struct loop *loop)
{
    return loop->ops == &sim_ops;
}

struct sim_world *sim_loop_world(const struct loop *loop)
{
    return sim_of(loop)->world;
}

const char *sim_loop_name(const struct loop *loop)
{
    return sim_of(loop)->name;
}
