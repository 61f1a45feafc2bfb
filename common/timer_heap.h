/*
 * timer_heap.h: a binary heap of loop timers, ordered by (deadline, arming order). Internal to the loops and
 * the simulated world, which keeps its events in one too.
 */
#ifndef CISTERN_COMMON_TIMER_HEAP_H
#define CISTERN_COMMON_TIMER_HEAP_H

#include "common/base.h"
#include "common/loop.h"

struct timer_heap {
    struct loop_timer **items; /* items[1..count]; index 0 stays empty so that heap_index 0 means disarmed */
    size_t count;
    size_t room;
    uint64_t next_seq;
};
/* 0 or -ENOMEM. */
int timer_heap_init(struct timer_heap *h);
/* Disarms what is still in it. */
void timer_heap_fini(struct timer_heap *h);
/* Puts t in, or moves it if it is in already, behind others of the same deadline. */
void timer_heap_put(struct timer_heap *h, struct loop_timer *t, uint64_t deadline_ns);
/* Safe when t is not in. */
void timer_heap_remove(struct timer_heap *h, struct loop_timer *t);
/* The earliest, or NULL. */
struct loop_timer *timer_heap_first(const struct timer_heap *h);
/* Takes all out. */
void timer_heap_clear(struct timer_heap *h);

#endif
