/* table.c: a region's layout, the checks of what came from outside, and the lookups. */
#include "common/table/table.h"
#include "common/crc.h"

#include <string.h>

static const size_t record_bytes[TABLE_KINDS] = {
    [TABLE_POOL] = sizeof(struct table_pool),
    [TABLE_MODULE] = sizeof(struct table_module),
    [TABLE_PARTITION] = sizeof(struct table_partition),
    [TABLE_VOLUME] = sizeof(struct table_volume),
};
static const size_t version_offset[TABLE_KINDS] = {
    [TABLE_POOL] = offsetof(struct table_pool, record_version),
    [TABLE_MODULE] = offsetof(struct table_module, record_version),
    [TABLE_PARTITION] = offsetof(struct table_partition, record_version),
    [TABLE_VOLUME] = offsetof(struct table_volume, record_version),
};
enum { SECTION_ALIGN = 64 }; /* a partition record is one cache line */

size_t table_record_bytes(enum table_kind kind)
{
    return record_bytes[kind];
}

uint64_t table_record_version(enum table_kind kind, const void *record)
{
    uint64_t version;
    memcpy(&version, (const uint8_t *)record + version_offset[kind], sizeof(version));
    return version;
}

/* Offsets of the sections and the ring; returns the region's bytes. */
static uint64_t lay_out(const struct table_limits *limits, struct table_header *h)
{
    const uint32_t capacity[TABLE_KINDS] = {limits->pools, limits->modules, limits->partitions,
                                            limits->volumes};
    uint64_t at = sizeof(*h);
    for (unsigned k = 0; k < TABLE_KINDS; k++) {
        h->section[k] = (struct table_section){.offset = at, .capacity = capacity[k]};
        at = round_up(at + (uint64_t)capacity[k] * record_bytes[k], SECTION_ALIGN);
    }
    h->ring =
        (struct table_section){.offset = at, .capacity = TABLE_RING_ENTRIES, .used = TABLE_RING_ENTRIES};
    return at + TABLE_RING_ENTRIES * sizeof(struct table_change);
}

uint64_t table_region_bytes(const struct table_limits *limits)
{
    struct table_header h;
    return lay_out(limits, &h);
}

void table_format(void *region, const struct table_limits *limits, const struct uuid *cluster, uint64_t term,
                  uint64_t start)
{
    struct table_header h = {
        .magic = TABLE_MAGIC,
        .format = TABLE_FORMAT,
        .header_bytes = sizeof(h),
        .cluster = *cluster,
        .term = term,
        .version = 1,
        .start = start,
    };
    h.region_bytes = lay_out(limits, &h);
    h.crc = crc32c(&h, offsetof(struct table_header, crc));
    memset(region, 0, h.region_bytes);
    memcpy(region, &h, sizeof(h));
}

static bool section_ok(const struct table_section *s, size_t bytes, uint64_t region_bytes, uint64_t *end)
{
    if (s->used > s->capacity || s->offset % SECTION_ALIGN != 0 || s->offset < *end ||
        s->offset > region_bytes)
        return false;
    if ((uint64_t)s->capacity * bytes > region_bytes - s->offset)
        return false;
    *end = s->offset + (uint64_t)s->capacity * bytes;
    return true;
}

int table_header_check(const struct table_header *h, uint64_t max_bytes)
{
    /* These never change, so they are not torn. */
    if (h->magic != TABLE_MAGIC || h->format != TABLE_FORMAT || h->header_bytes != sizeof(*h))
        return -EPROTO;
    if (h->crc != crc32c(h, offsetof(struct table_header, crc)))
        return -EAGAIN;
    if (h->version == 0 || h->region_bytes > max_bytes || h->ring.capacity != TABLE_RING_ENTRIES)
        return -EPROTO;
    uint64_t end = sizeof(*h);
    for (unsigned k = 0; k < TABLE_KINDS; k++)
        if (!section_ok(&h->section[k], record_bytes[k], h->region_bytes, &end))
            return -EPROTO;
    return section_ok(&h->ring, sizeof(struct table_change), h->region_bytes, &end) ? 0 : -EPROTO;
}

bool table_record_check(enum table_kind kind, const void *record)
{
    const size_t body = record_bytes[kind] - sizeof(uint32_t);
    const uint8_t *p = record;
    uint32_t crc;
    memcpy(&crc, p + body, sizeof(crc));
    if (crc == crc32c(p, body))
        return true;
    return p[0] == 0 && memcmp(p, p + 1, record_bytes[kind] - 1) == 0;
}

static inline const void *record_at(const struct table *t, enum table_kind kind, uint64_t index, size_t bytes)
{
    const struct table_section *s = &table_head(t)->section[kind];
    return index < s->capacity ? (const uint8_t *)t->region + s->offset + index * bytes : NULL;
}

const void *table_record(const struct table *t, enum table_kind kind, uint32_t index)
{
    return record_at(t, kind, index, record_bytes[kind]);
}

static inline const struct table_pool *pool_by_id(const struct table *t, uint32_t id)
{
    const struct table_pool *p = record_at(t, TABLE_POOL, (uint64_t)id - 1, sizeof(*p));
    return p != NULL && p->id == id ? p : NULL;
}

static inline const struct table_module *module_by_id(const struct table *t, uint32_t id)
{
    const struct table_module *m = record_at(t, TABLE_MODULE, (uint64_t)id - 1, sizeof(*m));
    return m != NULL && m->id == id ? m : NULL;
}

static inline const struct table_partition *partition_at(const struct table *t, const struct table_pool *pool,
                                                         uint32_t index)
{
    if (index >= pool->partitions)
        return NULL;
    const struct table_partition *p =
        record_at(t, TABLE_PARTITION, (uint64_t)pool->first_partition + index, sizeof(*p));
    return p != NULL && p->pool == pool->id && p->index == index ? p : NULL;
}

static inline uint32_t partition_primary(const struct table_partition *p)
{
    for (unsigned i = 0; i < TABLE_MEMBERS_MAX; i++)
        if (p->members[i] & TABLE_MEMBER_IN_SYNC)
            return TABLE_MEMBER_ID(p->members[i]);
    return 0;
}

const struct table_pool *table_pool_by_id(const struct table *t, uint32_t id)
{
    return pool_by_id(t, id);
}

const struct table_module *table_module_by_id(const struct table *t, uint32_t id)
{
    return module_by_id(t, id);
}

const struct table_partition *table_partition_at(const struct table *t, const struct table_pool *pool,
                                                 uint32_t index)
{
    return partition_at(t, pool, index);
}

uint32_t table_partition_primary(const struct table_partition *p)
{
    return partition_primary(p);
}

const struct table_module *table_route(const struct table *t, const struct table_volume *v, uint64_t offset,
                                       const struct table_partition **partition)
{
    const struct table_partition *p = NULL;
    const struct table_pool *pool = pool_by_id(t, v->pool);
    if (pool != NULL && is_pow2(pool->partitions) && is_pow2(pool->stripe_bytes)) {
        const uint64_t stripe = offset >> __builtin_ctz(pool->stripe_bytes);
        p = partition_at(t, pool, placement_partition(placement_hash(v->family, stripe), pool->partitions));
    }
    if (partition != NULL)
        *partition = p;
    return p != NULL ? module_by_id(t, partition_primary(p)) : NULL;
}
