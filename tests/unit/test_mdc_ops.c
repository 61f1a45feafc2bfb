/* test_mdc_ops.c: a whole metadata controller over tcp: what callers see, and what a restart keeps. */
#include "mdc_calls.h"

static void test_first_steps(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    assert_true(uuid_eq(&c->session.cluster, &w->cluster));
    assert_int_equal(c->session.heartbeat_ms, 1000);
    assert_true(c->session.table_len > 0 && c->session.start != 0);
    struct mdc_volume_info v = small_cluster(c);
    const struct table_volume *tv = table_volume_by_id(table_of(w), &v.id);
    assert_non_null(tv);
    assert_int_equal(tv->size_bytes, GB);
    assert_int_equal(tv->generation, 1);
    assert_int_equal(tv->family, tv->layer);
    const struct table_module *m = table_route(table_of(w), tv, 5 * MIB, NULL);
    assert_non_null(m);
    assert_int_equal(m->state, TABLE_MODULE_UP);
    struct mdc_volume_open_request rq = open_of("v", "h1", 5);
    struct mdc_volume_open_reply rep;
    assert_int_equal(volume_open(c, &rq, &rep), STATUS_OK);
    assert_true(rep.turn > 0);
    assert_int_equal(rep.volume.opens, 1);
    assert_int_equal(rep.version, table_head(table_of(w))->version);
    check_table(w);
    WORLD_UNTIL(w, c->hints > 0);
    client_free(c);
    world_free(w);
}

static void test_begins_with_session(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_connect(w);
    struct mdc_volume_reply rep;
    assert_int_equal(volume_create(c, "v", GB, &rep), STATUS_PROTOCOL);
    assert_says(c, "SESSION");
    client_free(c);
    world_free(w);
}

/* Everything that was answered is there after a crash at that instant; the table agrees. */
static void test_restart_forgets_nothing(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_volume_info before = small_cluster(c), after;
    struct mdc_volume_open_request rq = open_of("v", "h1", 5);
    struct mdc_volume_open_reply rep;
    assert_int_equal(volume_open(c, &rq, &rep), STATUS_OK);
    uint64_t epoch = table_partition_at(table_of(w), table_pool_by_id(table_of(w), 1), 3)->epoch;
    uint64_t term = table_head(table_of(w))->term;
    world_stop(w);
    client_free(c);
    w->heartbeat_ms = 60000; /* who has not been heard is waited for longer than this test takes */
    world_start(w);
    c = client_new(w, "a");
    assert_int_equal(volume_get(c, "v", &after), STATUS_OK);
    assert_true(uuid_eq(&before.id, &after.id));
    assert_int_equal(after.size_bytes, GB);
    assert_int_equal(after.attachments, 1);
    assert_int_equal(after.opens, 0);
    assert_true(table_head(table_of(w))->term > term);
    const struct table_partition *p = table_partition_at(table_of(w), table_pool_by_id(table_of(w), 1), 3);
    assert_int_equal(p->epoch, epoch);
    assert_true(table_partition_primary(p) == 1 || table_partition_primary(p) == 2);
    struct mdc_volume_reply vol;
    /* A store may always be an old copy: who might know more is heard first. */
    assert_int_equal(volume_create(c, "w", GB, &vol), STATUS_AGAIN);
    good_module(c, 1, 1);
    assert_int_equal(volume_open(c, &rq, &rep), STATUS_AGAIN);
    good_module(c, 2, 1);
    assert_int_equal(volume_open(c, &rq, &rep), STATUS_OK);
    assert_int_equal(volume_create(c, "w", GB, &vol), STATUS_OK);
    assert_true(vol.volume.layer > before.layer);
    check_table(w);
    client_free(c);
    world_free(w);
}

static void test_registration(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_module_register_reply rep;
    small_cluster(c);
    const struct table *t = table_of(w);
    const struct table_pool *pool = table_pool_by_id(t, 1);
    uint64_t epochs[64];
    for (uint32_t i = 0; i < 64; i++)
        epochs[i] = table_partition_at(t, pool, i)->epoch;
    /* a repeat changes nothing */
    struct mdc_module_register_request rq = module_of(1, 1);
    rq.module = 1;
    assert_int_equal(put_module(c, &rq, &rep), STATUS_OK);
    assert_int_equal(rep.module, 1);
    assert_int_equal(rep.pool, 1);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(table_partition_at(t, pool, i)->epoch, epochs[i]);
    /* the same start by another process */
    rq.incarnation++;
    assert_int_equal(put_module(c, &rq, &rep), STATUS_OLD_MEDIA);
    assert_says(c, "copy");
    /* a new start: new epochs for its partitions and no others, above what it has seen */
    rq = module_of(1, 2);
    rq.module = 1;
    rq.highest_epoch = 40;
    assert_int_equal(put_module(c, &rq, &rep), STATUS_OK);
    assert_true(rep.tell); /* it knows of epochs that this store does not: it is an old copy */
    struct mdc_module_records_request records = {
        .module = 1, .incarnation = rq.incarnation, .term = table_head(t)->term, .first = true, .last = true};
    struct mdc_empty none;
    assert_int_equal(CALL(c, MODULE_RECORDS, mdc_module_records_request, &records, mdc_empty, &none),
                     STATUS_OK);
    for (uint32_t i = 0; i < 64; i++) {
        const struct table_partition *p = table_partition_at(t, pool, i);
        assert_true(table_partition_primary(p) == 1 ? p->epoch > 40 : p->epoch == epochs[i]);
    }
    assert_int_equal(table_module_by_id(t, 1)->incarnation, rq.incarnation);
    /* an older start */
    rq = module_of(1, 1);
    assert_int_equal(put_module(c, &rq, &rep), STATUS_OLD_MEDIA);
    assert_says(c, "old copy");
    /* numbers of others */
    rq = module_of(9, 1);
    rq.module = 2;
    assert_int_equal(put_module(c, &rq, &rep), STATUS_FOREIGN_MEDIA);
    rq = module_of(1, 3);
    rq.module = 2;
    assert_int_equal(put_module(c, &rq, &rep), STATUS_FOREIGN_MEDIA);
    rq = module_of(9, 1);
    rq.module = 17;
    assert_int_equal(put_module(c, &rq, &rep), STATUS_RANGE);
    rq = module_of(9, 0);
    assert_int_equal(put_module(c, &rq, &rep), STATUS_INVALID);
    assert_says(c, "osd9");
    /* a damaged one is taken and shown as such */
    rq = module_of(2, 2);
    rq.damaged = true;
    assert_int_equal(put_module(c, &rq, &rep), STATUS_OK);
    assert_int_equal(table_module_by_id(t, 2)->state, TABLE_MODULE_DAMAGED);
    client_free(c);
    world_free(w);
}

/* A copy of a medium in use is started: its start counter is higher, but the one in use is still heard. */
static void test_copy_of_a_medium_in_use(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *a = client_new(w, "a"), *b = client_new(w, "b");
    struct mdc_module_register_request rq = module_of(1, 2);
    struct mdc_module_register_reply rep;
    good_module(a, 1, 1);
    assert_int_equal(put_module(b, &rq, &rep), STATUS_BUSY);
    assert_says(b, "still running");
    beat(a, 1, 1, 1, 0);
    assert_int_equal(put_module(b, &rq, &rep), STATUS_BUSY);
    client_free(a);
    WORLD_UNTIL(w, put_module(b, &rq, &rep) == STATUS_OK);
    assert_int_equal(rep.module, 1);
    client_free(b);
    world_free(w);
}

static void test_module_limit(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    for (unsigned n = 1; n <= 16; n++)
        assert_int_equal(good_module(c, n, 1).module, n);
    struct mdc_module_register_request rq = module_of(17, 1);
    struct mdc_module_register_reply rep;
    assert_int_equal(put_module(c, &rq, &rep), STATUS_NO_SPACE);
    assert_says(c, "max-modules");
    client_free(c);
    world_free(w);
}

/* Given out in the term that the copy knows, but after it was made. */
#define LOST      ((1ull << 24) + 77)
#define LOST_TURN ((1ull << 32) + 123456)

/* Nothing is given out, nor ended, before all modules were heard, and what they are ahead of was told. */
static void restored_waits(struct world *w, struct client *c, const struct mdc_volume_info *v)
{
    struct mdc_volume_open_request rq = open_of("v", "h1", 5);
    struct mdc_volume_open_reply rep;
    struct mdc_volume_reply vol;
    struct mdc_attach_request h1 = {.volume = "v", .host = "h1"};
    struct mdc_volume_delete_request del = {.name = "v"};
    struct mdc_empty empty;
    assert_int_equal(volume_create(c, "w", GB, &vol), STATUS_AGAIN);
    assert_says(c, "old copy");
    assert_int_equal(CALL(c, DETACH, mdc_attach_request, &h1, mdc_empty, &empty), STATUS_AGAIN);
    assert_int_equal(CALL(c, VOLUME_DELETE, mdc_volume_delete_request, &del, mdc_empty, &empty),
                     STATUS_AGAIN);
    good_module(c, 2, 5);
    assert_int_equal(volume_open(c, &rq, &rep),
                     STATUS_AGAIN); /* what the first is ahead of is not told yet */
    assert_says(c, "module 1");
    struct mdc_module_heartbeat_request ahead = {.module = 1, .incarnation = 1005, .capacity_bytes = 10 * GB};
    struct mdc_module_heartbeat_reply hrep;
    ahead.ahead[0] = (struct mdc_ahead){.volume = v->id, .generation = LOST};
    ahead.ahead_count = 1;
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &ahead, mdc_module_heartbeat_reply, &hrep),
        STATUS_OK);
    WORLD_UNTIL(w, table_volume_by_id(table_of(w), &v->id)->generation > LOST);
    assert_int_equal(volume_open(c, &rq, &rep), STATUS_AGAIN);
    beat(c, 1, 5, 1, 0);
}

static void restored_opens(struct client *c, const struct mdc_volume_info *v)
{
    struct mdc_volume_open_request rq = open_of("v", "h1", 5);
    struct mdc_volume_open_reply rep;
    struct mdc_volume_reply vol;
    /* An open of before the generation that the module told of: a lost detach may have ended it. */
    struct mdc_volume_open_request old = open_of("v", "h0", 4);
    old.shared = true;
    old.id = v->id;
    old.held = LOST - 1;
    assert_int_equal(volume_open(c, &old, &rep), STATUS_DENIED);
    old.held = LOST;
    assert_int_equal(volume_open(c, &old, &rep), STATUS_OK);
    rq.shared = true;
    assert_int_equal(volume_open(c, &rq, &rep), STATUS_OK);
    assert_true(rep.turn > LOST_TURN);
    assert_true(rep.volume.generation > LOST);
    assert_true(uuid_eq(&rep.volume.id, &v->id));
    /* told a generation that no module has heard of */
    old.held = rep.volume.generation + 9;
    assert_int_equal(volume_open(c, &old, &rep), STATUS_OK);
    assert_true(rep.volume.generation > old.held);
    assert_int_equal(volume_create(c, "w", GB, &vol), STATUS_OK);
    assert_true(vol.volume.layer > 500);
}

/* A table seen in a later term; and what is waited for is remembered over a start. */
static void restored_waits_again(struct world *w, struct client **client)
{
    struct client *c = *client;
    struct mdc_volume_open_request rq = open_of("v", "h1", 5);
    struct mdc_volume_open_reply rep;
    struct mdc_module_heartbeat_reply hrep;
    rq.shared = true;
    uint64_t term = table_head(table_of(w))->term;
    struct mdc_module_heartbeat_request hb = {.module = 1,
                                              .incarnation = 1005,
                                              .applied_term = term + 3,
                                              .applied_version = 9,
                                              .capacity_bytes = 10 * GB};
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &hb, mdc_module_heartbeat_reply, &hrep),
        STATUS_OK);
    WORLD_UNTIL(w, table_head(table_of(w))->term > term + 3);
    check_table(w);
    assert_int_equal(volume_open(c, &rq, &rep), STATUS_AGAIN);
    client_free(c);
    world_restart(w);
    *client = c = client_new(w, "a");
    good_module(c, 1, 5);
    assert_int_equal(volume_open(c, &rq, &rep), STATUS_AGAIN);
    assert_says(c, "old copy");
    good_module(c, 2, 5);
    assert_int_equal(volume_open(c, &rq, &rep), STATUS_OK);
}

/* A store put back from an old copy: what modules report lifts turns, layers, epochs, generations and the
 * term. */
static void test_restored_store(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_volume_info v = small_cluster(c);
    struct meta_sim *backup;
    assert_int_equal(meta_sim_snapshot(w->disk, &backup), 0);
    world_stop(w);
    client_free(c);
    world_start(w); /* terms go by that the copy does not know */
    world_stop(w);
    assert_int_equal(meta_sim_restore(w->disk, backup), 0);
    meta_sim_destroy(backup);
    world_start(w);
    c = client_new(w, "a");
    struct mdc_module_register_request m = module_of(1, 5);
    struct mdc_module_register_reply mrep;
    m.module = 1;
    m.highest_epoch = 1000;
    m.highest_layer = 500;
    m.highest_generation = LOST;
    m.highest_turn = LOST_TURN;
    assert_int_equal(put_module(c, &m, &mrep), STATUS_OK);
    restored_waits(w, c, &v);
    restored_opens(c, &v);
    restored_waits_again(w, &c);
    client_free(c);
    world_free(w);
}

/*
 * Another controller began over the same store, as often as this one: the store was put back since. Its term
 * is only by chance the higher or the lower one, and the turns that it gave are those that this one would.
 */
static void test_twin_of_a_term(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    (void)small_cluster(c);
    uint64_t term = table_head(table_of(w))->term;
    struct mdc_module_heartbeat_reply hrep;
    struct mdc_module_heartbeat_request hb = {.module = 1,
                                              .incarnation = 1001,
                                              .applied_term = term & ~UINT64_C(0xffff),
                                              .applied_version = 1,
                                              .capacity_bytes = 10 * GB};
    assert_int_not_equal(hb.applied_term, term); /* the seed's */
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &hb, mdc_module_heartbeat_reply, &hrep),
        STATUS_OK);
    assert_false(hrep.register_again);
    WORLD_UNTIL(w, table_head(table_of(w))->term >> 16 > term >> 16);
    check_table(w);
    term = table_head(table_of(w))->term;
    hb.applied_term = term - (UINT64_C(1) << 16); /* one of before: nothing is wrong */
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &hb, mdc_module_heartbeat_reply, &hrep),
        STATUS_OK);
    assert_int_equal(hrep.term, term);
    client_free(c);
    world_free(w);
}

static void test_pools(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_pool_reply rep;
    struct mdc_volume_reply vol;
    struct mdc_pool_create_request rq = {.name = "p", .modules = {1, 2}, .module_count = 2, .partitions = 64};
#define CREATE() CALL(c, POOL_CREATE, mdc_pool_create_request, &rq, mdc_pool_reply, &rep)
    assert_int_equal(volume_create(c, "v", GB, &vol), STATUS_NOT_FOUND);
    assert_says(c, "no pool");
    assert_int_equal(CREATE(), STATUS_NOT_FOUND);
    assert_says(c, "module 1");
    assert_int_equal(pool_create(c, "all", &rep), STATUS_NOT_FOUND);
    for (unsigned n = 1; n <= 4; n++)
        good_module(c, n, 1);
    rq.modules[1] = 1;
    assert_int_equal(CREATE(), STATUS_INVALID);
    assert_says(c, "twice");
    rq.modules[1] = 2;
    rq.copies = 8;
    assert_int_equal(CREATE(), STATUS_INVALID);
    assert_says(c, "from 1 to 7");
    rq.copies = 1;
    rq.partitions = 65;
    assert_int_equal(CREATE(), STATUS_INVALID);
    rq.partitions = 2048;
    assert_int_equal(CREATE(), STATUS_NO_SPACE);
    rq.partitions = 64;
    rq.stripe_bytes = 3 * MIB;
    assert_int_equal(CREATE(), STATUS_INVALID);
    rq.stripe_bytes = 0;
    assert_int_equal(CREATE(), STATUS_OK);
    assert_int_equal(rep.pool.modules, 2);
    assert_int_equal(rep.pool.partitions_served, 64);
    assert_int_equal(rep.pool.stripe_bytes, MIB);
    assert_int_equal(CREATE(), STATUS_EXISTS);
    snprintf(rq.name, sizeof(rq.name), "q");
    assert_int_equal(CREATE(), STATUS_BUSY);
    assert_says(c, "\"p\"");
    snprintf(rq.name, sizeof(rq.name), "-q");
    assert_int_equal(CREATE(), STATUS_INVALID);
    assert_int_equal(pool_create(c, "rest", &rep), STATUS_OK);
    assert_int_equal(rep.pool.modules, 2);
    assert_int_equal(volume_create(c, "v", GB, &vol), STATUS_INVALID);
    assert_says(c, "several pools");
    struct mdc_volume_create_request vrq = {.name = "v", .pool = "rest", .size_bytes = GB};
    assert_int_equal(CALL(c, VOLUME_CREATE, mdc_volume_create_request, &vrq, mdc_volume_reply, &vol),
                     STATUS_OK);
    struct mdc_name_request del = {.name = "rest"};
    struct mdc_empty empty;
    assert_int_equal(CALL(c, POOL_DELETE, mdc_name_request, &del, mdc_empty, &empty), STATUS_BUSY);
    assert_says(c, "\"v\"");
    snprintf(del.name, sizeof(del.name), "p");
    assert_int_equal(CALL(c, POOL_DELETE, mdc_name_request, &del, mdc_empty, &empty), STATUS_OK);
    assert_int_equal(CALL(c, POOL_DELETE, mdc_name_request, &del, mdc_empty, &empty), STATUS_NOT_FOUND);
    assert_null(table_pool_by_id(table_of(w), 1));
    assert_int_equal(table_module_by_id(table_of(w), 1)->pool, 0);
    assert_int_equal(pool_create(c, "again", &rep), STATUS_OK);
    assert_int_equal(rep.pool.modules, 2);
    world_restart(w);
    check_table(w);
    WORLD_UNTIL(w, c->down);
    client_free(c);
    world_free(w);
#undef CREATE
}

static void test_queries(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    small_cluster(c);
    good_module(c, 3, 1);
    struct mdc_empty none = {0};
    struct mdc_cluster_status_reply st;
    assert_int_equal(CALL(c, CLUSTER_STATUS, mdc_empty, &none, mdc_cluster_status_reply, &st), STATUS_OK);
    assert_int_equal(st.modules, 3);
    assert_int_equal(st.modules_up, 3);
    assert_int_equal(st.nodes, 3);
    assert_int_equal(st.partitions, 64);
    assert_int_equal(st.partitions_served, 64);
    assert_int_equal(st.volumes, 1);
    assert_int_equal(st.sessions, 1);
    assert_int_equal(st.capacity_bytes, 30 * GB);
    assert_string_equal(st.meta_store, "sim");
    struct mdc_list_request list = {.name = "p"};
    struct mdc_module_list_reply modules;
    assert_int_equal(CALL(c, MODULE_LIST, mdc_list_request, &list, mdc_module_list_reply, &modules),
                     STATUS_OK);
    assert_int_equal(modules.count, 2);
    assert_int_equal(modules.items[0].partitions, 32);
    assert_string_equal(modules.items[1].pool_name, "p");
    struct mdc_partition_list_reply parts;
    assert_int_equal(CALL(c, PARTITION_LIST, mdc_list_request, &list, mdc_partition_list_reply, &parts),
                     STATUS_OK);
    assert_int_equal(parts.count, 64);
    assert_true(parts.items[63].served);
    assert_int_equal(parts.next, 0);
    struct mdc_list_request all = {0};
    struct mdc_node_list_reply nodes;
    assert_int_equal(CALL(c, NODE_LIST, mdc_list_request, &all, mdc_node_list_reply, &nodes), STATUS_OK);
    assert_int_equal(nodes.count, 3);
    struct mdc_gateway_heartbeat_request hb = {.clients = 4, .volumes = 2};
    assert_int_equal(CALL(c, GATEWAY_HEARTBEAT, mdc_gateway_heartbeat_request, &hb, mdc_empty, &none),
                     STATUS_OK);
    struct mdc_gateway_list_reply gws;
    assert_int_equal(CALL(c, GATEWAY_LIST, mdc_list_request, &all, mdc_gateway_list_reply, &gws), STATUS_OK);
    assert_int_equal(gws.count, 1);
    assert_string_equal(gws.items[0].host, "host-a");
    struct mdc_volume_open_request rq = open_of("v", "h1", 5);
    struct mdc_volume_open_reply orep;
    assert_int_equal(volume_open(c, &rq, &orep), STATUS_OK);
    struct mdc_attachment_list_reply att;
    assert_int_equal(CALL(c, ATTACHMENT_LIST, mdc_list_request, &all, mdc_attachment_list_reply, &att),
                     STATUS_OK);
    assert_int_equal(att.count, 1);
    assert_int_equal(att.items[0].opens, 1);
    snprintf(list.name, sizeof(list.name), "nosuch");
    assert_int_equal(CALL(c, MODULE_LIST, mdc_list_request, &list, mdc_module_list_reply, &modules),
                     STATUS_NOT_FOUND);
    assert_int_equal(CALL(c, PARTITION_LIST, mdc_list_request, &list, mdc_partition_list_reply, &parts),
                     STATUS_NOT_FOUND);
    client_free(c);
    world_free(w);
}

/* Heartbeats of what this process has not heard register, and of another incarnation. */
static void test_register_again(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    small_cluster(c);
    world_stop(w);
    client_free(c);
    world_start(w);
    c = client_new(w, "a");
    struct mdc_module_heartbeat_request hb = {.module = 1, .incarnation = 1001};
    struct mdc_module_heartbeat_reply rep;
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &hb, mdc_module_heartbeat_reply, &rep),
        STATUS_OK);
    assert_true(rep.register_again);
    good_module(c, 1, 1);
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &hb, mdc_module_heartbeat_reply, &rep),
        STATUS_OK);
    assert_false(rep.register_again);
    hb.incarnation++;
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &hb, mdc_module_heartbeat_reply, &rep),
        STATUS_OK);
    assert_true(rep.register_again);
    client_free(c);
    world_free(w);
}

/* A module that falls silent is shown DOWN and keeps its partitions; its next heartbeat brings it back. */
static void test_silence(void **state)
{
    (void)state;
    struct world *w = world_new();
    w->heartbeat_ms = 10;
    world_restart(w);
    struct client *c = client_new(w, "a");
    small_cluster(c);
    WORLD_UNTIL(w, table_module_by_id(table_of(w), 1)->state == TABLE_MODULE_DOWN);
    assert_non_null(table_route(table_of(w), table_record(table_of(w), TABLE_VOLUME, 0), 0, NULL));
    beat(c, 1, 1, 1, 0);
    WORLD_UNTIL(w, table_module_by_id(table_of(w), 1)->state == TABLE_MODULE_UP);
    client_free(c);
    world_free(w);
}

/* A commit that fails: the caller is told that it is not known, nothing is published, and nothing more is
 * done. */
static void test_store_fails(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    small_cluster(c);
    uint64_t version = table_head(table_of(w))->version;
    log_set_level(LOG_ERROR_ + 1);
    meta_sim_fail_at(w->disk, 1, -EIO);
    struct mdc_volume_reply rep;
    assert_int_equal(volume_create(c, "w", GB, &rep), STATUS_IO);
    assert_says(c, "not known");
    assert_int_equal(w->failed, -EIO);
    assert_int_equal(table_head(table_of(w))->version, version);
    assert_int_equal(volume_create(c, "x", GB, &rep), STATUS_IO);
    log_set_level(LOG_ERROR_);
    world_stop(w);
    client_free(c);
    world_start(w);
    client_free(client_new(w, "b"));
    world_free(w);
}

/* Crashes with commits in flight: what was answered stays, what was not answered is whole or absent. */
static void test_crash_with_commit_in_flight(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    small_cluster(c);
    unsigned kept = 0, lost = 0;
    for (unsigned i = 0; i < 20; i++) {
        struct mdc_volume_create_request rq = {.size_bytes = GB};
        char name[16];
        snprintf(name, sizeof(name), "x%u", i);
        memcpy(rq.name, name, sizeof(name));
        struct pending *p = client_begin(c, MDC_METHOD_VOLUME_CREATE, &mdc_volume_create_request_type, &rq);
        for (unsigned r = 0; r < 1 + i % 5 && !p->done; r++)
            loop_run_once(w->loop, NS_PER_MS);
        bool answered = p->done && p->rc == 0 && p->status == STATUS_OK;
        world_stop(w);
        WORLD_UNTIL(w, p->done);
        free(p);
        client_free(c);
        world_start(w);
        c = client_new(w, "a");
        struct mdc_volume_info v;
        uint32_t status = volume_get(c, name, &v);
        assert_true(status == STATUS_OK || (!answered && status == STATUS_NOT_FOUND));
        kept += status == STATUS_OK;
        lost += status != STATUS_OK;
        check_table(w);
    }
    assert_int_equal(kept + lost, 20);
    client_free(c);
    world_free(w);
}

static void test_foreign_store(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    small_cluster(c);
    client_free(c);
    world_stop(w);
    log_set_level(LOG_ERROR_ + 1);
    w->cluster.b[3] ^= 1;
    assert_int_equal(world_try_start(w), -EMEDIUMTYPE);
    w->cluster.b[3] ^= 1;
    assert_int_equal(meta_sim_damage(w->disk, "3/module/00000001", 20), 0);
    assert_int_equal(world_try_start(w), -EBADMSG);
    log_set_level(LOG_ERROR_);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_steps),
        cmocka_unit_test(test_begins_with_session),
        cmocka_unit_test(test_restart_forgets_nothing),
        cmocka_unit_test(test_registration),
        cmocka_unit_test(test_copy_of_a_medium_in_use),
        cmocka_unit_test(test_module_limit),
        cmocka_unit_test(test_restored_store),
        cmocka_unit_test(test_twin_of_a_term),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_queries),
        cmocka_unit_test(test_register_again),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_store_fails),
        cmocka_unit_test(test_crash_with_commit_in_flight),
        cmocka_unit_test(test_foreign_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
