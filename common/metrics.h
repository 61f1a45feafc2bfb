/*
 * metrics.h: named counters, gauges and latency histograms of one shard, and their text for Prometheus
 * (prometheus.io/docs/instrumenting/exposition_formats, text format 0.0.4).
 *
 * A metric is created once, at the start of whatever it measures; the hot path then adds through the pointer
 * it got. Pointers stay valid until metrics_destroy. Thread: the shard's; the dump too, so it sees no half
 * updates.
 */
#ifndef CISTERN_COMMON_METRICS_H
#define CISTERN_COMMON_METRICS_H

#include "common/base.h"

/*
 * Buckets of a histogram, in ns: each power of two from 2^10 (1 us) on is cut into 4 equal parts, up to 2^36
 * (69 s); the first bucket holds all below, the last all above. A value is known to about 12 % from its
 * bucket.
 */
#define METRICS_LOW_BITS     10
#define METRICS_HIGH_BITS    36
#define METRICS_PART_BITS    2
#define METRICS_HIST_BUCKETS (((METRICS_HIGH_BITS - METRICS_LOW_BITS) << METRICS_PART_BITS) + 2)

struct metrics;
struct metric_hist {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t max_ns;
    uint64_t buckets[METRICS_HIST_BUCKETS];
};

/* 0 or -ENOMEM. */
int metrics_create(struct metrics **out);
void metrics_destroy(struct metrics *m);

/*
 * name: "cistern_osd_reads_total" ([a-zA-Z_:][a-zA-Z0-9_:]*; asserted: our own code gives it); help: one
 * line; both string literals. labels: NULL, or what stands between the braces, from metrics_label; copied.
 * The same name and labels again give the same metric (restarted modules go on counting); the same name as
 * another kind is asserted against. NULL when out of memory.
 */
uint64_t *metrics_counter(struct metrics *m, const char *name, const char *labels, const char *help);
int64_t *metrics_gauge(struct metrics *m, const char *name, const char *labels, const char *help);
struct metric_hist *metrics_hist(struct metrics *m, const char *name, const char *labels, const char *help);
/* A gauge that is asked for when the text is made; fn and arg must outlive m or be replaced by a later call.
 * 0 or -ENOMEM. */
int metrics_gauge_fn(struct metrics *m, const char *name, const char *labels, const char *help,
                     int64_t (*fn)(void *arg), void *arg);
/* Appends name="value", escaped, to the labels in buf (room bytes, begins as ""). 0 or -E2BIG, buf untouched.
 */
int metrics_label(char *buf, size_t room, const char *name, const char *value);

/* The bucket that v falls into. */
static inline unsigned metrics_hist_bucket(uint64_t v)
{
    if (v < 1ull << METRICS_LOW_BITS)
        return 0;
    if (v >= 1ull << METRICS_HIGH_BITS)
        return METRICS_HIST_BUCKETS - 1;
    unsigned bits = 63u - (unsigned)__builtin_clzll(v);
    unsigned part = (unsigned)(v >> (bits - METRICS_PART_BITS)) & ((1u << METRICS_PART_BITS) - 1);
    return 1 + ((bits - METRICS_LOW_BITS) << METRICS_PART_BITS) + part;
}
/* Values of bucket i are below this; UINT64_MAX for the last. */
uint64_t metrics_hist_bound(unsigned i);
static inline void metrics_hist_add(struct metric_hist *h, uint64_t ns)
{
    h->count++;
    h->sum_ns += ns;
    h->max_ns = max_u64(h->max_ns, ns);
    h->buckets[metrics_hist_bucket(ns)]++;
}
/* The upper bound of the bucket that holds the q/1000 quantile (but not above max_ns); 0 when the histogram
 * is empty. */
uint64_t metrics_hist_quantile(const struct metric_hist *h, unsigned q_permille);

/*
 * Writes all metrics, in order of first creation of their names, as text into buf, NUL-terminated. Histograms
 * give one bucket line for each power of two that is in use, in seconds. Returns the length that the whole
 * text has without the NUL, like snprintf: when that is room or more, the text was cut and the caller tries
 * again with more room.
 */
size_t metrics_dump(const struct metrics *m, char *buf, size_t room);

#endif
