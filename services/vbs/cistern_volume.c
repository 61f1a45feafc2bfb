/* Opening and closing of volumes in libcistern. */
#include <stdlib.h>
#include <string.h>

#include "services/vbs/cistern_internal.h"

enum { CLOSE_TIMEOUT_MS = 5000 };

/* On the heap: when the caller's patience ends first, the answer that comes later finds it and cleans up. */
struct open_job {
    struct cistern_job job;
    struct list late; /* c->late, c->lock */
    struct volume_open_options options;
    struct cistern_volume *v;
};

static void on_changed(void *arg, int rc)
{
    struct cistern_volume *v = arg;
    struct volume_info info;
    if (v->direct != NULL)
        volume_info_get(v->direct, &info);
    else
        vbs_client_info_get(v->through, &info);
    atomic_store_explicit(&v->size_bytes, info.size_bytes, memory_order_relaxed);
    if (rc != 0)
        atomic_store(&v->lost_rc, rc);
    if (v->changed != NULL)
        v->changed(v->changed_arg, rc);
}

static void open_finish(struct open_job *oj, int rc, const char *text)
{
    struct cistern_volume *v = oj->v;
    if (cistern_job_finish(&oj->job, rc, text))
        return;
    /* Nobody waits any more. */
    pthread_mutex_lock(&v->c->lock);
    list_remove(&oj->late);
    pthread_mutex_unlock(&v->c->lock);
    if (v->direct != NULL)
        volume_close(v->direct, NULL, NULL);
    else if (v->through != NULL)
        vbs_client_close(v->through, NULL, NULL);
    free(v);
    free(oj);
}

void cistern_late_free(struct cistern *c)
{
    for (struct list *n; (n = list_pop_front(&c->late)) != NULL;) {
        struct open_job *oj = list_entry(n, struct open_job, late);
        free(oj->v);
        free(oj);
    }
}

static void on_open_direct(void *arg, struct volume *volume, int rc, const char *text)
{
    struct open_job *oj = arg;
    if (rc == 0) {
        oj->v->direct = volume;
        volume_info_get(volume, &oj->v->info);
        volume_set_changed(volume, on_changed, oj->v);
    }
    open_finish(oj, rc, text);
}

static void on_open_through(void *arg, struct vbs_client_volume *volume, int rc, const char *text)
{
    struct open_job *oj = arg;
    if (rc == 0) {
        oj->v->through = volume;
        vbs_client_info_get(volume, &oj->v->info);
        vbs_client_set_changed(volume, on_changed, oj->v);
    }
    open_finish(oj, rc, text);
}

static void open_begin(struct cistern_job *job)
{
    struct open_job *oj = container_of(job, struct open_job, job);
    struct cistern *c = job->c;
    int rc = c->core != NULL ? volume_open(c->core, &oj->options, on_open_direct, oj)
                             : vbs_client_open(c->client, &oj->options, on_open_through, oj);
    if (rc != 0)
        open_finish(oj, rc, rc == -ENOMEM ? "out of memory" : "that is not a legal name of a volume");
}

static int open_wait(struct cistern *c, struct open_job *oj, struct cistern_volume **out)
{
    struct cistern_volume *v = oj->v;
    char name[MDC_NAME_MAX];
    memcpy(name, oj->options.name, sizeof name);
    /* In c->late already while it is waited for: between the end of the wait and a later insertion the answer
     * could come. */
    pthread_mutex_lock(&c->lock);
    list_push_back(&c->late, &oj->late);
    pthread_mutex_unlock(&c->lock);
    if (!cistern_job_run(c, &oj->job, open_begin, c->connect_timeout_ms))
        return cistern_fail(
            -ETIMEDOUT, "volume '%s' could not be opened within %u ms: nobody at %s answered%s", name,
            c->connect_timeout_ms, c->where,
            c->core != NULL ? "" : "; a gateway opens nothing while the metadata controller is away");
    pthread_mutex_lock(&c->lock);
    list_remove(&oj->late);
    pthread_mutex_unlock(&c->lock);
    int rc = oj->job.rc;
    if (rc != 0) {
        /* What the metadata controller says names the volume already. */
        if (oj->job.text[0] != 0)
            cistern_fail(rc, "%s", oj->job.text);
        else
            cistern_fail(rc, "cannot open volume '%s': %s", name, strerror(-rc));
        free(v);
    } else {
        atomic_store(&v->size_bytes, v->info.size_bytes);
        *out = v;
    }
    free(oj);
    return rc;
}

int cistern_open(struct cistern *c, const char *volume, unsigned flags, struct cistern_volume **out)
{
    if (c == NULL || volume == NULL || out == NULL ||
        (flags & ~(unsigned)(CISTERN_READ_ONLY | CISTERN_SHARED | CISTERN_TAKE_OVER)) != 0)
        return cistern_fail(-EINVAL, "cistern_open was called with arguments that make no sense");
    size_t len = strlen(volume);
    if (len >= MDC_NAME_MAX || !mdc_name_valid(volume))
        return cistern_fail(-EINVAL, "'%.80s' is not a legal name of a volume", volume);
    struct open_job *oj = calloc(1, sizeof *oj);
    struct cistern_volume *v = calloc(1, sizeof *v);
    if (oj == NULL || v == NULL) {
        free(oj);
        free(v);
        return cistern_fail(-ENOMEM, "out of memory");
    }
    oj->v = v;
    v->c = c;
    v->read_only = (flags & CISTERN_READ_ONLY) != 0;
    memcpy(oj->options.name, volume, len + 1);
    memcpy(oj->options.host, c->host, sizeof oj->options.host);
    oj->options.instance = c->instance;
    oj->options.read_only = v->read_only;
    oj->options.shared = (flags & CISTERN_SHARED) != 0;
    oj->options.take_over = (flags & CISTERN_TAKE_OVER) != 0;
    return open_wait(c, oj, out);
}

/* On the heap for the same reason. */
struct close_job {
    struct cistern_job job;
    struct cistern_volume *v;
};

static void on_closed(void *arg)
{
    struct close_job *cj = arg;
    struct cistern_volume *v = cj->v;
    if (cistern_job_finish(&cj->job, 0, ""))
        return;
    free(v);
    free(cj);
}

static void close_begin(struct cistern_job *job)
{
    struct close_job *cj = container_of(job, struct close_job, job);
    if (cj->v->direct != NULL)
        volume_close(cj->v->direct, on_closed, cj);
    else
        vbs_client_close(cj->v->through, on_closed, cj);
}

static void wait_for_requests(struct cistern_volume *v)
{
    struct cistern *c = v->c;
    pthread_mutex_lock(&c->lock);
    while (v->requests != 0) {
        if (c->own_loop) {
            pthread_mutex_unlock(&c->lock);
            loop_run_once(c->env.loop, 100 * NS_PER_MS);
            pthread_mutex_lock(&c->lock);
        } else {
            pthread_cond_wait(&c->cond, &c->lock);
        }
    }
    pthread_mutex_unlock(&c->lock);
}

int cistern_close(struct cistern_volume *v)
{
    if (v == NULL)
        return 0;
    struct close_job *cj = calloc(1, sizeof *cj);
    if (cj == NULL)
        return cistern_fail(-ENOMEM, "out of memory");
    wait_for_requests(v);
    cj->v = v;
    if (!cistern_job_run(v->c, &cj->job, close_begin, CLOSE_TIMEOUT_MS))
        return 0; /* it goes with the connection */
    free(v);
    free(cj);
    return 0;
}

uint64_t cistern_size(const struct cistern_volume *v)
{
    return atomic_load_explicit(&v->size_bytes, memory_order_relaxed);
}

uint32_t cistern_block_bytes(const struct cistern_volume *v)
{
    return v->info.block_bytes;
}

uint32_t cistern_stripe_bytes(const struct cistern_volume *v)
{
    return v->info.stripe_bytes;
}

struct change_job {
    struct cistern_job job;
    struct cistern_volume *v;
    cistern_callback *cb;
    void *arg;
};

static void change_begin(struct cistern_job *job)
{
    struct change_job *cj = container_of(job, struct change_job, job);
    cj->v->changed = cj->cb;
    cj->v->changed_arg = cj->arg;
    cistern_job_finish(job, 0, "");
}

int cistern_on_change(struct cistern_volume *v, cistern_callback *cb, void *arg)
{
    struct change_job cj = {.v = v, .cb = cb, .arg = arg};
    cistern_job_run(v->c, &cj.job, change_begin, 0);
    return 0;
}
