/* Memory registered once with the fabric, given out by pages: cistern_alloc. */
#include <stdlib.h>

#include "common/arena.h"
#include "services/vbs/cistern_internal.h"

enum { PAGES = CISTERN_ARENA_BYTES / UNIT_BYTES };

int cistern_arena_create(struct cistern *c)
{
    void *base = arena_map(CISTERN_ARENA_BYTES, NULL);
    if (base == NULL)
        return -ENOMEM;
    c->arena_map = calloc(PAGES / 64, sizeof *c->arena_map);
    int rc = c->arena_map == NULL
                 ? -ENOMEM
                 : fabric_mem_register(c->env.fabric, FABRIC_DOMAIN_HOST, base, CISTERN_ARENA_BYTES,
                                       FABRIC_ACCESS_LOCAL, &c->arena_mem);
    if (rc != 0) {
        free(c->arena_map);
        c->arena_map = NULL;
        arena_unmap(base, CISTERN_ARENA_BYTES);
        return rc;
    }
    c->arena = base;
    return 0;
}

void cistern_arena_destroy(struct cistern *c)
{
    if (c->arena == NULL)
        return;
    fabric_mem_unregister(c->arena_mem);
    free(c->arena_map);
    arena_unmap(c->arena, CISTERN_ARENA_BYTES);
    c->arena = NULL;
}

static bool page_taken(const struct cistern *c, size_t page)
{
    return (c->arena_map[page / 64] >> (page % 64) & 1) != 0;
}

static void pages_flip(struct cistern *c, size_t first, size_t count)
{
    for (size_t page = first; page < first + count; page++)
        c->arena_map[page / 64] ^= 1ull << (page % 64);
}

/* The first run of count free pages in [from, to); PAGES when there is none. */
static size_t pages_find(const struct cistern *c, size_t count, size_t from, size_t to)
{
    size_t run = 0;
    for (size_t page = from; page < to; page++) {
        run = page_taken(c, page) ? 0 : run + 1;
        if (run == count)
            return page + 1 - count;
    }
    return PAGES;
}

void *cistern_alloc(struct cistern *c, size_t bytes)
{
    size_t count = (bytes + UNIT_BYTES - 1) / UNIT_BYTES;
    if (bytes == 0 || bytes > CISTERN_ARENA_BYTES)
        return NULL;
    pthread_mutex_lock(&c->lock);
    size_t first = pages_find(c, count, c->arena_next, PAGES);
    if (first == PAGES)
        first = pages_find(c, count, 0, PAGES);
    if (first != PAGES) {
        pages_flip(c, first, count);
        c->arena_next = first + count;
    }
    pthread_mutex_unlock(&c->lock);
    return first != PAGES ? c->arena + first * UNIT_BYTES : NULL;
}

void cistern_free(struct cistern *c, void *p, size_t bytes)
{
    if (p == NULL)
        return;
    size_t first = (size_t)((uint8_t *)p - c->arena) / UNIT_BYTES;
    size_t count = (bytes + UNIT_BYTES - 1) / UNIT_BYTES;
    pthread_mutex_lock(&c->lock);
    MUST((uint8_t *)p >= c->arena && first + count <= PAGES && page_taken(c, first));
    pages_flip(c, first, count);
    pthread_mutex_unlock(&c->lock);
}
