/*
 * fabric_verbs_frame.h: what travels in a send on verbs, and its decoder. All little-endian. No verbs in it:
 * tests and fuzzers feed it on any machine.
 */
#ifndef CISTERN_RDMA_FABRIC_VERBS_FRAME_H
#define CISTERN_RDMA_FABRIC_VERBS_FRAME_H

#include "rdma/fabric_provider.h"

#define VERBS_FRAME_MAGIC 0x56534943u /* "CISV" */
enum verbs_frame_type {
    VERBS_FRAME_AUTH = 1, /* body: struct fabric_auth */
    VERBS_FRAME_REFUSE,   /* slot: enum fabric_down */
    VERBS_FRAME_CLOSE,
    VERBS_FRAME_BEAT,
    VERBS_FRAME_CREDIT,
    VERBS_FRAME_MESSAGE,
    VERBS_FRAME_RECALL, /* slot: credits that the sender would like back */
    VERBS_FRAME_RETURN, /* slot: credits given back, perhaps none: the answer */
};
struct verbs_frame {
    uint32_t magic;
    uint8_t type, source_count, sink_count;
    uint8_t flags;    /* VERBS_FRAME_ENDS_* */
    uint16_t credits; /* given to the receiver of this */
    uint16_t slot;    /* names the segments when there is more than one of a kind */
    uint32_t len;     /* of the body; segments come before it */
};
/* The one segment of that kind may be invalidated by the receiver of this, with a message. */
enum { VERBS_FRAME_ENDS_SOURCE = 1, VERBS_FRAME_ENDS_SINK = 2 };
_Static_assert(sizeof(struct verbs_frame) == 16, "verbs_frame is 16 bytes on the wire");
struct verbs_seg {
    uint64_t addr;
    uint32_t len, key;
};
_Static_assert(sizeof(struct verbs_seg) == 16, "verbs_seg is 16 bytes on the wire");
#define VERBS_SEGS  (2u * FABRIC_SGE_MAX)
#define VERBS_SLOTS 256u
#define VERBS_BUF_BYTES                                                                                      \
    (sizeof(struct verbs_frame) + VERBS_SEGS * sizeof(struct verbs_seg) + FABRIC_MESSAGE_MAX)

/* A frame, checked: all counts and lengths are in bounds and fit the bytes. */
struct verbs_decoded {
    struct verbs_frame frame;
    uint32_t source_len, sink_len;    /* of the segments, at most FABRIC_PAYLOAD_MAX */
    struct verbs_seg seg[VERBS_SEGS]; /* sources, then sinks */
    const uint8_t *body;
};
/* up: the peer has proved itself; before that only AUTH, REFUSE and CLOSE are good. False: the peer broke the
 * protocol. */
bool verbs_frame_decode(const uint8_t *data, uint32_t bytes, bool up, struct verbs_decoded *out);

#endif
