/*
 * placement.h: which modules hold the copies of which partition. Pure functions: the same modules, rule and
 * present members give the same answer, in whatever order the modules are listed; no clock, no chance, no
 * state. The table is the truth: nothing is computed from names or numbers by those who read or write data.
 *
 *   placement_assign     the members that a pool's partitions should have, the fewest copies moved
 *   placement_primaries  who of a partition's in-sync members is its primary: cheap to change, no data moves
 *   placement_plan       (placement_plan.h) which changes of members to begin now, so that data keeps its
 * copies placement_split      twice as many partitions placement_explain    why a member is where it is, in
 * words
 *
 * The domain rule. Copies go to as many racks as there are copies; with fewer racks, to as many hosts; with
 * fewer hosts, to as many modules. Where one level does not suffice its copies are still spread as evenly as
 * it allows: three copies over two racks are never all in one.
 *
 * The share of a module is its part of all copies by weight, as far as the domain rule lets it have them (of
 * three racks with three copies each rack has a third, whatever it weighs); what it cannot have goes to the
 * others by weight. Each module gets its share rounded up or down.
 */
#ifndef CISTERN_SERVICES_MDC_PLACEMENT_H
#define CISTERN_SERVICES_MDC_PLACEMENT_H

#include "common/base.h"
#include "common/table/table.h"

/* One place of a partition's record stays free for a copy that is on its way. */
#define PLACEMENT_COPIES_MAX     (TABLE_MEMBERS_MAX - 1u)
#define PLACEMENT_MODULES_MAX    16384u
#define PLACEMENT_PARTITIONS_MAX 65536u

/* Coarser is higher. */
enum placement_domain { PLACEMENT_MODULE = 0, PLACEMENT_HOST = 1, PLACEMENT_RACK = 2 };
enum placement_state {
    PLACEMENT_UP = 0,       /* also while it is away for a short time */
    PLACEMENT_DRAINING = 1, /* gets nothing, what it holds is to leave, and may be read meanwhile */
    PLACEMENT_AWAY = 2,     /* away for longer than the setting: its copies are to be made elsewhere */
};
struct placement_module {
    uint32_t id;     /* in 1 .. 2^24 - 1, no two alike */
    uint64_t weight; /* capacity in bytes, or what was set instead; 0 = as DRAINING */
    uint32_t host;   /* any number that stands for its host */
    uint32_t rack;   /* and for its rack; the modules of one host count as in the rack of the lowest id */
    uint8_t state;   /* enum placement_state */
};
struct placement_rule {
    uint8_t copies; /* 1 .. PLACEMENT_COPIES_MAX */
    uint8_t domain; /* enum placement_domain: the coarsest level to keep copies apart on */
};
/* The members of one partition as in struct table_partition: id and TABLE_MEMBER_* flags, 0 = none. */
struct placement_set {
    uint32_t members[TABLE_MEMBERS_MAX];
};
/* What the rule comes to with these modules. */
struct placement_result {
    uint8_t copies;        /* of each partition: fewer than asked for when there are fewer modules */
    uint8_t domain;        /* enum placement_domain: no two copies share one of these */
    uint8_t per_rack;      /* most copies of a partition in one rack */
    uint8_t per_host;      /* and on one host */
    bool degraded;         /* fewer copies, or kept less far apart, than the rule says */
    uint32_t racks, hosts; /* that can take copies */
    uint32_t modules;      /* that can take copies */
    uint32_t moves;        /* copies that the new members do not hold yet */
    uint32_t unbalanced;   /* copies by which modules miss their quota: 0, by all that is known */
};

/*
 * The members that the partitions should have. old: the present ones (id 0 and ids of modules not listed are
 * nobody; members marked TABLE_MEMBER_LEAVING count as held, but not as wanted), or NULL for none. out: the
 * new ones, unmarked but for TABLE_MEMBER_IN_SYNC, which stays with those that had it; who stays keeps its
 * order, the new ones follow. out may be old.
 *
 * Each module gets its share rounded up or down, and no answer for which that holds moves fewer copies than
 * this one (tests compare with a general minimum-cost flow). Carrying out any part of the answer and asking
 * again moves no more in all. 0; -EINVAL: no module that can take anything, one listed twice, a number out of
 * range, a partition that names a module twice; -ENOMEM. One allocation, of a size that depends on the three
 * counts alone.
 */
int placement_assign(const struct placement_rule *rule, const struct placement_module *modules,
                     uint32_t count, uint32_t partitions, const struct placement_set *old,
                     struct placement_set *out, struct placement_result *result);

/* The share of each module (in the order given) in 1/1000 copies, 0 for those that get nothing. As
 * placement_assign, without partitions to look at. */
int placement_shares(const struct placement_rule *rule, const struct placement_module *modules,
                     uint32_t count, uint32_t partitions, uint64_t *share_milli,
                     struct placement_result *result);

/*
 * Orders the members of each partition so that primaries are spread: a module that holds in-sync copies of
 * partitions with n in-sync members each is primary of one n-th of them, rounded up or down. Only in-sync
 * members of the listed modules that are not AWAY count, and those that are not LEAVING or DRAINING go before
 * those that are. A partition that has no such member stays as it is. Primaries change only where that is
 * needed; *changed (may be NULL) = how many did. 0, -EINVAL, -ENOMEM.
 */
int placement_primaries(const struct placement_module *modules, uint32_t count, uint32_t partitions,
                        struct placement_set *sets, uint32_t *changed);

/*
 * Twice as many partitions: partition p becomes p and p + partitions, both with the members of p; since a
 * partition is the low bits of a hash, each takes what it takes from p and from nowhere else. out has
 * 2 * partitions entries and may be the array of sets itself. Balance may move members afterwards.
 */
void placement_split(const struct placement_set *sets, uint32_t partitions, struct placement_set *out);

/* Number of partitions of a pool when none is given: a power of two, at least 32 a module, in 64 .. 4096. */
uint32_t placement_partitions_default(uint32_t modules);

static inline bool placement_set_has(const struct placement_set *s, uint32_t id)
{
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        if (id != 0 && TABLE_MEMBER_ID(s->members[k]) == id)
            return true;
    }
    return false;
}
/* The first member that is in sync, 0 = none. */
uint32_t placement_set_primary(const struct placement_set *s);

#endif
