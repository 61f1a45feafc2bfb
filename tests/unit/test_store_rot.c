/* What the block store makes of media that rot, shrink, fail, are blank, foreign or put back from a copy. */
#include "tests/unit/store_harness.h"

#include "services/rwm/store_layout.h"

enum { BLOCKS = 40 };
/* What each block was given last; unit 3 of block b has version have[b]. */
struct filled {
    struct world w;
    uint64_t have[BLOCKS];
    struct disk_super super;
};

static void read_super(struct filled *f)
{
    medium_read(device_ram_medium(f->w.data), STORE_SUPER_0, &f->super, sizeof f->super);
}

/* A store with blocks and records; crash: the last writes are in the journal only. */
static void fill(struct filled *f, uint64_t seed, bool pmem, bool crash)
{
    memset(f, 0, sizeof *f);
    world_init(&f->w, seed);
    f->w.data = device_ram_create(16 * MIB, 4096, 512, seed);
    if (pmem) {
        f->w.journal = device_ram_create(MIB + 65536, 64, 8, seed);
        f->w.journal->durable_writes = true;
    }
    assert_int_equal(world_format(&f->w, small_format()), 0);
    assert_int_equal(world_open(&f->w, NULL), 0);
    uint64_t version = 0;
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t b = 0; b < BLOCKS; b++) {
            assert_int_equal(do_write(&f->w, b, 3, 1, ++version), 0);
            f->have[b] = version;
        }
        struct store_partition_record r = {.pool = 1, .epoch = 5 + round};
        assert_int_equal(store_record_set(f->w.s, NULL, STORE_PARTITION, 3, &r), 0);
        world_drain(&f->w);
        if (round == 1 && crash) {
            store_destroy(f->w.s);
            f->w.s = NULL;
            device_ram_kill(f->w.data, 1);
            if (pmem)
                device_ram_kill(f->w.journal, 1);
            break;
        }
        assert_int_equal(world_close(&f->w), 0);
        if (round == 0)
            assert_int_equal(world_open(&f->w, NULL), 0);
    }
    read_super(f);
}

/* Every block: what it should have, or -EBADMSG; never anything else. Returns how many are bad. */
static unsigned judge(struct filled *f)
{
    unsigned bad = 0;
    for (uint64_t b = 0; b < BLOCKS; b++) {
        struct request q;
        request_init(&q, b, 3, 1, 0);
        int rc = do_request(&f->w, &q, DO_READ);
        assert_true(rc == 0 || rc == -EBADMSG);
        if (rc == 0)
            assert_true(unit_is(q.data, b, 3, f->have[b]));
        bad += rc != 0;
        request_free(&q);
    }
    return bad;
}

static void check_record(struct filled *f)
{
    const struct store_partition_record *r = store_record_get(f->w.s, STORE_PARTITION, 3);
    assert_true(r ? r->epoch == 6 : store_is_damaged(f->w.s));
}

static void rot_page(struct filled *f, uint64_t offset)
{
    device_ram_corrupt(f->w.data, offset, STORE_PAGE_BYTES, offset);
}

/* One copy of any page: repaired, nothing is missing. Both: said, and no answer is wrong. */
static void metadata(bool crash, bool both)
{
    struct filled f;
    fill(&f, 1, false, crash);
    uint32_t pages = (uint32_t)((f.super.meta_b - f.super.meta_a) / STORE_PAGE_BYTES) - f.super.entry_pages +
                     f.super.entry_pages_used;
    world_end(&f.w);
    for (uint32_t page = 0; page < pages; page++) {
        for (unsigned copy = 0; copy < (both ? 1 : 2); copy++) {
            fill(&f, 1, false, crash);
            uint64_t at = (uint64_t)page * STORE_PAGE_BYTES;
            if (both || copy == 0)
                rot_page(&f, f.super.meta_a + at);
            if (both || copy == 1)
                rot_page(&f, f.super.meta_b + at);
            for (unsigned again = 0; again < 2; again++) {
                assert_int_equal(world_open(&f.w, NULL), 0);
                assert_int_equal(f.w.report.damaged, both);
                unsigned bad = judge(&f);
                if (!both) {
                    assert_int_equal(f.w.report.pages_repaired, again == 0);
                    assert_int_equal(bad, 0);
                } else {
                    struct request
                        q; /* a block that is not found may have been in the lost page: not a hole */
                    request_init(&q, 12345, 0, 1, 0);
                    assert_int_equal(do_request(&f.w, &q, DO_READ), -EBADMSG);
                    request_free(&q);
                    assert_int_equal(do_write(&f.w, 777 + again, 0, 1, 1), -EBADMSG);
                    assert_int_equal(do_write(&f.w, 777 + again, 0, 32, 1), 0);
                }
                check_record(&f);
                assert_int_equal(world_close(&f.w), 0);
            }
            world_end(&f.w);
        }
    }
}

static void test_metadata_one_copy(void **state)
{
    (void)state;
    metadata(false, false);
    metadata(true, false);
}

static void test_metadata_both_copies(void **state)
{
    (void)state;
    metadata(false, true);
    metadata(true, true);
}

static void test_superblocks(void **state)
{
    (void)state;
    for (unsigned which = 1; which <= 3; which++) {
        struct filled f;
        fill(&f, 2, false, which & 1);
        if (which & 1)
            rot_page(&f, STORE_SUPER_0);
        if (which & 2)
            rot_page(&f, STORE_SUPER_1);
        int rc = world_open(&f.w, NULL);
        if (which == 3) {
            assert_true(rc == -EBADMSG || rc == -EMEDIUMTYPE); /* the magic itself may be hit */
        } else {
            assert_int_equal(rc, 0);
            assert_false(f.w.report.damaged);
            assert_int_equal(judge(&f), 0);
        }
        world_end(&f.w);
    }
}

/* A write of a superblock tears, and the next one after the restart too: each time the other copy is the good
 * one. */
static void test_torn_superblocks(void **state)
{
    (void)state;
    for (unsigned n = 1; n < 60; n++) {
        for (uint64_t seed = 1; seed < 6; seed++) {
            struct filled f;
            memset(&f, 0, sizeof f);
            world_init(&f.w, seed);
            f.w.data = device_ram_create(16 * MIB, 4096, 8, seed);
            f.w.journal = device_ram_create(MIB + 65536, 64, 8, seed);
            assert_int_equal(world_format(&f.w, small_format()), 0);
            for (unsigned again = 0; again < 4; again++) {
                device_ram_crash_after(again % 2 ? f.w.journal : f.w.data,
                                       1 + (n * 7 + again * (n % 5)) % 30);
                int rc = world_open(&f.w, NULL);
                assert_true(rc == 0 || rc == -ECANCELED);
                store_destroy(f.w.s);
                f.w.s = NULL;
                struct device *data = device_ram_crash_image(f.w.data, seed + again),
                              *journal = device_ram_crash_image(f.w.journal, seed + again + 100);
                device_destroy(f.w.data);
                device_destroy(f.w.journal);
                f.w.data = data;
                f.w.journal = journal;
            }
            assert_int_equal(world_open(&f.w, NULL), 0);
            world_end(&f.w);
        }
    }
}

/* Rot anywhere in what is to be replayed: below a later batch's mark it is damage and is said; in the last
 * batch it can not be told from a torn one, and takes what was written last. */
static void test_journal(void **state)
{
    (void)state;
    struct filled f;
    unsigned damaged = 0, harmless = 0;
    for (uint64_t sector = 0; sector < 2 * BLOCKS * 9; sector++) {
        fill(&f, 3, false, true);
        device_ram_corrupt(f.w.data,
                           f.super.journal_offset + f.super.tail_pos % f.super.journal_bytes + sector * 512,
                           512, sector);
        assert_int_equal(world_open(&f.w, NULL), 0);
        if (f.w.report.damaged) {
            damaged++;
            unsigned bad = judge(&f);
            struct store_stats st;
            store_stats_get(f.w.s, &st);
            assert_int_equal(world_close(&f.w), 0);
            assert_int_equal(world_open(&f.w, NULL), 0);
            assert_true(f.w.report.damaged ||
                        st.bad_units); /* not forgotten: by the store, or its entry's CRC */
            assert_int_equal(judge(&f), bad);
        } else {
            /* At most the last batch is gone; a rotten payload is found when it is read. */
            unsigned old = 0;
            for (uint64_t b = 0; b < BLOCKS; b++) {
                struct request q;
                request_init(&q, b, 3, 1, 0);
                int rc = do_request(&f.w, &q, DO_READ);
                if (rc == 0 && !unit_is(q.data, b, 3, f.have[b])) {
                    assert_true(unit_is(q.data, b, 3, f.have[b] - BLOCKS));
                    old++;
                } else {
                    assert_true(rc == 0 || rc == -EBADMSG);
                }
                request_free(&q);
            }
            assert_true(old <= 1);
            harmless += old == 0;
        }
        world_end(&f.w);
    }
    assert_true(damaged > 20);
    assert_true(harmless > 20);
}

/* Where the last batch is, for a store that lies as fill left it. */
static uint64_t last_batch(struct filled *f, struct disk_batch *h)
{
    struct medium *m = device_ram_medium(f->w.journal ? f->w.journal : f->w.data);
    uint64_t at = 0, seq = 0;
    for (uint64_t o = 0; o + sizeof *h <= f->super.journal_bytes; o += f->super.journal_align) {
        struct disk_batch b;
        medium_read(m, f->super.journal_offset + o, &b, sizeof b);
        if (b.magic != STORE_BATCH_MAGIC || b.salt != f->super.salt || b.seq <= seq)
            continue;
        seq = b.seq;
        at = o;
        *h = b;
    }
    assert_true(seq > 0);
    return f->super.journal_offset + at;
}

static void kill_now(struct filled *f)
{
    store_destroy(f->w.s);
    f->w.s = NULL;
    device_ram_kill(f->w.data, 1);
    if (f->w.journal)
        device_ram_kill(f->w.journal, 1);
    read_super(f);
}

/* A payload below the mark rots: it is said, and that unit alone is lost. Above it, once the store had
 * nothing to do for a while, the witness knows. */
static void test_last_batch(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        bool pmem = i & 1, witnessed = i & 2, payload = i & 4;
        struct filled f;
        struct disk_batch h;
        fill(&f, 11 + i, pmem, false);
        assert_int_equal(world_open(&f.w, NULL), 0);
        assert_int_equal(do_write(&f.w, 7, 3, 1, 1000), 0);
        if (witnessed)
            world_pass(&f.w, NS_PER_S);
        kill_now(&f);
        uint64_t at = last_batch(&f, &h);
        device_ram_corrupt(pmem ? f.w.journal : f.w.data,
                           at + (payload ? round_up(sizeof h + h.record_bytes, f.super.journal_align) : 0),
                           payload ? 512 : 64, i);
        uint64_t old = f.have[7];
        f.have[7] = 1000;
        assert_int_equal(world_open(&f.w, NULL), 0);
        assert_int_equal(f.w.report.damaged, witnessed);
        if (!witnessed)
            f.have[7] = old; /* it can not be told from a torn one */
        assert_int_equal(judge(&f), !witnessed ? 0 : payload ? 1 : BLOCKS);
        world_end(&f.w);
    }
}

/* A payload that rots is not served from memory either, where nothing is written back. */
static void test_rotten_payload_read_only(void **state)
{
    (void)state;
    struct filled f;
    struct disk_batch h;
    fill(&f, 21, false, false);
    assert_int_equal(world_open(&f.w, NULL), 0);
    assert_int_equal(do_write(&f.w, 7, 3, 1, 1000), 0);
    f.have[7] = 1000;
    world_pass(&f.w, NS_PER_S);
    kill_now(&f);
    uint64_t at = last_batch(&f, &h);
    device_ram_corrupt(f.w.data, at + round_up(sizeof h + h.record_bytes, f.super.journal_align), 4096, 1);
    struct store_options o = {.read_only = true};
    assert_int_equal(world_open(&f.w, &o), 0);
    assert_true(f.w.report.damaged);
    assert_int_equal(judge(&f), 1);
    world_end(&f.w);
}

static void test_data(void **state)
{
    (void)state;
    struct filled f;
    fill(&f, 4, false, false);
    for (uint64_t at = f.super.slots_offset; at < f.super.slots_offset + BLOCKS * BLOCK_BYTES;
         at += UNIT_BYTES)
        device_ram_corrupt(f.w.data, at, 512, at);
    assert_int_equal(world_open(&f.w, NULL), 0);
    assert_int_equal(judge(&f), BLOCKS);
    struct store_stats st;
    store_stats_get(f.w.s, &st);
    assert_int_equal(st.bad_units, BLOCKS);
    assert_int_equal(do_write(&f.w, 5, 3, 1, 500), 0); /* a repair is a write */
    check_unit(&f.w, 5, 3, 500, 500);
    world_end(&f.w);
}

static void test_wrong_media(void **state)
{
    (void)state;
    struct filled f;
    fill(&f, 5, true, true);
    struct device *data = f.w.data, *journal = f.w.journal;
    struct device *blank = device_ram_create(16 * MIB, 4096, 512, 1);
    f.w.data = blank;
    assert_int_equal(world_open(&f.w, NULL), -EMEDIUMTYPE);
    uint8_t *noise = aligned_alloc(4096, 65536);
    rng_fill(&f.w.rng, noise, 65536);
    assert_int_equal(medium_write(device_ram_medium(blank), 0, noise, 65536, true), 0);
    assert_int_equal(world_open(&f.w, NULL), -EMEDIUMTYPE);
    free(noise);
    device_destroy(blank);
    f.w.data = data;
    f.w.journal = NULL; /* it has one */
    assert_int_equal(world_open(&f.w, NULL), -ESTALE);
    f.w.journal = device_ram_create(MIB + 65536, 64, 8, 9);
    assert_int_equal(world_open(&f.w, NULL), -EMEDIUMTYPE);
    device_destroy(f.w.journal);
    struct filled g; /* another store's */
    fill(&g, 6, true, false);
    f.w.journal = g.w.journal;
    assert_int_equal(world_open(&f.w, NULL), -EMEDIUMTYPE);
    world_end(&g.w);
    struct device *small = device_ram_create(15 * MIB, 4096, 512, 1);
    uint8_t *head = aligned_alloc(4096, MIB);
    medium_read(device_ram_medium(data), 0, head, MIB);
    assert_int_equal(medium_write(device_ram_medium(small), 0, head, MIB, true), 0);
    free(head);
    f.w.journal = journal;
    f.w.data = small;
    assert_int_equal(world_open(&f.w, NULL), -EBADMSG);
    device_destroy(small);
    f.w.data = data;
    assert_int_equal(world_open(&f.w, NULL), 0); /* nothing of all this has hurt */
    assert_int_equal(judge(&f), 0);
    world_end(&f.w);
}

/* One of the two devices is put back from a copy made at an earlier start. */
static void test_rolled_back(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 3; which++) {
        struct filled f;
        fill(&f, 7, true, true);
        struct medium *data = medium_clone(device_ram_medium(f.w.data));
        struct medium *journal = medium_clone(device_ram_medium(f.w.journal));
        assert_int_equal(world_open(&f.w, NULL), 0);
        assert_int_equal(do_write(&f.w, 1, 3, 1, 1000), 0);
        assert_int_equal(world_close(&f.w), 0);
        if (which != 1)
            medium_restore(device_ram_medium(f.w.data), data);
        if (which != 0)
            medium_restore(device_ram_medium(f.w.journal), journal);
        /* Both of them: a consistent old store. Its start counter is what tells the cluster. */
        assert_int_equal(world_open(&f.w, NULL), which == 2 ? 0 : -ESTALE);
        medium_destroy(data);
        medium_destroy(journal);
        world_end(&f.w);
    }
}

/* The journal's device is put back from a copy that was made while the store ran, since its last checkpoint.
 */
static void test_rolled_back_same_start(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 2; which++) {
        struct filled f;
        fill(&f, 22, true, false);
        assert_int_equal(world_open(&f.w, NULL), 0);
        assert_int_equal(do_write(&f.w, 1, 3, 1, 1000), 0);
        world_pass(&f.w, NS_PER_S);
        struct medium *journal = medium_clone(device_ram_medium(f.w.journal));
        assert_int_equal(do_write(&f.w, 1, 3, 1, 1001), 0);
        f.have[1] = 1001;
        world_pass(&f.w, NS_PER_S);
        kill_now(&f);
        if (which)
            medium_restore(device_ram_medium(f.w.journal), journal);
        assert_int_equal(world_open(&f.w, NULL), which ? -ESTALE : 0);
        if (!which)
            assert_int_equal(judge(&f), 0);
        medium_destroy(journal);
        world_end(&f.w);
    }
}

/* Both superblocks are put back from before: the start before, or the checkpoint before. */
static void test_stale_superblocks(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        bool restart = i & 1, pass = i & 2;
        uint8_t head[2][STORE_PAGE_BYTES];
        struct filled f;
        fill(&f, 23, false, false);
        assert_int_equal(world_open(&f.w, NULL), 0);
        medium_read(device_ram_medium(f.w.data), STORE_SUPER_0, head[0], sizeof head[0]);
        medium_read(device_ram_medium(f.w.data), STORE_SUPER_1, head[1], sizeof head[1]);
        if (restart) {
            assert_int_equal(world_close(&f.w), 0);
            assert_int_equal(world_open(&f.w, NULL), 0);
        }
        uint64_t version = 1000;
        for (unsigned n = 0; n < 200; n++) {
            f.have[n % BLOCKS] = ++version;
            assert_int_equal(do_write(&f.w, n % BLOCKS, 3, 1, version), 0);
        }
        struct store_stats st;
        store_stats_get(f.w.s, &st);
        assert_true(st.checkpoints > 0);
        if (pass)
            world_pass(&f.w, NS_PER_S);
        kill_now(&f);
        assert_int_equal(
            medium_write(device_ram_medium(f.w.data), STORE_SUPER_0, head[0], sizeof head[0], true), 0);
        assert_int_equal(
            medium_write(device_ram_medium(f.w.data), STORE_SUPER_1, head[1], sizeof head[1], true), 0);
        int rc = world_open(&f.w, NULL);
        assert_int_equal(rc, restart && pass ? -ESTALE : 0);
        if (rc == 0 && restart)
            assert_true(f.w.report.damaged);
        if (rc == 0)
            judge(&f);
        world_end(&f.w);
    }
}

/* The device fails at any one request: the store breaks or has not noticed, and what it acknowledged is there
 * afterwards. */
static void failing(enum device_op op, int fault)
{
    for (uint64_t nth = 1; nth < 60; nth++) {
        struct filled f;
        fill(&f, 8, false, false);
        assert_int_equal(world_open(&f.w, NULL), 0);
        device_ram_fail_nth(f.w.data, op, nth, fault);
        uint64_t version = 1000;
        int rc = 0;
        for (uint64_t b = 0; b < BLOCKS && rc == 0; b++) {
            rc = do_write(&f.w, b, 3, 1, ++version);
            if (rc == 0)
                f.have[b] = version;
            assert_true(rc == 0 || rc == fault);
        }
        if (rc) {
            assert_true(store_is_broken(f.w.s));
            assert_int_equal(do_write(&f.w, 0, 3, 1, ++version), fault);
            version--;
        }
        world_drain(&f.w);
        int end = world_close(&f.w);
        assert_true(end == 0 || end == fault);
        device_ram_fail_nth(f.w.data, op, 0, 0);
        device_ram_kill(f.w.data, nth);
        assert_int_equal(world_open(&f.w, NULL), 0);
        assert_false(f.w.report.damaged);
        for (uint64_t b = 0; b < BLOCKS; b++) {
            struct request q;
            request_init(&q, b, 3, 1, 0);
            assert_int_equal(do_request(&f.w, &q, DO_READ), 0);
            assert_true(unit_is(q.data, b, 3, f.have[b]) || unit_is(q.data, b, 3, version));
            request_free(&q);
        }
        world_end(&f.w);
    }
}

static void test_failing_device(void **state)
{
    (void)state;
    failing(DEVICE_WRITE, -EIO);
    failing(DEVICE_FLUSH, -EIO);
}

static void test_vanished(void **state)
{
    (void)state;
    struct filled f;
    fill(&f, 9, false, false);
    assert_int_equal(world_open(&f.w, NULL), 0);
    device_ram_vanish(f.w.data);
    assert_int_equal(do_write(&f.w, 1, 3, 1, 1000), -ENODEV);
    assert_true(store_is_broken(f.w.s));
    assert_int_equal(world_close(&f.w), -ENODEV);
    world_end(&f.w);
}

static void test_read_error(void **state)
{
    (void)state;
    struct filled f;
    fill(&f, 10, false, false);
    assert_int_equal(world_open(&f.w, NULL), 0);
    device_ram_fail_range(f.w.data, f.super.slots_offset, f.w.data->size - f.super.slots_offset, -EIO);
    struct request q;
    request_init(&q, 1, 3, 1, 0);
    assert_int_equal(do_request(&f.w, &q, DO_READ), -EIO);
    request_free(&q);
    assert_false(store_is_broken(f.w.s));
    device_ram_fail_range(f.w.data, 0, UINT64_MAX, 0);
    assert_int_equal(judge(&f), 0);
    world_end(&f.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metadata_one_copy),
        cmocka_unit_test(test_metadata_both_copies),
        cmocka_unit_test(test_superblocks),
        cmocka_unit_test(test_torn_superblocks),
        cmocka_unit_test(test_journal),
        cmocka_unit_test(test_last_batch),
        cmocka_unit_test(test_rotten_payload_read_only),
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_wrong_media),
        cmocka_unit_test(test_rolled_back),
        cmocka_unit_test(test_rolled_back_same_start),
        cmocka_unit_test(test_stale_superblocks),
        cmocka_unit_test(test_failing_device),
        cmocka_unit_test(test_vanished),
        cmocka_unit_test(test_read_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
