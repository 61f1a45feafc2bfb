/*
 * test_fabric_conformance_ends.c: the promises of fabric.h, one body for all providers: one-sided operations,
 * rights, and all the ways in which a connection ends.
 */
#include "fabric_pair.h"

#include <sys/resource.h>

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
    const uint32_t key = fabric_mem_key(mem, p.s.conn);
    for (uint32_t i = 0; i < COUNT; i++) { /* more than any window */
        struct fabric_remote r = {.addr = mem->remote_addr + i * 1000, .len = 1000, .key = key};
        op_data(&ops[i], FABRIC_OP_READ, &r, into + i * 1000, 1000);
        assert_int_equal(fabric_post(p.c.conn, &ops[i].op), 0);
    }
    NET_UNTIL_INT(&p.n, COUNTER(&p, 1, ops_pending), 0);
    assert_memory_equal(into, base, COUNT * 1000);
    if (!net_verbs) /* its device answers, nobody counts */
        assert_int_equal(COUNTER(&p, 0, reads_served), COUNT);
    struct fabric_remote all = {.addr = mem->remote_addr, .len = LEN, .key = key};
    op_data(&ops[0], FABRIC_OP_READ, &all, into, LEN);
    assert_int_equal(fabric_post(p.c.conn, &ops[0].op), 0);
    NET_UNTIL_INT(&p.n, ops[0].done, 1);
    assert_memory_equal(into, base, LEN);
    for (uint32_t i = 0; i < COUNT; i++) {
        struct fabric_remote r = {.addr = mem->remote_addr + i * 5001, .len = 5001, .key = key};
        op_data(&ops[i], FABRIC_OP_WRITE, &r, from + i * 5001, 5001);
        assert_int_equal(fabric_post(p.c.conn, &ops[i].op), 0);
    }
    NET_UNTIL_INT(&p.n, COUNTER(&p, 1, ops_pending), 0);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(ops[i].done * 10 + ops[i].rc, 10);
    assert_memory_equal(base, from, COUNT * 5001);
    if (!net_verbs)
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
                                  .key = fabric_mem_key(mem, p.s.conn) ^ b->key_xor};
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
        struct fabric_remote r = {
            .addr = mem->remote_addr, .len = 4096, .key = fabric_mem_key(mem, p->s.conn)};
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

/* What connections made is gone with them; what stays is made once. */
static void at_rest(bool sim)
{
    struct pair p;
    struct mix m;
    struct fabric_counters first[2], again;
    pair_init(&p, sim);
    pair_listen(&p);
    for (int round = 0; round < 3; round++) {
        pair_connect(&p, FABRIC_DOMAIN_CLUSTER);
        mix_start(&p, &m);
        net_idle(&p.n, 20); /* nobody fetches: a provider that streams holds messages back */
        fabric_close(p.c.conn);
        p.c.conn = NULL;
        NET_UNTIL_INT(&p.n, p.s.downs, round + 1);
        fabric_mem_unregister(m.mem);
        NET_UNTIL_INT(&p.n, COUNTER(&p, 0, conns_open) + COUNTER(&p, 1, conns_open), 0);
        mix_free(&m);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(COUNTER(&p, i, ops_pending) + COUNTER(&p, i, qps) + COUNTER(&p, i, exposures),
                             0);
            assert_int_equal(COUNTER(&p, i, buffers_out), 0);
            fabric_counters_get(p.n.f[i], round == 0 ? &first[i] : &again);
            if (round > 0 && fabric_counters_differ(&first[i], &again))
                fail_msg("end %d: %s is not what it was", i, fabric_counters_differ(&first[i], &again));
        }
        assert_int_equal(COUNTER(&p, 0, downs_peer_closed) + COUNTER(&p, 0, downs_peer_died), round + 1);
    }
    pair_stop(&p);
}

static void thousand_connections(bool sim)
{
    struct pair p;
    enum { COUNT = 1000 };
    struct rlimit rl = {4096, 4096};
    (void)setrlimit(RLIMIT_NOFILE, &rl);
    pair_init(&p, sim);
    p.n.config[1].max_connections = COUNT;
    p.n.config[0].max_unproved = COUNT;
    for (int i = 0; i < 2; i++) /* a device may take a while for so many at once */
        p.n.config[i].connect_timeout_ns = 60 * NS_PER_S;
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

/* Never proves itself: this side's proof gets lost. */
static void (*real_control)(struct fabric_conn *, enum fabric_control_kind, const void *, uint32_t);
static void mute_control(struct fabric_conn *conn, enum fabric_control_kind kind, const void *data,
                         uint32_t len)
{
    if (kind != FABRIC_CONTROL_AUTH)
        real_control(conn, kind, data, len);
}

/* Strangers take no member's place; and the oldest of them makes room when they are many. */
static void strangers(bool sim)
{
    struct pair p;
    enum { COUNT = 4 };
    struct end e[COUNT + 1];
    memset(e, 0, sizeof(e));
    pair_init(&p, sim);
    p.n.config[0].max_connections = 1;
    p.n.config[0].max_unproved = COUNT;
    p.n.config[0].connect_timeout_ns = 100 * NS_PER_S;
    p.n.config[2].connect_timeout_ns = 1000 * NS_PER_S;
    pair_listen(&p);
    net_start(&p.n, 2);
    struct fabric_ops mute = *p.n.f[2]->ops;
    real_control = mute.control;
    mute.control = mute_control;
    p.n.f[2]->ops = &mute;
    for (int i = 0; i < COUNT; i++) {
        e[i].close_in_down = true;
        assert_int_equal(fabric_connect(p.n.f[2], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &e[i], &e[i].conn),
                         0);
        NET_UNTIL_INT(&p.n, COUNTER(&p, 0, conns_unproved), i + 1);
    }
    /* Full of young ones: this one is refused, whoever it is. */
    e[COUNT].close_in_down = true;
    assert_int_equal(
        fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &e[COUNT], &e[COUNT].conn), 0);
    NET_UNTIL_INT(&p.n, e[COUNT].downs, 1);
    /* An eighth of the time is over (the clock cannot be turned, but the limit can). */
    p.n.f[0]->config.connect_timeout_ns = 110 * NS_PER_S;
    for (struct list *n = p.n.f[0]->unproved.next; n != &p.n.f[0]->unproved; n = n->next)
        loop_timer_arm(p.n.env[0].loop, &list_entry(n, struct fabric_conn, unproved)->deadline,
                       90 * NS_PER_S);
    pair_connect(&p, FABRIC_DOMAIN_CLUSTER);
    NET_UNTIL_INT(&p.n, e[0].downs, 1);
    assert_int_equal(e[1].downs + e[2].downs + e[3].downs, 0);
    NET_UNTIL_INT(&p.n, COUNTER(&p, 0, conns_unproved), COUNT - 1);
    assert_int_equal(COUNTER(&p, 0, conns_open), COUNT);
    net_stop(&p.n, 2);
    NET_UNTIL_INT(&p.n, COUNTER(&p, 0, conns_unproved), 0);
    assert_true(fabric_conn_is_up(p.s.conn));
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

/* I/O is to go on 1.5 s after a host vanished: who says nothing is not waited for longer than that. */
static void silence_is_short(bool sim)
{
    struct pair p;
    pair_start(&p, sim, FABRIC_DOMAIN_CLUSTER);
    const struct fabric_config *c = fabric_config_get(p.n.f[0]);
    assert_true(c->probe_interval_ns + c->probe_timeout_ns <= 1500 * NS_PER_MS);
    assert_true(p.c.conn->beat_ms * NS_PER_MS * 3 < c->probe_timeout_ns); /* two may be late */
    pair_stop(&p);
}

/*
 * A peer that takes nothing, while what it sent waits for a buffer here: it may hold what this end needs in
 * order to go on, so it is let go of after a while. (That it is not heard is no sign: who does not read hears
 * nobody.)
 */
static void takes_nothing(bool sim)
{
    struct pair p;
    enum { LEN = 4000000, COUNT = 8 };
    if (sim) /* no packet waits for a process there */
        return;
    pair_init(&p, sim);
    p.n.config[0].probe_interval_ns = 50 * NS_PER_MS;
    p.n.config[0].probe_timeout_ns = 500 * NS_PER_MS;
    pair_listen(&p);
    pair_connect(&p, FABRIC_DOMAIN_CLUSTER);
    unsigned char *blob = pattern(LEN, 1);
    struct op wait, *ops = ops_new(COUNT);
    op_send(&wait, "wait", 4);
    wait.sge[0] = (struct fabric_sge){.base = blob, .len = LEN};
    wait.op.sge = wait.sge;
    wait.op.sge_count = 1;
    assert_int_equal(fabric_post(p.c.conn, &wait.op), 0);
    NET_UNTIL_INT(&p.n, p.s.messages, 1); /* nobody fetches it */
    net_pause(&p.n, 1, true);
    for (int i = 0; i < COUNT; i++) {
        op_send(&ops[i], "take", 4);
        ops[i].sge[0] = (struct fabric_sge){.base = blob, .len = LEN};
        ops[i].op.sge = ops[i].sge;
        ops[i].op.sge_count = 1;
        assert_int_equal(fabric_post(p.s.conn, &ops[i].op), 0);
    }
    NET_UNTIL_INT(&p.n, p.s.downs, 1);
    assert_int_equal(p.s.reason, FABRIC_DOWN_TIMEOUT);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(ops[i].done, 1);
    net_pause(&p.n, 1, false);
    NET_UNTIL_INT(&p.n, p.c.downs, 1);
    pair_stop(&p);
    free(ops);
    free(blob);
}

/* One READ of the first 8 bytes; false: the connection is down. */
static bool read_once(struct pair *p, const struct fabric_mem *mem, uint64_t *into)
{
    struct op o;
    struct fabric_remote r = {.addr = mem->remote_addr, .len = 8, .key = fabric_mem_key(mem, p->s.conn)};
    op_data(&o, FABRIC_OP_READ, &r, into, 8);
    if (p->c.downs || fabric_post(p->c.conn, &o.op) != 0)
        return false;
    NET_UNTIL_INT(&p->n, o.done, 1);
    return o.rc == 0;
}

/* A process that stands still serves its tables on verbs, where the device answers; on tcp it is silent. */
static void tables_of_a_process_that_stands_still(bool sim)
{
    struct pair p;
    uint64_t *table = aligned_alloc(4096, 4096), into = 0;
    struct fabric_mem *mem;
    if (sim) { /* there the host answers, as on verbs, and no process is ever silent */
        free(table);
        return;
    }
    pair_init(&p, sim);
    for (int i = 0; i < 2; i++) {
        p.n.config[i].probe_interval_ns = 50 * NS_PER_MS;
        p.n.config[i].probe_timeout_ns = 600 * NS_PER_MS;
    }
    pair_listen(&p);
    memset(table, 0, 4096);
    assert_int_equal(
        fabric_mem_register(p.n.f[0], FABRIC_DOMAIN_TABLE, table, 4096, FABRIC_ACCESS_REMOTE_READ, &mem), 0);
    pair_connect(&p, FABRIC_DOMAIN_TABLE);
    /* A reader that reads all the time still says that it is there. */
    for (table[0] = 1; table[0] <= 60; table[0]++) {
        assert_true(read_once(&p, mem, &into));
        assert_int_equal(into, table[0]);
        net_idle(&p.n, 20);
    }
    assert_int_equal(p.s.downs, 0);
    net_pause(&p.n, 0, true);
    bool good = true;
    for (int i = 0; i < 100 && good; i++) {
        net_idle(&p.n, 20);
        table[0]++;
        good = read_once(&p, mem, &into);
        assert_true(!good || into == table[0]);
    }
    net_idle(&p.n, 1500); /* and idle */
    good = good && read_once(&p, mem, &into);
    assert_int_equal(good, net_verbs);
    net_pause(&p.n, 0, false);
    net_idle(&p.n, 1500);
    assert_int_equal(p.c.downs + p.s.downs, net_verbs ? 0 : 2);
    if (net_verbs) {
        net_pause(&p.n, 0, true);
        net_idle(&p.n, 1000);
        fabric_mem_unregister(mem);
        net_stop(&p.n, 0); /* it dies in that state */
        NET_UNTIL_INT(&p.n, p.c.downs, 1);
    } else {
        fabric_mem_unregister(mem);
    }
    pair_stop(&p);
    free(table);
}

#define BOTH(X)                                                                                              \
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
    X(strangers)                                                                                             \
    X(at_rest)                                                                                               \
    X(silence)                                                                                               \
    X(silence_is_short)                                                                                      \
    X(takes_nothing)                                                                                         \
    X(tables_of_a_process_that_stands_still)

BOTH(DEFINE)

int main(void)
{
    RUN_ALL(BOTH);
}
