/*
 * fabric_verbs_cm.c: connections on librdmacm: from address to queue pair, the listener's side, and the end.
 *
 * Both hellos travel as private data of the connection manager. Which device a connection uses is what the
 * route to its peer says, or the address that a request came to.
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
/* IBTA 12.6.7.2, which rdma_cm passes as status: nobody listens, as the connection manager of the peer's host
 * says; the listener's own reason. */
#define CM_REJ_NO_SERVICE 8
#define CM_REJ_CONSUMER   28

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
    struct verbs_dev *dev;
    struct ibv_context *ctx = NULL;
    if (vf->local.family) {
        struct rdma_cm_id *id;
        union verbs_sockaddr s;
        sockaddr_from(&vf->local, 0, &s);
        if (rdma_create_id(vf->cm, &id, NULL, RDMA_PS_TCP))
            return -ENODEV;
        if (rdma_bind_addr(id, &s.sa) == 0)
            ctx = id->verbs;
        rdma_destroy_id(id);
        return ctx ? verbs_dev_get(vf, ctx, &dev) : -ENODEV;
    }
    int count = 0;
    struct ibv_context **list = rdma_get_devices(&count);
    if (list && count > 0)
        ctx = list[0];
    if (list)
        rdma_free_devices(list);
    return ctx ? verbs_dev_get(vf, ctx, &dev) : -ENODEV;
}

static void ack_timeout_set(struct rdma_cm_id *id)
{
    uint8_t timeout = VERBS_ACK_TIMEOUT;
    /* Without it (iWARP has its own) a dead host is noticed by the beats. */
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
    int rc = verbs_conn_open(vc);
    if (rc)
        return rc;
    bool bound = vf->local.family && vf->local.family == addr->family;
    if (rdma_create_id(vf->cm, &vc->id, vc, RDMA_PS_TCP)) {
        rc = errno ? -errno : -EIO;
        verbs_cut(&vc->core);
        return rc;
    }
    /* No route, or no RDMA device on it: told later, like any other reason. */
    if (rdma_resolve_addr(vc->id, bound ? &from.sa : NULL, &to.sa, RESOLVE_TIMEOUT_MS))
        loop_timer_arm(vf->core.env->loop, &vc->linger, 0);
    return 0;
}

static int route_resolved(struct verbs_conn *vc)
{
    int rc = verbs_qp_make(vc);
    if (rc)
        return rc;
    struct rdma_conn_param p = {.private_data = &vc->core.hello_mine,
                                .private_data_len = sizeof(vc->core.hello_mine),
                                .responder_resources = (uint8_t)vc->dev->rd_max,
                                .initiator_depth = (uint8_t)vc->dev->rd_max,
                                .flow_control = 1,
                                .retry_count = VERBS_RETRIES,
                                .rnr_retry_count = VERBS_RNR_RETRIES};
    return rdma_connect(vc->id, &p) ? -errno : 0;
}

static void established(struct verbs_conn *vc, const void *data, size_t len)
{
    struct fabric_hello hello;
    if (!vc->core.initiator) /* its hello came with the request */
        return;
    if (len < sizeof(hello) || verbs_qp_ready(vc)) {
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

static void rejected(struct verbs_conn *vc, int status, const void *data, size_t len)
{
    if (!vc->core.initiator) {
        fabric_core_fail(&vc->core, FABRIC_DOWN_PEER_DIED);
        return;
    }
    /* (iWARP has other numbers, and a refusal there may be a router's.) */
    vc->core.nobody = vc->dev && !vc->dev->iwarp && status == CM_REJ_NO_SERVICE;
    fabric_core_fail(&vc->core, rejected_reason(status, data, len));
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
    if (verbs_conn_open(vc) != 0) {
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
    int rc = verbs_qp_make(vc);
    uint32_t rd_max = rc == 0 ? vc->dev->rd_max : 1;
    struct rdma_conn_param p = {.private_data = hello,
                                .private_data_len = sizeof(*hello),
                                .responder_resources =
                                    (uint8_t)min_u64(rd_max, vc->param.responder_resources),
                                .initiator_depth = (uint8_t)min_u64(rd_max, vc->param.initiator_depth),
                                .flow_control = 1,
                                .rnr_retry_count = VERBS_RNR_RETRIES};
    if (rc == 0 && rdma_accept(vc->id, &p))
        rc = errno ? -errno : -EIO;
    if (rc == 0)
        rc = verbs_qp_ready(vc);
    if (rc) {
        static struct log_limit limit = {.interval_ns = NS_PER_S};
        if (log_allow(vf->core.env, &limit))
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

/*
 * The peer has gone: its process, or for it the kernel of its host, asked to disconnect. What it said before
 * is heard first. If the queue pair is broken and nothing of ours failed, the peer made a bad access before
 * it went. A status says that it did not ask: this host's connection manager did, and got no answer.
 */
static void disconnected(struct verbs_conn *vc, int status)
{
    if (vc->core.state != CONN_DOWN && vc->dev)
        (void)verbs_poll(verbs_fabric_of(vc));
    if (!vc->open)
        return;
    if (vc->core.lingering)
        verbs_qp_break(vc);
    else if (vc->core.state == CONN_UP && verbs_qp_is_broken(vc))
        fabric_core_fail(&vc->core, FABRIC_DOWN_ACCESS);
    else
        fabric_core_fail(&vc->core, status ? FABRIC_DOWN_TIMEOUT : FABRIC_DOWN_PEER_DIED);
}

/* Its device is being taken away: it must be let go of now. */
static void removed(struct verbs_conn *vc)
{
    fabric_core_fail(&vc->core, FABRIC_DOWN_UNREACHABLE);
    if (!vc->core.lingering)
        return;
    verbs_cut(&vc->core);
    fabric_core_gone(&vc->core);
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
        rejected(vc, status, data, len);
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
        disconnected(vc, status);
        break;
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        removed(vc);
        break;
    default:
        break;
    }
    if (rc) {
        log_warn(vc->core.fabric->env, "cannot set up a connection", "errno=%d", -rc);
        fabric_core_fail(&vc->core, FABRIC_DOWN_UNREACHABLE);
    }
}

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
        else if (is_listener(vf, id))
            log_error(vf->core.env,
                      "a listener lost its RDMA device: restart the service when the device is back",
                      "event=\"%s\"", rdma_event_str(type));
        else if (id->context)
            conn_event(id->context, type, status, data, len);
    }
}
