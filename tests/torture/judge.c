/* judge.c: reads everything, and compares. */
#include "tests/torture/model.h"

static void looked(struct store_op *op, int rc)
{
    struct request *q = container_of(op, struct request, op);
    q->busy = false;
    q->rc = rc;
}

/* What the store has: in t->judge. 0, or -errno as the store says it. */
static int look(struct torture *t, enum request_kind kind, unsigned block, uint32_t first, uint32_t count)
{
    struct request *q = &t->judge;
    bool never = false;
    q->t = t;
    q->kind = kind;
    q->block = block;
    model_fill(q, first, count, 0);
    q->op = (struct store_op){.key = model_key(block),
                              .first_unit = first,
                              .unit_count = count,
                              .iov = q->iov,
                              .iovcnt = count > 1 ? 2 : 1,
                              .done = looked};
    q->rc = model_submit(t->s, q);
    CHECK(t, q->rc == 0, "the judge may not read: %d", q->rc);
    q->busy = true;
    while (q->busy && !torture_crashed(t)) {
        torture_run(t, &never);
        CHECK(t, !q->busy || torture_crashed(t), "the judge's read never ends");
    }
    return q->rc;
}

/* From now on it is this one. It gets a new number: the order of the others stays. */
static int64_t settle(struct block *b, uint64_t number)
{
    struct image im = *model_image(b, number);
    b->acked = ++b->last;
    *model_image(b, b->last) = im;
    b->vague = false;
    return (int64_t)b->last;
}

static uint64_t oldest(const struct torture *t, const struct block *b)
{
    if (!t->lossy)
        return b->acked;
    return b->last < KEPT ? 0 : b->last - KEPT + 1;
}

/* Nobody knows which of several requests happened: whatever is there must have been asked for once. */
static bool vague_ok(struct torture *t, struct block *b, unsigned block)
{
    const struct request *q = &t->judge;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        bool known =
            !(q->op.written >> u & 1) && model_unit_is(q->data + (size_t)u * UNIT_BYTES, block, u, 0);
        for (uint64_t n = b->last < KEPT ? 0 : b->last - KEPT + 1; n <= b->last && !known; n++)
            known = model_unit_is(q->data + (size_t)u * UNIT_BYTES, block, u, model_image(b, n)->units[u]);
        if (!known)
            return false;
    }
    struct image im = {.version = q->op.found.counter, .present = q->op.found.counter != 0};
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        for (uint64_t n = b->last < KEPT ? 0 : b->last - KEPT + 1; n <= b->last && (q->op.written >> u & 1);
             n++) {
            uint64_t v = model_image(b, n)->units[u];
            if (v && model_unit_is(q->data + (size_t)u * UNIT_BYTES, block, u, v))
                im.units[u] = v;
        }
    }
    *model_image(b, ++b->last) = im;
    b->acked = b->last;
    b->vague = false;
    return true;
}

/* The block is not readable as a whole: its units one by one. */
static void check_units(struct torture *t, unsigned block)
{
    struct block *b = &t->m.blocks[block];
    int rc = look(t, DO_STAT, block, 0, 1);
    CHECK(t, rc == 0 || rc == -EBADMSG, "stat of block %u: %d", block, rc);
    const struct image *im = NULL;
    uint64_t number = 0;
    for (uint64_t n = oldest(t, b); n <= b->last && rc == 0 && !im; n++) {
        if (model_matches(&t->judge, model_image(b, n)))
            im = model_image(b, number = n);
    }
    CHECK(t, rc || im, "block %u: unreadable, and of version %lu, which nobody asked for since %lu", block,
          (unsigned long)t->judge.op.found.counter, (unsigned long)model_image(b, b->acked)->version);
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        int one = look(t, DO_READ, block, u, 1);
        CHECK(t, one == -EBADMSG || (one == 0 && rc == 0), "unit %u of block %u: %d, stat %d", u, block, one,
              rc);
        if (one == 0)
            CHECK(t, model_unit_is(t->judge.data, block, u, im->present ? im->units[u] : 0),
                  "unit %u of block %u is not what it was", u, block);
    }
    if (im)
        settle(b, number);
}

int64_t torture_verify_block(struct torture *t, unsigned block)
{
    struct block *b = &t->m.blocks[block];
    struct request *q = &t->judge;
    int rc = look(t, DO_READ, block, 0, UNITS_PER_BLOCK);
    if (rc == -EBADMSG && t->rotten) {
        check_units(t, block);
        return rc;
    }
    CHECK(t, rc == 0, "read of block %u: %d", block, rc);
    if (b->vague && vague_ok(t, b, block))
        return (int64_t)b->last;
    for (uint64_t n = b->last + 1; n-- > oldest(t, b);) {
        if (model_matches(q, model_image(b, n)))
            return settle(b, n);
    }
    if (t->lossy && q->op.found.counter < model_image(b, oldest(t, b))->version) {
        b->vague = true; /* older than we know */
        return (int64_t)b->last;
    }
    TORTURE_FAIL(
        t, "block %u has version %lu, written %08x: neither the acknowledged one (%lu) nor any later of %lu",
        block, (unsigned long)q->op.found.counter, q->op.written,
        (unsigned long)model_image(b, b->acked)->version, (unsigned long)(b->last - b->acked));
}

static void verify_record(struct torture *t, unsigned record)
{
    struct record *r = &t->m.records[record];
    uint8_t want[128];
    size_t bytes = model_record_kind(record) == STORE_VOLUME ? 128 : 64;
    const void *got = store_record_get(t->s, model_record_kind(record), model_record_index(record));
    if (!got) {
        CHECK(t, t->rotten && store_is_damaged(t->s), "record %u is gone", record);
        return;
    }
    /* Where a piece of the journal rotted the store says that it is damaged; records may be of before. */
    bool older = t->lossy || (t->rotten && store_is_damaged(t->s));
    uint64_t first = !older ? r->acked : r->last < KEPT ? 0 : r->last - KEPT + 1;
    for (uint64_t n = r->last + 1; n-- > first;) {
        uint64_t value = r->values[n % KEPT];
        model_record_image(record, value, want);
        if (memcmp(got, want, bytes))
            continue;
        r->acked = ++r->last;
        r->values[r->last % KEPT] = value;
        return;
    }
    CHECK(t, older && first > 0, "record %u is neither what was acknowledged nor later", record);
}

static void verify_list(struct torture *t)
{
    struct store_key keys[BLOCKS + 1];
    uint64_t cursor = 0;
    unsigned present = 0, n = 0;
    for (uint32_t p = 0; p < 1u << store_identity(t->s)->partition_bits; p++) {
        cursor = 0;
        n += store_list(t->s, p, &cursor, keys + n, BLOCKS + 1 - n);
        CHECK(t, cursor == 0, "more blocks are listed than there are");
    }
    for (unsigned b = 0; b < BLOCKS; b++) {
        struct block *m = &t->m.blocks[b];
        if (m->vague)
            return;
        present += model_image(m, m->acked)->present;
    }
    CHECK(t, n == present, "%u blocks are listed, %u are there", n, present);
}

static void verify_identity(struct torture *t)
{
    uint64_t got = store_identity(t->s)->accepted_incarnation;
    CHECK(t, got == t->m.incarnation || got == t->m.incarnation_next, "accepted incarnation %lu",
          (unsigned long)got);
    t->m.incarnation = t->m.incarnation_next = got;
}

static unsigned verify_all(struct torture *t, int64_t found[BLOCKS])
{
    unsigned bad = 0;
    for (unsigned b = 0; b < BLOCKS; b++) {
        found[b] = torture_verify_block(t, b);
        bad += found[b] < 0;
    }
    for (unsigned r = 0; r < RECORDS; r++)
        verify_record(t, r);
    if (!store_is_damaged(t->s) && !bad)
        verify_list(t);
    verify_identity(t);
    return bad;
}

void torture_verify(struct torture *t)
{
    int64_t found[BLOCKS];
    verify_all(t, found);
}

static void again(struct torture *t)
{
    int rc = torture_close(t);
    CHECK(t, rc == 0, "close: %d", rc);
    rc = torture_open(t);
    CHECK(t, rc == 0, "open after a clean close: %d %s", rc, t->report.text);
}

unsigned torture_verify_rotten(struct torture *t)
{
    int64_t found[BLOCKS], second[BLOCKS];
    unsigned bad = verify_all(t, found);
    t->lossy = false; /* what it was is known now */
    again(t);
    verify_all(t, second);
    for (unsigned b = 0; b < BLOCKS; b++)
        CHECK(t, (found[b] < 0) == (second[b] < 0), "block %u: readable %d, after another start %d", b,
              found[b] >= 0, second[b] >= 0);
    for (unsigned b = 0; b < BLOCKS; b++) {
        if (found[b] >= 0)
            continue;
        t->m.blocks[b].acked = t->m.blocks[b].last; /* whatever it was */
        struct request *q = torture_submit(t, DO_WRITE, b, 0, UNITS_PER_BLOCK, false);
        CHECK(t, torture_wait(t), "crashed");
        if (!q)
            continue; /* no space */
        CHECK(t, q->rc == 0, "block %u can not be written anew: %d", b, q->rc);
        CHECK(t, torture_verify_block(t, b) >= 0, "block %u is not readable when written anew", b);
    }
    again(t);
    verify_all(t, second);
    return bad;
}
