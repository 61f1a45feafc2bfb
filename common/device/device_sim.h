/*
 * device_sim.h: simulated media on the world's virtual time.
 *
 * A sim_medium is the thing in the machine room: it outlives processes. A process opens a device on it
 * (device_open_sim). Requests take a random time, and land and complete in any order. What the medium models:
 *  - power loss (sim_medium_crash): each unflushed write survives whole, in pieces of atom_bytes, or not;
 *  - death of the process (device_destroy with requests in flight): completed writes stay, those in flight
 * may land later, whole, torn or not at all, and not durably, were it pmem. A disk or pmem is locked until
 * then, so opening it settles them first; a LUN is not: they land in the successor's time, unless its fence
 * stops them;
 *  - failing, rotten, slow, full, rolled-back, blank, vanished media; sessions of LUNs that are lost;
 *  - persistent reservations of LUNs (fence.h): enforced, only pretended, or forgotten.
 * Everything random is drawn from a stream of the medium's own, forked from the world's.
 */
#ifndef CISTERN_COMMON_DEVICE_DEVICE_SIM_H
#define CISTERN_COMMON_DEVICE_DEVICE_SIM_H

#include "common/device/device.h"
#include "common/device/medium.h"
#include "common/sim.h"

struct sim_medium;

enum sim_medium_kind {
    SIM_MEDIUM_DISK, /* one process at a time; completed writes need a flush */
    SIM_MEDIUM_PMEM, /* one process at a time; completed writes are durable; atoms of 8 bytes, granularity 64
                      */
    SIM_MEDIUM_LUN,  /* any number of processes; hosts' power losses do not lose completed writes; fence.h */
};
struct sim_medium_options {
    enum sim_medium_kind kind;
    const char *name;    /* copied, at most 31 bytes */
    uint64_t size;       /* bytes */
    uint32_t io_bytes;   /* 0 = 4096 (pmem: always 64) */
    uint32_t atom_bytes; /* 0 = 512 (pmem: always 8) */
    /* Time of a request: uniform in [min, max), and one in a hundred ten times that. 0 = by kind. */
    uint64_t latency_min_ns, latency_max_ns;
};
/* Blank. Never NULL. Its devices must have been destroyed before it, and it before the world. */
struct sim_medium *sim_medium_create(struct sim_world *world, const struct sim_medium_options *options);
void sim_medium_destroy(struct sim_medium *m);
/* env->loop must be a sim loop of the medium's world. 0; -EBUSY: a living process has it open (not for LUNs);
 * -ENODEV: vanished. device_destroy is the process's death or its orderly close: what is in flight is in
 * nobody's hands from then on. */
int device_open_sim(struct env *env, struct sim_medium *m, struct device **out);
/* Requests that have not landed yet, those of dead processes included. */
unsigned sim_medium_inflight(const struct sim_medium *m);
/* For oracles: what a read would see. */
struct medium *sim_medium_content(struct sim_medium *m);

/* ---- power ---- */
/* Power loss of the host (disk, pmem): everything unflushed and in flight meets its fate. Devices open on it
 * are dead: their requests never complete; destroy them. On a LUN only what is in flight is settled, sessions
 * are lost. rng NULL: the medium's own stream. */
void sim_medium_crash(struct sim_medium *m, struct rng *rng);

/* ---- faults ---- */
/* As medium_fail_range and medium_fail_nth (medium.h). */
void sim_medium_fail_range(struct sim_medium *m, unsigned ops, uint64_t offset, uint64_t length, int rc);
void sim_medium_fail_nth(struct sim_medium *m, enum device_op op, uint64_t n, int rc);
/* Flips one bit in each started 512 bytes. */
void sim_medium_rot(struct sim_medium *m, uint64_t offset, uint64_t length);
/* Requests submitted from now on take so many times as long; 1 = normal. */
void sim_medium_slow(struct sim_medium *m, uint64_t factor);
/* Nothing lands before this moment of true time; what is due then lands after it, in its order. */
void sim_medium_stall(struct sim_medium *m, uint64_t until_ns);
/* Writes that need more than so much space fail with -ENOSPC; UINT64_MAX = no limit. */
void sim_medium_limit(struct sim_medium *m, uint64_t bytes);
/* A copy of the content as reads see it; medium_destroy frees it. */
struct medium *sim_medium_snapshot(const struct sim_medium *m);
/* A disk restored from a copy, or exchanged for a blank one (NULL). While no process has it open. */
void sim_medium_restore(struct sim_medium *m, const struct medium *snapshot);
/* Pulled out: everything fails with -ENODEV; open devices for good, new ones until it is put back. */
void sim_medium_vanish(struct sim_medium *m);
void sim_medium_return(struct sim_medium *m);

/* ---- LUNs ---- */
/* All sessions are lost; what is in flight may land yet. down: reconnecting fails until sim_lun_restore. */
void sim_lun_disconnect(struct sim_medium *m, bool down);
void sim_lun_restore(struct sim_medium *m);
/* The array was reset and has forgotten registrations and reservation; initiators learn it by a unit
 * attention. */
void sim_lun_forget(struct sim_medium *m);
/* false: reservations are accepted and not enforced. Default true. */
void sim_lun_enforce(struct sim_medium *m, bool enforce);
/* false: the array knows no reservations. Default true. */
void sim_lun_support(struct sim_medium *m, bool support);
uint64_t sim_lun_holder(const struct sim_medium *m); /* key; 0 = nobody */

#endif
