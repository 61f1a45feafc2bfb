/* The real loop, and the parts of the round that both providers share. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/log.h"
#include "common/loop.h"

struct fixture {
    struct loop *loop;
    char order[64]; /* what ran, a letter each */
    struct loop_timer timers[4];
    struct loop_task tasks[4];
    struct loop_poller pollers[2];
    struct loop_fd fds[2];
    int pipe[2];
    unsigned poll_result;
    bool arm_result;
    unsigned armed;
};
static struct fixture *fx;

static void note(char c)
{
    size_t n = strlen(fx->order);
    assert_true(n + 1 < sizeof fx->order);
    fx->order[n] = c;
}

static int setup(void **state)
{
    fx = calloc(1, sizeof *fx);
    *state = fx;
    return fx == NULL || pipe(fx->pipe) != 0 ? -1 : loop_create_real(NULL, &fx->loop);
}

static int teardown(void **state)
{
    loop_destroy(fx->loop);
    close(fx->pipe[0]);
    close(fx->pipe[1]);
    free(*state);
    return 0;
}

static void on_timer(struct loop_timer *t)
{
    assert_false(loop_timer_armed(t));
    assert_ptr_equal(loop_current(), fx->loop);
    note((char)('0' + (t - fx->timers)));
}
static void on_timer_again(struct loop_timer *t)
{
    note('A');
    loop_timer_arm(fx->loop, t, 0);
}
static void on_task(struct loop_task *t)
{
    note((char)('a' + (t - fx->tasks)));
}
static void on_task_again(struct loop_task *t)
{
    note('D');
    loop_defer(fx->loop, t);
    loop_defer(fx->loop, t);
}
static unsigned on_poll(struct loop_poller *p)
{
    note(p == &fx->pollers[0] ? 'P' : 'Q');
    return fx->poll_result;
}
static void on_flush(struct loop_poller *p)
{
    note(p == &fx->pollers[0] ? 'F' : 'G');
}
static bool on_arm(struct loop_poller *p)
{
    (void)p;
    fx->armed++;
    return fx->arm_result;
}

static void timers_in_order(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        loop_timer_init(&fx->timers[i], on_timer);
    loop_timer_arm(fx->loop, &fx->timers[0], 2 * NS_PER_MS);
    loop_timer_arm(fx->loop, &fx->timers[1], 1 * NS_PER_MS);
    loop_timer_arm(fx->loop, &fx->timers[2], UINT64_MAX);
    loop_timer_arm(fx->loop, &fx->timers[3], 3 * NS_PER_MS);
    loop_timer_arm(fx->loop, &fx->timers[3], 0);
    assert_string_equal(fx->order, "");
    uint64_t begin = loop_now_ns(fx->loop);
    while (strlen(fx->order) < 3)
        loop_run_once(fx->loop, UINT64_MAX);
    assert_string_equal(fx->order, "310");
    assert_true(loop_now_ns(fx->loop) - begin >= NS_PER_MS);
    assert_true(loop_timer_armed(&fx->timers[2]));
    loop_timer_cancel(fx->loop, &fx->timers[2]);
    loop_timer_cancel(fx->loop, &fx->timers[2]);
    assert_false(loop_timer_armed(&fx->timers[2]));
    assert_int_equal(loop_run_once(fx->loop, 0), 0);
}

/* Heap stress against a plain sort: random arms, moves and cancels, all for the same instant or later ones.
 */
static struct loop_timer many[500];
static uint64_t last_deadline, last_seq;
static unsigned fired;
static void on_many(struct loop_timer *t)
{
    assert_true(t->deadline_ns > last_deadline || (t->deadline_ns == last_deadline && t->seq > last_seq));
    last_deadline = t->deadline_ns;
    last_seq = t->seq;
    fired++;
}
static void timers_many(void **state)
{
    (void)state;
    unsigned x = 1, armed = 0;
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        loop_timer_init(&many[i], on_many);
    for (int i = 0; i < 5000; i++) {
        x = x * 1103515245u + 12345u;
        struct loop_timer *t = &many[(x >> 8) % ARRAY_LEN(many)];
        if ((x >> 24) % 3 == 0)
            loop_timer_cancel(fx->loop, t);
        else
            loop_timer_arm(fx->loop, t, (x >> 20) % 64 * 10000);
    }
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        armed += loop_timer_armed(&many[i]);
    while (fired < armed)
        loop_run_once(fx->loop, UINT64_MAX);
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        assert_false(loop_timer_armed(&many[i]));
    assert_in_range(armed, 200, 400);
}

static void round_order(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        fx->pollers[i] = (struct loop_poller){.poll = on_poll, .flush = on_flush, .arm = on_arm};
        loop_poller_add(fx->loop, &fx->pollers[i]);
    }
    loop_timer_init(&fx->timers[0], on_timer);
    loop_timer_init(&fx->timers[1], on_timer_again);
    loop_task_init(&fx->tasks[0], on_task);
    loop_task_init(&fx->tasks[1], on_task_again);
    loop_defer(fx->loop, &fx->tasks[1]);
    loop_defer(fx->loop, &fx->tasks[0]);
    loop_timer_arm(fx->loop, &fx->timers[1], 0);
    loop_timer_arm(fx->loop, &fx->timers[0], 0);
    assert_int_equal(loop_run_once(fx->loop, 0), 4);
    assert_string_equal(fx->order, "PQA0DaFG");
    assert_int_equal(loop_run_once(fx->loop, UINT64_MAX), 2);
    assert_string_equal(fx->order, "PQA0DaFGPQADFG");
    assert_int_equal(fx->armed, 0);
    loop_timer_cancel(fx->loop, &fx->timers[1]);
    loop_task_cancel(fx->loop, &fx->tasks[1]);
    /* idle: both are armed, the first has found something, so it is polled instead of slept */
    fx->arm_result = true;
    loop_run_once(fx->loop, UINT64_MAX);
    assert_int_equal(fx->armed, 2);
    assert_string_equal(fx->order, "PQA0DaFGPQADFGPQFGPQFG");
    loop_poller_remove(fx->loop, &fx->pollers[0]);
    loop_poller_remove(fx->loop, &fx->pollers[0]);
    fx->poll_result = 3;
    assert_int_equal(loop_run_once(fx->loop, UINT64_MAX), 3);
    assert_string_equal(fx->order + 22, "QG");
    loop_poller_remove(fx->loop, &fx->pollers[1]);
}

/* The first poller removes the second, and itself, while polled. */
static unsigned on_poll_remove(struct loop_poller *p)
{
    note('R');
    loop_poller_remove(fx->loop, &fx->pollers[1]);
    loop_poller_remove(fx->loop, p);
    return 1;
}
static void poller_removed_by_handler(void **state)
{
    (void)state;
    fx->pollers[0] = (struct loop_poller){.poll = on_poll_remove, .flush = on_flush};
    fx->pollers[1] = (struct loop_poller){.poll = on_poll, .flush = on_flush};
    loop_poller_add(fx->loop, &fx->pollers[0]);
    loop_poller_add(fx->loop, &fx->pollers[1]);
    assert_int_equal(loop_run_once(fx->loop, 0), 1);
    assert_string_equal(fx->order, "R");
}

static void task_cancelled(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        loop_task_init(&fx->tasks[i], on_task);
        loop_defer(fx->loop, &fx->tasks[i]);
    }
    loop_task_cancel(fx->loop, &fx->tasks[1]);
    loop_task_cancel(fx->loop, &fx->tasks[1]);
    assert_int_equal(loop_run_once(fx->loop, UINT64_MAX), 2);
    assert_string_equal(fx->order, "ac");
}

static void on_fd(struct loop_fd *f, uint32_t revents)
{
    assert_true(revents & EPOLLIN);
    char c;
    assert_int_equal(read(f->fd, &c, 1), 1);
    note(c);
}
static void fd_readable(void **state)
{
    (void)state;
    assert_int_equal(loop_fd_add(fx->loop, &fx->fds[0], fx->pipe[0], EPOLLIN, on_fd), 0);
    assert_int_equal(loop_fd_add(fx->loop, &fx->fds[1], fx->pipe[0], EPOLLIN, on_fd), -EEXIST);
    assert_int_equal(loop_run_once(fx->loop, 0), 0);
    assert_int_equal(write(fx->pipe[1], "xy", 2), 2);
    assert_int_equal(loop_run_once(fx->loop, UINT64_MAX), 1);
    assert_int_equal(loop_fd_modify(fx->loop, &fx->fds[0], 0), 0);
    assert_int_equal(loop_run_once(fx->loop, 0), 0);
    assert_int_equal(loop_fd_modify(fx->loop, &fx->fds[0], EPOLLIN), 0);
    assert_int_equal(loop_run_once(fx->loop, UINT64_MAX), 1);
    assert_string_equal(fx->order, "xy");
    loop_fd_remove(fx->loop, &fx->fds[0]);
}

/* Both descriptors are ready in one round; whichever comes first removes the other. */
static void on_fd_remove_both(struct loop_fd *f, uint32_t revents)
{
    (void)f;
    (void)revents;
    note('x');
    loop_fd_remove(fx->loop, &fx->fds[0]);
    loop_fd_remove(fx->loop, &fx->fds[1]);
}
static void fd_removed_in_its_round(void **state)
{
    (void)state;
    assert_int_equal(write(fx->pipe[1], "x", 1), 1);
    assert_int_equal(loop_fd_add(fx->loop, &fx->fds[0], fx->pipe[0], EPOLLIN, on_fd_remove_both), 0);
    assert_int_equal(loop_fd_add(fx->loop, &fx->fds[1], fx->pipe[1], EPOLLOUT, on_fd_remove_both), 0);
    assert_int_equal(loop_run_once(fx->loop, UINT64_MAX), 1);
    assert_string_equal(fx->order, "x");
}

#define POSTERS 3
#define POSTS   2000
struct posted {
    struct loop_task task;
    unsigned poster, number;
};
static struct posted posts[POSTERS][POSTS];
static unsigned posts_seen[POSTERS], posts_total;
static void on_posted(struct loop_task *t)
{
    struct posted *p = container_of(t, struct posted, task);
    assert_int_equal(p->number, posts_seen[p->poster]);
    posts_seen[p->poster]++;
    if (++posts_total == POSTERS * POSTS)
        loop_stop(fx->loop);
}
static void *poster(void *arg)
{
    struct posted *p = arg;
    for (int i = 0; i < POSTS; i++)
        loop_post(fx->loop, &p[i].task);
    return NULL;
}
static void posts_from_threads(void **state)
{
    (void)state;
    pthread_t threads[POSTERS];
    for (unsigned i = 0; i < POSTERS; i++) {
        for (unsigned k = 0; k < POSTS; k++) {
            posts[i][k] = (struct posted){.poster = i, .number = k};
            loop_task_init(&posts[i][k].task, on_posted);
        }
        assert_int_equal(pthread_create(&threads[i], NULL, poster, posts[i]), 0);
    }
    loop_run(fx->loop);
    for (unsigned i = 0; i < POSTERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(posts_total, POSTERS * POSTS);
}

static void posted_task_cancelled(void **state)
{
    (void)state;
    loop_task_init(&fx->tasks[0], on_task);
    assert_int_equal(loop_post(fx->loop, &fx->tasks[0]), 0);
    loop_task_cancel(fx->loop, &fx->tasks[0]);
    assert_int_equal(loop_run_once(fx->loop, 0), 0);
}

static void on_signal(int number)
{
    (void)number;
    loop_stop(fx->loop);
}
static void on_timer_raise(struct loop_timer *t)
{
    (void)t;
    raise(SIGUSR1);
}
static void stopped_by_signal(void **state)
{
    (void)state;
    signal(SIGUSR1, on_signal);
    loop_timer_init(&fx->timers[0], on_timer_raise);
    loop_timer_arm(fx->loop, &fx->timers[0], NS_PER_MS);
    loop_run(fx->loop);
    assert_true(loop_stopping(fx->loop));
    loop_run(fx->loop); /* stays stopped */
    signal(SIGUSR1, SIG_DFL);
}

static void sleeps_no_longer_than_asked(void **state)
{
    (void)state;
    uint64_t begin = loop_clock_ns(fx->loop);
    assert_int_equal(loop_run_once(fx->loop, 3 * NS_PER_MS), 0);
    assert_true(loop_clock_ns(fx->loop) - begin >= 3 * NS_PER_MS);
    struct loop_stats stats;
    loop_get_stats(fx->loop, &stats);
    assert_int_equal(stats.rounds, 1);
    assert_int_equal(stats.sleeps, 1);
}

static unsigned warnings;
static void count_warnings(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    warnings += level == LOG_WARN_ && strstr(line, "round took long") != NULL;
}
static void on_timer_block(struct loop_timer *t)
{
    (void)t;
    usleep(510 * 1000);
}
static void slow_round_is_told(void **state)
{
    (void)state;
    struct loop_stats stats;
    log_set_sink(count_warnings, NULL);
    loop_timer_init(&fx->timers[0], on_timer_block);
    loop_timer_arm(fx->loop, &fx->timers[0], 0);
    loop_run_once(fx->loop, UINT64_MAX);
    log_set_sink(NULL, NULL);
    loop_get_stats(fx->loop, &stats);
    assert_int_equal(warnings, 1);
    assert_true(stats.longest_round_ns >= 510 * NS_PER_MS);
}

static void spins_before_it_sleeps(void **state)
{
    (void)state;
    struct loop_options o = {.spin_ns = 3600 * NS_PER_S};
    struct loop *spinning;
    assert_int_equal(loop_create_real(&o, &spinning), 0);
    for (int i = 0; i < 50; i++)
        assert_int_equal(loop_run_once(spinning, UINT64_MAX), 0); /* would hang if it slept */
    loop_destroy(spinning);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(timers_in_order),
        T(timers_many),
        T(round_order),
        T(poller_removed_by_handler),
        T(task_cancelled),
        T(fd_readable),
        T(fd_removed_in_its_round),
        T(posts_from_threads),
        T(posted_task_cancelled),
        T(stopped_by_signal),
        T(sleeps_no_longer_than_asked),
        T(slow_round_is_told),
        T(spins_before_it_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
