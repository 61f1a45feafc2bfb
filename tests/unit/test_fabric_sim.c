/* test_fabric_sim.c: what the simulated network models beyond the common contract. */
#include "fabric_fixture.h"

struct end {
    struct fabric_conn *conn;
    int ups, downs, messages;
    enum fabric_down reason;
    uint64_t down_ns;
    uint32_t next;
    int disorder;
    struct net *n;
    struct fabric_remote source;
};
static void on_up(struct fabric_conn *c, const struct fabric_peer *p)
{
    struct end *e = fabric_conn_user(c);
    (void)p;
    e->conn = c;
    e->ups++;
}
static void on_message(struct fabric_conn *c, const struct fabric_msg *m)
{
    struct end *e = fabric_conn_user(c);
    uint32_t number;
    memcpy(&number, m->data, sizeof(number));
    e->disorder += number != e->next;
    e->next = number + 1;
    e->messages++;
    e->source = m->source;
}
static void on_down(struct fabric_conn *c, enum fabric_down reason)
{
    struct end *e = fabric_conn_user(c);
    e->downs++;
    e->reason = reason;
    e->down_ns = sim_world_now(e->n->world);
    e->conn = NULL;
    fabric_close(c);
}
static const struct fabric_conn_events events = {on_up, on_message, on_down};
static const struct fabric_conn_events *on_accept(void *user, const struct fabric_peer *p, void **conn_user)
{
    (void)p;
    *conn_user = user;
    return &events;
}

struct pair {
    struct net n;
    struct end s, c;
    struct fabric_addr addr;
};
static void pair_start(struct pair *p, uint64_t seed)
{
    struct fabric_listener *l;
    memset(p, 0, sizeof(*p));
    net_init(&p->n, true, seed);
    p->s.n = p->c.n = &p->n;
    for (int i = 0; i < 2; i++) {
        p->n.config[i].probe_interval_ns = 100 * NS_PER_MS;
        p->n.config[i].probe_timeout_ns = 2 * NS_PER_S;
        net_start(&p->n, i);
    }
    struct fabric_accept accept = {on_accept, &p->s};
    net_addr(&p->n, 0, 7100, &p->addr);
    assert_int_equal(fabric_listen(p->n.f[0], &p->addr, &accept, &l), 0);
    assert_int_equal(fabric_listen(p->n.f[0], &p->addr, &accept, &l), -EADDRINUSE);
    assert_int_equal(fabric_connect(p->n.f[1], &p->addr, FABRIC_DOMAIN_CLUSTER, &events, &p->c, &p->c.conn),
                     0);
    NET_UNTIL_INT(&p->n, p->s.ups + p->c.ups, 2);
}

struct op {
    struct fabric_op op;
    struct fabric_sge sge;
    int done, rc;
    uint32_t number;
};
static void op_done(struct fabric_op *op, int rc)
{
    struct op *o = (struct op *)(void *)op;
    o->done++;
    o->rc = rc;
}
static void send_number(struct pair *p, struct op *o, uint32_t number)
{
    memset(o, 0, sizeof(*o));
    o->number = number;
    o->op.kind = FABRIC_OP_SEND;
    o->op.header = &o->number;
    o->op.header_len = sizeof(o->number);
    o->op.done = op_done;
    assert_int_equal(fabric_post(p->c.conn, &o->op), 0);
}
static void one_sided(struct fabric_conn *c, struct op *o, enum fabric_op_kind kind,
                      const struct fabric_remote *r, void *base)
{
    memset(o, 0, sizeof(*o));
    o->op.kind = kind;
    o->op.remote = *r;
    o->sge = (struct fabric_sge){.base = base, .len = r->len};
    o->op.sge = &o->sge;
    o->op.sge_count = 1;
    o->op.done = op_done;
    assert_int_equal(fabric_post(c, &o->op), 0);
}
static struct fabric_mem *expose(struct pair *p, void *base, size_t len, struct fabric_remote *r)
{
    struct fabric_mem *mem;
    assert_int_equal(fabric_mem_register(p->n.f[0], FABRIC_DOMAIN_CLUSTER, base, len,
                                         FABRIC_ACCESS_REMOTE_READ | FABRIC_ACCESS_REMOTE_WRITE, &mem),
                     0);
    *r = (struct fabric_remote){.addr = mem->remote_addr, .len = (uint32_t)len, .key = mem->key};
    return mem;
}
static size_t count_of(const unsigned char *b, size_t len, unsigned char value)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += b[i] == value;
    return n;
}

#define LEN 65536
static unsigned char there[LEN], here[LEN];

static void writes_land_in_pieces(void **state)
{
    int torn = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct pair p;
        struct op o;
        struct fabric_remote r;
        pair_start(&p, seed);
        memset(there, 0, LEN);
        memset(here, 1, LEN);
        expose(&p, there, LEN, &r);
        one_sided(p.c.conn, &o, FABRIC_OP_WRITE, &r, here);
        bool seen = false;
        while (!o.done) {
            size_t n = count_of(there, LEN, 1);
            seen = seen || (n > 0 && n < LEN);
            net_step(&p.n);
        }
        torn += seen;
        assert_int_equal(count_of(there, LEN, 1), LEN);
        net_fini(&p.n);
    }
    assert_true(torn > 5 && torn <= 20);
    (void)state;
}

/* A read of 8 bytes never tears; a longer one may. */
static void reads_race_with_the_target(void **state)
{
    int torn = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct pair p;
        struct op o, small;
        struct fabric_remote r;
        static uint64_t word;
        pair_start(&p, seed);
        expose(&p, there, LEN, &r);
        memset(there, 0, LEN);
        one_sided(p.c.conn, &o, FABRIC_OP_READ, &r, here);
        struct fabric_remote eight = {.addr = r.addr, .len = 8, .key = r.key};
        one_sided(p.c.conn, &small, FABRIC_OP_READ, &eight, &word);
        unsigned char value = 0;
        while (!o.done || !small.done) {
            memset(there, ++value, LEN);
            net_step(&p.n);
        }
        size_t same = count_of(here, LEN, here[0]);
        torn += same != LEN;
        assert_int_equal(count_of((unsigned char *)&word, 8, (unsigned char)word), 8);
        net_fini(&p.n);
    }
    assert_true(torn > 5);
    (void)state;
}

static void fetch_takes_what_is_there_then(void **state)
{
    struct pair p;
    struct op send, fetch;
    (void)state;
    pair_start(&p, 3);
    memset(here, 1, LEN);
    memset(&send, 0, sizeof(send));
    send.op = (struct fabric_op){.kind = FABRIC_OP_SEND, .header = "head", .header_len = 4, .done = op_done};
    send.sge = (struct fabric_sge){.base = here, .len = LEN};
    send.op.sge = &send.sge;
    send.op.sge_count = 1;
    assert_int_equal(fabric_post(p.c.conn, &send.op), 0);
    NET_UNTIL_INT(&p.n, p.s.messages, 1);
    memset(here, 2, LEN); /* the client changes the page meanwhile */
    memset(there, 0, LEN);
    one_sided(p.s.conn, &fetch, FABRIC_OP_FETCH, &p.s.source, there);
    NET_UNTIL_INT(&p.n, fetch.done, 1);
    assert_int_equal(count_of(there, LEN, 2), LEN);
    fabric_retire(&send.op);
    NET_UNTIL_INT(&p.n, send.done, 1);
    net_fini(&p.n);
}

static void paused_processes_are_served(void **state)
{
    struct pair p;
    struct op read, write, send;
    struct fabric_remote r;
    (void)state;
    pair_start(&p, 4);
    expose(&p, there, LEN, &r);
    memset(there, 7, LEN);
    net_pause(&p.n, 0, true);
    one_sided(p.c.conn, &read, FABRIC_OP_READ, &r, here);
    send_number(&p, &send, 0);
    NET_UNTIL_INT(&p.n, read.done + send.done, 2);
    assert_int_equal(count_of(here, LEN, 7), LEN);
    memset(here, 8, LEN);
    one_sided(p.c.conn, &write, FABRIC_OP_WRITE, &r, here);
    NET_UNTIL_INT(&p.n, write.done, 1);
    assert_int_equal(count_of(there, LEN, 8), LEN);
    net_idle(&p.n, 20000);
    assert_int_equal(p.c.downs + p.s.messages, 0);
    net_pause(&p.n, 0, false);
    NET_UNTIL_INT(&p.n, p.s.messages, 1);
    net_fini(&p.n);
}

/* What was posted before a disconnect may land after its requester saw it, but never after the target did. */
static void late_landings(void **state)
{
    int late = 0, whole = 0, nothing = 0;
    for (uint64_t seed = 1; seed <= 400; seed++) {
        struct pair p;
        struct op o;
        struct fabric_remote r;
        pair_start(&p, seed);
        expose(&p, there, LEN, &r);
        struct sim_net_options options;
        sim_net_get_options(p.n.net, &options);
        options.latency_max_ns = 3 * NS_PER_MS;
        options.notice_max_ns = 4 * NS_PER_MS;
        sim_net_set_options(p.n.net, &options);
        memset(there, 0, LEN);
        memset(here, 1, LEN);
        one_sided(p.c.conn, &o, FABRIC_OP_WRITE, &r, here);
        for (uint64_t i = 0; i < seed % 5; i++)
            net_step(&p.n);
        sim_net_break(p.n.net, 2);
        size_t at_client_down = 0, at_server_down = 0;
        while (p.c.downs + p.s.downs < 2) {
            net_step(&p.n);
            if (!p.c.downs)
                at_client_down = count_of(there, LEN, 1);
            if (p.c.downs && o.done)
                memset(here, 0xee, LEN); /* it is the owner's again: must not be looked at */
            if (!p.s.downs)
                at_server_down = count_of(there, LEN, 1);
        }
        net_idle(&p.n, 100);
        assert_int_equal(o.done, 1);
        assert_int_equal(count_of(there, LEN, 0xee), 0);
        assert_int_equal(count_of(there, LEN, 1), at_server_down);
        late += p.c.down_ns < p.s.down_ns && at_server_down > at_client_down;
        whole += at_server_down == LEN;
        nothing += at_server_down == 0;
        net_fini(&p.n);
    }
    assert_true(late > 10);
    assert_true(whole > 10);
    assert_true(nothing > 10);
    (void)state;
}

static void cuts_and_heals(void **state)
{
    struct pair p;
    static struct op o[100];
    (void)state;
    for (int both = 0; both < 2; both++) {
        pair_start(&p, 5);
        for (uint32_t i = 0; i < 50; i++)
            send_number(&p, &o[i], i);
        for (int i = 0; i < 20; i++)
            net_step(&p.n);
        sim_net_cut(p.n.net, 2, 1, both);
        for (uint32_t i = 50; i < 100; i++)
            send_number(&p, &o[i], i);
        net_idle(&p.n, 300);
        assert_true(p.s.messages < 100);
        assert_int_equal(p.s.downs + p.c.downs, 0);
        sim_net_heal(p.n.net, 2, 1, both);
        NET_UNTIL_INT(&p.n, p.s.messages, 100);
        assert_int_equal(p.s.disorder, 0);
        net_idle(&p.n, 10000);
        assert_int_equal(p.s.downs + p.c.downs, 0);
        /* for longer than the hardware tries */
        sim_net_cut(p.n.net, 1, 2, both);
        send_number(&p, &o[0], 100);
        net_idle(&p.n, 700);
        assert_int_equal(p.c.downs, 1);
        assert_int_equal(p.c.reason, FABRIC_DOWN_TIMEOUT);
        assert_int_equal(p.s.messages, both ? 100 : 101); /* it came; only its answer did not */
        assert_int_equal(o[0].rc, -ENOTCONN);
        net_idle(&p.n, 3000);
        assert_int_equal(p.s.downs, 1);
        /* and a new connection does not come up before it is healed */
        assert_int_equal(fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &p.c, &p.c.conn),
                         0);
        net_idle(&p.n, 500);
        assert_int_equal(p.c.ups, 1);
        sim_net_heal_all(p.n.net);
        NET_UNTIL_INT(&p.n, p.c.ups + p.s.ups, 4);
        net_fini(&p.n);
    }
}

static void deaths(void **state)
{
    struct pair p;
    (void)state;
    /* a process: its kernel tells */
    pair_start(&p, 6);
    net_idle(&p.n, 100);
    uint64_t at = sim_world_now(p.n.world);
    sim_loop_kill(p.n.env[0].loop);
    net_stop(&p.n, 0);
    NET_UNTIL_INT(&p.n, p.c.downs, 1);
    assert_int_equal(p.c.reason, FABRIC_DOWN_PEER_DIED);
    assert_true(p.c.down_ns - at >= NS_PER_MS && p.c.down_ns - at < 60 * NS_PER_MS);
    net_fini(&p.n);
    /* a host: nobody tells */
    pair_start(&p, 7);
    net_idle(&p.n, 100);
    at = sim_world_now(p.n.world);
    sim_net_host_down(p.n.net, 1);
    sim_loop_kill(p.n.env[0].loop);
    net_stop(&p.n, 0);
    NET_UNTIL_INT(&p.n, p.c.downs, 1);
    assert_int_equal(p.c.reason, FABRIC_DOWN_TIMEOUT);
    assert_true(p.c.down_ns - at >= 2 * NS_PER_S && p.c.down_ns - at < 2200 * NS_PER_MS);
    assert_int_equal(fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &p.c, &p.c.conn), 0);
    NET_UNTIL_INT(&p.n, p.c.downs, 2);
    assert_int_equal(p.c.reason, FABRIC_DOWN_UNREACHABLE);
    /* it is back, without the service, then with */
    sim_net_host_up(p.n.net, 1);
    assert_int_equal(fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &p.c, &p.c.conn), 0);
    NET_UNTIL_INT(&p.n, p.c.downs, 3);
    assert_int_equal(p.c.reason, FABRIC_DOWN_REFUSED);
    net_fini(&p.n);
    /* a host that was away so shortly that nobody gave up */
    pair_start(&p, 8);
    sim_net_host_down(p.n.net, 1);
    sim_loop_kill(p.n.env[0].loop);
    net_stop(&p.n, 0);
    sim_net_host_up(p.n.net, 1);
    at = sim_world_now(p.n.world);
    NET_UNTIL_INT(&p.n, p.c.downs, 1);
    assert_int_equal(p.c.reason, FABRIC_DOWN_PEER_DIED);
    assert_true(p.c.down_ns - at < 200 * NS_PER_MS);
    net_fini(&p.n);
}

/* A storm of everything; returns a digest of what was seen and when. */
static uint64_t storm(uint64_t seed)
{
    struct pair p;
    static struct op o[300];
    struct fabric_remote r;
    struct rng rng;
    uint64_t digest = 0;
    uint32_t number = 0;
    pair_start(&p, seed);
    rng_seed(&rng, seed);
    expose(&p, there, LEN, &r);
    struct sim_net_options options;
    sim_net_get_options(p.n.net, &options);
    options.break_num = 1;
    options.break_den = 300;
    sim_net_set_options(p.n.net, &options);
    for (int i = 0; i < 300; i++) {
        memset(&o[i], 0, sizeof(o[i]));
        if (!p.c.conn && p.c.downs == p.c.ups) {
            number = 0;
            p.s.next = 0;
            assert_int_equal(
                fabric_connect(p.n.f[1], &p.addr, FABRIC_DOMAIN_CLUSTER, &events, &p.c, &p.c.conn), 0);
        }
        bool up = p.c.conn && fabric_conn_is_up(p.c.conn);
        if (up && rng_chance(&rng, 1, 2))
            send_number(&p, &o[i], number++);
        else if (up)
            one_sided(p.c.conn, &o[i], rng_chance(&rng, 1, 2) ? FABRIC_OP_READ : FABRIC_OP_WRITE, &r, here);
        for (uint64_t k = rng_below(&rng, 40); k > 0; k--)
            net_step(&p.n);
        digest = digest * 31 + sim_world_now(p.n.world) + (uint64_t)p.s.messages * 7 + (uint64_t)p.c.downs;
    }
    struct fabric_counters c;
    fabric_counters_get(p.n.f[1], &c);
    NET_UNTIL_INT(&p.n, (fabric_counters_get(p.n.f[1], &c), c.ops_pending), 0);
    for (int i = 0; i < 300; i++)
        assert_int_equal(o[i].done, o[i].op.done != NULL);
    assert_int_equal(p.s.disorder, 0);
    net_fini(&p.n);
    return digest;
}
static void one_seed_one_run(void **state)
{
    uint64_t last = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        uint64_t a = storm(seed);
        assert_int_equal(a, storm(seed));
        assert_int_not_equal(a, last);
        last = a;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_land_in_pieces),
        cmocka_unit_test(reads_race_with_the_target),
        cmocka_unit_test(fetch_takes_what_is_there_then),
        cmocka_unit_test(paused_processes_are_served),
        cmocka_unit_test(late_landings),
        cmocka_unit_test(cuts_and_heals),
        cmocka_unit_test(deaths),
        cmocka_unit_test(one_seed_one_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
