/* ops_pool.c: pools are made of modules, and given back. */
#include "services/mdc/ops_place.h"

#include "rdma/fabric.h"

#include <stdlib.h>
#include <string.h>

static uint32_t refuse_create(struct mdc_decision *d, const struct mdc_pool_create_request *rq,
                              uint32_t status, const char *why)
{
    return mdc_refuse(d, status, "cannot create pool \"%s\": %s", rq->name, why);
}

/* ---- choosing the modules ---- */

/* The modules named in the request, checked; *count of them into chosen. */
static uint32_t choose_named(struct mdc_decision *d, const struct mdc_pool_create_request *rq,
                             struct mdc_module **chosen, uint32_t *count)
{
    for (uint32_t i = 0; i < rq->module_count; i++) {
        uint32_t id = rq->modules[i];
        struct mdc_module *m = mdc_module_by_id(d->state, id);
        if (m == NULL)
            return mdc_refuse(
                d, STATUS_NOT_FOUND,
                "cannot create pool \"%s\": there is no module %u; the list of modules shows those there are",
                rq->name, id);
        for (uint32_t k = 0; k < i; k++) {
            if (chosen[k] == m)
                return mdc_refuse(d, STATUS_INVALID, "cannot create pool \"%s\": module %u is named twice",
                                  rq->name, id);
        }
        if (m->rec.pool != 0)
            return mdc_refuse(
                d, STATUS_BUSY,
                "cannot create pool \"%s\": module %u (%s of %s) is in pool \"%s\" already; choose another",
                rq->name, id, m->rec.name, m->rec.host, d->state->pools[m->rec.pool - 1].rec.name);
        if (m->rec.draining)
            return mdc_refuse(
                d, STATUS_INVALID,
                "cannot create pool \"%s\": module %u (%s of %s) is marked as draining; undo that, or leave it out",
                rq->name, id, m->rec.name, m->rec.host);
        if (!mdc_module_serves(m))
            return mdc_refuse(
                d, STATUS_AGAIN,
                "cannot create pool \"%s\": module %u (%s of %s) is %s; start it, or leave it out", rq->name,
                id, m->rec.name, m->rec.host, m->damaged ? "damaged" : "down");
        chosen[i] = m;
    }
    *count = rq->module_count;
    return STATUS_OK;
}

static uint32_t choose_all(struct mdc_decision *d, const struct mdc_pool_create_request *rq,
                           struct mdc_module **chosen, uint32_t *count)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->state->limits.modules; i++) {
        struct mdc_module *m = &d->state->modules[i];
        if (m->rec.id != 0 && m->rec.pool == 0 && !m->rec.draining && mdc_module_serves(m) &&
            n < ARRAY_LEN(rq->modules))
            chosen[n++] = m;
    }
    if (n == 0)
        return refuse_create(d, rq, STATUS_NOT_FOUND,
                             "no module that is up is free of a pool; start modules first, or name them");
    *count = n;
    return STATUS_OK;
}

/* ---- room in the table ---- */

static uint32_t free_pool_id(struct mdc_state *s)
{
    for (uint32_t i = 0; i < s->limits.pools; i++) {
        uint32_t id = (s->counters.next_pool - 1 + i) % s->limits.pools + 1;
        if (s->pools[id - 1].rec.id == 0)
            return id;
    }
    return 0;
}

/* First index of a free run of count partition records; UINT32_MAX = none. */
static uint32_t free_partitions(const struct mdc_state *s, uint32_t count)
{
    uint32_t run = 0;
    for (uint32_t i = 0; i < s->limits.partitions; i++) {
        run = s->partition_pool[i] == 0 ? run + 1 : 0;
        if (run == count)
            return i + 1 - count;
    }
    return UINT32_MAX;
}

/* ---- making ---- */

static uint32_t check_shape(struct mdc_decision *d, const struct mdc_pool_create_request *rq)
{
    if (!mdc_name_valid(rq->name))
        return refuse_create(
            d, rq, STATUS_INVALID,
            "that is not a valid name: use up to 63 letters, digits, dots, dashes and underscores, the first a "
            "letter, digit or underscore");
    if (rq->copies > PLACEMENT_COPIES_MAX)
        return refuse_create(d, rq, STATUS_INVALID, "the number of copies must be from 1 to 7");
    if (rq->min_copies > (rq->copies != 0 ? rq->copies : 1))
        return refuse_create(d, rq, STATUS_INVALID, "it cannot need more copies than it has");
    if (rq->partitions != 0 && (!is_pow2(rq->partitions) || rq->partitions > PARTITIONS_MAX))
        return refuse_create(d, rq, STATUS_INVALID,
                             "the number of partitions must be a power of two, at most 65536");
    if (rq->stripe_bytes != 0 && (!is_pow2(rq->stripe_bytes) || rq->stripe_bytes < BLOCK_BYTES ||
                                  rq->stripe_bytes > FABRIC_PAYLOAD_MAX))
        return refuse_create(d, rq, STATUS_INVALID,
                             "the stripe must be a power of two from 128 KiB to 4 MiB");
    if (mdc_pool_by_name(d->state, rq->name) != NULL)
        return refuse_create(d, rq, STATUS_EXISTS, "there is a pool of that name; choose another");
    return STATUS_OK;
}

static uint8_t slowest_media(struct mdc_module *const *chosen, uint32_t count)
{
    uint8_t media = chosen[0]->rec.media;
    for (uint32_t i = 0; i < count; i++) {
        if (chosen[i]->rec.media == TABLE_MEDIA_HDD || chosen[i]->rec.media == TABLE_MEDIA_SAN)
            return chosen[i]->rec.media;
        if (chosen[i]->rec.media == TABLE_MEDIA_SSD)
            media = TABLE_MEDIA_SSD;
    }
    return media;
}

/* Gives the pool's partitions to its modules, under epochs above all seen. */
static void fill_pool(struct mdc_decision *d, struct mdc_pool *pool, struct mdc_module *const *chosen,
                      uint32_t count, const struct placement_set *sets)
{
    struct mdc_state *s = d->state;
    uint64_t epoch = ++s->counters.highest_epoch;
    for (uint32_t i = 0; i < pool->rec.partitions; i++) {
        uint32_t index = pool->rec.first_partition + i;
        s->partition_pool[index] = pool->rec.id;
        s->partitions[index] = (struct record_partition){.epoch = epoch};
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX && sets[i].members[k] != 0; k++)
            s->partitions[index].members[k] = sets[i].members[k];
        mdc_tx_record(d->tx, TABLE_PARTITION, index);
    }
    for (uint32_t i = 0; i < count; i++) {
        chosen[i]->rec.pool = pool->rec.id;
        mdc_tx_record(d->tx, TABLE_MODULE, chosen[i]->rec.id - 1);
    }
    mdc_pool_count_partitions(s, pool);
    mdc_tx_record(d->tx, TABLE_POOL, pool->rec.id - 1);
    s->counters.next_pool = pool->rec.id + 1;
    mdc_tx_counters(d->tx);
}

/* Members of each partition, malloc'ed. */
static uint32_t place(struct mdc_decision *d, const struct mdc_pool_create_request *rq,
                      struct mdc_module *const *chosen, uint32_t count, const struct record_pool *rec,
                      struct placement_set **sets)
{
    struct mdc_layout l;
    int rc = mdc_layout_make(chosen, count, rec->copies, &l);
    *sets = calloc(rec->partitions, sizeof(**sets));
    if (rc == 0) {
        rc = *sets != NULL ? mdc_place_empty(&l, rec->partitions, NULL, *sets) : -ENOMEM;
        mdc_layout_free(&l);
    }
    if (rc == 0)
        return STATUS_OK;
    free(*sets);
    if (rc == -EINVAL)
        return refuse_create(d, rq, STATUS_INVALID, "none of its modules has any capacity");
    return refuse_create(d, rq, STATUS_NO_MEMORY, "out of memory");
}

uint32_t mdc_op_pool_create(struct mdc_decision *d, const struct mdc_pool_create_request *rq,
                            struct mdc_pool_reply *rep)
{
    struct mdc_state *s = d->state;
    struct mdc_module *chosen[ARRAY_LEN(rq->modules)];
    uint32_t count = 0;
    uint32_t status = check_shape(d, rq);
    if (status == STATUS_OK)
        status =
            rq->module_count != 0 ? choose_named(d, rq, chosen, &count) : choose_all(d, rq, chosen, &count);
    if (status != STATUS_OK)
        return status;
    uint8_t media = slowest_media(chosen, count);
    bool slow = media == TABLE_MEDIA_HDD || media == TABLE_MEDIA_SAN;
    struct record_pool rec = {.id = free_pool_id(s),
                              .copies = rq->copies != 0 ? rq->copies : 1,
                              .min_copies = rq->min_copies != 0 ? rq->min_copies : 1,
                              .media = media};
    rec.partitions = rq->partitions != 0 ? rq->partitions : placement_partitions_default(count);
    rec.stripe_bytes = rq->stripe_bytes != 0 ? rq->stripe_bytes : (uint32_t)(slow ? 4 * MIB : MIB);
    rec.first_partition = free_partitions(s, rec.partitions);
    memcpy(rec.name, rq->name, sizeof(rec.name));
    if (rec.id == 0)
        return refuse_create(d, rq, STATUS_NO_SPACE,
                             "the configured limit of pools is reached; raise max-pools of the MDC");
    if (rec.first_partition == UINT32_MAX)
        return refuse_create(
            d, rq, STATUS_NO_SPACE,
            "there is no room for its partitions; ask for fewer, or raise max-partitions of the MDC");
    struct placement_set *sets;
    status = place(d, rq, chosen, count, &rec, &sets);
    if (status != STATUS_OK)
        return status;
    struct mdc_pool *pool = &s->pools[rec.id - 1];
    pool->rec = rec;
    fill_pool(d, pool, chosen, count, sets);
    free(sets);
    mdc_pool_describe(s, pool, &rep->pool);
    return STATUS_OK;
}

/* ---- more partitions ---- */

/*
 * Nothing may be on its way: each module is to begin anew with the new number, and what one of them still has
 * of partitions that it left would be looked for in the wrong ones. NULL: nothing is.
 */
static const char *restless(struct mdc_decision *d, const struct mdc_pool *pool)
{
    struct mdc_state *s = d->state;
    if (mdc_tx_publishes(d->tx))
        return "something was decided just now that its modules have not heard of; try again in a moment";
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        const struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0 || m->rec.pool != pool->rec.id)
            continue;
        if (!mdc_module_alive(m))
            return "not all of its modules are up; start them, or take them out";
        if (m->leaving_blocks != 0 || m->applied_term != s->term || m->applied_version < s->version)
            return "one of its modules still removes what it had of partitions that it left, or has not taken over the latest changes; try again in a moment";
    }
    for (uint32_t i = 0; i < pool->rec.partitions; i++) {
        const uint32_t *members = s->partitions[pool->rec.first_partition + i].members;
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
            if (members[k] != 0 &&
                (members[k] & (TABLE_MEMBER_IN_SYNC | TABLE_MEMBER_LEAVING)) != TABLE_MEMBER_IN_SYNC)
                return "copies of it are moving, or are not in sync; try again when they are at rest";
        }
    }
    return NULL;
}

/* Room for so many records in one run: where the present ones are, if those behind them are free. */
static uint32_t grown_place(const struct mdc_state *s, const struct mdc_pool *pool, uint32_t partitions)
{
    const uint32_t first = pool->rec.first_partition;
    bool here = partitions <= s->limits.partitions && first <= s->limits.partitions - partitions;
    for (uint32_t i = pool->rec.partitions; here && i < partitions; i++)
        here = s->partition_pool[first + i] == 0;
    return here ? first : free_partitions(s, partitions);
}

/* Partition p becomes all those that end in its bits, with its members, under one new epoch. */
static void split(struct mdc_decision *d, struct mdc_pool *pool, uint32_t first, uint32_t partitions,
                  const struct placement_set *sets)
{
    struct mdc_state *s = d->state;
    const uint32_t old_first = pool->rec.first_partition, old = pool->rec.partitions;
    const uint64_t epoch = ++s->counters.highest_epoch;
    for (uint32_t i = 0; first != old_first && i < old; i++) {
        s->partition_pool[old_first + i] = 0;
        s->partitions[old_first + i] = (struct record_partition){0};
    }
    for (uint32_t i = 0; i < partitions; i++) {
        s->partition_pool[first + i] = pool->rec.id;
        s->partitions[first + i] = (struct record_partition){.epoch = epoch};
        memcpy(s->partitions[first + i].members, sets[i].members, sizeof(sets[i].members));
        mdc_tx_record(d->tx, TABLE_PARTITION, first + i);
    }
    pool->rec.partitions = partitions;
    pool->rec.first_partition = first;
    mdc_tx_record(d->tx, TABLE_POOL, pool->rec.id - 1);
    for (uint32_t i = 0; first != old_first && i < old; i++)
        mdc_tx_publish(d->tx, TABLE_PARTITION, old_first + i);
    mdc_tx_counters(d->tx);
    mdc_pool_count_partitions(s, pool);
}

static uint32_t refuse_grow(struct mdc_decision *d, const struct mdc_pool_grow_request *rq, uint32_t status,
                            const char *why)
{
    return mdc_refuse(d, status, "cannot give pool \"%s\" more partitions: %s", rq->name, why);
}

uint32_t mdc_op_pool_grow(struct mdc_decision *d, const struct mdc_pool_grow_request *rq,
                          struct mdc_pool_reply *rep)
{
    struct mdc_state *s = d->state;
    struct mdc_pool *pool = mdc_pool_by_name(s, rq->name);
    if (pool == NULL)
        return refuse_grow(d, rq, STATUS_NOT_FOUND, "there is no pool of that name");
    const uint32_t partitions = rq->partitions != 0 ? rq->partitions : 2 * pool->rec.partitions;
    if (!is_pow2(partitions) || partitions <= pool->rec.partitions || partitions > PARTITIONS_MAX)
        return refuse_grow(d, rq, STATUS_INVALID,
                           "the number must be a power of two above the present one, at most 65536");
    if (mdc_unheard(d, pool->rec.id) != NULL)
        return refuse_grow(d, rq, STATUS_AGAIN,
                           "not all of its modules were heard yet; try again in a moment");
    const char *why = restless(d, pool);
    if (why != NULL)
        return refuse_grow(d, rq, STATUS_AGAIN, why);
    const uint32_t first = grown_place(s, pool, partitions);
    if (first == UINT32_MAX)
        return refuse_grow(d, rq, STATUS_NO_SPACE,
                           "there is no room for so many; raise max-partitions of the MDC");
    struct placement_set *sets = calloc(partitions, sizeof(*sets));
    if (sets == NULL)
        return refuse_grow(d, rq, STATUS_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < pool->rec.partitions; i++)
        memcpy(sets[i].members, s->partitions[pool->rec.first_partition + i].members,
               sizeof(sets[i].members));
    for (uint32_t n = pool->rec.partitions; n < partitions; n *= 2)
        placement_split(sets, n, sets);
    split(d, pool, first, partitions, sets);
    free(sets);
    mdc_pool_describe(s, pool, &rep->pool);
    return STATUS_OK;
}

/* ---- deleting ---- */

static void drop_pool(struct mdc_decision *d, struct mdc_pool *pool)
{
    struct mdc_state *s = d->state;
    char key[META_KEY_MAX];
    uint32_t id = pool->rec.id;
    mdc_tx_publish(d->tx, TABLE_POOL, id - 1); /* first: it makes the partitions unreachable */
    record_key_pool(key, id);
    mdc_tx_key(d->tx, TX_DELETE, key);
    mdc_tx_forget(d->tx, TABLE_POOL, id - 1);
    for (uint32_t i = 0; i < pool->rec.partitions; i++) {
        uint32_t index = pool->rec.first_partition + i;
        if (i % PARTITION_CHUNK == 0) {
            record_key_partitions(key, id, i / PARTITION_CHUNK);
            mdc_tx_key(d->tx, TX_DELETE, key);
        }
        s->partition_pool[index] = 0;
        mdc_settle_forget(s, index);
        s->partitions[index] = (struct record_partition){0};
        mdc_tx_forget(d->tx, TABLE_PARTITION, index);
        mdc_tx_publish(d->tx, TABLE_PARTITION, index);
    }
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        struct mdc_module *m = &s->modules[i];
        if (m->rec.id != 0 && m->rec.pool == id) {
            m->rec.pool = 0;
            if (m->rec.draining == RECORD_REMOVING)
                m->rec.draining = 0;
            m->partitions = 0;
            mdc_tx_record(d->tx, TABLE_MODULE, i);
        }
    }
    memset(pool, 0, sizeof(*pool));
}

uint32_t mdc_op_pool_delete(struct mdc_decision *d, const struct mdc_name_request *rq, struct mdc_empty *rep)
{
    (void)rep;
    struct mdc_state *s = d->state;
    struct mdc_pool *pool = mdc_pool_by_name(s, rq->name);
    if (pool == NULL)
        return mdc_refuse(d, STATUS_NOT_FOUND, "cannot delete pool \"%s\": there is no pool of that name",
                          rq->name);
    for (uint32_t i = 0; i < s->volume_top; i++) {
        const struct record_volume *v = &s->volumes[i].rec;
        if (uuid_is_zero(&v->id) || v->pool != pool->rec.id)
            continue;
        if (v->state == TABLE_VOLUME_DELETING)
            return mdc_refuse(
                d, STATUS_BUSY,
                "cannot delete pool \"%s\": its volume \"%s\" is still being removed; try again when that is done",
                rq->name, v->name);
        return mdc_refuse(d, STATUS_BUSY,
                          "cannot delete pool \"%s\": it holds volumes (\"%s\" is one); delete them first",
                          rq->name, v->name);
    }
    drop_pool(d, pool);
    return STATUS_OK;
}
