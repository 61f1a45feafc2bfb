/*
 * fuzz_fabric_verbs_frame.c: the decoder of what a peer sends by verbs: counts, lengths and segments that it
 * lets through are in bounds. The first byte chooses whether the peer has proved itself.
 */
#include "common/rng.h"
#include "rdma/fabric_verbs_frame.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void check(const struct verbs_decoded *d, const uint8_t *data, uint32_t bytes, bool up)
{
    const struct verbs_frame *f = &d->frame;
    uint64_t total[2] = {0, 0};
    unsigned count = (unsigned)f->source_count + f->sink_count;
    MUST(f->magic == VERBS_FRAME_MAGIC && count <= VERBS_SEGS);
    MUST(up || (f->type != VERBS_FRAME_MESSAGE && f->credits == 0 && count == 0));
    MUST(d->body >= data && d->body + f->len == data + bytes && f->len <= FABRIC_MESSAGE_MAX);
    for (unsigned i = 0; i < count; i++) {
        MUST(d->seg[i].len > 0 && d->seg[i].key != 0 && d->seg[i].addr + d->seg[i].len >= d->seg[i].addr);
        total[i >= f->source_count] += d->seg[i].len;
    }
    MUST(total[0] == d->source_len && total[1] == d->sink_len);
    MUST(d->source_len <= FABRIC_PAYLOAD_MAX && d->sink_len <= FABRIC_PAYLOAD_MAX);
    MUST((f->source_count <= 1 && f->sink_count <= 1) || f->slot < VERBS_SLOTS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct verbs_decoded d;
    if (size < 1 || size > 65536)
        return 0;
    bool up = data[0] != 0;
    uint32_t bytes = (uint32_t)size - 1;
    uint8_t *copy = malloc(bytes ? bytes : 1); /* exactly as long: a byte too far is seen */
    MUST(copy != NULL);
    memcpy(copy, data + 1, bytes);
    if (verbs_frame_decode(copy, bytes, up, &d))
        check(&d, copy, bytes, up);
    free(copy);
    return 0;
}

size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    struct rng rng;
    rng_seed(&rng, seed);
    struct verbs_frame f = {.magic = VERBS_FRAME_MAGIC, .type = (uint8_t)(1 + rng_below(&rng, 8))};
    if (rng_chance(&rng, 1, 2))
        f.type = VERBS_FRAME_MESSAGE;
    bool up = f.type > VERBS_FRAME_CLOSE;
    f.slot = (uint16_t)(1 + rng_below(&rng, FABRIC_DOWN_UNREACHABLE));
    f.credits = up ? (uint16_t)(1 + rng_below(&rng, 64)) : 0;
    if (f.type == VERBS_FRAME_AUTH)
        f.len = sizeof(struct fabric_auth);
    if (f.type == VERBS_FRAME_MESSAGE) {
        f.len = 1 + (uint32_t)rng_below(&rng, 600);
        f.source_count = (uint8_t)rng_below(&rng, FABRIC_SGE_MAX + 1);
        f.sink_count = (uint8_t)rng_below(&rng, 3);
    }
    size_t at = 1, segs = (size_t)f.source_count + f.sink_count;
    MUST(1 + sizeof(f) + segs * sizeof(struct verbs_seg) + f.len <= cap);
    out[0] = up;
    memcpy(out + at, &f, sizeof(f));
    at += sizeof(f);
    for (size_t i = 0; i < segs; i++, at += sizeof(struct verbs_seg)) {
        struct verbs_seg s = {rng_u64(&rng) >> 1, 1 + (uint32_t)rng_below(&rng, 4096), 1};
        memcpy(out + at, &s, sizeof(s));
    }
    memset(out + at, 0x5a, f.len);
    return at + f.len;
}
