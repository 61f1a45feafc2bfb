/* ops_place.h: what pools, and the operations on modules, ask the placement for. */
#ifndef CISTERN_SERVICES_MDC_OPS_PLACE_H
#define CISTERN_SERVICES_MDC_OPS_PLACE_H

#include "services/mdc/ops.h"
#include "services/mdc/placement.h"

/* The modules of a pool as the placement wants them. */
struct mdc_layout {
    struct placement_rule rule;
    struct placement_module *modules;
    struct mdc_module **of; /* each's module */
    uint32_t count;
};
/* Of the chosen modules, for a pool of that many copies. Freed by mdc_layout_free. 0 or -ENOMEM. */
int mdc_layout_make(struct mdc_module *const *chosen, uint32_t count, uint8_t copies, struct mdc_layout *out);
/* Of the pool's modules. */
int mdc_layout_of_pool(struct mdc_state *s, const struct mdc_pool *pool, struct mdc_layout *out);
void mdc_layout_free(struct mdc_layout *l);
/* The members of the pool's partitions, malloc'ed; NULL: no memory. */
struct placement_set *mdc_sets_of(const struct mdc_state *s, const struct mdc_pool *pool);
/*
 * The members of a pool without data: all of them in sync, and their primaries spread, so that none is handed
 * over once somebody waits for it. old: the present ones, or NULL; sets may be old. As placement_assign.
 */
int mdc_place_empty(const struct mdc_layout *l, uint32_t partitions, const struct placement_set *old,
                    struct placement_set *sets);

/* A pool as it is and as the placement wants it. */
struct mdc_sight {
    struct mdc_layout layout; /* with modules that are away */
    bool *silent;             /* of its modules: does not answer at present */
    struct placement_set *now, *wanted;
    struct placement_result result;
};
/* 0; -EINVAL: no module can take anything; -ENOMEM. Freed by mdc_sight_free. */
int mdc_sight_make(struct mdc_state *s, const struct mdc_pool *pool, uint64_t now_ns, struct mdc_sight *out);
void mdc_sight_free(struct mdc_sight *g);

#endif
