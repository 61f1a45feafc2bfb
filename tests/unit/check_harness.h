/* check_harness.h: runs a check over the devices of a store_harness world, and keeps what it found. */
#ifndef CISTERN_TESTS_CHECK_HARNESS_H
#define CISTERN_TESTS_CHECK_HARNESS_H

#include "tests/unit/store_harness.h"

#include "services/rwm/store_check.h"

#define FINDINGS_KEPT 64

struct checked {
    struct world *w;
    struct store_check *check;
    const struct store_check_report *r;
    struct store_finding found[FINDINGS_KEPT];
    unsigned count; /* of found; more than FINDINGS_KEPT are counted only */
    unsigned progress;
    uint64_t stop_after; /* requests; 0 = never */
    uint64_t asked;
};

static inline int check_pump(void *arg)
{
    struct checked *k = arg;
    unsigned n = device_ram_pump(k->w->data, 8);
    if (k->w->journal)
        n += device_ram_pump(k->w->journal, 8);
    return n == 0 && world_crashed(k->w) ? -1 : 0;
}

static inline void check_collect(void *arg, const struct store_finding *f)
{
    struct checked *k = arg;
    if (k->count < FINDINGS_KEPT)
        k->found[k->count] = *f;
    k->count++;
}

static inline bool check_stop(void *arg)
{
    struct checked *k = arg;
    return k->stop_after && ++k->asked > k->stop_after;
}

/* As store_check_run; checked_end when done with it. */
static inline int checked_run(struct checked *k, struct world *w, bool data, uint64_t stop_after,
                              uint64_t from_entry)
{
    *k = (struct checked){.w = w, .stop_after = stop_after};
    struct store_check_options o = {.data = data,
                                    .from_entry = from_entry,
                                    .found = check_collect,
                                    .stop = check_stop,
                                    .wait = check_pump,
                                    .arg = k};
    int rc = store_check_run(&w->env, w->data, w->journal, &o, &k->check);
    k->r = store_check_report(k->check);
    return rc;
}

static inline void checked_end(struct checked *k)
{
    store_check_free(k->check);
    k->check = NULL;
}

static inline void checked_print(const struct checked *k)
{
    for (unsigned i = 0; i < k->count && i < FINDINGS_KEPT; i++)
        printf("  %s: %s\n", store_finding_name(k->found[i].kind), k->found[i].text);
    fflush(stdout);
}

/* The n-th finding of the kind; NULL when there are fewer. */
static inline const struct store_finding *checked_find(const struct checked *k, enum store_finding_kind kind,
                                                       unsigned n)
{
    for (unsigned i = 0; i < k->count && i < FINDINGS_KEPT; i++) {
        if (k->found[i].kind == kind && n-- == 0)
            return &k->found[i];
    }
    return NULL;
}

/* How many findings are worse than normal. */
static inline uint64_t checked_wrong(const struct checked *k)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < STORE_FINDINGS; i++) {
        if (store_finding_level(i) > STORE_LEVEL_NOTE)
            n += k->r->counts[i];
    }
    return n;
}

#endif
