/*
 * fabric_verbs_cm.c: connections on librdmacm: from address to queue pair, the listener's side, and the end.
 *
 * Both hellos travel as private data of the connection manager. Until the peer has proved itself its queue
 * pair allows no remote access and has few receive buffers. The end is synchronous: once the queue pair is
 * destroyed the device touches none of its memory, and what completes later finds no connection.
 */
#include "rdma/fabric_verbs.h"

#include "common/log.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define CM_BURST           16
#define RESOLVE_TIMEOUT_MS 2000
#define VERBS_REJECT_MAGIC 0x52534943u /* "CISR" */
#define CM_REJ_CONSUMER    28 /* IBTA 12.6.7.2: the listener's own reason; rdma_cm passes it as status */

/* Private data of a rejected request. */
struct verbs_refusal {
    uint32_t magic, reason;
};

/* ---- addresses ---- */

union verbs_sockaddr {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

static void sockaddr_from(const struct fabric_addr *a, uint16_t port, union verbs_sockaddr *s)
{
    memset(s, 0, sizeof(*s));
    if (a->family == 6) {
        s->in6.sin6_family = AF_INET6;
        s->in6.sin6_port = htons(port);
        memcpy(&s->in6.sin6_addr, a->ip, 16);
    } else {
        s->in.sin_family = AF_INET;
        s->in.sin_port = htons(port);
        memcpy(&s->in.sin_addr, a->ip, 4);
    }
}

static void sockaddr_to(const struct sockaddr *sa, struct fabric_addr *a)
{
    union verbs_sockaddr s;
    memset(a, 0, sizeof(*a));
    a->provider = FABRIC_PROVIDER_VERBS;
    if (sa->sa_family == AF_INET6) {
        memcpy(&s.in6, sa, sizeof(s.in6));
        a->family = 6;
        a->port = ntohs(s.in6.sin6_port);
        memcpy(a->ip, &s.in6.sin6_addr, 16);
    } else {
        memcpy(&s.in, sa, sizeof(s.in));
        a->family = 4;
        a->port = ntohs(s.in.sin_port);
        memcpy(a->ip, &s.in.sin_addr, 4);
    }
}

int verbs_device_find(struct verbs_fabric *vf)
{
    if (vf->local.family) {
        struct rdma_cm_id *id;
        union verbs_sockaddr s;
        sockaddr_from(&vf->local, 0, &s);
        if (rdma_create_id(vf->cm, &id, NULL, RDMA_PS_TCP))
            return -ENODEV;
        if (rdma_bind_addr(id, &s.sa) == 0)
            vf->ctx = id->verbs;
        rdma_destroy_id(id);
        return vf->ctx ? 0 : -ENODEV;
    }
    int count = 0;
    struct ibv_context **list = rdma_get_devices(&count);
    if (list && count > 0)
        vf->ctx = list[0];
    if (list)
        rdma_free_devices(list);
    return vf->ctx ? 0 : -ENODEV;
}

/* ---- connections ---- */

/* The last word did not get through in time, or the address cannot be resolved. */
static void linger_over(struct loop_timer *t)
{
    struct verbs_conn *vc = container_of(t, struct verbs_conn, linger);
    if (!vc->core.lingering) {
        fabric_core_fail(&vc->core, FABRIC_DOWN_UNREACHABLE);
        return;
    }
    verbs_cut(&vc->core);
    fabric_core_gone(&vc->core);
}

static int conn_open(struct verbs_conn *vc)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    list_init(&vc->dirty);
    list_init(&vc->posted);
    list_init(&vc->tx);
    list_init(&vc->rd);
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

/* Takes the connection's own things apart; its ops are in core.active. */
static void conn_teardown(struct verbs_conn *vc)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    if (!vc->open)
        return;
    vc->open = vc->connected = false;
    loop_timer_cancel(vf->core.env->loop, &vc->linger);
    list_remove(&vc->dirty);
    if (vc->has_qp) {
        rdma_destroy_qp(vc->id);
        vf->core.counters.qps--;
    }
    vc->has_qp = false;
    if (vc->id)
        rdma_destroy_id(vc->id);
    vc->id = NULL;
    if (vc->cq)
        vc->cq->room += VERBS_SQ + vc->rq_size;
    vc->cq = NULL;
    for (struct list *n; (n = list_pop_front(&vc->posted));)
        verbs_buf_put(vf, list_entry(n, struct verbs_buf, link));
    for (; vc->sq_tail != vc->sq_head; vc->sq_tail++)
        if (vc->sq[vc->sq_tail % VERBS_SQ].buf)
            verbs_buf_put(vf, vc->sq[vc->sq_tail % VERBS_SQ].buf);
    slots_put(&vf->slots, vc->slot);
    list_splice(&vc->core.active, &vc->tx);
    list_splice(&vc->core.active, &vc->rd);
    list_for_each(n, &vc->core.active) verbs_unpin(vc, list_entry(n, struct fabric_op, link));
}

void verbs_shut(struct fabric_conn *conn, bool polite)
{
    struct verbs_conn *vc = verbs_conn_of(conn);
    if (!vc->open)
        return;
    if ((polite || (vc->say & VERBS_SAY_REFUSE)) && verbs_last_word(vc)) {
        conn->lingering = true;
        list_remove(&vc->dirty);
        loop_timer_arm(conn->fabric->env->loop, &vc->linger, VERBS_LINGER_NS);
        return;
    }
    conn_teardown(vc);
}

void verbs_cut(struct fabric_conn *conn)
{
    conn_teardown(verbs_conn_of(conn));
}

void verbs_conn_free(struct fabric_conn *conn)
{
    struct verbs_conn *vc = verbs_conn_of(conn);
    for (uint32_t i = 0; vc->imports && i < VERBS_IMPORTS; i++)
        free(vc->imports[i]);
    free(vc->imports);
    free(vc->slots_free);
}

/* ---- queue pairs ---- */

static int qp_make(struct verbs_conn *vc)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    if (vc->id->verbs != vf->ctx)
        return -EXDEV;
    vc->rq_size = vf->core.config.recv_messages + VERBS_RQ_CONTROL;
    vc->cq = verbs_cq_take(vf, VERBS_SQ + vc->rq_size);
    if (!vc->cq)
        return -ENOMEM;
    struct ibv_qp_init_attr attr = {
        .send_cq = vc->cq->cq, .recv_cq = vc->cq->cq, .qp_type = IBV_QPT_RC, .qp_context = vc};
    attr.cap = (struct ibv_qp_cap){.max_send_wr = VERBS_SQ,
                                   .max_recv_wr = vc->rq_size,
                                   .max_send_sge = vf->sge_max,
                                   .max_recv_sge = 1,
                                   .max_inline_data = vf->inline_max};
    int rc = rdma_create_qp(vc->id, vf->pd[verbs_domain(vc)], &attr);
    while (rc && errno == EINVAL && vf->inline_max > 0) { /* this device has less */
        vf->inline_max = vf->inline_max > 64 ? vf->inline_max / 2 : 0;
        attr.cap.max_inline_data = vf->inline_max;
        attr.cap.max_send_wr = VERBS_SQ;
        attr.cap.max_recv_wr = vc->rq_size;
        attr.cap.max_send_sge = vf->sge_max;
        rc = rdma_create_qp(vc->id, vf->pd[verbs_domain(vc)], &attr);
    }
    if (rc)
        return errno ? -errno : -ENOMEM;
    vc->has_qp = true;
    vf->core.counters.qps++;
    return verbs_recv_post(vc, VERBS_RQ_HELLO);
}

/* The queue pair can send and receive now: closes it to remote access, asks what was negotiated. */
static int qp_ready(struct verbs_conn *vc)
{
    struct ibv_qp_attr attr = {.qp_access_flags = 0, .min_rnr_timer = VERBS_RNR_TIMER};
    struct ibv_qp_init_attr init;
    if (ibv_modify_qp(vc->id->qp, &attr, IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER))
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
        fabric_core_fail(&vc->core, FABRIC_DOWN_PEER_DIED);
}

static void ack_timeout_set(struct rdma_cm_id *id)
{
    uint8_t timeout = VERBS_ACK_TIMEOUT;
    /* Without it a dead host is noticed by the beats. */
    (void)rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof(timeout));
}

/* ---- connecting ---- */

int verbs_connect(struct fabric_conn *conn, const struct fabric_addr *addr)
{
    struct verbs_conn *vc = verbs_conn_of(conn);
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    union verbs_sockaddr from, to;
    sockaddr_from(addr, addr->port, &to);
    sockaddr_from(&vf->local, 0, &from);
    int rc = conn_open(vc);
    if (rc)
        return rc;
    bool bound = vf->local.family && vf->local.family == addr->family;
    if (rdma_create_id(vf->cm, &vc->id, vc, RDMA_PS_TCP)) {
        rc = errno ? -errno : -EIO;
        conn_teardown(vc);
        return rc;
    }
    /* No route, or no RDMA device on it: told later, like any other reason. */
    if (rdma_resolve_addr(vc->id, bound ? &from.sa : NULL, &to.sa, RESOLVE_TIMEOUT_MS))
        loop_timer_arm(vf->core.env->loop, &vc->linger, 0);
    return 0;
}

static int route_resolved(struct verbs_conn *vc)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    int rc = qp_make(vc);
    if (rc)
        return rc;
    struct rdma_conn_param p = {.private_data = &vc->core.hello_mine,
                                .private_data_len = sizeof(vc->core.hello_mine),
                                .responder_resources = (uint8_t)vf->rd_max,
                                .initiator_depth = (uint8_t)vf->rd_max,
                                .flow_control = 1,
                                .retry_count = VERBS_RETRIES,
                                .rnr_retry_count = 7};
    return rdma_connect(vc->id, &p) ? -errno : 0;
}

static void established(struct verbs_conn *vc, const void *data, size_t len)
{
    struct fabric_hello hello;
    if (!vc->core.initiator) /* its hello came with the request */
        return;
    if (len < sizeof(hello) || qp_ready(vc)) {
        fabric_core_fail(&vc->core, len < sizeof(hello) ? FABRIC_DOWN_PROTOCOL : FABRIC_DOWN_PEER_DIED);
        return;
    }
    memcpy(&hello, data, sizeof(hello));
    fabric_core_hello(&vc->core, &hello);
}

static enum fabric_down rejected_reason(int status, const void *data, size_t len)
{
    struct verbs_refusal r;
    if (status != CM_REJ_CONSUMER || len < sizeof(r))
        return FABRIC_DOWN_REFUSED;
    memcpy(&r, data, sizeof(r));
    if (r.magic != VERBS_REJECT_MAGIC || r.reason < FABRIC_DOWN_PEER_CLOSED ||
        r.reason > FABRIC_DOWN_UNREACHABLE)
        return FABRIC_DOWN_REFUSED;
    return (enum fabric_down)r.reason;
}

/* ---- listening ---- */

int verbs_listen(struct fabric_listener *core, const struct fabric_addr *addr)
{
    struct verbs_listener *l = container_of(core, struct verbs_listener, core);
    struct verbs_fabric *vf = verbs_of(core->fabric);
    union verbs_sockaddr s;
    sockaddr_from(addr, addr->port, &s);
    if (rdma_create_id(vf->cm, &l->id, l, RDMA_PS_TCP))
        return errno ? -errno : -EIO;
    if (rdma_bind_addr(l->id, &s.sa) || rdma_listen(l->id, 1024)) {
        int rc = errno ? -errno : -EIO;
        rdma_destroy_id(l->id);
        return rc;
    }
    core->addr = *addr;
    core->addr.port = ntohs(rdma_get_src_port(l->id));
    return 0;
}

void verbs_unlisten(struct fabric_listener *core)
{
    rdma_destroy_id(container_of(core, struct verbs_listener, core)->id);
}

static void requested(struct rdma_cm_id *listen_id, struct rdma_cm_id *id,
                      const struct rdma_conn_param *param, const void *data, size_t len)
{
    struct verbs_listener *l = listen_id->context;
    struct fabric_hello hello;
    struct fabric_addr from;
    sockaddr_to(rdma_get_peer_addr(id), &from);
    struct fabric_conn *conn = len < sizeof(hello) ? NULL : fabric_core_incoming(&l->core, &from);
    if (!conn) {
        (void)rdma_reject(id, NULL, 0);
        rdma_destroy_id(id);
        return;
    }
    struct verbs_conn *vc = verbs_conn_of(conn);
    if (conn_open(vc) != 0) {
        (void)rdma_reject(id, NULL, 0);
        rdma_destroy_id(id);
        fabric_core_fail(conn, FABRIC_DOWN_UNREACHABLE);
        return;
    }
    vc->id = id;
    vc->param = *param;
    id->context = vc;
    memcpy(&hello, data, sizeof(hello));
    fabric_core_hello(conn, &hello);
}

void verbs_accept(struct verbs_conn *vc, const struct fabric_hello *hello)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    ack_timeout_set(vc->id);
    int rc = qp_make(vc);
    struct rdma_conn_param p = {.private_data = hello,
                                .private_data_len = sizeof(*hello),
                                .responder_resources =
                                    (uint8_t)min_u64(vf->rd_max, vc->param.responder_resources),
                                .initiator_depth = (uint8_t)min_u64(vf->rd_max, vc->param.initiator_depth),
                                .flow_control = 1,
                                .rnr_retry_count = 7};
    if (rc == 0 && rdma_accept(vc->id, &p))
        rc = errno ? -errno : -EIO;
    if (rc == 0)
        rc = qp_ready(vc);
    if (rc) {
        log_warn(vf->core.env, "cannot take a connection", "errno=%d", -rc);
        fabric_core_fail(&vc->core, FABRIC_DOWN_UNREACHABLE);
    }
}

void verbs_reject(struct verbs_conn *vc, enum fabric_down reason)
{
    struct verbs_refusal r = {VERBS_REJECT_MAGIC, (uint32_t)reason};
    (void)rdma_reject(vc->id, &r, sizeof(r));
}

/* ---- events ---- */

/* The peer has gone; what it said before is heard first. */
static void disconnected(struct verbs_conn *vc)
{
    (void)verbs_poll(verbs_fabric_of(vc));
    if (vc->core.lingering) {
        verbs_cut(&vc->core);
        fabric_core_gone(&vc->core);
    } else {
        fabric_core_fail(&vc->core, FABRIC_DOWN_PEER_DIED);
    }
}

static void conn_event(struct verbs_conn *vc, enum rdma_cm_event_type type, int status, const void *data,
                       size_t len)
{
    int rc = 0;
    switch (type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        ack_timeout_set(vc->id);
        rc = rdma_resolve_route(vc->id, RESOLVE_TIMEOUT_MS) ? -errno : 0;
        break;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
        rc = route_resolved(vc);
        break;
    case RDMA_CM_EVENT_ESTABLISHED:
        established(vc, data, len);
        break;
    case RDMA_CM_EVENT_REJECTED:
        fabric_core_fail(&vc->core,
                         vc->core.initiator ? rejected_reason(status, data, len) : FABRIC_DOWN_PEER_DIED);
        break;
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE:
        fabric_core_fail(&vc->core, FABRIC_DOWN_UNREACHABLE);
        break;
    case RDMA_CM_EVENT_CONNECT_ERROR:
        fabric_core_fail(&vc->core, FABRIC_DOWN_PEER_DIED);
        break;
    case RDMA_CM_EVENT_DISCONNECTED:
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        disconnected(vc);
        break;
    default:
        break;
    }
    if (rc) {
        log_warn(vc->core.fabric->env, "cannot set up a connection", "errno=%d", -rc);
        fabric_core_fail(&vc->core, FABRIC_DOWN_UNREACHABLE);
    }
}

/* A listener hears of its device's end. */
static bool is_listener(const struct verbs_fabric *vf, const struct rdma_cm_id *id)
{
    list_for_each(n, &vf->core.listeners)
    {
        const struct fabric_listener *l = list_entry(n, struct fabric_listener, link);
        if (container_of(l, struct verbs_listener, core)->id == id)
            return true;
    }
    return false;
}

void verbs_cm_event(struct loop_fd *lfd, uint32_t revents)
{
    (void)revents;
    struct verbs_fabric *vf = container_of(lfd, struct verbs_fabric, cm_fd);
    for (int i = 0; i < CM_BURST; i++) {
        struct rdma_cm_event *e;
        if (rdma_get_cm_event(vf->cm, &e))
            return;
        /* An identifier is destroyed only when its events are acknowledged: so this goes first. */
        uint8_t data[256];
        size_t len = min_u64(e->param.conn.private_data_len, sizeof(data));
        enum rdma_cm_event_type type = e->event;
        struct rdma_cm_id *id = e->id, *listen_id = e->listen_id;
        struct rdma_conn_param param = e->param.conn;
        int status = e->status;
        if (!e->param.conn.private_data)
            len = 0;
        if (len)
            memcpy(data, e->param.conn.private_data, len);
        rdma_ack_cm_event(e);
        if (type == RDMA_CM_EVENT_CONNECT_REQUEST)
            requested(listen_id, id, &param, data, len);
        else if (id->context && !is_listener(vf, id))
            conn_event(id->context, type, status, data, len);
    }
}
