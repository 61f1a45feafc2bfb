/*
 * trace.h: a ring of the latest state transitions of a shard, and a running hash over all of them. The
 * simulator compares the hashes of two runs of one seed; must_fail prints the end of the ring.
 */
#ifndef CISTERN_COMMON_TRACE_H
#define CISTERN_COMMON_TRACE_H

#include "common/base.h"

struct trace;
int trace_create(size_t entries, struct trace **out);
void trace_destroy(struct trace *t);
/* what: a string literal (hashed by content, kept by pointer). t may be NULL (nothing happens). */
void trace_point(struct trace *t, uint64_t now_ns, const char *what, uint64_t a, uint64_t b, uint64_t c);
uint64_t trace_hash(const struct trace *t);
/* Writes the last n entries to fd, oldest first. */
void trace_dump(const struct trace *t, int fd, size_t n);
/* The trace that must_fail prints, per thread; may be NULL. */
void trace_set_current(struct trace *t);
/* trace_dump of the calling thread's trace, if it has one. */
void trace_dump_current(int fd, size_t n);

#endif
