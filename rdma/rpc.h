/*
 * rpc.h: requests and replies over one fabric connection; both ends may call and serve.
 *
 * A message is struct rpc_header then a body: a fixed little-endian struct on the data path, a msgpack map
 * for control. A request may expose a source (its payload, e.g. data to write) and a sink (where the reply's
 * payload goes, e.g. data read). One table per protocol (common/wire/<protocol>.def) gives number, name and
 * handler; numbers are never reused.
 *
 * A provider that streams holds back all messages behind a request's payload until the payload is fetched or
 * the request is answered. So where both ends call each other, each uses a connection of its own for its
 * requests: then no reply ever waits behind a request of the other side.
 */
#ifndef CISTERN_RDMA_RPC_H
#define CISTERN_RDMA_RPC_H

#include "rdma/fabric.h"
#include "common/status.h"
#include "common/loop.h"

#define RPC_MAGIC 0x4352u /* "RC" */
enum { RPC_REQUEST = 1, RPC_REPLY = 2, RPC_NOTIFY = 3 };
struct rpc_header { /* 32 bytes, little-endian */
    uint16_t magic;
    uint8_t kind;
    uint8_t version;
    uint16_t method;
    uint16_t flags;
    uint64_t xid;
    uint32_t status;      /* replies: enum status */
    uint32_t body_len;    /* after this header */
    uint32_t payload_len; /* of the source (requests), of what was pushed into the sink (replies) */
    uint32_t payload_crc; /* CRC32C of it */
};
_Static_assert(sizeof(struct rpc_header) == 32, "rpc_header is 32 bytes");
#define RPC_VERSION 1u
#define RPC_WINDOW                                                                                           \
    1024u /* requests of one side of a connection that are not answered yet; a peer that sends more is cut   \
             off */
#define RPC_BODY_MAX (FABRIC_MESSAGE_MAX - sizeof(struct rpc_header))

struct rpc_peer;    /* one connection with rpc on it */
struct rpc_request; /* server side: one request being served */

/* ---- serving ---- */
struct rpc_method {
    uint16_t number;
    const char *name;
    /* body is valid until the handler returns. The handler must, some time, call rpc_reply once (requests).
     */
    void (*handler)(void *service, struct rpc_request *req, const void *body, uint32_t body_len);
    uint32_t body_min; /* shorter bodies are refused with INVALID before the handler */
};
struct rpc_events {
    void (*up)(void *service, struct rpc_peer *peer); /* may be NULL */
    /* The connection is gone. rpc_requests of it stay valid until replied (the reply goes nowhere). All calls
     * have ended with -ENOTCONN (their done has run). The peer object is freed after this returns and all its
     * requests have ended. */
    void (*down)(void *service, struct rpc_peer *peer, enum fabric_down reason); /* may be NULL */
    /* A notify message from the peer. May be NULL: ignored. */
    void (*notify)(void *service, struct rpc_peer *peer, uint16_t method, const void *body,
                   uint32_t body_len);
};
struct rpc_service {
    const struct rpc_method *methods; /* sorted by number */
    size_t method_count;
    const struct rpc_events *events;
    void *service;
    uint32_t max_requests; /* being served at once over all connections of this service; more are held back; 0
                              = 1024 */
    /* Fills in what the service tells of itself, beside its fabric and loop, for RPC_METHOD_FIGURES. May be
     * NULL. */
    void (*figures)(void *service, struct metrics_snapshot *out);
};
/*
 * Methods that every service answers by itself, whatever its table: for the operator's tools. A connection
 * with the role ADMIN is taken even where allow_roles lacks it, for these alone: the service hears nothing of
 * it.
 */
enum {
    RPC_METHOD_FIGURES = 0xfffd,  /* struct rpc_figures; reply: the same, then metrics_lines from there on */
    RPC_METHOD_COUNTERS = 0xfffe, /* reply: fabric_counters_text */
    RPC_METHOD_PING = 0xffff,     /* reply: the request's body */
};
struct rpc_figures { /* little-endian */
    uint32_t after;  /* request: 0 at first, then the reply's; reply: 0 at the end */
};
/* Accepts rpc connections on addr. allow_roles: bit mask of 1 << enum fabric_role. The listener keeps a copy
 * of *service. */
struct rpc_listener;
int rpc_listen(struct env *env, const struct fabric_addr *addr, const struct rpc_service *service,
               uint32_t allow_roles, struct rpc_listener **out);
void rpc_listener_addr(const struct rpc_listener *l, struct fabric_addr *out);
/* Closes the listener and all its connections; calls no events; requests not yet replied are freed by their
 * rpc_reply, or by fabric_destroy + rpc_listener_destroy when the process is being torn down (abandon = true
 * frees them now). */
void rpc_listener_destroy(struct rpc_listener *l, bool abandon);

struct rpc_peer *rpc_request_peer(const struct rpc_request *req);
/* False once the connection it came on is gone: nobody will see the reply. */
bool rpc_request_alive(const struct rpc_request *req);
uint32_t rpc_request_payload_len(const struct rpc_request *req);
uint32_t rpc_request_payload_crc(const struct rpc_request *req);
uint32_t rpc_request_sink_len(const struct rpc_request *req);
/* Brings the request's payload into sge (the sges' total length = payload_len; the array is copied) and
 * checks its CRC: done(arg, 0), -EBADMSG when the CRC differs, -ENOTCONN when the connection is gone. At most
 * once per request. A request with payload that is replied to without a fetch has its payload dropped. 0 or
 * -EINVAL. */
int rpc_request_fetch(struct rpc_request *req, const struct fabric_sge *sge, unsigned count,
                      void (*done)(void *arg, int rc), void *arg);
/* Replies: body is copied (<= RPC_BODY_MAX); the payload (may be NULL/0) is pushed into the sink, crc is of
 * the payload. sent (may be NULL) runs once, later, when the payload's memory may be reused. req is gone
 * after this call. */
void rpc_reply(struct rpc_request *req, uint32_t status, const void *body, uint32_t body_len);
void rpc_reply_payload(struct rpc_request *req, uint32_t status, const void *body, uint32_t body_len,
                       const struct fabric_sge *sge, unsigned count, uint32_t payload_crc,
                       void (*sent)(void *arg), void *arg);
/* Free for the service's use (e.g. its per-request object), NULL at first. */
void *rpc_request_user(const struct rpc_request *req);
void rpc_request_set_user(struct rpc_request *req, void *user);

/* ---- calling ---- */
/*
 * service may be NULL (this end serves nothing, and hears no events); it is copied. 0: up or down will
 * follow. A peer whose service has a down event goes by itself after it (rpc_close in it or before is fine,
 * later is not); one without stays, down, until rpc_close.
 */
int rpc_connect(struct env *env, const struct fabric_addr *addr, enum fabric_domain domain,
                const struct rpc_service *service, struct rpc_peer **out);
/* Ends the connection; calls end with -ENOTCONN (their done still runs), no further events; frees the peer in
 * time. */
void rpc_close(struct rpc_peer *peer);
/* For destroy paths, in any state (the loop and the fabric may live on): frees at once, runs no callbacks;
 * its calls and the ops that were posted on its connection end without done (fabric_abandon). Also from
 * within the peer's own callbacks. */
void rpc_abandon(struct rpc_peer *peer);
bool rpc_peer_is_up(const struct rpc_peer *peer);
const struct fabric_peer *rpc_peer_info(const struct rpc_peer *peer);
struct fabric_conn *rpc_peer_conn(const struct rpc_peer *peer);
/* In the down event: fabric_conn_nobody. */
bool rpc_peer_nobody(const struct rpc_peer *peer);
void *rpc_peer_user(const struct rpc_peer *peer);
void rpc_peer_set_user(struct rpc_peer *peer, void *user);

struct rpc_result {
    int rc; /* 0: a reply came; -ENOTCONN: connection lost, outcome unknown; -ETIMEDOUT; -ECANCELED */
    uint32_t status;  /* of the reply, when rc = 0 */
    const void *body; /* valid during the callback */
    uint32_t body_len;
    uint32_t payload_len; /* bytes that came into the sink; already checked to be <= its size */
    uint32_t payload_crc; /* as the sender says: the caller checks it over its sink */
};
/* Embedded in the caller's object. Fill the first part, zero the rest. */
struct rpc_call {
    uint16_t method;
    const void *body; /* copied by rpc_call_start */
    uint32_t body_len;
    const struct fabric_sge *source; /* arrays and memory stay the rpc's until done */
    unsigned source_count;
    uint32_t source_crc;
    const struct fabric_sge *sink;
    unsigned sink_count;
    uint64_t timeout_ns; /* 0 = none. Only for calls without source and sink (-EINVAL otherwise): exposed
                            memory ends with the reply or with the connection, never with a deadline */
    void (*done)(struct rpc_call *call, const struct rpc_result *result);
    /* the rpc's */
    uint64_t xid;
    struct rpc_peer *peer;
    struct list link;
    struct loop_timer timer;
    void *msg;   /* the request on its way, when this call exposes memory or waits to be sent */
    void *reply; /* holds the reply's body until the exposed memory is free */
    struct rpc_result result;
    unsigned state;
};
/*
 * 0: done runs once, later. -ENOTCONN when not up, -EINVAL for lengths out of range, -ENOMEM. A connection
 * carries RPC_WINDOW calls at once; more wait here.
 */
int rpc_call_start(struct rpc_peer *peer, struct rpc_call *call);
/* One way, no reply; copied. 0, -EINVAL, -ENOTCONN, -ENOMEM, or -EAGAIN: very many messages wait to be taken
 * by the peer. */
int rpc_notify(struct rpc_peer *peer, uint16_t method, const void *body, uint32_t body_len);

#endif
