/*
 * device_threads.c: files and block devices through blocking calls in a few threads, for where io_uring is
 * forbidden.
 *
 * The loop's thread starts ops and puts them on the work list; a thread serves one, then posts its completion
 * to the loop. Between those two moments the op is the thread's alone.
 */
#include "common/device/device_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

enum { THREADS_MAX = 16, JOIN_SECONDS = 30 };

struct device_threads {
    struct device_file file;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct list work; /* ops waiting for a thread */
    bool stop;
    unsigned thread_count;
    pthread_t threads[THREADS_MAX];
};

static struct device_threads *threads_of_file(struct device_file *f)
{
    return container_of(f, struct device_threads, file);
}

static int discard(const struct device_file *f, const struct file_op *op)
{
    if (f->block && (op->discard_flags & FALLOC_FL_NO_HIDE_STALE)) {
        uint64_t range[2] = {op->io->offset, op->io->length};
        return ioctl(f->fd, BLKDISCARD, range);
    }
    return fallocate(f->fd, op->discard_flags, (off_t)op->io->offset, (off_t)op->io->length);
}

/* As a completion of io_uring: bytes or -errno. */
static int serve(const struct device_file *f, struct file_op *op)
{
    const struct iovec *iov = &op->iov[op->iov_at];
    int count = op->iovcnt - op->iov_at;
    off_t offset = (off_t)(op->io->offset + op->transferred);
    ssize_t n = -1;
    switch (op->io->op) {
    case DEVICE_READ:
        n = preadv(f->fd, iov, count, offset);
        break;
    case DEVICE_WRITE:
        n = pwritev(f->fd, iov, count, offset);
        break;
    case DEVICE_FLUSH:
        n = fdatasync(f->fd);
        break;
    case DEVICE_DISCARD:
        n = discard(f, op);
        break;
    }
    return n < 0 ? -errno : (int)n;
}

static void *thread_main(void *arg)
{
    struct device_threads *t = arg;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!t->stop && list_empty(&t->work))
            pthread_cond_wait(&t->more, &t->lock);
        if (t->stop)
            break;
        struct file_op *op = list_entry(list_pop_front(&t->work), struct file_op, work);
        pthread_mutex_unlock(&t->lock);
        op->result = serve(&t->file, op);
        MUST(loop_post(t->file.env->loop, &op->task) == 0);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void give(struct device_threads *t, struct file_op *op)
{
    pthread_mutex_lock(&t->lock);
    list_push_back(&t->work, &op->work);
    pthread_cond_signal(&t->more);
    pthread_mutex_unlock(&t->lock);
}

static void start_waiting(struct device_threads *t)
{
    struct file_op *op;
    while ((op = file_op_start(&t->file)))
        give(t, op);
}

static void on_served(struct loop_task *task)
{
    struct file_op *op = container_of(task, struct file_op, task);
    struct device_threads *t = threads_of_file(op->file);
    bool destroyed = false;
    int rc;
    if (!file_op_advance(op, op->result, &rc)) {
        give(t, op);
        return;
    }
    t->file.destroyed = &destroyed;
    file_op_finish(op, rc);
    if (destroyed)
        return;
    t->file.destroyed = NULL;
    start_waiting(t);
}

static int threads_submit(struct device *dev, struct device_io *io)
{
    struct device_threads *t = container_of(dev, struct device_threads, file.dev);
    int rc = file_enqueue(&t->file, io);
    if (rc == 0)
        start_waiting(t);
    return rc;
}

/* False: a thread is stuck in the kernel. */
static bool join_all(struct device_threads *t)
{
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_broadcast(&t->more);
    pthread_mutex_unlock(&t->lock);
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += JOIN_SECONDS;
    while (t->thread_count) {
        if (pthread_timedjoin_np(t->threads[t->thread_count - 1], NULL, &deadline))
            return false;
        t->thread_count--;
    }
    return true;
}

static void threads_destroy(struct device *dev)
{
    struct device_threads *t = container_of(dev, struct device_threads, file.dev);
    file_unwatch(&t->file);
    if (!join_all(t)) {
        /* A thread still uses the ops and will post: nothing may be freed, and the loop must not run it any
         * more. */
        log_error(t->file.env, "device did not let go of its requests", "device=%s", t->file.dev.name);
        if (t->file.destroyed)
            *t->file.destroyed = true;
        return;
    }
    for (unsigned i = 0; i < t->file.depth; i++)
        loop_task_cancel(t->file.env->loop, &t->file.ops[i].task);
    pthread_cond_destroy(&t->more);
    pthread_mutex_destroy(&t->lock);
    file_fini(&t->file);
    free(t);
}

static const struct device_ops threads_ops = {.submit = threads_submit, .destroy = threads_destroy};

/* Signals are the main thread's. */
static int start_threads(struct device_threads *t, unsigned count)
{
    sigset_t all, old;
    int rc = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (t->thread_count < count && rc == 0) {
        rc = -pthread_create(&t->threads[t->thread_count], NULL, thread_main, t);
        if (rc == 0)
            t->thread_count++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return t->thread_count ? 0 : rc;
}

int file_threads_create(const struct file_params *params, struct device **out)
{
    struct device_threads *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    int rc = file_init(&t->file, params, &threads_ops);
    if (rc) {
        free(t);
        return rc;
    }
    list_init(&t->work);
    for (unsigned i = 0; i < t->file.depth; i++)
        loop_task_init(&t->file.ops[i].task, on_served);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->more, NULL);
    rc = start_threads(t, (unsigned)min_u64(params->depth, THREADS_MAX));
    if (rc) {
        pthread_cond_destroy(&t->more);
        pthread_mutex_destroy(&t->lock);
        free(t->file.ops);
        free(t);
        return rc;
    }
    *out = &t->file.dev;
    return 0;
}
