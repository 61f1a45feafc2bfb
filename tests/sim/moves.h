/* moves.h: what makes copies move: modules are emptied, removed, added again and weighed. */
#ifndef CISTERN_TESTS_SIM_MOVES_H
#define CISTERN_TESTS_SIM_MOVES_H

#include "tests/sim/cluster.h"

/* Does nothing unless the run is one with moves. */
void sim_moves_step(struct sim_cluster *c);
/* More partitions were asked for, and it is not known whether they are there: a copy of the store may be of
 * before. */
bool sim_moves_growing(const struct sim_cluster *c);

/* Emptied from now on, or not any more; or given that weight. Nothing, while something else is asked for. */
void sim_moves_drain(struct sim_cluster *c, uint32_t module, bool undo);
void sim_moves_weigh(struct sim_cluster *c, uint32_t module, uint64_t weight_bytes);

#endif
