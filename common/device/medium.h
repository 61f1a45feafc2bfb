/*
 * medium.h: the content of a simulated medium (RAM and sim devices): what was written, what is durable, and
 * what a loss of power may leave.
 *
 * Two images are kept: the view (what reads see: every completed write) and the durable one, with the
 * completed writes in between, in order, as the log of what a crash may drop or tear. Chunks of 32 KiB,
 * allocated on the first write, shared between images and clones until changed, so a clone of a large medium
 * is cheap. Test code only: allocates freely; out of memory is a failed MUST. Thread: the caller's.
 */
#ifndef CISTERN_COMMON_DEVICE_MEDIUM_H
#define CISTERN_COMMON_DEVICE_MEDIUM_H

#include "common/device/device.h"
#include "common/rng.h"

#define MEDIUM_CHUNK_BYTES (32u * 1024u)

struct medium;

/* A blank medium: reads as zeroes. size and io_bytes multiples of atom_bytes, size a multiple of io_bytes. */
struct medium *medium_create(uint64_t size, uint32_t io_bytes, uint32_t atom_bytes);
void medium_destroy(struct medium *m);
/* An independent medium with the same content and the same unflushed writes; faults are not copied. */
struct medium *medium_clone(const struct medium *m);
uint64_t medium_size(const struct medium *m);
uint32_t medium_io_bytes(const struct medium *m);
uint32_t medium_atom_bytes(const struct medium *m);

/* ---- content ---- */
/* What a read sees: every write so far, durable or not. */
void medium_read(const struct medium *m, uint64_t offset, void *out, uint64_t length);
/* A completed write. durable: at once; else when a flush covers it. -ENOSPC: over the limit, nothing was
 * written. */
int medium_write(struct medium *m, uint64_t offset, const void *data, uint64_t length, bool durable);
/* As medium_write, for some pieces of atom_bytes only: a write that was cut off. */
void medium_write_torn(struct medium *m, uint64_t offset, const void *data, uint64_t length, bool durable,
                       struct rng *rng);
/* A completed discard. The range reads as zeroes, or, where rng says so (may be NULL: never), still as
 * before. */
void medium_discard(struct medium *m, uint64_t offset, uint64_t length, bool durable, struct rng *rng);
/* Number of the latest completed write or discard. */
uint64_t medium_sequence(const struct medium *m);
/* A completed flush, submitted when medium_sequence was sequence: what completed by then is durable. */
void medium_flush(struct medium *m, uint64_t sequence);
uint64_t medium_unflushed(const struct medium *m);
/* Power loss: each unflushed write survives whole, in some pieces of atom_bytes, or not, independently. */
void medium_crash(struct medium *m, struct rng *rng);

/* ---- faults ---- */
/* Rot: flips one bit in each started 512 bytes of the range, in what is read and what is durable. No error is
 * given. */
void medium_corrupt(struct medium *m, uint64_t offset, uint64_t length, struct rng *rng);
/* Requests of the kinds in ops (bits 1 << enum device_op) that touch the range fail with rc (-EIO ...); rc 0
 * ends all faults that overlap the range for these kinds. A range for flushes: any. */
void medium_fail_range(struct medium *m, unsigned ops, uint64_t offset, uint64_t length, int rc);
/* The n-th request of this kind from now (1 = the next) fails with rc. 0 forgets. */
void medium_fail_nth(struct medium *m, enum device_op op, uint64_t n, int rc);
/* What a request meets: 0 or the fault's rc. Counts for medium_fail_nth. */
int medium_fault(struct medium *m, enum device_op op, uint64_t offset, uint64_t length);
/* Thin: writes into unallocated chunks fail with -ENOSPC once so much is allocated. UINT64_MAX = no limit. */
void medium_limit(struct medium *m, uint64_t bytes);
uint64_t medium_allocated(const struct medium *m);
/* All content gone (a new, blank disk). */
void medium_blank(struct medium *m);
/* The content becomes that of an earlier clone (a disk restored from a copy). from is unchanged. */
void medium_restore(struct medium *m, const struct medium *from);

#endif
