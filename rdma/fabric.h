/*
 * fabric.h: connections, messages, bulk payloads, one-sided operations, registered memory. Read this first.
 *
 * One contract for every provider (verbs, tcp, sim), shaped by what reliable-connected RDMA can do:
 *  - Connections are reliable and ordered: messages arrive once, in order, or the connection goes down.
 *  - After "down" every pending operation ends with -ENOTCONN, exactly once, and may or may not have
 * happened.
 *  - A large payload does not travel in the message. The sender of a message names ("exposes") a source
 * and/or a sink; the receiver pulls the source with FETCH and fills the sink with PUSH. verbs does this with
 * RDMA READ and WRITE, tcp streams the bytes behind the message. What has been PUSHed before a SEND on the
 * same connection is in place when that message is delivered.
 *  - Exposed memory is the peer's until the caller retires the op (normally when the reply came) and its done
 * runs, or until the connection has gone down and done runs: no deadline ever frees it.
 *  - FABRIC_READ and FABRIC_WRITE are one-sided: the target's services do not run, the target is not told. A
 * write may land in pieces; completion at the initiator says nothing about durability. A wrong key, bound or
 * access right kills the connection. Only a READ of at most 8 naturally aligned bytes is atomic against the
 * target's CPU.
 *  - Credits: a connection has as many messages in flight as the peer lent; over it posts are queued, in
 * order. tcp counts none: the full socket holds the sender back (a credit that is returned behind a payload
 * nobody fetches yet would be out of reach). FETCH and READ never wait behind messages.
 *
 * Security: connect carries 56 bytes of private data each way (struct fabric_hello); the first message
 * exchange is a mutual HMAC-SHA256 of the cluster's secret over both hellos. Until it is done there is no
 * "up", messages are limited to the handshake's, and no remote access works.
 *
 * Thread: everything on the loop's thread. Callbacks never run inside the call that caused them.
 */
#ifndef CISTERN_RDMA_FABRIC_H
#define CISTERN_RDMA_FABRIC_H

#include "common/base.h"
#include "common/env.h"
#include "common/list.h"

#define FABRIC_MESSAGE_MAX 8192u /* bytes of one message (header); larger things travel as payload */
#define FABRIC_SGE_MAX                                                                                       \
    40u /* pieces of one exposed source or sink, FETCH, PUSH, READ, WRITE; a provider may split */
#define FABRIC_PAYLOAD_MAX (4u * 1024u * 1024u)

struct fabric;
struct metrics_group;
struct metrics_snapshot;
struct fabric_conn;
struct fabric_listener;

/* ---- addresses: "tcp:127.0.0.1:7100", "tcp:[::1]:7100", "rdma:10.0.0.1:7100", "sim:3:7100" ---- */
enum fabric_provider_kind {
    FABRIC_PROVIDER_NONE = 0,
    FABRIC_PROVIDER_TCP = 1,
    FABRIC_PROVIDER_VERBS = 2,
    FABRIC_PROVIDER_SIM = 3
};
/* 24 bytes, goes into tables as it is. */
struct fabric_addr {
    uint8_t provider; /* enum fabric_provider_kind */
    uint8_t family;   /* 4, 6; 0 for sim */
    uint16_t port;    /* little-endian in tables */
    uint32_t reserved;
    uint8_t ip[16]; /* network order; sim: host number in the first 4 bytes, little-endian */
};
_Static_assert(sizeof(struct fabric_addr) == 24, "fabric_addr is 24 bytes");
/* Numeric addresses only, no name resolution. 0 or -EINVAL. */
int fabric_addr_parse(const char *text, struct fabric_addr *out);
/* out holds at least 64 bytes; returns out. */
const char *fabric_addr_format(const struct fabric_addr *addr, char *out);
static inline bool fabric_addr_eq(const struct fabric_addr *a, const struct fabric_addr *b)
{
    return __builtin_memcmp(a, b, sizeof(*a)) == 0;
}

/* ---- who is who ---- */
enum fabric_role {
    FABRIC_ROLE_NONE = 0,
    FABRIC_ROLE_MDC = 1,
    FABRIC_ROLE_MODULE = 2,
    FABRIC_ROLE_VBS = 3,
    FABRIC_ROLE_CLIENT = 4,
    FABRIC_ROLE_ADMIN = 5
};
/* Protection domain of a connection, asked for by the connector, granted by the listener. */
enum fabric_domain {
    FABRIC_DOMAIN_HOST = 1,    /* hosts: exposed payloads only, never one-sided operations */
    FABRIC_DOMAIN_CLUSTER = 2, /* between services */
    FABRIC_DOMAIN_TABLE = 3,   /* may READ memory registered in this domain, nothing else one-sided */
};
#define FABRIC_HELLO_MAGIC 0x46534943u /* "CISF" */
#define FABRIC_VERSION_MIN 1u
#define FABRIC_VERSION_MAX 1u
/* Connection manager private data, little-endian. */
struct fabric_hello {
    uint32_t magic;
    uint16_t version_min, version_max;
    struct uuid cluster;
    uint8_t role;
    uint8_t domain;
    uint16_t reserved;
    uint32_t service_id;  /* module id, or 0 */
    uint64_t incarnation; /* of the process: random, new at each start */
    uint8_t nonce[16];    /* new for each connection */
};
_Static_assert(sizeof(struct fabric_hello) == 56,
               "librdmacm gives 56 bytes of private data (rdma_connect(3), RC over InfiniBand)");

struct fabric_config {
    struct uuid cluster; /* all zero: learn it from the first MDC (tools); any cluster is accepted, the secret
                            decides */
    uint8_t secret[64];
    size_t secret_len;
    enum fabric_role role;
    uint32_t service_id;
    uint64_t incarnation;
    uint32_t recv_messages;      /* messages lent to one connection; 0 = default 64 */
    uint64_t connect_timeout_ns; /* handshake included; 0 = default 5 s */
    uint64_t probe_interval_ns;  /* idle connections are probed; 0 = default 0.25 s */
    uint64_t probe_timeout_ns;   /* no sign of life for so long: down; 0 = default 1.2 s */
    uint32_t max_connections;    /* 0 = default 4096 */
    uint32_t max_unproved; /* taken from listeners, the peer not yet proved: they have a limit of their own,
                              so that strangers cannot keep members out; 0 = default 256 */
    /* verbs: the address of this host whose device is used, and from which connections go out (its port does
     * not matter); all zero, or an unspecified address: each connection uses the device that the route to its
     * peer, or the address that it came to, says. */
    struct fabric_addr local;
};

/* What is known of the peer once a connection is up. */
struct fabric_peer {
    enum fabric_role role;
    enum fabric_domain domain;
    uint32_t service_id;
    uint64_t incarnation;
    uint16_t version; /* negotiated */
    struct uuid cluster;
    struct fabric_addr addr;
};

/* ---- registered memory ---- */
enum { FABRIC_ACCESS_LOCAL = 0, FABRIC_ACCESS_REMOTE_READ = 1, FABRIC_ACCESS_REMOTE_WRITE = 2 };
struct fabric_mem {
    struct fabric *fabric;
    void *base;
    size_t len;
    unsigned access;
    uint64_t remote_addr; /* what a peer names with key */
    uint32_t key;         /* for READ and WRITE by the peer; 0 when access is local */
    uint32_t domain;
    void *priv;
};
/* base must stay mapped until unregistered. Local-only memory can be used on every domain. 0 or -errno. */
int fabric_mem_register(struct fabric *f, enum fabric_domain domain, void *base, size_t len, unsigned access,
                        struct fabric_mem **out);
void fabric_mem_unregister(struct fabric_mem *mem);
/* The key for the peer of conn, and for whoever reaches this host through the same device: where there are
 * several devices each has its own. conn and mem are of one fabric. */
uint32_t fabric_mem_key(const struct fabric_mem *mem, const struct fabric_conn *conn);

/* A piece of registered memory. */
struct fabric_sge {
    void *base;
    uint32_t len;
    struct fabric_mem *mem; /* may be NULL on tcp and sim */
};
/* Memory at the peer: from a message (exposed source or sink: opaque), or (addr, key) learnt from a table
 * descriptor. */
struct fabric_remote {
    uint64_t addr;
    uint32_t len; /* 0 = none */
    uint32_t key;
    uint32_t flags; /* the provider's; 0 for memory learnt from a table descriptor */
};

/* ---- operations ---- */
enum fabric_op_kind {
    FABRIC_OP_SEND,  /* a message; header must stay valid until done */
    FABRIC_OP_FETCH, /* pull the source that a received message exposes into sge (total length <= remote.len)
                      */
    FABRIC_OP_PUSH,  /* fill the sink that a received message exposes, from offset remote_offset, from sge */
    FABRIC_OP_READ,  /* one-sided, remote by addr and key */
    FABRIC_OP_WRITE,
};
/* Embedded in the caller's object; the fabric's from fabric_post until done. */
struct fabric_op {
    enum fabric_op_kind kind;
    unsigned sge_count, sink_count;
    const void *header; /* SEND */
    uint32_t header_len;
    uint32_t remote_offset; /* PUSH */
    const struct fabric_sge
        *sge; /* SEND: exposed source; others: local memory. The array stays valid until done. */
    const struct fabric_sge *sink; /* SEND: exposed sink */
    struct fabric_remote remote;   /* FETCH, PUSH, READ, WRITE */
    /*
     * SEND: what the peer exposed and this message ends, len 0 = nothing. The peer's device takes its key
     * back as the message arrives, where it can (verbs: SEND with invalidate), which saves the peer a work
     * request, a completion and perhaps a wake-up when it retires. Nothing may be FETCHed from it or PUSHed
     * to it behind this message, nor may it be ended again: either kills the connection.
     */
    struct fabric_remote ends;
    /*
     * rc 0: header/sge may be reused (SEND without exposure: handed over, not delivered). A SEND that exposes
     * memory is done only after fabric_retire, or with -ENOTCONN after down. May be NULL for a SEND without
     * exposure whose header is static.
     */
    void (*done)(struct fabric_op *op, int rc);
    /* the provider's */
    struct list link;
    struct fabric_conn *conn;
    uint64_t id;
    uint32_t progress, state;
};
/* 0: done will run once, later. -ENOTCONN when the connection is down, -EINVAL for lengths out of range or a
 * source that is not there to be fetched, -ENOMEM: done never runs. */
int fabric_post(struct fabric_conn *conn, struct fabric_op *op);
/* Ends the exposure of a posted SEND: done runs (later) once the fabric and the peer no longer use its
 * memory. Once per op. */
void fabric_retire(struct fabric_op *op);
/* The receiver will not FETCH this exposed source. Each exposed source must be fetched (once, possibly
 * shorter) or dropped; until then a provider that streams holds back the later messages of that connection.
 */
void fabric_drop(struct fabric_conn *conn, const struct fabric_remote *source);

/* ---- connections ---- */
struct fabric_msg {
    const void *data; /* valid until the callback returns */
    uint32_t len;
    struct fabric_remote source; /* exposed by the sender, len 0 = none */
    struct fabric_remote sink;
};
/*
 * PEER_CLOSED and PEER_DIED of a connection that was up are definite: the process said so, or the kernel of
 * its host did (a reset, the end of the stream, a disconnect of the connection manager). Silence, missing
 * acknowledgements and trouble at this end have other reasons: whoever takes a peer for dead relies on it.
 */
enum fabric_down {
    FABRIC_DOWN_PEER_CLOSED = 1,
    FABRIC_DOWN_PEER_DIED,
    FABRIC_DOWN_TIMEOUT,
    FABRIC_DOWN_REFUSED,
    FABRIC_DOWN_PROTOCOL,
    FABRIC_DOWN_AUTH,
    FABRIC_DOWN_CLUSTER,
    FABRIC_DOWN_VERSION,
    FABRIC_DOWN_ACCESS,
    FABRIC_DOWN_UNREACHABLE
};
const char *fabric_down_text(enum fabric_down reason);
struct fabric_conn_events {
    void (*up)(struct fabric_conn *conn, const struct fabric_peer *peer);
    void (*message)(struct fabric_conn *conn, const struct fabric_msg *msg);
    /* Once, also when the connection never came up. Pending ops' done have run or will run, all before the
     * memory of the connection goes. The owner calls fabric_close some time after. */
    void (*down)(struct fabric_conn *conn, enum fabric_down reason);
};
/* 0: up or down will follow. addr must be of the fabric's provider. */
int fabric_connect(struct fabric *f, const struct fabric_addr *addr, enum fabric_domain domain,
                   const struct fabric_conn_events *events, void *user, struct fabric_conn **out);
/* accept: called when a connection is up (authenticated): return its events and user, or NULL to refuse.
 * events->up is called next. addr port 0 picks one: fabric_listener_addr tells. */
struct fabric_accept {
    const struct fabric_conn_events *(*accept)(void *user, const struct fabric_peer *peer, void **conn_user);
    void *user;
};
int fabric_listen(struct fabric *f, const struct fabric_addr *addr, const struct fabric_accept *accept,
                  struct fabric_listener **out);
void fabric_listener_addr(const struct fabric_listener *l, struct fabric_addr *out);
void fabric_unlisten(struct fabric_listener *l);
/* No more events of this connection; pending ops end with -ENOTCONN (their done still runs, later, on the
 * loop); then its memory goes. The peer sees down. */
void fabric_close(struct fabric_conn *conn);
/* For destroy paths, in any state: frees the connection at once, runs no callbacks; done of its pending ops
 * never runs, and when this returns nothing touches their memory. */
void fabric_abandon(struct fabric_conn *conn);
/* The peer broke the protocol of the layer above: the connection ends, the peer is told why, down follows
 * with this reason. */
void fabric_kill(struct fabric_conn *conn, enum fabric_down reason);
void *fabric_conn_user(const struct fabric_conn *conn);
void fabric_conn_set_user(struct fabric_conn *conn, void *user);
const struct fabric_peer *fabric_conn_peer(const struct fabric_conn *conn);
bool fabric_conn_is_up(const struct fabric_conn *conn);
/* After a down with FABRIC_DOWN_REFUSED: not a process refused, but its kernel (tcp: a reset; verbs: the
 * connection manager's "invalid service id") knew of nobody who listens there. */
bool fabric_conn_nobody(const struct fabric_conn *conn);

/* ---- endpoints ---- */
/* env->loop and env->rng are used; env->fabric is not. */
int fabric_create_tcp(struct env *env, const struct fabric_config *config, struct fabric **out);
/* On libibverbs and librdmacm; "rdma:" addresses. -ENODEV: this host has no RDMA device, or config->local is
 * not the address of one. */
int fabric_create_verbs(struct env *env, const struct fabric_config *config, struct fabric **out);
/* The endpoint for addresses of that provider (a process speaks one). -EPROTONOSUPPORT for sim and none. */
int fabric_create(struct env *env, enum fabric_provider_kind kind, const struct fabric_config *config,
                  struct fabric **out);
/* Legal at any time but in a callback of it: frees everything, runs no callbacks; ops, registered memory and
 * conns of it are gone. The memory of ops that are still pending is valid until this returns: their owners
 * are destroyed afterwards, or have closed or abandoned their connections before. Needs the loop (also a
 * killed one). */
void fabric_destroy(struct fabric *f);
const struct fabric_config *fabric_config_get(const struct fabric *f);
/* Learnt cluster id (config.cluster, or the first peer's when that was zero). */
struct uuid fabric_cluster(const struct fabric *f);
/* For metrics and tests; their meaning: fabric_counters.def. */
struct fabric_counters {
#define FABRIC_COUNTER(name, kind, text) uint64_t name;
#include "rdma/fabric_counters.def"
#undef FABRIC_COUNTER
};
void fabric_counters_get(const struct fabric *f, struct fabric_counters *out);
/* "At rest equal at start": the name of a live thing whose number differs; NULL: none does. */
const char *fabric_counters_differ(const struct fabric_counters *a, const struct fabric_counters *b);
/* The same, and the loop's rounds and sleeps, as lines of "name value", whole lines that fit room (above 0),
 * NUL-terminated. Returns the length. */
size_t fabric_counters_text(const struct fabric *f, char *out, size_t room);
/* Adds them and the loop's to the snapshot; f may be NULL. */
void fabric_metrics(const struct fabric *f, struct loop *loop, struct metrics_snapshot *out);
extern const struct metrics_group fabric_metrics_group;

#endif
