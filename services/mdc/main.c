/* main.c: cistern-mdc: the metadata controller as a program: one shard on the real loop, tcp, a store in
 * LMDB. */
#include "common/config.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics_http.h"
#include "common/rng.h"
#include "common/service_main.h"
#include "common/trace.h"
#include "rdma/fabric_target.h"
#include "services/mdc/mdc.h"
#include "services/mdc/mdc_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct service_options service;
    char *listen, *data_dir, *secret_file, *cluster;
    uint64_t heartbeat_ns, confirm_timeout_ns, meta_bytes;
    uint64_t moves, moves_per_module, replace_after_ns, rest_ns;
    uint64_t max_pools, max_modules, max_partitions, max_volumes, max_attachments;
    bool trust_store, restored_store;
};
/* clang-format off */
#define AT(field) offsetof(struct options, field)
static const struct config_option option_table[] = {
    {"listen", CONFIG_STRING, AT(listen), "tcp:127.0.0.1:7100", 0, 0, false, "ADDR", "address to serve on: tcp:IP:PORT or rdma:IP:PORT, or NETWORK/BITS for the IP: this host's address there; port 0 picks one"},
    {"data-dir", CONFIG_STRING, AT(data_dir), NULL, 0, 0, true, "DIR", "directory of the metadata store; made when it is not there"},
    {"secret-file", CONFIG_STRING, AT(secret_file), NULL, 0, 0, true, "FILE", "file with the cluster's secret, at least 16 bytes"},
    {"cluster", CONFIG_STRING, AT(cluster), NULL, 0, 0, false, "ID", "cluster id (32 hex digits): checked against the store; a new store gets it, or a random one"},
    {"heartbeat", CONFIG_DURATION, AT(heartbeat_ns), "250ms", 10 * NS_PER_MS, 60 * NS_PER_S, false, "TIME", "how often modules and gateways tell that they live; silent for 5 of them is down"},
    {"confirm-timeout", CONFIG_DURATION, AT(confirm_timeout_ns), "8s", 10 * NS_PER_MS, 600 * NS_PER_S, false, "TIME", "how long a detach waits for the modules to confirm it"},
    {"moves", CONFIG_UINT, AT(moves), "16", 1, 4096, false, "N", "copies of a pool's partitions that may be on their way to other modules at once"},
    {"moves-per-module", CONFIG_UINT, AT(moves_per_module), "2", 1, 256, false, "N", "of them, how many one module may send or take at once"},
    {"replace-after", CONFIG_DURATION, AT(replace_after_ns), "10m", NS_PER_S, 365 * 24 * 3600 * NS_PER_S, false, "TIME", "a module that is away for longer has its copies made elsewhere"},
    {"rest-before-spread", CONFIG_DURATION, AT(rest_ns), "10s", 100 * NS_PER_MS, 24 * 3600 * NS_PER_S, false, "TIME", "how long nothing moves in a pool before primaries are spread over its modules"},
    {"meta-size", CONFIG_SIZE, AT(meta_bytes), "1G", MIB, 64 * GIB, false, "BYTES", "most bytes of the metadata store's file"},
    {"max-pools", CONFIG_UINT, AT(max_pools), "64", 1, 4096, false, "N", "most pools"},
    {"max-modules", CONFIG_UINT, AT(max_modules), "1024", 1, 65536, false, "N", "most modules"},
    {"max-partitions", CONFIG_UINT, AT(max_partitions), "32768", 64, 1048576, false, "N", "most partitions of all pools"},
    {"max-volumes", CONFIG_UINT, AT(max_volumes), "8192", 1, 1048576, false, "N", "most volumes"},
    {"max-attachments", CONFIG_UINT, AT(max_attachments), "65536", 1, 1048576, false, "N", "most attachments"},
    {"trust-store", CONFIG_BOOL, AT(trust_store), NULL, 0, 0, false, NULL, "wait for no module that might know more than this store: only when the store is the latest, or a module that knows more is gone for good"},
    {"restored-store", CONFIG_BOOL, AT(restored_store), NULL, 0, 0, false, NULL, "the store was put back from a copy: nothing that it may be wrong about is decided before the modules have told what they know; for the first start after it"},
    SERVICE_OPTIONS(struct options, service),
    {.name = NULL},
};
/* clang-format on */
static const struct config_spec spec = {
    .program = "cistern-mdc",
    .summary =
        "The metadata controller of a Cistern cluster: it knows modules, pools and volumes, and publishes the "
        "tables\nthat gateways and modules work by.",
    .options = option_table,
};

struct process {
    struct loop *loop;
    struct rng rng;
    struct trace *trace;
    struct env env;
    struct meta_store *meta;
    struct fabric *fabric;
    struct mdc *mdc;
    struct metrics_http *metrics;
    int failed;
};

static void store_failed(void *user, int rc)
{
    struct process *p = user;
    p->failed = rc;
    loop_stop(p->loop);
}

/* The store's cluster id; a new store's is the option's, or random. */
static int choose_cluster(struct process *p, const struct options *o, struct uuid *out)
{
    struct uuid asked = {{0}};
    if (o->cluster != NULL && o->cluster[0] != 0 && uuid_parse(o->cluster, &asked) != 0) {
        log_error(&p->env, "cannot start: the cluster id is not 32 hex digits", "cluster=%s", o->cluster);
        return -EINVAL;
    }
    int rc = mdc_store_cluster(p->meta, out);
    if (rc == -ENOENT) {
        *out = uuid_is_zero(&asked) ? rng_uuid(&p->rng) : asked;
        return 0;
    }
    if (rc != 0) {
        log_error(&p->env, "cannot start: the metadata store is damaged, or is not one of this program",
                  "data-dir=%s error=%d (%s)", o->data_dir, rc, strerror(-rc));
        return rc;
    }
    if (!uuid_is_zero(&asked) && !uuid_eq(&asked, out)) {
        log_error(&p->env, "cannot start: the metadata store belongs to another cluster",
                  "data-dir=%s cluster=%s", o->data_dir, o->cluster);
        return -EMEDIUMTYPE;
    }
    return 0;
}

static int make_endpoint(struct process *p, const struct options *o, const struct fabric_config *config)
{
    int rc = fabric_create(&p->env, config->local.provider, config, &p->fabric);
    if (rc == 0)
        p->env.fabric = p->fabric;
    else
        log_error(&p->env, "cannot start: no network of the kind of listen", "listen=%s error=\"%s\"",
                  o->listen, strerror(-rc));
    return rc;
}

static int make_fabric(struct process *p, const struct options *o, const struct uuid *cluster)
{
    struct fabric_config config = {
        .cluster = *cluster, .role = FABRIC_ROLE_MDC, .incarnation = rng_u64(&p->rng)};
    int rc = fabric_listen_parse(o->listen, &config.local);
    if (rc != 0) {
        log_error(&p->env, "cannot start: no address to listen on", "listen=%s why=\"%s\"", o->listen,
                  fabric_listen_error(rc));
        return rc;
    }
    rc = config_read_cluster_secret(o->secret_file, config.secret, sizeof(config.secret), &config.secret_len);
    if (rc != 0)
        log_error(&p->env, "cannot start: the secret cannot be used", "secret-file=%s why=\"%s\"",
                  o->secret_file, config_secret_error(rc));
    if (rc == 0)
        rc = make_endpoint(p, o, &config);
    explicit_bzero(config.secret, sizeof(config.secret));
    return rc;
}

static int make_mdc(struct process *p, const struct options *o, const struct uuid *cluster)
{
    struct mdc_config config = {
        .cluster = *cluster,
        .limits = {.pools = (uint32_t)o->max_pools,
                   .modules = (uint32_t)o->max_modules,
                   .partitions = (uint32_t)o->max_partitions,
                   .volumes = (uint32_t)o->max_volumes},
        .attachments = (uint32_t)o->max_attachments,
        .heartbeat_ms = (uint32_t)(o->heartbeat_ns / NS_PER_MS),
        .confirm_timeout_ns = o->confirm_timeout_ns,
        .trust_store = o->trust_store,
        .moves_total = (uint32_t)o->moves,
        .moves_per_module = (uint32_t)o->moves_per_module,
        .replace_after_ns = o->replace_after_ns,
        .rest_ns = o->rest_ns,
        .restored_store = o->restored_store,
        .meta = p->meta,
        .failed = store_failed,
        .user = p,
    };
    int rc = fabric_listen_parse(o->listen, &config.listen);
    if (rc != 0) {
        log_error(&p->env, "cannot start: no address to listen on", "listen=%s why=\"%s\"", o->listen,
                  fabric_listen_error(rc));
        return rc;
    }
    rc = mdc_create(&p->env, &config, &p->mdc);
    if (rc == 0)
        p->meta = NULL; /* the mdc's */
    return rc;
}

static void collect(void *user, struct metrics_snapshot *out)
{
    struct process *p = user;
    mdc_collect(p->mdc, out);
}

static int start_metrics(struct process *p, const struct options *o)
{
    const struct metrics_http_config config = {
        .addr = o->service.metrics, .service = "cistern-mdc", .collect = collect, .user = p};
    return config.addr != NULL && config.addr[0] != '\0' ? metrics_http_start(&p->env, &config, &p->metrics)
                                                         : 0;
}

static int start(struct process *p, const struct options *o)
{
    struct uuid cluster;
    struct meta_lmdb_config meta = {.dir = o->data_dir, .map_bytes = o->meta_bytes};
    int rc = meta_lmdb_open(&p->env, &meta, &p->meta);
    if (rc == 0)
        rc = choose_cluster(p, o, &cluster);
    if (rc == 0)
        rc = make_fabric(p, o, &cluster);
    if (rc == 0)
        rc = make_mdc(p, o, &cluster);
    if (rc == 0)
        rc = start_metrics(p, o);
    return rc;
}

static void tell_ready(struct process *p, struct service_main *sm)
{
    struct fabric_addr addr;
    char text[64], id[33], line[160];
    struct uuid cluster = mdc_cluster(p->mdc);
    mdc_addr(p->mdc, &addr);
    uuid_format(&cluster, id);
    snprintf(line, sizeof(line), "listen=%s cluster=%s", fabric_addr_format(&addr, text), id);
    log_info(&p->env, "listening", "%s", line);
    (void)service_main_ready(sm, line); /* it logged what went wrong; serving goes on */
}

static void end(struct process *p)
{
    metrics_http_stop(p->metrics);
    if (p->mdc != NULL)
        mdc_destroy(p->mdc);
    if (p->meta != NULL)
        meta_close(p->meta);
    if (p->fabric != NULL)
        fabric_destroy(p->fabric);
    trace_destroy(p->trace);
}

static int run(const struct options *o)
{
    struct process p = {0};
    struct service_main sm;
    int rc = loop_create_real(NULL, &p.loop);
    if (rc != 0)
        return rc;
    rng_init_system(&p.rng);
    if (trace_create(4096, &p.trace) == 0)
        trace_set_current(p.trace);
    p.env = (struct env){.loop = p.loop, .rng = &p.rng, .trace = p.trace, .name = "mdc"};
    rc = service_main_start(&sm, p.loop, &o->service);
    if (rc == 0)
        rc = start(&p, o);
    if (rc == 0) {
        tell_ready(&p, &sm);
        loop_run(p.loop);
        service_main_stopping(&sm);
        rc = p.failed;
    }
    trace_set_current(NULL);
    end(&p);
    service_main_end(&sm);
    loop_destroy(p.loop);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o;
    memset(&o, 0, sizeof(o));
    int rc = config_parse(&spec, argc, argv, &o);
    if (rc != 0)
        return rc == 1 ? 0 : 2;
    rc = run(&o);
    config_free(&spec, &o);
    return rc == 0 ? 0 : 1;
}
