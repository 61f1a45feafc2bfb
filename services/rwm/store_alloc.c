/*
 * store_alloc.c: which entries are free.
 *
 * Entries are taken page by page, from a page that is kept in memory, so that the entry can be filled in
 * without a read when its record is durable. Pages that were used before come first: the metadata grows only
 * as far as it must, and only that far is it read at the next open.
 */
#include "services/rwm/store_internal.h"

static int bits2_create(struct bits2 *b, uint32_t bits)
{
    uint32_t words = bits / 64 + 1;
    b->bits = bits;
    b->words = calloc(words, sizeof b->words[0]);
    b->summary = calloc(words / 64 + 1, sizeof b->summary[0]);
    return b->words && b->summary ? 0 : -ENOMEM;
}

static void bits2_set(struct bits2 *b, uint32_t i, bool on)
{
    uint32_t w = i / 64;
    if (on)
        b->words[w] |= 1ull << (i % 64);
    else
        b->words[w] &= ~(1ull << (i % 64));
    if (b->words[w])
        b->summary[w / 64] |= 1ull << (w % 64);
    else
        b->summary[w / 64] &= ~(1ull << (w % 64));
}

static uint64_t from_bit(uint64_t word, uint32_t bit)
{
    return word & (~0ull << bit);
}

/* The first set bit at or after from; STORE_NONE when there is none. */
static uint32_t bits2_next(const struct bits2 *b, uint32_t from)
{
    if (from >= b->bits)
        return STORE_NONE;
    uint32_t w = from / 64;
    uint64_t word = from_bit(b->words[w], from % 64);
    if (word)
        return w * 64 + (uint32_t)__builtin_ctzll(word);
    w++;
    uint32_t summaries = (b->bits / 64 + 1) / 64 + 1;
    for (uint32_t s = w / 64; s < summaries; s++) {
        uint64_t sum = s == w / 64 ? from_bit(b->summary[s], w % 64) : b->summary[s];
        if (!sum)
            continue;
        uint32_t found = s * 64 + (uint32_t)__builtin_ctzll(sum);
        return found * 64 + (uint32_t)__builtin_ctzll(b->words[found]);
    }
    return STORE_NONE;
}

static uint32_t page_entries(const struct alloc *a, uint32_t page)
{
    uint64_t first = (uint64_t)page * ENTRY_SLOTS;
    uint64_t slots = first >= a->slot_count ? 0 : min_u64(ENTRY_SLOTS, a->slot_count - first);
    return ((1u << slots) - 1u) | ENTRY_HOLE_BITS;
}

static uint32_t kind_bits(enum alloc_kind kind)
{
    return kind == ALLOC_SLOT ? ENTRY_SLOT_BITS : ENTRY_HOLE_BITS;
}

int alloc_create(struct store *s)
{
    struct alloc *a = &s->alloc;
    a->pages = s->super.entry_pages;
    a->slot_count = s->super.slot_count;
    a->page_free = calloc(a->pages, sizeof a->page_free[0]);
    if (!a->page_free || bits2_create(&a->avail[0], a->pages) || bits2_create(&a->avail[1], a->pages))
        return -ENOMEM;
    for (uint32_t p = 0; p < a->pages; p++)
        a->page_free[p] = page_entries(a, p);
    a->free[ALLOC_SLOT] = a->slot_count;
    a->free[ALLOC_HOLE] = (uint64_t)a->pages * (ENTRIES_PER_PAGE - ENTRY_SLOTS);
    a->pages_used = 0;
    return 0;
}

void alloc_destroy(struct store *s)
{
    struct alloc *a = &s->alloc;
    free(a->page_free);
    for (unsigned k = 0; k < 2; k++) {
        free(a->avail[k].words);
        free(a->avail[k].summary);
    }
}

static void page_avail(struct alloc *a, uint32_t page)
{
    for (unsigned k = 0; k < 2; k++)
        bits2_set(&a->avail[k], page, page < a->pages_used && (a->page_free[page] & kind_bits(k)) != 0);
}

void alloc_page_used(struct store *s, uint32_t page)
{
    struct alloc *a = &s->alloc;
    while (a->pages_used <= page) {
        a->pages_used++;
        page_avail(a, a->pages_used - 1);
    }
}

void alloc_mark(struct store *s, uint32_t entry, bool is_free)
{
    struct alloc *a = &s->alloc;
    uint32_t page = entry_page(entry), bit = 1u << (entry % ENTRIES_PER_PAGE);
    enum alloc_kind kind = entry_has_slot(entry) ? ALLOC_SLOT : ALLOC_HOLE;
    bool was = (a->page_free[page] & bit) != 0;
    if (was == is_free)
        return;
    a->page_free[page] ^= bit;
    if (is_free)
        a->free[kind]++;
    else
        a->free[kind]--;
    page_avail(a, page);
    if (kind == ALLOC_SLOT)
        trim_note(s, entry, is_free);
}

uint32_t alloc_free_slots(const struct store *s, uint32_t page)
{
    return s->alloc.page_free[page] & ENTRY_SLOT_BITS;
}

void alloc_hide(struct store *s, uint32_t page, uint32_t mask)
{
    struct alloc *a = &s->alloc;
    MUST((a->page_free[page] & mask) == mask);
    a->page_free[page] &= ~mask;
    page_avail(a, page);
}

void alloc_show(struct store *s, uint32_t page, uint32_t mask)
{
    struct alloc *a = &s->alloc;
    MUST((a->page_free[page] & mask) == 0);
    a->page_free[page] |= mask;
    page_avail(a, page);
}

void alloc_drop_page(struct store *s, uint32_t page)
{
    struct alloc *a = &s->alloc;
    for (uint32_t i = 0; i < ENTRIES_PER_PAGE; i++) {
        if (a->page_free[page] & (1u << i))
            alloc_mark(s, page * ENTRIES_PER_PAGE + i, false);
    }
}

static void cursor_loaded(struct frame_wait *w, struct frame *f, int rc)
{
    struct alloc_cursor *c = container_of(w, struct alloc_cursor, wait);
    c->waiting = false;
    if (rc == 0)
        c->frame = f;
    else
        alloc_drop_page(w->s, c->page);
    store_kick(w->s);
}

/* Moves to the next page with a free entry: 0 with c->frame, -EAGAIN, -ENOSPC. */
static int cursor_next(struct store *s, enum alloc_kind kind)
{
    struct alloc *a = &s->alloc;
    struct alloc_cursor *c = &a->cursor[kind];
    uint32_t first = s->meta.record_pages;
    uint32_t page = bits2_next(&a->avail[kind], c->page);
    if (page == STORE_NONE)
        page = bits2_next(&a->avail[kind], 0);
    if (page != STORE_NONE) {
        c->page = page;
        c->wait = (struct frame_wait){.s = s, .page = first + page, .fn = cursor_loaded};
        list_init(&c->wait.link);
        int rc = frame_get(s, first + page, &c->wait, &c->frame);
        c->waiting = rc == -EAGAIN;
        return rc;
    }
    if (a->free[kind] == 0)
        return -ENOSPC;
    if (a->pages_used == a->pages) /* what is being discarded comes back */
        return kind == ALLOC_SLOT && s->trim.hidden ? -EAGAIN : -ENOSPC;
    struct frame *f = frame_create(s, first + a->pages_used);
    if (!f)
        return -EAGAIN;
    c->page = a->pages_used;
    c->frame = f;
    alloc_page_used(s, c->page);
    return 0;
}

int alloc_take(struct store *s, enum alloc_kind kind, uint32_t *entry, struct frame **frame)
{
    struct alloc *a = &s->alloc;
    struct alloc_cursor *c = &a->cursor[kind];
    if (c->waiting)
        return -EAGAIN;
    if (c->frame && !(a->page_free[c->page] & kind_bits(kind))) {
        frame_unpin(s, c->frame);
        c->frame = NULL;
    }
    if (!c->frame) {
        int rc = cursor_next(s, kind);
        if (rc)
            return rc;
    }
    uint32_t bits = a->page_free[c->page] & kind_bits(kind);
    MUST(bits);
    *entry = c->page * ENTRIES_PER_PAGE + (uint32_t)__builtin_ctz(bits);
    alloc_mark(s, *entry, false);
    frame_pin(c->frame);
    *frame = c->frame;
    return 0;
}
