/*
 * rwm_serve.c: what another module, the primary of a partition, asks of this one: promises, joins, forwards,
 * whole blocks, versions. None of it waits for a third one.
 */
#include "services/rwm/rwm_copies.h"

#include <stdlib.h>
#include <string.h>

#define JOIN_WAIT_NS (2u * NS_PER_S)

static struct rwm_request *request_make(struct rwm_conn *conn, struct rpc_request *rpc, uint16_t method,
                                        const struct copy_head *head)
{
    struct rwm *m = conn->m;
    struct rwm_request *req = pool_get(m->area->request_pool);
    if (!req)
        return NULL;
    *req = (struct rwm_request){.area = m->area, .conn = conn, .rpc = rpc, .method = method};
    req->r.pool = head->pool;
    req->r.partition = head->partition;
    req->r.epoch = head->epoch;
    req->from_module = conn->from_module;
    req->from_incarnation = conn->from_incarnation;
    list_init(&req->link);
    list_init(&req->pieces);
    list_push_back(&m->area->requests, &req->all);
    list_push_back(&conn->requests, &req->conn_link);
    return req;
}

/* ---- promises ---- */
static void promise_answer(struct rwm_conn *conn, struct rpc_request *rpc, const struct copy_promise *rq)
{
    struct store_stats stats;
    uint32_t status = rwm_grant_promise(conn, rq);
    store_stats_get(conn->m->store, &stats);
    /* What is free is shared out among those who may fill it, this module among them. */
    uint64_t parts = 1, used = stats.used_bytes + stats.reserved_bytes;
    list_for_each(n, &conn->m->grants) parts++;
    uint64_t room = stats.capacity_bytes > used ? (stats.capacity_bytes - used) / BLOCK_BYTES : 0;
    struct copy_promise_reply reply = {.free_blocks = room / parts};
    rpc_reply(rpc, status, &reply, sizeof(reply));
    rwm_peer_renew(conn->m, conn->from_module);
}

static void promise_proved(struct store_op *op, int rc)
{
    struct rwm_request *req = container_of(op, struct rwm_request, copy.promise.proof);
    struct rwm *m = req->area->m;
    struct rwm_conn *conn = req->conn;
    struct rpc_request *rpc = req->rpc;
    const struct copy_promise rq = req->copy.promise.rq;
    req->rpc = NULL;
    if (rc)
        rwm_store_error(m, rc, "promise");
    if (rpc && rc == 0 && conn && rwm_accepts(m))
        promise_answer(conn, rpc, &rq);
    else if (rpc)
        rpc_reply(rpc, STATUS_NOT_SERVING, NULL, 0);
    rwm_request_free(req);
}

/*
 * Who has taken a LUN over waits, before it joins anything, as long as a promise may last that was given
 * before: the one before it, which may have stood still, gives no more. The holder counts from sending, which
 * was before the read.
 */
static void serve_promise(struct rwm_conn *conn, struct rpc_request *rpc, const void *body)
{
    static const struct copy_head none;
    struct copy_promise rq;
    memcpy(&rq, body, sizeof(rq));
    uint32_t status = rwm_grant_ask(conn, &rq);
    if (status != STATUS_OK) {
        rpc_reply(rpc, status, NULL, 0);
        return;
    }
    if (!store_may_be_taken(conn->m->store)) {
        promise_answer(conn, rpc, &rq);
        return;
    }
    struct rwm_request *req = request_make(conn, rpc, COPY_METHOD_PROMISE, &none);
    if (req) {
        req->state = RWM_REQUEST_RUNNING;
        req->copy.promise.rq = rq;
        req->copy.promise.proof = (struct store_op){.done = promise_proved};
        list_init(&req->copy.promise.proof.link);
        if (store_probe(conn->m->store, &req->copy.promise.proof) == 0)
            return;
        rwm_request_free(req);
    }
    rpc_reply(rpc, STATUS_NOT_SERVING, NULL, 0);
}

/* ---- what all others begin with ---- */
/* *c is set with STATUS_OK. */
static uint32_t check_head(struct rwm *m, uint32_t from, uint64_t incarnation, const struct copy_head *h,
                           bool joined, struct rwm_copies **out)
{
    if (m->pool_id == 0 || h->pool != m->pool_id || h->partition >= m->part_count)
        return STATUS_NOT_SERVING;
    uint64_t epoch = m->parts[h->partition].epoch;
    struct rwm_copies *c = m->parts[h->partition].copies;
    if (h->epoch < epoch)
        return STATUS_STALE_EPOCH;
    if (h->epoch > epoch || !c) {
        if (m->cluster)
            cluster_refresh(m->cluster);
        return STATUS_NOT_SERVING;
    }
    if (c->primary != from)
        return STATUS_PROTOCOL;
    if (joined && (c->joined_by != from || c->joined_incarnation != incarnation || c->joined_epoch != epoch))
        return STATUS_NOT_SERVING;
    *out = c;
    return STATUS_OK;
}

static void reply_end(struct rwm_request *req, uint32_t status)
{
    struct rpc_request *rpc = req->rpc;
    rwm_request_free(req);
    if (rpc)
        rpc_reply(rpc, status, NULL, 0);
}

/* ---- joins ---- */
/* AGAIN: not yet. */
static uint32_t join_try(struct rwm *m, struct rwm_request *req)
{
    const struct copy_head head = {.pool = req->r.pool, .partition = req->r.partition, .epoch = req->r.epoch};
    struct rwm_copies *c = NULL;
    uint32_t status = check_head(m, req->from_module, req->from_incarnation, &head, false, &c);
    if (status == STATUS_NOT_SERVING)
        return STATUS_AGAIN; /* the epoch may come with the next table */
    if (status != STATUS_OK)
        return status;
    if (c->storing > 0 || rwm_leave_busy(m, head.partition) ||
        loop_clock_ns(m->env->loop) < rwm_copies_wait_until(c))
        return STATUS_AGAIN;
    status = rwm_grant_join(m, req->from_module, req->from_incarnation);
    if (status != STATUS_OK)
        return status;
    c->joined_by = req->from_module;
    c->joined_incarnation = req->from_incarnation;
    c->joined_epoch = head.epoch;
    return STATUS_OK;
}

static void join_reply(struct rwm *m, struct rwm_request *req, uint32_t status)
{
    struct rpc_request *rpc = req->rpc;
    struct copy_join_reply reply = {0};
    if (req->r.partition < m->part_count) {
        const struct rwm_copies *c = m->parts[req->r.partition].copies;
        reply.epoch = m->parts[req->r.partition].epoch;
        reply.flags = c && rwm_copies_whole(c) ? COPY_JOINED_WHOLE : 0;
    }
    rwm_request_free(req);
    if (rpc)
        rpc_reply(rpc, status, &reply, sizeof(reply));
}

void rwm_serve_joins(struct rwm *m)
{
    uint64_t now = loop_now_ns(m->env->loop);
    list_for_each_safe(n, &m->joins)
    {
        struct rwm_request *req = list_entry(n, struct rwm_request, link);
        bool gone = req->dropped || !req->rpc || !rpc_request_alive(req->rpc);
        uint32_t status = gone ? STATUS_CANCELED : join_try(m, req);
        if (status == STATUS_AGAIN && now < req->deadline_ns)
            continue;
        join_reply(m, req, status == STATUS_AGAIN ? STATUS_NOT_SERVING : status);
    }
}

static void serve_join(struct rwm_conn *conn, struct rpc_request *rpc, const void *body)
{
    struct rwm *m = conn->m;
    struct copy_join rq;
    memcpy(&rq, body, sizeof(rq));
    struct rwm_request *req = request_make(conn, rpc, COPY_METHOD_JOIN, &rq.head);
    if (!req) {
        rpc_reply(rpc, STATUS_NOT_SERVING, NULL, 0);
        return;
    }
    req->deadline_ns = loop_now_ns(m->env->loop) + JOIN_WAIT_NS;
    req->state = RWM_REQUEST_APART;
    list_push_back(&m->joins, &req->link);
    rwm_serve_joins(m);
    rwm_tick_soon(m);
}

static void serve_release(const struct rwm_conn *conn, const void *body, uint32_t len)
{
    struct copy_release rq;
    if (len < sizeof(rq))
        return;
    memcpy(&rq, body, sizeof(rq));
    struct rwm_copies *c =
        rq.head.pool == conn->m->pool_id ? rwm_copies_of(conn->m, rq.head.partition) : NULL;
    if (c)
        rwm_copies_released(c, conn->from_module, conn->from_incarnation, rq.head.epoch);
}

void rwm_serve_notify(struct rwm_conn *conn, uint16_t method, const void *body, uint32_t len)
{
    struct copy_commit rq;
    struct rwm_copies *c = NULL;
    if (!conn->m || conn->from_module == 0 || !rwm_accepts(conn->m))
        return;
    if (method == COPY_METHOD_RELEASE)
        serve_release(conn, body, len);
    if (method != COPY_METHOD_COMMIT || len < sizeof(rq))
        return;
    memcpy(&rq, body, sizeof(rq));
    if (check_head(conn->m, conn->from_module, conn->from_incarnation, &rq.head, true, &c) != STATUS_OK)
        return;
    rwm_recent_commit(c, rq.committed);
    if (rq.flags & COPY_COMMIT_RECONCILED)
        c->whole = true;
}

/* ---- forwards, replacements and fetches ---- */
static void data_fetched(void *arg, int rc)
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
    struct rwm_piece *p = list_entry(req->pieces.next, struct rwm_piece, link);
    if (rc)
        req->status = rc == -EBADMSG ? STATUS_BAD_CRC : rc == -ENOTCONN ? STATUS_CANCELED : STATUS_IO;
    rwm_block_fetched(m, p, rc == 0);
}

/* Runs of written units go to their places. */
static unsigned replace_sges(const struct rwm_request *req, const struct rwm_piece *p, struct fabric_sge *sge)
{
    unsigned count = 0;
    struct fabric_mem *mem = rwm_piece_mem(req->area, p);
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (!((p->op.written & ~p->op.lost) >> u & 1u))
            continue;
        uint8_t *at = p->chunk + (size_t)u * UNIT_BYTES;
        if (count > 0 && (uint8_t *)sge[count - 1].base + sge[count - 1].len == at)
            sge[count - 1].len += UNIT_BYTES;
        else
            sge[count++] = (struct fabric_sge){.base = at, .len = UNIT_BYTES, .mem = mem};
    }
    return count;
}

static void data_fetch(struct rwm *m, struct rwm_request *req, struct rwm_piece *p)
{
    struct fabric_sge sge[UNITS_PER_BLOCK];
    unsigned count = 1;
    if (p->kind == RWM_PIECE_REPLACE)
        count = replace_sges(req, p, sge);
    else
        sge[0] = (struct fabric_sge){.base = p->chunk, .len = p->bytes, .mem = rwm_piece_mem(req->area, p)};
    req->state = RWM_REQUEST_FETCH;
    int rc = rpc_request_fetch(req->rpc, sge, count, data_fetched, req);
    if (rc == 0)
        return;
    req->state = RWM_REQUEST_RUNNING;
    req->status = rc == -ENOTCONN ? STATUS_CANCELED : STATUS_INVALID;
    rwm_block_fetched(m, p, false);
}

static bool key_fits(const struct rwm *m, const struct copy_key *k, uint32_t partition)
{
    return placement_partition(k->hash, m->part_count) == partition && k->layer != 0;
}

static void piece_key(struct rwm_piece *p, const struct copy_key *k)
{
    p->op.key = (struct store_key){.layer = k->layer, .block = k->block, .hash = k->hash};
}

static uint32_t forward_piece(struct rwm *m, struct rwm_request *req, struct rwm_piece *p)
{
    const struct copy_forward *f = &req->copy.forward;
    bool clear = f->flags & COPY_FORWARD_CLEAR;
    if (f->unit_count == 0 || f->unit_count > UNITS_PER_BLOCK ||
        f->first_unit > UNITS_PER_BLOCK - f->unit_count || !key_fits(m, &f->key, req->r.partition) ||
        f->turn >= BLOCK_TURN_MAX ||
        rpc_request_payload_len(req->rpc) != (clear ? 0 : f->unit_count * UNIT_BYTES))
        return STATUS_INVALID;
    int rc = uuid_is_zero(&f->volume) ? 0 : rwm_turn_accept(m, &f->volume, f->host, f->turn);
    if (rc)
        return rc == -EAGAIN ? STATUS_AGAIN : rwm_status_of_store(m, rc, "record a write turn");
    piece_key(p, &f->key);
    p->kind = clear ? RWM_PIECE_FORWARD_CLEAR : RWM_PIECE_FORWARD;
    p->start = f->first_unit * UNIT_BYTES;
    p->bytes = f->unit_count * UNIT_BYTES;
    p->op.version = f->version;
    p->base = f->base;
    p->cuts = f->cuts;
    p->fetching = !clear;
    return STATUS_OK;
}

static uint32_t replace_piece(struct rwm *m, struct rwm_request *req, struct rwm_piece *p)
{
    const struct copy_replace *r = &req->copy.replace;
    uint32_t data = r->written & ~r->lost;
    if (!key_fits(m, &r->key, req->r.partition) || (r->lost & ~r->written) != 0 ||
        rpc_request_payload_len(req->rpc) != (uint32_t)__builtin_popcount(data) * UNIT_BYTES)
        return STATUS_INVALID;
    piece_key(p, &r->key);
    p->kind = RWM_PIECE_REPLACE;
    p->bytes = BLOCK_BYTES;
    p->op.version = r->version;
    p->op.written = r->written;
    p->op.lost = r->lost;
    p->cuts = r->cuts;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++)
        if (r->lost >> u & 1u)
            memset(p->chunk + (size_t)u * UNIT_BYTES, 0, UNIT_BYTES);
    p->fetching = data != 0;
    return STATUS_OK;
}

/* False: waits for memory. */
static bool data_begin(struct rwm *m, struct rwm_request *req)
{
    const struct copy_head head = {.pool = req->r.pool, .partition = req->r.partition, .epoch = req->r.epoch};
    struct rwm_copies *c = NULL;
    uint32_t status = !req->rpc || !rpc_request_alive(req->rpc)
                          ? STATUS_CANCELED
                          : check_head(m, req->from_module, req->from_incarnation, &head, true, &c);
    struct rwm_piece *p = status == STATUS_OK ? rwm_piece_get_serve(m) : NULL;
    if (status == STATUS_OK && !p)
        return false;
    if (p) {
        p->req = req;
        p->partition = head.partition;
        p->m = m;
        list_push_back(&req->pieces, &p->link);
        if (req->method == COPY_METHOD_FORWARD) {
            status = forward_piece(m, req, p);
        } else if (req->method == COPY_METHOD_REPLACE) {
            status = replace_piece(m, req, p);
        } else {
            p->kind = RWM_PIECE_COPY;
            piece_key(p, &req->copy.fetch.key);
            status = key_fits(m, &req->copy.fetch.key, head.partition) ? STATUS_OK : STATUS_INVALID;
        }
    }
    if (status == STATUS_AGAIN) {
        rwm_piece_put(m->area, p);
        rwm_stall(m, NULL);
        return false;
    }
    list_remove(&req->link);
    if (status != STATUS_OK) {
        reply_end(req, status);
        return true;
    }
    if (req->method == COPY_METHOD_FORWARD)
        rwm_recent_commit(c, req->copy.forward.committed);
    else if (req->method == COPY_METHOD_REPLACE)
        rwm_recent_commit(c, req->copy.replace.committed);
    req->state = RWM_REQUEST_RUNNING;
    req->active = true;
    req->pending = 1;
    m->active++;
    bool fetches = p->fetching;
    rwm_block_add(m, p);
    if (fetches)
        data_fetch(m, req, p);
    return true;
}

void rwm_serve_pump(struct rwm *m)
{
    while (rwm_accepts(m) && !list_empty(&m->serves))
        if (!data_begin(m, list_entry(m->serves.next, struct rwm_request, link)))
            return;
}

static void serve_data(struct rwm_conn *conn, struct rpc_request *rpc, uint16_t method, const void *body)
{
    struct rwm *m = conn->m;
    struct copy_head head;
    memcpy(&head, body, sizeof(head));
    struct rwm_request *req = rwm_area_serve(m) == 0 ? request_make(conn, rpc, method, &head) : NULL;
    if (!req) {
        rpc_reply(rpc, STATUS_NOT_SERVING, NULL, 0);
        return;
    }
    if (method == COPY_METHOD_FORWARD)
        memcpy(&req->copy.forward, body, sizeof(req->copy.forward));
    else if (method == COPY_METHOD_REPLACE)
        memcpy(&req->copy.replace, body, sizeof(req->copy.replace));
    else
        memcpy(&req->copy.fetch, body, sizeof(req->copy.fetch));
    req->state = RWM_REQUEST_APART;
    list_push_back(&m->serves, &req->link);
    rwm_serve_pump(m);
}

static void fetch_sent(void *arg)
{
    struct rwm_piece *p = arg;
    struct rwm_area *area = p->area;
    rwm_piece_put(area, p);
    area->sending--;
    if (area->m)
        loop_defer(area->m->env->loop, &area->m->queue_task);
    else
        rwm_area_release(area);
}

static void fetch_reply(struct rwm_request *req, struct rwm_piece *p)
{
    struct rwm_area *area = req->area;
    struct rpc_request *rpc = req->rpc;
    struct copy_fetch_reply reply = {.version = p->op.found, .written = p->op.written, .rotten = p->rotten};
    struct fabric_sge sge = {.base = p->chunk, .len = BLOCK_BYTES, .mem = rwm_piece_mem(area, p)};
    if (!rpc || reply.written == 0 || rpc_request_sink_len(rpc) < BLOCK_BYTES) {
        rwm_request_free(req);
        if (rpc)
            rpc_reply(rpc, STATUS_OK, &reply, sizeof(reply));
        return;
    }
    uint32_t crc = rwm_block_crc(p);
    list_remove(&p->link);
    p->req = NULL;
    area->sending++;
    rwm_request_free(req);
    rpc_reply_payload(rpc, STATUS_OK, &reply, sizeof(reply), &sge, 1, crc, fetch_sent, p);
}

static void check_reply(struct rwm_request *req, const struct rwm_piece *p)
{
    struct rpc_request *rpc = req->rpc;
    struct copy_check_reply reply = {.version = p->op.found, .written = p->op.written, .rotten = p->rotten};
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++)
        if ((reply.written & ~reply.rotten) >> u & 1u)
            reply.crc[u] = p->op.found_crcs[u];
    rwm_request_free(req);
    if (rpc)
        rpc_reply(rpc, STATUS_OK, &reply, sizeof(reply));
}

void rwm_serve_finished(struct rwm_request *req)
{
    struct rwm *m = req->area->m;
    struct rwm_piece *p = list_entry(req->pieces.next, struct rwm_piece, link);
    struct rwm_copies *c = rwm_copies_of(m, req->r.partition);
    if (req->status == STATUS_OK && req->method == COPY_METHOD_FETCH) {
        fetch_reply(req, p);
    } else if (req->status == STATUS_OK && req->method == COPY_METHOD_CHECK) {
        check_reply(req, p);
    } else {
        bool clear =
            p->kind == RWM_PIECE_FORWARD_CLEAR || (p->kind == RWM_PIECE_REPLACE && p->op.written == 0);
        if (req->status == STATUS_OK && c)
            rwm_recent_add(c, &p->op.key, p->op.version, clear);
        reply_end(req, req->status);
    }
    loop_defer(m->env->loop, &m->queue_task);
}

/* ---- versions ---- */
static void versions_done(struct rwm_lookup *l, int rc)
{
    struct rwm_request *req = l->owner;
    struct rpc_request *rpc = req->rpc;
    uint8_t body[sizeof(struct copy_versions_reply) + sizeof(l->item)];
    struct copy_versions_reply reply = {.cursor = req->copy.versions.cursor, .count = l->count};
    size_t len = sizeof(reply) + l->count * sizeof(l->item[0]);
    memcpy(body, &reply, sizeof(reply));
    memcpy(body + sizeof(reply), l->item, l->count * sizeof(l->item[0]));
    rwm_lookup_free(l);
    rwm_request_free(req);
    if (rpc)
        rpc_reply(rpc, rc == 0 ? STATUS_OK : STATUS_IO, rc == 0 ? body : NULL, rc == 0 ? (uint32_t)len : 0);
}

static void versions_recent(const struct rwm_copies *c, struct rwm_lookup *l, uint64_t *cursor)
{
    uint64_t at = 0;
    list_for_each(n, &c->recent)
    {
        const struct rwm_recent *r = list_entry(n, struct rwm_recent, link);
        if (at++ < *cursor)
            continue;
        if (l->count == COPY_KEYS_MAX) {
            *cursor = at - 1;
            return;
        }
        l->item[l->count++].key = (struct copy_key){r->key.layer, r->key.block, r->key.hash};
    }
    *cursor = 0;
}

static bool versions_fill(struct rwm *m, struct rwm_copies *c, struct rwm_lookup *l, struct copy_versions *rq,
                          const uint8_t *keys, uint32_t bytes)
{
    if (rq->list == COPY_LIST_RECENT) {
        versions_recent(c, l, &rq->cursor);
        return true;
    }
    if (rq->list == COPY_LIST_ALL) {
        struct store_key list[COPY_KEYS_MAX];
        l->count = store_list(m->store, c->partition, &rq->cursor, list, COPY_KEYS_MAX);
        for (uint32_t i = 0; i < l->count; i++)
            l->item[i].key = (struct copy_key){list[i].layer, list[i].block, list[i].hash};
        return true;
    }
    if (rq->list != COPY_LIST_KEYS || rq->count > COPY_KEYS_MAX ||
        bytes != rq->count * sizeof(struct copy_key))
        return false;
    rq->cursor = 0;
    l->count = rq->count;
    for (uint32_t i = 0; i < l->count; i++)
        memcpy(&l->item[i].key, keys + i * sizeof(struct copy_key), sizeof(struct copy_key));
    return true;
}

static void serve_versions(struct rwm_conn *conn, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct rwm *m = conn->m;
    struct copy_versions rq;
    struct rwm_copies *c = NULL;
    memcpy(&rq, body, sizeof(rq));
    uint32_t status = check_head(m, conn->from_module, conn->from_incarnation, &rq.head, true, &c);
    struct rwm_request *req =
        status == STATUS_OK ? request_make(conn, rpc, COPY_METHOD_VERSIONS, &rq.head) : NULL;
    struct rwm_lookup *l = req ? rwm_lookup_new(m, c, true) : NULL;
    if (!l) {
        if (req)
            reply_end(req, STATUS_NOT_SERVING);
        else
            rpc_reply(rpc, status != STATUS_OK ? status : STATUS_NOT_SERVING, NULL, 0);
        return;
    }
    req->state = RWM_REQUEST_RUNNING;
    if (!versions_fill(m, c, l, &rq, (const uint8_t *)body + sizeof(rq), len - (uint32_t)sizeof(rq))) {
        rwm_lookup_free(l);
        reply_end(req, STATUS_INVALID);
        return;
    }
    req->copy.versions = rq;
    l->owner = req;
    l->done = versions_done;
    rwm_lookup_start(l);
}

static void serve_turns(struct rwm_conn *conn, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct copy_turns rq;
    struct rwm_copies *c = NULL;
    memcpy(&rq, body, sizeof(rq));
    uint32_t status = check_head(conn->m, conn->from_module, conn->from_incarnation, &rq.head, true, &c);
    struct rwm_request *req =
        status == STATUS_OK ? request_make(conn, rpc, COPY_METHOD_TURNS, &rq.head) : NULL;
    if (!req) {
        rpc_reply(rpc, status != STATUS_OK ? status : STATUS_NOT_SERVING, NULL, 0);
        return;
    }
    rwm_turns_serve(conn->m, req, &rq, (const uint8_t *)body + sizeof(rq), len - (uint32_t)sizeof(rq));
}

/* ---- dispatch ---- */
void rwm_serve_request(struct rwm_conn *conn, struct rpc_request *rpc, uint16_t method, const void *body,
                       uint32_t len)
{
    struct rwm *m = conn->m;
    if (!m || conn->from_module == 0 || !rwm_accepts(m)) {
        rpc_reply(rpc, m && conn->from_module == 0 ? STATUS_PROTOCOL : STATUS_NOT_SERVING, NULL, 0);
        return;
    }
    switch (method) {
    case COPY_METHOD_PROMISE:
        serve_promise(conn, rpc, body);
        return;
    case COPY_METHOD_JOIN:
        serve_join(conn, rpc, body);
        return;
    case COPY_METHOD_VERSIONS:
        serve_versions(conn, rpc, body, len);
        return;
    case COPY_METHOD_TURNS:
        serve_turns(conn, rpc, body, len);
        return;
    case COPY_METHOD_FORWARD:
    case COPY_METHOD_REPLACE:
    case COPY_METHOD_FETCH:
    case COPY_METHOD_CHECK:
        serve_data(conn, rpc, method, body);
        return;
    default:
        rpc_reply(rpc, STATUS_INVALID, NULL, 0);
        return;
    }
}

void rwm_serve_refuse(struct rwm *m, uint32_t status)
{
    struct list *lists[] = {&m->joins, &m->serves};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        while (!list_empty(lists[i]))
            reply_end(list_entry(lists[i]->next, struct rwm_request, link), status);
}
