/*
 * fuzz_script.h: inputs that are scripts, for targets that drive a service over its connections. A script is
 * read byte by byte; behind its end all is zero. A request starts as what a well-meaning peer would send,
 * then the script changes bytes of it: a script of few changes goes deep, one of many tries the checks. With
 * FUZZ_LOG in the environment the services log, and answers are printed.
 */
#ifndef CISTERN_TESTS_FUZZ_SCRIPT_H
#define CISTERN_TESTS_FUZZ_SCRIPT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc.h"
#include "common/log.h"
#include "common/rng.h"
#include "common/sim.h"
#include "rdma/fabric_sim.h"
#include "rdma/rpc.h"

struct script {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t script_u8(struct script *s)
{
    if (s->left == 0)
        return 0;
    s->left--;
    return *s->at++;
}

static inline uint64_t script_bytes(struct script *s, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)script_u8(s) << (8 * i);
    return v;
}

/* Bits 0 and 1 of the first byte: how many bytes change; bits 2 and 3: the length does, too. Returns the
 * length. */
static inline uint32_t script_damage(struct script *s, uint8_t *body, uint32_t len, uint32_t cap)
{
    const uint8_t how = script_u8(s);
    for (unsigned n = how & 3u; n > 0 && len > 0; n--) {
        const uint32_t at = (uint32_t)script_bytes(s, 2) % len;
        body[at] ^= script_u8(s);
    }
    if ((how & 12u) == 12u) {
        const uint32_t other = (uint32_t)script_bytes(s, 2) % (cap + 1);
        for (uint32_t i = len; i < other; i++)
            body[i] = (uint8_t)(how + i);
        return other;
    }
    return len;
}

/* ---- processes and connections ---- */
struct script_proc {
    struct loop *loop;
    struct rng rng;
    struct env env;
};

static inline void script_no_log(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    if (getenv("FUZZ_LOG") != NULL)
        fprintf(stderr, "%d %s\n", (int)level, line);
}

static inline struct uuid script_cluster(void)
{
    return (struct uuid){{0xcc, 0xcc, 0xcc, 0xcc}};
}

static inline void script_proc_start(struct script_proc *p, struct sim_world *world, struct sim_net *net,
                                     const char *name, uint32_t host, enum fabric_role role,
                                     uint64_t incarnation)
{
    log_set_sink(script_no_log, NULL);
    MUST(loop_create_sim(world, name, 0, &p->loop) == 0);
    sim_world_fork_rng(world, name, &p->rng);
    p->env = (struct env){.loop = p->loop, .rng = &p->rng, .name = name};
    struct fabric_config config = {.cluster = script_cluster(),
                                   .secret = "a secret of a test",
                                   .secret_len = 18,
                                   .role = role,
                                   .incarnation = incarnation};
    MUST(fabric_create_sim(&p->env, net, host, &config, &p->env.fabric) == 0);
}

static inline void script_proc_end(struct script_proc *p)
{
    fabric_destroy(p->env.fabric);
    loop_destroy(p->loop);
}

static inline struct fabric_addr script_addr(uint32_t host, uint16_t port)
{
    return (struct fabric_addr){.provider = FABRIC_PROVIDER_SIM, .port = port, .ip = {(uint8_t)host}};
}

#define SCRIPT_CALLS     24u
#define SCRIPT_DATA      (256u * KIB)
#define SCRIPT_CONNS_MAX 3u

/* A connection of the script's to the service, and its calls under way. */
struct script_conn {
    struct rpc_peer *peer;
    bool up;
    struct script_call {
        struct rpc_call call;
        struct script_conn *conn;
        struct fabric_sge sge;
        bool busy;
        uint16_t method;
        void (*answered)(struct script_call *c, const struct rpc_result *result); /* may be NULL */
        uint64_t user;
        uint8_t body[RPC_BODY_MAX];
    } calls[SCRIPT_CALLS];
    unsigned answers;
};
/* What payloads come from and go to; never looked at. */
static uint8_t script_data[2][SCRIPT_DATA] __attribute__((aligned(4096)));

static inline void script_conn_up(void *service, struct rpc_peer *peer)
{
    (void)peer;
    ((struct script_conn *)service)->up = true;
}

static inline void script_conn_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct script_conn *c = service;
    (void)reason;
    if (peer != c->peer)
        return;
    c->up = false;
    c->peer = NULL;
}

static inline void script_connect(struct script_conn *c, struct script_proc *from, struct sim_world *world,
                                  const struct fabric_addr *to, enum fabric_domain domain)
{
    static const struct rpc_events events = {.up = script_conn_up, .down = script_conn_down};
    struct rpc_service service = {.events = &events, .service = c};
    MUST(c->peer == NULL);
    MUST(rpc_connect(&from->env, to, domain, &service, &c->peer) == 0);
    for (unsigned i = 0; i < 100 && !c->up && c->peer != NULL; i++)
        sim_world_run_until(world, sim_world_now(world) + NS_PER_MS);
}

static inline void script_disconnect(struct script_conn *c)
{
    if (c->peer != NULL)
        rpc_abandon(c->peer);
    c->peer = NULL;
    c->up = false;
    for (unsigned i = 0; i < SCRIPT_CALLS; i++)
        c->calls[i].busy = false;
}

static inline void script_answered(struct rpc_call *call, const struct rpc_result *result)
{
    struct script_call *c = container_of(call, struct script_call, call);
    c->busy = false;
    c->conn->answers++;
    if (getenv("FUZZ_LOG") != NULL)
        fprintf(stderr, "method %u: %s\n", c->method, result->rc ? "lost" : status_name(result->status));
    if (c->answered != NULL)
        c->answered(c, result);
}

/* NULL: too many are under way, or the connection is gone. */
static inline struct script_call *script_call_new(struct script_conn *c, uint16_t method)
{
    for (unsigned i = 0; i < SCRIPT_CALLS && c->up; i++) {
        struct script_call *call = &c->calls[i];
        if (call->busy)
            continue;
        call->call = (struct rpc_call){.method = method, .body = call->body, .done = script_answered};
        call->conn = c;
        call->method = method;
        call->answered = NULL;
        return call;
    }
    return NULL;
}

/* The call's payload (sink false) or where the answer's goes. wrong_crc: of the payload. */
static inline void script_payload(struct script_call *c, uint32_t bytes, bool sink, bool wrong_crc)
{
    if (bytes == 0)
        return;
    c->sge = (struct fabric_sge){.base = script_data[sink], .len = (uint32_t)min_u64(bytes, SCRIPT_DATA)};
    if (sink) {
        c->call.sink = &c->sge;
        c->call.sink_count = 1;
        return;
    }
    c->call.source = &c->sge;
    c->call.source_count = 1;
    c->call.source_crc = crc32c(script_data[0], c->sge.len) + wrong_crc;
}

static inline void script_call_start(struct script_call *c, uint32_t len)
{
    c->call.body_len = len;
    c->busy = rpc_call_start(c->conn->peer, &c->call) == 0;
}

#endif
