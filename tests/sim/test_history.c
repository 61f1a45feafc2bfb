/* The linearizability check of the simulator: histories that are fine, and each kind of lie that it must
 * find. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "tests/sim/history.h"

struct op {
    enum history_kind kind;
    uint64_t value, begin, end;
};
#define W HISTORY_WRITE
#define R HISTORY_READ

static int check(const struct op *ops, size_t n)
{
    struct history *h;
    char why[512] = "";
    assert_int_equal(history_create(2, &h), 0);
    for (size_t i = 0; i < n; i++)
        history_add(h, 1, ops[i].kind, ops[i].value, ops[i].begin, ops[i].end, (uint32_t)i);
    int rc = history_check(h, why, sizeof(why));
    assert_int_equal(rc != 0, strlen(why) != 0);
    history_destroy(h);
    return rc;
}
#define GOOD(...)                                                                                            \
    assert_int_equal(                                                                                        \
        check((struct op[]){__VA_ARGS__}, sizeof((struct op[]){__VA_ARGS__}) / sizeof(struct op)), 0)
#define BAD(...)                                                                                             \
    assert_int_equal(                                                                                        \
        check((struct op[]){__VA_ARGS__}, sizeof((struct op[]){__VA_ARGS__}) / sizeof(struct op)), -EILSEQ)

static void good_histories(void **state)
{
    (void)state;
    GOOD({R, 0, 1, 2});
    GOOD({W, 7, 1, 2}, {R, 7, 3, 4});
    /* concurrent reads may see either side of a write, in order */
    GOOD({W, 7, 1, 2}, {W, 8, 3, 10}, {R, 7, 4, 5}, {R, 8, 6, 7});
    /* an unanswered write may take effect late, or never */
    GOOD({W, 7, 1, 2}, {W, 8, 3, HISTORY_OPEN}, {R, 7, 50, 51}, {R, 8, 60, 61});
    GOOD({W, 7, 1, 2}, {W, 8, 3, HISTORY_OPEN}, {R, 7, 50, 51}, {W, 9, 70, 71}, {R, 9, 80, 81});
    /* two concurrent writes in either order */
    GOOD({W, 7, 1, 10}, {W, 8, 2, 9}, {R, 7, 11, 12});
    GOOD({W, 7, 1, 10}, {W, 8, 2, 9}, {R, 8, 11, 12});
    /* clears */
    GOOD({W, 7, 1, 2}, {W, 0, 3, 4}, {R, 0, 5, 6}, {W, 8, 7, 8}, {R, 8, 9, 10});
    GOOD({W, 7, 1, 2}, {W, 0, 3, HISTORY_OPEN}, {R, 7, 5, 6}, {R, 0, 7, 8});
    /* a write without an answer acts, is cleared by somebody, and is repeated */
    GOOD({W, 7, 1, 20}, {R, 7, 2, 3}, {W, 0, 5, 6}, {R, 0, 7, 8}, {R, 7, 10, 11});
    GOOD({W, 7, 1, HISTORY_OPEN}, {R, 7, 2, 3}, {W, 0, 5, 6}, {R, 7, 10, 11});
}

/* What was begun before a detach was asked for, and had no answer then: before the detach's answer, or never.
 */
static int check_fenced(const struct op *ops, size_t n, uint64_t begun, uint64_t fenced)
{
    struct history *h;
    char why[256];
    assert_int_equal(history_create(1, &h), 0);
    for (size_t i = 0; i < n; i++)
        history_add(h, 0, ops[i].kind, ops[i].value, ops[i].begin, ops[i].end, 1);
    history_fence(h, 0, 1, 2, begun, fenced); /* another client's: nothing changes */
    history_fence(h, 0, 1, 1, begun, fenced);
    int rc = history_check(h, why, sizeof(why));
    history_destroy(h);
    return rc;
}
#define FENCED(begun, fenced, ...)                                                                           \
    check_fenced((const struct op[]){__VA_ARGS__}, ARRAY_LEN(((const struct op[]){__VA_ARGS__})), begun,     \
                 fenced)

static void fences(void **state)
{
    (void)state;
    const uint64_t open = HISTORY_OPEN;
    assert_int_equal(FENCED(10, 20, {W, 7, 1, 2}, {W, 8, 3, open}, {R, 7, 30, 31}), 0);
    assert_int_equal(FENCED(10, 20, {W, 7, 1, 2}, {W, 8, 3, open}, {R, 8, 30, 31}), 0);
    assert_int_equal(FENCED(10, 20, {W, 7, 1, 2}, {W, 8, 3, open}, {R, 7, 15, 16}, {R, 8, 18, 31}), 0);
    /* it happened after the answer */
    assert_int_equal(FENCED(10, 20, {W, 7, 1, 2}, {W, 8, 3, open}, {R, 7, 21, 22}, {R, 8, 30, 31}), -EILSEQ);
    assert_int_equal(FENCED(10, 20, {W, 7, 1, 2}, {W, 8, 3, open}, {W, 9, 21, 22}, {R, 8, 30, 31}), -EILSEQ);
    assert_int_equal(FENCED(10, 20, {W, 0, 3, open}, {W, 9, 21, 22}, {R, 0, 30, 31}), -EILSEQ);
    /* a clear after that ends it for good */
    assert_int_equal(FENCED(10, 20, {W, 7, 1, open}, {W, 0, 21, 22}, {R, 7, 30, 31}), -EILSEQ);
    assert_int_equal(FENCED(10, 20, {W, 7, 1, open}, {W, 0, 15, 22}, {R, 7, 30, 31}), 0);
    /* begun later: not fenced */
    assert_int_equal(FENCED(10, 20, {W, 7, 1, 2}, {W, 8, 12, open}, {R, 7, 21, 22}, {R, 8, 30, 31}), 0);
}

static void lies(void **state)
{
    (void)state;
    BAD({R, 7, 1, 2});                                            /* from nowhere */
    BAD({R, 7, 1, 2}, {W, 7, 3, 4});                              /* from the future */
    BAD({W, 7, 1, 2}, {R, 0, 3, 4});                              /* lost */
    BAD({W, 7, 1, 2}, {W, 8, 3, 4}, {R, 7, 5, 6});                /* old */
    BAD({W, 7, 1, 2}, {W, 8, 3, 10}, {R, 8, 4, 5}, {R, 7, 6, 7}); /* back in time under a write */
    BAD({W, 7, 1, 2}, {W, 8, 3, HISTORY_OPEN}, {R, 8, 4, 5}, {R, 7, 6, 7});
    BAD({W, 7, 1, 2}, {W, 8, 3, 4}, {R, 8, 5, 6}, {R, 7, 7, 8}, {R, 8, 9, 10});
    BAD({W, 7, 1, 2}, {W, 0, 3, 4}, {R, 7, 5, 6}); /* a clear undone */
    BAD({W, 7, 1, 4}, {R, 7, 2, 3}, {W, 0, 5, 6}, {R, 7, 10, 11});
    BAD({W, 0, 1, 2}, {W, 7, 3, 4}, {R, 0, 5, 6}); /* lost, although cleared earlier */
    /* a ghost: an answered write landing after a later one */
    BAD({W, 7, 1, 2}, {W, 8, 3, 4}, {R, 8, 5, 6}, {R, 7, 7, 8});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(good_histories), cmocka_unit_test(lies),
                                       cmocka_unit_test(fences)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
