/*
 * rwm_block.c: writes and clears of one block, in order.
 *
 * Whole units go to the store one behind the other without waiting: the store keeps the order of submission.
 * A write that covers a unit only in part is a read-modify-write: it waits until all writes before it are
 * durable (a read shows only what is), reads the edges, merges, and only then gets its version; nothing
 * passes it meanwhile.
 */
#include "services/rwm/rwm_copies.h"

#include "common/crc.h"

#include <stdlib.h>
#include <string.h>

static void block_pump(struct rwm *m, struct rwm_block *b);

static struct list *block_bucket(const struct rwm *m, const struct store_key *key)
{
    uint64_t h = (key->layer * 0x9e3779b97f4a7c15ull) ^ (key->block * 0xc2b2ae3d27d4eb4full);
    return &m->block_buckets[(h >> 32) & (RWM_BLOCK_BUCKETS - 1)];
}

static struct rwm_block *block_find(const struct rwm *m, const struct store_key *key)
{
    struct list *bucket = block_bucket(m, key);
    list_for_each(n, bucket)
    {
        struct rwm_block *b = list_entry(n, struct rwm_block, hash_link);
        if (b->key.layer == key->layer && b->key.block == key->block)
            return b;
    }
    return NULL;
}

bool rwm_block_busy(const struct rwm *m, const struct store_key *key)
{
    return block_find(m, key) != NULL;
}

int rwm_blocks_create(struct rwm *m)
{
    m->block_buckets = calloc(RWM_BLOCK_BUCKETS, sizeof(*m->block_buckets));
    if (!m->block_buckets)
        return -ENOMEM;
    for (unsigned i = 0; i < RWM_BLOCK_BUCKETS; i++)
        list_init(&m->block_buckets[i]);
    return pool_create(NULL, "rwm blocks", sizeof(struct rwm_block), 16,
                       pool_total(m->area->piece_pool) + RWM_SERVE_PIECES + RWM_REPAIR_PIECES,
                       &m->block_pool);
}

void rwm_blocks_destroy(struct rwm *m)
{
    if (m->block_buckets && m->block_pool) {
        for (unsigned i = 0; i < RWM_BLOCK_BUCKETS; i++) {
            list_for_each(n, &m->block_buckets[i])
            {
                struct rwm_block *b = list_entry(n, struct rwm_block, hash_link);
                struct list *lists[] = {&b->waiting, &b->readers};
                for (size_t k = 0; k < ARRAY_LEN(lists); k++)
                    while (list_pop_front(lists[k]) != NULL) {
                    }
                for (struct list *f = list_pop_front(&b->flight); f != NULL; f = list_pop_front(&b->flight))
                    list_remove(&list_entry(f, struct rwm_piece, block_flight_link)->flight_link);
            }
        }
    }
    if (m->block_pool)
        pool_destroy(m->block_pool, true);
    free(m->block_buckets);
}

uint32_t rwm_status_of_store(struct rwm *m, int rc, const char *what)
{
    switch (rc) {
    case 0:
        return STATUS_OK;
    case -EBADMSG:
        return STATUS_DAMAGED;
    case -ENOSPC:
        return STATUS_NO_SPACE;
    case -EROFS:
        return STATUS_READ_ONLY;
    default:
        break;
    }
    rwm_store_error(m, rc, what);
    /* A module that can not go on is no error to the client: its partition waits for it, or for a successor.
     */
    bool away = m->broken || m->data->link_state != DEVICE_LINK_UP;
    return away ? STATUS_NOT_SERVING : STATUS_IO;
}

/* ---- ends ---- */
/* One end may bring about others of the same block, and b would go with the last of them: but whoever calls
 * is not done with it, and pumps it afterwards. */
static void piece_end(struct rwm_block *b, struct rwm_piece *p, uint32_t status)
{
    b->ending++;
    if (p->req)
        rwm_request_piece_done(p->req, status);
    else
        p->done(p, status);
    b->ending--;
}

/* The first of b's queue ends without reaching the store. */
static void block_drop_first(struct rwm_block *b, struct rwm_piece *p, uint32_t status)
{
    MUST(b->waiting.next == &p->block_link);
    list_remove(&p->block_link);
    piece_end(b, p, status);
}

/* Is b's version kept? */
static struct rwm_copies *copies_of(const struct rwm *m, const struct rwm_piece *p)
{
    return rwm_copies_of(m, p->partition);
}

static void stall_woken(struct store_waiter *w)
{
    struct rwm *m = container_of(w, struct rwm, stall_waiter);
    m->stall_waiting = false;
    struct list again;
    list_init(&again);
    list_splice(&again, &m->stalled);
    for (struct list *n = list_pop_front(&again); n != NULL; n = list_pop_front(&again)) {
        struct rwm_piece *p = list_entry(n, struct rwm_piece, stall_link);
        if (p->block) {
            p->block->stalled = false;
            block_pump(m, p->block);
        } else {
            rwm_read_start(m, p);
        }
    }
    rwm_serve_pump(m);
    rwm_queue_pump(m);
}

void rwm_stall(struct rwm *m, struct rwm_piece *p)
{
    if (p)
        list_push_back(&m->stalled, &p->stall_link);
    if (m->stall_waiting)
        return;
    m->stall_waiting = true;
    m->stall_waiter.fn = stall_woken;
    store_wait(m->store, &m->stall_waiter);
}

static void block_stall(struct rwm *m, struct rwm_block *b, struct rwm_piece *p)
{
    b->stalled = true;
    rwm_stall(m, p);
}

/* ---- the block's present version ---- */
static void stat_done(struct store_op *op, int rc)
{
    struct rwm_piece *p = container_of(op, struct rwm_piece, op);
    struct rwm *m = p->m;
    struct rwm_block *b = p->block;
    b->merging = false;
    if (rc == 0 || rc == -EBADMSG) {
        b->version_known = true;
        b->unreadable = rc != 0;
        b->version = rc == 0 ? op->found : (struct version){0, 0};
    } else {
        block_drop_first(b, p, rwm_status_of_store(m, rc, "look up a version"));
    }
    block_pump(m, b);
}

/* p is the first of its block, and nothing of it is in the store. */
static void stat_start(struct rwm *m, struct rwm_block *b, struct rwm_piece *p)
{
    p->op.done = stat_done;
    int rc = store_stat(m->store, &p->op);
    b->merging = rc == 0;
    if (rc == 0)
        return;
    if (rc == -EAGAIN) {
        block_stall(m, b, p);
        return;
    }
    block_drop_first(b, p, rwm_status_of_store(m, rc, "look up a version"));
    block_pump(m, b);
}

/* ---- read-modify-write ---- */
static uint8_t *merge_scratch(const struct rwm_piece *p)
{
    return p->chunk + (size_t)rwm_range_units(p->start, p->bytes) * UNIT_BYTES;
}

/* The unit of the n-th edge to be read; false when there are no more. */
static bool merge_edge(const struct rwm_piece *p, unsigned n, uint32_t *unit)
{
    uint32_t end = p->start + p->bytes, found = 0;
    if (p->start % UNIT_BYTES != 0) {
        *unit = p->start / UNIT_BYTES;
        if (found++ == n)
            return true;
    }
    bool same = p->start % UNIT_BYTES != 0 && p->start / UNIT_BYTES == end / UNIT_BYTES;
    if (end % UNIT_BYTES != 0 && !same) {
        *unit = end / UNIT_BYTES;
        if (found == n)
            return true;
    }
    return false;
}

/* Bytes of unit that the write does not cover come from what was read. */
static void merge_copy(struct rwm_piece *p, uint32_t unit)
{
    uint32_t from = unit * UNIT_BYTES, to = from + UNIT_BYTES, end = p->start + p->bytes;
    uint8_t *into = p->chunk + (size_t)(unit - p->start / UNIT_BYTES) * UNIT_BYTES;
    const uint8_t *old = merge_scratch(p);
    if (p->start > from)
        memcpy(into, old, p->start - from);
    if (end < to)
        memcpy(into + (end - from), old + (end - from), to - end);
}

static void merge_read_done(struct store_op *op, int rc);

/* Reads the next edge; p is the first of its block. */
static void merge_next(struct rwm *m, struct rwm_piece *p)
{
    uint32_t unit;
    struct rwm_block *b = p->block;
    if (!merge_edge(p, p->merge_edges, &unit)) {
        b->merging = false;
        p->merged = true;
        block_pump(m, b);
        return;
    }
    p->iov = (struct iovec){.iov_base = merge_scratch(p), .iov_len = UNIT_BYTES};
    p->op.first_unit = unit;
    p->op.unit_count = 1;
    p->op.iov = &p->iov;
    p->op.iovcnt = 1;
    p->op.done = merge_read_done;
    int rc = store_read(m->store, &p->op);
    b->merging = rc == 0;
    if (rc == 0)
        return;
    if (rc == -EAGAIN) {
        block_stall(m, b, p);
        return;
    }
    block_drop_first(b, p, rwm_status_of_store(m, rc, "read for a merge"));
    block_pump(m, b);
}

static void merge_read_done(struct store_op *op, int rc)
{
    struct rwm_piece *p = container_of(op, struct rwm_piece, op);
    struct rwm *m = p->m;
    struct rwm_block *b = p->block;
    uint32_t unit = op->first_unit;
    if (rc && rwm_rot_write(m, p, rc))
        return; /* it is read again after the repair, which holds the block */
    b->merging = false;
    if (rc) {
        const struct rwm_copies *c = copies_of(m, p);
        bool elsewhere = c && c->state != COPIES_SERVING; /* the primary may be able to read it */
        block_drop_first(b, p,
                         elsewhere ? STATUS_NOT_SERVING : rwm_status_of_store(m, rc, "read for a merge"));
        block_pump(m, b);
        return;
    }
    if (p->kind == RWM_PIECE_ZERO_EDGE && !(op->written >> unit & 1u)) {
        /* A hole reads as zeroes already, and takes no space. */
        block_drop_first(b, p, STATUS_OK);
        block_pump(m, b);
        return;
    }
    merge_copy(p, unit);
    p->merge_edges++;
    merge_next(m, p);
}

/* ---- versions ---- */
/* The last look before a version is given: after it the write only rolls forward. */
static uint32_t write_gate(const struct rwm *m, const struct rwm_piece *p)
{
    bool newer;
    if (m->broken || (m->state != RWM_RUNNING && m->state != RWM_STOPPING))
        return STATUS_NOT_SERVING;
    const struct rwm_copies *c = copies_of(m, p);
    if (c && c->state != COPIES_SERVING)
        return STATUS_NOT_SERVING;
    if (!p->req)
        return p->partition < m->part_count && m->parts[p->partition].primary ? STATUS_OK
                                                                              : STATUS_NOT_SERVING;
    if (p->req->dropped || !p->req->rpc || !rpc_request_alive(p->req->rpc))
        return STATUS_CANCELED;
    return rwm_check(m, &p->req->r, true, &newer);
}

static bool has_version(const struct rwm_piece *p)
{
    return p->kind == RWM_PIECE_FORWARD || p->kind == RWM_PIECE_FORWARD_CLEAR || p->kind == RWM_PIECE_REPLACE;
}

static void write_done(struct store_op *op, int rc)
{
    struct rwm_piece *p = container_of(op, struct rwm_piece, op);
    struct rwm *m = p->m;
    struct rwm_block *b = p->block;
    struct rwm_copies *c = copies_of(m, p);
    MUST(b->in_store > 0);
    b->in_store--;
    bool copied = p->copied, mine = !has_version(p);
    struct store_key key = op->key;
    uint32_t status = rwm_status_of_store(m, rc, "write");
    if (copied)
        c->storing--;
    if (!mine && status == STATUS_OK)
        rwm_volume_stored(m, &key, p->cuts);
    if (copied && mine) {
        rwm_forward_stored(c, p, status); /* may end it, and forget b */
        b = block_find(m, &key);
    } else {
        rwm_apply_write_ended(m, p);
        piece_end(b, p, status);
    }
    if (b)
        block_pump(m, b);
    if (copied && c->storing == 0 && (c->state == COPIES_JOINING || !list_empty(&m->joins)))
        rwm_tick_soon(m); /* they may have waited for it */
}

/* Is what a read found committed? Absence has no version: when there was something before the first of those
 * under way, one of them, a clear, has left nothing. */
static bool found_is_committed(const struct rwm_block *b, struct version found)
{
    if (list_empty(&b->flight))
        return true;
    const struct rwm_piece *w = list_entry(b->flight.next, struct rwm_piece, block_flight_link);
    return found.epoch == 0 ? w->base.epoch == 0 : version_cmp(w->op.version, found) > 0;
}

static void readers_look(struct rwm *m, struct rwm_block *b)
{
    list_for_each_safe(n, &b->readers)
    {
        struct rwm_piece *p = list_entry(n, struct rwm_piece, block_link);
        if (!found_is_committed(b, p->op.found))
            continue;
        list_remove(&p->block_link);
        rwm_request_piece_done(p->req, STATUS_OK);
    }
    (void)m;
}

void rwm_block_flight_ended(struct rwm *m, struct rwm_piece *p, uint32_t status)
{
    struct rwm_block *b = p->block;
    list_remove(&p->flight_link);
    list_remove(&p->block_flight_link);
    rwm_apply_write_ended(m, p);
    piece_end(b, p, status);
    readers_look(m, b);
    block_pump(m, b);
}

bool rwm_forward_readable(struct rwm *m, struct rwm_piece *p)
{
    struct rwm_block *b = block_find(m, &p->op.key);
    if (!b || found_is_committed(b, p->op.found))
        return true;
    list_push_back(&b->readers, &p->block_link);
    return false;
}

static int store_submit(struct rwm *m, struct rwm_piece *p)
{
    p->op.done = write_done;
    p->op.replace = p->kind == RWM_PIECE_REPLACE;
    p->op.lost = p->op.replace ? p->op.lost : 0;
    /* Every member forgets what is all hole, and nobody is left to tell: a member that comes back is made
     * what the primary is, block by block, and what the primary has not is removed there. */
    p->op.forget = true;
    if (p->kind == RWM_PIECE_CLEAR || p->kind == RWM_PIECE_FORWARD_CLEAR)
        return store_clear(m->store, &p->op);
    if (p->kind == RWM_PIECE_REPLACE && p->op.written == 0)
        return store_remove(m->store, &p->op);
    p->iov = (struct iovec){.iov_base = p->chunk, .iov_len = (size_t)p->op.unit_count * UNIT_BYTES};
    p->op.iov = &p->iov;
    p->op.iovcnt = 1;
    p->op.unit_crcs = p->crcs;
    for (uint32_t i = 0; i < p->op.unit_count; i++)
        p->crcs[i] = crc32c(p->chunk + (size_t)i * UNIT_BYTES, UNIT_BYTES);
    return store_write(m->store, &p->op);
}

static int write_submit(struct rwm *m, struct rwm_block *b, struct rwm_piece *p)
{
    struct rwm_part *part = &m->parts[p->partition];
    struct rwm_copies *c = copies_of(m, p);
    p->op.first_unit = p->start / UNIT_BYTES;
    p->op.unit_count = rwm_range_units(p->start, p->bytes);
    if (!has_version(p)) {
        p->op.version = (struct version){.epoch = part->epoch, .counter = ++part->counter};
        p->base = b->version;
    }
    int rc = store_submit(m, p);
    if (rc)
        return rc;
    b->in_store++;
    p->copied = c != NULL;
    rwm_apply_write_begun(m, p);
    list_remove(&p->block_link);
    if (!c)
        return 0;
    c->storing++;
    b->version = p->op.version;
    b->unreadable = false;
    /* It may have left nothing: then the next one's base is absence. */
    b->version_known = p->kind != RWM_PIECE_CLEAR && p->kind != RWM_PIECE_FORWARD_CLEAR &&
                       !(p->kind == RWM_PIECE_REPLACE && p->op.written == 0);
    if (has_version(p))
        return 0;
    list_push_back(&c->flight, &p->flight_link);
    list_push_back(&b->flight, &p->block_flight_link);
    rwm_forward_start(c, p);
    return 0;
}

/* What stands in the way of a write that came with its version: STATUS_OK, or how it ends. *there: nothing is
 * to be done. */
static uint32_t forward_gate(struct rwm *m, const struct rwm_block *b, const struct rwm_piece *p, bool *there)
{
    const struct rwm_copies *c = copies_of(m, p);
    *there = false;
    if (m->broken || (m->state != RWM_RUNNING && m->state != RWM_STOPPING) || !c)
        return STATUS_NOT_SERVING;
    if (!p->req && !rwm_reconcile_wants(p))
        return STATUS_CANCELED;
    /* A newer epoch may have been joined while the payload was on its way. */
    if (p->req && (p->req->r.epoch != m->parts[p->partition].epoch || c->joined_by != p->req->from_module))
        return STATUS_STALE_EPOCH;
    /* The primary will hear of it, too. */
    bool takes = p->kind != RWM_PIECE_REPLACE || p->op.written != 0;
    if ((p->req && rwm_remove_dead(m, &p->op.key)) || (takes && rwm_volume_cut_off(m, &p->op.key, p->cuts))) {
        *there = true;
        return STATUS_OK;
    }
    if (p->kind == RWM_PIECE_REPLACE)
        return STATUS_OK;
    const struct rwm_recent *r = rwm_recent_find(c, &p->op.key);
    if (version_cmp(p->op.version, b->version) <= 0 || (r && version_cmp(p->op.version, r->version) <= 0)) {
        *there = true;
        return STATUS_OK;
    }
    return !b->unreadable && version_cmp(p->base, b->version) == 0 ? STATUS_OK : STATUS_STALE_BASE;
}

/* False: the block has to wait. */
static bool block_submit_first(struct rwm *m, struct rwm_block *b, struct rwm_piece *p)
{
    bool there = false;
    uint32_t status = has_version(p) ? forward_gate(m, b, p, &there) : write_gate(m, p);
    if (status == STATUS_OK && !has_version(p) && b->unreadable) {
        if (rwm_rot_write(m, p, -EBADMSG)) {
            b->merging = true;
            return false;
        }
        status = STATUS_DAMAGED;
    }
    if (status == STATUS_OK && !has_version(p) && p->kind != RWM_PIECE_CLEAR && copies_of(m, p) &&
        b->version.epoch == 0)
        status = rwm_forward_room(copies_of(m, p));
    if (status != STATUS_OK || there) {
        block_drop_first(b, p, status);
        return true;
    }
    int rc = write_submit(m, b, p);
    if (rc == -EAGAIN) {
        block_stall(m, b, p);
        return false;
    }
    if (rc)
        block_drop_first(b, p, rwm_status_of_store(m, rc, "write"));
    return true;
}

/* ---- a whole block read, for another member ---- */
uint32_t rwm_block_crc(const struct rwm_piece *p)
{
    uint32_t crc = 0;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        uint32_t unit = (p->op.written & ~p->rotten) >> u & 1u ? p->op.found_crcs[u] : crc32c_zero_unit();
        crc = u == 0 ? unit : crc32c_combine(crc, unit, UNIT_BYTES);
    }
    return crc;
}

void rwm_block_copied(struct rwm *m, struct rwm_piece *p, uint32_t status)
{
    struct rwm_block *b = p->block;
    b->merging = false;
    block_drop_first(b, p, status);
    block_pump(m, b);
}

void rwm_block_before(struct rwm *m, struct rwm_block *b, struct rwm_piece *p)
{
    p->block = b;
    list_push_front(&b->waiting, &p->block_link);
    rwm_block_go_on(m, b);
}

void rwm_block_go_on(struct rwm *m, struct rwm_block *b)
{
    b->merging = false;
    block_pump(m, b);
}

static void copy_read_done(struct store_op *op, int rc)
{
    struct rwm_piece *p = container_of(op, struct rwm_piece, op);
    if (rc == 0 || !rwm_rot_copy(p->m, p, rc))
        rwm_block_copied(p->m, p, rwm_status_of_store(p->m, rc, "read for another copy"));
}

static void copy_read(struct rwm *m, struct rwm_block *b, struct rwm_piece *p)
{
    p->op.first_unit = 0;
    p->op.unit_count = UNITS_PER_BLOCK;
    p->iov = (struct iovec){.iov_base = p->chunk, .iov_len = BLOCK_BYTES};
    p->op.iov = &p->iov;
    p->op.iovcnt = 1;
    p->op.done = copy_read_done;
    int rc = store_read(m->store, &p->op);
    b->merging = rc == 0;
    if (rc == -EAGAIN)
        block_stall(m, b, p);
    else if (rc) {
        block_drop_first(b, p, rwm_status_of_store(m, rc, "read for another copy"));
        block_pump(m, b);
    }
}

/* True: go on with the next one. */
static bool block_first(struct rwm *m, struct rwm_block *b, struct rwm_piece *p)
{
    bool edges = p->kind == RWM_PIECE_WRITE || p->kind == RWM_PIECE_ZERO_EDGE;
    bool merges = edges && rwm_range_ragged(p->start, p->bytes) && !p->merged;
    bool asks =
        copies_of(m, p) && !b->version_known && p->kind != RWM_PIECE_REPLACE && p->kind != RWM_PIECE_COPY;
    if (p->fetching)
        return false;
    if (!merges && !asks && p->kind != RWM_PIECE_COPY)
        return block_submit_first(m, b, p);
    if (b->in_store > 0)
        return false;
    /* Each goes on, or has gone on, with the block. */
    if (asks)
        stat_start(m, b, p);
    else if (merges)
        merge_next(m, p);
    else
        copy_read(m, b, p);
    return false;
}

static void block_pump(struct rwm *m, struct rwm_block *b)
{
    while (!list_empty(&b->waiting) && !b->merging && !b->stalled) {
        if (!block_first(m, b, list_entry(b->waiting.next, struct rwm_piece, block_link)))
            return;
    }
    if (b->ending == 0 && list_empty(&b->waiting) && b->in_store == 0 && list_empty(&b->flight) &&
        list_empty(&b->readers)) {
        list_remove(&b->hash_link);
        m->blocks_active--;
        pool_put(m->block_pool, b);
    }
}

void rwm_block_fetched(struct rwm *m, struct rwm_piece *p, bool ok)
{
    struct rwm_block *b = p->block;
    p->fetching = false;
    if (!ok) {
        list_remove(&p->block_link);
        piece_end(b, p, STATUS_CANCELED);
    }
    block_pump(m, b);
}

void rwm_block_add(struct rwm *m, struct rwm_piece *p)
{
    struct rwm_block *b = block_find(m, &p->op.key);
    if (!b) {
        b = pool_get(m->block_pool);
        MUST(b != NULL); /* there are as many as pieces */
        *b = (struct rwm_block){.key = p->op.key};
        list_init(&b->waiting);
        list_init(&b->flight);
        list_init(&b->readers);
        list_push_back(block_bucket(m, &b->key), &b->hash_link);
        m->blocks_active++;
    }
    p->block = b;
    if (p->kind == RWM_PIECE_ZERO_EDGE)
        memset(p->chunk + p->start % UNIT_BYTES, 0, p->bytes);
    bool first = list_empty(&b->waiting);
    list_push_back(&b->waiting, &p->block_link);
    if (first)
        block_pump(m, b);
}
