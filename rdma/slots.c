/* slots.c: see the header. */
#include "rdma/slots.h"

#include <stdlib.h>
#include <string.h>

#define SLOT_NONE UINT32_MAX

static int slots_grow(struct slots *s)
{
    uint32_t size = s->size ? s->size * 2 : 16;
    struct slot *slot = realloc(s->slot, size * sizeof(*slot));
    if (!slot)
        return -ENOMEM;
    for (uint32_t i = s->size; i < size; i++) {
        slot[i].object = NULL;
        slot[i].use = 0;
        slot[i].next_free = i + 1 < size ? i + 1 : SLOT_NONE;
    }
    s->slot = slot;
    s->free_head = s->size;
    s->size = size;
    return 0;
}

int slots_take(struct slots *s, void *object, uint64_t *id)
{
    if (s->used == s->size) {
        int rc = slots_grow(s);
        if (rc)
            return rc;
    }
    uint32_t i = s->free_head;
    struct slot *slot = &s->slot[i];
    s->free_head = slot->next_free;
    s->used++;
    slot->object = object;
    slot->use = slot->use == UINT32_MAX ? 1 : slot->use + 1;
    *id = (uint64_t)slot->use << 32 | i;
    return 0;
}

void *slots_find(const struct slots *s, uint64_t id)
{
    uint32_t i = (uint32_t)id;
    if (i >= s->size || s->slot[i].use != id >> 32)
        return NULL;
    return s->slot[i].object;
}

void slots_put(struct slots *s, uint64_t id)
{
    MUST(slots_find(s, id) != NULL);
    uint32_t i = (uint32_t)id;
    s->slot[i].object = NULL;
    s->slot[i].next_free = s->free_head;
    s->free_head = i;
    s->used--;
}

void slots_free(struct slots *s)
{
    free(s->slot);
    memset(s, 0, sizeof(*s));
}
