/* pool.c: a stack of free objects over one piece of memory. Free objects are poisoned in sanitized builds. */
#include "common/arena.h"
#include "common/pool.h"

#include <stdlib.h>
#include <string.h>

#if !defined(__SANITIZE_ADDRESS__) && defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1 /* clang says it this way */
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#define USE_ARENAS     false /* what is mapped is not searched for leaks */
#else
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#define USE_ARENAS     true
#endif

#define MIN_ALIGN  16
#define PAGE_BYTES 4096

struct pool {
    struct loop *loop;
    const char *name;
    uint8_t *base;
    size_t len;
    bool mapped; /* an arena */
    size_t stride;
    size_t size;
    size_t total;
    size_t free_count;
    uint32_t *free_stack; /* indices, so that the order of use never depends on addresses */
    bool *out;            /* by index: a user has it; catches what is put twice or never came from here */
    struct list waiters;
    bool serving; /* a waiter's callback runs: pool_get is for it */
    struct loop_task task;
};

static void serve_waiters(struct loop_task *task);
static bool touch_late;

static int allocate(struct pool *p, size_t align)
{
    /* Whole pages: a registration of one pool shares no page with another's. */
    p->len = round_up(p->stride * p->total, PAGE_BYTES);
    p->mapped = USE_ARENAS && p->len >= ARENA_HUGE_BYTES && align <= PAGE_BYTES;
    p->base = p->mapped ? arena_map(p->len, NULL)
                        : aligned_alloc(align < PAGE_BYTES ? PAGE_BYTES : align, round_up(p->len, align));
    p->free_stack = calloc(p->total, sizeof p->free_stack[0]);
    p->out = calloc(p->total, sizeof p->out[0]);
    if (p->base == NULL || p->free_stack == NULL || p->out == NULL)
        return -ENOMEM;
    if (!p->mapped || !touch_late) /* what was mapped is zeroed already */
        memset(p->base, 0, p->len);
    for (size_t i = 0; i < p->total; i++) {
        p->free_stack[i] = (uint32_t)(p->total - 1 - i);
        POISON(p->base + i * p->stride, p->size);
    }
    p->free_count = p->total;
    return 0;
}

static void release(struct pool *p)
{
    if (p->base != NULL)
        UNPOISON(p->base, p->len);
    if (p->mapped)
        arena_unmap(p->base, p->len);
    else
        free(p->base);
    free(p->free_stack);
    free(p->out);
    free(p);
}

int pool_create(struct loop *loop, const char *name, size_t size, size_t align, size_t count,
                struct pool **out)
{
    MUST(size > 0 && is_pow2(align) && align >= MIN_ALIGN);
    MUST(count > 0);
    size_t stride = round_up(size, align);
    if (count > UINT32_MAX || stride > (SIZE_MAX / 2) / count)
        return -ENOMEM;
    struct pool *p = calloc(1, sizeof *p);
    if (p == NULL)
        return -ENOMEM;
    p->loop = loop;
    p->name = name;
    p->size = size;
    p->stride = stride;
    p->total = count;
    list_init(&p->waiters);
    loop_task_init(&p->task, serve_waiters);
    int rc = allocate(p, align);
    if (rc != 0) {
        release(p);
        return rc;
    }
    *out = p;
    return 0;
}

void pool_destroy(struct pool *p, bool abandon)
{
    if (p == NULL)
        return;
    MUST(abandon || (p->free_count == p->total && list_empty(&p->waiters)));
    while (list_pop_front(&p->waiters) != NULL)
        ;
    if (p->loop != NULL)
        loop_task_cancel(p->loop, &p->task);
    release(p);
}

void *pool_get(struct pool *p)
{
    /* Who waits comes first: otherwise new work would overtake parked work for ever. */
    if (p->free_count == 0 || (!p->serving && !list_empty(&p->waiters)))
        return NULL;
    uint32_t i = p->free_stack[--p->free_count];
    MUST(!p->out[i]);
    p->out[i] = true;
    void *obj = p->base + i * p->stride;
    UNPOISON(obj, p->size);
    return obj;
}

void pool_put(struct pool *p, void *obj)
{
    size_t offset = (size_t)((uint8_t *)obj - p->base);
    MUST((uint8_t *)obj >= p->base && offset < p->stride * p->total && offset % p->stride == 0);
    size_t i = offset / p->stride;
    MUST(p->out[i]);
    p->out[i] = false;
    p->free_stack[p->free_count++] = (uint32_t)i;
    POISON(obj, p->size);
    if (!list_empty(&p->waiters))
        loop_defer(p->loop, &p->task);
}

void pool_wait(struct pool *p, struct pool_waiter *w)
{
    MUST(p->loop != NULL && w->fn != NULL);
    MUST(w->link.next == NULL || list_unlinked(&w->link));
    list_push_back(&p->waiters, &w->link);
    if (p->free_count > 0)
        loop_defer(p->loop, &p->task);
}

void pool_wait_cancel(struct pool *p, struct pool_waiter *w)
{
    (void)p;
    if (w->link.next != NULL)
        list_remove(&w->link);
}

static void serve_waiters(struct loop_task *task)
{
    struct pool *p = container_of(task, struct pool, task);
    /* At most one callback an object that is free now: a waiter that waits again without taking one ends
     * this. */
    size_t budget = p->free_count;
    p->serving = true;
    while (budget-- > 0 && p->free_count > 0 && !list_empty(&p->waiters)) {
        struct pool_waiter *w = list_entry(list_pop_front(&p->waiters), struct pool_waiter, link);
        w->fn(w);
    }
    p->serving = false;
    if (p->free_count > 0 && !list_empty(&p->waiters))
        loop_defer(p->loop, &p->task);
}

size_t pool_free_count(const struct pool *p)
{
    return p->free_count;
}

size_t pool_total(const struct pool *p)
{
    return p->total;
}

void pool_touch_late(void)
{
    touch_late = true;
}

void pool_memory(const struct pool *p, void **base, size_t *len)
{
    *base = p->base;
    *len = p->len;
}
