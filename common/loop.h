/*
 * loop.h: one shard's event loop: clock, timers, deferred tasks, file descriptors, pollers.
 *
 * Everything in a shard runs on its loop's thread and never blocks. Two providers:
 *  - real (loop_create_real): epoll, CLOCK_BOOTTIME, adaptive polling;
 *  - sim (sim.h): a virtual clock; nothing runs unless the world steps. loop_fd_* answer -ENOTSUP there;
 * loop_run_once steps the whole world, by one event or by max_wait_ns, so that a test can drive both kinds
 * alike.
 *
 * Order inside one round: ready file descriptors, pollers (fabric, io_uring, each with a bounded burst),
 * expired timers, deferred tasks queued before this round, then each poller's flush (post queued work once).
 * A timer armed for now inside a round's timers, and a task deferred inside a round, wait for the next round:
 * no round is endless. Any handler may arm, cancel, add and remove anything, its own object included. Thread:
 * all functions only on the loop's thread, except loop_post and loop_stop.
 */
#ifndef CISTERN_COMMON_LOOP_H
#define CISTERN_COMMON_LOOP_H

#include "common/base.h"
#include "common/list.h"

struct loop;

/* ---- clock ---- */
/* Nanoseconds of CLOCK_BOOTTIME (real) or of the process's own (possibly drifting) virtual clock (sim).
 * Cached per round; outside of a round (construction, tests) it is read anew. */
uint64_t loop_now_ns(const struct loop *loop);
/*
 * The same clock, read at this moment. A round may have begun long ago (the process was stopped in between),
 * so whatever another node relies on (a promise given or counted) uses this one; timeouts and statistics use
 * loop_now_ns.
 */
uint64_t loop_clock_ns(const struct loop *loop);
/* Nanoseconds since 1970, for people only: CLOCK_REALTIME (real; loop may be NULL), a fixed date plus the
 * world's time (sim). */
uint64_t loop_wall_ns(const struct loop *loop);
/* The loop whose round the calling thread is in; NULL outside. For logs. */
struct loop *loop_current(void);

/* ---- timers: embedded, one-shot. Zeroed memory is a valid disarmed timer after loop_timer_init. ---- */
struct loop_timer {
    /* All fields are the loop's; read deadline_ns if you like. */
    uint64_t deadline_ns;
    void (*fn)(struct loop_timer *);
    size_t heap_index; /* 0 = disarmed; owned by the loop */
    uint64_t seq;      /* ties are broken by arming order */
};
void loop_timer_init(struct loop_timer *t, void (*fn)(struct loop_timer *));
/* (Re)arms: fn runs once, on the loop, at or after loop_now_ns + delay_ns, disarmed by then. Never inline. A
 * delay beyond the end of the clock never fires. */
void loop_timer_arm(struct loop *loop, struct loop_timer *t, uint64_t delay_ns);
/* Safe on a disarmed timer. */
void loop_timer_cancel(struct loop *loop, struct loop_timer *t);
static inline bool loop_timer_armed(const struct loop_timer *t)
{
    return t->heap_index != 0;
}

/* ---- deferred tasks: run once in the next round, in order of deferral; embedded ---- */
struct loop_task {
    struct list link; /* owned by the loop; unlinked when not queued */
    void (*fn)(struct loop_task *);
};
void loop_task_init(struct loop_task *t, void (*fn)(struct loop_task *));
/* Queues t unless it is queued already. */
void loop_defer(struct loop *loop, struct loop_task *t);
/* fn will not run (until it is deferred again); safe on a task that is not queued. Takes back posted tasks
 * too. */
void loop_task_cancel(struct loop *loop, struct loop_task *t);
/* Like loop_defer, from any thread: wakes the loop. The task must not be queued already. Real loops only; 0
 * or -ENOTSUP. */
int loop_post(struct loop *loop, struct loop_task *t);

/* ---- file descriptors (real loops only) ---- */
struct loop_fd {
    int fd;
    uint32_t events; /* EPOLLIN | EPOLLOUT ..., level triggered */
    void (*fn)(struct loop_fd *, uint32_t revents);
};
/* f and fd are the caller's and stay valid until loop_fd_remove. fn gets EPOLLERR and EPOLLHUP unasked. 0 or
 * -errno (epoll_ctl(2)); -ENOTSUP on a sim loop. */
int loop_fd_add(struct loop *loop, struct loop_fd *f, int fd, uint32_t events,
                void (*fn)(struct loop_fd *, uint32_t));
/* Other events for a descriptor that was added. 0 or -errno. */
int loop_fd_modify(struct loop *loop, struct loop_fd *f, uint32_t events);
/* After this f->fn is not called again, even if an event was already collected in this round. Does not close
 * the fd. */
void loop_fd_remove(struct loop *loop, struct loop_fd *f);

/* ---- pollers: sources polled in each round ---- */
struct loop_poller {
    struct list link;
    /* Handles a bounded burst; returns how many things were handled (0 = idle). May be NULL. */
    unsigned (*poll)(struct loop_poller *);
    /* Posts work queued in this round (ring the doorbell, submit the ring). May be NULL. */
    void (*flush)(struct loop_poller *);
    /* Called before the loop sleeps: arm the wake-up, return true if something came in meanwhile (do not
     * sleep). May be NULL. */
    bool (*arm)(struct loop_poller *);
};
/* Adds p behind the others: within a round and at its end pollers are called in the order of adding. */
void loop_poller_add(struct loop *loop, struct loop_poller *p);
/* None of p's functions is called again. Safe on a poller that was list_init'ed and is not added. */
void loop_poller_remove(struct loop *loop, struct loop_poller *p);

/* ---- running (real loops) ---- */
struct loop_options {
    uint64_t spin_ns; /* how long to poll after the last event before sleeping; 0 = never spin */
};
/* 0 or -errno. options may be NULL. */
int loop_create_real(const struct loop_options *options, struct loop **out);
/* Timers, tasks, fds and pollers must have been removed by their owners (asserted). */
void loop_destroy(struct loop *loop);
/* One round; with spin_ns, returns 0 without sleeping while it still spins; sleeps at most max_wait_ns when
 * nothing is ready (UINT64_MAX = until an event). Returns number of things handled. */
unsigned loop_run_once(struct loop *loop, uint64_t max_wait_ns);
/* Rounds until loop_stop, even if that came first. After it loop_run_once may still be called, to drain. */
void loop_run(struct loop *loop);
/* From any thread or a signal handler. For good: a stopped loop does not start again. */
void loop_stop(struct loop *loop);
bool loop_stopping(const struct loop *loop);

/* ---- what a loop has done, for metrics ---- */
struct loop_stats {
    uint64_t rounds;
    uint64_t sleeps;           /* real only */
    uint64_t longest_round_ns; /* real only: from its begin to its end; above 500 ms it is logged, at most
                                  once a second */
    uint64_t busy_ns;          /* real only: in rounds that handled something */
    uint64_t long_rounds;      /* real only: such of 10 ms and more */
};
void loop_get_stats(const struct loop *loop, struct loop_stats *out);

#endif
