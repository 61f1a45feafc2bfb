/* rpc_serve.c: serving: dispatch by number, requests held back, payloads in, replies out. */
#include "rdma/rpc_internal.h"

#include "common/crc.h"
#include "common/metrics.h"
#include "common/pool.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REQUESTS_DEFAULT 1024u

static void server_task(struct loop_task *t);

int rpc_server_create(struct env *env, const struct rpc_service *service, struct rpc_server **out)
{
    for (size_t i = 1; i < service->method_count; i++)
        if (service->methods[i - 1].number >= service->methods[i].number)
            return -EINVAL;
    struct rpc_server *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->env = env;
    s->service = *service;
    if (!s->service.max_requests)
        s->service.max_requests = MAX_REQUESTS_DEFAULT;
    s->refs = 1;
    list_init(&s->held);
    list_init(&s->free);
    loop_task_init(&s->task, server_task);
    *out = s;
    return 0;
}

void rpc_server_put(struct rpc_server *s)
{
    if (--s->refs)
        return;
    loop_task_cancel(s->env->loop, &s->task);
    for (struct list *n; (n = list_pop_front(&s->free));)
        free(container_of(n, struct rpc_request, server_link));
    free(s);
}

static const struct rpc_method *method_find(const struct rpc_service *s, uint16_t number)
{
    size_t lo = 0, hi = s->method_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->methods[mid].number == number)
            return &s->methods[mid];
        if (s->methods[mid].number < number)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* ---- requests' lives ---- */

static struct rpc_request *request_create(struct rpc_peer *peer)
{
    struct rpc_server *s = peer->server;
    struct list *n = list_pop_front(&s->free);
    struct rpc_request *req = n ? container_of(n, struct rpc_request, server_link) : malloc(sizeof(*req));
    if (!req)
        return NULL;
    memset(req, 0, offsetof(struct rpc_request, fetch_sge));
    list_init(&req->server_link);
    list_init(&req->orphan_link);
    req->peer = peer;
    list_push_back(&peer->requests, &req->link);
    peer->request_count++;
    peer->unanswered++;
    return req;
}

/* The last of it has ended. The peer may go with it. */
static void request_settle(struct rpc_request *req)
{
    struct rpc_peer *peer = req->peer;
    if (!req->replied || req->fetch_busy || req->push_busy || req->fetch_due || req->sent_due)
        return;
    rpc_peer_hold(peer);
    list_remove(&req->link);
    list_push_front(&peer->server->free, &req->server_link);
    peer->request_count--;
    rpc_peer_release(peer);
}

/* A part of the figures, of this moment; the next part is of a later one. */
static void figures_reply(struct rpc_request *req, const void *body, uint32_t body_len)
{
    const struct rpc_service *service = &req->peer->server->service;
    struct env *env = req->peer->env;
    struct metrics_snapshot *s;
    struct rpc_figures head = {0};
    char text[RPC_BODY_MAX];
    if (body_len != 0 && body_len != sizeof(head)) {
        rpc_reply(req, STATUS_INVALID, NULL, 0);
        return;
    }
    if (metrics_snapshot_create(&s) != 0) {
        rpc_reply(req, STATUS_NO_MEMORY, NULL, 0);
        return;
    }
    if (body_len != 0)
        memcpy(&head, body, sizeof(head));
    uint32_t after = le32toh(head.after);
    if (service->figures)
        service->figures(service->service, s);
    fabric_metrics(env->fabric, env->loop, s);
    const size_t len = metrics_lines(s, &after, text + sizeof(head), sizeof(text) - sizeof(head));
    metrics_snapshot_destroy(s);
    head.after = htole32(after);
    memcpy(text, &head, sizeof(head));
    rpc_reply(req, STATUS_OK, text, (uint32_t)(sizeof(head) + len));
}

/* The methods that every service has. */
static void house_method(struct rpc_request *req, const void *body, uint32_t body_len)
{
    char text[RPC_BODY_MAX];
    switch (req->method) {
    case RPC_METHOD_PING:
        rpc_reply(req, STATUS_OK, body, body_len);
        break;
    case RPC_METHOD_FIGURES:
        figures_reply(req, body, body_len);
        break;
    case RPC_METHOD_COUNTERS:
        body_len = (uint32_t)fabric_counters_text(req->peer->env->fabric, text, sizeof(text));
        rpc_reply(req, STATUS_OK, text, body_len);
        break;
    default:
        rpc_reply(req, req->peer->house_only ? STATUS_DENIED : STATUS_NOT_SUPPORTED, NULL, 0);
    }
}

static void request_begin(struct rpc_request *req, const void *body, uint32_t body_len)
{
    struct rpc_server *s = req->peer->server;
    const struct rpc_method *m = req->peer->house_only ? NULL : method_find(&s->service, req->method);
    s->busy++;
    if (!m)
        house_method(req, body, body_len);
    else if (body_len < m->body_min)
        rpc_reply(req, STATUS_INVALID, NULL, 0);
    else
        m->handler(s->service.service, req, body, body_len);
}

static void server_task(struct loop_task *t)
{
    struct rpc_server *s = container_of(t, struct rpc_server, task);
    s->refs++;
    while (!list_empty(&s->held) && s->busy < s->service.max_requests) {
        struct rpc_request *req = container_of(list_pop_front(&s->held), struct rpc_request, server_link);
        struct rpc_peer *peer = req->peer;
        struct rpc_msg *held = req->held;
        req->held = NULL;
        rpc_peer_hold(peer);
        request_begin(req, held->bytes, req->held_len);
        if (peer->msg_count) /* the handler did not abandon the peer */
            rpc_msg_put(held);
        rpc_peer_release(peer);
    }
    rpc_server_put(s);
}

static void request_hold_back(struct rpc_request *req, const void *body, uint32_t body_len)
{
    struct rpc_peer *peer = req->peer;
    req->held = rpc_msg_get(peer, body_len);
    if (!req->held) {
        peer->server->busy++;
        rpc_reply(req, STATUS_NO_MEMORY, NULL, 0);
        return;
    }
    memcpy(req->held->bytes, body, body_len);
    req->held_len = body_len;
    list_push_back(&peer->server->held, &req->server_link);
}

void rpc_serve_request(struct rpc_peer *peer, const struct rpc_header *h, const void *body,
                       const struct fabric_msg *m)
{
    struct rpc_server *s = peer->server;
    bool allowed = peer->unanswered < RPC_WINDOW && peer->msg_count < RPC_MSGS_MAX;
    struct rpc_request *req = allowed ? request_create(peer) : NULL;
    if (!req) {
        rpc_peer_kill(peer, FABRIC_DOWN_PROTOCOL);
        return;
    }
    req->xid = h->xid;
    req->method = h->method;
    req->payload_crc = h->payload_crc;
    req->source = m->source;
    req->sink = m->sink;
    if (s->busy >= s->service.max_requests || !list_empty(&s->held))
        request_hold_back(req, body, h->body_len);
    else
        request_begin(req, body, h->body_len);
}

/* ---- the connection goes ---- */

static void request_unhold(struct rpc_request *req)
{
    list_remove(&req->server_link);
    rpc_msg_put(req->held);
    req->held = NULL;
}

void rpc_serve_lost(struct rpc_peer *peer)
{
    list_for_each_safe(n, &peer->requests)
    {
        struct rpc_request *req = list_entry(n, struct rpc_request, link);
        if (!req->held)
            continue;
        request_unhold(req);
        req->replied = true;
        peer->unanswered--;
        request_settle(req);
    }
}

void rpc_serve_forget(struct rpc_peer *peer)
{
    struct rpc_server *s = peer->server;
    for (struct list *n; (n = list_pop_front(&peer->requests));) {
        struct rpc_request *req = list_entry(n, struct rpc_request, link);
        if (req->held)
            request_unhold(req);
        else if (!req->replied)
            s->busy--;
        list_remove(&req->orphan_link);
        list_push_front(&s->free, &req->server_link);
    }
    peer->request_count = peer->unanswered = 0;
    if (s && !list_empty(&s->held))
        loop_defer(s->env->loop, &s->task);
}

/* Callbacks that are owed although no op runs. */
static void request_orphan(struct rpc_request *req)
{
    if (list_unlinked(&req->orphan_link))
        list_push_back(&req->peer->orphans, &req->orphan_link);
    rpc_peer_defer(req->peer);
}

void rpc_serve_run_orphans(struct rpc_peer *peer)
{
    struct list *n;
    while ((n = list_pop_front(&peer->orphans))) {
        struct rpc_request *req = container_of(n, struct rpc_request, orphan_link);
        bool fetch_due = req->fetch_due, sent_due = req->sent_due;
        void (*fetched)(void *, int) = req->fetched;
        void *fetched_arg = req->fetched_arg, *sent_arg = req->sent_arg;
        void (*sent)(void *) = req->sent;
        req->fetch_due = req->sent_due = false;
        request_settle(req);
        if (fetch_due)
            fetched(fetched_arg, -ENOTCONN);
        if (sent_due)
            sent(sent_arg);
    }
}

/* ---- what handlers call ---- */

struct rpc_peer *rpc_request_peer(const struct rpc_request *req)
{
    return req->peer;
}

bool rpc_request_alive(const struct rpc_request *req)
{
    return rpc_peer_is_up(req->peer);
}

uint32_t rpc_request_payload_len(const struct rpc_request *req)
{
    return req->source.len;
}

uint32_t rpc_request_payload_crc(const struct rpc_request *req)
{
    return req->payload_crc;
}

uint32_t rpc_request_sink_len(const struct rpc_request *req)
{
    return req->sink.len;
}

void *rpc_request_user(const struct rpc_request *req)
{
    return req->user;
}

void rpc_request_set_user(struct rpc_request *req, void *user)
{
    req->user = user;
}

static uint32_t sge_crc(const struct fabric_sge *sge, unsigned count)
{
    uint32_t crc = 0;
    for (unsigned i = 0; i < count; i++)
        crc = crc32c_extend(crc, sge[i].base, sge[i].len);
    return crc;
}

static void fetch_done(struct fabric_op *op, int rc)
{
    struct rpc_request *req = container_of(op, struct rpc_request, fetch);
    struct rpc_peer *peer = req->peer;
    void (*fetched)(void *, int) = req->fetched;
    void *arg = req->fetched_arg;
    if (rc == 0 && sge_crc(req->fetch_sge, op->sge_count) != req->payload_crc)
        rc = -EBADMSG;
    req->fetch_busy = false;
    rpc_peer_hold(peer);
    request_settle(req);
    fetched(arg, rc);
    rpc_peer_release(peer);
}

static uint64_t sge_sum(const struct fabric_sge *sge, unsigned count)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += sge[i].len;
    return total;
}

int rpc_request_fetch(struct rpc_request *req, const struct fabric_sge *sge, unsigned count,
                      void (*done)(void *arg, int rc), void *arg)
{
    if (req->fetch_used || req->replied || !req->source.len || count > FABRIC_SGE_MAX ||
        sge_sum(sge, count) != req->source.len)
        return -EINVAL;
    req->fetch_used = true;
    req->fetched = done;
    req->fetched_arg = arg;
    memcpy(req->fetch_sge, sge, count * sizeof(*sge));
    req->fetch = (struct fabric_op){.kind = FABRIC_OP_FETCH, .sge_count = count, .sge = req->fetch_sge};
    req->fetch.remote = req->source;
    req->fetch.done = fetch_done;
    int rc = req->peer->conn ? fabric_post(req->peer->conn, &req->fetch) : -ENOTCONN;
    if (rc == 0) {
        req->fetch_busy = true;
        return 0;
    }
    if (rc != -ENOTCONN)
        rpc_peer_kill(req->peer, FABRIC_DOWN_PROTOCOL);
    req->fetch_due = true;
    request_orphan(req);
    return 0;
}

static void push_done(struct fabric_op *op, int rc)
{
    (void)rc;
    struct rpc_request *req = container_of(op, struct rpc_request, push);
    struct rpc_peer *peer = req->peer;
    void (*sent)(void *) = req->sent;
    void *arg = req->sent_arg;
    req->push_busy = false;
    rpc_peer_hold(peer);
    request_settle(req);
    if (sent)
        sent(arg);
    rpc_peer_release(peer);
}

/* 0, or -errno: nothing is under way then. */
static int push_start(struct rpc_request *req, const struct fabric_sge *sge, unsigned count)
{
    memcpy(req->push_sge, sge, count * sizeof(*sge));
    req->push = (struct fabric_op){.kind = FABRIC_OP_PUSH, .sge_count = count, .sge = req->push_sge};
    req->push.remote = req->sink;
    req->push.done = push_done;
    int rc = fabric_post(req->peer->conn, &req->push);
    req->push_busy = rc == 0;
    return rc;
}

/* What the reply takes back from us: one of the two, and no source that is still being fetched. */
static const struct fabric_remote *reply_ends(const struct rpc_request *req)
{
    if (req->sink.len)
        return &req->sink;
    return req->source.len && !req->fetch_busy ? &req->source : NULL;
}

static int reply_send(struct rpc_request *req, const struct rpc_header *h, const void *body)
{
    struct rpc_msg *msg = rpc_msg_get(req->peer, (uint32_t)sizeof(*h) + h->body_len);
    if (!msg)
        return -ENOMEM;
    memcpy(msg->bytes, h, sizeof(*h));
    if (h->body_len)
        memcpy(msg->bytes + sizeof(*h), body, h->body_len);
    return rpc_msg_send(msg, (uint32_t)sizeof(*h) + h->body_len, reply_ends(req));
}

/* The request counts no more: the next one may begin. */
static void request_answered(struct rpc_request *req)
{
    struct rpc_server *s = req->peer->server;
    MUST(!req->replied);
    req->replied = true;
    req->peer->unanswered--;
    s->busy--;
    if (!list_empty(&s->held))
        loop_defer(s->env->loop, &s->task);
}

void rpc_reply_payload(struct rpc_request *req, uint32_t status, const void *body, uint32_t body_len,
                       const struct fabric_sge *sge, unsigned count, uint32_t payload_crc,
                       void (*sent)(void *arg), void *arg)
{
    struct rpc_peer *peer = req->peer;
    struct rpc_header h = {
        .magic = RPC_MAGIC, .kind = RPC_REPLY, .version = RPC_VERSION, .method = req->method};
    uint64_t total = sge_sum(sge, count);
    MUST(body_len <= RPC_BODY_MAX && count <= FABRIC_SGE_MAX);
    rpc_peer_hold(peer);
    request_answered(req);
    req->sent = sent;
    req->sent_arg = arg;
    if (total > req->sink.len) { /* the peer gave less room than it asked for */
        status = STATUS_INVALID;
        body_len = 0;
        total = 0;
    }
    h.xid = req->xid;
    h.status = status;
    h.body_len = body_len;
    h.payload_len = (uint32_t)total;
    h.payload_crc = total ? payload_crc : 0;
    if (rpc_peer_is_up(peer)) {
        if (req->source.len && !req->fetch_used)
            fabric_drop(peer->conn, &req->source);
        int rc = total ? push_start(req, sge, count) : 0;
        if (rc == 0)
            rc = reply_send(req, &h, body);
        if (rc && rc != -ENOTCONN) /* a reply that cannot be sent must not be waited for */
            rpc_peer_kill(peer, FABRIC_DOWN_PROTOCOL);
    }
    if (sent && !req->push_busy) {
        req->sent_due = true;
        request_orphan(req);
    }
    request_settle(req);
    rpc_peer_release(peer);
}

void rpc_reply(struct rpc_request *req, uint32_t status, const void *body, uint32_t body_len)
{
    rpc_reply_payload(req, status, body, body_len, NULL, 0, 0, NULL, NULL);
}
