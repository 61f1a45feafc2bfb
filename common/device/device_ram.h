/*
 * device_ram.h: a device in memory for unit tests, driven by hand: nothing completes until the test pumps, in
 * an order that the seed gives. It can stop after the n-th persist and then yield what a loss of power would
 * have left.
 *
 *     for (n = 1;; n++) {
 *         dev = device_ram_create(size, 4096, 512, seed);
 *         device_ram_crash_after(dev, n);
 *         run(dev);                                  // submits; device_ram_pump(dev, UINT_MAX) until done or
 * crashed if (!device_ram_crashed(dev)) break;       // survived to the end: every step was tried for (s = 0;
 * s < 5; s++) { image = device_ram_crash_image(dev, s); check(image); device_destroy(image); }
 *         device_destroy(dev);
 *     }
 *
 * Needs no env. After device_submit the device holds its own copy of what is written, and once it has crashed
 * or was killed it never touches the caller's requests again: their owner may be gone when an image is taken.
 * The fields of struct device may be changed right after creation (durable_writes = true and atom_bytes 8
 * make it a pmem).
 */
#ifndef CISTERN_COMMON_DEVICE_DEVICE_RAM_H
#define CISTERN_COMMON_DEVICE_DEVICE_RAM_H

#include "common/device/device.h"
#include "common/device/medium.h"

/* A blank device. seed 0: requests complete in the order of submission; else in an order drawn from the seed.
 * Discards are zeroes (seed 0) or sometimes not done at all. Never NULL. Freed by device_destroy. */
struct device *device_ram_create(uint64_t size, uint32_t io_bytes, uint32_t atom_bytes, uint64_t seed);
/* Completes at most max requests, those submitted by their callbacks included; returns how many. 0 once
 * crashed. */
unsigned device_ram_pump(struct device *dev, unsigned max);
/* Requests submitted and not completed. */
unsigned device_ram_pending(const struct device *dev);
/* From now on requests complete by themselves, some in each round of the loop; NULL: by hand again. */
void device_ram_attach(struct device *dev, struct loop *loop);

/* A persist is one completed write, discard or flush. After n more of them (and the callback of the last)
 * everything stands still: nothing completes any more, submits are taken and forgotten in the end. 0 = never.
 */
void device_ram_crash_after(struct device *dev, uint64_t n_persists);
bool device_ram_crashed(const struct device *dev);
uint64_t device_ram_persists(const struct device *dev); /* since creation */
/* What a loss of power now would leave: a new, quiet device (order by seed): every unflushed write, and every
 * write that was still pending, whole, in pieces of atom_bytes, or dropped. dev is unchanged: several images
 * can be drawn with several seeds. */
struct device *device_ram_crash_image(const struct device *dev, uint64_t seed);
/* The process died, the power did not: completed writes stay (unflushed still), pending ones land whole, torn
 * or not at all (unflushed, even with durable_writes: CPU caches), no callback will run. The device can be
 * used again at once by a successor; a crash is over.
 */
void device_ram_kill(struct device *dev, uint64_t seed);

/* Silent rot: one flipped bit in each started 512 bytes of the range. */
void device_ram_corrupt(struct device *dev, uint64_t offset, uint64_t len, uint64_t seed);
/* Reads, writes and discards that touch the range fail with rc (-EIO, ...); a failing write may land in part.
 * rc 0 heals. */
void device_ram_fail_range(struct device *dev, uint64_t offset, uint64_t len, int rc);
/* The n-th completing request of that kind from now (1 = the next) fails with rc. */
void device_ram_fail_nth(struct device *dev, enum device_op op, uint64_t n, int rc);
/* Everything fails with -ENODEV from now on, pending requests included. */
void device_ram_vanish(struct device *dev);
/* The content behind it, for tests that look or meddle directly. */
struct medium *device_ram_medium(struct device *dev);

#endif
