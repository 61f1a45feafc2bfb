/* fabric_metrics.c: the fabric's counters, and those of the loop that it is on, for metrics. */
#include "common/loop_metrics.h"
#include "rdma/fabric.h"

#define METRIC_LIVE(name, text)  METRICS_ENTRY(GAUGE, name, "cistern_fabric_" #name, NULL, text)
#define METRIC_TOTAL(name, text) METRICS_ENTRY(COUNTER, name, "cistern_fabric_" #name "_total", NULL, text)
#define METRICS_STRUCT           fabric_counters
static const struct metric table[] = {
#define FABRIC_COUNTER(name, kind, text) METRIC_##kind(name, text)
#define FABRIC_DOWN_COUNTER(reason)                                                                          \
    METRICS_ENTRY(COUNTER, downs_##reason, "cistern_fabric_disconnects_total", "reason=\"" #reason "\"",     \
                  "connections that ended, by reason; not those closed at this end")
#include "rdma/fabric_counters.def"
#undef FABRIC_COUNTER
};
const struct metrics_group fabric_metrics_group = METRICS_GROUP("the fabric", table);

void fabric_metrics(const struct fabric *f, struct loop *loop, struct metrics_snapshot *out)
{
    struct fabric_counters *c = metrics_snapshot_add(out, &fabric_metrics_group, NULL);
    if (c != NULL && f != NULL)
        fabric_counters_get(f, c);
    loop_metrics(loop, out);
}
