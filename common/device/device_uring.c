/*
 * device_uring.c: files and block devices through io_uring.
 *
 * Requests are collected during a round of the loop and go to the kernel with one system call at its end.
 * Completions are found by polling the ring in each round, and by the ring's descriptor in epoll when the
 * loop sleeps.
 */
#include "common/device/device_file.h"

#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/log.h"

enum { REAP_BURST = 64, DRAIN_SECONDS = 30 };

struct device_uring {
    struct device_file file;
    struct io_uring ring;
    struct loop_fd fd;
    struct loop_poller poller;
    struct loop_timer retry; /* the kernel could not take the submission: another round, soon */
    struct list again;       /* ops (by work) to be issued again */
};

static struct device_uring *uring_of_device(struct device *dev)
{
    return container_of(dev, struct device_uring, file.dev);
}

static void prepare(struct device_uring *u, struct io_uring_sqe *sqe, struct file_op *op)
{
    const struct device_io *io = op->io;
    const struct iovec *iov = &op->iov[op->iov_at];
    unsigned count = (unsigned)(op->iovcnt - op->iov_at);
    uint64_t offset = io->offset + op->transferred;
    switch (io->op) {
    case DEVICE_READ:
        io_uring_prep_readv(sqe, u->file.fd, iov, count, offset);
        break;
    case DEVICE_WRITE:
        io_uring_prep_writev(sqe, u->file.fd, iov, count, offset);
        break;
    case DEVICE_FLUSH:
        io_uring_prep_fsync(sqe, u->file.fd, IORING_FSYNC_DATASYNC);
        break;
    case DEVICE_DISCARD:
        io_uring_prep_fallocate(sqe, u->file.fd, op->discard_flags, (off_t)io->offset, (off_t)io->length);
        break;
    }
    io_uring_sqe_set_data(sqe, op);
}

/* Hands over what waits, as far as there is room: the ring has as many entries as there are ops. */
static void uring_flush(struct device_uring *u)
{
    struct io_uring_sqe *sqe;
    while (!list_empty(&u->again) && (sqe = io_uring_get_sqe(&u->ring)))
        prepare(u, sqe, list_entry(list_pop_front(&u->again), struct file_op, work));
    while (!list_empty(&u->file.queue) && !list_empty(&u->file.free_ops) &&
           (sqe = io_uring_get_sqe(&u->ring)))
        prepare(u, sqe, file_op_start(&u->file));
    if (io_uring_sq_ready(&u->ring) == 0)
        return;
    int rc = io_uring_submit(&u->ring);
    if (rc >= 0 && io_uring_sq_ready(&u->ring) == 0)
        return;
    /* Short of memory, or too many completions wait: what was not taken stays in the ring. */
    static struct log_limit limit = {.interval_ns = 10 * NS_PER_S};
    if (rc < 0 && rc != -EAGAIN && rc != -EBUSY && rc != -EINTR && log_allow(u->file.env, &limit))
        log_error(u->file.env, "can not submit to the device", "device=%s error=%s", u->file.dev.name,
                  strerrorname_np(-rc));
    loop_timer_arm(u->file.env->loop, &u->retry, NS_PER_MS);
}

static void on_retry(struct loop_timer *t)
{
    (void)t; /* the flush of this round does it */
}

static unsigned reap(struct device_uring *u)
{
    unsigned n = 0;
    bool destroyed = false;
    struct io_uring_cqe *cqe;
    u->file.destroyed = &destroyed;
    while (n < REAP_BURST && io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        struct file_op *op = io_uring_cqe_get_data(cqe);
        int rc, result = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        n++;
        if (!file_op_advance(op, result, &rc)) {
            list_push_back(&u->again, &op->work);
            continue;
        }
        file_op_finish(op, rc);
        if (destroyed)
            return n;
    }
    u->file.destroyed = NULL;
    return n;
}

static unsigned on_poll(struct loop_poller *p)
{
    return reap(container_of(p, struct device_uring, poller));
}

static void on_flush(struct loop_poller *p)
{
    uring_flush(container_of(p, struct device_uring, poller));
}

static bool on_arm(struct loop_poller *p)
{
    struct device_uring *u = container_of(p, struct device_uring, poller);
    uring_flush(u); /* what came after this round's flush */
    return io_uring_cq_ready(&u->ring) != 0 || !list_empty(&u->again);
}

static void on_readable(struct loop_fd *f, uint32_t events)
{
    (void)events;
    reap(container_of(f, struct device_uring, fd));
}

static int uring_submit(struct device *dev, struct device_io *io)
{
    return file_enqueue(&uring_of_device(dev)->file, io);
}

/* Waits until the kernel uses no buffer any more. False: it did not let go in time. */
static bool drain(struct device_uring *u)
{
    unsigned unissued = io_uring_sq_ready(&u->ring);
    list_for_each(n, &u->again) unissued++;
    MUST(u->file.inflight >= unissued);
    unsigned left = u->file.inflight - unissued;
    for (unsigned seconds = 0; left && seconds < DRAIN_SECONDS;) {
        struct io_uring_cqe *cqe;
        if (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
            io_uring_cqe_seen(&u->ring, cqe);
            left--;
            continue;
        }
        /* Not by io_uring_wait_cqe: that may submit what was not issued yet. */
        struct pollfd readable = {.fd = u->ring.ring_fd, .events = POLLIN};
        if (poll(&readable, 1, 1000) == 0)
            seconds++;
    }
    return left == 0;
}

static void uring_destroy(struct device *dev)
{
    struct device_uring *u = uring_of_device(dev);
    struct loop *loop = u->file.env->loop;
    loop_fd_remove(loop, &u->fd);
    loop_poller_remove(loop, &u->poller);
    loop_timer_cancel(loop, &u->retry);
    file_unwatch(&u->file);
    if (!drain(u)) {
        /* The kernel may still write into the ops' memory: it is given up, not freed. */
        log_error(u->file.env, "device did not let go of its requests", "device=%s inflight=%u",
                  u->file.dev.name, u->file.inflight);
        if (u->file.destroyed)
            *u->file.destroyed = true;
        return;
    }
    io_uring_queue_exit(&u->ring);
    file_fini(&u->file);
    free(u);
}

static const struct device_ops uring_ops = {.submit = uring_submit, .destroy = uring_destroy};

static int ring_init(struct device_uring *u, unsigned depth)
{
    struct io_uring_params params = {.flags = IORING_SETUP_CLAMP};
    int rc = io_uring_queue_init_params(depth, &u->ring, &params);
    return rc == -EACCES ? -EPERM : rc;
}

int file_uring_create(const struct file_params *params, struct device **out)
{
    struct device_uring *u = calloc(1, sizeof *u);
    if (!u)
        return -ENOMEM;
    list_init(&u->again);
    loop_timer_init(&u->retry, on_retry);
    int rc = ring_init(u, params->depth);
    if (rc) {
        free(u);
        return rc;
    }
    rc = file_init(&u->file, params, &uring_ops);
    if (rc == 0)
        rc = loop_fd_add(params->env->loop, &u->fd, u->ring.ring_fd, EPOLLIN, on_readable);
    if (rc) {
        free(u->file.ops);
        io_uring_queue_exit(&u->ring);
        free(u);
        return rc;
    }
    u->poller.poll = on_poll;
    u->poller.flush = on_flush;
    u->poller.arm = on_arm;
    loop_poller_add(params->env->loop, &u->poller);
    *out = &u->file.dev;
    return 0;
}
