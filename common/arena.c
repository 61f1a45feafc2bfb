/* arena.c: see the header. */
#include "common/arena.h"

#include <sys/mman.h>

void *arena_map(size_t bytes, bool *huge)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    const size_t len = round_up(bytes, ARENA_HUGE_BYTES);
    void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1,
                    0); /* reserved here: no SIGBUS later */
    if (huge)
        *huge = at != MAP_FAILED;
    if (at != MAP_FAILED)
        return at;
    at = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    (void)madvise(at, len, MADV_HUGEPAGE); /* only makes it faster */
    return at;
}

void arena_unmap(void *base, size_t bytes)
{
    if (base)
        (void)munmap(base, round_up(bytes, ARENA_HUGE_BYTES));
}
