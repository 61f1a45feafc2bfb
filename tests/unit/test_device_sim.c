/* Simulated media: time and order, death of a process and of the power, faults, and the fences of LUNs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/device/device_sim.h"
#include "common/device/fence.h"
#include "common/loop.h"

enum { IO = 4096, SIZE = 1024 * 1024 };

struct request {
    struct device_io io;
    struct iovec iov;
    uint8_t *buffer;
    int rc, calls;
    uint64_t at_ns;
    struct sim_world *world;
};

static void request_done(struct device_io *io, int rc)
{
    struct request *r = container_of(io, struct request, io);
    r->rc = rc;
    r->calls++;
    r->at_ns = sim_world_now(r->world);
}

/* A simulated process with a device. */
struct process {
    struct loop *loop;
    struct env env;
    struct device *dev;
    unsigned changes;
};

static void on_changed(struct device *dev, void *arg)
{
    (void)dev;
    ((struct process *)arg)->changes++;
}

static int process_open(struct process *p, struct sim_world *world, struct sim_medium *m)
{
    memset(p, 0, sizeof *p);
    assert_int_equal(loop_create_sim(world, "process", 0, &p->loop), 0);
    p->env = (struct env){.loop = p->loop, .name = "process"};
    int rc = device_open_sim(&p->env, m, &p->dev);
    if (rc) {
        loop_destroy(p->loop);
        return rc;
    }
    p->dev->changed = on_changed;
    p->dev->changed_arg = p;
    return 0;
}

static void process_kill(struct process *p)
{
    sim_loop_kill(p->loop);
    device_destroy(p->dev);
    loop_destroy(p->loop);
}

static struct sim_medium *medium_of(struct sim_world *world, enum sim_medium_kind kind)
{
    struct sim_medium_options o = {.kind = kind, .name = "disk", .size = SIZE};
    return sim_medium_create(world, &o);
}

static struct sim_world *world_of(uint64_t seed)
{
    struct sim_world *world;
    assert_int_equal(sim_world_create(seed, &world), 0);
    return world;
}

static void prepare(struct request *r, struct sim_world *world, enum device_op op, uint64_t offset,
                    uint64_t length, int fill)
{
    memset(r, 0, sizeof *r);
    r->world = world;
    r->buffer = malloc(length + 1);
    memset(r->buffer, fill, length);
    r->iov = (struct iovec){r->buffer, length};
    r->io = (struct device_io){
        .op = op, .offset = offset, .length = length, .iov = &r->iov, .iovcnt = 1, .done = request_done};
}

static int run(struct sim_world *world, struct process *p, enum device_op op, uint64_t offset,
               uint64_t length, int fill)
{
    struct request r;
    prepare(&r, world, op, offset, length, fill);
    int rc = device_submit(p->dev, &r.io);
    if (rc == 0) {
        assert_int_equal(r.calls, 0);
        while (!r.calls && sim_world_step(world))
            ;
        assert_int_equal(r.calls, 1);
        rc = r.rc;
    }
    free(r.buffer);
    return rc;
}

static void settle(struct sim_world *world)
{
    sim_world_run_until(world, sim_world_now(world) + NS_PER_S);
}

/* How many of these bytes are not fill. */
static uint64_t differing(struct sim_medium *m, uint64_t offset, uint64_t length, int fill)
{
    uint8_t *bytes = malloc(length);
    uint64_t n = 0;
    medium_read(sim_medium_content(m), offset, bytes, length);
    for (uint64_t i = 0; i < length; i++)
        n += bytes[i] != (uint8_t)fill;
    free(bytes);
    return n;
}

static void story(uint64_t seed, uint64_t *times, unsigned count)
{
    struct sim_world *world = world_of(seed);
    struct sim_medium *m = medium_of(world, SIM_MEDIUM_DISK);
    struct process p;
    struct request r[32];
    assert_int_equal(process_open(&p, world, m), 0);
    assert_true(count <= ARRAY_LEN(r));
    for (unsigned i = 0; i < count; i++) {
        prepare(&r[i], world, DEVICE_WRITE, i * IO, IO, (int)i + 1);
        assert_int_equal(device_submit(p.dev, &r[i].io), 0);
    }
    settle(world);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(r[i].calls, 1);
        assert_int_equal(r[i].rc, 0);
        assert_int_equal(differing(m, i * IO, IO, (int)i + 1), 0);
        times[i] = r[i].at_ns;
        free(r[i].buffer);
    }
    process_kill(&p);
    sim_medium_destroy(m);
    sim_world_destroy(world);
}

static void one_seed_one_run(void **state)
{
    (void)state;
    uint64_t a[32], b[32], c[32];
    story(5, a, 32);
    story(5, b, 32);
    story(6, c, 32);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
    unsigned later = 0; /* not in order of submission */
    for (unsigned i = 1; i < 32; i++)
        later += a[i] < a[i - 1];
    assert_true(later > 0);
    for (unsigned i = 0; i < 32; i++)
        assert_true(a[i] > 0);
}

static void locked_while_open(void **state)
{
    (void)state;
    struct sim_world *world = world_of(1);
    struct sim_medium *m = medium_of(world, SIM_MEDIUM_PMEM);
    struct process p, q;
    assert_int_equal(process_open(&p, world, m), 0);
    assert_true(p.dev->durable_writes);
    assert_int_equal(p.dev->atom_bytes, 8);
    assert_int_equal(process_open(&q, world, m), -EBUSY);
    assert_int_equal(run(world, &p, DEVICE_WRITE, 64, 128, 3), 0);
    assert_int_equal(run(world, &p, DEVICE_DISCARD, 0, 64, 0), -ENOTSUP);
    assert_int_equal(run(world, &p, DEVICE_WRITE, 32, 64, 3), -EINVAL);
    process_kill(&p);
    assert_int_equal(process_open(&q, world, m), 0);
    sim_medium_crash(m, NULL);
    assert_int_equal(differing(m, 64, 128, 3), 0);
    process_kill(&q);
    sim_medium_destroy(m);
    sim_world_destroy(world);
}

/* A killed process: what was completed stays; what was in flight lands whole, torn or not; and before the
 * next open. */
static void death_of_the_process(void **state)
{
    (void)state;
    unsigned whole = 0, none = 0, torn = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct sim_world *world = world_of(seed);
        struct sim_medium *m = medium_of(world, SIM_MEDIUM_DISK);
        struct process p;
        struct request r;
        assert_int_equal(process_open(&p, world, m), 0);
        assert_int_equal(run(world, &p, DEVICE_WRITE, 0, IO, 1), 0);
        prepare(&r, world, DEVICE_WRITE, IO, IO, 2);
        assert_int_equal(device_submit(p.dev, &r.io), 0);
        process_kill(&p);
        memset(r.buffer, 0xee, IO);
        free(r.buffer);
        assert_int_equal(sim_medium_inflight(m), 1);
        assert_int_equal(differing(m, IO, IO, 0), 0); /* not landed yet */
        if (seed % 2)
            settle(world);
        assert_int_equal(process_open(&p, world, m), 0);
        assert_int_equal(sim_medium_inflight(m), 0);
        uint64_t lost = differing(m, IO, IO, 2);
        whole += lost == 0;
        none += lost == IO;
        torn += lost != 0 && lost != IO;
        assert_int_equal(differing(m, 0, IO, 1), 0);
        settle(world);
        assert_int_equal(differing(m, IO, IO, 2), lost);
        assert_int_equal(r.calls, 0);
        process_kill(&p);
        sim_medium_destroy(m);
        sim_world_destroy(world);
    }
    assert_true(whole > 0 && none > 0 && torn > 0);
}

static void loss_of_power(void **state)
{
    (void)state;
    unsigned kept = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct sim_world *world = world_of(seed);
        struct sim_medium *m = medium_of(world, SIM_MEDIUM_DISK);
        struct process p;
        struct request r;
        assert_int_equal(process_open(&p, world, m), 0);
        assert_int_equal(run(world, &p, DEVICE_WRITE, 0, IO, 1), 0);
        assert_int_equal(run(world, &p, DEVICE_FLUSH, 0, 0, 0), 0);
        assert_int_equal(run(world, &p, DEVICE_WRITE, IO, IO, 2), 0);
        prepare(&r, world, DEVICE_READ, 0, IO, 0);
        assert_int_equal(device_submit(p.dev, &r.io), 0);
        sim_medium_crash(m, NULL);
        assert_int_equal(sim_medium_inflight(m), 0);
        settle(world);
        assert_int_equal(r.calls, 0); /* nothing is answered without power */
        assert_int_equal(device_submit(p.dev, &r.io), 0);
        settle(world);
        assert_int_equal(r.calls, 0);
        free(r.buffer);
        process_kill(&p);
        assert_int_equal(differing(m, 0, IO, 1), 0);
        kept += differing(m, IO, IO, 2) == 0;
        sim_medium_destroy(m);
        sim_world_destroy(world);
    }
    assert_in_range(kept, 1, 39);
}

static void faults(void **state)
{
    (void)state;
    struct sim_world *world = world_of(8);
    struct sim_medium *m = medium_of(world, SIM_MEDIUM_DISK);
    struct process p;
    assert_int_equal(process_open(&p, world, m), 0);
    assert_int_equal(run(world, &p, DEVICE_WRITE, 0, 4 * IO, 1), 0);
    sim_medium_fail_range(m, 1u << DEVICE_READ, IO, IO, -EIO);
    assert_int_equal(run(world, &p, DEVICE_READ, 0, 4 * IO, 0), -EIO);
    assert_int_equal(run(world, &p, DEVICE_WRITE, IO, IO, 1), 0);
    sim_medium_fail_range(m, 1u << DEVICE_READ, IO, IO, 0);
    assert_int_equal(run(world, &p, DEVICE_READ, 0, 4 * IO, 0), 0);
    sim_medium_fail_nth(m, DEVICE_FLUSH, 1, -EIO);
    assert_int_equal(run(world, &p, DEVICE_FLUSH, 0, 0, 0), -EIO);
    sim_medium_rot(m, 512, 512);
    assert_int_equal(differing(m, 0, 4 * IO, 1), 1);
    sim_medium_limit(m, medium_allocated(sim_medium_content(m)));
    assert_int_equal(run(world, &p, DEVICE_WRITE, SIZE / 2, IO, 1), -ENOSPC);
    assert_int_equal(run(world, &p, DEVICE_WRITE, 0, IO, 1), 0);
    sim_medium_limit(m, UINT64_MAX);
    uint64_t until_ns = sim_world_now(world) + 5 * NS_PER_S;
    sim_medium_stall(m, until_ns);
    assert_int_equal(run(world, &p, DEVICE_WRITE, 0, IO, 1), 0);
    assert_true(sim_world_now(world) >= until_ns);
    uint64_t before_ns = sim_world_now(world);
    sim_medium_slow(m, 1000);
    assert_int_equal(run(world, &p, DEVICE_WRITE, 0, IO, 1), 0);
    assert_true(sim_world_now(world) - before_ns >= 20 * NS_PER_MS);
    sim_medium_slow(m, 1);
    struct medium *old = sim_medium_snapshot(m);
    assert_int_equal(run(world, &p, DEVICE_WRITE, 2 * IO, IO, 7), 0);
    struct request r;
    prepare(&r, world, DEVICE_READ, 0, IO, 0);
    assert_int_equal(device_submit(p.dev, &r.io), 0);
    sim_medium_vanish(m);
    settle(world);
    assert_int_equal(r.rc, -ENODEV);
    assert_int_equal(device_submit(p.dev, &r.io), -ENODEV);
    assert_int_equal(p.changes, 1);
    free(r.buffer);
    process_kill(&p);
    assert_int_equal(process_open(&p, world, m), -ENODEV);
    sim_medium_return(m);
    assert_int_equal(differing(m, 2 * IO, IO, 7), 0);
    sim_medium_restore(m, old);
    assert_int_equal(differing(m, 2 * IO, IO, 1), 0);
    sim_medium_restore(m, NULL);
    assert_int_equal(differing(m, 0, SIZE, 0), 0);
    medium_destroy(old);
    sim_medium_destroy(m);
    sim_world_destroy(world);
}

static struct device *doomed;
static void destroying_done(struct device_io *io, int rc)
{
    request_done(io, rc);
    device_destroy(doomed);
}

static void done_may_destroy(void **state)
{
    (void)state;
    struct sim_world *world = world_of(3);
    struct sim_medium *m = medium_of(world, SIM_MEDIUM_DISK);
    struct process p;
    struct request r[4];
    assert_int_equal(process_open(&p, world, m), 0);
    doomed = p.dev;
    for (unsigned i = 0; i < 4; i++) {
        prepare(&r[i], world, DEVICE_WRITE, i * IO, IO, 1);
        r[i].io.done = destroying_done;
        assert_int_equal(device_submit(p.dev, &r[i].io), 0);
    }
    settle(world);
    int called = 0;
    for (unsigned i = 0; i < 4; i++) {
        called += r[i].calls;
        free(r[i].buffer);
    }
    assert_int_equal(called, 1);
    loop_destroy(p.loop);
    sim_medium_destroy(m);
    sim_world_destroy(world);
}

/* ---- LUNs ---- */

struct fence_call {
    struct device_fence_request req;
    int rc, calls;
};

static void fence_done(struct device_fence_request *req, int rc)
{
    struct fence_call *c = container_of(req, struct fence_call, req);
    c->rc = rc;
    c->calls++;
}

static int wait_fence(struct sim_world *world, struct fence_call *c, int started)
{
    if (started)
        return started;
    assert_int_equal(c->calls, 0);
    while (!c->calls && sim_world_step(world))
        ;
    assert_int_equal(c->calls, 1);
    return c->rc;
}

static int acquire(struct sim_world *world, struct process *p, uint64_t key)
{
    struct fence_call c = {.req.done = fence_done};
    return wait_fence(world, &c, device_fence_acquire(p->dev, key, &c.req));
}

static int reconnect(struct sim_world *world, struct process *p)
{
    struct fence_call c = {.req.done = fence_done};
    return wait_fence(world, &c, device_fence_reconnect(p->dev, &c.req));
}

static int release(struct sim_world *world, struct process *p)
{
    struct fence_call c = {.req.done = fence_done};
    return wait_fence(world, &c, device_fence_release(p->dev, &c.req));
}

struct lun {
    struct sim_world *world;
    struct sim_medium *m;
    struct process a, b;
};

static void lun_setup(struct lun *l, uint64_t seed)
{
    l->world = world_of(seed);
    l->m = medium_of(l->world, SIM_MEDIUM_LUN);
    assert_int_equal(process_open(&l->a, l->world, l->m), 0);
    assert_int_equal(process_open(&l->b, l->world, l->m), 0);
}

static void lun_teardown(struct lun *l)
{
    process_kill(&l->a);
    process_kill(&l->b);
    sim_medium_destroy(l->m);
    sim_world_destroy(l->world);
}

static void the_fence_keeps_others_out(void **state)
{
    (void)state;
    struct lun l;
    lun_setup(&l, 2);
    assert_int_equal(acquire(l.world, &l.a, 0), -EINVAL);
    assert_int_equal(run(l.world, &l.b, DEVICE_WRITE, 0, IO, 9), 0); /* no fence yet */
    assert_int_equal(acquire(l.world, &l.a, 10), 0);
    assert_int_equal(l.a.dev->fence_state, DEVICE_FENCE_HELD);
    assert_int_equal(sim_lun_holder(l.m), 10);
    assert_int_equal(run(l.world, &l.a, DEVICE_WRITE, 0, IO, 1), 0);
    assert_int_equal(acquire(l.world, &l.b, 9), -ESTALE); /* an earlier owner does not come back */
    assert_int_equal(acquire(l.world, &l.b, 11), 0);
    assert_int_equal(sim_lun_holder(l.m), 11);
    assert_int_equal(l.a.dev->fence_state, DEVICE_FENCE_HELD); /* it does not know yet */
    assert_int_equal(run(l.world, &l.a, DEVICE_WRITE, 0, IO, 2), -ENODEV);
    assert_int_equal(differing(l.m, 0, IO, 1), 0);
    settle(l.world);
    assert_int_equal(l.a.dev->fence_state, DEVICE_FENCE_LOST);
    assert_int_equal(l.a.changes, 1);
    assert_int_equal(run(l.world, &l.a, DEVICE_READ, 0, IO, 2), -ENODEV);
    assert_int_equal(acquire(l.world, &l.a, 12), -ENODEV);
    assert_int_equal(run(l.world, &l.b, DEVICE_WRITE, 0, IO, 3), 0);
    assert_int_equal(release(l.world, &l.b), 0);
    assert_int_equal(sim_lun_holder(l.m), 0);
    lun_teardown(&l);
}

/* A dead owner's write must not land after the successor has the fence; where nothing enforces it, it may. */
static unsigned late_writes(bool enforce)
{
    unsigned late = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct lun l;
        struct request r;
        lun_setup(&l, seed);
        sim_lun_enforce(l.m, enforce);
        assert_int_equal(acquire(l.world, &l.a, 1), 0);
        assert_int_equal(run(l.world, &l.a, DEVICE_WRITE, 0, IO, 1), 0);
        sim_medium_slow(l.m, 100);
        prepare(&r, l.world, DEVICE_WRITE, 0, IO, 2);
        assert_int_equal(device_submit(l.a.dev, &r.io), 0);
        process_kill(&l.a);
        free(r.buffer);
        sim_medium_slow(l.m, 1);
        assert_int_equal(acquire(l.world, &l.b, 2), 0);
        uint64_t before = differing(l.m, 0, IO, 1);
        settle(l.world);
        late += differing(l.m, 0, IO, 1) != before;
        assert_int_equal(process_open(&l.a, l.world, l.m), 0);
        lun_teardown(&l);
    }
    return late;
}

static void late_writes_of_the_dead(void **state)
{
    (void)state;
    assert_int_equal(late_writes(true), 0);
    assert_true(late_writes(false) > 0);
}

static void racing_owners(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct lun l;
        lun_setup(&l, seed);
        struct fence_call a = {.req.done = fence_done}, b = a;
        assert_int_equal(device_fence_acquire(l.a.dev, 20, &a.req), 0);
        assert_int_equal(device_fence_acquire(l.a.dev, 20, &a.req), -EBUSY);
        assert_int_equal(device_fence_acquire(l.b.dev, 21, &b.req), 0);
        settle(l.world);
        assert_int_equal(a.calls, 1);
        assert_int_equal(b.calls, 1);
        assert_int_equal(b.rc, 0);
        assert_true(a.rc == 0 || a.rc == -ESTALE);
        assert_int_equal(sim_lun_holder(l.m), 21);
        assert_int_equal(run(l.world, &l.b, DEVICE_WRITE, 0, IO, 3), 0);
        if (a.rc == 0)
            assert_int_equal(run(l.world, &l.a, DEVICE_WRITE, 0, IO, 2), -ENODEV);
        assert_int_equal(differing(l.m, 0, IO, 3), 0);
        lun_teardown(&l);
    }
}

static void a_lost_session(void **state)
{
    (void)state;
    struct lun l;
    struct request r;
    lun_setup(&l, 4);
    assert_int_equal(acquire(l.world, &l.a, 5), 0);
    prepare(&r, l.world, DEVICE_WRITE, 0, IO, 1);
    assert_int_equal(device_submit(l.a.dev, &r.io), 0);
    sim_lun_disconnect(l.m, true);
    settle(l.world);
    assert_int_equal(r.calls, 1);
    assert_int_equal(r.rc, -EIO);
    assert_int_equal(l.a.changes, 1);
    assert_int_equal(l.a.dev->fence_state, DEVICE_FENCE_UNCERTAIN);
    assert_int_equal(l.a.dev->link_state, DEVICE_LINK_DOWN);
    assert_int_equal(device_submit(l.a.dev, &r.io), -ENOTCONN);
    struct fence_call c = {.req.done = fence_done};
    assert_int_equal(device_fence_reconnect(l.a.dev, &c.req), 0);
    settle(l.world);
    assert_int_equal(c.calls, 0); /* it goes on trying */
    sim_lun_restore(l.m);
    settle(l.world);
    assert_int_equal(c.calls, 1);
    assert_int_equal(c.rc, 0);
    assert_int_equal(l.a.dev->fence_state, DEVICE_FENCE_HELD);
    assert_int_equal(run(l.world, &l.a, DEVICE_WRITE, 0, IO, 2), 0);
    /* lost again, and meanwhile another one takes over */
    sim_lun_disconnect(l.m, false);
    assert_int_equal(reconnect(l.world, &l.b), 0);
    assert_int_equal(acquire(l.world, &l.b, 6), 0);
    assert_int_equal(reconnect(l.world, &l.a), -ENODEV);
    assert_int_equal(l.a.dev->fence_state, DEVICE_FENCE_LOST);
    assert_int_equal(device_submit(l.a.dev, &r.io), -ENODEV);
    assert_int_equal(run(l.world, &l.b, DEVICE_WRITE, 0, IO, 2), 0);
    free(r.buffer);
    lun_teardown(&l);
}

static void an_array_that_forgets(void **state)
{
    (void)state;
    struct lun l;
    lun_setup(&l, 4);
    assert_int_equal(acquire(l.world, &l.a, 5), 0);
    sim_lun_forget(l.m);
    assert_int_equal(run(l.world, &l.a, DEVICE_WRITE, 0, IO, 1), -EIO); /* the attention, not the write */
    assert_int_equal(differing(l.m, 0, IO, 0), 0);
    assert_int_equal(l.a.dev->fence_state, DEVICE_FENCE_UNCERTAIN);
    assert_int_equal(run(l.world, &l.a, DEVICE_WRITE, 0, IO, 1), -ENOTCONN);
    assert_int_equal(reconnect(l.world, &l.a), -ENODEV);
    assert_int_equal(l.a.dev->fence_state, DEVICE_FENCE_LOST);
    sim_lun_support(l.m, false);
    assert_int_equal(acquire(l.world, &l.b, 6), -ENOTSUP);
    assert_int_equal(l.b.dev->fence_state, DEVICE_FENCE_UNSUPPORTED);
    assert_int_equal(run(l.world, &l.b, DEVICE_WRITE, 0, IO, 1), -EIO); /* its own attention */
    assert_int_equal(reconnect(l.world, &l.b), 0);
    assert_int_equal(run(l.world, &l.b, DEVICE_WRITE, 0, IO, 1), 0);
    /* the hosts' power is not the array's */
    sim_medium_crash(l.m, NULL);
    assert_int_equal(differing(l.m, 0, IO, 1), 0);
    lun_teardown(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_seed_one_run),
        cmocka_unit_test(locked_while_open),
        cmocka_unit_test(death_of_the_process),
        cmocka_unit_test(loss_of_power),
        cmocka_unit_test(faults),
        cmocka_unit_test(done_may_destroy),
        cmocka_unit_test(the_fence_keeps_others_out),
        cmocka_unit_test(late_writes_of_the_dead),
        cmocka_unit_test(racing_owners),
        cmocka_unit_test(a_lost_session),
        cmocka_unit_test(an_array_that_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
