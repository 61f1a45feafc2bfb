/*
 * device_sim_lun.c: sessions and persistent reservations of simulated LUNs.
 *
 * What an initiator does against a real array is a sequence of commands, and two of them may race: so here
 * too the keys are read in one step and taken in another, which fails when they have changed in between.
 */
#include <stdlib.h>
#include <string.h>

#include "common/device/device_sim_internal.h"

enum { TRIES_MAX = 8, RETRY_MIN_MS = 10, RETRY_MAX_MS = 640 };

static struct sim_registration *registration_of(struct sim_medium *m, uint64_t nexus)
{
    for (unsigned i = 0; i < SIM_LUN_REGISTRATIONS; i++) {
        if (m->registrations[i].key && m->registrations[i].nexus == nexus)
            return &m->registrations[i];
    }
    return NULL;
}

static uint64_t greatest_key(const struct sim_medium *m)
{
    uint64_t key = 0;
    for (unsigned i = 0; i < SIM_LUN_REGISTRATIONS; i++)
        key = max_u64(key, m->registrations[i].key);
    return key;
}

static bool set_fence(struct device_sim *d, enum device_fence_state state)
{
    bool changed = d->dev.fence_state != state;
    d->dev.fence_state = state;
    return changed;
}

static void lose(struct device_sim *d)
{
    d->dev.link_state = DEVICE_LINK_GONE;
    set_fence(d, DEVICE_FENCE_LOST);
    sim_device_changed(d);
}

static void make_uncertain(struct device_sim *d)
{
    if (d->dev.link_state == DEVICE_LINK_GONE)
        return;
    d->dev.link_state = DEVICE_LINK_DOWN;
    if (d->dev.fence_state == DEVICE_FENCE_HELD)
        set_fence(d, DEVICE_FENCE_UNCERTAIN);
    sim_device_changed(d);
}

int sim_lun_admit(struct sim_medium *m, const struct sim_op *op)
{
    if (m->kind != SIM_MEDIUM_LUN)
        return 0;
    if (op->device && op->device->attention) {
        op->device->attention = false;
        make_uncertain(op->device);
        return -EIO;
    }
    if (!m->enforce || m->holder == 0 || registration_of(m, op->nexus))
        return 0;
    if (op->device)
        lose(op->device);
    return -ENODEV; /* reservation conflict */
}

/* ---- steps of a fence request ---- */

static void schedule_step(struct device_sim *d, enum sim_fence_step step, uint64_t extra_ns)
{
    d->fence_step = step;
    sim_event_schedule(d->medium->world, &d->fence_event,
                       sim_world_now(d->medium->world) + sim_latency_ns(d->medium) + extra_ns);
}

static void finish(struct device_sim *d, int rc)
{
    d->fence_step = SIM_FENCE_IDLE;
    d->fence_rc = rc;
    d->fence_finished = true;
    sim_loop_kick(d->env->loop);
}

bool sim_lun_deliver(struct device_sim *d)
{
    struct device_fence_request *req = d->fence_req;
    bool destroyed = false;
    d->fence_finished = false;
    d->fence_req = NULL;
    d->destroyed = &destroyed;
    req->done(req, d->fence_rc);
    if (!destroyed)
        d->destroyed = NULL;
    return !destroyed;
}

/* REGISTER, and READ KEYS. */
static void step_read(struct device_sim *d)
{
    struct sim_medium *m = d->medium;
    if (!m->support) {
        set_fence(d, DEVICE_FENCE_UNSUPPORTED);
        finish(d, -ENOTSUP);
        return;
    }
    if (greatest_key(m) > d->fence_wanted) {
        finish(d, -ESTALE);
        return;
    }
    struct sim_registration *r = registration_of(m, d->nexus);
    for (unsigned i = 0; !r && i < SIM_LUN_REGISTRATIONS; i++) {
        if (m->registrations[i].key == 0)
            r = &m->registrations[i];
    }
    if (!r) {
        finish(d, -ENOSPC);
        return;
    }
    /* A holder that registers another key stays the holder. */
    if (r->key && r->key == m->holder)
        m->holder = d->fence_wanted;
    *r = (struct sim_registration){.nexus = d->nexus, .key = d->fence_wanted};
    d->fence_generation = ++m->generation;
    schedule_step(d, SIM_FENCE_TAKE, 0);
}

/* RESERVE or PREEMPT AND ABORT of the keys that were read. */
static void step_take(struct device_sim *d)
{
    struct sim_medium *m = d->medium;
    struct sim_registration *own = registration_of(m, d->nexus);
    if (m->generation != d->fence_generation || !own) {
        if (++d->fence_tries < TRIES_MAX)
            schedule_step(d, SIM_FENCE_READ, 0);
        else
            finish(d, -EBUSY);
        return;
    }
    for (unsigned i = 0; i < SIM_LUN_REGISTRATIONS; i++) {
        if (&m->registrations[i] != own)
            m->registrations[i].key = 0;
    }
    m->holder = d->fence_wanted;
    m->generation++;
    d->dev.fence_key = d->fence_wanted;
    d->attention = false;
    set_fence(d, DEVICE_FENCE_HELD);
    finish(d, 0);
}

static void step_link(struct device_sim *d)
{
    struct sim_medium *m = d->medium;
    if (m->down) {
        uint64_t pause_ms = (uint64_t)RETRY_MIN_MS << min_u64(d->fence_tries++, 6);
        schedule_step(d, SIM_FENCE_LINK, min_u64(pause_ms, RETRY_MAX_MS) * NS_PER_MS);
        return;
    }
    d->attention = false;
    schedule_step(d, SIM_FENCE_CHECK, 0);
}

static void step_check(struct device_sim *d)
{
    struct sim_medium *m = d->medium;
    if (m->down) {
        schedule_step(d, SIM_FENCE_LINK, 0);
        return;
    }
    bool asked = d->dev.fence_state == DEVICE_FENCE_UNCERTAIN || d->dev.fence_state == DEVICE_FENCE_HELD;
    struct sim_registration *own = registration_of(m, d->nexus);
    if (asked && (!own || own->key != d->dev.fence_key || m->holder != d->dev.fence_key)) {
        lose(d);
        finish(d, -ENODEV);
        return;
    }
    if (asked)
        set_fence(d, DEVICE_FENCE_HELD);
    d->dev.link_state = DEVICE_LINK_UP;
    finish(d, 0);
}

static void step_release(struct device_sim *d)
{
    struct sim_medium *m = d->medium;
    struct sim_registration *own = registration_of(m, d->nexus);
    if (own) {
        if (m->holder == own->key)
            m->holder = 0;
        own->key = 0;
        m->generation++;
    }
    set_fence(d, DEVICE_FENCE_NONE);
    d->dev.fence_key = 0;
    finish(d, 0);
}

static void on_step(struct sim_event *ev)
{
    struct device_sim *d = container_of(ev, struct device_sim, fence_event);
    struct sim_medium *m = d->medium;
    if (m->vanished) {
        finish(d, -ENODEV);
        return;
    }
    if (d->dev.link_state == DEVICE_LINK_DOWN && d->fence_step != SIM_FENCE_LINK &&
        d->fence_step != SIM_FENCE_CHECK) {
        finish(d, -ENOTCONN);
        return;
    }
    switch (d->fence_step) {
    case SIM_FENCE_IDLE:
        break;
    case SIM_FENCE_READ:
        step_read(d);
        break;
    case SIM_FENCE_TAKE:
        step_take(d);
        break;
    case SIM_FENCE_LINK:
        step_link(d);
        break;
    case SIM_FENCE_CHECK:
        step_check(d);
        break;
    case SIM_FENCE_RELEASE:
        step_release(d);
        break;
    }
}

static int start(struct device *dev, enum sim_fence_step step, struct device_fence_request *req)
{
    struct device_sim *d = container_of(dev, struct device_sim, dev);
    if (!d->medium || dev->link_state == DEVICE_LINK_GONE)
        return -ENODEV;
    if (dev->link_state == DEVICE_LINK_DOWN && step != SIM_FENCE_LINK)
        return -ENOTCONN;
    if (d->fence_req)
        return -EBUSY;
    d->fence_req = req;
    d->fence_tries = 0;
    schedule_step(d, step, 0);
    return 0;
}

static int lun_acquire(struct device *dev, uint64_t key, struct device_fence_request *req)
{
    int rc = start(dev, SIM_FENCE_READ, req);
    if (rc == 0)
        container_of(dev, struct device_sim, dev)->fence_wanted = key;
    return rc;
}

static int lun_reconnect(struct device *dev, struct device_fence_request *req)
{
    return start(dev, SIM_FENCE_LINK, req);
}

static int lun_release(struct device *dev, struct device_fence_request *req)
{
    return start(dev, SIM_FENCE_RELEASE, req);
}

static const struct device_fence_ops lun_fence = {
    .acquire = lun_acquire, .reconnect = lun_reconnect, .release = lun_release};

void sim_lun_device_init(struct device_sim *d)
{
    sim_event_init(&d->fence_event, on_step);
    if (d->medium->kind == SIM_MEDIUM_LUN)
        d->dev.fence = &lun_fence;
    if (d->medium->down)
        d->dev.link_state = DEVICE_LINK_DOWN;
}

/* The registration stays: the array does not know that the process died. */
void sim_lun_device_fini(struct device_sim *d)
{
    sim_event_cancel(d->medium->world, &d->fence_event);
    d->fence_req = NULL;
    d->fence_finished = false;
}

/* ---- faults ---- */

void sim_lun_disconnect(struct sim_medium *m, bool down)
{
    m->down = down;
    list_for_each(n, &m->devices)
    {
        struct device_sim *d = list_entry(n, struct device_sim, link);
        sim_device_cut(d);
        make_uncertain(d);
    }
}

void sim_lun_restore(struct sim_medium *m)
{
    m->down = false;
}

void sim_lun_forget(struct sim_medium *m)
{
    sim_medium_settle(m); /* a reset ends what is under way of those who are gone */
    memset(m->registrations, 0, sizeof m->registrations);
    m->holder = 0;
    m->generation = 0;
    list_for_each(n, &m->devices) list_entry(n, struct device_sim, link)->attention = true;
}

void sim_lun_enforce(struct sim_medium *m, bool enforce)
{
    m->enforce = enforce;
}

void sim_lun_support(struct sim_medium *m, bool support)
{
    m->support = support;
}

uint64_t sim_lun_holder(const struct sim_medium *m)
{
    return m->holder;
}
