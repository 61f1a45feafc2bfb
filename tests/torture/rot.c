/*
 * rot.c: flipped bits. In any page of journal, metadata, superblocks, witness and data, before a crash, after
 * one, or after a clean end. What can be read must be right; what can not must say so, go on saying so after
 * another start, and can be written anew. One copy of what is kept twice costs nothing.
 *
 * What can not be told from a tear: the last batches, of which nothing says that they were durable. Where
 * those lie is found by reading the media here, with eyes of our own.
 */
#include "common/crc.h"
#include "tests/torture/torture.h"

enum { SPOTS = 3, RANGES = 256 };

struct range {
    unsigned device;
    uint64_t from, to;
};
struct eyes {
    struct disk_super sb;
    unsigned journal; /* device */
    uint64_t mark;
    struct range last[RANGES]; /* what the last batches consist of */
    unsigned count;
};

static struct medium *medium_of(struct torture *t, unsigned device)
{
    return device_ram_medium(t->media.dev[device]);
}

static void read_super(struct torture *t, struct disk_super *out)
{
    struct disk_super other;
    medium_read(medium_of(t, 0), STORE_SUPER_0, out, sizeof *out);
    medium_read(medium_of(t, 0), STORE_SUPER_1, &other, sizeof other);
    if (other.magic == STORE_SUPER_MAGIC &&
        (out->magic != STORE_SUPER_MAGIC || other.sequence > out->sequence))
        *out = other;
}

static bool batch_good(const struct eyes *e, const uint8_t *at)
{
    struct disk_batch h;
    memcpy(&h, at, sizeof h);
    if (h.magic != STORE_BATCH_MAGIC || h.salt != e->sb.salt ||
        h.record_bytes > BATCH_BUFFER_BYTES - sizeof h || h.seq < e->sb.tail_seq)
        return false;
    uint32_t crc = h.crc;
    h.crc = 0;
    return crc32c_extend(crc32c(&h, sizeof h), at + sizeof h, h.record_bytes) == crc;
}

static void note(struct eyes *e, unsigned device, uint64_t from, uint64_t bytes)
{
    MUST(e->count < RANGES);
    e->last[e->count++] = (struct range){device, from, from + bytes};
}

static void note_batch(struct eyes *e, uint64_t offset, const uint8_t *at)
{
    struct disk_batch h;
    memcpy(&h, at, sizeof h);
    note(e, e->journal, e->sb.journal_offset + offset,
         round_up(sizeof h + h.record_bytes, e->sb.journal_align) + (uint64_t)h.payload_units * UNIT_BYTES);
    uint32_t left = h.record_count;
    for (const uint8_t *r = at + sizeof h; left; left--) {
        struct disk_record rec;
        memcpy(&rec, r, sizeof rec);
        r += rec.bytes;
        if (rec.kind != RECORD_SET_ENTRY || !rec.direct)
            continue;
        uint64_t slot = (uint64_t)rec.entry / ENTRIES_PER_PAGE * ENTRY_SLOTS + rec.entry % ENTRIES_PER_PAGE;
        if (e->count < RANGES - 1)
            note(e, 0, e->sb.slots_offset + slot * BLOCK_BYTES, BLOCK_BYTES);
    }
}

/* Finds the batches that nothing says of that they were durable. */
static void look(struct torture *t, struct eyes *e)
{
    e->count = 0;
    e->journal = t->media.dev[1] ? 1 : 0;
    read_super(t, &e->sb);
    size_t room = e->sb.journal_bytes + BATCH_BUFFER_BYTES;
    uint8_t *ring = calloc(1, room);
    MUST(ring);
    medium_read(medium_of(t, e->journal), e->sb.journal_offset, ring, e->sb.journal_bytes);
    e->mark = 0;
    for (uint64_t o = 0; o + sizeof(struct disk_batch) <= e->sb.journal_bytes; o += e->sb.journal_align) {
        struct disk_batch h;
        memcpy(&h, ring + o, sizeof h);
        if (batch_good(e, ring + o))
            e->mark = max_u64(e->mark, h.mark);
    }
    for (unsigned i = 0; i < 4; i++) {
        struct disk_witness w;
        if (i >= 2 && !e->journal)
            continue;
        medium_read(medium_of(t, i / 2), i % 2 ? STORE_WITNESS_1 : STORE_WITNESS_0, &w, sizeof w);
        if (w.magic == STORE_WITNESS_MAGIC && w.salt == e->sb.salt)
            e->mark = max_u64(e->mark, w.seq);
    }
    for (uint64_t o = 0; o + sizeof(struct disk_batch) <= e->sb.journal_bytes; o += e->sb.journal_align) {
        struct disk_batch h;
        memcpy(&h, ring + o, sizeof h);
        if (batch_good(e, ring + o) && h.seq > e->mark && e->count < RANGES - 2)
            note_batch(e, o, ring + o);
    }
    free(ring);
}

/* ---- where it rots ---- */
enum place {
    PLACE_JOURNAL,
    PLACE_TAIL,
    PLACE_COPY,
    PLACE_PAGE,
    PLACE_DATA,
    PLACE_SUPER,
    PLACE_SUPERS,
    PLACE_WITNESS,
    PLACE_JSUPER,
    PLACES
};

static void rot_at(struct torture *t, const struct eyes *e, unsigned device, uint64_t at, uint64_t bytes)
{
    if (t->verbose)
        fprintf(stderr, "  rot: device %u at %lu, %lu bytes\n", device, (unsigned long)at,
                (unsigned long)bytes);
    medium_corrupt(medium_of(t, device), at, bytes, &t->rng);
    for (unsigned i = 0; i < e->count; i++) {
        if (e->last[i].device == device && at < e->last[i].to && e->last[i].from < at + bytes)
            t->lossy = true;
    }
}

static void rot_journal(struct torture *t, const struct eyes *e, bool tail)
{
    uint64_t ring = e->sb.journal_bytes;
    uint64_t at = tail ? e->sb.tail_pos + rng_below(&t->rng, 64 * 1024) : rng_below(&t->rng, ring);
    uint64_t bytes = rng_chance(&t->rng, 1, 3) ? 4096 : 512;
    at = min_u64(round_down(at % ring, 512), ring - bytes);
    rot_at(t, e, e->journal, e->sb.journal_offset + at, bytes);
}

/* A loss of power may have torn one copy: then the other is the only one. */
static bool page_good(struct torture *t, unsigned device, uint64_t at, size_t crc_at)
{
    uint8_t page[STORE_PAGE_BYTES];
    uint32_t crc, zero = 0;
    medium_read(medium_of(t, device), at, page, sizeof page);
    memcpy(&crc, page + crc_at, 4);
    memcpy(page + crc_at, &zero, 4);
    return crc32c(page, sizeof page) == crc;
}

static void rot_meta(struct torture *t, const struct eyes *e, bool both)
{
    uint64_t pages =
        e->sb.record_pages[0] + e->sb.record_pages[1] + e->sb.record_pages[2] + e->sb.entry_pages_used;
    uint64_t page = rng_chance(&t->rng, 1, 2) ? pages - 1 - rng_below(&t->rng, min_u64(2, pages))
                                              : rng_below(&t->rng, pages);
    bool second = rng_chance(&t->rng, 1, 2);
    if (!both && !page_good(t, 0, (second ? e->sb.meta_a : e->sb.meta_b) + page * STORE_PAGE_BYTES, 4))
        second = !second;
    if (both || !second)
        rot_at(t, e, 0, e->sb.meta_a + page * STORE_PAGE_BYTES, 4096);
    if (both || second)
        rot_at(t, e, 0, e->sb.meta_b + page * STORE_PAGE_BYTES, 4096);
}

static void rot(struct torture *t, const struct eyes *e, enum place place)
{
    bool second = rng_chance(&t->rng, 1, 2);
    switch (place) {
    case PLACE_JOURNAL:
    case PLACE_TAIL:
        rot_journal(t, e, place == PLACE_TAIL);
        return;
    case PLACE_COPY:
    case PLACE_PAGE:
        rot_meta(t, e, place == PLACE_PAGE);
        return;
    case PLACE_DATA:
        rot_at(t, e, 0,
               e->sb.slots_offset +
                   round_down(rng_below(&t->rng, e->sb.slot_count * BLOCK_BYTES), UNIT_BYTES),
               rng_chance(&t->rng, 1, 2) ? UNIT_BYTES : 512);
        return;
    case PLACE_SUPERS:
        rot_at(t, e, 0, STORE_SUPER_0, 4096);
        rot_at(t, e, 0, STORE_SUPER_1, 4096);
        return;
    case PLACE_SUPER:
    case PLACE_JSUPER: {
        unsigned device = place == PLACE_SUPER ? 0 : e->journal;
        if (!page_good(t, device, second ? STORE_SUPER_0 : STORE_SUPER_1, 8))
            second = !second;
        rot_at(t, e, device, second ? STORE_SUPER_1 : STORE_SUPER_0, 4096);
        return;
    }
    case PLACE_WITNESS:
        rot_at(t, e, 0, STORE_WITNESS_0, 4096);
        rot_at(t, e, 0, STORE_WITNESS_1, 4096);
        return;
    default:
        MUST(!"no place");
    }
}

/* ---- the runs ---- */
/* One request at a time, so that one that is refused has not happened and nothing is built on it. */
static void live(struct torture *t)
{
    struct eyes e;
    unsigned pages = 0, supers = 0;
    look(t, &e);
    e.count = 0; /* the journal is not touched */
    for (unsigned i = 0; i < 250; i++) {
        torture_submit_random(t);
        torture_wait(t);
        if (!rng_chance(&t->rng, 1, 60))
            continue;
        torture_drain(t);
        if (!supers)
            read_super(t, &e.sb);
        t->rotten = true;
        enum place place = (enum place)(PLACE_COPY + rng_below(&t->rng, PLACE_SUPER + 1 - PLACE_COPY));
        if ((place == PLACE_PAGE && pages++) || (place == PLACE_SUPER && supers++))
            place = PLACE_DATA;
        rot(t, &e, place);
    }
}

static bool superblocks_gone(enum place place)
{
    return place == PLACE_SUPERS;
}

static void end_of_life(struct torture *t, uint64_t how)
{
    if (how == 0) {
        torture_drain(t);
        torture_wait(t);
        CHECK(t, torture_close(t) == 0, "close");
        return;
    }
    if (how == 1)
        torture_pass(t, 30 * NS_PER_MS); /* the witness knows everything */
    torture_abandon(t);
    if (how == 2)
        torture_power_cut(t);
    else
        torture_kill(t);
}

/* As a check does: nothing is written, so what is in memory is served from there. */
static void look_only(struct torture *t)
{
    t->options.read_only = true;
    int rc = torture_open(t);
    CHECK(t, rc == 0, "open to read only: %d %s", rc, t->report.text);
    torture_verify(t);
    torture_abandon(t);
    t->options.read_only = false;
}

void torture_rot(struct torture *t)
{
    struct eyes e;
    uint64_t how = t->seed % 4;
    bool before = t->seed / 4 % 4 == 0;
    torture_make_media(t, t->seed / 16 % 2);
    torture_format_and_open(t);
    torture_where(t, "how %lu, %s", (unsigned long)how, before ? "while it runs" : "while it is down");
    if (before)
        live(t);
    else
        torture_workload(t, 100 + (unsigned)rng_below(&t->rng, 500));
    end_of_life(t, how);
    enum place place = PLACES;
    if (!before) {
        look(t, &e);
        unsigned spots = rng_chance(&t->rng, 1, 2) ? 1 : SPOTS;
        place = (enum place)rng_below(&t->rng, PLACES);
        torture_where(t, "how %lu, place %u, %u spots, mark %lu, %u last ranges", (unsigned long)how, place,
                      spots, (unsigned long)e.mark, e.count);
        if (place == PLACE_COPY || place == PLACE_SUPER || place == PLACE_SUPERS || place == PLACE_JSUPER)
            spots = 1;
        for (unsigned i = 0; i < spots; i++)
            rot(t, &e, place);
        if (place == PLACE_WITNESS)
            t->lossy = false; /* only later batches can make up for it: none of them was touched */
    }
    t->rotten = true;
    if (t->seed % 3 == 0 && !superblocks_gone(place))
        look_only(t);
    int rc = torture_open(t);
    if (superblocks_gone(place)) {
        CHECK(t, rc == -EBADMSG || rc == -EMEDIUMTYPE, "both superblocks are rotten: %d", rc);
        return;
    }
    CHECK(t, rc == 0, "open: %d %s", rc, t->report.text);
    bool said = t->report.damaged;
    unsigned bad = torture_verify_rotten(t);
    CHECK(t, said || bad == 0 || (place != PLACE_JOURNAL && place != PLACE_TAIL),
          "%u blocks are lost with a piece of the journal, and nobody said so", bad);
    bool harmless =
        place == PLACE_COPY || place == PLACE_SUPER || place == PLACE_JSUPER || place == PLACE_WITNESS;
    CHECK(t, !harmless || bad == 0, "%u blocks are lost with one copy", bad);
}
