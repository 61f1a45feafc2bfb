/* test_mdc_volumes.c: volumes, opens, turns and attachments, as their callers see them over tcp. */
#include "mdc_calls.h"

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
        good_module(c, 1, 1);
        good_module(c, 2, 1);
    }
    client_free(c);
    world_free(w);
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
    /* nor does a close, which may be repeated */
    struct mdc_volume_close_request cl = {.id = v.id, .host = "h1", .instance = 5};
    struct mdc_empty empty;
    assert_int_equal(CALL(a, VOLUME_CLOSE, mdc_volume_close_request, &cl, mdc_empty, &empty), STATUS_OK);
    assert_int_equal(CALL(a, VOLUME_CLOSE, mdc_volume_close_request, &cl, mdc_empty, &empty), STATUS_OK);
    assert_int_equal(volume_get(a, "v", &now), STATUS_OK);
    assert_int_equal(now.attachments, 2);
    assert_int_equal(now.opens, 0);
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
    WORLD_UNTIL(w, table_volume_by_id(table_of(w), &v.id)->generation > 1);
    uint64_t raised = table_volume_by_id(table_of(w), &v.id)->generation;
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
    /* an association that was lost, and tells the generation that it had */
    struct mdc_volume_open_request lost = open_of("v", "h1", 5);
    lost.shared = true;
    lost.id = v.id;
    lost.held = 1;
    assert_int_not_equal(volume_open(c, &lost, &rep), STATUS_OK); /* it has just started: AGAIN */
    /* another process of the host opens it anew: that brings the first one's open not back */
    struct mdc_volume_open_request anew = open_of("v", "h1", 6);
    anew.shared = true;
    assert_int_equal(volume_open(c, &anew, &rep), STATUS_OK);
    assert_int_equal(rep.volume.generation, raised);
    assert_int_equal(volume_open(c, &lost, &rep), STATUS_DENIED);
    anew.id = v.id;
    anew.held = raised;
    assert_int_equal(volume_open(c, &anew, &rep), STATUS_OK);
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

/* An open that comes late, through a gateway that its process has left, takes nothing from the later one. */
static void test_late_open_through_an_old_gateway(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct client *a = client_new(w, "gateway1"), *b = client_new(w, "gateway2");
    struct mdc_volume_info v = small_cluster(a), now;
    struct mdc_volume_open_request late = open_of("v", "h1", 5), newer = late, other = open_of("v", "h1", 6);
    struct mdc_volume_open_reply rep;
    struct mdc_empty empty;
    late.serial = 1;
    newer.serial = 2;
    assert_int_equal(volume_open(b, &newer, &rep), STATUS_OK);
    uint64_t turn = rep.turn;
    assert_int_equal(volume_open(a, &late, &rep), STATUS_STALE_TURN);
    struct mdc_volume_close_request cl = {.id = v.id, .host = "h1", .instance = 5, .serial = 1};
    assert_int_equal(CALL(a, VOLUME_CLOSE, mdc_volume_close_request, &cl, mdc_empty, &empty), STATUS_OK);
    assert_int_equal(CALL(b, VOLUME_CLOSE, mdc_volume_close_request, &cl, mdc_empty, &empty), STATUS_OK);
    assert_int_equal(volume_get(a, "v", &now), STATUS_OK);
    assert_int_equal(now.opens, 1);
    assert_int_equal(volume_open(a, &other, &rep), STATUS_BUSY); /* it still keeps others out */
    newer.serial = 3;                                            /* it moves on itself: to a */
    assert_int_equal(volume_open(a, &newer, &rep), STATUS_OK);
    assert_true(rep.turn > turn);
    cl.serial = 3;
    assert_int_equal(CALL(a, VOLUME_CLOSE, mdc_volume_close_request, &cl, mdc_empty, &empty), STATUS_OK);
    assert_int_equal(volume_open(b, &other, &rep), STATUS_OK);
    client_free(a);
    client_free(b);
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
    uint64_t shrunk = rep.volume.generation;
    assert_true(shrunk > 1);
    assert_int_equal(rep.volume.state, TABLE_VOLUME_SHRINKING);
    assert_int_equal(table_volume_by_id(table_of(w), &v.id)->resized_generation, shrunk);
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
    assert_true(table_volume_by_id(table_of(w), &v.id)->generation > shrunk);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns_never_repeat),
        cmocka_unit_test(test_open_rules),
        cmocka_unit_test(test_attach_detach),
        cmocka_unit_test(test_detach_times_out),
        cmocka_unit_test(test_late_open_through_an_old_gateway),
        cmocka_unit_test(test_resize_and_delete),
        cmocka_unit_test(test_volume_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
