/* rwm_stage.h: a module, the other one, and block 0 of volume 1 that both have whole: what tests of repair
 * begin with. Their programs are linked with --wrap for pool_get and pool_create. */
#ifndef CISTERN_TESTS_RWM_STAGE_H
#define CISTERN_TESTS_RWM_STAGE_H

#include "common/pool.h"
#include "tests/unit/rwm_other.h"

#define STAGE_LAYER 101u
struct stage {
    struct fix f;
    struct other o;
    struct fix_conn c;
};

static uint8_t buf[BLOCK_BYTES] __attribute__((aligned(4096))),
    back[BLOCK_BYTES] __attribute__((aligned(4096)));

/* pool_get finds nothing once, the nth time from now (0 = never), in the pools whose users come back by
 * themselves; for the others an object that comes back is what wakes them, and there is one out when there is
 * none. */
static unsigned no_memory;
static const struct pool *frail[8];
static unsigned frail_count;
static bool no_list; /* of what changes */
/* So many objects for writes on their way to members are lacking from now on. */
static const struct pool *forwards;
static unsigned no_forwards;
int __real_pool_create(struct loop *loop, const char *name, size_t size, size_t align, size_t count,
                       struct pool **out);
int __wrap_pool_create(struct loop *loop, const char *name, size_t size, size_t align, size_t count,
                       struct pool **out);
void *__real_pool_get(struct pool *pool);
void *__wrap_pool_get(struct pool *pool);

int __wrap_pool_create(struct loop *loop, const char *name, size_t size, size_t align, size_t count,
                       struct pool **out)
{
    static const char *const frails[] = {
        "rwm repairs",           "rwm repair pieces",           "rwm lookups",
        "rwm blocks to members", "rwm blocks to be made equal", "rwm blocks to be brought up",
        "rwm recent versions",   "rwm changed blocks"};
    if (no_list && strcmp(name, "rwm changed blocks") == 0)
        return -ENOMEM;
    int rc = __real_pool_create(loop, name, size, align, count, out);
    if (rc == 0 && strcmp(name, "rwm forwards") == 0)
        forwards = *out;
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(frails); i++)
        if (strcmp(name, frails[i]) == 0)
            frail[frail_count++ % ARRAY_LEN(frail)] = *out;
    return rc;
}

void *__wrap_pool_get(struct pool *pool)
{
    bool may_fail = false;
    if (pool == forwards && no_forwards > 0) {
        no_forwards--;
        return NULL;
    }
    for (unsigned i = 0; i < ARRAY_LEN(frail); i++)
        may_fail |= frail[i] == pool;
    return may_fail && no_memory > 0 && --no_memory == 0 ? NULL : __real_pool_get(pool);
}

static inline void pattern(uint8_t seed)
{
    for (size_t i = 0; i < sizeof(buf); i++)
        buf[i] = (uint8_t)(i / UNIT_BYTES * 7 + i % 251 + seed);
}

/* Both have block 0, whole. */
static inline void stage_up(struct stage *s)
{
    other_begin(&s->f, &s->o, &s->c, 60);
    pattern(1);
    assert_int_equal(fix_io(&s->c, BLOCK_METHOD_WRITE, 0, BLOCK_BYTES, buf), STATUS_OK);
    other_mirror(&s->o);
}

static inline void stage_down(struct stage *s)
{
    no_memory = no_forwards = 0;
    other_end(&s->f, &s->o, &s->c);
}

static inline struct fake_block *here(struct stage *s)
{
    struct fake_block *b = fake_medium_block(s->f.medium, STAGE_LAYER, 0);
    assert_non_null(b);
    return b;
}

static inline struct fake_block *there(struct stage *s)
{
    struct fake_block *b = other_block(&s->o, STAGE_LAYER, 0);
    assert_non_null(b);
    return b;
}

static inline struct rwm_stats stats_of(struct stage *s)
{
    struct rwm_stats st;
    rwm_stats_get(s->f.rwm, &st);
    return st;
}

static inline uint32_t read_all(struct stage *s)
{
    memset(back, 0xee, sizeof(back));
    return fix_io(&s->c, BLOCK_METHOD_READ, 0, BLOCK_BYTES, back);
}

#endif
