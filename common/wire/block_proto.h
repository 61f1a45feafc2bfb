/*
 * block_proto.h: the data path to a module (OSD or SAN agent module): volume core -> rwm. Fixed little-endian
 * bodies after struct rpc_header. Numbers of methods: block.def. Described in docs/wire-protocol.md.
 *
 * A request stays inside one stripe and so inside one partition. Order of a module's checks: incarnation,
 * pool and partition served, epoch, volume known, generation, range, turn (writes), then space.
 */
#ifndef CISTERN_COMMON_WIRE_BLOCK_PROTO_H
#define CISTERN_COMMON_WIRE_BLOCK_PROTO_H

#include "common/base.h"

enum block_method {
#define BLOCK_METHOD(num, name, handler) BLOCK_METHOD_##name = num,
#include "common/wire/block.def"
#undef BLOCK_METHOD
};
/* Turns are below this; a greater one is refused before it becomes durable, since the metadata controller
 * would refuse the module that reports it. */
#define BLOCK_TURN_MAX (1ull << 61)
enum { BLOCK_FLAG_FUA = 1 }; /* every acknowledged write is durable: kept for front ends' bookkeeping */

/* READ, WRITE, DISCARD, ZERO, EXTENTS. WRITE exposes its payload as source, READ its buffer as sink; the
 * CRC32C of a payload is in struct rpc_header. */
struct block_request {
    uint32_t pool;
    uint32_t partition;   /* index in the pool */
    uint64_t epoch;       /* of the partition, as the sender's table says */
    uint64_t incarnation; /* of the module, as the sender's table says */
    struct uuid volume;
    uint64_t generation; /* of the volume */
    uint64_t turn;       /* WRITE, DISCARD, ZERO: the sender's write turn; 0 for reads */
    uint64_t host;       /* whose turn: host id (host_id_from_name) */
    uint64_t offset;     /* bytes in the volume, a multiple of SECTOR_BYTES */
    uint32_t length;     /* bytes, a multiple of SECTOR_BYTES, > 0, inside one stripe */
    uint16_t flags;
    uint16_t reserved;
};
_Static_assert(sizeof(struct block_request) == 80, "block_request is 80 bytes");

struct block_reply {
    uint64_t epoch;       /* the module's epoch of that partition (STALE_EPOCH: refresh at least to it) */
    uint64_t incarnation; /* of the module */
    uint64_t table_term, table_version; /* that the module has */
    uint32_t length;                    /* bytes done */
    uint32_t holes; /* READ: 1 when the whole answer is a hole: nothing was pushed, the sink's bytes are to be
                       zeroed */
};
_Static_assert(sizeof(struct block_reply) == 40, "block_reply is 40 bytes");
/* EXTENTS replies: block_reply, then one bit per UNIT_BYTES from round_down(offset, UNIT_BYTES) to the end,
 * least significant bit first, 1 = written. */

/* First message on a connection to a module: which module of the process it wants (a SAN agent has several).
 */
struct block_hello {
    uint32_t module; /* module id */
    uint32_t reserved;
    uint64_t
        instance; /* of the client's process; a newer connection of the same instance ends the older one */
    uint64_t sequence; /* grows with each connection of that instance to that module */
};
_Static_assert(sizeof(struct block_hello) == 24, "block_hello is 24 bytes");

#endif
