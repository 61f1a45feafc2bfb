/*
 * placement_work.h: what the files of the placement share: the modules as a tree (racks, hosts, modules, each
 * a run of the next), the slots (partition, copy), and how full everything is.
 */
#ifndef CISTERN_SERVICES_MDC_PLACEMENT_WORK_H
#define CISTERN_SERVICES_MDC_PLACEMENT_WORK_H

#include "services/mdc/placement.h"

#define PW_NONE  UINT32_MAX
#define PW_HUB   (UINT32_MAX - 1) /* in a path, for a slot: see placement_flow.c */
#define PW_FRAC  24u              /* bits of a share behind the point */
#define PW_COPY  (1ull << PW_FRAC)
#define PW_LEVEL 16u /* distances the search tells apart: -4 .. 10, and none */

/* One module that can take copies. Sorted by rack, host, id. */
struct pw_module {
    uint32_t id, rack, host; /* rack, host: dense numbers */
    uint32_t weight;         /* scaled: the heaviest has its top bit set */
    uint32_t floor, ceil;    /* of its share */
    uint32_t quota;          /* floor or ceil: what the greedy part brings it to */
    uint32_t load;           /* copies it has now */
    uint64_t share;          /* in 1 / PW_COPY copies */
    /* the search: see placement_flow.c */
    uint32_t head;                   /* first slot it holds */
    uint32_t cursor;                 /* slot to try next */
    uint32_t level_next, level_prev; /* in its list of level and rack */
    int8_t level;                    /* PW_NONE_LEVEL ... */
    bool listed, queued;
};
struct pw_run {
    uint32_t first, count; /* hosts of a rack, or modules of a host */
    uint32_t cap;          /* most copies of one partition in it */
    uint32_t total_cap;    /* most copies in it: cap * partitions */
    uint32_t used;         /* while quotas are given */
};
struct pw_slot {
    uint32_t module; /* index, or PW_NONE */
    uint32_t next, prev;
};
struct pw {
    struct placement_rule rule;
    uint32_t partitions, copies; /* copies: of each partition, as many as there can be */
    uint32_t count, hosts, racks;
    uint32_t extra;      /* copies above the floors of all: so many modules get their ceiling */
    uint32_t extra_used; /* modules that have it at present */
    struct pw_module *m;
    struct pw_run *host, *rack;
    uint32_t *by_id;      /* indexes of m, sorted by id */
    struct pw_slot *slot; /* partition * copies + k */
    uint32_t *old;        /* partition * TABLE_MEMBERS_MAX + k: index of m, or PW_NONE */
    uint64_t *fenwick;
    uint32_t *order, *position; /* of the modules, while they are drawn from */
    /* the search */
    int8_t *root_level;                            /* of each partition */
    bool *busy;                                    /* of each partition: on the path */
    uint32_t *queue;                               /* ring of count + 1 */
    uint32_t *stack, *stack_slot;                  /* the path */
    uint32_t *list_head;                           /* [level][rack] */
    uint32_t *rack_next, *rack_prev, *level_first; /* [level][rack]; racks that have modules on it */
    uint64_t random;
    void *memory;
};

/* placement_tree.c */
/* Sorts the modules, finds the limits of the rule. Memory for `partitions` slots; 0, -EINVAL, -ENOMEM. */
int pw_create(const struct placement_rule *rule, const struct placement_module *modules, uint32_t count,
              uint32_t partitions, struct pw *w);
void pw_destroy(struct pw *w);
void pw_describe(const struct pw *w, struct placement_result *out);
/* Index of the module, or PW_NONE. */
uint32_t pw_find(const struct pw *w, uint32_t id);
/* Shares and floors. */
void pw_shares(struct pw *w);
/* Quotas of modules by their shares; load says what each has at present. */
void pw_quotas(struct pw *w);
/* A number that looks random and is always the same; below bound. */
uint64_t pw_random(struct pw *w, uint64_t bound);

/* May partition p take module u beside its members other than the one in slot `without` (PW_NONE: all)? */
bool pw_fits(const struct pw *w, uint32_t p, uint32_t without, uint32_t u);
bool pw_is_old(const struct pw *w, uint32_t p, uint32_t u);
/* Is it to give a copy away, or to get one? Floors and ceilings bind, and the number of modules at the
 * latter. */
bool pw_gives(const struct pw *w, const struct pw_module *m);
bool pw_takes(const struct pw *w, const struct pw_module *m);
/* Puts module u (PW_NONE: nobody) into the slot. */
void pw_set(struct pw *w, uint32_t slot, uint32_t u);

/* placement_fill.c: the greedy part. */
/* Every partition from nothing. */
void pw_fill_empty(struct pw *w);
/* Free slots and what is too much, as far as it goes at once. */
void pw_fill_greedy(struct pw *w);
/* Free slots that are left get whatever fits. */
void pw_fill_rest(struct pw *w);

/* placement_flow.c */
/* Moves copies along shortest paths until every module has its floor or ceiling. zero_only: only what costs
 * nothing. */
void pw_balance(struct pw *w, bool zero_only);

#endif
