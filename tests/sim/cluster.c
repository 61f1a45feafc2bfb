/* Processes of the simulated cluster: birth, death, pause; and the story of one seed. */
#include "tests/sim/cluster.h"
#include "services/rwm/rwm_scrub.h"
#include "tests/sim/copies.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/sim/admin.h"
#include "tests/sim/backend.h"
#include "tests/sim/client.h"
#include "tests/sim/directed.h"
#include "tests/sim/explain.h"
#include "tests/sim/faults.h"
#include "tests/sim/moves.h"
#include "tests/sim/plots.h"
#include "tests/sim/setup.h"

#define MODULE_PORT 7200u

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

void sim_client_host(const struct sim_proc *p, char *out, size_t cap)
{
    const struct sim_cluster *c = p->cluster;
    const struct sim_proc *last = sim_cluster_proc(p->cluster, SIM_CLIENT, SIM_CLIENTS - 1);
    if (c->shape.shared_host && p->kind == SIM_CLIENT && p->number + 2 > last->number)
        snprintf(out, cap, "host-shared");
    else
        snprintf(out, cap, "host-%s", p->name);
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
                                .restored_store =
                                    p->cluster->restored_store &&
                                    (p->cluster->options.copies > 1 || p->cluster->options.moves),
                                .failed = mdc_failed,
                                .user = p};
    if (p->cluster->options.moves) {
        config.replace_after_ns = 1200 * NS_PER_MS;
        config.rest_ns = 300 * NS_PER_MS;
    }
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
                                .fast_fail = c->shape.fast_fail,
                                .scrub_rate = 256 * MIB,
                                .scrub_interval_ns = c->shape.scrub_interval_ns,
                                .recent_max = c->shape.recent_max,
                                .store = {.cache_bytes = 64 * KIB, .requests_max = c->shape.store_requests}};
    config.mdc[0] = sim_addr(&c->procs[0], SIM_MDC_PORT);
    snprintf(config.name, sizeof(config.name), "%s", p->name);
    snprintf(config.host, sizeof(config.host), "host-%s", p->name);
    struct fabric_addr listen = sim_addr(p, MODULE_PORT);
    MUST(rwm_host_create(&p->env, &listen, &p->host) == 0);
    MUST(rwm_create(&p->env, p->host, p->device, p->log_device, &config, &rwm_events, p, &p->rwm) == 0);
}

static void format_done(void *arg, int rc)
{
    struct sim_proc *p = arg;
    MUST(rc == 0);
    p->owner->formatted = true;
    start_rwm(p);
}

static void device_ready(struct sim_proc *p)
{
    struct store_format_options options = {.journal_bytes = p->cluster->shape.journal_bytes,
                                           .max_partitions = 256,
                                           .max_volumes = 64,
                                           .max_turns = p->cluster->shape.max_turns,
                                           .force = true};
    if (p->owner->formatted)
        start_rwm(p);
    else
        store_format(&p->env, p->device, p->log_device, &options, format_done, p);
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
    if (p->log)
        MUST(device_open_sim(&p->env, p->log, &p->log_device) == 0);
    p->device->changed = device_changed;
    p->device->changed_arg = p;
    p->fence.done = fence_done;
    if (p->kind == SIM_SAN)
        MUST(device_fence_acquire(p->device, ++p->owner->fence_key, &p->fence) == 0);
    else
        device_ready(p);
}

static void start_gateway(struct sim_proc *p)
{
    struct gateway_config config = {
        .listen = sim_addr(p, SIM_GATEWAY_PORT), .memory_bytes = 2 * MIB, .requests_max = 64};
    struct cluster_config *cc = &config.core.cluster;
    volume_core_config_default(&config.core);
    config.core.parts_max = 128;
    cc->mdc[0] = sim_addr(&p->cluster->procs[0], SIM_MDC_PORT);
    cc->mdc_count = 1;
    cc->role = FABRIC_ROLE_VBS;
    cc->instance = fabric_config_get(p->env.fabric)->incarnation;
    cc->refresh_ns = p->cluster->shape.refresh_ns;
    snprintf(cc->name, sizeof(cc->name), "%s", p->name);
    snprintf(cc->host, sizeof(cc->host), "host-%s", p->name);
    MUST(gateway_create(&p->env, &config, &p->gateway) == 0);
}

static int drift(struct sim_proc *p)
{
    int most = p->cluster->shape.drift_ppm;
    return (int)rng_below(&p->rng, 2 * (uint64_t)most) - most;
}

static void start_admin(struct sim_proc *p)
{
    struct cluster_config config = {.mdc_count = 1,
                                    .role = FABRIC_ROLE_CLIENT,
                                    .instance = fabric_config_get(p->env.fabric)->incarnation,
                                    .no_table = true};
    config.mdc[0] = sim_addr(&p->cluster->procs[0], SIM_MDC_PORT);
    snprintf(config.name, sizeof(config.name), "%s", p->name);
    snprintf(config.host, sizeof(config.host), "host-%s", p->name);
    MUST(cluster_create(&p->env, &config, NULL, NULL, &p->admin) == 0);
}

void sim_proc_start(struct sim_proc *p)
{
    static const enum fabric_role roles[] = {FABRIC_ROLE_MDC, FABRIC_ROLE_MODULE, FABRIC_ROLE_MODULE,
                                             FABRIC_ROLE_VBS, FABRIC_ROLE_CLIENT, FABRIC_ROLE_CLIENT};
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
    MUST(loop_create_sim(c->world, p->name, drift(p), &p->env.loop) == 0);
    sim_net_host_up(c->net, p->number + 1);
    if (p->has_clock)
        sim_loop_set_clock(p->env.loop, &p->clock);
    p->env.rng = &p->rng;
    p->env.trace = c->trace;
    p->env.name = p->name;
    MUST(fabric_create_sim(&p->env, c->net, p->number + 1, &fc, &p->env.fabric) == 0);
    p->alive = true;
    p->failed = false;
    p->up_at = p->doom_at = p->lose_at = UINT64_MAX;
    trace_point(c->trace, sim_world_now(c->world), "start", p->number, p->starts, fc.incarnation);
    if (p->kind == SIM_MDC)
        start_mdc(p);
    else if (p->kind == SIM_OSD || p->kind == SIM_SAN)
        start_module(p);
    else if (p->kind == SIM_GATEWAY)
        start_gateway(p);
    else if (p->kind == SIM_ADMIN)
        start_admin(p);
    else
        MUST(sim_client_create(p, &p->client) == 0);
}

/*
 * Where nothing rots, no unit that a disk's module reads fails its checksum: not even one that another copy
 * would make good. An agent that has lost its LUN may read what the other one writes there.
 */
static void units_check(struct sim_proc *p)
{
    struct sim_cluster *c = p->cluster;
    struct rwm_stats stats;
    if (!p->rwm || p->kind != SIM_OSD || c->rots > 0 || c->error[0])
        return;
    rwm_stats_get(p->rwm, &stats);
    if (stats.store.bad_units > 0)
        snprintf(c->error, sizeof(c->error),
                 "%s read %" PRIu64 " units with wrong checksums, and nothing rots", p->name,
                 stats.store.bad_units);
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
    if (p->admin)
        cluster_destroy(p->admin);
    if (p->device)
        device_destroy(p->device);
    if (p->log_device)
        device_destroy(p->log_device);
    fabric_destroy(p->env.fabric);
    loop_destroy(p->env.loop);
    p->client = NULL;
    p->gateway = NULL;
    p->rwm = NULL;
    p->host = NULL;
    p->mdc = NULL;
    p->device = p->log_device = NULL;
    p->admin = NULL;
    p->env = (struct env){0};
}

void sim_proc_kill(struct sim_proc *p, bool power)
{
    struct sim_cluster *c = p->cluster;
    MUST(p->alive);
    trace_point(c->trace, sim_world_now(c->world), power ? "power loss" : "kill", p->number, 0, 0);
    units_check(p);
    sim_loop_get_clock(p->env.loop, &p->clock);
    p->has_clock = !power; /* a machine that was without power counts anew */
    sim_loop_kill(p->env.loop);
    if (power)
        sim_net_host_down(c->net, p->number + 1);
    p->alive = p->paused = false;
    proc_free(p);
    /* An array does not share its hosts' power; with the other agent at work its sessions stay, too. */
    if (power && p->data && !(p->twin && p->twin->alive))
        sim_medium_crash(p->data, NULL);
    if (power && p->log)
        sim_medium_crash(p->log, NULL);
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
                 {SIM_SAN, SIM_AGENTS, "san"},
                 {SIM_GATEWAY, SIM_GATEWAYS, "vbs"},
                 {SIM_CLIENT, SIM_CLIENTS, "client"},
                 {SIM_ADMIN, 1, "admin"}};
    unsigned n = 0;
    for (unsigned k = 0; k < ARRAY_LEN(kinds); k++)
        for (unsigned i = 0; i < kinds[k].count; i++, n++) {
            struct sim_proc *p = &c->procs[n];
            p->cluster = c;
            p->kind = kinds[k].kind;
            p->number = n;
            p->up_at = p->doom_at = p->lose_at = UINT64_MAX;
            p->owner = p;
            snprintf(p->name, sizeof(p->name), "%s%u", kinds[k].name, i + 1);
            if (p->kind != SIM_OSD && p->kind != SIM_SAN)
                continue;
            if (p->kind == SIM_SAN && i > 0) {
                p->owner = p - i;
                p->twin = p->owner;
                p->owner->twin = p;
                p->data = p->owner->data;
                continue;
            }
            struct sim_medium_options options = {.kind =
                                                     p->kind == SIM_SAN ? SIM_MEDIUM_LUN : SIM_MEDIUM_DISK,
                                                 .name = p->name,
                                                 .size = c->shape.medium_bytes,
                                                 .io_bytes = rng_chance(&c->rng, 1, 2) ? 512 : 4096};
            p->data = sim_medium_create(c->world, &options);
            if (p->kind == SIM_OSD && (rng_chance(&c->rng, 1, 3) || c->shape.logs)) {
                options = (struct sim_medium_options){
                    .kind = SIM_MEDIUM_PMEM, .name = "log", .size = c->shape.journal_bytes + 64 * KIB};
                p->log = sim_medium_create(c->world, &options);
            }
        }
}

static void make_shape(struct sim_cluster *c)
{
    struct rng *r = &c->rng;
    struct sim_shape *s = &c->shape;
    *s = (struct sim_shape){.medium_bytes = 96 * MIB,
                            .journal_bytes = rng_chance(r, 2, 3) ? MIB : 4 * MIB,
                            .store_requests = 64,
                            .drift_ppm = 100};
    switch (rng_below(r, 4)) {
    case 0: /* holes alone fill more pages of metadata than there is memory for */
        s->medium_bytes = 192 * MIB;
        s->store_requests = 4;
        break;
    case 1:
        s->tight = true;
        s->medium_bytes = 6 * MIB + rng_below(r, 5) * MIB;
        break;
    default:
        break;
    }
    if (rng_chance(r, 1, 4))
        s->drift_ppm = 50000;
    s->shared_host = rng_chance(r, 1, 3);
    s->max_turns = rng_chance(r, 1, 4) ? 2 : 256;
    s->rewrite = rng_chance(r, 1, 2);
    s->rot = rng_chance(r, 1, 8) || c->options.rot;
    s->restores = rng_chance(r, 1, 4);
    s->fast_fail = c->options.copies > 1 && rng_chance(r, 1, 2);
    s->scrub_interval_ns = rng_chance(r, 1, 2) ? 200 * NS_PER_MS + rng_below(r, NS_PER_S) : 0;
    s->refresh_ns = rng_chance(r, 2, 3) ? 300 * NS_PER_MS : 5 * NS_PER_S;
    s->recent_max = rng_chance(r, 1, 4) ? 1 + (unsigned)rng_below(r, 8) : 2048;
    s->focus = rng_chance(r, 1, 2) ? 1 + (unsigned)rng_below(r, 4) : 0;
    s->calm = rng_chance(r, 1, 3) ? 1 : 2 + rng_below(r, 6);
    s->think_ns = rng_chance(r, 1, 2) ? 200 * NS_PER_US : 2 * NS_PER_MS;
    s->commit_ns = rng_chance(r, 3, 4) ? 300 * NS_PER_US : 3 * NS_PER_MS;
    s->theme = rng_chance(r, 2, 3) ? 1 + (unsigned)rng_below(r, 1000) : 0;
    s->resizes = !s->restores && rng_chance(r, 1, 4);
}

/* Some networks are worse than others. */
static void make_net(struct sim_cluster *c)
{
    struct sim_net_options o;
    sim_net_get_options(c->net, &o);
    if (c->options.no_faults || c->options.rot)
        return;
    if (rng_chance(&c->rng, 1, 3)) {
        o.spike_ns = rng_below(&c->rng, 2) ? 40 * NS_PER_MS : 400 * NS_PER_MS;
        o.spike_num = 1;
        o.spike_den = 500;
    }
    if (rng_chance(&c->rng, 1, 3)) {
        o.break_num = 1;
        o.break_den = 2000;
    }
    sim_net_set_options(c->net, &o);
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
    MUST(history_create(SIM_VOLUMES * SIM_SECTORS, &c->history) == 0);
    c->claims = calloc(SIM_VOLUMES * SIM_SECTORS, sizeof(*c->claims));
    MUST(c->claims);
    make_shape(c);
    sim_plot_choose(c);
    c->shape.directed = c->plot ? NULL : sim_directed_of(&c->options);
    if (c->shape.directed && c->shape.directed->shape)
        c->shape.directed->shape(&c->shape);
    MUST(meta_sim_create(rng_u64(&c->rng), c->shape.commit_ns, &c->meta) == 0);
    make_procs(c);
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].owner == &c->procs[i])
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
        if (c->procs[i].data && c->procs[i].owner == &c->procs[i])
            sim_medium_destroy(c->procs[i].data);
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].log)
            sim_medium_destroy(c->procs[i].log);
    sim_net_destroy(c->net);
    meta_sim_destroy(c->meta);
    if (c->backup)
        meta_sim_destroy(c->backup);
    history_destroy(c->history);
    sim_world_destroy(c->world);
    trace_set_current(NULL);
    trace_destroy(c->trace);
    free(c->setup);
    sim_admin_destroy(c);
    free(c->moves);
    sim_scenes_free(c);
    free(c->claims);
    free(c);
}

/* Starts again what is due, and what gave up. */
static void revive(struct sim_cluster *c)
{
    uint64_t now = sim_world_now(c->world);
    sim_scenes_step(c);
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        struct sim_proc *p = &c->procs[i];
        if (p->alive && p->failed) {
            /* Nobody else ever has the disk of an OSD here; a LUN has two agents. */
            if (p->data && !p->twin && !c->error[0] && strstr(p->failure, "is served by another process"))
                snprintf(c->error, sizeof(c->error), "%s took itself for superseded: %.200s", p->name,
                         p->failure);
            sim_proc_kill(p, false);
            /* of two agents the one that lost the LUN stays away */
            p->up_at = p->twin && (p->twin->alive || p->twin->up_at != UINT64_MAX) ? UINT64_MAX
                                                                                   : now + 100 * NS_PER_MS;
        }
        if (p->alive && p->doom_at <= now) {
            bool power = p->data && rng_chance(&c->rng, 1, 2);
            c->kills++;
            c->power_losses += power;
            sim_proc_kill(p, power);
            p->up_at = now + rng_below(&c->rng, 50 * NS_PER_MS);
        }
        if (p->alive && p->lose_at <= now) {
            p->lose_at = UINT64_MAX;
            sim_net_lose(c->net, p->number + 1);
        }
        if (!p->alive && p->up_at <= now) {
            c->restarts++;
            sim_proc_start(p);
            sim_faults_started(p);
        }
        if (p->alive && p->paused && p->resume_at <= now)
            sim_proc_resume(p);
    }
}

static bool advance(struct sim_cluster *c, uint64_t ns)
{
    uint64_t end = sim_world_now(c->world) + ns;
    for (;;) {
        uint64_t next = min_u64(end, sim_scenes_due(c));
        for (unsigned i = 0; i < SIM_PROCS; i++) {
            const struct sim_proc *p = &c->procs[i];
            uint64_t due =
                !p->alive ? p->up_at
                          : min_u64(min_u64(p->doom_at, p->lose_at), p->paused ? p->resume_at : UINT64_MAX);
            next = min_u64(next, max_u64(due, sim_world_now(c->world)));
        }
        sim_world_run_until(c->world, next);
        revive(c);
        if (next == end)
            break;
    }
    return c->error[0] == 0;
}

static bool clients_idle(const struct sim_cluster *c)
{
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].client && !sim_client_idle(c->procs[i].client))
            return false;
    return true;
}

bool sim_advance(struct sim_cluster *c, uint64_t ns)
{
    return advance(c, ns);
}

/* Up to limit_ns for the clients to come to rest. */
static bool settle(struct sim_cluster *c, uint64_t limit_ns)
{
    for (uint64_t ns = 0; ns < limit_ns; ns += 20 * NS_PER_MS)
        if (!advance(c, 20 * NS_PER_MS) || clients_idle(c))
            return c->error[0] == 0;
    return false;
}

/* Until every member of every partition is in sync. */
static bool settle_copies(struct sim_cluster *c, uint64_t limit_ns)
{
    for (uint64_t ns = 0; ns < limit_ns; ns += 20 * NS_PER_MS) {
        uint64_t missing = 0;
        for (unsigned i = 0; i < SIM_PROCS; i++) {
            struct rwm_stats stats;
            if (!c->procs[i].rwm)
                continue;
            rwm_stats_get(c->procs[i].rwm, &stats);
            missing += stats.copies_missing + stats.partitions_waiting + stats.leaving_blocks;
        }
        if (missing == 0)
            return true;
        if (!advance(c, 20 * NS_PER_MS))
            return false;
    }
    return false;
}

/* Every module looks through its data once more; then nothing may differ. False: it took too long. */
static bool scrub_all(struct sim_cluster *c, uint64_t limit_ns)
{
    if (!advance(c, NS_PER_S))
        return false;
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].rwm)
            rwm_scrub_order(c->procs[i].rwm, loop_wall_ns(c->procs[i].env.loop) + 3600 * NS_PER_S);
    for (uint64_t ns = 0; ns < limit_ns; ns += 20 * NS_PER_MS) {
        bool running = ns < 3 * NS_PER_S;
        if (!advance(c, 20 * NS_PER_MS))
            return false;
        for (unsigned i = 0; i < SIM_PROCS; i++) {
            struct rwm_stats stats = {0};
            const struct sim_proc *p = &c->procs[i];
            if (!p->rwm || (p->twin && p->twin->alive))
                continue;
            rwm_stats_get(p->rwm, &stats);
            running |= stats.scrub.running;
            if (stats.differing_blocks > 0 && !c->error[0])
                snprintf(c->error, sizeof(c->error),
                         "%s found %" PRIu64 " blocks of which copies in sync differ", p->name,
                         stats.differing_blocks);
        }
        if (!running)
            return c->error[0] == 0;
    }
    return false;
}

static enum sim_result stuck(struct sim_cluster *c, const char *when, char *why, size_t cap)
{
    sim_explain_stuck(c, when, why, cap);
    return SIM_STUCK;
}

static bool in_use(const struct sim_cluster *c)
{
    for (unsigned i = 0; i < SIM_PROCS; i++) {
        struct rwm_stats stats;
        if (!c->procs[i].rwm)
            continue;
        rwm_stats_get(c->procs[i].rwm, &stats);
        if (stats.serving && stats.store.used_bytes)
            return true;
    }
    return false;
}

/* What was discarded takes no space any more, whatever happened before. */
static enum sim_result space_check(struct sim_cluster *c, char *why, size_t cap)
{
    uint64_t used = 0;
    sim_client_clear_all(sim_cluster_proc(c, SIM_CLIENT, 0)->client);
    if (!settle(c, c->options.settle_ns) && !c->error[0])
        return stuck(c, "the discard of everything did not end", why, cap);
    for (unsigned i = 0; i < 100 && in_use(c); i++) /* what shrinks left is removed in the background */
        if (!sim_advance(c, 20 * NS_PER_MS))
            break;
    if (!c->error[0] && !settle_copies(c, c->options.settle_ns) && !c->error[0])
        return stuck(c, "copies did not come in sync although all faults are gone", why, cap);
    for (unsigned i = 0; i < SIM_PROCS && !c->error[0]; i++) {
        struct rwm_stats stats;
        const struct sim_proc *twin = c->procs[i].twin;
        if (!c->procs[i].rwm ||
            (twin && twin->alive)) /* one of two agents may not know that it lost the LUN */
            continue;
        rwm_stats_get(c->procs[i].rwm, &stats);
        if (c->options.moves && stats.pool == 0) /* taken out while it was away: it keeps what it had */
            continue;
        if (stats.serving && stats.store.used_bytes)
            snprintf(c->error, sizeof(c->error),
                     "%s: %" PRIu64 " bytes are in use although all was discarded", c->procs[i].name,
                     stats.store.used_bytes);
        used += stats.store.used_bytes;
        c->repaired += stats.repaired_units;
        c->misses += stats.store.cache_misses;
    }
    if (c->error[0])
        snprintf(why, cap, "%s (%" PRIu64 " in all)", c->error, used);
    return c->error[0] ? SIM_WRONG : SIM_OK;
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
    if (c->plot)
        sim_plot_play(c);
    else
        make_net(c);
    end = sim_world_now(c->world) + c->options.run_ns;
    while (!c->plot && sim_world_now(c->world) < end && !c->error[0]) {
        if (!c->options.no_faults)
            sim_faults_step(c);
        sim_admin_step(c);
        sim_moves_step(c);
        advance(c, (1 + rng_below(&c->rng, 100 * c->shape.calm)) * NS_PER_MS);
    }
    if (!c->options.no_faults && !c->options.rot && !c->plot && rng_chance(&c->rng, 1, 2))
        sim_scene_last(c);
    c->faults_over = true;
    sim_scenes_end(c);
    sim_faults_heal(c);
    revive(c);
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].client)
            sim_client_drain(c->procs[i].client);
    if (!c->error[0] && !settle(c, c->options.settle_ns) && !c->error[0])
        return stuck(c, "requests did not end although all faults are gone", why, cap);
    sim_client_read_all(sim_cluster_proc(c, SIM_CLIENT, 0)->client);
    if (!c->error[0] && !settle(c, c->options.settle_ns) && !c->error[0])
        return stuck(c, "the last read of everything did not end", why, cap);
    if (c->error[0]) {
        snprintf(why, cap, "%s", c->error);
        return SIM_WRONG;
    }
    if (history_check(c->history, why, cap))
        return SIM_WRONG;
    if (!scrub_all(c, c->options.settle_ns) && !c->error[0])
        return stuck(c, "the scrub did not end", why, cap);
    (void)settle_copies(c, 2 * NS_PER_S); /* where a medium is full some may have to wait for the discards */
    for (unsigned i = 0; i < SIM_PROCS; i++)
        units_check(&c->procs[i]);
    if (!c->error[0] && !sim_copies_check(c, why, cap)) {
        if (c->error[0])
            snprintf(why, cap, "%s", c->error);
        return SIM_WRONG;
    }
    bool nap = !c->options.no_faults && !c->options.rot && rng_chance(&c->rng, 1, 4);
    if (c->shape.directed && c->shape.directed->rest) {
        c->shape.directed->rest(c);
        nap = true;
    }
    if (nap && !sim_scene_nap(c)) {
        snprintf(why, cap, "the controller stood still, and took others for dead afterwards");
        return SIM_WRONG;
    }
    return space_check(c, why, cap);
}
