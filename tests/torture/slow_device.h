/* slow_device.h: stands in front of a device and holds some requests back for long, as a disk does that
 * retries a sector. */
#ifndef CISTERN_TESTS_SLOW_DEVICE_H
#define CISTERN_TESTS_SLOW_DEVICE_H

#include "common/device/device.h"
#include "common/rng.h"

struct slow_device {
    struct device dev;
    struct device *inner;
    struct list held;
    struct rng rng;
    uint64_t hold; /* one in so many requests; 0 = none */
};

static inline int slow_submit(struct device *dev, struct device_io *io)
{
    struct slow_device *d = container_of(dev, struct slow_device, dev);
    int rc = device_io_check(d->inner, io);
    if (rc)
        return rc;
    if (!d->hold || !rng_chance(&d->rng, 1, d->hold))
        return device_submit(d->inner, io);
    list_push_back(&d->held, &io->link);
    return 0;
}

static inline void slow_destroy(struct device *dev)
{
    device_destroy(container_of(dev, struct slow_device, dev)->inner);
}

static inline void slow_init(struct slow_device *d, struct device *inner, uint64_t seed, uint64_t hold)
{
    static const struct device_ops ops = {.submit = slow_submit, .destroy = slow_destroy};
    d->dev = *inner;
    d->dev.ops = &ops;
    d->inner = inner;
    d->hold = hold;
    list_init(&d->held);
    rng_seed(&d->rng, seed);
}

/* A device that is gone meanwhile says so now. */
static inline void slow_let_go(struct slow_device *d, struct device_io *io)
{
    int rc = device_submit(d->inner, io);
    if (rc)
        io->done(io, rc);
}

/* Lets each held request go with chance 1 in n. */
static inline void slow_release(struct slow_device *d, uint64_t n)
{
    struct list again;
    list_init(&again);
    while (!list_empty(&d->held)) {
        struct list *l = list_pop_front(&d->held);
        if (rng_chance(&d->rng, 1, n))
            slow_let_go(d, list_entry(l, struct device_io, link));
        else
            list_push_back(&again, l);
    }
    list_splice(&d->held, &again);
}

#endif
