/* main.c: runs seeds of the torture, each worker in a process of its own, and says which failed. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <malloc.h>
#include <unistd.h>

#include "tests/torture/torture.h"

enum { JOBS_MAX = 64, HANG_SECONDS = 120 /* of the processor: a busy machine is no fault */ };

static const struct kind {
    const char *name;
    void (*run)(struct torture *t);
    const char *what;
} kinds[] = {
    {"seeds", torture_seeds, "a random workload with crashes"},
    {"persist", torture_persist, "a crash after every persist of one kind of operation"},
    {"faults", torture_faults, "a fault at every request of one kind of operation"},
    {"rot", torture_rot, "flipped bits in any page"},
    {"media", torture_media, "media put back, swapped, cut off, blank, foreign"},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

struct job {
    const struct kind *kind;
    uint64_t seed;
};
static struct job *list;
static size_t listed, room;

/* What the workers tell: the job each has in hand. */
static struct shared {
    size_t next;
    struct worker {
        size_t job;
    } worker[JOBS_MAX];
    uint64_t crashes, opens, acknowledged;
} * shared;

static bool verbose, first_only;

static void add(const struct kind *kind, uint64_t seed)
{
    if (listed == room) {
        room = room ? room * 2 : 1024;
        list = realloc(list, room * sizeof list[0]);
        MUST(list);
    }
    list[listed++] = (struct job){kind, seed};
}

static void run_one(const struct job *j)
{
    static struct torture t;
    t.verbose = verbose;
    torture_init(&t, j->kind->name, j->seed);
    j->kind->run(&t);
    __atomic_add_fetch(&shared->crashes, t.crashes, __ATOMIC_RELAXED);
    __atomic_add_fetch(&shared->opens, t.opens, __ATOMIC_RELAXED);
    __atomic_add_fetch(&shared->acknowledged, t.acknowledged, __ATOMIC_RELAXED);
    torture_end(&t);
}

static void work(unsigned number)
{
    struct worker *w = &shared->worker[number];
    const struct itimerval hang = {.it_value.tv_sec = HANG_SECONDS};
    for (;;) {
        size_t i = __atomic_fetch_add(&shared->next, 1, __ATOMIC_RELAXED);
        if (i >= listed)
            _exit(0);
        w->job = i;
        setitimer(ITIMER_PROF, &hang, NULL); /* SIGPROF ends it */
        run_one(&list[i]);
    }
}

static pid_t start(unsigned number)
{
    fflush(stdout);
    fflush(stderr);
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0)
        work(number);
    return pid;
}

static unsigned run_all(unsigned jobs)
{
    pid_t pid[JOBS_MAX] = {0};
    unsigned failed = 0, alive = jobs;
    for (unsigned i = 0; i < jobs; i++)
        pid[i] = start(i);
    while (alive) {
        int status;
        pid_t ended = waitpid(-1, &status, 0);
        MUST(ended > 0);
        for (unsigned i = 0; i < jobs; i++) {
            if (pid[i] != ended)
                continue;
            pid[i] = 0;
            alive--;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                break;
            const struct job *j = &list[shared->worker[i].job];
            failed++;
            fprintf(stderr, "--only %s --seed %lu ended with %s %d\n", j->kind->name, (unsigned long)j->seed,
                    WIFEXITED(status) ? "exit" : "signal",
                    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
            if (first_only)
                shared->next = listed;
            else if (failed < 20) {
                pid[i] = start(i);
                alive++;
            }
        }
    }
    return failed;
}

static const struct kind *kind_named(const char *name)
{
    for (unsigned k = 0; k < KINDS; k++) {
        if (strcmp(kinds[k].name, name) == 0)
            return &kinds[k];
    }
    fprintf(stderr, "cistern-torture: no kind '%s'\n", name);
    exit(2);
}

static void add_file(const char *path)
{
    FILE *f = fopen(path, "r");
    char line[512], name[32];
    unsigned long seed;
    if (!f) {
        perror(path);
        exit(2);
    }
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%31s %lu", name, &seed) == 2 && name[0] != '#')
            add(kind_named(name), seed);
    }
    fclose(f);
}

static void usage(void)
{
    printf("Usage: cistern-torture [OPTION ...]\n"
           "  --seeds A-B     these seeds (default 1-100); --seed N: one\n"
           "  --only KIND     one kind of torture; may be given more than once (default: all)\n"
           "  --file FILE     lines of KIND SEED, instead of seeds\n"
           "  --jobs N        processes (default 2)\n"
           "  --first         end with the first failure\n"
           "  --verbose       with the store's log\n\n");
    for (unsigned k = 0; k < KINDS; k++)
        printf("  %-8s %s\n", kinds[k].name, kinds[k].what);
}

int main(int argc, char **argv)
{
    unsigned long first = 1, last = 100, jobs = 2;
    bool only[KINDS] = {0}, any = false;
    const char *file = NULL;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--verbose") == 0) {
            verbose = true;
            continue;
        }
        if (strcmp(argv[i], "--first") == 0) {
            first_only = true;
            continue;
        }
        if (strcmp(argv[i], "--seed") == 0)
            first = last = strtoul(value, NULL, 0);
        else if (strcmp(argv[i], "--seeds") == 0 && sscanf(value, "%lu-%lu", &first, &last) == 2)
            ;
        else if (strcmp(argv[i], "--only") == 0)
            any = only[kind_named(value) - kinds] = true;
        else if (strcmp(argv[i], "--file") == 0)
            file = value;
        else if (strcmp(argv[i], "--jobs") == 0 && (jobs = strtoul(value, NULL, 0)) >= 1 && jobs <= JOBS_MAX)
            ;
        else {
            usage();
            return strcmp(argv[i], "--help") == 0 ? 0 : 2;
        }
        i++;
    }
    for (unsigned long seed = first; seed <= last && !file; seed++) {
        for (unsigned k = 0; k < KINDS; k++) {
            if (!any || only[k])
                add(&kinds[k], seed);
        }
    }
    if (file)
        add_file(file);
    mallopt(M_MMAP_THRESHOLD, 1 << 30); /* the same memory over and over */
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(shared != MAP_FAILED);
    unsigned failed = run_all((unsigned)jobs);
    printf("%zu runs: %lu opens, %lu crashes, %lu requests acknowledged; %u failed\n", listed,
           (unsigned long)shared->opens, (unsigned long)shared->crashes, (unsigned long)shared->acknowledged,
           failed);
    free(list);
    return failed ? 1 : 0;
}
