/* fabric_verbs_rx.c: receiving on verbs: buffers, frames from the peer (hostile until checked), completions.
 */
#include "rdma/fabric_verbs.h"

#include "common/log.h"

#include <stdlib.h>
#include <string.h>

/* ---- buffers ---- */

static int recv_post(struct verbs_conn *vc, struct verbs_buf *buf)
{
    struct ibv_sge sge = {.addr = (uintptr_t)buf->data, .length = VERBS_BUF_BYTES, .lkey = buf->lkey};
    struct ibv_recv_wr wr = {
        .wr_id = verbs_wr_id(vc, VERBS_WR_RECV, buf->index), .sg_list = &sge, .num_sge = 1};
    struct ibv_recv_wr *bad;
    int rc = ibv_post_recv(vc->id->qp, &wr, &bad);
    vc->core.fabric->counters.recv_calls++;
    if (rc) {
        verbs_buf_put(verbs_fabric_of(vc), buf);
        return -rc;
    }
    list_push_back(&vc->posted, &buf->link);
    vc->rq_posted++;
    return 0;
}

int verbs_recv_post(struct verbs_conn *vc, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct verbs_buf *buf = verbs_buf_take(verbs_fabric_of(vc), verbs_domain(vc));
        int rc = buf ? recv_post(vc, buf) : -ENOMEM;
        if (rc)
            return rc;
    }
    return 0;
}

/* Lends more to a peer that uses what it has. */
void verbs_credit(struct fabric_conn *conn)
{
    struct verbs_conn *vc = verbs_conn_of(conn);
    uint32_t most = conn->fabric->config.recv_messages;
    uint32_t more = (uint32_t)min_u64(conn->rx_lent, most - min_u64(most, conn->rx_lent));
    uint32_t before = vc->rq_posted;
    if (more) {
        (void)verbs_recv_post(vc, more); /* as many as could be had are lent */
        more = vc->rq_posted - before;
        conn->rx_lent += more;
        conn->rx_owed += more;
    }
    verbs_say(vc, VERBS_SAY_CREDIT);
}

/* ---- frames ---- */

static bool segs_good(const struct verbs_seg *s, unsigned count, uint32_t *total)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++) {
        if (s[i].len == 0 || s[i].key == 0)
            return false;
        sum += s[i].len;
    }
    *total = (uint32_t)min_u64(sum, UINT32_MAX);
    return sum <= FABRIC_PAYLOAD_MAX;
}

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
                                      uint16_t slot)
{
    if (count == 0)
        return (struct fabric_remote){0};
    if (count == 1)
        return (struct fabric_remote){.addr = s->addr, .len = total, .key = s->key};
    return (struct fabric_remote){.addr = slot, .len = total, .key = 0};
}

static bool rx_message(struct verbs_conn *vc, const struct verbs_frame *f, const uint8_t *at)
{
    struct verbs_seg seg[VERBS_SEGS];
    uint32_t source_len = 0, sink_len = 0;
    if (f->len == 0 || f->len > FABRIC_MESSAGE_MAX || vc->core.state != CONN_UP)
        return false;
    unsigned count = (unsigned)f->source_count + f->sink_count;
    const struct verbs_seg *sink = seg + f->source_count;
    memcpy(seg, at, count * sizeof(seg[0]));
    if (!segs_good(seg, f->source_count, &source_len) || !segs_good(sink, f->sink_count, &sink_len))
        return false;
    if (f->source_count > 1 || f->sink_count > 1) {
        struct verbs_import *m = f->slot < VERBS_IMPORTS ? import_of(vc, f->slot) : NULL;
        if (!m)
            return false;
        m->source_count = f->source_count;
        m->sink_count = f->sink_count;
        memcpy(m->source, seg, f->source_count * sizeof(seg[0]));
        memcpy(m->sink, sink, f->sink_count * sizeof(seg[0]));
    }
    struct fabric_msg msg = {.data = at + count * sizeof(seg[0]), .len = f->len};
    msg.source = remote_of(seg, f->source_count, source_len, f->slot);
    msg.sink = remote_of(sink, f->sink_count, sink_len, f->slot);
    fabric_core_message(&vc->core, &msg);
    return true;
}

static bool rx_auth(struct verbs_conn *vc, const struct verbs_frame *f, const uint8_t *body)
{
    struct fabric_auth a;
    if (f->len != sizeof(a) || vc->core.state != CONN_AUTH)
        return false;
    memcpy(&a, body, sizeof(a));
    fabric_core_auth(&vc->core, &a);
    if (vc->core.state == CONN_UP)
        verbs_open_access(vc);
    return true;
}

/* False: the peer broke the protocol. */
static bool rx_frame(struct verbs_conn *vc, const uint8_t *data, uint32_t bytes)
{
    struct verbs_frame f;
    if (bytes < sizeof(f))
        return false;
    memcpy(&f, data, sizeof(f));
    if (f.magic != VERBS_FRAME_MAGIC || f.source_count > FABRIC_SGE_MAX || f.sink_count > FABRIC_SGE_MAX)
        return false;
    uint64_t want = sizeof(f) + ((uint64_t)f.source_count + f.sink_count) * sizeof(struct verbs_seg) + f.len;
    if (want != bytes)
        return false;
    if (f.credits) {
        /* More than the queue may ever hold was never lent. */
        if (vc->core.state != CONN_UP || vc->core.tx_credits + f.credits > 65535)
            return false;
        fabric_core_credits(&vc->core, f.credits);
        if (!vc->open)
            return true;
    }
    switch ((enum verbs_frame_type)f.type) {
    case VERBS_FRAME_AUTH:
        return rx_auth(vc, &f, data + sizeof(f));
    case VERBS_FRAME_REFUSE:
        if (f.slot < FABRIC_DOWN_PEER_CLOSED || f.slot > FABRIC_DOWN_UNREACHABLE)
            return false;
        fabric_core_fail(&vc->core, (enum fabric_down)f.slot);
        return true;
    case VERBS_FRAME_CLOSE:
        fabric_core_fail(&vc->core, FABRIC_DOWN_PEER_CLOSED);
        return true;
    case VERBS_FRAME_BEAT:
    case VERBS_FRAME_CREDIT:
        return true;
    case VERBS_FRAME_MESSAGE:
        return rx_message(vc, &f, data + sizeof(f));
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
    default:
        return FABRIC_DOWN_PEER_DIED;
    }
}

static void completed_badly(struct verbs_conn *vc, const struct ibv_wc *wc)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    if (vc->core.lingering) {
        verbs_cut(&vc->core);
        fabric_core_gone(&vc->core);
        return;
    }
    if (wc->status == IBV_WC_RETRY_EXC_ERR || wc->status == IBV_WC_RNR_RETRY_EXC_ERR)
        vf->core.counters.retries_exhausted++;
    if (wc->status == IBV_WC_LOC_PROT_ERR || wc->status == IBV_WC_LOC_QP_OP_ERR)
        log_error(vf->core.env, "the RDMA device refuses memory of this process", "status=\"%s\"",
                  ibv_wc_status_str(wc->status));
    fabric_core_fail(&vc->core, reason_of(vc, wc));
}

static void received(struct verbs_conn *vc, const struct ibv_wc *wc, uint32_t index)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    MUST(index < vf->buf_count);
    struct verbs_buf *buf = vf->bufs[index];
    list_remove(&buf->link);
    vc->rq_posted--;
    if (wc->status != IBV_WC_SUCCESS || vc->core.lingering) {
        verbs_buf_put(vf, buf);
        if (wc->status != IBV_WC_SUCCESS)
            completed_badly(vc, wc);
        return;
    }
    vc->last_rx_ns = vc->heard_ns = loop_now_ns(vf->core.env->loop);
    if (wc->opcode != IBV_WC_RECV || !rx_frame(vc, buf->data, wc->byte_len))
        fabric_core_refuse(&vc->core, FABRIC_DOWN_PROTOCOL);
    if (!vc->open || vc->core.lingering)
        verbs_buf_put(vf, buf);
    else if (recv_post(vc, buf) != 0)
        fabric_core_fail(&vc->core, FABRIC_DOWN_PEER_DIED);
}

void verbs_completion(struct verbs_fabric *vf, const struct ibv_wc *wc)
{
    uint32_t slot = (uint32_t)(wc->wr_id & 0xffff), use = (uint32_t)(wc->wr_id >> 16 & 0xffffff);
    uint32_t index = (uint32_t)(wc->wr_id >> 42);
    if (slot >= vf->slots.size || !vf->slots.slot[slot].object ||
        ((vf->slots.slot[slot].use ^ use) & 0xffffff) != 0)
        return; /* of a connection that is gone: its buffers are taken back already */
    struct verbs_conn *vc = vf->slots.slot[slot].object;
    if ((wc->wr_id >> 40 & 3) == VERBS_WR_RECV) {
        received(vc, wc, index);
    } else if (wc->status != IBV_WC_SUCCESS) {
        completed_badly(vc, wc);
    } else if (!verbs_sent(vc, index) && vc->core.lingering) {
        verbs_cut(&vc->core);
        fabric_core_gone(&vc->core);
    }
}
