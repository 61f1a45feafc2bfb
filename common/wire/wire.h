/*
 * wire.h: control messages as msgpack maps (msgpack-c), described by field tables.
 *
 * A message type is a plain C struct and a table of struct wire_field. Encoding writes a map of short string keys;
 * decoding checks types, ranges, lengths and depth before it stores anything, ignores unknown keys, and zeroes what is
 * absent (or refuses when the field is required). Strings are NUL-terminated in the struct and refused when too long
 * or when they contain a NUL or invalid UTF-8.
 * Data-path messages are not msgpack: see block_proto.h and vbs_proto.h.
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
};
struct wire_type;
struct wire_field {
    const char *key; /* on the wire; NULL ends the table */
    enum wire_kind kind;
    bool required;
    size_t offset, size;             /* of the member */
    size_t count_offset, max;        /* WIRE_ARRAY, WIRE_U32S */
    const struct wire_type *item;    /* WIRE_ARRAY */
};
struct wire_type {
    const char *name; /* for errors */
    size_t size;      /* of the struct */
    const struct wire_field *fields;
};
/* 0 and *len, or -EMSGSIZE (does not fit cap). */
int wire_encode(const struct wire_type *type, const void *msg, void *buf, size_t cap, size_t *len);
/* 0, or -EPROTO; *msg is zeroed first and meaningless on error. why (may be NULL, 128 bytes) gets what is wrong. */
int wire_decode(const struct wire_type *type, const void *buf, size_t len, void *msg, char *why);

/* Shorthands for field tables. */
#define WIRE_F(st, key_, kind_, member, req)                                                                 \
    {.key = key_, .kind = kind_, .required = req, .offset = offsetof(st, member), .size = sizeof(((st *)0)->member)}
#define WIRE_A(st, key_, member, count_member, item_)                                                        \
    {.key = key_, .kind = WIRE_ARRAY, .offset = offsetof(st, member), .size = sizeof(((st *)0)->member),     \
     .count_offset = offsetof(st, count_member), .max = ARRAY_LEN(((st *)0)->member), .item = item_}
#define WIRE_N(st, key_, member, count_member)                                                               \
    {.key = key_, .kind = WIRE_U32S, .offset = offsetof(st, member), .size = sizeof(((st *)0)->member),      \
     .count_offset = offsetof(st, count_member), .max = ARRAY_LEN(((st *)0)->member)}
#define WIRE_END {.key = NULL}

#endif
