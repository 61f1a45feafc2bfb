/*
 * volume.h: the volume core: one open volume of one shard, by tables: a request is split by stripe, each part
 * is routed in the local table to its partition's primary module and sent there; stale tables are refreshed,
 * lost connections are made again, and parts are repeated until they succeed. By default a request waits for
 * ever rather than fail while nobody may serve its partition.
 *
 * Errors that end a request: -EINVAL, -ERANGE (beyond the size), -ENOSPC, -EROFS, -EIO/-EBADMSG (stored data
 * damaged), -ENOENT (volume deleted), -ESTALE (this open was superseded: another instance or gateway has this
 * host's turn, or the host was detached).
 *
 * Used by the gateway daemon, and inside libcistern by clients that have the tables.
 */
#ifndef CISTERN_SERVICES_VBS_VOLUME_H
#define CISTERN_SERVICES_VBS_VOLUME_H

#include "common/env.h"
#include "services/cluster/cluster.h"

struct volume_core; /* shared by the volumes of a shard: cluster session, module connections, pools */
struct volume;

struct volume_core_config {
    struct cluster_config cluster;
    unsigned parts_max; /* stripe parts in flight over all volumes; 0 = 4096; over it requests queue */
    bool verify_reads;  /* check the CRC32C of read payloads; default on through volume_core_config_default */
};
void volume_core_config_default(struct volume_core_config *config);
int volume_core_create(struct env *env, const struct volume_core_config *config, struct volume_core **out);
void volume_core_destroy(struct volume_core *core); /* any state, no callbacks; volumes first */
struct cluster *volume_core_cluster(struct volume_core *core);

struct volume_open_options {
    char name[MDC_NAME_MAX];
    char host[MDC_NAME_MAX];
    uint64_t instance; /* of the client process (a gateway passes its client's) */
    bool read_only, shared, take_over;
    bool one_turn; /* a newer turn of this host ends this open (-ESTALE) instead of drawing another: an
                      association at a gateway */
    /* held not 0: goes on with an open that was made elsewhere, of volume id with generation held; refused
     * when the host was detached since. */
    struct uuid id;
    uint64_t held;
    /* Of the client's open (a gateway passes on its client's); 0 = the core numbers its opens itself. */
    uint64_t serial;
};
struct volume_info {
    struct uuid id;
    uint64_t size_bytes;
    uint32_t block_bytes, stripe_bytes;
    uint32_t pool;
    uint64_t generation; /* that this open may use */
};
/* done(arg, volume, rc, text): rc 0 or -errno with a sentence for the user. Waits for the MDC and the first
 * table. */
int volume_open(struct volume_core *core, const struct volume_open_options *options,
                void (*done)(void *arg, struct volume *volume, int rc, const char *text), void *arg);
/* Pending requests must have ended. Tells the MDC (best effort). done may be NULL. */
void volume_close(struct volume *volume, void (*done)(void *arg), void *arg);
/*
 * Ends all requests with -ECANCELED: done runs as soon as nothing of a request is at a module (for those that
 * have not been sent: inside this call); nothing more is sent, and volume_submit refuses with -ECANCELED.
 * Then volume_close. For volumes that were opened.
 */
void volume_cancel(struct volume *volume);
/* Frees at once, no callbacks, in any state. Connections that hold memory of its requests are cut (other
 * volumes' parts are repeated on new ones), so it must not be called from inside a callback of the core. */
void volume_abandon(struct volume *volume);
void volume_info_get(const struct volume *volume, struct volume_info *out);
/* Called when the size changed, or the open was lost (rc -ESTALE, -ENOENT). May be NULL. */
void volume_set_changed(struct volume *volume, void (*changed)(void *arg, int rc), void *arg);

enum volume_op { VOLUME_READ, VOLUME_WRITE, VOLUME_DISCARD, VOLUME_ZERO, VOLUME_FLUSH, VOLUME_EXTENTS };
/* Embedded in the caller's object; the volume's from submit until done. offset and length: multiples of
 * SECTOR_BYTES; any length. */
struct volume_request {
    enum volume_op op;
    uint64_t offset, length;
    const struct fabric_sge
        *sge; /* READ destination, WRITE source: registered memory (mem may be NULL on tcp and sim) */
    unsigned sge_count;
    uint8_t *bitmap;     /* EXTENTS: one bit per UNIT_BYTES from round_down(offset), least significant first,
                            caller's memory */
    uint64_t timeout_ns; /* 0 = for ever (the default of the product); else -ETIMEDOUT in done, as soon as no
                            buffer is at a peer */
    void (*done)(struct volume_request *req, int rc);
    bool holes; /* READ result: all of it is a hole (zero-filled all the same) */
    /* the volume's */
    struct list link, parts;
    uint32_t parts_open, state;
    uint64_t next_offset;
    int rc;
    struct volume *volume;
    struct loop_timer timer;
};
int volume_submit(struct volume *volume, struct volume_request *req);

struct volume_core_counters {
    uint64_t requests, parts, retries, refreshes, reconnects, crc_errors, parts_waiting;
};
void volume_core_counters_get(const struct volume_core *core, struct volume_core_counters *out);

#endif
