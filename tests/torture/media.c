/*
 * media.c: the wrong media. A store with its journal on a device of its own, or not; then something is put
 * back from a copy, swapped, cut off, blank or foreign. It is refused, or damage is said, or nothing is
 * missing: never is something that was acknowledged gone without a word.
 */
#include "tests/torture/torture.h"

struct copies {
    struct media before, running, end; /* at the end of the start before; while it ran; now */
    struct model m_before, m_running, m_end;
    struct disk_super super_before[2], super_running[2];
};

static void supers(struct torture *t, struct disk_super out[2])
{
    medium_read(device_ram_medium(t->media.dev[0]), STORE_SUPER_0, &out[0], sizeof out[0]);
    medium_read(device_ram_medium(t->media.dev[0]), STORE_SUPER_1, &out[1], sizeof out[1]);
}

/* Something that is remembered durably and by the witness. */
static void some_writes(struct torture *t, unsigned steps)
{
    torture_workload(t, steps);
    torture_wait(t);
    struct request *q = torture_submit(t, DO_WRITE, (unsigned)rng_below(&t->rng, BLOCKS), 3, 1, false);
    torture_wait(t);
    CHECK(t, !q || q->rc == 0, "write: %d", q->rc);
    torture_pass(t, 2 * NS_PER_S);
}

static void make_copies(struct torture *t, struct copies *c, bool pmem)
{
    torture_make_media(t, pmem);
    torture_format_and_open(t);
    some_writes(t, 200);
    torture_abandon(t);
    torture_kill(t);
    c->before = media_copy(&t->media, 1);
    c->m_before = t->m;
    supers(t, c->super_before);
    CHECK(t, torture_open(t) == 0, "open");
    some_writes(t, rng_chance(&t->rng, 1, 2) ? 10 : 300);
    c->running = media_copy(&t->media, 2);
    c->m_running = t->m;
    supers(t, c->super_running);
    some_writes(t, rng_chance(&t->rng, 1, 2) ? 10 : 600);
    torture_abandon(t);
    torture_kill(t);
    c->end = media_copy(&t->media, 3);
    c->m_end = t->m;
}

static void free_copies(struct copies *c)
{
    media_destroy(&c->before);
    media_destroy(&c->running);
    media_destroy(&c->end);
}

/* ---- what may come of it ---- */
static void use(struct torture *t, const struct device *data, const struct device *journal)
{
    struct media m = {{device_copy(data, 5), journal ? device_copy(journal, 6) : NULL}};
    torture_put_media(t, m);
}

static void refused(struct torture *t, const char *what, int one, int other)
{
    int rc = torture_open(t);
    CHECK(t, rc == one || rc == other, "%s: open says %d %s", what, rc, t->report.text);
    torture_abandon(t);
}

/* Refused, or damaged, or whole; and if whole, then really. */
static void not_silent(struct torture *t, const struct model *m, const char *what)
{
    t->m = *m;
    t->rotten = true;
    torture_where(t, "%s", what);
    int rc = torture_open(t);
    CHECK(t, rc == 0 || rc == -ESTALE || rc == -EBADMSG, "open says %d %s", rc, t->report.text);
    if (rc == 0)
        torture_verify_rotten(t);
    torture_abandon(t);
    t->rotten = false;
}

static void accepted(struct torture *t, const struct model *m, const char *what)
{
    t->m = *m;
    torture_where(t, "%s", what);
    int rc = torture_open(t);
    CHECK(t, rc == 0 && !t->report.damaged, "open says %d %s", rc, t->report.text);
    torture_verify(t);
    torture_abandon(t);
}

/* ---- put back from copies ---- */
static void rolled_back(struct torture *t, const struct copies *c)
{
    const struct device *data = c->end.dev[0], *journal = c->end.dev[1];
    use(t, c->before.dev[0], c->before.dev[1]);
    accepted(t, &c->m_before, "everything of the start before"); /* the start counter tells the cluster */
    use(t, c->running.dev[0], c->running.dev[1]);
    accepted(t, &c->m_running, "everything of a moment before");
    if (!journal)
        return;
    use(t, c->before.dev[0], journal);
    refused(t, "the data device of the start before", -ESTALE, -ESTALE);
    use(t, data, c->before.dev[1]);
    refused(t, "the journal of the start before", -ESTALE, -ESTALE);
    use(t, c->running.dev[0], journal);
    not_silent(t, &c->m_end, "the data device of a moment before");
    use(t, data, c->running.dev[1]);
    t->m = c->m_end;
    refused(t, "the journal of a moment before", -ESTALE, -EBADMSG);
}

static void put_region(struct torture *t, const struct device *from, uint64_t at, uint64_t bytes)
{
    uint8_t *buf = malloc(bytes);
    MUST(buf);
    medium_read(device_ram_medium((struct device *)from), at, buf, bytes);
    MUST(medium_write(device_ram_medium(t->media.dev[0]), at, buf, bytes, true) == 0);
    free(buf);
}

static void parts_rolled_back(struct torture *t, const struct copies *c)
{
    const struct device *data = c->end.dev[0], *journal = c->end.dev[1];
    struct disk_super sb = c->super_running[0];
    const struct device *older[2] = {c->before.dev[0], c->running.dev[0]};
    for (unsigned i = 0; i < 2; i++) {
        /* one superblock is older, the other rotten */
        for (unsigned copy = 0; copy < 2; copy++) {
            use(t, data, journal);
            put_region(t, older[i], copy ? STORE_SUPER_1 : STORE_SUPER_0, STORE_PAGE_BYTES);
            accepted(t, &c->m_end, "one superblock is older");
            use(t, data, journal);
            put_region(t, older[i], copy ? STORE_SUPER_1 : STORE_SUPER_0, STORE_PAGE_BYTES);
            medium_corrupt(device_ram_medium(t->media.dev[0]), copy ? STORE_SUPER_0 : STORE_SUPER_1, 4096,
                           &t->rng);
            not_silent(t, &c->m_end, "one superblock is older, the other rotten");
        }
        use(t, data, journal);
        put_region(t, older[i], STORE_SUPER_0, STORE_PAGE_BYTES);
        put_region(t, older[i], STORE_SUPER_1, STORE_PAGE_BYTES);
        not_silent(t, &c->m_end, "both superblocks are older");
        use(t, data, journal);
        put_region(t, older[i], STORE_WITNESS_0, STORE_PAGE_BYTES);
        put_region(t, older[i], STORE_WITNESS_1, STORE_PAGE_BYTES);
        accepted(t, &c->m_end, "the witness is older");
        use(t, data, journal);
        put_region(t, older[i], sb.slots_offset, sb.slot_count * BLOCK_BYTES);
        not_silent(t, &c->m_end, "the slots are older");
        if (!journal) {
            use(t, data, journal);
            put_region(t, older[i], sb.journal_offset, sb.journal_bytes);
            not_silent(t, &c->m_end, "the ring is older");
        }
        for (unsigned copy = 0; copy < 2; copy++) {
            use(t, data, journal);
            put_region(t, older[i], copy ? sb.meta_b : sb.meta_a, sb.meta_b - sb.meta_a);
            accepted(t, &c->m_end, copy ? "metadata B is older" : "metadata A is older");
        }
    }
}

/* ---- not ours ---- */
static void not_ours(struct torture *t, const struct copies *c, const struct copies *other)
{
    const struct device *data = c->end.dev[0], *journal = c->end.dev[1];
    uint8_t noise[65536];
    rng_fill(&t->rng, noise, sizeof noise);
    for (unsigned d = 0; d < (journal ? 2u : 1u); d++) {
        torture_where(t, "device %u", d);
        use(t, data, journal);
        medium_blank(device_ram_medium(t->media.dev[d]));
        refused(t, "blank", -EMEDIUMTYPE, -EMEDIUMTYPE);
        use(t, data, journal);
        MUST(medium_write(device_ram_medium(t->media.dev[d]), 0, noise, sizeof noise, true) == 0);
        refused(t, "foreign", -EMEDIUMTYPE, -EMEDIUMTYPE);
        use(t, data, journal);
        t->media.dev[d]->size -= d ? 4096 : BLOCK_BYTES;
        refused(t, "cut off", -EBADMSG, -EBADMSG);
    }
    torture_where(t, "not its own");
    use(t, data, journal ? NULL : other->end.dev[1]);
    refused(t, journal ? "without its journal" : "with a journal device that it has not", -ESTALE,
            -EMEDIUMTYPE);
    if (journal) {
        use(t, data, other->end.dev[1]);
        refused(t, "with the journal of another", -EMEDIUMTYPE, -EMEDIUMTYPE);
        use(t, other->end.dev[0], journal);
        refused(t, "the journal with the data of another", -EMEDIUMTYPE, -EMEDIUMTYPE);
    }
    use(t, data, journal);
    /* a slot, and a metadata page, of another store at the same place */
    put_region(t, other->end.dev[0], c->super_running[0].meta_a, STORE_PAGE_BYTES);
    accepted(t, &c->m_end, "a metadata page of another store");
    use(t, data, journal);
    put_region(t, other->end.dev[0], c->super_running[0].slots_offset, 4 * BLOCK_BYTES);
    not_silent(t, &c->m_end, "slots of another store");
    use(t, data, journal);
    accepted(t, &c->m_end, "its own again");
}

void torture_media(struct torture *t)
{
    struct copies *c = calloc(2, sizeof *c);
    MUST(c);
    bool pmem = t->seed & 1;
    torture_where(t, "making copies");
    make_copies(t, &c[1], true);
    memset(&t->m, 0, sizeof t->m);
    make_copies(t, &c[0], pmem);
    rolled_back(t, &c[0]);
    parts_rolled_back(t, &c[0]);
    not_ours(t, &c[0], &c[1]);
    free_copies(&c[0]);
    free_copies(&c[1]);
    free(c);
}
