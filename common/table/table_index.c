/* table_index.c: from a volume's id to its record: an open hash table beside the region, at most half full.
 */
#include "common/table/table.h"
#include "common/table/table_private.h"

#include <stdlib.h>
#include <string.h>

/* Ids are random, but a volume id may also be a hostile one: then lookups get slow, not wrong. */
static inline uint32_t slot_of(const struct table *t, const struct uuid *id)
{
    uint64_t a, b;
    memcpy(&a, id->b, sizeof(a));
    memcpy(&b, id->b + sizeof(a), sizeof(b));
    return (uint32_t)placement_hash(a, b) & (t->volume_index_size - 1);
}

static const struct table_volume *volume_record(const struct table *t, uint32_t index)
{
    return table_record(t, TABLE_VOLUME, index);
}

void table_index_insert(struct table *t, uint32_t index)
{
    uint32_t slot = slot_of(t, &volume_record(t, index)->id);
    while (t->volume_index[slot] != 0)
        slot = (slot + 1) & (t->volume_index_size - 1);
    t->volume_index[slot] = index + 1;
}

int table_index(struct table *t)
{
    const struct table_section *s = &table_head(t)->section[TABLE_VOLUME];
    uint64_t size = 16;
    while (size < 2ull * s->capacity)
        size *= 2;
    if (size > UINT32_MAX)
        return -ENOMEM;
    if (t->volume_index == NULL || t->volume_index_size != size) {
        uint32_t *slots = malloc(size * sizeof(*slots));
        if (slots == NULL)
            return -ENOMEM;
        free(t->volume_index);
        t->volume_index = slots;
        t->volume_index_size = (uint32_t)size;
    }
    memset(t->volume_index, 0, size * sizeof(*t->volume_index));
    for (uint32_t i = 0; i < s->used; i++)
        if (!uuid_is_zero(&volume_record(t, i)->id))
            table_index_insert(t, i);
    return 0;
}

void table_index_free(struct table *t)
{
    free(t->volume_index);
    t->volume_index = NULL;
    t->volume_index_size = 0;
}

static const struct table_volume *volume_scan(const struct table *t, const struct uuid *id)
{
    const struct table_section *s = &table_head(t)->section[TABLE_VOLUME];
    for (uint32_t i = 0; i < s->used; i++)
        if (uuid_eq(&volume_record(t, i)->id, id))
            return volume_record(t, i);
    return NULL;
}

const struct table_volume *table_volume_by_id(const struct table *t, const struct uuid *id)
{
    if (uuid_is_zero(id))
        return NULL;
    if (t->volume_index == NULL)
        return volume_scan(t, id);
    for (uint32_t slot = slot_of(t, id); t->volume_index[slot] != 0;
         slot = (slot + 1) & (t->volume_index_size - 1)) {
        const struct table_volume *v = volume_record(t, t->volume_index[slot] - 1);
        if (uuid_eq(&v->id, id))
            return v;
    }
    return NULL;
}
