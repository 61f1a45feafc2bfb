/* test_rpc.c: rpc.h's promises, over tcp and the simulated network. */
#include "fabric_fixture.h"

#include "common/crc.h"
#include "common/metrics.h"
#include "rdma/rpc.h"
#include "rdma/rpc_internal.h"

#define BLOB (128u * 1024u)

enum { M_ECHO = 1, M_HOLD = 2, M_WRITE = 3, M_READ = 4, M_READ_BIG = 5, M_IGNORE = 6 };

struct side {
    int ups, downs, notifies;
    enum fabric_down reason;
    struct rpc_peer *peer;
    uint16_t note;
    /* serving */
    struct rpc_request *held[4096];
    int held_count, fetched, fetch_rc, sent;
    unsigned char *blob;
    struct rpc_request *writing;
};

static void on_up(void *service, struct rpc_peer *peer)
{
    struct side *s = service;
    s->ups++;
    s->peer = peer;
}
static void on_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct side *s = service;
    (void)peer;
    s->downs++;
    s->reason = reason;
    s->peer = NULL;
}
static void on_notify(void *service, struct rpc_peer *peer, uint16_t method, const void *body, uint32_t len)
{
    struct side *s = service;
    (void)peer;
    s->notifies++;
    s->note = method;
    assert_int_equal(len, 5);
    assert_memory_equal(body, "hello", 5);
}
static void h_echo(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    (void)service;
    rpc_reply(req, STATUS_OK, body, len);
}
static void h_hold(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    struct side *s = service;
    (void)body;
    (void)len;
    s->held[s->held_count++] = req;
}
static void write_fetched(void *arg, int rc)
{
    struct side *s = arg;
    s->fetched++;
    s->fetch_rc = rc;
    rpc_reply(s->writing, status_from_errno(rc), NULL, 0);
}
static void h_write(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    struct side *s = service;
    (void)body;
    (void)len;
    struct fabric_sge sge[2] = {{.base = s->blob, .len = 4096},
                                {.base = s->blob + 4096, .len = rpc_request_payload_len(req) - 4096}};
    s->writing = req;
    assert_int_equal(rpc_request_fetch(req, sge, 1, write_fetched, s), -EINVAL); /* too short */
    assert_int_equal(rpc_request_fetch(req, sge, 2, write_fetched, s), 0);
    assert_int_equal(rpc_request_fetch(req, sge, 2, write_fetched, s), -EINVAL); /* once only */
}
static void read_sent(void *arg)
{
    ((struct side *)arg)->sent++;
}
static void reply_read(struct side *s, struct rpc_request *req, uint32_t len)
{
    struct fabric_sge sge = {.base = s->blob, .len = len};
    rpc_reply_payload(req, STATUS_OK, "ok", 2, &sge, 1, crc32c(s->blob, len), read_sent, s);
}
static void h_read(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    (void)body;
    (void)len;
    reply_read(service, req, rpc_request_sink_len(req));
}
static void h_read_big(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    (void)body;
    (void)len;
    reply_read(service, req, rpc_request_sink_len(req) + 1);
}
static const struct rpc_method methods[] = {
    {M_ECHO, "echo", h_echo, 4}, {M_HOLD, "hold", h_hold, 0},        {M_WRITE, "write", h_write, 0},
    {M_READ, "read", h_read, 0}, {M_READ_BIG, "big", h_read_big, 0},
};
static const struct rpc_events events = {.up = on_up, .down = on_down, .notify = on_notify};

struct bench {
    struct net n;
    struct side server, client;
    struct rpc_listener *listener;
    struct rpc_peer *peer;
};

struct bench_figures {
    uint64_t ups;
};
#define METRICS_STRUCT bench_figures
static const struct metric bench_table[] = {METRICS_ENTRY(GAUGE, ups, "bench_ups", "of=\"server\"", "Ups.")};
static const struct metrics_group bench_group = METRICS_GROUP("the test", bench_table);
#undef METRICS_STRUCT
static void bench_figures(void *service, struct metrics_snapshot *out)
{
    struct bench_figures *f = metrics_snapshot_add(out, &bench_group, NULL);
    assert_non_null(f);
    f->ups = (uint64_t)((struct side *)service)->ups;
}

static void bench_start(struct bench *b, bool sim, uint32_t max_requests)
{
    memset(b, 0, sizeof(*b));
    net_init(&b->n, sim, 42);
    net_start(&b->n, 0);
    net_start(&b->n, 1);
    b->server.blob = malloc(BLOB);
    b->client.blob = malloc(BLOB);
    for (unsigned i = 0; i < BLOB; i++) {
        b->server.blob[i] = (unsigned char)(i * 7 + 3);
        b->client.blob[i] = (unsigned char)(i * 13 + 1);
    }
    struct rpc_service s = {.methods = methods,
                            .method_count = ARRAY_LEN(methods),
                            .events = &events,
                            .service = &b->server,
                            .max_requests = max_requests,
                            .figures = bench_figures};
    struct fabric_addr a;
    net_addr(&b->n, 0, 0, &a);
    assert_int_equal(rpc_listen(&b->n.env[0], &a, &s, 1u << FABRIC_ROLE_VBS, &b->listener), 0);
    rpc_listener_addr(b->listener, &a);
    s.service = &b->client;
    assert_int_equal(rpc_connect(&b->n.env[1], &a, FABRIC_DOMAIN_CLUSTER, &s, &b->peer), 0);
    NET_UNTIL_INT(&b->n, b->server.ups + b->client.ups, 2);
    assert_ptr_equal(b->client.peer, b->peer);
}
static void bench_stop(struct bench *b)
{
    if (b->client.peer)
        rpc_close(b->peer);
    if (b->listener) {
        NET_UNTIL_INT(&b->n, b->server.downs, b->server.ups);
        rpc_listener_destroy(b->listener, false);
    }
    net_idle(&b->n, 20);
    struct fabric_counters c;
    for (int i = 0; i < 2; i++) {
        fabric_counters_get(b->n.f[i], &c);
        assert_int_equal(c.ops_pending, 0);
        assert_int_equal(c.conns_open, 0);
    }
    net_fini(&b->n);
    free(b->server.blob);
    free(b->client.blob);
}

struct result {
    struct rpc_call call;
    int done, rc;
    uint32_t status, body_len, payload_len, payload_crc;
    unsigned char body[RPC_BODY_MAX];
};
static int done_total;
static void call_done(struct rpc_call *call, const struct rpc_result *r)
{
    struct result *x = container_of(call, struct result, call);
    x->done++;
    done_total++;
    x->rc = r->rc;
    x->status = r->status;
    x->body_len = r->body_len;
    x->payload_len = r->payload_len;
    x->payload_crc = r->payload_crc;
    if (r->body_len)
        memcpy(x->body, r->body, r->body_len);
}
static void prepare(struct result *x, uint16_t method, const void *body, uint32_t len)
{
    memset(&x->call, 0, sizeof(x->call));
    x->done = 0;
    x->rc = 1;
    x->call.method = method;
    x->call.body = body;
    x->call.body_len = len;
    x->call.done = call_done;
}

static void calls_are_answered(bool sim)
{
    struct bench b;
    static struct result x;
    static unsigned char big[RPC_BODY_MAX];
    bench_start(&b, sim, 0);
    memset(big, 0x5a, sizeof(big));
    prepare(&x, M_ECHO, "ping", 4);
    assert_int_equal(rpc_call_start(b.peer, &x.call), 0);
    assert_int_equal(x.done, 0);
    NET_UNTIL_INT(&b.n, x.done, 1);
    assert_int_equal(x.rc, 0);
    assert_int_equal(x.status, STATUS_OK);
    assert_int_equal(x.body_len, 4);
    assert_memory_equal(x.body, "ping", 4);
    prepare(&x, M_ECHO, big, sizeof(big));
    assert_int_equal(rpc_call_start(b.peer, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done, 1);
    assert_int_equal(x.body_len, sizeof(big));
    assert_memory_equal(x.body, big, sizeof(big));
    prepare(&x, M_ECHO, big, sizeof(big) + 1);
    assert_int_equal(rpc_call_start(b.peer, &x.call), -EINVAL);
    prepare(&x, M_ECHO, "abc", 3); /* shorter than body_min */
    assert_int_equal(rpc_call_start(b.peer, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done, 1);
    assert_int_equal(x.status, STATUS_INVALID);
    prepare(&x, 77, NULL, 0);
    assert_int_equal(rpc_call_start(b.peer, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done, 1);
    assert_int_equal(x.status, STATUS_NOT_SUPPORTED);
    /* the other way round, and one-way */
    prepare(&x, M_ECHO, "back", 4);
    assert_int_equal(rpc_call_start(b.server.peer, &x.call), 0);
    assert_int_equal(rpc_notify(b.peer, 9, "hello", 5), 0);
    NET_UNTIL_INT(&b.n, x.done + b.server.notifies, 2);
    assert_int_equal(b.server.note, 9);
    assert_memory_equal(x.body, "back", 4);
    bench_stop(&b);
}

static void write_call(struct bench *b, struct result *x, uint32_t crc, struct fabric_sge *sge)
{
    prepare(x, M_WRITE, NULL, 0);
    x->call.source = sge;
    x->call.source_count = 2;
    x->call.source_crc = crc;
    assert_int_equal(rpc_call_start(b->peer, &x->call), 0);
    NET_UNTIL_INT(&b->n, x->done, 1);
    assert_int_equal(x->rc, 0);
}

static void payloads_travel(bool sim)
{
    struct bench b;
    static struct result x;
    bench_start(&b, sim, 0);
    unsigned char *blob = b.client.blob;
    struct fabric_sge sge[2] = {{.base = blob, .len = 100000}, {.base = blob + 100000, .len = BLOB - 100000}};
    uint32_t crc = crc32c(blob, BLOB);
    write_call(&b, &x, crc, sge);
    assert_int_equal(x.status, STATUS_OK);
    assert_memory_equal(b.server.blob, blob, BLOB);
    write_call(&b, &x, crc ^ 1, sge);
    assert_int_equal(x.status, STATUS_BAD_CRC);
    assert_int_equal(b.server.fetch_rc, -EBADMSG);
    /* a payload that the server does not want */
    prepare(&x, M_ECHO, "abcd", 4);
    x.call.source = sge;
    x.call.source_count = 2;
    assert_int_equal(rpc_call_start(b.peer, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done, 1);
    assert_int_equal(x.status, STATUS_OK);
    /* a sink */
    memset(blob, 0, BLOB);
    prepare(&x, M_READ, NULL, 0);
    x.call.sink = sge;
    x.call.sink_count = 2;
    assert_int_equal(rpc_call_start(b.peer, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done + b.server.sent, 2);
    assert_int_equal(x.payload_len, BLOB);
    assert_int_equal(x.payload_crc, crc32c(blob, BLOB));
    assert_memory_equal(b.server.blob, blob, BLOB);
    assert_memory_equal(x.body, "ok", 2);
    /* the server answers with more than there is room for */
    prepare(&x, M_READ_BIG, NULL, 0);
    sge[0].len = 10;
    x.call.sink = sge;
    x.call.sink_count = 1;
    assert_int_equal(rpc_call_start(b.peer, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done + b.server.sent, 3);
    assert_int_equal(x.status, STATUS_INVALID);
    assert_int_equal(x.payload_len, 0);
    /* no deadline where memory is exposed */
    prepare(&x, M_READ, NULL, 0);
    x.call.sink = sge;
    x.call.sink_count = 1;
    x.call.timeout_ns = 1;
    assert_int_equal(rpc_call_start(b.peer, &x.call), -EINVAL);
    bench_stop(&b);
}

static void timeouts(bool sim)
{
    struct bench b;
    static struct result x, y;
    bench_start(&b, sim, 0);
    prepare(&x, M_HOLD, NULL, 0);
    x.call.timeout_ns = 20 * NS_PER_MS;
    assert_int_equal(rpc_call_start(b.peer, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done, 1);
    assert_int_equal(x.rc, -ETIMEDOUT);
    NET_UNTIL_INT(&b.n, b.server.held_count, 1);
    /* the late reply hits nobody, even when the slot is in use again */
    prepare(&y, M_HOLD, NULL, 0);
    assert_int_equal(rpc_call_start(b.peer, &y.call), 0);
    NET_UNTIL_INT(&b.n, b.server.held_count, 2);
    rpc_reply(b.server.held[0], STATUS_IO, NULL, 0);
    net_idle(&b.n, 20);
    assert_int_equal(y.done, 0);
    rpc_reply(b.server.held[1], STATUS_OK, NULL, 0);
    NET_UNTIL_INT(&b.n, y.done, 1);
    assert_int_equal(y.status, STATUS_OK);
    bench_stop(&b);
}

static void requests_are_held_back(bool sim)
{
    struct bench b;
    enum { CALLS = 1500 }; /* more than the window, too */
    struct result *x = calloc(CALLS, sizeof(*x));
    bench_start(&b, sim, 3);
    done_total = 0;
    for (int i = 0; i < CALLS; i++) {
        prepare(&x[i], M_HOLD, &i, sizeof(i));
        assert_int_equal(rpc_call_start(b.peer, &x[i].call), 0);
    }
    int answered = 0;
    NET_UNTIL_INT(&b.n, b.server.held_count, 3);
    net_idle(&b.n, 20);
    assert_int_equal(b.server.held_count, 3);
    while (answered < CALLS) {
        rpc_reply(b.server.held[answered], STATUS_OK, &answered, sizeof(answered));
        answered++;
        int want = answered + 3 < CALLS ? answered + 3 : CALLS;
        NET_UNTIL_INT(&b.n, b.server.held_count, want);
    }
    NET_UNTIL_INT(&b.n, done_total, CALLS);
    for (int i = 0; i < CALLS; i++)
        assert_memory_equal(x[i].body, &i, sizeof(i)); /* in order */
    bench_stop(&b);
    free(x);
}

static void connection_lost(bool sim)
{
    struct bench b;
    static struct result x, y;
    bench_start(&b, sim, 1);
    struct fabric_sge sge = {.base = b.client.blob, .len = BLOB};
    prepare(&x, M_HOLD, NULL, 0);
    assert_int_equal(rpc_call_start(b.peer, &x.call), 0);
    prepare(&y, M_HOLD, NULL, 0); /* held back, never begins */
    y.call.sink = &sge;
    y.call.sink_count = 1;
    assert_int_equal(rpc_call_start(b.peer, &y.call), 0);
    NET_UNTIL_INT(&b.n, b.server.held_count, 1);
    assert_true(rpc_request_alive(b.server.held[0]));
    fabric_kill(rpc_peer_conn(b.server.peer), FABRIC_DOWN_PROTOCOL);
    NET_UNTIL_INT(&b.n, x.done + y.done, 2);
    assert_int_equal(x.rc, -ENOTCONN);
    assert_int_equal(y.rc, -ENOTCONN);
    NET_UNTIL_INT(&b.n, b.server.downs + b.client.downs, 2);
    assert_int_equal(b.client.reason, FABRIC_DOWN_PROTOCOL);
    assert_false(rpc_request_alive(b.server.held[0]));
    struct fabric_sge reply = {.base = b.server.blob, .len = 0};
    rpc_reply_payload(b.server.held[0], STATUS_OK, NULL, 0, &reply, 1, 0, read_sent, &b.server);
    assert_int_equal(b.server.sent, 0);
    NET_UNTIL_INT(&b.n, b.server.sent, 1);
    bench_stop(&b);
}

static void closing_and_abandoning(bool sim)
{
    struct bench b;
    static struct result x[3];
    bench_start(&b, sim, 1);
    struct fabric_sge sge = {.base = b.client.blob, .len = BLOB};
    for (int i = 0; i < 3; i++) {
        prepare(&x[i], M_HOLD, NULL, 0);
        x[i].call.source = &sge;
        x[i].call.source_count = i == 1;
        assert_int_equal(rpc_call_start(b.peer, &x[i].call), 0);
    }
    NET_UNTIL_INT(&b.n, b.server.held_count, 1);
    rpc_close(b.peer);
    b.client.peer = NULL;
    for (int i = 0; i < 3; i++)
        assert_int_equal(x[i].done, 0);
    for (int i = 0; i < 3; i++) {
        NET_UNTIL_INT(&b.n, x[i].done, 1);
        assert_int_equal(x[i].rc, -ENOTCONN);
    }
    assert_int_equal(b.client.downs, 0);
    rpc_listener_destroy(b.listener, true); /* with a request that is never answered */
    b.listener = NULL;
    bench_stop(&b);
    /* abandoned with everything under way */
    bench_start(&b, sim, 1);
    sge.base = b.client.blob;
    for (int i = 0; i < 3; i++) {
        prepare(&x[i], M_HOLD, NULL, 0);
        x[i].call.source = &sge;
        x[i].call.source_count = i == 1;
        x[i].call.timeout_ns = i == 0 ? NS_PER_S : 0;
        assert_int_equal(rpc_call_start(b.peer, &x[i].call), 0);
    }
    NET_UNTIL_INT(&b.n, b.server.held_count, 1);
    rpc_abandon(b.peer);
    b.client.peer = NULL;
    memset(x, 0xee, sizeof(x)); /* nobody looks at them any more */
    NET_UNTIL_INT(&b.n, b.server.downs, 1);
    rpc_reply(b.server.held[0], STATUS_OK, NULL, 0);
    bench_stop(&b);
}

static void refused_role(bool sim)
{
    struct bench b;
    bench_start(&b, sim, 0);
    struct fabric_addr a;
    rpc_listener_addr(b.listener, &a);
    net_config(&b.n.config[2], FABRIC_ROLE_CLIENT);
    net_start(&b.n, 2);
    struct side s = {0};
    struct rpc_service service = {.events = &events, .service = &s};
    struct rpc_peer *peer;
    assert_int_equal(rpc_connect(&b.n.env[2], &a, FABRIC_DOMAIN_HOST, &service, &peer), 0);
    NET_UNTIL_INT(&b.n, s.downs, 1);
    assert_int_equal(s.ups, 0);
    assert_int_equal(s.reason, FABRIC_DOWN_REFUSED);
    bench_stop(&b);
}

struct raw {
    struct fabric_conn *conn;
    int up, down;
    enum fabric_down reason;
};
static void raw_up(struct fabric_conn *c, const struct fabric_peer *p)
{
    (void)p;
    ((struct raw *)fabric_conn_user(c))->up++;
}
static void raw_message(struct fabric_conn *c, const struct fabric_msg *m)
{
    (void)c;
    (void)m;
}
static void raw_down(struct fabric_conn *c, enum fabric_down reason)
{
    struct raw *r = fabric_conn_user(c);
    r->down++;
    r->reason = reason;
    fabric_close(c);
}
static const struct fabric_conn_events raw_events = {raw_up, raw_message, raw_down};

static void nonsense_ends_only_its_connection(bool sim)
{
    struct bench b;
    bench_start(&b, sim, 0);
    struct fabric_addr a;
    rpc_listener_addr(b.listener, &a);
    struct rpc_header good = {
        .magic = RPC_MAGIC, .kind = RPC_REQUEST, .version = RPC_VERSION, .method = M_ECHO};
    for (int i = 0; i < 7; i++) {
        struct raw r = {0};
        struct rpc_header h = good;
        uint32_t len = sizeof(h);
        if (i == 0)
            h.magic ^= 1;
        else if (i == 1)
            h.kind = 9;
        else if (i == 2)
            h.body_len = 1;
        else if (i == 3)
            h.payload_len = 4096; /* without a source */
        else if (i == 4)
            len = 5;
        else if (i == 5)
            h.version = 200;
        else
            h.kind = RPC_NOTIFY, h.payload_len = 1;
        assert_int_equal(fabric_connect(b.n.f[1], &a, FABRIC_DOMAIN_CLUSTER, &raw_events, &r, &r.conn), 0);
        NET_UNTIL_INT(&b.n, r.up, 1);
        struct fabric_op op = {.kind = FABRIC_OP_SEND, .header = &h, .header_len = len};
        assert_int_equal(fabric_post(r.conn, &op), 0);
        NET_UNTIL_INT(&b.n, r.down, 1);
        assert_int_equal(r.reason, FABRIC_DOWN_PROTOCOL);
    }
    assert_true(rpc_peer_is_up(b.peer));
    static struct result x;
    prepare(&x, M_ECHO, "ping", 4);
    assert_int_equal(rpc_call_start(b.peer, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done, 1);
    assert_int_equal(x.rc, 0);
    bench_stop(&b);
}

/* ---- everything at once, with connections that break: every call ends once, nothing is left ---- */

struct storm {
    struct bench b;
    struct rng rng;
    struct result calls[40];
    unsigned char blobs[40][4096];
    struct fabric_sge sge[40];
    int connects, closes;
};
static void storm_connect(struct storm *x)
{
    struct fabric_addr a;
    struct rpc_service s = {.methods = methods, .method_count = ARRAY_LEN(methods), .events = &events};
    rpc_listener_addr(x->b.listener, &a);
    s.service = &x->b.client;
    x->connects++;
    assert_int_equal(rpc_connect(&x->b.n.env[1], &a, FABRIC_DOMAIN_CLUSTER, &s, &x->b.peer), 0);
}
static int storm_good, storm_lost, storm_late;
static void storm_call(struct storm *x, unsigned i)
{
    struct result *r = &x->calls[i];
    if (r->call.done && !r->done)
        return; /* under way */
    storm_good += r->done && r->rc == 0;
    storm_lost += r->done && r->rc == -ENOTCONN;
    storm_late += r->done && r->rc == -ETIMEDOUT;
    static const uint16_t kinds[] = {M_ECHO, M_HOLD, M_READ};
    prepare(r, kinds[rng_below(&x->rng, 3)], x->blobs[i], 8);
    x->sge[i] = (struct fabric_sge){.base = x->blobs[i], .len = sizeof(x->blobs[i])};
    if (rng_chance(&x->rng, 1, 2)) {
        r->call.source = &x->sge[i];
        r->call.source_count = 1;
    }
    if (r->call.method == M_READ) {
        r->call.sink = &x->sge[i];
        r->call.sink_count = 1;
    } else if (!r->call.source_count && rng_chance(&x->rng, 1, 3)) {
        r->call.timeout_ns = 100 * NS_PER_US;
    }
    if (rpc_call_start(x->b.peer, &r->call) != 0)
        r->call.done = NULL;
}
static void storm_answer(struct storm *x)
{
    struct side *s = &x->b.server;
    while (s->held_count > 0 && rng_chance(&x->rng, 2, 3))
        rpc_reply(s->held[--s->held_count], STATUS_OK, "late", 4);
}
static void storm_run(uint64_t seed)
{
    struct storm *x = calloc(1, sizeof(*x));
    bench_start(&x->b, true, 5);
    x->connects = 1;
    rng_seed(&x->rng, seed);
    struct sim_net_options options;
    sim_net_get_options(x->b.n.net, &options);
    options.break_num = 1;
    options.break_den = 150;
    sim_net_set_options(x->b.n.net, &options);
    for (int i = 0; i < 400; i++) {
        if (x->connects == x->b.client.downs + x->closes)
            storm_connect(x);
        if (x->b.client.peer)
            storm_call(x, (unsigned)rng_below(&x->rng, 40));
        if (x->b.client.peer && rng_chance(&x->rng, 1, 100)) {
            rpc_close(x->b.peer);
            x->b.client.peer = NULL;
            x->closes++;
        }
        storm_answer(x);
        for (uint64_t k = rng_below(&x->rng, 12); k > 0; k--)
            net_step(&x->b.n);
    }
    options.break_num = 0;
    sim_net_set_options(x->b.n.net, &options);
    for (int i = 0; i < 40; i++) {
        while (x->calls[i].call.done && !x->calls[i].done) {
            storm_answer(x);
            net_step(&x->b.n);
        }
        assert_true(!x->calls[i].call.done || x->calls[i].done == 1);
    }
    if (x->b.client.peer)
        rpc_close(x->b.peer);
    x->b.client.peer = NULL;
    net_idle(&x->b.n, 10000);
    while (x->b.server.held_count > 0)
        rpc_reply(x->b.server.held[--x->b.server.held_count], STATUS_OK, NULL, 0);
    net_idle(&x->b.n, 10);
    while (x->b.server.held_count > 0)
        rpc_reply(x->b.server.held[--x->b.server.held_count], STATUS_OK, NULL, 0);
    bench_stop(&x->b);
    free(x);
}
static void storms(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++)
        storm_run(seed);
    assert_true(storm_good > 1000);
    assert_true(storm_lost > 100);
    assert_true(storm_late > 20);
}

/* What every service answers by itself: to those it serves, and to an operator's tool that it does not. */
static void house_methods(bool sim)
{
    struct bench b;
    static struct result x;
    struct rpc_peer *tool;
    struct fabric_addr a;
    bench_start(&b, sim, 0);
    prepare(&x, RPC_METHOD_PING, "to and fro", 10);
    assert_int_equal(rpc_call_start(b.peer, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done, 1);
    assert_int_equal(x.status, STATUS_OK);
    assert_int_equal(x.body_len, 10);
    assert_memory_equal(x.body, "to and fro", 10);
    rpc_listener_addr(b.listener, &a);
    b.n.config[2].role = FABRIC_ROLE_ADMIN;
    net_start(&b.n, 2);
    assert_int_equal(rpc_connect(&b.n.env[2], &a, FABRIC_DOMAIN_HOST, NULL, &tool), 0);
    NET_UNTIL_INT(&b.n, rpc_peer_is_up(tool), 1);
    prepare(&x, M_ECHO, "ping", 4);
    assert_int_equal(rpc_call_start(tool, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done, 1);
    assert_int_equal(x.status, STATUS_DENIED);
    prepare(&x, RPC_METHOD_COUNTERS, NULL, 0);
    assert_int_equal(rpc_call_start(tool, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done, 1);
    assert_int_equal(x.status, STATUS_OK);
    assert_int_equal(x.body[x.body_len - 1], '\n');
    x.body[x.body_len - 1] = '\0';
    assert_non_null(strstr((char *)x.body, "conns_open 2\n"));
    assert_non_null(strstr((char *)x.body, "messages_received 3\n"));
    assert_non_null(strstr((char *)x.body, "loop_sleeps "));
    /* the figures, in parts: each once, those of the service first */
    struct rpc_figures head = {0};
    unsigned parts = 0, own = 0, fabric = 0;
    do {
        prepare(&x, RPC_METHOD_FIGURES, &head, sizeof head);
        assert_int_equal(rpc_call_start(tool, &x.call), 0);
        NET_UNTIL_INT(&b.n, x.done, 1);
        assert_int_equal(x.status, STATUS_OK);
        assert_true(x.body_len > sizeof head && parts++ < 10);
        memcpy(&head, x.body, sizeof head);
        x.body[x.body_len - 1] = '\0';
        own += strstr((char *)x.body + sizeof head, "bench_ups{of=\"server\"} 1") != NULL;
        fabric += strstr((char *)x.body + sizeof head, "cistern_fabric_conns_open 2") != NULL;
    } while (head.after != 0);
    assert_int_equal(own, 1);
    assert_int_equal(fabric, 1);
    prepare(&x, RPC_METHOD_FIGURES, "odd", 3);
    assert_int_equal(rpc_call_start(tool, &x.call), 0);
    NET_UNTIL_INT(&b.n, x.done, 1);
    assert_int_equal(x.status, STATUS_INVALID);
    rpc_close(tool);
    net_idle(&b.n, 20);
    net_stop(&b.n, 2);
    assert_int_equal(b.server.ups, 1); /* the service has not heard of the tool */
    bench_stop(&b);
}

#define BOTH(name)                                                                                           \
    static void name##_tcp(void **state)                                                                     \
    {                                                                                                        \
        (void)state;                                                                                         \
        name(false);                                                                                         \
    }                                                                                                        \
    static void name##_sim(void **state)                                                                     \
    {                                                                                                        \
        (void)state;                                                                                         \
        name(true);                                                                                          \
    }
BOTH(calls_are_answered)
BOTH(payloads_travel)
BOTH(timeouts)
BOTH(requests_are_held_back)
BOTH(connection_lost)
BOTH(closing_and_abandoning)
BOTH(refused_role)
BOTH(house_methods)
BOTH(nonsense_ends_only_its_connection)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_are_answered_tcp),
        cmocka_unit_test(payloads_travel_tcp),
        cmocka_unit_test(timeouts_tcp),
        cmocka_unit_test(requests_are_held_back_tcp),
        cmocka_unit_test(connection_lost_tcp),
        cmocka_unit_test(closing_and_abandoning_tcp),
        cmocka_unit_test(refused_role_tcp),
        cmocka_unit_test(house_methods_tcp),
        cmocka_unit_test(nonsense_ends_only_its_connection_tcp),
        cmocka_unit_test(calls_are_answered_sim),
        cmocka_unit_test(payloads_travel_sim),
        cmocka_unit_test(timeouts_sim),
        cmocka_unit_test(requests_are_held_back_sim),
        cmocka_unit_test(connection_lost_sim),
        cmocka_unit_test(closing_and_abandoning_sim),
        cmocka_unit_test(refused_role_sim),
        cmocka_unit_test(house_methods_sim),
        cmocka_unit_test(nonsense_ends_only_its_connection_sim),
        cmocka_unit_test(storms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
