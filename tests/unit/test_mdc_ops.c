/* test_mdc_ops.c: a whole metadata controller over tcp: what callers see, and what a restart keeps. */
#include "mdc_harness.h"

#define GB (1ull << 30)

/* ---- what tests say often ---- */

static struct mdc_module_register_request module_of(unsigned n, uint64_t start)
{
    struct mdc_module_register_request rq = {.start_counter = start,
                                             .incarnation = n * 1000 + start,
                                             .kind = TABLE_MODULE_OSD,
                                             .media = TABLE_MEDIA_SSD,
                                             .capacity_bytes = 10 * GB};
    memset(rq.store.b, (int)n, sizeof(rq.store.b));
    snprintf(rq.host, sizeof(rq.host), "node%u", n);
    snprintf(rq.name, sizeof(rq.name), "osd%u", n);
    rq.addr[0] = FABRIC_PROVIDER_TCP;
    return rq;
}

static uint32_t put_module(struct client *c, const struct mdc_module_register_request *rq,
                           struct mdc_module_register_reply *rep)
{
    return CALL(c, MODULE_REGISTER, mdc_module_register_request, rq, mdc_module_register_reply, rep);
}

static struct mdc_module_register_reply good_module(struct client *c, unsigned n, uint64_t start)
{
    struct mdc_module_register_request rq = module_of(n, start);
    struct mdc_module_register_reply rep;
    assert_int_equal(put_module(c, &rq, &rep), STATUS_OK);
    return rep;
}

/* The module confirms everything that is published; removing as told. */
static void beat(struct client *c, unsigned n, uint64_t start, uint32_t id, uint64_t removing)
{
    struct mdc_module_heartbeat_request rq = {.module = id,
                                              .incarnation = n * 1000 + start,
                                              .applied_term = table_head(mdc_table(c->w->mdc))->term,
                                              .applied_version = table_head(mdc_table(c->w->mdc))->version,
                                              .capacity_bytes = 10 * GB,
                                              .removing_blocks = removing};
    struct mdc_module_heartbeat_reply rep;
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &rq, mdc_module_heartbeat_reply, &rep),
        STATUS_OK);
    assert_false(rep.register_again);
}

static uint32_t pool_create(struct client *c, const char *name, struct mdc_pool_reply *rep)
{
    struct mdc_pool_create_request rq = {.partitions = 64};
    snprintf(rq.name, sizeof(rq.name), "%s", name);
    return CALL(c, POOL_CREATE, mdc_pool_create_request, &rq, mdc_pool_reply, rep);
}

static uint32_t volume_create(struct client *c, const char *name, uint64_t bytes,
                              struct mdc_volume_reply *rep)
{
    struct mdc_volume_create_request rq = {.size_bytes = bytes};
    snprintf(rq.name, sizeof(rq.name), "%s", name);
    return CALL(c, VOLUME_CREATE, mdc_volume_create_request, &rq, mdc_volume_reply, rep);
}

static struct mdc_volume_open_request open_of(const char *volume, const char *host, uint64_t instance)
{
    struct mdc_volume_open_request rq = {.instance = instance};
    snprintf(rq.volume, sizeof(rq.volume), "%s", volume);
    snprintf(rq.host, sizeof(rq.host), "%s", host);
    return rq;
}

static uint32_t volume_open(struct client *c, const struct mdc_volume_open_request *rq,
                            struct mdc_volume_open_reply *rep)
{
    return CALL(c, VOLUME_OPEN, mdc_volume_open_request, rq, mdc_volume_open_reply, rep);
}

static uint32_t draw(struct client *c, const struct uuid *id, const char *host, uint64_t instance,
                     uint64_t *turn)
{
    struct mdc_turn_draw_request rq = {.id = *id, .instance = instance};
    struct mdc_turn_draw_reply rep;
    snprintf(rq.host, sizeof(rq.host), "%s", host);
    uint32_t status = CALL(c, TURN_DRAW, mdc_turn_draw_request, &rq, mdc_turn_draw_reply, &rep);
    if (status == STATUS_OK)
        *turn = rep.turn;
    return status;
}

static uint32_t volume_get(struct client *c, const char *name, struct mdc_volume_info *out)
{
    struct mdc_name_request rq = {{0}};
    struct mdc_volume_reply rep;
    snprintf(rq.name, sizeof(rq.name), "%s", name);
    uint32_t status = CALL(c, VOLUME_GET, mdc_name_request, &rq, mdc_volume_reply, &rep);
    if (status == STATUS_OK)
        *out = rep.volume;
    return status;
}

/* Two modules, a pool of them, volume "v" of 1 GiB. */
static struct mdc_volume_info small_cluster(struct client *c)
{
    struct mdc_pool_reply pool;
    struct mdc_volume_reply vol;
    good_module(c, 1, 1);
    good_module(c, 2, 1);
    assert_int_equal(pool_create(c, "p", &pool), STATUS_OK);
    assert_int_equal(volume_create(c, "v", GB, &vol), STATUS_OK);
    return vol.volume;
}

static const struct table *table_of(struct world *w)
{
    return mdc_table(w->mdc);
}

/* Takes the ring's word for it: the table as published is whole. */
static void check_table(struct world *w)
{
    const struct table *t = table_of(w);
    assert_int_equal(table_header_check(table_head(t), t->bytes), 0);
    for (int k = 0; k < TABLE_KINDS; k++) {
        for (uint32_t i = 0; i < table_head(t)->section[k].used; i++)
            assert_true(table_record_check((enum table_kind)k, table_record(t, (enum table_kind)k, i)));
    }
}

/* ---- tests ---- */

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

/* Turns only grow, over thousands of draws, restarts, and opens. */
static void test_turns_never_repeat(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_volume_info v = small_cluster(c);
    uint64_t last = 0, turn;
    for (int start = 0; start < 4; start++) {
        struct mdc_volume_open_request rq = open_of("v", "h1", 5);
        struct mdc_volume_open_reply rep;
        assert_int_equal(volume_open(c, &rq, &rep), STATUS_OK);
        assert_true(rep.turn > last);
        last = rep.turn;
        for (int i = 0; i < 1200; i++) {
            assert_int_equal(draw(c, &v.id, "h1", 5, &turn), STATUS_OK);
            assert_true(turn > last);
            last = turn;
        }
        world_stop(w);
        client_free(c);
        world_start(w);
        c = client_new(w, "a");
    }
    client_free(c);
    world_free(w);
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
    struct mdc_volume_open_request rq = open_of("v", "h1", 5);
    struct mdc_volume_open_reply rep;
    world_stop(w);
    client_free(c);
    assert_int_equal(meta_sim_restore(w->disk, backup), 0);
    meta_sim_destroy(backup);
    world_start(w);
    c = client_new(w, "a");
    struct mdc_module_register_request m = module_of(1, 5);
    struct mdc_module_register_reply mrep;
    m.module = 1;
    m.highest_epoch = 1000;
    m.highest_layer = 500;
    m.highest_generation = 77;
    m.highest_turn = 123456;
    assert_int_equal(put_module(c, &m, &mrep), STATUS_OK);
    assert_int_equal(volume_open(c, &rq, &rep), STATUS_OK);
    assert_true(rep.turn > 123456);
    assert_true(rep.volume.generation > 77);
    assert_true(uuid_eq(&rep.volume.id, &v.id));
    struct mdc_volume_reply vol;
    assert_int_equal(volume_create(c, "w", GB, &vol), STATUS_OK);
    assert_true(vol.volume.layer > 500);
    /* a table seen in a later term */
    uint64_t term = table_head(table_of(w))->term;
    struct mdc_module_heartbeat_request hb = {.module = 1,
                                              .incarnation = 1005,
                                              .applied_term = term + 3,
                                              .applied_version = 9,
                                              .capacity_bytes = 10 * GB};
    struct mdc_module_heartbeat_reply hrep;
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &hb, mdc_module_heartbeat_reply, &hrep),
        STATUS_OK);
    WORLD_UNTIL(w, table_head(table_of(w))->term == term + 4);
    check_table(w);
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
    rq.copies = 3;
    assert_int_equal(CREATE(), STATUS_NOT_SUPPORTED);
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

static void test_open_rules(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *a = client_new(w, "a"), *b = client_new(w, "b");
    struct mdc_volume_info v = small_cluster(a);
    struct mdc_volume_open_request first = open_of("v", "h1", 5), second = open_of("v", "h1", 6),
                                   other = open_of("v", "h2", 7);
    struct mdc_volume_open_reply rep;
    uint64_t turn = 0;
    assert_int_equal(volume_open(a, &first, &rep), STATUS_OK);
    uint64_t first_turn = rep.turn;
    assert_int_equal(volume_open(a, &first, &rep), STATUS_OK);
    assert_int_equal(volume_open(b, &second, &rep), STATUS_BUSY);
    assert_says(b, "another process");
    assert_int_equal(volume_open(b, &other, &rep), STATUS_BUSY);
    assert_says(b, "\"h1\"");
    other.read_only = true;
    assert_int_equal(volume_open(b, &other, &rep), STATUS_OK);
    assert_int_equal(rep.turn, 0);
    assert_int_equal(draw(b, &v.id, "h2", 7, &turn), STATUS_READ_ONLY);
    assert_int_equal(draw(b, &v.id, "h3", 7, &turn), STATUS_DENIED);
    second.take_over = true;
    assert_int_equal(volume_open(b, &second, &rep), STATUS_OK);
    assert_true(rep.turn > first_turn);
    assert_int_equal(draw(a, &v.id, "h1", 5, &turn), STATUS_STALE_TURN);
    assert_int_equal(draw(b, &v.id, "h1", 6, &turn), STATUS_OK);
    first.again = true;
    first.id = v.id;
    assert_int_equal(volume_open(a, &first, &rep), STATUS_STALE_TURN);
    second.again = true;
    second.take_over = false;
    assert_int_equal(volume_open(b, &second, &rep), STATUS_OK);
    assert_int_equal(rep.turn, 0);
    /* the session's end ends its opens, not the attachment */
    client_free(b);
    first.again = false;
    WORLD_UNTIL(w, volume_open(a, &first, &rep) == STATUS_OK);
    struct mdc_volume_info now;
    assert_int_equal(volume_get(a, "v", &now), STATUS_OK);
    assert_int_equal(now.opens, 1);
    assert_int_equal(now.attachments, 2);
    /* the last close does */
    struct mdc_volume_close_request cl = {.id = v.id, .host = "h1", .instance = 5};
    struct mdc_empty empty;
    assert_int_equal(CALL(a, VOLUME_CLOSE, mdc_volume_close_request, &cl, mdc_empty, &empty), STATUS_OK);
    assert_int_equal(CALL(a, VOLUME_CLOSE, mdc_volume_close_request, &cl, mdc_empty, &empty), STATUS_OK);
    assert_int_equal(volume_get(a, "v", &now), STATUS_OK);
    assert_int_equal(now.attachments, 1);
    first.id = w->cluster;
    assert_int_equal(volume_open(a, &first, &rep), STATUS_NOT_FOUND);
    client_free(a);
    world_free(w);
}

static void test_attach_detach(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_volume_info v = small_cluster(c), now;
    struct mdc_attach_request h1 = {.volume = "v", .host = "h1"}, h2 = {.volume = "v", .host = "h2"},
                              none = {.volume = "x", .host = "h"};
    struct mdc_empty empty;
#define ATTACH_(rq) CALL(c, ATTACH, mdc_attach_request, rq, mdc_empty, &empty)
#define DETACH_(rq) CALL(c, DETACH, mdc_attach_request, rq, mdc_empty, &empty)
    assert_int_equal(ATTACH_(&none), STATUS_NOT_FOUND);
    assert_int_equal(DETACH_(&none), STATUS_NOT_FOUND);
    assert_int_equal(DETACH_(&h1), STATUS_NOT_FOUND);
    assert_int_equal(ATTACH_(&h1), STATUS_OK);
    assert_int_equal(ATTACH_(&h1), STATUS_OK);
    h1.read_only = true;
    assert_int_equal(ATTACH_(&h1), STATUS_EXISTS);
    assert_int_equal(ATTACH_(&h2), STATUS_BUSY);
    h2.shared = true;
    assert_int_equal(ATTACH_(&h2), STATUS_OK);
    struct mdc_volume_delete_request del = {.name = "v"};
    assert_int_equal(CALL(c, VOLUME_DELETE, mdc_volume_delete_request, &del, mdc_empty, &empty), STATUS_BUSY);
    assert_says(c, "h1");
    /* answered only when both modules have confirmed */
    struct pending *p = client_begin(c, MDC_METHOD_DETACH, &mdc_attach_request_type, &h1);
    WORLD_UNTIL(w, table_volume_by_id(table_of(w), &v.id)->generation == 2);
    beat(c, 1, 1, 1, 0);
    assert_false(p->done);
    beat(c, 2, 1, 2, 0);
    assert_int_equal(client_end(c, p, &mdc_empty_type, &empty), STATUS_OK);
    assert_int_equal(volume_get(c, "v", &now), STATUS_OK);
    assert_int_equal(now.attachments, 1);
    struct mdc_volume_open_request again = open_of("v", "h1", 5);
    struct mdc_volume_open_reply rep;
    again.again = true;
    assert_int_not_equal(volume_open(c, &again, &rep), STATUS_OK);
    client_free(c);
    world_free(w);
#undef ATTACH_
#undef DETACH_
}

/* A detach that nobody confirms says who is awaited; its repeat does not claim that it is done. */
static void test_detach_times_out(void **state)
{
    (void)state;
    struct world *w = world_new();
    w->confirm_timeout_ns = NS_PER_MS;
    w->heartbeat_ms = 20;
    world_restart(w);
    struct client *c = client_new(w, "a");
    small_cluster(c);
    struct mdc_attach_request h1 = {.volume = "v", .host = "h1"};
    struct mdc_empty empty;
    assert_int_equal(CALL(c, ATTACH, mdc_attach_request, &h1, mdc_empty, &empty), STATUS_OK);
    beat(c, 1, 1, 1, 0);
    assert_int_equal(CALL(c, DETACH, mdc_attach_request, &h1, mdc_empty, &empty), STATUS_TIMEOUT);
    assert_says(c, "osd");
    assert_int_equal(CALL(c, DETACH, mdc_attach_request, &h1, mdc_empty, &empty), STATUS_TIMEOUT);
    beat(c, 1, 1, 1, 0);
    beat(c, 2, 1, 2, 0);
    assert_int_equal(CALL(c, DETACH, mdc_attach_request, &h1, mdc_empty, &empty), STATUS_NOT_FOUND);
    client_free(c);
    world_free(w);
}

static void test_resize_and_delete(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_volume_info v = small_cluster(c), now;
    struct mdc_volume_resize_request rs = {.name = "v", .size_bytes = 2 * GB};
    struct mdc_volume_reply rep;
    struct mdc_empty empty;
#define RESIZE() CALL(c, VOLUME_RESIZE, mdc_volume_resize_request, &rs, mdc_volume_reply, &rep)
    assert_int_equal(RESIZE(), STATUS_OK);
    assert_int_equal(rep.volume.generation, 1);
    rs.size_bytes = GB;
    assert_int_equal(RESIZE(), STATUS_INVALID);
    assert_says(c, "allow");
    rs.size_bytes = GB + 1;
    assert_int_equal(RESIZE(), STATUS_INVALID);
    rs.size_bytes = GB;
    rs.allow_shrink = true;
    assert_int_equal(RESIZE(), STATUS_OK);
    assert_int_equal(rep.volume.generation, 2);
    assert_int_equal(rep.volume.state, TABLE_VOLUME_SHRINKING);
    assert_int_equal(table_volume_by_id(table_of(w), &v.id)->resized_generation, 2);
    rs.size_bytes = 4 * GB;
    assert_int_equal(RESIZE(), STATUS_BUSY);
    beat(c, 1, 1, 1, 0);
    assert_int_equal(RESIZE(), STATUS_BUSY);
    beat(c, 2, 1, 2, 0);
    WORLD_UNTIL(w, table_volume_by_id(table_of(w), &v.id)->state == TABLE_VOLUME_READY);
    assert_int_equal(RESIZE(), STATUS_OK);
    /* delete: the name is free at once, the record stays until all is removed */
    struct mdc_volume_delete_request del = {.name = "v"};
    assert_int_equal(CALL(c, VOLUME_DELETE, mdc_volume_delete_request, &del, mdc_empty, &empty), STATUS_OK);
    assert_int_equal(volume_get(c, "v", &now), STATUS_NOT_FOUND);
    assert_int_equal(table_volume_by_id(table_of(w), &v.id)->state, TABLE_VOLUME_DELETING);
    assert_int_equal(table_volume_by_id(table_of(w), &v.id)->generation, 3);
    assert_int_equal(volume_create(c, "v", GB, &rep), STATUS_OK);
    assert_false(uuid_eq(&rep.volume.id, &v.id));
    beat(c, 1, 1, 1, 9);
    beat(c, 2, 1, 2, 0);
    assert_int_equal(volume_get(c, "v", &now), STATUS_OK);
    assert_non_null(table_volume_by_id(table_of(w), &v.id));
    beat(c, 1, 1, 1, 0);
    WORLD_UNTIL(w, table_volume_by_id(table_of(w), &v.id) == NULL);
    assert_true(uuid_eq(&now.id, &rep.volume.id));
    size_t keys = meta_sim_keys(w->disk);
    assert_int_equal(keys, 2 + 1 + 2 + 1 +
                               1); /* format, counters; pool; modules; one chunk of partitions; volume */
    client_free(c);
    world_free(w);
#undef RESIZE
}

static void test_volume_refusals(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *c = client_new(w, "a");
    struct mdc_volume_reply rep;
    struct mdc_volume_info info;
    small_cluster(c);
    assert_int_equal(volume_create(c, "v", GB, &rep), STATUS_EXISTS);
    assert_says(c, "\"v\"");
    assert_int_equal(volume_create(c, "bad name", GB, &rep), STATUS_INVALID);
    assert_int_equal(volume_create(c, "w", 0, &rep), STATUS_INVALID);
    assert_int_equal(volume_create(c, "w", 4095, &rep), STATUS_INVALID);
    assert_int_equal(volume_create(c, "w", 2048 * TIB, &rep), STATUS_INVALID);
    assert_int_equal(volume_get(c, "w", &info), STATUS_NOT_FOUND);
    char name[16];
    for (int i = 1; i < 64; i++) {
        snprintf(name, sizeof(name), "v%d", i);
        assert_int_equal(volume_create(c, name, GB, &rep), STATUS_OK);
    }
    assert_int_equal(volume_create(c, "w", GB, &rep), STATUS_NO_SPACE);
    assert_says(c, "max-volumes");
    /* all of them, in pages */
    struct mdc_list_request list = {0};
    struct mdc_volume_list_reply page;
    unsigned seen = 0, pages = 0;
    do {
        assert_int_equal(CALL(c, VOLUME_LIST, mdc_list_request, &list, mdc_volume_list_reply, &page),
                         STATUS_OK);
        seen += page.count;
        pages++;
        list.after = page.next;
    } while (page.next != 0);
    assert_int_equal(seen, 64);
    assert_int_equal(pages, 3);
    client_free(c);
    world_free(w);
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
        cmocka_unit_test(test_module_limit),
        cmocka_unit_test(test_turns_never_repeat),
        cmocka_unit_test(test_restored_store),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_open_rules),
        cmocka_unit_test(test_attach_detach),
        cmocka_unit_test(test_detach_times_out),
        cmocka_unit_test(test_resize_and_delete),
        cmocka_unit_test(test_volume_refusals),
        cmocka_unit_test(test_queries),
        cmocka_unit_test(test_register_again),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_store_fails),
        cmocka_unit_test(test_crash_with_commit_in_flight),
        cmocka_unit_test(test_foreign_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
