/* Processes of the simulated cluster: birth, death, pause; and the story of one seed. */
#include "tests/sim/cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/sim/backend.h"
#include "tests/sim/client.h"
#include "tests/sim/faults.h"
#include "tests/sim/setup.h"

#define MODULE_PORT  7200u
#define MEDIUM_BYTES (96 * MIB)

static const char secret[] = "the simulated cluster's secret";

struct fabric_addr sim_addr(const struct sim_proc *p, uint16_t port)
{
    struct fabric_addr a = {.provider = FABRIC_PROVIDER_SIM, .port = port};
    uint32_t host = p->number + 1;
    memcpy(a.ip, &host, sizeof(host));
    return a;
}

struct sim_proc *sim_cluster_proc(struct sim_cluster *c, enum sim_kind kind, unsigned index)
{
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].kind == kind && index-- == 0)
            return &c->procs[i];
    return NULL;
}

static void proc_failed(void *user, int rc, const char *text)
{
    struct sim_proc *p = user;
    p->failed = true;
    snprintf(p->failure, sizeof(p->failure), "%s (%s)", text, strerror(-rc));
}

static void mdc_failed(void *user, int rc)
{
    proc_failed(user, rc, "the meta store failed");
}

static const struct rwm_events rwm_events = {.failed = proc_failed};

static void start_mdc(struct sim_proc *p)
{
    struct mdc_config config = {.listen = sim_addr(p, SIM_MDC_PORT),
                                .limits = {.pools = 4, .modules = 16, .partitions = 256, .volumes = 64},
                                .heartbeat_ms = 200,
                                .failed = mdc_failed,
                                .user = p};
    MUST(meta_sim_open(p->cluster->meta, &p->env, &config.meta) == 0);
    config.cluster = p->cluster->cluster_id;
    MUST(mdc_create(&p->env, &config, &p->mdc) == 0);
}

static void start_rwm(struct sim_proc *p)
{
    struct sim_cluster *c = p->cluster;
    struct rwm_config config = {.kind = p->kind == SIM_SAN ? TABLE_MODULE_SAN : TABLE_MODULE_OSD,
                                .media = p->kind == SIM_SAN ? TABLE_MEDIA_SAN : TABLE_MEDIA_SSD,
                                .mdc_count = 1,
                                .incarnation = fabric_config_get(p->env.fabric)->incarnation,
                                .buffer_bytes = 4 * MIB,
                                .requests_max = 16,
                                .store = {.cache_bytes = 256 * KIB, .requests_max = 64}};
    config.mdc[0] = sim_addr(&c->procs[0], SIM_MDC_PORT);
    snprintf(config.name, sizeof(config.name), "%s", p->name);
    snprintf(config.host, sizeof(config.host), "host-%s", p->name);
    struct fabric_addr listen = sim_addr(p, MODULE_PORT);
    MUST(rwm_host_create(&p->env, &listen, &p->host) == 0);
    MUST(rwm_create(&p->env, p->host, p->device, NULL, &config, &rwm_events, p, &p->rwm) == 0);
}

static void format_done(void *arg, int rc)
{
    struct sim_proc *p = arg;
    MUST(rc == 0);
    p->formatted = true;
    start_rwm(p);
}

static void device_ready(struct sim_proc *p)
{
    struct store_format_options options = {
        .journal_bytes = 8 * MIB, .max_partitions = 256, .max_volumes = 64, .max_turns = 256, .force = true};
    if (p->formatted)
        start_rwm(p);
    else
        store_format(&p->env, p->device, NULL, &options, format_done, p);
}

static void fence_done(struct device_fence_request *req, int rc)
{
    struct sim_proc *p = container_of(req, struct sim_proc, fence);
    if (rc)
        proc_failed(p, rc, "the LUN could not be fenced");
    else
        device_ready(p);
}

static void device_changed(struct device *device, void *arg)
{
    struct sim_proc *p = arg;
    if (device->link_state != DEVICE_LINK_UP)
        proc_failed(p, -ENODEV, "the LUN was lost");
}

static void start_module(struct sim_proc *p)
{
    MUST(device_open_sim(&p->env, p->data, &p->device) == 0);
    p->device->changed = device_changed;
    p->device->changed_arg = p;
    p->fence.done = fence_done;
    if (p->kind == SIM_SAN)
        MUST(device_fence_acquire(p->device, p->starts, &p->fence) == 0);
    else
        device_ready(p);
}

static void start_gateway(struct sim_proc *p)
{
    struct gateway_config config = {.listen = sim_addr(p, SIM_GATEWAY_PORT)};
    struct cluster_config *cc = &config.core.cluster;
    volume_core_config_default(&config.core);
    cc->mdc[0] = sim_addr(&p->cluster->procs[0], SIM_MDC_PORT);
    cc->mdc_count = 1;
    cc->role = FABRIC_ROLE_VBS;
    cc->instance = fabric_config_get(p->env.fabric)->incarnation;
    cc->refresh_ns = 300 * NS_PER_MS;
    snprintf(cc->name, sizeof(cc->name), "%s", p->name);
    snprintf(cc->host, sizeof(cc->host), "host-%s", p->name);
    MUST(gateway_create(&p->env, &config, &p->gateway) == 0);
}

void sim_proc_start(struct sim_proc *p)
{
    static const enum fabric_role roles[] = {FABRIC_ROLE_MDC, FABRIC_ROLE_MODULE, FABRIC_ROLE_MODULE,
                                             FABRIC_ROLE_VBS, FABRIC_ROLE_CLIENT};
    struct sim_cluster *c = p->cluster;
    struct fabric_config fc = {
        .cluster = c->cluster_id, .role = roles[p->kind], .secret_len = sizeof(secret)};
    MUST(!p->alive);
    memcpy(fc.secret, secret, sizeof(secret));
    p->starts++;
    sim_world_fork_rng(c->world, p->name, &p->rng);
    fc.incarnation = rng_u64(&p->rng) | 1;
    fc.probe_interval_ns = 200 * NS_PER_MS;
    fc.probe_timeout_ns = NS_PER_S;
    MUST(loop_create_sim(c->world, p->name, (int)rng_below(&p->rng, 200) - 100, &p->env.loop) == 0);
    sim_net_host_up(c->net, p->number + 1);
    if (p->has_clock)
        sim_loop_set_clock(p->env.loop, &p->clock);
    p->env.rng = &p->rng;
    p->env.trace = c->trace;
    p->env.name = p->name;
    MUST(fabric_create_sim(&p->env, c->net, p->number + 1, &fc, &p->env.fabric) == 0);
    p->alive = true;
    p->failed = false;
    p->up_at = UINT64_MAX;
    trace_point(c->trace, sim_world_now(c->world), "start", p->number, p->starts, fc.incarnation);
    if (p->kind == SIM_MDC)
        start_mdc(p);
    else if (p->kind == SIM_OSD || p->kind == SIM_SAN)
        start_module(p);
    else if (p->kind == SIM_GATEWAY)
        start_gateway(p);
    else
        MUST(sim_client_create(p, &p->client) == 0);
}

/* Frees what the process was; nothing of it runs any more. */
static void proc_free(struct sim_proc *p)
{
    if (p->client)
        sim_client_destroy(p->client);
    if (p->gateway)
        gateway_destroy(p->gateway);
    if (p->rwm)
        rwm_destroy(p->rwm);
    if (p->host)
        rwm_host_destroy(p->host);
    if (p->mdc)
        mdc_destroy(p->mdc);
    if (p->device)
        device_destroy(p->device);
    fabric_destroy(p->env.fabric);
    loop_destroy(p->env.loop);
    p->client = NULL;
    p->gateway = NULL;
    p->rwm = NULL;
    p->host = NULL;
    p->mdc = NULL;
    p->device = NULL;
    p->env = (struct env){0};
}

void sim_proc_kill(struct sim_proc *p, bool power)
{
    struct sim_cluster *c = p->cluster;
    MUST(p->alive);
    trace_point(c->trace, sim_world_now(c->world), power ? "power loss" : "kill", p->number, 0, 0);
    sim_loop_get_clock(p->env.loop, &p->clock);
    p->has_clock = true;
    sim_loop_kill(p->env.loop);
    if (power)
        sim_net_host_down(c->net, p->number + 1);
    p->alive = p->paused = false;
    proc_free(p);
    if (power && p->data)
        sim_medium_crash(p->data, NULL);
}

void sim_proc_pause(struct sim_proc *p)
{
    trace_point(p->cluster->trace, sim_world_now(p->cluster->world), "pause", p->number, 0, 0);
    p->paused = true;
    sim_loop_pause(p->env.loop);
}

void sim_proc_resume(struct sim_proc *p)
{
    trace_point(p->cluster->trace, sim_world_now(p->cluster->world), "resume", p->number, 0, 0);
    p->paused = false;
    sim_loop_resume(p->env.loop);
}

static void make_procs(struct sim_cluster *c)
{
    static const struct {
        enum sim_kind kind;
        unsigned count;
        const char *name;
    } kinds[] = {{SIM_MDC, 1, "mdc"},
                 {SIM_OSD, SIM_OSDS, "osd"},
                 {SIM_SAN, 1, "san"},
                 {SIM_GATEWAY, SIM_GATEWAYS, "vbs"},
                 {SIM_CLIENT, SIM_CLIENTS, "client"}};
    unsigned n = 0;
    for (unsigned k = 0; k < ARRAY_LEN(kinds); k++)
        for (unsigned i = 0; i < kinds[k].count; i++, n++) {
            struct sim_proc *p = &c->procs[n];
            p->cluster = c;
            p->kind = kinds[k].kind;
            p->number = n;
            p->up_at = UINT64_MAX;
            snprintf(p->name, sizeof(p->name), "%s%u", kinds[k].name, i + 1);
            if (p->kind != SIM_OSD && p->kind != SIM_SAN)
                continue;
            struct sim_medium_options options = {.kind =
                                                     p->kind == SIM_SAN ? SIM_MEDIUM_LUN : SIM_MEDIUM_DISK,
                                                 .name = p->name,
                                                 .size = MEDIUM_BYTES,
                                                 .io_bytes = rng_chance(&c->rng, 1, 2) ? 512 : 4096};
            p->data = sim_medium_create(c->world, &options);
        }
}

int sim_cluster_create(const struct sim_options *options, struct sim_cluster **out)
{
    struct sim_cluster *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->options = *options;
    c->next_value = 1;
    MUST(sim_world_create(options->seed, &c->world) == 0);
    sim_world_fork_rng(c->world, "faults", &c->rng);
    c->cluster_id = rng_uuid(&c->rng);
    MUST(trace_create(4096, &c->trace) == 0);
    trace_set_current(c->trace);
    MUST(sim_net_create(c->world, &c->net) == 0);
    MUST(meta_sim_create(rng_u64(&c->rng), 300 * NS_PER_US, &c->meta) == 0);
    MUST(history_create(SIM_VOLUMES * SIM_SECTORS, &c->history) == 0);
    c->claims = calloc(SIM_VOLUMES * SIM_SECTORS, sizeof(*c->claims));
    MUST(c->claims);
    make_procs(c);
    for (unsigned i = 0; i < SIM_PROCS; i++)
        sim_proc_start(&c->procs[i]);
    *out = c;
    return 0;
}

void sim_cluster_destroy(struct sim_cluster *c)
{
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].alive)
            sim_proc_kill(&c->procs[i], false);
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].data)
            sim_medium_destroy(c->procs[i].data);
    sim_net_destroy(c->net);
    meta_sim_destroy(c->meta);
    history_destroy(c->history);
    sim_world_destroy(c->world);
    trace_set_current(NULL);
    trace_destroy(c->trace);
    free(c->setup);
    free(c->claims);
    free(c);
}

/* Starts again what is due, and what gave up. */
static void revive(struct sim_cluster *c)
{
    uint64_t now = sim_world_now(c->world);
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        struct sim_proc *p = &c->procs[i];
        if (p->alive && p->failed) {
            sim_proc_kill(p, false);
            p->up_at = now + 100 * NS_PER_MS;
        }
        if (!p->alive && p->up_at <= now) {
            c->restarts++;
            sim_proc_start(p);
        }
        if (p->alive && p->paused && p->resume_at <= now)
            sim_proc_resume(p);
    }
}

static bool advance(struct sim_cluster *c, uint64_t ns)
{
    sim_world_run_until(c->world, sim_world_now(c->world) + ns);
    revive(c);
    return c->error[0] == 0;
}

static bool clients_idle(const struct sim_cluster *c)
{
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].client && !sim_client_idle(c->procs[i].client))
            return false;
    return true;
}

/* Up to limit_ns for the clients to come to rest. */
static bool settle(struct sim_cluster *c, uint64_t limit_ns)
{
    for (uint64_t ns = 0; ns < limit_ns; ns += 20 * NS_PER_MS)
        if (!advance(c, 20 * NS_PER_MS) || clients_idle(c))
            return c->error[0] == 0;
    return false;
}

static enum sim_result explain_stuck(struct sim_cluster *c, const char *when, char *why, size_t cap)
{
    size_t n = (size_t)snprintf(why, cap, "%s: ", when);
    for (unsigned i = 0; i < SIM_PROCS && n < cap; i++) {
        const struct sim_proc *p = &c->procs[i];
        if (!p->alive)
            n += (size_t)snprintf(why + n, cap - n, "%s is dead; ", p->name);
        else if (p->client && !sim_client_idle(p->client)) {
            sim_client_explain(p->client, why + n, cap - n);
            n += strlen(why + n);
        } else if (p->rwm) {
            struct rwm_stats stats;
            rwm_stats_get(p->rwm, &stats);
            n += (size_t)snprintf(why + n, cap - n, "%s serving=%d active=%" PRIu64 " table=%" PRIu64 "; ",
                                  p->name, stats.serving, stats.requests_active, stats.table_version);
        }
        if (p->failure[0] && n < cap)
            n += (size_t)snprintf(why + n, cap - n, "%s once failed: %s; ", p->name, p->failure);
    }
    return SIM_STUCK;
}

enum sim_result sim_cluster_run(struct sim_cluster *c, char *why, size_t cap)
{
    uint64_t end;
    why[0] = 0;
    for (end = 0; end < 30 * NS_PER_S && !c->volumes_ready && !c->error[0]; end += 10 * NS_PER_MS) {
        sim_setup_step(c);
        advance(c, 10 * NS_PER_MS);
    }
    if (!c->volumes_ready) {
        snprintf(why, cap, "no volumes after 30 s without faults: %s", c->error);
        return SIM_SETUP;
    }
    end = sim_world_now(c->world) + c->options.run_ns;
    while (sim_world_now(c->world) < end && !c->error[0]) {
        if (!c->options.no_faults)
            sim_faults_step(c);
        advance(c, (1 + rng_below(&c->rng, 100)) * NS_PER_MS);
    }
    c->faults_over = true;
    sim_faults_heal(c);
    revive(c);
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].client)
            sim_client_drain(c->procs[i].client);
    if (!c->error[0] && !settle(c, c->options.settle_ns) && !c->error[0])
        return explain_stuck(c, "requests did not end although all faults are gone", why, cap);
    sim_client_read_all(sim_cluster_proc(c, SIM_CLIENT, 0)->client);
    if (!c->error[0] && !settle(c, c->options.settle_ns) && !c->error[0])
        return explain_stuck(c, "the last read of everything did not end", why, cap);
    if (c->error[0]) {
        snprintf(why, cap, "%s", c->error);
        return SIM_WRONG;
    }
    return history_check(c->history, why, cap) ? SIM_WRONG : SIM_OK;
}
