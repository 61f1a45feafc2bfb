/*
 * device_iscsi_check: drives LUN devices against a real target; device_iscsi.sh gives it the target and does
 * to the target what the steps ask for on stdout ("do: ..."), answering with a line on stdin.
 *
 *     device_iscsi_check URL INITIATOR [SECRET_FILE]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/device/device.h"
#include "common/device/fence.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/rng.h"
#include "services/san/device_iscsi.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "FAILED line %d: %s\n", __LINE__, #cond);                                        \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static struct rng rng;
static struct env env = {.rng = &rng, .name = "check"};
static struct device_iscsi_options options;

/* Runs the loop until *flag, for at most seconds. */
static bool run_until(const int *flag, unsigned seconds)
{
    uint64_t end_ns = loop_now_ns(env.loop) + seconds * NS_PER_S;
    while (!*flag && loop_now_ns(env.loop) < end_ns)
        loop_run_once(env.loop, NS_PER_S / 10);
    return *flag != 0;
}

struct request {
    struct device_io io;
    struct iovec iov[2];
    int calls, rc;
};

static void request_done(struct device_io *io, int rc)
{
    struct request *r = container_of(io, struct request, io);
    r->rc = rc;
    r->calls++;
}

static int transfer(struct device *dev, enum device_op op, uint64_t offset, uint8_t *buffer, uint64_t length)
{
    struct request r = {.iov = {{buffer, dev->io_bytes}, {buffer + dev->io_bytes, length - dev->io_bytes}}};
    r.io = (struct device_io){
        .op = op, .offset = offset, .length = length, .iov = r.iov, .iovcnt = 2, .done = request_done};
    if (length == dev->io_bytes)
        r.io.iovcnt = 1;
    int rc = device_submit(dev, &r.io);
    if (rc)
        return rc;
    CHECK(r.calls == 0);
    CHECK(run_until(&r.calls, 60));
    return r.rc;
}

static int simple(struct device *dev, enum device_op op, uint64_t offset, uint64_t length)
{
    struct request r = {.io = {.op = op, .offset = offset, .length = length, .done = request_done}};
    int rc = device_submit(dev, &r.io);
    if (rc)
        return rc;
    CHECK(run_until(&r.calls, 60));
    return r.rc;
}

struct fence_call {
    struct device_fence_request req;
    int calls, rc;
};

static void fence_done(struct device_fence_request *req, int rc)
{
    struct fence_call *c = container_of(req, struct fence_call, req);
    c->rc = rc;
    c->calls++;
}

enum what { RECONNECT, ACQUIRE, RELEASE };
static int fence(struct device *dev, enum what what, uint64_t key)
{
    static struct fence_call c; /* outlives a device that is destroyed meanwhile */
    c = (struct fence_call){.req.done = fence_done};
    int rc = what == RECONNECT ? device_fence_reconnect(dev, &c.req)
             : what == ACQUIRE ? device_fence_acquire(dev, key, &c.req)
                               : device_fence_release(dev, &c.req);
    if (rc)
        return rc;
    CHECK(run_until(&c.calls, 60));
    return c.rc;
}

static int changes;
static void on_changed(struct device *dev, void *arg)
{
    (void)dev;
    (void)arg;
    changes++;
}

static struct device *open_device(void)
{
    struct device *dev = NULL;
    CHECK(device_open_iscsi(&env, &options, &dev) == 0);
    CHECK(dev->link_state == DEVICE_LINK_DOWN);
    dev->changed = on_changed;
    return dev;
}

static void ask(const char *what)
{
    char line[64];
    printf("do: %s\n", what);
    fflush(stdout);
    CHECK(fgets(line, sizeof line, stdin));
}

static void fill(uint8_t *buffer, size_t length, uint64_t seed)
{
    struct rng r;
    rng_seed(&r, seed);
    rng_fill(&r, buffer, length);
}

static void check_data(struct device *dev)
{
    const size_t large = 3 << 20; /* more than goes in one command */
    uint8_t *out = malloc(large), *in = malloc(large);
    fill(out, large, 1);
    CHECK(dev->size > 8 * MIB);
    CHECK(transfer(dev, DEVICE_WRITE, dev->io_bytes, out, large) == 0);
    CHECK(simple(dev, DEVICE_FLUSH, 0, 0) == 0);
    memset(in, 0, large);
    CHECK(transfer(dev, DEVICE_READ, dev->io_bytes, in, large) == 0);
    CHECK(memcmp(in, out, large) == 0);
    CHECK(transfer(dev, DEVICE_READ, 0, in, 2 * dev->io_bytes) == 0);
    CHECK(memcmp(in + dev->io_bytes, out, dev->io_bytes) == 0);
    CHECK(transfer(dev, DEVICE_WRITE, dev->size - dev->io_bytes, out, dev->io_bytes) == 0);
    CHECK(transfer(dev, DEVICE_WRITE, dev->size, out, dev->io_bytes) == -EINVAL);
    CHECK(transfer(dev, DEVICE_WRITE, 1, out, dev->io_bytes) == -EINVAL);
    if (dev->can_discard)
        CHECK(simple(dev, DEVICE_DISCARD, 0, MIB) == 0);
    free(out);
    free(in);
    printf("data ok: size=%llu block=%u discard=%d\n", (unsigned long long)dev->size, dev->io_bytes,
           dev->can_discard);
}

static void check_many(struct device *dev)
{
    enum { COUNT = 300, BYTES = 16384 };
    static struct request r[COUNT];
    uint8_t *out = malloc(COUNT * BYTES), *in = calloc(COUNT, BYTES);
    fill(out, COUNT * BYTES, 2);
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < COUNT; i++) {
            r[i] = (struct request){.iov = {{(pass ? in : out) + i * BYTES, BYTES}}};
            r[i].io = (struct device_io){.op = pass ? DEVICE_READ : DEVICE_WRITE,
                                         .offset = i * BYTES,
                                         .length = BYTES,
                                         .iov = r[i].iov,
                                         .iovcnt = 1,
                                         .done = request_done};
            CHECK(device_submit(dev, &r[i].io) == 0);
        }
        for (unsigned i = 0; i < COUNT; i++) {
            CHECK(run_until(&r[i].calls, 60));
            CHECK(r[i].rc == 0 && r[i].calls == 1);
        }
    }
    CHECK(memcmp(in, out, COUNT * BYTES) == 0);
    free(out);
    free(in);
    printf("many ok\n");
}

/* a has the fence; b takes it; a's writes must be refused, and a must find out. */
static struct device *check_fence(struct device *a)
{
    uint8_t one[4096], two[4096], in[4096];
    memset(one, 1, sizeof one);
    memset(two, 2, sizeof two);
    CHECK(fence(a, ACQUIRE, 100) == 0);
    CHECK(a->fence_state == DEVICE_FENCE_HELD && a->fence_key == 100);
    CHECK(transfer(a, DEVICE_WRITE, 0, one, 4096) == 0);
    struct device *b = open_device();
    CHECK(fence(b, RECONNECT, 0) == 0);
    CHECK(transfer(b, DEVICE_WRITE, 0, two, 4096) == -EBUSY); /* not registered */
    CHECK(fence(b, ACQUIRE, 99) == -ESTALE);
    CHECK(transfer(a, DEVICE_READ, 0, in, 4096) == 0);
    CHECK(memcmp(in, one, 4096) == 0);
    CHECK(fence(b, ACQUIRE, 101) == 0);
    CHECK(b->fence_state == DEVICE_FENCE_HELD);
    int rc = transfer(a, DEVICE_WRITE, 0, one, 4096);
    if (rc == -EIO) { /* the array told of it by a unit attention: then by asking */
        CHECK(a->fence_state == DEVICE_FENCE_UNCERTAIN && a->link_state == DEVICE_LINK_DOWN);
        CHECK(transfer(a, DEVICE_WRITE, 0, one, 4096) == -ENOTCONN);
        CHECK(fence(a, RECONNECT, 0) == -ENODEV);
    } else {
        CHECK(rc == -ENODEV);
    }
    CHECK(a->fence_state == DEVICE_FENCE_LOST && a->link_state == DEVICE_LINK_GONE);
    CHECK(transfer(a, DEVICE_WRITE, 0, one, 4096) == -ENODEV);
    CHECK(fence(a, ACQUIRE, 200) == -ENODEV);
    CHECK(transfer(b, DEVICE_WRITE, 0, two, 4096) == 0);
    CHECK(transfer(b, DEVICE_READ, 0, in, 4096) == 0);
    CHECK(memcmp(in, two, 4096) == 0);
    device_destroy(a);
    printf("fence ok\n");
    return b;
}

static void check_release(struct device *b)
{
    uint8_t data[4096] = {7};
    CHECK(fence(b, RELEASE, 0) == 0);
    CHECK(b->fence_state == DEVICE_FENCE_NONE);
    struct device *c = open_device();
    CHECK(fence(c, RECONNECT, 0) == 0);
    CHECK(transfer(c, DEVICE_WRITE, 0, data, 4096) == 0);
    device_destroy(c);
    printf("release ok\n");
}

/* Only the connection is cut: the same initiator port comes back, and the array says whether it still is the
 * holder. */
static struct device *check_cut_session(struct device *dev)
{
    uint8_t data[4096] = {8};
    CHECK(fence(dev, ACQUIRE, 250) == 0);
    changes = 0;
    ask("cut sessions");
    CHECK(run_until(&changes, 60));
    CHECK(dev->link_state == DEVICE_LINK_DOWN && dev->fence_state == DEVICE_FENCE_UNCERTAIN);
    int rc = fence(dev, RECONNECT, 0);
    printf("session cut: reconnect=%d fence=%s\n", rc, device_fence_text(dev->fence_state));
    if (rc == 0) {
        CHECK(dev->fence_state == DEVICE_FENCE_HELD);
        CHECK(transfer(dev, DEVICE_WRITE, 0, data, 4096) == 0);
        return dev;
    }
    CHECK(rc == -ENODEV && dev->fence_state == DEVICE_FENCE_LOST);
    CHECK(transfer(dev, DEVICE_WRITE, 0, data, 4096) == -ENODEV);
    device_destroy(dev);
    dev = open_device();
    CHECK(fence(dev, RECONNECT, 0) == 0);
    return dev;
}

/* The target goes away with requests under way, and comes back having forgotten everything. */
static struct device *check_lost_session(struct device *dev)
{
    uint8_t data[4096] = {9};
    CHECK(fence(dev, ACQUIRE, 300) == 0);
    changes = 0;
    ask("kill target");
    CHECK(run_until(&changes, 60));
    CHECK(dev->link_state == DEVICE_LINK_DOWN && dev->fence_state == DEVICE_FENCE_UNCERTAIN);
    CHECK(transfer(dev, DEVICE_WRITE, 0, data, 4096) == -ENOTCONN);
    static struct fence_call c = {.req.done = fence_done};
    CHECK(device_fence_reconnect(dev, &c.req) == 0);
    CHECK(!run_until(&c.calls, 1)); /* it keeps trying */
    ask("start target");
    CHECK(run_until(&c.calls, 60));
    CHECK(c.rc == -ENODEV); /* a new array: it does not know our key */
    CHECK(dev->fence_state == DEVICE_FENCE_LOST && dev->link_state == DEVICE_LINK_GONE);
    device_destroy(dev);
    dev = open_device();
    CHECK(fence(dev, RECONNECT, 0) == 0);
    CHECK(transfer(dev, DEVICE_WRITE, 0, data, 4096) == 0);
    /* without a fence a session that comes back is enough */
    changes = 0;
    ask("kill target");
    CHECK(run_until(&changes, 60));
    ask("start target");
    CHECK(fence(dev, RECONNECT, 0) == 0);
    CHECK(transfer(dev, DEVICE_WRITE, 0, data, 4096) == 0);
    printf("session ok\n");
    return dev;
}

static void check_vanished(struct device *dev)
{
    uint8_t data[4096] = {9};
    ask("remove lun");
    int rc = transfer(dev, DEVICE_WRITE, 0, data, 4096);
    for (unsigned i = 0; rc == -EIO && i < 5; i++) { /* the array first tells of a change */
        if (dev->link_state == DEVICE_LINK_DOWN)
            rc = fence(dev, RECONNECT, 0);
        if (rc == 0 || dev->link_state == DEVICE_LINK_UP)
            rc = transfer(dev, DEVICE_WRITE, 0, data, 4096);
    }
    CHECK(rc == -ENODEV);
    CHECK(dev->link_state == DEVICE_LINK_GONE);
    CHECK(transfer(dev, DEVICE_READ, 0, data, 4096) == -ENODEV);
    device_destroy(dev);
    printf("vanished ok\n");
}

static void check_destroy_in_flight(void)
{
    static struct request r[40];
    static uint8_t data[65536];
    struct device *dev = open_device();
    CHECK(fence(dev, RECONNECT, 0) == 0);
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        r[i] = (struct request){.iov = {{data, sizeof data}}};
        r[i].io = (struct device_io){.op = DEVICE_READ,
                                     .offset = 0,
                                     .length = sizeof data,
                                     .iov = r[i].iov,
                                     .iovcnt = 1,
                                     .done = request_done};
        CHECK(device_submit(dev, &r[i].io) == 0);
    }
    loop_run_once(env.loop, 0);
    device_destroy(dev);
    dev = open_device(); /* destroyed while it connects */
    static struct fence_call c = {.req.done = fence_done};
    CHECK(device_fence_reconnect(dev, &c.req) == 0);
    for (int i = 0; i < 3; i++)
        loop_run_once(env.loop, NS_PER_MS);
    device_destroy(dev);
    printf("destroy ok\n");
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    rng_init_system(&rng);
    CHECK(loop_create_real(NULL, &env.loop) == 0);
    options = (struct device_iscsi_options){.url = argv[1],
                                            .initiator = argv[2],
                                            .secret_file = argc > 3 ? argv[3] : NULL,
                                            .io_timeout_ns = 5 * NS_PER_S};
    struct device *dev = open_device();
    CHECK(fence(dev, RECONNECT, 0) == 0);
    check_data(dev);
    check_many(dev);
    check_destroy_in_flight();
    dev = check_fence(dev);
    check_release(dev);
    dev = check_cut_session(dev);
    dev = check_lost_session(dev);
    check_vanished(dev);
    loop_destroy(env.loop);
    printf("all ok\n");
    return 0;
}
