/* service_main.c: see service_main.h. */
#include "common/service_main.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"

#define READY_BYTES 512

static struct loop *_Atomic signalled_loop;
static atomic_int interrupts;

static void on_signal(int number)
{
    if (number == SIGINT && atomic_fetch_add(&interrupts, 1) > 0)
        _exit(128 + SIGINT);
    struct loop *loop = atomic_load(&signalled_loop);
    if (loop != NULL)
        loop_stop(loop);
}

static void set_handler(int number, void (*handler)(int))
{
    struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    MUST(sigaction(number, &sa, NULL) == 0);
}

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_warn(NULL, "cannot raise the limit of open files", "error=\"%s\"", strerror(errno));
}

/* ---- files ---- */

static int write_all(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

static int lock_pid_file(int fd)
{
    char text[32];
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    if (ftruncate(fd, 0) != 0)
        return -errno;
    snprintf(text, sizeof text, "%ld\n", (long)getpid());
    return write_all(fd, text);
}

static int open_pid_file(const char *path, int *out)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    int rc = fd >= 0 ? lock_pid_file(fd) : -errno;
    if (rc == 0) {
        *out = fd;
        return 0;
    }
    if (rc == -EBUSY)
        log_error(NULL, "already running: another process holds the pid file", "file=%s", path);
    else
        log_error(NULL, "cannot write the pid file", "file=%s error=\"%s\"", path, strerror(-rc));
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Written beside and renamed, so that whoever waits for the file finds it whole. */
static int write_ready_file(const char *path, const char *line)
{
    char part[4096];
    int n = snprintf(part, sizeof part, "%s.part", path);
    if (n < 0 || (size_t)n >= sizeof part)
        return -ENAMETOOLONG;
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    int rc = write_all(fd, line);
    close(fd);
    if (rc == 0 && rename(part, path) != 0)
        rc = -errno;
    if (rc != 0)
        unlink(part);
    return rc;
}

/* ---- the service manager's socket: sd_notify(3) says what is sent there ---- */

static int notify(const char *message)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (path == NULL || path[0] == '\0')
        return 0;
    size_t len = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || len >= sizeof addr.sun_path)
        return -EINVAL;
    memcpy(addr.sun_path, path, len);
    if (path[0] == '@')
        addr.sun_path[0] = '\0'; /* abstract */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    socklen_t addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    ssize_t n = sendto(fd, message, strlen(message), MSG_NOSIGNAL, (struct sockaddr *)&addr, addr_len);
    int rc = n < 0 ? -errno : 0;
    close(fd);
    return rc;
}

/* ---- the interface ---- */

int service_main_start(struct service_main *sm, struct loop *loop, const struct service_options *options)
{
    enum log_level level;
    *sm = (struct service_main){.loop = loop, .options = options, .pid_fd = -1};
    if (options->log_level != NULL) {
        if (log_parse_level(options->log_level, &level) != 0) {
            log_error(NULL, "unknown log level; use debug, info, warn or error", "level=%s",
                      options->log_level);
            return -EINVAL;
        }
        log_set_level(level);
    }
    if (options->pid_file != NULL) {
        int rc = open_pid_file(options->pid_file, &sm->pid_fd);
        if (rc != 0)
            return rc;
    }
    if (options->ready_file != NULL)
        unlink(options->ready_file);
    raise_file_limit();
    atomic_store(&interrupts, 0);
    atomic_store(&signalled_loop, loop);
    set_handler(SIGPIPE, SIG_IGN);
    set_handler(SIGTERM, on_signal);
    set_handler(SIGINT, on_signal);
    return 0;
}

static int report(const char *where, int rc, int earlier)
{
    if (rc == 0)
        return earlier;
    log_warn(NULL, "cannot say that the service is ready", "to=%s error=\"%s\"", where, strerror(-rc));
    return earlier != 0 ? earlier : rc;
}

int service_main_ready(struct service_main *sm, const char *detail)
{
    char line[READY_BYTES], message[READY_BYTES + 32];
    const struct service_options *o = sm->options;
    const char *space = detail[0] != '\0' ? " " : "";
    int rc = 0;
    snprintf(line, sizeof line, "ready%s%.*s\n", space, READY_BYTES - 16, detail);
    snprintf(message, sizeof message, "READY=1\nSTATUS=%s", line);
    if (o->ready_file != NULL)
        rc = report(o->ready_file, write_ready_file(o->ready_file, line), rc);
    if (o->ready_fd != 0) {
        rc = report("the ready descriptor", write_all((int)o->ready_fd, line), rc);
        close((int)o->ready_fd);
    }
    return report("NOTIFY_SOCKET", notify(message), rc);
}

void service_main_stopping(struct service_main *sm)
{
    (void)sm;
    (void)notify("STOPPING=1\n");
}

void service_main_end(struct service_main *sm)
{
    if (atomic_load(&signalled_loop) == sm->loop) {
        set_handler(SIGTERM, SIG_DFL);
        set_handler(SIGINT, SIG_DFL);
        set_handler(SIGPIPE, SIG_DFL);
        atomic_store(&signalled_loop, NULL);
        if (sm->options->ready_file != NULL)
            unlink(sm->options->ready_file);
    }
    if (sm->pid_fd >= 0) {
        /* While the lock is held: nobody else's file can be there. */
        unlink(sm->options->pid_file);
        close(sm->pid_fd);
        sm->pid_fd = -1;
    }
}
