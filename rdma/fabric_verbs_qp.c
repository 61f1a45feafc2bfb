/*
 * fabric_verbs_qp.c: queue pairs, from birth to drain.
 *
 * Until the peer has proved itself its queue pair allows no remote access. At the end a queue pair says its
 * last word, if it has one, then is stopped; a marker posted behind everything comes back flushed when the
 * device is done with the rest, and what the shared receive queue still completes for it is taken in; or a
 * time is over (some devices forget to flush). Then it is destroyed: from there on the device touches none of
 * its memory, and its ops end.
 */
#include "rdma/fabric_verbs.h"

#include "common/log.h"

#include <stdlib.h>
#include <string.h>

/* ---- making ---- */

static int qp_create(struct verbs_conn *vc)
{
    struct verbs_dev *dev = vc->dev;
    struct verbs_srq *s = verbs_srq_of(vc);
    for (;;) {
        struct ibv_qp_init_attr attr = {.send_cq = vc->cq->cq,
                                        .recv_cq = s->cq,
                                        .srq = s->srq,
                                        .qp_type = IBV_QPT_RC,
                                        .qp_context = vc,
                                        .cap = {.max_send_wr = VERBS_SQ + 1, /* the marker */
                                                .max_send_sge = dev->sge_max,
                                                .max_inline_data = dev->inline_max}};
        errno = 0;
        if (rdma_create_qp(vc->id, dev->pd[verbs_domain(vc)], &attr) == 0)
            return 0;
        if (errno != EINVAL || dev->inline_max == 0)
            return errno ? -errno : -ENOMEM;
        dev->inline_max = dev->inline_max > 64 ? dev->inline_max / 2 : 0; /* this device has less */
    }
}

int verbs_qp_make(struct verbs_conn *vc)
{
    int rc = verbs_dev_get(verbs_fabric_of(vc), vc->id->verbs, &vc->dev);
    if (rc == 0)
        rc = verbs_srq_make(vc->dev, verbs_domain(vc));
    if (rc)
        return rc;
    if (!verbs_srq_promise(vc, VERBS_CONTROL))
        return -ENOBUFS;
    vc->cq = verbs_cq_take(vc->dev, VERBS_SQ + 1);
    if (!vc->cq)
        return -ENOMEM;
    rc = qp_create(vc);
    if (rc)
        return rc;
    vc->has_qp = true;
    vc->qpn = vc->id->qp->qp_num;
    list_push_back(&vc->dev->by_qpn[vc->qpn % VERBS_QPN_BUCKETS], &vc->by_qpn);
    verbs_fabric_of(vc)->core.counters.qps++;
    return 0;
}

int verbs_qp_ready(struct verbs_conn *vc)
{
    struct ibv_qp_attr attr = {.qp_access_flags = 0, .min_rnr_timer = VERBS_RNR_TIMER};
    struct ibv_qp_init_attr init;
    int what = IBV_QP_ACCESS_FLAGS | (vc->dev->iwarp ? 0 : IBV_QP_MIN_RNR_TIMER);
    if (ibv_modify_qp(vc->id->qp, &attr, what))
        return -EIO;
    memset(&attr, 0, sizeof(attr));
    if (ibv_query_qp(vc->id->qp, &attr, IBV_QP_MAX_QP_RD_ATOMIC, &init))
        return -EIO;
    vc->rd_max = (uint32_t)max_u64(attr.max_rd_atomic, 1);
    vc->connected = true;
    if (vc->say)
        verbs_dirty(vc);
    return 0;
}

void verbs_open_access(struct verbs_conn *vc)
{
    /* The side that asked for a domain may expose anything; the other side only what the domain allows. */
    struct ibv_qp_attr attr = {.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE};
    if (!vc->core.initiator && vc->core.peer.domain == FABRIC_DOMAIN_HOST)
        return;
    if (!vc->core.initiator && vc->core.peer.domain == FABRIC_DOMAIN_TABLE)
        attr.qp_access_flags = IBV_ACCESS_REMOTE_READ;
    if (vc->connected && ibv_modify_qp(vc->id->qp, &attr, IBV_QP_ACCESS_FLAGS))
        fabric_core_fail(&vc->core, FABRIC_DOWN_UNREACHABLE);
}

bool verbs_qp_is_broken(struct verbs_conn *vc)
{
    struct ibv_qp_attr attr = {0};
    struct ibv_qp_init_attr init;
    return vc->has_qp && !vc->breaking && ibv_query_qp(vc->id->qp, &attr, IBV_QP_STATE, &init) == 0 &&
           attr.qp_state == IBV_QPS_ERR;
}

/* ---- the end ---- */

/* The last word did not get through in time, the device does not flush, or the address cannot be resolved. */
static void linger_over(struct loop_timer *t)
{
    struct verbs_conn *vc = container_of(t, struct verbs_conn, linger);
    if (!vc->core.lingering) {
        fabric_core_fail(&vc->core, FABRIC_DOWN_UNREACHABLE);
    } else if (!vc->breaking) {
        verbs_qp_break(vc);
    } else {
        verbs_cut(&vc->core);
        fabric_core_gone(&vc->core);
    }
}

int verbs_conn_open(struct verbs_conn *vc)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    list_init(&vc->dirty);
    list_init(&vc->by_qpn);
    list_init(&vc->drained);
    list_init(&vc->tx);
    list_init(&vc->rd);
    list_init(&vc->inv);
    loop_timer_init(&vc->linger, linger_over);
    vc->last_rx_ns = vc->heard_ns = vc->last_tx_ns = loop_now_ns(vf->core.env->loop);
    int rc = slots_take(&vf->slots, vc, &vc->slot);
    if (rc)
        return rc;
    if ((uint32_t)vc->slot > 0xffff) {
        slots_put(&vf->slots, vc->slot);
        return -EMFILE;
    }
    vc->open = true;
    return 0;
}

static void qp_stop(struct verbs_conn *vc)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    if (vc->breaking || !vc->has_qp)
        return;
    vc->breaking = true;
    list_remove(&vc->dirty);
    (void)ibv_modify_qp(vc->id->qp, &attr, IBV_QP_STATE);
    verbs_windows_revoke(vc);
}

void verbs_qp_break(struct verbs_conn *vc)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    struct ibv_send_wr *bad;
    struct ibv_send_wr marker = {.wr_id = verbs_wr_id(vc, VERBS_WR_MARKER, 0),
                                 .opcode = IBV_WR_RDMA_WRITE,
                                 .send_flags = IBV_SEND_SIGNALED};
    if (vc->breaking || !vc->has_qp)
        return;
    qp_stop(vc);
    vf->core.counters.send_calls++;
    bool posted = ibv_post_send(vc->id->qp, &marker, &bad) == 0;
    loop_timer_arm(vf->core.env->loop, &vc->linger, posted ? VERBS_DRAIN_NS : 0);
}

static void pins_drop(struct verbs_conn *vc, struct list *ops)
{
    list_for_each(n, ops) verbs_unpin(vc, list_entry(n, struct fabric_op, link));
}

/* Takes the connection's own things apart; its ops are in core.active. */
static void conn_teardown(struct verbs_conn *vc)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    if (!vc->open)
        return;
    qp_stop(vc);
    vc->open = vc->connected = false;
    loop_timer_cancel(vf->core.env->loop, &vc->linger);
    list_remove(&vc->dirty);
    list_remove(&vc->drained);
    list_remove(&vc->by_qpn);
    if (vc->has_qp) {
        rdma_destroy_qp(vc->id);
        vf->core.counters.qps--;
    }
    vc->has_qp = false;
    if (vc->id)
        rdma_destroy_id(vc->id);
    vc->id = NULL;
    if (vc->cq)
        vc->cq->room += VERBS_SQ + 1;
    vc->cq = NULL;
    if (vc->promised)
        verbs_srq_release(vc, vc->promised);
    for (; vc->sq_tail != vc->sq_head; vc->sq_tail++)
        if (vc->sq[vc->sq_tail % VERBS_SQ].buf)
            verbs_buf_put(vc->sq[vc->sq_tail % VERBS_SQ].buf);
    slots_put(&vf->slots, vc->slot);
    list_splice(&vc->core.active, &vc->tx);
    list_splice(&vc->core.active, &vc->rd);
    list_splice(&vc->core.active, &vc->inv);
    pins_drop(vc, &vc->core.active);
}

void verbs_shut(struct fabric_conn *conn, bool polite)
{
    struct verbs_conn *vc = verbs_conn_of(conn);
    struct loop *loop = conn->fabric->env->loop;
    if (!vc->open)
        return;
    list_remove(&vc->dirty);
    if (vc->has_qp && vc->connected) {
        conn->lingering = true;
        if ((polite || (vc->say & VERBS_SAY_REFUSE)) && verbs_last_word(vc))
            loop_timer_arm(loop, &vc->linger, VERBS_LINGER_NS);
        else
            verbs_qp_break(vc);
        return;
    }
    conn_teardown(vc);
}

void verbs_cut(struct fabric_conn *conn)
{
    conn_teardown(verbs_conn_of(conn));
}

void verbs_qp_reap(struct verbs_fabric *vf)
{
    for (struct list *n; (n = list_pop_front(&vf->drained));) {
        struct verbs_conn *vc = container_of(n, struct verbs_conn, drained);
        verbs_cut(&vc->core);
        fabric_core_gone(&vc->core);
    }
}

void verbs_conn_free(struct fabric_conn *conn)
{
    struct verbs_conn *vc = verbs_conn_of(conn);
    for (uint32_t i = 0; vc->imports && i < VERBS_IMPORTS; i++)
        free(vc->imports[i]);
    free(vc->imports);
    free(vc->slots_free);
}
