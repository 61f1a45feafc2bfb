/*
 * fabric_pair.h: two endpoints, a connection between them and what each end saw: for the conformance tests,
 * which run one body over every provider.
 */
#ifndef CISTERN_TESTS_FABRIC_PAIR_H
#define CISTERN_TESTS_FABRIC_PAIR_H

#include "fabric_fixture.h"

/* One end of a connection, and what it saw. */
struct end {
    struct net *n;
    struct fabric_conn *conn;
    int ups, downs, messages, dones, refused_done;
    enum fabric_down reason;
    bool nobody;
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

static inline void op_done(struct fabric_op *op, int rc)
{
    struct op *o = (struct op *)(void *)op;
    o->done++;
    o->rc = rc;
}

static inline void on_up(struct fabric_conn *c, const struct fabric_peer *peer)
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
static inline void on_message(struct fabric_conn *c, const struct fabric_msg *m)
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
static inline void on_down(struct fabric_conn *c, enum fabric_down reason)
{
    struct end *e = fabric_conn_user(c);
    e->downs++;
    e->reason = reason;
    e->nobody = fabric_conn_nobody(c);
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
static inline const struct fabric_conn_events *on_accept(void *user, const struct fabric_peer *peer,
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
static inline void pair_listen(struct pair *p)
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
static inline void pair_init(struct pair *p, bool sim)
{
    memset(p, 0, sizeof(*p));
    net_init(&p->n, sim, 7);
    p->s.n = p->c.n = &p->n;
    p->s.close_in_down = p->c.close_in_down = true;
}
static inline void pair_connect(struct pair *p, enum fabric_domain domain)
{
    int ups = p->s.ups + p->c.ups;
    assert_int_equal(fabric_connect(p->n.f[1], &p->addr, domain, &events, &p->c, &p->c.conn), 0);
    NET_UNTIL_INT(&p->n, p->s.ups + p->c.ups, ups + 2);
}
static inline void pair_start(struct pair *p, bool sim, enum fabric_domain domain)
{
    pair_init(p, sim);
    pair_listen(p);
    pair_connect(p, domain);
}
static inline uint64_t counter(struct pair *p, int i, size_t offset)
{
    struct fabric_counters c;
    if (!p->n.f[i])
        return 0;
    fabric_counters_get(p->n.f[i], &c);
    return *(uint64_t *)(void *)((char *)&c + offset);
}
#define COUNTER(p, i, name) counter(p, i, offsetof(struct fabric_counters, name))
/* At rest equal at start. */
static inline void pair_stop(struct pair *p)
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

static inline void op_send(struct op *o, const void *data, uint32_t len)
{
    memset(o, 0, sizeof(*o));
    o->op.kind = FABRIC_OP_SEND;
    o->op.header = data;
    o->op.header_len = len;
    o->op.done = op_done;
}
static inline void op_data(struct op *o, enum fabric_op_kind kind, const struct fabric_remote *remote,
                           void *base, uint32_t len)
{
    memset(o, 0, sizeof(*o));
    o->op.kind = kind;
    o->op.remote = *remote;
    o->sge[0] = (struct fabric_sge){.base = base, .len = len};
    o->op.sge = o->sge;
    o->op.sge_count = 1;
    o->op.done = op_done;
}
static inline unsigned char *pattern(size_t len, unsigned seed)
{
    unsigned char *b = malloc(len);
    for (size_t i = 0; i < len; i++)
        b[i] = (unsigned char)(i * 31 + (i >> 8) * 7 + seed);
    return b;
}

static inline struct op *ops_new(int count)
{
    struct op *ops = calloc((size_t)count, sizeof(*ops));
    assert_non_null(ops);
    return ops;
}

/* Each body becomes a test per provider; verbs runs by itself, where there is a device. */
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
    }                                                                                                        \
    static void name##_verbs(void **state)                                                                   \
    {                                                                                                        \
        (void)state;                                                                                         \
        net_verbs = true;                                                                                    \
        name(false);                                                                                         \
    }
#define LIST(name)       cmocka_unit_test(name##_tcp), cmocka_unit_test(name##_sim),
#define LIST_VERBS(name) cmocka_unit_test(name##_verbs),
#define RUN_ALL(BOTH)                                                                                        \
    const struct CMUnitTest tests[] = {BOTH(LIST)};                                                          \
    const struct CMUnitTest verbs_tests[] = {BOTH(LIST_VERBS)};                                              \
    if (getenv("CISTERN_TEST_FILTER"))                                                                       \
        cmocka_set_test_filter(getenv("CISTERN_TEST_FILTER"));                                               \
    if (getenv(NET_RDMA_ENV))                                                                                \
        return cmocka_run_group_tests(verbs_tests, NULL, NULL);                                              \
    print_message("[  SKIPPED ] verbs: " NET_RDMA_ENV " names no RDMA device (rdma.* tests run it)\n");      \
    return cmocka_run_group_tests(tests, NULL, NULL)

#endif
