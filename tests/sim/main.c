/* cistern-sim: runs seeds; tells what went wrong; replays. */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "common/pool.h"
#include "tests/sim/campaign.h"
#include "tests/sim/cluster.h"
#include "tests/sim/plots.h"

struct options {
    char *seed_file, *keep;
    uint64_t seed, seeds, first, run_ns, settle_ns, operations, jobs, limit_s, copies, each;
    bool verbose, twice, no_faults, stop, rot, moves;
};
#define OPTION(n, k, field, d, v, h)                                                                         \
    {                                                                                                        \
        .name = n, .kind = k, .offset = offsetof(struct options, field), .def = d, .value_name = v,          \
        .help = h                                                                                            \
    }
/* The address sanitizer looks for leaks when a process ends. */
#ifdef __SANITIZE_ADDRESS__
#define EACH "1"
#else
#define EACH "64"
#endif
static const struct config_option table[] = {
    OPTION("seed", CONFIG_UINT, seed, NULL, "N", "run this one seed, in this process"),
    OPTION("seeds", CONFIG_UINT, seeds, NULL, "COUNT", "run COUNT seeds, from --first on"),
    OPTION("first", CONFIG_UINT, first, "1", "N", "the first of --seeds"),
    OPTION("file", CONFIG_STRING, seed_file, NULL, "FILE",
           "run the seeds in FILE (a line: SEED [COPIES [moves] [rot]] # comment)"),
    OPTION("run", CONFIG_DURATION, run_ns, "4s", "TIME", "virtual time with faults"),
    OPTION("settle", CONFIG_DURATION, settle_ns, "60s", "TIME",
           "virtual time for requests to end once faults are gone"),
    OPTION("operations", CONFIG_UINT, operations, "1000", "COUNT", "operations of each client, at most"),
    OPTION("copies", CONFIG_UINT, copies, NULL, "COUNT",
           "copies that the pool keeps; 0: one, two or three, as the seed has it"),
    OPTION("jobs", CONFIG_UINT, jobs, NULL, "COUNT",
           "processes at once, for --seeds and --file; 0: one a processor"),
    OPTION("each", CONFIG_UINT, each, EACH, "COUNT",
           "runs of one process after another (1: leaks are told, where they can be)"),
    OPTION("keep", CONFIG_STRING, keep, NULL, "FILE",
           "add the seeds that fail to FILE, which --file can read"),
    OPTION("stop", CONFIG_BOOL, stop, NULL, NULL, "end with the first seed that fails"),
    OPTION("moves", CONFIG_BOOL, moves, NULL, NULL,
           "modules are emptied, removed, added and weighed meanwhile, and replaced when they stay away"),
    OPTION("limit", CONFIG_UINT, limit_s, "120", "SECONDS", "real time for one seed of --seeds or --file"),
    OPTION("twice", CONFIG_BOOL, twice, NULL, NULL, "run each seed twice and compare the trace hashes"),
    OPTION("no-faults", CONFIG_BOOL, no_faults, NULL, NULL, "let nothing go wrong"),
    OPTION(
        "rot", CONFIG_BOOL, rot, NULL, NULL,
        "data of one module rot, and nothing else goes wrong: with several copies nobody may see an error"),
    OPTION("verbose", CONFIG_BOOL, verbose, NULL, NULL, "the services' logs"),
    {.name = NULL},
};
static const struct config_spec spec = {
    .program = "cistern-sim",
    .summary =
        "Runs a whole cluster in one process on a virtual clock, with faults, and checks that it kept its promises.\n"
        "Exit codes: 0 all seeds good, 10 wrong data, 11 stuck, 12 could not begin, 13 not deterministic, 1 a crash.",
    .options = table,
};

static void quiet(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static enum sim_result run_once(const struct options *o, const struct campaign_run *run, uint64_t *hash,
                                bool report)
{
    struct sim_options so = {.seed = run->seed,
                             .run_ns = o->run_ns,
                             .settle_ns = o->settle_ns,
                             .operations = (unsigned)o->operations,
                             .verbose = o->verbose,
                             .no_faults = o->no_faults,
                             .rot = run->rot,
                             .copies = run->copies,
                             .moves = run->moves};
    struct sim_cluster *c;
    char why[16384];
    MUST(sim_cluster_create(&so, &c) == 0);
    enum sim_result result = sim_cluster_run(c, why, sizeof(why));
    *hash = trace_hash(c->trace);
    if (result == SIM_WRONG && report && !c->error[0])
        history_print(c->history);
    if (result != SIM_OK && o->verbose) {
        fflush(stdout);
        trace_dump(c->trace, STDOUT_FILENO, 200);
    }
    if (result != SIM_OK)
        printf("seed %" PRIu64 " copies %u%s FAILED: %s\n", run->seed, run->copies, campaign_kind(run, ""),
               why);
    else if (report)
        printf("seed %" PRIu64 " copies %u ok: %" PRIu64 " operations done, %" PRIu64 " failed, %" PRIu64
               " sector records, %" PRIu64 " kills (%" PRIu64 " with power loss), %" PRIu64
               " pauses, %" PRIu64 " cuts, %" PRIu64 " disconnects, %" PRIu64 " media faults, %" PRIu64
               " take-overs, %" PRIu64 " volume operations, %" PRIu64 " detaches, %" PRIu64
               " without space, %" PRIu64 " ghosts, %" PRIu64 " restores, %" PRIu64 " jumps, %" PRIu64
               " rots, %" PRIu64 " units repaired, %" PRIu64 " damaged reads, %" PRIu64
               " cache misses, %" PRIu64 " changes of modules, plot \"%s\" %u times, %" PRIu64
               " events, trace %016" PRIx64 "\n",
               run->seed, run->copies, c->completed, c->failed_ops, history_count(c->history), c->kills,
               c->power_losses, c->pauses, c->cuts, c->disconnects, c->media_faults, c->takeovers,
               c->admin_calls, c->detaches, c->no_space, c->ghosts, c->restores, c->jumps, c->rots,
               c->repaired, c->damaged, c->misses, c->move_calls, c->plot ? c->plot->name : "none", c->acts,
               sim_world_steps(c->world), *hash);
    fflush(stdout);
    sim_cluster_destroy(c);
    return result;
}

static int run_seed(const struct options *o, const struct campaign_run *run, bool report)
{
    uint64_t first = 0, second = 0;
    enum sim_result result = run_once(o, run, &first, report);
    if (result == SIM_OK && o->twice) {
        result = run_once(o, run, &second, false);
        if (result == SIM_OK && first != second) {
            printf("seed %" PRIu64 " copies %u%s FAILED: two runs differ: trace %016" PRIx64
                   " and %016" PRIx64 "\n",
                   run->seed, run->copies, campaign_kind(run, ""), first, second);
            return 13;
        }
    }
    return (int)result;
}

static int run_one_of_many(void *arg, const struct campaign_run *run)
{
    int result = run_seed(arg, run, false);
    fflush(stdout);
    return result;
}

static unsigned copies_of(const struct options *o, uint64_t seed)
{
    if (o->copies)
        return (unsigned)min_u64(o->copies, SIM_OSDS);
    return 1 + (unsigned)((seed * 0x9e3779b97f4a7c15ull >> 32) % 3);
}

/* Of a file, or from --first on. NULL: no such file, which it says. */
static struct campaign_run *list_runs(const struct options *o, size_t *count)
{
    FILE *f = o->seed_file ? fopen(o->seed_file, "r") : NULL;
    struct campaign_run *runs = calloc(o->seeds + 1, sizeof(*runs));
    char line[256];
    size_t n = 0;
    MUST(runs);
    for (; !o->seed_file && n < o->seeds; n++)
        runs[n] = (struct campaign_run){o->first + n, copies_of(o, o->first + n), o->moves, o->rot};
    if (o->seed_file && !f) {
        fprintf(stderr, "cistern-sim: cannot open '%s': %s\n", o->seed_file, strerror(errno));
        free(runs);
        return NULL;
    }
    while (f && fgets(line, sizeof(line), f)) {
        uint64_t seed;
        unsigned copies = 1;
        char *comment = strchr(line, '#');
        if (comment)
            *comment = 0;
        if (sscanf(line, "%" SCNu64 " %u", &seed, &copies) < 1)
            continue;
        runs = realloc(runs, (n + 1) * sizeof(*runs));
        MUST(runs);
        runs[n++] = (struct campaign_run){seed, copies, o->moves || strstr(line, "moves"),
                                          o->rot || strstr(line, "rot")};
    }
    if (f)
        fclose(f);
    *count = n;
    return runs;
}

static int run_many(struct options *o, const char *program)
{
    struct campaign c = {.limit_s = (unsigned)o->limit_s,
                         .each = (unsigned)max_u64(o->each, 1),
                         .first = o->stop,
                         .keep = o->keep,
                         .again = program,
                         .run = run_one_of_many,
                         .arg = o};
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    c.jobs = o->jobs ? (unsigned)min_u64(o->jobs, 64) : processors > 0 ? (unsigned)processors : 1;
    struct campaign_run *runs = list_runs(o, &c.count);
    if (!runs)
        return 2;
    c.runs = runs;
    int rc = campaign_go(&c);
    free(runs);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o;
    /* Processes are born and die all the time: their memory is kept for the next one, not given back. */
    (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 512 << 20);
    (void)prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* each uses a few pages of many pools */
    pool_touch_late();
    int rc = config_parse(&spec, argc, argv, &o);
    if (rc)
        return rc == 1 ? 0 : 2;
    if (!o.verbose)
        log_set_sink(quiet, NULL);
    if (o.seeds == 0 && !o.seed_file) {
        struct campaign_run run = {o.seed, copies_of(&o, o.seed), o.moves, o.rot};
        rc = run_seed(&o, &run, true);
    } else {
        rc = run_many(&o, argv[0]);
    }
    config_free(&spec, &o);
    return rc;
}
