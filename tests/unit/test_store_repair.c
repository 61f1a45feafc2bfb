/* A repair: cut off anywhere, failing, and what a start makes of its work. */
#include "tests/unit/check_images.h"

static void damage_much(struct bench *b)
{
    rot(b->w.data, STORE_SUPER_1);
    if (b->w.journal)
        rot(b->w.journal, STORE_SUPER_0);
    for (uint32_t page = 0; page < pages_used(b); page++)
        damage_page(b, page % 4, page, page % 3 == 0);
}

/* The power goes after each persist of a repair, and of the repair of that: in the end all is as it was. */
static void test_repair_crash(void **state)
{
    (void)state;
    for (unsigned shape = 0; shape < SHAPES; shape++) {
        bool over = false;
        for (uint64_t n = 1; !over; n++) {
            struct bench b;
            bench_begin(&b, shape);
            damage_much(&b);
            checked_run(&b.k, &b.w, false, 0, 0);
            uint64_t want = b.k.r->repairable, written, total = 0;
            assert_int_equal(want, pages_used(&b) + 1 + (b.w.journal != NULL));
            device_ram_crash_after(b.w.data, n);
            if (b.w.journal)
                device_ram_crash_after(b.w.journal, n);
            int rc = store_repair(b.k.check, false, NULL, NULL, &written);
            over = rc == 0;
            assert_true(rc == 0 || rc == -ECANCELED);
            for (unsigned again = 0; rc && again < 3; again++) {
                struct device *data = device_ram_crash_image(b.w.data, n + again);
                struct device *journal =
                    b.w.journal ? device_ram_crash_image(b.w.journal, n + again + 1) : NULL;
                device_destroy(b.w.data);
                if (b.w.journal)
                    device_destroy(b.w.journal);
                b.w.data = data;
                b.w.journal = journal;
                checked_end(&b.k);
                assert_int_equal(checked_run(&b.k, &b.w, true, 0, 0), 0);
                assert_true(b.k.r->complete && b.k.r->worst <= STORE_LEVEL_ERROR);
                assert_true(b.k.r->repairable <= want);
                want = b.k.r->repairable;
                if (again < 2)
                    device_ram_crash_after(b.w.data, 1 + n % 3);
                rc = store_repair(b.k.check, false, NULL, NULL, &written);
                total += written;
            }
            assert_int_equal(rc, 0);
            assert_same(b.w.data, b.image->data);
            if (b.w.journal)
                assert_same(b.w.journal, b.image->journal);
            EXPECT_CLEAN(&b, true);
            bench_end(&b);
        }
    }
}

/* The source rots between check and repair, a write or a flush fails: said, and nothing is made worse. */
static void test_repair_fails(void **state)
{
    (void)state;
    struct bench b;
    uint64_t written;
    bench_begin(&b, CLOSED);
    damage_page(&b, 0, 3, 0);
    checked_run(&b.k, &b.w, false, 0, 0);
    damage_page(&b, 0, 3, 1);
    assert_int_equal(store_repair(b.k.check, false, NULL, NULL, &written), -EBADMSG);
    bench_end(&b);
    bench_begin(&b, CLOSED);
    damage_page(&b, 0, 3, 0);
    checked_run(&b.k, &b.w, false, 0, 0);
    device_ram_fail_nth(b.w.data, DEVICE_FLUSH, 1, -EIO);
    assert_int_equal(store_repair_flush(b.k.check), -EIO);
    device_ram_fail_nth(b.w.data, DEVICE_FLUSH, 1, -EIO);
    assert_int_equal(store_repair(b.k.check, false, NULL, NULL, &written), -EIO);
    assert_int_equal(written, 0);
    b.w.data->read_only = true;
    assert_int_equal(store_repair(b.k.check, false, NULL, NULL, &written), -EROFS);
    bench_end(&b);
}

/* After a repair the store opens without anything to mend, and its data are those of before. */
static void test_repair_then_open(void **state)
{
    (void)state;
    for (unsigned shape = 0; shape < SHAPES; shape++) {
        struct bench b;
        bench_begin(&b, shape);
        damage_much(&b);
        checked_run(&b.k, &b.w, false, 0, 0);
        uint64_t written;
        assert_int_equal(store_repair(b.k.check, false, NULL, NULL, &written), 0);
        assert_int_equal(world_open(&b.w, NULL), 0);
        assert_false(b.w.report.damaged);
        assert_int_equal(b.w.report.pages_repaired, 0);
        assert_int_equal(b.w.report.blocks, BLOCKS - 1);
        for (uint64_t n = 0; n < BLOCKS; n++) {
            struct request q;
            request_init(&q, n, 3, 1, 0);
            q.op.key = block_key(n);
            assert_int_equal(do_request(&b.w, &q, DO_READ), 0);
            assert_true(unit_is(q.data, n, 3, n == 5 || n == 6 ? 0 : n % 2 ? 100 + n : 1 + n));
            request_free(&q);
        }
        assert_int_equal(world_close(&b.w), 0);
        EXPECT_CLEAN(&b, true);
        bench_end(&b);
    }
}

/*
 * A checkpoint was cut off between copy A and copy B of a page from which a block was removed: replay finds
 * nothing to change in copy A. The start has to bring copy B up to it all the same, or the block comes back
 * when copy A rots.
 */
static void test_start_levels_copies(void **state)
{
    (void)state;
    struct bench b;
    bench_begin(&b, CRASHED);
    assert_int_equal(world_open(&b.w, NULL), 0);
    assert_int_equal(world_close(&b.w), 0);
    struct medium *after = medium_clone(device_ram_medium(b.w.data));
    medium_restore(device_ram_medium(b.w.data), b.image->data);
    for (uint32_t page = 0; page < pages_used(&b); page++)
        put_old(b.w.data, after, page_at(&b, page, 0), STORE_PAGE_BYTES);
    EXPECT(&b, true, F(PAGES_BEHIND, -1, ANY));
    assert_int_equal(world_open(&b.w, NULL), 0);
    assert_int_equal(world_close(&b.w), 0);
    EXPECT_CLEAN(&b, true);
    for (uint32_t page = 0; page < pages_used(&b); page++) {
        uint8_t copies[2][STORE_PAGE_BYTES];
        for (unsigned copy = 0; copy < 2; copy++)
            get(&b, page_at(&b, page, copy), copies[copy], STORE_PAGE_BYTES);
        assert_memory_equal(copies[0], copies[1], STORE_PAGE_BYTES);
    }
    medium_destroy(after);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repair_crash),
        cmocka_unit_test(test_repair_fails),
        cmocka_unit_test(test_repair_then_open),
        cmocka_unit_test(test_start_levels_copies),
    };
    return cmocka_run_group_tests(tests, make_images, free_images);
}
