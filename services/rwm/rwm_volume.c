/*
 * rwm_volume.c: the module's durable copy of the volume records, and what of it is in force.
 *
 * A record only moves forward: never to a lower generation, never to a smaller size in one generation, never
 * from DELETING back, whatever a table says.
 *
 * A volume that is gone from a later version of the table that its record came from was deleted. One that is
 * gone from a table of another term is kept: a controller lets no volume go before its modules have accepted
 * DELETING, so this one has lost its memory (its store was put back from an old copy), and what it does not
 * know is not to be destroyed for that.
 *
 * What is refused for being older than what was accepted is told to the controller, which then goes above;
 * until it has, nothing is confirmed: a confirmation means that what the table says is in force.
 */
#include "services/rwm/rwm_internal.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct rwm_volume_extra) <= sizeof(((struct store_volume_record *)0)->reserved),
               "it has to fit the reserved bytes");

static const struct store_volume_record *record_at(const struct rwm *m, uint32_t index)
{
    return rwm_record(m, STORE_VOLUME, index);
}

static struct rwm_volume_extra extra_get(const struct store_volume_record *rec)
{
    struct rwm_volume_extra extra;
    memcpy(&extra, rec->reserved, sizeof(extra));
    return extra;
}

static void extra_set(struct store_volume_record *rec, const struct rwm_volume_extra *extra)
{
    memset(rec->reserved, 0, sizeof(rec->reserved));
    memcpy(rec->reserved, extra, sizeof(*extra));
}

static uint64_t cut_bytes_of(const struct store_volume_record *rec)
{
    uint64_t bytes = extra_get(rec).cut_bytes;
    return bytes != 0 ? bytes : rec->size_bytes;
}

static struct list *volume_bucket(const struct rwm *m, const struct uuid *id)
{
    uint64_t v;
    memcpy(&v, id->b, sizeof(v));
    return &m->volume_buckets[(v * 0x9e3779b97f4a7c15ull >> 32) & (RWM_VOLUME_BUCKETS - 1)];
}

static struct list *layer_bucket(const struct rwm *m, uint64_t layer)
{
    return &m->layer_buckets[(layer * 0x9e3779b97f4a7c15ull >> 32) & (RWM_VOLUME_BUCKETS - 1)];
}

struct rwm_volume *rwm_volume_of_layer(const struct rwm *m, uint64_t layer)
{
    struct list *bucket = layer_bucket(m, layer);
    list_for_each(n, bucket)
    {
        struct rwm_volume *v = list_entry(n, struct rwm_volume, layer_link);
        if (v->layer == layer)
            return v;
    }
    return NULL;
}

struct rwm_volume *rwm_volume_find(const struct rwm *m, const struct uuid *id)
{
    struct list *bucket = volume_bucket(m, id);
    list_for_each(n, bucket)
    {
        struct rwm_volume *v = list_entry(n, struct rwm_volume, hash_link);
        if (uuid_eq(&v->id, id))
            return v;
    }
    return NULL;
}

static uint32_t volume_index(const struct rwm *m, const struct rwm_volume *v)
{
    return (uint32_t)(v - m->volumes);
}

static void volume_enter(struct rwm *m, uint32_t index, const struct uuid *id)
{
    struct rwm_volume *v = &m->volumes[index];
    *v = (struct rwm_volume){.id = *id};
    list_init(&v->remove_link);
    list_init(&v->layer_link);
    list_push_back(volume_bucket(m, id), &v->hash_link);
}

static void note_highest(struct rwm *m, const struct store_volume_record *rec)
{
    m->highest_layer = max_u64(m->highest_layer, max_u64(rec->layer, rec->parent_layer));
    m->highest_generation = max_u64(m->highest_generation, rec->generation);
}

int rwm_volumes_load(struct rwm *m)
{
    m->volume_capacity = store_record_capacity(m->store, STORE_VOLUME);
    m->volumes = calloc((size_t)m->volume_capacity + 1, sizeof(*m->volumes));
    m->volume_buckets = calloc(RWM_VOLUME_BUCKETS, sizeof(*m->volume_buckets));
    m->layer_buckets = calloc(RWM_VOLUME_BUCKETS, sizeof(*m->layer_buckets));
    if (!m->volumes || !m->volume_buckets || !m->layer_buckets)
        return -ENOMEM;
    for (unsigned i = 0; i < RWM_VOLUME_BUCKETS; i++) {
        list_init(&m->volume_buckets[i]);
        list_init(&m->layer_buckets[i]);
    }
    for (uint32_t i = 0; i < m->volume_capacity; i++) {
        const struct store_volume_record *rec = record_at(m, i);
        list_init(&m->volumes[i].hash_link);
        list_init(&m->volumes[i].remove_link);
        list_init(&m->volumes[i].layer_link);
        if (uuid_is_zero(&rec->id))
            continue;
        volume_enter(m, i, &rec->id);
        m->volumes[i].turn_floor = extra_get(rec).turn_floor;
        m->volumes[i].dirty = true; /* in force with the first table */
        note_highest(m, rec);
    }
    return 0;
}

static uint32_t volume_free_index(const struct rwm *m)
{
    uint32_t i = 0;
    while (i < m->volume_capacity && !uuid_is_zero(&m->volumes[i].id))
        i++;
    return i;
}

static int volume_set(struct rwm *m, uint32_t index, const struct store_volume_record *rec,
                      struct rwm_record_op *op, bool *set)
{
    int rc = store_record_set(m->store, &op->op, STORE_VOLUME, index, rec);
    if (rc)
        return rc;
    *set = true;
    m->volumes[index].dirty = true;
    note_highest(m, rec);
    return 0;
}

static void volume_complain(struct rwm *m, struct rwm_volume *v, const char *what)
{
    char id[33];
    if (v->complained)
        return;
    v->complained = true;
    uuid_format(&v->id, id);
    log_error(m->env, "the metadata controller's table is older than what this module has accepted",
              "module=%u volume=%s %s", m->id, id, what);
}

/* The table has an older record of it: the controller's store was put back from an old copy. */
static void volume_ahead(struct rwm *m, struct rwm_volume *v, uint64_t generation, const char *what)
{
    struct rwm_member *b = &m->member;
    volume_complain(m, v, what);
    m->apply.incomplete = true;
    if (b->ahead_count < MDC_AHEAD_MAX)
        b->ahead[b->ahead_count++] = (struct mdc_ahead){.volume = v->id, .generation = generation};
}

/* The volume, but this one, that has the layer: its blocks would be taken for this one's. */
static struct rwm_volume *layer_owner(struct rwm *m, const struct table_volume *t,
                                      const struct rwm_volume *mine)
{
    if (t->layer > m->highest_layer)
        return NULL;
    for (uint32_t i = 0; i < m->volume_capacity; i++) {
        struct rwm_volume *v = &m->volumes[i];
        if (v != mine && !uuid_is_zero(&v->id) && record_at(m, i)->layer == t->layer)
            return v;
    }
    return NULL;
}

/* Is v a step forward from the record? */
static bool volume_newer(struct rwm *m, struct rwm_volume *mine, const struct store_volume_record *rec,
                         const struct table_volume *v)
{
    bool moved = rec->pool != v->pool || rec->layer != v->layer || rec->parent_layer != v->parent_layer ||
                 rec->family != v->family;
    bool same = rec->generation == v->generation && rec->size_bytes == v->size_bytes &&
                rec->state == v->state && rec->resized_generation == v->resized_generation && !moved;
    if (same)
        return false;
    if (v->generation < rec->generation) {
        volume_ahead(m, mine, rec->generation, "refused=lower-generation");
        return false;
    }
    if (rec->state == TABLE_VOLUME_DELETING && v->state != TABLE_VOLUME_DELETING) {
        volume_complain(m, mine,
                        "refused=undelete"); /* nobody can write to it here: no harm in a confirmation */
        return false;
    }
    if (v->generation == rec->generation && (v->size_bytes < rec->size_bytes || moved)) {
        volume_ahead(m, mine, rec->generation, "refused=changed-in-one-generation");
        return false;
    }
    return true;
}

int rwm_volume_stage(struct rwm *m, const struct table *t, const struct table_volume *v,
                     struct rwm_record_op *op, bool *set)
{
    struct rwm_volume *mine = rwm_volume_find(m, &v->id);
    uint32_t index = mine ? volume_index(m, mine) : volume_free_index(m);
    struct rwm_volume_extra extra = {.cleaned_generation =
                                         v->resized_generation, /* new here: nothing to cut */
                                     .table_term = table_head(t)->term,
                                     .cut_bytes = v->size_bytes};
    *set = false;
    if (mine) {
        const struct store_volume_record *old = record_at(m, index);
        if (!volume_newer(m, mine, old, v))
            return 0;
        extra.cleaned_generation = extra_get(old).cleaned_generation;
        extra.turn_floor = extra_get(old).turn_floor;
        extra.cut_bytes =
            v->resized_generation != old->resized_generation ? v->size_bytes : cut_bytes_of(old);
    } else if (v->state == TABLE_VOLUME_DELETING) {
        return 0; /* never was here, or all of it has been removed */
    } else if (index == m->volume_capacity) {
        m->apply.incomplete = true;
        if (log_allow(m->env, &m->log_limit))
            log_error(m->env, "no room for another volume record", "module=%u records=%u", m->id,
                      m->volume_capacity);
        return 0;
    }
    struct rwm_volume *other = layer_owner(m, v, mine);
    if (other) {
        m->apply.incomplete = true;
        volume_complain(m, other, "refused=another-volume-of-its-layer");
        return 0;
    }
    struct store_volume_record rec;
    memset(&rec, 0, sizeof(rec));
    rec.id = v->id;
    rec.family = v->family;
    rec.layer = v->layer;
    rec.parent_layer = v->parent_layer;
    rec.generation = v->generation;
    rec.size_bytes = v->size_bytes;
    rec.resized_generation = v->resized_generation;
    rec.table_version = v->record_version;
    rec.pool = v->pool;
    rec.state = v->state;
    extra_set(&rec, &extra);
    if (!mine)
        volume_enter(m, index, &v->id);
    int rc = volume_set(m, index, &rec, op, set);
    if (rc && !mine) {
        list_remove(&m->volumes[index].hash_link);
        m->volumes[index].id = (struct uuid){{0}};
    }
    return rc;
}

int rwm_volume_stage_gone(struct rwm *m, const struct table *t, uint32_t index, struct rwm_record_op *op,
                          bool *set)
{
    struct rwm_volume *v = &m->volumes[index];
    *set = false;
    if (uuid_is_zero(&v->id) || table_volume_by_id(t, &v->id) != NULL)
        return 0;
    struct store_volume_record rec = *record_at(m, index);
    const struct table_header *h = table_head(t);
    if (rec.state == TABLE_VOLUME_DELETING)
        return v->swept ? rwm_volume_removed(m, v) : 0;
    if (h->term != extra_get(&rec).table_term || h->version <= rec.table_version) {
        volume_complain(m, v, "missing=volume (its data is kept)");
        return 0;
    }
    rec.state = TABLE_VOLUME_DELETING;
    return volume_set(m, index, &rec, op, set);
}

bool rwm_volume_wants_removal(const struct rwm *m, const struct rwm_volume *v)
{
    const struct store_volume_record *rec = record_at(m, volume_index(m, v));
    if (!v->in_force)
        return false;
    return v->state == TABLE_VOLUME_DELETING || v->resized_generation > extra_get(rec).cleaned_generation;
}

void rwm_volumes_force(struct rwm *m)
{
    for (uint32_t i = 0; i < m->volume_capacity; i++) {
        struct rwm_volume *v = &m->volumes[i];
        if (!v->dirty)
            continue;
        const struct store_volume_record *rec = record_at(m, i);
        v->dirty = false;
        v->in_force = true;
        v->family = rec->family;
        v->layer = rec->layer;
        v->parent_layer = rec->parent_layer;
        v->generation = rec->generation;
        v->size_bytes = rec->size_bytes;
        v->state = rec->state;
        v->resized_generation = rec->resized_generation;
        v->cut_bytes = cut_bytes_of(rec);
        list_remove(&v->layer_link);
        list_push_back(layer_bucket(m, v->layer), &v->layer_link);
        v->cut_done = false;
        if (!list_unlinked(&v->remove_link))
            m->remove.dirty = true;
    }
}

uint64_t rwm_volume_cuts(const struct rwm *m, uint64_t layer)
{
    const struct rwm_volume *v = rwm_volume_of_layer(m, layer);
    if (!v)
        return UINT64_MAX;
    uint64_t done = extra_get(record_at(m, volume_index(m, v))).cleaned_generation;
    /* With nothing to be cut the generation itself: a controller whose store was put back may know of no
     * shrink. */
    return rwm_volume_wants_removal(m, v) ? done : max_u64(done, v->generation);
}

static uint64_t blocks_of(uint64_t bytes)
{
    return (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
}

bool rwm_volume_beyond(const struct rwm *m, const struct store_key *key)
{
    const struct rwm_volume *v = rwm_volume_of_layer(m, key->layer);
    return v && key->block >= blocks_of(v->size_bytes);
}

/* A copy of the table may have records that are newer than the copy as a whole. */
bool rwm_volume_nobodys(const struct rwm *m, uint32_t partition, const struct store_key *key)
{
    const struct table *t = m->cluster ? cluster_table(m->cluster) : NULL;
    const struct table_pool *pool = t ? table_pool_by_id(t, m->pool_id) : NULL;
    const struct table_partition *p = pool ? table_partition_at(t, pool, partition) : NULL;
    return rwm_volume_beyond(m, key) && p && p->epoch == m->parts[partition].epoch &&
           table_head(t)->term == m->force_term && p->record_version <= m->force_version;
}

/*
 * The sender has not heard of the shrink, or has not done with it; nobody can have grown the volume and
 * written there since, for a grow waits until all modules have. That one is in force here by now does not
 * matter: what was sent may have been on its way for long.
 */
bool rwm_volume_cut_off(const struct rwm *m, const struct store_key *key, uint64_t cuts)
{
    const struct rwm_volume *v = rwm_volume_of_layer(m, key->layer);
    return v && cuts < v->resized_generation && key->block >= blocks_of(v->cut_bytes);
}

void rwm_volume_stored(struct rwm *m, const struct store_key *key, uint64_t cuts)
{
    struct rwm_volume *v = rwm_volume_of_layer(m, key->layer);
    if (v && cuts < v->resized_generation && v->state != TABLE_VOLUME_DELETING &&
        v->size_bytes == v->cut_bytes && v->cut_bytes % BLOCK_BYTES != 0 &&
        key->block == v->cut_bytes / BLOCK_BYTES)
        rwm_remove_cut_again(m, v);
}

int rwm_volume_set_turn_floor(struct rwm *m, struct rwm_volume *v, uint64_t turn)
{
    uint32_t index = volume_index(m, v);
    struct store_volume_record rec = *record_at(m, index);
    struct rwm_volume_extra extra = extra_get(&rec);
    if (extra.turn_floor >= turn)
        return 0;
    extra.turn_floor = turn;
    extra_set(&rec, &extra);
    int rc = store_record_set(m->store, NULL, STORE_VOLUME, index, &rec);
    if (rc == 0) {
        v->turn_floor = turn;
        m->turn_serial++;
    }
    return rc;
}

int rwm_volume_removed(struct rwm *m, struct rwm_volume *v)
{
    uint32_t index = volume_index(m, v);
    struct store_volume_record rec = *record_at(m, index);
    if (v->state != TABLE_VOLUME_DELETING) {
        struct rwm_volume_extra extra = extra_get(&rec);
        extra.cleaned_generation = v->resized_generation;
        extra_set(&rec, &extra);
        return store_record_set(m->store, NULL, STORE_VOLUME, index, &rec);
    }
    int rc = rwm_turns_forget(m, &v->id);
    if (rc)
        return rc;
    memset(&rec, 0, sizeof(rec));
    rc = store_record_set(m->store, NULL, STORE_VOLUME, index, &rec);
    if (rc)
        return rc;
    list_remove(&v->hash_link);
    list_remove(&v->layer_link);
    list_remove(&v->remove_link);
    *v = (struct rwm_volume){0};
    list_init(&v->hash_link);
    list_init(&v->layer_link);
    list_init(&v->remove_link);
    return 0;
}
