/*
 * volume_internal.h: what the files of the volume core share.
 *
 *   volume_core.c     the core of a shard: cluster session, table changes, the bounded set of parts
 *   volume_link.c     one connection to each module
 *   volume_open.c     open, open again, write turns, close, loss
 *   volume_request.c  requests: submit, splitting, time limits, ends
 *   volume_part.c     one part of a request: the state machine that ends only with an answer
 *
 * Callbacks of users run only from events (a reply, a timer, a task), never from volume_submit, part_go or a
 * walk over lists.
 */
#ifndef CISTERN_SERVICES_VBS_VOLUME_INTERNAL_H
#define CISTERN_SERVICES_VBS_VOLUME_INTERNAL_H

#include "common/list.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/pool.h"
#include "common/trace.h"
#include "common/wire/block_proto.h"
#include "services/vbs/volume.h"

/* ---- connections to modules ---- */
enum link_state {
    LINK_IDLE,       /* no connection; the timer is armed when parts wait and an attempt failed */
    LINK_CONNECTING, /* ended by up or down */
    LINK_HELLO,      /* ended by the reply to HELLO, or down */
    LINK_READY,      /* parts go out */
    LINK_DRAINING,   /* closed; calls of the old connection have yet to end. Only then a new one is made. */
};
struct module_link {
    struct list all; /* core->links, by module id */
    struct volume_core *core;
    uint32_t module;
    enum link_state state;
    struct fabric_addr addr; /* as the table said when the connection was begun */
    uint64_t incarnation;
    struct rpc_peer *peer;     /* CONNECTING, HELLO, READY */
    struct rpc_peer *old_peer; /* DRAINING */
    struct rpc_service service;
    struct list waiting; /* parts, until READY */
    struct list sent;    /* parts */
    unsigned calls;      /* begun on peer (or its predecessor) and not ended: parts and HELLO */
    uint64_t backoff_ns;
    bool was_ready;                 /* the present or latest connection came up to READY */
    struct loop_timer timer, leave; /* leave: see link_check_moved */
    struct rpc_call hello;
    struct block_hello hello_body;
    struct log_limit log;
};
/* The link to a module, made when there is none. NULL: out of memory. */
struct module_link *link_get(struct volume_core *core, uint32_t module);
/* Makes it connect, now or when its back-off is over. */
void link_want(struct module_link *ml);
/* Ends the connection; its calls end with -ENOTCONN, later. */
void link_close(struct module_link *ml);
/* To be called with each new table: has what is under way here another module to go to now, and still no
 * answer after a while, then the connection is given up. So nobody waits for a host that vanished longer than
 * the cluster does. */
void link_check_moved(struct module_link *ml);
/* A call on it has ended. */
void link_call_ended(struct module_link *ml);
/* Closes connections to modules that have gone from the table, or are elsewhere or another incarnation now.
 */
void links_check_table(struct volume_core *core, const struct table *table);
/* Ends the connection at once; parts under way on it are moved to *orphans (their rpc calls are over). */
void link_abandon(struct module_link *ml, struct list *orphans);
void links_destroy(struct volume_core *core);

/* ---- parts ---- */
enum part_state {
    PART_FREE,
    PART_PARKED,  /* nobody is known to serve it: ended by a new table */
    PART_LINK,    /* ended by the link becoming ready, or by a new table with another route */
    PART_SENT,    /* ended by the reply or the loss of the connection */
    PART_BACKOFF, /* ended by its timer, a new table with another route, a new generation or turn */
};
/* Where a part was sent, or would be. */
struct part_route {
    uint32_t module, pool, partition;
    uint64_t incarnation, epoch;
};
struct part {
    struct list link;           /* of the state: core->parked, ml->waiting, ml->sent, core->backoff */
    struct list req_link;       /* req->parts */
    struct volume_request *req; /* NULL: given up by its request, only the reply is awaited */
    struct volume *volume;
    struct module_link *ml; /* SENT, LINK */
    enum part_state state;
    enum volume_op op;
    uint64_t offset;
    uint32_t length;
    unsigned attempts, crc_failures;
    int fail_rc; /* BACKOFF: ends with this when the timer fires */
    struct part_route route;
    uint64_t generation, turn; /* of the latest attempt */
    uint32_t source_crc;
    bool source_crc_known;
    struct loop_timer timer;
    struct rpc_call call;
    void *copy; /* of the payload, once the module saw it change under way */
    struct fabric_mem *copy_mem;
    unsigned sge_count;
    struct fabric_sge sge[FABRIC_SGE_MAX];
};
/* Sends the part to where the table says, or puts it where it waits. Runs no callbacks. It must be in no
 * list. */
void part_go(struct part *p);
/* Takes a part that is not SENT out of its list. */
void part_unlink(struct part *p);
/* Gives it back to the pool. */
void part_free(struct volume_core *core, struct part *p);
/* Repeats those whose way has changed. */
void parts_check_table(struct volume_core *core);
/* A new generation or turn of v: refused parts go again at once. */
void parts_kick_volume(struct volume *v);
/* Ends with rc, but not inside the present call. */
void part_fail_later(struct part *p, int rc);
/* One that is SENT on ml belongs to another module by now. */
bool parts_moved_from(const struct module_link *ml);
/* The connection is gone, and with it the call: the part goes again. */
void part_retry_lost(struct part *p);

/* ---- requests (request.state) ---- */
enum request_state { REQUEST_SPLITTING = 1, REQUEST_WHOLE, REQUEST_ENDING };
/* A part has ended (it is freed here): 0 or the request's error. May run the user's callback. */
void request_part_ended(struct part *p, int rc);
/* Ends every request of v with rc as soon as nothing of it is at a module. Runs callbacks. */
void requests_end_all(struct volume *v, int rc);
/* Takes p from its request and its volume; the answer, if one is due, is nobody's. */
void part_give_up(struct part *p);
/* Makes parts for requests that wait for them. Runs no callbacks. */
void requests_pump(struct volume_core *core);
/*
 * Cuts [skip, skip + len) out of pieces into out (at most max): returns how many bytes it covers, a multiple
 * of SECTOR_BYTES, less than len only when max pieces do not reach further.
 */
uint32_t sge_slice(const struct fabric_sge *sge, unsigned count, uint64_t skip, uint32_t len,
                   struct fabric_sge *out, unsigned max, unsigned *out_count);
/* 0 or -EINVAL: pieces of length bytes in all that sge_slice can cut anywhere at a sector. */
int sge_check(const struct fabric_sge *sge, unsigned count, uint64_t length);

/* For requests of volumes and of clients of a gateway alike. 0 or -errno: what req asks for can be done in a
 * volume of that size. */
int request_check(const struct volume_request *req, uint64_t size_bytes, bool read_only);
/* Nothing of it has been split. */
void request_begin(struct volume_request *req);
/* The pieces of memory of the next part of req, if it has memory. Returns its bytes: at most length, less
 * when there are too many pieces. */
uint32_t request_slice(const struct volume_request *req, uint32_t length, struct fabric_sge *out,
                       unsigned *count);
/* The next part of it has length bytes; with the last req goes to the end of whole. */
void request_took(struct volume_request *req, uint32_t length, struct list *part_link, struct list *whole);

/* ---- volumes ---- */
enum volume_state {
    VOLUME_OPENING, /* the MDC is asked */
    VOLUME_TABLE,   /* waits for a table that has it */
    VOLUME_READY,
    VOLUME_LOST, /* lost_rc */
    VOLUME_CLOSING,
};
struct volume {
    struct list all;    /* core->volumes */
    struct list hungry; /* core->hungry while queue holds requests that may have parts now */
    struct volume_core *core;
    enum volume_state state;
    int lost_rc;
    struct volume_open_options options;
    uint64_t host_id;
    struct volume_info info;
    uint64_t generation, turn;
    struct list queue;    /* requests not wholly split */
    struct list requests; /* requests wholly split */
    unsigned parts;       /* its parts */
    void (*open_done)(void *arg, struct volume *volume, int rc, const char *text);
    void *open_arg;
    void (*close_done)(void *arg);
    void *close_arg;
    void (*changed)(void *arg, int rc);
    void *changed_arg;
    struct loop_task notify; /* runs changed */
    struct cluster_wait wait;
    struct cluster_call open_call, turn_call; /* one of each at a time */
    bool open_busy, turn_busy;
    struct loop_timer again_timer; /* asks the MDC again */
    struct mdc_volume_open_request open_request;
    struct mdc_volume_open_reply open_reply;
    struct mdc_volume_close_request close_request;
    struct mdc_turn_draw_request turn_request;
    struct mdc_turn_draw_reply turn_reply;
    struct mdc_empty close_reply;
};
/* Asks the MDC whether this open still holds and for the present generation; at most one question at a time.
 */
void volume_open_again(struct volume *v);
/* A module knows a higher turn. May run callbacks (when the open allows one turn only). */
void volume_turn_stale(struct volume *v);
/* The open is over. Runs callbacks. */
void volume_lose(struct volume *v, int rc);
/* Takes size and state from a new table. Runs no callbacks. */
void volume_check_table(struct volume *v, const struct table *table);

/* ---- the core ---- */
struct volume_core {
    struct env *env;
    struct volume_core_config config;
    struct cluster *cluster;
    struct pool *parts;
    unsigned volume_parts_max; /* of one volume, so that one without service does not take all */
    struct list volumes, links, hungry, parked, backoff;
    struct module_link **link_by_id; /* index: module id */
    uint32_t link_room;
    uint64_t hello_sequence, open_serial;
    struct loop_timer refresh_timer; /* jitter before a refresh that many want at once */
    struct log_limit log;
    struct volume_core_counters counters;
};
/* Soon, once, with jitter. */
void core_refresh(struct volume_core *core);
/* ns with jitter: somewhere in the upper half. */
uint64_t core_jitter(struct volume_core *core, uint64_t ns);

#endif
