/*
 * store_trim.c: gives the space of freed slots back to a device that takes discards.
 *
 * A slot is free when the record that freed it is durable and its readers have left; from then on nothing
 * that replay or a reader may want lies in it. While it is being discarded nobody gets it, or the discard
 * could meet the new owner's data. A slot is discarded some seconds after it became free, if nobody took it
 * by then, a few at a time. What was not done when the process ended is done after the next open, for all
 * free slots of pages in use.
 */
#include "services/rwm/store_internal.h"

#define TRIM_WAIT_NS  (10 * NS_PER_S)   /* most freed slots are taken again before */
#define TRIM_PAUSE_NS (100 * NS_PER_MS) /* between bursts */
#define TRIM_BURST    32u

static void trim_step(struct store *s);

static void trim_done(struct sio *sio, int rc)
{
    struct trim_io *io = container_of(sio, struct trim_io, sio);
    struct store *s = sio->s;
    struct trim *t = &s->trim;
    uint32_t mask = io->mask;
    io->mask = 0;
    t->active--;
    t->hidden -= (uint64_t)__builtin_popcount(mask);
    alloc_show(s, io->page, mask);
    if (rc)
        t->off = true;
    if (!list_empty(&s->exec) || s->closing)
        store_kick(s);
    trim_step(s);
}

/* The first run of neighbours in mask. */
static uint32_t first_run(uint32_t mask)
{
    uint32_t low = mask & -mask, above = ~(mask + low);
    return mask & above;
}

static void trim_submit(struct store *s, struct trim_io *io, uint32_t page, uint32_t mask)
{
    struct trim *t = &s->trim;
    uint32_t first = (uint32_t)__builtin_ctz(mask), count = (uint32_t)__builtin_popcount(mask);
    t->freed[page] &= ~mask;
    t->left -= count;
    t->hidden += count;
    t->active++;
    t->burst++;
    alloc_hide(s, page, mask);
    io->page = page;
    io->mask = mask;
    sio_init(&io->sio, s, trim_done);
    sio_submit(&io->sio, s->data, DEVICE_DISCARD, slot_offset(s, page * ENTRIES_PER_PAGE + first), NULL, 0,
               (uint64_t)count * BLOCK_BYTES);
}

static bool trim_may(const struct store *s)
{
    return !s->broken && !s->closing && !s->opening && !s->trim.off;
}

static void trim_step(struct store *s)
{
    struct trim *t = &s->trim;
    if (!trim_may(s))
        return;
    for (unsigned i = 0; i < TRIM_DEPTH && t->left && t->burst < TRIM_BURST; i++) {
        if (t->io[i].mask)
            continue;
        while (!t->freed[t->page])
            t->page = t->page + 1 < s->alloc.pages_used ? t->page + 1 : 0;
        trim_submit(s, &t->io[i], t->page, first_run(t->freed[t->page]));
    }
    if (t->active == 0 && t->left)
        loop_timer_arm(s->env->loop, &t->timer, TRIM_PAUSE_NS);
}

static void trim_timer(struct loop_timer *timer)
{
    struct trim *t = container_of(timer, struct trim, timer);
    t->burst = 0;
    trim_step(container_of(t, struct store, trim));
}

int trim_create(struct store *s)
{
    struct trim *t = &s->trim;
    loop_timer_init(&t->timer, trim_timer);
    t->off = !s->data->can_discard || s->options.read_only;
    if (t->off)
        return 0;
    t->freed = calloc(s->super.entry_pages, sizeof t->freed[0]);
    return t->freed ? 0 : -ENOMEM;
}

void trim_destroy(struct store *s)
{
    loop_timer_cancel(s->env->loop, &s->trim.timer);
    free(s->trim.freed);
}

void trim_wake(struct store *s)
{
    struct trim *t = &s->trim;
    if (trim_may(s) && t->left && t->active == 0 && !loop_timer_armed(&t->timer))
        loop_timer_arm(s->env->loop, &t->timer, TRIM_WAIT_NS);
}

void trim_note(struct store *s, uint32_t entry, bool is_free)
{
    struct trim *t = &s->trim;
    uint32_t page = entry_page(entry), bit = 1u << (entry % ENTRIES_PER_PAGE);
    if (t->off || ((t->freed[page] & bit) != 0) == is_free)
        return;
    t->freed[page] ^= bit;
    if (is_free)
        t->left++;
    else
        t->left--;
    if (is_free)
        trim_wake(s);
}

void trim_note_page(struct store *s, uint32_t page)
{
    struct trim *t = &s->trim;
    uint32_t mask = alloc_free_slots(s, page);
    if (t->off)
        return;
    t->left += (uint64_t)__builtin_popcount(mask & ~t->freed[page]);
    t->freed[page] |= mask;
}
