#include <stdio.h>
#include <string.h>

#include "services/san/device_iscsi.h"

static int refuse(const char **why, const char *text)
{
    *why = text;
    return -EINVAL;
}

static bool copy(char *out, size_t cap, const char *from, size_t len)
{
    if (len >= cap)
        return false;
    memcpy(out, from, len);
    out[len] = 0;
    return true;
}

/* At most 5 digits; -1: not that, or greater than max. */
static int number(const char *s, size_t len, int max)
{
    int v = 0;
    if (len == 0 || len > 5)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        v = v * 10 + (s[i] - '0');
    }
    return v <= max ? v : -1;
}

/* host, host:port, [v6], [v6]:port */
static int parse_portal(const char *s, size_t len, struct iscsi_lun_url *u, const char **why)
{
    const char *port = NULL, *end = s + len, *host_end = end;
    if (len && s[0] == '[') {
        const char *close = memchr(s, ']', len);
        if (!close || close == s + 1)
            return refuse(why, "an IPv6 address without its ]");
        host_end = close + 1;
    } else {
        const char *colon = memchr(s, ':', len);
        if (colon)
            host_end = colon;
    }
    if (host_end == s)
        return refuse(why, "no host");
    if (host_end < end) {
        port = host_end + 1;
        if (*host_end != ':' || number(port, (size_t)(end - port), 65535) <= 0)
            return refuse(why, "not a port");
    }
    int port_len = port ? (int)(end - port) : 4;
    int n = snprintf(u->portal, sizeof u->portal, "%.*s:%.*s", (int)(host_end - s), s, port_len,
                     port ? port : "3260");
    return n < 0 || (size_t)n >= sizeof u->portal ? refuse(why, "host too long") : 0;
}

int iscsi_url_parse(const char *url, struct iscsi_lun_url *out, const char **why)
{
    static const char scheme[] = "iscsi://";
    struct iscsi_lun_url u;
    memset(&u, 0, sizeof u);
    if (strncmp(url, scheme, sizeof scheme - 1) != 0)
        return refuse(why, "it does not begin with iscsi://");
    const char *s = url + sizeof scheme - 1, *slash = strchr(s, '/');
    if (!slash)
        return refuse(why, "no target");
    const char *at = memchr(s, '@', (size_t)(slash - s));
    if (at) {
        if (memchr(s, '%', (size_t)(at - s)) || memchr(s, ':', (size_t)(at - s)))
            return refuse(why, "a password; it belongs into the secret file");
        if (at == s || !copy(u.user, sizeof u.user, s, (size_t)(at - s)))
            return refuse(why, "not a user name");
        s = at + 1;
    }
    int rc = parse_portal(s, (size_t)(slash - s), &u, why);
    if (rc)
        return rc;
    const char *target = slash + 1, *last = strrchr(target, '/');
    if (!last || last == target)
        return refuse(why, "no LUN number");
    if (!copy(u.target, sizeof u.target, target, (size_t)(last - target)) || strchr(u.target, '/'))
        return refuse(why, "not a target name");
    u.lun = number(last + 1, strlen(last + 1), 16383);
    if (u.lun < 0)
        return refuse(why, "not a LUN number");
    *out = u;
    return 0;
}
