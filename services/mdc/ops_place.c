/*
 * ops_place.c: what the placement goes by is changed: modules are added to pools, emptied, weighed, taken out
 * and forgotten; and what it came to is explained.
 *
 * While a pool has no volumes nobody holds anything of it, and its partitions are given anew at once. Else
 * the mover (ops_move.c) brings the data to where it is to be, and the answer tells how many copies that is.
 */
#include "services/mdc/ops_place.h"
#include "services/mdc/placement_explain.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- modules as the placement wants them ---- */

int mdc_layout_make(struct mdc_module *const *chosen, uint32_t count, uint8_t copies, struct mdc_layout *out)
{
    struct mdc_layout l = {.rule = {.copies = copies, .domain = PLACEMENT_RACK}, .count = count};
    l.modules = calloc(count + 1, sizeof(*l.modules));
    l.of = calloc(count + 1, sizeof(struct mdc_module *));
    if (l.modules == NULL || l.of == NULL) {
        mdc_layout_free(&l);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct record_module *r = &chosen[i]->rec;
        uint32_t host = 0, rack = 0; /* the first that has the same */
        while (strcmp(chosen[host]->rec.host, r->host) != 0)
            host++;
        while (strcmp(chosen[rack]->rec.rack, r->rack) != 0)
            rack++;
        l.of[i] = chosen[i];
        l.modules[i] =
            (struct placement_module){.id = r->id,
                                      .weight = mdc_module_weight(chosen[i]),
                                      .host = host,
                                      .rack = rack,
                                      .state = r->draining != 0 ? PLACEMENT_DRAINING : PLACEMENT_UP};
    }
    *out = l;
    return 0;
}

int mdc_layout_of_pool(struct mdc_state *s, const struct mdc_pool *pool, struct mdc_layout *out)
{
    struct mdc_module **chosen = calloc(s->limits.modules, sizeof(struct mdc_module *));
    uint32_t n = 0;
    if (chosen == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        if (s->modules[i].rec.id != 0 && s->modules[i].rec.pool == pool->rec.id)
            chosen[n++] = &s->modules[i];
    }
    int rc = mdc_layout_make(chosen, n, pool->rec.copies, out);
    free(chosen);
    return rc;
}

void mdc_layout_free(struct mdc_layout *l)
{
    free(l->modules);
    free(l->of);
    memset(l, 0, sizeof(*l));
}

struct placement_set *mdc_sets_of(const struct mdc_state *s, const struct mdc_pool *pool)
{
    struct placement_set *sets = calloc(pool->rec.partitions, sizeof(*sets));
    for (uint32_t i = 0; sets != NULL && i < pool->rec.partitions; i++)
        memcpy(sets[i].members, s->partitions[pool->rec.first_partition + i].members,
               sizeof(sets[i].members));
    return sets;
}

/* ---- giving the partitions of a pool without volumes anew ---- */

int mdc_place_empty(const struct mdc_layout *l, uint32_t partitions, const struct placement_set *old,
                    struct placement_set *sets)
{
    struct placement_result result;
    int rc = placement_assign(&l->rule, l->modules, l->count, partitions, old, sets, &result);
    if (rc != 0)
        return rc;
    for (uint32_t i = 0; i < partitions; i++) {
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX && sets[i].members[k] != 0; k++)
            sets[i].members[k] |= TABLE_MEMBER_IN_SYNC;
    }
    return placement_primaries(l->modules, l->count, partitions, sets, NULL);
}

static const struct mdc_volume *volume_of(const struct mdc_state *s, const struct mdc_pool *pool)
{
    for (uint32_t i = 0; i < s->volume_top; i++) {
        if (!uuid_is_zero(&s->volumes[i].rec.id) && s->volumes[i].rec.pool == pool->rec.id)
            return &s->volumes[i];
    }
    return NULL;
}

/* Writes the members that changed, in one new epoch. */
static uint32_t give(struct mdc_decision *d, struct mdc_pool *pool, const struct placement_set *sets)
{
    struct mdc_state *s = d->state;
    uint32_t moved = 0;
    uint64_t epoch = s->counters.highest_epoch + 1;
    for (uint32_t i = 0; i < pool->rec.partitions; i++) {
        uint32_t index = pool->rec.first_partition + i;
        if (memcmp(sets[i].members, s->partitions[index].members, sizeof(sets[i].members)) == 0)
            continue;
        memcpy(s->partitions[index].members, sets[i].members, sizeof(sets[i].members));
        s->partitions[index].epoch = epoch;
        mdc_tx_record(d->tx, TABLE_PARTITION, index);
        moved++;
    }
    if (moved != 0) {
        s->counters.highest_epoch = epoch;
        mdc_tx_counters(d->tx);
        mdc_pool_count_partitions(s, pool);
    }
    return moved;
}

/* After a start of this controller epochs may be behind what a module has seen: all must have been heard, or
 * be known to be down. */
static bool all_heard(const struct mdc_layout *l)
{
    for (uint32_t i = 0; i < l->count; i++) {
        if (!l->of[i]->registered && !l->of[i]->down)
            return false;
    }
    return true;
}

/* The pool's partitions as the placement has them now. Changes nothing unless it is STATUS_OK. */
static uint32_t place_anew(struct mdc_decision *d, struct mdc_pool *pool, uint32_t *moved)
{
    struct mdc_layout l;
    if (mdc_layout_of_pool(d->state, pool, &l) != 0)
        return STATUS_NO_MEMORY;
    if (!all_heard(&l) || !mdc_pool_settled(d->state, pool)) {
        mdc_layout_free(&l);
        return STATUS_AGAIN;
    }
    struct placement_set *sets = mdc_sets_of(d->state, pool);
    int rc = sets != NULL ? mdc_place_empty(&l, pool->rec.partitions, sets, sets) : -ENOMEM;
    if (rc == 0)
        *moved = give(d, pool, sets);
    free(sets);
    mdc_layout_free(&l);
    if (rc == -EINVAL)
        return STATUS_INVALID; /* nobody is left to take them */
    return rc == 0 ? STATUS_OK : STATUS_NO_MEMORY;
}

/* ---- refusing ---- */

static uint32_t refuse(struct mdc_decision *d, const char *what, const struct mdc_module *m, uint32_t status,
                       const char *why)
{
    return mdc_refuse(d, status, "cannot %s module %u (%s of %s): %s", what, m->rec.id, m->rec.name,
                      m->rec.host, why);
}

static uint32_t find(struct mdc_decision *d, const char *what, uint32_t id, struct mdc_module **m)
{
    *m = mdc_module_by_id(d->state, id);
    if (*m != NULL)
        return STATUS_OK;
    return mdc_refuse(
        d, STATUS_NOT_FOUND,
        "cannot %s module %u: there is no such module; the list of modules shows those there are", what, id);
}

/* ---- a pool that holds volumes ---- */

/* Modules of the pool that take partitions, and what they hold in all. */
struct takers {
    uint32_t count;
    uint64_t capacity_bytes;
};

static struct takers takers_of(const struct mdc_state *s, const struct mdc_pool *pool)
{
    struct takers t = {.count = 0};
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        const struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0 || m->rec.pool != pool->rec.id || m->rec.draining || mdc_module_weight(m) == 0)
            continue;
        t.count++;
        t.capacity_bytes += m->capacity_bytes;
    }
    return t;
}

static uint64_t used_of(const struct mdc_state *s, const struct mdc_pool *pool)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        if (s->modules[i].rec.id != 0 && s->modules[i].rec.pool == pool->rec.id)
            used += s->modules[i].used_bytes;
    }
    return used;
}

/* *m was changed: do those who are left suffice for the copies that there are? */
static const char *too_few(const struct mdc_state *s, const struct mdc_pool *pool, struct mdc_module *m,
                           const struct record_module *before)
{
    const struct record_module after = m->rec;
    const struct takers now = takers_of(s, pool);
    m->rec = *before;
    const struct takers then = takers_of(s, pool);
    m->rec = after;
    if (now.count >= then.count)
        return NULL;
    if (now.count < min_u64(pool->rec.copies, then.count))
        return "too few modules of its pool would be left for the copies that the pool keeps; add another one first";
    if (used_of(s, pool) > now.capacity_bytes / 100 * 95)
        return "what its pool holds would not fit the others; add another one first";
    return NULL;
}

/* Copies that are to move, now that *m was changed. */
static uint32_t to_move(struct mdc_decision *d, const struct mdc_pool *pool, uint32_t *moves)
{
    struct mdc_sight g;
    int rc = mdc_sight_make(d->state, pool, d->now_ns, &g);
    if (rc == -EINVAL)
        return STATUS_INVALID;
    if (rc != 0)
        return STATUS_NO_MEMORY;
    *moves = g.result.moves;
    mdc_sight_free(&g);
    return STATUS_OK;
}

/*
 * What comes after a change of *m's record: the partitions of its pool are given anew. When they cannot be,
 * the record is put back.
 */
static uint32_t settle(struct mdc_decision *d, const char *what, struct mdc_module *m,
                       const struct record_module *before, struct mdc_pool *pool,
                       struct mdc_module_reply *rep)
{
    const bool data = pool != NULL && volume_of(d->state, pool) != NULL;
    const char *few = data ? too_few(d->state, pool, m, before) : NULL;
    uint32_t status = few != NULL ? STATUS_INVALID : STATUS_OK;
    if (few == NULL && pool != NULL)
        status = data ? to_move(d, pool, &rep->to_move) : place_anew(d, pool, &rep->moved);
    if (status != STATUS_OK) {
        m->rec = *before;
        const char *why = "out of memory";
        if (few != NULL)
            why = few;
        else if (status == STATUS_INVALID)
            why = "no other module of its pool could take its partitions";
        else if (status == STATUS_AGAIN)
            why =
                "not all modules of its pool were heard since this controller started; try again in a moment";
        return refuse(d, what, m, status, why);
    }
    mdc_tx_record(d->tx, TABLE_MODULE, m->rec.id - 1);
    mdc_module_describe(d->state, m, d->now_ns, &rep->module);
    return STATUS_OK;
}

/* ---- add ---- */

static uint32_t add_to(struct mdc_decision *d, const struct mdc_module_add_request *rq,
                       const struct mdc_module *m, struct mdc_pool **pool)
{
    struct mdc_state *s = d->state;
    uint32_t pools = 0;
    *pool = rq->pool[0] != 0 ? mdc_pool_by_name(s, rq->pool) : NULL;
    for (uint32_t i = 0; rq->pool[0] == 0 && i < s->limits.pools; i++) {
        if (s->pools[i].rec.id == 0)
            continue;
        *pool = &s->pools[i];
        pools++;
    }
    if (pools > 1)
        return refuse(d, "add", m, STATUS_INVALID, "there is more than one pool; name it");
    return *pool != NULL ? STATUS_OK : refuse(d, "add", m, STATUS_NOT_FOUND, "there is no such pool");
}

uint32_t mdc_op_module_add(struct mdc_decision *d, const struct mdc_module_add_request *rq,
                           struct mdc_module_reply *rep)
{
    struct mdc_module *m;
    struct mdc_pool *pool;
    uint32_t status = find(d, "add", rq->module, &m);
    if (status == STATUS_OK)
        status = add_to(d, rq, m, &pool);
    if (status != STATUS_OK)
        return status;
    if (m->rec.pool != 0)
        return refuse(d, "add", m, STATUS_BUSY,
                      m->rec.pool == pool->rec.id ? "it is in that pool" : "it is in another pool");
    if (m->damaged)
        return refuse(d, "add", m, STATUS_INVALID,
                      "its store is damaged; stop it, wipe its disk, and start it: it comes as a new module");
    if (!mdc_module_serves(m))
        return refuse(d, "add", m, STATUS_AGAIN, "it is not up; start it");
    if (m->rec.draining)
        return refuse(d, "add", m, STATUS_INVALID, "it is marked as draining; undo that first");
    const struct record_module before = m->rec;
    m->rec.pool = pool->rec.id;
    return settle(d, "add", m, &before, pool, rep);
}

/* ---- drain, reweight ---- */

uint32_t mdc_op_module_drain(struct mdc_decision *d, const struct mdc_module_drain_request *rq,
                             struct mdc_module_reply *rep)
{
    const char *what = rq->undo ? "undo the draining of" : "drain";
    struct mdc_module *m;
    uint32_t status = find(d, what, rq->module, &m);
    if (status != STATUS_OK)
        return status;
    struct mdc_pool *pool = mdc_pool_by_id(d->state, m->rec.pool);
    const struct record_module before = m->rec;
    m->rec.draining = !rq->undo;
    return settle(d, what, m, &before, pool, rep);
}

uint32_t mdc_op_module_reweight(struct mdc_decision *d, const struct mdc_module_reweight_request *rq,
                                struct mdc_module_reply *rep)
{
    struct mdc_module *m;
    uint32_t status = find(d, "reweight", rq->module, &m);
    if (status != STATUS_OK)
        return status;
    if (rq->weight_bytes > UINT32_MAX * MIB)
        return refuse(d, "reweight", m, STATUS_RANGE, "the weight is above 4 PiB");
    struct mdc_pool *pool = mdc_pool_by_id(d->state, m->rec.pool);
    const struct record_module before = m->rec;
    m->rec.weight_mib = (uint32_t)((rq->weight_bytes + MIB - 1) / MIB);
    return settle(d, "reweight", m, &before, pool, rep);
}

/* ---- remove ---- */

/* Out of its pool: it gives its partitions away and stays known. */
static uint32_t leave_pool(struct mdc_decision *d, struct mdc_module *m, struct mdc_pool *pool,
                           struct mdc_module_reply *rep)
{
    const struct record_module before = m->rec;
    if (volume_of(d->state, pool) != NULL && (m->partitions != 0 || m->leaving_blocks != 0)) {
        m->rec.draining = RECORD_REMOVING; /* the mover takes it out when it is empty */
        return settle(d, "remove", m, &before, pool, rep);
    }
    m->rec.pool = 0;
    m->rec.draining = 0;
    const bool asks = m->partitions != 0 || volume_of(d->state, pool) != NULL;
    uint32_t status = settle(d, "remove", m, &before, asks ? pool : NULL, rep);
    if (status == STATUS_OK)
        m->partitions = rep->module.partitions = 0;
    return status;
}

/* Out of the cluster: nothing is known of it any more. Its medium would come as a new one. */
static void forget(struct mdc_decision *d, struct mdc_module *m)
{
    char key[META_KEY_MAX];
    uint32_t index = m->rec.id - 1;
    record_key_module(key, m->rec.id);
    memset(m, 0, sizeof(*m));
    mdc_tx_key(d->tx, TX_DELETE, key);
    mdc_tx_forget(d->tx, TABLE_MODULE, index);
    mdc_tx_publish(d->tx, TABLE_MODULE, index);
}

uint32_t mdc_op_module_remove(struct mdc_decision *d, const struct mdc_module_request *rq,
                              struct mdc_module_reply *rep)
{
    struct mdc_module *m;
    uint32_t status = find(d, "remove", rq->module, &m);
    if (status != STATUS_OK)
        return status;
    struct mdc_pool *pool = mdc_pool_by_id(d->state, m->rec.pool);
    if (pool != NULL)
        return leave_pool(d, m, pool, rep);
    if (!m->down)
        return refuse(
            d, "remove", m, STATUS_BUSY,
            "it is in no pool, and not down: to make the cluster forget it, stop it, and try again when it is seen to be down");
    forget(d, m);
    return STATUS_OK;
}

/* ---- partition show ---- */

static uint32_t show_which(struct mdc_decision *d, const struct mdc_partition_show_request *rq,
                           struct mdc_pool **pool, uint32_t *p)
{
    struct mdc_state *s = d->state;
    uint32_t pools = 0;
    *p = rq->index;
    if (rq->volume[0] != 0) {
        const struct mdc_volume *v = mdc_volume_by_name(s, rq->volume);
        if (v == NULL)
            return mdc_refuse(d, STATUS_NOT_FOUND,
                              "cannot show a partition of volume \"%s\": there is no volume of that name",
                              rq->volume);
        if (rq->offset >= v->rec.size_bytes)
            return mdc_refuse(d, STATUS_RANGE,
                              "cannot show a partition of volume \"%s\": offset %" PRIu64
                              " is beyond its size, %" PRIu64 " bytes",
                              rq->volume, rq->offset, v->rec.size_bytes);
        *pool = mdc_pool_by_id(s, v->rec.pool);
        *p = placement_partition(placement_hash(v->rec.family, rq->offset / (*pool)->rec.stripe_bytes),
                                 (*pool)->rec.partitions);
        return STATUS_OK;
    }
    *pool = rq->pool[0] != 0 ? mdc_pool_by_name(s, rq->pool) : NULL;
    for (uint32_t i = 0; rq->pool[0] == 0 && i < s->limits.pools; i++) {
        if (s->pools[i].rec.id != 0 && pools++ == 0)
            *pool = &s->pools[i];
    }
    if (*pool == NULL || pools > 1)
        return mdc_refuse(
            d, STATUS_NOT_FOUND, "cannot show partition %u of pool \"%s\": %s", rq->index, rq->pool,
            pools > 1 ? "there is more than one pool; name it as POOL/INDEX" : "there is no such pool");
    if (rq->index >= (*pool)->rec.partitions)
        return mdc_refuse(d, STATUS_RANGE, "cannot show partition %u of pool \"%s\": it has %u partitions",
                          rq->index, (*pool)->rec.name, (*pool)->rec.partitions);
    return STATUS_OK;
}

static void show_member(struct mdc_decision *d, uint32_t member, const struct placement_reason *reason,
                        struct mdc_partition_member *out)
{
    const struct mdc_module *m = mdc_module_by_id(d->state, TABLE_MEMBER_ID(member));
    struct mdc_module_info info;
    out->module = TABLE_MEMBER_ID(member);
    out->in_sync = (member & TABLE_MEMBER_IN_SYNC) != 0;
    out->leaving = (member & TABLE_MEMBER_LEAVING) != 0;
    memcpy(out->why, reason->why, sizeof(out->why));
    _Static_assert(sizeof(out->why) == sizeof(reason->why), "the whole text");
    if (m == NULL)
        return;
    mdc_module_describe(d->state, m, d->now_ns, &info);
    out->state = info.state;
    memcpy(out->name, info.name, sizeof(out->name));
    memcpy(out->host, info.host, sizeof(out->host));
    memcpy(out->rack, info.rack, sizeof(out->rack));
}

/* The story of partition p; STATUS_OK or why not. */
static uint32_t tell(struct mdc_decision *d, const struct mdc_pool *pool, uint32_t p,
                     struct placement_story *story)
{
    struct mdc_layout l;
    if (mdc_layout_of_pool(d->state, pool, &l) != 0)
        return mdc_refuse(d, STATUS_NO_MEMORY, "cannot show partition %u: out of memory", p);
    struct placement_set *sets = mdc_sets_of(d->state, pool);
    struct placement_label *labels = calloc(l.count + 1, sizeof(*labels));
    int rc = -ENOMEM;
    if (sets != NULL && labels != NULL) {
        for (uint32_t i = 0; i < l.count; i++)
            labels[i] = (struct placement_label){.host = l.of[i]->rec.host, .rack = l.of[i]->rec.rack};
        rc = placement_explain(&l.rule, l.modules, labels, l.count, pool->rec.partitions, sets, p, story);
    }
    free(labels);
    free(sets);
    mdc_layout_free(&l);
    if (rc == 0)
        return STATUS_OK;
    return mdc_refuse(d, rc == -ENOMEM ? STATUS_NO_MEMORY : STATUS_INVALID, "cannot show partition %u: %s", p,
                      rc == -ENOMEM ? "out of memory" : "no module of its pool can take partitions");
}

/* What the mover is going to do to the partition. */
static void tell_moves(struct mdc_decision *d, const struct mdc_pool *pool, uint32_t p, char *out, size_t cap)
{
    const struct record_partition *r = &d->state->partitions[pool->rec.first_partition + p];
    struct mdc_sight g;
    size_t n = 0;
    if (mdc_sight_make(d->state, pool, d->now_ns, &g) != 0)
        return;
    const struct placement_set *wanted = &g.wanted[p];
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX && n < cap; k++) {
        const uint32_t id = TABLE_MEMBER_ID(r->members[k]), next = TABLE_MEMBER_ID(wanted->members[k]);
        if (next != 0 && !placement_set_has(&g.now[p], next))
            n += (size_t)snprintf(out + n, cap - n, "%smodule %u is to get a copy", n > 0 ? "\n" : "", next);
        if (id != 0 && n < cap && !(r->members[k] & TABLE_MEMBER_IN_SYNC) && placement_set_has(wanted, id))
            n += (size_t)snprintf(out + n, cap - n, "%smodule %u is being filled", n > 0 ? "\n" : "", id);
        if (id != 0 && n < cap && !placement_set_has(wanted, id))
            n += (size_t)snprintf(out + n, cap - n, "%smodule %u goes when the others are in sync",
                                  n > 0 ? "\n" : "", id);
    }
    mdc_sight_free(&g);
}

uint32_t mdc_op_partition_show(struct mdc_decision *d, const struct mdc_partition_show_request *rq,
                               struct mdc_partition_show_reply *rep)
{
    struct mdc_pool *pool = NULL;
    struct placement_story story;
    uint32_t p;
    uint32_t status = show_which(d, rq, &pool, &p);
    if (status == STATUS_OK)
        status = tell(d, pool, p, &story);
    if (status != STATUS_OK)
        return status;
    const struct record_partition *r = &d->state->partitions[pool->rec.first_partition + p];
    const uint32_t primary = mdc_partition_primary(r);
    const struct mdc_module *m = mdc_module_by_id(d->state, primary);
    memcpy(rep->pool, pool->rec.name, sizeof(rep->pool));
    rep->index = p;
    rep->epoch = r->epoch;
    const uint32_t index = pool->rec.first_partition + p;
    rep->served = m != NULL && mdc_module_answers(m) && mdc_settle_serves(d->state, index);
    (void)mdc_settle_explain(d->state, index, rep->waits, sizeof(rep->waits));
    memcpy(rep->rule, story.rule, sizeof(rep->rule));
    tell_moves(d, pool, p, rep->moves, sizeof(rep->moves));
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        if (r->members[k] == 0)
            continue;
        struct mdc_partition_member *out = &rep->members[rep->member_count];
        show_member(d, r->members[k], &story.member[rep->member_count++], out);
        out->primary = out->module == primary;
        if (out->in_sync)
            continue;
        const struct mdc_progress progress = mdc_partition_progress(d->state, index, out->module);
        out->recover_left = progress.left;
        out->recover_done = progress.done;
        out->recover_s = progress.seconds;
    }
    return STATUS_OK;
}
