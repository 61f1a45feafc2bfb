/* What a check says of entries, records, data and the journal. */
#include "tests/unit/check_images.h"

/* ---- what entries and records say ---- */
static void test_entries(void **state)
{
    (void)state;
    struct bench b;
    bench_begin(&b, CLOSED);
    uint32_t one = entry_of(&b, 1), two = entry_of(&b, 2), hole = entry_of(&b, 5);
    assert_true(hole % ENTRIES_PER_PAGE >= ENTRY_SLOTS);
    CHANGE_ENTRY(&b, two, e->block = 1; e->hash = block_key(1).hash);
    EXPECT(&b, true, F(ENTRY_TWICE, -1, max_u64(one, two)));
    assert_int_equal(b.k.r->blocks, BLOCKS - 2);
    assert_int_equal(b.k.found[0].key.block, 1);
    bench_end(&b);
    static const struct {
        enum store_finding_kind kind;
        unsigned what;
    } cases[] = {{STORE_FINDING_ENTRY_NONSENSE, 0},      {STORE_FINDING_ENTRY_NONSENSE, 1},
                 {STORE_FINDING_ENTRY_NONSENSE, 2},      {STORE_FINDING_ENTRY_NONSENSE, 3},
                 {STORE_FINDING_ENTRY_MISPLACED, 4},     {STORE_FINDING_ENTRY_EPOCH, 5},
                 {STORE_FINDING_ENTRY_UNKNOWN_LAYER, 6}, {STORE_FINDING_ENTRY_BEYOND_END, 7}};
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        bench_begin(&b, CLOSED);
        CHANGE_ENTRY(&b, two, {
            if (cases[i].what == 0)
                e->crc[20] = 1;
            else if (cases[i].what == 1)
                e->flags |= 4;
            else if (cases[i].what == 2)
                e->reserved = 1;
            else if (cases[i].what == 3)
                e->epoch = e->counter = 0;
            else if (cases[i].what == 4)
                e->hash ^= 1ull << 40;
            else if (cases[i].what == 5)
                e->epoch = 5;
            else if (cases[i].what == 6)
                e->layer = 8;
            else
                e->block = 64, e->hash = block_key(64).hash;
        });
        const struct expected want = {cases[i].kind, -1, two};
        expect_list(&b, true, &want, 1);
        assert_int_equal(b.k.r->worst, cases[i].what > 5 ? STORE_LEVEL_WARNING : STORE_LEVEL_ERROR);
        repair_all(&b, 0);
        bench_end(&b);
    }
    /* A block that is all hole has no data, and a slot beyond the last does not exist: such a page is not
     * ours. */
    bench_begin(&b, CLOSED);
    CHANGE_ENTRY(&b, hole, e->written = 1; e->crc[0] = 7);
    EXPECT(&b, true, F(PAGE_LOST, -1, record_pages(&b) + hole / ENTRIES_PER_PAGE));
    bench_end(&b);
}

static void test_records(void **state)
{
    (void)state;
    struct bench b;
    bench_begin(&b, CLOSED);
    CHANGE_RECORD(&b, struct store_partition_record, STORE_PARTITION, 0, r->partition = 9);
    EXPECT(&b, true, F(RECORD_NONSENSE, -1, 0));
    bench_end(&b);
    bench_begin(&b, CLOSED);
    struct store_turn_record stray = {.volume = {{7}}, .host = 1, .turn = 1};
    CHANGE_RECORD(&b, struct store_turn_record, STORE_TURN, 9, *r = stray);
    EXPECT(&b, true, F(TURN_STRAY, -1, ANY));
    CHANGE_RECORD(&b, struct store_turn_record, STORE_TURN, 9, r->volume = volume_id; r->host = 4);
    EXPECT(&b, true, F(TURN_TWICE, -1, ANY));
    bench_end(&b);
    bench_begin(&b, CLOSED);
    CHANGE_RECORD(&b, struct store_volume_record, STORE_VOLUME, 4, r->id = volume_id; r->layer = 9);
    EXPECT(&b, true, F(VOLUME_TWICE, -1, ANY));
    CHANGE_RECORD(&b, struct store_volume_record, STORE_VOLUME, 4, r->id.b[0]++; r->layer = LAYER);
    EXPECT(&b, true, F(VOLUME_TWICE, -1, 4));
    bench_end(&b);
    /* Without its partition's record: each of the blocks. */
    bench_begin(&b, CLOSED);
    uint32_t partition = (uint32_t)block_key(2).hash & ((1u << BITS) - 1);
    CHANGE_RECORD(&b, struct store_partition_record, STORE_PARTITION, partition, memset(r, 0, sizeof *r));
    checked_run(&b.k, &b.w, true, 0, 0);
    assert_int_equal(b.k.r->counts[STORE_FINDING_ENTRY_NO_PARTITION], b.k.r->partitions[partition].blocks);
    assert_true(b.k.r->partitions[partition].blocks >= 7);
    assert_int_equal(checked_wrong(&b.k), b.k.r->partitions[partition].blocks);
    /* Records that a start gave up with their page. */
    bench_end(&b);
    bench_begin(&b, CLOSED);
    for (unsigned copy = 0; copy < 2; copy++)
        damage_page(&b, 0, 0, copy);
    assert_int_equal(world_open(&b.w, NULL), 0);
    assert_int_equal(world_close(&b.w), 0);
    EXPECT(&b, true, F(LOST_BEFORE, -1, 0), F(RECORDS_LOST, -1, STORE_PARTITION));
    bench_end(&b);
}

/* ---- data ---- */
static void test_data(void **state)
{
    (void)state;
    for (unsigned shape = 0; shape < SHAPES; shape++) {
        struct bench b;
        bench_begin(&b, shape);
        uint32_t two = entry_of(&b, 2), seven = entry_of(&b, 7);
        rot(b.w.data, slot_at(&b, two) + 4 * UNIT_BYTES);
        rot(b.w.data, slot_at(&b, two) + 30 * UNIT_BYTES); /* nothing is there */
        rot(b.w.data, slot_at(&b, seven) + 4 * UNIT_BYTES);
        rot(b.w.data, slot_at(&b, seven) + 6 * UNIT_BYTES);
        EXPECT_CLEAN(&b, false);
        assert_false(b.k.r->data_complete);
        EXPECT(&b, true, F(UNITS_BAD, -1, min_u64(two, seven)), F(UNITS_BAD, -1, max_u64(two, seven)));
        const struct store_finding *f = checked_find(&b.k, STORE_FINDING_UNITS_BAD, two > seven);
        assert_int_equal(f->units, 1u << 4);
        assert_int_equal(f->key.block, 2);
        f = checked_find(&b.k, STORE_FINDING_UNITS_BAD, two < seven);
        assert_int_equal(f->units, 1u << 4 | 1u << 6);
        assert_int_equal(b.k.r->volumes[0].bad_units, 3);
        assert_int_equal(b.k.r->partitions[block_key(2).hash & 7].bad_blocks +
                             (block_key(2).hash % 8 == block_key(7).hash % 8
                                  ? 0
                                  : b.k.r->partitions[block_key(7).hash & 7].bad_blocks),
                         2);
        repair_all(&b, 0);
        device_ram_fail_range(b.w.data, slot_at(&b, seven) + 3 * UNIT_BYTES, UNIT_BYTES, -EIO);
        checked_end(&b.k);
        checked_run(&b.k, &b.w, true, 0, 0);
        assert_int_equal(b.k.r->counts[STORE_FINDING_UNITS_BAD], 2);
        /* Its newest data are in the journal: what lies there matters to nobody. */
        bool in_journal = shape == CRASHED || shape == CRASHED_PMEM;
        assert_int_equal(b.k.r->counts[STORE_FINDING_UNITS_UNREADABLE], !in_journal);
        bench_end(&b);
    }
}

/* Stopped after any request and resumed: together all of the findings. */
static void test_stop(void **state)
{
    (void)state;
    struct bench b;
    bench_begin(&b, CLOSED);
    for (uint64_t n = 0; n < BLOCKS; n += 3) {
        if (n != 6)
            rot(b.w.data, slot_at(&b, entry_of(&b, n)) + 3 * UNIT_BYTES);
    }
    checked_run(&b.k, &b.w, true, 0, 0);
    uint64_t all = b.k.r->counts[STORE_FINDING_UNITS_BAD], units = b.k.r->units_checked, partial = 0;
    assert_int_equal(all, 13);
    checked_end(&b.k);
    for (uint64_t stop = 1;; stop++) {
        int rc = checked_run(&b.k, &b.w, true, stop, 0);
        if (rc == 0)
            break;
        assert_int_equal(rc, -EINTR);
        uint64_t found = b.k.r->counts[STORE_FINDING_UNITS_BAD], seen = b.k.r->units_checked,
                 from = b.k.r->next_entry;
        bool complete = b.k.r->complete;
        assert_false(b.k.r->data_complete);
        checked_end(&b.k);
        if (!complete)
            continue;
        assert_int_equal(checked_run(&b.k, &b.w, true, 0, from), 0);
        assert_int_equal(found + b.k.r->counts[STORE_FINDING_UNITS_BAD], all);
        assert_int_equal(seen + b.k.r->units_checked, units);
        assert_int_equal(b.k.r->next_entry, 0);
        checked_end(&b.k);
        partial += found > 0 && found < all;
    }
    assert_true(partial > 1);
    bench_end(&b);
}

/* ---- the journal ---- */
/* Of the batches at the tail: offset on the journal's device, seq, bytes to the payload. */
struct place {
    uint64_t at, seq;
    uint32_t head_bytes, units;
};
static unsigned batches_of(struct bench *b, struct place *out, unsigned max)
{
    const struct disk_super *sb = &b->image->super;
    struct device *d = b->w.journal ? b->w.journal : b->w.data;
    uint64_t pos = sb->tail_pos, seq = sb->tail_seq;
    unsigned n = 0;
    for (; n < max; n++) {
        struct disk_batch h;
        uint64_t at = sb->journal_offset + pos % sb->journal_bytes;
        medium_read(device_ram_medium(d), at, &h, sizeof h);
        if (h.magic != STORE_BATCH_MAGIC || h.seq != seq || h.salt != sb->salt)
            break;
        uint32_t head = (uint32_t)round_up(sizeof h + h.record_bytes, sb->journal_align);
        out[n] = (struct place){.at = at, .seq = seq, .head_bytes = head, .units = h.payload_units};
        pos += head + (uint64_t)h.payload_units * UNIT_BYTES;
        seq++;
    }
    return n;
}

static void flip(struct device *d, uint64_t at)
{
    uint8_t sector[512];
    medium_read(device_ram_medium(d), round_down(at, 512), sector, sizeof sector);
    sector[at % 512] ^= 1;
    put(d, round_down(at, 512), sector, sizeof sector);
}

static void test_journal(void **state)
{
    (void)state;
    for (unsigned shape = CRASHED; shape <= CRASHED_PMEM; shape += CRASHED_PMEM - CRASHED) {
        struct bench b;
        struct place p[200];
        bench_begin(&b, shape);
        struct device *d = b.w.journal ? b.w.journal : b.w.data;
        unsigned n = batches_of(&b, p, ARRAY_LEN(p));
        assert_true(n >= BLOCKS);
        flip(d, p[n / 2].at + 90);
        checked_run(&b.k, &b.w, true, 0, 0);
        const struct store_finding *gap = checked_find(&b.k, STORE_FINDING_JOURNAL_GAP, 0);
        assert_non_null(gap);
        assert_int_equal(gap->number, p[n / 2].seq);
        assert_int_equal(b.k.r->counts[STORE_FINDING_JOURNAL_GAP], 1);
        assert_int_equal(b.k.r->batches, n - 1);
        assert_true(b.k.r->counts[STORE_FINDING_ENTRY_SUSPECT] == 1);
        assert_int_equal(b.k.r->worst, STORE_LEVEL_DAMAGE);
        bench_end(&b);

        /* The last one: not to be told from a torn one. */
        bench_begin(&b, shape);
        d = b.w.journal ? b.w.journal : b.w.data;
        flip(d, p[n - 1].at + 90);
        EXPECT_CLEAN(&b, true);
        assert_int_equal(b.k.r->batches, n - 1);
        bench_end(&b);

        /* Payload in the middle of it. */
        unsigned with = 0;
        while (with < n && !p[with].units)
            with++;
        assert_true(with < n - 1);
        bench_begin(&b, shape);
        d = b.w.journal ? b.w.journal : b.w.data;
        flip(d, p[with].at + p[with].head_bytes + 100);
        EXPECT(&b, true, F(UNITS_BAD_JOURNAL, -1, ANY));
        assert_int_equal(b.k.r->volumes[0].bad_units, 1);
        device_ram_fail_range(d, p[n / 2].at, 4096, -EIO);
        EXPECT(&b, true, F(JOURNAL_UNREADABLE, -1, ANY));
        assert_false(b.k.r->complete);
        bench_end(&b);

        /* A start of the store finds the same. */
        bench_begin(&b, shape);
        d = b.w.journal ? b.w.journal : b.w.data;
        flip(d, p[n / 2].at + 90);
        assert_int_equal(world_open(&b.w, NULL), 0);
        assert_true(b.w.report.damaged);
        assert_int_equal(world_close(&b.w), 0);
        checked_run(&b.k, &b.w, true, 0, 0);
        assert_int_equal(b.k.r->counts[STORE_FINDING_SUSPECT_BEFORE], 1);
        assert_int_equal(b.k.r->counts[STORE_FINDING_ENTRY_SUSPECT], 1);
        bench_end(&b);
    }
}

/* The end of the journal is gone, and a metadata page proves that it was there. */
static void test_journal_end(void **state)
{
    (void)state;
    struct bench b;
    struct place p[200];
    bench_begin(&b, CRASHED);
    unsigned n = batches_of(&b, p, ARRAY_LEN(p));
    static _Alignas(4096) struct disk_entry_page page;
    uint32_t number = record_pages(&b);
    for (unsigned copy = 0; copy < 2; copy++) {
        get(&b, page_at(&b, number, copy), &page, sizeof page);
        page.head.lsn = p[n - 1].seq;
        page_seal(&page);
        put(b.w.data, page_at(&b, number, copy), &page, sizeof page);
    }
    EXPECT_CLEAN(&b, true);
    flip(b.w.data, p[n - 1].at + 90);
    EXPECT(&b, true, F(JOURNAL_END_LOST, -1, number));
    bench_end(&b);
}

static void test_journal_device(void **state)
{
    (void)state;
    static const uint64_t at[2] = {STORE_SUPER_0, STORE_SUPER_1};
    struct bench b;
    for (int copy = 0; copy < 2; copy++) {
        bench_begin(&b, CLOSED_PMEM);
        rot(b.w.journal, at[copy]);
        EXPECT(&b, true, F(JSUPER_COPY_BAD, copy, 0));
        repaired_whole(&b, 1);
        EXPECT_CLEAN(&b, true);
        put_old(b.w.journal, b.image->old_journal, at[copy], 4096);
        EXPECT(&b, true, F(JSUPER_COPY_STALE, copy, 0));
        repaired_whole(&b, 1);
        device_ram_fail_range(b.w.journal, at[copy], 4096, -EIO);
        EXPECT(&b, true, F(JSUPER_COPY_UNREADABLE, copy, 0));
        bench_end(&b);
        /* On pmem a superblock may tear: 8 bytes of the next one. */
        bench_begin(&b, CLOSED_PMEM);
        struct disk_jsuper j;
        medium_read(device_ram_medium(b.w.journal), at[copy], &j, sizeof j);
        j.sequence++;
        put(b.w.journal, at[copy], &j, sizeof j);
        EXPECT(&b, true, F(JSUPER_CUT_OFF, copy, 0));
        repaired_whole(&b, 1);
        bench_end(&b);
    }
    bench_begin(&b, CLOSED_PMEM);
    rot(b.w.journal, at[0]);
    rot(b.w.journal, at[1]);
    EXPECT(&b, true, F(JSUPER_LOST, -1, 0));
    device_ram_fail_range(b.w.journal, 0, 65536, -EIO);
    EXPECT(&b, true, F(JSUPER_UNREADABLE, -1, 0));
    device_ram_fail_range(b.w.journal, 0, 65536, 0);
    medium_blank(device_ram_medium(b.w.journal));
    EXPECT(&b, true, F(JOURNAL_FOREIGN, -1, 0));
    medium_restore(device_ram_medium(b.w.journal), images[CRASHED_PMEM].journal);
    EXPECT(&b, true, F(JOURNAL_FOREIGN, -1, 0));
    medium_restore(device_ram_medium(b.w.journal), b.image->old_journal);
    EXPECT(&b, true, F(JOURNAL_ROLLED_BACK, -1, 0));
    medium_restore(device_ram_medium(b.w.journal), b.image->journal);
    medium_restore(device_ram_medium(b.w.data), b.image->old_data);
    EXPECT(&b, true, F(DATA_ROLLED_BACK, -1, 0));
    medium_restore(device_ram_medium(b.w.data), b.image->data);
    b.w.journal->size -= 4096;
    EXPECT(&b, true, F(JOURNAL_SHORT, -1, ANY));
    b.w.journal->size += 4096;
    EXPECT_CLEAN(&b, true);
    struct device *journal = b.w.journal;
    b.w.journal = NULL;
    EXPECT(&b, true, F(JOURNAL_MISSING, -1, 0));
    b.w.journal = journal;
    medium_restore(device_ram_medium(b.w.data), images[CLOSED].data);
    EXPECT(&b, true, F(JOURNAL_SURPLUS, -1, 0));
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),        cmocka_unit_test(test_records),
        cmocka_unit_test(test_data),           cmocka_unit_test(test_stop),
        cmocka_unit_test(test_journal),        cmocka_unit_test(test_journal_end),
        cmocka_unit_test(test_journal_device),
    };
    return cmocka_run_group_tests(tests, make_images, free_images);
}
