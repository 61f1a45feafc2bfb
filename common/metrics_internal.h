/* metrics_internal.h: the inside of a snapshot, for metrics.c and metrics_text.c. */
#ifndef CISTERN_COMMON_METRICS_INTERNAL_H
#define CISTERN_COMMON_METRICS_INTERNAL_H

#include "common/list.h"
#include "common/metrics.h"

struct metrics_entry {
    struct list link;
    const struct metrics_group *group;
    char labels[METRICS_LABELS_MAX];
    _Alignas(16) unsigned char figures[];
};
struct metrics_snapshot {
    struct list entries; /* in order of adding */
    size_t count;
    char why[METRICS_WHY_MAX], remarks[METRICS_WHY_MAX];
};

#endif
