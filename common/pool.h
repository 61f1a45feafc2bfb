/*
 * pool.h: fixed-size objects, all allocated at start. A full pool is back-pressure: pool_get answers NULL and
 * the caller parks its work with pool_wait, whose callback runs (deferred, in order) when an object comes
 * back.
 */
#ifndef CISTERN_COMMON_POOL_H
#define CISTERN_COMMON_POOL_H

#include "common/base.h"
#include "common/list.h"
#include "common/loop.h"

struct pool;
struct pool_waiter {
    struct list link;
    void (*fn)(struct pool_waiter *);
};

/* count objects of size bytes, zeroed, aligned to align (power of two, >= 16). loop may be NULL if pool_wait
 * is not used. */
int pool_create(struct loop *loop, const char *name, size_t size, size_t align, size_t count,
                struct pool **out);
/* All objects must be back (asserted), unless abandon. */
void pool_destroy(struct pool *pool, bool abandon);
/* NULL when empty. Contents are as the last user left them. */
void *pool_get(struct pool *pool);
void pool_put(struct pool *pool, void *obj);
void pool_wait(struct pool *pool, struct pool_waiter *w);
void pool_wait_cancel(struct pool *pool, struct pool_waiter *w);
size_t pool_free_count(const struct pool *pool);
size_t pool_total(const struct pool *pool);
/* The memory all objects live in, for registration with the fabric. */
void pool_memory(const struct pool *pool, void **base, size_t *len);

#endif
