/* test_ctl_bench.c: the histogram against sorted values, and the patterns against every way to give wrong
 * data back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/rng.h"
#include "services/ctl/bench.h"

/* ---- histogram ---- */

static void small_values_are_exact(void **state)
{
    static struct bench_hist h;
    (void)state;
    memset(&h, 0, sizeof(h));
    assert_int_equal(bench_hist_quantile(&h, 5000), 0);
    assert_int_equal(bench_hist_average(&h), 0);
    for (uint64_t v = 1; v <= 20; v++)
        bench_hist_add(&h, v);
    assert_int_equal(bench_hist_average(&h), 10);
    assert_int_equal(bench_hist_quantile(&h, 0), 1);
    assert_int_equal(bench_hist_quantile(&h, 500), 1); /* 1 of 20 */
    assert_int_equal(bench_hist_quantile(&h, 501), 2);
    assert_int_equal(bench_hist_quantile(&h, 5000), 10);
    assert_int_equal(bench_hist_quantile(&h, 9990), 20);
    assert_int_equal(bench_hist_quantile(&h, 10000), 20);
    assert_int_equal(h.min_ns, 1);
    assert_int_equal(h.max_ns, 20);
}

static void one_value_is_every_quantile(void **state)
{
    static struct bench_hist h;
    (void)state;
    memset(&h, 0, sizeof(h));
    bench_hist_add(&h, 123456789);
    for (unsigned q = 0; q <= 10000; q += 2500)
        assert_int_equal(bench_hist_quantile(&h, q), 123456789);
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void quantiles_are_near_the_sorted_values(void **state)
{
    enum { COUNT = 5003 };
    static uint64_t values[COUNT];
    static struct bench_hist h, part[2];
    struct rng rng;
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        rng_seed(&rng, seed);
        memset(&h, 0, sizeof(h));
        memset(part, 0, sizeof(part));
        for (unsigned i = 0; i < COUNT; i++) {
            values[i] = rng_u64(&rng) >> (24 + rng_below(&rng, 40));
            bench_hist_add(&part[i % 2], values[i]);
        }
        bench_hist_merge(&h, &part[0]);
        bench_hist_merge(&h, &part[1]);
        qsort(values, COUNT, sizeof(values[0]), compare);
        assert_int_equal(h.count, COUNT);
        assert_int_equal(h.min_ns, values[0]);
        assert_int_equal(h.max_ns, values[COUNT - 1]);
        for (unsigned q = 1; q <= 10000; q++) {
            const uint64_t exact = values[((uint64_t)COUNT * q + 9999) / 10000 - 1];
            const uint64_t got = bench_hist_quantile(&h, q);
            assert_true(got >= exact && got <= exact + exact / 32);
        }
    }
}

static void huge_values_have_a_bucket(void **state)
{
    static struct bench_hist h;
    (void)state;
    memset(&h, 0, sizeof(h));
    bench_hist_add(&h, UINT64_MAX);
    bench_hist_add(&h, 1ull << BENCH_HIST_BITS);
    bench_hist_add(&h, (1ull << BENCH_HIST_BITS) - 1);
    assert_int_equal(bench_hist_quantile(&h, 3333), (1ull << BENCH_HIST_BITS) - 1);
    assert_int_equal(bench_hist_quantile(&h, 10000), UINT64_MAX);
}

static void merging_nothing_changes_nothing(void **state)
{
    static struct bench_hist h, empty;
    (void)state;
    bench_hist_add(&h, 9);
    bench_hist_merge(&h, &empty);
    assert_int_equal(h.min_ns, 9);
    assert_int_equal(h.count, 1);
    bench_hist_merge(&empty, &h);
    assert_int_equal(empty.min_ns, 9);
}

/* ---- patterns ---- */

enum { IO = 2048, EXTENTS = 8 };

/* Writes extent into volume as the load does. */
static void write_extent(struct bench_verify *v, uint8_t *volume, uint64_t extent)
{
    assert_true(bench_verify_take(v, extent));
    bench_verify_fill(v, extent, volume + extent * IO);
    bench_verify_written(v, extent);
    bench_verify_release(v, extent);
}

struct world {
    struct bench_verify v;
    uint8_t volume[IO * EXTENTS], old[IO * EXTENTS];
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    if (w == NULL || bench_verify_init(&w->v, 42, IO, EXTENTS) != 0)
        return -1;
    *state = w;
    for (uint64_t i = 0; i < EXTENTS; i++)
        write_extent(&w->v, w->volume, i);
    memcpy(w->old, w->volume, sizeof(w->old));
    write_extent(&w->v, w->volume, 3);
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    bench_verify_free(&w->v);
    free(w);
    return 0;
}

static bool is_right(const struct world *w, uint64_t extent, struct bench_mismatch *m)
{
    return bench_verify_check(&w->v, extent, w->volume + extent * IO, m);
}

static void what_was_written_is_right(void **state)
{
    struct world *w = *state;
    struct bench_mismatch m;
    for (uint64_t i = 0; i < EXTENTS; i++)
        assert_true(is_right(w, i, &m));
}

static void every_flipped_bit_shows(void **state)
{
    struct world *w = *state;
    struct bench_mismatch m;
    for (size_t bit = 0; bit < (size_t)IO * 8; bit++) {
        uint8_t *at = w->volume + 5 * IO + bit / 8;
        *at ^= (uint8_t)(1u << bit % 8);
        assert_false(is_right(w, 5, &m));
        assert_int_equal(m.offset, 5 * IO + bit / 64 * 8);
        assert_int_equal(m.expected ^ m.found, 1ull << bit % 64);
        *at ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(is_right(w, 5, &m));
}

static void an_old_sector_shows_and_is_named(void **state)
{
    struct world *w = *state;
    struct bench_mismatch m;
    memcpy(w->volume + 3 * IO + 1024, w->old + 3 * IO + 1024, SECTOR_BYTES);
    assert_false(is_right(w, 3, &m));
    assert_int_equal(m.offset, 3 * IO + 1024 + 8); /* the first word, the offset, is the same */
    assert_int_equal(m.generation, 2);
    assert_true(m.found_is_ours);
    assert_int_equal(m.found_generation, 1);
    assert_int_equal(m.found_offset, 3 * IO + 1024);
}

static void a_sector_of_elsewhere_shows_and_is_named(void **state)
{
    struct world *w = *state;
    struct bench_mismatch m;
    memcpy(w->volume + 6 * IO, w->volume + 2 * IO + 512, SECTOR_BYTES);
    assert_false(is_right(w, 6, &m));
    assert_int_equal(m.offset, 6 * IO);
    assert_true(m.found_is_ours);
    assert_int_equal(m.found_offset, 2 * IO + 512);
    assert_int_equal(m.found_generation, 1);
}

static void zeroes_and_other_runs_show(void **state)
{
    struct world *w = *state;
    struct bench_mismatch m;
    struct bench_verify other;
    memset(w->volume + 4 * IO + 1536, 0, SECTOR_BYTES);
    assert_false(is_right(w, 4, &m));
    assert_int_equal(m.offset, 4 * IO + 1536);
    assert_false(m.found_is_ours);
    assert_int_equal(bench_verify_init(&other, 43, IO, EXTENTS), 0);
    write_extent(&other, w->volume, 1);
    assert_false(is_right(w, 1, &m));
    assert_false(m.found_is_ours);
    bench_verify_free(&other);
}

/* The first word is the offset: at offset 0 a lost write of zeroes must show all the same. */
static void zeroes_at_offset_zero_show(void **state)
{
    struct world *w = *state;
    struct bench_mismatch m;
    memset(w->volume, 0, IO);
    assert_false(is_right(w, 0, &m));
}

static void what_was_never_written_is_not_judged(void **state)
{
    struct bench_verify v;
    struct bench_mismatch m;
    uint8_t buf[IO];
    (void)state;
    memset(buf, 0xa5, sizeof(buf));
    assert_int_equal(bench_verify_init(&v, 1, IO, 2), 0);
    assert_true(bench_verify_check(&v, 1, buf, &m));
    bench_verify_free(&v);
}

static void an_extent_has_one_request_at_a_time(void **state)
{
    struct world *w = *state;
    struct bench_mismatch m;
    assert_true(bench_verify_take(&w->v, 7));
    assert_false(bench_verify_take(&w->v, 7));
    assert_true(bench_verify_take(&w->v, 6));
    assert_true(is_right(w, 7, &m)); /* taken, not written: as it was */
    bench_verify_release(&w->v, 7);
    assert_true(bench_verify_take(&w->v, 7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(one_value_is_every_quantile),
        cmocka_unit_test(quantiles_are_near_the_sorted_values),
        cmocka_unit_test(huge_values_have_a_bucket),
        cmocka_unit_test(merging_nothing_changes_nothing),
        cmocka_unit_test_setup_teardown(what_was_written_is_right, setup, teardown),
        cmocka_unit_test_setup_teardown(every_flipped_bit_shows, setup, teardown),
        cmocka_unit_test_setup_teardown(an_old_sector_shows_and_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sector_of_elsewhere_shows_and_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(zeroes_and_other_runs_show, setup, teardown),
        cmocka_unit_test_setup_teardown(zeroes_at_offset_zero_show, setup, teardown),
        cmocka_unit_test(what_was_never_written_is_not_judged),
        cmocka_unit_test_setup_teardown(an_extent_has_one_request_at_a_time, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
