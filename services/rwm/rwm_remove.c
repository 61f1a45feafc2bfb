/*
 * rwm_remove.c: what deleted volumes left, and what lies beyond the size of shrunk ones, is removed in the
 * background.
 *
 * Nobody writes there any more: the generation was raised, and the last write under the old one has ended,
 * before a volume comes here. The blocks are found by walking the index; a volume is done when a whole walk
 * found none of its blocks, so nothing needs to be remembered over a crash but the volume's record.
 */
#include "services/rwm/rwm_internal.h"

#include <string.h>

/* Rate: at most so many blocks each so long; 3,200 blocks or 400 MiB of volume a second. */
#define REMOVE_TICK_NS (10u * NS_PER_MS)
#define REMOVE_BURST   32u
/* Keys looked at in one tick. */
#define REMOVE_LOOK 4096u

static void remove_tick(struct loop_timer *timer);

void rwm_remove_init(struct rwm *m)
{
    struct rwm_remove *r = &m->remove;
    list_init(&r->volumes);
    list_init(&r->swept);
    loop_timer_init(&r->timer, remove_tick);
    for (unsigned i = 0; i < RWM_REMOVE_OPS; i++)
        r->ops[i].m = m;
}

uint64_t rwm_remove_pending(const struct rwm *m)
{
    const struct rwm_remove *r = &m->remove;
    if (list_empty(&r->volumes))
        return 0;
    return max_u64(1, r->found - r->removed);
}

void rwm_remove_add(struct rwm *m, struct rwm_volume *v)
{
    struct rwm_remove *r = &m->remove;
    if (!list_unlinked(&v->remove_link))
        return;
    list_push_back(&r->volumes, &v->remove_link);
    r->dirty = true;
    if (!loop_timer_armed(&r->timer))
        loop_timer_arm(m->env->loop, &r->timer, REMOVE_TICK_NS);
}

void rwm_remove_cut_again(struct rwm *m, struct rwm_volume *v)
{
    struct rwm_remove *r = &m->remove;
    v->cut_done = false;
    r->cut_again |= r->cutting == v;
    if (!list_unlinked(&v->remove_link))
        return;
    rwm_remove_add(m, v);
    rwm_member_heartbeat(m);
}

void rwm_remove_stop(struct rwm *m)
{
    loop_timer_cancel(m->env->loop, &m->remove.timer);
}

bool rwm_remove_matches(const struct rwm *m, const struct store_key *key)
{
    list_for_each(n, &m->remove.volumes)
    {
        const struct rwm_volume *v = list_entry(n, struct rwm_volume, remove_link);
        if (v->layer != key->layer)
            continue;
        if (v->state == TABLE_VOLUME_DELETING ||
            key->block >= (v->size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES)
            return true;
    }
    return false;
}

bool rwm_remove_dead(const struct rwm *m, const struct store_key *key)
{
    list_for_each(n, &m->remove.swept)
    {
        if (list_entry(n, struct rwm_volume, remove_link)->layer == key->layer)
            return true;
    }
    return rwm_remove_matches(m, key);
}

static void removed_one(struct store_op *op, int rc)
{
    struct rwm_remove_op *mine = container_of(op, struct rwm_remove_op, op);
    struct rwm *m = mine->m;
    mine->busy = false;
    m->remove.out--;
    if (rc == 0)
        m->remove.removed++;
    else
        rwm_store_error(m, rc, "remove");
    if (m->state == RWM_STOPPING)
        rwm_shutdown_step(m);
}

/* False: no room now. */
static bool remove_start(struct rwm *m, const struct store_key *key)
{
    struct rwm_remove *r = &m->remove;
    struct rwm_remove_op *op = NULL;
    for (unsigned i = 0; i < RWM_REMOVE_OPS && !op; i++)
        op = r->ops[i].busy ? NULL : &r->ops[i];
    if (!op)
        return false;
    memset(&op->op, 0, sizeof(op->op));
    list_init(&op->op.link);
    op->op.key = *key;
    op->op.done = removed_one;
    int rc = store_remove(m->store, &op->op);
    if (rc == -EAGAIN)
        return false;
    if (rc) {
        rwm_store_error(m, rc, "remove");
        return false;
    }
    op->busy = true;
    r->out++;
    return true;
}

/* ---- the last block of a shrunk volume: its units beyond the end become holes ---- */
static void cut_end(struct rwm *m, uint32_t status)
{
    struct rwm_volume *v = m->remove.cutting;
    m->remove.cutting = NULL;
    /* v's record is still the same one: only the end of its removal frees it, and that waits for the cut. */
    if (v && status == STATUS_OK && !m->remove.cut_again)
        v->cut_done = true;
    m->remove.cut_again = false;
    if (m->state == RWM_STOPPING)
        rwm_shutdown_step(m);
}

static void cut_cleared(struct rwm_piece *p, uint32_t status)
{
    struct rwm *m = p->m;
    rwm_piece_put(m->area, p);
    cut_end(m, status);
}

static void cut_found(struct store_op *op, int rc)
{
    struct rwm *m = container_of(op, struct rwm, remove.stat);
    struct rwm_volume *v = m->remove.cutting;
    uint32_t start = (uint32_t)round_up(v->size_bytes % BLOCK_BYTES, UNIT_BYTES);
    if (rc) {
        rwm_store_error(m, rc, "look at the last block");
        cut_end(m, STATUS_IO);
        return;
    }
    if (start >= BLOCK_BYTES || (op->written >> (start / UNIT_BYTES)) == 0) {
        cut_end(m, STATUS_OK);
        return;
    }
    struct rwm_piece *p = m->state == RWM_RUNNING ? rwm_piece_get(m, 0) : NULL;
    if (!p) {
        cut_end(m, STATUS_AGAIN);
        return;
    }
    p->kind = RWM_PIECE_CLEAR;
    p->start = start;
    p->bytes = BLOCK_BYTES - start;
    p->partition = placement_partition(op->key.hash, m->part_count);
    p->op.key = op->key;
    p->done = cut_cleared;
    rwm_block_add(m, p);
}

/* Starts the next cut, if there is one. True: all cuts are done. */
static bool remove_cuts(struct rwm *m)
{
    struct rwm_remove *r = &m->remove;
    if (r->cutting)
        return false;
    list_for_each(n, &r->volumes)
    {
        struct rwm_volume *v = list_entry(n, struct rwm_volume, remove_link);
        if (v->cut_done || v->state == TABLE_VOLUME_DELETING || v->size_bytes % BLOCK_BYTES == 0)
            continue;
        if (m->stripe_bytes == 0 || m->part_count == 0)
            return false;
        uint64_t offset = round_down(v->size_bytes, BLOCK_BYTES);
        memset(&r->stat, 0, sizeof(r->stat));
        list_init(&r->stat.link);
        r->stat.key = (struct store_key){.layer = v->layer,
                                         .block = offset / BLOCK_BYTES,
                                         .hash = placement_hash(v->family, offset / m->stripe_bytes)};
        r->stat.unit_count = UNITS_PER_BLOCK;
        r->stat.done = cut_found;
        int rc = store_stat(m->store, &r->stat);
        if (rc == 0)
            r->cutting = v;
        else if (rc != -EAGAIN)
            rwm_store_error(m, rc, "look at the last block");
        return false;
    }
    return true;
}

/* ---- the walk ---- */
static void walk_restart(struct rwm *m)
{
    struct rwm_remove *r = &m->remove;
    r->partition = 0;
    r->cursor = 0;
    r->key_count = r->key_pos = 0;
    r->found = r->removed = 0;
    r->dirty = false;
}

/* The next key, or false at the end of the walk. */
static bool walk_next(struct rwm *m, struct store_key **key)
{
    struct rwm_remove *r = &m->remove;
    uint32_t partitions = 1u << store_identity(m->store)->partition_bits;
    while (r->key_pos == r->key_count) {
        if (r->partition >= partitions)
            return false;
        r->key_pos = 0;
        r->key_count = store_list(m->store, r->partition, &r->cursor, r->keys, RWM_REMOVE_KEYS);
        if (r->cursor == 0)
            r->partition++;
    }
    *key = &r->keys[r->key_pos];
    return true;
}

/* True: the walk is at its end. */
static bool remove_walk(struct rwm *m)
{
    struct rwm_remove *r = &m->remove;
    struct store_key *key;
    unsigned started = 0;
    for (unsigned looked = 0; looked < REMOVE_LOOK; looked++) {
        if (!walk_next(m, &key))
            return true;
        if (rwm_remove_matches(m, key)) {
            if (started == REMOVE_BURST)
                return false;
            if (!rwm_block_busy(m, key)) {
                if (!remove_start(m, key))
                    return false;
                started++;
            }
            r->found++;
        }
        r->key_pos++;
    }
    return false;
}

/* A whole walk found nothing: all volumes of the list are done. */
static void remove_finish(struct rwm *m)
{
    list_for_each_safe(n, &m->remove.volumes)
    {
        struct rwm_volume *v = list_entry(n, struct rwm_volume, remove_link);
        bool deleted = v->state == TABLE_VOLUME_DELETING;
        const struct table *t = m->cluster ? cluster_table(m->cluster) : NULL;
        char id[33];
        uuid_format(&v->id, id);
        if (deleted && t && table_volume_by_id(t, &v->id) != NULL) {
            list_remove(n);
            list_push_back(&m->remove.swept, n);
            v->swept = true;
            continue;
        }
        int rc = rwm_volume_removed(m, v);
        if (rc == -EAGAIN)
            return;
        if (rc) {
            rwm_store_error(m, rc, "finish a removal");
            return;
        }
        list_remove(n);
        log_info(m->env, deleted ? "deleted volume removed" : "shrunk volume cut", "module=%u volume=%s",
                 m->id, id);
    }
    rwm_member_heartbeat(m);
}

static void remove_tick(struct loop_timer *timer)
{
    struct rwm *m = container_of(timer, struct rwm, remove.timer);
    struct rwm_remove *r = &m->remove;
    if (m->broken || m->state != RWM_RUNNING)
        return;
    /* While old writes drain, blocks may still appear: wait for them. */
    if (!m->apply.drain[0].waits) {
        if (r->dirty && r->out == 0)
            walk_restart(m);
        bool cut = remove_cuts(m);
        if (!r->dirty && remove_walk(m) && r->out == 0 && cut) {
            if (r->found == 0)
                remove_finish(m);
            walk_restart(m);
        }
    }
    if (!list_empty(&r->volumes))
        loop_timer_arm(m->env->loop, timer, REMOVE_TICK_NS);
}
