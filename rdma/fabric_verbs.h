/*
 * fabric_verbs.h: the verbs provider's own things, shared by its files: endpoint (fabric_verbs.c), devices
 * and their queues (fabric_verbs_dev.c), connection manager (fabric_verbs_cm.c), queue pairs from birth to
 * drain (fabric_verbs_qp.c), memory (fabric_verbs_mem.c), what peers may reach of it (fabric_verbs_expose.c),
 * frames (fabric_verbs_frame.c), sending (fabric_verbs_tx.c), receiving (fabric_verbs_rx.c).
 *
 * Each connection is one RC queue pair. All of a device's connections of one domain receive from one shared
 * receive queue; what they are lent is never more than it holds. Messages are frames: struct verbs_frame, the
 * segments that the message exposes, the body. A peer reads and writes exposed segments by RDMA READ and
 * WRITE; each exposure has keys of its own that end with it: memory windows on registered arenas, or
 * registrations.
 */
#ifndef CISTERN_RDMA_FABRIC_VERBS_H
#define CISTERN_RDMA_FABRIC_VERBS_H

#include "rdma/fabric_provider.h"
#include "rdma/fabric_verbs_frame.h"

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#define VERBS_DEVS        8u    /* of one fabric */
#define VERBS_DOMAINS     3u    /* enum fabric_domain, minus 1 */
#define VERBS_SQ          64u   /* work requests of one connection that are posted at once; a power of two */
#define VERBS_SQ_CONTROL  4u    /* of these for control frames only */
#define VERBS_SHARED      8192u /* receive buffers of a device and domain, at most */
#define VERBS_SHARED_STEP 64u   /* posted with one doorbell */
#define VERBS_CONTROL                                                                                        \
    2u /* receive buffers of a connection beyond the lent ones; what comes in excess waits                   \
          for another's (RNR), it is never lost */
#define VERBS_LEND_MIN    2u   /* messages lent to an idle connection */
#define VERBS_LEND_FIRST  4u   /* to a new one; doubled as it uses them */
#define VERBS_IDLE_TICKS  16u  /* without a message: what was lent is asked back (2 s) */
#define VERBS_SGE         16u  /* of one work request, at most */
#define VERBS_INLINE      512u /* asked for; the device may give less */
#define VERBS_CHAIN       16u  /* work requests for one doorbell */
#define VERBS_CQE         16384u
#define VERBS_CQ_BURST    64
#define VERBS_RD_ATOMIC   16u  /* outstanding RDMA READs asked for */
#define VERBS_IMPORTS     256u /* exposures of more than one segment that a peer may have at a time */
#define VERBS_QPN_BUCKETS 1024u
#define VERBS_KEY_BUCKETS 1024u
/* Of fabric_remote: a window of the peer's that a message may invalidate. */
#define VERBS_REMOTE_ENDS 1u
#define VERBS_ARENA_BYTES                                                                                    \
    (2u << 20) /* message buffers are registered so many bytes at a time: one huge page */
#define VERBS_ACK_TIMEOUT                                                                                    \
    15u                     /* 4.096 us * 2^15 = 134 ms (RDMA_OPTION_ID_ACK_TIMEOUT, rdma_set_option(3))     \
                             */
#define VERBS_RETRIES   4u  /* finite: 7 means for ever on some devices */
#define VERBS_RNR_TIMER 12u /* 0.64 ms (IBTA 9.7.5.2.8): a receive queue that is empty for a moment */
#define VERBS_RNR_RETRIES                                                                                    \
    7u /* for ever: a process that stands still ends by probe_timeout_ns, not by this                        \
        */
#define VERBS_LINGER_NS (1000 * NS_PER_MS) /* retries end it sooner when nobody answers */
#define VERBS_DRAIN_NS  (500 * NS_PER_MS)

/* ---- devices ---- */
struct verbs_dev;
struct verbs_cq {
    struct list link;
    struct ibv_cq *cq;
    uint32_t room;
};
/* The receive queue that a device's connections of one domain share, and its completions. */
struct verbs_srq {
    struct verbs_dev *dev;
    unsigned domain;
    struct ibv_srq *srq; /* NULL: not made yet */
    struct ibv_cq *cq;
    uint32_t size;      /* work requests that it holds */
    uint32_t posted;    /* of these now there, as far as is known, and in repost */
    uint32_t promised;  /* to connections: at most size */
    struct list repost; /* buffers for the next doorbell */
    int low;            /* the device says that it runs dry (set from any thread) */
};
struct verbs_dev {
    struct list link; /* in verbs_fabric.devs */
    struct verbs_fabric *vf;
    unsigned index;
    struct ibv_context *ctx; /* librdmacm's */
    struct ibv_pd *pd[VERBS_DOMAINS];
    struct ibv_comp_channel *comp;
    struct loop_fd comp_fd, async_fd;
    struct list cqs; /* of send queues */
    struct verbs_srq srq[VERBS_DOMAINS];
    struct list bufs_free[VERBS_DOMAINS], windows_free[VERBS_DOMAINS];
    struct list bound[VERBS_KEY_BUCKETS]; /* windows, by key */
    uint32_t sge_max, read_sge_max, inline_max, rd_max, cqe, srq_max;
    bool windows; /* type 2: bound to one queue pair */
    bool soft;    /* Soft-RoCE */
    bool ends;    /* sends that invalidate the peer's window, and windows that a peer's send invalidates */
    bool iwarp;   /* the sink of a READ needs remote write access */
    bool dead;
    struct list by_qpn[VERBS_QPN_BUCKETS];
};

/* ---- memory ---- */
/* A message buffer: posted to receive, being sent, or free. */
struct verbs_buf {
    struct list link;
    uint32_t index, lkey;
    unsigned domain;
    struct verbs_dev *dev;
    uint8_t *data;
};
struct verbs_chunk {
    struct list link;
    struct ibv_mr *mr;
    void *base;
    size_t bytes;
    struct verbs_buf *buf;
};
/* What fabric_mem_register made: remote memory is registered with each device, local memory where it is used.
 */
struct verbs_mem {
    struct ibv_mr *mr[VERBS_DEVS][VERBS_DOMAINS];
};
struct verbs_window {
    struct list link;
    struct list by_key;    /* while bound: in dev */
    struct verbs_conn *vc; /* while bound: whose queue pair */
    struct ibv_mw *mw;
    uint32_t rkey; /* the latest */
    bool bound;    /* or about to be */
};
/* What makes one segment reachable. */
struct verbs_hold {
    struct verbs_window *window; /* on arena's registration */
    struct ibv_mr *arena, *mr;   /* mr: made for this segment */
    const struct fabric_mem *mem;
};
/* What one op has got for itself, and the keys of its pieces. op->id points to it. */
struct verbs_pins {
    struct list link;
    unsigned count;              /* of mr */
    unsigned seg_count;          /* of an exposure: sources, then sinks */
    unsigned bound, invalidated; /* segments whose windows are done with that */
    uint8_t source_count;
    bool has_slot, exposed;
    uint16_t slot;
    struct ibv_mr *mr[FABRIC_SGE_MAX]; /* local pieces */
    uint32_t lkey[FABRIC_SGE_MAX];
    struct verbs_seg seg[VERBS_SEGS];
    struct verbs_hold hold[VERBS_SEGS];
};
/* Segments that a peer exposes, by its slot number. */
struct verbs_import {
    unsigned source_count, sink_count;
    struct verbs_seg source[FABRIC_SGE_MAX], sink[FABRIC_SGE_MAX];
};

/* ---- connections ---- */
enum { VERBS_WR_RECV, VERBS_WR_SEND, VERBS_WR_MARKER };
/* A posted work request. */
struct verbs_sqe {
    struct fabric_op *op; /* ends with this one */
    struct verbs_buf *buf;
    bool read, beat, last_word;
};
enum {
    VERBS_SAY_AUTH = 1,
    VERBS_SAY_CREDIT = 2,
    VERBS_SAY_BEAT = 4,
    VERBS_SAY_REFUSE = 8,
    VERBS_SAY_CLOSE = 16,
    VERBS_SAY_PROBE = 32, /* an empty READ: is the peer's host there? */
    VERBS_SAY_RECALL = 64,
    VERBS_SAY_RETURN = 128,
};

struct verbs_conn {
    struct fabric_conn core;
    struct rdma_cm_id *id;
    struct verbs_dev *dev;
    struct verbs_cq *cq;
    uint64_t slot; /* in verbs_fabric.slots */
    struct list dirty;
    struct list by_qpn;  /* in dev */
    struct list drained; /* in verbs_fabric.drained: its queue pair can go */
    struct list tx;      /* SEND, PUSH, WRITE not all posted */
    struct list rd;      /* READ, FETCH not all posted */
    struct list inv;     /* retired SENDs whose windows are not all invalidated */
    struct loop_timer linger;
    uint32_t qpn;
    uint32_t sq_head, sq_tail, sq_signalled; /* the last is the head after the last signalled one */
    uint32_t rd_out, rd_max;                 /* RDMA READs */
    uint32_t say;                            /* VERBS_SAY_*: control frames to send */
    uint32_t refuse_reason;
    uint32_t promised; /* of the shared receive queue */
    uint32_t granted;  /* messages that may still come: more is a breach */
    uint32_t recalled; /* credits asked back, not answered yet */
    uint32_t returned; /* credits to give back */
    uint32_t idle_ticks;
    uint64_t messages_seen; /* of counters: at the last tick */
    uint64_t messages;
    struct fabric_auth auth;
    uint64_t last_rx_ns; /* a sign of life came */
    uint64_t heard_ns;   /* a frame came: from the peer's process */
    uint64_t last_tx_ns; /* a frame went out */
    bool open;           /* shut has not run */
    bool broken;         /* fails at the next flush */
    bool has_qp;
    bool connected; /* the queue pair can send */
    bool breaking;  /* the queue pair was put into error state by this side */
    bool beat_out;
    int qp_error; /* enum ibv_event_type + 1 of an event of its queue pair (set from any thread) */
    struct rdma_conn_param param; /* from the peer's request */
    uint16_t *slots_free;         /* numbers for exposures of several segments; made when first needed */
    uint32_t slots_free_count;
    struct verbs_import **imports;
    struct verbs_sqe sq[VERBS_SQ];
};
struct verbs_listener {
    struct fabric_listener core;
    struct rdma_cm_id *id;
};

/* Work requests in the making, for one doorbell. */
struct verbs_chain {
    unsigned count;
    bool signal; /* one of them has something that must come back */
    struct ibv_send_wr wr[VERBS_CHAIN];
    struct ibv_sge sge[VERBS_CHAIN][VERBS_SGE];
    uint8_t stage[VERBS_CHAIN][VERBS_INLINE];
};
struct verbs_early {
    struct verbs_dev *dev;
    struct ibv_wc wc;
};
struct verbs_fabric {
    struct fabric core;
    struct list devs;
    unsigned dev_count; /* ever opened */
    struct rdma_event_channel *cm;
    struct loop_fd cm_fd;
    struct loop_poller poller;
    struct loop_timer tick;
    uint64_t tick_ns, last_tick_ns;
    struct list dirty, drained;
    struct list chunks, pins_free;
    struct verbs_buf **bufs; /* by index */
    uint32_t buf_count;
    struct slots slots; /* of connections */
    uint32_t message_max;
    struct fabric_addr local; /* family 0: any */
    unsigned early_count;     /* completions found while going to sleep */
    struct verbs_early early[VERBS_CQ_BURST];
    struct verbs_chain chain;
};

static inline struct verbs_conn *verbs_conn_of(struct fabric_conn *c)
{
    return container_of(c, struct verbs_conn, core);
}
static inline struct verbs_fabric *verbs_of(const struct fabric *f)
{
    return container_of(f, struct verbs_fabric, core);
}
static inline struct verbs_fabric *verbs_fabric_of(const struct verbs_conn *vc)
{
    return verbs_of(vc->core.fabric);
}
static inline unsigned verbs_domain(const struct verbs_conn *vc)
{
    return (unsigned)vc->core.peer.domain - 1;
}
static inline struct verbs_srq *verbs_srq_of(const struct verbs_conn *vc)
{
    return &vc->dev->srq[verbs_domain(vc)];
}
/* Its end of the connection reads the peer's tables, which works while the peer's process stands still. */
static inline bool verbs_reads_tables(const struct verbs_conn *vc)
{
    return vc->core.initiator && vc->core.peer.domain == FABRIC_DOMAIN_TABLE;
}
/*
 * What the completion of a send carries: 16 bits of slot, 24 of its use count, 2 of kind, 22 of index: one
 * that comes after its connection's end finds nothing. Of a receive: kind, and the buffer's index.
 */
static inline uint64_t verbs_wr_id(const struct verbs_conn *vc, unsigned kind, uint32_t index)
{
    return (vc->slot & 0xffff) | (vc->slot >> 32 & 0xffffff) << 16 | (uint64_t)kind << 40 |
           (uint64_t)index << 42;
}

/* fabric_verbs.c: polls all completion queues, a bounded burst each; how many completions there were. */
unsigned verbs_poll(struct verbs_fabric *vf);

/* fabric_verbs_dev.c */
/* The device with that context, opened when it is used for the first time. 0 or -errno, after a log line. */
int verbs_dev_get(struct verbs_fabric *vf, struct ibv_context *ctx, struct verbs_dev **out);
/* Nothing uses it any more. */
void verbs_dev_free(struct verbs_dev *dev);
/* All its connections fail; it takes no more. */
void verbs_dev_fail(struct verbs_dev *dev);
/* A completion queue with room for the send queue of one more connection; NULL: out of memory. */
struct verbs_cq *verbs_cq_take(struct verbs_dev *dev, uint32_t entries);
/* Makes the shared receive queue unless it is there. 0 or -errno. */
int verbs_srq_make(struct verbs_dev *dev, unsigned domain);
/* Sets n receive buffers aside for vc, posted; false: there are no more. */
bool verbs_srq_promise(struct verbs_conn *vc, uint32_t n);
void verbs_srq_release(struct verbs_conn *vc, uint32_t n);
/* Posts what waits to be posted, and what was lost. */
void verbs_srq_flush(struct verbs_srq *s);
/* The device's receive queues go, with all that is posted; their connections have gone before. */
void verbs_srq_free(struct verbs_dev *dev);
struct verbs_conn *verbs_dev_conn(const struct verbs_dev *dev, uint32_t qpn);

/* fabric_verbs_mem.c */
struct ibv_mr *verbs_mr_make(struct verbs_dev *dev, unsigned domain, void *base, size_t len, int flags);
void verbs_mr_free(struct verbs_fabric *vf, struct ibv_mr *mr);
int verbs_mem_register(struct fabric_mem *mem);
void verbs_mem_unregister(struct fabric_mem *mem);
uint32_t verbs_mem_key(const struct fabric_mem *mem, const struct fabric_conn *conn);
/* A device was opened: it gets what peers may reach. 0 or -errno. */
int verbs_mem_join(struct verbs_dev *dev);
/* A device goes. */
void verbs_mem_leave(struct verbs_dev *dev);
/* The registered memory that s lies in, and its registration with dev; NULL: it lies in none. */
struct ibv_mr *verbs_arena_of(struct verbs_dev *dev, unsigned domain, const struct fabric_sge *s,
                              const struct fabric_mem **mem);
/* NULL: out of memory. */
struct verbs_buf *verbs_buf_take(struct verbs_dev *dev, unsigned domain);
void verbs_buf_put(struct verbs_buf *buf);
/* All of the fabric's: its connections are gone. */
void verbs_mem_free(struct verbs_fabric *vf);

/* fabric_verbs_expose.c */
static inline struct verbs_pins *verbs_pins_of(const struct fabric_op *op)
{
    return (struct verbs_pins *)(uintptr_t)op->id;
}
/* Local keys of an op's pieces, or segments with keys of an exposing SEND. 0, -ENOMEM, -EFAULT. */
int verbs_pin_local(struct verbs_conn *vc, struct fabric_op *op);
/* -EAGAIN: it has to wait for another op's end. */
int verbs_pin_exposed(struct verbs_conn *vc, struct fabric_op *op);
void verbs_unpin(struct verbs_conn *vc, struct fabric_op *op);
/* The window gets its next key, for the peer of vc; a bind is posted next. */
void verbs_window_bind(struct verbs_conn *vc, struct verbs_window *w);
/* It was invalidated: it can be bound again. */
void verbs_window_ended(struct verbs_window *w);
/* A message of vc's peer invalidated the window of that key. False: vc showed none of that key. */
bool verbs_ended_by_peer(struct verbs_conn *vc, uint32_t rkey);
/* The queue pair is in error state: takes the windows of all its ops away from the peer. */
void verbs_windows_revoke(struct verbs_conn *vc);
/* The connection has memory of mem exposed. */
bool verbs_exposes(const struct verbs_conn *vc, const struct fabric_mem *mem);
void verbs_windows_free(struct verbs_dev *dev);

/* fabric_verbs_cm.c */
int verbs_connect(struct fabric_conn *conn, const struct fabric_addr *addr);
int verbs_listen(struct fabric_listener *l, const struct fabric_addr *addr);
void verbs_unlisten(struct fabric_listener *l);
/* Opens the device of vf->local, or the first. 0 or -errno. */
int verbs_device_find(struct verbs_fabric *vf);
void verbs_cm_event(struct loop_fd *lfd, uint32_t revents);
/* Answers a connection request. */
void verbs_accept(struct verbs_conn *vc, const struct fabric_hello *hello);
void verbs_reject(struct verbs_conn *vc, enum fabric_down reason);

/* fabric_verbs_qp.c */
int verbs_conn_open(struct verbs_conn *vc);
/* On the device of vc->id. 0 or -errno. */
int verbs_qp_make(struct verbs_conn *vc);
/* The queue pair can send and receive now: closes it to remote access, asks what was negotiated. 0 or -EIO.
 */
int verbs_qp_ready(struct verbs_conn *vc);
/* The queue pair went into error state by itself. */
bool verbs_qp_is_broken(struct verbs_conn *vc);
/* What the peer may do from now on: it has proved itself. */
void verbs_open_access(struct verbs_conn *vc);
/* Stops the queue pair; verbs_qp_drained follows, or the linger timer. */
void verbs_qp_break(struct verbs_conn *vc);
/* Frees connections whose queue pairs have drained. */
void verbs_qp_reap(struct verbs_fabric *vf);
void verbs_shut(struct fabric_conn *conn, bool polite);
void verbs_cut(struct fabric_conn *conn);
void verbs_conn_free(struct fabric_conn *conn);

/* fabric_verbs_tx.c */
void verbs_dirty(struct verbs_conn *vc);
void verbs_say(struct verbs_conn *vc, uint32_t what);
int verbs_post(struct fabric_conn *conn, struct fabric_op *op);
/* Ends an exposed SEND that may end. */
void verbs_settle(struct verbs_conn *vc, struct fabric_op *op);
/* Posts what there is room for; the connection may be down afterwards. */
void verbs_flush(struct verbs_conn *vc);
/* Posts REFUSE or CLOSE at once; false: it cannot go out. */
bool verbs_last_word(struct verbs_conn *vc);
/* Send queue entries up to and with index are done. False: the last word was among them. */
bool verbs_sent(struct verbs_conn *vc, uint32_t index);

/* fabric_verbs_rx.c */
/* Messages lent to a new connection; 0: there is no room. */
uint32_t verbs_lend(struct fabric_conn *conn);
void verbs_credit(struct fabric_conn *conn);
/* An idle connection is asked for what it does not use. Once a tick. */
void verbs_idle(struct verbs_conn *vc);
void verbs_completion(struct verbs_dev *dev, const struct ibv_wc *wc);

#endif
