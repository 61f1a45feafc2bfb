/* placement.c: which partition a stripe belongs to. Part of the disk format: a change of one bit here loses
 * all data. */
#include "common/table/table.h"

/* Finaliser of the splitmix64 generator: each output bit depends on each input bit, and it is one to one. */
static inline uint64_t mix64(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    x ^= x >> 31;
    return x;
}

/* The stripes of one family are one sequence of splitmix64 that starts at a point given by the family: no two
 * stripes of a family share a hash, and families that are neighbours (ids are given in order) start far from
 * one another. */
uint64_t placement_hash(uint64_t family, uint64_t stripe)
{
    const uint64_t golden = 0x9e3779b97f4a7c15ull;
    return mix64(mix64(family + golden) + (stripe + 1) * golden);
}
