/* vbs_proto.c: the field tables of a client's OPEN at its gateway. */
#include "common/wire/vbs_proto.h"

#define F(st, key, kind, member) WIRE_F(struct vbs_##st, key, WIRE_##kind, member, false)
#define R(st, key, kind, member) WIRE_F(struct vbs_##st, key, WIRE_##kind, member, true)

static const struct wire_field open_request_fields[] = {
    R(open_request, "vol", STR, volume),     R(open_request, "host", STR, host),
    R(open_request, "inst", U64, instance),  F(open_request, "ro", BOOL, read_only),
    F(open_request, "shared", BOOL, shared), F(open_request, "take", BOOL, take_over),
    F(open_request, "id", BIN, id),          F(open_request, "held", U64, held),
    F(open_request, "ser", U64, serial),     WIRE_END,
};
const struct wire_type vbs_open_request_type = {
    .name = "vbs_open_request", .size = sizeof(struct vbs_open_request), .fields = open_request_fields};

static const struct wire_field open_reply_fields[] = {
    R(open_reply, "h", U32, handle),
    R(open_reply, "size", U64, size_bytes),
    R(open_reply, "block", U32, block_bytes),
    R(open_reply, "stripe", U32, stripe_bytes),
    R(open_reply, "id", BIN, volume),
    F(open_reply, "gen", U64, generation),
    WIRE_END,
};
const struct wire_type vbs_open_reply_type = {
    .name = "vbs_open_reply", .size = sizeof(struct vbs_open_reply), .fields = open_reply_fields};
