/* test_mdc_members.c: who is in sync: what reports, deaths and restarts of members make of a partition.
 * Decisions alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "services/mdc/ops.h"

#define MODULES 3u
#define IN_SYNC TABLE_MEMBER_IN_SYNC

struct desk {
    struct mdc_state *s;
    struct mdc_tx tx;
    struct mdc_error error;
    struct mdc_session *session[MODULES + 1];
    uint64_t now_ns, incarnation[MODULES + 1], starts[MODULES + 1];
};

static struct mdc_decision decision(struct desk *k, unsigned session)
{
    mdc_tx_reset(&k->tx);
    return (struct mdc_decision){
        .state = k->s, .tx = &k->tx, .now_ns = k->now_ns, .session = k->session[session], .error = &k->error};
}

static void connect(struct desk *k, unsigned n)
{
    struct mdc_session_request rq = {.name = "n"};
    snprintf(rq.host, sizeof(rq.host), "h%u", n);
    k->session[n] = mdc_session_add(k->s, &rq, k->now_ns);
    assert_non_null(k->session[n]);
}

/* A new start of module n. */
static void start(struct desk *k, unsigned n)
{
    struct mdc_module_register_request rq = {.start_counter = ++k->starts[n],
                                             .incarnation = ++k->incarnation[n] + 100 * n,
                                             .module = k->starts[n] > 1 ? n : 0,
                                             .kind = TABLE_MODULE_OSD,
                                             .media = TABLE_MEDIA_SSD,
                                             .capacity_bytes = GIB};
    struct mdc_module_register_reply rep = {0};
    if (!k->session[n])
        connect(k, n);
    rq.store.b[0] = (uint8_t)n;
    snprintf(rq.host, sizeof(rq.host), "h%u", n);
    snprintf(rq.name, sizeof(rq.name), "m%u", n);
    if (k->starts[n] > 1) {
        rq.accepted_start = k->starts[n] - 1;
        rq.accepted_incarnation = rq.incarnation - 1;
    }
    struct mdc_decision d = decision(k, n);
    assert_int_equal(mdc_op_module_register(&d, &rq, &rep), STATUS_OK);
    rq.accepted_start = rq.start_counter;
    rq.accepted_incarnation = rq.incarnation;
    rq.module = n;
    d = decision(k, n);
    assert_int_equal(mdc_op_module_register(&d, &rq, &rep), STATUS_OK);
    assert_int_equal(rep.module, n);
}

static void gone(struct desk *k, unsigned n)
{
    assert_true(mdc_op_session_lost(k->s, k->session[n], true, k->now_ns));
    mdc_session_remove(k->s, k->session[n]);
    k->session[n] = NULL;
}

static struct desk *desk_new(void)
{
    static const struct table_limits limits = {.pools = 2, .modules = 8, .partitions = 64, .volumes = 4};
    struct desk *k = calloc(1, sizeof(*k));
    assert_non_null(k);
    assert_int_equal(mdc_state_create(&limits, 8, &k->s), 0);
    assert_int_equal(mdc_tx_create(k->s, &k->tx), 0);
    k->s->cluster.b[0] = 1;
    k->s->heartbeat_ms = 100;
    k->s->counters.term = k->s->term = 1;
    k->now_ns = 1000 * NS_PER_S;
    for (unsigned n = 1; n <= MODULES; n++)
        start(k, n);
    struct mdc_pool_create_request rq = {.name = "p", .copies = 3, .partitions = 4};
    struct mdc_pool_reply rep = {0};
    struct mdc_decision d = decision(k, 1);
    assert_int_equal(mdc_op_pool_create(&d, &rq, &rep), STATUS_OK);
    return k;
}

static void desk_end(struct desk *k)
{
    mdc_tx_destroy(&k->tx);
    mdc_state_destroy(k->s);
    free(k);
}

static struct record_partition *part(struct desk *k, unsigned i)
{
    return &k->s->partitions[k->s->pools[0].rec.first_partition + i];
}

static bool in_sync(struct desk *k, unsigned i, uint32_t module)
{
    for (unsigned m = 0; m < TABLE_MEMBERS_MAX; m++)
        if (TABLE_MEMBER_ID(part(k, i)->members[m]) == module)
            return part(k, i)->members[m] & IN_SYNC;
    fail_msg("module %u is no member", module);
    return false;
}

static unsigned in_sync_count(struct desk *k, unsigned i)
{
    unsigned n = 0;
    for (unsigned m = 0; m < TABLE_MEMBERS_MAX; m++)
        n += (part(k, i)->members[m] & IN_SYNC) != 0;
    return n;
}

/* The primary of partition 0 says so of member. True: a new epoch came of it. */
static bool report(struct desk *k, unsigned what, uint32_t member)
{
    uint32_t primary = mdc_partition_primary(part(k, 0));
    struct mdc_module_report_request rq = {.module = primary,
                                           .incarnation = k->s->modules[primary - 1].rec.incarnation};
    struct mdc_module_report_reply rep = {0};
    uint64_t epoch = part(k, 0)->epoch;
    rq.items[rq.count++] =
        (struct mdc_module_report_item){.pool = 1,
                                        .partition = 0,
                                        .epoch = epoch,
                                        .member = member,
                                        .member_incarnation = k->s->modules[member - 1].rec.incarnation,
                                        .what = (uint8_t)what};
    struct mdc_decision d = decision(k, primary);
    assert_int_equal(mdc_op_module_report(&d, &rq, &rep), STATUS_OK);
    assert_true(part(k, 0)->epoch >= epoch);
    return part(k, 0)->epoch > epoch;
}

static uint32_t secondary(struct desk *k)
{
    return TABLE_MEMBER_ID(part(k, 0)->members[1]);
}

static void test_three_copies(void **state)
{
    (void)state;
    struct desk *k = desk_new();
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(in_sync_count(k, i), 3);
    desk_end(k);
}

static void test_unreachable(void **state)
{
    (void)state;
    struct desk *k = desk_new();
    uint32_t m = secondary(k);
    /* Heard here: the primary's word counts only when it stands for a time. */
    assert_false(report(k, MDC_REPORT_UNREACHABLE, m));
    k->now_ns += 100 * NS_PER_MS;
    assert_false(report(k, MDC_REPORT_UNREACHABLE, m));
    k->now_ns += 3000 * NS_PER_MS; /* another trouble, much later */
    assert_false(report(k, MDC_REPORT_UNREACHABLE, m));
    k->now_ns += 150 * NS_PER_MS;
    assert_false(report(k, MDC_REPORT_UNREACHABLE, m));
    k->now_ns += 200 * NS_PER_MS;
    assert_true(report(k, MDC_REPORT_UNREACHABLE, m));
    assert_false(in_sync(k, 0, m));
    assert_true(in_sync(k, 1, m)); /* nobody reported there */
    /* Not heard here either: at once. */
    m = secondary(k);
    gone(k, m);
    assert_true(report(k, MDC_REPORT_UNREACHABLE, m));
    assert_false(in_sync(k, 0, m));
    assert_int_equal(in_sync_count(k, 0), 1);
    desk_end(k);
}

static void test_last_one_stays(void **state)
{
    (void)state;
    struct desk *k = desk_new();
    assert_true(report(k, MDC_REPORT_UNFIT, secondary(k)));
    assert_true(report(k, MDC_REPORT_UNFIT, secondary(k)));
    uint32_t last = mdc_partition_primary(part(k, 0));
    uint64_t epoch = part(k, 0)->epoch;
    gone(k, last);
    k->now_ns += NS_PER_S;
    (void)mdc_op_watch(k->s, k->now_ns, false);
    struct mdc_decision d = decision(k, last == 1 ? 2 : 1);
    mdc_op_advance(&d);
    assert_int_equal(part(k, 0)->epoch, epoch);
    assert_int_equal(mdc_partition_primary(part(k, 0)), last);
    assert_true(in_sync(k, 0, last));
    desk_end(k);
}

static void test_dead_primary(void **state)
{
    (void)state;
    struct desk *k = desk_new();
    uint32_t dead = mdc_partition_primary(part(k, 0)), next = secondary(k);
    gone(k, dead);
    k->now_ns += SESSION_GRACE_NS / 2;
    assert_false(mdc_op_watch(k->s, k->now_ns, false)); /* it may come back */
    k->now_ns += SESSION_GRACE_NS;
    assert_true(mdc_op_watch(k->s, k->now_ns, false));
    struct mdc_decision d = decision(k, next);
    mdc_op_advance(&d);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(in_sync_count(k, i), 2);
        assert_false(in_sync(k, i, dead));
    }
    assert_int_equal(mdc_partition_primary(part(k, 0)), next);
    desk_end(k);
}

/* A controller that stood still itself gives everybody time. */
static void test_late_watch(void **state)
{
    (void)state;
    struct desk *k = desk_new();
    gone(k, mdc_partition_primary(part(k, 0)));
    k->now_ns += 10 * NS_PER_S;
    assert_false(mdc_op_watch(k->s, k->now_ns, true));
    k->now_ns += SESSION_GRACE_NS / 2;
    assert_false(mdc_op_watch(k->s, k->now_ns, false));
    k->now_ns += SESSION_GRACE_NS;
    assert_true(mdc_op_watch(k->s, k->now_ns, false));
    desk_end(k);
}

static void test_restart(void **state)
{
    (void)state;
    struct desk *k = desk_new();
    uint32_t m = mdc_partition_primary(part(k, 0));
    uint64_t epoch = part(k, 0)->epoch;
    gone(k, m);
    start(k, m);
    assert_false(in_sync(k, 0, m));
    assert_int_equal(in_sync_count(k, 0), 2);
    assert_true(part(k, 0)->epoch > epoch);
    /* All of them at once: nobody has more than they have. */
    for (unsigned n = 1; n <= MODULES; n++)
        if (n != m)
            gone(k, n);
    for (unsigned n = 1; n <= MODULES; n++)
        if (n != m)
            start(k, n);
    assert_true(in_sync_count(k, 0) >= 1);
    assert_false(in_sync(k, 0, m));
    desk_end(k);
}

static void test_comes_in(void **state)
{
    (void)state;
    struct desk *k = desk_new();
    uint32_t m = secondary(k);
    assert_false(report(k, MDC_REPORT_IN_SYNC, m)); /* it is */
    assert_true(report(k, MDC_REPORT_UNFIT, m));
    assert_false(report(k, MDC_REPORT_UNFIT, m)); /* it is not any more */
    assert_true(report(k, MDC_REPORT_IN_SYNC, m));
    assert_true(in_sync(k, 0, m));
    assert_true(report(k, MDC_REPORT_UNFIT, m));
    /* Reported equal, then lost: an epoch that makes the first report worthless. */
    assert_true(report(k, MDC_REPORT_LOST, m));
    assert_false(in_sync(k, 0, m));
    gone(k, m);
    assert_false(report(k, MDC_REPORT_IN_SYNC, m)); /* nothing is heard of it */
    desk_end(k);
}

static void test_reports_that_do_not_count(void **state)
{
    (void)state;
    struct desk *k = desk_new();
    uint32_t primary = mdc_partition_primary(part(k, 0)), m = secondary(k);
    struct mdc_module_report_item good = {.pool = 1,
                                          .partition = 0,
                                          .epoch = part(k, 0)->epoch,
                                          .member = m,
                                          .member_incarnation = k->s->modules[m - 1].rec.incarnation,
                                          .what = MDC_REPORT_UNFIT};
    struct mdc_module_report_item bad[9];
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        bad[i] = good;
    bad[0].epoch--;
    bad[1].epoch++;
    bad[2].member_incarnation++;
    bad[3].member = primary;
    bad[3].member_incarnation = k->s->modules[primary - 1].rec.incarnation;
    bad[4].member = 7;
    bad[5].pool = 2;
    bad[6].partition = 4;
    bad[7].what = 0;
    bad[8].what = 99;
    struct mdc_module_report_reply rep = {0};
    struct mdc_module_report_request rq = {.module = primary,
                                           .incarnation = k->s->modules[primary - 1].rec.incarnation};
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        rq.items[rq.count++] = bad[i];
    struct mdc_decision d = decision(k, primary);
    assert_int_equal(mdc_op_module_report(&d, &rq, &rep), STATUS_OK);
    assert_int_equal(part(k, 0)->epoch, good.epoch);
    assert_int_equal(in_sync_count(k, 0), 3);
    /* From who is not the primary, or an earlier start of it. */
    rq.items[0] = good;
    rq.count = 1;
    rq.module = m;
    rq.incarnation = k->s->modules[m - 1].rec.incarnation;
    d = decision(k, m);
    assert_int_equal(mdc_op_module_report(&d, &rq, &rep), STATUS_OK);
    assert_int_equal(part(k, 0)->epoch, good.epoch);
    rq.module = primary;
    rq.incarnation = k->s->modules[primary - 1].rec.incarnation - 1;
    assert_int_equal(mdc_op_module_report(&d, &rq, &rep), STATUS_WRONG_INCARNATION);
    rq.incarnation++;
    assert_int_equal(mdc_op_module_report(&d, &rq, &rep), STATUS_OK);
    assert_int_equal(part(k, 0)->epoch, good.epoch + 1);
    desk_end(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_copies),   cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_last_one_stays), cmocka_unit_test(test_dead_primary),
        cmocka_unit_test(test_late_watch),     cmocka_unit_test(test_restart),
        cmocka_unit_test(test_comes_in),       cmocka_unit_test(test_reports_that_do_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
