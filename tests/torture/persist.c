/*
 * persist.c: one kind of operation, a crash after every single persist of it, on either device. Of each crash
 * several outcomes are drawn (what was not flushed: whole, torn, dropped, in another order), and the
 * process's death alone; each is opened, judged and used on, and each is opened with crashes in the recovery
 * too.
 */
#include "tests/torture/torture.h"

enum { IMAGES = 2, NESTED = 2, PERSISTS_MAX = 2000 };

struct base {
    const struct script *script;
    struct media media;
    struct model m;
    struct rng rng;
    struct uuid store;
};

/* The store is open, and must be what the model says; it must go on working, too. */
static void judge(struct torture *t)
{
    CHECK(t, !t->report.damaged, "damage after a mere crash: %s", t->report.text);
    torture_verify(t);
    torture_workload(t, 60);
    torture_wait(t);
    CHECK(t, torture_close(t) == 0, "close after recovery");
    int rc = torture_open(t);
    CHECK(t, rc == 0 && !t->report.damaged && t->report.replayed_records == 0,
          "open after a clean close: %d %s", rc, t->report.text);
    torture_verify(t);
    torture_abandon(t);
}

/* After a format that was cut off: the old store, the new one, or none. */
static void judge_format(struct torture *t, const struct base *base, bool whole)
{
    t->m.start_counter = 0;
    int rc = torture_open(t);
    if (rc) {
        CHECK(t, !whole && (rc == -EMEDIUMTYPE || rc == -EBADMSG), "open after a format: %d %s", rc,
              t->report.text);
        rc = torture_format(t, true);
        CHECK(t, rc == 0, "format after one that was cut off: %d", rc);
        t->m.start_counter = 0;
        rc = torture_open(t);
        CHECK(t, rc == 0, "open after a second format: %d", rc);
    }
    if (!uuid_eq(&store_identity(t->s)->store, &base->store)) {
        uint64_t start = t->m.start_counter;
        memset(&t->m, 0, sizeof t->m);
        t->m.start_counter = start;
    }
    judge(t);
}

/* Opens what a crash left, with more crashes on the way. */
static void nested(struct torture *t, const struct media *left, const uint64_t persists[2])
{
    unsigned device = left->dev[1] && rng_chance(&t->rng, 1, 2);
    torture_put_media(t, media_copy(left, rng_u64(&t->rng)));
    for (unsigned depth = 0; depth < 3; depth++) {
        torture_crash_after(t, device, 1 + rng_below(&t->rng, persists[device] + 1));
        int rc = torture_open(t);
        CHECK(t, rc == 0 || rc == -ECANCELED, "open after a crash in recovery: %d %s", rc, t->report.text);
        if (rc == 0)
            break;
        torture_power_cut(t);
    }
    if (!t->s) {
        int rc = torture_open(t);
        CHECK(t, rc == 0, "open after crashes in recovery: %d %s", rc, t->report.text);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (t->media.dev[i])
            torture_crash_after(t, i, 0);
    }
    judge(t);
}

static void judge_media(struct torture *t, const struct base *base, struct media left)
{
    struct model m = t->m;
    uint64_t persists[2] = {0, 0};
    torture_put_media(t, media_copy(&left, rng_u64(&t->rng)));
    if (base->script->formats) {
        judge_format(t, base, false);
    } else {
        int rc = torture_open(t);
        CHECK(t, rc == 0, "open after a crash: %d %s", rc, t->report.text);
        for (unsigned i = 0; i < 2; i++)
            persists[i] = t->media.dev[i] ? device_ram_persists(t->media.dev[i]) : 0;
        judge(t);
        for (unsigned i = 0; i < NESTED; i++) {
            t->m = m;
            nested(t, &left, persists);
        }
    }
    t->m = m;
    media_destroy(&left);
}

/* False: the script ended before that many persists. */
static bool attempt(struct torture *t, const struct base *base, unsigned device, uint64_t persist)
{
    t->rng = t->env_rng = base->rng; /* the same run, up to the crash */
    t->m = base->m;
    torture_put_media(t, media_copy(&base->media, 1));
    if (!base->script->not_open)
        CHECK(t, torture_open(t) == 0, "open: %s", t->report.text);
    torture_crash_after(t, device, persist);
    base->script->run(t);
    if (!base->script->formats && !torture_crashed(t))
        torture_drain(t);
    bool crashed = torture_crashed(t);
    torture_abandon(t);
    rng_seed(&t->rng, t->seed * 1000003 + persist * 2 + device);
    struct media left = t->media;
    memset(&t->media, 0, sizeof t->media);
    t->crashes++;
    for (unsigned i = 0; i < IMAGES; i++)
        judge_media(t, base, media_crash_image(&left, rng_u64(&t->rng)));
    t->media = left;
    torture_kill(t);
    judge_media(t, base, media_copy(&t->media, 1));
    return crashed;
}

void torture_persist(struct torture *t)
{
    struct base base = {.script = &torture_scripts[(t->seed - 1) % torture_script_count]};
    uint64_t variant = (t->seed - 1) / torture_script_count;
    t->hold = variant % 3 == 2 ? 15 : 0;
    torture_where(t, "%s: preparing", base.script->name);
    torture_prepare(t, base.script, variant & 1);
    struct disk_super sb;
    medium_read(device_ram_medium(t->media.dev[0]), STORE_SUPER_0, &sb, sizeof sb);
    base.store = sb.store;
    base.media = t->media;
    base.m = t->m;
    base.rng = t->rng;
    memset(&t->media, 0, sizeof t->media);
    for (unsigned device = 0; device < (base.media.dev[1] ? 2u : 1u); device++) {
        uint64_t n = 1;
        torture_where(t, "%s: persist 1 of device %u", base.script->name, device);
        while (attempt(t, &base, device, n)) {
            CHECK(t, ++n < PERSISTS_MAX, "it goes on and on");
            torture_where(t, "%s: persist %lu of device %u", base.script->name, (unsigned long)n, device);
        }
    }
    media_destroy(&base.media);
}
