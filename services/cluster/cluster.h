/*
 * cluster.h: what every service, gateway and tool does to be part of a cluster: keep a session with the
 * metadata controller, keep a local copy of the tables by one-sided reads, and call the MDC.
 *
 * A cluster object reconnects for ever, with back-off and jitter, over its list of MDC addresses. The table
 * copy stays usable while no MDC answers. Two connections: one for messages (FABRIC_DOMAIN_CLUSTER), one for
 * reads of the tables (FABRIC_DOMAIN_TABLE); the second works while the MDC process is stopped, as far as the
 * provider allows (verbs: yes; tcp: its fabric answers, so no).
 */
#ifndef CISTERN_SERVICES_CLUSTER_CLUSTER_H
#define CISTERN_SERVICES_CLUSTER_CLUSTER_H

#include "common/env.h"
#include "common/table/table.h"
#include "common/wire/mdc_proto.h"
#include "rdma/fabric_target.h"
#include "rdma/rpc.h"

struct cluster;
struct cluster_events {
    /* A session with the MDC begins (also after each reconnect): register again, open volumes again. May be
     * NULL. */
    void (*session_up)(void *user, const struct mdc_session_reply *session);
    void (*session_down)(void *user); /* may be NULL */
    /* The table copy changed (or came for the first time). May be NULL. */
    void (*table_changed)(void *user, const struct table *table);
};
#define CLUSTER_MDCS_MAX 8
struct cluster_config {
    struct fabric_addr mdc[CLUSTER_MDCS_MAX];
    /* Names of their hosts (fabric_target_parse), asked for before each connect; "" = mdc has the address. A
     * name with several addresses stands for several controllers. */
    char mdc_host[CLUSTER_MDCS_MAX][RESOLVE_HOST_BYTES];
    unsigned mdc_count;
    uint8_t role; /* enum fabric_role */
    char host[MDC_NAME_MAX], name[MDC_NAME_MAX];
    uint64_t instance;
    uint64_t refresh_ns; /* period of table refresh, 0 = default 1 s; with jitter */
    uint64_t
        table_max_bytes; /* a larger region at the MDC is refused (logged, no table); 0 = default 256 MiB */
    bool no_table;       /* tools that only call */
};
/* env->fabric must be set. Starts connecting at once. config and events are copied; events may be NULL. 0 or
 * -errno. */
int cluster_create(struct env *env, const struct cluster_config *config, const struct cluster_events *events,
                   void *user, struct cluster **out);
/* Frees at once, no callbacks, in any state; every pending cluster_call's done and cluster_wait's fn never
 * runs. Before the fabric's destroy, and not from within one of the cluster's own callbacks. */
void cluster_destroy(struct cluster *c);
bool cluster_session_is_up(const struct cluster *c);
/* NULL until the first copy is whole. In place, valid until the next table_changed has returned; the pointer
 * to struct table is stable. Each record changes at once, on the loop, never during a callback; (term,
 * version) of the copy are in its header. */
const struct table *cluster_table(const struct cluster *c);
/* Asks for a refresh as soon as possible (a module or MDC showed something newer). Cheap when one is under
 * way. */
void cluster_refresh(struct cluster *c);
/*
 * fn runs once, later:
 *  - version > 0: when the copy is at least (term, version), however long that takes (cancel it when it does
 * not matter any more);
 *  - version 0: when a refresh that began after this call has ended, whichever table that gave (none, also),
 * but after 1 s at the latest, so that nobody stands still because the MDC does. Asks for a refresh itself
 * when one is needed. Embedded; term and version are the caller's to fill.
 */
struct cluster_wait {
    struct list link;
    uint64_t term, version;
    uint64_t started, deadline_ns; /* the cluster's */
    void (*fn)(struct cluster_wait *);
};
void cluster_wait_table(struct cluster *c, struct cluster_wait *w);
/* fn does not run after this. w must have been given to cluster_wait_table; harmless when fn has run. */
void cluster_wait_cancel(struct cluster *c, struct cluster_wait *w);

/*
 * A control call to the MDC. Embedded in the caller's object; request and reply structs stay the caller's. A
 * controller that is not in charge (NOT_LEADER) has done nothing: the cluster looks for another and repeats
 * the call there, whatever retry says.
 */
struct cluster_call {
    uint16_t method;
    const struct wire_type *request_type,
        *reply_type;     /* reply_type NULL: the reply's body is not looked at */
    const void *request; /* read before cluster_call_start returns */
    void *reply;         /* filled before done(0) */
    uint64_t timeout_ns; /* in all, waiting for a session included; 0 = for ever */
    bool retry;          /* idempotent: repeat after a lost connection until the timeout; else -ENOTCONN */
    /* rc: 0; -ENOTCONN, -ETIMEDOUT, -EPROTO; or -errno of status when the MDC refused: then status and
     * error_text tell. */
    void (*done)(struct cluster_call *call, int rc);
    uint32_t status;
    char error_text[256]; /* a sentence for the user whenever rc != 0 */
    /* the cluster's */
    struct list link;
    struct cluster *cluster;
    struct calls_slot *slot; /* NULL: not under way */
    struct loop_timer timer;
};
/* 0: done runs once, later. -ENOMEM, -EMSGSIZE (the request does not fit a message). */
int cluster_call_start(struct cluster *c, struct cluster_call *call);
/* done never runs; the outcome at the MDC is unknown. Harmless when the call (zeroed once) is not under way.
 */
void cluster_call_cancel(struct cluster_call *call);

struct cluster_counters {
    uint64_t sessions, refreshes, full_reads, record_reads, read_bytes, crc_retries, hints, calls;
};
void cluster_counters_get(const struct cluster *c, struct cluster_counters *out);

#endif
