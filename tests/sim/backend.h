/*
 * backend.h: how a simulated client reaches its volumes: by tables (the volume core in its own process) or
 * through the gateways, whose order differs from client to client.
 */
#ifndef CISTERN_TESTS_SIM_BACKEND_H
#define CISTERN_TESTS_SIM_BACKEND_H

#include "services/vbs/volume.h"
#include "tests/sim/cluster.h"

struct sim_backend;
struct sim_io {
    enum volume_op op;
    uint64_t offset, length;
    const struct fabric_sge *sge;
    void (*done)(struct sim_io *io, int rc);
    struct volume_request request;
};
/* The first client and those with an even number use tables, the others gateways. */
int sim_backend_create(struct sim_proc *p, struct sim_backend **out);
void sim_backend_destroy(struct sim_backend *b);
int sim_backend_open(struct sim_backend *b, unsigned volume, void (*done)(void *arg, unsigned volume, int rc),
                     void *arg);
int sim_backend_submit(struct sim_backend *b, unsigned volume, struct sim_io *io);
/* The session with the MDC of a client that has tables, else NULL. */
struct cluster *sim_backend_cluster(struct sim_backend *b);

#endif
