/* The RAM device: what it completes, what survives a crash, and that its faults do what they say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/device/device_ram.h"
#include "common/loop.h"

enum { IO = 4096, ATOM = 512, SIZE = 1024 * 1024 };

struct request {
    struct device_io io;
    struct iovec iov;
    uint8_t *buffer;
    int rc, calls, order;
};
static int completions;

static void request_done(struct device_io *io, int rc)
{
    struct request *r = container_of(io, struct request, io);
    r->rc = rc;
    r->calls++;
    r->order = completions++;
}

static void request_init(struct request *r, enum device_op op, uint64_t offset, uint64_t length, uint8_t fill)
{
    memset(r, 0, sizeof *r);
    r->buffer = aligned_alloc(IO, round_up(length, IO) + IO);
    memset(r->buffer, fill, length);
    r->iov = (struct iovec){.iov_base = r->buffer, .iov_len = length};
    r->io = (struct device_io){
        .op = op, .offset = offset, .length = length, .iov = &r->iov, .iovcnt = 1, .done = request_done};
}

static int run(struct device *dev, enum device_op op, uint64_t offset, uint64_t length, uint8_t fill)
{
    struct request r;
    request_init(&r, op, offset, length, fill);
    assert_int_equal(device_submit(dev, &r.io), 0);
    assert_int_equal(r.calls, 0);
    device_ram_pump(dev, UINT32_MAX);
    assert_int_equal(r.calls, 1);
    free(r.buffer);
    return r.rc;
}

static uint8_t *content(struct device *dev, uint64_t offset, uint64_t length)
{
    uint8_t *out = malloc(length);
    medium_read(device_ram_medium(dev), offset, out, length);
    return out;
}

/* How many of the bytes are not fill. */
static uint64_t differing(struct device *dev, uint64_t offset, uint64_t length, uint8_t fill)
{
    uint8_t *bytes = content(dev, offset, length);
    uint64_t n = 0;
    for (uint64_t i = 0; i < length; i++)
        n += bytes[i] != fill;
    free(bytes);
    return n;
}

static void reads_what_was_written(void **state)
{
    (void)state;
    struct device *dev = device_ram_create(SIZE, IO, ATOM, 7);
    struct request r;
    assert_int_equal(run(dev, DEVICE_WRITE, 8 * IO, 20 * IO, 0xab), 0); /* crosses a chunk */
    request_init(&r, DEVICE_READ, 7 * IO, 22 * IO, 0xee);
    struct iovec iov[2] = {{r.buffer, 3 * IO}, {r.buffer + 3 * IO, 19 * IO}};
    r.io.iov = iov;
    r.io.iovcnt = 2;
    assert_int_equal(device_submit(dev, &r.io), 0);
    assert_int_equal(device_ram_pending(dev), 1);
    assert_int_equal(device_ram_pump(dev, UINT32_MAX), 1);
    assert_int_equal(r.rc, 0);
    for (unsigned i = 0; i < 22 * IO; i++)
        assert_int_equal(r.buffer[i], i < IO || i >= 21 * IO ? 0 : 0xab);
    free(r.buffer);
    assert_int_equal(dev->writes, 1);
    assert_int_equal(dev->read_bytes, 22 * IO);
    device_destroy(dev);
}

static void refuses_bad_requests(void **state)
{
    (void)state;
    struct device *dev = device_ram_create(SIZE, IO, ATOM, 0);
    static const uint64_t bad[][2] = {{1, IO},      {0, IO - 512},       {SIZE, IO},
                                      {0, 0},       {SIZE - IO, 2 * IO}, {UINT64_MAX - IO + 1, IO},
                                      {512, 2 * IO}};
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        struct request r;
        request_init(&r, DEVICE_WRITE, bad[i][0], bad[i][1], 1);
        assert_int_equal(device_submit(dev, &r.io), -EINVAL);
        r.io.op = DEVICE_DISCARD;
        assert_int_equal(device_submit(dev, &r.io), -EINVAL);
        free(r.buffer);
    }
    struct request r;
    request_init(&r, DEVICE_WRITE, 0, 2 * IO, 1);
    r.iov.iov_len = IO; /* not the sum */
    assert_int_equal(device_submit(dev, &r.io), -EINVAL);
    r.iov = (struct iovec){r.buffer + 4, 2 * IO}; /* not aligned */
    assert_int_equal(device_submit(dev, &r.io), -EINVAL);
    r.iov = (struct iovec){r.buffer, 2 * IO};
    r.io.iovcnt = DEVICE_IOV_MAX + 1;
    assert_int_equal(device_submit(dev, &r.io), -EINVAL);
    r.io.iovcnt = 1;
    dev->read_only = true;
    assert_int_equal(device_submit(dev, &r.io), -EROFS);
    dev->read_only = false;
    dev->can_discard = false;
    r.io.op = DEVICE_DISCARD;
    assert_int_equal(device_submit(dev, &r.io), -ENOTSUP);
    free(r.buffer);
    assert_int_equal(device_ram_pending(dev), 0);
    device_destroy(dev);
}

static void seed_gives_the_order(void **state)
{
    (void)state;
    int orders[3][16], sorted = 0;
    uint64_t seeds[3] = {9, 9, 0};
    for (int s = 0; s < 3; s++) {
        struct device *dev = device_ram_create(SIZE, IO, ATOM, seeds[s]);
        struct request r[16];
        completions = 0;
        for (unsigned i = 0; i < 16; i++) {
            request_init(&r[i], DEVICE_WRITE, i * IO, IO, 1);
            assert_int_equal(device_submit(dev, &r[i].io), 0);
        }
        assert_int_equal(device_ram_pump(dev, 10), 10);
        assert_int_equal(device_ram_pump(dev, 10), 6);
        for (unsigned i = 0; i < 16; i++) {
            orders[s][i] = r[i].order;
            free(r[i].buffer);
        }
        device_destroy(dev);
    }
    assert_memory_equal(orders[0], orders[1], sizeof orders[0]);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(orders[2][i], i);
        sorted += orders[0][i] == i;
    }
    assert_true(sorted < 16);
}

/* Over many seeds: what was flushed stays; what was not is seen whole, torn and gone; nothing else changes.
 */
static void crash_keeps_flushed_only(void **state)
{
    (void)state;
    struct device *dev = device_ram_create(SIZE, IO, ATOM, 3);
    assert_int_equal(run(dev, DEVICE_WRITE, 0, IO, 1), 0);
    assert_int_equal(run(dev, DEVICE_FLUSH, 0, 0, 0), 0);
    assert_int_equal(run(dev, DEVICE_WRITE, 4 * IO, IO, 2), 0); /* completed, not flushed */
    struct request pending;
    request_init(&pending, DEVICE_WRITE, 8 * IO, IO, 3);
    assert_int_equal(device_submit(dev, &pending.io), 0);
    unsigned seen[2][3] = {{0}};
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct device *image = device_ram_crash_image(dev, seed);
        assert_int_equal(differing(image, 0, IO, 1), 0);
        assert_int_equal(medium_unflushed(device_ram_medium(image)), 0);
        for (unsigned i = 0; i < 2; i++) {
            uint64_t lost = differing(image, (4 + 4 * i) * IO, IO, (uint8_t)(2 + i));
            assert_int_equal(lost % ATOM, 0);
            seen[i][lost == 0 ? 0 : lost == IO ? 1 : 2]++;
        }
        assert_int_equal(differing(image, 12 * IO, SIZE - 12 * IO, 0), 0);
        device_destroy(image);
    }
    for (unsigned i = 0; i < 6; i++)
        assert_true(seen[i / 3][i % 3] > 0);
    assert_int_equal(pending.calls, 0);
    free(pending.buffer);
    device_destroy(dev);
}

static void flush_covers_only_what_was_completed_before_it(void **state)
{
    (void)state;
    struct device *dev = device_ram_create(SIZE, IO, ATOM, 0);
    struct request flush;
    request_init(&flush, DEVICE_FLUSH, 0, 0, 0);
    struct request w;
    request_init(&w, DEVICE_WRITE, 0, IO, 5);
    assert_int_equal(device_submit(dev, &w.io), 0);
    assert_int_equal(device_submit(dev, &flush.io), 0); /* the write is not completed yet */
    assert_int_equal(device_ram_pump(dev, UINT32_MAX), 2);
    assert_int_equal(medium_unflushed(device_ram_medium(dev)), 1);
    assert_int_equal(run(dev, DEVICE_FLUSH, 0, 0, 0), 0);
    assert_int_equal(medium_unflushed(device_ram_medium(dev)), 0);
    free(w.buffer);
    free(flush.buffer);
    device_destroy(dev);
}

static void stops_after_the_nth_persist(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 7; n++) {
        struct device *dev = device_ram_create(SIZE, IO, ATOM, 0);
        struct request r[6];
        device_ram_crash_after(dev, n);
        for (unsigned i = 0; i < 6; i++) {
            request_init(&r[i], i % 3 == 2 ? DEVICE_FLUSH : DEVICE_WRITE, i * IO, IO, 1);
            assert_int_equal(device_submit(dev, &r[i].io), 0);
        }
        assert_int_equal(device_ram_pump(dev, UINT32_MAX), n < 6 ? n : 6);
        assert_int_equal(device_ram_crashed(dev), n <= 6);
        assert_int_equal(device_ram_persists(dev), n < 6 ? n : 6);
        for (unsigned i = 0; i < 6; i++) {
            assert_int_equal(r[i].calls, i < n);
            free(r[i].buffer); /* the device must not look at them again */
            memset(&r[i], 0xee, sizeof r[i]);
        }
        device_destroy(device_ram_crash_image(dev, n));
        device_destroy(dev);
    }
}

static void kill_lets_completed_writes_stand(void **state)
{
    (void)state;
    unsigned landed = 0;
    for (uint64_t seed = 1; seed < 60; seed++) {
        struct device *dev = device_ram_create(SIZE, IO, ATOM, seed);
        assert_int_equal(run(dev, DEVICE_WRITE, 0, IO, 1), 0);
        struct request r;
        request_init(&r, DEVICE_WRITE, IO, IO, 2);
        assert_int_equal(device_submit(dev, &r.io), 0);
        free(r.buffer);
        device_ram_kill(dev, seed);
        assert_int_equal(device_ram_pending(dev), 0);
        assert_int_equal(differing(dev, 0, IO, 1), 0);
        landed += differing(dev, IO, IO, 2) == 0;
        assert_int_equal(run(dev, DEVICE_WRITE, 0, IO, 3), 0);
        device_destroy(dev);
    }
    assert_in_range(landed, 1, 58);
}

static void durable_writes_need_no_flush(void **state)
{
    (void)state;
    struct device *dev = device_ram_create(SIZE, 64, 8, 5);
    dev->durable_writes = true;
    assert_int_equal(run(dev, DEVICE_WRITE, 64, 128, 9), 0);
    struct device *image = device_ram_crash_image(dev, 1);
    assert_true(image->durable_writes);
    assert_int_equal(differing(image, 64, 128, 9), 0);
    device_destroy(image);
    device_destroy(dev);
}

static void faults(void **state)
{
    (void)state;
    struct device *dev = device_ram_create(SIZE, IO, ATOM, 11);
    assert_int_equal(run(dev, DEVICE_WRITE, 0, 4 * IO, 1), 0);
    device_ram_fail_range(dev, IO, IO, -EIO);
    assert_int_equal(run(dev, DEVICE_READ, 0, IO, 0), 0);
    assert_int_equal(run(dev, DEVICE_READ, 0, 2 * IO, 0), -EIO);
    assert_int_equal(run(dev, DEVICE_WRITE, IO, IO, 2), -EIO);
    assert_int_equal(run(dev, DEVICE_READ, 2 * IO, IO, 0), 0);
    device_ram_fail_range(dev, IO, IO, 0);
    assert_int_equal(run(dev, DEVICE_READ, 0, 2 * IO, 0), 0);
    device_ram_fail_nth(dev, DEVICE_FLUSH, 2, -EIO);
    assert_int_equal(run(dev, DEVICE_FLUSH, 0, 0, 0), 0);
    assert_int_equal(run(dev, DEVICE_FLUSH, 0, 0, 0), -EIO);
    assert_true(medium_unflushed(device_ram_medium(dev)) == 0); /* the first flush covered all */
    assert_int_equal(run(dev, DEVICE_FLUSH, 0, 0, 0), 0);
    assert_int_equal(run(dev, DEVICE_WRITE, 0, 4 * IO, 1), 0);
    device_ram_corrupt(dev, 512, 2 * 512, 4);
    assert_int_equal(differing(dev, 0, 512, 1), 0);
    assert_int_equal(differing(dev, 512, 512, 1), 1);
    assert_int_equal(differing(dev, 1024, 512, 1), 1);
    assert_int_equal(differing(dev, 1536, 4 * IO - 1536, 1), 0);
    uint64_t errors = dev->errors;
    struct request r;
    request_init(&r, DEVICE_READ, 0, IO, 0);
    assert_int_equal(device_submit(dev, &r.io), 0);
    device_ram_vanish(dev);
    device_ram_pump(dev, 1);
    assert_int_equal(r.rc, -ENODEV);
    assert_int_equal(device_submit(dev, &r.io), -ENODEV);
    assert_int_equal(dev->errors, errors + 1);
    free(r.buffer);
    device_destroy(dev);
}

static void full_and_restored(void **state)
{
    (void)state;
    struct device *dev = device_ram_create(SIZE, IO, ATOM, 0);
    struct medium *m = device_ram_medium(dev);
    medium_limit(m, 2 * MEDIUM_CHUNK_BYTES);
    assert_int_equal(run(dev, DEVICE_WRITE, 0, IO, 1), 0);
    assert_int_equal(run(dev, DEVICE_WRITE, 4 * MEDIUM_CHUNK_BYTES, IO, 1), 0);
    assert_int_equal(run(dev, DEVICE_WRITE, 8 * MEDIUM_CHUNK_BYTES, IO, 1), -ENOSPC);
    assert_int_equal(run(dev, DEVICE_WRITE, IO, IO, 1), 0); /* allocated already */
    assert_int_equal(run(dev, DEVICE_DISCARD, 0, MEDIUM_CHUNK_BYTES, 0), 0);
    assert_int_equal(run(dev, DEVICE_WRITE, 8 * MEDIUM_CHUNK_BYTES, IO, 7), 0);
    struct medium *old = medium_clone(m);
    assert_int_equal(run(dev, DEVICE_WRITE, 8 * MEDIUM_CHUNK_BYTES, IO, 8), 0);
    assert_int_equal(differing(dev, 8 * MEDIUM_CHUNK_BYTES, IO, 8), 0);
    medium_restore(m, old);
    assert_int_equal(differing(dev, 8 * MEDIUM_CHUNK_BYTES, IO, 7), 0);
    medium_blank(m);
    assert_int_equal(differing(dev, 0, SIZE, 0), 0);
    assert_int_equal(medium_allocated(m), 0);
    medium_destroy(old);
    device_destroy(dev);
}

static void destroying_done(struct device_io *io, int rc)
{
    struct request *r = container_of(io, struct request, io);
    r->rc = rc;
    r->calls++;
    device_destroy(io->priv);
}

static void done_may_destroy_the_device(void **state)
{
    (void)state;
    struct device *dev = device_ram_create(SIZE, IO, ATOM, 0);
    struct request r, second;
    request_init(&r, DEVICE_WRITE, 0, IO, 1);
    request_init(&second, DEVICE_WRITE, IO, IO, 1);
    r.io.done = destroying_done;
    r.io.priv = dev;
    assert_int_equal(device_submit(dev, &r.io), 0);
    assert_int_equal(device_submit(dev, &second.io), 0);
    assert_int_equal(device_ram_pump(dev, UINT32_MAX), 1);
    assert_int_equal(r.calls, 1);
    assert_int_equal(second.calls, 0);
    free(r.buffer);
    free(second.buffer);
}

static void attached_to_a_loop(void **state)
{
    (void)state;
    struct loop *loop;
    assert_int_equal(loop_create_real(NULL, &loop), 0);
    struct device *dev = device_ram_create(SIZE, IO, ATOM, 21);
    device_ram_attach(dev, loop);
    struct request r[40];
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        request_init(&r[i], DEVICE_WRITE, i * IO, IO, 1);
        assert_int_equal(device_submit(dev, &r[i].io), 0);
    }
    for (unsigned round = 0; round < 10 && device_ram_pending(dev); round++)
        loop_run_once(loop, 0);
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        assert_int_equal(r[i].calls, 1);
        free(r[i].buffer);
    }
    device_destroy(dev);
    loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_was_written),
        cmocka_unit_test(refuses_bad_requests),
        cmocka_unit_test(seed_gives_the_order),
        cmocka_unit_test(crash_keeps_flushed_only),
        cmocka_unit_test(flush_covers_only_what_was_completed_before_it),
        cmocka_unit_test(stops_after_the_nth_persist),
        cmocka_unit_test(kill_lets_completed_writes_stand),
        cmocka_unit_test(durable_writes_need_no_flush),
        cmocka_unit_test(faults),
        cmocka_unit_test(full_and_restored),
        cmocka_unit_test(done_may_destroy_the_device),
        cmocka_unit_test(attached_to_a_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
