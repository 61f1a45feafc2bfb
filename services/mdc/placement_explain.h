/* placement_explain.h: why the members of a partition are where they are, in words for the operator. */
#ifndef CISTERN_SERVICES_MDC_PLACEMENT_EXPLAIN_H
#define CISTERN_SERVICES_MDC_PLACEMENT_EXPLAIN_H

#include "services/mdc/placement.h"

#define PLACEMENT_WHY_BYTES 224

struct placement_label { /* of a module: names as users know them; rack may be "" */
    const char *host, *rack;
};
struct placement_reason {
    uint32_t module;
    char why[PLACEMENT_WHY_BYTES]; /* what it is here, how far it is kept from the others, how full it is */
};
struct placement_story {
    char rule[PLACEMENT_WHY_BYTES]; /* what the rule asks for, and what these modules allow */
    uint32_t count;
    struct placement_reason member[TABLE_MEMBERS_MAX]; /* in the partition's order */
};

/*
 * Of partition p of a pool. labels: of modules, in their order. A member that is not among the modules is
 * said to be unknown. 0; -EINVAL: as placement_assign, or p out of range; -ENOMEM.
 */
int placement_explain(const struct placement_rule *rule, const struct placement_module *modules,
                      const struct placement_label *labels, uint32_t count, uint32_t partitions,
                      const struct placement_set *sets, uint32_t p, struct placement_story *out);

#endif
