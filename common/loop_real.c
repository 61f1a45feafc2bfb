/*
 * loop_real.c: the loop on epoll and CLOCK_BOOTTIME.
 *
 * A round asks epoll without waiting; when nothing was handled and the spinning time is over, the pollers are
 * armed, and the loop sleeps in epoll until a descriptor, a post, a stop or the first timer.
 */
#include "common/loop_internal.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/env.h"
#include "common/log.h"

/* Descriptors handled in one round at most; epoll is fair about the rest. */
#define EVENT_BURST 64
/* Where there are pollers epoll may cost more than all of them: look there in one round of so many. Idle
 * rounds are short. */
#define EPOLL_EVERY_IDLE 16
#define EPOLL_EVERY_BUSY 4

/* No handler should come near. */
#define SLOW_ROUND_NS (500 * NS_PER_MS)
#define LONG_ROUND_NS (10 * NS_PER_MS) /* counted */

struct loop_real {
    struct loop base;
    int epoll_fd;
    int wake_fd;
    uint64_t spin_ns;
    uint64_t last_event_ns;
    struct log_limit slow;
    size_t fd_count;
    unsigned rounds_without_epoll;
    bool no_pwait2; /* this kernel has no epoll_pwait2 */
    int event_count;
    struct epoll_event events[EVENT_BURST]; /* data.ptr: the loop_fd; NULL = the wake-up or a removed one */
    _Atomic bool any_posted;
    pthread_mutex_t posted_lock;
    struct list posted;
};

static struct loop_real *real_of(const struct loop *loop)
{
    return container_of(loop, struct loop_real, base);
}

static uint64_t real_clock_ns(const struct loop *loop)
{
    (void)loop;
    struct timespec ts;
    MUST(clock_gettime(CLOCK_BOOTTIME, &ts) == 0);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Async-signal-safe. EAGAIN (the counter is full) still wakes. */
static void ring(struct loop_real *r)
{
    int saved = errno;
    uint64_t one = 1;
    ssize_t rc = write(r->wake_fd, &one, sizeof one);
    (void)rc;
    errno = saved;
}

static void real_stop(struct loop *loop)
{
    ring(real_of(loop));
}

static int real_post(struct loop *loop, struct loop_task *t)
{
    struct loop_real *r = real_of(loop);
    pthread_mutex_lock(&r->posted_lock);
    bool was_empty = list_empty(&r->posted);
    list_push_back(&r->posted, &t->link);
    atomic_store_explicit(&r->any_posted, true, memory_order_release);
    pthread_mutex_unlock(&r->posted_lock);
    if (was_empty)
        ring(r);
    return 0;
}

static void real_take_posted(struct loop *loop)
{
    struct loop_real *r = real_of(loop);
    if (!atomic_load_explicit(&r->any_posted, memory_order_acquire))
        return;
    pthread_mutex_lock(&r->posted_lock);
    list_splice(&loop->queued, &r->posted);
    atomic_store_explicit(&r->any_posted, false, memory_order_relaxed);
    pthread_mutex_unlock(&r->posted_lock);
}

/* ---- descriptors ---- */

static int control(struct loop_real *r, int op, struct loop_fd *f)
{
    struct epoll_event e = {.events = f->events, .data.ptr = f};
    return epoll_ctl(r->epoll_fd, op, f->fd, &e) == 0 ? 0 : -errno;
}

static int real_fd_add(struct loop *loop, struct loop_fd *f)
{
    struct loop_real *r = real_of(loop);
    int rc = control(r, EPOLL_CTL_ADD, f);
    if (rc == 0)
        r->fd_count++;
    return rc;
}

static int real_fd_modify(struct loop *loop, struct loop_fd *f)
{
    return control(real_of(loop), EPOLL_CTL_MOD, f);
}

static void real_fd_remove(struct loop *loop, struct loop_fd *f)
{
    struct loop_real *r = real_of(loop);
    MUST(r->fd_count > 0);
    r->fd_count--;
    /* A descriptor that was closed first has left the set already: that is no harm. */
    (void)control(r, EPOLL_CTL_DEL, f);
    for (int i = 0; i < r->event_count; i++)
        if (r->events[i].data.ptr == f)
            r->events[i].data.ptr = NULL;
}

/* Asks epoll, waiting at most wait_ns; what is ready goes to r->events. */
static void collect(struct loop_real *r, uint64_t wait_ns)
{
    int n = -1;
    errno = ENOSYS;
    if (wait_ns == 0) {
        n = epoll_wait(r->epoll_fd, r->events, EVENT_BURST, 0);
    } else if (!r->no_pwait2) {
        struct timespec ts = {(time_t)(wait_ns / NS_PER_S), (long)(wait_ns % NS_PER_S)};
        n = epoll_pwait2(r->epoll_fd, r->events, EVENT_BURST, wait_ns == UINT64_MAX ? NULL : &ts, NULL);
        r->no_pwait2 = n < 0 && (errno == ENOSYS || errno == EPERM);
    }
    if (n < 0 && wait_ns != 0 && r->no_pwait2) {
        /* Milliseconds, rounded up so as not to wake before the timer. */
        uint64_t ms = wait_ns / NS_PER_MS + (wait_ns % NS_PER_MS != 0);
        int timeout = wait_ns == UINT64_MAX ? -1 : (int)min_u64(ms, INT32_MAX);
        n = epoll_wait(r->epoll_fd, r->events, EVENT_BURST, timeout);
    }
    MUST(n >= 0 || errno == EINTR);
    r->event_count = n > 0 ? n : 0;
    r->rounds_without_epoll = 0;
}

static unsigned real_dispatch_fds(struct loop *loop)
{
    struct loop_real *r = real_of(loop);
    unsigned handled = 0;
    for (int i = 0; i < r->event_count; i++) {
        struct loop_fd *f = r->events[i].data.ptr;
        if (f == NULL)
            continue;
        handled++;
        f->fn(f, r->events[i].events);
    }
    r->event_count = 0;
    return handled;
}

/* The wake-up's events carry its own address until here, and nothing after. */
static void take_wake(struct loop_real *r)
{
    for (int i = 0; i < r->event_count; i++) {
        if (r->events[i].data.ptr != r)
            continue;
        r->events[i].data.ptr = NULL;
        uint64_t count;
        ssize_t rc = read(r->wake_fd, &count, sizeof count);
        (void)rc;
    }
}

/* ---- rounds ---- */

/* After a round that handled something. */
static void note_end(struct loop_real *r)
{
    struct loop *loop = &r->base;
    r->last_event_ns = real_clock_ns(loop);
    uint64_t took_ns = r->last_event_ns - loop->now_ns;
    loop->stats.longest_round_ns = max_u64(loop->stats.longest_round_ns, took_ns);
    loop->stats.busy_ns += took_ns;
    loop->stats.long_rounds += took_ns >= LONG_ROUND_NS;
    const struct env env = {.loop = loop, .name = "loop"};
    if (took_ns >= SLOW_ROUND_NS && log_allow(&env, &r->slow))
        log_warn(&env, "a round took long: a handler blocks, or the machine is overloaded",
                 "ms=%" PRIu64 " handled=%u", took_ns / (uint64_t)NS_PER_MS, loop->handled);
}

static unsigned run_round(struct loop_real *r)
{
    struct loop *loop = &r->base;
    take_wake(r); /* before posted tasks are taken: a post in between rings again */
    loop->now_ns = real_clock_ns(loop);
    loop_round_begin(loop);
    MUST(loop_round_run(loop));
    if (loop->handled > 0)
        note_end(r);
    return loop->handled;
}

static bool has_polls(const struct loop *loop)
{
    list_for_each(n, &loop->pollers)
    {
        if (list_entry(n, struct loop_poller, link)->poll != NULL)
            return true;
    }
    return false;
}

static bool must_ask_epoll(struct loop_real *r)
{
    const struct loop *loop = &r->base;
    if (r->fd_count == 0)
        return false; /* posts and stops are seen without it */
    if (!has_polls(loop))
        return true;
    return ++r->rounds_without_epoll >= (loop->handled > 0 ? EPOLL_EVERY_BUSY : EPOLL_EVERY_IDLE);
}

static bool work_queued(const struct loop_real *r)
{
    return !list_empty(&r->base.queued) || atomic_load_explicit(&r->any_posted, memory_order_acquire);
}

/* Arms all pollers; false when one of them has found work meanwhile. */
static bool arm_pollers(struct loop *loop)
{
    bool quiet = true;
    loop->cursor = loop->pollers.next;
    while (loop->cursor != &loop->pollers) {
        struct loop_poller *p = list_entry(loop->cursor, struct loop_poller, link);
        loop->cursor = loop->cursor->next;
        if (p->arm != NULL && p->arm(p))
            quiet = false;
    }
    return quiet;
}

/* How long the loop may sleep from now on. */
static uint64_t sleep_ns(struct loop_real *r, uint64_t max_wait_ns)
{
    if (work_queued(r))
        return 0;
    uint64_t deadline_ns = loop_first_deadline(&r->base);
    if (deadline_ns == UINT64_MAX)
        return max_wait_ns;
    uint64_t now_ns = real_clock_ns(&r->base);
    return deadline_ns <= now_ns ? 0 : min_u64(deadline_ns - now_ns, max_wait_ns);
}

static unsigned real_run_once(struct loop *loop, uint64_t max_wait_ns)
{
    struct loop_real *r = real_of(loop);
    /* Nothing to poll and no spinning: one look at epoll is enough, the one that may sleep. */
    if (max_wait_ns != 0 && r->spin_ns == 0 && !has_polls(loop) && !work_queued(r) && arm_pollers(loop)) {
        loop->stats.sleeps++;
        collect(r, sleep_ns(r, max_wait_ns));
        return run_round(r);
    }
    if (must_ask_epoll(r))
        collect(r, 0);
    unsigned handled = run_round(r);
    if (handled > 0 || max_wait_ns == 0)
        return handled;
    if (r->spin_ns != 0 && real_clock_ns(loop) - r->last_event_ns < r->spin_ns)
        return 0;
    if (work_queued(r) || !arm_pollers(loop))
        return run_round(r);
    loop->stats.sleeps++;
    collect(r, sleep_ns(r, max_wait_ns));
    return run_round(r);
}

static void real_destroy(struct loop *loop)
{
    struct loop_real *r = real_of(loop);
    real_take_posted(loop);
    MUST(r->fd_count == 0);
    loop_base_fini(loop);
    close(r->wake_fd);
    close(r->epoll_fd);
    pthread_mutex_destroy(&r->posted_lock);
    free(r);
}

static const struct loop_ops real_ops = {
    .destroy = real_destroy,
    .clock_ns = real_clock_ns,
    .take_posted = real_take_posted,
    .post = real_post,
    .fd_add = real_fd_add,
    .fd_modify = real_fd_modify,
    .fd_remove = real_fd_remove,
    .dispatch_fds = real_dispatch_fds,
    .run_once = real_run_once,
    .stop = real_stop,
};

static int open_fds(struct loop_real *r)
{
    r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (r->epoll_fd < 0)
        return -errno;
    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->wake_fd < 0)
        return -errno;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = r};
    return epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, r->wake_fd, &e) == 0 ? 0 : -errno;
}

int loop_create_real(const struct loop_options *options, struct loop **out)
{
    struct loop_real *r = calloc(1, sizeof *r);
    if (r == NULL)
        return -ENOMEM;
    r->epoll_fd = r->wake_fd = -1;
    list_init(&r->posted);
    int rc = loop_base_init(&r->base, &real_ops);
    if (rc == 0)
        rc = open_fds(r);
    if (rc != 0) {
        timer_heap_fini(&r->base.timers);
        if (r->wake_fd >= 0)
            close(r->wake_fd);
        if (r->epoll_fd >= 0)
            close(r->epoll_fd);
        free(r);
        return rc;
    }
    pthread_mutex_init(&r->posted_lock, NULL);
    r->slow.interval_ns = NS_PER_S;
    r->spin_ns = options != NULL ? options->spin_ns : 0;
    r->last_event_ns = real_clock_ns(&r->base);
    *out = &r->base;
    return 0;
}
