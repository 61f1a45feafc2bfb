/* serve.c: rpc in and out: the method table, sessions, heartbeats, hints. */
#include "services/mdc/mdc_internal.h"
#include "services/mdc/mdc_metrics.h"

#include <stdlib.h>
#include <string.h>

/* ---- the method table ---- */

#define MDC_METHOD(num, name_, handler, request, reply)                                                      \
    static uint32_t decide_##handler(struct mdc_decision *d, const void *rq, void *rep)                      \
    {                                                                                                        \
        return mdc_op_##handler(d, rq, rep);                                                                 \
    }                                                                                                        \
    _Static_assert(sizeof(struct request) <= MDC_STRUCT_MAX && sizeof(struct reply) <= MDC_STRUCT_MAX,       \
                   #name_);
#define MDC_NOTIFY(num, name, msg)
#include "common/wire/mdc.def"
#undef MDC_METHOD

const struct mdc_method_info mdc_methods[] = {
#define MDC_METHOD(num, name_, handler, request, reply)                                                      \
    {.number = num,                                                                                          \
     .name = #name_,                                                                                         \
     .request_type = &request##_type,                                                                        \
     .reply_type = &reply##_type,                                                                            \
     .decide = decide_##handler},
#include "common/wire/mdc.def"
#undef MDC_METHOD
};
const size_t mdc_method_count = ARRAY_LEN(mdc_methods);

static void serve(void *service, struct rpc_request *req, const struct mdc_method_info *method,
                  const void *body, uint32_t len);

/* The place of a method in the table, by name. */
enum {
#define MDC_METHOD(num, name_, handler, request, reply) PLACE_##name_,
#include "common/wire/mdc.def"
#undef MDC_METHOD
};

#define MDC_METHOD(num, name_, handler, request, reply)                                                      \
    static void serve_##handler(void *service, struct rpc_request *req, const void *body, uint32_t len)      \
    {                                                                                                        \
        serve(service, req, &mdc_methods[PLACE_##name_], body, len);                                         \
    }
#include "common/wire/mdc.def"
#undef MDC_METHOD

static const struct rpc_method rpc_methods[] = {
#define MDC_METHOD(num, name_, handler_, request, reply)                                                     \
    {.number = num, .name = #name_, .handler = serve_##handler_},
#include "common/wire/mdc.def"
#undef MDC_METHOD
};
#undef MDC_NOTIFY

/* ---- heartbeats: at once, so that a slow commit makes nobody look dead ---- */

static void serve_heartbeat(struct mdc *m, struct mdc_job *job)
{
    struct mdc_session *session = rpc_peer_user(rpc_request_peer(job->req));
    struct mdc_decision d = {.state = m->state,
                             .tx = &m->tx,
                             .now_ns = loop_now_ns(m->env->loop),
                             .session = session,
                             .error = &job->error};
    if (session == NULL || !m->started) {
        mdc_reply_status(job->req, STATUS_PROTOCOL, "a heartbeat before the session began");
        free(job);
        return;
    }
    session->heard_ns = d.now_ns;
    job->status = job->method->decide(&d, job->request, job->reply);
    list_init(&job->link);
    mdc_reply_complete(m, job->method, job->req, job->reply);
    mdc_job_reply(m, job);
    mdc_check_waiting(m);
    mdc_kick(m);
}

/* ---- requests ---- */

static size_t align_16(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

static void serve(void *service, struct rpc_request *req, const struct mdc_method_info *method,
                  const void *body, uint32_t len)
{
    struct mdc *m = service;
    char why[128] = "";
    if (m->failed) {
        mdc_reply_status(req, STATUS_IO, "the metadata store failed; start the metadata controller again");
        return;
    }
    size_t head = align_16(sizeof(struct mdc_job)), request = align_16(method->request_type->size);
    struct mdc_job *job = calloc(1, head + request + method->reply_type->size);
    if (job == NULL) {
        mdc_reply_status(req, STATUS_NO_MEMORY, "the metadata controller is out of memory; try again");
        return;
    }
    job->method = method;
    job->req = req;
    job->request = (char *)job + head;
    job->reply = (char *)job + head + request;
    bool empty = len == 0 && method->request_type == &mdc_empty_type;
    if (!empty && wire_decode(method->request_type, body, len, job->request, why) != 0) {
        log_warn(m->env, "request not understood", "method=%s why='%s'", method->name, why);
        mdc_reply_status(req, STATUS_PROTOCOL, why);
        free(job);
        return;
    }
    if (method->number == MDC_METHOD_MODULE_HEARTBEAT || method->number == MDC_METHOD_GATEWAY_HEARTBEAT)
        serve_heartbeat(m, job);
    else
        mdc_job_submit(m, job);
}

void mdc_reply_complete(struct mdc *m, const struct mdc_method_info *method, struct rpc_request *req,
                        void *reply)
{
    const struct mdc_state *s = m->state;
    switch (method->number) {
    case MDC_METHOD_SESSION: {
        struct mdc_session_reply *r = reply;
        r->term = s->term;
        r->version = s->version;
        r->table_addr = m->mem->remote_addr;
        struct fabric_conn *conn = rpc_peer_conn(rpc_request_peer(req));
        r->table_key = conn ? fabric_mem_key(m->mem, conn) : m->mem->key;
        r->table_len = m->table.bytes;
        r->start = m->start;
        break;
    }
    case MDC_METHOD_MODULE_REGISTER:
        ((struct mdc_module_register_reply *)reply)->term = s->term;
        ((struct mdc_module_register_reply *)reply)->version = s->version;
        break;
    case MDC_METHOD_MODULE_HEARTBEAT:
        ((struct mdc_module_heartbeat_reply *)reply)->term = s->term;
        ((struct mdc_module_heartbeat_reply *)reply)->version = s->version;
        break;
    case MDC_METHOD_MODULE_REPORT:
        ((struct mdc_module_report_reply *)reply)->term = s->term;
        ((struct mdc_module_report_reply *)reply)->version = s->version;
        break;
    case MDC_METHOD_VOLUME_OPEN:
        ((struct mdc_volume_open_reply *)reply)->term = s->term;
        ((struct mdc_volume_open_reply *)reply)->version = s->version;
        break;
    case MDC_METHOD_CLUSTER_STATUS:
        ((struct mdc_cluster_status_reply *)reply)->term = s->term;
        ((struct mdc_cluster_status_reply *)reply)->version = s->version;
        break;
    default:
        break;
    }
}

/* ---- sessions ---- */

struct mdc_session *mdc_session_begin(struct mdc *m, struct rpc_request *req,
                                      const struct mdc_session_request *rq)
{
    struct rpc_peer *peer = rpc_request_peer(req);
    struct mdc_session *session = rpc_peer_user(peer);
    if (session != NULL)
        return session; /* a repeat */
    session = mdc_session_add(m->state, rq, loop_now_ns(m->env->loop));
    if (session == NULL)
        return NULL;
    session->peer = peer;
    rpc_peer_set_user(peer, session);
    return session;
}

static void figures(void *service, struct metrics_snapshot *out)
{
    mdc_metrics(service, out);
}

static void peer_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct mdc *m = service;
    struct mdc_session *session = rpc_peer_user(peer);
    if (session == NULL)
        return;
    log_debug(m->env, "session ended", "host=%s name=%s why='%s'", session->host, session->name,
              fabric_down_text(reason));
    rpc_peer_set_user(peer, NULL);
    bool reset = reason == FABRIC_DOWN_PEER_DIED || reason == FABRIC_DOWN_PEER_CLOSED;
    if (mdc_op_session_lost(m->state, session, reset, loop_now_ns(m->env->loop)))
        loop_timer_arm(m->env->loop, &m->lost, SESSION_GRACE_NS + NS_PER_MS);
    mdc_session_remove(m->state, session);
}

void mdc_send_hint(struct loop_task *t)
{
    struct mdc *m = container_of(t, struct mdc, hint_task);
    struct mdc_table_hint hint = {.term = m->state->term, .version = m->state->version};
    uint8_t body[128];
    size_t len;
    MUST(wire_encode(&mdc_table_hint_type, &hint, body, sizeof(body), &len) == 0);
    m->hinted_version = hint.version;
    list_for_each(n, &m->state->sessions)
    {
        /* A hint that cannot be sent is no loss: tables are read on a period too. */
        (void)rpc_notify(list_entry(n, struct mdc_session, link)->peer, MDC_NOTIFY_TABLE_HINT, body,
                         (uint32_t)len);
    }
}

int mdc_serve(struct mdc *m)
{
    static const struct rpc_events events = {.down = peer_down};
    struct rpc_service service = {.methods = rpc_methods,
                                  .method_count = ARRAY_LEN(rpc_methods),
                                  .events = &events,
                                  .service = m,
                                  .figures = figures};
    uint32_t roles = 1u << FABRIC_ROLE_MDC | 1u << FABRIC_ROLE_MODULE | 1u << FABRIC_ROLE_VBS |
                     1u << FABRIC_ROLE_CLIENT | 1u << FABRIC_ROLE_ADMIN;
    return rpc_listen(m->env, &m->config.listen, &service, roles, &m->listener);
}
