/* test_mdc_placement_explain.c: what is said about the members of a partition is what is so. */
#include "placement_cases.h"
#include "services/mdc/placement_explain.h"

#define assert_tells(text, words)                                                                            \
    do {                                                                                                     \
        if (strstr(text, words) == NULL)                                                                     \
            fail_msg("\"%s\" does not say \"%s\"", text, words);                                             \
    } while (0)

static const struct placement_label labels[6] = {
    {"a1", "r1"}, {"a2", "r1"}, {"b1", "r2"}, {"b1", "r2"}, {"c1", ""}, {"c2", ""},
};
static struct placement_set sets[16];
static struct placement_story story;

/* Racks r1 (hosts a1, a2), r2 (host b1, two modules), one without a name (hosts c1, c2). */
static void make_modules(struct placement_module m[6])
{
    for (uint32_t i = 0; i < 6; i++)
        m[i] = (struct placement_module){.id = i + 1, .weight = TIB, .host = i == 3 ? 2 : i, .rack = i / 2};
}

static void explain(const struct placement_rule *rule, const struct placement_module *m, uint32_t count,
                    uint32_t p)
{
    assert_int_equal(placement_explain(rule, m, labels, count, 16, sets, p, &story), 0);
}

static void test_roles_and_neighbours(void **state)
{
    (void)state;
    const struct placement_rule rule = {.copies = 3, .domain = PLACEMENT_RACK};
    struct placement_module m[6];
    make_modules(m);
    memset(sets, 0, sizeof(sets));
    sets[0] = (struct placement_set){
        {1 | TABLE_MEMBER_IN_SYNC | TABLE_MEMBER_LEAVING, 3 | TABLE_MEMBER_IN_SYNC, 4, 2}};
    sets[1] = (struct placement_set){{1, 9}};
    explain(&rule, m, 6, 0);
    assert_string_equal(story.rule, "3 copies, no two in one rack");
    assert_int_equal(story.count, 4);
    assert_tells(story.member[0].why, "primary, leaves when the others are in sync; ");
    assert_tells(story.member[0].why, "rack r1 also has the copy of module 2");
    assert_tells(story.member[0].why, "module 1 holds 2 of 48 copies, its share by weight is 8.0");
    assert_tells(story.member[1].why, "in sync; host b1 also has the copy of module 4");
    assert_tells(story.member[2].why, "not in sync yet");
    assert_tells(story.member[3].why, "alone in rack r1"); /* the other one leaves */
    explain(&rule, m, 6, 1);
    assert_tells(story.member[1].why, "module 9 is not known");
}

static void test_states(void **state)
{
    (void)state;
    const struct placement_rule rule = {.copies = 2, .domain = PLACEMENT_RACK};
    struct placement_module m[6];
    make_modules(m);
    m[0].state = PLACEMENT_DRAINING;
    m[2].state = PLACEMENT_AWAY;
    memset(sets, 0, sizeof(sets));
    sets[3] = (struct placement_set){{1 | TABLE_MEMBER_IN_SYNC, 3, 5 | TABLE_MEMBER_IN_SYNC}};
    explain(&rule, m, 6, 3);
    assert_tells(story.member[0].why, "module 1 is to be emptied and still holds 1 copy");
    assert_tells(story.member[1].why, "module 3 is away: its 1 copy is to be made elsewhere");
    assert_tells(story.member[2].why, "alone in rack (no name)");
}

static void test_degraded_rule(void **state)
{
    (void)state;
    struct placement_rule rule = {.copies = 3, .domain = PLACEMENT_RACK};
    struct placement_module m[6];
    make_modules(m);
    memset(sets, 0, sizeof(sets));
    explain(&rule, m, 4, 0);
    assert_string_equal(
        story.rule,
        "3 copies, no two on one host; no two in one rack was asked for, but there are 2 racks and 3 hosts");
    explain(&rule, m, 2, 0);
    assert_tells(story.rule,
                 "2 copies, no two on one host; 3 were asked for, but only 2 modules can take any");
    rule.copies = 1;
    explain(&rule, m, 1, 0);
    assert_tells(story.rule, "1 copy");
    assert_int_equal(story.count, 0);
    assert_int_equal(placement_explain(&rule, m, labels, 1, 16, sets, 16, &story), -EINVAL);
    assert_int_equal(placement_explain(&rule, m, labels, 0, 16, sets, 0, &story), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roles_and_neighbours),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_degraded_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
