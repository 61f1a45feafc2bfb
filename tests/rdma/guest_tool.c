/*
 * guest_tool.c: looks at a cluster from outside, for the tests in guests. Lines begin with the time of day in
 * ms.
 *
 * guest_tool SECRET-FILE LOCAL COMMAND ADDR [NUMBER]
 *   counters          the service's counters, "name value"
 *   watch [MS]        a connection: up, down and why; with a ping every MS
 *   many COUNT        so many connections at once: until all are up
 *   serve [PATIENT]   takes connections: up, down and why; until killed. Not 0: for many, whose signs of life
 *                     an emulated CPU may hear late
 *   table MS          a copy of the tables, refreshed every MS; a line a second, until killed
 *
 * LOCAL is the address of this host's device ("rdma:10.0.0.1:0").
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/config.h"
#include "common/loop.h"
#include "common/rng.h"
#include "rdma/rpc.h"
#include "services/cluster/cluster.h"

static struct loop *loop;
static struct rng rng;
static struct env env = {.name = "guest_tool"};
static struct fabric_addr addr;
static unsigned ups, downs;
static bool ended;
static struct rpc_call ping_call;
static bool ping_out;
static unsigned pings;
static bool again; /* who is refused connects again: a service takes a few hundred strangers at a time */

static uint64_t now_ms(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void say(const char *what, const char *why)
{
    printf("%lu %s%s%s\n", (unsigned long)now_ms(CLOCK_REALTIME), what, *why ? " " : "", why);
    fflush(stdout);
}

static struct rpc_peer *connect_to(void);

static void on_up(void *service, struct rpc_peer *peer)
{
    (void)service;
    (void)peer;
    ups++;
}

static void on_up_serving(void *service, struct rpc_peer *peer)
{
    on_up(service, peer);
    say("up", "");
}

static void on_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    (void)service;
    (void)peer;
    if (again) {
        (void)connect_to();
        return;
    }
    downs++;
    if (ping_out)
        say("WRONG", "a call has not ended before down");
    say("down", fabric_down_text(reason));
}

static const struct rpc_events events = {.up = on_up, .down = on_down};
static const struct rpc_service service = {.events = &events};

static struct rpc_peer *connect_to(void)
{
    struct rpc_peer *peer;
    const int rc = rpc_connect(&env, &addr, FABRIC_DOMAIN_HOST, &service, &peer);
    if (rc != 0) {
        fprintf(stderr, "guest_tool: cannot connect: %s\n", strerror(-rc));
        exit(1);
    }
    return peer;
}

static void run_until_up(unsigned count)
{
    while (ups < count && downs == 0)
        loop_run_once(loop, UINT64_MAX);
}

/* ---- commands ---- */

static void counters_done(struct rpc_call *call, const struct rpc_result *r)
{
    (void)call;
    ended = true;
    if (r->rc != 0 || r->status != 0) {
        fprintf(stderr, "guest_tool: no counters: rc %d, status %u\n", r->rc, r->status);
        exit(1);
    }
    fwrite(r->body, 1, r->body_len, stdout);
}

static int counters(void)
{
    struct rpc_call call = {
        .method = RPC_METHOD_COUNTERS, .timeout_ns = 10 * NS_PER_S, .done = counters_done};
    struct rpc_peer *peer = connect_to();
    run_until_up(1);
    if (downs || rpc_call_start(peer, &call) != 0)
        return 1;
    while (!ended)
        loop_run_once(loop, UINT64_MAX);
    return 0;
}

static void ping_done(struct rpc_call *call, const struct rpc_result *r)
{
    (void)call;
    if (!ping_out)
        say("WRONG", "a call ended twice");
    ping_out = false;
    pings++;
    if (r->rc != 0)
        say("call ended", strerror(-r->rc));
    else if (pings == 1)
        say("answered", "");
}

static int watch(uint64_t ping_ms)
{
    struct rpc_peer *peer = connect_to();
    run_until_up(1);
    if (ups)
        say("up", "");
    while (!downs) {
        loop_run_once(loop, (ping_ms ? ping_ms : 1000) * NS_PER_MS);
        if (!ping_ms || ping_out || downs)
            continue;
        ping_call = (struct rpc_call){.method = RPC_METHOD_PING, .done = ping_done};
        ping_out = rpc_call_start(peer, &ping_call) == 0;
    }
    return 0;
}

static int many(unsigned count)
{
    const uint64_t begin = now_ms(CLOCK_MONOTONIC);
    again = true;
    for (unsigned i = 0; i < count; i++)
        (void)connect_to();
    run_until_up(count);
    printf("%u connections up in %lu ms\n", ups, (unsigned long)(now_ms(CLOCK_MONOTONIC) - begin));
    return ups == count ? 0 : 1;
}

static int serve(void)
{
    static const struct rpc_events serving = {.up = on_up_serving, .down = on_down};
    const struct rpc_service s = {.events = &serving};
    struct rpc_listener *l;
    if (rpc_listen(&env, &addr, &s, ~0u, &l) != 0)
        return 1;
    say("serving", "");
    for (;;)
        loop_run_once(loop, UINT64_MAX);
}

static int table_watch(uint64_t refresh_ms)
{
    struct cluster *c;
    struct cluster_config config = {.mdc = {addr},
                                    .mdc_count = 1,
                                    .role = FABRIC_ROLE_CLIENT,
                                    .host = "guest",
                                    .name = "guest_tool",
                                    .instance = 1,
                                    .refresh_ns = refresh_ms * NS_PER_MS};
    if (cluster_create(&env, &config, NULL, NULL, &c) != 0)
        return 1;
    for (uint64_t next = 0;;) {
        loop_run_once(loop, 100 * NS_PER_MS);
        if (now_ms(CLOCK_MONOTONIC) < next)
            continue;
        next = now_ms(CLOCK_MONOTONIC) + 1000;
        struct cluster_counters n;
        struct fabric_counters f;
        const struct table *t = cluster_table(c);
        cluster_counters_get(c, &n);
        fabric_counters_get(env.fabric, &f);
        printf(
            "%lu table version=%lu heartbeat=%lu session=%d refreshes=%lu reads=%lu sent=%lu received=%lu\n",
            (unsigned long)now_ms(CLOCK_REALTIME), t ? (unsigned long)table_head(t)->version : 0,
            t ? (unsigned long)table_head(t)->heartbeat : 0, cluster_session_is_up(c),
            (unsigned long)n.refreshes, (unsigned long)f.reads, (unsigned long)f.messages_sent,
            (unsigned long)f.messages_received);
        fflush(stdout);
    }
}

static int run(int argc, char **argv)
{
    const char *what = argv[3];
    const unsigned long number = argc > 5 ? strtoul(argv[5], NULL, 10) : 0;
    if (strcmp(what, "counters") == 0)
        return counters();
    if (strcmp(what, "watch") == 0)
        return watch(number);
    if (strcmp(what, "many") == 0)
        return many((unsigned)number);
    if (strcmp(what, "serve") == 0)
        return serve();
    if (strcmp(what, "table") == 0)
        return table_watch(number);
    return 2;
}

int main(int argc, char **argv)
{
    struct fabric_config config = {.role = FABRIC_ROLE_ADMIN};
    if (argc < 5 || fabric_addr_parse(argv[2], &config.local) != 0 ||
        fabric_addr_parse(argv[4], &addr) != 0 ||
        config_read_cluster_secret(argv[1], config.secret, sizeof(config.secret), &config.secret_len) != 0) {
        fprintf(stderr,
                "usage: guest_tool SECRET-FILE LOCAL counters|watch|many|serve|table ADDR [NUMBER]\n");
        return 2;
    }
    if (strcmp(argv[3], "table") == 0)
        config.role = FABRIC_ROLE_CLIENT;
    if (strcmp(argv[3], "many") == 0 || strcmp(argv[3], "serve") == 0)
        config.connect_timeout_ns = 120 * NS_PER_S; /* a thousand at once take longer than one may */
    if (strcmp(argv[3], "many") == 0 || (strcmp(argv[3], "serve") == 0 && argc > 5)) {
        config.probe_interval_ns = 10 * NS_PER_S;
        config.probe_timeout_ns = 60 * NS_PER_S;
    }
    rng_init_system(&rng);
    config.incarnation = rng_u64(&rng) | 1;
    int rc = loop_create_real(NULL, &loop);
    env.loop = loop;
    env.rng = &rng;
    if (rc == 0)
        rc = fabric_create(&env, (enum fabric_provider_kind)addr.provider, &config, &env.fabric);
    if (rc != 0) {
        fprintf(stderr, "guest_tool: cannot start: %s\n", strerror(-rc));
        return 1;
    }
    rc = run(argc, argv);
    fflush(stdout);
    _exit(rc); /* as a process that is killed: nothing is put in order */
}
