/* mdc_metrics.h: what the metadata controller tells of itself and the cluster: for metrics, readiness, and
 * `cistern top`. */
#ifndef CISTERN_SERVICES_MDC_METRICS_H
#define CISTERN_SERVICES_MDC_METRICS_H

#include "common/metrics.h"
#include "services/mdc/mdc.h"

struct mdc_figures {
#define METRIC METRICS_FIELD
#include "services/mdc/mdc_metrics.def"
#undef METRIC
};
struct mdc_pool_figures {
#define METRIC METRICS_FIELD
#include "services/mdc/pool_metrics.def"
#undef METRIC
};
/* Decisions by method, and refusals by status. */
struct mdc_requests {
#define MDC_METHOD(number, name, handler, request, reply) uint64_t name;
#define MDC_NOTIFY(number, name, message)
#include "common/wire/mdc.def"
#undef MDC_METHOD
#undef MDC_NOTIFY
};
struct mdc_refusals {
#define STATUS(number, name, error, text) uint64_t name;
#include "common/status.def"
#undef STATUS
};
extern const struct metrics_group mdc_metrics_group, mdc_pool_group, mdc_requests_group, mdc_refusals_group;

void mdc_metrics(struct mdc *m, struct metrics_snapshot *out);
/* The same with the fabric and the loop; says in out why it is not ready. */
void mdc_collect(struct mdc *m, struct metrics_snapshot *out);

#endif
