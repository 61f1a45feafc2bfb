/*
 * campaign.h: many runs, in worker processes beside one another. A worker takes one run after the other, so
 * that memory that was once touched is used again; a run that crashes takes its worker along, and another one
 * goes on.
 */
#ifndef CISTERN_TESTS_SIM_CAMPAIGN_H
#define CISTERN_TESTS_SIM_CAMPAIGN_H

#include "common/base.h"

struct campaign_run {
    uint64_t seed;
    unsigned copies;
    bool moves, rot; /* as the options of the program */
};
struct campaign {
    const struct campaign_run *runs;
    size_t count;
    unsigned jobs;     /* workers at once */
    unsigned limit_s;  /* real time for one run */
    unsigned each;     /* runs of one worker, then a new one takes its place */
    bool first;        /* ends with the first run that fails */
    const char *keep;  /* file that failed runs are added to; NULL = none */
    const char *again; /* what to put before "--seed N" to see a run again */
    /* 0 or what went wrong (enum sim_result and the like); prints it. */
    int (*run)(void *arg, const struct campaign_run *run);
    void *arg;
};
/* " moves", " rot" or nothing, with mark before each word ("" or "--"). */
const char *campaign_kind(const struct campaign_run *run, const char *mark);
/* 0, or the result of the last run that failed; 1: it crashed, or took too long. Prints a summary. */
int campaign_go(const struct campaign *c);

#endif
