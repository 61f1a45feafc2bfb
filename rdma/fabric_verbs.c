/*
 * fabric_verbs.c: the fabric on libibverbs and librdmacm: endpoints, polling, signs of life.
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

static int cq_poll(struct verbs_fabric *vf, struct ibv_cq *cq, int room, struct ibv_wc *wc)
{
    int count = ibv_poll_cq(cq, room, wc);
    vf->core.counters.polls++;
    vf->core.counters.polls_empty += count == 0;
    vf->core.counters.completions += count > 0 ? (unsigned)count : 0;
    return count > 0 ? count : 0;
}

static unsigned cq_drain(struct verbs_dev *dev, struct ibv_cq *cq)
{
    struct ibv_wc wc[VERBS_CQ_BURST];
    int count = cq_poll(dev->vf, cq, VERBS_CQ_BURST, wc);
    for (int i = 0; i < count; i++)
        verbs_completion(dev, &wc[i]);
    return (unsigned)count;
}

/* Receives first: a peer's last word comes before what its end breaks. */
static unsigned dev_poll(struct verbs_dev *dev)
{
    unsigned handled = 0;
    for (unsigned i = 0; i < VERBS_DOMAINS; i++)
        if (dev->srq[i].cq)
            handled += cq_drain(dev, dev->srq[i].cq);
    list_for_each(n, &dev->cqs) handled += cq_drain(dev, list_entry(n, struct verbs_cq, link)->cq);
    for (unsigned i = 0; i < VERBS_DOMAINS; i++)
        if (dev->srq[i].srq)
            verbs_srq_flush(&dev->srq[i]);
    return handled;
}

unsigned verbs_poll(struct verbs_fabric *vf)
{
    unsigned handled = vf->early_count;
    vf->early_count = 0;
    for (unsigned i = 0; i < handled; i++)
        verbs_completion(vf->early[i].dev, &vf->early[i].wc);
    list_for_each(n, &vf->devs) handled += dev_poll(list_entry(n, struct verbs_dev, link));
    return handled;
}

static unsigned poller_poll(struct loop_poller *p)
{
    return verbs_poll(container_of(p, struct verbs_fabric, poller));
}

/* Handled in the next round: no callback runs here. */
static void arm_one(struct verbs_dev *dev, struct ibv_cq *cq)
{
    struct verbs_fabric *vf = dev->vf;
    struct ibv_wc wc[VERBS_CQ_BURST];
    (void)ibv_req_notify_cq(cq, 0);
    int room = VERBS_CQ_BURST - (int)vf->early_count;
    int count = room > 0 ? cq_poll(vf, cq, room, wc) : 0;
    for (int i = 0; i < count; i++)
        vf->early[vf->early_count++] = (struct verbs_early){.dev = dev, .wc = wc[i]};
}

static bool poller_arm(struct loop_poller *p)
{
    struct verbs_fabric *vf = container_of(p, struct verbs_fabric, poller);
    list_for_each(n, &vf->devs)
    {
        struct verbs_dev *dev = list_entry(n, struct verbs_dev, link);
        for (unsigned i = 0; i < VERBS_DOMAINS; i++)
            if (dev->srq[i].cq)
                arm_one(dev, dev->srq[i].cq);
        list_for_each(m, &dev->cqs) arm_one(dev, list_entry(m, struct verbs_cq, link)->cq);
    }
    return vf->early_count > 0 || !list_empty(&vf->dirty) || !list_empty(&vf->drained) ||
           !list_empty(&vf->core.done) || !list_empty(&vf->core.attention);
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
        verbs_qp_reap(vf);
        fabric_core_run(&vf->core);
        if (list_empty(&vf->dirty) && list_empty(&vf->drained))
            return;
    }
    loop_defer(vf->core.env->loop, &vf->core.task);
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
    if (__atomic_load_n(&vc->qp_error, __ATOMIC_RELAXED))
        verbs_dirty(vc);
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
        if (conn->state == CONN_UP)
            verbs_idle(verbs_conn_of(conn));
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
    /* The receive queues first: their buffers are posted. */
    list_for_each(n, &vf->devs) verbs_srq_free(list_entry(n, struct verbs_dev, link));
    verbs_mem_free(vf);
    list_for_each_safe(n, &vf->devs) verbs_dev_free(list_entry(n, struct verbs_dev, link));
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
    .lend = verbs_lend,
    .connect = verbs_connect,
    .listen = verbs_listen,
    .unlisten = verbs_unlisten,
    .mem_register = verbs_mem_register,
    .mem_unregister = verbs_mem_unregister,
    .mem_key = verbs_mem_key,
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

static int cm_open(struct verbs_fabric *vf)
{
    vf->cm = rdma_create_event_channel();
    if (!vf->cm)
        return -ENODEV;
    int flags = fcntl(vf->cm->fd, F_GETFL);
    if (flags < 0 || fcntl(vf->cm->fd, F_SETFL, flags | O_NONBLOCK))
        return -errno;
    int rc = verbs_device_find(vf);
    if (rc)
        return rc;
    rc = loop_fd_add(vf->core.env->loop, &vf->cm_fd, vf->cm->fd, EPOLLIN, verbs_cm_event);
    if (rc)
        vf->cm_fd.fn = NULL;
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
    list_init(&vf->drained);
    list_init(&vf->devs);
    list_init(&vf->chunks);
    list_init(&vf->pins_free);
    list_init(&vf->poller.link);
    vf->message_max = 1u << 30; /* a port's least is above FABRIC_PAYLOAD_MAX */
    loop_timer_init(&vf->tick, verbs_tick);
    rc = cm_open(vf);
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
