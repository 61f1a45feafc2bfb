/* fabric_addr.c: addresses as text. */
#include "rdma/fabric.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A decimal number without sign or spaces that ends at end; false if it is none or above max. */
static bool number_parse(const char *at, const char *end, uint64_t max, uint64_t *out)
{
    if (at == end || end - at > 10)
        return false;
    uint64_t v = 0;
    for (; at < end; at++) {
        if (*at < '0' || *at > '9')
            return false;
        v = v * 10 + (uint64_t)(*at - '0');
    }
    if (v > max)
        return false;
    *out = v;
    return true;
}

static bool ip_parse(const char *at, const char *end, struct fabric_addr *a)
{
    bool v6 = *at == '[';
    if (v6) {
        if (end - at < 2 || end[-1] != ']')
            return false;
        at++;
        end--;
    }
    char host[INET6_ADDRSTRLEN];
    size_t len = (size_t)(end - at);
    if (len >= sizeof(host))
        return false;
    memcpy(host, at, len);
    host[len] = 0;
    a->family = v6 ? 6 : 4;
    return inet_pton(v6 ? AF_INET6 : AF_INET, host, a->ip) == 1;
}

int fabric_addr_parse(const char *text, struct fabric_addr *out)
{
    struct fabric_addr a;
    memset(&a, 0, sizeof(a));
    if (strncmp(text, "tcp:", 4) == 0)
        a.provider = FABRIC_PROVIDER_TCP;
    else if (strncmp(text, "sim:", 4) == 0)
        a.provider = FABRIC_PROVIDER_SIM;
    else if (strncmp(text, "rdma:", 5) == 0)
        a.provider = FABRIC_PROVIDER_VERBS;
    else
        return -EINVAL;
    const char *host = strchr(text, ':') + 1, *colon = strrchr(host, ':');
    uint64_t port, number;
    if (!colon || !number_parse(colon + 1, colon + strlen(colon), 65535, &port))
        return -EINVAL;
    a.port = (uint16_t)port;
    if (a.provider == FABRIC_PROVIDER_SIM) {
        if (!number_parse(host, colon, UINT32_MAX, &number))
            return -EINVAL;
        uint32_t n = (uint32_t)number;
        memcpy(a.ip, &n, sizeof(n));
    } else if (!ip_parse(host, colon, &a)) {
        return -EINVAL;
    }
    *out = a;
    return 0;
}

const char *fabric_addr_format(const struct fabric_addr *addr, char *out)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (addr->provider == FABRIC_PROVIDER_SIM) {
        uint32_t n;
        memcpy(&n, addr->ip, sizeof(n));
        snprintf(out, 64, "sim:%u:%u", n, addr->port);
        return out;
    }
    inet_ntop(addr->family == 6 ? AF_INET6 : AF_INET, addr->ip, host, sizeof(host));
    const char *name = addr->provider == FABRIC_PROVIDER_TCP     ? "tcp"
                       : addr->provider == FABRIC_PROVIDER_VERBS ? "rdma"
                                                                 : "none";
    snprintf(out, 64, addr->family == 6 ? "%s:[%s]:%u" : "%s:%s:%u", name, host, addr->port);
    return out;
}
