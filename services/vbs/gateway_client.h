/*
 * gateway_client.h: volumes through a gateway, for hosts without tables: the same requests as the volume
 * core, one connection.
 *
 * The list of gateways is gone through in order; each new connection opens the volumes again (a new
 * association, a new write turn) and repeats what was not acknowledged. A part is repeated only when its call
 * has ended, and the turn of the association that it was sent in is dead by the time the new one's writes
 * arrive.
 */
#ifndef CISTERN_SERVICES_VBS_GATEWAY_CLIENT_H
#define CISTERN_SERVICES_VBS_GATEWAY_CLIENT_H

#include "rdma/fabric_target.h"
#include "services/vbs/volume.h"

#define GATEWAY_CLIENT_ADDRS_MAX 8
struct gateway_client_config {
    struct fabric_addr gateways[GATEWAY_CLIENT_ADDRS_MAX];
    /* Names of their hosts (fabric_target_parse), asked for before each connect; "" = gateways has the
     * address. A name with several addresses stands for several gateways, taken in turn from a random one. */
    char gateway_hosts[GATEWAY_CLIENT_ADDRS_MAX][RESOLVE_HOST_BYTES];
    unsigned gateway_count;
    unsigned parts_max; /* pieces of requests at the gateway at once; 0 = 256 */
    bool verify_reads;
};
struct vbs_client;        /* the connection */
struct vbs_client_volume; /* an open volume */

/* env->fabric must be set. Starts connecting at once. 0 or -errno. */
int vbs_client_create(struct env *env, const struct gateway_client_config *config, struct vbs_client **out);
/* Any state, no callbacks; frees its volumes too. */
void vbs_client_destroy(struct vbs_client *c);
bool vbs_client_is_up(const struct vbs_client *c);

/* As volume_open (one_turn is always so here). */
int vbs_client_open(struct vbs_client *c, const struct volume_open_options *options,
                    void (*done)(void *arg, struct vbs_client_volume *volume, int rc, const char *text),
                    void *arg);
/* No request may be pending. Tells the gateway (best effort, at most 1 s), frees v, then done (may be NULL)
 * runs, later. */
void vbs_client_close(struct vbs_client_volume *v, void (*done)(void *arg), void *arg);
void vbs_client_info_get(const struct vbs_client_volume *v, struct volume_info *out);
void vbs_client_set_changed(struct vbs_client_volume *v, void (*changed)(void *arg, int rc), void *arg);
/* As volume_submit, but for req->timeout_ns, which must be 0, and req->volume, which is not used. */
int vbs_client_submit(struct vbs_client_volume *v, struct volume_request *req);

#endif
