/* mdc_harness.h: a metadata controller over tcp on this process's loop, and callers that step the loop until
 * they are answered. */
#ifndef CISTERN_TESTS_UNIT_MDC_HARNESS_H
#define CISTERN_TESTS_UNIT_MDC_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "common/list.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/rng.h"
#include "common/status.h"
#include "rdma/rpc.h"
#include "services/mdc/mdc.h"
#include "common/wire/mdc_proto.h"

#define ROUNDS_MAX 200000 /* of the loop, before a wait is given up */

struct world {
    struct loop *loop;
    struct rng rng;
    struct env env, client_env;
    struct uuid cluster;
    struct fabric *fabric, *client_fabric;
    struct meta_sim *disk;
    struct mdc *mdc;
    struct fabric_addr addr;
    int failed;
    uint32_t heartbeat_ms;
    uint64_t confirm_timeout_ns;
};
struct client {
    struct world *w;
    struct rpc_peer *peer;
    bool up, down;
    struct mdc_session_reply session;
    unsigned hints;
    char text[256]; /* of the last error */
};

static inline struct fabric *world_fabric(struct world *w, struct env *env, enum fabric_role role)
{
    struct fabric_config c = {
        .cluster = w->cluster, .role = role, .incarnation = rng_u64(&w->rng), .secret_len = 16};
    struct fabric *f;
    memcpy(c.secret, "0123456789abcdef", 16);
    assert_int_equal(fabric_create_tcp(env, &c, &f), 0);
    env->fabric = f;
    return f;
}

static inline void world_failed(void *user, int rc)
{
    ((struct world *)user)->failed = rc;
}

static inline int world_try_start(struct world *w)
{
    struct mdc_config c = {.cluster = w->cluster,
                           .limits = {.pools = 4, .modules = 16, .partitions = 1024, .volumes = 64},
                           .attachments = 64,
                           .heartbeat_ms = w->heartbeat_ms,
                           .confirm_timeout_ns = w->confirm_timeout_ns,
                           .failed = world_failed,
                           .user = w};
    assert_int_equal(fabric_addr_parse("tcp:127.0.0.1:0", &c.listen), 0);
    w->fabric = world_fabric(w, &w->env, FABRIC_ROLE_MDC);
    assert_int_equal(meta_sim_open(w->disk, &w->env, &c.meta), 0);
    int rc = mdc_create(&w->env, &c, &w->mdc);
    if (rc != 0) {
        meta_close(c.meta);
        fabric_destroy(w->fabric);
        return rc;
    }
    mdc_addr(w->mdc, &w->addr);
    return 0;
}

static inline void world_start(struct world *w)
{
    assert_int_equal(world_try_start(w), 0);
}

static inline void world_stop(struct world *w)
{
    mdc_destroy(w->mdc);
    fabric_destroy(w->fabric);
    w->mdc = NULL;
}

static inline void world_restart(struct world *w)
{
    world_stop(w);
    world_start(w);
}

static inline struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    log_set_level(LOG_ERROR_);
    w->heartbeat_ms = 1000;
    rng_seed(&w->rng, 7);
    assert_int_equal(loop_create_real(NULL, &w->loop), 0);
    w->env = (struct env){.loop = w->loop, .rng = &w->rng, .name = "mdc"};
    w->client_env = (struct env){.loop = w->loop, .rng = &w->rng, .name = "client"};
    w->cluster = rng_uuid(&w->rng);
    assert_int_equal(meta_sim_create(1, 1000, &w->disk), 0);
    w->client_fabric = world_fabric(w, &w->client_env, FABRIC_ROLE_MODULE);
    world_start(w);
    return w;
}

static inline void world_free(struct world *w)
{
    if (w->mdc != NULL)
        world_stop(w);
    fabric_destroy(w->client_fabric);
    meta_sim_destroy(w->disk);
    loop_destroy(w->loop);
    free(w);
}

#define WORLD_UNTIL(w, cond)                                                                                 \
    do {                                                                                                     \
        for (unsigned rounds_ = 0; !(cond); rounds_++) {                                                     \
            assert_true(rounds_ < ROUNDS_MAX);                                                               \
            loop_run_once((w)->loop, 10 * NS_PER_MS);                                                        \
        }                                                                                                    \
    } while (0)

/* ---- clients ---- */

static inline void client_is_up(void *user, struct rpc_peer *peer)
{
    (void)peer;
    ((struct client *)user)->up = true;
}

static inline void client_is_down(void *user, struct rpc_peer *peer, enum fabric_down reason)
{
    (void)peer;
    (void)reason;
    ((struct client *)user)->down = true;
}

static inline void client_notify(void *user, struct rpc_peer *peer, uint16_t method, const void *body,
                                 uint32_t len)
{
    struct mdc_table_hint hint;
    (void)peer;
    assert_int_equal(method, MDC_NOTIFY_TABLE_HINT);
    assert_int_equal(wire_decode(&mdc_table_hint_type, body, len, &hint, NULL), 0);
    ((struct client *)user)->hints++;
}

struct pending {
    struct rpc_call call;
    bool done;
    int rc;
    uint32_t status;
    uint8_t body[RPC_BODY_MAX];
    uint32_t len;
};

static inline void pending_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct pending *p = container_of(call, struct pending, call);
    p->done = true;
    p->rc = result->rc;
    if (result->rc == 0) {
        p->status = result->status;
        p->len = result->body_len;
        memcpy(p->body, result->body, result->body_len);
    }
}

static inline struct pending *client_begin(struct client *c, uint16_t method, const struct wire_type *type,
                                           const void *rq)
{
    struct pending *p = calloc(1, sizeof(*p));
    uint8_t body[RPC_BODY_MAX];
    size_t len;
    assert_non_null(p);
    assert_int_equal(wire_encode(type, rq, body, sizeof(body), &len), 0);
    p->call.method = method;
    p->call.body = body;
    p->call.body_len = (uint32_t)len;
    p->call.done = pending_done;
    assert_int_equal(rpc_call_start(c->peer, &p->call), 0);
    return p;
}

/* Frees p. The status; rep filled when it is OK, c->text when not. */
static inline uint32_t client_end(struct client *c, struct pending *p, const struct wire_type *type,
                                  void *rep)
{
    WORLD_UNTIL(c->w, p->done);
    assert_int_equal(p->rc, 0);
    uint32_t status = p->status;
    struct mdc_error error;
    c->text[0] = 0;
    if (status == STATUS_OK) {
        assert_int_equal(wire_decode(type, p->body, p->len, rep, NULL), 0);
    } else {
        assert_int_equal(wire_decode(&mdc_error_type, p->body, p->len, &error, NULL), 0);
        memcpy(c->text, error.text, sizeof(c->text));
        assert_int_not_equal(c->text[0], 0);
    }
    free(p);
    return status;
}

/* CALL(client, VOLUME_CREATE, mdc_volume_create_request, &rq, mdc_volume_reply, &rep) */
#define CALL(c, NAME, rq_type, rq, rep_type, rep)                                                            \
    client_end(c, client_begin(c, MDC_METHOD_##NAME, &rq_type##_type, rq), &rep_type##_type, rep)

static inline struct client *client_connect(struct world *w)
{
    static const struct rpc_events events = {
        .up = client_is_up, .down = client_is_down, .notify = client_notify};
    struct client *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    c->w = w;
    struct rpc_service service = {.events = &events, .service = c};
    assert_int_equal(rpc_connect(&w->client_env, &w->addr, FABRIC_DOMAIN_CLUSTER, &service, &c->peer), 0);
    WORLD_UNTIL(w, c->up || c->down);
    assert_true(c->up);
    return c;
}

static inline struct client *client_new(struct world *w, const char *name)
{
    struct client *c = client_connect(w);
    struct mdc_session_request rq = {.role = FABRIC_ROLE_ADMIN, .instance = 1};
    snprintf(rq.host, sizeof(rq.host), "host-%s", name);
    snprintf(rq.name, sizeof(rq.name), "%s", name);
    assert_int_equal(CALL(c, SESSION, mdc_session_request, &rq, mdc_session_reply, &c->session), STATUS_OK);
    return c;
}

static inline void client_free(struct client *c)
{
    if (!c->down)
        rpc_close(c->peer);
    for (int i = 0; i < 20; i++)
        loop_run_once(c->w->loop, NS_PER_MS);
    free(c);
}

/* The text must name each of these. */
#define assert_says(c, words)                                                                                \
    do {                                                                                                     \
        if (strstr((c)->text, words) == NULL)                                                                \
            fail_msg("\"%s\" does not say \"%s\"", (c)->text, words);                                        \
    } while (0)

#endif
