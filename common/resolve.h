/*
 * resolve.h: names of hosts to addresses, without blocking the loop. Where a service finds a peer whose
 * address may change between two connections (a pod, a host on DHCP), it asks before each connect.
 *
 * The resolver comes with the env: resolve_system in production, none in the simulator (or a test's own).
 */
#ifndef CISTERN_COMMON_RESOLVE_H
#define CISTERN_COMMON_RESOLVE_H

#include "common/env.h"

#define RESOLVE_HOST_BYTES 254u /* RFC 1035 section 2.3.4: names have at most 253 characters here */
#define RESOLVE_ADDRS_MAX  8u

struct resolve_addr {
    uint8_t family; /* 4 or 6 */
    uint8_t ip[16]; /* network order, the rest zero */
};
struct resolve_job;
/* Embedded in the caller's object; zeroed memory is an idle request. */
struct resolve_request {
    /* rc 0: count addresses (1 to RESOLVE_ADDRS_MAX) in a stable order, so that callers can go through them
     * one by one over several requests; valid during the call. -ENOENT: there is no such name (yet);
     * -EAGAIN: nobody who knows could be asked; -EIO: anything else. */
    void (*done)(struct resolve_request *req, int rc, const struct resolve_addr *addrs, unsigned count);
    struct resolve_job *job; /* the resolver's; NULL: idle */
};
struct resolver {
    /* 0: done runs once, on env's loop, later. -errno: it never will. host is copied. */
    int (*start)(struct env *env, struct resolve_request *req, const char *host);
    /* done does not run any more; harmless on an idle request. */
    void (*cancel)(struct resolve_request *req);
};
/* getaddrinfo(3) in a thread of each request's own: it may take as long as the system's resolver likes, also
 * beyond a cancel. Real loops only. */
extern const struct resolver resolve_system;

/* env's resolver; -ENOTSUP when it has none. */
int resolve_start(struct env *env, struct resolve_request *req, const char *host);
void resolve_cancel(struct env *env, struct resolve_request *req);
/* What a failed request tells people. */
const char *resolve_error(int rc);
/* Letters, digits, '-', '_' and '.', no empty label, and the last label is not a number: so a mistyped IP
 * address is no name. */
bool resolve_name_valid(const char *text);

#endif
