/* loop_metrics.h: the figures of a loop, for metrics. */
#ifndef CISTERN_COMMON_LOOP_METRICS_H
#define CISTERN_COMMON_LOOP_METRICS_H

#include "common/loop.h"
#include "common/metrics.h"

struct loop_figures {
#define METRIC METRICS_FIELD
#include "common/loop_metrics.def"
#undef METRIC
};
extern const struct metrics_group loop_metrics_group;
/* Adds them to the snapshot. On the loop's thread. */
void loop_metrics(const struct loop *loop, struct metrics_snapshot *out);

#endif
