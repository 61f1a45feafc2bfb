/*
 * fuzz_fabric_frame.c: what comes from the network: the tcp provider's frames, rpc's header, and the
 * receiving state machine behind a real socket (the input is sent in two parts to a connection that is up).
 *
 * The first byte chooses: 0 decoders only; else the whole provider.
 */
#include "common/env.h"
#include "common/loop.h"
#include "common/rng.h"
#include "rdma/fabric_provider.h"
#include "rdma/fabric_tcp.h"
#include "rdma/rpc_internal.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void decoders(const uint8_t *data, size_t size)
{
    struct tcp_frame f;
    struct rpc_header h;
    for (int up = 0; up < 2; up++) {
        int n = tcp_frame_decode(data, size, up, &f);
        MUST(n <= (int)size);
        if (n <= 0)
            continue;
        MUST(tcp_frame_ok(&f, up) && (size_t)n == sizeof(f) + f.body_len);
        MUST(f.body_len <= FABRIC_MESSAGE_MAX && f.payload_len <= FABRIC_PAYLOAD_MAX);
    }
    if (size <= FABRIC_MESSAGE_MAX && rpc_header_decode(data, (uint32_t)size, &h) == 0)
        MUST(h.body_len == size - sizeof(h));
}

static struct fuzz {
    struct loop *loop;
    struct rng rng;
    struct env env;
    struct fabric *server, *client;
    struct rpc_listener *listener;
    struct fabric_conn *conn;
    struct fabric_mem *mem;
    unsigned char table[4096], blob[8192];
    int downs;
    bool up;
} z;

static void conn_up(struct fabric_conn *c, const struct fabric_peer *p)
{
    (void)c;
    (void)p;
    z.up = true;
}
static void conn_message(struct fabric_conn *c, const struct fabric_msg *m)
{
    (void)c;
    (void)m;
}
static void conn_down(struct fabric_conn *c, enum fabric_down reason)
{
    (void)reason;
    fabric_close(c);
    z.conn = NULL;
    z.downs++;
}
static const struct fabric_conn_events conn_events = {conn_up, conn_message, conn_down};

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
    struct fabric_sge sge = {.base = z.blob, .len = rpc_request_payload_len(req)};
    if (sge.len > sizeof(z.blob) || rpc_request_fetch(req, &sge, 1, fetched, req) != 0)
        rpc_reply(req, 1, NULL, 0);
}
static void h_read(void *service, struct rpc_request *req, const void *body, uint32_t len)
{
    (void)service;
    uint32_t want = (uint32_t)min_u64(rpc_request_sink_len(req), sizeof(z.blob));
    struct fabric_sge sge = {.base = z.blob, .len = want};
    rpc_reply_payload(req, 0, body, len, &sge, 1, 0, NULL, NULL);
}
static const struct rpc_method methods[] = {
    {1, "echo", h_echo, 0}, {2, "write", h_write, 4}, {3, "read", h_read, 0}};

static void step(int rounds)
{
    for (int i = 0; i < rounds; i++)
        loop_run_once(z.loop, 0);
}

static void start(void)
{
    struct fabric_config c;
    struct fabric_addr a;
    memset(&c, 0, sizeof(c));
    c.role = FABRIC_ROLE_MODULE;
    rng_seed(&z.rng, 1);
    MUST(loop_create_real(NULL, &z.loop) == 0);
    z.env = (struct env){.loop = z.loop, .rng = &z.rng, .name = "fuzz"};
    MUST(fabric_create_tcp(&z.env, &c, &z.server) == 0 && fabric_create_tcp(&z.env, &c, &z.client) == 0);
    z.env.fabric = z.server;
    struct rpc_service s = {.methods = methods, .method_count = ARRAY_LEN(methods)};
    MUST(fabric_addr_parse("tcp:127.0.0.1:0", &a) == 0);
    MUST(rpc_listen(&z.env, &a, &s, ~0u, &z.listener) == 0);
    MUST(fabric_mem_register(z.server, FABRIC_DOMAIN_CLUSTER, z.table, sizeof(z.table),
                             FABRIC_ACCESS_REMOTE_READ | FABRIC_ACCESS_REMOTE_WRITE, &z.mem) == 0);
}

static void provider(const uint8_t *data, size_t size)
{
    struct fabric_addr a;
    if (!z.loop)
        start();
    rpc_listener_addr(z.listener, &a);
    z.up = false;
    if (fabric_connect(z.client, &a, FABRIC_DOMAIN_CLUSTER, &conn_events, NULL, &z.conn) != 0)
        return;
    for (int i = 0; i < 1000 && !z.up && z.conn; i++)
        step(1);
    if (!z.conn)
        return;
    /* Straight into the socket, behind the back of our side. */
    int fd = container_of(z.conn, struct tcp_conn, core)->lfd.fd;
    size_t half = size ? data[0] % size : 0;
    (void)!send(fd, data, half, MSG_NOSIGNAL | MSG_DONTWAIT);
    step(2);
    if (z.conn)
        (void)!send(fd, data + half, size - half, MSG_NOSIGNAL | MSG_DONTWAIT);
    step(4);
    if (z.conn)
        fabric_close(z.conn);
    z.conn = NULL;
    struct fabric_counters c;
    for (int i = 0; i < 1000; i++) {
        fabric_counters_get(z.server, &c);
        if (c.conns_open == 0)
            break;
        step(1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 65536)
        return 0;
    decoders(data + 1, size - 1);
    if (data[0])
        provider(data + 1, size - 1);
    return 0;
}

/* One frame as an authenticated peer may send it; returns its length. */
static size_t seed_frame(struct rng *rng, uint8_t *out)
{
    static const uint8_t types[] = {TCP_FRAME_MESSAGE, TCP_FRAME_MESSAGE, TCP_FRAME_MESSAGE, TCP_FRAME_READ,
                                    TCP_FRAME_WRITE,   TCP_FRAME_BEAT,    TCP_FRAME_PUSH,    TCP_FRAME_CLOSE};
    struct tcp_frame f;
    memset(&f, 0, sizeof(f));
    f.magic = TCP_FRAME_MAGIC;
    f.type = types[rng_below(rng, 20) ? rng_below(rng, 6) : 6 + rng_below(rng, 2)];
    uint32_t n = (uint32_t)rng_below(rng, 300);
    f.addr = z.mem->remote_addr + rng_below(rng, 16);
    f.key = z.mem->key;
    if (f.type == TCP_FRAME_MESSAGE) {
        struct rpc_header h = {.magic = RPC_MAGIC, .version = RPC_VERSION, .xid = rng_below(rng, 4)};
        h.kind = rng_chance(rng, 1, 8) ? RPC_NOTIFY : RPC_REQUEST;
        h.method = (uint16_t)(1 + rng_below(rng, 4));
        h.body_len = n;
        f.body_len = (uint32_t)sizeof(h) + n;
        if (h.kind == RPC_REQUEST && rng_chance(rng, 1, 2))
            h.payload_len = f.payload_len = (uint32_t)rng_below(rng, 6000);
        if (h.kind == RPC_REQUEST && rng_chance(rng, 1, 2))
            f.len = 1 + (uint32_t)rng_below(rng, 6000);
        memcpy(out + sizeof(f), &h, sizeof(h));
    } else if (f.type == TCP_FRAME_READ) {
        f.len = n + 1;
    } else if (f.type == TCP_FRAME_WRITE || f.type == TCP_FRAME_PUSH) {
        f.payload_len = n + 1;
    }
    memcpy(out, &f, sizeof(f));
    return sizeof(f) + f.body_len + f.payload_len;
}

size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    struct rng rng;
    size_t len = 1;
    if (!z.loop)
        start();
    rng_seed(&rng, seed);
    out[0] = seed % 8 == 0 ? 0 : 1;
    for (uint64_t i = 1 + rng_below(&rng, 6); i > 0 && len + 8192 < cap; i--)
        len += seed_frame(&rng, memset(out + len, (int)(seed & 0xff), 8192));
    return len;
}
