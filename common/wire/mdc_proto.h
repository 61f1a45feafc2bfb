/*
 * mdc_proto.h: control messages between the metadata controller and everyone (modules, gateways, libcistern,
 * tools). msgpack maps (wire.h). Field tables are in mdc_proto.c; one struct wire_type per struct, named
 * <struct>_type.
 *
 * Lists are paged so that each reply fits one message: ask with after = the reply's next until next is 0.
 * Errors: the rpc status, and a body of mdc_error with a sentence for the user.
 */
#ifndef CISTERN_COMMON_WIRE_MDC_PROTO_H
#define CISTERN_COMMON_WIRE_MDC_PROTO_H

#include "common/base.h"
#include "common/wire/wire.h"

#define MDC_NAME_MAX                                                                                         \
    64 /* volume, pool, host names, with the final NUL; [A-Za-z0-9._-], first not '-' or '.' */
#define MDC_PAGE     24 /* most items in one list reply */
#define MDC_ADDR_LEN 24 /* struct fabric_addr */

enum mdc_method {
#define MDC_METHOD(num, name, handler, req, rep) MDC_METHOD_##name = num,
#define MDC_NOTIFY(num, name, msg)               MDC_NOTIFY_##name = num,
#include "common/wire/mdc.def"
#undef MDC_METHOD
#undef MDC_NOTIFY
};

struct mdc_empty {
    uint8_t unused;
};
struct mdc_error {
    char text[256]; /* what was attempted, on what, and what to do */
};
/* First call on every connection to the MDC. */
struct mdc_session_request {
    uint8_t role; /* enum fabric_role */
    char host[MDC_NAME_MAX];
    char name[MDC_NAME_MAX]; /* of the service: "osd1" */
    uint64_t instance;       /* of the process */
    uint64_t term;           /* of the latest table that it has; 0 = none: a restored MDC goes above */
};
struct mdc_session_reply {
    struct uuid cluster;
    uint64_t term, version;
    uint64_t
        table_addr; /* remote address and key of the table region, good on a FABRIC_DOMAIN_TABLE connection */
    uint32_t table_key;
    uint64_t table_len;
    uint32_t heartbeat_ms;
    uint64_t start; /* of this MDC process: a new one means new keys */
};
struct mdc_table_hint {
    uint64_t term, version;
};
/* Identity of a resource is its store uuid; ids are given by the MDC at first registration and kept for ever.
 */
struct mdc_module_register_request {
    struct uuid store;
    uint64_t start_counter; /* durable in the superblock, +1 at each start; lower than known = OLD_MEDIA;
                               equal is a repeat of this start */
    uint64_t incarnation;
    /* The latest start that was accepted, as the medium has noted it: a module registers, notes, and
     * registers again with its own start here before it serves. Not the one on record: OLD_MEDIA. 0 = none.
     */
    uint64_t accepted_start, accepted_incarnation;
    uint32_t module; /* as the superblock says, 0 = never registered */
    uint8_t kind;    /* enum table_module_kind */
    uint8_t media;   /* enum table_media */
    char host[MDC_NAME_MAX], rack[MDC_NAME_MAX], name[MDC_NAME_MAX];
    uint8_t addr[MDC_ADDR_LEN];
    uint64_t capacity_bytes, used_bytes;
    uint64_t highest_epoch; /* of all partitions accepted here */
    uint64_t highest_layer; /* of all layers seen here: a restored MDC starts its ids above */
    uint64_t highest_generation, highest_turn;
    bool damaged;
};
struct mdc_module_register_reply {
    uint32_t module;
    uint32_t pool;          /* 0 = in no pool yet */
    uint64_t term, version; /* of a table in which this incarnation and its partitions' new epochs stand */
    bool tell;              /* MODULE_RECORDS is wanted, as soon as a table of that term is in force */
};
/* A volume of which a module has accepted a later record than the table has: the MDC's store is an old copy.
 */
struct mdc_ahead {
    struct uuid volume;
    uint64_t generation; /* accepted by the module */
};
/* How a module's data fare, and those of which it is the primary. Since its start, the scrub's of the pass
 * under way or the last one. Units are of 4 KiB. */
struct mdc_care {
    uint64_t repaired, lost; /* units that could not be read: written again; no copy had them */
    uint64_t differing;      /* blocks of which copies in sync were not the same */
    uint32_t copies_missing; /* members that are not in sync, over all partitions */
    uint64_t recover_blocks; /* that are known to be still to be sent to them */
    uint64_t recover_rate;   /* bytes a second, of late */
    uint64_t recovered_bytes;
    uint64_t recover_done; /* blocks sent since all copies were in sync last */
    bool scrub_running;
    uint32_t scrub_parts, scrub_left; /* partitions */
    uint64_t scrub_blocks, scrub_rotten, scrub_repaired, scrub_lost, scrub_differing;
    uint64_t scrub_ended_ns; /* wall time; 0 = none since the start */
    uint8_t full;            /* 1: above the setting that warns, 2: above the one that alarms */
};
/* A member that the module is bringing up, as the primary of the partition: compared, and how far it is. */
struct mdc_recovery {
    uint32_t partition, member; /* index in the pool; module id */
    uint64_t left, done;        /* blocks */
};
#define MDC_RECOVERIES 16
#define MDC_SCRUB_STOP 1u
#define MDC_AHEAD_MAX  16
struct mdc_module_heartbeat_request {
    uint32_t module;
    uint64_t incarnation;
    uint64_t applied_term,
        applied_version; /* all volume and partition records up to it are durable and in force here */
    uint64_t capacity_bytes, used_bytes, removing_blocks;
    uint64_t
        leaving_blocks; /* of partitions that it has left by a table that it confirmed; 0 = none is left */
    bool damaged;
    uint64_t reads, writes, read_bytes, write_bytes, errors;                 /* since start */
    uint64_t highest_epoch, highest_layer, highest_generation, highest_turn; /* as at registration */
    struct mdc_ahead ahead[MDC_AHEAD_MAX]; /* some of those; nothing is confirmed while there are any */
    uint32_t ahead_count;
    struct mdc_care care;
    struct mdc_recovery recoveries[MDC_RECOVERIES]; /* some of those under way */
    uint32_t recovery_count;
};
struct mdc_module_heartbeat_reply {
    uint64_t term, version;
    uint64_t scrub; /* 0: nothing; MDC_SCRUB_STOP; else all that was last scrubbed before this wall time is to
                       be */
    bool register_again; /* the MDC does not know this incarnation */
    bool tell;           /* as in the answer to a registration */
};
/*
 * After each start of the controller: which epochs, with which members, the module has accepted. Told page by
 * page, in order, and only while a table of `term` is in force at the module: so nothing that an earlier
 * controller published can be accepted behind it. AGAIN: not this term's, or out of order; told anew when
 * asked.
 */
struct mdc_module_records_item {
    uint32_t pool, partition; /* partition: index in the pool */
    uint64_t epoch;
    uint32_t members[8]; /* as in struct table_partition */
    uint32_t member_count;
    bool in_force; /* accepted, or in force, in this start: nothing that came since is missing */
};
#define MDC_RECORD_ITEMS 32
struct mdc_module_records_request {
    uint32_t module;
    uint64_t incarnation, term;
    bool first, last;
    bool incomplete; /* rot took some: the module cannot tell all */
    struct mdc_module_records_item items[MDC_RECORD_ITEMS];
    uint32_t count;
};
/*
 * A primary tells what it sees of other members of its partitions. Each item counts only when its epoch is
 * the partition's present one, the reporter its primary, and the member still that incarnation; the others
 * are left out silently. Nothing is done about the last in-sync member. The primary repeats what still holds.
 */
enum mdc_report_what {
    MDC_REPORT_UNREACHABLE = 1, /* in sync, does not answer: dropped from the in-sync set when the controller
                                   has lost it too, or when both are heard but the report stands for a time */
    MDC_REPORT_UNFIT = 2,   /* in sync, answers, but could not apply a write: dropped at once. The primary may
                               say so of itself, when it cannot take what another one in sync has */
    MDC_REPORT_IN_SYNC = 3, /* equal, and every write since waits for it: taken in at once */
    MDC_REPORT_LOST = 4, /* was reported as equal in this epoch and is not any more: a new epoch, in which it
                            is not in sync, at once, so that a late IN_SYNC counts for nothing */
};
struct mdc_module_report_item {
    uint32_t pool, partition; /* partition: index in the pool */
    uint64_t epoch;
    uint32_t member;
    uint64_t member_incarnation;
    uint8_t what; /* enum mdc_report_what */
};
#define MDC_REPORT_ITEMS 64
struct mdc_module_report_request {
    uint32_t module;
    uint64_t incarnation;
    struct mdc_module_report_item items[MDC_REPORT_ITEMS];
    uint32_t count;
};
struct mdc_module_report_reply {
    uint64_t term, version; /* of a table that has what was decided */
};
struct mdc_gateway_heartbeat_request {
    uint8_t addr[MDC_ADDR_LEN];
    uint32_t clients, volumes;
    uint64_t reads, writes, read_bytes, write_bytes, table_version;
};
struct mdc_list_request {
    uint64_t after;          /* cursor: 0 at first, then the reply's next */
    char name[MDC_NAME_MAX]; /* filter: pool (partitions, modules), volume (attachments); empty = all */
};
struct mdc_name_request {
    char name[MDC_NAME_MAX];
};
struct mdc_pool_create_request {
    char name[MDC_NAME_MAX];
    uint32_t modules[256]; /* empty: every module that is in no pool */
    uint32_t module_count;
    uint32_t partitions;   /* power of two; 0 = chosen from the number of modules */
    uint32_t stripe_bytes; /* 0 = 1 MiB for ssd and pmem, 4 MiB when a member is hdd or san */
    uint8_t copies;        /* 0 = 1; fewer are kept where there are fewer modules */
    uint8_t min_copies;    /* in sync, below which writes wait; 0 = 1 */
};
struct mdc_pool_info {
    uint32_t id;
    char name[MDC_NAME_MAX];
    uint32_t partitions, stripe_bytes, modules, volumes;
    uint8_t copies, min_copies;
    uint64_t capacity_bytes, used_bytes, provisioned_bytes;
    uint32_t partitions_served; /* with a live primary */
    /* Copies on their way: members that are filled, that wait for their turn, that are to go. */
    uint32_t moves_joining, moves_waiting, moves_leaving;
    uint32_t moves_stuck;   /* partitions that should move, and nobody who answers has a copy */
    uint32_t moves_missing; /* copies of each partition that no module is there for */
    uint32_t modules_away;  /* whose copies are made elsewhere */
    /* As its modules tell (struct mdc_care), added up. */
    uint32_t copies_missing;
    uint64_t recover_blocks, recover_done, recover_rate;
};
struct mdc_pool_reply {
    struct mdc_pool_info pool;
};
struct mdc_pool_list_reply {
    struct mdc_pool_info items[MDC_PAGE];
    uint32_t count;
    uint64_t next;
};
/* More partitions, online. */
struct mdc_pool_grow_request {
    char name[MDC_NAME_MAX];
    uint32_t partitions; /* a power of two above the present number; 0 = twice that */
};
struct mdc_volume_create_request {
    char name[MDC_NAME_MAX], pool[MDC_NAME_MAX]; /* pool may be empty when there is just one */
    uint64_t size_bytes;                         /* > 0, a multiple of UNIT_BYTES, at most 1 PiB */
};
struct mdc_volume_resize_request {
    char name[MDC_NAME_MAX];
    uint64_t size_bytes;
    bool allow_shrink;
};
struct mdc_volume_delete_request {
    char name[MDC_NAME_MAX];
    bool force; /* although attached */
};
struct mdc_volume_info {
    struct uuid id;
    char name[MDC_NAME_MAX], pool[MDC_NAME_MAX];
    uint64_t size_bytes, generation, layer, family;
    uint8_t state; /* enum table_volume_state */
    uint32_t attachments, opens;
};
struct mdc_volume_reply {
    struct mdc_volume_info volume;
};
struct mdc_volume_list_reply {
    struct mdc_volume_info items[MDC_PAGE];
    uint32_t count;
    uint64_t next;
};
/*
 * Opening attaches the host if it is not attached yet. An open is remembered as (volume, host, instance) for
 * as long as the session that made it lives. Another instance of the same host: BUSY while the first one's
 * session lives, unless take_over or shared. Another host: BUSY while a host is attached read-write, unless
 * shared or read_only. The same instance may open again at any time (after a lost MDC connection, or through
 * another gateway).
 */
struct mdc_volume_open_request {
    char volume[MDC_NAME_MAX]; /* name */
    struct uuid id;            /* set when opening again: must still be that volume */
    char host[MDC_NAME_MAX];
    uint64_t instance;
    bool read_only, shared, take_over;
    bool again; /* no new turn is wanted: only the attachment and the volume's present generation are checked
                 */
    uint64_t held; /* goes on with an open that has this generation of the volume: refused when the host was
                      detached since; 0 = a new open */
    /* Grows with the opens that the instance makes. One that comes late, through a gateway that the instance
     * has left, is refused while a later one is there (STALE_TURN). 0 = not told */
    uint64_t serial;
};
struct mdc_volume_open_reply {
    struct mdc_volume_info volume;
    uint32_t pool;          /* id */
    uint64_t turn;          /* a fresh write turn of (volume, host); 0 when read-only or again */
    uint64_t term, version; /* of a table that has this volume */
};
struct mdc_volume_close_request {
    struct uuid id;
    char host[MDC_NAME_MAX];
    uint64_t instance;
    uint64_t serial; /* of the open that it ends: a later one stays */
};
struct mdc_turn_draw_request {
    struct uuid id;
    char host[MDC_NAME_MAX];
    uint64_t instance; /* refused with STALE_TURN when another instance has taken over */
};
struct mdc_turn_draw_reply {
    uint64_t turn;
};
struct mdc_attach_request {
    char volume[MDC_NAME_MAX], host[MDC_NAME_MAX];
    bool read_only, shared;
};
struct mdc_attachment_info {
    char volume[MDC_NAME_MAX], host[MDC_NAME_MAX];
    bool read_only, shared;
    uint32_t opens; /* live instances */
};
struct mdc_attachment_list_reply {
    struct mdc_attachment_info items[MDC_PAGE];
    uint32_t count;
    uint64_t next;
};
struct mdc_cluster_status_reply {
    struct uuid cluster;
    uint64_t term, version, uptime_ms;
    uint32_t modules, modules_up, nodes, pools, partitions, partitions_served, volumes, attachments, gateways,
        sessions;
    uint32_t moves; /* copies that are filled, wait for it, or are to go */
    uint64_t capacity_bytes, used_bytes;
    uint32_t modules_near_full,
        modules_full;        /* above the settings of the modules; a full one is not near full */
    uint32_t copies_missing; /* of partitions, not in sync */
    uint64_t recover_blocks, recover_rate; /* known to be still to be sent; bytes a second */
    uint64_t lost, differing;              /* since the modules' starts: units, blocks */
    uint32_t scrubs;                       /* modules that look through their data now */
    char meta_store[MDC_NAME_MAX];
    uint32_t partitions_unsettled; /* about which nothing is decided before their members were heard */
    char waits[224];               /* for whom, for one of them */
    /* Modules that are down and in no pool, and that say that their store is damaged; one of each. */
    uint32_t modules_idle, idle, modules_damaged, damaged;
    uint32_t partitions_single; /* of pools with several copies: one is in sync, and not damaged */
    uint64_t replace_ms;        /* who is away or damaged for longer has its copies made elsewhere */
};
struct mdc_module_info {
    uint32_t id, pool;
    char name[MDC_NAME_MAX], host[MDC_NAME_MAX], rack[MDC_NAME_MAX], pool_name[MDC_NAME_MAX];
    uint8_t kind, media, state; /* enum table_module_* */
    uint8_t addr[MDC_ADDR_LEN];
    uint64_t incarnation, start_counter, capacity_bytes, used_bytes;
    uint32_t partitions;
    uint64_t silent_ms; /* since the last heartbeat */
    bool damaged;
    uint64_t reads, writes, read_bytes, write_bytes, errors;
    uint64_t weight_bytes; /* what it counts as in the placement: set, or its capacity */
    bool weight_set;
    bool draining;           /* gets no partitions, and gives away those it has */
    bool removing;           /* likewise, and leaves its pool then */
    bool away;               /* for so long that its copies are made elsewhere */
    uint32_t joining;        /* partitions that it is filled with */
    uint64_t leaving_blocks; /* that it still has of partitions that it has left */
    bool down;               /* silent: state tells what it is to requests, and damaged hides down there */
    uint64_t damaged_ms;     /* for how long that is known */
    uint8_t copies;          /* that its pool keeps; 0 = it is in none */
    struct mdc_care care;
};
/* Of the modules of a pool, of one, or of all. */
struct mdc_scrub_request {
    char pool[MDC_NAME_MAX]; /* may be empty */
    uint32_t module;         /* 0 = all */
    uint64_t order;          /* as in the heartbeat's reply */
};
struct mdc_scrub_reply {
    uint32_t modules; /* that were told, or will be */
};
struct mdc_module_request {
    uint32_t module;
};
struct mdc_module_add_request {
    uint32_t module;
    char pool[MDC_NAME_MAX]; /* may be empty when there is just one */
};
struct mdc_module_drain_request {
    uint32_t module;
    bool undo;
};
struct mdc_module_reweight_request {
    uint32_t module;
    uint64_t weight_bytes; /* 0 = its capacity; kept in MiB, rounded up */
};
/* After a change of what the placement goes by. */
struct mdc_module_reply {
    struct mdc_module_info module; /* id 0: it is forgotten */
    uint32_t moved;                /* partitions of its pool that were given to other modules */
    uint32_t to_move;              /* copies of its pool that are to move, in the background */
};
struct mdc_module_list_reply {
    struct mdc_module_info items[8];
    uint32_t count;
    uint64_t next;
};
struct mdc_partition_info {
    uint32_t pool, index, primary; /* module id, 0 = none */
    uint64_t epoch;
    uint32_t members[8];
    uint32_t member_count;
    bool served;
    uint8_t in_sync; /* bits by place in members */
    /* Members that are brought up: blocks left and sent, and how long it may take; 0 = not known */
    uint32_t recover_left, recover_done, recover_s;
};
struct mdc_partition_list_reply {
    struct mdc_partition_info items[64];
    uint32_t count;
    uint64_t next;
};
/* One partition: by pool (may be empty when there is just one) and index, or by a place of a volume. */
struct mdc_partition_show_request {
    char pool[MDC_NAME_MAX], volume[MDC_NAME_MAX];
    uint32_t index;
    uint64_t offset;
};
struct mdc_partition_member {
    uint32_t module;
    char name[MDC_NAME_MAX], host[MDC_NAME_MAX], rack[MDC_NAME_MAX];
    uint8_t state; /* enum table_module_state */
    bool in_sync, leaving, primary;
    char why[224];                                  /* it is here, in words */
    uint64_t recover_left, recover_done, recover_s; /* it is brought up: as in mdc_partition_info */
};
struct mdc_partition_show_reply {
    char pool[MDC_NAME_MAX];
    uint32_t index;
    uint64_t epoch;
    bool served;
    char rule[224]; /* of the pool, in words */
    struct mdc_partition_member members[8];
    uint32_t member_count;
    char moves[512]; /* what is going to move, in lines; empty: nothing */
    char waits[224]; /* what it waits for before anything about it is decided; empty = nothing */
};
struct mdc_node_info {
    char host[MDC_NAME_MAX], rack[MDC_NAME_MAX];
    uint32_t osds, san_modules, modules_up, gateways, clients;
    uint64_t capacity_bytes, used_bytes;
};
struct mdc_node_list_reply {
    struct mdc_node_info items[MDC_PAGE];
    uint32_t count;
    uint64_t next;
};
struct mdc_gateway_info {
    char name[MDC_NAME_MAX], host[MDC_NAME_MAX];
    uint8_t addr[MDC_ADDR_LEN];
    uint32_t clients, volumes;
    uint64_t reads, writes, read_bytes, write_bytes, table_version;
    uint64_t silent_ms;
};
struct mdc_gateway_list_reply {
    struct mdc_gateway_info items[MDC_PAGE];
    uint32_t count;
    uint64_t next;
};

extern const struct wire_type mdc_error_type, mdc_table_hint_type;
/* One per request and reply struct. */
extern const struct wire_type mdc_empty_type, mdc_session_request_type, mdc_session_reply_type,
    mdc_module_request_type, mdc_module_add_request_type, mdc_module_drain_request_type,
    mdc_module_reweight_request_type, mdc_module_reply_type, mdc_partition_show_request_type,
    mdc_partition_show_reply_type, mdc_module_register_request_type, mdc_module_register_reply_type,
    mdc_module_heartbeat_request_type, mdc_module_heartbeat_reply_type, mdc_module_report_request_type,
    mdc_module_report_reply_type, mdc_scrub_request_type, mdc_scrub_reply_type,
    mdc_module_records_request_type, mdc_gateway_heartbeat_request_type, mdc_list_request_type,
    mdc_name_request_type, mdc_pool_create_request_type, mdc_pool_grow_request_type, mdc_pool_reply_type,
    mdc_pool_list_reply_type, mdc_volume_create_request_type, mdc_volume_resize_request_type,
    mdc_volume_delete_request_type, mdc_volume_reply_type, mdc_volume_list_reply_type,
    mdc_volume_open_request_type, mdc_volume_open_reply_type, mdc_volume_close_request_type,
    mdc_turn_draw_request_type, mdc_turn_draw_reply_type, mdc_attach_request_type,
    mdc_attachment_list_reply_type, mdc_cluster_status_reply_type, mdc_module_list_reply_type,
    mdc_partition_list_reply_type, mdc_node_list_reply_type, mdc_gateway_list_reply_type;
/* Largest request or reply struct, for decode buffers. */
#define MDC_STRUCT_MAX 8192u

/* True when text is a legal name of a volume, pool or host. */
bool mdc_name_valid(const char *text);
/* The number that stands for a host in turns and data requests: the first 8 bytes, little-endian, of the
 * SHA-256 of its name; never 0. Modules keep it with turns, so it never changes. */
uint64_t host_id_from_name(const char *host);

#endif
