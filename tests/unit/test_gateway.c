/* Gateways and their clients, against a real metadata controller and scripted modules, over tcp. */
#include "vbs_harness.h"

#include "common/wire/vbs_proto.h"
#include "services/vbs/gateway.h"
#include "services/vbs/gateway_client.h"

enum { GATEWAYS = 2, IOS = 64 };
struct fixture {
    struct vbs_world *vw; /* its env and fabric are the first client's */
    struct env gw_env[GATEWAYS];
    struct fabric *gw_fabric[GATEWAYS];
    struct gateway *gw[GATEWAYS];
    struct fabric_addr addr[GATEWAYS];
    struct vbs_client *client;
    struct vbs_client_volume *v;
    bool done;
    int rc;
    char text[256];
    unsigned changes;
    int changed_rc;
};

static void gateway_up(struct fixture *fx, unsigned i)
{
    struct gateway_config config;
    gateway_config_default(&config);
    vbs_core_config(fx->vw, &config.core, 500 + i);
    config.memory_bytes = 4 * MIB;
    assert_int_equal(fabric_addr_parse("tcp:127.0.0.1:0", &config.listen), 0);
    if (fx->addr[i].provider != 0)
        config.listen = fx->addr[i];
    fx->gw_env[i] =
        (struct env){.loop = fx->vw->w->loop, .rng = &fx->vw->w->rng, .name = i == 0 ? "gw0" : "gw1"};
    fx->gw_fabric[i] = world_fabric(fx->vw->w, &fx->gw_env[i], FABRIC_ROLE_VBS);
    assert_int_equal(gateway_create(&fx->gw_env[i], &config, &fx->gw[i]), 0);
    gateway_addr(fx->gw[i], &fx->addr[i]);
    WORLD_UNTIL(fx->vw->w, gateway_is_ready(fx->gw[i]));
}

static void gateway_down(struct fixture *fx, unsigned i)
{
    gateway_destroy(fx->gw[i]);
    if (fx->gw_fabric[i] != NULL)
        fabric_destroy(fx->gw_fabric[i]);
    fx->gw[i] = NULL;
    fx->gw_fabric[i] = NULL;
}

static void on_client_open(void *arg, struct vbs_client_volume *v, int rc, const char *text)
{
    struct fixture *fx = arg;
    fx->done = true;
    fx->rc = rc;
    fx->v = v;
    snprintf(fx->text, sizeof fx->text, "%s", text);
}

static void on_client_changed(void *arg, int rc)
{
    struct fixture *fx = arg;
    fx->changes++;
    fx->changed_rc = rc;
}

static int client_open(struct fixture *fx, const char *name, uint64_t instance, bool take_over)
{
    struct volume_open_options options = vbs_options(name, "h1", instance);
    options.take_over = take_over;
    fx->done = false;
    assert_int_equal(vbs_client_open(fx->client, &options, on_client_open, fx), 0);
    assert_false(fx->done);
    WORLD_UNTIL(fx->vw->w, fx->done);
    if (fx->rc == 0)
        vbs_client_set_changed(fx->v, on_client_changed, fx);
    return fx->rc;
}

static void client_up(struct fixture *fx)
{
    struct gateway_client_config config = {.gateway_count = GATEWAYS, .verify_reads = true};
    memcpy(config.gateways, fx->addr, sizeof fx->addr);
    assert_int_equal(vbs_client_create(&fx->vw->env, &config, &fx->client), 0);
}

static int setup(void **state)
{
    struct fixture *fx = calloc(1, sizeof *fx);
    assert_non_null(fx);
    fx->vw = vbs_world_new(FABRIC_ROLE_CLIENT);
    for (unsigned i = 0; i < GATEWAYS; i++)
        gateway_up(fx, i);
    client_up(fx);
    assert_int_equal(client_open(fx, "v", 900, false), 0);
    *state = fx;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fx = *state;
    vbs_client_destroy(fx->client);
    for (unsigned i = 0; i < GATEWAYS; i++)
        gateway_down(fx, i);
    vbs_world_free(fx->vw);
    free(fx);
    return 0;
}

static int run(struct fixture *fx, struct io *io)
{
    int rc = vbs_client_submit(fx->v, &io->r);
    if (rc != 0)
        return rc;
    assert_false(io->done);
    return io_wait(fx->vw, io);
}

static void round_trip(struct fixture *fx, uint64_t offset, uint64_t length, uint32_t piece)
{
    struct io out, in;
    io_prepare(&out, VOLUME_WRITE, offset, length, piece);
    io_fill(&out, offset ^ length);
    assert_int_equal(run(fx, &out), 0);
    io_prepare(&in, VOLUME_READ, offset, length, piece);
    assert_int_equal(run(fx, &in), 0);
    assert_memory_equal(in.buf, out.buf, length);
    free(out.buf);
    free(in.buf);
}

/* Every buffer and request of the gateway is back. */
static void assert_at_rest(struct fixture *fx, unsigned i)
{
    struct gateway_stats s;
    do {
        vbs_rounds(fx->vw, 1);
        gateway_stats_get(fx->gw[i], &s);
    } while (s.requests_active != 0);
    assert_int_equal(s.chunks_free, s.chunks_total);
    assert_int_equal(s.requests_waiting, 0);
}

static unsigned opens_at_mdc(struct fixture *fx)
{
    struct mdc_name_request rq = {.name = "v"};
    struct mdc_volume_reply rep;
    assert_int_equal(CALL(fx->vw->admin, VOLUME_GET, mdc_name_request, &rq, mdc_volume_reply, &rep),
                     STATUS_OK);
    return rep.volume.opens;
}

static void test_round_trips(void **state)
{
    struct fixture *fx = *state;
    struct gateway_stats s;
    round_trip(fx, 0, 512, 0);
    round_trip(fx, 4096, 4096, 0);
    round_trip(fx, MIB - 512, 1024, 0);
    round_trip(fx, 3 * MIB + 1536, 5 * MIB + 512, 0);
    round_trip(fx, 20 * MIB - 512, 63 * 1024, 1024);
    round_trip(fx, 0, 32 * MIB, 0);
    assert_at_rest(fx, 0);
    gateway_stats_get(fx->gw[0], &s);
    assert_int_equal(s.clients, 1);
    assert_int_equal(s.volumes, 1);
    assert_true(s.read_bytes == s.write_bytes && s.read_bytes > 37 * MIB);
    gateway_stats_get(fx->gw[1], &s);
    assert_int_equal(s.clients, 0);
}

static void test_holes_discard_extents(void **state)
{
    struct fixture *fx = *state;
    struct io io;
    io_prepare(&io, VOLUME_READ, 2 * MIB, 3 * MIB, 0);
    assert_int_equal(run(fx, &io), 0);
    assert_true(io.r.holes);
    for (size_t i = 0; i < 3 * MIB; i++)
        assert_int_equal(io.buf[i], 0);
    free(io.buf);
    round_trip(fx, 2 * MIB - 8192, 16384, 0);
    io_prepare(&io, VOLUME_DISCARD, 2 * MIB, 4096, 0);
    assert_int_equal(run(fx, &io), 0);
    free(io.buf);
    io_prepare(&io, VOLUME_EXTENTS, 2 * MIB - 16384, 4 * MIB, 0);
    assert_int_equal(run(fx, &io), 0);
    assert_int_equal(io.buf[0], 0x2c);
    for (size_t i = 1; i < 4 * MIB / UNIT_BYTES / 8; i++)
        assert_int_equal(io.buf[i], 0);
    free(io.buf);
    io_prepare(&io, VOLUME_ZERO, 0, 32 * MIB, 0);
    assert_int_equal(run(fx, &io), 0);
    free(io.buf);
    io_prepare(&io, VOLUME_FLUSH, 0, 0, 0);
    assert_int_equal(run(fx, &io), 0);
    free(io.buf);
    assert_at_rest(fx, 0);
}

static void test_refusals(void **state)
{
    struct fixture *fx = *state;
    struct vbs_client_volume *mine = fx->v;
    struct io io;
    assert_int_equal(client_open(fx, "nothing", 900, false), -ENOENT);
    assert_non_null(strstr(fx->text, "nothing"));
    assert_int_equal(client_open(fx, "v", 901, false), -EBUSY);
    assert_true(strlen(fx->text) > 10);
    fx->v = mine;
    static const struct {
        uint64_t offset, length;
        int rc;
    } bad[] = {{0, 0, -EINVAL}, {100, 512, -EINVAL}, {32 * MIB, 512, -ERANGE}, {31 * MIB, 2 * MIB, -ERANGE}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        io_prepare(&io, VOLUME_WRITE, bad[i].offset, bad[i].length, 0);
        assert_int_equal(vbs_client_submit(fx->v, &io.r), bad[i].rc);
        free(io.buf);
    }
    fake_push_all(fx->vw, FAKE_STATUS, STATUS_NO_SPACE);
    io_prepare(&io, VOLUME_WRITE, 0, 8 * MIB, 0);
    assert_int_equal(run(fx, &io), -ENOSPC);
    free(io.buf);
    fake_push_all(fx->vw, FAKE_STATUS, STATUS_DAMAGED);
    io_prepare(&io, VOLUME_READ, 0, 8 * MIB, 0);
    assert_int_equal(run(fx, &io), -EIO);
    free(io.buf);
    fake_push_all(fx->vw, FAKE_STATUS, STATUS_NOT_SERVING);
    round_trip(fx, 0, 8 * MIB, 0);
    assert_at_rest(fx, 0);
}

/* Far more at once than the gateway has memory for. */
static void test_back_pressure(void **state)
{
    struct fixture *fx = *state;
    static struct io out[IOS], in[IOS];
    for (unsigned i = 0; i < IOS; i++) {
        io_prepare(&out[i], VOLUME_WRITE, i % 32 * MIB + (i / 32) * 512 * KIB, 512 * KIB, 0);
        io_fill(&out[i], i);
        assert_int_equal(vbs_client_submit(fx->v, &out[i].r), 0);
    }
    for (unsigned i = 0; i < IOS; i++)
        assert_int_equal(io_wait(fx->vw, &out[i]), 0);
    for (unsigned i = 0; i < IOS; i++) {
        io_prepare(&in[i], VOLUME_READ, i % 32 * MIB + (i / 32) * 512 * KIB, 512 * KIB, 0);
        assert_int_equal(vbs_client_submit(fx->v, &in[i].r), 0);
    }
    for (unsigned i = 0; i < IOS; i++) {
        assert_int_equal(io_wait(fx->vw, &in[i]), 0);
        assert_memory_equal(in[i].buf, out[i].buf, 512 * KIB);
        free(in[i].buf);
        free(out[i].buf);
    }
    assert_at_rest(fx, 0);
}

/* A gateway dies with requests in every state; the other one takes over with a higher turn, and nothing is
 * lost. */
static void test_failover(void **state)
{
    struct fixture *fx = *state;
    static struct io out[8];
    unsigned serving = 0;
    for (unsigned rounds = 0; rounds < 24; rounds += 3) {
        uint64_t turn = max_u64(fx->vw->m[0].last_turn, fx->vw->m[1].last_turn);
        for (unsigned i = 0; i < 8; i++) {
            io_prepare(&out[i], VOLUME_WRITE, i * 2 * MIB, 2 * MIB, 0);
            io_fill(&out[i], rounds * 8 + i);
            assert_int_equal(vbs_client_submit(fx->v, &out[i].r), 0);
        }
        vbs_rounds(fx->vw, rounds);
        gateway_down(fx, serving);
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(io_wait(fx->vw, &out[i]), 0);
        for (unsigned i = 0; i < 8; i++) {
            struct io in;
            io_prepare(&in, VOLUME_READ, i * 2 * MIB, 2 * MIB, 0);
            assert_int_equal(run(fx, &in), 0);
            assert_memory_equal(in.buf, out[i].buf, 2 * MIB);
            free(in.buf);
            free(out[i].buf);
        }
        gateway_up(fx, serving);
        serving = 1 - serving;
        round_trip(fx, 0, 8 * MIB, 0);
        assert_true(max_u64(fx->vw->m[0].last_turn, fx->vw->m[1].last_turn) > turn);
    }
}

/* Another gateway has taken this host's turn: the association ends, the client opens again and repeats. */
static void test_association_is_superseded(void **state)
{
    struct fixture *fx = *state;
    round_trip(fx, 0, 8 * MIB, 0);
    uint64_t turn = fx->vw->m[0].last_turn;
    fx->vw->m[0].turn_floor = fx->vw->m[1].turn_floor = turn + 1;
    round_trip(fx, 0, 8 * MIB, 0);
    assert_true(fx->vw->m[0].last_turn > turn);
    assert_int_equal(fx->changes, 0);
}

/* A write is refused in an association that has ended, when the next one is open already and has sent what
 * waited for it: it goes all the same. */
static void test_refused_after_the_next_is_open(void **state)
{
    struct fixture *fx = *state;
    struct fake_module *m = fx->vw->m;
    struct io out, in;
    round_trip(fx, 0, 8 * MIB, 0);
    uint64_t turn = max_u64(m[0].last_turn, m[1].last_turn);
    fake_push(&m[0], FAKE_HOLD, 0);
    fake_push(&m[1], FAKE_STATUS, STATUS_STALE_TURN);
    io_prepare(&out, VOLUME_WRITE, 0, 8 * MIB, 0);
    io_fill(&out, 1015);
    assert_int_equal(vbs_client_submit(fx->v, &out.r), 0);
    WORLD_UNTIL(fx->vw->w, max_u64(m[0].last_turn, m[1].last_turn) > turn && m[0].held_count == 1);
    assert_false(out.done);
    fake_release(&m[0], STATUS_STALE_TURN);
    assert_int_equal(io_wait(fx->vw, &out), 0);
    io_prepare(&in, VOLUME_READ, 0, 8 * MIB, 0);
    assert_int_equal(run(fx, &in), 0);
    assert_memory_equal(in.buf, out.buf, 8 * MIB);
    free(in.buf);
    free(out.buf);
}

static void test_taken_over(void **state)
{
    struct fixture *fx = *state;
    struct vbs_client_volume *old = fx->v;
    round_trip(fx, 0, 8 * MIB, 0);
    fx->changes = 0;
    assert_int_equal(client_open(fx, "v", 901, true), 0);
    round_trip(fx, 0, 8 * MIB, 0);
    fx->vw->m[0].turn_floor = fx->vw->m[1].turn_floor =
        max_u64(fx->vw->m[0].last_turn, fx->vw->m[1].last_turn);
    struct io io;
    io_prepare(&io, VOLUME_WRITE, 0, 8 * MIB, 0);
    assert_int_equal(vbs_client_submit(old, &io.r), 0);
    assert_int_equal(io_wait(fx->vw, &io), -ESTALE);
    free(io.buf);
    WORLD_UNTIL(fx->vw->w, fx->changes == 1);
    assert_int_equal(fx->changed_rc, -ESTALE);
    round_trip(fx, 0, 8 * MIB, 0);
}

static void test_grow(void **state)
{
    struct fixture *fx = *state;
    struct mdc_volume_resize_request rq = {.name = "v", .size_bytes = 40 * MIB};
    struct mdc_volume_reply rep;
    struct volume_info info;
    assert_int_equal(
        CALL(fx->vw->admin, VOLUME_RESIZE, mdc_volume_resize_request, &rq, mdc_volume_reply, &rep),
        STATUS_OK);
    WORLD_UNTIL(fx->vw->w, fx->changes == 1);
    assert_int_equal(fx->changed_rc, 0);
    vbs_client_info_get(fx->v, &info);
    assert_int_equal(info.size_bytes, 40 * MIB);
    round_trip(fx, 30 * MIB, 10 * MIB, 0);
}

/* ---- ends ---- */

static void test_close(void **state)
{
    struct fixture *fx = *state;
    bool closed = false;
    assert_int_equal(opens_at_mdc(fx), 1);
    vbs_client_close(fx->v, on_closed_flag, &closed);
    assert_false(closed);
    WORLD_UNTIL(fx->vw->w, closed);
    assert_int_equal(opens_at_mdc(fx), 0);
    assert_int_equal(client_open(fx, "v", 901, false), 0);
    round_trip(fx, 0, MIB, 0);
}

/* The client goes with requests in every state: its open ends, buffers come back, and another instance may
 * open. */
static void test_client_goes(void **state)
{
    struct fixture *fx = *state;
    for (unsigned rounds = 0; rounds < 20; rounds += 2) {
        struct io io[8];
        if (rounds % 4 == 2)
            fake_push_all(fx->vw, FAKE_HOLD, 0);
        for (unsigned i = 0; i < 8; i++) {
            io_prepare(&io[i], i % 2 ? VOLUME_READ : VOLUME_WRITE, i * 2 * MIB, 2 * MIB, 0);
            assert_int_equal(vbs_client_submit(fx->v, &io[i].r), 0);
        }
        vbs_rounds(fx->vw, rounds);
        vbs_client_destroy(fx->client);
        for (unsigned i = 0; i < 8; i++)
            free(io[i].buf);
        vbs_rounds(fx->vw, 5);
        for (unsigned i = 0; i < FAKE_MODULES; i++) {
            fake_release(&fx->vw->m[i], STATUS_NOT_SERVING);
            fx->vw->m[i].script_at = fx->vw->m[i].script_len = 0;
        }
        for (unsigned i = 0; i < GATEWAYS; i++)
            assert_at_rest(fx, i);
        WORLD_UNTIL(fx->vw->w, opens_at_mdc(fx) == 0);
        client_up(fx);
        assert_int_equal(client_open(fx, "v", 1000 + rounds, false), 0);
        round_trip(fx, 0, 2 * MIB, 0);
    }
}

/* The client is elsewhere before the gateway that it was at has noticed, and closed. */
static void test_close_by_the_gateway_that_was_left(void **state)
{
    struct fixture *fx = *state;
    for (unsigned i = 0; i < 4; i++) {
        struct vbs_client *old = fx->client;
        struct gateway_client_config config = {
            .gateways = {fx->addr[i % 3 != 1]}, .gateway_count = 1, .verify_reads = true};
        assert_int_equal(vbs_client_create(&fx->vw->env, &config, &fx->client), 0);
        assert_int_equal(client_open(fx, "v", 900, false), 0);
        vbs_client_destroy(old);
        vbs_rounds(fx->vw, 50);
        assert_int_equal(opens_at_mdc(fx), 1);
        round_trip(fx, 0, 2 * MIB, 0);
    }
}

/* ---- nonsense from clients ---- */

struct raw {
    struct rpc_call call;
    bool done;
    int rc;
    uint32_t status;
};

static void on_raw_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct raw *raw = container_of(call, struct raw, call);
    raw->done = true;
    raw->rc = result->rc;
    raw->status = result->status;
}

static uint32_t raw_call(struct fixture *fx, struct rpc_peer *peer, uint16_t method, const void *body,
                         uint32_t len, uint32_t sink, uint32_t source)
{
    static uint8_t memory[8192];
    struct fabric_sge sge = {.base = memory, .len = sink + source};
    struct raw raw = {.call = {.method = method, .body = body, .body_len = len, .done = on_raw_done}};
    if (sink != 0) {
        raw.call.sink = &sge;
        raw.call.sink_count = 1;
    }
    if (source != 0) {
        raw.call.source = &sge;
        raw.call.source_count = 1;
        raw.call.source_crc = crc32c(memory, source) ^ (len == 24 ? 0u : 1u);
    }
    assert_int_equal(rpc_call_start(peer, &raw.call), 0);
    WORLD_UNTIL(fx->vw->w, raw.done);
    assert_int_equal(raw.rc, 0);
    return raw.status;
}

static void test_nonsense(void **state)
{
    struct fixture *fx = *state;
    struct client c = {.w = fx->vw->w};
    static const struct rpc_events events = {.up = client_is_up, .down = client_is_down};
    struct rpc_service service = {.events = &events, .service = &c};
    assert_int_equal(rpc_connect(&fx->vw->env, &fx->addr[0], FABRIC_DOMAIN_HOST, &service, &c.peer), 0);
    WORLD_UNTIL(fx->vw->w, c.up || c.down);
    assert_true(c.up);
    struct vbs_io io = {.handle = 77, .length = 4096};
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_READ, &io, sizeof io, 4096, 0), STATUS_STALE_TURN);
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_WRITE, &io, sizeof io, 0, 4096), STATUS_STALE_TURN);
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_CLOSE, &io, sizeof io, 0, 0), STATUS_NOT_FOUND);
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_READ, &io, 10, 0, 0), STATUS_INVALID);
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_OPEN, "nonsense", 8, 0, 0), STATUS_PROTOCOL);
    struct vbs_open_request rq = {.volume = "v", .host = "h2", .instance = 5, .read_only = true};
    uint8_t body[512];
    size_t len;
    assert_int_equal(wire_encode(&vbs_open_request_type, &rq, body, sizeof body, &len), 0);
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_OPEN, body, (uint32_t)len, 0, 0), STATUS_OK);
    struct gateway_stats s;
    gateway_stats_get(fx->gw[0], &s);
    io.handle = (uint32_t)s.volumes; /* they are given in order */
    io.length = 100;
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_READ, &io, sizeof io, 4096, 0), STATUS_INVALID);
    io.length = 4096; /* more than the sink holds */
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_READ, &io, sizeof io, 512, 0), STATUS_INVALID);
    io.length = VBS_IO_MAX + 512;
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_READ, &io, sizeof io, 512, 0), STATUS_INVALID);
    io.length = 4096;
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_WRITE, &io, sizeof io, 0, 4096), STATUS_READ_ONLY);
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_WRITE, &io, sizeof io, 0, 512), STATUS_INVALID);
    io.offset = 64 * MIB;
    assert_int_equal(raw_call(fx, c.peer, VBS_METHOD_READ, &io, sizeof io, 4096, 0), STATUS_RANGE);
    rpc_close(c.peer);
    round_trip(fx, 0, MIB, 0);
    assert_at_rest(fx, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trips),
        TEST(test_holes_discard_extents),
        TEST(test_refusals),
        TEST(test_back_pressure),
        TEST(test_failover),
        TEST(test_association_is_superseded),
        TEST(test_refused_after_the_next_is_open),
        TEST(test_taken_over),
        TEST(test_grow),
        TEST(test_close),
        TEST(test_client_goes),
        TEST(test_close_by_the_gateway_that_was_left),
        TEST(test_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
