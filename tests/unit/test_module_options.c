/* test_module_options.c: what the programs with modules make of their options (rwm_options.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/rng.h"
#include "services/rwm/rwm_options.h"

static int fast_fail(const char *listen, const char *value, bool *out)
{
    struct rng rng;
    struct env env = {.name = "test", .rng = &rng};
    struct rwm_config config = {.fast_fail = false};
    rng_seed(&rng, 1);
    const struct rwm_options o = {.listen = (char *)(uintptr_t)listen,
                                  .fast_fail = (char *)(uintptr_t)value,
                                  .host = (char[]){"host1"},
                                  .mdc = (char[]){"tcp:127.0.0.1:7100"}};
    int rc = rwm_options_config(&env, &o, "osd1", &config);
    *out = config.fast_fail;
    return rc;
}

/* A dead process's promises end early wherever its kernel can be asked, however the address is given. */
static void fast_fail_is_on_everywhere(void **state)
{
    static const char *const listen[] = {"tcp:127.0.0.1:0", "tcp:10.0.0.0/8:7100", "rdma:10.0.0.1:0",
                                         "rdma:10.0.0.0/8:7100"};
    bool on;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(listen); i++) {
        assert_int_equal(fast_fail(listen[i], NULL, &on), 0);
        assert_true(on);
        assert_int_equal(fast_fail(listen[i], "auto", &on), 0);
        assert_true(on);
        assert_int_equal(fast_fail(listen[i], "on", &on), 0);
        assert_true(on);
        assert_int_equal(fast_fail(listen[i], "off", &on), 0);
        assert_false(on);
    }
    assert_int_equal(fast_fail(listen[0], "maybe", &on), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(fast_fail_is_on_everywhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
