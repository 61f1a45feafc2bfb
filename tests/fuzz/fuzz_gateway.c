/*
 * fuzz_gateway.c: what a client may send to a gateway, and what a module may answer to it: the real gateway
 * with its volume core, a real metadata controller, and a module that the script plays. Whatever is said,
 * what the gateway sends to the module makes sense, and when the module behaves again another client opens
 * its volume, writes and reads.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_script.h"

#include "common/wire/block_proto.h"
#include "common/wire/mdc_proto.h"
#include "common/wire/vbs_proto.h"
#include "services/mdc/mdc.h"
#include "services/vbs/gateway.h"

enum { HOST_MDC = 1, HOST_MODULE, HOST_GATEWAY, HOST_CLIENT, PORT = 7000, CLIENTS = 2, HELD_MAX = 16 };
#define VOLUME_BYTES (8 * MIB)
#define STRIPE       MIB
const unsigned fuzz_rounds = 150;

enum act { ACT_SERVE, ACT_STATUS, ACT_HOLD, ACT_CUT_REPLY, ACT_FLIP, ACT_CLOSE };
static struct {
    struct sim_world *world;
    struct sim_net *net;
    struct meta_sim *disk;
    struct script_proc p_mdc, p_module, p_gateway, p_client;
    struct mdc *mdc;
    struct rpc_listener *listener;
    struct gateway *gateway;
    struct script_conn admin; /* the module's, to the controller */
    struct script_conn client[CLIENTS], last;
    uint32_t handle[CLIENTS], last_handle; /* of the latest open */
    uint64_t module_start, size;
    enum act act;
    uint8_t act_left, flip_at, flip, status;
    struct rpc_request *held[HELD_MAX];
    unsigned held_count;
    uint64_t serial, beat_ns;
} w;

static uint8_t stored[UNIT_BYTES] __attribute__((aligned(4096)));

/* ---- the module ---- */
static void module_reply(struct rpc_request *rpc, uint16_t method, uint32_t length, uint32_t status)
{
    struct {
        struct block_reply head;
        uint8_t bits[FABRIC_PAYLOAD_MAX / UNIT_BYTES / 8 + 2];
    } reply = {.head = {.incarnation = 1000 + w.module_start, .length = length}};
    uint32_t len = sizeof(reply.head);
    if (method == BLOCK_METHOD_EXTENTS)
        len += (length / UNIT_BYTES + 2 + 7) / 8;
    reply.head.holes = method == BLOCK_METHOD_READ && length % (3 * SECTOR_BYTES) == 0;
    uint8_t *bytes = (uint8_t *)&reply;
    if (w.act == ACT_FLIP)
        bytes[w.flip_at % len] ^= w.flip;
    if (w.act == ACT_CUT_REPLY)
        len = w.flip_at % len;
    struct fabric_sge sge = {.base = script_data[0], .len = length};
    if (method == BLOCK_METHOD_READ && !reply.head.holes && status == STATUS_OK && length <= SCRIPT_DATA)
        rpc_reply_payload(rpc, status, &reply, len, &sge, 1, crc32c(sge.base, length) + (w.act == ACT_FLIP),
                          NULL, NULL);
    else
        rpc_reply(rpc, status, &reply, len);
}

/* One write at a time is looked at; others are dropped with their replies. */
struct fetch {
    struct rpc_request *rpc;
    struct block_request b;
    uint8_t *data;
};

static void fetch_done(void *arg, int rc)
{
    struct fetch *f = arg;
    if (rc == 0)
        memcpy(stored, f->data, min_u64(f->b.length, UNIT_BYTES));
    module_reply(f->rpc, BLOCK_METHOD_WRITE, f->b.length, rc == 0 ? STATUS_OK : STATUS_BAD_CRC);
    free(f->data);
    free(f);
}

static void serve(struct rpc_request *rpc, uint16_t method, const struct block_request *b)
{
    if (method != BLOCK_METHOD_WRITE) {
        if (method == BLOCK_METHOD_READ && b->length == UNIT_BYTES)
            memcpy(script_data[0], stored, UNIT_BYTES);
        module_reply(rpc, method, b->length, STATUS_OK);
        return;
    }
    struct fetch *f = malloc(sizeof(*f));
    MUST(f != NULL);
    *f = (struct fetch){.rpc = rpc, .b = *b, .data = malloc(b->length)};
    MUST(f->data != NULL);
    struct fabric_sge sge = {.base = f->data, .len = b->length};
    MUST(rpc_request_fetch(rpc, &sge, 1, fetch_done, f) == 0);
}

static void on_block(struct rpc_request *rpc, uint16_t method, const void *body)
{
    struct block_request b;
    const bool changes = method != BLOCK_METHOD_READ && method != BLOCK_METHOD_EXTENTS;
    memcpy(&b, body, sizeof(b));
    MUST(b.pool == 1 && b.length > 0 && b.length % SECTOR_BYTES == 0 && b.offset % SECTOR_BYTES == 0);
    MUST(b.offset < w.size && b.length <= w.size - b.offset);
    MUST(b.offset / STRIPE == (b.offset + b.length - 1) / STRIPE);
    MUST(!changes || (b.turn != 0 && b.turn < BLOCK_TURN_MAX && b.host != 0));
    MUST(rpc_request_payload_len(rpc) == (method == BLOCK_METHOD_WRITE ? b.length : 0));
    MUST(method != BLOCK_METHOD_READ || rpc_request_sink_len(rpc) >= b.length);
    const bool odd = w.act != ACT_SERVE && w.act_left > 0;
    if (!odd)
        w.act = ACT_SERVE;
    else
        w.act_left--;
    if (w.act == ACT_STATUS) {
        module_reply(rpc, method, b.length, w.status);
    } else if (w.act == ACT_HOLD && w.held_count < HELD_MAX) {
        w.held[w.held_count++] = rpc;
    } else if (w.act == ACT_CLOSE) {
        struct rpc_peer *peer = rpc_request_peer(rpc);
        rpc_reply(rpc, STATUS_CANCELED, NULL, 0);
        rpc_close(peer);
    } else {
        serve(rpc, method, &b);
    }
}

#define HANDLER(name, NAME)                                                                                  \
    static void on_##name(void *service, struct rpc_request *rpc, const void *body, uint32_t len)            \
    {                                                                                                        \
        (void)service;                                                                                       \
        (void)len;                                                                                           \
        on_block(rpc, BLOCK_METHOD_##NAME, body);                                                            \
    }
HANDLER(read, READ)
HANDLER(write, WRITE)
HANDLER(discard, DISCARD)
HANDLER(zero, ZERO)
HANDLER(extents, EXTENTS)

static void on_hello(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    const struct block_reply reply = {.incarnation = 1000 + w.module_start};
    (void)service;
    (void)body;
    (void)len;
    rpc_reply(rpc, STATUS_OK, &reply, sizeof(reply));
}

static void start_module(void)
{
    static const struct rpc_method methods[] = {
#define BLOCK_METHOD(num, name_, handler_)                                                                   \
    {.number = num,                                                                                          \
     .name = #name_,                                                                                         \
     .handler = on_##handler_,                                                                               \
     .body_min = (num) == BLOCK_METHOD_HELLO ? sizeof(struct block_hello) : sizeof(struct block_request)},
#include "common/wire/block.def"
#undef BLOCK_METHOD
    };
    static const struct rpc_events events = {.up = NULL};
    const struct fabric_addr addr = script_addr(HOST_MODULE, PORT);
    struct rpc_service service = {.methods = methods, .method_count = ARRAY_LEN(methods), .events = &events};
    script_proc_start(&w.p_module, w.world, w.net, "module", HOST_MODULE, FABRIC_ROLE_MODULE, 5);
    MUST(rpc_listen(&w.p_module.env, &addr, &service, UINT32_MAX, &w.listener) == 0);
}

/* ---- the world ---- */
static void tell(uint16_t method, const struct wire_type *type, const void *request)
{
    struct script_call *c = script_call_new(&w.admin, method);
    size_t len;
    if (c == NULL)
        return;
    MUST(wire_encode(type, request, c->body, sizeof(c->body), &len) == 0);
    script_call_start(c, (uint32_t)len);
}

static void beat(void)
{
    const struct table_header *h = table_head(mdc_table(w.mdc));
    const struct mdc_module_heartbeat_request rq = {.module = 1,
                                                    .incarnation = 1000 + w.module_start,
                                                    .applied_term = h->term,
                                                    .applied_version = h->version,
                                                    .capacity_bytes = 10 * GIB};
    tell(MDC_METHOD_MODULE_HEARTBEAT, &mdc_module_heartbeat_request_type, &rq);
}

static void run(uint64_t ns)
{
    const uint64_t end = sim_world_now(w.world) + ns;
    while (sim_world_now(w.world) < end) {
        if (sim_world_now(w.world) >= w.beat_ns) {
            beat();
            w.beat_ns = sim_world_now(w.world) + 200 * NS_PER_MS;
        }
        sim_world_run_until(w.world, min_u64(end, w.beat_ns));
    }
}

static void register_module(void)
{
    struct mdc_module_register_request rq = {.start_counter = ++w.module_start,
                                             .incarnation = 1000 + w.module_start,
                                             .module = w.module_start > 1 ? 1 : 0,
                                             .kind = TABLE_MODULE_OSD,
                                             .media = TABLE_MEDIA_SSD,
                                             .host = "node1",
                                             .name = "osd1",
                                             .capacity_bytes = 10 * GIB};
    const struct fabric_addr addr = script_addr(HOST_MODULE, PORT);
    memset(rq.store.b, 1, sizeof(rq.store.b));
    memcpy(rq.addr, &addr, sizeof(rq.addr));
    tell(MDC_METHOD_MODULE_REGISTER, &mdc_module_register_request_type, &rq);
    run(5 * NS_PER_MS);
}

static void make_volume(const char *name)
{
    struct mdc_volume_create_request rq = {.size_bytes = VOLUME_BYTES};
    snprintf(rq.name, sizeof(rq.name), "%s", name);
    tell(MDC_METHOD_VOLUME_CREATE, &mdc_volume_create_request_type, &rq);
    run(5 * NS_PER_MS);
}

static void start_controller(void)
{
    struct mdc_config c = {.listen = script_addr(HOST_MDC, PORT),
                           .cluster = script_cluster(),
                           .limits = {.pools = 2, .modules = 4, .partitions = 16, .volumes = 8},
                           .heartbeat_ms = 1000};
    const struct fabric_addr to = script_addr(HOST_MDC, PORT);
    const struct mdc_session_request session = {.role = FABRIC_ROLE_MODULE, .host = "node1", .name = "osd1"};
    const struct mdc_pool_create_request pool = {.name = "p", .partitions = 4, .stripe_bytes = STRIPE};
    script_proc_start(&w.p_mdc, w.world, w.net, "mdc", HOST_MDC, FABRIC_ROLE_MDC, 1);
    MUST(meta_sim_create(1, 100 * NS_PER_US, &w.disk) == 0);
    MUST(meta_sim_open(w.disk, &w.p_mdc.env, &c.meta) == 0);
    MUST(mdc_create(&w.p_mdc.env, &c, &w.mdc) == 0);
    script_connect(&w.admin, &w.p_module, w.world, &to, FABRIC_DOMAIN_CLUSTER);
    tell(MDC_METHOD_SESSION, &mdc_session_request_type, &session);
    run(50 * NS_PER_MS);
    register_module();
    tell(MDC_METHOD_POOL_CREATE, &mdc_pool_create_request_type, &pool);
    run(5 * NS_PER_MS);
    make_volume("v");
    make_volume("own-volume-8");
}

static void start_gateway(void)
{
    struct gateway_config c = {
        .listen = script_addr(HOST_GATEWAY, PORT), .memory_bytes = 4 * MIB, .requests_max = 16};
    volume_core_config_default(&c.core);
    c.core.parts_max = 24;
    c.core.cluster.mdc[0] = script_addr(HOST_MDC, PORT);
    c.core.cluster.mdc_count = 1;
    c.core.cluster.role = FABRIC_ROLE_VBS;
    c.core.cluster.instance = 77;
    snprintf(c.core.cluster.name, sizeof(c.core.cluster.name), "vbs");
    snprintf(c.core.cluster.host, sizeof(c.core.cluster.host), "gw");
    script_proc_start(&w.p_gateway, w.world, w.net, "vbs", HOST_GATEWAY, FABRIC_ROLE_VBS, 77);
    MUST(gateway_create(&w.p_gateway.env, &c, &w.gateway) == 0);
    for (unsigned i = 0; i < 300 && !gateway_is_ready(w.gateway); i++)
        run(10 * NS_PER_MS);
    MUST(gateway_is_ready(w.gateway));
}

/* ---- clients ---- */
static void on_opened(struct script_call *c, const struct rpc_result *result)
{
    struct vbs_open_reply reply;
    if (result->rc != 0 || result->status != STATUS_OK)
        return;
    MUST(wire_decode(&vbs_open_reply_type, result->body, result->body_len, &reply, NULL) == 0);
    MUST(reply.handle != 0 && reply.stripe_bytes == STRIPE);
    if (c->conn == &w.last)
        w.last_handle = reply.handle;
    else
        w.handle[c->conn - w.client] = reply.handle;
}

static void send_open(struct script *s, struct script_conn *conn, const char *volume)
{
    struct script_call *c = script_call_new(conn, VBS_METHOD_OPEN);
    const uint8_t how = script_u8(s);
    size_t len = 0;
    if (c == NULL)
        return;
    struct vbs_open_request rq = {.instance = 1u + (how & 1u) + (conn == &w.last ? 50u : 0),
                                  .read_only = how >> 1 & 1u,
                                  .shared = conn == &w.last || (how >> 2 & 1u) != 0,
                                  .take_over = how >> 3 & 1u,
                                  .held = how >> 4 & 1u,
                                  .serial = how & 0x20u ? 0 : ++w.serial};
    snprintf(rq.volume, sizeof(rq.volume), "%s", volume);
    snprintf(rq.host, sizeof(rq.host), "h%u", how >> 7);
    MUST(wire_encode(&vbs_open_request_type, &rq, c->body, sizeof(c->body), &len) == 0);
    c->answered = on_opened;
    script_call_start(c, script_damage(s, c->body, (uint32_t)len, sizeof(c->body)));
}

static void send_io(struct script *s, unsigned client)
{
    const uint8_t pick = script_u8(s), how = script_u8(s), size = script_u8(s);
    const uint16_t method = VBS_METHOD_CLOSE + pick % 7u;
    struct script_call *c = script_call_new(&w.client[client], method);
    if (c == NULL)
        return;
    const bool moves = method == VBS_METHOD_READ || method == VBS_METHOD_WRITE;
    struct vbs_io io = {.handle = w.handle[client],
                        .length = (1u + size) * SECTOR_BYTES * (how & 1u ? 1u : 2u),
                        .offset = (uint64_t)how * 64 * SECTOR_BYTES};
    if (!moves && how & 2u)
        io.length = size * (uint32_t)(512 * KIB);
    memcpy(c->body, &io, sizeof(io));
    const uint32_t len = script_damage(s, c->body, sizeof(io), sizeof(c->body));
    if (moves && pick < 240)
        script_payload(c, io.length, method == VBS_METHOD_READ, pick > 230);
    script_call_start(c, len);
}

static void connect_client(struct script_conn *c)
{
    const struct fabric_addr to = script_addr(HOST_GATEWAY, PORT);
    script_disconnect(c);
    script_connect(c, &w.p_client, w.world, &to, FABRIC_DOMAIN_HOST);
}

static void release(uint32_t status)
{
    for (unsigned i = 0; i < w.held_count; i++) {
        struct block_reply reply = {.incarnation = 1000 + w.module_start};
        rpc_reply(w.held[i], status, &reply, sizeof(reply));
    }
    w.held_count = 0;
}

static void change_act(struct script *s)
{
    static const uint8_t statuses[] = {
        STATUS_STALE_EPOCH, STATUS_STALE_GENERATION, STATUS_STALE_TURN, STATUS_NOT_SERVING,
        STATUS_AGAIN,       STATUS_NO_SPACE,         STATUS_IO,         STATUS_BAD_CRC,
        STATUS_DAMAGED,     STATUS_NOT_FOUND,        STATUS_RANGE,      STATUS_INVALID,
        STATUS_PROTOCOL,    STATUS_CANCELED,         STATUS_BUSY,       STATUS_WRONG_INCARNATION,
    };
    const uint8_t how = script_u8(s);
    w.act = (enum act)(how % 6u);
    w.act_left = 1 + how / 32u;
    w.flip_at = script_u8(s);
    w.flip = script_u8(s);
    w.status = statuses[w.flip % ARRAY_LEN(statuses)];
}

static void administer(struct script *s)
{
    const uint8_t how = script_u8(s);
    struct mdc_volume_resize_request resize = {
        .name = "v", .size_bytes = (1u + how / 8u) * MIB / 2, .allow_shrink = true};
    const struct mdc_attach_request attach = {.volume = "v", .host = {'h', (char)('0' + (how & 1u))}};
    switch (how % 4u) {
    case 0:
        w.size = max_u64(w.size, resize.size_bytes);
        tell(MDC_METHOD_VOLUME_RESIZE, &mdc_volume_resize_request_type, &resize);
        break;
    case 1:
        tell(MDC_METHOD_DETACH, &mdc_attach_request_type, &attach);
        break;
    case 2:
        register_module();
        break;
    default:
        tell(MDC_METHOD_ATTACH, &mdc_attach_request_type, &attach);
        break;
    }
    run(NS_PER_MS);
}

static void play(struct script *s)
{
    static const uint64_t waits_ms[] = {1, 2, 5, 20, 100, 400, 1000, 3000};
    const uint8_t op = script_u8(s), client = op >> 7;
    switch (op % 16u) {
    case 0:
    case 1:
        send_open(s, &w.client[client], "v");
        run(3 * NS_PER_MS);
        break;
    case 2:
        change_act(s);
        break;
    case 3:
        administer(s);
        break;
    case 4:
        release(op & 16u ? STATUS_OK : STATUS_STALE_EPOCH);
        break;
    case 5:
        connect_client(&w.client[client]);
        break;
    case 6:
    case 7:
    case 8:
        run(waits_ms[script_u8(s) % ARRAY_LEN(waits_ms)] * NS_PER_MS);
        break;
    default:
        send_io(s, client);
        break;
    }
}

/* ---- the end ---- */
static void last_answered(struct script_call *c, const struct rpc_result *result)
{
    c->user = result->rc ? STATUS_DISCONNECTED : result->status;
}

static uint32_t last_io(uint16_t method)
{
    struct script_call *c = script_call_new(&w.last, method);
    MUST(c != NULL);
    const struct vbs_io io = {.handle = w.last_handle, .length = UNIT_BYTES, .offset = 3 * STRIPE};
    memcpy(c->body, &io, sizeof(io));
    script_payload(c, UNIT_BYTES, method == VBS_METHOD_READ, false);
    c->answered = last_answered;
    c->user = UINT64_MAX;
    script_call_start(c, sizeof(io));
    for (unsigned i = 0; i < 2000 && c->user == UINT64_MAX; i++)
        run(5 * NS_PER_MS);
    return (uint32_t)c->user;
}

static void check_serves(void)
{
    struct script none = {.left = 0};
    w.act = ACT_SERVE;
    release(STATUS_STALE_EPOCH);
    run(3 * NS_PER_S);
    connect_client(&w.last);
    for (unsigned i = 0; i < 20 && w.last_handle == 0; i++) {
        send_open(&none, &w.last, "own-volume-8");
        run(NS_PER_S);
    }
    MUST(w.last_handle != 0);
    memset(script_data[0], 0x5c, UNIT_BYTES);
    MUST(last_io(VBS_METHOD_WRITE) == STATUS_OK);
    memset(script_data[1], 0, UNIT_BYTES);
    MUST(last_io(VBS_METHOD_READ) == STATUS_OK);
    MUST(script_data[1][0] == 0x5c && script_data[1][UNIT_BYTES - 1] == 0x5c);
}

static void world_end(void)
{
    sim_loop_kill(w.p_gateway.loop);
    gateway_destroy(w.gateway);
    for (unsigned i = 0; i < CLIENTS; i++)
        script_disconnect(&w.client[i]);
    script_disconnect(&w.last);
    script_disconnect(&w.admin);
    sim_loop_kill(w.p_mdc.loop);
    sim_loop_kill(w.p_module.loop);
    sim_loop_kill(w.p_client.loop);
    mdc_destroy(w.mdc);
    rpc_listener_destroy(w.listener, true);
    script_proc_end(&w.p_gateway);
    script_proc_end(&w.p_mdc);
    script_proc_end(&w.p_module);
    script_proc_end(&w.p_client);
    meta_sim_destroy(w.disk);
    sim_net_destroy(w.net);
    sim_world_destroy(w.world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {.at = data, .left = size};
    memset(&w, 0, sizeof(w));
    w.size = VOLUME_BYTES;
    MUST(sim_world_create(1, &w.world) == 0 && sim_net_create(w.world, &w.net) == 0);
    script_proc_start(&w.p_client, w.world, w.net, "client", HOST_CLIENT, FABRIC_ROLE_CLIENT, 9);
    start_module();
    start_controller();
    start_gateway();
    for (unsigned i = 0; i < CLIENTS; i++)
        connect_client(&w.client[i]);
    for (unsigned i = 0; i < 200 && s.left > 0; i++)
        play(&s);
    check_serves();
    world_end();
    return 0;
}

size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    struct rng r;
    size_t at = 0;
    rng_seed(&r, seed);
    out[at++] = 0;
    out[at++] = 0;
    out[at++] = 0;
    for (uint64_t n = 4 + rng_below(&r, 60); n > 0 && at + 8 <= cap; n--) {
        const uint8_t op = (uint8_t)rng_u64(&r);
        out[at++] = op;
        const unsigned more = op % 16u > 8 ? 3 : op % 16u == 2 ? 3 : op % 16u < 2 || op % 16u == 3 ? 1 : 0;
        for (unsigned i = 0; i < more; i++)
            out[at++] = (uint8_t)rng_u64(&r);
        if (op % 16u > 5 && op % 16u < 9)
            out[at++] = (uint8_t)rng_below(&r, 8);
        else if (more > 0)
            out[at++] = (uint8_t)(rng_chance(&r, 1, 8) ? rng_below(&r, 16) : 0);
    }
    return at;
}
