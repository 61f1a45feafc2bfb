/* test_mdc_moves.c: the mover: what a pool's members become, look by look, while modules are added, emptied,
 * taken out and stay away. Decisions alone; the modules' part is played: whoever is a member is filled, in
 * time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "services/mdc/ops.h"

#define MODULES    5u
#define PARTITIONS 16u
#define IN_SYNC    TABLE_MEMBER_IN_SYNC

struct desk {
    struct mdc_state *s;
    struct mdc_tx tx;
    struct mdc_error error;
    struct mdc_session *session[MODULES + 1];
    uint64_t now_ns, incarnation[MODULES + 1], starts[MODULES + 1];
    bool damaged[MODULES + 1];
    unsigned copies;
    bool limited;               /* what is under way was begun by the mover: its limits hold */
    unsigned least[PARTITIONS]; /* in-sync copies that there were at least, once they were complete */
};

static struct mdc_decision decision(struct desk *k, unsigned session)
{
    /* what the controller does when a batch is published */
    (void)mdc_move_note(k->s, &k->tx);
    k->s->version += k->tx.count;
    mdc_tx_reset(&k->tx);
    return (struct mdc_decision){
        .state = k->s, .tx = &k->tx, .now_ns = k->now_ns, .session = k->session[session], .error = &k->error};
}

static void start(struct desk *k, unsigned n)
{
    struct mdc_session_request sr = {.name = "n"};
    struct mdc_module_register_request rq = {.start_counter = ++k->starts[n],
                                             .incarnation = ++k->incarnation[n] + 100 * n,
                                             .module = k->starts[n] > 1 ? n : 0,
                                             .kind = TABLE_MODULE_OSD,
                                             .media = TABLE_MEDIA_SSD,
                                             .capacity_bytes = GIB,
                                             .damaged = k->damaged[n]};
    struct mdc_module_register_reply rep = {0};
    snprintf(sr.host, sizeof(sr.host), "h%u", n);
    if (!k->session[n])
        k->session[n] = mdc_session_add(k->s, &sr, k->now_ns);
    rq.store.b[0] = (uint8_t)n;
    snprintf(rq.host, sizeof(rq.host), "h%u", n);
    snprintf(rq.name, sizeof(rq.name), "m%u", n);
    if (k->starts[n] > 1) {
        rq.accepted_start = k->starts[n] - 1;
        rq.accepted_incarnation = rq.incarnation - 1;
    }
    for (int twice = 0; twice < 2; twice++) {
        struct mdc_decision d = decision(k, n);
        assert_int_equal(mdc_op_module_register(&d, &rq, &rep), STATUS_OK);
        rq.accepted_start = rq.start_counter;
        rq.accepted_incarnation = rq.incarnation;
        rq.module = n;
    }
}

static void gone(struct desk *k, unsigned n)
{
    assert_true(mdc_op_session_lost(k->s, k->session[n], true, k->now_ns));
    mdc_session_remove(k->s, k->session[n]);
    k->session[n] = NULL;
}

static struct record_partition *part(struct desk *k, unsigned i)
{
    return &k->s->partitions[k->s->pools[0].rec.first_partition + i];
}

static struct desk *desk_new(unsigned copies, unsigned modules)
{
    static const struct table_limits limits = {.pools = 2, .modules = 8, .partitions = 64, .volumes = 4};
    struct desk *k = calloc(1, sizeof(*k));
    assert_non_null(k);
    assert_int_equal(mdc_state_create(&limits, 8, &k->s), 0);
    assert_int_equal(mdc_tx_create(k->s, &k->tx), 0);
    k->s->cluster.b[0] = 1;
    k->s->heartbeat_ms = 100;
    k->s->counters.term = k->s->term = 1;
    k->s->moves = (struct mdc_move_limits){
        .per_module = 2, .total = 6, .replace_ns = 600 * NS_PER_S, .rest_ns = 10 * NS_PER_S};
    k->now_ns = 1000 * NS_PER_S;
    k->copies = copies;
    struct mdc_pool_create_request rq = {.name = "p", .copies = (uint8_t)copies, .partitions = PARTITIONS};
    for (unsigned n = 1; n <= modules; n++)
        start(k, n);
    struct mdc_pool_reply rep = {0};
    struct mdc_decision d = decision(k, 1);
    assert_int_equal(mdc_op_pool_create(&d, &rq, &rep), STATUS_OK);
    struct mdc_volume_create_request vq = {.name = "v", .size_bytes = 64 * MIB};
    struct mdc_volume_reply vr = {0};
    d = decision(k, 1);
    d.fresh.b[0] = 9;
    assert_int_equal(mdc_op_volume_create(&d, &vq, &vr), STATUS_OK);
    return k;
}

static void desk_end(struct desk *k)
{
    mdc_tx_destroy(&k->tx);
    mdc_state_destroy(k->s);
    free(k);
}

/* ---- what there is ---- */

static unsigned copies_of(struct desk *k, unsigned i, bool in_sync)
{
    unsigned n = 0;
    for (unsigned m = 0; m < TABLE_MEMBERS_MAX; m++)
        n += part(k, i)->members[m] != 0 && (!in_sync || (part(k, i)->members[m] & IN_SYNC));
    return n;
}

static unsigned held(struct desk *k, uint32_t module)
{
    unsigned n = 0;
    for (unsigned i = 0; i < PARTITIONS; i++)
        for (unsigned m = 0; m < TABLE_MEMBERS_MAX; m++)
            n += TABLE_MEMBER_ID(part(k, i)->members[m]) == module;
    return n;
}

static unsigned primary_of(struct desk *k, uint32_t module)
{
    unsigned n = 0;
    for (unsigned i = 0; i < PARTITIONS; i++)
        n += mdc_partition_primary(part(k, i)) == module;
    return n;
}

/* Copies that are filled, in all, and by the module that takes part in most. */
static unsigned under_way(struct desk *k, unsigned *most)
{
    unsigned n = 0, of[MODULES + 1] = {0};
    for (unsigned i = 0; i < PARTITIONS; i++) {
        for (unsigned m = 0; m < TABLE_MEMBERS_MAX; m++) {
            const uint32_t x = part(k, i)->members[m];
            if (x == 0 || (x & IN_SYNC) || !k->session[TABLE_MEMBER_ID(x)])
                continue;
            n++;
            of[TABLE_MEMBER_ID(x)]++;
            of[mdc_partition_primary(part(k, i))]++;
        }
    }
    *most = 0;
    for (unsigned i = 1; i <= MODULES; i++)
        *most = of[i] > *most ? of[i] : *most;
    return n;
}

/* ---- time ---- */

static void beat(struct desk *k, unsigned n)
{
    struct mdc_module_heartbeat_request rq = {.module = n,
                                              .incarnation = k->s->modules[n - 1].rec.incarnation,
                                              .applied_term = k->s->term,
                                              .applied_version = k->s->version,
                                              .capacity_bytes = GIB,
                                              .damaged = k->damaged[n]};
    struct mdc_module_heartbeat_reply rep = {0};
    struct mdc_decision d = decision(k, n);
    assert_int_equal(mdc_op_module_heartbeat(&d, &rq, &rep), STATUS_OK);
}

/* Whoever may leave did: nobody's departure left too few. */
static void check(struct desk *k)
{
    unsigned most, all = under_way(k, &most);
    assert_true(!k->limited || (all <= k->s->moves.total && most <= k->s->moves.per_module));
    for (unsigned i = 0; i < PARTITIONS; i++) {
        const unsigned n = copies_of(k, i, true);
        assert_true(n >= k->least[i]);
        k->least[i] = n < k->copies ? n : k->copies;
    }
}

static void look(struct desk *k, uint64_t pass_ns)
{
    k->now_ns += pass_ns;
    for (unsigned n = 1; n <= MODULES; n++) {
        if (k->session[n])
            beat(k, n);
    }
    struct mdc_decision d = decision(k, 0);
    (void)mdc_op_watch(k->s, k->now_ns, false);
    (void)mdc_move_is_due(k->s, k->now_ns);
    mdc_op_advance(&d);
    check(k);
}

/* The primary of one partition reports a member that it has filled. False: nobody is to be filled. */
static bool fill_one(struct desk *k, unsigned skip)
{
    for (unsigned i = 0; i < PARTITIONS; i++) {
        for (unsigned m = 0; m < TABLE_MEMBERS_MAX; m++) {
            const uint32_t x = part(k, i)->members[m], id = TABLE_MEMBER_ID(x);
            const uint32_t primary = mdc_partition_primary(part(k, i));
            if (x == 0 || (x & IN_SYNC) || !k->session[id] || !k->session[primary] || skip-- > 0)
                continue;
            struct mdc_module_report_request rq = {
                .module = primary, .incarnation = k->s->modules[primary - 1].rec.incarnation, .count = 1};
            struct mdc_module_report_reply rep = {0};
            rq.items[0] =
                (struct mdc_module_report_item){.pool = 1,
                                                .partition = i,
                                                .epoch = part(k, i)->epoch,
                                                .member = id,
                                                .member_incarnation = k->s->modules[id - 1].rec.incarnation,
                                                .what = MDC_REPORT_IN_SYNC};
            struct mdc_decision d = decision(k, primary);
            assert_int_equal(mdc_op_module_report(&d, &rq, &rep), STATUS_OK);
            assert_true(part(k, i)->members[m] & IN_SYNC || copies_of(k, i, true) > 0);
            return true;
        }
    }
    return false;
}

/* Until nothing moves; the number of copies that were filled. */
static unsigned run(struct desk *k)
{
    unsigned filled = 0;
    for (unsigned rounds = 0, quiet = 0; quiet < 3; rounds++) {
        assert_true(rounds < 1000);
        look(k, 100 * NS_PER_MS);
        const bool any = fill_one(k, rounds % 2);
        filled += any;
        quiet = any || under_way(k, &(unsigned){0}) != 0 ? 0 : quiet + 1;
    }
    return filled;
}

static struct mdc_module_reply drain(struct desk *k, uint32_t module, bool undo, uint32_t expected)
{
    struct mdc_module_drain_request rq = {.module = module, .undo = undo};
    struct mdc_module_reply rep = {0};
    struct mdc_decision d = decision(k, 1);
    assert_int_equal(mdc_op_module_drain(&d, &rq, &rep), expected);
    return rep;
}

static void add(struct desk *k, uint32_t module)
{
    struct mdc_module_add_request rq = {.module = module};
    struct mdc_module_reply rep = {0};
    struct mdc_decision d = decision(k, 1);
    assert_int_equal(mdc_op_module_add(&d, &rq, &rep), STATUS_OK);
}

static void check_full(struct desk *k)
{
    for (unsigned i = 0; i < PARTITIONS; i++) {
        assert_int_equal(copies_of(k, i, false), k->copies);
        assert_int_equal(copies_of(k, i, true), k->copies);
    }
}

/* ---- tests ---- */

static void add_and_drain(unsigned copies)
{
    struct desk *k = desk_new(copies, 3);
    k->limited = true;
    start(k, 4);
    look(k, NS_PER_S);
    assert_int_equal(run(k), 0); /* nothing is to be done */
    add(k, 4);
    assert_int_equal(held(k, 4), 0);
    assert_int_equal(run(k), copies * PARTITIONS / 4);
    assert_int_equal(held(k, 4), copies * PARTITIONS / 4);
    check_full(k);
    const struct mdc_module_reply rep = drain(k, 2, false, STATUS_OK);
    assert_int_equal(rep.to_move, copies * PARTITIONS / 4);
    assert_int_equal(run(k), copies * PARTITIONS / 4);
    assert_int_equal(held(k, 2), 0);
    check_full(k);
    (void)drain(k, 2, true, STATUS_OK);
    (void)run(k);
    assert_int_equal(held(k, 2), copies * PARTITIONS / 4);
    check_full(k);
    desk_end(k);
}

static void test_one_copy(void **state)
{
    (void)state;
    add_and_drain(1);
}

static void test_two_copies(void **state)
{
    (void)state;
    add_and_drain(2);
}

/* A module goes only when it was emptied, and has removed what it had. */
static void test_remove(void **state)
{
    (void)state;
    struct desk *k = desk_new(2, 4);
    struct mdc_module_request rq = {.module = 3};
    struct mdc_module_reply rep = {0};
    struct mdc_decision d = decision(k, 1);
    assert_int_equal(mdc_op_module_remove(&d, &rq, &rep), STATUS_OK);
    assert_int_equal(k->s->modules[2].rec.draining, RECORD_REMOVING);
    assert_int_equal(k->s->modules[2].rec.pool, 1);
    for (unsigned rounds = 0; held(k, 3) != 0; rounds++) {
        assert_true(rounds < 200);
        assert_int_equal(k->s->modules[2].rec.pool, 1);
        look(k, 100 * NS_PER_MS);
        (void)fill_one(k, 0);
    }
    k->s->modules[2].leaving_blocks = 7; /* as its heartbeat tells until it has removed them */
    d = decision(k, 0);
    k->now_ns += NS_PER_S;
    (void)mdc_move_is_due(k->s, k->now_ns);
    mdc_op_advance(&d);
    assert_int_equal(k->s->modules[2].rec.pool, 1);
    look(k, NS_PER_S); /* heartbeats: nothing is left */
    look(k, NS_PER_S);
    assert_int_equal(k->s->modules[2].rec.pool, 0);
    assert_int_equal(k->s->modules[2].rec.draining, 0);
    check_full(k);
    desk_end(k);
}

/* Away for longer than the setting: its copies are made elsewhere, not sooner. */
static void test_away(void **state)
{
    (void)state;
    struct desk *k = desk_new(2, 4);
    const unsigned had = held(k, 3);
    memset(k->least, 0, sizeof(k->least));
    gone(k, 3);
    for (unsigned i = 0; i < 60; i++) {
        memset(k->least, 0, sizeof(k->least));
        look(k, 9 * NS_PER_S);
        assert_int_equal(held(k, 3), had);
    }
    for (unsigned i = 0; i < 10; i++)
        look(k, 9 * NS_PER_S);
    assert_int_equal(k->s->pools[0].moving.away, 1);
    const unsigned filled = run(k); /* what it had, and what balances the three that are left */
    assert_true(filled >= had && filled <= had + 3);
    assert_int_equal(held(k, 3), 0);
    check_full(k);
    start(k, 3); /* it is back: as an empty one */
    (void)run(k);
    assert_int_equal(held(k, 3), had);
    check_full(k);
    desk_end(k);
}

/* Back before: it is only caught up. */
static void test_back_in_time(void **state)
{
    (void)state;
    struct desk *k = desk_new(2, 4);
    const unsigned had = held(k, 3);
    gone(k, 3);
    memset(k->least, 0, sizeof(k->least));
    look(k, NS_PER_S);
    look(k, 300 * NS_PER_S);
    start(k, 3);
    assert_int_equal(held(k, 3), had);
    assert_true(run(k) <= had);
    assert_int_equal(held(k, 3), had);
    check_full(k);
    desk_end(k);
}

/* Nobody is there to take the copies of one that is away: it stays a member, and nobody is dropped. */
static void test_away_without_room(void **state)
{
    (void)state;
    struct desk *k = desk_new(2, 2);
    gone(k, 2);
    look(k, NS_PER_S);
    for (unsigned i = 0; i < 100; i++)
        look(k, 9 * NS_PER_S);
    assert_int_equal(held(k, 2), PARTITIONS);
    assert_int_equal(k->s->pools[0].moving.missing, 1);
    start(k, 2);
    assert_true(run(k) > 0);
    check_full(k);
    (void)drain(k, 1, false, STATUS_INVALID);
    desk_end(k);
}

static unsigned in_sync_at(struct desk *k, uint32_t module)
{
    unsigned n = 0;
    for (unsigned i = 0; i < PARTITIONS; i++)
        for (unsigned m = 0; m < TABLE_MEMBERS_MAX; m++)
            n += part(k, i)->members[m] == (module | IN_SYNC);
    return n;
}

/* Whoever is in sync stays it, so no copy is lost on the way. */
static void damaged_is_replaced(bool restarts)
{
    struct desk *k = desk_new(2, 4);
    const unsigned had = held(k, 3);
    k->damaged[3] = true;
    if (restarts) {
        gone(k, 3);
        memset(k->least, 0, sizeof(k->least));
        start(k, 3);
        assert_int_equal(in_sync_at(k, 3), 0);
    }
    for (unsigned i = 0; i < 66; i++) {
        look(k, 9 * NS_PER_S);
        assert_int_equal(held(k, 3), had);
        assert_int_equal(in_sync_at(k, 3), restarts ? 0 : had);
    }
    for (unsigned i = 0; i < 3; i++)
        look(k, 9 * NS_PER_S);
    assert_int_equal(k->s->pools[0].moving.away, 1);
    (void)run(k);
    assert_int_equal(held(k, 3), 0);
    assert_int_equal(k->s->pools[0].moving.leaving + k->s->pools[0].moving.waiting, 0);
    check_full(k);
    desk_end(k);
}

/* Damaged for longer than the setting: as one that is away, whether it began with a start or not. */
static void test_damaged(void **state)
{
    (void)state;
    damaged_is_replaced(false);
    damaged_is_replaced(true);
}

/* Its store is made anew, or was not damaged after all: the time counts from when it was last said. */
static void test_damaged_and_well_again(void **state)
{
    (void)state;
    struct desk *k = desk_new(2, 4);
    const unsigned had = held(k, 3);
    for (unsigned i = 0; i < 140; i++) {
        k->damaged[3] = i % 30 != 29; /* well for a moment, each 300 s */
        look(k, 10 * NS_PER_S);
        assert_int_equal(held(k, 3), had);
    }
    assert_true(k->s->modules[2].damaged_ns != 0);
    desk_end(k);
}

/* It has the only copy in sync: nobody could be filled from it, and it goes nowhere. */
static void test_damaged_alone(void **state)
{
    (void)state;
    struct record_partition before[PARTITIONS];
    struct desk *k = desk_new(1, 3);
    k->damaged[3] = true;
    look(k, NS_PER_S);
    memcpy(before, part(k, 0), sizeof(before));
    for (unsigned i = 0; i < 100; i++)
        look(k, 9 * NS_PER_S);
    assert_memory_equal(before, part(k, 0), sizeof(before));
    assert_int_equal(k->s->pools[0].moving.away, 0);
    assert_int_equal(k->s->pools[0].moving.stuck, 0);
    desk_end(k);

    k = desk_new(2, 3);
    gone(k, 2);
    memset(k->least, 0, sizeof(k->least));
    look(k, NS_PER_S);
    look(k, NS_PER_S);
    k->damaged[3] = true;
    for (unsigned i = 0; i < 100; i++)
        look(k, 9 * NS_PER_S);
    assert_int_equal(k->s->pools[0].moving.away, 2);
    assert_true(k->s->pools[0].moving.stuck > 0);
    (void)run(k);
    unsigned alone = 0;
    for (unsigned i = 0; i < PARTITIONS; i++) {
        assert_int_equal(copies_of(k, i, false), 2);
        alone += mdc_partition_primary(part(k, i)) == 3 && copies_of(k, i, true) == 1;
    }
    assert_true(alone > 0);
    assert_int_equal(k->s->pools[0].moving.stuck, alone);
    /* Nor is the other made equal to what is left there. */
    start(k, 2);
    for (unsigned i = 0; i < 200; i++) {
        look(k, 100 * NS_PER_MS);
        (void)fill_one(k, i % (alone + 1));
    }
    for (unsigned i = 0; i < PARTITIONS; i++)
        if (mdc_partition_primary(part(k, i)) == 3)
            alone -= copies_of(k, i, true) == 1;
    assert_int_equal(alone, 0);
    desk_end(k);
}

/* A restart of the controller loses nothing: the records say how far it was. */
static void test_restart_in_between(void **state)
{
    (void)state;
    struct desk *k = desk_new(2, 4);
    (void)drain(k, 1, false, STATUS_OK);
    look(k, 100 * NS_PER_MS);
    (void)fill_one(k, 0);
    look(k, 100 * NS_PER_MS);
    memset(&k->s->pools[0].moving, 0, sizeof(k->s->pools[0].moving));
    for (unsigned i = 0; i < MODULES; i++)
        k->s->modules[i].registered = false;
    uint64_t before[PARTITIONS];
    for (unsigned i = 0; i < PARTITIONS; i++)
        before[i] = part(k, i)->epoch;
    struct mdc_decision d = decision(k, 0);
    (void)mdc_move_is_due(k->s, k->now_ns);
    mdc_op_advance(&d); /* nobody was heard yet: nothing is begun */
    for (unsigned i = 0; i < PARTITIONS; i++)
        assert_true(part(k, i)->epoch == before[i]);
    for (unsigned i = 0; i < MODULES; i++)
        k->s->modules[i].registered = true;
    (void)run(k);
    assert_int_equal(held(k, 1), 0);
    check_full(k);
    desk_end(k);
}

/* Primaries of a new pool are spread from the start: nothing is handed over when it has been at rest. */
static void test_primaries_of_a_new_pool(void **state)
{
    (void)state;
    for (unsigned copies = 2; copies <= 3; copies++) {
        struct desk *k = desk_new(copies, 5);
        for (unsigned n = 1; n <= 5; n++) {
            assert_true(primary_of(k, n) * copies <= held(k, n) + copies - 1);
            assert_true(primary_of(k, n) * copies + copies - 1 >= held(k, n));
        }
        uint64_t epoch[PARTITIONS];
        for (unsigned i = 0; i < PARTITIONS; i++)
            epoch[i] = part(k, i)->epoch;
        for (unsigned i = 0; i < 40; i++)
            look(k, NS_PER_S);
        for (unsigned i = 0; i < PARTITIONS; i++)
            assert_true(part(k, i)->epoch == epoch[i]);
        desk_end(k);
    }
}

/* Primaries are spread when a module is back, one at a time, and only when all is at rest. */
static void test_primaries(void **state)
{
    (void)state;
    struct desk *k = desk_new(2, 4);
    gone(k, 2);
    memset(k->least, 0, sizeof(k->least));
    look(k, NS_PER_S);
    look(k, NS_PER_S);
    assert_int_equal(primary_of(k, 2), 0);
    start(k, 2);
    (void)run(k);
    assert_int_equal(primary_of(k, 2), 0);
    look(k, 11 * NS_PER_S);
    unsigned now = primary_of(k, 2);
    for (unsigned i = 0; i < 40; i++) {
        look(k, NS_PER_S);
        const unsigned next = primary_of(k, 2);
        assert_true(next <= now + 1);
        now = next;
    }
    assert_int_equal(now, PARTITIONS / 4);
    for (unsigned n = 1; n <= 4; n++)
        assert_int_equal(primary_of(k, n), PARTITIONS / 4);
    check_full(k);
    desk_end(k);
}

static uint32_t grow(struct desk *k, uint32_t partitions)
{
    struct mdc_pool_grow_request rq = {.name = "p", .partitions = partitions};
    struct mdc_pool_reply rep = {0};
    for (unsigned n = 1; n <= MODULES; n++) {
        if (k->session[n])
            beat(k, n);
    }
    struct mdc_decision d = decision(k, 1);
    return mdc_op_pool_grow(&d, &rq, &rep);
}

/* Twice as many partitions, each with the members of the one that it was part of; only while nothing moves.
 */
static void test_grow(void **state)
{
    (void)state;
    struct desk *k = desk_new(2, 4);
    look(k, NS_PER_S);
    assert_int_equal(grow(k, 17), STATUS_INVALID);
    assert_int_equal(grow(k, PARTITIONS), STATUS_INVALID);
    assert_int_equal(grow(k, 128), STATUS_NO_SPACE);
    gone(k, 4);
    assert_int_equal(grow(k, 0), STATUS_AGAIN);
    start(k, 4);
    memset(k->least, 0, sizeof(k->least));
    assert_int_equal(grow(k, 0), STATUS_AGAIN); /* its copies are not in sync */
    (void)run(k);
    uint32_t before[PARTITIONS][TABLE_MEMBERS_MAX];
    uint64_t highest = k->s->counters.highest_epoch;
    for (unsigned i = 0; i < PARTITIONS; i++)
        memcpy(before[i], part(k, i)->members, sizeof(before[i]));
    k->s->modules[1].leaving_blocks = 3;
    struct mdc_pool_grow_request rq = {.name = "p"};
    struct mdc_pool_reply rep = {0};
    struct mdc_decision d = decision(k, 1);
    assert_int_equal(mdc_op_pool_grow(&d, &rq, &rep), STATUS_AGAIN);
    assert_int_equal(grow(k, 0), STATUS_OK);
    assert_int_equal(k->s->pools[0].rec.partitions, 2 * PARTITIONS);
    for (unsigned i = 0; i < 2 * PARTITIONS; i++) {
        assert_memory_equal(part(k, i)->members, before[i % PARTITIONS], sizeof(before[0]));
        assert_true(part(k, i)->epoch > highest);
    }
    assert_int_equal(held(k, 1), 2 * PARTITIONS / 4); /* of the first half alone */
    desk_end(k);
}

/* Whoever leaves by a decision of the same batch cannot have heard of it, and has still to remove what it
 * had. */
static void test_grow_beside_a_move(void **state)
{
    (void)state;
    struct desk *k = desk_new(1, 4);
    struct mdc_pool_grow_request rq = {.name = "p"};
    struct mdc_pool_reply rep = {0};
    unsigned refused = 0;
    look(k, NS_PER_S);
    (void)drain(k, 1, false, STATUS_OK);
    for (unsigned i = 0; i < 200; i++) {
        (void)decision(k, 0);     /* all that was decided is published, and heard of */
        look(k, 100 * NS_PER_MS); /* the batch begins with that */
        struct mdc_decision d = {
            .state = k->s, .tx = &k->tx, .now_ns = k->now_ns, .session = k->session[1], .error = &k->error};
        if (mdc_tx_publishes(&k->tx) && ++refused)
            assert_int_equal(mdc_op_pool_grow(&d, &rq, &rep), STATUS_AGAIN);
        (void)fill_one(k, 0);
    }
    assert_true(refused > 0);
    assert_int_equal(held(k, 1), 0);
    assert_int_equal(grow(k, 0), STATUS_OK);
    desk_end(k);
}

/* Goes on as it was; only its session was lost. */
static void connect_again(struct desk *k, unsigned n, uint64_t highest_epoch)
{
    struct mdc_session_request sr = {.name = "n"};
    struct mdc_module_register_request rq = {.start_counter = k->starts[n],
                                             .accepted_start = k->starts[n],
                                             .incarnation = k->incarnation[n] + 100 * n,
                                             .module = n,
                                             .kind = TABLE_MODULE_OSD,
                                             .media = TABLE_MEDIA_SSD,
                                             .capacity_bytes = GIB,
                                             .highest_epoch = highest_epoch};
    struct mdc_module_register_reply rep = {0};
    gone(k, n);
    snprintf(sr.host, sizeof(sr.host), "h%u", n);
    k->session[n] = mdc_session_add(k->s, &sr, k->now_ns);
    rq.accepted_incarnation = rq.incarnation;
    rq.store.b[0] = (uint8_t)n;
    snprintf(rq.host, sizeof(rq.host), "h%u", n);
    snprintf(rq.name, sizeof(rq.name), "m%u", n);
    struct mdc_decision d = decision(k, n);
    assert_int_equal(mdc_op_module_register(&d, &rq, &rep), STATUS_OK);
}

static bool is_member(const struct record_partition *p, unsigned module)
{
    bool member = false;
    for (unsigned i = 0; i < TABLE_MEMBERS_MAX; i++)
        member |= TABLE_MEMBER_ID(p->members[i]) == module;
    return member;
}

/*
 * The highest epoch that a module has accepted may be of a partition that it has left since. That is no sign
 * of a store that knows too little: it stays in sync everywhere, and nothing gets a new epoch.
 */
static void test_highest_epoch_of_one_that_was_left(void **state)
{
    (void)state;
    struct desk *k = desk_new(2, 4);
    struct record_partition before[PARTITIONS];
    unsigned at = 0, m = 0;
    while (TABLE_MEMBER_ID(part(k, at)->members[m]) != 2) {
        m = (m + 1) % TABLE_MEMBERS_MAX;
        at += m == 0;
    }
    /* Another module has its place, by two later epochs; it has accepted the last one of them. */
    unsigned other = 1;
    while (other == 2 || is_member(part(k, at), other))
        other++;
    part(k, at)->members[m] = other | IN_SYNC;
    part(k, at)->epoch += 2;
    k->s->counters.highest_epoch = max_u64(k->s->counters.highest_epoch, part(k, at)->epoch);
    assert_true(held(k, 2) > 0);
    memcpy(before, part(k, 0), sizeof(before));
    connect_again(k, 2, part(k, at)->epoch);
    assert_memory_equal(before, part(k, 0), sizeof(before));
    desk_end(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_copy),
        cmocka_unit_test(test_two_copies),
        cmocka_unit_test(test_remove),
        cmocka_unit_test(test_away),
        cmocka_unit_test(test_back_in_time),
        cmocka_unit_test(test_away_without_room),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_damaged_and_well_again),
        cmocka_unit_test(test_damaged_alone),
        cmocka_unit_test(test_highest_epoch_of_one_that_was_left),
        cmocka_unit_test(test_restart_in_between),
        cmocka_unit_test(test_primaries_of_a_new_pool),
        cmocka_unit_test(test_primaries),
        cmocka_unit_test(test_grow),
        cmocka_unit_test(test_grow_beside_a_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
