/* cluster.h: controllers that come and go, calls, waits, and an end at each step. */
#include "tests/unit/cluster_fixture.h"

#include "rdma/fabric_fault.h"
#include "services/cluster/cluster_private.h"

/* ---- controllers that come and go ---- */

static void a_restart_brings_a_new_key(void **state)
{
    (void)state;
    begin(700);
    const struct table *t = cluster_table(bed.c);
    const uint64_t version = table_head(t)->version;
    fake_stop(&bed.fake[0]);
    run_for(&bed, 20 * NS_PER_S);
    assert_int_equal(bed.downs, 1);
    assert_false(cluster_session_is_up(bed.c));
    assert_int_equal(table_head(t)->version, version); /* stays usable */
    fake_start(&bed, 0, 4);
    publish(&bed.fake[0], 20); /* fewer versions, higher term */
    assert_true(settles(&bed, &bed.fake[0]));
    assert_int_equal(bed.ups, 2);
    assert_int_equal(counters(&bed).full_reads, 2);
}

static void an_older_table_is_not_gone_back_to(void **state)
{
    (void)state;
    begin(700);
    fake_stop(&bed.fake[0]);
    fake_start(&bed, 0, 2);
    publish(&bed.fake[0], 900);
    run_for(&bed, 20 * NS_PER_S);
    assert_true(cluster_session_is_up(bed.c));
    assert_int_equal(bed.changes, 1);
    assert_int_equal(table_head(cluster_table(bed.c))->term, 3);
}

static void the_second_serves_when_the_first_is_away(void **state)
{
    (void)state;
    fake_start(&bed, 1, 3);
    publish(&bed.fake[1], 30);
    bed_cluster(&bed);
    assert_true(settles(&bed, &bed.fake[1]));
    fake_start(&bed, 0, 4);
    fake_stop(&bed.fake[1]);
    assert_true(settles(&bed, &bed.fake[0]));
}

static void not_in_charge(void **state)
{
    (void)state;
    struct tried t;
    fake_start(&bed, 0, 3);
    fake_start(&bed, 1, 4);
    bed.fake[1].leader = false;
    bed_cluster(&bed);
    assert_true(settles(&bed, &bed.fake[0]));
    bed.fake[0].leader = false;
    bed.fake[1].leader = true;
    try_call(&bed, &t, "v", 0, false); /* refused there, so it may be repeated here */
    assert_true(settles(&bed, &bed.fake[1]));
    run_for(&bed, NS_PER_S);
    assert_int_equal(t.done, 1);
    assert_int_equal(t.rc, 0);
    assert_int_equal(bed.fake[0].calls, 1);
    assert_int_equal(bed.fake[1].calls, 1);
}

/* A process that hangs while its memory can still be read. */
static void a_heart_that_stands_still(void **state)
{
    (void)state;
    fake_start(&bed, 0, 3);
    bed_cluster(&bed);
    assert_true(settles(&bed, &bed.fake[0]));
    for (int i = 0; i < 100; i++) {
        table_heartbeat(&bed.fake[0].table);
        run_for(&bed, 100 * NS_PER_MS);
    }
    assert_int_equal(bed.downs, 0);
    fake_start(&bed, 1, 4);
    run_for(&bed, 10 * NS_PER_S);
    assert_int_equal(bed.downs, 1);
    assert_true(settles(&bed, &bed.fake[1]));
}

/* With just one controller nothing is won by leaving it. */
static void the_only_heart_that_stands_still(void **state)
{
    (void)state;
    begin(10);
    run_for(&bed, 30 * NS_PER_S);
    assert_int_equal(bed.downs, 0);
    publish(&bed.fake[0], 2);
    assert_true(settles(&bed, &bed.fake[0]));
}

/* ---- names ---- */

/* A name server: tells where the controller is at present, a moment later; nothing before there is one. */
static struct {
    struct loop_timer timer;
    struct resolve_request *req;
    unsigned asked;
    int fake; /* -1: no such name */
    char host[RESOLVE_HOST_BYTES];
    struct loop *loop;
} names;

static void name_answered(struct loop_timer *timer)
{
    (void)timer;
    struct resolve_request *req = names.req;
    struct resolve_addr addr = {.family = 0};
    names.req = NULL;
    if (names.fake < 0) {
        req->done(req, -ENOENT, NULL, 0);
        return;
    }
    const struct fabric_addr at = fake_addr((unsigned)names.fake);
    memcpy(addr.ip, at.ip, sizeof(addr.ip));
    req->done(req, 0, &addr, 1);
}

static int name_start(struct env *env, struct resolve_request *req, const char *host)
{
    assert_null(names.req);
    names.asked++;
    names.req = req;
    names.loop = env->loop;
    snprintf(names.host, sizeof(names.host), "%s", host);
    loop_timer_init(&names.timer, name_answered);
    loop_timer_arm(env->loop, &names.timer, 3 * NS_PER_MS);
    return 0;
}

static void name_cancel(struct resolve_request *req)
{
    if (names.req != req)
        return;
    loop_timer_cancel(names.loop, &names.timer);
    names.req = NULL;
}

static const struct resolver fake_names = {.start = name_start, .cancel = name_cancel};

static void begin_by_name(int fake)
{
    static const struct cluster_events events = {on_session_up, on_session_down, on_table_changed};
    memset(&names, 0, sizeof(names));
    names.fake = fake;
    bed.config.mdc_count = 1;
    memset(bed.config.mdc[0].ip, 0, sizeof(bed.config.mdc[0].ip));
    snprintf(bed.config.mdc_host[0], sizeof(bed.config.mdc_host[0]), "the-mdc");
    proc_start(&bed, &bed.p, "under-test", 9, FABRIC_ROLE_VBS);
    bed.p.env.resolver = &fake_names;
    assert_int_equal(cluster_create(&bed.p.env, &bed.config, &events, &bed, &bed.c), 0);
}

static void a_name_whose_address_changes(void **state)
{
    (void)state;
    struct tried t;
    fake_start(&bed, 0, 3);
    begin_by_name(-1);
    try_call(&bed, &t, "v", 500 * NS_PER_MS, true);
    run_for(&bed, 2 * NS_PER_S);
    assert_true(names.asked > 1);
    assert_string_equal(names.host, "the-mdc");
    assert_int_equal(t.rc, -ETIMEDOUT);
    assert_non_null(strstr(t.call.error_text, "the-mdc"));
    assert_non_null(strstr(t.call.error_text, "there is no address for that name"));
    names.fake = 0;
    assert_true(settles(&bed, &bed.fake[0]));
    fake_stop(&bed.fake[0]);
    run_for(&bed, 2 * NS_PER_S);
    assert_int_equal(bed.downs, 1);
    names.fake = 1; /* the same controller elsewhere: a later term, other keys */
    fake_start(&bed, 1, 4);
    assert_true(settles(&bed, &bed.fake[1]));
    assert_int_equal(bed.ups, 2);
}

static void destroyed_while_a_name_is_asked_for(void **state)
{
    (void)state;
    fake_start(&bed, 0, 3);
    begin_by_name(0);
    while (names.req == NULL)
        sim_world_step(bed.world);
    cluster_destroy(bed.c);
    bed.c = NULL;
    assert_null(names.req);
    run_for(&bed, NS_PER_S);
    assert_int_equal(names.asked, 1);
}

static void a_name_without_a_resolver(void **state)
{
    (void)state;
    struct tried t;
    bed.config.mdc_count = 1;
    snprintf(bed.config.mdc_host[0], sizeof(bed.config.mdc_host[0]), "the-mdc");
    bed_cluster(&bed);
    try_call(&bed, &t, "v", 500 * NS_PER_MS, true);
    run_for(&bed, NS_PER_S);
    assert_non_null(strstr(t.call.error_text, "names cannot be resolved here"));
}

/* ---- calls ---- */

static void calls_and_their_errors(void **state)
{
    (void)state;
    struct tried ok, busy, garbage, silent;
    begin(1);
    try_call(&bed, &ok, "v", 0, false);
    try_call(&bed, &busy, "busy", 0, true);
    try_call(&bed, &garbage, "garbage", 0, false);
    try_call(&bed, &silent, "silent", 300 * NS_PER_MS, true);
    run_for(&bed, 100 * NS_PER_MS);
    assert_int_equal(ok.done, 1);
    assert_int_equal(ok.rc, 0);
    assert_string_equal(ok.reply.volume.name, "v");
    assert_int_equal(busy.rc, -EBUSY);
    assert_int_equal(busy.call.status, STATUS_BUSY);
    assert_string_equal(busy.call.error_text, "volume busy is open on host1: close it there first");
    assert_int_equal(garbage.rc, -EPROTO);
    assert_non_null(
        strstr(garbage.call.error_text, "volume_get: the metadata controller's answer is malformed"));
    assert_int_equal(silent.done, 0);
    run_for(&bed, NS_PER_S);
    assert_int_equal(silent.rc, -ETIMEDOUT);
    assert_non_null(strstr(silent.call.error_text, "sim:1:7000 did not answer within 300 ms"));
    assert_true(ok.done == 1 && busy.done == 1 && garbage.done == 1 && silent.done == 1);
}

static void nobody_to_call(void **state)
{
    (void)state;
    struct tried t, forever;
    bed_cluster(&bed);
    try_call(&bed, &t, "v", 2 * NS_PER_S, false);
    try_call(&bed, &forever, "w", 0, false);
    run_for(&bed, 3 * NS_PER_S);
    assert_int_equal(t.done, 1);
    assert_int_equal(t.rc, -ETIMEDOUT);
    assert_non_null(
        strstr(t.call.error_text, "no metadata controller could be reached within 2000 ms (sim:1:7000: "));
    assert_int_equal(forever.done, 0);
    fake_start(&bed, 0, 3);
    assert_true(settles(&bed, &bed.fake[0]));
    run_for(&bed, NS_PER_S);
    assert_int_equal(forever.done, 1);
    assert_int_equal(forever.rc, 0);
}

static void a_lost_connection(void **state)
{
    (void)state;
    struct tried once, again;
    begin(1);
    try_call(&bed, &once, "silent", 0, false);
    try_call(&bed, &again, "silent", 20 * NS_PER_S, true);
    run_for(&bed, 100 * NS_PER_MS);
    assert_int_equal(bed.fake[0].calls, 2);
    sim_net_break(bed.net, 0);
    run_for(&bed, 5 * NS_PER_S);
    assert_int_equal(once.done, 1);
    assert_int_equal(once.rc, -ENOTCONN);
    assert_non_null(strstr(once.call.error_text, "may or may not have been done"));
    assert_int_equal(again.done, 0);
    assert_int_equal(bed.fake[0].calls, 3);
    run_for(&bed, 20 * NS_PER_S);
    assert_int_equal(again.rc, -ETIMEDOUT);
    assert_int_equal(again.done, 1);
}

static void cancelled_calls(void **state)
{
    (void)state;
    struct tried queued, sent, never;
    memset(&never, 0, sizeof(never));
    cluster_call_cancel(&never.call);
    bed_cluster(&bed);
    try_call(&bed, &queued, "v", NS_PER_S, true);
    cluster_call_cancel(&queued.call);
    cluster_call_cancel(&queued.call);
    fake_start(&bed, 0, 3);
    assert_true(settles(&bed, &bed.fake[0]));
    try_call(&bed, &sent, "v", NS_PER_S, true);
    run_for(&bed, 50 * NS_PER_US);
    cluster_call_cancel(&sent.call);
    memset(&sent.call, 0xee, sizeof(sent.call)); /* its memory is the caller's again */
    run_for(&bed, 3 * NS_PER_S);
    assert_int_equal(queued.done + sent.done, 0);
    assert_int_equal(bed.fake[0].calls, 1);
}

static void a_request_that_does_not_fit(void **state)
{
    (void)state;
    begin(1);
    static const struct wire_field fields[] = {
        {.key = "x", .kind = WIRE_BIN, .required = true, .offset = 0, .size = RPC_BODY_MAX}, WIRE_END};
    static const struct wire_type type = {.name = "huge", .size = RPC_BODY_MAX, .fields = fields};
    static const uint8_t huge[RPC_BODY_MAX];
    struct cluster_call call = {.method = 1, .request_type = &type, .request = huge, .done = on_called};
    assert_int_equal(cluster_call_start(bed.c, &call), -EMSGSIZE);
}

/* ---- waits ---- */

struct waited {
    struct cluster_wait w;
    uint64_t at_ns; /* 0: not yet */
};
static void on_waited(struct cluster_wait *w)
{
    struct waited *x = container_of(w, struct waited, w);
    assert_int_equal(x->at_ns, 0);
    x->at_ns = sim_world_now(bed.world);
}
static void wait_for(struct waited *x, uint64_t term, uint64_t version)
{
    *x = (struct waited){.w = {.term = term, .version = version, .fn = on_waited}};
    cluster_wait_table(bed.c, &x->w);
    assert_int_equal(x->at_ns, 0);
}

static void waits(void **state)
{
    (void)state;
    struct waited now, soon, later, any, gone;
    bed.config.refresh_ns = 1000 * NS_PER_S;
    begin(10);
    const uint64_t version = bed.last_version;
    wait_for(&now, 3, version);
    wait_for(&soon, 3, version + 4);
    wait_for(&later, 4, 1);
    wait_for(&any, 0, 0);
    wait_for(&gone, 0, 0);
    cluster_wait_cancel(bed.c, &gone.w);
    run_for(&bed, 10 * NS_PER_MS);
    assert_true(now.at_ns != 0 && any.at_ns != 0);
    assert_int_equal(soon.at_ns, 0);
    publish(&bed.fake[0], 4); /* no hint: whoever waits for a version looks again by itself */
    run_for(&bed, 200 * NS_PER_MS);
    assert_true(soon.at_ns != 0);
    assert_int_equal(later.at_ns, 0);
    cluster_wait_cancel(bed.c, &soon.w);
    fake_stop(&bed.fake[0]);
    run_for(&bed, 5 * NS_PER_S);
    const uint64_t asked = sim_world_now(bed.world);
    wait_for(&any, 0, 0); /* nobody stands still because the controller is away */
    run_for(&bed, 3 * NS_PER_S);
    assert_in_range(any.at_ns, asked, asked + 1100 * NS_PER_MS);
    fake_start(&bed, 0, 4);
    assert_true(settles(&bed, &bed.fake[0]));
    run_for(&bed, NS_PER_MS);
    assert_true(later.at_ns != 0);
    assert_int_equal(gone.at_ns, 0);
}

/* A refresh that had begun before the wait does not end it: it may have read the header already. */
static void a_wait_in_the_middle_of_a_refresh(void **state)
{
    (void)state;
    bed.config.refresh_ns = 1000 * NS_PER_S;
    begin(10);
    for (unsigned steps = 0; steps < 30; steps++) {
        struct waited any;
        cluster_refresh(bed.c);
        for (unsigned i = 0; i < steps; i++)
            sim_world_step(bed.world);
        publish(&bed.fake[0], 1);
        wait_for(&any, 0, 0);
        while (any.at_ns == 0)
            assert_true(sim_world_step(bed.world));
        assert_true(same_table(&bed, &bed.fake[0]));
    }
}

/* ---- at each step ---- */

/* All that there is to do, from the first connect to a ring read and a whole read and calls, in steps of the
 * world. */
static void script(unsigned step)
{
    if (step == 150)
        publish(&bed.fake[0], 20);
    if (step == 200)
        publish(&bed.fake[0], 700);
    if (step == 151 || step == 201)
        cluster_refresh(bed.c);
    sim_world_step(bed.world);
}
enum { SCRIPT_STEPS = 400 };

static void at_each_step_the_network_breaks(void **state)
{
    (void)state;
    unsigned whole = 0;
    for (unsigned at = 0; at < SCRIPT_STEPS; at++) {
        struct tried t;
        rng_seed(&rng, at);
        bed_init(&bed, 100 + at, 1);
        fake_start(&bed, 0, 3);
        publish(&bed.fake[0], 600);
        bed_cluster(&bed);
        try_call(&bed, &t, "v", 0, true);
        for (unsigned step = 0; step < SCRIPT_STEPS; step++) {
            script(step);
            if (step == at)
                sim_net_break(bed.net, 0);
        }
        assert_true(settles(&bed, &bed.fake[0]));
        run_for(&bed, NS_PER_S);
        assert_int_equal(t.done, 1);
        assert_int_equal(t.rc, 0);
        whole += counters(&bed).full_reads > 1;
        bed_free(&bed);
    }
    assert_true(whole > SCRIPT_STEPS / 2); /* the script did what it is for */
    memset(&bed, 0, sizeof(bed));
}

static void at_each_step_it_is_destroyed(void **state)
{
    (void)state;
    for (unsigned at = 0; at < SCRIPT_STEPS; at++) {
        struct tried *t = calloc(1, sizeof(*t));
        struct waited *w = calloc(1, sizeof(*w));
        assert_true(t != NULL && w != NULL);
        rng_seed(&rng, at);
        bed_init(&bed, 900 + at, 1);
        fake_start(&bed, 0, 3);
        publish(&bed.fake[0], 600);
        bed_cluster(&bed);
        for (unsigned step = 0; step < at; step++)
            script(step);
        try_call(&bed, t, "v", NS_PER_S, true);
        wait_for(w, 0, at % 3);
        for (unsigned step = 0; step < at % 20; step++)
            sim_world_step(bed.world);
        bed.dead = true;
        cluster_destroy(bed.c);
        bed.c = NULL;
        free(t);
        free(w);
        run_for(&bed, 2 * NS_PER_S); /* the fabric lives on; nothing touches what is gone */
        struct fabric_counters n;
        fabric_counters_get(bed.p.fabric, &n);
        assert_int_equal(n.ops_pending, 0);
        assert_int_equal(n.conns_open, 0);
        assert_int_equal(n.mems, 0);
        bed_free(&bed);
    }
    memset(&bed, 0, sizeof(bed));
}

/* Each call of the fabric that can fail does so once: create says so and leaves nothing behind, or all comes
 * right later. */
static void at_each_call_the_fabric_fails(void **state)
{
    (void)state;
    bool fired = true;
    for (unsigned n = 1; fired; n++) {
        struct tried t;
        assert_true(n < 1000);
        rng_seed(&rng, n);
        bed_init(&bed, 2000 + n, 1);
        fake_start(&bed, 0, 3);
        publish(&bed.fake[0], 600);
        proc_start(&bed, &bed.p, "under-test", 9, FABRIC_ROLE_VBS);
        assert_int_equal(fabric_fault_attach(bed.p.fabric, n), 0);
        fabric_fault_fail_at(bed.p.fabric, n);
        const int rc = cluster_create(&bed.p.env, &bed.config, NULL, NULL, &bed.c);
        if (rc != 0) {
            assert_int_equal(rc, -ENOMEM);
            assert_int_equal(fabric_fault_live(bed.p.fabric), 0);
            bed_free(&bed);
            continue;
        }
        try_call(&bed, &t, "v", 0, true);
        for (unsigned step = 0; step < 300; step++)
            script(step);
        assert_true(settles(&bed, &bed.fake[0]));
        run_for(&bed, NS_PER_S);
        assert_int_equal(t.done, 1);
        assert_int_equal(t.rc, 0);
        fired = fabric_fault_fired(bed.p.fabric);
        bed_free(&bed);
    }
    memset(&bed, 0, sizeof(bed));
}

/* The same over sockets: one loop for both ends. */
static void over_tcp(void **state)
{
    (void)state;
    struct fake m;
    struct tried t;
    struct fabric_config fc = {.cluster = fake_cluster,
                               .secret = "sesame",
                               .secret_len = 6,
                               .role = FABRIC_ROLE_MDC,
                               .incarnation = 1};
    struct fabric_addr any;
    memset(&bed, 0, sizeof(bed));
    memset(&m, 0, sizeof(m));
    log_set_sink(quiet, NULL);
    rng_seed(&rng, 5);
    assert_int_equal(loop_create_real(NULL, &bed.p.loop), 0);
    bed.p.env = (struct env){.loop = bed.p.loop, .rng = &rng, .name = "t"};
    m.p.loop = bed.p.loop;
    m.p.env = bed.p.env;
    assert_int_equal(fabric_create_tcp(&m.p.env, &fc, &m.p.fabric), 0);
    m.p.env.fabric = m.p.fabric;
    fc.role = FABRIC_ROLE_VBS;
    assert_int_equal(fabric_create_tcp(&bed.p.env, &fc, &bed.p.fabric), 0);
    bed.p.env.fabric = bed.p.fabric;
    assert_int_equal(fabric_addr_parse("tcp:127.0.0.1:0", &any), 0);
    fake_serve(&m, &any, 3);
    publish(&m, 3000);
    bed.config = (struct cluster_config){.mdc_count = 1,
                                         .role = FABRIC_ROLE_VBS,
                                         .instance = 77,
                                         .host = "host9",
                                         .name = "t",
                                         .refresh_ns = 50 * NS_PER_MS};
    rpc_listener_addr(m.listener, &bed.config.mdc[0]);
    assert_int_equal(cluster_create(&bed.p.env, &bed.config, NULL, NULL, &bed.c), 0);
    try_call(&bed, &t, "v", 0, true);
    for (unsigned round = 0; round < 20; round++) {
        publish(&m, round * round);
        for (unsigned i = 0; (!same_table(&bed, &m) || t.done == 0) && i < 100000; i++)
            loop_run_once(bed.p.loop, 100 * NS_PER_MS);
        assert_true(same_table(&bed, &m));
    }
    assert_int_equal(t.rc, 0);
    cluster_destroy(bed.c);
    fake_stop(&m);
    fabric_destroy(bed.p.fabric);
    loop_destroy(bed.p.loop);
    memset(&bed, 0, sizeof(bed));
}

static void bad_arguments(void **state)
{
    (void)state;
    proc_start(&bed, &bed.p, "x", 9, FABRIC_ROLE_VBS);
    struct cluster_config config = bed.config;
    struct cluster *c;
    config.mdc_count = 0;
    assert_int_equal(cluster_create(&bed.p.env, &config, NULL, NULL, &c), -EINVAL);
    config.mdc_count = CLUSTER_MDCS_MAX + 1;
    assert_int_equal(cluster_create(&bed.p.env, &config, NULL, NULL, &c), -EINVAL);
    config = bed.config;
    config.host[0] = '-';
    assert_int_equal(cluster_create(&bed.p.env, &config, NULL, NULL, &c), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_restart_brings_a_new_key),
        T(an_older_table_is_not_gone_back_to),
        T2(the_second_serves_when_the_first_is_away),
        T2(not_in_charge),
        T2(a_heart_that_stands_still),
        T(the_only_heart_that_stands_still),
        T2(a_name_whose_address_changes),
        T(destroyed_while_a_name_is_asked_for),
        T(a_name_without_a_resolver),
        T(calls_and_their_errors),
        T(nobody_to_call),
        T(a_lost_connection),
        T(cancelled_calls),
        T(a_request_that_does_not_fit),
        T(waits),
        T(a_wait_in_the_middle_of_a_refresh),
        T(bad_arguments),
        cmocka_unit_test(over_tcp),
        cmocka_unit_test(at_each_call_the_fabric_fails),
        cmocka_unit_test(at_each_step_the_network_breaks),
        cmocka_unit_test(at_each_step_it_is_destroyed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
