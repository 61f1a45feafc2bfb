/* model.c: what the store has promised, and whether it keeps it. */
#include "common/crc.h"
#include "tests/torture/model.h"

/* ---- content ---- */
/* What every unit is filled with says whose it is, so that anything foreign shows. */
static void model_fill_unit(uint8_t *at, uint64_t block, uint32_t unit, uint64_t version)
{
    uint64_t *words = (uint64_t *)(void *)at;
    uint64_t base = (block << 48) ^ ((uint64_t)unit << 40) ^ (version << 8);
    for (size_t i = 0; i < UNIT_BYTES / 8; i++)
        words[i] = base ^ (i * 0x9e3779b97f4a7c15ull);
}

bool model_unit_is(const uint8_t *at, uint64_t block, uint32_t unit, uint64_t version)
{
    static _Alignas(64) uint8_t want[UNIT_BYTES];
    if (version)
        model_fill_unit(want, block, unit, version);
    else
        memset(want, 0, sizeof want);
    return memcmp(at, want, UNIT_BYTES) == 0;
}

struct store_key model_key(uint64_t block)
{
    return (struct store_key){.layer = 7, .block = block, .hash = block * 0x100000001b3ull >> 3};
}

/* record: kind and index */
enum store_record_kind model_record_kind(unsigned record)
{
    return (enum store_record_kind)(record % 3);
}

uint32_t model_record_index(unsigned record)
{
    return record / 3 * 19;
}

void model_record_image(unsigned record, uint64_t value, uint8_t out[128])
{
    memset(out, 0, 128);
    if (!value)
        return;
    if (model_record_kind(record) == STORE_PARTITION) {
        struct store_partition_record r = {
            .pool = 1, .partition = record, .epoch = value, .members = {1, 2, 3}};
        memcpy(out, &r, sizeof r);
    } else if (model_record_kind(record) == STORE_VOLUME) {
        struct store_volume_record r = {
            .id.b = {(uint8_t)(record + 1)}, .generation = value, .size_bytes = ~value};
        memcpy(out, &r, sizeof r);
    } else {
        struct store_turn_record r = {.volume.b = {(uint8_t)(record + 1)}, .host = record, .turn = value};
        memcpy(out, &r, sizeof r);
    }
}

struct image *model_image(struct block *b, uint64_t number)
{
    return &b->kept[number % KEPT];
}

/* ---- requests ---- */
static bool unit_in(const struct request *q, uint32_t u)
{
    return u >= q->op.first_unit && u < q->op.first_unit + q->op.unit_count;
}

bool model_matches(const struct request *q, const struct image *im)
{
    if ((q->op.found.counter != 0) != im->present || (im->present && q->op.found.counter != im->version))
        return false;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        uint64_t content = im->present ? im->units[u] : 0;
        if (((q->op.written >> u) & 1) != (content != 0))
            return false;
        if (q->kind == DO_READ && unit_in(q, u) &&
            !model_unit_is(q->data + (size_t)(u - q->op.first_unit) * UNIT_BYTES, q->block, u, content))
            return false;
    }
    return true;
}

/* One whole image: the one acknowledged when the read began, or a later one. */
static void read_done(struct torture *t, struct request *q)
{
    struct block *b = &t->m.blocks[q->block];
    for (uint64_t n = q->number; n <= b->last; n++) {
        if (model_matches(q, model_image(b, n)))
            return;
    }
    TORTURE_FAIL(t, "a read of block %u finds version %lu, which is nothing that was asked for since %lu",
                 q->block, (unsigned long)q->op.found.counter,
                 (unsigned long)model_image(b, q->number)->version);
}

static bool error_allowed(const struct torture *t, int rc)
{
    return (t->faulty && (rc == -EIO || rc == -ENODEV || rc == -ENOSPC || rc == -EBADMSG)) ||
           (t->rotten && rc == -EBADMSG);
}

static void request_done(struct store_op *op, int rc)
{
    struct request *q = container_of(op, struct request, op);
    struct torture *t = q->t;
    CHECK(t, q->busy && !t->down, "the callback of a request that is not under way");
    CHECK(t, rc == 0 || error_allowed(t, rc), "request kind %d of block %u failed: %d", q->kind, q->block,
          rc);
    q->busy = false;
    q->rc = rc;
    t->live--;
    struct block *b = &t->m.blocks[q->block];
    bool writer = q->kind == DO_WRITE || q->kind == DO_CLEAR || q->kind == DO_REMOVE;
    if (rc) {
        /* Refused by a store that goes on: it has not happened. */
        if (writer && !store_is_broken(t->s) && q->number == b->last)
            b->last--;
        else if (writer && !store_is_broken(t->s))
            b->vague = true;
        return;
    }
    t->acknowledged++;
    if (q->kind == DO_READ || q->kind == DO_STAT) {
        read_done(t, q);
        return;
    }
    CHECK(t, q->number == b->acked + 1 || t->faulty, "block %u: done out of order", q->block);
    b->acked = q->number;
}

static void record_done(struct store_record_op *op, int rc)
{
    struct request *q = container_of(op, struct request, record_op);
    struct torture *t = q->t;
    CHECK(t, q->busy && !t->down, "the callback of a record that is not under way");
    CHECK(t, rc == 0 || error_allowed(t, rc), "record failed: %d", rc);
    q->busy = false;
    q->rc = rc;
    t->live--;
    if (rc == 0)
        t->m.records[q->block].acked = q->number;
}

static struct request *request_get(struct torture *t)
{
    for (unsigned i = 0; i < REQUESTS; i++) {
        if (!t->requests[i].busy)
            return &t->requests[i];
    }
    return NULL;
}

static void next_image(struct torture *t, struct request *q, uint64_t version, bool forget)
{
    struct block *b = &t->m.blocks[q->block];
    struct image *im = model_image(b, b->last + 1);
    uint64_t any = 0;
    *im = *model_image(b, b->last);
    if (!im->present || q->kind == DO_REMOVE)
        memset(im->units, 0, sizeof im->units);
    im->version = version;
    im->present = q->kind != DO_REMOVE;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (q->kind != DO_REMOVE && unit_in(q, u))
            im->units[u] = q->kind == DO_WRITE ? version : 0;
        any |= im->units[u];
    }
    if (q->kind == DO_CLEAR && forget && !any)
        im->present = false;
    q->number = ++b->last;
}

void model_fill(struct request *q, uint32_t first, uint32_t count, uint64_t version)
{
    if (q->kind == DO_READ)
        memset(q->data, 0xee, (size_t)count * UNIT_BYTES);
    for (uint32_t i = 0; i < count && q->kind == DO_WRITE; i++) {
        model_fill_unit(q->data + (size_t)i * UNIT_BYTES, q->block, first + i, version);
        q->crcs[i] = crc32c(q->data + (size_t)i * UNIT_BYTES, UNIT_BYTES);
    }
    uint32_t half = count / 2;
    q->iov[0] = (struct iovec){.iov_base = q->data, .iov_len = (size_t)(half ? half : count) * UNIT_BYTES};
    q->iov[1] = (struct iovec){.iov_base = q->data + (size_t)half * UNIT_BYTES,
                               .iov_len = (size_t)(count - half) * UNIT_BYTES};
}

int model_submit(struct store *s, struct request *q)
{
    switch (q->kind) {
    case DO_WRITE:
        return store_write(s, &q->op);
    case DO_CLEAR:
        return store_clear(s, &q->op);
    case DO_READ:
        return store_read(s, &q->op);
    case DO_STAT:
        return store_stat(s, &q->op);
    default:
        return store_remove(s, &q->op);
    }
}

struct request *torture_submit(struct torture *t, enum request_kind kind, unsigned block, uint32_t first,
                               uint32_t count, bool forget)
{
    struct request *q = request_get(t);
    struct block *b = &t->m.blocks[block];
    if (!q || b->last - b->acked >= KEPT / 2)
        return NULL;
    uint64_t version = ++t->m.next_version;
    q->t = t;
    q->kind = kind;
    q->block = block;
    q->number = b->acked;
    model_fill(q, first, count, version);
    q->op = (struct store_op){.key = model_key(block),
                              .first_unit = first,
                              .unit_count = count,
                              .version = {1, version},
                              .iov = q->iov,
                              .iovcnt = count > 1 ? 2 : 1,
                              .unit_crcs = q->crcs,
                              .forget = forget,
                              .done = request_done};
    q->rc = model_submit(t->s, q);
    if (q->rc == -EAGAIN || (q->rc == -ENOSPC && !t->faulty))
        return NULL;
    CHECK(t, q->rc == 0 || t->faulty, "submit of kind %d: %d", kind, q->rc);
    if (q->rc)
        return NULL;
    q->busy = true;
    t->live++;
    if (kind == DO_WRITE || kind == DO_CLEAR || kind == DO_REMOVE)
        next_image(t, q, version, forget);
    return q;
}

struct request *torture_submit_record(struct torture *t, unsigned record)
{
    struct request *q = request_get(t);
    struct record *r = &t->m.records[record];
    if (!q || r->last - r->acked >= KEPT / 2)
        return NULL;
    uint64_t value = ++t->m.next_version;
    uint8_t image[128];
    model_record_image(record, value, image);
    q->t = t;
    q->kind = DO_RECORD;
    q->block = record;
    q->record_op = (struct store_record_op){.done = record_done};
    q->rc =
        store_record_set(t->s, &q->record_op, model_record_kind(record), model_record_index(record), image);
    CHECK(t, q->rc == 0 || q->rc == -EAGAIN || t->faulty, "record: %d", q->rc);
    if (q->rc)
        return NULL;
    q->number = ++r->last;
    r->values[q->number % KEPT] = value;
    q->busy = true;
    t->live++;
    return q;
}

void torture_submit_random(struct torture *t)
{
    uint64_t roll = rng_below(&t->rng, 100);
    if (t->narrow && roll >= 50 && roll < 60)
        roll = 60; /* more clears */
    if (roll < 5) {
        torture_submit_record(t, (unsigned)rng_below(&t->rng, RECORDS));
        return;
    }
    enum request_kind kind = roll < 60   ? DO_WRITE
                             : roll < 68 ? DO_CLEAR
                             : roll < 72 ? DO_REMOVE
                             : roll < 97 ? DO_READ
                                         : DO_STAT;
    unsigned block = (unsigned)rng_below(&t->rng, rng_chance(&t->rng, 1, 2) ? 4 : BLOCKS);
    uint32_t count = rng_chance(&t->rng, 1, 5)   ? 32
                     : rng_chance(&t->rng, 1, 2) ? 1
                                                 : 1 + (uint32_t)rng_below(&t->rng, 32);
    uint32_t first = (uint32_t)rng_below(&t->rng, 33 - count);
    if (t->narrow) {
        count = 1 + (uint32_t)rng_below(&t->rng, 2);
        first = (uint32_t)rng_below(&t->rng, 2);
    }
    torture_submit(t, kind, block, first, count, rng_chance(&t->rng, 1, 2));
}

bool torture_wait(struct torture *t)
{
    bool never = false;
    while (t->live && !torture_crashed(t)) {
        uint64_t before = t->live;
        torture_run(t, &never);
        CHECK(t, t->live < before || torture_crashed(t), "%u requests never end", t->live);
    }
    return !torture_crashed(t);
}

void torture_workload(struct torture *t, unsigned steps)
{
    for (unsigned i = 0; i < steps && !torture_crashed(t); i++) {
        if (rng_chance(&t->rng, 1, 2))
            torture_submit_random(t);
        if (rng_chance(&t->rng, 2, 3))
            torture_step(t);
        if (rng_chance(&t->rng, 1, 200)) /* the device stands still meanwhile */
            sim_world_run_until(t->sim,
                                sim_world_now(t->sim) + (rng_below(&t->rng, 2) ? 30 : 1100) * NS_PER_MS);
        if (rng_chance(&t->rng, 1, 300))
            torture_pass(t, rng_below(&t->rng, 3) ? 30 * NS_PER_MS : 11 * NS_PER_S);
    }
}
