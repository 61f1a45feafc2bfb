/*
 * log.h: one line an event: "2026-01-31T10:00:00.123Z INFO osd1 msg="partition opened" partition=12 epoch=3".
 * Goes to stderr unless log_set_sink. Nothing logs per I/O. In the simulator the sink is the trace.
 */
#ifndef CISTERN_COMMON_LOG_H
#define CISTERN_COMMON_LOG_H

#include "common/base.h"

enum log_level { LOG_DEBUG_ = 0, LOG_INFO_, LOG_WARN_, LOG_ERROR_ };

struct env;
/* fmt gives the key=value pairs after msg: log_info(env, "partition opened", "partition=%u epoch=%lu", p, e).
 * "" when there are none. env may be NULL (name "-"). Values with spaces are the caller's to quote. */
void log_write(const struct env *env, enum log_level level, const char *msg, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#define log_debug(env, msg, ...) log_write(env, LOG_DEBUG_, msg, __VA_ARGS__)
#define log_info(env, msg, ...)  log_write(env, LOG_INFO_, msg, __VA_ARGS__)
#define log_warn(env, msg, ...)  log_write(env, LOG_WARN_, msg, __VA_ARGS__)
#define log_error(env, msg, ...) log_write(env, LOG_ERROR_, msg, __VA_ARGS__)
/* Lines below this level are dropped; default LOG_INFO_. */
void log_set_level(enum log_level level);
int log_parse_level(const char *text, enum log_level *out);
/* sink gets the finished line without newline; NULL restores stderr. */
void log_set_sink(void (*sink)(void *arg, enum log_level level, const char *line), void *arg);

/*
 * At most one line per interval from one place: if (log_allow(env, &o->limit)) log_warn(...). Keep the limit
 * in the object that logs, not in a static: simulated processes share statics. Start: {.interval_ns =
 * NS_PER_S}.
 */
struct log_limit {
    uint64_t interval_ns;
    uint64_t next_ns;
    uint64_t suppressed; /* how many were dropped before the line that is allowed now */
    bool reported;       /* owned by log_allow */
};
bool log_allow(const struct env *env, struct log_limit *l);

#endif
