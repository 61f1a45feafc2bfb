/*
 * fabric_tcp_frame.h: what travels on a tcp connection of the fabric: frames of a fixed header, a body (a
 * message, a hello) and a payload that is streamed behind. All numbers little-endian. Pure functions; fuzzed.
 */
#ifndef CISTERN_RDMA_FABRIC_TCP_FRAME_H
#define CISTERN_RDMA_FABRIC_TCP_FRAME_H

#include "rdma/fabric.h"

enum tcp_frame_type {
    TCP_FRAME_HELLO = 1,  /* body: struct fabric_hello */
    TCP_FRAME_AUTH,       /* body: struct fabric_auth */
    TCP_FRAME_REFUSE,     /* len: enum fabric_down; the connection ends */
    TCP_FRAME_CLOSE,      /* the connection ends, as its owner wants */
    TCP_FRAME_BEAT,       /* a sign of life */
    TCP_FRAME_MESSAGE,    /* body: the message; payload: the exposed source; id, len: of the exposed sink */
    TCP_FRAME_PUSH,       /* payload into the sink id at offset addr */
    TCP_FRAME_READ,       /* id of the op; addr, key, len */
    TCP_FRAME_READ_REPLY, /* id of the op; payload */
    TCP_FRAME_WRITE,      /* addr, key; payload */
    TCP_FRAME_WRITE_ACK,  /* len: so many writes more are done, in order */
};
#define TCP_FRAME_MAGIC 0x5446u /* "FT" */
struct tcp_frame {
    uint16_t magic;
    uint8_t type;
    uint8_t reserved0;
    uint32_t body_len;
    uint32_t payload_len;
    uint32_t key;
    uint64_t id;
    uint64_t addr;
    uint32_t len;
    uint32_t reserved1;
};
_Static_assert(sizeof(struct tcp_frame) == 40, "the frame's header is 40 bytes");

/* Whether a frame is well formed and allowed now (before up only the handshake's and the ends are). */
bool tcp_frame_ok(const struct tcp_frame *frame, bool up);
/*
 * Looks at len bytes that came in: >0 = bytes of header and body of a whole frame, which is now in *frame
 * (its body follows the header in data); 0 = more is needed; -EPROTO = never a frame.
 */
int tcp_frame_decode(const void *data, size_t len, bool up, struct tcp_frame *frame);

#endif
