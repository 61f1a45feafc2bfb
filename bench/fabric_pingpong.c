/*
 * fabric_pingpong.c: requests and replies over rpc on the tcp fabric, one client and one server, in two
 * processes.
 *
 * fabric_pingpong [--depth N] [--size BYTES] [--count N] [--read|--write] [--spin US]
 * Prints round trips per second and the latencies of a run. An echo carries --size bytes in the body,
 * --read and --write as payload.
 */
#include "common/crc.h"
#include "common/env.h"
#include "common/loop.h"
#include "common/rng.h"
#include "rdma/rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 256
enum { M_ECHO = 1, M_WRITE = 2, M_READ = 3 };

struct shard {
    struct loop *loop;
    struct rng rng;
    struct env env;
};
static unsigned depth = 1, size = 4096, method = M_ECHO;
static uint64_t count = 100000, spin_us;

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void shard_start(struct shard *s, const char *name)
{
    struct fabric_config c;
    struct loop_options o = {.spin_ns = spin_us * NS_PER_US};
    memset(&c, 0, sizeof(c));
    c.role = FABRIC_ROLE_MODULE;
    rng_init_system(&s->rng);
    MUST(loop_create_real(&o, &s->loop) == 0);
    s->env = (struct env){.loop = s->loop, .rng = &s->rng, .name = name};
    MUST(fabric_create_tcp(&s->env, &c, &s->env.fabric) == 0);
}

/* ---- the server ---- */

static struct {
    struct shard shard;
    unsigned char *blob;
    uint32_t crc;
    bool gone;
} srv;

static void h_echo(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    (void)service;
    rpc_reply(req, 0, body, len);
}
static void fetched(void *arg, int rc)
{
    rpc_reply(arg, rc ? 5 : 0, NULL, 0);
}
static void h_write(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    (void)service;
    (void)body;
    (void)len;
    struct fabric_sge sge = {.base = srv.blob, .len = rpc_request_payload_len(req)};
    MUST(rpc_request_fetch(req, &sge, 1, fetched, req) == 0);
}
static void h_read(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    (void)service;
    (void)body;
    (void)len;
    struct fabric_sge sge = {.base = srv.blob, .len = rpc_request_sink_len(req)};
    rpc_reply_payload(req, 0, NULL, 0, &sge, 1, srv.crc, NULL, NULL);
}
static void server_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    (void)service;
    (void)peer;
    (void)reason;
    srv.gone = true;
}
static const struct rpc_method methods[] = {
    {M_ECHO, "echo", h_echo, 0}, {M_WRITE, "write", h_write, 0}, {M_READ, "read", h_read, 0}};
static const struct rpc_events server_events = {.down = server_down};

static void print_cpu(const char *who)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    uint64_t us = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
                  (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    printf("%s: cpu %.2f us a round trip\n", who, (double)us / (double)count);
}

static void serve(int port_fd)
{
    struct fabric_addr a;
    struct rpc_listener *l;
    struct rpc_service s = {.methods = methods, .method_count = ARRAY_LEN(methods), .events = &server_events};
    shard_start(&srv.shard, "server");
    srv.blob = calloc(1, size + 1);
    srv.crc = crc32c(srv.blob, size);
    MUST(fabric_addr_parse("tcp:127.0.0.1:0", &a) == 0);
    MUST(rpc_listen(&srv.shard.env, &a, &s, ~0u, &l) == 0);
    rpc_listener_addr(l, &a);
    MUST(write(port_fd, &a, sizeof(a)) == (ssize_t)sizeof(a));
    while (!srv.gone)
        loop_run_once(srv.shard.loop, UINT64_MAX);
    print_cpu("server");
    rpc_listener_destroy(l, true);
    fabric_destroy(srv.shard.env.fabric);
    loop_destroy(srv.shard.loop);
    free(srv.blob);
}

/* ---- the client ---- */

struct request {
    struct rpc_call call;
    struct fabric_sge sge;
    uint64_t start_ns;
};
static struct {
    struct shard shard;
    struct rpc_peer *peer;
    struct request requests[DEPTH_MAX];
    unsigned char *blob;
    uint32_t crc;
    uint64_t started, ended, *latency_ns;
    bool up;
} cli;

static void request_done(struct rpc_call *call, const struct rpc_result *r);

static void request_start(struct request *q)
{
    if (cli.started == count)
        return;
    cli.started++;
    memset(&q->call, 0, sizeof(q->call));
    q->call.method = (uint16_t)method;
    q->call.done = request_done;
    q->sge = (struct fabric_sge){.base = cli.blob, .len = size};
    if (method == M_ECHO) {
        q->call.body = cli.blob;
        q->call.body_len = size;
    } else if (method == M_WRITE) {
        q->call.source = &q->sge;
        q->call.source_count = 1;
        q->call.source_crc = cli.crc;
    } else {
        q->call.sink = &q->sge;
        q->call.sink_count = 1;
    }
    q->start_ns = now_ns();
    MUST(rpc_call_start(cli.peer, &q->call) == 0);
}
static void request_done(struct rpc_call *call, const struct rpc_result *r)
{
    struct request *q = container_of(call, struct request, call);
    MUST(r->rc == 0 && r->status == 0);
    cli.latency_ns[cli.ended++] = now_ns() - q->start_ns;
    request_start(q);
}
static void client_up(void *service, struct rpc_peer *peer)
{
    (void)service;
    (void)peer;
    cli.up = true;
}
static const struct rpc_events client_events = {.up = client_up};

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void call_all(const struct fabric_addr *addr)
{
    struct rpc_service s = {.events = &client_events};
    shard_start(&cli.shard, "client");
    cli.blob = calloc(1, size + 1);
    cli.crc = crc32c(cli.blob, size);
    cli.latency_ns = calloc(count, sizeof(*cli.latency_ns));
    MUST(rpc_connect(&cli.shard.env, addr, FABRIC_DOMAIN_CLUSTER, &s, &cli.peer) == 0);
    while (!cli.up)
        loop_run_once(cli.shard.loop, UINT64_MAX);
    uint64_t start = now_ns();
    for (unsigned i = 0; i < depth; i++)
        request_start(&cli.requests[i]);
    while (cli.ended < count)
        loop_run_once(cli.shard.loop, UINT64_MAX);
    uint64_t ns = now_ns() - start;
    qsort(cli.latency_ns, count, sizeof(*cli.latency_ns), by_value);
    printf("%u bytes, depth %u: %.0f a second, %.1f MB/s, p50 %.1f us, p99 %.1f us\n", size, depth,
           (double)count * 1e9 / (double)ns, (double)count * size * 1e3 / (double)ns,
           (double)cli.latency_ns[count / 2] / 1e3, (double)cli.latency_ns[count * 99 / 100] / 1e3);
    print_cpu("client");
    rpc_close(cli.peer);
    loop_run_once(cli.shard.loop, 0);
    fabric_destroy(cli.shard.env.fabric);
    loop_destroy(cli.shard.loop);
    free(cli.blob);
    free(cli.latency_ns);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "0";
        if (!strcmp(argv[i], "--depth"))
            depth = (unsigned)strtoul(value, NULL, 10), i++;
        else if (!strcmp(argv[i], "--size"))
            size = (unsigned)strtoul(value, NULL, 10), i++;
        else if (!strcmp(argv[i], "--count"))
            count = strtoull(value, NULL, 10), i++;
        else if (!strcmp(argv[i], "--spin"))
            spin_us = strtoull(value, NULL, 10), i++;
        else if (!strcmp(argv[i], "--write"))
            method = M_WRITE;
        else if (!strcmp(argv[i], "--read"))
            method = M_READ;
    }
    bool fits = size <= FABRIC_PAYLOAD_MAX && (method != M_ECHO || size <= RPC_BODY_MAX);
    if (depth < 1 || depth > DEPTH_MAX || count < depth || !fits) {
        fprintf(stderr,
                "usage: %s [--depth 1..256] [--size BYTES] [--count N] [--read|--write] [--spin US]\n",
                argv[0]);
        return 2;
    }
    int port[2];
    struct fabric_addr a;
    MUST(pipe(port) == 0);
    pid_t child = fork();
    MUST(child >= 0);
    if (child == 0) {
        serve(port[1]);
        return 0;
    }
    MUST(read(port[0], &a, sizeof(a)) == (ssize_t)sizeof(a));
    call_all(&a);
    waitpid(child, NULL, 0);
    return 0;
}
