/* gateway_metrics.c: see gateway_metrics.h. */
#include "services/vbs/gateway_metrics.h"

#include "services/cluster/cluster_metrics.h"
#include "services/vbs/gateway_internal.h"

#define METRICS_STRUCT gateway_figures
static const struct metric gateway_table[] = {
#define METRIC METRICS_ENTRY
#include "services/vbs/gateway_metrics.def"
#undef METRIC
};
const struct metrics_group gateway_metrics_group = METRICS_GROUP("a gateway", gateway_table);
#undef METRICS_STRUCT

#define METRICS_STRUCT gateway_refusals
static const struct metric refusals_table[] = {
#define STATUS(number, name, error, text)                                                                    \
    METRICS_ENTRY(COUNTER, name, "cistern_gateway_refused_total", METRICS_STATUS_LABEL(number, name),        \
                  "Requests of clients that were refused or failed, by the status that they were told.")
#include "common/status.def"
#undef STATUS
};
const struct metrics_group gateway_refusals_group = METRICS_GROUP("a gateway's refusals", refusals_table);
#undef METRICS_STRUCT

void gateway_count_done(const struct gateway_request *gr)
{
    struct gateway *gw = gr->gw;
    struct gateway_stats *s = &gw->stats;
    const uint64_t took_ns = loop_now_ns(gw->env->loop) - gr->arrived_ns;
    switch (gr->vr.op) {
    case VOLUME_READ:
        s->reads++;
        s->read_bytes += gr->length;
        metrics_hist_add(&gw->latency.read, took_ns);
        break;
    case VOLUME_WRITE:
        s->writes++;
        s->write_bytes += gr->length;
        metrics_hist_add(&gw->latency.write, took_ns);
        break;
    case VOLUME_DISCARD:
    case VOLUME_ZERO:
        s->discards++;
        s->discard_bytes += gr->length;
        metrics_hist_add(&gw->latency.clear, took_ns);
        break;
    case VOLUME_FLUSH:
        s->flushes++;
        metrics_hist_add(&gw->latency.flush, took_ns);
        break;
    case VOLUME_EXTENTS:
        s->extents++;
        break;
    }
}

void gateway_count_refused(struct gateway *gw, uint32_t status)
{
    gw->stats.refused[status < GATEWAY_STATUS_MAX ? status : 0]++;
}

static void fill(const struct gateway *gw, struct gateway_figures *f)
{
    struct gateway_stats s;
    struct volume_core_counters c;
    gateway_stats_get(gw, &s);
    volume_core_counters_get(gw->core, &c);
    *f = (struct gateway_figures){.clients = s.clients,
                                  .volumes = s.volumes,
                                  .reads = s.reads,
                                  .writes = s.writes,
                                  .discards = s.discards,
                                  .flushes = s.flushes,
                                  .extents = s.extents,
                                  .read_bytes = s.read_bytes,
                                  .write_bytes = s.write_bytes,
                                  .discard_bytes = s.discard_bytes,
                                  .read_ns = gw->latency.read,
                                  .write_ns = gw->latency.write,
                                  .clear_ns = gw->latency.clear,
                                  .flush_ns = gw->latency.flush,
                                  .crc_errors = s.crc_errors,
                                  .requests_active = s.requests_active,
                                  .requests_waiting = s.requests_waiting,
                                  .free_bytes = s.chunks_free * GATEWAY_CHUNK_BYTES,
                                  .total_bytes = s.chunks_total * GATEWAY_CHUNK_BYTES,
                                  .core_requests = c.requests,
                                  .core_parts = c.parts,
                                  .core_retries = c.retries,
                                  .core_refreshes = c.refreshes,
                                  .core_reconnects = c.reconnects,
                                  .core_crc_errors = c.crc_errors,
                                  .core_parts_waiting = c.parts_waiting};
}

static void fill_refusals(const struct gateway *gw, struct gateway_refusals *r)
{
#define STATUS(number, name, error, text)                                                                    \
    _Static_assert(number < GATEWAY_STATUS_MAX, "refusals are counted by status");                           \
    r->name = gw->stats.refused[number];
#include "common/status.def"
#undef STATUS
}

void gateway_metrics(const struct gateway *gw, struct metrics_snapshot *out)
{
    struct gateway_figures *f = metrics_snapshot_add(out, &gateway_metrics_group, NULL);
    struct gateway_refusals *r = metrics_snapshot_add(out, &gateway_refusals_group, NULL);
    if (f != NULL)
        fill(gw, f);
    if (r != NULL)
        fill_refusals(gw, r);
    cluster_metrics(volume_core_cluster(gw->core), NULL, out);
}

void gateway_collect(const struct gateway *gw, struct metrics_snapshot *out)
{
    gateway_metrics(gw, out);
    fabric_metrics(gw->env->fabric, gw->env->loop, out);
    cluster_readiness(volume_core_cluster(gw->core), "gateway", out);
}
