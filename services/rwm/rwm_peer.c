/*
 * rwm_peer.c: this module's own connections to the modules that hold copies with it: one each, for its calls;
 * theirs come in through rwm_host.c. And the tick that keeps promises fresh and tells the controller what it
 * sees.
 */
#include "services/rwm/rwm_copies.h"

#include <stdlib.h>
#include <string.h>

#define BACKOFF_MIN_NS   (5u * NS_PER_MS)
#define BACKOFF_MAX_NS   (200u * NS_PER_MS)
#define HELLO_TIMEOUT_NS (1u * NS_PER_S)
#define SHUTDOWN_WAIT_NS (2u * NS_PER_S) /* for the other members, by a primary that ends */

static uint64_t now_of(const struct rwm *m)
{
    return loop_now_ns(m->env->loop);
}

void rwm_tick_soon(struct rwm *m)
{
    if (m->state == RWM_RUNNING || m->state == RWM_STOPPING)
        loop_timer_arm(m->env->loop, &m->copies_timer, 0);
}

void rwm_tick_within(struct rwm *m, uint64_t ns)
{
    const struct loop_timer *t = &m->copies_timer;
    if ((m->state == RWM_RUNNING || m->state == RWM_STOPPING) &&
        (!loop_timer_armed(t) || t->deadline_ns > now_of(m) + ns))
        loop_timer_arm(m->env->loop, &m->copies_timer, ns);
}

/* ---- connections ---- */
static void peer_rest(struct rwm_peer *peer)
{
    peer->state = PEER_IDLE;
    peer->retry_ns = now_of(peer->m) + peer->backoff_ns;
    peer->backoff_ns = min_u64(peer->backoff_ns * 2, BACKOFF_MAX_NS);
}

static void peer_lost(struct rwm_peer *peer)
{
    bool was_up = peer->state == PEER_UP;
    peer->old_rpc = peer->calls > 0 ? peer->rpc : NULL;
    peer->rpc = NULL;
    peer->promise_until_ns = 0;
    if (was_up)
        peer->away_since_ns = now_of(peer->m);
    peer_rest(peer);
    rwm_epoch_peer_down(peer);
    rwm_tick_soon(peer->m);
}

static void peer_close(struct rwm_peer *peer)
{
    if (!peer->rpc)
        return;
    rpc_close(peer->rpc);
    peer_lost(peer);
}

void rwm_peer_call_ended(struct rwm_peer *peer)
{
    MUST(peer->calls > 0);
    if (--peer->calls == 0)
        peer->old_rpc = NULL;
}

int rwm_peer_call(struct rwm_peer *peer, struct rpc_call *call)
{
    if (!peer->rpc || peer->state < PEER_GREETING)
        return -ENOTCONN;
    int rc = rpc_call_start(peer->rpc, call);
    if (rc == 0)
        peer->calls++;
    return rc;
}

static void hello_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct rwm_peer *peer = container_of(call, struct rwm_peer, hello_call);
    struct rwm *m = peer->m;
    rwm_peer_call_ended(peer);
    if (peer->state != PEER_GREETING)
        return;
    if (result->rc == 0 && result->status == STATUS_OK) {
        peer->state = PEER_UP;
        peer->backoff_ns = BACKOFF_MIN_NS;
        peer->away_since_ns = 0;
        rwm_grant_vacant(peer, true);
        rwm_epoch_peer_up(peer);
        rwm_tick_soon(m);
        return;
    }
    if (result->rc == 0 && log_allow(m->env, &peer->log))
        log_info(m->env, "another module refused the connection", "module=%u peer=%u status=%s", m->id,
                 peer->module, status_name(result->status));
    if (m->cluster)
        cluster_refresh(m->cluster);
    peer_close(peer);
}

static void peer_up(void *service, struct rpc_peer *rpc)
{
    struct rwm_peer *peer = service;
    struct rwm *m = peer->m;
    if (rpc != peer->rpc)
        return;
    peer->hello = (struct copy_peer_hello){.to_module = peer->module,
                                           .from_module = m->id,
                                           .to_incarnation = peer->incarnation,
                                           .from_incarnation = m->config.incarnation,
                                           .sequence = ++m->peer_sequence};
    peer->hello_call = (struct rpc_call){.method = COPY_METHOD_PEER_HELLO,
                                         .body = &peer->hello,
                                         .body_len = sizeof(peer->hello),
                                         .timeout_ns = HELLO_TIMEOUT_NS,
                                         .done = hello_done};
    peer->state = PEER_GREETING;
    if (rwm_peer_call(peer, &peer->hello_call) != 0)
        peer_close(peer);
}

static void peer_down(void *service, struct rpc_peer *rpc, enum fabric_down reason)
{
    struct rwm_peer *peer = service;
    if (rpc != peer->rpc)
        return;
    if (peer->state == PEER_UP && log_allow(peer->m->env, &peer->log))
        log_info(peer->m->env, "connection to another module ended", "module=%u peer=%u reason=\"%s\"",
                 peer->m->id, peer->module, fabric_down_text(reason));
    bool nobody = peer->state == PEER_CONNECTING && rpc_peer_nobody(rpc);
    peer_lost(peer);
    if (nobody)
        rwm_grant_vacant(peer, false);
}

static const struct rpc_events peer_events = {.up = peer_up, .down = peer_down};

static void peer_connect(struct rwm_peer *peer)
{
    struct rwm *m = peer->m;
    const struct table *t = m->cluster ? cluster_table(m->cluster) : NULL;
    const struct table_module *r = t ? table_module_by_id(t, peer->module) : NULL;
    /* The calls of the connection before it must have ended: they may hold what is sent again. */
    if (!r || r->incarnation == 0 || peer->calls > 0) {
        peer->retry_ns = now_of(m) + BACKOFF_MIN_NS;
        return;
    }
    memcpy(&peer->addr, r->addr, sizeof(peer->addr));
    peer->incarnation = r->incarnation;
    if (rpc_connect(m->env, &peer->addr, FABRIC_DOMAIN_CLUSTER, &peer->service, &peer->rpc) == 0) {
        peer->state = PEER_CONNECTING;
        return;
    }
    peer->rpc = NULL;
    peer_rest(peer);
}

struct rwm_peer *rwm_peer_get(struct rwm *m, uint32_t module)
{
    list_for_each(n, &m->peers)
    {
        struct rwm_peer *peer = list_entry(n, struct rwm_peer, link);
        if (peer->module == module)
            return peer;
    }
    struct rwm_peer *peer = calloc(1, sizeof(*peer));
    if (!peer)
        return NULL;
    peer->m = m;
    peer->module = module;
    peer->backoff_ns = BACKOFF_MIN_NS;
    peer->away_since_ns = now_of(m);
    peer->log.interval_ns = NS_PER_S;
    peer->service = (struct rpc_service){.events = &peer_events, .service = peer};
    list_push_back(&m->peers, &peer->link);
    rwm_tick_soon(m);
    return peer;
}

void rwm_peers_table(struct rwm *m)
{
    rwm_grants_check(m);
    const struct table *t = m->cluster ? cluster_table(m->cluster) : NULL;
    list_for_each(n, &m->peers)
    {
        struct rwm_peer *peer = list_entry(n, struct rwm_peer, link);
        const struct table_module *r = t ? table_module_by_id(t, peer->module) : NULL;
        if (!r || peer->incarnation == 0 ||
            (r->incarnation == peer->incarnation && memcmp(r->addr, &peer->addr, sizeof(peer->addr)) == 0))
            continue;
        peer->backoff_ns = BACKOFF_MIN_NS;
        if (peer->rpc)
            peer_close(peer);
        peer->retry_ns = 0;
        rwm_tick_soon(m);
    }
}

/* ---- promises held ---- */
bool rwm_peer_promised(const struct rwm_peer *peer, uint64_t clock_ns)
{
    return peer->state == PEER_UP && clock_ns < peer->promise_until_ns;
}

/* A granter has gone on to another epoch: what was joined there is joined anew. */
static void promise_void(struct rwm_peer *peer)
{
    peer->promise_until_ns = 0;
    list_for_each(n, &peer->m->copies)
    {
        struct rwm_copies *c = list_entry(n, struct rwm_copies, link);
        rwm_each_copy(k, c)
        {
            if (k->peer == peer && k->joined)
                rwm_epoch_unjoin(k);
        }
    }
    if (peer->m->cluster)
        cluster_refresh(peer->m->cluster);
}

static void promise_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct rwm_peer *peer = container_of(call, struct rwm_peer, promise_call);
    struct rwm *m = peer->m;
    peer->promise_busy = false;
    rwm_peer_call_ended(peer);
    if (peer->state != PEER_UP)
        return;
    /* An answer that came too late may have said so: the granter says it once. */
    if (result->rc != 0 || result->status == STATUS_STALE_EPOCH) {
        promise_void(peer);
        rwm_tick_soon(m);
        return;
    }
    if (result->status != STATUS_OK || result->body_len < sizeof(struct copy_promise_reply)) {
        rwm_tick_within(m, RWM_TICK_NS);
        return;
    }
    struct copy_promise_reply reply;
    memcpy(&reply, result->body, sizeof(reply));
    peer->free_blocks = reply.free_blocks;
    peer->spent_blocks = peer->filling;
    peer->room_wanted = false;
    peer->promise_until_ns = peer->promise_sent_ns + peer->promise.duration_ns;
    list_for_each(n, &m->copies_due) rwm_copies_wake(list_entry(n, struct rwm_copies, due_link));
}

/* How long the promise needs no renewal. */
static uint64_t promise_rests_ns(const struct rwm_peer *peer, uint64_t clock)
{
    uint64_t due = peer->promise_sent_ns + RWM_RENEW_NS;
    return peer->promise_until_ns == 0 || peer->room_wanted || clock >= due ? 0 : due - clock;
}

/* What is due within that time is renewed. */
static void promise_renew(struct rwm_peer *peer, uint64_t within_ns)
{
    uint64_t clock = loop_clock_ns(peer->m->env->loop);
    if (peer->state != PEER_UP || peer->promise_busy || peer->joined == 0 ||
        promise_rests_ns(peer, clock) > within_ns)
        return;
    peer->promise.duration_ns = RWM_PROMISE_NS;
    peer->promise_sent_ns = clock;
    peer->promise_call = (struct rpc_call){.method = COPY_METHOD_PROMISE,
                                           .body = &peer->promise,
                                           .body_len = sizeof(peer->promise),
                                           .timeout_ns = RWM_PROMISE_NS,
                                           .done = promise_done};
    peer->promise_busy = rwm_peer_call(peer, &peer->promise_call) == 0;
}

/* ---- reports ---- */
static void report_done(struct cluster_call *call, int rc)
{
    struct rwm *m = container_of(call, struct rwm, report_call);
    m->report_busy = false;
    if (rc == 0 && m->cluster)
        cluster_refresh(m->cluster);
}

static void report_add(struct rwm *m, const struct rwm_copies *c, struct rwm_copy *k, uint8_t what)
{
    struct mdc_module_report_request *r = &m->report_request;
    k->reported_ns = now_of(m);
    k->claimed |= what == MDC_REPORT_IN_SYNC;
    r->items[r->count++] = (struct mdc_module_report_item){.pool = m->pool_id,
                                                           .partition = c->partition,
                                                           .epoch = m->parts[c->partition].epoch,
                                                           .member = k->module,
                                                           .member_incarnation = k->peer->incarnation,
                                                           .what = what};
}

static uint8_t report_what(const struct rwm_copies *c, const struct rwm_copy *k, uint64_t now)
{
    const struct rwm_peer *peer = k->peer;
    if (!peer || c->state == COPIES_MEMBER)
        return 0;
    if (k->in_sync && k->unfit)
        return MDC_REPORT_UNFIT;
    if (k->in_sync && peer->state != PEER_UP && peer->away_since_ns != 0 &&
        now - peer->away_since_ns >= RWM_UNREACHABLE_NS)
        return MDC_REPORT_UNREACHABLE;
    if (k->claimed && !k->in_sync && !(k->lockstep && k->joined))
        return MDC_REPORT_LOST;
    if (!k->in_sync && k->lockstep && k->joined && k->loose == 0 && k->copying == 0)
        return MDC_REPORT_IN_SYNC;
    return 0;
}

/* Of the primary itself. */
static void report_self(struct rwm *m, struct rwm_copies *c, uint64_t now)
{
    struct mdc_module_report_request *r = &m->report_request;
    if (!c->unfit || c->state == COPIES_MEMBER || r->count == MDC_REPORT_ITEMS ||
        (c->unfit_reported_ns != 0 && now - c->unfit_reported_ns < RWM_REPORT_NS))
        return;
    c->unfit_reported_ns = now;
    if (log_allow(m->env, &m->log_limit))
        log_warn(m->env, "no room for what another copy in sync has: that one is to be the primary",
                 "module=%u partition=%u", m->id, c->partition);
    r->items[r->count++] = (struct mdc_module_report_item){.pool = m->pool_id,
                                                           .partition = c->partition,
                                                           .epoch = m->parts[c->partition].epoch,
                                                           .member = m->id,
                                                           .member_incarnation = m->config.incarnation,
                                                           .what = MDC_REPORT_UNFIT};
}

static void report(struct rwm *m)
{
    uint64_t now = now_of(m);
    if (m->report_busy || !m->cluster || !cluster_session_is_up(m->cluster))
        return;
    memset(&m->report_request, 0, sizeof(m->report_request));
    list_for_each(n, &m->copies_due)
    {
        struct rwm_copies *c = list_entry(n, struct rwm_copies, due_link);
        report_self(m, c, now);
        rwm_each_copy(k, c)
        {
            uint8_t what = report_what(c, k, now);
            if (m->report_request.count < MDC_REPORT_ITEMS && what != 0 &&
                (k->reported_ns == 0 || now - k->reported_ns >= RWM_REPORT_NS))
                report_add(m, c, k, what);
        }
    }
    if (m->report_request.count == 0)
        return;
    m->report_request.module = m->id;
    m->report_request.incarnation = m->config.incarnation;
    m->report_call = (struct cluster_call){.method = MDC_METHOD_MODULE_REPORT,
                                           .request_type = &mdc_module_report_request_type,
                                           .reply_type = &mdc_module_report_reply_type,
                                           .request = &m->report_request,
                                           .reply = &m->report_reply,
                                           .timeout_ns = NS_PER_S,
                                           .done = report_done};
    m->report_busy = cluster_call_start(m->cluster, &m->report_call) == 0;
}

static void shutdown_give_up(struct rwm *m);

/* ---- the tick ---- */
/* Partitions with nothing to do cost nothing; all of them are looked at only now and then. */
static void steps(struct rwm *m)
{
    if (now_of(m) >= m->look_all_ns) {
        m->look_all_ns = now_of(m) + RWM_LOOK_ALL_NS;
        list_for_each(n, &m->copies)
        {
            struct rwm_copies *c = list_entry(n, struct rwm_copies, link);
            if (list_unlinked(&c->due_link))
                list_push_back(&m->copies_due, &c->due_link);
        }
    }
    list_for_each_safe(n, &m->copies_due)
    {
        struct rwm_copies *c = list_entry(n, struct rwm_copies, due_link);
        rwm_epoch_step(c);
    }
}

/* After the reports, which are about those that are due. */
static void steps_end(struct rwm *m)
{
    list_for_each_safe(n, &m->copies_due)
    {
        if (rwm_epoch_quiet(list_entry(n, struct rwm_copies, due_link)))
            list_remove(n);
    }
}

/* Until when nothing is to be done that nobody calls for: the next renewal of a promise, or connection. */
static uint64_t tick_rests_ns(const struct rwm *m)
{
    uint64_t clock = loop_clock_ns(m->env->loop), now = now_of(m);
    uint64_t rests = m->look_all_ns > now ? m->look_all_ns - now : 0;
    if (m->state == RWM_STOPPING || !list_empty(&m->copies_due) || !list_empty(&m->joins) ||
        !list_empty(&m->repairs))
        return RWM_TICK_NS;
    list_for_each(n, &m->peers)
    {
        const struct rwm_peer *peer = list_entry(n, struct rwm_peer, link);
        if (peer->state == PEER_IDLE)
            rests = min_u64(rests, peer->retry_ns > now ? peer->retry_ns - now : 0);
        else if (peer->state == PEER_UP && peer->joined > 0)
            rests = min_u64(rests, promise_rests_ns(peer, clock));
    }
    return max_u64(rests, RWM_TICK_NS);
}

void rwm_peer_renew(struct rwm *m, uint32_t module)
{
    struct loop_timer *t = &m->copies_timer;
    list_for_each(n, &m->peers)
    {
        struct rwm_peer *peer = list_entry(n, struct rwm_peer, link);
        if (peer->module == module)
            promise_renew(peer, RWM_RENEW_NS / 2);
    }
    if (loop_timer_armed(t) && t->deadline_ns > now_of(m) + RWM_TICK_NS)
        loop_timer_arm(m->env->loop, t, tick_rests_ns(m));
}

static void copies_tick(struct loop_timer *timer)
{
    struct rwm *m = container_of(timer, struct rwm, copies_timer);
    uint64_t now = now_of(m);
    if (list_empty(&m->peers) && list_empty(&m->copies))
        return;
    if (m->state != RWM_RUNNING && m->state != RWM_STOPPING)
        return;
    if (m->state == RWM_STOPPING && now >= m->give_up_ns)
        shutdown_give_up(m);
    list_for_each(n, &m->peers)
    {
        struct rwm_peer *peer = list_entry(n, struct rwm_peer, link);
        if (peer->state == PEER_IDLE && now >= peer->retry_ns)
            peer_connect(peer);
    }
    rwm_serve_joins(m);
    rwm_rot_step(m);
    steps(m);
    /* Those due soon go with those due now. */
    list_for_each(n, &m->peers) promise_renew(list_entry(n, struct rwm_peer, link), RWM_TICK_NS);
    report(m);
    steps_end(m);
    rwm_tick_within(m, tick_rests_ns(m));
}

/* ---- life ---- */
void rwm_copies_init(struct rwm *m)
{
    struct list *lists[] = {&m->copies_due, &m->peers, &m->grants, &m->copies, &m->lookups,
                            &m->senders,    &m->walks, &m->joins,  &m->serves, &m->repairs};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    loop_timer_init(&m->copies_timer, copies_tick);
    m->promise_grace_ns = loop_clock_ns(m->env->loop) + rwm_grant_margin(COPY_PROMISE_MAX_NS);
}

void rwm_copies_stop(struct rwm *m)
{
    loop_timer_cancel(m->env->loop, &m->copies_timer);
    if (m->report_busy)
        cluster_call_cancel(&m->report_call);
    m->report_busy = false;
    rwm_serve_refuse(m, STATUS_NOT_SERVING);
}

void rwm_copies_shutdown(struct rwm *m)
{
    if (m->report_busy)
        cluster_call_cancel(&m->report_call);
    m->report_busy = false;
    rwm_serve_refuse(m, STATUS_NOT_SERVING);
    m->give_up_ns = now_of(m) + SHUTDOWN_WAIT_NS;
}

/* Nobody gets to know the outcome here: the next primary will. */
static void shutdown_give_up(struct rwm *m)
{
    list_for_each(n, &m->copies)
    {
        struct rwm_copies *c = list_entry(n, struct rwm_copies, link);
        if (c->state != COPIES_MEMBER)
            rwm_epoch_resign(c);
    }
}

void rwm_copies_destroy(struct rwm *m)
{
    loop_timer_cancel(m->env->loop, &m->copies_timer);
    list_for_each(n, &m->peers)
    {
        struct rwm_peer *peer = list_entry(n, struct rwm_peer, link);
        if (peer->rpc)
            rpc_abandon(peer->rpc);
        if (peer->old_rpc)
            rpc_abandon(peer->old_rpc);
    }
    rwm_rot_destroy(m);
    while (!list_empty(&m->copies))
        rwm_epoch_free(list_entry(m->copies.next, struct rwm_copies, link));
    while (!list_empty(&m->lookups)) {
        struct rwm_lookup *l = list_entry(m->lookups.next, struct rwm_lookup, link);
        rwm_lookup_free(l);
    }
    while (!list_empty(&m->walks))
        rwm_walk_free(list_entry(m->walks.next, struct rwm_walk, link));
    while (!list_empty(&m->senders))
        pool_put(m->send_pool, list_entry(list_pop_front(&m->senders), struct rwm_send, link));
    while (!list_empty(&m->peers)) {
        struct rwm_peer *peer = list_entry(list_pop_front(&m->peers), struct rwm_peer, link);
        free(peer->turns);
        free(peer);
    }
    while (!list_empty(&m->grants))
        free(list_entry(list_pop_front(&m->grants), struct rwm_grant, link));
    while (list_pop_front(&m->joins) != NULL) {
    }
    while (list_pop_front(&m->serves) != NULL) {
    }
    rwm_changed_destroy(m);
    struct pool *pools[] = {m->forward_pool, m->recent_pool, m->send_pool,  m->lookup_pool,
                            m->fix_pool,     m->todo_pool,   m->repair_pool};
    for (size_t i = 0; i < ARRAY_LEN(pools); i++)
        if (pools[i])
            pool_destroy(pools[i], true);
}
