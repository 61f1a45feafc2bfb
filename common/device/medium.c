#include "common/device/medium.h"

#include <stdlib.h>
#include <string.h>

/* ---- images: sparse, copy on write ---- */
enum { LEAF_CHUNKS = 256, FAULTS_MAX = 32 };
struct chunk {
    uint32_t refs;
    uint8_t data[MEDIUM_CHUNK_BYTES];
};
struct leaf {
    struct chunk *chunks[LEAF_CHUNKS];
};
struct image {
    struct leaf **leaves;
    uint64_t leaf_count;
    uint64_t chunk_count; /* allocated */
};

struct log_entry {
    struct list link;
    uint64_t sequence, offset, length;
    uint8_t *data; /* NULL: zeroes */
};
struct fault {
    unsigned ops; /* 0 = free */
    uint64_t offset, length;
    int rc;
};
struct medium {
    struct image view, durable;
    uint64_t size, sequence, limit;
    uint32_t io_bytes, atom_bytes;
    struct list log; /* unflushed, in order of completion */
    uint64_t log_length;
    struct fault faults[FAULTS_MAX];
    struct {
        uint64_t countdown;
        int rc;
    } nth[DEVICE_DISCARD + 1];
};

static void *must_alloc(size_t size)
{
    void *p = calloc(1, size);
    MUST(p);
    return p;
}

static void chunk_unref(struct chunk *c)
{
    if (c && --c->refs == 0)
        free(c);
}

static void image_init(struct image *im, uint64_t size)
{
    uint64_t leaf_bytes = (uint64_t)LEAF_CHUNKS * MEDIUM_CHUNK_BYTES;
    im->leaf_count = (size + leaf_bytes - 1) / leaf_bytes;
    im->leaves = must_alloc(im->leaf_count * sizeof *im->leaves);
    im->chunk_count = 0;
}

static void image_clear(struct image *im)
{
    for (uint64_t i = 0; i < im->leaf_count; i++) {
        if (!im->leaves[i])
            continue;
        for (unsigned j = 0; j < LEAF_CHUNKS; j++)
            chunk_unref(im->leaves[i]->chunks[j]);
        free(im->leaves[i]);
        im->leaves[i] = NULL;
    }
    im->chunk_count = 0;
}

static void image_free(struct image *im)
{
    image_clear(im);
    free(im->leaves);
}

/* dst becomes a copy of src; both of one size. */
static void image_assign(struct image *dst, const struct image *src)
{
    image_clear(dst);
    MUST(dst->leaf_count == src->leaf_count);
    for (uint64_t i = 0; i < src->leaf_count; i++) {
        if (!src->leaves[i])
            continue;
        dst->leaves[i] = must_alloc(sizeof(struct leaf));
        for (unsigned j = 0; j < LEAF_CHUNKS; j++) {
            dst->leaves[i]->chunks[j] = src->leaves[i]->chunks[j];
            if (dst->leaves[i]->chunks[j])
                dst->leaves[i]->chunks[j]->refs++;
        }
    }
    dst->chunk_count = src->chunk_count;
}

static struct chunk **image_slot(const struct image *im, uint64_t number, bool create)
{
    uint64_t leaf = number / LEAF_CHUNKS;
    MUST(leaf < im->leaf_count);
    if (!im->leaves[leaf]) {
        if (!create)
            return NULL;
        im->leaves[leaf] = must_alloc(sizeof(struct leaf));
    }
    return &im->leaves[leaf]->chunks[number % LEAF_CHUNKS];
}

static const uint8_t *image_peek(const struct image *im, uint64_t number)
{
    struct chunk **slot = image_slot(im, number, false);
    return slot && *slot ? (*slot)->data : NULL;
}

/* The chunk, there and not shared. */
static uint8_t *image_touch(struct image *im, uint64_t number)
{
    struct chunk **slot = image_slot(im, number, true);
    if (*slot && (*slot)->refs == 1)
        return (*slot)->data;
    struct chunk *c = must_alloc(sizeof *c);
    c->refs = 1;
    if (*slot) {
        memcpy(c->data, (*slot)->data, sizeof c->data);
        chunk_unref(*slot);
    } else {
        im->chunk_count++;
    }
    *slot = c;
    return c->data;
}

static uint64_t piece_length(uint64_t offset, uint64_t length)
{
    return min_u64(length, MEDIUM_CHUNK_BYTES - offset % MEDIUM_CHUNK_BYTES);
}

static void image_read(const struct image *im, uint64_t offset, uint8_t *out, uint64_t length)
{
    while (length) {
        uint64_t n = piece_length(offset, length);
        const uint8_t *data = image_peek(im, offset / MEDIUM_CHUNK_BYTES);
        if (data)
            memcpy(out, data + offset % MEDIUM_CHUNK_BYTES, n);
        else
            memset(out, 0, n);
        offset += n;
        out += n;
        length -= n;
    }
}

static void image_drop(struct image *im, uint64_t number)
{
    struct chunk **slot = image_slot(im, number, false);
    if (!slot || !*slot)
        return;
    chunk_unref(*slot);
    *slot = NULL;
    im->chunk_count--;
}

/* data NULL: zeroes; whole chunks of zeroes are given back. */
static void image_write(struct image *im, uint64_t offset, const uint8_t *data, uint64_t length)
{
    while (length) {
        uint64_t n = piece_length(offset, length), number = offset / MEDIUM_CHUNK_BYTES;
        if (data) {
            memcpy(image_touch(im, number) + offset % MEDIUM_CHUNK_BYTES, data, n);
            data += n;
        } else if (n == MEDIUM_CHUNK_BYTES) {
            image_drop(im, number);
        } else if (image_peek(im, number)) {
            memset(image_touch(im, number) + offset % MEDIUM_CHUNK_BYTES, 0, n);
        }
        offset += n;
        length -= n;
    }
}

/* ---- the medium ---- */
struct medium *medium_create(uint64_t size, uint32_t io_bytes, uint32_t atom_bytes)
{
    MUST(is_pow2(io_bytes) && is_pow2(atom_bytes) && atom_bytes <= io_bytes &&
         io_bytes <= MEDIUM_CHUNK_BYTES);
    MUST(size && size % io_bytes == 0);
    struct medium *m = must_alloc(sizeof *m);
    image_init(&m->view, size);
    image_init(&m->durable, size);
    m->size = size;
    m->io_bytes = io_bytes;
    m->atom_bytes = atom_bytes;
    m->limit = UINT64_MAX;
    list_init(&m->log);
    return m;
}

static void log_remove(struct medium *m, struct log_entry *e)
{
    list_remove(&e->link);
    m->log_length--;
    free(e->data);
    free(e);
}

static void log_append(struct medium *m, uint64_t sequence, uint64_t offset, const uint8_t *data,
                       uint64_t length)
{
    struct log_entry *e = must_alloc(sizeof *e);
    e->sequence = sequence;
    e->offset = offset;
    e->length = length;
    if (data) {
        e->data = must_alloc(length);
        memcpy(e->data, data, length);
    }
    list_push_back(&m->log, &e->link);
    m->log_length++;
}

static void log_clear(struct medium *m)
{
    list_for_each_safe(n, &m->log) log_remove(m, list_entry(n, struct log_entry, link));
}

void medium_destroy(struct medium *m)
{
    if (!m)
        return;
    log_clear(m);
    image_free(&m->view);
    image_free(&m->durable);
    free(m);
}

struct medium *medium_clone(const struct medium *m)
{
    struct medium *c = medium_create(m->size, m->io_bytes, m->atom_bytes);
    medium_restore(c, m);
    c->limit = m->limit;
    return c;
}

uint64_t medium_size(const struct medium *m)
{
    return m->size;
}

uint32_t medium_io_bytes(const struct medium *m)
{
    return m->io_bytes;
}

uint32_t medium_atom_bytes(const struct medium *m)
{
    return m->atom_bytes;
}

static void must_fit(const struct medium *m, uint64_t offset, uint64_t length)
{
    MUST(offset <= m->size && length <= m->size - offset);
}

void medium_read(const struct medium *m, uint64_t offset, void *out, uint64_t length)
{
    must_fit(m, offset, length);
    image_read(&m->view, offset, out, length);
}

static uint64_t missing_chunks(const struct medium *m, uint64_t offset, uint64_t length)
{
    uint64_t missing = 0;
    if (length == 0)
        return 0;
    for (uint64_t n = offset / MEDIUM_CHUNK_BYTES; n <= (offset + length - 1) / MEDIUM_CHUNK_BYTES; n++)
        missing += image_peek(&m->view, n) == NULL;
    return missing;
}

/* A durable write takes what lies in its way with it: an unflushed one must not come back over it. */
static void log_supersede(struct medium *m, uint64_t offset, const uint8_t *data, uint64_t length)
{
    list_for_each(n, &m->log)
    {
        struct log_entry *e = list_entry(n, struct log_entry, link);
        uint64_t from = max_u64(e->offset, offset), to = min_u64(e->offset + e->length, offset + length);
        if (from >= to)
            continue;
        if (!e->data) {
            e->data = must_alloc(e->length);
            memset(e->data, 0, e->length);
        }
        if (data)
            memcpy(e->data + (from - e->offset), data + (from - offset), to - from);
        else
            memset(e->data + (from - e->offset), 0, to - from);
    }
}

static void apply(struct medium *m, uint64_t sequence, uint64_t offset, const uint8_t *data, uint64_t length,
                  bool durable)
{
    image_write(&m->view, offset, data, length);
    if (durable) {
        image_write(&m->durable, offset, data, length);
        log_supersede(m, offset, data, length);
    } else {
        log_append(m, sequence, offset, data, length);
    }
}

int medium_write(struct medium *m, uint64_t offset, const void *data, uint64_t length, bool durable)
{
    must_fit(m, offset, length);
    if (m->limit != UINT64_MAX &&
        medium_allocated(m) + missing_chunks(m, offset, length) * MEDIUM_CHUNK_BYTES > m->limit &&
        missing_chunks(m, offset, length))
        return -ENOSPC;
    apply(m, ++m->sequence, offset, data, length, durable);
    return 0;
}

void medium_write_torn(struct medium *m, uint64_t offset, const void *data, uint64_t length, bool durable,
                       struct rng *rng)
{
    must_fit(m, offset, length);
    const uint8_t *bytes = data;
    uint64_t sequence = ++m->sequence;
    for (uint64_t at = 0; at < length; at += m->atom_bytes) {
        if (rng_chance(rng, 1, 2))
            apply(m, sequence, offset + at, bytes + at, min_u64(m->atom_bytes, length - at), durable);
    }
}

void medium_discard(struct medium *m, uint64_t offset, uint64_t length, bool durable, struct rng *rng)
{
    must_fit(m, offset, length);
    uint64_t sequence = ++m->sequence;
    for (uint64_t at = 0; at < length;) {
        uint64_t n = piece_length(offset + at, length - at);
        if (!rng || rng_chance(rng, 1, 2))
            apply(m, sequence, offset + at, NULL, n, durable);
        at += n;
    }
}

uint64_t medium_sequence(const struct medium *m)
{
    return m->sequence;
}

void medium_flush(struct medium *m, uint64_t sequence)
{
    list_for_each_safe(n, &m->log)
    {
        struct log_entry *e = list_entry(n, struct log_entry, link);
        if (e->sequence > sequence)
            break; /* the log is in order */
        image_write(&m->durable, e->offset, e->data, e->length);
        log_remove(m, e);
    }
}

uint64_t medium_unflushed(const struct medium *m)
{
    return m->log_length;
}

/* Some pieces of one write: a prefix (a transfer cut off) or any subset (a cache written back in its own
 * order). */
static void crash_torn(struct medium *m, const struct log_entry *e, struct rng *rng)
{
    uint64_t pieces = (e->length + m->atom_bytes - 1) / m->atom_bytes;
    bool prefix = rng_chance(rng, 1, 3);
    uint64_t cut = rng_below(rng, pieces + 1);
    for (uint64_t i = 0; i < pieces; i++) {
        if (prefix ? i >= cut : rng_chance(rng, 1, 2))
            continue;
        uint64_t at = i * m->atom_bytes;
        image_write(&m->durable, e->offset + at, e->data ? e->data + at : NULL,
                    min_u64(m->atom_bytes, e->length - at));
    }
}

void medium_crash(struct medium *m, struct rng *rng)
{
    /* The share of survivors differs from crash to crash: a crash where almost all survives finds other bugs
     * than one where almost nothing does. */
    uint64_t whole = rng_below(rng, 101), torn = rng_below(rng, 101 - whole);
    list_for_each_safe(n, &m->log)
    {
        struct log_entry *e = list_entry(n, struct log_entry, link);
        uint64_t roll = rng_below(rng, 100);
        if (roll < whole)
            image_write(&m->durable, e->offset, e->data, e->length);
        else if (roll < whole + torn)
            crash_torn(m, e, rng);
        log_remove(m, e);
    }
    image_assign(&m->view, &m->durable);
}

/* ---- faults ---- */
void medium_corrupt(struct medium *m, uint64_t offset, uint64_t length, struct rng *rng)
{
    must_fit(m, offset, length);
    for (uint64_t at = offset; at < offset + length;) {
        uint64_t n = min_u64(512 - at % 512, offset + length - at);
        uint64_t bit = rng_below(rng, n * 8), where = at + bit / 8;
        uint8_t flip = (uint8_t)(1u << (bit % 8)), byte;
        image_read(&m->view, where, &byte, 1);
        byte ^= flip;
        image_write(&m->view, where, &byte, 1);
        image_read(&m->durable, where, &byte, 1);
        byte ^= flip;
        image_write(&m->durable, where, &byte, 1);
        at += n;
    }
}

static bool overlaps(const struct fault *f, uint64_t offset, uint64_t length)
{
    return offset < f->offset + f->length && f->offset < offset + length;
}

void medium_fail_range(struct medium *m, unsigned ops, uint64_t offset, uint64_t length, int rc)
{
    length = min_u64(length, UINT64_MAX - offset);
    if (rc == 0) {
        for (unsigned i = 0; i < FAULTS_MAX; i++) {
            if (overlaps(&m->faults[i], offset, length))
                m->faults[i].ops &= ~ops;
        }
        return;
    }
    for (unsigned i = 0; i < FAULTS_MAX; i++) {
        if (m->faults[i].ops)
            continue;
        m->faults[i] = (struct fault){.ops = ops, .offset = offset, .length = length, .rc = rc};
        return;
    }
    MUST(!"too many faults on one medium");
}

void medium_fail_nth(struct medium *m, enum device_op op, uint64_t n, int rc)
{
    m->nth[op].countdown = n;
    m->nth[op].rc = rc;
}

int medium_fault(struct medium *m, enum device_op op, uint64_t offset, uint64_t length)
{
    if (m->nth[op].countdown && --m->nth[op].countdown == 0)
        return m->nth[op].rc;
    for (unsigned i = 0; i < FAULTS_MAX; i++) {
        const struct fault *f = &m->faults[i];
        if ((f->ops & (1u << op)) && (op == DEVICE_FLUSH || overlaps(f, offset, length)))
            return f->rc;
    }
    return 0;
}

void medium_limit(struct medium *m, uint64_t bytes)
{
    m->limit = bytes;
}

uint64_t medium_allocated(const struct medium *m)
{
    return m->view.chunk_count * MEDIUM_CHUNK_BYTES;
}

void medium_blank(struct medium *m)
{
    log_clear(m);
    image_clear(&m->view);
    image_clear(&m->durable);
}

void medium_restore(struct medium *m, const struct medium *from)
{
    MUST(m != from && m->size == from->size);
    log_clear(m);
    image_assign(&m->view, &from->view);
    image_assign(&m->durable, &from->durable);
    list_for_each(n, &from->log)
    {
        const struct log_entry *e = list_entry(n, struct log_entry, link);
        log_append(m, m->sequence, e->offset, e->data, e->length);
    }
}
