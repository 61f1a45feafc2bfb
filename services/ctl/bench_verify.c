/*
 * bench_verify.c: patterns that say where and when they were written.
 *
 * A sector: its offset in the volume, its generation mixed with the seed, then words of a generator that
 * those two start. So a sector that lies in the wrong place, an old one, and one of which a half is old all
 * show, and the first two words tell what it was.
 */
#include "services/ctl/bench.h"

#include <stdlib.h>
#include <string.h>

enum { WORDS = SECTOR_BYTES / sizeof(uint64_t) };
#define GENERATION_BITS 0x7fffffffull

int bench_verify_init(struct bench_verify *v, uint64_t seed, uint32_t io_bytes, uint64_t extents)
{
    MUST(io_bytes > 0 && io_bytes % SECTOR_BYTES == 0);
    uint32_t *generations = calloc(extents, sizeof(*generations));
    if (generations == NULL)
        return -ENOMEM;
    *v = (struct bench_verify){
        .seed = seed, .io_bytes = io_bytes, .extents = extents, .generations = generations};
    return 0;
}

void bench_verify_free(struct bench_verify *v)
{
    free(v->generations);
    v->generations = NULL;
}

bool bench_verify_take(struct bench_verify *v, uint64_t extent)
{
    if ((v->generations[extent] & BENCH_EXTENT_BUSY) != 0)
        return false;
    v->generations[extent] |= BENCH_EXTENT_BUSY;
    return true;
}

void bench_verify_release(struct bench_verify *v, uint64_t extent)
{
    v->generations[extent] &= ~BENCH_EXTENT_BUSY;
}

/* SplitMix64 (Steele, Lea, Flood 2014): one step of it. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* The generation in the low bits, a tag of the run above them. */
static uint64_t second_word(const struct bench_verify *v, uint64_t offset, uint32_t generation)
{
    return (mix(v->seed ^ offset) & ~GENERATION_BITS) | generation;
}

static void make_sector(const struct bench_verify *v, uint64_t offset, uint32_t generation,
                        uint64_t words[WORDS])
{
    words[0] = offset;
    words[1] = second_word(v, offset, generation);
    uint64_t x = mix(words[1]) ^ offset;
    for (unsigned i = 2; i < WORDS; i++)
        words[i] = x = mix(x);
}

static uint32_t next_generation(const struct bench_verify *v, uint64_t extent)
{
    const uint32_t g = v->generations[extent] & ~BENCH_EXTENT_BUSY;
    return g == GENERATION_BITS ? 1 : g + 1; /* 0 is for "never written" */
}

void bench_verify_fill(const struct bench_verify *v, uint64_t extent, void *buf)
{
    uint64_t words[WORDS];
    const uint32_t generation = next_generation(v, extent);
    for (uint32_t at = 0; at < v->io_bytes; at += SECTOR_BYTES) {
        make_sector(v, extent * v->io_bytes + at, generation, words);
        memcpy((uint8_t *)buf + at, words, sizeof(words));
    }
}

void bench_verify_written(struct bench_verify *v, uint64_t extent)
{
    v->generations[extent] = next_generation(v, extent) | (v->generations[extent] & BENCH_EXTENT_BUSY);
}

static void explain(const struct bench_verify *v, const uint64_t *found, struct bench_mismatch *out)
{
    const uint32_t generation = (uint32_t)(found[1] & GENERATION_BITS);
    out->found_is_ours =
        generation != 0 && found[0] % SECTOR_BYTES == 0 && found[1] == second_word(v, found[0], generation);
    out->found_offset = out->found_is_ours ? found[0] : 0;
    out->found_generation = out->found_is_ours ? generation : 0;
}

bool bench_verify_check(const struct bench_verify *v, uint64_t extent, const void *buf,
                        struct bench_mismatch *out)
{
    uint64_t words[WORDS], found[WORDS];
    const uint32_t generation = v->generations[extent] & ~BENCH_EXTENT_BUSY;
    if (generation == 0)
        return true;
    for (uint32_t at = 0; at < v->io_bytes; at += SECTOR_BYTES) {
        const uint64_t offset = extent * v->io_bytes + at;
        make_sector(v, offset, generation, words);
        memcpy(found, (const uint8_t *)buf + at, sizeof(found));
        for (unsigned i = 0; i < WORDS; i++) {
            if (found[i] == words[i])
                continue;
            *out = (struct bench_mismatch){.offset = offset + i * sizeof(uint64_t),
                                           .expected = words[i],
                                           .found = found[i],
                                           .generation = generation};
            explain(v, found, out);
            return false;
        }
    }
    return true;
}
