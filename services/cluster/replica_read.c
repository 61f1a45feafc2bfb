/*
 * replica_read.c: one refresh. Header first; then, when the changes since our copy are still in the ring, the
 * ring and the changed records, else all records; many reads in flight. What is torn is read again, and only
 * that.
 *
 * A ring entry has no CRC and may be overwritten under our eyes once the ring comes round. So with the
 * changed records the header is read a second time: if by then the ring could have come round, the whole
 * region is read instead.
 */
#include "services/cluster/cluster_private.h"

#include <string.h>

static void read_done(struct fabric_op *op, int rc);
static void read_again(struct loop_timer *timer);
static void pump(struct cluster *c);

static uint8_t *stage_of(const struct replica_read *read)
{
    const struct replica *r = &read->cluster->replica;
    return r->stage + (size_t)(read - r->reads) * REPLICA_READ_BYTES;
}

void replica_reads_init(struct cluster *c)
{
    for (unsigned i = 0; i < REPLICA_READS; i++) {
        struct replica_read *read = &c->replica.reads[i];
        read->cluster = c;
        loop_timer_init(&read->timer, read_again);
    }
}

void replica_reads_forget(struct cluster *c)
{
    struct replica *r = &c->replica;
    for (unsigned i = 0; i < REPLICA_READS; i++) {
        loop_timer_cancel(c->env->loop, &r->reads[i].timer);
        r->reads[i].busy = false;
    }
    r->busy = 0;
    r->state = REPLICA_IDLE;
    replica_copy_drop(c);
}

/* ---- the end of a refresh ---- */

static void release(struct replica_read *read)
{
    MUST(read->busy);
    read->busy = false;
    read->cluster->replica.busy--;
}

static void refresh_end(struct cluster *c, int rc, bool changed)
{
    struct replica *r = &c->replica;
    if (rc != 0) {
        replica_copy_drop(c);
        for (unsigned i = 0; i < REPLICA_READS; i++) {
            if (!loop_timer_armed(&r->reads[i].timer))
                continue;
            loop_timer_cancel(c->env->loop, &r->reads[i].timer);
            release(&r->reads[i]);
        }
    }
    if (r->busy != 0) {
        r->state = REPLICA_DRAIN;
        return;
    }
    replica_ended(c, rc, changed);
}

static void refuse(struct cluster *c, const char *what)
{
    char addr[64];
    if (log_allow(c->env, &c->replica.refused))
        log_error(c->env, "the metadata controller's table is refused; the copy before it stays in use",
                  "addr=%s reason=\"%s\"", fabric_addr_format(&c->replica.addr, addr), what);
    refresh_end(c, -EPROTO, false);
}

/* ---- reads ---- */

static void post(struct replica_read *read)
{
    struct cluster *c = read->cluster;
    struct replica *r = &c->replica;
    read->sge = (struct fabric_sge){.base = stage_of(read), .len = read->len, .mem = r->stage_mem};
    read->op = (struct fabric_op){
        .kind = FABRIC_OP_READ,
        .sge_count = 1,
        .sge = &read->sge,
        .remote = {.addr = r->remote_addr + read->offset, .len = read->len, .key = r->remote_key},
        .done = read_done,
    };
    c->counters.read_bytes += read->len;
    const int rc = fabric_post(r->conn, &read->op);
    if (rc != 0) {
        release(read);
        refresh_end(c, rc, false);
    }
}

static struct replica_read *take_read(struct cluster *c, uint64_t offset, size_t len)
{
    struct replica *r = &c->replica;
    for (unsigned i = 0; i < REPLICA_READS; i++) {
        struct replica_read *read = &r->reads[i];
        if (read->busy)
            continue;
        MUST(len <= REPLICA_READ_BYTES);
        read->busy = true;
        read->is_header = false;
        read->tries = 0;
        read->offset = offset;
        read->len = (uint32_t)len;
        read->count = 0;
        r->busy++;
        return read;
    }
    return NULL;
}

/* Something in it was torn by the publisher: once more, at once at first, then ever later. */
static void again_later(struct replica_read *read)
{
    struct cluster *c = read->cluster;
    c->counters.crc_retries++;
    if (++read->tries >= REPLICA_TRIES_MAX) {
        release(read);
        refuse(c, "a checksum that never holds");
        return;
    }
    loop_timer_arm(c->env->loop, &read->timer, read->tries == 1 ? 0 : (50 * NS_PER_US) << read->tries);
}

static void read_again(struct loop_timer *timer)
{
    post(container_of(timer, struct replica_read, timer));
}

static void read_header(struct cluster *c)
{
    struct replica_read *read = take_read(c, 0, sizeof(struct table_header));
    MUST(read != NULL);
    read->is_header = true;
    post(read);
}

void replica_begin(struct cluster *c)
{
    struct replica *r = &c->replica;
    MUST(r->state == REPLICA_IDLE && r->busy == 0 && r->conn_up);
    loop_timer_cancel(c->env->loop, &r->tick);
    r->state = REPLICA_HEADER;
    r->again = false;
    r->begun++;
    r->begun_ns = loop_now_ns(c->env->loop);
    read_header(c);
}

/* ---- phases ---- */

static void begin_whole(struct cluster *c)
{
    struct replica *r = &c->replica;
    const int rc = replica_copy_prepare(c);
    if (rc != 0) {
        refresh_end(c, rc, false);
        return;
    }
    r->state = REPLICA_WHOLE;
    r->whole_kind = 0;
    r->whole_next = 0;
    pump(c);
}

static void begin_ring(struct cluster *c)
{
    struct replica *r = &c->replica;
    const uint64_t since = cluster_head(c)->version;
    const unsigned count = (unsigned)(r->head.version - since);
    const unsigned first = (unsigned)((since + 1) % TABLE_RING_ENTRIES);
    const unsigned before_end = (unsigned)min_u64(count, TABLE_RING_ENTRIES - first);
    const size_t entry = sizeof(struct table_change);
    _Static_assert(REPLICA_CHANGES_MAX * sizeof(struct table_change) <= REPLICA_READ_BYTES,
                   "half a ring is one read");
    r->state = REPLICA_RING;
    r->change_count = count;
    r->lapped = false;
    struct replica_read *one = take_read(c, r->head.ring.offset + first * entry, before_end * entry);
    struct replica_read *two =
        before_end < count ? take_read(c, r->head.ring.offset, (count - before_end) * entry) : NULL;
    post(one);
    if (two != NULL && r->state == REPLICA_RING)
        post(two);
    else if (two != NULL) {
        release(two);
        if (r->state == REPLICA_DRAIN && r->busy == 0)
            replica_ended(c, -EIO, false);
    }
}

static void header_came(struct cluster *c, struct replica_read *read)
{
    struct replica *r = &c->replica;
    const struct table_header *own = cluster_head(c);
    struct table_header h;
    memcpy(&h, stage_of(read), sizeof(h));
    const int rc = table_header_check(&h, min_u64(r->remote_len, c->config.table_max_bytes));
    if (rc == -EAGAIN) {
        again_later(read);
        return;
    }
    release(read);
    if (rc != 0) {
        refuse(c,
               "its header is not of a table that this version knows, or contradicts itself or the session");
        return;
    }
    if (r->state == REPLICA_CHANGED) { /* the second look: entry v is overwritten by v + TABLE_RING_ENTRIES,
                                          before its header */
        r->lapped = h.term != r->head.term || h.start != r->head.start ||
                    h.version - own->version >= TABLE_RING_ENTRIES;
        pump(c);
        return;
    }
    if (h.start != r->start || !uuid_eq(&h.cluster, &c->session.reply.cluster)) {
        refuse(c,
               "it is of another start of the metadata controller, or of another cluster, than the session");
        return;
    }
    r->head = h;
    c->counters.refreshes++;
    const int newer = own == NULL ? 1 : version_pair_cmp(h.term, h.version, own->term, own->version);
    if (newer < 0 && log_allow(c->env, &r->back))
        log_warn(c->env, "the metadata controller's table is older than the copy here, which stays in use",
                 "term=%lu version=%lu here_term=%lu here_version=%lu", (unsigned long)h.term,
                 (unsigned long)h.version, (unsigned long)own->term, (unsigned long)own->version);
    if (newer <= 0)
        refresh_end(c, 0, false);
    else if (replica_copy_near(c))
        begin_ring(c);
    else
        begin_whole(c);
    if (newer >= 0)
        replica_watch(c);
}

static void ring_came(struct cluster *c)
{
    struct replica *r = &c->replica;
    struct table_change entries[REPLICA_CHANGES_MAX];
    const unsigned in_first = r->reads[0].len / sizeof(struct table_change);
    MUST(r->change_count <= REPLICA_CHANGES_MAX && in_first <= r->change_count);
    memcpy(entries, stage_of(&r->reads[0]), in_first * sizeof(entries[0]));
    memcpy(entries + in_first, stage_of(&r->reads[1]), (r->change_count - in_first) * sizeof(entries[0]));
    if (!replica_copy_changes(c, entries, r->change_count)) {
        begin_whole(c);
        return;
    }
    r->state = REPLICA_CHANGED;
    r->change_next = 0;
    read_header(c);
    if (r->state == REPLICA_CHANGED)
        pump(c);
}

/* ---- records ---- */

/* The next run of changed records; false: none left. */
static bool next_changed(struct replica *r, uint32_t *kind, uint32_t *first, uint32_t *count)
{
    if (r->change_next == r->change_count)
        return false;
    const struct replica_change *run = &r->changes[r->change_next];
    uint32_t n = 1;
    while (r->change_next + n < r->change_count && run[n].kind == run->kind && run[n].index == run->index + n)
        n++;
    *kind = run->kind;
    *first = run->index;
    *count = n;
    r->change_next += n;
    return true;
}

static bool next_whole(struct replica *r, uint32_t *kind, uint32_t *first, uint32_t *count)
{
    while (r->whole_kind < TABLE_KINDS && r->whole_next == r->head.section[r->whole_kind].used) {
        r->whole_kind++;
        r->whole_next = 0;
    }
    if (r->whole_kind == TABLE_KINDS)
        return false;
    const uint32_t most = (uint32_t)(REPLICA_READ_BYTES / table_record_bytes(r->whole_kind));
    *kind = r->whole_kind;
    *first = r->whole_next;
    *count = (uint32_t)min_u64(most, r->head.section[r->whole_kind].used - r->whole_next);
    r->whole_next += *count;
    return true;
}

static void set_range(struct replica_read *read, uint32_t first, uint32_t count)
{
    const size_t bytes = table_record_bytes(read->kind);
    read->change += first - read->first;
    read->first = first;
    read->count = count;
    read->offset = read->cluster->replica.head.section[read->kind].offset + first * bytes;
    read->len = (uint32_t)(count * bytes);
}

/* Starts as many reads as may be in flight; when there is nothing more to read and all is there: the end. */
static void pump(struct cluster *c)
{
    struct replica *r = &c->replica;
    const enum replica_state state = r->state;
    uint32_t kind, first, count;
    while (r->state == state && r->busy < REPLICA_READS) {
        const unsigned change = r->change_next;
        if (!(state == REPLICA_WHOLE ? next_whole(r, &kind, &first, &count)
                                     : next_changed(r, &kind, &first, &count)))
            break;
        struct replica_read *read = take_read(c, 0, 0);
        MUST(read != NULL);
        read->kind = kind;
        read->first = first;
        read->change = change;
        set_range(read, first, count);
        post(read);
    }
    if (r->state != state || r->busy != 0)
        return;
    if (state == REPLICA_CHANGED && r->lapped) {
        begin_whole(c);
        return;
    }
    const int rc = replica_copy_commit(c);
    refresh_end(c, rc, rc == 0);
}

static void records_came(struct replica_read *read)
{
    struct cluster *c = read->cluster;
    const size_t bytes = table_record_bytes(read->kind);
    uint32_t bad_first = read->count, bad_end = 0;
    for (uint32_t i = 0; i < read->count; i++) {
        if (replica_copy_take(c, read, i, stage_of(read) + i * bytes))
            continue;
        bad_first = (uint32_t)min_u64(bad_first, i);
        bad_end = i + 1;
    }
    if (bad_end != 0) {
        set_range(read, read->first + bad_first, bad_end - bad_first);
        again_later(read);
        return;
    }
    c->counters.record_reads += read->count;
    release(read);
    pump(c);
}

static void read_done(struct fabric_op *op, int rc)
{
    struct replica_read *read = container_of(op, struct replica_read, op);
    struct cluster *c = read->cluster;
    struct replica *r = &c->replica;
    if (r->state == REPLICA_DRAIN || rc != 0) {
        release(read);
        if (r->state != REPLICA_DRAIN || r->busy == 0)
            refresh_end(c, rc != 0 ? rc : -EIO, false);
    } else if (read->is_header) {
        header_came(c, read);
    } else if (r->state == REPLICA_RING) {
        release(read);
        if (r->busy == 0)
            ring_came(c);
    } else {
        records_came(read);
    }
}
