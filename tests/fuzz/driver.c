/*
 * driver.c: runs a fuzz target without a fuzzer, on inputs from fixed seeds, whole and damaged; or on files
 * named on the command line (a finding of libFuzzer, say). --seeds DIR
 * writes 200 well-formed inputs there, for libFuzzer to start from.
 */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"

enum { INPUT_MAX = 256 * 1024, ROUNDS = 3000 };

static void damage(struct rng *rng, uint8_t *data, size_t *size)
{
    const uint64_t times = rng_below(rng, 8);
    for (uint64_t i = 0; i<times && * size> 0; i++) {
        uint8_t *at = data + rng_below(rng, *size);
        switch (rng_below(rng, 4)) {
        case 0:
            *at = (uint8_t)rng_u64(rng);
            break;
        case 1:
            *at ^= (uint8_t)(1u << rng_below(rng, 8));
            break;
        case 2:
            *at = rng_chance(rng, 1, 2) ? 0xff : 0;
            break;
        default:
            *size -= rng_below(rng, *size / 4 + 1);
        }
    }
}

/* A copy of exactly the input's size, so that the sanitizer sees any byte read behind it. */
static void feed(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size + 1);
    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static int feed_file(const char *path, uint8_t *data)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        return 1;
    }
    const size_t size = fread(data, 1, INPUT_MAX, f);
    fclose(f);
    feed(data, size);
    return 0;
}

static int write_seeds(const char *dir, uint8_t *data)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/seed%lu", dir, (unsigned long)seed);
        const size_t size = fuzz_seed(seed, data, INPUT_MAX);
        FILE *f = fopen(path, "wb");
        if (f == NULL || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
            perror(path);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    int rc = 0;
    uint8_t *data = malloc(INPUT_MAX);
    if (data == NULL)
        return 1;
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0) {
        rc = write_seeds(argv[2], data);
        free(data);
        return rc;
    }
    for (int i = 1; i < argc; i++)
        rc |= feed_file(argv[i], data);
    const unsigned rounds = &fuzz_rounds != NULL ? fuzz_rounds : ROUNDS;
    for (uint64_t seed = 1; seed <= rounds && argc == 1; seed++) {
        struct rng rng;
        rng_seed(&rng, seed);
        size_t size = fuzz_seed(seed, data, INPUT_MAX);
        if (size == 0) {
            size = rng_below(&rng, 512);
            rng_fill(&rng, data, size);
        }
        feed(data, size);
        damage(&rng, data, &size);
        feed(data, size);
    }
    free(data);
    return rc;
}
