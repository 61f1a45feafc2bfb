/*
 * The torture of the block store: a random workload against a model; the power goes after the n-th persist; a
 * seeded part of what was not flushed is torn, dropped or reordered; the store is opened again and must hold
 * everything that was acknowledged, the rest old or new but whole, and nothing else. The workload then goes
 * on over what was left, and the power goes again: several generations a seed, crashes during recovery
 * included.
 *
 *     test_store_crash [seeds [first seed]]      or CISTERN_SEEDS, CISTERN_SEED
 */
#include "tests/unit/store_harness.h"

enum { BLOCKS = 24, RECORDS = 12, REQUESTS = 24, GENERATIONS = 6, HISTORY = 64 };

/* One state that a block had or may have. */
struct image {
    bool present;
    uint64_t version;
    uint64_t units[UNITS_PER_BLOCK]; /* content's version, 0 = hole */
};
/* What the store promised of one block: the last acknowledged image, and those of later requests in order. */
struct block {
    struct image images[HISTORY];
    unsigned count; /* images[0] is acknowledged, the others are not (yet) */
};
struct record_model {
    uint64_t values[HISTORY];
    unsigned count;
};
struct pending {
    struct request q;
    enum request_kind kind;
    bool busy, record;
    unsigned block;
    uint64_t seen; /* reads: version acknowledged when it was submitted */
    struct store_record_op record_op;
    unsigned record_index;
    uint64_t order; /* of submission */
    struct torture *t;
};
struct torture {
    struct world w;
    struct rng rng;
    struct block blocks[BLOCKS];
    struct record_model records[RECORDS];
    struct pending pending[REQUESTS];
    uint64_t next_version, submitted, acknowledged, reads, crashes;
    unsigned live;
    bool pmem, down, narrow;
    uint64_t seed;
};

#define CHECK(t, cond, ...)                                                                                  \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            printf("seed %lu: %s: ", (unsigned long)(t)->seed, #cond);                                       \
            printf(__VA_ARGS__);                                                                             \
            printf("\n");                                                                                    \
            fflush(stdout);                                                                                  \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static struct image *latest(struct block *b)
{
    return &b->images[b->count - 1];
}

/* The request that led to images[i] is done: what came before can not return. */
static void settle(struct torture *t, struct block *b, uint64_t version)
{
    for (unsigned i = 1; i < b->count; i++) {
        if (b->images[i].version != version)
            continue;
        CHECK(t, i == 1, "done out of order: version %lu", (unsigned long)version);
        memmove(&b->images[0], &b->images[i], (b->count - i) * sizeof b->images[0]);
        b->count -= i;
        return;
    }
    CHECK(t, false, "unknown version %lu", (unsigned long)version);
}

static bool unit_versions_match(const struct request *q, unsigned block, const struct image *im)
{
    if ((q->op.found.counter != 0) != im->present || (im->present && q->op.found.counter != im->version))
        return false;
    for (uint32_t i = 0; i < q->op.unit_count; i++) {
        uint32_t u = q->op.first_unit + i;
        if (!unit_is(q->data + (size_t)i * UNIT_BYTES, block, u, im->present ? im->units[u] : 0))
            return false;
    }
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (((q->op.written >> u) & 1) != (im->present && im->units[u] != 0))
            return false;
    }
    return true;
}

/* A read saw one whole image: one that was acknowledged at its submission or later. */
static void read_done(struct torture *t, struct pending *p)
{
    struct block *b = &t->blocks[p->block];
    t->reads++;
    uint64_t found = p->q.op.found.counter;
    if (p->kind == DO_STAT)
        return;
    for (unsigned i = 0; i < b->count; i++) {
        if (unit_versions_match(&p->q, p->block, &b->images[i]))
            return;
    }
    /* Acknowledged then, replaced since: its own content says its version; it must be whole and not older. */
    CHECK(t, found >= p->seen || found == 0, "read of block %u went back to %lu from %lu", p->block,
          (unsigned long)found, (unsigned long)p->seen);
}

static void pending_done(struct store_op *op, int rc)
{
    struct request *q = container_of(op, struct request, op);
    struct pending *p = container_of(q, struct pending, q);
    struct torture *t = p->t;
    CHECK(t, p->busy && !t->down, "callback of a request that is not under way");
    CHECK(t, rc == 0, "request kind %d failed: %d", p->kind, rc);
    if (p->kind == DO_READ || p->kind == DO_STAT)
        read_done(t, p);
    else
        settle(t, &t->blocks[p->block], q->op.version.counter);
    t->acknowledged++;
    request_free(q);
    p->busy = false;
    t->live--;
}

static void record_done(struct store_record_op *op, int rc)
{
    struct pending *p = container_of(op, struct pending, record_op);
    struct torture *t = p->t;
    struct record_model *m = &t->records[p->record_index];
    CHECK(t, rc == 0, "record failed: %d", rc);
    CHECK(t, m->count > 1, "record done twice");
    memmove(&m->values[0], &m->values[1], (m->count - 1) * sizeof m->values[0]);
    m->count--;
    p->busy = false;
    t->live--;
}

static struct pending *pending_get(struct torture *t)
{
    for (unsigned i = 0; i < REQUESTS; i++) {
        if (!t->pending[i].busy)
            return &t->pending[i];
    }
    return NULL;
}

static struct store_partition_record record_image(uint64_t value, unsigned index)
{
    return (struct store_partition_record){
        .pool = 1, .partition = index, .epoch = value, .members = {1, 2, 3}};
}

static void submit_record(struct torture *t, struct pending *p)
{
    unsigned index = (unsigned)rng_below(&t->rng, RECORDS);
    struct record_model *m = &t->records[index];
    if (m->count == HISTORY)
        return;
    struct store_partition_record image = record_image(++t->next_version, index);
    p->record = true;
    p->record_index = index;
    p->record_op = (struct store_record_op){.done = record_done};
    int rc = store_record_set(t->w.s, &p->record_op, STORE_PARTITION, index * 8, &image);
    if (rc == -EAGAIN)
        return;
    CHECK(t, rc == 0, "record: %d", rc);
    m->values[m->count++] = image.epoch;
    p->busy = true;
    t->live++;
}

static void next_image(struct block *b, const struct pending *p, uint32_t first, uint32_t count,
                       uint64_t version)
{
    struct image *im = &b->images[b->count];
    *im = *latest(b);
    if (!im->present)
        memset(im->units, 0, sizeof im->units);
    im->version = version;
    im->present = p->kind != DO_REMOVE;
    uint64_t any = 0;
    for (uint32_t u = first; u < first + count; u++)
        im->units[u] = p->kind == DO_WRITE ? version : 0;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++)
        any |= im->units[u];
    if (p->kind == DO_CLEAR && p->q.op.forget && !any)
        im->present = false;
    b->count++;
}

static void submit_one(struct torture *t)
{
    struct pending *p = pending_get(t);
    if (!p)
        return;
    p->t = t;
    p->record = false;
    uint64_t roll = rng_below(&t->rng, 100);
    if (t->narrow && roll >= 50 && roll < 60)
        roll = 60; /* more clears */
    if (roll < 5) {
        submit_record(t, p);
        return;
    }
    p->kind = roll < 60   ? DO_WRITE
              : roll < 68 ? DO_CLEAR
              : roll < 72 ? DO_REMOVE
              : roll < 97 ? DO_READ
                          : DO_STAT;
    p->block = (unsigned)rng_below(&t->rng, rng_chance(&t->rng, 1, 2) ? 4 : BLOCKS);
    struct block *b = &t->blocks[p->block];
    if (b->count == HISTORY)
        return;
    uint32_t count = rng_chance(&t->rng, 1, 5)   ? 32
                     : rng_chance(&t->rng, 1, 2) ? 1
                                                 : 1 + (uint32_t)rng_below(&t->rng, 32);
    uint32_t first = (uint32_t)rng_below(&t->rng, 33 - count);
    if (t->narrow) { /* the same few units all the time */
        count = 1 + (uint32_t)rng_below(&t->rng, 2);
        first = (uint32_t)rng_below(&t->rng, 2);
    }
    uint64_t version = ++t->next_version;
    request_init(&p->q, p->block, first, count, version);
    p->q.op.done = pending_done;
    p->q.op.forget = rng_chance(&t->rng, 1, 2);
    p->seen = b->images[0].present ? b->images[0].version : 0;
    int rc = request_submit(t->w.s, &p->q, p->kind);
    if (rc == -EAGAIN || rc == -ENOSPC) {
        request_free(&p->q);
        return;
    }
    CHECK(t, rc == 0, "submit kind %d: %d", p->kind, rc);
    p->busy = true;
    t->live++;
    t->submitted++;
    if (p->kind == DO_WRITE || p->kind == DO_CLEAR)
        next_image(b, p, first, count, version);
    else if (p->kind == DO_REMOVE)
        next_image(b, p, 0, 32, version);
}

static void forget_pending(struct torture *t)
{
    for (unsigned i = 0; i < REQUESTS; i++) {
        if (t->pending[i].busy && !t->pending[i].record)
            request_free(&t->pending[i].q);
        t->pending[i].busy = false;
    }
    t->live = 0;
}

/* Runs until the power goes or steps are over. */
static void run_workload(struct torture *t, unsigned steps)
{
    for (unsigned i = 0; i < steps && !world_crashed(&t->w); i++) {
        if (rng_chance(&t->rng, 1, 2))
            submit_one(t);
        if (rng_chance(&t->rng, 2, 3))
            world_step(&t->w);
    }
}

static void verify_block(struct torture *t, unsigned block)
{
    struct block *b = &t->blocks[block];
    struct request q;
    request_init(&q, block, 0, 32, 0);
    q.submitted = true;
    int rc = do_request(&t->w, &q, DO_READ);
    CHECK(t, rc == 0, "read of block %u after recovery: %d", block, rc);
    for (unsigned i = 0; i < b->count; i++) {
        if (!unit_versions_match(&q, block, &b->images[i]))
            continue;
        b->images[0] = b->images[i];
        b->count = 1;
        request_free(&q);
        return;
    }
    CHECK(t, false, "block %u has version %lu written %08x: neither acknowledged (%lu) nor any later of %u",
          block, (unsigned long)q.op.found.counter, q.op.written, (unsigned long)b->images[0].version,
          b->count - 1);
}

static void verify_records(struct torture *t)
{
    for (unsigned r = 0; r < RECORDS; r++) {
        struct record_model *m = &t->records[r];
        const struct store_partition_record *got = store_record_get(t->w.s, STORE_PARTITION, r * 8);
        unsigned i = 0;
        CHECK(t, got, "record %u lost", r);
        while (i < m->count && m->values[i] != got->epoch)
            i++;
        CHECK(t, i < m->count, "record %u has %lu", r, (unsigned long)got->epoch);
        struct store_partition_record want = record_image(got->epoch, r);
        CHECK(t, got->epoch == 0 || memcmp(got, &want, sizeof want) == 0, "record %u is mixed", r);
        m->values[0] = m->values[i];
        m->count = 1;
    }
}

static void verify_list(struct torture *t)
{
    struct store_key keys[BLOCKS + 1];
    uint64_t cursor = 0;
    unsigned n = store_list(t->w.s, 0, &cursor, keys, BLOCKS + 1), present = 0;
    for (unsigned b = 0; b < BLOCKS; b++)
        present += t->blocks[b].images[0].present;
    CHECK(t, cursor == 0 && n == present, "%u blocks listed, %u there", n, present);
}

static void verify_all(struct torture *t)
{
    for (unsigned b = 0; b < BLOCKS; b++)
        verify_block(t, b);
    verify_records(t);
    verify_list(t);
}

/* The power is back: what the media kept. */
static void replace_devices(struct torture *t)
{
    struct world *w = &t->w;
    uint64_t seed = rng_u64(&t->rng);
    struct device *data = device_ram_crash_image(w->data, seed);
    device_destroy(w->data);
    w->data = data;
    if (w->journal) {
        struct device *journal = device_ram_crash_image(w->journal, seed + 1);
        device_destroy(w->journal);
        w->journal = journal;
    }
    t->crashes++;
}

static void kill_process(struct torture *t)
{
    device_ram_kill(t->w.data, rng_u64(&t->rng));
    if (t->w.journal)
        device_ram_kill(t->w.journal, rng_u64(&t->rng));
    t->crashes++;
}

static void arm_crash(struct torture *t, uint64_t within)
{
    uint64_t n = 1 + rng_below(&t->rng, within);
    if (t->pmem && rng_chance(&t->rng, 1, 2))
        device_ram_crash_after(t->w.journal, n);
    else
        device_ram_crash_after(t->w.data, n);
}

static void pick_options(struct torture *t, struct store_options *o)
{
    *o = (struct store_options){.cache_bytes = 1, .requests_max = 8};
    if (rng_chance(&t->rng, 1, 2))
        o->requests_max = 64;
}

/* Opens; in between the power may go several times. */
static void recover(struct torture *t)
{
    struct store_options o;
    pick_options(t, &o);
    for (unsigned again = 0;; again++) {
        if (again == 0 && !world_crashed(&t->w) && rng_chance(&t->rng, 2, 3))
            kill_process(t); /* the power stays: caches keep what was not flushed */
        else
            replace_devices(t);
        if (again < 4 && rng_chance(&t->rng, 1, 2))
            arm_crash(t, 40);
        int rc = world_open(&t->w, &o);
        if (rc == -ECANCELED)
            continue;
        CHECK(t, rc == 0, "open: %d %s", rc, t->w.report.text);
        CHECK(t, !t->w.report.damaged, "damage after a mere crash: %s", t->w.report.text);
        if (world_crashed(&t->w)) {
            store_destroy(t->w.s);
            t->w.s = NULL;
            continue;
        }
        device_ram_crash_after(t->w.data, 0);
        if (t->w.journal)
            device_ram_crash_after(t->w.journal, 0);
        return;
    }
}

static void generation(struct torture *t)
{
    if (rng_chance(&t->rng, 4, 5))
        arm_crash(t, rng_chance(&t->rng, 1, 3) ? 2000 : 150);
    run_workload(t, 1500);
    t->down = true;
    store_destroy(t->w.s);
    t->w.s = NULL;
    forget_pending(t);
    recover(t);
    t->down = false;
    verify_all(t);
}

static uint64_t torture_seed(uint64_t seed)
{
    struct torture *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->seed = seed;
    t->pmem = seed & 1;
    t->narrow = seed % 3 == 0;
    rng_seed(&t->rng, seed);
    world_init(&t->w, seed);
    t->w.hold = seed % 5 < 3 ? 0 : 10 + rng_below(&t->rng, 30);
    /* Small enough that slots are reused all the time, and the journal goes round. */
    uint64_t size = (4 + rng_below(&t->rng, 3)) * MIB;
    t->w.data = device_ram_create(size, rng_chance(&t->rng, 1, 2) ? 512 : 4096, 512, seed);
    if (t->pmem) {
        t->w.journal = device_ram_create(MIB + 65536, 64, 8, seed);
        t->w.journal->durable_writes = true;
    }
    t->w.data->first_write_slow = seed % 2 == 0;
    for (unsigned b = 0; b < BLOCKS; b++)
        t->blocks[b].count = 1;
    for (unsigned r = 0; r < RECORDS; r++)
        t->records[r].count = 1;
    struct store_options o;
    pick_options(t, &o);
    CHECK(t, world_format(&t->w, small_format()) == 0, "format");
    CHECK(t, world_open(&t->w, &o) == 0, "open");
    for (unsigned g = 0; g < GENERATIONS; g++)
        generation(t);
    uint64_t crashes = t->crashes;
    world_end(&t->w);
    free(t);
    return crashes;
}

/* A process is killed with an overwrite under way to pmem: it can be read there, but lies in the CPU's cache.
 * Then the power goes while its successor writes it to its place. */
static void killed_then_power_lost(uint64_t seed)
{
    struct torture t = {.seed = seed, .pmem = true};
    struct world *w = &t.w;
    struct request q;
    uint64_t version = 2;
    rng_seed(&t.rng, seed);
    world_init(w, seed);
    w->data = device_ram_create(4 * MIB, 4096, 512, seed);
    w->journal = device_ram_create(MIB + 65536, 64, 8, seed);
    w->journal->durable_writes = true;
    CHECK(&t, world_format(w, small_format()) == 0 && world_open(w, NULL) == 0, "first open");
    CHECK(&t, do_write(w, 1, 0, 1, 1) == 0, "first write");
    CHECK(&t, world_close(w) == 0 && world_open(w, NULL) == 0, "second open");
    request_init(&q, 1, 0, 1, version);
    CHECK(&t, request_submit(w->s, &q, DO_WRITE) == 0, "overwrite");
    while (!device_ram_pending(w->journal)) {
        sim_world_step(w->sim);
        device_ram_pump(w->data, 1);
    }
    store_destroy(w->s);
    w->s = NULL;
    kill_process(&t);
    device_ram_crash_after(w->data, 1 + seed % 16);
    int rc = world_open(w, NULL);
    CHECK(&t, rc == 0 || rc == -ECANCELED, "open after the kill: %d %s", rc, w->report.text);
    if (w->s)
        store_destroy(w->s);
    w->s = NULL;
    replace_devices(&t);
    CHECK(&t, world_open(w, NULL) == 0 && !w->report.damaged, "open after the power cut: %s", w->report.text);
    rc = do_request(w, &q, DO_READ);
    version = q.op.found.counter;
    CHECK(&t, rc == 0 && (version == 1 || version == 2), "read: %d, version %lu", rc, (unsigned long)version);
    CHECK(&t, unit_is(q.data, 1, 0, version), "content is not that of version %lu", (unsigned long)version);
    request_free(&q);
    world_end(w);
}

static uint64_t seeds = 40, first_seed = 1;

static void test_killed_then_power_lost(void **state)
{
    (void)state;
    for (uint64_t seed = first_seed; seed < first_seed + 5 * seeds; seed++)
        killed_then_power_lost(seed);
}

static void test_torture(void **state)
{
    (void)state;
    uint64_t crashes = 0;
    for (uint64_t seed = first_seed; seed < first_seed + seeds; seed++)
        crashes += torture_seed(seed);
    printf("%lu seeds from %lu: %lu crashes\n", (unsigned long)seeds, (unsigned long)first_seed,
           (unsigned long)crashes);
}

int main(int argc, char **argv)
{
    const char *n = argc > 1 ? argv[1] : getenv("CISTERN_SEEDS"),
               *f = argc > 2 ? argv[2] : getenv("CISTERN_SEED");
    if (n)
        seeds = strtoull(n, NULL, 0);
    if (f)
        first_seed = strtoull(f, NULL, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_then_power_lost),
        cmocka_unit_test(test_torture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
