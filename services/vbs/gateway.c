/* The gateway: its life, its clients, its heartbeat. See gateway.h. */
#include <stdlib.h>
#include <string.h>

#include "services/vbs/gateway_internal.h"
#include "services/vbs/gateway_metrics.h"

#define MEMORY_DEFAULT    (64 * MIB)
#define HEARTBEAT_NS      (1 * NS_PER_S)
#define HEARTBEAT_CALL_NS (2 * NS_PER_S)
enum { REQUESTS_DEFAULT = 1024, OPEN_SHARE = 4 };

void gateway_config_default(struct gateway_config *config)
{
    memset(config, 0, sizeof *config);
    volume_core_config_default(&config->core);
    config->memory_bytes = MEMORY_DEFAULT;
    config->requests_max = REQUESTS_DEFAULT;
}

/* ---- clients ---- */

static void on_client_up(void *service, struct rpc_peer *peer)
{
    struct gateway *gw = service;
    struct gateway_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        rpc_close(peer);
        return;
    }
    client->gw = gw;
    client->peer = peer;
    list_init(&client->opens);
    list_init(&client->all);
    list_push_back(&gw->clients, &client->all);
    rpc_peer_set_user(peer, client);
    gw->stats.clients++;
}

void gateway_client_rest(struct gateway_client *client)
{
    if (client->peer != NULL || !list_empty(&client->opens))
        return;
    list_remove(&client->all);
    free(client);
}

static void on_client_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct gateway *gw = service;
    struct gateway_client *client = rpc_peer_user(peer);
    (void)reason;
    if (client == NULL)
        return;
    rpc_peer_set_user(peer, NULL);
    client->peer = NULL;
    gw->stats.clients--;
    /* An end may take its open out of the list at once, never another one. */
    list_for_each_safe(n, &client->opens) gateway_open_end(list_entry(n, struct gateway_open, link));
    gateway_client_rest(client);
}

static void on_figures(void *service, struct metrics_snapshot *out)
{
    gateway_metrics(service, out);
}

/* In order of their numbers: vbs.def. */
static const struct rpc_method gateway_methods[] = {
    {VBS_METHOD_OPEN, "OPEN", gateway_handle_open, 1},
    {VBS_METHOD_CLOSE, "CLOSE", gateway_handle_close, sizeof(struct vbs_io)},
    {VBS_METHOD_READ, "READ", gateway_handle_read, sizeof(struct vbs_io)},
    {VBS_METHOD_WRITE, "WRITE", gateway_handle_write, sizeof(struct vbs_io)},
    {VBS_METHOD_DISCARD, "DISCARD", gateway_handle_discard, sizeof(struct vbs_io)},
    {VBS_METHOD_ZERO, "ZERO", gateway_handle_zero, sizeof(struct vbs_io)},
    {VBS_METHOD_FLUSH, "FLUSH", gateway_handle_flush, sizeof(struct vbs_io)},
    {VBS_METHOD_EXTENTS, "EXTENTS", gateway_handle_extents, sizeof(struct vbs_io)},
};
static const struct rpc_events gateway_rpc_events = {.up = on_client_up, .down = on_client_down};

/* ---- heartbeat ---- */

static void on_heartbeat_done(struct cluster_call *call, int rc)
{
    struct gateway *gw = container_of(call, struct gateway, heartbeat_call);
    (void)rc;
    gw->heartbeat_busy = false;
}

static void on_heartbeat(struct loop_timer *t)
{
    struct gateway *gw = container_of(t, struct gateway, heartbeat);
    struct cluster *cluster = volume_core_cluster(gw->core);
    loop_timer_arm(gw->env->loop, t, HEARTBEAT_NS);
    if (gw->heartbeat_busy || !cluster_session_is_up(cluster))
        return;
    struct mdc_gateway_heartbeat_request *r = &gw->heartbeat_request;
    struct fabric_addr addr;
    rpc_listener_addr(gw->listener, &addr);
    memset(r, 0, sizeof *r);
    memcpy(r->addr, &addr, sizeof r->addr);
    r->clients = (uint32_t)gw->stats.clients;
    r->volumes = (uint32_t)gw->stats.volumes;
    r->reads = gw->stats.reads;
    r->writes = gw->stats.writes;
    r->read_bytes = gw->stats.read_bytes;
    r->write_bytes = gw->stats.write_bytes;
    const struct table *table = cluster_table(cluster);
    r->table_version = table != NULL ? table_head(table)->version : 0;
    memset(&gw->heartbeat_call, 0, sizeof gw->heartbeat_call);
    gw->heartbeat_call.method = MDC_METHOD_GATEWAY_HEARTBEAT;
    gw->heartbeat_call.request_type = &mdc_gateway_heartbeat_request_type;
    gw->heartbeat_call.reply_type = &mdc_empty_type;
    gw->heartbeat_call.request = r;
    gw->heartbeat_call.reply = &gw->heartbeat_reply;
    gw->heartbeat_call.timeout_ns = HEARTBEAT_CALL_NS;
    gw->heartbeat_call.done = on_heartbeat_done;
    gw->heartbeat_busy = cluster_call_start(cluster, &gw->heartbeat_call) == 0;
}

/* ---- life ---- */

static int gateway_create_pools(struct gateway *gw)
{
    size_t chunks = (size_t)(gw->config.memory_bytes / GATEWAY_CHUNK_BYTES);
    if (chunks < OPEN_SHARE * GATEWAY_CHUNKS_PER_IO)
        chunks = OPEN_SHARE * GATEWAY_CHUNKS_PER_IO;
    gw->chunks_per_open = (unsigned)(chunks / OPEN_SHARE);
    /* Twice: a read's object lives on after its reply, until the payload has left. */
    int rc = pool_create(NULL, "gateway requests", sizeof(struct gateway_request), 64,
                         2 * (size_t)gw->config.requests_max, &gw->requests);
    if (rc == 0)
        rc = pool_create(NULL, "gateway chunks", GATEWAY_CHUNK_BYTES, UNIT_BYTES, chunks, &gw->chunks);
    if (rc != 0)
        return rc;
    void *base;
    size_t len;
    pool_memory(gw->chunks, &base, &len);
    return fabric_mem_register(gw->env->fabric, FABRIC_DOMAIN_HOST, base, len, FABRIC_ACCESS_LOCAL, &gw->mem);
}

int gateway_create(struct env *env, const struct gateway_config *config, struct gateway **out)
{
    struct gateway *gw = calloc(1, sizeof *gw);
    if (gw == NULL)
        return -ENOMEM;
    gw->env = env;
    gw->config = *config;
    if (gw->config.memory_bytes == 0)
        gw->config.memory_bytes = MEMORY_DEFAULT;
    if (gw->config.requests_max == 0)
        gw->config.requests_max = REQUESTS_DEFAULT;
    list_init(&gw->clients);
    list_init(&gw->waiting);
    loop_timer_init(&gw->heartbeat, on_heartbeat);
    struct rpc_service service = {
        .methods = gateway_methods,
        .method_count = ARRAY_LEN(gateway_methods),
        .events = &gateway_rpc_events,
        .service = gw,
        .max_requests = gw->config.requests_max,
        .figures = on_figures,
    };
    int rc = gateway_create_pools(gw);
    if (rc == 0)
        rc = volume_core_create(env, &gw->config.core, &gw->core);
    if (rc == 0)
        rc = rpc_listen(env, &gw->config.listen, &service, 1u << FABRIC_ROLE_CLIENT | 1u << FABRIC_ROLE_ADMIN,
                        &gw->listener);
    if (rc != 0) {
        gateway_destroy(gw);
        return rc;
    }
    loop_timer_arm(env->loop, &gw->heartbeat, 0);
    *out = gw;
    return 0;
}

void gateway_destroy(struct gateway *gw)
{
    if (gw == NULL)
        return;
    loop_timer_cancel(gw->env->loop, &gw->heartbeat);
    if (gw->listener != NULL)
        rpc_listener_destroy(gw->listener, true);
    volume_core_destroy(gw->core); /* with all volumes, and the heartbeat's call */
    for (struct list *n; (n = list_pop_front(&gw->clients)) != NULL;) {
        struct gateway_client *client = list_entry(n, struct gateway_client, all);
        for (struct list *m; (m = list_pop_front(&client->opens)) != NULL;)
            free(list_entry(m, struct gateway_open, link));
        free(client);
    }
    if (gw->mem != NULL)
        fabric_mem_unregister(gw->mem);
    if (gw->chunks != NULL)
        pool_destroy(gw->chunks, true);
    if (gw->requests != NULL)
        pool_destroy(gw->requests, true);
    free(gw);
}

void gateway_addr(const struct gateway *gw, struct fabric_addr *out)
{
    rpc_listener_addr(gw->listener, out);
}

bool gateway_is_ready(const struct gateway *gw)
{
    return cluster_table(volume_core_cluster(gw->core)) != NULL;
}

void gateway_stats_get(const struct gateway *gw, struct gateway_stats *out)
{
    *out = gw->stats;
    out->requests_active = pool_total(gw->requests) - pool_free_count(gw->requests);
    out->requests_waiting = 0;
    for (const struct list *n = gw->waiting.next; n != &gw->waiting; n = n->next)
        out->requests_waiting++;
    out->chunks_free = pool_free_count(gw->chunks);
    out->chunks_total = pool_total(gw->chunks);
}
