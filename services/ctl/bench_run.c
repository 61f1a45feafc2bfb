/*
 * bench_run.c: keeps depth requests in flight, each a slot with its own buffer; a slot's next request starts
 * in the callback of its last.
 */
#include "services/ctl/bench_run.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/loop.h"
#include "common/rng.h"
#include "services/vbs/cistern.h"

enum phase { WARMING, MEASURING, READING_BACK };

struct slot {
    struct run *run;
    void *buf;
    bool registered; /* buf is cistern_alloc's */
    bool write;
    uint64_t extent, start_ns;
};
struct run {
    const struct bench_job *job;
    struct bench_result *result;
    struct bench_verify verify;
    struct rng rng;
    enum phase phase;
    bool stopping; /* nothing new starts */
    int rc;
    struct slot *slots;
    unsigned in_flight;
    uint64_t started, next_extent; /* next_extent: sequential, and reading back */
    uint64_t begin_ns, end_ns, begin_cpu_ns;
    uint64_t heard_ns, told_ns;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static uint64_t cpu_ns(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) != 0)
        return 0;
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * NS_PER_S +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * NS_PER_US;
}

static uint64_t now_ns(const struct run *r)
{
    return loop_clock_ns(r->job->clock);
}

/* ---- choosing ---- */

static uint64_t choose_extent(struct run *r)
{
    const struct bench_job *job = r->job;
    uint64_t extent = job->sequential ? r->next_extent : rng_below(&r->rng, job->extents);
    while (job->verify && !bench_verify_take(&r->verify, extent)) /* there are more extents than slots */
        extent = (extent + 1) % job->extents;
    r->next_extent = (extent + 1) % job->extents;
    return extent;
}

/* The next extent that this run has written; false: there is none. */
static bool choose_written(struct run *r, uint64_t *extent)
{
    while (r->next_extent < r->job->extents && r->verify.generations[r->next_extent] == 0)
        r->next_extent++;
    if (r->next_extent >= r->job->extents)
        return false;
    *extent = r->next_extent++;
    return bench_verify_take(&r->verify, *extent);
}

/* ---- one request ---- */

static void slot_done(void *arg, int rc);

static void fail(struct run *r, const struct slot *s, int rc)
{
    r->stopping = true;
    if (r->rc != 0)
        return;
    r->rc = rc;
    r->result->error_offset = s->extent * r->job->io_bytes;
    r->result->error_is_write = s->write;
}

static bool may_start(const struct run *r)
{
    return !r->stopping && (r->phase == READING_BACK || r->job->ops == 0 || r->started < r->job->ops);
}

static void slot_start(struct slot *s)
{
    struct run *r = s->run;
    const struct bench_job *job = r->job;
    if (!may_start(r))
        return;
    if (r->phase == READING_BACK) {
        s->write = false;
        if (!choose_written(r, &s->extent))
            return;
    } else {
        s->write = job->read_percent < 100 && rng_below(&r->rng, 100) >= job->read_percent;
        s->extent = choose_extent(r);
    }
    if (s->write && job->verify)
        bench_verify_fill(&r->verify, s->extent, s->buf);
    const struct iovec iov = {.iov_base = s->buf, .iov_len = job->io_bytes};
    const uint64_t offset = s->extent * job->io_bytes;
    s->start_ns = now_ns(r);
    const int rc = s->write ? cistern_writev(job->volume, &iov, 1, offset, slot_done, s)
                            : cistern_readv(job->volume, &iov, 1, offset, slot_done, s);
    if (rc != 0) {
        fail(r, s, rc);
        return;
    }
    r->started++;
    r->in_flight++;
}

static void check(struct run *r, const struct slot *s)
{
    struct bench_mismatch m;
    r->result->checked++;
    if (bench_verify_check(&r->verify, s->extent, s->buf, &m))
        return;
    r->result->mismatches++;
    r->job->mismatch(r->job->arg, &m);
}

static void slot_done(void *arg, int rc)
{
    struct slot *s = arg;
    struct run *r = s->run;
    const uint64_t now = now_ns(r);
    r->in_flight--;
    r->heard_ns = now;
    if (rc != 0) {
        fail(r, s, rc);
        return;
    }
    /* What was asked for before the end counts only if it came before it. */
    if (r->phase == MEASURING && (r->job->ops != 0 || now <= r->end_ns)) {
        bench_hist_add(s->write ? &r->result->writes : &r->result->reads, now - s->start_ns);
        r->result->measured_ns = now - r->begin_ns;
    }
    if (r->job->verify) {
        if (s->write)
            bench_verify_written(&r->verify, s->extent);
        else
            check(r, s);
        bench_verify_release(&r->verify, s->extent);
    }
    slot_start(s);
}

/* ---- phases ---- */

static void begin_measuring(struct run *r)
{
    r->phase = MEASURING;
    r->begin_ns = now_ns(r);
    r->begin_cpu_ns = cpu_ns();
    r->end_ns = r->job->ops != 0 ? UINT64_MAX : r->begin_ns + r->job->runtime_ns;
}

static void end_measuring(struct run *r)
{
    r->stopping = true;
    r->result->cpu_ns = cpu_ns() - r->begin_cpu_ns;
}

static void look_at_clock(struct run *r)
{
    const uint64_t now = now_ns(r);
    if (interrupted && !r->stopping) {
        r->result->interrupted = true;
        if (r->phase == MEASURING)
            end_measuring(r);
        r->stopping = true;
    }
    if (!r->stopping && r->phase == WARMING && now >= r->begin_ns + r->job->warmup_ns)
        begin_measuring(r);
    if (!r->stopping && r->phase == MEASURING && now >= r->end_ns)
        end_measuring(r);
    if (now - r->heard_ns > NS_PER_S && now - r->told_ns > NS_PER_S) {
        r->told_ns = now;
        r->job->waiting(r->job->arg, now - r->heard_ns);
    }
}

static void drive(struct run *r)
{
    r->heard_ns = now_ns(r);
    for (unsigned i = 0; i < r->job->depth; i++)
        slot_start(&r->slots[i]);
    while (r->in_flight > 0) {
        cistern_process(r->job->connection, 100);
        look_at_clock(r);
    }
}

static void run_all(struct run *r)
{
    r->begin_ns = now_ns(r);
    if (r->job->warmup_ns == 0 || r->job->ops != 0)
        begin_measuring(r);
    drive(r);
    if (r->phase == MEASURING && r->result->cpu_ns == 0)
        end_measuring(r);
    if (!r->job->verify || r->rc != 0)
        return;
    r->phase = READING_BACK;
    r->stopping = false;
    r->next_extent = 0;
    interrupted = 0;
    drive(r);
}

/* ---- setting up ---- */

static void free_slots(struct run *r)
{
    for (unsigned i = 0; r->slots != NULL && i < r->job->depth; i++) {
        if (r->slots[i].registered)
            cistern_free(r->job->connection, r->slots[i].buf, r->job->io_bytes);
        else
            free(r->slots[i].buf);
    }
    free(r->slots);
}

static int make_slots(struct run *r)
{
    const struct bench_job *job = r->job;
    r->slots = calloc(job->depth, sizeof(*r->slots));
    if (r->slots == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < job->depth; i++) {
        struct slot *s = &r->slots[i];
        s->run = r;
        s->buf = cistern_alloc(job->connection, job->io_bytes);
        s->registered = s->buf != NULL;
        if (s->buf == NULL)
            s->buf = aligned_alloc(UNIT_BYTES, round_up(job->io_bytes, UNIT_BYTES));
        if (s->buf == NULL)
            return -ENOMEM;
        rng_fill(&r->rng, s->buf, job->io_bytes);
    }
    return 0;
}

int bench_run(const struct bench_job *job, struct bench_result *result)
{
    struct run r = {.job = job, .result = result};
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct sigaction before;
    MUST(!job->verify || job->extents >= job->depth);
    memset(result, 0, sizeof(*result));
    rng_seed(&r.rng, job->seed);
    int rc = make_slots(&r);
    if (rc == 0 && job->verify)
        rc = bench_verify_init(&r.verify, rng_u64(&r.rng), job->io_bytes, job->extents);
    if (rc == 0) {
        interrupted = 0;
        sigaction(SIGINT, &action, &before);
        run_all(&r);
        sigaction(SIGINT, &before, NULL);
        rc = r.rc;
    }
    bench_verify_free(&r.verify);
    free_slots(&r);
    return rc;
}
