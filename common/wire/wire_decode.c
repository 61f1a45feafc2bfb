/*
 * wire_decode.c: msgpack maps that came from outside, to structs.
 *
 * Reads the bytes directly instead of through msgpack-c's unpacker: that one allocates for as many elements
 * as an array's header claims, before it has seen one of them. Here nothing is allocated, each length is
 * checked against what is left of the body, and so the work is bounded by the body's length. Formats: the
 * msgpack specification, "Formats".
 */
#include "common/wire/wire.h"
#include "common/wire/wire_utf8.h"

#include <stdio.h>
#include <string.h>

struct reader {
    const uint8_t *p, *end;
    char *why;
};

enum value_kind {
    VALUE_NIL,
    VALUE_BOOL,
    VALUE_UINT,
    VALUE_NEGATIVE,
    VALUE_FLOAT,
    VALUE_STR,
    VALUE_BIN,
    VALUE_EXT,
    VALUE_ARRAY,
    VALUE_MAP
};
/* One value's head. Strings, binaries and extensions: bytes points to n bytes that are there. Arrays, maps: n
 * elements (pairs) follow; not more than could be in the bytes that are left. */
struct value {
    enum value_kind kind;
    uint64_t n;
    const uint8_t *bytes;
};

static int refuse(struct reader *r, const struct wire_type *type, const char *key, const char *what)
{
    if (r->why != NULL)
        snprintf(r->why, WIRE_WHY_BYTES, "%s%s%.24s: %s", type->name, key != NULL ? "." : "",
                 key != NULL ? key : "", what);
    return -EPROTO;
}

/* A big-endian number of n bytes. */
static bool take_uint(struct reader *r, size_t n, uint64_t *out)
{
    if ((size_t)(r->end - r->p) < n)
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = (v << 8) | r->p[i];
    r->p += n;
    *out = v;
    return true;
}

static bool take_bytes(struct reader *r, struct value *v, enum value_kind kind, uint64_t n)
{
    if ((uint64_t)(r->end - r->p) < n)
        return false;
    *v = (struct value){.kind = kind, .n = n, .bytes = r->p};
    r->p += n;
    return true;
}

static bool take_container(struct reader *r, struct value *v, enum value_kind kind, uint64_t n)
{
    *v = (struct value){.kind = kind, .n = n};
    return n * (kind == VALUE_MAP ? 2 : 1) <= (uint64_t)(r->end - r->p);
}

static bool take_signed(struct reader *r, struct value *v, size_t width)
{
    uint64_t raw;
    if (!take_uint(r, width, &raw))
        return false;
    const bool negative = (raw >> (width * 8 - 1)) & 1;
    *v = (struct value){.kind = negative ? VALUE_NEGATIVE : VALUE_UINT, .n = raw};
    return true;
}

/* The formats 0xc0 to 0xdf. */
static bool take_marked(struct reader *r, struct value *v, uint8_t mark)
{
    static const uint8_t width3[3] = {1, 2, 4};
    uint64_t n;
    switch (mark) {
    case 0xc0:
        *v = (struct value){.kind = VALUE_NIL};
        return true;
    case 0xc2:
    case 0xc3:
        *v = (struct value){.kind = VALUE_BOOL, .n = mark & 1};
        return true;
    case 0xc4 ... 0xc6:
        return take_uint(r, width3[mark - 0xc4], &n) && take_bytes(r, v, VALUE_BIN, n);
    case 0xc7 ... 0xc9:
        return take_uint(r, width3[mark - 0xc7], &n) && take_bytes(r, v, VALUE_EXT, n + 1);
    case 0xca:
    case 0xcb:
        return take_bytes(r, v, VALUE_FLOAT, mark == 0xca ? 4 : 8);
    case 0xcc ... 0xcf:
        *v = (struct value){.kind = VALUE_UINT};
        return take_uint(r, 1u << (mark - 0xcc), &v->n);
    case 0xd0 ... 0xd3:
        return take_signed(r, v, 1u << (mark - 0xd0));
    case 0xd4 ... 0xd8:
        return take_bytes(r, v, VALUE_EXT, 1 + (1u << (mark - 0xd4)));
    case 0xd9 ... 0xdb:
        return take_uint(r, width3[mark - 0xd9], &n) && take_bytes(r, v, VALUE_STR, n);
    case 0xdc:
    case 0xdd:
        return take_uint(r, mark == 0xdc ? 2 : 4, &n) && take_container(r, v, VALUE_ARRAY, n);
    case 0xde:
    case 0xdf:
        return take_uint(r, mark == 0xde ? 2 : 4, &n) && take_container(r, v, VALUE_MAP, n);
    default: /* 0xc1 is never used */
        return false;
    }
}

static bool take_value(struct reader *r, struct value *v)
{
    if (r->p == r->end)
        return false;
    const uint8_t mark = *r->p++;
    if (mark <= 0x7f) {
        *v = (struct value){.kind = VALUE_UINT, .n = mark};
        return true;
    }
    if (mark <= 0x8f)
        return take_container(r, v, VALUE_MAP, mark & 0x0f);
    if (mark <= 0x9f)
        return take_container(r, v, VALUE_ARRAY, mark & 0x0f);
    if (mark <= 0xbf)
        return take_bytes(r, v, VALUE_STR, mark & 0x1f);
    if (mark <= 0xdf)
        return take_marked(r, v, mark);
    *v = (struct value){.kind = VALUE_NEGATIVE};
    return true;
}

/* Goes over what follows the head v, which stands at the given depth when it is a container. */
static bool skip_rest(struct reader *r, const struct value *v, unsigned depth)
{
    if (v->kind != VALUE_ARRAY && v->kind != VALUE_MAP)
        return true;
    if (depth > WIRE_DEPTH_MAX)
        return false;
    const uint64_t elements = v->kind == VALUE_MAP ? v->n * 2 : v->n;
    for (uint64_t i = 0; i < elements; i++) {
        struct value inner;
        if (!take_value(r, &inner) || !skip_rest(r, &inner, depth + 1))
            return false;
    }
    return true;
}

static int store_uint(struct reader *r, const struct wire_type *type, const struct wire_field *f,
                      const struct value *v, uint8_t *at)
{
    if (v->kind != VALUE_UINT)
        return refuse(r, type, f->key, v->kind == VALUE_NEGATIVE ? "negative" : "not a whole number");
    if (f->size < sizeof(uint64_t) && v->n >> (f->size * 8) != 0)
        return refuse(r, type, f->key, "number out of range");
    memcpy(at, &v->n, f->size);
    return 0;
}

static int store_text(struct reader *r, const struct wire_type *type, const struct wire_field *f,
                      const struct value *v, uint8_t *at)
{
    if (v->kind != VALUE_STR)
        return refuse(r, type, f->key, "not a string");
    if (v->n >= f->size)
        return refuse(r, type, f->key, "string too long");
    for (size_t i = 0; i < v->n;) {
        const size_t n = v->bytes[i] == 0 ? 0 : wire_utf8_char(v->bytes + i, v->n - i);
        if (n == 0)
            return refuse(r, type, f->key, "string with a NUL or broken UTF-8");
        i += n;
    }
    memcpy(at, v->bytes, v->n);
    return 0;
}

static int read_struct(struct reader *r, const struct wire_type *type, uint8_t *msg, const struct value *map,
                       unsigned depth);

static int store_items(struct reader *r, const struct wire_type *type, const struct wire_field *f,
                       const struct value *v, uint8_t *msg, unsigned depth)
{
    if (v->kind != VALUE_ARRAY)
        return refuse(r, type, f->key, "not an array");
    if (v->n > f->max)
        return refuse(r, type, f->key, "too many items");
    if (depth > WIRE_DEPTH_MAX)
        return refuse(r, type, f->key, "nested too deep");
    const struct wire_field one = {.key = f->key, .size = sizeof(uint32_t)};
    for (uint64_t i = 0; i < v->n; i++) {
        uint8_t *item = msg + f->offset + (f->size / f->max) * i;
        struct value inner;
        if (!take_value(r, &inner))
            return refuse(r, type, f->key, "cut short or malformed");
        const int rc = f->kind == WIRE_ARRAY ? read_struct(r, f->item, item, &inner, depth + 1)
                                             : store_uint(r, type, &one, &inner, item);
        if (rc != 0)
            return rc;
    }
    const uint32_t count = (uint32_t)v->n;
    memcpy(msg + f->count_offset, &count, sizeof(count));
    return 0;
}

static int store_field(struct reader *r, const struct wire_type *type, const struct wire_field *f,
                       uint8_t *msg, unsigned depth)
{
    struct value v;
    if (!take_value(r, &v))
        return refuse(r, type, f->key, "cut short or malformed");
    uint8_t *at = msg + f->offset;
    switch (f->kind) {
    case WIRE_BOOL:
        if (v.kind != VALUE_BOOL)
            return refuse(r, type, f->key, "not true or false");
        *at = v.n != 0;
        return 0;
    case WIRE_U8:
    case WIRE_U16:
    case WIRE_U32:
    case WIRE_U64:
        return store_uint(r, type, f, &v, at);
    case WIRE_STR:
        return store_text(r, type, f, &v, at);
    case WIRE_BIN:
        if (v.kind != VALUE_BIN || v.n != f->size)
            return refuse(r, type, f->key, "not bytes of the right length");
        memcpy(at, v.bytes, f->size);
        return 0;
    case WIRE_ARRAY:
    case WIRE_U32S:
        return store_items(r, type, f, &v, msg, depth + 1);
    case WIRE_MAP:
        return read_struct(r, f->item, at, &v, depth + 1);
    }
    MUST(!"a field of no kind");
    return -EPROTO;
}

static const struct wire_field *find_field(const struct wire_type *type, const struct value *key,
                                           unsigned *number)
{
    *number = 0;
    for (const struct wire_field *f = type->fields; f->key != NULL; f++, (*number)++)
        if (strlen(f->key) == key->n && memcmp(f->key, key->bytes, key->n) == 0)
            return f;
    return NULL;
}

/* map is the head of the struct's map, which stands at the given depth. */
static int read_struct(struct reader *r, const struct wire_type *type, uint8_t *msg, const struct value *map,
                       unsigned depth)
{
    uint64_t seen = 0;
    if (map->kind != VALUE_MAP)
        return refuse(r, type, NULL, "not a map");
    if (depth > WIRE_DEPTH_MAX)
        return refuse(r, type, NULL, "nested too deep");
    for (uint64_t i = 0; i < map->n; i++) {
        struct value key, ignored;
        unsigned number;
        if (!take_value(r, &key) || key.kind != VALUE_STR)
            return refuse(r, type, NULL, "a key is cut short or not a string");
        const struct wire_field *f = find_field(type, &key, &number);
        if (f == NULL) {
            if (!take_value(r, &ignored) || !skip_rest(r, &ignored, depth + 1))
                return refuse(r, type, NULL,
                              "an unknown key's value is cut short, malformed or nested too deep");
            continue;
        }
        if ((seen >> number & 1) != 0)
            return refuse(r, type, f->key, "comes twice");
        seen |= 1ull << number;
        const int rc = store_field(r, type, f, msg, depth);
        if (rc != 0)
            return rc;
    }
    unsigned number = 0;
    for (const struct wire_field *f = type->fields; f->key != NULL; f++, number++)
        if (f->required && (seen >> number & 1) == 0)
            return refuse(r, type, f->key, "missing");
    return 0;
}

int wire_decode(const struct wire_type *type, const void *buf, size_t len, void *msg, char *why)
{
    struct reader r = {.p = buf, .end = (const uint8_t *)buf + len, .why = why};
    struct value map;
    memset(msg, 0, type->size);
    if (len == 0 || !take_value(&r, &map))
        return refuse(&r, type, NULL, "cut short or malformed");
    const int rc = read_struct(&r, type, msg, &map, 1);
    if (rc == 0 && r.p != r.end)
        return refuse(&r, type, NULL, "bytes behind the message");
    return rc;
}
