/* setup.h: makes the pool and the volumes of a simulated cluster, through the first client's session. */
#ifndef CISTERN_TESTS_SIM_SETUP_H
#define CISTERN_TESTS_SIM_SETUP_H

#include "tests/sim/cluster.h"

void sim_setup_step(struct sim_cluster *c);
/* The name of a volume of the simulated cluster. */
const char *sim_volume_name(unsigned volume);

#endif
