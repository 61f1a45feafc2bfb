/* loop.c: the part of the loop that both providers share. */
#include "common/loop_internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

static _Thread_local struct loop *current;

int loop_base_init(struct loop *loop, const struct loop_ops *ops)
{
    loop->ops = ops;
    list_init(&loop->queued);
    list_init(&loop->running);
    list_init(&loop->pollers);
    loop->cursor = &loop->pollers;
    return timer_heap_init(&loop->timers);
}

void loop_base_fini(struct loop *loop)
{
    MUST(current != loop);
    MUST(loop->timers.count == 0);
    MUST(list_empty(&loop->queued) && list_empty(&loop->running));
    MUST(list_empty(&loop->pollers));
    timer_heap_fini(&loop->timers);
}

void loop_destroy(struct loop *loop)
{
    if (loop != NULL)
        loop->ops->destroy(loop);
}

struct loop *loop_current(void)
{
    return current;
}

/* ---- clock ---- */

uint64_t loop_now_ns(const struct loop *loop)
{
    return loop->phase != ROUND_NONE ? loop->now_ns : loop->ops->clock_ns(loop);
}

uint64_t loop_clock_ns(const struct loop *loop)
{
    return loop->ops->clock_ns(loop);
}

uint64_t loop_wall_ns(const struct loop *loop)
{
    if (loop != NULL && loop->ops->wall_ns != NULL)
        return loop->ops->wall_ns(loop);
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void wake(struct loop *loop)
{
    if (loop->ops->wake != NULL)
        loop->ops->wake(loop);
}

/* ---- timers ---- */

void loop_timer_init(struct loop_timer *t, void (*fn)(struct loop_timer *))
{
    *t = (struct loop_timer){.fn = fn};
}

void loop_timer_arm(struct loop *loop, struct loop_timer *t, uint64_t delay_ns)
{
    MUST(t->fn != NULL);
    if (loop->dead)
        return;
    uint64_t now_ns = loop_now_ns(loop);
    timer_heap_put(&loop->timers, t, delay_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + delay_ns);
    wake(loop);
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *t)
{
    timer_heap_remove(&loop->timers, t);
}

uint64_t loop_first_deadline(const struct loop *loop)
{
    const struct loop_timer *t = timer_heap_first(&loop->timers);
    return t != NULL ? t->deadline_ns : UINT64_MAX;
}

/* ---- tasks ---- */

void loop_task_init(struct loop_task *t, void (*fn)(struct loop_task *))
{
    list_init(&t->link);
    t->fn = fn;
}

void loop_defer(struct loop *loop, struct loop_task *t)
{
    MUST(t->fn != NULL);
    if (loop->dead || !list_unlinked(&t->link))
        return;
    list_push_back(&loop->queued, &t->link);
    wake(loop);
}

void loop_task_cancel(struct loop *loop, struct loop_task *t)
{
    if (loop->ops->take_posted != NULL)
        loop->ops->take_posted(loop);
    list_remove(&t->link);
}

int loop_post(struct loop *loop, struct loop_task *t)
{
    return loop->ops->post != NULL ? loop->ops->post(loop, t) : -ENOTSUP;
}

/* ---- file descriptors ---- */

int loop_fd_add(struct loop *loop, struct loop_fd *f, int fd, uint32_t events,
                void (*fn)(struct loop_fd *, uint32_t))
{
    if (loop->ops->fd_add == NULL)
        return -ENOTSUP;
    *f = (struct loop_fd){.fd = fd, .events = events, .fn = fn};
    return loop->ops->fd_add(loop, f);
}

int loop_fd_modify(struct loop *loop, struct loop_fd *f, uint32_t events)
{
    if (loop->ops->fd_modify == NULL)
        return -ENOTSUP;
    if (f->events == events)
        return 0;
    uint32_t old = f->events;
    f->events = events;
    int rc = loop->ops->fd_modify(loop, f);
    if (rc != 0)
        f->events = old;
    return rc;
}

void loop_fd_remove(struct loop *loop, struct loop_fd *f)
{
    if (loop->ops->fd_remove != NULL)
        loop->ops->fd_remove(loop, f);
}

/* ---- pollers ---- */

void loop_poller_add(struct loop *loop, struct loop_poller *p)
{
    list_init(&p->link);
    if (loop->dead)
        return;
    /* A round that has reached the end of its phase's list stays there: it meets p in its next phase. */
    list_push_back(&loop->pollers, &p->link);
}

void loop_poller_remove(struct loop *loop, struct loop_poller *p)
{
    if (loop->cursor == &p->link)
        loop->cursor = p->link.next;
    list_remove(&p->link);
}

/* ---- the round ---- */

void loop_round_begin(struct loop *loop)
{
    MUST(loop->phase == ROUND_NONE);
    loop->phase = ROUND_BEFORE;
    loop->handled = loop->polled = 0;
    loop->stats.rounds++;
    loop->cursor = loop->pollers.next;
    if (loop->ops->take_posted != NULL)
        loop->ops->take_posted(loop);
    list_splice(&loop->running, &loop->queued);
}

static bool go_on(struct loop *loop)
{
    return loop->ops->go_on == NULL || loop->ops->go_on(loop);
}

static struct loop_poller *next_poller(struct loop *loop)
{
    if (loop->cursor == &loop->pollers)
        return NULL;
    struct loop_poller *p = list_entry(loop->cursor, struct loop_poller, link);
    loop->cursor = loop->cursor->next;
    return p;
}

static bool has_poller(const struct loop *loop)
{
    return loop->cursor != &loop->pollers;
}

static bool run_polls(struct loop *loop)
{
    while (has_poller(loop)) {
        if (!go_on(loop))
            return false;
        struct loop_poller *p = next_poller(loop);
        if (p->poll != NULL) {
            unsigned n = p->poll(p);
            loop->handled += n;
            loop->polled += n;
        }
    }
    return true;
}

static struct loop_timer *next_timer(const struct loop *loop)
{
    struct loop_timer *t = timer_heap_first(&loop->timers);
    /* UINT64_MAX is never. Later ones of the same deadline were armed in this phase: the next round's. */
    if (t == NULL || t->deadline_ns > loop->now_ns || t->deadline_ns == UINT64_MAX ||
        t->seq >= loop->timers_end_seq)
        return NULL;
    return t;
}

static bool run_timers(struct loop *loop)
{
    struct loop_timer *t;
    while ((t = next_timer(loop)) != NULL) {
        if (!go_on(loop))
            return false;
        timer_heap_remove(&loop->timers, t);
        loop->handled++;
        t->fn(t);
    }
    return true;
}

static bool run_tasks(struct loop *loop)
{
    while (!list_empty(&loop->running)) {
        if (!go_on(loop))
            return false;
        struct loop_task *t = list_entry(list_pop_front(&loop->running), struct loop_task, link);
        loop->handled++;
        t->fn(t);
    }
    return true;
}

static bool run_flushes(struct loop *loop)
{
    while (has_poller(loop)) {
        if (!go_on(loop))
            return false;
        struct loop_poller *p = next_poller(loop);
        if (p->flush != NULL)
            p->flush(p);
    }
    return true;
}

/* Runs the phases from where the round stands; false when go_on stopped it. */
static bool run_phases(struct loop *loop)
{
    switch (loop->phase) {
    case ROUND_BEFORE:
        if (loop->ops->dispatch_fds != NULL)
            loop->handled += loop->ops->dispatch_fds(loop);
        loop->phase = ROUND_POLL;
        /* fall through */
    case ROUND_POLL:
        if (!run_polls(loop))
            return false;
        loop->phase = ROUND_TIMERS;
        loop->timers_end_seq = loop->timers.next_seq;
        /* fall through */
    case ROUND_TIMERS:
        if (!run_timers(loop))
            return false;
        loop->phase = ROUND_TASKS;
        /* fall through */
    case ROUND_TASKS:
        if (!run_tasks(loop))
            return false;
        loop->phase = ROUND_FLUSH;
        loop->cursor = loop->pollers.next;
        /* fall through */
    case ROUND_FLUSH:
        if (!run_flushes(loop))
            return false;
        loop->phase = ROUND_NONE;
        /* fall through */
    case ROUND_NONE:
        break;
    }
    return true;
}

bool loop_round_run(struct loop *loop)
{
    struct loop *outer = current;
    MUST(outer != loop);
    current = loop;
    bool ended = run_phases(loop);
    current = outer;
    return ended;
}

void loop_get_stats(const struct loop *loop, struct loop_stats *out)
{
    *out = loop->stats;
}

/* ---- running ---- */

unsigned loop_run_once(struct loop *loop, uint64_t max_wait_ns)
{
    MUST(current == NULL);
    return loop->ops->run_once(loop, max_wait_ns);
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopping, true);
    if (loop->ops->stop != NULL)
        loop->ops->stop(loop);
}

void loop_run(struct loop *loop)
{
    while (!loop_stopping(loop))
        loop_run_once(loop, UINT64_MAX);
}

bool loop_stopping(const struct loop *loop)
{
    return atomic_load(&loop->stopping);
}
