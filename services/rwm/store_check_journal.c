/*
 * store_check_journal.c: the journal: where its chain of batches ends, and whether that is a torn end or a
 * rotten one.
 *
 * 1. Along the chain (position, sequence, CRC of the batch before) from the tail.
 * 2. Where it ends: is there a batch in the ring whose mark says that the missing one had been durable? Then
 * there is a gap, and the chain goes on behind it.
 * 3. The batches above every mark may have been cut off between their own write and that of their data.
 */
#include <stdio.h>

#include "services/rwm/store_check_internal.h"

/* length bytes of the ring at offset; NULL: *rc says why. They stay until the next call. */
static const uint8_t *ring(struct store_check *c, uint64_t offset, uint64_t length, int *rc)
{
    struct check_journal *j = &c->journal;
    if (offset < j->window_offset || offset + length > j->window_offset + j->window_length) {
        uint64_t from = round_down(offset, STORE_PAGE_BYTES);
        uint64_t bytes = min_u64(CHECK_WINDOW_BYTES, c->super.journal_bytes - from);
        j->window_length = 0;
        *rc = check_read(c, c->journal_device, c->super.journal_offset + from, j->window, bytes);
        if (*rc)
            return NULL;
        j->window_offset = from;
        j->window_length = bytes;
    }
    MUST(offset + length <= j->window_offset + j->window_length);
    return j->window + (offset - j->window_offset);
}

/* ---- one batch ---- */
static bool set_entry_sane(const struct store_check *c, const struct disk_batch *h, const uint8_t *at)
{
    struct disk_set_entry rec;
    memcpy(&rec, at, sizeof rec);
    uint32_t entries = c->super.entry_pages * ENTRIES_PER_PAGE, units = rec.head.inlined | rec.head.direct;
    uint32_t payload = (uint32_t)__builtin_popcount(rec.head.inlined);
    return rec.head.bytes == sizeof rec && rec.head.entry < entries && rec.head.entry != rec.head.freed &&
           (rec.head.freed < entries || rec.head.freed == STORE_NONE) && (rec.image.flags & ENTRY_VALID) &&
           check_entry_sane(c, rec.head.entry, &rec.image) && !(units & ~rec.image.written) &&
           !(rec.head.inlined & rec.head.direct) && rec.head.payload <= h->payload_units &&
           payload <= h->payload_units - rec.head.payload;
}

static bool record_sane(const struct store_check *c, const struct disk_batch *h,
                        const struct disk_record *rec, const uint8_t *at)
{
    if (rec->kind == RECORD_SET_ENTRY)
        return rec->bytes >= sizeof(struct disk_set_entry) && set_entry_sane(c, h, at);
    if (rec->kind == RECORD_FREE_ENTRY)
        return rec->bytes == sizeof *rec &&
               (rec->entry < c->super.entry_pages * ENTRIES_PER_PAGE || rec->entry == STORE_NONE);
    return rec->kind == RECORD_SET_RECORD && rec->freed <= STORE_TURN &&
           rec->entry < c->super.records[rec->freed] &&
           rec->bytes == sizeof *rec + c->record_bytes[rec->freed];
}

static bool records_sane(const struct store_check *c, const struct disk_batch *h, const uint8_t *at)
{
    const uint8_t *end = at + h->record_bytes;
    for (uint32_t n = 0; n < h->record_count; n++) {
        struct disk_record rec;
        if ((size_t)(end - at) < sizeof rec)
            return false;
        memcpy(&rec, at, sizeof rec);
        if (rec.bytes < sizeof rec || rec.bytes > end - at || rec.bytes % 8 || !record_sane(c, h, &rec, at))
            return false;
        at += rec.bytes;
    }
    return at == end;
}

/* Might it be one of this start and within the ring? Its bytes in the ring, or 0. */
static uint64_t head_sane(const struct store_check *c, const struct disk_batch *h, uint64_t offset)
{
    const struct disk_super *sb = &c->super;
    if (h->magic != STORE_BATCH_MAGIC || !uuid_eq(&h->store, &sb->store) || h->salt != sb->salt ||
        h->start_counter != sb->start_counter || h->pos % sb->journal_bytes != offset ||
        h->seq < sb->tail_seq || h->pos < sb->tail_pos || h->mark >= h->seq ||
        h->record_bytes > BATCH_BUFFER_BYTES - sizeof *h || h->payload_units > BATCH_UNITS)
        return 0;
    uint64_t bytes =
        round_up(sizeof *h + h->record_bytes, sb->journal_align) + (uint64_t)h->payload_units * UNIT_BYTES;
    return offset + bytes > sb->journal_bytes || h->pos + bytes - sb->tail_pos > sb->journal_bytes ? 0
                                                                                                   : bytes;
}

/* 1: a batch of this start is there; 0: none; -errno. */
static int batch_at(struct store_check *c, uint64_t offset, struct check_found *f)
{
    struct disk_batch h;
    int rc = 0;
    if (offset + sizeof h > c->super.journal_bytes)
        return 0;
    const uint8_t *p = ring(c, offset, sizeof h, &rc);
    if (!p)
        return rc;
    memcpy(&h, p, sizeof h);
    uint64_t bytes = head_sane(c, &h, offset);
    if (!bytes)
        return 0;
    p = ring(c, offset, bytes, &rc);
    if (!p)
        return rc;
    f->head = h;
    h.crc = 0;
    if (crc32c_extend(crc32c(&h, sizeof h), p + sizeof h, h.record_bytes) != f->head.crc ||
        !records_sane(c, &h, p + sizeof h))
        return 0;
    f->records = p + sizeof h;
    f->payload = p + round_up(sizeof h + h.record_bytes, c->super.journal_align);
    f->end = h.pos + bytes;
    return 1;
}

int check_batch_read(struct store_check *c, size_t n, struct check_found *f)
{
    const struct check_batch *b = (const struct check_batch *)c->journal.batches.items + n;
    int rc = batch_at(c, b->pos % c->super.journal_bytes, f);
    return rc == 1 && f->head.seq == b->seq ? 0 : rc < 0 ? rc : -EIO;
}

/* ---- 1 and 2: the chain ---- */
struct walk {
    uint64_t pos, seq;
    uint32_t crc;
    bool any_crc, gap;
    unsigned gaps;
    size_t since_gap; /* number of the first batch behind the last gap */
};

static int walk_next(struct store_check *c, const struct walk *w, struct check_found *f)
{
    uint64_t ring_bytes = c->super.journal_bytes;
    uint64_t lap = w->pos % ring_bytes ? w->pos - w->pos % ring_bytes + ring_bytes : w->pos;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t pos = i ? lap : w->pos;
        int rc = batch_at(c, pos % ring_bytes, f);
        if (rc < 0)
            return rc;
        if (rc && f->head.pos == pos && f->head.seq == w->seq && (w->any_crc || f->head.prev_crc == w->crc))
            return 1;
    }
    return 0;
}

static int walk_chain(struct store_check *c, struct walk *w)
{
    struct check_journal *j = &c->journal;
    struct check_found f;
    int rc;
    while ((rc = walk_next(c, w, &f)) == 1) {
        struct check_batch b = {.pos = f.head.pos,
                                .seq = f.head.seq,
                                .bytes = (uint32_t)(f.end - f.head.pos),
                                .gap_before = w->gap};
        if (check_list_add(&j->batches, sizeof b, &b))
            return -ENOMEM;
        j->mark = max_u64(j->mark, f.head.mark);
        w->pos = f.end;
        w->seq = f.head.seq + 1;
        w->crc = f.head.crc;
        w->any_crc = w->gap = false;
    }
    return rc;
}

/* Behind the end: 1: what is missing had been durable, w stands behind the gap; 0: it is the end. */
static int walk_gap(struct store_check *c, struct walk *w)
{
    struct check_found f;
    uint64_t mark = 0, seq = 0, pos = 0;
    for (uint64_t at = 0; at + sizeof(struct disk_batch) <= c->super.journal_bytes;
         at += c->super.journal_align) {
        uint32_t magic;
        int rc = 0;
        const uint8_t *p = ring(c, at, sizeof magic, &rc);
        if (!p)
            return rc;
        memcpy(&magic, p, sizeof magic);
        if (magic != STORE_BATCH_MAGIC)
            continue;
        rc = batch_at(c, at, &f);
        if (rc < 0)
            return rc;
        if (rc == 0 || f.head.seq < w->seq || f.head.pos < w->pos)
            continue;
        mark = max_u64(mark, f.head.mark);
        if (!seq || f.head.seq < seq) {
            seq = f.head.seq;
            pos = f.head.pos;
        }
    }
    if (max_u64(mark, c->journal.mark) < w->seq)
        return 0;
    if (!seq) {
        check_found(c, STORE_FINDING_JOURNAL_END_LOST, -1, w->seq,
                    "journal: batches %lu to %lu were durable and are gone: the writes in them are lost",
                    (unsigned long)w->seq, (unsigned long)c->journal.mark);
        c->journal.suspect_below = c->journal.mark + 1;
        return 0;
    }
    check_found(
        c, STORE_FINDING_JOURNAL_GAP, -1, w->seq,
        "journal: batches %lu to %lu were durable and can not be read any more: writes in them are lost",
        (unsigned long)w->seq, (unsigned long)seq - 1);
    c->journal.suspect_below = seq;
    *w = (struct walk){.pos = pos,
                       .seq = seq,
                       .any_crc = true,
                       .gap = true,
                       .gaps = w->gaps + 1,
                       .since_gap = c->journal.batches.count};
    return 1;
}

/* ---- 3: the last batches ---- */
#define LAST_MAX (2 * BATCHES_IN_FLIGHT) /* above every mark; a store has at most BATCHES_IN_FLIGHT + 1 */
struct last {
    uint8_t *records[LAST_MAX];
    uint32_t count[LAST_MAX];
    bool payload_ok[LAST_MAX];
    uint32_t *bad[LAST_MAX]; /* by record: direct units whose data are not there */
    unsigned batches;
};

static struct disk_set_entry record_copy(const uint8_t *at)
{
    struct disk_set_entry rec;
    memset(&rec, 0, sizeof rec);
    memcpy(&rec.head, at, sizeof rec.head);
    if (rec.head.kind == RECORD_SET_ENTRY)
        memcpy(&rec, at, sizeof rec);
    return rec;
}

static bool payload_good(const struct check_found *f)
{
    const uint8_t *at = f->records;
    for (uint32_t n = 0; n < f->head.record_count; n++) {
        struct disk_set_entry rec = record_copy(at);
        const uint8_t *unit = f->payload + (size_t)rec.head.payload * UNIT_BYTES;
        for (uint32_t left = rec.head.kind == RECORD_SET_ENTRY ? rec.head.inlined : 0; left;
             left &= left - 1) {
            if (crc32c(unit, UNIT_BYTES) != rec.image.crc[__builtin_ctz(left)])
                return false;
            unit += UNIT_BYTES;
        }
        at += rec.head.bytes;
    }
    return true;
}

static int direct_bad(struct store_check *c, const struct disk_set_entry *rec, uint32_t *bad)
{
    *bad = 0;
    if (rec->head.kind != RECORD_SET_ENTRY || !rec->head.direct)
        return 0;
    int rc = check_read(c, c->data, c->super.slots_offset + check_slot(rec->head.entry) * BLOCK_BYTES,
                        c->buf_a, BLOCK_BYTES);
    if (check_over(rc))
        return rc;
    for (uint32_t left = rec->head.direct; left; left &= left - 1) {
        unsigned u = (unsigned)__builtin_ctz(left);
        if (rc || crc32c(c->buf_a + (size_t)u * UNIT_BYTES, UNIT_BYTES) != rec->image.crc[u])
            *bad |= 1u << u;
    }
    return 0;
}

static int last_load(struct store_check *c, struct last *l, size_t n)
{
    struct check_found f;
    int rc = check_batch_read(c, n, &f);
    if (rc)
        return rc;
    unsigned i = l->batches++;
    l->count[i] = f.head.record_count;
    l->payload_ok[i] = payload_good(&f);
    l->records[i] = malloc((size_t)f.head.record_bytes + 1);
    l->bad[i] = calloc((size_t)f.head.record_count + 1, sizeof(uint32_t));
    if (!l->records[i] || !l->bad[i])
        return -ENOMEM;
    memcpy(l->records[i], f.records, f.head.record_bytes);
    const uint8_t *at = l->records[i];
    for (uint32_t r = 0; r < l->count[i] && rc == 0; r++) {
        struct disk_set_entry rec = record_copy(at);
        rc = direct_bad(c, &rec, &l->bad[i][r]);
        at += rec.head.bytes;
    }
    return rc;
}

/* Units of entry that rec replaces: what was in them need not be there any more. */
static uint32_t replaced(const struct disk_set_entry *rec, uint32_t entry)
{
    switch (rec->head.kind) {
    case RECORD_FREE_ENTRY:
        return rec->head.entry == entry ? STORE_ALL_UNITS : 0;
    case RECORD_SET_ENTRY:
        if (rec->head.freed == entry)
            return STORE_ALL_UNITS;
        return rec->head.entry == entry ? rec->head.inlined | rec->head.direct | ~rec->image.written : 0;
    default:
        return 0;
    }
}

/* Of entry's units those that a record behind (batch, record), before batch end, replaces. */
static uint32_t replaced_later(const struct last *l, unsigned batch, uint32_t record, unsigned end,
                               uint32_t entry)
{
    uint32_t mask = 0;
    for (unsigned b = batch; b < end; b++) {
        const uint8_t *at = l->records[b];
        for (uint32_t r = 0; r < l->count[b]; r++) {
            struct disk_set_entry rec = record_copy(at);
            if (b > batch || r > record)
                mask |= replaced(&rec, entry);
            at += rec.head.bytes;
        }
    }
    return mask;
}

static bool last_whole(const struct last *l, unsigned batch, unsigned end)
{
    const uint8_t *at = l->records[batch];
    for (uint32_t r = 0; r < l->count[batch]; r++) {
        struct disk_set_entry rec = record_copy(at);
        if (l->bad[batch][r] & ~replaced_later(l, batch, r, end, rec.head.entry))
            return false;
        at += rec.head.bytes;
    }
    return l->payload_ok[batch];
}

/* The longest log in which every batch is whole; what is cut off replaces nothing any more. */
static unsigned last_end(const struct last *l)
{
    unsigned end = l->batches;
    for (unsigned n = 0; n < end;) {
        if (last_whole(l, n, end)) {
            n++;
        } else {
            end = n;
            n = 0;
        }
    }
    return end;
}

static int cut_end(struct store_check *c, const struct walk *w)
{
    struct check_journal *j = &c->journal;
    const struct check_batch *batches = j->batches.items;
    struct last l = {.batches = 0};
    size_t first = w->since_gap;
    int rc = 0;
    while (first < j->batches.count && batches[first].seq <= j->mark)
        first++;
    if (j->batches.count - first > LAST_MAX)
        first = j->batches.count - LAST_MAX;
    for (size_t n = first; n < j->batches.count && rc == 0; n++)
        rc = last_load(c, &l, n);
    j->applied = first + (rc ? 0 : last_end(&l));
    for (unsigned i = 0; i < LAST_MAX; i++) {
        free(l.records[i]);
        free(l.bad[i]);
    }
    return rc;
}

/* ---- which pages the next start changes ---- */
static void touch_entry(struct store_check *c, uint32_t entry)
{
    if (entry == STORE_NONE)
        return;
    uint32_t page = c->record_pages + entry / ENTRIES_PER_PAGE;
    c->pages[page] |= PAGE_TOUCHED;
    if (page >= c->page_count)
        c->page_count = page + 1;
}

static void touch_record(struct store_check *c, uint32_t kind, uint32_t index)
{
    uint32_t page = index / (kind == STORE_VOLUME ? RECORDS_PER_PAGE_128 : RECORDS_PER_PAGE_64);
    for (uint32_t k = 0; k < kind; k++)
        page += c->super.record_pages[k];
    c->pages[page] |= PAGE_TOUCHED;
}

static int touch_pages(struct store_check *c)
{
    for (size_t n = 0; n < c->journal.applied; n++) {
        struct check_found f;
        int rc = check_batch_read(c, n, &f);
        if (rc)
            return rc;
        const uint8_t *at = f.records;
        for (uint32_t r = 0; r < f.head.record_count; r++) {
            struct disk_record rec;
            memcpy(&rec, at, sizeof rec);
            if (rec.kind == RECORD_SET_RECORD)
                touch_record(c, rec.freed, rec.entry);
            else
                touch_entry(c, rec.entry);
            if (rec.kind == RECORD_SET_ENTRY)
                touch_entry(c, rec.freed);
            at += rec.bytes;
        }
        c->report.records += f.head.record_count;
    }
    return 0;
}

static void tell(struct store_check *c)
{
    struct check_journal *j = &c->journal;
    const struct check_batch *batches = j->batches.items;
    struct store_check_report *r = &c->report;
    j->end_seq = j->applied ? batches[j->applied - 1].seq : c->super.tail_seq - 1;
    r->end_seq = j->end_seq;
    r->batches = j->applied;
    r->batches_cut = j->batches.count - j->applied;
    if (r->batches)
        check_found(c, STORE_FINDING_JOURNAL_PENDING, -1, r->batches,
                    "journal: %lu batches with %lu changes are applied at the next start",
                    (unsigned long)r->batches, (unsigned long)r->records);
    if (r->batches_cut)
        check_found(
            c, STORE_FINDING_JOURNAL_TORN, -1, r->batches_cut,
            "journal: the last %lu batches are not whole: they were cut off before they were acknowledged",
            (unsigned long)r->batches_cut);
}

int check_journal_walk(struct store_check *c)
{
    struct walk w = {.pos = c->super.tail_pos, .seq = c->super.tail_seq, .crc = c->super.tail_prev_crc};
    int rc;
    do {
        rc = walk_chain(c, &w);
        if (rc == 0)
            rc = walk_gap(c, &w);
    } while (rc == 1 && w.gaps < CHECK_GAPS_MAX);
    if (rc == 1) {
        check_found(c, STORE_FINDING_JOURNAL_GAPS_MANY, -1, w.gaps, "journal: more than %u gaps",
                    CHECK_GAPS_MAX - 1);
        rc = 0;
    }
    if (rc == 0)
        rc = cut_end(c, &w);
    if (rc == 0)
        rc = touch_pages(c);
    c->journal.readable = rc == 0;
    if (rc == 0)
        tell(c);
    else if (!check_over(rc))
        check_found(c, STORE_FINDING_JOURNAL_UNREADABLE, -1, c->journal.window_offset,
                    "the journal on %s can not be read (%s): the next start would fail",
                    c->journal_device->name, strerror(-rc));
    return check_over(rc) ? rc : 0;
}
