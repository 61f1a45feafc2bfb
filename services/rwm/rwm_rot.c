/*
 * rwm_rot.c: what cannot be read here is read from another copy, and written again.
 *
 * A repair holds its block: its COPY piece is the first one of the block, so the version is what it is until
 * the end. All copies of one version have the same bytes; so units may be put together from any of them, and
 * which member wrote them when does not matter. The primary alone repairs; a member says what it cannot read,
 * and is sent the block.
 *
 * A member that cannot be asked now is waited for: until it answers, or has left those in sync.
 */
#include "services/rwm/rwm_copies.h"

#include "common/crc.h"

#include <string.h>

#define RESTARTS_MAX 3u

enum repair_state {
    REPAIR_WAITS,  /* for memory */
    REPAIR_QUEUED, /* its piece waits for the block, or reads it as a whole */
    REPAIR_STATS,  /* asks for the block's version */
    REPAIR_LOOKS,  /* reads unit by unit */
    REPAIR_ASKS,   /* another copy */
    REPAIR_STORES,
};
struct rwm_repair {
    struct list link; /* m->repairs */
    struct rwm *m;
    enum repair_state state;
    bool busy;  /* the store or another member has something of it */
    bool own;   /* p is of the repair pools, for readers and merge */
    bool asked; /* counted in m->repairs_asking */
    struct store_key key;
    uint32_t partition;
    struct rwm_piece *p;
    struct list readers;     /* pieces of reads: block_link */
    struct rwm_piece *merge; /* the first of the block, which it holds */
    struct version version;
    bool suspect;       /* nothing is known of the block here: it is what those in sync have */
    uint32_t bad, lack; /* units that could not be read; and are not found yet */
    unsigned unit, restarts;
    struct rwm_piece *from; /* another copy's block comes into it */
    struct rwm_copy *asking;
    struct rpc_call call;
    struct copy_fetch fetch;
    struct fabric_sge sink;
    uint32_t tried[TABLE_MEMBERS_MAX]; /* module ids: they have said what they have */
    uint32_t ill[TABLE_MEMBERS_MAX];   /* units that they could not read, in the same order */
    bool gave_up;
    unsigned tries;
};

static void repair_step(struct rwm_repair *r);

bool rwm_rot_is(const struct rwm *m, int rc)
{
    if (rc == -EBADMSG)
        return true;
    return rc == -EIO && !m->broken && !store_is_broken(m->store) && m->data->link_state == DEVICE_LINK_UP;
}

static bool can_ask(const struct rwm *m, const struct rwm_copies *c)
{
    return c && c->state == COPIES_SERVING && c->in_sync > 0 && !m->broken &&
           (m->state == RWM_RUNNING || m->state == RWM_STOPPING);
}

/* ---- life ---- */
/* Each is of a piece: of a request, of another module's request, or of its own. */
int rwm_rot_create(struct rwm *m)
{
    return pool_create(NULL, "rwm repairs", sizeof(struct rwm_repair), 16,
                       pool_total(m->area->piece_pool) + RWM_SERVE_PIECES + RWM_REPAIR_PIECES,
                       &m->repair_pool);
}

static struct rwm_repair *repair_make(struct rwm *m, const struct rwm_piece *p)
{
    struct rwm_repair *r = pool_get(m->repair_pool);
    if (!r)
        return NULL;
    *r = (struct rwm_repair){.m = m, .key = p->op.key, .partition = p->partition};
    list_init(&r->readers);
    list_push_back(&m->repairs, &r->link);
    rwm_tick_soon(m);
    return r;
}

static void repair_free(struct rwm_repair *r)
{
    struct rwm *m = r->m;
    if (r->from)
        rwm_piece_put(m->area, r->from);
    m->repairs_asking -= r->asked;
    m->repairs_own -= r->own;
    list_remove(&r->link);
    pool_put(m->repair_pool, r);
}

void rwm_rot_destroy(struct rwm *m)
{
    while (!list_empty(&m->repairs)) {
        struct rwm_repair *r = list_entry(m->repairs.next, struct rwm_repair, link);
        while (list_pop_front(&r->readers) != NULL) {
        }
        list_remove(&r->link); /* its pieces go with the area */
    }
}

/* ---- the end ---- */
static void reader_answer(const struct rwm_repair *r, struct rwm_piece *q, uint32_t status)
{
    const struct rwm_piece *p = r->p;
    uint32_t mask = 0;
    for (uint32_t i = 0; i < q->op.unit_count; i++)
        mask |= 1u << (q->op.first_unit + i);
    if (status == STATUS_OK && q->kind == RWM_PIECE_READ && (p->rotten & mask) != 0)
        status = STATUS_DAMAGED;
    if (status != STATUS_OK) {
        rwm_request_piece_done(q->req, status);
        return;
    }
    q->op.written = p->op.written;
    q->op.found = r->version;
    memcpy(q->op.found_crcs, p->op.found_crcs, sizeof(q->op.found_crcs));
    for (uint32_t i = 0; q->kind == RWM_PIECE_READ && i < q->op.unit_count; i++) {
        uint32_t u = q->op.first_unit + i;
        uint8_t *to = q->chunk + (size_t)i * UNIT_BYTES;
        if (p->op.written >> u & 1u)
            memcpy(to, p->chunk + (size_t)u * UNIT_BYTES, UNIT_BYTES);
        else
            memset(to, 0, UNIT_BYTES);
    }
    if (rwm_forward_readable(q->m, q))
        rwm_request_piece_done(q->req, STATUS_OK);
}

/* Of a repair for readers or a merge: the block has been read as a whole, or repaired. */
static void own_done(struct rwm_piece *p, uint32_t status)
{
    struct rwm_repair *r = p->repair;
    struct rwm *m = r->m;
    struct rwm_piece *merge = r->merge;
    list_remove(&r->link); /* nobody joins it any more */
    if (!r->suspect && status == STATUS_OK)
        r->version = p->op.found;
    while (!list_empty(&r->readers)) {
        struct rwm_piece *q = list_entry(list_pop_front(&r->readers), struct rwm_piece, block_link);
        reader_answer(r, q, status);
    }
    repair_free(r);
    rwm_piece_put(m->area, p);
    if (merge) /* the block goes on with it */
        merge->healed = status != STATUS_NOT_SERVING;
}

static void ill_sent(struct rwm_send *s, uint32_t status)
{
    if (status == STATUS_OK)
        s->m->stats.repaired_units += (uint64_t)(uintptr_t)s->owner;
}

/* Members that cannot read what is whole here by now. Their forwards of later versions follow behind. */
static void heal_members(struct rwm_repair *r)
{
    struct rwm_copies *c = rwm_copies_of(r->m, r->partition);
    struct rwm_piece *p = r->p;
    for (unsigned i = 0; i < TABLE_MEMBERS_MAX && r->tried[i] != 0; i++) {
        if (r->ill[i] == 0 || p->op.written == 0)
            continue;
        rwm_each_copy(k, c)
        {
            struct copy_replace body = {.head = rwm_copies_head(c),
                                        .key = {r->key.layer, r->key.block, r->key.hash},
                                        .version = r->version,
                                        .committed = rwm_forward_committed(c),
                                        .written = p->op.written};
            unsigned units = (unsigned)__builtin_popcount(r->ill[i]);
            if (k->module == r->tried[i] && k->in_sync && k->joined)
                (void)rwm_send_block(k->peer, &body, p, p->op.found_crcs, ill_sent, (void *)(uintptr_t)units);
        }
    }
}

static void repair_end(struct rwm_repair *r, uint32_t status)
{
    struct rwm *m = r->m;
    struct rwm_piece *p = r->p;
    p->op.replace = false;
    p->op.found = r->version;
    p->rotten = r->lack;
    p->bad = r->suspect ? p->op.written : r->bad;
    if (status == STATUS_OK && r->lack == 0 && can_ask(m, rwm_copies_of(m, r->partition)))
        heal_members(r);
    if (status == STATUS_OK && r->lack != 0 && p->heals) {
        m->stats.unrepairable_units += (unsigned)__builtin_popcount(r->lack);
        if (log_allow(m->env, &m->log_limit))
            log_error(m->env, "data is lost: no copy in sync can be read",
                      "module=%u partition=%u layer=%lu block=%lu units=%08x", m->id, r->partition,
                      (unsigned long)r->key.layer, (unsigned long)r->key.block, r->lack);
    }
    if (!r->own) {
        p->repair = NULL;
        repair_free(r);
    }
    rwm_block_copied(m, p, status); /* with own_done */
}

/* ---- the store ---- */
static void repair_op(struct rwm_repair *r, int rc, const char *what)
{
    if (rc == 0) {
        r->busy = true;
    } else if (rc != -EAGAIN) {
        repair_end(r, rwm_status_of_store(r->m, rc, what));
    }
}

static void stored(struct store_op *op, int rc)
{
    struct rwm_piece *p = container_of(op, struct rwm_piece, op);
    struct rwm_repair *r = p->repair;
    struct rwm *m = r->m;
    struct rwm_block *b = p->block;
    r->busy = false;
    if (rc == 0) {
        unsigned units = (unsigned)__builtin_popcount(r->bad & p->op.written);
        m->stats.repaired_units += units;
        if (log_allow(m->env, &m->log_limit))
            log_warn(m->env, "a block that could not be read was repaired from another copy",
                     "module=%u partition=%u layer=%lu block=%lu units=%08x", m->id, r->partition,
                     (unsigned long)r->key.layer, (unsigned long)r->key.block, r->bad);
        if (p->op.written != 0) {
            b->version = r->version;
            b->version_known = true;
            b->unreadable = false;
        }
    } else {
        rwm_store_error(m, rc, "repair");
    }
    repair_end(r, m->broken ? STATUS_NOT_SERVING : STATUS_OK); /* it is known, written again or not */
}

/* Whole, with the version that it has. */
static void repair_store(struct rwm_repair *r)
{
    struct rwm_piece *p = r->p;
    r->state = REPAIR_STORES;
    p->op.first_unit = 0;
    p->op.unit_count = UNITS_PER_BLOCK;
    p->op.version = r->version;
    p->op.replace = true;
    p->op.lost = 0;
    p->op.done = stored;
    p->iov = (struct iovec){.iov_base = p->chunk, .iov_len = BLOCK_BYTES};
    p->op.iov = &p->iov;
    p->op.iovcnt = 1;
    memcpy(p->crcs, p->op.found_crcs, sizeof(p->crcs));
    p->op.unit_crcs = p->crcs;
    int rc = p->op.written != 0 ? store_write(r->m->store, &p->op) : store_remove(r->m->store, &p->op);
    if (rc == -ENOSPC) {
        repair_end(r, STATUS_OK);
        return;
    }
    repair_op(r, rc, "repair");
}

/* ---- other copies ---- */
static bool tried(const struct rwm_repair *r, uint32_t module)
{
    for (unsigned i = 0; i < r->tries; i++)
        if (r->tried[i] == module)
            return true;
    return false;
}

static void differs(struct rwm_repair *r, const char *what)
{
    struct rwm *m = r->m;
    m->stats.differing_blocks++;
    if (log_allow(m->env, &m->log_limit))
        log_error(m->env, "copies in sync differ", "module=%u peer=%u partition=%u layer=%lu block=%lu in=%s",
                  m->id, r->asking->module, r->partition, (unsigned long)r->key.layer,
                  (unsigned long)r->key.block, what);
}

/* The units that are lacking here and whole there. */
static void take_units(struct rwm_repair *r, const struct copy_fetch_reply *reply)
{
    struct rwm_piece *p = r->p;
    bool other = false;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (!((r->lack & ~reply->rotten) >> u & 1u))
            continue;
        const uint8_t *unit = r->from->chunk + (size_t)u * UNIT_BYTES;
        uint32_t crc = crc32c(unit, UNIT_BYTES), known = p->op.found_crcs[u];
        /* Which of the two is damaged nobody can tell. A unit that was given up once is not known here. */
        if (!r->suspect && crc != known && known != ~crc32c_zero_unit()) {
            other = true;
            continue;
        }
        memcpy(p->chunk + (size_t)u * UNIT_BYTES, unit, UNIT_BYTES);
        p->op.found_crcs[u] = crc;
        r->lack &= ~(1u << u);
    }
    if (other)
        differs(r, "checksum");
}

/* False: to be asked again. */
static bool take(struct rwm_repair *r, const struct copy_fetch_reply *reply)
{
    struct rwm_piece *p = r->p;
    if (r->suspect && r->version.epoch == 0 && r->lack == UINT32_MAX) {
        r->version = reply->version;
        p->op.written = reply->written;
        r->lack = reply->written;
        memset(p->chunk, 0, BLOCK_BYTES);
        take_units(r, reply);
        return true;
    }
    bool same = version_cmp(reply->version, r->version) == 0;
    if (!same && !list_empty(&p->block->flight))
        return false; /* it may have the other version yet, or already: those under way end */
    if (!same || reply->written != p->op.written)
        differs(r, same ? "written" : "version");
    else
        take_units(r, reply);
    return true;
}

static void fetched(struct rpc_call *call, const struct rpc_result *result)
{
    struct rwm_repair *r = container_of(call, struct rwm_repair, call);
    struct rwm_copy *k = r->asking;
    struct copy_fetch_reply reply = {0};
    k->held--;
    rwm_peer_call_ended(k->peer);
    r->busy = false;
    uint32_t status = result->rc == 0 ? result->status : STATUS_DISCONNECTED;
    bool said = status == STATUS_DAMAGED || status == STATUS_IO;
    if (status == STATUS_OK && result->body_len >= sizeof(reply)) {
        memcpy(&reply, result->body, sizeof(reply));
        bool whole = reply.written == 0 || (result->payload_len == BLOCK_BYTES &&
                                            crc32c(r->from->chunk, BLOCK_BYTES) == result->payload_crc);
        said = whole && take(r, &reply);
    }
    if (said) {
        r->tried[r->tries] = k->module;
        r->ill[r->tries++] = reply.rotten & reply.written;
        repair_step(r);
    }
    /* Else the tick goes on. */
}

static void ask(struct rwm_repair *r, struct rwm_copy *k)
{
    struct rwm *m = r->m;
    if (!r->asked && m->repairs_asking >= RWM_REPAIRS_ASKING)
        return;
    if (!r->from)
        r->from = rwm_piece_get_repair(m);
    if (!r->from)
        return;
    m->repairs_asking += !r->asked;
    r->asked = true;
    r->asking = k;
    r->fetch =
        (struct copy_fetch){.head = rwm_copies_head(k->c), .key = {r->key.layer, r->key.block, r->key.hash}};
    r->sink = (struct fabric_sge){
        .base = r->from->chunk, .len = BLOCK_BYTES, .mem = rwm_piece_mem(m->area, r->from)};
    r->call = (struct rpc_call){.method = COPY_METHOD_FETCH,
                                .body = &r->fetch,
                                .body_len = sizeof(r->fetch),
                                .sink = &r->sink,
                                .sink_count = 1,
                                .done = fetched};
    r->busy = rwm_peer_call(k->peer, &r->call) == 0;
    k->held += r->busy;
}

/* Nothing is known of it, and it lies beyond the end of the volume: nothing that was acknowledged. A member
 * that lags behind a shrink may still have it, which is not to be taken for anybody's. */
static bool cut_off(const struct rwm_repair *r)
{
    return r->suspect && rwm_volume_nobodys(r->m, r->partition, &r->key);
}

static void repair_ask(struct rwm_repair *r)
{
    struct rwm *m = r->m;
    struct rwm_copies *c = rwm_copies_of(m, r->partition);
    if (c->state != COPIES_SERVING || m->broken) {
        repair_end(r, STATUS_NOT_SERVING);
        return;
    }
    bool cut = cut_off(r);
    bool found = cut || !r->suspect || (r->tries > 0 && r->lack != UINT32_MAX);
    if (cut) {
        r->version = (struct version){0, 0};
        r->p->op.written = r->lack = 0;
        memset(r->p->chunk, 0, BLOCK_BYTES);
    }
    if (found && r->lack == 0) {
        if (rwm_remove_matches(m, &r->key))
            repair_end(r, STATUS_OK);
        else
            repair_store(r);
        return;
    }
    bool waits = false;
    rwm_each_copy(k, c)
    {
        if (!k->in_sync || tried(r, k->module) || r->tries == TABLE_MEMBERS_MAX)
            continue;
        waits = true;
        if (k->joined && k->peer && k->peer->state == PEER_UP) {
            ask(r, k);
            return;
        }
    }
    if (!waits)
        repair_end(r, found ? STATUS_OK : STATUS_DAMAGED);
}

/* ---- what is readable here ---- */
static void looked(struct store_op *op, int rc);

static void look_next(struct rwm_repair *r)
{
    struct rwm_piece *p = r->p;
    while (r->unit < UNITS_PER_BLOCK && !(p->op.written >> r->unit & 1u)) {
        memset(p->chunk + (size_t)r->unit * UNIT_BYTES, 0, UNIT_BYTES);
        r->unit++;
    }
    if (r->unit == UNITS_PER_BLOCK) {
        struct rwm_copies *c = rwm_copies_of(r->m, r->partition);
        r->bad = r->lack;
        r->m->stats.rotten_units += (unsigned)__builtin_popcount(r->bad);
        r->state = REPAIR_ASKS;
        if (r->lack == 0 || !p->heals || !c || (c->state == COPIES_SERVING && !can_ask(r->m, c)))
            repair_end(r, STATUS_OK);
        else
            repair_step(r);
        return;
    }
    p->iov = (struct iovec){.iov_base = p->chunk + (size_t)r->unit * UNIT_BYTES, .iov_len = UNIT_BYTES};
    p->op.first_unit = r->unit;
    p->op.unit_count = 1;
    p->op.iov = &p->iov;
    p->op.iovcnt = 1;
    p->op.done = looked;
    repair_op(r, store_read(r->m->store, &p->op), "read what is rotten");
}

static void looked(struct store_op *op, int rc)
{
    struct rwm_piece *p = container_of(op, struct rwm_piece, op);
    struct rwm_repair *r = p->repair;
    r->busy = false;
    if (rc && !rwm_rot_is(r->m, rc)) {
        repair_end(r, rwm_status_of_store(r->m, rc, "read what is rotten"));
        return;
    }
    if (version_cmp(op->found, r->version) != 0) {
        /* Removed meanwhile, as what a deleted volume left. */
        r->state = REPAIR_STATS;
        if (++r->restarts > RESTARTS_MAX)
            repair_end(r, STATUS_DAMAGED);
        else
            repair_step(r);
        return;
    }
    if (rc) {
        r->lack |= 1u << r->unit;
        memset(p->chunk + (size_t)r->unit * UNIT_BYTES, 0, UNIT_BYTES);
    }
    r->unit++;
    repair_step(r);
}

static void statted(struct store_op *op, int rc)
{
    struct rwm_piece *p = container_of(op, struct rwm_piece, op);
    struct rwm_repair *r = p->repair;
    struct rwm_copies *c = rwm_copies_of(r->m, r->partition);
    r->busy = false;
    if (rc && rc != -EBADMSG) {
        repair_end(r, rwm_status_of_store(r->m, rc, "look up a version"));
        return;
    }
    r->suspect = rc != 0;
    r->unit = 0;
    r->lack = rc ? UINT32_MAX : 0;
    r->version = rc ? (struct version){0, 0} : op->found;
    r->state = rc ? REPAIR_ASKS : REPAIR_LOOKS;
    r->bad = r->lack;
    bool asks = c && (c->state != COPIES_SERVING || can_ask(r->m, c) || cut_off(r));
    if (rc && (!p->heals || !asks))
        repair_end(r, STATUS_DAMAGED);
    else
        repair_step(r);
}

/* ---- moving on ---- */
static void repair_begin(struct rwm_repair *r)
{
    struct rwm *m = r->m;
    struct rwm_piece *p = m->repairs_own < RWM_REPAIRS_OWN ? rwm_piece_get_repair(m) : NULL;
    if (!p)
        return;
    m->repairs_own++;
    r->own = true;
    r->p = p;
    r->state = REPAIR_QUEUED;
    p->kind = RWM_PIECE_COPY;
    p->heals = true;
    p->partition = r->partition;
    p->op.key = r->key;
    p->repair = r;
    p->done = own_done;
    if (r->merge)
        rwm_block_before(m, r->merge->block, p);
    else
        rwm_block_add(m, p);
}

static void repair_step(struct rwm_repair *r)
{
    if (r->busy)
        return;
    switch (r->state) {
    case REPAIR_WAITS:
        repair_begin(r);
        return;
    case REPAIR_QUEUED:
        return;
    case REPAIR_STATS:
        r->p->op.done = statted;
        repair_op(r, store_stat(r->m->store, &r->p->op), "look up a version");
        return;
    case REPAIR_LOOKS:
        look_next(r);
        return;
    case REPAIR_ASKS:
        repair_ask(r);
        return;
    case REPAIR_STORES:
        repair_store(r);
        return;
    }
}

void rwm_rot_step(struct rwm *m)
{
    list_for_each_safe(n, &m->repairs) repair_step(list_entry(n, struct rwm_repair, link));
}

/* ---- what finds rot ---- */
bool rwm_rot_copy(struct rwm *m, struct rwm_piece *p, int rc)
{
    if (!rwm_rot_is(m, rc))
        return false;
    struct rwm_repair *r = p->repair ? p->repair : repair_make(m, p);
    if (!r)
        return false;
    r->p = p;
    p->repair = r;
    r->state = REPAIR_STATS;
    repair_step(r);
    return true;
}

bool rwm_rot_read(struct rwm *m, struct rwm_piece *p, int rc)
{
    const struct rwm_copies *c = rwm_copies_of(m, p->partition);
    if (!c || !rwm_rot_is(m, rc))
        return false;
    if (c->state != COPIES_SERVING) {
        rwm_request_piece_done(p->req, STATUS_NOT_SERVING);
        return true;
    }
    if (!can_ask(m, c))
        return false;
    struct rwm_repair *r = NULL;
    list_for_each(n, &m->repairs)
    {
        struct rwm_repair *other = list_entry(n, struct rwm_repair, link);
        if (other->key.layer == p->op.key.layer && other->key.block == p->op.key.block && !other->merge &&
            (other->own || other->state == REPAIR_WAITS))
            r = other;
    }
    r = r ? r : repair_make(m, p);
    if (!r)
        return false;
    list_push_back(&r->readers, &p->block_link);
    return true;
}

bool rwm_rot_write(struct rwm *m, struct rwm_piece *p, int rc)
{
    const struct rwm_copies *c = rwm_copies_of(m, p->partition);
    if (p->healed || !rwm_rot_is(m, rc) || !can_ask(m, c))
        return false;
    struct rwm_repair *r = repair_make(m, p);
    if (!r)
        return false;
    r->merge = p;
    return true;
}
