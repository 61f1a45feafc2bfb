/*
 * test_rwm_races.c: a module with copies where things meet at a bad moment: an epoch that changes under a
 * repair, memory that is lacking, a clear that is not committed, a shutdown, promises to a primary of before.
 */
#include "tests/unit/rwm_stage.h"

#include "common/log.h"
#include "services/rwm/rwm_copies.h"

static void put_unit(struct stage *s, uint64_t block, uint32_t unit, uint8_t value)
{
    uint8_t *at = buf + (size_t)unit * UNIT_BYTES;
    memset(at, value, UNIT_BYTES);
    assert_int_equal(
        fix_io(&s->c, BLOCK_METHOD_WRITE, block * BLOCK_BYTES + unit * UNIT_BYTES, UNIT_BYTES, at),
        STATUS_OK);
}

static bool equal_there(struct stage *s, uint64_t block)
{
    const struct fake_block *mine = fake_medium_block(s->f.medium, STAGE_LAYER, block);
    const struct fake_block *other = other_block(&s->o, STAGE_LAYER, block);
    return mine && other && version_cmp(mine->version, other->version) == 0;
}

/* That of the first stripe, which has all the blocks. */
static uint32_t the_partition(void)
{
    return placement_partition(placement_hash(1, 0), FAKE_POOL_PARTITIONS);
}

static bool told_equal(const struct stage *s)
{
    const struct mdc_module_report_request *r = &s->f.mdc->report;
    bool told = false;
    for (uint32_t i = 0; i < r->count; i++)
        told |= r->items[i].partition == the_partition() && r->items[i].what == MDC_REPORT_IN_SYNC &&
                r->items[i].epoch == fake_mdc_epoch(s->f.mdc, the_partition());
    return told;
}

/* The member is out of sync and does not join. */
static void away(struct stage *s)
{
    s->o.act[COPY_METHOD_JOIN].status = STATUS_NOT_SERVING;
    other_members(&s->o, 1 | OTHER_SYNC, 2);
    fix_run(&s->f, 100 * NS_PER_MS);
}

static void come_back(struct stage *s, uint64_t ns)
{
    s->o.act[COPY_METHOD_JOIN].status = 0;
    fix_run(&s->f, ns);
}

/* ---- reads ---- */
/* Nobody sees that a block is gone before the clear that took it is committed. */
static void a_clear_is_read_when_it_is_committed(void **state)
{
    struct stage s;
    struct fix_req clear, read;
    (void)state;
    stage_up(&s);
    s.o.act[COPY_METHOD_FORWARD].silent = true;
    fix_request(&s.f, &clear, 0, BLOCK_BYTES);
    fix_send(&s.c, &clear, BLOCK_METHOD_DISCARD, NULL);
    fix_run(&s.f, 100 * NS_PER_MS);
    assert_null(fake_medium_block(s.f.medium, STAGE_LAYER, 0));
    fix_request(&s.f, &read, 0, BLOCK_BYTES);
    fix_send(&s.c, &read, BLOCK_METHOD_READ, back);
    fix_run(&s.f, 500 * NS_PER_MS);
    assert_false(clear.done || read.done);
    other_release(&s.o, STATUS_OK);
    fix_wait(&s.f, &clear);
    fix_wait(&s.f, &read);
    assert_int_equal(read.status, STATUS_OK);
    assert_int_equal(read.reply.holes, 1);
    /* What never was there may be read beside the first write of it. */
    struct fix_req write;
    fix_request(&s.f, &write, BLOCK_BYTES, UNIT_BYTES);
    fix_send(&s.c, &write, BLOCK_METHOD_WRITE, buf);
    s.f.medium->stand_still = true;
    fix_run(&s.f, 10 * NS_PER_MS);
    s.f.medium->stand_still = false;
    fix_request(&s.f, &read, 2 * BLOCK_BYTES, UNIT_BYTES);
    assert_int_equal(fix_do(&s.c, &read, BLOCK_METHOD_READ, back), STATUS_OK);
    other_release(&s.o, STATUS_OK);
    fix_wait(&s.f, &write);
    stage_down(&s);
}

static void shut(void *arg, int rc)
{
    struct fix *f = arg;
    f->shut = true;
    f->shut_rc = rc;
}

/* A read that waits for a promise does not hold up the end of the module for ever. */
static void a_shutdown_waits_for_no_promise(void **state)
{
    struct stage s;
    struct fix_req read;
    (void)state;
    stage_up(&s);
    s.o.act[COPY_METHOD_PROMISE].silent = true;
    fix_run(&s.f, 2 * NS_PER_S);
    s.f.medium->stand_still = true;
    fix_request(&s.f, &read, 0, UNIT_BYTES);
    fix_send(&s.c, &read, BLOCK_METHOD_READ, back);
    fix_run(&s.f, 20 * NS_PER_MS);
    rwm_shutdown(s.f.rwm, shut, &s.f);
    fix_run(&s.f, 20 * NS_PER_MS);
    s.f.medium->stand_still = false;
    fix_run(&s.f, 5 * NS_PER_S);
    assert_true(s.f.shut);
    assert_true(read.done);
    assert_int_equal(read.status, STATUS_NOT_SERVING);
    stage_down(&s);
}

/* ---- memory ---- */
/* A write that could not be sent to a member that is behind is not forgotten: it may be committed before. */
static void a_write_that_was_not_sent(void **state)
{
    struct stage s;
    (void)state;
    no_list = true;
    stage_up(&s);
    put_unit(&s, 1, 0, 0x21);
    other_mirror(&s.o);
    away(&s);
    put_unit(&s, 0, 4, 0x31);
    s.o.act[COPY_METHOD_REPLACE].silent = true;
    come_back(&s, 500 * NS_PER_MS);
    assert_int_equal(s.o.kept_count, 1); /* compared; block 0 is on its way */
    no_forwards = 1;
    put_unit(&s, 1, 3, 0x32);
    assert_int_equal(no_forwards, 0);
    assert_false(told_equal(&s));
    s.o.act[COPY_METHOD_REPLACE].silent = false;
    other_release(&s.o, STATUS_OK);
    for (unsigned i = 0; i < 500 && !told_equal(&s); i++)
        fix_run(&s.f, 10 * NS_PER_MS);
    assert_true(told_equal(&s));
    assert_true(equal_there(&s, 1));
    no_list = false;
    stage_down(&s);
}

/* To one in sync it is sent when there is memory, also when nothing else is on its way that could end. */
static void a_write_that_is_sent_later(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    for (unsigned i = 1; i < 4; i++) {
        no_forwards = i;
        put_unit(&s, 0, i, (uint8_t)(0x40 + i));
        assert_int_equal(no_forwards, 0);
        assert_true(equal_there(&s, 0));
    }
    stage_down(&s);
}

/* Clients write to what the member lacks, faster than it is sent: it is on a list once, and stays joined. */
static void many_writes_beside_a_catch_up(void **state)
{
    struct stage s;
    (void)state;
    no_list = true;
    stage_up(&s);
    away(&s);
    put_unit(&s, 0, 4, 0x31);
    s.o.act[COPY_METHOD_REPLACE].silent = true;
    s.o.act[COPY_METHOD_FORWARD].status = STATUS_STALE_BASE;
    come_back(&s, 500 * NS_PER_MS);
    unsigned joins = s.o.asked[COPY_METHOD_JOIN];
    for (unsigned i = 0; i < 1300; i++)
        put_unit(&s, 0, 5, (uint8_t)i);
    assert_int_equal(s.o.asked[COPY_METHOD_JOIN], joins);
    assert_in_range(stats_of(&s).recover_blocks, 1, RWM_CATCHUP_WAITS);
    memset(s.o.act, 0, sizeof(s.o.act));
    other_release(&s.o, STATUS_OK);
    for (unsigned i = 0; i < 500 && !told_equal(&s); i++)
        fix_run(&s.f, 10 * NS_PER_MS);
    assert_true(told_equal(&s));
    assert_true(equal_there(&s, 0));
    no_list = false;
    stage_down(&s);
}

/* Whatever object is lacking: the comparison begins anew. */
static void a_catch_up_without_memory(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    for (unsigned n = 1; n < 16; n++) {
        away(&s);
        for (unsigned i = 0; i < 4; i++)
            put_unit(&s, i, n, (uint8_t)(n + i));
        no_memory = n;
        come_back(&s, 0);
        for (unsigned i = 0; i < 500 && !told_equal(&s); i++)
            fix_run(&s.f, 10 * NS_PER_MS);
        no_memory = 0;
        assert_true(told_equal(&s));
        for (unsigned i = 0; i < 4; i++)
            assert_true(equal_there(&s, i));
    }
    stage_down(&s);
}

/* ---- as a member ---- */
struct caller {
    struct rpc_peer *peer;
    bool up;
    struct rpc_call call;
    bool done;
    uint32_t status;
};

static void caller_up(void *service, struct rpc_peer *peer)
{
    (void)peer;
    ((struct caller *)service)->up = true;
}

static void answered(struct rpc_call *call, const struct rpc_result *result)
{
    struct caller *c = container_of(call, struct caller, call);
    c->done = true;
    c->status = result->rc ? STATUS_DISCONNECTED : result->status;
}

static void ask_start(struct caller *c, uint16_t method, const void *body, size_t len)
{
    c->done = false;
    c->call = (struct rpc_call){.method = method, .body = body, .body_len = (uint32_t)len, .done = answered};
    assert_int_equal(rpc_call_start(c->peer, &c->call), 0);
}

static uint32_t ask(struct stage *s, struct caller *c, uint16_t method, const void *body, size_t len)
{
    ask_start(c, method, body, len);
    for (unsigned i = 0; i < 3000 && !c->done; i++)
        fix_run(&s->f, NS_PER_MS);
    assert_true(c->done);
    return c->status;
}

static void call_in(struct stage *s, struct caller *c, uint32_t module)
{
    static const struct rpc_events events = {.up = caller_up};
    struct fabric_addr addr;
    rwm_host_addr(s->f.host, &addr);
    *c = (struct caller){.up = false};
    struct rpc_service service = {.events = &events, .service = c};
    assert_int_equal(rpc_connect(&s->o.proc.env, &addr, FABRIC_DOMAIN_CLUSTER, &service, &c->peer), 0);
    for (unsigned i = 0; i < 1000 && !c->up; i++)
        fix_run(&s->f, NS_PER_MS);
    const struct copy_peer_hello hello = {.to_module = 1,
                                          .from_module = module,
                                          .to_incarnation = s->f.incarnation,
                                          .from_incarnation = OTHER_INC + module,
                                          .sequence = 1};
    assert_int_equal(ask(s, c, COPY_METHOD_PEER_HELLO, &hello, sizeof(hello)), STATUS_OK);
}

static uint32_t join(struct stage *s, struct caller *c, uint32_t partition)
{
    const struct copy_join rq = {
        .head = {.pool = 1, .partition = partition, .epoch = fake_mdc_epoch(s->f.mdc, partition)}};
    return ask(s, c, COPY_METHOD_JOIN, &rq, sizeof(rq));
}

static uint32_t promise(struct stage *s, struct caller *c)
{
    const struct copy_promise rq = {.duration_ns = COPY_PROMISE_MAX_NS};
    return ask(s, c, COPY_METHOD_PROMISE, &rq, sizeof(rq));
}

/* Other modules begin to call from starts of their own. */
static void other_starts(struct stage *s)
{
    struct fabric_addr addr = {.provider = FABRIC_PROVIDER_SIM, .port = 7300, .ip = {3}};
    fake_mdc_module(s->f.mdc, 2, OTHER_INC + 2, &addr);
    fake_mdc_module(s->f.mdc, 3, OTHER_INC + 3, &addr);
}

/* Its journal has no room for a write turn for a moment: the write goes on when there is. */
static void a_forward_waits_for_room(void **state)
{
    struct stage s;
    struct caller c;
    (void)state;
    stage_up(&s);
    other_starts(&s);
    other_members(&s.o, 2 | OTHER_SYNC, 1 | OTHER_SYNC);
    fix_run(&s.f, NS_PER_S);
    const struct store_key *key = &here(&s)->key;
    const uint32_t p = placement_partition(key->hash, FAKE_POOL_PARTITIONS);
    call_in(&s, &c, 2);
    assert_int_equal(join(&s, &c, p), STATUS_OK);
    const struct copy_forward rq = {.head = {.pool = 1, .partition = p, .epoch = fake_mdc_epoch(s.f.mdc, p)},
                                    .volume = fake_uuid(1),
                                    .host = 44,
                                    .turn = 9,
                                    .key = {key->layer, key->block, key->hash},
                                    .base = here(&s)->version,
                                    .version = {.epoch = fake_mdc_epoch(s.f.mdc, p), .counter = 1},
                                    .unit_count = 2,
                                    .flags = COPY_FORWARD_CLEAR,
                                    .cuts = 1};
    s.f.medium->again = 1;
    assert_int_equal(ask(&s, &c, COPY_METHOD_FORWARD, &rq, sizeof(rq)), STATUS_OK);
    assert_int_equal(s.f.medium->again, 0);
    rpc_abandon(c.peer);
    stage_down(&s);
}

/* A primary that stood still while another one joined here, is told so when it asks again. */
static void a_primary_of_before_is_told(void **state)
{
    struct stage s;
    struct caller first, second;
    const uint32_t three[] = {2 | OTHER_SYNC, 1 | OTHER_SYNC, 3 | OTHER_SYNC, 0};
    (void)state;
    stage_up(&s);
    other_starts(&s);
    for (uint32_t i = 0; i < FAKE_POOL_PARTITIONS; i++)
        fake_mdc_members(s.f.mdc, i, fake_mdc_epoch(s.f.mdc, i) + 1, three);
    fix_run(&s.f, NS_PER_S);
    call_in(&s, &first, 2);
    call_in(&s, &second, 3);
    assert_int_equal(join(&s, &first, 0), STATUS_OK);
    assert_int_equal(promise(&s, &first), STATUS_OK);
    other_members(&s.o, 3 | OTHER_SYNC, 1 | OTHER_SYNC);
    fix_run(&s.f, 100 * NS_PER_MS);
    assert_int_equal(join(&s, &second, 0), STATUS_OK);
    assert_int_equal(promise(&s, &second), STATUS_OK);
    assert_int_equal(promise(&s, &first), STATUS_STALE_EPOCH);
    assert_int_equal(promise(&s, &first), STATUS_OK); /* once; it has to join anew */
    assert_int_equal(promise(&s, &second), STATUS_OK);
    rpc_abandon(first.peer);
    rpc_abandon(second.peer);
    stage_down(&s);
}

/* ---- before a new primary serves ---- */
static struct fake_block *slot_here(struct stage *s)
{
    for (unsigned i = 0; i < FAKE_BLOCKS; i++)
        if (!s->f.medium->blocks[i].used)
            return &s->f.medium->blocks[i];
    return NULL;
}

static void restart(struct stage *s)
{
    fix_close(&s->c);
    fix_kill_module(&s->f);
    s->f.mdc->next_epoch = fake_mdc_epoch(s->f.mdc, 0) + 1;
    fix_start_module(&s->f);
    assert_true(fix_wait_serving(&s->f));
    other_members(&s->o, 1 | OTHER_SYNC, 2 | OTHER_SYNC);
}

/* What was fetched for an epoch that is over by the time that there is room for it is not stored. */
static void what_was_fetched_for_an_epoch_of_before(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    const struct store_key key = here(&s)->key;
    s.o.blocks[1] = s.o.blocks[0]; /* a write that this module has not seen */
    s.o.blocks[1].key.block = 1;
    restart(&s);
    /* The other one is gone before there is room for it; nobody else has heard of that write. */
    const struct fake_fault no_room = {.kind = FAKE_WRITE, .nth = 1, .rc = -EAGAIN};
    s.f.medium->refuse = no_room;
    for (unsigned i = 0; i < 200000 && s.f.medium->refuse.nth > 0; i++)
        fix_run(&s.f, 10 * NS_PER_US);
    assert_int_equal(s.f.medium->refuse.nth, 0);
    assert_int_equal(s.o.asked[COPY_METHOD_FETCH], 1);
    s.o.act[COPY_METHOD_JOIN].status = STATUS_NOT_SERVING;
    other_members(&s.o, 1 | OTHER_SYNC, 2);
    for (unsigned i = 0; i < 5000; i++) {
        s.f.medium->refuse = no_room;
        fix_run(&s.f, 10 * NS_PER_US);
    }
    s.f.medium->refuse.nth = 0;
    fix_run(&s.f, 2 * NS_PER_S);
    fix_open(&s.f, &s.c);
    assert_int_equal(fix_io(&s.c, BLOCK_METHOD_READ, 0, UNIT_BYTES, back), STATUS_OK);
    assert_non_null(fake_medium_block(s.f.medium, key.layer, 0));
    assert_null(fake_medium_block(s.f.medium, key.layer, 1));
    stage_down(&s);
}

/*
 * Rot took what was known of a block beyond the end of the volume, and a member that lags behind the shrink
 * still has that block: it is nobody's, and goes there, too.
 */
static void rot_beyond_the_end(void **state)
{
    const uint32_t three[] = {1 | OTHER_SYNC, 3 | OTHER_SYNC, 2, 0};
    for (unsigned by = 0; by < 2; by++) {
        struct stage s;
        (void)state;
        stage_up(&s);
        fake_mdc_volume(s.f.mdc, 0, 1, 2, 3 * BLOCK_BYTES, TABLE_VOLUME_SHRINKING);
        fix_run(&s.f, NS_PER_S);
        assert_int_equal(s.f.mdc->heartbeat.removing_blocks, 0);
        s.o.blocks[1] = s.o.blocks[0];
        s.o.blocks[1].key.block = 5;
        struct fake_block *b = slot_here(&s);
        *b = *here(&s);
        b->key.block = 5;
        b->suspect = true;
        if (by == 0) { /* a new primary, */
            restart(&s);
        } else { /* or one that brings another one up */
            for (uint32_t i = 0; i < FAKE_POOL_PARTITIONS; i++)
                fake_mdc_members(s.f.mdc, i, fake_mdc_epoch(s.f.mdc, i) + 1, three);
        }
        fix_run(&s.f, 5 * NS_PER_S);
        assert_int_equal(s.o.asked[COPY_METHOD_FETCH], 0);
        assert_null(fake_medium_block(s.f.medium, STAGE_LAYER, 5));
        assert_null(other_block(&s.o, STAGE_LAYER, 5));
        assert_non_null(fake_medium_block(s.f.medium, STAGE_LAYER, 0));
        stage_down(&s);
    }
}

int main(void)
{
    log_set_level(LOG_ERROR_);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clear_is_read_when_it_is_committed),
        cmocka_unit_test(a_shutdown_waits_for_no_promise),
        cmocka_unit_test(a_write_that_was_not_sent),
        cmocka_unit_test(a_write_that_is_sent_later),
        cmocka_unit_test(many_writes_beside_a_catch_up),
        cmocka_unit_test(a_catch_up_without_memory),
        cmocka_unit_test(a_forward_waits_for_room),
        cmocka_unit_test(a_primary_of_before_is_told),
        cmocka_unit_test(what_was_fetched_for_an_epoch_of_before),
        cmocka_unit_test(rot_beyond_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
