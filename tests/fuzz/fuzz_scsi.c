/*
 * fuzz_scsi.c: what an array answers (scsi_data.h). First byte: which; the rest: the bytes that arrived. What
 * is accepted must be usable: no size that overflows, no key that did not arrive.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "common/rng.h"
#include "services/san/scsi_data.h"

static void on_capacity(const uint8_t *data, size_t len)
{
    struct scsi_capacity c;
    if (scsi_parse_capacity16(data, len, &c) != 0)
        return;
    MUST(c.block_bytes == SECTOR_BYTES || c.block_bytes == UNIT_BYTES);
    MUST(c.size > 0 && c.size % c.block_bytes == 0 && c.size <= INT64_MAX);
}

static void on_pages(const uint8_t *data, size_t len)
{
    struct scsi_limits limits;
    bool flag;
    (void)scsi_parse_block_limits(data, len, &limits);
    (void)scsi_parse_provisioning(data, len, &flag);
    (void)scsi_parse_characteristics(data, len, &flag);
}

static void on_keys(const uint8_t *data, size_t len)
{
    struct scsi_keys k;
    if (scsi_parse_keys(data, len, &k) == 0)
        MUST(k.count <= SCSI_KEYS_MAX && 8 + 8u * k.count <= len);
}

static void on_reservation(const uint8_t *data, size_t len)
{
    struct scsi_reservation r;
    if (scsi_parse_reservation(data, len, &r) == 0)
        MUST(!r.held || len >= 16);
}

static void (*const readers[])(const uint8_t *data, size_t len) = {on_capacity, on_pages, on_keys,
                                                                   on_reservation};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t *copy = malloc(size); /* a byte behind what arrived is found by the sanitizer */
    MUST(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    uint8_t *exact = realloc(copy, size - 1 > 0 ? size - 1 : 1);
    MUST(exact != NULL);
    readers[data[0] % ARRAY_LEN(readers)](exact, size - 1);
    free(exact);
    return 0;
}

static void put(uint8_t *out, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        out[i] = (uint8_t)(v >> 8 * (bytes - 1 - i));
}

size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    struct rng r;
    rng_seed(&r, seed);
    memset(out, 0, min_u64(cap, 1024));
    out[0] = (uint8_t)rng_below(&r, ARRAY_LEN(readers));
    uint8_t *at = out + 1;
    uint64_t keys = rng_below(&r, 40);
    switch (out[0]) {
    case 0:
        put(at, rng_below(&r, 1ull << 40), 8);
        put(at + 8, rng_chance(&r, 1, 2) ? 512 : 4096, 4);
        return 33;
    case 1:
        at[1] = (uint8_t)(0xb0 + rng_below(&r, 3));
        put(at + 2, 60, 2);
        rng_fill(&r, at + 4, 60);
        return 65;
    case 2:
        put(at + 4, 8 * keys, 4);
        rng_fill(&r, at + 8, 8 * keys);
        return 1 + 8 + 8 * keys;
    default:
        put(at + 4, rng_chance(&r, 1, 4) ? 0 : 16, 4);
        rng_fill(&r, at + 8, 16);
        return 25;
    }
}
