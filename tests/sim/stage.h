/*
 * stage.h: what plots (plots.h) are made of: looking at the cluster, operations of clients by order, and
 * waiting. All of them let time pass only where they say so; none may be called from an event or a handler.
 */
#ifndef CISTERN_TESTS_SIM_STAGE_H
#define CISTERN_TESTS_SIM_STAGE_H

#include "tests/sim/client.h"
#include "tests/sim/cluster.h"

/* The first client and the third go to the modules themselves, by the tables; the second goes through
 * gateways. */
enum { STAGE_FIRST, STAGE_BY_GATEWAY, STAGE_THIRD };

/* Who holds a partition, by the controller's table: processes, those in sync first, the primary before all.
 */
struct stage_cast {
    uint32_t partition;
    uint64_t epoch;
    unsigned count, in_sync;
    unsigned proc[8];
};

struct sim_proc *stage_client(struct sim_cluster *c, unsigned client);
/* False: the controller or the pool is not there. */
bool stage_cast(struct sim_cluster *c, unsigned volume, unsigned group, struct stage_cast *out);
struct rwm *stage_module(struct sim_cluster *c, unsigned proc);
struct rwm_copies *stage_copies(struct sim_cluster *c, const struct stage_cast *cast, unsigned place);

/* Let time pass, up to limit_ns; false: it did not come about (or a check failed). */
/* Every process is up, both volumes open everywhere, every member in sync. */
bool stage_ready(struct sim_cluster *c, uint64_t limit_ns);
/* Until is(c, arg), looking every step_ns. */
bool stage_until(struct sim_cluster *c, bool (*is)(struct sim_cluster *c, void *arg), void *arg,
                 uint64_t step_ns, uint64_t limit_ns);
/* An operation on a whole group, to its end. True: it went well. */
bool stage_do(struct sim_cluster *c, unsigned client, enum volume_op op, unsigned volume, unsigned group);
/* begun: what sim_client_do answered. */
bool stage_ended(struct sim_cluster *c, unsigned client, int begun, uint64_t limit_ns);
bool stage_detach(struct sim_cluster *c, unsigned volume, unsigned client, uint64_t limit_ns);
bool stage_admin_done(struct sim_cluster *c, uint64_t limit_ns);

/* At once. */
int stage_begin(struct sim_cluster *c, unsigned client, enum volume_op op, unsigned volume, unsigned group);
void stage_cut(struct sim_cluster *c, unsigned a, unsigned b);
void stage_delay(struct sim_cluster *c, unsigned from, unsigned to, uint64_t for_ns);
void stage_kill(struct sim_cluster *c, unsigned proc, bool power, uint64_t away_ns);
void stage_copy_store(struct sim_cluster *c);
/* The controller dies, and starts over that copy. */
void stage_restore_store(struct sim_cluster *c, uint64_t away_ns);

#endif
