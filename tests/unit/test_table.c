/* table.h: layout, checks, lookups, publishing, and the placement hash, which is disk format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/crc.h"
#include "common/rng.h"
#include "common/table/table.h"

static const struct table_limits limits = {.pools = 4, .modules = 10, .partitions = 96, .volumes = 21};
static const struct uuid cluster = {{0xc1, 0x05}};

static void make(struct table *t)
{
    *t = (struct table){.bytes = table_region_bytes(&limits)};
    t->region = aligned_alloc(64, round_up(t->bytes, 64));
    assert_non_null(t->region);
    memset(t->region, 0xee, t->bytes);
    table_format(t->region, &limits, &cluster, 7, 99);
}

static void unmake(struct table *t)
{
    table_index_free(t);
    free(t->region);
}

static struct uuid id_of(unsigned n)
{
    return (struct uuid){{(uint8_t)n, (uint8_t)(n >> 8), 0x77, 1}};
}

static uint64_t put_volume(struct table *t, uint32_t index, const struct uuid *id, uint32_t pool)
{
    struct table_volume v = {.id = *id,
                             .family = 40 + index,
                             .layer = 40 + index,
                             .generation = 1,
                             .size_bytes = GIB,
                             .pool = pool,
                             .state = TABLE_VOLUME_READY};
    return table_publish(t, TABLE_VOLUME, index, &v);
}

/* Pool 2 with 64 partitions at record 32, of modules 1 to 9 in turn; the first member is not in sync. */
static void fill(struct table *t)
{
    struct table_pool pool = {.id = 2,
                              .partitions = 64,
                              .first_partition = 32,
                              .stripe_bytes = MIB,
                              .block_bytes = BLOCK_BYTES,
                              .copies = 1,
                              .name = "fast"};
    table_publish(t, TABLE_POOL, 1, &pool);
    for (uint32_t i = 0; i < 9; i++) {
        struct table_module m = {.id = i + 1,
                                 .pool = 2,
                                 .incarnation = 1000 + i,
                                 .state = TABLE_MODULE_UP,
                                 .kind = TABLE_MODULE_OSD};
        table_publish(t, TABLE_MODULE, i, &m);
    }
    for (uint32_t i = 0; i < 64; i++) {
        struct table_partition p = {
            .pool = 2,
            .index = i,
            .epoch = 5 + i,
            .members = {9 - i % 9, (i % 9 + 1) | TABLE_MEMBER_IN_SYNC, 3 | TABLE_MEMBER_IN_SYNC}};
        table_publish(t, TABLE_PARTITION, 32 + i, &p);
    }
}

static void layout(void **state)
{
    (void)state;
    struct table t;
    make(&t);
    const struct table_header *h = table_head(&t);
    assert_int_equal(table_header_check(h, t.bytes), 0);
    assert_int_equal(h->region_bytes, t.bytes);
    assert_true(h->term == 7 && h->version == 1 && h->start == 99 && uuid_eq(&h->cluster, &cluster));
    /* fixed: 256 header, then 64-aligned sections in the order of enum table_kind, then the ring */
    assert_int_equal(h->section[TABLE_POOL].offset, 256);
    assert_int_equal(h->section[TABLE_MODULE].offset, 256 + 4 * 128);
    assert_int_equal(h->section[TABLE_PARTITION].offset, 256 + 14 * 128);
    assert_int_equal(h->section[TABLE_VOLUME].offset, 256 + 14 * 128 + 96 * 64);
    assert_int_equal(h->ring.offset, 256 + 14 * 128 + 96 * 64 + 21 * 128);
    assert_int_equal(t.bytes, h->ring.offset + 1024 * 16);
    for (enum table_kind k = 0; k < TABLE_KINDS; k++) {
        assert_int_equal(h->section[k].used, 0);
        for (uint32_t i = 0; i < h->section[k].capacity; i++)
            assert_true(table_record_check(k, table_record(&t, k, i)));
        assert_null(table_record(&t, k, h->section[k].capacity));
        assert_null(table_record(&t, k, UINT32_MAX));
    }
    assert_int_equal(offsetof(struct table_header, crc), 252);
    assert_int_equal(offsetof(struct table_pool, crc), 124);
    assert_int_equal(offsetof(struct table_module, crc), 124);
    assert_int_equal(offsetof(struct table_partition, crc), 60);
    assert_int_equal(offsetof(struct table_volume, crc), 124);
    unmake(&t);
}

static void reseal(struct table_header *h)
{
    h->crc = crc32c(h, offsetof(struct table_header, crc));
}

static void header_checks(void **state)
{
    (void)state;
    struct table t;
    make(&t);
    const struct table_header good = *table_head(&t);
    struct table_header h;
    for (size_t i = 20; i < sizeof(h); i++) { /* any byte torn, but for the constants: read again */
        h = good;
        ((uint8_t *)&h)[i] ^= 0x10;
        assert_int_equal(table_header_check(&h, t.bytes), -EAGAIN);
    }
#define WRONG(change)                                                                                        \
    do {                                                                                                     \
        h = good;                                                                                            \
        change;                                                                                              \
        reseal(&h);                                                                                          \
        assert_int_equal(table_header_check(&h, t.bytes), -EPROTO);                                          \
    } while (0)
    WRONG(h.magic++);
    WRONG(h.format++);
    WRONG(h.header_bytes = 255);
    WRONG(h.version = 0);
    WRONG(h.region_bytes++);
    WRONG(h.region_bytes = 0);
    WRONG(h.region_bytes = h.ring.offset);
    WRONG(h.ring.capacity--);
    WRONG(h.ring.used = h.ring.capacity + 1);
    WRONG(h.ring.offset = 256);
    for (unsigned k = 0; k < TABLE_KINDS; k++) {
        WRONG(h.section[k].used = h.section[k].capacity + 1);
        WRONG(h.section[k].capacity = UINT32_MAX);
        WRONG(h.section[k].capacity += 400);
        WRONG(h.section[k].offset += 8);
        WRONG(h.section[k].offset = 0);
        WRONG(h.section[k].offset = UINT64_MAX - 63);
        WRONG(h.section[k].offset = h.region_bytes);
    }
    assert_int_equal(table_header_check(&good, t.bytes), 0);
    assert_int_equal(table_header_check(&good, t.bytes - 1), -EPROTO);
    memset(&h, 0, sizeof(h));
    assert_int_equal(table_header_check(&h, t.bytes), -EPROTO);
    unmake(&t);
}

static void record_checks(void **state)
{
    (void)state;
    struct table t;
    make(&t);
    fill(&t);
    const struct uuid id = id_of(1);
    put_volume(&t, 3, &id, 2);
    const uint32_t used[TABLE_KINDS] = {1, 4, 40, 3};
    for (enum table_kind k = 0; k < TABLE_KINDS; k++) {
        uint8_t copy[128];
        const size_t n = table_record_bytes(k);
        memcpy(copy, table_record(&t, k, used[k]), n);
        assert_true(table_record_check(k, copy));
        for (size_t bit = 0; bit < n * 8; bit++) {
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_false(table_record_check(k, copy));
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_true(table_record_version(k, copy) > 1);
        /* half new, half never written */
        memset(copy + n / 2, 0, n / 2);
        assert_false(table_record_check(k, copy));
        memset(copy, 0, n);
        assert_true(table_record_check(k, copy));
        assert_int_equal(table_record_version(k, copy), 0);
    }
    unmake(&t);
}

static void publishing(void **state)
{
    (void)state;
    struct table t;
    make(&t);
    struct table_partition p = {.pool = 1, .index = 0, .epoch = 3};
    for (uint64_t v = 2; v < 2500; v++) {
        p.epoch = v;
        const uint32_t index = (uint32_t)(v * 7 % 96);
        assert_int_equal(table_publish(&t, TABLE_PARTITION, index, &p), v);
        assert_int_equal(p.record_version, v);
        const struct table_header *h = table_head(&t);
        assert_int_equal(table_header_check(h, t.bytes), 0);
        assert_int_equal(h->version, v);
        assert_true(h->section[TABLE_PARTITION].used > index);
        const struct table_change *c = (const void *)((const uint8_t *)t.region + h->ring.offset);
        c += v % TABLE_RING_ENTRIES;
        assert_true(c->version == v && c->kind == TABLE_PARTITION && c->index == index && c->reserved == 0);
        assert_memory_equal(table_record(&t, TABLE_PARTITION, index), &p, sizeof(p));
        assert_true(table_record_check(TABLE_PARTITION, &p));
    }
    table_heartbeat(&t);
    table_heartbeat(&t);
    assert_int_equal(table_head(&t)->heartbeat, 2);
    assert_int_equal(table_head(&t)->version, 2499);
    assert_int_equal(table_header_check(table_head(&t), t.bytes), 0);
    unmake(&t);
}

static void lookups(void **state)
{
    (void)state;
    struct table t;
    make(&t);
    fill(&t);
    const struct table_pool *pool = table_pool_by_id(&t, 2);
    assert_string_equal(pool->name, "fast");
    assert_null(table_pool_by_id(&t, 0));
    assert_null(table_pool_by_id(&t, 1));
    assert_null(table_pool_by_id(&t, 5));
    assert_null(table_pool_by_id(&t, UINT32_MAX));
    assert_int_equal(table_module_by_id(&t, 9)->incarnation, 1008);
    assert_null(table_module_by_id(&t, 0));
    assert_null(table_module_by_id(&t, 10));
    assert_null(table_module_by_id(&t, 11));
    assert_int_equal(table_partition_at(&t, pool, 63)->epoch, 68);
    assert_null(table_partition_at(&t, pool, 64));
    struct table_pool beyond = *pool;
    beyond.first_partition =
        33; /* then records are another partition's, and the last one is out of the section */
    assert_null(table_partition_at(&t, &beyond, 0));
    assert_null(table_partition_at(&t, &beyond, 63));
    beyond.first_partition = UINT32_MAX;
    assert_null(table_partition_at(&t, &beyond, 1));
    assert_int_equal(table_partition_primary(table_partition_at(&t, pool, 0)), 1);
    struct table_partition none = {.members = {1, 2, 3, 4, 5, 6, 7, 8}};
    assert_int_equal(table_partition_primary(&none), 0);
    none.members[7] |= TABLE_MEMBER_IN_SYNC;
    assert_int_equal(table_partition_primary(&none), 8);
    unmake(&t);
}

static void routes(void **state)
{
    (void)state;
    struct table t;
    make(&t);
    fill(&t);
    const struct uuid id = id_of(1);
    put_volume(&t, 0, &id, 2);
    const struct table_volume *v = table_volume_by_id(&t, &id);
    const struct table_partition *p;
    unsigned hit[64] = {0};
    for (uint64_t stripe = 0; stripe < 1000; stripe++) {
        const uint32_t index = (uint32_t)(placement_hash(40, stripe) & 63);
        const struct table_module *m = table_route(&t, v, stripe * MIB + 4096, &p);
        assert_int_equal(p->index, index);
        assert_int_equal(p->epoch, 5 + index);
        assert_int_equal(m->id, index % 9 + 1);
        assert_ptr_equal(table_route(&t, v, stripe * MIB + MIB - 1, NULL), m);
        hit[index]++;
    }
    for (unsigned i = 0; i < 64; i++)
        assert_true(hit[i] > 0);

    /* what can be missing */
    struct table_volume lost = *v;
    lost.pool = 1;
    p = (void *)1;
    assert_null(table_route(&t, &lost, 0, &p));
    assert_null(p);
    const uint32_t index = (uint32_t)(placement_hash(40, 0) & 63);
    struct table_partition none = *table_partition_at(&t, table_pool_by_id(&t, 2), index);
    memset(none.members, 0, sizeof(none.members));
    table_publish(&t, TABLE_PARTITION, 32 + index, &none);
    assert_null(table_route(&t, v, 0, &p));
    assert_int_equal(p->index, index);
    none.members[0] = 10 | TABLE_MEMBER_IN_SYNC; /* a module that is not there */
    table_publish(&t, TABLE_PARTITION, 32 + index, &none);
    assert_null(table_route(&t, v, 0, &p));
    struct table_pool odd = *table_pool_by_id(&t, 2);
    odd.partitions = 63;
    table_publish(&t, TABLE_POOL, 1, &odd);
    assert_null(table_route(&t, v, 0, &p));
    odd.partitions = 64;
    odd.stripe_bytes = 0;
    table_publish(&t, TABLE_POOL, 1, &odd);
    assert_null(table_route(&t, v, 0, &p));
    unmake(&t);
}

/* The index and a search through all records always agree, whatever is published in between. */
static void volume_index(void **state)
{
    (void)state;
    struct table t;
    struct rng rng;
    unsigned at[21] = {0}; /* id number in each record, 0 = free */
    rng_seed(&rng, 3);
    make(&t);
    assert_int_equal(table_index(&t), 0);
    for (unsigned round = 1; round < 3000; round++) {
        const uint32_t index = (uint32_t)rng_below(&rng, 21);
        at[index] = rng_chance(&rng, 1, 3) ? 0 : round;
        const struct uuid id = at[index] != 0 ? id_of(round) : (struct uuid){{0}};
        put_volume(&t, index, &id, 2);
        struct table bare = {.region = t.region, .bytes = t.bytes};
        for (uint32_t i = 0; i < 21; i++) {
            const struct uuid want = id_of(at[i]);
            if (at[i] == 0)
                continue;
            assert_ptr_equal(table_volume_by_id(&t, &want), table_record(&t, TABLE_VOLUME, i));
            assert_ptr_equal(table_volume_by_id(&bare, &want), table_record(&t, TABLE_VOLUME, i));
        }
        const struct uuid zero = {{0}}, unknown = id_of(65000);
        assert_null(table_volume_by_id(&t, &zero));
        assert_null(table_volume_by_id(&bare, &zero));
        assert_null(table_volume_by_id(&t, &unknown));
        assert_null(table_volume_by_id(&bare, &unknown));
    }
    const uint32_t *before = t.volume_index;
    assert_int_equal(table_index(&t), 0);
    assert_ptr_equal(t.volume_index, before);
    unmake(&t);
}

static void placement_vectors(void **state)
{
    (void)state;
    static const struct {
        uint64_t family, stripe, hash;
    } vectors[] = {
        {0x0ull, 0x0ull, 0xa706dd2f4d197e6full},
        {0x1ull, 0x0ull, 0x5e41ab087439611eull},
        {0x0ull, 0x1ull, 0xb382a305f4414f5eull},
        {0x1ull, 0x1ull, 0xf18d6ce93d6cf1eeull},
        {0x2ull, 0x3ull, 0x8ea264d0125c8328ull},
        {0x2aull, 0xf4240ull, 0x8505da9e8a915c81ull},
        {0x8000000000000000ull, 0xffffffffffffffffull, 0x9e6265a28e5c1035ull},
        {0xffffffffffffffffull, 0xffffffffffffffffull, 0x445018e305810b78ull},
        {0x123456789abcdefull, 0xfedcba987654321ull, 0x3c32cb1ef561345full},
    };
    for (size_t i = 0; i < ARRAY_LEN(vectors); i++)
        assert_true(placement_hash(vectors[i].family, vectors[i].stripe) == vectors[i].hash);
    assert_int_equal(placement_partition(0xfffffffffffffff3ull, 1), 0);
    assert_int_equal(placement_partition(0xfffffffffffffff3ull, 16), 3);
    assert_int_equal(placement_partition(0xfffffffffffffff3ull, 1u << 31), 0x7ffffff3);
}

/* Each input bit changes each output bit about half of the time. */
static void placement_mixes(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 9);
    enum { SAMPLES = 2000 };
    for (unsigned in = 0; in < 128; in++) {
        unsigned flips[64] = {0};
        for (unsigned s = 0; s < SAMPLES; s++) {
            const uint64_t family = rng_below(&rng, 1000), stripe = rng_below(&rng, 100000);
            const uint64_t change =
                placement_hash(family, stripe) ^ placement_hash(family ^ (in < 64 ? 1ull << in : 0),
                                                                stripe ^ (in < 64 ? 0 : 1ull << (in - 64)));
            for (unsigned out = 0; out < 64; out++)
                flips[out] += (unsigned)(change >> out & 1);
        }
        for (unsigned out = 0; out < 64; out++)
            assert_in_range(flips[out], SAMPLES * 2 / 5, SAMPLES * 3 / 5);
    }
}

/* Small families that follow one another, as they do, fill the partitions evenly: chi square over 256
 * partitions stays within what chance gives (mean 255, standard deviation 22.6). */
static void placement_is_even(void **state)
{
    (void)state;
    enum { PARTS = 256, FAMILIES = 512, STRIPES = 64 };
    static unsigned hit[PARTS];
    for (uint64_t f = 1; f <= FAMILIES; f++)
        for (uint64_t s = 0; s < STRIPES; s++)
            hit[placement_partition(placement_hash(f, s), PARTS)]++;
    const double mean = (double)FAMILIES * STRIPES / PARTS;
    double chi = 0;
    for (unsigned i = 0; i < PARTS; i++)
        chi += (hit[i] - mean) * (hit[i] - mean) / mean;
    assert_true(chi > 170 && chi < 340);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout),          cmocka_unit_test(header_checks),
        cmocka_unit_test(record_checks),   cmocka_unit_test(publishing),
        cmocka_unit_test(lookups),         cmocka_unit_test(routes),
        cmocka_unit_test(volume_index),    cmocka_unit_test(placement_vectors),
        cmocka_unit_test(placement_mixes), cmocka_unit_test(placement_is_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
