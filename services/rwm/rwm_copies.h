/*
 * rwm_copies.h: a module's part in keeping several copies. Read docs/replication.md first. One subject a
 * file: rwm_peer.c       connections to the other members, promises held; the tick that renews and reports
 *   rwm_epoch.c      a new epoch of a partition: who is primary, joins, when it may serve
 *   rwm_recent.c     versions that are not known to be committed
 *   rwm_reconcile.c  making the in-sync members equal before a new primary serves
 *   rwm_forward.c    a write's way to the other members, and when it is committed
 *   rwm_turn_copy.c  the write turns, for a member that is filled
 *   rwm_catchup.c    bringing a member that is not in sync up to the primary
 *   rwm_changed.c    what changed while a member was away
 *   rwm_rot.c        repair of what cannot be read, from another copy
 *   rwm_serve.c      the member's side of all that: joins, forwards, replacements, lists
 *   rwm_grant.c      promises given, and when they end
 *
 * A partition whose record names nobody else has no struct rwm_copies, and nothing here concerns it.
 */
#ifndef CISTERN_SERVICES_RWM_COPIES_H
#define CISTERN_SERVICES_RWM_COPIES_H

#include "common/wire/copy_proto.h"
#include "services/rwm/rwm_internal.h"

#define RWM_COPY_SLOTS     16u               /* members, and such as have left with calls under way */
#define RWM_TICK_NS        (20u * NS_PER_MS) /* between two ticks, while there is something to do */
#define RWM_LOOK_ALL_NS    NS_PER_S          /* so often all partitions are looked at */
#define RWM_PROMISE_NS     COPY_PROMISE_MAX_NS
#define RWM_RENEW_NS       (RWM_PROMISE_NS / 2) /* leaves time for a lost packet to be sent again */
#define RWM_UNREACHABLE_NS (60u * NS_PER_MS)    /* a member without a connection for so long is reported */
#define RWM_REPORT_NS      (100u * NS_PER_MS)   /* what still holds is reported again */
#define RWM_RECENT_MAX     65536u
#define RWM_SENDS_EACH     2u                       /* whole blocks on their way, likewise */
#define RWM_FORWARDS_EACH  (TABLE_MEMBERS_MAX - 1u) /* forwards at once for each piece that there can be */
#define RWM_RECONCILE_JOBS 16u
#define RWM_RECONCILES_MAX 64u                     /* partitions at once */
#define RWM_CATCHUPS       4u                      /* members at once, unless set */
#define RWM_RECOVERY_RATE  (128u * MIB)            /* bytes a second, unless set */
#define RWM_RECOVERY_BUSY  8u                      /* requests of clients under way: then a quarter of it */
#define RWM_CATCHUP_JOBS   4u                      /* blocks of a member at once */
#define RWM_CATCHUP_WAITS  (4u * RWM_CATCHUP_JOBS) /* and that wait for it */
#define RWM_LOOKUPS_SERVED 192u                    /* for other members at once */

/* ---- another module, seen from here ---- */
enum rwm_peer_state { PEER_IDLE, PEER_CONNECTING, PEER_GREETING, PEER_UP };
struct rwm_peer {
    struct list link; /* m->peers */
    struct rwm *m;
    uint32_t module;
    uint64_t incarnation; /* that the connection goes to */
    struct fabric_addr addr;
    struct rpc_peer *rpc, *old_rpc; /* old: closed, its calls have not all ended */
    unsigned calls;
    unsigned joined; /* partitions of which this module is the primary and the peer has joined */
    enum rwm_peer_state state;
    uint64_t retry_ns, backoff_ns, away_since_ns;
    bool promise_busy;
    uint64_t promise_sent_ns, promise_until_ns; /* held until; 0 = none */
    uint64_t free_blocks, spent_blocks;         /* at the last answer; that may have been filled since */
    unsigned filling;                           /* forwards under way that may fill one */
    bool room_wanted;                           /* used up: the next tick asks anew */
    struct rwm_turn_pass *turns;                /* write turns on their way there */
    uint64_t turns_told;                        /* m->turn_serial that it has all turns up to */
    struct rpc_call hello_call, promise_call;
    struct copy_peer_hello hello;
    struct copy_promise promise;
    struct rpc_service service;
    struct log_limit log;
};
/* What this module promised to another one. */
struct rwm_grant {
    struct list link; /* m->grants */
    uint32_t module;
    uint64_t incarnation, until_ns;
    uint64_t older_until_ns; /* to an earlier start of it */
    struct fabric_addr addr; /* of that incarnation */
    bool reset;              /* its kernel ended its connection, and it has promised nothing since */
    bool vacant;             /* at the address nobody listens any more, or somebody else */
    bool outdated;           /* a later epoch than one that it joined here has another primary */
};
/* A promise to an earlier primary of a partition. */
struct rwm_wait {
    uint32_t module;
    uint64_t until_ns;
};

/* ---- a version not known to be committed ---- */
struct rwm_recent {
    struct list link; /* rwm_copies.recent, in order of arrival */
    struct store_key key;
    struct version version;
    bool hole; /* the store may have forgotten the block */
};

/* ---- another member of a partition ---- */
struct rwm_copy {
    struct rwm_copies *c;
    uint32_t module; /* 0 = never used */
    bool member;     /* of the present epoch; else only calls of before may be under way */
    struct rwm_peer *peer;
    bool in_sync;
    bool lockstep; /* not in sync yet, but every acknowledgement waits for it: to be reported as equal */
    /* Was reported as equal in this epoch: the controller may take it in at any time, so it counts until a
     * new epoch, whatever became of it. */
    bool claimed;
    bool joining, joined, whole; /* joined: this epoch, on the peer's present connection */
    bool unfit;
    uint64_t reported_ns;
    struct version told;    /* committed up to here, as it was told */
    bool owed;              /* joined without knowing what is recent there: told RECONCILED when... */
    struct version owed_at; /* ... all up to this is committed */
    unsigned forwards;      /* under way */
    unsigned loose;         /* of them of writes that are committed without it */
    unsigned copying;       /* whole blocks on their way */
    unsigned held;          /* calls under way whose ends look at it: it stays this module's */
    struct rpc_call join_call;
    struct copy_join join;
    struct rwm_walk *walk; /* catching up */
    bool walked;           /* ... compared; what differed is on its way */
    uint64_t turn_serial;  /* m->turn_serial when that had arrived; 0 = not yet */
    uint64_t walk_after_ns;
    uint64_t to_go;    /* blocks that differ and were not begun */
    uint64_t differed; /* when it had been compared */
    uint64_t logged;   /* of that, what the log has */
    struct list todo;  /* blocks that wait to be copied; counted in copying */
    unsigned reading;  /* of copying: those that hold memory */
};
enum rwm_copies_state {
    COPIES_MEMBER,    /* another one is the primary, or nobody */
    COPIES_JOINING,   /* until every in-sync member joined, and no promise of this module stands */
    COPIES_RECONCILE, /* until they are equal */
    COPIES_SERVING,
};
struct rwm_copies {
    struct list link;     /* m->copies */
    struct list due_link; /* m->copies_due, while there is something to be done with time */
    struct rwm *m;
    uint32_t partition;
    enum rwm_copies_state state;
    struct rwm_copy copy[RWM_COPY_SLOTS];
    unsigned count, in_sync; /* other members; of them in sync */
    bool self_in_sync;
    bool unfit; /* this module, the primary, cannot take what another one in sync has: that one is to be it */
    uint64_t unfit_reported_ns;
    bool starved;     /* there was no memory for a forward */
    uint32_t primary; /* module id, 0 = none */
    /* Promises to earlier primaries: nothing is joined before. The first ends with its time only. */
    uint64_t wait_until_ns;
    struct rwm_wait wait[4];
    struct rwm_release { /* the latest epoch of which one has said that it is the primary no more */
        uint32_t module;
        uint64_t incarnation, epoch;
    } release;
    struct list flight; /* pieces with a version that are not committed: rwm_piece.flight_link, by version */
    struct version given, committed;
    struct list waiting; /* requests: rwm_request.link */
    struct list recent;
    unsigned recent_count;
    bool whole;              /* `recent` has all that may not be committed, */
    struct version overflow; /* ... but for versions up to this, for which there was no room */
    unsigned storing;        /* writes of forwards, replacements and own pieces that the store has */
    /* as a member */
    uint32_t joined_by;
    uint64_t joined_epoch, joined_incarnation;
    struct list changed; /* rwm_changed.c */
    struct rwm_walk *reconcile;
    bool compared; /* its walk has ended; what differed is being made equal */
};

/* ---- rwm_peer.c ---- */
void rwm_copies_init(struct rwm *m);
void rwm_copies_destroy(struct rwm *m);  /* frees all; no callbacks */
void rwm_copies_stop(struct rwm *m);     /* the module fails: nothing is begun or answered any more */
void rwm_copies_shutdown(struct rwm *m); /* what is under way may still end, for a while */
struct rwm_peer *rwm_peer_get(struct rwm *m, uint32_t module);
/* done runs later, once, with rc -ENOTCONN too; not when the module is destroyed. Counted in peer->calls
 * until rwm_peer_call_ended, which done calls first. */
int rwm_peer_call(struct rwm_peer *peer, struct rpc_call *call);
void rwm_peer_call_ended(struct rwm_peer *peer);
void rwm_peers_table(struct rwm *m); /* the table changed: addresses and incarnations */
bool rwm_peer_promised(const struct rwm_peer *peer, uint64_t clock_ns);
/* That module is awake and so is this one: a promise that is due before long is renewed now. */
void rwm_peer_renew(struct rwm *m, uint32_t module);
void rwm_tick_soon(struct rwm *m);
void rwm_tick_within(struct rwm *m, uint64_t ns); /* not later than that */

/* ---- rwm_epoch.c ---- */
/* Partition i has a new epoch in force, with the members of the store's record. */
void rwm_epoch_force(struct rwm *m, uint32_t i);
void rwm_epoch_peer_up(struct rwm_peer *peer);
void rwm_epoch_peer_down(struct rwm_peer *peer);
void rwm_epoch_step(struct rwm_copies *c);
/* The tick looks at c until nothing is to be done any more. */
static inline void rwm_copies_due(struct rwm_copies *c)
{
    if (list_unlinked(&c->due_link))
        list_push_back(&c->m->copies_due, &c->due_link);
    rwm_tick_within(c->m, RWM_TICK_NS);
}
bool rwm_epoch_quiet(const struct rwm_copies *c);
void rwm_epoch_resign(struct rwm_copies *c); /* is the primary no more, whatever the table says */
void rwm_epoch_free(struct rwm_copies *c);
/* k has to join again; what it got beside the writes under way does not count. */
void rwm_epoch_unjoin(struct rwm_copy *k);
void rwm_epoch_serving(struct rwm_copies *c); /* reconciled */
struct rwm_copies *rwm_copies_of(const struct rwm *m, uint32_t partition);
/* STATUS_OK: a request of a client may go on; AGAIN: it waits in c->waiting; else the refusal. */
uint32_t rwm_copies_gate(const struct rwm_copies *c, bool write);
/* A read that was fetched now may be answered: the promises stand. */
bool rwm_copies_may_answer(const struct rwm_copies *c);
void rwm_copies_wake(struct rwm_copies *c);
/* An acknowledgement waits for it. */
static inline bool rwm_copy_counts(const struct rwm_copy *k)
{
    return k->member && (k->in_sync || k->lockstep || k->claimed);
}
#define rwm_each_copy(k, c)                                                                                  \
    for (struct rwm_copy *k = (c)->copy; k < (c)->copy + RWM_COPY_SLOTS; k++)                                \
        if (k->member)
static inline struct copy_head rwm_copies_head(const struct rwm_copies *c)
{
    return (struct copy_head){
        .pool = c->m->pool_id, .partition = c->partition, .epoch = c->m->parts[c->partition].epoch};
}

/* ---- rwm_recent.c ---- */
int rwm_recent_create(struct rwm *m); /* the pools that copies need, with the first. 0 or -ENOMEM */
void rwm_recent_add(struct rwm_copies *c, const struct store_key *key, struct version version, bool hole);
void rwm_recent_commit(struct rwm_copies *c, struct version committed);
const struct rwm_recent *rwm_recent_find(const struct rwm_copies *c, const struct store_key *key);
void rwm_recent_clear(struct rwm_copies *c);

/* ---- rwm_lookup.c ---- */
/* The versions of some keys of a partition, as this module has them. */
struct rwm_lookup {
    struct list link; /* m->lookups */
    struct rwm *m;
    struct rwm_copies *c;                    /* for what is recent; may be NULL */
    struct copy_version item[COPY_KEYS_MAX]; /* key given; the rest is the result */
    uint32_t count, next;
    unsigned out;
    int rc;
    bool waiting, cancelled;
    struct store_waiter waiter;
    struct rwm_lookup_op {
        struct store_op op;
        struct rwm_lookup *lookup;
        uint32_t index;
        bool busy;
    } op[16];
    struct loop_task task;
    void (*done)(struct rwm_lookup *l, int rc); /* frees it, or uses it again */
    void *owner;
};
int rwm_lookups_create(struct rwm *m); /* 0 or -ENOMEM */
/* serves: for another member. NULL: all are in use; some are kept for this module's own walks. */
struct rwm_lookup *rwm_lookup_new(struct rwm *m, struct rwm_copies *c, bool serves);
/* done runs once, later; not when it was cancelled, or the module is destroyed. */
void rwm_lookup_start(struct rwm_lookup *l);
void rwm_lookup_free(struct rwm_lookup *l);   /* not under way */
void rwm_lookup_cancel(struct rwm_lookup *l); /* frees it, as soon as the store lets go */

/* ---- rwm_send.c ---- */
/* A whole block on its way to another member. */
struct rwm_send {
    struct list link; /* m->senders */
    struct rwm *m;
    struct rwm_peer *peer;
    struct rwm_piece *piece; /* NULL: nothing is written in it */
    struct rpc_call call;
    struct copy_replace body;
    struct copy_forward units; /* of rwm_send_units */
    struct fabric_sge sge[UNITS_PER_BLOCK];
    /* status: the member's, or DISCONNECTED */
    void (*done)(struct rwm_send *s, uint32_t status);
    void *owner;
};
/* piece: its chunk holds the whole block (units that are not written do not matter) with op.written and
 * op.found_crcs; one of its refs is taken. 0: done runs once, later, and the object goes after it. -errno: it
 * never will. */
int rwm_send_block(struct rwm_peer *peer, const struct copy_replace *body, struct rwm_piece *piece,
                   const uint32_t *crcs, void (*done)(struct rwm_send *s, uint32_t status), void *owner);
/* Some units over the base that the member is known to have. As above; the body's base is not zero. */
int rwm_send_units(struct rwm_peer *peer, const struct copy_forward *body, struct rwm_piece *piece,
                   const uint32_t *crcs, void (*done)(struct rwm_send *s, uint32_t status), void *owner);
/* Gives a ref back. */
void rwm_piece_unref(struct rwm_piece *p);

/* ---- rwm_walk.c ---- */
#define RWM_WALK_MEMBERS TABLE_MEMBERS_MAX
struct rwm_item {
    struct copy_key key;
    uint8_t known, suspect; /* bits by member of the walk */
    bool done;
    struct version v[RWM_WALK_MEMBERS];
};
/* The versions that several members, this one first, have of a partition's blocks: all, or the recent ones.
 * As large as what it finds, and so not of a pool; one for each partition that is compared, no more of them
 * at once than RWM_RECONCILES_MAX and the recoveries allow. */
struct rwm_walk {
    struct list link; /* m->walks */
    struct rwm *m;
    struct rwm_copies *c;
    struct rwm_copy *who[RWM_WALK_MEMBERS]; /* [0] is NULL: this module */
    unsigned count;
    bool full, failed, stopped;
    unsigned out; /* calls and lookups under way, and jobs of the owner: it goes when there are none */
    struct rwm_item *item;
    uint32_t items, capacity, *hash, hash_mask;
    struct rwm_walk_page {
        struct rwm_walk *w;
        unsigned index;
        uint64_t cursor;
        bool ended;
        uint32_t next; /* item to be asked for, in the second phase */
        struct rpc_call call;
        uint8_t body[sizeof(struct copy_versions) + COPY_KEYS_MAX * sizeof(struct copy_key)];
        uint32_t asked[COPY_KEYS_MAX], asked_count;
    } page[RWM_WALK_MEMBERS];
    bool asking;                       /* second phase: for what a member did not list */
    void (*ended)(struct rwm_walk *w); /* all is known (or failed); once */
    void *owner;
    struct loop_task begin;
    uint32_t next; /* the owner's: items looked at */
};
/* who: joined members. NULL: no memory. */
struct rwm_walk *rwm_walk_start(struct rwm_copies *c, struct rwm_copy *const *who, unsigned count, bool full,
                                void (*ended)(struct rwm_walk *w), void *owner);
/* Its item's index; UINT32_MAX: no member has the block. */
uint32_t rwm_walk_find(const struct rwm_walk *w, const struct copy_key *key);
/* It is not used any more; ended never runs after it. */
void rwm_walk_stop(struct rwm_walk *w);
void rwm_walk_free(struct rwm_walk *w); /* the module is destroyed */
/* One of the owner's jobs ended: frees a walk that was stopped, with the last. True: it was stopped. */
bool rwm_walk_left(struct rwm_walk *w);

/* ---- rwm_reconcile.c ---- */
int rwm_reconcile_create(struct rwm *m); /* 0 or -ENOMEM */
int rwm_reconcile_start(struct rwm_copies *c);
void rwm_reconcile_stop(struct rwm_copies *c);
void rwm_reconcile_step(struct rwm_copies *c);
/* p, a REPLACE without a request, waited for its turn: is the epoch that it is for still the present one? */
bool rwm_reconcile_wants(const struct rwm_piece *p);

/* ---- rwm_forward.c ---- */
/* Have the members that count room for a write that may take a new block? STATUS_OK; STATUS_NO_SPACE: one has
 * said that it has none; STATUS_AGAIN: what one granted is used up, and it is asked for more. */
uint32_t rwm_forward_room(struct rwm_copies *c);
/* p has its version and the store has p: on to the other members. */
void rwm_forward_start(struct rwm_copies *c, struct rwm_piece *p);
/* The store answered p. */
void rwm_forward_stored(struct rwm_copies *c, struct rwm_piece *p, uint32_t status);
/* k answered to a block that every member in sync must have: is it unfit? */
void rwm_forward_refused(struct rwm_copy *k, uint32_t status);
/* k joined: what it has not answered yet is sent to it. */
void rwm_forward_again(struct rwm_copy *k);
/* What could not be sent for want of memory is tried again. */
void rwm_forward_step(struct rwm_copies *c);
/* Who counts changed: what may be committed now? */
void rwm_forward_recheck(struct rwm_copies *c);
/* No longer the primary: what is under way here ends, its outcome another one's to tell. */
void rwm_forward_give_up(struct rwm_copies *c);
/* A place in c->copy is given to another module. */
void rwm_forward_forget(struct rwm_copies *c, unsigned place);
/* Tells members what is committed, when nothing else does. */
void rwm_forward_tell(struct rwm_copies *c);
int rwm_forward_create(struct rwm *m);
/* True: the version that a read found is committed. Else the piece waits at its block. */
bool rwm_forward_readable(struct rwm *m, struct rwm_piece *p);
struct version rwm_forward_committed(const struct rwm_copies *c);

/* ---- rwm_catchup.c ---- */
int rwm_catchup_create(struct rwm *m);       /* 0 or -ENOMEM */
void rwm_catchup_step(struct rwm_copies *c); /* begins and ends what is due */
void rwm_catchup_stop(struct rwm_copy *k);
uint64_t rwm_catchup_to_go(const struct rwm_copy *k); /* blocks */
/* Those that were compared, at most max. */
uint32_t rwm_catchup_list(const struct rwm *m, struct mdc_recovery *out, uint32_t max);
/* k, neither in sync nor equal, has refused a write for not having its base: the block is to be sent to it as
 * a whole, in the order of the block's writes; at once only when the comparison would not come to it. */
void rwm_catchup_block(struct rwm_copy *k, const struct store_key *key);

/* ---- rwm_changed.c ---- */
#define RWM_CHANGED_MAX 65536u /* blocks of a module, over all partitions */
/* p has got its version here. */
void rwm_changed_note(struct rwm_copies *c, const struct rwm_piece *p);
/* The units by which version `last` of the block may differ from version `from`; 0: not known. */
uint32_t rwm_changed_units(const struct rwm *m, const struct store_key *key, struct version from,
                           struct version last);
void rwm_changed_clear(
    struct rwm_copies *c); /* all are in sync, or this module is not the primary any more */
void rwm_changed_destroy(struct rwm *m);

/* ---- rwm_rot.c ---- */
int rwm_rot_create(struct rwm *m); /* 0 or -ENOMEM */
#define RWM_REPAIRS_OWN    8u      /* at once, of reads and merges; */
#define RWM_REPAIRS_ASKING 4u      /* of all, those that fetch from another copy */
/* rc of a read of the store tells of rot, or of a place that cannot be read: not of the device as a whole. */
bool rwm_rot_is(const struct rwm *m, int rc);
/* The store could not read for p. True: it is taken care of: a READ or STAT piece ends later; a WRITE or
 * ZERO_EDGE piece, the first of its block, which it holds, is begun again; a COPY piece, likewise the first,
 * ends later, and without `heals` knows then what of the block is rotten. */
bool rwm_rot_read(struct rwm *m, struct rwm_piece *p, int rc);
bool rwm_rot_write(struct rwm *m, struct rwm_piece *p, int rc);
bool rwm_rot_copy(struct rwm *m, struct rwm_piece *p, int rc);
void rwm_rot_step(struct rwm *m); /* goes on with what waits */
void rwm_rot_destroy(struct rwm *m);

/* ---- rwm_turn_copy.c ---- */
/* The member has all write turns that were accepted here before what differed had arrived there. Else they
 * are on their way; the tick asks again. */
bool rwm_turns_told(struct rwm_copy *k);
/* Answers and frees req. */
void rwm_turns_serve(struct rwm *m, struct rwm_request *req, const struct copy_turns *rq,
                     const uint8_t *items, uint32_t bytes);

/* ---- rwm_serve.c ---- */
/* A request of another module (COPY_METHOD_*), on a connection that began with PEER_HELLO. */
void rwm_serve_request(struct rwm_conn *conn, struct rpc_request *rpc, uint16_t method, const void *body,
                       uint32_t len);
void rwm_serve_notify(struct rwm_conn *conn, uint16_t method, const void *body, uint32_t len);
/* The request's piece has ended. */
void rwm_serve_finished(struct rwm_request *req);
void rwm_serve_joins(struct rwm *m);                   /* answers those that may be answered now */
void rwm_serve_pump(struct rwm *m);                    /* goes on with what waited for memory */
void rwm_serve_refuse(struct rwm *m, uint32_t status); /* all that waits */
/* ---- rwm_grant.c ---- */
/* Clocks drift: the granter's hour is a little longer. */
static inline uint64_t rwm_grant_margin(uint64_t duration_ns)
{
    return duration_ns + duration_ns / 10;
}
/*
 * The holder's status when its request arrives: STALE_EPOCH, once, takes all its joins of before for ended.
 * In the order in which it sent requests and joins: said later it would end such as the holder counts on.
 */
uint32_t rwm_grant_ask(struct rwm_conn *conn, const struct copy_promise *rq);
/* After OK, at once or later: gives the promise; or NOT_SERVING. */
uint32_t rwm_grant_promise(struct rwm_conn *conn, const struct copy_promise *rq);
/* That start of the module may join now: OK; AGAIN: not yet, or it is not known to be the latest one. */
uint32_t rwm_grant_join(struct rwm *m, uint32_t module, uint64_t incarnation);
uint64_t rwm_copies_wait_until(const struct rwm_copies *c);
/* A partition that the module joined has got another primary: its next request is refused, once. */
void rwm_grant_outdated(struct rwm *m, uint32_t module);
/* c has another primary than module now. */
void rwm_copies_wait_for(struct rwm_copies *c, uint32_t module);
/* That start of module answers nothing of c's partition any more under the epochs before `epoch`. */
void rwm_copies_released(struct rwm_copies *c, uint32_t module, uint64_t incarnation, uint64_t epoch);
/* Signs that a process is gone, as they come. */
void rwm_grants_check(struct rwm *m); /* the table changed */
void rwm_grant_conn_lost(const struct rwm_conn *conn, enum fabric_down reason);
/* At the peer's address nobody listens; taken: another start of it does. */
void rwm_grant_vacant(struct rwm_peer *peer, bool taken);
static inline bool rwm_copies_whole(const struct rwm_copies *c)
{
    return c->whole && version_cmp(c->overflow, c->committed) <= 0;
}

#endif
