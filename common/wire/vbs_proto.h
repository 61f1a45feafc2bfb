/*
 * vbs_proto.h: a client without tables to its gateway. OPEN is a control message (msgpack); all other
 * methods have fixed little-endian bodies. Numbers: vbs.def.
 *
 * One OPEN is one association of a host: the gateway draws a new write turn for it. When another gateway has
 * taken a higher turn the I/O is answered STALE_TURN and the association is over: the client opens again
 * (anywhere) and repeats what was not acknowledged.
 */
#ifndef CISTERN_COMMON_WIRE_VBS_PROTO_H
#define CISTERN_COMMON_WIRE_VBS_PROTO_H

#include "common/base.h"
#include "common/wire/wire.h"

enum vbs_method {
#define VBS_METHOD(num, name, handler) VBS_METHOD_##name = num,
#include "common/wire/vbs.def"
#undef VBS_METHOD
};
struct vbs_open_request {
    char volume[64];
    char host[64];
    uint64_t instance;
    bool read_only, shared, take_over;
    /* Goes on with an association that was lost: the volume must still be this one, and the host not have
     * been detached since it had this generation. held 0 = a new open. */
    struct uuid id;
    uint64_t held;
    uint64_t serial; /* grows with each OPEN of the instance, at whichever gateway; 0 = not told */
};
struct vbs_open_reply {
    uint32_t handle;
    uint64_t size_bytes;
    uint32_t block_bytes, stripe_bytes;
    struct uuid volume;
    uint64_t generation;
};
extern const struct wire_type vbs_open_request_type, vbs_open_reply_type;
/* READ, WRITE, DISCARD, ZERO, EXTENTS; FLUSH and CLOSE with offset and length 0. Replies: vbs_io_reply. */
struct vbs_io {
    uint32_t handle;
    uint32_t length; /* READ, WRITE: at most VBS_IO_MAX; others: at most VBS_RANGE_MAX */
    uint64_t offset;
    uint32_t flags;
    uint32_t reserved;
};
_Static_assert(sizeof(struct vbs_io) == 24, "vbs_io is 24 bytes");
#define VBS_IO_MAX    (1024u * 1024u)
#define VBS_RANGE_MAX (128u * 1024u * 1024u)
struct vbs_io_reply {
    uint64_t size_bytes; /* of the volume now: clients learn of a resize from any reply */
    uint32_t holes;      /* READ: as in block_reply */
    uint32_t reserved;
};
_Static_assert(sizeof(struct vbs_io_reply) == 16, "vbs_io_reply is 16 bytes");
/* EXTENTS replies carry the bitmap of block_proto.h behind vbs_io_reply. */
/* NOTIFY from the gateway: a volume's size changed */
struct vbs_resized {
    uint32_t handle;
    uint32_t reserved;
    uint64_t size_bytes;
};
_Static_assert(sizeof(struct vbs_resized) == 16, "vbs_resized is 16 bytes");

#endif
