/*
 * fabric_verbs_dev.c: RDMA devices of one fabric, their completion queues and shared receive queues, and what
 * the devices tell by themselves.
 *
 * A device is opened when a connection first uses it. What its connections are lent is counted against the
 * shared receive queue of their domain before it is lent, and the queue holds as many buffers.
 */
#include "rdma/fabric_verbs.h"

#include "common/log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define ASYNC_BURST      32
#define SOFT_ROCE_VENDOR 0xffffffu /* RXE_VENDOR_ID of Linux */

/* ---- completion queues ---- */

struct verbs_cq *verbs_cq_take(struct verbs_dev *dev, uint32_t entries)
{
    list_for_each(n, &dev->cqs)
    {
        struct verbs_cq *q = list_entry(n, struct verbs_cq, link);
        if (q->room >= entries) {
            q->room -= entries;
            return q;
        }
    }
    struct verbs_cq *q = calloc(1, sizeof(*q));
    if (!q)
        return NULL;
    q->cq = dev->cqe < entries ? NULL : ibv_create_cq(dev->ctx, (int)dev->cqe, dev, dev->comp, 0);
    if (!q->cq) {
        free(q);
        return NULL;
    }
    q->room = dev->cqe - entries;
    list_push_back(&dev->cqs, &q->link);
    return q;
}

/* ---- shared receive queues ---- */

int verbs_srq_make(struct verbs_dev *dev, unsigned domain)
{
    struct verbs_srq *s = &dev->srq[domain];
    if (s->srq)
        return 0;
    struct ibv_srq_init_attr attr = {.srq_context = s, .attr = {.max_wr = dev->srq_max, .max_sge = 1}};
    s->cq = ibv_create_cq(dev->ctx, (int)dev->srq_max, dev, dev->comp, 0);
    s->srq = s->cq ? ibv_create_srq(dev->pd[domain], &attr) : NULL;
    if (!s->srq) {
        int rc = errno ? -errno : -ENOMEM;
        log_error(dev->vf->core.env, "cannot make a shared receive queue", "device=%s entries=%u errno=%d",
                  ibv_get_device_name(dev->ctx->device), dev->srq_max, -rc);
        if (s->cq)
            (void)ibv_destroy_cq(s->cq);
        s->cq = NULL;
        return rc;
    }
    s->size = dev->srq_max;
    return 0;
}

/* Completions that got lost with their queue pairs leave it with less than is counted: the device tells. */
static void srq_watch(struct verbs_srq *s)
{
    struct ibv_srq_attr attr = {.srq_limit = VERBS_SHARED_STEP / 2};
    (void)ibv_modify_srq(s->srq, &attr, IBV_SRQ_LIMIT);
}

static bool srq_add(struct verbs_srq *s)
{
    struct verbs_buf *buf = s->posted < s->size ? verbs_buf_take(s->dev, s->domain) : NULL;
    if (!buf)
        return false;
    list_push_back(&s->repost, &buf->link);
    s->posted++;
    return true;
}

bool verbs_srq_promise(struct verbs_conn *vc, uint32_t n)
{
    struct verbs_srq *s = verbs_srq_of(vc);
    if (s->size - s->promised < n)
        return false;
    bool first = s->posted == 0;
    uint32_t want = (uint32_t)min_u64(max_u64(s->promised + n, VERBS_SHARED_STEP), s->size);
    while (s->posted < want)
        if (!srq_add(s))
            return false;
    s->promised += n;
    vc->promised += n;
    verbs_srq_flush(s);
    if (first)
        srq_watch(s);
    return true;
}

void verbs_srq_release(struct verbs_conn *vc, uint32_t n)
{
    MUST(vc->promised >= n);
    vc->promised -= n;
    verbs_srq_of(vc)->promised -= n;
}

/* The device has few left though all seemed to be well: some never came back. */
static void srq_refill(struct verbs_srq *s)
{
    if (!__atomic_exchange_n(&s->low, 0, __ATOMIC_RELAXED) || !s->srq)
        return;
    if (s->posted > VERBS_SHARED_STEP) {
        uint32_t lost = (uint32_t)min_u64(VERBS_SHARED_STEP, s->posted);
        s->posted -= lost;
        for (uint32_t i = 0; i < lost; i++)
            if (!srq_add(s))
                break;
    }
    srq_watch(s);
}

void verbs_srq_flush(struct verbs_srq *s)
{
    srq_refill(s);
    while (!list_empty(&s->repost)) {
        struct ibv_recv_wr wr[VERBS_SHARED_STEP], *bad;
        struct ibv_sge sge[VERBS_SHARED_STEP];
        struct verbs_buf *buf[VERBS_SHARED_STEP];
        unsigned count = 0;
        struct fabric_counters *n = &s->dev->vf->core.counters;
        for (struct list *l; count < VERBS_SHARED_STEP && (l = list_pop_front(&s->repost)); count++) {
            struct verbs_buf *b = buf[count] = list_entry(l, struct verbs_buf, link);
            sge[count] = (struct ibv_sge){(uintptr_t)b->data, VERBS_BUF_BYTES, b->lkey};
            wr[count] =
                (struct ibv_recv_wr){.wr_id = (uint64_t)VERBS_WR_RECV << 40 | (uint64_t)b->index << 42,
                                     .sg_list = &sge[count],
                                     .num_sge = 1};
            if (count > 0)
                wr[count - 1].next = &wr[count];
        }
        n->recv_calls++;
        n->buffers_out -= count;
        bad = NULL;
        if (ibv_post_srq_recv(s->srq, wr, &bad) == 0)
            continue;
        for (unsigned i = bad ? (unsigned)(bad - wr) : 0; i < count; i++) { /* it is full after all */
            n->buffers_out++;
            s->posted--;
            verbs_buf_put(buf[i]);
        }
        return;
    }
}

void verbs_srq_free(struct verbs_dev *dev)
{
    for (unsigned i = 0; i < VERBS_DOMAINS; i++) {
        struct verbs_srq *s = &dev->srq[i];
        for (struct list *n; (n = list_pop_front(&s->repost));)
            verbs_buf_put(list_entry(n, struct verbs_buf, link));
        if (s->srq)
            (void)ibv_destroy_srq(s->srq);
        s->srq = NULL;
    }
}

/* ---- what devices tell ---- */

struct verbs_conn *verbs_dev_conn(const struct verbs_dev *dev, uint32_t qpn)
{
    const struct list *head = &dev->by_qpn[qpn % VERBS_QPN_BUCKETS];
    list_for_each(n, head)
    {
        struct verbs_conn *vc = list_entry(n, struct verbs_conn, by_qpn);
        if (vc->qpn == qpn)
            return vc;
    }
    return NULL;
}

void verbs_dev_fail(struct verbs_dev *dev)
{
    dev->dead = true;
    list_for_each_safe(n, &dev->vf->core.conns)
    {
        struct verbs_conn *vc = verbs_conn_of(list_entry(n, struct fabric_conn, link));
        if (vc->dev != dev || !vc->open)
            continue;
        fabric_core_fail(&vc->core, FABRIC_DOWN_UNREACHABLE);
        if (vc->core.lingering) { /* nothing of it will be flushed */
            verbs_cut(&vc->core);
            fabric_core_gone(&vc->core);
        }
    }
}

/* Who is still there says so; who is not, is found out within the acknowledgement's time. */
static void ask_all(struct verbs_dev *dev)
{
    list_for_each(n, &dev->vf->core.conns)
    {
        struct verbs_conn *vc = verbs_conn_of(list_entry(n, struct fabric_conn, link));
        if (vc->dev == dev && vc->core.state == CONN_UP && !vc->beat_out)
            verbs_say(vc, verbs_reads_tables(vc) ? VERBS_SAY_PROBE : VERBS_SAY_BEAT);
    }
}

/*
 * librdmacm opens a device once for the whole process, so events of another fabric's queues come here too:
 * those only leave a mark, which the owner finds. Until the event is acknowledged its object is not
 * destroyed.
 */
static void async_event(struct verbs_dev *dev, const struct ibv_async_event *e)
{
    struct env *env = dev->vf->core.env;
    const char *name = ibv_get_device_name(dev->ctx->device);
    struct verbs_conn *vc;
    struct verbs_srq *s;
    switch (e->event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_QP_LAST_WQE_REACHED:
        vc = e->element.qp->qp_context;
        __atomic_store_n(&vc->qp_error, (int)e->event_type + 1, __ATOMIC_RELAXED);
        if (vc->core.fabric == &dev->vf->core)
            verbs_dirty(vc);
        break;
    case IBV_EVENT_SRQ_LIMIT_REACHED:
        s = e->element.srq->srq_context;
        __atomic_store_n(&s->low, 1, __ATOMIC_RELAXED);
        break;
    case IBV_EVENT_PORT_ERR:
        log_warn(env, "a port of an RDMA device is down", "device=%s port=%d", name, e->element.port_num);
        ask_all(dev);
        break;
    case IBV_EVENT_PORT_ACTIVE:
        log_info(env, "a port of an RDMA device is up", "device=%s port=%d", name, e->element.port_num);
        break;
    case IBV_EVENT_CQ_ERR:
    case IBV_EVENT_SRQ_ERR:
    case IBV_EVENT_DEVICE_FATAL:
        log_error(env, "an RDMA device failed: its connections end", "device=%s event=\"%s\"", name,
                  ibv_event_type_str(e->event_type));
        verbs_dev_fail(dev);
        break;
    default:
        log_debug(env, "an RDMA device tells", "device=%s event=\"%s\"", name,
                  ibv_event_type_str(e->event_type));
    }
}

static void async_ready(struct loop_fd *lfd, uint32_t revents)
{
    (void)revents;
    struct verbs_dev *dev = container_of(lfd, struct verbs_dev, async_fd);
    struct ibv_async_event e;
    for (int i = 0; i < ASYNC_BURST && ibv_get_async_event(dev->ctx, &e) == 0; i++) {
        dev->vf->core.counters.device_events++;
        async_event(dev, &e);
        ibv_ack_async_event(&e);
    }
}

/* The poller looks at the queues in the same round; the event itself is only taken away. */
static void comp_ready(struct loop_fd *lfd, uint32_t revents)
{
    (void)revents;
    struct verbs_dev *dev = container_of(lfd, struct verbs_dev, comp_fd);
    struct ibv_cq *cq;
    void *user;
    for (int i = 0; i < VERBS_CQ_BURST && ibv_get_cq_event(dev->comp, &cq, &user) == 0; i++) {
        ibv_ack_cq_events(cq, 1);
        dev->vf->core.counters.wakeups++;
    }
}

/* ---- opening ---- */

static int nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

static uint32_t at_most(int have, uint32_t want)
{
    return (uint32_t)min_u64((uint64_t)(have > 1 ? have : 1), want);
}

/* What the device can do, as far as it is used. */
static int dev_query(struct verbs_dev *dev)
{
    struct ibv_device_attr attr;
    if (ibv_query_device(dev->ctx, &attr))
        return -ENODEV;
    if (attr.max_srq < 1 || attr.max_srq_wr < (int)VERBS_SHARED_STEP) {
        log_error(dev->vf->core.env, "this RDMA device has no shared receive queues: use tcp on this host",
                  "device=%s", ibv_get_device_name(dev->ctx->device));
        return -EOPNOTSUPP;
    }
    dev->iwarp = dev->ctx->device->transport_type == IBV_TRANSPORT_IWARP;
    dev->sge_max = at_most(attr.max_sge, VERBS_SGE);
    dev->read_sge_max = at_most(attr.max_sge_rd > 0 ? attr.max_sge_rd : attr.max_sge, dev->sge_max);
    dev->rd_max = at_most((int)min_u64((uint64_t)attr.max_qp_rd_atom, (uint64_t)attr.max_qp_init_rd_atom),
                          VERBS_RD_ATOMIC);
    dev->cqe = at_most(attr.max_cqe, VERBS_CQE);
    dev->srq_max = (uint32_t)min_u64(at_most(attr.max_srq_wr, VERBS_SHARED), dev->cqe);
    dev->inline_max = VERBS_INLINE;
    dev->windows = attr.max_mw > 0 && (attr.device_cap_flags &
                                       (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B)) != 0;
    dev->soft = attr.vendor_id == SOFT_ROCE_VENDOR;
    dev->ends = dev->windows && (attr.device_cap_flags & IBV_DEVICE_MEM_MGT_EXTENSIONS) != 0;
    if (dev->windows && dev->soft)
        log_info(
            dev->vf->core.env,
            "Soft-RoCE does not check the bounds of memory windows: for tests, not for peers that one mistrusts",
            "device=%s", ibv_get_device_name(dev->ctx->device));
    if (!dev->windows)
        log_info(dev->vf->core.env,
                 "this RDMA device has no memory windows: each request registers its memory, which is slow",
                 "device=%s", ibv_get_device_name(dev->ctx->device));
    return 0;
}

static int dev_join_loop(struct verbs_dev *dev)
{
    struct loop *loop = dev->vf->core.env->loop;
    int rc = nonblocking(dev->comp->fd);
    if (rc == 0)
        rc = nonblocking(dev->ctx->async_fd);
    if (rc == 0)
        rc = loop_fd_add(loop, &dev->comp_fd, dev->comp->fd, EPOLLIN, comp_ready);
    if (rc) {
        dev->comp_fd.fn = NULL;
        return rc;
    }
    rc = loop_fd_add(loop, &dev->async_fd, dev->ctx->async_fd, EPOLLIN, async_ready);
    if (rc)
        dev->async_fd.fn = NULL;
    return rc;
}

static int dev_set_up(struct verbs_dev *dev)
{
    int rc = dev_query(dev);
    if (rc)
        return rc;
    for (unsigned i = 0; i < VERBS_DOMAINS; i++)
        if (!(dev->pd[i] = ibv_alloc_pd(dev->ctx)))
            return -ENOMEM;
    dev->comp = ibv_create_comp_channel(dev->ctx);
    if (!dev->comp)
        return -ENOMEM;
    rc = dev_join_loop(dev);
    return rc ? rc : verbs_mem_join(dev);
}

int verbs_dev_get(struct verbs_fabric *vf, struct ibv_context *ctx, struct verbs_dev **out)
{
    list_for_each(n, &vf->devs)
    {
        struct verbs_dev *dev = list_entry(n, struct verbs_dev, link);
        if (dev->ctx == ctx) {
            if (dev->dead)
                return -ENODEV;
            *out = dev;
            return 0;
        }
    }
    struct verbs_dev *dev = vf->dev_count < VERBS_DEVS ? calloc(1, sizeof(*dev)) : NULL;
    if (!dev)
        return -ENOMEM;
    dev->vf = vf;
    dev->ctx = ctx;
    dev->index = vf->dev_count;
    list_init(&dev->cqs);
    for (unsigned i = 0; i < VERBS_DOMAINS; i++) {
        dev->srq[i].dev = dev;
        dev->srq[i].domain = i;
        list_init(&dev->srq[i].repost);
        list_init(&dev->bufs_free[i]);
        list_init(&dev->windows_free[i]);
    }
    for (unsigned i = 0; i < VERBS_QPN_BUCKETS; i++)
        list_init(&dev->by_qpn[i]);
    for (unsigned i = 0; i < VERBS_KEY_BUCKETS; i++)
        list_init(&dev->bound[i]);
    list_push_back(&vf->devs, &dev->link);
    int rc = dev_set_up(dev);
    if (rc) {
        verbs_mem_leave(dev);
        verbs_dev_free(dev);
        return rc;
    }
    vf->dev_count++;
    *out = dev;
    return 0;
}

void verbs_dev_free(struct verbs_dev *dev)
{
    struct loop *loop = dev->vf->core.env->loop;
    if (dev->async_fd.fn)
        loop_fd_remove(loop, &dev->async_fd);
    if (dev->comp_fd.fn) {
        comp_ready(&dev->comp_fd, 0);
        loop_fd_remove(loop, &dev->comp_fd);
    }
    for (struct list *n; (n = list_pop_front(&dev->cqs));) {
        struct verbs_cq *q = list_entry(n, struct verbs_cq, link);
        (void)ibv_destroy_cq(q->cq);
        free(q);
    }
    for (unsigned i = 0; i < VERBS_DOMAINS; i++)
        if (dev->srq[i].cq)
            (void)ibv_destroy_cq(dev->srq[i].cq);
    verbs_windows_free(dev);
    if (dev->comp)
        (void)ibv_destroy_comp_channel(dev->comp);
    /* Buffers and their registrations went before. */
    for (unsigned i = 0; i < VERBS_DOMAINS; i++)
        if (dev->pd[i])
            (void)ibv_dealloc_pd(dev->pd[i]);
    list_remove(&dev->link);
    free(dev);
}
