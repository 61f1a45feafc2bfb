/*
 * rwm_tell.c: which epochs this module has accepted, with which members, told to a controller that has just
 * started: its store may be an old copy, and then the members' own records decide. Told only while a table of
 * that controller is in force here: whatever an earlier one published, and is not among what is told, can not
 * be accepted any more.
 */
#include "services/rwm/rwm_internal.h"

#include <string.h>

#define TELL_TIMEOUT_NS (5u * NS_PER_S)

static void tell_done(struct cluster_call *call, int rc)
{
    struct rwm *m = container_of(call, struct rwm, member.tell_call);
    struct rwm_member *b = &m->member;
    b->telling = false;
    /* Refused: a heartbeat's answer asks again. */
    b->tell_wanted = b->tell_wanted && rc == 0 && !b->tell_request.last;
    rwm_tell_step(m);
}

static void tell_add(struct rwm *m, const struct store_partition_record *rec, uint32_t index)
{
    struct mdc_module_records_request *rq = &m->member.tell_request;
    struct mdc_module_records_item *item = &rq->items[rq->count++];
    *item =
        (struct mdc_module_records_item){.pool = rec->pool, .partition = rec->partition, .epoch = rec->epoch};
    for (unsigned i = 0; i < TABLE_MEMBERS_MAX && rec->members[i] != 0; i++)
        item->members[item->member_count++] = rec->members[i];
    item->in_force = m->pool_id == rec->pool && index < m->part_count && m->parts[index].epoch == rec->epoch;
}

static void tell_fill(struct rwm *m)
{
    struct rwm_member *b = &m->member;
    struct mdc_module_records_request *rq = &b->tell_request;
    uint32_t capacity = store_record_capacity(m->store, STORE_PARTITION);
    bool incomplete = b->tell_index > 0 && rq->incomplete;
    memset(rq, 0, sizeof(*rq));
    rq->module = m->id;
    rq->incarnation = m->config.incarnation;
    rq->term = b->tell_term;
    rq->first = b->tell_index == 0;
    for (; b->tell_index < capacity && rq->count < MDC_RECORD_ITEMS; b->tell_index++) {
        const struct store_partition_record *rec = store_record_get(m->store, STORE_PARTITION, b->tell_index);
        if (!rec)
            incomplete = true;
        else if (rec->pool != 0 && rec->epoch != 0)
            tell_add(m, rec, b->tell_index);
    }
    rq->incomplete = incomplete;
    rq->last = b->tell_index == capacity;
}

void rwm_tell_step(struct rwm *m)
{
    struct rwm_member *b = &m->member;
    if (!b->tell_wanted || b->telling || m->state != RWM_RUNNING || m->force_term != b->tell_term ||
        !m->cluster || !cluster_session_is_up(m->cluster))
        return;
    tell_fill(m);
    b->tell_call = (struct cluster_call){.method = MDC_METHOD_MODULE_RECORDS,
                                         .request_type = &mdc_module_records_request_type,
                                         .reply_type = &mdc_empty_type,
                                         .request = &b->tell_request,
                                         .reply = &b->tell_reply,
                                         .timeout_ns = TELL_TIMEOUT_NS,
                                         .done = tell_done};
    b->telling = cluster_call_start(m->cluster, &b->tell_call) == 0;
    b->tell_wanted = b->telling; /* else: asked again */
}

void rwm_tell_want(struct rwm *m, uint64_t term)
{
    struct rwm_member *b = &m->member;
    if (b->telling || (b->tell_wanted && b->tell_term == term))
        return; /* in the middle of it */
    b->tell_wanted = true;
    b->tell_term = term;
    b->tell_index = 0;
    rwm_tell_step(m);
}
