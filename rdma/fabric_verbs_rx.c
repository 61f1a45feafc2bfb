/* fabric_verbs_rx.c: receiving on verbs: frames from the peer (hostile until decoded), credits, completions.
 */
#include "rdma/fabric_verbs.h"

#include "common/log.h"

#include <stdlib.h>
#include <string.h>

/* ---- credits ---- */

uint32_t verbs_lend(struct fabric_conn *conn)
{
    struct verbs_conn *vc = verbs_conn_of(conn);
    uint32_t n = (uint32_t)min_u64(conn->fabric->config.recv_messages, VERBS_LEND_FIRST);
    if (!vc->has_qp)
        return 0;
    if (!verbs_srq_promise(vc, n)) {
        n = VERBS_LEND_MIN;
        if (!verbs_srq_promise(vc, n)) {
            static struct log_limit limit = {.interval_ns = 10 * NS_PER_S};
            if (log_allow(conn->fabric->env, &limit))
                log_warn(conn->fabric->env, "no receive buffers for more connections", "buffers=%u",
                         verbs_srq_of(vc)->size);
            return 0;
        }
    }
    vc->granted = n;
    return n;
}

/* Lends more to a peer that uses what it has; the last quarter is for new connections. */
void verbs_credit(struct fabric_conn *conn)
{
    struct verbs_conn *vc = verbs_conn_of(conn);
    const struct verbs_srq *s = verbs_srq_of(vc);
    uint32_t most = conn->fabric->config.recv_messages, spare = s->size - s->size / 4;
    uint32_t more = (uint32_t)min_u64(conn->rx_lent, most - min_u64(most, conn->rx_lent));
    more = (uint32_t)min_u64(more, spare - min_u64(spare, s->promised));
    if (more && vc->recalled == 0 && verbs_srq_promise(vc, more)) {
        conn->rx_lent += more;
        conn->rx_owed += more;
    }
    verbs_say(vc, VERBS_SAY_CREDIT);
}

void verbs_idle(struct verbs_conn *vc)
{
    if (vc->messages != vc->messages_seen) {
        vc->messages_seen = vc->messages;
        vc->idle_ticks = 0;
        return;
    }
    if (++vc->idle_ticks < VERBS_IDLE_TICKS || vc->recalled || vc->core.rx_lent <= VERBS_LEND_MIN)
        return;
    vc->idle_ticks = 0;
    vc->recalled = vc->core.rx_lent - VERBS_LEND_MIN;
    verbs_say(vc, VERBS_SAY_RECALL);
}

/* The peer would like some of what it lent. */
static void rx_recall(struct verbs_conn *vc, uint32_t n)
{
    uint32_t held = vc->core.tx_credits;
    uint32_t give = held > VERBS_LEND_MIN ? (uint32_t)min_u64(n, held - VERBS_LEND_MIN) : 0;
    vc->core.tx_credits -= give;
    vc->returned = (uint32_t)min_u64(vc->returned + give, UINT16_MAX);
    verbs_say(vc, VERBS_SAY_RETURN);
}

/* False: it gives back what it was not asked for, or does not have. */
static bool rx_return(struct verbs_conn *vc, uint32_t n)
{
    if (n > vc->recalled || n > vc->granted)
        return false;
    vc->recalled = 0;
    vc->granted -= n;
    vc->core.rx_lent -= n;
    verbs_srq_release(vc, n);
    return true;
}

/* ---- frames ---- */

static struct verbs_import *import_of(struct verbs_conn *vc, uint16_t slot)
{
    if (!vc->imports)
        vc->imports = calloc(VERBS_IMPORTS, sizeof(struct verbs_import *));
    if (vc->imports && !vc->imports[slot])
        vc->imports[slot] = calloc(1, sizeof(struct verbs_import));
    return vc->imports ? vc->imports[slot] : NULL;
}

/* What the message exposes, as the core's remote. */
static struct fabric_remote remote_of(const struct verbs_seg *s, unsigned count, uint32_t total,
                                      uint16_t slot, bool ends)
{
    if (count == 0)
        return (struct fabric_remote){0};
    if (count == 1)
        return (struct fabric_remote){
            .addr = s->addr, .len = total, .key = s->key, .flags = ends ? VERBS_REMOTE_ENDS : 0};
    return (struct fabric_remote){.addr = slot, .len = total, .key = 0};
}

static bool rx_message(struct verbs_conn *vc, const struct verbs_decoded *d)
{
    const struct verbs_frame *f = &d->frame;
    const struct verbs_seg *sink = d->seg + f->source_count;
    if (vc->granted == 0) /* more than it was lent */
        return false;
    vc->granted--;
    vc->messages++;
    if (f->source_count > 1 || f->sink_count > 1) {
        struct verbs_import *m = import_of(vc, f->slot);
        if (!m)
            return false;
        m->source_count = f->source_count;
        m->sink_count = f->sink_count;
        memcpy(m->source, d->seg, f->source_count * sizeof(d->seg[0]));
        memcpy(m->sink, sink, f->sink_count * sizeof(d->seg[0]));
    }
    struct fabric_msg msg = {.data = d->body, .len = f->len};
    msg.source =
        remote_of(d->seg, f->source_count, d->source_len, f->slot, f->flags & VERBS_FRAME_ENDS_SOURCE);
    msg.sink = remote_of(sink, f->sink_count, d->sink_len, f->slot, f->flags & VERBS_FRAME_ENDS_SINK);
    fabric_core_message(&vc->core, &msg);
    return true;
}

static void rx_auth(struct verbs_conn *vc, const uint8_t *body)
{
    struct fabric_auth a;
    memcpy(&a, body, sizeof(a));
    fabric_core_auth(&vc->core, &a);
    if (vc->core.state == CONN_UP)
        verbs_open_access(vc);
}

/* False: the peer broke the protocol. */
static bool rx_frame(struct verbs_conn *vc, const uint8_t *data, uint32_t bytes)
{
    struct verbs_decoded d;
    const struct verbs_frame *f = &d.frame;
    if (!verbs_frame_decode(data, bytes, vc->core.state == CONN_UP, &d))
        return false;
    if (f->credits) {
        if (vc->core.tx_credits + f->credits > 65535) /* more than a queue may ever hold was never lent */
            return false;
        fabric_core_credits(&vc->core, f->credits);
        if (vc->core.state != CONN_UP)
            return true;
    }
    switch ((enum verbs_frame_type)f->type) {
    case VERBS_FRAME_AUTH:
        rx_auth(vc, d.body);
        return true;
    case VERBS_FRAME_REFUSE:
        fabric_core_fail(&vc->core, (enum fabric_down)f->slot);
        return true;
    case VERBS_FRAME_CLOSE:
        fabric_core_fail(&vc->core, FABRIC_DOWN_PEER_CLOSED);
        return true;
    case VERBS_FRAME_BEAT:
    case VERBS_FRAME_CREDIT:
        return true;
    case VERBS_FRAME_MESSAGE:
        return rx_message(vc, &d);
    case VERBS_FRAME_RECALL:
        rx_recall(vc, f->slot);
        return true;
    case VERBS_FRAME_RETURN:
        return rx_return(vc, f->slot);
    }
    return false;
}

/* ---- completions ---- */

static enum fabric_down reason_of(const struct verbs_conn *vc, const struct ibv_wc *wc)
{
    switch (wc->status) {
    case IBV_WC_REM_ACCESS_ERR:
    case IBV_WC_REM_INV_REQ_ERR:
        return FABRIC_DOWN_ACCESS;
    case IBV_WC_WR_FLUSH_ERR:
        /* The queue pair broke by itself and no request of ours failed: the peer made a bad access. */
        return vc->core.state == CONN_UP ? FABRIC_DOWN_ACCESS : FABRIC_DOWN_PEER_DIED;
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RNR_RETRY_EXC_ERR:
    case IBV_WC_RESP_TIMEOUT_ERR:
        return FABRIC_DOWN_TIMEOUT;
    case IBV_WC_LOC_LEN_ERR:
    case IBV_WC_REM_OP_ERR:
        return FABRIC_DOWN_PROTOCOL;
    default: /* this side's trouble */
        return FABRIC_DOWN_UNREACHABLE;
    }
}

static void completed_badly(struct verbs_conn *vc, const struct ibv_wc *wc)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    if (vc->core.lingering) {
        verbs_qp_break(vc); /* the last word cannot get through */
        return;
    }
    if (wc->status == IBV_WC_RETRY_EXC_ERR || wc->status == IBV_WC_RNR_RETRY_EXC_ERR)
        vf->core.counters.retries_exhausted++;
    if (wc->status == IBV_WC_LOC_PROT_ERR || wc->status == IBV_WC_LOC_QP_OP_ERR ||
        wc->status == IBV_WC_MW_BIND_ERR)
        log_error(vf->core.env, "the RDMA device refuses memory of this process", "status=\"%s\"",
                  ibv_wc_status_str(wc->status));
    fabric_core_fail(&vc->core, reason_of(vc, wc));
}

/* Whether the message invalidated a window here. Soft-RoCE passes the kernel's number of that flag, which is
 * another one's in user space. */
static bool has_ended(const struct verbs_dev *dev, const struct ibv_wc *wc)
{
    return wc->wc_flags & (IBV_WC_WITH_INV | (dev->soft ? IBV_WC_IP_CSUM_OK : 0));
}

static void received(struct verbs_dev *dev, const struct ibv_wc *wc, uint32_t index)
{
    struct verbs_fabric *vf = dev->vf;
    MUST(index < vf->buf_count);
    struct verbs_buf *buf = vf->bufs[index];
    struct verbs_srq *s = &dev->srq[buf->domain];
    struct verbs_conn *vc = verbs_dev_conn(dev, wc->qp_num);
    vf->core.counters.buffers_out++;
    if (!vc || !vc->open || vc->core.state == CONN_DOWN) {
        /* of a connection that is gone or going */
    } else if (wc->status == IBV_WC_WR_FLUSH_ERR) {
        completed_badly(vc, wc);
    } else if (wc->status != IBV_WC_SUCCESS) { /* longer than any frame may be, or it ends what is not there
                                                  to be ended; devices call it by several names */
        fabric_core_fail(&vc->core,
                         wc->status == IBV_WC_REM_INV_REQ_ERR ? FABRIC_DOWN_ACCESS : FABRIC_DOWN_PROTOCOL);
    } else {
        vc->last_rx_ns = vc->heard_ns = loop_now_ns(vf->core.env->loop);
        /* First: who handles the message retires what it was exposed for. */
        if (wc->opcode != IBV_WC_RECV ||
            (has_ended(dev, wc) && !verbs_ended_by_peer(vc, wc->invalidated_rkey)) ||
            !rx_frame(vc, buf->data, wc->byte_len))
            fabric_core_refuse(&vc->core, FABRIC_DOWN_PROTOCOL);
    }
    list_push_back(&s->repost, &buf->link);
}

void verbs_completion(struct verbs_dev *dev, const struct ibv_wc *wc)
{
    struct slots *slots = &dev->vf->slots;
    uint32_t slot = (uint32_t)(wc->wr_id & 0xffff), use = (uint32_t)(wc->wr_id >> 16 & 0xffffff);
    uint32_t index = (uint32_t)(wc->wr_id >> 42);
    unsigned kind = wc->wr_id >> 40 & 3;
    if (kind == VERBS_WR_RECV) {
        received(dev, wc, index);
        return;
    }
    if (slot >= slots->size || !slots->slot[slot].object || ((slots->slot[slot].use ^ use) & 0xffffff) != 0)
        return; /* of a connection that is gone: its buffers are taken back already */
    struct verbs_conn *vc = slots->slot[slot].object;
    if (kind == VERBS_WR_MARKER) {
        if (vc->core.lingering && list_unlinked(&vc->drained))
            list_push_back(&dev->vf->drained, &vc->drained);
    } else if (wc->status != IBV_WC_SUCCESS) {
        completed_badly(vc, wc);
    } else if (!verbs_sent(vc, index) && vc->core.lingering) {
        verbs_qp_break(vc); /* the last word is out */
    }
}
