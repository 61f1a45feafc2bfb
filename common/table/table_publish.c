/*
 * table_publish.c: changing a region that others read one-sided at any moment, without a lock.
 *
 * Order: record, ring entry, header. Fences keep the compiler and the CPU to it; a reader that sees version v
 * in the header therefore finds at least version v's record and ring entry behind it, whole or with a CRC
 * that does not hold.
 */
#include "common/table/table.h"
#include "common/table/table_private.h"
#include "common/crc.h"

#include <stdatomic.h>
#include <string.h>

static void write_header(struct table *t, struct table_header *h)
{
    h->crc = crc32c(h, offsetof(struct table_header, crc));
    atomic_thread_fence(memory_order_release);
    memcpy(t->region, h, sizeof(*h));
    atomic_thread_fence(memory_order_release);
}

static void stamp(enum table_kind kind, void *record, uint64_t version)
{
    const size_t body = table_record_bytes(kind) - sizeof(uint32_t);
    switch (kind) {
    case TABLE_POOL:
        ((struct table_pool *)record)->record_version = version;
        break;
    case TABLE_MODULE:
        ((struct table_module *)record)->record_version = version;
        break;
    case TABLE_PARTITION:
        ((struct table_partition *)record)->record_version = version;
        break;
    case TABLE_VOLUME:
        ((struct table_volume *)record)->record_version = version;
        break;
    case TABLE_KINDS:
        MUST(!"a kind");
    }
    const uint32_t crc = crc32c(record, body);
    memcpy((uint8_t *)record + body, &crc, sizeof(crc));
}

static void index_follow(struct table *t, uint32_t index, const struct uuid *before)
{
    const struct table_volume *v = table_record(t, TABLE_VOLUME, index);
    if (t->volume_index == NULL || uuid_eq(&v->id, before))
        return;
    if (uuid_is_zero(before))
        table_index_insert(t, index);
    else
        MUST(table_index(t) == 0); /* same capacities: allocates nothing */
}

uint64_t table_publish(struct table *t, enum table_kind kind, uint32_t index, void *record)
{
    struct table_header h = *table_head(t);
    struct uuid before = {{0}};
    MUST(kind < TABLE_KINDS && index < h.section[kind].capacity);
    uint8_t *at = (uint8_t *)t->region + h.section[kind].offset + (size_t)index * table_record_bytes(kind);
    if (kind == TABLE_VOLUME)
        before = ((const struct table_volume *)(const void *)at)->id;

    h.version++;
    stamp(kind, record, h.version);
    memcpy(at, record, table_record_bytes(kind));
    atomic_thread_fence(memory_order_release);

    struct table_change *ring = (struct table_change *)(void *)((uint8_t *)t->region + h.ring.offset);
    ring[h.version % TABLE_RING_ENTRIES] =
        (struct table_change){.version = h.version, .kind = (uint16_t)kind, .index = index};

    if (index >= h.section[kind].used)
        h.section[kind].used = index + 1;
    write_header(t, &h);
    if (kind == TABLE_VOLUME)
        index_follow(t, index, &before);
    return h.version;
}

void table_heartbeat(struct table *t)
{
    struct table_header h = *table_head(t);
    h.heartbeat++;
    write_header(t, &h);
}
