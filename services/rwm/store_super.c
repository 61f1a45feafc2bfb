/*
 * store_super.c: the superblocks: where the areas lie, which copy counts, and how a new one comes into force.
 *
 * Both copies are brought up to date, one after the other, before anything relies on the new state (freed
 * journal space above all): so one of them may tear or rot at any time. The first to be written after an open
 * is the one that did not count there: the other may be the only good one, and a write of it may tear. A
 * journal device is told first that the change is coming (INTENT), then that it is made (SETTLED): the two
 * devices can then tell a crash in between, which leaves them one step apart in this order, from one of them
 * having been put back from a copy.
 */
#include "services/rwm/store_internal.h"

static uint32_t page_crc(const void *page)
{
    /* magic, then the CRC, then the rest: the same in all pages of the head */
    _Static_assert(offsetof(struct disk_super, crc) == 8 && offsetof(struct disk_jsuper, crc) == 8 &&
                       offsetof(struct disk_witness, crc) == 8,
                   "");
    const uint8_t *p = page;
    uint32_t zero = 0;
    uint32_t crc = crc32c_extend(crc32c(p, 8), &zero, 4);
    return crc32c_extend(crc, p + 12, STORE_PAGE_BYTES - 12);
}

void super_seal(struct disk_super *sb)
{
    sb->crc = page_crc(sb);
}

void jsuper_seal(struct disk_jsuper *j)
{
    j->crc = page_crc(j);
}

static bool all_zero(const void *page)
{
    const uint8_t *p = page;
    for (size_t i = 0; i < STORE_PAGE_BYTES; i++) {
        if (p[i])
            return false;
    }
    return true;
}

/* Index of the copy that counts, or -errno. sequence lies at the same place in all kinds. */
static int choose(const void *copy0, const void *copy1, uint64_t magic)
{
    _Static_assert(offsetof(struct disk_super, sequence) == 16 &&
                       offsetof(struct disk_jsuper, sequence) == 16 &&
                       offsetof(struct disk_witness, seq) == 16,
                   "");
    const void *copy[2] = {copy0, copy1};
    bool ours = false, blank = true, valid[2];
    uint64_t sequence[2];
    for (unsigned i = 0; i < 2; i++) {
        uint64_t m;
        uint32_t crc;
        memcpy(&m, copy[i], sizeof m);
        memcpy(&crc, (const uint8_t *)copy[i] + 8, sizeof crc);
        memcpy(&sequence[i], (const uint8_t *)copy[i] + 16, sizeof sequence[i]);
        valid[i] = m == magic && crc == page_crc(copy[i]);
        ours = ours || m == magic;
        blank = blank && all_zero(copy[i]);
    }
    if (!valid[0] && !valid[1])
        return ours ? -EBADMSG : blank ? -ENOENT : -EMEDIUMTYPE;
    if (valid[0] && valid[1])
        return sequence[1] > sequence[0];
    return valid[1];
}

int super_choose(const void *copy0, const void *copy1, struct disk_super *out)
{
    int i = choose(copy0, copy1, STORE_SUPER_MAGIC);
    if (i < 0)
        return i;
    memcpy(out, i ? copy1 : copy0, sizeof *out);
    return i;
}

int jsuper_choose(const void *copy0, const void *copy1, struct disk_jsuper *out)
{
    int i = choose(copy0, copy1, STORE_JSUPER_MAGIC);
    if (i < 0)
        return i;
    memcpy(out, i ? copy1 : copy0, sizeof *out);
    return i;
}

void witness_seal(struct disk_witness *w)
{
    w->crc = page_crc(w);
}

int witness_choose(const void *copy0, const void *copy1, struct disk_witness *out)
{
    int i = choose(copy0, copy1, STORE_WITNESS_MAGIC);
    if (i < 0)
        return i;
    memcpy(out, i ? copy1 : copy0, sizeof *out);
    return i;
}

int super_layout(struct disk_super *sb)
{
    uint64_t at = STORE_HEAD_BYTES, records = 0;
    if (sb->device_bytes < at || sb->device_bytes > (1ull << 60))
        return -ENOSPC;
    if (sb->flags & SUPER_JOURNAL_DEVICE) {
        sb->journal_offset = STORE_HEAD_BYTES;
    } else {
        sb->journal_offset = at;
        if (sb->journal_bytes > sb->device_bytes - at)
            return -ENOSPC;
        at += sb->journal_bytes;
    }
    for (unsigned k = 0; k < 3; k++) {
        uint32_t per_page = k == STORE_VOLUME ? RECORDS_PER_PAGE_128 : RECORDS_PER_PAGE_64;
        sb->record_pages[k] = sb->records[k] / per_page + (sb->records[k] % per_page != 0);
        records += sb->record_pages[k];
    }
    /* Each page of entries has two copies and the slots it names; what a partial last page leaves is given
     * up. */
    uint64_t fixed = at + 2 * records * STORE_PAGE_BYTES + BLOCK_BYTES;
    uint64_t per_page = 2ull * STORE_PAGE_BYTES + (uint64_t)ENTRY_SLOTS * BLOCK_BYTES;
    if (fixed + 2ull * STORE_PAGE_BYTES + BLOCK_BYTES > sb->device_bytes)
        return -ENOSPC;
    uint64_t pages = (sb->device_bytes - fixed + per_page - 1) / per_page;
    if (pages * ENTRIES_PER_PAGE >= STORE_NONE)
        return -ENOSPC;
    sb->meta_a = at;
    sb->meta_b = at + (records + pages) * STORE_PAGE_BYTES;
    sb->slots_offset = round_up(at + 2 * (records + pages) * STORE_PAGE_BYTES, BLOCK_BYTES);
    if (sb->slots_offset + BLOCK_BYTES > sb->device_bytes)
        return -ENOSPC;
    sb->entry_pages = (uint32_t)pages;
    sb->slot_count = min_u64((sb->device_bytes - sb->slots_offset) / BLOCK_BYTES, pages * ENTRY_SLOTS);
    return 0;
}

/* ---- bringing a new one into force ---- */
enum super_step {
    STEP_INTENT_0,
    STEP_INTENT_1,
    STEP_DATA_0,
    STEP_DATA_1,
    STEP_SETTLED_0,
    STEP_SETTLED_1,
    STEP_END,
};

static bool on_journal(unsigned step)
{
    return step < STEP_DATA_0 || step > STEP_DATA_1;
}

static void step_end(struct store *s, int rc)
{
    struct super_update *u = &s->super_update;
    u->busy = false;
    if (rc)
        store_break(s, rc, "writing the superblock");
    else
        s->super = u->next;
    void (*done)(struct store *, int) = u->done;
    u->done = NULL;
    store_kick(s);
    if (done)
        done(s, rc);
}

static void step_write(struct store *s);

static void step_flushed(struct flush_wait *w, int rc)
{
    struct super_update *u = container_of(w, struct super_update, wait);
    struct store *s = container_of(u, struct store, super_update);
    if (rc) {
        step_end(s, rc);
        return;
    }
    u->step++;
    step_write(s);
}

static void step_written(struct sio *sio, int rc)
{
    struct store *s = sio->s;
    struct super_update *u = &s->super_update;
    if (rc) {
        step_end(s, rc);
        return;
    }
    u->wait.fn = step_flushed;
    list_init(&u->wait.link);
    flush_request(s, on_journal(u->step) ? &s->flush_journal : &s->flush_data, &u->wait);
}

static void fill_jsuper(struct store *s, uint32_t phase)
{
    struct super_update *u = &s->super_update;
    u->jsuper = (struct disk_jsuper){.magic = STORE_JSUPER_MAGIC,
                                     .format = STORE_FORMAT,
                                     .sequence = ++s->jsuper_sequence,
                                     .super_sequence = u->next.sequence,
                                     .store = u->next.store,
                                     .start_counter = u->next.start_counter,
                                     .journal_bytes = u->next.journal_bytes,
                                     .phase = phase,
                                     .journal_align = u->next.journal_align};
    jsuper_seal(&u->jsuper);
}

static void step_write(struct store *s)
{
    struct super_update *u = &s->super_update;
    if (!(u->next.flags & SUPER_JOURNAL_DEVICE) && on_journal(u->step))
        u->step = u->step < STEP_DATA_0 ? STEP_DATA_0 : STEP_END;
    if (u->step == STEP_END) {
        step_end(s, 0);
        return;
    }
    if (u->step == STEP_INTENT_0 || u->step == STEP_SETTLED_0)
        fill_jsuper(s, u->step == STEP_INTENT_0 ? JSUPER_INTENT : JSUPER_SETTLED);
    struct device *d = on_journal(u->step) ? s->journal.device : s->data;
    unsigned copy = (u->step & 1) ^ (on_journal(u->step) ? u->jfirst : u->first);
    memcpy(u->page, on_journal(u->step) ? (const void *)&u->jsuper : (const void *)&u->next,
           STORE_PAGE_BYTES);
    sio_init(&u->sio, s, step_written);
    sio_rw(&u->sio, d, DEVICE_WRITE, copy ? STORE_SUPER_1 : STORE_SUPER_0, u->page, STORE_PAGE_BYTES);
}

/* Without a journal device this is two writes and two flushes. */
void super_write(struct store *s, void (*done)(struct store *s, int rc))
{
    struct super_update *u = &s->super_update;
    MUST(!u->busy);
    u->busy = true;
    u->done = done;
    u->next.sequence = s->super.sequence + 1;
    super_seal(&u->next);
    u->step = STEP_INTENT_0;
    step_write(s);
}
