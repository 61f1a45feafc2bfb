/*
 * fabric_verbs.h: the verbs provider's own things, shared by its files: endpoint (fabric_verbs.c),
 * connections (fabric_verbs_cm.c), memory (fabric_verbs_mem.c), sending (fabric_verbs_tx.c), receiving
 * (fabric_verbs_rx.c).
 *
 * Each connection is one RC queue pair with a receive queue of its own, whose flush tells at once when the
 * peer made a bad access. Messages are frames: struct verbs_frame, the segments that the message exposes, the
 * body. A peer reads and writes exposed segments by RDMA READ and WRITE; each exposure has a key of its own
 * that ends with it.
 */
#ifndef CISTERN_RDMA_FABRIC_VERBS_H
#define CISTERN_RDMA_FABRIC_VERBS_H

#include "rdma/fabric_provider.h"

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#define VERBS_DOMAINS    3u   /* enum fabric_domain, minus 1 */
#define VERBS_SQ         64u  /* work requests of one connection that are posted at once; a power of two */
#define VERBS_SQ_CONTROL 4u   /* of these for control frames only */
#define VERBS_RQ_CONTROL 6u   /* receive buffers beyond the lent ones: auth, credits, beat, last word */
#define VERBS_RQ_HELLO   4u   /* receive buffers before the peer has proved itself */
#define VERBS_LEND_FIRST 4u   /* messages lent to a new connection; doubled as it uses them */
#define VERBS_SGE        16u  /* of one work request, at most */
#define VERBS_INLINE     512u /* asked for; the device may give less */
#define VERBS_CHAIN      16u  /* work requests for one doorbell */
#define VERBS_CQE        16384u
#define VERBS_CQ_BURST   64
#define VERBS_RD_ATOMIC  16u  /* outstanding RDMA READs asked for */
#define VERBS_IMPORTS    256u /* exposures of more than one segment that a peer may have at a time */
#define VERBS_CHUNK_BUFS 64u  /* message buffers are registered so many at a time */
#define VERBS_ACK_TIMEOUT                                                                                    \
    15u                     /* 4.096 us * 2^15 = 134 ms (RDMA_OPTION_ID_ACK_TIMEOUT, rdma_set_option(3))     \
                             */
#define VERBS_RETRIES   4u  /* finite: 7 means for ever on some devices */
#define VERBS_RNR_TIMER 12u /* 0.64 ms (IBTA 9.7.5.2.8): a receive queue that is empty for a moment */
#define VERBS_LINGER_NS (300 * NS_PER_MS)

/* ---- on the wire, little-endian ---- */
#define VERBS_FRAME_MAGIC 0x56534943u /* "CISV" */
enum verbs_frame_type {
    VERBS_FRAME_AUTH = 1, /* body: struct fabric_auth */
    VERBS_FRAME_REFUSE,   /* slot: enum fabric_down */
    VERBS_FRAME_CLOSE,
    VERBS_FRAME_BEAT,
    VERBS_FRAME_CREDIT,
    VERBS_FRAME_MESSAGE,
};
struct verbs_frame {
    uint32_t magic;
    uint8_t type, source_count, sink_count, reserved;
    uint16_t credits; /* given back to the receiver of this */
    uint16_t slot;    /* names the segments when there is more than one of a kind */
    uint32_t len;     /* of the body; segments come before it */
};
_Static_assert(sizeof(struct verbs_frame) == 16, "verbs_frame is 16 bytes on the wire");
struct verbs_seg {
    uint64_t addr;
    uint32_t len, key;
};
_Static_assert(sizeof(struct verbs_seg) == 16, "verbs_seg is 16 bytes on the wire");
#define VERBS_SEGS (2u * FABRIC_SGE_MAX)
#define VERBS_BUF_BYTES                                                                                      \
    (sizeof(struct verbs_frame) + VERBS_SEGS * sizeof(struct verbs_seg) + FABRIC_MESSAGE_MAX)

/* ---- memory ---- */
/* A message buffer: posted to receive (in vc->posted), being sent, or free. */
struct verbs_buf {
    struct list link;
    uint32_t index, lkey, domain;
    uint8_t *data;
};
struct verbs_chunk {
    struct list link;
    struct ibv_mr *mr;
    void *base;
    struct verbs_buf buf[VERBS_CHUNK_BUFS];
};
/* What fabric_mem_register made: local memory gets the other domains' when it is first used there. */
struct verbs_mem {
    struct ibv_mr *mr[VERBS_DOMAINS];
};
/* What one op has registered for itself, and the keys of its pieces. op->id points to it. */
struct verbs_pins {
    struct list link;
    unsigned count;     /* of mr */
    unsigned seg_count; /* of an exposure: sources, then sinks */
    uint8_t source_count;
    bool has_slot, exposed;
    uint16_t slot;
    struct ibv_mr *mr[VERBS_SEGS];
    uint32_t lkey[FABRIC_SGE_MAX];
    struct verbs_seg seg[VERBS_SEGS];
};
/* Segments that a peer exposes, by its slot number. */
struct verbs_import {
    unsigned source_count, sink_count;
    struct verbs_seg source[FABRIC_SGE_MAX], sink[FABRIC_SGE_MAX];
};

/* ---- connections ---- */
enum { VERBS_WR_RECV, VERBS_WR_SEND };
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
};

struct verbs_cq {
    struct list link;
    struct ibv_cq *cq;
    uint32_t room;
};
struct verbs_conn {
    struct fabric_conn core;
    struct rdma_cm_id *id;
    struct verbs_cq *cq;
    uint64_t slot; /* in verbs_fabric.slots */
    struct list dirty;
    struct list posted; /* receive buffers */
    struct list tx;     /* SEND, PUSH, WRITE not all posted */
    struct list rd;     /* READ, FETCH not all posted */
    struct loop_timer linger;
    uint32_t sq_head, sq_tail, rq_posted, rq_size;
    uint32_t rd_out, rd_max; /* RDMA READs */
    uint32_t say;            /* VERBS_SAY_*: control frames to send */
    uint32_t refuse_reason;
    struct fabric_auth auth;
    uint64_t last_rx_ns; /* a sign of life came */
    uint64_t heard_ns;   /* a frame came: from the peer's process */
    uint64_t last_tx_ns; /* a frame went out */
    bool open;           /* shut has not run */
    bool broken;         /* fails at the next flush */
    bool has_qp;
    bool connected; /* the queue pair can send */
    bool beat_out;
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
    struct ibv_send_wr wr[VERBS_CHAIN];
    struct ibv_sge sge[VERBS_CHAIN][VERBS_SGE];
    uint8_t stage[VERBS_CHAIN][VERBS_INLINE];
};
struct verbs_fabric {
    struct fabric core;
    struct ibv_context *ctx;
    struct ibv_pd *pd[VERBS_DOMAINS];
    struct ibv_comp_channel *comp;
    struct rdma_event_channel *cm;
    struct loop_fd comp_fd, cm_fd;
    struct loop_poller poller;
    struct loop_timer tick;
    uint64_t tick_ns, last_tick_ns;
    struct list dirty;
    struct list cqs, chunks, pins_free;
    struct list bufs_free[VERBS_DOMAINS];
    struct verbs_buf **bufs; /* by index */
    uint32_t buf_count;
    struct slots slots; /* of connections */
    uint32_t sge_max, inline_max, rd_max, message_max;
    struct fabric_addr local; /* family 0: any */
    uint32_t cqe;
    unsigned early_count; /* completions found while going to sleep */
    struct ibv_wc early[VERBS_CQ_BURST];
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
/* Its end of the connection reads the peer's tables, which works while the peer's process stands still. */
static inline bool verbs_reads_tables(const struct verbs_conn *vc)
{
    return vc->core.initiator && vc->core.peer.domain == FABRIC_DOMAIN_TABLE;
}
/*
 * What a completion carries: 16 bits of slot, 24 of its use count, 2 of kind, 22 of index: one that comes
 * after its connection's end finds nothing.
 */
static inline uint64_t verbs_wr_id(const struct verbs_conn *vc, unsigned kind, uint32_t index)
{
    return (vc->slot & 0xffff) | (vc->slot >> 32 & 0xffffff) << 16 | (uint64_t)kind << 40 |
           (uint64_t)index << 42;
}

/* fabric_verbs.c: a completion queue with room for one more connection; NULL: out of memory. */
struct verbs_cq *verbs_cq_take(struct verbs_fabric *vf, uint32_t entries);
/* Polls all completion queues, a bounded burst each; how many there were. */
unsigned verbs_poll(struct verbs_fabric *vf);

/* fabric_verbs_mem.c */
int verbs_mem_register(struct fabric_mem *mem);
void verbs_mem_unregister(struct fabric_mem *mem);
/* NULL: out of memory. */
struct verbs_buf *verbs_buf_take(struct verbs_fabric *vf, unsigned domain);
void verbs_buf_put(struct verbs_fabric *vf, struct verbs_buf *buf);
/* Local keys of an op's pieces, or segments with keys of an exposing SEND. 0, -ENOMEM, -EFAULT. */
int verbs_pin_local(struct verbs_conn *vc, struct fabric_op *op);
int verbs_pin_exposed(struct verbs_conn *vc, struct fabric_op *op);
void verbs_unpin(struct verbs_conn *vc, struct fabric_op *op);
static inline struct verbs_pins *verbs_pins_of(const struct fabric_op *op)
{
    return (struct verbs_pins *)(uintptr_t)op->id;
}
/* All of the fabric's: its connections are gone. */
void verbs_mem_free(struct verbs_fabric *vf);

/* fabric_verbs_cm.c */
int verbs_connect(struct fabric_conn *conn, const struct fabric_addr *addr);
int verbs_listen(struct fabric_listener *l, const struct fabric_addr *addr);
void verbs_unlisten(struct fabric_listener *l);
/* Picks the device of vf->local. 0 or -ENODEV. */
int verbs_device_find(struct verbs_fabric *vf);
void verbs_cm_event(struct loop_fd *lfd, uint32_t revents);
/* Answers a connection request. */
void verbs_accept(struct verbs_conn *vc, const struct fabric_hello *hello);
void verbs_reject(struct verbs_conn *vc, enum fabric_down reason);
/* What the peer may do from now on: it has proved itself. */
void verbs_open_access(struct verbs_conn *vc);
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
/* Posts count more receive buffers. 0 or -errno. */
int verbs_recv_post(struct verbs_conn *vc, uint32_t count);
void verbs_credit(struct fabric_conn *conn);
void verbs_completion(struct verbs_fabric *vf, const struct ibv_wc *wc);

#endif
