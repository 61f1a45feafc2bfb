/* test_rwm.c: the engine's data path: checks, merges, order, ghosts, space, errors. */
#include "services/rwm/rwm_internal.h"
#include "tests/unit/rwm_fixture.h"

#include <stdlib.h>

static uint8_t buf[4 * MIB], back[4 * MIB];

static void fill(void *p, size_t len, uint8_t with)
{
    memset(p, with, len);
}

/* ---- refusals ---- */
static void refuses_in_order(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct fix_req r;
    (void)state;
    fix_init(&f, 1);
    fix_connect(&f, &c);
    fix_request(&f, &r, 0, 4096);
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_PROTOCOL); /* no HELLO yet */
    assert_int_equal(fix_hello(&c, 9, 7, 1), STATUS_NOT_SERVING);
    assert_int_equal(fix_hello(&c, 1, 7, 1), STATUS_OK);
    assert_int_equal(fix_hello(&c, 1, 7, 2), STATUS_PROTOCOL);

#define REFUSED(change, expect)                                                                              \
    do {                                                                                                     \
        fix_request(&f, &r, 0, 4096);                                                                        \
        change;                                                                                              \
        assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), expect);                                   \
        assert_int_equal(r.reply.incarnation, f.incarnation);                                                \
    } while (0)
    REFUSED(r.body.length = 0; r.body.length = 100, STATUS_INVALID);
    REFUSED(r.body.offset = 100, STATUS_INVALID);
    REFUSED(r.body.turn = 0, STATUS_INVALID);
    REFUSED(r.body.turn = BLOCK_TURN_MAX,
            STATUS_INVALID); /* durable, it would keep the module out for ever */
    REFUSED(r.body.incarnation++; r.body.pool = 9, STATUS_WRONG_INCARNATION);
    REFUSED(r.body.pool = 9; r.body.epoch = 0, STATUS_NOT_SERVING);
    REFUSED(r.body.partition = 77, STATUS_NOT_SERVING);
    REFUSED(r.body.epoch--; r.body.generation = 0, STATUS_STALE_EPOCH);
    assert_int_equal(r.reply.epoch, fake_mdc_epoch(f.mdc, r.body.partition));
    REFUSED(r.body.epoch += 50, STATUS_NOT_SERVING);
    REFUSED(r.body.volume = fake_uuid(9), STATUS_NOT_FOUND);
    REFUSED(r.body.generation = 0; r.body.offset = FIX_VOLUME_BYTES, STATUS_STALE_GENERATION);
    REFUSED(r.body.generation = 5, STATUS_NOT_SERVING);
    REFUSED(r.body.offset = FIX_VOLUME_BYTES - 2048, STATUS_RANGE);
    REFUSED(r.body.offset = FAKE_STRIPE - 512, STATUS_INVALID); /* over the end of a stripe */
    REFUSED(r.payload_crc = 1, STATUS_BAD_CRC);
    REFUSED(r.body.turn = 3, STATUS_OK);
    REFUSED(r.body.turn = 2, STATUS_STALE_TURN);
    REFUSED(r.body.turn = 2; r.body.host = 34, STATUS_OK);
#undef REFUSED
    /* A read asks for no turn. */
    fix_request(&f, &r, 0, 4096);
    r.body.turn = 0;
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_READ, back), STATUS_OK);
    struct rwm_stats stats;
    rwm_stats_get(f.rwm, &stats);
    assert_int_equal(stats.refused_turn, 1);
    assert_int_equal(stats.refused_crc, 1);
    assert_int_equal(stats.refused_range, 1);
    assert_int_equal(stats.refused_epoch, 1);
    assert_int_equal(stats.refused_generation, 1);
    assert_int_equal(stats.requests_active, 0);
    fix_close(&c);
    fix_end(&f);
}

/* ---- model ---- */
#define MODEL_BYTES (2 * MIB)
struct model {
    uint8_t data[MODEL_BYTES];
    bool written[MODEL_BYTES / UNIT_BYTES];
};

static void model_write(struct model *m, uint64_t at, uint32_t len, const uint8_t *data)
{
    memcpy(m->data + at, data, len);
    for (uint64_t u = at / UNIT_BYTES; u * UNIT_BYTES < at + len; u++)
        m->written[u] = true;
}

static void model_zero(struct model *m, uint64_t at, uint32_t len, bool discard)
{
    uint64_t from = round_up(at, UNIT_BYTES), to = round_down(at + len, UNIT_BYTES);
    for (uint64_t u = from / UNIT_BYTES; u * UNIT_BYTES < to; u++)
        m->written[u] = false;
    if (!discard)
        memset(m->data + at, 0, len);
    else if (to > from)
        memset(m->data + from, 0, to - from);
}

static void model_extents(const struct fix_req *r, const struct model *m)
{
    uint64_t first = r->body.offset / UNIT_BYTES;
    uint64_t last = (r->body.offset + r->body.length - 1) / UNIT_BYTES;
    assert_int_equal(r->extra_len, (last - first + 8) / 8);
    for (uint64_t u = first; u <= last; u++)
        assert_int_equal(r->extra[(u - first) / 8] >> ((u - first) % 8) & 1, m->written[u]);
}

static void one_step(struct fix *f, struct fix_conn *c, struct model *m, struct rng *rng)
{
    struct fix_req r;
    uint64_t stripe = rng_below(rng, MODEL_BYTES / FAKE_STRIPE) * FAKE_STRIPE;
    uint64_t most = rng_chance(rng, 1, 4) ? FAKE_STRIPE : rng_chance(rng, 1, 2) ? 3 * UNIT_BYTES : 300 * KIB;
    uint64_t from = rng_below(rng, FAKE_STRIPE / SECTOR_BYTES) * SECTOR_BYTES;
    uint64_t len = (1 + rng_below(rng, most / SECTOR_BYTES)) * SECTOR_BYTES;
    if (from + len > FAKE_STRIPE)
        len = FAKE_STRIPE - from;
    if (rng_chance(rng, 1, 3))
        from = round_down(from, UNIT_BYTES);
    uint64_t at = stripe + from;
    fix_request(f, &r, at, (uint32_t)len);
    switch (rng_below(rng, 6)) {
    case 0:
    case 1:
        rng_fill(rng, buf, len);
        assert_int_equal(fix_do(c, &r, BLOCK_METHOD_WRITE, buf), STATUS_OK);
        model_write(m, at, (uint32_t)len, buf);
        break;
    case 2:
        assert_int_equal(fix_do(c, &r, BLOCK_METHOD_DISCARD, NULL), STATUS_OK);
        model_zero(m, at, (uint32_t)len, true);
        break;
    case 3:
        assert_int_equal(fix_do(c, &r, BLOCK_METHOD_ZERO, NULL), STATUS_OK);
        model_zero(m, at, (uint32_t)len, false);
        break;
    case 4:
        assert_int_equal(fix_do(c, &r, BLOCK_METHOD_EXTENTS, NULL), STATUS_OK);
        model_extents(&r, m);
        break;
    default:
        assert_int_equal(fix_do(c, &r, BLOCK_METHOD_READ, back), STATUS_OK);
        assert_memory_equal(back, m->data + at, len);
        break;
    }
}

static void merges_like_a_model(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct rng rng;
    struct model *m = calloc(1, sizeof(*m));
    (void)state;
    fix_init(&f, 2);
    fix_open(&f, &c);
    rng_seed(&rng, 77);
    for (unsigned i = 0; i < 600; i++) {
        if (i % 50 == 20)
            f.medium->again = 3; /* the store has no room now and then */
        one_step(&f, &c, m, &rng);
    }
    for (uint64_t at = 0; at < MODEL_BYTES; at += FAKE_STRIPE) {
        assert_int_equal(fix_io(&c, BLOCK_METHOD_READ, at, FAKE_STRIPE, back), STATUS_OK);
        assert_memory_equal(back, m->data + at, FAKE_STRIPE);
    }
    fix_close(&c);
    fix_end(&f);
    free(m);
}

/* Many sub-unit writes to one block at once: none is lost, the later of two wins. */
static void merges_concurrently(void **state)
{
    struct fix f;
    struct fix_conn c;
    enum { N = 64 };
    struct fix_req *r = calloc(N, sizeof(*r));
    (void)state;
    fix_init(&f, 3);
    f.medium->delay_ns = NS_PER_MS;
    fix_open(&f, &c);
    for (unsigned i = 0; i < N; i++) {
        fill(buf + i * 512, 512, (uint8_t)(i + 1));
        fix_request(&f, &r[i], i * 512, 512);
        fix_send(&c, &r[i], BLOCK_METHOD_WRITE, buf + i * 512);
    }
    for (unsigned i = 0; i < N; i++) {
        fix_wait(&f, &r[i]);
        assert_int_equal(r[i].status, STATUS_OK);
    }
    assert_int_equal(fix_io(&c, BLOCK_METHOD_READ, 0, N * 512, back), STATUS_OK);
    assert_memory_equal(back, buf, N * 512);
    fix_close(&c);
    fix_end(&f);
    free(r);
}

/* More and larger requests than there are buffers: they wait, none is refused. */
static void holds_back_when_full(void **state)
{
    struct fix f;
    struct fix_conn c;
    enum { N = 40 };
    struct fix_req *r = calloc(N, sizeof(*r));
    (void)state;
    fix_init(&f, 4);
    fix_open(&f, &c);
    for (unsigned i = 0; i < N; i++) {
        fix_request(&f, &r[i], (i % 8) * FAKE_STRIPE, FAKE_STRIPE);
        fix_send(&c, &r[i], i % 3 ? BLOCK_METHOD_WRITE : BLOCK_METHOD_READ, i % 3 ? buf : back);
    }
    for (unsigned i = 0; i < N; i++) {
        fix_wait(&f, &r[i]);
        assert_int_equal(r[i].status, STATUS_OK);
    }
    fix_close(&c);
    fix_end(&f);
    free(r);
}

static void holes_push_nothing(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct fix_req r;
    (void)state;
    fix_init(&f, 5);
    fix_open(&f, &c);
    fix_request(&f, &r, 512, 64 * KIB);
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_READ, back), STATUS_OK);
    assert_int_equal(r.reply.holes, 1);
    fill(buf, 512, 3);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 4096, 512, buf), STATUS_OK);
    fix_request(&f, &r, 512, 64 * KIB);
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_READ, back), STATUS_OK);
    assert_int_equal(r.reply.holes, 0);
    assert_int_equal(back[4096 - 512], 3);
    assert_int_equal(back[4096], 0);
    /* Zeroing the edge of a hole writes nothing. */
    uint64_t writes = f.medium->writes;
    assert_int_equal(fix_io(&c, BLOCK_METHOD_ZERO, 512 * KIB + 512, 1024, NULL), STATUS_OK);
    assert_int_equal(f.medium->writes, writes);
    fix_close(&c);
    fix_end(&f);
}

static void full_store_and_errors(void **state)
{
    struct fix f;
    struct fix_conn c;
    (void)state;
    fix_init(&f, 6);
    fix_open(&f, &c);
    fill(buf, 128 * KIB, 9);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 128 * KIB, buf), STATUS_OK);
    f.medium->full = true;
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 128 * KIB, 4096, buf), STATUS_NO_SPACE);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_DISCARD, 0, 128 * KIB, NULL), STATUS_OK);
    f.medium->full = false;
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 128 * KIB, 4096, buf), STATUS_OK);
    f.medium->fail_next = -EBADMSG;
    assert_int_equal(fix_io(&c, BLOCK_METHOD_READ, 0, 4096, back), STATUS_DAMAGED);
    f.medium->fail_next = -EBADMSG; /* the edge of a merge is rotten: nothing may be written over it */
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 512, 512, buf), STATUS_DAMAGED);
    f.medium->fail_next = -EIO;
    assert_int_equal(fix_io(&c, BLOCK_METHOD_READ, 0, 4096, back), STATUS_IO);
    assert_int_equal(f.failed_rc, 0);
    f.medium->broken = true;
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_NOT_SERVING);
    fix_run(&f, 10 * NS_PER_MS);
    assert_int_not_equal(f.failed_rc, 0);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_READ, 0, 4096, back), STATUS_NOT_SERVING);
    fix_close(&c);
    fix_end(&f);
}

/* ---- ghosts ---- */
/* The old connection's writes wait behind a merge; a newer connection of the same client comes: they never
 * happen. */
/* Rot has taken whole pages of records: the module starts, says that it is damaged, and takes what the table
 * says. */
static void lost_records(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct rwm_stats stats;
    (void)state;
    fix_init(&f, 7);
    fix_kill_module(&f);
    memset(f.medium->partitions, 0, sizeof f.medium->partitions);
    memset(f.medium->volumes, 0, sizeof f.medium->volumes);
    f.medium->lost = true;
    uint32_t others = FAKE_POOL_PARTITIONS - 1; /* another module's: nothing is set for it here */
    fake_mdc_partition(f.mdc, others, 50, 2);
    fix_start_module(&f);
    assert_true(fix_wait_serving(&f));
    rwm_stats_get(f.rwm, &stats);
    assert_true(stats.damaged);
    fake_mdc_partition(f.mdc, others, 51, 1);
    fix_run(&f, NS_PER_S);
    fix_open(&f, &c);
    fill(buf, 4096, 3);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_OK);
    fix_close(&c);
    fix_end(&f);
}

static void newer_connection_ends_the_older(void **state)
{
    struct fix f;
    struct fix_conn old, new, late;
    enum { N = 6 };
    struct fix_req r[N], w;
    (void)state;
    fix_init(&f, 7);
    fix_connect(&f, &old);
    assert_int_equal(fix_hello(&old, 1, 50, 3), STATUS_OK);
    f.medium->delay_ns = 20 * NS_PER_MS;
    fix_connect(&f, &new);
    for (unsigned i = 0; i < N; i++) {
        fill(buf + i * 512, 512, (uint8_t)(i + 1));
        fix_request(&f, &r[i], 0, 512);
        fix_send(&old, &r[i], BLOCK_METHOD_WRITE, buf + i * 512);
    }
    fix_run(&f, 2 * NS_PER_MS);
    assert_int_equal(fix_hello(&new, 1, 50, 4), STATUS_OK);
    uint8_t mine[512];
    fill(mine, 512, 0x77);
    fix_request(&f, &w, 0, 512);
    assert_int_equal(fix_do(&new, &w, BLOCK_METHOD_WRITE, mine), STATUS_OK);
    uint64_t writes = f.medium->writes;
    fix_run(&f, NS_PER_S);
    assert_int_equal(f.medium->writes, writes); /* nothing came after it */
    assert_int_equal(fix_io(&new, BLOCK_METHOD_READ, 0, 512, back), STATUS_OK);
    assert_memory_equal(back, mine, 512);
    assert_true(writes < N); /* most of the old ones were dropped */
    assert_true(old.down);
    for (unsigned i = 0; i < N; i++)
        assert_true(r[i].done);
    /* What is older than a connection that was there is refused, also when that one is gone. */
    fix_connect(&f, &late);
    assert_int_equal(fix_hello(&late, 1, 50, 4), STATUS_BUSY);
    fix_close(&new);
    fix_run(&f, 100 * NS_PER_MS);
    assert_int_equal(fix_hello(&late, 1, 50, 2), STATUS_BUSY);
    assert_int_equal(fix_hello(&late, 1, 50, 5), STATUS_OK);
    fix_close(&late);
    fix_close(&old);
    fix_end(&f);
}

/* A connection is lost while its writes wait: no version for them. */
static void lost_connection_drops_what_waits(void **state)
{
    struct fix f;
    struct fix_conn c;
    enum { N = 6 };
    struct fix_req r[N];
    (void)state;
    fix_init(&f, 8);
    fix_open(&f, &c);
    f.medium->delay_ns = 20 * NS_PER_MS;
    for (unsigned i = 0; i < N; i++) {
        fix_request(&f, &r[i], 0, 512);
        fix_send(&c, &r[i], BLOCK_METHOD_WRITE, buf);
    }
    fix_run(&f, 2 * NS_PER_MS);
    sim_net_break(f.net, 0);
    fix_run(&f, NS_PER_S);
    assert_true(f.medium->writes < N);
    struct rwm_stats stats;
    rwm_stats_get(f.rwm, &stats);
    assert_int_equal(stats.requests_active, 0);
    assert_true(c.down);
    fix_end(&f);
}

/* A higher turn arrives while writes of the lower one wait: those are refused, though they had passed the
 * checks. */
static void higher_turn_overtakes(void **state)
{
    struct fix f;
    struct fix_conn a, b;
    enum { N = 6 };
    struct fix_req r[N], w;
    (void)state;
    fix_init(&f, 9);
    fix_connect(&f, &a);
    assert_int_equal(fix_hello(&a, 1, 1, 1), STATUS_OK);
    fix_connect(&f, &b);
    assert_int_equal(fix_hello(&b, 1, 2, 1), STATUS_OK);
    f.medium->delay_ns = 20 * NS_PER_MS;
    for (unsigned i = 0; i < N; i++) {
        fix_request(&f, &r[i], 0, 512);
        fix_send(&a, &r[i], BLOCK_METHOD_WRITE, buf);
    }
    fix_run(&f, 2 * NS_PER_MS);
    fix_request(&f, &w, 0, 512);
    w.body.turn = 2;
    fill(back, 512, 0x44);
    assert_int_equal(fix_do(&b, &w, BLOCK_METHOD_WRITE, back), STATUS_OK);
    unsigned stale = 0;
    for (unsigned i = 0; i < N; i++) {
        fix_wait(&f, &r[i]);
        stale += r[i].status == STATUS_STALE_TURN;
    }
    assert_true(stale >= N - 2);
    /* Over a restart the turn is remembered, with the first write of it. */
    fix_close(&a);
    fix_close(&b);
    fix_kill_module(&f);
    fix_start_module(&f);
    assert_true(fix_wait_serving(&f));
    assert_int_equal(f.mdc->registered.highest_turn, 2);
    fix_open(&f, &a);
    assert_int_equal(fix_io(&a, BLOCK_METHOD_WRITE, 0, 512, buf), STATUS_STALE_TURN);
    fix_close(&a);
    fix_end(&f);
}

/* Only so many turns can be recorded: the lowest goes, and leaves a floor that outlives a start. */
static void turns_are_evicted(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct fix_req r;
    (void)state;
    fix_init(&f, 15);
    fix_open(&f, &c);
    for (unsigned i = 0; i <= FAKE_TURNS; i++) { /* the first host's turn 10 goes */
        fix_request(&f, &r, 0, 4096);
        r.body.host = 100 + i;
        r.body.turn = 10 + i;
        assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_OK);
    }
    for (unsigned round = 0; round < 2; round++) {
        fix_request(&f, &r, 0, 4096);
        r.body.host = 100;
        r.body.turn = 9;
        assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_STALE_TURN);
        r.body.host = 200; /* never seen */
        assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_STALE_TURN);
        r.body.host = 100;
        r.body.turn = 10; /* not lower: it goes on, and takes no record for that */
        assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_OK);
        r.body.host = 101;
        assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_STALE_TURN);
        r.body.turn = 11;
        assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_OK);
        fix_close(&c);
        fix_kill_module(&f);
        fix_start_module(&f);
        assert_true(fix_wait_serving(&f));
        fix_open(&f, &c);
    }
    /* A newer record of the volume keeps the floor. */
    fake_mdc_volume(f.mdc, 0, 1, 2, FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    fix_run(&f, 20 * NS_PER_MS);
    fix_request(&f, &r, 0, 4096);
    r.body.generation = 2;
    r.body.host = 200;
    r.body.turn = 9;
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_STALE_TURN);
    r.body.turn = 30;
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_OK);
    fix_close(&c);
    fix_end(&f);
}

/* What was under way when the module failed is not answered with data: somebody else may serve by then. */
static void failed_module_answers_no_reads(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct fix_req r[2];
    (void)state;
    fix_init(&f, 16);
    fix_open(&f, &c);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_OK);
    f.medium->delay_ns = 20 * NS_PER_MS;
    fix_request(&f, &r[0], 0, 4096);
    fix_request(&f, &r[1], 0, 4096);
    fix_send(&c, &r[0], BLOCK_METHOD_READ, back);
    fix_send(&c, &r[1], BLOCK_METHOD_EXTENTS, NULL);
    fix_run(&f, 300 * NS_PER_US); /* both are in the store's hands */
    assert_false(r[0].done || r[1].done);
    rwm_fail(f.rwm, -ESTALE, "superseded");
    f.medium->delay_ns = 0;
    fix_wait(&f, &r[0]);
    fix_wait(&f, &r[1]);
    assert_int_equal(r[0].status, STATUS_NOT_SERVING);
    assert_int_equal(r[1].status, STATUS_NOT_SERVING);
    assert_int_equal(f.failed_rc, -ESTALE);
    fix_close(&c);
    fix_end(&f);
}

/* Destroyed at any moment under load: nothing leaks, nothing is touched afterwards (the sanitizer tells). */
static void destroyed_at_any_moment(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 60; n++) {
        struct fix f;
        struct fix_conn c;
        struct fix_req r[12];
        fix_init(&f, 100 + n);
        fix_open(&f, &c);
        f.medium->delay_ns = NS_PER_MS;
        for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
            fix_request(&f, &r[i], (i % 3) * FAKE_STRIPE + i * 512, i % 2 ? 300 * KIB : 1024);
            uint16_t method = (uint16_t)(BLOCK_METHOD_READ + i % 5);
            fix_send(&c, &r[i], method, method == BLOCK_METHOD_READ ? back : buf);
        }
        fix_run(&f, n * 100 * NS_PER_US);
        switch (n % 3) {
        case 0: /* the module alone: the host answers for it */
            rwm_destroy(f.rwm);
            f.rwm = NULL;
            fix_run(&f, NS_PER_S);
            for (unsigned i = 0; i < ARRAY_LEN(r); i++)
                assert_true(r[i].done);
            break;
        case 1: /* the host first */
            rwm_host_destroy(f.host);
            f.host = NULL;
            fix_run(&f, 5 * NS_PER_MS);
            break;
        default:
            break;
        }
        fix_close(&c);
        fix_end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_in_order),
        cmocka_unit_test(merges_like_a_model),
        cmocka_unit_test(merges_concurrently),
        cmocka_unit_test(holds_back_when_full),
        cmocka_unit_test(holes_push_nothing),
        cmocka_unit_test(full_store_and_errors),
        cmocka_unit_test(lost_records),
        cmocka_unit_test(newer_connection_ends_the_older),
        cmocka_unit_test(lost_connection_drops_what_waits),
        cmocka_unit_test(higher_turn_overtakes),
        cmocka_unit_test(turns_are_evicted),
        cmocka_unit_test(failed_module_answers_no_reads),
        cmocka_unit_test(destroyed_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
