/*
 * directed.h: scenes that only some seeds have, each written so that one planted bug (mutations/planted.py)
 * can be seen. Which ones, a hash of the seed and of the options says, and nothing is drawn for it: all other
 * seeds go on as if there were no such scenes. Where a seed has one, it is played again and again among all
 * that goes wrong anyway.
 */
#ifndef CISTERN_TESTS_SIM_DIRECTED_H
#define CISTERN_TESTS_SIM_DIRECTED_H

#include "common/base.h"

struct rwm;
struct sim_cluster;
struct sim_options;
struct sim_shape;
struct sim_directed {
    unsigned least, most; /* copies of the pool */
    /* NULL: it begins at once. Else: is it the moment, at module m? *member: the process of another module
     * that it is about. */
    bool (*moment)(const struct sim_cluster *c, const struct rwm *m, unsigned *member);
    /* primary: the process of m. */
    void (*begin)(struct sim_cluster *c, unsigned primary, unsigned member);
    void (*shape)(struct sim_shape *s); /* NULL: as the seed has it */
    /* When all faults are over and all is checked; then the controller stands still, with its network. */
    void (*rest)(struct sim_cluster *c);
    bool last; /* the faults end with it, too */
};

/* NULL: the seed has none. copies: that the pool keeps. */
const struct sim_directed *sim_directed_of(const struct sim_options *o);

#endif
