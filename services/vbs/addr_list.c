/* Lists of addresses in options, and the endpoint that suits them. */
#include <string.h>

#include "services/vbs/addr_list.h"

static int addr_parse_piece(const char *text, size_t len, struct fabric_addr *out, char *host)
{
    char piece[RESOLVE_HOST_BYTES + 32];
    while (len > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        len--;
    }
    while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t'))
        len--;
    if (len == 0 || len >= sizeof piece)
        return -EINVAL;
    memcpy(piece, text, len);
    piece[len] = 0;
    return fabric_target_parse(piece, out, host);
}

int addr_list_parse(const char *text, struct fabric_addr *out, char (*hosts)[RESOLVE_HOST_BYTES],
                    unsigned max, unsigned *count)
{
    unsigned n = 0;
    while (text != NULL) {
        const char *comma = strchr(text, ',');
        size_t len = comma != NULL ? (size_t)(comma - text) : strlen(text);
        struct fabric_addr addr;
        char host[RESOLVE_HOST_BYTES];
        if (addr_parse_piece(text, len, &addr, host) != 0)
            return -EINVAL;
        if (n == max)
            return -E2BIG;
        if (n > 0 && addr.provider != out[0].provider)
            return -EINVAL;
        memcpy(hosts[n], host, sizeof host);
        out[n++] = addr;
        text = comma != NULL ? comma + 1 : NULL;
    }
    if (n == 0)
        return -EINVAL;
    *count = n;
    return 0;
}

int addr_fabric_create(struct env *env, enum fabric_provider_kind provider,
                       const struct fabric_config *config, struct fabric **out)
{
    return fabric_create(env, provider, config, out);
}
