/*
 * fuzz_copy.c: what another module, or a client, may send to a module that serves, and what another module
 * may answer to it: the real engine over a real store in memory. The script plays the other module (number
 * 2), a client, and the metadata controller's table. Whatever it says, the module lives, does not fail, and
 * serves its own volume again as soon as the other one is no member any more.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_script.h"

#include "common/device/device_ram.h"
#include "common/wire/block_proto.h"
#include "common/wire/copy_proto.h"
#include "services/rwm/rwm.h"
#include "tests/unit/fake_cluster.h"

#define SYNC         TABLE_MEMBER_IN_SYNC
#define MEDIUM_BYTES (8 * MIB)
#define BLOCKS       24u /* of volume 1: three stripes */
#define PEER_INC     900u
#define OWN_INC      100u

enum { HOST_MODULE = 1, HOST_CLIENT = 2, HOST_PEER = 3, PORT_MODULE = 7200, PORT_PEER = 7300 };

/* How the other module answers one method. */
struct manner {
    uint32_t status;
    uint8_t count; /* of what a list has */
    uint8_t at[2], flip[2];
    bool cut, silent;
};
static struct {
    struct sim_world *world;
    struct sim_net *net;
    struct fake_mdc *mdc;
    struct device *device;
    struct script_proc module, client, peer;
    struct rwm_host *host;
    struct rwm *rwm;
    struct rpc_listener *listener;
    struct script_conn from_client, from_peer;
    struct manner manner[32];
    struct version version[BLOCKS]; /* of what was sent last */
    uint64_t counter, sequence, epoch;
    bool serving;
    int failed;
} w;
static struct medium *pristine;
const unsigned fuzz_rounds = 60;

/* ---- the world ---- */
static void on_format(void *arg, int rc)
{
    MUST(rc == 0);
    *(bool *)arg = true;
}

static void make_pristine(void)
{
    const struct store_format_options o = {
        .journal_bytes = MIB, .max_partitions = 4, .max_volumes = 8, .max_turns = 4};
    struct sim_world *world;
    struct loop *loop;
    struct rng rng;
    bool done = false;
    MUST(sim_world_create(1, &world) == 0 && loop_create_sim(world, "format", 0, &loop) == 0);
    rng_seed(&rng, 1);
    struct env env = {.loop = loop, .rng = &rng, .name = "format"};
    struct device *dev = device_ram_create(MEDIUM_BYTES, 4096, 512, 0);
    device_ram_attach(dev, loop);
    log_set_sink(script_no_log, NULL);
    store_format(&env, dev, NULL, &o, on_format, &done);
    sim_world_run_until(world, NS_PER_S);
    MUST(done);
    pristine = medium_clone(device_ram_medium(dev));
    device_destroy(dev);
    sim_loop_kill(loop);
    loop_destroy(loop);
    sim_world_destroy(world);
}

static void run(uint64_t ns)
{
    sim_world_run_until(w.world, sim_world_now(w.world) + ns);
}

static void on_failed(void *user, int rc, const char *text)
{
    (void)user;
    fprintf(stderr, "the module failed: %s\n", text);
    w.failed = rc;
}

static void on_serving(void *user)
{
    (void)user;
    w.serving = true;
}

static void start_module(void)
{
    static const struct rwm_events events = {.failed = on_failed, .serving = on_serving};
    const struct rwm_config config = {.name = "osd1",
                                      .host = "h1",
                                      .kind = TABLE_MODULE_OSD,
                                      .media = TABLE_MEDIA_SSD,
                                      .mdc_count = 1,
                                      .incarnation = OWN_INC,
                                      .buffer_bytes = MIB,
                                      .requests_max = 8,
                                      .recent_max = 16,
                                      .store = {.cache_bytes = 64 * KIB, .requests_max = 16}};
    const struct fabric_addr listen = script_addr(HOST_MODULE, PORT_MODULE);
    script_proc_start(&w.module, w.world, w.net, "osd", HOST_MODULE, FABRIC_ROLE_MODULE, OWN_INC);
    w.device = device_ram_create(MEDIUM_BYTES, 4096, 512, 0);
    medium_restore(device_ram_medium(w.device), pristine);
    device_ram_attach(w.device, w.module.loop);
    MUST(rwm_host_create(&w.module.env, &listen, &w.host) == 0);
    MUST(rwm_create(&w.module.env, w.host, w.device, NULL, &config, &events, NULL, &w.rwm) == 0);
    for (unsigned i = 0; i < 200 && !w.serving; i++)
        run(NS_PER_MS);
    MUST(w.serving);
}

static void members(uint32_t a, uint32_t b)
{
    const uint32_t m[3] = {a, b, 0};
    w.epoch++;
    for (uint32_t i = 0; i < FAKE_POOL_PARTITIONS; i++)
        fake_mdc_members(w.mdc, i, w.epoch, m);
}

/* ---- the other module answers ---- */
static void answer(struct rpc_request *rpc, uint16_t method, void *body, uint32_t len, uint32_t payload)
{
    const struct manner *h = &w.manner[method];
    uint8_t *bytes = body;
    if (h->silent)
        return; /* freed with the listener */
    if (len > 0) {
        bytes[h->at[0] % len] ^= h->flip[0];
        bytes[h->at[1] % len] ^= h->flip[1];
    }
    if (h->cut)
        len /= 2;
    struct fabric_sge sge = {.base = script_data[0], .len = payload};
    if (payload > 0 && rpc_request_sink_len(rpc) >= payload)
        rpc_reply_payload(rpc, h->status, body, len, &sge, 1, crc32c(sge.base, payload) + h->cut, NULL, NULL);
    else
        rpc_reply(rpc, h->status, body, len);
}

static struct copy_key key_of(uint32_t block)
{
    return (struct copy_key){
        .layer = 101, .block = block, .hash = placement_hash(1, (uint64_t)block * BLOCK_BYTES / FAKE_STRIPE)};
}

static uint32_t partition_of(uint32_t block)
{
    return placement_partition(key_of(block).hash, FAKE_POOL_PARTITIONS);
}

static void answer_versions(struct rpc_request *rpc, const struct copy_versions *rq, const uint8_t *keys)
{
    struct {
        struct copy_versions_reply head;
        struct copy_version item[COPY_KEYS_MAX];
    } reply;
    const struct manner *h = &w.manner[COPY_METHOD_VERSIONS];
    memset(&reply, 0, sizeof(reply));
    const bool asked = rq->list == COPY_LIST_KEYS;
    const uint32_t want = asked ? rq->count : h->count;
    for (uint32_t b = 0; reply.head.count < want && b < (asked ? want : BLOCKS); b++) {
        struct copy_version *v = &reply.item[reply.head.count];
        if (!asked && partition_of(b) != rq->head.partition)
            continue;
        v->key = key_of(b);
        if (asked)
            memcpy(&v->key, keys + b * sizeof(v->key), sizeof(v->key));
        v->version = (struct version){w.epoch - 1, 7 + b};
        v->written = b % 3 == 0 ? 0 : 0xf0f;
        reply.head.count++;
    }
    answer(rpc, COPY_METHOD_VERSIONS, &reply,
           (uint32_t)(sizeof(reply.head) + reply.head.count * sizeof(reply.item[0])), 0);
}

static void on_versions(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct copy_versions rq;
    (void)service;
    (void)len;
    memcpy(&rq, body, sizeof(rq));
    answer_versions(rpc, &rq, (const uint8_t *)body + sizeof(rq));
}

static void on_promise(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct copy_promise_reply reply = {.free_blocks = 100};
    (void)service;
    (void)body;
    (void)len;
    answer(rpc, COPY_METHOD_PROMISE, &reply, sizeof(reply), 0);
}

static void on_join(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct copy_join_reply reply = {.epoch = w.epoch, .flags = COPY_JOINED_WHOLE};
    (void)service;
    (void)body;
    (void)len;
    answer(rpc, COPY_METHOD_JOIN, &reply, sizeof(reply), 0);
}

static void on_fetch(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct copy_fetch rq;
    (void)service;
    (void)len;
    memcpy(&rq, body, sizeof(rq));
    struct copy_fetch_reply reply = {.version = {w.epoch - 1, 7 + rq.key.block}, .written = 0xf0f};
    answer(rpc, COPY_METHOD_FETCH, &reply, sizeof(reply), BLOCK_BYTES);
}

static void on_check(void *service, struct rpc_request *rpc, const void *body, uint32_t len)
{
    struct copy_check_reply reply = {.version = {w.epoch - 1, 7}, .written = 0xf0f};
    (void)service;
    (void)body;
    (void)len;
    answer(rpc, COPY_METHOD_CHECK, &reply, sizeof(reply), 0);
}

#define PLAIN(name, NAME)                                                                                    \
    static void on_##name(void *service, struct rpc_request *rpc, const void *body, uint32_t len)            \
    {                                                                                                        \
        (void)service;                                                                                       \
        (void)body;                                                                                          \
        (void)len;                                                                                           \
        answer(rpc, COPY_METHOD_##NAME, NULL, 0, 0);                                                         \
    }
PLAIN(peer_hello, PEER_HELLO)
PLAIN(commit, COMMIT)
PLAIN(release, RELEASE)
PLAIN(forward, FORWARD)
PLAIN(replace, REPLACE)
PLAIN(turns, TURNS)

static void start_peer(void)
{
    static const struct rpc_method methods[] = {
#define COPY_METHOD(num, name_, handler_, request_)                                                          \
    {.number = num, .name = #name_, .handler = on_##handler_, .body_min = sizeof(struct request_)},
#include "common/wire/copy.def"
#undef COPY_METHOD
    };
    static const struct rpc_events events = {.up = NULL};
    const struct fabric_addr addr = script_addr(HOST_PEER, PORT_PEER);
    struct rpc_service service = {.methods = methods, .method_count = ARRAY_LEN(methods), .events = &events};
    script_proc_start(&w.peer, w.world, w.net, "other", HOST_PEER, FABRIC_ROLE_MODULE, PEER_INC);
    MUST(rpc_listen(&w.peer.env, &addr, &service, 1u << FABRIC_ROLE_MODULE, &w.listener) == 0);
    fake_mdc_module(w.mdc, 2, PEER_INC, &addr);
}

/* ---- what is sent ---- */
static void greet(struct script *s)
{
    const struct fabric_addr to = script_addr(HOST_MODULE, PORT_MODULE);
    script_disconnect(&w.from_peer);
    script_connect(&w.from_peer, &w.peer, w.world, &to, FABRIC_DOMAIN_CLUSTER);
    struct script_call *c = script_call_new(&w.from_peer, COPY_METHOD_PEER_HELLO);
    if (c == NULL)
        return;
    const struct copy_peer_hello hello = {.to_module = 1,
                                          .from_module = 2,
                                          .to_incarnation = OWN_INC,
                                          .from_incarnation = PEER_INC,
                                          .sequence = ++w.sequence};
    memcpy(c->body, &hello, sizeof(hello));
    script_call_start(c, script_damage(s, c->body, sizeof(hello), sizeof(c->body)));
    run(5 * NS_PER_MS);
}

static void greet_client(struct script *s, uint64_t instance)
{
    const struct fabric_addr to = script_addr(HOST_MODULE, PORT_MODULE);
    script_disconnect(&w.from_client);
    script_connect(&w.from_client, &w.client, w.world, &to, FABRIC_DOMAIN_HOST);
    struct script_call *c = script_call_new(&w.from_client, BLOCK_METHOD_HELLO);
    if (c == NULL)
        return;
    const struct block_hello hello = {.module = 1, .instance = instance, .sequence = ++w.sequence};
    memcpy(c->body, &hello, sizeof(hello));
    script_call_start(c, script_damage(s, c->body, sizeof(hello), sizeof(c->body)));
    run(5 * NS_PER_MS);
}

/* What a request is about. */
struct about {
    uint8_t pick, how;
    uint32_t block;
    struct copy_head head;
    struct version version;
};

static uint32_t put(uint8_t *body, const void *what, size_t bytes)
{
    memcpy(body, what, bytes);
    return (uint32_t)bytes;
}

static uint32_t body_commit(const struct about *a, uint8_t *body)
{
    const struct copy_commit b = {
        .head = a->head, .committed = {w.epoch, w.counter - a->how % 4u}, .flags = a->how >> 7};
    return put(body, &b, sizeof(b));
}

static uint32_t body_versions(const struct about *a, uint8_t *body)
{
    struct copy_versions b = {.head = a->head, .list = 1u + a->how % 3u};
    b.count = b.list == COPY_LIST_KEYS ? a->how / 4u : 0;
    for (uint32_t i = 0; i < b.count; i++) {
        const struct copy_key key = key_of((a->pick + i) % BLOCKS);
        put(body + sizeof(b) + i * sizeof(key), &key, sizeof(key));
    }
    return put(body, &b, sizeof(b)) + b.count * (uint32_t)sizeof(struct copy_key);
}

static uint32_t body_forward(const struct about *a, uint8_t *body, uint32_t *payload)
{
    const bool clear = a->how & 0x40u, turn = a->how & 0x20u;
    const uint32_t units = 1u + a->how % 8u;
    const struct copy_forward b = {.head = a->head,
                                   .volume = turn ? fake_uuid(1) : fake_uuid(0),
                                   .host = 33,
                                   .turn = turn ? 3 : 0,
                                   .key = key_of(a->block),
                                   .version = a->version,
                                   .base = a->how & 0x80u ? (struct version){0, 0} : w.version[a->block],
                                   .committed = {w.epoch, w.counter - 1},
                                   .first_unit = a->how % 24u,
                                   .unit_count = units,
                                   .flags = clear ? COPY_FORWARD_CLEAR | (a->how & COPY_FORWARD_FORGET) : 0};
    *payload = clear ? 0 : units * UNIT_BYTES;
    w.version[a->block] = a->version;
    return put(body, &b, sizeof(b));
}

static uint32_t body_replace(const struct about *a, uint32_t written, uint8_t *body, uint32_t *payload)
{
    const struct copy_replace b = {.head = a->head,
                                   .key = key_of(a->block),
                                   .version = a->how == 0xff ? (struct version){0, 0} : a->version,
                                   .written = written * (a->how & 1u ? 0x10001u : 1u),
                                   .lost = a->how & 0x10u ? written & 0x55u : 0};
    *payload = (uint32_t)__builtin_popcount(b.written & ~b.lost) * UNIT_BYTES;
    w.version[a->block] = b.version;
    return put(body, &b, sizeof(b));
}

static uint32_t body_turns(const struct about *a, uint8_t *body)
{
    const struct copy_turns b = {.head = a->head, .count = 1u + a->how % 6u};
    for (uint32_t i = 0; i < b.count; i++) {
        const struct copy_turn t = {.volume = fake_uuid(1), .host = (uint8_t)(a->pick + i), .turn = 1 + i};
        put(body + sizeof(b) + i * sizeof(t), &t, sizeof(t));
    }
    return put(body, &b, sizeof(b)) + b.count * (uint32_t)sizeof(struct copy_turn);
}

/* *payload: the bytes that go with it. */
static uint32_t copy_body(struct script *s, uint16_t method, uint8_t *body, uint32_t *payload)
{
    struct about a = {.pick = script_u8(s)};
    const struct copy_promise promise = {.duration_ns = COPY_PROMISE_MAX_NS};
    a.how = script_u8(s);
    a.block = a.pick % BLOCKS;
    a.head = (struct copy_head){.pool = 1, .partition = partition_of(a.block), .epoch = w.epoch};
    a.version = (struct version){w.epoch, ++w.counter};
    const struct copy_fetch fetch = {.head = a.head, .key = key_of(a.block)};
    *payload = 0;
    switch (method) {
    case COPY_METHOD_PROMISE:
        return put(body, &promise, sizeof(promise));
    case COPY_METHOD_JOIN:
    case COPY_METHOD_RELEASE:
        return put(body, &a.head, sizeof(a.head));
    case COPY_METHOD_COMMIT:
        return body_commit(&a, body);
    case COPY_METHOD_VERSIONS:
        return body_versions(&a, body);
    case COPY_METHOD_FORWARD:
        return body_forward(&a, body, payload);
    case COPY_METHOD_REPLACE:
        return body_replace(&a, (uint32_t)script_bytes(s, 2), body, payload);
    case COPY_METHOD_TURNS:
        return body_turns(&a, body);
    default:
        return put(body, &fetch, sizeof(fetch));
    }
}

static void send_copy(struct script *s, uint16_t method)
{
    struct script_call *c = script_call_new(&w.from_peer, method);
    if (c == NULL)
        return;
    uint32_t payload;
    uint32_t len = copy_body(s, method, c->body, &payload);
    const bool honest = (script_u8(s) & 0xe0u) != 0xe0u;
    len = script_damage(s, c->body, len, sizeof(c->body));
    if ((method == COPY_METHOD_COMMIT || method == COPY_METHOD_RELEASE) && honest) {
        (void)rpc_notify(w.from_peer.peer, method, c->body, len);
        return;
    }
    script_payload(c, honest ? payload : payload ^ UNIT_BYTES, false, !honest && payload % 3 == 0);
    if (method == COPY_METHOD_FETCH)
        script_payload(c, honest ? BLOCK_BYTES : UNIT_BYTES, true, false);
    script_call_start(c, len);
}

static struct block_request request_of(uint8_t volume, uint64_t offset, uint32_t length, uint64_t turn)
{
    const uint32_t partition =
        placement_partition(placement_hash(volume, offset / FAKE_STRIPE), FAKE_POOL_PARTITIONS);
    return (struct block_request){.pool = 1,
                                  .partition = partition,
                                  .epoch = fake_mdc_epoch(w.mdc, partition),
                                  .incarnation = OWN_INC,
                                  .volume = fake_uuid(volume),
                                  .generation = 1,
                                  .turn = turn,
                                  .host = 33,
                                  .offset = offset,
                                  .length = length};
}

static void send_block(struct script *s)
{
    const uint8_t pick = script_u8(s), how = script_u8(s);
    const uint16_t method = BLOCK_METHOD_READ + pick % 5u;
    struct script_call *c = script_call_new(&w.from_client, method);
    if (c == NULL)
        return;
    const struct block_request r = request_of(
        1, (uint64_t)(how % BLOCKS) * BLOCK_BYTES + (pick / 5u) * SECTOR_BYTES, (1u + how) * SECTOR_BYTES, 3);
    memcpy(c->body, &r, sizeof(r));
    const uint32_t len = script_damage(s, c->body, sizeof(r), sizeof(c->body));
    if (method == BLOCK_METHOD_WRITE || method == BLOCK_METHOD_READ)
        script_payload(c, r.length, method == BLOCK_METHOD_READ, false);
    script_call_start(c, len);
}

static void change_manner(struct script *s)
{
    static const uint32_t statuses[] = {
        STATUS_OK, STATUS_STALE_EPOCH, STATUS_NOT_SERVING, STATUS_STALE_BASE, STATUS_AGAIN,   STATUS_NO_SPACE,
        STATUS_IO, STATUS_DAMAGED,     STATUS_STALE_TURN,  STATUS_INVALID,    STATUS_BAD_CRC, STATUS_PROTOCOL,
    };
    struct manner *h = &w.manner[16 + script_u8(s) % 10u];
    h->status = statuses[script_u8(s) % ARRAY_LEN(statuses)];
    h->count = script_u8(s);
    const uint8_t how = script_u8(s);
    h->cut = (how & 7u) == 7u;
    h->silent = (how & 0x38u) == 0x38u;
    for (unsigned i = 0; i < 2; i++) {
        const bool flips = (how >> 6 & 1u) != 0 && script_u8(s) != 0;
        h->at[i] = flips ? script_u8(s) : 0;
        h->flip[i] = flips ? script_u8(s) : 0;
    }
}

static void change_table(struct script *s)
{
    const uint8_t how = script_u8(s);
    switch (how % 8u) {
    case 0:
        members(2 | SYNC, 1 | SYNC);
        break;
    case 1:
        members(1 | SYNC, 2 | SYNC);
        break;
    case 2:
        members(1 | SYNC, 2);
        break;
    case 3:
        members(2 | SYNC, 1);
        break;
    case 4:
        members(2 | SYNC, 0);
        break;
    case 5:
        members(1 | SYNC, 0);
        break;
    case 6:
        fake_mdc_volume(w.mdc, 0, 1, 1u + how / 64u, (1u + how / 8u % 8u) * MIB,
                        how & 0x80u ? TABLE_VOLUME_DELETING : TABLE_VOLUME_READY);
        break;
    default:
        device_ram_corrupt(w.device, 2 * MIB + (uint64_t)how * 16 * KIB, 512, how);
        break;
    }
    run(2 * NS_PER_MS);
}

static void play(struct script *s)
{
    static const uint64_t waits_ms[] = {1, 5, 20, 100, 300, 600, 1200, 3000};
    const uint8_t op = script_u8(s) % 20u;
    if (op < 10) {
        send_copy(s, COPY_METHOD_PEER_HELLO + op);
        return;
    }
    switch (op) {
    case 10:
    case 11:
    case 12:
        send_block(s);
        break;
    case 13:
        change_manner(s);
        break;
    case 14:
        change_table(s);
        break;
    case 15:
        if (script_u8(s) & 1u)
            greet_client(s, 7);
        else
            greet(s);
        break;
    case 16:
        send_copy(s, COPY_METHOD_RELEASE);
        break;
    default:
        run(waits_ms[script_u8(s) % ARRAY_LEN(waits_ms)] * NS_PER_MS);
        break;
    }
}

/* ---- the end ---- */
static void end_answered(struct script_call *c, const struct rpc_result *result)
{
    c->user = result->rc ? STATUS_DISCONNECTED : result->status;
}

static uint32_t own_request(uint16_t method, uint64_t offset)
{
    struct script_call *c = script_call_new(&w.from_client, method);
    MUST(c != NULL);
    const struct block_request r = request_of(2, offset, UNIT_BYTES, BLOCK_TURN_MAX - 1);
    memcpy(c->body, &r, sizeof(r));
    script_payload(c, UNIT_BYTES, method == BLOCK_METHOD_READ, false);
    c->answered = end_answered;
    c->user = UINT64_MAX;
    script_call_start(c, sizeof(r));
    for (unsigned i = 0; i < 2000 && c->user == UINT64_MAX; i++)
        run(5 * NS_PER_MS);
    return (uint32_t)c->user;
}

/* With the other one gone, volume 2 is served. */
static void check_serves(void)
{
    struct script none = {.left = 0};
    members(1 | SYNC, 0);
    run(NS_PER_S);
    MUST(w.failed == 0);
    greet_client(&none, 8);
    for (uint64_t stripe = 0; stripe < 4; stripe++) {
        uint32_t status = STATUS_AGAIN;
        for (unsigned i = 0; i < 20 && (status == STATUS_AGAIN || status == STATUS_STALE_EPOCH); i++) {
            status = own_request(BLOCK_METHOD_WRITE, stripe * FAKE_STRIPE);
            run(50 * NS_PER_MS);
        }
        if (status == STATUS_NO_SPACE)
            return;
        if (status != STATUS_OK)
            fprintf(stderr, "a write is answered %s (%u)\n", status_name(status), status);
        MUST(status == STATUS_OK);
        memset(script_data[1], 0, UNIT_BYTES);
        MUST(own_request(BLOCK_METHOD_READ, stripe * FAKE_STRIPE) == STATUS_OK);
        MUST(memcmp(script_data[0], script_data[1], UNIT_BYTES) == 0);
    }
}

static void world_start(void)
{
    if (pristine == NULL) {
        make_pristine();
        memset(script_data[0], 7, sizeof(script_data[0]));
    }
    memset(&w, 0, sizeof(w));
    MUST(sim_world_create(1, &w.world) == 0 && sim_net_create(w.world, &w.net) == 0);
    w.mdc = fake_mdc_create(1);
    fake_mdc_volume(w.mdc, 0, 1, 1, 8 * MIB, TABLE_VOLUME_READY);
    fake_mdc_volume(w.mdc, 1, 2, 1, 8 * MIB, TABLE_VOLUME_READY);
    script_proc_start(&w.client, w.world, w.net, "client", HOST_CLIENT, FABRIC_ROLE_VBS, 5);
    start_module();
    start_peer();
    w.epoch = 100;
}

static void world_end(void)
{
    sim_loop_kill(w.module.loop);
    device_destroy(w.device);
    rwm_destroy(w.rwm);
    rwm_host_destroy(w.host);
    script_disconnect(&w.from_client);
    script_disconnect(&w.from_peer);
    sim_loop_kill(w.client.loop);
    sim_loop_kill(w.peer.loop);
    rpc_listener_destroy(w.listener, true);
    script_proc_end(&w.module);
    script_proc_end(&w.client);
    script_proc_end(&w.peer);
    sim_net_destroy(w.net);
    sim_world_destroy(w.world);
    fake_mdc_destroy(w.mdc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {.at = data, .left = size};
    struct script none = {.left = 0};
    world_start();
    if (script_u8(&s) & 1u)
        members(1 | SYNC, 2 | SYNC);
    else
        members(2 | SYNC, 1 | SYNC);
    run(600 * NS_PER_MS);
    greet_client(&none, 7);
    greet(&none);
    for (unsigned i = 0; i < 200 && s.left > 0; i++)
        play(&s);
    run(2 * NS_PER_S);
    check_serves();
    world_end();
    return 0;
}

/* A join for each partition, then mostly whole requests. */
size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    struct rng r;
    size_t at = 0;
    rng_seed(&r, seed);
    out[at++] = (uint8_t)rng_below(&r, 2);
    for (uint8_t b = 0; b < BLOCKS; b += 8) {
        const uint8_t join[] = {2, b, 0, 0, 0};
        memcpy(out + at, join, sizeof(join));
        at += sizeof(join);
    }
    out[at++] = 17;
    out[at++] = 2;
    for (uint64_t n = 4 + rng_below(&r, 40); n > 0 && at + 16 <= cap; n--) {
        out[at++] = (uint8_t)rng_below(&r, 20);
        for (unsigned i = 0; i < 3; i++)
            out[at++] = (uint8_t)rng_below(&r, rng_chance(&r, 1, 2) ? 32 : 256);
        out[at++] = (uint8_t)(rng_chance(&r, 1, 6) ? rng_below(&r, 16) : 0);
    }
    return at;
}
