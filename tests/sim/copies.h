/* copies.h: all in-sync copies of a partition are the same, to the byte and to the version. */
#ifndef CISTERN_TESTS_SIM_COPIES_H
#define CISTERN_TESTS_SIM_COPIES_H

#include "tests/sim/cluster.h"

/* Steps the world by up to ns. False: a contradiction was seen. */
bool sim_advance(struct sim_cluster *c, uint64_t ns);
/* Reads every block of every module, as its store has it, and compares. Clients are idle, nothing goes wrong
 * any more. False: why says what differs. */
bool sim_copies_check(struct sim_cluster *c, char *why, size_t cap);

#endif
