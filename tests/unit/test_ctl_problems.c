/* services/ctl/problems.c: what `cistern status` says of modules, pools and the whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/table/table.h"
#include "services/ctl/problems.h"

#define MINUTE_MS 60000u

static struct mdc_module_info module(uint32_t id)
{
    struct mdc_module_info m = {.id = id,
                                .pool = 1,
                                .pool_name = "main",
                                .name = "osd",
                                .host = "node",
                                .state = TABLE_MODULE_UP,
                                .partitions = 12,
                                .copies = 2};
    return m;
}

static struct mdc_module_info down(uint64_t silent_ms)
{
    struct mdc_module_info m = module(3);
    m.state = TABLE_MODULE_DOWN;
    m.down = true;
    m.silent_ms = silent_ms;
    m.away = silent_ms > 10 * MINUTE_MS;
    return m;
}

static struct mdc_module_info damaged(uint64_t damaged_ms)
{
    struct mdc_module_info m = module(4);
    m.state = TABLE_MODULE_DAMAGED;
    m.damaged = true;
    m.damaged_ms = damaged_ms;
    m.away = damaged_ms > 10 * MINUTE_MS;
    return m;
}

static const char *said(const struct mdc_module_info *m)
{
    static struct problems p;
    memset(&p, 0, sizeof(p));
    problems_of_module(&p, m, 10 * MINUTE_MS);
    problems_modules_end(&p);
    assert_null(strchr(p.text, '\n'));
    return p.text;
}

#define SAYS(m, part) assert_non_null(strstr(said(m), part))

static void of_modules_that_are_down(void **state)
{
    (void)state;
    struct mdc_module_info m = module(1);
    assert_string_equal(said(&m), "");
    m = down(40000);
    SAYS(&m, "module 3 (osd of node) has been down for 40 s: 12 partitions lack a copy");
    SAYS(&m, "In 9 min copies are made elsewhere");
    m = down(11 * MINUTE_MS);
    SAYS(&m, "for 11 min: its copies are made elsewhere, 12 partitions to go (cistern pool status main)");
    m.partitions = 0;
    SAYS(&m, "cistern module remove 3");
    m = down(50 * 3600000ull);
    m.copies = 1; /* nobody could make them elsewhere, however long it is away */
    SAYS(&m, "down for 2 days: I/O to its 12 partitions waits, nobody else has their data. Start it");
    m.pool = 0;
    m.copies = 0;
    SAYS(&m, "in no pool: start it, or have it forgotten (cistern module remove 3)");
    m = down(1000);
    m.damaged = true; /* it said so before */
    m.state = TABLE_MODULE_DAMAGED;
    SAYS(&m, "has been down for 1 s");
    m = module(5);
    m.state = TABLE_MODULE_DOWN;
    m.silent_ms = 900;
    SAYS(&m, "the metadata controller has just started: 1 modules were not heard yet");
}

static void of_damaged_modules(void **state)
{
    (void)state;
    struct mdc_module_info m = damaged(MINUTE_MS);
    m.partitions = 1;
    SAYS(&m,
         "module 4 (osd of node) is damaged: what it has of 1 partition does not count. In 9 min copies are "
         "made elsewhere; at once with cistern module drain 4");
    m.draining = true;
    SAYS(&m, "its copies are made elsewhere, 1 partition to go");
    m = damaged(11 * MINUTE_MS);
    SAYS(&m, "its copies are made elsewhere, 12 partitions to go");
    m.partitions = 0;
    SAYS(&m, "wipe its disk");
    m = damaged(11 * MINUTE_MS);
    m.copies = 1;
    SAYS(&m, "nobody else has the data of its 12 partitions");
    SAYS(&m, "Copy off what can be read");
}

/* Of many only the first are told one by one. */
static void of_many_modules(void **state)
{
    (void)state;
    static struct problems p;
    unsigned lines = 1;
    for (unsigned i = 0; i < 1000; i++) {
        struct mdc_module_info m = down(1000);
        problems_of_module(&p, &m, MINUTE_MS);
    }
    problems_modules_end(&p);
    for (const char *at = p.text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_int_equal(lines, PROBLEMS_MODULES + 1);
    assert_non_null(strstr(p.text, "992 more modules are not up"));
}

static void of_the_whole(void **state)
{
    (void)state;
    static struct problems p;
    struct mdc_cluster_status_reply r = {.partitions = 64, .partitions_served = 64};
    problems_of_cluster(&p, &r);
    assert_string_equal(p.text, "");
    r = (struct mdc_cluster_status_reply){.partitions = 64,
                                          .partitions_served = 60,
                                          .partitions_single = 7,
                                          .copies_missing = 1,
                                          .recover_blocks = 80,
                                          .recover_rate = 10 * BLOCK_BYTES,
                                          .modules_full = 1,
                                          .lost = 2};
    problems_of_cluster(&p, &r);
    assert_non_null(strstr(p.text, "4 of 64 partitions are not served"));
    assert_non_null(strstr(p.text, "\n7 of 64 partitions have one good copy left"));
    assert_non_null(strstr(p.text, "\n1 copy is not in sync: 80 blocks to go, 1 MiB/s, 9 s left at most"));
    assert_non_null(strstr(p.text, "\n1 module is all but full"));
    assert_non_null(strstr(p.text, "\n2 units of 4 KiB could be read in no copy"));
    /* Whose modules were not heard yet may well be served. */
    memset(&p, 0, sizeof(p));
    p.unheard = 3;
    problems_of_cluster(&p, &(struct mdc_cluster_status_reply){.partitions = 64, .partitions_unsettled = 64});
    assert_string_equal(p.text, "");
    struct mdc_pool_info pool = {.name = "main", .copies = 3, .moves_missing = 1, .moves_stuck = 5};
    memset(&p, 0, sizeof(p));
    problems_of_pool(&p, &pool);
    assert_non_null(strstr(p.text, "pool main: 1 of 3 copies have no module to be on"));
    assert_non_null(strstr(p.text, "\npool main: 5 partitions"));
    memset(&p, 0, sizeof(p));
    pool = (struct mdc_pool_info){.name = "main", .copies = 1, .moves_stuck = 5};
    problems_of_pool(&p, &pool);
    assert_string_equal(p.text, "");
}

/* As much as fits, whatever there is to say. */
static void it_is_cut(void **state)
{
    (void)state;
    static struct problems p;
    struct mdc_pool_info pool = {.copies = 3, .moves_missing = 1, .moves_stuck = 5};
    memset(pool.name, 'x', sizeof(pool.name) - 1);
    for (unsigned i = 0; i < 1000; i++)
        problems_of_pool(&p, &pool);
    assert_int_equal(strlen(p.text), sizeof(p.text) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_modules_that_are_down),
        cmocka_unit_test(of_damaged_modules),
        cmocka_unit_test(of_many_modules),
        cmocka_unit_test(of_the_whole),
        cmocka_unit_test(it_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
