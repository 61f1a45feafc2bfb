/*
 * fabric_tcp.c: the fabric on tcp sockets: endpoints, connections, listening, signs of life.
 *
 * A peer's one-sided READ and WRITE are answered here, against the registered memory: its services do not
 * run. A message's exposed source is streamed behind it. Posting only queues; the loop's flush sends
 * (fabric_tcp_tx.c).
 */
#include "rdma/fabric_tcp.h"

#include "common/log.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_BURST 16

/* ---- addresses ---- */

union tcp_sockaddr {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

static socklen_t sockaddr_from(const struct fabric_addr *a, union tcp_sockaddr *s)
{
    memset(s, 0, sizeof(*s));
    if (a->family == 6) {
        s->in6.sin6_family = AF_INET6;
        s->in6.sin6_port = htons(a->port);
        memcpy(&s->in6.sin6_addr, a->ip, 16);
        return sizeof(s->in6);
    }
    s->in.sin_family = AF_INET;
    s->in.sin_port = htons(a->port);
    memcpy(&s->in.sin_addr, a->ip, 4);
    return sizeof(s->in);
}

static void sockaddr_to(const union tcp_sockaddr *s, struct fabric_addr *a)
{
    memset(a, 0, sizeof(*a));
    a->provider = FABRIC_PROVIDER_TCP;
    if (s->sa.sa_family == AF_INET6) {
        a->family = 6;
        a->port = ntohs(s->in6.sin6_port);
        memcpy(a->ip, &s->in6.sin6_addr, 16);
    } else {
        a->family = 4;
        a->port = ntohs(s->in.sin_port);
        memcpy(a->ip, &s->in.sin_addr, 4);
    }
}

/* ---- connections ---- */

static void set_int(int fd, int level, int name, uint64_t value)
{
    int v = (int)min_u64(max_u64(value, 1), INT32_MAX);
    /* Only tunes how soon a dead host is noticed; the beats notice it in any case. */
    (void)setsockopt(fd, level, name, &v, sizeof(v));
}

static void socket_tune(const struct fabric *f, int fd)
{
    /* No TCP_USER_TIMEOUT: it also ends connections whose peer is well but takes nothing for a while (a
     * payload that waits for a buffer). Silence is what counts here. */
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, f->config.probe_interval_ns / NS_PER_S);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, f->config.probe_interval_ns / NS_PER_S);
}

void tcp_conn_watch(struct tcp_conn *tc)
{
    if (!tc->open)
        return;
    uint32_t events = 0;
    if (tc->connecting || tc->tx_blocked)
        events |= EPOLLOUT;
    if (!tc->connecting)
        events |= tcp_rx_blocked(tc) ? EPOLLRDHUP : EPOLLIN;
    if (events != tc->lfd.events && loop_fd_modify(tc->core.fabric->env->loop, &tc->lfd, events) != 0)
        fabric_core_fail(&tc->core, FABRIC_DOWN_UNREACHABLE);
}

static int socket_error(const struct tcp_conn *tc)
{
    int err = 0;
    socklen_t len = sizeof(err);
    return getsockopt(tc->lfd.fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0 ? errno : err;
}

enum fabric_down tcp_lost_reason(int err)
{
    return err == 0 || err == ECONNRESET || err == EPIPE ? FABRIC_DOWN_PEER_DIED : FABRIC_DOWN_TIMEOUT;
}

static enum fabric_down connect_reason(int err)
{
    switch (err) {
    case ECONNREFUSED:
        return FABRIC_DOWN_REFUSED;
    case ETIMEDOUT:
        return FABRIC_DOWN_TIMEOUT;
    case ECONNRESET:
        return FABRIC_DOWN_PEER_DIED;
    default:
        return FABRIC_DOWN_UNREACHABLE;
    }
}

/* The outcome of connect(2) is known. */
static void conn_connected(struct tcp_conn *tc)
{
    const int err = socket_error(tc);
    if (err) {
        tc->core.nobody = err == ECONNREFUSED;
        fabric_core_fail(&tc->core, connect_reason(err));
        return;
    }
    tc->connecting = false;
    tcp_conn_watch(tc);
    tcp_tx_control(tc, TCP_FRAME_HELLO, &tc->core.hello_mine, sizeof(tc->core.hello_mine), 0);
}

static void conn_event(struct loop_fd *lfd, uint32_t revents)
{
    struct tcp_conn *tc = container_of(lfd, struct tcp_conn, lfd);
    tc->core.fabric->counters.wakeups++;
    if (tc->connecting) {
        conn_connected(tc);
        return;
    }
    if (tc->tx_blocked && (revents & EPOLLOUT)) {
        tc->tx_blocked = false;
        tcp_conn_watch(tc);
        tcp_tx_dirty(tc);
    }
    if (tcp_rx_blocked(tc) && (revents & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))) {
        /* What was sent before the end cannot be reached any more without a destination for it. */
        fabric_core_fail(&tc->core, tcp_lost_reason(socket_error(tc)));
        return;
    }
    if (revents & (EPOLLIN | EPOLLERR | EPOLLHUP))
        tcp_rx_readable(tc);
}

/* Takes over fd: on failure it is closed. */
static int conn_open(struct tcp_conn *tc, int fd, bool connecting)
{
    struct fabric *f = tc->core.fabric;
    list_init(&tc->dirty);
    list_init(&tc->resume);
    list_init(&tc->tx);
    list_init(&tc->writes);
    tc->connecting = connecting;
    tc->last_rx_ns = tc->last_tx_ns = loop_now_ns(f->env->loop);
    tc->rx.buf = malloc(TCP_RX_BYTES);
    int rc = tc->rx.buf ? loop_fd_add(f->env->loop, &tc->lfd, fd, connecting ? EPOLLOUT : EPOLLIN, conn_event)
                        : -ENOMEM;
    if (rc) {
        free(tc->rx.buf);
        tc->rx.buf = NULL;
        close(fd);
        return rc;
    }
    tc->open = true;
    f->counters.qps++;
    return 0;
}

static int tcp_connect(struct fabric_conn *conn, const struct fabric_addr *addr)
{
    union tcp_sockaddr s;
    socklen_t len = sockaddr_from(addr, &s);
    int fd = socket(s.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    socket_tune(conn->fabric, fd);
    /* Whatever it says, epoll tells it again, from the loop. */
    (void)connect(fd, &s.sa, len);
    return conn_open(tcp_conn_of(conn), fd, true);
}

static void tcp_shut(struct fabric_conn *conn, bool polite)
{
    struct tcp_conn *tc = tcp_conn_of(conn);
    if (!tc->open)
        return;
    /* The last word goes out only between two frames, and only if the socket takes it at once. */
    bool mid_frame = !list_empty(&tc->tx) && list_entry(tc->tx.next, struct fabric_op, link)->progress > 0;
    if (polite)
        tcp_tx_control(tc, TCP_FRAME_CLOSE, NULL, 0, 0);
    if (tc->ctl_len > tc->ctl_sent && !mid_frame && !tc->connecting && !tc->tx_blocked)
        (void)send(tc->lfd.fd, tc->ctl + tc->ctl_sent, tc->ctl_len - tc->ctl_sent,
                   MSG_NOSIGNAL | MSG_DONTWAIT);
    loop_fd_remove(conn->fabric->env->loop, &tc->lfd);
    close(tc->lfd.fd);
    tc->open = false;
    conn->fabric->counters.qps--;
    list_remove(&tc->resume);
    tcp_tx_clear(tc);
    tc->rx.payload_left = tc->rx.dst_left = 0;
    tc->rx.dst = TCP_DST_NONE;
    tc->rx.op = NULL;
    tc->rx.mem = NULL;
}

static void tcp_conn_free(struct fabric_conn *conn)
{
    struct tcp_conn *tc = tcp_conn_of(conn);
    slots_free(&tc->slots);
    free(tc->rx.buf);
    tc->rx.buf = NULL;
}

/* ---- listening ---- */

static void accept_one(struct tcp_listener *l, int fd, const union tcp_sockaddr *s)
{
    struct fabric_addr from;
    sockaddr_to(s, &from);
    socket_tune(l->core.fabric, fd);
    struct fabric_conn *conn = fabric_core_incoming(&l->core, &from);
    if (!conn) {
        close(fd);
        return;
    }
    int rc = conn_open(tcp_conn_of(conn), fd, false);
    if (rc)
        fabric_core_fail(conn, FABRIC_DOWN_UNREACHABLE);
}

static void listener_event(struct loop_fd *lfd, uint32_t revents)
{
    (void)revents;
    struct tcp_listener *l = container_of(lfd, struct tcp_listener, lfd);
    struct env *env = l->core.fabric->env;
    for (int i = 0; i < ACCEPT_BURST; i++) {
        union tcp_sockaddr s;
        socklen_t len = sizeof(s);
        int fd = accept4(lfd->fd, &s.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            accept_one(l, fd, &s);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            static struct log_limit limit = {.interval_ns = 10 * NS_PER_S};
            if (log_allow(env, &limit))
                log_warn(env, "cannot accept connections for now", "errno=%d", errno);
            loop_fd_modify(env->loop, lfd, 0);
            loop_timer_arm(env->loop, &l->retry, 100 * NS_PER_MS);
        }
        if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

static void listener_retry(struct loop_timer *t)
{
    struct tcp_listener *l = container_of(t, struct tcp_listener, retry);
    loop_fd_modify(l->core.fabric->env->loop, &l->lfd, EPOLLIN);
}

static int tcp_listen(struct fabric_listener *core, const struct fabric_addr *addr)
{
    struct tcp_listener *l = container_of(core, struct tcp_listener, core);
    union tcp_sockaddr s;
    socklen_t len = sockaddr_from(addr, &s);
    int one = 1;
    int fd = socket(s.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int rc = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) || bind(fd, &s.sa, len) ||
        listen(fd, 1024) || getsockname(fd, &s.sa, &len))
        rc = -errno;
    if (!rc)
        rc = loop_fd_add(core->fabric->env->loop, &l->lfd, fd, EPOLLIN, listener_event);
    if (rc) {
        close(fd);
        return rc;
    }
    loop_timer_init(&l->retry, listener_retry);
    sockaddr_to(&s, &core->addr);
    return 0;
}

static void tcp_unlisten(struct fabric_listener *core)
{
    struct tcp_listener *l = container_of(core, struct tcp_listener, core);
    loop_timer_cancel(core->fabric->env->loop, &l->retry);
    loop_fd_remove(core->fabric->env->loop, &l->lfd);
    close(l->lfd.fd);
}

/* ---- operations ---- */

static void tcp_control(struct fabric_conn *conn, enum fabric_control_kind kind, const void *data,
                        uint32_t len)
{
    struct tcp_conn *tc = tcp_conn_of(conn);
    uint32_t reason;
    switch (kind) {
    case FABRIC_CONTROL_HELLO:
        tcp_tx_control(tc, TCP_FRAME_HELLO, data, len, 0);
        break;
    case FABRIC_CONTROL_AUTH:
        tcp_tx_control(tc, TCP_FRAME_AUTH, data, len, 0);
        break;
    case FABRIC_CONTROL_REFUSE:
        memcpy(&reason, data, sizeof(reason));
        tcp_tx_control(tc, TCP_FRAME_REFUSE, NULL, 0, reason);
        break;
    }
}

void tcp_settle(struct tcp_conn *tc, struct fabric_op *op)
{
    if (fabric_core_op_settled(op)) {
        if (op->id)
            slots_put(&tc->slots, op->id);
        fabric_core_op_done(op, 0);
    }
}

static int tcp_post(struct fabric_conn *conn, struct fabric_op *op)
{
    if (op->kind == FABRIC_OP_FETCH)
        return tcp_rx_fetch(tcp_conn_of(conn), op);
    return tcp_tx_post(tcp_conn_of(conn), op);
}

static void tcp_retire(struct fabric_conn *conn, struct fabric_op *op)
{
    tcp_settle(tcp_conn_of(conn), op);
}

static void tcp_drop(struct fabric_conn *conn, const struct fabric_remote *source)
{
    tcp_rx_drop(tcp_conn_of(conn), source);
}

/* A NIC would break a connection that uses memory which goes away; so does this. */
static void tcp_mem_unregister(struct fabric_mem *mem)
{
    list_for_each_safe(n, &mem->fabric->conns)
    {
        struct fabric_conn *conn = list_entry(n, struct fabric_conn, link);
        struct tcp_conn *tc = tcp_conn_of(conn);
        if (tc->open && (tc->rx.mem == mem || tcp_tx_uses(tc, mem)))
            fabric_core_fail(conn, FABRIC_DOWN_ACCESS);
    }
}

/* ---- signs of life ---- */

static void conn_tick(struct tcp_conn *tc, uint64_t now_ns, bool late)
{
    const struct fabric_config *c = &tc->core.fabric->config;
    /* Who was not running cannot say that others were silent; nor can who does not read. But a peer that
     * takes nothing of what waits for it holds the memory that this end needs in order to read: it would be
     * waited for for ever. */
    if (late && tc->tx_blocked)
        tc->last_tx_ns = now_ns;
    bool stuck = tc->tx_blocked && now_ns - tc->last_tx_ns >= c->probe_timeout_ns;
    if (late || (tcp_rx_blocked(tc) && !stuck))
        tc->last_rx_ns = now_ns;
    if (now_ns - tc->last_rx_ns >= c->probe_timeout_ns) {
        fabric_core_fail(&tc->core, FABRIC_DOWN_TIMEOUT);
        return;
    }
    uint64_t beat_ns = min_u64(c->probe_interval_ns, tc->core.beat_ms * NS_PER_MS);
    if (now_ns - tc->last_tx_ns >= beat_ns && !tc->tx_blocked) {
        tc->beat_owed = true;
        tcp_tx_dirty(tc);
    }
}

static void tcp_tick(struct loop_timer *t)
{
    struct tcp_fabric *tf = container_of(t, struct tcp_fabric, tick);
    struct fabric *f = &tf->core;
    uint64_t now_ns = loop_now_ns(f->env->loop);
    bool late = now_ns - tf->last_tick_ns > tf->tick_ns + f->config.probe_timeout_ns / 2;
    tf->last_tick_ns = now_ns;
    tf->tick_ns = min_u64(f->config.probe_interval_ns, f->config.probe_timeout_ns) / 2 + 1;
    list_for_each_safe(n, &f->conns)
    {
        struct fabric_conn *conn = list_entry(n, struct fabric_conn, link);
        if (conn->state != CONN_UP)
            continue;
        tf->tick_ns = min_u64(tf->tick_ns, conn->beat_ms * NS_PER_MS / 2 + 1);
        conn_tick(tcp_conn_of(conn), now_ns, late);
    }
    loop_timer_arm(f->env->loop, &tf->tick, tf->tick_ns);
}

/* ---- endpoint ---- */

static void tcp_flush(struct loop_poller *p)
{
    struct tcp_fabric *tf = container_of(p, struct tcp_fabric, poller);
    struct list *n;
    /* What completions and resumed payloads cause goes out in the same round, a few times. */
    for (int i = 0; i < 4; i++) {
        struct list batch;
        list_init(&batch);
        list_splice(&batch, &tf->resume);
        while ((n = list_pop_front(&batch)))
            tcp_rx_resume(container_of(n, struct tcp_conn, resume));
        list_splice(&batch, &tf->dirty);
        while ((n = list_pop_front(&batch)))
            tcp_tx_flush(container_of(n, struct tcp_conn, dirty));
        fabric_core_run(&tf->core);
        if (list_empty(&tf->dirty) && list_empty(&tf->resume))
            return;
    }
    loop_defer(tf->core.env->loop, &tf->core.task);
}

static bool tcp_arm(struct loop_poller *p)
{
    struct tcp_fabric *tf = container_of(p, struct tcp_fabric, poller);
    return !list_empty(&tf->dirty) || !list_empty(&tf->resume);
}

static void tcp_destroy(struct fabric *f)
{
    struct tcp_fabric *tf = tcp_fabric_of(f);
    loop_poller_remove(f->env->loop, &tf->poller);
    loop_timer_cancel(f->env->loop, &tf->tick);
    for (struct list *n; (n = list_pop_front(&tf->served_free));)
        free(container_of(n, struct tcp_served, op.link));
    free(tf);
}

static const struct fabric_ops tcp_ops = {
    .name = "tcp",
    .kind = FABRIC_PROVIDER_TCP,
    .conn_size = sizeof(struct tcp_conn),
    .listener_size = sizeof(struct tcp_listener),
    .flow_controlled = true,
    .read_window = TCP_READ_WINDOW,
    .connect = tcp_connect,
    .listen = tcp_listen,
    .unlisten = tcp_unlisten,
    .mem_unregister = tcp_mem_unregister,
    .control = tcp_control,
    .post = tcp_post,
    .retire = tcp_retire,
    .drop = tcp_drop,
    .shut = tcp_shut,
    .conn_free = tcp_conn_free,
    .destroy = tcp_destroy,
};

int fabric_create_tcp(struct env *env, const struct fabric_config *config, struct fabric **out)
{
    struct tcp_fabric *tf = calloc(1, sizeof(*tf));
    if (!tf)
        return -ENOMEM;
    int rc = fabric_core_init(&tf->core, &tcp_ops, env, config);
    if (rc) {
        free(tf);
        return rc;
    }
    list_init(&tf->dirty);
    list_init(&tf->resume);
    list_init(&tf->served_free);
    tf->poller = (struct loop_poller){.flush = tcp_flush, .arm = tcp_arm};
    loop_poller_add(env->loop, &tf->poller);
    loop_timer_init(&tf->tick, tcp_tick);
    tf->tick_ns = min_u64(tf->core.config.probe_interval_ns, tf->core.config.probe_timeout_ns) / 2 + 1;
    tf->last_tick_ns = loop_now_ns(env->loop);
    loop_timer_arm(env->loop, &tf->tick, tf->tick_ns);
    *out = &tf->core;
    return 0;
}
