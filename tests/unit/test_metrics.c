/* metrics.h */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/metrics.h"

static void buckets_cover_everything(void **state)
{
    (void)state;
    uint64_t low = 0;
    for (unsigned i = 0; i < METRICS_HIST_BUCKETS; i++) {
        uint64_t bound = metrics_hist_bound(i);
        assert_true(bound > low);
        assert_int_equal(metrics_hist_bucket(low), i);
        assert_int_equal(metrics_hist_bucket(bound - 1), i);
        if (i > 0 && i < METRICS_HIST_BUCKETS - 1)
            assert_true(bound - low <= low / 4);
        low = bound;
    }
    assert_int_equal(metrics_hist_bucket(UINT64_MAX), METRICS_HIST_BUCKETS - 1);
    assert_int_equal(metrics_hist_bound(METRICS_HIST_BUCKETS - 2), 1ull << METRICS_HIGH_BITS);
}

static void quantiles(void **state)
{
    (void)state;
    struct metric_hist h = {0};
    assert_int_equal(metrics_hist_quantile(&h, 500), 0);
    for (unsigned i = 0; i < 990; i++)
        metrics_hist_add(&h, 100 * NS_PER_US);
    for (unsigned i = 0; i < 10; i++)
        metrics_hist_add(&h, 5 * NS_PER_MS);
    assert_in_range(metrics_hist_quantile(&h, 500), 100 * NS_PER_US, 125 * NS_PER_US);
    assert_in_range(metrics_hist_quantile(&h, 990), 100 * NS_PER_US, 125 * NS_PER_US);
    assert_int_equal(metrics_hist_quantile(&h, 991), 5 * NS_PER_MS);
    assert_int_equal(metrics_hist_quantile(&h, 1000), 5 * NS_PER_MS);
    assert_in_range(metrics_hist_quantile(&h, 0), 100 * NS_PER_US, 125 * NS_PER_US);
    assert_int_equal(h.max_ns, 5 * NS_PER_MS);
    metrics_hist_add(&h, UINT64_MAX / 2);
    assert_true(metrics_hist_quantile(&h, 1000) == UINT64_MAX / 2);
}

static int64_t ask(void *arg)
{
    return *(int *)arg;
}

static void text_of_all_kinds(void **state)
{
    (void)state;
    struct metrics *m;
    char labels[64] = "", text[2048];
    int asked = -3;
    assert_int_equal(metrics_create(&m), 0);
    assert_int_equal(metrics_label(labels, sizeof labels, "module", "7"), 0);
    assert_int_equal(metrics_label(labels, sizeof labels, "disk", "a\"b\\c\nd"), 0);
    uint64_t *reads = metrics_counter(m, "reads_total", labels, "Reads.");
    int64_t *depth = metrics_gauge(m, "depth", NULL, "In flight.");
    uint64_t *more = metrics_counter(m, "reads_total", "module=\"8\"", "Reads.");
    struct metric_hist *h = metrics_hist(m, "wait_seconds", "op=\"w\"", "Waits.");
    struct metric_hist *bare = metrics_hist(m, "idle_seconds", NULL, "Idle.");
    assert_non_null(bare);
    assert_int_equal(metrics_gauge_fn(m, "asked", NULL, "Asked.", ask, &asked), 0);
    assert_ptr_equal(reads, metrics_counter(m, "reads_total", labels, "Reads."));
    assert_ptr_not_equal(reads, more);
    *reads += 5;
    *depth -= 2;
    metrics_hist_add(h, 500);
    metrics_hist_add(h, 3000);
    metrics_hist_add(h, 3001);
    metrics_hist_add(h, 100 * NS_PER_S);
    const char *expected = "# HELP reads_total Reads.\n"
                           "# TYPE reads_total counter\n"
                           "reads_total{module=\"7\",disk=\"a\\\"b\\\\c\\nd\"} 5\n"
                           "reads_total{module=\"8\"} 0\n"
                           "# HELP depth In flight.\n"
                           "# TYPE depth gauge\n"
                           "depth -2\n"
                           "# HELP wait_seconds Waits.\n"
                           "# TYPE wait_seconds histogram\n"
                           "wait_seconds_bucket{op=\"w\",le=\"0.000001024\"} 1\n"
                           "wait_seconds_bucket{op=\"w\",le=\"0.000004096\"} 3\n"
                           "wait_seconds_bucket{op=\"w\",le=\"+Inf\"} 4\n"
                           "wait_seconds_sum{op=\"w\"} 100.000006501\n"
                           "wait_seconds_count{op=\"w\"} 4\n"
                           "# HELP idle_seconds Idle.\n"
                           "# TYPE idle_seconds histogram\n"
                           "idle_seconds_bucket{le=\"+Inf\"} 0\n"
                           "idle_seconds_sum 0.000000000\n"
                           "idle_seconds_count 0\n"
                           "# HELP asked Asked.\n"
                           "# TYPE asked gauge\n"
                           "asked -3\n";
    assert_int_equal(metrics_dump(m, text, sizeof text), strlen(expected));
    assert_string_equal(text, expected);
    /* with too little room: the same length is asked for, and nothing is written beyond */
    for (size_t room = 0; room <= strlen(expected); room += 7) {
        memset(text, 'z', sizeof text);
        assert_int_equal(metrics_dump(m, text, room), strlen(expected));
        assert_int_equal(text[room], 'z');
        if (room > 0) {
            assert_int_equal(text[room - 1], '\0');
            assert_memory_equal(text, expected, room - 1);
        }
    }
    metrics_destroy(m);
}

static void label_does_not_fit(void **state)
{
    (void)state;
    char buf[16] = "";
    assert_int_equal(metrics_label(buf, sizeof buf, "a", "12345"), 0);
    assert_string_equal(buf, "a=\"12345\"");
    assert_int_equal(metrics_label(buf, sizeof buf, "b", "12"), -E2BIG);
    assert_string_equal(buf, "a=\"12345\"");
    assert_int_equal(metrics_label(buf, sizeof buf, "b", "1"), 0);
    assert_string_equal(buf, "a=\"12345\",b=\"1\"");
    assert_int_equal(metrics_label(buf, sizeof buf, "c", ""), -E2BIG);
    buf[0] = '\0';
    assert_int_equal(metrics_label(buf, 4, "a", ""), -E2BIG);
    assert_int_equal(metrics_label(buf, 5, "a", "\""), -E2BIG);
    assert_int_equal(metrics_label(buf, 7, "a", "\""), 0);
    assert_string_equal(buf, "a=\"\\\"\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_cover_everything),
        cmocka_unit_test(quantiles),
        cmocka_unit_test(text_of_all_kinds),
        cmocka_unit_test(label_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
