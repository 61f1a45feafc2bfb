/* log.c: formats a line and hands it to the sink. */
#include "common/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "common/env.h"
#include "common/loop.h"

#define LINE_BYTES 2048

static _Atomic int min_level = LOG_INFO_;
static void (*sink_fn)(void *, enum log_level, const char *);
static void *sink_arg;

static const char *const level_names[] = {"DEBUG", "INFO", "WARN", "ERROR"};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&min_level, (int)level, memory_order_relaxed);
}

int log_parse_level(const char *text, enum log_level *out)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++)
        if (strcasecmp(text, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    return -EINVAL;
}

void log_set_sink(void (*sink)(void *arg, enum log_level level, const char *line), void *arg)
{
    sink_fn = sink;
    sink_arg = arg;
}

static const struct loop *loop_of(const struct env *env)
{
    return env != NULL && env->loop != NULL ? env->loop : loop_current();
}

/* One write a line, so that lines of several threads do not mix. Nothing can be done when stderr is gone. */
static void write_stderr(char *line, size_t len)
{
    line[len] = '\n';
    ssize_t rc = write(STDERR_FILENO, line, len + 1);
    (void)rc;
    line[len] = '\0';
}

void log_write(const struct env *env, enum log_level level, const char *msg, const char *fmt, ...)
{
    if ((int)level < atomic_load_explicit(&min_level, memory_order_relaxed))
        return;
    char line[LINE_BYTES];
    const size_t room = sizeof line - 1; /* for the newline */
    uint64_t wall_ns = loop_wall_ns(loop_of(env));
    time_t seconds = (time_t)(wall_ns / NS_PER_S);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t len = strftime(line, room, "%Y-%m-%dT%H:%M:%S", &tm);
    int n = snprintf(line + len, room - len, ".%03uZ %s %s msg=\"%s\"",
                     (unsigned)(wall_ns % NS_PER_S / NS_PER_MS), level_names[level],
                     env != NULL && env->name != NULL ? env->name : "-", msg);
    if (n > 0)
        len = min_u64(len + (size_t)n, room - 1);
    if (fmt != NULL && fmt[0] != '\0' && len + 1 < room) {
        line[len++] = ' ';
        va_list args;
        va_start(args, fmt);
        n = vsnprintf(line + len, room - len, fmt, args);
        va_end(args);
        len = n > 0 ? min_u64(len + (size_t)n, room - 1) : len - 1;
    }
    line[len] = '\0';
    /* What came from outside must not forge a second line. */
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 127)
            line[i] = '?';
    if (sink_fn != NULL)
        sink_fn(sink_arg, level, line);
    else
        write_stderr(line, len);
}

bool log_allow(const struct env *env, struct log_limit *l)
{
    uint64_t now_ns = loop_wall_ns(loop_of(env));
    /* A wall clock that was set back must not silence a place for long. */
    bool allowed = l->next_ns <= now_ns || l->next_ns - now_ns > l->interval_ns;
    if (l->reported)
        l->suppressed = 0;
    l->reported = allowed;
    if (allowed)
        l->next_ns = now_ns + l->interval_ns;
    else
        l->suppressed++;
    return allowed;
}
