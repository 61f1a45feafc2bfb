/*
 * rwm_internal.h: the inside of the engine. One subject a file:
 *   rwm.c          life of a module: open, register, serve, fail, shut down, destroy; statistics
 *   rwm_host.c     the listener: connections, HELLO, ghosts of older connections
 *   rwm_area.c     memory of requests: pools, buffers; what outlives a destroyed module until the fabric lets
 * go rwm_request.c  a request's way: decode, hold for a newer table, admission, run, reply rwm_check.c    the
 * checks before anything is done, and once more before a version is given rwm_plan.c     a request's range
 * cut into pieces of blocks rwm_block.c    order of writes per block, read-modify-write, versions rwm_read.c
 * reads and extents rwm_turn.c     write turns rwm_volume.c   volume records rwm_apply.c    a table taken
 * over: records made durable, then in force, then confirmed rwm_member.c   registration and heartbeats
 *   rwm_remove.c   background removal
 *   rwm_leave.c    background removal of what is left of partitions that this module has left
 */
#ifndef CISTERN_SERVICES_RWM_INTERNAL_H
#define CISTERN_SERVICES_RWM_INTERNAL_H

#include "common/log.h"
#include "common/metrics.h"
#include "common/pool.h"
#include "common/wire/block_proto.h"
#include "common/wire/copy_proto.h"
#include "rdma/rpc.h"
#include "services/rwm/rwm.h"

/* Requests that one process serves at once; the rpc layer holds back more. Every module has so many objects,
 * so that none is ever missing when a request arrives. */
#define RWM_HOST_REQUESTS      1024u
#define RWM_REQUESTS_DEFAULT   512u
#define RWM_BUFFER_DEFAULT     (64u * MIB)
#define RWM_REQUEST_BLOCKS_MAX (FABRIC_PAYLOAD_MAX / BLOCK_BYTES + 1u)
#define RWM_PIECES_EXTRA       256u
/* A chunk holds one piece's units, and behind them a unit that is read for a merge. */
#define RWM_CHUNK_SMALL    (4u * UNIT_BYTES)
#define RWM_CHUNK_LARGE    (BLOCK_BYTES + UNIT_BYTES)
#define RWM_SERVE_PIECES   192u /* 25 MiB */
#define RWM_REPAIR_PIECES  18u
#define RWM_RECORD_OPS     64u
#define RWM_HOLD_NS        (2u * NS_PER_S)
#define RWM_REMOVE_OPS     16u
#define RWM_REMOVE_KEYS    64u
#define RWM_INSTANCES_MAX  1024u
#define RWM_VOLUME_BUCKETS 4096u
#define RWM_TURN_BUCKETS   16384u
#define RWM_BLOCK_BUCKETS  2048u

/* ---- requests and their memory ---- */
enum rwm_piece_kind {
    RWM_PIECE_READ,
    RWM_PIECE_STAT,
    RWM_PIECE_WRITE,
    RWM_PIECE_ZERO_EDGE,
    RWM_PIECE_CLEAR,
    /* of copies: these have their version already, and no request */
    RWM_PIECE_FORWARD,       /* a write at a member, over its base only */
    RWM_PIECE_FORWARD_CLEAR, /* a clear, likewise */
    RWM_PIECE_REPLACE,       /* a whole block, or its absence, whatever was there */
    RWM_PIECE_COPY,          /* reads the whole block, for another member or to look after it */
};
enum rwm_request_state {
    RWM_REQUEST_NEW,
    RWM_REQUEST_HELD,    /* waits for a newer table, or for the time limit */
    RWM_REQUEST_QUEUED,  /* waits for buffers: ends in order of arrival */
    RWM_REQUEST_FETCH,   /* the payload is on its way: rwm_request_fetched */
    RWM_REQUEST_APART,   /* waits for its partition: copies->waiting */
    RWM_REQUEST_FETCHED, /* a read that is done but for the promises: copies->waiting */
    RWM_REQUEST_RUNNING, /* pieces are under way: the last one's end replies */
};
struct rwm_request {
    struct list all;       /* area->requests */
    struct list link;      /* m->held or m->queued */
    struct list conn_link; /* conn->requests, until the connection is gone */
    struct rwm_area *area;
    struct rwm_conn *conn;
    struct rpc_request *rpc; /* NULL: the host was destroyed, nobody is to be told */
    struct block_request r;  /* in host byte order */
    enum rwm_request_state state;
    uint16_t method;
    bool dropped;   /* its connection was superseded or lost: no version any more */
    bool refreshed; /* has waited for a newer table once */
    bool timed_out; /* ... which did not come in time */
    bool wait_over; /* the refresh ended; (need_term, need_version) is to come into force */
    bool active;    /* counted in m->active */
    uint32_t status;
    struct cluster_wait wait;
    uint64_t need_term, need_version, deadline_ns;
    uint64_t arrived_ns;
    struct list pieces;
    unsigned pending;
    uint32_t from_module; /* whose request it is, of COPY_METHOD_* */
    uint64_t from_incarnation;
    union {
        struct copy_forward forward;
        struct copy_replace replace;
        struct copy_fetch fetch;
        struct copy_versions versions;
        struct store_record_op turns; /* what TURNS brought becomes durable */
        struct {
            struct copy_promise rq;
            struct store_op proof;
        } promise;
    } copy;
};
struct rwm_piece {
    struct list link;       /* request->pieces, in order of offset */
    struct list block_link; /* block->waiting */
    struct list stall_link; /* m->stalled */
    struct rwm *m;
    struct rwm_area *area;
    struct rwm_request *req; /* NULL: internal, done is called */
    void (*done)(struct rwm_piece *p, uint32_t status);
    struct rwm_block *block;
    uint8_t *chunk;
    bool chunk_large;
    enum rwm_piece_kind kind;
    struct list versioned_link; /* m->versioned */
    uint64_t serial;            /* place in it */
    bool merged;
    uint8_t merge_edges; /* how many edges have been read */
    uint32_t partition;
    uint32_t start, bytes; /* inside the block */
    struct store_op op;
    struct iovec iov;
    uint32_t crcs[UNITS_PER_BLOCK];
    /* ---- copies ---- */
    void *owner;   /* of an internal piece: its done knows */
    bool fetching; /* in its place in the block's queue already, but the payload is still on its way */
    bool copied;   /* was given to the store as one of several copies */
    bool stored;   /* the own store has it */
    bool given_up; /* this module is not the primary any more: ends as soon as the store has answered */
    bool serves;   /* of the serve pools */
    bool repairs;  /* of the repair pools */
    /* COPY: what cannot be read is fetched from another copy, and written again, before it ends. What is left
     * then is set in `rotten`; those units are zero. */
    bool heals;
    uint32_t rotten, bad; /* bad: those that could not be read at first */
    bool healed;          /* a repair was tried for it: once */
    struct rwm_repair *repair;
    bool orphan;   /* nobody but `refs` needs it */
    uint16_t refs; /* calls to other members that use the chunk */
    struct version base;
    uint64_t cuts;                 /* with has_version: of struct copy_forward */
    struct list flight_link;       /* copies->flight: has a version, is not committed */
    struct list block_flight_link; /* block->flight, likewise */
    uint16_t sent, answered; /* bits by place in copies->copy: sent there, and not failed; answered well */
};
/* Memory that a destroyed module may have to leave behind: rpc may still hold requests and buffers. */
struct rwm_area {
    struct list link; /* host->areas */
    struct rwm_host *host;
    struct rwm *m; /* NULL: orphan, lives until requests is empty and sending is 0 */
    struct list requests;
    unsigned sending;
    struct pool *request_pool, *piece_pool, *small_pool, *large_pool;
    struct fabric_mem *small_mem, *large_mem;
    /* For requests of other modules alone, made with the first copies: who holds them waits for nobody else,
     * so two modules never wait for one another. */
    struct pool *serve_piece_pool, *serve_pool;
    struct fabric_mem *serve_mem;
    /* For repairs, made with the first one: they wait for no request. */
    struct pool *repair_piece_pool, *repair_pool;
    struct fabric_mem *repair_mem;
};
/* Blocks with writes waiting or under way. */
struct rwm_block {
    struct list hash_link;
    struct list waiting; /* pieces, in order of arrival */
    struct store_key key;
    unsigned in_store; /* submitted writes and clears */
    unsigned ending;   /* pieces whose ends are being told: it stays */
    bool merging;      /* the first waiting piece reads something: its edges, the version, the block */
    /* With copies only: the version that the block will have when all that was submitted is done. Not known
     * after a clear, which may have left nothing. */
    bool version_known;
    bool unreadable; /* rot took it: only a replacement helps */
    struct version version;
    struct list flight;  /* pieces that are not committed, by version */
    struct list readers; /* pieces that read what is not committed yet */
    bool stalled;        /* the first waiting piece is in m->stalled */
};

/* ---- connections ---- */
struct rwm_instance {
    struct list link; /* m->instances, least recently used first */
    uint64_t instance, sequence;
    struct rwm_conn *conn; /* NULL: its last connection is gone */
};
struct rwm_conn {
    struct list link;     /* host->conns */
    uint32_t from_module; /* of another module (PEER_HELLO) */
    uint64_t from_incarnation;
    struct rwm_host *host;
    struct rpc_peer *peer;
    struct rwm *m; /* after HELLO */
    struct rwm_instance *instance;
    struct list requests;
    bool lost; /* its module was destroyed: closed soon */
};
struct rwm_host {
    struct env *env;
    struct rpc_listener *listener;
    struct list conns, modules, areas;
    struct loop_task orphan_task;
};

/* ---- membership ---- */
struct rwm_part {
    uint64_t opened_epoch; /* durable when the store was opened: versions of it are used up */
    uint64_t epoch;        /* in force */
    uint64_t counter;
    uint64_t staged_epoch;
    bool primary, staged_primary, dirty, complained;
    bool left, left_empty;     /* it was a member, and is not; nothing of it is left here */
    bool inherited;            /* never accepted, but blocks of it are here: rwm_apply.c */
    uint32_t leave_out;        /* removals under way */
    struct rwm_copies *copies; /* NULL: no other members, ever */
};
struct rwm_volume { /* of the store's volume record of the same index; the fields are what is in force */
    struct list hash_link;
    struct list layer_link; /* in force: of layer_buckets */
    struct list remove_link;
    struct uuid id; /* zero: free */
    uint64_t family, layer, parent_layer, generation, size_bytes, resized_generation;
    uint64_t turn_floor;
    uint64_t cut_bytes; /* the size that the shrink of resized_generation gave it */
    uint8_t state;
    bool in_force, dirty, complained, cut_done;
    bool swept; /* deleted, and its blocks are removed; kept while a table knows of it: others may lag behind
                 */
};
/* What this file keeps in the reserved bytes of a volume record. */
struct rwm_volume_extra {
    uint64_t cleaned_generation; /* little-endian: resized_generation whose cut range has been removed */
    uint64_t table_term;         /* of the table that table_version is a version of */
    uint64_t turn_floor;         /* no lower turn is accepted of a host that has no record of its own */
    uint64_t cut_bytes; /* the size that the shrink of resized_generation gave it; 0: the present one */
};
enum rwm_state {
    RWM_OPENING,  /* store_open: opened or failed */
    RWM_JOINING,  /* session, registration, identity, first table: the first table in force */
    RWM_RUNNING,  /* serves */
    RWM_STOPPING, /* rwm_shutdown: the requests under way end */
    RWM_CLOSING,  /* store_close */
    RWM_FAILED,   /* told, or about to tell, the owner */
};
enum rwm_apply_phase {
    RWM_APPLY_IDLE,
    RWM_APPLY_PARTS,
    RWM_APPLY_VOLUMES,
    RWM_APPLY_GONE,
    RWM_APPLY_DURABLE
};
/* A table in force: confirmed when the writes that were given a version under the ones before have ended. */
struct rwm_drain {
    bool waits;
    uint64_t serial; /* of the last such write */
    uint64_t term, version;
    bool incomplete; /* not to be confirmed */
};
struct rwm_record_op {
    struct store_record_op op;
    struct list link; /* m->apply.free */
    struct rwm *m;
};
struct rwm_apply {
    enum rwm_apply_phase phase;
    uint32_t index;
    uint64_t term, version;    /* of the table when this round began */
    bool again;                /* the table changed meanwhile */
    bool incomplete;           /* something could not be taken over: not confirmed */
    struct rwm_drain drain[2]; /* the oldest one that waits, and the latest one behind it */
    struct rwm_record_op ops[RWM_RECORD_OPS];
    struct list free;
    unsigned out;
    struct loop_task task;
    struct store_waiter waiter;
    bool waiting;
};
struct rwm_member {
    struct cluster_call register_call, heartbeat_call;
    struct mdc_module_register_request register_request;
    struct mdc_module_register_reply register_reply;
    struct mdc_module_heartbeat_request heartbeat_request;
    struct mdc_module_heartbeat_reply heartbeat_reply;
    struct cluster_wait first_table;
    uint64_t known_term,
        known_version; /* tables of that term, from that version on, name this start as the module's */
    /* The partitions' records are to be told: rwm_tell.c. */
    struct cluster_call tell_call;
    struct mdc_module_records_request tell_request;
    struct mdc_empty tell_reply;
    bool tell_wanted, telling;
    uint64_t tell_term;
    uint32_t tell_index;
    struct loop_timer timer;
    uint64_t heartbeat_ns;
    bool registering, registered, heartbeat_busy, heartbeat_again, waiting_table;
    /* Found in this round: volumes of which a later record was accepted here than the table has. */
    struct mdc_ahead ahead[MDC_AHEAD_MAX];
    uint32_t ahead_count;
    struct uuid cluster;
};
/* ---- scrub: rwm_scrub.c ---- */
#define RWM_SCRUB_JOBS 2u /* blocks at once */
#define RWM_SCRUB_KEYS 64u
#define RWM_SCRUB_RATE (16u * MIB) /* bytes a second, unless set */
struct rwm_scrub_check {
    struct rwm_scrub_job *job;
    struct rwm_copy *copy;
    struct rpc_call call;
    struct copy_fetch body;
};
struct rwm_scrub_job { /* one block */
    struct rwm *m;
    struct store_key key;
    bool busy, again, doubted; /* again: it is looked at once more, not before after_ns */
    uint64_t after_ns;
    struct rwm_piece *piece;
    unsigned out;
    struct version version; /* as it is here */
    uint32_t written, rotten, crc[UNITS_PER_BLOCK];
    struct rwm_scrub_check check[TABLE_MEMBERS_MAX];
    uint32_t ill[TABLE_MEMBERS_MAX]; /* modules that are to be sent it */
    unsigned ill_count, bad_units;
};
struct rwm_scrub {
    struct loop_timer timer;
    uint64_t since_ns; /* what was last looked at before this wall time is due */
    bool stopped;
    struct rwm_scrub_stats now; /* the pass under way, or the last one */
    bool active;                /* in `partition` */
    uint32_t partition;
    struct rwm_walk *walk; /* of its blocks; without other members the store's list */
    bool walked, failed, listed;
    uint64_t cursor, retry_ns, filled_ns;
    int64_t tokens; /* bytes that may be read now */
    struct store_key keys[RWM_SCRUB_KEYS];
    unsigned key_count, key_next;
    struct rwm_scrub_job job[RWM_SCRUB_JOBS];
};
struct rwm_recovery { /* rwm_catchup.c */
    int64_t tokens;   /* bytes that may be sent now */
    uint64_t filled_ns, window_ns, window_bytes, rate;
    uint64_t before; /* blocks sent when all copies were in sync last */
};
struct rwm_remove_op {
    struct store_op op;
    struct rwm *m;
    bool busy;
};
struct rwm_remove {
    struct list volumes; /* rwm_volume.remove_link */
    struct list swept;   /* likewise */
    struct loop_timer timer;
    uint32_t partition;
    uint64_t cursor;
    struct store_key keys[RWM_REMOVE_KEYS];
    unsigned key_count, key_pos, out;
    uint64_t found, removed;
    bool dirty; /* volumes were added in this pass */
    struct rwm_remove_op ops[RWM_REMOVE_OPS];
    struct rwm_volume *cutting; /* whose last block is being cut */
    bool cut_again;             /* that one's, once more */
    struct store_op stat;
};
struct rwm_leave {
    struct loop_timer timer;
    uint32_t parts;     /* left, and not empty */
    uint32_t partition; /* that the pass is at */
    uint64_t cursor;
    bool part_ended, part_found; /* of that partition: all was listed; something was */
    struct store_key keys[RWM_REMOVE_KEYS];
    unsigned key_count, key_pos, out;
    uint64_t found, removed;
    bool halt; /* rwm_leave_halt waits */
    struct rwm_remove_op ops[RWM_REMOVE_OPS];
};
struct rwm {
    struct env *env;
    struct rwm_host *host;
    struct list host_link;
    struct rwm_config config;
    struct rwm_events events;
    void *user;
    enum rwm_state state;
    struct rwm_area *area;
    struct device *data, *journal;

    struct store *opening; /* until opened */
    struct store *store;
    struct cluster *cluster;
    uint32_t id; /* module id, 0 before the first registration */
    struct rwm_member member;
    struct rwm_apply apply;
    bool damaged, identity_busy, served, broken;

    uint32_t pool_id, stripe_bytes, part_count;
    struct rwm_part *parts;
    struct rwm_volume *volumes;
    uint32_t volume_capacity;
    struct list *volume_buckets, *layer_buckets;
    uint32_t turn_capacity, turn_free_hint;
    uint32_t *turn_buckets, *turn_next; /* index + 1 */
    uint64_t turn_serial;               /* grows with each turn or floor that is accepted */
    uint64_t highest_epoch, highest_layer, highest_generation, highest_turn;
    uint64_t force_term, force_version, applied_term, applied_version;

    struct list held, queued, stalled;
    struct loop_timer held_timer;
    struct loop_task held_task;
    struct store_waiter stall_waiter;
    bool stall_waiting;
    struct loop_task queue_task;
    unsigned active;
    struct list versioned; /* pieces that have a version and have not ended, by serial */
    uint64_t write_serial;
    unsigned blocks_active;
    struct pool *block_pool;
    struct list *block_buckets;
    struct rwm_remove remove;
    struct rwm_leave leave;
    struct rwm_scrub scrub;
    struct rwm_recovery recovery;
    struct pool *changed_pool; /* rwm_changed.c */
    struct list *changed_buckets;

    /* copies: rwm_copies.h */
    struct list peers, grants, copies, lookups, senders, walks, repairs;
    struct list copies_due;
    uint64_t look_all_ns; /* when all of them are looked at */
    struct pool *recent_pool, *send_pool, *lookup_pool, *fix_pool, *todo_pool, *repair_pool;
    unsigned lookups_own;      /* of lookup_pool, kept for this module's own walks */
    struct list joins, serves; /* requests of other modules: joins that wait; what waits for memory */
    struct pool *forward_pool;
    struct loop_timer copies_timer;
    uint64_t give_up_ns;       /* when stopping: not longer than until then for other members */
    uint64_t promise_grace_ns; /* an earlier start may have promised something until then */
    uint64_t peer_sequence;
    struct cluster_call report_call;
    struct mdc_module_report_request report_request;
    struct mdc_module_report_reply report_reply;
    bool report_busy;
    unsigned reconciles, catchups, repairs_own, repairs_asking;
    uint8_t min_copies, full_level;

    struct list instances, instances_free;
    struct rwm_instance *instance_memory;

    struct loop_task fail_task;
    int fail_rc;
    char fail_text[512];
    void (*shutdown_done)(void *arg, int rc);
    void *shutdown_arg;
    struct loop_task shutdown_task;
    int shutdown_rc;
    struct log_limit log_limit;
    struct rwm_stats stats;
    struct {
        struct metric_hist read, write, clear; /* from arrival to answer */
    } latency;
};

/* A durable record; one that rot took (the store is damaged then, and the module says so) reads as never set.
 */
static inline const void *rwm_record(const struct rwm *m, enum store_record_kind kind, uint32_t index)
{
    static const _Alignas(8) uint8_t never_set[128];
    const void *rec = store_record_get(m->store, kind, index);
    return rec ? rec : never_set;
}

/* ---- rwm.c ---- */
/* Ends the module: everything is refused from now on, the owner is told once, later. */
void rwm_fail(struct rwm *m, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* After an error of the store: fails the module when the store is broken or the device gone. */
void rwm_store_error(struct rwm *m, int rc, const char *what);
/* True when requests are to be looked at at all. */
static inline bool rwm_accepts(const struct rwm *m)
{
    return m->state == RWM_RUNNING && !m->broken;
}
/* Something ended: goes on with a shutdown that waits for it. */
void rwm_shutdown_step(struct rwm *m);

/* ---- rwm_area.c ---- */
int rwm_area_create(struct rwm *m, struct rwm_area **out);
void rwm_area_free(struct rwm_area *area);
/* The module goes; rpc may still hold what is in the area. */
void rwm_area_orphan(struct rwm_area *area);
/* An orphan that nothing refers to any more is freed. */
void rwm_area_release(struct rwm_area *area);
/* A piece with a chunk for so many units (0: no chunk). NULL: none free. */
struct rwm_piece *rwm_piece_get(struct rwm *m, unsigned units);
/* One of the serve pools, whose chunks hold a whole block. */
struct rwm_piece *rwm_piece_get_serve(struct rwm *m);
int rwm_area_serve(struct rwm *m);                     /* makes those pools, once */
struct rwm_piece *rwm_piece_get_repair(struct rwm *m); /* with a chunk for a whole block; NULL: none free */
void rwm_piece_put(struct rwm_area *area, struct rwm_piece *p);
struct fabric_mem *rwm_piece_mem(const struct rwm_area *area, const struct rwm_piece *p);

/* ---- rwm_host.c ---- */
void rwm_host_add(struct rwm_host *h, struct rwm *m);
/* Connections to m are closed (later), m is forgotten. */
void rwm_host_remove(struct rwm_host *h, struct rwm *m);

/* ---- rwm_request.c ---- */
void rwm_request_arrived(struct rwm_conn *conn, struct rpc_request *rpc, uint16_t method, const void *body);
/* A refusal without a request object. m may be NULL. */
void rwm_refuse(struct rwm *m, struct rpc_request *rpc, uint32_t status);
void rwm_queue_pump(struct rwm *m);
/* Looks again at every held request: a table came into force. */
void rwm_held_recheck(struct rwm *m);
/* Ends what has not begun, with status. */
void rwm_requests_refuse(struct rwm *m, uint32_t status);
/* One of the request's pieces ended. The request may be gone after it. */
void rwm_request_piece_done(struct rwm_request *req, uint32_t status);
/* For orphans: replies NOT_SERVING and frees, unless a fetch is under way (then its end does so). */
/* Requests that wait for something of their partition: looked at again. */
void rwm_requests_again(struct rwm *m, struct list *waiting);
void rwm_request_orphaned(struct rwm_request *req);
/* Frees the request and its pieces; replies nothing. */
void rwm_request_free(struct rwm_request *req);
void rwm_reply_fill(const struct rwm *m, uint32_t partition, struct block_reply *out);

/* ---- rwm_check.c ---- */
/* STATUS_OK, or the refusal. *newer: a newer table may cure it. write: the turn is checked too. */
uint32_t rwm_check(const struct rwm *m, const struct block_request *r, bool write, bool *newer);
/* Of a body from the wire; INVALID when malformed whatever the tables say. */
uint32_t rwm_decode(const void *body, uint16_t method, const struct rpc_request *rpc,
                    struct block_request *out);
static inline bool rwm_method_writes(uint16_t method)
{
    return method == BLOCK_METHOD_WRITE || method == BLOCK_METHOD_DISCARD || method == BLOCK_METHOD_ZERO;
}

/* ---- rwm_plan.c ---- */
struct rwm_spec {
    enum rwm_piece_kind kind;
    uint64_t block;
    uint32_t start, bytes;
};
/* The next piece of [*pos, end); moves *pos. False at the end. */
bool rwm_plan_next(uint16_t method, uint64_t *pos, uint64_t end, struct rwm_spec *out);
/* Units that the range touches, and whether it covers the first or the last of them only in part. */
unsigned rwm_range_units(uint32_t start, uint32_t bytes);
bool rwm_range_ragged(uint32_t start, uint32_t bytes);

/* ---- rwm_block.c ---- */
int rwm_blocks_create(struct rwm *m);
void rwm_blocks_destroy(struct rwm *m);
/* Queues a WRITE, ZERO_EDGE or CLEAR piece (op.key set) behind the others of its block. */
void rwm_block_add(struct rwm *m, struct rwm_piece *p);
bool rwm_block_busy(const struct rwm *m, const struct store_key *key);
/* p could not be submitted: tried again when the store has room. */
void rwm_stall(struct rwm *m, struct rwm_piece *p);
uint32_t rwm_status_of_store(struct rwm *m, int rc, const char *what);

/* p->fetching ended: goes on, or (rc) takes p out, whose done is told STATUS_CANCELED. */
void rwm_block_fetched(struct rwm *m, struct rwm_piece *p, bool ok);
/* A COPY piece, the first of its block, has ended. */
void rwm_block_copied(struct rwm *m, struct rwm_piece *p, uint32_t status);
/* p, a COPY piece, goes before the first piece of b, which holds the block. */
void rwm_block_before(struct rwm *m, struct rwm_block *b, struct rwm_piece *p);
/* The first piece of b, which holds the block for a repair, goes on. */
void rwm_block_go_on(struct rwm *m, struct rwm_block *b);
/* The checksum of the whole block that p read; its chunk is zero where nothing is written. */
uint32_t rwm_block_crc(const struct rwm_piece *p);
/* p is committed, or was given up: out of flight; its end is told. */
void rwm_block_flight_ended(struct rwm *m, struct rwm_piece *p, uint32_t status);

/* ---- rwm_read.c ---- */
/* Submits a READ or STAT piece. */
void rwm_read_start(struct rwm *m, struct rwm_piece *p);
/* All pieces of a READ or EXTENTS have ended well: replies and frees. */
void rwm_read_reply(struct rwm_request *req);
void rwm_extents_reply(struct rwm_request *req);

/* ---- rwm_turn.c ---- */
int rwm_turns_load(struct rwm *m);
/* The highest turn accepted of (volume, host), 0 = none. */
uint64_t rwm_turn_get(const struct rwm *m, const struct uuid *volume, uint64_t host);
/* Accepts turn when it is higher. When all records are in use the lowest goes, and becomes its volume's
 * floor. 0; -EAGAIN: the store has no room now; or of the store. */
int rwm_turn_accept(struct rwm *m, const struct uuid *volume, uint64_t host, uint64_t turn);
/* Forgets the turns of a volume that is gone. 0 or -EAGAIN (call again), or of the store. */
int rwm_turns_forget(struct rwm *m, const struct uuid *volume);

/* ---- rwm_volume.c ---- */
int rwm_volumes_load(struct rwm *m);
struct rwm_volume *rwm_volume_find(const struct rwm *m, const struct uuid *id);
/* Makes the table's record v durable when it is newer. 0, -EAGAIN, or of the store. *set: an op was used. */
int rwm_volume_stage(struct rwm *m, const struct table *t, const struct table_volume *v,
                     struct rwm_record_op *op, bool *set);
/* Looks whether the volume of record index is gone from the table. As above. */
int rwm_volume_stage_gone(struct rwm *m, const struct table *t, uint32_t index, struct rwm_record_op *op,
                          bool *set);
/* No turn below is accepted any more of hosts without a record. 0 or -EAGAIN, or of the store. */
int rwm_volume_set_turn_floor(struct rwm *m, struct rwm_volume *v, uint64_t turn);
/* What was staged is durable: in force. */
void rwm_volumes_force(struct rwm *m);
/* The removal of what v left is complete: frees or marks its record. 0 or -EAGAIN, or of the store. */
int rwm_volume_removed(struct rwm *m, struct rwm_volume *v);
bool rwm_volume_wants_removal(const struct rwm *m, const struct rwm_volume *v);
/* In force; NULL: none of that layer. */
struct rwm_volume *rwm_volume_of_layer(const struct rwm *m, uint64_t layer);
/* A generation of the layer's volume: what shrinks up to it have cut off is gone here. */
uint64_t rwm_volume_cuts(const struct rwm *m, uint64_t layer);
/* Beyond the size that is in force here, which may be that of before a grow. */
bool rwm_volume_beyond(const struct rwm *m, const struct store_key *key);
/* Likewise, and the sizes in force here are not older than the partition's epoch: an earlier primary knew of
 * no later end, so nothing was acknowledged there. */
bool rwm_volume_nobodys(const struct rwm *m, uint32_t partition, const struct store_key *key);
/* What was sent with `cuts` lies in a block beyond a later shrink that is in force here: nobody's any more.
 */
bool rwm_volume_cut_off(const struct rwm *m, const struct store_key *key, uint64_t cuts);
/* What was sent with `cuts` is in the store. In the block that a later shrink has cut through it may lie
 * behind the cut: that is looked at once more. */
void rwm_volume_stored(struct rwm *m, const struct store_key *key, uint64_t cuts);

/* ---- rwm_apply.c ---- */
void rwm_apply_init(struct rwm *m);
/* The table may have changed. */
void rwm_apply_kick(struct rwm *m);
/* A write gets its version; and has ended. */
void rwm_apply_write_begun(struct rwm *m, struct rwm_piece *p);
void rwm_apply_write_ended(struct rwm *m, struct rwm_piece *p);
void rwm_apply_stop(struct rwm *m);

/* ---- rwm_member.c ---- */
int rwm_member_start(struct rwm *m);
void rwm_member_stop(struct rwm *m);
/* The applied version changed: say so now. */
void rwm_member_heartbeat(struct rwm *m);

/* ---- rwm_tell.c ---- */
/* The controller asks, under that term. */
void rwm_tell_want(struct rwm *m, uint64_t term);
/* Goes on: a table came into force. */
void rwm_tell_step(struct rwm *m);

/* ---- rwm_remove.c ---- */
void rwm_remove_init(struct rwm *m);
/* v's blocks, or those beyond its size, are to go. */
void rwm_remove_add(struct rwm *m, struct rwm_volume *v);
void rwm_remove_stop(struct rwm *m);
/* v's last block is to be cut, although it was already. */
void rwm_remove_cut_again(struct rwm *m, struct rwm_volume *v);
/* Is this block to go as a whole? */
bool rwm_remove_matches(const struct rwm *m, const struct store_key *key);
/* Of a deleted volume, or beyond a cut that is under way: a primary that has not heard of it may still send
 * it, but nothing of it is to be stored any more. */
bool rwm_remove_dead(const struct rwm *m, const struct store_key *key);
uint64_t rwm_remove_pending(const struct rwm *m);

/* ---- rwm_leave.c ---- */
void rwm_leave_init(struct rwm *m);
void rwm_leave_stop(struct rwm *m);
/* t came into force: which partitions were left, and are to be emptied? */
void rwm_leave_look(struct rwm *m, const struct table *t);
/* Blocks still to be removed, as far as is known; 0 = all are empty. */
uint64_t rwm_leave_pending(const struct rwm *m);
/* Removals are under way there: it must not be joined yet, for what is listed now may go. */
bool rwm_leave_busy(const struct rwm *m, uint32_t partition);
/* The partitions are about to be others. False: removals are under way; the table is looked at again when
 * they have ended. */
bool rwm_leave_halt(struct rwm *m);
/* rwm_epoch.c: writes of before are under way there, which may still leave a block. */
bool rwm_leave_writes(const struct rwm *m, uint32_t partition);

#endif
