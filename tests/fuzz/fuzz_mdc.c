/*
 * fuzz_mdc.c: requests to the metadata controller, through the real handlers, with two modules, a pool with
 * two copies and a volume behind them. Each field of a request is what would be right now, or what the script
 * says. Whatever comes in: it is answered by a message that can be read, the table stays whole, the store
 * does not fail, and a controller that starts again over that store takes what it finds.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_script.h"

#include "common/wire/mdc_proto.h"
#include "services/mdc/mdc.h"

enum { HOST_MDC = 1, HOST_OTHERS = 2, PORT_MDC = 7100, MODULES = 3, CONNS = 2 };
const unsigned fuzz_rounds = 600;

static const struct method {
    uint16_t number;
    const struct wire_type *request, *reply;
} methods[] = {
#define MDC_METHOD(num, name, handler, request_, reply_)                                                     \
    {.number = num, .request = &request_##_type, .reply = &reply_##_type},
#define MDC_NOTIFY(num, name, msg)
#include "common/wire/mdc.def"
#undef MDC_METHOD
#undef MDC_NOTIFY
};

static struct {
    struct sim_world *world;
    struct sim_net *net;
    struct meta_sim *disk;
    struct script_proc process, others;
    struct mdc *mdc;
    struct script_conn conn[CONNS];
    uint64_t start[MODULES + 1]; /* of module n */
    bool failed;
} w;

static void run(uint64_t ns)
{
    sim_world_run_until(w.world, sim_world_now(w.world) + ns);
}

static void on_failed(void *user, int rc)
{
    (void)user;
    (void)rc;
    w.failed = true;
}

static void start_mdc(bool restored)
{
    struct mdc_config c = {.listen = script_addr(HOST_MDC, PORT_MDC),
                           .cluster = script_cluster(),
                           .limits = {.pools = 3, .modules = 6, .partitions = 64, .volumes = 8},
                           .attachments = 8,
                           .heartbeat_ms = 200,
                           .replace_after_ns = 3 * NS_PER_S,
                           .rest_ns = NS_PER_S,
                           .restored_store = restored,
                           .failed = on_failed};
    script_proc_start(&w.process, w.world, w.net, "mdc", HOST_MDC, FABRIC_ROLE_MDC, 1);
    MUST(meta_sim_open(w.disk, &w.process.env, &c.meta) == 0);
    MUST(mdc_create(&w.process.env, &c, &w.mdc) == 0);
}

static void kill_mdc(void)
{
    sim_loop_kill(w.process.loop);
    mdc_destroy(w.mdc);
    script_proc_end(&w.process);
    w.mdc = NULL;
}

static void check_table(void)
{
    const struct table *t = mdc_table(w.mdc);
    MUST(!w.failed);
    MUST(table_header_check(table_head(t), t->bytes) == 0);
    for (unsigned k = 0; k < TABLE_KINDS; k++)
        for (uint32_t i = 0; i < table_head(t)->section[k].used; i++)
            MUST(table_record_check((enum table_kind)k, table_record(t, (enum table_kind)k, i)));
}

/* ---- what would be right ---- */
struct want {
    const struct method *method;
    uint32_t module; /* the request is about it */
    uint32_t partition;
    uint8_t pick;
};

static const struct table_partition *partition_of(const struct want *q)
{
    const struct table *t = mdc_table(w.mdc);
    const uint32_t used = table_head(t)->section[TABLE_PARTITION].used;
    return used == 0 ? NULL : table_record(t, TABLE_PARTITION, q->partition % used);
}

static const struct table_volume *volume_of(const struct want *q)
{
    const struct table *t = mdc_table(w.mdc);
    const uint32_t used = table_head(t)->section[TABLE_VOLUME].used;
    return used == 0 ? NULL : table_record(t, TABLE_VOLUME, q->pick % used);
}

static uint64_t incarnation_of(uint32_t module)
{
    return module * 1000u + (module <= MODULES ? w.start[module] : 0);
}

struct right {
    const char *key;
    uint64_t value;
};

static uint64_t right_number(const struct want *q, const char *key)
{
    const struct table_header *head = table_head(mdc_table(w.mdc));
    const struct table_partition *p = partition_of(q);
    const struct table_volume *v = volume_of(q);
    const uint32_t member = p ? TABLE_MEMBER_ID(p->members[q->pick % 2u]) : 1;
    const struct right rights[] = {
        {"mod", q->module},
        {"inc", incarnation_of(q->module)},
        {"starts", q->module <= MODULES ? w.start[q->module] : 1},
        {"astart", q->pick % 2u != 0 && q->module <= MODULES ? w.start[q->module] : 0},
        {"ainc", q->pick % 2u != 0 ? incarnation_of(q->module) : 0},
        {"kind", TABLE_MODULE_OSD},
        {"media", TABLE_MEDIA_SSD},
        {"cap", 10 * GIB},
        {"aterm", head->term},
        {"term", head->term},
        {"aver", head->version},
        {"epoch", q->method->number == MDC_METHOD_MODULE_REPORT && p ? p->epoch : 0},
        {"pool", 1},
        {"part", p ? p->index : 0},
        {"mem", member},
        {"minc", q->method->number == MDC_METHOD_POOL_CREATE ? 1 : incarnation_of(member)},
        {"what", 1u + q->pick % 4u},
        {"size", (1u + q->pick) * GIB},
        {"inst", 1u + q->pick % 3u},
        {"held", q->pick > 20 && v ? v->generation : 0},
        {"gen", q->method->number == MDC_METHOD_MODULE_HEARTBEAT && v ? v->generation : 0},
        {"parts", 8u << q->pick % 3u},
        {"copies", 2},
        {"role", FABRIC_ROLE_ADMIN},
        {"order", MDC_SCRUB_STOP + q->pick},
        {"first", 1},
        {"last", 1},
        {"force", q->pick % 2u},
        {"wgt", q->pick * GIB},
        {"shrink", 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(rights); i++)
        if (strcmp(rights[i].key, key) == 0)
            return rights[i].value;
    return 0;
}

static void right_text(const struct want *q, const char *key, char *out, size_t size)
{
    const bool pool = strcmp(key, "pool") == 0 || q->method->number == MDC_METHOD_POOL_CREATE ||
                      q->method->number == MDC_METHOD_POOL_DELETE ||
                      q->method->number == MDC_METHOD_POOL_GROW;
    const char *text = pool ? "p" : strcmp(key, "host") == 0 ? "h" : "v";
    if (strcmp(key, "rack") == 0 || (q->method->request == &mdc_list_request_type && q->pick < 20) ||
        (q->pick > 28 && strcmp(key, "host") != 0))
        text = "";
    snprintf(out, size, "%s%.0u", text, q->pick < 20 ? 0 : q->pick % 3u);
    if (q->method->number == MDC_METHOD_MODULE_REGISTER)
        snprintf(out, size, "%s%u", strcmp(key, "host") == 0 ? "node" : "osd", q->module);
}

static void right_bytes(const struct want *q, const char *key, uint8_t *out, size_t size)
{
    const struct table_volume *v = volume_of(q);
    if (strcmp(key, "store") == 0)
        memset(out, (int)q->module, size);
    else if (strcmp(key, "addr") == 0)
        out[0] = FABRIC_PROVIDER_SIM;
    else if (v != NULL && size == sizeof(v->id))
        memcpy(out, &v->id, size);
}

/* ---- a request ---- */
static void fill(struct script *s, struct want *q, const struct wire_type *type, uint8_t *msg);

static void fill_number(struct script *s, struct want *q, const struct wire_field *f, uint8_t *at,
                        uint8_t how)
{
    static const uint64_t odd[] = {UINT64_MAX, 1ull << 61,          1ull << 32, UINT32_MAX,
                                   255,        0x8000000000000000u, 1,          2};
    const size_t bytes = f->kind == WIRE_BOOL || f->kind == WIRE_U8 ? 1 : f->size;
    uint64_t value = right_number(q, f->key);
    if (how == 5)
        value = 0;
    else if (how == 6)
        value = script_bytes(s, 8);
    else if (how == 7)
        value = odd[q->pick % ARRAY_LEN(odd)] + script_u8(s) % 3u - 1;
    if (f->kind == WIRE_BOOL)
        value = how < 6 ? value != 0 : value & 1u;
    memcpy(at, &value, bytes);
}

static void fill_text(struct script *s, const struct want *q, const struct wire_field *f, char *at,
                      uint8_t how)
{
    if (how < 5) {
        right_text(q, f->key, at, f->size);
        return;
    }
    size_t len = how == 5 ? 0 : how == 6 ? script_u8(s) % 4u : f->size - 1;
    for (size_t i = 0; i < len; i++)
        at[i] = how == 7 ? 'x' : (char)(script_u8(s) | 1);
}

static void fill_list(struct script *s, struct want *q, const struct wire_field *f, uint8_t *msg, uint8_t how)
{
    uint32_t count = how < 5 ? (f->kind == WIRE_ARRAY ? 1u + q->pick % 3u : 0) : script_u8(s);
    count = (uint32_t)min_u64(how == 7 ? UINT32_MAX : count, f->max);
    memcpy(msg + f->count_offset, &count, sizeof(count));
    for (uint32_t i = 0; i < count; i++) {
        if (f->kind == WIRE_ARRAY) {
            fill(s, q, f->item, msg + f->offset + i * f->item->size);
            q->partition++;
            continue;
        }
        const uint32_t id = (1u + script_u8(s) % 4u) | (i % 2u ? 0 : TABLE_MEMBER_IN_SYNC);
        memcpy(msg + f->offset + i * sizeof(id), &id, sizeof(id));
    }
}

static void fill_members(const struct want *q, const struct wire_field *f, uint8_t *msg)
{
    const struct table_partition *p = partition_of(q);
    uint32_t count = 0;
    while (p != NULL && count < TABLE_MEMBERS_MAX && p->members[count] != 0)
        count++;
    memcpy(msg + f->count_offset, &count, sizeof(count));
    if (count > 0)
        memcpy(msg + f->offset, p->members, count * sizeof(p->members[0]));
}

static void fill(struct script *s, struct want *q, const struct wire_type *type, uint8_t *msg)
{
    for (const struct wire_field *f = type->fields; f->key != NULL; f++) {
        const uint8_t ctl = script_u8(s), how = ctl & 7u;
        uint8_t *at = msg + f->offset;
        q->pick = ctl >> 3;
        switch (f->kind) {
        case WIRE_STR:
            fill_text(s, q, f, (char *)at, how);
            break;
        case WIRE_BIN:
            if (how < 5)
                right_bytes(q, f->key, at, f->size);
            else
                for (size_t i = 0; how > 5 && i < f->size; i++)
                    at[i] = script_u8(s);
            break;
        case WIRE_ARRAY:
            fill_list(s, q, f, msg, how);
            break;
        case WIRE_U32S:
            if (how < 5 && q->method->number == MDC_METHOD_MODULE_RECORDS)
                fill_members(q, f, msg);
            else
                fill_list(s, q, f, msg, how);
            break;
        case WIRE_MAP:
            fill(s, q, f->item, at);
            break;
        default:
            fill_number(s, q, f, at, how);
            break;
        }
    }
}

static void answered(struct script_call *c, const struct rpc_result *result)
{
    static union {
        uint8_t bytes[MDC_STRUCT_MAX];
        uint64_t align;
    } reply;
    const struct method *m = &methods[c->user];
    if (result->rc != 0)
        return;
    struct mdc_error error;
    if (result->status == STATUS_OK) {
        MUST(wire_decode(m->reply, result->body, result->body_len, reply.bytes, NULL) == 0);
        return;
    }
    MUST(wire_decode(&mdc_error_type, result->body, result->body_len, &error, NULL) == 0);
    MUST(error.text[0] != 0);
}

static void send(struct script *s, unsigned conn, unsigned index, uint8_t about)
{
    static union {
        uint8_t bytes[MDC_STRUCT_MAX];
        uint64_t align;
    } request;
    const struct method *m = &methods[index];
    struct script_call *c = script_call_new(&w.conn[conn], m->number);
    if (c == NULL)
        return;
    struct want q = {.method = m, .module = 1u + about % MODULES, .partition = about};
    memset(&request, 0, sizeof(request));
    fill(s, &q, m->request, request.bytes);
    size_t len = 0;
    if (wire_encode(m->request, request.bytes, c->body, sizeof(c->body), &len) != 0)
        return;
    len = script_damage(s, c->body, (uint32_t)len, sizeof(c->body));
    c->user = index;
    c->answered = answered;
    script_call_start(c, (uint32_t)len);
}

/* As its service would have it. */
static void send_right(unsigned conn, uint16_t method, uint8_t about)
{
    struct script none = {.left = 0};
    for (unsigned i = 0; i < ARRAY_LEN(methods); i++)
        if (methods[i].number == method)
            send(&none, conn, i, about);
    run(NS_PER_MS);
}

static void connect_all(void)
{
    const struct fabric_addr to = script_addr(HOST_MDC, PORT_MDC);
    for (unsigned i = 0; i < CONNS; i++) {
        script_disconnect(&w.conn[i]);
        script_connect(&w.conn[i], &w.others, w.world, &to, FABRIC_DOMAIN_CLUSTER);
        send_right(i, MDC_METHOD_SESSION, (uint8_t)i);
    }
}

static void beat_all(void)
{
    for (uint8_t i = 0; i < MODULES; i++)
        send_right(0, MDC_METHOD_MODULE_HEARTBEAT, i);
}

/* ---- the story ---- */
static void play(struct script *s)
{
    static const uint64_t waits_ms[] = {1, 20, 100, 250, 600, 1200, 3500, 9000};
    const uint8_t op = script_u8(s), about = script_u8(s);
    if (op < 200) {
        send(s, about >> 7, op % ARRAY_LEN(methods), about);
        if (op & 1u)
            run(NS_PER_MS);
        return;
    }
    switch (op % 8u) {
    case 0:
    case 1:
        beat_all();
        break;
    case 2:
        w.start[1 + about % MODULES]++;
        send_right(0, MDC_METHOD_MODULE_REGISTER, about);
        break;
    case 3:
        script_disconnect(&w.conn[about % CONNS]);
        connect_all();
        break;
    case 4:
        if (about < 64) {
            kill_mdc();
            start_mdc(about < 16);
            run(50 * NS_PER_MS);
            connect_all();
        }
        break;
    default:
        for (uint64_t left = waits_ms[about % ARRAY_LEN(waits_ms)]; left > 0; left -= min_u64(left, 150)) {
            run(min_u64(left, 150) * NS_PER_MS);
            if (about >= 64)
                beat_all();
        }
        break;
    }
}

static void world_start(void)
{
    memset(&w, 0, sizeof(w));
    MUST(sim_world_create(1, &w.world) == 0 && sim_net_create(w.world, &w.net) == 0);
    MUST(meta_sim_create(1, 100 * NS_PER_US, &w.disk) == 0);
    script_proc_start(&w.others, w.world, w.net, "others", HOST_OTHERS, FABRIC_ROLE_MODULE, 5);
    start_mdc(false);
    run(50 * NS_PER_MS);
    connect_all();
    for (uint8_t i = 0; i < MODULES; i++) {
        w.start[i + 1] = 1;
        if (i < 2)
            send_right(0, MDC_METHOD_MODULE_REGISTER, i);
    }
    send_right(0, MDC_METHOD_POOL_CREATE, 0);
    send_right(0, MDC_METHOD_VOLUME_CREATE, 0);
    run(NS_PER_S);
    beat_all();
    send_right(1, MDC_METHOD_VOLUME_OPEN, 0);
}

static void world_end(void)
{
    for (unsigned i = 0; i < CONNS; i++)
        script_disconnect(&w.conn[i]);
    kill_mdc();
    sim_loop_kill(w.others.loop);
    script_proc_end(&w.others);
    meta_sim_destroy(w.disk);
    sim_net_destroy(w.net);
    sim_world_destroy(w.world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {.at = data, .left = size};
    world_start();
    for (unsigned i = 0; i < 300 && s.left > 0; i++) {
        play(&s);
        check_table();
    }
    run(2 * NS_PER_S);
    check_table();
    kill_mdc();
    start_mdc(false);
    run(100 * NS_PER_MS);
    connect_all();
    beat_all();
    run(2 * NS_PER_S);
    check_table();
    world_end();
    return 0;
}

size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    struct rng r;
    size_t at = 0;
    rng_seed(&r, seed);
    for (uint64_t n = 4 + rng_below(&r, 40); n > 0 && at + 48 <= cap; n--) {
        out[at++] = (uint8_t)(rng_chance(&r, 1, 3) ? 200 + rng_below(&r, 56) : rng_below(&r, 200));
        out[at++] = (uint8_t)rng_u64(&r);
        for (uint64_t i = out[at - 2] < 200 ? 2 + rng_below(&r, 12) : 0; i > 0; i--)
            out[at++] = (uint8_t)(rng_chance(&r, 1, 8) ? rng_u64(&r) : rng_below(&r, 32) << 3);
        if (out[at - 1] % 4u == 3)
            out[at - 1] &= 0xf0u;
    }
    return at;
}
