/* top.c: `cistern top`: lists, tables, the screen. */
#include "services/ctl/top.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/loop.h"
#include "services/ctl/fabric_tool.h"

#define ROWS_MAX 4096u

/* ---- lists ---- */

/* The lists being read; figures of rows that were there before are kept. */
struct lists {
    struct top *top;
    struct top_row *rows;
    size_t count, room;
    bool no_memory;
};

static const struct top_row *row_before(const struct top *t, const struct top_row *row)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct top_row *r = &t->rows[i];
        if (r->id == row->id && strcmp(r->name, row->name) == 0 && fabric_addr_eq(&r->addr, &row->addr))
            return r;
    }
    return NULL;
}

static void add_row(struct lists *l, const struct top_row *row)
{
    if (l->count == l->room) {
        const size_t room = l->room == 0 ? 64 : 2 * l->room;
        struct top_row *rows = room <= ROWS_MAX ? realloc(l->rows, room * sizeof(*rows)) : NULL;
        if (rows == NULL) {
            l->no_memory = true;
            return;
        }
        l->rows = rows;
        l->room = room;
    }
    struct top_row *new = &l->rows[l->count++];
    const struct top_row *old = row_before(l->top, row);
    *new = *row;
    if (old != NULL) {
        new->now = old->now;
        new->before = old->before;
    }
}

static void add_modules(void *arg, const void *reply)
{
    const struct mdc_module_list_reply *r = reply;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct mdc_module_info *m = &r->items[i];
        struct top_row row = {
            .id = m->id, .state = m->state, .used_bytes = m->used_bytes, .capacity_bytes = m->capacity_bytes};
        memcpy(row.name, m->name, sizeof(row.name));
        memcpy(row.host, m->host, sizeof(row.host));
        memcpy(row.pool, m->pool_name, sizeof(row.pool));
        memcpy(&row.addr, m->addr, sizeof(row.addr));
        add_row(arg, &row);
    }
}

static void add_gateways(void *arg, const void *reply)
{
    const struct mdc_gateway_list_reply *r = reply;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct mdc_gateway_info *g = &r->items[i];
        struct top_row row = {.clients = g->clients, .volumes = g->volumes};
        memcpy(row.name, g->name, sizeof(row.name));
        memcpy(row.host, g->host, sizeof(row.host));
        memcpy(&row.addr, g->addr, sizeof(row.addr));
        add_row(arg, &row);
    }
}

static enum ctl_exit read_lists(struct top *t)
{
    static struct mdc_module_list_reply modules;
    static struct mdc_gateway_list_reply gateways;
    const struct mdc_empty nothing = {0};
    struct mdc_cluster_status_reply cluster;
    struct lists l = {.top = t};
    const struct ctl_pages module_pages = {.method = MDC_METHOD_MODULE_LIST,
                                           .what = "list the modules",
                                           .reply = &modules,
                                           .next_offset = offsetof(struct mdc_module_list_reply, next),
                                           .add = add_modules,
                                           .arg = &l};
    const struct ctl_pages gateway_pages = {.method = MDC_METHOD_GATEWAY_LIST,
                                            .what = "list the gateways",
                                            .reply = &gateways,
                                            .next_offset = offsetof(struct mdc_gateway_list_reply, next),
                                            .add = add_gateways,
                                            .arg = &l};
    enum ctl_exit rc =
        ctl_call(t->ctl, MDC_METHOD_CLUSTER_STATUS, &nothing, &cluster, "read the cluster's status");
    if (rc == CTL_DONE)
        rc = ctl_pages_read(t->ctl, &module_pages);
    const size_t module_count = l.count;
    if (rc == CTL_DONE)
        rc = ctl_pages_read(t->ctl, &gateway_pages);
    if (rc == CTL_DONE && l.no_memory) {
        ctl_say(t->ctl, "there are too many modules and gateways, or too little memory");
        rc = CTL_FAILED;
    }
    if (rc != CTL_DONE) {
        free(l.rows);
        return rc;
    }
    free(t->rows);
    t->rows = l.rows;
    t->count = l.count;
    t->room = l.room;
    t->modules = module_count;
    t->cluster = cluster;
    t->listed_ns = loop_now_ns(t->ctl->loop);
    return CTL_DONE;
}

/* ---- tables ---- */

static const struct sheet_column module_columns[] = {
    {"id", "ID", SHEET_NUMBER},
    {"name", "MODULE", SHEET_TEXT},
    {"host", "HOST", SHEET_TEXT},
    {"pool", "POOL", SHEET_TEXT},
    {"state", "STATE", SHEET_TEXT},
    {"answers", "ANSWERS", SHEET_BOOL},
    {"reads_per_s", "READ/S", SHEET_NUMBER},
    {"writes_per_s", "WRITE/S", SHEET_NUMBER},
    {"clears_per_s", NULL, SHEET_NUMBER},
    {"read_bytes_per_s", "READ B/S", SHEET_BYTES},
    {"write_bytes_per_s", "WRITE B/S", SHEET_BYTES},
    {"read_p50_ns", "R P50", SHEET_DURATION},
    {"read_p99_ns", "R P99", SHEET_DURATION},
    {"write_p50_ns", "W P50", SHEET_DURATION},
    {"write_p99_ns", "W P99", SHEET_DURATION},
    {"refused_per_s", "REFUSED/S", SHEET_NUMBER},
    {"used_bytes", "USED", SHEET_BYTES},
    {"capacity_bytes", "CAPACITY", SHEET_BYTES},
    {"copies_missing", "OUT OF SYNC", SHEET_NUMBER},
    {"recovery_blocks", "TO COPY", SHEET_NUMBER},
    {"recovered_bytes_per_s", "COPIED B/S", SHEET_BYTES},
};
static const struct sheet_column gateway_columns[] = {
    {"name", "GATEWAY", SHEET_TEXT},
    {"host", "HOST", SHEET_TEXT},
    {"answers", "ANSWERS", SHEET_BOOL},
    {"clients", "CLIENTS", SHEET_NUMBER},
    {"volumes", "VOLUMES", SHEET_NUMBER},
    {"active", "ACTIVE", SHEET_NUMBER},
    {"reads_per_s", "READ/S", SHEET_NUMBER},
    {"writes_per_s", "WRITE/S", SHEET_NUMBER},
    {"clears_per_s", NULL, SHEET_NUMBER},
    {"read_bytes_per_s", "READ B/S", SHEET_BYTES},
    {"write_bytes_per_s", "WRITE B/S", SHEET_BYTES},
    {"read_p50_ns", "R P50", SHEET_DURATION},
    {"read_p99_ns", "R P99", SHEET_DURATION},
    {"write_p50_ns", "W P50", SHEET_DURATION},
    {"write_p99_ns", "W P99", SHEET_DURATION},
    {"refused_per_s", "REFUSED/S", SHEET_NUMBER},
};

static void add_rates(struct sheet *s, const struct top_rates *r)
{
    const uint64_t numbers[] = {r->reads,        r->writes,      r->clears,      r->read_bytes,
                                r->write_bytes,  r->read_p50_ns, r->read_p99_ns, r->write_p50_ns,
                                r->write_p99_ns, r->refused};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        sheet_add_number(s, numbers[i]);
}

static void add_module_row(struct sheet *s, const struct top_row *row)
{
    struct top_rates rates;
    const bool answers = row->now.at_ns != 0;
    top_rates_of(row, &rates);
    sheet_add_number(s, row->id);
    sheet_add_text(s, row->name);
    sheet_add_text(s, row->host);
    sheet_add_text(s, row->pool);
    sheet_add_text(s, ctl_module_state_name(row->state));
    sheet_add_bool(s, answers);
    add_rates(s, &rates);
    sheet_add_number(s, answers ? row->now.used_bytes : row->used_bytes);
    sheet_add_number(s, answers ? row->now.capacity_bytes : row->capacity_bytes);
    sheet_add_number(s, row->now.copies_missing);
    sheet_add_number(s, row->now.recovery_blocks);
    sheet_add_number(s, rates.recovered_bytes);
}

static void add_gateway_row(struct sheet *s, const struct top_row *row)
{
    struct top_rates rates;
    top_rates_of(row, &rates);
    sheet_add_text(s, row->name);
    sheet_add_text(s, row->host);
    sheet_add_bool(s, row->now.at_ns != 0);
    sheet_add_number(s, row->clients);
    sheet_add_number(s, row->volumes);
    sheet_add_number(s, row->now.active);
    add_rates(s, &rates);
}

static void make_sheets(const struct top *t, struct sheet *modules, struct sheet *gateways)
{
    sheet_init(modules, module_columns, ARRAY_LEN(module_columns));
    sheet_init(gateways, gateway_columns, ARRAY_LEN(gateway_columns));
    for (size_t i = 0; i < t->modules; i++)
        add_module_row(modules, &t->rows[i]);
    for (size_t i = t->modules; i < t->count; i++)
        add_gateway_row(gateways, &t->rows[i]);
}

static const struct sheet_column cluster_columns[] = {
    {"cluster", NULL, SHEET_TEXT},
    {"term", NULL, SHEET_NUMBER},
    {"version", NULL, SHEET_NUMBER},
    {"modules", NULL, SHEET_NUMBER},
    {"modules_up", NULL, SHEET_NUMBER},
    {"partitions", NULL, SHEET_NUMBER},
    {"partitions_served", NULL, SHEET_NUMBER},
    {"volumes", NULL, SHEET_NUMBER},
    {"used_bytes", NULL, SHEET_BYTES},
    {"capacity_bytes", NULL, SHEET_BYTES},
};

static void make_cluster_sheet(const struct top *t, struct sheet *s)
{
    const struct mdc_cluster_status_reply *c = &t->cluster;
    char id[33];
    const uint64_t numbers[] = {c->term,       c->version,    c->modules,
                                c->modules_up, c->partitions, c->partitions_served,
                                c->volumes,    c->used_bytes, c->capacity_bytes};
    sheet_init(s, cluster_columns, ARRAY_LEN(cluster_columns));
    uuid_format(&c->cluster, id);
    sheet_add_text(s, id);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        sheet_add_number(s, numbers[i]);
}

static void put_cluster_line(const struct top *t, FILE *out)
{
    const struct mdc_cluster_status_reply *c = &t->cluster;
    char id[33], used[24], capacity[24];
    uuid_format(&c->cluster, id);
    fprintf(out,
            "cluster %.8s  %s  modules %u/%u up  partitions %u/%u served  volumes %u  used %s of %s  table "
            "%llu\n",
            id,
            c->partitions_served < c->partitions ? "UNSERVED"
            : c->modules_up < c->modules         ? "DEGRADED"
                                                 : "ok",
            c->modules_up, c->modules, c->partitions_served, c->partitions, c->volumes,
            format_size(c->used_bytes, used), format_size(c->capacity_bytes, capacity),
            (unsigned long long)c->version);
}

static int print_tables(const struct top *t, FILE *out)
{
    struct sheet modules, gateways;
    make_sheets(t, &modules, &gateways);
    put_cluster_line(t, out);
    fputc('\n', out);
    int rc = sheet_print(&modules, SHEET_TABLE, out);
    fputc('\n', out);
    if (rc == 0)
        rc = sheet_print(&gateways, SHEET_TABLE, out);
    sheet_free(&modules);
    sheet_free(&gateways);
    return rc;
}

static int print_json(const struct top *t)
{
    struct sheet cluster, modules, gateways;
    make_cluster_sheet(t, &cluster);
    make_sheets(t, &modules, &gateways);
    int rc = fabric_tool_json_part("{", "cluster", &cluster, SHEET_OBJECT);
    const int rc2 = fabric_tool_json_part(", ", "modules", &modules, SHEET_ARRAY);
    const int rc3 = fabric_tool_json_part(", ", "gateways", &gateways, SHEET_ARRAY);
    puts("}");
    rc = rc != 0 ? rc : rc2 != 0 ? rc2 : rc3;
    return rc != 0 ? rc : fflush(stdout) != 0 ? -EIO : 0;
}

/* ---- the screen ---- */

/* Draws text over what is there, as much as fits: a line ends at the right edge, and the last one says how
 * many do not fit. The terminal may have another size each time. The cursor rests on a line of its own, where
 * messages go. */
static void draw(const char *text)
{
    struct winsize w = {0};
    char note[80] = "";
    unsigned rows = 24, columns = 80, line = 0, more = 0;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 2 && w.ws_col > 0) {
        rows = w.ws_row;
        columns = w.ws_col;
    }
    fputs("\033[H", stdout);
    while (*text != '\0') {
        const size_t len = strcspn(text, "\n");
        if (++line < rows - 1)
            printf("%.*s\033[K\n", (int)min_u64(len, columns), text);
        else
            more++;
        text += len + (text[len] == '\n');
    }
    if (more > 0)
        snprintf(note, sizeof(note), "... %u lines more: a larger terminal has room for them\n", more);
    printf("%.*s\033[K\033[J%s", (int)min_u64(strcspn(note, "\n"), columns), note, more > 0 ? "\n" : "");
    fflush(stdout);
}

static int draw_tables(const struct top *t, enum ctl_exit listed)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (out == NULL)
        return -ENOMEM;
    if (listed != CTL_DONE)
        fprintf(out, "NO METADATA CONTROLLER ANSWERS; these lists are of %llu s ago\n",
                (unsigned long long)((loop_now_ns(t->ctl->loop) - t->listed_ns) / NS_PER_S));
    int rc = print_tables(t, out);
    if (fclose(out) != 0 && rc == 0)
        rc = -ENOMEM;
    if (rc == 0)
        draw(text);
    free(text);
    return rc;
}

/* ---- the command ---- */

/* Reads the lists, then the figures. Lists that were there stay when they cannot be read. */
static enum ctl_exit top_round(struct top *t)
{
    const enum ctl_exit rc = read_lists(t);
    if (t->listed_ns != 0)
        top_ask(t, loop_clock_ns(t->ctl->loop) +
                       min_u64(2 * NS_PER_S, max_u64(t->ctl->options->top_interval_ns, NS_PER_S / 2)));
    return rc;
}

static void pause_until(struct top *t, uint64_t end_ns)
{
    uint64_t now_ns;
    while (!fabric_tool_interrupted() && (now_ns = loop_clock_ns(t->ctl->loop)) < end_ns)
        loop_run_once(t->ctl->loop, min_u64(end_ns - now_ns, 100 * NS_PER_MS));
}

static enum ctl_exit run_once(struct top *t)
{
    enum ctl_exit rc = top_round(t);
    const uint64_t begin_ns = loop_clock_ns(t->ctl->loop);
    if (rc != CTL_DONE)
        return rc;
    pause_until(t, begin_ns + t->ctl->options->top_interval_ns);
    rc = fabric_tool_interrupted() ? CTL_FAILED : top_round(t);
    if (rc != CTL_DONE)
        return rc;
    return (t->ctl->options->json ? print_json(t) : print_tables(t, stdout)) == 0 ? CTL_DONE : CTL_FAILED;
}

static enum ctl_exit run_live(struct top *t)
{
    enum ctl_exit rc = top_round(t);
    int err = 0;
    if (rc != CTL_DONE)
        return rc;
    fputs("\033[?25l\033[2J", stdout); /* no cursor */
    while (err == 0 && !fabric_tool_interrupted()) {
        const uint64_t begin_ns = loop_clock_ns(t->ctl->loop);
        err = draw_tables(t, rc);
        pause_until(t, begin_ns + t->ctl->options->top_interval_ns);
        if (!fabric_tool_interrupted())
            rc = top_round(t);
    }
    fputs("\033[?25h\n", stdout);
    fflush(stdout);
    return err == 0 ? CTL_DONE : CTL_FAILED;
}

enum ctl_exit ctl_top(struct ctl *ctl, char *const *args)
{
    const struct ctl_options *given = ctl->options;
    struct ctl_options options = *given;
    struct top t = {.ctl = ctl};
    const bool live = !options.top_once && !options.json && isatty(STDOUT_FILENO);
    (void)args;
    list_init(&t.services);
    if (live) /* a screen that stands still is worse than one that says so */
        options.timeout_ns = min_u64(options.timeout_ns, 3 * NS_PER_S);
    ctl->options = &options;
    enum ctl_exit rc = ctl_open(ctl, false);
    if (rc == CTL_DONE) {
        fabric_tool_interrupted_begin();
        rc = live ? run_live(&t) : run_once(&t);
        fabric_tool_interrupted_end();
    }
    top_hang_up(&t);
    free(t.rows);
    ctl->options = given;
    return rc;
}
