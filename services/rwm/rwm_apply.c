/*
 * rwm_apply.c: a newer table is taken over: first the partitions' epochs, then the volumes' records are made
 * durable, in that order; then all of it is in force; then, when the last write that got its version under
 * the old state has ended, the table's version is confirmed to the metadata controller. Until then a detached
 * or shrunk volume's old writers may still change it.
 */
#include "services/rwm/rwm_scrub.h"

#include <stdlib.h>
#include <string.h>

/* Records looked at in one go; the loop goes on in between. */
#define APPLY_BURST 4096u

static void apply_fail(struct rwm *m, int rc, const char *what)
{
    rwm_store_error(m, rc, what);
    if (!m->broken)
        rwm_fail(m, rc, "writing the module's records failed (%s): %s", what, strerror(-rc));
}

static void record_done(struct store_record_op *op, int rc)
{
    struct rwm_record_op *mine = container_of(op, struct rwm_record_op, op);
    struct rwm *m = mine->m;
    m->apply.out--;
    list_push_back(&m->apply.free, &mine->link);
    if (rc)
        apply_fail(m, rc, "record");
    else
        loop_defer(m->env->loop, &m->apply.task);
}

static struct rwm_record_op *record_op_get(struct rwm *m)
{
    struct list *n = list_pop_front(&m->apply.free);
    if (!n)
        return NULL;
    struct rwm_record_op *op = list_entry(n, struct rwm_record_op, link);
    memset(&op->op, 0, sizeof(op->op));
    list_init(&op->op.link);
    op->op.done = record_done;
    return op;
}

static void apply_room(struct store_waiter *w)
{
    struct rwm *m = container_of(w, struct rwm, apply.waiter);
    m->apply.waiting = false;
    loop_defer(m->env->loop, &m->apply.task);
}

/* ---- which pool, how many partitions ---- */
static void pool_identity_done(void *arg, int rc)
{
    struct rwm *m = arg;
    m->identity_busy = false;
    if (rc)
        apply_fail(m, rc, "identity");
    else if (m->cluster)
        loop_defer(m->env->loop, &m->apply.task);
    rwm_shutdown_step(m);
}

static uint32_t log2_of(uint32_t v)
{
    uint32_t bits = 0;
    while (v > 1) {
        v >>= 1;
        bits++;
    }
    return bits;
}

/* Index was a part of a partition that this module was a member of, before the pool was doubled. */
static bool was_part_of_mine(const struct rwm *m, uint32_t pool, uint32_t index)
{
    while (index != 0) {
        index &= ~(1u << log2_of(index));
        const struct store_partition_record *rec = rwm_record(m, STORE_PARTITION, index);
        if (rec->pool == pool && rec->partition == index)
            return true;
    }
    return false;
}

/*
 * The pool was doubled, and a half given to others, while this module was away: it knows nothing of that
 * partition, and has what it had of the whole. The record is accepted as if this module had been a member: so
 * the blocks are removed as those of any partition that was left.
 */
static bool inherits(const struct rwm *m, uint32_t pool, uint32_t index)
{
    const struct store_partition_record *rec = rwm_record(m, STORE_PARTITION, index);
    struct store_key key;
    uint64_t cursor = 0;
    return !(rec->pool == pool && rec->partition == index) && was_part_of_mine(m, pool, index) &&
           store_list(m->store, index, &cursor, &key, 1) != 0;
}

static int pool_take(struct rwm *m, uint32_t id, uint32_t count, uint32_t stripe_bytes)
{
    struct rwm_part *parts = NULL;
    if (!rwm_leave_halt(m))
        return -EAGAIN;
    if (count > 0) {
        parts = calloc(count, sizeof(*parts));
        if (!parts)
            return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct store_partition_record *rec = rwm_record(m, STORE_PARTITION, i);
        if (rec->pool == id && rec->partition == i)
            parts[i].opened_epoch = rec->epoch;
        parts[i].inherited = inherits(m, id, i);
    }
    if (!list_empty(&m->copies)) {
        free(parts);
        rwm_fail(m, -EAGAIN, "the pool of module %u changed: starting again", m->id);
        return -ESTALE;
    }
    free(m->parts);
    m->parts = parts;
    m->part_count = count;
    m->pool_id = id;
    m->stripe_bytes = stripe_bytes;
    if (m->served)
        log_info(m->env, id != 0 ? "taken into a pool" : "in no pool any more",
                 "module=%u pool=%u partitions=%u", m->id, id, count);
    return 0;
}

/*
 * The pool has fewer partitions than this module has accepted of it: the controller's store is from before it
 * got more. Partitions that are apart now would be taken for one.
 */
static bool pool_shrunk(const struct rwm *m, uint32_t pool, uint32_t bits)
{
    if (bits >= store_identity(m->store)->partition_bits)
        return false;
    for (uint32_t i = 0; i < store_record_capacity(m->store, STORE_PARTITION); i++) {
        const struct store_partition_record *rec = rwm_record(m, STORE_PARTITION, i);
        if (rec->pool == pool)
            return true;
    }
    return false;
}

/*
 * The table names another start of this module. From a controller that has accepted this one (of its term,
 * from that version on) it means that a later one was accepted since. From one that has not been told of it
 * yet (it begins with a store put back from a copy) it means nothing: nothing is taken over before it has
 * answered.
 */
static int another_start(struct rwm *m, const struct table *t, const struct table_module *me)
{
    const struct rwm_member *b = &m->member;
    const struct table_header *head = table_head(t);
    if (head->term != b->known_term || head->version < b->known_version)
        return -EAGAIN;
    rwm_fail(m, -ESTALE,
             "module %u is served by another process now (incarnation %016lx, this one is %016lx): stopping",
             m->id, (unsigned long)me->incarnation, (unsigned long)m->config.incarnation);
    return -ESTALE;
}

/* 0: goes on; -EAGAIN: identity_busy, or the controller has not accepted this start yet; else failed. */
static int apply_pool(struct rwm *m, const struct table *t)
{
    const struct table_module *me = table_module_by_id(t, m->id);
    if (me && me->incarnation != m->config.incarnation)
        return another_start(m, t, me);
    if (!me)
        return 0; /* what was accepted stays */
    const struct table_pool *pool = me->pool ? table_pool_by_id(t, me->pool) : NULL;
    if (!pool)
        return m->pool_id == 0 ? 0 : pool_take(m, 0, 0, 0);
    if (!is_pow2(pool->partitions) || pool->partitions > store_record_capacity(m->store, STORE_PARTITION) ||
        pool->stripe_bytes < BLOCK_BYTES || pool->stripe_bytes % BLOCK_BYTES != 0 ||
        pool->block_bytes != BLOCK_BYTES) {
        if (log_allow(m->env, &m->log_limit))
            log_error(m->env, "the pool's shape does not fit this module: not serving it",
                      "module=%u pool=%u partitions=%u stripe_bytes=%u records=%u", m->id, pool->id,
                      pool->partitions, pool->stripe_bytes, store_record_capacity(m->store, STORE_PARTITION));
        m->apply.incomplete = true;
        return 0;
    }
    /*
     * What is under way knows its blocks by partitions that are about to be others: it ends as with a crash,
     * and this module begins anew with what is durable, all of it under new epochs. First, for the index is
     * kept by partition.
     */
    if (pool_shrunk(m, pool->id, log2_of(pool->partitions))) {
        rwm_fail(
            m, -ESTALE,
            "pool %u has %u partitions in the table, and module %u has accepted more: the metadata store was put "
            "back from a copy of before; put back a later one",
            pool->id, pool->partitions, m->id);
        return -ESTALE;
    }
    const bool grown = m->pool_id == pool->id && m->part_count != 0 && m->part_count != pool->partitions;
    if (grown) {
        rwm_fail(m, -EAGAIN, "the pool of module %u has %u partitions now: starting again", m->id,
                 pool->partitions);
        return -ESTALE;
    }
    m->min_copies = pool->min_copies;
    uint32_t bits = log2_of(pool->partitions);
    if (store_identity(m->store)->partition_bits != bits) {
        int rc = store_set_identity(m->store, &m->member.cluster, m->id, bits, pool_identity_done, m);
        if (rc) {
            apply_fail(m, rc, "identity");
            return rc;
        }
        m->identity_busy = true;
        return -EAGAIN;
    }
    if (m->pool_id != pool->id || m->part_count != pool->partitions || m->stripe_bytes != pool->stripe_bytes)
        return pool_take(m, pool->id, pool->partitions, pool->stripe_bytes);
    return 0;
}

/* ---- partitions ---- */
static bool part_member(const uint32_t *members, uint32_t id)
{
    for (unsigned i = 0; i < TABLE_MEMBERS_MAX; i++)
        if (members[i] != 0 && TABLE_MEMBER_ID(members[i]) == id)
            return true;
    return false;
}

static void part_complain(struct rwm *m, struct rwm_part *part, uint32_t index, uint64_t epoch,
                          const char *text)
{
    if (part->complained)
        return;
    part->complained = true;
    log_warn(m->env, text, "module=%u partition=%u table_epoch=%lu accepted_epoch=%lu", m->id, index,
             (unsigned long)epoch, (unsigned long)max_u64(part->opened_epoch, part->epoch));
}

static int stage_part(struct rwm *m, const struct table *t, uint32_t index, struct rwm_record_op *op,
                      bool *set)
{
    const struct table_pool *pool = table_pool_by_id(t, m->pool_id);
    const struct table_partition *p = pool ? table_partition_at(t, pool, index) : NULL;
    struct rwm_part *part = &m->parts[index];
    *set = false;
    if (!p || p->pool != m->pool_id)
        return 0;
    const struct store_partition_record *old = rwm_record(m, STORE_PARTITION, index);
    bool known = old->pool == m->pool_id && old->partition == index;
    bool member = part_member(p->members, m->id);
    if (known && p->epoch < old->epoch) {
        part_complain(m, part, index, p->epoch,
                      "the table has a lower epoch than this module has accepted: refused");
        return 0;
    }
    if (known && p->epoch == old->epoch) {
        if (memcmp(p->members, old->members, sizeof(old->members)) != 0)
            part_complain(m, part, index, p->epoch,
                          "the table has other members in an accepted epoch: refused");
        else if (member && p->epoch <= part->opened_epoch)
            part_complain(m, part, index, p->epoch,
                          "the partition has no new epoch since this start: not served yet");
        return 0;
    }
    const bool has = known ? part_member(old->members, m->id) : part->inherited;
    if (!member && !has) {
        part->staged_epoch = p->epoch;
        part->staged_primary = false;
        part->dirty = part->epoch != p->epoch;
        return 0;
    }
    struct store_partition_record rec;
    memset(&rec, 0, sizeof(rec));
    rec.pool = m->pool_id;
    rec.partition = index;
    rec.epoch = p->epoch;
    memcpy(rec.members, p->members, sizeof(rec.members));
    if (known)
        memcpy(rec.reserved, old->reserved, sizeof(rec.reserved)); /* when it was scrubbed */
    int rc = store_record_set(m->store, &op->op, STORE_PARTITION, index, &rec);
    if (rc)
        return rc;
    *set = true;
    part->staged_epoch = p->epoch;
    part->staged_primary = table_partition_primary(p) == m->id;
    part->dirty = true;
    part->complained = false;
    m->highest_epoch = max_u64(m->highest_epoch, p->epoch);
    return 0;
}

/* ---- the steps ---- */
static uint32_t phase_count(const struct rwm *m, const struct table *t)
{
    switch (m->apply.phase) {
    case RWM_APPLY_PARTS:
        return m->part_count;
    case RWM_APPLY_VOLUMES:
        return table_head(t)->section[TABLE_VOLUME].used;
    default:
        return m->volume_capacity;
    }
}

static int phase_one(struct rwm *m, const struct table *t, struct rwm_record_op *op, bool *set)
{
    struct rwm_apply *a = &m->apply;
    *set = false;
    if (a->phase == RWM_APPLY_PARTS)
        return stage_part(m, t, a->index, op, set);
    if (a->phase == RWM_APPLY_GONE)
        return rwm_volume_stage_gone(m, t, a->index, op, set);
    const struct table_volume *v = table_record(t, TABLE_VOLUME, a->index);
    if (!v || uuid_is_zero(&v->id) || v->pool != m->pool_id || m->pool_id == 0)
        return 0;
    return rwm_volume_stage(m, t, v, op, set);
}

/* Makes records durable, as many as there is room for. True: all are submitted. */
static bool apply_stage(struct rwm *m, const struct table *t)
{
    struct rwm_apply *a = &m->apply;
    unsigned burst = APPLY_BURST;
    while (a->phase == RWM_APPLY_PARTS || a->phase == RWM_APPLY_VOLUMES || a->phase == RWM_APPLY_GONE) {
        if (a->index >= phase_count(m, t)) {
            a->phase++;
            a->index = 0;
            continue;
        }
        if (burst-- == 0) {
            loop_defer(m->env->loop, &a->task);
            return false;
        }
        struct rwm_record_op *op = record_op_get(m);
        if (!op)
            return false; /* record_done goes on */
        bool set;
        int rc = phase_one(m, t, op, &set);
        if (set)
            a->out++;
        else
            list_push_front(&a->free, &op->link);
        if (rc == -EAGAIN) {
            a->waiting = true;
            a->waiter.fn = apply_room;
            store_wait(m->store, &a->waiter);
            return false;
        }
        if (rc) {
            apply_fail(m, rc, "record");
            return false;
        }
        a->index++;
    }
    return true;
}

static void apply_force(struct rwm *m, const struct table *t)
{
    for (uint32_t i = 0; i < m->part_count; i++) {
        struct rwm_part *part = &m->parts[i];
        if (!part->dirty)
            continue;
        part->dirty = false;
        m->stats.epochs += part->epoch != part->staged_epoch;
        part->epoch = part->staged_epoch;
        part->primary = part->staged_primary;
        rwm_epoch_force(m, i);
    }
    rwm_leave_look(m, t);
    rwm_peers_table(m);
    rwm_volumes_force(m);
    m->force_term = m->apply.term;
    m->force_version = m->apply.version;
    struct rwm_drain *d = &m->apply.drain[m->apply.drain[0].waits];
    *d = (struct rwm_drain){.waits = true,
                            .serial = m->write_serial,
                            .term = m->apply.term,
                            .version = m->apply.version,
                            .incomplete = m->apply.incomplete};
    if (m->state == RWM_JOINING)
        m->state = RWM_RUNNING;
    rwm_tick_soon(m);
    rwm_tell_step(m);
    rwm_held_recheck(m);
    rwm_queue_pump(m);
}

/* The module may be gone after it. */
static void apply_confirm(struct rwm *m)
{
    struct rwm_drain *a = &m->apply.drain[0], done = *a;
    *a = m->apply.drain[1];
    m->apply.drain[1].waits = false;
    a = &done;
    if (m->apply.drain[0].waits)
        loop_defer(m->env->loop, &m->apply.task);
    for (uint32_t i = 0; i < m->volume_capacity; i++)
        if (rwm_volume_wants_removal(m, &m->volumes[i]))
            rwm_remove_add(m, &m->volumes[i]);
    bool news = !a->incomplete && (a->term != m->applied_term || a->version != m->applied_version);
    if (news) {
        m->applied_term = a->term;
        m->applied_version = a->version;
    }
    if (news || m->member.ahead_count > 0)
        rwm_member_heartbeat(m);
    if (!m->served && m->state == RWM_RUNNING) {
        m->served = true;
        rwm_scrub_start(m);
        log_info(m->env, m->pool_id != 0 ? "serving" : "ready, in no pool yet",
                 "module=%u pool=%u partitions=%u table_version=%lu", m->id, m->pool_id, m->part_count,
                 (unsigned long)m->force_version);
        if (m->events.serving)
            m->events.serving(m->user); /* the last thing: it may destroy the module */
    }
}

static void apply_begin(struct rwm *m, const struct table *t)
{
    struct rwm_apply *a = &m->apply;
    a->incomplete = false;
    a->again = false;
    m->member.ahead_count = 0;
    int rc = apply_pool(m, t);
    if (rc) {
        a->again = rc == -EAGAIN;
        if (rc == -ENOMEM)
            rwm_fail(m, rc, "no memory for the partitions of the pool");
        return;
    }
    a->term = table_head(t)->term;
    a->version = table_head(t)->version;
    a->index = 0;
    a->phase = RWM_APPLY_PARTS;
}

/* Writes may wait for another table (a member that is gone): so tables are taken over meanwhile. */
static bool drained(const struct rwm *m)
{
    const struct rwm_drain *d = &m->apply.drain[0];
    if (!d->waits)
        return false;
    return list_empty(&m->versioned) ||
           list_entry(m->versioned.next, struct rwm_piece, versioned_link)->serial > d->serial;
}

static void apply_step(struct loop_task *task)
{
    struct rwm *m = container_of(task, struct rwm, apply.task);
    struct rwm_apply *a = &m->apply;
    const struct table *t = m->cluster ? cluster_table(m->cluster) : NULL;
    if (!t || m->broken || m->state == RWM_FAILED || m->identity_busy || a->waiting)
        return;
    if (a->phase == RWM_APPLY_IDLE && a->again)
        apply_begin(m, t);
    if (a->phase != RWM_APPLY_IDLE && a->phase < RWM_APPLY_DURABLE && !apply_stage(m, t))
        return;
    if (a->phase == RWM_APPLY_DURABLE && a->out == 0) {
        a->phase = RWM_APPLY_IDLE;
        if (a->again)
            loop_defer(m->env->loop, &a->task);
        apply_force(m, t);
    }
    if (drained(m))
        apply_confirm(m);
}

void rwm_apply_init(struct rwm *m)
{
    struct rwm_apply *a = &m->apply;
    list_init(&a->free);
    list_init(&m->versioned);
    for (unsigned i = 0; i < RWM_RECORD_OPS; i++) {
        a->ops[i].m = m;
        list_push_back(&a->free, &a->ops[i].link);
    }
    loop_task_init(&a->task, apply_step);
}

void rwm_apply_kick(struct rwm *m)
{
    const struct table *t = m->cluster ? cluster_table(m->cluster) : NULL;
    if (!t || (m->state != RWM_RUNNING && !(m->state == RWM_JOINING && m->member.registered)))
        return;
    m->apply.again = true;
    loop_defer(m->env->loop, &m->apply.task);
}

void rwm_apply_write_begun(struct rwm *m, struct rwm_piece *p)
{
    p->serial = ++m->write_serial;
    list_push_back(&m->versioned, &p->versioned_link);
}

void rwm_apply_write_ended(struct rwm *m, struct rwm_piece *p)
{
    MUST(!list_unlinked(&p->versioned_link));
    list_remove(&p->versioned_link);
    if (drained(m))
        loop_defer(m->env->loop, &m->apply.task);
}

void rwm_apply_stop(struct rwm *m)
{
    loop_task_cancel(m->env->loop, &m->apply.task);
    m->apply.again = false;
}
