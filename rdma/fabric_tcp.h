/* fabric_tcp.h: the tcp provider's own things, shared by its three files (connections, receiving, sending).
 */
#ifndef CISTERN_RDMA_FABRIC_TCP_H
#define CISTERN_RDMA_FABRIC_TCP_H

#include "rdma/fabric_provider.h"
#include "rdma/fabric_tcp_frame.h"

#define TCP_RX_BYTES    (32u * 1024u) /* of one connection; must hold the largest frame without payload */
#define TCP_CTL_BYTES   512u
#define TCP_READ_WINDOW 64u
#define TCP_SERVED_MAX  256u /* READs of a peer that wait for the socket; more is not what our core sends */
#define TCP_READ_BURST  16   /* receives of one connection in one round */
/* Bytes of requests' payloads in one round: then they are acted upon, while the rest is on its way. */
#define TCP_FETCH_BURST (256u * 1024u)
_Static_assert(sizeof(struct tcp_frame) + FABRIC_MESSAGE_MAX <= TCP_RX_BYTES,
               "a message fits the receive buffer");
_Static_assert(TCP_SERVED_MAX >= 2 * TCP_READ_WINDOW, "our own window never kills a connection");

/* Where the payload of the frame that is coming in goes. */
enum tcp_dst {
    TCP_DST_NONE,
    TCP_DST_WAIT, /* a message's source: not yet fetched or dropped; nothing behind it is looked at */
    TCP_DST_DISCARD,
    TCP_DST_FETCH,
    TCP_DST_SINK,
    TCP_DST_READ,
    TCP_DST_MEMORY,
};

struct tcp_rx {
    uint32_t start, end;   /* bytes in buf not yet looked at */
    uint32_t payload_left; /* of the current frame, destination included */
    uint32_t dst_left;     /* bytes that still go to dst; the rest of the payload is discarded */
    enum tcp_dst dst;
    const struct fabric_sge *sge;
    unsigned sge_left;      /* pieces from sge on */
    uint32_t sge_off;       /* in the first */
    struct fabric_op *op;   /* FETCH, SINK, READ */
    struct fabric_mem *mem; /* MEMORY */
    struct fabric_sge one;  /* MEMORY */
    uint64_t source_serial; /* of the last message with a source: what remote.addr names */
    uint32_t fetched;       /* bytes of requests' payloads in this round */
    bool more;              /* the last receive filled all there was room for */
    bool dispatching;       /* the parser is on the stack */
    uint8_t *buf;
};

/* A READ of the peer that is being answered: looks like an op in the queue of what is to be sent. */
struct tcp_served {
    struct fabric_op op;
    struct fabric_sge sge;
    uint64_t id;
    struct fabric_mem *mem;
    uint64_t small; /* copy of what fits: such a READ does not tear */
};
enum { TCP_OP_SERVED = 100 }; /* op->kind of it */

struct tcp_conn {
    struct fabric_conn core;
    struct loop_fd lfd;
    struct list dirty;  /* in tcp_fabric->dirty: something to send */
    struct list resume; /* in tcp_fabric->resume: a payload has got its destination */
    struct list tx;     /* ops to send; the first may be half sent (progress) */
    struct list writes; /* WRITEs sent, not acknowledged, in order */
    struct slots slots; /* sinks and READs */
    struct tcp_rx rx;
    uint64_t last_rx_ns, last_tx_ns;
    uint32_t served; /* tcp_served in tx */
    uint32_t acks_owed;
    uint32_t ctl_len, ctl_sent;
    bool open, connecting, beat_owed, tx_blocked;
    uint8_t ctl[TCP_CTL_BYTES]; /* small frames, sent before the next op's frame */
};
struct tcp_listener {
    struct fabric_listener core;
    struct loop_fd lfd;
    struct loop_timer retry; /* out of descriptors: listen again in a while */
};
struct tcp_fabric {
    struct fabric core;
    struct loop_poller poller;
    struct list dirty, resume;
    struct list served_free;
    struct loop_timer tick;
    uint64_t tick_ns, last_tick_ns;
};

static inline struct tcp_conn *tcp_conn_of(struct fabric_conn *c)
{
    return container_of(c, struct tcp_conn, core);
}
static inline struct tcp_fabric *tcp_fabric_of(struct fabric *f)
{
    return container_of(f, struct tcp_fabric, core);
}

/* fabric_tcp_rx.c: takes what the socket has (bounded) and delivers it. The connection may be down
 * afterwards. */
void tcp_rx_readable(struct tcp_conn *tc);
/* A blocked payload has its destination now: goes on with what is buffered, then with the socket. */
void tcp_rx_resume(struct tcp_conn *tc);
int tcp_rx_fetch(struct tcp_conn *tc, struct fabric_op *op);
void tcp_rx_drop(struct tcp_conn *tc, const struct fabric_remote *source);
static inline bool tcp_rx_blocked(const struct tcp_conn *tc)
{
    return tc->rx.payload_left > 0 && tc->rx.dst == TCP_DST_WAIT;
}

/* fabric_tcp_tx.c */
void tcp_tx_dirty(struct tcp_conn *tc);
/* Sends as much as the socket takes. */
void tcp_tx_flush(struct tcp_conn *tc);
/* A small frame; false when the buffer is full (never for what this side sends by itself). */
bool tcp_tx_control(struct tcp_conn *tc, enum tcp_frame_type type, const void *body, uint32_t body_len,
                    uint32_t len);
int tcp_tx_post(struct tcp_conn *tc, struct fabric_op *op);
/* Answers a READ of the peer from memory; -ENOMEM. */
int tcp_tx_serve(struct tcp_conn *tc, uint64_t id, struct fabric_mem *mem, void *at, uint32_t len);
/* Moves ops to core.active, frees the answers. */
void tcp_tx_clear(struct tcp_conn *tc);
bool tcp_tx_uses(const struct tcp_conn *tc, const struct fabric_mem *mem);
/* Ends an exposed SEND whose memory nothing uses any more; else does nothing. */
void tcp_settle(struct tcp_conn *tc, struct fabric_op *op);
/* Events the socket is watched for, from the state. */
void tcp_conn_watch(struct tcp_conn *tc);
/* Why an established connection ended with that errno (0: the end of the stream). After its tries the kernel
 * gives up with ETIMEDOUT, or with what routers said meanwhile: only a reset is the peer's own word. */
enum fabric_down tcp_lost_reason(int err);

#endif
