/* fabric_bench_load.c: the load of `cistern fabric bench`: depth requests in flight, each a slot with its own
 * memory; a slot's next request starts in the callback of its last. */
#include "services/ctl/fabric_tool.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/crc.h"
#include "common/loop.h"

struct slot {
    struct fabric_bench_load *load;
    uint64_t offset; /* in both areas */
    struct rpc_call call;
    struct fabric_op op;
    struct fabric_sge sge;
    struct fabric_bench_place place;
    uint64_t start_ns;
};
struct fabric_bench_load {
    struct ctl *ctl;
    struct fabric_tool_link *link;
    struct fabric_bench_hello server;
    uint8_t *area;
    uint64_t area_bytes;
    struct fabric_mem *mem;
    struct slot slots[FABRIC_BENCH_DEPTH_MAX];
    /* of a round */
    const struct fabric_bench_case *c;
    uint32_t crc[FABRIC_BENCH_DEPTH_MAX];
    unsigned in_flight;
    bool measuring, stopping;
    int rc;
    uint64_t begin_ns;
    struct bench_hist times;
};

static uint64_t cpu_ns(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) != 0)
        return 0;
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * NS_PER_S +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * NS_PER_US;
}

/* ---- one request ---- */

static void slot_start(struct slot *s);

static void slot_ended(struct slot *s, int rc)
{
    struct fabric_bench_load *l = s->load;
    const uint64_t now = loop_clock_ns(l->ctl->loop);
    l->in_flight--;
    if (rc != 0) {
        l->rc = l->rc != 0 ? l->rc : rc;
        l->stopping = true;
        return;
    }
    if (l->measuring && s->start_ns >= l->begin_ns)
        bench_hist_add(&l->times, now - s->start_ns);
    slot_start(s);
}

static void call_done(struct rpc_call *call, const struct rpc_result *r)
{
    struct slot *s = container_of(call, struct slot, call);
    int rc = r->rc;
    if (rc == 0 && r->status != STATUS_OK)
        rc = r->status == STATUS_BAD_CRC ? -EBADMSG : -EIO;
    /* Once in a while is enough: the sum is not what is measured. */
    if (rc == 0 && s->load->c->kind == FABRIC_BENCH_PUSH && !s->load->measuring &&
        (r->payload_len != s->sge.len || crc32c(s->sge.base, s->sge.len) != r->payload_crc))
        rc = -EBADMSG;
    slot_ended(s, rc);
}

static void op_done(struct fabric_op *op, int rc)
{
    slot_ended(container_of(op, struct slot, op), rc);
}

static int start_call(struct slot *s)
{
    struct fabric_bench_load *l = s->load;
    memset(&s->call, 0, sizeof(s->call));
    s->call.done = call_done;
    if (l->c->kind == FABRIC_BENCH_MESSAGE) {
        s->call.method = RPC_METHOD_PING;
        s->call.body = s->sge.base;
        s->call.body_len = s->sge.len;
        return rpc_call_start(l->link->peer, &s->call);
    }
    s->place.offset = s->offset;
    s->call.body = &s->place;
    s->call.body_len = sizeof(s->place);
    if (l->c->kind == FABRIC_BENCH_FETCH) {
        s->call.method = FABRIC_BENCH_TAKE;
        s->call.source = &s->sge;
        s->call.source_count = 1;
        s->call.source_crc = l->crc[s - l->slots];
    } else {
        s->call.method = FABRIC_BENCH_GIVE;
        s->call.sink = &s->sge;
        s->call.sink_count = 1;
    }
    return rpc_call_start(l->link->peer, &s->call);
}

static int start_op(struct slot *s)
{
    struct fabric_bench_load *l = s->load;
    const bool read = l->c->kind == FABRIC_BENCH_READ;
    s->op = (struct fabric_op){
        .kind = read ? FABRIC_OP_READ : FABRIC_OP_WRITE,
        .sge = &s->sge,
        .sge_count = 1,
        .remote = {.addr = l->server.addr + s->offset, .len = s->sge.len, .key = l->server.key},
        .done = op_done};
    return fabric_post(rpc_peer_conn(l->link->peer), &s->op);
}

static void slot_start(struct slot *s)
{
    struct fabric_bench_load *l = s->load;
    if (l->stopping)
        return;
    s->start_ns = loop_clock_ns(l->ctl->loop);
    const bool one_sided = l->c->kind == FABRIC_BENCH_READ || l->c->kind == FABRIC_BENCH_WRITE;
    const int rc = l->link->peer == NULL ? -ENOTCONN : one_sided ? start_op(s) : start_call(s);
    if (rc == 0) {
        l->in_flight++;
        return;
    }
    l->rc = l->rc != 0 ? l->rc : rc;
    l->stopping = true;
}

/* ---- a round ---- */

static void begin_measuring(struct fabric_bench_load *l, struct fabric_bench_round *out)
{
    l->measuring = true;
    l->begin_ns = loop_clock_ns(l->ctl->loop);
    out->cpu_ns = cpu_ns();
}

static void end_measuring(struct fabric_bench_load *l, struct fabric_bench_round *out)
{
    out->cpu_ns = cpu_ns() - out->cpu_ns;
    out->ops = l->times.count;
    out->measured_ns = loop_clock_ns(l->ctl->loop) - l->begin_ns;
    out->p50_ns = bench_hist_quantile(&l->times, 5000);
    out->p99_ns = bench_hist_quantile(&l->times, 9900);
    l->measuring = false;
    l->stopping = true;
}

static void drive(struct fabric_bench_load *l, uint64_t warmup_ns, uint64_t runtime_ns,
                  struct fabric_bench_round *out)
{
    const uint64_t start_ns = loop_clock_ns(l->ctl->loop);
    while (l->in_flight > 0) {
        loop_run_once(l->ctl->loop, 50 * NS_PER_MS);
        const uint64_t now = loop_clock_ns(l->ctl->loop);
        if (fabric_tool_interrupted() && !l->stopping) {
            l->rc = -EINTR;
            l->stopping = true;
        }
        if (!l->stopping && !l->measuring && now - start_ns >= warmup_ns)
            begin_measuring(l, out);
        else if (!l->stopping && l->measuring && now - l->begin_ns >= runtime_ns && l->times.count > 0)
            end_measuring(l, out);
    }
}

int fabric_bench_load_run(struct fabric_bench_load *l, const struct fabric_bench_case *c, uint64_t warmup_ns,
                          uint64_t runtime_ns, struct fabric_bench_round *out)
{
    struct fabric_bench_round round = {0};
    MUST(c->depth <= FABRIC_BENCH_DEPTH_MAX && (uint64_t)c->depth * c->bytes <= l->area_bytes);
    l->c = c;
    l->measuring = l->stopping = false;
    l->rc = 0;
    memset(&l->times, 0, sizeof(l->times));
    for (unsigned i = 0; i < c->depth; i++) {
        struct slot *s = &l->slots[i];
        s->load = l;
        s->offset = (uint64_t)i * c->bytes;
        s->sge = (struct fabric_sge){.base = l->area + s->offset, .len = c->bytes, .mem = l->mem};
        if (c->kind == FABRIC_BENCH_FETCH)
            l->crc[i] = crc32c(s->sge.base, c->bytes);
    }
    for (unsigned i = 0; i < c->depth; i++)
        slot_start(&l->slots[i]);
    drive(l, warmup_ns, runtime_ns, &round);
    if (l->rc == 0)
        *out = round;
    return l->rc;
}

/* ---- its life ---- */

int fabric_bench_load_create(struct ctl *ctl, struct fabric_tool_link *link,
                             const struct fabric_bench_hello *server, const struct fabric_bench_case *cases,
                             unsigned count, struct fabric_bench_load **out)
{
    struct fabric_bench_load *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return -ENOMEM;
    l->ctl = ctl;
    l->link = link;
    l->server = *server;
    for (unsigned i = 0; i < count; i++)
        l->area_bytes = max_u64(l->area_bytes, (uint64_t)cases[i].bytes * cases[i].depth);
    l->area_bytes = round_up(l->area_bytes, UNIT_BYTES);
    int rc = l->area_bytes <= server->bytes ? 0 : -ENOMEM;
    if (rc == 0)
        l->area = aligned_alloc(UNIT_BYTES, l->area_bytes);
    if (l->area == NULL)
        rc = -ENOMEM;
    if (rc == 0) {
        rng_fill(&ctl->rng, l->area, l->area_bytes);
        rc = fabric_mem_register(ctl->env.fabric, FABRIC_DOMAIN_CLUSTER, l->area, l->area_bytes,
                                 FABRIC_ACCESS_LOCAL, &l->mem);
    }
    if (rc == 0) {
        *out = l;
        return 0;
    }
    free(l->area);
    free(l);
    return rc;
}

void fabric_bench_load_destroy(struct fabric_bench_load *l)
{
    if (l == NULL)
        return;
    fabric_mem_unregister(l->mem);
    free(l->area);
    free(l);
}

/* ---- figures ---- */

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t median(uint64_t *values, unsigned count)
{
    qsort(values, count, sizeof(*values), by_value);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

void fabric_bench_figures_of(const struct fabric_bench_case *c, const struct fabric_bench_round *rounds,
                             unsigned count, struct fabric_bench_figures *out)
{
    uint64_t rate[FABRIC_BENCH_ROUNDS_MAX], p50[FABRIC_BENCH_ROUNDS_MAX], p99[FABRIC_BENCH_ROUNDS_MAX],
        cpu[FABRIC_BENCH_ROUNDS_MAX];
    MUST(count > 0 && count <= FABRIC_BENCH_ROUNDS_MAX);
    for (unsigned i = 0; i < count; i++) {
        const struct fabric_bench_round *r = &rounds[i];
        const double seconds = (double)max_u64(r->measured_ns, 1) / (double)NS_PER_S;
        rate[i] = (uint64_t)((double)r->ops / seconds + 0.5);
        p50[i] = r->p50_ns;
        p99[i] = r->p99_ns;
        cpu[i] = r->ops == 0 ? 0 : r->cpu_ns / r->ops;
    }
    *out = (struct fabric_bench_figures){.ops_per_s = median(rate, count),
                                         .p50_ns = median(p50, count),
                                         .p99_ns = median(p99, count),
                                         .cpu_ns_per_op = median(cpu, count)};
    out->bytes_per_s = out->ops_per_s * c->bytes;
    out->spread_percent = out->ops_per_s == 0 ? 0 : (rate[count - 1] - rate[0]) * 100 / out->ops_per_s;
}
