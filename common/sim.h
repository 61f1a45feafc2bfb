/*
 * sim.h: the simulated world: one seed, one virtual time, and the loops of any number of simulated processes.
 *
 * A world is a queue of events ordered by (time, order of scheduling). Nothing happens but inside
 * sim_world_step and the functions built on it; virtual time moves only from event to event. All that looks
 * random is drawn from the seed, so one seed gives one run.
 *
 * A process's loop (loop_create_sim) keeps every promise of loop.h. It runs a round when something of it is
 * due: a timer, a deferred task, or a poller for which somebody called sim_loop_kick. What it models besides:
 *  - a scheduling delay before each round, drawn anew each time (100 ns to 20 us unless set otherwise);
 *  - a round's cached time is taken when the process becomes runnable, before that delay: loop_now_ns may be
 * stale, by the length of a pause if the process is paused in between. loop_clock_ns is never stale;
 *  - now and then a round is interrupted between two handlers, and events of the world (arrivals, one-sided
 * operations) come in between, even a pause or a kill. Rounds of one process never overlap;
 *  - a clock of its own: an offset (1 s to 1000 s, random) and a drift.
 *
 * Thread: one thread owns a world and all in it. Worlds share nothing.
 */
#ifndef CISTERN_COMMON_SIM_H
#define CISTERN_COMMON_SIM_H

#include "common/base.h"
#include "common/loop.h"
#include "common/rng.h"

struct sim_world;

/* ---- the world ---- */
/* 0 or -ENOMEM. Time starts at 0. */
int sim_world_create(uint64_t seed, struct sim_world **out);
/* Its loops must have been destroyed (asserted). Events still scheduled are forgotten. */
void sim_world_destroy(struct sim_world *world);
/* True time in ns; no process knows it. */
uint64_t sim_world_now(const struct sim_world *world);
uint64_t sim_world_seed(const struct sim_world *world);
/* The world's own stream of random numbers. */
struct rng *sim_world_rng(struct sim_world *world);
/* Starts another stream, of its own: draws from it disturb no other. Depends on the seed, label and how many
 * were forked. */
void sim_world_fork_rng(struct sim_world *world, const char *label, struct rng *out);
/* Runs the next event, moving time to it; false when there is none. Never from inside an event or a handler.
 */
bool sim_world_step(struct sim_world *world);
/* Runs all events up to and including time_ns; then it is time_ns. A time that has passed: nothing happens.
 */
void sim_world_run_until(struct sim_world *world, uint64_t time_ns);
/* Time of the next event; UINT64_MAX when there is none. */
uint64_t sim_world_next_ns(const struct sim_world *world);
/* Events run so far. */
uint64_t sim_world_steps(const struct sim_world *world);

/* ---- events of the world: the simulated fabric's and devices', the test's faults. Embedded, one-shot. ----
 */
struct sim_event {
    struct loop_timer node; /* owned by the world */
    void (*fn)(struct sim_event *);
};
void sim_event_init(struct sim_event *ev, void (*fn)(struct sim_event *));
/* (Re)schedules: fn runs once, from sim_world_step, at time at_ns (now, if that has passed). An event stands
 * outside all processes: it calls no service code; what a process shall learn waits in a poller and is
 * announced by sim_loop_kick. */
void sim_event_schedule(struct sim_world *world, struct sim_event *ev, uint64_t at_ns);
/* Safe when it is not scheduled. */
void sim_event_cancel(struct sim_world *world, struct sim_event *ev);
static inline bool sim_event_scheduled(const struct sim_event *ev)
{
    return loop_timer_armed(&ev->node);
}

/* ---- processes ---- */
/* The loop of a new process called name (copied). drift_ppm: how much faster its clock runs than true time,
 * in millionths, above -1000000. 0 or -ENOMEM. Destroyed by loop_destroy. */
int loop_create_sim(struct sim_world *world, const char *name, int drift_ppm, struct loop **out);
bool loop_is_sim(const struct loop *loop);
struct sim_world *sim_loop_world(const struct loop *loop);
const char *sim_loop_name(const struct loop *loop);
/* A round will run soon, and poll; for fabric and devices that have something for a poller, at any time and
 * from anywhere in the world. A round whose pollers handled something is followed by another. Nothing on a
 * killed loop. */
void sim_loop_kick(struct loop *loop);
/* The process stands still: none of its handlers runs. Legal from one of its handlers too (it stops after
 * that one). */
void sim_loop_pause(struct loop *loop);
/* All that became due meanwhile runs now, late. Safe on a loop that is not paused. */
void sim_loop_resume(struct loop *loop);
bool sim_loop_paused(const struct loop *loop);
/*
 * Nothing of the process runs again (but for the handler that is running, if one is). Its timers, tasks and
 * pollers are all disarmed, unlinked and removed: they may be freed without cancelling, and cancelling them
 * is harmless. What is armed, deferred or added afterwards is ignored. The loop still answers the time, until
 * loop_destroy.
 */
void sim_loop_kill(struct loop *loop);
bool sim_loop_killed(const struct loop *loop);
/* Scheduling delays are drawn from [100 ns, 100 ns + max_ns); max_ns >= 1. A loaded machine: say 5 ms. */
void sim_loop_set_delay(struct loop *loop, uint64_t max_ns);
/* Rounds are interrupted with probability num/den at each handler; 0/1 = never. Default 1/64. */
void sim_loop_set_interrupts(struct loop *loop, uint64_t num, uint64_t den);

/* A machine's clock, to hand on from a process to the one restarted on the same machine. */
struct sim_clock {
    uint64_t base_world_ns, base_local_ns;
    int drift_ppm;
};
void sim_loop_get_clock(const struct loop *loop, struct sim_clock *out);
/* Before anything is armed on the loop. The clock must not go backwards (asserted for what was read from this
 * loop). */
void sim_loop_set_clock(struct loop *loop, const struct sim_clock *clock);
/* From now on; the clock does not jump. */
void sim_loop_set_drift(struct loop *loop, int drift_ppm);
/* The clock is ahead by so much at once: what a machine that was suspended, or moved, sees. */
void sim_loop_jump(struct loop *loop, uint64_t ns);

#endif
