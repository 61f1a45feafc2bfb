/* gateway_metrics.h: what a gateway tells of itself: for metrics, readiness, and `cistern top`. */
#ifndef CISTERN_SERVICES_VBS_GATEWAY_METRICS_H
#define CISTERN_SERVICES_VBS_GATEWAY_METRICS_H

#include "common/metrics.h"
#include "services/vbs/gateway.h"

struct gateway_figures {
#define METRIC METRICS_FIELD
#include "services/vbs/gateway_metrics.def"
#undef METRIC
};
struct gateway_refusals {
#define STATUS(number, name, error, text) uint64_t name;
#include "common/status.def"
#undef STATUS
};
extern const struct metrics_group gateway_metrics_group, gateway_refusals_group;

void gateway_metrics(const struct gateway *gw, struct metrics_snapshot *out);
/* The same with the fabric and the loop; says in out why it is not ready. */
void gateway_collect(const struct gateway *gw, struct metrics_snapshot *out);

#endif
