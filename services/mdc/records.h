/*
 * records.h: the durable records of the metadata controller: fixed little-endian structs, each with its kind,
 * its length and a CRC32C, under text keys that sort so that what is referred to comes before what refers to
 * it. Described in docs/metadata-store.md. A change of layout is a new RECORD_FORMAT.
 *
 *   0/format                              struct record_format
 *   1/counters                            struct record_counters
 *   2/pool/<id %08x>                      struct record_pool
 *   3/module/<id %08x>                    struct record_module
 *   4/partitions/<pool %08x>/<chunk %08x> struct record_partitions
 *   5/volume/<id, 32 hex>                 struct record_volume
 *   6/attachment/<volume id>/<host>       struct record_attachment
 */
#ifndef CISTERN_SERVICES_MDC_RECORDS_H
#define CISTERN_SERVICES_MDC_RECORDS_H

#include "common/base.h"
#include "common/table/table.h"
#include "common/wire/mdc_proto.h"
#include "services/mdc/meta.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are written as they lie in memory");

#define RECORD_FORMAT   1u
#define RECORD_MAGIC    0x31434d4e52455453ull /* "STERNMC1" */
#define PARTITION_CHUNK 64u                   /* partitions of one record */
#define NUMBER_MAX      (1ull << 62) /* epochs, turns, layers, generations, terms from outside are below it */

enum record_kind {
    RECORD_FORMAT_ID = 1,
    RECORD_COUNTERS = 2,
    RECORD_POOL = 3,
    RECORD_MODULE = 4,
    RECORD_PARTITIONS = 5,
    RECORD_VOLUME = 6,
    RECORD_ATTACHMENT = 7,
};
struct record_head {
    uint32_t kind;  /* enum record_kind */
    uint32_t bytes; /* of the whole record, crc included */
};
struct record_format {
    struct record_head head;
    uint64_t magic;
    uint32_t format;
    uint32_t reserved;
    struct uuid cluster;
    uint32_t reserved1;
    uint32_t crc; /* of the bytes before it; so in all of them */
};
/* Each is above everything that was ever given out or heard of. */
struct record_counters {
    struct record_head head;
    uint64_t term; /* of the process that runs, or ran last */
    uint64_t next_layer;
    uint64_t turn_limit; /* turns below it may have been given */
    uint64_t highest_epoch;
    uint64_t highest_generation;
    uint32_t next_pool, next_module; /* where the search for a free id begins */
    uint32_t flags;
    uint32_t crc;
};
/* The store was put back from an old copy, and not every module has been heard since. */
#define RECORD_COUNTERS_UNHEARD 1u
struct record_pool {
    struct record_head head;
    uint32_t id; /* record index in the table + 1 */
    uint32_t partitions, first_partition, stripe_bytes;
    uint8_t copies, media;
    uint8_t min_copies; /* 0 = 1 */
    uint8_t reserved[5];
    char name[MDC_NAME_MAX];
    uint32_t reserved1;
    uint32_t crc;
};
enum record_draining {
    RECORD_DRAINING = 1, /* gets no partitions, and gives away those it has */
    RECORD_REMOVING = 2, /* likewise; out of its pool when it has nothing left */
};
struct record_module {
    struct record_head head;
    uint32_t id;   /* record index in the table + 1 */
    uint32_t pool; /* 0 = in none */
    struct uuid store;
    uint64_t start_counter, incarnation, capacity_bytes;
    uint8_t kind, media;
    uint8_t draining; /* enum record_draining */
    uint8_t reserved[5];
    uint8_t addr[MDC_ADDR_LEN];
    char host[MDC_NAME_MAX], rack[MDC_NAME_MAX], name[MDC_NAME_MAX];
    uint64_t confirmed_start,
        confirmed_incarnation; /* the latest accepted start that its medium is known to have noted */
    uint32_t weight_mib;       /* in the placement; 0 = its capacity */
    uint32_t crc;
};
struct record_partition {
    uint64_t epoch;
    uint32_t members[TABLE_MEMBERS_MAX]; /* as in struct table_partition */
};
struct record_partitions {
    struct record_head head;
    uint32_t pool, chunk; /* partitions chunk * PARTITION_CHUNK ... of the pool */
    uint32_t count, reserved;
    struct record_partition items[PARTITION_CHUNK]; /* those from count on are zero */
    uint32_t reserved1;
    uint32_t crc;
};
struct record_volume {
    struct record_head head;
    struct uuid id;
    char name[MDC_NAME_MAX];
    uint32_t pool;
    uint8_t state; /* enum table_volume_state */
    uint8_t reserved[3];
    uint64_t family, layer, parent_layer, generation, size_bytes, resized_generation;
    uint32_t reserved1;
    uint32_t crc;
};
struct record_attachment {
    struct record_head head;
    struct uuid volume;
    char host[MDC_NAME_MAX];
    uint8_t read_only, shared;
    uint8_t by_request; /* made by ATTACH: its mode is the one asked for, an open does not widen it */
    uint8_t reserved[1];
    uint32_t since_high; /* upper half of since */
    uint64_t holder;     /* instance that may draw turns; 0 = none yet */
    uint32_t since; /* the volume's generation when it was made: opens of before were ended by a detach */
    uint32_t crc;
};
static inline uint64_t record_since(const struct record_attachment *r)
{
    return (uint64_t)r->since_high << 32 | r->since;
}
static inline void record_set_since(struct record_attachment *r, uint64_t generation)
{
    r->since = (uint32_t)generation;
    r->since_high = (uint32_t)(generation >> 32);
}
_Static_assert(sizeof(struct record_format) == 48, "layout");
_Static_assert(sizeof(struct record_counters) == 64, "layout");
_Static_assert(sizeof(struct record_pool) == 8 + 16 + 8 + 64 + 8, "layout");
_Static_assert(sizeof(struct record_module) == 8 + 8 + 16 + 24 + 8 + 24 + 192 + 16 + 8, "layout");
_Static_assert(sizeof(struct record_partitions) == 24 + 64 * 40 + 8, "layout");
_Static_assert(sizeof(struct record_volume) == 8 + 16 + 64 + 8 + 48 + 8, "layout");
_Static_assert(sizeof(struct record_attachment) == 8 + 16 + 64 + 8 + 8 + 8, "layout");
_Static_assert(sizeof(struct record_partitions) <= META_VALUE_MAX, "largest record");

/* key holds META_KEY_MAX bytes. */
#define RECORD_KEY_FORMAT   "0/format"
#define RECORD_KEY_COUNTERS "1/counters"
void record_key_pool(char *key, uint32_t id);
void record_key_module(char *key, uint32_t id);
void record_key_partitions(char *key, uint32_t pool, uint32_t chunk);
void record_key_volume(char *key, const struct uuid *id);
void record_key_attachment(char *key, const struct uuid *volume, const char *host);

/* Bytes of a record of that kind, 0 for an unknown one. */
size_t record_bytes(enum record_kind kind);
/* Fills head and crc of a record whose other bytes are set. */
void record_seal(enum record_kind kind, void *record);
/*
 * Checks a record as loaded: length, kind, CRC, its key, and every field that can be judged alone. 0;
 * -EBADMSG: damaged; -EMEDIUMTYPE: not a record of this program; -EPROTONOSUPPORT: another format. *why is a
 * literal that says what. value need not be aligned; out holds record_bytes(*kind) <= META_VALUE_MAX bytes.
 */
int record_open(const char *key, const void *value, size_t len, enum record_kind *kind, void *out,
                const char **why);

#endif
