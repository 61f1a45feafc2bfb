/*
 * check_images.h: one image of each kind of store (closed, crashed; journal on the device, on pmem), copies
 * of it to be damaged, and what a check must say of them: exactly that.
 */
#ifndef CISTERN_TESTS_CHECK_IMAGES_H
#define CISTERN_TESTS_CHECK_IMAGES_H

#include "tests/unit/check_harness.h"

#include "common/table/table.h"
#include "services/rwm/store_internal.h"

enum { BLOCKS = 40, FAMILY = 77, LAYER = 7, MODULE = 5, BITS = 3, DEVICE = 8 * MIB };
static const struct uuid cluster_id = {{9, 9}}, volume_id = {{1, 2, 3}};

enum shape { CLOSED, CRASHED, CLOSED_PMEM, CRASHED_PMEM, SHAPES };
static struct image {
    struct medium *data, *journal;         /* now */
    struct medium *old_data, *old_journal; /* at the end of the start before */
    struct disk_super super;
    bool pmem;
} images[SHAPES];

struct bench {
    struct world w;
    const struct image *image;
    struct checked k;
};

/* ---- images ---- */
static inline struct store_key block_key(uint64_t block)
{
    return (struct store_key){.layer = LAYER, .block = block, .hash = placement_hash(FAMILY, block / 8)};
}

static inline void write_block(struct world *w, uint64_t block, uint32_t first, uint32_t count,
                               uint64_t version)
{
    struct request q;
    request_init(&q, block, first, count, version);
    q.op.key = block_key(block);
    assert_int_equal(do_request(w, &q, DO_WRITE), 0);
    request_free(&q);
}

static inline void clear_block(struct world *w, uint64_t block, enum request_kind kind, uint64_t version)
{
    struct request q;
    request_init(&q, block, 0, 32, version);
    q.op.key = block_key(block);
    assert_int_equal(do_request(w, &q, kind), 0);
    request_free(&q);
}

static inline void set_record(struct world *w, enum store_record_kind kind, uint32_t index,
                              const void *record)
{
    assert_int_equal(store_record_set(w->s, NULL, kind, index, record), 0);
    world_drain(w);
}

static inline void join(struct world *w)
{
    w->done = false;
    assert_int_equal(store_set_identity(w->s, &cluster_id, MODULE, BITS, on_done, w), 0);
    assert_true(world_run(w, &w->done));
    for (uint32_t p = 0; p < 1u << BITS; p++) {
        struct store_partition_record r = {.pool = 1, .partition = p, .epoch = 3, .members = {MODULE}};
        set_record(w, STORE_PARTITION, p, &r);
    }
    struct store_volume_record v = {.id = volume_id,
                                    .family = FAMILY,
                                    .layer = LAYER,
                                    .generation = 1,
                                    .size_bytes = 64 * BLOCK_BYTES,
                                    .pool = 1};
    set_record(w, STORE_VOLUME, 2, &v);
    struct store_turn_record t = {.volume = volume_id, .host = 4, .turn = 5};
    set_record(w, STORE_TURN, 1, &t);
}

/* Two starts: the second changes every page that has something, less than what makes a checkpoint begin by
 * itself. */
static inline void make_image(enum shape shape)
{
    struct image *im = &images[shape];
    struct world w;
    world_init(&w, 40 + shape);
    im->pmem = shape == CLOSED_PMEM || shape == CRASHED_PMEM;
    w.data = device_ram_create(DEVICE, 4096, 512, 0);
    if (im->pmem) {
        w.journal = device_ram_create(MIB + 65536, 64, 8, 0);
        w.journal->durable_writes = true;
    }
    assert_int_equal(world_format(&w, small_format()), 0);
    assert_int_equal(world_open(&w, NULL), 0);
    join(&w);
    for (uint64_t b = 0; b < BLOCKS; b++)
        write_block(&w, b, 3, 4, 1 + b);
    assert_int_equal(world_close(&w), 0);
    im->old_data = medium_clone(device_ram_medium(w.data));
    im->old_journal = w.journal ? medium_clone(device_ram_medium(w.journal)) : NULL;
    assert_int_equal(world_open(&w, NULL), 0);
    for (uint64_t b = 0; b < BLOCKS; b++)
        write_block(&w, b, b % 2 ? 3 : 6, b % 2 ? 1 : 2, 100 + b);
    clear_block(&w, 5, DO_CLEAR, 200);
    clear_block(&w, 6, DO_REMOVE, 201);
    struct store_turn_record t = {.volume = volume_id, .host = 4, .turn = 6};
    set_record(&w, STORE_TURN, 1, &t);
    struct store_volume_record v =
        *(const struct store_volume_record *)store_record_get(w.s, STORE_VOLUME, 2);
    v.generation = 2;
    set_record(&w, STORE_VOLUME, 2, &v);
    struct store_partition_record p = {.pool = 1, .partition = 0, .epoch = 4, .members = {MODULE}};
    set_record(&w, STORE_PARTITION, 0, &p);
    if (shape == CRASHED || shape == CRASHED_PMEM) {
        store_destroy(w.s);
        w.s = NULL;
        device_ram_kill(w.data, 1);
        if (w.journal)
            device_ram_kill(w.journal, 1);
    } else {
        assert_int_equal(world_close(&w), 0);
    }
    im->data = medium_clone(device_ram_medium(w.data));
    im->journal = w.journal ? medium_clone(device_ram_medium(w.journal)) : NULL;
    medium_read(im->data, STORE_SUPER_0, &im->super, sizeof im->super);
    world_end(&w);
}

static inline int make_images(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SHAPES; i++)
        make_image(i);
    return 0;
}

static inline int free_images(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SHAPES; i++) {
        medium_destroy(images[i].data);
        medium_destroy(images[i].old_data);
        if (images[i].pmem) {
            medium_destroy(images[i].journal);
            medium_destroy(images[i].old_journal);
        }
    }
    return 0;
}

static inline void bench_begin(struct bench *b, enum shape shape)
{
    memset(b, 0, sizeof *b);
    b->image = &images[shape];
    world_init(&b->w, 1);
    b->w.data = device_ram_create(DEVICE, 4096, 512, 0);
    medium_restore(device_ram_medium(b->w.data), b->image->data);
    if (b->image->pmem) {
        b->w.journal = device_ram_create(MIB + 65536, 64, 8, 0);
        b->w.journal->durable_writes = true;
        medium_restore(device_ram_medium(b->w.journal), b->image->journal);
    }
}

static inline void bench_end(struct bench *b)
{
    checked_end(&b->k);
    world_end(&b->w);
}

/* ---- damage ---- */
static inline void get(struct bench *b, uint64_t offset, void *out, size_t bytes)
{
    medium_read(device_ram_medium(b->w.data), offset, out, bytes);
}

static inline void put(struct device *d, uint64_t offset, const void *bytes, size_t length)
{
    assert_int_equal(medium_write(device_ram_medium(d), offset, bytes, length, true), 0);
}

/* One bit, in the middle of a page: magic and head stay. */
static inline void rot(struct device *d, uint64_t page_at)
{
    static _Alignas(4096) uint8_t page[STORE_PAGE_BYTES];
    medium_read(device_ram_medium(d), page_at, page, sizeof page);
    page[1000] ^= 4;
    put(d, page_at, page, sizeof page);
}

static inline void put_old(struct device *d, const struct medium *old, uint64_t offset, size_t length)
{
    uint8_t *bytes = malloc(length);
    assert_non_null(bytes);
    medium_read(old, offset, bytes, length);
    put(d, offset, bytes, length);
    free(bytes);
}

static inline uint64_t page_at(const struct bench *b, uint32_t page, unsigned copy)
{
    return (copy ? b->image->super.meta_b : b->image->super.meta_a) + (uint64_t)page * STORE_PAGE_BYTES;
}

static inline uint32_t record_pages(const struct bench *b)
{
    return b->image->super.record_pages[0] + b->image->super.record_pages[1] +
           b->image->super.record_pages[2];
}

static inline uint32_t pages_used(const struct bench *b)
{
    return record_pages(b) + b->image->super.entry_pages_used;
}

/* Changes an entry in both copies. */
#define CHANGE_ENTRY(b, number, ...)                                                                         \
    do {                                                                                                     \
        for (unsigned copy_ = 0; copy_ < 2; copy_++) {                                                       \
            static _Alignas(4096) struct disk_entry_page p_;                                                 \
            uint64_t at_ = page_at(b, record_pages(b) + (number) / ENTRIES_PER_PAGE, copy_);                 \
            get(b, at_, &p_, sizeof p_);                                                                     \
            struct disk_entry *e = &p_.entry[(number) % ENTRIES_PER_PAGE];                                   \
            __VA_ARGS__;                                                                                     \
            page_seal(&p_);                                                                                  \
            put((b)->w.data, at_, &p_, sizeof p_);                                                           \
        }                                                                                                    \
    } while (0)

#define CHANGE_RECORD(b, type, kind, index, ...)                                                             \
    do {                                                                                                     \
        for (unsigned copy_ = 0; copy_ < 2; copy_++) {                                                       \
            static _Alignas(4096) uint8_t p_[STORE_PAGE_BYTES];                                              \
            uint32_t page_ = 0;                                                                              \
            for (unsigned k_ = 0; k_ != (kind); k_++)                                                        \
                page_ += (b)->image->super.record_pages[k_];                                                 \
            get(b, page_at(b, page_, copy_), p_, sizeof p_);                                                 \
            type *r = (type *)(void *)(p_ + sizeof(struct disk_page_head)) + (index);                        \
            __VA_ARGS__;                                                                                     \
            page_seal(p_);                                                                                   \
            put((b)->w.data, page_at(b, page_, copy_), p_, sizeof p_);                                       \
        }                                                                                                    \
    } while (0)

#define CHANGE_SUPER(b, copies, ...)                                                                         \
    do {                                                                                                     \
        for (unsigned copy_ = 0; copy_ < 2; copy_++) {                                                       \
            static _Alignas(4096) struct disk_super p_;                                                      \
            struct disk_super *sb = &p_;                                                                     \
            if (!((copies) & (1u << copy_)))                                                                 \
                continue;                                                                                    \
            get(b, copy_ ? STORE_SUPER_1 : STORE_SUPER_0, &p_, sizeof p_);                                   \
            __VA_ARGS__;                                                                                     \
            super_seal(&p_);                                                                                 \
            put((b)->w.data, copy_ ? STORE_SUPER_1 : STORE_SUPER_0, &p_, sizeof p_);                         \
        }                                                                                                    \
    } while (0)

/* The entry that has a block (as of the pages), which must have one. */
static inline uint32_t entry_of(struct bench *b, uint64_t block)
{
    for (uint32_t i = 0; i < b->image->super.entry_pages_used * ENTRIES_PER_PAGE; i++) {
        struct disk_entry_page p;
        get(b, page_at(b, record_pages(b) + i / ENTRIES_PER_PAGE, 0), &p, sizeof p);
        const struct disk_entry *e = &p.entry[i % ENTRIES_PER_PAGE];
        if ((e->flags & ENTRY_VALID) && e->block == block)
            return i;
    }
    fail_msg("block %lu has no entry", (unsigned long)block);
    return 0;
}

static inline uint64_t slot_at(const struct bench *b, uint32_t entry)
{
    return b->image->super.slots_offset +
           ((uint64_t)(entry / ENTRIES_PER_PAGE) * ENTRY_SLOTS + entry % ENTRIES_PER_PAGE) * BLOCK_BYTES;
}

/* ---- expectations ---- */
#define ANY 0xffffffffffffffffull
struct expected {
    enum store_finding_kind kind;
    int copy;
    uint64_t number;
};
#define F(kind, copy, number)                                                                                \
    {                                                                                                        \
        STORE_FINDING_##kind, copy, number                                                                   \
    }

static inline bool normal(enum store_finding_kind kind)
{
    return kind == STORE_FINDING_JOURNAL_PENDING;
}

static inline void expect_list(struct bench *b, bool data, const struct expected *e, unsigned count)
{
    checked_end(&b->k);
    assert_int_equal(checked_run(&b->k, &b->w, data, 0, 0), 0);
    unsigned found = 0;
    bool same = true;
    for (unsigned i = 0; i < b->k.count && i < FINDINGS_KEPT; i++) {
        const struct store_finding *f = &b->k.found[i];
        if (normal(f->kind))
            continue;
        same = same && found < count && e[found].kind == f->kind && e[found].copy == f->copy &&
               (e[found].number == ANY || e[found].number == f->number);
        found++;
    }
    if (same && found == count)
        return;
    checked_print(&b->k);
    for (unsigned i = 0; i < count; i++)
        printf("  expected: %s copy %d number %lu\n", store_finding_name(e[i].kind), e[i].copy,
               (unsigned long)e[i].number);
    fail_msg("%u findings, %u expected, or others", found, count);
}

#define EXPECT(b, data, ...)                                                                                 \
    do {                                                                                                     \
        const struct expected list_[] = {__VA_ARGS__};                                                       \
        expect_list(b, data, list_, ARRAY_LEN(list_));                                                       \
    } while (0)
#define EXPECT_CLEAN(b, data) expect_list(b, data, NULL, 0)

/* What the check found is written; where images are equal again to reference, nothing else was touched. */
static inline void repair_all(struct bench *b, uint64_t want)
{
    uint64_t written = 99, before = medium_sequence(device_ram_medium(b->w.data));
    assert_int_equal(b->k.r->repairable, want);
    assert_int_equal(store_repair(b->k.check, true, NULL, NULL, &written), 0);
    assert_int_equal(written, want);
    assert_int_equal(medium_sequence(device_ram_medium(b->w.data)), before);
    assert_int_equal(store_repair_flush(b->k.check), 0);
    assert_int_equal(store_repair(b->k.check, false, NULL, NULL, &written), 0);
    assert_int_equal(written, want);
}

static inline void assert_same(struct device *d, const struct medium *want)
{
    uint64_t size = medium_size(want);
    uint8_t *a = malloc(size), *c = malloc(size);
    assert_true(a && c);
    medium_read(device_ram_medium(d), 0, a, size);
    medium_read(want, 0, c, size);
    for (uint64_t at = 0; at < size; at += 512)
        assert_memory_equal(a + at, c + at, 512);
    free(a);
    free(c);
}

static inline void repaired_whole(struct bench *b, uint64_t want)
{
    repair_all(b, want);
    assert_same(b->w.data, b->image->data);
    if (b->w.journal)
        assert_same(b->w.journal, b->image->journal);
}

/* What a page's damage looks like: rot, nothing there, another page's content, another store's. */
static inline void damage_page(struct bench *b, unsigned how, uint32_t page, unsigned copy)
{
    static _Alignas(4096) uint8_t p[STORE_PAGE_BYTES];
    uint64_t at = page_at(b, page, copy);
    get(b, at, p, sizeof p);
    struct disk_page_head *h = (void *)p;
    if (how == 0) {
        rot(b->w.data, at);
        return;
    }
    if (how == 1) {
        memset(p, 0, sizeof p);
    } else if (how == 2) {
        h->number++;
        page_seal(p);
    } else {
        h->store_low++;
        page_seal(p);
    }
    put(b->w.data, at, p, sizeof p);
}

#endif
