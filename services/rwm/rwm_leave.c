/*
 * rwm_leave.c: partitions that this module has left. Their blocks are removed in the background, as those of
 * deleted volumes are (rwm_remove.c), and the space comes back.
 *
 * A partition is left when the module has durably accepted a record that does not name it, and the table in
 * force has none that does. Nothing needs to be remembered over a crash but that record. Who becomes a member
 * again joins when no removal is under way (rwm_leave_busy); catch-up then compares whatever is left.
 */
#include "services/rwm/rwm_internal.h"

#include <string.h>

/* As rwm_remove.c. */
#define LEAVE_TICK_NS (10u * NS_PER_MS)
#define LEAVE_BURST   32u
#define LEAVE_LOOK    4096u

static void leave_tick(struct loop_timer *timer);

void rwm_leave_init(struct rwm *m)
{
    struct rwm_leave *l = &m->leave;
    loop_timer_init(&l->timer, leave_tick);
    for (unsigned i = 0; i < RWM_REMOVE_OPS; i++)
        l->ops[i].m = m;
}

void rwm_leave_stop(struct rwm *m)
{
    loop_timer_cancel(m->env->loop, &m->leave.timer);
}

bool rwm_leave_busy(const struct rwm *m, uint32_t partition)
{
    return partition < m->part_count && m->parts[partition].leave_out != 0;
}

uint64_t rwm_leave_pending(const struct rwm *m)
{
    const struct rwm_leave *l = &m->leave;
    return l->parts != 0 ? max_u64(1, l->found > l->removed ? l->found - l->removed : 0) : 0;
}

/* ---- which ---- */

static bool names(const uint32_t *members, uint32_t id)
{
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++)
        if (members[k] != 0 && TABLE_MEMBER_ID(members[k]) == id)
            return true;
    return false;
}

static bool is_left(const struct rwm *m, const struct table *t, uint32_t i)
{
    const struct table_pool *pool = table_pool_by_id(t, m->pool_id);
    const struct table_partition *p = pool ? table_partition_at(t, pool, i) : NULL;
    const struct store_partition_record *rec = rwm_record(m, STORE_PARTITION, i);
    return p && p->pool == m->pool_id && rec->pool == m->pool_id && rec->partition == i &&
           p->epoch >= rec->epoch && !names(rec->members, m->id) && !names(p->members, m->id);
}

/* The table came into force. */
void rwm_leave_look(struct rwm *m, const struct table *t)
{
    struct rwm_leave *l = &m->leave;
    l->parts = 0;
    for (uint32_t i = 0; i < m->part_count; i++) {
        struct rwm_part *part = &m->parts[i];
        const bool left = is_left(m, t, i);
        if (left && !part->left)
            part->left_empty = false;
        part->left = left;
        l->parts += left && !part->left_empty;
    }
    if (l->parts != 0 && !loop_timer_armed(&l->timer))
        loop_timer_arm(m->env->loop, &l->timer, LEAVE_TICK_NS);
}

/* ---- removing ---- */

static void removed_one(struct store_op *op, int rc)
{
    struct rwm_remove_op *mine = container_of(op, struct rwm_remove_op, op);
    struct rwm *m = mine->m;
    const uint32_t partition = placement_partition(op->key.hash, m->part_count);
    mine->busy = false;
    m->leave.out--;
    m->parts[partition].leave_out--; /* they stay while something is under way: rwm_leave_halt */
    if (rc == 0)
        m->leave.removed++;
    else
        rwm_store_error(m, rc, "remove");
    if (m->leave.halt && m->leave.out == 0) {
        m->leave.halt = false;
        rwm_apply_kick(m);
    }
    if (m->state == RWM_STOPPING)
        rwm_shutdown_step(m);
}

bool rwm_leave_halt(struct rwm *m)
{
    m->leave.halt = m->leave.out != 0;
    m->leave.parts = 0; /* the next table in force tells anew */
    m->leave.partition = 0;
    m->leave.cursor = 0;
    m->leave.key_pos = m->leave.key_count = 0;
    m->leave.part_ended = m->leave.part_found = false;
    return !m->leave.halt;
}

/* False: no room now. */
static bool leave_start(struct rwm *m, uint32_t partition, const struct store_key *key)
{
    struct rwm_leave *l = &m->leave;
    struct rwm_remove_op *op = NULL;
    for (unsigned i = 0; i < RWM_REMOVE_OPS && !op; i++)
        op = l->ops[i].busy ? NULL : &l->ops[i];
    if (!op)
        return false;
    memset(&op->op, 0, sizeof(op->op));
    list_init(&op->op.link);
    op->op.key = *key;
    op->op.done = removed_one;
    int rc = store_remove(m->store, &op->op);
    if (rc) {
        if (rc != -EAGAIN)
            rwm_store_error(m, rc, "remove");
        return false;
    }
    op->busy = true;
    l->out++;
    m->parts[partition].leave_out++;
    return true;
}

/* The next key of a partition that was left; false at the end of the pass. */
static bool leave_next(struct rwm *m, struct store_key **key)
{
    struct rwm_leave *l = &m->leave;
    for (;;) {
        if (l->partition >= m->part_count)
            return false;
        struct rwm_part *part = &m->parts[l->partition];
        const bool go = part->left && !part->left_empty;
        if (go && l->key_pos < l->key_count) {
            *key = &l->keys[l->key_pos];
            return true;
        }
        l->key_pos = l->key_count = 0;
        if (go && !l->part_ended) {
            l->key_count = store_list(m->store, l->partition, &l->cursor, l->keys, RWM_REMOVE_KEYS);
            l->part_found |= l->key_count != 0;
            l->part_ended = l->cursor == 0;
            continue;
        }
        /* A pass that found nothing, with nothing under way that could still write here. */
        if (go && !l->part_found && part->leave_out == 0 && !rwm_leave_writes(m, l->partition)) {
            part->left_empty = true;
            l->parts--;
        }
        l->partition++;
        l->cursor = 0;
        l->part_ended = l->part_found = false;
    }
}

static void leave_pass_ended(struct rwm *m)
{
    struct rwm_leave *l = &m->leave;
    l->partition = 0;
    l->cursor = 0;
    l->key_pos = l->key_count = 0;
    l->part_ended = l->part_found = false;
    l->found = l->removed = 0;
    if (l->parts != 0)
        return;
    log_info(m->env, "nothing is left of the partitions that were left", "module=%u", m->id);
    rwm_member_heartbeat(m);
}

static void leave_tick(struct loop_timer *timer)
{
    struct rwm *m = container_of(timer, struct rwm, leave.timer);
    struct rwm_leave *l = &m->leave;
    struct store_key *key;
    unsigned started = 0;
    if (m->broken || m->state != RWM_RUNNING || l->parts == 0)
        return;
    loop_timer_arm(m->env->loop, timer, LEAVE_TICK_NS);
    for (unsigned looked = 0; looked < LEAVE_LOOK; looked++) {
        if (!leave_next(m, &key)) {
            leave_pass_ended(m);
            break;
        }
        if (!rwm_block_busy(m, key)) {
            if (started == LEAVE_BURST || !leave_start(m, l->partition, key))
                break;
            started++;
            l->found++;
        }
        l->key_pos++;
    }
}
