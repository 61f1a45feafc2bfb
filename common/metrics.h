/*
 * metrics.h: what a service tells about itself: counters, gauges and latency histograms, as text for
 * Prometheus (prometheus.io/docs/instrumenting/exposition_formats, text format 0.0.4) and as compact lines
 * for `cistern top`.
 *
 * A group is a plain struct of figures and a table that describes it, both made from one .def file:
 *
 *     METRIC(COUNTER, reads, "cistern_module_requests_total", "op=\"read\"", "Requests answered with OK.")
 *
 * The hot path adds to fields of its own objects; nothing is registered, locked or allocated there. When
 * somebody asks, the loop copies what there is into a snapshot (metrics_snapshot_add for each thing, with its
 * labels), and whoever has the snapshot then writes it out, on any thread. Thread: a snapshot belongs to one
 * thread at a time.
 */
#ifndef CISTERN_COMMON_METRICS_H
#define CISTERN_COMMON_METRICS_H

#include "common/base.h"

/* ---- histograms ---- */
/*
 * Buckets of a histogram, in ns: each power of two from 2^10 (1 us) on is cut into 4 equal parts, up to 2^36
 * (69 s); the first bucket holds all below, the last all above. A value is known to about 12 % from its
 * bucket.
 */
#define METRICS_LOW_BITS     10
#define METRICS_HIGH_BITS    36
#define METRICS_PART_BITS    2
#define METRICS_HIST_BUCKETS (((METRICS_HIGH_BITS - METRICS_LOW_BITS) << METRICS_PART_BITS) + 2)
/* The text has one line for each power of two between these (4 us to 17 s), always the same ones: whoever
 * computes with them relies on that. */
#define METRICS_TEXT_LOW_BITS  12
#define METRICS_TEXT_HIGH_BITS 34

struct metric_hist {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t max_ns;
    uint64_t buckets[METRICS_HIST_BUCKETS];
};

/* The bucket that v falls into. */
static inline unsigned metrics_hist_bucket(uint64_t v)
{
    if (v < 1ull << METRICS_LOW_BITS)
        return 0;
    if (v >= 1ull << METRICS_HIGH_BITS)
        return METRICS_HIST_BUCKETS - 1;
    unsigned bits = 63u - (unsigned)__builtin_clzll(v);
    unsigned part = (unsigned)(v >> (bits - METRICS_PART_BITS)) & ((1u << METRICS_PART_BITS) - 1);
    return 1 + ((bits - METRICS_LOW_BITS) << METRICS_PART_BITS) + part;
}
/* Values of bucket i are below this; UINT64_MAX for the last. */
uint64_t metrics_hist_bound(unsigned i);
static inline void metrics_hist_add(struct metric_hist *h, uint64_t ns)
{
    h->count++;
    h->sum_ns += ns;
    h->max_ns = max_u64(h->max_ns, ns);
    h->buckets[metrics_hist_bucket(ns)]++;
}
/* The upper bound of the bucket that holds the q/1000 quantile (but not above max_ns); 0 when the histogram
 * is empty. */
uint64_t metrics_hist_quantile(const struct metric_hist *h, unsigned q_permille);
/* What was added between two states of one histogram. One that began anew (a service was restarted) is taken
 * as a whole. max_ns is the later one's. */
void metrics_hist_since(const struct metric_hist *before, const struct metric_hist *now,
                        struct metric_hist *out);

/* ---- groups ---- */
enum metric_kind {
    METRIC_COUNTER,    /* uint64_t that only grows */
    METRIC_GAUGE,      /* uint64_t */
    METRIC_COUNTER_NS, /* uint64_t of ns, told in seconds */
    METRIC_GAUGE_NS,
    METRIC_HIST, /* struct metric_hist */
};
/* The type of a field of that kind, for the structs made from a .def. */
#define METRIC_TYPE_COUNTER    uint64_t
#define METRIC_TYPE_GAUGE      uint64_t
#define METRIC_TYPE_COUNTER_NS uint64_t
#define METRIC_TYPE_GAUGE_NS   uint64_t
#define METRIC_TYPE_HIST       struct metric_hist

/* One figure. All strings are literals of ours: names and labels are not checked where they are written. */
struct metric {
    const char *name;   /* as Prometheus wants it: unit, and _total for what only grows */
    const char *labels; /* between the braces; NULL: none. Figures of one name stand together. */
    const char *help;   /* one line; of the first of a name */
    enum metric_kind kind;
    size_t offset; /* in the struct of figures */
};
struct metrics_group {
    const char *name; /* of what it is about */
    const struct metric *metrics;
    size_t count, bytes; /* bytes: of the struct of figures */
};
/*
 * Between an include of a .def: in the struct
 *     #define METRIC METRICS_FIELD
 * and in the table, with METRICS_STRUCT the struct's name,
 *     #define METRIC METRICS_ENTRY
 */
#define METRICS_FIELD(kind, field, name, labels, help) METRIC_TYPE_##kind field;
#define METRICS_ENTRY(kind, field, name, labels, help)                                                       \
    {name, labels, help, METRIC_##kind, offsetof(struct METRICS_STRUCT, field)},
/* Of what is counted by status.def: nothing is refused with OK, in its place stand those that are not known.
 */
#define METRICS_STATUS_LABEL(number, name) (number) == 0 ? "status=\"OTHER\"" : "status=\"" #name "\""
#define METRICS_GROUP(name, table)                                                                           \
    {                                                                                                        \
        name, table, ARRAY_LEN(table), sizeof(struct METRICS_STRUCT)                                         \
    }

/* ---- snapshots ---- */
#define METRICS_LABELS_MAX  512u  /* of one thing, with the NUL */
#define METRICS_ENTRIES_MAX 4096u /* things in a snapshot */
#define METRICS_WHY_MAX     512u

struct metrics_snapshot;
/* Empty and ready. 0 or -ENOMEM. */
int metrics_snapshot_create(struct metrics_snapshot **out);
void metrics_snapshot_destroy(struct metrics_snapshot *s);
void metrics_snapshot_clear(struct metrics_snapshot *s);
/*
 * The figures of one more thing, zeroed, to be filled in by the caller; its until the snapshot is cleared.
 * labels: from metrics_label; copied; NULL or "": none. The same group and labels once a snapshot. NULL when
 * out of memory or when there are too many: it is left out.
 */
void *metrics_snapshot_add(struct metrics_snapshot *s, const struct metrics_group *group, const char *labels);
/* The service is not ready, and why, in words for an operator. Said more than once: all of it is kept that
 * fits. */
void metrics_snapshot_not_ready(struct metrics_snapshot *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* What is wrong although the service is ready: told with that. Likewise. */
void metrics_snapshot_remark(struct metrics_snapshot *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* NULL: none. */
const char *metrics_snapshot_remarks(const struct metrics_snapshot *s);
/* NULL: ready. */
const char *metrics_snapshot_why(const struct metrics_snapshot *s);
/* Appends name="value", escaped, to the labels in buf (room bytes, begins as ""). Bytes that are not UTF-8
 * become '?'. 0 or -E2BIG, buf untouched. */
int metrics_label(char *buf, size_t room, const char *name, const char *value);

/*
 * The snapshot as text into buf, NUL-terminated. Returns the length that the whole text has without the NUL,
 * like snprintf: when that is room or more, the text was cut and the caller tries again with more room.
 */
size_t metrics_text(const struct metrics_snapshot *s, char *buf, size_t room);

/* ---- compact lines ---- */
/*
 * Some of the snapshot as lines, whole ones that fit room, NUL-terminated, from figure number *after (0 at
 * first) on; *after is then where to go on, 0 at the end. Returns the length. A figure that does not fit at
 * all is left out.
 *     name{labels} VALUE
 *     name{labels} hist COUNT SUM MAX BUCKET:COUNT ...        (empty buckets left out)
 * Times are in ns.
 */
size_t metrics_lines(const struct metrics_snapshot *s, uint32_t *after, char *buf, size_t room);
struct metric_line {
    const char *name, *labels; /* into the line, which is cut up; labels "" when there are none */
    bool is_hist;
    uint64_t value;
    struct metric_hist hist;
};
/* Takes apart one line (without its end), which may come from anybody. False: it is not one. */
bool metrics_line_parse(char *line, struct metric_line *out);
/* The value of a label into out (room bytes), its escapes undone. False: it is not there, or does not fit. */
bool metrics_label_get(const char *labels, const char *name, char *out, size_t room);

#endif
