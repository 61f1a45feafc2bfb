/*
 * metrics_http.c: the HTTP thread and its one way to the loop.
 *
 * The snapshot has one owner at a time: `asked` false, the HTTP thread's; true, the loop's, which gives it
 * back by setting asked to false. So neither waits for a lock of the other.
 */
#include "common/metrics_http.h"

#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics_process.h"

#define CONNECTIONS_MAX      64u
#define CONNECTION_BYTES     16384u
#define CONNECTION_TIMEOUT_S 5u
#define FRESH_NS             (100 * NS_PER_MS) /* younger figures are told again */
#define ANSWER_NS            (500 * NS_PER_MS) /* what the loop gets to answer */
#define BEAT_NS              NS_PER_S
/* A loop that has not turned for so long does not live: far above what an overloaded machine causes, since
 * whoever asks will end the process. */
#define ALIVE_NS        (15 * NS_PER_S)
#define TEXT_MAX        (64 * MIB)
#define CONTENT_TEXT    "text/plain; charset=utf-8"
#define CONTENT_METRICS "text/plain; version=0.0.4; charset=utf-8"

struct metrics_http {
    struct env *env;
    struct metrics_http_config config;
    struct MHD_Daemon *daemon;
    uint16_t port;
    int answer_fd; /* eventfd: the loop has answered */
    _Atomic bool asked, stopping;
    _Atomic uint64_t beat_ns; /* when the loop turned last */
    struct loop_timer beat;
    struct loop_task ask;
    struct metrics_snapshot *snapshot; /* the loop's while asked */
    /* the HTTP thread's */
    uint64_t taken_ns; /* when the snapshot was; 0 = never */
    char *text;        /* of it; NULL: not made yet */
    size_t text_len;
    char build_labels[METRICS_LABELS_MAX];
};

static uint64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* ---- on the loop ---- */

static void on_beat(struct loop_timer *timer)
{
    struct metrics_http *h = container_of(timer, struct metrics_http, beat);
    atomic_store(&h->beat_ns, loop_clock_ns(h->env->loop));
    loop_timer_arm(h->env->loop, timer, BEAT_NS);
}

static void on_ask(struct loop_task *task)
{
    struct metrics_http *h = container_of(task, struct metrics_http, ask);
    const uint64_t one = 1;
    metrics_snapshot_clear(h->snapshot);
    h->config.collect(h->config.user, h->snapshot);
    atomic_store(&h->asked, false);
    ssize_t n = write(h->answer_fd, &one, sizeof one);
    (void)n; /* full: it is readable, then */
}

/* ---- on the HTTP thread ---- */

/* Waits for the loop, not longer than until end_ns. */
static bool answered(struct metrics_http *h, uint64_t end_ns)
{
    uint64_t count;
    for (;;) {
        if (!atomic_load(&h->asked))
            return true;
        const uint64_t now_ns = clock_ns();
        if (now_ns >= end_ns || atomic_load(&h->stopping))
            return false;
        struct pollfd fd = {.fd = h->answer_fd, .events = POLLIN};
        poll(&fd, 1, (int)((end_ns - now_ns) / NS_PER_MS + 1));
        ssize_t n = read(h->answer_fd, &count, sizeof count);
        (void)n; /* nothing there: the time is over, or a signal came */
    }
}

/* Fresh figures in h->snapshot. False: the loop does not answer. It is asked anew only when it has answered:
 * with one that hangs nobody waits but the first. */
static bool take_figures(struct metrics_http *h)
{
    const uint64_t now_ns = clock_ns();
    if (atomic_load(&h->asked)) {
        if (!answered(h, 0))
            return false;
    } else {
        if (h->taken_ns != 0 && now_ns - h->taken_ns < FRESH_NS)
            return true;
        atomic_store(&h->asked, true);
        MUST(loop_post(h->env->loop, &h->ask) == 0);
        if (!answered(h, now_ns + ANSWER_NS))
            return false;
    }
    h->taken_ns = clock_ns();
    free(h->text);
    h->text = NULL;
    return true;
}

static enum MHD_Result reply(struct MHD_Connection *conn, unsigned status, const char *type, const char *text,
                             size_t len)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(len, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (r == NULL)
        return MHD_NO;
    enum MHD_Result rc = MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (rc == MHD_YES)
        rc = MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (rc == MHD_YES && status == MHD_HTTP_METHOD_NOT_ALLOWED)
        rc = MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    if (rc == MHD_YES)
        rc = MHD_queue_response(conn, status, r);
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result reply_line(struct MHD_Connection *conn, unsigned status, const char *line)
{
    return reply(conn, status, CONTENT_TEXT, line, strlen(line));
}

static enum MHD_Result not_answered(struct MHD_Connection *conn)
{
    return reply_line(conn, MHD_HTTP_SERVICE_UNAVAILABLE,
                      "the service does not answer: its event loop is stuck, or its host is overloaded\n");
}

static bool make_text(struct metrics_http *h)
{
    if (h->text != NULL)
        return true;
    metrics_process(h->snapshot, h->build_labels);
    const size_t len = metrics_text(h->snapshot, NULL, 0);
    char *text = len < TEXT_MAX ? malloc(len + 1) : NULL;
    if (text == NULL)
        return false;
    MUST(metrics_text(h->snapshot, text, len + 1) == len);
    h->text = text;
    h->text_len = len;
    return true;
}

static enum MHD_Result serve_metrics(struct metrics_http *h, struct MHD_Connection *conn)
{
    if (!take_figures(h))
        return not_answered(conn);
    if (!make_text(h))
        return reply_line(conn, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
    return reply(conn, MHD_HTTP_OK, CONTENT_METRICS, h->text, h->text_len);
}

static enum MHD_Result serve_healthz(struct metrics_http *h, struct MHD_Connection *conn)
{
    char line[128];
    const uint64_t beat_ns = atomic_load(&h->beat_ns), now_ns = clock_ns();
    if (now_ns < beat_ns + ALIVE_NS)
        return reply_line(conn, MHD_HTTP_OK, "ok\n");
    snprintf(line, sizeof line, "the service's event loop has not turned for %lu s\n",
             (unsigned long)((now_ns - beat_ns) / NS_PER_S));
    return reply_line(conn, MHD_HTTP_SERVICE_UNAVAILABLE, line);
}

static enum MHD_Result serve_readyz(struct metrics_http *h, struct MHD_Connection *conn)
{
    char line[METRICS_WHY_MAX + 16];
    if (!take_figures(h))
        return not_answered(conn);
    const char *why = metrics_snapshot_why(h->snapshot), *but = metrics_snapshot_remarks(h->snapshot);
    if (why == NULL) {
        snprintf(line, sizeof line, "ready\n%s%s", but != NULL ? but : "", but != NULL ? "\n" : "");
        return reply_line(conn, MHD_HTTP_OK, line);
    }
    snprintf(line, sizeof line, "%s\n", why);
    return reply_line(conn, MHD_HTTP_SERVICE_UNAVAILABLE, line);
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *conn, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **state)
{
    struct metrics_http *h = user;
    (void)version;
    (void)upload;
    (void)upload_len;
    (void)state;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return reply_line(conn, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    if (strcmp(url, "/metrics") == 0)
        return serve_metrics(h, conn);
    if (strcmp(url, "/healthz") == 0)
        return serve_healthz(h, conn);
    if (strcmp(url, "/readyz") == 0)
        return serve_readyz(h, conn);
    return reply_line(conn, strcmp(url, "/") == 0 ? MHD_HTTP_OK : MHD_HTTP_NOT_FOUND,
                      "there are /metrics, /healthz and /readyz\n");
}

/* ---- life ---- */

/* Cuts "ADDR:PORT" up; false: it is not like that. */
static bool split_addr(const char *text, char *host, size_t room, const char **port)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon[1] == '\0')
        return false;
    size_t len = (size_t)(colon - text);
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    } else if (memchr(text, ':', len) != NULL) {
        return false; /* an IPv6 address without brackets */
    }
    if (len >= room)
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    *port = colon + 1;
    return true;
}

static int bind_to(const struct addrinfo *a, uint16_t *port)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    const int on = 1, off = 0;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6) /* "[::]" is every address */
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, (int)CONNECTIONS_MAX) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &len) != 0) {
        const int rc = -errno;
        close(fd);
        return rc;
    }
    *port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                              : ((struct sockaddr_in *)&bound)->sin_port);
    return fd;
}

/* A listening socket, or -errno. */
static int listen_on(const char *text, uint16_t *port_out)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *list;
    char host[64];
    const char *port;
    uint64_t number; /* getaddrinfo takes any, and forgets its upper bits */
    if (!split_addr(text, host, sizeof host, &port) || config_parse_uint(port, &number) != 0 ||
        number > UINT16_MAX)
        return -EINVAL;
    if (host[0] == '\0')
        snprintf(host, sizeof host, "::");
    if (getaddrinfo(host, port, &hints, &list) != 0)
        return -EINVAL;
    int fd = bind_to(list, port_out);
    freeaddrinfo(list);
    if (fd == -EAFNOSUPPORT && strcmp(host, "::") == 0) { /* a host without IPv6 */
        if (getaddrinfo("0.0.0.0", port, &hints, &list) != 0)
            return -EINVAL;
        fd = bind_to(list, port_out);
        freeaddrinfo(list);
    }
    return fd;
}

static void ignore_message(void *user, const char *fmt, va_list args)
{
    (void)user; /* of strangers' mistakes: no lines in the log */
    (void)fmt;
    (void)args;
}

/* The thread takes no signals: they are the loop's. */
static int start_thread(struct metrics_http *h, int fd)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    h->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        on_request, h, MHD_OPTION_EXTERNAL_LOGGER, ignore_message, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, CONNECTION_TIMEOUT_S,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return h->daemon != NULL ? 0 : -ENOMEM;
}

static int start(struct metrics_http *h)
{
    int rc = metrics_snapshot_create(&h->snapshot);
    if (rc != 0)
        return rc;
    h->answer_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->answer_fd < 0)
        return -errno;
    if (metrics_label(h->build_labels, sizeof h->build_labels, "service", h->config.service) != 0 ||
        metrics_label(h->build_labels, sizeof h->build_labels, "name", h->env->name) != 0 ||
        metrics_label(h->build_labels, sizeof h->build_labels, "version", CISTERN_VERSION) != 0)
        return -E2BIG;
    const int fd = listen_on(h->config.addr, &h->port);
    if (fd < 0)
        return fd;
    return start_thread(h, fd); /* the library's socket now */
}

int metrics_http_start(struct env *env, const struct metrics_http_config *config, struct metrics_http **out)
{
    struct metrics_http *h = calloc(1, sizeof *h);
    if (h == NULL)
        return -ENOMEM;
    h->env = env;
    h->config = *config;
    h->answer_fd = -1;
    loop_timer_init(&h->beat, on_beat);
    loop_task_init(&h->ask, on_ask);
    atomic_store(&h->beat_ns, loop_clock_ns(env->loop));
    const int rc = start(h);
    if (rc != 0) {
        log_error(env, "cannot serve metrics", "metrics=%s error=\"%s\"%s", config->addr, strerror(-rc),
                  rc == -EINVAL ? " hint=\"an address and a port, like 127.0.0.1:9470\"" : "");
        metrics_http_stop(h);
        return rc;
    }
    loop_timer_arm(env->loop, &h->beat, BEAT_NS);
    log_info(env, "serving metrics", "metrics=%s port=%u", config->addr, h->port);
    *out = h;
    return 0;
}

void metrics_http_stop(struct metrics_http *h)
{
    const uint64_t one = 1;
    if (h == NULL)
        return;
    atomic_store(&h->stopping, true);
    if (h->daemon != NULL) {
        ssize_t n = write(h->answer_fd, &one, sizeof one);
        (void)n;
        MHD_stop_daemon(h->daemon);
    }
    loop_task_cancel(h->env->loop, &h->ask);
    loop_timer_cancel(h->env->loop, &h->beat);
    metrics_snapshot_destroy(h->snapshot);
    if (h->answer_fd >= 0)
        close(h->answer_fd);
    free(h->text);
    free(h);
}

uint16_t metrics_http_port(const struct metrics_http *h)
{
    return h->port;
}
