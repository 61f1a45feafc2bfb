/*
 * store_format.c: writes a new, empty store.
 *
 * The superblock is written last, so a format that was cut off leaves no store. Only the record pages are
 * initialised: entry pages are behind the mark of used ones, and batches of an earlier store carry another
 * uuid. In a file the ring of the journal is filled with zeroes, because each of its blocks that has no place
 * yet would make the flush of an acknowledgement wait for the file system's own journal.
 */
#include "common/log.h"
#include "services/rwm/store_internal.h"

#define CHUNK_BYTES STORE_HEAD_BYTES
#define FILL_CHUNKS 16 /* of zeroes, in one write */

enum format_step {
    FORMAT_CHECK_DATA,
    FORMAT_CHECK_JOURNAL,
    FORMAT_WIPE_DATA,
    FORMAT_WIPE_JOURNAL,
    FORMAT_WIPED,
    FORMAT_FILL_JOURNAL,
    FORMAT_PAGES_A,
    FORMAT_PAGES_B,
    FORMAT_PAGES_FLUSH,
    FORMAT_SUPER,
    FORMAT_END,
};
struct store_format_job {
    struct store s; /* only what pages and superblocks need */
    enum format_step step;
    bool force, writing;
    uint32_t page, pages;
    uint64_t filled; /* bytes of the journal */
    uint8_t *chunk;
    struct iovec fill[FILL_CHUNKS];
    struct sio sio;
    struct flush_wait wait;
    struct loop_task end;
    int rc;
    void (*done)(void *arg, int rc);
    void *arg;
};

static void format_step(struct store_format_job *f);

void store_format_cancel(struct store_format_job *f)
{
    loop_task_cancel(f->s.env->loop, &f->end);
    loop_task_cancel(f->s.env->loop, &f->s.task);
    free(f->s.super_update.page);
    free(f->chunk);
    free(f);
}

static void format_finish(struct loop_task *task)
{
    struct store_format_job *f = container_of(task, struct store_format_job, end);
    void (*done)(void *, int) = f->done;
    void *arg = f->arg;
    int rc = f->rc;
    store_format_cancel(f);
    done(arg, rc);
}

static void format_end(struct store_format_job *f, int rc)
{
    f->rc = rc;
    loop_defer(f->s.env->loop, &f->end);
}

static void super_done(struct store *s, int rc)
{
    format_end(container_of(s, struct store_format_job, s), rc);
}

static bool chunk_zero(const struct store_format_job *f)
{
    for (size_t i = 0; i < CHUNK_BYTES; i++) {
        if (f->chunk[i])
            return false;
    }
    return true;
}

static void format_flushed(struct flush_wait *w, int rc)
{
    struct store_format_job *f = container_of(w, struct store_format_job, wait);
    if (rc) {
        format_end(f, rc);
        return;
    }
    f->step++;
    format_step(f);
}

static void format_io_done(struct sio *sio, int rc)
{
    struct store_format_job *f = container_of(sio, struct store_format_job, sio);
    if (rc == 0 && f->step <= FORMAT_CHECK_JOURNAL && !f->force && !chunk_zero(f))
        rc = -EEXIST;
    if (rc) {
        format_end(f, rc);
        return;
    }
    if ((f->step == FORMAT_PAGES_A || f->step == FORMAT_PAGES_B) && f->page < f->pages) {
        format_step(f);
        return;
    }
    if (f->step == FORMAT_FILL_JOURNAL && f->filled < f->s.super_update.next.journal_bytes) {
        format_step(f);
        return;
    }
    f->step++;
    f->page = 0;
    format_step(f);
}

static void write_pages(struct store_format_job *f)
{
    struct store *s = &f->s;
    uint32_t n = 0;
    uint64_t base = f->step == FORMAT_PAGES_A ? s->super_update.next.meta_a : s->super_update.next.meta_b;
    base += (uint64_t)f->page * STORE_PAGE_BYTES;
    for (; n < CHUNK_BYTES / STORE_PAGE_BYTES && f->page < f->pages; n++, f->page++) {
        page_init(s, f->page, f->chunk + (size_t)n * STORE_PAGE_BYTES);
        page_seal(f->chunk + (size_t)n * STORE_PAGE_BYTES);
    }
    sio_rw(&f->sio, s->data, DEVICE_WRITE, base, f->chunk, (uint64_t)n * STORE_PAGE_BYTES);
}

/* The chunk is zeroes since the wipe. */
static void fill_journal(struct store_format_job *f)
{
    struct store *s = &f->s;
    const struct disk_super *sb = &s->super_update.next;
    uint64_t at = sb->journal_offset + f->filled, left = sb->journal_bytes - f->filled, bytes = 0;
    int n = 0;
    for (; n < FILL_CHUNKS && bytes < left; n++) {
        uint64_t part = min_u64(CHUNK_BYTES, left - bytes);
        f->fill[n] = (struct iovec){.iov_base = f->chunk, .iov_len = part};
        bytes += part;
    }
    f->filled += bytes;
    sio_submit(&f->sio, s->journal.device, DEVICE_WRITE, at, f->fill, n, bytes);
}

static void format_step(struct store_format_job *f)
{
    struct store *s = &f->s;
    bool journal = s->journal.device != s->data;
    f->wait.fn = format_flushed;
    list_init(&f->wait.link);
    switch (f->step) {
    case FORMAT_CHECK_DATA:
        sio_rw(&f->sio, s->data, DEVICE_READ, 0, f->chunk, CHUNK_BYTES);
        return;
    case FORMAT_CHECK_JOURNAL:
        sio_rw(&f->sio, s->journal.device, DEVICE_READ, 0, f->chunk, CHUNK_BYTES);
        return;
    case FORMAT_WIPE_DATA:
        memset(f->chunk, 0, CHUNK_BYTES);
        sio_rw(&f->sio, s->data, DEVICE_WRITE, 0, f->chunk, CHUNK_BYTES);
        return;
    case FORMAT_WIPE_JOURNAL:
        sio_rw(&f->sio, journal ? s->journal.device : s->data, DEVICE_WRITE, 0, f->chunk, CHUNK_BYTES);
        return;
    case FORMAT_WIPED:
    case FORMAT_PAGES_FLUSH:
        flush_request(s, &s->flush_data, &f->wait);
        return;
    case FORMAT_FILL_JOURNAL:
        if (s->journal.device->first_write_slow) {
            fill_journal(f);
            return;
        }
        f->step++;
        /* fall through */
    case FORMAT_PAGES_A:
    case FORMAT_PAGES_B:
        write_pages(f);
        return;
    case FORMAT_SUPER:
        super_write(s, super_done);
        return;
    case FORMAT_END:
        MUST(!"past the end");
    }
}

static int plan(struct store_format_job *f, const struct store_format_options *o)
{
    struct store *s = &f->s;
    struct disk_super *sb = &s->super_update.next;
    bool journal = s->journal.device != s->data;
    uint64_t align = max_u64(s->journal.device->io_bytes, max_u64(s->journal.device->atom_bytes, 64));
    if (align > STORE_PAGE_BYTES || s->data->io_bytes > STORE_PAGE_BYTES)
        return -EINVAL;
    sb->magic = STORE_SUPER_MAGIC;
    sb->format = STORE_FORMAT;
    sb->store = rng_uuid(s->env->rng);
    sb->salt = rng_u64(s->env->rng);
    sb->flags = journal ? SUPER_JOURNAL_DEVICE : 0;
    sb->journal_align = (uint32_t)align;
    sb->device_bytes = round_down(s->data->size, STORE_PAGE_BYTES);
    sb->records[STORE_PARTITION] = o->max_partitions ? o->max_partitions : 65536;
    sb->records[STORE_VOLUME] = o->max_volumes ? o->max_volumes : 16384;
    sb->records[STORE_TURN] = o->max_turns ? o->max_turns : 16384;
    sb->journal_bytes = o->journal_bytes;
    if (journal) {
        if (s->journal.device->size < STORE_HEAD_BYTES + STORE_JOURNAL_MIN)
            return -ENOSPC;
        uint64_t all = s->journal.device->size - STORE_HEAD_BYTES;
        sb->journal_bytes = sb->journal_bytes ? min_u64(sb->journal_bytes, all) : all;
    } else if (!sb->journal_bytes) {
        sb->journal_bytes = min_u64(max_u64(sb->device_bytes / 32, 8 * MIB), GIB);
    }
    sb->journal_bytes = round_down(sb->journal_bytes, STORE_PAGE_BYTES);
    if (sb->journal_bytes < STORE_JOURNAL_MIN)
        return -ENOSPC;
    sb->tail_seq = 1;
    for (unsigned k = 0; k < 3; k++) {
        if (sb->records[k] > 1u << 24)
            return -ENOSPC;
    }
    return super_layout(sb);
}

/* Requests that the device refused at submit are told here. */
static void format_tick(struct loop_task *task)
{
    struct store *s = container_of(task, struct store, task);
    struct store_format_job *f = container_of(s, struct store_format_job, s);
    if (list_empty(&s->failed))
        return;
    struct sio *sio = list_entry(list_pop_front(&s->failed), struct sio, failed);
    s->ios--;
    int rc = sio->failed_rc;
    sio->fn(sio, rc);
    (void)f;
}

struct store_format_job *store_format(struct env *env, struct device *data, struct device *journal,
                                      const struct store_format_options *options,
                                      void (*done)(void *arg, int rc), void *arg)
{
    struct store_format_job *f = calloc(1, sizeof *f);
    MUST(f);
    struct store *s = &f->s;
    s->env = env;
    s->data = data;
    s->journal.device = journal ? journal : data;
    s->flush_data.device = data;
    s->flush_journal.device = s->journal.device;
    list_init(&s->flush_data.next);
    list_init(&s->flush_data.current);
    list_init(&s->flush_journal.next);
    list_init(&s->flush_journal.current);
    list_init(&s->failed);
    loop_task_init(&s->task, format_tick);
    loop_task_init(&f->end, format_finish);
    f->done = done;
    f->arg = arg;
    f->force = options->force;
    f->chunk = aligned_alloc(STORE_PAGE_BYTES, CHUNK_BYTES);
    s->super_update.page = aligned_alloc(STORE_PAGE_BYTES, STORE_PAGE_BYTES);
    MUST(f->chunk && s->super_update.page);
    int rc = data->read_only || s->journal.device->read_only ? -EROFS
             : data->size < CHUNK_BYTES                      ? -ENOSPC
                                                             : plan(f, options);
    if (rc) {
        format_end(f, rc);
        return f;
    }
    s->super = s->super_update.next; /* page_init reads it */
    f->pages = s->super.record_pages[0] + s->super.record_pages[1] + s->super.record_pages[2];
    sio_init(&f->sio, s, format_io_done);
    f->step = FORMAT_CHECK_DATA;
    format_step(f);
    return f;
}
