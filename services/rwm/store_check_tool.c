/* store_check_tool.c: see store_check_tool.h. */
#include "services/rwm/store_check_tool.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "services/rwm/store_check_print.h"

#define SHOWN_PER_KIND 20u
#define JSON_PER_KIND  10000u

struct tool {
    struct env *env;
    const struct store_tool_options *options;
    struct store_finding *findings;
    size_t count, room;
    char **actions;
    size_t action_count, action_room;
    uint64_t seen[STORE_FINDINGS];
    uint64_t began_ns, told_ns;
    bool terminal, quiet, progress_line;
};

static volatile sig_atomic_t stop_asked;

static void on_signal(int sig)
{
    (void)sig;
    stop_asked = 1;
}

static void signals(void (*handler)(int))
{
    struct sigaction sa = {.sa_handler = handler,
                           .sa_flags = (int)SA_RESETHAND}; /* a second one ends it at once */
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

/* ---- options ---- */
bool store_tool_wanted(int argc, char **argv)
{
    static const char *const names[] = {"--check", "--repair-metadata", "--dry-run", "--json"};
    for (int i = 1; i < argc; i++) {
        for (size_t n = 0; n < ARRAY_LEN(names); n++) {
            if (strncmp(argv[i], names[n], strlen(names[n])) == 0)
                return true;
        }
    }
    return false;
}

void store_tool_table(const struct config_option *table, size_t count, const char *keep,
                      struct config_option *out)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = table[i];
        out[i].required = table[i].required && strcmp(table[i].name, keep) == 0;
    }
}

int store_tool_sane(const struct store_tool_options *o)
{
    const char *why = NULL;
    if (!o->check && !o->repair)
        why = o->dry_run || o->json || o->read_data || o->from
                  ? "--dry-run, --json, --check-data and --check-from belong to "
                    "--check or --repair-metadata"
                  : NULL;
    else if (o->dry_run && !o->repair)
        why = "--dry-run belongs to --repair-metadata; --check never writes";
    else if (o->from && !o->read_data)
        why = "--check-from belongs to --check-data";
    if (!why)
        return 0;
    fprintf(stderr, "%s\n", why);
    return -EINVAL;
}

void store_tool_log(const char *text)
{
    enum log_level level = LOG_WARN_;
    if (strcmp(text, "info") != 0) /* the default of the option, and more than a report needs */
        (void)log_parse_level(text, &level);
    log_set_level(level);
}

int store_tool_failed(const struct store_tool_options *o, const char *path, int rc)
{
    const char *what = rc == -EBUSY     ? "in use: stop the service that has it (or unmount it) first"
                       : rc == -ENOENT  ? "not there"
                       : rc == -ENOTBLK ? "neither a file nor a disk"
                       : rc == -EACCES || rc == -EPERM
                           ? "not allowed: this user needs to read it, and to write it for a repair"
                       : rc == -ETIMEDOUT ? "no answer"
                                          : strerror(-rc);
    if (o->json)
        check_print_json_refused(stdout, path, what);
    fprintf(stderr, "cannot check %s: %s\n", path, what);
    return STORE_TOOL_REFUSED;
}

/* ---- findings and progress ---- */
static void *grown(void *items, size_t *room, size_t count, size_t bytes)
{
    if (count < *room)
        return items;
    *room = *room ? *room * 2 : 64;
    void *more = realloc(items, *room * bytes);
    MUST(more);
    return more;
}

static void line_end(struct tool *t)
{
    if (t->progress_line)
        fputc('\n', stderr);
    t->progress_line = false;
}

static void found(void *arg, const struct store_finding *f)
{
    struct tool *t = arg;
    uint64_t n = t->seen[f->kind]++;
    if (t->quiet)
        return;
    if (t->options->json) {
        if (n >= JSON_PER_KIND)
            return;
        t->findings = grown(t->findings, &t->room, t->count, sizeof *f);
        t->findings[t->count++] = *f;
        return;
    }
    line_end(t);
    if (n < SHOWN_PER_KIND)
        check_print_finding(stdout, f);
    fflush(stdout);
}

/* At a terminal each second, on one line; else twice a minute. */
static void progress(void *arg, uint64_t done, uint64_t total)
{
    struct tool *t = arg;
    uint64_t now = loop_clock_ns(t->env->loop), took = now - t->began_ns;
    char a[24], b[24], rate[24], left[24];
    if (t->quiet || (!t->terminal && now - t->told_ns < 30 * NS_PER_S) || done == 0 || took == 0)
        return;
    t->told_ns = now;
    double per_second = (double)done * (double)NS_PER_S / (double)took;
    uint64_t left_ns = (uint64_t)((double)(total - min_u64(done, total)) / per_second) * NS_PER_S;
    fprintf(stderr, "%sdata: %s of %s, %s/s, about %s left%s", t->terminal ? "\r" : "", format_size(done, a),
            format_size(total, b), format_size((uint64_t)per_second, rate), format_duration(left_ns, left),
            t->terminal ? "    " : "\n");
    fflush(stderr);
    t->progress_line = t->terminal;
}

static bool stopped(void *arg)
{
    (void)arg;
    return stop_asked != 0;
}

static int check(struct tool *t, struct device *data, struct device *journal, bool read_data,
                 struct store_check **out)
{
    const struct store_check_options options = {.data = read_data,
                                                .from_entry = t->options->from,
                                                .found = found,
                                                .progress = progress,
                                                .stop = stopped,
                                                .arg = t};
    memset(t->seen, 0, sizeof t->seen);
    t->began_ns = t->told_ns = loop_clock_ns(t->env->loop);
    *out = NULL;
    int rc = store_check_run(t->env, data, journal, &options, out);
    line_end(t);
    for (unsigned k = 0; k < STORE_FINDINGS && !t->quiet && !t->options->json; k++) {
        if (t->seen[k] > SHOWN_PER_KIND)
            printf("           and %lu more: %s\n", (unsigned long)(t->seen[k] - SHOWN_PER_KIND),
                   store_finding_words(k));
    }
    return rc;
}

/* ---- repair ---- */
static void told(void *arg, const char *text)
{
    struct tool *t = arg;
    if (!t->options->json)
        printf("  %s %s\n", t->options->dry_run ? "would write" : "wrote", text);
    t->actions = grown(t->actions, &t->action_room, t->action_count, sizeof *t->actions);
    t->actions[t->action_count] = strdup(text);
    MUST(t->actions[t->action_count]);
    t->action_count++;
}

static int exit_of(int rc, const struct store_check_report *r)
{
    if (rc == -EINTR)
        return STORE_TOOL_STOPPED;
    if (rc || r->worst == STORE_LEVEL_REFUSED)
        return STORE_TOOL_REFUSED;
    return r->worst >= STORE_LEVEL_ERROR ? STORE_TOOL_ERRORS : STORE_TOOL_CLEAN;
}

/* Behind a first check. *second: what a check behind the repair said. */
static void repair(struct tool *t, struct store_check *first, struct device *data, struct device *journal,
                   struct check_outcome *o, struct store_check **second)
{
    const struct store_check_report *r = store_check_report(first);
    if (o->rc || !r->complete || r->worst == STORE_LEVEL_REFUSED || !r->repairable) {
        if (!t->options->json)
            printf("  nothing %s\n", r->complete && !o->rc ? "is to be repaired"
                                                           : "was repaired: first mend what is said above");
        return;
    }
    int rc = t->options->dry_run ? 0 : store_repair_flush(first);
    if (rc == 0)
        rc = store_repair(first, t->options->dry_run, told, t, &o->written);
    if (t->options->dry_run) {
        o->written = 0;
        return;
    }
    t->quiet = true;
    int again = check(t, data, journal, false, second);
    t->quiet = false;
    if (rc)
        fprintf(stderr, "the repair came to an end early: %s; what was written so far is good\n",
                strerror(-rc));
    o->rc = rc ? rc : again;
    if (*second)
        o->left = store_check_report(*second);
    o->exit_code = o->left ? exit_of(again, o->left) : STORE_TOOL_REFUSED;
    /* Damage that was known before, and data that were read before, stay what they were. */
    if (o->exit_code == STORE_TOOL_CLEAN)
        o->exit_code = STORE_TOOL_CORRECTED;
    if (rc || (o->exit_code == STORE_TOOL_CORRECTED &&
               r->counts[STORE_FINDING_UNITS_BAD] + r->counts[STORE_FINDING_UNITS_UNREADABLE]))
        o->exit_code = STORE_TOOL_ERRORS;
}

static void end(struct tool *t)
{
    for (size_t i = 0; i < t->action_count; i++)
        free(t->actions[i]);
    free(t->actions);
    free(t->findings);
}

int store_tool_run(struct env *env, const struct store_tool_options *options, const char *command,
                   bool can_repair, struct device *data, struct device *journal)
{
    struct tool t = {.env = env, .options = options, .terminal = isatty(STDERR_FILENO) && !options->json};
    struct store_check *first = NULL, *second = NULL;
    struct check_outcome o = {.data = data->name,
                              .journal = journal ? journal->name : NULL,
                              .command = command,
                              .repair = options->repair,
                              .dry_run = options->dry_run,
                              .can_repair = can_repair};
    stop_asked = 0;
    signals(on_signal);
    o.rc = check(&t, data, journal, options->read_data, &first);
    if (!first) {
        signals(SIG_DFL);
        end(&t);
        return store_tool_failed(options, data->name, o.rc);
    }
    o.before = store_check_report(first);
    o.exit_code = exit_of(o.rc, o.before);
    if (options->repair)
        repair(&t, first, data, journal, &o, &second);
    if (options->json)
        check_print_json(stdout, &o, t.findings, t.count, t.actions, t.action_count);
    else
        check_print_text(stdout, &o);
    signals(SIG_DFL);
    store_check_free(second);
    store_check_free(first);
    end(&t);
    return o.exit_code;
}
