/*
 * fabric_core.c: what all providers share: connections' states, credits and windows, completions, and the
 * public calls. The handshake is in fabric_handshake.c.
 */
#include "rdma/fabric_provider.h"

#include <stdlib.h>
#include <string.h>

/* ---- endpoints ---- */

static void core_task(struct loop_task *t)
{
    fabric_core_run(container_of(t, struct fabric, task));
}

int fabric_core_init(struct fabric *f, const struct fabric_ops *ops, struct env *env,
                     const struct fabric_config *config)
{
    if (config->secret_len > sizeof(config->secret) || config->role == FABRIC_ROLE_NONE)
        return -EINVAL;
    f->ops = ops;
    f->env = env;
    f->config = *config;
    struct fabric_config *c = &f->config;
    if (!c->recv_messages)
        c->recv_messages = 64;
    if (!c->connect_timeout_ns)
        c->connect_timeout_ns = 5 * NS_PER_S;
    /* A host that is gone tells nobody. Over tcp only silence does (an acknowledgement that does not come is
     * waited for by the kernel for minutes); over verbs a beat that is not acknowledged, a little sooner. A
     * copy takes over when that is over. */
    if (!c->probe_interval_ns)
        c->probe_interval_ns = 250 * NS_PER_MS;
    if (!c->probe_timeout_ns)
        c->probe_timeout_ns = 1200 * NS_PER_MS;
    if (!c->max_connections)
        c->max_connections = 4096;
    if (!c->max_unproved)
        c->max_unproved = 256;
    if (c->recv_messages < 2 || c->recv_messages > 65535)
        return -EINVAL;
    f->cluster = c->cluster;
    f->version_min = FABRIC_VERSION_MIN;
    f->version_max = FABRIC_VERSION_MAX;
    list_init(&f->conns);
    list_init(&f->unproved);
    list_init(&f->listeners);
    list_init(&f->mems);
    list_init(&f->done);
    list_init(&f->attention);
    loop_task_init(&f->task, core_task);
    return 0;
}

void fabric_core_proved(struct fabric_conn *conn)
{
    list_remove(&conn->unproved);
    if (conn->stranger)
        conn->fabric->counters.conns_unproved--;
    conn->stranger = false;
}

static void conn_free(struct fabric_conn *conn)
{
    struct fabric *f = conn->fabric;
    fabric_core_proved(conn);
    loop_timer_cancel(f->env->loop, &conn->deadline);
    if (f->ops->conn_free)
        f->ops->conn_free(conn);
    list_remove(&conn->link);
    list_remove(&conn->attention);
    f->conn_count--;
    f->counters.conns_open--;
    free(conn);
}

static void conn_cut(struct fabric_conn *conn)
{
    if (conn->lingering)
        conn->fabric->ops->cut(conn);
    conn->lingering = false;
}

void fabric_destroy(struct fabric *f)
{
    if (!f)
        return;
    loop_task_cancel(f->env->loop, &f->task);
    for (struct list *n; (n = f->conns.next) != &f->conns;) {
        struct fabric_conn *conn = list_entry(n, struct fabric_conn, link);
        if (conn->state != CONN_DOWN)
            f->ops->shut(conn, true);
        conn_cut(conn);
        conn_free(conn);
    }
    for (struct list *n; (n = f->listeners.next) != &f->listeners;)
        fabric_unlisten(list_entry(n, struct fabric_listener, link));
    for (struct list *n; (n = list_pop_front(&f->mems));) {
        struct fabric_region *r = container_of(n, struct fabric_region, link);
        if (f->ops->mem_unregister)
            f->ops->mem_unregister(&r->mem);
        free(r);
    }
    f->ops->destroy(f);
}

const struct fabric_config *fabric_config_get(const struct fabric *f)
{
    return &f->config;
}

struct uuid fabric_cluster(const struct fabric *f)
{
    return f->cluster;
}

/* ---- completions ---- */

static void need_run(struct fabric *f)
{
    if (!f->running)
        loop_defer(f->env->loop, &f->task);
}

static void conn_attention(struct fabric_conn *conn)
{
    if (list_unlinked(&conn->attention))
        list_push_back(&conn->fabric->attention, &conn->attention);
    need_run(conn->fabric);
}

static void conn_pump(struct fabric_conn *conn);

void fabric_core_op_done(struct fabric_op *op, int rc)
{
    struct fabric_conn *conn = op->conn;
    MUST(!(op->state & OP_DONE) && rc <= 0);
    list_remove(&op->link);
    if (op->state & OP_WINDOWED) {
        conn->reads_out--;
        if (conn->state == CONN_UP && !list_empty(&conn->reads))
            conn_pump(conn);
    }
    op->state |= OP_DONE;
    op->progress = (uint32_t)-rc;
    list_push_back(&conn->fabric->done, &op->link);
    need_run(conn->fabric);
}

static void run_done(struct fabric *f)
{
    struct list *n;
    while ((n = list_pop_front(&f->done))) {
        struct fabric_op *op = list_entry(n, struct fabric_op, link);
        struct fabric_conn *conn = op->conn;
        f->counters.ops_pending--;
        conn->pending--;
        if (conn->pending == 0 && conn->closed)
            conn_attention(conn);
        if (op->done)
            op->done(op, -(int)op->progress);
    }
}

static void run_attention(struct fabric *f)
{
    struct list *n;
    while ((n = list_pop_front(&f->attention))) {
        struct fabric_conn *conn = list_entry(n, struct fabric_conn, attention);
        run_done(f); /* all ops have ended before the down is told */
        if (conn->down_owed && !conn->closed && !conn->lingering) {
            conn->down_owed = false;
            conn->events->down(conn, conn->reason);
        }
        /* The callback may have closed it, which puts it back into the list. */
        if (conn->closed && conn->pending == 0 && !conn->lingering)
            conn_free(conn);
    }
}

void fabric_core_run(struct fabric *f)
{
    if (f->running || (list_empty(&f->done) && list_empty(&f->attention)))
        return;
    f->running = true;
    /* Bounded: what the callbacks cause is handled here a few times, the rest in the next round. */
    for (int i = 0; i < 4 && !(list_empty(&f->done) && list_empty(&f->attention)); i++) {
        run_done(f);
        run_attention(f);
    }
    f->running = false;
    if (!list_empty(&f->done) || !list_empty(&f->attention))
        loop_defer(f->env->loop, &f->task);
    else
        loop_task_cancel(f->env->loop, &f->task);
}

/* ---- posting ---- */

uint32_t fabric_sge_total(const struct fabric_sge *sge, unsigned count, bool *ok)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += sge[i].len;
    if (count > FABRIC_SGE_MAX || total > FABRIC_PAYLOAD_MAX)
        *ok = false;
    return (uint32_t)total;
}

static bool op_prepare(struct fabric_op *op)
{
    bool ok = true;
    uint32_t total = fabric_sge_total(op->sge, op->sge_count, &ok);
    if (op->kind == FABRIC_OP_SEND) {
        op->remote.addr = 0;
        op->remote.len = total;
        op->remote.key = fabric_sge_total(op->sink, op->sink_count, &ok);
        return ok && op->header_len > 0 && op->header_len <= FABRIC_MESSAGE_MAX;
    }
    op->header_len = total;
    if (op->kind == FABRIC_OP_PUSH && (uint64_t)op->remote_offset + total > op->remote.len)
        return false;
    return ok && total > 0 && total <= op->remote.len;
}

static bool takes_window(const struct fabric *f, const struct fabric_op *op)
{
    return op->kind == FABRIC_OP_READ || (op->kind == FABRIC_OP_FETCH && f->ops->fetch_is_read);
}

/* The op has all it needs: to the provider. */
static int op_hand_over(struct fabric_conn *conn, struct fabric_op *op)
{
    struct fabric *f = conn->fabric;
    if (takes_window(f, op)) {
        op->state |= OP_WINDOWED;
        conn->reads_out++;
    }
    if (op->kind == FABRIC_OP_SEND && !f->ops->flow_controlled)
        conn->tx_credits--;
    int rc = f->ops->post(conn, op);
    if (rc == 0)
        return 0;
    if (op->state & OP_WINDOWED) {
        op->state &= ~(uint32_t)OP_WINDOWED;
        conn->reads_out--;
    }
    if (op->kind == FABRIC_OP_SEND && !f->ops->flow_controlled)
        conn->tx_credits++;
    return rc;
}

static bool may_go(const struct fabric_conn *conn, const struct fabric_op *op)
{
    return op->kind != FABRIC_OP_SEND || conn->fabric->ops->flow_controlled || conn->tx_credits > 0;
}

static void pump_one(struct fabric_conn *conn, struct fabric_op *op)
{
    list_remove(&op->link);
    int rc = op_hand_over(conn, op);
    if (rc) { /* the provider has no memory: order would break if the rest went on */
        fabric_core_op_done(op, -ENOTCONN);
        fabric_core_fail(conn, FABRIC_DOWN_PROTOCOL);
    }
}

static void conn_pump(struct fabric_conn *conn)
{
    while (conn->state == CONN_UP && !list_empty(&conn->waiting)) {
        struct fabric_op *op = list_entry(conn->waiting.next, struct fabric_op, link);
        if (!may_go(conn, op))
            break;
        pump_one(conn, op);
    }
    while (conn->state == CONN_UP && !list_empty(&conn->reads) &&
           conn->reads_out < conn->fabric->ops->read_window)
        pump_one(conn, list_entry(conn->reads.next, struct fabric_op, link));
}

static void count_post(struct fabric *f, const struct fabric_op *op)
{
    struct fabric_counters *c = &f->counters;
    c->ops_pending++;
    switch (op->kind) {
    case FABRIC_OP_SEND:
        c->messages_sent++;
        c->bytes_sent += op->header_len;
        break;
    case FABRIC_OP_FETCH:
        c->fetches++;
        break;
    case FABRIC_OP_PUSH:
        c->pushes++;
        c->bytes_sent += op_len(op);
        break;
    case FABRIC_OP_READ:
        c->reads++;
        break;
    case FABRIC_OP_WRITE:
        c->writes++;
        c->bytes_sent += op_len(op);
        break;
    }
}

int fabric_post(struct fabric_conn *conn, struct fabric_op *op)
{
    struct fabric *f = conn->fabric;
    if (conn->state != CONN_UP || conn->closed)
        return -ENOTCONN;
    if (!op_prepare(op))
        return -EINVAL;
    op->conn = conn;
    op->id = 0;
    op->progress = 0;
    op->state = 0;
    if (op->kind == FABRIC_OP_SEND && (op_source_len(op) || op_sink_len(op)))
        op->state = OP_EXPOSED;
    list_init(&op->link);
    bool windowed = takes_window(f, op);
    if (windowed && (conn->reads_out >= f->ops->read_window || !list_empty(&conn->reads))) {
        list_push_back(&conn->reads, &op->link);
    } else if (!windowed && op->kind != FABRIC_OP_FETCH &&
               (!may_go(conn, op) || !list_empty(&conn->waiting))) {
        f->counters.credit_waits++;
        list_push_back(&conn->waiting, &op->link);
    } else {
        int rc = op_hand_over(conn, op);
        if (rc)
            return rc;
    }
    conn->pending++;
    count_post(f, op);
    return 0;
}

void fabric_retire(struct fabric_op *op)
{
    MUST((op->state & (OP_EXPOSED | OP_RETIRED)) == OP_EXPOSED);
    op->state |= OP_RETIRED;
    if (op->state & OP_DONE) /* the connection went down before */
        return;
    op->conn->fabric->ops->retire(op->conn, op);
}

void fabric_drop(struct fabric_conn *conn, const struct fabric_remote *source)
{
    if (conn->state == CONN_UP && !conn->closed && source->len)
        conn->fabric->ops->drop(conn, source);
}

/* ---- delivery ---- */

bool fabric_core_message(struct fabric_conn *conn, const struct fabric_msg *msg)
{
    struct fabric *f = conn->fabric;
    MUST(conn->state == CONN_UP && !conn->closed);
    f->counters.messages_received++;
    f->counters.bytes_received += msg->len;
    conn->events->message(conn, msg);
    if (conn->state != CONN_UP || conn->closed)
        return false;
    if (!f->ops->flow_controlled && ++conn->rx_owed >= (conn->rx_lent + 1) / 2)
        f->ops->credit(conn);
    return true;
}

void fabric_core_credits(struct fabric_conn *conn, uint32_t n)
{
    conn->tx_credits += n;
    conn_pump(conn);
}

/* ---- connections' ends ---- */

/* All ops that are not done are in conn->active afterwards. */
static void conn_end(struct fabric_conn *conn, bool polite)
{
    struct fabric *f = conn->fabric;
    conn->state = CONN_DOWN;
    list_remove(&conn->unproved); /* it counts as a stranger until its memory goes */
    loop_timer_cancel(f->env->loop, &conn->deadline);
    f->ops->shut(conn, polite);
    list_splice(&conn->active, &conn->waiting);
    list_splice(&conn->active, &conn->reads);
}

static void ops_fail(struct fabric_conn *conn)
{
    while (!conn->lingering && !list_empty(&conn->active))
        fabric_core_op_done(list_entry(conn->active.next, struct fabric_op, link), -ENOTCONN);
}

void fabric_core_fail(struct fabric_conn *conn, enum fabric_down reason)
{
    if (conn->state == CONN_DOWN)
        return;
    bool was_up = conn->state == CONN_UP;
    if (reason == FABRIC_DOWN_PROTOCOL || reason == FABRIC_DOWN_ACCESS)
        conn->fabric->counters.protocol_errors++;
    conn_end(conn, false);
    ops_fail(conn);
    conn->reason = reason;
    fabric_core_count_down(conn->fabric, reason);
    if (!conn->initiator && !was_up) { /* nobody has heard of it */
        conn->closed = true;
        conn->fabric->counters.conns_refused++;
    }
    conn->down_owed = true;
    conn_attention(conn);
}

void fabric_core_gone(struct fabric_conn *conn)
{
    MUST(conn->lingering && conn->state == CONN_DOWN);
    conn->lingering = false;
    ops_fail(conn);
    conn_attention(conn);
}

void fabric_core_refuse(struct fabric_conn *conn, enum fabric_down reason)
{
    if (conn->state == CONN_DOWN)
        return;
    uint32_t text = (uint32_t)reason;
    conn->fabric->ops->control(conn, FABRIC_CONTROL_REFUSE, &text, sizeof(text));
    fabric_core_fail(conn, reason);
}

void fabric_kill(struct fabric_conn *conn, enum fabric_down reason)
{
    if (!conn->closed)
        fabric_core_refuse(conn, reason);
}

void fabric_close(struct fabric_conn *conn)
{
    MUST(!conn->closed);
    conn->closed = true;
    if (conn->state != CONN_DOWN) {
        conn_end(conn, true);
        ops_fail(conn);
    }
    conn_attention(conn);
}

void fabric_abandon(struct fabric_conn *conn)
{
    struct fabric *f = conn->fabric;
    conn->closed = true;
    if (conn->state != CONN_DOWN)
        conn_end(conn, true);
    conn_cut(conn);
    list_for_each_safe(n, &f->done)
    {
        if (list_entry(n, struct fabric_op, link)->conn == conn) {
            list_remove(n);
            list_push_back(&conn->active, n);
        }
    }
    while (list_pop_front(&conn->active))
        ;
    f->counters.ops_pending -= conn->pending;
    conn->pending = 0;
    /* Its memory goes with the next run: a callback of it may be on the stack. */
    conn_attention(conn);
}

void *fabric_conn_user(const struct fabric_conn *conn)
{
    return conn->user;
}

void fabric_conn_set_user(struct fabric_conn *conn, void *user)
{
    conn->user = user;
}

const struct fabric_peer *fabric_conn_peer(const struct fabric_conn *conn)
{
    return &conn->peer;
}

bool fabric_conn_nobody(const struct fabric_conn *conn)
{
    return conn->nobody;
}

bool fabric_conn_is_up(const struct fabric_conn *conn)
{
    return conn->state == CONN_UP && !conn->closed;
}

const char *fabric_down_text(enum fabric_down reason)
{
    static const char *const text[] = {
        [FABRIC_DOWN_PEER_CLOSED] = "the peer closed the connection",
        [FABRIC_DOWN_PEER_DIED] = "the connection was lost",
        [FABRIC_DOWN_TIMEOUT] = "the peer does not answer",
        [FABRIC_DOWN_REFUSED] = "the peer refused the connection",
        [FABRIC_DOWN_PROTOCOL] = "the peer broke the protocol",
        [FABRIC_DOWN_AUTH] = "the secrets differ",
        [FABRIC_DOWN_CLUSTER] = "the peer belongs to another cluster",
        [FABRIC_DOWN_VERSION] = "no common protocol version",
        [FABRIC_DOWN_ACCESS] = "access to memory that was not granted",
        [FABRIC_DOWN_UNREACHABLE] = "the peer cannot be reached",
    };
    if ((unsigned)reason >= ARRAY_LEN(text) || !text[reason])
        return "unknown reason";
    return text[reason];
}
