/*
 * ops_attach.c: which hosts may use a volume, which instances use it now, and who may write.
 *
 * An attachment is durable: made by ATTACH or by the first open of a host, ended by DETACH or with the
 * volume. A close does not end it: a gateway closes for a client that it has lost, and that client may be on
 * its way back with writes in hand. DETACH raises the volume's generation and is answered when the modules
 * that are in sync somewhere have confirmed it: without one of them nothing is acknowledged.
 *
 * An open goes on (again, or through another gateway) only in the attachment that it was made in: who was
 * detached, and attached again since, may have writes in hand that must not happen any more.
 *
 * An open lives with its session. What keeps data safe when a session is lost and its process lives on is not
 * the open but the turn: attachment.holder is the instance that may draw turns, and survives a restart of the
 * MDC.
 */
#include "services/mdc/ops.h"

#include <string.h>

/* Not everybody who lives has been heard since this process started. */
static bool young(const struct mdc_decision *d)
{
    uint64_t round_ns = (uint64_t)d->state->heartbeat_ms * SILENT_PERIODS * NS_PER_MS;
    return d->now_ns - d->state->started_ns < round_ns;
}

/* Goes on with an open of before, and with the writes that it still has in hand. */
static bool continues(const struct mdc_volume_open_request *rq)
{
    return rq->again || rq->held != 0;
}

/* ---- who else is there ---- */

static const struct mdc_attachment *other_writer(struct mdc_volume *v, const char *host)
{
    list_for_each(n, &v->attachments)
    {
        const struct mdc_attachment *a = list_entry(n, struct mdc_attachment, link);
        if (!a->rec.read_only && strcmp(a->rec.host, host) != 0)
            return a;
    }
    return NULL;
}

/* Another live instance of the same host that keeps this one out. */
static struct mdc_open *other_instance(struct mdc_volume *v, const struct mdc_volume_open_request *rq)
{
    list_for_each(n, &v->opens)
    {
        struct mdc_open *o = list_entry(n, struct mdc_open, link);
        if (o->instance != rq->instance && strcmp(o->host, rq->host) == 0 && !(o->read_only && rq->read_only))
            return o;
    }
    return NULL;
}

/* ---- open ---- */

static uint32_t refuse_open(struct mdc_decision *d, const struct mdc_volume_open_request *rq, uint32_t status,
                            const char *why)
{
    return mdc_refuse(d, status, "cannot open volume \"%s\" for host \"%s\": %s", rq->volume, rq->host, why);
}

static uint32_t find_opened(struct mdc_decision *d, const struct mdc_volume_open_request *rq,
                            struct mdc_volume **out)
{
    struct mdc_volume *v = NULL;
    if (!mdc_name_valid(rq->host) || rq->instance == 0 || rq->held >= NUMBER_MAX / 2)
        return refuse_open(d, rq, STATUS_INVALID,
                           "the host's name, the instance or the generation is not valid");
    if (uuid_is_zero(&rq->id)) {
        v = mdc_volume_by_name(d->state, rq->volume);
        if (v == NULL)
            return refuse_open(d, rq, STATUS_NOT_FOUND, "there is no volume of that name");
    } else {
        v = mdc_volume_by_id(d->state, &rq->id);
        if (v == NULL || v->rec.state == TABLE_VOLUME_DELETING)
            return refuse_open(d, rq, STATUS_NOT_FOUND, "the volume that was open was deleted");
    }
    *out = v;
    return STATUS_OK;
}

/* Whether this host may have the volume: attachments only. */
static uint32_t judge_hosts(struct mdc_decision *d, const struct mdc_volume_open_request *rq,
                            struct mdc_volume *v)
{
    const struct mdc_attachment *own = mdc_attachment_find(v, rq->host);
    /* A store put back from an old copy may lack it; that shows when the modules have been heard. */
    if (own == NULL && continues(rq) && !d->state->restored && young(d))
        return refuse_open(d, rq, STATUS_AGAIN,
                           "the metadata controller has just started; try again in a moment");
    /* Attached anew since, by another process of the host perhaps: what was detached stays ended. */
    bool ended = own == NULL ? !d->state->restored || rq->held < v->floor
                             : rq->held != 0 && record_since(&own->rec) > rq->held;
    if (continues(rq) && ended)
        return refuse_open(d, rq, STATUS_DENIED,
                           "it was detached from this host; open it anew if that is meant");
    if (own != NULL && own->rec.read_only && own->rec.by_request && !rq->read_only)
        return refuse_open(
            d, rq, STATUS_READ_ONLY,
            "it is attached to this host read-only; detach it and attach it read-write, or open it read-only");
    bool joins = own == NULL || (own->rec.read_only && !rq->read_only);
    const struct mdc_attachment *other = other_writer(v, rq->host);
    if (joins && other != NULL && !rq->shared && !rq->read_only)
        return mdc_refuse(
            d, STATUS_BUSY,
            "cannot open volume \"%s\" for host \"%s\": it is attached read-write to host \"%s\"; detach it there, or "
            "open it read-only or shared",
            rq->volume, rq->host, other->rec.host);
    if (own == NULL && (d->state->attachment_count >= d->state->attachments_max ||
                        v->attachment_count >= ATTACHED_HOSTS_MAX))
        return refuse_open(d, rq, STATUS_NO_SPACE,
                           "the limit of attachments is reached; detach it from hosts that need it no more");
    return STATUS_OK;
}

/* Whether this instance of the host may. */
static uint32_t judge_instances(struct mdc_decision *d, const struct mdc_volume_open_request *rq,
                                struct mdc_volume *v)
{
    const struct mdc_attachment *own = mdc_attachment_find(v, rq->host);
    if (rq->take_over || rq->shared)
        return STATUS_OK;
    if (continues(rq) && !rq->read_only && own != NULL && !own->rec.shared && own->rec.holder != 0 &&
        own->rec.holder != rq->instance)
        return refuse_open(d, rq, STATUS_STALE_TURN, "another instance of this host has taken it over");
    if (mdc_open_find(v, rq->host, rq->instance) == NULL && other_instance(v, rq) != NULL)
        return refuse_open(
            d, rq, STATUS_BUSY,
            "another process of this host has it open; end that one, or take over, or open it shared");
    return STATUS_OK;
}

static void end_others(struct mdc_decision *d, const struct mdc_volume_open_request *rq, struct mdc_volume *v)
{
    list_for_each_safe(n, &v->opens)
    {
        struct mdc_open *o = list_entry(n, struct mdc_open, link);
        if (o->instance != rq->instance && strcmp(o->host, rq->host) == 0)
            mdc_open_remove(d->state, o);
    }
}

static uint32_t attach_for_open(struct mdc_decision *d, const struct mdc_volume_open_request *rq,
                                struct mdc_volume *v)
{
    struct mdc_attachment *own = mdc_attachment_find(v, rq->host);
    struct record_attachment rec = {.volume = v->rec.id, .read_only = rq->read_only, .shared = rq->shared};
    record_set_since(&rec, v->rec.generation);
    if (own != NULL)
        rec = own->rec;
    else
        memcpy(rec.host, rq->host, sizeof(rec.host));
    if (!rq->read_only) {
        rec.read_only = false;
        rec.holder = rq->instance;
        if (!rec.by_request)
            rec.shared = rq->shared;
    }
    if (own == NULL)
        return mdc_attachment_add(d->state, d->tx, v, &rec) != NULL
                   ? STATUS_OK
                   : refuse_open(d, rq, STATUS_NO_MEMORY, "out of memory");
    if (memcmp(&rec, &own->rec, sizeof(rec)) != 0) {
        own->rec = rec;
        mdc_attachment_changed(d->state, d->tx, own);
    }
    return STATUS_OK;
}

/* The open of this instance belongs to the session that asked last. */
static uint32_t note_open(struct mdc_decision *d, const struct mdc_volume_open_request *rq,
                          struct mdc_volume *v)
{
    struct mdc_open *old = mdc_open_find(v, rq->host, rq->instance);
    if (old != NULL && old->session != d->session && rq->serial != 0 && rq->serial < old->serial)
        return refuse_open(d, rq, STATUS_STALE_TURN, "the same process has opened it again since, elsewhere");
    if (old == NULL && v->open_count >= OPENS_MAX)
        return refuse_open(d, rq, STATUS_NO_SPACE,
                           "it is open too many times; close it where it is needed no more");
    struct mdc_open *o = mdc_open_add(d->state, v, d->session, rq->host, rq->instance);
    if (o == NULL)
        return refuse_open(d, rq, STATUS_NO_MEMORY, "out of memory");
    o->serial = max_u64(rq->serial, old != NULL ? old->serial : 0);
    if (old != NULL)
        mdc_open_remove(d->state, old);
    o->read_only = rq->read_only;
    o->shared = rq->shared;
    return STATUS_OK;
}

uint32_t mdc_op_volume_open(struct mdc_decision *d, const struct mdc_volume_open_request *rq,
                            struct mdc_volume_open_reply *rep)
{
    struct mdc_volume *v = NULL;
    uint32_t status = find_opened(d, rq, &v);
    const struct mdc_module *unheard = status == STATUS_OK ? mdc_unheard(d, v->rec.pool) : NULL;
    if (unheard != NULL)
        return mdc_refuse_unheard(d, "open", v->rec.name, unheard);
    if (status == STATUS_OK)
        status = judge_hosts(d, rq, v);
    if (status == STATUS_OK)
        status = judge_instances(d, rq, v);
    if (status == STATUS_OK)
        status = note_open(d, rq, v);
    if (status != STATUS_OK)
        return status;
    if (rq->take_over)
        end_others(d, rq, v);
    if (rq->held > v->rec.generation) /* it was told by a controller whose store is lost */
        mdc_ahead_take(d, &(struct mdc_ahead){.volume = v->rec.id, .generation = rq->held});
    status = attach_for_open(d, rq, v);
    if (status != STATUS_OK)
        return status;
    if (!rq->read_only && !rq->again)
        rep->turn = mdc_turn_take(d->state, d->tx);
    rep->pool = v->rec.pool;
    mdc_volume_describe(d->state, v, &rep->volume);
    return STATUS_OK;
}

/* ---- close ---- */

/* A close of what is not open is no error: the volume may be gone, or the close be a repeat. */
uint32_t mdc_op_volume_close(struct mdc_decision *d, const struct mdc_volume_close_request *rq,
                             struct mdc_empty *rep)
{
    (void)rep;
    struct mdc_state *s = d->state;
    struct mdc_volume *v = mdc_volume_by_id(s, &rq->id);
    if (v == NULL)
        return STATUS_OK;
    struct mdc_open *o = mdc_open_find(v, rq->host, rq->instance);
    /* The instance has come back through another gateway: the close of the one that it left ends nothing. */
    if (o != NULL && o->session == d->session && (rq->serial == 0 || rq->serial >= o->serial))
        mdc_open_remove(s, o);
    return STATUS_OK;
}

/* ---- turns ---- */

uint32_t mdc_op_turn_draw(struct mdc_decision *d, const struct mdc_turn_draw_request *rq,
                          struct mdc_turn_draw_reply *rep)
{
    struct mdc_volume *v = mdc_volume_by_id(d->state, &rq->id);
    char id[33];
    uuid_format(&rq->id, id);
    if (v == NULL || v->rec.state == TABLE_VOLUME_DELETING)
        return mdc_refuse(d, STATUS_NOT_FOUND,
                          "cannot give host \"%s\" a write turn: volume %s is not there any more", rq->host,
                          id);
    struct mdc_attachment *a = mdc_attachment_find(v, rq->host);
    if (a == NULL)
        return mdc_refuse(
            d, STATUS_DENIED,
            "cannot give host \"%s\" a write turn: volume \"%s\" is not attached to it; open it first",
            rq->host, v->rec.name);
    if (a->rec.read_only)
        return mdc_refuse(d, STATUS_READ_ONLY,
                          "cannot give host \"%s\" a write turn: volume \"%s\" is attached to it read-only",
                          rq->host, v->rec.name);
    const struct mdc_module *unheard = mdc_unheard(d, v->rec.pool);
    if (unheard != NULL)
        return mdc_refuse_unheard(d, "draw a write turn of", v->rec.name, unheard);
    const struct mdc_open *o = mdc_open_find(v, rq->host, rq->instance);
    bool shared = a->rec.shared || (o != NULL && o->shared);
    if (!shared && a->rec.holder != rq->instance)
        return mdc_refuse(
            d, STATUS_STALE_TURN,
            "cannot give host \"%s\" a write turn: another instance of the host has taken volume \"%s\" over",
            rq->host, v->rec.name);
    rep->turn = mdc_turn_take(d->state, d->tx);
    return STATUS_OK;
}

/* ---- attach, detach ---- */

static uint32_t refuse_attach(struct mdc_decision *d, const char *what, const struct mdc_attach_request *rq,
                              uint32_t status, const char *why)
{
    return mdc_refuse(d, status, "cannot %s volume \"%s\", host \"%s\": %s", what, rq->volume, rq->host, why);
}

static uint32_t attach_new(struct mdc_decision *d, const struct mdc_attach_request *rq, struct mdc_volume *v)
{
    if (d->state->attachment_count >= d->state->attachments_max || v->attachment_count >= ATTACHED_HOSTS_MAX)
        return refuse_attach(
            d, "attach", rq, STATUS_NO_SPACE,
            "the limit of attachments is reached; detach it from hosts that need it no more");
    struct record_attachment rec = {
        .volume = v->rec.id, .read_only = rq->read_only, .shared = rq->shared, .by_request = true};
    record_set_since(&rec, v->rec.generation);
    memcpy(rec.host, rq->host, sizeof(rec.host));
    if (mdc_attachment_add(d->state, d->tx, v, &rec) == NULL)
        return refuse_attach(d, "attach", rq, STATUS_NO_MEMORY, "out of memory");
    return STATUS_OK;
}

uint32_t mdc_op_attach(struct mdc_decision *d, const struct mdc_attach_request *rq, struct mdc_empty *rep)
{
    (void)rep;
    struct mdc_volume *v = mdc_volume_by_name(d->state, rq->volume);
    if (v == NULL)
        return refuse_attach(d, "attach", rq, STATUS_NOT_FOUND, "there is no volume of that name");
    if (!mdc_name_valid(rq->host))
        return refuse_attach(d, "attach", rq, STATUS_INVALID, "the host's name is not valid");
    struct mdc_attachment *a = mdc_attachment_find(v, rq->host);
    const struct mdc_attachment *other = other_writer(v, rq->host);
    if (a != NULL && a->rec.by_request && (a->rec.read_only != rq->read_only || a->rec.shared != rq->shared))
        return refuse_attach(d, "attach", rq, STATUS_EXISTS,
                             "it is attached to that host in another mode; detach it first");
    if (a == NULL || (a->rec.read_only && !rq->read_only)) {
        if (other != NULL && !rq->read_only && !rq->shared)
            return mdc_refuse(
                d, STATUS_BUSY,
                "cannot attach volume \"%s\", host \"%s\": it is attached read-write to host \"%s\"; detach it there, "
                "or attach it read-only or shared",
                rq->volume, rq->host, other->rec.host);
    }
    if (a == NULL)
        return attach_new(d, rq, v);
    if (!a->rec.by_request) {
        a->rec.by_request = true;
        a->rec.read_only = rq->read_only && a->rec.read_only;
        a->rec.shared = rq->shared;
        mdc_attachment_changed(d->state, d->tx, a);
    }
    return STATUS_OK;
}

/*
 * A repeat of a detach that was not confirmed in time finds no attachment, but the volume's generation
 * unconfirmed: it waits like the first, so that an answer always means that the host can write no more.
 */
uint32_t mdc_op_detach(struct mdc_decision *d, const struct mdc_attach_request *rq, struct mdc_empty *rep)
{
    (void)rep;
    struct mdc_state *s = d->state;
    struct mdc_volume *v = mdc_volume_by_name(s, rq->volume);
    if (v == NULL)
        return refuse_attach(d, "detach", rq, STATUS_NOT_FOUND, "there is no volume of that name");
    const struct mdc_module *unheard = mdc_unheard(d, v->rec.pool);
    if (unheard != NULL)
        return mdc_refuse_unheard(d, "detach a host from", v->rec.name, unheard);
    struct mdc_attachment *a = mdc_attachment_find(v, rq->host);
    if (a == NULL && mdc_volume_fenced_in_sync(s, v))
        return refuse_attach(d, "detach", rq, STATUS_NOT_FOUND, "it is not attached to that host");
    if (a != NULL) {
        list_for_each_safe(n, &v->opens)
        {
            struct mdc_open *o = list_entry(n, struct mdc_open, link);
            if (strcmp(o->host, rq->host) == 0)
                mdc_open_remove(s, o);
        }
        mdc_attachment_remove(s, d->tx, a);
        mdc_volume_raise_generation(s, d->tx, v);
        v->floor = v->rec.generation;
    }
    d->await = v;
    return STATUS_OK;
}
