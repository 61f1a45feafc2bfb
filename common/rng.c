/* rng.c: xoshiro256** (Blackman and Vigna, prng.di.unimi.it), its state filled by splitmix64, or the kernel.
 */
#include "common/rng.h"

#include <string.h>
#include <sys/random.h>

static uint64_t rotate_left(uint64_t v, int n)
{
    return v << n | v >> (64 - n);
}

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

void rng_seed(struct rng *rng, uint64_t seed)
{
    for (size_t i = 0; i < ARRAY_LEN(rng->s); i++)
        rng->s[i] = splitmix64(&seed);
    rng->system = false;
}

void rng_init_system(struct rng *rng)
{
    memset(rng, 0, sizeof *rng);
    rng->system = true;
    (void)rng_u64(rng);
}

static void system_fill(void *out, size_t len)
{
    uint8_t *p = out;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        MUST(n > 0);
        p += n;
        len -= (size_t)n;
    }
}

uint64_t rng_u64(struct rng *rng)
{
    if (rng->system) {
        uint64_t v;
        system_fill(&v, sizeof v);
        return v;
    }
    uint64_t *s = rng->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
    MUST(bound > 0);
    /* Values below 2^64 mod bound would make the small remainders likelier: draw again. */
    uint64_t reject_below = -bound % bound;
    for (;;) {
        uint64_t v = rng_u64(rng);
        if (v >= reject_below)
            return v % bound;
    }
}

bool rng_chance(struct rng *rng, uint64_t num, uint64_t den)
{
    return rng_below(rng, den) < num;
}

void rng_fill(struct rng *rng, void *out, size_t len)
{
    if (rng->system) {
        system_fill(out, len);
        return;
    }
    uint8_t *p = out;
    while (len > 0) {
        uint64_t v = rng_u64(rng);
        size_t n = len < sizeof v ? len : sizeof v;
        memcpy(p, &v, n);
        p += n;
        len -= n;
    }
}

struct uuid rng_uuid(struct rng *rng)
{
    struct uuid u;
    do
        rng_fill(rng, u.b, sizeof u.b);
    while (uuid_is_zero(&u));
    return u;
}
