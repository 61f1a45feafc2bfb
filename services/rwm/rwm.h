/*
 * rwm.h: the read-write control engine: one module (an OSD's disk, or one LUN of a SAN agent) of one shard.
 * Read this first.
 *
 * The path of a write: rpc request (block_proto.h) -> checks (incarnation, pool, epoch, generation, range,
 * turn) -> payload fetched into a unit-aligned buffer and checked -> per-block order: widened to whole units
 * (read, merge) -> version given -> store_write -> durable -> reply. A read: checks -> store_read -> CRCs
 * checked -> reply with payload.
 *
 * The engine registers the module with the metadata controller, keeps a table copy, durably accepts epochs
 * and volume records before it serves by them, confirms by heartbeat the table version that is in force here,
 * and removes in the background what deleted and shrunk volumes left. Copies (forwards, promises, recovery)
 * come on top of the same versions and epochs.
 */
#ifndef CISTERN_SERVICES_RWM_RWM_H
#define CISTERN_SERVICES_RWM_RWM_H

#include "common/env.h"
#include "common/device/device.h"
#include "common/table/table.h"
#include "services/cluster/cluster.h"
#include "services/rwm/store.h"

struct rwm;
struct rwm_config {
    char name[MDC_NAME_MAX], host[MDC_NAME_MAX], rack[MDC_NAME_MAX];
    enum table_module_kind kind;
    enum table_media media;
    struct fabric_addr mdc[CLUSTER_MDCS_MAX];
    char mdc_host[CLUSTER_MDCS_MAX][RESOLVE_HOST_BYTES]; /* as cluster_config's */
    unsigned mdc_count;
    uint64_t incarnation;           /* of this start */
    uint64_t buffer_bytes;          /* request payloads in memory; 0 = 64 MiB; over it requests wait */
    unsigned requests_max;          /* 0 = 512 */
    unsigned recent_max;            /* versions kept that are not known to be committed; 0 = 65536 */
    uint64_t scrub_rate;            /* bytes a second; 0 = 16 MiB */
    uint64_t recovery_rate;         /* bytes a second to members that are not in sync; 0 = 128 MiB */
    unsigned recoveries;            /* of those members at once; 0 = 4 */
    unsigned warn_full, alarm_full; /* percent; 0 = 85 and 95 */
    uint64_t scrub_interval_ns;     /* every block is looked at once in this time; 0 = only when asked for */
    bool fast_fail; /* a promise to a process that is seen to be gone is void: docs/replication.md */
    struct store_options store;
};
struct rwm_events {
    /* The module can not go on (device broken or gone, medium refused by the MDC, superseded): text says why
     * and what to do. The owner destroys it, and may try again later. */
    void (*failed)(void *user, int rc, const char *text);
    void (*serving)(void *user); /* registered and serving; once per start. May be NULL */
};
/*
 * The devices are open (and fenced, on a LUN); the engine owns neither. The store is opened first, then the
 * MDC asked. listen: address for the data path; several modules of one process share one listener: see
 * rwm_host.
 */
struct rwm_host; /* the listener of one process: routes a connection to the module that its HELLO names */
int rwm_host_create(struct env *env, const struct fabric_addr *listen, struct rwm_host **out);
void rwm_host_addr(const struct rwm_host *h, struct fabric_addr *out);
void rwm_host_destroy(
    struct rwm_host *h); /* any state, no callbacks; destroy the modules after it or before, either way */
int rwm_create(struct env *env, struct rwm_host *host, struct device *data, struct device *journal,
               const struct rwm_config *config, const struct rwm_events *events, void *user,
               struct rwm **out);
/*
 * In any state (its events' callbacks included): frees at once, no callbacks. The devices must have been
 * destroyed or be dead before, or nothing may be under way on them: they know the engine's buffers. While the
 * host lives it answers, later, what the module left open (NOT_SERVING), and closes the connections to it.
 */
void rwm_destroy(struct rwm *m);
/* Orderly: stop serving, write back, done. Then rwm_destroy. */
void rwm_shutdown(struct rwm *m, void (*done)(void *arg, int rc), void *arg);

/* Of the scrub under way, or the last one. Units are of 4 KiB. */
struct rwm_scrub_stats {
    bool running;
    uint32_t parts, parts_left; /* partitions of which this module is the primary */
    uint64_t checked_blocks, checked_bytes;
    uint64_t rotten, repaired, lost; /* units, here and at the members */
    uint64_t differing;              /* blocks of which members in sync had different ones */
    uint64_t began_ns, ended_ns;     /* wall time */
};
#define RWM_STATUS_MAX 96u /* above all of status.def */
struct rwm_stats {
    uint64_t reads, writes, discards, read_bytes, write_bytes, errors;
    uint64_t refused_epoch, refused_generation, refused_turn, refused_range, refused_crc;
    uint64_t leaving_blocks; /* of partitions that the module has left */
    uint64_t requests_active, removing_blocks, table_version, applied_version;
    uint64_t recovered_blocks, recovered_bytes; /* sent to members that were not in sync */
    uint64_t recover_blocks;                    /* known to be still to be sent to them */
    uint64_t recover_rate;                      /* bytes a second, of late */
    uint64_t rotten_units;       /* could not be read when they were looked for, again and again counted */
    uint64_t repaired_units;     /* written again, here or at another member, with what another copy had */
    uint64_t unrepairable_units; /* no copy in sync had them: an error to the client */
    uint64_t differing_blocks;   /* the copies of one committed version were not the same */
    uint64_t extents, discard_bytes, epochs, joins, reconciles;
    uint64_t reads_unpromised; /* not answered at once: a promise had run out */
    uint64_t overdrawn; /* writes that a member in sync had no room for, although it had granted some */
    uint64_t refused[RWM_STATUS_MAX];  /* by status; of numbers above: [0] */
    uint32_t module, pool, partitions; /* partitions: of which it is the primary */
    uint32_t partitions_waiting,
        copies_missing; /* of them: not served yet; members of them that are not in sync */
    bool serving, damaged;
    struct rwm_scrub_stats scrub;
    struct store_stats store;
};
void rwm_stats_get(const struct rwm *m, struct rwm_stats *out);
/* One sentence a partition of which this module is the primary and which does not serve, or whose copies are
 * not all in sync: what it waits for. Returns what snprintf would. */
size_t rwm_explain(const struct rwm *m, char *out, size_t cap);

#endif
