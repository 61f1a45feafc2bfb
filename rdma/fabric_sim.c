/* fabric_sim.c: the endpoint of a simulated process: what it posts becomes packets, what arrived waits in its
 * inbox. */
#include "rdma/fabric_sim_internal.h"

#include "common/rng.h"

#include <stdlib.h>
#include <string.h>

#define SIM_READ_WINDOW 16u /* small, so that it fills in most runs */
#define INBOX_BURST     64u

/* ---- connections ---- */

static uint32_t host_of(const struct fabric_addr *a)
{
    return (uint32_t)a->ip[0] | (uint32_t)a->ip[1] << 8 | (uint32_t)a->ip[2] << 16 | (uint32_t)a->ip[3] << 24;
}

static void addr_of(uint32_t host, uint16_t port, struct fabric_addr *a)
{
    memset(a, 0, sizeof(*a));
    a->provider = FABRIC_PROVIDER_SIM;
    a->port = port;
    for (int i = 0; i < 4; i++)
        a->ip[i] = (uint8_t)(host >> (8 * i));
}

static int sim_connect(struct fabric_conn *conn, const struct fabric_addr *addr)
{
    struct sim_conn *sc = sim_conn_of(conn);
    struct sim_fabric *sf = sim_fabric_of(conn->fabric);
    sc->slink = sim_link_create(sf->net, sc, sf->host, host_of(addr), addr->port);
    if (!sc->slink)
        return -ENOMEM;
    struct sim_packet *p =
        sim_packet_create(sc->slink, 0, PACKET_CONNECT, &conn->hello_mine, sizeof(conn->hello_mine));
    MUST(p != NULL);
    sim_packet_send(p);
    return 0;
}

static int sim_listen(struct fabric_listener *l, const struct fabric_addr *addr)
{
    struct sim_fabric *sf = sim_fabric_of(l->fabric);
    if (host_of(addr) != sf->host)
        return -EADDRNOTAVAIL;
    uint16_t port = addr->port;
    while (port == 0 || (addr->port == 0 && sim_net_find(sf->net, sf->host, port)))
        port = sf->net->next_port++;
    if (sim_net_find(sf->net, sf->host, port))
        return -EADDRINUSE;
    addr_of(sf->host, port, &l->addr);
    return 0;
}

static void sim_unlisten(struct fabric_listener *l)
{
    (void)l;
}

static void sim_control(struct fabric_conn *conn, enum fabric_control_kind kind, const void *data,
                        uint32_t len)
{
    struct sim_conn *sc = sim_conn_of(conn);
    if (!sc->slink || sc->slink->end[sc->end].dead)
        return;
    struct sim_packet *p = sim_packet_create(sc->slink, sc->end, PACKET_CONTROL, data, len);
    MUST(p != NULL);
    p->len = (uint32_t)kind;
    sim_packet_send(p);
}

static void sim_shut(struct fabric_conn *conn, bool polite)
{
    struct sim_conn *sc = sim_conn_of(conn);
    struct sim_link *l = sc->slink;
    if (!l)
        return;
    struct sim_net *net = l->net;
    bool was_dead = l->end[sc->end].dead;
    sim_end_stop(l, sc->end);
    if (!was_dead && sim_loop_killed(conn->fabric->env->loop)) {
        const struct sim_net_options *o = &net->options;
        uint64_t delay = o->notice_min_ns + rng_below(&net->rng, o->notice_max_ns - o->notice_min_ns + 1);
        sim_end_notify(l, sc->end, FABRIC_DOWN_PEER_DIED, delay);
    } else if (!was_dead) {
        sim_end_notify(l, sc->end, polite ? FABRIC_DOWN_PEER_CLOSED : FABRIC_DOWN_PEER_DIED, 0);
    }
    l->end[sc->end].conn = NULL;
    sc->slink = NULL;
    sim_link_put(l);
}

static void sim_conn_free(struct fabric_conn *conn)
{
    slots_free(&sim_conn_of(conn)->slots);
}

/* ---- operations ---- */

static void post_message(struct sim_conn *sc, struct fabric_op *op)
{
    struct sim_packet *p = sim_packet_create(sc->slink, sc->end, PACKET_MESSAGE, op->header, op->header_len);
    MUST(p != NULL);
    p->op_id = op->id;
    p->source_len = op_source_len(op);
    p->sink_len = op_sink_len(op);
    p->ends = op->ends.addr;
    p->ends_what = op->ends.len ? op->ends.flags : 0;
    p->credits = sc->core.rx_owed;
    sc->core.rx_owed = 0;
    sim_packet_send(p);
}

static void post_one_sided(struct sim_conn *sc, struct fabric_op *op)
{
    bool write = op->kind == FABRIC_OP_PUSH || op->kind == FABRIC_OP_WRITE;
    struct sim_packet *p =
        sim_packet_create(sc->slink, sc->end, write ? PACKET_WRITE_END : PACKET_READ, NULL, 0);
    MUST(p != NULL);
    p->kind = op->kind;
    p->op_id = op->id;
    p->addr = op->remote.addr;
    p->key = op->remote.key;
    p->remote_offset = op->kind == FABRIC_OP_PUSH ? op->remote_offset : 0;
    p->len = op_len(op);
    if (write)
        sim_pieces_send(p, p->len);
    else
        sim_packet_send(p);
}

static int sim_post(struct fabric_conn *conn, struct fabric_op *op)
{
    struct sim_conn *sc = sim_conn_of(conn);
    int rc = slots_take(&sc->slots, op, &op->id);
    if (rc)
        return rc;
    list_push_back(&conn->active, &op->link);
    if (sc->slink->end[sc->end].dead) /* nothing goes out; the down is on its way */
        return 0;
    if (op->kind == FABRIC_OP_SEND)
        post_message(sc, op);
    else
        post_one_sided(sc, op);
    return 0;
}

static void op_end(struct sim_conn *sc, struct fabric_op *op)
{
    slots_put(&sc->slots, op->id);
    fabric_core_op_done(op, 0);
}

static void sim_retire(struct fabric_conn *conn, struct fabric_op *op)
{
    if (fabric_core_op_settled(op))
        op_end(sim_conn_of(conn), op);
}

static void sim_drop(struct fabric_conn *conn, const struct fabric_remote *source)
{
    (void)conn;
    (void)source; /* nothing is held back here */
}

static void sim_credit(struct fabric_conn *conn)
{
    struct sim_conn *sc = sim_conn_of(conn);
    if (sc->slink->end[sc->end].dead)
        return;
    struct sim_packet *p = sim_packet_create(sc->slink, sc->end, PACKET_CREDITS, NULL, 0);
    MUST(p != NULL);
    p->credits = conn->rx_owed;
    conn->rx_owed = 0;
    sim_packet_send(p);
}

/* ---- what arrived ---- */

void sim_inbox_put(struct sim_fabric *f, struct sim_packet *p)
{
    list_push_back(&f->inbox, &p->inbox);
    sim_loop_kick(f->core.env->loop);
}

static void inbox_connect(struct sim_fabric *sf, struct sim_packet *p)
{
    struct sim_link *l = p->slink;
    struct fabric_conn *conn = NULL;
    list_for_each(n, &sf->core.listeners)
    {
        struct fabric_listener *listener = list_entry(n, struct fabric_listener, link);
        struct fabric_addr from;
        if (listener->addr.port != l->port)
            continue;
        addr_of(l->end[0].host, 0, &from);
        conn = fabric_core_incoming(listener, &from);
        break;
    }
    if (!conn) {
        sim_end_notify(l, 1, FABRIC_DOWN_REFUSED, 0);
        return;
    }
    struct sim_conn *sc = sim_conn_of(conn);
    sc->slink = l;
    sc->end = 1;
    l->end[1].conn = sc;
    l->refs++;
    struct fabric_hello hello;
    memcpy(&hello, p->data, sizeof(hello));
    fabric_core_hello(conn, &hello);
}

static void inbox_control(struct fabric_conn *conn, const struct sim_packet *p)
{
    struct fabric_hello hello;
    struct fabric_auth auth;
    uint32_t reason;
    switch ((enum fabric_control_kind)p->len) {
    case FABRIC_CONTROL_HELLO:
        memcpy(&hello, p->data, sizeof(hello));
        fabric_core_hello(conn, &hello);
        break;
    case FABRIC_CONTROL_AUTH:
        memcpy(&auth, p->data, sizeof(auth));
        fabric_core_auth(conn, &auth);
        break;
    case FABRIC_CONTROL_REFUSE:
        memcpy(&reason, p->data, sizeof(reason));
        fabric_core_fail(conn, (enum fabric_down)reason);
        break;
    }
}

static void inbox_message(struct fabric_conn *conn, const struct sim_packet *p)
{
    struct fabric_msg msg = {.data = p->data, .len = p->data_len};
    if (conn->state != CONN_UP)
        return;
    if (p->source_len)
        msg.source = (struct fabric_remote){
            .addr = p->op_id, .len = p->source_len, .key = 1, .flags = OP_SOURCE_ENDED};
    if (p->sink_len)
        msg.sink =
            (struct fabric_remote){.addr = p->op_id, .len = p->sink_len, .key = 1, .flags = OP_SINK_ENDED};
    if (p->credits)
        fabric_core_credits(conn, p->credits);
    if (conn->state == CONN_UP)
        fabric_core_message(conn, &msg);
}

static void inbox_done(struct sim_conn *sc, uint64_t op_id)
{
    struct fabric_op *op = slots_find(&sc->slots, op_id);
    if (!op)
        return;
    op->state |= OP_SENT;
    if (op->state & OP_EXPOSED)
        sim_retire(&sc->core, op);
    else
        op_end(sc, op);
}

static void inbox_handle(struct sim_fabric *sf, struct sim_packet *p)
{
    if (p->type == PACKET_CONNECT) {
        inbox_connect(sf, p);
        return;
    }
    struct sim_conn *sc = p->slink->end[1 - p->from].conn;
    if (!sc || sc->core.state == CONN_DOWN)
        return;
    switch (p->type) {
    case PACKET_CONTROL:
        inbox_control(&sc->core, p);
        break;
    case PACKET_MESSAGE:
        inbox_message(&sc->core, p);
        break;
    case PACKET_CREDITS:
        fabric_core_credits(&sc->core, p->credits);
        break;
    case PACKET_READ_END:
    case PACKET_ACK:
        inbox_done(sc, p->op_id);
        break;
    case PACKET_DOWN:
        sc->core.nobody = p->len == FABRIC_DOWN_REFUSED;
        fabric_core_fail(&sc->core, (enum fabric_down)p->len);
        break;
    default:
        MUST(false);
    }
}

static unsigned sim_poll(struct loop_poller *poller)
{
    struct sim_fabric *sf = container_of(poller, struct sim_fabric, poller);
    unsigned handled = 0;
    while (handled < INBOX_BURST && !list_empty(&sf->inbox)) {
        struct sim_packet *p = container_of(list_pop_front(&sf->inbox), struct sim_packet, inbox);
        inbox_handle(sf, p);
        sim_packet_free(p);
        handled++;
    }
    return handled;
}

static void sim_flush(struct loop_poller *poller)
{
    fabric_core_run(&container_of(poller, struct sim_fabric, poller)->core);
}

/* ---- endpoint ---- */

static void sim_destroy(struct fabric *f)
{
    struct sim_fabric *sf = sim_fabric_of(f);
    loop_poller_remove(f->env->loop, &sf->poller);
    while (!list_empty(&sf->inbox))
        sim_packet_free(container_of(sf->inbox.next, struct sim_packet, inbox));
    list_remove(&sf->link);
    free(sf);
}

static const struct fabric_ops sim_ops = {
    .name = "sim",
    .kind = FABRIC_PROVIDER_SIM,
    .conn_size = sizeof(struct sim_conn),
    .listener_size = sizeof(struct fabric_listener),
    .fetch_is_read = true,
    .read_window = SIM_READ_WINDOW,
    .connect = sim_connect,
    .listen = sim_listen,
    .unlisten = sim_unlisten,
    .control = sim_control,
    .post = sim_post,
    .retire = sim_retire,
    .drop = sim_drop,
    .credit = sim_credit,
    .shut = sim_shut,
    .conn_free = sim_conn_free,
    .destroy = sim_destroy,
};

int fabric_create_sim(struct env *env, struct sim_net *net, uint32_t host, const struct fabric_config *config,
                      struct fabric **out)
{
    if (host == 0 || !loop_is_sim(env->loop))
        return -EINVAL;
    struct sim_fabric *sf = calloc(1, sizeof(*sf));
    if (!sf)
        return -ENOMEM;
    int rc = fabric_core_init(&sf->core, &sim_ops, env, config);
    if (rc) {
        free(sf);
        return rc;
    }
    sf->net = net;
    sf->host = host;
    list_init(&sf->inbox);
    list_push_back(&net->fabrics, &sf->link);
    sf->poller = (struct loop_poller){.poll = sim_poll, .flush = sim_flush};
    loop_poller_add(env->loop, &sf->poller);
    *out = &sf->core;
    return 0;
}
