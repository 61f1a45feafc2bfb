/*
 * cluster_private.h: between the files of services/cluster.
 *
 *   cluster.c       create, destroy, who is told what, waits
 *   session.c       the connection for messages: connect, back-off, SESSION, hints
 *   calls.c         cluster_call: queue, send, repeat, time out
 *   replica.c       the connection for reads of the table, and when to refresh
 *   replica_read.c  one refresh: header, ring and changed records, or the whole region
 *   replica_copy.c  the local copy: what came is put into it
 */
#ifndef CISTERN_SERVICES_CLUSTER_CLUSTER_PRIVATE_H
#define CISTERN_SERVICES_CLUSTER_CLUSTER_PRIVATE_H

#include "services/cluster/cluster.h"

#include "common/log.h"
#include "common/loop.h"
#include "common/rng.h"

enum {
    REPLICA_READS = 16,                           /* in flight */
    REPLICA_READ_BYTES = 64 * 1024,               /* of one */
    REPLICA_CHANGES_MAX = TABLE_RING_ENTRIES / 2, /* more: the whole region is read */
    REPLICA_TRIES_MAX = 10,                       /* of a record or header that is torn */
};
#define SESSION_BACKOFF_MIN_NS (50 * NS_PER_MS)
#define SESSION_BACKOFF_MAX_NS NS_PER_S
#define SESSION_ANSWER_NS      (5 * NS_PER_S) /* an MDC that does not answer SESSION within this is left */
#define REPLICA_GAP_NS         NS_PER_MS      /* between the beginnings of two refreshes */
#define WAIT_REFRESH_NS        NS_PER_S       /* longest wait for "a refresh" */
_Static_assert(REPLICA_CHANGES_MAX * sizeof(struct table_volume) <= REPLICA_READ_BYTES,
               "a run of changed records is one read");

struct session {
    struct rpc_peer *peer; /* NULL: none, the timer is armed */
    struct rpc_call call;  /* SESSION */
    struct loop_timer timer;
    unsigned mdc, failures;        /* index of the address in use; failed attempts in a row */
    struct resolve_request lookup; /* of its name, before a connect */
    unsigned lookups;              /* that found something: takes the name's addresses in turn */
    bool up;
    struct mdc_session_reply reply; /* of the latest session */
    char why[480];                  /* the latest failure, for error texts */
};

/* A call's request on its way; outlives the call when that is cancelled. */
struct calls_slot {
    struct rpc_call rpc;
    struct list link; /* in calls.sent while rpc has it */
    struct cluster *cluster;
    struct cluster_call *call; /* NULL: cancelled */
    uint32_t body_len;
    uint8_t body[];
};
struct calls {
    struct list queued; /* cluster_call, in order of their start */
    struct list sent;   /* calls_slot */
    struct loop_timer again;
};

enum replica_state {
    REPLICA_IDLE,
    REPLICA_HEADER,
    REPLICA_RING,
    REPLICA_CHANGED, /* reading changed records */
    REPLICA_WHOLE,   /* reading all records */
    REPLICA_DRAIN,   /* failed; some reads have not ended yet */
};
struct replica_change {
    uint64_t version;
    uint32_t kind, index;
};
/* One READ and its place in the stage. */
struct replica_read {
    struct fabric_op op;
    struct fabric_sge sge;
    struct loop_timer timer; /* reads again what was torn */
    struct cluster *cluster;
    bool busy; /* in flight, or waiting to read again */
    bool is_header;
    unsigned tries;
    uint64_t offset; /* in the region */
    uint32_t len;
    uint32_t kind, first, count; /* records */
    uint32_t change;             /* REPLICA_CHANGED: of the first record */
};
struct replica {
    /* the connection */
    struct fabric_conn *conn;
    bool conn_up;
    unsigned failures;
    struct loop_timer conn_timer;
    struct fabric_addr addr; /* where the region is: from the latest session */
    uint64_t start, remote_addr, remote_len;
    uint32_t remote_key;
    /* when */
    struct loop_timer tick;
    uint64_t begun, begun_ns;  /* number of the latest refresh, and when it began */
    bool again;                /* somebody asked for one since then */
    unsigned refresh_failures; /* in a row */
    uint64_t hint_term, hint_version;
    uint64_t heartbeat, heartbeat_ns; /* the latest that was new, and when it came */
    uint64_t publisher_ns;            /* the same; not forgotten with a session */
    bool stalled;
    /* one refresh */
    enum replica_state state;
    unsigned busy; /* reads */
    struct table_header head;
    bool lapped; /* the ring may have come round while it was read */
    unsigned change_count, change_next;
    struct replica_change changes[REPLICA_CHANGES_MAX];
    uint8_t fresh[REPLICA_CHANGES_MAX][sizeof(struct table_volume)];
    uint32_t whole_kind, whole_next;
    struct table whole; /* the copy that is being filled */
    struct replica_read reads[REPLICA_READS];
    uint8_t *stage; /* REPLICA_READS times REPLICA_READ_BYTES, registered */
    struct fabric_mem *stage_mem;
    /* the copy */
    struct table table;
    struct log_limit refused, back;
};

struct cluster {
    struct env *env;
    struct cluster_config config;
    struct cluster_events events;
    void *user;
    struct cluster_counters counters;
    struct session session;
    struct calls calls;
    struct replica replica;
    struct list waits_version, waits_refresh, waits_ready;
    struct loop_timer wait_timer;
    struct loop_task wait_task;
};

static inline int version_pair_cmp(uint64_t term_a, uint64_t version_a, uint64_t term_b, uint64_t version_b)
{
    if (term_a != term_b)
        return term_a < term_b ? -1 : 1;
    return version_a < version_b ? -1 : version_a > version_b;
}
/* base doubled steps times, at most SESSION_BACKOFF_MAX_NS, of which the second half is chance. */
uint64_t cluster_backoff_ns(struct cluster *c, unsigned steps);

/* ---- session.c ---- */
void session_init(struct cluster *c);
void session_destroy(struct cluster *c);
/* Leaves this MDC and looks for the next. */
void session_leave(struct cluster *c, const char *why);
const struct fabric_addr *session_addr(const struct cluster *c);
/* For messages: its name if it has one. text holds FABRIC_TARGET_BYTES; returned. */
const char *session_addr_text(const struct cluster *c, char *text);

/* ---- calls.c ---- */
void calls_init(struct cluster *c);
void calls_destroy(struct cluster *c);
/* Sends what is queued. */
void calls_flush(struct cluster *c);
/* The peer was abandoned: what was sent is repeated or ends. */
void calls_lost(struct cluster *c);

/* ---- replica.c ---- */
int replica_init(struct cluster *c);
void replica_destroy(struct cluster *c);
/* A session began: where its table is. */
void replica_session(struct cluster *c);
void replica_hint(struct cluster *c, uint64_t term, uint64_t version);
/* A refresh as soon as possible. */
void replica_kick(struct cluster *c);
/* A refresh has ended; changed: the copy is newer than before. */
void replica_ended(struct cluster *c, int rc, bool changed);
/* Watches the publisher's heartbeat in replica.head. */
void replica_watch(struct cluster *c);

/* ---- replica_read.c ---- */
void replica_reads_init(struct cluster *c);
void replica_begin(struct cluster *c);
/* The connection was abandoned: the refresh is over, nothing is in flight. */
void replica_reads_forget(struct cluster *c);

/* ---- replica_copy.c ---- */
/* True when replica.head's changes since the copy can be read through the ring. */
bool replica_copy_near(const struct cluster *c);
/* Ring entries at stage in order of versions: fills and sorts replica.changes. False: not as expected, read
 * all. */
bool replica_copy_changes(struct cluster *c, const struct table_change *entries, unsigned count);
/* 0 or -ENOMEM: an empty copy for replica.head. */
int replica_copy_prepare(struct cluster *c);
/* A record that is whole and new enough is kept; false: it is not. */
bool replica_copy_take(struct cluster *c, const struct replica_read *r, uint32_t i, const void *record);
/* All records are there: the copy becomes replica.head's. 0 or -ENOMEM. Tells table_changed. */
int replica_copy_commit(struct cluster *c);
void replica_copy_drop(struct cluster *c);

/* ---- cluster.c ---- */
/* The copy or the number of ended refreshes changed. */
void waits_check(struct cluster *c, uint64_t ended);
bool waits_for_version(const struct cluster *c);
const struct table_header *cluster_head(const struct cluster *c); /* NULL: no copy yet */

#endif
