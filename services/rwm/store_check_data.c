/*
 * store_check_data.c: reads the data of all blocks and compares the checksums. Slots that follow one another
 * are read together, a few requests ahead. Units whose newest data are still in the journal are not looked at
 * in the slot.
 */
#include <stdio.h>

#include "services/rwm/store_check_internal.h"

#define CHUNK_PAGES (CHECK_WINDOW_BYTES / STORE_PAGE_BYTES)
#define RUN_SLOTS   8u
#define DEPTH       3u

struct job { /* one block */
    uint32_t entry, units;
    uint64_t slot;
    const uint32_t *crc;
};
struct scan {
    struct store_check *c;
    uint8_t *buf[DEPTH];
    struct job *jobs; /* of a chunk */
    uint32_t count;
    uint64_t total, done;
};

static void unit_finding(struct store_check *c, enum store_finding_kind kind, const struct job *j,
                         uint32_t units)
{
    const struct check_node *n = &c->nodes[j->entry];
    struct store_finding f = {.kind = kind,
                              .copy = -1,
                              .number = j->entry,
                              .key = {.layer = n->layer, .block = n->block, .hash = n->hash},
                              .units = units,
                              .has_key = true};
    char where[200];
    check_block_text(c, &f.key, units, where, sizeof where);
    snprintf(f.text, sizeof f.text, "%s: the data %s (slot %lu, byte %lu of the device)", where,
             kind == STORE_FINDING_UNITS_BAD ? "have a wrong checksum" : "can not be read",
             (unsigned long)j->slot,
             (unsigned long)(c->super.slots_offset + j->slot * BLOCK_BYTES +
                             (uint64_t)__builtin_ctz(units) * UNIT_BYTES));
    check_find(c, &f);
}

static uint32_t bad_units(const struct job *j, const uint8_t *data, uint32_t units)
{
    uint32_t bad = 0;
    for (; units; units &= units - 1) {
        unsigned u = (unsigned)__builtin_ctz(units);
        if (crc32c(data + (size_t)u * UNIT_BYTES, UNIT_BYTES) != j->crc[u])
            bad |= 1u << u;
    }
    return bad;
}

static uint64_t job_offset(const struct store_check *c, const struct job *j)
{
    return c->super.slots_offset + j->slot * BLOCK_BYTES;
}

/* A slot of a run that could not be read: unit by unit. */
static int job_alone(struct scan *s, const struct job *j)
{
    struct store_check *c = s->c;
    uint32_t bad = 0, unreadable = 0;
    for (uint32_t left = j->units; left; left &= left - 1) {
        unsigned u = (unsigned)__builtin_ctz(left);
        int rc = check_read(c, c->data, job_offset(c, j) + (uint64_t)u * UNIT_BYTES, c->buf_b, UNIT_BYTES);
        if (check_over(rc))
            return rc;
        if (rc)
            unreadable |= 1u << u;
        else if (crc32c(c->buf_b, UNIT_BYTES) != j->crc[u])
            bad |= 1u << u;
    }
    if (bad)
        unit_finding(c, STORE_FINDING_UNITS_BAD, j, bad);
    if (unreadable)
        unit_finding(c, STORE_FINDING_UNITS_UNREADABLE, j, unreadable);
    return 0;
}

/* How many jobs from first on lie in one read. */
static uint32_t run_length(const struct scan *s, uint32_t first)
{
    uint32_t n = 1;
    while (first + n < s->count && n < RUN_SLOTS && s->jobs[first + n].slot == s->jobs[first].slot + n)
        n++;
    return n;
}

static int run_end(struct scan *s, unsigned io, uint32_t first)
{
    struct store_check *c = s->c;
    uint32_t n = run_length(s, first);
    int rc = check_read_wait(c, io);
    if (check_over(rc))
        return rc;
    for (uint32_t i = 0; i < n; i++) {
        const struct job *j = &s->jobs[first + i];
        int over = 0;
        if (rc) {
            over = job_alone(s, j);
        } else {
            uint32_t bad = bad_units(j, s->buf[io - 1] + (size_t)i * BLOCK_BYTES, j->units);
            if (bad)
                unit_finding(c, STORE_FINDING_UNITS_BAD, j, bad);
        }
        if (over)
            return over;
        c->report.units_checked += (uint64_t)__builtin_popcount(j->units);
        c->report.next_entry = j->entry + 1;
    }
    s->done += (uint64_t)n * BLOCK_BYTES;
    uint64_t now = loop_clock_ns(c->env->loop);
    if (c->options.progress && now - c->progress_ns >= NS_PER_S) {
        c->progress_ns = now;
        c->options.progress(c->options.arg, s->done, s->total);
    }
    return c->options.stop && c->options.stop(c->options.arg) ? -EINTR : 0;
}

/* All jobs of a chunk, up to DEPTH reads at a time. Those under way end before the buffers go. */
static int chunk_read(struct scan *s)
{
    uint32_t first[DEPTH], next = 0;
    unsigned begun = 0, ended = 0;
    int rc = 0;
    while (ended < begun || (next < s->count && !rc)) {
        if (next < s->count && begun - ended < DEPTH && !rc) {
            uint32_t n = run_length(s, next);
            first[begun % DEPTH] = next;
            check_read_begin(s->c, 1 + begun % DEPTH, job_offset(s->c, &s->jobs[next]), s->buf[begun % DEPTH],
                             (uint64_t)n * BLOCK_BYTES);
            begun++;
            next += n;
            continue;
        }
        if (!rc)
            rc = run_end(s, 1 + ended % DEPTH, first[ended % DEPTH]);
        else if (rc == -ECANCELED || check_read_wait(s->c, 1 + ended % DEPTH) == -ECANCELED)
            return -ECANCELED;
        ended++;
    }
    return rc;
}

static uint32_t slot_units(const struct store_check *c, uint32_t entry)
{
    const struct check_node *n = &c->nodes[entry];
    const struct check_override *o = check_override_find(c, entry);
    return !n->valid || !check_has_slot(entry) ? 0 : n->written & ~(o ? o->overlay : 0);
}

static void chunk_jobs(struct scan *s, uint32_t first, uint32_t count, const uint8_t *pages)
{
    struct store_check *c = s->c;
    s->count = 0;
    for (uint32_t i = 0; i < count * ENTRIES_PER_PAGE; i++) {
        uint32_t entry = first * ENTRIES_PER_PAGE + i;
        uint32_t units = entry < c->options.from_entry ? 0 : slot_units(c, entry);
        if (!units)
            continue;
        const struct check_override *o = check_override_find(c, entry);
        const struct disk_entry_page *p =
            (const void *)(pages + (size_t)(i / ENTRIES_PER_PAGE) * STORE_PAGE_BYTES);
        s->jobs[s->count++] = (struct job){.entry = entry,
                                           .units = units,
                                           .slot = check_slot(entry),
                                           .crc = o ? o->crc : p->entry[i % ENTRIES_PER_PAGE].crc};
    }
}

static int read_pages(struct store_check *c, uint32_t first, uint32_t count)
{
    uint32_t used = c->super.entry_pages_used;
    memset(c->buf_a, 0, CHECK_WINDOW_BYTES);
    for (uint32_t i = 0; i < count && first + i < used;) {
        uint32_t page = c->record_pages + first + i, n = 1;
        uint8_t state = c->pages[page];
        while (i + n < count && first + i + n < used && c->pages[page + n] == state)
            n++;
        int rc = state & PAGE_GONE
                     ? 0
                     : check_read(c, c->data, check_page_offset(c, page, (state & PAGE_TAKE_B) != 0),
                                  c->buf_a + (size_t)i * STORE_PAGE_BYTES, (uint64_t)n * STORE_PAGE_BYTES);
        if (rc)
            return rc;
        i += n;
    }
    return 0;
}

static int scan_all(struct scan *s)
{
    struct store_check *c = s->c;
    uint32_t pages = c->entry_count / ENTRIES_PER_PAGE;
    for (uint32_t e = 0; e < c->entry_count; e++)
        s->total += slot_units(c, e) && e >= c->options.from_entry ? BLOCK_BYTES : 0;
    for (uint32_t page = (uint32_t)(c->options.from_entry / ENTRIES_PER_PAGE); page < pages;
         page += CHUNK_PAGES) {
        uint32_t count = (uint32_t)min_u64(CHUNK_PAGES, pages - page);
        int rc = read_pages(c, page, count);
        if (rc && !check_over(rc)) {
            check_found(
                c, STORE_FINDING_PAGE_UNREADABLE, -1, c->record_pages + page,
                "metadata pages from %u on could be read before and can not be read now: a failing device",
                c->record_pages + page);
            return 1;
        }
        if (rc)
            return rc;
        chunk_jobs(s, page, count, c->buf_a);
        rc = chunk_read(s);
        if (rc)
            return rc;
    }
    c->report.data_complete = c->options.from_entry == 0;
    return 0;
}

int check_data(struct store_check *c)
{
    struct scan s = {.c = c};
    int rc = 0;
    c->report.next_entry = c->options.from_entry;
    c->progress_ns = loop_clock_ns(c->env->loop);
    s.jobs = calloc(CHUNK_PAGES * ENTRIES_PER_PAGE, sizeof s.jobs[0]);
    rc = s.jobs ? 0 : -ENOMEM;
    for (unsigned i = 0; i < DEPTH; i++) {
        s.buf[i] = aligned_alloc(STORE_PAGE_BYTES, (size_t)RUN_SLOTS * BLOCK_BYTES);
        if (!s.buf[i])
            rc = -ENOMEM;
    }
    if (rc == 0)
        rc = scan_all(&s);
    if (rc == 0)
        c->report.next_entry = 0;
    for (unsigned i = 0; i < DEPTH; i++)
        free(s.buf[i]);
    free(s.jobs);
    return rc;
}
