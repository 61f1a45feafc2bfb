/*
 * bench_run.h: the load that `cistern bench` makes, on an open volume of libcistern with own_loop.
 */
#ifndef CISTERN_SERVICES_CTL_BENCH_RUN_H
#define CISTERN_SERVICES_CTL_BENCH_RUN_H

#include "services/ctl/bench.h"

struct cistern;
struct cistern_volume;
struct loop;

struct bench_job {
    struct cistern *connection;
    struct cistern_volume *volume;
    const struct loop *clock;
    uint32_t io_bytes;
    unsigned depth;
    unsigned read_percent; /* 100: reads only */
    bool sequential;
    uint64_t extents; /* I/O goes to [0, extents * io_bytes) */
    uint64_t warmup_ns, runtime_ns;
    uint64_t ops; /* 0: until runtime_ns */
    uint64_t seed;
    bool verify;
    void (*mismatch)(void *arg, const struct bench_mismatch *m); /* with verify; for each wrong read */
    void (*waiting)(void *arg, uint64_t ns); /* nothing has come back for so long; about once a second */
    void *arg;
};
struct bench_result {
    struct bench_hist reads, writes; /* of what was measured */
    uint64_t measured_ns, cpu_ns;    /* of this process, all its threads */
    uint64_t checked, mismatches;    /* with verify: reads compared, and wrong ones */
    bool interrupted;                /* SIGINT came: the figures are of the time before */
    /* The first request that failed, with the rc that bench_run returns: */
    uint64_t error_offset;
    bool error_is_write;
};
/*
 * Runs to the end; with verify, then reads back all that was written. SIGINT ends it early, a second one the
 * process. 0, or -errno: of the first request that failed (result is filled: ops before it), or -ENOMEM. When
 * a request never ends, neither does this.
 */
int bench_run(const struct bench_job *job, struct bench_result *result);

#endif
