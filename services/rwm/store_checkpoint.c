/*
 * store_checkpoint.c: takes what the journal protects to its place, so that the journal's space can be used
 * again.
 *
 * Overlay units to their slots, flush; dirty pages to copy A, flush; to copy B, flush; superblock with the
 * new tail. The tail is the end of what was durable when the checkpoint began: everything up to there is in
 * memory as overlay or dirty page at that moment, so whatever is added meanwhile can wait for the next one.
 * At most CK_DEPTH requests at a time, or CK_DEPTH_MAX while the journal's space runs out.
 */
#include "services/rwm/store_internal.h"

static void page_io_done(struct sio *sio, int rc);
static void wb_io_done(struct sio *sio, int rc);

int checkpoint_create(struct store *s)
{
    struct checkpoint *ck = &s->ck;
    list_init(&ck->overlays);
    list_init(&ck->pages);
    list_init(&ck->pages_done);
    list_init(&ck->wait.link);
    ck->bounce = aligned_alloc(STORE_PAGE_BYTES, CK_DEPTH_MAX * STORE_PAGE_BYTES);
    return ck->bounce ? 0 : -ENOMEM;
}

void checkpoint_destroy(struct store *s)
{
    free(s->ck.bounce);
}

void checkpoint_want(struct store *s)
{
    if (s->ck.wanted)
        return;
    s->ck.wanted = true;
    store_kick(s);
}

bool checkpoint_clean(const struct store *s)
{
    const struct journal *j = &s->journal;
    return list_empty(&s->overlays) && list_empty(&s->meta.dirty) && j->tail == j->head &&
           s->ck.state == CK_IDLE;
}

void checkpoint_start(struct store *s, bool pages_only, void (*done)(struct store *, int))
{
    struct checkpoint *ck = &s->ck;
    const struct journal *j = &s->journal;
    MUST(ck->state == CK_IDLE && ck->active == 0);
    ck->wanted = false;
    ck->pages_only = pages_only;
    ck->done = done;
    ck->pos = j->durable_pos;
    ck->seq = j->durable_seq + 1;
    ck->crc = j->durable_crc;
    ck->state = CK_OVERLAYS;
    if (!pages_only)
        list_splice(&ck->overlays, &s->overlays);
    store_kick(s);
}

static unsigned io_depth(const struct store *s)
{
    const struct journal *j = &s->journal;
    bool urgent = s->opening || s->closing || !list_empty(&s->exec) || j->head - j->tail > j->bytes / 4 * 3;
    return urgent ? CK_DEPTH_MAX : CK_DEPTH;
}

static struct ck_io *io_get(struct checkpoint *ck)
{
    for (unsigned i = 0; i < CK_DEPTH_MAX; i++) {
        if (!ck->io[i].busy) {
            ck->io[i].busy = true;
            ck->active++;
            return &ck->io[i];
        }
    }
    return NULL;
}

static void io_put(struct checkpoint *ck, struct ck_io *io)
{
    io->busy = false;
    ck->active--;
}

/* ---- overlays ---- */
/* Older readers have left; overlays_step goes on. */
void checkpoint_wb_ready(struct store *s, struct blk *b)
{
    MUST(b->wb == WB_READY);
    s->ck.ready++;
    store_kick(s);
}

static void wb_finish(struct store *s, struct ck_io *io, int rc)
{
    struct blk *b = io->b;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (!(b->wb_mask & (1u << u)))
            continue;
        bool same = (b->overlay_mask & (1u << u)) && b->overlay[u] == b->wb_units[u];
        if (same && rc)
            continue;
        if (same)
            b->overlay_mask &= ~(1u << u);
        slab_put(&s->units, b->wb_units[u]);
    }
    b->wb = WB_NONE;
    b->wb_mask = 0;
    if (b->overlay_mask)
        list_push_back(&s->overlays, &b->overlay_link);
    unsigned generation = io->sio.priv_generation;
    io->b = NULL;
    io_put(&s->ck, io);
    blk_reader_leave(s, b, generation);
    store_kick(s);
}

/* Writes the next run of units, until none is left. */
static void wb_io_done(struct sio *sio, int rc)
{
    struct ck_io *io = container_of(sio, struct ck_io, sio);
    struct store *s = sio->s;
    struct blk *b = io->b;
    if (rc)
        store_break(s, rc, "writing back data");
    if (rc || !io->parts) {
        wb_finish(s, io, rc);
        return;
    }
    uint32_t first = (uint32_t)__builtin_ctz(io->parts), n = 0;
    for (uint32_t u = first; u < UNITS_PER_BLOCK && (io->parts & (1u << u)); u++) {
        io->iov[n++] = (struct iovec){.iov_base = slab_at(&s->units, b->wb_units[u]), .iov_len = UNIT_BYTES};
        io->parts &= ~(1u << u);
    }
    sio_submit(sio, s->data, DEVICE_WRITE, slot_offset(s, io->wb_entry) + (uint64_t)first * UNIT_BYTES,
               io->iov, (int)n, (uint64_t)n * UNIT_BYTES);
}

/* Writes what had its overlay when waiting began and has it still: who came to read since then takes it from
 * memory. */
static void wb_begin(struct store *s, struct ck_io *io)
{
    struct blk *b = io->b;
    s->ck.ready--;
    b->wb = WB_ACTIVE;
    b->wb_mask &= b->overlay_mask;
    memcpy(b->wb_units, b->overlay, sizeof b->wb_units);
    io->parts = b->wb_mask;
    io->wb_entry = b->entry;
    io->sio.priv_generation = blk_reader_enter(b);
    wb_io_done(&io->sio, s->broken);
}

static void wb_begin_ready(struct store *s)
{
    for (unsigned i = 0; i < CK_DEPTH_MAX && s->ck.ready > 0; i++) {
        struct ck_io *io = &s->ck.io[i];
        if (io->busy && io->b && io->b->wb == WB_READY)
            wb_begin(s, io);
    }
}

static void overlays_step(struct store *s)
{
    struct checkpoint *ck = &s->ck;
    unsigned depth = io_depth(s);
    wb_begin_ready(s);
    while (!list_empty(&ck->overlays) && ck->active < depth) {
        struct blk *b = list_entry(list_pop_front(&ck->overlays), struct blk, overlay_link);
        struct ck_io *io = io_get(ck);
        MUST(io && b->wb == WB_NONE && b->overlay_mask);
        sio_init(&io->sio, s, wb_io_done);
        io->b = b;
        b->wb = WB_NEXT;
        b->wb_mask = b->overlay_mask;
        blk_quiesce(s, b);
    }
    wb_begin_ready(s);
}

/* ---- pages ---- */
static void pages_step(struct store *s, unsigned copy)
{
    struct checkpoint *ck = &s->ck;
    unsigned depth = io_depth(s);
    while (!list_empty(&ck->pages) && ck->active < depth) {
        struct frame *f = list_entry(list_pop_front(&ck->pages), struct frame, dirty_link);
        struct ck_io *io = io_get(ck);
        uint8_t *buf = ck->bounce + (size_t)(io - ck->io) * STORE_PAGE_BYTES;
        list_push_back(&ck->pages_done, &f->dirty_link);
        memcpy(buf, f->data, STORE_PAGE_BYTES);
        page_seal(buf);
        io->frame = f;
        io->b = NULL;
        sio_init(&io->sio, s, page_io_done);
        sio_rw(&io->sio, s->data, DEVICE_WRITE,
               (copy ? s->super.meta_b : s->super.meta_a) + (uint64_t)f->page * STORE_PAGE_BYTES, buf,
               STORE_PAGE_BYTES);
    }
}

static void page_io_done(struct sio *sio, int rc)
{
    struct ck_io *io = container_of(sio, struct ck_io, sio);
    struct store *s = sio->s;
    if (rc)
        store_break(s, rc, "writing metadata");
    io_put(&s->ck, io);
    store_kick(s);
}

static void pages_begin(struct store *s)
{
    struct checkpoint *ck = &s->ck;
    list_splice(&ck->pages, &s->meta.dirty);
    list_for_each(n, &ck->pages)
    {
        list_entry(n, struct frame, dirty_link)->in_checkpoint = true;
    }
}

/* Both copies are durable: pages that did not change since copy A was taken are clean. */
static void pages_end(struct store *s)
{
    struct checkpoint *ck = &s->ck;
    while (!list_empty(&ck->pages_done)) {
        struct frame *f = list_entry(list_pop_front(&ck->pages_done), struct frame, dirty_link);
        f->in_checkpoint = false;
        if (f->redirtied) {
            f->redirtied = false;
            list_push_back(&s->meta.dirty, &f->dirty_link);
            continue;
        }
        f->dirty = false;
        s->meta.dirty_count--;
        frame_pin(f); /* to the list of clean ones, if nobody has it */
        frame_unpin(s, f);
    }
}

/* ---- the sequence ---- */
static void checkpoint_end(struct store *s, int rc)
{
    struct checkpoint *ck = &s->ck;
    void (*done)(struct store *, int) = ck->done;
    ck->state = CK_IDLE;
    ck->done = NULL;
    store_kick(s);
    if (done)
        done(s, rc);
}

static void super_written(struct store *s, int rc)
{
    if (rc == 0) {
        s->journal.tail = s->ck.pos;
        s->stats.checkpoints++;
    }
    checkpoint_end(s, rc);
}

static void super_begin(struct store *s)
{
    struct disk_super *next = &s->super_update.next;
    if (s->super_update.busy)
        return; /* the identity is being set: later */
    s->ck.state = CK_SUPER;
    next->tail_pos = s->ck.pos;
    next->tail_seq = s->ck.seq;
    next->tail_prev_crc = s->ck.crc;
    next->entry_pages_used = (uint32_t)max_u64(next->entry_pages_used, s->ck.pages_used);
    super_write(s, super_written);
}

static void flushed(struct flush_wait *w, int rc)
{
    struct checkpoint *ck = container_of(w, struct checkpoint, wait);
    struct store *s = container_of(ck, struct store, ck);
    if (rc)
        store_break(s, rc, "flushing a checkpoint");
    ck->state = ck->state == CK_FLUSH ? CK_PAGES_A : ck->state == CK_FLUSH_A ? CK_PAGES_B : CK_PAGES_END;
    if (ck->state == CK_PAGES_A) {
        ck->pages_used = s->alloc.pages_used;
        pages_begin(s);
    } else if (ck->state == CK_PAGES_B) {
        list_splice(&ck->pages, &ck->pages_done);
    } else if (rc == 0) {
        pages_end(s);
    }
    store_kick(s);
}

static void flush_begin(struct store *s, enum ck_state state)
{
    s->ck.state = state;
    s->ck.wait.fn = flushed;
    list_init(&s->ck.wait.link);
    flush_request(s, &s->flush_data, &s->ck.wait);
}

static void begin_if_wanted(struct store *s)
{
    struct checkpoint *ck = &s->ck;
    if (!ck->wanted || s->broken || s->opening || s->options.read_only)
        return;
    if (list_empty(&s->overlays) && list_empty(&s->meta.dirty) && s->journal.tail == s->journal.durable_pos)
        return; /* nothing durable to take away yet: wanted still */
    checkpoint_start(s, false, NULL);
}

void checkpoint_step(struct store *s)
{
    struct checkpoint *ck = &s->ck;
    if (ck->state == CK_IDLE)
        begin_if_wanted(s);
    if (s->broken) {
        wb_begin_ready(s);
        if (ck->state != CK_IDLE && ck->active == 0 && ck->state != CK_SUPER && list_unlinked(&ck->wait.link))
            checkpoint_end(s, s->broken);
        return;
    }
    switch (ck->state) {
    case CK_OVERLAYS:
        overlays_step(s);
        if (ck->active == 0 && list_empty(&ck->overlays))
            flush_begin(s, CK_FLUSH);
        break;
    case CK_PAGES_A:
    case CK_PAGES_B:
        pages_step(s, ck->state == CK_PAGES_B);
        if (ck->active == 0 && list_empty(&ck->pages))
            flush_begin(s, ck->state == CK_PAGES_A ? CK_FLUSH_A : CK_FLUSH_B);
        break;
    case CK_PAGES_END:
        if (ck->pages_only)
            checkpoint_end(s, 0);
        else
            super_begin(s);
        break;
    default:
        break;
    }
}
