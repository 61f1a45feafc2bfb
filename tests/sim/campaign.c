#include "tests/sim/campaign.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX 64u
#define NO_RUN      SIZE_MAX

/* Shared with the workers. */
struct board {
    _Atomic size_t next, done, failed;
    _Atomic bool stop;
    _Atomic size_t at[WORKERS_MAX]; /* the run that it is at */
    _Atomic int worst;
};
struct crew {
    const struct campaign *c;
    struct board *board;
    pid_t pid[WORKERS_MAX];
    unsigned workers, running;
    size_t crashed;
    struct timespec begun;
    bool terminal;
};

const char *campaign_kind(const struct campaign_run *run, const char *mark)
{
    static char text[32];
    snprintf(text, sizeof(text), "%s%s%s%s%s%s", run->moves ? " " : "", run->moves ? mark : "",
             run->moves ? "moves" : "", run->rot ? " " : "", run->rot ? mark : "", run->rot ? "rot" : "");
    return text;
}

static void keep(const struct campaign *c, const struct campaign_run *run, const char *what)
{
    FILE *f = c->keep ? fopen(c->keep, "a") : NULL;
    if (!f)
        return;
    fprintf(f, "%" PRIu64 " %u%s # %s\n", run->seed, run->copies, campaign_kind(run, ""), what);
    fclose(f);
}

static const char *result_text(int result)
{
    return result == 10   ? "wrong"
           : result == 11 ? "stuck"
           : result == 12 ? "could not begin"
                          : "not deterministic";
}

static void worker(struct crew *w, unsigned me)
{
    const struct campaign *c = w->c;
    struct board *b = w->board;
    for (unsigned n = 0; n < c->each && !atomic_load(&b->stop); n++) {
        size_t i = atomic_fetch_add(&b->next, 1);
        if (i >= c->count)
            break;
        atomic_store(&b->at[me], i);
        alarm(c->limit_s); /* a run that spins for ever ends by SIGALRM: reported as a crash */
        int result = c->run(c->arg, &c->runs[i]);
        alarm(0);
        if (result) {
            keep(c, &c->runs[i], result_text(result));
            atomic_fetch_add(&b->failed, 1);
            atomic_store(&b->worst, result);
            atomic_store(&b->stop, c->first || atomic_load(&b->stop));
        }
        atomic_fetch_add(&b->done, 1);
        if (c->each > 1) /* else a leak would be told after it, and belongs to this run */
            atomic_store(&b->at[me], NO_RUN);
    }
    exit(0);
}

static void hire(struct crew *w, unsigned i)
{
    fflush(stdout);
    fflush(stderr);
    atomic_store(&w->board->at[i], NO_RUN);
    w->pid[i] = fork();
    MUST(w->pid[i] >= 0);
    if (w->pid[i] == 0)
        worker(w, i);
    w->running++;
}

/* The worker's end, if it is one to speak of. */
static void buried(struct crew *w, unsigned i, int status)
{
    const struct campaign *c = w->c;
    struct board *b = w->board;
    size_t at = atomic_load(&b->at[i]);
    w->pid[i] = 0;
    w->running--;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    if (at == NO_RUN) {
        fprintf(stderr, "a worker ended between two runs (status %d)\n", status);
    } else {
        bool late = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
        const struct campaign_run *r = &c->runs[at];
        printf("seed %" PRIu64 " copies %u%s FAILED: %s", r->seed, r->copies, campaign_kind(r, ""),
               late ? "took too long" : "crashed");
        printf(" (see it again: %s --seed %" PRIu64 " --copies %u%s)\n", c->again, r->seed, r->copies,
               campaign_kind(r, "--"));
        fflush(stdout);
        keep(c, r, late ? "took too long" : "crashed");
        if (c->each > 1)
            atomic_fetch_add(&b->done, 1);
    }
    w->crashed++;
    atomic_fetch_add(&b->failed, 1);
    atomic_store(&b->worst, 1);
    atomic_store(&b->stop, c->first || atomic_load(&b->stop));
}

static double seconds_since(const struct timespec *begun)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begun->tv_sec) + 1e-9 * (double)(now.tv_nsec - begun->tv_nsec);
}

static void progress(const struct crew *w)
{
    size_t done = atomic_load(&w->board->done), failed = atomic_load(&w->board->failed);
    double spent = seconds_since(&w->begun);
    unsigned left = done ? (unsigned)(spent / (double)done * (double)(w->c->count - done)) : 0;
    fprintf(stderr, "%s%zu of %zu runs, %zu failed, %.1f a second, %u:%02u:%02u left%s",
            w->terminal ? "\r\033[K" : "", done, w->c->count, failed, (double)done / spent, left / 3600,
            left / 60 % 60, left % 60, w->terminal ? "" : "\n");
    fflush(stderr);
}

/* Until a worker ends, or it is time to say something. */
static bool reap(struct crew *w, int *status, unsigned *who)
{
    static const struct timespec second = {.tv_sec = 1};
    unsigned seconds = 0;
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    for (;;) {
        pid_t pid = waitpid(-1, status, WNOHANG);
        MUST(pid >= 0);
        for (*who = 0; pid > 0 && *who < w->workers; (*who)++)
            if (w->pid[*who] == pid)
                return true;
        if (pid > 0)
            return false;
        if (sigtimedwait(&child, NULL, &second) < 0 && errno == EAGAIN &&
            (w->terminal || ++seconds % 30 == 0))
            progress(w);
    }
}

static void summary(const struct crew *w)
{
    size_t done = atomic_load(&w->board->done), failed = atomic_load(&w->board->failed);
    struct rusage r;
    getrusage(RUSAGE_CHILDREN, &r);
    double cpu = (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
                 1e-6 * (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
    if (w->terminal)
        fprintf(stderr, "\r\033[K");
    printf(
        "%zu passed, %zu failed (%zu of them crashed or took too long); %.0f s, %.0f ms of a processor for each run\n",
        done > failed ? done - failed : 0, failed, w->crashed, seconds_since(&w->begun),
        done ? 1e3 * cpu / (double)done : 0);
    if (failed && w->c->keep)
        printf("those that failed were added to %s\n", w->c->keep);
}

int campaign_go(const struct campaign *c)
{
    struct crew w = {.c = c, .workers = c->jobs < 1 ? 1 : c->jobs > WORKERS_MAX ? WORKERS_MAX : c->jobs};
    sigset_t child, before;
    w.board = mmap(NULL, sizeof(*w.board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(w.board != MAP_FAILED);
    w.terminal = isatty(STDERR_FILENO);
    clock_gettime(CLOCK_MONOTONIC, &w.begun);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &before);
    for (unsigned i = 0; i < w.workers && i < c->count; i++)
        hire(&w, i);
    while (w.running > 0) {
        int status;
        unsigned who;
        if (!reap(&w, &status, &who))
            continue;
        buried(&w, who, status);
        if (atomic_load(&w.board->next) < c->count && !atomic_load(&w.board->stop))
            hire(&w, who);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    summary(&w);
    int worst = atomic_load(&w.board->worst);
    munmap(w.board, sizeof(*w.board));
    return worst;
}
