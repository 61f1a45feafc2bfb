/* store_harness.h: a store on RAM devices, driven by hand, for the store's tests. Included by each of them.
 */
#ifndef CISTERN_TESTS_STORE_HARNESS_H
#define CISTERN_TESTS_STORE_HARNESS_H

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/crc.h"
#include "common/device/device_ram.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/rng.h"
#include "common/sim.h"
#include "services/rwm/store.h"
#include "tests/torture/slow_device.h"

struct world {
    struct slow_device slow[2]; /* what the store sees: data, journal */
    uint64_t hold;
    struct sim_world *sim; /* time stands still but for what is due: runs repeat */
    struct loop *loop;
    struct rng rng;
    struct env env;
    struct device *data, *journal; /* journal NULL: on the data device */
    struct store *s;
    struct store *opening;
    struct store_open_report report;
    int rc;
    bool done;
};

static inline void quiet_sink(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static inline void world_init(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    log_set_sink(quiet_sink, NULL);
    assert_int_equal(sim_world_create(seed, &w->sim), 0);
    assert_int_equal(loop_create_sim(w->sim, "test", 0, &w->loop), 0);
    sim_loop_set_interrupts(w->loop, 0, 1);
    rng_seed(&w->rng, seed ^ 0x776f726c64ull);
    w->env = (struct env){.loop = w->loop, .rng = &w->rng, .name = "test"};
}

static inline void world_end(struct world *w)
{
    if (w->s)
        store_destroy(w->s);
    if (w->data)
        device_destroy(w->data);
    if (w->journal)
        device_destroy(w->journal);
    loop_destroy(w->loop);
    sim_world_destroy(w->sim);
}

/* One round and some device requests; false when nothing is left to happen. */
static inline bool world_step(struct world *w)
{
    unsigned n = 0;
    /* What is due now; timers of milliseconds wait for world_pass. */
    if (sim_world_next_ns(w->sim) <= sim_world_now(w->sim) + 100 * NS_PER_US)
        n += sim_world_step(w->sim);
    for (unsigned i = 0; i < 2; i++) {
        if (w->slow[i].inner && !list_empty(&w->slow[i].held)) {
            slow_release(&w->slow[i], 100);
            n++;
        }
    }
    n += device_ram_pump(w->data, 1 + (unsigned)rng_below(&w->rng, 4));
    if (w->journal)
        n += device_ram_pump(w->journal, 1 + (unsigned)rng_below(&w->rng, 4));
    return n != 0;
}

static inline bool world_crashed(const struct world *w)
{
    return device_ram_crashed(w->data) || (w->journal && device_ram_crashed(w->journal));
}

/* Until *flag, or a crash, or nothing moves any more. */
static inline bool world_run(struct world *w, const bool *flag)
{
    for (unsigned idle = 0; idle < 3 && !*flag && !world_crashed(w);)
        idle = world_step(w) ? 0 : idle + 1;
    return *flag;
}

static inline void world_drain(struct world *w)
{
    bool never = false;
    world_run(w, &never);
}

/* Lets time pass. */
static inline void world_pass(struct world *w, uint64_t ns)
{
    for (uint64_t end = sim_world_now(w->sim) + ns; sim_world_now(w->sim) < end;) {
        sim_world_run_until(w->sim, min_u64(end, sim_world_now(w->sim) + NS_PER_MS));
        world_drain(w);
    }
}

/* The devices as the store shall see them, anew after each change of them. */
static inline void world_front(struct world *w)
{
    slow_init(&w->slow[0], w->data, rng_u64(&w->rng), w->hold);
    if (w->journal)
        slow_init(&w->slow[1], w->journal, rng_u64(&w->rng), w->hold);
}

static inline struct device *world_journal(struct world *w)
{
    return w->journal ? &w->slow[1].dev : NULL;
}

static inline void on_done(void *arg, int rc)
{
    struct world *w = arg;
    w->done = true;
    w->rc = rc;
}

static inline void on_open(void *arg, struct store *s, const struct store_open_report *report)
{
    struct world *w = arg;
    w->done = true;
    w->s = s;
    w->opening = NULL;
    w->report = *report;
    assert_int_equal(s == NULL, report->rc != 0);
}

static inline int world_format(struct world *w, const struct store_format_options *o)
{
    w->done = false;
    world_front(w);
    store_format(&w->env, &w->slow[0].dev, world_journal(w), o, on_done, w);
    assert_true(world_run(w, &w->done));
    return w->rc;
}

/* -ECANCELED when a crash came first. */
static inline int world_open(struct world *w, const struct store_options *o)
{
    w->done = false;
    w->s = NULL;
    world_front(w);
    w->opening = store_open(&w->env, &w->slow[0].dev, world_journal(w), o, on_open, w);
    if (!world_run(w, &w->done)) {
        assert_true(world_crashed(w));
        store_destroy(w->opening);
        w->opening = NULL;
        return -ECANCELED;
    }
    return w->report.rc;
}

static inline int world_close(struct world *w)
{
    w->done = false;
    store_close(w->s, on_done, w);
    assert_true(world_run(w, &w->done));
    store_destroy(w->s);
    w->s = NULL;
    return w->rc;
}

static inline const struct store_format_options *small_format(void)
{
    static const struct store_format_options o = {
        .journal_bytes = MIB, .max_partitions = 100, .max_volumes = 40, .max_turns = 70};
    return &o;
}

/* A request with its memory. */
struct request {
    struct store_op op;
    struct iovec iov[2];
    uint32_t crcs[UNITS_PER_BLOCK];
    uint8_t *data;
    size_t bytes;
    int rc;
    bool done, submitted;
};

static inline void request_done(struct store_op *op, int rc)
{
    struct request *q = container_of(op, struct request, op);
    assert_true(q->submitted && !q->done);
    q->done = true;
    q->rc = rc;
}

/* What every unit is filled with: it says whose it is, so that anything foreign shows. */
static inline void fill_unit(uint8_t *at, uint64_t block, uint32_t unit, uint64_t version)
{
    uint64_t *words = (uint64_t *)(void *)at;
    for (size_t i = 0; i < UNIT_BYTES / 8; i++)
        words[i] = (block << 40) ^ ((uint64_t)unit << 32) ^ (version << 8) ^ (i * 0x9e3779b97f4a7c15ull);
}

static inline struct store_key key_of(uint64_t block)
{
    return (struct store_key){.layer = 7, .block = block, .hash = block * 0x100000001b3ull >> 3};
}

static inline void request_init(struct request *q, uint64_t block, uint32_t first, uint32_t count,
                                uint64_t version)
{
    memset(q, 0, sizeof *q);
    q->bytes = (size_t)count * UNIT_BYTES;
    q->data = aligned_alloc(UNIT_BYTES, q->bytes);
    assert_non_null(q->data);
    for (uint32_t i = 0; i < count; i++) {
        fill_unit(q->data + (size_t)i * UNIT_BYTES, block, first + i, version);
        q->crcs[i] = crc32c(q->data + (size_t)i * UNIT_BYTES, UNIT_BYTES);
    }
    uint32_t half = count / 2;
    q->iov[0] = (struct iovec){.iov_base = q->data, .iov_len = (size_t)(half ? half : count) * UNIT_BYTES};
    q->iov[1] = (struct iovec){.iov_base = q->data + (size_t)half * UNIT_BYTES,
                               .iov_len = (size_t)(count - half) * UNIT_BYTES};
    q->op = (struct store_op){.key = key_of(block),
                              .first_unit = first,
                              .unit_count = count,
                              .version = {1, version},
                              .iov = q->iov,
                              .iovcnt = half ? 2 : 1,
                              .unit_crcs = q->crcs,
                              .done = request_done};
}

static inline void request_free(struct request *q)
{
    free(q->data);
    q->data = NULL;
}

enum request_kind { DO_WRITE, DO_CLEAR, DO_READ, DO_STAT, DO_REMOVE, DO_PROBE };

static inline int request_submit(struct store *s, struct request *q, enum request_kind kind)
{
    static int (*const fns[])(struct store *, struct store_op *) = {store_write, store_clear,  store_read,
                                                                    store_stat,  store_remove, store_probe};
    q->submitted = true;
    if (kind == DO_READ)
        memset(q->data, 0xee, q->bytes);
    int rc = fns[kind](s, &q->op);
    q->submitted = rc == 0;
    return rc;
}

/* Submits and waits. */
static inline int do_request(struct world *w, struct request *q, enum request_kind kind)
{
    int rc = request_submit(w->s, q, kind);
    if (rc)
        return rc;
    assert_false(q->done);
    assert_true(world_run(w, &q->done));
    return q->rc;
}

static inline int do_write(struct world *w, uint64_t block, uint32_t first, uint32_t count, uint64_t version)
{
    struct request q;
    request_init(&q, block, first, count, version);
    int rc = do_request(w, &q, DO_WRITE);
    request_free(&q);
    return rc;
}

static inline int do_clear(struct world *w, uint64_t block, uint32_t first, uint32_t count, uint64_t version)
{
    struct request q;
    request_init(&q, block, first, count, version);
    int rc = do_request(w, &q, DO_CLEAR);
    request_free(&q);
    return rc;
}

static inline int do_remove(struct world *w, uint64_t block)
{
    struct request q;
    request_init(&q, block, 0, 1, 1);
    int rc = do_request(w, &q, DO_REMOVE);
    request_free(&q);
    return rc;
}

/* Is unit i of what was read the one of that version (0: zeroes)? */
static inline bool unit_is(const uint8_t *at, uint64_t block, uint32_t unit, uint64_t version)
{
    static _Alignas(8) uint8_t want[UNIT_BYTES];
    if (version)
        fill_unit(want, block, unit, version);
    else
        memset(want, 0, sizeof want);
    return memcmp(at, want, UNIT_BYTES) == 0;
}

/* Reads a range and asserts that each unit is of its version (versions[i], 0 = hole), and the block's
 * version. */
static inline void check_read(struct world *w, uint64_t block, uint32_t first, uint32_t count,
                              const uint64_t *versions, uint64_t version)
{
    struct request q;
    request_init(&q, block, first, count, 0);
    assert_int_equal(do_request(w, &q, DO_READ), 0);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(unit_is(q.data + (size_t)i * UNIT_BYTES, block, first + i, versions[i]));
        assert_int_equal((q.op.written >> (first + i)) & 1, versions[i] != 0);
    }
    assert_int_equal(q.op.found.counter, version);
    request_free(&q);
}

static inline void check_unit(struct world *w, uint64_t block, uint32_t unit, uint64_t content,
                              uint64_t version)
{
    check_read(w, block, unit, 1, &content, version);
}

#endif
