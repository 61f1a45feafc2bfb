/* resolve.c: see resolve.h. */
#include "common/resolve.h"

#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/loop.h"

/* Belongs to the thread until it has posted it, then to the loop; the lock decides between post and cancel.
 */
struct resolve_job {
    struct loop_task task;
    pthread_mutex_t lock;
    struct loop *loop; /* NULL: cancelled, the thread frees it */
    bool posted;
    struct resolve_request *req;
    int rc;
    unsigned count;
    struct resolve_addr addrs[RESOLVE_ADDRS_MAX];
    char host[RESOLVE_HOST_BYTES];
};

static void job_free(struct resolve_job *job)
{
    pthread_mutex_destroy(&job->lock);
    free(job);
}

static int order(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct resolve_addr));
}

static void keep(struct resolve_job *job, const struct addrinfo *list)
{
    for (const struct addrinfo *ai = list; ai != NULL && job->count < RESOLVE_ADDRS_MAX; ai = ai->ai_next) {
        struct resolve_addr a;
        memset(&a, 0, sizeof(a));
        if (ai->ai_family == AF_INET) {
            a.family = 4;
            memcpy(a.ip, &((const struct sockaddr_in *)(const void *)ai->ai_addr)->sin_addr, 4);
        } else if (ai->ai_family == AF_INET6) {
            a.family = 6;
            memcpy(a.ip, &((const struct sockaddr_in6 *)(const void *)ai->ai_addr)->sin6_addr, 16);
        } else {
            continue;
        }
        job->addrs[job->count++] = a;
    }
    qsort(job->addrs, job->count, sizeof(job->addrs[0]), order);
}

static void look_up(struct resolve_job *job)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    const int gai = getaddrinfo(job->host, NULL, &hints, &list);
    if (gai == 0)
        keep(job, list);
    if (list != NULL)
        freeaddrinfo(list);
    if (gai == EAI_NONAME || gai == EAI_NODATA || (gai == 0 && job->count == 0))
        job->rc = -ENOENT;
    else if (gai == EAI_AGAIN)
        job->rc = -EAGAIN;
    else if (gai != 0)
        job->rc = -EIO;
}

static void *thread_main(void *arg)
{
    struct resolve_job *job = arg;
    look_up(job);
    pthread_mutex_lock(&job->lock);
    const bool wanted = job->loop != NULL;
    if (wanted) {
        job->posted = true;
        MUST(loop_post(job->loop, &job->task) == 0);
    }
    pthread_mutex_unlock(&job->lock);
    if (!wanted)
        job_free(job);
    return NULL;
}

static void on_posted(struct loop_task *task)
{
    struct resolve_job *job = container_of(task, struct resolve_job, task);
    struct resolve_request *req = job->req;
    pthread_mutex_lock(&job->lock); /* the thread may not have left its last line yet */
    pthread_mutex_unlock(&job->lock);
    req->job = NULL;
    req->done(req, job->rc, job->addrs, job->count);
    job_free(job);
}

/* Signals are for the loop's thread. */
static int start_thread(struct resolve_job *job)
{
    sigset_t all, before;
    pthread_attr_t attr;
    pthread_t thread;
    int rc = pthread_attr_init(&attr);
    if (rc != 0)
        return -rc;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&thread, &attr, thread_main, job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return -rc;
}

static int system_start(struct env *env, struct resolve_request *req, const char *host)
{
    MUST(req->job == NULL);
    if (strlen(host) >= RESOLVE_HOST_BYTES)
        return -ENAMETOOLONG;
    struct resolve_job *job = calloc(1, sizeof(*job));
    if (job == NULL)
        return -ENOMEM;
    memcpy(job->host, host, strlen(host) + 1);
    pthread_mutex_init(&job->lock, NULL);
    loop_task_init(&job->task, on_posted);
    job->loop = env->loop;
    job->req = req;
    const int rc = start_thread(job);
    if (rc != 0) {
        job_free(job);
        return rc;
    }
    req->job = job;
    return 0;
}

static void system_cancel(struct resolve_request *req)
{
    struct resolve_job *job = req->job;
    if (job == NULL)
        return;
    req->job = NULL;
    pthread_mutex_lock(&job->lock);
    const bool posted = job->posted;
    struct loop *loop = job->loop;
    job->loop = NULL;
    pthread_mutex_unlock(&job->lock);
    if (!posted)
        return; /* the thread's now */
    loop_task_cancel(loop, &job->task);
    job_free(job);
}

const struct resolver resolve_system = {.start = system_start, .cancel = system_cancel};

int resolve_start(struct env *env, struct resolve_request *req, const char *host)
{
    return env->resolver != NULL ? env->resolver->start(env, req, host) : -ENOTSUP;
}

void resolve_cancel(struct env *env, struct resolve_request *req)
{
    if (env->resolver != NULL)
        env->resolver->cancel(req);
}

const char *resolve_error(int rc)
{
    switch (rc) {
    case -ENOENT:
        return "there is no address for that name";
    case -EAGAIN:
        return "no name server answers";
    case -ENOTSUP:
        return "names cannot be resolved here";
    default:
        return "the name cannot be resolved";
    }
}

bool resolve_name_valid(const char *text)
{
    const char *label = text;
    bool number = true;
    if (strlen(text) >= RESOLVE_HOST_BYTES)
        return false;
    for (const char *at = text;; at++) {
        if (*at == '.' || *at == 0) {
            if (at == label) /* "a." is a name that ends at the root */
                return *at == 0 && at > text + 1 && !number;
            if (*at == 0)
                return !number;
            label = at + 1;
            if (*label != 0)
                number = true;
        } else if ((*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || *at == '-' || *at == '_') {
            number = false;
        } else if (*at < '0' || *at > '9') {
            return false;
        }
    }
}
