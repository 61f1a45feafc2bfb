/* cluster.h: the session, the copy of the tables and the calls, with a fake controller on the simulated
 * network. */
#include "tests/unit/cluster_fixture.h"

#include "services/cluster/cluster_private.h"

static struct bed bed;
static struct rng rng;

static int setup(void **state)
{
    (void)state;
    rng_seed(&rng, 5);
    bed_init(&bed, 11, 1);
    return 0;
}
static int setup_two(void **state)
{
    (void)state;
    rng_seed(&rng, 5);
    bed_init(&bed, 12, 2);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    bed_free(&bed);
    return 0;
}

static void publish(struct fake *m, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        fake_publish(m, &rng);
}

static void begin(unsigned changes)
{
    fake_start(&bed, 0, 3);
    publish(&bed.fake[0], changes);
    bed_cluster(&bed);
    assert_true(settles(&bed, &bed.fake[0]));
}

/* ---- the copy ---- */

static void first_copy(void **state)
{
    (void)state;
    fake_start(&bed, 0, 3);
    publish(&bed.fake[0], 3000);
    bed_cluster(&bed);
    assert_null(cluster_table(bed.c));
    assert_false(cluster_session_is_up(bed.c));
    assert_true(settles(&bed, &bed.fake[0]));
    assert_int_equal(bed.ups, 1);
    assert_int_equal(bed.changes, 1);
    assert_int_equal(counters(&bed).full_reads, 1);
    assert_int_equal(counters(&bed).crc_retries, 0);
    assert_int_equal((uintptr_t)cluster_table(bed.c)->region % 64, 0);
}

static void an_empty_table(void **state)
{
    (void)state;
    begin(0);
    assert_int_equal(bed.changes, 1);
    assert_int_equal(counters(&bed).record_reads, 0);
}

static void changes_come_through_the_ring(void **state)
{
    (void)state;
    begin(700);
    const struct table *t = cluster_table(bed.c);
    const void *region = t->region;
    for (unsigned i = 1; i <= REPLICA_CHANGES_MAX; i = i < 3 ? i + 1 : i * 2) {
        const uint64_t before = counters(&bed).record_reads;
        publish(&bed.fake[0], i);
        assert_true(settles(&bed, &bed.fake[0]));
        assert_in_range(counters(&bed).record_reads - before, 1, i);
    }
    publish(&bed.fake[0], REPLICA_CHANGES_MAX);
    assert_true(settles(&bed, &bed.fake[0]));
    assert_int_equal(counters(&bed).full_reads, 1);
    assert_ptr_equal(cluster_table(bed.c), t);
    assert_ptr_equal(t->region, region); /* in place */
    publish(&bed.fake[0], REPLICA_CHANGES_MAX + 1);
    assert_true(settles(&bed, &bed.fake[0]));
    assert_int_equal(counters(&bed).full_reads, 2);
    assert_ptr_equal(cluster_table(bed.c), t);
}

/* A volume that comes and goes in one place is found, and not found, through the copy. */
static void volumes_come_and_go(void **state)
{
    (void)state;
    begin(10);
    struct table_volume v = {.id = {{1}}, .pool = 1}, none = {.pool = 0};
    const struct uuid first = v.id, second = {{2}};
    table_publish(&bed.fake[0].table, TABLE_VOLUME, 63, &v);
    assert_true(settles(&bed, &bed.fake[0]));
    assert_non_null(table_volume_by_id(cluster_table(bed.c), &first));
    v.id = second;
    table_publish(&bed.fake[0].table, TABLE_VOLUME, 63, &v);
    assert_true(settles(&bed, &bed.fake[0]));
    assert_null(table_volume_by_id(cluster_table(bed.c), &first));
    assert_non_null(table_volume_by_id(cluster_table(bed.c), &second));
    table_publish(&bed.fake[0].table, TABLE_VOLUME, 63, &none);
    assert_true(settles(&bed, &bed.fake[0]));
    assert_null(table_volume_by_id(cluster_table(bed.c), &second));
    assert_int_equal(counters(&bed).full_reads, 1);
}

static void a_hint_saves_the_period(void **state)
{
    (void)state;
    bed.config.refresh_ns = 1000 * NS_PER_S;
    begin(10);
    publish(&bed.fake[0], 3);
    run_for(&bed, 5 * NS_PER_S);
    assert_false(same_table(&bed, &bed.fake[0]));
    fake_hint(&bed.fake[0]);
    run_for(&bed, 10 * NS_PER_MS);
    assert_true(same_table(&bed, &bed.fake[0]));
    assert_int_equal(counters(&bed).hints, 1);
    const uint64_t refreshes = counters(&bed).refreshes;
    fake_hint(&bed.fake[0]); /* known already */
    run_for(&bed, 10 * NS_PER_MS);
    assert_int_equal(counters(&bed).refreshes, refreshes);
    publish(&bed.fake[0], 3);
    for (int i = 0; i < 100; i++)
        cluster_refresh(bed.c);
    run_for(&bed, 10 * NS_PER_MS);
    assert_true(same_table(&bed, &bed.fake[0]));
    assert_true(counters(&bed).refreshes <= refreshes + 2);
}

/* Asked for in the middle of a refresh whose header was read already: another one follows it. */
static void asked_for_while_under_way(void **state)
{
    (void)state;
    bed.config.refresh_ns = 1000 * NS_PER_S;
    begin(10);
    for (unsigned steps = 0; steps < 30; steps++) {
        cluster_refresh(bed.c);
        for (unsigned i = 0; i < steps; i++)
            sim_world_step(bed.world);
        publish(&bed.fake[0], 1);
        cluster_refresh(bed.c);
        run_for(&bed, 20 * NS_PER_MS);
        assert_true(same_table(&bed, &bed.fake[0]));
    }
}

/* Published at every step of the world while it is being read, so fast at times that the ring comes round. */
static void a_busy_publisher(void **state)
{
    (void)state;
    bed.config.refresh_ns = 2 * NS_PER_MS;
    begin(700);
    for (unsigned round = 0; round < 40; round++) {
        const uint64_t most = 1 + (round % 5) * 120;
        for (unsigned step = 0; step < 60; step++) {
            publish(&bed.fake[0], (unsigned)rng_below(&rng, most));
            sim_world_step(bed.world);
        }
    }
    assert_true(bed.changes > 30);
    assert_true(counters(&bed).full_reads > 3);
    assert_true(settles(&bed, &bed.fake[0]));
}

/* ---- what is torn, lies, or stands still ---- */

static uint8_t *record_bytes(enum table_kind kind, uint32_t index)
{
    const struct table_header *h = table_head(&bed.fake[0].table);
    return (uint8_t *)bed.fake[0].table.region + h->section[kind].offset + index * table_record_bytes(kind);
}

static void torn_then_whole(uint8_t *byte, uint64_t torn_ns)
{
    const uint64_t retries = counters(&bed).crc_retries, version = bed.last_version;
    *byte ^= 0x40;
    cluster_refresh(bed.c);
    run_for(&bed, torn_ns);
    assert_true(counters(&bed).crc_retries > retries);
    assert_int_equal(bed.last_version, version); /* nothing of it was taken */
    *byte ^= 0x40;
    assert_true(settles(&bed, &bed.fake[0]));
}

static void torn_records_are_read_again(void **state)
{
    (void)state;
    begin(1000);
    struct table_partition p = {.pool = 1, .epoch = 1};
    for (uint64_t torn_ns = NS_PER_MS; torn_ns < 3 * NS_PER_S;
         torn_ns *= 20) { /* briefly, then past all tries */
        p.epoch++;
        table_publish(&bed.fake[0].table, TABLE_PARTITION, 5, &p);
        torn_then_whole(record_bytes(TABLE_PARTITION, 5) + 9, torn_ns);
        publish(&bed.fake[0], 600); /* the same through a whole read */
        torn_then_whole(record_bytes(TABLE_VOLUME, 7) + 120, torn_ns);
        publish(&bed.fake[0], 1);
        torn_then_whole((uint8_t *)bed.fake[0].table.region + 70, torn_ns);
    }
    assert_true(counters(&bed).crc_retries > 20);
}

/* Several at once, in reads that are in flight together, for longer than all tries. */
static void torn_in_many_places(void **state)
{
    (void)state;
    begin(1000);
    uint8_t *torn[] = {record_bytes(TABLE_PARTITION, 3), record_bytes(TABLE_PARTITION, 1030),
                       record_bytes(TABLE_VOLUME, 9)};
    for (unsigned round = 0; round < 20; round++) {
        publish(&bed.fake[0], 600);
        for (unsigned i = 0; i < ARRAY_LEN(torn); i++)
            torn[i][8] ^= 1;
        const uint64_t version = bed.last_version;
        cluster_refresh(bed.c);
        run_for(&bed, 400 * NS_PER_MS);
        assert_int_equal(bed.last_version, version);
        for (unsigned i = 0; i < ARRAY_LEN(torn); i++)
            torn[i][8] ^= 1;
        assert_true(settles(&bed, &bed.fake[0]));
    }
}

/* In the middle of a run that is read as one: only that record is read again, and each lands in its own
 * place. */
static void torn_in_the_middle_of_a_run(void **state)
{
    (void)state;
    begin(10);
    for (uint32_t torn = 10; torn < 30; torn += 3) {
        const uint64_t before = counters(&bed).record_reads;
        for (uint32_t i = 10; i < 30; i++) {
            struct table_partition p = {.pool = 1, .index = i, .epoch = torn * 100 + i};
            table_publish(&bed.fake[0].table, TABLE_PARTITION, i, &p);
        }
        torn_then_whole(record_bytes(TABLE_PARTITION, torn) + 9, NS_PER_MS);
        assert_true(counters(&bed).record_reads - before <= 20);
    }
    assert_int_equal(counters(&bed).full_reads, 1);
}

/* A record whose bytes are of before its ring entry: written late. It is waited for. */
static void an_old_record_is_not_taken_for_new(void **state)
{
    (void)state;
    begin(10);
    struct table_partition p = {.pool = 1, .epoch = 1}, old;
    table_publish(&bed.fake[0].table, TABLE_PARTITION, 5, &p);
    assert_true(settles(&bed, &bed.fake[0]));
    p.epoch = 2;
    table_publish(&bed.fake[0].table, TABLE_PARTITION, 5, &p);
    old = p; /* newer than the copy's, but not the latest */
    p.epoch = 3;
    table_publish(&bed.fake[0].table, TABLE_PARTITION, 5, &p);
    memcpy(record_bytes(TABLE_PARTITION, 5), &old, sizeof(old));
    const uint64_t version = bed.last_version;
    run_for(&bed, 3 * NS_PER_S);
    assert_int_equal(bed.last_version, version);
    memcpy(record_bytes(TABLE_PARTITION, 5), &p, sizeof(p));
    assert_true(settles(&bed, &bed.fake[0]));
}

static struct table_change *ring_entry(uint64_t version)
{
    const struct table_header *h = table_head(&bed.fake[0].table);
    return (struct table_change *)(void *)((uint8_t *)bed.fake[0].table.region + h->ring.offset) +
           version % TABLE_RING_ENTRIES;
}

static void a_ring_that_lies_costs_a_whole_read(void **state)
{
    (void)state;
    begin(10);
    struct table *t = &bed.fake[0].table;
    for (unsigned lie = 0; lie < 4; lie++) {
        publish(&bed.fake[0], 3);
        struct table_change *e = ring_entry(table_head(t)->version - 1);
        e->version += lie == 0 ? TABLE_RING_ENTRIES : 0;
        e->kind = lie == 1 ? 77 : e->kind;
        e->index = lie == 2 ? UINT32_MAX : lie == 3 ? fake_limits.partitions : e->index;
        assert_true(settles(&bed, &bed.fake[0]));
        assert_int_equal(counters(&bed).full_reads, 2 + lie);
    }
}

/* What the lap rule is for: an entry that is torn, its version old, its index already of the entry that comes
 * a lap later. Steps until the copy is read through the ring, then lets the publisher run ahead at once. */
static void a_lap_while_the_ring_is_read(void **state)
{
    (void)state;
    begin(10);
    for (unsigned steps = 1; steps < 40; steps++) {
        struct table_partition p = {.pool = 1, .index = 1500, .epoch = steps};
        const uint64_t whole = counters(&bed).full_reads;
        assert_true(settles(&bed, &bed.fake[0]));
        const uint64_t version = table_publish(&bed.fake[0].table, TABLE_PARTITION, 1500, &p);
        cluster_refresh(bed.c);
        for (unsigned i = 0; i < steps; i++)
            sim_world_step(bed.world);
        if (bed.last_version == version)
            break;
        p.index = 3;
        for (unsigned i = 0; i < TABLE_RING_ENTRIES; i++)
            table_publish(&bed.fake[0].table, TABLE_PARTITION, 3, &p);
        ring_entry(version)->version = version;
        assert_true(settles(&bed, &bed.fake[0])); /* and on_table_changed looks for what is missing */
        assert_true(counters(&bed).full_reads > whole);
    }
}

static void reseal(struct table_header *h)
{
    h->crc = crc32c(h, offsetof(struct table_header, crc));
}

static void headers_that_are_refused(void **state)
{
    (void)state;
    begin(10);
    struct table_header *h = bed.fake[0].table.region;
    publish(&bed.fake[0], 1);
    const struct table_header good = *h;
    for (unsigned lie = 0; lie < 7; lie++) {
        switch (lie) {
        case 0:
            h->start++;
            break;
        case 1:
            h->cluster.b[0]++;
            break;
        case 2:
            h->magic++;
            break;
        case 3:
            h->section[TABLE_VOLUME].capacity = UINT32_MAX;
            break;
        case 4:
            h->region_bytes += 4096; /* more than the session said */
            break;
        case 5:
            h->term--; /* back */
            break;
        default:
            h->version = bed.last_version - 5;
        }
        reseal(h);
        run_for(&bed, 3 * NS_PER_S);
        assert_int_equal(bed.changes, 1);
        *h = good;
    }
    assert_true(settles(&bed, &bed.fake[0]));
}

static void a_table_too_large_is_refused(void **state)
{
    (void)state;
    struct tried t;
    bed.config.table_max_bytes = table_region_bytes(&fake_limits) - 1;
    fake_start(&bed, 0, 3);
    bed_cluster(&bed);
    run_for(&bed, 3 * NS_PER_S);
    assert_true(cluster_session_is_up(bed.c));
    assert_null(cluster_table(bed.c));
    assert_int_equal(counters(&bed).refreshes, 0);
    try_call(&bed, &t, "v", NS_PER_S, false);
    run_for(&bed, NS_PER_S);
    assert_int_equal(t.done, 1);
    assert_int_equal(t.rc, 0);
}

static void another_term_is_a_whole_read(void **state)
{
    (void)state;
    begin(10);
    struct table_header *h = bed.fake[0].table.region;
    h->term++;
    reseal(h);
    publish(&bed.fake[0], 1);
    assert_true(settles(&bed, &bed.fake[0]));
    assert_int_equal(counters(&bed).full_reads, 2);
}

/* ---- controllers that come and go ---- */

static void a_restart_brings_a_new_key(void **state)
{
    (void)state;
    begin(700);
    const struct table *t = cluster_table(bed.c);
    const uint64_t version = table_head(t)->version;
    fake_stop(&bed.fake[0]);
    run_for(&bed, 20 * NS_PER_S);
    assert_int_equal(bed.downs, 1);
    assert_false(cluster_session_is_up(bed.c));
    assert_int_equal(table_head(t)->version, version); /* stays usable */
    fake_start(&bed, 0, 4);
    publish(&bed.fake[0], 20); /* fewer versions, higher term */
    assert_true(settles(&bed, &bed.fake[0]));
    assert_int_equal(bed.ups, 2);
    assert_int_equal(counters(&bed).full_reads, 2);
}

static void an_older_table_is_not_gone_back_to(void **state)
{
    (void)state;
    begin(700);
    fake_stop(&bed.fake[0]);
    fake_start(&bed, 0, 2);
    publish(&bed.fake[0], 900);
    run_for(&bed, 20 * NS_PER_S);
    assert_true(cluster_session_is_up(bed.c));
    assert_int_equal(bed.changes, 1);
    assert_int_equal(table_head(cluster_table(bed.c))->term, 3);
}

static void the_second_serves_when_the_first_is_away(void **state)
{
    (void)state;
    fake_start(&bed, 1, 3);
    publish(&bed.fake[1], 30);
    bed_cluster(&bed);
    assert_true(settles(&bed, &bed.fake[1]));
    fake_start(&bed, 0, 4);
    fake_stop(&bed.fake[1]);
    assert_true(settles(&bed, &bed.fake[0]));
}

static void not_in_charge(void **state)
{
    (void)state;
    struct tried t;
    fake_start(&bed, 0, 3);
    fake_start(&bed, 1, 4);
    bed.fake[1].leader = false;
    bed_cluster(&bed);
    assert_true(settles(&bed, &bed.fake[0]));
    bed.fake[0].leader = false;
    bed.fake[1].leader = true;
    try_call(&bed, &t, "v", 0, false); /* refused there, so it may be repeated here */
    assert_true(settles(&bed, &bed.fake[1]));
    run_for(&bed, NS_PER_S);
    assert_int_equal(t.done, 1);
    assert_int_equal(t.rc, 0);
    assert_int_equal(bed.fake[0].calls, 1);
    assert_int_equal(bed.fake[1].calls, 1);
}

/* A process that hangs while its memory can still be read. */
static void a_heart_that_stands_still(void **state)
{
    (void)state;
    fake_start(&bed, 0, 3);
    bed_cluster(&bed);
    assert_true(settles(&bed, &bed.fake[0]));
    for (int i = 0; i < 100; i++) {
        table_heartbeat(&bed.fake[0].table);
        run_for(&bed, 100 * NS_PER_MS);
    }
    assert_int_equal(bed.downs, 0);
    fake_start(&bed, 1, 4);
    run_for(&bed, 10 * NS_PER_S);
    assert_int_equal(bed.downs, 1);
    assert_true(settles(&bed, &bed.fake[1]));
}

/* With just one controller nothing is won by leaving it. */
static void the_only_heart_that_stands_still(void **state)
{
    (void)state;
    begin(10);
    run_for(&bed, 30 * NS_PER_S);
    assert_int_equal(bed.downs, 0);
    publish(&bed.fake[0], 2);
    assert_true(settles(&bed, &bed.fake[0]));
}

/* ---- calls ---- */

static void calls_and_their_errors(void **state)
{
    (void)state;
    struct tried ok, busy, garbage, silent;
    begin(1);
    try_call(&bed, &ok, "v", 0, false);
    try_call(&bed, &busy, "busy", 0, true);
    try_call(&bed, &garbage, "garbage", 0, false);
    try_call(&bed, &silent, "silent", 300 * NS_PER_MS, true);
    run_for(&bed, 100 * NS_PER_MS);
    assert_int_equal(ok.done, 1);
    assert_int_equal(ok.rc, 0);
    assert_string_equal(ok.reply.volume.name, "v");
    assert_int_equal(busy.rc, -EBUSY);
    assert_int_equal(busy.call.status, STATUS_BUSY);
    assert_string_equal(busy.call.error_text, "volume busy is open on host1: close it there first");
    assert_int_equal(garbage.rc, -EPROTO);
    assert_non_null(
        strstr(garbage.call.error_text, "volume_get: the metadata controller's answer is malformed"));
    assert_int_equal(silent.done, 0);
    run_for(&bed, NS_PER_S);
    assert_int_equal(silent.rc, -ETIMEDOUT);
    assert_non_null(strstr(silent.call.error_text, "sim:1:7000 did not answer within 300 ms"));
    assert_true(ok.done == 1 && busy.done == 1 && garbage.done == 1 && silent.done == 1);
}

static void nobody_to_call(void **state)
{
    (void)state;
    struct tried t, forever;
    bed_cluster(&bed);
    try_call(&bed, &t, "v", 2 * NS_PER_S, false);
    try_call(&bed, &forever, "w", 0, false);
    run_for(&bed, 3 * NS_PER_S);
    assert_int_equal(t.done, 1);
    assert_int_equal(t.rc, -ETIMEDOUT);
    assert_non_null(
        strstr(t.call.error_text, "no metadata controller could be reached within 2000 ms (sim:1:7000: "));
    assert_int_equal(forever.done, 0);
    fake_start(&bed, 0, 3);
    assert_true(settles(&bed, &bed.fake[0]));
    run_for(&bed, NS_PER_S);
    assert_int_equal(forever.done, 1);
    assert_int_equal(forever.rc, 0);
}

static void a_lost_connection(void **state)
{
    (void)state;
    struct tried once, again;
    begin(1);
    try_call(&bed, &once, "silent", 0, false);
    try_call(&bed, &again, "silent", 20 * NS_PER_S, true);
    run_for(&bed, 100 * NS_PER_MS);
    assert_int_equal(bed.fake[0].calls, 2);
    sim_net_break(bed.net, 0);
    run_for(&bed, 5 * NS_PER_S);
    assert_int_equal(once.done, 1);
    assert_int_equal(once.rc, -ENOTCONN);
    assert_non_null(strstr(once.call.error_text, "may or may not have been done"));
    assert_int_equal(again.done, 0);
    assert_int_equal(bed.fake[0].calls, 3);
    run_for(&bed, 20 * NS_PER_S);
    assert_int_equal(again.rc, -ETIMEDOUT);
    assert_int_equal(again.done, 1);
}

static void cancelled_calls(void **state)
{
    (void)state;
    struct tried queued, sent, never;
    memset(&never, 0, sizeof(never));
    cluster_call_cancel(&never.call);
    bed_cluster(&bed);
    try_call(&bed, &queued, "v", NS_PER_S, true);
    cluster_call_cancel(&queued.call);
    cluster_call_cancel(&queued.call);
    fake_start(&bed, 0, 3);
    assert_true(settles(&bed, &bed.fake[0]));
    try_call(&bed, &sent, "v", NS_PER_S, true);
    run_for(&bed, 50 * NS_PER_US);
    cluster_call_cancel(&sent.call);
    memset(&sent.call, 0xee, sizeof(sent.call)); /* its memory is the caller's again */
    run_for(&bed, 3 * NS_PER_S);
    assert_int_equal(queued.done + sent.done, 0);
    assert_int_equal(bed.fake[0].calls, 1);
}

static void a_request_that_does_not_fit(void **state)
{
    (void)state;
    begin(1);
    static const struct wire_field fields[] = {
        {.key = "x", .kind = WIRE_BIN, .required = true, .offset = 0, .size = RPC_BODY_MAX}, WIRE_END};
    static const struct wire_type type = {.name = "huge", .size = RPC_BODY_MAX, .fields = fields};
    static const uint8_t huge[RPC_BODY_MAX];
    struct cluster_call call = {.method = 1, .request_type = &type, .request = huge, .done = on_called};
    assert_int_equal(cluster_call_start(bed.c, &call), -EMSGSIZE);
}

/* ---- waits ---- */

struct waited {
    struct cluster_wait w;
    uint64_t at_ns; /* 0: not yet */
};
static void on_waited(struct cluster_wait *w)
{
    struct waited *x = container_of(w, struct waited, w);
    assert_int_equal(x->at_ns, 0);
    x->at_ns = sim_world_now(bed.world);
}
static void wait_for(struct waited *x, uint64_t term, uint64_t version)
{
    *x = (struct waited){.w = {.term = term, .version = version, .fn = on_waited}};
    cluster_wait_table(bed.c, &x->w);
    assert_int_equal(x->at_ns, 0);
}

static void waits(void **state)
{
    (void)state;
    struct waited now, soon, later, any, gone;
    bed.config.refresh_ns = 1000 * NS_PER_S;
    begin(10);
    const uint64_t version = bed.last_version;
    wait_for(&now, 3, version);
    wait_for(&soon, 3, version + 4);
    wait_for(&later, 4, 1);
    wait_for(&any, 0, 0);
    wait_for(&gone, 0, 0);
    cluster_wait_cancel(bed.c, &gone.w);
    run_for(&bed, 10 * NS_PER_MS);
    assert_true(now.at_ns != 0 && any.at_ns != 0);
    assert_int_equal(soon.at_ns, 0);
    publish(&bed.fake[0], 4); /* no hint: whoever waits for a version looks again by itself */
    run_for(&bed, 200 * NS_PER_MS);
    assert_true(soon.at_ns != 0);
    assert_int_equal(later.at_ns, 0);
    cluster_wait_cancel(bed.c, &soon.w);
    fake_stop(&bed.fake[0]);
    run_for(&bed, 5 * NS_PER_S);
    const uint64_t asked = sim_world_now(bed.world);
    wait_for(&any, 0, 0); /* nobody stands still because the controller is away */
    run_for(&bed, 3 * NS_PER_S);
    assert_in_range(any.at_ns, asked, asked + 1100 * NS_PER_MS);
    fake_start(&bed, 0, 4);
    assert_true(settles(&bed, &bed.fake[0]));
    run_for(&bed, NS_PER_MS);
    assert_true(later.at_ns != 0);
    assert_int_equal(gone.at_ns, 0);
}

/* A refresh that had begun before the wait does not end it: it may have read the header already. */
static void a_wait_in_the_middle_of_a_refresh(void **state)
{
    (void)state;
    bed.config.refresh_ns = 1000 * NS_PER_S;
    begin(10);
    for (unsigned steps = 0; steps < 30; steps++) {
        struct waited any;
        cluster_refresh(bed.c);
        for (unsigned i = 0; i < steps; i++)
            sim_world_step(bed.world);
        publish(&bed.fake[0], 1);
        wait_for(&any, 0, 0);
        while (any.at_ns == 0)
            assert_true(sim_world_step(bed.world));
        assert_true(same_table(&bed, &bed.fake[0]));
    }
}

/* ---- at each step ---- */

/* All that there is to do, from the first connect to a ring read and a whole read and calls, in steps of the
 * world. */
static void script(unsigned step)
{
    if (step == 150)
        publish(&bed.fake[0], 20);
    if (step == 200)
        publish(&bed.fake[0], 700);
    if (step == 151 || step == 201)
        cluster_refresh(bed.c);
    sim_world_step(bed.world);
}
enum { SCRIPT_STEPS = 400 };

static void at_each_step_the_network_breaks(void **state)
{
    (void)state;
    unsigned whole = 0;
    for (unsigned at = 0; at < SCRIPT_STEPS; at++) {
        struct tried t;
        rng_seed(&rng, at);
        bed_init(&bed, 100 + at, 1);
        fake_start(&bed, 0, 3);
        publish(&bed.fake[0], 600);
        bed_cluster(&bed);
        try_call(&bed, &t, "v", 0, true);
        for (unsigned step = 0; step < SCRIPT_STEPS; step++) {
            script(step);
            if (step == at)
                sim_net_break(bed.net, 0);
        }
        assert_true(settles(&bed, &bed.fake[0]));
        run_for(&bed, NS_PER_S);
        assert_int_equal(t.done, 1);
        assert_int_equal(t.rc, 0);
        whole += counters(&bed).full_reads > 1;
        bed_free(&bed);
    }
    assert_true(whole > SCRIPT_STEPS / 2); /* the script did what it is for */
    memset(&bed, 0, sizeof(bed));
}

static void at_each_step_it_is_destroyed(void **state)
{
    (void)state;
    for (unsigned at = 0; at < SCRIPT_STEPS; at++) {
        struct tried *t = calloc(1, sizeof(*t));
        struct waited *w = calloc(1, sizeof(*w));
        assert_true(t != NULL && w != NULL);
        rng_seed(&rng, at);
        bed_init(&bed, 900 + at, 1);
        fake_start(&bed, 0, 3);
        publish(&bed.fake[0], 600);
        bed_cluster(&bed);
        for (unsigned step = 0; step < at; step++)
            script(step);
        try_call(&bed, t, "v", NS_PER_S, true);
        wait_for(w, 0, at % 3);
        for (unsigned step = 0; step < at % 20; step++)
            sim_world_step(bed.world);
        bed.dead = true;
        cluster_destroy(bed.c);
        bed.c = NULL;
        free(t);
        free(w);
        run_for(&bed, 2 * NS_PER_S); /* the fabric lives on; nothing touches what is gone */
        struct fabric_counters n;
        fabric_counters_get(bed.p.fabric, &n);
        assert_int_equal(n.ops_pending, 0);
        assert_int_equal(n.conns_open, 0);
        assert_int_equal(n.mems, 0);
        bed_free(&bed);
    }
    memset(&bed, 0, sizeof(bed));
}

/* The same over sockets: one loop for both ends. */
static void over_tcp(void **state)
{
    (void)state;
    struct fake m;
    struct tried t;
    struct fabric_config fc = {.cluster = fake_cluster,
                               .secret = "sesame",
                               .secret_len = 6,
                               .role = FABRIC_ROLE_MDC,
                               .incarnation = 1};
    struct fabric_addr any;
    memset(&bed, 0, sizeof(bed));
    memset(&m, 0, sizeof(m));
    log_set_sink(quiet, NULL);
    rng_seed(&rng, 5);
    assert_int_equal(loop_create_real(NULL, &bed.p.loop), 0);
    bed.p.env = (struct env){.loop = bed.p.loop, .rng = &rng, .name = "t"};
    m.p.loop = bed.p.loop;
    m.p.env = bed.p.env;
    assert_int_equal(fabric_create_tcp(&m.p.env, &fc, &m.p.fabric), 0);
    m.p.env.fabric = m.p.fabric;
    fc.role = FABRIC_ROLE_VBS;
    assert_int_equal(fabric_create_tcp(&bed.p.env, &fc, &bed.p.fabric), 0);
    bed.p.env.fabric = bed.p.fabric;
    assert_int_equal(fabric_addr_parse("tcp:127.0.0.1:0", &any), 0);
    fake_serve(&m, &any, 3);
    publish(&m, 3000);
    bed.config = (struct cluster_config){.mdc_count = 1,
                                         .role = FABRIC_ROLE_VBS,
                                         .instance = 77,
                                         .host = "host9",
                                         .name = "t",
                                         .refresh_ns = 50 * NS_PER_MS};
    rpc_listener_addr(m.listener, &bed.config.mdc[0]);
    assert_int_equal(cluster_create(&bed.p.env, &bed.config, NULL, NULL, &bed.c), 0);
    try_call(&bed, &t, "v", 0, true);
    for (unsigned round = 0; round < 20; round++) {
        publish(&m, round * round);
        for (unsigned i = 0; (!same_table(&bed, &m) || t.done == 0) && i < 100000; i++)
            loop_run_once(bed.p.loop, 100 * NS_PER_MS);
        assert_true(same_table(&bed, &m));
    }
    assert_int_equal(t.rc, 0);
    cluster_destroy(bed.c);
    fake_stop(&m);
    fabric_destroy(bed.p.fabric);
    loop_destroy(bed.p.loop);
    memset(&bed, 0, sizeof(bed));
}

static void bad_arguments(void **state)
{
    (void)state;
    proc_start(&bed, &bed.p, "x", 9, FABRIC_ROLE_VBS);
    struct cluster_config config = bed.config;
    struct cluster *c;
    config.mdc_count = 0;
    assert_int_equal(cluster_create(&bed.p.env, &config, NULL, NULL, &c), -EINVAL);
    config.mdc_count = CLUSTER_MDCS_MAX + 1;
    assert_int_equal(cluster_create(&bed.p.env, &config, NULL, NULL, &c), -EINVAL);
    config = bed.config;
    config.host[0] = '-';
    assert_int_equal(cluster_create(&bed.p.env, &config, NULL, NULL, &c), -EINVAL);
}

#define T(f)  cmocka_unit_test_setup_teardown(f, setup, teardown)
#define T2(f) cmocka_unit_test_setup_teardown(f, setup_two, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(first_copy),
        T(an_empty_table),
        T(changes_come_through_the_ring),
        T(volumes_come_and_go),
        T(a_hint_saves_the_period),
        T(asked_for_while_under_way),
        T(a_busy_publisher),
        T(torn_records_are_read_again),
        T(torn_in_many_places),
        T(torn_in_the_middle_of_a_run),
        T(an_old_record_is_not_taken_for_new),
        T(a_ring_that_lies_costs_a_whole_read),
        T(a_lap_while_the_ring_is_read),
        T(headers_that_are_refused),
        T(a_table_too_large_is_refused),
        T(another_term_is_a_whole_read),
        T(a_restart_brings_a_new_key),
        T(an_older_table_is_not_gone_back_to),
        T2(the_second_serves_when_the_first_is_away),
        T2(not_in_charge),
        T2(a_heart_that_stands_still),
        T(the_only_heart_that_stands_still),
        T(calls_and_their_errors),
        T(nobody_to_call),
        T(a_lost_connection),
        T(cancelled_calls),
        T(a_request_that_does_not_fit),
        T(waits),
        T(a_wait_in_the_middle_of_a_refresh),
        T(bad_arguments),
        cmocka_unit_test(over_tcp),
        cmocka_unit_test(at_each_step_the_network_breaks),
        cmocka_unit_test(at_each_step_it_is_destroyed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
