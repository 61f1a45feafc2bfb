/*
 * fabric_target.h: addresses as people write them in options, where they are more than numbers.
 *
 * A peer may be given by the name of its host ("tcp:cistern-mdc:7100"), which is asked for at each connect.
 * What a service listens on may be given by a network ("rdma:10.10.0.0/16:7100"), so that one setting serves
 * all hosts.
 */
#ifndef CISTERN_RDMA_FABRIC_TARGET_H
#define CISTERN_RDMA_FABRIC_TARGET_H

#include "common/resolve.h"
#include "rdma/fabric.h"

/* As fabric_addr_parse, and names of hosts: then host (RESOLVE_HOST_BYTES) has the name, out only provider
 * and port; with a numeric address host is "". 0 or -EINVAL. */
int fabric_target_parse(const char *text, struct fabric_addr *out, char *host);
/* The target's address with one that was found for its name. */
struct fabric_addr fabric_target_with(const struct fabric_addr *target, const struct resolve_addr *found);
/* For people: the name, or the number when host is "". out holds at least FABRIC_TARGET_BYTES; returns out.
 */
#define FABRIC_TARGET_BYTES (RESOLVE_HOST_BYTES + 16u)
const char *fabric_target_format(const struct fabric_addr *addr, const char *host, char *out);

/*
 * An address of this host to listen on: as fabric_addr_parse, or NETWORK/BITS in the place of the number
 * ("tcp:10.10.0.0/16:0", "tcp:[fd00::/8]:7100"): the lowest address that this host has in that network. 0;
 * -EINVAL: neither; -EADDRNOTAVAIL: the host has no address there (yet).
 */
int fabric_listen_parse(const char *text, struct fabric_addr *out);
/* What a failure of it tells people. */
const char *fabric_listen_error(int rc);
/* fabric_listen_parse's choice among count addresses; false: none of them is in the network. For tests. */
bool fabric_listen_choose(const struct fabric_addr *network, unsigned bits, const struct resolve_addr *have,
                          unsigned count, struct fabric_addr *out);

#endif
