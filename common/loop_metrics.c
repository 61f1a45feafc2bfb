/* loop_metrics.c: see loop_metrics.h. */
#include "common/loop_metrics.h"

#define METRICS_STRUCT loop_figures
static const struct metric table[] = {
#define METRIC METRICS_ENTRY
#include "common/loop_metrics.def"
#undef METRIC
};
const struct metrics_group loop_metrics_group = METRICS_GROUP("the event loop", table);

void loop_metrics(const struct loop *loop, struct metrics_snapshot *out)
{
    struct loop_figures *f = metrics_snapshot_add(out, &loop_metrics_group, NULL);
    struct loop_stats stats;
    if (f == NULL)
        return;
    loop_get_stats(loop, &stats);
    *f = (struct loop_figures){.rounds = stats.rounds,
                               .sleeps = stats.sleeps,
                               .busy_ns = stats.busy_ns,
                               .long_rounds = stats.long_rounds,
                               .longest_round_ns = stats.longest_round_ns};
}
