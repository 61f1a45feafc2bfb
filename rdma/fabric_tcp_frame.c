/* fabric_tcp_frame.c: see the header. */
#include "rdma/fabric_tcp_frame.h"
#include "rdma/fabric_provider.h"

#include <string.h>

bool tcp_frame_ok(const struct tcp_frame *f, bool up)
{
    if (f->magic != TCP_FRAME_MAGIC)
        return false;
    if (!up && f->type > TCP_FRAME_CLOSE)
        return false;
    bool bare = f->body_len == 0 && f->payload_len == 0;
    bool payload = f->body_len == 0 && f->payload_len > 0 && f->payload_len <= FABRIC_PAYLOAD_MAX;
    switch (f->type) {
    case TCP_FRAME_HELLO:
        return f->body_len == sizeof(struct fabric_hello) && f->payload_len == 0;
    case TCP_FRAME_AUTH:
        return f->body_len == sizeof(struct fabric_auth) && f->payload_len == 0;
    case TCP_FRAME_REFUSE:
        return bare && f->len >= FABRIC_DOWN_PEER_CLOSED && f->len <= FABRIC_DOWN_UNREACHABLE;
    case TCP_FRAME_CLOSE:
    case TCP_FRAME_BEAT:
        return bare;
    case TCP_FRAME_MESSAGE:
        return f->body_len > 0 && f->body_len <= FABRIC_MESSAGE_MAX && f->payload_len <= FABRIC_PAYLOAD_MAX &&
               f->len <= FABRIC_PAYLOAD_MAX;
    case TCP_FRAME_PUSH:
        return payload && f->addr < FABRIC_PAYLOAD_MAX;
    case TCP_FRAME_READ:
        return bare && f->len > 0 && f->len <= FABRIC_PAYLOAD_MAX;
    case TCP_FRAME_READ_REPLY:
    case TCP_FRAME_WRITE:
        return payload;
    case TCP_FRAME_WRITE_ACK:
        return bare && f->len > 0;
    default:
        return false;
    }
}

int tcp_frame_decode(const void *data, size_t len, bool up, struct tcp_frame *frame)
{
    if (len < sizeof(*frame))
        return 0;
    struct tcp_frame f;
    memcpy(&f, data, sizeof(f));
    if (!tcp_frame_ok(&f, up))
        return -EPROTO;
    if (len - sizeof(f) < f.body_len)
        return 0;
    *frame = f;
    return (int)(sizeof(f) + f.body_len);
}
