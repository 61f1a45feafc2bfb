/*
 * fabric_verbs_tx.c: sending on verbs.
 *
 * Posts only queue; each connection that has something is flushed once at the end of the loop's round: chains
 * of work requests, one doorbell each, the last of a chain signalled. RDMA READs are bounded by what the peer
 * granted and wait in a list of their own, so that they never hold up messages.
 */
#include "rdma/fabric_verbs.h"

#include "common/log.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(2 * VERBS_CHAIN + VERBS_SQ_CONTROL < VERBS_SQ,
               "before the queue is full a signalled entry is in it");

void verbs_dirty(struct verbs_conn *vc)
{
    if (vc->open && vc->connected && !vc->core.lingering && list_unlinked(&vc->dirty))
        list_push_back(&verbs_fabric_of(vc)->dirty, &vc->dirty);
}

void verbs_say(struct verbs_conn *vc, uint32_t what)
{
    vc->say |= what;
    verbs_dirty(vc);
}

/* ---- chains ---- */

static uint32_t sq_room(const struct verbs_conn *vc)
{
    return VERBS_SQ - (vc->sq_head - vc->sq_tail);
}

static bool chain_room(const struct verbs_conn *vc, uint32_t reserve)
{
    return verbs_fabric_of(vc)->chain.count < VERBS_CHAIN && sq_room(vc) > reserve;
}

/* The next work request, empty, and its entry in the send queue. There is room. */
static struct ibv_send_wr *chain_add(struct verbs_conn *vc, struct verbs_sqe **entry)
{
    struct verbs_chain *c = &verbs_fabric_of(vc)->chain;
    struct ibv_send_wr *wr = &c->wr[c->count];
    struct verbs_sqe *e = &vc->sq[vc->sq_head % VERBS_SQ];
    memset(wr, 0, sizeof(*wr));
    memset(e, 0, sizeof(*e));
    wr->wr_id = verbs_wr_id(vc, VERBS_WR_SEND, vc->sq_head & 0x3fffff);
    wr->sg_list = c->sge[c->count];
    if (c->count > 0)
        c->wr[c->count - 1].next = wr;
    c->count++;
    vc->sq_head++;
    *entry = e;
    return wr;
}

static struct ibv_send_wr *chain_last(struct verbs_conn *vc)
{
    struct verbs_chain *c = &verbs_fabric_of(vc)->chain;
    return &c->wr[c->count - 1];
}

static bool chain_post(struct verbs_conn *vc)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    struct verbs_chain *c = &vf->chain;
    struct ibv_send_wr *bad;
    struct fabric_counters *n = &vf->core.counters;
    /* What holds something must come back; and the queue's entries, now and then. */
    if (c->signal || vc->sq_head - vc->sq_signalled >= VERBS_CHAIN) {
        c->wr[c->count - 1].send_flags |= IBV_SEND_SIGNALED;
        vc->sq_signalled = vc->sq_head;
        n->signalled++;
    }
    n->send_calls++;
    n->work_requests += c->count;
    c->count = 0;
    c->signal = false;
    int rc = ibv_post_send(vc->id->qp, &c->wr[0], &bad);
    if (rc) {
        log_error(vf->core.env, "cannot post to the RDMA device", "errno=%d", rc);
        return false;
    }
    return true;
}

/* ---- frames ---- */

/* A frame of total bytes: where it is to be written. NULL: out of memory (nothing was added). */
static uint8_t *frame_add(struct verbs_conn *vc, uint32_t total, struct verbs_sqe **entry)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    bool small = total <= vc->dev->inline_max;
    struct verbs_buf *buf = small ? NULL : verbs_buf_take(vc->dev, verbs_domain(vc));
    if (!small && !buf)
        return NULL;
    uint8_t *at = small ? vf->chain.stage[vf->chain.count] : buf->data;
    struct ibv_send_wr *wr = chain_add(vc, entry);
    wr->opcode = IBV_WR_SEND;
    wr->num_sge = 1;
    wr->sg_list[0] = (struct ibv_sge){.addr = (uintptr_t)at, .length = total, .lkey = small ? 0 : buf->lkey};
    vf->core.counters.bytes_copied += total;
    if (small) {
        wr->send_flags = IBV_SEND_INLINE;
        vf->core.counters.inline_sends++;
    }
    (*entry)->buf = buf;
    vf->chain.signal |= buf != NULL;
    vc->last_tx_ns =
        loop_now_ns(vf->core.env->loop); /* the peer hears frames only, not one-sided operations */
    return at;
}

static struct verbs_frame frame_new(struct verbs_conn *vc, enum verbs_frame_type type)
{
    struct verbs_frame f;
    memset(&f, 0, sizeof(f));
    f.magic = VERBS_FRAME_MAGIC;
    f.type = (uint8_t)type;
    if (vc->core.state == CONN_UP) { /* what is owed goes with any frame */
        f.credits = (uint16_t)vc->core.rx_owed;
        vc->granted += vc->core.rx_owed;
        vc->core.rx_owed = 0;
        vc->say &= ~(uint32_t)VERBS_SAY_CREDIT;
    }
    return f;
}

static bool control_add(struct verbs_conn *vc, enum verbs_frame_type type, const void *body, uint32_t len,
                        struct verbs_sqe **entry)
{
    uint8_t *at = frame_add(vc, (uint32_t)sizeof(struct verbs_frame) + len, entry);
    if (!at)
        return false;
    struct verbs_frame f = frame_new(vc, type);
    f.len = len;
    if (type == VERBS_FRAME_REFUSE)
        f.slot = (uint16_t)vc->refuse_reason;
    if (type == VERBS_FRAME_RECALL)
        f.slot = (uint16_t)vc->recalled;
    if (type == VERBS_FRAME_RETURN)
        f.slot = (uint16_t)vc->returned;
    memcpy(at, &f, sizeof(f));
    if (len)
        memcpy(at + sizeof(f), body, len);
    return true;
}

/* A READ of nothing needs no key (IBTA C9-88). */
static void probe_add(struct verbs_conn *vc)
{
    struct verbs_sqe *e;
    chain_add(vc, &e)->opcode = IBV_WR_RDMA_READ;
    e->read = e->beat = vc->beat_out = true;
    verbs_fabric_of(vc)->chain.signal = true;
    vc->rd_out++;
    vc->say &= ~(uint32_t)VERBS_SAY_PROBE;
}

static bool build_control(struct verbs_conn *vc)
{
    struct verbs_sqe *e;
    if ((vc->say & VERBS_SAY_PROBE) && !vc->beat_out && vc->rd_out < vc->rd_max && chain_room(vc, 0))
        probe_add(vc);
    if ((vc->say & VERBS_SAY_AUTH) && chain_room(vc, 0)) {
        if (!control_add(vc, VERBS_FRAME_AUTH, &vc->auth, sizeof(vc->auth), &e))
            return false;
        vc->say &= ~(uint32_t)VERBS_SAY_AUTH;
    }
    if ((vc->say & VERBS_SAY_BEAT) && !vc->beat_out && chain_room(vc, 0)) {
        if (!control_add(vc, VERBS_FRAME_BEAT, NULL, 0, &e))
            return false;
        e->beat = vc->beat_out = true;
        verbs_fabric_of(vc)->chain.signal = true;
        verbs_fabric_of(vc)->core.counters.beats++;
        vc->say &= ~(uint32_t)VERBS_SAY_BEAT;
    }
    if ((vc->say & VERBS_SAY_RECALL) && chain_room(vc, 0)) {
        if (!control_add(vc, VERBS_FRAME_RECALL, NULL, 0, &e))
            return false;
        vc->say &= ~(uint32_t)VERBS_SAY_RECALL;
    }
    if ((vc->say & VERBS_SAY_RETURN) && chain_room(vc, 0)) {
        if (!control_add(vc, VERBS_FRAME_RETURN, NULL, 0, &e))
            return false;
        vc->returned = 0;
        vc->say &= ~(uint32_t)VERBS_SAY_RETURN;
    }
    return true;
}

/* Credits that no other frame of this chain has taken along. */
static bool build_credit(struct verbs_conn *vc)
{
    struct verbs_sqe *e;
    if (!(vc->say & VERBS_SAY_CREDIT) || !chain_room(vc, 0))
        return true;
    return control_add(vc, VERBS_FRAME_CREDIT, NULL, 0, &e);
}

bool verbs_last_word(struct verbs_conn *vc)
{
    struct verbs_sqe *e;
    bool refuse = (vc->say & VERBS_SAY_REFUSE) != 0;
    verbs_fabric_of(vc)->chain.count = 0;
    verbs_fabric_of(vc)->chain.signal = true;
    if (!vc->connected || !chain_room(vc, 0) ||
        !control_add(vc, refuse ? VERBS_FRAME_REFUSE : VERBS_FRAME_CLOSE, NULL, 0, &e))
        return false;
    e->last_word = true;
    return chain_post(vc);
}

/* ---- ops ---- */

/* Binds windows to what op exposes, in order before its message. False: there is no room for all now. */
static bool build_binds(struct verbs_conn *vc, struct verbs_pins *p)
{
    for (; p->bound < p->seg_count; p->bound++) {
        const struct verbs_hold *h = &p->hold[p->bound];
        struct verbs_seg *seg = &p->seg[p->bound];
        struct verbs_sqe *e;
        if (!h->window)
            continue;
        if (!chain_room(vc, VERBS_SQ_CONTROL))
            return false;
        struct ibv_send_wr *wr = chain_add(vc, &e);
        bool source = p->bound < p->source_count;
        verbs_window_bind(vc, h->window);
        wr->opcode = IBV_WR_BIND_MW;
        wr->sg_list = NULL;
        wr->bind_mw.mw = h->window->mw;
        wr->bind_mw.rkey = seg->key = h->window->rkey;
        wr->bind_mw.bind_info.mr = h->arena;
        wr->bind_mw.bind_info.addr = seg->addr;
        wr->bind_mw.bind_info.length = seg->len;
        wr->bind_mw.bind_info.mw_access_flags = source ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE;
        verbs_fabric_of(vc)->core.counters.binds++;
    }
    return chain_room(vc, VERBS_SQ_CONTROL);
}

/* A retired SEND whose memory the peer cannot reach any more. */
static void op_end(struct verbs_conn *vc, struct fabric_op *op)
{
    verbs_unpin(vc, op);
    fabric_core_op_done(op, 0);
    if (!list_empty(&vc->tx)) /* it may have waited for this one's number */
        verbs_dirty(vc);
}

/* Takes the windows of a retired SEND from the peer, but for those that the peer's reply took; it ends when
 * that is done. False: no room for all now. */
static bool build_invalidate(struct verbs_conn *vc, struct fabric_op *op)
{
    struct verbs_pins *p = verbs_pins_of(op);
    struct verbs_sqe *e = NULL;
    for (; p->invalidated < p->seg_count; p->invalidated++) {
        const struct verbs_window *w = p->hold[p->invalidated].window;
        if (!w || !w->bound)
            continue;
        if (!chain_room(vc, VERBS_SQ_CONTROL))
            return false;
        struct ibv_send_wr *wr = chain_add(vc, &e);
        wr->opcode = IBV_WR_LOCAL_INV;
        wr->sg_list = NULL;
        wr->invalidate_rkey = w->rkey;
        verbs_fabric_of(vc)->core.counters.invalidations++;
    }
    if (e == NULL) { /* the last ones went meanwhile, or before the queue was full */
        op_end(vc, op);
        return true;
    }
    e->op = op;
    verbs_fabric_of(vc)->chain.signal = true;
    list_remove(&op->link);
    list_push_back(&vc->core.active, &op->link);
    return true;
}

/* Which of its segments the peer may invalidate: it can name one in a message, and only a window. */
static uint8_t ends_flags(const struct verbs_conn *vc, const struct verbs_pins *p)
{
    const unsigned sinks = p->seg_count - p->source_count;
    uint8_t flags = 0;
    if (!vc->dev->ends)
        return 0;
    if (p->source_count == 1 && p->hold[0].window)
        flags |= VERBS_FRAME_ENDS_SOURCE;
    if (sinks == 1 && p->hold[p->source_count].window)
        flags |= VERBS_FRAME_ENDS_SINK;
    return flags;
}

/* 1: added; 0: it has to wait; -errno. */
static int build_send(struct verbs_conn *vc, struct fabric_op *op)
{
    struct verbs_sqe *e;
    bool exposed = (op->state & OP_EXPOSED) != 0;
    if (exposed && !op->id) {
        int rc = verbs_pin_exposed(vc, op);
        if (rc)
            return rc == -EAGAIN ? 0 : rc;
    }
    struct verbs_pins *p = verbs_pins_of(op);
    if (p && !build_binds(vc, p))
        return 0;
    uint32_t seg_bytes = p ? p->seg_count * (uint32_t)sizeof(struct verbs_seg) : 0;
    uint8_t *at = frame_add(vc, (uint32_t)sizeof(struct verbs_frame) + seg_bytes + op->header_len, &e);
    if (!at)
        return -ENOMEM;
    struct verbs_frame f = frame_new(vc, VERBS_FRAME_MESSAGE);
    f.len = op->header_len;
    if (p) {
        f.source_count = p->source_count;
        f.sink_count = (uint8_t)(p->seg_count - p->source_count);
        f.slot = p->slot;
        f.flags = ends_flags(vc, p);
        memcpy(at + sizeof(f), p->seg, seg_bytes);
    }
    if (op->ends.len && (op->ends.flags & VERBS_REMOTE_ENDS) && vc->dev->ends) {
        struct ibv_send_wr *wr = chain_last(vc);
        wr->opcode = IBV_WR_SEND_WITH_INV;
        wr->invalidate_rkey = op->ends.key;
    }
    memcpy(at, &f, sizeof(f));
    memcpy(at + sizeof(f) + seg_bytes, op->header, op->header_len);
    if (!exposed) { /* nothing of the caller's is needed any more */
        fabric_core_op_done(op, 0);
        return 1;
    }
    op->state |= OP_SENT;
    list_remove(&op->link);
    list_push_back(&vc->core.active, &op->link);
    verbs_settle(vc, op);
    return 1;
}

/* Where at the peer the op goes on, and how many bytes there are; false: not a thing that the peer exposed.
 */
static bool remote_at(const struct verbs_conn *vc, const struct fabric_op *op, struct verbs_seg *out)
{
    uint32_t off = op->progress + (op->kind == FABRIC_OP_PUSH ? op->remote_offset : 0);
    bool exposed = op->kind == FABRIC_OP_PUSH || op->kind == FABRIC_OP_FETCH;
    if (!exposed || op->remote.key) {
        *out = (struct verbs_seg){op->remote.addr + off, op->remote.len - off, op->remote.key};
        return true;
    }
    if (!vc->imports || op->remote.addr >= VERBS_IMPORTS || !vc->imports[op->remote.addr])
        return false;
    const struct verbs_import *m = vc->imports[op->remote.addr];
    bool push = op->kind == FABRIC_OP_PUSH;
    const struct verbs_seg *s = push ? m->sink : m->source;
    unsigned count = push ? m->sink_count : m->source_count;
    for (unsigned i = 0; i < count; i++) {
        if (off < s[i].len) {
            *out = (struct verbs_seg){s[i].addr + off, s[i].len - off, s[i].key};
            return true;
        }
        off -= s[i].len;
    }
    return false;
}

/* Fills wr's pieces from op->progress on, at most max bytes; returns how many bytes. */
static uint32_t local_fill(const struct fabric_op *op, struct ibv_send_wr *wr, uint32_t max, uint32_t sge_max)
{
    const struct verbs_pins *p = verbs_pins_of(op);
    uint32_t skip = op->progress, bytes = 0;
    for (unsigned i = 0; i < op->sge_count && bytes < max && (uint32_t)wr->num_sge < sge_max; i++) {
        const struct fabric_sge *s = &op->sge[i];
        if (skip >= s->len) {
            skip -= s->len;
            continue;
        }
        uint32_t part = (uint32_t)min_u64(s->len - skip, max - bytes);
        wr->sg_list[wr->num_sge++] =
            (struct ibv_sge){.addr = (uintptr_t)s->base + skip, .length = part, .lkey = p ? p->lkey[i] : 0};
        bytes += part;
        skip = 0;
    }
    return bytes;
}

/* One work request of a FETCH, PUSH, READ or WRITE. 0 or -errno. */
static int build_data(struct verbs_conn *vc, struct fabric_op *op)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    bool read = op->kind == FABRIC_OP_READ || op->kind == FABRIC_OP_FETCH;
    bool small = !read && op_len(op) <= vc->dev->inline_max;
    struct verbs_seg at;
    struct verbs_sqe *e;
    if (!remote_at(vc, op, &at))
        return -EACCES;
    if (!small && !op->id) {
        int rc = verbs_pin_local(vc, op);
        if (rc)
            return rc;
    }
    struct ibv_send_wr *wr = chain_add(vc, &e);
    wr->opcode = read ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;
    wr->send_flags = small ? IBV_SEND_INLINE : 0;
    vf->core.counters.inline_sends += small;
    wr->wr.rdma.remote_addr = at.addr;
    wr->wr.rdma.rkey = at.key;
    op->progress += local_fill(op, wr, (uint32_t)min_u64(at.len, vf->message_max),
                               read ? vc->dev->read_sge_max : vc->dev->sge_max);
    e->read = read;
    vf->chain.signal = true;
    if (read)
        vc->rd_out++;
    if (op->progress == op_len(op)) {
        e->op = op;
        list_remove(&op->link);
        list_push_back(&vc->core.active, &op->link);
    }
    return 0;
}

/* As many as there is room for. 0 or -errno. */
static int build_ops(struct verbs_conn *vc)
{
    int rc = 0;
    while (!list_empty(&vc->inv))
        if (!build_invalidate(vc, list_entry(vc->inv.next, struct fabric_op, link)))
            return 0;
    while (rc == 0 && !list_empty(&vc->tx) && chain_room(vc, VERBS_SQ_CONTROL)) {
        struct fabric_op *op = list_entry(vc->tx.next, struct fabric_op, link);
        if (op->kind != FABRIC_OP_SEND) {
            rc = build_data(vc, op);
            continue;
        }
        rc = build_send(vc, op);
        if (rc == 0)
            break;
        rc = rc > 0 ? 0 : rc;
    }
    while (rc == 0 && !list_empty(&vc->rd) && vc->rd_out < vc->rd_max && chain_room(vc, VERBS_SQ_CONTROL))
        rc = build_data(vc, list_entry(vc->rd.next, struct fabric_op, link));
    return rc;
}

void verbs_flush(struct verbs_conn *vc)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    list_remove(&vc->dirty);
    int event = __atomic_load_n(&vc->qp_error, __ATOMIC_RELAXED);
    if (vc->broken || event) {
        /* Its completions were looked at before: nothing of ours failed, so the peer did it. */
        bool fatal = event == IBV_EVENT_QP_FATAL + 1;
        fabric_core_fail(&vc->core, vc->broken ? FABRIC_DOWN_UNREACHABLE
                                    : fatal    ? FABRIC_DOWN_UNREACHABLE
                                               : FABRIC_DOWN_ACCESS);
        return;
    }
    while (vc->open && vc->connected && vc->core.state != CONN_DOWN) {
        vf->chain.count = 0;
        vf->chain.signal = false;
        int rc = build_control(vc) ? build_ops(vc) : -ENOMEM;
        if (rc == 0 && !build_credit(vc))
            rc = -ENOMEM;
        if (rc) {
            if (rc != -EACCES)
                log_error(vf->core.env, "cannot send: memory cannot be registered", "errno=%d", -rc);
            fabric_core_fail(&vc->core, rc == -EACCES ? FABRIC_DOWN_ACCESS : FABRIC_DOWN_PROTOCOL);
            return;
        }
        if (vf->chain.count == 0)
            break;
        if (!chain_post(vc)) {
            fabric_core_fail(&vc->core, FABRIC_DOWN_UNREACHABLE);
            return;
        }
    }
    list_remove(&vc->dirty); /* settling may have put it there */
}

/* Windows that were invalidated can be bound again. */
static void op_ends(const struct fabric_op *op)
{
    const struct verbs_pins *p = verbs_pins_of(op);
    for (unsigned i = 0; p && i < p->seg_count; i++)
        if (p->hold[i].window && p->hold[i].window->bound)
            verbs_window_ended(p->hold[i].window);
}

bool verbs_sent(struct verbs_conn *vc, uint32_t index)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    uint32_t count = ((index - vc->sq_tail) & 0x3fffff) + 1;
    if (count > vc->sq_head - vc->sq_tail)
        return true;
    for (; count > 0; count--) {
        struct verbs_sqe e = vc->sq[vc->sq_tail++ % VERBS_SQ];
        if (e.buf)
            verbs_buf_put(e.buf);
        if (e.read) {
            vc->rd_out--;
            if (verbs_reads_tables(vc))
                vc->last_rx_ns = loop_now_ns(vf->core.env->loop);
        }
        if (e.beat)
            vc->beat_out = false;
        if (e.last_word)
            return false;
        if (e.op && vc->core.state != CONN_DOWN) {
            op_ends(e.op);
            verbs_unpin(vc, e.op);
            fabric_core_op_done(e.op, 0);
        }
    }
    if (vc->say || !list_empty(&vc->tx) || !list_empty(&vc->rd) || !list_empty(&vc->inv))
        verbs_dirty(vc);
    return true;
}

/* ---- what the core asks for ---- */

int verbs_post(struct fabric_conn *conn, struct fabric_op *op)
{
    struct verbs_conn *vc = verbs_conn_of(conn);
    bool read = op->kind == FABRIC_OP_READ || op->kind == FABRIC_OP_FETCH;
    list_push_back(read ? &vc->rd : &vc->tx, &op->link);
    verbs_dirty(vc);
    return 0;
}

void verbs_settle(struct verbs_conn *vc, struct fabric_op *op)
{
    if (!fabric_core_op_settled(op))
        return;
    const struct verbs_pins *p = verbs_pins_of(op);
    for (unsigned i = 0; p && i < p->seg_count; i++) {
        if (!p->hold[i].window || !p->hold[i].window->bound)
            continue;
        list_remove(&op->link);
        list_push_back(&vc->inv, &op->link);
        verbs_dirty(vc);
        return;
    }
    op_end(vc, op);
}
