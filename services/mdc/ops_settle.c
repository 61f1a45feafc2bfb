/*
 * ops_settle.c: after a start of the controller nobody can say by the store alone that it is the latest. So
 * nothing is decided about a partition of several copies before its members have told which epoch, with which
 * members, they accepted last; the highest one heard counts, and all of its members have to have told, for
 * one of them may know a higher one. docs/replication.md says why that is enough. Where nothing speaks for an
 * old store, members that are silent for a whole round are not waited for any longer.
 */
#include "services/mdc/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Registered, but does not tell: an older version of the program. */
#define TELL_PERIODS 20u

static void unsettle(struct mdc_state *s, uint32_t index)
{
    if (s->settling[index] & MDC_UNSETTLED)
        return;
    s->settling[index] = MDC_UNSETTLED;
    s->heard[index] = (struct mdc_heard){.best = s->partitions[index]};
    s->unsettled++;
}

/* Where a partition has one copy its only holder refuses an epoch that is too low, and nobody else has one to
 * offer: but for a store that is known to be old, since when it may have moved. */
static void unsettle_all(struct mdc_state *s, bool single)
{
    for (uint32_t i = 0; i < s->limits.partitions; i++) {
        const struct mdc_pool *pool = mdc_pool_by_id(s, s->partition_pool[i]);
        if (pool != NULL && (pool->rec.copies < 2) == single)
            unsettle(s, i);
    }
}

void mdc_settle_begin(struct mdc_state *s)
{
    unsettle_all(s, false);
    if (s->counters.flags & RECORD_COUNTERS_UNHEARD)
        unsettle_all(s, true);
}

bool mdc_pool_settled(const struct mdc_state *s, const struct mdc_pool *pool)
{
    for (uint32_t i = 0; s->unsettled > 0 && i < pool->rec.partitions; i++)
        if (!mdc_partition_settled(s, pool->rec.first_partition + i))
            return false;
    return true;
}

static int place_of(const struct record_partition *p, uint32_t module)
{
    for (int k = 0; k < (int)TABLE_MEMBERS_MAX; k++)
        if (p->members[k] != 0 && TABLE_MEMBER_ID(p->members[k]) == module)
            return k;
    return -1;
}

void mdc_settle_started(struct mdc_state *s, uint32_t module)
{
    for (uint32_t i = 0; s->unsettled > 0 && i < s->limits.partitions; i++) {
        if (mdc_partition_settled(s, i))
            continue;
        int at = place_of(&s->heard[i].best, module);
        if (at >= 0)
            s->heard[i].running &= (uint8_t) ~(1u << at);
        if (at >= 0 || place_of(&s->partitions[i], module) >= 0)
            s->settling[i] |= MDC_EPOCH_OWED;
    }
}

void mdc_settle_again(struct mdc_state *s)
{
    for (uint32_t i = 0; i < s->limits.partitions; i++)
        if (s->settling[i] & MDC_SETTLED_LATE)
            unsettle(s, i);
    unsettle_all(s, true);
    mdc_settle_new_term(s);
}

void mdc_settle_new_term(struct mdc_state *s)
{
    for (uint32_t i = 0; s->unsettled > 0 && i < s->limits.modules; i++)
        s->modules[i].told = s->modules[i].telling = false;
}

void mdc_settle_forget(struct mdc_state *s, uint32_t index)
{
    s->unsettled -= (s->settling[index] & MDC_UNSETTLED) != 0;
    s->settling[index] = 0;
}

bool mdc_settle_asks(const struct mdc_state *s, const struct mdc_module *m)
{
    return s->unsettled > 0 && !m->told;
}

/* ---- a partition ---- */
static uint64_t round_ns(const struct mdc_state *s)
{
    return (uint64_t)s->heartbeat_ms * SILENT_PERIODS * NS_PER_MS;
}

/* Without end where the store is known to be old, but for the operator's word. */
static bool waits_for_ever(const struct mdc_state *s)
{
    return (s->counters.flags & RECORD_COUNTERS_UNHEARD) && !s->trusted;
}

/* Is this member's word not awaited any more? */
static bool given_up(const struct mdc_state *s, const struct mdc_module *m, uint64_t now_ns)
{
    if (waits_for_ever(s) || now_ns - s->started_ns < round_ns(s))
        return false;
    bool mute = now_ns - s->started_ns > (uint64_t)s->heartbeat_ms * TELL_PERIODS * NS_PER_MS;
    return m == NULL || m->down || (m->registered && mute);
}

/* The first member of the best record that is waited for: its id; 0: none is. *late: one was given up. */
static uint32_t awaited(struct mdc_state *s, uint32_t index, uint64_t now_ns, bool *late)
{
    const struct record_partition *best = &s->heard[index].best;
    *late = false;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX && best->members[k] != 0; k++) {
        uint32_t id = TABLE_MEMBER_ID(best->members[k]);
        const struct mdc_module *m = mdc_module_by_id(s, id);
        if (m != NULL && m->told)
            continue;
        if (!given_up(s, m, now_ns))
            return id;
        *late = true;
    }
    return 0;
}

static bool lives(struct mdc_state *s, uint32_t member)
{
    const struct mdc_module *m = mdc_module_by_id(s, TABLE_MEMBER_ID(member));
    return m != NULL && m->registered && !m->down && !m->gone && !m->damaged;
}

/* Those of whom nothing is known any more: only with the operator's word. False: nobody in sync would be
 * left. */
static bool drop_unknown(struct mdc_state *s, struct mdc_heard *h)
{
    struct record_partition p = {.epoch = h->best.epoch};
    uint8_t running = 0;
    unsigned n = 0;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX && h->best.members[k] != 0; k++) {
        if (mdc_module_by_id(s, TABLE_MEMBER_ID(h->best.members[k])) == NULL)
            continue;
        running |= (uint8_t)((h->running >> k & 1u) << n);
        p.members[n++] = h->best.members[k];
    }
    if (mdc_partition_primary(&p) == 0)
        return false;
    h->best = p;
    h->running = running;
    return true;
}

/* A member that started again, or is gone, lacks what those who went on may have acknowledged without it. */
static bool drop_behind(struct mdc_state *s, struct mdc_heard *h)
{
    struct record_partition *p = &h->best;
    unsigned running = 0, living = 0;
    bool dropped = false;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        bool in_sync = (p->members[k] & TABLE_MEMBER_IN_SYNC) && lives(s, p->members[k]);
        living += in_sync;
        running += in_sync && h->running >> k & 1u;
    }
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        if (!(p->members[k] & TABLE_MEMBER_IN_SYNC))
            continue;
        bool goes_on = running > 0 ? lives(s, p->members[k]) && h->running >> k & 1u
                                   : living == 0 || lives(s, p->members[k]);
        if (goes_on)
            continue;
        p->members[k] &= ~TABLE_MEMBER_IN_SYNC;
        dropped = true;
    }
    if (dropped)
        mdc_members_sort(p);
    return dropped;
}

/* The members' pool may be news, too. */
static void take_members(struct mdc_decision *d, uint32_t index, const struct record_partition *p)
{
    struct mdc_state *s = d->state;
    uint32_t pool = s->partition_pool[index];
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        struct mdc_module *m = mdc_module_by_id(s, TABLE_MEMBER_ID(p->members[k]));
        if (m == NULL || m->rec.pool == pool)
            continue;
        m->rec.pool = pool;
        mdc_tx_record(d->tx, TABLE_MODULE, m->rec.id - 1);
    }
    memcpy(s->partitions[index].members, p->members, sizeof(p->members));
}

/* Has a member not taken over this epoch since its start? It serves nothing before it gets a new one. */
static bool owes_epoch(struct mdc_state *s, const struct mdc_heard *h)
{
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX && h->best.members[k] != 0; k++) {
        const struct mdc_module *m = mdc_module_by_id(s, TABLE_MEMBER_ID(h->best.members[k]));
        if (m != NULL && m->told && !(h->running >> k & 1u))
            return true;
    }
    return false;
}

static void settle(struct mdc_decision *d, uint32_t index, bool late)
{
    struct mdc_state *s = d->state;
    struct mdc_heard *h = &s->heard[index];
    struct record_partition *p = &s->partitions[index];
    bool news = h->best.epoch > p->epoch || memcmp(h->best.members, p->members, sizeof(p->members)) != 0;
    if (!drop_unknown(s, h))
        return;
    bool owed = (s->settling[index] & MDC_EPOCH_OWED) || owes_epoch(s, h);
    bool changed = drop_behind(s, h);
    if (news || owed || changed) {
        bool old = s->counters.flags & RECORD_COUNTERS_UNHEARD;
        uint64_t above = max_u64(p->epoch, h->best.epoch);
        take_members(d, index, &h->best);
        p->epoch = (old ? max_u64(above, s->counters.highest_epoch) : above) + 1;
        s->counters.highest_epoch = max_u64(s->counters.highest_epoch, p->epoch);
        mdc_tx_record(d->tx, TABLE_PARTITION, index);
        mdc_tx_counters(d->tx);
    }
    s->settling[index] = late ? MDC_SETTLED_LATE : 0;
    s->unsettled--;
    if (news)
        mdc_pool_count_partitions(s, mdc_pool_by_id(s, s->partition_pool[index]));
}

void mdc_settle_advance(struct mdc_decision *d)
{
    struct mdc_state *s = d->state;
    for (uint32_t i = 0; s->unsettled > 0 && i < s->limits.partitions; i++) {
        bool late;
        if ((s->settling[i] & MDC_UNSETTLED) && awaited(s, i, d->now_ns, &late) == 0)
            settle(d, i, late);
    }
}

const struct mdc_module *mdc_settle_explain(struct mdc_state *s, uint32_t index, char *out, size_t cap)
{
    bool late;
    out[0] = 0;
    if (mdc_partition_settled(s, index))
        return NULL;
    uint32_t id = awaited(s, index, s->started_ns, &late);
    const struct mdc_module *m = mdc_module_by_id(s, id);
    bool old = waits_for_ever(s);
    snprintf(out, cap, "waits for module %u (%s of %s), which may know of later members: %s", id,
             m != NULL ? m->rec.name : "unknown here", m != NULL ? m->rec.host : "an unknown host",
             old ? "the metadata store was put back from an old copy; see that it runs"
                 : "the metadata controller has just started");
    return m;
}

/* ---- what modules tell ---- */
/* False: no such partition, or nonsense. */
static bool item_record(const struct mdc_state *s, const struct mdc_module_records_item *item,
                        struct record_partition *out, uint32_t *index)
{
    const struct mdc_pool *pool =
        item->pool != 0 && item->pool <= s->limits.pools ? &s->pools[item->pool - 1] : NULL;
    if (pool == NULL || pool->rec.id == 0 || item->partition >= pool->rec.partitions || item->epoch == 0 ||
        item->epoch >= NUMBER_MAX / 2)
        return false;
    *out = (struct record_partition){.epoch = item->epoch};
    for (uint32_t k = 0; k < item->member_count; k++) {
        uint32_t id = TABLE_MEMBER_ID(item->members[k]);
        if (id == 0 || id > s->limits.modules || place_of(out, id) >= 0)
            return false;
        out->members[k] = item->members[k];
    }
    *index = pool->rec.first_partition + item->partition;
    return item->member_count > 0 && mdc_partition_primary(out) != 0;
}

static void take_item(struct mdc_decision *d, const struct mdc_module *m,
                      const struct mdc_module_records_item *item)
{
    struct mdc_state *s = d->state;
    struct record_partition told;
    uint32_t index;
    if (!item_record(s, item, &told, &index))
        return;
    /* No controller but one that this store knows nothing of can have given it out. */
    if (told.epoch > s->partitions[index].epoch) {
        s->counters.highest_epoch = max_u64(s->counters.highest_epoch, told.epoch);
        mdc_note_restored(s, d->tx);
    }
    if (mdc_partition_settled(s, index))
        return;
    struct mdc_heard *h = &s->heard[index];
    bool same = memcmp(told.members, h->best.members, sizeof(told.members)) == 0;
    if (told.epoch > h->best.epoch || (told.epoch == h->best.epoch && !same && !h->told)) {
        *h = (struct mdc_heard){.best = told, .told = true};
        same = true;
    }
    int at = place_of(&h->best, m->rec.id);
    if (told.epoch == h->best.epoch && same) {
        h->told = true;
        if (at >= 0 && item->in_force)
            h->running |= (uint8_t)(1u << at);
    }
}

uint32_t mdc_op_module_records(struct mdc_decision *d, const struct mdc_module_records_request *rq,
                               struct mdc_empty *rep)
{
    struct mdc_state *s = d->state;
    struct mdc_module *m = mdc_module_by_id(s, rq->module);
    (void)rep;
    if (m == NULL || m->rec.incarnation != rq->incarnation || !m->registered)
        return mdc_refuse(d, STATUS_WRONG_INCARNATION,
                          "module %u tells its records, but it is not registered: it has to register again",
                          rq->module);
    if (rq->first)
        m->telling = true;
    if (!m->telling || rq->term != s->term) {
        m->telling = false;
        return mdc_refuse(d, STATUS_AGAIN, "module %u tells its records under another controller's table",
                          rq->module);
    }
    for (uint32_t i = 0; i < rq->count; i++)
        take_item(d, m, &rq->items[i]);
    if (!m->telling)
        return STATUS_OK; /* what it told first has to be told again: the store is old */
    if (rq->last) {
        m->telling = false;
        m->told = !rq->incomplete;
        mdc_settle_advance(d);
    }
    return STATUS_OK;
}
