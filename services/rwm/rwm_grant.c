/*
 * rwm_grant.c: what this module promised to primaries, and when it is free of a promise before its time: the
 * process that holds it is no more. That takes three signs (setting fast_fail): the holder's kernel ended its
 * connection to this module; at its address nobody listens any more, or somebody else; and the controller has
 * seen the same, or knows a later start of that module.
 */
#include "services/rwm/rwm_copies.h"

#include <stdlib.h>
#include <string.h>

static struct rwm_grant *grant_of(const struct rwm *m, uint32_t module)
{
    list_for_each(n, &m->grants)
    {
        struct rwm_grant *g = list_entry(n, struct rwm_grant, link);
        if (g->module == module)
            return g;
    }
    return NULL;
}

static const struct table_module *record_of(const struct rwm *m, uint32_t module)
{
    const struct table *t = m->cluster ? cluster_table(m->cluster) : NULL;
    return t ? table_module_by_id(t, module) : NULL;
}

/* Only the start that the table names is spoken to: of two processes of one module the older one may live
 * on. */
static bool is_latest(struct rwm *m, uint32_t module, uint64_t incarnation)
{
    const struct table_module *r = record_of(m, module);
    if (r && r->incarnation == incarnation)
        return true;
    if (m->cluster)
        cluster_refresh(m->cluster);
    return false;
}

static struct rwm_grant *grant_get(struct rwm *m, uint32_t module, uint64_t incarnation)
{
    struct rwm_grant *g = grant_of(m, module);
    if (!g) {
        g = calloc(1, sizeof(*g));
        if (!g)
            return NULL;
        g->module = module;
        g->incarnation = incarnation;
        list_push_back(&m->grants, &g->link);
    }
    if (g->incarnation != incarnation) {
        g->older_until_ns = max_u64(g->older_until_ns, g->until_ns);
        g->until_ns = 0;
        g->incarnation = incarnation;
        g->reset = g->vacant = g->outdated = false;
    }
    const struct table_module *r = record_of(m, module);
    memcpy(&g->addr, r->addr, sizeof(g->addr));
    return g;
}

void rwm_grant_outdated(struct rwm *m, uint32_t module)
{
    struct rwm_grant *g = grant_of(m, module);
    if (g)
        g->outdated = true;
}

/* For one of the partitions that it joined here somebody else is the primary now, or was in between: that it
 * is told, once, whoever has joined there since. */
static bool joins_outdated(struct rwm *m, struct rwm_grant *g)
{
    if (!g->outdated)
        return false;
    g->outdated = false;
    list_for_each(n, &m->copies)
    {
        struct rwm_copies *c = list_entry(n, struct rwm_copies, link);
        if (c->joined_by == g->module)
            c->joined_by = 0;
    }
    return true;
}

uint32_t rwm_grant_ask(struct rwm_conn *conn, const struct copy_promise *rq)
{
    struct rwm *m = conn->m;
    if (rq->duration_ns == 0 || rq->duration_ns > COPY_PROMISE_MAX_NS)
        return STATUS_INVALID;
    if (!is_latest(m, conn->from_module, conn->from_incarnation))
        return STATUS_NOT_SERVING;
    struct rwm_grant *g = grant_get(m, conn->from_module, conn->from_incarnation);
    if (!g)
        return STATUS_NO_MEMORY;
    return joins_outdated(m, g) ? STATUS_STALE_EPOCH : STATUS_OK;
}

uint32_t rwm_grant_promise(struct rwm_conn *conn, const struct copy_promise *rq)
{
    struct rwm *m = conn->m;
    if (!is_latest(m, conn->from_module, conn->from_incarnation))
        return STATUS_NOT_SERVING;
    struct rwm_grant *g = grant_get(m, conn->from_module, conn->from_incarnation);
    if (!g)
        return STATUS_NO_MEMORY;
    if (g->outdated)
        return STATUS_NOT_SERVING; /* since it was asked: the next request is told, in order */
    g->until_ns = max_u64(g->until_ns, loop_clock_ns(m->env->loop) + rwm_grant_margin(rq->duration_ns));
    g->reset = g->vacant = false;
    return STATUS_OK;
}

uint32_t rwm_grant_join(struct rwm *m, uint32_t module, uint64_t incarnation)
{
    if (!is_latest(m, module, incarnation))
        return STATUS_AGAIN;
    struct rwm_grant *g = grant_get(m, module, incarnation);
    if (!g)
        return STATUS_NO_MEMORY;
    return loop_clock_ns(m->env->loop) < g->older_until_ns ? STATUS_AGAIN : STATUS_OK;
}

/* ---- who waits for the end of a promise ---- */
uint64_t rwm_copies_wait_until(const struct rwm_copies *c)
{
    uint64_t until = c->wait_until_ns;
    for (unsigned i = 0; i < ARRAY_LEN(c->wait); i++)
        until = max_u64(until, c->wait[i].until_ns);
    return until;
}

/* The holder of g has said that it answers nothing under the epochs before the one in force here. */
static bool is_released(const struct rwm_copies *c, const struct rwm_grant *g)
{
    return c->release.module == g->module && c->release.incarnation == g->incarnation &&
           c->release.epoch >= c->m->parts[c->partition].epoch;
}

void rwm_copies_wait_for(struct rwm_copies *c, uint32_t module)
{
    struct rwm *m = c->m;
    const struct rwm_grant *g = grant_of(m, module);
    uint64_t until = !g ? 0 : is_released(c, g) ? g->older_until_ns : max_u64(g->until_ns, g->older_until_ns);
    uint64_t now = loop_clock_ns(m->env->loop);
    if (until <= now)
        return;
    struct rwm_wait *place = NULL;
    for (unsigned i = 0; i < ARRAY_LEN(c->wait) && !place; i++)
        if (c->wait[i].module == module || c->wait[i].until_ns <= now)
            place = &c->wait[i];
    if (place)
        *place = (struct rwm_wait){.module = module, .until_ns = until};
    else
        c->wait_until_ns = max_u64(c->wait_until_ns, until);
    if (m->config.fast_fail)
        (void)rwm_peer_get(m, module); /* looks whether anybody is there */
}

/* What is waited for of g ends, but for promises to earlier starts. */
static void wait_end(struct rwm_copies *c, const struct rwm_grant *g)
{
    for (unsigned i = 0; i < ARRAY_LEN(c->wait); i++)
        if (c->wait[i].module == g->module)
            c->wait[i].until_ns = g->older_until_ns;
}

void rwm_copies_released(struct rwm_copies *c, uint32_t module, uint64_t incarnation, uint64_t epoch)
{
    const struct rwm_grant *g = grant_of(c->m, module);
    if (epoch < c->release.epoch)
        return;
    c->release = (struct rwm_release){.module = module, .incarnation = incarnation, .epoch = epoch};
    if (!g || !is_released(c, g))
        return;
    wait_end(c, g);
    rwm_tick_soon(c->m);
}

static void grant_void(struct rwm *m, struct rwm_grant *g)
{
    log_info(m->env, "a primary's process is gone: free of the promise to it",
             "module=%u peer=%u incarnation=%016lx", m->id, g->module, (unsigned long)g->incarnation);
    g->until_ns = g->older_until_ns;
    list_for_each(n, &m->copies) wait_end(list_entry(n, struct rwm_copies, link), g);
    rwm_tick_soon(m);
}

void rwm_grants_check(struct rwm *m)
{
    uint64_t now = loop_clock_ns(m->env->loop);
    if (!m->config.fast_fail)
        return;
    list_for_each(n, &m->grants)
    {
        struct rwm_grant *g = list_entry(n, struct rwm_grant, link);
        const struct table_module *r = record_of(m, g->module);
        bool agreed = r && (r->incarnation != g->incarnation || (r->flags & TABLE_MODULE_GONE));
        if (g->reset && g->vacant && agreed && g->until_ns > now && g->until_ns > g->older_until_ns)
            grant_void(m, g);
    }
}

void rwm_grant_conn_lost(const struct rwm_conn *conn, enum fabric_down reason)
{
    struct rwm_grant *g = conn->m ? grant_of(conn->m, conn->from_module) : NULL;
    if (!g || g->incarnation != conn->from_incarnation)
        return;
    g->reset = reason == FABRIC_DOWN_PEER_DIED || reason == FABRIC_DOWN_PEER_CLOSED;
    if (g->reset)
        rwm_grants_check(conn->m);
}

void rwm_grant_vacant(struct rwm_peer *peer, bool taken)
{
    struct rwm_grant *g = grant_of(peer->m, peer->module);
    if (!g || memcmp(&g->addr, &peer->addr, sizeof(g->addr)) != 0 ||
        (g->incarnation == peer->incarnation) == taken)
        return;
    g->vacant = true;
    rwm_grants_check(peer->m);
}
