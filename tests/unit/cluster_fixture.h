/*
 * cluster_fixture.h: one cluster object (host 9) and up to two small controllers (hosts 1 and 2) on a
 * simulated network. A fake controller answers sessions and a few calls, and publishes a real table; tests
 * reach into its region.
 */
#ifndef CISTERN_TESTS_UNIT_CLUSTER_FIXTURE_H
#define CISTERN_TESTS_UNIT_CLUSTER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc.h"
#include "common/log.h"
#include "common/rng.h"
#include "common/sim.h"
#include "rdma/fabric_sim.h"
#include "rdma/rpc.h"
#include "services/cluster/cluster.h"

#define FAKES 2
static const struct table_limits fake_limits = {.pools = 4, .modules = 8, .partitions = 2048, .volumes = 64};
static const struct uuid fake_cluster = {{0xc1}};

struct proc {
    struct loop *loop;
    struct fabric *fabric;
    struct rng rng;
    struct env env;
};
struct fake {
    struct proc p;
    bool running, leader;
    uint64_t start;
    struct table table;
    struct fabric_mem *mem;
    struct rpc_listener *listener;
    struct rpc_peer *peers[16]; /* with a session */
    unsigned peer_count, calls, attached;
    uint64_t claim_len; /* table_len to claim; 0 = the truth */
};
struct bed {
    struct sim_world *world;
    struct sim_net *net;
    struct fake fake[FAKES];
    struct proc p;
    struct cluster_config config;
    struct cluster *c;
    unsigned ups, downs, changes;
    uint64_t last_term, last_version;
    bool dead; /* destroyed: no callback may come */
};

static inline void quiet(void *arg, enum log_level level, const char *line)
{
    (void)level;
    if (arg != NULL || getenv("LOUD") != NULL)
        printf("%s\n", line);
}

/* ---- processes ---- */

static inline void proc_start(struct bed *b, struct proc *p, const char *name, uint32_t host,
                              enum fabric_role role)
{
    struct fabric_config fc = {.cluster = fake_cluster, .secret = "sesame", .secret_len = 6, .role = role};
    rng_fill(sim_world_rng(b->world), &fc.incarnation, sizeof(fc.incarnation));
    sim_world_fork_rng(b->world, name, &p->rng);
    assert_int_equal(loop_create_sim(b->world, name, 0, &p->loop), 0);
    p->env = (struct env){.loop = p->loop, .rng = &p->rng, .name = name};
    assert_int_equal(fabric_create_sim(&p->env, b->net, host, &fc, &p->fabric), 0);
    p->env.fabric = p->fabric;
}

static inline void proc_stop(struct proc *p)
{
    fabric_destroy(p->fabric);
    sim_loop_kill(p->loop);
    loop_destroy(p->loop);
}

/* ---- the fake controller ---- */

static inline void fake_reply(struct rpc_request *req, const struct wire_type *type, const void *msg)
{
    uint8_t body[RPC_BODY_MAX];
    size_t len;
    assert_int_equal(wire_encode(type, msg, body, sizeof(body), &len), 0);
    rpc_reply(req, STATUS_OK, body, (uint32_t)len);
}

static inline void fake_session(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    struct fake *m = service;
    struct mdc_session_request request;
    if (!m->leader) {
        rpc_reply(req, STATUS_NOT_LEADER, NULL, 0);
        return;
    }
    assert_int_equal(wire_decode(&mdc_session_request_type, body, len, &request, NULL), 0);
    assert_string_equal(request.host, "host9");
    assert_int_equal(request.instance, 77);
    assert_true(m->peer_count < ARRAY_LEN(m->peers));
    m->peers[m->peer_count++] = rpc_request_peer(req);
    const struct table_header *h = table_head(&m->table);
    const struct mdc_session_reply reply = {
        .cluster = fake_cluster,
        .term = h->term,
        .version = h->version,
        .table_addr = m->mem->remote_addr,
        .table_key = m->mem->key,
        .table_len = m->claim_len != 0 ? m->claim_len : m->table.bytes,
        .heartbeat_ms = 100,
        .start = m->start,
    };
    fake_reply(req, &mdc_session_reply_type, &reply);
}

/* VOLUME_GET: by the volume's name: "silent" is never answered, "busy" is refused, "garbage" is no msgpack.
 */
static inline void fake_volume_get(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    struct fake *m = service;
    struct mdc_name_request request;
    struct mdc_volume_reply reply = {.volume = {.size_bytes = 4096, .state = TABLE_VOLUME_READY}};
    assert_int_equal(wire_decode(&mdc_name_request_type, body, len, &request, NULL), 0);
    m->calls++;
    if (!m->leader) {
        rpc_reply(req, STATUS_NOT_LEADER, NULL, 0);
    } else if (strcmp(request.name, "busy") == 0) {
        const struct mdc_error error = {.text = "volume busy is open on host1: close it there first"};
        uint8_t buf[512];
        size_t n;
        assert_int_equal(wire_encode(&mdc_error_type, &error, buf, sizeof(buf), &n), 0);
        rpc_reply(req, STATUS_BUSY, buf, (uint32_t)n);
    } else if (strcmp(request.name, "garbage") == 0) {
        rpc_reply(req, STATUS_OK, "\xc1", 1);
    } else if (strcmp(request.name, "silent") != 0) {
        memcpy(reply.volume.name, request.name, sizeof(reply.volume.name));
        fake_reply(req, &mdc_volume_reply_type, &reply);
    }
}

static inline void fake_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct fake *m = service;
    (void)reason;
    for (unsigned i = 0; i < m->peer_count; i++)
        if (m->peers[i] == peer)
            m->peers[i--] = m->peers[--m->peer_count];
}

static inline struct fabric_addr fake_addr(unsigned i)
{
    struct fabric_addr addr;
    char text[32];
    snprintf(text, sizeof(text), "sim:%u:7000", i + 1);
    assert_int_equal(fabric_addr_parse(text, &addr), 0);
    return addr;
}

/* m->p runs: publishes an empty table and listens. */
static inline void fake_serve(struct fake *m, const struct fabric_addr *addr, uint64_t term)
{
    static const struct rpc_method methods[] = {
        {.number = MDC_METHOD_SESSION, .name = "session", .handler = fake_session},
        {.number = MDC_METHOD_VOLUME_GET, .name = "volume_get", .handler = fake_volume_get},
    };
    static const struct rpc_events events = {.down = fake_down};
    const struct rpc_service service = {
        .methods = methods, .method_count = ARRAY_LEN(methods), .events = &events, .service = m};
    m->leader = m->running = true;
    m->start = rng_u64(&m->p.rng);
    m->table.bytes = table_region_bytes(&fake_limits);
    m->table.region = aligned_alloc(4096, round_up(m->table.bytes, 4096));
    assert_non_null(m->table.region);
    table_format(m->table.region, &fake_limits, &fake_cluster, term, m->start);
    assert_int_equal(fabric_mem_register(m->p.fabric, FABRIC_DOMAIN_TABLE, m->table.region, m->table.bytes,
                                         FABRIC_ACCESS_REMOTE_READ, &m->mem),
                     0);
    assert_int_equal(rpc_listen(&m->p.env, addr, &service, 1u << FABRIC_ROLE_VBS, &m->listener), 0);
}

static inline void fake_start(struct bed *b, unsigned i, uint64_t term)
{
    const struct fabric_addr addr = fake_addr(i);
    memset(&b->fake[i], 0, sizeof(b->fake[i]));
    proc_start(b, &b->fake[i].p, i == 0 ? "mdc1" : "mdc2", i + 1, FABRIC_ROLE_MDC);
    fake_serve(&b->fake[i], &addr, term);
}

static inline void fake_stop(struct fake *m)
{
    if (!m->running)
        return;
    m->running = false;
    rpc_listener_destroy(m->listener, true);
    fabric_mem_unregister(m->mem);
    if (loop_is_sim(m->p.loop))
        proc_stop(&m->p);
    else
        fabric_destroy(m->p.fabric);
    free(m->table.region);
}

static inline void fake_publish(struct fake *m, struct rng *rng)
{
    const uint32_t index = (uint32_t)rng_below(rng, fake_limits.partitions);
    struct table_partition p = {.pool = 1, .index = index, .epoch = rng_u64(rng)};
    struct table_volume v = {.id = rng_uuid(rng), .pool = 1, .family = rng_u64(rng)};
    if (rng_chance(rng, 1, 4))
        table_publish(&m->table, TABLE_VOLUME, index % fake_limits.volumes, &v);
    else
        table_publish(&m->table, TABLE_PARTITION, index, &p);
}

static inline void fake_hint(struct fake *m)
{
    const struct mdc_table_hint hint = {.term = table_head(&m->table)->term,
                                        .version = table_head(&m->table)->version};
    uint8_t body[64];
    size_t len;
    assert_int_equal(wire_encode(&mdc_table_hint_type, &hint, body, sizeof(body), &len), 0);
    for (unsigned i = 0; i < m->peer_count; i++)
        assert_int_equal(rpc_notify(m->peers[i], MDC_NOTIFY_TABLE_HINT, body, (uint32_t)len), 0);
}

/* ---- the cluster under test ---- */

static inline void on_session_up(void *user, const struct mdc_session_reply *reply)
{
    struct bed *b = user;
    assert_false(b->dead);
    assert_true(cluster_session_is_up(b->c));
    assert_int_equal(reply->heartbeat_ms, 100);
    b->ups++;
}
static inline void on_session_down(void *user)
{
    struct bed *b = user;
    assert_false(b->dead);
    assert_false(cluster_session_is_up(b->c));
    b->downs++;
}
/* The copy has each record that the controller last changed at or before the copy's version. */
static inline bool copy_is_complete(const struct table *t, const struct fake *m)
{
    const struct table_header *h = table_head(t), *theirs = table_head(&m->table);
    for (enum table_kind k = 0; k < TABLE_KINDS; k++) {
        for (uint32_t i = 0; i < theirs->section[k].used; i++) {
            const void *record = table_record(&m->table, k, i);
            const bool due = table_record_check(k, record) && table_record_version(k, record) <= h->version;
            if (due && memcmp(record, table_record(t, k, i), table_record_bytes(k)) != 0)
                return false;
        }
    }
    return true;
}
/* Whatever happens, the copy never goes back, is never torn, and lacks nothing. */
static inline void on_table_changed(void *user, const struct table *t)
{
    struct bed *b = user;
    const struct table_header *h = table_head(t);
    assert_false(b->dead);
    assert_ptr_equal(t, cluster_table(b->c));
    assert_int_equal(table_header_check(h, t->bytes), 0);
    assert_true(h->term > b->last_term || (h->term == b->last_term && h->version > b->last_version));
    for (enum table_kind k = 0; k < TABLE_KINDS; k++)
        for (uint32_t i = 0; i < h->section[k].used; i++)
            assert_true(table_record_check(k, table_record(t, k, i)));
    for (unsigned i = 0; i < FAKES; i++)
        if (b->fake[i].running && b->fake[i].start == h->start)
            assert_true(copy_is_complete(t, &b->fake[i]));
    b->last_term = h->term;
    b->last_version = h->version;
    b->changes++;
}

static inline void bed_cluster(struct bed *b)
{
    static const struct cluster_events events = {on_session_up, on_session_down, on_table_changed};
    proc_start(b, &b->p, "under-test", 9, FABRIC_ROLE_VBS);
    assert_int_equal(cluster_create(&b->p.env, &b->config, &events, b, &b->c), 0);
}

static inline void bed_init(struct bed *b, uint64_t seed, unsigned mdcs)
{
    memset(b, 0, sizeof(*b));
    log_set_sink(quiet, NULL);
    assert_int_equal(sim_world_create(seed, &b->world), 0);
    assert_int_equal(sim_net_create(b->world, &b->net), 0);
    b->config = (struct cluster_config){
        .mdc_count = mdcs, .role = FABRIC_ROLE_VBS, .instance = 77, .host = "host9", .name = "t"};
    for (unsigned i = 0; i < mdcs; i++)
        b->config.mdc[i] = fake_addr(i);
}

static inline void bed_free(struct bed *b)
{
    b->dead = true;
    cluster_destroy(b->c);
    if (b->p.loop != NULL)
        proc_stop(&b->p);
    for (unsigned i = 0; i < FAKES; i++)
        fake_stop(&b->fake[i]);
    sim_net_destroy(b->net);
    sim_world_destroy(b->world);
}

static inline void run_for(struct bed *b, uint64_t ns)
{
    sim_world_run_until(b->world, sim_world_now(b->world) + ns);
}

/* The copy equals the controller's table, record by record, and finds all its volumes. */
static inline bool same_table(struct bed *b, const struct fake *m)
{
    const struct table *t = cluster_table(b->c);
    const struct table_header *h = table_head(&m->table);
    if (t == NULL || table_head(t)->term != h->term || table_head(t)->version != h->version)
        return false;
    for (enum table_kind k = 0; k < TABLE_KINDS; k++)
        for (uint32_t i = 0; i < h->section[k].used; i++)
            if (memcmp(table_record(t, k, i), table_record(&m->table, k, i), table_record_bytes(k)) != 0)
                return false;
    for (uint32_t i = 0; i < h->section[TABLE_VOLUME].used; i++) {
        const struct table_volume *v = table_record(t, TABLE_VOLUME, i);
        if (!uuid_is_zero(&v->id) && table_volume_by_id(t, &v->id) != v)
            return false;
    }
    return true;
}

/* Steps until the copy is the controller's, for 10 s of the world's time at most. */
static inline bool settles(struct bed *b, struct fake *m)
{
    const uint64_t end = sim_world_now(b->world) + 10 * NS_PER_S;
    while (!same_table(b, m) || !cluster_session_is_up(b->c)) {
        if (sim_world_now(b->world) > end)
            return false;
        run_for(b, NS_PER_MS);
    }
    return true;
}

static inline struct cluster_counters counters(const struct bed *b)
{
    struct cluster_counters n;
    cluster_counters_get(b->c, &n);
    return n;
}

/* ---- a call ---- */
struct tried {
    struct cluster_call call;
    struct mdc_name_request request;
    struct mdc_volume_reply reply;
    unsigned done;
    int rc;
};
static inline void on_called(struct cluster_call *call, int rc)
{
    struct tried *t = container_of(call, struct tried, call);
    t->done++;
    t->rc = rc;
    assert_true((rc == 0) == (call->error_text[0] == 0));
}
static inline void try_call(struct bed *b, struct tried *t, const char *name, uint64_t timeout_ns, bool retry)
{
    memset(t, 0, sizeof(*t));
    snprintf(t->request.name, sizeof(t->request.name), "%s", name);
    t->call = (struct cluster_call){.method = MDC_METHOD_VOLUME_GET,
                                    .request_type = &mdc_name_request_type,
                                    .reply_type = &mdc_volume_reply_type,
                                    .request = &t->request,
                                    .reply = &t->reply,
                                    .timeout_ns = timeout_ns,
                                    .retry = retry,
                                    .done = on_called};
    assert_int_equal(cluster_call_start(b->c, &t->call), 0);
    assert_int_equal(t->done, 0);
    memset(&t->request, 0xff, sizeof(t->request)); /* it was read */
}

/* ---- the one bed of a test program ---- */
static struct bed bed;
static struct rng rng;

static inline int setup(void **state)
{
    (void)state;
    rng_seed(&rng, 5);
    bed_init(&bed, 11, 1);
    return 0;
}
static inline int setup_two(void **state)
{
    (void)state;
    rng_seed(&rng, 5);
    bed_init(&bed, 12, 2);
    return 0;
}
static inline int teardown(void **state)
{
    (void)state;
    bed_free(&bed);
    return 0;
}

static inline void publish(struct fake *m, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        fake_publish(m, &rng);
}

static inline void begin(unsigned changes)
{
    fake_start(&bed, 0, 3);
    publish(&bed.fake[0], changes);
    bed_cluster(&bed);
    assert_true(settles(&bed, &bed.fake[0]));
}

#define T(f)  cmocka_unit_test_setup_teardown(f, setup, teardown)
#define T2(f) cmocka_unit_test_setup_teardown(f, setup_two, teardown)

#endif
