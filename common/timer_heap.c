/* timer_heap.c: see timer_heap.h. */
#include "common/timer_heap.h"

#include <stdlib.h>

#define FIRST_ROOM 256

int timer_heap_init(struct timer_heap *h)
{
    *h = (struct timer_heap){.room = FIRST_ROOM};
    h->items = calloc(h->room, sizeof(struct loop_timer *));
    return h->items != NULL ? 0 : -ENOMEM;
}

void timer_heap_fini(struct timer_heap *h)
{
    timer_heap_clear(h);
    free(h->items);
    h->items = NULL;
}

static bool earlier(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->seq < b->seq;
}

static void place(struct timer_heap *h, struct loop_timer *t, size_t i)
{
    h->items[i] = t;
    t->heap_index = i;
}

/* Moves t, which belongs at or above i, to where it belongs. */
static void sift_up(struct timer_heap *h, struct loop_timer *t, size_t i)
{
    while (i > 1 && earlier(t, h->items[i / 2])) {
        place(h, h->items[i / 2], i);
        i /= 2;
    }
    place(h, t, i);
}

static void sift_down(struct timer_heap *h, struct loop_timer *t, size_t i)
{
    for (;;) {
        size_t child = 2 * i;
        if (child > h->count)
            break;
        if (child < h->count && earlier(h->items[child + 1], h->items[child]))
            child++;
        if (!earlier(h->items[child], t))
            break;
        place(h, h->items[child], i);
        i = child;
    }
    place(h, t, i);
}

/* Doubles; a few times in a service's life, so not a matter of the hot path. */
static void make_room(struct timer_heap *h)
{
    if (h->count + 1 < h->room)
        return;
    struct loop_timer **items = realloc(h->items, 2 * h->room * sizeof(struct loop_timer *));
    MUST(items != NULL);
    h->items = items;
    h->room *= 2;
}

void timer_heap_put(struct timer_heap *h, struct loop_timer *t, uint64_t deadline_ns)
{
    timer_heap_remove(h, t);
    make_room(h);
    t->deadline_ns = deadline_ns;
    t->seq = h->next_seq++;
    h->count++;
    sift_up(h, t, h->count);
}

void timer_heap_remove(struct timer_heap *h, struct loop_timer *t)
{
    size_t i = t->heap_index;
    if (i == 0)
        return;
    MUST(i <= h->count && h->items[i] == t);
    t->heap_index = 0;
    struct loop_timer *last = h->items[h->count--];
    if (last == t)
        return;
    if (i > 1 && earlier(last, h->items[i / 2]))
        sift_up(h, last, i);
    else
        sift_down(h, last, i);
}

struct loop_timer *timer_heap_first(const struct timer_heap *h)
{
    return h->count > 0 ? h->items[1] : NULL;
}

void timer_heap_clear(struct timer_heap *h)
{
    for (size_t i = 1; i <= h->count; i++)
        h->items[i]->heap_index = 0;
    h->count = 0;
}
