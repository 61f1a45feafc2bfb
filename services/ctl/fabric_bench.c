/* fabric_bench.c: `cistern fabric bench`: what the fabric alone costs between two hosts, and why. */
#include "services/ctl/fabric_tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/loop.h"

#define CASES_MAX 16

struct bench_run {
    struct ctl *ctl;
    const char *address;
    struct fabric_addr addr;
    struct fabric_tool_link link;
    struct fabric_bench_hello server;
    struct fabric_bench_load *load;
    unsigned count;
    struct fabric_bench_case cases[CASES_MAX];
    struct fabric_bench_round rounds[CASES_MAX][FABRIC_BENCH_ROUNDS_MAX];
    struct fabric_bench_figures figures[CASES_MAX];
    struct fabric_bench_view view;
};

/* ---- cases ---- */

static void case_add(struct bench_run *b, enum fabric_bench_kind kind, uint64_t bytes, uint64_t depth)
{
    MUST(b->count < CASES_MAX);
    b->cases[b->count++] =
        (struct fabric_bench_case){.kind = kind, .bytes = (uint32_t)bytes, .depth = (unsigned)depth};
}

static void choose_cases(struct bench_run *b)
{
    const uint64_t depth = b->ctl->options->fabric.depth, large = b->ctl->options->fabric.large_bytes;
    case_add(b, FABRIC_BENCH_MESSAGE, 64, 1);
    case_add(b, FABRIC_BENCH_FETCH, UNIT_BYTES, 1);
    case_add(b, FABRIC_BENCH_PUSH, UNIT_BYTES, 1);
    case_add(b, FABRIC_BENCH_READ, 8, 1);
    case_add(b, FABRIC_BENCH_READ, UNIT_BYTES, 1);
    case_add(b, FABRIC_BENCH_WRITE, UNIT_BYTES, 1);
    case_add(b, FABRIC_BENCH_MESSAGE, 64, depth);
    case_add(b, FABRIC_BENCH_FETCH, UNIT_BYTES, depth);
    case_add(b, FABRIC_BENCH_PUSH, UNIT_BYTES, depth);
    case_add(b, FABRIC_BENCH_FETCH, large, depth);
    case_add(b, FABRIC_BENCH_PUSH, large, depth);
    case_add(b, FABRIC_BENCH_READ, large, depth);
    case_add(b, FABRIC_BENCH_WRITE, large, depth);
}

/* ---- advice ---- */

static void advise(struct fabric_advice *out, unsigned *count, unsigned max, enum fabric_advice_level level,
                   const char *what, const char *fix)
{
    if (*count == max)
        return;
    struct fabric_advice *a = &out[(*count)++];
    memset(a, 0, sizeof(*a));
    a->level = level;
    snprintf(a->about, sizeof(a->about), "connection");
    snprintf(a->what, sizeof(a->what), "%s", what);
    snprintf(a->fix, sizeof(a->fix), "%s", fix);
}

unsigned fabric_bench_advise(const struct fabric_bench_view *v, struct fabric_advice *out, unsigned max)
{
    const struct fabric_params *p = &v->params;
    const bool verbs = p->provider == FABRIC_PROVIDER_VERBS;
    unsigned n = 0;
    char text[200], fix[200];
    if (v->spin_ns == 0 || v->peer_spin_ns == 0) {
        snprintf(text, sizeof(text), "%s between messages: waking up is part of every latency at depth 1",
                 v->spin_ns == 0 && v->peer_spin_ns == 0 ? "both ends sleep"
                 : v->spin_ns == 0                       ? "this end sleeps"
                                                         : "the other end sleeps");
        advise(
            out, &n, max, FABRIC_ADVICE_NOTE, text,
            "--spin 50us at both ends shows what polling gives; services have the same option, for a busy CPU");
    }
    if (!verbs && v->rdma_here)
        advise(out, &n, max, FABRIC_ADVICE_SLOW, "this is TCP, and this host has an active RDMA port",
               "use an address like rdma:IP:PORT with the IP of that port: cistern fabric info");
    if (verbs && p->mtu != 0 && p->mtu < 4096) {
        snprintf(text, sizeof(text), "RDMA packets carry %u bytes, not 4096", p->mtu);
        snprintf(fix, sizeof(fix), "ip link set NETDEV mtu %u (or 9000) on both hosts and the switches",
                 FABRIC_INFO_ROCE_MTU);
        advise(out, &n, max, FABRIC_ADVICE_SLOW, text, fix);
    }
    if (verbs && p->reads_out < 16) {
        snprintf(text, sizeof(text), "only %u RDMA reads may be under way: writes of a client are fetched so",
                 p->reads_out);
        advise(out, &n, max, FABRIC_ADVICE_SLOW, text, "none: what the two devices have in common");
    }
    if (verbs && v->memlock_bytes < 256 * MIB)
        advise(out, &n, max, FABRIC_ADVICE_PROBLEM, "too little memory may be locked for a service",
               "LimitMEMLOCK=infinity in the unit; ulimit -l unlimited in a shell");
    if (verbs && v->port_megabits != 0 && v->best_megabits < v->port_megabits / 2) {
        snprintf(text, sizeof(text), "%llu Mb/s at most, of the port's %llu",
                 (unsigned long long)v->best_megabits, (unsigned long long)v->port_megabits);
        advise(
            out, &n, max, FABRIC_ADVICE_NOTE, text,
            "more --depth, --size 1M; then losses (cistern fabric info on both hosts), the PCIe slot's width");
    }
    return n;
}

/* What of this host the advice needs. */
static void look_at_host(struct bench_run *b)
{
    struct fabric_info *info;
    struct fabric_bench_view *v = &b->view;
    if (fabric_info_read("", NULL, &info) != 0)
        return;
    v->memlock_bytes = info->memlock_bytes;
    for (unsigned i = 0; i < info->port_count; i++) {
        const struct fabric_info_port *p = &info->ports[i];
        v->rdma_here |= p->active;
        if (p->number == v->params.port && strcmp(info->devices[p->device].name, v->params.device) == 0)
            v->port_megabits = p->megabits;
    }
    free(info);
}

static unsigned make_advice(struct bench_run *b, struct fabric_advice *out, unsigned max)
{
    struct fabric_bench_view *v = &b->view;
    v->spin_ns = b->ctl->options->fabric.spin_ns;
    v->peer_spin_ns = b->server.spin_ns;
    for (unsigned i = 0; i < b->count; i++)
        v->best_megabits = max_u64(v->best_megabits, b->figures[i].bytes_per_s * 8 / 1000000);
    look_at_host(b);
    return fabric_bench_advise(v, out, max);
}

/* ---- printing ---- */

/* What one provider has and the other has not is not shown of the other. */
#define PARAM_COLUMNS(verbs, tcp)                                                                            \
    {                                                                                                        \
        {"address", "address", SHEET_TEXT}, {"provider", "provider", SHEET_TEXT},                            \
            {"device", verbs("device"), SHEET_TEXT}, {"port", verbs("port"), SHEET_NUMBER},                  \
            {"mtu", "bytes of a packet", SHEET_NUMBER},                                                      \
            {"inline_bytes", verbs("inline bytes"), SHEET_NUMBER},                                           \
            {"send_queue", verbs("send queue"), SHEET_NUMBER},                                               \
            {"recv_queue", verbs("receive queue (0: shared)"), SHEET_NUMBER},                                \
            {"send_sge", verbs("pieces of a work request"), SHEET_NUMBER},                                   \
            {"reads_out", verbs("RDMA reads out"), SHEET_NUMBER},                                            \
            {"reads_in", verbs("RDMA reads in"), SHEET_NUMBER},                                              \
            {"credits", verbs("messages lent by the peer"), SHEET_NUMBER},                                   \
            {"lent", verbs("messages lent to the peer"), SHEET_NUMBER},                                      \
            {"ack_timeout_us", verbs("acknowledgement timeout, us"), SHEET_NUMBER},                          \
            {"retries", verbs("retries"), SHEET_NUMBER},                                                     \
            {"round_trip_us", tcp("the kernel's round trip, us"), SHEET_NUMBER},                             \
            {"send_buffer_bytes", tcp("send buffer"), SHEET_BYTES},                                          \
            {"recv_buffer_bytes", tcp("receive buffer"), SHEET_BYTES},                                       \
            {"spin_ns", "this end polls for", SHEET_DURATION},                                               \
            {"peer_spin_ns", "the other end polls for", SHEET_DURATION},                                     \
    }
#define SHOWN(title)  title
#define HIDDEN(title) NULL
static const struct sheet_column verbs_columns[] = PARAM_COLUMNS(SHOWN, HIDDEN);
static const struct sheet_column tcp_columns[] = PARAM_COLUMNS(HIDDEN, SHOWN);
static const struct sheet_column result_columns[] = {
    {"test", "TEST", SHEET_TEXT},
    {"bytes", "SIZE", SHEET_BYTES},
    {"depth", "DEPTH", SHEET_NUMBER},
    {"ops_per_s", "OPS/S", SHEET_NUMBER},
    {"bytes_per_s", "BYTES/S", SHEET_BYTES},
    {"p50_ns", "P50", SHEET_DURATION},
    {"p99_ns", "P99", SHEET_DURATION},
    {"cpu_ns_per_op", "CPU/OP", SHEET_DURATION},
    {"spread_percent", "SPREAD%", SHEET_NUMBER},
};

static const char *case_word(enum fabric_bench_kind kind)
{
    static const char *const words[] = {[FABRIC_BENCH_MESSAGE] = "message and reply",
                                        [FABRIC_BENCH_FETCH] = "payload fetched",
                                        [FABRIC_BENCH_PUSH] = "payload pushed",
                                        [FABRIC_BENCH_READ] = "one-sided read",
                                        [FABRIC_BENCH_WRITE] = "one-sided write"};
    return words[kind];
}

static void add_params(struct sheet *s, const struct bench_run *b)
{
    const struct fabric_params *p = &b->view.params;
    const bool verbs = p->provider == FABRIC_PROVIDER_VERBS;
    sheet_init(s, verbs ? verbs_columns : tcp_columns, ARRAY_LEN(tcp_columns));
    sheet_add_text(s, b->address);
    sheet_add_text(s, verbs ? "verbs" : "tcp");
    sheet_add_text(s, p->device);
    const uint64_t numbers[] = {p->port,
                                p->mtu,
                                p->inline_bytes,
                                p->send_queue,
                                p->recv_queue,
                                p->send_sge,
                                p->reads_out,
                                p->reads_in,
                                p->credits,
                                p->lent,
                                p->ack_timeout_us,
                                p->retries,
                                p->round_trip_us,
                                p->send_buffer_bytes,
                                p->recv_buffer_bytes,
                                b->ctl->options->fabric.spin_ns,
                                b->server.spin_ns};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        sheet_add_number(s, numbers[i]);
}

static void add_results(struct sheet *s, const struct bench_run *b)
{
    sheet_init(s, result_columns, ARRAY_LEN(result_columns));
    for (unsigned i = 0; i < b->count; i++) {
        const struct fabric_bench_figures *f = &b->figures[i];
        sheet_add_text(s, case_word(b->cases[i].kind));
        sheet_add_number(s, b->cases[i].bytes);
        sheet_add_number(s, b->cases[i].depth);
        const uint64_t numbers[] = {f->ops_per_s, f->bytes_per_s,   f->p50_ns,
                                    f->p99_ns,    f->cpu_ns_per_op, f->spread_percent};
        for (size_t k = 0; k < ARRAY_LEN(numbers); k++)
            sheet_add_number(s, numbers[k]);
    }
}

static enum ctl_exit print_all(struct bench_run *b)
{
    struct fabric_advice advice[8];
    const unsigned count = make_advice(b, advice, ARRAY_LEN(advice));
    const bool json = b->ctl->options->json;
    struct sheet s;
    int rc;
    add_params(&s, b);
    if (json) {
        rc = fabric_tool_json_part("{", "connection", &s, SHEET_OBJECT);
        add_results(&s, b);
        rc |= fabric_tool_json_part(", ", "results", &s, SHEET_ARRAY);
        sheet_init(&s, fabric_tool_advice_columns, ARRAY_LEN(fabric_tool_advice_columns));
        fabric_tool_advice_add(&s, advice, count);
        rc |= fabric_tool_json_part(", ", "advice", &s, SHEET_ARRAY);
        fputs("}\n", stdout);
    } else {
        rc = sheet_print(&s, SHEET_RECORD, stdout);
        sheet_free(&s);
        fputs("\n", stdout);
        add_results(&s, b);
        rc |= sheet_print(&s, SHEET_TABLE, stdout);
        sheet_free(&s);
        fputs("\n", stdout);
        fabric_tool_advice_print(advice, count, stdout);
    }
    if (rc == 0)
        return CTL_DONE;
    ctl_say(b->ctl, "cannot print the result");
    return CTL_FAILED;
}

/* ---- running ---- */

struct hello_call {
    struct rpc_call call;
    bool ended;
    int rc;
    uint32_t status;
    struct fabric_bench_hello hello;
};

static void hello_done(struct rpc_call *call, const struct rpc_result *r)
{
    struct hello_call *h = container_of(call, struct hello_call, call);
    h->ended = true;
    h->rc = r->rc;
    h->status = r->status;
    if (r->rc == 0 && r->status == STATUS_OK && r->body_len < sizeof(h->hello))
        h->rc = -EPROTO;
    else if (r->rc == 0 && r->status == STATUS_OK)
        memcpy(&h->hello, r->body, sizeof(h->hello));
}

static enum ctl_exit say_hello(struct bench_run *b)
{
    struct hello_call h = {.call = {.method = FABRIC_BENCH_HELLO,
                                    .done = hello_done,
                                    .timeout_ns = b->ctl->options->timeout_ns}};
    int rc = rpc_call_start(b->link.peer, &h.call);
    while (rc == 0 && !h.ended)
        loop_run_once(b->ctl->loop, 100 * NS_PER_MS);
    rc = rc != 0 ? rc : h.rc;
    if (rc == -ENOTCONN)
        return fabric_tool_unreachable(b->ctl, b->address, &b->link, rc);
    if (rc == 0 && h.status == STATUS_BUSY)
        ctl_say(b->ctl, "another client is measuring against %s: one at a time", b->address);
    else if (rc != 0 || h.status != STATUS_OK || h.hello.version != FABRIC_BENCH_VERSION)
        ctl_say(b->ctl, "%s is a %s, not a cistern fabric bench --listen of this version", b->address,
                fabric_tool_role(b->link.info.role));
    else {
        b->server = h.hello;
        return CTL_DONE;
    }
    return CTL_FAILED;
}

static enum ctl_exit failed(struct bench_run *b, const struct fabric_bench_case *c, int rc)
{
    const char *why = rc == -ENOTCONN && b->link.reason != 0 ? fabric_down_text(b->link.reason)
                      : rc == -EBADMSG                       ? "wrong bytes came"
                      : rc == -EIO                           ? "the other end refused it"
                      : rc == -EINTR                         ? "interrupted"
                                                             : strerror(-rc);
    ctl_say(b->ctl, "%s of %u bytes at depth %u failed: %s", case_word(c->kind), c->bytes, c->depth, why);
    return rc == -ENOTCONN ? CTL_UNREACHABLE : CTL_FAILED;
}

/* Rounds of all cases in turns: what disturbs for a while disturbs all of them. */
static enum ctl_exit run_rounds(struct bench_run *b)
{
    const struct ctl_options *o = b->ctl->options;
    const unsigned rounds = (unsigned)o->fabric.rounds;
    for (unsigned r = 0; r < rounds; r++) {
        for (unsigned i = 0; i < b->count; i++) {
            ctl_progress(b->ctl, "round %u of %u: %s of %u bytes, depth %u", r + 1, rounds,
                         case_word(b->cases[i].kind), b->cases[i].bytes, b->cases[i].depth);
            const int rc = fabric_bench_load_run(b->load, &b->cases[i], o->fabric.warmup_ns,
                                                 o->fabric.runtime_ns, &b->rounds[i][r]);
            if (rc != 0)
                return failed(b, &b->cases[i], rc);
        }
    }
    ctl_progress(b->ctl, "%s", "");
    for (unsigned i = 0; i < b->count; i++)
        fabric_bench_figures_of(&b->cases[i], b->rounds[i], rounds, &b->figures[i]);
    return CTL_DONE;
}

static enum ctl_exit measure(struct bench_run *b)
{
    enum ctl_exit rc = say_hello(b);
    if (rc != CTL_DONE)
        return rc;
    const int err = fabric_bench_load_create(b->ctl, &b->link, &b->server, b->cases, b->count, &b->load);
    if (err != 0) {
        ctl_say(
            b->ctl,
            "cannot get the memory for it here (ulimit -l), or the other end has less: use a smaller --size or "
            "--depth");
        return CTL_FAILED;
    }
    rc = run_rounds(b);
    if (rc == CTL_DONE && fabric_conn_params(rpc_peer_conn(b->link.peer), &b->view.params) != 0)
        b->view.params = (struct fabric_params){.provider = b->addr.provider};
    return rc == CTL_DONE ? print_all(b) : rc;
}

static enum ctl_exit run_client(struct ctl *ctl, const char *address)
{
    static struct bench_run b;
    b = (struct bench_run){.ctl = ctl, .address = address};
    enum ctl_exit rc = fabric_tool_open(ctl, address, false, &b.addr);
    if (rc != CTL_DONE)
        return rc;
    choose_cases(&b);
    fabric_tool_interrupted_begin();
    const int err = fabric_tool_connect(ctl, &b.addr, FABRIC_DOMAIN_CLUSTER, &b.link);
    rc = err == 0 ? measure(&b) : fabric_tool_unreachable(ctl, address, &b.link, err);
    fabric_tool_interrupted_end();
    if (ctl->env.fabric != NULL && b.load != NULL) {
        if (b.link.peer != NULL)
            rpc_abandon(b.link.peer); /* nothing uses the load's memory behind it */
        fabric_bench_load_destroy(b.load);
    } else {
        fabric_tool_unlink(&b.link);
    }
    return rc;
}

enum ctl_exit ctl_fabric_bench(struct ctl *ctl, char *const *args)
{
    const char *listen = ctl->options->fabric.listen;
    if ((listen == NULL) == (args[0] == NULL)) {
        ctl_say(ctl, "give --listen ADDRESS at one end, and that ADDRESS at the other");
        return CTL_USAGE;
    }
    return listen != NULL ? fabric_bench_serve(ctl, listen) : run_client(ctl, args[0]);
}
