/*
 * fabric_handshake.c: from "connect" to "up".
 *
 * The connector says hello, the listener says hello, the connector proves that it knows the secret, and only
 * then the listener does. The listener's owner hears of a connection when it is proved.
 */
#include "rdma/fabric_provider.h"

#include "common/rng.h"

#include <stdlib.h>
#include <string.h>

static void deadline_passed(struct loop_timer *t)
{
    struct fabric_conn *conn = container_of(t, struct fabric_conn, deadline);
    fabric_core_fail(conn, FABRIC_DOWN_TIMEOUT);
}

/* Connections that count as such: strangers do not. */
static bool over_limit(const struct fabric *f)
{
    return f->conn_count - f->counters.conns_unproved >= f->config.max_connections;
}

static struct fabric_conn *conn_create(struct fabric *f)
{
    struct fabric_conn *conn = calloc(1, f->ops->conn_size);
    if (!conn)
        return NULL;
    conn->fabric = f;
    conn->serial = ++f->conn_serial;
    list_init(&conn->attention);
    list_init(&conn->unproved);
    list_init(&conn->waiting);
    list_init(&conn->reads);
    list_init(&conn->active);
    loop_timer_init(&conn->deadline, deadline_passed);
    conn->state = CONN_HELLO;
    list_push_back(&f->conns, &conn->link);
    f->conn_count++;
    f->counters.conns_open++;
    struct fabric_hello *h = &conn->hello_mine;
    h->magic = FABRIC_HELLO_MAGIC;
    h->version_min = f->version_min;
    h->version_max = f->version_max;
    h->cluster = f->cluster;
    h->role = (uint8_t)f->config.role;
    h->service_id = f->config.service_id;
    h->incarnation = f->config.incarnation;
    rng_fill(f->env->rng, h->nonce, sizeof(h->nonce));
    loop_timer_arm(f->env->loop, &conn->deadline, f->config.connect_timeout_ns);
    return conn;
}

static void conn_discard(struct fabric_conn *conn)
{
    struct fabric *f = conn->fabric;
    loop_timer_cancel(f->env->loop, &conn->deadline);
    list_remove(&conn->link);
    f->conn_count--;
    f->counters.conns_open--;
    free(conn);
}

int fabric_connect(struct fabric *f, const struct fabric_addr *addr, enum fabric_domain domain,
                   const struct fabric_conn_events *events, void *user, struct fabric_conn **out)
{
    if (addr->provider != f->ops->kind || domain < FABRIC_DOMAIN_HOST || domain > FABRIC_DOMAIN_TABLE)
        return -EINVAL;
    if (over_limit(f))
        return -EMFILE;
    struct fabric_conn *conn = conn_create(f);
    if (!conn)
        return -ENOMEM;
    conn->initiator = true;
    conn->events = events;
    conn->user = user;
    conn->hello_mine.domain = (uint8_t)domain;
    conn->peer.domain = domain;
    conn->peer.addr = *addr;
    int rc = f->ops->connect(conn, addr);
    if (rc) {
        conn_discard(conn);
        return rc;
    }
    *out = conn;
    return 0;
}

int fabric_listen(struct fabric *f, const struct fabric_addr *addr, const struct fabric_accept *accept,
                  struct fabric_listener **out)
{
    if (addr->provider != f->ops->kind)
        return -EINVAL;
    struct fabric_listener *l = calloc(1, f->ops->listener_size);
    if (!l)
        return -ENOMEM;
    l->fabric = f;
    l->accept = *accept;
    l->addr = *addr;
    int rc = f->ops->listen(l, addr);
    if (rc) {
        free(l);
        return rc;
    }
    list_push_back(&f->listeners, &l->link);
    *out = l;
    return 0;
}

void fabric_listener_addr(const struct fabric_listener *l, struct fabric_addr *out)
{
    *out = l->addr;
}

void fabric_unlisten(struct fabric_listener *l)
{
    struct fabric *f = l->fabric;
    list_for_each_safe(n, &f->conns)
    {
        struct fabric_conn *conn = list_entry(n, struct fabric_conn, link);
        if (conn->listener == l) {
            fabric_core_fail(conn, FABRIC_DOWN_REFUSED);
            conn->listener = NULL;
        }
    }
    f->ops->unlisten(l);
    list_remove(&l->link);
    free(l);
}

/* Room for one more stranger: the oldest one goes if it had time enough for an honest handshake. */
static bool unproved_room(struct fabric *f)
{
    if (f->counters.conns_unproved < f->config.max_unproved)
        return true;
    if (list_empty(&f->unproved))
        return false;
    struct fabric_conn *oldest = list_entry(f->unproved.next, struct fabric_conn, unproved);
    uint64_t patience_ns = f->config.connect_timeout_ns - f->config.connect_timeout_ns / 8;
    if (oldest->deadline.deadline_ns > loop_now_ns(f->env->loop) + patience_ns)
        return false;
    fabric_core_fail(oldest, FABRIC_DOWN_TIMEOUT);
    return true;
}

struct fabric_conn *fabric_core_incoming(struct fabric_listener *l, const struct fabric_addr *from)
{
    struct fabric *f = l->fabric;
    struct fabric_conn *conn = unproved_room(f) ? conn_create(f) : NULL;
    if (!conn) {
        f->counters.conns_refused++;
        return NULL;
    }
    list_push_back(&f->unproved, &conn->unproved);
    f->counters.conns_unproved++;
    conn->stranger = true;
    conn->listener = l;
    conn->peer.addr = *from;
    return conn;
}

/* 0, or the reason why that peer cannot be talked to. */
static int hello_check(struct fabric_conn *conn, const struct fabric_hello *h)
{
    const struct fabric *f = conn->fabric;
    if (h->magic != FABRIC_HELLO_MAGIC || h->version_min > h->version_max)
        return FABRIC_DOWN_PROTOCOL;
    if (h->version_min > f->version_max || h->version_max < f->version_min)
        return FABRIC_DOWN_VERSION;
    if (!uuid_is_zero(&h->cluster) && !uuid_is_zero(&f->cluster) && !uuid_eq(&h->cluster, &f->cluster))
        return FABRIC_DOWN_CLUSTER;
    if (h->role < FABRIC_ROLE_MDC || h->role > FABRIC_ROLE_ADMIN)
        return FABRIC_DOWN_PROTOCOL;
    if (h->domain < FABRIC_DOMAIN_HOST || h->domain > FABRIC_DOMAIN_TABLE)
        return FABRIC_DOWN_PROTOCOL;
    if (conn->initiator && h->domain != conn->hello_mine.domain)
        return FABRIC_DOWN_PROTOCOL;
    struct fabric_peer *p = &conn->peer;
    p->role = (enum fabric_role)h->role;
    p->domain = (enum fabric_domain)h->domain;
    p->service_id = h->service_id;
    p->incarnation = h->incarnation;
    p->version = (uint16_t)min_u64(h->version_max, f->version_max);
    p->cluster = h->cluster;
    return 0;
}

/* What the peer may send at first; false: there is no room for this connection, it is refused. */
static bool lend(struct fabric_conn *conn)
{
    const struct fabric *f = conn->fabric;
    conn->rx_lent = f->ops->lend ? f->ops->lend(conn) : f->config.recv_messages;
    if (conn->rx_lent == 0)
        fabric_core_refuse(conn, FABRIC_DOWN_REFUSED);
    return conn->rx_lent > 0;
}

static void send_auth(struct fabric_conn *conn)
{
    const struct fabric_config *c = &conn->fabric->config;
    struct fabric_auth a;
    memset(&a, 0, sizeof(a));
    a.recv_messages = conn->rx_lent;
    a.beat_ms = (uint32_t)min_u64(max_u64(c->probe_timeout_ns / 4 / NS_PER_MS, 1), 60000);
    if (conn->initiator)
        fabric_auth_sign(c, 0, &conn->hello_mine, &conn->hello_peer, &a);
    else
        fabric_auth_sign(c, 1, &conn->hello_peer, &conn->hello_mine, &a);
    conn->fabric->ops->control(conn, FABRIC_CONTROL_AUTH, &a, sizeof(a));
}

void fabric_core_hello(struct fabric_conn *conn, const struct fabric_hello *hello)
{
    if (conn->state != CONN_HELLO) {
        fabric_core_refuse(conn, FABRIC_DOWN_PROTOCOL);
        return;
    }
    int reason = hello_check(conn, hello);
    if (reason) {
        fabric_core_refuse(conn, (enum fabric_down)reason);
        return;
    }
    conn->hello_peer = *hello;
    conn->state = CONN_AUTH;
    if (conn->initiator) {
        if (lend(conn))
            send_auth(conn);
    } else {
        conn->hello_mine.domain = hello->domain;
        conn->fabric->ops->control(conn, FABRIC_CONTROL_HELLO, &conn->hello_mine, sizeof(conn->hello_mine));
    }
}

/* The listener's owner takes it, or not. */
static bool conn_accept(struct fabric_conn *conn)
{
    struct fabric_listener *l = conn->listener;
    const struct fabric_conn_events *events = l->accept.accept(l->accept.user, &conn->peer, &conn->user);
    /* The owner may have stopped listening meanwhile. */
    if (conn->state == CONN_DOWN)
        return false;
    if (!events) {
        fabric_core_refuse(conn, FABRIC_DOWN_REFUSED);
        return false;
    }
    conn->events = events;
    conn->listener = NULL;
    return true;
}

void fabric_core_auth(struct fabric_conn *conn, const struct fabric_auth *a)
{
    struct fabric *f = conn->fabric;
    if (conn->state != CONN_AUTH) {
        fabric_core_refuse(conn, FABRIC_DOWN_PROTOCOL);
        return;
    }
    bool good = conn->initiator ? fabric_auth_verify(&f->config, 1, &conn->hello_mine, &conn->hello_peer, a)
                                : fabric_auth_verify(&f->config, 0, &conn->hello_peer, &conn->hello_mine, a);
    if (!good || a->recv_messages < 2 || a->recv_messages > 65535 || a->beat_ms == 0) {
        fabric_core_refuse(conn, good ? FABRIC_DOWN_PROTOCOL : FABRIC_DOWN_AUTH);
        return;
    }
    /* Two connections of one tool may have been under way to two clusters. */
    if (!uuid_is_zero(&f->cluster) && !uuid_is_zero(&conn->peer.cluster) &&
        !uuid_eq(&f->cluster, &conn->peer.cluster)) {
        fabric_core_refuse(conn, FABRIC_DOWN_CLUSTER);
        return;
    }
    bool full = !conn->initiator && over_limit(f);
    fabric_core_proved(conn);
    if (full) {
        fabric_core_refuse(conn, FABRIC_DOWN_REFUSED);
        return;
    }
    conn->tx_credits = a->recv_messages;
    conn->beat_ms = a->beat_ms;
    if (!conn->initiator) {
        if (!lend(conn) || !conn_accept(conn))
            return;
        send_auth(conn);
    }
    if (uuid_is_zero(&f->cluster))
        f->cluster = conn->peer.cluster;
    conn->state = CONN_UP;
    loop_timer_cancel(f->env->loop, &conn->deadline);
    f->counters.conns_made++;
    conn->events->up(conn, &conn->peer);
}
