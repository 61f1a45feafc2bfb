/*
 * rpc_call.c: calling.
 *
 * A call that exposes memory ends when its op is done: the reply's body waits in a copy until then. Any other
 * call ends with its reply, its timeout or the connection.
 */
#include "rdma/rpc_internal.h"

#include <string.h>

static bool call_exposes(const struct rpc_call *call)
{
    return call->source_count > 0 || call->sink_count > 0;
}

static uint32_t total_of(const struct fabric_sge *sge, unsigned count)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += sge[i].len;
    return total > FABRIC_PAYLOAD_MAX ? UINT32_MAX : (uint32_t)total;
}

static void send_waiting(struct rpc_peer *peer);

/* The call leaves the tables and is told. peer is held by the caller. */
static void call_end(struct rpc_call *call)
{
    struct rpc_peer *peer = call->peer;
    struct rpc_result result = call->result;
    struct rpc_msg *reply = call->reply;
    list_remove(&call->link);
    if (call->timeout_ns)
        loop_timer_cancel(peer->env->loop, &call->timer);
    if (call->xid)
        slots_put(&peer->slots, call->xid);
    call->xid = 0;
    call->reply = NULL;
    call->state = CALL_IDLE;
    peer->call_count--;
    call->done(call, &result);
    if (reply && peer->msg_count) /* not when the callback abandoned the peer */
        rpc_msg_put(reply);
    if (!list_empty(&peer->waiting))
        send_waiting(peer);
}

static void call_fail(struct rpc_call *call, int rc)
{
    if (call->state == CALL_WAITING) { /* its message was never posted */
        struct rpc_msg *msg = call->msg;
        rpc_msg_put(msg);
    }
    memset(&call->result, 0, sizeof(call->result));
    call->result.rc = rc;
    call_end(call);
}

static void call_timeout(struct loop_timer *t)
{
    struct rpc_call *call = container_of(t, struct rpc_call, timer);
    struct rpc_peer *peer = call->peer;
    rpc_peer_hold(peer);
    call_fail(call, -ETIMEDOUT);
    rpc_peer_release(peer);
}

/* Takes an xid and posts call->msg. */
static int call_send(struct rpc_peer *peer, struct rpc_call *call)
{
    struct rpc_msg *msg = call->msg;
    struct rpc_header *h = (struct rpc_header *)msg->bytes;
    int rc = slots_take(&peer->slots, call, &call->xid);
    if (rc) {
        rpc_msg_put(msg);
        return rc;
    }
    h->xid = call->xid;
    call->state = CALL_OUT;
    list_push_back(&peer->calls, &call->link);
    if (!call_exposes(call))
        call->msg = NULL; /* goes its own way */
    rc = rpc_msg_send(msg, (uint32_t)sizeof(*h) + h->body_len, NULL);
    if (rc) {
        slots_put(&peer->slots, call->xid);
        call->xid = 0;
        list_remove(&call->link);
    }
    return rc;
}

static void send_waiting(struct rpc_peer *peer)
{
    while (!list_empty(&peer->waiting) && peer->slots.used < RPC_WINDOW && rpc_peer_is_up(peer)) {
        struct rpc_call *call = list_entry(peer->waiting.next, struct rpc_call, link);
        list_remove(&call->link);
        if (call_send(peer, call) != 0) {
            memset(&call->result, 0, sizeof(call->result));
            call->result.rc = -ENOTCONN;
            call->state = CALL_ENDING;
            list_push_back(&peer->ending, &call->link);
            rpc_peer_defer(peer);
        }
    }
}

static struct rpc_msg *call_message(struct rpc_peer *peer, struct rpc_call *call, uint32_t payload_len)
{
    struct rpc_msg *msg = rpc_msg_get(peer, (uint32_t)sizeof(struct rpc_header) + call->body_len);
    if (!msg)
        return NULL;
    struct rpc_header h = {
        .magic = RPC_MAGIC, .kind = RPC_REQUEST, .version = RPC_VERSION, .method = call->method};
    h.body_len = call->body_len;
    h.payload_len = payload_len;
    h.payload_crc = call->source_crc;
    memcpy(msg->bytes, &h, sizeof(h));
    if (call->body_len)
        memcpy(msg->bytes + sizeof(h), call->body, call->body_len);
    if (call_exposes(call)) {
        msg->call = call;
        msg->op.sge = call->source;
        msg->op.sge_count = call->source_count;
        msg->op.sink = call->sink;
        msg->op.sink_count = call->sink_count;
    }
    return msg;
}

int rpc_call_start(struct rpc_peer *peer, struct rpc_call *call)
{
    uint32_t source_len = total_of(call->source, call->source_count);
    uint32_t sink_len = total_of(call->sink, call->sink_count);
    if (call->body_len > RPC_BODY_MAX || call->source_count > FABRIC_SGE_MAX ||
        call->sink_count > FABRIC_SGE_MAX || source_len == UINT32_MAX || sink_len == UINT32_MAX)
        return -EINVAL;
    if (!source_len)
        call->source_count = 0;
    if (!sink_len)
        call->sink_count = 0;
    if (call_exposes(call) && call->timeout_ns)
        return -EINVAL;
    if (!rpc_peer_is_up(peer))
        return -ENOTCONN;
    call->peer = peer;
    call->xid = 0;
    call->reply = NULL;
    list_init(&call->link);
    struct rpc_msg *msg = call_message(peer, call, source_len);
    if (!msg)
        return -ENOMEM;
    call->msg = msg;
    if (peer->slots.used >= RPC_WINDOW || !list_empty(&peer->waiting)) {
        call->state = CALL_WAITING;
        list_push_back(&peer->waiting, &call->link);
    } else {
        int rc = call_send(peer, call);
        if (rc)
            return rc;
    }
    peer->call_count++;
    if (call->timeout_ns) {
        loop_timer_init(&call->timer, call_timeout);
        loop_timer_arm(peer->env->loop, &call->timer, call->timeout_ns);
    }
    return 0;
}

void rpc_call_reply(struct rpc_peer *peer, const struct rpc_header *h, const void *body)
{
    struct rpc_call *call = slots_find(&peer->slots, h->xid);
    if (!call) /* it timed out */
        return;
    if (call->state != CALL_OUT || h->payload_len > total_of(call->sink, call->sink_count)) {
        rpc_peer_kill(peer, FABRIC_DOWN_PROTOCOL);
        return;
    }
    struct rpc_result *r = &call->result;
    *r = (struct rpc_result){.rc = 0, .status = h->status, .body_len = h->body_len};
    r->payload_len = h->payload_len;
    r->payload_crc = h->payload_crc;
    r->body = body;
    if (!call_exposes(call)) {
        call_end(call);
        return;
    }
    struct rpc_msg *copy = rpc_msg_get(peer, h->body_len);
    if (!copy) {
        rpc_peer_kill(peer, FABRIC_DOWN_PROTOCOL);
        return;
    }
    memcpy(copy->bytes, body, h->body_len);
    r->body = copy->bytes;
    call->reply = copy;
    call->state = CALL_REPLIED;
    struct rpc_msg *msg = call->msg;
    fabric_retire(&msg->op);
}

void rpc_call_msg_done(struct rpc_call *call, int rc)
{
    call->msg = NULL;
    /* A reply that came is a reply, whatever happened to the connection since. */
    if (call->state == CALL_REPLIED)
        call_end(call);
    else
        call_fail(call, rc ? rc : -ENOTCONN);
}

void rpc_calls_lost(struct rpc_peer *peer, bool now)
{
    list_for_each_safe(n, &peer->calls)
    {
        struct rpc_call *call = list_entry(n, struct rpc_call, link);
        if (call_exposes(call)) /* its op ends it */
            continue;
        list_remove(&call->link);
        list_push_back(&peer->ending, &call->link);
        call->state = CALL_ENDING;
    }
    for (struct list *n; (n = list_pop_front(&peer->waiting));) {
        struct rpc_call *call = list_entry(n, struct rpc_call, link);
        rpc_msg_put(call->msg);
        call->msg = NULL;
        list_push_back(&peer->ending, &call->link);
        call->state = CALL_ENDING;
    }
    if (list_empty(&peer->ending))
        return;
    if (now)
        rpc_calls_run_ending(peer);
    else
        rpc_peer_defer(peer);
}

void rpc_calls_run_ending(struct rpc_peer *peer)
{
    while (!list_empty(&peer->ending))
        call_fail(list_entry(peer->ending.next, struct rpc_call, link), -ENOTCONN);
}

static void forget(struct rpc_peer *peer, struct list *l)
{
    for (struct list *n; (n = list_pop_front(l));) {
        struct rpc_call *call = list_entry(n, struct rpc_call, link);
        if (call->timeout_ns)
            loop_timer_cancel(peer->env->loop, &call->timer);
        call->msg = call->reply = NULL;
        call->xid = 0;
        call->state = CALL_IDLE;
    }
}

void rpc_calls_forget(struct rpc_peer *peer)
{
    forget(peer, &peer->calls);
    forget(peer, &peer->waiting);
    forget(peer, &peer->ending);
    peer->call_count = 0;
}
