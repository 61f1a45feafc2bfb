/*
 * What the services tell of themselves, by name: that the names keep to Prometheus's conventions
 * (prometheus.io/docs/practices/naming), are given once, and that docs/metrics.md has just these.
 *
 * CISTERN_WRITE_DOCS=1 in the environment writes the table in the document anew.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/loop_metrics.h"
#include "common/metrics_process.h"
#include "rdma/fabric.h"
#include "services/cluster/cluster_metrics.h"
#include "services/mdc/mdc_metrics.h"
#include "services/rwm/rwm_metrics.h"
#include "services/vbs/gateway_metrics.h"

static const struct {
    const char *title, *labels;
    const struct metrics_group *group;
} groups[] = {
    {"The metadata controller", "", &mdc_metrics_group},
    {"", "", &mdc_requests_group},
    {"", "", &mdc_refusals_group},
    {"Its pools, the first 64 of them", "pool", &mdc_pool_group},
    {"Modules: OSDs and SAN agents", "module", &rwm_runner_group},
    {"", "module", &rwm_metrics_group},
    {"", "module", &rwm_refusals_group},
    {"", "module, id, pool, kind, media, host", &rwm_info_group},
    {"Gateways", "", &gateway_metrics_group},
    {"", "", &gateway_refusals_group},
    {"The session with the controller, and the table: gateways; modules, with the label module", "",
     &cluster_metrics_group},
    {"The fabric: every service", "", &fabric_metrics_group},
    {"The event loop and the process: every service", "", &loop_metrics_group},
    {"", "service, name, version", &build_metrics_group},
    {"", "", &process_metrics_group},
};

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static void check_name(const struct metric *m)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
    static const char *const taken[] = {"_bucket", "_sum", "_count", "_ns", "_ms", "_us", "_kb", "_mib"};
    const bool grows = m->kind == METRIC_COUNTER || m->kind == METRIC_COUNTER_NS;
    const bool timed = m->kind == METRIC_COUNTER_NS || m->kind == METRIC_GAUGE_NS || m->kind == METRIC_HIST;
    if (strspn(m->name, letters) != strlen(m->name) ||
        (strncmp(m->name, "cistern_", 8) != 0 && strncmp(m->name, "process_", 8) != 0))
        fail_msg("%s: not a name", m->name);
    if (ends_with(m->name, "_total") != grows)
        fail_msg("%s: _total is for what only grows", m->name);
    if (timed && !ends_with(m->name, m->kind == METRIC_COUNTER_NS ? "_seconds_total" : "_seconds"))
        fail_msg("%s: is in seconds", m->name);
    if (!timed && strstr(m->name, "seconds") != NULL)
        fail_msg("%s: is not in seconds", m->name);
    for (size_t i = 0; i < ARRAY_LEN(taken); i++)
        if (ends_with(m->name, taken[i]))
            fail_msg("%s: must not end so", m->name);
    if (strchr(m->help, '\n') != NULL || strchr(m->help, '\\') != NULL)
        fail_msg("%s: its help would need escapes", m->name);
}

/* Figures of one name: together, of one kind, the first with help, told apart by their labels. */
static void check_family(const struct metrics_group *g, size_t i)
{
    const struct metric *m = &g->metrics[i];
    const bool first = i == 0 || strcmp(g->metrics[i - 1].name, m->name) != 0;
    if (first && m->help[0] == '\0')
        fail_msg("%s: no help", m->name);
    for (size_t k = 0; k < i; k++) {
        const struct metric *before = &g->metrics[k];
        if (strcmp(before->name, m->name) != 0)
            continue;
        if (first)
            fail_msg("%s: its figures do not stand together", m->name);
        if (before->kind != m->kind || m->labels == NULL || before->labels == NULL ||
            strcmp(before->labels, m->labels) == 0)
            fail_msg("%s: two of one name", m->name);
    }
}

static void names_keep_to_the_conventions(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        const struct metrics_group *g = groups[i].group;
        assert_true(g->count > 0);
        for (size_t k = 0; k < g->count; k++) {
            check_name(&g->metrics[k]);
            check_family(g, k);
            const size_t size =
                g->metrics[k].kind == METRIC_HIST ? sizeof(struct metric_hist) : sizeof(uint64_t);
            assert_true(g->metrics[k].offset + size <= g->bytes);
            for (size_t other = 0; other < i; other++)
                for (size_t n = 0; n < groups[other].group->count; n++)
                    if (strcmp(groups[other].group->metrics[n].name, g->metrics[k].name) == 0)
                        fail_msg("%s: in two groups", g->metrics[k].name);
        }
    }
}

/* ---- the document ---- */

/* `op`: read, write: the label that the figures of one name differ in, and its values. */
static void put_values(FILE *out, const struct metrics_group *g, size_t first, size_t end)
{
    if (g->metrics[first].labels == NULL)
        return;
    if (g == &mdc_requests_group) {
        fprintf(out, "`method`: as in `common/wire/mdc.def`");
        return;
    }
    if (strncmp(g->metrics[first].labels, "status=", 7) == 0) {
        fprintf(out, "`status`: as in `common/status.def`, or OTHER");
        return;
    }
    const size_t name_len = strcspn(g->metrics[first].labels, "=");
    fprintf(out, "`%.*s`: ", (int)name_len, g->metrics[first].labels);
    for (size_t i = first; i < end; i++) {
        const char *value = g->metrics[i].labels + name_len + 2;
        fprintf(out, "%s%.*s", i > first ? ", " : "", (int)strlen(value) - 1, value);
    }
}

static void put_group(FILE *out, size_t which)
{
    static const char *const types[] = {[METRIC_COUNTER] = "counter",
                                        [METRIC_GAUGE] = "gauge",
                                        [METRIC_COUNTER_NS] = "counter",
                                        [METRIC_GAUGE_NS] = "gauge",
                                        [METRIC_HIST] = "histogram"};
    const struct metrics_group *g = groups[which].group;
    if (groups[which].title[0] != '\0')
        fprintf(out, "\n### %s\n\n| name | type | labels | |\n| --- | --- | --- | --- |\n",
                groups[which].title);
    for (size_t i = 0, end; i < g->count; i = end) {
        const struct metric *m = &g->metrics[i];
        for (end = i + 1; end < g->count && strcmp(m->name, g->metrics[end].name) == 0;)
            end++;
        fprintf(out, "| `%s` | %s | ", m->name, types[m->kind]);
        fprintf(out, "%s%s", groups[which].labels,
                groups[which].labels[0] != '\0' && m->labels != NULL ? "; " : "");
        put_values(out, g, i, end);
        fprintf(out, " | %s |\n", m->help);
    }
}

static const char begin_mark[] = "<!-- table: made by tests/unit/test_metrics_names.c -->\n";

static char *table_text(void)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    for (size_t i = 0; i < ARRAY_LEN(groups); i++)
        put_group(out, i);
    assert_int_equal(fclose(out), 0);
    return text;
}

/* In the directory that CISTERN_SRC names (ctest sets it), else in this one. */
static const char *document_path(void)
{
    static char path[4096];
    const char *top = getenv("CISTERN_SRC");
    snprintf(path, sizeof path, "%s/docs/metrics.md", top != NULL ? top : ".");
    return path;
}

static void document_has_them_all(void **state)
{
    (void)state;
    static char text[262144];
    char *table = table_text();
    FILE *f = fopen(document_path(), "re");
    if (f == NULL)
        fail_msg("cannot read %s", document_path());
    const size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *mark = strstr(text, begin_mark);
    assert_non_null(mark);
    mark += strlen(begin_mark);
    if (strcmp(mark, table) != 0 && getenv("CISTERN_WRITE_DOCS") != NULL) {
        *mark = '\0';
        f = fopen(document_path(), "we");
        assert_non_null(f);
        fprintf(f, "%s%s", text, table);
        assert_int_equal(fclose(f), 0);
    } else if (strcmp(mark, table) != 0) {
        fail_msg("the table in docs/metrics.md is not what the services tell: run this test once with "
                 "CISTERN_WRITE_DOCS=1");
    }
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_keep_to_the_conventions),
        cmocka_unit_test(document_has_them_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
