/*
 * test_rwm_heal.c: what cannot be read is repaired from another copy (rwm_rot.c), and what nobody reads is
 * looked after (rwm_scrub.c). Each story is told once as it should go, and again with one fault at every step
 * of it.
 */
#include "tests/unit/rwm_stage.h"

#include "common/log.h"

/* ---- repair ---- */
static void read_is_repaired(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    here(&s)->rotten = 1u << 3 | 1u << 31;
    assert_int_equal(read_all(&s), STATUS_OK);
    assert_memory_equal(back, buf, BLOCK_BYTES);
    assert_int_equal(here(&s)->rotten, 0);
    assert_int_equal(s.o.asked[COPY_METHOD_FETCH], 1);
    assert_int_equal(stats_of(&s).repaired_units, 2);
    assert_int_equal(stats_of(&s).rotten_units, 2);
    /* The version is what it was: nobody else has to hear of it. */
    assert_int_equal(version_cmp(here(&s)->version, there(&s)->version), 0);
    stage_down(&s);
}

static void merge_is_repaired(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    here(&s)->rotten = 1u << 3;
    memset(buf + 3 * UNIT_BYTES + 512, 0x77, 512);
    assert_int_equal(fix_io(&s.c, BLOCK_METHOD_WRITE, 3 * UNIT_BYTES + 512, 512, buf + 3 * UNIT_BYTES + 512),
                     STATUS_OK);
    assert_int_equal(read_all(&s), STATUS_OK);
    assert_memory_equal(back, buf, BLOCK_BYTES);
    assert_memory_equal(there(&s)->data, buf, BLOCK_BYTES);
    stage_down(&s);
}

/* Nothing is known of the block here: it becomes what the other one has. */
static void lost_metadata_are_replaced(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    here(&s)->suspect = true;
    assert_int_equal(read_all(&s), STATUS_OK);
    assert_memory_equal(back, buf, BLOCK_BYTES);
    assert_false(here(&s)->suspect);
    assert_int_equal(version_cmp(here(&s)->version, there(&s)->version), 0);
    /* A write finds it out, too, and does not go over what it does not know. */
    here(&s)->suspect = true;
    fix_run(&s.f, NS_PER_S);
    assert_int_equal(fix_io(&s.c, BLOCK_METHOD_WRITE, UNIT_BYTES + 512, 512, buf + UNIT_BYTES + 512),
                     STATUS_OK);
    assert_int_equal(read_all(&s), STATUS_OK);
    assert_memory_equal(back, buf, BLOCK_BYTES);
    /* The other one has nothing: then there is nothing. */
    here(&s)->suspect = true;
    there(&s)->used = false;
    assert_int_equal(read_all(&s), STATUS_OK);
    memset(buf, 0, sizeof(buf));
    assert_memory_equal(back, buf, BLOCK_BYTES);
    stage_down(&s);
}

/* Lost in both: an error for that unit alone, until it is written. */
static void what_nobody_has_is_an_error(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    here(&s)->rotten = 1u << 3 | 1u << 4;
    there(&s)->rotten = 1u << 4 | 1u << 9;
    assert_int_equal(read_all(&s), STATUS_DAMAGED);
    assert_int_equal(stats_of(&s).unrepairable_units, 1);
    assert_int_equal(fix_io(&s.c, BLOCK_METHOD_READ, 3 * UNIT_BYTES, UNIT_BYTES, back), STATUS_OK);
    assert_memory_equal(back, buf + 3 * UNIT_BYTES, UNIT_BYTES);
    assert_int_equal(fix_io(&s.c, BLOCK_METHOD_READ, 4 * UNIT_BYTES, UNIT_BYTES, back), STATUS_DAMAGED);
    assert_int_equal(fix_io(&s.c, BLOCK_METHOD_WRITE, 4 * UNIT_BYTES, UNIT_BYTES, buf + 4 * UNIT_BYTES),
                     STATUS_OK);
    assert_int_equal(read_all(&s), STATUS_OK);
    assert_memory_equal(back, buf, BLOCK_BYTES);
    stage_down(&s);
}

/* What is rotten there and whole here is sent to it, with what it helped out with. */
static void member_is_healed_too(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    here(&s)->rotten = 1u << 3;
    there(&s)->rotten = 1u << 5;
    assert_int_equal(read_all(&s), STATUS_OK);
    fix_run(&s.f, 100 * NS_PER_MS);
    assert_int_equal(s.o.asked[COPY_METHOD_REPLACE], 1);
    assert_int_equal(there(&s)->rotten, 0);
    assert_memory_equal(there(&s)->data, buf, BLOCK_BYTES);
    assert_int_equal(stats_of(&s).repaired_units, 2);
    stage_down(&s);
}

/* Other bytes under the same version, or another version at rest: not taken, and counted. */
static void differing_copies_help_nobody(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    here(&s)->rotten = 1u << 3;
    there(&s)->data[3 * UNIT_BYTES] ^= 1;
    assert_int_equal(fix_io(&s.c, BLOCK_METHOD_READ, 3 * UNIT_BYTES, UNIT_BYTES, back), STATUS_DAMAGED);
    assert_int_equal(stats_of(&s).differing_blocks, 1);
    there(&s)->data[3 * UNIT_BYTES] ^= 1;
    there(&s)->version.counter++;
    assert_int_equal(fix_io(&s.c, BLOCK_METHOD_READ, 3 * UNIT_BYTES, UNIT_BYTES, back), STATUS_DAMAGED);
    assert_int_equal(stats_of(&s).differing_blocks, 2);
    there(&s)->version.counter--;
    there(&s)->written &= ~1u;
    assert_int_equal(fix_io(&s.c, BLOCK_METHOD_READ, 3 * UNIT_BYTES, UNIT_BYTES, back), STATUS_DAMAGED);
    assert_int_equal(stats_of(&s).differing_blocks, 3);
    there(&s)->written |= 1u;
    assert_int_equal(read_all(&s), STATUS_OK);
    stage_down(&s);
}

/* One that cannot be asked is waited for, until it answers or an epoch is without it. */
static void member_away_is_waited_for(void **state)
{
    struct stage s;
    struct fix_req r;
    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        stage_up(&s);
        here(&s)->rotten = 1u << 3;
        s.o.act[COPY_METHOD_FETCH] = (struct other_act){
            .silent = how == 0, .status = how == 1 ? STATUS_NOT_SERVING : 0, .bad_crc = how == 2};
        if (how == 3) {
            s.o.act[COPY_METHOD_FETCH].silent = true;
            s.o.act[COPY_METHOD_JOIN].status = STATUS_NOT_SERVING;
        }
        fix_request(&s.f, &r, 3 * UNIT_BYTES, UNIT_BYTES);
        fix_send(&s.c, &r, BLOCK_METHOD_READ, back);
        fix_run(&s.f, 400 * NS_PER_MS);
        assert_false(r.done);
        assert_true(s.o.asked[COPY_METHOD_FETCH] > 0);
        if (how < 3) {
            memset(&s.o.act, 0, sizeof(s.o.act));
            other_release(&s.o, STATUS_NOT_SERVING);
            fix_wait(&s.f, &r);
            assert_int_equal(r.status, STATUS_OK);
            assert_memory_equal(back, buf + 3 * UNIT_BYTES, UNIT_BYTES);
        } else {
            other_members(&s.o, 1 | OTHER_SYNC, 2);
            fix_run(&s.f, 200 * NS_PER_MS);
            other_release(&s.o, STATUS_STALE_EPOCH);
            fix_wait(&s.f, &r);
            assert_true(r.status == STATUS_DAMAGED || r.status == STATUS_STALE_EPOCH);
        }
        stage_down(&s);
    }
}

/* More at once than there are objects for: the rest waits its turn. */
static void many_repairs_wait_their_turn(void **state)
{
    struct stage s;
    struct fix_req r[8];
    (void)state;
    stage_up(&s);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(fix_io(&s.c, BLOCK_METHOD_WRITE, i * BLOCK_BYTES, UNIT_BYTES, buf), STATUS_OK);
        fake_medium_block(s.f.medium, STAGE_LAYER, i)->rotten = 1;
    }
    other_mirror(&s.o);
    for (unsigned i = 0; i < 8; i++)
        other_block(&s.o, STAGE_LAYER, i)->rotten = 0;
    s.o.act[COPY_METHOD_FETCH].silent = true;
    for (unsigned i = 0; i < 8; i++) {
        fix_request(&s.f, &r[i], i * BLOCK_BYTES, UNIT_BYTES);
        fix_send(&s.c, &r[i], BLOCK_METHOD_READ, back + i * UNIT_BYTES);
    }
    fix_run(&s.f, 200 * NS_PER_MS);
    assert_int_equal(s.o.asked[COPY_METHOD_FETCH], 4);
    s.o.act[COPY_METHOD_FETCH].silent = false;
    other_release(&s.o, STATUS_NOT_SERVING);
    for (unsigned i = 0; i < 8; i++) {
        fix_wait(&s.f, &r[i]);
        assert_int_equal(r[i].status, STATUS_OK);
        assert_memory_equal(back + i * UNIT_BYTES, buf, UNIT_BYTES);
        assert_int_equal(fake_medium_block(s.f.medium, STAGE_LAYER, i)->rotten, 0);
    }
    assert_int_equal(stats_of(&s).repaired_units, 8);
    stage_down(&s);
}

/* Two reads of one block share its repair. */
static void readers_share_a_repair(void **state)
{
    struct stage s;
    struct fix_req a, b;
    (void)state;
    stage_up(&s);
    here(&s)->rotten = 1u << 3 | 1u << 4;
    s.o.act[COPY_METHOD_FETCH].silent = true;
    fix_request(&s.f, &a, 3 * UNIT_BYTES, UNIT_BYTES);
    fix_send(&s.c, &a, BLOCK_METHOD_READ, back);
    fix_request(&s.f, &b, 4 * UNIT_BYTES, UNIT_BYTES);
    fix_send(&s.c, &b, BLOCK_METHOD_READ, back + UNIT_BYTES);
    fix_run(&s.f, 100 * NS_PER_MS);
    assert_int_equal(s.o.asked[COPY_METHOD_FETCH], 1);
    s.o.act[COPY_METHOD_FETCH].silent = false;
    other_release(&s.o, STATUS_NOT_SERVING);
    fix_wait(&s.f, &a);
    fix_wait(&s.f, &b);
    assert_int_equal(a.status, STATUS_OK);
    assert_int_equal(b.status, STATUS_OK);
    assert_memory_equal(back, buf + 3 * UNIT_BYTES, 2 * UNIT_BYTES);
    stage_down(&s);
}

/* ---- one fault at every step ---- */
enum fault {
    FAULT_READ,
    FAULT_STAT,
    FAULT_WRITE,
    FAULT_BUSY_READ,
    FAULT_BUSY_STAT,
    FAULT_BUSY_WRITE,
    FAULT_SPACE,
    FAULT_MEMORY,
    FAULT_PEER_GONE,
    FAULT_PEER_BAD,
    FAULTS
};

static void fault_plant(struct stage *s, enum fault fault, unsigned nth)
{
    static const enum fake_kind kinds[] = {FAKE_READ, FAKE_STAT, FAKE_WRITE};
    struct fake_medium *m = s->f.medium;
    if (fault <= FAULT_WRITE)
        m->fail = (struct fake_fault){kinds[fault], nth, -EIO};
    else if (fault <= FAULT_BUSY_WRITE)
        m->refuse = (struct fake_fault){kinds[fault - FAULT_BUSY_READ], nth, -EAGAIN};
    else if (fault == FAULT_SPACE)
        m->refuse = (struct fake_fault){FAKE_WRITE, nth, -ENOSPC};
    else if (fault == FAULT_MEMORY)
        no_memory = nth;
    else if (fault == FAULT_PEER_GONE)
        s->o.act[nth == 1   ? COPY_METHOD_FETCH
                 : nth == 2 ? COPY_METHOD_REPLACE
                            : COPY_METHOD_CHECK]
            .closes = true;
    else
        s->o.act[COPY_METHOD_FETCH].bad_crc = true;
}

static bool fault_hit(struct stage *s, enum fault fault, unsigned nth)
{
    struct fake_medium *m = s->f.medium;
    bool hit = fault <= FAULT_WRITE       ? m->fail.nth == 0
               : fault <= FAULT_SPACE     ? m->refuse.nth == 0
               : fault == FAULT_MEMORY    ? no_memory == 0
               : fault == FAULT_PEER_GONE ? nth <= 3
                                          : nth == 1;
    m->fail.nth = m->refuse.nth = no_memory = 0;
    memset(s->o.act, 0, sizeof(s->o.act));
    return hit;
}

/* With the fault gone the same is asked for again until it works: nothing may be stuck, or wrong. */
static void read_until_right(struct stage *s)
{
    uint32_t status = STATUS_IO;
    for (unsigned i = 0; i < 20 && status != STATUS_OK; i++) {
        fix_run(&s->f, 200 * NS_PER_MS);
        status = read_all(s);
        assert_true(status == STATUS_OK || status == STATUS_IO || status == STATUS_DAMAGED ||
                    status == STATUS_NOT_SERVING);
    }
    assert_int_equal(status, STATUS_OK);
    assert_memory_equal(back, buf, BLOCK_BYTES);
    assert_int_equal(s->f.failed_rc, 0);
}

typedef void (*story)(struct stage *s);

static void every_fault(story told)
{
    for (enum fault fault = 0; fault < FAULTS; fault++) {
        unsigned nth = 1;
        bool hit = true;
        for (; hit; nth++) {
            struct stage s;
            stage_up(&s);
            fault_plant(&s, fault, nth);
            told(&s);
            hit = fault_hit(&s, fault, nth);
            /* What has a version, and may be at the other one, the own store has to take: else the module
             * starts again. */
            if (s.f.failed_rc == 0 || fault != FAULT_WRITE)
                read_until_right(&s);
            stage_down(&s);
            assert_true(nth < 300);
        }
    }
}

static void one_step(struct stage *s, struct fix_req *r)
{
    for (unsigned i = 0; i < 40 && !r->done; i++)
        fix_run(&s->f, 50 * NS_PER_MS);
    memset(s->o.act, 0, sizeof(s->o.act)); /* a peer that answers nonsense for ever is waited for, for ever */
    fix_wait(&s->f, r);
}

static void story_read(struct stage *s)
{
    struct fix_req r;
    here(s)->rotten = 1u << 3;
    there(s)->rotten = 1u << 7;
    fix_request(&s->f, &r, 2 * UNIT_BYTES, 3 * UNIT_BYTES);
    fix_send(&s->c, &r, BLOCK_METHOD_READ, back);
    one_step(s, &r);
    if (r.status == STATUS_OK)
        assert_memory_equal(back, buf + 2 * UNIT_BYTES, 3 * UNIT_BYTES);
}

static void story_suspect(struct stage *s)
{
    struct fix_req r;
    here(s)->suspect = true;
    fix_request(&s->f, &r, 0, UNIT_BYTES);
    fix_send(&s->c, &r, BLOCK_METHOD_READ, back);
    one_step(s, &r);
    if (r.status == STATUS_OK)
        assert_memory_equal(back, buf, UNIT_BYTES);
}

static void story_merge(struct stage *s)
{
    struct fix_req r;
    here(s)->rotten = 1u << 3;
    fix_request(&s->f, &r, 3 * UNIT_BYTES + 512, 512);
    fix_send(&s->c, &r, BLOCK_METHOD_WRITE, buf + 3 * UNIT_BYTES + 512); /* what is there already */
    one_step(s, &r);
}

static void story_scrub(struct stage *s)
{
    here(s)->rotten = 1u << 3;
    there(s)->rotten = 1u << 7;
    s->f.mdc->scrub = loop_wall_ns(s->f.server.loop);
    fix_run(&s->f, 8 * NS_PER_S);
}

static void faults_of_a_read(void **state)
{
    (void)state;
    every_fault(story_read);
}
static void faults_of_lost_metadata(void **state)
{
    (void)state;
    every_fault(story_suspect);
}
static void faults_of_a_merge(void **state)
{
    (void)state;
    every_fault(story_merge);
}

/* ---- scrub ---- */
static void scrub(struct stage *s)
{
    s->f.mdc->scrub = loop_wall_ns(s->f.server.loop);
    fix_run(&s->f, 30 * NS_PER_MS);
    for (unsigned i = 0; i < 400 && (stats_of(s).scrub.ended_ns == 0 || stats_of(s).scrub.running); i++)
        fix_run(&s->f, 50 * NS_PER_MS);
    assert_false(stats_of(s).scrub.running);
    assert_true(stats_of(s).scrub.ended_ns > 0);
}

static void scrub_repairs_both(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    story_scrub(&s);
    assert_false(stats_of(&s).scrub.running);
    assert_int_equal(here(&s)->rotten, 0);
    assert_int_equal(there(&s)->rotten, 0);
    assert_memory_equal(here(&s)->data, buf, BLOCK_BYTES);
    assert_memory_equal(there(&s)->data, buf, BLOCK_BYTES);
    assert_int_equal(stats_of(&s).scrub.checked_blocks, 1);
    assert_int_equal(stats_of(&s).scrub.rotten, 2);
    assert_int_equal(stats_of(&s).scrub.repaired, 2);
    assert_int_equal(stats_of(&s).scrub.lost, 0);
    assert_int_equal(stats_of(&s).scrub.differing, 0);
    stage_down(&s);
}

/* What differs is looked at twice, then counted; an older or equal version is sent the block, a later one is
 * left. */
static void scrub_finds_what_differs(void **state)
{
    struct stage s;
    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        stage_up(&s);
        if (how == 0) {
            there(&s)->data[0] ^= 1;
            there(&s)->crcs[0] ^= 1;
        } else if (how == 1) {
            there(&s)->version.counter--;
        } else if (how == 2) {
            there(&s)->version.counter++;
        } else {
            there(&s)->used = false;
        }
        scrub(&s);
        assert_int_equal(stats_of(&s).scrub.differing, 1);
        assert_int_equal(s.o.asked[COPY_METHOD_CHECK], 2);
        assert_int_equal(s.o.asked[COPY_METHOD_REPLACE], how != 2);
        if (how != 2)
            assert_memory_equal(there(&s)->data, buf, BLOCK_BYTES);
        stage_down(&s);
    }
}

/* A member that cannot tell anything of its block is sent it; one that refuses is looked at again. */
static void scrub_of_a_member_that_cannot_tell(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    s.o.act[COPY_METHOD_CHECK].status = STATUS_DAMAGED;
    scrub(&s);
    assert_int_equal(s.o.asked[COPY_METHOD_REPLACE], 1);
    assert_int_equal(stats_of(&s).scrub.rotten, UNITS_PER_BLOCK);
    s.o.act[COPY_METHOD_CHECK].status = STATUS_NOT_SERVING;
    s.f.mdc->scrub = loop_wall_ns(s.f.server.loop);
    fix_run(&s.f, 5 * NS_PER_S);
    assert_true(stats_of(&s).scrub.running);
    assert_true(s.o.asked[COPY_METHOD_CHECK] > 3);
    s.o.act[COPY_METHOD_CHECK].status = 0;
    fix_run(&s.f, 5 * NS_PER_S);
    assert_false(stats_of(&s).scrub.running);
    stage_down(&s);
}

static void scrub_stops_when_told(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    s.o.act[COPY_METHOD_CHECK].silent = true;
    s.f.mdc->scrub = loop_wall_ns(s.f.server.loop);
    fix_run(&s.f, 3 * NS_PER_S);
    assert_true(stats_of(&s).scrub.running);
    s.f.mdc->scrub = MDC_SCRUB_STOP;
    fix_run(&s.f, 100 * NS_PER_MS);
    other_release(&s.o, STATUS_OK); /* an empty answer */
    s.o.act[COPY_METHOD_CHECK].silent = false;
    fix_run(&s.f, 3 * NS_PER_S);
    assert_false(stats_of(&s).scrub.running);
    assert_int_equal(s.o.asked[COPY_METHOD_CHECK], 1);
    stage_down(&s);
}

/* The member that was asked leaves before it answers, and another one takes its place. */
static void scrub_asks_one_that_leaves(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    s.o.act[COPY_METHOD_CHECK].silent = true;
    s.f.mdc->scrub = loop_wall_ns(s.f.server.loop);
    for (unsigned i = 0; i < 100 && s.o.kept_count == 0; i++)
        fix_run(&s.f, 50 * NS_PER_MS);
    assert_int_equal(s.o.kept_count, 1);
    s.f.mdc->scrub = 0;
    other_members(&s.o, 1 | OTHER_SYNC, 3);
    fix_run(&s.f, 30 * NS_PER_MS);
    memset(s.o.act, 0, sizeof(s.o.act));
    other_release(&s.o, STATUS_NOT_SERVING);
    fix_run(&s.f, 5 * NS_PER_S);
    assert_int_equal(s.f.failed_rc, 0);
    assert_int_equal(fix_io(&s.c, BLOCK_METHOD_WRITE, 0, UNIT_BYTES, buf), STATUS_OK);
    stage_down(&s);
}

/* Alone: what is rotten is counted, and lost. */
static void scrub_of_one_copy(void **state)
{
    struct stage s;
    (void)state;
    stage_up(&s);
    other_members(&s.o, 1 | OTHER_SYNC, 0);
    fix_run(&s.f, NS_PER_S);
    here(&s)->rotten = 1u << 3 | 1u << 5;
    scrub(&s);
    assert_int_equal(stats_of(&s).scrub.checked_blocks, 1);
    assert_int_equal(stats_of(&s).scrub.rotten, 2);
    assert_int_equal(stats_of(&s).scrub.lost, 2);
    assert_int_equal(s.o.asked[COPY_METHOD_CHECK], 0);
    stage_down(&s);
}

static void faults_of_a_scrub(void **state)
{
    (void)state;
    every_fault(story_scrub);
}

int main(void)
{
    log_set_level(LOG_ERROR_);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_is_repaired),
        cmocka_unit_test(merge_is_repaired),
        cmocka_unit_test(lost_metadata_are_replaced),
        cmocka_unit_test(what_nobody_has_is_an_error),
        cmocka_unit_test(member_is_healed_too),
        cmocka_unit_test(differing_copies_help_nobody),
        cmocka_unit_test(member_away_is_waited_for),
        cmocka_unit_test(many_repairs_wait_their_turn),
        cmocka_unit_test(readers_share_a_repair),
        cmocka_unit_test(faults_of_a_read),
        cmocka_unit_test(faults_of_lost_metadata),
        cmocka_unit_test(faults_of_a_merge),
        cmocka_unit_test(scrub_repairs_both),
        cmocka_unit_test(scrub_finds_what_differs),
        cmocka_unit_test(scrub_of_a_member_that_cannot_tell),
        cmocka_unit_test(scrub_stops_when_told),
        cmocka_unit_test(scrub_asks_one_that_leaves),
        cmocka_unit_test(scrub_of_one_copy),
        cmocka_unit_test(faults_of_a_scrub),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
