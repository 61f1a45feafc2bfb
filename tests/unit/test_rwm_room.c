/*
 * test_rwm_room.c: what changed while a member was away is all that it gets (rwm_changed.c); and more at once
 * than a module has objects for; and media that are full here, and not there.
 */
#include "tests/unit/rwm_stage.h"

#include "common/log.h"
#include "services/rwm/rwm_copies.h"

/* ---- what changed while a member was away ---- */
/* The member is out of sync and does not join; w changes what it lacks; then it is back. */
static void away_and_back(struct stage *s, void (*w)(struct stage *s))
{
    s->o.act[COPY_METHOD_JOIN].status = STATUS_NOT_SERVING;
    other_members(&s->o, 1 | OTHER_SYNC, 2);
    fix_run(&s->f, 100 * NS_PER_MS);
    w(s);
    memset(s->o.asked, 0, sizeof(s->o.asked));
    s->o.act[COPY_METHOD_JOIN].status = 0;
    fix_run(&s->f, 3 * NS_PER_S);
    assert_int_equal(s->f.mdc->report.items[0].what, MDC_REPORT_IN_SYNC);
    assert_memory_equal(there(s)->data, buf, BLOCK_BYTES);
    assert_int_equal(version_cmp(there(s)->version, here(s)->version), 0);
}

static void put_units(struct stage *s, uint32_t first, uint32_t count, uint8_t value)
{
    memset(buf + first * UNIT_BYTES, value, count * UNIT_BYTES);
    assert_int_equal(
        fix_io(&s->c, BLOCK_METHOD_WRITE, first * UNIT_BYTES, count * UNIT_BYTES, buf + first * UNIT_BYTES),
        STATUS_OK);
}

static void some_units(struct stage *s)
{
    put_units(s, 4, 1, 0x31);
    put_units(s, 7, 2, 0x32);
}

static void one_too_many(struct stage *s)
{
    some_units(s);
    there(s)->version.counter--; /* it has something else than this primary knows of */
}

static void with_a_hole(struct stage *s)
{
    some_units(s);
    memset(buf + 5 * UNIT_BYTES, 0, UNIT_BYTES);
    assert_int_equal(fix_io(&s->c, BLOCK_METHOD_DISCARD, 5 * UNIT_BYTES, UNIT_BYTES, NULL), STATUS_OK);
}

static void without_memory(struct stage *s)
{
    no_list = true;
    some_units(s);
    no_list = false;
}

static void only_changed_units_are_sent(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    away_and_back(&s, some_units);
    assert_int_equal(s.o.asked[COPY_METHOD_FORWARD], 1);
    assert_int_equal(s.o.asked[COPY_METHOD_REPLACE], 0);
    assert_int_equal(s.o.forward.first_unit, 4);
    assert_int_equal(s.o.forward.unit_count, 5);
    stage_down(&s);
}

static void what_does_not_fit_is_sent_whole(void **state)
{
    static void (*const whys[])(struct stage *) = {one_too_many, with_a_hole};
    struct stage s;
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(whys); i++) {
        stage_up(&s);
        if (i == 1)
            there(&s)->data[5 * UNIT_BYTES] = 0xff;
        s.o.act[COPY_METHOD_JOIN].status = STATUS_NOT_SERVING;
        other_members(&s.o, 1 | OTHER_SYNC, 2);
        fix_run(&s.f, 100 * NS_PER_MS);
        whys[i](&s);
        memset(s.o.asked, 0, sizeof(s.o.asked));
        s.o.act[COPY_METHOD_JOIN].status = 0;
        fix_run(&s.f, 3 * NS_PER_S);
        assert_int_equal(s.o.asked[COPY_METHOD_FORWARD], 0);
        assert_int_equal(s.o.asked[COPY_METHOD_REPLACE], 1);
        assert_int_equal(version_cmp(there(&s)->version, here(&s)->version), 0);
        assert_int_equal(there(&s)->written, here(&s)->written);
        stage_down(&s);
    }
}

static void changes_without_memory(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    away_and_back(&s, without_memory);
    stage_down(&s);
}

/* How far it is goes with the heartbeat. */
static void progress_is_told(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    s.o.act[COPY_METHOD_JOIN].status = STATUS_NOT_SERVING;
    other_members(&s.o, 1 | OTHER_SYNC, 2);
    fix_run(&s.f, 100 * NS_PER_MS);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(fix_io(&s.c, BLOCK_METHOD_WRITE, i * BLOCK_BYTES, UNIT_BYTES, buf), STATUS_OK);
    assert_int_equal(s.f.mdc->heartbeat.care.copies_missing, FAKE_POOL_PARTITIONS);
    assert_int_equal(s.f.mdc->heartbeat.recovery_count, 0);
    s.o.act[COPY_METHOD_REPLACE].silent = s.o.act[COPY_METHOD_FORWARD].silent = true;
    s.o.act[COPY_METHOD_JOIN].status = 0;
    fix_run(&s.f, NS_PER_S);
    const struct mdc_module_heartbeat_request *beat = &s.f.mdc->heartbeat;
    uint64_t left = 0;
    for (uint32_t i = 0; i < beat->recovery_count; i++) {
        assert_int_equal(beat->recoveries[i].member, 2);
        assert_int_equal(beat->recoveries[i].done, 0);
        left += beat->recoveries[i].left;
    }
    assert_int_equal(left, 8);
    assert_int_equal(beat->care.recover_blocks, 8);
    memset(s.o.act, 0, sizeof(s.o.act));
    other_release(&s.o, STATUS_OK);
    fix_run(&s.f, 3 * NS_PER_S);
    assert_int_equal(s.f.mdc->heartbeat.recovery_count, 0);
    assert_true(s.f.mdc->heartbeat.care.recover_done >= 8);
    other_members(&s.o, 1 | OTHER_SYNC, 2 | OTHER_SYNC);
    fix_run(&s.f, NS_PER_S);
    assert_int_equal(s.f.mdc->heartbeat.care.recover_done, 0);
    stage_down(&s);
}

/* The member has got something else since it was compared: then the whole block. */
static void another_base_there(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    s.o.act[COPY_METHOD_FORWARD].status = STATUS_STALE_BASE;
    s.o.act[COPY_METHOD_JOIN].status = STATUS_NOT_SERVING;
    other_members(&s.o, 1 | OTHER_SYNC, 2);
    fix_run(&s.f, 100 * NS_PER_MS);
    some_units(&s);
    s.o.act[COPY_METHOD_JOIN].status = 0;
    fix_run(&s.f, 3 * NS_PER_S);
    assert_true(s.o.asked[COPY_METHOD_REPLACE] >= 1);
    assert_memory_equal(there(&s)->data, buf, BLOCK_BYTES);
    stage_down(&s);
}

/* In sync again, or another primary: nothing is remembered. */
static void nothing_is_remembered_of_before(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    away_and_back(&s, some_units);
    other_members(&s.o, 1 | OTHER_SYNC, 2 | OTHER_SYNC);
    fix_run(&s.f, NS_PER_S);
    /* It loses what it got, as a disk that was exchanged: it is sent the block as a whole. */
    struct version then = there(&s)->version;
    put_units(&s, 9, 1, 0x33);
    fix_run(&s.f, 100 * NS_PER_MS);
    there(&s)->version = then;
    away_and_back(&s, some_units);
    assert_int_equal(s.o.asked[COPY_METHOD_REPLACE], 1);
    stage_down(&s);
}

/*
 * Who was reported as equal may be in sync by an epoch that is not known here. What it could not take is
 * acknowledged when an epoch says that it is not, however often it is asked meanwhile.
 */
static void reported_ones_are_waited_for(void **state)
{
    struct stage s;
    struct fix_req w;
    (void)state;
    stage_up(&s);
    away_and_back(&s, some_units);
    s.o.act[COPY_METHOD_FORWARD].closes = true; /* it is lost, and comes back */
    s.o.act[COPY_METHOD_FORWARD].status = STATUS_STALE_BASE;
    s.o.act[COPY_METHOD_REPLACE].status = STATUS_NOT_SERVING;
    fix_request(&s.f, &w, 0, UNIT_BYTES);
    fix_send(&s.c, &w, BLOCK_METHOD_WRITE, buf);
    fix_run(&s.f, 3 * NS_PER_S);
    assert_true(s.o.asked[COPY_METHOD_FORWARD] > 2);
    assert_false(w.done);
    other_members(&s.o, 1 | OTHER_SYNC, 2);
    fix_wait(&s.f, &w);
    assert_int_equal(w.status, STATUS_OK);
    s.o.act[COPY_METHOD_FORWARD].status = s.o.act[COPY_METHOD_REPLACE].status = STATUS_OK;
    stage_down(&s);
}

/* ---- more than there is room for ---- */
#define FLOOD 300u
struct flood {
    struct rpc_peer *peer;
    bool up;
    struct flood_call {
        struct rpc_call call;
        bool done;
        uint32_t status;
    } calls[FLOOD];
};

static void flood_up(void *service, struct rpc_peer *peer)
{
    (void)peer;
    ((struct flood *)service)->up = true;
}

static void flood_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct flood_call *c = container_of(call, struct flood_call, call);
    c->done = true;
    c->status = result->rc ? STATUS_DISCONNECTED : result->status;
}

static uint32_t flood_one(struct stage *s, struct flood *d, uint16_t method, const void *body, uint32_t len)
{
    struct flood_call *c = &d->calls[0];
    *c = (struct flood_call){.call = {.method = method, .body = body, .body_len = len, .done = flood_done}};
    assert_int_equal(rpc_call_start(d->peer, &c->call), 0);
    for (unsigned i = 0; i < 1000 && !c->done; i++)
        fix_run(&s->f, NS_PER_MS);
    assert_true(c->done);
    return c->status;
}

/* The other one is the primary, and has joined every partition. */
static void flood_begin(struct stage *s, struct flood *d)
{
    static const struct rpc_events events = {.up = flood_up};
    struct fabric_addr addr;
    struct rpc_service service = {.events = &events, .service = d};
    other_members(&s->o, 2 | OTHER_SYNC, 1 | OTHER_SYNC);
    fix_run(&s->f, NS_PER_S);
    memset(d, 0, sizeof(*d));
    rwm_host_addr(s->f.host, &addr);
    assert_int_equal(rpc_connect(&s->o.proc.env, &addr, FABRIC_DOMAIN_CLUSTER, &service, &d->peer), 0);
    for (unsigned i = 0; i < 1000 && !d->up; i++)
        fix_run(&s->f, NS_PER_MS);
    const struct copy_peer_hello hello = {.to_module = 1,
                                          .from_module = 2,
                                          .to_incarnation = s->f.incarnation,
                                          .from_incarnation = OTHER_INC,
                                          .sequence = 1};
    assert_int_equal(flood_one(s, d, COPY_METHOD_PEER_HELLO, &hello, sizeof(hello)), STATUS_OK);
    for (uint32_t i = 0; i < FAKE_POOL_PARTITIONS; i++) {
        const struct copy_join join = {
            .head = {.pool = 1, .partition = i, .epoch = fake_mdc_epoch(s->f.mdc, i)}};
        assert_int_equal(flood_one(s, d, COPY_METHOD_JOIN, &join, sizeof(join)), STATUS_OK);
    }
}

/* FLOOD calls while the store stands still; how many were answered with each of two statuses once it goes on.
 */
static void flood(struct stage *s, struct flood *d, uint16_t method, const void *body, uint32_t len,
                  unsigned *ok, unsigned *not_serving)
{
    s->f.medium->stand_still = true;
    for (unsigned i = 0; i < FLOOD; i++) {
        struct flood_call *c = &d->calls[i];
        *c = (struct flood_call){
            .call = {.method = method, .body = body, .body_len = len, .done = flood_done}};
        assert_int_equal(rpc_call_start(d->peer, &c->call), 0);
    }
    fix_run(&s->f, 100 * NS_PER_MS);
    s->f.medium->stand_still = false;
    fix_run(&s->f, 2 * NS_PER_S);
    *ok = *not_serving = 0;
    for (unsigned i = 0; i < FLOOD; i++) {
        assert_true(d->calls[i].done);
        *ok += d->calls[i].status == STATUS_OK;
        *not_serving += d->calls[i].status == STATUS_NOT_SERVING;
    }
    assert_int_equal(*ok + *not_serving, FLOOD);
}

static void more_than_there_is_room_for(void **state)
{
    static struct flood d;
    struct stage s;
    unsigned ok, not_serving;
    (void)state;
    stage_up(&s);
    flood_begin(&s, &d);
    const struct store_key *key = &here(&s)->key;
    const uint32_t partition = placement_partition(key->hash, FAKE_POOL_PARTITIONS);
    const struct copy_head head = {
        .pool = 1, .partition = partition, .epoch = fake_mdc_epoch(s.f.mdc, partition)};
    /* Whole blocks wait for memory, and all are served in the end. */
    const struct copy_fetch check = {.head = head, .key = {key->layer, key->block, key->hash}};
    flood(&s, &d, COPY_METHOD_CHECK, &check, sizeof(check), &ok, &not_serving);
    assert_int_equal(ok, FLOOD);
    /* Of lists some are refused; some objects are left to the module itself. */
    const struct copy_versions list = {.head = head, .list = COPY_LIST_ALL};
    flood(&s, &d, COPY_METHOD_VERSIONS, &list, sizeof(list), &ok, &not_serving);
    assert_int_equal(ok, RWM_LOOKUPS_SERVED);
    flood(&s, &d, COPY_METHOD_VERSIONS, &list, sizeof(list), &ok, &not_serving);
    assert_int_equal(ok, RWM_LOOKUPS_SERVED);
    assert_int_equal(flood_one(&s, &d, COPY_METHOD_VERSIONS, &list, sizeof(list)), STATUS_OK);
    rpc_abandon(d.peer);
    stage_down(&s);
}

/* ---- no room for what the others have ---- */
/* After the other one; everything is compared. */
static void becomes_primary(struct stage *s)
{
    s->o.forgetful = true;
    other_members(&s->o, 2 | OTHER_SYNC, 1 | OTHER_SYNC);
    fix_run(&s->f, 100 * NS_PER_MS);
    s->f.mdc->reports = 0;
    other_members(&s->o, 1 | OTHER_SYNC, 2 | OTHER_SYNC);
    fix_run(&s->f, NS_PER_S);
}

/* A member in sync that cannot be made equal is reported, and the others go on without it. */
static void full_member_is_not_waited_for(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    there(&s)->version.counter--;
    s.o.act[COPY_METHOD_REPLACE].status = STATUS_NO_SPACE;
    becomes_primary(&s);
    assert_true(s.f.mdc->reports > 0);
    assert_int_equal(s.f.mdc->report.items[0].what, MDC_REPORT_UNFIT);
    assert_int_equal(s.f.mdc->report.items[0].member, 2);
    s.o.act[COPY_METHOD_JOIN].status = STATUS_NOT_SERVING;
    other_members(&s.o, 1 | OTHER_SYNC, 2);
    fix_run(&s.f, NS_PER_S);
    assert_int_equal(read_all(&s), STATUS_OK);
    assert_memory_equal(back, buf, BLOCK_BYTES);
    stage_down(&s);
}

/* What is no answer to the block says nothing about the member. */
static void gone_member_is_not_unfit(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    there(&s)->version.counter--;
    s.o.act[COPY_METHOD_REPLACE].status = STATUS_STALE_EPOCH;
    becomes_primary(&s);
    assert_true(s.o.asked[COPY_METHOD_REPLACE] > 0);
    assert_int_equal(s.f.mdc->reports, 0);
    s.o.act[COPY_METHOD_REPLACE].status = 0;
    fix_run(&s.f, NS_PER_S);
    assert_int_equal(read_all(&s), STATUS_OK);
    stage_down(&s);
}

/* A primary without room for what another one in sync has says so of itself. */
static void full_primary_steps_back(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    there(&s)->version.counter++;
    s.f.medium->full = true;
    becomes_primary(&s);
    assert_true(s.f.mdc->reports > 0);
    assert_int_equal(s.f.mdc->report.items[0].what, MDC_REPORT_UNFIT);
    assert_int_equal(s.f.mdc->report.items[0].member, 1);
    s.f.medium->full = false; /* room comes back before anybody decided */
    fix_run(&s.f, NS_PER_S);
    assert_int_equal(read_all(&s), STATUS_OK);
    assert_int_equal(version_cmp(here(&s)->version, there(&s)->version), 0);
    stage_down(&s);
}

int main(void)
{
    log_set_level(LOG_ERROR_);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_changed_units_are_sent),  cmocka_unit_test(what_does_not_fit_is_sent_whole),
        cmocka_unit_test(changes_without_memory),       cmocka_unit_test(progress_is_told),
        cmocka_unit_test(another_base_there),           cmocka_unit_test(nothing_is_remembered_of_before),
        cmocka_unit_test(more_than_there_is_room_for),  cmocka_unit_test(full_member_is_not_waited_for),
        cmocka_unit_test(gone_member_is_not_unfit),     cmocka_unit_test(full_primary_steps_back),
        cmocka_unit_test(reported_ones_are_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
