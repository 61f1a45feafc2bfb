/* metrics.h: buckets, text, compact lines, labels. What the services' figures are called:
 * test_metrics_names.c.
 */
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

static void since(void **state)
{
    (void)state;
    struct metric_hist before = {0}, now, d;
    metrics_hist_add(&before, 1000);
    metrics_hist_add(&before, 9000);
    now = before;
    metrics_hist_add(&now, 5000000);
    metrics_hist_since(&before, &now, &d);
    assert_int_equal(d.count, 1);
    assert_int_equal(d.sum_ns, 5000000);
    assert_int_equal(d.buckets[metrics_hist_bucket(5000000)], 1);
    assert_int_equal(d.buckets[metrics_hist_bucket(9000)], 0);
    /* a service that began anew: as many, but others */
    memset(&now, 0, sizeof now);
    for (int i = 0; i < 3; i++)
        metrics_hist_add(&now, 7000000);
    metrics_hist_since(&before, &now, &d);
    assert_int_equal(d.count, 3);
    assert_memory_equal(&d, &now, sizeof d);
}

/* ---- text ---- */

struct disk {
    uint64_t reads, writes, free, busy_ns, age_ns;
    struct metric_hist wait;
};
#define METRICS_STRUCT disk
static const struct metric disk_table[] = {
    METRICS_ENTRY(COUNTER, reads, "ops_total", "op=\"read\"", "Operations.")
        METRICS_ENTRY(COUNTER, writes, "ops_total", "op=\"write\"", "")
            METRICS_ENTRY(GAUGE, free, "free_bytes", NULL, "Free.")
                METRICS_ENTRY(COUNTER_NS, busy_ns, "busy_seconds_total", NULL, "Busy.")
                    METRICS_ENTRY(GAUGE_NS, age_ns, "age_seconds", NULL, "Age.")
                        METRICS_ENTRY(HIST, wait, "wait_seconds", "op=\"write\"", "Waits.")};
static const struct metrics_group disk_group = METRICS_GROUP("disks", disk_table);
#undef METRICS_STRUCT
struct loner {
    uint64_t up;
};
#define METRICS_STRUCT loner
static const struct metric loner_table[] = {METRICS_ENTRY(GAUGE, up, "up", NULL, "Up.")};
static const struct metrics_group loner_group = METRICS_GROUP("loner", loner_table);
#undef METRICS_STRUCT

/* Two disks, and between them something else. */
static struct metrics_snapshot *example(void)
{
    struct metrics_snapshot *s;
    char labels[64] = "";
    assert_int_equal(metrics_snapshot_create(&s), 0);
    assert_int_equal(metrics_label(labels, sizeof labels, "disk", "a\"b\\c\nd"), 0);
    struct disk *d = metrics_snapshot_add(s, &disk_group, labels);
    d->reads = 5;
    d->free = UINT64_MAX;
    d->busy_ns = 1234567890123;
    d->age_ns = 7;
    metrics_hist_add(&d->wait, 500);
    metrics_hist_add(&d->wait, 5000);
    metrics_hist_add(&d->wait, 5001);
    metrics_hist_add(&d->wait, 100 * NS_PER_S);
    ((struct loner *)metrics_snapshot_add(s, &loner_group, NULL))->up = 1;
    d = metrics_snapshot_add(s, &disk_group, "disk=\"2\"");
    d->writes = 8;
    return s;
}

static const char expected_head[] = "# HELP ops_total Operations.\n"
                                    "# TYPE ops_total counter\n"
                                    "ops_total{disk=\"a\\\"b\\\\c\\nd\",op=\"read\"} 5\n"
                                    "ops_total{disk=\"a\\\"b\\\\c\\nd\",op=\"write\"} 0\n"
                                    "ops_total{disk=\"2\",op=\"read\"} 0\n"
                                    "ops_total{disk=\"2\",op=\"write\"} 8\n"
                                    "# HELP free_bytes Free.\n"
                                    "# TYPE free_bytes gauge\n"
                                    "free_bytes{disk=\"a\\\"b\\\\c\\nd\"} 18446744073709551615\n"
                                    "free_bytes{disk=\"2\"} 0\n"
                                    "# HELP busy_seconds_total Busy.\n"
                                    "# TYPE busy_seconds_total counter\n"
                                    "busy_seconds_total{disk=\"a\\\"b\\\\c\\nd\"} 1234.567890123\n"
                                    "busy_seconds_total{disk=\"2\"} 0.000000000\n"
                                    "# HELP age_seconds Age.\n"
                                    "# TYPE age_seconds gauge\n"
                                    "age_seconds{disk=\"a\\\"b\\\\c\\nd\"} 0.000000007\n"
                                    "age_seconds{disk=\"2\"} 0.000000000\n"
                                    "# HELP wait_seconds Waits.\n"
                                    "# TYPE wait_seconds histogram\n";

/* The lines of one histogram: the same buckets whatever is in it. */
static void expect_hist(const char **p, const char *labels, const uint64_t *counts_at, uint64_t inf,
                        const char *sum)
{
    char line[256];
    uint64_t seen = 0;
    for (unsigned bits = METRICS_TEXT_LOW_BITS; bits <= METRICS_TEXT_HIGH_BITS; bits++) {
        const uint64_t bound = 1ull << bits;
        seen += counts_at[bits];
        snprintf(line, sizeof line, "wait_seconds_bucket{disk=\"%s\",op=\"write\",le=\"%d.%09d\"} %d\n",
                 labels, (int)(bound / NS_PER_S), (int)(bound % NS_PER_S), (int)seen);
        assert_memory_equal(*p, line, strlen(line));
        *p += strlen(line);
    }
    snprintf(line, sizeof line,
             "wait_seconds_bucket{disk=\"%s\",op=\"write\",le=\"+Inf\"} %d\n"
             "wait_seconds_sum{disk=\"%s\",op=\"write\"} %s\n"
             "wait_seconds_count{disk=\"%s\",op=\"write\"} %d\n",
             labels, (int)inf, labels, sum, labels, (int)inf);
    assert_memory_equal(*p, line, strlen(line));
    *p += strlen(line);
}

static void text_of_all_kinds(void **state)
{
    (void)state;
    struct metrics_snapshot *s = example();
    static char text[16384], cut[16384];
    const uint64_t first[METRICS_TEXT_HIGH_BITS + 1] = {[12] = 1, [13] = 2},
                                                  none[METRICS_TEXT_HIGH_BITS + 1] = {0};
    const size_t len = metrics_text(s, text, sizeof text);
    assert_true(len < sizeof text && len == strlen(text));
    assert_memory_equal(text, expected_head, strlen(expected_head));
    const char *p = text + strlen(expected_head);
    expect_hist(&p, "a\\\"b\\\\c\\nd", first, 4, "100.000010501");
    expect_hist(&p, "2", none, 0, "0.000000000");
    assert_string_equal(p, "# HELP up Up.\n# TYPE up gauge\nup 1\n");
    /* with too little room: the same length is asked for, and nothing is written beyond */
    for (size_t room = 0; room <= len; room += 97) {
        memset(cut, 'z', sizeof cut);
        assert_int_equal(metrics_text(s, cut, room), len);
        assert_int_equal(cut[room], 'z');
        if (room > 0) {
            assert_int_equal(cut[room - 1], '\0');
            assert_memory_equal(cut, text, room - 1);
        }
    }
    metrics_snapshot_clear(s);
    assert_int_equal(metrics_text(s, text, sizeof text), 0);
    metrics_snapshot_destroy(s);
}

static void ready_and_why(void **state)
{
    (void)state;
    struct metrics_snapshot *s;
    assert_int_equal(metrics_snapshot_create(&s), 0);
    assert_null(metrics_snapshot_why(s));
    metrics_snapshot_not_ready(s, "disk %d is away", 3);
    assert_string_equal(metrics_snapshot_why(s), "disk 3 is away");
    metrics_snapshot_not_ready(s, "no table");
    assert_string_equal(metrics_snapshot_why(s), "disk 3 is away; no table");
    for (int i = 0; i < 100; i++)
        metrics_snapshot_not_ready(s, "again %d", i);
    assert_true(strlen(metrics_snapshot_why(s)) < METRICS_WHY_MAX);
    metrics_snapshot_clear(s);
    assert_null(metrics_snapshot_why(s));
    metrics_snapshot_remark(s, "table of %d", 1);
    assert_null(metrics_snapshot_why(s));
    metrics_snapshot_remark(s, "slow");
    assert_string_equal(metrics_snapshot_remarks(s), "table of 1; slow");
    metrics_snapshot_clear(s);
    assert_null(metrics_snapshot_remarks(s));
    metrics_snapshot_destroy(s);
}

static void snapshot_is_bounded(void **state)
{
    (void)state;
    struct metrics_snapshot *s;
    char labels[METRICS_LABELS_MAX + 1];
    assert_int_equal(metrics_snapshot_create(&s), 0);
    memset(labels, 'x', sizeof labels);
    labels[METRICS_LABELS_MAX] = '\0';
    assert_null(metrics_snapshot_add(s, &loner_group, labels));
    for (unsigned i = 0; i < METRICS_ENTRIES_MAX; i++)
        assert_non_null(metrics_snapshot_add(s, &loner_group, NULL));
    assert_null(metrics_snapshot_add(s, &loner_group, NULL));
    metrics_snapshot_destroy(s);
}

/* ---- compact lines ---- */

/* All lines, a page at a time. */
static void lines_in_pages(size_t room)
{
    struct metrics_snapshot *s = example();
    static char all[16384], page[16384];
    uint32_t after = 0;
    size_t len = 0;
    const size_t whole = metrics_lines(s, &after, all, sizeof all);
    assert_int_equal(after, 0);
    do {
        const uint32_t before = after;
        const size_t n = metrics_lines(s, &after, page, room);
        assert_true(n < room && n == strlen(page));
        assert_true(after == 0 || after > before);
        assert_memory_equal(all + len, page, n);
        len += n;
    } while (after != 0);
    assert_int_equal(len, whole);
    metrics_snapshot_destroy(s);
}

static void lines_come_in_pages(void **state)
{
    (void)state;
    for (size_t room = 160; room < 1200; room += 13)
        lines_in_pages(room);
    /* what fits nowhere is left out, and the rest comes */
    struct metrics_snapshot *s = example();
    char page[48];
    uint32_t after = 0;
    size_t pages = 0, up = 0;
    do {
        metrics_lines(s, &after, page, sizeof page);
        up += strstr(page, "up 1\n") != NULL;
        assert_true(++pages < 100);
    } while (after != 0);
    assert_int_equal(up, 1);
    metrics_snapshot_destroy(s);
}

static void lines_are_understood(void **state)
{
    (void)state;
    struct metrics_snapshot *s = example();
    static char all[16384];
    static struct metric_line line;
    char value[32], *save = NULL;
    uint32_t after = 0;
    unsigned count = 0;
    metrics_lines(s, &after, all, sizeof all);
    for (char *p = strtok_r(all, "\n", &save); p != NULL; p = strtok_r(NULL, "\n", &save), count++) {
        assert_true(metrics_line_parse(p, &line));
        if (count == 0) {
            assert_string_equal(line.name, "ops_total");
            assert_int_equal(line.value, 5);
            assert_true(metrics_label_get(line.labels, "disk", value, sizeof value));
            assert_string_equal(value, "a\"b\\c\nd");
            assert_true(metrics_label_get(line.labels, "op", value, sizeof value));
            assert_string_equal(value, "read");
            assert_false(metrics_label_get(line.labels, "isk", value, sizeof value));
            assert_false(metrics_label_get(line.labels, "disk", value, 7));
        }
        if (count == 3)
            assert_int_equal(line.value, 1234567890123);
        assert_int_equal(line.is_hist, count == 5 || count == 12);
        if (count == 5) {
            assert_int_equal(line.hist.count, 4);
            assert_int_equal(line.hist.sum_ns, 100000010501);
            assert_int_equal(line.hist.max_ns, 100000000000);
            assert_int_equal(line.hist.buckets[metrics_hist_bucket(5000)], 2);
            assert_int_equal(line.hist.buckets[METRICS_HIST_BUCKETS - 1], 1);
        }
    }
    assert_int_equal(count, 13);
    metrics_snapshot_destroy(s);
}

static void lines_of_strangers(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      " ",
                                      "name",
                                      " 1",
                                      "name x",
                                      "name -1",
                                      "name 1 ",
                                      "name 1x",
                                      "name 18446744073709551616",
                                      "name{a=\"b\" 1",
                                      "name{a=\"b\"}1",
                                      "name{a=\"b\\\"} 1",
                                      "name hist ",
                                      "name hist 1 2",
                                      "name hist 1 2 3",
                                      "name hist 1 2 3 0:2",
                                      "name hist 1 2 3 106:1",
                                      "name hist 1 2 3 0:1 x",
                                      "name hist 1 2 3 0",
                                      "name hist 1 2 3 -1:1"};
    static struct metric_line line;
    char text[64];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(text, sizeof text, "%s", bad[i]);
        if (metrics_line_parse(text, &line))
            fail_msg("taken: %s", bad[i]);
    }
    snprintf(text, sizeof text, "name{a=\"x} y\"} 7");
    assert_true(metrics_line_parse(text, &line));
    assert_string_equal(line.labels, "a=\"x} y\"");
    assert_int_equal(line.value, 7);
    char value[8];
    assert_false(metrics_label_get("a", "a", value, sizeof value));
    assert_false(metrics_label_get("a=1", "a", value, sizeof value));
    assert_false(metrics_label_get("a=\"1", "a", value, sizeof value));
    assert_false(metrics_label_get("a=\"1\"b=\"2\"", "b", value, sizeof value));
    assert_false(metrics_label_get("", "a", value, sizeof value));
}

/* ---- labels ---- */

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

static void label_is_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x99", "a=\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x99\""},
        {"\xff"
         "a",
         "a=\"?a\""},                       /* no first byte */
        {"\xc3", "a=\"?\""},                /* cut off */
        {"\xc3\"", "a=\"?\\\"\""},          /* cut off before a quote, which stays escaped */
        {"\xc0\x80", "a=\"??\""},           /* longer than need be */
        {"\xed\xa0\x80", "a=\"???\""},      /* half of a pair */
        {"\xe0\x80\x80", "a=\"???\""},      /* longer than need be */
        {"\xf4\x90\x80\x80", "a=\"????\""}, /* beyond the last */
        {"\xf0\x80\x80\x80", "a=\"????\""}, /* longer than need be */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char buf[64] = "";
        assert_int_equal(metrics_label(buf, sizeof buf, "a", cases[i].in), 0);
        assert_string_equal(buf, cases[i].out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_cover_everything),
        cmocka_unit_test(quantiles),
        cmocka_unit_test(since),
        cmocka_unit_test(text_of_all_kinds),
        cmocka_unit_test(ready_and_why),
        cmocka_unit_test(snapshot_is_bounded),
        cmocka_unit_test(lines_come_in_pages),
        cmocka_unit_test(lines_are_understood),
        cmocka_unit_test(lines_of_strangers),
        cmocka_unit_test(label_does_not_fit),
        cmocka_unit_test(label_is_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
