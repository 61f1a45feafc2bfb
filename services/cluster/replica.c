/* replica.c: the connection for reads of the table, and when the copy is refreshed. */
#include "services/cluster/cluster_private.h"

#include <stdlib.h>
#include <string.h>

static void conn_open(struct loop_timer *timer);

/* ---- when ---- */

static void tick(struct loop_timer *timer)
{
    struct cluster *c = container_of(timer, struct cluster, replica.tick);
    if (c->replica.conn_up && c->replica.state == REPLICA_IDLE)
        replica_begin(c);
}

static void tick_in(struct cluster *c, uint64_t ns)
{
    loop_timer_arm(c->env->loop, &c->replica.tick, ns);
}

void replica_kick(struct cluster *c)
{
    struct replica *r = &c->replica;
    if (!r->conn_up)
        return; /* the first thing that a new connection does is a refresh */
    if (r->state != REPLICA_IDLE) {
        r->again = true;
        return;
    }
    const uint64_t since = loop_now_ns(c->env->loop) - r->begun_ns;
    if (since >= REPLICA_GAP_NS || r->begun == 0)
        replica_begin(c);
    else
        tick_in(c, REPLICA_GAP_NS - since);
}

static bool behind_hint(const struct cluster *c)
{
    const struct table_header *h = cluster_head(c);
    return h == NULL ||
           version_pair_cmp(h->term, h->version, c->replica.hint_term, c->replica.hint_version) < 0;
}

void replica_hint(struct cluster *c, uint64_t term, uint64_t version)
{
    struct replica *r = &c->replica;
    if (version_pair_cmp(term, version, r->hint_term, r->hint_version) > 0) {
        r->hint_term = term;
        r->hint_version = version;
    }
    if (behind_hint(c))
        replica_kick(c);
}

static uint64_t period_ns(struct cluster *c)
{
    const uint64_t ns = c->config.refresh_ns;
    return ns - ns / 4 + rng_below(c->env->rng, ns / 2 + 1);
}

void replica_ended(struct cluster *c, int rc, bool changed)
{
    struct replica *r = &c->replica;
    uint64_t next = period_ns(c);
    r->refresh_failures = rc != 0 ? r->refresh_failures + 1 : 0;
    if (rc != 0 || (!changed && (waits_for_version(c) || behind_hint(c))))
        next = min_u64(next, cluster_backoff_ns(c, r->refresh_failures));
    /* Not idle yet: who asks for a refresh in there sets r->again. */
    if (changed && c->events.table_changed != NULL)
        c->events.table_changed(c->user, &r->table);
    replica_copy_drop(c); /* the copy before, if there is one */
    waits_check(c, r->begun);
    r->state = REPLICA_IDLE;
    if (!r->conn_up)
        return;
    if (r->again || (changed && behind_hint(c)))
        next = REPLICA_GAP_NS;
    r->again = false;
    tick_in(c, next);
}

/* A publisher whose heart stands still may be a process that hangs while its memory can still be read. */
void replica_watch(struct cluster *c)
{
    struct replica *r = &c->replica;
    const uint64_t now = loop_now_ns(c->env->loop);
    if (r->head.heartbeat != r->heartbeat || r->heartbeat_ns == 0) {
        r->heartbeat = r->head.heartbeat;
        r->heartbeat_ns = r->publisher_ns = now;
        r->stalled = false;
        return;
    }
    const uint64_t patience = 5 * max_u64(c->session.reply.heartbeat_ms * NS_PER_MS, c->config.refresh_ns);
    if (now - r->heartbeat_ns < patience || r->stalled)
        return;
    r->stalled = true;
    log_warn(c->env, "the metadata controller's heart stands still; its table stays in use", "silent_ms=%lu",
             (unsigned long)((now - r->heartbeat_ns) / NS_PER_MS));
    if (c->config.mdc_count > 1)
        session_leave(c, "its table's heartbeat stands still");
}

/* ---- the connection ---- */

static void conn_drop(struct cluster *c)
{
    struct replica *r = &c->replica;
    if (r->conn != NULL)
        fabric_abandon(r->conn);
    r->conn = NULL;
    r->conn_up = false;
    r->again = false;
    loop_timer_cancel(c->env->loop, &r->tick);
    loop_timer_cancel(c->env->loop, &r->conn_timer);
    const bool was_busy = r->state != REPLICA_IDLE;
    replica_reads_forget(c);
    if (was_busy)
        replica_ended(c, -ENOTCONN, false);
}

static void conn_retry(struct cluster *c)
{
    loop_timer_arm(c->env->loop, &c->replica.conn_timer, cluster_backoff_ns(c, c->replica.failures++));
}

static void on_up(struct fabric_conn *conn, const struct fabric_peer *peer)
{
    struct cluster *c = fabric_conn_user(conn);
    (void)peer;
    c->replica.conn_up = true;
    c->replica.failures = 0;
    replica_begin(c);
}

static void on_message(struct fabric_conn *conn, const struct fabric_msg *msg)
{
    fabric_drop(conn, &msg->source); /* nothing is expected here */
}

static void on_down(struct fabric_conn *conn, enum fabric_down reason)
{
    struct cluster *c = fabric_conn_user(conn);
    struct replica *r = &c->replica;
    const bool was_up = r->conn_up;
    char addr[64];
    if (was_up || r->failures == 0)
        log_warn(c->env, "no connection to read the tables by, trying on", "addr=%s reason=\"%s\"",
                 fabric_addr_format(&r->addr, addr), fabric_down_text(reason));
    conn_drop(c);
    conn_retry(c);
    if (reason == FABRIC_DOWN_ACCESS && c->session.up && c->session.reply.start == r->start)
        session_leave(c, "the key to its table does not hold"); /* a new session brings the present one */
}

static const struct fabric_conn_events events = {.up = on_up, .message = on_message, .down = on_down};

static void conn_open(struct loop_timer *timer)
{
    struct cluster *c = container_of(timer, struct cluster, replica.conn_timer);
    struct replica *r = &c->replica;
    if (!c->session.up) { /* its address and key are from there; replica_session goes on */
        return;
    }
    const int rc = fabric_connect(c->env->fabric, &r->addr, FABRIC_DOMAIN_TABLE, &events, c, &r->conn);
    if (rc != 0) {
        r->conn = NULL;
        conn_retry(c);
    }
}

void replica_session(struct cluster *c)
{
    struct replica *r = &c->replica;
    const struct mdc_session_reply *reply = &c->session.reply;
    char addr[64];
    if (c->config.no_table)
        return;
    const bool same = r->conn != NULL && r->start == reply->start && r->remote_addr == reply->table_addr &&
                      r->remote_key == reply->table_key && r->remote_len == reply->table_len &&
                      fabric_addr_eq(&r->addr, session_addr(c));
    if (!same) {
        conn_drop(c);
        r->addr = *session_addr(c);
        r->start = reply->start;
        r->remote_addr = reply->table_addr;
        r->remote_len = reply->table_len;
        r->remote_key = reply->table_key;
        r->failures = 0;
        r->heartbeat_ns = 0;
        r->hint_term = r->hint_version = 0;
        if (reply->table_len > c->config.table_max_bytes || reply->table_len < sizeof(struct table_header)) {
            log_error(
                c->env,
                "refused the table of the metadata controller: its size; raise the limit here, lower it there",
                "addr=%s bytes=%lu limit=%lu", fabric_addr_format(&r->addr, addr),
                (unsigned long)reply->table_len, (unsigned long)c->config.table_max_bytes);
            return;
        }
        loop_timer_arm(c->env->loop, &r->conn_timer, 0);
    }
    replica_hint(c, reply->term, reply->version);
}

/* ---- begin and end ---- */

int replica_init(struct cluster *c)
{
    struct replica *r = &c->replica;
    loop_timer_init(&r->conn_timer, conn_open);
    loop_timer_init(&r->tick, tick);
    r->refused = r->back = (struct log_limit){.interval_ns = 10 * NS_PER_S};
    replica_reads_init(c);
    if (c->config.no_table)
        return 0;
    const size_t bytes = (size_t)REPLICA_READS * REPLICA_READ_BYTES;
    r->stage = aligned_alloc(UNIT_BYTES, bytes);
    if (r->stage == NULL)
        return -ENOMEM;
    memset(r->stage, 0, bytes);
    const int rc = fabric_mem_register(c->env->fabric, FABRIC_DOMAIN_TABLE, r->stage, bytes,
                                       FABRIC_ACCESS_LOCAL, &r->stage_mem);
    if (rc != 0)
        free(r->stage);
    return rc;
}

void replica_destroy(struct cluster *c)
{
    struct replica *r = &c->replica;
    if (r->conn != NULL)
        fabric_abandon(r->conn);
    replica_reads_forget(c);
    loop_timer_cancel(c->env->loop, &r->tick);
    loop_timer_cancel(c->env->loop, &r->conn_timer);
    if (r->stage_mem != NULL)
        fabric_mem_unregister(r->stage_mem);
    free(r->stage);
    free(r->table.region);
    table_index_free(&r->table);
}
