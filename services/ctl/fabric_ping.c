/* fabric_ping.c: `cistern fabric ping` and `cistern fabric counters`: any service answers both (rdma/rpc.h).
 */
#include "services/ctl/fabric_tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/loop.h"

struct ping {
    struct ctl *ctl;
    const char *address;
    struct fabric_addr addr;
    struct fabric_tool_link link;
    struct fabric_ping_tally tally;
    unsigned char *body;
    uint32_t body_len;
    uint64_t connect_ns;     /* of the first connection */
    struct fabric_peer peer; /* of the first connection */
};
struct ping_call {
    struct rpc_call call;
    bool ended;
    int rc;
    uint32_t status, body_len;
    uint64_t end_ns;
    struct loop *loop;
    char *text; /* gets the body; room for RPC_BODY_MAX + 1; may be NULL */
};

static void call_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct ping_call *c = container_of(call, struct ping_call, call);
    c->ended = true;
    c->end_ns = loop_clock_ns(c->loop);
    c->rc = result->rc;
    c->status = result->status;
    c->body_len = result->body_len;
    if (c->text != NULL && result->rc == 0) {
        memcpy(c->text, result->body, result->body_len);
        c->text[result->body_len] = '\0';
    }
}

/* One call, to its end. 0, -ENOTCONN, -ETIMEDOUT or another. */
static int call_run(struct ctl *ctl, struct fabric_tool_link *link, struct ping_call *c)
{
    c->loop = ctl->loop;
    c->call.done = call_done;
    c->call.timeout_ns = ctl->options->timeout_ns;
    const int rc = link->peer != NULL ? rpc_call_start(link->peer, &c->call) : -ENOTCONN;
    if (rc != 0)
        return rc;
    while (!c->ended)
        loop_run_once(ctl->loop, 100 * NS_PER_MS);
    return c->rc;
}

/* ---- figures ---- */

const char *fabric_ping_summary(const struct fabric_ping_tally *t, char *out)
{
    char low[24], mid[24], high[24], top[24];
    const uint64_t lost = t->sent - t->answered;
    int n = snprintf(out, 160, "%" PRIu64 " sent, %" PRIu64 " answered, %" PRIu64 "%% lost", t->sent,
                     t->answered, t->sent == 0 ? 0 : (lost * 100 + t->sent - 1) / t->sent);
    if (t->answered > 0)
        snprintf(out + n, (size_t)(160 - n), "; min %s median %s p99 %s max %s",
                 format_duration(t->times.min_ns, low),
                 format_duration(bench_hist_quantile(&t->times, 5000), mid),
                 format_duration(bench_hist_quantile(&t->times, 9900), high),
                 format_duration(t->times.max_ns, top));
    return out;
}

static const struct sheet_column columns[] = {
    {"address", "address", SHEET_TEXT},     {"role", "role", SHEET_TEXT},
    {"cluster", "cluster", SHEET_TEXT},     {"connect_ns", "time to connect", SHEET_DURATION},
    {"bytes", "bytes", SHEET_BYTES},        {"sent", "sent", SHEET_NUMBER},
    {"answered", "answered", SHEET_NUMBER}, {"lost", "lost", SHEET_NUMBER},
    {"min_ns", "min", SHEET_DURATION},      {"median_ns", "median", SHEET_DURATION},
    {"p99_ns", "p99", SHEET_DURATION},      {"max_ns", "max", SHEET_DURATION},
};

static enum ctl_exit print_json(struct ping *p)
{
    struct sheet s;
    char cluster[33];
    const struct fabric_ping_tally *t = &p->tally;
    sheet_init(&s, columns, ARRAY_LEN(columns));
    sheet_add_text(&s, p->address);
    sheet_add_text(&s, fabric_tool_role(p->peer.role));
    uuid_format(&p->peer.cluster, cluster);
    sheet_add_text(&s, cluster);
    const uint64_t numbers[] = {p->connect_ns,
                                p->body_len,
                                t->sent,
                                t->answered,
                                t->sent - t->answered,
                                t->times.min_ns,
                                bench_hist_quantile(&t->times, 5000),
                                bench_hist_quantile(&t->times, 9900),
                                t->times.max_ns};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        sheet_add_number(&s, numbers[i]);
    return ctl_print_record(p->ctl, &s);
}

static enum ctl_exit finish(struct ping *p)
{
    char text[160];
    const struct fabric_ping_tally *t = &p->tally;
    enum ctl_exit rc = CTL_DONE;
    if (p->ctl->options->json)
        rc = print_json(p);
    else
        printf("%s: %s\n", p->address, fabric_ping_summary(t, text));
    if (rc != CTL_DONE)
        return rc;
    return t->answered == 0 && t->sent > 0 ? CTL_UNREACHABLE : t->answered < t->sent ? CTL_FAILED : CTL_DONE;
}

/* ---- the pings ---- */

static void report(const struct ping *p, uint64_t number, uint64_t ns)
{
    char text[24];
    if (p->ctl->options->json || p->ctl->options->fabric.interval_ns == 0)
        return;
    printf("%u bytes from %s: seq=%" PRIu64 " time=%s\n", p->body_len, p->address, number,
           format_duration(ns, text));
    fflush(stdout);
}

static void lost(struct ping *p, uint64_t number, int rc)
{
    char text[24];
    if (rc == -ETIMEDOUT)
        ctl_say(p->ctl, "seq=%" PRIu64 " lost: no answer within %s; the process hangs or is stopped", number,
                format_duration(p->ctl->options->timeout_ns, text));
    else
        ctl_say(p->ctl, "seq=%" PRIu64 " lost: %s", number,
                p->link.reason != 0 ? fabric_down_text(p->link.reason) : strerror(-rc));
}

static void ping_once(struct ping *p)
{
    struct ping_call c = {.call = {.method = RPC_METHOD_PING, .body = p->body, .body_len = p->body_len}};
    const uint64_t number = ++p->tally.sent;
    int rc = 0;
    if (!p->link.up) { /* it went down before: try anew */
        fabric_tool_unlink(&p->link);
        rc = fabric_tool_connect(p->ctl, &p->addr, FABRIC_DOMAIN_HOST, &p->link);
    }
    const uint64_t start_ns = loop_clock_ns(p->ctl->loop);
    if (rc == 0)
        rc = call_run(p->ctl, &p->link, &c);
    if (rc != 0) {
        lost(p, number, rc);
        return;
    }
    p->tally.answered++;
    bench_hist_add(&p->tally.times, c.end_ns - start_ns);
    report(p, number, c.end_ns - start_ns);
}

static void ping_all(struct ping *p)
{
    const uint64_t count = p->ctl->options->fabric.count, interval_ns = p->ctl->options->fabric.interval_ns;
    uint64_t next_ns = loop_clock_ns(p->ctl->loop);
    while (!fabric_tool_interrupted() && (count == 0 || p->tally.sent < count)) {
        ping_once(p);
        next_ns = max_u64(next_ns + interval_ns, loop_clock_ns(p->ctl->loop));
        if (count != 0 && p->tally.sent == count)
            break;
        for (uint64_t now = loop_clock_ns(p->ctl->loop); now < next_ns && !fabric_tool_interrupted();
             now = loop_clock_ns(p->ctl->loop))
            loop_run_once(p->ctl->loop, min_u64(next_ns - now, 100 * NS_PER_MS));
    }
}

static void say_connected(const struct ping *p)
{
    char text[24], cluster[33];
    if (p->ctl->options->json)
        return;
    uuid_format(&p->peer.cluster, cluster);
    printf("connected to %s in %s: %s of cluster %s\n", p->address, format_duration(p->connect_ns, text),
           fabric_tool_role(p->peer.role), uuid_is_zero(&p->peer.cluster) ? "(none)" : cluster);
}

enum ctl_exit ctl_fabric_ping(struct ctl *ctl, char *const *args)
{
    static struct ping p;
    p = (struct ping){.ctl = ctl, .address = args[0], .body_len = (uint32_t)ctl->options->fabric.size_bytes};
    enum ctl_exit rc = fabric_tool_open(ctl, p.address, false, &p.addr);
    if (rc != CTL_DONE)
        return rc;
    p.body = calloc(1, p.body_len + 1);
    if (p.body == NULL) {
        ctl_say(ctl, "out of memory");
        return CTL_FAILED;
    }
    fabric_tool_interrupted_begin();
    const int err = fabric_tool_connect(ctl, &p.addr, FABRIC_DOMAIN_HOST, &p.link);
    if (err == 0) {
        p.peer = p.link.info;
        p.connect_ns = p.link.connect_ns;
        say_connected(&p);
        ping_all(&p);
        rc = finish(&p);
    } else {
        rc = fabric_tool_unreachable(ctl, p.address, &p.link, err);
    }
    fabric_tool_interrupted_end();
    fabric_tool_unlink(&p.link);
    free(p.body);
    return rc;
}

/* ---- counters ---- */

static const struct sheet_column counter_columns[] = {
    {"counter", "COUNTER", SHEET_TEXT},
    {"value", "VALUE", SHEET_NUMBER},
};

/* "name value" lines of the peer: what is not like that is left out. */
static enum ctl_exit print_counters(struct ctl *ctl, char *text)
{
    struct sheet s;
    char *save = NULL;
    sheet_init(&s, counter_columns, ARRAY_LEN(counter_columns));
    for (char *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char *space = strchr(line, ' ');
        uint64_t value;
        if (space == NULL || config_parse_uint(space + 1, &value) != 0)
            continue;
        *space = '\0';
        sheet_add_text(&s, line);
        sheet_add_number(&s, value);
    }
    return ctl_print_list(ctl, &s);
}

enum ctl_exit ctl_fabric_counters(struct ctl *ctl, char *const *args)
{
    static char text[RPC_BODY_MAX + 1];
    struct fabric_addr addr;
    struct fabric_tool_link link;
    struct ping_call c = {.call = {.method = RPC_METHOD_COUNTERS}, .text = text};
    enum ctl_exit rc = fabric_tool_open(ctl, args[0], false, &addr);
    if (rc != CTL_DONE)
        return rc;
    int err = fabric_tool_connect(ctl, &addr, FABRIC_DOMAIN_HOST, &link);
    if (err == 0)
        err = call_run(ctl, &link, &c);
    if (err != 0) {
        rc = fabric_tool_unreachable(ctl, args[0], &link, err);
    } else if (c.status != STATUS_OK) {
        ctl_say(ctl, "%s does not tell its counters: %s", args[0], status_text(c.status));
        rc = CTL_FAILED;
    } else {
        rc = print_counters(ctl, text);
    }
    fabric_tool_unlink(&link);
    return rc;
}
