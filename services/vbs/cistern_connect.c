/* Connections of libcistern: the loop and its thread, and jobs that callers wait for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "services/vbs/addr_list.h"
#include "services/vbs/cistern_internal.h"

#define READY_POLL_NS (1 * NS_PER_MS)
enum { CONNECT_TIMEOUT_MS = 10000, PARTS_MAX = 1024 };

/* ---- jobs ---- */

static void job_expired(struct loop_timer *t)
{
    struct cistern_job *job = container_of(t, struct cistern_job, timer);
    struct cistern *c = job->c;
    pthread_mutex_lock(&c->lock);
    job->abandoned = true;
    pthread_cond_broadcast(&c->cond);
    pthread_mutex_unlock(&c->lock);
}

static void job_begin(struct cistern_job *job)
{
    if (job->timeout_ms != 0)
        loop_timer_arm(job->c->env.loop, &job->timer, job->timeout_ms * NS_PER_MS);
    job->fn(job);
}

static void job_task(struct loop_task *t)
{
    job_begin(container_of(t, struct cistern_job, task));
}

bool cistern_job_finish(struct cistern_job *job, int rc, const char *text)
{
    struct cistern *c = job->c;
    loop_timer_cancel(c->env.loop, &job->timer);
    pthread_mutex_lock(&c->lock);
    bool waited_for = !job->abandoned;
    if (waited_for) {
        job->rc = rc;
        snprintf(job->text, sizeof job->text, "%s", text);
        job->done = true;
        pthread_cond_broadcast(&c->cond);
    }
    pthread_mutex_unlock(&c->lock);
    return waited_for;
}

bool cistern_job_run(struct cistern *c, struct cistern_job *job, void (*fn)(struct cistern_job *),
                     unsigned timeout_ms)
{
    job->c = c;
    job->fn = fn;
    job->timeout_ms = timeout_ms;
    job->done = job->abandoned = false;
    loop_task_init(&job->task, job_task);
    loop_timer_init(&job->timer, job_expired);
    if (c->own_loop) {
        job_begin(job);
        while (!job->done && !job->abandoned)
            loop_run_once(c->env.loop, UINT64_MAX);
        return job->done;
    }
    MUST(loop_post(c->env.loop, &job->task) == 0);
    pthread_mutex_lock(&c->lock);
    while (!job->done && !job->abandoned)
        pthread_cond_wait(&c->cond, &c->lock);
    bool done = job->done;
    pthread_mutex_unlock(&c->lock);
    return done;
}

/* ---- connecting ---- */

struct connect_job {
    struct cistern_job job;
    struct loop_timer timer;
};

static bool is_ready(const struct cistern *c)
{
    if (c->core != NULL)
        return cluster_table(volume_core_cluster(c->core)) != NULL;
    return vbs_client_is_up(c->client);
}

static void on_ready_timer(struct loop_timer *t)
{
    struct connect_job *cj = container_of(t, struct connect_job, timer);
    if (is_ready(cj->job.c))
        cistern_job_finish(&cj->job, 0, "");
    else
        loop_timer_arm(cj->job.c->env.loop, t, READY_POLL_NS);
}

static void connect_begin(struct cistern_job *job)
{
    struct connect_job *cj = container_of(job, struct connect_job, job);
    loop_timer_init(&cj->timer, on_ready_timer);
    loop_timer_arm(job->c->env.loop, &cj->timer, 0);
}

static void *thread_main(void *arg)
{
    struct cistern *c = arg;
    pthread_setname_np(pthread_self(), "cistern");
    loop_run(c->env.loop);
    return NULL;
}

static int set_names(struct cistern *c, const struct cistern_options *o)
{
    char host[256] = "";
    if (o->host != NULL)
        snprintf(host, sizeof host, "%s", o->host);
    else if (gethostname(host, sizeof host - 1) != 0)
        return cistern_fail(-errno, "this host has no name: give the option host");
    if (strlen(host) >= sizeof c->host || !mdc_name_valid(host))
        return cistern_fail(-EINVAL,
                            "'%s' is not a legal name of a host: up to %d letters, digits, '.', '_' and '-'",
                            host, MDC_NAME_MAX - 1);
    memcpy(c->host, host, strlen(host) + 1);
    if (o->secret_file == NULL)
        return cistern_fail(-EINVAL,
                            "the option secret-file is missing: the file with the cluster's shared secret");
    struct fabric_config *f = &c->fabric_config;
    int rc = config_read_cluster_secret(o->secret_file, f->secret, sizeof f->secret, &f->secret_len);
    if (rc != 0)
        return cistern_fail(rc, "the secret in %s cannot be used: %s", o->secret_file,
                            config_secret_error(rc));
    c->instance = rng_u64(&c->rng) | 1;
    f->role = FABRIC_ROLE_CLIENT;
    f->incarnation = c->instance;
    return 0;
}

struct where {
    struct fabric_addr addrs[CLUSTER_MDCS_MAX];
    char hosts[CLUSTER_MDCS_MAX][RESOLVE_HOST_BYTES];
    unsigned count;
};

static int make_core(struct cistern *c, const struct where *w)
{
    struct volume_core_config config;
    volume_core_config_default(&config);
    config.parts_max = PARTS_MAX;
    memcpy(config.cluster.mdc, w->addrs, w->count * sizeof w->addrs[0]);
    memcpy(config.cluster.mdc_host, w->hosts, w->count * sizeof w->hosts[0]);
    config.cluster.mdc_count = w->count;
    config.cluster.role = FABRIC_ROLE_CLIENT;
    config.cluster.instance = c->instance;
    memcpy(config.cluster.host, c->host, sizeof c->host);
    snprintf(config.cluster.name, sizeof config.cluster.name, "client");
    return volume_core_create(&c->env, &config, &c->core);
}

static int make_client(struct cistern *c, const struct where *w)
{
    struct gateway_client_config config = {.gateway_count = w->count, .verify_reads = true};
    memcpy(config.gateways, w->addrs, w->count * sizeof w->addrs[0]);
    memcpy(config.gateway_hosts, w->hosts, w->count * sizeof w->hosts[0]);
    return vbs_client_create(&c->env, &config, &c->client);
}

static int make_parts(struct cistern *c, const struct cistern_options *o)
{
    _Static_assert(CLUSTER_MDCS_MAX == GATEWAY_CLIENT_ADDRS_MAX, "one list serves both");
    struct where w = {.count = 0};
    const char *list = o->mdc != NULL ? o->mdc : o->gateway;
    if (addr_list_parse(list, w.addrs, w.hosts, CLUSTER_MDCS_MAX, &w.count) != 0)
        return cistern_fail(-EINVAL, "'%s' is not a list of addresses such as tcp:127.0.0.1:7100", list);
    c->where = strdup(list);
    if (c->where == NULL)
        return cistern_fail(-ENOMEM, "out of memory");
    struct loop_options loop_options = {.spin_ns = o->spin_ns};
    int rc = loop_create_real(&loop_options, &c->env.loop);
    if (rc == 0)
        rc = addr_fabric_create(&c->env, w.addrs[0].provider, &c->fabric_config, &c->env.fabric);
    if (rc == -EPROTONOSUPPORT)
        return cistern_fail(rc, "this build cannot speak to '%s'", list);
    if (rc == -ENODEV)
        return cistern_fail(rc, "this host has no RDMA device to speak to '%s'", list);
    if (rc == 0)
        rc = cistern_arena_create(c);
    if (rc == 0)
        rc = o->mdc != NULL ? make_core(c, &w) : make_client(c, &w);
    if (rc != 0)
        return cistern_fail(rc, "cannot start the client: %s", strerror(-rc));
    return 0;
}

static int start_and_wait(struct cistern *c)
{
    struct connect_job cj = {.timer = {0}};
    if (!c->own_loop) {
        int rc = pthread_create(&c->thread, NULL, thread_main, c);
        if (rc != 0)
            return cistern_fail(-rc, "cannot start a thread: %s", strerror(rc));
        c->thread_runs = true;
    }
    if (cistern_job_run(c, &cj.job, connect_begin, c->connect_timeout_ms))
        return 0;
    /* The timer is on this stack: the thread ends before it goes. */
    if (c->thread_runs) {
        loop_stop(c->env.loop);
        pthread_join(c->thread, NULL);
        c->thread_runs = false;
    }
    loop_timer_cancel(c->env.loop, &cj.timer);
    loop_task_cancel(c->env.loop, &cj.job.task);
    return cistern_fail(-ETIMEDOUT,
                        "no %s at %s answered within %u ms: is it running, and is the secret the cluster's?",
                        c->core != NULL ? "metadata controller" : "gateway", c->where, c->connect_timeout_ms);
}

static int check_options(const struct cistern_options *o, struct cistern **out)
{
    if (o == NULL || out == NULL || o->struct_size != sizeof *o)
        return cistern_fail(-EINVAL,
                            "the options were not made by cistern_options_init of this library's version");
    if ((o->mdc == NULL) == (o->gateway == NULL))
        return cistern_fail(-EINVAL, "give either mdc or gateway, %s",
                            o->mdc == NULL ? "there is none of them" : "not both");
    return 0;
}

static void set_log_level(void)
{
    enum log_level level = LOG_ERROR_;
    const char *text = getenv("CISTERN_LOG");
    if (text != NULL)
        (void)log_parse_level(text, &level);
    log_set_level(level);
}

int cistern_connect(const struct cistern_options *options, struct cistern **out)
{
    int rc = check_options(options, out);
    if (rc != 0)
        return rc;
    struct cistern *c = calloc(1, sizeof *c);
    if (c == NULL)
        return cistern_fail(-ENOMEM, "out of memory");
    set_log_level();
    rng_init_system(&c->rng);
    c->env.rng = &c->rng;
    c->env.resolver = &resolve_system;
    c->env.name = "libcistern";
    c->own_loop = options->own_loop != 0;
    c->connect_timeout_ms =
        options->connect_timeout_ms != 0 ? options->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    list_init(&c->submitted);
    list_init(&c->free_ops);
    list_init(&c->slabs);
    list_init(&c->late);
    loop_task_init(&c->drain, cistern_drain);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->cond, NULL);
    rc = set_names(c, options);
    if (rc == 0)
        rc = make_parts(c, options);
    if (rc == 0)
        rc = start_and_wait(c);
    if (rc != 0) {
        cistern_disconnect(c);
        return rc;
    }
    *out = c;
    return 0;
}

void cistern_disconnect(struct cistern *c)
{
    if (c == NULL)
        return;
    if (c->thread_runs) {
        loop_stop(c->env.loop);
        pthread_join(c->thread, NULL);
    }
    volume_core_destroy(c->core);
    vbs_client_destroy(c->client);
    cistern_arena_destroy(c);
    if (c->env.fabric != NULL)
        fabric_destroy(c->env.fabric);
    if (c->env.loop != NULL) {
        loop_task_cancel(c->env.loop, &c->drain);
        loop_destroy(c->env.loop);
    }
    cistern_ops_free(c);
    cistern_late_free(c);
    pthread_cond_destroy(&c->cond);
    pthread_mutex_destroy(&c->lock);
    free(c->where);
    explicit_bzero(&c->fabric_config, sizeof c->fabric_config);
    free(c);
}

int cistern_process(struct cistern *c, int timeout_ms)
{
    if (!c->own_loop)
        return cistern_fail(-EINVAL, "cistern_process is for connections with own_loop");
    uint64_t wait_ns = timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * NS_PER_MS;
    return (int)loop_run_once(c->env.loop, wait_ns);
}

struct counters_job {
    struct cistern_job job;
    char *out;
    size_t room, len;
};

static void counters_read(struct cistern_job *job)
{
    struct counters_job *cj = container_of(job, struct counters_job, job);
    cj->len = fabric_counters_text(job->c->env.fabric, cj->out, cj->room);
    cistern_job_finish(job, 0, "");
}

int cistern_counters(struct cistern *c, char *out, size_t room)
{
    struct counters_job cj = {.out = out, .room = room};
    if (room == 0)
        return cistern_fail(-EINVAL, "cistern_counters needs room");
    cistern_job_run(c, &cj.job, counters_read, 0);
    return (int)cj.len;
}
