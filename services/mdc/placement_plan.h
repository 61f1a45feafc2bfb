/*
 * placement_plan.h: from the present members to those that placement_assign wants, a few changes at a time,
 * so that each partition keeps its copies:
 *   - a new member JOINs not in sync, beside those that are there, and takes over the copy of one of them,
 *     which is marked TABLE_MEMBER_LEAVING;
 *   - nobody LEAVEs before all the members that are wanted are in sync and answer;
 *   - no module takes part in more than so many copies on their way at once, as the one that gets it or as
 * the primary that sends it. Partitions with the fewest copies come first. Each change is a new epoch of its
 * partition, committed before it is published; "in sync" is said by the caller, in the set.
 *
 * Nothing is remembered between calls: present members, modules and rule say all. So a plan may be carried
 * out in part, the modules may change, and the next call goes on from what is there. What is wanted is asked
 * for anew each time (members that leave are known by their mark), and no copy moves twice because of that.
 */
#ifndef CISTERN_SERVICES_MDC_PLACEMENT_PLAN_H
#define CISTERN_SERVICES_MDC_PLACEMENT_PLAN_H

#include "services/mdc/placement.h"

enum placement_change_kind {
    PLACEMENT_JOIN =
        1, /* module becomes a member, not in sync; `instead` (0 = nobody) is marked as leaving */
    PLACEMENT_LEAVE = 2, /* module is a member no more */
    PLACEMENT_STAY = 3,  /* module, marked as leaving, is wanted after all */
};
struct placement_change {
    uint32_t partition;
    uint32_t module, instead;
    uint8_t kind; /* enum placement_change_kind */
};
struct placement_limits {
    uint32_t per_module; /* copies on their way that one module takes part in */
    uint32_t total;      /* in all */
};
struct placement_progress {
    uint32_t changes; /* written */
    uint32_t moving;  /* wanted members that are there and not in sync */
    uint32_t waiting; /* wanted members that are not there yet, after these changes */
    uint32_t leaving; /* members not wanted that are still there, after these changes */
    uint32_t stuck;   /* partitions that want a member and have no in-sync member that answers */
};

/*
 * The changes to begin now, at most `capacity` of them into `out` (the next call gives the rest). silent[i]
 * (may be NULL) tells that modules[i] does not answer at present: nothing is begun with it and its copies do
 * not count when another is to leave. wanted: as placement_assign gave it for `now` and these modules. 0;
 * -EINVAL: as placement_assign; -ENOMEM.
 */
int placement_plan(const struct placement_module *modules, const bool *silent, uint32_t count,
                   uint32_t partitions, const struct placement_set *now, const struct placement_set *wanted,
                   const struct placement_limits *limits, struct placement_change *out, uint32_t capacity,
                   struct placement_progress *progress);
/* What the change makes of its partition's members. A change that does not fit any more leaves them as they
 * are. */
void placement_apply(const struct placement_change *change, struct placement_set *set);

#endif
