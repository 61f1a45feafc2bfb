/* rwm_metrics.h: what modules tell of themselves: for metrics, readiness, and `cistern top`. */
#ifndef CISTERN_SERVICES_RWM_METRICS_H
#define CISTERN_SERVICES_RWM_METRICS_H

#include "common/metrics.h"
#include "common/status.h"
#include "services/rwm/rwm_runner.h"

struct rwm_figures {
#define METRIC METRICS_FIELD
#include "services/rwm/rwm_metrics.def"
#undef METRIC
};
/* Requests refused, or failed, by status. */
struct rwm_refusals {
#define STATUS(number, name, error, text) uint64_t name;
#include "common/status.def"
#undef STATUS
};
/* Of a runner: also while there is no module. */
struct rwm_runner_figures {
    uint64_t up, failures;
};
extern const struct metrics_group rwm_metrics_group, rwm_refusals_group, rwm_info_group, rwm_runner_group;

/* All modules of the process that have been created. */
void rwm_host_metrics(const struct rwm_host *h, struct metrics_snapshot *out);
/* Whether the medium of a runner is there and its module runs, and if not, why: it is not ready then. */
void rwm_runner_metrics(const struct rwm_runner *r, struct metrics_snapshot *out);
/* Says in out what keeps the module from serving all that it should: nothing is said when it is ready. */
void rwm_readiness(const struct rwm *m, struct metrics_snapshot *out);
/* The same with the fabric and the loop. */
void rwm_host_collect(const struct rwm_host *h, struct metrics_snapshot *out);

#endif
