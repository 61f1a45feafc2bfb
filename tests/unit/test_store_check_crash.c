/*
 * No false alarm: whatever a crash leaves of a store, whenever it comes, is clean to a check. And the check,
 * which reads the media with code of its own, comes to the same blocks and the same replay as the store.
 *
 *     test_store_check_crash [seeds [first seed]]      or CISTERN_SEEDS, CISTERN_SEED
 */
#include "tests/unit/check_harness.h"

enum { BLOCKS = 30, REQUESTS = 24, GENERATIONS = 6 };

struct busy {
    struct world w;
    struct rng rng;
    struct pending {
        struct request q;
        bool busy;
    } pending[REQUESTS];
    uint64_t version, seed, checks, crashes;
    uint64_t notes[STORE_FINDINGS];
    bool pmem;
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

static void pending_done(struct store_op *op, int rc)
{
    struct pending *p = container_of(container_of(op, struct request, op), struct pending, q);
    MUST(p->busy && rc == 0);
    request_free(&p->q);
    p->busy = false;
}

static void submit_one(struct busy *t)
{
    struct pending *p = NULL;
    for (unsigned i = 0; i < REQUESTS && !p; i++)
        p = t->pending[i].busy ? NULL : &t->pending[i];
    if (!p)
        return;
    uint64_t roll = rng_below(&t->rng, 100);
    if (roll < 8) {
        enum store_record_kind kind = (enum store_record_kind)rng_below(&t->rng, 3);
        uint8_t image[128];
        rng_fill(&t->rng, image, sizeof image);
        (void)store_record_set(t->w.s, NULL, kind, (uint32_t)rng_below(&t->rng, 40), image);
        return;
    }
    enum request_kind kind = roll < 75 ? DO_WRITE : roll < 90 ? DO_CLEAR : DO_REMOVE;
    uint32_t count = rng_chance(&t->rng, 1, 4) ? 32 : 1 + (uint32_t)rng_below(&t->rng, 6);
    request_init(&p->q, rng_below(&t->rng, rng_chance(&t->rng, 1, 2) ? 5 : BLOCKS),
                 (uint32_t)rng_below(&t->rng, 33 - count), count, ++t->version);
    p->q.op.done = pending_done;
    p->q.op.forget = rng_chance(&t->rng, 1, 2);
    p->busy = request_submit(t->w.s, &p->q, kind) == 0;
    if (!p->busy)
        request_free(&p->q);
}

static void work(struct busy *t, unsigned steps)
{
    for (unsigned i = 0; i < steps && !world_crashed(&t->w); i++) {
        if (rng_chance(&t->rng, 1, 2))
            submit_one(t);
        if (rng_chance(&t->rng, 2, 3))
            world_step(&t->w);
    }
}

static void stop(struct busy *t)
{
    if (t->w.s)
        store_destroy(t->w.s);
    t->w.s = NULL;
    for (unsigned i = 0; i < REQUESTS; i++) {
        if (t->pending[i].busy)
            request_free(&t->pending[i].q);
        t->pending[i].busy = false;
    }
}

static void replace(struct device **d, uint64_t seed)
{
    struct device *image = device_ram_crash_image(*d, seed);
    device_destroy(*d);
    *d = image;
}

static void lose_power(struct busy *t)
{
    uint64_t seed = rng_u64(&t->rng);
    if (!world_crashed(&t->w) && rng_chance(&t->rng, 1, 2)) {
        device_ram_kill(t->w.data, seed); /* the process alone */
        if (t->w.journal)
            device_ram_kill(t->w.journal, seed + 1);
    } else {
        replace(&t->w.data, seed);
        if (t->w.journal)
            replace(&t->w.journal, seed + 1);
    }
    t->crashes++;
}

static void arm(struct busy *t, uint64_t within)
{
    struct device *d = t->pmem && rng_chance(&t->rng, 1, 2) ? t->w.journal : t->w.data;
    device_ram_crash_after(d, 1 + rng_below(&t->rng, within));
}

/* The media as they are: clean, and nothing of them is touched. */
static struct store_check_report check_clean(struct busy *t)
{
    struct checked k;
    uint64_t before = medium_sequence(device_ram_medium(t->w.data));
    uint64_t journal = t->w.journal ? medium_sequence(device_ram_medium(t->w.journal)) : 0;
    int rc = checked_run(&k, &t->w, true, 0, 0);
    if (rc || checked_wrong(&k) || !k.r->complete || !k.r->data_complete)
        checked_print(&k);
    CHECK(t, rc == 0, "check: %d", rc);
    CHECK(t, checked_wrong(&k) == 0, "false alarm");
    CHECK(t, k.r->complete && k.r->data_complete, "the check did not come to its end");
    CHECK(t, medium_sequence(device_ram_medium(t->w.data)) == before, "the check wrote");
    CHECK(t, !t->w.journal || medium_sequence(device_ram_medium(t->w.journal)) == journal, "the check wrote");
    for (unsigned i = 0; i < STORE_FINDINGS; i++)
        t->notes[i] += k.r->counts[i];
    struct store_check_report r = *k.r;
    checked_end(&k);
    t->checks++;
    return r;
}

static void pick_options(struct busy *t, struct store_options *o)
{
    *o = (struct store_options){.cache_bytes = 1, .requests_max = rng_chance(&t->rng, 1, 2) ? 8 : 64};
}

static void recover(struct busy *t)
{
    struct store_options o;
    pick_options(t, &o);
    for (unsigned again = 0;; again++) {
        lose_power(t);
        struct store_check_report r = check_clean(t);
        if (again < 4 && rng_chance(&t->rng, 2, 3))
            arm(t, 60);
        int rc = world_open(&t->w, &o);
        CHECK(t, rc == 0 || rc == -ECANCELED, "open: %d %s", rc, t->w.report.text);
        if (rc == 0) {
            CHECK(t, !t->w.report.damaged, "%s", t->w.report.text);
            CHECK(t, r.blocks == t->w.report.blocks, "the check has %lu blocks, the store %lu",
                  (unsigned long)r.blocks, (unsigned long)t->w.report.blocks);
            CHECK(t, r.records == t->w.report.replayed_records,
                  "the check would apply %lu records, the store did %lu", (unsigned long)r.records,
                  (unsigned long)t->w.report.replayed_records);
        }
        if (rc == 0 && !world_crashed(&t->w))
            break;
        stop(t);
    }
    device_ram_crash_after(t->w.data, 0);
    if (t->w.journal)
        device_ram_crash_after(t->w.journal, 0);
}

static void seed_run(uint64_t seed, uint64_t notes[STORE_FINDINGS])
{
    struct busy *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->seed = seed;
    t->pmem = seed & 1;
    rng_seed(&t->rng, seed);
    world_init(&t->w, seed);
    t->w.hold = seed % 5 < 3 ? 0 : 10 + rng_below(&t->rng, 30);
    uint64_t size = (4 + rng_below(&t->rng, 3)) * MIB;
    t->w.data = device_ram_create(size, rng_chance(&t->rng, 1, 2) ? 512 : 4096, 512, seed);
    if (t->pmem) {
        t->w.journal = device_ram_create(MIB + 65536, 64, 8, seed);
        t->w.journal->durable_writes = true;
    }
    struct store_options o;
    pick_options(t, &o);
    CHECK(t, world_format(&t->w, small_format()) == 0, "format");
    check_clean(t);
    CHECK(t, world_open(&t->w, &o) == 0, "open");
    for (unsigned g = 0; g < GENERATIONS; g++) {
        if (rng_chance(&t->rng, 4, 5))
            arm(t, rng_chance(&t->rng, 1, 3) ? 2000 : 200);
        work(t, 1500);
        stop(t);
        recover(t);
    }
    CHECK(t, world_close(&t->w) == 0, "close");
    struct store_check_report r = check_clean(t);
    CHECK(t, r.records == 0 && r.counts[STORE_FINDING_PAGES_BEHIND] == 0, "something is left after a close");
    for (unsigned i = 0; i < STORE_FINDINGS; i++)
        notes[i] += t->notes[i];
    world_end(&t->w);
    free(t);
}

static uint64_t seeds = 30, first_seed = 1000;

static void test_no_false_alarm(void **state)
{
    (void)state;
    uint64_t notes[STORE_FINDINGS] = {0};
    for (uint64_t seed = first_seed; seed < first_seed + seeds; seed++)
        seed_run(seed, notes);
    for (unsigned i = 0; i < STORE_FINDINGS; i++) {
        if (notes[i])
            printf("%s %lu\n", store_finding_name(i), (unsigned long)notes[i]);
    }
    /* What the crashes are for. */
    if (seeds >= 30) {
        assert_true(notes[STORE_FINDING_JOURNAL_PENDING] > 0 && notes[STORE_FINDING_PAGES_BEHIND] > 0 &&
                    notes[STORE_FINDING_PAGE_COPY_TORN] > 0 && notes[STORE_FINDING_JOURNAL_TORN] > 0 &&
                    notes[STORE_FINDING_SUPER_CUT_OFF] > 0 && notes[STORE_FINDING_JSUPER_CUT_OFF] > 0);
    }
}

int main(int argc, char **argv)
{
    const char *n = argc > 1 ? argv[1] : getenv("CISTERN_SEEDS"),
               *f = argc > 2 ? argv[2] : getenv("CISTERN_SEED");
    if (n)
        seeds = strtoull(n, NULL, 0);
    if (f)
        first_seed = strtoull(f, NULL, 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_false_alarm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
