/* store_check_model.c: entries and records as they are when the journal has been applied, and whether they
 * make sense. */
#include <stdio.h>

#include "common/table/table.h"
#include "services/rwm/store_check_internal.h"

/* ---- applying the journal ---- */
static uint32_t mix(uint32_t v)
{
    v ^= v >> 16;
    v *= 0x7feb352du;
    return v ^ v >> 15;
}

struct check_override *check_override_find(const struct store_check *c, uint32_t entry)
{
    if (!c->overrides)
        return NULL;
    for (uint32_t at = mix(entry) & c->override_mask;; at = (at + 1) & c->override_mask) {
        struct check_override *o = &c->overrides[at];
        if (!o->used)
            return NULL;
        if (o->entry == entry)
            return o;
    }
}

static int overrides_grow(struct store_check *c)
{
    struct check_override *old = c->overrides;
    uint32_t size = old ? 2 * (c->override_mask + 1) : 256;
    struct check_override *fresh = calloc(size, sizeof *fresh);
    if (!fresh)
        return -ENOMEM;
    for (uint32_t i = 0; old && i <= c->override_mask; i++) {
        if (!old[i].used)
            continue;
        uint32_t at = mix(old[i].entry) & (size - 1);
        while (fresh[at].used)
            at = (at + 1) & (size - 1);
        fresh[at] = old[i];
    }
    free(old);
    c->overrides = fresh;
    c->override_mask = size - 1;
    return 0;
}

static struct check_override *override_get(struct store_check *c, uint32_t entry)
{
    struct check_override *o = check_override_find(c, entry);
    if (o)
        return o;
    if ((!c->overrides || c->override_count * 3 > c->override_mask * 2) && overrides_grow(c))
        return NULL;
    uint32_t at = mix(entry) & c->override_mask;
    while (c->overrides[at].used)
        at = (at + 1) & c->override_mask;
    o = &c->overrides[at];
    *o = (struct check_override){.entry = entry, .used = 1};
    c->override_count++;
    return o;
}

static int node_free(struct store_check *c, uint32_t entry)
{
    struct check_override *o = override_get(c, entry);
    if (!o)
        return -ENOMEM;
    *o = (struct check_override){.entry = entry, .used = 1};
    c->nodes[entry] = (struct check_node){.valid = false};
    return 0;
}

static bool same_block(const struct check_node *n, const struct disk_entry *e)
{
    return n->valid && n->layer == e->layer && n->block == e->block;
}

static int apply_set(struct store_check *c, const struct disk_set_entry *rec, const uint8_t *payload,
                     uint64_t seq)
{
    uint32_t entry = rec->head.entry;
    struct check_node *n = &c->nodes[entry];
    if (rec->head.freed != STORE_NONE && same_block(&c->nodes[rec->head.freed], &rec->image) &&
        node_free(c, rec->head.freed))
        return -ENOMEM;
    struct check_override *o = override_get(c, entry);
    if (!o)
        return -ENOMEM;
    if (!same_block(n, &rec->image))
        o->overlay = o->overlay_bad = 0;
    o->overlay &= ~(rec->head.direct | ~rec->image.written | rec->head.inlined);
    o->overlay_bad &= o->overlay;
    o->overlay |= rec->head.inlined;
    payload += (size_t)rec->head.payload * UNIT_BYTES;
    for (uint32_t left = rec->head.inlined; left; left &= left - 1) {
        unsigned u = (unsigned)__builtin_ctz(left);
        if (crc32c(payload, UNIT_BYTES) != rec->image.crc[u])
            o->overlay_bad |= 1u << u, c->rotten_payloads++;
        payload += UNIT_BYTES;
    }
    o->written = rec->image.written;
    memcpy(o->crc, rec->image.crc, sizeof o->crc);
    *n = (struct check_node){.layer = rec->image.layer,
                             .block = rec->image.block,
                             .hash = rec->image.hash,
                             .epoch = rec->image.epoch,
                             .written = rec->image.written,
                             .valid = true,
                             .suspect = seq < max_u64(c->super.suspect_below, c->journal.suspect_below)};
    return 0;
}

static int apply_record(struct store_check *c, const struct check_found *f, const uint8_t *at)
{
    struct disk_set_entry rec;
    memcpy(&rec.head, at, sizeof rec.head);
    if (rec.head.kind == RECORD_SET_RECORD) {
        uint32_t kind = rec.head.freed, bytes = c->record_bytes[kind];
        memcpy(c->records[kind] + (size_t)rec.head.entry * bytes, at + sizeof rec.head, bytes);
        c->record_lost[kind][rec.head.entry] = 0;
        return 0;
    }
    if (rec.head.kind == RECORD_FREE_ENTRY)
        return rec.head.entry == STORE_NONE ? 0 : node_free(c, rec.head.entry);
    memcpy(&rec, at, sizeof rec);
    return apply_set(c, &rec, f->payload, f->head.seq);
}

static int apply_journal(struct store_check *c)
{
    for (size_t n = 0; n < c->journal.applied; n++) {
        struct check_found f;
        int rc = check_batch_read(c, n, &f);
        const uint8_t *at = f.records;
        for (uint32_t r = 0; rc == 0 && r < f.head.record_count; r++) {
            struct disk_record head;
            memcpy(&head, at, sizeof head);
            rc = apply_record(c, &f, at);
            at += head.bytes;
        }
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- volumes, partitions, turns ---- */
static const struct store_volume_record *volume_record(const struct store_check *c, uint32_t i)
{
    return (const struct store_volume_record *)(const void *)(c->records[STORE_VOLUME]) + i;
}

static uint32_t layer_hash(const struct store_check *c, uint64_t layer)
{
    return (uint32_t)(layer * 0x9e3779b97f4a7c15ull >> 33) & c->layer_mask;
}

static struct store_check_volume *layer_find(const struct store_check *c, uint64_t layer)
{
    if (!c->layer_buckets)
        return NULL;
    for (uint32_t at = layer_hash(c, layer); c->layer_buckets[at]; at = (at + 1) & c->layer_mask) {
        struct store_check_volume *v =
            (struct store_check_volume *)c->volumes.items + c->layer_buckets[at] - 1;
        if (v->layer == layer)
            return v;
    }
    return NULL;
}

const struct store_check_volume *store_check_volume(const struct store_check *c, uint64_t layer)
{
    return layer_find(c, layer);
}

static int layers_grow(struct store_check *c)
{
    uint32_t size = c->layer_buckets ? 2 * (c->layer_mask + 1) : 64;
    uint32_t *fresh = calloc(size, sizeof *fresh);
    if (!fresh)
        return -ENOMEM;
    free(c->layer_buckets);
    c->layer_buckets = fresh;
    c->layer_mask = size - 1;
    for (size_t i = 0; i < c->volumes.count; i++) {
        uint32_t at = layer_hash(c, ((struct store_check_volume *)c->volumes.items)[i].layer);
        while (fresh[at])
            at = (at + 1) & c->layer_mask;
        fresh[at] = (uint32_t)i + 1;
    }
    return 0;
}

static int layer_add(struct store_check *c, const struct store_check_volume *v)
{
    if (check_list_add(&c->volumes, sizeof *v, v))
        return -ENOMEM;
    if (!c->layer_buckets || c->volumes.count * 2 > c->layer_mask)
        return layers_grow(c);
    uint32_t at = layer_hash(c, v->layer);
    while (c->layer_buckets[at])
        at = (at + 1) & c->layer_mask;
    c->layer_buckets[at] = (uint32_t)c->volumes.count;
    return 0;
}

static int cmp_uuid(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct uuid));
}

static int check_volumes(struct store_check *c)
{
    struct check_list ids = {.items = NULL};
    char id[33];
    int rc = 0;
    for (uint32_t i = 0; i < c->super.records[STORE_VOLUME] && rc == 0; i++) {
        const struct store_volume_record *rec = volume_record(c, i);
        if (c->record_lost[STORE_VOLUME][i] || uuid_is_zero(&rec->id))
            continue;
        struct store_check_volume v = {
            .id = rec->id, .layer = rec->layer, .size_bytes = rec->size_bytes, .state = rec->state};
        uuid_format(&rec->id, id);
        if (layer_find(c, rec->layer))
            check_found(c, STORE_FINDING_VOLUME_TWICE, -1, i,
                        "volume record %u: layer %lu of volume %s has another record", i,
                        (unsigned long)rec->layer, id);
        else
            rc = layer_add(c, &v);
        if (rc == 0)
            rc = check_list_add(&ids, sizeof rec->id, &rec->id);
    }
    if (ids.count)
        qsort(ids.items, ids.count, sizeof(struct uuid), cmp_uuid);
    for (size_t i = 1; i < ids.count && rc == 0; i++) {
        const struct uuid *u = (struct uuid *)ids.items + i;
        if (!uuid_eq(u, u - 1))
            continue;
        uuid_format(u, id);
        check_found(c, STORE_FINDING_VOLUME_TWICE, -1, STORE_NONE, "volume %s has two records", id);
    }
    free(ids.items);
    return rc;
}

static int check_partitions(struct store_check *c)
{
    uint32_t held = 1u << c->super.partition_bits;
    c->partitions = calloc(held, sizeof c->partitions[0]);
    if (!c->partitions)
        return -ENOMEM;
    c->report.partitions = c->partitions;
    c->report.partition_count = held;
    for (uint32_t i = 0; i < c->super.records[STORE_PARTITION]; i++) {
        const struct store_partition_record *rec =
            (const struct store_partition_record *)(const void *)c->records[STORE_PARTITION] + i;
        if (c->record_lost[STORE_PARTITION][i] || rec->pool == 0)
            continue;
        if (rec->partition != i && c->super.module)
            check_found(c, STORE_FINDING_RECORD_NONSENSE, -1, i, "partition record %u is of partition %u", i,
                        rec->partition);
        if (i < held) {
            c->partitions[i].record = true;
            c->partitions[i].epoch = rec->epoch;
        }
    }
    return 0;
}

struct turn_key {
    struct uuid volume;
    uint64_t host;
};
static int cmp_turn(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct turn_key));
}

static bool volume_known(const struct store_check *c, const struct uuid *id)
{
    const struct store_check_volume *v = c->volumes.items;
    for (size_t i = 0; i < c->volumes.count; i++) {
        if (uuid_eq(&v[i].id, id))
            return true;
    }
    return false;
}

static int check_turns(struct store_check *c)
{
    struct check_list keys = {.items = NULL};
    char id[33];
    int rc = 0;
    for (uint32_t i = 0; i < c->super.records[STORE_TURN] && rc == 0; i++) {
        struct store_turn_record rec;
        memcpy(&rec, c->records[STORE_TURN] + (size_t)i * sizeof rec, sizeof rec);
        if (c->record_lost[STORE_TURN][i] || uuid_is_zero(&rec.volume))
            continue;
        struct turn_key key = {.volume = rec.volume, .host = rec.host};
        rc = check_list_add(&keys, sizeof key, &key);
    }
    if (keys.count)
        qsort(keys.items, keys.count, sizeof(struct turn_key), cmp_turn);
    for (size_t i = 0; i < keys.count && rc == 0; i++) {
        const struct turn_key *k = (struct turn_key *)keys.items + i;
        uuid_format(&k->volume, id);
        if (i && memcmp(k, k - 1, sizeof *k) == 0)
            check_found(c, STORE_FINDING_TURN_TWICE, -1, i, "volume %s, host %016lx has two turn records", id,
                        (unsigned long)k->host);
        bool first = !i || !uuid_eq(&k->volume, &k[-1].volume);
        if (first && c->super.module && !c->volumes_lost && !volume_known(c, &k->volume))
            check_found(c, STORE_FINDING_TURN_STRAY, -1, i, "a turn of volume %s, which has no record", id);
    }
    free(keys.items);
    return rc;
}

static void check_lost_records(struct store_check *c)
{
    static const char *const words[3] = {"partition", "volume", "turn"};
    for (unsigned k = 0; k < 3; k++) {
        uint64_t lost = 0;
        for (uint32_t i = 0; i < c->super.records[k]; i++) {
            lost += c->record_lost[k][i] == 1;
            if (k == STORE_VOLUME && c->record_lost[k][i])
                c->volumes_lost = true;
        }
        if (lost)
            check_found(c, STORE_FINDING_RECORDS_LOST, -1, k, "%lu %s records were lost in the past",
                        (unsigned long)lost, words[k]);
    }
}

/* ---- entries ---- */
static uint32_t key_hash(const struct store_check *c, const struct check_node *n)
{
    uint64_t h = n->layer * 0x9e3779b97f4a7c15ull ^ n->block * 0xc2b2ae3d27d4eb4full;
    return (uint32_t)(h >> 31) & c->key_mask;
}

/* The other entry of the same block, or STORE_NONE and this one is noted. */
static uint32_t key_enter(struct store_check *c, uint32_t entry)
{
    const struct check_node *n = &c->nodes[entry];
    uint32_t at = key_hash(c, n);
    for (; c->key_buckets[at]; at = (at + 1) & c->key_mask) {
        const struct check_node *o = &c->nodes[c->key_buckets[at] - 1];
        if (o->layer == n->layer && o->block == n->block)
            return c->key_buckets[at] - 1;
    }
    c->key_buckets[at] = entry + 1;
    return STORE_NONE;
}

/* Is the hash that of the block's stripe, whatever a pool's stripe size is? */
static bool hash_right(uint64_t family, const struct check_node *n)
{
    for (unsigned shift = 0; shift <= 13; shift++) { /* stripes of one block to 1 GiB */
        if (n->hash == placement_hash(family, n->block >> shift))
            return true;
    }
    return false;
}

static void entry_found(struct store_check *c, enum store_finding_kind kind, uint32_t entry, const char *what)
{
    const struct check_node *n = &c->nodes[entry];
    char where[200];
    struct store_finding f = {.kind = kind,
                              .copy = -1,
                              .number = entry,
                              .key = {.layer = n->layer, .block = n->block, .hash = n->hash},
                              .units = n->written,
                              .has_key = true};
    check_block_text(c, &f.key, STORE_ALL_UNITS, where, sizeof where);
    snprintf(f.text, sizeof f.text, "%s: %s", where, what);
    check_find(c, &f);
}

/* What only a module of a cluster can be asked: tests use stores without one. */
static int entry_member(struct store_check *c, uint32_t entry, const uint64_t *families)
{
    const struct check_node *n = &c->nodes[entry];
    struct store_check_volume *v = layer_find(c, n->layer);
    if (!v) {
        struct store_check_volume unknown = {.layer = n->layer};
        if (layer_add(c, &unknown))
            return -ENOMEM;
        v = layer_find(c, n->layer);
    }
    v->blocks++;
    v->units += (uint64_t)__builtin_popcount(n->written);
    v->suspect_blocks += n->suspect;
    uint32_t partition = (uint32_t)n->hash & (c->report.partition_count - 1);
    struct store_check_partition *p = &c->partitions[partition];
    p->blocks++;
    if (!c->super.module)
        return 0;
    bool parts_lost =
        partition < c->super.records[STORE_PARTITION] && c->record_lost[STORE_PARTITION][partition];
    if (uuid_is_zero(&v->id)) {
        if (!c->volumes_lost)
            entry_found(c, STORE_FINDING_ENTRY_UNKNOWN_LAYER, entry, "no volume record names its layer");
    } else {
        if (!hash_right(families[v - (struct store_check_volume *)c->volumes.items], n))
            entry_found(c, STORE_FINDING_ENTRY_MISPLACED, entry, "its hash is not that of its place");
        if (n->block >= v->size_bytes / BLOCK_BYTES + (v->size_bytes % BLOCK_BYTES != 0))
            entry_found(
                c, STORE_FINDING_ENTRY_BEYOND_END, entry,
                "it lies behind the end of the volume: left by a shrink that is not finished, or for ever");
    }
    if (!p->record && !parts_lost)
        entry_found(c, STORE_FINDING_ENTRY_NO_PARTITION, entry, "this module has no record of its partition");
    else if (p->record && n->epoch > p->epoch)
        entry_found(c, STORE_FINDING_ENTRY_EPOCH, entry,
                    "its version is of an epoch above the partition's record");
    return 0;
}

/* By index in volumes. */
static uint64_t *make_families(const struct store_check *c)
{
    uint64_t *families = calloc(c->volumes.count + 1, sizeof *families);
    for (uint32_t i = 0; families && i < c->super.records[STORE_VOLUME]; i++) {
        const struct store_volume_record *rec = volume_record(c, i);
        const struct store_check_volume *v = uuid_is_zero(&rec->id) ? NULL : layer_find(c, rec->layer);
        if (v && uuid_eq(&v->id, &rec->id))
            families[v - (struct store_check_volume *)c->volumes.items] = rec->family;
    }
    return families;
}

static int check_entries(struct store_check *c)
{
    struct store_check_report *r = &c->report;
    uint64_t suspects = 0, buckets = 64;
    for (uint32_t e = 0; e < c->entry_count; e++)
        r->blocks += c->nodes[e].valid;
    while (buckets < r->blocks + r->blocks / 2)
        buckets *= 2;
    c->key_mask = (uint32_t)(buckets - 1);
    c->key_buckets = calloc(buckets, sizeof c->key_buckets[0]);
    uint64_t *families = make_families(c);
    int rc = c->key_buckets && families ? 0 : -ENOMEM;
    for (uint32_t e = 0; e < c->entry_count && rc == 0; e++) {
        if (!c->nodes[e].valid)
            continue;
        char what[64];
        uint32_t other = key_enter(c, e);
        if (other != STORE_NONE) {
            snprintf(what, sizeof what, "it has entry %u and entry %u", other, e);
            entry_found(c, STORE_FINDING_ENTRY_TWICE, e, what);
            r->blocks--;
        }
        if (check_has_slot(e))
            r->used_bytes += BLOCK_BYTES;
        /* What lies before a gap may lack what was in it. */
        c->nodes[e].suspect = c->nodes[e].suspect || (c->journal.suspect_below && !check_override_find(c, e));
        suspects += c->nodes[e].suspect;
        rc = entry_member(c, e, families);
    }
    free(families);
    if (suspects && rc == 0)
        check_found(
            c, STORE_FINDING_ENTRY_SUSPECT, -1, suspects,
            "%lu blocks were not written since a part of the journal was lost: reading them answers with an error",
            (unsigned long)suspects);
    return rc;
}

/* Rot in payloads that are still in the journal is known without reading any data. */
static void check_overlays(struct store_check *c)
{
    uint64_t live = 0;
    for (uint32_t i = 0; c->overrides && i <= c->override_mask; i++) {
        const struct check_override *o = &c->overrides[i];
        if (!o->used || !o->overlay_bad)
            continue;
        const struct check_node *n = &c->nodes[o->entry];
        struct store_finding f = {.kind = STORE_FINDING_UNITS_BAD_JOURNAL,
                                  .copy = -1,
                                  .number = o->entry,
                                  .key = {.layer = n->layer, .block = n->block, .hash = n->hash},
                                  .units = o->overlay_bad,
                                  .has_key = true};
        char where[200];
        live += (uint64_t)__builtin_popcount(o->overlay_bad);
        check_block_text(c, &f.key, f.units, where, sizeof where);
        snprintf(f.text, sizeof f.text, "%s: the data in the journal have a wrong checksum", where);
        check_find(c, &f);
    }
    if (c->rotten_payloads > live)
        check_found(c, STORE_FINDING_JOURNAL_ROT, -1, c->rotten_payloads - live,
                    "journal: %lu times 4 KiB have rotted that later writes have replaced: watch the device",
                    (unsigned long)(c->rotten_payloads - live));
}

int check_model(struct store_check *c)
{
    if (!c->journal.readable)
        return 1; /* told; what is on the pages alone says little */
    int rc = apply_journal(c);
    if (rc && !check_over(rc)) {
        check_found(c, STORE_FINDING_JOURNAL_UNREADABLE, -1, 0,
                    "the journal changes while it is read: a failing device?");
        return 1;
    }
    if (rc)
        return rc;
    check_lost_records(c);
    rc = check_volumes(c);
    if (rc == 0)
        rc = check_turns(c);
    if (rc == 0)
        rc = check_partitions(c);
    if (rc == 0)
        rc = check_entries(c);
    if (rc == 0)
        check_overlays(c);
    return rc;
}
