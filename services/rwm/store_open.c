/*
 * store_open.c: opening: superblocks, memory, metadata pages into the index, replay, and a checkpoint that
 * starts a new life.
 *
 * Everything is flushed before it is believed: what a killed process left in a device's cache could otherwise
 * vanish after recovery has built on it. The last step, one superblock, raises the start counter, draws a new
 * salt and moves the journal's tail behind all that was replayed: nothing that was cut off can come back.
 */
#include <stdarg.h>
#include <stdio.h>

#include "common/log.h"
#include "services/rwm/store_open.h"

static void open_step(struct store *s);

struct store_open_report *open_report(struct store *s)
{
    return &s->opening->report;
}

void open_fail(struct store *s, int rc, const char *fmt, ...)
{
    struct opening *o = s->opening;
    if (o->finished)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(o->report.text, sizeof o->report.text, fmt, ap);
    va_end(ap);
    o->report.rc = rc;
    o->finished = true;
    store_kick(s);
}

bool open_finished(const struct store *s)
{
    return s->opening->finished;
}

void open_next_step(struct store *s)
{
    s->opening->step++;
    open_step(s);
}

/* ---- superblocks ---- */
static int check_pair(struct store *s, const void *head)
{
    const struct disk_super *sb = &s->super;
    struct disk_jsuper j;
    const char *name = s->journal.device->name;
    int rc = jsuper_choose((const uint8_t *)head + STORE_SUPER_0, (const uint8_t *)head + STORE_SUPER_1, &j);
    if (rc < 0) {
        open_fail(s, rc == -EBADMSG ? -EBADMSG : -EMEDIUMTYPE,
                  "journal device %s %s: give the store its own journal device, or format anew", name,
                  rc == -ENOENT    ? "is blank"
                  : rc == -EBADMSG ? "has a damaged superblock"
                                   : "holds something else");
        return -1;
    }
    if (j.format != STORE_FORMAT || !uuid_eq(&j.store, &sb->store)) {
        open_fail(s, -EMEDIUMTYPE, "journal device %s belongs to another store or version", name);
        return -1;
    }
    bool pair = j.super_sequence == sb->sequence ||
                (j.phase == JSUPER_INTENT && j.super_sequence == sb->sequence + 1);
    if (!pair) {
        open_fail(s, -ESTALE,
                  "%s is older than its counterpart (data %lu, journal %lu): put back from a copy? refused",
                  j.super_sequence > sb->sequence ? "the data device" : "the journal device",
                  (unsigned long)sb->sequence, (unsigned long)j.super_sequence);
        return -1;
    }
    if (j.journal_bytes != sb->journal_bytes ||
        s->journal.device->size < STORE_HEAD_BYTES + sb->journal_bytes) {
        open_fail(s, -EBADMSG, "journal device %s is smaller than at format: truncated?", name);
        return -1;
    }
    s->jsuper_sequence = j.sequence;
    s->super_update.jfirst = !rc;
    return 0;
}

static bool layout_same(const struct disk_super *sb)
{
    struct disk_super again = *sb;
    if (sb->journal_bytes < STORE_JOURNAL_MIN || sb->journal_bytes % STORE_PAGE_BYTES ||
        sb->journal_bytes > (1ull << 44) || sb->device_bytes % STORE_PAGE_BYTES ||
        !is_pow2(sb->journal_align) || sb->journal_align < 64 || sb->journal_align > STORE_PAGE_BYTES ||
        sb->partition_bits > 24 || sb->tail_pos > (1ull << 62) || sb->tail_seq > (1ull << 62) ||
        sb->tail_seq == 0 || sb->tail_pos % sb->journal_align)
        return false;
    for (unsigned k = 0; k < 3; k++) {
        if (sb->records[k] == 0 || sb->records[k] > 1u << 24)
            return false;
    }
    return super_layout(&again) == 0 && memcmp(&again, sb, sizeof again) == 0 &&
           sb->entry_pages_used <= sb->entry_pages;
}

static int check_super(struct store *s, const void *head)
{
    struct disk_super *sb = &s->super;
    bool journal = s->journal.device != s->data;
    const char *name = s->data->name;
    int rc = super_choose((const uint8_t *)head + STORE_SUPER_0, (const uint8_t *)head + STORE_SUPER_1, sb);
    if (rc < 0) {
        open_fail(s, rc == -EBADMSG ? -EBADMSG : -EMEDIUMTYPE, "device %s %s", name,
                  rc == -ENOENT    ? "is blank: no store on it, format it first"
                  : rc == -EBADMSG ? "has a store whose superblocks are both damaged"
                                   : "holds something that is not a store");
        return -1;
    }
    s->super_update.first = !rc;
    if (sb->format != STORE_FORMAT) {
        open_fail(s, -EMEDIUMTYPE, "device %s has format %u, this program knows %u", name, sb->format,
                  STORE_FORMAT);
        return -1;
    }
    if (!layout_same(sb)) {
        open_fail(s, -EBADMSG, "the superblock of %s contradicts itself", name);
        return -1;
    }
    if (s->data->size < sb->device_bytes) {
        open_fail(s, -EBADMSG, "device %s has %lu bytes, its store was made on %lu: truncated?", name,
                  (unsigned long)s->data->size, (unsigned long)sb->device_bytes);
        return -1;
    }
    if (journal != ((sb->flags & SUPER_JOURNAL_DEVICE) != 0)) {
        open_fail(s, -ESTALE, "the store on %s %s a journal device of its own", name,
                  journal ? "has not" : "has");
        return -1;
    }
    if (s->journal.device->io_bytes > sb->journal_align || s->data->io_bytes > STORE_PAGE_BYTES) {
        open_fail(s, -EINVAL, "device granularity %u is coarser than at format", s->journal.device->io_bytes);
        return -1;
    }
    return 0;
}

static int check_witness(struct store *s, const void *head)
{
    uint64_t seq;
    int rc = witness_read(s, head, &seq);
    if (rc)
        open_fail(s, rc, "the superblocks of %s are older than its witness: put back from a copy? refused",
                  s->data->name);
    else
        s->opening->durable_seq = max_u64(s->opening->durable_seq, seq);
    return rc;
}

uint64_t open_durable_seq(const struct store *s)
{
    return s->opening->durable_seq;
}

void open_unit_lost(struct store *s)
{
    s->damaged = true;
    s->stats.bad_units++;
    s->opening->units_lost++;
}

/* ---- memory ---- */
static int make_records(struct store *s)
{
    static const uint32_t bytes[3] = {64, 128, 64};
    for (unsigned k = 0; k < 3; k++) {
        s->record_bytes[k] = bytes[k];
        s->records[k] = calloc(s->super.records[k], bytes[k]);
        s->record_lost[k] = calloc(s->super.records[k], 1);
        if (!s->records[k] || !s->record_lost[k])
            return -ENOMEM;
    }
    return 0;
}

static uint32_t frames_wanted(const struct store *s)
{
    const struct disk_super *sb = &s->super;
    uint64_t least = 2ull * s->options.requests_max + 32;
    uint64_t frames =
        max_u64((s->options.cache_bytes ? s->options.cache_bytes : 64 * MIB) / STORE_PAGE_BYTES, least);
    uint64_t all = (uint64_t)sb->entry_pages + 8;
    /* Nothing can be written back: all that replay changes stays in memory. */
    if (s->options.read_only || frames > all)
        frames = all;
    return (uint32_t)frames + s->meta.record_pages;
}

static int make_memory(struct store *s)
{
    const struct disk_super *sb = &s->super;
    struct journal *j = &s->journal;
    unsigned requests = s->options.requests_max;
    uint64_t units = sb->journal_bytes / UNIT_BYTES + BATCH_UNITS;
    uint64_t limit = s->options.journal_max_bytes ? s->options.journal_max_bytes / UNIT_BYTES : units;
    s->units_limit = (uint32_t)max_u64(min_u64(limit, units), 2 * BATCH_UNITS);
    s->meta.record_pages = sb->record_pages[0] + sb->record_pages[1] + sb->record_pages[2];
    s->meta.pages = s->meta.record_pages + sb->entry_pages;
    j->offset = sb->journal_offset;
    j->bytes = sb->journal_bytes;
    j->align = sb->journal_align;
    uint64_t buckets = 16;
    while (buckets < requests + units)
        buckets *= 2;
    s->blk_mask = (uint32_t)(buckets - 1);
    s->blk_hash = malloc(buckets * sizeof s->blk_hash[0]);
    s->sink = aligned_alloc(UNIT_BYTES, UNIT_BYTES);
    s->super_update.page = aligned_alloc(STORE_PAGE_BYTES, STORE_PAGE_BYTES);
    if (!s->blk_hash || !s->sink || !s->super_update.page)
        return -ENOMEM;
    for (uint64_t i = 0; i < buckets; i++)
        list_init(&s->blk_hash[i]);
    if (slab_create(&s->reqs, sizeof(struct req), 64, requests) ||
        slab_create(&s->blks, sizeof(struct blk), 64, requests + units) ||
        slab_create(&s->units, UNIT_BYTES, UNIT_BYTES, units))
        return -ENOMEM;
    if (index_create(&s->index, sb->entry_pages * ENTRIES_PER_PAGE, sb->partition_bits) || alloc_create(s) ||
        meta_create(s, frames_wanted(s)) || journal_create(s) || checkpoint_create(s) || witness_create(s) ||
        trim_create(s))
        return -ENOMEM;
    return make_records(s);
}

static void prepare(struct store *s)
{
    const struct disk_super *sb = &s->super;
    struct opening *o = s->opening;
    if (make_memory(s)) {
        open_fail(s, -ENOMEM, "not enough memory for the index of %lu blocks", (unsigned long)sb->slot_count);
        return;
    }
    s->super_update.next = *sb;
    s->identity = (struct store_identity){.store = sb->store,
                                          .cluster = sb->cluster,
                                          .module = sb->module,
                                          .start_counter = sb->start_counter,
                                          .accepted_start = sb->accepted_start,
                                          .accepted_incarnation = sb->accepted_incarnation,
                                          .partition_bits = sb->partition_bits};
    s->damaged = (sb->flags & SUPER_PAGES_LOST) || sb->suspect_below;
    if (sb->entry_pages_used)
        alloc_page_used(s, sb->entry_pages_used - 1);
    o->total = s->meta.record_pages + sb->entry_pages_used;
    open_next_step(s);
}

/* ---- blocks that were found twice, and that the journal did not settle ---- */
static void losers_step(struct store *s);

static void loser_frame(struct frame_wait *w, struct frame *f, int rc)
{
    struct opening *o = w->s->opening;
    if (rc) {
        open_fail(w->s, rc, "a metadata page became unreadable");
        return;
    }
    o->frames[o->part] = f;
    losers_step(w->s);
}

static bool loser_load(struct store *s, unsigned i, uint32_t entry)
{
    struct opening *o = s->opening;
    if (o->frames[i])
        return true;
    o->part = i;
    o->frame_wait = (struct frame_wait){.s = s, .fn = loser_frame};
    list_init(&o->frame_wait.link);
    return frame_get(s, s->meta.record_pages + entry_page(entry), &o->frame_wait, &o->frames[i]) == 0;
}

static void settle(struct store *s, uint32_t a, uint32_t b)
{
    struct opening *o = s->opening;
    struct disk_entry *loser = frame_entry(o->frames[0], a), *winner = frame_entry(o->frames[1], b);
    uint32_t drop = a;
    if (version_cmp((struct version){loser->epoch, loser->counter},
                    (struct version){winner->epoch, winner->counter}) > 0) {
        index_move(&s->index, b, a);
        struct store_key key = entry_key(loser);
        struct blk *core = blk_find(s, &key);
        if (core) { /* its overlay belongs to the slot that goes */
            blk_overlay_drop(s, core, STORE_ALL_UNITS);
            core->entry = a;
            blk_release(s, core);
        }
        drop = b;
    }
    struct frame *f = o->frames[drop == b];
    memset(frame_entry(f, drop), 0, sizeof(struct disk_entry));
    frame_dirty(s, f, 0); /* no batch says so: the page's lsn must not pass the journal's end */
    alloc_mark(s, drop, true);
}

static void losers_step(struct store *s)
{
    struct opening *o = s->opening;
    while (o->losers.count) {
        uint32_t loser = o->losers.ids[o->losers.count - 1];
        if (!loser_load(s, 0, loser))
            return;
        const struct disk_entry *e = frame_entry(o->frames[0], loser);
        struct store_key key = entry_key(e);
        uint32_t other = e->flags & ENTRY_VALID ? index_find(&s->index, &key) : loser;
        if (other != loser && other != STORE_NONE) {
            if (!loser_load(s, 1, other))
                return;
            settle(s, loser, other);
        }
        for (unsigned i = 0; i < 2; i++) {
            if (o->frames[i])
                frame_unpin(s, o->frames[i]);
            o->frames[i] = NULL;
        }
        o->losers.count--;
    }
    open_next_step(s);
}

/* ---- the steps ---- */
static void open_flushed(struct flush_wait *w, int rc)
{
    struct opening *o = container_of(w, struct opening, wait);
    struct store *s = o->sio.s;
    if (rc)
        open_fail(s, rc, "flushing %s failed (%d)",
                  o->step == OPEN_FLUSH_DATA ? s->data->name : s->journal.device->name, rc);
    else
        open_next_step(s);
}

static void head_read(struct sio *sio, int rc)
{
    struct store *s = sio->s;
    struct opening *o = s->opening;
    const char *name = o->step == OPEN_READ_HEAD ? s->data->name : s->journal.device->name;
    if (rc) {
        open_fail(s, rc, "reading the superblocks of %s failed (%d)", name, rc);
        return;
    }
    if (o->step == OPEN_READ_HEAD) {
        if (check_super(s, o->head) || check_witness(s, o->head))
            return;
        if (s->super.flags & SUPER_JOURNAL_DEVICE) {
            open_next_step(s);
            return;
        }
        o->step++;
    } else if (check_pair(s, o->head) || check_witness(s, o->head)) {
        return;
    }
    prepare(s);
}

static void super_done(struct store *s, int rc)
{
    if (rc)
        open_fail(s, rc, "writing the superblock failed (%d)", rc);
    else
        open_next_step(s);
}

static void start_checkpoint(struct store *s)
{
    struct disk_super *next = &s->super_update.next;
    struct journal *j = &s->journal;
    if (s->options.read_only) {
        j->tail = j->head;
        open_next_step(s);
        return;
    }
    next->start_counter++;
    next->salt = rng_u64(s->env->rng);
    checkpoint_start(s, false, super_done);
}

static void open_finish(struct store *s)
{
    struct opening *o = s->opening;
    s->identity.start_counter = s->super.start_counter;
    s->journal.salt = s->super.salt;
    s->journal.start_counter = s->super.start_counter;
    o->report.damaged = s->damaged;
    o->report.blocks = s->index.count;
    if (s->damaged && !o->report.text[0])
        snprintf(
            o->report.text, sizeof o->report.text,
            "damaged: %zu metadata pages and %lu units of the journal lost now, flags %u, writes before batch %lu "
            "may be missing: copy what can be read, then format anew",
            o->lost.count, (unsigned long)o->units_lost, s->super.flags,
            (unsigned long)s->super.suspect_below);
    else if (!s->damaged)
        snprintf(o->report.text, sizeof o->report.text,
                 "%lu journal records applied, %lu metadata pages repaired",
                 (unsigned long)o->report.replayed_records, (unsigned long)o->report.pages_repaired);
    o->finished = true;
    store_kick(s);
}

static void open_step(struct store *s)
{
    struct opening *o = s->opening;
    if (o->finished)
        return;
    o->wait.fn = open_flushed;
    list_init(&o->wait.link);
    switch (o->step) {
    case OPEN_FLUSH_DATA:
    case OPEN_FLUSH_JOURNAL:
        if (s->options.read_only)
            open_next_step(s);
        else
            flush_device(s, o->step == OPEN_FLUSH_DATA ? &s->flush_data : &s->flush_journal, &o->wait);
        return;
    case OPEN_READ_HEAD:
    case OPEN_READ_JOURNAL_HEAD:
        sio_init(&o->sio, s, head_read);
        sio_rw(&o->sio, o->step == OPEN_READ_HEAD ? s->data : s->journal.device, DEVICE_READ, 0, o->head,
               STORE_HEAD_BYTES);
        return;
    case OPEN_LOAD:
        load_begin(s);
        return;
    case OPEN_FLAG_LOST:
        if (o->lost.count && !s->options.read_only && !(s->super.flags & SUPER_PAGES_LOST)) {
            s->super_update.next.flags |= SUPER_PAGES_LOST;
            super_write(s, super_done);
            return;
        }
        if (o->lost.count)
            s->super.flags |= SUPER_PAGES_LOST;
        open_next_step(s);
        return;
    case OPEN_WRITE_LOST:
        load_write_lost(s);
        return;
    case OPEN_REPLAY:
        replay_start(s, super_done);
        return;
    case OPEN_LOSERS:
        losers_step(s);
        return;
    case OPEN_CHECKPOINT:
        start_checkpoint(s);
        return;
    case OPEN_DONE:
        open_finish(s);
        return;
    }
}

int open_tick(struct store *s)
{
    struct opening *o = s->opening;
    if (s->broken)
        open_fail(s, s->broken, "the device failed while the store was being opened");
    if (!o->finished || s->ios)
        return 0;
    struct store_open_report report = o->report;
    void (*done)(void *, struct store *, const struct store_open_report *) = o->done;
    void *arg = o->arg;
    if (report.rc) {
        store_destroy(s);
        done(arg, NULL, &report);
        return 1;
    }
    open_destroy(s);
    for (uint32_t p = 0; p < s->alloc.pages_used; p++)
        trim_note_page(s, p);
    trim_wake(s);
    if (s->damaged)
        log_warn(s->env, "block store is damaged", "device=%s text=\"%s\"", s->data->name, report.text);
    else
        log_debug(s->env, "block store open", "device=%s blocks=%lu start=%lu text=\"%s\"", s->data->name,
                  (unsigned long)report.blocks, (unsigned long)s->identity.start_counter, report.text);
    done(arg, s, &report);
    return 1;
}

void open_destroy(struct store *s)
{
    struct opening *o = s->opening;
    if (!o)
        return;
    replay_destroy(s);
    free(o->head);
    load_free(o);
    free(o->page);
    free(o->lost.ids);
    free(o->losers.ids);
    free(o);
    s->opening = NULL;
}

static void init_lists(struct store *s)
{
    list_init(&s->failed);
    list_init(&s->flush_data.next);
    list_init(&s->flush_data.current);
    list_init(&s->flush_journal.next);
    list_init(&s->flush_journal.current);
    list_init(&s->meta.free);
    list_init(&s->meta.lru);
    list_init(&s->meta.dirty);
    list_init(&s->meta.starved);
    list_init(&s->overlays);
    list_init(&s->exec);
    list_init(&s->done);
    list_init(&s->waiters);
    list_init(&s->journal.flight);
}

struct store *store_open(struct env *env, struct device *data, struct device *journal,
                         const struct store_options *options,
                         void (*done)(void *arg, struct store *store, const struct store_open_report *report),
                         void *arg)
{
    struct store *s = calloc(1, sizeof *s);
    struct opening *o = calloc(1, sizeof *o);
    MUST(s && o);
    s->env = env;
    s->data = data;
    s->journal.device = journal ? journal : data;
    s->flush_data.device = data;
    s->flush_journal.device = s->journal.device;
    init_lists(s);
    if (options)
        s->options = *options;
    if (!s->options.requests_max)
        s->options.requests_max = 1024;
    s->opening = o;
    loop_task_init(&s->task, store_task_fn());
    o->done = done;
    o->arg = arg;
    o->head = aligned_alloc(STORE_PAGE_BYTES, STORE_HEAD_BYTES);
    o->page = aligned_alloc(STORE_PAGE_BYTES, STORE_PAGE_BYTES);
    MUST(o->head && o->page);
    sio_init(&o->sio, s, head_read);
    if (!s->options.read_only && (data->read_only || s->journal.device->read_only))
        open_fail(s, -EROFS, "device %s is read-only", data->name);
    else if (data->size < STORE_HEAD_BYTES || s->journal.device->size < STORE_HEAD_BYTES)
        open_fail(s, -EMEDIUMTYPE, "device %s is too small for a store", data->name);
    else
        open_step(s);
    return s;
}
