/*
 * problems.h: what is wrong with a cluster, a line each: what it is, what it means for the data, and what to
 * do. Pure: the answers of the metadata controller in, text out.
 */
#ifndef CISTERN_SERVICES_CTL_PROBLEMS_H
#define CISTERN_SERVICES_CTL_PROBLEMS_H

#include "common/wire/mdc_proto.h"

#define PROBLEMS_MODULES 8u /* of more modules only the number is told */
struct problems {
    char text[6144]; /* lines; what does not fit is cut */
    uint32_t modules, unheard;
};
/* Adds what is wrong with the module, if anything. replace_ms: of struct mdc_cluster_status_reply. */
void problems_of_module(struct problems *p, const struct mdc_module_info *m, uint64_t replace_ms);
/* After all modules: how many were left out. */
void problems_modules_end(struct problems *p);
void problems_of_pool(struct problems *p, const struct mdc_pool_info *pool);
void problems_of_cluster(struct problems *p, const struct mdc_cluster_status_reply *r);

#endif
