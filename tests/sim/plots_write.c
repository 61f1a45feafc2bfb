/* plots_write.c: what a host had begun, and what became of the host meanwhile. */
#include "tests/sim/plots.h"

#include "services/rwm/rwm_copies.h"
#include "tests/sim/stage.h"

static bool has_version(struct sim_cluster *c, void *arg)
{
    struct rwm *m = stage_module(c, *(unsigned *)arg);
    return m && !list_empty(&m->versioned);
}

/*
 * A write has got its version, and its medium takes long for it, and for nothing else. The host is detached.
 * Whoever reads after the answer must see the write, or never.
 */
void plot_slow_write(struct sim_cluster *c)
{
    for (unsigned i = 0; i < 3; i++) {
        unsigned group = SIM_SMALL_GROUPS + (unsigned)rng_below(&c->rng, SIM_BIG_GROUPS);
        struct stage_cast cast;
        if (!stage_cast(c, 0, group, &cast) || !stage_do(c, STAGE_FIRST, VOLUME_WRITE, 0, group))
            return;
        struct sim_proc *p = &c->procs[cast.proc[0]];
        sim_medium_slow(p->data, 1000 + rng_below(&c->rng, 2000));
        int late = stage_begin(c, STAGE_FIRST, VOLUME_WRITE, 0, group);
        bool begun = late >= 0 && stage_until(c, has_version, &cast.proc[0], 5 * NS_PER_US, NS_PER_S);
        sim_medium_slow(p->data, 1);
        if (!begun || !stage_detach(c, 0, STAGE_FIRST, 5 * NS_PER_S))
            return;
        (void)stage_do(c, STAGE_THIRD, VOLUME_READ, 0, group);
        (void)stage_ended(c, STAGE_FIRST, late, 5 * NS_PER_S);
        (void)stage_do(c, STAGE_THIRD, VOLUME_READ, 0, group);
        c->acts++;
        if (!stage_ready(c, 5 * NS_PER_S))
            return;
    }
}
