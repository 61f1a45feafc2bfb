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
/* Embedded in what waits. Zeroed memory with fn set is a waiter that does not wait. */
struct pool_waiter {
    struct list link;
    void (*fn)(struct pool_waiter *);
};

/*
 * count objects of size bytes, zeroed, aligned to align (power of two, >= 16). loop may be NULL if pool_wait
 * is not used; name is for people and outlives the pool. 0 or -ENOMEM. Objects are handed out in an order
 * that does not depend on addresses.
 */
int pool_create(struct loop *loop, const char *name, size_t size, size_t align, size_t count,
                struct pool **out);
/* All objects must be back and nobody waiting (asserted), unless abandon. No callback runs. NULL is fine. */
void pool_destroy(struct pool *pool, bool abandon);
/* NULL when empty, and while others wait: they come first. Contents are as the last user left them. */
void *pool_get(struct pool *pool);
/* Asserted: obj came from this pool and is out. Under the address sanitizer objects that are not out may not
 * be touched. */
void pool_put(struct pool *pool, void *obj);
/* Parks w until w->fn runs, once: the object is there for the pool_get that fn makes. w must not be waiting.
 * If fn takes none, the next in line is called. */
void pool_wait(struct pool *pool, struct pool_waiter *w);
/* w->fn will not run. Safe when w does not wait. */
void pool_wait_cancel(struct pool *pool, struct pool_waiter *w);
size_t pool_free_count(const struct pool *pool);
size_t pool_total(const struct pool *pool);
/* Large pools made from now on are not touched before their objects are: for a process that makes thousands
 * of them and uses little of each. By default all is touched at creation, so that nothing faults later. */
void pool_touch_late(void);
/* The memory all objects live in, whole pages, for registration with the fabric. */
void pool_memory(const struct pool *pool, void **base, size_t *len);

#endif
