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

#endif
