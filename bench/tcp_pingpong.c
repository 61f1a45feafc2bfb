/*
 * tcp_pingpong.c: the floor under every figure of a network block store on this machine: two processes that
 * block in read(2) and send each other messages over loopback tcp, and do nothing else.
 *
 * tcp_pingpong [--request BYTES] [--reply BYTES] [--runtime TIME]
 * Prints one line of JSON: round trips and their latencies in ns, and the CPU time of both processes per
 * round trip.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/config.h"
#include "services/ctl/bench.h"

enum { WARMUP = 200 };

struct options {
    uint64_t request, reply, runtime_ns;
};
static const struct config_option option_table[] = {
    {.name = "request",
     .kind = CONFIG_SIZE,
     .offset = offsetof(struct options, request),
     .def = "4k",
     .min = 1,
     .max = MIB,
     .help = "bytes there"},
    {.name = "reply",
     .kind = CONFIG_SIZE,
     .offset = offsetof(struct options, reply),
     .def = "4k",
     .min = 1,
     .max = MIB,
     .help = "bytes back"},
    {.name = "runtime",
     .kind = CONFIG_DURATION,
     .offset = offsetof(struct options, runtime_ns),
     .def = "2s",
     .help = "for so long"},
    {.name = NULL},
};
static const struct config_spec spec = {
    .program = "tcp_pingpong", .summary = "A bare tcp ping-pong over loopback.", .options = option_table};

static uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint64_t cpu_ns(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * NS_PER_S +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * NS_PER_US;
}

static bool send_all(int fd, const uint8_t *buf, size_t len)
{
    for (size_t sent = 0; sent < len;) {
        const ssize_t n = write(fd, buf + sent, len - sent);
        if (n <= 0)
            return false;
        sent += (size_t)n;
    }
    return true;
}

static bool receive_all(int fd, uint8_t *buf, size_t len)
{
    for (size_t got = 0; got < len;) {
        const ssize_t n = read(fd, buf + got, len - got);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

static void serve(int fd, const struct options *o, uint8_t *buf)
{
    while (receive_all(fd, buf, o->request) && send_all(fd, buf, o->reply))
        continue;
}

/* A connected pair over loopback. */
static int connect_pair(int pair[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    const int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    pair[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || pair[0] < 0 || bind(listener, (struct sockaddr *)&addr, len) != 0 ||
        listen(listener, 1) != 0 || getsockname(listener, (struct sockaddr *)&addr, &len) != 0 ||
        connect(pair[0], (struct sockaddr *)&addr, len) != 0 || (pair[1] = accept(listener, NULL, NULL)) < 0)
        return -errno;
    close(listener);
    for (int i = 0; i < 2; i++)
        setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return 0;
}

static bool measure(int fd, const struct options *o, uint8_t *buf, struct bench_hist *h)
{
    const uint64_t end = clock_ns() + o->runtime_ns;
    for (uint64_t i = 0, now = clock_ns(); now < end; i++) {
        const uint64_t start = now;
        if (!send_all(fd, buf, o->request) || !receive_all(fd, buf, o->reply))
            return false;
        now = clock_ns();
        if (i >= WARMUP)
            bench_hist_add(h, now - start);
    }
    return true;
}

static int run(const struct options *o, uint8_t *buf)
{
    static struct bench_hist h;
    int pair[2] = {-1, -1};
    const int rc = connect_pair(pair);
    if (rc != 0) {
        fprintf(stderr, "tcp_pingpong: cannot connect over loopback: %s\n", strerror(-rc));
        return 1;
    }
    const pid_t child = fork();
    if (child == 0) {
        close(pair[0]);
        serve(pair[1], o, buf);
        _exit(0);
    }
    close(pair[1]);
    if (child < 0 || !measure(pair[0], o, buf, &h) || h.count == 0) {
        fprintf(stderr, "tcp_pingpong: the connection broke or the runtime was too short\n");
        return 1;
    }
    close(pair[0]);
    waitpid(child, NULL, 0);
    printf(
        "{\"ops\": %lu, \"avg_ns\": %lu, \"p50_ns\": %lu, \"p99_ns\": %lu, \"p999_ns\": %lu, \"max_ns\": %lu, \"cpu_ns_per_op\": %lu}\n",
        (unsigned long)h.count, (unsigned long)bench_hist_average(&h),
        (unsigned long)bench_hist_quantile(&h, 5000), (unsigned long)bench_hist_quantile(&h, 9900),
        (unsigned long)bench_hist_quantile(&h, 9990), (unsigned long)h.max_ns,
        (unsigned long)((cpu_ns(RUSAGE_SELF) + cpu_ns(RUSAGE_CHILDREN)) / (h.count + WARMUP)));
    return 0;
}

int main(int argc, char **argv)
{
    struct options o;
    const int rc = config_parse(&spec, argc, argv, &o);
    if (rc != 0)
        return rc > 0 ? 0 : 2;
    uint8_t *buf = calloc(1, max_u64(o.request, o.reply));
    if (buf == NULL)
        return 1;
    const int status = run(&o, buf);
    free(buf);
    config_free(&spec, &o);
    return status;
}
