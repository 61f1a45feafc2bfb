/*
 * ops_member.c: who holds a copy in sync. A member leaves the in-sync set when it is dead, unreachable for
 * the partition's primary, or unfit; it comes in when the primary says that it is equal. Each is a new epoch.
 * The last one in sync stays, whatever becomes of it: nobody else has its data.
 */
#include "services/mdc/ops.h"

#include <string.h>

/* Both are heard, but not by one another: for so long, then the primary's word counts. */
#define APART_NS (300u * NS_PER_MS)
/* Reports that are so far apart are not about one and the same trouble. */
#define APART_GAP_NS NS_PER_S

bool mdc_module_alive(const struct mdc_module *m)
{
    return m->registered && !m->down && m->session != NULL && !m->damaged;
}

static bool alive(struct mdc_state *s, uint32_t module)
{
    const struct mdc_module *m = mdc_module_by_id(s, module);
    return m != NULL && mdc_module_alive(m);
}

static int member_find(const struct record_partition *p, uint32_t module)
{
    for (int i = 0; i < (int)TABLE_MEMBERS_MAX; i++)
        if (TABLE_MEMBER_ID(p->members[i]) == module && module != 0)
            return i;
    return -1;
}

/* Someone else in sync, of whom something was heard, and who knows of all that it should have. */
static bool others_in_sync(struct mdc_state *s, const struct record_partition *p, uint32_t module)
{
    for (unsigned i = 0; i < TABLE_MEMBERS_MAX; i++) {
        uint32_t id = TABLE_MEMBER_ID(p->members[i]);
        if ((p->members[i] & TABLE_MEMBER_IN_SYNC) && id != module && alive(s, id))
            return true;
    }
    return false;
}

void mdc_member_new_epoch(struct mdc_decision *d, uint32_t index)
{
    struct mdc_state *s = d->state;
    struct record_partition *p = &s->partitions[index];
    p->epoch++;
    s->counters.highest_epoch = max_u64(s->counters.highest_epoch, p->epoch);
    mdc_tx_record(d->tx, TABLE_PARTITION, index);
    mdc_tx_counters(d->tx);
}

void mdc_members_sort(struct record_partition *p)
{
    uint32_t sorted[TABLE_MEMBERS_MAX] = {0};
    unsigned n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < TABLE_MEMBERS_MAX; i++)
            if (p->members[i] != 0 && !(p->members[i] & TABLE_MEMBER_IN_SYNC) == (pass == 1))
                sorted[n++] = p->members[i];
    memcpy(p->members, sorted, sizeof(sorted));
}

bool mdc_member_drop(struct mdc_decision *d, uint32_t index, uint32_t module)
{
    struct record_partition *p = &d->state->partitions[index];
    int at = member_find(p, module);
    if (!mdc_partition_settled(d->state, index) || at < 0 || !(p->members[at] & TABLE_MEMBER_IN_SYNC) ||
        !others_in_sync(d->state, p, module))
        return false;
    p->members[at] &= ~TABLE_MEMBER_IN_SYNC;
    mdc_members_sort(p);
    return true;
}

void mdc_members_dead(struct mdc_decision *d, uint32_t module)
{
    struct mdc_state *s = d->state;
    const struct mdc_module *m = mdc_module_by_id(s, module);
    const struct mdc_pool *pool = m != NULL ? mdc_pool_by_id(s, m->rec.pool) : NULL;
    for (uint32_t i = 0; pool != NULL && i < pool->rec.partitions; i++) {
        uint32_t index = pool->rec.first_partition + i;
        if (mdc_member_drop(d, index, module))
            mdc_member_new_epoch(d, index);
    }
}

/* ---- reports ---- */
/* Each reporter's trouble is its own: what others said before does not make it older. */
static bool apart_long(struct mdc_module *m, uint32_t reporter, uint64_t now_ns)
{
    struct mdc_apart *a = &m->apart[0];
    for (unsigned i = 0; i < MDC_APART_MAX; i++) {
        if (m->apart[i].reporter == reporter) {
            a = &m->apart[i];
            break;
        }
        if (m->apart[i].heard_ns < a->heard_ns)
            a = &m->apart[i]; /* the longest unheard one makes room */
    }
    if (a->reporter != reporter || now_ns - a->heard_ns > APART_GAP_NS)
        *a = (struct mdc_apart){.reporter = reporter, .since_ns = now_ns};
    a->heard_ns = now_ns;
    return now_ns - a->since_ns >= APART_NS;
}

static bool take_item(struct mdc_decision *d, const struct mdc_module_report_item *item, uint32_t reporter,
                      struct record_partition *p)
{
    struct mdc_state *s = d->state;
    struct mdc_module *m = mdc_module_by_id(s, item->member);
    int at = member_find(p, item->member);
    bool in_sync = p->members[at] & TABLE_MEMBER_IN_SYNC;
    uint32_t index = (uint32_t)(p - s->partitions);
    switch (item->what) {
    case MDC_REPORT_UNREACHABLE:
        return in_sync && (!alive(s, item->member) || apart_long(m, reporter, d->now_ns)) &&
               mdc_member_drop(d, index, item->member);
    case MDC_REPORT_UNFIT:
        return in_sync && mdc_member_drop(d, index, item->member);
    case MDC_REPORT_LOST:
        return !in_sync;
    case MDC_REPORT_IN_SYNC:
        /* A damaged primary that is alone does not know what it has lost: who is equal to it lacks that, and
         * would serve zeroes where the primary says that it can not tell. Nobody waits for a member with a
         * detach before it is in sync: so it comes with what it has confirmed. */
        if (in_sync || !alive(s, item->member) || m->rec.pool != item->pool ||
            !others_in_sync(s, p, item->member) || !mdc_module_knows(s, m))
            return false;
        p->members[at] |= TABLE_MEMBER_IN_SYNC;
        mdc_members_sort(p);
        return true;
    default:
        return false;
    }
}

uint32_t mdc_op_module_report(struct mdc_decision *d, const struct mdc_module_report_request *rq,
                              struct mdc_module_report_reply *rep)
{
    struct mdc_state *s = d->state;
    const struct mdc_module *reporter = mdc_module_by_id(s, rq->module);
    (void)rep; /* the table's version is filled in when it is published */
    if (reporter == NULL || reporter->rec.incarnation != rq->incarnation || !reporter->registered)
        return mdc_refuse(d, STATUS_WRONG_INCARNATION,
                          "module %u reports, but it is not registered: it has to register again",
                          rq->module);
    for (uint32_t i = 0; i < rq->count; i++) {
        const struct mdc_module_report_item *item = &rq->items[i];
        const struct mdc_pool *pool = mdc_pool_by_id(s, item->pool);
        const struct mdc_module *m = mdc_module_by_id(s, item->member);
        if (pool == NULL || item->partition >= pool->rec.partitions || m == NULL ||
            m->rec.incarnation != item->member_incarnation)
            continue;
        uint32_t index = pool->rec.first_partition + item->partition;
        struct record_partition *p = &s->partitions[index];
        if (!mdc_partition_settled(s, index) || p->epoch != item->epoch ||
            mdc_partition_primary(p) != rq->module || member_find(p, item->member) < 0 ||
            (item->member == rq->module && item->what != MDC_REPORT_UNFIT))
            continue;
        if (take_item(d, item, rq->module, p))
            mdc_member_new_epoch(d, index);
    }
    return STATUS_OK;
}
