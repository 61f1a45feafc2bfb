/*
 * store.h: the block store of one module: blocks with versions and checksums on a data device, redo journal
 * on the same device or on a pmem/DAX file. It knows no network, no volumes' meaning, no membership: the
 * engine (rwm.h) above does.
 *
 * Durability: when a write's done runs with 0, it survives any crash. After a crash at any instant every
 * write is whole or absent, in submission order per block, and everything acknowledged is there. Reads return
 * only what is durable. The layout and its reasons: docs/disk-format.md.
 *
 * Thread: the loop's. done callbacks never run inside the call.
 */
#ifndef CISTERN_SERVICES_RWM_STORE_H
#define CISTERN_SERVICES_RWM_STORE_H

#include "common/base.h"
#include "common/device/device.h"
#include "common/env.h"
#include "common/list.h"
#include "common/metrics.h"

struct store;

/* One block of one layer. hash is placement_hash(family, stripe) of its stripe: it leads to the partition. */
struct store_key {
    uint64_t layer;
    uint64_t block; /* number in the layer, BLOCK_BYTES each */
    uint64_t hash;
};

/* ---- making and opening ---- */
struct store_identity {
    struct uuid store;      /* made at format */
    struct uuid cluster;    /* all zero until first registration */
    uint32_t module;        /* 0 until first registration */
    uint64_t start_counter; /* +1, durably, at each open before anything is served */
    /* The latest start that the metadata controller accepted, and its incarnation: what tells the medium from
     * an older copy of itself, whose start_counter catches up when it is started often enough. 0 = none yet.
     */
    uint64_t accepted_start, accepted_incarnation;
    uint32_t partition_bits; /* the index is kept by partition: log2 of the pool's partition count, 0 until in
                                a pool */
};
struct store_format_options {
    uint64_t journal_bytes; /* 0 = 1/32 of the device, 8 MiB to 1 GiB; on the journal device when there is
                               one: all of it */
    uint32_t max_partitions, max_volumes, max_turns; /* 0 = 65536, 16384, 16384 records */
    bool force;                                      /* overwrite a store that is there */
};
/* Writes a new, empty store. done(arg, rc): -EEXIST when the device holds a store (or anything that looks
 * like a filesystem or partition table in its first 64 KiB: not all zero) and force is not set; -ENOSPC when
 * too small. journal may be NULL. */
struct store_format_job;
struct store_format_job *store_format(struct env *env, struct device *data, struct device *journal,
                                      const struct store_format_options *options,
                                      void (*done)(void *arg, int rc), void *arg);
/* Before done ran: frees at once, no I/O, done never runs. The devices must be gone or dead, as for
 * store_destroy. */
void store_format_cancel(struct store_format_job *job);
struct store_options {
    uint64_t cache_bytes;       /* metadata page cache; 0 = 64 MiB */
    uint64_t journal_max_bytes; /* 0 = as formatted; DRAM kept for not yet written back payloads is bounded by
                                   it */
    unsigned requests_max; /* at once; 0 = 1024; over it store_* answer -EAGAIN and store_wait tells when */
    bool read_only;        /* checks: nothing is written, start_counter is not raised */
};
struct store_open_report {
    int rc; /* 0, -EMEDIUMTYPE foreign or no store, -ESTALE old journal/data pair, -EBADMSG damaged beyond use
               ... */
    bool damaged;   /* opened, but something durable was lost: see text; lookups that may be affected answer
                       -EBADMSG */
    char text[256]; /* what is wrong and what to do, or how the replay went */
    uint64_t replayed_records, blocks, pages_repaired;
};
/* Opens and replays. The store owns neither device. Takes possession: raises start_counter durably. Identity
 * mismatch between data device and journal device is refused. done runs once, with the store, or with NULL
 * when rc is not 0: it is freed already then. What is returned is that store: until done ran it is good for
 * nothing but store_destroy (done never runs then). */
struct store *store_open(struct env *env, struct device *data, struct device *journal,
                         const struct store_options *options,
                         void (*done)(void *arg, struct store *store, const struct store_open_report *report),
                         void *arg);
/* Writes everything back, so that the next open replays nothing; done, then store_destroy. */
void store_close(struct store *store, void (*done)(void *arg, int rc), void *arg);
/* Frees at once, in any state (callbacks of this store included), no I/O, no callbacks (a crash as far as the
 * media are concerned). Requests that the devices still hold point into freed memory: with requests under
 * way, destroy or kill the devices before their next callback could run. */
void store_destroy(struct store *store);
const struct store_identity *store_identity(const struct store *store);
/* Durably sets cluster, module and partition_bits (first registration, pool membership). Refused (-EPERM)
 * when cluster or module are set already and differ. */
int store_set_identity(struct store *store, const struct uuid *cluster, uint32_t module,
                       uint32_t partition_bits, void (*done)(void *arg, int rc), void *arg);
/* Durably notes that this start was accepted under that incarnation. As store_set_identity. */
int store_set_accepted(struct store *store, uint64_t incarnation, void (*done)(void *arg, int rc), void *arg);

/* ---- blocks ---- */
/* Embedded in the caller's object; the store's from a successful submit until done. Memory of iov must be
 * UNIT_BYTES aligned. */
struct store_op {
    struct store_key key;
    uint32_t first_unit, unit_count; /* inside the block */
    struct version version;  /* writes and clears: the new version, greater than the block's present one */
    const struct iovec *iov; /* READ: destination; WRITE: source: unit_count * UNIT_BYTES in all */
    int iovcnt;
    const uint32_t *unit_crcs; /* WRITE: CRC32C of each unit (unit_count entries), valid until done */
    /* CLEAR: a block that is left with nothing written is forgotten, version and all, as by store_remove, and
     * one that is absent stays so. Right where every member of the partition is in sync: nobody is left to
     * tell. */
    bool forget;
    /* WRITE of a whole block: it becomes exactly this, version and all, whatever was there, and of its units
     * only those set in `written` hold data (at least one); the others become holes, and their bytes and
     * checksums are not looked at. For a copy that is brought up to another one: its version may go back,
     * too. */
    bool replace;
    /* With replace: of the units in `written`, those that nobody can read any more. They carry no data (their
     * bytes and checksums are not looked at), and read as -EBADMSG until they are written again. */
    uint32_t lost;
    void (*done)(struct store_op *op, int rc);
    /* results of READ and STAT */
    uint32_t
        written; /* one bit per unit of the whole block: 1 = written. With replace: given by the caller */
    struct version found;                 /* the block's durable version, {0,0} when absent */
    uint32_t found_crcs[UNITS_PER_BLOCK]; /* READ: [u] of unit u, for those read that are written */
    /* the store's */
    struct list link;
    void *priv;
    uint32_t state;
};
/*
 * store_write: unit_count whole units become the data. done(0): durable. Fails at submit: -ENOSPC (decided
 * now, nothing has happened), -EAGAIN (too many requests: store_wait), -EROFS, -ENODEV (device gone). Fails
 * in done: -EIO when the media failed: the store is then broken (store_is_broken), its durable state unknown
 * until reopened. store_clear: the units become holes (read as zeroes, take no space in the long run); a
 * versioned record. It needs no space with forget; without, a hole of an absent block takes an entry: -ENOSPC
 * when there is none left. store_read: fills iov; holes are zero-filled. Checks CRCs: -EBADMSG when a unit is
 * rotten (bad_units counted), -EIO when the medium fails. A read sees all writes whose done has run before it
 * was submitted and none that is not durable. store_stat: version and written map only. Ops on one block take
 * effect in order of submission. Ops on different blocks are independent.
 */
int store_write(struct store *store, struct store_op *op);
int store_clear(struct store *store, struct store_op *op);
int store_read(struct store *store, struct store_op *op);
int store_stat(struct store *store, struct store_op *op);
/* Of no block; done(0): the medium, if it may be taken (below), was ours when it served a read after the
 * submit. */
int store_probe(struct store *store, struct store_op *op);
/* Runs once when a submit that answered -EAGAIN is worth trying again. */
struct store_waiter {
    struct list link;
    void (*fn)(struct store_waiter *);
};
void store_wait(struct store *store, struct store_waiter *w);
void store_wait_cancel(struct store *store, struct store_waiter *w);
/* Removes the whole block (delete of a volume, cut of a shrink): absence, durable at done. Only first-class
 * use: background removal. */
int store_remove(struct store *store, struct store_op *op);

/* Walks the blocks of one partition index in a stable order: fills up to max keys after *cursor (0 = from the
 * start), returns the count; *cursor is 0 at the end. Blocks written or removed meanwhile may or may not be
 * seen. partition = hash & (2^bits - 1). */
unsigned store_list(struct store *store, uint32_t partition, uint64_t *cursor, struct store_key *keys,
                    unsigned max);

/* ---- small durable records: what the module has accepted ---- */
struct store_partition_record { /* 64 bytes on disk: index = partition number in the pool */
    uint32_t pool, partition;   /* pool 0 = none */
    uint64_t epoch;             /* the last epoch accepted or promised */
    uint32_t members[8];
    uint8_t reserved[16]; /* first 8: wall time, ns, of the last scrub that ended, little-endian */
};
_Static_assert(sizeof(struct store_partition_record) == 64, "64 bytes on disk");
struct store_volume_record { /* 128 bytes: the module's copy of the volume's record */
    struct uuid id;          /* all zero = free */
    uint64_t family, layer, parent_layer, generation, size_bytes, resized_generation, table_version;
    uint32_t pool;
    uint8_t state;
    uint8_t reserved[51];
};
_Static_assert(sizeof(struct store_volume_record) == 128, "128 bytes on disk");
struct store_turn_record { /* 64 bytes: the highest write turn accepted of (volume, host) */
    struct uuid volume;    /* all zero = free */
    uint64_t host, turn;
    uint8_t reserved[32];
};
_Static_assert(sizeof(struct store_turn_record) == 64, "64 bytes on disk");
enum store_record_kind { STORE_PARTITION, STORE_VOLUME, STORE_TURN };
uint32_t store_record_capacity(const struct store *store, enum store_record_kind kind);
/* In memory, valid until the record is set again; NULL when index is out of range, or when rot took the
 * record (then store_is_damaged). Includes sets that are not yet durable. */
const void *store_record_get(const struct store *store, enum store_record_kind kind, uint32_t index);
/* Journals a new image of one record; done(0): durable. Ordered with writes: a write submitted later is not
 * durable before it. */
struct store_record_op {
    enum store_record_kind kind;
    uint32_t index;
    void (*done)(struct store_record_op *op, int rc); /* may be NULL with op NULL: see below */
    struct list link;
    uint32_t state;
};
/* op NULL: nobody waits (the order above is enough). 0, -EAGAIN, -ERANGE, -EROFS, -ENODEV. */
int store_record_set(struct store *store, struct store_record_op *op, enum store_record_kind kind,
                     uint32_t index, const void *image);

/* ---- state ---- */
struct store_stats {
    uint64_t capacity_bytes, used_bytes, reserved_bytes; /* of block data */
    uint64_t blocks, journal_bytes, journal_used_bytes;
    uint64_t writes, reads, clears, removes, direct_writes, journaled_writes, redirected_writes;
    uint64_t device_write_bytes, client_write_bytes; /* their ratio is the write amplification */
    uint64_t flushes, batches, checkpoints, cache_hits, cache_misses, bad_units, bad_pages, resident_bytes;
};
void store_stats_get(const struct store *store, struct store_stats *out);
/* How long requests of the devices took, data and journal together; by enum device_op. Failed ones too. */
struct store_device_times {
    struct metric_hist op[DEVICE_DISCARD + 1];
};
const struct store_device_times *store_device_times(const struct store *store);
bool store_is_broken(const struct store *store);
/* A medium that others can reach: another process may be its master by now, and what is in memory here no
 * longer true. */
bool store_may_be_taken(const struct store *store);
bool store_is_damaged(const struct store *store);
/* Nothing submitted is under way (tests, shutdown). */
bool store_is_idle(const struct store *store);

#endif
