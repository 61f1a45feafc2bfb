/*
 * rwm_request.c: the way of a request:
 *   arrived -> checks -> (held until a newer table is in force, once) -> queued -> turn accepted, buffers
 * taken -> payload fetched -> pieces to the store -> reply. The queue is strictly first come, first served: a
 * full pool holds everybody back, it refuses nobody.
 */
#include "services/rwm/rwm_copies.h"

#include <endian.h>
#include <string.h>

static void request_consider(struct rwm *m, struct rwm_request *req);

/* ---- replies ---- */
void rwm_reply_fill(const struct rwm *m, uint32_t partition, struct block_reply *out)
{
    memset(out, 0, sizeof(*out));
    if (!m)
        return;
    if (partition < m->part_count)
        out->epoch = htole64(m->parts[partition].epoch);
    out->incarnation = htole64(m->config.incarnation);
    out->table_term = htole64(m->force_term);
    out->table_version = htole64(m->force_version);
}

static void count_refusal(struct rwm *m, uint32_t status)
{
    m->stats.errors += status != STATUS_CANCELED;
    m->stats.refused[status < RWM_STATUS_MAX ? status : 0]++;
    m->stats.refused_epoch += status == STATUS_STALE_EPOCH;
    m->stats.refused_generation += status == STATUS_STALE_GENERATION;
    m->stats.refused_turn += status == STATUS_STALE_TURN;
    m->stats.refused_range += status == STATUS_RANGE;
    m->stats.refused_crc += status == STATUS_BAD_CRC;
}

static void refuse_partition(struct rwm *m, struct rpc_request *rpc, uint32_t partition, uint32_t status)
{
    struct block_reply reply;
    if (m)
        count_refusal(m, status);
    if (!rpc)
        return;
    rwm_reply_fill(m, partition, &reply);
    rpc_reply(rpc, status, &reply, sizeof(reply));
}

void rwm_refuse(struct rwm *m, struct rpc_request *rpc, uint32_t status)
{
    refuse_partition(m, rpc, UINT32_MAX, status);
}

/* Room for those who wait; a shutdown may have waited for this one. */
static void request_left(struct rwm *m)
{
    loop_defer(m->env->loop, &m->queue_task);
    if (m->state == RWM_STOPPING)
        rwm_shutdown_step(m);
}

void rwm_request_free(struct rwm_request *req)
{
    struct rwm_area *area = req->area;
    struct rwm *m = area->m;
    if (m && req->state == RWM_REQUEST_HELD && m->cluster && !req->wait_over)
        cluster_wait_cancel(m->cluster, &req->wait);
    while (!list_empty(&req->pieces))
        rwm_piece_put(area, list_entry(req->pieces.next, struct rwm_piece, link));
    list_remove(&req->all);
    list_remove(&req->link);
    list_remove(&req->conn_link);
    bool active = req->active;
    pool_put(area->request_pool, req);
    if (!m)
        return;
    if (active)
        m->active--;
    request_left(m);
}

static void request_refuse(struct rwm *m, struct rwm_request *req, uint32_t status)
{
    struct rpc_request *rpc = req->rpc;
    uint32_t partition = req->r.partition;
    rwm_request_free(req);
    refuse_partition(m, rpc, partition, status);
}

void rwm_request_orphaned(struct rwm_request *req)
{
    if (req->state == RWM_REQUEST_FETCH)
        return;
    struct rpc_request *rpc = req->rpc;
    rwm_request_free(req);
    refuse_partition(NULL, rpc, 0, STATUS_NOT_SERVING);
}

static void request_count(struct rwm *m, const struct rwm_request *req)
{
    const uint64_t took_ns = loop_now_ns(m->env->loop) - req->arrived_ns;
    switch (req->method) {
    case BLOCK_METHOD_READ:
        m->stats.reads++;
        m->stats.read_bytes += req->r.length;
        metrics_hist_add(&m->latency.read, took_ns);
        break;
    case BLOCK_METHOD_WRITE:
        m->stats.writes++;
        m->stats.write_bytes += req->r.length;
        metrics_hist_add(&m->latency.write, took_ns);
        break;
    case BLOCK_METHOD_DISCARD:
    case BLOCK_METHOD_ZERO:
        m->stats.discards++;
        m->stats.discard_bytes += req->r.length;
        metrics_hist_add(&m->latency.clear, took_ns);
        break;
    case BLOCK_METHOD_EXTENTS:
        m->stats.extents++;
        break;
    default:
        break;
    }
}

/* All pieces have ended. */
static void request_finish(struct rwm_request *req)
{
    struct rwm *m = req->area->m;
    if (req->from_module != 0) {
        rwm_serve_finished(req);
        return;
    }
    struct block_reply reply;
    bool newer;
    bool writes = rwm_method_writes(req->method);
    /* Data that was read under an epoch or generation that has ended meanwhile is not handed out. */
    if (req->status == STATUS_OK && !writes)
        req->status =
            m->broken || m->state == RWM_FAILED ? STATUS_NOT_SERVING : rwm_check(m, &req->r, false, &newer);
    if (req->status != STATUS_OK) {
        request_refuse(m, req, req->status);
        return;
    }
    struct rwm_copies *c = rwm_copies_of(m, req->r.partition);
    if (c && !writes && c->state == COPIES_MEMBER) {
        request_refuse(m, req, STATUS_NOT_SERVING); /* given up by a shutdown: no promise comes any more */
        return;
    }
    if (c && !writes && !rwm_copies_may_answer(c)) {
        req->state = RWM_REQUEST_FETCHED;
        m->stats.reads_unpromised++;
        list_push_back(&c->waiting, &req->link);
        rwm_copies_due(c);
        rwm_tick_soon(m);
        return;
    }
    request_count(m, req);
    if (req->method == BLOCK_METHOD_READ) {
        rwm_read_reply(req);
        return;
    }
    if (req->method == BLOCK_METHOD_EXTENTS) {
        rwm_extents_reply(req);
        return;
    }
    struct rpc_request *rpc = req->rpc;
    rwm_reply_fill(m, req->r.partition, &reply);
    reply.length = htole32(req->r.length);
    rwm_request_free(req);
    if (rpc)
        rpc_reply(rpc, STATUS_OK, &reply, sizeof(reply));
}

void rwm_request_piece_done(struct rwm_request *req, uint32_t status)
{
    MUST(req->pending > 0);
    if (status != STATUS_OK && req->status == STATUS_OK)
        req->status = status;
    if (--req->pending == 0)
        request_finish(req);
}

void rwm_requests_again(struct rwm *m, struct list *waiting)
{
    struct list again;
    list_init(&again);
    list_splice(&again, waiting);
    for (struct list *n = list_pop_front(&again); n != NULL; n = list_pop_front(&again)) {
        struct rwm_request *req = list_entry(n, struct rwm_request, link);
        if (req->state == RWM_REQUEST_FETCHED) {
            req->state = RWM_REQUEST_RUNNING;
            request_finish(req);
        } else {
            req->state = RWM_REQUEST_QUEUED;
            list_push_back(&m->queued, &req->link);
            loop_defer(m->env->loop, &m->queue_task);
        }
    }
}

/* ---- running ---- */
static void request_run(struct rwm *m, struct rwm_request *req)
{
    req->state = RWM_REQUEST_RUNNING;
    req->pending = 1; /* until all are started */
    list_for_each(n, &req->pieces) req->pending++;
    list_for_each(n, &req->pieces)
    {
        struct rwm_piece *p = list_entry(n, struct rwm_piece, link);
        if (p->kind == RWM_PIECE_READ || p->kind == RWM_PIECE_STAT)
            rwm_read_start(m, p);
        else
            rwm_block_add(m, p);
    }
    rwm_request_piece_done(req, STATUS_OK);
}

static void request_fetched(void *arg, int rc)
{
    struct rwm_request *req = arg;
    struct rwm_area *area = req->area;
    struct rwm *m = area->m;
    req->state = RWM_REQUEST_RUNNING;
    if (!m) {
        rwm_request_orphaned(req);
        rwm_area_release(area);
        return;
    }
    if (rc == 0 && (rwm_accepts(m) || m->state == RWM_STOPPING))
        request_run(m, req);
    else if (rc == 0)
        request_refuse(m, req, STATUS_NOT_SERVING);
    else
        request_refuse(m, req,
                       rc == -EBADMSG    ? STATUS_BAD_CRC
                       : rc == -ENOTCONN ? STATUS_CANCELED
                                         : STATUS_IO);
}

static void request_fetch(struct rwm *m, struct rwm_request *req)
{
    struct fabric_sge sge[RWM_REQUEST_BLOCKS_MAX];
    unsigned count = 0;
    list_for_each(n, &req->pieces)
    {
        struct rwm_piece *p = list_entry(n, struct rwm_piece, link);
        sge[count++] = (struct fabric_sge){
            .base = p->chunk + p->start % UNIT_BYTES, .len = p->bytes, .mem = rwm_piece_mem(req->area, p)};
    }
    req->state = RWM_REQUEST_FETCH;
    int rc = rpc_request_fetch(req->rpc, sge, count, request_fetched, req);
    if (rc == 0)
        return;
    req->state = RWM_REQUEST_RUNNING;
    request_refuse(m, req, rc == -ENOTCONN ? STATUS_CANCELED : STATUS_INVALID);
}

/* ---- admission ---- */
static int request_pieces(struct rwm *m, struct rwm_request *req)
{
    const struct rwm_volume *v = rwm_volume_find(m, &req->r.volume);
    uint64_t hash = placement_hash(v->family, req->r.offset / m->stripe_bytes);
    uint64_t pos = req->r.offset, end = pos + req->r.length;
    struct rwm_spec spec;
    size_t count = 0;
    while (rwm_plan_next(req->method, &pos, end, &spec)) {
        unsigned units = rwm_range_units(spec.start, spec.bytes);
        if (spec.kind == RWM_PIECE_STAT || spec.kind == RWM_PIECE_CLEAR)
            units = 0;
        else if (spec.kind != RWM_PIECE_READ && rwm_range_ragged(spec.start, spec.bytes))
            units++;
        struct rwm_piece *p = ++count > pool_total(req->area->piece_pool) ? NULL : rwm_piece_get(m, units);
        if (!p) {
            while (!list_empty(&req->pieces))
                rwm_piece_put(req->area, list_entry(req->pieces.next, struct rwm_piece, link));
            return count > pool_total(req->area->piece_pool) ? -E2BIG : -EAGAIN;
        }
        p->req = req;
        p->kind = spec.kind;
        p->start = spec.start;
        p->bytes = spec.bytes;
        p->partition = req->r.partition;
        p->op.key = (struct store_key){.layer = v->layer, .block = spec.block, .hash = hash};
        list_push_back(&req->pieces, &p->link);
    }
    return 0;
}

/* False: the queue stands still until something is given back. */
static bool queue_first(struct rwm *m, struct rwm_request *req)
{
    bool newer;
    if (req->dropped || !req->rpc || !rpc_request_alive(req->rpc)) {
        request_refuse(m, req, STATUS_CANCELED);
        return true;
    }
    uint32_t status = rwm_check(m, &req->r, rwm_method_writes(req->method), &newer);
    if (status != STATUS_OK) {
        list_remove(&req->link);
        request_consider(m, req);
        return true;
    }
    struct rwm_copies *c = rwm_copies_of(m, req->r.partition);
    status = c ? rwm_copies_gate(c, rwm_method_writes(req->method)) : STATUS_OK;
    if (status == STATUS_AGAIN) {
        list_remove(&req->link);
        req->state = RWM_REQUEST_APART;
        list_push_back(&c->waiting, &req->link);
        rwm_copies_due(c);
        return true;
    }
    if (m->active >= m->config.requests_max)
        return false;
    int rc =
        rwm_method_writes(req->method) ? rwm_turn_accept(m, &req->r.volume, req->r.host, req->r.turn) : 0;
    if (rc == -EAGAIN) {
        rwm_stall(m, NULL);
        return false;
    }
    if (rc) {
        request_refuse(m, req, rwm_status_of_store(m, rc, "record a write turn"));
        return true;
    }
    rc = request_pieces(m, req);
    if (rc == -EAGAIN)
        return false;
    if (rc) {
        request_refuse(m, req, STATUS_TOO_LARGE);
        return true;
    }
    list_remove(&req->link);
    req->active = true;
    m->active++;
    if (req->method == BLOCK_METHOD_WRITE)
        request_fetch(m, req);
    else
        request_run(m, req);
    return true;
}

void rwm_queue_pump(struct rwm *m)
{
    if (!rwm_accepts(m))
        return;
    while (!list_empty(&m->queued)) {
        if (!queue_first(m, list_entry(m->queued.next, struct rwm_request, link)))
            return;
    }
}

/* ---- held for a newer table ---- */
static bool held_ready(const struct rwm *m, const struct rwm_request *req)
{
    if (req->timed_out)
        return true;
    if (!req->wait_over)
        return false;
    return m->force_term > req->need_term ||
           (m->force_term == req->need_term && m->force_version >= req->need_version);
}

static void held_wait_over(struct cluster_wait *w)
{
    struct rwm_request *req = container_of(w, struct rwm_request, wait);
    struct rwm *m = req->area->m;
    const struct table *t = cluster_table(m->cluster);
    req->wait_over = true;
    /* The wait ends after a time even when nobody answered: then nothing newer was learnt. */
    if (!cluster_session_is_up(m->cluster) || loop_now_ns(m->env->loop) >= w->deadline_ns)
        req->timed_out = true;
    if (t) {
        req->need_term = table_head(t)->term;
        req->need_version = table_head(t)->version;
    }
    rwm_apply_kick(m);
    loop_defer(m->env->loop, &m->held_task);
}

static void request_hold(struct rwm *m, struct rwm_request *req)
{
    uint64_t now = loop_now_ns(m->env->loop);
    req->state = RWM_REQUEST_HELD;
    req->wait_over = false;
    req->deadline_ns = now + RWM_HOLD_NS;
    list_push_back(&m->held, &req->link);
    memset(&req->wait, 0, sizeof(req->wait));
    list_init(&req->wait.link);
    req->wait.fn = held_wait_over;
    cluster_wait_table(m->cluster, &req->wait);
    cluster_refresh(m->cluster);
    if (!loop_timer_armed(&m->held_timer))
        loop_timer_arm(m->env->loop, &m->held_timer, RWM_HOLD_NS);
}

void rwm_held_recheck(struct rwm *m)
{
    struct list again;
    uint64_t now = loop_now_ns(m->env->loop), next = UINT64_MAX;
    bool newer;
    list_init(&again);
    list_splice(&again, &m->held);
    for (struct list *n = list_pop_front(&again); n != NULL; n = list_pop_front(&again)) {
        struct rwm_request *req = list_entry(n, struct rwm_request, link);
        req->timed_out |= req->deadline_ns <= now;
        bool gone = req->dropped || !req->rpc || !rpc_request_alive(req->rpc);
        uint32_t status = rwm_check(m, &req->r, rwm_method_writes(req->method), &newer);
        if (!gone && status != STATUS_OK && newer && !held_ready(m, req)) {
            list_push_back(&m->held, &req->link);
            next = min_u64(next, req->deadline_ns - now);
            continue;
        }
        if (!req->wait_over)
            cluster_wait_cancel(m->cluster, &req->wait);
        req->wait_over = true;
        req->refreshed = true;
        if (gone)
            request_refuse(m, req, STATUS_CANCELED);
        else
            request_consider(m, req);
    }
    if (next != UINT64_MAX)
        loop_timer_arm(m->env->loop, &m->held_timer, next);
}

/* ---- arrival ---- */
static void request_consider(struct rwm *m, struct rwm_request *req)
{
    bool newer;
    uint32_t status = rwm_check(m, &req->r, rwm_method_writes(req->method), &newer);
    if (status == STATUS_OK) {
        req->state = RWM_REQUEST_QUEUED;
        list_push_back(&m->queued, &req->link);
        return;
    }
    if (newer && !req->refreshed && m->cluster) {
        request_hold(m, req);
        return;
    }
    /* No table came: what looks unknown may be just new. */
    if (newer && req->timed_out)
        status = STATUS_NOT_SERVING;
    request_refuse(m, req, status);
}

void rwm_request_arrived(struct rwm_conn *conn, struct rpc_request *rpc, uint16_t method, const void *body)
{
    struct rwm *m = conn->m;
    struct block_request r;
    if (m && conn->from_module != 0) {
        rwm_refuse(m, rpc, STATUS_PROTOCOL);
        return;
    }
    if (!m || !rwm_accepts(m)) {
        rwm_refuse(m, rpc, m || conn->lost ? STATUS_NOT_SERVING : STATUS_PROTOCOL);
        return;
    }
    uint32_t status = rwm_decode(body, method, rpc, &r);
    struct rwm_request *req = status == STATUS_OK ? pool_get(m->area->request_pool) : NULL;
    if (!req) {
        rwm_refuse(m, rpc, status != STATUS_OK ? status : STATUS_NOT_SERVING);
        return;
    }
    *req = (struct rwm_request){.area = m->area, .conn = conn, .rpc = rpc, .r = r, .method = method};
    req->arrived_ns = loop_now_ns(m->env->loop);
    list_init(&req->link);
    list_init(&req->pieces);
    list_push_back(&m->area->requests, &req->all);
    list_push_back(&conn->requests, &req->conn_link);
    request_consider(m, req);
    rwm_queue_pump(m);
}

void rwm_requests_refuse(struct rwm *m, uint32_t status)
{
    struct list *lists[] = {&m->held, &m->queued};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        while (!list_empty(lists[i]))
            request_refuse(m, list_entry(lists[i]->next, struct rwm_request, link), status);
    }
    list_for_each(n, &m->copies)
    {
        struct list *waiting = &list_entry(n, struct rwm_copies, link)->waiting;
        while (!list_empty(waiting))
            request_refuse(m, list_entry(waiting->next, struct rwm_request, link), status);
    }
}
