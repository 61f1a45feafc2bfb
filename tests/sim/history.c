#include "tests/sim/history.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    uint64_t value, begin, end;
    uint32_t client;
    uint8_t kind;
};
struct sector {
    struct entry *entries;
    size_t count, cap;
};
struct history {
    uint32_t sectors;
    uint64_t count;
    uint32_t wrong; /* sector of the last failed check */
    struct sector sector[];
};

/* All operations on one value: the write and the reads that returned it. */
struct cluster {
    uint64_t value;
    uint64_t write_begin;
    uint64_t settled;    /* from then on the write does nothing any more: it was answered, or fenced */
    uint64_t first_end;  /* the earliest end in it */
    uint64_t last_begin; /* the latest begin in it */
    bool written;
    size_t reads;
};

int history_create(uint32_t sectors, struct history **out)
{
    struct history *h = calloc(1, sizeof(*h) + sectors * sizeof(h->sector[0]));
    if (!h)
        return -ENOMEM;
    h->sectors = sectors;
    *out = h;
    return 0;
}

void history_destroy(struct history *h)
{
    if (!h)
        return;
    for (uint32_t i = 0; i < h->sectors; i++)
        free(h->sector[i].entries);
    free(h);
}

void history_add(struct history *h, uint32_t sector, enum history_kind kind, uint64_t value, uint64_t begin,
                 uint64_t end, uint32_t client)
{
    MUST(sector < h->sectors && begin < end);
    struct sector *s = &h->sector[sector];
    if (s->count == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 16;
        s->entries = realloc(s->entries, s->cap * sizeof(s->entries[0]));
        MUST(s->entries);
    }
    s->entries[s->count++] = (struct entry){value, begin, end, client, (uint8_t)kind};
    h->count++;
}

void history_fence(struct history *h, uint32_t first, uint32_t count, uint32_t client, uint64_t begun,
                   uint64_t fenced)
{
    MUST(first + count <= h->sectors);
    for (uint32_t n = first; n < first + count; n++)
        for (size_t i = 0; i < h->sector[n].count; i++) {
            struct entry *e = &h->sector[n].entries[i];
            if (e->kind != HISTORY_WRITE || e->client != client || e->end != HISTORY_OPEN ||
                e->begin >= begun)
                continue;
            e->kind = HISTORY_MAYBE;
            e->end = fenced;
        }
}

uint64_t history_count(const struct history *h)
{
    return h->count;
}

static int entry_by_value(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->kind < y->kind) - (x->kind > y->kind);
}

static int cluster_by_first_end(const void *a, const void *b)
{
    const struct cluster *x = a, *y = b;
    if (x->first_end != y->first_end)
        return x->first_end < y->first_end ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

/* Folds the sorted entries [from, to) of one value into a cluster. */
static int cluster_make(const struct entry *e, size_t n, uint32_t sector, struct cluster *c, char *why,
                        size_t cap)
{
    *c = (struct cluster){.value = e[0].value, .first_end = HISTORY_OPEN};
    uint64_t fenced = HISTORY_OPEN;
    for (size_t i = 0; i < n; i++) {
        if (e[i].kind != HISTORY_READ) {
            MUST(!c->written); /* the workload uses each value once */
            c->written = true;
            c->write_begin = e[i].begin;
            c->settled = e[i].end;
        } else {
            c->reads++;
        }
        if (e[i].kind == HISTORY_MAYBE) {
            fenced = e[i].end;
            c->last_begin = max_u64(c->last_begin, e[i].begin);
            continue;
        }
        c->first_end = min_u64(c->first_end, e[i].end);
        c->last_begin = max_u64(c->last_begin, e[i].begin);
    }
    if (c->reads) /* it did take effect, so before it was fenced */
        c->first_end = min_u64(c->first_end, fenced);
    if (!c->written) {
        snprintf(why, cap,
                 "sector %u: client %u read value %" PRIx64 " at %" PRIu64 "..%" PRIu64
                 ", which nobody wrote",
                 sector, e[0].client, e[0].value, e[0].begin, e[0].end);
        return -EILSEQ;
    }
    if (c->first_end < c->write_begin) {
        snprintf(why, cap, "sector %u: value %" PRIx64 " was read before it was written (at %" PRIu64 ")",
                 sector, c->value, c->write_begin);
        return -EILSEQ;
    }
    return 0;
}

/*
 * Zones: a value is surely the register's from its earliest end to its latest begin when the former is
 * smaller (a forward zone); forward zones must not overlap. Else it held for some instant in [latest begin,
 * earliest end] (a backward zone), which must not lie inside a forward zone.
 */
static int zones_check(struct cluster *c, size_t n, uint32_t sector, char *why, size_t cap)
{
    qsort(c, n, sizeof(*c), cluster_by_first_end);
    const struct cluster *forward = NULL; /* the forward zone with the latest end so far */
    for (size_t i = 0; i < n; i++) {
        if (c[i].first_end >= c[i].last_begin)
            continue;
        if (forward && c[i].first_end < forward->last_begin) {
            snprintf(why, cap,
                     "sector %u: value %" PRIx64 " held during %" PRIu64 "..%" PRIu64 " and value %" PRIx64
                     " during %" PRIu64 "..%" PRIu64 ": one of them was lost or came back",
                     sector, forward->value, forward->first_end, forward->last_begin, c[i].value,
                     c[i].first_end, c[i].last_begin);
            return -EILSEQ;
        }
        forward = &c[i];
    }
    for (size_t i = 0; i < n; i++) {
        if (c[i].first_end < c[i].last_begin || (c[i].reads == 0 && c[i].first_end == HISTORY_OPEN))
            continue;
        for (size_t k = 0; k < n; k++)
            if (c[k].first_end < c[k].last_begin && c[k].first_end < c[i].last_begin &&
                c[i].first_end < c[k].last_begin) {
                snprintf(why, cap,
                         "sector %u: value %" PRIx64 " took effect during %" PRIu64 "..%" PRIu64
                         ", while value %" PRIx64 " held (%" PRIu64 "..%" PRIu64 ")",
                         sector, c[i].value, c[i].last_begin, c[i].first_end, c[k].value, c[k].first_end,
                         c[k].last_begin);
                return -EILSEQ;
            }
    }
    return 0;
}

/*
 * A read of zero is wrong when some value was surely there from before the read's begin to after its end, and
 * no clear could have come between: a write w that ended before the read began, after which every clear had
 * ended before w began (the initial zero included).
 */
static int zero_reads_check(const struct sector *s, uint32_t sector, char *why, size_t cap)
{
    for (size_t r = 0; r < s->count; r++) {
        const struct entry *read = &s->entries[r];
        if (read->kind != HISTORY_READ || read->value != 0)
            continue;
        uint64_t latest_clear_end = 0; /* the latest end of a clear that may explain the read */
        for (size_t i = 0; i < s->count; i++) {
            const struct entry *e = &s->entries[i];
            if (e->kind != HISTORY_READ && e->value == 0 && e->begin < read->end)
                latest_clear_end = max_u64(latest_clear_end, e->end);
        }
        for (size_t i = 0; i < s->count; i++) {
            const struct entry *w = &s->entries[i];
            if (w->kind != HISTORY_WRITE || w->value == 0 || w->end >= read->begin ||
                latest_clear_end >= w->begin)
                continue;
            snprintf(why, cap,
                     "sector %u: client %u read zeroes at %" PRIu64 "..%" PRIu64 " although value %" PRIx64
                     " was written at %" PRIu64 "..%" PRIu64 " and nothing cleared it since",
                     sector, read->client, read->begin, read->end, w->value, w->begin, w->end);
            return -EILSEQ;
        }
    }
    return 0;
}

/*
 * A read of value v is wrong when a clear lies wholly between v's write and the read. The write is over with
 * its answer alone: it may have been seen before, and be repeated after a clear that nobody had to wait with.
 */
static int cleared_check(const struct sector *s, const struct cluster *c, size_t n, uint32_t sector,
                         char *why, size_t cap)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct entry *clear = &s->entries[i];
        if (clear->kind != HISTORY_WRITE || clear->value != 0)
            continue;
        for (size_t k = 0; k < n; k++)
            if (c[k].settled < clear->begin && clear->end < c[k].last_begin) {
                snprintf(why, cap,
                         "sector %u: value %" PRIx64 " was seen at %" PRIu64 ", after a clear at %" PRIu64
                         "..%" PRIu64,
                         sector, c[k].value, c[k].last_begin, clear->begin, clear->end);
                return -EILSEQ;
            }
    }
    return 0;
}

static int sector_check(struct sector *s, uint32_t number, char *why, size_t cap)
{
    if (s->count == 0)
        return 0;
    qsort(s->entries, s->count, sizeof(s->entries[0]), entry_by_value);
    struct cluster *clusters = calloc(s->count, sizeof(*clusters));
    MUST(clusters);
    size_t n = 0;
    int rc = 0;
    for (size_t i = 0, end; rc == 0 && i < s->count; i = end) {
        for (end = i; end < s->count && s->entries[end].value == s->entries[i].value; end++)
            ;
        if (s->entries[i].value != 0)
            rc = cluster_make(&s->entries[i], end - i, number, &clusters[n++], why, cap);
    }
    if (rc == 0)
        rc = zones_check(clusters, n, number, why, cap);
    if (rc == 0)
        rc = zero_reads_check(s, number, why, cap);
    if (rc == 0)
        rc = cleared_check(s, clusters, n, number, why, cap);
    free(clusters);
    return rc;
}

int history_check(struct history *h, char *why, size_t cap)
{
    for (uint32_t i = 0; i < h->sectors; i++) {
        int rc = sector_check(&h->sector[i], i, why, cap);
        h->wrong = i;
        if (rc)
            return rc;
    }
    return 0;
}

static int entry_by_begin(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

void history_print(struct history *h)
{
    struct sector *s = &h->sector[h->wrong];
    qsort(s->entries, s->count, sizeof(s->entries[0]), entry_by_begin);
    for (size_t i = 0; i < s->count; i++) {
        const struct entry *e = &s->entries[i];
        printf("  client %u %s %" PRIx64 " at %" PRIu64 "..", e->client,
               e->kind == HISTORY_READ    ? "read "
               : e->kind == HISTORY_WRITE ? "wrote"
                                          : "tried",
               e->value, e->begin);
        if (e->end == HISTORY_OPEN)
            printf(" (no answer)\n");
        else
            printf("%" PRIu64 "\n", e->end);
    }
}
