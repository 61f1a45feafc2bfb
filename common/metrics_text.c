/* metrics_text.c: a snapshot as text: for Prometheus, and as the compact lines of the fabric. */
#include "common/metrics_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* ---- for Prometheus ---- */

/* "{a,b,c}" of what there is of the three. */
static void put_labels(struct text *t, const char *a, const char *b, const char *c)
{
    const char *part[] = {a, b, c};
    const char *before = "{";
    for (size_t i = 0; i < ARRAY_LEN(part); i++) {
        if (part[i] == NULL || part[i][0] == '\0')
            continue;
        put(t, "%s%s", before, part[i]);
        before = ",";
    }
    if (before[0] == ',')
        put(t, "}");
}

static const char *seconds(uint64_t ns, char out[40])
{
    snprintf(out, 40, "%" PRIu64 ".%09" PRIu64, ns / (uint64_t)NS_PER_S, ns % (uint64_t)NS_PER_S);
    return out;
}

/* Prometheus's buckets are cumulative. */
static void put_hist(struct text *t, const struct metric *m, const char *labels, const struct metric_hist *h)
{
    char le[64], number[40];
    uint64_t seen = 0;
    unsigned next = 0;
    for (unsigned bits = METRICS_TEXT_LOW_BITS; bits <= METRICS_TEXT_HIGH_BITS; bits++) {
        const unsigned end = ((bits - METRICS_LOW_BITS) << METRICS_PART_BITS) + 1;
        while (next < end)
            seen += h->buckets[next++];
        snprintf(le, sizeof le, "le=\"%s\"", seconds(1ull << bits, number));
        put(t, "%s_bucket", m->name);
        put_labels(t, labels, m->labels, le);
        put(t, " %" PRIu64 "\n", seen);
    }
    put(t, "%s_bucket", m->name);
    put_labels(t, labels, m->labels, "le=\"+Inf\"");
    put(t, " %" PRIu64 "\n%s_sum", h->count, m->name);
    put_labels(t, labels, m->labels, NULL);
    put(t, " %s\n%s_count", seconds(h->sum_ns, number), m->name);
    put_labels(t, labels, m->labels, NULL);
    put(t, " %" PRIu64 "\n", h->count);
}

static void put_figure(struct text *t, const struct metric *m, const struct metrics_entry *e)
{
    const void *field = e->figures + m->offset;
    char number[40];
    if (m->kind == METRIC_HIST) {
        put_hist(t, m, e->labels, field);
        return;
    }
    const uint64_t value = *(const uint64_t *)field;
    put(t, "%s", m->name);
    put_labels(t, e->labels, m->labels, NULL);
    if (m->kind == METRIC_COUNTER_NS || m->kind == METRIC_GAUGE_NS)
        put(t, " %s\n", seconds(value, number));
    else
        put(t, " %" PRIu64 "\n", value);
}

static bool same_name(const struct metrics_group *g, size_t a, size_t b)
{
    return strcmp(g->metrics[a].name, g->metrics[b].name) == 0;
}

/* All that have one name, of all things of the group: Prometheus wants them together. */
static size_t put_family(struct text *t, const struct metrics_snapshot *s, const struct metrics_group *g,
                         size_t first)
{
    static const char *const types[] = {[METRIC_COUNTER] = "counter",
                                        [METRIC_GAUGE] = "gauge",
                                        [METRIC_COUNTER_NS] = "counter",
                                        [METRIC_GAUGE_NS] = "gauge",
                                        [METRIC_HIST] = "histogram"};
    const struct metric *m = &g->metrics[first];
    size_t end = first + 1;
    while (end < g->count && same_name(g, first, end))
        end++;
    put(t, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, types[m->kind]);
    list_for_each(n, &s->entries)
    {
        const struct metrics_entry *e = list_entry(n, struct metrics_entry, link);
        for (size_t i = first; e->group == g && i < end; i++)
            put_figure(t, &g->metrics[i], e);
    }
    return end;
}

/* An earlier thing has brought all of its group. */
static bool group_seen(const struct metrics_snapshot *s, const struct metrics_entry *e)
{
    const struct list *n = s->entries.next;
    while (list_entry(n, struct metrics_entry, link)->group != e->group)
        n = n->next;
    return n != &e->link;
}

size_t metrics_text(const struct metrics_snapshot *s, char *buf, size_t room)
{
    struct text t = {buf, room, 0};
    if (room > 0)
        buf[0] = '\0';
    list_for_each(n, &s->entries)
    {
        const struct metrics_entry *e = list_entry(n, struct metrics_entry, link);
        if (group_seen(s, e))
            continue;
        for (size_t i = 0; i < e->group->count;)
            i = put_family(&t, s, e->group, i);
    }
    return t.len;
}

/* ---- compact lines ---- */

static void put_line(struct text *t, const struct metric *m, const struct metrics_entry *e)
{
    const void *field = e->figures + m->offset;
    put(t, "%s", m->name);
    put_labels(t, e->labels, m->labels, NULL);
    if (m->kind != METRIC_HIST) {
        put(t, " %" PRIu64 "\n", *(const uint64_t *)field);
        return;
    }
    const struct metric_hist *h = field;
    put(t, " hist %" PRIu64 " %" PRIu64 " %" PRIu64, h->count, h->sum_ns, h->max_ns);
    for (unsigned i = 0; i < METRICS_HIST_BUCKETS; i++)
        if (h->buckets[i] != 0)
            put(t, " %u:%" PRIu64, i, h->buckets[i]);
    put(t, "\n");
}

size_t metrics_lines(const struct metrics_snapshot *s, uint32_t *after, char *buf, size_t room)
{
    struct text t = {buf, room, 0};
    uint32_t number = 0;
    if (room == 0)
        return 0;
    buf[0] = '\0';
    list_for_each(n, &s->entries)
    {
        const struct metrics_entry *e = list_entry(n, struct metrics_entry, link);
        for (size_t i = 0; i < e->group->count; i++) {
            const size_t before = t.len;
            if (number++ < *after)
                continue;
            put_line(&t, &e->group->metrics[i], e);
            if (t.len < room)
                continue;
            t.len = before;
            buf[before] = '\0';
            if (before == 0)
                continue; /* it alone is too long */
            *after = number - 1;
            return before;
        }
    }
    *after = 0;
    return t.len;
}

/* A number and what is behind it. */
static bool take_number(const char **p, char behind, uint64_t *out)
{
    char *end;
    if (**p < '0' || **p > '9')
        return false;
    errno = 0;
    const uint64_t value = strtoull(*p, &end, 10);
    if (errno != 0 || (*end != behind && *end != '\0'))
        return false;
    *out = value;
    *p = *end == '\0' ? end : end + 1;
    return true;
}

static bool parse_hist(const char *p, struct metric_hist *out)
{
    struct metric_hist h = {0};
    uint64_t place, total = 0;
    if (!take_number(&p, ' ', &h.count) || !take_number(&p, ' ', &h.sum_ns) ||
        !take_number(&p, ' ', &h.max_ns))
        return false;
    while (*p != '\0') {
        uint64_t count;
        if (!take_number(&p, ':', &place) || place >= METRICS_HIST_BUCKETS || !take_number(&p, ' ', &count))
            return false;
        h.buckets[place] = count;
        total += count;
    }
    if (total != h.count)
        return false;
    *out = h;
    return true;
}

bool metrics_line_parse(char *line, struct metric_line *out)
{
    char *brace = strchr(line, '{'), *space = strchr(line, ' ');
    const char *labels = "", *p;
    if (space == NULL || space == line)
        return false;
    if (brace != NULL && brace < space) { /* values of labels may hold spaces */
        char *end = brace;
        bool quoted = false;
        for (end = brace + 1; *end != '\0' && (quoted || *end != '}'); end++) {
            if (quoted && end[0] == '\\' && end[1] != '\0')
                end++;
            else if (*end == '"')
                quoted = !quoted;
        }
        if (end[0] != '}' || end[1] != ' ')
            return false;
        *brace = *end = '\0';
        labels = brace + 1;
        space = end + 1;
    }
    *space = '\0';
    p = space + 1;
    *out = (struct metric_line){.name = line, .labels = labels};
    if (strncmp(p, "hist ", 5) != 0)
        return take_number(&p, '\0', &out->value) && *p == '\0';
    out->is_hist = true;
    return parse_hist(p + 5, &out->hist);
}
