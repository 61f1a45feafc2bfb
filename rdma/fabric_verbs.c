/*
 * fabric_verbs.c: the fabric on libibverbs and librdmacm: endpoints, completion queues, signs of life.
 *
 * The loop polls the completion queues; before it sleeps they are armed and polled once more, since a
 * completion that is there before the arming raises no event (ibv_req_notify_cq(3)).
 */
#include "rdma/fabric_verbs.h"

#include "common/log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* ---- completion queues ---- */

struct verbs_cq *verbs_cq_take(struct verbs_fabric *vf, uint32_t entries)
{
    list_for_each(n, &vf->cqs)
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
    q->cq = ibv_create_cq(vf->ctx, (int)vf->cqe, NULL, vf->comp, 0);
    if (!q->cq || vf->cqe < entries) {
        if (q->cq)
            (void)ibv_destroy_cq(q->cq);
        free(q);
        return NULL;
    }
    q->room = vf->cqe - entries;
    list_push_back(&vf->cqs, &q->link);
    return q;
}

unsigned verbs_poll(struct verbs_fabric *vf)
{
    unsigned handled = vf->early_count;
    vf->early_count = 0;
    for (unsigned i = 0; i < handled; i++)
        verbs_completion(vf, &vf->early[i]);
    list_for_each(n, &vf->cqs)
    {
        struct ibv_wc wc[VERBS_CQ_BURST];
        int count = ibv_poll_cq(list_entry(n, struct verbs_cq, link)->cq, VERBS_CQ_BURST, wc);
        vf->core.counters.polls++;
        vf->core.counters.polls_empty += count == 0;
        vf->core.counters.completions += count > 0 ? (unsigned)count : 0;
        for (int i = 0; i < count; i++)
            verbs_completion(vf, &wc[i]);
        handled += count > 0 ? (unsigned)count : 0;
    }
    return handled;
}

static unsigned poller_poll(struct loop_poller *p)
{
    return verbs_poll(container_of(p, struct verbs_fabric, poller));
}

static bool poller_arm(struct loop_poller *p)
{
    struct verbs_fabric *vf = container_of(p, struct verbs_fabric, poller);
    list_for_each(n, &vf->cqs)
    {
        struct ibv_cq *cq = list_entry(n, struct verbs_cq, link)->cq;
        (void)ibv_req_notify_cq(cq, 0);
        /* Handled in the next round: no callback runs here. */
        int room = VERBS_CQ_BURST - (int)vf->early_count;
        int count = room > 0 ? ibv_poll_cq(cq, room, vf->early + vf->early_count) : 0;
        vf->core.counters.polls++;
        vf->core.counters.polls_empty += count == 0;
        vf->core.counters.completions += count > 0 ? (unsigned)count : 0;
        vf->early_count += count > 0 ? (unsigned)count : 0;
    }
    return vf->early_count > 0 || !list_empty(&vf->dirty) || !list_empty(&vf->core.done) ||
           !list_empty(&vf->core.attention);
}

static void poller_flush(struct loop_poller *p)
{
    struct verbs_fabric *vf = container_of(p, struct verbs_fabric, poller);
    struct list *n;
    /* What completions cause goes out in the same round, a few times. */
    for (int i = 0; i < 4; i++) {
        struct list batch;
        list_init(&batch);
        list_splice(&batch, &vf->dirty);
        while ((n = list_pop_front(&batch)))
            verbs_flush(container_of(n, struct verbs_conn, dirty));
        fabric_core_run(&vf->core);
        if (list_empty(&vf->dirty))
            return;
    }
    loop_defer(vf->core.env->loop, &vf->core.task);
}

/* The poller looks at the queues in the same round; the event itself is only taken away. */
static void comp_event(struct loop_fd *lfd, uint32_t revents)
{
    (void)revents;
    struct verbs_fabric *vf = container_of(lfd, struct verbs_fabric, comp_fd);
    struct ibv_cq *cq;
    void *user;
    for (int i = 0; i < VERBS_CQ_BURST && ibv_get_cq_event(vf->comp, &cq, &user) == 0; i++) {
        ibv_ack_cq_events(cq, 1);
        vf->core.counters.wakeups++;
    }
}

/* ---- signs of life ---- */

static void conn_tick(struct verbs_conn *vc, uint64_t now_ns, bool late)
{
    const struct fabric_config *c = &vc->core.fabric->config;
    /* Who was not running cannot say that others were silent. */
    if (late)
        vc->last_rx_ns = vc->heard_ns = now_ns;
    if (now_ns - vc->last_rx_ns >= c->probe_timeout_ns) {
        fabric_core_fail(&vc->core, FABRIC_DOWN_TIMEOUT);
        return;
    }
    uint64_t beat_ns = min_u64(c->probe_interval_ns, vc->core.beat_ms * NS_PER_MS);
    if (now_ns - vc->last_tx_ns < beat_ns || vc->beat_out)
        return;
    /* Beats to a process that stands still use up its receive buffers, and then READs wait behind them. */
    bool quiet = verbs_reads_tables(vc) && now_ns - vc->heard_ns >= 3 * c->probe_interval_ns;
    verbs_say(vc, quiet ? VERBS_SAY_PROBE : VERBS_SAY_BEAT);
}

/*
 * One-sided operations of a peer are not seen here, so only frames count; its loop's beats come in any case.
 * But for a connection that reads tables the peer's device is enough: a READ that it answered counts.
 */
static void verbs_tick(struct loop_timer *t)
{
    struct verbs_fabric *vf = container_of(t, struct verbs_fabric, tick);
    struct fabric *f = &vf->core;
    uint64_t now_ns = loop_now_ns(f->env->loop);
    bool late = now_ns - vf->last_tick_ns > vf->tick_ns + f->config.probe_timeout_ns / 2;
    vf->last_tick_ns = now_ns;
    vf->tick_ns = min_u64(f->config.probe_interval_ns, f->config.probe_timeout_ns) / 2 + 1;
    list_for_each_safe(n, &f->conns)
    {
        struct fabric_conn *conn = list_entry(n, struct fabric_conn, link);
        if (conn->state != CONN_UP)
            continue;
        vf->tick_ns = min_u64(vf->tick_ns, conn->beat_ms * NS_PER_MS / 2 + 1);
        conn_tick(verbs_conn_of(conn), now_ns, late);
    }
    loop_timer_arm(f->env->loop, &vf->tick, vf->tick_ns);
}

/* ---- what the core asks for ---- */

static void verbs_control(struct fabric_conn *conn, enum fabric_control_kind kind, const void *data,
                          uint32_t len)
{
    struct verbs_conn *vc = verbs_conn_of(conn);
    switch (kind) {
    case FABRIC_CONTROL_HELLO: /* the connector's travels with rdma_connect */
        verbs_accept(vc, data);
        break;
    case FABRIC_CONTROL_AUTH:
        MUST(len == sizeof(vc->auth));
        memcpy(&vc->auth, data, len);
        /* It lends: the buffers are there before it leaves. */
        if (verbs_recv_post(vc, conn->rx_lent + VERBS_RQ_CONTROL - VERBS_RQ_HELLO) != 0) {
            vc->broken = true; /* the core goes on to say "up" first */
            verbs_dirty(vc);
            break;
        }
        verbs_say(vc, VERBS_SAY_AUTH);
        break;
    case FABRIC_CONTROL_REFUSE:
        memcpy(&vc->refuse_reason, data, sizeof(vc->refuse_reason));
        if (vc->has_qp)
            vc->say |= VERBS_SAY_REFUSE;
        else if (vc->id && !conn->initiator)
            verbs_reject(vc, (enum fabric_down)vc->refuse_reason);
        break;
    }
}

static void verbs_retire(struct fabric_conn *conn, struct fabric_op *op)
{
    verbs_settle(verbs_conn_of(conn), op);
}

/* Nothing was streamed. */
static void verbs_drop(struct fabric_conn *conn, const struct fabric_remote *source)
{
    (void)conn;
    (void)source;
}

/* ---- endpoint ---- */

static void verbs_destroy(struct fabric *f)
{
    struct verbs_fabric *vf = verbs_of(f);
    loop_poller_remove(f->env->loop, &vf->poller);
    loop_timer_cancel(f->env->loop, &vf->tick);
    if (vf->cm_fd.fn)
        loop_fd_remove(f->env->loop, &vf->cm_fd);
    if (vf->comp_fd.fn) {
        comp_event(&vf->comp_fd, 0);
        loop_fd_remove(f->env->loop, &vf->comp_fd);
    }
    for (struct list *n; (n = list_pop_front(&vf->cqs));) {
        struct verbs_cq *q = list_entry(n, struct verbs_cq, link);
        (void)ibv_destroy_cq(q->cq);
        free(q);
    }
    verbs_mem_free(vf);
    if (vf->comp)
        (void)ibv_destroy_comp_channel(vf->comp);
    for (unsigned i = 0; i < VERBS_DOMAINS; i++)
        if (vf->pd[i])
            (void)ibv_dealloc_pd(vf->pd[i]);
    if (vf->cm)
        rdma_destroy_event_channel(vf->cm);
    slots_free(&vf->slots);
    free(vf);
}

static const struct fabric_ops verbs_ops = {
    .name = "verbs",
    .kind = FABRIC_PROVIDER_VERBS,
    .conn_size = sizeof(struct verbs_conn),
    .listener_size = sizeof(struct verbs_listener),
    .fetch_is_read = true,
    .read_window = 64,
    .lend_first = VERBS_LEND_FIRST,
    .connect = verbs_connect,
    .listen = verbs_listen,
    .unlisten = verbs_unlisten,
    .mem_register = verbs_mem_register,
    .mem_unregister = verbs_mem_unregister,
    .control = verbs_control,
    .post = verbs_post,
    .retire = verbs_retire,
    .drop = verbs_drop,
    .credit = verbs_credit,
    .shut = verbs_shut,
    .cut = verbs_cut,
    .conn_free = verbs_conn_free,
    .destroy = verbs_destroy,
};

static int nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

static int device_open(struct verbs_fabric *vf)
{
    struct ibv_device_attr attr;
    vf->cm = rdma_create_event_channel();
    if (!vf->cm)
        return -ENODEV;
    int rc = nonblocking(vf->cm->fd);
    if (rc == 0)
        rc = verbs_device_find(vf);
    if (rc)
        return rc;
    if (ibv_query_device(vf->ctx, &attr))
        return -ENODEV;
    vf->sge_max = (uint32_t)min_u64((uint64_t)max_u64((uint64_t)attr.max_sge, 1), VERBS_SGE);
    vf->rd_max = (uint32_t)min_u64(min_u64((uint64_t)attr.max_qp_rd_atom, (uint64_t)attr.max_qp_init_rd_atom),
                                   VERBS_RD_ATOMIC);
    vf->cqe = (uint32_t)min_u64((uint64_t)max_u64((uint64_t)attr.max_cqe, 1), VERBS_CQE);
    vf->inline_max = VERBS_INLINE;
    vf->message_max = 1u << 30; /* a port's least is above FABRIC_PAYLOAD_MAX */
    for (unsigned i = 0; i < VERBS_DOMAINS; i++)
        if (!(vf->pd[i] = ibv_alloc_pd(vf->ctx)))
            return -ENOMEM;
    vf->comp = ibv_create_comp_channel(vf->ctx);
    return vf->comp ? nonblocking(vf->comp->fd) : -ENOMEM;
}

static int loop_join(struct verbs_fabric *vf)
{
    struct loop *loop = vf->core.env->loop;
    int rc = loop_fd_add(loop, &vf->cm_fd, vf->cm->fd, EPOLLIN, verbs_cm_event);
    if (rc) {
        vf->cm_fd.fn = NULL;
        return rc;
    }
    rc = loop_fd_add(loop, &vf->comp_fd, vf->comp->fd, EPOLLIN, comp_event);
    if (rc)
        vf->comp_fd.fn = NULL;
    return rc;
}

static bool addr_given(const struct fabric_addr *a)
{
    static const uint8_t zero[16];
    return a->family != 0 && memcmp(a->ip, zero, sizeof(zero)) != 0;
}

int fabric_create_verbs(struct env *env, const struct fabric_config *config, struct fabric **out)
{
    struct verbs_fabric *vf = calloc(1, sizeof(*vf));
    if (!vf)
        return -ENOMEM;
    int rc = fabric_core_init(&vf->core, &verbs_ops, env, config);
    if (rc) {
        free(vf);
        return rc;
    }
    if (addr_given(&config->local))
        vf->local = config->local;
    list_init(&vf->dirty);
    list_init(&vf->cqs);
    list_init(&vf->chunks);
    list_init(&vf->pins_free);
    list_init(&vf->poller.link);
    for (unsigned i = 0; i < VERBS_DOMAINS; i++)
        list_init(&vf->bufs_free[i]);
    loop_timer_init(&vf->tick, verbs_tick);
    rc = device_open(vf);
    if (rc == 0)
        rc = loop_join(vf);
    if (rc) {
        verbs_destroy(&vf->core);
        return rc;
    }
    vf->poller.poll = poller_poll;
    vf->poller.flush = poller_flush;
    vf->poller.arm = poller_arm;
    loop_poller_add(env->loop, &vf->poller);
    vf->tick_ns = min_u64(vf->core.config.probe_interval_ns, vf->core.config.probe_timeout_ns) / 2 + 1;
    vf->last_tick_ns = loop_now_ns(env->loop);
    loop_timer_arm(env->loop, &vf->tick, vf->tick_ns);
    *out = &vf->core;
    return 0;
}
