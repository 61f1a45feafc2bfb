/* test_mdc_placement.c: properties of the placement, over many seeded pools. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/rng.h"
#include "services/mdc/placement.h"

#define MEMBERS    40
#define PARTITIONS 512

static void shuffle(struct rng *r, struct placement_member *m, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t k = (uint32_t)rng_below(r, i);
        struct placement_member t = m[i - 1];
        m[i - 1] = m[k];
        m[k] = t;
    }
}

static uint32_t make_members(struct rng *r, struct placement_member *m)
{
    uint32_t n = 1 + (uint32_t)rng_below(r, MEMBERS);
    for (uint32_t i = 0; i < n; i++)
        m[i] = (struct placement_member){.id = 1 + i * 3 + (uint32_t)rng_below(r, 3),
                                         .weight = rng_below(r, 100) * GIB};
    m[0].weight = GIB;
    shuffle(r, m, n);
    return n;
}

static uint32_t count_of(const uint32_t *out, uint32_t partitions, uint32_t id)
{
    uint32_t n = 0;
    for (uint32_t p = 0; p < partitions; p++)
        n += out[p] == id;
    return n;
}

/* Each member has the floor or the ceiling of its exact share; nobody else has anything. */
static void check_shares(const struct placement_member *m, uint32_t n, uint32_t partitions,
                         const uint32_t *out)
{
    uint64_t sum = 0;
    uint32_t given = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += m[i].weight;
    for (uint32_t i = 0; i < n; i++) {
        unsigned __int128 exact = (unsigned __int128)m[i].weight * partitions;
        uint32_t low = (uint32_t)(exact / sum), have = count_of(out, partitions, m[i].id);
        assert_true(have == low || (have == low + 1 && exact % sum != 0));
        given += have;
    }
    assert_int_equal(given, partitions);
}

static void test_shares_and_order(void **state)
{
    (void)state;
    struct rng r;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct placement_member m[MEMBERS];
        uint32_t a[PARTITIONS], b[PARTITIONS];
        rng_seed(&r, seed);
        uint32_t n = make_members(&r, m), partitions = 1u << rng_below(&r, 10);
        assert_int_equal(placement_assign(m, n, partitions, NULL, a), 0);
        check_shares(m, n, partitions, a);
        shuffle(&r, m, n);
        assert_int_equal(placement_assign(m, n, partitions, NULL, b), 0);
        assert_memory_equal(a, b, partitions * sizeof(a[0]));
    }
}

/* Members come, go and change: only what must move moves. */
static void test_minimal_movement(void **state)
{
    (void)state;
    struct rng r;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct placement_member m[MEMBERS];
        uint32_t a[PARTITIONS], b[PARTITIONS], needed = 0, moved = 0;
        rng_seed(&r, 1000 + seed);
        uint32_t n = make_members(&r, m);
        assert_int_equal(placement_assign(m, n, PARTITIONS, NULL, a), 0);
        /* the same members: nothing moves */
        assert_int_equal(placement_assign(m, n, PARTITIONS, a, b), 0);
        assert_memory_equal(a, b, sizeof(a));
        if (rng_chance(&r, 1, 2) && n > 1)
            n--;
        for (uint32_t i = 0; i < n; i++) {
            if (rng_chance(&r, 1, 4))
                m[i].weight = rng_below(&r, 100) * GIB;
        }
        m[0].weight = 3 * GIB;
        assert_int_equal(placement_assign(m, n, PARTITIONS, a, b), 0);
        check_shares(m, n, PARTITIONS, b);
        uint32_t stays = 0;
        for (uint32_t i = 0; i < n; i++)
            stays += (uint32_t)min_u64(count_of(a, PARTITIONS, m[i].id), count_of(b, PARTITIONS, m[i].id));
        needed = PARTITIONS - stays;
        for (uint32_t p = 0; p < PARTITIONS; p++)
            moved += a[p] != b[p];
        assert_int_equal(moved, needed);
    }
}

/* Among equal remainders those who hold more keep it, so that a tie moves nothing. */
static void test_ties_stay(void **state)
{
    (void)state;
    struct placement_member m[3] = {{1, GIB}, {2, GIB}, {3, GIB}};
    uint32_t a[4] = {3, 3, 2, 1}, b[4];
    assert_int_equal(placement_assign(m, 3, 4, a, b), 0);
    assert_memory_equal(a, b, sizeof(a));
}

static void test_refusals_and_extremes(void **state)
{
    (void)state;
    struct placement_member m[3] = {{1, 0}, {2, 0}, {1, 5}};
    uint32_t out[64];
    assert_int_equal(placement_assign(m, 2, 64, NULL, out), -EINVAL);
    assert_int_equal(placement_assign(m, 0, 64, NULL, out), -EINVAL);
    assert_int_equal(placement_assign(m, 3, 64, NULL, out), -EINVAL);
    struct placement_member huge[3] = {{1, UINT64_MAX}, {2, UINT64_MAX}, {3, 1}};
    assert_int_equal(placement_assign(huge, 3, 64, NULL, out), 0);
    assert_int_equal(count_of(out, 64, 1), 32);
    assert_int_equal(count_of(out, 64, 2), 32);
}

static void test_default_number(void **state)
{
    (void)state;
    assert_int_equal(placement_partitions_default(1), 64);
    assert_int_equal(placement_partitions_default(2), 64);
    assert_int_equal(placement_partitions_default(3), 128);
    assert_int_equal(placement_partitions_default(128), 4096);
    assert_int_equal(placement_partitions_default(1000), 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares_and_order), cmocka_unit_test(test_minimal_movement),
        cmocka_unit_test(test_ties_stay),        cmocka_unit_test(test_refusals_and_extremes),
        cmocka_unit_test(test_default_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
