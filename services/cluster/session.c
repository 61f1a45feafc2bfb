/* session.c: the connection for messages: finding an MDC that is in charge, and staying with it. */
#include "services/cluster/cluster_private.h"

#include <stdio.h>
#include <string.h>

static struct cluster *of(void *service)
{
    return service;
}

const struct fabric_addr *session_addr(const struct cluster *c)
{
    return &c->config.mdc[c->session.mdc];
}

const char *session_addr_text(const struct cluster *c, char *text)
{
    return fabric_target_format(session_addr(c), c->config.mdc_host[c->session.mdc], text);
}

static void schedule(struct cluster *c)
{
    struct session *s = &c->session;
    loop_timer_arm(c->env->loop, &s->timer, cluster_backoff_ns(c, s->failures / c->config.mdc_count));
}

/* There is no peer any more. A session that was up is tried again where it was; an attempt that failed,
 * elsewhere. */
static void ended(struct cluster *c, const char *why)
{
    struct session *s = &c->session;
    char addr[FABRIC_TARGET_BYTES];
    session_addr_text(c, addr);
    snprintf(s->why, sizeof(s->why), "%s: %.180s", addr, why);
    const bool was_up = s->up;
    s->up = false;
    if (was_up) {
        log_warn(c->env, "session with the metadata controller ended", "addr=%s reason=\"%s\"", addr, why);
    } else {
        if (s->failures < c->config.mdc_count)
            log_warn(c->env, "cannot reach the metadata controller, trying on", "addr=%s reason=\"%s\"", addr,
                     why);
        s->failures++;
        s->mdc = (s->mdc + 1) % c->config.mdc_count;
    }
    schedule(c);
    calls_lost(c);
    if (was_up && c->events.session_down != NULL)
        c->events.session_down(c->user);
}

void session_leave(struct cluster *c, const char *why)
{
    struct session *s = &c->session;
    if (s->peer == NULL)
        return;
    rpc_abandon(s->peer);
    s->peer = NULL;
    if (s->up) { /* not the same one again */
        s->failures++;
        const unsigned next = (s->mdc + 1) % c->config.mdc_count;
        ended(c, why);
        s->mdc = next;
        return;
    }
    ended(c, why);
}

static const char *answer_read(const struct rpc_result *result, struct mdc_session_reply *reply, char *buf,
                               size_t size)
{
    char why[WIRE_WHY_BYTES];
    struct mdc_error error;
    if (result->rc == -ETIMEDOUT)
        return "no answer to the request for a session";
    if (result->rc != 0)
        return "the connection was lost before a session began";
    if (result->status != STATUS_OK) {
        if (wire_decode(&mdc_error_type, result->body, result->body_len, &error, NULL) == 0)
            snprintf(buf, size, "session refused: %s: %s", status_text(result->status), error.text);
        else
            snprintf(buf, size, "session refused: %s", status_text(result->status));
        return buf;
    }
    if (wire_decode(&mdc_session_reply_type, result->body, result->body_len, reply, why) != 0) {
        snprintf(buf, size, "the answer is malformed: %s", why);
        return buf;
    }
    return NULL;
}

static void answered(struct rpc_call *call, const struct rpc_result *result)
{
    struct cluster *c = container_of(call, struct cluster, session.call);
    struct session *s = &c->session;
    struct mdc_session_reply reply;
    char buf[400], addr[64];
    const char *why = answer_read(result, &reply, buf, sizeof(buf));
    if (why != NULL) {
        if (result->rc != -ENOTCONN) /* else down follows */
            session_leave(c, why);
        return;
    }
    if (reply.heartbeat_ms == 0 || reply.heartbeat_ms > 60000)
        reply.heartbeat_ms = 1000;
    s->reply = reply;
    s->up = true;
    s->failures = 0;
    c->counters.sessions++;
    log_info(c->env, "session with the metadata controller", "addr=%s term=%lu version=%lu start=%016lx",
             fabric_addr_format(session_addr(c), addr), (unsigned long)reply.term,
             (unsigned long)reply.version, (unsigned long)reply.start);
    replica_session(c);
    if (c->events.session_up != NULL)
        c->events.session_up(c->user, &s->reply);
    calls_flush(c);
}

static void on_up(void *service, struct rpc_peer *peer)
{
    struct cluster *c = of(service);
    struct session *s = &c->session;
    const struct table_header *h = cluster_head(c);
    struct mdc_session_request request = {
        .role = c->config.role, .instance = c->config.instance, .term = h != NULL ? h->term : 0};
    uint8_t body[512];
    size_t len;
    _Static_assert(sizeof(request.host) == sizeof(c->config.host) &&
                       sizeof(request.name) == sizeof(c->config.name),
                   "names");
    memcpy(request.host, c->config.host, sizeof(request.host) - 1);
    memcpy(request.name, c->config.name, sizeof(request.name) - 1);
    MUST(peer == s->peer);
    MUST(wire_encode(&mdc_session_request_type, &request, body, sizeof(body), &len) == 0);
    s->call = (struct rpc_call){.method = MDC_METHOD_SESSION,
                                .body = body,
                                .body_len = (uint32_t)len,
                                .timeout_ns = SESSION_ANSWER_NS,
                                .done = answered};
    const int rc = rpc_call_start(peer, &s->call);
    if (rc != 0 && rc != -ENOTCONN) /* after -ENOTCONN down follows */
        session_leave(c, "out of memory for the request for a session");
}

static void on_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct cluster *c = of(service);
    MUST(peer == c->session.peer);
    c->session.peer = NULL;
    ended(c, fabric_down_text(reason));
}

static void on_notify(void *service, struct rpc_peer *peer, uint16_t method, const void *body,
                      uint32_t body_len)
{
    struct cluster *c = of(service);
    struct mdc_table_hint hint;
    if (method != MDC_NOTIFY_TABLE_HINT || peer != c->session.peer || !c->session.up)
        return;
    if (wire_decode(&mdc_table_hint_type, body, body_len, &hint, NULL) != 0)
        return; /* a hint only saves time: the next period finds out anyway */
    c->counters.hints++;
    replica_hint(c, hint.term, hint.version);
}

static const struct rpc_events events = {.up = on_up, .down = on_down, .notify = on_notify};

static void session_connect(struct cluster *c)
{
    struct session *s = &c->session;
    const struct rpc_service service = {.events = &events, .service = c};
    MUST(s->peer == NULL && !s->up);
    const int rc = rpc_connect(c->env, session_addr(c), FABRIC_DOMAIN_CLUSTER, &service, &s->peer);
    if (rc != 0) {
        s->peer = NULL;
        ended(c, strerror(-rc));
    }
}

static void resolved(struct resolve_request *req, int rc, const struct resolve_addr *addrs, unsigned count)
{
    struct cluster *c = container_of(req, struct cluster, session.lookup);
    struct session *s = &c->session;
    if (rc != 0) {
        ended(c, resolve_error(rc));
        return;
    }
    c->config.mdc[s->mdc] = fabric_target_with(session_addr(c), &addrs[s->lookups++ % count]);
    session_connect(c);
}

static void session_begin(struct loop_timer *timer)
{
    struct cluster *c = container_of(timer, struct cluster, session.timer);
    const char *host = c->config.mdc_host[c->session.mdc];
    if (host[0] == 0) {
        session_connect(c);
        return;
    }
    const int rc = resolve_start(c->env, &c->session.lookup, host);
    if (rc != 0)
        ended(c, resolve_error(rc));
}

void session_init(struct cluster *c)
{
    struct session *s = &c->session;
    loop_timer_init(&s->timer, session_begin);
    s->lookup.done = resolved;
    snprintf(s->why, sizeof(s->why), "no answer so far");
    loop_timer_arm(c->env->loop, &s->timer, 0);
}

void session_destroy(struct cluster *c)
{
    loop_timer_cancel(c->env->loop, &c->session.timer);
    resolve_cancel(c->env, &c->session.lookup);
    if (c->session.peer != NULL)
        rpc_abandon(c->session.peer);
    c->session.peer = NULL;
    c->session.up = false;
}
