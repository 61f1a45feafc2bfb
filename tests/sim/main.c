/* cistern-sim: runs seeds; tells what went wrong; replays. */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "tests/sim/cluster.h"

struct options {
    char *seed_file;
    uint64_t seed, seeds, first, run_ns, settle_ns, operations, jobs, limit_s, copies;
    bool verbose, twice, no_faults;
};
#define OPTION(n, k, field, d, v, h)                                                                         \
    {                                                                                                        \
        .name = n, .kind = k, .offset = offsetof(struct options, field), .def = d, .value_name = v,          \
        .help = h                                                                                            \
    }
static const struct config_option table[] = {
    OPTION("seed", CONFIG_UINT, seed, NULL, "N", "run this one seed, in this process"),
    OPTION("seeds", CONFIG_UINT, seeds, NULL, "COUNT", "run COUNT seeds, from --first on"),
    OPTION("first", CONFIG_UINT, first, "1", "N", "the first of --seeds"),
    OPTION("file", CONFIG_STRING, seed_file, NULL, "FILE", "run the seeds in FILE (one a line, # comments)"),
    OPTION("run", CONFIG_DURATION, run_ns, "4s", "TIME", "virtual time with faults"),
    OPTION("settle", CONFIG_DURATION, settle_ns, "60s", "TIME",
           "virtual time for requests to end once faults are gone"),
    OPTION("operations", CONFIG_UINT, operations, "400", "COUNT", "operations of each client"),
    OPTION("copies", CONFIG_UINT, copies, "1", "COUNT", "copies that the pool keeps"),
    OPTION("jobs", CONFIG_UINT, jobs, "2", "COUNT", "processes at once, for --seeds and --file"),
    OPTION("limit", CONFIG_UINT, limit_s, "120", "SECONDS", "real time for one seed of --seeds or --file"),
    OPTION("twice", CONFIG_BOOL, twice, NULL, NULL, "run each seed twice and compare the trace hashes"),
    OPTION("no-faults", CONFIG_BOOL, no_faults, NULL, NULL, "let nothing go wrong"),
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

static enum sim_result run_once(const struct options *o, uint64_t seed, uint64_t *hash, bool report)
{
    struct sim_options so = {.seed = seed,
                             .run_ns = o->run_ns,
                             .settle_ns = o->settle_ns,
                             .operations = (unsigned)o->operations,
                             .verbose = o->verbose,
                             .no_faults = o->no_faults,
                             .copies = (unsigned)o->copies};
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
        printf("seed %" PRIu64 " FAILED: %s\n", seed, why);
    else if (report)
        printf("seed %" PRIu64 " ok: %" PRIu64 " operations done, %" PRIu64 " failed, %" PRIu64
               " sector records, %" PRIu64 " kills (%" PRIu64 " with power loss), %" PRIu64
               " pauses, %" PRIu64 " cuts, %" PRIu64 " disconnects, %" PRIu64 " media faults, %" PRIu64
               " take-overs, %" PRIu64 " volume operations, %" PRIu64 " detaches, %" PRIu64
               " without space, %" PRIu64 " ghosts, %" PRIu64 " restores, %" PRIu64 " jumps, %" PRIu64
               " rots, %" PRIu64 " damaged reads, %" PRIu64 " cache misses, %" PRIu64
               " events, trace %016" PRIx64 "\n",
               seed, c->completed, c->failed_ops, history_count(c->history), c->kills, c->power_losses,
               c->pauses, c->cuts, c->disconnects, c->media_faults, c->takeovers, c->admin_calls, c->detaches,
               c->no_space, c->ghosts, c->restores, c->jumps, c->rots, c->damaged, c->misses,
               sim_world_steps(c->world), *hash);
    fflush(stdout);
    sim_cluster_destroy(c);
    return result;
}

static int run_seed(const struct options *o, uint64_t seed, bool report)
{
    uint64_t first = 0, second = 0;
    enum sim_result result = run_once(o, seed, &first, report);
    if (result == SIM_OK && o->twice) {
        result = run_once(o, seed, &second, false);
        if (result == SIM_OK && first != second) {
            printf("seed %" PRIu64 " FAILED: two runs differ: trace %016" PRIx64 " and %016" PRIx64 "\n",
                   seed, first, second);
            return 13;
        }
    }
    return (int)result;
}

/* Each worker takes every jobs-th seed in children of its own, so that a crash names its seed and the others
 * go on. */
static int run_many(const struct options *o, const uint64_t *seeds, size_t count)
{
    size_t next = 0, running = 0, failed = 0;
    int worst = 0;
    struct {
        pid_t pid;
        uint64_t seed;
    } child[64] = {{0, 0}};
    size_t jobs = o->jobs < 1 ? 1 : o->jobs > 64 ? 64 : o->jobs;
    while (next < count || running > 0) {
        while (next < count && running < jobs) {
            fflush(stdout);
            size_t i = 0;
            while (child[i].pid)
                i++;
            child[i].seed = seeds[next++];
            child[i].pid = fork();
            MUST(child[i].pid >= 0);
            if (child[i].pid == 0) {
                alarm((unsigned)
                          o->limit_s); /* a run that spins for ever ends by SIGALRM: reported as a crash */
                exit(run_seed(o, child[i].seed, false));
            }
            running++;
        }
        int status;
        pid_t pid = wait(&status);
        for (size_t i = 0; i < jobs; i++) {
            if (child[i].pid != pid)
                continue;
            int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
            if (code) {
                failed++;
                if (code == 1 || !WIFEXITED(status))
                    printf("seed %" PRIu64 " FAILED: crashed (replay: cistern-sim --seed %" PRIu64 ")\n",
                           child[i].seed, child[i].seed);
                worst = code;
            }
            child[i].pid = 0;
            running--;
            if ((next - running) % 100 == 0)
                fprintf(stderr, "%zu of %zu seeds, %zu failed\n", next - running, count, failed);
        }
    }
    printf("%zu passed, %zu failed\n", count - failed, failed);
    return worst;
}

static uint64_t *read_seeds(const char *path, size_t *count)
{
    FILE *f = fopen(path, "r");
    uint64_t *seeds = NULL;
    char line[256];
    *count = 0;
    if (!f) {
        fprintf(stderr, "cistern-sim: cannot open '%s': %s\n", path, strerror(errno));
        return NULL;
    }
    while (fgets(line, sizeof(line), f)) {
        char *end;
        uint64_t seed = strtoull(line, &end, 10);
        if (end == line)
            continue;
        seeds = realloc(seeds, (*count + 1) * sizeof(*seeds));
        MUST(seeds);
        seeds[(*count)++] = seed;
    }
    fclose(f);
    return seeds;
}

int main(int argc, char **argv)
{
    struct options o;
    /* Processes are born and die all the time: their memory is kept for the next one, not given back. */
    (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 512 << 20);
    int rc = config_parse(&spec, argc, argv, &o);
    if (rc)
        return rc == 1 ? 0 : 2;
    if (!o.verbose)
        log_set_sink(quiet, NULL);
    if (o.seeds == 0 && !o.seed_file) {
        rc = run_seed(&o, o.seed, true);
    } else {
        size_t count = o.seeds;
        uint64_t *seeds = o.seed_file ? read_seeds(o.seed_file, &count) : calloc(count, sizeof(*seeds));
        if (!seeds && count)
            return 2;
        for (size_t i = 0; !o.seed_file && i < count; i++)
            seeds[i] = o.first + i;
        rc = run_many(&o, seeds, count);
        free(seeds);
    }
    config_free(&spec, &o);
    return rc;
}
