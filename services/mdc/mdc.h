/*
 * mdc.h: the metadata controller: the one owner of the cluster's truth (modules, pools, partitions, volumes,
 * attachments). Read this first, then:
 *   meta.h       where the truth is kept durably (providers: LMDB, simulated);
 *   records.h    the durable records, their keys and their checks;
 *   state.h      the same truth in memory, and what a batch of decisions changes;
 *   ops.h        the decisions, one function a message, in ops_*.c: old state + request -> new state + reply;
 *   mdc.c        create and destroy; jobs.c: queue, commit, publish, reply; serve.c: rpc in and out;
 *   publish.c    state -> table.
 *
 * Requests are decided in order of arrival, in batches: one batch is one transaction of the meta store. While
 * it is being committed nothing is decided, so the state in memory is never more than one batch ahead of the
 * store. After the commit the batch is published in the table, and only then are its replies sent.
 *
 * A commit that fails leaves the outcome unknown: the controller then refuses everything and calls
 * config.failed; the process is to end and start again from its store.
 */
#ifndef CISTERN_SERVICES_MDC_MDC_H
#define CISTERN_SERVICES_MDC_MDC_H

#include "common/env.h"
#include "common/table/table.h"
#include "rdma/fabric.h"
#include "services/mdc/meta.h"

struct mdc;

struct mdc_config {
    struct fabric_addr listen;   /* port 0 picks one: mdc_addr tells */
    struct uuid cluster;         /* zero: the store's, or a random one when the store is new */
    struct table_limits limits;  /* zero members: 64 pools, 1024 modules, 32768 partitions, 8192 volumes */
    uint32_t attachments;        /* most attachments; 0 = 65536 */
    uint32_t heartbeat_ms;       /* asked of modules and gateways; 0 = 1000; silent for 5 of them = DOWN */
    uint64_t confirm_timeout_ns; /* how long a detach waits for the modules' confirmation; 0 = 8 s */
    /* Moving copies (docs/replication.md): how many may be on their way at once in a pool (0 = 16), and how
     * many one module may take part in (0 = 2); how long a module is away until its copies are made elsewhere
     * (0 = 10 min); how long a pool is at rest before primaries are spread (0 = 10 s). */
    uint32_t moves_total, moves_per_module;
    uint64_t replace_after_ns, rest_ns;
    /* The operator says that nobody knows more than the store: after a start no module is waited for that
     * might. */
    bool trust_store;
    /* The operator says that the store was put back from a copy: what has happened since is the modules' to
     * tell, all of them, before anything is decided that it bears on. */
    bool restored_store;
    struct meta_store *meta;            /* the mdc's from a successful mdc_create on: it closes it */
    void (*failed)(void *user, int rc); /* once, when the store failed; may be NULL */
    void *user;
};

/*
 * env->loop, rng and fabric must be set; the fabric's cluster should be the store's (mdc_store_cluster).
 * Loads the whole store and checks it. It listens at once; requests are answered after the first commit (a
 * new term). 0; -EMEDIUMTYPE: the store belongs to another cluster or to another program; -EBADMSG: the store
 * is damaged; -EPROTONOSUPPORT: its format is not known; -ENOSPC: it holds more than the limits; -ENOMEM; or
 * of rpc_listen. The reason is logged.
 */
int mdc_create(struct env *env, const struct mdc_config *config, struct mdc **out);
/* In any state: frees everything, closes the store (a commit in flight may or may not happen), calls nothing.
 */
void mdc_destroy(struct mdc *m);
void mdc_addr(const struct mdc *m, struct fabric_addr *out);
struct uuid mdc_cluster(const struct mdc *m);
/* The table as published, for tests and the simulator's checks. */
const struct table *mdc_table(const struct mdc *m);
/* The cluster id in a store, for the fabric's configuration, before mdc_create. 0; -ENOENT: the store is new;
 * else as mdc_create. */
int mdc_store_cluster(struct meta_store *meta, struct uuid *out);

#endif
