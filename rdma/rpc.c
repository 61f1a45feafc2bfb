/* rpc.c: connections with rpc on them, messages out and in, listeners. */
#include "rdma/rpc_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- message buffers ---- */

struct rpc_msg *rpc_msg_get(struct rpc_peer *peer, uint32_t len)
{
    bool small = len <= RPC_SMALL_BYTES;
    uint32_t room = small ? RPC_SMALL_BYTES : FABRIC_MESSAGE_MAX;
    struct list *n = list_pop_front(small ? &peer->free_small : &peer->free_large);
    struct rpc_msg *msg;
    MUST(len <= room);
    if (n) {
        msg = list_entry(n, struct rpc_msg, link);
        *(small ? &peer->small_kept : &peer->large_kept) -= 1;
    } else {
        msg = calloc(1, sizeof(*msg) + room);
        if (!msg)
            return NULL;
        msg->room = room;
        msg->peer = peer;
    }
    msg->call = NULL;
    list_push_back(&peer->msgs, &msg->link);
    peer->msg_count++;
    return msg;
}

void rpc_msg_put(struct rpc_msg *msg)
{
    struct rpc_peer *peer = msg->peer;
    bool small = msg->room == RPC_SMALL_BYTES;
    uint32_t *kept = small ? &peer->small_kept : &peer->large_kept;
    list_remove(&msg->link);
    peer->msg_count--;
    if (*kept >= (small ? RPC_SMALL_KEPT : RPC_LARGE_KEPT)) {
        free(msg);
        return;
    }
    (*kept)++;
    list_push_front(small ? &peer->free_small : &peer->free_large, &msg->link);
}

static void msg_done(struct fabric_op *op, int rc)
{
    struct rpc_msg *msg = container_of(op, struct rpc_msg, op);
    struct rpc_peer *peer = msg->peer;
    struct rpc_call *call = msg->call;
    rpc_peer_hold(peer);
    rpc_msg_put(msg);
    if (call)
        rpc_call_msg_done(call, rc);
    rpc_peer_release(peer);
}

int rpc_msg_send(struct rpc_msg *msg, uint32_t len, const struct fabric_remote *ends)
{
    struct rpc_peer *peer = msg->peer;
    msg->op.kind = FABRIC_OP_SEND;
    msg->op.header = msg->bytes;
    msg->op.header_len = len;
    msg->op.done = msg_done;
    msg->op.ends = ends ? *ends : (struct fabric_remote){0};
    if (!msg->call) {
        msg->op.sge_count = msg->op.sink_count = 0;
        msg->op.sge = msg->op.sink = NULL;
    }
    int rc = peer->conn ? fabric_post(peer->conn, &msg->op) : -ENOTCONN;
    if (rc)
        rpc_msg_put(msg);
    return rc;
}

static void free_all(struct list *l)
{
    for (struct list *n; (n = list_pop_front(l));)
        free(list_entry(n, struct rpc_msg, link));
}

/* ---- peers ---- */

static void peer_free(struct rpc_peer *peer)
{
    loop_task_cancel(peer->env->loop, &peer->task);
    list_remove(&peer->link);
    free_all(&peer->msgs);
    free_all(&peer->free_small);
    free_all(&peer->free_large);
    slots_free(&peer->slots);
    if (peer->server)
        rpc_server_put(peer->server);
    free(peer);
}

void rpc_peer_hold(struct rpc_peer *peer)
{
    peer->holds++;
}

void rpc_peer_release(struct rpc_peer *peer)
{
    MUST(peer->holds > 0);
    peer->holds--;
    if (peer->gone && !peer->holds && !peer->call_count && !peer->request_count && !peer->msg_count)
        peer_free(peer);
}

void rpc_peer_defer(struct rpc_peer *peer)
{
    loop_defer(peer->env->loop, &peer->task);
}

static void peer_task(struct loop_task *t)
{
    struct rpc_peer *peer = container_of(t, struct rpc_peer, task);
    rpc_peer_hold(peer);
    rpc_calls_run_ending(peer);
    rpc_serve_run_orphans(peer);
    rpc_peer_release(peer);
}

void rpc_peer_kill(struct rpc_peer *peer, enum fabric_down reason)
{
    if (peer->conn)
        fabric_kill(peer->conn, reason);
}

struct rpc_peer *rpc_peer_create(struct env *env, struct rpc_server *server)
{
    struct rpc_peer *peer = calloc(1, sizeof(*peer));
    if (!peer)
        return NULL;
    peer->env = env;
    list_init(&peer->link);
    list_init(&peer->calls);
    list_init(&peer->waiting);
    list_init(&peer->ending);
    list_init(&peer->requests);
    list_init(&peer->orphans);
    list_init(&peer->msgs);
    list_init(&peer->free_small);
    list_init(&peer->free_large);
    loop_task_init(&peer->task, peer_task);
    peer->server = server;
    if (server)
        server->refs++;
    return peer;
}

static const struct rpc_events *events_of(const struct rpc_peer *peer)
{
    return peer->server && !peer->no_events ? peer->server->service.events : NULL;
}

static void conn_up(struct fabric_conn *conn, const struct fabric_peer *info)
{
    struct rpc_peer *peer = fabric_conn_user(conn);
    peer->conn = conn;
    peer->info = *info;
    peer->up = true;
    const struct rpc_events *e = events_of(peer);
    rpc_peer_hold(peer);
    if (e && e->up)
        e->up(peer->server->service.service, peer);
    rpc_peer_release(peer);
}

static void conn_down(struct fabric_conn *conn, enum fabric_down reason)
{
    struct rpc_peer *peer = fabric_conn_user(conn);
    rpc_peer_hold(peer);
    peer->conn = NULL;
    peer->up = false;
    peer->nobody = fabric_conn_nobody(conn);
    fabric_close(conn);
    rpc_serve_lost(peer);
    rpc_calls_lost(peer, true);
    const struct rpc_events *e = events_of(peer);
    /* Who hears of it does not close; who does not, must. */
    if (!peer->outgoing || (e && e->down))
        peer->gone = true;
    if (e && e->down) {
        peer->no_events = true;
        e->down(peer->server->service.service, peer, reason);
    }
    rpc_peer_release(peer);
}

/* ---- messages in ---- */

int rpc_header_decode(const void *data, uint32_t len, struct rpc_header *out)
{
    struct rpc_header h;
    if (len < sizeof(h))
        return -EPROTO;
    memcpy(&h, data, sizeof(h));
    if (h.magic != RPC_MAGIC || h.version != RPC_VERSION || h.kind < RPC_REQUEST || h.kind > RPC_NOTIFY)
        return -EPROTO;
    if (h.body_len != len - sizeof(h) || h.payload_len > FABRIC_PAYLOAD_MAX)
        return -EPROTO;
    if (h.kind == RPC_NOTIFY && h.payload_len)
        return -EPROTO;
    *out = h;
    return 0;
}

static void deliver(struct rpc_peer *peer, const struct rpc_header *h, const struct fabric_msg *m)
{
    const void *body = (const char *)m->data + sizeof(*h);
    const struct rpc_events *e = events_of(peer);
    switch (h->kind) {
    case RPC_REQUEST:
        if (h->payload_len != m->source.len || !peer->server)
            break;
        rpc_serve_request(peer, h, body, m);
        return;
    case RPC_REPLY:
        if (m->source.len || m->sink.len)
            break;
        rpc_call_reply(peer, h, body);
        return;
    case RPC_NOTIFY:
        if (m->source.len || m->sink.len)
            break;
        if (e && e->notify)
            e->notify(peer->server->service.service, peer, h->method, body, h->body_len);
        return;
    default:
        break;
    }
    rpc_peer_kill(peer, FABRIC_DOWN_PROTOCOL);
}

static void conn_message(struct fabric_conn *conn, const struct fabric_msg *m)
{
    struct rpc_peer *peer = fabric_conn_user(conn);
    struct rpc_header h;
    rpc_peer_hold(peer);
    if (rpc_header_decode(m->data, m->len, &h) != 0)
        rpc_peer_kill(peer, FABRIC_DOWN_PROTOCOL);
    else
        deliver(peer, &h, m);
    rpc_peer_release(peer);
}

const struct fabric_conn_events rpc_conn_events = {.up = conn_up, .message = conn_message, .down = conn_down};

/* ---- connecting and closing ---- */

int rpc_connect(struct env *env, const struct fabric_addr *addr, enum fabric_domain domain,
                const struct rpc_service *service, struct rpc_peer **out)
{
    struct rpc_server *server = NULL;
    int rc = service ? rpc_server_create(env, service, &server) : 0;
    if (rc)
        return rc;
    struct rpc_peer *peer = rpc_peer_create(env, server);
    if (server)
        rpc_server_put(server); /* the peer has it */
    if (!peer)
        return -ENOMEM;
    peer->outgoing = true;
    peer->info.addr = *addr;
    peer->info.domain = domain;
    rc = fabric_connect(env->fabric, addr, domain, &rpc_conn_events, peer, &peer->conn);
    if (rc) {
        peer_free(peer);
        return rc;
    }
    *out = peer;
    return 0;
}

void rpc_close(struct rpc_peer *peer)
{
    rpc_peer_hold(peer);
    peer->no_events = true;
    peer->gone = true;
    peer->up = false;
    if (peer->conn) {
        fabric_close(peer->conn);
        peer->conn = NULL;
        rpc_serve_lost(peer);
        rpc_calls_lost(peer, false);
    }
    rpc_peer_release(peer);
}

void rpc_abandon(struct rpc_peer *peer)
{
    rpc_peer_hold(peer);
    peer->no_events = true;
    peer->gone = true;
    peer->up = false;
    if (peer->conn) {
        fabric_abandon(peer->conn);
        peer->conn = NULL;
    }
    rpc_calls_forget(peer);
    rpc_serve_forget(peer);
    free_all(&peer->msgs);
    peer->msg_count = 0;
    rpc_peer_release(peer);
}

bool rpc_peer_is_up(const struct rpc_peer *peer)
{
    return peer->up && peer->conn && fabric_conn_is_up(peer->conn);
}

const struct fabric_peer *rpc_peer_info(const struct rpc_peer *peer)
{
    return &peer->info;
}

struct fabric_conn *rpc_peer_conn(const struct rpc_peer *peer)
{
    return peer->conn;
}

bool rpc_peer_nobody(const struct rpc_peer *peer)
{
    return peer->nobody;
}

void *rpc_peer_user(const struct rpc_peer *peer)
{
    return peer->user;
}

void rpc_peer_set_user(struct rpc_peer *peer, void *user)
{
    peer->user = user;
}

int rpc_notify(struct rpc_peer *peer, uint16_t method, const void *body, uint32_t body_len)
{
    if (body_len > RPC_BODY_MAX)
        return -EINVAL;
    if (!rpc_peer_is_up(peer))
        return -ENOTCONN;
    if (peer->msg_count >= RPC_MSGS_MAX / 2)
        return -EAGAIN;
    struct rpc_msg *msg = rpc_msg_get(peer, (uint32_t)sizeof(struct rpc_header) + body_len);
    if (!msg)
        return -ENOMEM;
    struct rpc_header h = {.magic = RPC_MAGIC, .kind = RPC_NOTIFY, .version = RPC_VERSION, .method = method};
    h.body_len = body_len;
    memcpy(msg->bytes, &h, sizeof(h));
    if (body_len)
        memcpy(msg->bytes + sizeof(h), body, body_len);
    return rpc_msg_send(msg, (uint32_t)sizeof(h) + body_len, NULL);
}

/* ---- listening ---- */

struct rpc_listener {
    struct env *env;
    struct rpc_server *server;
    struct fabric_listener *listener;
    struct list peers;
    uint32_t allow_roles;
};

static const struct fabric_conn_events *rpc_accept(void *user, const struct fabric_peer *info,
                                                   void **conn_user)
{
    struct rpc_listener *l = user;
    bool allowed = (l->allow_roles & (1u << info->role)) != 0;
    if (!allowed && info->role != FABRIC_ROLE_ADMIN)
        return NULL;
    struct rpc_peer *peer = rpc_peer_create(l->env, l->server);
    if (!peer)
        return NULL;
    peer->house_only = peer->no_events = !allowed;
    list_push_back(&l->peers, &peer->link);
    *conn_user = peer;
    return &rpc_conn_events;
}

int rpc_listen(struct env *env, const struct fabric_addr *addr, const struct rpc_service *service,
               uint32_t allow_roles, struct rpc_listener **out)
{
    struct rpc_listener *l = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    l->env = env;
    l->allow_roles = allow_roles;
    list_init(&l->peers);
    int rc = rpc_server_create(env, service, &l->server);
    if (rc == 0) {
        struct fabric_accept accept = {.accept = rpc_accept, .user = l};
        rc = fabric_listen(env->fabric, addr, &accept, &l->listener);
        if (rc)
            rpc_server_put(l->server);
    }
    if (rc) {
        free(l);
        return rc;
    }
    *out = l;
    return 0;
}

void rpc_listener_addr(const struct rpc_listener *l, struct fabric_addr *out)
{
    fabric_listener_addr(l->listener, out);
}

void rpc_listener_destroy(struct rpc_listener *l, bool abandon)
{
    if (!l)
        return;
    fabric_unlisten(l->listener);
    for (struct list *n; (n = list_pop_front(&l->peers));) {
        struct rpc_peer *peer = list_entry(n, struct rpc_peer, link);
        if (abandon)
            rpc_abandon(peer);
        else
            rpc_close(peer);
    }
    rpc_server_put(l->server);
    free(l);
}
