/* rwm_area.c: the memory of a module's requests, sized at start; see struct rwm_area for why it may outlive
 * the module. */
#include "services/rwm/rwm_internal.h"

#include <stdlib.h>

static int area_register(struct env *env, struct pool *pool, struct fabric_mem **out)
{
    void *base;
    size_t len;
    pool_memory(pool, &base, &len);
    return fabric_mem_register(env->fabric, FABRIC_DOMAIN_CLUSTER, base, len, FABRIC_ACCESS_LOCAL, out);
}

static int area_pools(struct rwm_area *area, const struct rwm_config *config, struct env *env)
{
    size_t requests = config->requests_max;
    size_t large = max_u64(config->buffer_bytes / RWM_CHUNK_LARGE, RWM_REQUEST_BLOCKS_MAX);
    int rc = pool_create(NULL, "rwm requests", sizeof(struct rwm_request), 16, RWM_HOST_REQUESTS,
                         &area->request_pool);
    if (rc == 0)
        rc = pool_create(NULL, "rwm pieces", sizeof(struct rwm_piece), 16, requests + RWM_PIECES_EXTRA,
                         &area->piece_pool);
    if (rc == 0)
        rc = pool_create(NULL, "rwm small buffers", RWM_CHUNK_SMALL, UNIT_BYTES, requests + 2,
                         &area->small_pool);
    if (rc == 0)
        rc = pool_create(NULL, "rwm buffers", RWM_CHUNK_LARGE, UNIT_BYTES, large, &area->large_pool);
    if (rc == 0)
        rc = area_register(env, area->small_pool, &area->small_mem);
    if (rc == 0)
        rc = area_register(env, area->large_pool, &area->large_mem);
    return rc;
}

int rwm_area_serve(struct rwm *m)
{
    struct rwm_area *area = m->area;
    if (area->serve_pool)
        return 0;
    int rc = 0;
    if (!area->serve_piece_pool)
        rc = pool_create(NULL, "rwm serve pieces", sizeof(struct rwm_piece), 16, RWM_SERVE_PIECES,
                         &area->serve_piece_pool);
    if (rc == 0)
        rc = pool_create(NULL, "rwm serve buffers", RWM_CHUNK_LARGE, UNIT_BYTES, RWM_SERVE_PIECES,
                         &area->serve_pool);
    if (rc == 0)
        rc = area_register(m->env, area->serve_pool, &area->serve_mem);
    return rc;
}

static int area_repair(struct rwm *m)
{
    struct rwm_area *area = m->area;
    if (area->repair_mem)
        return 0;
    int rc = 0;
    if (!area->repair_piece_pool)
        rc = pool_create(NULL, "rwm repair pieces", sizeof(struct rwm_piece), 16, RWM_REPAIR_PIECES,
                         &area->repair_piece_pool);
    if (rc == 0 && !area->repair_pool)
        rc = pool_create(NULL, "rwm repair buffers", RWM_CHUNK_LARGE, UNIT_BYTES, RWM_REPAIR_PIECES,
                         &area->repair_pool);
    if (rc == 0)
        rc = area_register(m->env, area->repair_pool, &area->repair_mem);
    return rc;
}

int rwm_area_create(struct rwm *m, struct rwm_area **out)
{
    struct rwm_area *area = calloc(1, sizeof(*area));
    if (!area)
        return -ENOMEM;
    list_init(&area->link);
    list_init(&area->requests);
    area->host = m->host;
    area->m = m;
    int rc = area_pools(area, &m->config, m->env);
    if (rc) {
        rwm_area_free(area);
        return rc;
    }
    list_push_back(&m->host->areas, &area->link);
    *out = area;
    return 0;
}

void rwm_area_free(struct rwm_area *area)
{
    list_remove(&area->link);
    if (area->small_mem)
        fabric_mem_unregister(area->small_mem);
    if (area->large_mem)
        fabric_mem_unregister(area->large_mem);
    if (area->serve_mem)
        fabric_mem_unregister(area->serve_mem);
    if (area->repair_mem)
        fabric_mem_unregister(area->repair_mem);
    struct pool *pools[] = {area->request_pool,      area->piece_pool,       area->small_pool,
                            area->large_pool,        area->serve_piece_pool, area->serve_pool,
                            area->repair_piece_pool, area->repair_pool};
    for (size_t i = 0; i < ARRAY_LEN(pools); i++)
        if (pools[i])
            pool_destroy(pools[i], true);
    free(area);
}

void rwm_area_orphan(struct rwm_area *area)
{
    area->m = NULL;
    if (!area->host || (list_empty(&area->requests) && area->sending == 0)) {
        rwm_area_free(area);
        return;
    }
    /* Replies and frees are I/O and callbacks of others: not from inside a destroy. */
    loop_defer(area->host->env->loop, &area->host->orphan_task);
}

void rwm_area_release(struct rwm_area *area)
{
    if (!area->m && list_empty(&area->requests) && area->sending == 0)
        rwm_area_free(area);
}

static void piece_init(struct rwm *m, struct rwm_piece *p)
{
    *p = (struct rwm_piece){.m = m, .area = m->area};
    list_init(&p->link);
    list_init(&p->block_link);
    list_init(&p->stall_link);
    list_init(&p->flight_link);
    list_init(&p->versioned_link);
    list_init(&p->block_flight_link);
    list_init(&p->op.link);
}

struct rwm_piece *rwm_piece_get_serve(struct rwm *m)
{
    struct rwm_area *area = m->area;
    struct rwm_piece *p = pool_get(area->serve_piece_pool);
    if (!p)
        return NULL;
    piece_init(m, p);
    p->serves = true;
    p->chunk = pool_get(area->serve_pool);
    MUST(p->chunk != NULL); /* there are as many */
    return p;
}

struct rwm_piece *rwm_piece_get_repair(struct rwm *m)
{
    struct rwm_area *area = m->area;
    struct rwm_piece *p = area_repair(m) == 0 ? pool_get(area->repair_piece_pool) : NULL;
    if (!p)
        return NULL;
    piece_init(m, p);
    p->repairs = true;
    p->chunk = pool_get(area->repair_pool);
    MUST(p->chunk != NULL); /* there are as many */
    return p;
}

struct rwm_piece *rwm_piece_get(struct rwm *m, unsigned units)
{
    struct rwm_area *area = m->area;
    struct rwm_piece *p = pool_get(area->piece_pool);
    if (!p)
        return NULL;
    piece_init(m, p);
    if (units == 0)
        return p;
    p->chunk_large = units * UNIT_BYTES > RWM_CHUNK_SMALL;
    p->chunk = pool_get(p->chunk_large ? area->large_pool : area->small_pool);
    if (!p->chunk) {
        pool_put(area->piece_pool, p);
        return NULL;
    }
    return p;
}

void rwm_piece_put(struct rwm_area *area, struct rwm_piece *p)
{
    MUST(list_unlinked(&p->block_link) && list_unlinked(&p->stall_link) && list_unlinked(&p->flight_link));
    list_remove(&p->link);
    if (p->refs > 0) {
        p->orphan = true;
        p->req = NULL;
        return;
    }
    if (p->serves) {
        pool_put(area->serve_pool, p->chunk);
        pool_put(area->serve_piece_pool, p);
        return;
    }
    if (p->repairs) {
        pool_put(area->repair_pool, p->chunk);
        pool_put(area->repair_piece_pool, p);
        return;
    }
    if (p->chunk)
        pool_put(p->chunk_large ? area->large_pool : area->small_pool, p->chunk);
    pool_put(area->piece_pool, p);
}

struct fabric_mem *rwm_piece_mem(const struct rwm_area *area, const struct rwm_piece *p)
{
    if (p->serves)
        return area->serve_mem;
    if (p->repairs)
        return area->repair_mem;
    return p->chunk_large ? area->large_mem : area->small_mem;
}
