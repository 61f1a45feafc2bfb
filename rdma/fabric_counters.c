/* fabric_counters.c: counters by name, for those who read them from afar. */
#include "rdma/fabric_provider.h"

#include <inttypes.h>
#include <stdio.h>

#define NAMED(field)                                                                                         \
    {                                                                                                        \
#field, offsetof(struct fabric_counters, field)                                                      \
    }

static const struct {
    const char *name;
    size_t offset;
} counters[] = {
    NAMED(conns_open),
    NAMED(conns_total),
    NAMED(conns_refused),
    NAMED(messages_sent),
    NAMED(messages_received),
    NAMED(bytes_sent),
    NAMED(bytes_received),
    NAMED(reads),
    NAMED(writes),
    NAMED(reads_served),
    NAMED(writes_served),
    NAMED(fetches),
    NAMED(pushes),
    NAMED(ops_pending),
    NAMED(mems),
    NAMED(credit_waits),
    NAMED(protocol_errors),
};
_Static_assert(ARRAY_LEN(counters) * sizeof(uint64_t) == sizeof(struct fabric_counters),
               "every counter has its name here");

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
        const uint64_t value = own ? *(const uint64_t *)((const char *)&c + counters[i].offset)
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
