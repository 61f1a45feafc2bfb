/* cistern-vbs: the gateway daemon. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "common/metrics_http.h"
#include "common/rng.h"
#include "common/service_main.h"
#include "common/trace.h"
#include "services/vbs/addr_list.h"
#include "services/vbs/gateway.h"
#include "services/vbs/gateway_metrics.h"

#define READY_POLL_NS (20 * NS_PER_MS)

struct vbs_options {
    char *listen, *mdc, *secret_file, *host, *name;
    uint64_t memory, spin;
    struct service_options service;
};
/* clang-format off */
#define VBS_STRING(name, field, def, required, value, help) \
    {name, CONFIG_STRING, offsetof(struct vbs_options, field), def, 0, 0, required, value, help}
static const struct config_option vbs_config[] = {
    VBS_STRING("listen", listen, "tcp:127.0.0.1:7200", false, "ADDR", "where clients connect; NETWORK/BITS for the IP: this host's address there; port 0 picks one"),
    VBS_STRING("mdc", mdc, NULL, true, "ADDR,...", "metadata controllers; the name of a host for the IP is asked for at each connect"),
    VBS_STRING("secret-file", secret_file, NULL, true, "FILE", "the cluster's shared secret"),
    VBS_STRING("host", host, NULL, false, "NAME", "name of this host; default: gethostname(2)"),
    VBS_STRING("name", name, "vbs", false, "NAME", "name of this gateway in logs and lists"),
    {"memory", CONFIG_SIZE, offsetof(struct vbs_options, memory), "64M", 4 * MIB, 64 * GIB, false, "SIZE", "payload buffers"},
    {"spin", CONFIG_DURATION, offsetof(struct vbs_options, spin), "0us", 0, 0, false, "TIME",
     "poll this long after the last event before sleeping"},
    SERVICE_OPTIONS(struct vbs_options, service),
    {NULL, CONFIG_STRING, 0, NULL, 0, 0, false, NULL, NULL},
};
/* clang-format on */
static const struct config_spec vbs_spec = {
    .program = "cistern-vbs",
    .summary =
        "Virtual block service: serves volumes to hosts that do not keep the cluster's tables themselves.",
    .options = vbs_config,
};

struct vbs_process {
    struct vbs_options options;
    struct env env;
    struct rng rng;
    struct fabric_config fabric_config;
    struct gateway_config gateway_config;
    struct gateway *gateway;
    struct service_main main;
    struct loop_timer ready_timer;
    struct metrics_http *metrics;
};

static int copy_name(char *out, const char *text, const char *what)
{
    if (text == NULL || strlen(text) >= MDC_NAME_MAX || !mdc_name_valid(text)) {
        log_error(NULL, "cannot start: names are 1 to 63 letters, digits, dots, dashes and underscores",
                  "%s=\"%s\"", what, text != NULL ? text : "");
        return -EINVAL;
    }
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int vbs_configure(struct vbs_process *p)
{
    struct vbs_options *o = &p->options;
    struct gateway_config *g = &p->gateway_config;
    struct cluster_config *c = &g->core.cluster;
    char host[256] = "";
    gateway_config_default(g);
    int rc = fabric_listen_parse(o->listen, &g->listen);
    if (rc != 0) {
        log_error(NULL, "cannot start: no address to listen on", "listen=%s why=\"%s\"", o->listen,
                  fabric_listen_error(rc));
        return rc;
    }
    rc = addr_list_parse(o->mdc, c->mdc, c->mdc_host, CLUSTER_MDCS_MAX, &c->mdc_count);
    if (rc != 0 || c->mdc[0].provider != g->listen.provider) {
        log_error(NULL,
                  "cannot start: not a list of addresses like tcp:127.0.0.1:7100, of the kind of listen",
                  "mdc=%s listen=%s", o->mdc, o->listen);
        return -EINVAL;
    }
    if (o->host == NULL || o->host[0] == 0) {
        if (gethostname(host, sizeof host - 1) != 0)
            return -errno;
    } else {
        snprintf(host, sizeof host, "%s", o->host);
    }
    rc = copy_name(c->host, host, "host");
    if (rc == 0)
        rc = copy_name(c->name, o->name, "name");
    if (rc != 0)
        return rc;
    c->role = FABRIC_ROLE_VBS;
    c->instance = rng_u64(&p->rng) | 1;
    g->memory_bytes = o->memory;
    p->fabric_config.role = FABRIC_ROLE_VBS;
    p->fabric_config.local = g->listen;
    p->fabric_config.incarnation = c->instance;
    rc = config_read_cluster_secret(o->secret_file, p->fabric_config.secret, sizeof p->fabric_config.secret,
                                    &p->fabric_config.secret_len);
    if (rc != 0)
        log_error(NULL, "cannot start: the secret cannot be used", "secret-file=%s why=\"%s\"",
                  o->secret_file, config_secret_error(rc));
    return rc;
}

/* An open can succeed from here on. */
static void on_ready_timer(struct loop_timer *t)
{
    struct vbs_process *p = container_of(t, struct vbs_process, ready_timer);
    if (!gateway_is_ready(p->gateway)) {
        loop_timer_arm(p->env.loop, t, READY_POLL_NS);
        return;
    }
    struct fabric_addr addr;
    char text[64], detail[96];
    gateway_addr(p->gateway, &addr);
    snprintf(detail, sizeof detail, "listen=%s", fabric_addr_format(&addr, text));
    log_info(&p->env, "serving", "%s", detail);
    (void)service_main_ready(&p->main, detail);
}

static void collect(void *user, struct metrics_snapshot *out)
{
    struct vbs_process *p = user;
    gateway_collect(p->gateway, out);
}

static int start_metrics(struct vbs_process *p)
{
    const char *addr = p->options.service.metrics;
    const struct metrics_http_config config = {
        .addr = addr, .service = "cistern-vbs", .collect = collect, .user = p};
    return addr != NULL && addr[0] != '\0' ? metrics_http_start(&p->env, &config, &p->metrics) : 0;
}

static int vbs_run(struct vbs_process *p)
{
    struct loop_options loop_options = {.spin_ns = p->options.spin};
    int rc = loop_create_real(&loop_options, &p->env.loop);
    if (rc != 0)
        return rc;
    p->env.rng = &p->rng;
    p->env.resolver = &resolve_system;
    p->env.name = p->options.name;
    (void)trace_create(4096, &p->env.trace);
    trace_set_current(p->env.trace);
    rc = service_main_start(&p->main, p->env.loop, &p->options.service);
    if (rc == 0)
        rc =
            addr_fabric_create(&p->env, p->gateway_config.listen.provider, &p->fabric_config, &p->env.fabric);
    if (rc == 0)
        rc = gateway_create(&p->env, &p->gateway_config, &p->gateway);
    if (rc == 0)
        rc = start_metrics(p);
    if (rc == 0) {
        loop_timer_init(&p->ready_timer, on_ready_timer);
        loop_timer_arm(p->env.loop, &p->ready_timer, 0);
        log_info(&p->env, "gateway started", "listen=%s mdc=%s", p->options.listen, p->options.mdc);
        loop_run(p->env.loop);
        service_main_stopping(&p->main);
        loop_timer_cancel(p->env.loop, &p->ready_timer);
    } else {
        log_error(&p->env, "cannot start: cannot listen, or no memory", "listen=%s error=\"%s\"",
                  p->options.listen, strerror(-rc));
    }
    metrics_http_stop(p->metrics);
    gateway_destroy(p->gateway);
    if (p->env.fabric != NULL)
        fabric_destroy(p->env.fabric);
    service_main_end(&p->main);
    loop_destroy(p->env.loop);
    trace_set_current(NULL);
    trace_destroy(p->env.trace);
    return rc;
}

int main(int argc, char **argv)
{
    struct vbs_process *p = calloc(1, sizeof *p);
    if (p == NULL)
        return 1;
    p->main.pid_fd = -1;
    rng_init_system(&p->rng);
    int rc = config_parse(&vbs_spec, argc, argv, &p->options);
    if (rc != 0) {
        free(p);
        return rc > 0 ? 0 : 2;
    }
    rc = vbs_configure(p);
    if (rc == 0)
        rc = vbs_run(p);
    config_free(&vbs_spec, &p->options);
    free(p);
    return rc == 0 ? 0 : 1;
}
