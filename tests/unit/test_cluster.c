/* cluster.h: the copy of the tables, from a fake controller on the simulated network. */
#include "tests/unit/cluster_fixture.h"

#include "services/cluster/cluster_private.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
