#include "tests/sim/backend.h"

#include <stdio.h>
#include <stdlib.h>

#include "services/vbs/gateway_client.h"
#include "tests/sim/setup.h"

struct opened {
    struct sim_backend *backend;
    unsigned number;
    struct volume *volume;
    struct vbs_client_volume *remote;
    void (*done)(void *arg, unsigned volume, int rc);
    void *arg;
};
struct sim_backend {
    struct sim_proc *proc;
    struct volume_core *core;  /* with tables */
    struct vbs_client *client; /* through gateways */
    uint64_t instance;
    struct opened volumes[SIM_VOLUMES];
};

static int create_core(struct sim_backend *b)
{
    struct sim_proc *p = b->proc;
    struct volume_core_config config;
    volume_core_config_default(&config);
    config.cluster.mdc[0] = sim_addr(&p->cluster->procs[0], SIM_MDC_PORT);
    config.cluster.mdc_count = 1;
    config.cluster.role = FABRIC_ROLE_CLIENT;
    config.cluster.instance = b->instance;
    config.cluster.refresh_ns = p->cluster->shape.refresh_ns;
    snprintf(config.cluster.name, sizeof(config.cluster.name), "%s", p->name);
    sim_client_host(p, config.cluster.host, sizeof(config.cluster.host));
    return volume_core_create(&p->env, &config, &b->core);
}

static int create_client(struct sim_backend *b)
{
    struct gateway_client_config config = {.gateway_count = SIM_GATEWAYS, .verify_reads = true};
    for (unsigned i = 0; i < SIM_GATEWAYS; i++) {
        unsigned k = (i + b->proc->number) % SIM_GATEWAYS;
        config.gateways[i] = sim_addr(sim_cluster_proc(b->proc->cluster, SIM_GATEWAY, k), SIM_GATEWAY_PORT);
    }
    return vbs_client_create(&b->proc->env, &config, &b->client);
}

int sim_backend_create(struct sim_proc *p, struct sim_backend **out)
{
    struct sim_backend *b = calloc(1, sizeof(*b));
    MUST(b);
    b->proc = p;
    b->instance = fabric_config_get(p->env.fabric)->incarnation;
    for (unsigned i = 0; i < SIM_VOLUMES; i++) {
        b->volumes[i].backend = b;
        b->volumes[i].number = i;
    }
    bool tables = sim_cluster_proc(p->cluster, SIM_CLIENT, 0) == p || p->number % 2 == 0;
    int rc = tables ? create_core(b) : create_client(b);
    if (rc)
        free(b);
    else
        *out = b;
    return rc;
}

void sim_backend_destroy(struct sim_backend *b)
{
    for (unsigned i = 0; i < SIM_VOLUMES; i++)
        if (b->volumes[i].volume)
            volume_abandon(b->volumes[i].volume);
    if (b->core)
        volume_core_destroy(b->core);
    if (b->client)
        vbs_client_destroy(b->client);
    free(b);
}

static void core_opened(void *arg, struct volume *volume, int rc, const char *text)
{
    struct opened *o = arg;
    (void)text;
    if (rc == 0)
        o->volume = volume;
    o->done(o->arg, o->number, rc);
}

static void client_opened(void *arg, struct vbs_client_volume *volume, int rc, const char *text)
{
    struct opened *o = arg;
    (void)text;
    if (rc == 0)
        o->remote = volume;
    o->done(o->arg, o->number, rc);
}

/* A volume that was lost (superseded) is closed before it is opened again. */
static void forget(struct opened *o)
{
    if (o->volume)
        volume_close(o->volume, NULL, NULL);
    if (o->remote)
        vbs_client_close(o->remote, NULL, NULL);
    o->volume = NULL;
    o->remote = NULL;
}

int sim_backend_open(struct sim_backend *b, unsigned volume, void (*done)(void *arg, unsigned volume, int rc),
                     void *arg)
{
    struct opened *o = &b->volumes[volume];
    struct volume_open_options options = {.instance = b->instance, .shared = true};
    forget(o);
    o->done = done;
    o->arg = arg;
    snprintf(options.name, sizeof(options.name), "%s", sim_volume_name(volume));
    sim_client_host(b->proc, options.host, sizeof(options.host));
    if (b->core)
        return volume_open(b->core, &options, core_opened, o);
    return vbs_client_open(b->client, &options, client_opened, o);
}

static void request_done(struct volume_request *req, int rc)
{
    struct sim_io *io = container_of(req, struct sim_io, request);
    io->done(io, rc);
}

int sim_backend_submit(struct sim_backend *b, unsigned volume, struct sim_io *io)
{
    struct opened *o = &b->volumes[volume];
    io->request = (struct volume_request){
        .op = io->op, .offset = io->offset, .length = io->length, .done = request_done};
    if (io->op == VOLUME_READ || io->op == VOLUME_WRITE) {
        io->request.sge = io->sge;
        io->request.sge_count = 1;
    }
    return b->core ? volume_submit(o->volume, &io->request) : vbs_client_submit(o->remote, &io->request);
}

struct cluster *sim_backend_cluster(struct sim_backend *b)
{
    return b->core ? volume_core_cluster(b->core) : NULL;
}
