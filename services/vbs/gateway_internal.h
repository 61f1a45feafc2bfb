/*
 * gateway_internal.h: what the files of the gateway share.
 *
 *   gateway.c       life, clients, heartbeat
 *   gateway_open.c  associations: open, close, ends
 *   gateway_io.c    requests: buffers, fetch, submit, reply
 */
#ifndef CISTERN_SERVICES_VBS_GATEWAY_INTERNAL_H
#define CISTERN_SERVICES_VBS_GATEWAY_INTERNAL_H

#include "common/list.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "common/pool.h"
#include "common/wire/vbs_proto.h"
#include "services/vbs/gateway.h"

#define GATEWAY_CHUNK_BYTES 32768u
enum { GATEWAY_CHUNKS_PER_IO = VBS_IO_MAX / GATEWAY_CHUNK_BYTES, GATEWAY_OPENS_PER_CLIENT = 256 };
_Static_assert(GATEWAY_CHUNKS_PER_IO <= FABRIC_SGE_MAX,
               "the largest payload is fetched and pushed in one piece list");
_Static_assert(sizeof(struct vbs_io_reply) + VBS_RANGE_MAX / UNIT_BYTES / 8 <= RPC_BODY_MAX,
               "an extents reply fits a message");
_Static_assert(sizeof(struct vbs_io_reply) + VBS_RANGE_MAX / UNIT_BYTES / 8 <= GATEWAY_CHUNK_BYTES,
               "and one chunk");

struct gateway {
    struct env *env;
    struct gateway_config config;
    struct volume_core *core;
    struct rpc_listener *listener;
    struct pool *requests, *chunks;
    struct fabric_mem *mem;
    struct list clients, waiting; /* waiting: requests that want buffers, in order of arrival */
    bool pumping, pump_again;
    uint32_t next_handle;
    unsigned chunks_per_open; /* one association without service must not take them all */
    struct loop_timer heartbeat;
    struct cluster_call heartbeat_call;
    struct mdc_gateway_heartbeat_request heartbeat_request;
    struct mdc_empty heartbeat_reply;
    bool heartbeat_busy;
    struct gateway_stats stats;
    struct {
        struct metric_hist read, write, clear, flush; /* from arrival to answer */
    } latency;
};
struct gateway_client {
    struct list all;
    struct gateway *gw;
    struct rpc_peer *peer; /* NULL: gone */
    struct list opens;
    unsigned open_count;
};
struct gateway_open {
    struct list link;
    struct gateway_client *client;
    struct volume *volume; /* NULL while opening */
    uint32_t handle;
    bool ending; /* no more requests; closed when the last one has ended */
    bool closing;
    unsigned requests, chunks;
    struct rpc_request *open_rpc;  /* OPEN not answered yet */
    struct rpc_request *close_rpc; /* CLOSE not answered yet */
};
struct gateway_request {
    struct list link; /* gw->waiting, or unlinked */
    struct gateway *gw;
    struct gateway_open *open;
    struct rpc_request *rpc;
    struct volume_request vr;
    unsigned chunks_wanted, chunk_count;
    uint32_t length;
    uint64_t arrived_ns;
    struct fabric_sge sge[GATEWAY_CHUNKS_PER_IO];
};

/* gateway_open.c */
void gateway_handle_open(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len);
void gateway_handle_close(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len);
/* NULL: no such association, or it is ending. */
struct gateway_open *gateway_find_open(struct gateway_client *client, uint32_t handle);
/* The client has gone. */
void gateway_open_end(struct gateway_open *open);
/* A request of it has ended. */
void gateway_open_rest(struct gateway_open *open);
/* Frees a client that is gone and has nothing open. */
void gateway_client_rest(struct gateway_client *client);
void gateway_reply_error(struct rpc_request *rpc, int rc, const char *text);

/* gateway_io.c */
void gateway_handle_read(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len);
void gateway_handle_write(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len);
void gateway_handle_discard(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len);
void gateway_handle_zero(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len);
void gateway_handle_flush(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len);
void gateway_handle_extents(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len);
/* Ends those of open that wait for buffers. */
void gateway_drop_waiting(struct gateway_open *open);
/* gateway_metrics.c */
/* It was done, and is being answered. */
void gateway_count_done(const struct gateway_request *gr);
void gateway_count_refused(struct gateway *gw, uint32_t status);

/* The status of an ended request on this protocol. */
uint32_t gateway_status(int rc);

#endif
