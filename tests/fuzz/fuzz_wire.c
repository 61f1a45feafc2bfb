/*
 * fuzz_wire.c: the control message decoder. First byte: which type; the rest: the body. What is accepted must
 * be encodable, and the encoding must be read back as the same struct.
 */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "common/rng.h"
#include "tests/unit/wire_types.h"

static union {
    uint8_t bytes[MDC_STRUCT_MAX];
    uint64_t align;
} first, second;
static uint8_t body[64 * 1024];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const struct wire_type *type = wire_types[data[0] % ARRAY_LEN(wire_types)];
    char why[WIRE_WHY_BYTES];
    size_t len;
    if (wire_decode(type, data + 1, size - 1, first.bytes, why) != 0) {
        MUST(strlen(why) > 0);
        return 0;
    }
    MUST(wire_encode(type, first.bytes, body, sizeof(body), &len) == 0);
    MUST(wire_decode(type, body, len, second.bytes, NULL) == 0);
    MUST(memcmp(first.bytes, second.bytes, type->size) == 0);
    return 0;
}

/* Random structs: numbers and bytes only, and as many list items as come. */
static void fill(const struct wire_type *type, uint8_t *msg, struct rng *rng)
{
    for (const struct wire_field *f = type->fields; f->key != NULL; f++) {
        uint8_t *at = msg + f->offset;
        uint32_t count;
        switch (f->kind) {
        case WIRE_BOOL:
            *at = rng_chance(rng, 1, 2);
            break;
        case WIRE_STR:
            memset(at, 'x', rng_below(rng, f->size));
            break;
        case WIRE_MAP:
            fill(f->item, at, rng);
            break;
        case WIRE_ARRAY:
        case WIRE_U32S:
            count = (uint32_t)rng_below(rng, f->max + 1);
            memcpy(msg + f->count_offset, &count, sizeof(count));
            for (uint32_t i = 0; i < count && f->kind == WIRE_ARRAY; i++)
                fill(f->item, at + f->item->size * i, rng);
            break;
        default:
            rng_fill(rng, at, rng_below(rng, f->size + 1));
        }
    }
}

size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    struct rng rng;
    size_t len = 0;
    rng_seed(&rng, seed);
    memset(&first, 0, sizeof(first));
    out[0] = (uint8_t)(seed % ARRAY_LEN(wire_types));
    fill(wire_types[out[0]], first.bytes, &rng);
    MUST(wire_encode(wire_types[out[0]], first.bytes, out + 1, cap - 1, &len) == 0);
    return len + 1;
}
