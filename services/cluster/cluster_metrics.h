/* cluster_metrics.h: what a service knows of the metadata controller and its table, for metrics and
 * readiness.
 */
#ifndef CISTERN_SERVICES_CLUSTER_METRICS_H
#define CISTERN_SERVICES_CLUSTER_METRICS_H

#include "common/metrics.h"
#include "services/cluster/cluster.h"

struct cluster_figures {
#define METRIC METRICS_FIELD
#include "services/cluster/cluster_metrics.def"
#undef METRIC
};
extern const struct metrics_group cluster_metrics_group;

void cluster_metrics(const struct cluster *c, const char *labels, struct metrics_snapshot *out);
/*
 * Not ready without a table. With one the service goes on while the controller is away, as long as that may
 * take, and nobody is served better when all of them are taken for dead: that is a remark. who: "module
 * osd1", for the sentence.
 */
void cluster_readiness(const struct cluster *c, const char *who, struct metrics_snapshot *out);

#endif
