/*
 * test_fabric_verbs_garbage.c: what strangers and members that misbehave send by verbs ends their connection,
 * and nothing else. Runs where there is an RDMA device (ctest rdma.conformance); elsewhere it only says so.
 */
#include "fabric_pair.h"

#include "rdma/fabric_verbs.h"

#include <arpa/inet.h>
#include <fcntl.h>

/* ---- a connection that has to survive ---- */

struct bench {
    struct pair p;
    struct end good; /* of end 2 */
};

static void bench_open(struct bench *b)
{
    net_verbs = true;
    memset(b, 0, sizeof(*b));
    pair_init(&b->p, false);
}
static void bench_start(struct bench *b)
{
    b->good.close_in_down = true;
    pair_listen(&b->p);
    net_start(&b->p.n, 2);
    assert_int_equal(
        fabric_connect(b->p.n.f[2], &b->p.addr, FABRIC_DOMAIN_CLUSTER, &events, &b->good, &b->good.conn), 0);
    NET_UNTIL_INT(&b->p.n, b->good.ups, 1);
}
static void bench_stop(struct bench *b)
{
    struct op o;
    int before = b->p.s.messages;
    assert_int_equal(b->good.downs, 0);
    op_send(&o, "alive", 5);
    assert_int_equal(fabric_post(b->good.conn, &o.op), 0);
    NET_UNTIL_INT(&b->p.n, b->p.s.messages, before + 1);
    net_stop(&b->p.n, 2);
    pair_stop(&b->p);
}

/* ---- before the proof ---- */

/* A request with that private data is refused. */
static void knock(struct bench *b, const void *data, uint8_t len)
{
    struct rdma_event_channel *cm = rdma_create_event_channel();
    struct rdma_cm_event *e;
    struct rdma_cm_id *id;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(b->p.addr.port)};
    memcpy(&to.sin_addr, b->p.addr.ip, 4);
    assert_non_null(cm);
    fcntl(cm->fd, F_SETFL, O_NONBLOCK);
    assert_int_equal(rdma_create_id(cm, &id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_resolve_addr(id, NULL, (struct sockaddr *)(void *)&to, 2000), 0);
    struct ibv_cq *cq = NULL;
    bool refused = false;
    for (uint64_t end = net_real_ns() + 20 * NS_PER_S; !refused && net_real_ns() < end;) {
        net_step(&b->p.n);
        if (rdma_get_cm_event(cm, &e))
            continue;
        enum rdma_cm_event_type type = e->event;
        rdma_ack_cm_event(e);
        if (type == RDMA_CM_EVENT_ADDR_RESOLVED) {
            assert_int_equal(rdma_resolve_route(id, 2000), 0);
        } else if (type == RDMA_CM_EVENT_ROUTE_RESOLVED) {
            cq = ibv_create_cq(id->verbs, 4, NULL, NULL, 0);
            struct ibv_qp_init_attr attr = {
                .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = {2, 2, 1, 1, 0}};
            assert_int_equal(rdma_create_qp(id, NULL, &attr), 0);
            struct rdma_conn_param c = {.private_data = data, .private_data_len = len};
            assert_int_equal(rdma_connect(id, &c), 0);
        } else {
            assert_int_equal(type, RDMA_CM_EVENT_REJECTED);
            refused = true;
        }
    }
    assert_true(refused);
    rdma_destroy_qp(id);
    ibv_destroy_cq(cq);
    rdma_destroy_id(id);
    rdma_destroy_event_channel(cm);
}

static void strangers_hellos(void **state)
{
    struct bench b;
    struct fabric_hello h;
    (void)state;
    bench_open(&b);
    bench_start(&b);
    memset(&h, 0xa5, sizeof(h));
    knock(&b, NULL, 0);
    knock(&b, &h, 10);
    knock(&b, &h, sizeof(h));
    memset(&h, 0, sizeof(h));
    h.magic = FABRIC_HELLO_MAGIC;
    h.version_min = h.version_max = FABRIC_VERSION_MAX;
    knock(&b, &h, sizeof(h)); /* no role */
    h.role = FABRIC_ROLE_VBS;
    h.domain = 4;
    knock(&b, &h, sizeof(h));
    NET_UNTIL_INT(&b.p.n, COUNTER(&b.p, 0, conns_unproved), 0);
    assert_int_equal(COUNTER(&b.p, 0, qps), 1);
    bench_stop(&b);
}

/* ---- frames ---- */

/* Straight into the queue pair, behind the back of our side. */
static void post_raw(struct fabric_conn *conn, const void *data, uint32_t len)
{
    struct verbs_conn *vc = container_of(conn, struct verbs_conn, core);
    struct ibv_mr *mr = ibv_reg_mr(vc->dev->pd[conn->peer.domain - 1], (void *)(uintptr_t)data, len, 0);
    struct ibv_sge sge = {.addr = (uintptr_t)data, .length = len, .lkey = mr ? mr->lkey : 0};
    struct ibv_send_wr *bad, wr = {.wr_id = verbs_wr_id(vc, VERBS_WR_MARKER, 0),
                                   .sg_list = &sge,
                                   .num_sge = 1,
                                   .opcode = IBV_WR_SEND};
    assert_non_null(mr);
    assert_int_equal(ibv_post_send(vc->id->qp, &wr, &bad), 0);
    nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL); /* it is on its way without us */
    (void)ibv_dereg_mr(mr);
}

static struct verbs_frame frame(uint8_t type, uint32_t len)
{
    return (struct verbs_frame){.magic = VERBS_FRAME_MAGIC, .type = type, .len = len};
}

struct raw {
    struct verbs_frame f;
    struct verbs_seg seg[2];
    uint32_t bytes;
};
static struct raw raws[] = {
    {{.magic = 1, .type = VERBS_FRAME_BEAT}, {{0}}, 16},
    {{.magic = VERBS_FRAME_MAGIC, .type = 0}, {{0}}, 16},
    {{.magic = VERBS_FRAME_MAGIC, .type = 99}, {{0}}, 16},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_BEAT}, {{0}}, 7},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_BEAT, .len = 8}, {{0}}, 24},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_AUTH, .len = 40}, {{0}}, 48},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_REFUSE, .slot = 77}, {{0}}, 16},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_CREDIT}, {{0}}, 16},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_RECALL}, {{0}}, 16},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_RETURN, .slot = 1}, {{0}}, 16},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_MESSAGE, .len = 0}, {{0}}, 16},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_MESSAGE, .len = 8193}, {{0}}, 16},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_MESSAGE, .len = UINT32_MAX}, {{0}}, 15},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_MESSAGE, .source_count = 41, .len = 8}, {{0}}, 40},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_MESSAGE, .source_count = 1, .len = 8},
     {{.addr = 4096, .len = 0, .key = 1}},
     40},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_MESSAGE, .source_count = 1, .len = 8},
     {{.addr = 4096, .len = 8, .key = 0}},
     40},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_MESSAGE, .sink_count = 1, .len = 8},
     {{.addr = 4096, .len = FABRIC_PAYLOAD_MAX + 1, .key = 1}},
     40},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_MESSAGE, .sink_count = 1, .len = 8},
     {{.addr = UINT64_MAX - 3, .len = 8, .key = 1}},
     40},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_MESSAGE, .sink_count = 1, .flags = 4, .len = 8},
     {{.addr = 4096, .len = 8, .key = 1}},
     40},
    {{.magic = VERBS_FRAME_MAGIC,
      .type = VERBS_FRAME_MESSAGE,
      .sink_count = 1,
      .flags = VERBS_FRAME_ENDS_SOURCE,
      .len = 8},
     {{.addr = 4096, .len = 8, .key = 1}},
     40},
    {{.magic = VERBS_FRAME_MAGIC, .type = VERBS_FRAME_BEAT, .flags = VERBS_FRAME_ENDS_SINK}, {{0}}, 16},
};

static void members_frames(void **state)
{
    static unsigned char huge[VERBS_BUF_BYTES + 64];
    struct bench b;
    (void)state;
    bench_open(&b);
    bench_start(&b);
    for (unsigned i = 0; i < ARRAY_LEN(raws) + 2; i++) {
        uint64_t errors = COUNTER(&b.p, 0, protocol_errors);
        int downs = b.p.c.downs;
        pair_connect(&b.p, FABRIC_DOMAIN_CLUSTER);
        if (i < ARRAY_LEN(raws)) {
            post_raw(b.p.c.conn, &raws[i], raws[i].bytes);
        } else if (i == ARRAY_LEN(raws)) { /* longer than any buffer */
            memset(huge, 7, sizeof(huge));
            post_raw(b.p.c.conn, huge, sizeof(huge));
        } else { /* credits beyond all that may be */
            struct verbs_frame f = frame(VERBS_FRAME_CREDIT, 0);
            f.credits = 65535;
            post_raw(b.p.c.conn, &f, sizeof(f));
        }
        NET_UNTIL_INT(&b.p.n, b.p.c.downs, downs + 1);
        NET_UNTIL_INT(&b.p.n, COUNTER(&b.p, 0, protocol_errors) > errors, true);
        NET_UNTIL_INT(&b.p.n, COUNTER(&b.p, 0, conns_open), 1);
    }
    bench_stop(&b);
}

static void (*real_control)(struct fabric_conn *, enum fabric_control_kind, const void *, uint32_t);
static void mute_control(struct fabric_conn *conn, enum fabric_control_kind kind, const void *data,
                         uint32_t len)
{
    if (kind != FABRIC_CONTROL_AUTH)
        real_control(conn, kind, data, len);
}

/* Before the proof there are no messages. */
static void strangers_frames(void **state)
{
    struct bench b;
    struct {
        struct verbs_frame f;
        char body[8];
    } raw = {frame(VERBS_FRAME_MESSAGE, 8), "hello"};
    (void)state;
    bench_open(&b);
    bench_start(&b);
    struct fabric_ops mute = *b.p.n.f[1]->ops;
    real_control = mute.control;
    mute.control = mute_control;
    b.p.n.f[1]->ops = &mute;
    assert_int_equal(
        fabric_connect(b.p.n.f[1], &b.p.addr, FABRIC_DOMAIN_CLUSTER, &events, &b.p.c, &b.p.c.conn), 0);
    NET_UNTIL_INT(&b.p.n, b.p.c.conn->state, CONN_AUTH);
    post_raw(b.p.c.conn, &raw, sizeof(raw));
    NET_UNTIL_INT(&b.p.n, b.p.c.downs, 1);
    NET_UNTIL_INT(&b.p.n, COUNTER(&b.p, 0, conns_open), 1);
    assert_int_equal(b.p.s.messages, 0);
    bench_stop(&b);
}

/* ---- credits ---- */

/* More messages than were lent end the connection; the others do not feel it. */
static void over_credits(void **state)
{
    struct bench b;
    struct {
        struct verbs_frame f;
        char body[8];
    } raw = {frame(VERBS_FRAME_MESSAGE, 8), "hello"};
    (void)state;
    bench_open(&b);
    bench_start(&b);
    pair_connect(&b.p, FABRIC_DOMAIN_CLUSTER);
    int before = b.p.s.messages;
    net_pause(&b.p.n, 0, true); /* it gives nothing back */
    for (int i = 0; i < 12; i++)
        post_raw(b.p.c.conn, &raw, sizeof(raw));
    net_pause(&b.p.n, 0, false);
    NET_UNTIL_INT(&b.p.n, b.p.c.downs, 1);
    assert_true(b.p.s.messages - before >= 4 && b.p.s.messages - before < 12);
    assert_int_equal(COUNTER(&b.p, 0, downs_protocol), 1);
    bench_stop(&b);
}

static void keep_credits(struct fabric_conn *conn)
{
    conn->rx_owed = 0;
}

/* A peer that gives no credits back gets no more messages; nobody else waits for it. */
static void no_credits_back(void **state)
{
    enum { COUNT = 200 };
    struct bench b;
    (void)state;
    bench_open(&b);
    b.p.n.config[1].recv_messages = 4;
    bench_start(&b);
    pair_connect(&b.p, FABRIC_DOMAIN_CLUSTER);
    struct fabric_ops keep = *b.p.n.f[1]->ops;
    keep.credit = keep_credits;
    b.p.n.f[1]->ops = &keep;
    struct op *ops = ops_new(COUNT);
    for (int i = 0; i < COUNT; i++) {
        op_send(&ops[i], "hello", 5);
        assert_int_equal(fabric_post(b.p.s.conn, &ops[i].op), 0);
    }
    net_idle(&b.p.n, 300);
    b.p.c.conn->rx_owed = 0;
    assert_true(b.p.c.messages >= 2 && b.p.c.messages <= 8);
    assert_true(COUNTER(&b.p, 0, ops_pending) >= COUNT - 8);
    struct op o;
    int before = b.p.s.messages;
    op_send(&o, "alive", 5);
    assert_int_equal(fabric_post(b.good.conn, &o.op), 0);
    NET_UNTIL_INT(&b.p.n, b.p.s.messages, before + 1);
    fabric_close(b.p.c.conn);
    b.p.c.conn = NULL;
    NET_UNTIL_INT(&b.p.n, b.p.s.downs, 1);
    for (int i = 0; i < COUNT; i++)
        NET_UNTIL_INT(&b.p.n, ops[i].done, 1);
    bench_stop(&b);
    free(ops);
}

/* Who uses credits gets more; who rests gives them back. */
static void credits_follow_use(void **state)
{
    enum { COUNT = 500 };
    struct bench b;
    (void)state;
    bench_open(&b);
    for (int i = 0; i < 3; i++)
        b.p.n.config[i].probe_interval_ns = 200 * NS_PER_MS;
    bench_start(&b);
    pair_connect(&b.p, FABRIC_DOMAIN_CLUSTER);
    struct op *ops = ops_new(COUNT);
    for (int round = 0; round < 2; round++) {
        int before = b.p.s.messages;
        for (int i = 0; i < COUNT; i++) {
            op_send(&ops[i], "hello", 5);
            assert_int_equal(fabric_post(b.p.c.conn, &ops[i].op), 0);
        }
        NET_UNTIL_INT(&b.p.n, b.p.s.messages, before + COUNT);
        uint32_t most = 0;
        list_for_each(n, &b.p.n.f[0]->conns) most =
            (uint32_t)max_u64(most, list_entry(n, struct fabric_conn, link)->rx_lent);
        assert_int_equal(most, 64);
        NET_UNTIL_INT(&b.p.n, COUNTER(&b.p, 0, credits_lent), 2 * VERBS_LEND_MIN);
        assert_int_equal(COUNTER(&b.p, 1, credits_held), VERBS_LEND_MIN);
    }
    bench_stop(&b);
    free(ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_hellos), cmocka_unit_test(members_frames),
        cmocka_unit_test(strangers_frames), cmocka_unit_test(over_credits),
        cmocka_unit_test(no_credits_back),  cmocka_unit_test(credits_follow_use),
    };
    if (getenv("CISTERN_TEST_FILTER"))
        cmocka_set_test_filter(getenv("CISTERN_TEST_FILTER"));
    if (getenv(NET_RDMA_ENV))
        return cmocka_run_group_tests(tests, NULL, NULL);
    print_message("[  SKIPPED ] " NET_RDMA_ENV " names no RDMA device (ctest rdma.conformance runs this)\n");
    return 0;
}
