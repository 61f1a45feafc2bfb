/*
 * fabric_sim_internal.h: shared by fabric_sim.c (what runs in a process: posting, polling) and
 * fabric_sim_net.c (what runs in the world: packets, links, faults).
 *
 * A link joins two ends. What travels is a packet: an event of the world that lands at the other end, either
 * in memory (data pieces: the process is not involved) or in the inbox of the fabric there, which its loop
 * polls.
 */
#ifndef CISTERN_RDMA_FABRIC_SIM_INTERNAL_H
#define CISTERN_RDMA_FABRIC_SIM_INTERNAL_H

#include "rdma/fabric_provider.h"
#include "rdma/fabric_sim.h"

enum packet_type {
    PACKET_CONNECT, /* data: hello */
    PACKET_CONTROL, /* data; kind in len */
    PACKET_MESSAGE, /* data; op_id exposes source_len, sink_len */
    PACKET_CREDITS,
    PACKET_PIECE,     /* data of a one-sided operation; first it takes its bytes, then it lands */
    PACKET_WRITE_END, /* after the pieces of a PUSH or WRITE */
    PACKET_READ,      /* the request of a READ or FETCH */
    PACKET_READ_END,  /* after its pieces */
    PACKET_ACK,       /* op_id is done, rc 0 */
    PACKET_DOWN,      /* reason in len */
};

struct sim_packet {
    struct sim_event event;
    struct list link;  /* in sim_link->packets, in order of sending */
    struct list inbox; /* in sim_fabric->inbox or sim_link->stuck[from] */
    struct sim_link *slink;
    enum packet_type type;
    enum fabric_op_kind kind; /* pieces, READ, WRITE_END: of the op */
    uint8_t from;             /* end */
    bool taken;               /* a piece that has its bytes */
    uint64_t op_id;           /* in the table of the end that posted the op */
    uint64_t addr;            /* remote: memory, or id of the exposing op */
    uint64_t land_ns;
    uint32_t key, offset, remote_offset, len, credits;
    uint32_t source_len, sink_len;
    uint64_t ends;      /* MESSAGE: the peer's op of which it ends something */
    uint32_t ends_what; /* OP_SOURCE_ENDED, OP_SINK_ENDED, or 0 */
    uint32_t data_len;
    uint8_t data[];
};

struct sim_end {
    struct sim_conn *conn; /* NULL: none yet, or gone */
    uint32_t host;
    bool dead;                /* its adapter takes and gives nothing any more */
    struct sim_event give_up; /* no answer: TIMEOUT */
    struct sim_event told;    /* the adapter learns that the link broke */
    enum fabric_down give_up_reason, told_reason;
    struct sim_link *slink;
};
struct sim_link {
    struct list link; /* in net->links */
    struct sim_net *net;
    struct sim_end end[2]; /* 0: the connector */
    struct list packets;
    struct list stuck[2];   /* by sending end: held up by a cut, in order */
    uint64_t last_ns[2];    /* by sending end: order of arrival */
    uint64_t drop_after[2]; /* by sending end: what lands later is lost; UINT64_MAX = nothing */
    uint16_t port;
    unsigned refs; /* ends with a conn, packets, the connect under way */
};

struct sim_cut {
    struct list link;
    uint32_t from, to;
};
struct sim_host {
    struct list link;
    uint32_t number;
};
struct sim_net {
    struct sim_world *world;
    struct rng rng;
    struct sim_net_options options;
    struct list fabrics, links, cuts, hosts_down;
    uint16_t next_port;
};

struct sim_fabric {
    struct fabric core;
    struct list link; /* in net->fabrics */
    struct sim_net *net;
    uint32_t host;
    struct list inbox;
    struct loop_poller poller;
};
struct sim_conn {
    struct fabric_conn core;
    struct sim_link *slink; /* NULL once shut */
    int end;
    struct slots slots; /* all ops that were posted and are not done */
};

static inline struct sim_conn *sim_conn_of(struct fabric_conn *c)
{
    return container_of(c, struct sim_conn, core);
}
static inline struct sim_fabric *sim_fabric_of(struct fabric *f)
{
    return container_of(f, struct sim_fabric, core);
}

/* ---- fabric_sim_net.c ---- */
struct sim_link *sim_link_create(struct sim_net *net, struct sim_conn *conn, uint32_t from, uint32_t to,
                                 uint16_t port);
void sim_link_put(struct sim_link *l);
/* A packet of an end with room for data; NULL: no memory. */
struct sim_packet *sim_packet_create(struct sim_link *l, int from, enum packet_type type, const void *data,
                                     uint32_t len);
/* Sends it, in order. */
void sim_packet_send(struct sim_packet *p);
void sim_packet_free(struct sim_packet *p);
/* Sends the data of op (posted by end poster) in pieces, then end, all arriving at end's time at the latest.
 */
void sim_pieces_send(struct sim_packet *end, uint32_t total);
/* The end's process or adapter stops: what it still had to take from memory is taken now, or lost. */
void sim_end_stop(struct sim_link *l, int e);
/* Tells the other end. */
void sim_end_notify(struct sim_link *l, int e, enum fabric_down reason, uint64_t delay_ns);
struct sim_fabric *sim_net_find(struct sim_net *net, uint32_t host, uint16_t port);

/* ---- fabric_sim.c ---- */
/* Puts p into the inbox of f and wakes its process. */
void sim_inbox_put(struct sim_fabric *f, struct sim_packet *p);

#endif
