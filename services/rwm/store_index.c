/*
 * store_index.c: from a key to its entry, and the blocks of a partition in the order of their creation.
 *
 * One node for each entry of the device, at the entry's number: no growing, no rehashing while serving. A
 * node that died keeps its place (prev, stamp), so that a walk whose last block was removed meanwhile goes on
 * close to where it was.
 */
#include "services/rwm/store_internal.h"

static uint64_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15ull;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9ull;
    return x ^ (x >> 32);
}

uint32_t blk_hash(const struct store_key *key)
{
    return (uint32_t)mix(mix(key->layer) + key->block);
}

static uint32_t partition_of(const struct index *ix, uint64_t hash)
{
    return (uint32_t)(hash & (((uint64_t)1 << ix->partition_bits) - 1));
}

int index_create(struct index *ix, uint32_t entries, uint32_t partition_bits)
{
    uint64_t buckets = 16;
    while (buckets * 2 <= entries)
        buckets *= 2;
    ix->entries = entries;
    ix->bucket_mask = (uint32_t)(buckets - 1);
    ix->partition_bits = partition_bits;
    ix->nodes = calloc(entries, sizeof ix->nodes[0]);
    ix->buckets = calloc(buckets, sizeof ix->buckets[0]);
    ix->lists = calloc((size_t)1 << partition_bits, sizeof ix->lists[0]);
    return ix->nodes && ix->buckets && ix->lists ? 0 : -ENOMEM;
}

void index_destroy(struct index *ix)
{
    free(ix->nodes);
    free(ix->buckets);
    free(ix->lists);
}

static void list_append(struct index *ix, uint32_t entry)
{
    struct node *n = &ix->nodes[entry];
    struct partition_list *l = &ix->lists[partition_of(ix, n->hash)];
    n->prev = l->tail;
    n->next = 0;
    if (l->tail)
        ix->nodes[l->tail - 1].next = entry + 1;
    else
        l->head = entry + 1;
    l->tail = entry + 1;
}

/* Joining a pool: once in the life of a store. */
int index_set_partition_bits(struct index *ix, uint32_t bits)
{
    if (bits == ix->partition_bits)
        return 0;
    struct partition_list *lists = calloc((size_t)1 << bits, sizeof lists[0]);
    if (!lists)
        return -ENOMEM;
    free(ix->lists);
    ix->lists = lists;
    ix->partition_bits = bits;
    for (uint32_t e = 0; e < ix->entries; e++) {
        if (!ix->nodes[e].live)
            continue;
        ix->nodes[e].stamp = ++ix->stamp;
        list_append(ix, e);
    }
    return 0;
}

uint32_t index_find(const struct index *ix, const struct store_key *key)
{
    for (uint32_t i = ix->buckets[blk_hash(key) & ix->bucket_mask]; i; i = ix->nodes[i - 1].bucket_next) {
        const struct node *n = &ix->nodes[i - 1];
        if (n->layer == key->layer && n->block == key->block)
            return i - 1;
    }
    return STORE_NONE;
}

static uint32_t *bucket_link(struct index *ix, uint32_t entry)
{
    const struct node *n = &ix->nodes[entry];
    struct store_key key = {.layer = n->layer, .block = n->block};
    uint32_t *link = &ix->buckets[blk_hash(&key) & ix->bucket_mask];
    while (*link != entry + 1) {
        MUST(*link);
        link = &ix->nodes[*link - 1].bucket_next;
    }
    return link;
}

void index_insert(struct index *ix, uint32_t entry, const struct store_key *key)
{
    struct node *n = &ix->nodes[entry];
    MUST(!n->live);
    n->layer = key->layer;
    n->block = key->block;
    n->hash = key->hash;
    n->live = 1;
    n->stamp = ++ix->stamp;
    uint32_t *bucket = &ix->buckets[blk_hash(key) & ix->bucket_mask];
    n->bucket_next = *bucket;
    *bucket = entry + 1;
    list_append(ix, entry);
    ix->count++;
}

void index_remove(struct index *ix, uint32_t entry)
{
    struct node *n = &ix->nodes[entry];
    MUST(n->live);
    *bucket_link(ix, entry) = n->bucket_next;
    struct partition_list *l = &ix->lists[partition_of(ix, n->hash)];
    if (n->prev)
        ix->nodes[n->prev - 1].next = n->next;
    else
        l->head = n->next;
    if (n->next)
        ix->nodes[n->next - 1].prev = n->prev;
    else
        l->tail = n->prev;
    n->live = 0;
    n->bucket_next = 0;
    ix->count--;
}

void index_move(struct index *ix, uint32_t from, uint32_t to)
{
    struct node *n = &ix->nodes[from], *m = &ix->nodes[to];
    MUST(n->live && !m->live);
    *bucket_link(ix, from) = to + 1;
    *m = *n;
    struct partition_list *l = &ix->lists[partition_of(ix, n->hash)];
    if (m->prev)
        ix->nodes[m->prev - 1].next = to + 1;
    else
        l->head = to + 1;
    if (m->next)
        ix->nodes[m->next - 1].prev = to + 1;
    else
        l->tail = to + 1;
    n->live = 0;
    n->bucket_next = 0;
}

/* Cursor: low half of the stamp of the last block told, and its entry + 1. The first node behind it, id + 1.
 */
static uint32_t resume(const struct index *ix, uint32_t partition, uint64_t cursor)
{
    uint32_t low = (uint32_t)(cursor >> 32), id = (uint32_t)cursor;
    uint64_t stamp = (ix->stamp & ~0xffffffffull) | low;
    if (stamp > ix->stamp)
        stamp -= min_u64(stamp, 1ull << 32);
    /* Back over dead nodes to a living one that was told; a node with a later stamp has been used for another
     * block. */
    for (unsigned steps = 0; id && id <= ix->entries && steps < 4096; steps++) {
        const struct node *n = &ix->nodes[id - 1];
        if (n->stamp > stamp || (n->live && partition_of(ix, n->hash) != partition))
            break;
        if (n->live)
            return n->next;
        id = n->prev;
    }
    uint32_t at = ix->lists[partition].head;
    while (at && ix->nodes[at - 1].stamp <= stamp)
        at = ix->nodes[at - 1].next;
    return at;
}

unsigned index_list(const struct index *ix, uint32_t partition, uint64_t *cursor, struct store_key *keys,
                    unsigned max)
{
    if (partition >> ix->partition_bits || max == 0) {
        *cursor = 0;
        return 0;
    }
    uint32_t at = *cursor ? resume(ix, partition, *cursor) : ix->lists[partition].head;
    unsigned n = 0;
    uint64_t last = 0;
    for (; at && n < max; at = ix->nodes[at - 1].next) {
        const struct node *node = &ix->nodes[at - 1];
        keys[n++] = (struct store_key){.layer = node->layer, .block = node->block, .hash = node->hash};
        last = (node->stamp << 32) | at;
    }
    *cursor = at ? last : 0;
    return n;
}
