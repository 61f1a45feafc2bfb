/* test_mdc_progress.c: what the controller tells of copies that are not in sync, and of modules that need
 * somebody. */
#include "mdc_calls.h"

static void two_copies(struct client *c)
{
    struct mdc_pool_create_request rq = {.name = "p", .partitions = 8, .copies = 2};
    struct mdc_pool_reply pool;
    struct mdc_volume_reply vol;
    good_module(c, 1, 1);
    good_module(c, 2, 1);
    assert_int_equal(CALL(c, POOL_CREATE, mdc_pool_create_request, &rq, mdc_pool_reply, &pool), STATUS_OK);
    assert_int_equal(volume_create(c, "v", GB, &vol), STATUS_OK);
}

static void tell(struct client *c, unsigned n, uint64_t start,
                 const struct mdc_module_heartbeat_request *what)
{
    struct mdc_module_heartbeat_request rq = *what;
    struct mdc_module_heartbeat_reply rep;
    rq.module = n;
    rq.incarnation = n * 1000 + start;
    rq.applied_term = table_head(mdc_table(c->w->mdc))->term;
    rq.applied_version = table_head(mdc_table(c->w->mdc))->version;
    rq.capacity_bytes = 10 * GB;
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &rq, mdc_module_heartbeat_reply, &rep),
        STATUS_OK);
}

static struct mdc_partition_list_reply partitions(struct client *c)
{
    struct mdc_list_request rq = {.after = 0};
    struct mdc_partition_list_reply rep;
    assert_int_equal(CALL(c, PARTITION_LIST, mdc_list_request, &rq, mdc_partition_list_reply, &rep),
                     STATUS_OK);
    return rep;
}

static struct mdc_cluster_status_reply status_of(struct client *c)
{
    struct mdc_empty nothing = {0};
    struct mdc_cluster_status_reply rep;
    assert_int_equal(CALL(c, CLUSTER_STATUS, mdc_empty, &nothing, mdc_cluster_status_reply, &rep), STATUS_OK);
    return rep;
}

static void catch_up_is_told(void **state)
{
    struct world *w = world_new();
    struct client *c = client_new(w, "admin");
    (void)state;
    two_copies(c);
    struct mdc_partition_list_reply list = partitions(c);
    assert_int_equal(list.count, 8);
    for (uint32_t i = 0; i < list.count; i++) {
        assert_int_equal(list.items[i].in_sync, 3);
        assert_int_equal(list.items[i].recover_left, 0);
    }
    /* Module 2 starts again: it is in sync nowhere any more, and module 1 brings it up. */
    good_module(c, 2, 2);
    list = partitions(c);
    const uint32_t p = list.items[3].index;
    assert_int_equal(list.items[3].primary, 1);
    assert_int_equal(__builtin_popcount(list.items[3].in_sync), 1);
    struct mdc_module_heartbeat_request beat = {
        .care = {.copies_missing = 8,
                 .recover_blocks = 800,
                 .recover_done = 200,
                 .recover_rate = 100 * BLOCK_BYTES},
        .recoveries = {{.partition = p, .member = 2, .left = 300, .done = 100},
                       {.partition = p + 1, .member = 2, .left = 500}},
        .recovery_count = 2};
    tell(c, 1, 1, &beat);
    list = partitions(c);
    assert_int_equal(list.items[3].recover_left, 300);
    assert_int_equal(list.items[3].recover_done, 100);
    assert_int_equal(list.items[3].recover_s, 4);
    assert_int_equal(list.items[5].recover_left, 0);
    struct mdc_partition_show_request show = {.index = p};
    struct mdc_partition_show_reply shown;
    assert_int_equal(
        CALL(c, PARTITION_SHOW, mdc_partition_show_request, &show, mdc_partition_show_reply, &shown),
        STATUS_OK);
    for (uint32_t i = 0; i < shown.member_count; i++) {
        assert_int_equal(shown.members[i].recover_left, shown.members[i].module == 2 ? 300 : 0);
        assert_int_equal(shown.members[i].in_sync, shown.members[i].module != 2);
    }
    struct mdc_list_request all = {.after = 0};
    struct mdc_pool_list_reply pools;
    assert_int_equal(CALL(c, POOL_LIST, mdc_list_request, &all, mdc_pool_list_reply, &pools), STATUS_OK);
    assert_int_equal(pools.items[0].copies_missing, 8);
    assert_int_equal(pools.items[0].recover_blocks, 800);
    assert_int_equal(pools.items[0].recover_done, 200);
    assert_int_equal(pools.items[0].recover_rate, 100 * BLOCK_BYTES);
    /* What another start told does not count. */
    good_module(c, 1, 2);
    list = partitions(c);
    for (uint32_t i = 0; i < list.count; i++)
        assert_int_equal(list.items[i].recover_left, 0);
    client_free(c);
    world_free(w);
}

/* More partitions than fit a page: each comes once. */
static void pages_of_partitions(void **state)
{
    struct world *w = world_new();
    struct client *c = client_new(w, "admin");
    struct mdc_list_request rq = {.after = 0};
    uint32_t seen = 0;
    (void)state;
    small_cluster(c);
    do {
        struct mdc_partition_list_reply rep;
        assert_int_equal(CALL(c, PARTITION_LIST, mdc_list_request, &rq, mdc_partition_list_reply, &rep),
                         STATUS_OK);
        for (uint32_t i = 0; i < rep.count; i++)
            assert_int_equal(rep.items[i].index, seen++);
        rq.after = rep.next;
    } while (rq.after != 0);
    assert_int_equal(seen, 64);
    client_free(c);
    world_free(w);
}

/* One that is in no pool, and down, and one that says that its store is damaged: by number. */
static void modules_that_need_somebody(void **state)
{
    struct world *w = world_new();
    w->heartbeat_ms = 20;
    world_restart(w);
    struct client *c = client_new(w, "admin");
    struct mdc_cluster_status_reply r;
    (void)state;
    two_copies(c);
    good_module(c, 3, 1);
    const struct mdc_module_heartbeat_request damaged = {.damaged = true}, well = {.damaged = false};
    for (unsigned i = 0; i < 4000; i++) {
        tell(c, 1, 1, &well);
        tell(c, 2, 1, &damaged);
        r = status_of(c);
        if (r.modules_idle == 1 && r.modules_damaged == 1)
            break;
        loop_run_once(w->loop, NS_PER_MS);
    }
    assert_int_equal(r.modules, 3);
    assert_int_equal(r.modules_up, 1);
    assert_int_equal(r.modules_idle, 1);
    assert_int_equal(r.idle, 3);
    assert_int_equal(r.modules_damaged, 1);
    assert_int_equal(r.damaged, 2);
    /* Both serve; what the well one has is the only copy that counts. */
    assert_int_equal(r.partitions_served, 8);
    assert_int_equal(r.partitions_single, 8);
    assert_int_equal(r.replace_ms, 600 * 1000);
    tell(c, 2, 1, &well);
    assert_int_equal(status_of(c).partitions_single, 0);
    struct mdc_module_request gone = {.module = 3};
    struct mdc_module_reply reply;
    assert_int_equal(CALL(c, MODULE_REMOVE, mdc_module_request, &gone, mdc_module_reply, &reply), STATUS_OK);
    r = status_of(c);
    assert_int_equal(r.modules, 2);
    assert_int_equal(r.modules_idle, 0);
    client_free(c);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(catch_up_is_told),
        cmocka_unit_test(pages_of_partitions),
        cmocka_unit_test(modules_that_need_somebody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
