/* metrics_process.h: what the system knows of this process, for metrics. */
#ifndef CISTERN_COMMON_METRICS_PROCESS_H
#define CISTERN_COMMON_METRICS_PROCESS_H

#include "common/metrics.h"

struct process_figures {
#define METRIC METRICS_FIELD
#include "common/process_metrics.def"
#undef METRIC
};
extern const struct metrics_group process_metrics_group;
/* Adds them, with the labels of cistern_build_info. Reads files of /proc: not on a loop. */
void metrics_process(struct metrics_snapshot *out, const char *build_labels);
extern const struct metrics_group build_metrics_group;

#endif
