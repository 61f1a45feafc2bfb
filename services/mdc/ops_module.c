/* ops_module.c: modules register, tell how they are, and fall silent. */
#include "services/mdc/ops.h"

#include "common/wire/block_proto.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

uint32_t mdc_refuse(struct mdc_decision *d, uint32_t status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->error->text, sizeof(d->error->text), fmt, ap);
    va_end(ap);
    return status;
}

/* ---- registration ---- */

static uint32_t refuse_module(struct mdc_decision *d, const struct mdc_module_register_request *rq,
                              uint32_t status, const char *why)
{
    char store[33];
    uuid_format(&rq->store, store);
    return mdc_refuse(d, status, "cannot register module %s of host %s (store %s): %s", rq->name, rq->host,
                      store, why);
}

static bool held_valid(const struct mdc_held *h)
{
    return h->epoch < NUMBER_MAX / 2 && h->layer < NUMBER_MAX / 2 && h->generation < NUMBER_MAX / 2 &&
           h->turn < BLOCK_TURN_MAX;
}

static struct mdc_held register_held(const struct mdc_module_register_request *rq)
{
    return (struct mdc_held){rq->highest_epoch, rq->highest_layer, rq->highest_generation, rq->highest_turn};
}

static const char *register_invalid(const struct mdc_module_register_request *rq)
{
    struct mdc_held held = register_held(rq);
    if (uuid_is_zero(&rq->store) || rq->incarnation == 0 || rq->start_counter == 0)
        return "its store id, incarnation and start counter must not be zero";
    if (!mdc_name_valid(rq->host) || !mdc_name_valid(rq->name) ||
        (rq->rack[0] != 0 && !mdc_name_valid(rq->rack)))
        return "its host, rack or name is not a valid name: use letters, digits, dot, dash and underscore";
    if ((rq->kind != TABLE_MODULE_OSD && rq->kind != TABLE_MODULE_SAN) || rq->media < TABLE_MEDIA_SSD ||
        rq->media > TABLE_MEDIA_SAN)
        return "its kind or medium is not known here";
    if (!held_valid(&held))
        return "an epoch, layer, generation or turn that it reports is out of range";
    return NULL;
}

/*
 * A later start while the earlier one is heard on a live connection: two processes run on two copies of one
 * medium (of one medium they cannot: it is locked). Who is there stays; the other asks again until it is gone
 * or silent.
 */
static bool earlier_start_lives(const struct mdc_decision *d, const struct mdc_module_register_request *rq,
                                const struct mdc_module *m)
{
    uint64_t round_ns = (uint64_t)d->state->heartbeat_ms * SILENT_PERIODS * NS_PER_MS;
    return rq->start_counter > m->rec.start_counter && m->session != NULL && m->session != d->session &&
           d->now_ns - m->heard_ns <= round_ns;
}

/*
 * A medium notes each start that was accepted, and says so before it serves. It is the one that served last
 * if it noted the start on record; or the one before, while that on record was not confirmed, so never
 * served; or a later one than this controller knows, which was then put back from an old copy itself.
 * Anything else is an old copy of the medium: start counters alone would be caught up with by starting it
 * often enough.
 */
static bool served_last(const struct mdc_module *m, const struct mdc_module_register_request *rq)
{
    const struct record_module *r = &m->rec;
    if (rq->accepted_start > r->start_counter)
        return true;
    if (rq->accepted_start == r->start_counter && rq->accepted_incarnation == r->incarnation)
        return true;
    bool confirmed = r->confirmed_start == r->start_counter && r->confirmed_incarnation == r->incarnation;
    return !confirmed && rq->accepted_start == r->confirmed_start &&
           rq->accepted_incarnation == r->confirmed_incarnation;
}

/* What the medium may do here: *known is its module, NULL for a new one. */
static uint32_t judge_medium(struct mdc_decision *d, const struct mdc_module_register_request *rq,
                             struct mdc_module **known)
{
    struct mdc_state *s = d->state;
    struct mdc_module *m = mdc_module_by_store(s, &rq->store);
    *known = m;
    if (m == NULL) {
        if (rq->module > s->limits.modules)
            return refuse_module(d, rq, STATUS_RANGE,
                                 "its module number is above the configured limit of modules");
        if (mdc_module_by_id(s, rq->module) != NULL)
            return refuse_module(
                d, rq, STATUS_FOREIGN_MEDIA,
                "its module number belongs to another store: it is a medium of another cluster, or one that "
                "this cluster replaced; format it to use it here");
        return STATUS_OK;
    }
    if (rq->module != 0 && rq->module != m->rec.id)
        return refuse_module(
            d, rq, STATUS_FOREIGN_MEDIA,
            "its module number is not the one this cluster gave to its store; do not start it");
    if (rq->start_counter < m->rec.start_counter)
        return refuse_module(
            d, rq, STATUS_OLD_MEDIA,
            "the cluster has seen later starts of this store: it was put back from an old copy, and serving "
            "it would bring back old data; format it to use it anew");
    if (rq->start_counter == m->rec.start_counter && rq->incarnation != m->rec.incarnation)
        return refuse_module(
            d, rq, STATUS_OLD_MEDIA,
            "another process registered the same start of this store: it is a copy of a medium in use; stop "
            "one of them");
    if (!served_last(m, rq))
        return refuse_module(
            d, rq, STATUS_OLD_MEDIA,
            "it does not know of the latest start that served: it was put back from an old copy, and serving it would "
            "bring back old data; format it to use it anew");
    if (earlier_start_lives(d, rq, m))
        return refuse_module(
            d, rq, STATUS_BUSY,
            "its earlier start is still running; wait until that is seen to be gone, or stop it if one medium is a copy of the other");
    return STATUS_OK;
}

static struct mdc_module *new_module(struct mdc_decision *d, uint32_t wanted)
{
    struct mdc_state *s = d->state;
    uint32_t id = wanted;
    for (uint32_t i = 0; id == 0 && i < s->limits.modules; i++) {
        uint32_t candidate = (s->counters.next_module - 1 + i) % s->limits.modules + 1;
        if (s->modules[candidate - 1].rec.id == 0)
            id = candidate;
    }
    if (id == 0)
        return NULL;
    struct mdc_module *m = &s->modules[id - 1];
    memset(m, 0, sizeof(*m));
    m->rec.id = id;
    if (id >= s->counters.next_module) {
        s->counters.next_module = id + 1;
        mdc_tx_counters(d->tx);
    }
    return m;
}

static bool is_member(const struct record_partition *p, const struct mdc_module *m)
{
    bool member = false;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++)
        member |= TABLE_MEMBER_ID(p->members[k]) == m->rec.id;
    return member;
}

/*
 * The module has accepted an epoch that the store does not know: it would refuse those of the table. The
 * highest one that it has accepted may be of a partition that it has left, so it says nothing of those that
 * were settled by what all their members told.
 */
static bool epochs_behind(struct mdc_state *s, const struct mdc_module *m, uint64_t accepted)
{
    const struct mdc_pool *pool = mdc_pool_by_id(s, m->rec.pool);
    bool any = false;
    for (uint32_t i = 0; pool != NULL && i < pool->rec.partitions; i++) {
        const uint32_t index = pool->rec.first_partition + i;
        const struct record_partition *p = &s->partitions[index];
        if (!is_member(p, m) || (pool->rec.copies > 1 && !(s->settling[index] & MDC_SETTLED_LATE)))
            continue;
        if (p->epoch >= accepted)
            return false;
        any = true;
    }
    return any;
}

/* A new incarnation serves nothing under an old epoch: each partition it is a member of gets a new one. So it
 * is where the module knows a higher one, but then it is in sync where it was. */
static void raise_epochs(struct mdc_decision *d, struct mdc_module *m, uint64_t above, bool fresh)
{
    struct mdc_state *s = d->state;
    const struct mdc_pool *pool = mdc_pool_by_id(s, m->rec.pool);
    if (pool == NULL)
        return;
    for (uint32_t i = 0; i < pool->rec.partitions; i++) {
        uint32_t index = pool->rec.first_partition + i;
        struct record_partition *p = &s->partitions[index];
        if (!is_member(p, m) || !mdc_partition_settled(s, index))
            continue;
        /* It lacks what was written since; the primary brings it up again. */
        if (fresh)
            (void)mdc_member_drop(d, index, m->rec.id);
        p->epoch = max_u64(p->epoch, above) + 1;
        s->counters.highest_epoch = max_u64(s->counters.highest_epoch, p->epoch);
        mdc_tx_record(d->tx, TABLE_PARTITION, index);
    }
    mdc_tx_counters(d->tx);
}

/* True when a durable field changed. */
static bool take_description(struct mdc_module *m, const struct mdc_module_register_request *rq)
{
    struct record_module old = m->rec;
    m->rec.store = rq->store;
    m->rec.start_counter = rq->start_counter;
    m->rec.incarnation = rq->incarnation;
    m->rec.confirmed_start = rq->accepted_start;
    m->rec.confirmed_incarnation = rq->accepted_incarnation;
    m->rec.capacity_bytes = rq->capacity_bytes;
    m->rec.kind = rq->kind;
    m->rec.media = rq->media;
    memcpy(m->rec.addr, rq->addr, sizeof(m->rec.addr));
    memcpy(m->rec.host, rq->host, sizeof(m->rec.host));
    memcpy(m->rec.rack, rq->rack, sizeof(m->rec.rack));
    memcpy(m->rec.name, rq->name, sizeof(m->rec.name));
    return memcmp(&old, &m->rec, sizeof(old)) != 0;
}

static void take_damaged(struct mdc_module *m, bool damaged, uint64_t now_ns)
{
    m->damaged = damaged;
    if (!damaged)
        m->damaged_ns = 0;
    else if (m->damaged_ns == 0)
        m->damaged_ns = now_ns;
}

uint32_t mdc_op_module_register(struct mdc_decision *d, const struct mdc_module_register_request *rq,
                                struct mdc_module_register_reply *rep)
{
    const char *wrong = register_invalid(rq);
    if (wrong != NULL)
        return refuse_module(d, rq, STATUS_INVALID, wrong);
    struct mdc_module *m;
    uint32_t status = judge_medium(d, rq, &m);
    if (status != STATUS_OK)
        return status;
    if (m == NULL)
        m = new_module(d, rq->module);
    if (m == NULL)
        return refuse_module(d, rq, STATUS_NO_SPACE,
                             "the configured limit of modules is reached; raise max-modules of the MDC");
    bool fresh = m->rec.incarnation != rq->incarnation;
    struct mdc_held held = register_held(rq);
    m->knows_more |= mdc_held_take(d, &held);
    if (take_description(m, rq))
        mdc_tx_record(d->tx, TABLE_MODULE, m->rec.id - 1);
    if (fresh)
        mdc_settle_started(d->state, m->rec.id);
    if (fresh || epochs_behind(d->state, m, rq->highest_epoch))
        raise_epochs(d, m, rq->highest_epoch, fresh);
    if (fresh) {
        m->applied_term = m->applied_version = 0;
        m->removing_blocks = m->leaving_blocks = 0;
        /* Counters of the process before: with its successor's they would be added up to nonsense. */
        m->reads = m->writes = m->read_bytes = m->write_bytes = m->errors = 0;
        memset(&m->care, 0, sizeof(m->care));
        m->recovery_count = 0;
        m->told = m->telling = false;
    }
    m->capacity_bytes = rq->capacity_bytes;
    m->used_bytes = rq->used_bytes;
    take_damaged(m, rq->damaged, d->now_ns);
    m->registered = true;
    m->session = d->session;
    m->down = false;
    m->heard_ns = d->now_ns;
    m->lost_ns = 0;
    m->dead = m->gone = m->reset = false;
    mdc_tx_publish(d->tx, TABLE_MODULE, m->rec.id - 1);
    rep->module = m->rec.id;
    rep->pool = m->rec.pool;
    rep->tell = mdc_settle_asks(d->state, m);
    return STATUS_OK;
}

/* ---- heartbeats: not queued behind commits; what must be stored or published is left to mdc_op_advance ----
 */

uint32_t mdc_op_module_heartbeat(struct mdc_decision *d, const struct mdc_module_heartbeat_request *rq,
                                 struct mdc_module_heartbeat_reply *rep)
{
    struct mdc_state *s = d->state;
    struct mdc_module *m = mdc_module_by_id(s, rq->module);
    if (m == NULL || m->rec.incarnation != rq->incarnation || !m->registered) {
        rep->register_again = true;
        return STATUS_OK;
    }
    m->heard_ns = d->now_ns;
    m->session = d->session;
    m->lost_ns = 0;
    m->publish |= m->gone && m->reset;
    m->gone = m->reset = false;
    rep->tell = mdc_settle_asks(s, m);
    m->applied_term = rq->applied_term;
    m->applied_version = rq->applied_version;
    m->removing_blocks = rq->removing_blocks;
    m->leaving_blocks = rq->leaving_blocks;
    m->used_bytes = rq->used_bytes;
    m->reads = rq->reads;
    m->writes = rq->writes;
    m->read_bytes = rq->read_bytes;
    m->write_bytes = rq->write_bytes;
    m->errors = rq->errors;
    m->care = rq->care;
    memcpy(m->recoveries, rq->recoveries, sizeof(m->recoveries));
    m->recovery_count = rq->recovery_count;
    rep->scrub = m->scrub;
    if (m->down || m->damaged != rq->damaged)
        m->publish = true;
    if (m->capacity_bytes != rq->capacity_bytes)
        m->store = true;
    m->down = false;
    take_damaged(m, rq->damaged, d->now_ns);
    m->capacity_bytes = rq->capacity_bytes;
    struct mdc_held held = {rq->highest_epoch, rq->highest_layer, rq->highest_generation, rq->highest_turn};
    if (held_valid(&held))
        m->held = held;
    m->ahead_count = rq->ahead_count;
    memcpy(m->ahead, rq->ahead, sizeof(m->ahead));
    mdc_op_seen(s, rq->applied_term, rq->applied_version);
    return STATUS_OK;
}

/*
 * Each start of a controller counts one term more than the store says. So another term of the same count was
 * begun over the same store, which was put back since: its numbers are those that this one would give, even
 * where what they say beside the count makes it the lower one.
 */
bool mdc_op_seen(struct mdc_state *s, uint64_t term, uint64_t version)
{
    if (term >= TERM_COUNT_MAX << 16 || term >> 16 < s->term >> 16 ||
        (term == s->term && version <= s->version))
        return false;
    s->raise_term = max_u64(s->raise_term, term);
    return true;
}

bool mdc_op_session_lost(struct mdc_state *s, const struct mdc_session *session, bool reset, uint64_t now_ns)
{
    bool any = false;
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0 || m->session != session || !m->registered)
            continue;
        m->lost_ns = now_ns;
        m->reset = reset;
        any = true;
    }
    return any;
}

bool mdc_op_watch(struct mdc_state *s, uint64_t now_ns, bool late)
{
    bool any = false;
    uint64_t limit_ns = (uint64_t)s->heartbeat_ms * SILENT_PERIODS * NS_PER_MS;
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        struct mdc_module *m = &s->modules[i];
        if (late && m->down)
            m->heard_ns = now_ns; /* nor is anybody away for longer than this process saw it */
        if (m->rec.id == 0 || m->down)
            continue;
        if (late) {
            m->heard_ns = now_ns;
            m->lost_ns = m->lost_ns != 0 ? now_ns : 0;
        } else if (now_ns - m->heard_ns > limit_ns) {
            m->down = m->dead = m->gone = true;
            m->publish = true;
            any = true;
        } else if (m->lost_ns != 0 && now_ns - m->lost_ns > SESSION_GRACE_NS) {
            m->lost_ns = 0;
            m->dead = m->gone = true;
            any = true;
        }
    }
    return any;
}

/* ---- what was heard becomes stored and published ---- */

/* Is some module of the pool still removing what deletes and shrinks left? */
static bool pool_removing(const struct mdc_state *s, uint32_t pool)
{
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        const struct mdc_module *m = &s->modules[i];
        if (m->rec.id != 0 && m->rec.pool == pool && m->partitions != 0 && m->removing_blocks != 0)
            return true;
    }
    return false;
}

/* A shrink, too, is over only when all beyond the new end is gone: a grow would bring it back. */
static void finish_volume(struct mdc_decision *d, struct mdc_volume *v)
{
    struct mdc_state *s = d->state;
    uint32_t slot = mdc_volume_slot(s, v);
    if (pool_removing(s, v->rec.pool))
        return;
    if (v->rec.state == TABLE_VOLUME_DELETING) {
        char key[META_KEY_MAX];
        record_key_volume(key, &v->rec.id);
        mdc_volume_remove(s, v);
        mdc_tx_key(d->tx, TX_DELETE, key);
        mdc_tx_forget(d->tx, TABLE_VOLUME, slot);
        mdc_tx_publish(d->tx, TABLE_VOLUME, slot);
    } else {
        v->rec.state = TABLE_VOLUME_READY;
        mdc_tx_record(d->tx, TABLE_VOLUME, slot);
    }
    s->volumes_pending--;
}

void mdc_op_advance(struct mdc_decision *d)
{
    struct mdc_state *s = d->state;
    if (s->raise_term != 0 && s->raise_term >> 16 >= s->counters.term >> 16) {
        s->counters.term = mdc_term_above(s->raise_term, (uint16_t)(d->fresh.b[0] | d->fresh.b[1] << 8));
        mdc_note_restored(s, d->tx);
        mdc_settle_new_term(s);
        mdc_numbers_lift(s);
        mdc_tx_counters(d->tx);
    }
    s->raise_term = 0;
    mdc_restore_advance(d);
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        struct mdc_module *m = &s->modules[i];
        if (m->store) {
            m->rec.capacity_bytes = m->capacity_bytes;
            mdc_tx_record(d->tx, TABLE_MODULE, i);
        } else if (m->publish) {
            mdc_tx_publish(d->tx, TABLE_MODULE, i);
        }
        if (m->dead) {
            mdc_tx_publish(d->tx, TABLE_MODULE, i); /* that it is gone */
            mdc_members_dead(d, m->rec.id);
        }
        m->store = m->publish = m->dead = false;
    }
    for (uint32_t i = 0; s->volumes_pending != 0 && i < s->volume_top; i++) {
        struct mdc_volume *v = &s->volumes[i];
        if (!uuid_is_zero(&v->rec.id) && v->rec.state != TABLE_VOLUME_READY && mdc_volume_fenced(s, v, NULL))
            finish_volume(d, v);
    }
    mdc_move_advance(d);
}
