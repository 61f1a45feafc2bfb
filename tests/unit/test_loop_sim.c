/* The simulated world and its loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/sim.h"
#include "common/trace.h"

static struct sim_world *world;
static struct loop *loop, *other;

static int setup(void **state)
{
    (void)state;
    if (sim_world_create(7, &world) != 0 || loop_create_sim(world, "a", 0, &loop) != 0)
        return -1;
    return loop_create_sim(world, "b", 0, &other);
}

static int teardown(void **state)
{
    (void)state;
    loop_destroy(loop);
    loop_destroy(other);
    sim_world_destroy(world);
    return 0;
}

static void run_dry(void)
{
    while (sim_world_step(world))
        ;
}

/* ---- events ---- */

struct noted_event {
    struct sim_event ev;
    char letter;
};
static char order[32];
static void note(char c)
{
    size_t n = strlen(order);
    assert_true(n + 1 < sizeof order);
    order[n] = c;
    order[n + 1] = '\0';
}
static void on_event(struct sim_event *ev)
{
    assert_false(sim_event_scheduled(ev));
    note(container_of(ev, struct noted_event, ev)->letter);
}

static void events_in_order(void **state)
{
    (void)state;
    struct noted_event e[5];
    order[0] = '\0';
    for (int i = 0; i < 5; i++) {
        sim_event_init(&e[i].ev, on_event);
        e[i].letter = (char)('a' + i);
        sim_event_schedule(world, &e[i].ev, 100);
    }
    sim_event_schedule(world, &e[1].ev, 300);
    sim_event_schedule(world, &e[4].ev, 50);
    sim_event_schedule(world, &e[0].ev, 100); /* behind its equals now */
    sim_event_cancel(world, &e[2].ev);
    sim_event_cancel(world, &e[2].ev);
    sim_world_run_until(world, 99);
    assert_string_equal(order, "e");
    assert_int_equal(sim_world_now(world), 99);
    assert_int_equal(sim_world_next_ns(world), 100);
    sim_world_run_until(world, 200);
    assert_string_equal(order, "eda");
    sim_event_schedule(world, &e[4].ev, 10); /* passed: now */
    run_dry();
    assert_string_equal(order, "edaeb");
    assert_int_equal(sim_world_now(world), 300);
    assert_int_equal(sim_world_next_ns(world), UINT64_MAX);
    assert_int_equal(sim_world_steps(world), 5);
    assert_false(sim_world_step(world));
}

/* ---- one process ---- */

struct process {
    struct loop *loop;
    struct loop_timer timer;
    struct loop_task task;
    struct loop_poller poller;
    unsigned timer_runs, task_runs, polls, flushes;
    unsigned inbox; /* what the poller finds, one a poll */
    uint64_t ran_at_ns, saw_now_ns, saw_clock_ns;
};
static void look(struct process *p)
{
    assert_ptr_equal(loop_current(), p->loop);
    p->ran_at_ns = sim_world_now(world);
    assert_true(loop_now_ns(p->loop) >= p->saw_now_ns);
    p->saw_now_ns = loop_now_ns(p->loop);
    p->saw_clock_ns = loop_clock_ns(p->loop);
    assert_true(p->saw_clock_ns >= p->saw_now_ns);
}
static void on_timer(struct loop_timer *t)
{
    struct process *p = container_of(t, struct process, timer);
    p->timer_runs++;
    look(p);
    assert_true(loop_now_ns(p->loop) >= t->deadline_ns);
}
static void on_task(struct loop_task *t)
{
    struct process *p = container_of(t, struct process, task);
    p->task_runs++;
    look(p);
}
static unsigned on_poll(struct loop_poller *l)
{
    struct process *p = container_of(l, struct process, poller);
    p->polls++;
    look(p);
    if (p->inbox == 0)
        return 0;
    p->inbox--;
    return 1;
}
static void on_flush(struct loop_poller *l)
{
    container_of(l, struct process, poller)->flushes++;
}
static void process_init(struct process *p, struct loop *l)
{
    *p = (struct process){.loop = l, .poller = {.poll = on_poll, .flush = on_flush}};
    loop_timer_init(&p->timer, on_timer);
    loop_task_init(&p->task, on_task);
}

static void not_supported(void **state)
{
    (void)state;
    struct loop_fd f;
    struct loop_task t;
    loop_task_init(&t, on_task);
    assert_int_equal(loop_fd_add(loop, &f, 0, 1, NULL), -ENOTSUP);
    assert_int_equal(loop_post(loop, &t), -ENOTSUP);
    assert_true(loop_is_sim(loop));
    assert_string_equal(sim_loop_name(other), "b");
    assert_ptr_equal(sim_loop_world(other), world);
}

static void timer_fires_late_never_early(void **state)
{
    (void)state;
    struct process p;
    process_init(&p, loop);
    uint64_t begin = loop_now_ns(loop);
    loop_timer_arm(loop, &p.timer, NS_PER_S);
    assert_int_equal(p.timer_runs, 0);
    run_dry();
    assert_int_equal(p.timer_runs, 1);
    assert_true(p.saw_now_ns - begin >= NS_PER_S);
    assert_in_range(p.ran_at_ns, NS_PER_S, NS_PER_S + 1000 * NS_PER_US);
    loop_timer_arm(loop, &p.timer, UINT64_MAX);
    run_dry();
    assert_int_equal(p.timer_runs, 1);
    loop_timer_cancel(loop, &p.timer);
}

static void kick_polls_until_idle(void **state)
{
    (void)state;
    struct process p;
    process_init(&p, loop);
    loop_poller_add(loop, &p.poller);
    run_dry();
    assert_int_equal(p.polls, 0);
    p.inbox = 5;
    sim_loop_kick(loop);
    sim_loop_kick(loop);
    run_dry();
    assert_int_equal(p.polls, 6);
    assert_int_equal(p.flushes, 6);
    assert_int_equal(sim_world_next_ns(world), UINT64_MAX);
    loop_poller_remove(loop, &p.poller);
}

static void clocks_drift(void **state)
{
    (void)state;
    static const int drifts[] = {0, 200, -200, 100000, -100000, 1, -1};
    for (size_t i = 0; i < ARRAY_LEN(drifts); i++) {
        struct loop *l;
        struct process p;
        assert_int_equal(loop_create_sim(world, "drifting", drifts[i], &l), 0);
        process_init(&p, l);
        uint64_t begin_ns = sim_world_now(world), begin_local = loop_now_ns(l);
        loop_timer_arm(l, &p.timer, 1000 * NS_PER_S);
        run_dry();
        /* the first instant at which this clock has advanced by 1000 s, then two short delays */
        uint64_t expected = (uint64_t)(1e12 * 1e6 / (1e6 + drifts[i]));
        assert_in_range(p.ran_at_ns - begin_ns, expected - 10, expected + NS_PER_MS);
        assert_true(p.saw_now_ns - begin_local >= 1000 * NS_PER_S);
        uint64_t before = loop_now_ns(l);
        sim_loop_set_drift(l, -drifts[i]);
        assert_int_equal(loop_now_ns(l), before);
        /* a restarted process goes on with its machine's clock */
        struct sim_clock c;
        struct loop *again;
        sim_loop_get_clock(l, &c);
        assert_int_equal(loop_create_sim(world, "drifting", 0, &again), 0);
        sim_loop_set_clock(again, &c);
        sim_world_run_until(world, sim_world_now(world) + 12345678);
        assert_int_equal(loop_now_ns(l), loop_now_ns(again));
        loop_destroy(l);
        loop_destroy(again);
    }
}

static void drift_moves_armed_timers(void **state)
{
    (void)state;
    struct process p;
    process_init(&p, loop);
    loop_timer_arm(loop, &p.timer, 100 * NS_PER_MS);
    sim_loop_set_drift(loop, 1000000); /* twice as fast */
    run_dry();
    assert_in_range(p.ran_at_ns, 50 * NS_PER_MS, 51 * NS_PER_MS);
}

/* ---- pause and kill ---- */

static void paused_runs_late(void **state)
{
    (void)state;
    struct process p, q;
    process_init(&p, loop);
    process_init(&q, other);
    loop_poller_add(loop, &p.poller);
    loop_timer_arm(loop, &p.timer, NS_PER_MS);
    loop_timer_arm(other, &q.timer, NS_PER_MS);
    sim_loop_pause(loop);
    loop_defer(loop, &p.task);
    sim_loop_kick(loop);
    run_dry();
    assert_int_equal(p.timer_runs + p.task_runs + p.polls, 0);
    assert_int_equal(q.timer_runs, 1);
    sim_world_run_until(world, NS_PER_S);
    assert_true(sim_loop_paused(loop));
    sim_loop_resume(loop);
    sim_loop_resume(loop);
    run_dry();
    assert_int_equal(p.timer_runs, 1);
    assert_int_equal(p.task_runs, 1);
    assert_int_equal(p.polls, 1);
    assert_in_range(p.ran_at_ns, NS_PER_S, NS_PER_S + NS_PER_MS);
    loop_poller_remove(loop, &p.poller);
}

/* Paused after it became runnable: the round that runs at last believes that no time has passed. */
static void pause_makes_the_cached_time_stale(void **state)
{
    (void)state;
    struct process p;
    process_init(&p, loop);
    loop_defer(loop, &p.task);
    assert_true(sim_world_step(world)); /* runnable */
    assert_int_equal(p.task_runs, 0);
    sim_loop_pause(loop);
    sim_world_run_until(world, NS_PER_S);
    sim_loop_resume(loop);
    run_dry();
    assert_int_equal(p.task_runs, 1);
    assert_true(p.saw_clock_ns - p.saw_now_ns >= NS_PER_S - NS_PER_MS);
}

static void on_task_pause(struct loop_task *t)
{
    (void)t;
    sim_loop_pause(loop);
}
static void paused_by_its_own_handler(void **state)
{
    (void)state;
    struct process p;
    struct loop_task pause;
    process_init(&p, loop);
    loop_task_init(&pause, on_task_pause);
    loop_defer(loop, &pause);
    loop_defer(loop, &p.task);
    run_dry();
    assert_int_equal(p.task_runs, 0);
    sim_world_run_until(world, NS_PER_S);
    sim_loop_resume(loop);
    run_dry();
    assert_int_equal(p.task_runs, 1);
    assert_true(p.saw_clock_ns - p.saw_now_ns >= NS_PER_S - NS_PER_MS);
}

static struct process *victims;
static void on_task_kill(struct loop_task *t)
{
    (void)t;
    sim_loop_kill(loop);
    for (int i = 0; i < 3; i++)
        loop_defer(loop, &victims[i].task);
}
/* Killed with everything pending, from outside or from a handler; then the memory goes without any
 * cancelling. */
static void killed_at(bool from_handler)
{
    struct loop_task kill;
    loop_task_init(&kill, on_task_kill);
    victims = calloc(3, sizeof *victims);
    if (from_handler)
        loop_defer(loop, &kill);
    for (int i = 0; i < 3; i++) {
        process_init(&victims[i], loop);
        loop_timer_arm(loop, &victims[i].timer, NS_PER_MS);
        loop_defer(loop, &victims[i].task);
        loop_poller_add(loop, &victims[i].poller);
    }
    if (from_handler)
        run_dry();
    else
        sim_loop_kill(loop);
    assert_true(sim_loop_killed(loop));
    for (int i = 0; i < 3; i++) {
        struct process *p = &victims[i];
        assert_int_equal(p->task_runs + p->timer_runs + p->flushes, 0);
        assert_false(loop_timer_armed(&p->timer));
        loop_defer(loop, &p->task);
        loop_timer_arm(loop, &p->timer, 1);
        loop_timer_cancel(loop, &p->timer);
        loop_task_cancel(loop, &p->task);
        loop_poller_remove(loop, &p->poller);
        loop_poller_add(loop, &p->poller);
        loop_timer_arm(loop, &p->timer, 1);
    }
    free(victims);
    sim_loop_kick(loop);
    sim_loop_pause(loop);
    sim_loop_resume(loop);
    run_dry();
    assert_true(loop_now_ns(loop) > 0);
}
static void killed_from_outside(void **state)
{
    (void)state;
    killed_at(false);
}
static void killed_by_its_own_handler(void **state)
{
    (void)state;
    sim_loop_set_interrupts(loop, 0, 1);
    killed_at(true);
}

/* ---- interruptions ---- */

static uint64_t foreign_runs;
static void on_foreign(struct sim_event *ev)
{
    foreign_runs++;
    sim_event_schedule(world, ev, sim_world_now(world) + 50);
}
static uint64_t foreign_at[64];
static unsigned tasks_run;
static void on_counted_task(struct loop_task *t)
{
    (void)t;
    foreign_at[tasks_run++] = foreign_runs;
}
/* World events come between the handlers of one round, and handlers still run once and in order. */
static void rounds_are_interrupted(void **state)
{
    (void)state;
    struct sim_event foreign;
    struct loop_task tasks[64];
    foreign_runs = tasks_run = 0;
    sim_loop_set_interrupts(loop, 1, 4);
    sim_event_init(&foreign, on_foreign);
    sim_event_schedule(world, &foreign, 0);
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++) {
        loop_task_init(&tasks[i], on_counted_task);
        loop_defer(loop, &tasks[i]);
    }
    sim_world_run_until(world, 10 * NS_PER_MS);
    assert_int_equal(tasks_run, 64);
    assert_true(foreign_at[63] > foreign_at[0]);
    sim_event_cancel(world, &foreign);
}

/* ---- determinism ---- */

static struct trace *trace;
struct chatter {
    struct process p;
    struct rng rng;
    struct process *peer;
    unsigned left;
};
static struct chatter chatters[4];
static void on_chatter(struct loop_timer *t)
{
    struct process *p = container_of(t, struct process, timer);
    struct chatter *c = container_of(p, struct chatter, p);
    size_t me = (size_t)(c - chatters);
    trace_point(trace, loop_now_ns(p->loop), "chatter", me, rng_u64(&c->rng), c->left);
    struct process *peer = &chatters[rng_below(&c->rng, ARRAY_LEN(chatters))].p;
    peer->inbox++;
    sim_loop_kick(peer->loop);
    if (c->left-- > 0)
        loop_timer_arm(p->loop, t, rng_below(&c->rng, 50 * NS_PER_US));
}
static uint64_t run_chatters(uint64_t seed)
{
    assert_int_equal(trace_create(16, &trace), 0);
    assert_int_equal(sim_world_create(seed, &world), 0);
    for (size_t i = 0; i < ARRAY_LEN(chatters); i++) {
        struct chatter *c = &chatters[i];
        struct loop *l;
        assert_int_equal(loop_create_sim(world, "chatter", (int)i * 10, &l), 0);
        process_init(&c->p, l);
        loop_poller_add(l, &c->p.poller);
        sim_world_fork_rng(world, "chatter", &c->rng);
        c->left = 200;
        loop_timer_init(&c->p.timer, on_chatter);
        loop_timer_arm(l, &c->p.timer, 1);
    }
    run_dry();
    uint64_t hash = trace_hash(trace);
    for (size_t i = 0; i < ARRAY_LEN(chatters); i++) {
        assert_int_equal(chatters[i].p.inbox, 0);
        loop_poller_remove(chatters[i].p.loop, &chatters[i].p.poller);
        loop_destroy(chatters[i].p.loop);
    }
    sim_world_destroy(world);
    trace_destroy(trace);
    return hash;
}
static void same_seed_same_run(void **state)
{
    (void)state;
    uint64_t first = run_chatters(1);
    void *moved = malloc(12345); /* other addresses the second time */
    assert_true(first == run_chatters(1));
    assert_true(first != run_chatters(2));
    free(moved);
}

static void run_once_steps_the_world(void **state)
{
    (void)state;
    struct process p;
    process_init(&p, other);
    assert_int_equal(loop_run_once(loop, 500), 0);
    assert_int_equal(sim_world_now(world), 500);
    loop_timer_arm(other, &p.timer, NS_PER_MS);
    while (p.timer_runs == 0)
        assert_int_equal(loop_run_once(loop, NS_PER_S), 1);
    assert_int_equal(loop_run_once(loop, 0), 0);
    loop_stop(loop);
    loop_run(loop);
    assert_true(loop_stopping(loop));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(events_in_order),
        T(not_supported),
        T(timer_fires_late_never_early),
        T(kick_polls_until_idle),
        T(clocks_drift),
        T(drift_moves_armed_timers),
        T(paused_runs_late),
        T(pause_makes_the_cached_time_stale),
        T(paused_by_its_own_handler),
        T(killed_from_outside),
        T(killed_by_its_own_handler),
        T(rounds_are_interrupted),
        cmocka_unit_test(same_seed_same_run),
        T(run_once_steps_the_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
