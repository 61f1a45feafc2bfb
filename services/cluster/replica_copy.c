/*
 * replica_copy.c: the local copy. Changed records are gathered aside and put into it all at once; a whole
 * region is filled beside it and takes its place.
 */
#include "services/cluster/cluster_private.h"

#include <stdlib.h>
#include <string.h>

static bool same_layout(const struct table_header *a, const struct table_header *b)
{
    bool same = a->region_bytes == b->region_bytes && a->ring.offset == b->ring.offset;
    for (unsigned k = 0; k < TABLE_KINDS; k++)
        same = same && a->section[k].offset == b->section[k].offset &&
               a->section[k].capacity == b->section[k].capacity;
    return same;
}

bool replica_copy_near(const struct cluster *c)
{
    const struct table_header *own = cluster_head(c), *head = &c->replica.head;
    return own != NULL && own->term == head->term && own->start == head->start && same_layout(own, head) &&
           head->version - own->version <= REPLICA_CHANGES_MAX;
}

/* By place, the latest change of a place first. */
static int change_cmp(const void *a, const void *b)
{
    const struct replica_change *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    return x->version > y->version ? -1 : x->version < y->version;
}

bool replica_copy_changes(struct cluster *c, const struct table_change *entries, unsigned count)
{
    struct replica *r = &c->replica;
    const uint64_t since = cluster_head(c)->version;
    for (unsigned i = 0; i < count; i++) {
        const struct table_change *e = &entries[i];
        if (e->version != since + 1 + i || e->kind >= TABLE_KINDS ||
            e->index >= r->head.section[e->kind].used)
            return false;
        r->changes[i] = (struct replica_change){.version = e->version, .kind = e->kind, .index = e->index};
    }
    qsort(r->changes, count, sizeof(r->changes[0]), change_cmp);
    unsigned kept = 0;
    for (unsigned i = 0; i < count; i++) {
        const bool repeated = kept > 0 && r->changes[kept - 1].kind == r->changes[i].kind &&
                              r->changes[kept - 1].index == r->changes[i].index;
        if (!repeated)
            r->changes[kept++] = r->changes[i];
    }
    r->change_count = kept;
    return true;
}

int replica_copy_prepare(struct cluster *c)
{
    struct replica *r = &c->replica;
    MUST(r->whole.region == NULL);
    const uint64_t bytes = r->head.region_bytes; /* checked against the limit with the header */
    void *region = aligned_alloc(UNIT_BYTES, round_up(bytes, UNIT_BYTES));
    if (region == NULL)
        return -ENOMEM;
    memset(region, 0, bytes);
    memcpy(region, &r->head, sizeof(r->head));
    r->whole = (struct table){.region = region, .bytes = bytes};
    return 0;
}

bool replica_copy_take(struct cluster *c, const struct replica_read *read, uint32_t i, const void *record)
{
    struct replica *r = &c->replica;
    const size_t bytes = table_record_bytes(read->kind);
    if (!table_record_check(read->kind, record))
        return false;
    if (r->state == REPLICA_WHOLE) {
        memcpy((uint8_t *)r->whole.region + r->head.section[read->kind].offset + (read->first + i) * bytes,
               record, bytes);
        return true;
    }
    MUST(read->change + i < r->change_count);
    if (table_record_version(read->kind, record) < r->changes[read->change + i].version)
        return false;
    memcpy(r->fresh[read->change + i], record, bytes);
    return true;
}

static int commit_whole(struct cluster *c)
{
    struct replica *r = &c->replica;
    const int rc = table_index(&r->whole);
    if (rc != 0)
        return rc;
    /* Users may hold pointers into the copy before until table_changed has returned: it goes with the next
     * one. */
    struct table before = r->table;
    r->table = r->whole;
    r->whole = before;
    c->counters.full_reads++;
    return 0;
}

static int commit_changes(struct cluster *c)
{
    struct replica *r = &c->replica;
    uint8_t *region = r->table.region;
    bool ids = false;
    for (unsigned i = 0; i < r->change_count; i++) {
        const struct replica_change *change = &r->changes[i];
        const size_t bytes = table_record_bytes(change->kind);
        uint8_t *at = region + r->head.section[change->kind].offset + change->index * bytes;
        if (change->kind == TABLE_VOLUME)
            ids = ids || memcmp(at, r->fresh[i], sizeof(struct uuid)) != 0;
        memcpy(at, r->fresh[i], bytes);
    }
    memcpy(region, &r->head, sizeof(r->head));
    return ids ? table_index(&r->table) : 0; /* same capacities: it has its memory */
}

int replica_copy_commit(struct cluster *c)
{
    return c->replica.state == REPLICA_WHOLE ? commit_whole(c) : commit_changes(c);
}

void replica_copy_drop(struct cluster *c)
{
    struct replica *r = &c->replica;
    free(r->whole.region);
    table_index_free(&r->whole);
    r->whole.region = NULL;
}
