/* test_rwm_member.c: the engine's part in the cluster: registration, epochs, volume records, turns over
 * restarts, removal. */
#include "tests/unit/rwm_fixture.h"

#include <stdlib.h>

static uint8_t buf[MIB], back[MIB];

static void restart(struct fix *f)
{
    fix_kill_module(f);
    fix_start_module(f);
}

static unsigned blocks_of(const struct fix *f, uint64_t layer)
{
    unsigned n = 0;
    for (unsigned i = 0; i < FAKE_BLOCKS; i++)
        n += f->medium->blocks[i].used && f->medium->blocks[i].key.layer == layer;
    return n;
}

static const struct store_volume_record *record_of(const struct fix *f, uint8_t id)
{
    struct uuid u = fake_uuid(id);
    for (unsigned i = 0; i < FAKE_VOLUMES; i++)
        if (uuid_eq(&f->medium->volumes[i].id, &u))
            return &f->medium->volumes[i];
    return NULL;
}

/* ---- registration ---- */
static void registers_and_records(void **state)
{
    struct fix f;
    (void)state;
    fix_init(&f, 1);
    /* twice: the second tells that the medium has noted the first's answer, and only then anything is served
     */
    assert_int_equal(f.mdc->registrations, 2);
    assert_int_equal(f.mdc->registered.start_counter, 1);
    assert_int_equal(f.mdc->registered.accepted_start, 1);
    assert_int_equal(f.mdc->registered.accepted_incarnation, f.incarnation);
    assert_int_equal(f.medium->identity.accepted_incarnation, f.incarnation);
    assert_int_equal(f.mdc->registered.module, 1);
    assert_int_equal(f.medium->identity.module, 1);
    assert_int_equal(f.medium->identity.partition_bits, 2);
    for (uint32_t i = 0; i < FAKE_POOL_PARTITIONS; i++)
        assert_int_equal(f.medium->partitions[i].epoch, fake_mdc_epoch(f.mdc, i));
    assert_int_equal(record_of(&f, 1)->size_bytes, FIX_VOLUME_BYTES);
    fix_run(&f, 50 * NS_PER_MS);
    assert_int_equal(f.mdc->heartbeat.applied_version, table_head(&f.mdc->table)->version);
    assert_true(f.mdc->heartbeats > 3);
    /* A session that was lost, or an MDC that forgot, is registered with again; nothing new is begun. */
    fake_mdc_break(f.mdc);
    fix_run(&f, 50 * NS_PER_MS);
    assert_int_equal(f.mdc->registrations, 3);
    f.mdc->register_again = true;
    fix_run(&f, 50 * NS_PER_MS);
    assert_int_equal(f.mdc->registrations, 4);
    assert_int_equal(f.mdc->registered.incarnation, f.incarnation);
    restart(&f);
    assert_true(fix_wait_serving(&f));
    assert_int_equal(f.mdc->registered.start_counter, 2);
    assert_int_equal(f.mdc->registered.accepted_start, 2);
    assert_int_equal(f.mdc->registered.module, 1);
    assert_int_equal(f.mdc->registered.highest_epoch, 13);
    assert_int_equal(f.mdc->registered.highest_layer, 101);
    fix_end(&f);
}

static void refused_media(void **state)
{
    static const uint32_t refusals[] = {STATUS_OLD_MEDIA, STATUS_FOREIGN_MEDIA, STATUS_WRONG_CLUSTER};
    struct fix f;
    (void)state;
    fix_init(&f, 2);
    for (unsigned i = 0; i < ARRAY_LEN(refusals); i++) {
        f.mdc->refuse = refusals[i];
        restart(&f);
        fix_run(&f, 100 * NS_PER_MS);
        assert_false(f.serving);
        assert_int_not_equal(f.failed_rc, 0);
        assert_non_null(strstr(f.failed_text, status_name(refusals[i])));
    }
    /* Any other refusal is tried again. */
    f.mdc->refuse = STATUS_NOT_LEADER;
    restart(&f);
    fix_run(&f, 100 * NS_PER_MS);
    assert_int_equal(f.failed_rc, 0);
    f.mdc->refuse = 0;
    assert_true(fix_wait_serving(&f));
    /* Another cluster than the store's. */
    f.mdc->cluster = fake_uuid(0xdd);
    restart(&f);
    fix_run(&f, 100 * NS_PER_MS);
    assert_int_equal(f.failed_rc, -EPERM);
    assert_false(f.serving);
    fix_end(&f);
}

static void store_that_does_not_open(void **state)
{
    struct fix f;
    (void)state;
    fix_init(&f, 3);
    f.medium->open_rc = -EBADMSG;
    restart(&f);
    fix_run(&f, 100 * NS_PER_MS);
    assert_int_equal(f.failed_rc, -EBADMSG);
    fix_end(&f);
}

/* Another process registered as this module: this one stops. */
static void superseded(void **state)
{
    struct fix f;
    (void)state;
    fix_init(&f, 4);
    struct table_module m = *(const struct table_module *)table_record(&f.mdc->table, TABLE_MODULE, 0);
    m.incarnation = 999;
    table_publish(&f.mdc->table, TABLE_MODULE, 0, &m);
    cluster_refresh(f.mdc->session);
    fix_run(&f, 100 * NS_PER_MS);
    assert_int_equal(f.failed_rc, -ESTALE);
    fix_end(&f);
}

/*
 * A controller whose store was put back names the start before this one until it has heard of this one: the
 * module registers with it, and goes on.
 */
static void older_store_names_the_start_before(void **state)
{
    struct fix f;
    struct fix_conn c;
    (void)state;
    fix_init(&f, 4);
    fix_open(&f, &c);
    fake_mdc_older_store(f.mdc, 999);
    unsigned registrations = f.mdc->registrations;
    fix_run(&f, 2 * NS_PER_S);
    assert_int_equal(f.failed_rc, 0);
    assert_true(f.mdc->registrations > registrations);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_OK);
    assert_int_equal(f.mdc->heartbeat.applied_term, table_head(&f.mdc->table)->term);
    /* And one that is accepted by the same controller after this one counts. */
    struct table_module m = *(const struct table_module *)table_record(&f.mdc->table, TABLE_MODULE, 0);
    m.incarnation = 998;
    table_publish(&f.mdc->table, TABLE_MODULE, 0, &m);
    cluster_refresh(f.mdc->session);
    fix_run(&f, 100 * NS_PER_MS);
    assert_int_equal(f.failed_rc, -ESTALE);
    fix_close(&c);
    fix_end(&f);
}

/* The same, and it comes between the answer to the registration and the first table. */
static void older_store_before_the_first_table(void **state)
{
    struct fix f;
    struct fix_conn c;
    (void)state;
    fix_init(&f, 4);
    restart(&f);
    unsigned registrations = f.mdc->registrations;
    for (unsigned i = 0; i < 100000 && f.mdc->registrations < registrations + 2; i++)
        fix_run(&f, NS_PER_US);
    assert_int_equal(f.mdc->registrations, registrations + 2);
    fake_mdc_older_store(f.mdc, 999);
    assert_true(fix_wait_serving(&f));
    assert_true(f.mdc->registrations > registrations + 2);
    fix_open(&f, &c);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_OK);
    fix_close(&c);
    fix_end(&f);
}

/* ---- epochs ---- */
static void epoch_of_another_start_is_not_served(void **state)
{
    struct fix f;
    struct fix_conn c;
    (void)state;
    fix_init(&f, 5);
    f.mdc->no_new_epoch = true;
    restart(&f);
    assert_true(fix_wait_serving(&f));
    fix_open(&f, &c);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_NOT_SERVING);
    for (uint32_t i = 0; i < FAKE_POOL_PARTITIONS; i++)
        fake_mdc_partition(f.mdc, i, 100 + i, 1);
    fix_run(&f, 20 * NS_PER_MS);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_OK);
    fix_close(&c);
    fix_end(&f);
}

static void epochs_only_rise(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct fix_req r;
    (void)state;
    fix_init(&f, 6);
    fix_open(&f, &c);
    /* The sender knows of a newer epoch first: the module looks, then serves. */
    fix_request(&f, &r, 0, 4096);
    uint32_t p = r.body.partition;
    uint64_t before = r.body.epoch;
    fake_mdc_partition(f.mdc, p, 50, 1);
    fix_request(&f, &r, 0, 4096);
    assert_int_equal(r.body.epoch, 50);
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_OK);
    assert_int_equal(f.medium->partitions[p].epoch, 50);
    r.body.epoch = before;
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_STALE_EPOCH);
    assert_int_equal(r.reply.epoch, 50);
    /* A table that goes back is not followed, here and after a restart. */
    fake_mdc_partition(f.mdc, p, 20, 1);
    fix_run(&f, 20 * NS_PER_MS);
    r.body.epoch = 50;
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_OK);
    restart(&f);
    assert_true(fix_wait_serving(&f));
    assert_int_equal(f.mdc->registered.highest_epoch, 50);
    assert_int_equal(f.medium->partitions[p].epoch, 50);
    fix_close(&c);
    fix_open(&f, &c);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_NOT_SERVING);
    /* The partition goes to another module. */
    fake_mdc_partition(f.mdc, p, 60, 1);
    fix_run(&f, 20 * NS_PER_MS);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_OK);
    fake_mdc_partition(f.mdc, p, 61, 2);
    fix_run(&f, 20 * NS_PER_MS);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_NOT_SERVING);
    assert_int_equal(f.medium->partitions[p].epoch, 61);
    fix_close(&c);
    fix_end(&f);
}

/* The metadata controller stops: the module goes on; what only a newer table could tell is answered "not
 * now". */
static void serves_without_controller(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct fix_req r;
    (void)state;
    fix_init(&f, 7);
    fix_open(&f, &c);
    f.mdc->up = false;
    fix_run(&f, NS_PER_S);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_OK);
    fix_request(&f, &r, FIX_VOLUME_BYTES, 4096);
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_NOT_SERVING);
    fix_request(&f, &r, 0, 4096);
    r.body.generation = 2;
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_NOT_SERVING);
    fix_close(&c);
    fix_end(&f);
}

/* ---- volumes ---- */
static void generations_only_rise(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct fix_req r;
    (void)state;
    fix_init(&f, 8);
    fix_open(&f, &c);
    fake_mdc_volume(f.mdc, 0, 1, 3, FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    fix_request(&f, &r, 0, 4096);
    r.body.generation = 3; /* the sender is first */
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_OK);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_STALE_GENERATION);
    /* Grown: the sender knows first. */
    fake_mdc_volume(f.mdc, 0, 1, 3, 2 * FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    fix_request(&f, &r, FIX_VOLUME_BYTES + 4096, 4096);
    r.body.generation = 3;
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_OK);
    /* A table from before is refused, also over a restart. */
    fake_mdc_volume(f.mdc, 0, 1, 2, FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    fix_run(&f, 20 * NS_PER_MS);
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_WRITE, buf), STATUS_OK);
    restart(&f);
    assert_true(fix_wait_serving(&f));
    assert_int_equal(f.mdc->registered.highest_generation, 3);
    assert_int_equal(record_of(&f, 1)->generation, 3);
    assert_int_equal(record_of(&f, 1)->size_bytes, 2 * FIX_VOLUME_BYTES);
    fix_close(&c);
    fix_end(&f);
}

/* A controller whose store was put back from an old copy is told what was accepted here, and nothing is
 * confirmed until its table is above that. */
static void older_table_is_told_and_not_confirmed(void **state)
{
    struct fix f;
    (void)state;
    fix_init(&f, 17);
    fake_mdc_volume(f.mdc, 0, 1, 7, FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    fix_run(&f, 50 * NS_PER_MS);
    uint64_t confirmed = f.mdc->heartbeat.applied_version;
    assert_int_equal(confirmed, table_head(&f.mdc->table)->version);
    fake_mdc_volume(f.mdc, 0, 1, 6, FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    fix_run(&f, 50 * NS_PER_MS);
    assert_int_equal(f.mdc->heartbeat.ahead_count, 1);
    assert_int_equal(f.mdc->heartbeat.ahead[0].generation, 7);
    assert_int_equal(f.mdc->heartbeat.highest_generation, 7);
    assert_int_equal(f.mdc->heartbeat.applied_version, confirmed);
    /* a lost grow shows in one generation, too */
    fake_mdc_volume(f.mdc, 0, 1, 7, FIX_VOLUME_BYTES / 2, TABLE_VOLUME_READY);
    fix_run(&f, 50 * NS_PER_MS);
    assert_int_equal(f.mdc->heartbeat.ahead_count, 1);
    assert_int_equal(f.mdc->heartbeat.applied_version, confirmed);
    fake_mdc_volume(f.mdc, 0, 1, 8, FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    fix_run(&f, 50 * NS_PER_MS);
    assert_int_equal(f.mdc->heartbeat.ahead_count, 0);
    assert_int_equal(f.mdc->heartbeat.applied_version, table_head(&f.mdc->table)->version);
    fix_end(&f);
}

/* Two volumes of one layer would have one set of blocks: the second is refused, and not confirmed. */
static void layers_are_not_shared(void **state)
{
    struct fix f;
    (void)state;
    fix_init(&f, 18);
    fix_run(&f, 50 * NS_PER_MS);
    uint64_t confirmed = table_head(&f.mdc->table)->version;
    assert_int_equal(f.mdc->heartbeat.applied_version, confirmed);
    const struct table_volume *first = table_record(&f.mdc->table, TABLE_VOLUME, 0);
    struct table_volume v = *first;
    v.id = fake_uuid(9);
    table_publish(&f.mdc->table, TABLE_VOLUME, 3, &v);
    fake_mdc_volume(f.mdc, 4, 5, 1, FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    fix_run(&f, 2 * NS_PER_S);
    assert_null(record_of(&f, 9));
    assert_non_null(record_of(&f, 5));
    assert_int_equal(f.mdc->heartbeat.applied_version, confirmed);
    fake_mdc_no_volume(f.mdc, 3);
    fix_run(&f, 50 * NS_PER_MS);
    assert_int_equal(f.mdc->heartbeat.applied_version, table_head(&f.mdc->table)->version);
    fix_end(&f);
}

/* A generation is confirmed only when the last write under the old one has ended. */
static void confirms_after_old_writes(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct fix_req r;
    (void)state;
    fix_init(&f, 9);
    fix_open(&f, &c);
    fix_run(&f, 50 * NS_PER_MS);
    fix_request(&f, &r, 0, 4096);
    fix_send(&c, &r, BLOCK_METHOD_WRITE, buf);
    f.medium->stand_still = true;
    fix_run(&f, 20 * NS_PER_MS);
    f.medium->stand_still = false;
    f.medium->delay_ns = 1; /* the write ends in one step, then the records */
    f.medium->stand_still = true;
    fake_mdc_volume(f.mdc, 0, 1, 2, FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    uint64_t version = table_head(&f.mdc->table)->version;
    fix_run(&f, 100 * NS_PER_MS);
    assert_false(r.done);
    assert_true(f.mdc->heartbeat.applied_version < version);
    f.medium->stand_still = false;
    fix_run(&f, 100 * NS_PER_MS);
    assert_true(r.done);
    assert_int_equal(f.mdc->heartbeat.applied_version, version);
    fix_close(&c);
    fix_end(&f);
}

/*
 * The pool gets more partitions, and then the controller's store is put back from a copy of before: this
 * module refuses it, running and starting anew, for partitions that are apart by now would be taken for one.
 * A later copy will do.
 */
static void fewer_partitions_are_refused(void **state)
{
    struct fix f;
    struct fix_conn c;
    (void)state;
    fix_init(&f, 19);
    fix_open(&f, &c);
    memset(buf, 9, sizeof(buf));
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, i * FAKE_STRIPE, 4096, buf), STATUS_OK);
    fake_mdc_set_partitions(f.mdc, 8);
    fix_run(&f, 100 * NS_PER_MS);
    assert_int_equal(f.failed_rc, -EAGAIN); /* it begins anew */
    fix_close(&c);
    restart(&f);
    assert_true(fix_wait_serving(&f));
    assert_int_equal(f.medium->identity.partition_bits, 3);
    fake_mdc_set_partitions(f.mdc, 4);
    for (unsigned round = 0; round < 2; round++) {
        fix_run(&f, 500 * NS_PER_MS);
        assert_int_equal(f.failed_rc, -ESTALE);
        assert_non_null(strstr(f.failed_text, "put back a later one"));
        assert_int_equal(f.serving, round == 0);
        assert_int_equal(f.medium->identity.partition_bits, 3);
        restart(&f);
    }
    fake_mdc_set_partitions(f.mdc, 8);
    restart(&f);
    assert_true(fix_wait_serving(&f));
    fix_open(&f, &c);
    for (unsigned i = 0; i < 8; i++) {
        memset(back, 0, 4096);
        assert_int_equal(fix_io(&c, BLOCK_METHOD_READ, i * FAKE_STRIPE, 4096, back), STATUS_OK);
        assert_memory_equal(back, buf, 4096);
    }
    fix_close(&c);
    fix_end(&f);
}

/* A pool is doubled and halves are given to another module while this one is away: what it has of those goes,
 * the rest stays. */
static void halves_that_others_got_are_removed(void **state)
{
    struct fix f;
    struct fix_conn c;
    unsigned mine = 0, others = 0;
    (void)state;
    fix_init(&f, 21);
    fix_open(&f, &c);
    memset(buf, 9, sizeof(buf));
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, i * FAKE_STRIPE, 4096, buf), STATUS_OK);
    fix_close(&c);
    fix_kill_module(&f);
    fake_mdc_set_partitions(f.mdc, 8);
    for (uint32_t i = 4; i < 8; i++)
        fake_mdc_partition(f.mdc, i, fake_mdc_epoch(f.mdc, i) + 1, 2);
    fix_start_module(&f);
    assert_true(fix_wait_serving(&f));
    fix_run(&f, NS_PER_S);
    assert_int_equal(f.mdc->heartbeat.leaving_blocks, 0);
    for (unsigned i = 0; i < 8; i++) {
        const bool other = placement_partition(placement_hash(1, i), 8) >= 4;
        const bool there = fake_medium_block(f.medium, 101, i * FAKE_STRIPE / BLOCK_BYTES) != NULL;
        assert_int_equal(there, !other);
        mine += !other;
        others += other;
    }
    assert_true(mine > 0 && others > 0);
    fix_kill_module(&f);
    fix_end(&f);
}

/* ---- removal ---- */
static void write_blocks(struct fix *f, struct fix_conn *c, unsigned count)
{
    memset(buf, 5, sizeof(buf));
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(fix_io(c, BLOCK_METHOD_WRITE, i * 128 * KIB, 128 * KIB, buf), STATUS_OK);
    assert_int_equal(blocks_of(f, 101), count);
}

static void removes_deleted_volumes(void **state)
{
    struct fix f;
    struct fix_conn c;
    (void)state;
    fix_init(&f, 10);
    fix_open(&f, &c);
    write_blocks(&f, &c, 60);
    fake_mdc_volume(f.mdc, 0, 1, 2, FIX_VOLUME_BYTES, TABLE_VOLUME_DELETING);
    fix_run(&f, 12 * NS_PER_MS);
    assert_true(f.mdc->heartbeat.removing_blocks > 0);
    assert_int_equal(f.mdc->heartbeat.applied_version, table_head(&f.mdc->table)->version);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_NOT_FOUND);
    assert_true(blocks_of(&f, 101) > 0);
    restart(&f); /* in the middle */
    assert_true(fix_wait_serving(&f));
    fix_run(&f, NS_PER_S);
    assert_int_equal(blocks_of(&f, 101), 0);
    assert_int_equal(f.mdc->heartbeat.removing_blocks, 0);
    assert_non_null(record_of(&f, 1)); /* another copy may not have heard of it yet */
    fake_mdc_no_volume(f.mdc, 0);
    fix_run(&f, NS_PER_S);
    assert_null(record_of(&f, 1));
    assert_true(uuid_is_zero(&f.medium->turns[0].volume));
    fix_open(&f, &c);
    assert_int_equal(fix_io(&c, BLOCK_METHOD_WRITE, 0, 4096, buf), STATUS_NOT_FOUND);
    fix_close(&c);
    fix_end(&f);
}

static void vanished_is_deleted_but_not_by_an_amnesiac(void **state)
{
    struct fix f;
    struct fix_conn c;
    (void)state;
    fix_init(&f, 11);
    fix_open(&f, &c);
    write_blocks(&f, &c, 10);
    /* A controller of another term that knows nothing of it. */
    fix_kill_module(&f);
    fake_mdc_destroy(f.mdc);
    f.mdc = fake_mdc_create(7);
    f.mdc->next_epoch = 1000;
    for (unsigned i = 0; i < 40; i++)
        fake_mdc_volume(f.mdc, 5, 5, 1, FIX_VOLUME_BYTES, TABLE_VOLUME_READY); /* its version grows */
    fix_start_module(&f);
    assert_true(fix_wait_serving(&f));
    fix_run(&f, NS_PER_S);
    assert_int_equal(blocks_of(&f, 101), 10);
    assert_non_null(record_of(&f, 1));
    /* The volume of this term, gone in this term. */
    assert_non_null(record_of(&f, 5));
    fake_mdc_no_volume(f.mdc, 5);
    fix_run(&f, NS_PER_S);
    assert_null(record_of(&f, 5));
    assert_int_equal(blocks_of(&f, 101), 10);
    fix_close(&c);
    fix_end(&f);
}

static void cuts_shrunk_volumes(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct fix_req r;
    (void)state;
    fix_init(&f, 12);
    fix_open(&f, &c);
    write_blocks(&f, &c, 32);
    uint64_t size = 10 * 128 * KIB + 3 * UNIT_BYTES;
    fake_mdc_volume(f.mdc, 0, 1, 2, size, TABLE_VOLUME_SHRINKING);
    fix_run(&f, NS_PER_S);
    assert_int_equal(blocks_of(&f, 101), 11);
    assert_int_equal(fake_medium_block(f.medium, 101, 10)->written, 7);
    assert_int_equal(f.mdc->heartbeat.removing_blocks, 0);
    fix_request(&f, &r, 10 * 128 * KIB, 4096);
    r.body.generation = 2;
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_READ, back), STATUS_OK);
    assert_memory_equal(back, buf, 4096);
    r.body.length = 4 * UNIT_BYTES;
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_READ, back), STATUS_RANGE);
    /* Grown again: what was cut reads as zeroes, and is not cut again after a restart. */
    fake_mdc_volume(f.mdc, 0, 1, 2, FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    fix_run(&f, 50 * NS_PER_MS);
    r.body.length = 8 * UNIT_BYTES;
    assert_int_equal(fix_do(&c, &r, BLOCK_METHOD_READ, back), STATUS_OK);
    assert_int_equal(back[3 * UNIT_BYTES - 1], 5);
    assert_int_equal(back[3 * UNIT_BYTES], 0);
    uint64_t removes = f.medium->removes;
    restart(&f);
    assert_true(fix_wait_serving(&f));
    fix_run(&f, NS_PER_S);
    assert_int_equal(f.medium->removes, removes);
    fix_close(&c);
    fix_end(&f);
}

/* ---- the end ---- */
static void shut_done(void *arg, int rc)
{
    struct fix *f = arg;
    f->shut = true;
    f->shut_rc = rc;
}

static void shuts_down_in_order(void **state)
{
    struct fix f;
    struct fix_conn c;
    struct fix_req r[4], late;
    (void)state;
    fix_init(&f, 13);
    fix_open(&f, &c);
    f.medium->delay_ns = 5 * NS_PER_MS;
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        fix_request(&f, &r[i], 0, 512);
        fix_send(&c, &r[i], BLOCK_METHOD_WRITE, buf);
    }
    fix_run(&f, NS_PER_MS);
    rwm_shutdown(f.rwm, shut_done, &f);
    fix_request(&f, &late, 0, 512);
    assert_int_equal(fix_do(&c, &late, BLOCK_METHOD_WRITE, buf), STATUS_NOT_SERVING);
    fix_run(&f, NS_PER_S);
    assert_true(f.shut);
    assert_int_equal(f.shut_rc, 0);
    for (unsigned i = 0; i < ARRAY_LEN(r); i++)
        assert_true(r[i].done && r[i].status == STATUS_OK);
    fix_close(&c);
    fix_end(&f);
}

/* Destroyed at any moment of its start, and started again over what that left: it always comes up. */
static void destroyed_while_starting(void **state)
{
    struct fix f;
    (void)state;
    fix_init(&f, 14);
    for (unsigned n = 0; n < 80; n++) {
        restart(&f);
        fix_run(&f, n * 50 * NS_PER_US);
        if (n % 8 == 3)
            rwm_shutdown(f.rwm, shut_done, &f);
        if (n % 8 == 3)
            fix_run(&f, 30 * NS_PER_US);
    }
    restart(&f);
    assert_true(fix_wait_serving(&f));
    fix_end(&f);
}

/* An orderly end asked for at any moment of a start ends, also while the identity is being written. */
static void shut_down_while_starting(void **state)
{
    struct fix f;
    (void)state;
    fix_init(&f, 15);
    for (unsigned n = 0; n < 120; n++) {
        restart(&f);
        f.shut = false;
        f.medium->delay_ns = (n % 3 + 1) * 200 * NS_PER_US;
        fix_run(&f, n * 25 * NS_PER_US);
        rwm_shutdown(f.rwm, shut_done, &f);
        fix_run(&f, NS_PER_S);
        assert_true(f.shut);
        assert_int_equal(f.shut_rc, 0);
    }
    restart(&f);
    assert_true(fix_wait_serving(&f));
    fix_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers_and_records),
        cmocka_unit_test(refused_media),
        cmocka_unit_test(store_that_does_not_open),
        cmocka_unit_test(superseded),
        cmocka_unit_test(older_store_names_the_start_before),
        cmocka_unit_test(older_store_before_the_first_table),
        cmocka_unit_test(epoch_of_another_start_is_not_served),
        cmocka_unit_test(epochs_only_rise),
        cmocka_unit_test(serves_without_controller),
        cmocka_unit_test(generations_only_rise),
        cmocka_unit_test(older_table_is_told_and_not_confirmed),
        cmocka_unit_test(layers_are_not_shared),
        cmocka_unit_test(confirms_after_old_writes),
        cmocka_unit_test(halves_that_others_got_are_removed),
        cmocka_unit_test(fewer_partitions_are_refused),
        cmocka_unit_test(removes_deleted_volumes),
        cmocka_unit_test(vanished_is_deleted_but_not_by_an_amnesiac),
        cmocka_unit_test(cuts_shrunk_volumes),
        cmocka_unit_test(shuts_down_in_order),
        cmocka_unit_test(destroyed_while_starting),
        cmocka_unit_test(shut_down_while_starting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
