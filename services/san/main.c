/*
 * main.c: cistern-san: LUNs of an array, each as a module of its own on the one shard. A LUN that vanishes
 * stops its module alone, and comes back when the LUN does.
 *
 * A LUN is taken by a reservation before its store is even read: what an earlier agent still has under way is
 * refused by the array from then on. Where an array does not enforce reservations the log says so, loudly.
 */
#include "common/device/fence.h"
#include "common/log.h"
#include "common/metrics_http.h"
#include "services/rwm/rwm_metrics.h"
#include "services/rwm/rwm_options.h"
#include "services/rwm/rwm_process.h"
#include "services/rwm/rwm_runner.h"
#include "services/san/device_iscsi.h"
#include "services/san/lun_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LUNS_MAX 64
/* The service is ready when every LUN serves, or so long after the first does. */
#define READY_GRACE_NS (5 * NS_PER_S)

struct options {
    struct service_options service;
    struct rwm_options rwm;
    struct store_tool_options tool;
    char *luns, *chap_file, *initiator;
    uint64_t io_timeout_ns, spin_ns;
};
/* clang-format off */
#define AT(field) offsetof(struct options, field)
static const struct config_option option_table[] = {
    {"lun", CONFIG_STRING, AT(luns), NULL, 0, 0, true, "URL", "iscsi://[user@]host[:port]/target/lun, or the path of a local device or file; repeat it for more"},
    {"chap-file", CONFIG_STRING, AT(chap_file), NULL, 0, 0, false, "FILE", "CHAP secret of the user in the URLs"},
    {"initiator", CONFIG_STRING, AT(initiator), NULL, 0, 0, false, "IQN", "this agent's initiator name (default: made of host and name)"},
    {"io-timeout", CONFIG_DURATION, AT(io_timeout_ns), "15s", 100 * NS_PER_MS, 600 * NS_PER_S, false, "TIME", "a request unanswered for so long ends the session with the array"},
    {"spin", CONFIG_DURATION, AT(spin_ns), "0us", 0, NS_PER_S, false, "TIME", "poll so long after the last event before sleeping"},
    STORE_CHECK_OPTIONS(struct options, tool),
    RWM_OPTIONS(struct options, rwm),
    SERVICE_OPTIONS(struct options, service),
    {.name = NULL},
};
/* clang-format on */
static struct config_option check_table[ARRAY_LEN(option_table)]; /* the same, and only --lun is required */
static struct config_spec spec = {
    .program = "cistern-san",
    .summary = "A SAN agent: serves LUNs of an array to a Cistern cluster, one module each.",
    .options = option_table,
};

struct process;
struct lun {
    struct process *process;
    char url[512], initiator[256];
    struct rwm_runner *runner;
    struct device *opening; /* not the runner's yet */
    struct device_fence_request request;
    void (*released)(struct rwm_runner *r);
    struct loop_task lost_task; /* a change is acted upon outside of the device's call */
    bool served, given;         /* given: the device is the runner's */
    char error[700];
};
struct process {
    struct rwm_process base;
    const struct options *options;
    struct lun luns[LUNS_MAX];
    unsigned lun_count;
    uint64_t last_key;
    struct loop_timer ready_timer;
    struct metrics_http *metrics;
};

/* ---- one LUN: connect, fence, hand over ---- */
/* Later owners have greater keys: the time of day orders the starts of agents on several hosts. An agent
 * whose clock is behind the owner's is refused until its clock has passed that key. */
static uint64_t fence_key(struct process *p)
{
    uint64_t key = (loop_wall_ns(p->base.loop) / NS_PER_MS) << 16 | (rng_u64(&p->base.rng) & 0xffff);
    p->last_key = max_u64(key, p->last_key + 1);
    return p->last_key;
}

static void lun_failed(struct lun *l, int rc, const char *what)
{
    snprintf(l->error, sizeof(l->error), "%s %s: %s", what, l->url, strerror(-rc));
    if (l->opening)
        device_destroy(l->opening);
    l->opening = NULL;
    rwm_runner_opened(l->runner, rc, NULL, NULL, l->error);
}

static void lun_ready(struct lun *l)
{
    struct device *device = l->opening;
    l->opening = NULL;
    l->given = true;
    rwm_runner_opened(l->runner, 0, device, NULL, NULL);
}

static void fenced(struct device_fence_request *req, int rc)
{
    struct lun *l = container_of(req, struct lun, request);
    struct env *env = &l->process->base.env;
    if (rc == 0) {
        log_info(env, "LUN reserved for this agent", "lun=%s key=%016lx", l->url,
                 (unsigned long)l->opening->fence_key);
        lun_ready(l);
    } else if (rc == -ENOTSUP) {
        log_warn(
            env,
            "THE ARRAY DOES NOT ENFORCE RESERVATIONS: nothing keeps a second agent from damaging this LUN; make sure "
            "that there is only one",
            "lun=%s", l->url);
        lun_ready(l);
    } else {
        lun_failed(l, rc, rc == -ESTALE ? "a later agent has the reservation of" : "cannot reserve");
    }
}

static void lun_fence(struct lun *l)
{
    int rc = device_fence_acquire(l->opening, fence_key(l->process), &l->request);
    if (rc)
        fenced(&l->request, rc);
}

static void fence_done(struct device_fence_request *req, int rc)
{
    fenced(req, rc);
}

static void connected(struct device_fence_request *req, int rc)
{
    struct lun *l = container_of(req, struct lun, request);
    if (rc) {
        lun_failed(l, rc, "cannot connect to");
        return;
    }
    l->request.done = fence_done;
    lun_fence(l);
}

static void lun_lost(struct loop_task *task)
{
    struct lun *l = container_of(task, struct lun, lost_task);
    if (l->given)
        rwm_runner_fail(l->runner, -ENODEV, l->error);
}

static void lun_changed(struct device *device, void *arg)
{
    struct lun *l = arg;
    if (!l->given || (device->link_state == DEVICE_LINK_UP && device->fence_state != DEVICE_FENCE_LOST &&
                      device->fence_state != DEVICE_FENCE_UNCERTAIN))
        return;
    snprintf(l->error, sizeof(l->error), "the LUN %s is lost to this agent (link %s, reservation %s)", l->url,
             device->link_state == DEVICE_LINK_UP     ? "up"
             : device->link_state == DEVICE_LINK_DOWN ? "down"
                                                      : "gone",
             device_fence_text(device->fence_state));
    loop_defer(l->process->base.loop, &l->lost_task);
}

static void lun_open(void *user, struct rwm_runner *r)
{
    struct lun *l = user;
    struct process *p = l->process;
    const struct options *o = p->options;
    bool iscsi = strncmp(l->url, "iscsi://", 8) == 0;
    struct device_iscsi_options remote = {.url = l->url,
                                          .initiator = l->initiator,
                                          .secret_file =
                                              o->chap_file && o->chap_file[0] ? o->chap_file : NULL,
                                          .io_timeout_ns = o->io_timeout_ns};
    struct device_open_options local = {.create = false};
    l->runner = r;
    l->given = false;
    int rc = iscsi ? device_open_iscsi(&p->base.env, &remote, &l->opening)
                   : device_open_file(&p->base.env, l->url, &local, &l->opening);
    if (rc) {
        lun_failed(l, rc, "cannot open");
        return;
    }
    l->opening->changed = lun_changed;
    l->opening->changed_arg = l;
    if (!iscsi) {
        l->request.done = fence_done;
        lun_fence(l);
        return;
    }
    l->request.done = connected;
    rc = device_fence_reconnect(l->opening, &l->request);
    if (rc)
        lun_failed(l, rc, "cannot connect to");
}

static void lun_give_up(void *user)
{
    struct lun *l = user;
    if (l->opening)
        device_destroy(l->opening);
    l->opening = NULL;
}

static void unfenced(struct device_fence_request *req, int rc)
{
    struct lun *l = container_of(req, struct lun, request);
    if (rc)
        log_warn(&l->process->base.env, "the reservation could not be given back", "lun=%s error=\"%s\"",
                 l->url, strerror(-rc));
    l->released(l->runner);
}

static void lun_release(void *user, struct device *data, bool shut, void (*done)(struct rwm_runner *r),
                        struct rwm_runner *r)
{
    struct lun *l = user;
    l->given = false;
    loop_task_cancel(l->process->base.loop, &l->lost_task);
    if (!shut)
        return;
    l->released = done;
    l->request.done = unfenced;
    if (data->fence_state != DEVICE_FENCE_HELD || device_fence_release(data, &l->request))
        done(r);
}

static const struct rwm_media media = {.open = lun_open, .give_up = lun_give_up, .release = lun_release};

/* ---- the process ---- */
static void tell_ready(struct loop_timer *timer)
{
    rwm_process_ready(&container_of(timer, struct process, ready_timer)->base);
}

static void serving(void *user)
{
    struct lun *l = user;
    struct process *p = l->process;
    unsigned count = 0;
    l->served = true;
    for (unsigned i = 0; i < p->lun_count; i++)
        count += p->luns[i].served;
    if (!p->base.ready && (count == p->lun_count || !loop_timer_armed(&p->ready_timer)))
        loop_timer_arm(p->base.loop, &p->ready_timer, count == p->lun_count ? 0 : READY_GRACE_NS);
}

static int check_url(struct process *p, const char *url)
{
    struct iscsi_lun_url parsed;
    const char *why = "";
    if (strncmp(url, "iscsi://", 8) != 0 || iscsi_url_parse(url, &parsed, &why) == 0)
        return 0;
    log_error(&p->base.env, "cannot start: a LUN is not like iscsi://[user@]host[:port]/target/lun",
              "lun=%s why=\"%s\"", url, why);
    return -EINVAL;
}

static int split_luns(struct process *p, const struct rwm_config *config)
{
    const char *at = p->options->luns;
    while (*at) {
        size_t len = strcspn(at, ",");
        struct lun *l = &p->luns[p->lun_count];
        if (len >= sizeof(l->url) || p->lun_count == LUNS_MAX) {
            log_error(&p->base.env, "cannot start: a LUN's name is too long, or there are too many", "lun=%s",
                      at);
            return -EINVAL;
        }
        if (len > 0) {
            memcpy(l->url, at, len);
            l->process = p;
            loop_task_init(&l->lost_task, lun_lost);
            if (p->options->initiator && p->options->initiator[0])
                snprintf(l->initiator, sizeof(l->initiator), "%s", p->options->initiator);
            else
                snprintf(l->initiator, sizeof(l->initiator), "iqn.2026-01.org.cistern:%s.%s", config->host,
                         config->name);
            p->lun_count++;
            if (check_url(p, l->url) != 0)
                return -EINVAL;
        }
        at += len + (at[len] == ',');
    }
    return p->lun_count ? 0 : -EINVAL;
}

static int start_lun(struct process *p, struct lun *l, const struct rwm_config *base)
{
    struct rwm_runner_config config = {
        .rwm = *base, .format = p->options->rwm.format, .label = l->url, .serving = serving};
    unsigned number = (unsigned)(l - p->luns) + 1;
    if (p->lun_count > 1) {
        char name[MDC_NAME_MAX];
        snprintf(name, sizeof(name), "%.56s-%u", base->name, number);
        memcpy(config.rwm.name, name, sizeof(name));
    }
    return rwm_runner_create(&p->base.env, p->base.host, &config, &media, l, &l->runner);
}

static void collect(void *user, struct metrics_snapshot *out)
{
    struct process *p = user;
    for (unsigned i = 0; i < p->lun_count; i++)
        rwm_runner_metrics(p->luns[i].runner, out);
    rwm_host_collect(p->base.host, out);
}

static int start_metrics(struct process *p)
{
    const struct metrics_http_config config = {
        .addr = p->options->service.metrics, .service = "cistern-san", .collect = collect, .user = p};
    return config.addr && config.addr[0] ? metrics_http_start(&p->base.env, &config, &p->metrics) : 0;
}

static int start(struct rwm_process *base)
{
    struct process *p = container_of(base, struct process, base);
    const struct options *o = p->options;
    struct rwm_config config = {.kind = TABLE_MODULE_SAN, .media = TABLE_MEDIA_SAN};
    int rc = rwm_options_config(&p->base.env, &o->rwm, "san", &config);
    if (rc == 0)
        rc = split_luns(p, &config);
    if (rc == 0)
        rc = rwm_options_fabric(&p->base.env, &o->rwm);
    if (rc == 0)
        rc = rwm_options_host(&p->base.env, &o->rwm, &p->base.host);
    for (unsigned i = 0; rc == 0 && i < p->lun_count; i++)
        rc = start_lun(p, &p->luns[i], &config);
    if (rc == 0)
        rc = start_metrics(p);
    return rc;
}

static void shut(struct rwm_process *base)
{
    struct process *p = container_of(base, struct process, base);
    for (unsigned i = 0; i < p->lun_count; i++)
        rwm_process_shut(base, p->luns[i].runner);
}

static void end(struct rwm_process *base)
{
    struct process *p = container_of(base, struct process, base);
    metrics_http_stop(p->metrics);
    loop_timer_cancel(base->loop, &p->ready_timer);
    for (unsigned i = 0; i < p->lun_count; i++) {
        if (p->luns[i].runner)
            rwm_runner_destroy(p->luns[i].runner);
        loop_task_cancel(base->loop, &p->luns[i].lost_task);
    }
}

static int run(const void *values)
{
    static struct process p; /* large, and one a process */
    const struct options *o = values;
    const struct rwm_process_config config = {.service = &o->service,
                                              .spin_ns = o->spin_ns,
                                              .name = o->rwm.name,
                                              .kind = "san",
                                              .start = start,
                                              .shut = shut,
                                              .end = end};
    p.options = o;
    loop_timer_init(&p.ready_timer, tell_ready);
    return rwm_process_run(&p.base, &config);
}

static int check(struct env *env, const void *values)
{
    const struct options *o = values;
    const struct lun_check luns = {.tool = &o->tool,
                                   .luns = o->luns,
                                   .initiator = o->initiator,
                                   .secret_file = o->chap_file && o->chap_file[0] ? o->chap_file : NULL,
                                   .io_timeout_ns = o->io_timeout_ns};
    return lun_check_all(env, &luns);
}

int main(int argc, char **argv)
{
    static struct options o;
    const struct rwm_program program = {.spec = &spec,
                                        .options = ARRAY_LEN(option_table),
                                        .check_table = check_table,
                                        .keep = "lun",
                                        .values = &o,
                                        .tool = &o.tool,
                                        .log_level = &o.service.log_level,
                                        .medium = &o.luns,
                                        .check = check,
                                        .run = run};
    return rwm_program_main(&program, argc, argv);
}
