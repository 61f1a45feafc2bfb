/* lun_check.h: cistern-san --check: looks at the stores on LUNs, one after the other, without a reservation.
 */
#ifndef CISTERN_SERVICES_SAN_LUN_CHECK_H
#define CISTERN_SERVICES_SAN_LUN_CHECK_H

#include "services/rwm/store_check_tool.h"

struct lun_check {
    const struct store_tool_options *tool;
    const char *luns;        /* separated by commas */
    const char *initiator;   /* "" = one of its own */
    const char *secret_file; /* CHAP; NULL = none */
    uint64_t io_timeout_ns;
};
/* Returns the exit status: that of the worst LUN. Blocks: it runs env's loop. */
int lun_check_all(struct env *env, const struct lun_check *c);

#endif
