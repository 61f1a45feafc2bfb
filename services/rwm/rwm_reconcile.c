/*
 * rwm_reconcile.c: before a new primary serves, the in-sync members are made equal: of each block that may
 * differ the highest version wins, since it may have been acknowledged, and nothing higher can have been.
 */
#include "services/rwm/rwm_copies.h"

#include "common/crc.h"

#include <string.h>

/* One block. */
struct fix {
    struct rwm_walk *w;
    uint32_t index; /* of the item */
    unsigned best;  /* member that has it */
    struct rwm_piece *piece;
    unsigned sends;
    uint64_t cuts; /* when it began: rwm_volume_cuts */
    uint32_t lost; /* units that the one that has it cannot read any more */
    struct rpc_call call;
    struct copy_fetch fetch;
    struct fabric_sge sink;
};

/* Each has a piece. */
int rwm_reconcile_create(struct rwm *m)
{
    return m->fix_pool ? 0
                       : pool_create(NULL, "rwm blocks to be made equal", sizeof(struct fix), 16,
                                     pool_total(m->area->piece_pool), &m->fix_pool);
}

static void reconcile_again(struct rwm_copies *c)
{
    rwm_reconcile_stop(c);
    c->state = COPIES_JOINING;
    rwm_tick_soon(c->m);
}

static void fix_end(struct fix *f, bool ok)
{
    struct rwm_walk *w = f->w;
    struct rwm_copies *c = w->c;
    if (f->piece)
        rwm_piece_put(f->piece->area, f->piece);
    pool_put(w->m->fix_pool, f);
    bool stopped = rwm_walk_left(w);
    if (stopped)
        return;
    if (ok)
        rwm_reconcile_step(c);
    else
        reconcile_again(c);
}

/* What was read is told to be of before no shrink: none may have come in between. */
static bool fix_outdated(const struct fix *f)
{
    return rwm_volume_cuts(f->w->m, f->w->item[f->index].key.layer) != f->cuts;
}

/* ---- to the others ---- */
static void fix_sent(struct rwm_send *s, uint32_t status)
{
    struct fix *f = s->owner;
    struct rwm_walk *w = f->w;
    f->sends--;
    if (status != STATUS_OK) {
        for (unsigned i = 1; i < w->count && !w->stopped; i++)
            if (w->who[i]->peer == s->peer)
                rwm_forward_refused(w->who[i], status);
        w->failed = true;
    }
    if (f->sends == 0)
        fix_end(f, !f->w->failed);
}

static void fix_send(struct fix *f, const uint32_t *crcs)
{
    struct rwm_walk *w = f->w;
    const struct rwm_item *item = &w->item[f->index];
    struct copy_replace body = {.head = rwm_copies_head(w->c),
                                .key = item->key,
                                .version = item->v[f->best],
                                .written = f->piece->op.written,
                                .lost = f->lost};
    f->sends = 1;
    for (unsigned i = 1; i < w->count && !w->stopped && !w->failed; i++) {
        bool differs = version_cmp(item->v[i], item->v[f->best]) != 0 || item->suspect >> i & 1u;
        if (!differs)
            continue;
        if (rwm_send_block(w->who[i]->peer, &body, f->piece, crcs, fix_sent, f) == 0)
            f->sends++;
        else
            w->failed = true;
    }
    if (--f->sends == 0)
        fix_end(f, !w->failed);
}

/* ---- the own copy ---- */
static void fix_stored(struct rwm_piece *p, uint32_t status)
{
    struct fix *f = p->owner;
    if (status == STATUS_NO_SPACE && !f->w->stopped) {
        f->w->c->unfit = true; /* who has it is in sync, and can be the primary */
        rwm_copies_due(f->w->c);
    }
    if (status != STATUS_OK || f->w->stopped || fix_outdated(f)) {
        fix_end(f, false);
        return;
    }
    rwm_recent_add(f->w->c, &p->op.key, p->op.version, p->op.written == 0);
    fix_send(f, p->crcs);
}

bool rwm_reconcile_wants(const struct rwm_piece *p)
{
    const struct fix *f = p->owner;
    return !f->w->stopped;
}

static void fix_fetched(struct rpc_call *call, const struct rpc_result *result)
{
    struct fix *f = container_of(call, struct fix, call);
    struct rwm_walk *w = f->w;
    struct rwm_piece *p = f->piece;
    const struct rwm_item *item = &w->item[f->index];
    struct copy_fetch_reply reply = {0};
    w->who[f->best]->held--;
    rwm_peer_call_ended(w->who[f->best]->peer);
    bool ok =
        !w->stopped && result->rc == 0 && result->status == STATUS_OK && result->body_len >= sizeof(reply);
    if (ok)
        memcpy(&reply, result->body, sizeof(reply));
    bool hole = reply.written == 0;
    if (ok && !hole)
        ok = result->payload_len == BLOCK_BYTES && version_cmp(reply.version, item->v[f->best]) == 0 &&
             crc32c(p->chunk, BLOCK_BYTES) == result->payload_crc;
    if (!ok) {
        fix_end(f, false);
        return;
    }
    p->kind = RWM_PIECE_REPLACE;
    p->bytes = BLOCK_BYTES;
    p->op.version = item->v[f->best];
    p->op.written = reply.written;
    p->op.lost = f->lost = reply.written & reply.rotten;
    p->cuts = f->cuts;
    p->done = fix_stored;
    rwm_block_add(w->m, p);
}

static void fix_read(struct rwm_piece *p, uint32_t status)
{
    struct fix *f = p->owner;
    const struct rwm_item *item = &f->w->item[f->index];
    bool same = version_cmp(p->op.found, item->v[0]) == 0 || (p->op.found.epoch == 0 && p->op.written == 0);
    if (status == STATUS_DAMAGED && !f->w->stopped)
        f->w->item[f->index].suspect |= 1u; /* what of it is readable elsewhere decides, in the next round */
    if (status != STATUS_OK || !same || f->w->stopped) {
        fix_end(f, false);
        return;
    }
    f->lost = p->rotten;
    fix_send(f, p->op.found_crcs);
}

static bool fix_begin(struct rwm_walk *w, uint32_t index, unsigned best)
{
    struct rwm_item *item = &w->item[index];
    struct fix *f = pool_get(w->m->fix_pool);
    struct rwm_piece *p = f ? rwm_piece_get(w->m, UNITS_PER_BLOCK) : NULL;
    if (!p) {
        if (f)
            pool_put(w->m->fix_pool, f);
        return false;
    }
    *f = (struct fix){.w = w, .index = index, .best = best, .piece = p};
    f->cuts = rwm_volume_cuts(w->m, item->key.layer);
    w->out++;
    p->owner = f;
    p->partition = w->c->partition;
    p->op.key = (struct store_key){item->key.layer, item->key.block, item->key.hash};
    if (best == 0 && item->suspect & 1u) { /* what it was nobody knows, and it is to be nothing */
        p->kind = RWM_PIECE_REPLACE;
        p->bytes = BLOCK_BYTES;
        p->cuts = f->cuts;
        p->done = fix_stored;
        rwm_block_add(w->m, p);
        return true;
    }
    if (best == 0) {
        p->kind = RWM_PIECE_COPY;
        p->done = fix_read;
        rwm_block_add(w->m, p);
        return true;
    }
    f->fetch = (struct copy_fetch){.head = rwm_copies_head(w->c), .key = item->key};
    f->sink = (struct fabric_sge){.base = p->chunk, .len = BLOCK_BYTES, .mem = rwm_piece_mem(p->area, p)};
    f->call = (struct rpc_call){.method = COPY_METHOD_FETCH,
                                .body = &f->fetch,
                                .body_len = sizeof(f->fetch),
                                .sink = &f->sink,
                                .sink_count = 1,
                                .done = fix_fetched};
    if (rwm_peer_call(w->who[best]->peer, &f->call) != 0)
        fix_end(f, false);
    else
        w->who[best]->held++;
    return true;
}

/* ---- all of them ---- */
/*
 * True: some member has another version than the best one's, or this module does not know what it has. Beyond
 * the end of the volume it is this module's own: either the others lag behind a shrink, and still have what
 * it has cut; or it lags behind a grow, and what it, in sync, does not have of the writes there was never
 * acknowledged.
 */
static bool item_differs(const struct rwm_walk *w, const struct rwm_item *item, unsigned *best)
{
    const struct store_key key = {item->key.layer, item->key.block, item->key.hash};
    bool own = !(item->suspect & 1u) && rwm_volume_beyond(w->m, &key);
    bool found = false, differs = false;
    if (item->suspect & 1u && rwm_volume_nobodys(w->m, w->c->partition, &key)) {
        *best = 0; /* nothing: fix_begin */
        return true;
    }
    for (unsigned i = 0; i < (own ? 1 : w->count); i++) {
        if (item->suspect >> i & 1u)
            continue;
        if (!found || version_cmp(item->v[i], item->v[*best]) > 0)
            *best = i;
        found = true;
    }
    for (unsigned i = 0; found && i < w->count; i++)
        differs |= version_cmp(item->v[i], item->v[*best]) != 0 || item->suspect >> i & 1u;
    return differs;
}

void rwm_reconcile_step(struct rwm_copies *c)
{
    struct rwm_walk *w = c->reconcile;
    if (!w || !c->compared || w->failed)
        return;
    w->out++; /* it stays while this loop runs */
    while (w->next < w->items && w->out <= RWM_RECONCILE_JOBS && !w->stopped && !w->failed) {
        unsigned best = 0;
        const struct copy_key *key = &w->item[w->next].key;
        bool dead = rwm_remove_dead(c->m, &(struct store_key){key->layer, key->block, key->hash});
        if (!dead && item_differs(w, &w->item[w->next], &best) && !fix_begin(w, w->next, best))
            break; /* no memory now: the tick goes on */
        w->next++;
    }
    if (rwm_walk_left(w))
        return;
    if (w->failed) {
        if (w->out == 0)
            reconcile_again(c);
        return;
    }
    if (w->next < w->items || w->out > 0)
        return;
    uint32_t items = w->items;
    bool full = w->full;
    rwm_reconcile_stop(c);
    log_debug(c->m->env, "the copies of a partition are equal", "module=%u partition=%u looked_at=%u full=%d",
              c->m->id, c->partition, items, full);
    rwm_epoch_serving(c);
}

static void reconcile_compared(struct rwm_walk *w)
{
    struct rwm_copies *c = w->c;
    if (w->failed) {
        reconcile_again(c);
        return;
    }
    c->compared = true;
    rwm_reconcile_step(c);
}

int rwm_reconcile_start(struct rwm_copies *c)
{
    struct rwm_copy *who[RWM_WALK_MEMBERS];
    unsigned count = 0;
    bool whole = rwm_copies_whole(c);
    rwm_each_copy(k, c)
    {
        if (!k->in_sync)
            continue;
        who[count++] = k;
        whole &= k->whole;
    }
    c->compared = false;
    c->reconcile = rwm_walk_start(c, who, count, !whole, reconcile_compared, NULL);
    if (!c->reconcile)
        return -ENOMEM;
    c->m->reconciles++;
    c->m->stats.reconciles++;
    return 0;
}

void rwm_reconcile_stop(struct rwm_copies *c)
{
    struct rwm_walk *w = c->reconcile;
    if (!w)
        return;
    c->reconcile = NULL;
    c->m->reconciles--;
    rwm_walk_stop(w);
}
