/* The block store's functions, without crashes: each on the journal of the data device and on a pmem beside
 * it. */
#include "tests/unit/store_harness.h"

static void make(struct world *w, uint64_t seed, uint64_t size, bool pmem, const struct store_options *o)
{
    world_init(w, seed);
    w->data = device_ram_create(size, 4096, 512, seed);
    if (pmem) {
        w->journal = device_ram_create(MIB + 65536, 64, 8, seed);
        w->journal->durable_writes = true;
    }
    assert_int_equal(world_format(w, small_format()), 0);
    assert_int_equal(world_open(w, o), 0);
}

static void reopen(struct world *w, const struct store_options *o)
{
    assert_int_equal(world_close(w), 0);
    assert_int_equal(world_open(w, o), 0);
    assert_int_equal(w->report.replayed_records, 0);
    assert_false(w->report.damaged);
}

static void basic(bool pmem)
{
    struct world w;
    make(&w, 3, 32 * MIB, pmem, NULL);
    assert_int_equal(store_identity(w.s)->start_counter, 1);
    check_unit(&w, 5, 3, 0, 0);
    assert_int_equal(do_write(&w, 5, 3, 1, 1), 0); /* first write */
    check_unit(&w, 5, 3, 1, 1);
    check_unit(&w, 5, 4, 0, 1);
    assert_int_equal(do_write(&w, 5, 3, 1, 2), 0); /* overwrite */
    check_unit(&w, 5, 3, 2, 2);
    assert_int_equal(do_write(&w, 5, 0, 8, 3), 0); /* half new, half old */
    check_unit(&w, 5, 3, 3, 3);
    assert_int_equal(do_write(&w, 5, 0, 32, 4), 0); /* whole */
    assert_int_equal(do_write(&w, 5, 31, 1, 5), 0);
    assert_int_equal(do_clear(&w, 5, 8, 8, 6), 0);
    uint64_t want[32];
    for (unsigned i = 0; i < 32; i++)
        want[i] = i == 31 ? 5 : i >= 8 && i < 16 ? 0 : 4;
    check_read(&w, 5, 0, 32, want, 6);
    reopen(&w, NULL);
    assert_int_equal(store_identity(w.s)->start_counter, 2);
    check_read(&w, 5, 0, 32, want, 6);
    assert_int_equal(do_write(&w, 5, 10, 1, 7), 0); /* into the hole */
    want[10] = 7;
    check_read(&w, 5, 0, 32, want, 7);
    assert_int_equal(do_clear(&w, 5, 0, 32, 8), 0);
    memset(want, 0, sizeof want);
    check_read(&w, 5, 0, 32, want, 8);
    struct store_stats st;
    store_stats_get(w.s, &st);
    assert_int_equal(st.used_bytes, 0);
    assert_int_equal(st.blocks, 1);
    assert_int_equal(do_write(&w, 5, 1, 2, 9), 0);
    want[1] = want[2] = 9;
    check_read(&w, 5, 0, 32, want, 9);
    assert_int_equal(do_remove(&w, 5), 0);
    check_unit(&w, 5, 1, 0, 0);
    reopen(&w, NULL);
    check_unit(&w, 5, 1, 0, 0);
    assert_int_equal(do_remove(&w, 5), 0); /* absent already */
    world_end(&w);
}

static void test_basic(void **state)
{
    (void)state;
    basic(false);
    basic(true);
}

/* The journal goes round many times while the cache holds a part of the metadata. */
static void test_wrap_small_cache(void **state)
{
    (void)state;
    struct world w;
    const struct store_options o = {.cache_bytes = 1, .requests_max = 4};
    make(&w, 11, 160 * MIB, false, &o);
    uint64_t have[1000] = {0};
    for (uint64_t v = 1; v <= 3000; v++) {
        uint64_t block = rng_below(&w.rng, 1000);
        assert_int_equal(do_write(&w, block, 7, 1, v), 0);
        have[block] = v;
    }
    struct store_stats st;
    store_stats_get(w.s, &st);
    assert_true(st.checkpoints > 5);
    assert_true(st.cache_misses > 10);
    assert_true(st.journal_used_bytes <= st.journal_bytes);
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t b = 0; b < 1000; b++)
            check_unit(&w, b, 7, have[b], have[b]);
        if (round == 0)
            reopen(&w, &o);
    }
    world_end(&w);
}

static void space(bool pmem)
{
    struct world w;
    make(&w, 5, 5 * MIB, pmem, NULL);
    struct store_stats st;
    store_stats_get(w.s, &st);
    uint64_t slots = st.capacity_bytes / BLOCK_BYTES;
    for (uint64_t b = 0; b < slots; b++)
        assert_int_equal(do_write(&w, b, 0, 1, 1), 0);
    struct request q;
    request_init(&q, slots, 0, 1, 1);
    assert_int_equal(request_submit(w.s, &q, DO_WRITE), -ENOSPC);
    request_free(&q);
    assert_int_equal(do_write(&w, 0, 0, 1, 2), 0);  /* there is a place for it */
    assert_int_equal(do_write(&w, 0, 0, 32, 3), 0); /* no second slot: through the journal */
    uint64_t want[32];
    for (unsigned i = 0; i < 32; i++)
        want[i] = 3;
    check_read(&w, 0, 0, 32, want, 3);
    assert_int_equal(do_clear(&w, 1, 0, 32, 4), 0); /* gives its slot back */
    assert_int_equal(do_write(&w, slots, 0, 1, 1), 0);
    assert_int_equal(do_clear(&w, slots + 1, 0, 32, 9), 0); /* a hole where nothing was */
    check_unit(&w, slots + 1, 0, 0, 9);
    assert_int_equal(do_write(&w, slots + 2, 0, 1, 1), -ENOSPC);
    assert_int_equal(do_remove(&w, 2), 0);
    assert_int_equal(do_write(&w, slots + 2, 5, 1, 1), 0);
    reopen(&w, NULL);
    check_unit(&w, slots + 2, 5, 1, 1);
    check_unit(&w, slots + 1, 0, 0, 9);
    check_read(&w, 0, 0, 32, want, 3);
    world_end(&w);
}

/* A clear that may forget needs no space, however many blocks it is told to clear, and leaves nothing behind.
 */
static void test_forget(void **state)
{
    (void)state;
    struct world w;
    make(&w, 6, 5 * MIB, false, NULL);
    struct store_stats st;
    store_stats_get(w.s, &st);
    uint64_t slots = st.capacity_bytes / BLOCK_BYTES;
    for (uint64_t b = 0; b < slots; b++)
        assert_int_equal(do_write(&w, b, 0, 2, 1), 0);
    struct request q;
    for (uint64_t b = 0; b < 4 * slots; b++) {
        request_init(&q, b, 0, 1 + (uint32_t)(b % 32), 2);
        q.op.forget = true;
        assert_int_equal(do_request(&w, &q, DO_CLEAR), 0);
        request_free(&q);
    }
    check_unit(&w, 0, 1, 1, 2); /* its second unit stayed */
    check_unit(&w, 1, 0, 0, 0); /* forgotten */
    check_unit(&w, 3 * slots, 0, 0, 0);
    reopen(&w, NULL);
    check_unit(&w, 0, 1, 1, 2);
    check_unit(&w, 1, 0, 0, 0);
    store_stats_get(w.s, &st);
    assert_int_equal(st.blocks, (slots + 31) / 32);
    assert_int_equal(do_write(&w, 1, 0, 1, 3), 0);
    check_unit(&w, 1, 0, 3, 3);
    world_end(&w);
}

/* What memory alone would answer, on a LUN that another agent may have by now: it is asked of the LUN. */
static void test_taken_lun(void **state)
{
    static const enum request_kind kinds[] = {DO_READ, DO_STAT, DO_CLEAR, DO_PROBE};
    (void)state;
    struct world w;
    struct request q, next;
    make(&w, 6, 5 * MIB, false, NULL);
    for (int fence = DEVICE_FENCE_NONE; fence <= DEVICE_FENCE_LOST; fence++) {
        const bool asks = fence != DEVICE_FENCE_NONE;
        w.slow[0].dev.fence_state = (enum device_fence_state)fence;
        for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
            for (unsigned taken = 0; taken < 2; taken++) {
                request_init(&q, 1, 0, 32, 2);
                q.op.forget = true;
                device_ram_fail_nth(w.data, DEVICE_READ, 1, taken ? -EIO : 0);
                assert_int_equal(do_request(&w, &q, kinds[i]), asks && taken ? -EIO : 0);
                device_ram_fail_nth(w.data, DEVICE_READ, 1, 0);
                request_free(&q);
            }
        }
    }
    /* A write behind a clear that is being asked for is not held up, and stays. */
    request_init(&q, 1, 0, 32, 3);
    q.op.forget = true;
    request_init(&next, 1, 4, 2, 4);
    assert_int_equal(request_submit(w.s, &q, DO_CLEAR), 0);
    assert_int_equal(do_request(&w, &next, DO_WRITE), 0);
    assert_true(world_run(&w, &q.done));
    assert_int_equal(q.rc, 0);
    request_free(&q);
    request_free(&next);
    check_unit(&w, 1, 4, 4, 4);
    reopen(&w, NULL);
    check_unit(&w, 1, 4, 4, 4);
    world_end(&w);
}

static void test_space(void **state)
{
    (void)state;
    space(false);
    space(true);
}

struct waiting {
    struct store_waiter waiter;
    bool told;
};

static void told(struct store_waiter *w)
{
    container_of(w, struct waiting, waiter)->told = true;
}

static void test_again_and_waiters(void **state)
{
    (void)state;
    struct world w;
    const struct store_options o = {.requests_max = 2};
    make(&w, 6, 16 * MIB, false, &o);
    struct request q[3];
    for (unsigned i = 0; i < 3; i++)
        request_init(&q[i], i, 0, 1, 1);
    assert_int_equal(request_submit(w.s, &q[0], DO_WRITE), 0);
    assert_int_equal(request_submit(w.s, &q[1], DO_WRITE), 0);
    assert_int_equal(request_submit(w.s, &q[2], DO_WRITE), -EAGAIN);
    assert_false(store_is_idle(w.s));
    struct waiting a = {.waiter.fn = told}, b = {.waiter.fn = told};
    store_wait(w.s, &a.waiter);
    store_wait(w.s, &b.waiter);
    store_wait_cancel(w.s, &b.waiter);
    assert_false(a.told);
    assert_true(world_run(&w, &a.told));
    assert_false(b.told);
    assert_int_equal(request_submit(w.s, &q[2], DO_WRITE), 0);
    assert_true(world_run(&w, &q[2].done));
    world_drain(&w);
    assert_true(store_is_idle(w.s));
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(q[i].rc, 0);
        request_free(&q[i]);
    }
    world_end(&w);
}

static void test_bad_requests(void **state)
{
    (void)state;
    struct world w;
    make(&w, 7, 16 * MIB, false, NULL);
    struct request q;
    request_init(&q, 1, 0, 4, 1);
    q.op.first_unit = 30;
    assert_int_equal(request_submit(w.s, &q, DO_WRITE), -EINVAL);
    q.op.first_unit = 0;
    q.op.unit_count = 5;
    assert_int_equal(request_submit(w.s, &q, DO_WRITE), -EINVAL);
    q.op.unit_count = 4;
    q.crcs[3] ^= 1;
    assert_int_equal(request_submit(w.s, &q, DO_WRITE), -EINVAL);
    request_free(&q);
    world_end(&w);
}

struct record_wait {
    struct store_record_op op;
    bool done;
    int rc;
};

static void record_done(struct store_record_op *op, int rc)
{
    struct record_wait *r = container_of(op, struct record_wait, op);
    r->done = true;
    r->rc = rc;
}

static void test_records(void **state)
{
    (void)state;
    struct world w;
    make(&w, 8, 16 * MIB, true, NULL);
    assert_int_equal(store_record_capacity(w.s, STORE_VOLUME), 40);
    assert_null(store_record_get(w.s, STORE_VOLUME, 40));
    struct store_volume_record v = {.id.b = {1, 2, 3}, .family = 9, .size_bytes = 77};
    struct store_turn_record turn = {.volume.b = {4}, .host = 5, .turn = 6};
    struct record_wait r = {.op.done = record_done};
    assert_int_equal(store_record_set(w.s, NULL, STORE_VOLUME, 40, &v), -ERANGE);
    assert_int_equal(store_record_set(w.s, NULL, STORE_VOLUME, 39, &v), 0);
    assert_int_equal(store_record_set(w.s, &r.op, STORE_TURN, 69, &turn), 0);
    assert_memory_equal(store_record_get(w.s, STORE_VOLUME, 39), &v, sizeof v); /* at once */
    assert_false(r.done);
    assert_true(world_run(&w, &r.done));
    assert_int_equal(r.rc, 0);
    reopen(&w, NULL);
    assert_memory_equal(store_record_get(w.s, STORE_VOLUME, 39), &v, sizeof v);
    assert_memory_equal(store_record_get(w.s, STORE_TURN, 69), &turn, sizeof turn);
    world_end(&w);
}

static int identify(struct world *w, uint8_t cluster, uint32_t module, uint32_t bits)
{
    struct uuid c = {.b = {cluster}};
    w->done = false;
    int rc = store_set_identity(w->s, &c, module, bits, on_done, w);
    if (rc)
        return rc;
    assert_true(world_run(w, &w->done));
    return w->rc;
}

static void test_identity(void **state)
{
    (void)state;
    struct world w;
    make(&w, 9, 16 * MIB, true, NULL);
    struct uuid uuid = store_identity(w.s)->store;
    assert_int_equal(identify(&w, 1, 4, 0), 0);
    assert_int_equal(identify(&w, 2, 4, 0), -EPERM);
    assert_int_equal(identify(&w, 1, 5, 0), -EPERM);
    for (uint64_t b = 0; b < 50; b++)
        assert_int_equal(do_write(&w, b, 0, 1, 1), 0);
    assert_int_equal(identify(&w, 1, 4, 3), 0);
    for (unsigned round = 0; round < 2; round++) {
        unsigned seen[50] = {0};
        for (uint32_t p = 0; p < 8; p++) {
            uint64_t cursor = 0;
            do {
                struct store_key keys[4];
                unsigned n = store_list(w.s, p, &cursor, keys, 4);
                for (unsigned i = 0; i < n; i++) {
                    assert_int_equal(keys[i].hash & 7, p);
                    seen[keys[i].block]++;
                    if (round) /* removal of what was just listed must not lose the place */
                        assert_int_equal(do_remove(&w, keys[i].block), 0);
                }
            } while (cursor);
        }
        for (unsigned b = 0; b < 50; b++)
            assert_int_equal(seen[b], 1);
        if (round == 0)
            reopen(&w, NULL);
        assert_int_equal(store_identity(w.s)->partition_bits, 3);
        assert_int_equal(store_identity(w.s)->module, 4);
        assert_true(uuid_eq(&store_identity(w.s)->store, &uuid));
    }
    uint64_t cursor = 0;
    struct store_key key;
    assert_int_equal(store_list(w.s, 2, &cursor, &key, 1), 0);
    world_end(&w);
}

static void test_format_refuses(void **state)
{
    (void)state;
    struct world w;
    make(&w, 10, 16 * MIB, false, NULL);
    assert_int_equal(world_close(&w), 0);
    assert_int_equal(world_format(&w, small_format()), -EEXIST);
    struct store_format_options o = *small_format();
    o.force = true;
    assert_int_equal(world_format(&w, &o), 0);
    assert_int_equal(world_open(&w, NULL), 0);
    assert_int_equal(store_identity(w.s)->start_counter, 1);
    world_end(&w);
    world_init(&w, 1);
    w.data = device_ram_create(MIB, 4096, 512, 1);
    assert_int_equal(world_format(&w, small_format()), -ENOSPC);
    world_end(&w);
}

struct plain_io {
    struct device_io io;
    bool done;
};

static void plain_done(struct device_io *io, int rc)
{
    assert_int_equal(rc, 0);
    container_of(io, struct plain_io, io)->done = true;
}

static void plain_rw(struct world *w, enum device_op op, uint64_t offset, void *buf, size_t bytes)
{
    struct iovec iov = {.iov_base = buf, .iov_len = bytes};
    struct plain_io p = {
        .io = {.op = op, .offset = offset, .length = bytes, .iov = &iov, .iovcnt = 1, .done = plain_done}};
    assert_int_equal(device_submit(w->data, &p.io), 0);
    device_ram_pump(w->data, UINT_MAX);
    assert_true(p.done);
}

/* Where a first write is slow every byte of the ring is written before it is needed, and not one beside it;
 * elsewhere none is. */
static void test_format_fills_journal(void **state)
{
    (void)state;
    const size_t journal = 2 * MIB + 12288, head = 65536;
    uint8_t *buf = aligned_alloc(4096, head + 4 * MIB);
    const struct store_format_options o = {
        .journal_bytes = journal, .max_partitions = 64, .max_volumes = 64, .max_turns = 64, .force = true};
    for (unsigned slow = 0; slow < 2; slow++) {
        struct world w;
        world_init(&w, 3 + slow);
        w.data = device_ram_create(16 * MIB, 4096, 512, 1);
        w.data->first_write_slow = slow;
        memset(buf, 0xee, head + 4 * MIB);
        plain_rw(&w, DEVICE_WRITE, 0, buf, head + 4 * MIB);
        assert_int_equal(world_format(&w, &o), 0);
        plain_rw(&w, DEVICE_READ, 0, buf, head + 4 * MIB);
        size_t zero = 0;
        for (size_t i = 0; i < journal; i++)
            zero += buf[head + i] == 0;
        assert_int_equal(zero, slow ? journal : 0);
        assert_int_equal(buf[head + 4 * MIB - 1], 0xee);
        assert_int_equal(world_open(&w, NULL), 0);
        world_end(&w);
    }
    free(buf);
}

static void test_read_only(void **state)
{
    (void)state;
    struct world w;
    const struct store_options ro = {.read_only = true};
    make(&w, 12, 16 * MIB, false, NULL);
    for (uint64_t v = 1; v < 40; v++)
        assert_int_equal(do_write(&w, v % 5, 3, 2, v), 0);
    store_destroy(w.s);
    w.s = NULL;
    device_ram_kill(w.data, 1);
    uint64_t before = device_ram_persists(w.data);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(world_open(&w, &ro), 0);
        assert_true(w.report.replayed_records > 0);
        check_unit(&w, 4, 3, 39, 39);
        assert_int_equal(do_write(&w, 1, 0, 1, 99), -EROFS);
        assert_int_equal(world_close(&w), 0);
    }
    assert_int_equal(device_ram_persists(w.data), before);
    world_end(&w);
}

/* Destroyed after every number of steps of its life, opening included: the sanitizers say whether something
 * was left. */
/* What was freed goes back to a thin device, at once or after the next open, and can be used again. */
static void test_trim(void **state)
{
    (void)state;
    for (unsigned reopened = 0; reopened < 2; reopened++) {
        struct world w;
        make(&w, 5, 16 * MIB, false, NULL);
        struct medium *m = device_ram_medium(w.data);
        uint64_t empty = medium_allocated(m);
        for (uint64_t b = 0; b < 60; b++)
            assert_int_equal(do_write(&w, b, 0, 32, b + 1), 0);
        uint64_t full = medium_allocated(m);
        assert_true(full >= empty + 60 * BLOCK_BYTES);
        for (uint64_t b = 1; b < 60; b++)
            assert_int_equal(do_remove(&w, b), 0);
        if (reopened)
            reopen(&w, NULL);
        struct store_stats st;
        /* the medium leaves out some discards, as devices do: most of the space is back */
        world_pass(&w, 30 * NS_PER_S);
        assert_true(medium_allocated(m) < empty + 40 * BLOCK_BYTES);
        store_stats_get(w.s, &st);
        assert_int_equal(st.used_bytes, BLOCK_BYTES);
        for (unsigned u = 0; u < 32; u++)
            check_unit(&w, 0, u, 1, 1);
        for (uint64_t b = 1; b < 60; b++)
            assert_int_equal(do_write(&w, b, 0, 32, b + 100), 0);
        world_pass(&w, 30 * NS_PER_S);
        for (uint64_t b = 1; b < 60; b++)
            check_unit(&w, b, 31, b + 100, b + 100);
        world_end(&w);
    }
}

static void test_destroy_anywhere(void **state)
{
    (void)state;
    for (unsigned steps = 0; steps < 120; steps++) {
        struct world w;
        world_init(&w, steps);
        w.data = device_ram_create(8 * MIB, 4096, 512, steps);
        assert_int_equal(world_format(&w, small_format()), 0);
        w.opening = store_open(&w.env, w.data, NULL, NULL, on_open, &w);
        w.done = false;
        struct request q[6];
        memset(q, 0, sizeof q);
        for (unsigned i = 0, at = 0; i < steps; i++) {
            if (w.s && at < 6) {
                request_init(&q[at], at % 3, 0, at % 2 ? 32 : 3, at + 1);
                assert_int_equal(request_submit(w.s, &q[at], at == 4 ? DO_READ : DO_WRITE), 0);
                at++;
            }
            if (w.s && at == 6 && i == steps - 8)
                store_close(w.s, on_done, &w);
            world_step(&w);
        }
        device_ram_kill(w.data, 1);
        store_destroy(w.s ? w.s : w.opening);
        w.s = NULL;
        for (unsigned i = 0; i < 6; i++)
            request_free(&q[i]);
        world_end(&w);
    }
}

struct destroyer {
    struct request q;
    struct world *w;
};

static void destroy_inside(struct store_op *op, int rc)
{
    struct request *q = container_of(op, struct request, op);
    struct destroyer *d = container_of(q, struct destroyer, q);
    assert_int_equal(rc, 0);
    q->done = true;
    device_ram_kill(d->w->data, 1);
    store_destroy(d->w->s);
    d->w->s = NULL;
}

static void test_destroy_in_callback(void **state)
{
    (void)state;
    struct world w;
    make(&w, 14, 16 * MIB, false, NULL);
    struct destroyer d = {.w = &w};
    struct request other;
    request_init(&d.q, 1, 0, 1, 1);
    request_init(&other, 2, 0, 1, 1);
    d.q.op.done = destroy_inside;
    assert_int_equal(request_submit(w.s, &d.q, DO_WRITE), 0);
    assert_int_equal(request_submit(w.s, &other, DO_WRITE), 0);
    assert_true(world_run(&w, &d.q.done));
    world_drain(&w);
    assert_false(other.done);
    request_free(&d.q);
    request_free(&other);
    world_end(&w);
}

/* What a request costs at depth one. */
static void test_costs(void **state)
{
    (void)state;
    struct world w;
    make(&w, 0, 16 * MIB, false, NULL);
    world_drain(&w);
    uint64_t writes = w.slow[0].inner->writes, flushes = w.data->flushes, reads = w.data->reads;
    assert_int_equal(do_write(&w, 1, 0, 1, 1), 0); /* data, batch, flush */
    assert_int_equal(w.data->writes - writes, 2);
    assert_int_equal(w.data->flushes - flushes, 1);
    assert_int_equal(do_write(&w, 1, 0, 1, 2), 0); /* batch, flush */
    assert_int_equal(w.data->writes - writes, 3);
    assert_int_equal(w.data->flushes - flushes, 2);
    assert_int_equal(do_write(&w, 1, 0, 32, 3), 0); /* to a new slot */
    assert_int_equal(w.data->writes - writes, 5);
    assert_int_equal(w.data->flushes - flushes, 3);
    assert_int_equal(w.data->reads, reads);
    check_unit(&w, 1, 0, 3, 3);
    assert_int_equal(w.data->reads - reads, 1);
    world_end(&w);
}

/* Bytes to the medium for bytes of the client, in hundredths, at depth one, write-back included. */
static uint64_t amplification(bool again, bool random, uint32_t units)
{
    enum { N = 400 };
    struct world w;
    uint64_t version = 0;
    world_init(&w, 9);
    w.data = device_ram_create(256 * MIB, 512, 512, 0);
    struct store_format_options o = {
        .journal_bytes = 16 * MIB, .max_partitions = 63, .max_volumes = 31, .max_turns = 63};
    assert_int_equal(world_format(&w, &o), 0);
    assert_int_equal(world_open(&w, NULL), 0);
    for (uint64_t b = 0; b < N && again; b++)
        assert_int_equal(do_write(&w, b, 0, units, ++version), 0);
    assert_int_equal(world_close(&w), 0);
    assert_int_equal(world_open(&w, NULL), 0);
    uint64_t before = w.data->write_bytes;
    for (uint64_t b = 0; b < N; b++)
        assert_int_equal(do_write(&w, random ? b * 149 % N : b, 0, units, ++version), 0);
    assert_int_equal(world_close(&w), 0);
    uint64_t bytes = w.data->write_bytes - before;
    world_end(&w);
    return bytes * 100 / ((uint64_t)N * units * UNIT_BYTES);
}

/* What docs/disk-format.md says of bytes written and of memory. */
static void test_amplification(void **state)
{
    (void)state;
    uint64_t first = amplification(false, false, 1), over = amplification(true, false, 1),
             scattered = amplification(true, true, 1), whole = amplification(true, false, 32);
    printf("4 KiB first x%lu.%02lu, again x%lu.%02lu, scattered x%lu.%02lu; 128 KiB x%lu.%02lu\n",
           first / 100, first % 100, over / 100, over % 100, scattered / 100, scattered % 100, whole / 100,
           whole % 100);
    assert_in_range(first, 100, 130);
    assert_in_range(over, 200, 230);
    assert_in_range(scattered, 200, 410);
    assert_in_range(whole, 100, 113);
    struct world w;
    struct store_stats st;
    make(&w, 0, 16 * GIB, false, NULL);
    store_stats_get(w.s, &st);
    uint64_t slots = st.capacity_bytes / BLOCK_BYTES, records = 8 * 4096;
    printf("%lu.%lu bytes resident a block\n", (st.resident_bytes - records) / slots,
           (st.resident_bytes - records) * 10 / slots % 10);
    assert_in_range(st.resident_bytes - records, 40 * slots, 64 * slots);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_basic),
        cmocka_unit_test(test_wrap_small_cache),
        cmocka_unit_test(test_space),
        cmocka_unit_test(test_forget),
        cmocka_unit_test(test_taken_lun),
        cmocka_unit_test(test_again_and_waiters),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_format_refuses),
        cmocka_unit_test(test_format_fills_journal),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_trim),
        cmocka_unit_test(test_destroy_anywhere),
        cmocka_unit_test(test_destroy_in_callback),
        cmocka_unit_test(test_costs),
        cmocka_unit_test(test_amplification),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
