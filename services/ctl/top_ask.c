/* top_ask.c: connections to all services, and their figures (RPC_METHOD_FIGURES), page by page. A service
 * that does not answer holds up nobody but until the end of the round. */
#include "services/ctl/top.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/loop.h"

struct top_service {
    struct list link; /* top->services */
    struct top *top;
    struct fabric_addr addr;
    struct rpc_peer *peer; /* NULL: none */
    bool up, busy;         /* busy: a call is under way; it keeps the object */
    bool wanted;           /* a row's, in this round; not asked to its end yet */
    bool late;             /* the call is of an earlier round: its answer is for nobody */
    struct rpc_call call;
    struct rpc_figures head;
};

/* ---- what a line is about ---- */

#define FIELD(field) offsetof(struct top_figures, field)
static const struct {
    const char *name, *op; /* behind cistern_module_ or cistern_gateway_; op NULL: whatever */
    size_t offset;
    bool hist;
} lines[] = {
    {"requests_total", "read", FIELD(reads), false},
    {"requests_total", "write", FIELD(writes), false},
    {"requests_total", "clear", FIELD(clears), false},
    {"read_bytes_total", NULL, FIELD(read_bytes), false},
    {"written_bytes_total", NULL, FIELD(write_bytes), false},
    {"refused_total", NULL, FIELD(refused), false}, /* the sum of all statuses */
    {"requests_active", NULL, FIELD(active), false},
    {"request_seconds", "read", FIELD(read_ns), true},
    {"request_seconds", "write", FIELD(write_ns), true},
    {"used_bytes", NULL, FIELD(used_bytes), false},
    {"capacity_bytes", NULL, FIELD(capacity_bytes), false},
    {"recovery_blocks", NULL, FIELD(recovery_blocks), false},
    {"recovered_bytes_total", NULL, FIELD(recovered_bytes), false},
    {"copies_missing", NULL, FIELD(copies_missing), false},
};

static void take_value(struct top_figures *f, const char *name, const struct metric_line *line)
{
    char op[16];
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        void *field = (char *)f + lines[i].offset;
        if (lines[i].hist != line->is_hist || strcmp(lines[i].name, name) != 0)
            continue;
        if (lines[i].op != NULL &&
            (!metrics_label_get(line->labels, "op", op, sizeof(op)) || strcmp(lines[i].op, op) != 0))
            continue;
        if (line->is_hist)
            *(struct metric_hist *)field = line->hist;
        else
            *(uint64_t *)field += line->value;
    }
}

void top_take_line(struct top *t, const struct fabric_addr *addr, char *text, uint64_t now_ns)
{
    static const char module_prefix[] = "cistern_module_", gateway_prefix[] = "cistern_gateway_";
    static struct metric_line line; /* large */
    char module[MDC_NAME_MAX] = "";
    const char *name;
    if (!metrics_line_parse(text, &line))
        return;
    const bool of_module = strncmp(line.name, module_prefix, sizeof(module_prefix) - 1) == 0;
    if (of_module)
        name = line.name + sizeof(module_prefix) - 1;
    else if (strncmp(line.name, gateway_prefix, sizeof(gateway_prefix) - 1) == 0)
        name = line.name + sizeof(gateway_prefix) - 1;
    else
        return;
    if (of_module && !metrics_label_get(line.labels, "module", module, sizeof(module)))
        return;
    for (size_t i = 0; i < t->count; i++) {
        struct top_row *row = &t->rows[i];
        if (!fabric_addr_eq(&row->addr, addr) || (row->id != 0) != of_module ||
            (of_module && strcmp(row->name, module) != 0))
            continue;
        if (row->now.at_ns == 0)
            row->now.at_ns = now_ns;
        take_value(&row->now, name, &line);
    }
}

/* ---- calls ---- */

static void figures_ask(struct top_service *s);

static void take_page(struct top_service *s, const struct rpc_result *result)
{
    static char text[RPC_BODY_MAX + 1];
    char *save = NULL;
    struct rpc_figures head;
    const uint64_t now_ns = loop_now_ns(s->top->ctl->loop);
    memcpy(&head, result->body, sizeof(head));
    memcpy(text, (const char *)result->body + sizeof(head), result->body_len - sizeof(head));
    text[result->body_len - sizeof(head)] = '\0';
    for (char *p = strtok_r(text, "\n", &save); p != NULL; p = strtok_r(NULL, "\n", &save))
        top_take_line(s->top, &s->addr, p, now_ns);
    /* Always forward, so whoever answers, it ends. */
    if (le32toh(head.after) <= le32toh(s->head.after)) {
        s->wanted = false;
        return;
    }
    s->head = head;
    figures_ask(s);
}

static void figures_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct top_service *s = container_of(call, struct top_service, call);
    s->busy = false;
    if (s->late) { /* the round that it was for is over */
        s->late = false;
        if (s->wanted && s->up)
            figures_ask(s);
        return;
    }
    if (!s->wanted) /* too late for its round, too early for the next */
        return;
    if (result->rc == 0 && result->status == STATUS_OK && result->body_len >= sizeof(struct rpc_figures))
        take_page(s, result);
    else
        s->wanted = false;
}

static void figures_ask(struct top_service *s)
{
    s->call = (struct rpc_call){.method = RPC_METHOD_FIGURES,
                                .body = &s->head,
                                .body_len = sizeof(s->head),
                                .timeout_ns = s->top->ctl->options->timeout_ns,
                                .done = figures_done};
    s->busy = rpc_call_start(s->peer, &s->call) == 0;
    if (!s->busy)
        s->wanted = false;
}

/* ---- connections ---- */

static void on_up(void *user, struct rpc_peer *peer)
{
    struct top_service *s = user;
    (void)peer;
    s->up = true;
    if (s->wanted && !s->busy)
        figures_ask(s);
}

static void on_down(void *user, struct rpc_peer *peer, enum fabric_down reason)
{
    struct top_service *s = user;
    (void)peer; /* goes by itself; calls have ended */
    (void)reason;
    s->peer = NULL;
    s->up = false;
    s->wanted = false;
}

static const struct rpc_events events = {.up = on_up, .down = on_down};

static struct top_service *service_of(struct top *t, const struct fabric_addr *addr)
{
    list_for_each(n, &t->services)
    {
        struct top_service *s = list_entry(n, struct top_service, link);
        if (fabric_addr_eq(&s->addr, addr))
            return s;
    }
    struct top_service *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return NULL;
    s->top = t;
    s->addr = *addr;
    list_push_back(&t->services, &s->link);
    return s;
}

static void service_start(struct top_service *s)
{
    const struct rpc_service service = {.events = &events, .service = s};
    s->wanted = true;
    s->late = s->busy;
    s->head = (struct rpc_figures){0};
    if (s->peer == NULL) {
        if (rpc_connect(&s->top->ctl->env, &s->addr, FABRIC_DOMAIN_HOST, &service, &s->peer) != 0) {
            s->peer = NULL;
            s->wanted = false;
        }
    } else if (s->up && !s->busy) {
        figures_ask(s);
    }
}

static bool all_have_answered(const struct top *t)
{
    list_for_each(n, &t->services)
    {
        if (list_entry(n, struct top_service, link)->wanted)
            return false;
    }
    return true;
}

static bool can_reach(const struct fabric_addr *addr)
{
    return addr->provider == FABRIC_PROVIDER_TCP || addr->provider == FABRIC_PROVIDER_VERBS;
}

void top_ask(struct top *t, uint64_t end_ns)
{
    for (size_t i = 0; i < t->count; i++) {
        struct top_row *row = &t->rows[i];
        if (row->now.at_ns != 0)
            row->before = row->now;
        row->now = (struct top_figures){.at_ns = 0};
        struct top_service *s = can_reach(&row->addr) ? service_of(t, &row->addr) : NULL;
        if (s != NULL && !s->wanted)
            service_start(s);
    }
    while (!all_have_answered(t)) {
        const uint64_t now_ns = loop_clock_ns(t->ctl->loop);
        if (now_ns >= end_ns)
            break;
        loop_run_once(t->ctl->loop, end_ns - now_ns);
    }
    list_for_each(n, &t->services) list_entry(n, struct top_service, link)->wanted = false;
}

void top_hang_up(struct top *t)
{
    struct list *n;
    while ((n = list_pop_front(&t->services)) != NULL) {
        struct top_service *s = list_entry(n, struct top_service, link);
        if (s->peer != NULL)
            rpc_abandon(s->peer);
        free(s);
    }
}
