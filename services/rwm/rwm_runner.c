/* rwm_runner.c: see rwm_runner.h. */
#include "services/rwm/rwm_runner.h"

#include "common/log.h"
#include "common/rng.h"
#include "services/rwm/rwm_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A killed process holds a device's lock until the kernel has ended its last requests: that is soon. */
#define RETRY_MIN_NS  (100 * NS_PER_MS)
#define RETRY_MAX_NS  (30 * NS_PER_S)
#define TELL_AGAIN_NS (600 * NS_PER_S)

/* What only an operator can change: to look again soon would only fill the log. */
static bool is_lasting(int rc)
{
    return rc == -EEXIST || rc == -ENOSPC || rc == -EMEDIUMTYPE || rc == -ESTALE || rc == -EBADMSG ||
           rc == -EINVAL || rc == -EACCES || rc == -EPERM || rc == -ENOTBLK;
}

enum runner_state {
    RUNNER_OPENING,    /* the owner opens the media: rwm_runner_opened */
    RUNNER_STARTING,   /* the engine opens the store, registers: serving, or failed */
    RUNNER_FORMATTING, /* the medium was blank: formatted */
    RUNNER_SERVING,
    RUNNER_FAILED,   /* taken down in the next round */
    RUNNER_WAITING,  /* for the next try */
    RUNNER_STOPPING, /* rwm_shutdown, then release */
    RUNNER_STOPPED,
};
struct rwm_runner {
    struct env *env;
    struct rwm_host *host;
    struct rwm_runner_config config;
    struct rwm_media media;
    void *user;
    enum runner_state state;
    struct device *data, *journal;
    struct rwm *rwm;
    struct store_format_job *formatting;
    bool formatted; /* in this try: not twice */
    unsigned failures;
    uint64_t taken_down; /* how often */
    struct loop_timer timer;
    struct loop_task fail_task, start_task, stopped_task;
    char text[512], told[512]; /* why it failed; of that, what the log has */
    uint64_t told_ns;          /* 0: nothing since it served */
    int rc;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void runner_start(struct rwm_runner *r);

/* The devices first: they wait until the kernel has let go of the engine's buffers. */
static void runner_take_down(struct rwm_runner *r)
{
    if (r->state == RUNNER_OPENING)
        r->media.give_up(r->user);
    if (r->data && r->media.release)
        r->media.release(r->user, r->data, false, NULL, r);
    if (r->data)
        device_destroy(r->data);
    if (r->journal)
        device_destroy(r->journal);
    r->data = r->journal = NULL;
    if (r->formatting)
        store_format_cancel(r->formatting);
    r->formatting = NULL;
    if (r->rwm)
        rwm_destroy(r->rwm);
    r->rwm = NULL;
}

/* What goes on failing for the same reason is told now and then. */
static void log_failure(struct rwm_runner *r, uint64_t wait_ns)
{
    const uint64_t now_ns = loop_now_ns(r->env->loop);
    const bool news =
        r->told_ns == 0 || strcmp(r->told, r->text) != 0 || now_ns - r->told_ns >= TELL_AGAIN_NS;
    log_write(r->env, news ? LOG_ERROR_ : LOG_DEBUG_, "module not running, trying again",
              "media=%s retry_ms=%lu tries=%u rc=%d why=\"%s\"", r->config.label,
              (unsigned long)(wait_ns / NS_PER_MS), r->failures, r->rc, r->text);
    if (!news)
        return;
    r->told_ns = now_ns;
    memcpy(r->told, r->text, sizeof(r->told));
}

static void runner_failed(struct loop_task *task)
{
    struct rwm_runner *r = container_of(task, struct rwm_runner, fail_task);
    uint64_t wait = is_lasting(r->rc) ? RETRY_MAX_NS : RETRY_MIN_NS;
    for (unsigned i = 0; i < r->failures && wait < RETRY_MAX_NS; i++)
        wait *= 2;
    wait = min_u64(wait, RETRY_MAX_NS);
    runner_take_down(r);
    r->state = RUNNER_WAITING;
    r->failures++;
    r->taken_down++;
    log_failure(r, wait);
    loop_timer_arm(r->env->loop, &r->timer, wait);
}

void rwm_runner_fail(struct rwm_runner *r, int rc, const char *text)
{
    if (r->state == RUNNER_FAILED || r->state == RUNNER_WAITING || r->state == RUNNER_STOPPED)
        return;
    if (r->state == RUNNER_STOPPING) /* the engine sees it itself, and ends */
        return;
    snprintf(r->text, sizeof(r->text), "%s", text);
    r->rc = rc;
    if (r->state == RUNNER_OPENING)
        r->media.give_up(r->user);
    r->state = RUNNER_FAILED;
    loop_defer(r->env->loop, &r->fail_task);
}

/* ---- formatting ---- */
static void formatted(void *arg, int rc)
{
    struct rwm_runner *r = arg;
    r->formatting = NULL;
    if (rc == 0) {
        log_info(r->env, "made a new store on a blank medium", "media=%s bytes=%lu", r->config.label,
                 (unsigned long)r->data->size);
        r->state = RUNNER_STARTING;
        loop_defer(r->env->loop, &r->start_task);
        return;
    }
    if (rc == -EEXIST)
        rwm_runner_fail(
            r, rc,
            "the medium holds no store of this version but is not blank either: nothing was written. Is it the "
            "right one? Only if it is meant for a new store, wipe it");
    else
        rwm_runner_fail(r, rc,
                        rc == -ENOSPC ? "the medium is too small for a store" : "making a store failed");
}

static void runner_format(struct rwm_runner *r)
{
    rwm_destroy(r->rwm); /* its store was never opened: nothing is under way on the devices */
    r->rwm = NULL;
    r->formatted = true;
    r->state = RUNNER_FORMATTING;
    r->formatting = store_format(r->env, r->data, r->journal, &r->config.format_options, formatted, r);
    if (!r->formatting)
        rwm_runner_fail(r, -ENOMEM, "no memory to make a store");
}

/* ---- the engine ---- */
static void engine_failed(void *user, int rc, const char *text)
{
    struct rwm_runner *r = user;
    if (r->state == RUNNER_STARTING && rc == -EMEDIUMTYPE && r->config.format && !r->formatted) {
        log_debug(r->env, "no store there: looking whether the medium is blank", "media=%s why=\"%s\"",
                  r->config.label, text);
        runner_format(r);
        return;
    }
    rwm_runner_fail(r, rc, text);
}

static void engine_serving(void *user)
{
    struct rwm_runner *r = user;
    r->state = RUNNER_SERVING;
    r->text[0] = '\0';
    r->told_ns = 0;
    r->failures = 0;
    if (r->config.serving)
        r->config.serving(r->user);
}

static void engine_start(struct loop_task *task)
{
    static const struct rwm_events events = {.failed = engine_failed, .serving = engine_serving};
    struct rwm_runner *r = container_of(task, struct rwm_runner, start_task);
    struct rwm_config config = r->config.rwm;
    config.incarnation = rng_u64(r->env->rng) | 1;
    if (r->config.media_auto)
        config.media = r->data->rotational ? TABLE_MEDIA_HDD : TABLE_MEDIA_SSD;
    int rc = rwm_create(r->env, r->host, r->data, r->journal, &config, &events, r, &r->rwm);
    if (rc)
        rwm_runner_fail(r, rc, "the module could not be created: no memory?");
}

void rwm_runner_opened(struct rwm_runner *r, int rc, struct device *data, struct device *journal,
                       const char *text)
{
    MUST(r->state == RUNNER_OPENING);
    r->state = RUNNER_STARTING;
    if (rc) {
        rwm_runner_fail(r, rc, text);
        return;
    }
    r->data = data;
    r->journal = journal;
    loop_defer(r->env->loop, &r->start_task);
}

static void runner_start(struct rwm_runner *r)
{
    r->state = RUNNER_OPENING;
    r->formatted = false;
    r->media.open(r->user, r);
}

static void runner_retry(struct loop_timer *timer)
{
    runner_start(container_of(timer, struct rwm_runner, timer));
}

/* ---- the end ---- */
static void runner_stopped(struct loop_task *task)
{
    struct rwm_runner *r = container_of(task, struct rwm_runner, stopped_task);
    r->stopped(r->stopped_arg);
}

static void runner_released(struct rwm_runner *r)
{
    r->state = RUNNER_STOPPED;
    loop_defer(r->env->loop, &r->stopped_task);
}

static void engine_shut(void *arg, int rc)
{
    struct rwm_runner *r = arg;
    if (rc)
        log_warn(r->env, "not everything could be written back; the journal has it", "media=%s rc=%d",
                 r->config.label, rc);
    if (r->media.release)
        r->media.release(r->user, r->data, true, runner_released, r);
    else
        runner_released(r);
}

void rwm_runner_shutdown(struct rwm_runner *r, void (*done)(void *arg), void *arg)
{
    r->stopped = done;
    r->stopped_arg = arg;
    loop_timer_cancel(r->env->loop, &r->timer);
    loop_task_cancel(r->env->loop, &r->fail_task);
    loop_task_cancel(r->env->loop, &r->start_task);
    if (r->rwm && r->state != RUNNER_FAILED) {
        r->state = RUNNER_STOPPING;
        rwm_shutdown(r->rwm, engine_shut, r);
        return;
    }
    runner_take_down(r);
    runner_released(r);
}

void rwm_runner_destroy(struct rwm_runner *r)
{
    loop_timer_cancel(r->env->loop, &r->timer);
    loop_task_cancel(r->env->loop, &r->fail_task);
    loop_task_cancel(r->env->loop, &r->start_task);
    loop_task_cancel(r->env->loop, &r->stopped_task);
    runner_take_down(r);
    free(r);
}

const struct rwm *rwm_runner_module(const struct rwm_runner *r)
{
    return r->rwm;
}

#define METRICS_STRUCT rwm_runner_figures
static const struct metric runner_table[] = {
    METRICS_ENTRY(GAUGE, up, "cistern_module_up", NULL, "1: the medium is open and the module runs on it.")
        METRICS_ENTRY(COUNTER, failures, "cistern_module_failures_total", NULL,
                      "Times that the module could not start, or failed, and was taken down to try again.")};
const struct metrics_group rwm_runner_group = METRICS_GROUP("a module's process", runner_table);

void rwm_runner_metrics(const struct rwm_runner *r, struct metrics_snapshot *out)
{
    static const char *const states[] = {[RUNNER_OPENING] = "the medium is being opened",
                                         [RUNNER_STARTING] = "the module is starting",
                                         [RUNNER_FORMATTING] = "a new store is being made",
                                         [RUNNER_SERVING] = "",
                                         [RUNNER_FAILED] = "the module failed",
                                         [RUNNER_WAITING] = "the module is not running",
                                         [RUNNER_STOPPING] = "the module is being shut down",
                                         [RUNNER_STOPPED] = "the module has been shut down"};
    const char *name = r->config.rwm.name;
    char labels[METRICS_LABELS_MAX] = "";
    (void)metrics_label(labels, sizeof(labels), "module", name);
    struct rwm_runner_figures *f = metrics_snapshot_add(out, &rwm_runner_group, labels);
    if (f)
        *f = (struct rwm_runner_figures){.up = r->state == RUNNER_SERVING, .failures = r->taken_down};
    if (r->state != RUNNER_SERVING && !(r->state == RUNNER_STARTING && r->rwm))
        metrics_snapshot_not_ready(out, "module %s: %s%s%s", name, states[r->state], r->text[0] ? ": " : "",
                                   r->text);
    if (r->rwm)
        rwm_readiness(r->rwm, out);
}

int rwm_runner_create(struct env *env, struct rwm_host *host, const struct rwm_runner_config *config,
                      const struct rwm_media *media, void *user, struct rwm_runner **out)
{
    struct rwm_runner *r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->env = env;
    r->host = host;
    r->config = *config;
    r->media = *media;
    r->user = user;
    r->state = RUNNER_WAITING;
    loop_timer_init(&r->timer, runner_retry);
    loop_task_init(&r->fail_task, runner_failed);
    loop_task_init(&r->start_task, engine_start);
    loop_task_init(&r->stopped_task, runner_stopped);
    loop_timer_arm(env->loop, &r->timer, 0); /* not inside this call: the owner has no *out yet */
    *out = r;
    return 0;
}
