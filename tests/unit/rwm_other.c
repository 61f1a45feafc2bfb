/* rwm_other.c: see rwm_other.h. */
#include "tests/unit/rwm_other.h"

#include "common/crc.h"

#include <stdlib.h>

#define OTHER_HOST 3u
#define OTHER_PORT 7300u

struct fake_block *other_block(struct other *o, uint64_t layer, uint64_t block)
{
    for (unsigned i = 0; i < OTHER_BLOCKS; i++)
        if (o->blocks[i].used && o->blocks[i].key.layer == layer && o->blocks[i].key.block == block)
            return &o->blocks[i];
    return NULL;
}

static struct fake_block *block_make(struct other *o, const struct copy_key *key)
{
    struct fake_block *b = other_block(o, key->layer, key->block);
    for (unsigned i = 0; b == NULL && i < OTHER_BLOCKS; i++) {
        if (o->blocks[i].used)
            continue;
        b = &o->blocks[i];
        memset(b, 0, sizeof(*b));
        b->used = true;
        b->key = (struct store_key){key->layer, key->block, key->hash};
    }
    assert_non_null(b);
    return b;
}

void other_mirror(struct other *o)
{
    memset(o->blocks, 0, OTHER_BLOCKS * sizeof(o->blocks[0]));
    unsigned n = 0;
    for (unsigned i = 0; i < FAKE_BLOCKS; i++) {
        if (!o->f->medium->blocks[i].used)
            continue;
        assert_true(n < OTHER_BLOCKS);
        o->blocks[n++] = o->f->medium->blocks[i];
    }
}

/* ---- requests ---- */
/* True: it was taken care of. */
static bool acted(struct other *o, struct rpc_request *rpc, uint16_t method)
{
    struct other_act *a = &o->act[method];
    o->asked[method]++;
    if (a->closes) {
        struct rpc_peer *peer = rpc_request_peer(rpc);
        a->closes = false;
        rpc_reply(rpc, STATUS_CANCELED, NULL, 0);
        rpc_close(peer);
        return true;
    }
    if (a->silent) {
        assert_true(o->kept_count < OTHER_KEPT);
        o->kept_method[o->kept_count] = method;
        o->kept[o->kept_count++] = rpc;
        return true;
    }
    if (a->status != 0)
        rpc_reply(rpc, a->status, NULL, 0);
    return a->status != 0;
}

void other_release(struct other *o, uint32_t status)
{
    unsigned count = o->kept_count;
    o->kept_count = 0;
    for (unsigned i = 0; i < count; i++)
        rpc_reply(o->kept[i], status, NULL, 0);
}

static void reply_versions(struct other *o, struct rpc_request *rpc, const void *body)
{
    struct {
        struct copy_versions_reply head;
        struct copy_version item[OTHER_BLOCKS + COPY_KEYS_MAX];
    } reply;
    struct copy_versions rq;
    memset(&reply, 0, sizeof(reply));
    memcpy(&rq, body, sizeof(rq));
    for (uint32_t i = 0; rq.list == COPY_LIST_KEYS && i < rq.count; i++) {
        struct copy_version *v = &reply.item[reply.head.count++];
        memcpy(&v->key, (const uint8_t *)body + sizeof(rq) + i * sizeof(v->key), sizeof(v->key));
        const struct fake_block *b = other_block(o, v->key.layer, v->key.block);
        v->version = b ? b->version : (struct version){0, 0};
    }
    for (unsigned i = 0; rq.list == COPY_LIST_ALL && i < OTHER_BLOCKS; i++) {
        const struct fake_block *b = &o->blocks[i];
        if (!b->used || placement_partition(b->key.hash, FAKE_POOL_PARTITIONS) != rq.head.partition)
            continue;
        reply.item[reply.head.count++] = (struct copy_version){
            .key = {b->key.layer, b->key.block, b->key.hash}, .version = b->version, .written = b->written};
    }
    rpc_reply(rpc, STATUS_OK, &reply,
              (uint32_t)(sizeof(reply.head) + reply.head.count * sizeof(reply.item[0])));
}

static void reply_fetch(struct other *o, struct rpc_request *rpc, const void *body)
{
    struct copy_fetch rq;
    memcpy(&rq, body, sizeof(rq));
    struct fake_block *b = other_block(o, rq.key.layer, rq.key.block);
    struct copy_fetch_reply reply = {{0, 0}, 0, 0};
    if (b == NULL) {
        rpc_reply(rpc, STATUS_OK, &reply, sizeof(reply));
        return;
    }
    reply = (struct copy_fetch_reply){.version = b->version, .written = b->written, .rotten = b->rotten};
    struct fabric_sge sge = {.base = b->data, .len = BLOCK_BYTES};
    uint32_t crc = crc32c(b->data, BLOCK_BYTES) ^ o->act[COPY_METHOD_FETCH].bad_crc;
    rpc_reply_payload(rpc, STATUS_OK, &reply, sizeof(reply), &sge, 1, crc, NULL, NULL);
}

static void reply_check(struct other *o, struct rpc_request *rpc, const void *body)
{
    struct copy_fetch rq;
    struct copy_check_reply reply = {.written = 0};
    memcpy(&rq, body, sizeof(rq));
    const struct fake_block *b = other_block(o, rq.key.layer, rq.key.block);
    if (b != NULL) {
        reply = (struct copy_check_reply){.version = b->version, .written = b->written, .rotten = b->rotten};
        for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++)
            if ((b->written & ~b->rotten) >> u & 1u)
                reply.crc[u] = b->crcs[u];
    }
    rpc_reply(rpc, STATUS_OK, &reply, sizeof(reply));
}

/* A payload on its way. */
struct taking {
    struct list link; /* other.taking */
    struct rpc_request *rpc;
    struct fake_block *b;
    uint32_t units, lost;
    bool replace;
    struct version version;
    uint8_t data[BLOCK_BYTES];
};

static void taken(void *arg, int rc)
{
    struct taking *t = arg;
    const uint8_t *from = t->data;
    if (rc == 0 && t->replace) {
        t->b->written = t->units | t->lost;
        t->b->rotten = t->lost;
    }
    for (uint32_t u = 0; rc == 0 && u < UNITS_PER_BLOCK; u++) {
        if (!(t->units >> u & 1u))
            continue;
        memcpy(t->b->data + (size_t)u * UNIT_BYTES, from, UNIT_BYTES);
        t->b->crcs[u] = crc32c(from, UNIT_BYTES);
        t->b->written |= 1u << u;
        t->b->rotten &= ~(1u << u);
        from += UNIT_BYTES;
    }
    if (rc == 0)
        t->b->version = t->version;
    rpc_reply(t->rpc, rc == 0 ? STATUS_OK : STATUS_BAD_CRC, NULL, 0);
    list_remove(&t->link);
    free(t);
}

/* In one moment, as a store does. */
static void take(struct other *o, struct rpc_request *rpc, const struct taking *what)
{
    struct taking *t = malloc(sizeof(*t));
    assert_non_null(t);
    *t = *what;
    t->rpc = rpc;
    list_push_back(&o->taking, &t->link);
    struct fabric_sge sge = {.base = t->data, .len = (uint32_t)__builtin_popcount(t->units) * UNIT_BYTES};
    assert_int_equal(rpc_request_payload_len(rpc), sge.len);
    assert_int_equal(rpc_request_fetch(rpc, &sge, 1, taken, t), 0);
}

static void take_forward(struct other *o, struct rpc_request *rpc, const void *body)
{
    struct copy_forward *f = &o->forward;
    memcpy(f, body, sizeof(*f));
    uint32_t units = (uint32_t)(((1ull << f->unit_count) - 1) << f->first_unit);
    if (!(f->flags & COPY_FORWARD_CLEAR)) {
        take(o, rpc, &(struct taking){.b = block_make(o, &f->key), .units = units, .version = f->version});
        return;
    }
    struct fake_block *b = block_make(o, &f->key);
    b->written &= ~units;
    b->version = f->version;
    b->used = b->written != 0;
    rpc_reply(rpc, STATUS_OK, NULL, 0);
}

static void take_replace(struct other *o, struct rpc_request *rpc, const void *body)
{
    struct copy_replace *r = &o->replace;
    memcpy(r, body, sizeof(*r));
    struct fake_block *b = block_make(o, &r->key);
    if ((r->written & ~r->lost) != 0) {
        take(o, rpc,
             &(struct taking){.b = b,
                              .replace = true,
                              .units = r->written & ~r->lost,
                              .lost = r->lost,
                              .version = r->version});
        return;
    }
    b->used = r->written != 0;
    b->written = b->rotten = r->lost;
    b->version = r->version;
    rpc_reply(rpc, STATUS_OK, NULL, 0);
}

static void serve(struct other *o, struct rpc_request *rpc, uint16_t method, const void *body, uint32_t len)
{
    struct copy_promise_reply promise = {.free_blocks = 1000};
    struct copy_join_reply join = {.flags = o->forgetful ? 0 : COPY_JOINED_WHOLE};
    (void)len;
    if (acted(o, rpc, method))
        return;
    switch (method) {
    case COPY_METHOD_PROMISE:
        rpc_reply(rpc, STATUS_OK, &promise, sizeof(promise));
        break;
    case COPY_METHOD_JOIN:
        join.epoch = ((const struct copy_join *)body)->head.epoch;
        rpc_reply(rpc, STATUS_OK, &join, sizeof(join));
        break;
    case COPY_METHOD_VERSIONS:
        reply_versions(o, rpc, body);
        break;
    case COPY_METHOD_FETCH:
        reply_fetch(o, rpc, body);
        break;
    case COPY_METHOD_CHECK:
        reply_check(o, rpc, body);
        break;
    case COPY_METHOD_FORWARD:
        take_forward(o, rpc, body);
        break;
    case COPY_METHOD_REPLACE:
        take_replace(o, rpc, body);
        break;
    default: /* hello, turns, a commit that was asked for */
        rpc_reply(rpc, STATUS_OK, NULL, 0);
        break;
    }
}

#define HANDLER(name, NAME)                                                                                  \
    static void on_##name(void *service, struct rpc_request *rpc, const void *body, uint32_t len)            \
    {                                                                                                        \
        serve(service, rpc, COPY_METHOD_##NAME, body, len);                                                  \
    }
HANDLER(peer_hello, PEER_HELLO)
HANDLER(promise, PROMISE)
HANDLER(join, JOIN)
HANDLER(commit, COMMIT)
HANDLER(versions, VERSIONS)
HANDLER(forward, FORWARD)
HANDLER(replace, REPLACE)
HANDLER(fetch, FETCH)
HANDLER(turns, TURNS)
HANDLER(check, CHECK)
HANDLER(release, RELEASE)

static void on_notify(void *service, struct rpc_peer *peer, uint16_t method, const void *body, uint32_t len)
{
    struct other *o = service;
    (void)peer;
    o->asked[method]++;
    if (method != COPY_METHOD_RELEASE)
        return;
    assert_int_equal(len, sizeof(o->release));
    memcpy(&o->release, body, sizeof(o->release));
}

/* ---- life ---- */
static void other_start(struct other *o, struct fix *f)
{
    static const struct rpc_method methods[] = {
#define COPY_METHOD(num, name_, handler_, request_)                                                          \
    {.number = num, .name = #name_, .handler = on_##handler_, .body_min = sizeof(struct request_)},
#include "common/wire/copy.def"
#undef COPY_METHOD
    };
    static const struct rpc_events events = {.notify = on_notify};
    struct fabric_addr addr = {.provider = FABRIC_PROVIDER_SIM, .port = OTHER_PORT, .ip = {OTHER_HOST}};
    struct fabric_config config = {.cluster = fake_uuid(0xcc),
                                   .secret = "a secret of a test",
                                   .secret_len = 18,
                                   .role = FABRIC_ROLE_MODULE,
                                   .incarnation = OTHER_INC};
    memset(o, 0, sizeof(*o));
    o->f = f;
    list_init(&o->taking);
    o->blocks = calloc(OTHER_BLOCKS, sizeof(*o->blocks));
    assert_non_null(o->blocks);
    assert_int_equal(loop_create_sim(f->world, "other", 0, &o->proc.loop), 0);
    sim_world_fork_rng(f->world, "other", &o->proc.rng);
    o->proc.env = (struct env){.loop = o->proc.loop, .rng = &o->proc.rng, .name = "other"};
    assert_int_equal(fabric_create_sim(&o->proc.env, f->net, OTHER_HOST, &config, &o->proc.env.fabric), 0);
    struct rpc_service service = {
        .methods = methods, .method_count = ARRAY_LEN(methods), .events = &events, .service = o};
    assert_int_equal(rpc_listen(&o->proc.env, &addr, &service, 1u << FABRIC_ROLE_MODULE, &o->listener), 0);
    /* The same process answers for module 3. */
    fake_mdc_module(f->mdc, 2, OTHER_INC, &addr);
    fake_mdc_module(f->mdc, 3, OTHER_INC, &addr);
}

void other_members(struct other *o, uint32_t first, uint32_t second)
{
    uint32_t m[3] = {first, second, 0};
    uint64_t epoch = 100;
    for (uint32_t i = 0; i < FAKE_POOL_PARTITIONS; i++)
        epoch = max_u64(epoch, fake_mdc_epoch(o->f->mdc, i) + 1);
    for (uint32_t i = 0; i < FAKE_POOL_PARTITIONS; i++)
        fake_mdc_members(o->f->mdc, i, epoch, m);
}

void other_begin(struct fix *f, struct other *o, struct fix_conn *c, uint64_t seed)
{
    fix_init(f, seed);
    other_start(o, f);
    other_members(o, 1 | OTHER_SYNC, 2 | OTHER_SYNC);
    fix_run(f, NS_PER_S);
    fix_open(f, c);
}

void other_end(struct fix *f, struct other *o, struct fix_conn *c)
{
    fix_close(c);
    fix_kill_module(f);
    sim_loop_kill(o->proc.loop);
    rpc_listener_destroy(o->listener, true);
    fabric_destroy(o->proc.env.fabric);
    loop_destroy(o->proc.loop);
    while (!list_empty(&o->taking))
        free(list_entry(list_pop_front(&o->taking), struct taking, link));
    free(o->blocks);
    fix_end(f);
}
