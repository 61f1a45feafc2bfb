/*
 * placement.h: which module gets which partition. A pure function: the same members and the same old
 * assignment give the same answer, in whatever order the members are listed.
 */
#ifndef CISTERN_SERVICES_MDC_PLACEMENT_H
#define CISTERN_SERVICES_MDC_PLACEMENT_H

#include "common/base.h"

struct placement_member {
    uint32_t id;     /* > 0, no two alike */
    uint64_t weight; /* capacity in bytes; 0 = gets nothing */
};
/*
 * Gives each of the partitions to one member. Quotas are the exact shares by weight, rounded by largest
 * remainder (among equal remainders to who holds more already, then to the lower id), so each member gets the
 * floor or the ceiling of its share. old (may be NULL) is the present assignment, 0 or the id of nobody
 * listed = unassigned: a partition stays where it is as long as its holder is within its quota, so no other
 * assignment with these quotas moves fewer. out has partitions entries. 0; -EINVAL: no member with weight, or
 * a member listed twice; -ENOMEM.
 */
int placement_assign(const struct placement_member *members, uint32_t count, uint32_t partitions,
                     const uint32_t *old, uint32_t *out);
/* Number of partitions of a pool when none is given: a power of two, at least 32 a module, in 64 .. 4096. */
uint32_t placement_partitions_default(uint32_t modules);

#endif
