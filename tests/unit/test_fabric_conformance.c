/* test_fabric_conformance.c: every promise of fabric.h, one body for all providers. */
#include "fabric_fixture.h"

#include <sys/resource.h>

#define OPS 12000

/* One end of a connection, and what it saw. */
struct end {
    struct net *n;
    struct fabric_conn *conn;
    int ups, downs, messages, dones, refused_done;
    enum fabric_down reason;
    struct fabric_peer peer;
    bool close_in_message, close_in_up, close_in_down, check_order;
    uint32_t next; /* expected number in the next message */
    unsigned char last[FABRIC_MESSAGE_MAX];
    uint32_t last_len;
    struct fabric_remote source, sink;
    bool fetch_inline;
    struct fabric_op fetch;
    struct fabric_sge fetch_sge;
    unsigned char *into;
};
struct op {
    struct fabric_op op;
    struct fabric_sge sge[4], sink[4];
    int done, rc;
    uint32_t number[3];
};

static void op_done(struct fabric_op *op, int rc)
{
    struct op *o = (struct op *)(void *)op;
    o->done++;
    o->rc = rc;
}

static void on_up(struct fabric_conn *c, const struct fabric_peer *peer)
{
    struct end *e = fabric_conn_user(c);
    e->ups++;
    e->conn = c;
    e->peer = *peer;
    assert_true(fabric_conn_is_up(c));
    if (e->close_in_up) {
        e->conn = NULL;
        fabric_close(c);
    }
}
static void on_message(struct fabric_conn *c, const struct fabric_msg *m)
{
    struct end *e = fabric_conn_user(c);
    e->messages++;
    memcpy(e->last, m->data, m->len);
    e->last_len = m->len;
    e->source = m->source;
    e->sink = m->sink;
    if (e->check_order) {
        uint32_t number;
        memcpy(&number, m->data, 4);
        assert_int_equal(number, e->next);
        e->next++;
        assert_int_equal(m->len, 4 + number % 97);
    }
    if (e->fetch_inline && m->source.len) {
        e->fetch_sge = (struct fabric_sge){.base = e->into, .len = m->source.len};
        e->fetch = (struct fabric_op){.kind = FABRIC_OP_FETCH, .sge = &e->fetch_sge, .sge_count = 1};
        e->fetch.remote = m->source;
        assert_int_equal(fabric_post(c, &e->fetch), 0);
    }
    if (e->close_in_message) {
        e->conn = NULL;
        fabric_close(c);
    }
}
static void on_down(struct fabric_conn *c, enum fabric_down reason)
{
    struct end *e = fabric_conn_user(c);
    e->downs++;
    e->reason = reason;
    assert_false(fabric_conn_is_up(c));
    if (e->close_in_down) {
        e->conn = NULL;
        fabric_close(c);
    }
}
static const struct fabric_conn_events events = {on_up, on_message, on_down};

struct pair {
    struct net n;
    struct end s, c; /* server: end 0, client: end 1 */
    struct fabric_listener *l;
    struct fabric_addr addr;
    int accepts;
    bool refuse;
};
static const struct fabric_conn_events *on_accept(void *user, const struct fabric_peer *peer,
                                                  void **conn_user)
{
    struct pair *p = user;
    p->accepts++;
    if (p->refuse)
        return NULL;
    assert_true(peer->role == FABRIC_ROLE_VBS || peer->role == FABRIC_ROLE_CLIENT);
    *conn_user = &p->s;
    return &events;
}

/* Nothing connected yet; configs may be changed before. */
static void pair_listen(struct pair *p)
{
    struct fabric_addr a;
    struct fabric_accept accept = {on_accept, p};
    net_start(&p->n, 0);
    net_start(&p->n, 1);
    net_addr(&p->n, 0, 0, &a);
    assert_int_equal(fabric_listen(p->n.f[0], &a, &accept, &p->l), 0);
    fabric_listener_addr(p->l, &p->addr);
    assert_int_not_equal(p->addr.port, 0);
}
static void pair_init(struct pair *p, bool sim)
{
    memset(p, 0, sizeof(*p));
    net_init(&p->n, sim, 7);
    p->s.n = p->c.n = &p->n;
    p->s.close_in_down = p->c.close_in_down = true;
}
static void pair_connect(struct pair *p, enum fabric_domain domain)
{
    int ups = p->s.ups + p->c.ups;
    assert_int_equal(fabric_connect(p->n.f[1], &p->addr, domain, &events, &p->c, &p->c.conn), 0);
    NET_UNTIL_INT(&p->n, p->s.ups + p->c.ups, ups + 2);
}
static void pair_start(struct pair *p, bool sim, enum fabric_domain domain)
{
    pair_init(p, sim);
    pair_listen(p);
    pair_connect(p, domain);
}
static uint64_t counter(struct pair *p, int i, size_t offset)
{
    struct fabric_counters c;
    if (!p->n.f[i])
        return 0;
    fabric_counters_get(p->n.f[i], &c);
    return *(uint64_t *)(void *)((char *)&c + offset);
}
#define COUNTER(p, i, name) counter(p, i, offsetof(struct fabric_counters, name))
/* At rest equal at start. */
static void pair_stop(struct pair *p)
{
    if (p->c.conn)
        fabric_close(p->c.conn);
    for (int i = 0; i < 2; i++) {
        NET_UNTIL_INT(&p->n, COUNTER(p, i, conns_open), 0);
        assert_int_equal(COUNTER(p, i, ops_pending), 0);
        assert_int_equal(COUNTER(p, i, mems), 0);
    }
    net_fini(&p->n);
}

static void op_send(struct op *o, const void *data, uint32_t len)
{
    memset(o, 0, sizeof(*o));
    o->op.kind = FABRIC_OP_SEND;
    o->op.header = data;
    o->op.header_len = len;
    o->op.done = op_done;
}
static void op_data(struct op *o, enum fabric_op_kind kind, const struct fabric_remote *remote, void *base,
                    uint32_t len)
{
    memset(o, 0, sizeof(*o));
    o->op.kind = kind;
    o->op.remote = *remote;
    o->sge[0] = (struct fabric_sge){.base = base, .len = len};
    o->op.sge = o->sge;
    o->op.sge_count = 1;
    o->op.done = op_done;
}
static unsigned char *pattern(size_t len, unsigned seed)
{
    unsigned char *b = malloc(len);
    for (size_t i = 0; i < len; i++)
        b[i] = (unsigned char)(i * 31 + (i >> 8) * 7 + seed);
    return b;
}

/* ---- handshake ---- */

static void handshake_good(bool sim)
{
    struct pair p;
    pair_init(&p, sim);
    memset(p.n.config[1].cluster.b, 0, 16); /* a tool that knows the secret only */
    p.n.config[1].service_id = 5;
    pair_listen(&p);
    pair_connect(&p, FABRIC_DOMAIN_TABLE);
    assert_int_equal(p.s.peer.role, FABRIC_ROLE_VBS);
    assert_int_equal(p.c.peer.role, FABRIC_ROLE_MODULE);
    assert_int_equal(p.s.peer.service_id, 5);
    assert_int_equal(p.s.peer.incarnation, 99);
    assert_int_equal(p.s.peer.domain, FABRIC_DOMAIN_TABLE);
    assert_int_equal(p.c.peer.domain, FABRIC_DOMAIN_TABLE);
    assert_int_equal(p.s.peer.version, FABRIC_VERSION_MAX);
    struct uuid learnt = fabric_cluster(p.n.f[1]);
    assert_true(uuid_eq(&learnt, &p.n.config[0].cluster));
    assert_true(fabric_addr_eq(&p.c.peer.addr, &p.addr));
    assert_int_equal(COUNTER(&p, 0, conns_total), 1);
    pair_stop(&p);
}

static void refused_with(struct pair *p, enum fabric_down reason, int accepts)
{
    pair_listen(p);
    assert_int_equal(fabric_connect(p->n.f[1], &p->addr, FABRIC_DOMAIN_CLUSTER, &events, &p->c, &p->c.conn),
                     0);
    assert_int_equal(p->c.downs, 0);
    NET_UNTIL_INT(&p->n, p->c.downs, 1);
    assert_int_equal(p->c.reason, reason);
    assert_int_equal(p->c.ups + p->s.ups, 0);
    assert_int_equal(p->accepts, accepts);
    NET_UNTIL_INT(&p->n, COUNTER(p, 0, conns_refused), 1);
    pair_stop(p);
    assert_int_equal(p->c.downs, 1);
    assert_int_equal(p->s.downs, 0);
}
static void handshake_bad(bool sim)
{
    struct pair p;
    pair_init(&p, sim);
    p.n.config[1].secret[0] ^= 1;
    refused_with(&p, FABRIC_DOWN_AUTH, 0);
    pair_init(&p, sim);
    p.n.config[1].secret_len = 5; /* a prefix */
    refused_with(&p, FABRIC_DOWN_AUTH, 0);
    pair_init(&p, sim);
    p.n.config[1].cluster.b[15] ^= 1;
    refused_with(&p, FABRIC_DOWN_CLUSTER, 0);
    pair_init(&p, sim);
    p.refuse = true;
    refused_with(&p, FABRIC_DOWN_REFUSED, 1);
}

static void handshake_versions(bool sim)
{
    struct pair p;
    pair_init(&p, sim);
    pair_listen(&p);
    p.n.f[0]->version_min = 1;
    p.n.f[0]->version_max = 2;
    p.n.f[1]->version_min = 2;
    p.n.f[1]->version_max = 3;
    pair_connect(&p, FABRIC_DOMAIN_CLUSTER);
    assert_int_equal(p.s.peer.version, 2);
    assert_int_equal(p.c.peer.version, 2);
    fabric_close(p.c.conn);
    NET_UNTIL_INT(&p.n, p.s.downs, 1);
    p.n.f[1]->version_min = 3;
    assert_int_equal(fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &p.c, &p.c.conn), 0);
    NET_UNTIL_INT(&p.n, p.c.downs, 1);
    assert_int_equal(p.c.reason, FABRIC_DOWN_VERSION);
    pair_stop(&p);
}

static void nobody_listens(bool sim)
{
    struct pair p;
    pair_init(&p, sim);
    pair_listen(&p);
    fabric_unlisten(p.l);
    assert_int_equal(fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &p.c, &p.c.conn), 0);
    assert_int_equal(p.c.downs, 0);
    struct op o;
    op_send(&o, "x", 1);
    assert_int_equal(fabric_post(p.c.conn, &o.op), -ENOTCONN); /* not up yet */
    NET_UNTIL_INT(&p.n, p.c.downs, 1);
    assert_int_equal(p.c.reason, FABRIC_DOWN_REFUSED);
    struct fabric_addr wrong = p.addr;
    wrong.provider = FABRIC_PROVIDER_VERBS;
    assert_int_equal(fabric_connect(p.n.f[1], &wrong, FABRIC_DOMAIN_CLUSTER, &events, &p.c, &p.c.conn),
                     -EINVAL);
    pair_stop(&p);
}

static void silent_listener(bool sim)
{
    struct pair p;
    pair_init(&p, sim);
    p.n.config[1].connect_timeout_ns = 30 * NS_PER_MS;
    pair_listen(&p);
    net_pause(&p.n, 0, true);
    assert_int_equal(fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &p.c, &p.c.conn), 0);
    NET_UNTIL_INT(&p.n, p.c.downs, 1);
    assert_int_equal(p.c.reason, FABRIC_DOWN_TIMEOUT);
    net_pause(&p.n, 0, false);
    NET_UNTIL_INT(&p.n, COUNTER(&p, 0, conns_open), 0);
    assert_int_equal(p.s.ups, 0);
    pair_stop(&p);
}

/* ---- messages ---- */

static struct op *ops_new(int count)
{
    struct op *ops = calloc((size_t)count, sizeof(*ops));
    assert_non_null(ops);
    return ops;
}

static void order_both_ways(bool sim)
{
    struct pair p;
    enum { COUNT = 3000 };
    static unsigned char data[2][COUNT][128];
    pair_start(&p, sim, FABRIC_DOMAIN_CLUSTER);
    p.s.check_order = p.c.check_order = true;
    struct op *ops = ops_new(2 * COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        for (int side = 0; side < 2; side++) {
            struct op *o = &ops[2 * i + (uint32_t)side];
            memcpy(data[side][i], &i, 4);
            op_send(o, data[side][i], 4 + i % 97);
            assert_int_equal(fabric_post(side ? p.s.conn : p.c.conn, &o->op), 0);
            assert_int_equal(o->done, 0);
        }
        if (i % 7 == 0)
            net_step(&p.n);
    }
    NET_UNTIL_INT(&p.n, p.s.messages + p.c.messages, 2 * COUNT);
    NET_UNTIL_INT(&p.n, COUNTER(&p, 0, ops_pending) + COUNTER(&p, 1, ops_pending), 0);
    for (int i = 0; i < 2 * COUNT; i++) {
        assert_int_equal(ops[i].done, 1);
        assert_int_equal(ops[i].rc, 0);
    }
    pair_stop(&p);
    free(ops);
}

static void message_lengths(bool sim)
{
    struct pair p;
    static unsigned char data[FABRIC_MESSAGE_MAX + 1];
    struct op o;
    pair_start(&p, sim, FABRIC_DOMAIN_CLUSTER);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)(i * 11);
    op_send(&o, data, 0);
    assert_int_equal(fabric_post(p.c.conn, &o.op), -EINVAL);
    op_send(&o, data, FABRIC_MESSAGE_MAX + 1);
    assert_int_equal(fabric_post(p.c.conn, &o.op), -EINVAL);
    op_send(&o, data, FABRIC_MESSAGE_MAX);
    o.sge[0] = (struct fabric_sge){.base = data, .len = FABRIC_PAYLOAD_MAX + 1};
    o.op.sge = o.sge;
    o.op.sge_count = 1;
    assert_int_equal(fabric_post(p.c.conn, &o.op), -EINVAL);
    op_send(&o, data, FABRIC_MESSAGE_MAX);
    o.op.done = NULL; /* static header */
    assert_int_equal(fabric_post(p.c.conn, &o.op), 0);
    NET_UNTIL_INT(&p.n, p.s.messages, 1);
    assert_int_equal(p.s.last_len, FABRIC_MESSAGE_MAX);
    assert_memory_equal(p.s.last, data, FABRIC_MESSAGE_MAX);
    pair_stop(&p);
}

static void back_pressure(bool sim)
{
    struct pair p;
    static unsigned char data[OPS][128];
    pair_start(&p, sim, FABRIC_DOMAIN_CLUSTER);
    p.s.check_order = true;
    struct op *ops = ops_new(OPS);
    net_pause(&p.n, 0, true);
    static unsigned char blob[4096];
    for (uint32_t i = 0; i < OPS; i++) {
        memcpy(data[i], &i, 4);
        op_send(&ops[i], data[i], 4 + i % 97);
        ops[i].sge[0] = (struct fabric_sge){.base = blob, .len = sizeof(blob)};
        ops[i].op.sge = ops[i].sge;
        ops[i].op.sge_count = 1; /* makes it large on tcp */
        assert_int_equal(fabric_post(p.c.conn, &ops[i].op), 0);
    }
    net_idle(&p.n, 20);
    assert_true(COUNTER(&p, 1, credit_waits) > 0);
    assert_int_equal(COUNTER(&p, 1, ops_pending), OPS);
    assert_int_equal(p.s.messages, 0);
    net_pause(&p.n, 0, false);
    p.s.fetch_inline = false;
    for (uint32_t i = 0; i < OPS; i++) {
        NET_UNTIL_INT(&p.n, p.s.messages > (int)i, true);
        fabric_drop(p.s.conn, &p.s.source);
        fabric_retire(&ops[i].op);
        if (!sim)
            continue;
        NET_UNTIL_INT(&p.n, p.s.messages, OPS);
        for (uint32_t j = 1; j < OPS; j++)
            fabric_retire(&ops[j].op);
        break;
    }
    NET_UNTIL_INT(&p.n, COUNTER(&p, 1, ops_pending), 0);
    for (int i = 0; i < OPS; i++)
        assert_int_equal(ops[i].done, 1);
    pair_stop(&p);
    free(ops);
}

/* ---- exposed payloads ---- */

/* Client exposes source (in three pieces), server fetches it all but cut bytes. */
static void fetch_once(struct pair *p, uint32_t len, uint32_t cut, bool inline_fetch)
{
    unsigned char *from = pattern(len, len), *into = malloc(len);
    struct op *send = ops_new(1), *fetch = ops_new(1);
    memset(into, 0, len);
    op_send(send, "take this", 9);
    uint32_t a = len / 3, b = len / 2;
    send->sge[0] = (struct fabric_sge){.base = from, .len = a};
    send->sge[1] = (struct fabric_sge){.base = from + a, .len = b - a};
    send->sge[2] = (struct fabric_sge){.base = from + b, .len = len - b};
    send->op.sge = send->sge;
    send->op.sge_count = 3;
    int before = p->s.messages;
    p->s.fetch_inline = inline_fetch;
    p->s.into = into;
    assert_int_equal(fabric_post(p->c.conn, &send->op), 0);
    NET_UNTIL_INT(&p->n, p->s.messages, before + 1);
    assert_int_equal(p->s.source.len, len);
    assert_memory_equal(p->s.last, "take this", 9);
    if (!inline_fetch) {
        net_idle(&p->n, 2);
        op_data(fetch, FABRIC_OP_FETCH, &p->s.source, into, len - cut);
        uint32_t half = (len - cut) / 2;
        fetch->sge[0].len = half;
        fetch->sge[1] = (struct fabric_sge){.base = into + half, .len = len - cut - half};
        fetch->op.sge_count = 2;
        assert_int_equal(fabric_post(p->s.conn, &fetch->op), 0);
        assert_int_equal(fetch->done, 0);
        NET_UNTIL_INT(&p->n, fetch->done, 1);
        assert_int_equal(fetch->rc, 0);
    }
    NET_UNTIL_INT(&p->n, COUNTER(p, 0, ops_pending), 0);
    assert_memory_equal(into, from, len - cut);
    for (uint32_t i = len - cut; i < len; i++)
        assert_int_equal(into[i], 0);
    net_idle(&p->n, 2);
    assert_int_equal(send->done, 0);
    fabric_retire(&send->op);
    assert_int_equal(send->done, 0);
    NET_UNTIL_INT(&p->n, send->done, 1);
    assert_int_equal(send->rc, 0);
    free(from);
    free(into);
    free(send);
    free(fetch);
    p->s.fetch_inline = false;
}
static void fetching(bool sim)
{
    struct pair p;
    pair_start(&p, sim, FABRIC_DOMAIN_HOST);
    static const uint32_t lens[] = {1, 8, 511, 4096, 4097, 32768, 65536, 131072, 1000003, FABRIC_PAYLOAD_MAX};
    for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
        fetch_once(&p, lens[i], 0, true);
        fetch_once(&p, lens[i], 0, false);
        if (lens[i] > 8)
            fetch_once(&p, lens[i], lens[i] / 3, false);
    }
    struct op o;
    unsigned char b[16];
    struct fabric_remote r = {.addr = 1, .len = 8, .key = 1};
    op_data(&o, FABRIC_OP_FETCH, &r, b, 9); /* more than there is */
    assert_int_equal(fabric_post(p.s.conn, &o.op), -EINVAL);
    op_data(&o, FABRIC_OP_FETCH, &r, b, 0);
    assert_int_equal(fabric_post(p.s.conn, &o.op), -EINVAL);
    pair_stop(&p);
}

static void pushing(bool sim)
{
    struct pair p;
    enum { LEN = 300000 };
    pair_start(&p, sim, FABRIC_DOMAIN_HOST);
    for (int round = 0; round < 20; round++) {
        unsigned char *from = pattern(LEN, (unsigned)round), *into = calloc(1, LEN);
        struct op send, push[3], reply;
        op_send(&send, "give me", 7);
        send.sink[0] = (struct fabric_sge){.base = into, .len = 5};
        send.sink[1] = (struct fabric_sge){.base = into + 5, .len = 0};
        send.sink[2] = (struct fabric_sge){.base = into + 5, .len = LEN - 5};
        send.op.sink = send.sink;
        send.op.sink_count = 3;
        int before = p.s.messages, back = p.c.messages;
        assert_int_equal(fabric_post(p.c.conn, &send.op), 0);
        NET_UNTIL_INT(&p.n, p.s.messages, before + 1);
        assert_int_equal(p.s.sink.len, LEN);
        assert_int_equal(p.s.source.len, 0);
        static const uint32_t at[4] = {0, 3, 1000, LEN - 7};
        for (int i = 2; i >= 0; i--) {
            op_data(&push[i], FABRIC_OP_PUSH, &p.s.sink, from + at[i], at[i + 1] - at[i]);
            push[i].op.remote_offset = at[i];
            assert_int_equal(fabric_post(p.s.conn, &push[i].op), 0);
        }
        op_send(&reply, "there", 5);
        assert_int_equal(fabric_post(p.s.conn, &reply.op), 0);
        NET_UNTIL_INT(&p.n, p.c.messages, back + 1);
        /* all is in place when the message is there */
        assert_memory_equal(into, from, LEN - 7);
        for (int i = LEN - 7; i < LEN; i++)
            assert_int_equal(into[i], 0);
        assert_int_equal(send.done, 0);
        fabric_retire(&send.op);
        NET_UNTIL_INT(&p.n, send.done + push[0].done + push[1].done + push[2].done + reply.done, 5);
        op_data(&push[0], FABRIC_OP_PUSH, &p.s.sink, from, 8);
        push[0].op.remote_offset = LEN - 7;
        assert_int_equal(fabric_post(p.s.conn, &push[0].op), -EINVAL);
        free(from);
        free(into);
    }
    pair_stop(&p);
}

static void dropping(bool sim)
{
    struct pair p;
    enum { COUNT = 40, LEN = 50000 };
    pair_start(&p, sim, FABRIC_DOMAIN_HOST);
    unsigned char *from = pattern(LEN, 1);
    struct op *ops = ops_new(COUNT);
    for (int i = 0; i < COUNT; i++) {
        op_send(&ops[i], "no", 2);
        ops[i].sge[0] = (struct fabric_sge){.base = from, .len = LEN};
        ops[i].op.sge = ops[i].sge;
        ops[i].op.sge_count = 1;
        assert_int_equal(fabric_post(p.c.conn, &ops[i].op), 0);
        NET_UNTIL_INT(&p.n, p.s.messages, i + 1);
        struct fabric_remote source = p.s.source;
        if (i % 2)
            net_idle(&p.n, 1);
        fabric_drop(p.s.conn, &source);
        fabric_retire(&ops[i].op);
    }
    NET_UNTIL_INT(&p.n, COUNTER(&p, 1, ops_pending), 0);
    pair_stop(&p);
    free(ops);
    free(from);
}

/* A sink that was never exposed, or is no more, ends the connection. */
static void bad_sinks(bool sim)
{
    for (int kind = 0; kind < 3; kind++) {
        struct pair p;
        pair_start(&p, sim, FABRIC_DOMAIN_CLUSTER);
        unsigned char b[64] = {0};
        struct op send, push;
        op_send(&send, "give", 4);
        send.sink[0] = (struct fabric_sge){.base = b, .len = sizeof(b)};
        send.op.sink = send.sink;
        send.op.sink_count = 1;
        assert_int_equal(fabric_post(p.c.conn, &send.op), 0);
        NET_UNTIL_INT(&p.n, p.s.messages, 1);
        struct fabric_remote sink = p.s.sink;
        if (kind == 0)
            sink.addr ^= 1ull << 33;
        else if (kind == 1)
            sink.len = 128; /* says that it is longer */
        else {
            fabric_retire(&send.op);
            NET_UNTIL_INT(&p.n, send.done, 1);
        }
        static unsigned char junk[128] = {1, 2, 3};
        op_data(&push, FABRIC_OP_PUSH, &sink, junk, kind == 1 ? 128 : 16);
        assert_int_equal(fabric_post(p.s.conn, &push.op), 0);
        NET_UNTIL_INT(&p.n, p.s.downs + p.c.downs, 2);
        assert_int_equal(p.s.reason, FABRIC_DOWN_ACCESS);
        assert_int_equal(p.c.reason, FABRIC_DOWN_ACCESS);
        assert_int_equal(send.done + push.done, 2);
        assert_int_equal(b[0], 0);
        pair_stop(&p);
    }
}

/* ---- one-sided operations ---- */

static void reading_and_writing(bool sim)
{
    struct pair p;
    enum { LEN = 2000000, COUNT = 300 };
    pair_start(&p, sim, FABRIC_DOMAIN_CLUSTER);
    unsigned char *base = pattern(LEN, 9), *into = malloc(LEN), *from = pattern(LEN, 77);
    struct fabric_mem *mem;
    assert_int_equal(fabric_mem_register(p.n.f[0], FABRIC_DOMAIN_CLUSTER, base, LEN,
                                         FABRIC_ACCESS_REMOTE_READ | FABRIC_ACCESS_REMOTE_WRITE, &mem),
                     0);
    assert_int_not_equal(mem->key, 0);
    struct op *ops = ops_new(COUNT);
    for (uint32_t i = 0; i < COUNT; i++) { /* more than any window */
        struct fabric_remote r = {.addr = mem->remote_addr + i * 1000, .len = 1000, .key = mem->key};
        op_data(&ops[i], FABRIC_OP_READ, &r, into + i * 1000, 1000);
        assert_int_equal(fabric_post(p.c.conn, &ops[i].op), 0);
    }
    NET_UNTIL_INT(&p.n, COUNTER(&p, 1, ops_pending), 0);
    assert_memory_equal(into, base, COUNT * 1000);
    assert_int_equal(COUNTER(&p, 0, reads_served), COUNT);
    struct fabric_remote all = {.addr = mem->remote_addr, .len = LEN, .key = mem->key};
    op_data(&ops[0], FABRIC_OP_READ, &all, into, LEN);
    assert_int_equal(fabric_post(p.c.conn, &ops[0].op), 0);
    NET_UNTIL_INT(&p.n, ops[0].done, 1);
    assert_memory_equal(into, base, LEN);
    for (uint32_t i = 0; i < COUNT; i++) {
        struct fabric_remote r = {.addr = mem->remote_addr + i * 5001, .len = 5001, .key = mem->key};
        op_data(&ops[i], FABRIC_OP_WRITE, &r, from + i * 5001, 5001);
        assert_int_equal(fabric_post(p.c.conn, &ops[i].op), 0);
    }
    NET_UNTIL_INT(&p.n, COUNTER(&p, 1, ops_pending), 0);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(ops[i].done * 10 + ops[i].rc, 10);
    assert_memory_equal(base, from, COUNT * 5001);
    assert_int_equal(COUNTER(&p, 0, writes_served), COUNT);
    assert_int_equal(p.s.messages, 0); /* the target was not told */
    fabric_mem_unregister(mem);
    struct fabric_remote r = {.addr = all.addr, .len = 8, .key = all.key};
    op_data(&ops[0], FABRIC_OP_READ, &r, into, 8);
    assert_int_equal(fabric_post(p.c.conn, &ops[0].op), 0);
    NET_UNTIL_INT(&p.n, p.c.downs + p.s.downs, 2);
    assert_int_equal(p.c.reason, FABRIC_DOWN_ACCESS);
    assert_int_equal(ops[0].rc, -ENOTCONN);
    pair_stop(&p);
    free(ops);
    free(base);
    free(into);
    free(from);
}

struct bad {
    enum fabric_domain conn, mem;
    unsigned access;
    enum fabric_op_kind kind;
    int addr, len;
    uint32_t key_xor;
    bool good;
};
static const struct bad bads[] = {
    {FABRIC_DOMAIN_CLUSTER, FABRIC_DOMAIN_CLUSTER, 1, FABRIC_OP_READ, 0, 64, 0, true},
    {FABRIC_DOMAIN_CLUSTER, FABRIC_DOMAIN_CLUSTER, 2, FABRIC_OP_WRITE, 0, 64, 0, true},
    {FABRIC_DOMAIN_TABLE, FABRIC_DOMAIN_TABLE, 1, FABRIC_OP_READ, 56, 8, 0, true},
    {FABRIC_DOMAIN_CLUSTER, FABRIC_DOMAIN_CLUSTER, 1, FABRIC_OP_READ, 0, 64, 1, false},
    {FABRIC_DOMAIN_CLUSTER, FABRIC_DOMAIN_CLUSTER, 1, FABRIC_OP_READ, 1, 64, 0, false},
    {FABRIC_DOMAIN_CLUSTER, FABRIC_DOMAIN_CLUSTER, 1, FABRIC_OP_READ, -1, 64, 0, false},
    {FABRIC_DOMAIN_CLUSTER, FABRIC_DOMAIN_CLUSTER, 1, FABRIC_OP_WRITE, 0, 64, 0, false},
    {FABRIC_DOMAIN_CLUSTER, FABRIC_DOMAIN_CLUSTER, 2, FABRIC_OP_READ, 0, 64, 0, false},
    {FABRIC_DOMAIN_CLUSTER, FABRIC_DOMAIN_CLUSTER, 3, FABRIC_OP_WRITE, 64, 1, 0, false},
    {FABRIC_DOMAIN_CLUSTER, FABRIC_DOMAIN_TABLE, 1, FABRIC_OP_READ, 0, 64, 0, false},
    {FABRIC_DOMAIN_TABLE, FABRIC_DOMAIN_CLUSTER, 3, FABRIC_OP_READ, 0, 64, 0, false},
    {FABRIC_DOMAIN_TABLE, FABRIC_DOMAIN_TABLE, 1, FABRIC_OP_WRITE, 0, 64, 0, false},
    {FABRIC_DOMAIN_HOST, FABRIC_DOMAIN_CLUSTER, 3, FABRIC_OP_READ, 0, 64, 0, false},
    {FABRIC_DOMAIN_HOST, FABRIC_DOMAIN_CLUSTER, 3, FABRIC_OP_WRITE, 0, 64, 0, false},
};
static void access_rights(bool sim)
{
    for (unsigned i = 0; i < ARRAY_LEN(bads); i++) {
        const struct bad *b = &bads[i];
        struct pair p;
        _Alignas(8) unsigned char base[64], other[64];
        struct fabric_mem *mem;
        struct op o;
        memset(base, 0x11, sizeof(base));
        memset(other, 0x22, sizeof(other));
        pair_start(&p, sim, b->conn);
        assert_int_equal(fabric_mem_register(p.n.f[0], b->mem, base, sizeof(base), b->access, &mem), 0);
        struct fabric_remote r = {.addr = mem->remote_addr + (uint64_t)(int64_t)b->addr,
                                  .len = (uint32_t)b->len,
                                  .key = mem->key ^ b->key_xor};
        op_data(&o, b->kind, &r, other, (uint32_t)b->len);
        assert_int_equal(fabric_post(p.c.conn, &o.op), 0);
        NET_UNTIL_INT(&p.n, o.done, 1);
        assert_int_equal(o.rc, b->good ? 0 : -ENOTCONN);
        if (!b->good) {
            NET_UNTIL_INT(&p.n, p.c.downs + p.s.downs, 2);
            assert_int_equal(p.c.reason, FABRIC_DOWN_ACCESS);
            assert_int_equal(base[0], 0x11);
            assert_int_equal(other[0], 0x22);
            assert_true(COUNTER(&p, 0, protocol_errors) > 0);
        } else {
            assert_int_equal(base[63], other[63 < b->len ? 63 : b->len - 1]);
        }
        fabric_mem_unregister(mem);
        pair_stop(&p);
    }
}
static void registering(bool sim)
{
    struct pair p;
    char b[64];
    struct fabric_mem *mem;
    pair_init(&p, sim);
    pair_listen(&p);
    struct fabric *f = p.n.f[0];
    assert_int_equal(fabric_mem_register(f, FABRIC_DOMAIN_HOST, b, 64, FABRIC_ACCESS_REMOTE_READ, &mem),
                     -EINVAL);
    assert_int_equal(fabric_mem_register(f, FABRIC_DOMAIN_TABLE, b, 64, FABRIC_ACCESS_REMOTE_WRITE, &mem),
                     -EINVAL);
    assert_int_equal(fabric_mem_register(f, FABRIC_DOMAIN_TABLE, b, 0, 0, &mem), -EINVAL);
    assert_int_equal(fabric_mem_register(f, FABRIC_DOMAIN_HOST, b, 64, FABRIC_ACCESS_LOCAL, &mem), 0);
    assert_int_equal(mem->key, 0);
    assert_int_equal(COUNTER(&p, 0, mems), 1);
    fabric_mem_unregister(mem);
    pair_stop(&p);
}

/* ---- ends ---- */

#define MIX 60
/* A mix of everything, posted at once. */
static void post_mix(struct pair *p, struct op *ops, struct fabric_mem *mem, unsigned char *local)
{
    for (int i = 0; i < MIX; i++) {
        struct fabric_remote r = {.addr = mem->remote_addr, .len = 4096, .key = mem->key};
        switch (i % 5) {
        case 0:
            op_send(&ops[i], "hello", 5);
            break;
        case 1:
            op_data(&ops[i], FABRIC_OP_READ, &r, local + 4096 * (i % 8), 4096);
            break;
        case 2:
            op_data(&ops[i], FABRIC_OP_WRITE, &r, local + 4096 * 8, 4096);
            break;
        case 3:
            op_send(&ops[i], "expose", 6);
            ops[i].sink[0] = (struct fabric_sge){.base = local + 4096 * 9, .len = 4096};
            ops[i].op.sink = ops[i].sink;
            ops[i].op.sink_count = 1;
            break;
        default:
            op_send(&ops[i], "expose", 6);
            ops[i].sge[0] = (struct fabric_sge){.base = local + 4096 * 8, .len = 4096};
            ops[i].op.sge = ops[i].sge;
            ops[i].op.sge_count = 1;
        }
        assert_int_equal(fabric_post(p->c.conn, &ops[i].op), 0);
    }
}
static void check_mix(const struct op *ops)
{
    for (int i = 0; i < MIX; i++) {
        assert_int_equal(ops[i].done, 1);
        assert_true(ops[i].rc == 0 || ops[i].rc == -ENOTCONN);
        if (i % 5 >= 3) /* never retired */
            assert_int_equal(ops[i].rc, -ENOTCONN);
    }
}
struct mix {
    unsigned char *base, *local;
    struct fabric_mem *mem;
    struct op *ops;
};
static void mix_start(struct pair *p, struct mix *m)
{
    m->base = pattern(4096, 1);
    m->local = pattern(4096 * 10, 2);
    m->ops = ops_new(MIX);
    assert_int_equal(fabric_mem_register(p->n.f[0], FABRIC_DOMAIN_CLUSTER, m->base, 4096, 3, &m->mem), 0);
    post_mix(p, m->ops, m->mem, m->local);
}
static void mix_free(struct mix *m)
{
    free(m->base);
    free(m->local);
    free(m->ops);
}

static void peer_destroyed(bool sim)
{
    for (int steps = 0; steps < 60; steps += 3) {
        struct pair p;
        struct mix m;
        pair_start(&p, sim, FABRIC_DOMAIN_CLUSTER);
        mix_start(&p, &m);
        for (int i = 0; i < steps; i++)
            net_step(&p.n);
        net_stop(&p.n, 0);
        NET_UNTIL_INT(&p.n, p.c.downs, 1);
        assert_true(p.c.reason == FABRIC_DOWN_PEER_CLOSED || p.c.reason == FABRIC_DOWN_PEER_DIED);
        check_mix(m.ops);
        assert_int_equal(p.s.downs, 0); /* destroy runs no callbacks */
        assert_null(p.c.conn);
        pair_stop(&p);
        mix_free(&m);
    }
}

static void closing(bool sim)
{
    for (int steps = 0; steps < 60; steps += 3) {
        struct pair p;
        struct mix m;
        pair_start(&p, sim, FABRIC_DOMAIN_CLUSTER);
        mix_start(&p, &m);
        for (int i = 0; i < steps; i++)
            net_step(&p.n);
        int before = 0, after = 0;
        for (int i = 0; i < MIX; i++)
            before += m.ops[i].done;
        fabric_close(p.c.conn);
        p.c.conn = NULL;
        for (int i = 0; i < MIX; i++)
            after += m.ops[i].done;
        assert_int_equal(before, after); /* later, never inline */
        NET_UNTIL_INT(&p.n, COUNTER(&p, 1, conns_open), 0);
        check_mix(m.ops);
        NET_UNTIL_INT(&p.n, p.s.downs, 1);
        assert_int_equal(p.c.downs, 0);
        fabric_mem_unregister(m.mem);
        pair_stop(&p);
        mix_free(&m);
    }
}

static void close_is_told(bool sim)
{
    struct pair p;
    pair_start(&p, sim, FABRIC_DOMAIN_CLUSTER);
    net_idle(&p.n, 2);
    fabric_close(p.c.conn);
    p.c.conn = NULL;
    NET_UNTIL_INT(&p.n, p.s.downs, 1);
    assert_int_equal(p.s.reason, FABRIC_DOWN_PEER_CLOSED);
    pair_stop(&p);
}

static void abandoning(bool sim)
{
    for (int steps = 0; steps < 60; steps += 3) {
        struct pair p;
        struct mix m;
        pair_start(&p, sim, FABRIC_DOMAIN_CLUSTER);
        mix_start(&p, &m);
        for (int i = 0; i < steps; i++)
            net_step(&p.n);
        fabric_abandon(p.c.conn);
        p.c.conn = NULL;
        free(m.local); /* nothing touches it any more */
        free(m.ops);
        m.local = NULL;
        m.ops = NULL;
        NET_UNTIL_INT(&p.n, p.s.downs, 1);
        assert_int_equal(p.c.downs, 0);
        fabric_mem_unregister(m.mem);
        pair_stop(&p);
        mix_free(&m);
    }
}

static void closing_in_callbacks(bool sim)
{
    for (int kind = 0; kind < 3; kind++) {
        struct pair p;
        struct op o[3];
        pair_init(&p, sim);
        pair_listen(&p);
        if (kind == 0)
            p.s.close_in_up = true;
        else if (kind == 1)
            p.s.close_in_message = true;
        assert_int_equal(fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &p.c, &p.c.conn),
                         0);
        if (kind == 1) {
            NET_UNTIL_INT(&p.n, p.c.ups, 1);
            for (int i = 0; i < 3; i++) {
                op_send(&o[i], "one", 3);
                assert_int_equal(fabric_post(p.c.conn, &o[i].op), 0);
            }
        } else if (kind == 2) { /* before it is up */
            net_step(&p.n);
            fabric_close(p.c.conn);
            p.c.conn = NULL;
            net_idle(&p.n, 10);
            assert_int_equal(p.c.ups + p.c.downs, 0);
            pair_stop(&p);
            continue;
        }
        NET_UNTIL_INT(&p.n, p.c.downs, 1);
        assert_int_equal(p.s.downs, 0);
        assert_int_equal(p.s.messages, kind);
        pair_stop(&p);
    }
}

static void killing(bool sim)
{
    struct pair p;
    pair_start(&p, sim, FABRIC_DOMAIN_CLUSTER);
    fabric_kill(p.s.conn, FABRIC_DOWN_PROTOCOL);
    assert_int_equal(p.s.downs, 0);
    NET_UNTIL_INT(&p.n, p.s.downs + p.c.downs, 2);
    assert_int_equal(p.s.reason, FABRIC_DOWN_PROTOCOL);
    assert_int_equal(p.c.reason, FABRIC_DOWN_PROTOCOL);
    pair_stop(&p);
}

/* Everything is freed whenever it is destroyed. */
static void destroying_at_any_time(bool sim)
{
    for (int steps = 0; steps < 120; steps++) {
        struct pair p;
        struct mix m = {0};
        pair_init(&p, sim);
        pair_listen(&p);
        assert_int_equal(fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &p.c, &p.c.conn),
                         0);
        int i = 0;
        for (; i < steps && p.c.ups + p.s.ups < 2; i++)
            net_step(&p.n);
        if (p.c.ups + p.s.ups == 2)
            mix_start(&p, &m);
        for (; i < steps; i++)
            net_step(&p.n);
        struct end s = p.s, c = p.c;
        net_fini(&p.n);
        assert_memory_equal(&s, &p.s, sizeof(s));
        assert_memory_equal(&c, &p.c, sizeof(c));
        mix_free(&m);
    }
}

static void thousand_connections(bool sim)
{
    struct pair p;
    enum { COUNT = 1000 };
    struct rlimit rl = {4096, 4096};
    (void)setrlimit(RLIMIT_NOFILE, &rl);
    pair_init(&p, sim);
    p.n.config[1].max_connections = COUNT;
    pair_listen(&p);
    struct end *e = calloc(COUNT + 1, sizeof(*e));
    struct op *ops = ops_new(COUNT);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &e[i], &e[i].conn),
                         0);
    assert_int_equal(
        fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &e[COUNT], &e[COUNT].conn),
        -EMFILE);
    NET_UNTIL_INT(&p.n, p.s.ups, COUNT);
    for (int i = 0; i < COUNT; i++) {
        NET_UNTIL_INT(&p.n, e[i].ups, 1);
        op_send(&ops[i], "hello", 5);
        assert_int_equal(fabric_post(e[i].conn, &ops[i].op), 0);
    }
    NET_UNTIL_INT(&p.n, p.s.messages, COUNT);
    for (int i = 0; i < COUNT; i++)
        fabric_close(e[i].conn);
    NET_UNTIL_INT(&p.n, p.s.downs, COUNT);
    pair_stop(&p);
    free(e);
    free(ops);
}

static void too_many_connections(bool sim)
{
    struct pair p;
    struct end more = {.close_in_down = true};
    pair_init(&p, sim);
    p.n.config[0].max_connections = 1;
    pair_listen(&p);
    pair_connect(&p, FABRIC_DOMAIN_CLUSTER);
    assert_int_equal(fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &more, &more.conn), 0);
    NET_UNTIL_INT(&p.n, more.downs, 1);
    assert_int_equal(p.s.ups, 1);
    assert_int_equal(COUNTER(&p, 0, conns_refused), 1);
    assert_true(fabric_conn_is_up(p.c.conn));
    pair_stop(&p);
}

/* A process (tcp) or host (sim) that says nothing any more. */
static void silence(bool sim)
{
    struct pair p;
    struct op o;
    pair_init(&p, sim);
    for (int i = 0; i < 2; i++) {
        p.n.config[i].probe_interval_ns = 20 * NS_PER_MS;
        p.n.config[i].probe_timeout_ns = 200 * NS_PER_MS;
    }
    pair_listen(&p);
    pair_connect(&p, FABRIC_DOMAIN_CLUSTER);
    net_idle(&p.n, 600);
    assert_int_equal(p.c.downs + p.s.downs, 0); /* idle is not silent */
    op_send(&o, "hello", 5);
    o.sink[0] = (struct fabric_sge){.base = &p.accepts, .len = 4};
    o.op.sink = o.sink;
    o.op.sink_count = 1;
    assert_int_equal(fabric_post(p.c.conn, &o.op), 0);
    NET_UNTIL_INT(&p.n, p.s.messages, 1);
    if (sim)
        sim_net_host_down(p.n.net, 1);
    else
        net_pause(&p.n, 0, true);
    NET_UNTIL_INT(&p.n, p.c.downs, 1);
    assert_int_equal(p.c.reason, FABRIC_DOWN_TIMEOUT);
    assert_int_equal(o.done, 1);
    assert_int_equal(o.rc, -ENOTCONN);
    if (!sim)
        net_pause(&p.n, 0, false);
    net_stop(&p.n, 0);
    pair_stop(&p);
}

#define BOTH(X)                                                                                              \
    X(handshake_good)                                                                                        \
    X(handshake_bad)                                                                                         \
    X(handshake_versions)                                                                                    \
    X(nobody_listens)                                                                                        \
    X(silent_listener)                                                                                       \
    X(order_both_ways)                                                                                       \
    X(message_lengths)                                                                                       \
    X(back_pressure)                                                                                         \
    X(fetching)                                                                                              \
    X(pushing)                                                                                               \
    X(dropping)                                                                                              \
    X(bad_sinks)                                                                                             \
    X(reading_and_writing)                                                                                   \
    X(access_rights)                                                                                         \
    X(registering)                                                                                           \
    X(peer_destroyed)                                                                                        \
    X(closing)                                                                                               \
    X(close_is_told)                                                                                         \
    X(abandoning)                                                                                            \
    X(closing_in_callbacks)                                                                                  \
    X(killing)                                                                                               \
    X(destroying_at_any_time)                                                                                \
    X(thousand_connections)                                                                                  \
    X(too_many_connections)                                                                                  \
    X(silence)

#define DEFINE(name)                                                                                         \
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
BOTH(DEFINE)

int main(void)
{
#define LIST(name) cmocka_unit_test(name##_tcp), cmocka_unit_test(name##_sim),
    const struct CMUnitTest tests[] = {BOTH(LIST)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
