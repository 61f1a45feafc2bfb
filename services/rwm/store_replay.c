/*
 * store_replay.c: finds the end of the journal, tells torn from rotten, and applies what is there.
 *
 * 1. Walk from the tail along the chain (position, seq, CRC of the batch before).
 * 2. Where it ends, look at the whole ring for batches of this life with a later seq. If one of them says
 * (mark) that the missing one had been durable, or the witness or a metadata page does, this is damage: say
 * so, and go on behind the gap, if something is there. Else it is the end.
 * 3. The last batches, beyond every mark, may have been cut off between their own write and their direct
 * writes: check the data, and end before the first batch that lacks some. Units that a later batch of the log
 * replaced are not checked: its write-back or reuse may have begun.
 * 4. Apply, batch by batch: entries and records into their pages, payloads as overlay. All records carry
 * whole images, so pages that are newer already come to the same end.
 */
#include "services/rwm/store_replay.h"

#include "common/log.h"

static void replay_step(struct store *s);

/* ---- the window ---- */
static void window_read(struct sio *sio, int rc)
{
    struct store *s = sio->s;
    struct replay *r = s->replay;
    r->reading = false;
    if (rc) {
        open_fail(s, rc, "reading the journal at %lu failed (%d)", (unsigned long)r->window_offset, rc);
        return;
    }
    replay_step(s);
}

/* True when length bytes of the ring at offset are in memory at *out; else they are being read. */
bool window_have(struct store *s, uint64_t offset, uint64_t length, const uint8_t **out)
{
    struct replay *r = s->replay;
    struct journal *j = &s->journal;
    MUST(offset + length <= j->bytes && length <= WINDOW_BYTES);
    if (offset >= r->window_offset && offset + length <= r->window_offset + r->window_length) {
        *out = r->window + (offset - r->window_offset);
        return true;
    }
    r->window_offset = offset;
    r->window_length = min_u64(WINDOW_BYTES, j->bytes - offset);
    r->reading = true;
    sio_init(&r->sio, s, window_read);
    sio_rw(&r->sio, j->device, DEVICE_READ, j->offset + offset, r->window, r->window_length);
    return false;
}

/* ---- one batch ---- */
/* Records that do not fit their frame: no batch of ours has them. */
static bool records_ok(const struct store *s, const struct disk_batch *h, const uint8_t *at)
{
    const uint8_t *end = at + h->record_bytes;
    for (uint32_t n = 0; n < h->record_count; n++) {
        struct disk_record rec;
        if ((size_t)(end - at) < sizeof rec)
            return false;
        memcpy(&rec, at, sizeof rec);
        if (rec.bytes < sizeof rec || rec.bytes > end - at || rec.bytes % 8)
            return false;
        if (!record_sane(s, h, &rec, at))
            return false;
        at += rec.bytes;
    }
    return at == end;
}

static bool payload_ok(const struct disk_batch *h, const uint8_t *batch, const uint8_t *payload)
{
    const uint8_t *at = batch + sizeof *h;
    for (uint32_t n = 0; n < h->record_count; n++) {
        struct disk_set_entry rec;
        memcpy(&rec.head, at, sizeof rec.head);
        if (rec.head.kind == RECORD_SET_ENTRY) {
            memcpy(&rec, at, sizeof rec);
            const uint8_t *unit = payload + (size_t)rec.head.payload * UNIT_BYTES;
            for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
                if (!(rec.head.inlined & (1u << u)))
                    continue;
                if (crc32c(unit, UNIT_BYTES) != rec.image.crc[u])
                    return false;
                unit += UNIT_BYTES;
            }
        }
        at += rec.head.bytes;
    }
    return true;
}

/* Is there a batch of this life at pos? 1 with r->found filled, 0, or -EAGAIN (being read). */
static int batch_at(struct store *s, uint64_t offset)
{
    struct replay *r = s->replay;
    const struct journal *j = &s->journal;
    const uint8_t *p;
    struct disk_batch h;
    if (offset + sizeof h > j->bytes)
        return 0;
    if (!window_have(s, offset, min_u64(BATCH_BUFFER_BYTES, j->bytes - offset), &p))
        return -EAGAIN;
    memcpy(&h, p, sizeof h);
    if (h.magic != STORE_BATCH_MAGIC || !uuid_eq(&h.store, &s->super.store) || h.salt != s->super.salt ||
        h.start_counter != s->super.start_counter || h.pos % j->bytes != offset ||
        h.seq < s->super.tail_seq || h.pos < s->super.tail_pos || h.mark >= h.seq)
        return 0;
    if (h.record_bytes > BATCH_BUFFER_BYTES - sizeof h || h.payload_units > BATCH_UNITS)
        return 0;
    uint32_t used = (uint32_t)sizeof h + h.record_bytes;
    uint64_t bytes = batch_bytes(j, used, h.payload_units);
    if (offset + bytes > j->bytes || h.pos + bytes - s->super.tail_pos > j->bytes)
        return 0;
    if (!window_have(s, offset, bytes, &p))
        return -EAGAIN;
    struct disk_batch zero = h;
    zero.crc = 0;
    if (crc32c_extend(crc32c(&zero, sizeof zero), p + sizeof h, h.record_bytes) != h.crc)
        return 0;
    if (!records_ok(s, &h, p + sizeof h))
        return 0;
    r->found.head = h;
    r->found.bytes = p;
    r->found.payload = p + round_up(used, j->align);
    r->found.end = h.pos + bytes;
    return 1;
}

/* ---- 1: the chain ---- */
static void chain_accept(struct store *s)
{
    struct replay *r = s->replay;
    const struct disk_batch *h = &r->found.head;
    struct segment *g = &r->segments[r->segment_count - 1];
    g->last_seq = h->seq;
    r->pos = r->found.end;
    r->crc = h->crc;
    r->seq = h->seq + 1;
    r->trace = false;
    r->mark = max_u64(r->mark, h->mark);
    r->seen_seq = max_u64(r->seen_seq, h->seq);
    struct recent *c = &r->recent[r->recent_count++ % RECENT_BATCHES];
    c->seq = h->seq;
    c->start = h->pos;
    c->records = h->record_count;
    c->payload_ok = payload_ok(h, r->found.bytes, r->found.payload);
    memset(c->bad, 0, sizeof c->bad);
    memcpy(c->bytes, r->found.bytes, sizeof *h + h->record_bytes);
}

/* What lies at pos is not the next batch: is it what rot left of it? */
static bool trace_at(struct store *s, uint64_t pos)
{
    const struct replay *r = s->replay;
    struct disk_batch h;
    const uint8_t *p;
    if (pos % s->journal.bytes + sizeof h > s->journal.bytes ||
        !window_have(s, pos % s->journal.bytes, sizeof h, &p))
        return false;
    memcpy(&h, p, sizeof h);
    return h.seq == r->seq || (pos && h.pos == pos);
}

/* The next batch of the chain: where the last one ended, or, not fitting there, at the start of the ring. */
static int chain_next(struct store *s)
{
    struct replay *r = s->replay;
    const struct journal *j = &s->journal;
    uint64_t lap = r->pos % j->bytes ? r->pos - r->pos % j->bytes + j->bytes : r->pos;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t pos = i ? lap : r->pos;
        /* The two places may not fit one window: what was seen at the first is not read again. */
        if (i == 0 && r->absent_pos == r->pos && r->absent_seq == r->seq)
            continue;
        int rc = batch_at(s, pos % j->bytes);
        if (rc < 0)
            return rc;
        const struct disk_batch *h = &r->found.head;
        if (rc && h->pos == pos && h->seq == r->seq && (r->any_crc || h->prev_crc == r->crc))
            return 1;
        r->trace = r->trace || (rc == 0 && trace_at(s, pos));
        if (i == 0) {
            r->absent_pos = r->pos;
            r->absent_seq = r->seq;
        }
    }
    return 0;
}

static void segment_begin(struct store *s, uint64_t pos, uint64_t seq, bool any_crc, uint32_t crc)
{
    struct replay *r = s->replay;
    if (r->segment_count == SEGMENTS_MAX) {
        open_fail(s, -EBADMSG, "the journal has more than %u gaps", SEGMENTS_MAX);
        return;
    }
    r->segments[r->segment_count++] =
        (struct segment){.pos = pos, .seq = seq, .last_seq = seq - 1, .crc = crc};
    r->pos = pos;
    r->seq = seq;
    r->crc = crc;
    r->any_crc = any_crc;
}

static bool walk(struct store *s)
{
    struct replay *r = s->replay;
    for (;;) {
        int rc = chain_next(s);
        if (rc < 0)
            return false;
        if (rc == 0)
            break;
        if (r->any_crc)
            r->segments[r->segment_count - 1].crc = r->found.head.prev_crc;
        r->any_crc = false;
        chain_accept(s);
    }
    r->phase = REPLAY_SCAN;
    r->scan = 0;
    r->scan_seq = r->scan_pos = r->scan_mark = 0;
    return true;
}

/* ---- 2: torn or rotten ---- */
/* The journal ends before what witness or pages say was durable, and nothing later is in it. False: the open
 * fails.
 */
static bool end_missing(struct store *s)
{
    struct replay *r = s->replay;
    if (s->journal.device != s->data && !r->trace) {
        open_fail(
            s, -ESTALE,
            "the journal device %s ends at batch %lu, and %lu had been durable: put back from a copy? refused",
            s->journal.device->name, (unsigned long)r->seq - 1, (unsigned long)r->mark);
        return false;
    }
    log_warn(s->env, "the end of the journal is missing", "device=%s from=%lu to=%lu",
             s->journal.device->name, (unsigned long)r->seq, (unsigned long)r->mark);
    s->damaged = true;
    r->suspect_below = r->mark + 1;
    r->seen_seq = max_u64(r->seen_seq, r->mark);
    r->recent_count = 0; /* all that is left is below the mark */
    return true;
}

static bool scan(struct store *s)
{
    struct replay *r = s->replay;
    const struct journal *j = &s->journal;
    for (; r->scan + sizeof(struct disk_batch) <= j->bytes; r->scan += j->align) {
        const uint8_t *p;
        uint32_t magic;
        if (!window_have(s, r->scan, min_u64(j->align, j->bytes - r->scan), &p))
            return false;
        memcpy(&magic, p, sizeof magic);
        if (magic != STORE_BATCH_MAGIC)
            continue;
        int rc = batch_at(s, r->scan);
        if (rc < 0)
            return false;
        const struct disk_batch *h = &r->found.head;
        if (rc == 0 || h->seq < r->seq || h->pos < r->pos)
            continue;
        r->seen_seq = max_u64(r->seen_seq, h->seq);
        r->scan_mark = max_u64(r->scan_mark, h->mark);
        if (!r->scan_seq || h->seq < r->scan_seq) {
            r->scan_seq = h->seq;
            r->scan_pos = h->pos;
        }
    }
    bool missing = max_u64(r->scan_mark, r->mark) >= r->seq;
    if (missing && !r->scan_seq && !end_missing(s))
        return false;
    if (!missing || !r->scan_seq) {
        r->phase = REPLAY_VERIFY;
        verify_begin(s);
        return true;
    }
    log_warn(s->env, "journal batches that were durable are missing", "device=%s from=%lu to=%lu",
             s->journal.device->name, (unsigned long)r->seq, (unsigned long)r->scan_seq - 1);
    s->damaged = true;
    r->suspect_below = r->scan_seq;
    r->recent_count = 0; /* what lies before the gap is below the mark */
    r->phase = REPLAY_WALK;
    segment_begin(s, r->scan_pos, r->scan_seq, true, 0);
    return true;
}

/* ---- 4: apply ---- */
static void apply_end(struct store *s)
{
    struct replay *r = s->replay;
    struct journal *j = &s->journal;
    if (r->suspect_below > s->super.suspect_below) {
        s->super.suspect_below = r->suspect_below;
        s->super_update.next.suspect_below = r->suspect_below;
    }
    j->tail = s->super.tail_pos;
    j->head = j->durable_pos = r->end_pos;
    j->next_seq = max_u64(r->seen_seq, s->super.tail_seq) + SEQ_STEP;
    j->durable_seq = j->next_seq - 1;
    j->durable_crc = j->last_crc = 0;
    open_report(s)->replayed_records = r->applied;
    r->phase = REPLAY_DONE;
    void (*done)(struct store *, int) = r->done;
    replay_destroy(s);
    done(s, 0);
}

/* Applies the batch in r->found from r->record on. */
static bool apply_batch(struct store *s)
{
    struct replay *r = s->replay;
    while (r->record < r->found.head.record_count) {
        struct disk_record rec;
        memcpy(&rec, r->found.bytes + r->record_at, sizeof rec);
        if (!replay_apply(s, &rec, r->found.bytes + r->record_at,
                          r->found.payload + (size_t)rec.payload * UNIT_BYTES, r->found.head.seq))
            return false;
        r->record_at += rec.bytes;
        r->record++;
        r->applied++;
    }
    return true;
}

static void next_segment(struct store *s)
{
    struct replay *r = s->replay;
    const struct segment *g = &r->segments[r->segment];
    r->pos = g->pos;
    r->seq = g->seq;
    r->crc = g->crc;
    r->in_batch = false;
}

static bool apply(struct store *s)
{
    struct replay *r = s->replay;
    for (;;) {
        const struct segment *g = &r->segments[r->segment];
        if (!r->in_batch && r->seq > min_u64(g->last_seq, r->end_seq)) {
            if (++r->segment == r->segment_count) {
                apply_end(s);
                return false;
            }
            next_segment(s);
            continue;
        }
        if (!r->in_batch) {
            int rc = chain_next(s);
            if (rc < 0)
                return false;
            if (rc == 0) {
                open_fail(s, -EBADMSG, "the journal changes while it is read: a failing device?");
                return false;
            }
            r->in_batch = true;
            r->record = 0;
            r->record_at = sizeof(struct disk_batch);
        }
        if (!apply_batch(s))
            return false;
        r->in_batch = false;
        r->pos = r->found.end;
        r->crc = r->found.head.crc;
        r->seq++;
    }
}

void replay_verified(struct store *s, uint64_t end_seq, uint64_t end_pos)
{
    struct replay *r = s->replay;
    r->end_seq = end_seq;
    r->end_pos = end_pos;
    r->segment = 0;
    r->any_crc = false;
    next_segment(s);
    r->phase = REPLAY_APPLY;
}

static void replay_step(struct store *s)
{
    bool on = true;
    while (on && s->replay && !s->replay->reading && !open_finished(s)) {
        switch (s->replay->phase) {
        case REPLAY_WALK:
            on = walk(s);
            break;
        case REPLAY_SCAN:
            on = scan(s);
            break;
        case REPLAY_VERIFY:
            on = verify(s);
            break;
        case REPLAY_APPLY:
            on = apply(s);
            break;
        case REPLAY_DONE:
            return;
        }
    }
}

void replay_go_on(struct store *s)
{
    replay_step(s);
}

/* All frames are dirty: some must be written before replay can go on. The tail stays, so nothing is decided
 * by it. */
void replay_ready(struct store *s)
{
    struct replay *r = s->replay;
    if (!r || r->reading || s->broken || open_finished(s))
        return;
    if ((r->no_frame || !list_empty(&s->meta.starved)) && s->ck.state == CK_IDLE) {
        if (list_empty(&s->meta.dirty)) {
            if (r->no_frame) {
                r->no_frame = false;
                replay_step(s);
            }
            return;
        }
        r->no_frame = false;
        r->spilling = true;
        checkpoint_start(s, true, NULL);
    } else if (r->spilling && s->ck.state == CK_IDLE) {
        r->spilling = false;
        if (!r->waiting)
            replay_step(s);
    }
}

void replay_start(struct store *s, void (*done)(struct store *s, int rc))
{
    struct replay *r = calloc(1, sizeof *r);
    uint8_t *window = aligned_alloc(STORE_PAGE_BYTES, WINDOW_BYTES);
    uint8_t *verify_buf = aligned_alloc(STORE_PAGE_BYTES, BLOCK_BYTES);
    uint8_t *recent = calloc(RECENT_BATCHES, BATCH_BUFFER_BYTES);
    s->replay = r;
    if (!r || !window || !verify_buf || !recent) {
        free(window);
        free(verify_buf);
        free(recent);
        free(r);
        s->replay = NULL;
        open_fail(s, -ENOMEM, "not enough memory to read the journal");
        return;
    }
    r->window = window;
    r->verify_buf = verify_buf;
    r->recent_bytes = recent;
    for (unsigned i = 0; i < RECENT_BATCHES; i++)
        r->recent[i].bytes = recent + (size_t)i * BATCH_BUFFER_BYTES;
    r->done = done;
    r->seen_seq = s->super.tail_seq - 1;
    r->mark = open_durable_seq(s);
    r->phase = REPLAY_WALK;
    list_init(&r->frame_wait.link);
    segment_begin(s, s->super.tail_pos, s->super.tail_seq, false, s->super.tail_prev_crc);
    replay_step(s);
}

void replay_destroy(struct store *s)
{
    struct replay *r = s->replay;
    if (!r)
        return;
    free(r->window);
    free(r->verify_buf);
    free(r->recent_bytes);
    free(r);
    s->replay = NULL;
}
