/* test_fabric_fault.c: the layer of faults, and rpc with one fault at each step. */
#include "fabric_fixture.h"

#include "rdma/fabric_fault.h"
#include "rdma/rpc.h"

struct end {
    struct net n;
    struct rpc_listener *l;
    struct rpc_peer *peer;
    int ups, downs, done, rc, wrong;
    uint32_t next, got;
};

static void on_up(void *service, struct rpc_peer *peer)
{
    (void)peer;
    ((struct end *)service)->ups++;
}
static void on_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct end *e = service;
    (void)reason;
    e->downs++;
    if (peer == e->peer)
        e->peer = NULL;
}
static void on_notify(void *service, struct rpc_peer *peer, uint16_t method, const void *body, uint32_t len)
{
    struct end *e = service;
    uint32_t number;
    (void)peer;
    (void)method;
    assert_int_equal(len, sizeof(number));
    memcpy(&number, body, sizeof(number));
    e->wrong += number != e->got;
    e->got++;
}
static void h_echo(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    (void)service;
    rpc_reply(req, STATUS_OK, body, len);
}
static const struct rpc_method methods[] = {{1, "echo", h_echo, 0}};
static const struct rpc_events events = {.up = on_up, .down = on_down, .notify = on_notify};

static void end_init(struct end *e, bool sim)
{
    memset(e, 0, sizeof(*e));
    net_init(&e->n, sim, 3);
    for (int i = 0; i < 2; i++) {
        net_start(&e->n, i);
        assert_int_equal(fabric_fault_attach(e->n.f[i], 5), 0);
    }
}
static int end_listen(struct end *e)
{
    struct fabric_addr a;
    struct rpc_service s = {.methods = methods, .method_count = 1, .events = &events, .service = e};
    net_addr(&e->n, 0, 0, &a);
    return rpc_listen(&e->n.env[0], &a, &s, 1u << FABRIC_ROLE_VBS, &e->l);
}
static int end_connect(struct end *e)
{
    struct fabric_addr a;
    struct rpc_service s = {.events = &events, .service = e};
    rpc_listener_addr(e->l, &a);
    return rpc_connect(&e->n.env[1], &a, FABRIC_DOMAIN_CLUSTER, &s, &e->peer);
}
static void end_fini(struct end *e)
{
    if (e->peer)
        rpc_close(e->peer);
    if (e->l)
        rpc_listener_destroy(e->l, false);
    net_idle(&e->n, 10);
    assert_int_equal(fabric_fault_live(e->n.f[0]) + fabric_fault_live(e->n.f[1]), 0);
    net_fini(&e->n);
}

static void call_done(struct rpc_call *call, const struct rpc_result *r)
{
    (void)call;
    struct end *e = *(struct end **)(void *)((char *)call + sizeof(*call));
    e->done++;
    e->rc = r->rc;
}
struct call {
    struct rpc_call call;
    struct end *end;
};

/* Connects and makes three calls with sinks; 0 or the first error. */
static int conversation(struct end *e, struct call *calls)
{
    static unsigned char sink[3][4096];
    static struct fabric_sge sge[3];
    int rc = end_connect(e);
    if (rc)
        return rc;
    NET_UNTIL_INT(&e->n, e->ups >= 2 || e->downs > 0, 1);
    for (int i = 0; i < 3; i++) {
        if (!e->peer)
            return -ENOTCONN;
        memset(&calls[i], 0, sizeof(calls[i]));
        calls[i].end = e;
        calls[i].call.method = 1;
        calls[i].call.done = call_done;
        sge[i] = (struct fabric_sge){.base = sink[i], .len = sizeof(sink[i])};
        calls[i].call.sink = &sge[i];
        calls[i].call.sink_count = 1;
        rc = rpc_call_start(e->peer, &calls[i].call);
        if (rc)
            return rc;
        int want = e->done + 1;
        NET_UNTIL_INT(&e->n, e->done, want);
        if (e->rc)
            return e->rc;
    }
    return 0;
}

/* The n-th call fails, on either side: never swallowed, never invented, nothing leaks. */
static void one_failure_at_each_step(void **state)
{
    for (int run = 0; run < 4; run++) {
        bool sim = run & 1;
        int side = run >> 1;
        for (uint64_t n = 1;; n++) {
            struct end e;
            struct call calls[3];
            end_init(&e, sim);
            assert_int_equal(end_listen(&e), 0);
            fabric_fault_fail_at(e.n.f[side], n);
            int rc = conversation(&e, calls);
            bool fired = fabric_fault_fired(e.n.f[side]);
            assert_int_equal(fired, rc != 0);
            assert_true(rc == 0 || rc == -ENOMEM || rc == -ENOTCONN);
            end_fini(&e);
            if (!fired) {
                assert_true(n > 3);
                break;
            }
        }
    }
    (void)state;
}

static void calls_that_fail(void **state)
{
    (void)state;
    struct end e;
    char b[64];
    struct fabric_mem *mem = NULL;
    end_init(&e, false);
    struct fabric_fault_rule r = {
        .calls = FABRIC_FAULT_MEM_REGISTER, .action = FABRIC_FAULT_FAIL, .rc = -EIO};
    r.skip = 1;
    r.times = 1;
    assert_int_equal(fabric_fault_add(e.n.f[0], &r), 0);
    r = (struct fabric_fault_rule){.calls = FABRIC_FAULT_LISTEN, .rc = -EADDRINUSE, .times = 1};
    assert_int_equal(fabric_fault_add(e.n.f[0], &r), 0);
    for (int i = 0; i < 3; i++) {
        int rc = fabric_mem_register(e.n.f[0], FABRIC_DOMAIN_CLUSTER, b, sizeof(b), 0, &mem);
        assert_int_equal(rc, i == 1 ? -EIO : 0);
        if (rc == 0)
            fabric_mem_unregister(mem);
    }
    assert_int_equal(end_listen(&e), -EADDRINUSE);
    assert_int_equal(fabric_fault_live(e.n.f[0]), 0);
    assert_int_equal(end_listen(&e), 0);
    assert_int_equal(fabric_fault_live(e.n.f[0]), 1);
    assert_int_equal(fabric_fault_count(e.n.f[0]), 2);
    end_fini(&e);
}

/* Delays change no order. */
static void delays(void **state)
{
    for (int sim = 0; sim < 2; sim++) {
        struct end e;
        enum { COUNT = 300 };
        end_init(&e, sim);
        assert_int_equal(end_listen(&e), 0);
        struct fabric_fault_rule r = {
            .calls = FABRIC_FAULT_POST, .action = FABRIC_FAULT_DELAY, .num = 1, .den = 10};
        r.delay_min_ns = 1000;
        r.delay_max_ns = 3 * NS_PER_MS;
        assert_int_equal(fabric_fault_add(e.n.f[1], &r), 0);
        assert_int_equal(end_connect(&e), 0);
        NET_UNTIL_INT(&e.n, e.ups, 2);
        for (uint32_t i = 0; i < COUNT; i++) {
            assert_int_equal(rpc_notify(e.peer, 1, &i, sizeof(i)), 0);
            if (i % 3 == 0)
                net_step(&e.n);
        }
        NET_UNTIL_INT(&e.n, e.got, COUNT);
        assert_int_equal(e.wrong, 0);
        assert_true(fabric_fault_count(e.n.f[1]) > 5);
        end_fini(&e);
    }
    (void)state;
}

/* Disconnects at random: every call ends once, and both sides come down. */
static void disconnects(void **state)
{
    int lost = 0, answered = 0;
    for (int i = 0; i < 200; i++) {
        struct end e;
        struct call calls[3];
        end_init(&e, i & 1);
        assert_int_equal(end_listen(&e), 0);
        struct fabric_fault_rule r = {.calls = FABRIC_FAULT_POST | FABRIC_FAULT_CONNECT,
                                      .action = FABRIC_FAULT_DISCONNECT,
                                      .times = 1,
                                      .skip = (uint64_t)(i / 2) % 4};
        r.delay_max_ns = 300 * NS_PER_US;
        assert_int_equal(fabric_fault_add(e.n.f[(i >> 3) & 1], &r), 0);
        int rc = conversation(&e, calls);
        assert_true(rc == 0 || rc == -ENOTCONN);
        lost += rc != 0;
        answered += rc == 0;
        end_fini(&e);
    }
    assert_true(lost > 50);
    assert_true(answered > 0);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_failure_at_each_step),
        cmocka_unit_test(calls_that_fail),
        cmocka_unit_test(delays),
        cmocka_unit_test(disconnects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
