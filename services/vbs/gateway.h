/*
 * gateway.h: the gateway daemon as an object: serves hosts that have no tables (vbs_proto.h) through the
 * volume core.
 *
 * A write: request accepted -> buffers taken (over the limit it waits, in order) -> payload fetched and its
 * CRC checked -> volume_submit
 * -> reply. A read: buffers -> volume_submit (CRCs of the modules checked) -> reply with payload.
 *
 * One OPEN is one association: one write turn, which ends with it. When the client's connection goes, its
 * opens end, what has not been sent to a module is dropped, and the turn is never used again.
 */
#ifndef CISTERN_SERVICES_VBS_GATEWAY_H
#define CISTERN_SERVICES_VBS_GATEWAY_H

#include "services/vbs/volume.h"

struct gateway;
struct gateway_config {
    struct fabric_addr listen; /* port 0 picks one */
    struct volume_core_config core;
    uint64_t memory_bytes; /* payload buffers; 0 = 64 MiB */
    unsigned requests_max; /* being served at once; 0 = 1024 */
};
void gateway_config_default(struct gateway_config *config);
/* env->fabric must be set (role VBS). 0 or -errno. Listens at once; clients' opens wait until an MDC answers.
 */
int gateway_create(struct env *env, const struct gateway_config *config, struct gateway **out);
/* Any state, no callbacks. */
void gateway_destroy(struct gateway *gw);
void gateway_addr(const struct gateway *gw, struct fabric_addr *out);
/* It has a table: an open can succeed. */
bool gateway_is_ready(const struct gateway *gw);

#define GATEWAY_STATUS_MAX 96u /* above all of status.def */
struct gateway_stats {
    uint64_t clients, volumes, requests_active, requests_waiting;
    uint64_t reads, writes, discards, read_bytes, write_bytes, errors, crc_errors;
    uint64_t flushes, extents, discard_bytes;
    uint64_t chunks_free, chunks_total;
    uint64_t refused[GATEWAY_STATUS_MAX]; /* by status; of numbers above: [0] */
};
void gateway_stats_get(const struct gateway *gw, struct gateway_stats *out);

#endif
