/* plots.c: which seed has which plot; see plots.h. */
#include "tests/sim/plots.h"

#include "tests/sim/cluster.h"
#include "tests/sim/stage.h"

/* By place: a new one takes an empty place, or all others move to other seeds. */
static const struct sim_plot plots[SIM_PLOTS_PLACES] = {
    [0] = {"slow write", 1, 3, NULL, plot_slow_write},
    [1] = {"old generation", 1, 3, NULL, plot_old_generation},
    [2] = {"still attached", 1, 3, NULL, plot_still_attached},
    [3] = {"new hosts", 1, 3, NULL, plot_new_hosts},
    [4] = {"turn twice", 1, 3, NULL, plot_turn_twice},
    [5] = {"slow clock", 2, 3, NULL, plot_slow_clock},
    [6] = {"late answer", 2, 3, NULL, plot_late_answer},
    [7] = {"overflow", 3, 3, plot_overflow_shape, plot_overflow},
    [8] = {"LUN asleep", 1, 1, NULL, plot_lun_asleep},
    [9] = {"emptied", 1, 3, NULL, plot_emptied},
    [10] = {"checkpoint", 1, 3, NULL, plot_checkpoint},
    [11] = {"rot twice", 3, 3, NULL, plot_rot_twice},
    [12] = {"short grants", 2, 3, plot_short_grants_shape, plot_short_grants},
    [13] = {"full", 2, 3, plot_full_shape, plot_full},
    [14] = {"rot ahead", 2, 3, NULL, plot_rot_ahead},
    [15] = {"detached again", 1, 3, NULL, plot_detached_again},
};

void sim_plot_choose(struct sim_cluster *c)
{
    uint64_t seed = c->options.seed;
    bool others = c->options.moves || c->options.rot || c->options.no_faults;
    if (seed <= SIM_PLOTS_ABOVE || seed % 4 >= 2 || others)
        return;
    const struct sim_plot *p = &plots[seed / 4 % SIM_PLOTS_PLACES];
    if (!p->play || c->options.copies < p->copies_least || c->options.copies > p->copies_most)
        return;
    struct sim_shape *s = &c->shape;
    c->plot = p;
    c->quiet = true;
    s->tight = s->rot = s->shared_host = s->resizes = s->restores = false;
    s->medium_bytes = max_u64(s->medium_bytes, 96 * MIB);
    if (p->shape)
        p->shape(c);
}

void sim_plot_play(struct sim_cluster *c)
{
    if (stage_ready(c, 5 * NS_PER_S))
        c->plot->play(c);
}
