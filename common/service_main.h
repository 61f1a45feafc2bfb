/*
 * service_main.h: what every service's main does around its loop: signals, limits, pid file, telling that it
 * is ready.
 *
 *     struct service_main sm;
 *     rc = service_main_start(&sm, loop, &opts.service);
 *     ... create the service ...
 *     service_main_ready(&sm, "listen=tcp:127.0.0.1:7100");
 *     loop_run(loop);
 *     service_main_stopping(&sm);
 *     ... destroy the service ...
 *     service_main_end(&sm);
 *
 * One of them a process (signals belong to the process). Thread: the main one, which also runs loop.
 */
#ifndef CISTERN_COMMON_SERVICE_MAIN_H
#define CISTERN_COMMON_SERVICE_MAIN_H

#include "common/base.h"
#include "common/config.h"
#include "common/loop.h"

/* The options that all services have. In the service's own options struct: struct service_options service;
 * and in its table: SERVICE_OPTIONS(struct my_options, service), */
struct service_options {
    char *pid_file;
    char *ready_file;
    uint64_t ready_fd; /* 0 = none */
    char *log_level;
    char *metrics; /* NULL: not served */
};
/* clang-format off */
#define SERVICE_OPTIONS(type, field)                                                             \
    {"pid-file", CONFIG_STRING, offsetof(type, field.pid_file), NULL, 0, 0, false, "FILE",       \
     "write the process id here, and hold a lock on it"},                                        \
    {"ready-file", CONFIG_STRING, offsetof(type, field.ready_file), NULL, 0, 0, false, "FILE",   \
     "create this file with one line when the service answers"},                                 \
    {"ready-fd", CONFIG_UINT, offsetof(type, field.ready_fd), NULL, 0, 65535, false, "FD",       \
     "write that line to this open descriptor, then close it"},                                  \
    {"log-level", CONFIG_STRING, offsetof(type, field.log_level), "info", 0, 0, false, "LEVEL",  \
     "debug, info, warn or error"},                                                              \
    {"metrics", CONFIG_STRING, offsetof(type, field.metrics), NULL, 0, 0, false, "ADDR:PORT",    \
     "serve /metrics (for Prometheus), /healthz and /readyz by HTTP here, like 127.0.0.1:9470"}
/* clang-format on */

struct service_main {
    struct loop *loop;
    const struct service_options *options;
    int pid_fd; /* holds the lock; -1 = none */
};

/*
 * SIGTERM and SIGINT stop the loop (a second SIGINT ends the process at once, for the impatient at a
 * terminal); SIGPIPE is ignored; the limit of open files is raised to the hard one; the log level is set; the
 * pid file is written. A ready file of an earlier run is removed. options must outlive sm. 0, or -errno after
 * a clear log line: -EBUSY when another process holds the pid file.
 */
int service_main_start(struct service_main *sm, struct loop *loop, const struct service_options *options);
/*
 * Says that the service answers: "ready " and detail ("" = none; where it listens, say), a line, to the ready
 * descriptor and the ready file (which appears whole), and READY=1 to the socket in NOTIFY_SOCKET
 * (sd_notify(3)), if asked for. 0, or -errno of the first that failed, after a log line; the others are tried
 * all the same.
 */
int service_main_ready(struct service_main *sm, const char *detail);
/* Tells a service manager that the end has begun. */
void service_main_stopping(struct service_main *sm);
/* Signals as the system has them at start, pid and ready files removed. Legal after a failed start too. */
void service_main_end(struct service_main *sm);

#endif
