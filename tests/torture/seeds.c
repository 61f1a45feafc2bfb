/*
 * seeds.c: a random workload; the power goes after the n-th persist, or the process dies alone; the store is
 * opened again, in between of which the power may go several times, and must hold everything that was
 * acknowledged, the rest old or new but whole, and nothing else. The workload goes on over what was left.
 */
#include "tests/torture/torture.h"

enum { GENERATIONS = 5 };

static void arm(struct torture *t, uint64_t within)
{
    torture_crash_after(t, t->media.dev[1] && rng_chance(&t->rng, 1, 2), 1 + rng_below(&t->rng, within));
}

static void recover(struct torture *t)
{
    t->options.requests_max = rng_chance(&t->rng, 1, 2) ? 8 : 64;
    for (unsigned again = 0;; again++) {
        if (again == 0 && !torture_crashed(t) && rng_chance(&t->rng, 2, 3))
            torture_kill(t); /* the power stays: caches keep what was not flushed */
        else
            torture_power_cut(t);
        if (again < 4 && rng_chance(&t->rng, 1, 2))
            arm(t, 40);
        int rc = torture_open(t);
        if (rc == -ECANCELED)
            continue;
        CHECK(t, rc == 0, "open: %d %s", rc, t->report.text);
        CHECK(t, !t->report.damaged, "damage after a mere crash: %s", t->report.text);
        torture_crash_after(t, 0, 0);
        if (t->media.dev[1])
            torture_crash_after(t, 1, 0);
        return;
    }
}

void torture_seeds(struct torture *t)
{
    t->narrow = t->seed % 3 == 0;
    t->hold = t->seed % 5 < 3 ? 0 : 10 + rng_below(&t->rng, 30);
    torture_make_media(t, t->seed & 1);
    torture_format_and_open(t);
    for (unsigned g = 0; g < GENERATIONS; g++) {
        torture_where(t, "generation %u", g);
        if (rng_chance(&t->rng, 4, 5))
            arm(t, rng_chance(&t->rng, 1, 3) ? 1500 : 150);
        torture_workload(t, 1000);
        torture_abandon(t);
        recover(t);
        torture_verify(t);
    }
}
