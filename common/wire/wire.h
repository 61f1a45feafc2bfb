/*
 * wire.h: control messages as msgpack maps (msgpack-c), described by field tables.
 *
 * A message type is a plain C struct and a table of struct wire_field. Encoding writes a map of short string
 * keys; decoding checks types, ranges, lengths and depth before it stores anything, ignores unknown keys, and
 * zeroes what is absent (or refuses when the field is required). Strings are NUL-terminated in the struct and
 * refused when too long or when they contain a NUL or invalid UTF-8. Data-path messages are not msgpack: see
 * block_proto.h and vbs_proto.h.
 */
#ifndef CISTERN_COMMON_WIRE_WIRE_H
#define CISTERN_COMMON_WIRE_WIRE_H

#include "common/base.h"

enum wire_kind {
    WIRE_BOOL,
    WIRE_U8,
    WIRE_U16,
    WIRE_U32,
    WIRE_U64,
    WIRE_STR,   /* char[size] */
    WIRE_BIN,   /* uint8_t[size], exactly size bytes on the wire (uuid, address, key) */
    WIRE_ARRAY, /* item_type items[max] with a uint32_t count field */
    WIRE_U32S,  /* uint32_t items[max] with a uint32_t count field */
    WIRE_MAP,   /* a nested struct of type item */
};
struct wire_type;
struct wire_field {
    const char *key; /* on the wire; NULL ends the table */
    enum wire_kind kind;
    bool required;
    size_t offset, size;          /* of the member */
    size_t count_offset, max;     /* WIRE_ARRAY, WIRE_U32S */
    const struct wire_type *item; /* WIRE_ARRAY, WIRE_MAP */
};
struct wire_type {
    const char *name; /* for errors */
    size_t size;      /* of the struct */
    const struct wire_field *fields;
};
#define WIRE_FIELDS_MAX 64 /* in one type */
#define WIRE_DEPTH_MAX                                                                                       \
    4 /* maps and arrays inside one another, the message itself included; deeper is refused */
#define WIRE_WHY_BYTES 128

/*
 * Writes msg as a map into buf. Optional fields that are zero (empty, false) are left out: absent means zero.
 * Bytes of a string that are not UTF-8 go out as '?', so that a text cut in the middle of a character does
 * not make a reply unreadable. 0 and *len, or -EMSGSIZE (does not fit cap). A string without its NUL or a
 * count above the array is our own bug (MUST).
 */
int wire_encode(const struct wire_type *type, const void *msg, void *buf, size_t cap, size_t *len);
/*
 * Reads a message that came from outside. Needs no memory but *msg (type->size bytes). Refused: anything that
 * is not one whole map, keys that are not strings or come twice, values of another kind or out of range,
 * missing required fields. 0, or -EPROTO; *msg is zeroed first and meaningless on error. why (may be NULL,
 * WIRE_WHY_BYTES) gets what is wrong.
 */
int wire_decode(const struct wire_type *type, const void *buf, size_t len, void *msg, char *why);

/* Shorthands for field tables. */
#define WIRE_F(st, key_, kind_, member, req)                                                                 \
    {                                                                                                        \
        .key = key_, .kind = kind_, .required = req, .offset = offsetof(st, member),                         \
        .size = sizeof(((st *)0)->member)                                                                    \
    }
#define WIRE_A(st, key_, member, count_member, item_)                                                        \
    {                                                                                                        \
        .key = key_, .kind = WIRE_ARRAY, .offset = offsetof(st, member), .size = sizeof(((st *)0)->member),  \
        .count_offset = offsetof(st, count_member), .max = ARRAY_LEN(((st *)0)->member), .item = item_       \
    }
#define WIRE_N(st, key_, member, count_member)                                                               \
    {                                                                                                        \
        .key = key_, .kind = WIRE_U32S, .offset = offsetof(st, member), .size = sizeof(((st *)0)->member),   \
        .count_offset = offsetof(st, count_member), .max = ARRAY_LEN(((st *)0)->member)                      \
    }
#define WIRE_M(st, key_, member, item_, req)                                                                 \
    {                                                                                                        \
        .key = key_, .kind = WIRE_MAP, .required = req, .offset = offsetof(st, member),                      \
        .size = sizeof(((st *)0)->member), .item = item_                                                     \
    }
#define WIRE_END                                                                                             \
    {                                                                                                        \
        .key = NULL                                                                                          \
    }

#endif
