/* fabric_counters.c: counters by name, for those who read them from afar. */
#include "rdma/fabric_provider.h"

#include <inttypes.h>
#include <stdio.h>

#define LIVE  true
#define TOTAL false
static const struct counter {
    const char *name;
    size_t offset;
    bool live;
} counters[] = {
#define FABRIC_COUNTER(name, kind, text) {#name, offsetof(struct fabric_counters, name), kind},
#include "rdma/fabric_counters.def"
#undef FABRIC_COUNTER
};

void fabric_counters_get(const struct fabric *f, struct fabric_counters *out)
{
    *out = f->counters;
    if (f->ops->flow_controlled)
        return;
    list_for_each(n, &f->conns)
    {
        const struct fabric_conn *conn = list_entry(n, struct fabric_conn, link);
        if (conn->state != CONN_UP)
            continue;
        out->credits_lent += conn->rx_lent;
        out->credits_held += conn->tx_credits;
    }
}

const char *fabric_counters_differ(const struct fabric_counters *a, const struct fabric_counters *b)
{
    for (size_t i = 0; i < ARRAY_LEN(counters); i++) {
        const size_t at = counters[i].offset;
        if (counters[i].live &&
            *(const uint64_t *)((const char *)a + at) != *(const uint64_t *)((const char *)b + at))
            return counters[i].name;
    }
    return NULL;
}

void fabric_core_count_down(struct fabric *f, enum fabric_down reason)
{
    static const size_t at[] = {
        [FABRIC_DOWN_PEER_CLOSED] = offsetof(struct fabric_counters, downs_peer_closed),
        [FABRIC_DOWN_PEER_DIED] = offsetof(struct fabric_counters, downs_peer_died),
        [FABRIC_DOWN_TIMEOUT] = offsetof(struct fabric_counters, downs_timeout),
        [FABRIC_DOWN_REFUSED] = offsetof(struct fabric_counters, downs_refused),
        [FABRIC_DOWN_PROTOCOL] = offsetof(struct fabric_counters, downs_protocol),
        [FABRIC_DOWN_AUTH] = offsetof(struct fabric_counters, downs_auth),
        [FABRIC_DOWN_CLUSTER] = offsetof(struct fabric_counters, downs_cluster),
        [FABRIC_DOWN_VERSION] = offsetof(struct fabric_counters, downs_version),
        [FABRIC_DOWN_ACCESS] = offsetof(struct fabric_counters, downs_access),
        [FABRIC_DOWN_UNREACHABLE] = offsetof(struct fabric_counters, downs_unreachable),
    };
    MUST((unsigned)reason < ARRAY_LEN(at) && at[reason] != 0);
    ++*(uint64_t *)(void *)((char *)&f->counters + at[reason]);
}

size_t fabric_counters_text(const struct fabric *f, char *out, size_t room)
{
    struct fabric_counters c;
    struct loop_stats loop;
    size_t at = 0;
    MUST(room > 0);
    out[0] = '\0';
    fabric_counters_get(f, &c);
    loop_get_stats(f->env->loop, &loop);
    for (size_t i = 0; i < ARRAY_LEN(counters) + 2 && at < room; i++) {
        const bool own = i < ARRAY_LEN(counters);
        const char *name = own ? counters[i].name : i == ARRAY_LEN(counters) ? "loop_rounds" : "loop_sleeps";
        const uint64_t value = own ? *(const uint64_t *)(const void *)((const char *)&c + counters[i].offset)
                               : i == ARRAY_LEN(counters) ? loop.rounds
                                                          : loop.sleeps;
        const int n = snprintf(out + at, room - at, "%s %" PRIu64 "\n", name, value);
        if (n < 0 || (size_t)n >= room - at) { /* whole lines only */
            out[at] = '\0';
            break;
        }
        at += (size_t)n;
    }
    return at;
}
