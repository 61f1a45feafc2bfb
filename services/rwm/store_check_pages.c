/*
 * store_check_pages.c: both copies of the metadata pages.
 *
 * A checkpoint writes a page to copy A, and only when all of A is durable to copy B; the journal keeps what
 * it protects until both are. So a difference is normal where the newer copy has a batch that the journal
 * still has to apply, and a copy may be torn only where the journal changes that page. Any other difference
 * is rot, or a write that the device lost.
 */
#include <stdio.h>

#include "services/rwm/store_check_internal.h"

#define CHUNK_PAGES (CHECK_WINDOW_BYTES / STORE_PAGE_BYTES)

uint32_t check_page_kind(const struct store_check *c, uint32_t page)
{
    for (uint32_t k = 0; k < 3; k++) {
        if (page < c->super.record_pages[k])
            return PAGE_PARTITIONS + k;
        page -= c->super.record_pages[k];
    }
    return PAGE_ENTRIES;
}

/* Number of a page of records among those of its kind. */
static uint32_t record_page(const struct store_check *c, uint32_t page, uint32_t *kind)
{
    *kind = 0;
    while (page >= c->super.record_pages[*kind])
        page -= c->super.record_pages[(*kind)++];
    return page;
}

void check_page_text(const struct store_check *c, uint32_t page, char *out, size_t size)
{
    static const char *const words[3] = {"partition records", "volume records", "turn records"};
    uint32_t kind;
    if (page >= c->record_pages) {
        uint64_t slot = (uint64_t)(page - c->record_pages) * ENTRY_SLOTS;
        snprintf(out, size, "metadata page %u (the blocks in slots %lu to %lu, of any partition)", page,
                 (unsigned long)slot, (unsigned long)slot + ENTRY_SLOTS - 1);
        return;
    }
    uint32_t n = record_page(c, page, &kind),
             per_page = kind == STORE_VOLUME ? RECORDS_PER_PAGE_128 : RECORDS_PER_PAGE_64;
    snprintf(out, size, "metadata page %u (%s %u to %lu)", page, words[kind], n * per_page,
             (unsigned long)min_u64((uint64_t)(n + 1) * per_page, c->super.records[kind]) - 1);
}

bool check_entry_sane(const struct store_check *c, uint32_t entry, const struct disk_entry *e)
{
    if (!(e->flags & ENTRY_VALID))
        return true;
    return check_has_slot(entry) ? check_slot(entry) < c->super.slot_count : e->written == 0;
}

bool check_page_good(const struct store_check *c, uint32_t page, const void *data)
{
    struct disk_page_head h;
    uint64_t low;
    memcpy(&h, data, sizeof h);
    memcpy(&low, c->super.store.b, sizeof low);
    uint32_t crc = h.crc;
    h.crc = 0;
    if (h.magic != STORE_PAGE_MAGIC || h.kind != check_page_kind(c, page) || h.number != page ||
        h.store_low != low ||
        crc != crc32c_extend(crc32c(&h, sizeof h), (const uint8_t *)data + sizeof h,
                             STORE_PAGE_BYTES - sizeof h))
        return false;
    const struct disk_entry_page *p = data;
    for (uint32_t i = 0; h.kind == PAGE_ENTRIES && i < ENTRIES_PER_PAGE; i++) {
        if (!check_entry_sane(c, (page - c->record_pages) * ENTRIES_PER_PAGE + i, &p->entry[i]))
            return false;
    }
    return true;
}

/* ---- what counts goes into the model ---- */
static void load_entries(struct store_check *c, uint32_t page, const void *data)
{
    const struct disk_entry_page *p = data;
    uint32_t first = (page - c->record_pages) * ENTRIES_PER_PAGE;
    for (uint32_t i = 0; i < ENTRIES_PER_PAGE; i++) {
        const struct disk_entry *e = &p->entry[i];
        if (!(e->flags & ENTRY_VALID))
            continue;
        bool odd = (e->flags & ~(uint32_t)ENTRY_VALID) || e->reserved || (e->epoch | e->counter) == 0;
        for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++)
            odd = odd || (!(e->written & (1u << u)) && e->crc[u]);
        if (odd)
            check_found(c, STORE_FINDING_ENTRY_NONSENSE, -1, first + i,
                        "entry %u (layer %lu, block %lu) holds values that are never written", first + i,
                        (unsigned long)e->layer, (unsigned long)e->block);
        c->nodes[first + i] = (struct check_node){.layer = e->layer,
                                                  .block = e->block,
                                                  .hash = e->hash,
                                                  .epoch = e->epoch,
                                                  .written = e->written,
                                                  .valid = true,
                                                  .suspect = e->lsn < c->super.suspect_below};
    }
}

static void load_records(struct store_check *c, uint32_t page, const uint8_t *data)
{
    struct disk_page_head h;
    uint32_t kind, n = record_page(c, page, &kind), bytes = c->record_bytes[kind];
    uint32_t per_page = bytes == 64 ? RECORDS_PER_PAGE_64 : RECORDS_PER_PAGE_128;
    memcpy(&h, data, sizeof h);
    for (uint32_t i = 0; i < per_page && n * per_page + i < c->super.records[kind]; i++) {
        uint32_t index = n * per_page + i;
        memcpy(c->records[kind] + (size_t)index * bytes, data + sizeof h + (size_t)i * bytes, bytes);
        c->record_lost[kind][index] = (h.lost >> i) & 1;
    }
}

static void lose_page(struct store_check *c, uint32_t page)
{
    uint32_t kind;
    c->pages[page] |= PAGE_GONE;
    c->pages_lost = true;
    if (page >= c->record_pages)
        return;
    uint32_t n = record_page(c, page, &kind),
             per_page = kind == STORE_VOLUME ? RECORDS_PER_PAGE_128 : RECORDS_PER_PAGE_64;
    for (uint32_t i = n * per_page; i < (n + 1) * per_page && i < c->super.records[kind]; i++)
        c->record_lost[kind][i] = 2; /* 2: with a page that was told already */
}

/* ---- one page ---- */
static const char copy_name[2] = {'A', 'B'};

static int page_both_bad(struct store_check *c, uint32_t page, bool unreadable)
{
    char text[128];
    check_page_text(c, page, text, sizeof text);
    lose_page(c, page);
    check_found(c, unreadable ? STORE_FINDING_PAGE_UNREADABLE : STORE_FINDING_PAGE_LOST, -1, page,
                unreadable ? "%s can not be read in either copy" : "%s is damaged in both copies", text);
    return 0;
}

/* Entries that differ must be such as the journal changes: else it is not an unfinished checkpoint. */
static bool differs_beyond(const struct store_check *c, uint32_t page, const void *a, const void *b)
{
    const struct disk_entry_page *pa = a, *pb = b;
    if (page < c->record_pages)
        return !(c->pages[page] & PAGE_TOUCHED);
    for (uint32_t i = 0; i < ENTRIES_PER_PAGE; i++) {
        if (memcmp(&pa->entry[i], &pb->entry[i], sizeof pa->entry[i]) != 0 &&
            max_u64(pa->entry[i].lsn, pb->entry[i].lsn) < c->super.tail_seq)
            return true;
    }
    return false;
}

/* Both copies are whole. */
static int page_compare(struct store_check *c, uint32_t page, const void *a, const void *b)
{
    struct disk_page_head h[2];
    char text[128];
    if (memcmp(a, b, STORE_PAGE_BYTES) == 0)
        return 0;
    memcpy(&h[0], a, sizeof h[0]);
    memcpy(&h[1], b, sizeof h[1]);
    unsigned newer = h[1].lsn > h[0].lsn;
    if (newer)
        c->pages[page] |= PAGE_TAKE_B;
    check_page_text(c, page, text, sizeof text);
    if (h[newer].lsn < c->super.tail_seq) {
        if (h[0].lsn != h[1].lsn)
            return check_repairable(c, STORE_FINDING_PAGE_COPY_STALE, !newer, false, page,
                                    "%s is old in copy %c (batch %lu, the other copy has %lu)", text,
                                    copy_name[!newer], (unsigned long)h[!newer].lsn,
                                    (unsigned long)h[newer].lsn);
        check_found(c, STORE_FINDING_PAGE_CONFLICT, -1, page,
                    "%s: both copies are whole, of batch %lu, and differ: a start takes copy A", text,
                    (unsigned long)h[0].lsn);
        return 0;
    }
    if (c->journal.readable && differs_beyond(c, page, a, b)) {
        check_found(c, STORE_FINDING_PAGE_CONFLICT, -1, page,
                    "%s: both copies are whole and differ in more than the journal explains", text);
        return 0;
    }
    c->pages_behind++;
    return 0;
}

static int page_one_bad(struct store_check *c, uint32_t page, unsigned bad, bool unreadable)
{
    char text[128];
    check_page_text(c, page, text, sizeof text);
    if (bad == 0)
        c->pages[page] |= PAGE_TAKE_B;
    if (unreadable)
        return check_repairable(c, STORE_FINDING_PAGE_COPY_UNREADABLE, (int)bad, false, page,
                                "%s can not be read in copy %c", text, copy_name[bad]);
    if ((c->pages[page] & PAGE_TOUCHED) && c->journal.readable) {
        c->torn_pages++;
        return check_repairable(c, STORE_FINDING_PAGE_COPY_TORN, (int)bad, false, page,
                                "%s was cut off in copy %c while it was written, or has rotted since", text,
                                copy_name[bad]);
    }
    return check_repairable(c, STORE_FINDING_PAGE_COPY_BAD, (int)bad, false, page, "%s is damaged in copy %c",
                            text, copy_name[bad]);
}

/* The metadata know a batch that the journal does not. */
static void page_ahead(struct store_check *c, uint32_t page, const void *data)
{
    struct disk_page_head h;
    memcpy(&h, data, sizeof h);
    if (c->journal.readable && h.lsn > c->journal.end_seq)
        check_found(
            c, STORE_FINDING_JOURNAL_END_LOST, -1, page,
            "metadata page %u has batch %lu, the journal ends at %lu: acknowledged writes may be gone", page,
            (unsigned long)h.lsn, (unsigned long)c->journal.end_seq);
}

static int page_check_both(struct store_check *c, uint32_t page, const uint8_t *a, const uint8_t *b,
                           const int rc[2])
{
    bool good[2] = {!rc[0] && check_page_good(c, page, a), !rc[1] && check_page_good(c, page, b)};
    int found = 0;
    if (!good[0] && !good[1])
        return page_both_bad(c, page, rc[0] || rc[1]);
    if (good[0] && good[1])
        found = page_compare(c, page, a, b);
    else
        found = page_one_bad(c, page, good[0], rc[good[0]] != 0);
    const uint8_t *data = c->pages[page] & PAGE_TAKE_B ? b : a;
    page_ahead(c, page, data);
    if (page >= c->record_pages)
        load_entries(c, page, data);
    else
        load_records(c, page, data);
    return found;
}

/* A chunk of both copies; page by page where one can not be read. */
static int chunk_check(struct store_check *c, uint32_t first, uint32_t count)
{
    int rc[2] = {0, 0};
    for (unsigned copy = 0; copy < 2; copy++) {
        rc[copy] = check_read(c, c->data, check_page_offset(c, first, copy), copy ? c->buf_b : c->buf_a,
                              (uint64_t)count * STORE_PAGE_BYTES);
        if (check_over(rc[copy]))
            return rc[copy];
    }
    if (count > 1 && (rc[0] || rc[1])) {
        int over = 0;
        for (uint32_t i = 0; i < count && over == 0; i++)
            over = chunk_check(c, first + i, 1);
        return over;
    }
    for (uint32_t i = 0; i < count; i++) {
        size_t at = (size_t)i * STORE_PAGE_BYTES;
        int over = page_check_both(c, first + i, c->buf_a + at, c->buf_b + at, rc);
        if (over)
            return over;
    }
    return 0;
}

int check_pages(struct store_check *c)
{
    uint32_t used = c->record_pages + c->super.entry_pages_used;
    for (uint32_t page = 0; page < used; page += CHUNK_PAGES) {
        int rc = chunk_check(c, page, (uint32_t)min_u64(CHUNK_PAGES, used - page));
        if (rc)
            return rc;
    }
    if (c->pages_behind)
        check_found(
            c, STORE_FINDING_PAGES_BEHIND, -1, c->pages_behind,
            "%lu metadata pages are newer in one copy: a checkpoint was cut off, the next start completes it",
            (unsigned long)c->pages_behind);
    return 0;
}
