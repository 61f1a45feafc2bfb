/*
 * rpc_internal.h: what the files of rpc share: rpc.c (connections, messages), rpc_call.c (calling),
 * rpc_serve.c (serving).
 *
 * A peer goes when it is gone (closed, or down was told), and nothing of it is pending: calls, requests,
 * messages, callbacks on the stack.
 */
#ifndef CISTERN_RDMA_RPC_INTERNAL_H
#define CISTERN_RDMA_RPC_INTERNAL_H

#include "rdma/rpc.h"
#include "rdma/slots.h"

#define RPC_SMALL_BYTES 512u /* most messages */
#define RPC_SMALL_KEPT  64u  /* free buffers that a peer keeps */
#define RPC_LARGE_KEPT  4u
/* Messages that wait to be taken by the peer. Replies to a whole window and as much again for notifies and
 * what is done but not told; a peer that sends and never reads is cut off. */
#define RPC_MSGS_MAX (4u * RPC_WINDOW)

/* A message on its way out, or the copy of a body. */
struct rpc_msg {
    struct list link; /* peer->msgs, or a list of free ones */
    struct rpc_peer *peer;
    struct rpc_call *call; /* whose memory it exposes */
    struct fabric_op op;
    uint32_t room;
    _Alignas(16) unsigned char bytes[];
};

/* The serving side of a listener or of one connection. */
struct rpc_server {
    struct env *env;
    struct rpc_service service;
    uint32_t refs, busy;
    struct list held; /* requests not yet given to their handlers */
    struct list free; /* rpc_requests */
    struct loop_task task;
};

struct rpc_peer {
    struct env *env;
    struct fabric_conn *conn;  /* NULL once down or closed */
    struct rpc_server *server; /* NULL: serves nothing */
    struct list link;          /* in the listener's peers */
    struct fabric_peer info;
    void *user;
    bool outgoing, up, gone, no_events, freed_on_release;
    bool nobody;     /* the end of its connection: nobody listens there */
    bool house_only; /* gets the methods that every service has, and no others */
    unsigned holds;  /* callbacks on the stack */
    /* calling */
    struct slots slots;
    struct list calls;   /* sent */
    struct list waiting; /* over the window */
    struct list ending;  /* to be told -ENOTCONN from the task */
    uint32_t call_count;
    /* serving */
    struct list requests; /* not replied, or with an op under way */
    struct list orphans;  /* rpc_requests with a callback due from the task */
    uint32_t request_count, unanswered;
    /* messages */
    struct list msgs, free_small, free_large;
    uint32_t msg_count, small_kept, large_kept;
    struct loop_task task;
};

struct rpc_request {
    struct list link;        /* peer->requests */
    struct list server_link; /* server->held, server->free */
    struct list orphan_link; /* peer->orphans */
    struct rpc_peer *peer;
    uint64_t xid;
    uint16_t method;
    uint32_t payload_crc;
    struct fabric_remote source, sink;
    void *user;
    bool replied, fetch_used, fetch_busy, push_busy;
    bool fetch_due, sent_due; /* orphaned callbacks */
    struct rpc_msg *held;     /* its body, while it is held back */
    uint32_t held_len;
    void (*fetched)(void *arg, int rc);
    void *fetched_arg;
    void (*sent)(void *arg);
    void *sent_arg;
    struct fabric_op fetch, push;
    struct fabric_sge fetch_sge[FABRIC_SGE_MAX], push_sge[FABRIC_SGE_MAX];
};

enum { CALL_IDLE = 0, CALL_WAITING, CALL_OUT, CALL_REPLIED, CALL_ENDING };

/* 0 or -EPROTO: a message whose header is not one of ours. Pure. */
int rpc_header_decode(const void *data, uint32_t len, struct rpc_header *out);

/* ---- rpc.c ---- */
/* A buffer for len bytes, in peer->msgs; NULL: no memory. */
struct rpc_msg *rpc_msg_get(struct rpc_peer *peer, uint32_t len);
void rpc_msg_put(struct rpc_msg *msg);
/* Posts it; the buffer comes back by itself. On error it has come back already. ends: what the peer exposed
 * and this message ends; may be NULL. */
int rpc_msg_send(struct rpc_msg *msg, uint32_t len, const struct fabric_remote *ends);
void rpc_peer_hold(struct rpc_peer *peer);
/* Frees the peer if it is time. */
void rpc_peer_release(struct rpc_peer *peer);
void rpc_peer_defer(struct rpc_peer *peer);
void rpc_peer_kill(struct rpc_peer *peer, enum fabric_down reason);
struct rpc_peer *rpc_peer_create(struct env *env, struct rpc_server *server);
extern const struct fabric_conn_events rpc_conn_events;

/* ---- rpc_call.c ---- */
void rpc_call_reply(struct rpc_peer *peer, const struct rpc_header *h, const void *body);
/* The op of a call that exposes memory ended. */
void rpc_call_msg_done(struct rpc_call *call, int rc);
/* The connection is gone: now true ends what can end at once, false leaves it to the task. */
void rpc_calls_lost(struct rpc_peer *peer, bool now);
void rpc_calls_run_ending(struct rpc_peer *peer);
void rpc_calls_forget(struct rpc_peer *peer);

/* ---- rpc_serve.c ---- */
int rpc_server_create(struct env *env, const struct rpc_service *service, struct rpc_server **out);
void rpc_server_put(struct rpc_server *server);
void rpc_serve_request(struct rpc_peer *peer, const struct rpc_header *h, const void *body,
                       const struct fabric_msg *m);
void rpc_serve_run_orphans(struct rpc_peer *peer);
/* The connection is gone: what was not given to a handler is forgotten. */
void rpc_serve_lost(struct rpc_peer *peer);
void rpc_serve_forget(struct rpc_peer *peer);

#endif
