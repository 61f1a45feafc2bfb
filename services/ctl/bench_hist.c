/* bench_hist.c: a log-linear histogram. */
#include "services/ctl/bench.h"

/* Values below 2^PART_BITS have a bucket each; above, the PART_BITS bits behind the leading one choose. */
static unsigned bucket_of(uint64_t v)
{
    if (v < 1ull << BENCH_HIST_PART_BITS)
        return (unsigned)v;
    if (v >= 1ull << BENCH_HIST_BITS)
        return BENCH_HIST_BUCKETS - 1;
    const unsigned bits = 63u - (unsigned)__builtin_clzll(v);
    const unsigned part = (unsigned)(v >> (bits - BENCH_HIST_PART_BITS)) & ((1u << BENCH_HIST_PART_BITS) - 1);
    return ((bits - BENCH_HIST_PART_BITS + 1) << BENCH_HIST_PART_BITS) + part;
}

/* The highest value of bucket i. */
static uint64_t bucket_top(unsigned i)
{
    if (i < 1u << BENCH_HIST_PART_BITS)
        return i;
    if (i == BENCH_HIST_BUCKETS - 1)
        return UINT64_MAX;
    const unsigned bits = (i >> BENCH_HIST_PART_BITS) + BENCH_HIST_PART_BITS - 1;
    const uint64_t part = i & ((1u << BENCH_HIST_PART_BITS) - 1);
    return (1ull << bits) + ((part + 1) << (bits - BENCH_HIST_PART_BITS)) - 1;
}

void bench_hist_add(struct bench_hist *h, uint64_t ns)
{
    h->min_ns = h->count == 0 ? ns : min_u64(h->min_ns, ns);
    h->max_ns = max_u64(h->max_ns, ns);
    h->count++;
    h->sum_ns += ns;
    h->buckets[bucket_of(ns)]++;
}

void bench_hist_merge(struct bench_hist *h, const struct bench_hist *other)
{
    if (other->count == 0)
        return;
    h->min_ns = h->count == 0 ? other->min_ns : min_u64(h->min_ns, other->min_ns);
    h->max_ns = max_u64(h->max_ns, other->max_ns);
    h->count += other->count;
    h->sum_ns += other->sum_ns;
    for (unsigned i = 0; i < BENCH_HIST_BUCKETS; i++)
        h->buckets[i] += other->buckets[i];
}

uint64_t bench_hist_quantile(const struct bench_hist *h, unsigned q_of_10000)
{
    /* the smallest number of values that is at least the fraction, and at least 1: rounded up */
    const uint64_t wanted =
        max_u64(1, h->count / 10000 * q_of_10000 + (h->count % 10000 * q_of_10000 + 9999) / 10000);
    uint64_t seen = 0;
    for (unsigned i = 0; i < BENCH_HIST_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= wanted)
            return min_u64(bucket_top(i), h->max_ns);
    }
    return h->max_ns;
}

uint64_t bench_hist_average(const struct bench_hist *h)
{
    return h->count == 0 ? 0 : h->sum_ns / h->count;
}
