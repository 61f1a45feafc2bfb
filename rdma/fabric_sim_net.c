/* fabric_sim_net.c: the simulated network's packets, links and faults. Runs in the world's events: no
 * process' code runs here. */
#include "rdma/fabric_sim_internal.h"

#include "common/rng.h"

#include <stdlib.h>
#include <string.h>

#define UNREACHABLE_NS (2 * NS_PER_S) /* as librdmacm takes to give up an address */

int sim_net_create(struct sim_world *world, struct sim_net **out)
{
    struct sim_net *net = calloc(1, sizeof(*net));
    if (!net)
        return -ENOMEM;
    net->world = world;
    sim_world_fork_rng(world, "net", &net->rng);
    net->options = (struct sim_net_options){
        .latency_min_ns = 2 * NS_PER_US,
        .latency_max_ns = 30 * NS_PER_US,
        .spike_ns = 2 * NS_PER_MS,
        .spike_num = 1,
        .spike_den = 200,
        .ack_timeout_ns = 600 * NS_PER_MS,
        .notice_min_ns = 1 * NS_PER_MS,
        .notice_max_ns = 50 * NS_PER_MS,
        .break_den = 1,
        .pieces_max = 4,
    };
    list_init(&net->fabrics);
    list_init(&net->links);
    list_init(&net->cuts);
    list_init(&net->hosts_down);
    net->next_port = 20000;
    *out = net;
    return 0;
}

void sim_net_destroy(struct sim_net *net)
{
    if (!net)
        return;
    MUST(list_empty(&net->fabrics));
    for (struct list *n; (n = net->links.next) != &net->links;) {
        struct sim_link *l = list_entry(n, struct sim_link, link);
        l->refs++;
        for (struct list *m; (m = l->packets.next) != &l->packets;)
            sim_packet_free(list_entry(m, struct sim_packet, link));
        sim_link_put(l);
    }
    for (struct list *n; (n = list_pop_front(&net->cuts));)
        free(list_entry(n, struct sim_cut, link));
    for (struct list *n; (n = list_pop_front(&net->hosts_down));)
        free(list_entry(n, struct sim_host, link));
    free(net);
}

void sim_net_get_options(const struct sim_net *net, struct sim_net_options *out)
{
    *out = net->options;
}

void sim_net_set_options(struct sim_net *net, const struct sim_net_options *o)
{
    MUST(o->latency_min_ns <= o->latency_max_ns && o->notice_min_ns <= o->notice_max_ns && o->pieces_max > 0);
    MUST((o->spike_num == 0 || o->spike_den > 0) && (o->break_num == 0 || o->break_den > 0));
    net->options = *o;
}

static uint64_t between(struct sim_net *net, uint64_t lo, uint64_t hi)
{
    return lo >= hi ? lo : lo + rng_below(&net->rng, hi - lo + 1);
}

static uint64_t now(const struct sim_net *net)
{
    return sim_world_now(net->world);
}

/* ---- hosts and cuts ---- */

static struct sim_host *host_down_find(const struct sim_net *net, uint32_t host)
{
    list_for_each(n, &net->hosts_down)
    {
        struct sim_host *h = list_entry(n, struct sim_host, link);
        if (h->number == host)
            return h;
    }
    return NULL;
}

static struct sim_cut *cut_find(const struct sim_net *net, uint32_t from, uint32_t to)
{
    list_for_each(n, &net->cuts)
    {
        struct sim_cut *c = list_entry(n, struct sim_cut, link);
        if (c->from == from && c->to == to)
            return c;
    }
    return NULL;
}

static bool host_is_down(const struct sim_net *net, uint32_t host)
{
    return host_down_find(net, host) != NULL;
}

/* Whether nothing comes through from end e to the other now. */
static bool path_blocked(const struct sim_link *l, int e)
{
    const struct sim_net *net = l->net;
    return host_is_down(net, l->end[e].host) || host_is_down(net, l->end[1 - e].host) ||
           cut_find(net, l->end[e].host, l->end[1 - e].host) != NULL;
}

struct sim_fabric *sim_net_find(struct sim_net *net, uint32_t host, uint16_t port)
{
    list_for_each(n, &net->fabrics)
    {
        struct sim_fabric *f = list_entry(n, struct sim_fabric, link);
        if (f->host != host)
            continue;
        list_for_each(m, &f->core.listeners)
        {
            if (list_entry(m, struct fabric_listener, link)->addr.port == port)
                return f;
        }
    }
    return NULL;
}

/* ---- links ---- */

/* The adapter of that end has lost the connection; its process will be told. */
static void end_lost(struct sim_end *e, enum fabric_down reason)
{
    struct sim_link *l = e->slink;
    if (e->dead)
        return;
    int index = (int)(e - l->end);
    sim_end_stop(l, index);
    if (!e->conn)
        return;
    struct sim_packet *p = sim_packet_create(l, 1 - index, PACKET_DOWN, NULL, 0);
    MUST(p != NULL);
    p->len = (uint32_t)reason;
    sim_inbox_put(sim_fabric_of(e->conn->core.fabric), p);
}

static void end_gives_up(struct sim_event *ev)
{
    struct sim_end *e = container_of(ev, struct sim_end, give_up);
    end_lost(e, e->give_up_reason);
}

static void end_told(struct sim_event *ev)
{
    struct sim_end *e = container_of(ev, struct sim_end, told);
    end_lost(e, e->told_reason);
}

static void give_up_at(struct sim_end *e, uint64_t at_ns, enum fabric_down reason)
{
    if (e->dead || !e->conn)
        return;
    if (sim_event_scheduled(&e->give_up) && e->give_up.node.deadline_ns <= at_ns)
        return;
    e->give_up_reason = reason;
    sim_event_schedule(e->slink->net->world, &e->give_up, at_ns);
}

static void tell_at(struct sim_end *e, uint64_t at_ns, enum fabric_down reason)
{
    if (e->dead || !e->conn)
        return;
    if (sim_event_scheduled(&e->told) && e->told.node.deadline_ns <= at_ns)
        return;
    e->told_reason = reason;
    sim_event_schedule(e->slink->net->world, &e->told, at_ns);
}

struct sim_link *sim_link_create(struct sim_net *net, struct sim_conn *conn, uint32_t from, uint32_t to,
                                 uint16_t port)
{
    struct sim_link *l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->net = net;
    l->port = port;
    list_init(&l->packets);
    for (int e = 0; e < 2; e++) {
        list_init(&l->stuck[e]);
        l->end[e].slink = l;
        l->drop_after[e] = UINT64_MAX;
        sim_event_init(&l->end[e].give_up, end_gives_up);
        sim_event_init(&l->end[e].told, end_told);
    }
    l->end[0].conn = conn;
    l->end[0].host = from;
    l->end[1].host = to;
    l->refs = 1;
    list_push_back(&net->links, &l->link);
    if (host_is_down(net, to))
        give_up_at(&l->end[0], now(net) + UNREACHABLE_NS, FABRIC_DOWN_UNREACHABLE);
    return l;
}

void sim_link_put(struct sim_link *l)
{
    MUST(l->refs > 0);
    if (--l->refs)
        return;
    for (int e = 0; e < 2; e++) {
        sim_event_cancel(l->net->world, &l->end[e].give_up);
        sim_event_cancel(l->net->world, &l->end[e].told);
    }
    list_remove(&l->link);
    free(l);
}

/* ---- packets ---- */

static void packet_event(struct sim_event *ev);

struct sim_packet *sim_packet_create(struct sim_link *l, int from, enum packet_type type, const void *data,
                                     uint32_t len)
{
    struct sim_packet *p = calloc(1, sizeof(*p) + len);
    if (!p)
        return NULL;
    sim_event_init(&p->event, packet_event);
    list_init(&p->inbox);
    p->slink = l;
    p->from = (uint8_t)from;
    p->type = type;
    p->data_len = len;
    if (data)
        memcpy(p->data, data, len);
    list_push_back(&l->packets, &p->link);
    l->refs++;
    return p;
}

void sim_packet_free(struct sim_packet *p)
{
    struct sim_link *l = p->slink;
    sim_event_cancel(l->net->world, &p->event);
    list_remove(&p->link);
    list_remove(&p->inbox);
    free(p);
    sim_link_put(l);
}

static uint64_t latency(struct sim_net *net)
{
    const struct sim_net_options *o = &net->options;
    uint64_t ns = between(net, o->latency_min_ns, o->latency_max_ns);
    if (o->spike_num && rng_chance(&net->rng, o->spike_num, o->spike_den))
        ns += between(net, 0, o->spike_ns);
    return ns;
}

/* When the next thing that end e sends arrives: after all that it sent before. */
static uint64_t arrival(struct sim_link *l, int e)
{
    uint64_t at = max_u64(now(l->net) + latency(l->net) + 2, l->last_ns[e] + 2);
    l->last_ns[e] = at;
    return at;
}

static void link_break(struct sim_link *l)
{
    struct sim_net *net = l->net;
    for (int e = 0; e < 2; e++) {
        l->drop_after[e] =
            min_u64(l->drop_after[e], now(net) + between(net, 0, 2 * net->options.latency_max_ns));
        tell_at(&l->end[e], now(net) + between(net, 0, net->options.notice_max_ns), FABRIC_DOWN_PEER_DIED);
    }
}

void sim_packet_send(struct sim_packet *p)
{
    struct sim_net *net = p->slink->net;
    if (net->options.break_num && rng_chance(&net->rng, net->options.break_num, net->options.break_den))
        link_break(p->slink);
    p->land_ns = arrival(p->slink, p->from);
    sim_event_schedule(net->world, &p->event, p->land_ns);
}

void sim_pieces_send(struct sim_packet *end, uint32_t total)
{
    struct sim_link *l = end->slink;
    struct sim_net *net = l->net;
    sim_packet_send(end);
    uint32_t left = total, offset = 0;
    unsigned pieces = 1 + (total > 8 ? (unsigned)rng_below(&net->rng, net->options.pieces_max) : 0);
    while (left > 0) {
        uint32_t len = left;
        if (pieces > 1) /* whole units of 64 bytes, the last one what is left */
            len = (uint32_t)min_u64(left, 64 + round_down(rng_below(&net->rng, left), 64));
        pieces -= pieces > 1;
        struct sim_packet *p = sim_packet_create(l, end->from, PACKET_PIECE, NULL, len);
        MUST(p != NULL);
        p->kind = end->kind;
        p->op_id = end->op_id;
        p->addr = end->addr;
        p->key = end->key;
        p->remote_offset = end->remote_offset;
        p->offset = offset;
        p->len = len;
        uint64_t take_ns = between(net, now(net), end->land_ns - 1);
        p->land_ns = between(net, take_ns, end->land_ns - 1);
        sim_event_schedule(net->world, &p->event, take_ns);
        offset += len;
        left -= len;
    }
}

/* ---- memory, as the adapters see it ---- */

static void sge_copy(const struct fabric_sge *sge, unsigned count, uint32_t offset, uint8_t *data,
                     uint32_t len, bool in)
{
    for (unsigned i = 0; i < count && len > 0; i++) {
        if (offset >= sge[i].len) {
            offset -= sge[i].len;
            continue;
        }
        uint32_t part = (uint32_t)min_u64(len, sge[i].len - offset);
        char *at = (char *)sge[i].base + offset;
        if (in)
            fabric_copy(at, data, part);
        else
            fabric_copy(data, at, part);
        data += part;
        len -= part;
        offset = 0;
    }
}

/* The exposing op that end e knows under id; NULL when what is asked for, OP_SOURCE_ENDED or OP_SINK_ENDED,
 * is not exposed (any more). */
static struct fabric_op *exposed(const struct sim_end *e, uint64_t id, uint32_t what)
{
    struct fabric_op *op = e->conn ? slots_find(&e->conn->slots, id) : NULL;
    if (!op || op->kind != FABRIC_OP_SEND || (op->state & (OP_EXPOSED | OP_RETIRED | what)) != OP_EXPOSED)
        return NULL;
    return op;
}

static bool within(uint64_t offset, uint64_t len, uint64_t total)
{
    return offset <= total && len <= total - offset;
}

/* Copies between p and the memory at end e that the op's remote address names; false: access denied. */
static bool remote_copy(struct sim_packet *p, const struct sim_end *e)
{
    bool in = p->kind == FABRIC_OP_PUSH || p->kind == FABRIC_OP_WRITE;
    uint32_t offset = p->remote_offset + p->offset;
    if (p->kind == FABRIC_OP_PUSH || p->kind == FABRIC_OP_FETCH) {
        struct fabric_op *op = exposed(e, p->addr, in ? OP_SINK_ENDED : OP_SOURCE_ENDED);
        if (!op || !within(offset, p->len, in ? op_sink_len(op) : op_source_len(op)))
            return false;
        if (in)
            sge_copy(op->sink, op->sink_count, offset, p->data, p->len, true);
        else
            sge_copy(op->sge, op->sge_count, offset, p->data, p->len, false);
        return true;
    }
    void *at;
    unsigned access = in ? FABRIC_ACCESS_REMOTE_WRITE : FABRIC_ACCESS_REMOTE_READ;
    if (!e->conn || !fabric_core_mem_check(&e->conn->core, p->addr + p->offset, p->key, p->len, access, &at))
        return false;
    if (in)
        fabric_copy(at, p->data, p->len);
    else
        fabric_copy(p->data, at, p->len);
    return true;
}

/* The memory of the op that p belongs to, at the end that posted it. */
static void local_copy(struct sim_packet *p, const struct sim_end *e, bool in)
{
    struct fabric_op *op = e->conn ? slots_find(&e->conn->slots, p->op_id) : NULL;
    if (op)
        sge_copy(op->sge, op->sge_count, p->offset, p->data, p->len, in);
}

static bool piece_is_write(const struct sim_packet *p)
{
    return p->kind == FABRIC_OP_PUSH || p->kind == FABRIC_OP_WRITE;
}

static void access_error(struct sim_link *l, int requester)
{
    struct sim_end *target = &l->end[1 - requester];
    if (target->conn)
        target->conn->core.fabric->counters.protocol_errors++;
    end_lost(target, FABRIC_DOWN_ACCESS);
    tell_at(&l->end[requester], now(l->net) + latency(l->net), FABRIC_DOWN_ACCESS);
}

/* The piece takes its bytes at the end that sends it; false when it may not. */
static bool piece_take(struct sim_packet *p)
{
    struct sim_link *l = p->slink;
    struct sim_end *e = &l->end[p->from];
    p->taken = true;
    if (piece_is_write(p)) {
        local_copy(p, e, false);
        return true;
    }
    if (remote_copy(p, e))
        return true;
    /* The adapter there answers nothing more. */
    l->drop_after[p->from] = min_u64(l->drop_after[p->from], now(l->net));
    access_error(l, 1 - p->from);
    return false;
}

static void piece_land(struct sim_packet *p)
{
    struct sim_link *l = p->slink;
    if (!piece_is_write(p))
        local_copy(p, &l->end[1 - p->from], true);
    else if (!remote_copy(p, &l->end[1 - p->from]))
        access_error(l, p->from);
}

/* ---- landing ---- */

static void answer_read(struct sim_packet *p)
{
    struct sim_link *l = p->slink;
    struct sim_end *e = &l->end[1 - p->from];
    struct sim_packet *end = sim_packet_create(l, 1 - p->from, PACKET_READ_END, NULL, 0);
    MUST(end != NULL);
    end->kind = p->kind;
    end->op_id = p->op_id;
    end->addr = p->addr;
    end->key = p->key;
    if (e->conn && p->kind == FABRIC_OP_READ)
        e->conn->core.fabric->counters.reads_served++;
    sim_pieces_send(end, p->len);
}

static void answer_write(struct sim_packet *p)
{
    struct sim_link *l = p->slink;
    struct sim_end *e = &l->end[1 - p->from];
    if (e->conn && p->kind == FABRIC_OP_WRITE)
        e->conn->core.fabric->counters.writes_served++;
    struct sim_packet *ack = sim_packet_create(l, 1 - p->from, PACKET_ACK, NULL, 0);
    MUST(ack != NULL);
    ack->op_id = p->op_id;
    sim_packet_send(ack);
}

/* A message is with the peer's adapter: the sender's op is acknowledged. */
static void ack_message(struct sim_packet *p)
{
    struct sim_packet *ack = sim_packet_create(p->slink, 1 - p->from, PACKET_ACK, NULL, 0);
    MUST(ack != NULL);
    ack->op_id = p->op_id;
    sim_packet_send(ack);
}

/* A message that ends what is exposed at its end e; false: access denied. */
static bool land_ends(struct sim_packet *p, const struct sim_end *e)
{
    struct fabric_op *op = p->ends_what ? exposed(e, p->ends, p->ends_what) : NULL;
    if (op)
        op->state |= p->ends_what;
    else if (p->ends_what)
        access_error(p->slink, p->from);
    return op != NULL || !p->ends_what;
}

static void land_connect(struct sim_packet *p)
{
    struct sim_link *l = p->slink;
    struct sim_fabric *f = sim_net_find(l->net, l->end[1].host, l->port);
    if (f) {
        sim_inbox_put(f, p);
        return;
    }
    tell_at(&l->end[0], now(l->net) + latency(l->net), FABRIC_DOWN_REFUSED);
    sim_packet_free(p);
}

/* p has arrived at its end, which is alive. */
static void packet_land(struct sim_packet *p)
{
    struct sim_end *e = &p->slink->end[1 - p->from];
    switch (p->type) {
    case PACKET_CONNECT:
        land_connect(p);
        return;
    case PACKET_PIECE:
        piece_land(p);
        break;
    case PACKET_READ:
        answer_read(p);
        break;
    case PACKET_WRITE_END:
        answer_write(p);
        break;
    case PACKET_DOWN:
        end_lost(e, (enum fabric_down)p->len);
        break;
    case PACKET_CONTROL:
        if (p->len == FABRIC_CONTROL_AUTH && e->conn && e->conn->core.initiator)
            e->conn->core.early = true;
        sim_inbox_put(sim_fabric_of(e->conn->core.fabric), p);
        return;
    case PACKET_MESSAGE:
        if (!land_ends(p, e))
            break;
        ack_message(p);
        sim_inbox_put(sim_fabric_of(e->conn->core.fabric), p);
        return;
    case PACKET_CREDITS:
    case PACKET_READ_END:
    case PACKET_ACK:
        sim_inbox_put(sim_fabric_of(e->conn->core.fabric), p);
        return;
    }
    sim_packet_free(p);
}

static void packet_event(struct sim_event *ev)
{
    struct sim_packet *p = container_of(ev, struct sim_packet, event);
    struct sim_link *l = p->slink;
    struct sim_net *net = l->net;
    struct sim_end *from = &l->end[p->from], *to = &l->end[1 - p->from];
    if (p->type == PACKET_PIECE && !p->taken) {
        if (piece_take(p))
            sim_event_schedule(net->world, &p->event, p->land_ns);
        else
            sim_packet_free(p);
        return;
    }
    if (path_blocked(l, p->from)) {
        if (p->type != PACKET_CONNECT) /* to connect has its own deadline */
            give_up_at(from, now(net) + net->options.ack_timeout_ns, FABRIC_DOWN_TIMEOUT);
        if (host_is_down(net, to->host) || host_is_down(net, from->host))
            sim_packet_free(p);
        else
            list_push_back(&l->stuck[p->from], &p->inbox);
        return;
    }
    if (path_blocked(l, 1 - p->from)) /* it arrives, but its acknowledgement does not */
        give_up_at(from, now(net) + net->options.ack_timeout_ns, FABRIC_DOWN_TIMEOUT);
    bool lost = p->type != PACKET_DOWN && now(net) > l->drop_after[p->from];
    if (lost || to->dead || (!to->conn && p->type != PACKET_CONNECT))
        sim_packet_free(p);
    else
        packet_land(p);
}

/* ---- ends of links ---- */

void sim_end_stop(struct sim_link *l, int e)
{
    struct sim_net *net = l->net;
    if (l->end[e].dead)
        return;
    l->end[e].dead = true;
    sim_event_cancel(net->world, &l->end[e].give_up);
    sim_event_cancel(net->world, &l->end[e].told);
    bool take = rng_chance(&net->rng, 1, 2);
    list_for_each_safe(n, &l->packets)
    {
        struct sim_packet *p = list_entry(n, struct sim_packet, link);
        if (p->type != PACKET_PIECE || p->taken || p->from != e)
            continue;
        if (take && piece_is_write(p)) {
            (void)piece_take(p);
            continue; /* its event only lands it now: a moment early is as good */
        }
        /* What is behind it in the same direction is lost as well: nothing overtakes. */
        l->drop_after[e] = min_u64(l->drop_after[e], p->land_ns);
        sim_packet_free(p);
    }
    /* Of what is held up by a cut a part may still come out of it, long after. */
    unsigned stuck = 0;
    list_for_each(n, &l->stuck[e]) stuck++;
    unsigned keep = stuck ? (unsigned)rng_below(&net->rng, stuck + 1) : 0;
    for (; stuck > keep; stuck--)
        sim_packet_free(list_entry(l->stuck[e].prev, struct sim_packet, inbox));
}

void sim_end_notify(struct sim_link *l, int e, enum fabric_down reason, uint64_t delay_ns)
{
    if (l->end[1 - e].dead || host_is_down(l->net, l->end[e].host))
        return;
    struct sim_packet *p = sim_packet_create(l, e, PACKET_DOWN, NULL, 0);
    MUST(p != NULL);
    p->len = (uint32_t)reason;
    p->land_ns = max_u64(arrival(l, e), now(l->net) + delay_ns);
    sim_event_schedule(l->net->world, &p->event, p->land_ns);
}

/* ---- faults ---- */

static uint64_t probe_notices_ns(struct sim_net *net, const struct sim_end *e)
{
    const struct fabric_config *c = &e->conn->core.fabric->config;
    return now(net) + between(net, 0, c->probe_interval_ns) + c->probe_timeout_ns;
}

static void links_blocked(struct sim_net *net)
{
    list_for_each(n, &net->links)
    {
        struct sim_link *l = list_entry(n, struct sim_link, link);
        if (!path_blocked(l, 0) && !path_blocked(l, 1))
            continue;
        for (int e = 0; e < 2; e++)
            if (l->end[e].conn && !l->end[e].dead)
                give_up_at(&l->end[e], probe_notices_ns(net, &l->end[e]), FABRIC_DOWN_TIMEOUT);
    }
}

static void link_unblocked(struct sim_link *l)
{
    struct sim_net *net = l->net;
    for (int e = 0; e < 2; e++) {
        if (path_blocked(l, e))
            continue;
        struct list go;
        list_init(&go);
        list_splice(&go, &l->stuck[e]);
        for (struct list *n; (n = list_pop_front(&go));) {
            struct sim_packet *p = container_of(n, struct sim_packet, inbox);
            p->land_ns = arrival(l, e);
            sim_event_schedule(net->world, &p->event, p->land_ns);
        }
    }
    if (path_blocked(l, 0) || path_blocked(l, 1))
        return;
    for (int e = 0; e < 2; e++) {
        sim_event_cancel(net->world, &l->end[e].give_up);
        /* Who has no other end any more hears so, at the next probe. */
        if (l->end[1 - e].dead && l->end[e].conn)
            tell_at(&l->end[e],
                    now(net) + between(net, 0, l->end[e].conn->core.fabric->config.probe_interval_ns),
                    FABRIC_DOWN_PEER_DIED);
    }
}

static void links_unblocked(struct sim_net *net)
{
    list_for_each(n, &net->links) link_unblocked(list_entry(n, struct sim_link, link));
}

static void cut_one(struct sim_net *net, uint32_t from, uint32_t to)
{
    if (cut_find(net, from, to))
        return;
    struct sim_cut *c = calloc(1, sizeof(*c));
    MUST(c != NULL);
    c->from = from;
    c->to = to;
    list_push_back(&net->cuts, &c->link);
}

void sim_net_cut(struct sim_net *net, uint32_t from, uint32_t to, bool both)
{
    cut_one(net, from, to);
    if (both)
        cut_one(net, to, from);
    links_blocked(net);
}

static void heal_one(struct sim_net *net, uint32_t from, uint32_t to)
{
    struct sim_cut *c = cut_find(net, from, to);
    if (!c)
        return;
    list_remove(&c->link);
    free(c);
}

void sim_net_heal(struct sim_net *net, uint32_t from, uint32_t to, bool both)
{
    heal_one(net, from, to);
    if (both)
        heal_one(net, to, from);
    links_unblocked(net);
}

void sim_net_heal_all(struct sim_net *net)
{
    for (struct list *n; (n = list_pop_front(&net->cuts));)
        free(list_entry(n, struct sim_cut, link));
    links_unblocked(net);
}

void sim_net_host_down(struct sim_net *net, uint32_t host)
{
    if (host_is_down(net, host))
        return;
    struct sim_host *h = calloc(1, sizeof(*h));
    MUST(h != NULL);
    h->number = host;
    list_push_back(&net->hosts_down, &h->link);
    list_for_each_safe(n, &net->links)
    {
        struct sim_link *l = list_entry(n, struct sim_link, link);
        l->refs++;
        for (int e = 0; e < 2; e++)
            if (l->end[e].host == host)
                sim_end_stop(l, e);
        sim_link_put(l);
    }
    links_blocked(net);
}

void sim_net_host_up(struct sim_net *net, uint32_t host)
{
    struct sim_host *h = host_down_find(net, host);
    if (!h)
        return;
    list_remove(&h->link);
    free(h);
    links_unblocked(net);
}

void sim_net_break(struct sim_net *net, uint32_t host)
{
    list_for_each(n, &net->links)
    {
        struct sim_link *l = list_entry(n, struct sim_link, link);
        if (host == 0 || l->end[0].host == host || l->end[1].host == host)
            link_break(l);
    }
}

void sim_net_break_pair(struct sim_net *net, uint32_t a, uint32_t b)
{
    list_for_each(n, &net->links)
    {
        struct sim_link *l = list_entry(n, struct sim_link, link);
        if ((l->end[0].host == a && l->end[1].host == b) || (l->end[0].host == b && l->end[1].host == a))
            link_break(l);
    }
}

void sim_net_lose(struct sim_net *net, uint32_t host)
{
    list_for_each_safe(n, &net->links)
    {
        struct sim_link *l = list_entry(n, struct sim_link, link);
        l->refs++;
        for (int e = 0; e < 2; e++)
            if (l->end[e].host == host)
                end_lost(&l->end[e], FABRIC_DOWN_TIMEOUT);
        sim_link_put(l);
    }
}

void sim_net_delay(struct sim_net *net, uint32_t from, uint32_t to, uint64_t until_ns)
{
    list_for_each(n, &net->links)
    {
        struct sim_link *l = list_entry(n, struct sim_link, link);
        for (int e = 0; e < 2; e++)
            if (l->end[e].host == from && l->end[1 - e].host == to)
                l->last_ns[e] = max_u64(l->last_ns[e], until_ns);
    }
}
