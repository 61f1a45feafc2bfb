/* rwm_walk.c: collects which versions the members of a partition have. */
#include "services/rwm/rwm_copies.h"

#include <stdlib.h>
#include <string.h>

static void page_step(struct rwm_walk_page *p);

/* ---- the items ---- */
static uint32_t item_slot(const struct rwm_walk *w, const struct copy_key *key)
{
    uint64_t h = key->layer * 0x9e3779b97f4a7c15ull ^ key->block * 0xc2b2ae3d27d4eb4full;
    uint32_t at = (uint32_t)(h >> 32) & w->hash_mask;
    while (w->hash[at] != 0) {
        const struct copy_key *k = &w->item[w->hash[at] - 1].key;
        if (k->layer == key->layer && k->block == key->block)
            break;
        at = (at + 1) & w->hash_mask;
    }
    return at;
}

uint32_t rwm_walk_find(const struct rwm_walk *w, const struct copy_key *key)
{
    return w->hash[item_slot(w, key)] - 1; /* 0 is none */
}

static int walk_grow(struct rwm_walk *w)
{
    uint32_t capacity = w->capacity ? w->capacity * 2 : 256;
    struct rwm_item *item = realloc(w->item, capacity * sizeof(*item));
    if (!item)
        return -ENOMEM;
    w->item = item;
    uint32_t *hash = calloc((size_t)capacity * 2, sizeof(*hash));
    if (!hash)
        return -ENOMEM;
    free(w->hash);
    w->hash = hash;
    w->hash_mask = capacity * 2 - 1;
    w->capacity = capacity;
    for (uint32_t i = 0; i < w->items; i++)
        w->hash[item_slot(w, &w->item[i].key)] = i + 1;
    return 0;
}

static void walk_fail(struct rwm_walk *w)
{
    w->failed = true;
}

static void walk_note(struct rwm_walk *w, unsigned who, const struct copy_version *v)
{
    if (w->items == w->capacity && walk_grow(w) != 0) {
        walk_fail(w);
        return;
    }
    uint32_t at = item_slot(w, &v->key);
    if (w->hash[at] == 0) {
        w->item[w->items] = (struct rwm_item){.key = v->key};
        w->hash[at] = ++w->items;
    }
    struct rwm_item *item = &w->item[w->hash[at] - 1];
    item->known = (uint8_t)(item->known | 1u << who);
    if (v->flags & COPY_VERSION_SUSPECT)
        item->suspect = (uint8_t)(item->suspect | 1u << who);
    item->v[who] = v->version;
}

/* ---- life ---- */
void rwm_walk_free(struct rwm_walk *w)
{
    list_remove(&w->link);
    loop_task_cancel(w->m->env->loop, &w->begin);
    free(w->item);
    free(w->hash);
    free(w);
}

void rwm_walk_stop(struct rwm_walk *w)
{
    w->stopped = true;
    if (w->out == 0)
        rwm_walk_free(w);
}

bool rwm_walk_left(struct rwm_walk *w)
{
    MUST(w->out > 0);
    w->out--;
    if (!w->stopped)
        return false;
    if (w->out == 0)
        rwm_walk_free(w);
    return true;
}

/* ---- pages ---- */
static void walk_check(struct rwm_walk *w)
{
    if (w->out > 0)
        return;
    for (unsigned i = 0; i < w->count; i++)
        if (!w->page[i].ended && !w->failed)
            return;
    if (!w->failed && !w->full && !w->asking) {
        w->asking = true;
        w->out++; /* until all have begun */
        for (unsigned i = 0; i < w->count; i++) {
            w->page[i].ended = false;
            page_step(&w->page[i]);
        }
        if (!rwm_walk_left(w))
            walk_check(w);
        return;
    }
    w->ended(w);
}

static void page_take(struct rwm_walk_page *p, const struct copy_version *v, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        walk_note(p->w, p->index, &v[i]);
}

/* The keys that p's member has not listed. */
static uint32_t page_keys(struct rwm_walk_page *p, struct copy_key *keys)
{
    struct rwm_walk *w = p->w;
    uint32_t count = 0;
    for (; p->next < w->items && count < COPY_KEYS_MAX; p->next++)
        if (!(w->item[p->next].known >> p->index & 1u))
            keys[count++] = w->item[p->next].key;
    return count;
}

static void call_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct rwm_walk_page *p = container_of(call, struct rwm_walk_page, call);
    struct rwm_walk *w = p->w;
    struct copy_versions_reply reply = {0};
    w->who[p->index]->held--;
    rwm_peer_call_ended(w->who[p->index]->peer);
    if (rwm_walk_left(w))
        return;
    bool ok = result->rc == 0 && result->status == STATUS_OK && result->body_len >= sizeof(reply);
    if (ok)
        memcpy(&reply, result->body, sizeof(reply));
    uint64_t need = sizeof(reply) + (uint64_t)reply.count * sizeof(struct copy_version);
    if (!ok || reply.count > COPY_KEYS_MAX || result->body_len < need) {
        walk_fail(w);
        walk_check(w);
        return;
    }
    const uint8_t *at = (const uint8_t *)result->body + sizeof(reply);
    for (uint32_t i = 0; i < reply.count; i++) {
        struct copy_version v;
        memcpy(&v, at + i * sizeof(v), sizeof(v));
        page_take(p, &v, 1);
    }
    p->cursor = reply.cursor;
    p->ended = !w->asking && reply.cursor == 0;
    page_step(p);
    walk_check(w);
}

static void page_call(struct rwm_walk_page *p)
{
    struct rwm_walk *w = p->w;
    struct copy_versions rq = {.head = rwm_copies_head(w->c), .cursor = p->cursor};
    struct copy_key keys[COPY_KEYS_MAX];
    rq.list = w->asking ? COPY_LIST_KEYS : w->full ? COPY_LIST_ALL : COPY_LIST_RECENT;
    if (w->asking) {
        rq.cursor = 0;
        rq.count = page_keys(p, keys);
        if (rq.count == 0) {
            p->ended = true;
            return;
        }
    }
    memcpy(p->body, &rq, sizeof(rq));
    memcpy(p->body + sizeof(rq), keys, rq.count * sizeof(keys[0]));
    p->call = (struct rpc_call){.method = COPY_METHOD_VERSIONS,
                                .body = p->body,
                                .body_len = (uint32_t)(sizeof(rq) + rq.count * sizeof(keys[0])),
                                .done = call_done};
    if (rwm_peer_call(w->who[p->index]->peer, &p->call) != 0) {
        walk_fail(w);
        return;
    }
    w->out++;
    w->who[p->index]->held++;
}

/* ---- this module's own ---- */
static void own_done(struct rwm_lookup *l, int rc)
{
    struct rwm_walk_page *p = l->owner;
    struct rwm_walk *w = p->w;
    if (!w->stopped && rc == 0)
        page_take(p, l->item, l->count);
    rwm_lookup_free(l);
    if (rwm_walk_left(w))
        return;
    if (rc)
        walk_fail(w);
    p->ended = !w->asking && p->cursor == 0;
    page_step(p);
    walk_check(w);
}

static uint32_t own_keys(struct rwm_walk_page *p, struct rwm_lookup *l)
{
    struct rwm_walk *w = p->w;
    struct copy_key keys[COPY_KEYS_MAX];
    uint32_t count = 0;
    if (w->asking) {
        count = page_keys(p, keys);
    } else if (w->full) {
        struct store_key list[COPY_KEYS_MAX];
        count = store_list(w->m->store, w->c->partition, &p->cursor, list, COPY_KEYS_MAX);
        for (uint32_t i = 0; i < count; i++)
            keys[i] = (struct copy_key){list[i].layer, list[i].block, list[i].hash};
    } else {
        uint64_t at = 0;
        list_for_each(n, &w->c->recent)
        {
            const struct rwm_recent *r = list_entry(n, struct rwm_recent, link);
            if (at >= p->cursor && count < COPY_KEYS_MAX)
                keys[count++] = (struct copy_key){r->key.layer, r->key.block, r->key.hash};
            at++;
        }
        p->cursor = p->cursor + count < at ? p->cursor + count : 0;
    }
    for (uint32_t i = 0; i < count; i++)
        l->item[i].key = keys[i];
    return count;
}

static void page_own(struct rwm_walk_page *p)
{
    struct rwm_walk *w = p->w;
    struct rwm_lookup *l = rwm_lookup_new(w->m, w->c, false);
    if (!l) {
        walk_fail(w);
        return;
    }
    l->count = own_keys(p, l);
    if (l->count == 0) {
        p->ended = true;
        rwm_lookup_free(l);
        return;
    }
    l->owner = p;
    l->done = own_done;
    w->out++;
    rwm_lookup_start(l);
}

static void page_step(struct rwm_walk_page *p)
{
    if (p->ended || p->w->failed)
        return;
    if (p->index == 0)
        page_own(p);
    else
        page_call(p);
}

static void walk_begun(struct loop_task *task)
{
    struct rwm_walk *w = container_of(task, struct rwm_walk, begin);
    if (!rwm_walk_left(w))
        walk_check(w);
}

struct rwm_walk *rwm_walk_start(struct rwm_copies *c, struct rwm_copy *const *who, unsigned count, bool full,
                                void (*ended)(struct rwm_walk *w), void *owner)
{
    struct rwm_walk *w = calloc(1, sizeof(*w));
    if (!w || walk_grow(w) != 0) {
        free(w ? w->item : NULL);
        free(w);
        return NULL;
    }
    w->m = c->m;
    w->c = c;
    w->full = full;
    w->ended = ended;
    w->owner = owner;
    w->count = count + 1;
    list_push_back(&c->m->walks, &w->link);
    loop_task_init(&w->begin, walk_begun);
    w->out = 1; /* nothing ends inside this call */
    for (unsigned i = 0; i < w->count; i++) {
        w->who[i] = i ? who[i - 1] : NULL;
        w->page[i].w = w;
        w->page[i].index = i;
        page_step(&w->page[i]);
    }
    loop_defer(c->m->env->loop, &w->begin);
    return w;
}
