/* rwm_lookup.c: the versions of some blocks, a few at a time: their metadata pages may have to be read. */
#include "services/rwm/rwm_copies.h"

#include <string.h>

static void lookup_step(struct rwm_lookup *l);

static void lookup_run(struct loop_task *task)
{
    struct rwm_lookup *l = container_of(task, struct rwm_lookup, task);
    lookup_step(l);
}

int rwm_lookups_create(struct rwm *m)
{
    unsigned recoveries = m->config.recoveries ? m->config.recoveries : RWM_CATCHUPS;
    m->lookups_own = RWM_RECONCILES_MAX + recoveries + 1; /* and a scrub */
    if (m->lookup_pool)
        return 0;
    return pool_create(NULL, "rwm lookups", sizeof(struct rwm_lookup), 16,
                       (size_t)m->lookups_own + RWM_LOOKUPS_SERVED, &m->lookup_pool);
}

struct rwm_lookup *rwm_lookup_new(struct rwm *m, struct rwm_copies *c, bool serves)
{
    struct rwm_lookup *l =
        serves && pool_free_count(m->lookup_pool) <= m->lookups_own ? NULL : pool_get(m->lookup_pool);
    if (!l)
        return NULL;
    memset(l, 0, sizeof(*l));
    l->m = m;
    l->c = c;
    list_push_back(&m->lookups, &l->link);
    loop_task_init(&l->task, lookup_run);
    for (unsigned i = 0; i < ARRAY_LEN(l->op); i++)
        l->op[i].lookup = l;
    return l;
}

void rwm_lookup_free(struct rwm_lookup *l)
{
    if (l->waiting)
        store_wait_cancel(l->m->store, &l->waiter);
    loop_task_cancel(l->m->env->loop, &l->task);
    list_remove(&l->link);
    pool_put(l->m->lookup_pool, l);
}

void rwm_lookup_cancel(struct rwm_lookup *l)
{
    l->cancelled = true;
    if (l->out == 0)
        rwm_lookup_free(l);
}

/* The recent list knows what the store has forgotten. */
static void lookup_recent(const struct rwm_lookup *l, struct copy_version *v)
{
    const struct store_key key = {.layer = v->key.layer, .block = v->key.block, .hash = v->key.hash};
    const struct rwm_recent *r = l->c ? rwm_recent_find(l->c, &key) : NULL;
    if (r && r->hole && version_cmp(r->version, v->version) > 0)
        v->version = r->version;
}

static void lookup_done(struct store_op *op, int rc)
{
    struct rwm_lookup_op *o = container_of(op, struct rwm_lookup_op, op);
    struct rwm_lookup *l = o->lookup;
    struct copy_version *v = &l->item[o->index];
    o->busy = false;
    l->out--;
    if (l->cancelled) {
        if (l->out == 0)
            rwm_lookup_free(l);
        return;
    }
    if (rc == 0) {
        v->version = op->found;
        v->written = op->written;
        lookup_recent(l, v);
    } else if (rc == -EBADMSG) {
        v->flags = COPY_VERSION_SUSPECT;
    } else {
        l->rc = rc;
        rwm_store_error(l->m, rc, "look up a version");
    }
    lookup_step(l);
}

static void lookup_room(struct store_waiter *w)
{
    struct rwm_lookup *l = container_of(w, struct rwm_lookup, waiter);
    l->waiting = false;
    lookup_step(l);
}

static int lookup_submit(struct rwm_lookup *l, struct rwm_lookup_op *o)
{
    const struct copy_key *k = &l->item[l->next].key;
    memset(&o->op, 0, sizeof(o->op));
    list_init(&o->op.link);
    o->op.key = (struct store_key){.layer = k->layer, .block = k->block, .hash = k->hash};
    o->op.done = lookup_done;
    int rc = store_stat(l->m->store, &o->op);
    if (rc)
        return rc;
    o->index = l->next++;
    o->busy = true;
    l->out++;
    return 0;
}

static void lookup_step(struct rwm_lookup *l)
{
    for (unsigned i = 0; i < ARRAY_LEN(l->op) && l->next < l->count && l->rc == 0 && !l->waiting; i++) {
        if (l->op[i].busy)
            continue;
        int rc = lookup_submit(l, &l->op[i]);
        if (rc == -EAGAIN && l->out == 0) {
            l->waiting = true;
            l->waiter.fn = lookup_room;
            store_wait(l->m->store, &l->waiter);
        } else if (rc && rc != -EAGAIN) {
            l->rc = rc;
        }
        if (rc)
            break;
    }
    if (l->out > 0 || l->waiting || (l->next < l->count && l->rc == 0))
        return;
    l->done(l, l->rc);
}

void rwm_lookup_start(struct rwm_lookup *l)
{
    l->next = 0;
    l->rc = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        l->item[i].version = (struct version){0, 0};
        l->item[i].written = l->item[i].flags = 0;
    }
    loop_defer(l->m->env->loop, &l->task);
}
