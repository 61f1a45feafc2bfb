/*
 * fabric_provider.h: what a provider (tcp, sim, verbs) gives the core, and what the core does for all of
 * them. Only files in rdma/ include this.
 *
 * The core owns connections' states, the handshake, credits, software queues and completions. A provider
 * moves bytes. Its conn and listener structs begin with the core's; the core allocates them with the sizes in
 * the table.
 *
 * An op that the core handed to a provider is always in a list: the provider's own (its shut moves what is
 * left to conn->active), or conn->active. The provider ends it with fabric_core_op_done.
 *
 * Handshake: connector's hello, listener's hello (both are connection manager private data on verbs), then
 * the connector's auth message, then the listener's. What happens when: fabric_core_hello and
 * fabric_core_auth.
 */
#ifndef CISTERN_RDMA_FABRIC_PROVIDER_H
#define CISTERN_RDMA_FABRIC_PROVIDER_H

#include "rdma/fabric.h"
#include "common/loop.h"
#include "rdma/slots.h"

enum fabric_control_kind {
    FABRIC_CONTROL_HELLO = 1, /* struct fabric_hello; verbs: the private data of rdma_connect, rdma_accept */
    FABRIC_CONTROL_AUTH,      /* struct fabric_auth; verbs: the first message */
    FABRIC_CONTROL_REFUSE, /* uint32_t little-endian reason, best effort, just before shut; verbs: rdma_reject
                              or a message */
};

/* Second half of the handshake. The code covers direction, both hellos and the two numbers. */
struct fabric_auth {
    uint8_t mac[32];
    uint32_t recv_messages; /* lent to the receiver of this */
    uint32_t beat_ms;       /* the sender of this wants to hear something at least so often */
};
_Static_assert(sizeof(struct fabric_auth) == 40, "fabric_auth is 40 bytes on the wire");

/* op->state */
enum {
    OP_SENT = 1,           /* the provider needs neither header nor streamed source any more */
    OP_EXPOSED = 2,        /* a SEND that is done only after fabric_retire */
    OP_RETIRED = 4,        /* fabric_retire was called */
    OP_BUSY = 8,           /* bytes are being moved into or out of the exposed memory right now */
    OP_DONE = 16,          /* in fabric->done: progress holds -rc */
    OP_HELD = 32,          /* held up by the fault layer */
    OP_WINDOWED = 64,      /* counts in conn->reads_out */
    OP_SOURCE_ENDED = 128, /* sim: a message of the peer ended it */
    OP_SINK_ENDED = 256,
};
/*
 * Totals are computed once, in fields that the kind does not use otherwise: of a SEND the source's length is
 * in remote.len and the sink's in remote.key; of the other kinds the length is in header_len.
 */
static inline uint32_t op_source_len(const struct fabric_op *op)
{
    return op->remote.len;
}
static inline uint32_t op_sink_len(const struct fabric_op *op)
{
    return op->remote.key;
}
static inline uint32_t op_len(const struct fabric_op *op)
{
    return op->header_len;
}

struct fabric_ops {
    const char *name;
    enum fabric_provider_kind kind;
    size_t conn_size, listener_size;
    /* The transport itself holds senders back (a socket that is full): no credits are counted. */
    bool flow_controlled;
    bool fetch_is_read; /* FETCH counts in the window of outstanding reads */
    uint32_t
        read_window; /* outstanding READs of a connection; more wait in software and block nothing else */
    /* Messages to lend to a new connection, 2 at least, 0: there is no room for it. The provider may lend
     * more later, and take some back (rx_lent, rx_owed). NULL: config.recv_messages. */
    uint32_t (*lend)(struct fabric_conn *conn);

    /* Starts to connect; conn->hello_mine is ready. Later fabric_core_hello or fabric_core_fail. */
    int (*connect)(struct fabric_conn *conn, const struct fabric_addr *addr);
    int (*listen)(struct fabric_listener *l, const struct fabric_addr *addr); /* sets l->addr */
    void (*unlisten)(struct fabric_listener *l);
    /* mem is filled but for remote_addr, priv; the key is the core's proposal. NULL: nothing to do. */
    int (*mem_register)(struct fabric_mem *mem);
    /* Connections that are using the memory for a peer right now are failed. */
    void (*mem_unregister)(struct fabric_mem *mem);
    /* See fabric_mem_key. NULL: mem->key. */
    uint32_t (*mem_key)(const struct fabric_mem *mem, const struct fabric_conn *conn);
    void (*control)(struct fabric_conn *conn, enum fabric_control_kind kind, const void *data, uint32_t len);
    /* op is validated, has its credit. 0, or -EINVAL/-ENOMEM: not taken. Runs no callbacks. */
    int (*post)(struct fabric_conn *conn, struct fabric_op *op);
    /* op has OP_RETIRED now: end it as soon as nothing uses its memory. */
    void (*retire)(struct fabric_conn *conn, struct fabric_op *op);
    void (*drop)(struct fabric_conn *conn, const struct fabric_remote *source);
    /* Gives conn->rx_owed credits back to the peer (not called when flow_controlled). */
    void (*credit)(struct fabric_conn *conn);
    /* Ends the transport at once: from now on the provider calls nothing for this connection. Leaves its ops
     * in conn->active. polite: the peer is to see "closed" (else it is told nothing but the end).
     * A provider that must first say good-bye sets conn->lingering: the ops end, and down is told, when it
     * calls fabric_core_gone, within a bounded time. */
    void (*shut)(struct fabric_conn *conn, bool polite);
    /* The connection lingers and must be gone now; fabric_core_gone is not called. NULL: never lingers. */
    void (*cut)(struct fabric_conn *conn);
    void (*conn_free)(struct fabric_conn *conn); /* the provider's memory in it; shut has run. May be NULL. */
    /* Everything of the provider's in f, including f; no callbacks. Connections are shut already. */
    void (*destroy)(struct fabric *f);
};

enum fabric_conn_state { CONN_HELLO, CONN_AUTH, CONN_UP, CONN_DOWN };
struct fabric_conn {
    struct fabric *fabric;
    struct list link;                 /* in fabric->conns */
    struct list attention;            /* in fabric->attention: a down to tell, or memory to free */
    struct list unproved;             /* in fabric->unproved, oldest first: a stranger that is not down */
    struct fabric_listener *listener; /* on the listening side, until up */
    const struct fabric_conn_events *events;
    void *user;
    struct fabric_peer peer;
    struct fabric_hello hello_mine, hello_peer;
    struct loop_timer deadline; /* of the handshake */
    enum fabric_conn_state state;
    enum fabric_down reason;
    bool initiator, closed, down_owed;
    bool stranger;    /* counts in conns_unproved */
    bool lingering;   /* down, but the provider still uses the memory of the ops in active */
    bool nobody;      /* the peer's kernel said that nobody listens there */
    bool early;       /* sim: the peer has proved itself, this process just has not looked yet */
    uint32_t pending; /* ops taken whose done has not run */
    uint32_t beat_ms; /* the peer wants to hear something that often; from its auth */
    uint32_t tx_credits, rx_owed, reads_out;
    uint32_t rx_lent;    /* messages that the peer may have in flight */
    struct list waiting; /* SEND, PUSH, WRITE that wait for credits, in order */
    struct list reads;   /* READ (and FETCH) that wait for the window */
    struct list active;
    uint64_t serial; /* counts connections of this fabric */
};
struct fabric_listener {
    struct fabric *fabric;
    struct list link;
    struct fabric_accept accept;
    struct fabric_addr addr;
};
/* What fabric_mem_register gives out is inside. */
struct fabric_region {
    struct list link; /* in fabric->mems */
    struct fabric_mem mem;
};
struct fabric {
    const struct fabric_ops *ops; /* the top layer's */
    void *layer;                  /* the fault layer's state, see fabric_fault.c */
    struct env *env;
    struct fabric_config config;
    struct uuid cluster;
    uint16_t version_min, version_max; /* FABRIC_VERSION_*; tests change them */
    struct list conns, listeners, mems, unproved;
    struct list done;      /* ops whose done is to run */
    struct list attention; /* conns */
    struct loop_task task;
    bool running;
    uint32_t conn_count;
    uint64_t conn_serial, mem_serial;
    struct fabric_counters counters;
};

/* ---- for providers ---- */
/* Fills defaults; -EINVAL for a config that makes no sense. */
int fabric_core_init(struct fabric *f, const struct fabric_ops *ops, struct env *env,
                     const struct fabric_config *config);
/*
 * An incoming connection: NULL when over a limit or out of memory (counted). It has until connect_timeout_ns
 * to prove itself; when strangers are many, a small part of that, then a newer one takes its place.
 */
struct fabric_conn *fabric_core_incoming(struct fabric_listener *l, const struct fabric_addr *from);
/* It counts among the connections whose peer is known from now on. */
void fabric_core_proved(struct fabric_conn *conn);
void fabric_core_count_down(struct fabric *f, enum fabric_down reason);
/* The peer's hello came: checks it; the listening side answers its own through control, the connecting side
 * its auth. */
void fabric_core_hello(struct fabric_conn *conn, const struct fabric_hello *hello);
/* The peer's auth came: checks it; the connection goes up (callbacks run), or down. */
void fabric_core_auth(struct fabric_conn *conn, const struct fabric_auth *auth);
/* Delivers: false when the connection is no longer up after it (the callback closed it). */
bool fabric_core_message(struct fabric_conn *conn, const struct fabric_msg *msg);
/* The peer gave credits back. */
void fabric_core_credits(struct fabric_conn *conn, uint32_t n);
/* The connection ends (idempotent): shut, pending ops end with -ENOTCONN, down is told later, from the loop.
 */
void fabric_core_fail(struct fabric_conn *conn, enum fabric_down reason);
/* A connection that lingered is gone: nothing uses the memory of its ops. */
void fabric_core_gone(struct fabric_conn *conn);
/* Like fabric_core_fail, telling the peer why. */
void fabric_core_refuse(struct fabric_conn *conn, enum fabric_down reason);
/* rc 0 or -errno: done runs later. Takes op out of its list. */
void fabric_core_op_done(struct fabric_op *op, int rc);
/* Whether an exposed SEND may end: it is sent, retired and not busy. */
static inline bool fabric_core_op_settled(const struct fabric_op *op)
{
    return (op->state & (OP_SENT | OP_RETIRED | OP_BUSY | OP_DONE)) == (OP_SENT | OP_RETIRED);
}
/* Runs the dones and downs that are due. Top level only: from a flush or a task. */
void fabric_core_run(struct fabric *f);
/* The memory that a peer's one-sided operation on conn names, or NULL: wrong key, bounds, right or domain. */
struct fabric_mem *fabric_core_mem_check(const struct fabric_conn *conn, uint64_t addr, uint32_t key,
                                         uint32_t len, unsigned access, void **at);
/* A copy of len bytes to or from a CPU's view that does not tear 8 aligned bytes. */
void fabric_copy(void *to, const void *from, size_t len);
uint32_t fabric_sge_total(const struct fabric_sge *sge, unsigned count, bool *ok);

/* fabric_auth.c: HMAC-SHA256 of direction (0 from connector, 1 from listener), both hellos, a->recv_messages
 * and a->beat_ms. */
void fabric_auth_sign(const struct fabric_config *config, uint8_t direction,
                      const struct fabric_hello *connector, const struct fabric_hello *listener,
                      struct fabric_auth *a);
/* In constant time. */
bool fabric_auth_verify(const struct fabric_config *config, uint8_t direction,
                        const struct fabric_hello *connector, const struct fabric_hello *listener,
                        const struct fabric_auth *a);

#endif
