/*
 * fabric_tcp_rx.c: receiving on tcp.
 *
 * One receive brings frame header, body and small payloads into the connection's buffer; a payload that is
 * larger than what is buffered is read to where it belongs. A message's source that is neither fetched nor
 * dropped yet holds all behind it.
 */
#include "rdma/fabric_tcp.h"

#include <string.h>
#include <sys/socket.h>

#define RX_IOV 48
_Static_assert(RX_IOV > FABRIC_SGE_MAX, "all pieces and the buffer fit one readv");

static bool conn_lives(const struct tcp_conn *tc)
{
    return tc->open && tc->core.state != CONN_DOWN;
}

static void proto_error(struct tcp_conn *tc)
{
    fabric_core_refuse(&tc->core, FABRIC_DOWN_PROTOCOL);
}

/* ---- where payload goes ---- */

static void dst_set(struct tcp_rx *rx, enum tcp_dst dst, const struct fabric_sge *sge, unsigned count,
                    uint32_t len)
{
    rx->dst = dst;
    rx->sge = sge;
    rx->sge_left = count;
    rx->sge_off = 0;
    rx->dst_left = len;
}

static void dst_skip(struct tcp_rx *rx, uint32_t n)
{
    while (n > 0) {
        MUST(rx->sge_left > 0);
        uint32_t part = rx->sge->len - rx->sge_off;
        if (n < part) {
            rx->sge_off += n;
            return;
        }
        n -= part;
        rx->sge++;
        rx->sge_left--;
        rx->sge_off = 0;
    }
}

/* n bytes that were read straight to the destination. */
static void dst_advance(struct tcp_rx *rx, uint32_t n)
{
    dst_skip(rx, n);
    rx->dst_left -= n;
    rx->payload_left -= n;
}

static void dst_copy(struct tcp_rx *rx, const uint8_t *from, uint32_t n)
{
    while (n > 0) {
        uint32_t part = (uint32_t)min_u64(n, rx->sge->len - rx->sge_off);
        if (part)
            fabric_copy((char *)rx->sge->base + rx->sge_off, from, part);
        dst_advance(rx, part);
        from += part;
        n -= part;
        while (rx->sge_left && rx->sge_off == rx->sge->len) {
            rx->sge++;
            rx->sge_left--;
            rx->sge_off = 0;
        }
    }
}

/* The payload is complete. */
static void payload_end(struct tcp_conn *tc)
{
    struct tcp_rx *rx = &tc->rx;
    struct fabric_op *op = rx->op;
    enum tcp_dst dst = rx->dst;
    rx->dst = TCP_DST_NONE;
    rx->op = NULL;
    rx->mem = NULL;
    switch (dst) {
    case TCP_DST_FETCH:
        rx->fetched += op_len(op);
        fabric_core_op_done(op, 0);
        break;
    case TCP_DST_SINK:
        op->state &= ~(uint32_t)OP_BUSY;
        tcp_settle(tc, op);
        break;
    case TCP_DST_READ:
        slots_put(&tc->slots, op->id);
        fabric_core_op_done(op, 0);
        break;
    case TCP_DST_MEMORY:
        tc->acks_owed++;
        tc->core.fabric->counters.writes_served++;
        tcp_tx_dirty(tc);
        break;
    case TCP_DST_NONE:
    case TCP_DST_WAIT:
    case TCP_DST_DISCARD:
        break;
    }
}

/* Buffered bytes of the current payload; false when it wants more or has no destination yet. */
static bool payload_from_buffer(struct tcp_conn *tc)
{
    struct tcp_rx *rx = &tc->rx;
    if (rx->dst == TCP_DST_WAIT)
        return false;
    uint32_t n = (uint32_t)min_u64(rx->end - rx->start, rx->dst_left);
    tc->core.fabric->counters.bytes_copied += n;
    dst_copy(rx, rx->buf + rx->start, n);
    rx->start += n;
    if (rx->dst_left == 0) {
        n = (uint32_t)min_u64(rx->end - rx->start, rx->payload_left);
        rx->start += n;
        rx->payload_left -= n;
    }
    if (rx->payload_left)
        return false;
    payload_end(tc);
    return true;
}

int tcp_rx_fetch(struct tcp_conn *tc, struct fabric_op *op)
{
    struct tcp_rx *rx = &tc->rx;
    if (!tcp_rx_blocked(tc) || op->remote.addr != rx->source_serial || op_len(op) > rx->payload_left)
        return -EINVAL;
    list_push_back(&tc->core.active, &op->link);
    dst_set(rx, TCP_DST_FETCH, op->sge, op->sge_count, op_len(op));
    rx->op = op;
    if (!rx->dispatching && list_unlinked(&tc->resume))
        list_push_back(&tcp_fabric_of(tc->core.fabric)->resume, &tc->resume);
    return 0;
}

void tcp_rx_drop(struct tcp_conn *tc, const struct fabric_remote *source)
{
    struct tcp_rx *rx = &tc->rx;
    if (!tcp_rx_blocked(tc) || source->addr != rx->source_serial)
        return;
    dst_set(rx, TCP_DST_DISCARD, NULL, 0, 0);
    if (!rx->dispatching && list_unlinked(&tc->resume))
        list_push_back(&tcp_fabric_of(tc->core.fabric)->resume, &tc->resume);
}

/* ---- frames ---- */

static void rx_message(struct tcp_conn *tc, const struct tcp_frame *f, const void *body)
{
    struct tcp_rx *rx = &tc->rx;
    struct fabric_msg msg = {.data = body, .len = f->body_len};
    if (f->payload_len) {
        msg.source.addr = ++rx->source_serial;
        msg.source.len = f->payload_len;
        msg.source.key = 1;
        rx->payload_left = f->payload_len;
        dst_set(rx, TCP_DST_WAIT, NULL, 0, 0);
    }
    if (f->len) {
        msg.sink.addr = f->id;
        msg.sink.len = f->len;
        msg.sink.key = 1;
    }
    fabric_core_message(&tc->core, &msg);
}

static void rx_push(struct tcp_conn *tc, const struct tcp_frame *f)
{
    struct tcp_rx *rx = &tc->rx;
    struct fabric_op *op = slots_find(&tc->slots, f->id);
    if (!op || op->kind != FABRIC_OP_SEND || f->addr + f->payload_len > op_sink_len(op)) {
        fabric_core_refuse(&tc->core, FABRIC_DOWN_ACCESS);
        return;
    }
    op->state |= OP_BUSY;
    rx->op = op;
    rx->payload_left = f->payload_len;
    dst_set(rx, TCP_DST_SINK, op->sink, op->sink_count, f->payload_len);
    dst_skip(rx, (uint32_t)f->addr);
}

static void rx_read_reply(struct tcp_conn *tc, const struct tcp_frame *f)
{
    struct tcp_rx *rx = &tc->rx;
    struct fabric_op *op = slots_find(&tc->slots, f->id);
    /* Not in tx any more: its request is with the socket. */
    if (!op || op->kind != FABRIC_OP_READ || op->progress != sizeof(*f) || f->payload_len != op_len(op)) {
        proto_error(tc);
        return;
    }
    rx->op = op;
    rx->payload_left = f->payload_len;
    dst_set(rx, TCP_DST_READ, op->sge, op->sge_count, f->payload_len);
}

static void rx_read(struct tcp_conn *tc, const struct tcp_frame *f)
{
    void *at;
    struct fabric_mem *mem =
        fabric_core_mem_check(&tc->core, f->addr, f->key, f->len, FABRIC_ACCESS_REMOTE_READ, &at);
    if (!mem) {
        fabric_core_refuse(&tc->core, FABRIC_DOWN_ACCESS);
        return;
    }
    if (tc->served >= TCP_SERVED_MAX || tcp_tx_serve(tc, f->id, mem, at, f->len) != 0) {
        proto_error(tc);
        return;
    }
    tc->core.fabric->counters.reads_served++;
}

static void rx_write(struct tcp_conn *tc, const struct tcp_frame *f)
{
    struct tcp_rx *rx = &tc->rx;
    void *at;
    struct fabric_mem *mem =
        fabric_core_mem_check(&tc->core, f->addr, f->key, f->payload_len, FABRIC_ACCESS_REMOTE_WRITE, &at);
    if (!mem) {
        fabric_core_refuse(&tc->core, FABRIC_DOWN_ACCESS);
        return;
    }
    rx->mem = mem;
    rx->one = (struct fabric_sge){.base = at, .len = f->payload_len};
    rx->payload_left = f->payload_len;
    dst_set(rx, TCP_DST_MEMORY, &rx->one, 1, f->payload_len);
}

static void rx_write_ack(struct tcp_conn *tc, const struct tcp_frame *f)
{
    for (uint32_t i = 0; i < f->len; i++) {
        if (list_empty(&tc->writes)) {
            proto_error(tc);
            return;
        }
        fabric_core_op_done(list_entry(tc->writes.next, struct fabric_op, link), 0);
    }
}

static void rx_frame(struct tcp_conn *tc, const struct tcp_frame *f, const void *body)
{
    union {
        struct fabric_hello hello;
        struct fabric_auth auth;
    } u;
    switch ((enum tcp_frame_type)f->type) {
    case TCP_FRAME_HELLO:
        memcpy(&u.hello, body, sizeof(u.hello));
        fabric_core_hello(&tc->core, &u.hello);
        break;
    case TCP_FRAME_AUTH:
        memcpy(&u.auth, body, sizeof(u.auth));
        fabric_core_auth(&tc->core, &u.auth);
        break;
    case TCP_FRAME_REFUSE:
        fabric_core_fail(&tc->core, (enum fabric_down)f->len);
        break;
    case TCP_FRAME_CLOSE:
        fabric_core_fail(&tc->core, FABRIC_DOWN_PEER_CLOSED);
        break;
    case TCP_FRAME_BEAT:
        break;
    case TCP_FRAME_MESSAGE:
        rx_message(tc, f, body);
        break;
    case TCP_FRAME_PUSH:
        rx_push(tc, f);
        break;
    case TCP_FRAME_READ:
        rx_read(tc, f);
        break;
    case TCP_FRAME_READ_REPLY:
        rx_read_reply(tc, f);
        break;
    case TCP_FRAME_WRITE:
        rx_write(tc, f);
        break;
    case TCP_FRAME_WRITE_ACK:
        rx_write_ack(tc, f);
        break;
    }
}

/* Everything in the buffer that can be handled. */
static void rx_parse(struct tcp_conn *tc)
{
    struct tcp_rx *rx = &tc->rx;
    rx->dispatching = true;
    while (conn_lives(tc)) {
        if (rx->payload_left) {
            if (!payload_from_buffer(tc))
                break;
            continue;
        }
        struct tcp_frame f;
        const uint8_t *at = rx->buf + rx->start;
        int n = tcp_frame_decode(at, rx->end - rx->start, tc->core.state == CONN_UP, &f);
        if (n == 0)
            break;
        if (n < 0) {
            proto_error(tc);
            break;
        }
        rx->start += (uint32_t)n;
        rx_frame(tc, &f, at + sizeof(f));
    }
    rx->dispatching = false;
    if (rx->start == rx->end)
        rx->start = rx->end = 0;
}

/* ---- the socket ---- */

/* What one receive may fill: the rest of the payload where it belongs (if nothing of it is buffered), then
 * the buffer. */
static unsigned rx_vector(struct tcp_rx *rx, struct iovec *iov, uint32_t *direct)
{
    unsigned count = 0;
    *direct = 0;
    if (rx->dst_left && rx->start == rx->end) {
        for (unsigned i = 0; i < rx->sge_left && *direct < rx->dst_left; i++) {
            uint32_t off = i == 0 ? rx->sge_off : 0;
            uint32_t len = (uint32_t)min_u64(rx->sge[i].len - off, rx->dst_left - *direct);
            if (!len)
                continue;
            iov[count].iov_base = (char *)rx->sge[i].base + off;
            iov[count++].iov_len = len;
            *direct += len;
        }
        rx->start = rx->end = 0;
    }
    if (rx->start > 0) {
        memmove(rx->buf, rx->buf + rx->start, rx->end - rx->start);
        rx->end -= rx->start;
        rx->start = 0;
    }
    if (rx->end < TCP_RX_BYTES) {
        iov[count].iov_base = rx->buf + rx->end;
        iov[count++].iov_len = TCP_RX_BYTES - rx->end;
    }
    return count;
}

static void rx_failed(struct tcp_conn *tc, int err)
{
    fabric_core_fail(&tc->core, tcp_lost_reason(err));
}

/* One receive; false when there is no more now. */
static bool rx_receive(struct tcp_conn *tc)
{
    struct tcp_rx *rx = &tc->rx;
    struct iovec iov[RX_IOV];
    uint32_t direct;
    struct msghdr m = {.msg_iov = iov};
    m.msg_iovlen = rx_vector(rx, iov, &direct);
    size_t room = direct + (TCP_RX_BYTES - rx->end);
    ssize_t n = m.msg_iovlen == 1 ? recv(tc->lfd.fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT)
                                  : recvmsg(tc->lfd.fd, &m, MSG_DONTWAIT);
    tc->core.fabric->counters.recv_calls++;
    if (n < 0) {
        tc->core.fabric->counters.recv_empty++;
        if (errno == EINTR)
            return true;
        if (errno != EAGAIN)
            rx_failed(tc, errno);
        rx->more = false;
        return false;
    }
    if (n == 0) {
        rx_failed(tc, 0);
        return false;
    }
    tc->last_rx_ns = loop_now_ns(tc->core.fabric->env->loop);
    rx->more = (size_t)n == room;
    uint32_t there = (uint32_t)min_u64((uint64_t)n, direct);
    dst_advance(rx, there);
    rx->end += (uint32_t)n - there;
    if (rx->payload_left == 0 && there)
        payload_end(tc);
    rx_parse(tc);
    return rx->more && conn_lives(tc);
}

void tcp_rx_readable(struct tcp_conn *tc)
{
    tc->rx.fetched = 0;
    for (int i = 0; i < TCP_READ_BURST && tc->rx.fetched < TCP_FETCH_BURST; i++) {
        if (!conn_lives(tc))
            return;
        if (tcp_rx_blocked(tc)) {
            tcp_conn_watch(tc);
            return;
        }
        if (!rx_receive(tc))
            return;
    }
}

void tcp_rx_resume(struct tcp_conn *tc)
{
    list_remove(&tc->resume);
    if (!conn_lives(tc))
        return;
    rx_parse(tc);
    if (!conn_lives(tc) || tcp_rx_blocked(tc))
        return;
    tc->last_rx_ns = loop_now_ns(tc->core.fabric->env->loop);
    tcp_conn_watch(tc);
    if (tc->rx.more || tc->rx.payload_left)
        tcp_rx_readable(tc);
}
