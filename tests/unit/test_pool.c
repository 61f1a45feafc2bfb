/* pool.h on a simulated loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/pool.h"
#include "common/sim.h"

#define COUNT 3

static struct sim_world *world;
static struct loop *loop;
static struct pool *pool;

static int setup(void **state)
{
    (void)state;
    if (sim_world_create(3, &world) != 0 || loop_create_sim(world, "p", 0, &loop) != 0)
        return -1;
    return pool_create(loop, "things", 100, 64, COUNT, &pool);
}

static int teardown(void **state)
{
    (void)state;
    pool_destroy(pool, false);
    loop_destroy(loop);
    sim_world_destroy(world);
    return 0;
}

static void run_dry(void)
{
    while (sim_world_step(world))
        ;
}

static void objects_are_apart(void **state)
{
    (void)state;
    uint8_t *o[COUNT];
    void *base;
    size_t len;
    pool_memory(pool, &base, &len);
    assert_int_equal(pool_total(pool), COUNT);
    for (int i = 0; i < COUNT; i++) {
        o[i] = pool_get(pool);
        assert_non_null(o[i]);
        assert_int_equal((uintptr_t)o[i] % 64, 0);
        assert_true(o[i] >= (uint8_t *)base && o[i] + 100 <= (uint8_t *)base + len);
        for (int k = 0; k < 100; k++)
            assert_int_equal(o[i][k], 0);
        memset(o[i], 'a' + i, 100);
    }
    assert_null(pool_get(pool));
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(o[i][99], 'a' + i);
    pool_put(pool, o[1]);
    assert_int_equal(pool_free_count(pool), 1);
    assert_ptr_equal(pool_get(pool), o[1]);
    assert_int_equal(o[1][50], 'b'); /* as the last user left it */
    for (int i = 0; i < COUNT; i++)
        pool_put(pool, o[i]);
}

struct waiting {
    struct pool_waiter w;
    void *got;
    bool greedy; /* takes an object when called */
    int called;
};
static char order[16];
static void on_object(struct pool_waiter *w)
{
    struct waiting *x = container_of(w, struct waiting, w);
    order[strlen(order)] = (char)('0' + x->called);
    x->called++;
    if (x->greedy)
        x->got = pool_get(pool);
}

static void waiters_in_order(void **state)
{
    (void)state;
    void *o[COUNT];
    struct waiting w[4] = {0};
    for (int i = 0; i < COUNT; i++)
        o[i] = pool_get(pool);
    for (int i = 0; i < 4; i++) {
        w[i].w.fn = on_object;
        w[i].greedy = i != 1;
        pool_wait(pool, &w[i].w);
    }
    pool_wait_cancel(pool, &w[2].w);
    pool_wait_cancel(pool, &w[2].w);
    run_dry();
    assert_int_equal(w[0].called, 0);
    pool_put(pool, o[0]);
    assert_int_equal(w[0].called, 0); /* deferred */
    assert_null(pool_get(pool));      /* does not overtake */
    run_dry();
    assert_int_equal(w[0].called, 1);
    assert_ptr_equal(w[0].got, o[0]);
    assert_int_equal(w[1].called, 0);
    pool_put(pool, o[1]);
    run_dry();
    /* the second wanted nothing after all, so the object went on to the fourth */
    assert_int_equal(w[1].called, 1);
    assert_int_equal(w[2].called, 0);
    assert_int_equal(w[3].called, 1);
    assert_ptr_equal(w[3].got, o[1]);
    pool_put(pool, o[0]);
    pool_put(pool, o[1]);
    pool_put(pool, o[2]);
}

static void waits_with_objects_free(void **state)
{
    (void)state;
    struct waiting w = {.w.fn = on_object};
    pool_wait_cancel(pool, &w.w);
    pool_wait(pool, &w.w);
    assert_int_equal(w.called, 0);
    run_dry();
    assert_int_equal(w.called, 1);
}

/* A waiter that waits again and takes nothing must not hold the loop for ever. */
static unsigned stubborn_calls;
static void on_object_again(struct pool_waiter *w)
{
    if (++stubborn_calls < 10)
        pool_wait(pool, w);
}
static void waits_again(void **state)
{
    (void)state;
    struct pool_waiter w = {.fn = on_object_again};
    stubborn_calls = 0;
    pool_wait(pool, &w);
    run_dry();
    assert_int_equal(stubborn_calls, 10);
}

static void abandoned(void **state)
{
    (void)state;
    struct pool *p;
    struct pool_waiter w = {.fn = on_object_again};
    assert_int_equal(pool_create(loop, "left", 8, 16, 1, &p), 0);
    assert_non_null(pool_get(p));
    pool_wait(p, &w);
    pool_destroy(p, true);
    run_dry();
}

static void too_much_memory(void **state)
{
    (void)state;
    struct pool *p = (void *)1;
    assert_int_equal(pool_create(NULL, "huge", SIZE_MAX / 4, 16, 3, &p), -ENOMEM);
    assert_ptr_equal(p, (void *)1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(objects_are_apart), T(waiters_in_order), T(waits_with_objects_free),
        T(waits_again),       T(abandoned),        T(too_much_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
