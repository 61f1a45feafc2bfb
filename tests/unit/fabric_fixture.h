/* fabric_fixture.h: a few endpoints on one network, tcp on a real loop or simulated, for the tests of rdma/.
 */
#ifndef CISTERN_TESTS_FABRIC_FIXTURE_H
#define CISTERN_TESTS_FABRIC_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/env.h"
#include "common/loop.h"
#include "common/rng.h"
#include "common/sim.h"
#include "rdma/fabric.h"
#include "rdma/fabric_provider.h"
#include "rdma/fabric_sim.h"

/* Tests of verbs run where there is an RDMA device: this says its address. */
#define NET_RDMA_ENV "CISTERN_TEST_RDMA"
static bool net_verbs; /* real networks of the test that runs are verbs, not tcp */

#define NET_ENDS 4
struct net {
    bool sim;
    struct sim_world *world;
    struct sim_net *net;
    bool paused[NET_ENDS]; /* tcp: that end's loop is not run */
    struct rng rng;
    struct env env[NET_ENDS];
    struct fabric_config config[NET_ENDS];
    struct fabric *f[NET_ENDS];
};

static inline void net_config(struct fabric_config *c, enum fabric_role role)
{
    memset(c, 0, sizeof(*c));
    memset(c->cluster.b, 7, 16);
    memcpy(c->secret, "sesame", 6);
    c->secret_len = 6;
    c->role = role;
    c->incarnation = 99;
}

static inline void net_init(struct net *n, bool sim, uint64_t seed)
{
    memset(n, 0, sizeof(*n));
    n->sim = sim;
    rng_seed(&n->rng, seed);
    if (sim) {
        assert_int_equal(sim_world_create(seed, &n->world), 0);
        assert_int_equal(sim_net_create(n->world, &n->net), 0);
    }
    for (int i = 0; i < NET_ENDS; i++)
        net_config(&n->config[i], i == 0 ? FABRIC_ROLE_MODULE : FABRIC_ROLE_VBS);
}

/* End i is host i + 1 when simulated. */
static inline struct fabric *net_start(struct net *n, int i)
{
    static const char *const names[NET_ENDS] = {"end0", "end1", "end2", "end3"};
    struct env *e = &n->env[i];
    e->name = names[i];
    e->rng = &n->rng;
    if (n->sim) {
        assert_int_equal(loop_create_sim(n->world, names[i], 0, &e->loop), 0);
        assert_int_equal(fabric_create_sim(e, n->net, (uint32_t)i + 1, &n->config[i], &n->f[i]), 0);
    } else {
        assert_int_equal(loop_create_real(NULL, &e->loop), 0);
        assert_int_equal(net_verbs ? fabric_create_verbs(e, &n->config[i], &n->f[i])
                                   : fabric_create_tcp(e, &n->config[i], &n->f[i]),
                         0);
    }
    e->fabric = n->f[i];
    return n->f[i];
}

static inline void net_stop(struct net *n, int i)
{
    fabric_destroy(n->f[i]);
    n->f[i] = n->env[i].fabric = NULL;
    if (n->env[i].loop)
        loop_destroy(n->env[i].loop);
    n->env[i].loop = NULL;
}

static inline void net_fini(struct net *n)
{
    for (int i = 0; i < NET_ENDS; i++)
        if (n->env[i].loop)
            net_stop(n, i);
    if (n->sim) {
        sim_net_destroy(n->net);
        sim_world_destroy(n->world);
    }
}

static inline void net_addr(const struct net *n, int i, uint16_t port, struct fabric_addr *out)
{
    char text[64];
    if (n->sim)
        snprintf(text, sizeof(text), "sim:%d:%u", i + 1, port);
    else if (net_verbs)
        snprintf(text, sizeof(text), "rdma:%s:%u", getenv(NET_RDMA_ENV), port);
    else
        snprintf(text, sizeof(text), "tcp:127.0.0.1:%u", port);
    assert_int_equal(fabric_addr_parse(text, out), 0);
}

static inline void net_step(struct net *n)
{
    unsigned handled = 0;
    if (n->sim) {
        sim_world_step(n->world);
        return;
    }
    for (int i = 0; i < NET_ENDS; i++)
        if (n->env[i].loop && !n->paused[i])
            handled += loop_run_once(n->env[i].loop, 0);
    if (!handled) {
        struct timespec ts = {.tv_nsec = 50000};
        nanosleep(&ts, NULL);
    }
}

/* The process stands still. */
static inline void net_pause(struct net *n, int i, bool pause)
{
    n->paused[i] = pause;
    if (n->sim && pause)
        sim_loop_pause(n->env[i].loop);
    else if (n->sim)
        sim_loop_resume(n->env[i].loop);
}

static inline uint64_t net_real_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Runs until cond holds; false when it does not for a long time. */
static inline bool net_until(struct net *n, bool (*cond)(void *), void *arg)
{
    uint64_t end = net_real_ns() + 60 * NS_PER_S;
    uint64_t sim_end = n->sim ? sim_world_now(n->world) + 1000 * NS_PER_S : 0;
    while (!cond(arg)) {
        if (net_real_ns() > end || (n->sim && sim_world_now(n->world) > sim_end))
            return false;
        net_step(n);
    }
    return true;
}
#define NET_UNTIL_INT(n, value, want)                                                                        \
    do {                                                                                                     \
        uint64_t net_end_ = net_real_ns() + 60 * NS_PER_S;                                                   \
        uint64_t net_sim_end_ = (n)->sim ? sim_world_now((n)->world) + 1000 * NS_PER_S : 0;                  \
        while ((long long)(value) != (long long)(want) && net_real_ns() < net_end_ &&                        \
               !((n)->sim && sim_world_now((n)->world) > net_sim_end_))                                      \
            net_step(n);                                                                                     \
        assert_int_equal(value, want);                                                                       \
    } while (0)

/* Lets things settle: some rounds, or some virtual time. */
static inline void net_idle(struct net *n, unsigned ms)
{
    if (n->sim) {
        sim_world_run_until(n->world, sim_world_now(n->world) + ms * NS_PER_MS);
        return;
    }
    uint64_t end = net_real_ns() + ms * NS_PER_MS;
    while (net_real_ns() < end)
        net_step(n);
}

#endif
