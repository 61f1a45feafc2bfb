/* The volume core against a real metadata controller and scripted modules, over tcp. */
#include "vbs_harness.h"

#include "services/mdc/mdc_internal.h"

struct fixture {
    struct vbs_world *vw;
    struct opened o;
};

static int setup(void **state)
{
    struct fixture *fx = calloc(1, sizeof *fx);
    assert_non_null(fx);
    fx->vw = vbs_world_new(FABRIC_ROLE_VBS);
    vbs_world_core(fx->vw, 0);
    struct volume_open_options options = vbs_options("v", "h1", 77);
    assert_int_equal(vbs_open(fx->vw, &options, &fx->o), 0);
    *state = fx;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fx = *state;
    vbs_world_free(fx->vw);
    free(fx);
    return 0;
}

static struct volume_core_counters counters_of(struct fixture *fx)
{
    struct volume_core_counters c;
    volume_core_counters_get(fx->vw->core, &c);
    return c;
}

static int simple_write(struct fixture *fx, uint64_t offset, uint64_t length)
{
    struct io io;
    io_prepare(&io, VOLUME_WRITE, offset, length, 0);
    int rc = io_run(fx->vw, fx->o.v, &io);
    free(io.buf);
    return rc;
}

/* ---- the straight way ---- */

static void test_open(void **state)
{
    struct fixture *fx = *state;
    struct volume_info info;
    struct opened o;
    volume_info_get(fx->o.v, &info);
    assert_int_equal(info.size_bytes, 32 * MIB);
    assert_int_equal(info.stripe_bytes, MIB);
    assert_int_equal(info.block_bytes, UNIT_BYTES);
    struct volume_open_options options = vbs_options("nothing", "h1", 77);
    assert_int_equal(vbs_open(fx->vw, &options, &o), -ENOENT);
    assert_non_null(strstr(o.text, "nothing"));
    options = vbs_options("v", "h2", 99);
    assert_int_equal(vbs_open(fx->vw, &options, &o), -EBUSY);
    assert_non_null(strstr(o.text, "h1"));
    options = vbs_options("-", "h2", 99);
    assert_int_equal(volume_open(fx->vw->core, &options, on_opened, &o), -EINVAL);
}

static void test_round_trips(void **state)
{
    struct fixture *fx = *state;
    io_round_trip(fx->vw, fx->o.v, 0, 512, 0);
    io_round_trip(fx->vw, fx->o.v, 4096, 4096, 0);
    io_round_trip(fx->vw, fx->o.v, MIB - 512, 1024, 0);
    io_round_trip(fx->vw, fx->o.v, 3 * MIB + 1536, 5 * MIB + 512, 0);
    io_round_trip(fx->vw, fx->o.v, 20 * MIB - 512, 63 * 1024,
                  1024); /* 63 pieces: more than a message takes */
    io_round_trip(fx->vw, fx->o.v, 0, 32 * MIB, 0);
    assert_true(fx->vw->m[0].requests > 0 && fx->vw->m[1].requests > 0);
    assert_int_equal(fx->vw->m[0].hellos, 1); /* one connection each */
    assert_int_equal(counters_of(fx).retries, 0);
}

static void test_pieces_cut_anywhere(void **state)
{
    struct fixture *fx = *state;
    struct io out, in;
    io_prepare(&out, VOLUME_WRITE, MIB - 1024, 4096, 300); /* pieces that end at no sector */
    io_fill(&out, 3);
    assert_int_equal(io_run(fx->vw, fx->o.v, &out), 0);
    io_prepare(&in, VOLUME_READ, MIB - 1024, 4096, 700);
    assert_int_equal(io_run(fx->vw, fx->o.v, &in), 0);
    assert_memory_equal(in.buf, out.buf, 4096);
    free(out.buf);
    free(in.buf);
    io_prepare(&out, VOLUME_WRITE, 0, 64 * 300, 300); /* too many of them */
    out.r.length = 19456;
    assert_int_equal(volume_submit(fx->o.v, &out.r), -EINVAL);
    free(out.buf);
}

static void test_holes_discard_extents(void **state)
{
    struct fixture *fx = *state;
    struct io io;
    io_prepare(&io, VOLUME_READ, 2 * MIB, 3 * MIB, 0);
    assert_int_equal(io_run(fx->vw, fx->o.v, &io), 0);
    assert_true(io.r.holes);
    for (size_t i = 0; i < 3 * MIB; i++)
        assert_int_equal(io.buf[i], 0);
    free(io.buf);
    assert_int_equal(simple_write(fx, 2 * MIB - 8192, 16384), 0);
    assert_int_equal(simple_write(fx, 4 * MIB, 4096), 0);
    io_prepare(&io, VOLUME_DISCARD, 2 * MIB, 4096, 0);
    assert_int_equal(io_run(fx->vw, fx->o.v, &io), 0);
    free(io.buf);
    io_prepare(&io, VOLUME_ZERO, 4 * MIB, 4096, 0);
    assert_int_equal(io_run(fx->vw, fx->o.v, &io), 0);
    free(io.buf);
    io_prepare(&io, VOLUME_EXTENTS, 2 * MIB - 16384, 4 * MIB, 0);
    assert_int_equal(io_run(fx->vw, fx->o.v, &io), 0);
    assert_int_equal(io.buf[0], 0x2c); /* units 2, 3 and 5: 4 was discarded */
    for (size_t i = 1; i < 4 * MIB / UNIT_BYTES / 8; i++)
        assert_int_equal(io.buf[i], 0);
    free(io.buf);
    io_prepare(&io, VOLUME_FLUSH, 0, 0, 0);
    assert_int_equal(io_run(fx->vw, fx->o.v, &io), 0);
    free(io.buf);
}

static void test_bad_arguments(void **state)
{
    struct fixture *fx = *state;
    static const struct {
        enum volume_op op;
        uint64_t offset, length;
        int rc;
    } bad[] = {
        {VOLUME_READ, 0, 0, -EINVAL},
        {VOLUME_READ, 100, 512, -EINVAL},
        {VOLUME_WRITE, 0, 700, -EINVAL},
        {VOLUME_READ, 32 * MIB, 512, -ERANGE},
        {VOLUME_WRITE, 31 * MIB, 2 * MIB, -ERANGE},
        {VOLUME_DISCARD, UINT64_MAX - 511, 512, -ERANGE},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct io io;
        io_prepare(&io, bad[i].op, bad[i].offset, bad[i].length, 0);
        assert_int_equal(volume_submit(fx->o.v, &io.r), bad[i].rc);
        free(io.buf);
    }
    struct io io;
    io_prepare(&io, VOLUME_WRITE, 0, 1024, 0);
    io.sge[0].len = 512;
    assert_int_equal(volume_submit(fx->o.v, &io.r), -EINVAL);
    free(io.buf);
}

static void test_few_parts(void **state)
{
    struct fixture *fx = *state;
    volume_core_destroy(fx->vw->core);
    vbs_world_core(fx->vw, 16); /* 4 of one volume at once */
    struct volume_open_options options = vbs_options("v", "h1", 77);
    assert_int_equal(vbs_open(fx->vw, &options, &fx->o), 0);
    struct io io[8];
    for (unsigned i = 0; i < 8; i++) {
        io_prepare(&io[i], VOLUME_WRITE, i * 4 * MIB, 4 * MIB, 0);
        io_fill(&io[i], i);
        assert_int_equal(volume_submit(fx->o.v, &io[i].r), 0);
    }
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(io_wait(fx->vw, &io[i]), 0);
    for (unsigned i = 0; i < 8; i++) {
        struct io in;
        io_prepare(&in, VOLUME_READ, i * 4 * MIB, 4 * MIB, 0);
        assert_int_equal(io_run(fx->vw, fx->o.v, &in), 0);
        assert_memory_equal(in.buf, io[i].buf, 4 * MIB);
        free(in.buf);
        free(io[i].buf);
    }
}

/* ---- refusals ---- */

static void test_refusals_that_pass(void **state)
{
    struct fixture *fx = *state;
    static const uint32_t passing[] = {
        STATUS_STALE_EPOCH,
        STATUS_NOT_SERVING,
        STATUS_WRONG_INCARNATION,
        STATUS_STALE_GENERATION,
        STATUS_NOT_FOUND,
        STATUS_RANGE,
        STATUS_AGAIN,
        STATUS_BUSY,
        STATUS_NO_MEMORY,
        STATUS_DISCONNECTED,
        STATUS_TIMEOUT,
        STATUS_STALE_TURN,
    };
    for (size_t i = 0; i < ARRAY_LEN(passing); i++) {
        uint64_t before = counters_of(fx).retries;
        fake_push_all(fx->vw, FAKE_STATUS, passing[i]);
        assert_int_equal(simple_write(fx, 0, 8 * MIB), 0);
        assert_true(counters_of(fx).retries > before);
    }
    io_round_trip(fx->vw, fx->o.v, 0, 8 * MIB, 0);
}

static void test_refusals_that_stay(void **state)
{
    struct fixture *fx = *state;
    static const struct {
        uint32_t status;
        int rc;
    } final[] = {{STATUS_NO_SPACE, -ENOSPC}, {STATUS_IO, -EIO},        {STATUS_DAMAGED, -EIO},
                 {STATUS_INVALID, -EINVAL},  {STATUS_DENIED, -EACCES}, {STATUS_READ_ONLY, -EROFS}};
    for (size_t i = 0; i < ARRAY_LEN(final); i++) {
        fake_push(&fx->vw->m[0], FAKE_STATUS, final[i].status);
        assert_int_equal(simple_write(fx, 0, 16 * MIB), final[i].rc);
    }
    io_round_trip(fx->vw, fx->o.v, 0, 16 * MIB, 0);
}

/* ---- connections ---- */

static void test_lost_connections(void **state)
{
    struct fixture *fx = *state;
    static const enum fake_act acts[] = {FAKE_DROP, FAKE_SERVE_DROP, FAKE_SHORT_REPLY};
    for (size_t i = 0; i < ARRAY_LEN(acts); i++) {
        unsigned before = fx->vw->m[0].hellos;
        fake_push_all(fx->vw, acts[i], 0);
        io_round_trip(fx->vw, fx->o.v, i * MIB, 8 * MIB, 0);
        assert_true(fx->vw->m[0].hellos > before);
    }
    fake_push_all(fx->vw, FAKE_DROP, 0); /* and the next connection too, while it says hello */
    fx->vw->m[0].drop_hello = fx->vw->m[1].drop_hello = true;
    io_round_trip(fx->vw, fx->o.v, 0, 8 * MIB, 0);
    assert_true(counters_of(fx).reconnects > 0);
}

static void test_module_restarts(void **state)
{
    struct fixture *fx = *state;
    struct io out, in;
    io_prepare(&out, VOLUME_WRITE, 0, 8 * MIB, 0);
    io_fill(&out, 1);
    assert_int_equal(io_run(fx->vw, fx->o.v, &out), 0);
    fake_stop(&fx->vw->m[1]);
    io_prepare(&in, VOLUME_READ, 0, 8 * MIB, 0);
    assert_int_equal(volume_submit(fx->o.v, &in.r), 0);
    vbs_rounds(fx->vw, 50);
    assert_false(in.done); /* it waits rather than fail */
    assert_true(counters_of(fx).parts_waiting > 0);
    fake_start(&fx->vw->m[1]);
    assert_int_equal(io_wait(fx->vw, &in), 0);
    assert_memory_equal(in.buf, out.buf, 8 * MIB);
    free(in.buf);
    free(out.buf);
}

/* Makes other the primary of everything, as the controller would. */
static void publish_primary(struct vbs_world *vw, uint32_t module)
{
    struct table *t = &vw->w->mdc->table;
    const struct table_pool *pool = table_pool_by_id(t, 1);
    assert_non_null(pool);
    for (uint32_t i = 0; i < pool->partitions; i++) {
        struct table_partition p = *table_partition_at(t, pool, i);
        p.epoch++;
        memset(p.members, 0, sizeof p.members);
        p.members[0] = module | TABLE_MEMBER_IN_SYNC;
        table_publish(t, TABLE_PARTITION, pool->first_partition + i, &p);
    }
}

/* A module that says nothing, though the connection to it stands, is left when another one is the primary. */
static void test_silent_and_superseded(void **state)
{
    struct fixture *fx = *state;
    struct io io;
    fake_push_all(fx->vw, FAKE_HOLD, 0);
    io_prepare(&io, VOLUME_READ, 0, 4096, 0);
    assert_int_equal(volume_submit(fx->o.v, &io.r), 0);
    WORLD_UNTIL(fx->vw->w, fx->vw->m[0].held_count + fx->vw->m[1].held_count == 1);
    struct fake_module *silent = &fx->vw->m[fx->vw->m[0].held_count == 1 ? 0 : 1];
    struct fake_module *next = &fx->vw->m[silent == &fx->vw->m[0] ? 1 : 0];
    next->script_at = next->script_len = 0;
    vbs_rounds(fx->vw, 50);
    assert_false(io.done); /* silence alone is no reason */
    publish_primary(fx->vw, next->id);
    assert_int_equal(io_wait(fx->vw, &io), 0);
    assert_int_equal(next->requests, 1);
    fake_release(silent, STATUS_NOT_SERVING);
    free(io.buf);
}

static void test_mdc_stops(void **state)
{
    struct fixture *fx = *state;
    io_round_trip(fx->vw, fx->o.v, 0, 8 * MIB, 0);
    rpc_abandon(fx->vw->admin->peer);
    fabric_destroy(fx->vw->w->client_fabric); /* its callers have gone with it */
    free(fx->vw->admin);
    world_stop(fx->vw->w);
    io_round_trip(fx->vw, fx->o.v, 0, 8 * MIB, 0);
    fake_push_all(fx->vw, FAKE_DROP, 0);
    io_round_trip(fx->vw, fx->o.v, MIB, 8 * MIB, 0);
    world_start(fx->vw->w);
    fx->vw->w->client_fabric = world_fabric(fx->vw->w, &fx->vw->w->client_env, FABRIC_ROLE_MODULE);
    fx->vw->admin = client_new(fx->vw->w, "admin");
}

/* ---- checksums ---- */

static void test_wrong_read_checksums(void **state)
{
    struct fixture *fx = *state;
    assert_int_equal(simple_write(fx, 0, 4096), 0);
    struct io in;
    fake_push_all(fx->vw, FAKE_WRONG_CRC, 0);
    io_prepare(&in, VOLUME_READ, 0, 4096, 0);
    assert_int_equal(io_run(fx->vw, fx->o.v, &in), 0);
    assert_int_equal(counters_of(fx).crc_errors, 1);
    free(in.buf);
    for (int i = 0; i < 3; i++)
        fake_push_all(fx->vw, FAKE_WRONG_CRC, 0);
    /* The module that did not serve the first read has its step left: take it away. */
    for (int i = 0; i < FAKE_MODULES; i++)
        fx->vw->m[i].script_at = fx->vw->m[i].script_len - 3;
    io_prepare(&in, VOLUME_READ, 0, 4096, 0);
    assert_int_equal(io_run(fx->vw, fx->o.v, &in), -EIO);
    assert_int_equal(counters_of(fx).crc_errors, 4);
    free(in.buf);
}

static void test_page_changes_under_way(void **state)
{
    struct fixture *fx = *state;
    struct io out, in;
    fake_push_all(fx->vw, FAKE_STATUS, STATUS_BAD_CRC);
    io_prepare(&out, VOLUME_WRITE, MIB - 4096, 8192, 1000);
    io_fill(&out, 9);
    assert_int_equal(io_run(fx->vw, fx->o.v, &out), 0);
    io_prepare(&in, VOLUME_READ, MIB - 4096, 8192, 0);
    assert_int_equal(io_run(fx->vw, fx->o.v, &in), 0);
    assert_memory_equal(in.buf, out.buf, 8192);
    assert_true(counters_of(fx).crc_errors > 0);
    free(in.buf);
    free(out.buf);
}

/* ---- sizes, generations, turns ---- */

static void resize(struct fixture *fx, uint64_t bytes)
{
    struct mdc_volume_resize_request rq = {.name = "v", .size_bytes = bytes, .allow_shrink = true};
    struct mdc_volume_reply rep;
    struct pending *p =
        client_begin(fx->vw->admin, MDC_METHOD_VOLUME_RESIZE, &mdc_volume_resize_request_type, &rq);
    while (!p->done) { /* a shrink is done when the modules have confirmed it */
        vbs_rounds(fx->vw, 1);
        for (unsigned i = 0; i < FAKE_MODULES && !p->done; i++)
            fake_beat(&fx->vw->m[i]);
    }
    assert_int_equal(client_end(fx->vw->admin, p, &mdc_volume_reply_type, &rep), STATUS_OK);
    for (unsigned i = 0; i < FAKE_MODULES; i++)
        fx->vw->m[i].generation = rep.volume.generation;
}

static void test_grow(void **state)
{
    struct fixture *fx = *state;
    struct volume_info info;
    resize(fx, 48 * MIB);
    WORLD_UNTIL(fx->vw->w, fx->o.changes == 1);
    assert_int_equal(fx->o.changed_rc, 0);
    volume_info_get(fx->o.v, &info);
    assert_int_equal(info.size_bytes, 48 * MIB);
    fake_push_all(fx->vw, FAKE_STATUS, STATUS_RANGE); /* a module that has not heard of it yet */
    io_round_trip(fx->vw, fx->o.v, 30 * MIB, 18 * MIB, 0);
}

static void test_shrink(void **state)
{
    struct fixture *fx = *state;
    struct io out, beyond;
    assert_int_equal(simple_write(fx, 0, 4096), 0);
    uint64_t old = fx->vw->m[0].last_generation + fx->vw->m[1].last_generation;
    for (unsigned i = 0; i < FAKE_MODULES; i++)
        fake_push(&fx->vw->m[i], FAKE_HOLD, 0);
    io_prepare(&beyond, VOLUME_WRITE, 20 * MIB, 4 * MIB, 0);
    assert_int_equal(volume_submit(fx->o.v, &beyond.r), 0);
    WORLD_UNTIL(fx->vw->w, fx->vw->m[0].held_count + fx->vw->m[1].held_count > 0);
    resize(fx, 16 * MIB);
    WORLD_UNTIL(fx->vw->w, fx->o.changes > 0);
    for (unsigned i = 0; i < FAKE_MODULES; i++)
        fake_release(&fx->vw->m[i], STATUS_STALE_GENERATION);
    assert_int_equal(io_wait(fx->vw, &beyond), -ERANGE);
    free(beyond.buf);
    io_round_trip(fx->vw, fx->o.v, 0, 16 * MIB, 0);
    assert_true(fx->vw->m[0].last_generation + fx->vw->m[1].last_generation > old);
    io_prepare(&out, VOLUME_WRITE, 16 * MIB, 512, 0);
    assert_int_equal(volume_submit(fx->o.v, &out.r), -ERANGE);
    free(out.buf);
}

/* A detached host sees the new generation in the table like everyone, and must not write with it. */
static void test_detach(void **state)
{
    struct fixture *fx = *state;
    struct mdc_attach_request rq = {.volume = "v", .host = "h1"};
    struct mdc_empty rep;
    struct pending *p = client_begin(fx->vw->admin, MDC_METHOD_DETACH, &mdc_attach_request_type, &rq);
    while (!p->done) {
        vbs_rounds(fx->vw, 1);
        for (unsigned i = 0; i < FAKE_MODULES && !p->done; i++)
            fake_beat(&fx->vw->m[i]);
    }
    assert_int_equal(client_end(fx->vw->admin, p, &mdc_empty_type, &rep), STATUS_OK);
    fx->vw->m[0].generation = fx->vw->m[1].generation = UINT64_MAX; /* nothing that this host may know */
    struct io io;
    io_prepare(&io, VOLUME_WRITE, 0, 4096, 0);
    int rc = io_run(fx->vw, fx->o.v, &io);
    assert_int_equal(rc, -ESTALE);
    WORLD_UNTIL(fx->vw->w, fx->o.changes > 0);
    assert_int_equal(fx->o.changed_rc, -ESTALE);
    assert_int_equal(volume_submit(fx->o.v, &io.r), -ESTALE);
    free(io.buf);
    vbs_close(fx->vw, fx->o.v);
}

static void test_delete(void **state)
{
    struct fixture *fx = *state;
    struct mdc_volume_delete_request rq = {.name = "v", .force = true};
    struct mdc_empty rep;
    struct pending *p =
        client_begin(fx->vw->admin, MDC_METHOD_VOLUME_DELETE, &mdc_volume_delete_request_type, &rq);
    while (!p->done) {
        vbs_rounds(fx->vw, 1);
        for (unsigned i = 0; i < FAKE_MODULES && !p->done; i++)
            fake_beat(&fx->vw->m[i]);
    }
    assert_int_equal(client_end(fx->vw->admin, p, &mdc_empty_type, &rep), STATUS_OK);
    WORLD_UNTIL(fx->vw->w, fx->o.changes > 0);
    assert_int_equal(fx->o.changed_rc, -ENOENT);
}

static void test_turn_is_drawn_again(void **state)
{
    struct fixture *fx = *state;
    assert_int_equal(simple_write(fx, 0, 8 * MIB), 0);
    uint64_t turn = fx->vw->m[0].last_turn;
    fx->vw->m[0].turn_floor = fx->vw->m[1].turn_floor = turn + 1;
    assert_int_equal(simple_write(fx, 0, 8 * MIB), 0);
    assert_true(fx->vw->m[0].last_turn > turn);
    io_round_trip(fx->vw, fx->o.v, 0, 8 * MIB, 0);
}

static void test_one_turn(void **state)
{
    struct fixture *fx = *state;
    vbs_close(fx->vw, fx->o.v);
    struct volume_open_options options = vbs_options("v", "h1", 77);
    options.one_turn = true;
    assert_int_equal(vbs_open(fx->vw, &options, &fx->o), 0);
    assert_int_equal(simple_write(fx, 0, 8 * MIB), 0);
    fx->vw->m[0].turn_floor = fx->vw->m[1].turn_floor = fx->vw->m[0].last_turn + 1;
    assert_int_equal(simple_write(fx, 0, 8 * MIB), -ESTALE);
}

static void test_taken_over(void **state)
{
    struct fixture *fx = *state;
    struct opened other;
    struct volume_open_options options = vbs_options("v", "h1", 88);
    assert_int_equal(vbs_open(fx->vw, &options, &other), -EBUSY);
    options.take_over = true;
    assert_int_equal(vbs_open(fx->vw, &options, &other), 0);
    fx->vw->m[0].turn_floor = fx->vw->m[1].turn_floor = 0;
    io_round_trip(fx->vw, other.v, 0, 8 * MIB, 0);
    fx->vw->m[0].turn_floor = fx->vw->m[0].last_turn;
    fx->vw->m[1].turn_floor = fx->vw->m[1].last_turn;
    io_round_trip(fx->vw, other.v, 0, 8 * MIB, 0);
    uint64_t floor = 0;
    struct io io;
    io_prepare(&io, VOLUME_WRITE, 0, 8 * MIB, 0);
    assert_int_equal(volume_submit(other.v, &io.r), 0);
    assert_int_equal(io_wait(fx->vw, &io), 0);
    free(io.buf);
    floor = max_u64(fx->vw->m[0].last_turn, fx->vw->m[1].last_turn);
    fx->vw->m[0].turn_floor = fx->vw->m[1].turn_floor = floor;
    assert_int_equal(simple_write(fx, 0, 8 * MIB), -ESTALE);
    WORLD_UNTIL(fx->vw->w, fx->o.changes > 0);
    assert_int_equal(fx->o.changed_rc, -ESTALE);
    io_round_trip(fx->vw, other.v, 0, 8 * MIB, 0);
}

static void test_read_only(void **state)
{
    struct fixture *fx = *state;
    struct opened ro;
    struct volume_open_options options = vbs_options("v", "h2", 99);
    options.read_only = true;
    assert_int_equal(simple_write(fx, 0, 4096), 0);
    assert_int_equal(vbs_open(fx->vw, &options, &ro), 0);
    struct io io;
    io_prepare(&io, VOLUME_READ, 0, 4096, 0);
    assert_int_equal(io_run(fx->vw, ro.v, &io), 0);
    io.r.op = VOLUME_WRITE;
    assert_int_equal(volume_submit(ro.v, &io.r), -EROFS);
    free(io.buf);
    vbs_close(fx->vw, ro.v);
}

/* ---- ends ---- */

static void test_timeouts(void **state)
{
    struct fixture *fx = *state;
    struct io io[3];
    /* The write last: what a module has not fetched holds back the messages behind it. */
    static const enum volume_op ops[] = {VOLUME_READ, VOLUME_DISCARD, VOLUME_WRITE};
    for (unsigned i = 0; i < 3; i++)
        for (unsigned j = 0; j < FAKE_MODULES; j++)
            fake_push(&fx->vw->m[j], FAKE_HOLD, 0);
    for (unsigned i = 0; i < 3; i++) {
        io_prepare(&io[i], ops[i], i * MIB, 4096, 0);
        io[i].r.timeout_ns = 50 * NS_PER_MS;
        assert_int_equal(volume_submit(fx->o.v, &io[i].r), 0);
    }
    WORLD_UNTIL(fx->vw->w, fx->vw->m[0].held_count + fx->vw->m[1].held_count == 3);
    assert_int_equal(io_wait(fx->vw, &io[1]), -ETIMEDOUT); /* no memory of it is at the module */
    assert_false(io[0].done || io[2].done);
    vbs_rounds(fx->vw, 30);
    assert_false(io[0].done || io[2].done); /* theirs is */
    for (unsigned i = 0; i < FAKE_MODULES; i++)
        fake_release(&fx->vw->m[i], STATUS_NOT_SERVING);
    assert_int_equal(io_wait(fx->vw, &io[0]), -ETIMEDOUT);
    assert_int_equal(io_wait(fx->vw, &io[2]), -ETIMEDOUT);
    for (unsigned i = 0; i < 3; i++)
        free(io[i].buf);
    for (unsigned i = 0; i < FAKE_MODULES; i++) {
        fx->vw->m[i].script_at = fx->vw->m[i].script_len = 0;
        fake_stop(&fx->vw->m[i]);
    }
    io_prepare(&io[0], VOLUME_WRITE, 0, 16 * MIB, 0);
    io[0].r.timeout_ns = 50 * NS_PER_MS;
    assert_int_equal(volume_submit(fx->o.v, &io[0].r), 0);
    assert_int_equal(io_wait(fx->vw, &io[0]), -ETIMEDOUT); /* nobody there at all */
    free(io[0].buf);
}

static void test_cancel(void **state)
{
    struct fixture *fx = *state;
    struct io io[2];
    for (unsigned j = 0; j < FAKE_MODULES; j++)
        fake_push(&fx->vw->m[j], FAKE_HOLD, 0);
    io_prepare(&io[0], VOLUME_WRITE, 0, 512, 0);
    assert_int_equal(volume_submit(fx->o.v, &io[0].r), 0);
    WORLD_UNTIL(fx->vw->w, fx->vw->m[0].held_count + fx->vw->m[1].held_count == 1);
    io_prepare(&io[1], VOLUME_FLUSH, 0, 0, 0);
    assert_int_equal(volume_submit(fx->o.v, &io[1].r), 0);
    volume_cancel(fx->o.v);
    assert_true(io[1].done);
    assert_int_equal(io[1].rc, -ECANCELED);
    assert_false(io[0].done);
    assert_int_equal(volume_submit(fx->o.v, &io[1].r), -ECANCELED);
    for (unsigned i = 0; i < FAKE_MODULES; i++)
        fake_release(&fx->vw->m[i], STATUS_STALE_EPOCH);
    assert_int_equal(io_wait(fx->vw, &io[0]), -ECANCELED);
    vbs_close(fx->vw, fx->o.v);
    free(io[0].buf);
    free(io[1].buf);
}

/* Abandoned after every number of rounds, with requests in every state; another volume of the core goes on.
 */
static void test_abandon(void **state)
{
    struct fixture *fx = *state;
    vbs_world_volume(fx->vw, "w", 16 * MIB);
    for (unsigned rounds = 0; rounds < 40; rounds++) {
        struct opened w = {.done = false};
        struct volume_open_options options = vbs_options("w", "h1", 77);
        if (rounds < 10) {
            assert_int_equal(volume_open(fx->vw->core, &options, on_opened, &w), 0);
            vbs_rounds(fx->vw, rounds);
            if (!w.done) {
                struct volume_core *core = fx->vw->core; /* still opening: it goes with the core */
                volume_core_destroy(core);
                vbs_world_core(fx->vw, 0);
                options = vbs_options("v", "h1", 77);
                assert_int_equal(vbs_open(fx->vw, &options, &fx->o), 0);
                continue;
            }
        } else {
            assert_int_equal(vbs_open(fx->vw, &options, &w), 0);
        }
        if (rounds % 4 == 1)
            fake_push_all(fx->vw, FAKE_STATUS, STATUS_NOT_SERVING);
        if (rounds % 4 == 2)
            fake_push_all(fx->vw, FAKE_DROP, 0);
        if (rounds % 4 == 3)
            fake_push_all(fx->vw, FAKE_STATUS, STATUS_STALE_TURN);
        struct io mine, other;
        io_prepare(&mine, VOLUME_WRITE, 0, 8 * MIB, 0);
        io_prepare(&other, VOLUME_READ, 0, 8 * MIB, 0);
        assert_int_equal(volume_submit(w.v, &mine.r), 0);
        assert_int_equal(volume_submit(fx->o.v, &other.r), 0);
        vbs_rounds(fx->vw, rounds / 2);
        bool was_done = mine.done;
        volume_abandon(w.v);
        free(mine.buf);
        assert_int_equal(io_wait(fx->vw, &other), 0);
        assert_int_equal(mine.done, was_done);
        free(other.buf);
        for (unsigned i = 0; i < FAKE_MODULES; i++)
            fx->vw->m[i].script_at = fx->vw->m[i].script_len = 0;
    }
}

static void test_destroy_under_load(void **state)
{
    struct fixture *fx = *state;
    struct io io[16];
    for (unsigned rounds = 0; rounds < 32; rounds++) {
        if (rounds % 2 != 0) /* connections that are coming down */
            fake_push_all(fx->vw, rounds % 4 == 1 ? FAKE_DROP : FAKE_SHORT_REPLY, 0);
        for (unsigned i = 0; i < 16; i++) {
            io_prepare(&io[i], i % 2 ? VOLUME_READ : VOLUME_WRITE, i * MIB, 2 * MIB, 0);
            assert_int_equal(volume_submit(fx->o.v, &io[i].r), 0);
        }
        vbs_rounds(fx->vw, rounds / 2);
        volume_core_destroy(fx->vw->core);
        for (unsigned i = 0; i < 16; i++)
            free(io[i].buf);
        vbs_rounds(fx->vw, 3);
        for (unsigned i = 0; i < FAKE_MODULES; i++)
            fx->vw->m[i].script_at = fx->vw->m[i].script_len = 0;
        vbs_world_core(fx->vw, 0);
        struct volume_open_options options = vbs_options("v", "h1", 77);
        assert_int_equal(vbs_open(fx->vw, &options, &fx->o), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_open),
        TEST(test_round_trips),
        TEST(test_pieces_cut_anywhere),
        TEST(test_holes_discard_extents),
        TEST(test_bad_arguments),
        TEST(test_few_parts),
        TEST(test_refusals_that_pass),
        TEST(test_refusals_that_stay),
        TEST(test_lost_connections),
        TEST(test_module_restarts),
        TEST(test_silent_and_superseded),
        TEST(test_mdc_stops),
        TEST(test_wrong_read_checksums),
        TEST(test_page_changes_under_way),
        TEST(test_grow),
        TEST(test_shrink),
        TEST(test_detach),
        TEST(test_delete),
        TEST(test_turn_is_drawn_again),
        TEST(test_one_turn),
        TEST(test_taken_over),
        TEST(test_read_only),
        TEST(test_timeouts),
        TEST(test_cancel),
        TEST(test_abandon),
        TEST(test_destroy_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
