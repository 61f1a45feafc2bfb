/*
 * plots.h: seeds in which nothing is left to chance but the details: a few operations of clients and a few
 * faults in the one order in which a planted bug (docs/testing.md) hurts. Nothing else goes wrong then; the
 * checks at the end are those of every seed.
 *
 * Of the seeds above 1000 half may have one; so all others, killing ones and kept ones among them, go on
 * walking the paths that they walked without. A plot has a place of its own among them.
 */
#ifndef CISTERN_TESTS_SIM_PLOTS_H
#define CISTERN_TESTS_SIM_PLOTS_H

#include "common/base.h"

#define SIM_PLOTS_ABOVE  1000u
#define SIM_PLOTS_PLACES 24u

struct sim_cluster;
struct sim_plot {
    const char *name;
    unsigned copies_least, copies_most;
    /* Before anything is made: what it needs of the shape. NULL: nothing. */
    void (*shape)(struct sim_cluster *c);
    void (*play)(struct sim_cluster *c);
};
/* Sets c->plot. */
void sim_plot_choose(struct sim_cluster *c);
void sim_plot_play(struct sim_cluster *c);

/* plots_write.c */
void plot_slow_write(struct sim_cluster *c);
/* plots_restore.c */
void plot_old_generation(struct sim_cluster *c);
void plot_still_attached(struct sim_cluster *c);
void plot_new_hosts(struct sim_cluster *c);
void plot_detached_again(struct sim_cluster *c);
void plot_turn_twice(struct sim_cluster *c);
/* plots_promise.c */
void plot_slow_clock(struct sim_cluster *c);
void plot_late_answer(struct sim_cluster *c);
/* plots_copies.c */
void plot_overflow_shape(struct sim_cluster *c);
void plot_overflow(struct sim_cluster *c);
void plot_lun_asleep(struct sim_cluster *c);
void plot_emptied(struct sim_cluster *c);
void plot_checkpoint(struct sim_cluster *c);
void plot_rot_twice(struct sim_cluster *c);
void plot_rot_ahead(struct sim_cluster *c);
void plot_short_grants_shape(struct sim_cluster *c);
void plot_short_grants(struct sim_cluster *c);
void plot_full_shape(struct sim_cluster *c);
void plot_full(struct sim_cluster *c);

#endif
