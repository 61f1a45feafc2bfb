/* store_check.c: the order in which a store is checked, and what happens to findings. */
#include "services/rwm/store_check_internal.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- findings ---- */
static const struct {
    const char *name, *words;
    enum store_finding_level level;
} kinds[STORE_FINDINGS] = {
#define FINDING(name, level, words) {#name, words, STORE_LEVEL_##level},
#include "services/rwm/store_check.def"
#undef FINDING
};

const char *store_finding_name(enum store_finding_kind kind)
{
    return kinds[kind].name;
}

const char *store_finding_words(enum store_finding_kind kind)
{
    return kinds[kind].words;
}

enum store_finding_level store_finding_level(enum store_finding_kind kind)
{
    return kinds[kind].level;
}

static void count_damage(struct store_check *c, const struct store_finding *f)
{
    if (f->kind != STORE_FINDING_UNITS_BAD && f->kind != STORE_FINDING_UNITS_UNREADABLE &&
        f->kind != STORE_FINDING_UNITS_BAD_JOURNAL)
        return;
    struct store_check_volume *v =
        (struct store_check_volume *)(uintptr_t)store_check_volume(c, f->key.layer);
    if (v)
        v->bad_units += (uint64_t)__builtin_popcount(f->units);
    if (c->partitions)
        c->partitions[f->key.hash & (c->report.partition_count - 1)].bad_blocks++;
}

void check_find(struct store_check *c, const struct store_finding *f)
{
    struct store_check_report *r = &c->report;
    enum store_finding_level level = kinds[f->kind].level;
    r->counts[f->kind]++;
    r->repairable += f->repairable;
    if (level > r->worst)
        r->worst = level;
    count_damage(c, f);
    if (c->options.found)
        c->options.found(c->options.arg, f);
}

void check_found(struct store_check *c, enum store_finding_kind kind, int copy, uint64_t number,
                 const char *fmt, ...)
{
    struct store_finding f = {.kind = kind, .copy = copy, .number = number};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f.text, sizeof f.text, fmt, ap);
    va_end(ap);
    check_find(c, &f);
}

int check_repairable(struct store_check *c, enum store_finding_kind kind, int bad_copy, bool journal,
                     uint32_t page, const char *fmt, ...)
{
    struct store_finding f = {
        .kind = kind, .copy = bad_copy, .number = page == STORE_NONE ? 0 : page, .repairable = true};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f.text, sizeof f.text, fmt, ap);
    va_end(ap);
    struct check_repair_action a = {.journal = journal, .page = page};
    unsigned bad = (unsigned)bad_copy;
    if (page == STORE_NONE) {
        a.to = bad ? STORE_SUPER_1 : STORE_SUPER_0;
        a.from = bad ? STORE_SUPER_0 : STORE_SUPER_1;
        snprintf(a.text, sizeof a.text, "%s copy %u from copy %u",
                 journal ? "the journal device's superblock" : "superblock", bad, !bad);
    } else {
        a.to = check_page_offset(c, page, bad);
        a.from = check_page_offset(c, page, !bad);
        snprintf(a.text, sizeof a.text, "metadata page %u copy %c from copy %c", page, bad ? 'B' : 'A',
                 bad ? 'A' : 'B');
    }
    check_find(c, &f);
    return check_list_add(&c->repairs, sizeof a, &a);
}

void check_block_text(const struct store_check *c, const struct store_key *key, uint32_t units, char *out,
                      size_t size)
{
    const struct store_check_volume *v = store_check_volume(c, key->layer);
    unsigned first = units ? (unsigned)__builtin_ctz(units) : 0,
             last = units ? 31u - (unsigned)__builtin_clz(units) : 31;
    uint64_t base = key->block * BLOCK_BYTES;
    int n;
    if (v && !uuid_is_zero(&v->id)) {
        char id[33];
        uuid_format(&v->id, id);
        n = snprintf(out, size, "volume %s", id);
    } else {
        n = snprintf(out, size, "layer %lu", (unsigned long)key->layer);
    }
    snprintf(out + n, size - (size_t)n, ", bytes %lu to %lu (%d of 4 KiB)",
             (unsigned long)(base + first * UNIT_BYTES),
             (unsigned long)(base + (last + 1ull) * UNIT_BYTES) - 1, __builtin_popcount(units));
}

/* ---- memory ---- */
static int make_memory(struct store_check *c)
{
    static const uint32_t bytes[3] = {64, 128, 64};
    c->pages = calloc((size_t)c->record_pages + c->super.entry_pages, 1);
    c->journal.window = aligned_alloc(STORE_PAGE_BYTES, CHECK_WINDOW_BYTES);
    if (!c->pages || !c->journal.window)
        return -ENOMEM;
    for (unsigned k = 0; k < 3; k++) {
        c->record_bytes[k] = bytes[k];
        c->records[k] = calloc(c->super.records[k], bytes[k]);
        c->record_lost[k] = calloc(c->super.records[k], 1);
        if (!c->records[k] || !c->record_lost[k])
            return -ENOMEM;
    }
    return 0;
}

static int make_nodes(struct store_check *c)
{
    c->entry_count = (c->page_count - c->record_pages) * ENTRIES_PER_PAGE;
    c->nodes = calloc((size_t)c->entry_count + 1, sizeof c->nodes[0]);
    return c->nodes ? 0 : -ENOMEM;
}

void store_check_free(struct store_check *c)
{
    if (!c)
        return;
    free(c->buf_a);
    free(c->buf_b);
    free(c->repairs.items);
    free(c->journal.window);
    free(c->journal.batches.items);
    free(c->pages);
    free(c->nodes);
    free(c->overrides);
    free(c->key_buckets);
    free(c->volumes.items);
    free(c->layer_buckets);
    free(c->partitions);
    for (unsigned k = 0; k < 3; k++) {
        free(c->records[k]);
        free(c->record_lost[k]);
    }
    free(c);
}

/* ---- the order of things ---- */
static void check_past(struct store_check *c)
{
    const struct disk_super *sb = &c->super;
    if (sb->flags & SUPER_PAGES_LOST)
        check_found(
            c, STORE_FINDING_LOST_BEFORE, -1, 0,
            "a metadata page was lost in the past: blocks that are not found may have been there, and answer with an "
            "error");
    if (sb->suspect_below)
        check_found(
            c, STORE_FINDING_SUSPECT_BEFORE, -1, sb->suspect_below,
            "durable batches before %lu were lost in the past: blocks not written since answer with an error",
            (unsigned long)sb->suspect_below);
}

static int check_all(struct store_check *c)
{
    int rc = c->data->size < STORE_HEAD_BYTES || c->journal_device->size < STORE_HEAD_BYTES ? 1 : 0;
    if (rc) {
        check_found(c, STORE_FINDING_DEVICE_FOREIGN, -1, 0, "%s is too small for a store",
                    c->data->size < STORE_HEAD_BYTES ? c->data->name : c->journal_device->name);
        return rc;
    }
    if ((rc = check_supers(c)) || (rc = make_memory(c)))
        return rc;
    check_past(c);
    if ((rc = check_journal_walk(c)) || (rc = make_nodes(c)) || (rc = check_pages(c)) ||
        (rc = check_model(c)))
        return rc;
    c->report.complete = true;
    return c->options.data ? check_data(c) : 0;
}

int store_check_run(struct env *env, struct device *data, struct device *journal,
                    const struct store_check_options *options, struct store_check **out)
{
    struct store_check *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->env = env;
    c->data = data;
    c->journal_device = journal ? journal : data;
    c->journal_given = journal != NULL;
    if (options)
        c->options = *options;
    c->buf_a = aligned_alloc(STORE_PAGE_BYTES, CHECK_WINDOW_BYTES);
    c->buf_b = aligned_alloc(STORE_PAGE_BYTES, CHECK_WINDOW_BYTES);
    int rc = c->buf_a && c->buf_b ? check_all(c) : -ENOMEM;
    if (rc == -ENOMEM) {
        store_check_free(c);
        return rc;
    }
    c->report.volumes = c->volumes.items;
    c->report.volume_count = c->volumes.count;
    *out = c;
    return rc < 0 ? rc : 0;
}

const struct store_check_report *store_check_report(const struct store_check *c)
{
    return &c->report;
}
