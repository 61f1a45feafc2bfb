/*
 * fabric_tcp_tx.c: sending on tcp.
 *
 * Posts only queue; each connection that has something is flushed once at the end of the loop's round, with
 * as few writev as the socket allows. Frames' headers are made anew from the op when a flush goes on in the
 * middle of one.
 */
#include "rdma/fabric_tcp.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define TX_IOV    128
#define TX_FRAMES 48

/* One writev in the making. */
struct tx_batch {
    unsigned iov_count, frame_count;
    size_t bytes;
    struct iovec iov[TX_IOV];
    struct tcp_frame frame[TX_FRAMES];
};

void tcp_tx_dirty(struct tcp_conn *tc)
{
    if (tc->open && !tc->tx_blocked && list_unlinked(&tc->dirty))
        list_push_back(&tcp_fabric_of(tc->core.fabric)->dirty, &tc->dirty);
}

static void frame_of(const struct fabric_op *op, struct tcp_frame *f)
{
    memset(f, 0, sizeof(*f));
    f->magic = TCP_FRAME_MAGIC;
    switch ((int)op->kind) {
    case FABRIC_OP_SEND:
        f->type = TCP_FRAME_MESSAGE;
        f->body_len = op->header_len;
        f->payload_len = op_source_len(op);
        f->id = op->id;
        f->len = op_sink_len(op);
        break;
    case FABRIC_OP_PUSH:
        f->type = TCP_FRAME_PUSH;
        f->payload_len = op_len(op);
        f->id = op->remote.addr;
        f->addr = op->remote_offset;
        break;
    case FABRIC_OP_READ:
        f->type = TCP_FRAME_READ;
        f->id = op->id;
        f->addr = op->remote.addr;
        f->key = op->remote.key;
        f->len = op_len(op);
        break;
    case FABRIC_OP_WRITE:
        f->type = TCP_FRAME_WRITE;
        f->payload_len = op_len(op);
        f->addr = op->remote.addr;
        f->key = op->remote.key;
        break;
    case TCP_OP_SERVED:
        f->type = TCP_FRAME_READ_REPLY;
        f->payload_len = op_len(op);
        f->id = container_of(op, struct tcp_served, op)->id;
        break;
    default:
        MUST(false);
    }
}

static uint32_t op_body_len(const struct fabric_op *op)
{
    return op->kind == FABRIC_OP_SEND ? op->header_len : 0;
}

static uint32_t op_payload_len(const struct fabric_op *op)
{
    if (op->kind == FABRIC_OP_READ)
        return 0;
    return op->kind == FABRIC_OP_SEND ? op_source_len(op) : op_len(op);
}

static uint32_t op_frame_bytes(const struct fabric_op *op)
{
    return (uint32_t)sizeof(struct tcp_frame) + op_body_len(op) + op_payload_len(op);
}

/* Adds a piece but for its first *skip bytes (which are taken from *skip). */
static bool batch_piece(struct tx_batch *b, const void *base, size_t len, size_t *skip)
{
    if (*skip >= len) {
        *skip -= len;
        return true;
    }
    if (b->iov_count == TX_IOV)
        return false;
    b->iov[b->iov_count].iov_base = (char *)(uintptr_t)base + *skip;
    b->iov[b->iov_count].iov_len = len - *skip;
    b->iov_count++;
    b->bytes += len - *skip;
    *skip = 0;
    return true;
}

/* Adds what is not yet sent of op's frame; false when the batch is full (perhaps in the middle). */
static bool batch_op(struct tx_batch *b, const struct fabric_op *op)
{
    size_t skip = op->progress;
    if (b->frame_count == TX_FRAMES)
        return false;
    struct tcp_frame *f = &b->frame[b->frame_count++];
    frame_of(op, f);
    if (!batch_piece(b, f, sizeof(*f), &skip))
        return false;
    if (f->body_len && !batch_piece(b, op->header, op->header_len, &skip))
        return false;
    if (f->payload_len == 0)
        return true;
    for (unsigned i = 0; i < op->sge_count; i++)
        if (op->sge[i].len && !batch_piece(b, op->sge[i].base, op->sge[i].len, &skip))
            return false;
    return true;
}

static void batch_fill(struct tx_batch *b, const struct tcp_conn *tc)
{
    b->iov_count = b->frame_count = 0;
    b->bytes = 0;
    const struct list *n = tc->tx.next;
    if (n != &tc->tx) {
        const struct fabric_op *op = list_entry(n, struct fabric_op, link);
        if (op->progress > 0) { /* frames are not mixed */
            if (!batch_op(b, op))
                return;
            n = n->next;
        }
    }
    size_t skip = tc->ctl_sent;
    if (tc->ctl_len && !batch_piece(b, tc->ctl, tc->ctl_len, &skip))
        return;
    for (; n != &tc->tx; n = n->next)
        if (!batch_op(b, list_entry(n, struct fabric_op, link)))
            return;
}

bool tcp_tx_control(struct tcp_conn *tc, enum tcp_frame_type type, const void *body, uint32_t body_len,
                    uint32_t len)
{
    struct tcp_frame f;
    if (tc->ctl_len + sizeof(f) + body_len > sizeof(tc->ctl))
        return false;
    memset(&f, 0, sizeof(f));
    f.magic = TCP_FRAME_MAGIC;
    f.type = (uint8_t)type;
    f.body_len = body_len;
    f.len = len;
    tc->core.fabric->counters.work_requests++;
    memcpy(tc->ctl + tc->ctl_len, &f, sizeof(f));
    if (body_len)
        memcpy(tc->ctl + tc->ctl_len + sizeof(f), body, body_len);
    tc->ctl_len += (uint32_t)sizeof(f) + body_len;
    tcp_tx_dirty(tc);
    return true;
}

/* Acknowledgements and signs of life are counted, and become frames only here. */
static void small_frames(struct tcp_conn *tc)
{
    if (tc->acks_owed && tcp_tx_control(tc, TCP_FRAME_WRITE_ACK, NULL, 0, tc->acks_owed))
        tc->acks_owed = 0;
    if (tc->beat_owed && tcp_tx_control(tc, TCP_FRAME_BEAT, NULL, 0, 0)) {
        tc->beat_owed = false;
        tc->core.fabric->counters.beats++;
    }
}

static void served_free(struct tcp_conn *tc, struct tcp_served *s)
{
    list_remove(&s->op.link);
    tc->served--;
    list_push_back(&tcp_fabric_of(tc->core.fabric)->served_free, &s->op.link);
}

/* All of op's frame is with the socket. */
static void op_sent(struct tcp_conn *tc, struct fabric_op *op)
{
    tc->core.fabric->counters.work_requests++;
    switch ((int)op->kind) {
    case FABRIC_OP_SEND:
        if (!(op->state & OP_EXPOSED)) {
            fabric_core_op_done(op, 0);
            return;
        }
        op->state |= OP_SENT;
        list_remove(&op->link);
        list_push_back(&tc->core.active, &op->link);
        tcp_settle(tc, op);
        return;
    case FABRIC_OP_READ:
        list_remove(&op->link);
        list_push_back(&tc->core.active, &op->link);
        return;
    case FABRIC_OP_WRITE:
        list_remove(&op->link);
        list_push_back(&tc->writes, &op->link);
        return;
    case TCP_OP_SERVED:
        served_free(tc, container_of(op, struct tcp_served, op));
        return;
    default:
        fabric_core_op_done(op, 0);
    }
}

/* The socket took n bytes of the batch: in the same order as batch_fill. */
static void batch_sent(struct tcp_conn *tc, size_t n)
{
    bool ctl = tc->ctl_len > 0;
    while (n > 0) {
        struct fabric_op *op = list_empty(&tc->tx) ? NULL : list_entry(tc->tx.next, struct fabric_op, link);
        if (ctl && (!op || op->progress == 0)) {
            uint32_t part = (uint32_t)min_u64(n, tc->ctl_len - tc->ctl_sent);
            tc->ctl_sent += part;
            n -= part;
            if (tc->ctl_sent < tc->ctl_len)
                return;
            tc->ctl_len = tc->ctl_sent = 0;
            ctl = false;
            continue;
        }
        MUST(op != NULL);
        uint32_t part = (uint32_t)min_u64(n, op_frame_bytes(op) - op->progress);
        op->progress += part;
        n -= part;
        if (op->progress == op_frame_bytes(op))
            op_sent(tc, op);
    }
}

static void tx_failed(struct tcp_conn *tc, int err)
{
    tcp_rx_readable(tc); /* the peer may have said why */
    fabric_core_fail(&tc->core, tcp_lost_reason(err));
}

void tcp_tx_flush(struct tcp_conn *tc)
{
    struct tx_batch b;
    list_remove(&tc->dirty);
    if (!tc->open || tc->connecting || tc->tx_blocked)
        return;
    small_frames(tc);
    for (;;) {
        batch_fill(&b, tc);
        if (b.bytes == 0)
            break;
        struct msghdr m = {.msg_iov = b.iov, .msg_iovlen = b.iov_count};
        ssize_t n = sendmsg(tc->lfd.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        tc->core.fabric->counters.send_calls++;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            tx_failed(tc, errno);
            return;
        }
        if (n > 0) {
            tc->last_tx_ns = loop_now_ns(tc->core.fabric->env->loop);
            batch_sent(tc, (size_t)n);
            small_frames(tc);
        }
        if (n < (ssize_t)b.bytes) {
            tc->core.fabric->counters.credit_waits++;
            tc->tx_blocked = true;
            tcp_conn_watch(tc);
            break;
        }
    }
    list_remove(&tc->dirty); /* small_frames may have put it there */
}

int tcp_tx_post(struct tcp_conn *tc, struct fabric_op *op)
{
    if (op->kind == FABRIC_OP_READ || (op->kind == FABRIC_OP_SEND && op_sink_len(op))) {
        int rc = slots_take(&tc->slots, op, &op->id);
        if (rc)
            return rc;
    }
    list_push_back(&tc->tx, &op->link);
    tcp_tx_dirty(tc);
    return 0;
}

int tcp_tx_serve(struct tcp_conn *tc, uint64_t id, struct fabric_mem *mem, void *at, uint32_t len)
{
    struct list *n = list_pop_front(&tcp_fabric_of(tc->core.fabric)->served_free);
    struct tcp_served *s = n ? container_of(n, struct tcp_served, op.link) : calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    memset(s, 0, sizeof(*s));
    s->id = id;
    s->mem = mem;
    s->sge.base = at;
    s->sge.len = len;
    if (len <= sizeof(s->small)) {
        fabric_copy(&s->small, at, len);
        tc->core.fabric->counters.bytes_copied += len;
        s->sge.base = &s->small;
        s->mem = NULL;
    }
    s->op.kind = (enum fabric_op_kind)TCP_OP_SERVED;
    s->op.header_len = len;
    s->op.sge = &s->sge;
    s->op.sge_count = 1;
    tc->served++;
    list_push_back(&tc->tx, &s->op.link);
    tcp_tx_dirty(tc);
    return 0;
}

bool tcp_tx_uses(const struct tcp_conn *tc, const struct fabric_mem *mem)
{
    list_for_each(n, &tc->tx)
    {
        const struct fabric_op *op = list_entry(n, struct fabric_op, link);
        if ((int)op->kind == TCP_OP_SERVED && container_of(op, struct tcp_served, op)->mem == mem)
            return true;
    }
    return false;
}

void tcp_tx_clear(struct tcp_conn *tc)
{
    list_for_each_safe(n, &tc->tx)
    {
        struct fabric_op *op = list_entry(n, struct fabric_op, link);
        if ((int)op->kind == TCP_OP_SERVED)
            served_free(tc, container_of(op, struct tcp_served, op));
    }
    list_splice(&tc->core.active, &tc->tx);
    list_splice(&tc->core.active, &tc->writes);
    list_remove(&tc->dirty);
    tc->ctl_len = tc->ctl_sent = 0;
}
