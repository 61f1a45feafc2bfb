/* What a check says of superblocks and metadata pages that are damaged, and that a repair makes them whole.
 */
#include "tests/unit/check_images.h"

static void test_clean(void **state)
{
    (void)state;
    for (unsigned shape = 0; shape < SHAPES; shape++) {
        struct bench b;
        bench_begin(&b, shape);
        EXPECT_CLEAN(&b, true);
        const struct store_check_report *r = b.k.r;
        assert_true(r->complete && r->data_complete && r->worst == STORE_LEVEL_NOTE);
        assert_int_equal(r->blocks, BLOCKS - 1);
        assert_int_equal(r->counts[STORE_FINDING_JOURNAL_PENDING], shape == CRASHED || shape == CRASHED_PMEM);
        assert_int_equal(r->identity.module, MODULE);
        assert_int_equal(r->partition_count, 1u << BITS);
        assert_int_equal(r->volume_count, 1);
        assert_int_equal(r->volumes[0].blocks, BLOCKS - 1);
        assert_true(uuid_eq(&r->volumes[0].id, &volume_id));
        uint64_t units = 0;
        for (uint64_t n = 0; n < BLOCKS; n++)
            units += n == 5 || n == 6 ? 0 : n % 2 ? 4 : 5;
        assert_int_equal(r->volumes[0].units, units);
        assert_int_equal(r->partitions[0].epoch, 4);
        assert_int_equal(r->partitions[1].epoch, 3);
        assert_same(b.w.data, b.image->data);
        bench_end(&b);
    }
}

static void test_pages_one_copy(void **state)
{
    (void)state;
    struct bench b;
    bench_begin(&b, CLOSED);
    uint32_t pages = pages_used(&b);
    bench_end(&b);
    for (uint32_t n = 0; n < pages * 8; n++) {
        uint32_t page = n / 8;
        int copy = n % 2;
        bench_begin(&b, CLOSED);
        damage_page(&b, n / 2 % 4, page, (unsigned)copy);
        EXPECT(&b, true, F(PAGE_COPY_BAD, copy, page));
        assert_int_equal(b.k.r->worst, STORE_LEVEL_ERROR);
        repaired_whole(&b, 1);
        EXPECT_CLEAN(&b, true);
        bench_end(&b);
    }
}

static void test_pages_both_copies(void **state)
{
    (void)state;
    struct bench b;
    bench_begin(&b, CLOSED);
    uint32_t pages = pages_used(&b);
    bench_end(&b);
    for (uint32_t page = 0; page < pages; page++) {
        bench_begin(&b, CLOSED);
        damage_page(&b, page % 4, page, 0);
        damage_page(&b, (page + 1) % 4, page, 1);
        EXPECT(&b, true, F(PAGE_LOST, -1, page));
        assert_int_equal(b.k.r->worst, STORE_LEVEL_DAMAGE);
        repair_all(&b, 0);
        bench_end(&b);
    }
}

/* In a crashed store a page that the journal changes may have been torn; others may not. */
static void test_pages_torn(void **state)
{
    (void)state;
    struct bench b;
    bench_begin(&b, CRASHED);
    uint32_t pages = pages_used(&b), torn = 0;
    bench_end(&b);
    for (uint32_t page = 0; page < pages; page++) {
        for (unsigned copy = 0; copy < 2; copy++) {
            bench_begin(&b, CRASHED);
            damage_page(&b, 0, page, copy);
            checked_run(&b.k, &b.w, true, 0, 0);
            bool is_torn = b.k.r->counts[STORE_FINDING_PAGE_COPY_TORN];
            torn += is_torn;
            /* The first page of each kind of records is what the last writes changed, and all entries but the
             * last page. */
            if (is_torn)
                EXPECT(&b, true, F(PAGE_COPY_TORN, (int)copy, page));
            else
                EXPECT(&b, true, F(PAGE_COPY_BAD, (int)copy, page));
            repaired_whole(&b, 1);
            bench_end(&b);
        }
    }
    assert_true(torn >= 2 * 4 && torn < 2 * pages);
}

static void test_pages_unreadable(void **state)
{
    (void)state;
    for (uint32_t page = 0; page < 6; page++) {
        for (unsigned which = 1; which <= 3; which++) {
            struct bench b;
            bench_begin(&b, CLOSED);
            for (unsigned copy = 0; copy < 2; copy++) {
                if (which & (1u << copy))
                    device_ram_fail_range(b.w.data, page_at(&b, page, copy), STORE_PAGE_BYTES, -EIO);
            }
            if (which == 3)
                EXPECT(&b, true, F(PAGE_UNREADABLE, -1, page));
            else
                EXPECT(&b, true, F(PAGE_COPY_UNREADABLE, which == 2, page));
            uint64_t written = 9;
            assert_int_equal(store_repair(b.k.check, false, NULL, NULL, &written), which == 3 ? 0 : -EIO);
            assert_int_equal(written, 0);
            device_ram_fail_range(b.w.data, 0, UINT64_MAX, 0);
            if (which != 3) { /* the sector takes a write again, as disks do */
                assert_int_equal(store_repair(b.k.check, false, NULL, NULL, &written), 0);
                assert_int_equal(written, 1);
            }
            EXPECT_CLEAN(&b, true);
            bench_end(&b);
        }
    }
}

/* A write that the device confirmed and lost: the page of the start before is still there, whole. */
static void test_pages_stale(void **state)
{
    (void)state;
    struct bench b;
    unsigned stale = 0;
    bench_begin(&b, CLOSED);
    uint32_t pages = pages_used(&b);
    bench_end(&b);
    for (uint32_t page = 0; page < pages; page++) {
        for (unsigned copy = 0; copy < 2; copy++) {
            bench_begin(&b, CLOSED);
            struct disk_page_head now, old;
            get(&b, page_at(&b, page, copy), &now, sizeof now);
            put_old(b.w.data, b.image->old_data, page_at(&b, page, copy), STORE_PAGE_BYTES);
            get(&b, page_at(&b, page, copy), &old, sizeof old);
            if (now.lsn != old.lsn && old.magic) {
                EXPECT(&b, true, F(PAGE_COPY_STALE, (int)copy, page));
                repaired_whole(&b, 1);
                stale++;
            }
            EXPECT_CLEAN(&b, true);
            bench_end(&b);
        }
    }
    assert_true(stale >= 8);
}

static void test_pages_conflict(void **state)
{
    (void)state;
    struct bench b;
    bench_begin(&b, CLOSED);
    static _Alignas(4096) struct disk_entry_page p;
    uint32_t page = record_pages(&b);
    get(&b, page_at(&b, page, 1), &p, sizeof p);
    p.entry[2].counter++;
    page_seal(&p);
    put(b.w.data, page_at(&b, page, 1), &p, sizeof p);
    EXPECT(&b, true, F(PAGE_CONFLICT, -1, page));
    repair_all(&b, 0);
    /* In a crashed store too, where the entry is not one of the journal's. */
    bench_end(&b);
    bench_begin(&b, CRASHED);
    get(&b, page_at(&b, page, 1), &p, sizeof p);
    p.entry[2].counter++;
    p.head.lsn = b.image->super.tail_seq;
    page_seal(&p);
    put(b.w.data, page_at(&b, page, 1), &p, sizeof p);
    EXPECT(&b, true, F(PAGE_CONFLICT, -1, page));
    bench_end(&b);
}

static void test_supers(void **state)
{
    (void)state;
    static const uint64_t at[2] = {STORE_SUPER_0, STORE_SUPER_1};
    for (unsigned shape = 0; shape < SHAPES; shape++) {
        for (int copy = 0; copy < 2; copy++) {
            struct bench b;
            bench_begin(&b, shape);
            rot(b.w.data, at[copy]);
            EXPECT(&b, true, F(SUPER_COPY_BAD, copy, 0));
            repaired_whole(&b, 1);
            EXPECT_CLEAN(&b, true);
            static const uint8_t zero[STORE_PAGE_BYTES];
            put(b.w.data, at[copy], zero, sizeof zero);
            EXPECT(&b, true, F(SUPER_COPY_BAD, copy, 0));
            repaired_whole(&b, 1);
            put_old(b.w.data, b.image->old_data, at[copy], STORE_PAGE_BYTES);
            struct disk_super both[2];
            for (int i = 0; i < 2; i++)
                medium_read(device_ram_medium(b.w.data), at[i], &both[i], sizeof both[i]);
            if (both[!copy].sequence == both[copy].sequence + 1) {
                EXPECT(&b, true, F(SUPER_CUT_OFF, -1, ANY)); /* or the update was lost: nothing tells */
                CHANGE_SUPER(&b, 1u << copy, sb->sequence -= 3);
            }
            EXPECT(&b, true, F(SUPER_COPY_STALE, copy, 0));
            repaired_whole(&b, 1);
            device_ram_fail_range(b.w.data, at[copy], 4096, -EIO);
            EXPECT(&b, true, F(SUPER_COPY_UNREADABLE, copy, 0));
            bench_end(&b);
        }
    }
}

static void test_supers_both(void **state)
{
    (void)state;
    struct bench b;
    bench_begin(&b, CLOSED);
    rot(b.w.data, STORE_SUPER_0);
    rot(b.w.data, STORE_SUPER_1);
    EXPECT(&b, true, F(SUPER_LOST, -1, 0));
    uint64_t written = 9;
    assert_int_equal(store_repair(b.k.check, false, NULL, NULL, &written), -EPERM);
    assert_int_equal(written, 0);
    medium_blank(device_ram_medium(b.w.data));
    EXPECT(&b, true, F(DEVICE_BLANK, -1, 0));
    assert_int_equal(b.k.r->worst, STORE_LEVEL_REFUSED);
    uint8_t noise[4096];
    rng_fill(&b.w.rng, noise, sizeof noise);
    put(b.w.data, 0, noise, sizeof noise);
    EXPECT(&b, true, F(DEVICE_FOREIGN, -1, 0));
    device_ram_fail_range(b.w.data, 0, 65536, -EIO);
    EXPECT(&b, true, F(DEVICE_UNREADABLE, -1, 0));
    bench_end(&b);

    bench_begin(&b, CLOSED);
    CHANGE_SUPER(&b, 2, sb->sequence--);
    EXPECT(&b, true, F(SUPER_CUT_OFF, -1, ANY));
    CHANGE_SUPER(&b, 2, sb->sequence++; sb->start_counter++);
    EXPECT(&b, true, F(SUPER_NONSENSE, -1, ANY));
    CHANGE_SUPER(&b, 3, sb->slots_offset += 4096);
    EXPECT(&b, true, F(SUPER_NONSENSE, 0, ANY));
    CHANGE_SUPER(&b, 3, sb->slots_offset -= 4096; sb->format = 9);
    EXPECT(&b, true, F(SUPER_FORMAT, -1, 9));
    bench_end(&b);

    bench_begin(&b, CLOSED);
    b.w.data->size -= MIB;
    EXPECT(&b, true, F(DEVICE_SHORT, -1, DEVICE - MIB));
    b.w.data->size += MIB;
    CHANGE_SUPER(&b, 3, sb->flags |= SUPER_PAGES_LOST);
    EXPECT(&b, true, F(LOST_BEFORE, -1, 0));
    CHANGE_SUPER(&b, 3, sb->flags = 0; sb->suspect_below = sb->tail_seq);
    EXPECT(&b, true, F(SUSPECT_BEFORE, -1, ANY), F(ENTRY_SUSPECT, -1, BLOCKS - 1));
    assert_int_equal(b.k.r->volumes[0].suspect_blocks, BLOCKS - 1);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_pages_one_copy),
        cmocka_unit_test(test_pages_both_copies),
        cmocka_unit_test(test_pages_torn),
        cmocka_unit_test(test_pages_unreadable),
        cmocka_unit_test(test_pages_stale),
        cmocka_unit_test(test_pages_conflict),
        cmocka_unit_test(test_supers),
        cmocka_unit_test(test_supers_both),
    };
    return cmocka_run_group_tests(tests, make_images, free_images);
}
