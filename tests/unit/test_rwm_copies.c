/*
 * test_rwm_copies.c: a module as primary, and as member, of a partition with copies; the other module is
 * played by the test: it answers as told, or not at all.
 */
#include "tests/unit/rwm_fixture.h"

#include "common/crc.h"
#include "common/wire/copy_proto.h"

#include <stdlib.h>

#define PEER_HOST 3u
#define PEER_PORT 7300u
#define PEER_INC  900u
#define SYNC      TABLE_MEMBER_IN_SYNC

/* ---- the other module ---- */
struct other {
    struct fix *f;
    struct fix_proc proc;
    struct rpc_listener *listener;
    uint32_t forward_status; /* 0 = OK */
    uint64_t free_blocks;
    bool silent; /* forwards are kept */
    struct rpc_request *kept[16];
    unsigned kept_count, forwards, joins, reconciled;
    struct copy_forward last;
    struct copy_version has; /* layer 0: nothing */
    struct copy_replace replaced;
    unsigned fetches, replaces;
};
static struct other *the_other;

static void on_hello(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    (void)service;
    (void)body;
    (void)len;
    rpc_reply(rpc, STATUS_OK, NULL, 0);
}

static void on_promise(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct copy_promise_reply reply = {.free_blocks = the_other->free_blocks};
    (void)service;
    (void)body;
    (void)len;
    rpc_reply(rpc, STATUS_OK, &reply, sizeof(reply));
}

static void on_join(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct copy_join rq;
    (void)service;
    (void)len;
    memcpy(&rq, body, sizeof(rq));
    struct copy_join_reply reply = {.epoch = rq.head.epoch, .flags = COPY_JOINED_WHOLE};
    the_other->joins++;
    rpc_reply(rpc, STATUS_OK, &reply, sizeof(reply));
}

static void on_versions(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct {
        struct copy_versions_reply head;
        struct copy_version item;
    } reply = {.head = {.count = 0}};
    struct copy_versions rq;
    const struct copy_version *has = &the_other->has;
    (void)service;
    (void)len;
    memcpy(&rq, body, sizeof(rq));
    if (has->key.layer != 0 && rq.list != COPY_LIST_KEYS &&
        placement_partition(has->key.hash, FAKE_POOL_PARTITIONS) == rq.head.partition) {
        reply.head.count = 1;
        reply.item = *has;
    }
    rpc_reply(rpc, STATUS_OK, &reply, (uint32_t)(sizeof(reply.head) + reply.head.count * sizeof(reply.item)));
}

static void on_replace(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct other *o = the_other;
    (void)service;
    (void)len;
    memcpy(&o->replaced, body, sizeof(o->replaced));
    o->replaces++;
    rpc_reply(rpc, STATUS_OK, NULL, 0);
}

static void on_fetch(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct copy_fetch_reply reply = {.version = the_other->has.version};
    (void)service;
    (void)body;
    (void)len;
    the_other->fetches++;
    rpc_reply(rpc, STATUS_OK, &reply, sizeof(reply));
}

static void on_forward(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct other *o = the_other;
    (void)service;
    (void)len;
    memcpy(&o->last, body, sizeof(o->last));
    o->forwards++;
    if (o->silent) {
        assert_true(o->kept_count < ARRAY_LEN(o->kept));
        o->kept[o->kept_count++] = rpc;
        return;
    }
    rpc_reply(rpc, o->forward_status, NULL, 0);
}

static void on_notify(void *service, struct rpc_peer *peer, uint16_t method, const void *body, uint32_t len)
{
    struct copy_commit rq;
    (void)service;
    (void)peer;
    assert_int_equal(method, COPY_METHOD_COMMIT);
    assert_true(len >= sizeof(rq));
    memcpy(&rq, body, sizeof(rq));
    the_other->reconciled += (rq.flags & COPY_COMMIT_RECONCILED) != 0;
}

static void other_proc(struct other *o, uint64_t incarnation)
{
    struct fix *f = o->f;
    assert_int_equal(loop_create_sim(f->world, "other", 0, &o->proc.loop), 0);
    sim_world_fork_rng(f->world, "other", &o->proc.rng);
    o->proc.env = (struct env){.loop = o->proc.loop, .rng = &o->proc.rng, .name = "other"};
    struct fabric_config config = {.cluster = fake_uuid(0xcc),
                                   .secret = "a secret of a test",
                                   .secret_len = 18,
                                   .role = FABRIC_ROLE_MODULE,
                                   .incarnation = incarnation};
    assert_int_equal(fabric_create_sim(&o->proc.env, f->net, PEER_HOST, &config, &o->proc.env.fabric), 0);
}

static void other_start(struct other *o, struct fix *f)
{
    static const struct rpc_method methods[] = {
        {.number = COPY_METHOD_PEER_HELLO, .name = "hello", .handler = on_hello},
        {.number = COPY_METHOD_PROMISE, .name = "promise", .handler = on_promise},
        {.number = COPY_METHOD_JOIN, .name = "join", .handler = on_join},
        {.number = COPY_METHOD_VERSIONS, .name = "versions", .handler = on_versions},
        {.number = COPY_METHOD_FORWARD, .name = "forward", .handler = on_forward},
        {.number = COPY_METHOD_REPLACE, .name = "replace", .handler = on_replace},
        {.number = COPY_METHOD_FETCH, .name = "fetch", .handler = on_fetch},
    };
    static const struct rpc_events events = {.notify = on_notify};
    struct fabric_addr addr = {.provider = FABRIC_PROVIDER_SIM, .port = PEER_PORT, .ip = {PEER_HOST}};
    *o = (struct other){.f = f, .free_blocks = 1000};
    the_other = o;
    other_proc(o, PEER_INC);
    struct rpc_service service = {
        .methods = methods, .method_count = ARRAY_LEN(methods), .events = &events, .service = o};
    assert_int_equal(rpc_listen(&o->proc.env, &addr, &service, 1u << FABRIC_ROLE_MODULE, &o->listener), 0);
    fake_mdc_module(f->mdc, 2, PEER_INC, &addr);
}

static void other_end(struct other *o)
{
    sim_loop_kill(o->proc.loop);
    rpc_listener_destroy(o->listener, true);
    fabric_destroy(o->proc.env.fabric);
    loop_destroy(o->proc.loop);
}

static void members(struct fix *f, uint64_t epoch, uint32_t first, uint32_t second)
{
    uint32_t m[3] = {first, second, 0};
    for (uint32_t i = 0; i < FAKE_POOL_PARTITIONS; i++)
        fake_mdc_members(f->mdc, i, epoch, m);
}

static uint8_t buf[256 * KIB] __attribute__((aligned(4096)));

static void begin(struct fix *f, struct other *o, struct fix_conn *c)
{
    fix_init(f, 40);
    other_start(o, f);
    members(f, 100, 1 | SYNC, 2 | SYNC);
    fix_run(f, NS_PER_S);
    fix_open(f, c);
    memset(buf, 7, sizeof(buf));
}

static void end(struct fix *f, struct other *o, struct fix_conn *c)
{
    fix_close(c);
    fix_kill_module(f);
    other_end(o);
    fix_end(f);
}

static void writes_go_to_both(void **state)
{
    struct fix f;
    struct other o;
    struct fix_conn c;
    (void)state;
    begin(&f, &o, &c);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_OK);
    assert_int_equal(o.forwards, 1);
    assert_true(o.reconciled > 0);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_READ, 0, 4096, buf), STATUS_OK);
    end(&f, &o, &c);
}

/* With fewer in sync than that writes wait before they get a version; reads go on. */
static void min_copies(void **state)
{
    struct fix f;
    struct other o;
    struct fix_conn c;
    struct fix_req w;
    (void)state;
    begin(&f, &o, &c);
    fake_mdc_min_copies(f.mdc, 2);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_OK);
    uint64_t writes = f.medium->writes;
    o.forward_status = STATUS_STALE_BASE; /* it stays behind */
    members(&f, 101, 1 | SYNC, 2);
    fix_run(&f, 100 * NS_PER_MS);
    fix_request(&f, &w, 0, 4096);
    fix_send(&c, &w, BLOCK_METHOD_WRITE, buf);
    fix_run(&f, 2 * NS_PER_S);
    assert_false(w.done);
    assert_int_equal(f.medium->writes, writes);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_READ, 0, 4096, buf + 4096), STATUS_OK);
    o.forward_status = STATUS_OK;
    members(&f, 102, 1 | SYNC, 2 | SYNC);
    fix_run(&f, 2 * NS_PER_S);
    assert_true(w.done); /* its epoch is over by now: the client asks again */
    assert_true(w.status == STATUS_OK || w.status == STATUS_STALE_EPOCH);
    end(&f, &o, &c);
}

/* Room is promised before a version is given: no member runs full behind it. */
static void full_member(void **state)
{
    struct fix f;
    struct other o;
    struct fix_conn c;
    (void)state;
    begin(&f, &o, &c);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_OK);
    o.free_blocks = 1;
    fix_run(&f, NS_PER_S);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, BLOCK_BYTES, 4096, buf), STATUS_OK);
    unsigned forwards = o.forwards;
    /* What was granted is used up: more is asked for, and comes. */
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 2 * BLOCK_BYTES, 4096, buf), STATUS_AGAIN);
    assert_int_equal(o.forwards, forwards);
    fix_run(&f, 50 * NS_PER_MS);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 2 * BLOCK_BYTES, 4096, buf), STATUS_OK);
    o.free_blocks = 0;
    fix_run(&f, NS_PER_S);
    forwards = o.forwards;
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 3 * BLOCK_BYTES, 4096, buf), STATUS_NO_SPACE);
    assert_int_equal(o.forwards, forwards);
    /* What is there may be overwritten, and holes take nothing. */
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_OK);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_DISCARD, 0, BLOCK_BYTES, NULL), STATUS_OK);
    o.free_blocks = 100;
    fix_run(&f, NS_PER_S);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 3 * BLOCK_BYTES, 4096, buf), STATUS_OK);
    end(&f, &o, &c);
}

/* One that could not apply a write is reported; the write waits until it does not count any more. */
static void unfit_member(void **state)
{
    struct fix f;
    struct other o;
    struct fix_conn c;
    struct fix_req w;
    (void)state;
    begin(&f, &o, &c);
    o.forward_status = STATUS_NO_SPACE;
    fix_request(&f, &w, 0, 4096);
    fix_send(&c, &w, BLOCK_METHOD_WRITE, buf);
    fix_run(&f, NS_PER_S);
    assert_false(w.done);
    assert_true(f.mdc->reports > 0);
    assert_int_equal(f.mdc->report.items[0].what, MDC_REPORT_UNFIT);
    assert_int_equal(f.mdc->report.items[0].member, 2);
    members(&f, 101, 1 | SYNC, 2);
    fix_wait(&f, &w);
    assert_int_equal(w.status, STATUS_OK);
    end(&f, &o, &c);
}

/* A write may wait through any number of memberships: who has answered is known to the end. */
static void many_memberships(void **state)
{
    struct fix f;
    struct other o;
    struct fix_conn c;
    struct fix_req w;
    (void)state;
    begin(&f, &o, &c);
    o.silent = true;
    fix_request(&f, &w, 0, 4096);
    fix_send(&c, &w, BLOCK_METHOD_WRITE, buf);
    fix_run(&f, 100 * NS_PER_MS);
    assert_int_equal(o.kept_count, 1);
    /* Others come and go; each is the same process, which answers for them. */
    struct fabric_addr addr = {.provider = FABRIC_PROVIDER_SIM, .port = PEER_PORT, .ip = {PEER_HOST}};
    for (uint32_t id = 3; id < 3 + 20; id++)
        fake_mdc_module(f.mdc, id, PEER_INC, &addr);
    o.silent = false;
    for (uint64_t e = 101; e < 145; e++) {
        uint32_t m[4] = {1 | SYNC, 2 | SYNC, (uint32_t)(3 + e % 20) | SYNC, 0};
        for (uint32_t i = 0; i < FAKE_POOL_PARTITIONS; i++)
            fake_mdc_members(f.mdc, i, e, m);
        fix_run(&f, 200 * NS_PER_MS);
        assert_false(w.done);
    }
    assert_true(o.forwards >= 20);
    rpc_reply(o.kept[0], STATUS_STALE_EPOCH, NULL, 0);
    o.kept_count = 0;
    fix_wait(&f, &w);
    assert_int_equal(w.status, STATUS_OK);
    end(&f, &o, &c);
}

/* ---- as a member ---- */
struct caller {
    struct rpc_peer *peer;
    bool up, down;
};
struct answer {
    struct rpc_call call;
    bool done;
    int rc;
    uint32_t status;
};

static void caller_up(void *service, struct rpc_peer *peer)
{
    (void)peer;
    ((struct caller *)service)->up = true;
}

static void caller_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct caller *c = service;
    (void)peer;
    (void)reason;
    c->down = true;
    c->peer = NULL;
}

static void answered(struct rpc_call *call, const struct rpc_result *result)
{
    struct answer *a = container_of(call, struct answer, call);
    a->done = true;
    a->rc = result->rc;
    a->status = result->rc ? STATUS_DISCONNECTED : result->status;
}

static void ask_start(struct caller *c, struct answer *a, uint16_t method, const void *body, size_t len,
                      struct fabric_sge *payload)
{
    *a = (struct answer){
        .call = {.method = method, .body = body, .body_len = (uint32_t)len, .done = answered}};
    if (payload) {
        a->call.source = payload;
        a->call.source_count = 1;
        a->call.source_crc = crc32c(payload->base, payload->len);
    }
    assert_int_equal(rpc_call_start(c->peer, &a->call), 0);
}

static uint32_t ask(struct fix *f, struct caller *c, uint16_t method, const void *body, size_t len,
                    struct fabric_sge *payload)
{
    struct answer a;
    ask_start(c, &a, method, body, len, payload);
    for (unsigned i = 0; i < 50000 && !a.done; i++)
        fix_run(f, 100 * NS_PER_US);
    assert_true(a.done);
    return a.status;
}

static void call_in(struct fix *f, struct other *o, struct caller *c, uint64_t incarnation, uint64_t sequence)
{
    static const struct rpc_events events = {.up = caller_up, .down = caller_down};
    struct fabric_addr addr;
    rwm_host_addr(f->host, &addr);
    *c = (struct caller){0};
    struct rpc_service service = {.events = &events, .service = c};
    assert_int_equal(rpc_connect(&o->proc.env, &addr, FABRIC_DOMAIN_CLUSTER, &service, &c->peer), 0);
    for (unsigned i = 0; i < 1000 && !c->up; i++)
        fix_run(f, NS_PER_MS);
    assert_true(c->up);
    struct copy_peer_hello hello = {.to_module = 1,
                                    .from_module = 2,
                                    .to_incarnation = f->incarnation,
                                    .from_incarnation = incarnation,
                                    .sequence = sequence};
    assert_int_equal(ask(f, c, COPY_METHOD_PEER_HELLO, &hello, sizeof(hello), NULL), STATUS_OK);
}

static uint32_t join(struct fix *f, struct caller *c, uint32_t partition, uint64_t epoch)
{
    struct copy_join rq = {.head = {.pool = 1, .partition = partition, .epoch = epoch}};
    return ask(f, c, COPY_METHOD_JOIN, &rq, sizeof(rq), NULL);
}

static struct copy_forward forward_of(uint32_t partition, uint64_t epoch, uint64_t counter, uint64_t base)
{
    struct copy_forward rq = {.head = {.pool = 1, .partition = partition, .epoch = epoch},
                              .key = {.layer = 101, .block = 0, .hash = placement_hash(1, 0)},
                              .version = {.epoch = epoch, .counter = counter},
                              .unit_count = 1};
    if (base != 0)
        rq.base = (struct version){.epoch = epoch, .counter = base};
    return rq;
}

static uint32_t forward(struct fix *f, struct caller *c, const struct copy_forward *rq,
                        const struct fabric_mem *mem)
{
    struct fabric_sge sge = {.base = buf, .len = UNIT_BYTES, .mem = (struct fabric_mem *)(uintptr_t)mem};
    return ask(f, c, COPY_METHOD_FORWARD, rq, sizeof(*rq), &sge);
}

static void serves_a_primary(void **state)
{
    struct fix f;
    struct other o;
    struct caller c;
    struct fabric_mem *mem;
    uint32_t p = placement_partition(placement_hash(1, 0), FAKE_POOL_PARTITIONS);
    (void)state;
    fix_init(&f, 41);
    other_start(&o, &f);
    members(&f, 100, 2 | SYNC, 1 | SYNC);
    fix_run(&f, NS_PER_S);
    assert_int_equal(fabric_mem_register(o.proc.env.fabric, FABRIC_DOMAIN_CLUSTER, buf, sizeof(buf), 0, &mem),
                     0);
    call_in(&f, &o, &c, PEER_INC, 1);
    struct copy_forward rq = forward_of(p, 100, 1, 0);
    assert_int_equal(forward(&f, &c, &rq, mem), STATUS_NOT_SERVING); /* not joined */
    assert_int_equal(join(&f, &c, p, 99), STATUS_STALE_EPOCH);
    assert_int_equal(join(&f, &c, p, 100), STATUS_OK);
    assert_int_equal(forward(&f, &c, &rq, mem), STATUS_OK);
    assert_int_equal(forward(&f, &c, &rq, mem), STATUS_OK); /* it is there */
    assert_int_equal(f.medium->writes, 1);
    rq = forward_of(p, 100, 5, 3); /* over what never came */
    assert_int_equal(forward(&f, &c, &rq, mem), STATUS_STALE_BASE);
    rq = forward_of(p, 100, 5, 1);
    assert_int_equal(forward(&f, &c, &rq, mem), STATUS_OK);
    rq.unit_count = 40;
    assert_int_equal(forward(&f, &c, &rq, mem), STATUS_INVALID);
    rq = forward_of(p, 100, 6, 5);
    rq.key.hash++;
    assert_int_equal(forward(&f, &c, &rq, mem), STATUS_INVALID);
    /* Of a volume that is being deleted nothing is stored any more, and nobody is told so. */
    fake_mdc_volume(f.mdc, 0, 1, 2, FIX_VOLUME_BYTES, TABLE_VOLUME_DELETING);
    fix_run(&f, NS_PER_S);
    assert_null(fake_medium_block(f.medium, 101, 0));
    rq = forward_of(p, 100, 6, 5);
    assert_int_equal(forward(&f, &c, &rq, mem), STATUS_OK);
    fix_run(&f, NS_PER_S);
    assert_null(fake_medium_block(f.medium, 101, 0));
    rpc_abandon(c.peer);
    fix_kill_module(&f);
    fabric_mem_unregister(mem);
    other_end(&o);
    fix_end(&f);
}

/* ---- what a shrink has cut off ---- */
static uint32_t replace(struct fix *f, struct caller *c, const struct copy_replace *rq,
                        const struct fabric_mem *mem)
{
    struct fabric_sge sge = {.base = buf, .len = UNIT_BYTES, .mem = (struct fabric_mem *)(uintptr_t)mem};
    return ask(f, c, COPY_METHOD_REPLACE, rq, sizeof(*rq), &sge);
}

/*
 * A primary that has not heard of a shrink sends what it cut off, when this member has done with it, and
 * again when the volume has grown since: answered well, and not stored. What is sent after a grow that this
 * member has not heard of is.
 */
static void cut_off_stays_cut_off(void **state)
{
    struct fix f;
    struct other o;
    struct caller c;
    struct fabric_mem *mem;
    uint32_t p = placement_partition(placement_hash(1, 0), FAKE_POOL_PARTITIONS);
    (void)state;
    fix_init(&f, 45);
    other_start(&o, &f);
    members(&f, 100, 2 | SYNC, 1 | SYNC);
    fix_run(&f, NS_PER_S);
    assert_int_equal(fabric_mem_register(o.proc.env.fabric, FABRIC_DOMAIN_CLUSTER, buf, sizeof(buf), 0, &mem),
                     0);
    call_in(&f, &o, &c, PEER_INC, 1);
    assert_int_equal(join(&f, &c, p, 100), STATUS_OK);
    struct copy_forward w = forward_of(p, 100, 1, 0);
    struct copy_replace r = {.head = w.head, .key = w.key, .version = w.version, .written = 1};
    w.cuts = 1;
    r.cuts = 0; /* it was never shrunk */
    w.key.block = 4;
    r.key.block = 5;
    assert_int_equal(forward(&f, &c, &w, mem), STATUS_OK);
    assert_int_equal(replace(&f, &c, &r, mem), STATUS_OK);
    assert_non_null(fake_medium_block(f.medium, 101, 4));
    assert_non_null(fake_medium_block(f.medium, 101, 5));
    fake_mdc_volume(f.mdc, 0, 1, 2, 3 * BLOCK_BYTES + UNIT_BYTES, TABLE_VOLUME_SHRINKING);
    for (unsigned round = 0; round < 3; round++) {
        fix_run(&f, NS_PER_S);
        assert_int_equal(f.mdc->heartbeat.removing_blocks, 0);
        assert_null(fake_medium_block(f.medium, 101, 4));
        assert_null(fake_medium_block(f.medium, 101, 5));
        assert_int_equal(forward(&f, &c, &w, mem), STATUS_OK);
        assert_int_equal(replace(&f, &c, &r, mem), STATUS_OK);
        if (round == 0)
            fake_mdc_volume(f.mdc, 0, 1, 2, FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    }
    fix_run(&f, NS_PER_S);
    assert_null(fake_medium_block(f.medium, 101, 4));
    assert_null(fake_medium_block(f.medium, 101, 5));
    w.cuts = r.cuts = 2;
    w.version.counter = 2;
    assert_int_equal(forward(&f, &c, &w, mem), STATUS_OK);
    assert_int_equal(replace(&f, &c, &r, mem), STATUS_OK);
    assert_non_null(fake_medium_block(f.medium, 101, 4));
    assert_non_null(fake_medium_block(f.medium, 101, 5));
    /* Beyond the end that is known here: the primary has heard of a later grow. */
    r.key.block = FIX_VOLUME_BYTES / BLOCK_BYTES;
    assert_int_equal(replace(&f, &c, &r, mem), STATUS_OK);
    assert_non_null(fake_medium_block(f.medium, 101, FIX_VOLUME_BYTES / BLOCK_BYTES));
    rpc_abandon(c.peer);
    fix_kill_module(&f);
    fabric_mem_unregister(mem);
    other_end(&o);
    fix_end(&f);
}

/* The last block, of which a part stays: what of the rest comes afterwards is told as not yet gone. */
static void cut_block_is_looked_at_again(void **state)
{
    struct fix f;
    struct other o;
    struct caller c;
    struct fabric_mem *mem;
    uint32_t p = placement_partition(placement_hash(1, 0), FAKE_POOL_PARTITIONS);
    (void)state;
    fix_init(&f, 46);
    other_start(&o, &f);
    members(&f, 100, 2 | SYNC, 1 | SYNC);
    fake_mdc_volume(f.mdc, 0, 1, 2, 3 * BLOCK_BYTES + UNIT_BYTES, TABLE_VOLUME_SHRINKING);
    fix_run(&f, NS_PER_S);
    assert_int_equal(f.mdc->heartbeat.removing_blocks, 0);
    assert_int_equal(fabric_mem_register(o.proc.env.fabric, FABRIC_DOMAIN_CLUSTER, buf, sizeof(buf), 0, &mem),
                     0);
    call_in(&f, &o, &c, PEER_INC, 1);
    assert_int_equal(join(&f, &c, p, 100), STATUS_OK);
    struct copy_forward w = forward_of(p, 100, 1, 0);
    w.key.block = 3;
    w.first_unit = 1;
    w.cuts = 1;
    assert_int_equal(forward(&f, &c, &w, mem), STATUS_OK);
    fix_run(&f, NS_PER_S);
    assert_int_equal(fake_medium_block(f.medium, 101, 3)->written, 2);
    assert_int_not_equal(f.mdc->heartbeat.removing_blocks, 0);
    /* The primary dies with it: this one, alone, does what it would have done. */
    rpc_abandon(c.peer);
    members(&f, 101, 1 | SYNC, 0);
    fix_run(&f, 2 * NS_PER_S);
    assert_int_equal(f.mdc->heartbeat.removing_blocks, 0);
    assert_null(fake_medium_block(f.medium, 101, 3));
    fix_kill_module(&f);
    fabric_mem_unregister(mem);
    other_end(&o);
    fix_end(&f);
}

/* A new primary that has cut does not take back what a member, which has not heard of the shrink, still has.
 * It tells members with what it sends how far it has got. */
static void new_primary_has_cut(void **state)
{
    struct fix f;
    struct other o;
    struct fix_conn c;
    struct fix_req w;
    (void)state;
    for (unsigned shrunk = 0; shrunk < 2; shrunk++) {
        fix_init(&f, 47 + shrunk);
        other_start(&o, &f);
        if (shrunk)
            fake_mdc_volume(f.mdc, 0, 1, 2, 3 * BLOCK_BYTES, TABLE_VOLUME_SHRINKING);
        fix_run(&f, NS_PER_S);
        o.has = (struct copy_version){.key = {.layer = 101, .block = 4, .hash = placement_hash(1, 0)},
                                      .version = {.epoch = 90, .counter = 5},
                                      .written = 1};
        members(&f, 100, 1 | SYNC, 2 | SYNC);
        fix_run(&f, 2 * NS_PER_S);
        assert_int_equal(o.fetches, shrunk ? 0 : 1);
        assert_int_equal(o.replaces, shrunk);
        assert_null(fake_medium_block(f.medium, 101, 4));
        if (shrunk) { /* it is made equal: the block is gone there, too */
            assert_int_equal(o.replaced.key.block, 4);
            assert_int_equal(o.replaced.written, 0);
            assert_int_equal(o.replaced.cuts, 2);
        }
        fix_open(&f, &c);
        fix_request(&f, &w, 0, 4096);
        w.body.generation = 1 + shrunk;
        assert_int_equal(fix_do(&c, &w, BLOCK_METHOD_WRITE, buf), STATUS_OK);
        assert_int_equal(o.last.cuts, 1 + shrunk);
        end(&f, &o, &c);
    }
}

/* Two processes of one module id: the later one waits out what was promised to the earlier one, which gets no
 * more. */
static void promises_belong_to_a_start(void **state)
{
    struct fix f;
    struct other o;
    struct caller old, young;
    struct fabric_addr addr = {.provider = FABRIC_PROVIDER_SIM, .port = PEER_PORT, .ip = {PEER_HOST}};
    struct copy_promise promise = {.duration_ns = COPY_PROMISE_MAX_NS};
    (void)state;
    fix_init(&f, 42);
    other_start(&o, &f);
    members(&f, 100, 2 | SYNC, 1 | SYNC);
    fix_run(&f, NS_PER_S);
    call_in(&f, &o, &old, PEER_INC, 1);
    assert_int_equal(join(&f, &old, 0, 100), STATUS_OK);
    assert_int_equal(ask(&f, &old, COPY_METHOD_PROMISE, &promise, sizeof(promise), NULL), STATUS_OK);
    fake_mdc_module(f.mdc, 2, PEER_INC + 1, &addr);
    members(&f, 101, 2 | SYNC, 1 | SYNC);
    fix_run(&f, 20 * NS_PER_MS);
    call_in(&f, &o, &young, PEER_INC + 1, 1);
    struct copy_join rq = {.head = {.pool = 1, .epoch = 101}};
    struct answer a;
    ask_start(&young, &a, COPY_METHOD_JOIN, &rq, sizeof(rq), NULL);
    fix_run(&f, 300 * NS_PER_MS);
    assert_false(a.done); /* the earlier one may answer reads still */
    assert_true(old.peer != NULL);
    assert_int_equal(ask(&f, &old, COPY_METHOD_PROMISE, &promise, sizeof(promise), NULL), STATUS_NOT_SERVING);
    fix_run(&f, 300 * NS_PER_MS);
    assert_true(a.done);
    assert_int_equal(a.status, STATUS_OK);
    rpc_abandon(old.peer);
    rpc_abandon(young.peer);
    fix_kill_module(&f);
    other_end(&o);
    fix_end(&f);
}

/* An agent whose LUN may be another's by now promises nothing before the LUN has answered. */
static void promises_rest_on_the_lun(void **state)
{
    struct fix f;
    struct other o;
    struct caller c;
    struct copy_promise promise = {.duration_ns = COPY_PROMISE_MAX_NS};
    (void)state;
    fix_init(&f, 49);
    other_start(&o, &f);
    members(&f, 100, 2 | SYNC, 1 | SYNC);
    fix_run(&f, NS_PER_S);
    f.medium->device.fence_state = DEVICE_FENCE_HELD;
    call_in(&f, &o, &c, PEER_INC, 1);
    assert_int_equal(join(&f, &c, 0, 100), STATUS_OK);
    assert_int_equal(ask(&f, &c, COPY_METHOD_PROMISE, &promise, sizeof(promise), NULL), STATUS_OK);
    f.medium->stand_still = true;
    struct answer a;
    ask_start(&c, &a, COPY_METHOD_PROMISE, &promise, sizeof(promise), NULL);
    fix_run(&f, 300 * NS_PER_MS);
    assert_false(a.done);
    f.medium->stand_still = false;
    f.medium->fail_next = -ENODEV;
    fix_run(&f, 300 * NS_PER_MS);
    assert_true(a.done);
    assert_int_equal(a.status, STATUS_NOT_SERVING);
    assert_int_equal(f.failed_rc, -ENODEV);
    if (c.peer)
        rpc_abandon(c.peer);
    fix_kill_module(&f);
    other_end(&o);
    fix_end(&f);
}

/* ---- nonsense ---- */
union nonsense {
    uint8_t bytes[512];
    struct copy_head head;
    struct copy_forward forward;
    struct copy_replace replace;
    struct copy_fetch fetch;
    struct copy_versions versions;
    struct copy_commit commit;
};

static void nonsense_make(struct rng *r, uint32_t partition, uint16_t method, union nonsense *out)
{
    const struct copy_key key = {.layer = 101, .block = rng_below(r, 4), .hash = placement_hash(1, 0)};
    for (size_t i = 0; i < sizeof(out->bytes); i++)
        out->bytes[i] = rng_chance(r, 1, 3) ? (uint8_t)rng_u64(r) : 0;
    if (method == COPY_METHOD_PROMISE || method == COPY_METHOD_PEER_HELLO || rng_chance(r, 1, 8))
        return;
    out->head = (struct copy_head){.pool = 1, .partition = partition, .epoch = 100};
    if (rng_chance(r, 3, 4) && method == COPY_METHOD_FORWARD)
        out->forward.key = key;
    else if (rng_chance(r, 3, 4) && method == COPY_METHOD_REPLACE)
        out->replace.key = key;
    else if (rng_chance(r, 3, 4) && method == COPY_METHOD_FETCH)
        out->fetch.key = key;
    if (method == COPY_METHOD_VERSIONS) {
        out->versions.list = (uint32_t)rng_below(r, 5);
        out->versions.count = (uint32_t)rng_below(r, 8);
    }
    /* A later version than this nobody gives; the fake store insists on versions that grow. */
    if (method == COPY_METHOD_FORWARD)
        out->forward.version = (struct version){.epoch = 100, .counter = rng_below(r, 3)};
}

/* Whatever another member of the cluster sends: it is answered, and the module lives. */
static void nonsense_is_answered(void **state)
{
    struct fix f;
    struct other o;
    struct caller c;
    struct rng r;
    struct fabric_mem *mem;
    uint32_t p = placement_partition(placement_hash(1, 0), FAKE_POOL_PARTITIONS);
    unsigned answers = 0;
    (void)state;
    fix_init(&f, 43);
    other_start(&o, &f);
    members(&f, 100, 2 | SYNC, 1 | SYNC);
    fix_run(&f, NS_PER_S);
    assert_int_equal(fabric_mem_register(o.proc.env.fabric, FABRIC_DOMAIN_CLUSTER, buf, sizeof(buf), 0, &mem),
                     0);
    call_in(&f, &o, &c, PEER_INC, 1);
    assert_int_equal(join(&f, &c, p, 100), STATUS_OK);
    rng_seed(&r, 44);
    for (unsigned i = 0; i < 4000; i++) {
        static const uint16_t methods[] = {COPY_METHOD_PROMISE,  COPY_METHOD_JOIN,       COPY_METHOD_COMMIT,
                                           COPY_METHOD_VERSIONS, COPY_METHOD_FORWARD,    COPY_METHOD_REPLACE,
                                           COPY_METHOD_FETCH,    COPY_METHOD_PEER_HELLO, COPY_METHOD_RELEASE};
        uint16_t method = methods[rng_below(&r, ARRAY_LEN(methods))];
        union nonsense body;
        nonsense_make(&r, p, method, &body);
        size_t len = rng_chance(&r, 1, 10) ? rng_below(&r, sizeof(body)) : 136 + 24 * rng_below(&r, 8);
        bool pays = rng_chance(&r, 1, 2);
        struct fabric_sge sge = {
            .base = buf, .len = UNIT_BYTES * (uint32_t)(1 + rng_below(&r, 4)), .mem = mem};
        if ((method == COPY_METHOD_COMMIT || method == COPY_METHOD_RELEASE) && rng_chance(&r, 1, 2)) {
            (void)rpc_notify(c.peer, method, &body, (uint32_t)len);
            continue;
        }
        (void)ask(&f, &c, method, &body, len, pays ? &sge : NULL);
        answers++;
        assert_non_null(c.peer);
    }
    assert_true(answers > 2000);
    assert_int_equal(f.failed_rc, 0);
    assert_int_equal(join(&f, &c, p, 100), STATUS_OK);
    rpc_abandon(c.peer);
    fix_kill_module(&f);
    fabric_mem_unregister(mem);
    other_end(&o);
    fix_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_go_to_both),
        cmocka_unit_test(min_copies),
        cmocka_unit_test(full_member),
        cmocka_unit_test(unfit_member),
        cmocka_unit_test(many_memberships),
        cmocka_unit_test(serves_a_primary),
        cmocka_unit_test(cut_off_stays_cut_off),
        cmocka_unit_test(cut_block_is_looked_at_again),
        cmocka_unit_test(new_primary_has_cut),
        cmocka_unit_test(promises_belong_to_a_start),
        cmocka_unit_test(promises_rest_on_the_lun),
        cmocka_unit_test(nonsense_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
