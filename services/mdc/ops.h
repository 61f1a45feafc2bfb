/*
 * ops.h: the decisions, one function a message of mdc.def: old state + request + time -> status, reply, new
 * state. Pure: all they know is in their arguments, and the same arguments give the same answer. A decision
 * that refuses has changed nothing. What it changes must be stored and published before its reply goes out;
 * jobs.c does that.
 *
 * Requests were decoded and are bounded, but nothing else about them is trusted.
 */
#ifndef CISTERN_SERVICES_MDC_OPS_H
#define CISTERN_SERVICES_MDC_OPS_H

#include "common/status.h"
#include "services/mdc/state.h"

struct mdc_decision {
    struct mdc_state *state;
    struct mdc_tx *tx;
    uint64_t now_ns;
    struct uuid fresh;           /* random: the id of what is made */
    struct mdc_session *session; /* whose request it is */
    struct mdc_error *error;     /* filled when the status is not OK */
    /* set by a decision whose reply waits until the modules have confirmed this volume's latest generation */
    struct mdc_volume *await;
};

/* mdc_op_<handler>; reply is zeroed before. */
#define MDC_METHOD(num, name, handler, request, reply)                                                       \
    uint32_t mdc_op_##handler(struct mdc_decision *d, const struct request *rq, struct reply *rep);
#define MDC_NOTIFY(num, name, msg)
#include "common/wire/mdc.def"
#undef MDC_METHOD
#undef MDC_NOTIFY

/* Writes the sentence and gives the status back. */
uint32_t mdc_refuse(struct mdc_decision *d, uint32_t status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The stored and published consequences of what was heard meanwhile: modules' states, removals and shrinks
 * that are finished, a term seen elsewhere. Before each batch's requests. */
void mdc_op_advance(struct mdc_decision *d);
/*
 * A round of failure detection: modules silent for SILENT_PERIODS are marked down (module.publish). late:
 * this process itself was paused or has just begun: nobody is declared dead, all get a full round. True when
 * anything is to be published.
 */
bool mdc_op_watch(struct mdc_state *s, uint64_t now_ns, bool late);
/* Notes that modules lost their session; reset: the kernel of their host ended it. True: there were such, and
 * mdc_op_watch is to run when SESSION_GRACE_NS is over. */
bool mdc_op_session_lost(struct mdc_state *s, const struct mdc_session *session, bool reset, uint64_t now_ns);
/* (term, version) that somebody has seen published; notes it when this process did not publish it, and is not
 * known to come after who did. */
bool mdc_op_seen(struct mdc_state *s, uint64_t term, uint64_t version);

/* ---- a store that was put back from an old copy: ops_restore.c ---- */
/* Somebody has seen these numbers. Where the store knows only lower ones it is an old copy: what is given out
 * from now on is above. True: a generation, so which volumes' is still to be told. */
bool mdc_held_take(struct mdc_decision *d, const struct mdc_held *held);
/* Somebody has accepted this generation of the volume, or a later record in it: it rises above, and opens of
 * before have ended. */
void mdc_ahead_take(struct mdc_decision *d, const struct mdc_ahead *ahead);
/*
 * A module of the pool that may know more than the store and has not told: while there is one, nothing is
 * given out, ended or gone on with that this store might be wrong about. Waited for are all modules with
 * partitions, for one round of heartbeats after a start; without end once the store is known to be old. NULL:
 * none, or the operator says that there is none.
 */
const struct mdc_module *mdc_unheard(const struct mdc_decision *d, uint32_t pool);
/* AGAIN, with the reason, for that. */
uint32_t mdc_refuse_unheard(struct mdc_decision *d, const char *what, const char *name,
                            const struct mdc_module *m);
/* Takes up what heartbeats told; all modules heard: nobody is waited for any more. For mdc_op_advance. */
void mdc_restore_advance(struct mdc_decision *d);
/* The store is an old copy: noted durably, until everybody was heard. */
void mdc_note_restored(struct mdc_state *s, struct mdc_tx *tx);

/* ---- whose record of a partition counts, after a start of the controller: ops_settle.c ---- */
/* The partitions of pools with several copies, as loaded; of all pools when the store is known to be old. */
void mdc_settle_begin(struct mdc_state *s);
/* False: nothing may be decided about the partition (record index): its members' records are awaited. */
static inline bool mdc_partition_settled(const struct mdc_state *s, uint32_t index)
{
    return !(s->settling[index] & MDC_UNSETTLED);
}
bool mdc_pool_settled(const struct mdc_state *s, const struct mdc_pool *pool);
/* A module has started anew: partitions that are not settled owe it a new epoch. */
void mdc_settle_started(struct mdc_state *s, uint32_t module);
/* The store has turned out to be old: what was settled because the time was over is not. */
void mdc_settle_again(struct mdc_state *s);
/* What was told in an earlier term is told again. */
void mdc_settle_new_term(struct mdc_state *s);
/* Settles what can be. For mdc_op_advance. */
void mdc_settle_advance(struct mdc_decision *d);
/* The partition is no more. */
void mdc_settle_forget(struct mdc_state *s, uint32_t index);
/* The module is to tell its records. */
bool mdc_settle_asks(const struct mdc_state *s, const struct mdc_module *m);
/* Whom the partition waits for, in words; "" = nobody. Gives the module, or NULL. */
const struct mdc_module *mdc_settle_explain(struct mdc_state *s, uint32_t index, char *out, size_t cap);
/* False: the partition is known to wait, and whoever the store calls its primary may be none. */
static inline bool mdc_settle_serves(const struct mdc_state *s, uint32_t index)
{
    return mdc_partition_settled(s, index) || !(s->counters.flags & RECORD_COUNTERS_UNHEARD);
}
/* The first in-sync members first, in their order. */
void mdc_members_sort(struct record_partition *p);

/* ops_member.c: the module is not in sync in the partition (record index) any more; the epoch is the caller's
 * to raise. False: nothing changed, for it was not, or nobody else who lives is. */
bool mdc_member_drop(struct mdc_decision *d, uint32_t index, uint32_t module);
/* It is out of sync wherever somebody else who lives is in sync, by new epochs. */
void mdc_members_dead(struct mdc_decision *d, uint32_t module);
/* A new epoch of the partition (record index), as it is now. */
void mdc_member_new_epoch(struct mdc_decision *d, uint32_t index);
/* Members in sync come first, in their order: so who was the primary stays it. */
void mdc_members_sort(struct record_partition *p);
/* It is heard, on a connection, and not damaged. */
bool mdc_module_alive(const struct mdc_module *m);

/* ---- moving copies: ops_move.c; docs/replication.md ---- */
/* How long after a change of members or modules it is looked whether copies are to move. */
#define MDC_MOVE_PACE_NS (50u * NS_PER_MS)
/* Looks at the pools that are due, when state.move_due; begins and ends moves by new epochs. For
 * mdc_op_advance. */
void mdc_move_advance(struct mdc_decision *d);
/* The batch in tx is published: the pools whose modules or partitions it changed are due. True: there are. */
bool mdc_move_note(struct mdc_state *s, const struct mdc_tx *tx);
/* A pool is due; sets state.move_due. */
bool mdc_move_is_due(struct mdc_state *s, uint64_t now_ns);
/* Away, or damaged in a pool with several copies, for so long that its copies are made elsewhere. */
bool mdc_module_away(const struct mdc_state *s, const struct mdc_module *m, uint64_t now_ns);
/* Fills the description of a volume, a pool. */
void mdc_volume_describe(struct mdc_state *s, const struct mdc_volume *v, struct mdc_volume_info *out);
/* How far the primary is with bringing up member, or (0) all members of the partition: blocks left and sent,
 * seconds. All 0: nothing is known. */
struct mdc_progress {
    uint64_t left, done, seconds;
};
struct mdc_progress mdc_partition_progress(struct mdc_state *s, uint32_t index, uint32_t member);
void mdc_pool_describe(struct mdc_state *s, const struct mdc_pool *p, struct mdc_pool_info *out);
void mdc_module_describe(struct mdc_state *s, const struct mdc_module *m, uint64_t now_ns,
                         struct mdc_module_info *out);

#endif
