/* metrics.c: histograms, labels and snapshots. metrics_text.c writes them out. */
#include "common/metrics_internal.h"
#include "common/wire/wire_utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- histograms ---- */

uint64_t metrics_hist_bound(unsigned i)
{
    if (i == 0)
        return 1ull << METRICS_LOW_BITS;
    if (i >= METRICS_HIST_BUCKETS - 1)
        return UINT64_MAX;
    unsigned bits = METRICS_LOW_BITS + ((i - 1) >> METRICS_PART_BITS);
    unsigned part = (i - 1) & ((1u << METRICS_PART_BITS) - 1);
    return (1ull << bits) + ((part + 1ull) << (bits - METRICS_PART_BITS));
}

uint64_t metrics_hist_quantile(const struct metric_hist *h, unsigned q_permille)
{
    MUST(q_permille <= 1000);
    /* The rank, rounded up; in two steps so as not to overflow. */
    uint64_t rank = h->count / 1000 * q_permille + (h->count % 1000 * q_permille + 999) / 1000;
    uint64_t seen = 0;
    if (h->count == 0)
        return 0;
    for (unsigned i = 0; i < METRICS_HIST_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= max_u64(rank, 1))
            return min_u64(metrics_hist_bound(i), h->max_ns);
    }
    return h->max_ns;
}

static bool hist_went_on(const struct metric_hist *before, const struct metric_hist *now)
{
    bool grew = now->count >= before->count && now->sum_ns >= before->sum_ns;
    for (unsigned i = 0; grew && i < METRICS_HIST_BUCKETS; i++)
        grew = now->buckets[i] >= before->buckets[i];
    return grew;
}

void metrics_hist_since(const struct metric_hist *before, const struct metric_hist *now,
                        struct metric_hist *out)
{
    struct metric_hist d = *now;
    if (hist_went_on(before, now)) {
        d.count -= before->count;
        d.sum_ns -= before->sum_ns;
        for (unsigned i = 0; i < METRICS_HIST_BUCKETS; i++)
            d.buckets[i] -= before->buckets[i];
    }
    *out = d;
}

/* ---- labels ---- */

/* One character of a label's value into out (room for 4): how many bytes it takes, *p moved behind it. */
static size_t label_char(const char **p, char out[4])
{
    size_t len = wire_utf8_char((const uint8_t *)*p, strlen(*p));
    if (**p == '"' || **p == '\\' || **p == '\n') {
        out[0] = '\\';
        out[1] = **p == '\n' ? 'n' : **p;
        *p += 1;
        return 2;
    }
    if (len == 0)
        out[0] = '?';
    else
        memcpy(out, *p, len);
    *p += len != 0 ? len : 1;
    return len != 0 ? len : 1;
}

int metrics_label(char *buf, size_t room, const char *name, const char *value)
{
    size_t begin = strlen(buf), len = begin;
    int n = snprintf(buf + len, room - len, "%s%s=\"", len > 0 ? "," : "", name);
    bool fits = n > 0 && (size_t)n < room - len;
    if (fits)
        len += (size_t)n;
    while (fits && *value != '\0') {
        char out[4];
        size_t k = label_char(&value, out);
        fits = len + k < room;
        if (fits)
            memcpy(buf + len, out, k);
        len += k;
    }
    if (!fits || len + 1 >= room) {
        buf[begin] = '\0';
        return -E2BIG;
    }
    buf[len++] = '"';
    buf[len] = '\0';
    return 0;
}

/* The end of the value that begins at p, behind the quote: where the closing quote is. NULL: there is none.
 */
static const char *value_end(const char *p)
{
    while (*p != '\0' && *p != '"')
        p += p[0] == '\\' && p[1] != '\0' ? 2 : 1;
    return *p == '"' ? p : NULL;
}

bool metrics_label_get(const char *labels, const char *name, char *out, size_t room)
{
    size_t name_len = strlen(name), len = 0;
    const char *p = labels, *end = NULL;
    for (;; p = end + 2) {
        const char *equals = strchr(p, '=');
        if (equals == NULL || equals[1] != '"' || (end = value_end(equals + 2)) == NULL)
            return false;
        if ((size_t)(equals - p) == name_len && memcmp(p, name, name_len) == 0) {
            p = equals + 2;
            break;
        }
        if (end[1] != ',')
            return false;
    }
    for (; p < end; p++) {
        if (len + 1 >= room)
            return false;
        if (*p == '\\')
            out[len++] = *++p == 'n' ? '\n' : *p;
        else
            out[len++] = *p;
    }
    if (room == 0)
        return false;
    out[len] = '\0';
    return true;
}

/* ---- snapshots ---- */

int metrics_snapshot_create(struct metrics_snapshot **out)
{
    struct metrics_snapshot *s = calloc(1, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    list_init(&s->entries);
    *out = s;
    return 0;
}

void metrics_snapshot_clear(struct metrics_snapshot *s)
{
    struct list *n;
    while ((n = list_pop_front(&s->entries)) != NULL)
        free(list_entry(n, struct metrics_entry, link));
    s->count = 0;
    s->why[0] = s->remarks[0] = '\0';
}

void metrics_snapshot_destroy(struct metrics_snapshot *s)
{
    if (s == NULL)
        return;
    metrics_snapshot_clear(s);
    free(s);
}

void *metrics_snapshot_add(struct metrics_snapshot *s, const struct metrics_group *group, const char *labels)
{
    if (labels == NULL)
        labels = "";
    size_t len = strlen(labels);
    if (s->count >= METRICS_ENTRIES_MAX || len >= METRICS_LABELS_MAX)
        return NULL;
    struct metrics_entry *e = calloc(1, sizeof *e + group->bytes);
    if (e == NULL)
        return NULL;
    e->group = group;
    memcpy(e->labels, labels, len + 1);
    list_push_back(&s->entries, &e->link);
    s->count++;
    return e->figures;
}

static void say(char text[METRICS_WHY_MAX], const char *fmt, va_list args)
{
    size_t len = strlen(text);
    if (len > 0 && len + 2 < METRICS_WHY_MAX) {
        memcpy(text + len, "; ", 3);
        len += 2;
    }
    vsnprintf(text + len, METRICS_WHY_MAX - len, fmt, args);
}

void metrics_snapshot_not_ready(struct metrics_snapshot *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say(s->why, fmt, args);
    va_end(args);
}

void metrics_snapshot_remark(struct metrics_snapshot *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say(s->remarks, fmt, args);
    va_end(args);
}

const char *metrics_snapshot_remarks(const struct metrics_snapshot *s)
{
    return s->remarks[0] != '\0' ? s->remarks : NULL;
}

const char *metrics_snapshot_why(const struct metrics_snapshot *s)
{
    return s->why[0] != '\0' ? s->why : NULL;
}
