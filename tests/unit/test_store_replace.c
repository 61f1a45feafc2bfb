/* test_store_replace.c: a block that becomes exactly what another copy has, version and holes and all. */
#include "tests/unit/store_harness.h"

static void make(struct world *w, uint64_t seed, bool pmem)
{
    world_init(w, seed);
    w->data = device_ram_create(8 * MIB, 4096, 512, seed);
    if (pmem) {
        w->journal = device_ram_create(MIB + 65536, 64, 8, seed);
        w->journal->durable_writes = true;
    }
    assert_int_equal(world_format(w, small_format()), 0);
    assert_int_equal(world_open(w, NULL), 0);
}

/* The whole block at version v, with the units of map written. */
static int replace(struct world *w, uint64_t block, uint32_t map, uint64_t v)
{
    struct request q;
    request_init(&q, block, 0, UNITS_PER_BLOCK, v);
    q.op.replace = true;
    q.op.written = map;
    int rc = do_request(w, &q, DO_WRITE);
    request_free(&q);
    return rc;
}

static void check_block(struct world *w, uint64_t block, uint32_t map, uint64_t v)
{
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++)
        check_unit(w, block, u, map >> u & 1u ? v : 0, v);
}

static void becomes_that(bool pmem)
{
    struct world w;
    make(&w, pmem ? 11 : 10, pmem);
    assert_int_equal(do_write(&w, 1, 0, UNITS_PER_BLOCK, 5), 0);
    assert_int_equal(do_write(&w, 1, 3, 2, 6), 0);
    assert_int_equal(replace(&w, 1, 0x0f0000f1u, 9), 0); /* over what is there */
    check_block(&w, 1, 0x0f0000f1u, 9);
    assert_int_equal(replace(&w, 2, 0x00000010u, 3), 0); /* over nothing */
    check_block(&w, 2, 0x00000010u, 3);
    assert_int_equal(replace(&w, 1, 0x80000001u, 4), 0); /* back to an older version */
    check_block(&w, 1, 0x80000001u, 4);
    assert_int_equal(do_write(&w, 1, 1, 1, 7), 0);
    check_unit(&w, 1, 0, 4, 7);
    check_unit(&w, 1, 1, 7, 7);
    check_unit(&w, 1, 2, 0, 7);
    assert_int_equal(world_close(&w), 0);
    assert_int_equal(world_open(&w, NULL), 0);
    check_unit(&w, 1, 31, 4, 7);
    check_block(&w, 2, 0x00000010u, 3);
    world_end(&w);
}

static void test_data_journal(void **state)
{
    (void)state;
    becomes_that(false);
}

static void test_pmem_journal(void **state)
{
    (void)state;
    becomes_that(true);
}

/* Replayed from the journal, without a close. */
static void test_replayed(void **state)
{
    (void)state;
    struct world w;
    make(&w, 12, false);
    assert_int_equal(do_write(&w, 1, 0, UNITS_PER_BLOCK, 2), 0);
    assert_int_equal(replace(&w, 1, 0x00ff00ffu, 8), 0);
    assert_int_equal(replace(&w, 3, 0x1u, 8), 0);
    store_destroy(w.s);
    w.s = NULL;
    assert_int_equal(world_open(&w, NULL), 0);
    check_block(&w, 1, 0x00ff00ffu, 8);
    check_block(&w, 3, 0x1u, 8);
    world_end(&w);
}

static void check_lost(struct world *w, uint64_t block, uint32_t unit, bool lost, uint64_t content)
{
    struct request q;
    request_init(&q, block, unit, 1, 0);
    assert_int_equal(do_request(w, &q, DO_READ), lost ? -EBADMSG : 0);
    if (!lost)
        assert_true(unit_is(q.data, block, unit, content));
    request_free(&q);
}

/* Units without data: an error until they are written, after a replay and a close as well; the others are
 * whole. */
static void lost_units(bool pmem, bool close)
{
    struct world w;
    make(&w, 14 + pmem, pmem);
    assert_int_equal(do_write(&w, 1, 0, UNITS_PER_BLOCK, 2), 0);
    assert_int_equal(do_write(&w, 1, 3, 2, 3), 0); /* in the journal alone, as yet */
    for (uint64_t block = 1; block <= 2; block++) {
        struct request q;
        request_init(&q, block, 0, UNITS_PER_BLOCK, 8);
        q.op.replace = true;
        q.op.written = 0x0000ffffu;
        q.op.lost = 0x00000018u;
        assert_int_equal(do_request(&w, &q, DO_WRITE), 0);
        request_free(&q);
    }
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t block = 1; block <= 2; block++) {
            for (uint32_t u = 0; u < 16; u++)
                check_lost(&w, block, u, u == 3 || u == 4, 8);
            check_unit(&w, block, 16, 0, 8);
        }
        if (round == 1)
            break;
        if (close) {
            assert_int_equal(world_close(&w), 0);
        } else {
            store_destroy(w.s);
            w.s = NULL;
        }
        assert_int_equal(world_open(&w, NULL), 0);
    }
    assert_int_equal(do_write(&w, 1, 3, 1, 9), 0);
    check_lost(&w, 1, 3, false, 9);
    check_lost(&w, 1, 4, true, 0);
    assert_int_equal(do_write(&w, 1, 0, UNITS_PER_BLOCK, 10), 0);
    check_block(&w, 1, UINT32_MAX, 10);
    world_end(&w);
}

static void test_lost_units(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        lost_units(i & 1, i & 2);
}

static void test_refused(void **state)
{
    (void)state;
    struct world w;
    struct request q;
    make(&w, 13, false);
    assert_int_equal(replace(&w, 1, 0, 8), -EINVAL); /* nothing written: that is a removal */
    request_init(&q, 1, 0, 4, 8);
    q.op.replace = true;
    q.op.written = 0xf;
    assert_int_equal(do_request(&w, &q, DO_WRITE), -EINVAL); /* not the whole block */
    request_free(&q);
    check_unit(&w, 1, 0, 0, 0);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_journal), cmocka_unit_test(test_pmem_journal),
        cmocka_unit_test(test_replayed),     cmocka_unit_test(test_lost_units),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
