/* test_mdc_modules.c: modules are added to pools, emptied, weighed, removed and forgotten; partitions explain
 * themselves. Over tcp, and through restarts. */
#include "mdc_calls.h"

static uint32_t add(struct client *c, uint32_t id, const char *pool, struct mdc_module_reply *rep)
{
    struct mdc_module_add_request rq = {.module = id};
    snprintf(rq.pool, sizeof(rq.pool), "%s", pool);
    return CALL(c, MODULE_ADD, mdc_module_add_request, &rq, mdc_module_reply, rep);
}

static uint32_t drain(struct client *c, uint32_t id, bool undo, struct mdc_module_reply *rep)
{
    struct mdc_module_drain_request rq = {.module = id, .undo = undo};
    return CALL(c, MODULE_DRAIN, mdc_module_drain_request, &rq, mdc_module_reply, rep);
}

static uint32_t reweight(struct client *c, uint32_t id, uint64_t bytes, struct mdc_module_reply *rep)
{
    struct mdc_module_reweight_request rq = {.module = id, .weight_bytes = bytes};
    return CALL(c, MODULE_REWEIGHT, mdc_module_reweight_request, &rq, mdc_module_reply, rep);
}

static uint32_t take_out(struct client *c, uint32_t id, struct mdc_module_reply *rep)
{
    struct mdc_module_request rq = {.module = id};
    return CALL(c, MODULE_REMOVE, mdc_module_request, &rq, mdc_module_reply, rep);
}

/* Partitions of the pool that the table gives to the module. */
static uint32_t held(struct world *w, uint32_t pool, uint32_t id)
{
    const struct table_pool *p = table_pool_by_id(table_of(w), pool);
    uint32_t n = 0;
    assert_non_null(p);
    for (uint32_t i = 0; i < p->partitions; i++)
        n += table_partition_primary(table_partition_at(table_of(w), p, i)) == id;
    return n;
}

/* Three modules, of them two in a pool. */
static void two_in_a_pool(struct client *c)
{
    struct mdc_pool_reply pool;
    good_module(c, 1, 1);
    good_module(c, 2, 1);
    assert_int_equal(pool_create(c, "p", &pool), STATUS_OK);
    assert_int_equal(pool.pool.copies, 1);
    assert_int_equal(pool.pool.min_copies, 1);
    good_module(c, 3, 1);
}

/* An empty pool changes at once; each partition that moves has a new epoch, no other. */
static void test_empty_pool_changes(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_module_reply rep;
    two_in_a_pool(c);
    const struct table_pool *p = table_pool_by_id(table_of(w), 1);
    uint64_t epoch[64];
    uint32_t primary[64];
    for (uint32_t i = 0; i < 64; i++) {
        epoch[i] = table_partition_at(table_of(w), p, i)->epoch;
        primary[i] = table_partition_primary(table_partition_at(table_of(w), p, i));
    }
    assert_int_equal(add(c, 3, "", &rep), STATUS_OK);
    assert_int_equal(rep.moved, 21);
    assert_int_equal(rep.module.partitions, 21);
    assert_int_equal(held(w, 1, 3), 21);
    for (uint32_t i = 0; i < 64; i++) {
        const struct table_partition *x = table_partition_at(table_of(w), p, i);
        assert_true(table_partition_primary(x) == primary[i]
                        ? x->epoch == epoch[i]
                        : x->epoch > epoch[i] && table_partition_primary(x) == 3);
    }
    assert_int_equal(reweight(c, 3, 20 * GB, &rep), STATUS_OK);
    assert_int_equal(rep.module.weight_bytes, 20 * GB);
    assert_true(rep.module.weight_set);
    assert_int_equal(held(w, 1, 3), 32);
    assert_int_equal(drain(c, 1, false, &rep), STATUS_OK);
    assert_true(rep.module.draining);
    assert_int_equal(held(w, 1, 1), 0);
    assert_int_equal(rep.module.pool, 1);
    world_restart(w); /* all of it is kept */
    client_free(c);
    c = client_new(w, "b");
    assert_int_equal(held(w, 1, 1), 0);
    assert_int_equal(reweight(c, 3, 0, &rep), STATUS_AGAIN); /* nobody was heard yet */
    assert_says(c, "heard");
    for (unsigned n = 1; n <= 3; n++)
        good_module(c, n, 1);
    assert_int_equal(reweight(c, 3, 0, &rep), STATUS_OK);
    assert_true(!rep.module.weight_set && rep.module.weight_bytes == 10 * GB);
    assert_int_equal(held(w, 1, 3), 32);
    assert_int_equal(drain(c, 1, true, &rep), STATUS_OK);
    assert_int_equal(rep.module.partitions, 21);
    assert_int_equal(take_out(c, 2, &rep), STATUS_OK);
    assert_int_equal(rep.module.pool, 0);
    assert_int_equal(rep.module.partitions, 0);
    assert_int_equal(held(w, 1, 2), 0);
    assert_int_equal(held(w, 1, 1) + held(w, 1, 3), 64);
    check_table(w);
    client_free(c);
    world_free(w);
}

/* In a pool that holds volumes nothing changes at once: the answer tells how much is to move. */
static void test_data_moves_later(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_module_reply rep;
    struct mdc_volume_reply vol;
    two_in_a_pool(c);
    assert_int_equal(volume_create(c, "v", GB, &vol), STATUS_OK);
    const uint32_t first = held(w, 1, 1);
    assert_int_equal(add(c, 3, "p", &rep), STATUS_OK);
    assert_int_equal(rep.moved, 0);
    assert_int_equal(rep.to_move, 21);
    assert_int_equal(held(w, 1, 1), first); /* whoever holds the data stays the primary */
    assert_int_equal(held(w, 1, 3), 0);
    assert_int_equal(drain(c, 1, false, &rep), STATUS_OK);
    assert_true(rep.module.draining && !rep.module.removing);
    assert_int_equal(rep.to_move, 32);
    assert_int_equal(drain(c, 1, true, &rep), STATUS_OK);
    assert_int_equal(reweight(c, 1, GB, &rep), STATUS_OK);
    assert_int_equal(take_out(c, 1, &rep), STATUS_OK);
    assert_true(rep.module.draining && rep.module.removing);
    assert_int_equal(rep.module.pool, 1);
    assert_int_equal(held(w, 1, 1), first);
    world_restart(w);
    client_free(c);
    c = client_new(w, "b");
    for (unsigned n = 1; n <= 3; n++)
        good_module(c, n, 1);
    assert_int_equal(drain(c, 1, true, &rep), STATUS_OK); /* it was kept, and is undone */
    assert_true(!rep.module.draining && !rep.module.removing);
    /* the last two cannot both go */
    assert_int_equal(drain(c, 1, false, &rep), STATUS_OK);
    assert_int_equal(drain(c, 2, false, &rep), STATUS_OK);
    assert_int_equal(take_out(c, 3, &rep), STATUS_INVALID);
    assert_says(c, "too few modules");
    check_table(w);
    client_free(c);
    world_free(w);
}

static void test_refusals(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_module_reply rep;
    struct mdc_pool_reply pool;
    two_in_a_pool(c);
    assert_int_equal(add(c, 9, "p", &rep), STATUS_NOT_FOUND);
    assert_int_equal(add(c, 3, "x", &rep), STATUS_NOT_FOUND);
    assert_int_equal(add(c, 1, "p", &rep), STATUS_BUSY);
    assert_int_equal(drain(c, 0, false, &rep), STATUS_NOT_FOUND);
    assert_int_equal(reweight(c, 1, UINT64_MAX, &rep), STATUS_RANGE);
    /* the last one cannot go */
    assert_int_equal(drain(c, 1, false, &rep), STATUS_OK);
    assert_int_equal(drain(c, 2, false, &rep), STATUS_INVALID);
    assert_says(c, "no other module");
    assert_int_equal(take_out(c, 2, &rep), STATUS_INVALID);
    assert_int_equal(held(w, 1, 2), 64);
    assert_int_equal(drain(c, 3, false, &rep), STATUS_OK);
    assert_int_equal(add(c, 3, "p", &rep), STATUS_INVALID);
    assert_int_equal(drain(c, 3, true, &rep), STATUS_OK);
    struct mdc_pool_create_request q = {.name = "q", .modules = {3}, .module_count = 1, .min_copies = 2};
    assert_int_equal(CALL(c, POOL_CREATE, mdc_pool_create_request, &q, mdc_pool_reply, &pool),
                     STATUS_INVALID);
    q.min_copies = 1;
    assert_int_equal(CALL(c, POOL_CREATE, mdc_pool_create_request, &q, mdc_pool_reply, &pool), STATUS_OK);
    good_module(c, 4, 1);
    assert_int_equal(add(c, 4, "", &rep), STATUS_INVALID); /* into which? */
    assert_int_equal(add(c, 3, "p", &rep), STATUS_BUSY);
    check_table(w);
    client_free(c);
    world_free(w);
}

/* A module that is gone for good is forgotten, for the table, the store and the lists. */
static void test_forget(void **state)
{
    (void)state;
    struct world *w = world_new();
    w->heartbeat_ms = 20;
    world_restart(w);
    struct client *c = client_new(w, "a");
    struct mdc_module_reply rep;
    struct mdc_module_list_reply list;
    struct mdc_list_request all = {0};
    two_in_a_pool(c);
    assert_int_equal(take_out(c, 3, &rep), STATUS_BUSY);
    assert_says(c, "stop it");
    WORLD_UNTIL(w, table_module_by_id(table_of(w), 3)->state == TABLE_MODULE_DOWN);
    assert_int_equal(take_out(c, 3, &rep), STATUS_OK);
    assert_int_equal(rep.module.id, 0);
    assert_null(table_module_by_id(table_of(w), 3));
    world_restart(w);
    client_free(c);
    c = client_new(w, "b");
    assert_int_equal(CALL(c, MODULE_LIST, mdc_list_request, &all, mdc_module_list_reply, &list), STATUS_OK);
    assert_int_equal(list.count, 2);
    assert_int_equal(good_module(c, 3, 2).module, 4); /* as a new one, under a number of its own */
    check_table(w);
    client_free(c);
    world_free(w);
}

static uint32_t show(struct client *c, const struct mdc_partition_show_request *rq,
                     struct mdc_partition_show_reply *rep)
{
    return CALL(c, PARTITION_SHOW, mdc_partition_show_request, rq, mdc_partition_show_reply, rep);
}

static void test_partition_show(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_partition_show_request rq = {.index = 7};
    struct mdc_partition_show_reply rep;
    assert_int_equal(show(c, &rq, &rep), STATUS_NOT_FOUND);
    struct mdc_volume_info v = small_cluster(c);
    const struct table_pool *p = table_pool_by_id(table_of(w), 1);
    assert_int_equal(show(c, &rq, &rep), STATUS_OK);
    assert_string_equal(rep.pool, "p");
    assert_int_equal(rep.index, 7);
    assert_int_equal(rep.epoch, table_partition_at(table_of(w), p, 7)->epoch);
    assert_int_equal(rep.member_count, 1);
    assert_int_equal(rep.members[0].module, table_partition_primary(table_partition_at(table_of(w), p, 7)));
    assert_true(rep.served && rep.members[0].primary && rep.members[0].in_sync && !rep.members[0].leaving);
    assert_int_equal(rep.members[0].state, TABLE_MODULE_UP);
    assert_non_null(strstr(rep.members[0].why, "holds 32 of 64 copies, its share by weight is 32.0"));
    assert_non_null(strstr(rep.rule, "1 copy"));
    /* where a place of a volume is: what a client finds */
    for (uint64_t offset = 0; offset < 16 * MIB; offset += 512 * KIB) {
        const struct table_partition *part;
        struct mdc_partition_show_request at = {.volume = "v", .offset = offset};
        table_route(table_of(w), table_volume_by_id(table_of(w), &v.id), offset, &part);
        assert_int_equal(show(c, &at, &rep), STATUS_OK);
        assert_int_equal(rep.index, part->index);
    }
    rq = (struct mdc_partition_show_request){.volume = "v", .offset = GB};
    assert_int_equal(show(c, &rq, &rep), STATUS_RANGE);
    rq = (struct mdc_partition_show_request){.volume = "nix"};
    assert_int_equal(show(c, &rq, &rep), STATUS_NOT_FOUND);
    rq = (struct mdc_partition_show_request){.pool = "p", .index = 64};
    assert_int_equal(show(c, &rq, &rep), STATUS_RANGE);
    client_free(c);
    world_free(w);
}

/* What a process counted goes with it: its successor begins at nothing, also before its first heartbeat. */
static void test_counters_of_a_start(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_module_reply rep;
    two_in_a_pool(c);
    struct mdc_module_heartbeat_request rq = {.module = 1,
                                              .incarnation = 1001,
                                              .capacity_bytes = 10 * GB,
                                              .reads = 7,
                                              .errors = 3,
                                              .care = {.repaired = 5}};
    struct mdc_module_heartbeat_reply beat_rep;
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &rq, mdc_module_heartbeat_reply, &beat_rep),
        STATUS_OK);
    assert_int_equal(reweight(c, 1, 0, &rep), STATUS_OK);
    assert_int_equal(rep.module.care.repaired, 5);
    assert_int_equal(rep.module.reads, 7);
    good_module(c, 1, 2);
    assert_int_equal(reweight(c, 1, 0, &rep), STATUS_OK);
    assert_int_equal(rep.module.care.repaired, 0);
    assert_int_equal(rep.module.reads, 0);
    assert_int_equal(rep.module.errors, 0);
    client_free(c);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_pool_changes), cmocka_unit_test(test_data_moves_later),
        cmocka_unit_test(test_refusals),           cmocka_unit_test(test_forget),
        cmocka_unit_test(test_partition_show),     cmocka_unit_test(test_counters_of_a_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
