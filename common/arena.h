/*
 * arena.h: large pieces of memory that devices work with for as long as the process lives.
 *
 * In huge pages where the host has reserved some (vm.nr_hugepages): then a device's tables are 512 times
 * smaller. Else in normal pages that the kernel is asked to join. Thread: any.
 */
#ifndef CISTERN_COMMON_ARENA_H
#define CISTERN_COMMON_ARENA_H

#include "common/base.h"

#define ARENA_HUGE_BYTES (2u << 20)

/* Zeroed, aligned to pages, bytes rounded up to huge pages. NULL: out of memory. huge: whether it got them;
 * may be NULL. */
void *arena_map(size_t bytes, bool *huge);
/* The same bytes as given to arena_map. NULL is fine. */
void arena_unmap(void *base, size_t bytes);

#endif
