/* admin.h: what an administrator does to the volumes while the clients use them. */
#ifndef CISTERN_TESTS_SIM_ADMIN_H
#define CISTERN_TESTS_SIM_ADMIN_H

#include "common/base.h"

struct sim_cluster;
/* Now and then begins an operation: grow, shrink (of what nobody uses), create, delete, detach. */
void sim_admin_step(struct sim_cluster *c);
/* Detaches some host now, unless an operation is under way. */
void sim_admin_detach_now(struct sim_cluster *c);
/* Detaches client's host from volume. False: an operation is under way. */
bool sim_admin_detach(struct sim_cluster *c, unsigned volume, unsigned client);
/* Empties a module. Likewise. */
bool sim_admin_drain(struct sim_cluster *c, uint32_t module);
/* Opens a volume, as a host that uses it would: a write turn is drawn. Likewise. */
bool sim_admin_open(struct sim_cluster *c, unsigned volume);
bool sim_admin_busy(const struct sim_cluster *c);
void sim_admin_destroy(struct sim_cluster *c);

#endif
