/* fabric_bench_serve.c: `cistern fabric bench --listen`: the end that answers, for one client at a time. */
#include "services/ctl/fabric_tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc.h"
#include "common/loop.h"

#define AREA_BYTES (16 * MIB)
#define AREA_LEAST (1 * MIB)

struct serve {
    struct ctl *ctl;
    struct rpc_peer *client; /* NULL: free for the next */
    uint8_t *area;
    uint64_t area_bytes;
    struct fabric_mem *mem;
    /* The sum over what was given last: clients ask for the same bytes again and again. */
    uint64_t crc_offset;
    uint32_t crc_len, crc;
};

/* A request's place in the area; false after a refusal. */
static bool place_of(struct serve *s, struct rpc_request *req, const void *body, uint32_t len,
                     uint64_t *offset)
{
    struct fabric_bench_place place;
    memcpy(&place, body, sizeof(place));
    if (rpc_request_peer(req) != s->client) {
        rpc_reply(req, STATUS_BUSY, NULL, 0);
        return false;
    }
    if (len == 0 || place.offset > s->area_bytes || len > s->area_bytes - place.offset) {
        rpc_reply(req, STATUS_RANGE, NULL, 0);
        return false;
    }
    *offset = place.offset;
    return true;
}

static void handle_hello(void *service, struct rpc_request *req, const void *body, uint32_t body_len)
{
    struct serve *s = service;
    (void)body;
    (void)body_len;
    if (s->client != NULL && s->client != rpc_request_peer(req)) {
        rpc_reply(req, STATUS_BUSY, NULL, 0);
        return;
    }
    s->client = rpc_request_peer(req);
    const struct fabric_bench_hello hello = {.version = FABRIC_BENCH_VERSION,
                                             .key = s->mem->key,
                                             .addr = s->mem->remote_addr,
                                             .bytes = s->area_bytes,
                                             .spin_ns = s->ctl->options->fabric.spin_ns};
    rpc_reply(req, STATUS_OK, &hello, sizeof(hello));
}

static void taken(void *arg, int rc)
{
    rpc_reply(arg, rc == 0 ? STATUS_OK : rc == -EBADMSG ? STATUS_BAD_CRC : STATUS_IO, NULL, 0);
}

static void handle_take(void *service, struct rpc_request *req, const void *body, uint32_t body_len)
{
    struct serve *s = service;
    uint64_t offset;
    (void)body_len;
    const uint32_t len = rpc_request_payload_len(req);
    if (!place_of(s, req, body, len, &offset))
        return;
    const struct fabric_sge sge = {.base = s->area + offset, .len = len, .mem = s->mem};
    s->crc_len = 0;
    if (rpc_request_fetch(req, &sge, 1, taken, req) != 0)
        rpc_reply(req, STATUS_INVALID, NULL, 0);
}

static void handle_give(void *service, struct rpc_request *req, const void *body, uint32_t body_len)
{
    struct serve *s = service;
    uint64_t offset;
    (void)body_len;
    const uint32_t len = rpc_request_sink_len(req);
    if (!place_of(s, req, body, len, &offset))
        return;
    if (s->crc_len != len || s->crc_offset != offset) {
        s->crc_offset = offset;
        s->crc_len = len;
        s->crc = crc32c(s->area + offset, len);
    }
    const struct fabric_sge sge = {.base = s->area + offset, .len = len, .mem = s->mem};
    rpc_reply_payload(req, STATUS_OK, NULL, 0, &sge, 1, s->crc, NULL, NULL);
}

static void came(void *service, struct rpc_peer *peer)
{
    struct serve *s = service;
    char text[64];
    if (s->ctl->options->verbose)
        ctl_say(s->ctl, "a client came from %s", fabric_addr_format(&rpc_peer_info(peer)->addr, text));
}

static void went(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct serve *s = service;
    if (s->client == peer)
        s->client = NULL;
    if (s->ctl->options->verbose)
        ctl_say(s->ctl, "a client went: %s", fabric_down_text(reason));
}

static const struct rpc_method methods[] = {
    {FABRIC_BENCH_HELLO, "hello", handle_hello, 0},
    {FABRIC_BENCH_TAKE, "take", handle_take, sizeof(struct fabric_bench_place)},
    {FABRIC_BENCH_GIVE, "give", handle_give, sizeof(struct fabric_bench_place)},
};
static const struct rpc_events events = {.up = came, .down = went};

/* As much as may be locked. */
static enum ctl_exit make_area(struct serve *s)
{
    int rc = -ENOMEM;
    for (s->area_bytes = AREA_BYTES; s->area_bytes >= AREA_LEAST; s->area_bytes /= 2) {
        s->area = aligned_alloc(UNIT_BYTES, s->area_bytes);
        if (s->area == NULL)
            continue;
        rng_fill(&s->ctl->rng, s->area, s->area_bytes);
        rc = fabric_mem_register(s->ctl->env.fabric, FABRIC_DOMAIN_CLUSTER, s->area, s->area_bytes,
                                 FABRIC_ACCESS_REMOTE_READ | FABRIC_ACCESS_REMOTE_WRITE, &s->mem);
        if (rc == 0)
            return CTL_DONE;
        free(s->area);
        s->area = NULL;
    }
    ctl_say(s->ctl,
            "cannot register memory: %s; too little may be locked (ulimit -l)? See cistern fabric info",
            strerror(-rc));
    return CTL_FAILED;
}

static enum ctl_exit serve_at(struct serve *s, const struct fabric_addr *addr, const char *address)
{
    const struct rpc_service service = {
        .methods = methods, .method_count = ARRAY_LEN(methods), .events = &events, .service = s};
    struct rpc_listener *listener;
    struct fabric_addr at;
    char text[64];
    const int rc = rpc_listen(&s->ctl->env, addr, &service, 1u << FABRIC_ROLE_ADMIN, &listener);
    if (rc != 0) {
        ctl_say(s->ctl, "cannot listen on %s: %s", address, strerror(-rc));
        return CTL_FAILED;
    }
    rpc_listener_addr(listener, &at);
    printf("listening on %s: now run cistern fabric bench %s on the other host; ^C ends this\n",
           fabric_addr_format(&at, text), text);
    fflush(stdout);
    fabric_tool_interrupted_begin();
    while (!fabric_tool_interrupted())
        loop_run_once(s->ctl->loop, 100 * NS_PER_MS);
    fabric_tool_interrupted_end();
    rpc_listener_destroy(listener, true);
    return CTL_DONE;
}

enum ctl_exit fabric_bench_serve(struct ctl *ctl, const char *address)
{
    struct serve s = {.ctl = ctl};
    struct fabric_addr addr;
    enum ctl_exit rc = fabric_tool_open(ctl, address, true, &addr);
    if (rc == CTL_DONE)
        rc = make_area(&s);
    if (rc == CTL_DONE)
        rc = serve_at(&s, &addr, address);
    if (s.mem != NULL) {
        fabric_destroy(ctl->env.fabric); /* nothing uses the area behind it */
        ctl->env.fabric = NULL;
    }
    free(s.area);
    return rc;
}
