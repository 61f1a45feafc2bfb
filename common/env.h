/*
 * env.h: all that is not a pure function of its inputs, given to every constructor.
 *
 * Service code never calls time, random, sockets or files itself: it uses what is here. Production fills it
 * with real providers (services' mains), the simulator with simulated ones (tests/sim). One env belongs to
 * one shard.
 */
#ifndef CISTERN_COMMON_ENV_H
#define CISTERN_COMMON_ENV_H

#include "common/base.h"

struct loop;
struct rng;
struct fabric;
struct trace;
struct resolver;

struct env {
    struct loop *loop;               /* clock, timers, tasks */
    struct rng *rng;                 /* randomness */
    struct fabric *fabric;           /* this shard's endpoint; NULL in tools that have none */
    struct trace *trace;             /* may be NULL */
    const struct resolver *resolver; /* names of hosts (resolve.h); NULL: addresses are numbers only */
    const char *name;                /* for logs: "osd1", "mdc" ...; outlives the env */
};

#endif
