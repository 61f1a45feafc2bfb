/* scripts.c: one kind of operation each, over a store whose blocks are in many states. */
#include "tests/torture/torture.h"

static void put(struct torture *t, enum request_kind kind, unsigned block, uint32_t first, uint32_t count)
{
    torture_submit(t, kind, block, first, count, false);
}

static void put_and_wait(struct torture *t, enum request_kind kind, unsigned block, uint32_t first,
                         uint32_t count)
{
    put(t, kind, block, first, count);
    torture_wait(t);
}

/* ---- the state that scripts begin with ---- */
static void prepare_blocks(struct torture *t)
{
    put_and_wait(t, DO_WRITE, 1, 0, 32);
    put_and_wait(t, DO_WRITE, 2, 0, 4);
    put_and_wait(t, DO_WRITE, 3, 0, 8);
    put_and_wait(t, DO_WRITE, 4, 2, 5);
    put_and_wait(t, DO_CLEAR, 4, 0, 32); /* all hole, with a version */
    put_and_wait(t, DO_WRITE, 5, 0, 32);
    put_and_wait(t, DO_CLEAR, 5, 8, 8);
    put_and_wait(t, DO_WRITE, 6, 0, 32);
    put_and_wait(t, DO_WRITE, 7, 0, 32);
    put_and_wait(t, DO_REMOVE, 7, 0, 32);
    put_and_wait(t, DO_WRITE, 8, 0, 32);
    put_and_wait(t, DO_WRITE, 9, 5, 1);
    for (unsigned r = 0; r < RECORDS; r++)
        torture_submit_record(t, r);
    torture_wait(t);
}

void torture_prepare(struct torture *t, const struct script *script, bool pmem)
{
    torture_make_media(t, pmem);
    torture_format_and_open(t);
    prepare_blocks(t);
    CHECK(t, torture_close(t) == 0 && torture_open(t) == 0, "preparing");
    put_and_wait(t, DO_WRITE, 3, 2, 1); /* in the journal only, as what follows */
    put_and_wait(t, DO_WRITE, 1, 31, 1);
    put_and_wait(t, DO_WRITE, 6, 0, 32);
    put_and_wait(t, DO_WRITE, 9, 6, 3);
    torture_submit_record(t, 1);
    torture_wait(t);
    torture_drain(t);
    torture_abandon(t);
    torture_kill(t);
    t->crashes = 0;
    if (script->before)
        script->before(t);
}

/* ---- the scripts ---- */
static void write_new(struct torture *t)
{
    put_and_wait(t, DO_WRITE, 0, 7, 1);
    put(t, DO_WRITE, 10, 0, 32);
    put(t, DO_WRITE, 11, 3, 9);
    put(t, DO_WRITE, 4, 1, 2);
    torture_wait(t);
}

static void overwrite(struct torture *t)
{
    put_and_wait(t, DO_WRITE, 1, 4, 1);
    put(t, DO_WRITE, 1, 4, 3);
    put(t, DO_WRITE, 1, 5, 3);
    put(t, DO_WRITE, 3, 0, 4);
    put(t, DO_READ, 1, 0, 32);
    torture_wait(t);
}

static void write_whole(struct torture *t)
{
    put_and_wait(t, DO_WRITE, 1, 0, 32);
    put(t, DO_WRITE, 6, 0, 32);
    put(t, DO_READ, 6, 0, 32);
    put(t, DO_WRITE, 6, 0, 32);
    put(t, DO_WRITE, 6, 3, 1);
    torture_wait(t);
}

static void fill_holes(struct torture *t)
{
    put_and_wait(t, DO_WRITE, 2, 10, 2);
    put(t, DO_WRITE, 5, 8, 8);
    put(t, DO_WRITE, 2, 3, 3);
    put(t, DO_WRITE, 9, 0, 12);
    torture_wait(t);
}

static void clear(struct torture *t)
{
    put_and_wait(t, DO_CLEAR, 1, 3, 5);
    put_and_wait(t, DO_CLEAR, 3, 0, 32);
    torture_submit(t, DO_CLEAR, 6, 0, 32, true);
    put(t, DO_CLEAR, 8, 0, 1);
    put(t, DO_WRITE, 8, 0, 1);
    torture_submit(t, DO_CLEAR, 2, 0, 4, true);
    put(t, DO_WRITE, 2, 2, 1);
    put(t, DO_CLEAR, 12, 0, 2);
    torture_wait(t);
}

static void remove_blocks(struct torture *t)
{
    put_and_wait(t, DO_REMOVE, 1, 0, 32);
    put_and_wait(t, DO_WRITE, 13, 0, 32); /* maybe where block 1 was */
    put(t, DO_REMOVE, 6, 0, 32);
    put(t, DO_WRITE, 6, 0, 2);
    put(t, DO_WRITE, 14, 0, 32);
    put(t, DO_REMOVE, 4, 0, 32);
    torture_wait(t);
}

static void records(struct torture *t)
{
    torture_submit_record(t, 0);
    torture_wait(t);
    for (unsigned r = 0; r < RECORDS; r++)
        torture_submit_record(t, r);
    put(t, DO_WRITE, 0, 0, 1);
    torture_submit_record(t, 2);
    torture_wait(t);
}

static uint64_t checkpoints(const struct torture *t)
{
    struct store_stats st;
    store_stats_get(t->s, &st);
    return st.checkpoints;
}

static void checkpoint(struct torture *t)
{
    uint64_t before = checkpoints(t);
    for (unsigned i = 0; i < 60 && checkpoints(t) == before && !torture_crashed(t); i++) {
        put(t, DO_WRITE, 5, 16, 15);
        put(t, DO_WRITE, 1, i % 16, 15);
        put(t, DO_WRITE, 3, 0, 8);
        if (!torture_wait(t) || store_is_broken(t->s))
            return;
    }
    torture_drain(t);
}

static void close_store(struct torture *t)
{
    put(t, DO_WRITE, 1, 4, 3);
    if (torture_wait(t))
        torture_close(t);
}

static void open_store(struct torture *t)
{
    torture_open(t);
}

static void format_blank(struct torture *t)
{
    torture_format(t, false);
}

static void blank(struct torture *t)
{
    for (unsigned i = 0; i < 2; i++) {
        if (t->media.dev[i])
            medium_blank(device_ram_medium(t->media.dev[i]));
    }
    memset(&t->m, 0, sizeof t->m);
}

static void format_over(struct torture *t)
{
    torture_format(t, true);
}

static void identity_done(void *arg, int rc)
{
    struct torture *t = arg;
    t->done = true;
    t->rc = rc;
}

static void identity(struct torture *t)
{
    struct uuid cluster = {.b = {1, 2, 3}};
    t->done = false;
    if (store_set_identity(t->s, &cluster, 5, 2, identity_done, t) || !torture_run(t, &t->done) || t->rc)
        return;
    for (unsigned i = 0; i < 2; i++) {
        put(t, DO_WRITE, 1, 4, 3);
        t->done = false;
        t->m.incarnation_next = 1000 + i;
        if (store_set_accepted(t->s, 1000 + i, identity_done, t) || !torture_run(t, &t->done) || t->rc)
            return;
        t->m.incarnation = t->m.incarnation_next;
    }
    torture_wait(t);
}

/* One copy of every second page, and of the superblock. */
static void rot_copies(struct torture *t)
{
    struct disk_super sb;
    struct medium *m = device_ram_medium(t->media.dev[0]);
    medium_read(m, STORE_SUPER_0, &sb, sizeof sb);
    uint64_t records = sb.record_pages[0] + sb.record_pages[1] + sb.record_pages[2];
    for (uint64_t p = 0; p < records + sb.entry_pages_used; p++) {
        if (rng_chance(&t->rng, 1, 2))
            medium_corrupt(m, (rng_chance(&t->rng, 1, 2) ? sb.meta_a : sb.meta_b) + p * STORE_PAGE_BYTES,
                           4096, &t->rng);
    }
    medium_corrupt(m, rng_chance(&t->rng, 1, 2) ? STORE_SUPER_0 : STORE_SUPER_1, 4096, &t->rng);
}

static void idle(struct torture *t)
{
    put_and_wait(t, DO_REMOVE, 1, 0, 32);
    put_and_wait(t, DO_WRITE, 6, 0, 32);
    put_and_wait(t, DO_WRITE, 3, 1, 1);
    torture_pass(t, 25 * NS_PER_MS);
    if (torture_crashed(t) || store_is_broken(t->s))
        return;
    put_and_wait(t, DO_WRITE, 3, 1, 1);
    torture_pass(t, 12 * NS_PER_S);
    if (torture_crashed(t) || store_is_broken(t->s))
        return;
    put(t, DO_WRITE, 15, 0, 32);
    put(t, DO_WRITE, 16, 0, 32);
    torture_wait(t);
}

static void mixed(struct torture *t)
{
    for (unsigned i = 0; i < 4 && !torture_crashed(t); i++) {
        for (unsigned n = 0; n < REQUESTS; n++)
            torture_submit_random(t);
        torture_wait(t);
    }
}

static void fill_up(struct torture *t)
{
    for (unsigned b = 0; b < BLOCKS && !torture_crashed(t); b++)
        put_and_wait(t, DO_WRITE, b, b % 7, b % 3 ? 32 - b % 7 : 1);
    for (unsigned b = 0; b < BLOCKS && !torture_crashed(t); b++) {
        put(t, DO_WRITE, b, 0, 32);
        put(t, b % 2 ? DO_CLEAR : DO_WRITE, b, b % 5, 3);
    }
    torture_wait(t);
}

const struct script torture_scripts[] = {
    {.name = "write-new", .run = write_new},
    {.name = "overwrite", .run = overwrite},
    {.name = "write-whole", .run = write_whole},
    {.name = "fill-holes", .run = fill_holes},
    {.name = "clear", .run = clear},
    {.name = "remove", .run = remove_blocks},
    {.name = "records", .run = records},
    {.name = "checkpoint", .run = checkpoint},
    {.name = "close", .run = close_store},
    {.name = "open", .run = open_store, .not_open = true},
    {.name = "format", .before = blank, .run = format_blank, .not_open = true, .formats = true},
    {.name = "format-over", .run = format_over, .not_open = true, .formats = true},
    {.name = "identity", .run = identity},
    {.name = "repair", .before = rot_copies, .run = open_store, .not_open = true},
    {.name = "idle", .run = idle},
    {.name = "mixed", .run = mixed},
    {.name = "fill-up", .run = fill_up},
};
const unsigned torture_script_count = sizeof torture_scripts / sizeof torture_scripts[0];
