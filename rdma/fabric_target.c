/* fabric_target.c: see fabric_target.h. */
#include "rdma/fabric_target.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"

enum { LOCAL_MAX = 256 };

/* ---- peers ---- */

int fabric_target_parse(const char *text, struct fabric_addr *out, char *host)
{
    struct fabric_addr a;
    if (fabric_addr_parse(text, &a) == 0) {
        *out = a;
        host[0] = 0;
        return 0;
    }
    const char *name = strchr(text, ':'), *colon = strrchr(text, ':');
    char numeric[64];
    /* What is around the name is judged as if a number stood there. */
    if (name == NULL || colon == name || strncmp(text, "sim:", 4) == 0)
        return -EINVAL;
    const size_t len = (size_t)(colon - name - 1);
    const int n = snprintf(numeric, sizeof(numeric), "%.*s:0.0.0.0%s", (int)(name - text), text, colon);
    if (len >= RESOLVE_HOST_BYTES || n < 0 || (size_t)n >= sizeof(numeric))
        return -EINVAL;
    char copy[RESOLVE_HOST_BYTES];
    memcpy(copy, name + 1, len);
    copy[len] = 0;
    if (!resolve_name_valid(copy) || fabric_addr_parse(numeric, &a) != 0)
        return -EINVAL;
    memcpy(host, copy, len + 1);
    *out = a;
    out->family = 0;
    return 0;
}

struct fabric_addr fabric_target_with(const struct fabric_addr *target, const struct resolve_addr *found)
{
    struct fabric_addr a = *target;
    a.family = found->family;
    memcpy(a.ip, found->ip, sizeof(a.ip));
    return a;
}

const char *fabric_target_format(const struct fabric_addr *addr, const char *host, char *out)
{
    if (host[0] == 0)
        return fabric_addr_format(addr, out);
    snprintf(out, FABRIC_TARGET_BYTES, "%s:%s:%u", addr->provider == FABRIC_PROVIDER_VERBS ? "rdma" : "tcp",
             host, addr->port);
    return out;
}

/* ---- this host ---- */

static bool inside(const uint8_t *ip, const uint8_t *network, unsigned bits)
{
    const unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(ip, network, whole) != 0)
        return false;
    return rest == 0 || ((ip[whole] ^ network[whole]) & (0xff00u >> rest & 0xffu)) == 0;
}

bool fabric_listen_choose(const struct fabric_addr *network, unsigned bits, const struct resolve_addr *have,
                          unsigned count, struct fabric_addr *out)
{
    const struct resolve_addr *best = NULL;
    for (unsigned i = 0; i < count; i++) {
        if (have[i].family != network->family || !inside(have[i].ip, network->ip, bits))
            continue;
        if (best == NULL || memcmp(have[i].ip, best->ip, sizeof(best->ip)) < 0)
            best = &have[i];
    }
    if (best == NULL)
        return false;
    *out = fabric_target_with(network, best);
    return true;
}

static unsigned local_addresses(const struct ifaddrs *list, struct resolve_addr *out)
{
    unsigned count = 0;
    for (const struct ifaddrs *i = list; i != NULL && count < LOCAL_MAX; i = i->ifa_next) {
        struct resolve_addr a;
        if (i->ifa_addr == NULL || (i->ifa_flags & IFF_UP) == 0)
            continue;
        memset(&a, 0, sizeof(a));
        if (i->ifa_addr->sa_family == AF_INET) {
            a.family = 4;
            memcpy(a.ip, &((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr, 4);
        } else if (i->ifa_addr->sa_family == AF_INET6) {
            a.family = 6;
            memcpy(a.ip, &((const struct sockaddr_in6 *)(const void *)i->ifa_addr)->sin6_addr, 16);
        } else {
            continue;
        }
        out[count++] = a;
    }
    return count;
}

/* Splits "tcp:10.10.0.0/16:7100" into the address without "/16", and 16. */
static int network_parse(const char *text, struct fabric_addr *out, unsigned *bits)
{
    char plain[96], number[8];
    const char *slash = strchr(text, '/');
    const size_t digits = slash != NULL ? strspn(slash + 1, "0123456789") : 0;
    uint64_t value;
    if (slash == NULL || digits == 0 || digits >= sizeof(number))
        return -EINVAL;
    memcpy(number, slash + 1, digits);
    number[digits] = 0;
    const int n = snprintf(plain, sizeof(plain), "%.*s%s", (int)(slash - text), text, slash + 1 + digits);
    if (n < 0 || (size_t)n >= sizeof(plain) || fabric_addr_parse(plain, out) != 0 ||
        out->provider == FABRIC_PROVIDER_SIM || config_parse_uint(number, &value) != 0 ||
        value > (out->family == 6 ? 128u : 32u))
        return -EINVAL;
    *bits = (unsigned)value;
    return 0;
}

int fabric_listen_parse(const char *text, struct fabric_addr *out)
{
    struct fabric_addr network;
    unsigned bits;
    if (fabric_addr_parse(text, out) == 0)
        return 0;
    if (network_parse(text, &network, &bits) != 0)
        return -EINVAL;
    struct ifaddrs *list = NULL;
    struct resolve_addr *have = calloc(LOCAL_MAX, sizeof(*have));
    if (have == NULL || getifaddrs(&list) != 0) {
        free(have);
        return -ENOMEM;
    }
    const bool found = fabric_listen_choose(&network, bits, have, local_addresses(list, have), out);
    freeifaddrs(list);
    free(have);
    return found ? 0 : -EADDRNOTAVAIL;
}

const char *fabric_listen_error(int rc)
{
    return rc == -EADDRNOTAVAIL
               ? "this host has no address in that network: see ip addr"
               : "addresses look like tcp:192.0.2.1:7100, rdma:192.0.2.1:7100, or name a network of this host: "
                 "rdma:192.0.2.0/24:7100";
}
