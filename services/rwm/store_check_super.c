/* store_check_super.c: the superblocks: both copies, those of the journal's device, and whether they are a
 * pair. */
#include <stdio.h>

#include "services/rwm/store_check_internal.h"
#include "services/rwm/store_internal.h" /* super_layout: the format's own arithmetic */

enum copy_state { COPY_GOOD, COPY_BAD, COPY_BLANK, COPY_OTHER, COPY_UNREADABLE };
struct copies {
    bool journal;
    uint64_t magic;
    _Alignas(8) uint8_t page[2][STORE_PAGE_BYTES];
    enum copy_state state[2];
    uint64_t sequence[2];
    int chosen; /* -1: none */
};
static const uint64_t copy_at[2] = {STORE_SUPER_0, STORE_SUPER_1};

/* magic, CRC, the rest: the same in both kinds. */
uint32_t check_super_crc(const void *page)
{
    const uint8_t *p = page;
    const uint8_t zero[4] = {0};
    uint32_t crc = crc32c_extend(crc32c(p, 8), zero, sizeof zero);
    return crc32c_extend(crc, p + 12, STORE_PAGE_BYTES - 12);
}

static enum copy_state judge(const uint8_t *page, uint64_t magic)
{
    uint64_t m;
    uint32_t crc;
    memcpy(&m, page, sizeof m);
    memcpy(&crc, page + 8, sizeof crc);
    if (m == magic)
        return crc == check_super_crc(page) ? COPY_GOOD : COPY_BAD;
    for (size_t i = 0; i < STORE_PAGE_BYTES; i++) {
        if (page[i])
            return COPY_OTHER;
    }
    return COPY_BLANK;
}

static int load(struct store_check *c, struct copies *p)
{
    struct device *d = p->journal ? c->journal_device : c->data;
    p->chosen = -1;
    for (unsigned i = 0; i < 2; i++) {
        int rc = check_read(c, d, copy_at[i], c->buf_a, STORE_PAGE_BYTES);
        if (check_over(rc))
            return rc;
        memcpy(p->page[i], c->buf_a, STORE_PAGE_BYTES);
        p->state[i] = rc ? COPY_UNREADABLE : judge(p->page[i], p->magic);
        memcpy(&p->sequence[i], p->page[i] + offsetof(struct disk_super, sequence), 8);
        if (p->state[i] == COPY_GOOD && (p->chosen < 0 || p->sequence[i] > p->sequence[0]))
            p->chosen = (int)i;
    }
    return 0;
}

static bool either(const struct copies *p, enum copy_state state)
{
    return p->state[0] == state || p->state[1] == state;
}

/*
 * Media with atoms of 8 bytes (pmem) may tear a superblock. Between two states of a journal's superblock only
 * the CRC, the sequences (by one), the start counter (by one) and the phase change; a page that is like the
 * good copy but for those words was being written. On disks all of it lies in one sector, which does not
 * tear.
 */
static bool looks_torn(const struct store_check *c, const struct copies *p, int bad)
{
    if (!p->journal || c->super.journal_align >= SECTOR_BYTES || p->state[bad] != COPY_BAD)
        return false;
    for (size_t at = 0; at < STORE_PAGE_BYTES; at += 8) {
        uint64_t good, is;
        memcpy(&good, p->page[!bad] + at, 8);
        memcpy(&is, p->page[bad] + at, 8);
        if (good == is)
            continue;
        bool counter = at == offsetof(struct disk_jsuper, sequence) ||
                       at == offsetof(struct disk_jsuper, super_sequence) ||
                       at == offsetof(struct disk_jsuper, start_counter);
        bool other = at == round_down(offsetof(struct disk_jsuper, crc), 8) ||
                     at == round_down(offsetof(struct disk_jsuper, phase), 8);
        if (!other && !(counter && (is == good + 1 || is + 1 == good)))
            return false;
    }
    return true;
}

/* What the two copies say of each other, one of them being good. */
static int compare(struct store_check *c, struct copies *p)
{
    int good = p->chosen, other = !good;
    const char *of = p->journal ? "the journal device's superblock" : "superblock";
    char place[64];
    snprintf(place, sizeof place, "copy %d (at %lu)", other, (unsigned long)copy_at[other]);
    if (p->state[other] == COPY_UNREADABLE)
        return check_repairable(
            c, p->journal ? STORE_FINDING_JSUPER_COPY_UNREADABLE : STORE_FINDING_SUPER_COPY_UNREADABLE, other,
            p->journal, STORE_NONE, "%s %s can not be read", of, place);
    if (looks_torn(c, p, other))
        return check_repairable(c, STORE_FINDING_JSUPER_CUT_OFF, other, true, STORE_NONE,
                                "%s %s was cut off while it was written", of, place);
    if (p->state[other] != COPY_GOOD)
        return check_repairable(c, p->journal ? STORE_FINDING_JSUPER_COPY_BAD : STORE_FINDING_SUPER_COPY_BAD,
                                other, p->journal, STORE_NONE, "%s %s is %s", of, place,
                                p->state[other] == COPY_BLANK ? "blank" : "damaged");
    if (p->sequence[0] == p->sequence[1]) {
        if (memcmp(p->page[0], p->page[1], STORE_PAGE_BYTES) != 0)
            check_found(c, STORE_FINDING_SUPER_NONSENSE, -1, p->sequence[0],
                        "both copies of %s have sequence %lu and differ", of, (unsigned long)p->sequence[0]);
        return 0;
    }
    if (p->sequence[good] == p->sequence[other] + 1) { /* the older one is always written first */
        check_found(c, p->journal ? STORE_FINDING_JSUPER_CUT_OFF : STORE_FINDING_SUPER_CUT_OFF, -1,
                    p->sequence[0], "%s: copy 0 has sequence %lu, copy 1 has %lu: an update was cut off", of,
                    (unsigned long)p->sequence[0], (unsigned long)p->sequence[1]);
        return 0;
    }
    return check_repairable(c, p->journal ? STORE_FINDING_JSUPER_COPY_STALE : STORE_FINDING_SUPER_COPY_STALE,
                            other, p->journal, STORE_NONE, "%s %s has sequence %lu, the other copy %lu", of,
                            place, (unsigned long)p->sequence[other], (unsigned long)p->sequence[good]);
}

static bool layout_sane(const struct disk_super *sb)
{
    struct disk_super again = *sb;
    if (sb->journal_bytes < STORE_JOURNAL_MIN || sb->journal_bytes % STORE_PAGE_BYTES ||
        sb->journal_bytes > 1ull << 44 || sb->device_bytes % STORE_PAGE_BYTES ||
        !is_pow2(sb->journal_align) || sb->journal_align < 64 || sb->journal_align > STORE_PAGE_BYTES ||
        sb->partition_bits > 24 || sb->tail_pos > 1ull << 62 || sb->tail_seq > 1ull << 62 ||
        sb->tail_seq == 0 || sb->tail_pos % sb->journal_align)
        return false;
    for (unsigned k = 0; k < 3; k++) {
        if (sb->records[k] == 0 || sb->records[k] > 1u << 24)
            return false;
    }
    return super_layout(&again) == 0 && memcmp(&again, sb, sizeof again) == 0 &&
           sb->entry_pages_used <= sb->entry_pages;
}

static void fill_report(struct store_check *c)
{
    const struct disk_super *sb = &c->super;
    struct store_check_report *r = &c->report;
    r->identity = (struct store_identity){.store = sb->store,
                                          .cluster = sb->cluster,
                                          .module = sb->module,
                                          .start_counter = sb->start_counter,
                                          .accepted_start = sb->accepted_start,
                                          .accepted_incarnation = sb->accepted_incarnation,
                                          .partition_bits = sb->partition_bits};
    r->device_bytes = sb->device_bytes;
    r->journal_bytes = sb->journal_bytes;
    r->journal_device = (sb->flags & SUPER_JOURNAL_DEVICE) != 0;
    r->slots_offset = sb->slots_offset;
    r->slot_count = sb->slot_count;
    r->sequence = sb->sequence;
    r->tail_seq = sb->tail_seq;
    c->record_pages = sb->record_pages[0] + sb->record_pages[1] + sb->record_pages[2];
    c->page_count = c->record_pages + sb->entry_pages_used;
    r->pages = c->record_pages + sb->entry_pages;
    r->pages_used = c->page_count;
}

static int no_super(struct store_check *c, const struct copies *p)
{
    const char *name = c->data->name;
    if (either(p, COPY_BAD))
        check_found(c, STORE_FINDING_SUPER_LOST, -1, 0,
                    "%s had a store; both copies of its superblock are damaged", name);
    else if (either(p, COPY_UNREADABLE))
        check_found(c, STORE_FINDING_DEVICE_UNREADABLE, -1, 0,
                    "%s can not be read where a superblock should be", name);
    else
        check_found(c, either(p, COPY_OTHER) ? STORE_FINDING_DEVICE_FOREIGN : STORE_FINDING_DEVICE_BLANK, -1,
                    0, "%s %s", name,
                    either(p, COPY_OTHER) ? "holds no store of ours, but is not blank" : "is blank");
    return 1;
}

static int check_data_super(struct store_check *c, struct copies *p)
{
    const struct disk_super *sb = &c->super;
    int rc = load(c, p);
    if (rc)
        return rc;
    if (p->chosen < 0)
        return no_super(c, p);
    memcpy(&c->super, p->page[p->chosen], sizeof c->super);
    if (sb->format != STORE_FORMAT) {
        check_found(c, STORE_FINDING_SUPER_FORMAT, -1, sb->format, "%s has format %u, this program knows %u",
                    c->data->name, sb->format, STORE_FORMAT);
        return 1;
    }
    if (!layout_sane(sb)) {
        check_found(c, STORE_FINDING_SUPER_NONSENSE, p->chosen, sb->sequence,
                    "superblock copy %d has a right checksum and impossible values", p->chosen);
        return 1;
    }
    fill_report(c);
    if (c->data->size < sb->device_bytes) {
        check_found(c, STORE_FINDING_DEVICE_SHORT, -1, c->data->size,
                    "%s has %lu bytes, its store was made on %lu: give the disk its size back", c->data->name,
                    (unsigned long)c->data->size, (unsigned long)sb->device_bytes);
        return 1;
    }
    return compare(c, p);
}

/* Are the two devices of one moment? As store_open. */
static int check_pair(struct store_check *c, const struct disk_jsuper *j)
{
    const struct disk_super *sb = &c->super;
    const char *name = c->journal_device->name;
    if (j->format != STORE_FORMAT || !uuid_eq(&j->store, &sb->store)) {
        check_found(c, STORE_FINDING_JOURNAL_FOREIGN, -1, 0,
                    "%s is the journal of another store, or of another format", name);
        return 1;
    }
    if (j->super_sequence != sb->sequence &&
        !(j->phase == JSUPER_INTENT && j->super_sequence == sb->sequence + 1)) {
        bool data = j->super_sequence > sb->sequence;
        check_found(
            c, data ? STORE_FINDING_DATA_ROLLED_BACK : STORE_FINDING_JOURNAL_ROLLED_BACK, -1, 0,
            "superblock sequence %lu on the data device, %lu on the journal device: the %s device was put back "
            "from a copy",
            (unsigned long)sb->sequence, (unsigned long)j->super_sequence, data ? "data" : "journal");
        return 1;
    }
    if (j->journal_bytes != sb->journal_bytes ||
        c->journal_device->size < STORE_HEAD_BYTES + sb->journal_bytes) {
        check_found(c, STORE_FINDING_JOURNAL_SHORT, -1, c->journal_device->size,
                    "%s has %lu bytes, too few for a journal of %lu", name,
                    (unsigned long)c->journal_device->size, (unsigned long)sb->journal_bytes);
        return 1;
    }
    return 0;
}

static int check_journal_super(struct store_check *c, struct copies *p)
{
    const char *name = c->journal_device->name;
    int rc = load(c, p);
    if (rc)
        return rc;
    if (p->chosen < 0) {
        if (either(p, COPY_BAD))
            check_found(c, STORE_FINDING_JSUPER_LOST, -1, 0,
                        "both copies of the superblock of %s are damaged", name);
        else if (either(p, COPY_UNREADABLE))
            check_found(c, STORE_FINDING_JSUPER_UNREADABLE, -1, 0,
                        "%s can not be read where a superblock should be", name);
        else
            check_found(c, STORE_FINDING_JOURNAL_FOREIGN, -1, 0, "%s is %s", name,
                        either(p, COPY_OTHER) ? "no journal of a store" : "blank");
        return 1;
    }
    struct disk_jsuper j;
    memcpy(&j, p->page[p->chosen], sizeof j);
    rc = check_pair(c, &j);
    if (rc)
        return rc;
    if (j.phase == JSUPER_INTENT)
        check_found(c, STORE_FINDING_JSUPER_CUT_OFF, -1, j.sequence,
                    "the journal device announces superblock %lu, the data device has %lu",
                    (unsigned long)j.super_sequence, (unsigned long)c->super.sequence);
    return compare(c, p);
}

#ifdef STORE_WITNESS_MAGIC
/* How far the journal was durable, as a page beside the superblocks says; either of its copies may be missing
 * or torn. */
static int check_witness(struct store_check *c, struct device *d)
{
    static const uint64_t at[2] = {STORE_WITNESS_0, STORE_WITNESS_1};
    const struct disk_super *sb = &c->super;
    struct disk_witness best = {.seq = 0}, w;
    for (unsigned i = 0; i < 2; i++) {
        int rc = check_read(c, d, at[i], c->buf_a, STORE_PAGE_BYTES);
        if (check_over(rc))
            return rc;
        memcpy(&w, c->buf_a, sizeof w);
        if (rc == 0 && judge(c->buf_a, STORE_WITNESS_MAGIC) == COPY_GOOD && w.format == STORE_FORMAT &&
            uuid_eq(&w.store, &sb->store) && w.seq > best.seq)
            best = w;
    }
    if (best.seq == 0 || best.start_counter < sb->start_counter)
        return 0;
    if (best.start_counter > sb->start_counter || best.salt != sb->salt) {
        check_found(
            c, STORE_FINDING_SUPER_ROLLED_BACK, -1, best.start_counter,
            "%s: the superblocks are of start %lu, another page is of start %lu: they were put back from a copy",
            d->name, (unsigned long)sb->start_counter, (unsigned long)best.start_counter);
        return 1;
    }
    c->journal.mark = max_u64(c->journal.mark, best.seq);
    return 0;
}
#else
static int check_witness(struct store_check *c, struct device *d)
{
    (void)c;
    (void)d;
    return 0;
}
#endif

int check_supers(struct store_check *c)
{
    struct copies data = {.magic = STORE_SUPER_MAGIC},
                  journal = {.journal = true, .magic = STORE_JSUPER_MAGIC};
    int rc = check_data_super(c, &data);
    if (rc)
        return rc;
    bool has = (c->super.flags & SUPER_JOURNAL_DEVICE) != 0;
    if (has && !c->journal_given) {
        check_found(c, STORE_FINDING_JOURNAL_MISSING, -1, 0,
                    "the store on %s has its journal on a device of its own", c->data->name);
        return 1;
    }
    if (!has && c->journal_given) {
        check_found(c, STORE_FINDING_JOURNAL_SURPLUS, -1, 0,
                    "the store on %s has its journal on the same device", c->data->name);
        return 1;
    }
    rc = check_witness(c, c->data);
    if (rc == 0 && has)
        rc = check_journal_super(c, &journal);
    if (rc == 0 && has)
        rc = check_witness(c, c->journal_device);
    return rc;
}
