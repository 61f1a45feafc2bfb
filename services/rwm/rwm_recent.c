/* rwm_recent.c: versions that are not known to be committed: what a new primary has to look at. Few: what is
 * under way, and what was committed since the primary last said so. */
#include "services/rwm/rwm_copies.h"

#include <stdlib.h>

static void recent_free(struct rwm_copies *c, struct rwm_recent *r)
{
    list_remove(&r->link);
    free(r);
    c->recent_count--;
    c->m->recent_total--;
}

void rwm_recent_add(struct rwm_copies *c, const struct store_key *key, struct version version, bool hole)
{
    if (version_cmp(version, c->committed) <= 0)
        return;
    struct rwm_recent *r = c->m->recent_total < RWM_RECENT_MAX ? malloc(sizeof(*r)) : NULL;
    if (!r) {
        /* Until it is committed, a next primary has to compare everything. */
        if (version_cmp(version, c->overflow) > 0)
            c->overflow = version;
        return;
    }
    *r = (struct rwm_recent){.key = *key, .version = version, .hole = hole};
    list_push_back(&c->recent, &r->link);
    c->recent_count++;
    c->m->recent_total++;
}

void rwm_recent_commit(struct rwm_copies *c, struct version committed)
{
    if (version_cmp(committed, c->committed) <= 0)
        return;
    c->committed = committed;
    while (!list_empty(&c->recent)) {
        struct rwm_recent *r = list_entry(c->recent.next, struct rwm_recent, link);
        if (version_cmp(r->version, committed) > 0)
            return;
        recent_free(c, r);
    }
}

const struct rwm_recent *rwm_recent_find(const struct rwm_copies *c, const struct store_key *key)
{
    const struct rwm_recent *best = NULL;
    list_for_each(n, &c->recent)
    {
        const struct rwm_recent *r = list_entry(n, struct rwm_recent, link);
        if (r->key.layer == key->layer && r->key.block == key->block &&
            (!best || version_cmp(r->version, best->version) >= 0))
            best = r;
    }
    return best;
}

void rwm_recent_clear(struct rwm_copies *c)
{
    while (!list_empty(&c->recent))
        recent_free(c, list_entry(c->recent.next, struct rwm_recent, link));
}
