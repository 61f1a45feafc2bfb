/* An administrator: grows and shrinks the volumes, makes and deletes others, detaches hosts. */
#include "tests/sim/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/client.h"
#include "tests/sim/setup.h"

#define OTHERS 3u /* volumes that come and go */

struct sim_admin {
    struct sim_cluster *cluster;
    struct cluster_call call;
    bool busy;
    unsigned detached; /* volume */
    uint64_t asked;    /* tick of the detach, or resize */
    unsigned resized;  /* volume */
    struct {
        uint64_t since; /* tick: it may be gone; 0 = it is there, or never was */
        bool sure;      /* ... the shrink was answered */
    } gone[SIM_VOLUMES][SIM_EXTRA_MOST];
    struct mdc_volume_reply volume;
    struct mdc_empty none;
    union {
        struct mdc_volume_create_request create;
        struct mdc_volume_resize_request resize;
        struct mdc_volume_delete_request del;
        struct mdc_attach_request detach;
        struct mdc_module_drain_request drain;
        struct mdc_volume_open_request open;
    } request;
    struct mdc_volume_open_reply opened;
    struct mdc_module_reply module;
};

static void admin_call(struct sim_admin *a, uint16_t method, const struct wire_type *type,
                       const struct wire_type *reply_type, void (*done)(struct cluster_call *, int))
{
    struct sim_cluster *c = a->cluster;
    void *reply = reply_type == &mdc_empty_type               ? (void *)&a->none
                  : reply_type == &mdc_module_reply_type      ? (void *)&a->module
                  : reply_type == &mdc_volume_open_reply_type ? (void *)&a->opened
                                                              : &a->volume;
    a->call = (struct cluster_call){.method = method,
                                    .request_type = type,
                                    .request = &a->request,
                                    .reply_type = reply_type,
                                    .reply = reply,
                                    .timeout_ns = 20 * NS_PER_S,
                                    .done = done};
    a->busy = cluster_call_start(sim_cluster_proc(c, SIM_ADMIN, 0)->admin, &a->call) == 0;
    c->admin_calls += a->busy;
}

static void admin_done(struct cluster_call *call, int rc)
{
    struct sim_admin *a = container_of(call, struct sim_admin, call);
    trace_point(a->cluster->trace, sim_world_now(a->cluster->world), "admin", call->method, (uint64_t)-rc,
                call->status);
    a->busy = false;
}

/* From the answer on nothing that the host had begun before it was asked for may happen. */
static void detach_done(struct cluster_call *call, int rc)
{
    struct sim_admin *a = container_of(call, struct sim_admin, call);
    struct sim_cluster *c = a->cluster;
    admin_done(call, rc);
    if (rc)
        return;
    c->detaches++;
    uint64_t fenced = sim_tick(c);
    for (unsigned i = 0; i < SIM_CLIENTS; i++) {
        const struct sim_proc *p = sim_cluster_proc(c, SIM_CLIENT, i);
        char host[MDC_NAME_MAX];
        sim_client_host(p, host, sizeof(host));
        if (strcmp(host, a->request.detach.host) != 0)
            continue;
        history_fence(c->history, a->detached * SIM_SECTORS, SIM_SECTORS, p->number, a->asked, fenced);
        if (p->client)
            sim_client_fenced(p->client, a->detached, a->asked, fenced);
    }
}

/*
 * A shrink clears what it cuts off: at the latest when a grow, which has to wait for it, has brought that
 * part of the volume back.
 */
static void part_resized(struct sim_admin *a, unsigned part, bool inside, bool answered)
{
    struct sim_cluster *c = a->cluster;
    uint32_t first;
    unsigned count = sim_client_extra(a->resized, part, &first);
    uint64_t since = a->gone[a->resized][part].since;
    if (!inside && since == 0) {
        a->gone[a->resized][part].since = a->asked;
        a->gone[a->resized][part].sure = answered;
    } else if (!inside) {
        a->gone[a->resized][part].sure |= answered;
    } else if (answered && since != 0) {
        uint64_t end = a->gone[a->resized][part].sure ? sim_tick(c) : HISTORY_OPEN;
        for (unsigned i = 0; i < count; i++)
            history_add(c->history, first + i, HISTORY_WRITE, 0, since, end, 0);
        a->gone[a->resized][part].since = 0;
    } else if (since != 0) { /* perhaps it has grown */
        for (unsigned i = 0; i < count; i++)
            history_add(c->history, first + i, HISTORY_WRITE, 0, since, HISTORY_OPEN, 0);
    }
}

static void admin_resize(struct sim_admin *a, unsigned volume, uint64_t size_bytes);

static void resize_done(struct cluster_call *call, int rc)
{
    struct sim_admin *a = container_of(call, struct sim_admin, call);
    uint64_t size = a->request.resize.size_bytes;
    admin_done(call, rc);
    for (unsigned i = 0; i < SIM_EXTRA_MOST; i++)
        part_resized(a, i, SIM_VOLUME_BYTES + (i + 1) * SIM_EXTRA_BYTES <= size, rc == 0);
    /* What a shrink cut off must be gone before it can come back. */
    if (a->cluster->shape.resizes && rc == 0 && !a->cluster->faults_over &&
        size < SIM_VOLUME_BYTES + SIM_EXTRA_BYTES && rng_chance(&a->cluster->rng, 1, 2))
        admin_resize(a, a->resized, SIM_VOLUME_BYTES + SIM_EXTRA_MOST * SIM_EXTRA_BYTES);
}

static void admin_resize(struct sim_admin *a, unsigned volume, uint64_t size_bytes)
{
    struct mdc_volume_resize_request *rq = &a->request.resize;
    memset(&a->request, 0, sizeof(a->request));
    a->resized = volume;
    a->asked = sim_tick(a->cluster);
    snprintf(rq->name, sizeof(rq->name), "%s", sim_volume_name(volume));
    rq->size_bytes = size_bytes;
    rq->allow_shrink = true;
    admin_call(a, MDC_METHOD_VOLUME_RESIZE, &mdc_volume_resize_request_type, &mdc_volume_reply_type,
               resize_done);
}

static void admin_detach(struct sim_admin *a, unsigned volume, unsigned client)
{
    struct sim_cluster *c = a->cluster;
    const struct sim_proc *p = sim_cluster_proc(c, SIM_CLIENT, client);
    struct mdc_attach_request *rq = &a->request.detach;
    a->detached = volume;
    a->asked = sim_tick(c);
    snprintf(rq->volume, sizeof(rq->volume), "%s", sim_volume_name(a->detached));
    sim_client_host(p, rq->host, sizeof(rq->host));
    admin_call(a, MDC_METHOD_DETACH, &mdc_attach_request_type, &mdc_empty_type, detach_done);
}

static void detach_any(struct sim_admin *a, struct rng *r)
{
    unsigned client = (unsigned)rng_below(r, SIM_CLIENTS);
    admin_detach(a, (unsigned)rng_below(r, SIM_VOLUMES), client);
}

static struct sim_admin *admin_of(struct sim_cluster *c)
{
    if (!c->admin) {
        c->admin = calloc(1, sizeof(*c->admin));
        MUST(c->admin);
        c->admin->cluster = c;
    }
    return c->admin;
}

void sim_admin_step(struct sim_cluster *c)
{
    struct rng *r = &c->rng;
    struct sim_admin *a = admin_of(c);
    if (a->busy || !rng_chance(r, c->shape.resizes ? 3 : 1, 4))
        return;
    memset(&a->request, 0, sizeof(a->request));
    switch (c->shape.resizes && rng_chance(r, 2, 3) ? 0 : rng_below(r, 5)) {
    case 0:
    case 1:
        admin_resize(a, (unsigned)rng_below(r, SIM_VOLUMES),
                     SIM_VOLUME_BYTES + rng_below(r, SIM_EXTRA_MOST + 1) * SIM_EXTRA_BYTES);
        break;
    case 2:
        snprintf(a->request.create.name, sizeof(a->request.create.name), "other%u",
                 (unsigned)rng_below(r, OTHERS));
        a->request.create.size_bytes = SIM_VOLUME_BYTES;
        admin_call(a, MDC_METHOD_VOLUME_CREATE, &mdc_volume_create_request_type, &mdc_volume_reply_type,
                   admin_done);
        break;
    case 3:
        snprintf(a->request.del.name, sizeof(a->request.del.name), "other%u", (unsigned)rng_below(r, OTHERS));
        a->request.del.force = true;
        admin_call(a, MDC_METHOD_VOLUME_DELETE, &mdc_volume_delete_request_type, &mdc_empty_type, admin_done);
        break;
    default:
        detach_any(a, r);
        break;
    }
}

void sim_admin_detach_now(struct sim_cluster *c)
{
    struct sim_admin *a = c->admin;
    if (!a || a->busy || !sim_cluster_proc(c, SIM_ADMIN, 0)->admin)
        return;
    memset(&a->request, 0, sizeof(a->request));
    detach_any(a, &c->rng);
}

bool sim_admin_busy(const struct sim_cluster *c)
{
    return c->admin && c->admin->busy;
}

bool sim_admin_detach(struct sim_cluster *c, unsigned volume, unsigned client)
{
    struct sim_admin *a = admin_of(c);
    if (a->busy)
        return false;
    memset(&a->request, 0, sizeof(a->request));
    admin_detach(a, volume, client);
    return a->busy;
}

bool sim_admin_drain(struct sim_cluster *c, uint32_t module)
{
    struct sim_admin *a = admin_of(c);
    if (a->busy)
        return false;
    memset(&a->request, 0, sizeof(a->request));
    a->request.drain.module = module;
    admin_call(a, MDC_METHOD_MODULE_DRAIN, &mdc_module_drain_request_type, &mdc_module_reply_type,
               admin_done);
    return a->busy;
}

bool sim_admin_open(struct sim_cluster *c, unsigned volume)
{
    struct sim_admin *a = admin_of(c);
    struct mdc_volume_open_request *rq = &a->request.open;
    if (a->busy)
        return false;
    memset(&a->request, 0, sizeof(a->request));
    snprintf(rq->volume, sizeof(rq->volume), "%s", sim_volume_name(volume));
    snprintf(rq->host, sizeof(rq->host), "host-admin");
    rq->instance = 1;
    rq->shared = true;
    admin_call(a, MDC_METHOD_VOLUME_OPEN, &mdc_volume_open_request_type, &mdc_volume_open_reply_type,
               admin_done);
    return a->busy;
}

void sim_admin_destroy(struct sim_cluster *c)
{
    free(c->admin);
}
