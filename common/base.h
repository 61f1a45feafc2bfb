/*
 * base.h: the few things that every file may use.
 *
 * MUST(cond) states a fact about our own code: it stays on in every build, and a
 * false one ends the process after printing where. Never use it on anything that
 * came from outside (network, disk, configuration, command line, LUN).
 */
#ifndef CISTERN_COMMON_BASE_H
#define CISTERN_COMMON_BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define KIB (1024ull)
#define MIB (1024ull * KIB)
#define GIB (1024ull * MIB)
#define TIB (1024ull * GIB)

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

/* Unit of checksums, of the written-or-not map and of versions' widening: 4 KiB. */
#define UNIT_BYTES 4096u
/* A block: what has one version. */
#define BLOCK_BYTES     (128u * 1024u)
#define UNITS_PER_BLOCK (BLOCK_BYTES / UNIT_BYTES)
/* Smallest request granularity that a front end may use. */
#define SECTOR_BYTES 512u

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}
/* a must be a power of two. */
static inline uint64_t round_up(uint64_t v, uint64_t a)
{
    return (v + a - 1) & ~(a - 1);
}
static inline uint64_t round_down(uint64_t v, uint64_t a)
{
    return v & ~(a - 1);
}
static inline bool is_pow2(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

/* Prints where and why, and the end of the calling thread's trace if there is one; aborts. Defined in base.c.
 */
void must_fail(const char *file, int line, const char *func, const char *cond)
    __attribute__((noreturn, cold));
#define MUST(cond)                                                                                           \
    do {                                                                                                     \
        if (__builtin_expect(!(cond), 0))                                                                    \
            must_fail(__FILE__, __LINE__, __func__, #cond);                                                  \
    } while (0)

/* A 128-bit identifier (cluster, volume, store): 16 random bytes, all zero = none. Printed as 32 hex digits.
 */
struct uuid {
    uint8_t b[16];
};
_Static_assert(sizeof(struct uuid) == 16, "uuid is 16 bytes");
static inline bool uuid_eq(const struct uuid *a, const struct uuid *b)
{
    return __builtin_memcmp(a->b, b->b, 16) == 0;
}
static inline bool uuid_is_zero(const struct uuid *a)
{
    static const struct uuid zero;
    return uuid_eq(a, &zero);
}
/* out must hold 33 bytes. */
void uuid_format(const struct uuid *u, char *out);
/* 0 or -EINVAL; accepts 32 hex digits, dashes ignored; *out untouched on error. */
int uuid_parse(const char *text, struct uuid *out);

/* The version of one block: given by the partition's primary, never used twice. Compares as (epoch, counter).
 * {0, 0} is "never written": absence. */
struct version {
    uint64_t epoch;
    uint64_t counter;
};
static inline int version_cmp(struct version a, struct version b)
{
    if (a.epoch != b.epoch)
        return a.epoch < b.epoch ? -1 : 1;
    return a.counter < b.counter ? -1 : a.counter > b.counter;
}

#endif
