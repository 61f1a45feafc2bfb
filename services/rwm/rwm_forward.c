/*
 * rwm_forward.c: a write's way to the other members. It is committed when the own store and every member that
 * counts have answered; nothing fails after its version was given: who does not answer is waited for until a
 * new epoch is without it.
 */
#include "services/rwm/rwm_copies.h"

#include "common/crc.h"

struct rwm_forward {
    struct rpc_call call;
    struct copy_forward body;
    struct fabric_sge sge;
    struct rwm_piece *piece;
    struct rwm_copy *copy;
    bool fills; /* the block was absent: it may take a slot */
};

int rwm_forward_create(struct rwm *m)
{
    return pool_create(NULL, "rwm forwards", sizeof(struct rwm_forward), 16,
                       pool_total(m->area->piece_pool) * RWM_FORWARDS_EACH, &m->forward_pool);
}

static uint16_t bit_of(const struct rwm_copy *k)
{
    return (uint16_t)(1u << (k - k->c->copy));
}
_Static_assert(RWM_COPY_SLOTS <= 16, "a bit each");

void rwm_forward_forget(struct rwm_copies *c, unsigned place)
{
    list_for_each(n, &c->flight)
    {
        struct rwm_piece *p = list_entry(n, struct rwm_piece, flight_link);
        p->sent &= (uint16_t) ~(1u << place);
        p->answered &= (uint16_t) ~(1u << place);
    }
}

static bool in_flight(const struct rwm_piece *p)
{
    return !list_unlinked(&p->flight_link);
}

struct version rwm_forward_committed(const struct rwm_copies *c)
{
    if (list_empty(&c->flight))
        return c->given;
    const struct rwm_piece *p = list_entry(c->flight.next, struct rwm_piece, flight_link);
    return (struct version){.epoch = p->op.version.epoch, .counter = p->op.version.counter - 1};
}

/* ---- committed ---- */
static bool piece_committed(struct rwm_copies *c, const struct rwm_piece *p)
{
    if (!p->stored)
        return false;
    rwm_each_copy(k, c)
    {
        if (rwm_copy_counts(k) && !(p->answered & bit_of(k)))
            return false;
    }
    return true;
}

/* p leaves the flight; what has been sent of it and not answered is on its way nevertheless. */
static void flight_end(struct rwm_copies *c, struct rwm_piece *p, uint32_t status)
{
    for (unsigned i = 0; i < RWM_COPY_SLOTS; i++)
        c->copy[i].loose += (p->sent & ~p->answered) >> i & 1u;
    rwm_copies_due(c); /* members are told */
    rwm_block_flight_ended(c->m, p, status);
}

static void piece_check(struct rwm_copies *c, struct rwm_piece *p)
{
    if (!in_flight(p) || p->given_up || !piece_committed(c, p))
        return;
    flight_end(c, p, STATUS_OK);
}

void rwm_forward_recheck(struct rwm_copies *c)
{
    /* The end of a piece may end others, never begin or free those that are in flight. */
    bool again = true;
    while (again) {
        again = false;
        list_for_each(n, &c->flight)
        {
            struct rwm_piece *p = list_entry(n, struct rwm_piece, flight_link);
            if (p->given_up || !piece_committed(c, p))
                continue;
            piece_check(c, p);
            again = true;
            break;
        }
    }
}

void rwm_forward_stored(struct rwm_copies *c, struct rwm_piece *p, uint32_t status)
{
    struct rwm *m = c->m;
    p->stored = true;
    if (status != STATUS_OK) {
        /* It has a version, others may have it: this module has to come back to it by way of a new epoch. */
        if (!m->broken && m->state == RWM_RUNNING)
            rwm_fail(m, -EIO,
                     "the device %s did not take a write that other copies may have (%s): starting again",
                     m->data->name, status_name(status));
        rwm_recent_add(c, &p->op.key, p->op.version, p->kind == RWM_PIECE_CLEAR);
        flight_end(c, p, STATUS_NOT_SERVING);
        return;
    }
    if (p->given_up)
        flight_end(c, p, STATUS_NOT_SERVING);
    else
        piece_check(c, p);
}

void rwm_forward_give_up(struct rwm_copies *c)
{
    list_for_each_safe(n, &c->flight)
    {
        struct rwm_piece *p = list_entry(n, struct rwm_piece, flight_link);
        rwm_recent_add(c, &p->op.key, p->op.version, p->kind == RWM_PIECE_CLEAR);
        p->given_up = true;
    }
    bool again = true;
    while (again) {
        again = false;
        list_for_each(n, &c->flight)
        {
            struct rwm_piece *p = list_entry(n, struct rwm_piece, flight_link);
            if (!p->stored)
                continue;
            flight_end(c, p, STATUS_NOT_SERVING);
            again = true;
            break;
        }
    }
}

/* ---- answers ---- */
static void unfit(struct rwm_copy *k, uint32_t status)
{
    struct rwm *m = k->c->m;
    if (!k->unfit && log_allow(m->env, &m->log_limit))
        log_warn(m->env, "a member could not apply a write", "module=%u peer=%u partition=%u status=%s",
                 m->id, k->module, k->c->partition, status_name(status));
    rwm_copies_due(k->c);
    m->stats.overdrawn += k->in_sync && status == STATUS_NO_SPACE;
    if (k->in_sync)
        k->unfit = true;
    if (!k->in_sync)
        rwm_epoch_unjoin(k);
    rwm_tick_soon(m);
}

void rwm_forward_refused(struct rwm_copy *k, uint32_t status)
{
    switch (status) {
    case STATUS_OK:
    case STATUS_DISCONNECTED:
    case STATUS_STALE_EPOCH:
    case STATUS_NOT_SERVING:
    case STATUS_CANCELED:
    case STATUS_BAD_CRC:
        return;
    default:
        unfit(k, status);
    }
}

static void answer(struct rwm_forward *f, uint32_t status)
{
    struct rwm_copy *k = f->copy;
    struct rwm_copies *c = k->c;
    struct rwm_piece *p = f->piece;
    switch (status) {
    case STATUS_OK:
        p->answered |= bit_of(k);
        piece_check(c, p);
        return;
    case STATUS_STALE_BASE:
        /* One that was reported as equal may be in sync by now: it is reported as lost, and waited for. */
        if (k->member && !rwm_copy_counts(k)) {
            p->answered |= bit_of(k);
            rwm_catchup_block(k, &p->op.key);
            return;
        }
        break;
    case STATUS_DISCONNECTED:
    case STATUS_STALE_EPOCH:
    case STATUS_NOT_SERVING:
    case STATUS_CANCELED:
        /* Sent again when it has joined again. */
    case STATUS_BAD_CRC:
        p->sent &= (uint16_t)~bit_of(k);
        if (k->member && status != STATUS_DISCONNECTED)
            rwm_epoch_unjoin(k);
        if (c->m->cluster)
            cluster_refresh(c->m->cluster);
        return;
    default:
        break;
    }
    p->sent &= (uint16_t)~bit_of(k);
    if (k->member)
        unfit(k, status);
}

static void forward_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct rwm_forward *f = container_of(call, struct rwm_forward, call);
    struct rwm_copy *k = f->copy;
    struct rwm_piece *p = f->piece;
    struct rwm *m = k->c->m;
    rwm_peer_call_ended(k->peer);
    MUST(k->forwards > 0);
    k->forwards--;
    k->peer->filling -= f->fills;
    if (!in_flight(p)) {
        MUST(k->loose > 0);
        k->loose--;
    }
    answer(f, result->rc == 0 ? result->status : STATUS_DISCONNECTED);
    pool_put(m->forward_pool, f);
    struct rwm_copies *c = k->c;
    rwm_piece_unref(p);
    rwm_forward_step(c);
}

/* ---- sending ---- */
static void forward_fill(struct rwm_copies *c, struct rwm_forward *f, const struct rwm_piece *p)
{
    const struct store_key *key = &p->op.key;
    f->body = (struct copy_forward){.head = rwm_copies_head(c),
                                    .key = {.layer = key->layer, .block = key->block, .hash = key->hash},
                                    .version = p->op.version,
                                    .base = p->base,
                                    .committed = rwm_forward_committed(c),
                                    .first_unit = p->op.first_unit,
                                    .unit_count = p->op.unit_count,
                                    .flags = p->kind == RWM_PIECE_CLEAR ? COPY_FORWARD_CLEAR : 0};
    if (p->req) {
        f->body.volume = p->req->r.volume;
        f->body.host = p->req->r.host;
        f->body.turn = p->req->r.turn;
        f->body.cuts = p->req->r.generation; /* it was held against the volume's size of then */
    } else {
        f->body.cuts = rwm_volume_cuts(c->m, key->layer);
    }
    f->call = (struct rpc_call){
        .method = COPY_METHOD_FORWARD, .body = &f->body, .body_len = sizeof(f->body), .done = forward_done};
    if (p->kind == RWM_PIECE_CLEAR)
        return;
    uint32_t crc = p->crcs[0];
    for (uint32_t i = 1; i < p->op.unit_count; i++)
        crc = crc32c_combine(crc, p->crcs[i], UNIT_BYTES);
    f->sge = (struct fabric_sge){
        .base = p->chunk, .len = p->op.unit_count * UNIT_BYTES, .mem = rwm_piece_mem(p->area, p)};
    f->call.source = &f->sge;
    f->call.source_count = 1;
    f->call.source_crc = crc;
}

/*
 * There is no memory to send to k now. Who counts is sent it later, in order. Others are not waited for: what
 * is committed before they were sent it would never come to them, so they are compared anew.
 */
static void starve(struct rwm_copy *k)
{
    k->c->starved = true;
    rwm_copies_due(k->c);
    if (!rwm_copy_counts(k))
        rwm_epoch_unjoin(k);
}

/* False: nothing can be sent to k now. */
static bool forward_send(struct rwm_copy *k, struct rwm_piece *p)
{
    struct rwm_copies *c = k->c;
    struct rwm *m = c->m;
    if (!k->joined || k->peer->state != PEER_UP)
        return false;
    if (p->sent & bit_of(k))
        return true;
    struct rwm_forward *f = pool_get(m->forward_pool);
    if (!f) {
        starve(k);
        return false;
    }
    p->sent |= bit_of(k);
    f->piece = p;
    f->copy = k;
    forward_fill(c, f, p);
    int rc = rwm_peer_call(k->peer, &f->call);
    if (rc) {
        p->sent &= (uint16_t)~bit_of(k);
        pool_put(m->forward_pool, f);
        if (rc != -ENOTCONN) /* else it has to join again anyhow */
            starve(k);
        return false;
    }
    k->told = f->body.committed;
    p->refs++;
    k->forwards++;
    f->fills = p->kind != RWM_PIECE_CLEAR && p->base.epoch == 0;
    k->peer->filling += f->fills;
    k->peer->spent_blocks += f->fills;
    return true;
}

uint32_t rwm_forward_room(struct rwm_copies *c)
{
    uint32_t status = STATUS_OK;
    rwm_each_copy(k, c)
    {
        if (!rwm_copy_counts(k) || !k->joined || k->peer->promise_until_ns == 0 ||
            k->peer->spent_blocks < k->peer->free_blocks)
            continue;
        if (k->peer->free_blocks == 0)
            return STATUS_NO_SPACE;
        k->peer->room_wanted = true; /* what was granted is used up: there may be more */
        rwm_tick_within(c->m, RWM_TICK_NS);
        status = STATUS_AGAIN;
    }
    return status;
}

void rwm_forward_start(struct rwm_copies *c, struct rwm_piece *p)
{
    c->given = p->op.version;
    rwm_changed_note(c, p);
    if (c->starved)
        rwm_forward_step(c); /* those before it first */
    else
        rwm_each_copy(k, c) forward_send(k, p);
}

void rwm_forward_again(struct rwm_copy *k)
{
    list_for_each(n, &k->c->flight)
    {
        struct rwm_piece *p = list_entry(n, struct rwm_piece, flight_link);
        if (!(p->answered & bit_of(k)) && !forward_send(k, p))
            return;
    }
}

void rwm_forward_step(struct rwm_copies *c)
{
    if (!c->starved)
        return;
    c->starved = false;
    rwm_each_copy(k, c) rwm_forward_again(k);
}

void rwm_forward_tell(struct rwm_copies *c)
{
    struct version committed = rwm_forward_committed(c);
    rwm_each_copy(k, c)
    {
        bool reconciled = k->owed && version_cmp(committed, k->owed_at) >= 0;
        if (!k->joined || k->peer->state != PEER_UP || (!reconciled && version_cmp(k->told, committed) >= 0))
            continue;
        struct copy_commit body = {.head = rwm_copies_head(c),
                                   .committed = committed,
                                   .flags = reconciled ? COPY_COMMIT_RECONCILED : 0};
        if (rpc_notify(k->peer->rpc, COPY_METHOD_COMMIT, &body, sizeof(body)) != 0)
            continue;
        k->told = committed;
        k->owed &= !reconciled;
    }
}
