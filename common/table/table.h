/*
 * table.h: the global partition information, as published: flat, fixed-layout, little-endian regions in the
 * MDC's memory, read one-sided by gateways and modules and looked up in place.
 *
 * A region is one table_header, then arrays of records, then a ring of the latest changes. Each record
 * carries the CRC32C of its other bytes, so it is valid alone; a READ is not atomic against the writer, so a
 * reader takes only records whose CRC holds and reads again otherwise. (term, version) only grows: a reader
 * never goes back. Order of publishing a change: record, ring entry, header with the new version.
 */
#ifndef CISTERN_COMMON_TABLE_TABLE_H
#define CISTERN_COMMON_TABLE_TABLE_H

#include "common/base.h"

#define TABLE_MAGIC        0x31454c4254534943ull /* "CISTBLE1" */
#define TABLE_FORMAT       1u
#define TABLE_MEMBERS_MAX  8u
#define TABLE_RING_ENTRIES 1024u

enum table_kind { TABLE_POOL = 0, TABLE_MODULE = 1, TABLE_PARTITION = 2, TABLE_VOLUME = 3, TABLE_KINDS = 4 };
enum table_module_kind { TABLE_MODULE_OSD = 1, TABLE_MODULE_SAN = 2 };
enum table_media { TABLE_MEDIA_SSD = 1, TABLE_MEDIA_HDD = 2, TABLE_MEDIA_PMEM = 3, TABLE_MEDIA_SAN = 4 };
enum table_module_state {
    TABLE_MODULE_FREE = 0,
    TABLE_MODULE_UP = 1,
    TABLE_MODULE_DOWN = 2,
    TABLE_MODULE_DAMAGED = 3
};
/* The kernel of its host ended its connection to the controller, and no other one came: one of the signs that
 * the process of that incarnation is no more. */
#define TABLE_MODULE_GONE 1u
enum table_volume_state {
    TABLE_VOLUME_FREE = 0,
    TABLE_VOLUME_READY = 1,
    TABLE_VOLUME_SHRINKING = 2,
    TABLE_VOLUME_DELETING = 3
};

struct table_section {
    uint64_t offset;   /* from the start of the region */
    uint32_t capacity; /* records */
    uint32_t used;     /* records below this index may be in use */
};
struct table_header { /* 256 bytes */
    uint64_t magic;
    uint32_t format;
    uint32_t header_bytes;
    struct uuid cluster;
    uint64_t term, version;
    uint64_t heartbeat; /* grows while the publisher lives */
    uint64_t region_bytes;
    struct table_section section[TABLE_KINDS];
    struct table_section ring;
    uint64_t start; /* of the MDC process */
    uint8_t reserved[256 - 156];
    uint32_t crc; /* CRC32C of the bytes before it */
};
_Static_assert(sizeof(struct table_header) == 256, "table_header is 256 bytes");

struct table_pool {           /* 128 bytes */
    uint32_t id;              /* 0 = free record; record index + 1 */
    uint32_t partitions;      /* 2^n */
    uint32_t first_partition; /* index of its first partition record; they are consecutive */
    uint32_t stripe_bytes;
    uint32_t block_bytes;
    uint8_t copies, min_copies, media, state;
    char name[64];
    uint64_t record_version; /* table version of the latest change */
    uint8_t reserved[128 - 100];
    uint32_t crc;
};
_Static_assert(sizeof(struct table_pool) == 128, "table_pool is 128 bytes");

struct table_module { /* 128 bytes */
    uint32_t id;      /* 0 = free record; record index + 1 */
    uint32_t pool;    /* pool id or 0 */
    uint64_t incarnation;
    uint8_t addr[24];                  /* struct fabric_addr */
    uint8_t kind, state, media, flags; /* TABLE_MODULE_GONE */
    uint32_t host;                     /* low 32 bits of the host id */
    struct uuid store;
    uint64_t capacity_bytes;
    uint64_t start_counter;
    uint64_t record_version;
    uint8_t reserved[128 - 92];
    uint32_t crc;
};
_Static_assert(sizeof(struct table_module) == 128, "table_module is 128 bytes");

/* member: module id in the low 24 bits, flags above */
#define TABLE_MEMBER_ID(m)   ((m)&0xffffffu)
#define TABLE_MEMBER_IN_SYNC 0x80000000u
/* It stays only until another copy is in sync in its place. */
#define TABLE_MEMBER_LEAVING 0x40000000u
struct table_partition { /* 64 bytes */
    uint32_t pool;       /* 0 = free record */
    uint32_t index;      /* in the pool */
    uint64_t epoch;
    uint32_t members[TABLE_MEMBERS_MAX]; /* 0 = none; the primary is the first member that is in sync */
    uint64_t record_version;
    uint32_t flags;
    uint32_t crc;
};
_Static_assert(sizeof(struct table_partition) == 64, "table_partition is 64 bytes");

struct table_volume {      /* 128 bytes */
    struct uuid id;        /* all zero = free record */
    uint64_t family;       /* all layers of one family share their placement */
    uint64_t layer;        /* top layer: where writes go */
    uint64_t parent_layer; /* 0 = none */
    uint64_t generation;
    uint64_t size_bytes;
    uint32_t pool;
    uint8_t state;
    uint8_t reserved0[3];
    uint64_t record_version;
    uint64_t resized_generation; /* generation of the latest shrink: what lies beyond size_bytes is to be
                                    removed */
    uint8_t reserved[128 - 84];
    uint32_t crc;
};
_Static_assert(sizeof(struct table_volume) == 128, "table_volume is 128 bytes");

struct table_change { /* ring entry, 16 bytes; entry of version v is at v % TABLE_RING_ENTRIES */
    uint64_t version;
    uint16_t kind; /* enum table_kind */
    uint16_t reserved;
    uint32_t index; /* of the record */
};
_Static_assert(sizeof(struct table_change) == 16, "table_change is 16 bytes");
/* One version is one changed record. A reader at version a that sees version b reads the entries a+1..b if
 * b - a <= TABLE_RING_ENTRIES / 2 and each entry's version is as expected, else the whole region. Entries
 * have no CRC: the reader looks at the header again afterwards, and trusts them only when the ring cannot
 * have come round meanwhile. */

/* ---- placement ---- */
/* 64-bit mix of (family, stripe); partition index = its low bits. Part of the disk format: never changes. */
uint64_t placement_hash(uint64_t family, uint64_t stripe);
static inline uint32_t placement_partition(uint64_t hash, uint32_t partitions)
{
    return (uint32_t)(hash & (partitions - 1u));
}

/* ---- a region, own or copied, looked up in place ---- */
struct table {
    void *region;
    uint64_t bytes;
    uint32_t *volume_index; /* hash of volume id -> record index + 1; local, rebuilt by table_index */
    uint32_t volume_index_size;
};
struct table_limits {
    uint32_t pools, modules, partitions, volumes;
};
/* Bytes of a region with these capacities. */
uint64_t table_region_bytes(const struct table_limits *limits);
/* Writes an empty region (version 1) with these capacities into region, zeroed first. */
void table_format(void *region, const struct table_limits *limits, const struct uuid *cluster, uint64_t term,
                  uint64_t start);
/* Checks a header that came from outside: magic, format, CRC, every section inside region_bytes and aligned,
 * sizes sane. 0 or -EPROTO (wrong), -EAGAIN (CRC: read again). max_bytes bounds region_bytes. */
int table_header_check(const struct table_header *h, uint64_t max_bytes);
/* True when the record's CRC holds, or when it is all zero: a record that was never used. */
bool table_record_check(enum table_kind kind, const void *record);
size_t table_record_bytes(enum table_kind kind);
/* The table version of the record's latest change; 0 = never used. */
uint64_t table_record_version(enum table_kind kind, const void *record);
static inline const struct table_header *table_head(const struct table *t)
{
    return (const struct table_header *)t->region;
}
/* NULL when index is not below the section's capacity; the record may be free. */
const void *table_record(const struct table *t, enum table_kind kind, uint32_t index);
/* NULL when free, unknown, or out of range. */
const struct table_pool *table_pool_by_id(const struct table *t, uint32_t id);
const struct table_module *table_module_by_id(const struct table *t, uint32_t id);
const struct table_partition *table_partition_at(const struct table *t, const struct table_pool *pool,
                                                 uint32_t index);
const struct table_volume *table_volume_by_id(const struct table *t, const struct uuid *id);
/* The first in-sync member's module id, 0 = none. */
uint32_t table_partition_primary(const struct table_partition *p);
/* The whole way of a request: volume record -> stripe -> partition -> primary's module record. NULL: no
 * primary known. The module's state is the caller's to look at: one that the MDC has not heard of late may
 * well serve. *partition (may be NULL) gets the partition's record, also when it has no primary, or NULL when
 * there is none. Aim: under 20 ns with 65,536 partitions. */
const struct table_module *table_route(const struct table *t, const struct table_volume *v, uint64_t offset,
                                       const struct table_partition **partition);
/* Rebuilds the local volume index from the region; 0 or -ENOMEM (never once it was built for a region of
 * these capacities). A reader calls it for a new copy and when the id of a volume record changed. Without an
 * index table_volume_by_id works, but looks at every record. table_publish keeps an index that is there up to
 * date. */
int table_index(struct table *t);
void table_index_free(struct table *t);

/* ---- publisher (MDC) ---- */
/* Writes one record (record points to a struct of that kind; its crc and record_version are filled in, in the
 * caller's struct too), its ring entry, and the header with version + 1. Returns the new version. index must
 * be below the capacity (MUST). */
uint64_t table_publish(struct table *t, enum table_kind kind, uint32_t index, void *record);
/* heartbeat + 1. */
void table_heartbeat(struct table *t);

#endif
