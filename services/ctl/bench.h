/*
 * bench.h: the measuring parts of `cistern bench`: what it is asked to do, a histogram of latencies, and the
 * patterns with which it proves that what is read is what was written. No I/O here: bench_run.c does that,
 * through libcistern's public interface.
 */
#ifndef CISTERN_SERVICES_CTL_BENCH_H
#define CISTERN_SERVICES_CTL_BENCH_H

#include "common/base.h"

struct bench_options {
    char *counters; /* file */
    bool read, write, random, sequential, verify, read_only;
    uint64_t mix; /* percent of reads; 0 = not given */
    uint64_t io_bytes, depth, runtime_ns, ops, span_bytes, seed, warmup_ns, spin_ns;
};

/* ---- bench_hist.c: latencies in ns, log-linear: each power of two is cut into 32 parts, so a value is known
 * to about 3 % ---- */
#define BENCH_HIST_PART_BITS 5
#define BENCH_HIST_BITS      40 /* 18 minutes; the last bucket holds all above */
#define BENCH_HIST_BUCKETS   (((BENCH_HIST_BITS - BENCH_HIST_PART_BITS + 1) << BENCH_HIST_PART_BITS) + 1)
struct bench_hist {
    uint64_t count, sum_ns, min_ns, max_ns;
    uint64_t buckets[BENCH_HIST_BUCKETS];
};
void bench_hist_add(struct bench_hist *h, uint64_t ns);
/* Adds all of other to h. */
void bench_hist_merge(struct bench_hist *h, const struct bench_hist *other);
/*
 * A value that the fraction q/10000 of all values (at least one) does not exceed: the highest of the bucket
 * in which that one lies, not above the largest value seen. 0 when the histogram is empty.
 */
uint64_t bench_hist_quantile(const struct bench_hist *h, unsigned q_of_10000);
/* The mean, 0 when empty. */
uint64_t bench_hist_average(const struct bench_hist *h);

/* ---- bench_verify.c ---- */
/*
 * The volume (the part of it that is used) is cut into extents of one I/O's size; each has a generation: how
 * often it was written. Every sector written says its offset and generation, and goes on with words that
 * follow from them and the seed. One request at a time has an extent, so the expected content is always
 * known. What was never written by this run (generation 0) is not judged.
 */
struct bench_verify {
    uint64_t seed;
    uint32_t io_bytes;
    uint64_t extents;
    uint32_t *generations; /* by extent; the top bit: a request is on its way */
};
#define BENCH_EXTENT_BUSY 0x80000000u
/* io_bytes: a multiple of SECTOR_BYTES. 0 or -ENOMEM. */
int bench_verify_init(struct bench_verify *v, uint64_t seed, uint32_t io_bytes, uint64_t extents);
void bench_verify_free(struct bench_verify *v);
/* False when another request has that extent. */
bool bench_verify_take(struct bench_verify *v, uint64_t extent);
void bench_verify_release(struct bench_verify *v, uint64_t extent);
/* Fills buf (io_bytes) with the extent's next generation; call when the extent was taken. The generation
 * counts from bench_verify_written on. */
void bench_verify_fill(const struct bench_verify *v, uint64_t extent, void *buf);
void bench_verify_written(struct bench_verify *v, uint64_t extent);
/* What is wrong in the first sector that is. */
struct bench_mismatch {
    uint64_t offset; /* of the first wrong 8 bytes in the volume */
    uint64_t expected, found;
    uint32_t generation;   /* expected */
    bool found_is_ours;    /* the sector is one of this run: */
    uint64_t found_offset; /* written for this offset */
    uint32_t found_generation;
};
/* True when buf (io_bytes) is the extent's present content, or that is unknown. Else *out tells. */
bool bench_verify_check(const struct bench_verify *v, uint64_t extent, const void *buf,
                        struct bench_mismatch *out);

#endif
