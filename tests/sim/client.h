/* client.h: a simulated client process. */
#ifndef CISTERN_TESTS_SIM_CLIENT_H
#define CISTERN_TESTS_SIM_CLIENT_H

#include "tests/sim/cluster.h"

/*
 * A write without an answer is repeated, and may act more than once before it is answered, as on any block
 * device with several paths; what overlaps it meanwhile is in no defined order with it. So the clients do
 * what filesystems do: nobody writes a sector while a write of it is under way. When its client died or was
 * told nothing, only the same host may write it again, and then the new association's turn must keep the old
 * write from acting.
 */
struct sim_claim {
    uint16_t client; /* number of the process, 0 = free */
    bool under_way;
};
struct sim_backend;
int sim_client_create(struct sim_proc *p, struct sim_client **out);
/* Any state. Writes without an answer go into the history as such. */
void sim_client_destroy(struct sim_client *c);
struct sim_backend *sim_client_backend(struct sim_client *c);
/* Its host was detached from volume at tick fenced: what it began with an open from before asked must not
 * happen any more. */
void sim_client_fenced(struct sim_client *c, unsigned volume, uint64_t asked, uint64_t fenced);
/* The parts of a volume beyond its first size, which come and go with it: SIM_EXTRA_MOST of them at most,
 * from 0 on. The first sector in the history, and how many; 0: the clients use none there. */
unsigned sim_client_extra(unsigned volume, unsigned part, uint32_t *first);
/* It does little but reading. */
bool sim_client_reads(const struct sim_client *c);
/* By order, where the cluster is quiet: begins op on a whole group (all of its sectors) of volume. A write of
 * what another one is writing becomes a read. A number for sim_client_result, or -EAGAIN: the volume is not
 * open, or four are under way. */
int sim_client_do(struct sim_client *c, enum volume_op op, unsigned volume, unsigned group);
/* How it ended, 0 or -errno; -EINPROGRESS: it has not. */
int sim_client_result(const struct sim_client *c, int number);
/* Both volumes. */
bool sim_client_is_open(const struct sim_client *c);
/* The groups: SIM_SMALL_GROUPS of 16 sectors, four in each of the first stripes of the volume (in its first
 * block, over the edges to the second and third, and over the end of the stripe), then SIM_BIG_GROUPS of one
 * whole block, each in a stripe of its own. */
#define SIM_SMALL_GROUPS 64u
#define SIM_BIG_GROUPS   8u
uint64_t sim_client_stripe(unsigned group);
/* No new operations from now on. */
void sim_client_drain(struct sim_client *c);
bool sim_client_idle(const struct sim_client *c);
/* Reads all that was ever written and records it; idle at the end. */
void sim_client_read_all(struct sim_client *c);
/* Then: discards both volumes, whole; idle at the end. */
void sim_client_clear_all(struct sim_client *c);
/* What it waits for, for a stuck run. */
void sim_client_explain(const struct sim_client *c, char *out, size_t cap);

#endif
