/*
 * rwm_changed.c: what changed in which blocks while a member of their partition was not in sync, as this
 * primary saw it. An entry says: from version `from` to version `last` only the units in `mask` were written,
 * each version made here out of the one before. The same version means the same bytes; so a member that has
 * `from` needs those units alone. Whatever does not fit (another base, no room, another version at the
 * member) means: the whole block.
 */
#include "services/rwm/rwm_copies.h"

#include <stdlib.h>

#define BUCKETS 8192u

struct rwm_changed {
    struct list hash_link, link; /* m->changed_buckets; c->changed */
    struct store_key key;
    struct version from, last;
    uint32_t mask;
};

static struct list *bucket_of(const struct rwm *m, const struct store_key *key)
{
    uint64_t h = key->layer * 0x9e3779b97f4a7c15ull ^ key->block * 0xc2b2ae3d27d4eb4full;
    return &m->changed_buckets[(h >> 32) & (BUCKETS - 1)];
}

static struct rwm_changed *changed_find(const struct rwm *m, const struct store_key *key)
{
    if (!m->changed_buckets)
        return NULL;
    list_for_each(n, bucket_of(m, key))
    {
        struct rwm_changed *e = list_entry(n, struct rwm_changed, hash_link);
        if (e->key.layer == key->layer && e->key.block == key->block)
            return e;
    }
    return NULL;
}

/* With the first absence. False: no memory; then blocks are sent whole. */
static bool changed_begin(struct rwm *m)
{
    if (m->changed_buckets)
        return true;
    struct list *buckets = calloc(BUCKETS, sizeof(*buckets));
    if (!buckets)
        return false;
    if (pool_create(NULL, "rwm changed blocks", sizeof(struct rwm_changed), 16, RWM_CHANGED_MAX,
                    &m->changed_pool) != 0) {
        free(buckets);
        return false;
    }
    for (unsigned i = 0; i < BUCKETS; i++)
        list_init(&buckets[i]);
    m->changed_buckets = buckets;
    return true;
}

void rwm_changed_note(struct rwm_copies *c, const struct rwm_piece *p)
{
    struct rwm *m = c->m;
    if (c->in_sync == c->count || !changed_begin(m))
        return;
    uint32_t mask = (p->op.unit_count == UNITS_PER_BLOCK ? 0 : 1u << p->op.unit_count) - 1u;
    mask <<= p->op.first_unit;
    struct rwm_changed *e = changed_find(m, &p->op.key);
    if (!e) {
        e = pool_get(m->changed_pool);
        if (!e)
            return;
        *e = (struct rwm_changed){.key = p->op.key};
        list_push_back(bucket_of(m, &e->key), &e->hash_link);
        list_push_back(&c->changed, &e->link);
    }
    if (version_cmp(e->last, p->base) != 0 || e->mask == 0) {
        e->from = p->base;
        e->mask = 0;
    }
    e->mask |= mask;
    e->last = p->op.version;
}

uint32_t rwm_changed_units(const struct rwm *m, const struct store_key *key, struct version from,
                           struct version last)
{
    const struct rwm_changed *e = changed_find(m, key);
    bool fits = e && from.epoch != 0 && version_cmp(e->from, from) == 0 && version_cmp(e->last, last) == 0;
    return fits ? e->mask : 0;
}

void rwm_changed_clear(struct rwm_copies *c)
{
    while (!list_empty(&c->changed)) {
        struct rwm_changed *e = list_entry(list_pop_front(&c->changed), struct rwm_changed, link);
        list_remove(&e->hash_link);
        pool_put(c->m->changed_pool, e);
    }
}

void rwm_changed_destroy(struct rwm *m)
{
    if (m->changed_pool)
        pool_destroy(m->changed_pool, true);
    free(m->changed_buckets);
}
