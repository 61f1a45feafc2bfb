#include "tests/sim/setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/backend.h"
#include "tests/sim/client.h"

enum setup_state { SETUP_MODULES, SETUP_POOL, SETUP_VOLUMES, SETUP_DONE = SETUP_VOLUMES + SIM_VOLUMES };

struct sim_setup {
    struct sim_cluster *cluster;
    struct cluster_call call;
    bool busy;
    struct mdc_cluster_status_reply status;
    struct mdc_pool_reply pool;
    struct mdc_volume_reply volume;
    union {
        struct mdc_empty none;
        struct mdc_pool_create_request pool;
        struct mdc_volume_create_request volume;
    } request;
};

const char *sim_volume_name(unsigned volume)
{
    static const char *const names[SIM_VOLUMES] = {"alpha", "beta"};
    return names[volume];
}

static void setup_done(struct cluster_call *call, int rc)
{
    struct sim_setup *s = container_of(call, struct sim_setup, call);
    struct sim_cluster *c = s->cluster;
    s->busy = false;
    if (rc) {
        /* a repeated request whose first answer was lost finds its work done */
        if (rc != -EEXIST && call->status != STATUS_EXISTS)
            return;
    } else if (c->setup_state == SETUP_MODULES && s->status.modules_up < SIM_OSDS + 1) {
        return;
    }
    if (++c->setup_state == SETUP_DONE)
        c->volumes_ready = true;
}

static void setup_call(struct sim_setup *s, uint16_t method, const struct wire_type *request_type,
                       const struct wire_type *reply_type, void *reply)
{
    s->call = (struct cluster_call){.method = method,
                                    .request_type = request_type,
                                    .request = &s->request,
                                    .reply_type = reply_type,
                                    .reply = reply,
                                    .timeout_ns = 2 * NS_PER_S,
                                    .done = setup_done};
    struct sim_proc *p = sim_cluster_proc(s->cluster, SIM_ADMIN, 0);
    s->busy = cluster_call_start(p->admin, &s->call) == 0;
}

void sim_setup_step(struct sim_cluster *c)
{
    if (!c->setup) {
        c->setup = calloc(1, sizeof(*c->setup));
        MUST(c->setup);
        c->setup->cluster = c;
    }
    struct sim_setup *s = c->setup;
    if (s->busy || c->volumes_ready)
        return;
    memset(&s->request, 0, sizeof(s->request));
    if (c->setup_state == SETUP_MODULES) {
        setup_call(s, MDC_METHOD_CLUSTER_STATUS, &mdc_empty_type, &mdc_cluster_status_reply_type, &s->status);
    } else if (c->setup_state == SETUP_POOL) {
        snprintf(s->request.pool.name, sizeof(s->request.pool.name), "pool");
        s->request.pool.copies = (uint8_t)c->options.copies;
        s->request.pool.partitions = 16;
        s->request.pool.stripe_bytes = 1 * MIB;
        setup_call(s, MDC_METHOD_POOL_CREATE, &mdc_pool_create_request_type, &mdc_pool_reply_type, &s->pool);
    } else {
        snprintf(s->request.volume.name, sizeof(s->request.volume.name), "%s",
                 sim_volume_name(c->setup_state - SETUP_VOLUMES));
        s->request.volume.size_bytes = SIM_VOLUME_BYTES;
        setup_call(s, MDC_METHOD_VOLUME_CREATE, &mdc_volume_create_request_type, &mdc_volume_reply_type,
                   &s->volume);
    }
}
