/*
 * state.h: the cluster's truth in memory, and what a batch of decisions changes. No I/O, no clock, no
 * randomness here: decisions (ops.h) change the state and mark in a struct mdc_tx what is to be stored and
 * what is to be published.
 *
 * "rec" parts are durable, exactly what is in the store once the batch is committed; the rest is known only
 * to this process and is heard again from the modules and clients.
 */
#ifndef CISTERN_SERVICES_MDC_STATE_H
#define CISTERN_SERVICES_MDC_STATE_H

#include "common/list.h"
#include "common/table/table.h"
#include "services/mdc/records.h"

#define TURN_BATCH      1000u /* turns allotted by one commit */
#define TURN_BITS       32u   /* of a turn, below the count of its term */
#define GENERATION_BITS 24u   /* of a generation, likewise */
#define TERM_COUNT_MAX  ((1ull << 28) - 1)
#define SILENT_PERIODS  5u /* heartbeats missed before a module is DOWN */
#define SESSION_GRACE_NS                                                                                     \
    (20u * NS_PER_MS) /* a module whose session went may come back so soon; else its copies count as away */
#define PARTITIONS_MAX     65536u /* of one pool */
#define OPENS_MAX          1024u  /* of one volume */
#define ATTACHED_HOSTS_MAX 256u   /* of one volume */

/* The highest numbers that somebody has seen. */
struct mdc_held {
    uint64_t epoch, layer, generation, turn;
};
/* A primary reports that it cannot reach a module. */
#define MDC_APART_MAX 8u
struct mdc_apart {
    uint32_t reporter; /* module id, 0 = none */
    uint64_t since_ns, heard_ns;
};
enum { MDC_SAID_DOWN = 1, MDC_SAID_DAMAGED = 2, MDC_SAID_AWAY = 4 };
struct mdc_module { /* index = id - 1; rec.id 0 = free */
    struct record_module rec;
    struct mdc_session *session; /* that it was heard on last; NULL = gone */
    bool registered;             /* by this incarnation with this MDC process */
    bool damaged, down;
    uint64_t damaged_ns; /* since when this process knows that it is damaged; 0 = it is not */
    uint32_t partitions; /* of which it is a member */
    uint8_t said;        /* what of this was logged: MDC_SAID_* */
    bool publish, store; /* changed outside a decision (heartbeat, silence): the next batch takes it up */
    /* The store does not know of a generation that it has seen: until it confirms a table of this term, what
     * it is ahead of may be untold. */
    bool knows_more;
    struct mdc_held held, taken; /* heard by heartbeat, for the next batch; what of it was taken up */
    struct mdc_ahead ahead[MDC_AHEAD_MAX];
    uint32_t ahead_count;
    uint64_t heard_ns;
    uint64_t lost_ns;        /* when its session went; 0 = it has one, or had none */
    bool dead;               /* its copies are to leave the in-sync sets: the next batch does it */
    uint64_t leaving_blocks; /* heard: it still has so many of partitions that it has left */
    uint64_t empty_version;  /* table version that has it in no partition, 0 = it is in some */
    struct mdc_apart apart[MDC_APART_MAX];
    bool gone;          /* its session went, or it is silent, and it was not heard since */
    bool reset;         /* ... and the kernel of its host said so */
    bool telling, told; /* its partition records: is in the middle of it; all, in this term */
    uint64_t applied_term, applied_version; /* confirmed by heartbeat */
    uint64_t capacity_bytes, used_bytes, removing_blocks;
    uint64_t reads, writes, read_bytes, write_bytes, errors;
    struct mdc_care care;
    struct mdc_recovery recoveries[MDC_RECOVERIES];
    uint32_t recovery_count;
    uint64_t scrub; /* order for it, given with each heartbeat; lost with this process */
};
/* What the mover (ops_move.c) saw of a pool when it looked last. Nothing of it needs to outlive the process.
 */
struct mdc_moving {
    uint64_t look_ns; /* to be looked at from then on; UINT64_MAX = when something changes */
    uint32_t joining; /* members that are being filled */
    uint32_t waiting; /* members that are wanted, and not begun with */
    uint32_t leaving; /* members that are to go */
    uint32_t stuck;   /* partitions that no module which answers has a copy of, so nothing moves */
    uint32_t missing; /* copies that the pool should have of each partition, and no module can take */
    uint32_t away; /* modules that are away, or damaged, for so long that their copies are made elsewhere */
    uint64_t rest_ns;     /* since when nothing moves and all are in sync; 0 = not so */
    uint64_t handover_ns; /* when a primary was changed last */
};
/* What is known of a partition that is not settled yet (ops_settle.c). */
struct mdc_heard {
    struct record_partition best; /* the highest epoch heard: the store's, or a module's record */
    bool told;                    /* by a module */
    uint8_t running;              /* bits by place in best.members: has told that it is in force there */
};
enum {
    MDC_UNSETTLED = 1,    /* the members' own records are awaited: nothing is decided about the partition */
    MDC_EPOCH_OWED = 2,   /* a member has started meanwhile: a new epoch is due */
    MDC_SETTLED_LATE = 4, /* settled because the time was over, not because all members had told */
};
struct mdc_pool { /* index = id - 1; rec.id 0 = free */
    struct record_pool rec;
    struct mdc_moving moving;
};
/* How fast the mover goes; see struct mdc_config. */
struct mdc_move_limits {
    uint32_t per_module, total;
    uint64_t replace_ns, rest_ns;
};
struct mdc_volume { /* slot = record index in the table; rec.id zero = free */
    struct record_volume rec;
    uint64_t fence_version; /* table version whose confirmation ends the latest generation change */
    bool fence_unpublished; /* raised in the batch under way */
    /* Opens with a lower generation than this, of hosts that are not attached, were ended by a detach. */
    uint64_t floor;
    struct list attachments, opens;
    uint32_t attachment_count, open_count;
    uint32_t id_next, name_next; /* index chains: slot + 1, 0 = end */
};
struct mdc_attachment {
    struct list link;     /* mdc_volume.attachments, in order of making */
    struct list all_link; /* mdc_state.attachments, in order of serial */
    struct record_attachment rec;
    uint64_t serial;
    uint32_t volume; /* slot */
};
/* A live instance: lives as long as the session that made it, at most. */
struct mdc_open {
    struct list link;         /* mdc_volume.opens */
    struct list session_link; /* mdc_session.opens */
    struct mdc_session *session;
    uint32_t volume; /* slot */
    char host[MDC_NAME_MAX];
    uint64_t instance;
    uint64_t serial; /* the instance's number for it; 0 = not told */
    bool read_only, shared;
};
struct mdc_session {
    struct list link; /* mdc_state.sessions, in order of serial */
    struct list opens;
    uint64_t serial;
    uint8_t role;
    char host[MDC_NAME_MAX], name[MDC_NAME_MAX];
    uint64_t instance;
    bool gateway; /* sent gateway heartbeats */
    struct mdc_gateway_heartbeat_request seen;
    uint64_t heard_ns;
    void *peer; /* serve.c's */
};
struct mdc_state {
    struct uuid cluster;
    struct table_limits limits;
    uint32_t attachments_max;
    uint32_t heartbeat_ms;
    struct record_counters counters;
    uint64_t turn_next;  /* turns in [turn_next, counters.turn_limit) may be given */
    uint64_t raise_term; /* a term seen elsewhere that ours must go above; 0 = none */
    struct mdc_move_limits moves;
    bool move_due;          /* the next batch looks at pools that are due */
    bool restored;          /* somebody knew more than the store: it was put back from an old copy */
    bool trusted;           /* the operator says that it was not: nobody is waited for */
    struct mdc_held loaded; /* generation, turn: the highest that the store knew when this process began */
    struct mdc_held base;   /* generation, turn: what this process gives out is above */

    struct mdc_module *modules;
    struct mdc_pool *pools;
    struct record_partition *partitions; /* index = record index in the table; epoch 0 = free */
    uint32_t *partition_pool;            /* pool id of each */
    uint8_t *settling;                   /* MDC_UNSETTLED ... of each */
    struct mdc_heard *heard;             /* of each that is unsettled */
    uint32_t unsettled;                  /* how many are */
    struct mdc_volume *volumes;
    uint32_t volume_top;      /* slots below it may be in use */
    uint32_t volume_count;    /* in use */
    uint32_t volumes_pending; /* SHRINKING or DELETING */
    uint32_t *id_heads, *name_heads, index_mask;
    struct list attachments, sessions;
    uint32_t attachment_count, session_count;
    uint64_t attachment_serial, session_serial;

    /* of the table as published */
    uint64_t term, version, started_ns;
    char meta_name[MDC_NAME_MAX];
};

/* ---- a batch ---- */
enum tx_kind {
    TX_PUBLISH, /* kind, index */
    TX_STORE,   /* kind, index: the record as it is when the batch is sealed; partitions: one of the chunk */
    TX_COUNTERS,
    TX_FORMAT,
    TX_ATTACHMENT, /* key: stored if it is there when the batch is sealed */
    TX_DELETE,     /* key */
};
struct tx_change {
    uint8_t what; /* enum tx_kind */
    uint8_t kind; /* enum table_kind */
    uint32_t index;
    char *key; /* malloc'ed */
};
/* Grows as needed; mdc_tx_reset keeps the memory. A change of the same record is noted once. */
struct mdc_tx {
    struct tx_change *changes;
    size_t count, capacity;
    uint8_t *marks[TABLE_KINDS]; /* by record index: 1 = publish noted, 2 = store noted */
    uint32_t mark_count[TABLE_KINDS];
    bool counters;
    bool no_memory; /* a change could not be noted: the batch must not be committed */
    size_t stores;  /* changes that need a commit */
};

/* 0 or -ENOMEM. Limits that are zero get their defaults. */
int mdc_state_create(const struct table_limits *limits, uint32_t attachments_max, struct mdc_state **out);
void mdc_state_destroy(struct mdc_state *s);
int mdc_tx_create(const struct mdc_state *s, struct mdc_tx *tx);
void mdc_tx_destroy(struct mdc_tx *tx);
void mdc_tx_reset(struct mdc_tx *tx);
void mdc_tx_publish(struct mdc_tx *tx, enum table_kind kind, uint32_t index);
/* True: this batch has decided something that no table has yet; s->version is of before that. */
bool mdc_tx_publishes(const struct mdc_tx *tx);
/* Store and publish. */
void mdc_tx_record(struct mdc_tx *tx, enum table_kind kind, uint32_t index);
/* After a TX_DELETE of the record's key: a later mdc_tx_record of this index in the batch counts again. */
void mdc_tx_forget(struct mdc_tx *tx, enum table_kind kind, uint32_t index);
void mdc_tx_counters(struct mdc_tx *tx);
void mdc_tx_format(struct mdc_tx *tx);
/* TX_ATTACHMENT or TX_DELETE. */
void mdc_tx_key(struct mdc_tx *tx, enum tx_kind what, const char *key);
/* Turns the noted changes into the items of a commit, in order; *items and the values are malloc'ed: freed by
 * mdc_items_free. 0 or -ENOMEM. */
int mdc_tx_seal(struct mdc_state *s, const struct mdc_tx *tx, struct meta_item **items, size_t *count);
void mdc_items_free(struct meta_item *items, size_t count);

/*
 * Fills an empty state from a store, checks each record and how they fit together. An empty store leaves an
 * empty state (cluster zero). 0 or as mdc_create; why (256 bytes) says what is wrong.
 */
int mdc_state_load(struct mdc_state *s, struct meta_store *meta, char *why);

/* ---- looking up; NULL = not there ---- */
struct mdc_module *mdc_module_by_id(struct mdc_state *s, uint32_t id);
struct mdc_module *mdc_module_by_store(struct mdc_state *s, const struct uuid *store);
struct mdc_pool *mdc_pool_by_id(struct mdc_state *s, uint32_t id);
struct mdc_pool *mdc_pool_by_name(struct mdc_state *s, const char *name);
struct mdc_volume *mdc_volume_by_id(struct mdc_state *s, const struct uuid *id);
/* Not those that are being deleted. */
struct mdc_volume *mdc_volume_by_name(struct mdc_state *s, const char *name);
uint32_t mdc_volume_slot(const struct mdc_state *s, const struct mdc_volume *v);
struct mdc_attachment *mdc_attachment_find(struct mdc_volume *v, const char *host);
struct mdc_open *mdc_open_find(struct mdc_volume *v, const char *host, uint64_t instance);
/* The first in-sync member's module id, 0 = none. */
uint32_t mdc_partition_primary(const struct record_partition *p);
/* Sets mdc_module.partitions of all modules of the pool; after each change of its partitions. */
void mdc_pool_count_partitions(struct mdc_state *s, const struct mdc_pool *pool);
/* What it counts as in the placement, in bytes. */
static inline uint64_t mdc_module_weight(const struct mdc_module *m)
{
    return m->rec.weight_mib != 0 ? m->rec.weight_mib * MIB : m->capacity_bytes;
}
/* It answers its clients; one whose store is damaged does, too. */
static inline bool mdc_module_answers(const struct mdc_module *m)
{
    return m->registered && !m->down;
}
/* ... and all that it holds counts. */
static inline bool mdc_module_serves(const struct mdc_module *m)
{
    return mdc_module_answers(m) && !m->damaged;
}

/* ---- changing ---- */
/* A free slot gets rec (its id and name must be unknown) and enters the indexes. NULL: no slot left. */
struct mdc_volume *mdc_volume_add(struct mdc_state *s, const struct record_volume *rec);
/* The name is free for another volume from now on. */
void mdc_volume_forget_name(struct mdc_state *s, struct mdc_volume *v);
/* Frees the slot; it has neither attachments nor opens. Notes nothing. */
void mdc_volume_remove(struct mdc_state *s, struct mdc_volume *v);
/* The generation rises above everything known, and is to be confirmed by the modules. */
void mdc_volume_raise_generation(struct mdc_state *s, struct mdc_tx *tx, struct mdc_volume *v);
/* NULL: out of memory. tx NULL: loading. */
struct mdc_attachment *mdc_attachment_add(struct mdc_state *s, struct mdc_tx *tx, struct mdc_volume *v,
                                          const struct record_attachment *rec);
void mdc_attachment_changed(struct mdc_state *s, struct mdc_tx *tx, struct mdc_attachment *a);
void mdc_attachment_remove(struct mdc_state *s, struct mdc_tx *tx, struct mdc_attachment *a);
struct mdc_open *mdc_open_add(struct mdc_state *s, struct mdc_volume *v, struct mdc_session *session,
                              const char *host, uint64_t instance);
void mdc_open_remove(struct mdc_state *s, struct mdc_open *o);
/* NULL: out of memory. */
struct mdc_session *mdc_session_add(struct mdc_state *s, const struct mdc_session_request *rq,
                                    uint64_t now_ns);
/* Ends its opens; frees it. */
void mdc_session_remove(struct mdc_state *s, struct mdc_session *session);
/*
 * Generations and turns are numbered by terms: from here on they are above all that were given out in terms
 * below this one, also by a process whose store was lost since.
 */
void mdc_numbers_lift(struct mdc_state *s);
/* A turn never given before; allots another batch when few are left. */
uint64_t mdc_turn_take(struct mdc_state *s, struct mdc_tx *tx);
/*
 * A term above `above`. A term is a count in the upper bits and random in the lower 16, so that a process
 * that begins from an old copy of the store does not publish under the term of one that it knows nothing of:
 * what a module confirmed in that term would count as confirmed in this.
 */
uint64_t mdc_term_above(uint64_t above, uint16_t random);

/* ---- confirmation ---- */
/*
 * True when each module that has partitions of the pool confirmed table version `version`. Otherwise *awaited
 * (may be NULL) is the first that has not.
 */
bool mdc_pool_confirmed(struct mdc_state *s, uint32_t pool, uint64_t version, struct mdc_module **awaited);
/*
 * Likewise of the modules that are in sync somewhere, as far as that is known: then nobody can acknowledge
 * what a table before that version allows. Others learn of it before they come in sync (mdc_module_knows).
 */
bool mdc_pool_confirmed_in_sync(struct mdc_state *s, uint32_t pool, uint64_t version,
                                struct mdc_module **awaited);
/* The module has confirmed the latest generation of each volume of its pool. */
bool mdc_module_knows(const struct mdc_state *s, const struct mdc_module *m);
/* True when the volume's latest generation change was published and confirmed. */
bool mdc_volume_fenced(struct mdc_state *s, const struct mdc_volume *v, struct mdc_module **awaited);
/* ... by the modules that are in sync somewhere. */
bool mdc_volume_fenced_in_sync(struct mdc_state *s, const struct mdc_volume *v);

#endif
