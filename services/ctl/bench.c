/* bench.c: the command `cistern bench`: what is asked for, the volume, and the figures. */
#include "services/ctl/bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/loop.h"
#include "services/ctl/bench_run.h"
#include "services/ctl/ctl.h"
#include "services/vbs/cistern.h"

enum { MISMATCHES_SHOWN = 10 };

struct bench {
    struct ctl *ctl;
    const char *volume;
    struct loop *clock;
    struct cistern *connection;
    struct cistern_volume *open;
    unsigned shown; /* mismatches */
};

/* ---- what is asked for ---- */

static enum ctl_exit read_mode(struct ctl *ctl, struct bench_job *job)
{
    const struct bench_options *b = &ctl->options->bench;
    if (b->read + b->write + (b->mix != 0) > 1 || b->random + b->sequential > 1) {
        ctl_say(ctl, "--read, --write and --mix exclude one another, and so do --random and --sequential");
        return CTL_USAGE;
    }
    job->read_percent = b->write ? 0 : b->mix != 0 ? (unsigned)b->mix : b->verify && !b->read ? 50 : 100;
    if (b->verify && job->read_percent == 100) {
        ctl_say(ctl, "--verify checks what it wrote: use it with --write, --mix or alone, not with --read");
        return CTL_USAGE;
    }
    if (b->read_only && job->read_percent < 100) {
        ctl_say(ctl, "--read-only goes with reads only");
        return CTL_USAGE;
    }
    if (b->io_bytes % SECTOR_BYTES != 0) {
        ctl_say(ctl, "--size must be a multiple of %u bytes", SECTOR_BYTES);
        return CTL_USAGE;
    }
    job->io_bytes = (uint32_t)b->io_bytes;
    job->depth = (unsigned)b->depth;
    job->sequential = b->sequential;
    job->runtime_ns = b->runtime_ns;
    job->warmup_ns = b->warmup_ns;
    job->ops = b->ops;
    job->seed = b->seed;
    job->verify = b->verify;
    return CTL_DONE;
}

static enum ctl_exit read_span(struct bench *b, struct bench_job *job)
{
    const uint64_t asked = b->ctl->options->bench.span_bytes, size = cistern_size(b->open);
    job->extents = (asked == 0 ? size : min_u64(asked, size)) / job->io_bytes;
    if (job->extents == 0 || (job->verify && job->extents < job->depth)) {
        ctl_say(b->ctl,
                "volume \"%s\" (%" PRIu64
                " bytes), or --span, is too small for a size of %u bytes and a depth of %u",
                b->volume, size, job->io_bytes, job->depth);
        return CTL_USAGE;
    }
    return CTL_DONE;
}

/* ---- the volume ---- */

static enum ctl_exit library_failed(struct bench *b, const char *what, int rc)
{
    const char *text = cistern_error();
    if (strncmp(text, "cannot ", 7) == 0)
        ctl_say(b->ctl, "%s", text);
    else
        ctl_say(b->ctl, "cannot %s volume \"%s\": %s", what, b->volume, text);
    return rc == -ETIMEDOUT || rc == -ENOTCONN ? CTL_UNREACHABLE : CTL_FAILED;
}

static enum ctl_exit open_volume(struct bench *b)
{
    const struct ctl_options *o = b->ctl->options;
    struct cistern_options options;
    if (o->mdc == NULL && o->gateway == NULL) {
        ctl_say(
            b->ctl,
            "where is the cluster? Give --mdc or --gateway, or \"mdc = ...\" in the configuration file (--config)");
        return CTL_USAGE;
    }
    if (o->verbose)
        setenv("CISTERN_LOG", "info", 0);
    cistern_options_init(&options);
    if (o->via_gateway)
        options.gateway = o->gateway;
    else
        options.mdc = o->mdc;
    options.secret_file = o->secret_file;
    options.host = b->ctl->host;
    options.own_loop = 1;
    options.spin_ns = o->bench.spin_ns;
    options.connect_timeout_ms = (unsigned)min_u64(max_u64(o->timeout_ns / NS_PER_MS, 1), UINT32_MAX);
    int rc = loop_create_real(NULL, &b->clock);
    if (rc != 0) {
        ctl_say(b->ctl, "cannot make a loop: %s", strerror(-rc));
        return CTL_FAILED;
    }
    rc = cistern_connect(&options, &b->connection);
    if (rc != 0)
        return library_failed(b, "reach the cluster of", rc);
    const unsigned flags =
        (o->bench.read_only ? (unsigned)CISTERN_READ_ONLY : 0) | (o->shared ? (unsigned)CISTERN_SHARED : 0);
    rc = cistern_open(b->connection, b->volume, flags, &b->open);
    return rc == 0 ? CTL_DONE : library_failed(b, "open", rc);
}

static enum ctl_exit save_counters(const struct bench *b)
{
    char text[8192];
    const char *path = b->ctl->options->bench.counters;
    if (path == NULL)
        return CTL_DONE;
    const int len = cistern_counters(b->connection, text, sizeof(text));
    FILE *f = len > 0 ? fopen(path, "we") : NULL;
    bool ok = f != NULL && fwrite(text, 1, (size_t)len, f) == (size_t)len;
    if (f != NULL && fclose(f) != 0)
        ok = false;
    if (!ok)
        ctl_say(b->ctl, "cannot write the counters to %s", path);
    return ok ? CTL_DONE : CTL_FAILED;
}

static void close_volume(struct bench *b)
{
    if (b->open != NULL)
        cistern_close(b->open);
    if (b->connection != NULL)
        cistern_disconnect(b->connection);
    if (b->clock != NULL)
        loop_destroy(b->clock);
}

/* ---- while it runs ---- */

static void show_mismatch(void *arg, const struct bench_mismatch *m)
{
    struct bench *b = arg;
    char what[120] = "";
    if (b->shown++ >= MISMATCHES_SHOWN)
        return;
    if (m->found_is_ours)
        snprintf(what, sizeof(what), ": the sector written to offset %" PRIu64 ", generation %u",
                 m->found_offset, m->found_generation);
    ctl_say(b->ctl,
            "WRONG DATA in volume \"%s\" at offset %" PRIu64 ": expected %016" PRIx64
            " (generation %u), found %016" PRIx64 "%s",
            b->volume, m->offset, m->expected, m->generation, m->found, what);
}

static void show_waiting(void *arg, uint64_t ns)
{
    struct bench *b = arg;
    ctl_progress(b->ctl, "volume %s: no answer for %llu s", b->volume, (unsigned long long)(ns / NS_PER_S));
}

/* ---- figures ---- */

static const struct sheet_column columns[] = {
    {"volume", NULL, SHEET_TEXT},
    {"path", NULL, SHEET_TEXT},
    {"op", "OP", SHEET_TEXT},
    {"pattern", "PATTERN", SHEET_TEXT},
    {"io_bytes", "SIZE", SHEET_BYTES},
    {"depth", "DEPTH", SHEET_NUMBER},
    {"ops", "OPS", SHEET_NUMBER},
    {"measured_ns", "TIME", SHEET_DURATION},
    {"iops", "OPS/S", SHEET_NUMBER},
    {"bytes_per_second", "BYTES/S", SHEET_BYTES},
    {"min_ns", NULL, SHEET_DURATION},
    {"avg_ns", "AVG", SHEET_DURATION},
    {"p50_ns", "P50", SHEET_DURATION},
    {"p99_ns", "P99", SHEET_DURATION},
    {"p999_ns", "P99.9", SHEET_DURATION},
    {"max_ns", "MAX", SHEET_DURATION},
    {"cpu_ns_per_op", "CPU/OP", SHEET_DURATION},
    {"checked", NULL, SHEET_NUMBER},
    {"mismatches", NULL, SHEET_NUMBER},
};

static void add_row(struct sheet *s, const struct bench *b, const struct bench_job *job,
                    const struct bench_result *r, const char *op, const struct bench_hist *h)
{
    const double seconds = (double)max_u64(r->measured_ns, 1) / (double)NS_PER_S;
    const uint64_t all = r->reads.count + r->writes.count;
    sheet_add_text(s, b->volume);
    sheet_add_text(s, b->ctl->options->via_gateway ? "gateway" : "direct");
    sheet_add_text(s, op);
    sheet_add_text(s, job->sequential ? "sequential" : "random");
    sheet_add_number(s, job->io_bytes);
    sheet_add_number(s, job->depth);
    sheet_add_number(s, h->count);
    sheet_add_number(s, r->measured_ns);
    sheet_add_number(s, (uint64_t)((double)h->count / seconds + 0.5));
    sheet_add_number(s, (uint64_t)((double)h->count * job->io_bytes / seconds + 0.5));
    sheet_add_number(s, h->min_ns);
    sheet_add_number(s, bench_hist_average(h));
    sheet_add_number(s, bench_hist_quantile(h, 5000));
    sheet_add_number(s, bench_hist_quantile(h, 9900));
    sheet_add_number(s, bench_hist_quantile(h, 9990));
    sheet_add_number(s, h->max_ns);
    sheet_add_number(s, all == 0 ? 0 : r->cpu_ns / all);
    sheet_add_number(s, r->checked);
    sheet_add_number(s, r->mismatches);
}

static enum ctl_exit print_figures(const struct bench *b, const struct bench_job *job,
                                   const struct bench_result *r)
{
    static struct bench_hist all;
    struct sheet s;
    sheet_init(&s, columns, ARRAY_LEN(columns));
    if (job->read_percent > 0)
        add_row(&s, b, job, r, "read", &r->reads);
    if (job->read_percent < 100)
        add_row(&s, b, job, r, "write", &r->writes);
    if (job->read_percent > 0 && job->read_percent < 100) {
        bench_hist_merge(&all, &r->reads);
        bench_hist_merge(&all, &r->writes);
        add_row(&s, b, job, r, "all", &all);
    }
    const enum ctl_exit rc = ctl_print_list(b->ctl, &s);
    if (job->verify && !b->ctl->options->json)
        printf("verified: %" PRIu64 " reads compared, %" PRIu64 " wrong%s\n", r->checked, r->mismatches,
               r->interrupted ? " (interrupted)" : "");
    return rc;
}

static const char *reason(int rc)
{
    switch (rc) {
    case -ESTALE:
        return "it was detached from this host, or another process of this host has taken it over";
    case -ENOENT:
        return "it was deleted";
    case -ERANGE:
        return "it was made smaller";
    case -ENOSPC:
        return "its pool has no space left";
    default:
        return strerror(-rc);
    }
}

static enum ctl_exit measure(struct bench *b, struct bench_job *job)
{
    static struct bench_result result;
    job->connection = b->connection;
    job->volume = b->open;
    job->clock = b->clock;
    job->mismatch = show_mismatch;
    job->waiting = show_waiting;
    job->arg = b;
    if (job->read_percent < 100)
        ctl_say(b->ctl, "warning: this writes to volume \"%s\": what it holds is lost", b->volume);
    const int rc = bench_run(job, &result);
    if (rc == -ENOMEM && result.reads.count + result.writes.count == 0) {
        ctl_say(b->ctl, "out of memory: use a smaller --span or --depth");
        return CTL_FAILED;
    }
    const enum ctl_exit printed = print_figures(b, job, &result);
    if (rc != 0)
        ctl_say(b->ctl, "%s of %u bytes at offset %" PRIu64 " of volume \"%s\" failed: %s",
                result.error_is_write ? "a write" : "a read", job->io_bytes, result.error_offset, b->volume,
                reason(rc));
    if (result.mismatches > 0)
        ctl_say(b->ctl, "volume \"%s\" did not give back what was written, %" PRIu64 " times", b->volume,
                result.mismatches);
    return rc != 0 || result.mismatches > 0 ? CTL_FAILED : printed;
}

enum ctl_exit ctl_bench(struct ctl *ctl, char *const *args)
{
    struct bench b = {.ctl = ctl, .volume = args[0]};
    struct bench_job job = {.depth = 1};
    enum ctl_exit rc = read_mode(ctl, &job);
    if (rc == CTL_DONE)
        rc = open_volume(&b);
    if (rc == CTL_DONE)
        rc = read_span(&b, &job);
    if (rc == CTL_DONE)
        rc = measure(&b, &job);
    if (rc == CTL_DONE)
        rc = save_counters(&b);
    close_volume(&b);
    return rc;
}
