/*
 * store_load.c: the metadata pages at open: both copies of each are read and checked, several chunks at a
 * time; what one copy lost is repaired from the other at once, what both lost is noted, said in the
 * superblock, and only then given up.
 */
#include "services/rwm/store_open.h"

static int grow(struct growing *g, uint32_t id)
{
    if (g->count == g->room) {
        size_t room = g->room ? g->room * 2 : 64;
        uint32_t *ids = realloc(g->ids, room * sizeof ids[0]);
        if (!ids)
            return -ENOMEM;
        g->ids = ids;
        g->room = room;
    }
    g->ids[g->count++] = id;
    return 0;
}

static void load_records(struct store *s, uint32_t page, const uint8_t *data)
{
    uint32_t kind = 0, first = page;
    while (first >= s->super.record_pages[kind])
        first -= s->super.record_pages[kind++];
    uint32_t bytes = s->record_bytes[kind];
    uint32_t per_page = bytes == 64 ? RECORDS_PER_PAGE_64 : RECORDS_PER_PAGE_128;
    const struct disk_page_head *h = (const void *)data;
    s->opening->durable_seq = max_u64(s->opening->durable_seq, h->lsn);
    for (uint32_t i = 0; i < per_page && first * per_page + i < s->super.records[kind]; i++) {
        uint32_t index = first * per_page + i;
        memcpy(s->records[kind] + (size_t)index * bytes, data + sizeof *h + (size_t)i * bytes, bytes);
        s->record_lost[kind][index] = (h->lost >> i) & 1;
    }
    /* The first frames, in order, for good. */
    struct meta *m = &s->meta;
    struct frame *f = &m->frames[page];
    MUST(m->high == page);
    f->data = m->memory + (size_t)m->high++ * STORE_PAGE_BYTES;
    f->page = page;
    f->state = FRAME_READY;
    f->resident = true;
    list_init(&f->lru);
    list_init(&f->dirty_link);
    list_init(&f->waiters);
    list_init(&f->hash_link);
    memcpy(f->data, data, STORE_PAGE_BYTES);
}

static int load_entries(struct store *s, uint32_t page, const uint8_t *data)
{
    const struct disk_entry_page *p = (const void *)data;
    s->opening->durable_seq = max_u64(s->opening->durable_seq, p->head.lsn);
    uint32_t first = (page - s->meta.record_pages) * ENTRIES_PER_PAGE;
    for (uint32_t i = 0; i < ENTRIES_PER_PAGE; i++) {
        const struct disk_entry *e = &p->entry[i];
        if (!(e->flags & ENTRY_VALID))
            continue;
        struct store_key key = entry_key(e);
        alloc_mark(s, first + i, false);
        if (index_find(&s->index, &key) == STORE_NONE)
            index_insert(&s->index, first + i, &key);
        else if (open_loser(s, first + i))
            return -ENOMEM;
    }
    return 0;
}

int open_loser(struct store *s, uint32_t entry)
{
    return grow(&s->opening->losers, entry);
}

/* Nothing is repaired, so a later read could find the other copy: what was chosen here stays in memory. */
static void keep_page(struct store *s, uint32_t page, const uint8_t *data)
{
    struct frame *f = frame_create(s, page);
    MUST(f); /* there is one for every page */
    memcpy(f->data, data, STORE_PAGE_BYTES);
    frame_unpin(s, f);
}

static void load_page(struct store *s, uint32_t page, const uint8_t *data)
{
    if (page >= s->meta.record_pages && s->options.read_only)
        keep_page(s, page, data);
    if (page < s->meta.record_pages)
        load_records(s, page, data);
    else if (load_entries(s, page, data))
        open_fail(s, -ENOMEM, "not enough memory while loading");
}

/* Both copies are unreadable: known as empty from now on, once the superblock says that something was lost.
 */
static void page_lost(struct store *s, uint32_t page)
{
    struct opening *o = s->opening;
    s->damaged = true;
    s->stats.bad_pages++;
    page_init(s, page, o->page);
    if (page < s->meta.record_pages)
        ((struct disk_page_head *)(void *)o->page)->lost = UINT64_MAX;
    load_page(s, page, o->page);
    if (grow(&o->lost, page))
        open_fail(s, -ENOMEM, "not enough memory while loading");
}

static void load_continue(struct store *s);

static uint64_t copy_offset(const struct store *s, uint32_t page, unsigned copy)
{
    return (copy ? s->super.meta_b : s->super.meta_a) + (uint64_t)page * STORE_PAGE_BYTES;
}

static void repaired(struct sio *sio, int rc)
{
    struct store *s = sio->s;
    if (rc) {
        open_fail(s, rc, "rewriting a metadata page failed (%d)", rc);
        return;
    }
    struct opening *o = s->opening;
    o->busy = false;
    o->at++;
    o->part = 0;
    o->read_rc = 0;
    load_continue(s);
}

static void page_read(struct sio *sio, int rc)
{
    struct store *s = sio->s;
    struct opening *o = s->opening;
    if (rc) {
        memset(o->chunks[o->chunk].data[o->part] + (size_t)o->at * STORE_PAGE_BYTES, 0, STORE_PAGE_BYTES);
        o->read_rc = rc;
    }
    o->part++;
    o->busy = false;
    load_continue(s);
}

/* After a failed read of its chunk: one copy of the page alone, to find the unreadable one. */
static void read_alone(struct store *s, const struct load_chunk *c)
{
    struct opening *o = s->opening;
    sio_init(&o->sio, s, page_read);
    sio_rw(&o->sio, s->data, DEVICE_READ, copy_offset(s, c->first + o->at, o->part),
           c->data[o->part] + (size_t)o->at * STORE_PAGE_BYTES, STORE_PAGE_BYTES);
}

static void chunk_read(struct sio *sio, int rc)
{
    struct load_chunk *c = container_of(sio, struct load_read, sio)->chunk;
    c->reading--;
    if (rc)
        c->rc = rc;
    load_continue(sio->s);
}

/* Both copies are read and checked, so that from here on every page has two good ones and a checkpoint that
 * is cut off can spoil but one. */
static void chunk_begin(struct store *s, struct load_chunk *c)
{
    struct opening *o = s->opening;
    c->first = o->next;
    c->count = (uint32_t)min_u64(LOAD_PAGES, o->total - o->next);
    c->rc = 0;
    o->next += c->count;
    for (unsigned copy = 0; copy < 2 && c->count; copy++) {
        c->reading++;
        c->read[copy].chunk = c;
        sio_init(&c->read[copy].sio, s, chunk_read);
        sio_rw(&c->read[copy].sio, s->data, DEVICE_READ, copy_offset(s, c->first, copy), c->data[copy],
               (uint64_t)c->count * STORE_PAGE_BYTES);
    }
}

static uint64_t page_lsn(const uint8_t *page)
{
    struct disk_page_head h;
    memcpy(&h, page, sizeof h);
    return h.lsn;
}

/*
 * False: a copy is being rewritten from the other one: a bad one, or the older of two that differ. Replay
 * brings a page that a checkpoint had begun to write to the same end whichever copy it starts from, but it
 * changes, and so writes, only what is not there yet: a copy that is behind would stay so, with a block that
 * was freed long ago.
 */
static bool load_checked(struct store *s, uint32_t page, const uint8_t *a, const uint8_t *b)
{
    struct opening *o = s->opening;
    bool good[2] = {page_check(s, page, a), page_check(s, page, b)};
    if (!good[0] && !good[1] && o->read_rc) {
        /* A path that fails for a while must not cost the page: only what was read and is rotten is given up.
         */
        open_fail(s, o->read_rc,
                  "metadata page %u of %s can not be read (%d): mend the device, or format anew", page,
                  s->data->name, o->read_rc);
        return true;
    }
    if (!good[0] && !good[1]) {
        page_lost(s, page);
        return true;
    }
    unsigned from = good[0] && good[1] ? page_lsn(b) > page_lsn(a) : good[1];
    load_page(s, page, from ? b : a);
    if (good[0] && good[1] && memcmp(a, b, STORE_PAGE_BYTES) == 0)
        return true;
    if (!good[0] || !good[1]) {
        s->stats.bad_pages++;
        o->report.pages_repaired++;
    }
    if (s->options.read_only || o->finished)
        return true;
    memcpy(o->page, from ? b : a, STORE_PAGE_BYTES);
    sio_init(&o->sio, s, repaired);
    sio_rw(&o->sio, s->data, DEVICE_WRITE, copy_offset(s, page, !from), o->page, STORE_PAGE_BYTES);
    return false;
}

/* False: a page is being read alone, or repaired. */
static bool check_chunk(struct store *s, const struct load_chunk *c)
{
    struct opening *o = s->opening;
    for (; !o->finished && o->at < c->count; o->at++, o->part = 0, o->read_rc = 0) {
        size_t at = (size_t)o->at * STORE_PAGE_BYTES;
        if (c->rc && o->part < 2) {
            read_alone(s, c);
            return false;
        }
        if (!load_checked(s, c->first + o->at, c->data[0] + at, c->data[1] + at))
            return false;
    }
    return true;
}

static void load_continue(struct store *s)
{
    struct opening *o = s->opening;
    if (o->busy)
        return; /* another chunk has come meanwhile */
    while (!o->finished) {
        struct load_chunk *c = &o->chunks[o->chunk];
        if (c->reading)
            return;
        if (c->count == 0) {
            o->part = 0;
            open_next_step(s);
            return;
        }
        if (!check_chunk(s, c)) {
            o->busy = true;
            return;
        }
        o->at = 0;
        chunk_begin(s, c);
        o->chunk = (o->chunk + 1) % o->chunks_used;
    }
}

void load_begin(struct store *s)
{
    struct opening *o = s->opening;
    o->chunks_used = (unsigned)min_u64(LOAD_DEPTH, (o->total + LOAD_PAGES - 1) / LOAD_PAGES);
    size_t bytes = min_u64(LOAD_PAGES, o->total) * STORE_PAGE_BYTES;
    for (unsigned i = 0; i < o->chunks_used; i++) {
        for (unsigned copy = 0; copy < 2; copy++) {
            o->chunks[i].data[copy] = aligned_alloc(STORE_PAGE_BYTES, bytes);
            if (!o->chunks[i].data[copy]) {
                open_fail(s, -ENOMEM, "not enough memory while loading");
                return;
            }
        }
    }
    for (unsigned i = 0; i < o->chunks_used; i++)
        chunk_begin(s, &o->chunks[i]);
}

void load_free(struct opening *o)
{
    for (unsigned i = 0; i < LOAD_DEPTH; i++) {
        free(o->chunks[i].data[0]);
        free(o->chunks[i].data[1]);
    }
}

/* ---- lost pages ---- */
static void lost_written(struct sio *sio, int rc)
{
    struct store *s = sio->s;
    struct opening *o = s->opening;
    if (rc) {
        open_fail(s, rc, "rewriting a lost metadata page failed (%d)", rc);
        return;
    }
    o->part++;
    load_write_lost(s);
}

void load_write_lost(struct store *s)
{
    struct opening *o = s->opening;
    if (s->options.read_only || o->part / 2 >= o->lost.count) {
        open_next_step(s);
        return;
    }
    uint32_t page = o->lost.ids[o->part / 2];
    page_init(s, page, o->page);
    if (page < s->meta.record_pages)
        ((struct disk_page_head *)(void *)o->page)->lost = UINT64_MAX;
    page_seal(o->page);
    sio_init(&o->sio, s, lost_written);
    sio_rw(&o->sio, s->data, DEVICE_WRITE, copy_offset(s, page, o->part & 1), o->page, STORE_PAGE_BYTES);
}
