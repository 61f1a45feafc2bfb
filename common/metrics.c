/* metrics.c: the registry, and the exposition text. */
#include "common/metrics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/list.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_GAUGE_FN, METRIC_HIST };

/* All metrics of one name stand together in the text. */
struct family {
    struct list link;
    const char *name;
    const char *help;
    enum metric_kind kind;
    struct list members;
};
struct member {
    struct list link;
    char *labels; /* "" when there are none */
    int64_t (*fn)(void *arg);
    void *arg;
    union {
        uint64_t counter;
        int64_t gauge;
        struct metric_hist hist;
    } u;
};
struct metrics {
    struct list families;
};

int metrics_create(struct metrics **out)
{
    struct metrics *m = calloc(1, sizeof *m);
    if (m == NULL)
        return -ENOMEM;
    list_init(&m->families);
    *out = m;
    return 0;
}

void metrics_destroy(struct metrics *m)
{
    struct list *f, *n;
    if (m == NULL)
        return;
    while ((f = list_pop_front(&m->families)) != NULL) {
        struct family *family = list_entry(f, struct family, link);
        while ((n = list_pop_front(&family->members)) != NULL) {
            struct member *member = list_entry(n, struct member, link);
            free(member->labels);
            free(member);
        }
        free(family);
    }
    free(m);
}

/* ---- registration ---- */

static bool name_valid(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:0123456789";
    return name[0] != '\0' && (name[0] < '0' || name[0] > '9') && name[strspn(name, letters)] == '\0';
}

static struct family *find_family(struct metrics *m, const char *name, const char *help,
                                  enum metric_kind kind)
{
    list_for_each(n, &m->families)
    {
        struct family *f = list_entry(n, struct family, link);
        if (strcmp(f->name, name) == 0) {
            MUST(f->kind == kind);
            return f;
        }
    }
    MUST(name_valid(name) && strchr(help, '\n') == NULL && strchr(help, '\\') == NULL);
    struct family *f = calloc(1, sizeof *f);
    if (f == NULL)
        return NULL;
    f->name = name;
    f->help = help;
    f->kind = kind;
    list_init(&f->members);
    list_push_back(&m->families, &f->link);
    return f;
}

static struct member *find_member(struct metrics *m, const char *name, const char *labels, const char *help,
                                  enum metric_kind kind)
{
    struct family *f = find_family(m, name, help, kind);
    if (f == NULL)
        return NULL;
    if (labels == NULL)
        labels = "";
    list_for_each(n, &f->members)
    {
        struct member *member = list_entry(n, struct member, link);
        if (strcmp(member->labels, labels) == 0)
            return member;
    }
    struct member *member = calloc(1, sizeof *member);
    if (member == NULL)
        return NULL;
    member->labels = strdup(labels);
    if (member->labels == NULL) {
        free(member);
        return NULL;
    }
    list_push_back(&f->members, &member->link);
    return member;
}

uint64_t *metrics_counter(struct metrics *m, const char *name, const char *labels, const char *help)
{
    struct member *member = find_member(m, name, labels, help, METRIC_COUNTER);
    return member != NULL ? &member->u.counter : NULL;
}

int64_t *metrics_gauge(struct metrics *m, const char *name, const char *labels, const char *help)
{
    struct member *member = find_member(m, name, labels, help, METRIC_GAUGE);
    return member != NULL ? &member->u.gauge : NULL;
}

struct metric_hist *metrics_hist(struct metrics *m, const char *name, const char *labels, const char *help)
{
    struct member *member = find_member(m, name, labels, help, METRIC_HIST);
    return member != NULL ? &member->u.hist : NULL;
}

int metrics_gauge_fn(struct metrics *m, const char *name, const char *labels, const char *help,
                     int64_t (*fn)(void *arg), void *arg)
{
    struct member *member = find_member(m, name, labels, help, METRIC_GAUGE_FN);
    if (member == NULL)
        return -ENOMEM;
    member->fn = fn;
    member->arg = arg;
    return 0;
}

int metrics_label(char *buf, size_t room, const char *name, const char *value)
{
    size_t begin = strlen(buf), len = begin;
    int n = snprintf(buf + len, room - len, "%s%s=\"", len > 0 ? "," : "", name);
    bool fits = n > 0 && (size_t)n < room - len;
    if (fits)
        len += (size_t)n;
    for (const char *p = value; fits && *p != '\0'; p++) {
        bool escape = *p == '"' || *p == '\\' || *p == '\n';
        fits = len + (escape ? 2 : 1) < room;
        if (!fits)
            break;
        if (escape)
            buf[len++] = '\\';
        buf[len++] = *p == '\n' ? 'n' : *p;
    }
    if (!fits || len + 1 >= room) {
        buf[begin] = '\0';
        return -E2BIG;
    }
    buf[len++] = '"';
    buf[len] = '\0';
    return 0;
}

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

/* ---- text ---- */

struct text {
    char *buf;
    size_t room;
    size_t len; /* of the whole, also what did not fit */
};

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    size_t at = min_u64(t->len, t->room);
    int n = vsnprintf(t->room > 0 ? t->buf + at : NULL, t->room - at, fmt, args);
    va_end(args);
    if (n > 0)
        t->len += (size_t)n;
}

static void put_braced(struct text *t, const char *labels)
{
    if (labels[0] != '\0')
        put(t, "{%s}", labels);
}

static void put_seconds(struct text *t, uint64_t ns)
{
    put(t, "%" PRIu64 ".%09" PRIu64, ns / (uint64_t)NS_PER_S, ns % (uint64_t)NS_PER_S);
}

/* Prometheus's buckets are cumulative: one line at the end of each power of two in which something was
 * counted. */
static void put_hist(struct text *t, const char *name, const char *labels, const struct metric_hist *h)
{
    const unsigned parts = 1u << METRICS_PART_BITS;
    const char *comma = labels[0] != '\0' ? "," : "";
    uint64_t seen = 0, written = 0;
    for (unsigned i = 0; i < METRICS_HIST_BUCKETS - 1; i++) {
        seen += h->buckets[i];
        if (i % parts != 0 || seen == written)
            continue;
        put(t, "%s_bucket{%s%sle=\"", name, labels, comma);
        put_seconds(t, metrics_hist_bound(i));
        put(t, "\"} %" PRIu64 "\n", seen);
        written = seen;
    }
    put(t, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, labels, comma, h->count);
    put(t, "%s_sum", name);
    put_braced(t, labels);
    put(t, " ");
    put_seconds(t, h->sum_ns);
    put(t, "\n%s_count", name);
    put_braced(t, labels);
    put(t, " %" PRIu64 "\n", h->count);
}

static void put_member(struct text *t, const struct family *f, const struct member *member)
{
    if (f->kind == METRIC_HIST) {
        put_hist(t, f->name, member->labels, &member->u.hist);
        return;
    }
    put(t, "%s", f->name);
    put_braced(t, member->labels);
    if (f->kind == METRIC_COUNTER)
        put(t, " %" PRIu64 "\n", member->u.counter);
    else
        put(t, " %" PRId64 "\n", f->kind == METRIC_GAUGE_FN ? member->fn(member->arg) : member->u.gauge);
}

size_t metrics_dump(const struct metrics *m, char *buf, size_t room)
{
    static const char *const kinds[] = {
        [METRIC_COUNTER] = "counter",
        [METRIC_GAUGE] = "gauge",
        [METRIC_GAUGE_FN] = "gauge",
        [METRIC_HIST] = "histogram",
    };
    struct text t = {buf, room, 0};
    if (room > 0)
        buf[0] = '\0';
    list_for_each(n, &m->families)
    {
        const struct family *f = list_entry(n, struct family, link);
        put(&t, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, kinds[f->kind]);
        list_for_each(k, &f->members)
        {
            put_member(&t, f, list_entry(k, struct member, link));
        }
    }
    return t.len;
}
