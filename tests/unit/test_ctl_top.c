/* services/ctl/top*.c: whose figures a line is, and the rates of two moments. Connections:
 * tests/system/metrics.sh.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "services/ctl/top.h"

static struct top_row rows[4];
static struct top t;
static struct fabric_addr here, there;

static int setup(void **state)
{
    (void)state;
    assert_int_equal(fabric_addr_parse("tcp:127.0.0.1:7000", &here), 0);
    assert_int_equal(fabric_addr_parse("tcp:127.0.0.1:7001", &there), 0);
    memset(rows, 0, sizeof rows);
    t = (struct top){.rows = rows, .count = 4, .modules = 3};
    rows[0] = (struct top_row){.id = 1, .name = "san-1", .addr = here};
    rows[1] = (struct top_row){.id = 2, .name = "san-2", .addr = here};
    rows[2] = (struct top_row){.id = 3, .name = "san-1", .addr = there}; /* another host's of the same name */
    rows[3] = (struct top_row){.name = "vbs", .addr = here};             /* as if it were one process */
    return 0;
}

static void take(const struct fabric_addr *from, const char *text, uint64_t now_ns)
{
    char line[256];
    snprintf(line, sizeof line, "%s", text);
    top_take_line(&t, from, line, now_ns);
}

static void lines_find_their_rows(void **state)
{
    (void)state;
    take(&here, "cistern_module_requests_total{module=\"san-1\",op=\"read\"} 5", 100);
    take(&here, "cistern_module_requests_total{module=\"san-2\",op=\"write\"} 6", 101);
    take(&here, "cistern_module_requests_total{module=\"san-1\",op=\"extents\"} 50", 102);
    take(&here, "cistern_module_refused_total{module=\"san-1\",status=\"IO\"} 2", 103);
    take(&here, "cistern_module_refused_total{module=\"san-1\",status=\"AGAIN\"} 3", 103);
    take(&here, "cistern_module_request_seconds{module=\"san-1\",op=\"write\"} hist 2 3000 2000 0:1 5:1",
         103);
    take(&here, "cistern_gateway_requests_total{op=\"read\"} 9", 104);
    take(&there, "cistern_module_used_bytes{module=\"san-1\"} 4096", 105);
    assert_int_equal(rows[0].now.reads, 5);
    assert_int_equal(rows[0].now.writes, 0);
    assert_int_equal(rows[0].now.refused, 5);
    assert_int_equal(rows[0].now.write_ns.count, 2);
    assert_int_equal(rows[0].now.read_ns.count, 0);
    assert_int_equal(rows[0].now.at_ns, 100); /* of the first line */
    assert_int_equal(rows[1].now.writes, 6);
    assert_int_equal(rows[1].now.reads, 0);
    assert_int_equal(rows[2].now.reads, 0);
    assert_int_equal(rows[2].now.used_bytes, 4096);
    assert_int_equal(rows[3].now.reads, 9);
    assert_int_equal(rows[3].now.at_ns, 104);
}

static void other_lines_are_nobodys(void **state)
{
    (void)state;
    static const char *const others[] = {
        "",
        "nonsense",
        "cistern_module_requests_total{op=\"read\"} 5",                 /* of no module */
        "cistern_module_requests_total{module=\"osd9\",op=\"read\"} 5", /* of another */
        "cistern_module_requests_total{module=\"san-1\",op=\"read\"} x",
        "cistern_loop_rounds_total 17",
        "cistern_mdc_requests_total{method=\"PING\"} 17",
    };
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        take(&here, others[i], 100);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(rows[i].now.at_ns, 0);
    /* its module, but nothing that is shown, or not of the kind that it should be */
    take(&here, "cistern_module_epochs_total{module=\"san-1\"} 5", 100);
    take(&here, "cistern_module_request_seconds{module=\"san-1\",op=\"read\"} 5", 100);
    take(&here, "cistern_module_requests_total{module=\"san-1\",op=\"read\"} hist 1 1 1 0:1", 100);
    const struct top_figures none = {.at_ns = 100};
    assert_memory_equal(&rows[0].now, &none, sizeof none);
}

static void rates(void **state)
{
    (void)state;
    struct top_row *row = &rows[0];
    struct top_rates r;
    top_rates_of(row, &r);
    assert_false(r.known);
    row->before = (struct top_figures){.at_ns = NS_PER_S, .reads = 10, .writes = 1000, .read_bytes = 0};
    top_rates_of(row, &r); /* it does not answer any more */
    assert_false(r.known);
    row->now = (struct top_figures){
        .at_ns = 3 * NS_PER_S + NS_PER_S / 2, .reads = 35, .writes = 500, .read_bytes = UINT64_MAX / 4};
    metrics_hist_add(&row->before.read_ns, 7000);
    row->now.read_ns = row->before.read_ns;
    for (int i = 0; i < 25; i++)
        metrics_hist_add(&row->now.read_ns, 100 * NS_PER_US);
    top_rates_of(row, &r);
    assert_true(r.known);
    assert_int_equal(r.reads, 10);   /* 25 in 2.5 s */
    assert_int_equal(r.writes, 200); /* started again meanwhile: 500 since then */
    assert_in_range(r.read_p50_ns, 100 * NS_PER_US, 125 * NS_PER_US);
    assert_in_range(r.read_p99_ns, 100 * NS_PER_US, 125 * NS_PER_US);
    assert_int_equal(r.write_p50_ns, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(lines_find_their_rows, setup),
        cmocka_unit_test_setup(other_lines_are_nobodys, setup),
        cmocka_unit_test_setup(rates, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
