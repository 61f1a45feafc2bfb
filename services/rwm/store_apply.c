/*
 * store_apply.c: the second half of replay: are the data of the last batches there, and putting records into
 * pages.
 */
#include "services/rwm/store_replay.h"

/* ---- what a record may say ---- */
static bool set_entry_sane(const struct store *s, const struct disk_batch *h, const uint8_t *at)
{
    struct disk_set_entry rec;
    memcpy(&rec, at, sizeof rec);
    uint32_t entries = s->index.entries, units = rec.head.inlined | rec.head.direct;
    if (rec.head.bytes != sizeof rec || rec.head.entry >= entries || rec.head.entry == rec.head.freed ||
        (rec.head.freed >= entries && rec.head.freed != STORE_NONE) || !(rec.image.flags & ENTRY_VALID) ||
        !entry_sane(s, rec.head.entry, &rec.image))
        return false;
    if ((units & ~rec.image.written) || (rec.head.inlined & rec.head.direct))
        return false;
    uint32_t payload = (uint32_t)__builtin_popcount(rec.head.inlined);
    return rec.head.payload <= h->payload_units && payload <= h->payload_units - rec.head.payload;
}

bool record_sane(const struct store *s, const struct disk_batch *h, const struct disk_record *rec,
                 const uint8_t *at)
{
    switch (rec->kind) {
    case RECORD_SET_ENTRY:
        return rec->bytes >= sizeof(struct disk_set_entry) && set_entry_sane(s, h, at);
    case RECORD_FREE_ENTRY:
        return rec->bytes == sizeof *rec && (rec->entry < s->index.entries || rec->entry == STORE_NONE);
    case RECORD_SET_RECORD:
        return rec->freed <= STORE_TURN && rec->entry < s->super.records[rec->freed] &&
               rec->bytes == sizeof *rec + s->record_bytes[rec->freed];
    default:
        return false;
    }
}

/* ---- 3: are the data there ---- */
static struct recent *recent_at(struct replay *r, uint64_t number)
{
    return &r->recent[number % RECENT_BATCHES];
}

/* Number of the first batch beyond every mark. */
static uint64_t first_unmarked(struct replay *r)
{
    uint64_t n = r->recent_count > RECENT_BATCHES ? r->recent_count - RECENT_BATCHES : 0;
    while (n < r->recent_count && recent_at(r, n)->seq <= r->mark)
        n++;
    return n;
}

/* Does rec settle what lies in the units of entry, so that an older direct write need not be there any more?
 */
static uint32_t superseded(const struct disk_set_entry *rec, uint32_t entry)
{
    if (rec->head.kind == RECORD_SET_RECORD)
        return 0;
    if (rec->head.kind == RECORD_FREE_ENTRY)
        return rec->head.entry == entry ? STORE_ALL_UNITS : 0;
    if (rec->head.freed == entry)
        return STORE_ALL_UNITS;
    if (rec->head.entry != entry)
        return 0;
    return rec->head.inlined | rec->head.direct | ~rec->image.written;
}

static void record_copy(const struct recent *c, uint32_t at, struct disk_set_entry *out)
{
    memcpy(&out->head, c->bytes + at, sizeof out->head);
    if (out->head.kind == RECORD_SET_ENTRY)
        memcpy(out, c->bytes + at, sizeof *out);
}

/* Units of entry that records behind (batch, record at) and before batch end settle. */
static uint32_t settled_later(struct replay *r, uint64_t batch, uint32_t record, uint32_t at, uint64_t end,
                              uint32_t entry)
{
    uint32_t mask = 0;
    for (; batch < end; batch++) {
        const struct recent *c = recent_at(r, batch);
        for (; record < c->records; record++) {
            struct disk_set_entry rec;
            record_copy(c, at, &rec);
            mask |= superseded(&rec, entry);
            at += rec.head.bytes;
        }
        record = 0;
        at = sizeof(struct disk_batch);
    }
    return mask;
}

/* Is all that this batch wrote beside the journal there, or settled by what follows before end? */
static bool batch_whole(struct replay *r, uint64_t number, uint64_t end)
{
    const struct recent *c = recent_at(r, number);
    if (!c->payload_ok)
        return false;
    uint32_t at = sizeof(struct disk_batch);
    for (uint32_t n = 0; n < c->records; n++) {
        struct disk_set_entry rec;
        record_copy(c, at, &rec);
        at += rec.head.bytes;
        if (c->bad[n] && (c->bad[n] & ~settled_later(r, number, n + 1, at, end, rec.head.entry)))
            return false;
    }
    return true;
}

/* The longest log in which every batch is whole. Cutting takes away what settled older units, so look again
 * each time. */
static void verify_end(struct store *s)
{
    struct replay *r = s->replay;
    uint64_t first = first_unmarked(r), end = r->recent_count;
    for (uint64_t n = first; n < end;) {
        if (batch_whole(r, n, end)) {
            n++;
            continue;
        }
        end = n;
        n = first;
    }
    if (end == r->recent_count)
        replay_verified(s, r->seq - 1, r->pos);
    else
        replay_verified(s, recent_at(r, end)->seq - 1, recent_at(r, end)->start);
}

static void verify_read(struct sio *sio, int rc)
{
    struct store *s = sio->s;
    struct replay *r = s->replay;
    struct recent *c = recent_at(r, r->verify_batch);
    struct disk_set_entry rec;
    record_copy(c, r->verify_at, &rec);
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (!(rec.head.direct & (1u << u)))
            continue;
        const uint8_t *unit = r->verify_buf + (size_t)(u - r->verify_first) * UNIT_BYTES;
        if (rc || crc32c(unit, UNIT_BYTES) != rec.image.crc[u])
            c->bad[r->verify_record] |= 1u << u;
    }
    r->verify_at += rec.head.bytes;
    r->verify_record++;
    r->reading = false;
    replay_go_on(s);
}

void verify_begin(struct store *s)
{
    struct replay *r = s->replay;
    r->verify_batch = first_unmarked(r);
    r->verify_record = 0;
    r->verify_at = sizeof(struct disk_batch);
}

bool verify(struct store *s)
{
    struct replay *r = s->replay;
    for (; r->verify_batch < r->recent_count; r->verify_batch++) {
        struct recent *c = recent_at(r, r->verify_batch);
        for (; r->verify_record < c->records; r->verify_record++) {
            struct disk_set_entry rec;
            record_copy(c, r->verify_at, &rec);
            if (rec.head.kind != RECORD_SET_ENTRY || !rec.head.direct) {
                r->verify_at += rec.head.bytes;
                continue;
            }
            uint32_t first = (uint32_t)__builtin_ctz(rec.head.direct);
            uint32_t last = 31u - (uint32_t)__builtin_clz(rec.head.direct);
            r->verify_first = first;
            r->reading = true;
            sio_init(&r->sio, s, verify_read);
            sio_rw(&r->sio, s->data, DEVICE_READ,
                   slot_offset(s, rec.head.entry) + (uint64_t)first * UNIT_BYTES, r->verify_buf,
                   (uint64_t)(last - first + 1) * UNIT_BYTES);
            return false;
        }
        r->verify_record = 0;
        r->verify_at = sizeof(struct disk_batch);
    }
    verify_end(s);
    return true;
}

/* ---- pages for a record ---- */
static void frames_release(struct store *s)
{
    struct replay *r = s->replay;
    for (unsigned i = 0; i < 3; i++) {
        if (r->frames[i])
            frame_unpin(s, r->frames[i]);
        r->frames[i] = NULL;
    }
}

static void frame_there(struct frame_wait *w, struct frame *f, int rc)
{
    struct store *s = w->s;
    struct replay *r = s->replay;
    r->waiting = false;
    if (rc) {
        open_fail(s, rc, "metadata page %u became unreadable during replay", w->page);
        return;
    }
    for (unsigned i = 0; i < 3; i++) {
        if (r->entries[i] != STORE_NONE && !r->frames[i] &&
            s->meta.record_pages + entry_page(r->entries[i]) == w->page) {
            r->frames[i] = f;
            replay_go_on(s);
            return;
        }
    }
    frame_unpin(s, f);
    replay_go_on(s);
}

/* Pages behind those in use are empty: they need no read, but all between become used. */
static bool pages_grow(struct store *s, uint32_t page)
{
    while (s->alloc.pages_used <= page) {
        struct frame *f = frame_create(s, s->meta.record_pages + s->alloc.pages_used);
        if (!f) {
            s->replay->no_frame = true;
            store_kick(s);
            return false;
        }
        frame_unpin(s, f);
        alloc_page_used(s, s->alloc.pages_used);
    }
    return true;
}

static bool frames_get(struct store *s)
{
    struct replay *r = s->replay;
    for (unsigned i = 0; i < 3; i++) {
        if (r->entries[i] == STORE_NONE || r->frames[i])
            continue;
        if (!pages_grow(s, entry_page(r->entries[i])))
            return false;
        r->frame_wait.fn = frame_there;
        if (frame_get(s, s->meta.record_pages + entry_page(r->entries[i]), &r->frame_wait, &r->frames[i])) {
            r->waiting = true;
            return false;
        }
    }
    return true;
}

/* ---- records ---- */
static void overlay_drop(struct store *s, const struct store_key *key, uint32_t mask)
{
    struct blk *b = blk_find(s, key);
    if (!b)
        return;
    blk_overlay_drop(s, b, mask);
    blk_release(s, b);
}

/* The entry holds no block any more. */
static void entry_clear(struct store *s, struct frame *f, uint32_t entry, uint64_t seq)
{
    struct disk_entry *e = frame_entry(f, entry);
    if (e->flags & ENTRY_VALID) {
        struct store_key key = entry_key(e);
        if (index_find(&s->index, &key) == entry) {
            overlay_drop(s, &key, STORE_ALL_UNITS);
            index_remove(&s->index, entry);
        }
    }
    memset(e, 0, sizeof *e);
    e->lsn = seq;
    frame_dirty(s, f, seq);
    alloc_mark(s, entry, true);
}

static void payload_keep(struct store *s, const struct disk_set_entry *rec, const struct store_key *key,
                         const uint8_t *payload)
{
    struct blk *b = blk_get(s, key);
    MUST(b); /* as many as overlay units, and those as many as the journal holds */
    b->entry = rec->head.entry;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (!(rec->head.inlined & (1u << u)))
            continue;
        const uint8_t *unit = payload;
        payload += UNIT_BYTES;
        blk_overlay_drop(s, b, 1u << u);
        if (crc32c(unit, UNIT_BYTES) != rec->image.crc[u]) {
            /* Below a mark, or verify would have ended the log here. The slot has other bytes than the
             * entry's CRC says, so reading the unit fails until it is written again. */
            open_unit_lost(s);
            continue;
        }
        uint32_t id = slab_get(&s->units);
        MUST(id != SLAB_NONE);
        memcpy(slab_at(&s->units, id), unit, UNIT_BYTES);
        blk_overlay_set(s, b, u, id);
    }
    blk_release(s, b);
}

/* Units that changed although the record brings nothing for them: lost (store_op.lost). */
static uint32_t lost_units(const struct disk_entry *old, const struct disk_set_entry *rec)
{
    uint32_t rest = rec->image.written & ~(rec->head.inlined | rec->head.direct), lost = 0;
    for (; rest; rest &= rest - 1) {
        unsigned u = (unsigned)__builtin_ctz(rest);
        if (!(old->written >> u & 1u) || old->crc[u] != rec->image.crc[u])
            lost |= 1u << u;
    }
    return lost;
}

static void apply_set_entry(struct store *s, const struct disk_set_entry *rec, const uint8_t *payload,
                            uint64_t seq)
{
    struct replay *r = s->replay;
    uint32_t entry = rec->head.entry, lost = 0;
    struct store_key key = entry_key(&rec->image);
    struct disk_entry *e = frame_entry(r->frames[0], entry);
    struct store_key old = entry_key(e);
    /* The block's other places: the one that it leaves, and the one where newer pages have it already. */
    for (unsigned i = 1; i < 3; i++) {
        if (r->entries[i] == STORE_NONE || r->entries[i] == entry)
            continue;
        struct disk_entry *o = frame_entry(r->frames[i], r->entries[i]);
        struct store_key other = entry_key(o);
        if ((o->flags & ENTRY_VALID) && key_eq(&other, &key))
            entry_clear(s, r->frames[i], r->entries[i], seq);
    }
    if ((e->flags & ENTRY_VALID) && key_eq(&old, &key))
        lost = lost_units(e, rec);
    if (!(e->flags & ENTRY_VALID) || !key_eq(&old, &key) || index_find(&s->index, &key) != entry) {
        entry_clear(s, r->frames[0], entry, seq);
        index_insert(&s->index, entry, &key);
    }
    alloc_mark(s, entry, false);
    overlay_drop(s, &key, rec->head.direct | ~rec->image.written | lost);
    *e = rec->image;
    frame_dirty(s, r->frames[0], seq);
    if (rec->head.inlined)
        payload_keep(s, rec, &key, payload);
}

bool replay_apply(struct store *s, const struct disk_record *head, const uint8_t *at, const uint8_t *payload,
                  uint64_t seq)
{
    struct replay *r = s->replay;
    if (head->kind == RECORD_SET_RECORD) {
        const uint8_t *image = at + sizeof *head;
        memcpy(s->records[head->freed] + (size_t)head->entry * s->record_bytes[head->freed], image,
               s->record_bytes[head->freed]);
        s->record_lost[head->freed][head->entry] = 0;
        record_write(s, head->freed, head->entry, image, seq);
        return true;
    }
    r->entries[0] = head->entry;
    r->entries[1] = r->entries[2] = STORE_NONE;
    struct disk_set_entry rec;
    if (head->kind == RECORD_SET_ENTRY) {
        memcpy(&rec, at, sizeof rec);
        struct store_key key = entry_key(&rec.image);
        r->entries[1] = rec.head.freed;
        r->entries[2] = index_find(&s->index, &key);
        if (r->entries[2] == rec.head.entry || r->entries[2] == rec.head.freed)
            r->entries[2] = STORE_NONE;
    }
    if (!frames_get(s))
        return false;
    if (head->kind == RECORD_SET_ENTRY)
        apply_set_entry(s, &rec, payload, seq);
    else if (head->entry != STORE_NONE)
        entry_clear(s, r->frames[0], head->entry, seq);
    frames_release(s);
    return true;
}
