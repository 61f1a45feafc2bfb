/* test_mdc_placement.c: properties of the placement, over many seeded topologies. */
#include "placement_cases.h"
#include "placement_optimum.h"

static struct placement_set a[2 * CASE_PARTITIONS], b[2 * CASE_PARTITIONS], c[2 * CASE_PARTITIONS];

static uint32_t some_partitions(struct rng *r)
{
    return 1u << rng_below(r, 10);
}

/* ---- a new pool ---- */

static void test_new_pools(void **state)
{
    (void)state;
    struct rng r;
    struct topology t;
    for (uint64_t seed = 0; seed < 400; seed++) {
        rng_seed(&r, seed);
        make_topology(&r, &t, 1 + (uint32_t)rng_below(&r, 5), some_partitions(&r), 60);
        t.rule.domain = (uint8_t)rng_below(&r, 3);
        struct placement_result res = assign(&t, NULL, a);
        const struct limits l = limits_of(&t);
        check_rule(&t, a);
        check_balance(&t, a);
        assert_int_equal(res.copies, l.copies);
        assert_int_equal(res.moves, l.copies * t.partitions);
        assert_int_equal(res.unbalanced, 0);
        /* in whatever order they are named */
        shuffle_modules(&r, &t);
        assign(&t, NULL, b);
        assert_memory_equal(a, b, t.partitions * sizeof(a[0]));
    }
}

/* What the result says about the rule is what the members show. */
static void test_degraded_rule(void **state)
{
    (void)state;
    struct topology t = {.rule = {.copies = 3, .domain = PLACEMENT_RACK}, .partitions = 64};
    /* four modules on two hosts in one rack */
    for (uint32_t i = 0; i < 4; i++)
        t.m[t.count++] = (struct placement_module){.id = i + 1, .weight = TIB, .host = i / 2, .rack = 9};
    struct placement_result res = assign(&t, NULL, a);
    assert_true(res.degraded && res.domain == PLACEMENT_MODULE && res.per_host == 2 && res.copies == 3);
    t.m[t.count++] = (struct placement_module){.id = 5, .weight = TIB, .host = 2, .rack = 8};
    res = assign(&t, NULL, a);
    assert_true(res.degraded && res.domain == PLACEMENT_HOST && res.per_host == 1 && res.per_rack == 2);
    check_rule(&t, a);
    t.m[t.count++] = (struct placement_module){.id = 6, .weight = TIB, .host = 3, .rack = 7};
    res = assign(&t, NULL, a);
    assert_true(!res.degraded && res.domain == PLACEMENT_RACK && res.racks == 3 && res.hosts == 4);
    check_rule(&t, a);
    t.rule.domain = PLACEMENT_HOST;
    res = assign(&t, NULL, a);
    assert_true(!res.degraded && res.domain >= PLACEMENT_HOST);
    t.count = 2;
    res = assign(&t, NULL, a);
    assert_true(res.degraded && res.copies == 2 && res.modules == 2);
    check_rule(&t, a);
}

/* 50 uneven modules, 1024 partitions: within 5 % of the share, or one copy where that is less. */
static void test_balance_within_5_percent(void **state)
{
    (void)state;
    struct rng r;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct topology t = {.rule = {.copies = (uint8_t)(1 + seed % 4), .domain = PLACEMENT_RACK},
                             .partitions = 1024};
        rng_seed(&r, 7000 + seed);
        for (uint32_t i = 0; i < 50; i++)
            add_module(&r, &t, i / 3, i / 3 % 7);
        assign(&t, NULL, a);
        double share[CASE_MODULES];
        oracle_shares(&t, share);
        for (uint32_t i = 0; i < t.count; i++) {
            double off = load_of(&t, a, t.m[i].id) - share[i];
            double most = share[i] < 20 ? 1 : share[i] * 0.05;
            assert_true(off <= most && -off <= most);
        }
        check_rule(&t, a);
    }
}

/* The copies of what one module holds lie on many others, so that many help when it is lost. */
static void test_neighbours_are_many(void **state)
{
    (void)state;
    struct topology t = {.rule = {.copies = 3, .domain = PLACEMENT_RACK}, .partitions = 1024};
    for (uint32_t i = 0; i < 50; i++)
        t.m[t.count++] =
            (struct placement_module){.id = i + 1, .weight = TIB, .host = i / 2, .rack = i % 10 / 2};
    assign(&t, NULL, a);
    bool near[64] = {false};
    uint32_t n = 0;
    for (uint32_t p = 0; p < t.partitions; p++) {
        for (unsigned k = 0; placement_set_has(&a[p], 1) && k < 3; k++)
            near[a[p].members[k]] = true;
    }
    for (unsigned i = 2; i <= 50; i++)
        n += near[i];
    assert_true(n >= 30); /* of the 40 in other racks */
}

/* ---- changes ---- */

/* Changes one to three things about the topology. */
static void change(struct rng *r, struct topology *t)
{
    for (uint64_t n = 1 + rng_below(r, 3); n > 0; n--) {
        struct placement_module *m = &t->m[rng_below(r, t->count)];
        switch (rng_below(r, 8)) {
        case 0:
        case 1:
            if (t->count < CASE_MODULES)
                add_module(r, t, m->host, m->rack);
            break;
        case 2: /* a new host, perhaps in a new rack */
            for (uint32_t i = 0, host = 1000 + (uint32_t)rng_below(r, 1000),
                          rack = rng_chance(r, 1, 2) ? m->rack : 60 + (uint32_t)rng_below(r, 10);
                 i < 3 && t->count < CASE_MODULES; i++)
                add_module(r, t, host, rack);
            break;
        case 3:
            if (t->count > 1)
                *m = t->m[--t->count];
            break;
        case 4:
            m->state = PLACEMENT_DRAINING;
            break;
        case 5:
            m->state = rng_chance(r, 1, 2) ? PLACEMENT_AWAY : PLACEMENT_UP;
            break;
        case 6:
            m->weight = rng_below(r, 16) * TIB;
            break;
        case 7:
            t->rule.copies = (uint8_t)(1 + rng_below(r, 4));
            break;
        }
    }
    bool any = false;
    for (uint32_t i = 0; i < t->count; i++)
        any |= can_take(&t->m[i]);
    if (!any)
        t->m[0] = (struct placement_module){.id = t->m[0].id, .weight = TIB, .host = t->m[0].host, .rack = 1};
}

/* Least copies that must move, by counting alone: what each module lacks, and what each partition lacks once
 * those that cannot stay are gone. */
static uint32_t least_by_counting(const struct topology *t, const struct placement_set *old)
{
    double share[CASE_MODULES];
    oracle_shares(t, share);
    uint32_t lacking = 0, copies = 0, above = 0, holes = 0;
    const struct limits l = limits_of(t);
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t have = can_take(&t->m[i]) ? load_of(t, old, t->m[i].id) : 0;
        lacking += have < floor_of(share[i]) ? floor_of(share[i]) - have : 0;
        above += have > ceil_of(share[i]) ? have - ceil_of(share[i]) : 0;
        copies += have;
    }
    holes = l.copies * t->partitions > copies ? l.copies * t->partitions - copies : 0;
    return (uint32_t)max_u64(lacking, holes + (holes != 0 ? above : 0));
}

/* All properties after changes, movement against a lower bound. */
static void test_changes(void **state)
{
    (void)state;
    struct rng r;
    struct topology t;
    uint64_t sum_moved = 0, sum_least = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        rng_seed(&r, 20000 + seed);
        make_topology(&r, &t, 1 + (uint32_t)rng_below(&r, 4), some_partitions(&r), 50);
        assign(&t, NULL, a);
        for (int step = 0; step < 4; step++) {
            change(&r, &t);
            struct placement_result res = assign(&t, a, b);
            check_rule(&t, b);
            check_balance(&t, b);
            assert_int_equal(res.unbalanced, 0);
            assert_int_equal(res.moves, moved(&t, a, b));
            sum_least += least_by_counting(&t, a);
            sum_moved += res.moves;
            assert_true(res.moves >= least_by_counting(&t, a));
            /* once there it stays */
            res = assign(&t, b, c);
            assert_int_equal(res.moves, 0);
            assert_memory_equal(b, c, t.partitions * sizeof(b[0]));
            memcpy(a, b, sizeof(a));
        }
    }
    assert_true(sum_moved * 100 <= sum_least * 110);
}

/* Small cases against a general minimum-cost flow: not one copy more. */
static void test_least_movement(void **state)
{
    (void)state;
    struct rng r;
    struct topology t;
    uint32_t sum = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        rng_seed(&r, 30000 + seed);
        make_topology(&r, &t, 1 + (uint32_t)rng_below(&r, 4), 1u << (2 + rng_below(&r, 4)), 12);
        t.rule.domain = (uint8_t)(rng_chance(&r, 3, 4) ? PLACEMENT_RACK : rng_below(&r, 3));
        assign(&t, NULL, a);
        for (int step = 0; step < 3 && t.count < OPT_MODULES - 9; step++) {
            change(&r, &t);
            struct placement_result res = assign(&t, a, b);
            check_rule(&t, b);
            assert_int_equal(res.moves, least_by_flow(&t, a));
            sum += res.moves;
            memcpy(a, b, sizeof(a));
        }
    }
    assert_true(sum > 1000);
}

/* What has nothing to do with it moves nothing. */
static void test_irrelevant_changes(void **state)
{
    (void)state;
    struct rng r;
    struct topology t;
    for (uint64_t seed = 0; seed < 200; seed++) {
        rng_seed(&r, 50000 + seed);
        make_topology(&r, &t, 1 + (uint32_t)rng_below(&r, 4), some_partitions(&r), 50);
        assign(&t, NULL, a);
        add_module(&r, &t, 7777, 7777);
        t.m[t.count - 1].weight = 0;
        add_module(&r, &t, 8888, 8888);
        t.m[t.count - 1].state = rng_chance(&r, 1, 2) ? PLACEMENT_AWAY : PLACEMENT_DRAINING;
        shuffle_modules(&r, &t);
        for (uint32_t i = 0; i < t.count; i++) {
            t.m[i].weight *= 3;
            t.m[i].host ^= 0xabcd;
            t.m[i].rack = 1000 - t.m[i].rack;
        }
        if (t.m[0].weight != 0)
            t.m[0].weight++;
        struct placement_result res = assign(&t, a, b);
        assert_int_equal(res.moves, 0);
        assert_memory_equal(a, b, t.partitions * sizeof(a[0]));
    }
}

/* Flags: who is in sync stays so, nobody else becomes so, the mark of those that leave is not handed on; and
 * in place. */
static void test_flags(void **state)
{
    (void)state;
    struct topology t = {.rule = {.copies = 2, .domain = PLACEMENT_RACK}, .partitions = 2};
    for (uint32_t i = 0; i < 3; i++)
        t.m[t.count++] = (struct placement_module){.id = i + 1, .weight = TIB, .host = i, .rack = i};
    struct placement_set s[2] = {
        {{3 | TABLE_MEMBER_IN_SYNC, 1, 2 | TABLE_MEMBER_IN_SYNC | TABLE_MEMBER_LEAVING}},
        {{9 | TABLE_MEMBER_IN_SYNC, 2 | TABLE_MEMBER_IN_SYNC}}};
    struct placement_result res = assign(&t, s, s);
    assert_int_equal(res.moves, 1);
    assert_int_equal(s[0].members[0], 3 | TABLE_MEMBER_IN_SYNC);
    assert_int_equal(s[0].members[1], 1);
    assert_int_equal(s[0].members[2], 0);
    assert_int_equal(s[1].members[0], 2 | TABLE_MEMBER_IN_SYNC);
    assert_true(s[1].members[1] == 1 || s[1].members[1] == 3);
    /* one copy too many: the one that is in sync stays */
    const struct placement_set two = {{3, 2 | TABLE_MEMBER_IN_SYNC}};
    t.rule.copies = 1;
    t.partitions = 1;
    assert_int_equal(assign(&t, &two, s).moves, 0);
    assert_int_equal(s[0].members[0], 2 | TABLE_MEMBER_IN_SYNC);
    assert_int_equal(s[0].members[1], 0);
}

static void test_refusals_and_extremes(void **state)
{
    (void)state;
    struct placement_module m[3] = {{.id = 1, .weight = 0}, {.id = 2, .weight = 0}, {.id = 1, .weight = 5}};
    struct placement_rule one = {.copies = 1, .domain = PLACEMENT_RACK}, none = {0}, many = {.copies = 8},
                          odd = {.copies = 1, .domain = 3};
    struct placement_result res;
    assert_int_equal(placement_assign(&one, m, 2, 64, NULL, a, &res), -EINVAL); /* no weight */
    assert_int_equal(placement_assign(&one, m, 0, 64, NULL, a, &res), -EINVAL);
    assert_int_equal(placement_assign(&one, m, 3, 64, NULL, a, &res), -EINVAL); /* twice */
    m[0].weight = 7;
    assert_int_equal(placement_assign(&none, m, 2, 64, NULL, a, &res), -EINVAL);
    assert_int_equal(placement_assign(&many, m, 2, 64, NULL, a, &res), -EINVAL);
    assert_int_equal(placement_assign(&odd, m, 2, 64, NULL, a, &res), -EINVAL);
    assert_int_equal(placement_assign(&one, m, 2, 0, NULL, a, &res), -EINVAL);
    assert_int_equal(placement_assign(&one, m, 2, PLACEMENT_PARTITIONS_MAX + 1, NULL, a, &res), -EINVAL);
    m[1].id = 1u << 24;
    assert_int_equal(placement_assign(&one, m, 2, 64, NULL, a, &res), -EINVAL);
    m[1] = (struct placement_module){.id = 2, .weight = 1, .state = 3};
    assert_int_equal(placement_assign(&one, m, 2, 64, NULL, a, &res), -EINVAL);
    const struct placement_set twice = {{5, 1, 5}};
    assert_int_equal(placement_assign(&one, m, 1, 1, &twice, a, &res), -EINVAL);
    /* weights as far apart as can be */
    struct topology t = {.rule = one, .partitions = 64, .count = 3};
    t.m[0] = (struct placement_module){.id = 1, .weight = UINT64_MAX, .host = 1, .rack = 1};
    t.m[1] = (struct placement_module){.id = 2, .weight = UINT64_MAX, .host = 2, .rack = 1};
    t.m[2] = (struct placement_module){.id = 3, .weight = 1, .host = 3, .rack = 1};
    assign(&t, NULL, a);
    assert_int_equal(load_of(&t, a, 1), 32);
    assert_int_equal(load_of(&t, a, 2), 32);
    t.rule.copies = 3; /* with three modules for three copies weight is no matter */
    assign(&t, a, b);
    assert_int_equal(load_of(&t, b, 3), 64);
}

/* A host whose modules name two racks is in one. */
static void test_host_in_two_racks(void **state)
{
    (void)state;
    struct topology t = {.rule = {.copies = 2, .domain = PLACEMENT_RACK}, .partitions = 32, .count = 3};
    t.m[0] = (struct placement_module){.id = 1, .weight = TIB, .host = 1, .rack = 1};
    t.m[1] = (struct placement_module){.id = 2, .weight = TIB, .host = 1, .rack = 2};
    t.m[2] = (struct placement_module){.id = 3, .weight = TIB, .host = 2, .rack = 2};
    assign(&t, NULL, a);
    assert_int_equal(load_of(&t, a, 3), 32); /* never both on host 1 */
}

/* The shares told are those given. */
static void test_shares_told(void **state)
{
    (void)state;
    struct rng r;
    struct topology t;
    for (uint64_t seed = 0; seed < 100; seed++) {
        uint64_t milli[CASE_MODULES];
        double share[CASE_MODULES];
        struct placement_result res;
        rng_seed(&r, 60000 + seed);
        make_topology(&r, &t, 1 + (uint32_t)rng_below(&r, 4), some_partitions(&r), 50);
        t.m[0].state = t.count > 1 ? PLACEMENT_DRAINING : PLACEMENT_UP;
        assert_int_equal(placement_shares(&t.rule, t.m, t.count, t.partitions, milli, &res), 0);
        oracle_shares(&t, share);
        for (uint32_t i = 0; i < t.count; i++)
            assert_true((double)milli[i] - share[i] * 1000 < 2 && share[i] * 1000 - (double)milli[i] < 2);
    }
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
        cmocka_unit_test(test_new_pools),
        cmocka_unit_test(test_degraded_rule),
        cmocka_unit_test(test_balance_within_5_percent),
        cmocka_unit_test(test_neighbours_are_many),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_least_movement),
        cmocka_unit_test(test_irrelevant_changes),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_refusals_and_extremes),
        cmocka_unit_test(test_host_in_two_racks),
        cmocka_unit_test(test_shares_told),
        cmocka_unit_test(test_default_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
