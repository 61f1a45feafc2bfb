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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_basic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
