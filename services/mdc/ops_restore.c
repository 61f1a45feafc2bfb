/*
 * ops_restore.c: a metadata store that was put back from an old copy, or might be. What was decided after the
 * copy was made is not known here, but whoever it was told to knows: modules tell the highest numbers that
 * they have seen when they register and with each heartbeat, and of which volumes they have accepted a later
 * record than the table has. Each detach, shrink and delete raised a generation that every module that was in
 * sync in the pool had accepted before it was answered, and that others accept before they come in sync; so
 * whoever of them is heard knows of it.
 *
 * Numbers are not taken twice even where nobody is left who has seen them: mdc_numbers_lift.
 */
#include "services/mdc/ops.h"

#include <string.h>

/* What epochs may have been given out that nobody tells of: those of members that were added since. */
#define EPOCHS_UNTOLD (1ull << 20)

void mdc_note_restored(struct mdc_state *s, struct mdc_tx *tx)
{
    if (!s->restored) {
        s->counters.highest_epoch += EPOCHS_UNTOLD;
        mdc_settle_again(s);
    }
    s->restored = true;
    s->counters.flags |= RECORD_COUNTERS_UNHEARD;
    mdc_tx_counters(tx);
}

/* Neither from before this process nor from itself. */
static bool unknown(uint64_t number, uint64_t loaded, uint64_t base, uint64_t highest)
{
    return number > loaded && (number < base || number > highest);
}

bool mdc_held_take(struct mdc_decision *d, const struct mdc_held *held)
{
    struct mdc_state *s = d->state;
    struct record_counters *c = &s->counters;
    bool generation =
        unknown(held->generation, s->loaded.generation, s->base.generation, c->highest_generation);
    bool restored = generation || held->layer >= c->next_layer || held->epoch > c->highest_epoch ||
                    unknown(held->turn, s->loaded.turn, s->base.turn, s->turn_next - 1);
    if (!restored)
        return false;
    c->next_layer = max_u64(c->next_layer, held->layer + 1);
    c->highest_epoch = max_u64(c->highest_epoch, held->epoch);
    c->highest_generation = max_u64(c->highest_generation, held->generation);
    s->turn_next = max_u64(s->turn_next, held->turn + 1);
    if (s->turn_next >= c->turn_limit)
        c->turn_limit = s->turn_next + TURN_BATCH;
    mdc_note_restored(d->state, d->tx);
    return generation;
}

void mdc_ahead_take(struct mdc_decision *d, const struct mdc_ahead *ahead)
{
    struct mdc_volume *v = mdc_volume_by_id(d->state, &ahead->volume);
    if (v == NULL || ahead->generation >= NUMBER_MAX / 2)
        return;
    v->floor = max_u64(v->floor, ahead->generation);
    list_for_each(n, &v->attachments)
    {
        struct mdc_attachment *a = list_entry(n, struct mdc_attachment, link);
        if (record_since(&a->rec) >= ahead->generation)
            continue;
        record_set_since(&a->rec, ahead->generation);
        mdc_attachment_changed(d->state, d->tx, a);
    }
    if (ahead->generation < v->rec.generation)
        return; /* said before it was raised */
    struct record_counters *c = &d->state->counters;
    c->highest_generation = max_u64(c->highest_generation, ahead->generation);
    mdc_volume_raise_generation(d->state, d->tx, v);
    mdc_note_restored(d->state, d->tx);
}

static bool heard(const struct mdc_state *s, const struct mdc_module *m)
{
    return m->registered && (!m->knows_more || m->applied_term == s->term);
}

/* A pool with one copy: whoever holds a partition may be the only one who knows. */
static const struct mdc_module *unheard_single(const struct mdc_state *s, uint32_t pool)
{
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        const struct mdc_module *m = &s->modules[i];
        if (m->rec.id != 0 && m->rec.pool == pool && m->partitions != 0 && !heard(s, m))
            return m;
    }
    return NULL;
}

/* An in-sync member of which nothing was heard, where none of the others was; NULL: there is one who was. */
static const struct mdc_module *unheard_members(struct mdc_state *s, const struct record_partition *p)
{
    const struct mdc_module *first = NULL;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX && p->members[k] != 0; k++) {
        const struct mdc_module *m = mdc_module_by_id(s, TABLE_MEMBER_ID(p->members[k]));
        if (!(p->members[k] & TABLE_MEMBER_IN_SYNC) || m == NULL)
            continue;
        if (heard(s, m))
            return NULL;
        first = first != NULL ? first : m;
    }
    return first;
}

/*
 * A pool with several copies. All that are in sync somewhere have accepted what was answered, and who comes
 * in sync reads the table before: so one in-sync member of each partition is enough, once it is known who
 * that is. Where the store is old it is known when the partition is settled.
 */
static const struct mdc_module *unheard_copies(struct mdc_state *s, const struct mdc_pool *pool)
{
    char text[8];
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        const struct mdc_module *m = &s->modules[i];
        if (m->rec.id != 0 && m->rec.pool == pool->rec.id && m->registered && !heard(s, m))
            return m;
    }
    for (uint32_t i = 0; i < pool->rec.partitions; i++) {
        uint32_t index = pool->rec.first_partition + i;
        bool old = s->counters.flags & RECORD_COUNTERS_UNHEARD;
        const struct mdc_module *m = old ? mdc_settle_explain(s, index, text, sizeof(text))
                                         : unheard_members(s, &s->partitions[index]);
        if (m != NULL)
            return m;
    }
    return NULL;
}

const struct mdc_module *mdc_unheard(const struct mdc_decision *d, uint32_t pool)
{
    struct mdc_state *s = d->state;
    const struct mdc_pool *p = mdc_pool_by_id(s, pool);
    uint64_t round_ns = (uint64_t)s->heartbeat_ms * SILENT_PERIODS * NS_PER_MS;
    bool young = d->now_ns - s->started_ns < round_ns;
    if (p == NULL || s->trusted || (!young && !(s->counters.flags & RECORD_COUNTERS_UNHEARD)))
        return NULL;
    return p->rec.copies > 1 ? unheard_copies(s, p) : unheard_single(s, pool);
}

uint32_t mdc_refuse_unheard(struct mdc_decision *d, const char *what, const char *name,
                            const struct mdc_module *m)
{
    bool old = d->state->counters.flags & RECORD_COUNTERS_UNHEARD;
    return mdc_refuse(
        d, STATUS_AGAIN,
        "cannot %s volume \"%s\": module %u (%s of %s) has not been heard since %s; see that it runs, or "
        "try again in a moment",
        what, name, m->rec.id, m->rec.name, m->rec.host,
        old ? "the metadata store was put back from an old copy"
            : "the metadata controller has just started");
}

/* Is nothing awaited of m any more? Of several copies the partitions say so. */
static bool told_enough(struct mdc_state *s, const struct mdc_module *m)
{
    const struct mdc_pool *pool = mdc_pool_by_id(s, m->rec.pool);
    if (m->partitions == 0 || heard(s, m) || pool == NULL)
        return true;
    return pool->rec.copies > 1 && !m->registered;
}

void mdc_restore_advance(struct mdc_decision *d)
{
    struct mdc_state *s = d->state;
    bool all = true;
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0)
            continue;
        if (memcmp(&m->held, &m->taken, sizeof(m->held)) != 0)
            m->knows_more |= mdc_held_take(d, &m->held);
        m->taken = m->held;
        for (uint32_t k = 0; k < m->ahead_count; k++)
            mdc_ahead_take(d, &m->ahead[k]);
        m->ahead_count = 0;
        all = all && told_enough(s, m);
    }
    mdc_settle_advance(d);
    if (s->unsettled == 0 && all && (s->counters.flags & RECORD_COUNTERS_UNHEARD)) {
        s->counters.flags &= ~RECORD_COUNTERS_UNHEARD;
        mdc_tx_counters(d->tx);
    }
}
