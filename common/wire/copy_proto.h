/*
 * copy_proto.h: between the modules that hold copies of a partition. The caller is the partition's primary,
 * or on its way to be. Fixed little-endian bodies after struct rpc_header, on a connection of its own that
 * begins with PEER_HELLO. What they mean: docs/replication.md; described in docs/wire-protocol.md.
 *
 * A member answers STALE_EPOCH when it has accepted a newer epoch (in the reply), NOT_SERVING when it does
 * not get to know the caller's epoch in time, INVALID for what no primary sends.
 */
#ifndef CISTERN_COMMON_WIRE_COPY_PROTO_H
#define CISTERN_COMMON_WIRE_COPY_PROTO_H

#include "common/base.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structures go out as they are in memory");

enum copy_method {
#define COPY_METHOD(num, name, handler, request) COPY_METHOD_##name = num,
#include "common/wire/copy.def"
#undef COPY_METHOD
};

/* Longest promise that a module may ask for, and so what a restarted one waits before it joins anything. */
#define COPY_PROMISE_MAX_NS (500u * NS_PER_MS)

struct copy_key { /* struct store_key */
    uint64_t layer, block, hash;
};
struct copy_head {
    uint32_t pool, partition;
    uint64_t epoch; /* of the partition, in force at the caller */
};
_Static_assert(sizeof(struct copy_head) == 16, "no hidden padding");

/* First message of a connection. Status WRONG_INCARNATION: that start of the module is over. BUSY: a newer
 * connection of the caller was there already. */
struct copy_peer_hello {
    uint32_t to_module, from_module;
    uint64_t to_incarnation, from_incarnation;
    uint64_t sequence; /* grows with each connection of that incarnation */
};
_Static_assert(sizeof(struct copy_peer_hello) == 32, "no hidden padding");

/* Until the time is over the granter joins no epoch with another primary for the partitions that the caller
 * joined here. STALE_EPOCH: for one of them it has; every join on this connection is void and must be
 * repeated. */
struct copy_promise {
    uint64_t duration_ns; /* at most COPY_PROMISE_MAX_NS */
};
struct copy_promise_reply {
    uint64_t free_blocks; /* that the caller may fill until the next answer */
};
_Static_assert(sizeof(struct copy_promise) == 8 && sizeof(struct copy_promise_reply) == 8,
               "no hidden padding");

/* OK: the member has head.epoch durably, with the caller as its primary, and takes no forwards of an older
 * one any more; what it took of those is durable. */
struct copy_join {
    struct copy_head head;
};
enum {
    COPY_JOINED_WHOLE = 1, /* what is recent there is known: VERSIONS with COPY_LIST_RECENT lists it all */
};
struct copy_join_reply {
    uint64_t epoch; /* in force at the member */
    uint32_t flags, reserved;
};
_Static_assert(sizeof(struct copy_join) == 16 && sizeof(struct copy_join_reply) == 16, "no hidden padding");

/* All versions up to `committed` are durable at every in-sync member. */
enum { COPY_COMMIT_RECONCILED = 1 }; /* the in-sync members are equal but for writes under way */
struct copy_commit {
    struct copy_head head;
    struct version committed;
    uint32_t flags, reserved;
};
_Static_assert(sizeof(struct copy_commit) == 40, "no hidden padding");

/* A notification: the caller has accepted head.epoch, is not the primary in it, and from now on answers no
 * read under an earlier one. What was promised to it does not stand in the way of joining that epoch. */
struct copy_release {
    struct copy_head head;
};
_Static_assert(sizeof(struct copy_release) == 16, "no hidden padding");

enum copy_list {
    COPY_LIST_RECENT = 1, /* blocks with a version not known to be committed, from cursor on */
    COPY_LIST_ALL = 2,    /* all blocks of the partition, from cursor on */
    COPY_LIST_KEYS = 3,   /* the keys behind the request: their versions in the same order */
};
#define COPY_KEYS_MAX 150u
struct copy_versions { /* then count struct copy_key, with COPY_LIST_KEYS */
    struct copy_head head;
    uint64_t cursor; /* 0 = from the start */
    uint32_t list, count;
};
_Static_assert(sizeof(struct copy_versions) == 32, "no hidden padding");
enum {
    COPY_VERSION_SUSPECT =
        1, /* rot took what is known of the block: it is to be replaced whatever its version */
};
struct copy_version {
    struct copy_key key;
    struct version version; /* durable, or recent and a hole; {0,0} = absent */
    uint32_t written;
    uint32_t flags;
};
_Static_assert(sizeof(struct copy_version) == 48, "no hidden padding");
struct copy_versions_reply { /* then count struct copy_version */
    uint64_t cursor;         /* to go on with; 0 = the end */
    uint32_t count, reserved;
};

/* Units of one block, over `base` exactly. OK too when the member has this version, or a later one of the
 * block. STALE_BASE: it has another base. The payload is unit_count units, none with COPY_FORWARD_CLEAR.
 * What lies beyond a cut that is above `cuts` is answered OK, and not stored: the caller has not heard of
 * that shrink, or has not done with it. */
enum { COPY_FORWARD_CLEAR = 1, COPY_FORWARD_FORGET = 2 };
struct copy_forward {
    struct copy_head head;
    struct uuid volume; /* zero: no client's write, no turn */
    uint64_t host, turn;
    struct copy_key key;
    struct version version, base, committed;
    uint32_t first_unit, unit_count;
    uint32_t flags, reserved;
    uint64_t cuts; /* of the volume: no shrink up to this generation cuts off what is sent */
};
_Static_assert(sizeof(struct copy_forward) == 144, "no hidden padding");

/* The whole block becomes this, whatever was there. written 0: absent when version is {0,0}, else a hole of
 * that version. The payload is the units set in written, in order, but for those in lost: no copy can read
 * them, and they are an error at the member, too, until they are written. */
struct copy_replace {
    struct copy_head head;
    struct copy_key key;
    struct version version, committed;
    uint32_t written, lost;
    uint64_t cuts; /* as in struct copy_forward */
};
_Static_assert(sizeof(struct copy_replace) == 88, "no hidden padding");

/* The whole block; its 128 KiB go into the sink when anything is written. Units set in rotten could not be
 * read: zeroes. */
struct copy_fetch {
    struct copy_head head;
    struct copy_key key;
};
struct copy_fetch_reply {
    struct version version;
    uint32_t written, rotten;
};
_Static_assert(sizeof(struct copy_fetch) == 40 && sizeof(struct copy_fetch_reply) == 24, "no hidden padding");

/* Write turns that the caller has accepted: the member takes those that are higher than its own. OK: they are
 * durable there. AGAIN: it has no room now. */
#define COPY_TURNS_MAX 100u
struct copy_turn {
    struct uuid volume;
    uint64_t host, turn; /* host 0: the floor of all hosts without a record */
};
struct copy_turns { /* then count struct copy_turn */
    struct copy_head head;
    uint32_t count, reserved;
};
_Static_assert(sizeof(struct copy_turn) == 32 && sizeof(struct copy_turns) == 24, "no hidden padding");

/* The member reads its block, and says what it has: as of all that was sent to it before. */
struct copy_check_reply {
    struct version version;
    uint32_t written,
        rotten; /* rotten: units that could not be read, or have another checksum than they should */
    uint32_t crc[UNITS_PER_BLOCK]; /* of the others that are written */
};
_Static_assert(sizeof(struct copy_check_reply) == 152, "no hidden padding");

#endif
