/*
 * status.h: status numbers that travel (wire, logs, metrics); inside a process errors are 0 or -errno.
 * errno values never travel: translate once at each edge with the two functions below.
 */
#ifndef CISTERN_COMMON_STATUS_H
#define CISTERN_COMMON_STATUS_H

#include "common/base.h"

enum status {
#define STATUS(num, name, err, text) STATUS_##name = num,
#include "common/status.def"
#undef STATUS
};

/* "NO_SPACE", or "UNKNOWN" for a number that this build does not know. */
const char *status_name(uint32_t status);
/* "no space left" */
const char *status_text(uint32_t status);
/* 0 or -errno; an unknown number is -EIO. */
int status_to_errno(uint32_t status);
/* rc = 0 or -errno; the first status in the table with that errno, IO when there is none. */
uint32_t status_from_errno(int rc);

#endif
