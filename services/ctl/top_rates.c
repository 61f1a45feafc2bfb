/* top_rates.c: what happened between two answers of a service, a second. */
#include "services/ctl/top.h"

/* A service that was started again counts from 0. */
static uint64_t rate(uint64_t before, uint64_t now, uint64_t ns)
{
    const uint64_t delta = now >= before ? now - before : now;
    return (uint64_t)((double)delta * (double)NS_PER_S / (double)ns + 0.5);
}

void top_rates_of(const struct top_row *row, struct top_rates *out)
{
    const struct top_figures *a = &row->before, *b = &row->now;
    struct metric_hist reads, writes;
    *out = (struct top_rates){.known = false};
    if (a->at_ns == 0 || b->at_ns <= a->at_ns)
        return;
    const uint64_t ns = b->at_ns - a->at_ns;
    metrics_hist_since(&a->read_ns, &b->read_ns, &reads);
    metrics_hist_since(&a->write_ns, &b->write_ns, &writes);
    *out = (struct top_rates){.known = true,
                              .reads = rate(a->reads, b->reads, ns),
                              .writes = rate(a->writes, b->writes, ns),
                              .clears = rate(a->clears, b->clears, ns),
                              .read_bytes = rate(a->read_bytes, b->read_bytes, ns),
                              .write_bytes = rate(a->write_bytes, b->write_bytes, ns),
                              .recovered_bytes = rate(a->recovered_bytes, b->recovered_bytes, ns),
                              .refused = rate(a->refused, b->refused, ns),
                              .read_p50_ns = metrics_hist_quantile(&reads, 500),
                              .read_p99_ns = metrics_hist_quantile(&reads, 990),
                              .write_p50_ns = metrics_hist_quantile(&writes, 500),
                              .write_p99_ns = metrics_hist_quantile(&writes, 990)};
}
