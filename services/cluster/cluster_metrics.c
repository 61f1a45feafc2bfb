/* cluster_metrics.c: see cluster_metrics.h. */
#include "services/cluster/cluster_metrics.h"

#include "services/cluster/cluster_private.h"

/* Fresh is what was refreshed within so many periods. */
#define FRESH_PERIODS 5u

#define METRICS_STRUCT cluster_figures
static const struct metric table_[] = {
#define METRIC METRICS_ENTRY
#include "services/cluster/cluster_metrics.def"
#undef METRIC
};
const struct metrics_group cluster_metrics_group = METRICS_GROUP("the session and the table", table_);

static uint64_t table_age_ns(const struct cluster *c)
{
    const uint64_t seen_ns = c->replica.publisher_ns;
    return seen_ns != 0 ? loop_now_ns(c->env->loop) - seen_ns : 0;
}

void cluster_metrics(const struct cluster *c, const char *labels, struct metrics_snapshot *out)
{
    struct cluster_figures *f = metrics_snapshot_add(out, &cluster_metrics_group, labels);
    if (f == NULL)
        return;
    const struct table *t = cluster_table(c);
    const struct table_header *head = t != NULL ? table_head(t) : NULL;
    const struct cluster_counters *n = &c->counters;
    *f = (struct cluster_figures){.session_up = c->session.up,
                                  .sessions = n->sessions,
                                  .calls = n->calls,
                                  .table_term = head != NULL ? head->term : 0,
                                  .table_version = head != NULL ? head->version : 0,
                                  .table_age_ns = table_age_ns(c),
                                  .refreshes = n->refreshes,
                                  .full_reads = n->full_reads,
                                  .record_reads = n->record_reads,
                                  .read_bytes = n->read_bytes,
                                  .crc_retries = n->crc_retries,
                                  .hints = n->hints};
}

void cluster_readiness(const struct cluster *c, const char *who, struct metrics_snapshot *out)
{
    const uint64_t period_ns = max_u64(c->session.reply.heartbeat_ms * NS_PER_MS, c->config.refresh_ns);
    const char *why = c->session.why[0] != '\0' ? c->session.why : "not reached yet";
    const unsigned long age_s = (unsigned long)(table_age_ns(c) / NS_PER_S);
    if (cluster_table(c) == NULL && !c->session.up)
        metrics_snapshot_not_ready(out, "%s: no session with a metadata controller: %s", who, why);
    else if (cluster_table(c) == NULL)
        metrics_snapshot_not_ready(out, "%s: no table yet", who);
    else if (!c->session.up)
        metrics_snapshot_remark(
            out, "%s: no session with a metadata controller: %s; it goes on with the table of %lu s ago", who,
            why, age_s);
    else if (table_age_ns(c) > FRESH_PERIODS * period_ns)
        metrics_snapshot_remark(
            out, "%s: the table is %lu s old: the metadata controller does not publish, or cannot be read",
            who, age_s);
}
