/* test_ctl_fabric.c: the figures and the advice of `cistern fabric ping` and `bench`, as pure functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "services/ctl/fabric_tool.h"

static void summaries(void **state)
{
    static struct fabric_ping_tally t;
    char text[160];
    (void)state;
    assert_string_equal(fabric_ping_summary(&t, text), "0 sent, 0 answered, 0% lost");
    t.sent = 3;
    assert_string_equal(fabric_ping_summary(&t, text), "3 sent, 0 answered, 100% lost");
    t.sent = 1000;
    t.answered = 999; /* a loss is never rounded away */
    for (unsigned i = 0; i < 999; i++)
        bench_hist_add(&t.times, 16 * NS_PER_US);
    assert_string_equal(fabric_ping_summary(&t, text),
                        "1000 sent, 999 answered, 1% lost; min 16us median 16us p99 16us max 16us");
    /* the longest there can be */
    t.sent = t.answered = UINT64_MAX;
    t.times.min_ns = t.times.max_ns = UINT64_MAX;
    assert_true(strlen(fabric_ping_summary(&t, text)) < sizeof(text));
}

static void figures_are_medians(void **state)
{
    const struct fabric_bench_case c = {.kind = FABRIC_BENCH_FETCH, .bytes = 4096, .depth = 1};
    const struct fabric_bench_round rounds[] = {
        {.ops = 100, .measured_ns = NS_PER_S, .p50_ns = 30, .p99_ns = 300, .cpu_ns = 1000},
        {.ops = 900, .measured_ns = NS_PER_S, .p50_ns = 10, .p99_ns = 900, .cpu_ns = 1800}, /* disturbed */
        {.ops = 220, .measured_ns = 2 * NS_PER_S, .p50_ns = 20, .p99_ns = 200, .cpu_ns = 4400},
    };
    struct fabric_bench_figures f;
    (void)state;
    fabric_bench_figures_of(&c, rounds, 3, &f);
    assert_int_equal(f.ops_per_s, 110);
    assert_int_equal(f.bytes_per_s, 110 * 4096);
    assert_int_equal(f.p50_ns, 20);
    assert_int_equal(f.p99_ns, 300);
    assert_int_equal(f.cpu_ns_per_op, 10);
    assert_int_equal(f.spread_percent, 800 * 100 / 110);
    fabric_bench_figures_of(&c, rounds, 1, &f);
    assert_int_equal(f.ops_per_s, 100);
    assert_int_equal(f.spread_percent, 0);
    fabric_bench_figures_of(&c, rounds, 2, &f);
    assert_int_equal(f.p50_ns, 20);
    fabric_bench_figures_of(&c, &(struct fabric_bench_round){.ops = 0}, 1, &f); /* nothing came */
    assert_int_equal(f.ops_per_s, 0);
}

static bool advised(const struct fabric_bench_view *v, const char *text)
{
    struct fabric_advice all[8];
    const unsigned count = fabric_bench_advise(v, all, ARRAY_LEN(all));
    for (unsigned i = 0; i < count; i++) {
        assert_true(all[i].what[0] != '\0' && all[i].fix[0] != '\0' && all[i].about[0] != '\0');
        if (strstr(all[i].what, text) != NULL)
            return true;
    }
    return false;
}

static void advice_on_a_connection(void **state)
{
    const struct fabric_bench_view good = {
        .params = {.provider = FABRIC_PROVIDER_VERBS, .mtu = 4096, .reads_out = 16, .inline_bytes = 512},
        .spin_ns = 50000,
        .peer_spin_ns = 50000,
        .port_megabits = 100000,
        .best_megabits = 90000,
        .rdma_here = true,
        .memlock_bytes = UINT64_MAX};
    struct fabric_advice none[1];
    struct fabric_bench_view v = good;
    (void)state;
    assert_int_equal(fabric_bench_advise(&v, none, 1), 0);
    v.spin_ns = 0;
    assert_true(advised(&v, "this end sleeps"));
    v.peer_spin_ns = 0;
    assert_true(advised(&v, "both ends sleep"));
    v = good;
    v.peer_spin_ns = 0;
    assert_true(advised(&v, "the other end sleeps"));
    v = good;
    v.params.mtu = 1024;
    assert_true(advised(&v, "carry 1024 bytes"));
    v = good;
    v.params.reads_out = 1;
    assert_true(advised(&v, "only 1 RDMA reads"));
    v = good;
    v.memlock_bytes = 8 * MIB;
    assert_true(advised(&v, "locked"));
    v = good;
    v.best_megabits = 20000;
    assert_true(advised(&v, "20000 Mb/s at most, of the port's 100000"));
    v = good;
    v.params = (struct fabric_params){.provider = FABRIC_PROVIDER_TCP, .mtu = 1448};
    assert_true(advised(&v, "this is TCP"));
    v.rdma_here = false;
    assert_int_equal(fabric_bench_advise(&v, none, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(summaries),
        cmocka_unit_test(figures_are_medians),
        cmocka_unit_test(advice_on_a_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
