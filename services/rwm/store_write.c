/*
 * store_write.c: writes, clears, removals and records: from the queue into a batch, and from a durable batch
 * into the metadata.
 *
 * A writer starts from the image that the block will have when all writers before it are done (pending), and
 * leaves the next one; readers see the durable one. Payload goes one of three ways:
 *  - direct: straight into units of the slot that hold nothing, now or pending, beside the batch and under
 * the same flush;
 *  - redirected: a whole block into a new slot, direct; the old slot is free when the record is durable and
 * its readers left;
 *  - inlined: into the batch; kept in memory (overlay) and written to its place by a checkpoint.
 */
#include "services/rwm/store_internal.h"

#define INLINE_SMALL_UNITS                                                                                   \
    8u /* on a journal whose writes are durable, up to here no flush of the data device */

uint64_t slot_offset(const struct store *s, uint32_t entry)
{
    uint64_t slot = (uint64_t)entry_page(entry) * ENTRY_SLOTS + entry % ENTRIES_PER_PAGE;
    return s->super.slots_offset + slot * BLOCK_BYTES;
}

bool entry_suspect(const struct store *s, const struct disk_entry *e)
{
    return e ? e->lsn < s->super.suspect_below
             : s->super.suspect_below || (s->super.flags & SUPER_PAGES_LOST);
}

/* ---- pending images ---- */
static uint32_t pending_entry(const struct blk *b)
{
    return b->pending ? b->pend_entry : b->entry;
}

static void pending_image(const struct blk *b, struct disk_entry *out)
{
    const struct disk_entry *e =
        b->pending ? (b->pend_entry == STORE_NONE ? NULL : &b->pend) : blk_durable(b);
    if (e) {
        *out = *e;
        return;
    }
    memset(out, 0, sizeof *out);
    out->layer = b->key.layer;
    out->block = b->key.block;
    out->hash = b->key.hash;
}

static bool pending_suspect(const struct store *s, const struct blk *b)
{
    if (b->pending)
        return b->pend_entry == STORE_NONE ? false : entry_suspect(s, &b->pend);
    return entry_suspect(s, blk_durable(b));
}

static void unreserve(struct req *r)
{
    for (unsigned k = 0; k < 2; k++) {
        if (r->reserved & (1u << k)) {
            MUST(r->s->alloc.reserved[k]);
            r->s->alloc.reserved[k]--;
        }
    }
    r->reserved = 0;
}

/* Takes an entry of the kind: the one reserved for r, or a spare one. */
static int take_entry(struct req *r, enum alloc_kind kind)
{
    struct store *s = r->s;
    if (!(r->reserved & (1u << kind)) && !alloc_spare(&s->alloc, kind))
        return -ENOSPC;
    return alloc_take(s, kind, &r->entry, &r->pin);
}

/* ---- payload ---- */
static const uint8_t *op_unit(const struct store_op *op, uint32_t n)
{
    uint64_t at = (uint64_t)n * UNIT_BYTES;
    for (int i = 0;; i++) {
        MUST(i < op->iovcnt);
        if (at < op->iov[i].iov_len)
            return (const uint8_t *)op->iov[i].iov_base + at;
        at -= op->iov[i].iov_len;
    }
}

static void inline_payload(struct req *r)
{
    struct store *s = r->s;
    for (uint32_t i = 0; i < r->op->unit_count; i++) {
        if (!(r->inlined >> (r->op->first_unit + i) & 1u))
            continue;
        uint32_t id = slab_get(&s->units);
        MUST(id != SLAB_NONE);
        memcpy(slab_at(&s->units, id), op_unit(r->op, i), UNIT_BYTES);
        r->units[r->op->first_unit + i] = id;
    }
}

static void direct_done(struct sio *sio, int rc)
{
    batch_data_done(container_of(sio, struct req, sio)->batch, rc);
}

static void direct_write(struct req *r)
{
    struct store *s = r->s;
    const struct store_op *op = r->op;
    uint64_t bytes = (uint64_t)op->unit_count * UNIT_BYTES;
    r->batch->ios++;
    r->batch->data_written = true;
    sio_init(&r->sio, s, direct_done);
    sio_submit(&r->sio, s->data, DEVICE_WRITE,
               slot_offset(s, r->entry) + (uint64_t)op->first_unit * UNIT_BYTES, op->iov, op->iovcnt, bytes);
}

/* ---- into a batch ---- */
static void append_entry(struct req *r, struct batch *batch, const struct disk_entry *image)
{
    struct blk *b = r->b;
    struct disk_set_entry rec = {.head = {.kind = RECORD_SET_ENTRY,
                                          .bytes = sizeof rec,
                                          .entry = r->entry,
                                          .freed = r->freed,
                                          .inlined = r->inlined,
                                          .direct = r->direct,
                                          .payload = batch->units},
                                 .image = *image};
    rec.image.lsn = batch->seq;
    rec.image.flags = ENTRY_VALID;
    journal_append(batch, r, &rec, sizeof rec);
    b->pend = rec.image;
    b->pend_entry = r->entry;
    b->pending++;
    b->touched |= r->mask;
    unreserve(r);
}

enum write_path { PATH_NEW, PATH_DIRECT, PATH_REDIRECT, PATH_INLINE };

static enum write_path choose_path(const struct req *r, const struct disk_entry *p)
{
    const struct store *s = r->s;
    const struct blk *b = r->b;
    if (!entry_has_slot(pending_entry(b)))
        return PATH_NEW;
    bool small = s->journal.device->durable_writes && r->op->unit_count <= INLINE_SMALL_UNITS;
    const struct disk_entry *d = blk_durable(b);
    bool empty = !(p->written & r->mask) && !(d && (d->written & r->mask)) && !(b->touched & r->mask) &&
                 b->readers[0] + b->readers[1] == 0 && b->wb == WB_NONE;
    if (empty && !small)
        return PATH_DIRECT;
    if (r->mask == STORE_ALL_UNITS && alloc_spare(&s->alloc, ALLOC_SLOT))
        return PATH_REDIRECT;
    return PATH_INLINE;
}

static void write_image(const struct req *r, struct disk_entry *p)
{
    const struct store_op *op = r->op;
    p->epoch = op->version.epoch;
    p->counter = op->version.counter;
    p->written = op->replace ? op->written : p->written | r->mask;
    for (uint32_t i = 0; i < op->unit_count; i++) {
        uint32_t unit = op->first_unit + i;
        if (!(p->written >> unit & 1u))
            p->crc[unit] = 0;
        else if (op->replace && op->lost >> unit & 1u)
            p->crc[unit] = ~crc32c_zero_unit(); /* what lies there, zeroes or of before, is not that */
        else
            p->crc[unit] = op->unit_crcs[i];
    }
}

static int exec_write(struct req *r)
{
    struct store *s = r->s;
    struct blk *b = r->b;
    struct disk_entry p;
    if (r->mask != STORE_ALL_UNITS && pending_suspect(s, b))
        return -EBADMSG;
    pending_image(b, &p);
    enum write_path path = choose_path(r, &p);
    uint32_t old = pending_entry(b);
    bool small = s->journal.device->durable_writes && r->op->unit_count <= INLINE_SMALL_UNITS;
    bool inlined = path == PATH_INLINE || (path == PATH_NEW && small);
    uint32_t data = r->op->replace ? r->op->written & ~r->op->lost : r->mask; /* units that carry data */
    uint32_t units = inlined ? (uint32_t)__builtin_popcount(data) : 0;
    if (units && (slab_left(&s->units) < units || s->units.used + units > s->units_limit)) {
        checkpoint_want(s);
        return -EAGAIN;
    }
    struct batch *batch = journal_room(s, sizeof(struct disk_set_entry), units);
    if (!batch)
        return -EAGAIN;
    r->entry = old;
    r->freed = STORE_NONE;
    if (path == PATH_NEW || path == PATH_REDIRECT) {
        int rc = take_entry(r, ALLOC_SLOT);
        if (rc)
            return rc;
        r->freed = old;
    }
    if (inlined) {
        r->inlined = data;
        inline_payload(r);
        s->stats.journaled_writes++;
    } else {
        r->direct = data;
        if (path == PATH_REDIRECT)
            s->stats.redirected_writes++;
        else
            s->stats.direct_writes++;
    }
    write_image(r, &p);
    append_entry(r, batch, &p);
    if (r->direct)
        direct_write(r);
    return 0;
}

static int exec_remove(struct req *r)
{
    struct store *s = r->s;
    struct blk *b = r->b;
    uint32_t old = pending_entry(b);
    struct batch *batch = journal_room(s, sizeof(struct disk_record), 0);
    if (!batch)
        return -EAGAIN;
    struct disk_record rec = {
        .kind = RECORD_FREE_ENTRY, .bytes = sizeof rec, .entry = old, .freed = STORE_NONE};
    r->entry = STORE_NONE;
    r->freed = old;
    journal_append(batch, r, &rec, sizeof rec);
    b->pend_entry = STORE_NONE;
    b->pending++;
    b->touched = STORE_ALL_UNITS;
    unreserve(r);
    return 0;
}

static void nothing_proved(struct sio *sio, int rc)
{
    req_finish(container_of(sio, struct req, sio), rc);
}

/* Absent, durably so: no record is needed. But that is an answer from memory, as a read's may be
 * (store_read.c), and a wrong one if another agent has the LUN by now, and the block. */
static void clear_nothing(struct req *r)
{
    if (store_may_be_taken(r->s))
        store_prove(r, nothing_proved);
    else
        req_finish(r, 0);
}

static int exec_clear(struct req *r)
{
    struct store *s = r->s;
    struct blk *b = r->b;
    struct disk_entry p;
    if (r->mask != STORE_ALL_UNITS && pending_suspect(s, b))
        return -EBADMSG;
    pending_image(b, &p);
    uint32_t old = pending_entry(b);
    p.written &= ~r->mask;
    if (r->op->forget && p.written == 0) {
        if (old == STORE_NONE && b->pending == 0) {
            unreserve(r);
            clear_nothing(r);
            return 0;
        }
        r->kind = REQ_REMOVE;
        return exec_remove(r);
    }
    struct batch *batch = journal_room(s, sizeof(struct disk_set_entry), 0);
    if (!batch)
        return -EAGAIN;
    p.epoch = r->op->version.epoch;
    p.counter = r->op->version.counter;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (r->mask & (1u << u))
            p.crc[u] = 0;
    }
    r->entry = old;
    r->freed = STORE_NONE;
    if (p.written == 0 && (old == STORE_NONE || entry_has_slot(old))) {
        /* All hole: it needs no slot. Without an entry for it a block keeps its slot, an absent one takes
         * one. */
        int rc = take_entry(r, ALLOC_HOLE);
        if (rc == -ENOSPC && old == STORE_NONE)
            rc = take_entry(r, ALLOC_SLOT);
        if (rc == -EAGAIN || (rc && old == STORE_NONE))
            return rc;
        if (rc == 0)
            r->freed = old;
    }
    append_entry(r, batch, &p);
    return 0;
}

static int exec_record(struct req *r)
{
    struct store *s = r->s;
    uint32_t image = s->record_bytes[r->record_kind];
    uint8_t buf[sizeof(struct disk_record) + sizeof r->image];
    uint32_t bytes = (uint32_t)sizeof(struct disk_record) + image;
    struct batch *batch = journal_room(s, bytes, 0);
    if (!batch)
        return -EAGAIN;
    struct disk_record rec = {.kind = RECORD_SET_RECORD,
                              .bytes = (uint16_t)bytes,
                              .entry = r->record_index,
                              .freed = r->record_kind};
    memcpy(buf, &rec, sizeof rec);
    memcpy(buf + sizeof rec, r->image, image);
    journal_append(batch, r, buf, bytes);
    return 0;
}

int exec_request(struct req *r)
{
    /* load_rc: the block's page can not be read; what is there is not known, and the next open will tell. */
    int rc = r->s->broken ? r->s->broken : r->b ? r->b->load_rc : 0;
    if (!rc) {
        switch (r->kind) {
        case REQ_WRITE:
            rc = exec_write(r);
            break;
        case REQ_CLEAR:
            rc = exec_clear(r);
            break;
        case REQ_REMOVE:
            rc = exec_remove(r);
            break;
        case REQ_RECORD:
            rc = exec_record(r);
            break;
        default:
            MUST(!"not a writer");
        }
    }
    if (rc == 0 || rc == -EAGAIN)
        return rc;
    unreserve(r);
    req_finish(r, rc);
    return 0;
}

/* ---- durable ---- */
static void clear_entry(struct store *s, struct frame *f, uint32_t entry, uint64_t lsn)
{
    struct disk_entry *e = frame_entry(f, entry);
    memset(e, 0, sizeof *e);
    e->lsn = lsn;
    frame_dirty(s, f, lsn);
}

static void apply_overlay(struct req *r, const struct disk_entry *image)
{
    struct store *s = r->s;
    struct blk *b = r->b;
    bool whole = r->freed != STORE_NONE || (r->kind == REQ_WRITE && r->op->replace);
    uint32_t drop = whole ? STORE_ALL_UNITS : (r->direct | ~image->written);
    blk_overlay_drop(s, b, drop);
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (r->inlined & (1u << u))
            blk_overlay_set(s, b, u, r->units[u]);
    }
}

static void apply_set(struct req *r)
{
    struct store *s = r->s;
    struct blk *b = r->b;
    const struct disk_set_entry *rec = (const void *)(r->batch->buffer + r->record_at);
    struct frame *f = r->pin ? r->pin : b->frame;
    MUST(b->entry == (r->pin ? r->freed : r->entry));
    *frame_entry(f, r->entry) = rec->image;
    frame_dirty(s, f, rec->image.lsn);
    apply_overlay(r, &rec->image);
    if (r->pin) {
        if (r->freed == STORE_NONE) {
            index_insert(&s->index, r->entry, &b->key);
        } else {
            clear_entry(s, b->frame, r->freed, rec->image.lsn);
            index_move(&s->index, r->freed, r->entry);
            frame_unpin(s, b->frame);
        }
        b->frame = r->pin;
        b->entry = r->entry;
        r->pin = NULL;
        if (r->freed != STORE_NONE)
            blk_free_entry(s, b, r->freed);
    }
}

static void apply_remove(struct req *r)
{
    struct store *s = r->s;
    struct blk *b = r->b;
    MUST(b->entry == r->freed);
    if (b->entry == STORE_NONE)
        return;
    blk_overlay_drop(s, b, STORE_ALL_UNITS);
    clear_entry(s, b->frame, r->freed, r->batch->seq);
    index_remove(&s->index, r->freed);
    frame_unpin(s, b->frame);
    b->frame = NULL;
    b->entry = STORE_NONE;
    blk_free_entry(s, b, r->freed);
}

void record_write(struct store *s, enum store_record_kind kind, uint32_t index, const void *image,
                  uint64_t lsn)
{
    uint32_t bytes = s->record_bytes[kind];
    uint32_t per_page = bytes == 64 ? RECORDS_PER_PAGE_64 : RECORDS_PER_PAGE_128;
    uint32_t page = index / per_page;
    for (unsigned k = 0; k < (unsigned)kind; k++)
        page += s->super.record_pages[k];
    /* Pages of records have the first frames, in order. */
    struct frame *f = &s->meta.frames[page];
    MUST(f->resident && f->page == page);
    ((struct disk_page_head *)(void *)f->data)->lost &= ~(1ull << (index % per_page));
    memcpy(f->data + sizeof(struct disk_page_head) + (size_t)(index % per_page) * bytes, image, bytes);
    frame_dirty(s, f, lsn);
}

void apply_request(struct req *r)
{
    if (r->kind == REQ_RECORD) {
        record_write(r->s, r->record_kind, r->record_index, r->image, r->batch->seq);
        return;
    }
    if (r->kind == REQ_REMOVE)
        apply_remove(r);
    else
        apply_set(r);
    struct blk *b = r->b;
    if (--b->pending == 0) {
        b->touched = 0;
        MUST(b->pend_entry == b->entry);
    }
}
