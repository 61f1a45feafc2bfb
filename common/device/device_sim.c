#include "common/device/device_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/device/device_sim_internal.h"

enum { DELIVER_BURST = 32, SLOW_ONE_IN = 100, SLOW_TIMES = 10, PMEM_IO_BYTES = 64, PMEM_ATOM_BYTES = 8 };

static struct device_sim *sim_of(struct device *dev)
{
    return container_of(dev, struct device_sim, dev);
}

/* ---- time ---- */

uint64_t sim_latency_ns(struct sim_medium *m)
{
    uint64_t ns = m->latency_min_ns + rng_below(&m->rng, m->latency_max_ns - m->latency_min_ns);
    if (rng_chance(&m->rng, 1, SLOW_ONE_IN))
        ns *= SLOW_TIMES;
    return ns * m->slow_factor;
}

/* ---- landing ---- */

static void op_free(struct sim_op *op)
{
    sim_event_cancel(op->medium->world, &op->event);
    list_remove(&op->link);
    free(op->data);
    free(op);
}

/* On pmem, when it completes; what nobody waits for any more lies in the dead process's CPU cache: the next
 * flush, or a power loss, decides about it. */
static bool lands_durably(const struct sim_op *op)
{
    return op->medium->kind == SIM_MEDIUM_PMEM && op->device;
}

static int land_write(struct sim_medium *m, const struct sim_op *op, int rc)
{
    if (rc == 0)
        return medium_write(m->content, op->offset, op->data, op->length, lands_durably(op));
    if (rng_chance(&m->rng, 1, 2)) /* a failed write may have landed in part */
        medium_write_torn(m->content, op->offset, op->data, op->length, lands_durably(op), &m->rng);
    return rc;
}

static int land(struct sim_medium *m, struct sim_op *op)
{
    if (m->vanished)
        return -ENODEV;
    int rc = sim_lun_admit(m, op);
    if (rc)
        return rc; /* refused: nothing happened */
    rc = medium_fault(m->content, op->op, op->offset, op->length);
    switch (op->op) {
    case DEVICE_READ:
        if (rc == 0)
            medium_read(m->content, op->offset, op->data, op->length);
        return rc;
    case DEVICE_WRITE:
        return land_write(m, op, rc);
    case DEVICE_FLUSH:
        if (rc == 0)
            medium_flush(m->content, op->sequence);
        return rc;
    case DEVICE_DISCARD:
        if (rc == 0)
            medium_discard(m->content, op->offset, op->length, lands_durably(op), &m->rng);
        return rc;
    }
    MUST(!"unknown kind of request");
}

/* A request that nobody waits for any more: whole, in part, or not at all. */
static void land_orphan(struct sim_medium *m, struct sim_op *op)
{
    uint64_t roll = rng_below(&m->rng, 3);
    if (roll == 0)
        (void)land(m, op);
    else if (roll == 1 && op->op == DEVICE_WRITE && !m->vanished && sim_lun_admit(m, op) == 0)
        medium_write_torn(m->content, op->offset, op->data, op->length, lands_durably(op), &m->rng);
}

static void on_op(struct sim_event *ev)
{
    struct sim_op *op = container_of(ev, struct sim_op, event);
    struct sim_medium *m = op->medium;
    uint64_t now_ns = sim_world_now(m->world);
    if (m->stalled_until_ns > now_ns) {
        sim_event_schedule(m->world, ev, m->stalled_until_ns);
        return;
    }
    m->inflight_count--;
    if (!op->device) {
        land_orphan(m, op);
        op_free(op);
        return;
    }
    op->rc = land(m, op);
    list_remove(&op->link);
    list_push_back(&op->device->completed, &op->link);
    sim_loop_kick(op->device->env->loop);
}

/* Settles now what would land later. */
static void settle_orphans(struct sim_medium *m, bool all)
{
    list_for_each_safe(n, &m->inflight)
    {
        struct sim_op *op = list_entry(n, struct sim_op, link);
        if (op->device && !all)
            continue;
        land_orphan(m, op);
        m->inflight_count--;
        op_free(op);
    }
}

void sim_medium_settle(struct sim_medium *m)
{
    settle_orphans(m, false);
}

/* ---- the device ---- */

static void gather(struct sim_op *op, const struct device_io *io)
{
    uint64_t at = 0;
    op->data = malloc(io->length);
    MUST(op->data);
    if (io->op == DEVICE_READ)
        return;
    for (int i = 0; i < io->iovcnt; i++) {
        memcpy(op->data + at, io->iov[i].iov_base, io->iov[i].iov_len);
        at += io->iov[i].iov_len;
    }
}

static int sim_submit(struct device *dev, struct device_io *io)
{
    struct device_sim *d = sim_of(dev);
    if (dev->link_state == DEVICE_LINK_GONE)
        return -ENODEV;
    if (dev->link_state == DEVICE_LINK_DOWN)
        return -ENOTCONN;
    int rc = device_io_check(dev, io);
    if (rc)
        return rc;
    if (!d->medium)
        return 0; /* without power nothing is answered */
    struct sim_medium *m = d->medium;
    struct sim_op *op = calloc(1, sizeof *op);
    MUST(op);
    op->medium = m;
    op->device = d;
    op->io = io;
    op->op = io->op;
    op->nexus = d->nexus;
    op->offset = io->op == DEVICE_FLUSH ? 0 : io->offset;
    op->length = io->op == DEVICE_FLUSH ? 0 : io->length;
    op->sequence = medium_sequence(m->content);
    if (io->op == DEVICE_READ || io->op == DEVICE_WRITE)
        gather(op, io);
    list_push_back(&m->inflight, &op->link);
    m->inflight_count++;
    sim_event_init(&op->event, on_op);
    sim_event_schedule(m->world, &op->event, sim_world_now(m->world) + sim_latency_ns(m));
    return 0;
}

static void scatter(const struct sim_op *op)
{
    uint64_t at = 0;
    for (int i = 0; i < op->io->iovcnt; i++) {
        memcpy(op->io->iov[i].iov_base, op->data + at, op->io->iov[i].iov_len);
        at += op->io->iov[i].iov_len;
    }
}

/* False: destroyed in the callback. */
static bool deliver(struct device_sim *d, struct sim_op *op)
{
    struct device_io *io = op->io;
    int rc = op->rc;
    bool destroyed = false;
    if (op->op == DEVICE_READ && rc == 0)
        scatter(op);
    op_free(op);
    if (rc == -ENODEV && d->dev.link_state != DEVICE_LINK_GONE) {
        d->dev.link_state = DEVICE_LINK_GONE;
        d->changed = true;
    }
    device_io_count(&d->dev, io, rc);
    d->destroyed = &destroyed;
    io->done(io, rc);
    if (!destroyed)
        d->destroyed = NULL;
    return !destroyed;
}

static unsigned on_poll(struct loop_poller *p)
{
    struct device_sim *d = container_of(p, struct device_sim, poller);
    unsigned n = 0;
    struct list *first;
    while (n < DELIVER_BURST && (first = list_pop_front(&d->completed))) {
        n++;
        if (!deliver(d, list_entry(first, struct sim_op, link)))
            return n;
    }
    if (d->fence_finished) {
        n++;
        if (!sim_lun_deliver(d))
            return n;
    }
    if (d->changed) {
        n++;
        d->changed = false;
        if (d->dev.changed)
            d->dev.changed(&d->dev, d->dev.changed_arg); /* may destroy: nothing after it */
    }
    return n;
}

void sim_device_changed(struct device_sim *d)
{
    d->changed = true;
    sim_loop_kick(d->env->loop);
}

static void orphan(struct sim_op *op)
{
    op->device = NULL;
    op->io = NULL;
}

void sim_device_cut(struct device_sim *d)
{
    list_for_each(n, &d->medium->inflight)
    {
        struct sim_op *op = list_entry(n, struct sim_op, link);
        if (op->device != d)
            continue;
        /* The owner's half ends now; what travels on is the array's. */
        struct sim_op *end = calloc(1, sizeof *end);
        MUST(end);
        end->medium = op->medium;
        end->device = d;
        end->io = op->io;
        end->op = op->op;
        end->rc = -EIO;
        sim_event_init(&end->event, on_op);
        list_push_back(&d->completed, &end->link);
        orphan(op);
    }
    sim_loop_kick(d->env->loop);
}

/* The device has nothing to do with the medium any more. */
static void detach(struct device_sim *d)
{
    if (!d->medium)
        return;
    sim_lun_device_fini(d);
    list_for_each(n, &d->medium->inflight)
    {
        struct sim_op *op = list_entry(n, struct sim_op, link);
        if (op->device == d)
            orphan(op);
    }
    list_for_each_safe(n, &d->completed) op_free(list_entry(n, struct sim_op, link));
    list_remove(&d->link);
    d->medium = NULL;
}

static void sim_destroy(struct device *dev)
{
    struct device_sim *d = sim_of(dev);
    loop_poller_remove(d->env->loop, &d->poller);
    detach(d);
    if (d->destroyed)
        *d->destroyed = true;
    free(d);
}

static const struct device_ops sim_ops = {.submit = sim_submit, .destroy = sim_destroy};

int device_open_sim(struct env *env, struct sim_medium *m, struct device **out)
{
    MUST(loop_is_sim(env->loop) && sim_loop_world(env->loop) == m->world);
    if (m->vanished)
        return -ENODEV;
    if (m->kind != SIM_MEDIUM_LUN) {
        if (!list_empty(&m->devices))
            return -EBUSY;
        settle_orphans(m, false); /* the lock is given only when the dead process's last request has ended */
    }
    struct device_sim *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    d->env = env;
    d->medium = m;
    d->nexus = ++m->next_nexus;
    list_init(&d->completed);
    list_push_back(&m->devices, &d->link);
    d->dev.ops = &sim_ops;
    d->dev.size = medium_size(m->content);
    d->dev.io_bytes = medium_io_bytes(m->content);
    d->dev.io_align = 8;
    d->dev.atom_bytes = medium_atom_bytes(m->content);
    d->dev.durable_writes = m->kind == SIM_MEDIUM_PMEM;
    d->dev.can_discard = m->kind != SIM_MEDIUM_PMEM;
    snprintf(d->dev.name, sizeof d->dev.name, "%s", m->name);
    sim_lun_device_init(d);
    d->poller.poll = on_poll;
    loop_poller_add(env->loop, &d->poller);
    *out = &d->dev;
    return 0;
}

/* ---- the medium ---- */

struct sim_medium *sim_medium_create(struct sim_world *world, const struct sim_medium_options *o)
{
    static const uint64_t usual[][2] = {
        [SIM_MEDIUM_DISK] = {20 * NS_PER_US, 200 * NS_PER_US},
        [SIM_MEDIUM_PMEM] = {200, 2 * NS_PER_US},
        [SIM_MEDIUM_LUN] = {100 * NS_PER_US, 1000 * NS_PER_US},
    };
    bool pmem = o->kind == SIM_MEDIUM_PMEM;
    struct sim_medium *m = calloc(1, sizeof *m);
    MUST(m);
    m->world = world;
    m->kind = o->kind;
    m->content = medium_create(o->size,
                               pmem          ? PMEM_IO_BYTES
                               : o->io_bytes ? o->io_bytes
                                             : UNIT_BYTES,
                               pmem            ? PMEM_ATOM_BYTES
                               : o->atom_bytes ? o->atom_bytes
                                               : SECTOR_BYTES);
    m->latency_min_ns = o->latency_max_ns ? o->latency_min_ns : usual[o->kind][0];
    m->latency_max_ns = o->latency_max_ns ? o->latency_max_ns : usual[o->kind][1];
    MUST(m->latency_min_ns < m->latency_max_ns);
    m->slow_factor = 1;
    m->enforce = m->support = true;
    list_init(&m->inflight);
    list_init(&m->devices);
    snprintf(m->name, sizeof m->name, "%s", o->name ? o->name : "medium");
    sim_world_fork_rng(world, m->name, &m->rng);
    return m;
}

void sim_medium_destroy(struct sim_medium *m)
{
    if (!m)
        return;
    MUST(list_empty(&m->devices));
    list_for_each_safe(n, &m->inflight) op_free(list_entry(n, struct sim_op, link));
    medium_destroy(m->content);
    free(m);
}

unsigned sim_medium_inflight(const struct sim_medium *m)
{
    return m->inflight_count;
}

struct medium *sim_medium_content(struct sim_medium *m)
{
    return m->content;
}

void sim_medium_crash(struct sim_medium *m, struct rng *rng)
{
    if (m->kind == SIM_MEDIUM_LUN) {
        sim_lun_disconnect(m, false);
        settle_orphans(m, true);
        return;
    }
    list_for_each_safe(n, &m->devices) detach(list_entry(n, struct device_sim, link));
    settle_orphans(m, true);
    medium_crash(m->content, rng ? rng : &m->rng);
}

/* ---- faults ---- */

void sim_medium_fail_range(struct sim_medium *m, unsigned ops, uint64_t offset, uint64_t length, int rc)
{
    medium_fail_range(m->content, ops, offset, length, rc);
}

void sim_medium_fail_nth(struct sim_medium *m, enum device_op op, uint64_t n, int rc)
{
    medium_fail_nth(m->content, op, n, rc);
}

void sim_medium_rot(struct sim_medium *m, uint64_t offset, uint64_t length)
{
    medium_corrupt(m->content, offset, length, &m->rng);
}

void sim_medium_slow(struct sim_medium *m, uint64_t factor)
{
    m->slow_factor = max_u64(factor, 1);
}

void sim_medium_stall(struct sim_medium *m, uint64_t until_ns)
{
    m->stalled_until_ns = until_ns;
}

void sim_medium_limit(struct sim_medium *m, uint64_t bytes)
{
    medium_limit(m->content, bytes);
}

struct medium *sim_medium_snapshot(const struct sim_medium *m)
{
    struct medium *copy = medium_clone(m->content);
    medium_flush(copy, UINT64_MAX);
    return copy;
}

void sim_medium_restore(struct sim_medium *m, const struct medium *snapshot)
{
    MUST(list_empty(&m->devices));
    settle_orphans(m, true);
    if (snapshot)
        medium_restore(m->content, snapshot);
    else
        medium_blank(m->content);
}

void sim_medium_vanish(struct sim_medium *m)
{
    m->vanished = true;
    list_for_each(n, &m->devices)
    {
        struct device_sim *d = list_entry(n, struct device_sim, link);
        d->dev.link_state = DEVICE_LINK_GONE;
        sim_device_changed(d);
    }
}

void sim_medium_return(struct sim_medium *m)
{
    m->vanished = false;
}
