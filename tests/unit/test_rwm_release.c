/* test_rwm_release.c: a primary that is one no more releases what was promised to it; who hears that does not
 * wait for the end of the promise. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "tests/unit/rwm_other.h"

static uint8_t buf[UNIT_BYTES] __attribute__((aligned(4096)));

/* Who is the primary no more says so, for each partition. */
static void primary_releases(void **state)
{
    struct fix f;
    struct other o;
    struct fix_conn c;
    (void)state;
    other_begin(&f, &o, &c, 51);
    other_members(&o, 1 | OTHER_SYNC, 2 | OTHER_SYNC); /* it stays */
    fix_run(&f, 100 * NS_PER_MS);
    assert_int_equal(o.asked[COPY_METHOD_RELEASE], 0);
    other_members(&o, 2 | OTHER_SYNC, 1 | OTHER_SYNC);
    fix_run(&f, 100 * NS_PER_MS);
    assert_int_equal(o.asked[COPY_METHOD_RELEASE], FAKE_POOL_PARTITIONS);
    assert_true(o.release.head.epoch == fake_mdc_epoch(f.mdc, o.release.head.partition));
    assert_int_equal(fix_io(&c, BLOCK_METHOD_READ, 0, UNIT_BYTES, buf), STATUS_NOT_SERVING);
    other_end(&f, &o, &c);
}

/* ---- the other one as the primary ---- */
struct caller {
    struct rpc_peer *peer;
    bool up, answered;
    uint32_t status;
    struct rpc_call call;
};

static void caller_up(void *service, struct rpc_peer *peer)
{
    (void)peer;
    ((struct caller *)service)->up = true;
}

static void caller_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    (void)peer;
    (void)reason;
    ((struct caller *)service)->peer = NULL;
}

static void answered(struct rpc_call *call, const struct rpc_result *result)
{
    struct caller *c = container_of(call, struct caller, call);
    c->answered = true;
    c->status = result->rc ? STATUS_DISCONNECTED : result->status;
}

static void ask_start(struct caller *c, uint16_t method, const void *body, uint32_t len)
{
    c->call = (struct rpc_call){.method = method, .body = body, .body_len = len, .done = answered};
    c->answered = false;
    assert_int_equal(rpc_call_start(c->peer, &c->call), 0);
}

static void ask(struct fix *f, struct caller *c, uint16_t method, const void *body, uint32_t len)
{
    ask_start(c, method, body, len);
    for (unsigned i = 0; i < 1000 && !c->answered; i++)
        fix_run(f, 100 * NS_PER_US);
    assert_true(c->answered);
    assert_int_equal(c->status, STATUS_OK);
}

/* Says who it is, and has a promise. */
static void call_in(struct fix *f, struct other *o, struct caller *c, uint64_t incarnation)
{
    static const struct rpc_events events = {.up = caller_up, .down = caller_down};
    const struct copy_promise promise = {.duration_ns = COPY_PROMISE_MAX_NS};
    const struct copy_peer_hello hello = {.to_module = 1,
                                          .from_module = 2,
                                          .to_incarnation = f->incarnation,
                                          .from_incarnation = incarnation,
                                          .sequence = 1};
    struct fabric_addr addr;
    rwm_host_addr(f->host, &addr);
    *c = (struct caller){.peer = NULL};
    struct rpc_service service = {.events = &events, .service = c};
    assert_int_equal(rpc_connect(&o->proc.env, &addr, FABRIC_DOMAIN_CLUSTER, &service, &c->peer), 0);
    for (unsigned i = 0; i < 1000 && !c->up; i++)
        fix_run(f, 100 * NS_PER_US);
    ask(f, c, COPY_METHOD_PEER_HELLO, &hello, sizeof(hello));
    ask(f, c, COPY_METHOD_PROMISE, &promise, sizeof(promise));
}

/* Does the module, a new primary, serve without waiting for the end of what it promised to module 2? That
 * sent this notification, for an epoch so much later than its own, before or after the new one was there. */
static bool serves_at_once(uint64_t incarnation, uint64_t later, bool early)
{
    struct fix f;
    struct other o;
    struct caller was;
    struct fix_conn c;
    struct fix_req r;
    struct fabric_addr addr;
    other_begin(&f, &o, &c, 52);
    other_members(&o, 2 | OTHER_SYNC, 1 | OTHER_SYNC);
    fix_run(&f, 2 * NS_PER_S);
    call_in(&f, &o, &was, OTHER_INC);
    if (incarnation != OTHER_INC) { /* a later start says so, not the one that had the promise */
        rpc_listener_addr(o.listener, &addr);
        fake_mdc_module(f.mdc, 2, incarnation, &addr);
        fix_run(&f, 20 * NS_PER_MS);
        rpc_abandon(was.peer);
        call_in(&f, &o, &was, incarnation);
    }
    fix_request(&f, &r, 0, UNIT_BYTES);
    const struct copy_release body = {.head = {.pool = 1,
                                               .partition = r.body.partition,
                                               .epoch = fake_mdc_epoch(f.mdc, r.body.partition) + later}};
    if (early)
        assert_int_equal(rpc_notify(was.peer, COPY_METHOD_RELEASE, &body, sizeof(body)), 0);
    fix_run(&f, 5 * NS_PER_MS);
    other_members(&o, 1 | OTHER_SYNC, 2 | OTHER_SYNC);
    fix_run(&f, 50 * NS_PER_MS);
    if (!early)
        assert_int_equal(rpc_notify(was.peer, COPY_METHOD_RELEASE, &body, sizeof(body)), 0);
    fix_request(&f, &r, 0, UNIT_BYTES);
    fix_send(&c, &r, BLOCK_METHOD_READ, buf);
    fix_run(&f, 100 * NS_PER_MS);
    bool served = r.done;
    fix_wait(&f, &r);
    assert_int_equal(r.status, STATUS_OK);
    if (was.peer)
        rpc_abandon(was.peer);
    other_end(&f, &o, &c);
    return served;
}

static void released(void **state)
{
    (void)state;
    for (int early = 0; early < 2; early++) {
        assert_true(serves_at_once(OTHER_INC, 1, early));
        assert_true(serves_at_once(OTHER_INC, 2, early));
    }
}

/* It says nothing of the epoch that it was the primary in. */
static void too_low(void **state)
{
    (void)state;
    assert_false(serves_at_once(OTHER_INC, 0, true));
    assert_false(serves_at_once(OTHER_INC, 0, false));
}

/* The start before may stand still with a read in hand. */
static void by_a_later_start(void **state)
{
    (void)state;
    assert_false(serves_at_once(OTHER_INC + 1, 1, true));
    assert_false(serves_at_once(OTHER_INC + 1, 1, false));
}

/* A holder that is not answered in time joins anew: what a LUN's module has to say about its request must not
 * come after that, and end what it joined then. */
static void refusal_ends_no_later_join(void **state)
{
    const struct copy_promise promise = {.duration_ns = COPY_PROMISE_MAX_NS};
    const uint32_t mine[3] = {1 | OTHER_SYNC, 2 | OTHER_SYNC, 0};
    struct fix f;
    struct other o;
    struct caller was;
    struct fix_conn c;
    (void)state;
    other_begin(&f, &o, &c, 53);
    other_members(&o, 2 | OTHER_SYNC, 1 | OTHER_SYNC);
    fix_run(&f, 2 * NS_PER_S);
    f.medium->device.fence_state = DEVICE_FENCE_HELD;
    call_in(&f, &o, &was, OTHER_INC);
    struct copy_join join = {.head = {.pool = 1, .epoch = fake_mdc_epoch(f.mdc, 0)}};
    ask(&f, &was, COPY_METHOD_JOIN, &join, sizeof(join));
    fake_mdc_members(f.mdc, 0, join.head.epoch + 1, mine);
    fix_run(&f, NS_PER_S);
    f.medium->stand_still = true;
    ask_start(&was, COPY_METHOD_PROMISE, &promise, sizeof(promise));
    fix_run(&f, 100 * NS_PER_MS);
    assert_true(was.answered); /* before any join that comes later */
    assert_int_equal(was.status, STATUS_STALE_EPOCH);
    join.head = (struct copy_head){.pool = 1, .partition = 1, .epoch = fake_mdc_epoch(f.mdc, 1)};
    ask(&f, &was, COPY_METHOD_JOIN, &join, sizeof(join));
    f.medium->stand_still = false;
    fix_run(&f, 300 * NS_PER_MS);
    ask(&f, &was, COPY_METHOD_PROMISE, &promise, sizeof(promise));
    const struct copy_versions list = {.head = join.head, .list = COPY_LIST_ALL};
    ask(&f, &was, COPY_METHOD_VERSIONS, &list, sizeof(list));
    if (was.peer)
        rpc_abandon(was.peer);
    other_end(&f, &o, &c);
}

/* A read waits for a promise of a member, and then there is no such member any more. */
static void read_goes_on_alone(void **state)
{
    struct fix f;
    struct other o;
    struct fix_conn c;
    struct fix_req r;
    (void)state;
    other_begin(&f, &o, &c, 54);
    o.act[COPY_METHOD_PROMISE].silent = true;
    fix_run(&f, NS_PER_S);
    fix_request(&f, &r, 0, UNIT_BYTES);
    fix_send(&c, &r, BLOCK_METHOD_READ, buf);
    fix_run(&f, 50 * NS_PER_MS);
    assert_false(r.done);
    other_members(&o, 1 | OTHER_SYNC, 0);
    fix_run(&f, 2 * NS_PER_S);
    assert_true(r.done);
    assert_int_equal(r.status, STATUS_STALE_EPOCH);
    o.act[COPY_METHOD_PROMISE].silent = false;
    other_end(&f, &o, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(primary_releases),           cmocka_unit_test(released),
        cmocka_unit_test(refusal_ends_no_later_join), cmocka_unit_test(too_low),
        cmocka_unit_test(read_goes_on_alone),         cmocka_unit_test(by_a_later_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
