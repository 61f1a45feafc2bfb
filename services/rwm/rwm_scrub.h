/* rwm_scrub.h: reads all blocks slowly, and compares the copies. See rwm_scrub.c. */
#ifndef CISTERN_SERVICES_RWM_SCRUB_H
#define CISTERN_SERVICES_RWM_SCRUB_H

#include "services/rwm/rwm_copies.h"

void rwm_scrub_init(struct rwm *m);
void rwm_scrub_start(struct rwm *m); /* the module serves */
void rwm_scrub_stop(struct rwm *m);  /* nothing is begun any more */
/* From the controller: look at everything again that was last looked at before this wall time;
 * MDC_SCRUB_STOP: stop, and do not begin by time until the next order; 0: nothing. */
void rwm_scrub_order(struct rwm *m, uint64_t order);

#endif
