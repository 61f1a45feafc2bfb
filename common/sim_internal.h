/* sim_internal.h: between the world (sim_world.c) and its loops (loop_sim.c). */
#ifndef CISTERN_COMMON_SIM_INTERNAL_H
#define CISTERN_COMMON_SIM_INTERNAL_H

#include "common/sim.h"
#include "common/timer_heap.h"

struct sim_world {
    uint64_t seed;
    uint64_t now_ns;
    uint64_t steps;
    uint64_t forks;
    struct rng rng;
    struct timer_heap events;
    size_t loops;
    bool stepping;
};

#endif
