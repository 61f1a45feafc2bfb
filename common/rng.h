/* rng.h: the only source of randomness of service code. seeded: xoshiro256** (reproducible); system:
 * getrandom(2). */
#ifndef CISTERN_COMMON_RNG_H
#define CISTERN_COMMON_RNG_H

#include "common/base.h"

struct rng {
    uint64_t s[4];
    bool system; /* true: ask the kernel each time (keys, nonces, ids in production) */
};
void rng_seed(struct rng *rng, uint64_t seed);
/* Random from the kernel; aborts if getrandom(2) fails, which it does not after boot. */
void rng_init_system(struct rng *rng);
uint64_t rng_u64(struct rng *rng);
/* Uniform in [0, bound); bound > 0. */
uint64_t rng_below(struct rng *rng, uint64_t bound);
/* True with probability num/den. */
bool rng_chance(struct rng *rng, uint64_t num, uint64_t den);
void rng_fill(struct rng *rng, void *out, size_t len);
struct uuid rng_uuid(struct rng *rng);

#endif
