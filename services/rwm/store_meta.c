/*
 * store_meta.c: the metadata pages and their cache.
 *
 * A page in memory holds durable state only: records are put in when their batch is durable, so a checkpoint
 * may write any page at any time. Dirty pages stay until a checkpoint has written both copies. The pages of
 * records stay for ever.
 */
#include "services/rwm/store_internal.h"

static uint64_t page_offset(const struct store *s, uint32_t page, unsigned copy)
{
    return (copy ? s->super.meta_b : s->super.meta_a) + (uint64_t)page * STORE_PAGE_BYTES;
}

static enum disk_page_kind page_kind(const struct store *s, uint32_t page)
{
    for (unsigned k = 0; k < 3; k++) {
        if (page < s->super.record_pages[k])
            return PAGE_PARTITIONS + k;
        page -= s->super.record_pages[k];
    }
    return PAGE_ENTRIES;
}

static uint64_t store_low(const struct store *s)
{
    uint64_t low;
    memcpy(&low, s->super.store.b, sizeof low);
    return low;
}

void page_init(const struct store *s, uint32_t page, void *out)
{
    struct disk_page_head *h = out;
    memset(out, 0, STORE_PAGE_BYTES);
    h->magic = STORE_PAGE_MAGIC;
    h->kind = page_kind(s, page);
    h->number = page;
    h->store_low = store_low(s);
}

static uint32_t page_crc(const void *page)
{
    struct disk_page_head h;
    memcpy(&h, page, sizeof h);
    h.crc = 0;
    uint32_t crc = crc32c(&h, sizeof h);
    return crc32c_extend(crc, (const uint8_t *)page + sizeof h, STORE_PAGE_BYTES - sizeof h);
}

void page_seal(void *page)
{
    ((struct disk_page_head *)page)->crc = page_crc(page);
}

/* What a valid CRC does not say. */
bool entry_sane(const struct store *s, uint32_t entry, const struct disk_entry *e)
{
    if (!(e->flags & ENTRY_VALID))
        return true;
    if (!entry_has_slot(entry))
        return e->written == 0;
    return (uint64_t)entry_page(entry) * ENTRY_SLOTS + entry % ENTRIES_PER_PAGE < s->super.slot_count;
}

static bool entries_sane(const struct store *s, uint32_t page, const void *data)
{
    const struct disk_entry_page *p = data;
    uint32_t first = (page - s->meta.record_pages) * ENTRIES_PER_PAGE;
    for (uint32_t i = 0; i < ENTRIES_PER_PAGE; i++) {
        if (!entry_sane(s, first + i, &p->entry[i]))
            return false;
    }
    return true;
}

bool page_check(const struct store *s, uint32_t page, const void *data)
{
    const struct disk_page_head *h = data;
    if (h->magic != STORE_PAGE_MAGIC || h->kind != page_kind(s, page) || h->number != page ||
        h->store_low != store_low(s) || h->crc != page_crc(data))
        return false;
    return h->kind != PAGE_ENTRIES || entries_sane(s, page, data);
}

int meta_create(struct store *s, uint32_t frames)
{
    struct meta *m = &s->meta;
    uint32_t hash = 16;
    while (hash < frames)
        hash *= 2;
    m->count = frames;
    m->hash_mask = hash - 1;
    m->frames = calloc(frames, sizeof m->frames[0]);
    m->memory = aligned_alloc(STORE_PAGE_BYTES, (size_t)frames * STORE_PAGE_BYTES);
    m->hash = calloc(hash, sizeof m->hash[0]);
    if (!m->frames || !m->memory || !m->hash)
        return -ENOMEM;
    for (uint32_t i = 0; i < hash; i++)
        list_init(&m->hash[i]);
    return 0;
}

void meta_destroy(struct store *s)
{
    free(s->meta.frames);
    free(s->meta.memory);
    free(s->meta.hash);
}

static struct list *bucket(struct meta *m, uint32_t page)
{
    return &m->hash[(page * 0x9e3779b1u >> 7) & m->hash_mask];
}

static struct frame *frame_find(struct meta *m, uint32_t page)
{
    list_for_each(n, bucket(m, page))
    {
        struct frame *f = list_entry(n, struct frame, hash_link);
        if (f->page == page)
            return f;
    }
    return NULL;
}

/* A frame for page, in the hash; NULL when all are dirty or in use. */
static struct frame *frame_take(struct store *s, uint32_t page)
{
    struct meta *m = &s->meta;
    struct frame *f;
    if (!list_empty(&m->free)) {
        f = list_entry(list_pop_front(&m->free), struct frame, lru);
    } else if (m->high < m->count) {
        f = &m->frames[m->high];
        f->data = m->memory + (size_t)m->high++ * STORE_PAGE_BYTES;
        list_init(&f->lru);
        list_init(&f->dirty_link);
        list_init(&f->waiters);
        list_init(&f->hash_link);
    } else if (!list_empty(&m->lru)) {
        f = list_entry(list_pop_front(&m->lru), struct frame, lru);
        list_remove(&f->hash_link);
    } else {
        checkpoint_want(s);
        return NULL;
    }
    MUST(f->pins == 0 && !f->dirty && list_empty(&f->waiters));
    f->page = page;
    list_push_back(bucket(m, page), &f->hash_link);
    return f;
}

void frame_pin(struct frame *f)
{
    f->pins++;
    list_remove(&f->lru);
}

void frame_unpin(struct store *s, struct frame *f)
{
    MUST(f->pins);
    if (--f->pins || f->dirty || f->resident || f->state != FRAME_READY)
        return;
    list_push_back(&s->meta.lru, &f->lru);
    if (!list_empty(&s->meta.starved) || !list_empty(&s->exec))
        store_kick(s);
}

void frame_dirty(struct store *s, struct frame *f, uint64_t lsn)
{
    struct disk_page_head *h = (struct disk_page_head *)(void *)f->data;
    MUST(f->pins || f->resident);
    h->lsn = max_u64(h->lsn, lsn);
    if (f->in_checkpoint) {
        f->redirtied = true;
        return;
    }
    if (f->dirty)
        return;
    f->dirty = true;
    list_push_back(&s->meta.dirty, &f->dirty_link);
    if (++s->meta.dirty_count > s->meta.count / 2)
        checkpoint_want(s);
}

struct frame *frame_create(struct store *s, uint32_t page)
{
    struct frame *f = frame_find(&s->meta, page);
    if (f)
        return NULL; /* being read still, though it need not be: later */
    f = frame_take(s, page);
    if (!f)
        return NULL;
    page_init(s, page, f->data);
    f->state = FRAME_READY;
    frame_pin(f);
    frame_dirty(s, f, 0);
    return f;
}

static void frame_settle(struct store *s, struct frame *f, int rc)
{
    struct list waiters;
    list_init(&waiters);
    list_splice(&waiters, &f->waiters);
    f->state = rc ? FRAME_FREE : FRAME_READY;
    if (rc) {
        list_remove(&f->hash_link);
        list_push_back(&s->meta.free, &f->lru);
    } else {
        f->pins++; /* while waiters are told */
    }
    while (!list_empty(&waiters)) {
        struct frame_wait *w = list_entry(list_pop_front(&waiters), struct frame_wait, link);
        if (rc == 0)
            f->pins++;
        w->fn(w, rc ? NULL : f, rc);
    }
    if (rc == 0)
        frame_unpin(s, f);
}

static void frame_read(struct store *s, struct frame *f)
{
    s->stats.cache_misses++;
    sio_rw(&f->sio, s->data, DEVICE_READ, page_offset(s, f->page, f->copy), f->data, STORE_PAGE_BYTES);
}

static void frame_read_done(struct sio *sio, int rc)
{
    struct frame *f = container_of(sio, struct frame, sio);
    struct store *s = sio->s;
    bool good = rc == 0 && page_check(s, f->page, f->data);
    if (good && f->copy == 1 && !s->options.read_only) {
        /* Whole again with the next checkpoint. */
        f->state = FRAME_READY;
        f->pins++;
        frame_dirty(s, f, 0);
        f->pins--;
        s->stats.bad_pages++;
    }
    if (good) {
        frame_settle(s, f, 0);
    } else if (s->broken || rc == -ENODEV || rc == -ENOTCONN || s->data->link_state != DEVICE_LINK_UP) {
        /* The way to the medium is lost, not what is on it. */
        store_break(s, rc ? rc : -EIO, "reading metadata");
        frame_settle(s, f, s->broken);
    } else if (f->copy == 0) {
        f->copy = 1;
        frame_read(s, f);
    } else {
        s->stats.bad_pages++;
        s->damaged = true;
        frame_settle(s, f, -EBADMSG);
    }
}

int frame_get(struct store *s, uint32_t page, struct frame_wait *w, struct frame **out)
{
    struct frame *f = frame_find(&s->meta, page);
    MUST(page < s->meta.pages);
    if (f && f->state == FRAME_READY) {
        s->stats.cache_hits++;
        frame_pin(f);
        *out = f;
        return 0;
    }
    w->s = s;
    w->page = page;
    if (f) {
        list_push_back(&f->waiters, &w->link);
        return -EAGAIN;
    }
    f = frame_take(s, page);
    if (!f) {
        list_push_back(&s->meta.starved, &w->link);
        return -EAGAIN;
    }
    f->state = FRAME_LOADING;
    f->copy = 0;
    list_push_back(&f->waiters, &w->link);
    sio_init(&f->sio, s, frame_read_done);
    frame_read(s, f);
    return -EAGAIN;
}

/* Those who found no frame, in order, as far as frames go. */
void meta_retry_starved(struct store *s)
{
    struct meta *m = &s->meta;
    struct list again;
    list_init(&again);
    list_splice(&again, &m->starved);
    while (!list_empty(&again)) {
        struct frame_wait *w = list_entry(list_pop_front(&again), struct frame_wait, link);
        struct frame *f;
        if (frame_get(s, w->page, w, &f) == 0) {
            w->fn(w, f, 0);
            continue;
        }
        if (m->starved.prev == &w->link)
            break; /* still none */
    }
    /* What is left stands behind the one that was put back: its turn came first. */
    list_splice(&m->starved, &again);
}

void frame_wait_cancel(struct frame_wait *w)
{
    list_remove(&w->link);
}
