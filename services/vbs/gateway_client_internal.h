/* gateway_client_internal.h: what gateway_client.c (connection, associations) and gateway_client_io.c
 * (requests, parts) share. */
#ifndef CISTERN_SERVICES_VBS_GATEWAY_CLIENT_INTERNAL_H
#define CISTERN_SERVICES_VBS_GATEWAY_CLIENT_INTERNAL_H

#include "common/list.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/pool.h"
#include "common/wire/vbs_proto.h"
#include "services/vbs/gateway_client.h"
#include "services/vbs/volume_internal.h"

enum client_state {
    CLIENT_IDLE,       /* the timer is armed */
    CLIENT_CONNECTING, /* ended by up or down */
    CLIENT_READY,
    CLIENT_DRAINING, /* closed; calls of the old connection have yet to end */
};
struct vbs_client {
    struct env *env;
    struct gateway_client_config config;
    enum client_state state;
    unsigned next_gateway;
    struct resolve_request lookup; /* of its name, before a connect */
    unsigned lookups;              /* that found something */
    struct rpc_peer *peer, *old_peer;
    struct rpc_service service;
    unsigned calls; /* on peer or its predecessor, not ended */
    uint64_t open_serial;
    uint64_t backoff_ns;
    struct loop_timer timer;
    struct pool *parts;
    struct list volumes, hungry;
    struct list copies; /* parts that have a copy of their data */
    struct log_limit log;
};
enum assoc_state { ASSOC_NONE, ASSOC_OPENING, ASSOC_OPEN, ASSOC_LOST };
struct vbs_client_volume {
    struct list all, hungry;
    struct vbs_client *client;
    struct volume_open_options options;
    enum assoc_state assoc;
    int lost_rc;
    uint32_t handle;
    struct volume_info info;
    struct list queue, requests; /* not wholly split; wholly split */
    struct list waiting;         /* parts that are to be sent (again) */
    unsigned calls;              /* parts and OPEN at a gateway */
    bool closed;                 /* freed when calls is 0 */
    void (*close_done)(void *arg);
    void *close_arg;
    void (*open_done)(void *arg, struct vbs_client_volume *volume, int rc,
                      const char *text); /* NULL once called */
    void *open_arg;
    void (*changed)(void *arg, int rc);
    void *changed_arg;
    struct loop_task notify;
    struct loop_timer retry; /* sends waiting parts, or opens again */
    struct rpc_call open_call;
    uint8_t open_body[512];
};
struct client_part {
    struct list link, req_link;
    struct vbs_client_volume *volume;
    struct volume_request *req;
    bool sent;
    uint32_t handle; /* of the latest attempt */
    uint64_t offset;
    uint32_t length;
    unsigned crc_failures;
    uint32_t source_crc;
    bool source_crc_known;
    struct rpc_call call;
    void *copy;
    struct fabric_mem *copy_mem;
    struct list copy_link; /* client->copies */
    unsigned sge_count;
    struct fabric_sge sge[FABRIC_SGE_MAX];
};
/* Gives the copy back, if there is one. */
void client_part_drop_copy(struct client_part *p);
/* A call on the connection has ended. */
void client_call_ended(struct vbs_client *c);
void client_volume_call_ended(struct vbs_client_volume *v);
/* The association is over: opens again as soon as possible. */
void client_reopen(struct vbs_client_volume *v);
void client_set_size(struct vbs_client_volume *v, uint64_t size_bytes);
/* Sends what waits, if the association is open. */
void client_send_waiting(struct vbs_client_volume *v);
/* Ends all requests of v as soon as nothing of them is at a gateway. Runs callbacks. */
void client_end_all(struct vbs_client_volume *v, int rc);

#endif
