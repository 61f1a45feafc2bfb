/* addr_list.h: lists of addresses in options: "tcp:127.0.0.1:7100,tcp:127.0.0.1:7101". */
#ifndef CISTERN_SERVICES_VBS_ADDR_LIST_H
#define CISTERN_SERVICES_VBS_ADDR_LIST_H

#include "rdma/fabric_target.h"

/* 1 to max addresses, numbers or names of hosts, all of one provider, separated by commas; blanks around them
 * are ignored. hosts as fabric_target_parse gives them. 0; -EINVAL (a part that is no address, none at all,
 * mixed providers), -E2BIG (more than max). */
int addr_list_parse(const char *text, struct fabric_addr *out, char (*hosts)[RESOLVE_HOST_BYTES],
                    unsigned max, unsigned *count);
/* The endpoint for addresses of that provider. 0; -EPROTONOSUPPORT: this build has no such provider; or of
 * its creation. */
int addr_fabric_create(struct env *env, enum fabric_provider_kind provider,
                       const struct fabric_config *config, struct fabric **out);

#endif
