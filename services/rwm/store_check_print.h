/* store_check_print.h: what a check found, for people (text) and for programs (JSON). */
#ifndef CISTERN_SERVICES_RWM_STORE_CHECK_PRINT_H
#define CISTERN_SERVICES_RWM_STORE_CHECK_PRINT_H

#include <stdio.h>

#include "services/rwm/store_check.h"

struct check_outcome {
    const char *data, *journal; /* names; journal may be NULL */
    const char *command;  /* the program and the options that name the devices, to be repeated in advice */
    bool repair, dry_run; /* a repair was asked for */
    bool can_repair;      /* the program has a repair at all */
    uint64_t written;     /* by it */
    const struct store_check_report *before,
        *left; /* left: the report of a second check, behind a repair; or NULL */
    int rc;    /* 0; -EINTR stopped; else what made it fail */
    int exit_code;
};
/* One line of a finding. */
void check_print_finding(FILE *out, const struct store_finding *f);
/* Identity, volumes, partitions, result, and what to do next. */
void check_print_text(FILE *out, const struct check_outcome *o);
/* All of it as one object. actions: what a repair wrote, or would write. */
void check_print_json(FILE *out, const struct check_outcome *o, const struct store_finding *findings,
                      size_t count, char *const *actions, size_t action_count);
/* A device that could not be opened. */
void check_print_json_refused(FILE *out, const char *data, const char *why);
/* "clean", "corrected", "damaged", "refused", "stopped" */
const char *check_result_name(int exit_code);

#endif
