/*
 * rwm_catchup.c: a member that is not in sync becomes what the primary is. All versions of both are compared;
 * each block that differs goes through the block's queue at the primary, so that what is written meanwhile
 * follows it in order. When all that differed has arrived, every acknowledgement waits for the member, too,
 * and the controller is told.
 */
#include "services/rwm/rwm_copies.h"

#define RETRY_NS (1u * NS_PER_S)

struct todo {
    struct list link;
    struct copy_key key;
    struct version has; /* that the member was found to have; 0: not known, or not asked */
};

/* What may be compared at once, and writes that a member has not the base of. */
int rwm_catchup_create(struct rwm *m)
{
    unsigned recoveries = m->config.recoveries ? m->config.recoveries : RWM_CATCHUPS;
    size_t writes = pool_total(m->area->piece_pool);
    return m->todo_pool ? 0
                        : pool_create(NULL, "rwm blocks to be brought up", sizeof(struct todo), 16,
                                      (size_t)recoveries * RWM_CATCHUP_WAITS + writes, &m->todo_pool);
}

/* ---- how fast ---- */
/* As much as the setting allows, a quarter of it beside requests of clients. */
static void recovery_fill(struct rwm *m)
{
    struct rwm_recovery *r = &m->recovery;
    uint64_t now = loop_now_ns(m->env->loop);
    uint64_t rate = m->config.recovery_rate ? m->config.recovery_rate : RWM_RECOVERY_RATE;
    if (m->active > RWM_RECOVERY_BUSY)
        rate /= 4;
    uint64_t us = min_u64(now - r->filled_ns, NS_PER_S) / NS_PER_US;
    int64_t most = (int64_t)max_u64(rate / 10, BLOCK_BYTES);
    r->filled_ns = now;
    r->tokens += (int64_t)(rate * us / 1000000u);
    r->tokens = r->tokens > most ? most : r->tokens;
    if (now - r->window_ns < NS_PER_S)
        return;
    uint64_t ms = min_u64(now - r->window_ns, 60 * NS_PER_S) / NS_PER_MS;
    r->rate = (m->stats.recovered_bytes - r->window_bytes) * 1000 / ms;
    r->window_ns = now;
    r->window_bytes = m->stats.recovered_bytes;
}

uint64_t rwm_catchup_to_go(const struct rwm_copy *k)
{
    return k->copying + k->to_go;
}

uint32_t rwm_catchup_list(const struct rwm *m, struct mdc_recovery *out, uint32_t max)
{
    uint32_t n = 0;
    list_for_each(l, &m->copies)
    {
        const struct rwm_copies *c = list_entry(l, struct rwm_copies, link);
        for (unsigned i = 0; i < RWM_COPY_SLOTS && n < max; i++) {
            const struct rwm_copy *k = &c->copy[i];
            const uint64_t left = rwm_catchup_to_go(k);
            if (!k->member || !k->walk || !k->walked)
                continue;
            out[n++] = (struct mdc_recovery){.partition = c->partition,
                                             .member = k->module,
                                             .left = left,
                                             .done = k->differed > left ? k->differed - left : 0};
        }
    }
    return n;
}

/* ---- blocks ---- */
static void block_ended(struct rwm_copy *k, bool ok)
{
    MUST(k->copying > 0);
    k->copying--;
    if (!ok && k->member) {
        k->walk_after_ns = loop_now_ns(k->c->m->env->loop) + RETRY_NS;
        rwm_epoch_unjoin(k);
    }
    rwm_tick_soon(k->c->m);
}

static void block_sent(struct rwm_send *s, uint32_t status)
{
    struct rwm_copy *k = s->owner;
    struct rwm *m = s->m;
    const struct copy_key *key = &s->units.key;
    k->reading--;
    if (status == STATUS_STALE_BASE && s->units.unit_count > 0 && k->member && !k->in_sync) {
        /* It has got something else meanwhile. */
        const struct store_key whole = {key->layer, key->block, key->hash};
        rwm_catchup_block(k, &whole);
        status = STATUS_OK;
    }
    if (status != STATUS_OK && status != STATUS_DISCONNECTED && log_allow(m->env, &m->log_limit))
        log_warn(m->env, "a copy could not be brought up, trying again",
                 "module=%u peer=%u partition=%u status=%s", m->id, k->module, k->c->partition,
                 status_name(status));
    block_ended(k, status == STATUS_OK);
}

/* Where it is known what changed since the version that the member has: from the first such unit to the last.
 * 0: sent so. */
static int send_changed(struct rwm_copy *k, struct rwm_piece *p, unsigned *units)
{
    struct rwm_copies *c = k->c;
    const struct store_key *key = &p->op.key;
    uint32_t mask = rwm_changed_units(c->m, key, p->base, p->op.found);
    if (mask == 0)
        return -ENOENT;
    uint32_t first = (uint32_t)__builtin_ctz(mask), count = 32u - (uint32_t)__builtin_clz(mask) - first;
    uint32_t span = (count == UNITS_PER_BLOCK ? UINT32_MAX : (1u << count) - 1u) << first;
    if ((p->op.written & ~p->rotten & span) != span)
        return -ENOENT; /* holes are no data */
    struct copy_forward body = {.head = rwm_copies_head(c),
                                .key = {key->layer, key->block, key->hash},
                                .version = p->op.found,
                                .base = p->base,
                                .committed = rwm_forward_committed(c),
                                .first_unit = first,
                                .unit_count = count};
    *units = count;
    return rwm_send_units(k->peer, &body, p, p->op.found_crcs, block_sent, k);
}

static void block_read(struct rwm_piece *p, uint32_t status)
{
    struct rwm_copy *k = p->owner;
    struct rwm_copies *c = k->c;
    const struct store_key *key = &p->op.key;
    unsigned units = (unsigned)__builtin_popcount(p->op.written & ~p->rotten);
    int rc = -EIO;
    if (status == STATUS_OK && k->member && k->joined) {
        struct copy_replace body = {.head = rwm_copies_head(c),
                                    .key = {key->layer, key->block, key->hash},
                                    .version = p->op.found,
                                    .committed = rwm_forward_committed(c),
                                    .written = p->op.written,
                                    .lost = p->rotten};
        rc = send_changed(k, p, &units);
        if (rc == -ENOENT)
            rc = rwm_send_block(k->peer, &body, p, p->op.found_crcs, block_sent, k);
    }
    if (rc) {
        k->reading--;
        block_ended(k, false);
    } else {
        c->m->stats.recovered_blocks++;
        c->m->stats.recovered_bytes += (uint64_t)units * UNIT_BYTES;
        c->m->recovery.tokens -= (int64_t)units * (int64_t)UNIT_BYTES;
    }
    rwm_piece_put(p->area, p);
}

static void todo_pump(struct rwm_copy *k)
{
    struct rwm *m = k->c->m;
    while (k->todo.next && !list_empty(&k->todo) && k->reading < RWM_CATCHUP_JOBS && m->recovery.tokens > 0) {
        struct rwm_piece *p = rwm_piece_get(m, UNITS_PER_BLOCK);
        if (!p)
            return; /* the tick goes on */
        struct todo *t = list_entry(list_pop_front(&k->todo), struct todo, link);
        p->kind = RWM_PIECE_COPY;
        p->partition = k->c->partition;
        p->op.key = (struct store_key){t->key.layer, t->key.block, t->key.hash};
        p->owner = k;
        p->done = block_read;
        p->heals = true;
        p->base = t->has;
        pool_put(m->todo_pool, t);
        k->reading++;
        rwm_block_add(m, p);
    }
}

static void block_queue(struct rwm_copy *k, const struct store_key *key, struct version has)
{
    struct todo *t = pool_get(k->c->m->todo_pool);
    if (!t) {
        rwm_epoch_unjoin(k);
        return;
    }
    if (!k->todo.next)
        list_init(&k->todo);
    *t = (struct todo){.key = {key->layer, key->block, key->hash}, .has = has};
    list_push_back(&k->todo, &t->link);
    k->copying++;
    todo_pump(k);
}

/* ---- the walk ---- */
void rwm_catchup_stop(struct rwm_copy *k)
{
    while (k->todo.next && !list_empty(&k->todo)) {
        pool_put(k->c->m->todo_pool, list_entry(list_pop_front(&k->todo), struct todo, link));
        k->copying--;
    }
    k->walked = false;
    k->turn_serial = 0;
    k->to_go = 0;
    if (!k->walk)
        return;
    struct rwm_walk *w = k->walk;
    k->walk = NULL;
    k->c->m->catchups--;
    rwm_walk_stop(w);
}

/* Has the member something else than the primary? */
static bool item_differs(const struct rwm_copy *k, const struct rwm_item *item)
{
    const struct store_key key = {item->key.layer, item->key.block, item->key.hash};
    bool same = version_cmp(item->v[0], item->v[1]) == 0 && item->suspect == 0;
    return !same && !rwm_remove_matches(k->c->m, &key);
}

/* The member has nothing to keep of it. */
static bool item_gone(const struct rwm_item *item)
{
    return item->v[0].epoch == 0 && !(item->suspect & 1u);
}

/*
 * Is the block going to be sent anyhow, later than all that was written to it so far? One that is waiting is.
 * So is one that a comparison still comes to: a member that refused a write for its base has another version
 * than this module, now and until it is sent the block. Else clients, whose writes wait for no member that is
 * behind, would fill the list with the same blocks again and again.
 */
static bool comes_later(const struct rwm_copy *k, const struct copy_key *key)
{
    const struct rwm_walk *w = k->walk;
    for (struct list *n = k->todo.next; n != NULL && n != &k->todo; n = n->next) {
        const struct todo *t = list_entry(n, struct todo, link);
        if (t->key.layer == key->layer && t->key.block == key->block)
            return true;
    }
    if (!w || !k->walked)
        return true;
    uint32_t i = rwm_walk_find(w, key);
    if (i == UINT32_MAX || !item_differs(k, &w->item[i]))
        return false;
    return w->next <= (item_gone(&w->item[i]) ? i : w->items + i);
}

void rwm_catchup_block(struct rwm_copy *k, const struct store_key *key)
{
    const struct copy_key wanted = {key->layer, key->block, key->hash};
    if (!comes_later(k, &wanted))
        block_queue(k, key, (struct version){0, 0});
}

static void walk_ended(struct rwm_walk *w)
{
    struct rwm_copy *k = w->owner;
    if (w->failed) {
        k->walk_after_ns = loop_now_ns(w->m->env->loop) + RETRY_NS;
        rwm_catchup_stop(k); /* frees w */
        return;
    }
    k->walked = true;
    for (uint32_t i = 0; i < w->items; i++)
        k->to_go += item_differs(k, &w->item[i]);
    k->differed = k->to_go;
    if (k->to_go > 0 && k->to_go != k->logged) /* one that is tried again and again is no news */
        log_info(w->m->env, "a copy is being brought up",
                 "module=%u peer=%u partition=%u blocks=%u differ=%lu", w->m->id, k->module, k->c->partition,
                 w->items, (unsigned long)k->to_go);
    k->logged = k->to_go;
    rwm_tick_soon(w->m);
}

/* What differs, as much as may be under way. */
static void walk_step(struct rwm_copy *k)
{
    struct rwm_walk *w = k->walk;
    /* Without memory for one more the walk is stopped, and gone. */
    while (k->walk == w && w->next < 2 * w->items && k->copying < RWM_CATCHUP_WAITS) {
        /* First what the member has to give up: it may be full. */
        bool removals = w->next < w->items;
        const struct rwm_item *item = &w->item[w->next++ % w->items];
        struct store_key key = {item->key.layer, item->key.block, item->key.hash};
        if (item_gone(item) != removals || !item_differs(k, item))
            continue;
        k->to_go -= k->to_go > 0;
        block_queue(k, &key, item->suspect ? (struct version){0, 0} : item->v[1]);
    }
    if (k->walk != w || w->next < 2 * w->items || k->copying > 0 || !rwm_turns_told(k))
        return;
    log_write(k->c->m->env, k->differed > 0 ? LOG_INFO_ : LOG_DEBUG_, "a copy has caught up",
              "module=%u peer=%u partition=%u blocks=%u", k->c->m->id, k->module, k->c->partition, w->items);
    rwm_catchup_stop(k);
    k->lockstep = true;
    rwm_tick_soon(k->c->m);
}

void rwm_catchup_step(struct rwm_copies *c)
{
    struct rwm *m = c->m;
    uint64_t now = loop_now_ns(m->env->loop);
    unsigned most = m->config.recoveries ? m->config.recoveries : RWM_CATCHUPS;
    recovery_fill(m);
    rwm_each_copy(k, c)
    {
        if (k->in_sync || !k->joined || k->lockstep || k->claimed)
            continue;
        todo_pump(k);
        if (k->walk && k->walked) {
            walk_step(k);
            continue;
        }
        /* What is left of an earlier try must be gone: it counts in copying. */
        if (k->walk || k->copying > 0 || now < k->walk_after_ns || m->catchups >= most)
            continue;
        k->walk = rwm_walk_start(c, &k, 1, true, walk_ended, k);
        m->catchups += k->walk != NULL;
    }
}
