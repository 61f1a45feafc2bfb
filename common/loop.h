/*
 * loop.h: one shard's event loop: clock, timers, deferred tasks, file descriptors, pollers.
 *
 * Everything in a shard runs on its loop's thread and never blocks. Two providers:
 *  - real (loop_create_real): epoll, CLOCK_BOOTTIME, adaptive polling;
 *  - sim (sim.h): a virtual clock; nothing runs unless the world steps. loop_fd_* answer -ENOTSUP there.
 *
 * Order inside one round: pollers (fabric, io_uring, each with a bounded burst), expired timers, deferred
 * tasks queued before this round, then each poller's flush (post queued work once).
 * Thread: all functions only on the loop's thread, except loop_post and loop_stop.
 */
#ifndef CISTERN_COMMON_LOOP_H
#define CISTERN_COMMON_LOOP_H

#include "common/base.h"
#include "common/list.h"

struct loop;

/* ---- clock ---- */
/* Nanoseconds of CLOCK_BOOTTIME (real) or of the process's own (possibly drifting) virtual clock (sim). Cached per round. */
uint64_t loop_now_ns(const struct loop *loop);

/* ---- timers: embedded, one-shot. Zeroed memory is a valid disarmed timer after loop_timer_init. ---- */
struct loop_timer {
    uint64_t deadline_ns;
    void (*fn)(struct loop_timer *);
    size_t heap_index; /* 0 = disarmed; owned by the loop */
    uint64_t seq;      /* ties are broken by arming order */
};
void loop_timer_init(struct loop_timer *t, void (*fn)(struct loop_timer *));
/* (Re)arms: fn runs once, on the loop, at or after now + delay_ns. Never inline. */
void loop_timer_arm(struct loop *loop, struct loop_timer *t, uint64_t delay_ns);
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
void loop_task_cancel(struct loop *loop, struct loop_task *t);
/* Like loop_defer, from any thread: wakes the loop. The task must not be queued already. Real loops only; 0 or -ENOTSUP. */
int loop_post(struct loop *loop, struct loop_task *t);

/* ---- file descriptors (real loops only) ---- */
struct loop_fd {
    int fd;
    uint32_t events; /* EPOLLIN | EPOLLOUT ..., level triggered */
    void (*fn)(struct loop_fd *, uint32_t revents);
};
int loop_fd_add(struct loop *loop, struct loop_fd *f, int fd, uint32_t events, void (*fn)(struct loop_fd *, uint32_t));
int loop_fd_modify(struct loop *loop, struct loop_fd *f, uint32_t events);
/* After this f->fn is not called again, even if an event was already collected in this round. Does not close the fd. */
void loop_fd_remove(struct loop *loop, struct loop_fd *f);

/* ---- pollers: sources polled in each round ---- */
struct loop_poller {
    struct list link;
    /* Handles a bounded burst; returns how many things were handled (0 = idle). May be NULL. */
    unsigned (*poll)(struct loop_poller *);
    /* Posts work queued in this round (ring the doorbell, submit the ring). May be NULL. */
    void (*flush)(struct loop_poller *);
    /* Called before the loop sleeps: arm the wake-up, return true if something came in meanwhile (do not sleep). May be NULL. */
    bool (*arm)(struct loop_poller *);
};
void loop_poller_add(struct loop *loop, struct loop_poller *p);
void loop_poller_remove(struct loop *loop, struct loop_poller *p);

/* ---- running (real loops) ---- */
struct loop_options {
    uint64_t spin_ns; /* how long to poll after the last event before sleeping; 0 = never spin */
};
/* 0 or -errno. options may be NULL. */
int loop_create_real(const struct loop_options *options, struct loop **out);
/* Timers, tasks, fds and pollers must have been removed by their owners (asserted). */
void loop_destroy(struct loop *loop);
/* One round; sleeps at most max_wait_ns when nothing is ready (UINT64_MAX = until an event). Returns number of things handled. */
unsigned loop_run_once(struct loop *loop, uint64_t max_wait_ns);
/* Rounds until loop_stop. */
void loop_run(struct loop *loop);
/* From any thread or a signal handler. */
void loop_stop(struct loop *loop);
bool loop_stopping(const struct loop *loop);

#endif
