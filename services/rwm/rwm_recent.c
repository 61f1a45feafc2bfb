/* rwm_recent.c: versions that are not known to be committed: what a new primary has to look at. Few: what is
 * under way, and what was committed since the primary last said so. */
#include "services/rwm/rwm_copies.h"

int rwm_recent_create(struct rwm *m)
{
    int rc = 0;
    if (!m->recent_pool)
        rc = pool_create(NULL, "rwm recent versions", sizeof(struct rwm_recent), 16,
                         m->config.recent_max ? m->config.recent_max : RWM_RECENT_MAX, &m->recent_pool);
    if (rc == 0 && !m->send_pool)
        rc = pool_create(NULL, "rwm blocks to members", sizeof(struct rwm_send), 16,
                         pool_total(m->area->piece_pool) * RWM_SENDS_EACH, &m->send_pool);
    if (rc == 0)
        rc = rwm_lookups_create(m);
    if (rc == 0)
        rc = rwm_reconcile_create(m);
    if (rc == 0)
        rc = rwm_catchup_create(m);
    return rc;
}

static void recent_free(struct rwm_copies *c, struct rwm_recent *r)
{
    list_remove(&r->link);
    pool_put(c->m->recent_pool, r);
    c->recent_count--;
}

void rwm_recent_add(struct rwm_copies *c, const struct store_key *key, struct version version, bool hole)
{
    if (version_cmp(version, c->committed) <= 0)
        return;
    struct rwm_recent *r = pool_get(c->m->recent_pool);
    if (!r) {
        /* Until it is committed, a next primary has to compare everything. */
        if (version_cmp(version, c->overflow) > 0)
            c->overflow = version;
        return;
    }
    *r = (struct rwm_recent){.key = *key, .version = version, .hole = hole};
    list_push_back(&c->recent, &r->link);
    c->recent_count++;
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
