/*
 * loop_internal.h: what the two providers of loop.h share: timers, tasks, pollers and the order of a round.
 *
 * loop.c holds all that does not depend on the provider; loop_real.c and loop_sim.c fill loop_ops.
 */
#ifndef CISTERN_COMMON_LOOP_INTERNAL_H
#define CISTERN_COMMON_LOOP_INTERNAL_H

#include "common/base.h"
#include "common/list.h"
#include "common/loop.h"
#include "common/timer_heap.h"

/* Where a round stands. A sim loop may stop between two handlers and go on later. */
enum round_phase {
    ROUND_NONE = 0,
    ROUND_BEFORE, /* file descriptors; real only */
    ROUND_POLL,
    ROUND_TIMERS,
    ROUND_TASKS,
    ROUND_FLUSH,
};

struct loop_ops {
    void (*destroy)(struct loop *loop);
    uint64_t (*clock_ns)(const struct loop *loop);
    uint64_t (*wall_ns)(const struct loop *loop);
    /* Something became due outside of a round, or earlier than before. May be NULL. */
    void (*wake)(struct loop *loop);
    /* Takes posted tasks to the queue. May be NULL. */
    void (*take_posted)(struct loop *loop);
    int (*post)(struct loop *loop, struct loop_task *t);
    int (*fd_add)(struct loop *loop, struct loop_fd *f);
    int (*fd_modify)(struct loop *loop, struct loop_fd *f);
    void (*fd_remove)(struct loop *loop, struct loop_fd *f);
    /* Calls the handlers of the descriptors found ready; returns how many. May be NULL. */
    unsigned (*dispatch_fds)(struct loop *loop);
    unsigned (*run_once)(struct loop *loop, uint64_t max_wait_ns);
    void (*stop)(struct loop *loop);
    /* Asked before each handler: false leaves the round where it is. NULL = always go on. */
    bool (*go_on)(struct loop *loop);
};

struct loop {
    const struct loop_ops *ops;
    uint64_t now_ns; /* of the current round */
    enum round_phase phase;
    unsigned handled; /* in this round */
    unsigned polled;  /* of these, by pollers */
    bool dead;        /* killed (sim): takes nothing more */
    _Atomic bool stopping;
    struct loop_stats stats;
    struct timer_heap timers;
    uint64_t timers_end_seq; /* timers armed from here on wait for the next round */
    struct list queued;      /* tasks for the next round */
    struct list running;     /* tasks of this round */
    struct list pollers;
    struct list *cursor; /* the next poller of this phase; kept right by loop_poller_remove */
};

/* 0 or -ENOMEM. */
int loop_base_init(struct loop *loop, const struct loop_ops *ops);
/* Asserts that all owners have taken their things away. */
void loop_base_fini(struct loop *loop);
/* Begins a round at loop->now_ns; loop_round_run goes on with it and returns true at its end. */
void loop_round_begin(struct loop *loop);
bool loop_round_run(struct loop *loop);
/* The deadline of the first timer; UINT64_MAX when there is none. */
uint64_t loop_first_deadline(const struct loop *loop);

#endif
