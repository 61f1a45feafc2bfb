/* explain.h: what a stuck cluster waits for. */
#ifndef CISTERN_TESTS_SIM_EXPLAIN_H
#define CISTERN_TESTS_SIM_EXPLAIN_H

#include "tests/sim/cluster.h"

/* Who is dead, what each client waits for, what each module has in hand, and who holds whose promise. */
void sim_explain_stuck(struct sim_cluster *c, const char *when, char *out, size_t cap);

#endif
