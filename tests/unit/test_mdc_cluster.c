/*
 * test_mdc_cluster.c: the metadata controller and its clients' cluster objects on a simulated network: what
 * is published arrives, over crashes, pauses and a store put back from an old copy.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "common/log.h"
#include "common/rng.h"
#include "common/sim.h"
#include "rdma/fabric_sim.h"
#include "services/cluster/cluster.h"
#include "services/mdc/mdc.h"

#define PERIOD_MS 100

struct proc {
    struct loop *loop;
    struct fabric *fabric;
    struct rng rng;
    struct env env;
};
struct bed {
    struct sim_world *world;
    struct sim_net *net;
    struct uuid cluster_id;
    struct meta_sim *disk;
    struct proc mdc_proc, module_proc;
    struct mdc *mdc;
    struct cluster *c; /* of the module, which also makes the admin's calls */
    unsigned ups;
    /* the module */
    uint32_t id;
    bool registered, calling;
    uint64_t high_turn, high_layer;
    struct loop_timer beat;
    struct cluster_call register_call, beat_call;
    struct mdc_module_register_reply register_reply;
    struct mdc_module_heartbeat_reply beat_reply;
};

static void proc_start(struct bed *b, struct proc *p, const char *name, uint32_t host, enum fabric_role role)
{
    struct fabric_config fc = {
        .cluster = b->cluster_id, .secret = "0123456789abcdef", .secret_len = 16, .role = role};
    rng_fill(sim_world_rng(b->world), &fc.incarnation, sizeof(fc.incarnation));
    sim_world_fork_rng(b->world, name, &p->rng);
    assert_int_equal(loop_create_sim(b->world, name, 0, &p->loop), 0);
    p->env = (struct env){.loop = p->loop, .rng = &p->rng, .name = name};
    assert_int_equal(fabric_create_sim(&p->env, b->net, host, &fc, &p->fabric), 0);
    p->env.fabric = p->fabric;
}

static void proc_stop(struct proc *p)
{
    fabric_destroy(p->fabric);
    sim_loop_kill(p->loop);
    loop_destroy(p->loop);
}

static struct fabric_addr mdc_listens(void)
{
    struct fabric_addr a;
    assert_int_equal(fabric_addr_parse("sim:1:7000", &a), 0);
    return a;
}

static void mdc_start(struct bed *b)
{
    struct mdc_config c = {.cluster = b->cluster_id,
                           .listen = mdc_listens(),
                           .limits = {.pools = 4, .modules = 8, .partitions = 512, .volumes = 32},
                           .heartbeat_ms = PERIOD_MS};
    proc_start(b, &b->mdc_proc, "mdc", 1, FABRIC_ROLE_MDC);
    assert_int_equal(meta_sim_open(b->disk, &b->mdc_proc.env, &c.meta), 0);
    assert_int_equal(mdc_create(&b->mdc_proc.env, &c, &b->mdc), 0);
}

static void mdc_crash(struct bed *b)
{
    mdc_destroy(b->mdc);
    proc_stop(&b->mdc_proc);
    b->mdc = NULL;
}

/* ---- a module: registers with each session, tells what its copy of the table is ---- */

static void registered(struct cluster_call *call, int rc)
{
    struct bed *b = container_of(call, struct bed, register_call);
    b->registered = rc == 0;
    if (rc == 0)
        b->id = b->register_reply.module;
}

static void session_up(void *user, const struct mdc_session_reply *session)
{
    struct bed *b = user;
    (void)session;
    b->ups++;
    struct mdc_module_register_request rq = {.store = {{7}},
                                             .start_counter = 1,
                                             .incarnation = 99,
                                             .module = b->id,
                                             .kind = TABLE_MODULE_OSD,
                                             .media = TABLE_MEDIA_SSD,
                                             .host = "node1",
                                             .name = "osd1",
                                             .capacity_bytes = GIB,
                                             .highest_turn = b->high_turn,
                                             .highest_layer = b->high_layer};
    if (b->register_call.cluster != NULL)
        cluster_call_cancel(&b->register_call);
    b->register_call = (struct cluster_call){.method = MDC_METHOD_MODULE_REGISTER,
                                             .request_type = &mdc_module_register_request_type,
                                             .reply_type = &mdc_module_register_reply_type,
                                             .request = &rq,
                                             .reply = &b->register_reply,
                                             .done = registered};
    assert_int_equal(cluster_call_start(b->c, &b->register_call), 0);
}

static void beaten(struct cluster_call *call, int rc)
{
    (void)rc;
    container_of(call, struct bed, beat_call)->calling = false;
}

static void beat(struct loop_timer *t)
{
    struct bed *b = container_of(t, struct bed, beat);
    const struct table *table = cluster_table(b->c);
    loop_timer_arm(b->module_proc.loop, t, PERIOD_MS * NS_PER_MS);
    if (b->calling || !b->registered || !cluster_session_is_up(b->c))
        return;
    struct mdc_module_heartbeat_request rq = {.module = b->id, .incarnation = 99, .capacity_bytes = GIB};
    if (table != NULL) {
        rq.applied_term = table_head(table)->term;
        rq.applied_version = table_head(table)->version;
    }
    b->beat_call = (struct cluster_call){.method = MDC_METHOD_MODULE_HEARTBEAT,
                                         .request_type = &mdc_module_heartbeat_request_type,
                                         .reply_type = &mdc_module_heartbeat_reply_type,
                                         .request = &rq,
                                         .reply = &b->beat_reply,
                                         .timeout_ns = NS_PER_S,
                                         .done = beaten};
    b->calling = cluster_call_start(b->c, &b->beat_call) == 0;
}

static void bed_init(struct bed *b, uint64_t seed)
{
    static const struct cluster_events events = {.session_up = session_up};
    memset(b, 0, sizeof(*b));
    log_set_level(LOG_ERROR_);
    assert_int_equal(sim_world_create(seed, &b->world), 0);
    assert_int_equal(sim_net_create(b->world, &b->net), 0);
    b->cluster_id = (struct uuid){{0xc1}};
    assert_int_equal(meta_sim_create(seed, NS_PER_MS, &b->disk), 0);
    mdc_start(b);
    proc_start(b, &b->module_proc, "osd1", 2, FABRIC_ROLE_MODULE);
    struct cluster_config cc = {.mdc = {mdc_listens()},
                                .mdc_count = 1,
                                .role = FABRIC_ROLE_MODULE,
                                .host = "node1",
                                .name = "osd1",
                                .instance = 99};
    assert_int_equal(cluster_create(&b->module_proc.env, &cc, &events, b, &b->c), 0);
    loop_timer_init(&b->beat, beat);
    loop_timer_arm(b->module_proc.loop, &b->beat, PERIOD_MS * NS_PER_MS);
}

static void bed_free(struct bed *b)
{
    cluster_destroy(b->c);
    loop_timer_cancel(b->module_proc.loop, &b->beat);
    proc_stop(&b->module_proc);
    if (b->mdc != NULL)
        mdc_crash(b);
    meta_sim_destroy(b->disk);
    sim_net_destroy(b->net);
    sim_world_destroy(b->world);
}

static void run_ms(struct bed *b, uint64_t ms)
{
    sim_world_run_until(b->world, sim_world_now(b->world) + ms * NS_PER_MS);
}

/* ---- calls ---- */

struct ask {
    struct cluster_call call;
    bool done;
    int rc;
};

static void asked(struct cluster_call *call, int rc)
{
    struct ask *a = container_of(call, struct ask, call);
    a->done = true;
    a->rc = rc;
}

static int ask(struct bed *b, uint16_t method, const struct wire_type *rq_type, const void *rq,
               const struct wire_type *rep_type, void *rep)
{
    struct ask a = {.call = {.method = method,
                             .request_type = rq_type,
                             .reply_type = rep_type,
                             .request = rq,
                             .reply = rep,
                             .timeout_ns = 60 * NS_PER_S,
                             .done = asked}};
    assert_int_equal(cluster_call_start(b->c, &a.call), 0);
    while (!a.done)
        run_ms(b, 1);
    return a.rc;
}
#define ASK(b, NAME, rq_type, rq, rep_type, rep)                                                             \
    ask(b, MDC_METHOD_##NAME, &rq_type##_type, rq, &rep_type##_type, rep)

static void make_pool(struct bed *b)
{
    struct mdc_pool_create_request rq = {.name = "p", .partitions = 64};
    struct mdc_pool_reply rep;
    while (!b->registered)
        run_ms(b, 1);
    assert_int_equal(ASK(b, POOL_CREATE, mdc_pool_create_request, &rq, mdc_pool_reply, &rep), 0);
}

static int make_volume(struct bed *b, unsigned n, struct mdc_volume_reply *rep)
{
    struct mdc_volume_create_request rq = {.size_bytes = GIB};
    snprintf(rq.name, sizeof(rq.name), "v%u", n);
    return ASK(b, VOLUME_CREATE, mdc_volume_create_request, &rq, mdc_volume_reply, rep);
}

/* The module's copy becomes the table as published, record by record. */
static void check_same_table(struct bed *b)
{
    const struct table *theirs = mdc_table(b->mdc), *own = NULL;
    for (unsigned i = 0; i < 200; i++) {
        own = cluster_table(b->c);
        if (own != NULL && table_head(own)->term == table_head(theirs)->term &&
            table_head(own)->version == table_head(theirs)->version)
            break;
        run_ms(b, 50);
    }
    assert_non_null(own);
    assert_int_equal(table_head(own)->version, table_head(theirs)->version);
    for (int k = 0; k < TABLE_KINDS; k++) {
        for (uint32_t i = 0; i < table_head(theirs)->section[k].used; i++)
            assert_memory_equal(table_record(own, (enum table_kind)k, i),
                                table_record(theirs, (enum table_kind)k, i),
                                table_record_bytes((enum table_kind)k));
    }
}

/* ---- tests ---- */

/* What is answered is in the module's copy soon, and stays over crashes at any moment. */
static void test_tables_arrive(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct bed b;
        struct mdc_volume_reply rep;
        bool made[20] = {false};
        bed_init(&b, seed);
        make_pool(&b);
        for (unsigned n = 0; n < 20; n++) {
            int rc = make_volume(&b, n, &rep);
            assert_true(rc == 0 || rc == -ENOTCONN || rc == -EAGAIN); /* its module has not come back yet */
            made[n] = rc == 0;
            if (rng_chance(sim_world_rng(b.world), 1, 4)) {
                run_ms(&b, rng_below(sim_world_rng(b.world), 4));
                mdc_crash(&b);
                run_ms(&b, rng_below(sim_world_rng(b.world), 2000));
                mdc_start(&b);
            }
        }
        run_ms(&b, 3000);
        check_same_table(&b);
        for (unsigned n = 0; n < 20; n++) {
            struct mdc_name_request rq = {{0}};
            snprintf(rq.name, sizeof(rq.name), "v%u", n);
            int rc = ASK(&b, VOLUME_GET, mdc_name_request, &rq, mdc_volume_reply, &rep);
            assert_true(rc == 0 || (rc == -ENOENT && !made[n]));
        }
        assert_int_equal(table_module_by_id(cluster_table(b.c), 1)->state, TABLE_MODULE_UP);
        bed_free(&b);
    }
}

/* A silent module goes DOWN; a paused controller that wakes up declares nobody dead. */
static void test_pause_declares_nobody_dead(void **state)
{
    (void)state;
    struct bed b;
    bed_init(&b, 5);
    make_pool(&b);
    run_ms(&b, 1000);
    for (unsigned i = 0; i < 5; i++) {
        sim_loop_pause(b.mdc_proc.loop);
        run_ms(&b, 700 + i * 900);
        sim_loop_resume(b.mdc_proc.loop);
        for (unsigned k = 0; k < 20; k++) {
            run_ms(&b, 5);
            assert_int_equal(table_module_by_id(mdc_table(b.mdc), 1)->state, TABLE_MODULE_UP);
        }
        run_ms(&b, 3000);
        assert_int_equal(table_module_by_id(mdc_table(b.mdc), 1)->state, TABLE_MODULE_UP);
    }
    sim_loop_pause(b.module_proc.loop);
    run_ms(&b, 800);
    assert_int_equal(table_module_by_id(mdc_table(b.mdc), 1)->state, TABLE_MODULE_DOWN);
    sim_loop_resume(b.module_proc.loop);
    run_ms(&b, 10000);
    assert_int_equal(table_module_by_id(mdc_table(b.mdc), 1)->state, TABLE_MODULE_UP);
    bed_free(&b);
}

/* A store put back from an old copy: the module has seen a later table and takes the new one all the same. */
static void test_restored_controller_is_heard(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct bed b;
        struct meta_sim *backup;
        struct mdc_volume_reply rep;
        bed_init(&b, seed);
        make_pool(&b);
        assert_int_equal(make_volume(&b, 0, &rep), 0);
        assert_int_equal(meta_sim_snapshot(b.disk, &backup), 0);
        for (unsigned n = 1; n <= seed; n++) {
            mdc_crash(&b);
            mdc_start(&b);
            run_ms(&b, 2000); /* the lost connection is noticed, a new session begins */
            assert_int_equal(make_volume(&b, n, &rep), 0);
            run_ms(&b, 2000);
        }
        check_same_table(&b);
        uint64_t term = table_head(cluster_table(b.c))->term, layer = rep.volume.layer;
        mdc_crash(&b);
        assert_int_equal(meta_sim_restore(b.disk, backup), 0);
        meta_sim_destroy(backup);
        b.high_layer = layer;
        b.high_turn = 1 << 20;
        mdc_start(&b);
        run_ms(&b, 5000);
        check_same_table(&b);
        assert_true(table_head(cluster_table(b.c))->term > term);
        assert_int_equal(make_volume(&b, 9, &rep), 0);
        assert_true(rep.volume.layer > layer);
        check_same_table(&b);
        bed_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_arrive),
        cmocka_unit_test(test_pause_declares_nobody_dead),
        cmocka_unit_test(test_restored_controller_is_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
