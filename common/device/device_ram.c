#include "common/device/device_ram.h"

#include <stdlib.h>
#include <string.h>

#include "common/loop.h"

/* One submitted request. The device's own copy: io is not touched any more once the device has crashed. */
struct ram_op {
    struct list link;
    struct device_io *io;
    enum device_op op;
    uint64_t offset, length;
    uint64_t sequence; /* of the medium, at submission: what a flush covers */
    uint8_t *data;     /* WRITE */
};
struct device_ram {
    struct device dev;
    struct medium *medium;
    struct list pending;
    unsigned pending_count;
    bool ordered, crashed, vanished;
    struct rng rng;
    uint64_t persists, crash_at; /* crash_at 0 = never */
    bool *gone;                  /* set by destroy when it runs inside a callback of the pump */
    struct loop *loop;
    struct loop_task task;
};

enum { ATTACHED_BURST = 16 };

static struct device_ram *ram_of(const struct device *dev)
{
    return container_of(dev, struct device_ram, dev);
}

static int ram_submit(struct device *dev, struct device_io *io)
{
    struct device_ram *r = ram_of(dev);
    if (r->vanished)
        return -ENODEV;
    int rc = device_io_check(dev, io);
    if (rc)
        return rc;
    struct ram_op *op = calloc(1, sizeof *op);
    MUST(op);
    op->io = io;
    op->op = io->op;
    op->offset = io->offset;
    op->length = io->length;
    op->sequence = medium_sequence(r->medium);
    if (io->op == DEVICE_WRITE) {
        op->data = malloc(io->length);
        MUST(op->data);
        uint64_t at = 0;
        for (int i = 0; i < io->iovcnt; i++) {
            memcpy(op->data + at, io->iov[i].iov_base, io->iov[i].iov_len);
            at += io->iov[i].iov_len;
        }
    }
    list_push_back(&r->pending, &op->link);
    r->pending_count++;
    if (r->loop)
        loop_defer(r->loop, &r->task);
    return 0;
}

static void op_forget(struct device_ram *r, struct ram_op *op)
{
    list_remove(&op->link);
    r->pending_count--;
    free(op->data);
    free(op);
}

static void ram_destroy(struct device *dev)
{
    struct device_ram *r = ram_of(dev);
    device_ram_attach(dev, NULL);
    if (r->gone)
        *r->gone = true;
    list_for_each_safe(n, &r->pending) op_forget(r, list_entry(n, struct ram_op, link));
    medium_destroy(r->medium);
    free(r);
}

static const struct device_ops ram_ops = {.submit = ram_submit, .destroy = ram_destroy};

static void ram_attached(struct loop_task *task)
{
    struct device_ram *r = container_of(task, struct device_ram, task);
    if (r->pending_count > ATTACHED_BURST && !r->crashed)
        loop_defer(r->loop, &r->task); /* before the callbacks, which may destroy the device */
    device_ram_pump(&r->dev, ATTACHED_BURST);
}

static struct device_ram *ram_new(struct medium *medium, uint64_t seed)
{
    struct device_ram *r = calloc(1, sizeof *r);
    MUST(r);
    r->medium = medium;
    r->dev.ops = &ram_ops;
    r->dev.size = medium_size(medium);
    r->dev.io_bytes = medium_io_bytes(medium);
    r->dev.io_align = 8;
    r->dev.atom_bytes = medium_atom_bytes(medium);
    r->dev.can_discard = true;
    memcpy(r->dev.name, "ram", 4);
    list_init(&r->pending);
    r->ordered = seed == 0;
    rng_seed(&r->rng, seed);
    loop_task_init(&r->task, ram_attached);
    return r;
}

struct device *device_ram_create(uint64_t size, uint32_t io_bytes, uint32_t atom_bytes, uint64_t seed)
{
    return &ram_new(medium_create(size, io_bytes, atom_bytes), seed)->dev;
}

static int op_write(struct device_ram *r, const struct ram_op *op, int rc)
{
    bool durable = r->dev.durable_writes;
    if (rc == 0)
        return medium_write(r->medium, op->offset, op->data, op->length, durable);
    if (rng_chance(&r->rng, 1, 2)) /* a failed write may have landed in part */
        medium_write_torn(r->medium, op->offset, op->data, op->length, durable, &r->rng);
    return rc;
}

static void op_read(struct device_ram *r, const struct ram_op *op)
{
    uint64_t at = op->offset;
    for (int i = 0; i < op->io->iovcnt; i++) {
        medium_read(r->medium, at, op->io->iov[i].iov_base, op->io->iov[i].iov_len);
        at += op->io->iov[i].iov_len;
    }
}

static int op_apply(struct device_ram *r, const struct ram_op *op)
{
    if (r->vanished)
        return -ENODEV;
    int rc = medium_fault(r->medium, op->op, op->offset, op->length);
    switch (op->op) {
    case DEVICE_READ:
        if (rc == 0)
            op_read(r, op);
        return rc;
    case DEVICE_WRITE:
        return op_write(r, op, rc);
    case DEVICE_FLUSH:
        if (rc == 0)
            medium_flush(r->medium, op->sequence);
        return rc;
    case DEVICE_DISCARD:
        if (rc == 0)
            medium_discard(r->medium, op->offset, op->length, r->dev.durable_writes,
                           r->ordered ? NULL : &r->rng);
        return rc;
    }
    MUST(!"unknown kind of request");
}

static struct ram_op *ram_pick(struct device_ram *r)
{
    struct list *n = r->pending.next;
    for (uint64_t skip = r->ordered ? 0 : rng_below(&r->rng, r->pending_count); skip; skip--)
        n = n->next;
    return list_entry(n, struct ram_op, link);
}

unsigned device_ram_pump(struct device *dev, unsigned max)
{
    struct device_ram *r = ram_of(dev);
    unsigned completed = 0;
    bool gone = false;
    MUST(!r->gone); /* not from inside a callback */
    r->gone = &gone;
    while (completed < max && !r->crashed && r->pending_count) {
        struct ram_op *op = ram_pick(r);
        struct device_io *io = op->io;
        int rc = op_apply(r, op);
        device_io_count(dev, io, rc);
        bool last = op->op != DEVICE_READ && ++r->persists == r->crash_at;
        op_forget(r, op);
        completed++;
        io->done(io, rc);
        if (gone)
            return completed;
        if (last)
            r->crashed = true;
    }
    r->gone = NULL;
    return completed;
}

unsigned device_ram_pending(const struct device *dev)
{
    return ram_of(dev)->pending_count;
}

void device_ram_attach(struct device *dev, struct loop *loop)
{
    struct device_ram *r = ram_of(dev);
    if (r->loop)
        loop_task_cancel(r->loop, &r->task);
    r->loop = loop;
    if (loop && r->pending_count)
        loop_defer(loop, &r->task);
}

void device_ram_crash_after(struct device *dev, uint64_t n_persists)
{
    struct device_ram *r = ram_of(dev);
    r->crash_at = n_persists ? r->persists + n_persists : 0;
}

bool device_ram_crashed(const struct device *dev)
{
    return ram_of(dev)->crashed;
}

uint64_t device_ram_persists(const struct device *dev)
{
    return ram_of(dev)->persists;
}

/* Pending writes and discards reach the medium: whole, torn or not. Never durably: where completion means
 * durable (pmem), they lie in the CPU's cache. */
static void land_pending(const struct device_ram *r, struct medium *m, struct rng *rng)
{
    list_for_each(n, &r->pending)
    {
        const struct ram_op *op = list_entry(n, struct ram_op, link);
        uint64_t roll = rng_below(rng, 3);
        if (op->op == DEVICE_WRITE && roll == 0)
            (void)medium_write(m, op->offset, op->data, op->length, false);
        else if (op->op == DEVICE_WRITE && roll == 1)
            medium_write_torn(m, op->offset, op->data, op->length, false, rng);
        else if (op->op == DEVICE_DISCARD && roll == 0)
            medium_discard(m, op->offset, op->length, false, rng);
        else if (op->op == DEVICE_FLUSH && roll == 0)
            medium_flush(m, op->sequence);
    }
}

struct device *device_ram_crash_image(const struct device *dev, uint64_t seed)
{
    const struct device_ram *r = ram_of(dev);
    struct rng rng;
    rng_seed(&rng, seed ^ 0x6372617368ull);
    struct medium *m = medium_clone(r->medium);
    land_pending(r, m, &rng);
    medium_crash(m, &rng);
    struct device_ram *image = ram_new(m, seed);
    image->dev.io_align = dev->io_align;
    image->dev.atom_bytes = dev->atom_bytes;
    image->dev.durable_writes = dev->durable_writes;
    image->dev.can_discard = dev->can_discard;
    image->dev.rotational = dev->rotational;
    return &image->dev;
}

void device_ram_kill(struct device *dev, uint64_t seed)
{
    struct device_ram *r = ram_of(dev);
    struct rng rng;
    rng_seed(&rng, seed ^ 0x6b696c6cull);
    land_pending(r, r->medium, &rng);
    list_for_each_safe(n, &r->pending) op_forget(r, list_entry(n, struct ram_op, link));
    if (r->loop)
        loop_task_cancel(r->loop, &r->task);
    r->crashed = false;
    r->crash_at = 0;
}

void device_ram_corrupt(struct device *dev, uint64_t offset, uint64_t len, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed ^ 0x726f74ull);
    medium_corrupt(ram_of(dev)->medium, offset, len, &rng);
}

void device_ram_fail_range(struct device *dev, uint64_t offset, uint64_t len, int rc)
{
    unsigned ops = 1u << DEVICE_READ | 1u << DEVICE_WRITE | 1u << DEVICE_DISCARD;
    medium_fail_range(ram_of(dev)->medium, ops, offset, len, rc);
}

void device_ram_fail_nth(struct device *dev, enum device_op op, uint64_t n, int rc)
{
    medium_fail_nth(ram_of(dev)->medium, op, n, rc);
}

void device_ram_vanish(struct device *dev)
{
    ram_of(dev)->vanished = true;
}

struct medium *device_ram_medium(struct device *dev)
{
    return ram_of(dev)->medium;
}
