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

/* The primary may say that it is unfit itself: another one in sync is the primary then, if there is one. */
static void test_primary_steps_back(void **state)
{
    (void)state;
    struct desk *k = desk_new();
    uint32_t first = mdc_partition_primary(part(k, 0)), second = secondary(k);
    assert_true(report(k, MDC_REPORT_UNFIT, first));
    assert_false(in_sync(k, 0, first));
    assert_int_equal(mdc_partition_primary(part(k, 0)), second);
    assert_true(report(k, MDC_REPORT_UNFIT, second));
    uint32_t last = mdc_partition_primary(part(k, 0));
    assert_false(report(k, MDC_REPORT_UNFIT, last)); /* nobody else has the data */
    assert_true(in_sync(k, 0, last));
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
    bad[3].what = MDC_REPORT_UNREACHABLE; /* of itself */
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

/* ---- after a start of the controller ---- */
/* The process begins anew over these partitions; nobody has been heard. */
static void begin_again(struct desk *k, const struct record_partition *old, bool restored)
{
    for (unsigned n = 1; n <= MODULES; n++) {
        if (k->session[n])
            mdc_session_remove(k->s, k->session[n]);
        k->session[n] = NULL;
        struct mdc_module *m = &k->s->modules[n - 1];
        m->registered = m->down = m->dead = m->gone = m->told = false;
        m->heard_ns = k->now_ns;
    }
    memcpy(part(k, 0), old, 4 * sizeof(*old));
    k->s->counters.highest_epoch = old[0].epoch;
    k->s->started_ns = k->now_ns;
    k->s->restored = false;
    mdc_settle_begin(k->s);
    mdc_tx_reset(&k->tx);
    if (restored)
        mdc_note_restored(k->s, &k->tx);
}

/* The module goes on as it was: registers again. */
static void back(struct desk *k, unsigned n)
{
    struct mdc_module_register_request rq = {.start_counter = k->starts[n],
                                             .accepted_start = k->starts[n],
                                             .incarnation = k->incarnation[n] + 100 * n,
                                             .module = n,
                                             .kind = TABLE_MODULE_OSD,
                                             .media = TABLE_MEDIA_SSD,
                                             .capacity_bytes = GIB};
    struct mdc_module_register_reply rep = {0};
    connect(k, n);
    rq.accepted_incarnation = rq.incarnation;
    rq.store.b[0] = (uint8_t)n;
    snprintf(rq.host, sizeof(rq.host), "h%u", n);
    snprintf(rq.name, sizeof(rq.name), "m%u", n);
    struct mdc_decision d = decision(k, n);
    assert_int_equal(mdc_op_module_register(&d, &rq, &rep), STATUS_OK);
    assert_true(rep.tell);
}

static void tell(struct desk *k, unsigned n, const struct record_partition *r, bool in_force)
{
    struct mdc_module_records_request rq = {.module = n,
                                            .incarnation = k->s->modules[n - 1].rec.incarnation,
                                            .term = k->s->term,
                                            .first = true,
                                            .last = true};
    struct mdc_empty rep;
    for (uint32_t i = 0; i < 4; i++) {
        struct mdc_module_records_item *item = &rq.items[rq.count++];
        *item = (struct mdc_module_records_item){
            .pool = 1, .partition = i, .epoch = r[i].epoch, .in_force = in_force};
        while (item->member_count < TABLE_MEMBERS_MAX && r[i].members[item->member_count] != 0) {
            item->members[item->member_count] = r[i].members[item->member_count];
            item->member_count++;
        }
    }
    struct mdc_decision d = decision(k, n);
    assert_int_equal(mdc_op_module_records(&d, &rq, &rep), STATUS_OK);
}

static void advance(struct desk *k)
{
    struct mdc_decision d = decision(k, 1);
    mdc_op_advance(&d);
}

/* Module 2 was dropped after the copy was made; the copy calls it in sync, and its primary perhaps. */
static void test_restored_store(void **state)
{
    struct desk *k = desk_new();
    struct record_partition old[4], latest[4];
    char text[224];
    (void)state;
    memcpy(old, part(k, 0), sizeof(old));
    gone(k, 2);
    k->now_ns += NS_PER_S / 20;
    assert_true(mdc_op_watch(k->s, k->now_ns, false));
    advance(k);
    memcpy(latest, part(k, 0), sizeof(latest));
    assert_true(latest[0].epoch > old[0].epoch);
    begin_again(k, old, true);
    start(k, 2);
    tell(k, 2, old, false);
    back(k, 1);
    k->now_ns += 100 * NS_PER_S;
    advance(k);
    assert_int_equal(k->s->unsettled, 4);
    tell(k, 1, latest, true);
    advance(k);
    /* Module 3 may know of still later members. */
    assert_int_equal(k->s->unsettled, 4);
    assert_int_equal(part(k, 0)->epoch, old[0].epoch);
    assert_non_null(mdc_settle_explain(k->s, k->s->pools[0].rec.first_partition, text, sizeof(text)));
    assert_non_null(strstr(text, "module 3"));
    assert_false(report(k, MDC_REPORT_UNFIT, secondary(k)));
    back(k, 3);
    tell(k, 3, latest, true);
    assert_int_equal(k->s->unsettled, 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_false(in_sync(k, i, 2));
        assert_true(in_sync(k, i, 1) && in_sync(k, i, 3));
        assert_true(part(k, i)->epoch > latest[i].epoch);
    }
    advance(k);
    assert_false(k->s->counters.flags & RECORD_COUNTERS_UNHEARD);
    desk_end(k);
}

/* Only what a module tells shows that the store is old; then there is no time limit any more. */
static void test_found_to_be_old(void **state)
{
    struct desk *k = desk_new();
    struct record_partition old[4], latest[4];
    (void)state;
    memcpy(old, part(k, 0), sizeof(old));
    memcpy(latest, old, sizeof(latest));
    for (unsigned i = 0; i < 4; i++)
        latest[i].epoch += 5;
    begin_again(k, old, false);
    back(k, 1);
    tell(k, 1, latest, true);
    assert_true(k->s->counters.flags & RECORD_COUNTERS_UNHEARD);
    k->now_ns += 100 * NS_PER_S;
    (void)mdc_op_watch(k->s, k->now_ns, false);
    advance(k);
    assert_int_equal(k->s->unsettled, 4);
    k->s->trusted = true; /* the operator's word: what was heard decides */
    k->s->modules[0].down = false;
    advance(k);
    assert_int_equal(k->s->unsettled, 0);
    assert_true(part(k, 0)->epoch > latest[0].epoch);
    desk_end(k);
}

/* Nothing speaks for an old store: who is silent for a round is not waited for. */
static void test_ordinary_start(void **state)
{
    struct desk *k = desk_new();
    struct record_partition old[4];
    (void)state;
    memcpy(old, part(k, 0), sizeof(old));
    begin_again(k, old, false);
    back(k, 1);
    back(k, 3);
    tell(k, 1, old, true);
    tell(k, 3, old, true);
    advance(k);
    assert_int_equal(k->s->unsettled, 4);
    k->now_ns += NS_PER_S;
    k->s->modules[0].heard_ns = k->s->modules[2].heard_ns = k->now_ns;
    assert_true(mdc_op_watch(k->s, k->now_ns, false));
    advance(k);
    assert_int_equal(k->s->unsettled, 0);
    assert_false(in_sync(k, 0, 2));
    assert_true(in_sync(k, 0, 1) && in_sync(k, 0, 3));
    desk_end(k);
}

/* All are there as they were: nothing changes. One that started anew gets its new epoch. */
static void test_nothing_happened(void **state)
{
    struct desk *k = desk_new();
    struct record_partition old[4];
    (void)state;
    memcpy(old, part(k, 0), sizeof(old));
    begin_again(k, old, false);
    for (unsigned n = 1; n <= MODULES; n++) {
        back(k, n);
        tell(k, n, old, true);
    }
    assert_int_equal(k->s->unsettled, 0);
    assert_memory_equal(part(k, 0), old, sizeof(old));
    begin_again(k, old, false);
    back(k, 1);
    tell(k, 1, old, true);
    start(k, 2);
    tell(k, 2, old, false);
    back(k, 3);
    tell(k, 3, old, true);
    assert_int_equal(k->s->unsettled, 0);
    assert_true(part(k, 0)->epoch > old[0].epoch);
    assert_false(in_sync(k, 0, 2));
    desk_end(k);
}

/* Reporters' troubles are their own. */
static void test_apart_each(void **state)
{
    struct desk *k = desk_new();
    uint32_t member = secondary(k), other = 0;
    (void)state;
    for (uint32_t id = 1; id <= MODULES; id++)
        other = id != member && id != mdc_partition_primary(part(k, 0)) ? id : other;
    k->s->modules[member - 1].apart[0] = (struct mdc_apart){
        .reporter = other, .since_ns = k->now_ns - NS_PER_S, .heard_ns = k->now_ns - NS_PER_MS};
    assert_false(report(k, MDC_REPORT_UNREACHABLE, member));
    k->now_ns += 200 * NS_PER_MS;
    assert_false(report(k, MDC_REPORT_UNREACHABLE, member));
    k->now_ns += 200 * NS_PER_MS;
    assert_true(report(k, MDC_REPORT_UNREACHABLE, member));
    desk_end(k);
}

/* ---- a detach ---- */
static void confirms(struct desk *k, uint32_t n)
{
    struct mdc_module_heartbeat_request rq = {.module = n,
                                              .incarnation = k->s->modules[n - 1].rec.incarnation,
                                              .applied_term = k->s->term,
                                              .applied_version = k->s->version};
    struct mdc_module_heartbeat_reply rep = {0};
    struct mdc_decision d = decision(k, n);
    assert_int_equal(mdc_op_module_heartbeat(&d, &rq, &rep), STATUS_OK);
    assert_false(rep.register_again);
}

static bool detached(struct desk *k, struct mdc_volume *v, uint32_t *awaited)
{
    struct mdc_module *m = NULL;
    bool done = mdc_pool_confirmed_in_sync(k->s, 1, v->fence_version, &m);
    *awaited = m != NULL ? m->rec.id : 0;
    assert_int_equal(done, mdc_volume_fenced_in_sync(k->s, v));
    return done;
}

/* It waits for the modules that are in sync somewhere; another one has to know of it before it comes in. */
static void test_detach_waits_for_those_in_sync(void **state)
{
    (void)state;
    struct desk *k = desk_new();
    const struct record_volume rec = {
        .name = "v", .id = {{5}}, .pool = 1, .generation = 1, .size_bytes = GIB, .state = TABLE_VOLUME_READY};
    struct mdc_volume *v = mdc_volume_add(k->s, &rec);
    struct mdc_decision d = decision(k, 1);
    uint32_t awaited, away = secondary(k);
    k->s->version = 10;
    for (uint32_t n = 1; n <= MODULES; n++)
        confirms(k, n);
    mdc_volume_raise_generation(k->s, d.tx, v);
    assert_false(mdc_volume_fenced_in_sync(k->s, v)); /* nobody has been told yet */
    v->fence_unpublished = false;
    v->fence_version = k->s->version = 11;
    for (uint32_t n = 1; n <= MODULES; n++) {
        assert_false(detached(k, v, &awaited));
        if (n != away)
            confirms(k, n);
    }
    assert_false(detached(k, v, &awaited));
    assert_int_equal(awaited, away);
    /* It is gone, and out of sync everywhere. */
    gone(k, away);
    k->now_ns += 2 * SESSION_GRACE_NS;
    assert_true(mdc_op_watch(k->s, k->now_ns, false));
    d = decision(k, mdc_partition_primary(part(k, 0)));
    mdc_op_advance(&d);
    assert_true(detached(k, v, &awaited));
    assert_false(mdc_volume_fenced(k->s, v, NULL)); /* what a delete or a shrink waits for */
    /* What is not settled may have it in sync. */
    k->s->settling[k->s->pools[0].rec.first_partition + 3] |= MDC_UNSETTLED;
    assert_false(detached(k, v, &awaited));
    k->s->settling[k->s->pools[0].rec.first_partition + 3] = 0;
    start(k, away);
    assert_true(detached(k, v, &awaited));
    assert_false(report(k, MDC_REPORT_IN_SYNC, away));
    confirms(k, away);
    assert_true(report(k, MDC_REPORT_IN_SYNC, away));
    assert_true(detached(k, v, &awaited));
    desk_end(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restored_store),
        cmocka_unit_test(test_found_to_be_old),
        cmocka_unit_test(test_ordinary_start),
        cmocka_unit_test(test_nothing_happened),
        cmocka_unit_test(test_apart_each),
        cmocka_unit_test(test_three_copies),
        cmocka_unit_test(test_detach_waits_for_those_in_sync),
        cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_last_one_stays),
        cmocka_unit_test(test_dead_primary),
        cmocka_unit_test(test_late_watch),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_comes_in),
        cmocka_unit_test(test_primary_steps_back),
        cmocka_unit_test(test_reports_that_do_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
