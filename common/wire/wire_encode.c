/* wire_encode.c: structs to msgpack maps, through msgpack-c's packer into a buffer of fixed size. */
#include "common/wire/wire.h"
#include "common/wire/wire_utf8.h"

#include <string.h>
#include <msgpack.h>

struct out {
    uint8_t *buf;
    size_t len, cap;
};

static int out_write(void *data, const char *bytes, size_t len)
{
    struct out *o = data;
    if (len > o->cap - o->len)
        return -1;
    memcpy(o->buf + o->len, bytes, len);
    o->len += len;
    return 0;
}

static uint32_t field_count(const struct wire_field *f, const uint8_t *msg)
{
    uint32_t n;
    memcpy(&n, msg + f->count_offset, sizeof(n));
    MUST(n <= f->max);
    return n;
}

static uint64_t field_uint(const struct wire_field *f, const uint8_t *at)
{
    uint64_t v = 0;
    MUST(f->size <= sizeof(v));
    memcpy(&v, at, f->size); /* little-endian hosts only: wire and disk formats assume it too */
    return v;
}

static bool bytes_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static bool field_absent(const struct wire_field *f, const uint8_t *msg)
{
    if (f->required || f->kind == WIRE_MAP)
        return false;
    switch (f->kind) {
    case WIRE_ARRAY:
    case WIRE_U32S:
        return field_count(f, msg) == 0;
    case WIRE_STR:
        return msg[f->offset] == 0;
    default:
        return bytes_zero(msg + f->offset, f->size);
    }
}

static int pack_text(msgpack_packer *pk, const char *text, size_t size)
{
    const size_t len = strnlen(text, size);
    MUST(len < size);
    int rc = msgpack_pack_str(pk, len);
    for (size_t i = 0; i < len && rc == 0;) {
        const size_t n = wire_utf8_char((const uint8_t *)text + i, len - i);
        rc = n != 0 ? msgpack_pack_str_body(pk, text + i, n) : msgpack_pack_str_body(pk, "?", 1);
        i += n != 0 ? n : 1;
    }
    return rc;
}

static int pack_struct(msgpack_packer *pk, const struct wire_type *type, const uint8_t *msg, unsigned depth);

static int pack_items(msgpack_packer *pk, const struct wire_field *f, const uint8_t *msg, unsigned depth)
{
    const uint32_t n = field_count(f, msg);
    int rc = msgpack_pack_array(pk, n);
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        const uint8_t *item = msg + f->offset + (f->size / f->max) * i;
        if (f->kind == WIRE_ARRAY) {
            rc = pack_struct(pk, f->item, item, depth + 1);
        } else {
            uint32_t v;
            memcpy(&v, item, sizeof(v));
            rc = msgpack_pack_uint32(pk, v);
        }
    }
    return rc;
}

static int pack_field(msgpack_packer *pk, const struct wire_field *f, const uint8_t *msg, unsigned depth)
{
    const uint8_t *at = msg + f->offset;
    switch (f->kind) {
    case WIRE_BOOL:
        return *at ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
    case WIRE_U8:
    case WIRE_U16:
    case WIRE_U32:
    case WIRE_U64:
        return msgpack_pack_uint64(pk, field_uint(f, at));
    case WIRE_STR:
        return pack_text(pk, (const char *)at, f->size);
    case WIRE_BIN:
        return msgpack_pack_bin_with_body(pk, at, f->size);
    case WIRE_ARRAY:
    case WIRE_U32S:
        return pack_items(pk, f, msg, depth + 1);
    case WIRE_MAP:
        return pack_struct(pk, f->item, at, depth + 1);
    }
    MUST(!"a field of no kind");
    return -1;
}

static int pack_struct(msgpack_packer *pk, const struct wire_type *type, const uint8_t *msg, unsigned depth)
{
    MUST(depth <= WIRE_DEPTH_MAX);
    size_t present = 0, fields = 0;
    for (const struct wire_field *f = type->fields; f->key != NULL; f++, fields++)
        present += !field_absent(f, msg);
    MUST(fields <= WIRE_FIELDS_MAX);
    int rc = msgpack_pack_map(pk, present);
    for (const struct wire_field *f = type->fields; f->key != NULL && rc == 0; f++) {
        if (field_absent(f, msg))
            continue;
        rc = msgpack_pack_str_with_body(pk, f->key, strlen(f->key));
        if (rc == 0)
            rc = pack_field(pk, f, msg, depth);
    }
    return rc;
}

int wire_encode(const struct wire_type *type, const void *msg, void *buf, size_t cap, size_t *len)
{
    struct out o = {.buf = buf, .cap = cap};
    msgpack_packer pk;
    msgpack_packer_init(&pk, &o, out_write);
    if (pack_struct(&pk, type, msg, 1) != 0)
        return -EMSGSIZE;
    *len = o.len;
    return 0;
}
