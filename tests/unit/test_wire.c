/* wire.h, mdc_proto.h, vbs_proto.h: every message there is, at its extremes, cut, and made wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <msgpack.h>

#include "common/rng.h"
#include "rdma/rpc.h"
#include "tests/unit/wire_types.h"

static union {
    uint8_t bytes[MDC_STRUCT_MAX];
    uint64_t align;
} sent, got;
static uint8_t body[64 * 1024];

enum fill { FILL_ZERO, FILL_MOST, FILL_RANDOM };

static void fill_text(char *at, size_t size, enum fill how, struct rng *rng)
{
    const size_t len = how == FILL_ZERO ? 0 : how == FILL_MOST ? size - 1 : rng_below(rng, size);
    for (size_t i = 0; i < len; i++)
        at[i] = (char)(how == FILL_MOST ? 'w' : ' ' + (char)rng_below(rng, 95));
}

static void fill_struct(const struct wire_type *type, uint8_t *msg, enum fill how, struct rng *rng);

static void fill_field(const struct wire_field *f, uint8_t *msg, enum fill how, struct rng *rng)
{
    uint8_t *at = msg + f->offset;
    uint32_t count;
    switch (f->kind) {
    case WIRE_BOOL:
        *at = how == FILL_MOST || (how == FILL_RANDOM && rng_chance(rng, 1, 2));
        break;
    case WIRE_STR:
        fill_text((char *)at, f->size, how, rng);
        break;
    case WIRE_ARRAY:
    case WIRE_U32S:
        count = how == FILL_ZERO   ? 0
                : how == FILL_MOST ? (uint32_t)f->max
                                   : (uint32_t)rng_below(rng, f->max + 1);
        memcpy(msg + f->count_offset, &count, sizeof(count));
        for (uint32_t i = 0; i < count; i++) {
            uint8_t *item = at + f->size / f->max * i;
            if (f->kind == WIRE_ARRAY)
                fill_struct(f->item, item, how, rng);
            else
                memset(item, how == FILL_MOST ? 0xff : (int)rng_below(rng, 256), sizeof(uint32_t));
        }
        break;
    case WIRE_MAP:
        fill_struct(f->item, at, how, rng);
        break;
    default:
        if (how == FILL_MOST)
            memset(at, 0xff, f->size);
        else if (how == FILL_RANDOM)
            rng_fill(rng, at, rng_below(rng, f->size + 1));
    }
}

static void fill_struct(const struct wire_type *type, uint8_t *msg, enum fill how, struct rng *rng)
{
    memset(msg, 0, type->size);
    for (const struct wire_field *f = type->fields; f->key != NULL; f++)
        fill_field(f, msg, how, rng);
}

static size_t encode(const struct wire_type *type)
{
    size_t len = 0;
    assert_int_equal(wire_encode(type, sent.bytes, body, sizeof(body), &len), 0);
    return len;
}

static void check_round_trip(const struct wire_type *type)
{
    char why[WIRE_WHY_BYTES] = "";
    const size_t len = encode(type);
    memset(&got, 0xa5, sizeof(got));
    if (wire_decode(type, body, len, got.bytes, why) != 0)
        fail_msg("%s: %s", type->name, why);
    assert_memory_equal(sent.bytes, got.bytes, type->size);
}

static void round_trips(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 1);
    for (size_t t = 0; t < ARRAY_LEN(wire_types); t++) {
        fill_struct(wire_types[t], sent.bytes, FILL_ZERO, &rng);
        check_round_trip(wire_types[t]);
        fill_struct(wire_types[t], sent.bytes, FILL_MOST, &rng);
        check_round_trip(wire_types[t]);
        for (int i = 0; i < 200; i++) {
            fill_struct(wire_types[t], sent.bytes, FILL_RANDOM, &rng);
            check_round_trip(wire_types[t]);
        }
    }
}

/* Members of a struct that no field table mentions would silently not travel: bytes that FILL_MOST leaves
 * zero are padding, counts' upper bytes and strings' NULs only. This catches a member forgotten as a whole.
 */
static void no_member_is_forgotten(void **state)
{
    (void)state;
    struct mdc_volume_info *v = &((struct mdc_volume_reply *)(void *)sent.bytes)->volume;
    struct mdc_module_register_request *r = (void *)sent.bytes;
    struct mdc_module_info *m = ((struct mdc_module_list_reply *)(void *)sent.bytes)->items + 7;
    fill_struct(&mdc_volume_reply_type, sent.bytes, FILL_MOST, NULL);
    assert_true(v->id.b[15] && v->name[0] && v->pool[0] && v->size_bytes && v->generation && v->layer &&
                v->family && v->state && v->attachments && v->opens);
    fill_struct(&mdc_module_register_request_type, sent.bytes, FILL_MOST, NULL);
    assert_true(r->store.b[0] && r->start_counter && r->incarnation && r->module && r->kind && r->media &&
                r->host[0] && r->rack[0] && r->name[0] && r->addr[23] && r->capacity_bytes && r->used_bytes &&
                r->highest_epoch && r->highest_layer && r->highest_generation && r->highest_turn &&
                r->damaged);
    fill_struct(&mdc_module_list_reply_type, sent.bytes, FILL_MOST, NULL);
    assert_true(m->id && m->pool && m->name[0] && m->host[0] && m->rack[0] && m->pool_name[0] && m->kind &&
                m->media && m->state && m->addr[0] && m->incarnation && m->start_counter &&
                m->capacity_bytes && m->used_bytes && m->partitions && m->silent_ms && m->damaged &&
                m->reads && m->writes && m->read_bytes && m->write_bytes && m->errors);
    for (size_t t = 0; t < ARRAY_LEN(wire_types); t++) {
        const struct wire_type *type = wire_types[t];
        size_t zero_run = 0;
        fill_struct(type, sent.bytes, FILL_MOST, NULL);
        for (size_t i = 0; i < type->size && type->fields->key != NULL; i++) {
            zero_run = sent.bytes[i] == 0 ? zero_run + 1 : 0;
            if (zero_run >= 12)
                fail_msg("%s: nothing is said of byte %zu", type->name, i);
        }
    }
}

static unsigned table_check(const struct wire_type *type)
{
    unsigned fields = 0;
    assert_true(type->size <= MDC_STRUCT_MAX);
    for (const struct wire_field *f = type->fields; f->key != NULL; f++, fields++) {
        static const size_t sizes[] = {
            [WIRE_BOOL] = 1, [WIRE_U8] = 1, [WIRE_U16] = 2, [WIRE_U32] = 4, [WIRE_U64] = 8};
        if (f->kind <= WIRE_U64)
            assert_int_equal(f->size, sizes[f->kind]);
        assert_true(strlen(f->key) <= 8 && strlen(f->key) > 0);
        assert_true(f->offset + f->size <= type->size);
        for (const struct wire_field *g = type->fields; g != f; g++) {
            assert_string_not_equal(g->key, f->key);
            assert_true(g->offset + g->size <= f->offset || f->offset + f->size <= g->offset);
        }
        if (f->kind == WIRE_ARRAY || f->kind == WIRE_MAP) {
            assert_int_equal(f->size, f->item->size * (f->kind == WIRE_ARRAY ? f->max : 1));
            table_check(f->item);
        }
    }
    assert_true(fields <= WIRE_FIELDS_MAX);
    return fields;
}

static void tables_fit_their_structs(void **state)
{
    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(wire_types); t++)
        assert_true(table_check(wire_types[t]) > 0 || wire_types[t] == &mdc_empty_type);
}

static void longest_fits_one_message(void **state)
{
    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(wire_types); t++) {
        fill_struct(wire_types[t], sent.bytes, FILL_MOST, NULL);
        const size_t len = encode(wire_types[t]);
        if (len > RPC_BODY_MAX)
            fail_msg("%s: %zu bytes with the longest values", wire_types[t]->name, len);
    }
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(wire_types); t++) {
        char why[WIRE_WHY_BYTES];
        fill_struct(wire_types[t], sent.bytes, FILL_MOST, NULL);
        const size_t len = encode(wire_types[t]);
        for (size_t cut = 0; cut < len; cut++) {
            uint8_t *part =
                malloc(cut + 1); /* on the heap, so that the sanitizer sees a byte read beyond it */
            assert_non_null(part);
            memcpy(part, body, cut);
            why[0] = 0;
            assert_int_equal(wire_decode(wire_types[t], part, cut, got.bytes, why), -EPROTO);
            assert_true(why[0] != 0);
            free(part);
        }
        body[len] = 0xc0;
        assert_int_equal(wire_decode(wire_types[t], body, len + 1, got.bytes, NULL), -EPROTO);
    }
}

static void each_buffer_too_small_is_noticed(void **state)
{
    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(wire_types); t++) {
        size_t len = 0, untouched = 77;
        fill_struct(wire_types[t], sent.bytes, FILL_MOST, NULL);
        len = encode(wire_types[t]);
        for (size_t cap = 0; cap < len; cap++)
            assert_int_equal(wire_encode(wire_types[t], sent.bytes, body, cap, &untouched), -EMSGSIZE);
        assert_int_equal(untouched, 77);
        assert_int_equal(wire_encode(wire_types[t], sent.bytes, body, len, &len), 0);
    }
}

/* Another implementation of msgpack reads what ours writes. */
static void the_library_reads_it(void **state)
{
    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(wire_types); t++) {
        msgpack_unpacked u;
        size_t off = 0, fields = 0;
        fill_struct(wire_types[t], sent.bytes, FILL_MOST, NULL);
        const size_t len = encode(wire_types[t]);
        msgpack_unpacked_init(&u);
        assert_int_equal(msgpack_unpack_next(&u, (const char *)body, len, &off), MSGPACK_UNPACK_SUCCESS);
        assert_int_equal(off, len);
        assert_int_equal(u.data.type, MSGPACK_OBJECT_MAP);
        for (const struct wire_field *f = wire_types[t]->fields; f->key != NULL; f++)
            fields++;
        assert_int_equal(u.data.via.map.size, fields);
        msgpack_unpacked_destroy(&u);
    }
}

/* ---- one small type, by hand ---- */
struct inner {
    uint32_t a;
};
struct small {
    bool flag;
    uint8_t u8;
    uint16_t u16;
    uint64_t u64;
    char text[6];
    uint8_t bin[3];
    struct inner items[2];
    uint32_t count;
    struct inner one;
};
static const struct wire_field inner_fields[] = {WIRE_F(struct inner, "a", WIRE_U32, a, false), WIRE_END};
static const struct wire_type inner_type = {
    .name = "inner", .size = sizeof(struct inner), .fields = inner_fields};
static const struct wire_field small_fields[] = {
    WIRE_F(struct small, "f", WIRE_BOOL, flag, false),
    WIRE_F(struct small, "b", WIRE_U8, u8, true),
    WIRE_F(struct small, "h", WIRE_U16, u16, false),
    WIRE_F(struct small, "u", WIRE_U64, u64, false),
    WIRE_F(struct small, "s", WIRE_STR, text, false),
    WIRE_F(struct small, "x", WIRE_BIN, bin, false),
    WIRE_A(struct small, "i", items, count, &inner_type),
    WIRE_M(struct small, "m", one, &inner_type, false),
    WIRE_END,
};
static const struct wire_type small_type = {
    .name = "small", .size = sizeof(struct small), .fields = small_fields};

/* Decodes literal bytes; b is required, so each literal has it unless that is the point. */
static int decode_literal(const char *bytes, size_t len, struct small *out, char *why)
{
    uint8_t *copy = malloc(len + 1);
    assert_non_null(copy);
    memcpy(copy, bytes, len);
    const int rc = wire_decode(&small_type, copy, len, out, why);
    free(copy);
    return rc;
}
#define DECODE(lit) decode_literal(lit, sizeof(lit) - 1, &m, why)

static void accepted(void **state)
{
    (void)state;
    struct small m;
    char why[WIRE_WHY_BYTES];
    assert_int_equal(DECODE("\x81\xa1"
                            "b\x07"),
                     0);
    assert_int_equal(m.u8, 7);
    /* the same number in each width, signed too; a map and a key in their long forms */
    assert_int_equal(DECODE("\x81\xa1"
                            "b\xcc\x07"),
                     0);
    assert_int_equal(DECODE("\x81\xa1"
                            "b\xcd\x00\x07"),
                     0);
    assert_int_equal(DECODE("\x81\xa1"
                            "b\xcf\x00\x00\x00\x00\x00\x00\x00\x07"),
                     0);
    assert_int_equal(DECODE("\x81\xa1"
                            "b\xd0\x07"),
                     0);
    assert_int_equal(DECODE("\x81\xa1"
                            "b\xd3\x00\x00\x00\x00\x00\x00\x00\x07"),
                     0);
    assert_int_equal(DECODE("\xde\x00\x01\xd9\x01"
                            "b\x07"),
                     0);
    assert_int_equal(DECODE("\xdf\x00\x00\x00\x01\xdb\x00\x00\x00\x01"
                            "b\x07"),
                     0);
    assert_int_equal(m.u8, 7);
    /* unknown keys of every kind are ignored, before and after known ones */
    assert_int_equal(DECODE("\x8a\xa1"
                            "A\xc0\xa1"
                            "B\xc3\xa1"
                            "C\xca\x3f\x80\x00\x00\xa1"
                            "D\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"
                            "\xa1"
                            "E\xd4\x05\x00\xa1"
                            "b\xcc\xff\xa1"
                            "F\xc7\x02\x05xy\xa1"
                            "G\xff\xa1"
                            "H\x92\x01\x81\xa1q\xc2"
                            "\xa0\xd1\xff\xff"),
                     0);
    assert_int_equal(m.u8, 255);
}

static void accepted_fields(void **state)
{
    (void)state;
    struct small m;
    char why[WIRE_WHY_BYTES];
    /* strings up to the room, UTF-8 in them */
    assert_int_equal(DECODE("\x82\xa1"
                            "b\x01\xa1s\xa5"
                            "abcde"),
                     0);
    assert_string_equal(m.text, "abcde");
    assert_int_equal(DECODE("\x82\xa1"
                            "b\x01\xa1s\xa4\xf0\x9f\x92\xa7"),
                     0);
    assert_int_equal(DECODE("\x82\xa1"
                            "b\x01\xa1x\xc4\x03\x01\x02\x03"),
                     0);
    assert_memory_equal(m.bin, "\x01\x02\x03", 3);
    assert_int_equal(DECODE("\x83\xa1"
                            "b\x01\xa1i\x92\x81\xa1"
                            "a\x05\x80\xa1m\x81\xa1"
                            "a\x09"),
                     0);
    assert_int_equal(m.count, 2);
    assert_int_equal(m.items[0].a, 5);
    assert_int_equal(m.items[1].a, 0);
    assert_int_equal(m.one.a, 9);
    /* as deep as is allowed, in an unknown key: map, then three arrays */
    assert_int_equal(DECODE("\x82\xa1"
                            "b\x01\xa1z\x91\x91\x91\x05"),
                     0);
}

#define REFUSED(lit, what)                                                                                   \
    do {                                                                                                     \
        why[0] = 0;                                                                                          \
        assert_int_equal(DECODE(lit), -EPROTO);                                                              \
        if (strstr(why, what) == NULL)                                                                       \
            fail_msg("said \"%s\" instead of \"%s\"", why, what);                                            \
    } while (0)

static void refused(void **state)
{
    (void)state;
    struct small m;
    char why[WIRE_WHY_BYTES];
    REFUSED("", "small: cut short");
    REFUSED("\x90", "small: not a map");
    REFUSED("\x80", "small.b: missing");
    REFUSED("\x81\xa1"
            "b\xff",
            "small.b: negative");
    REFUSED("\x81\xa1"
            "b\xd0\x80",
            "small.b: negative");
    REFUSED("\x81\xa1"
            "b\xca\x3f\x80\x00\x00",
            "small.b: not a whole number");
    REFUSED("\x81\xa1"
            "b\xc0",
            "small.b: not a whole number");
    REFUSED("\x81\xa1"
            "b\xcd\x01\x00",
            "small.b: number out of range");
    REFUSED("\x82\xa1"
            "b\x01\xa1h\xce\x00\x01\x00\x00",
            "small.h: number out of range");
    REFUSED("\x82\xa1"
            "b\x01\xa1"
            "b\x01",
            "small.b: comes twice");
    REFUSED("\x81\x01\x01", "a key");
    REFUSED("\x81\xc4\x01"
            "b\x01",
            "a key");
    REFUSED("\x82\xa1"
            "b\x01\xa1"
            "f\x01",
            "small.f: not true or false");
    REFUSED("\x82\xa1"
            "b\x01\xa1s\xa6"
            "abcdef",
            "small.s: string too long");
    REFUSED("\x82\xa1"
            "b\x01\xa1s\xc4\x01"
            "a",
            "small.s: not a string");
    REFUSED("\x82\xa1"
            "b\x01\xa1s\xa2"
            "a\0",
            "small.s: string with a NUL");
    REFUSED("\x82\xa1"
            "b\x01\xa1s\xa1\x80",
            "broken UTF-8");
    REFUSED("\x82\xa1"
            "b\x01\xa1s\xa2\xc0\x80",
            "broken UTF-8");
    REFUSED("\x82\xa1"
            "b\x01\xa1s\xa3\xed\xa0\x80",
            "broken UTF-8");
    REFUSED("\x82\xa1"
            "b\x01\xa1s\xa4\xf4\x90\x80\x80",
            "broken UTF-8");
    REFUSED("\x82\xa1"
            "b\x01\xa1s\xa2\xe2\x82",
            "broken UTF-8");
}

static void refused_items(void **state)
{
    (void)state;
    struct small m;
    char why[WIRE_WHY_BYTES];
    REFUSED("\x82\xa1"
            "b\x01\xa1x\xc4\x02\x01\x02",
            "small.x: not bytes of the right length");
    REFUSED("\x82\xa1"
            "b\x01\xa1x\xa3\x01\x02\x03",
            "small.x: not bytes of the right length");
    REFUSED("\x82\xa1"
            "b\x01\xa1i\x93\x80\x80\x80",
            "small.i: too many items");
    REFUSED("\x82\xa1"
            "b\x01\xa1i\x80",
            "small.i: not an array");
    REFUSED("\x82\xa1"
            "b\x01\xa1i\x91\x01",
            "inner: not a map");
    REFUSED("\x82\xa1"
            "b\x01\xa1m\x91\x01",
            "inner: not a map");
    REFUSED("\x82\xa1"
            "b\x01\xa1i\x91\x81\xa1"
            "a\xcf\x00\x00\x00\x01\x00\x00\x00\x00",
            "inner.a: number out of range");
    REFUSED("\x82\xa1"
            "b\x01\xa1z\xc1",
            "unknown key");
    REFUSED("\x82\xa1"
            "b\x01\xa1z\x91\x91\x91\x91\x05",
            "nested too deep");
}

static void refused_claims(void **state)
{
    (void)state;
    struct small m;
    char why[WIRE_WHY_BYTES];
    /* lengths that only claim: refused before anything is done for them */
    REFUSED("\xdf\xff\xff\xff\xff\xa1"
            "b\x01",
            "cut short");
    REFUSED("\x82\xa1"
            "b\x01\xa1z\xdd\xff\xff\xff\xff\x01",
            "unknown key");
    REFUSED("\x82\xa1"
            "b\x01\xa1s\xdb\xff\xff\xff\xff"
            "a",
            "small.s: cut short");
    REFUSED("\x82\xa1"
            "b\x01\xa1x\xc6\xff\xff\xff\xff"
            "a",
            "small.x: cut short");
    REFUSED("\x82\xa1"
            "b\x01\xa1z\xc9\xff\xff\xff\xff"
            "a",
            "unknown key");
    REFUSED("\x81\xa1"
            "b\x01\x00",
            "bytes behind");
}

static void deep_nesting_is_bounded(void **state)
{
    (void)state;
    struct small m;
    uint8_t deep[8000] = "\x82\xa1"
                         "b\x01\xa1z";
    memset(deep + 6, 0x91, sizeof(deep) - 6);
    assert_int_equal(wire_decode(&small_type, deep, sizeof(deep), &m, NULL), -EPROTO);
    memset(deep + 6, 0x81, sizeof(deep) - 6);
    assert_int_equal(wire_decode(&small_type, deep, sizeof(deep), &m, NULL), -EPROTO);
}

static void broken_text_goes_out_readable(void **state)
{
    (void)state;
    struct mdc_error e = {.text = "volume \xc3\xa4\xe2\x82 is\xff"}, back;
    size_t len;
    assert_int_equal(wire_encode(&mdc_error_type, &e, body, sizeof(body), &len), 0);
    assert_int_equal(wire_decode(&mdc_error_type, body, len, &back, NULL), 0);
    assert_string_equal(back.text, "volume \xc3\xa4?? is?");
}

/* Random damage never does more than be refused or give a struct within its bounds. */
static void damage(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 7);
    for (size_t t = 0; t < ARRAY_LEN(wire_types); t++) {
        for (int i = 0; i < 300; i++) {
            fill_struct(wire_types[t], sent.bytes, FILL_RANDOM, &rng);
            const size_t len = encode(wire_types[t]);
            uint8_t *part = malloc(len);
            assert_non_null(part);
            memcpy(part, body, len);
            for (int k = 0; k < 3; k++)
                part[rng_below(&rng, len)] = (uint8_t)rng_below(&rng, 256);
            if (wire_decode(wire_types[t], part, len, got.bytes, NULL) == 0)
                (void)wire_encode(wire_types[t], got.bytes, body, sizeof(body),
                                  &(size_t){0}); /* MUSTs hold */
            free(part);
        }
    }
}

static void names(void **state)
{
    (void)state;
    char longest[MDC_NAME_MAX + 1];
    memset(longest, 'a', sizeof(longest));
    longest[MDC_NAME_MAX - 1] = 0;
    assert_true(mdc_name_valid(longest));
    longest[MDC_NAME_MAX - 1] = 'a';
    longest[MDC_NAME_MAX] = 0;
    assert_false(mdc_name_valid(longest));
    assert_true(mdc_name_valid("vol-1.b_C"));
    assert_true(mdc_name_valid("_x"));
    assert_true(mdc_name_valid("0"));
    static const char *const bad[] = {"", "-a", ".a", "..", "a/b", "a b", "a\n", "\xc3\xa4", "a:b", "a,b"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(mdc_name_valid(bad[i]));
    /* fixed for ever: modules keep them; by sha256sum(1) */
    assert_true(host_id_from_name("node1") == 0x295fbf8c1bf312caull);
    assert_true(host_id_from_name("") == 0x141cfc9842c4b0e3ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),
        cmocka_unit_test(no_member_is_forgotten),
        cmocka_unit_test(tables_fit_their_structs),
        cmocka_unit_test(longest_fits_one_message),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(each_buffer_too_small_is_noticed),
        cmocka_unit_test(the_library_reads_it),
        cmocka_unit_test(accepted),
        cmocka_unit_test(accepted_fields),
        cmocka_unit_test(refused),
        cmocka_unit_test(refused_items),
        cmocka_unit_test(refused_claims),
        cmocka_unit_test(deep_nesting_is_bounded),
        cmocka_unit_test(broken_text_goes_out_readable),
        cmocka_unit_test(damage),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
