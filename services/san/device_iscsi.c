/* device_iscsi.c: the data path of a LUN: requests become commands, their answers are judged. */
#include "services/san/device_iscsi.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/log.h"
#include "common/rng.h"
#include "services/san/device_iscsi_internal.h"

enum {
    DEPTH_DEFAULT = 64,
    DEPTH_MAX = 1024,
    RETRIES_MAX = 100,
    PART_MAX = 1 << 20,
    BUSY_MS = 10,
    TIMEOUT_DEFAULT_S = 15
};

static struct device_iscsi *iscsi_of(struct device *dev)
{
    return container_of(dev, struct device_iscsi, dev);
}

void iscsi_set_changed(struct device_iscsi *d)
{
    d->changed = true;
    loop_defer(d->env->loop, &d->task);
}

/* ---- ending requests ---- */

static void complete(struct device_iscsi *d, struct device_io *io, int rc)
{
    io->priv2 = (uint64_t)(int64_t)rc;
    list_push_back(&d->completed, &io->link);
    loop_defer(d->env->loop, &d->task);
}

static void op_end(struct iscsi_op *op, int rc)
{
    struct device_iscsi *d = op->device;
    struct device_io *io = op->io;
    op->io = NULL;
    list_remove(&op->link);
    list_push_back(&d->free_ops, &op->link);
    complete(d, io, rc);
}

void iscsi_end_all(struct device_iscsi *d, int rc)
{
    for (unsigned i = 0; i < d->depth; i++) {
        if (d->ops[i].io)
            op_end(&d->ops[i], rc);
    }
    struct list *n;
    while ((n = list_pop_front(&d->queue)))
        complete(d, list_entry(n, struct device_io, link), rc);
}

static void op_again(struct iscsi_op *op)
{
    if (++op->retries > RETRIES_MAX) {
        op_end(op, -EIO);
        return;
    }
    list_push_back(&op->device->again, &op->link);
}

static void op_busy(struct iscsi_op *op)
{
    struct device_iscsi *d = op->device;
    if (++op->retries > RETRIES_MAX) {
        op_end(op, -EIO);
        return;
    }
    list_push_back(&d->busy, &op->link);
    if (!loop_timer_armed(&d->again_timer))
        loop_timer_arm(d->env->loop, &d->again_timer, BUSY_MS * NS_PER_MS);
}

static void on_again_timer(struct loop_timer *t)
{
    struct device_iscsi *d = container_of(t, struct device_iscsi, again_timer);
    list_splice(&d->again, &d->busy); /* the flush of this round starts them */
}

/* ---- judging answers (SPC-4 4.5.6 and annex F for the codes) ---- */

static void op_part_done(struct iscsi_op *op)
{
    op->transferred += op->part;
    if (op->io->op == DEVICE_FLUSH || op->transferred == op->io->length)
        op_end(op, 0);
    else
        list_push_back(&op->device->again, &op->link);
}

static void op_attention(struct iscsi_op *op, int ascq)
{
    if (ascq >> 8 == 0x29 || ascq >> 8 == 0x2a) {
        /* Reset, or reservations, registrations or the capacity changed: nothing goes on before it is known
         * what holds. */
        list_push_back(&op->device->again, &op->link);
        iscsi_lose(op->device, ascq >> 8 == 0x29 ? "the array was reset"
                                                 : "the array's reservations or capacity changed");
        return;
    }
    op_again(op);
}

static void op_illegal(struct iscsi_op *op, int ascq)
{
    struct device_iscsi *d = op->device;
    if (ascq == SCSI_SENSE_ASCQ_LOGICAL_UNIT_NOT_SUPPORTED) {
        op_end(op, -ENODEV);
        iscsi_gone(d, "the LUN has vanished");
    } else if (op->io->op == DEVICE_FLUSH && !d->no_sync) {
        d->no_sync = d->sync10;
        d->sync10 = true;
        if (d->no_sync)
            log_warn(d->env, "array has no SYNCHRONIZE CACHE, its cache is trusted", "device=%s",
                     d->dev.name);
        op_again(op);
    } else if (op->io->op == DEVICE_DISCARD) {
        d->dev.can_discard = false;
        op_end(op, 0);
    } else if (ascq >> 8 == 0x21) {
        op_end(op, -EIO);
        iscsi_lose(d, "an address beyond the LUN's end, its capacity is read again");
    } else {
        op_end(op, -EIO);
    }
}

static void op_check(struct iscsi_op *op, const struct scsi_sense *sense)
{
    struct device_iscsi *d = op->device;
    static struct log_limit limit = {.interval_ns = NS_PER_S};
    switch ((int)sense->key) {
    case SCSI_SENSE_UNIT_ATTENTION:
        op_attention(op, sense->ascq);
        return;
    case SCSI_SENSE_RECOVERED_ERROR:
        op_part_done(op);
        return;
    case SCSI_SENSE_COMMAND_ABORTED:
        op_busy(op);
        return;
    case SCSI_SENSE_ILLEGAL_REQUEST:
        op_illegal(op, sense->ascq);
        return;
    case SCSI_SENSE_DATA_PROTECTION: /* 27/07: a thin LUN's pool is full */
        op_end(op, sense->ascq == 0x2707 ? -ENOSPC : -EIO);
        return;
    default:
        if (log_allow(d->env, &limit))
            log_warn(d->env, "array reports an error", "device=%s sense_key=%d ascq=0x%04x", d->dev.name,
                     (int)sense->key, (unsigned)sense->ascq);
        op_end(op, -EIO);
    }
}

static void op_conflict(struct iscsi_op *op)
{
    struct device_iscsi *d = op->device;
    if (d->dev.fence_state == DEVICE_FENCE_HELD) {
        d->dev.fence_state = DEVICE_FENCE_LOST;
        op_end(op, -ENODEV);
        iscsi_gone(d, "another one holds the reservation");
    } else {
        op_end(op, -EBUSY);
    }
}

static void on_io(struct iscsi_context *context, int status, void *data, void *arg)
{
    struct iscsi_op *op = arg;
    struct scsi_task *task = op->task;
    struct scsi_sense sense = task->sense;
    bool moved = task->residual_status == SCSI_RESIDUAL_NO_RESIDUAL || op->io->op == DEVICE_FLUSH ||
                 op->io->op == DEVICE_DISCARD;
    (void)context;
    (void)data;
    op->task = NULL;
    scsi_free_scsi_task(task);
    if (op->device->dropping)
        return;
    switch (status) {
    case SCSI_STATUS_GOOD:
        if (moved)
            op_part_done(op);
        else
            op_end(op, -EIO);
        break;
    case SCSI_STATUS_CHECK_CONDITION:
        op_check(op, &sense);
        break;
    case SCSI_STATUS_RESERVATION_CONFLICT:
        op_conflict(op);
        break;
    case SCSI_STATUS_BUSY:
    case SCSI_STATUS_TASK_SET_FULL:
        op_busy(op);
        break;
    default: /* cancelled, timed out, aborted by somebody: whether it happened is not known */
        list_push_back(&op->device->again, &op->link);
        iscsi_lose(op->device, status == SCSI_STATUS_TIMEOUT ? "a request was not answered in time"
                                                             : "the session failed");
    }
}

/* ---- starting requests ---- */

/* The part of op's buffers from op->transferred on, part bytes long; returns the number of pieces. */
static int slice(struct iscsi_op *op)
{
    uint64_t skip = op->transferred, left = op->part;
    int n = 0;
    for (int i = 0; i < op->io->iovcnt && left; i++) {
        const struct iovec *v = &op->io->iov[i];
        if (skip >= v->iov_len) {
            skip -= v->iov_len;
            continue;
        }
        uint64_t len = min_u64(v->iov_len - skip, left);
        op->iov[n].iov_base = (char *)v->iov_base + skip;
        op->iov[n++].iov_len = len;
        left -= len;
        skip = 0;
    }
    return n;
}

static struct scsi_task *start_transfer(struct device_iscsi *d, struct iscsi_op *op, uint64_t lba)
{
    uint64_t limit = d->limits.max_transfer ? (uint64_t)d->limits.max_transfer * d->dev.io_bytes : PART_MAX;
    op->part = min_u64(op->io->length - op->transferred, min_u64(limit, PART_MAX));
    int n = slice(op), block = (int)d->dev.io_bytes;
    if (op->io->op == DEVICE_READ)
        return iscsi_read16_iov_task(d->context, d->url.lun, lba, (uint32_t)op->part, block, 0, 0, 0, 0, 0,
                                     on_io, op, op->iov, n);
    return iscsi_write16_iov_task(d->context, d->url.lun, lba, NULL, (uint32_t)op->part, block, 0, 0, 0, 0, 0,
                                  on_io, op, op->iov, n);
}

static struct scsi_task *start_unmap(struct device_iscsi *d, struct iscsi_op *op, uint64_t lba)
{
    uint64_t blocks = (op->io->length - op->transferred) / d->dev.io_bytes;
    blocks = min_u64(blocks, d->limits.max_unmap ? d->limits.max_unmap : UINT32_MAX);
    op->part = blocks * d->dev.io_bytes;
    op->unmap = (struct unmap_list){.lba = lba, .num = (uint32_t)blocks};
    return iscsi_unmap_task(d->context, d->url.lun, 0, 0, &op->unmap, 1, on_io, op);
}

static void op_start(struct device_iscsi *d, struct iscsi_op *op)
{
    uint64_t lba = (op->io->offset + op->transferred) / d->dev.io_bytes;
    switch (op->io->op) {
    case DEVICE_READ:
    case DEVICE_WRITE:
        op->task = start_transfer(d, op, lba);
        break;
    case DEVICE_FLUSH:
        if (d->no_sync) {
            op_end(op, 0);
            return;
        }
        op->task = d->sync10 ? iscsi_synchronizecache10_task(d->context, d->url.lun, 0, 0, 0, 0, on_io, op)
                             : iscsi_synchronizecache16_task(d->context, d->url.lun, 0, 0, 0, 0, on_io, op);
        break;
    case DEVICE_DISCARD:
        op->task = start_unmap(d, op, lba);
        break;
    }
    if (!op->task)
        op_busy(op); /* out of memory */
}

void iscsi_start_waiting(struct device_iscsi *d)
{
    struct list *n;
    bool started = false;
    if (!d->context || d->lost)
        return;
    while (d->dev.link_state == DEVICE_LINK_UP && !d->lost) {
        struct iscsi_op *op;
        if ((n = list_pop_front(&d->again))) {
            op = list_entry(n, struct iscsi_op, link);
        } else if (!list_empty(&d->queue) && !list_empty(&d->free_ops)) {
            op = list_entry(list_pop_front(&d->free_ops), struct iscsi_op, link);
            op->io = list_entry(list_pop_front(&d->queue), struct device_io, link);
            op->transferred = op->part = 0;
            op->retries = 0;
        } else {
            break;
        }
        op_start(d, op);
        started = true;
    }
    if (started)
        iscsi_push(d);
}

static void on_flush(struct loop_poller *p)
{
    iscsi_start_waiting(container_of(p, struct device_iscsi, poller));
}

static bool on_arm(struct loop_poller *p)
{
    iscsi_start_waiting(container_of(p, struct device_iscsi, poller));
    return false;
}

/* ---- the task: what must not happen inside libiscsi ---- */

/* False: the device was destroyed in a callback. */
static bool deliver(struct device_iscsi *d, bool *destroyed)
{
    struct list batch, *n;
    list_init(&batch);
    list_splice(&batch, &d->completed);
    while ((n = list_pop_front(&batch))) {
        struct device_io *io = list_entry(n, struct device_io, link);
        int rc = (int)(int64_t)io->priv2;
        device_io_count(&d->dev, io, rc);
        io->done(io, rc);
        if (*destroyed)
            return false;
    }
    return true;
}

static void on_task(struct loop_task *task)
{
    struct device_iscsi *d = container_of(task, struct device_iscsi, task);
    bool destroyed = false;
    if (d->lost)
        iscsi_give_up(d);
    d->destroyed = &destroyed;
    if (!deliver(d, &destroyed))
        return;
    if (d->req_finished) {
        struct device_fence_request *req = d->req;
        d->req_finished = false;
        d->req = NULL;
        req->done(req, d->req_rc);
        if (destroyed)
            return;
    }
    if (d->changed) {
        d->changed = false;
        if (d->dev.changed)
            d->dev.changed(&d->dev, d->dev.changed_arg);
        if (destroyed)
            return;
    }
    d->destroyed = NULL;
}

/* ---- the device ---- */

static int iscsi_submit(struct device *dev, struct device_io *io)
{
    struct device_iscsi *d = iscsi_of(dev);
    if (dev->link_state == DEVICE_LINK_GONE)
        return -ENODEV;
    if (dev->link_state == DEVICE_LINK_DOWN || d->lost)
        return -ENOTCONN;
    int rc = device_io_check(dev, io);
    if (rc == 0)
        list_push_back(&d->queue, &io->link);
    return rc;
}

static void iscsi_free(struct device_iscsi *d)
{
    free(d->initiator);
    free(d->ops);
    explicit_bzero(d->secret, sizeof d->secret);
    free(d);
}

static void iscsi_destroy(struct device *dev)
{
    struct device_iscsi *d = iscsi_of(dev);
    struct loop *loop = d->env->loop;
    iscsi_drop_context(d);
    iscsi_session_fini(d);
    loop_timer_cancel(loop, &d->again_timer);
    loop_task_cancel(loop, &d->task);
    loop_poller_remove(loop, &d->poller);
    if (d->destroyed)
        *d->destroyed = true;
    iscsi_free(d);
}

static const struct device_ops iscsi_ops = {.submit = iscsi_submit, .destroy = iscsi_destroy};

static int read_options(struct device_iscsi *d, const struct device_iscsi_options *o)
{
    const char *why = "no URL";
    int rc = o->url ? iscsi_url_parse(o->url, &d->url, &why) : -EINVAL;
    if (rc == 0 && (!o->initiator || !*o->initiator || strlen(o->initiator) > 223)) {
        why = "no initiator name";
        rc = -EINVAL;
    }
    if (rc == 0 && (d->url.user[0] != 0) != (o->secret_file != NULL)) {
        why = "a user and a secret file belong together";
        rc = -EINVAL;
    }
    if (rc) {
        log_error(d->env, "LUN can not be used", "reason=\"%s\"", why);
        return rc;
    }
    size_t len = 0;
    if (o->secret_file)
        rc = config_read_secret(o->secret_file, d->secret, sizeof d->secret - 1, &len);
    if (rc)
        log_error(d->env, "can not read the CHAP secret", "file=%s error=%s", o->secret_file,
                  strerrorname_np(-rc));
    d->initiator = strdup(o->initiator);
    return rc ? rc : d->initiator ? 0 : -ENOMEM;
}

/* Once, at the start: libiscsi would ask the resolver, and block, at each connection. */
static int resolve(struct device_iscsi *d)
{
    char host[sizeof d->url.portal], number[NI_MAXHOST], port[8];
    char *colon = strrchr(d->url.portal, ':'), *name = host;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    snprintf(port, sizeof port, "%.6s", colon + 1);
    memcpy(host, d->url.portal, (size_t)(colon - d->url.portal));
    host[colon - d->url.portal] = 0;
    if (host[0] == '[') {
        name = host + 1;
        host[strlen(host) - 1] = 0;
    }
    int rc = getaddrinfo(name, port, &hints, &found);
    if (rc == 0)
        rc = getnameinfo(found->ai_addr, found->ai_addrlen, number, sizeof number, NULL, 0, NI_NUMERICHOST);
    if (rc) {
        log_error(d->env, "host is not known", "host=%s reason=\"%s\"", name, gai_strerror(rc));
        rc = -EHOSTUNREACH;
    } else {
        bool v6 = found->ai_family == AF_INET6;
        snprintf(d->url.portal, sizeof d->url.portal, v6 ? "[%.200s]:%s" : "%.200s:%s", number, port);
    }
    if (found)
        freeaddrinfo(found);
    return rc;
}

static int make_ops(struct device_iscsi *d, unsigned depth)
{
    d->depth = depth ? (unsigned)min_u64(depth, DEPTH_MAX) : DEPTH_DEFAULT;
    d->ops = calloc(d->depth, sizeof *d->ops);
    if (!d->ops)
        return -ENOMEM;
    for (unsigned i = 0; i < d->depth; i++) {
        d->ops[i].device = d;
        list_push_back(&d->free_ops, &d->ops[i].link);
    }
    return 0;
}

int device_open_iscsi(struct env *env, const struct device_iscsi_options *o, struct device **out)
{
    struct device_iscsi *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    d->env = env;
    list_init(&d->free_ops);
    list_init(&d->again);
    list_init(&d->busy);
    list_init(&d->queue);
    list_init(&d->completed);
    int rc = read_options(d, o);
    if (rc == 0)
        rc = resolve(d);
    if (rc == 0)
        rc = make_ops(d, o->depth);
    if (rc) {
        iscsi_free(d);
        return rc;
    }
    d->io_timeout_ns = o->io_timeout_ns ? o->io_timeout_ns : TIMEOUT_DEFAULT_S * NS_PER_S;
    d->isid = (uint32_t)rng_below(env->rng, 1u << 24);
    d->dev.ops = &iscsi_ops;
    d->dev.fence = &iscsi_fence_ops;
    d->dev.link_state = DEVICE_LINK_DOWN;
    d->dev.io_bytes = d->dev.atom_bytes = SECTOR_BYTES;
    d->dev.io_align = 1;
    snprintf(d->dev.name, sizeof d->dev.name, "%.60s/%.50s/%d", d->url.portal, d->url.target, d->url.lun);
    loop_task_init(&d->task, on_task);
    loop_timer_init(&d->again_timer, on_again_timer);
    iscsi_session_init(d);
    d->poller.flush = on_flush;
    d->poller.arm = on_arm;
    loop_poller_add(env->loop, &d->poller);
    *out = &d->dev;
    return 0;
}
