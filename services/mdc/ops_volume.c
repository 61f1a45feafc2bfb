/*
 * ops_volume.c: volumes are made, resized, deleted. A shrink and a delete raise the generation and are
 * finished by mdc_op_advance when the modules have confirmed it.
 */
#include "services/mdc/ops.h"

#include <stdlib.h>
#include <string.h>

#define VOLUME_BYTES_MAX (1024ull * TIB) /* 1 PiB */

void mdc_volume_describe(struct mdc_state *s, const struct mdc_volume *v, struct mdc_volume_info *out)
{
    memset(out, 0, sizeof(*out));
    out->id = v->rec.id;
    memcpy(out->name, v->rec.name, sizeof(out->name));
    const struct mdc_pool *pool = mdc_pool_by_id(s, v->rec.pool);
    if (pool != NULL)
        memcpy(out->pool, pool->rec.name, sizeof(out->pool));
    out->size_bytes = v->rec.size_bytes;
    out->generation = v->rec.generation;
    out->layer = v->rec.layer;
    out->family = v->rec.family;
    out->state = v->rec.state;
    out->attachments = v->attachment_count;
    out->opens = v->open_count;
}

static const char *size_wrong(uint64_t bytes)
{
    if (bytes == 0)
        return "its size must be above 0";
    if (bytes % UNIT_BYTES != 0)
        return "its size must be a multiple of 4 KiB";
    return bytes > VOLUME_BYTES_MAX ? "its size must be at most 1 PiB" : NULL;
}

/* ---- create ---- */

static uint32_t refuse_create(struct mdc_decision *d, const struct mdc_volume_create_request *rq,
                              uint32_t status, const char *why)
{
    return mdc_refuse(d, status, "cannot create volume \"%s\": %s", rq->name, why);
}

static uint32_t find_pool(struct mdc_decision *d, const struct mdc_volume_create_request *rq,
                          struct mdc_pool **out)
{
    struct mdc_state *s = d->state;
    struct mdc_pool *only = NULL;
    if (rq->pool[0] != 0) {
        *out = mdc_pool_by_name(s, rq->pool);
        if (*out != NULL)
            return STATUS_OK;
        return mdc_refuse(
            d, STATUS_NOT_FOUND,
            "cannot create volume \"%s\": there is no pool \"%s\"; create it first, or name another",
            rq->name, rq->pool);
    }
    for (uint32_t i = 0; i < s->limits.pools; i++) {
        if (s->pools[i].rec.id == 0)
            continue;
        if (only != NULL)
            return refuse_create(d, rq, STATUS_INVALID,
                                 "there are several pools; name the one to use (--pool)");
        only = &s->pools[i];
    }
    if (only == NULL)
        return refuse_create(d, rq, STATUS_NOT_FOUND, "there is no pool yet; create one first");
    *out = only;
    return STATUS_OK;
}

uint32_t mdc_op_volume_create(struct mdc_decision *d, const struct mdc_volume_create_request *rq,
                              struct mdc_volume_reply *rep)
{
    struct mdc_state *s = d->state;
    if (!mdc_name_valid(rq->name))
        return refuse_create(
            d, rq, STATUS_INVALID,
            "that is not a valid name: use up to 63 letters, digits, dots, dashes and underscores, the first a "
            "letter, digit or underscore");
    const char *wrong = size_wrong(rq->size_bytes);
    if (wrong != NULL)
        return refuse_create(d, rq, STATUS_INVALID, wrong);
    if (mdc_volume_by_name(s, rq->name) != NULL)
        return refuse_create(d, rq, STATUS_EXISTS,
                             "there is a volume of that name; choose another, or delete that one");
    struct mdc_pool *pool;
    uint32_t status = find_pool(d, rq, &pool);
    if (status != STATUS_OK)
        return status;
    const struct mdc_module *unheard = mdc_unheard(d, pool->rec.id);
    if (unheard != NULL)
        return mdc_refuse_unheard(d, "create", rq->name, unheard);
    if (uuid_is_zero(&d->fresh) || mdc_volume_by_id(s, &d->fresh) != NULL)
        return refuse_create(d, rq, STATUS_AGAIN, "no fresh id could be made; try again");
    struct record_volume rec = {
        .id = d->fresh, .pool = pool->rec.id, .state = TABLE_VOLUME_READY, .generation = 1};
    memcpy(rec.name, rq->name, sizeof(rec.name));
    rec.size_bytes = rq->size_bytes;
    rec.layer = rec.family = s->counters.next_layer;
    struct mdc_volume *v = mdc_volume_add(s, &rec);
    if (v == NULL)
        return refuse_create(
            d, rq, STATUS_NO_SPACE,
            "the configured limit of volumes is reached; delete some, or raise max-volumes of the MDC");
    s->counters.next_layer++;
    mdc_tx_counters(d->tx);
    mdc_tx_record(d->tx, TABLE_VOLUME, mdc_volume_slot(s, v));
    mdc_volume_describe(s, v, &rep->volume);
    return STATUS_OK;
}

/* ---- resize ---- */

static uint32_t refuse_resize(struct mdc_decision *d, const struct mdc_volume_resize_request *rq,
                              uint32_t status, const char *why)
{
    return mdc_refuse(d, status, "cannot resize volume \"%s\": %s", rq->name, why);
}

uint32_t mdc_op_volume_resize(struct mdc_decision *d, const struct mdc_volume_resize_request *rq,
                              struct mdc_volume_reply *rep)
{
    struct mdc_state *s = d->state;
    struct mdc_volume *v = mdc_volume_by_name(s, rq->name);
    if (v == NULL)
        return refuse_resize(d, rq, STATUS_NOT_FOUND, "there is no volume of that name");
    const char *wrong = size_wrong(rq->size_bytes);
    if (wrong != NULL)
        return refuse_resize(d, rq, STATUS_INVALID, wrong);
    if (rq->size_bytes == v->rec.size_bytes) {
        mdc_volume_describe(s, v, &rep->volume);
        return STATUS_OK;
    }
    if (v->rec.state == TABLE_VOLUME_SHRINKING)
        return refuse_resize(
            d, rq, STATUS_BUSY,
            "an earlier shrink is not finished: its modules are still to confirm it; try again later, and see "
            "that all modules of its pool are up");
    if (rq->size_bytes < v->rec.size_bytes && !rq->allow_shrink)
        return refuse_resize(
            d, rq, STATUS_INVALID,
            "the new size is smaller, and what lies beyond it would be lost; allow the shrink (--allow-shrink) if that is meant");
    bool shrink = rq->size_bytes < v->rec.size_bytes;
    const struct mdc_module *unheard = mdc_unheard(d, v->rec.pool);
    if (unheard != NULL)
        return mdc_refuse_unheard(d, "resize", v->rec.name, unheard);
    v->rec.size_bytes = rq->size_bytes;
    if (shrink) {
        v->rec.state = TABLE_VOLUME_SHRINKING;
        s->volumes_pending++;
        mdc_volume_raise_generation(s, d->tx, v);
        v->rec.resized_generation = v->rec.generation;
    }
    mdc_tx_record(d->tx, TABLE_VOLUME, mdc_volume_slot(s, v));
    mdc_volume_describe(s, v, &rep->volume);
    return STATUS_OK;
}

/* ---- delete ---- */

uint32_t mdc_op_volume_delete(struct mdc_decision *d, const struct mdc_volume_delete_request *rq,
                              struct mdc_empty *rep)
{
    (void)rep;
    struct mdc_state *s = d->state;
    struct mdc_volume *v = mdc_volume_by_name(s, rq->name);
    if (v == NULL)
        return mdc_refuse(d, STATUS_NOT_FOUND, "cannot delete volume \"%s\": there is no volume of that name",
                          rq->name);
    const struct mdc_module *unheard = rq->force ? NULL : mdc_unheard(d, v->rec.pool);
    if (unheard != NULL)
        return mdc_refuse_unheard(d, "delete", v->rec.name, unheard);
    if (!rq->force && !list_empty(&v->attachments)) {
        const struct mdc_attachment *a = list_entry(v->attachments.next, struct mdc_attachment, link);
        return mdc_refuse(
            d, STATUS_BUSY,
            "cannot delete volume \"%s\": it is attached to %u host(s), \"%s\" is one; detach it first, or force",
            rq->name, v->attachment_count, a->rec.host);
    }
    while (!list_empty(&v->opens))
        mdc_open_remove(s, list_entry(v->opens.next, struct mdc_open, link));
    while (!list_empty(&v->attachments))
        mdc_attachment_remove(s, d->tx, list_entry(v->attachments.next, struct mdc_attachment, link));
    s->volumes_pending += v->rec.state == TABLE_VOLUME_READY;
    mdc_volume_forget_name(s, v);
    v->rec.state = TABLE_VOLUME_DELETING;
    mdc_volume_raise_generation(s, d->tx, v);
    return STATUS_OK;
}

uint32_t mdc_op_volume_get(struct mdc_decision *d, const struct mdc_name_request *rq,
                           struct mdc_volume_reply *rep)
{
    const struct mdc_volume *v = mdc_volume_by_name(d->state, rq->name);
    if (v == NULL)
        return mdc_refuse(d, STATUS_NOT_FOUND, "cannot show volume \"%s\": there is no volume of that name",
                          rq->name);
    mdc_volume_describe(d->state, v, &rep->volume);
    return STATUS_OK;
}
