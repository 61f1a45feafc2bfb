/* vbs_harness.h: a real metadata controller and scripted modules on one loop, for the tests of the volume
 * core and the gateway. */
#ifndef CISTERN_TESTS_UNIT_VBS_HARNESS_H
#define CISTERN_TESTS_UNIT_VBS_HARNESS_H

#include "mdc_harness.h"

#include "common/crc.h"
#include "common/wire/block_proto.h"
#include "services/vbs/volume.h"

#define FAKE_BYTES (64 * MIB)
enum { FAKE_MODULES = 2, FAKE_SCRIPT_MAX = 32, FAKE_HELD_MAX = 64 };

/* What a scripted module does with the next request instead of serving it. */
enum fake_act {
    FAKE_SERVE,
    FAKE_STATUS,      /* answers with a status */
    FAKE_DROP,        /* cuts the connection instead */
    FAKE_SERVE_DROP,  /* does it, then cuts the connection instead of answering */
    FAKE_WRONG_CRC,   /* a read's payload with another checksum */
    FAKE_SHORT_REPLY, /* a reply without a body */
    FAKE_HOLD,        /* answers when it is told to */
};
struct fake_step {
    enum fake_act act;
    uint32_t status;
};
struct fake_module {
    struct world *w;
    struct env env;
    struct fabric *fabric;
    struct rpc_listener *listener;
    struct client *admin;
    unsigned number, start;
    uint32_t id;
    uint64_t incarnation;
    uint8_t *data;    /* what this module holds, by offset in the volume */
    uint8_t *written; /* one byte a unit */
    struct fake_step script[FAKE_SCRIPT_MAX];
    unsigned script_at, script_len;
    bool drop_hello;
    struct rpc_request *held[FAKE_HELD_MAX];
    unsigned held_count;
    uint64_t generation, turn_floor; /* 0 = any */
    uint64_t hello_sequence, instance;
    unsigned hellos, requests;
    uint64_t last_turn, last_generation;
};
/* One write whose payload is on its way. */
struct fake_fetch {
    struct fake_module *m;
    struct rpc_request *rpc;
    struct block_request body;
    bool drop;
    uint8_t payload[];
};

static inline void fake_push(struct fake_module *m, enum fake_act act, uint32_t status)
{
    assert_true(m->script_len < FAKE_SCRIPT_MAX);
    m->script[m->script_len++] = (struct fake_step){act, status};
}

static inline void fake_answer(struct fake_module *m, struct rpc_request *rpc, uint32_t status)
{
    struct block_reply reply = {.incarnation = m->incarnation};
    rpc_reply(rpc, status, &reply, sizeof reply);
}

static inline void fake_cut(struct rpc_request *rpc)
{
    struct rpc_peer *peer = rpc_request_peer(rpc);
    rpc_reply(rpc, STATUS_CANCELED, NULL, 0);
    rpc_close(peer);
}

static inline void fake_mark(struct fake_module *m, const struct block_request *b, bool written)
{
    for (uint64_t u = b->offset / UNIT_BYTES; u * UNIT_BYTES < b->offset + b->length; u++)
        m->written[u] = written;
}

static inline void fake_written(void *arg, int rc)
{
    struct fake_fetch *f = arg;
    if (rc == 0) {
        memcpy(f->m->data + f->body.offset, f->payload, f->body.length);
        fake_mark(f->m, &f->body, true);
    }
    if (f->drop)
        fake_cut(f->rpc);
    else
        fake_answer(f->m, f->rpc, rc == 0 ? STATUS_OK : STATUS_BAD_CRC);
    free(f);
}

static inline void fake_write(struct fake_module *m, struct rpc_request *rpc, const struct block_request *b,
                              bool drop)
{
    struct fake_fetch *f = malloc(sizeof *f + b->length);
    assert_non_null(f);
    *f = (struct fake_fetch){.m = m, .rpc = rpc, .body = *b, .drop = drop};
    struct fabric_sge sge = {.base = f->payload, .len = b->length};
    assert_int_equal(rpc_request_payload_len(rpc), b->length);
    assert_int_equal(rpc_request_fetch(rpc, &sge, 1, fake_written, f), 0);
}

static inline void fake_read(struct fake_module *m, struct rpc_request *rpc, const struct block_request *b,
                             bool wrong)
{
    struct block_reply reply = {.incarnation = m->incarnation, .length = b->length, .holes = 1};
    for (uint64_t u = b->offset / UNIT_BYTES; u * UNIT_BYTES < b->offset + b->length; u++)
        reply.holes = reply.holes && !m->written[u];
    if (reply.holes && !wrong) {
        rpc_reply(rpc, STATUS_OK, &reply, sizeof reply);
        return;
    }
    reply.holes = 0;
    struct fabric_sge sge = {.base = m->data + b->offset, .len = b->length};
    uint32_t crc = crc32c(sge.base, sge.len);
    rpc_reply_payload(rpc, STATUS_OK, &reply, sizeof reply, &sge, 1, wrong ? ~crc : crc, NULL, NULL);
}

static inline void fake_extents(struct fake_module *m, struct rpc_request *rpc, const struct block_request *b)
{
    uint8_t body[sizeof(struct block_reply) + 1024] = {0};
    uint64_t first = b->offset / UNIT_BYTES, end = (b->offset + b->length + UNIT_BYTES - 1) / UNIT_BYTES;
    for (uint64_t u = first; u < end; u++)
        if (m->written[u])
            body[sizeof(struct block_reply) + (u - first) / 8] |= (uint8_t)(1u << ((u - first) % 8));
    rpc_reply(rpc, STATUS_OK, body, (uint32_t)(sizeof(struct block_reply) + (end - first + 7) / 8));
}

static inline void fake_serve(struct fake_module *m, struct rpc_request *rpc, uint16_t method,
                              const struct block_request *b, bool drop)
{
    if (method == BLOCK_METHOD_WRITE) {
        fake_write(m, rpc, b, drop);
        return;
    }
    if (method == BLOCK_METHOD_DISCARD || method == BLOCK_METHOD_ZERO) {
        memset(m->data + b->offset, 0, b->length);
        fake_mark(m, b, false);
    }
    if (drop)
        fake_cut(rpc);
    else if (method == BLOCK_METHOD_READ)
        fake_read(m, rpc, b, false);
    else if (method == BLOCK_METHOD_EXTENTS)
        fake_extents(m, rpc, b);
    else
        fake_answer(m, rpc, STATUS_OK);
}

/* STATUS_OK, or what a module's own checks say. */
static inline uint32_t fake_check(struct fake_module *m, uint16_t method, const struct block_request *b)
{
    bool changes = method != BLOCK_METHOD_READ && method != BLOCK_METHOD_EXTENTS;
    assert_true(b->length > 0 && b->length % SECTOR_BYTES == 0 && b->offset + b->length <= FAKE_BYTES);
    assert_int_equal(b->offset / MIB, (b->offset + b->length - 1) / MIB); /* one stripe */
    if (b->incarnation != m->incarnation)
        return STATUS_WRONG_INCARNATION;
    if (m->generation != 0 && b->generation != m->generation)
        return STATUS_STALE_GENERATION;
    if (changes && b->turn < m->turn_floor)
        return STATUS_STALE_TURN;
    assert_true(!changes || b->turn != 0);
    return STATUS_OK;
}

static inline void fake_request(struct fake_module *m, struct rpc_request *rpc, uint16_t method,
                                const void *body)
{
    struct block_request b;
    struct fake_step step = {FAKE_SERVE, 0};
    memcpy(&b, body, sizeof b);
    m->requests++;
    m->last_turn = b.turn != 0 ? b.turn : m->last_turn;
    m->last_generation = b.generation;
    if (m->script_at < m->script_len)
        step = m->script[m->script_at++];
    uint32_t status = step.act == FAKE_STATUS ? step.status : fake_check(m, method, &b);
    if (step.act == FAKE_DROP)
        fake_cut(rpc);
    else if (step.act == FAKE_HOLD && m->held_count < FAKE_HELD_MAX)
        m->held[m->held_count++] = rpc;
    else if (step.act == FAKE_SHORT_REPLY)
        rpc_reply(rpc, STATUS_OK, NULL, 0);
    else if (step.act == FAKE_WRONG_CRC && method == BLOCK_METHOD_READ)
        fake_read(m, rpc, &b, true);
    else if (status != STATUS_OK)
        fake_answer(m, rpc, status);
    else
        fake_serve(m, rpc, method, &b, step.act == FAKE_SERVE_DROP);
}

/* Answers what it holds back. */
static inline void fake_release(struct fake_module *m, uint32_t status)
{
    for (unsigned i = 0; i < m->held_count; i++)
        fake_answer(m, m->held[i], status);
    m->held_count = 0;
}

static inline void fake_hello(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)
{
    struct fake_module *m = service;
    struct block_hello hello;
    (void)body_len;
    memcpy(&hello, body, sizeof hello);
    assert_int_equal(hello.module, m->id);
    if (m->hellos++ > 0 && hello.instance == m->instance)
        assert_true(hello.sequence > m->hello_sequence);
    m->hello_sequence = hello.sequence;
    m->instance = hello.instance;
    if (m->drop_hello) {
        m->drop_hello = false;
        fake_cut(rpc);
        return;
    }
    rpc_reply(rpc, STATUS_OK, NULL, 0);
}

#define FAKE_HANDLER(name, number)                                                                           \
    static inline void fake_##name(void *service, struct rpc_request *rpc, const void *body,                 \
                                   uint32_t body_len)                                                        \
    {                                                                                                        \
        (void)body_len;                                                                                      \
        fake_request(service, rpc, number, body);                                                            \
    }
FAKE_HANDLER(on_read, BLOCK_METHOD_READ)
FAKE_HANDLER(on_write, BLOCK_METHOD_WRITE)
FAKE_HANDLER(on_discard, BLOCK_METHOD_DISCARD)
FAKE_HANDLER(on_zero, BLOCK_METHOD_ZERO)
FAKE_HANDLER(on_extents, BLOCK_METHOD_EXTENTS)

/* A start of the module: a new incarnation at a new address; what it holds stays. */
static inline void fake_start(struct fake_module *m)
{
    static const struct rpc_method methods[] = {
        {BLOCK_METHOD_HELLO, "HELLO", fake_hello, sizeof(struct block_hello)},
        {BLOCK_METHOD_READ, "READ", fake_on_read, sizeof(struct block_request)},
        {BLOCK_METHOD_WRITE, "WRITE", fake_on_write, sizeof(struct block_request)},
        {BLOCK_METHOD_DISCARD, "DISCARD", fake_on_discard, sizeof(struct block_request)},
        {BLOCK_METHOD_ZERO, "ZERO", fake_on_zero, sizeof(struct block_request)},
        {BLOCK_METHOD_EXTENTS, "EXTENTS", fake_on_extents, sizeof(struct block_request)},
    };
    static const struct rpc_events events = {.up = NULL};
    struct rpc_service service = {
        .methods = methods, .method_count = ARRAY_LEN(methods), .events = &events, .service = m};
    struct fabric_addr addr;
    m->env = (struct env){.loop = m->w->loop, .rng = &m->w->rng, .name = "module"};
    m->fabric = world_fabric(m->w, &m->env, FABRIC_ROLE_MODULE);
    assert_int_equal(fabric_addr_parse("tcp:127.0.0.1:0", &addr), 0);
    assert_int_equal(rpc_listen(&m->env, &addr, &service, UINT32_MAX, &m->listener), 0);
    m->incarnation = m->number * 1000 + ++m->start;
    struct mdc_module_register_request rq = {.start_counter = m->start,
                                             .incarnation = m->incarnation,
                                             .module = m->id,
                                             .kind = TABLE_MODULE_OSD,
                                             .media = TABLE_MEDIA_SSD,
                                             .capacity_bytes = 10 * GIB};
    struct mdc_module_register_reply rep;
    memset(rq.store.b, (int)m->number, sizeof rq.store.b);
    snprintf(rq.host, sizeof rq.host, "node%u", m->number);
    snprintf(rq.name, sizeof rq.name, "osd%u", m->number);
    rpc_listener_addr(m->listener, &addr);
    memcpy(rq.addr, &addr, sizeof rq.addr);
    assert_int_equal(
        CALL(m->admin, MODULE_REGISTER, mdc_module_register_request, &rq, mdc_module_register_reply, &rep),
        STATUS_OK);
    m->id = rep.module;
}

static inline void fake_stop(struct fake_module *m)
{
    rpc_listener_destroy(m->listener, true);
    fabric_destroy(m->fabric);
    m->held_count = 0;
    m->listener = NULL;
}

/* The module confirms all that is published. */
static inline void fake_beat(struct fake_module *m)
{
    const struct table_header *h = table_head(mdc_table(m->w->mdc));
    struct mdc_module_heartbeat_request rq = {.module = m->id,
                                              .incarnation = m->incarnation,
                                              .applied_term = h->term,
                                              .applied_version = h->version,
                                              .capacity_bytes = 10 * GIB};
    struct mdc_module_heartbeat_reply rep;
    assert_int_equal(
        CALL(m->admin, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &rq, mdc_module_heartbeat_reply, &rep),
        STATUS_OK);
}

/* ---- the whole ---- */

struct vbs_world {
    struct world *w;
    struct client *admin;
    struct fake_module m[FAKE_MODULES];
    struct env env;
    struct fabric *fabric;
    struct volume_core *core;
    struct mdc_volume_info info;
};

static inline void vbs_world_volume(struct vbs_world *vw, const char *name, uint64_t bytes)
{
    struct mdc_volume_create_request rq = {.size_bytes = bytes};
    struct mdc_volume_reply rep;
    snprintf(rq.name, sizeof rq.name, "%s", name);
    assert_int_equal(CALL(vw->admin, VOLUME_CREATE, mdc_volume_create_request, &rq, mdc_volume_reply, &rep),
                     STATUS_OK);
    vw->info = rep.volume;
}

/* An MDC, two modules, a pool of them, volume "v" of 32 MiB; fabric of role for the object under test. */
static inline struct vbs_world *vbs_world_new(enum fabric_role role)
{
    struct vbs_world *vw = calloc(1, sizeof *vw);
    assert_non_null(vw);
    vw->w = world_new();
    vw->admin = client_new(vw->w, "admin");
    for (unsigned i = 0; i < FAKE_MODULES; i++) {
        vw->m[i] = (struct fake_module){.w = vw->w, .admin = vw->admin, .number = i + 1};
        vw->m[i].data = calloc(1, FAKE_BYTES);
        vw->m[i].written = calloc(1, FAKE_BYTES / UNIT_BYTES);
        fake_start(&vw->m[i]);
    }
    struct mdc_pool_create_request rq = {.name = "p", .partitions = 64};
    struct mdc_pool_reply rep;
    assert_int_equal(CALL(vw->admin, POOL_CREATE, mdc_pool_create_request, &rq, mdc_pool_reply, &rep),
                     STATUS_OK);
    assert_int_equal(rep.pool.stripe_bytes, MIB);
    vbs_world_volume(vw, "v", 32 * MIB);
    vw->env = (struct env){.loop = vw->w->loop, .rng = &vw->w->rng, .name = "vbs"};
    vw->fabric = world_fabric(vw->w, &vw->env, role);
    return vw;
}

static inline void vbs_core_config(struct vbs_world *vw, struct volume_core_config *config, uint64_t instance)
{
    volume_core_config_default(config);
    config->cluster.mdc[0] = vw->w->addr;
    config->cluster.mdc_count = 1;
    config->cluster.role = FABRIC_ROLE_VBS;
    config->cluster.instance = instance;
    snprintf(config->cluster.host, sizeof config->cluster.host, "h1");
    snprintf(config->cluster.name, sizeof config->cluster.name, "vbs");
}

static inline void vbs_world_core(struct vbs_world *vw, unsigned parts_max)
{
    struct volume_core_config config;
    vbs_core_config(vw, &config, 77);
    config.parts_max = parts_max;
    assert_int_equal(volume_core_create(&vw->env, &config, &vw->core), 0);
}

static inline void vbs_rounds(struct vbs_world *vw, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++)
        loop_run_once(vw->w->loop, NS_PER_MS);
}

static inline void vbs_world_free(struct vbs_world *vw)
{
    volume_core_destroy(vw->core);
    fabric_destroy(vw->fabric);
    client_free(vw->admin);
    for (unsigned i = 0; i < FAKE_MODULES; i++) {
        if (vw->m[i].listener != NULL)
            fake_stop(&vw->m[i]);
        free(vw->m[i].data);
        free(vw->m[i].written);
    }
    world_free(vw->w);
    free(vw);
}

/* Every module does it with its next request. */
static inline void fake_push_all(struct vbs_world *vw, enum fake_act act, uint32_t status)
{
    for (unsigned i = 0; i < FAKE_MODULES; i++)
        fake_push(&vw->m[i], act, status);
}

/* ---- opening and I/O ---- */

struct opened {
    bool done;
    int rc;
    struct volume *v;
    char text[256];
    unsigned changes;
    int changed_rc;
};

static inline void on_opened(void *arg, struct volume *v, int rc, const char *text)
{
    struct opened *o = arg;
    o->done = true;
    o->rc = rc;
    o->v = v;
    snprintf(o->text, sizeof o->text, "%s", text);
}

static inline void on_open_changed(void *arg, int rc)
{
    struct opened *o = arg;
    o->changes++;
    o->changed_rc = rc;
}

static inline struct volume_open_options vbs_options(const char *name, const char *host, uint64_t instance)
{
    struct volume_open_options options = {.instance = instance};
    snprintf(options.name, sizeof options.name, "%s", name);
    snprintf(options.host, sizeof options.host, "%s", host);
    return options;
}

static inline int vbs_open(struct vbs_world *vw, const struct volume_open_options *options, struct opened *o)
{
    memset(o, 0, sizeof *o);
    assert_int_equal(volume_open(vw->core, options, on_opened, o), 0);
    assert_false(o->done);
    WORLD_UNTIL(vw->w, o->done);
    if (o->rc == 0)
        volume_set_changed(o->v, on_open_changed, o);
    return o->rc;
}

struct io {
    struct volume_request r;
    bool done;
    int rc;
    struct fabric_sge sge[64];
    uint8_t *buf;
};

static inline void on_io_done(struct volume_request *r, int rc)
{
    struct io *io = container_of(r, struct io, r);
    assert_false(io->done);
    io->done = true;
    io->rc = rc;
}

/* One piece of memory, or several of piece bytes (0 = one). */
static inline void io_prepare(struct io *io, enum volume_op op, uint64_t offset, uint64_t length,
                              uint32_t piece)
{
    *io = (struct io){.r = {.op = op, .offset = offset, .length = length, .done = on_io_done}};
    io->buf = malloc(length + 1);
    assert_non_null(io->buf);
    memset(io->buf, 0xee, length);
    for (uint64_t at = 0; at < length && (op == VOLUME_READ || op == VOLUME_WRITE);) {
        uint32_t len =
            (uint32_t)(piece != 0 && io->r.sge_count < 63 ? min_u64(piece, length - at) : length - at);
        io->sge[io->r.sge_count++] = (struct fabric_sge){.base = io->buf + at, .len = len};
        at += len;
    }
    io->r.sge = io->sge;
    io->r.bitmap = io->buf;
}

static inline int io_wait(struct vbs_world *vw, struct io *io)
{
    WORLD_UNTIL(vw->w, io->done);
    return io->rc;
}

static inline int io_run(struct vbs_world *vw, struct volume *v, struct io *io)
{
    int rc = volume_submit(v, &io->r);
    if (rc != 0)
        return rc;
    assert_false(io->done);
    return io_wait(vw, io);
}

static inline void io_fill(struct io *io, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    rng_fill(&rng, io->buf, io->r.length);
}

/* Writes random bytes and reads them back. */
static inline void io_round_trip(struct vbs_world *vw, struct volume *v, uint64_t offset, uint64_t length,
                                 uint32_t piece)
{
    struct io out, in;
    io_prepare(&out, VOLUME_WRITE, offset, length, piece);
    io_fill(&out, offset + length + piece);
    assert_int_equal(io_run(vw, v, &out), 0);
    io_prepare(&in, VOLUME_READ, offset, length, piece / 2 / SECTOR_BYTES * SECTOR_BYTES);
    assert_int_equal(io_run(vw, v, &in), 0);
    assert_memory_equal(in.buf, out.buf, length);
    assert_false(in.r.holes);
    free(out.buf);
    free(in.buf);
}

/* Closes and waits. */
static inline void on_closed_flag(void *arg)
{
    *(bool *)arg = true;
}
static inline void vbs_close(struct vbs_world *vw, struct volume *v)
{
    bool closed = false;
    volume_close(v, on_closed_flag, &closed);
    assert_false(closed);
    WORLD_UNTIL(vw->w, closed);
}

#endif
