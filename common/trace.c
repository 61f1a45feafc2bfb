/* trace.c: the ring, and the hash that two runs of one seed must share. */
#include "common/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct trace_entry {
    uint64_t now_ns;
    const char *what;
    uint64_t args[3];
};

struct trace {
    uint64_t hash;
    uint64_t points; /* ever recorded; the ring holds the latest of them */
    size_t entries;
    struct trace_entry ring[];
};

static _Thread_local struct trace *current;

int trace_create(size_t entries, struct trace **out)
{
    MUST(entries > 0);
    struct trace *t = calloc(1, sizeof *t + entries * sizeof t->ring[0]);
    if (t == NULL)
        return -ENOMEM;
    t->entries = entries;
    t->hash = 0x243f6a8885a308d3ull;
    *out = t;
    return 0;
}

void trace_destroy(struct trace *t)
{
    if (current == t)
        current = NULL;
    free(t);
}

/* Each step is a bijection of the hash for a given v, so no difference is ever lost by a later equal point.
 */
static uint64_t mix(uint64_t hash, uint64_t v)
{
    hash ^= v * 0x9e3779b97f4a7c15ull;
    hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93ull;
    hash = (hash ^ hash >> 29) * 0xd6e8feb86659fd93ull;
    return hash ^ hash >> 32;
}

static uint64_t mix_text(uint64_t hash, const char *text)
{
    size_t len = strlen(text);
    hash = mix(hash, len);
    while (len > 0) {
        uint64_t v = 0;
        size_t n = len < sizeof v ? len : sizeof v;
        memcpy(&v, text, n);
        hash = mix(hash, v);
        text += n;
        len -= n;
    }
    return hash;
}

void trace_point(struct trace *t, uint64_t now_ns, const char *what, uint64_t a, uint64_t b, uint64_t c)
{
    if (t == NULL)
        return;
    t->hash = mix_text(mix(t->hash, now_ns), what);
    t->hash = mix(mix(mix(t->hash, a), b), c);
    t->ring[t->points % t->entries] = (struct trace_entry){now_ns, what, {a, b, c}};
    t->points++;
}

uint64_t trace_hash(const struct trace *t)
{
    return t != NULL ? t->hash : 0;
}

void trace_dump(const struct trace *t, int fd, size_t n)
{
    if (t == NULL)
        return;
    uint64_t have = min_u64(min_u64(t->points, t->entries), n);
    for (uint64_t i = t->points - have; i < t->points; i++) {
        const struct trace_entry *e = &t->ring[i % t->entries];
        char line[256];
        int len = snprintf(
            line, sizeof line, "trace %llu %llu.%09llu %s %llu %llu %llu\n", (unsigned long long)i,
            (unsigned long long)(e->now_ns / NS_PER_S), (unsigned long long)(e->now_ns % NS_PER_S), e->what,
            (unsigned long long)e->args[0], (unsigned long long)e->args[1], (unsigned long long)e->args[2]);
        if (len <= 0)
            return;
        size_t bytes = (size_t)len < sizeof line ? (size_t)len : sizeof line - 1;
        if (write(fd, line, bytes) < 0)
            return;
    }
}

void trace_set_current(struct trace *t)
{
    current = t;
}

void trace_dump_current(int fd, size_t n)
{
    trace_dump(current, fd, n);
}
