/* device_sim_internal.h: between the simulated medium (device_sim.c) and the reservations of LUNs
 * (device_sim_lun.c). */
#ifndef CISTERN_COMMON_DEVICE_DEVICE_SIM_INTERNAL_H
#define CISTERN_COMMON_DEVICE_DEVICE_SIM_INTERNAL_H

#include "common/device/device_sim.h"
#include "common/device/fence.h"

enum { SIM_LUN_REGISTRATIONS = 16 };

struct device_sim;

/* One request on its way. The medium's own copy of all that it needs: its process may be dead by the time it
 * lands. */
struct sim_op {
    struct list link; /* in medium->inflight; then in device->completed */
    struct sim_event event;
    struct sim_medium *medium;
    struct device_sim *device; /* NULL: the process or the session is gone */
    struct device_io *io;      /* NULL with device */
    enum device_op op;
    uint64_t nexus, offset, length, sequence;
    uint8_t *data; /* WRITE: at submission; READ: when it landed */
    int rc;
};

/* A registration belongs to the initiator's port that made it, not to one session. */
struct sim_registration {
    uint64_t nexus, key; /* key 0 = free */
};

struct sim_medium {
    struct sim_world *world;
    struct medium *content;
    struct rng rng;
    enum sim_medium_kind kind;
    char name[32];
    uint64_t latency_min_ns, latency_max_ns, slow_factor, stalled_until_ns;
    struct list inflight; /* of sim_op, in order of submission */
    unsigned inflight_count;
    struct list devices; /* of device_sim */
    bool vanished;
    uint64_t next_nexus;
    /* LUN */
    bool down, enforce, support;
    struct sim_registration registrations[SIM_LUN_REGISTRATIONS];
    uint64_t holder; /* key */
    uint64_t generation;
};

enum sim_fence_step {
    SIM_FENCE_IDLE,
    SIM_FENCE_READ,
    SIM_FENCE_TAKE,
    SIM_FENCE_LINK,
    SIM_FENCE_CHECK,
    SIM_FENCE_RELEASE
};

struct device_sim {
    struct device dev;
    struct env *env;
    struct sim_medium *medium; /* NULL: power was lost, or the medium destroyed */
    struct list link;          /* in medium->devices */
    uint64_t nexus;
    struct list completed; /* of sim_op, for the poller */
    struct loop_poller poller;
    bool *destroyed;
    bool changed;   /* device->changed is due */
    bool attention; /* LUN: the next request meets a unit attention */
    /* the fence request under way */
    struct device_fence_request *fence_req;
    enum sim_fence_step fence_step;
    struct sim_event fence_event;
    uint64_t fence_wanted, fence_generation;
    unsigned fence_tries;
    bool fence_finished;
    int fence_rc;
};

/* A random time for one exchange with the medium. */
uint64_t sim_latency_ns(struct sim_medium *m);
/* The owner is told on its loop. */
void sim_device_changed(struct device_sim *d);
/* Ends what is under way: -EIO to the owner, while the medium may carry it out yet. */
void sim_device_cut(struct device_sim *d);
/* What dead processes left under way lands, or does not, now. */
void sim_medium_settle(struct sim_medium *m);
/* Whether the medium takes a request of this nexus: 0, or the rc it ends with (reservation conflict, unit
 * attention). */
int sim_lun_admit(struct sim_medium *m, const struct sim_op *op);
void sim_lun_device_init(struct device_sim *d);
void sim_lun_device_fini(struct device_sim *d);
/* Calls the done of a finished fence request, if there is one; false: the device was destroyed in it. */
bool sim_lun_deliver(struct device_sim *d);

#endif
