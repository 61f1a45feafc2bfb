/*
 * slots.h: a table from ids that a peer may name to objects of ours: slot number in the low half of the id,
 * use count of the slot in the high half, so an old id finds nothing. Ids are never 0. Zeroed memory is an
 * empty table.
 */
#ifndef CISTERN_RDMA_SLOTS_H
#define CISTERN_RDMA_SLOTS_H

#include "common/base.h"

struct slot {
    void *object; /* NULL = free */
    uint32_t use, next_free;
};
struct slots {
    struct slot *slot;
    uint32_t size, free_head, used;
};
/* 0 or -ENOMEM (the table grows by doubling). */
int slots_take(struct slots *s, void *object, uint64_t *id);
/* NULL for an id that is not in use: safe with what a peer sent. */
void *slots_find(const struct slots *s, uint64_t id);
/* id must be in use. */
void slots_put(struct slots *s, uint64_t id);
void slots_free(struct slots *s);

#endif
