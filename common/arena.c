/* arena.c: see the header. */
#include "common/arena.h"

#include <errno.h>
#include <sys/mman.h>

/* A reservation is not enough where a container's limit of huge pages is below it: there the first touch
 * would be a SIGBUS. Asking for all of them now tells. Kernels before 5.14 cannot be asked (EINVAL). */
static bool huge_pages_come(void *at, size_t len)
{
    return madvise(at, len, MADV_POPULATE_WRITE) == 0 || errno == EINVAL;
}

void *arena_map(size_t bytes, bool *huge)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    const size_t len = round_up(bytes, ARENA_HUGE_BYTES);
    void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1, 0);
    if (at != MAP_FAILED && !huge_pages_come(at, len)) {
        (void)munmap(at, len);
        at = MAP_FAILED;
    }
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
