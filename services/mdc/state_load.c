/*
 * state_load.c: the store's records become the state. Each record was checked alone by record_open; here it
 * is checked against those that came before it (keys sort so that what is referred to comes first).
 */
#include "services/mdc/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct load {
    struct mdc_state *s;
    char *why; /* 256 bytes */
    bool format, counters;
    uint8_t record[META_VALUE_MAX] __attribute__((aligned(8)));
};

static const char *load_pool(struct mdc_state *s, const struct record_pool *r, int *rc)
{
    if (r->id > s->limits.pools || r->partitions > s->limits.partitions ||
        r->first_partition > s->limits.partitions - r->partitions) {
        *rc = -ENOSPC;
        return "the store holds more pools or partitions than the configured limits";
    }
    if (mdc_pool_by_name(s, r->name) != NULL)
        return "two pools have one name";
    for (uint32_t i = 0; i < r->partitions; i++) {
        if (s->partition_pool[r->first_partition + i] != 0)
            return "two pools overlap";
        s->partition_pool[r->first_partition + i] = r->id;
    }
    s->pools[r->id - 1].rec = *r;
    return NULL;
}

static const char *load_module(struct mdc_state *s, const struct record_module *r, int *rc)
{
    if (r->id > s->limits.modules) {
        *rc = -ENOSPC;
        return "the store holds more modules than the configured limit";
    }
    if (mdc_module_by_store(s, &r->store) != NULL)
        return "two modules have one store";
    if (r->pool != 0 && mdc_pool_by_id(s, r->pool) == NULL)
        return "a module is in a pool that is not there";
    struct mdc_module *m = &s->modules[r->id - 1];
    m->rec = *r;
    m->capacity_bytes = r->capacity_bytes;
    return NULL;
}

static const char *load_partitions(struct mdc_state *s, const struct record_partitions *r)
{
    const struct mdc_pool *pool = mdc_pool_by_id(s, r->pool);
    if (pool == NULL || r->chunk > pool->rec.partitions / PARTITION_CHUNK)
        return "partitions of a pool that is not there";
    uint32_t first = r->chunk * PARTITION_CHUNK;
    if (first >= pool->rec.partitions || r->count != min_u64(PARTITION_CHUNK, pool->rec.partitions - first))
        return "a partition record has a wrong count";
    for (uint32_t i = 0; i < r->count; i++) {
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
            const struct mdc_module *m = mdc_module_by_id(s, TABLE_MEMBER_ID(r->items[i].members[k]));
            if (r->items[i].members[k] != 0 && (m == NULL || m->rec.pool != r->pool))
                return "a partition's member is not a module of its pool";
        }
        s->partitions[pool->rec.first_partition + first + i] = r->items[i];
    }
    return NULL;
}

static const char *load_volume(struct mdc_state *s, const struct record_volume *r, int *rc)
{
    if (mdc_pool_by_id(s, r->pool) == NULL)
        return "a volume is in a pool that is not there";
    if (r->layer >= s->counters.next_layer || r->family >= s->counters.next_layer)
        return "a volume's layer was never given";
    if (r->state != TABLE_VOLUME_DELETING && mdc_volume_by_name(s, r->name) != NULL)
        return "two volumes have one name";
    if (mdc_volume_by_id(s, &r->id) != NULL)
        return "two volumes have one id";
    struct mdc_volume *v = mdc_volume_add(s, r);
    if (v == NULL) {
        *rc = -ENOSPC;
        return "the store holds more volumes than the configured limit";
    }
    v->fence_unpublished = r->generation > 1;
    v->floor = r->generation;
    s->volumes_pending += r->state != TABLE_VOLUME_READY;
    return NULL;
}

static const char *load_attachment(struct mdc_state *s, const struct record_attachment *r, int *rc)
{
    struct mdc_volume *v = mdc_volume_by_id(s, &r->volume);
    if (v == NULL || v->rec.state == TABLE_VOLUME_DELETING)
        return "an attachment of a volume that is not there";
    if (mdc_attachment_add(s, NULL, v, r) == NULL) {
        *rc = -ENOMEM;
        return "out of memory";
    }
    return NULL;
}

static const char *load_one(struct load *l, enum record_kind kind, int *rc)
{
    struct mdc_state *s = l->s;
    *rc = -EBADMSG;
    if (kind == RECORD_FORMAT_ID) {
        l->format = true;
        memcpy(&s->cluster, &((const struct record_format *)(void *)l->record)->cluster, sizeof(s->cluster));
        return uuid_is_zero(&s->cluster) ? "the cluster id is zero" : NULL;
    }
    if (!l->format) {
        *rc = -EMEDIUMTYPE;
        return "not a store of this program: it has no format record";
    }
    if (kind != RECORD_COUNTERS && !l->counters)
        return "the counters are missing";
    switch (kind) {
    case RECORD_COUNTERS:
        l->counters = true;
        memcpy(&s->counters, l->record, sizeof(s->counters));
        s->turn_next = s->counters.turn_limit;
        s->loaded.generation = s->counters.highest_generation;
        s->loaded.turn = s->counters.turn_limit - 1;
        return NULL;
    case RECORD_POOL:
        return load_pool(s, (const void *)l->record, rc);
    case RECORD_MODULE:
        return load_module(s, (const void *)l->record, rc);
    case RECORD_PARTITIONS:
        return load_partitions(s, (const void *)l->record);
    case RECORD_VOLUME:
        return load_volume(s, (const void *)l->record, rc);
    case RECORD_ATTACHMENT:
        return load_attachment(s, (const void *)l->record, rc);
    case RECORD_FORMAT_ID:
        break;
    }
    return "a record of an unknown kind";
}

static int load_record(void *arg, const char *key, const void *value, size_t len)
{
    struct load *l = arg;
    enum record_kind kind;
    const char *wrong;
    int rc = len <= sizeof(l->record) ? record_open(key, value, len, &kind, l->record, &wrong) : -EBADMSG;
    if (len > sizeof(l->record))
        wrong = "it is too long";
    if (rc == 0)
        wrong = load_one(l, kind, &rc);
    else if (!l->format && rc == -EBADMSG && strcmp(key, RECORD_KEY_FORMAT) != 0)
        rc = -EMEDIUMTYPE;
    if (wrong == NULL)
        return 0;
    snprintf(l->why, 256, "record \"%.60s\": %s", key, wrong);
    return rc;
}

/* What a missing record would leave behind. */
static const char *state_incomplete(struct mdc_state *s)
{
    for (uint32_t i = 0; i < s->limits.pools; i++) {
        const struct record_pool *p = &s->pools[i].rec;
        for (uint32_t k = 0; p->id != 0 && k < p->partitions; k++) {
            if (s->partitions[p->first_partition + k].epoch == 0)
                return "partitions of a pool are missing";
        }
    }
    return NULL;
}

int mdc_state_load(struct mdc_state *s, struct meta_store *meta, char *why)
{
    struct load *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return -ENOMEM;
    l->s = s;
    l->why = why;
    why[0] = 0;
    int rc = meta_load(meta, load_record, l);
    const char *wrong = NULL;
    if (rc == 0 && l->format && !l->counters)
        wrong = "the counters are missing";
    if (rc == 0 && wrong == NULL)
        wrong = state_incomplete(s);
    if (wrong != NULL) {
        snprintf(why, 256, "%s", wrong);
        rc = -EBADMSG;
    } else if (rc != 0 && why[0] == 0) {
        snprintf(why, 256, "it cannot be read: %s", strerror(-rc));
    }
    for (uint32_t i = 0; rc == 0 && i < s->limits.pools; i++) {
        if (s->pools[i].rec.id != 0)
            mdc_pool_count_partitions(s, &s->pools[i]);
    }
    if (rc == 0)
        mdc_settle_begin(s);
    free(l);
    return rc;
}
