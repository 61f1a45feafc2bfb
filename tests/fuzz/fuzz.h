/* fuzz.h: what a fuzz target offers. */
#ifndef CISTERN_TESTS_FUZZ_FUZZ_H
#define CISTERN_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Called with each input; 0. Must not keep data. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* For driver.c: writes a well-formed input made from seed (at most cap bytes), returns its length; the driver
 * damages it. A target that has none returns 0. */
size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap);
/* How many seeds driver.c tries; a target that starts services for each input defines it. Else 3000. */
extern const unsigned fuzz_rounds __attribute__((weak));

#endif
