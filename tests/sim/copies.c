/* copies.c: see copies.h. */
#include "tests/sim/copies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/rwm/rwm_internal.h"

struct entry {
    struct store_key key;
    struct version version;
    uint32_t written, crc[UNITS_PER_BLOCK];
};
struct listing { /* of one module and partition */
    struct entry *items;
    size_t count, capacity;
};
struct read {
    struct store_op op;
    bool done;
    int rc;
};

static void read_done(struct store_op *op, int rc)
{
    struct read *r = container_of(op, struct read, op);
    r->done = true;
    r->rc = rc;
}

static void listing_add(struct listing *l, const struct entry *e)
{
    if (l->count == l->capacity) {
        l->capacity = l->capacity ? 2 * l->capacity : 64;
        l->items = realloc(l->items, l->capacity * sizeof(*l->items));
        MUST(l->items);
    }
    l->items[l->count++] = *e;
}

static bool read_block(struct sim_cluster *c, struct sim_proc *p, const struct store_key *key,
                       struct entry *out)
{
    static uint8_t data[BLOCK_BYTES] __attribute__((aligned(4096)));
    struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};
    struct read r = {
        .op = {.key = *key, .unit_count = UNITS_PER_BLOCK, .iov = &iov, .iovcnt = 1, .done = read_done}};
    list_init(&r.op.link);
    int rc = p->rwm && p->rwm->store ? store_read(p->rwm->store, &r.op) : -ENODEV;
    for (unsigned i = 0; rc == -EAGAIN && i < 10000; i++) { /* what was left behind is being removed */
        if (!sim_advance(c, NS_PER_MS))
            return false;
        rc = p->rwm && p->rwm->store ? store_read(p->rwm->store, &r.op) : -ENODEV;
    }
    for (unsigned i = 0; rc == 0 && !r.done && i < 10000; i++)
        if (!sim_advance(c, NS_PER_MS))
            return false;
    MUST(rc != 0 || r.done);
    /* What a scrub has seen is whole, if new places do not fail as well. */
    bool whole = c->options.rot && c->options.seed % 2 == 1;
    if ((rc == 0 && r.rc != 0 && c->rots > 0 && !whole) || rc == -ENODEV || r.rc == -ENODEV) {
        out->written = UINT32_MAX; /* rot, which was planted, or a medium that is away: nothing to compare */
        out->version = (struct version){0, 0};
        return true;
    }
    if (rc != 0 || r.rc != 0) {
        snprintf(c->error, sizeof(c->error), "%s: block %lu of layer %lu cannot be read at the end: %d",
                 p->name, (unsigned long)key->block, (unsigned long)key->layer, rc ? rc : r.rc);
        return false;
    }
    *out = (struct entry){.key = *key, .version = r.op.found, .written = r.op.written};
    for (unsigned u = 0; u < UNITS_PER_BLOCK; u++)
        out->crc[u] = out->written >> u & 1u ? r.op.found_crcs[u] : 0;
    return true;
}

static int entry_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->key.layer != y->key.layer)
        return x->key.layer < y->key.layer ? -1 : 1;
    return x->key.block < y->key.block ? -1 : x->key.block > y->key.block;
}

static bool list_module(struct sim_cluster *c, struct sim_proc *p, uint32_t partition, struct listing *out,
                        bool *rotten)
{
    uint64_t cursor = 0;
    struct store_key keys[64];
    do {
        unsigned n = store_list(p->rwm->store, partition, &cursor, keys, ARRAY_LEN(keys));
        for (unsigned i = 0; i < n; i++) {
            struct entry e;
            if (!read_block(c, p, &keys[i], &e))
                return false;
            if (e.version.epoch == 0) {
                *rotten = true;
                continue;
            }
            /* All hole is the same as absent. */
            if (e.written != 0)
                listing_add(out, &e);
        }
    } while (cursor != 0);
    if (out->count > 0)
        qsort(out->items, out->count, sizeof(*out->items), entry_order);
    return true;
}

static struct sim_proc *module_proc(struct sim_cluster *c, uint32_t id)
{
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        struct rwm_stats stats;
        if (!c->procs[i].rwm || !c->procs[i].alive)
            continue;
        rwm_stats_get(c->procs[i].rwm, &stats);
        if (stats.module == id && stats.serving)
            return &c->procs[i];
    }
    return NULL;
}

static bool compare(const struct listing *a, const struct listing *b, const char *first, const char *second,
                    uint32_t partition, char *why, size_t cap)
{
    for (size_t i = 0; i < a->count || i < b->count; i++) {
        const struct entry *x = i < a->count ? &a->items[i] : NULL, *y = i < b->count ? &b->items[i] : NULL;
        if (x && y && memcmp(x, y, sizeof(*x)) == 0)
            continue;
        const struct entry *e = x ? x : y;
        snprintf(
            why, cap,
            "copies of partition %u differ: block %lu of layer %lu has version %lu.%lu map %08x at %s, block %lu "
            "version %lu.%lu map %08x at %s (%zu and %zu blocks)",
            partition, (unsigned long)e->key.block, (unsigned long)e->key.layer,
            (unsigned long)(x ? x->version.epoch : 0), (unsigned long)(x ? x->version.counter : 0),
            x ? x->written : 0, first, (unsigned long)(y ? y->key.block : 0),
            (unsigned long)(y ? y->version.epoch : 0), (unsigned long)(y ? y->version.counter : 0),
            y ? y->written : 0, second, a->count, b->count);
        return false;
    }
    return true;
}

static bool check_partition(struct sim_cluster *c, const struct table_partition *p, char *why, size_t cap)
{
    struct listing first = {0}, other = {0};
    const struct sim_proc *holder = NULL;
    unsigned in_sync = 0;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++)
        in_sync += (p->members[k] & TABLE_MEMBER_IN_SYNC) != 0;
    if (in_sync < 2)
        return true;
    bool same = true, rotten = false;
    for (unsigned k = 0; same && k < TABLE_MEMBERS_MAX && p->members[k] != 0; k++) {
        struct sim_proc *proc = module_proc(c, TABLE_MEMBER_ID(p->members[k]));
        if (!(p->members[k] & TABLE_MEMBER_IN_SYNC) || !proc)
            continue;
        struct listing *into = holder ? &other : &first;
        into->count = 0;
        same = list_module(c, proc, p->index, into, &rotten) &&
               (!holder || rotten || compare(&first, &other, holder->name, proc->name, p->index, why, cap));
        holder = holder ? holder : proc;
    }
    free(first.items);
    free(other.items);
    return same;
}

bool sim_copies_check(struct sim_cluster *c, char *why, size_t cap)
{
    struct sim_proc *mdc = sim_cluster_proc(c, SIM_MDC, 0);
    const struct table *t = mdc->mdc ? mdc_table(mdc->mdc) : NULL;
    const struct table_pool *pool = t ? table_pool_by_id(t, 1) : NULL;
    for (uint32_t i = 0; pool && i < pool->partitions; i++) {
        struct table_partition p = *table_partition_at(t, pool, i);
        if (check_partition(c, &p, why, cap))
            continue;
        /* One that moved meanwhile is looked at again: who left it removes what it had. */
        if (c->error[0] || table_partition_at(t, pool, i)->epoch == p.epoch)
            return false;
        i--;
    }
    return true;
}
