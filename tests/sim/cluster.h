/*
 * cluster.h: the whole cluster in one process on a virtual clock: an MDC, OSDs, a SAN agent, gateways,
 * clients.
 *
 * Each process has its own loop, random stream, fabric endpoint and objects, exactly as in production; only
 * the providers are simulated (common/sim.h, rdma/fabric_sim.h, common/device/device_sim.h,
 * services/mdc/meta_sim). A crash is: loop, fabric and devices die, memory is freed; a restart builds the
 * service again over the same media.
 */
#ifndef CISTERN_TESTS_SIM_CLUSTER_H
#define CISTERN_TESTS_SIM_CLUSTER_H

#include "common/env.h"
#include "common/rng.h"
#include "common/sim.h"
#include "common/trace.h"
#include "common/device/device_sim.h"
#include "common/device/fence.h"
#include "rdma/fabric_sim.h"
#include "services/cluster/cluster.h"
#include "services/mdc/mdc.h"
#include "services/rwm/rwm.h"
#include "services/vbs/gateway.h"
#include "services/vbs/volume.h"
#include "tests/sim/history.h"
#include "tests/sim/scenes.h"

#define SIM_OSDS     3u
#define SIM_GATEWAYS 2u
#define SIM_CLIENTS  3u
#define SIM_AGENTS   2u /* of one LUN: the second takes over from the first, and the other way round */
#define SIM_PROCS    (1u + SIM_OSDS + SIM_AGENTS + SIM_GATEWAYS + SIM_CLIENTS + 1u)

enum sim_kind { SIM_MDC, SIM_OSD, SIM_SAN, SIM_GATEWAY, SIM_CLIENT, SIM_ADMIN };

struct sim_cluster;
struct sim_client;
struct sim_proc {
    struct sim_cluster *cluster;
    enum sim_kind kind;
    unsigned number; /* in the cluster; also its simulated host */
    char name[16];
    bool alive, paused;
    unsigned starts;
    uint64_t up_at;     /* dead: when to start it again; UINT64_MAX = never */
    uint64_t resume_at; /* paused: when it goes on */
    struct sim_clock clock;
    bool has_clock;
    struct rng rng;
    struct env env;
    /* what it runs */
    struct mdc *mdc;
    struct rwm_host *host;
    struct rwm *rwm;
    struct gateway *gateway;
    struct sim_client *client;
    struct cluster *admin;
    struct device *device, *log_device;
    struct device_fence_request fence;
    /* what outlives it */
    struct sim_medium *data, *log; /* log: the journal's medium, NULL = on data */
    struct sim_proc *twin;         /* the other agent of the LUN */
    struct sim_proc *owner;        /* of the medium: the first of the agents, else itself */
    uint64_t fence_key;            /* owner: the last one given out */
    uint64_t doom_at;              /* it dies then, in the middle of what it does then; UINT64_MAX = not */
    uint64_t lose_at;              /* its host's ends of all connections are lost then; UINT64_MAX = not */
    bool formatted, failed;
    char failure[256];
};

struct sim_options {
    uint64_t seed;
    uint64_t run_ns;     /* how long the faults go on */
    uint64_t settle_ns;  /* how long the cluster then has to finish every request */
    unsigned operations; /* per client, at most */
    bool verbose;        /* services' logs on stderr */
    bool no_faults;
    bool rot;        /* data of one module rot, and nothing else goes wrong */
    unsigned copies; /* of the pool; 0 = drawn from the seed */
    bool moves;      /* modules are emptied, removed, added and weighed while all this goes on */
};

/* What differs from seed to seed besides the faults. */
struct sim_shape {
    uint64_t medium_bytes, journal_bytes;
    unsigned store_requests;    /* bounds the metadata cache from below */
    int drift_ppm;              /* clocks run faster or slower by up to so much */
    bool shared_host;           /* the last two clients are on one host */
    bool tight;                 /* media fill up */
    uint32_t max_turns;         /* records of write turns in a module */
    bool rewrite;               /* clients write what they wrote last again and again */
    bool rot;                   /* data on the disks' media rots, and places of them cannot be read */
    bool restores;              /* the metadata store is put back from an old copy */
    bool fast_fail;             /* promises to processes that are seen to be gone are void */
    uint64_t refresh_ns;        /* of the tables of gateways and clients */
    uint64_t scrub_interval_ns; /* 0: at the end only */
    unsigned recent_max;        /* of a module */
    unsigned focus;             /* clients use the first groups only; 0 = all of them */
    uint64_t calm;              /* that many times more time between two faults */
    uint64_t think_ns;          /* of a client, between two operations */
    uint64_t commit_ns;         /* how long the metadata store takes */
    unsigned theme;             /* one kind of scene comes again and again; 0 = none does */
    bool resizes; /* volumes grow and shrink all the time, and clients use what comes and goes */
    const struct sim_directed *directed; /* NULL: no such scene */
    bool logs;                           /* all disks have their journals on media of their own */
    bool busy_gateways;                  /* who comes by gateways writes */
    bool fresh; /* clients write whole blocks where nothing is, and discard them again */
};
struct sim_cluster {
    struct sim_options options;
    struct sim_shape shape;
    struct uuid cluster_id;
    struct sim_world *world;
    struct sim_net *net;
    struct meta_sim *meta, *backup; /* backup: what a restore puts back, NULL = none yet */
    struct trace *trace;
    struct rng rng; /* the schedule of faults */
    struct sim_proc procs[SIM_PROCS];
    struct history *history;
    struct sim_claim *claims; /* one per sector of all volumes: client.c */
    uint64_t tick;            /* orders the beginnings and ends of operations */
    uint64_t next_value;
    uint64_t completed, failed_ops, kills, restarts, pauses, cuts, disconnects, power_losses;
    uint64_t media_faults, takeovers, admin_calls, detaches, no_space, ghosts, rots, restores, jumps, damaged,
        repaired, misses, move_calls;
    bool volumes_ready, faults_over;
    bool restored_store; /* the operator says so at each start of the controller after it */
    struct sim_setup *setup;
    struct sim_admin *admin;
    struct sim_moves *moves;
    struct sim_scenes scenes;
    const struct sim_plot *plot; /* plots.h: what happens in the place of the faults; NULL = none */
    unsigned acts;               /* how often it came to its end */
    bool quiet;                  /* clients do only what they are told to */
    unsigned setup_state;
    char error[512]; /* the first contradiction that a client saw */
};

int sim_cluster_create(const struct sim_options *options, struct sim_cluster **out);
void sim_cluster_destroy(struct sim_cluster *c);
struct sim_proc *sim_cluster_proc(struct sim_cluster *c, enum sim_kind kind, unsigned index);
/* Starts a dead process over what it left. */
void sim_proc_start(struct sim_proc *p);
/* kill -9; power: its machine loses power too (unflushed writes of its medium torn and dropped). */
void sim_proc_kill(struct sim_proc *p, bool power);
void sim_proc_pause(struct sim_proc *p);
void sim_proc_resume(struct sim_proc *p);

/* Where a process listens. */
#define SIM_GATEWAY_PORT 7300u
#define SIM_MDC_PORT     7100u
struct fabric_addr sim_addr(const struct sim_proc *p, uint16_t port);
/* The host that a client says it is. */
void sim_client_host(const struct sim_proc *p, char *out, size_t cap);

/* Strictly growing stamp for the history. */
static inline uint64_t sim_tick(struct sim_cluster *c)
{
    return ++c->tick;
}

enum sim_result { SIM_OK = 0, SIM_WRONG = 10, SIM_STUCK = 11, SIM_SETUP = 12 };
/* Runs the whole story of one seed; why (cap bytes) explains anything but SIM_OK. */
enum sim_result sim_cluster_run(struct sim_cluster *c, char *why, size_t cap);

#define SIM_SECTORS      3104u /* per volume, that the clients use, spread over it */
#define SIM_VOLUMES      2u
#define SIM_HEAD_BYTES   (32 * MIB) /* where these sectors lie */
#define SIM_VOLUME_BYTES (96 * MIB) /* the rest is never written, only cleared: always zero */
#define SIM_EXTRA_BYTES  (8 * MIB)  /* volumes grow by so much */
#define SIM_EXTRA_MOST   4u         /* so often */

#endif
