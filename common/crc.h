/* crc.h: CRC32C (Castagnoli, RFC 3720 appendix B.4: init and final xor all ones), by ISA-L.
 * crc32c("123456789") = 0xe3069283. */
#ifndef CISTERN_COMMON_CRC_H
#define CISTERN_COMMON_CRC_H

#include "common/base.h"

uint32_t crc32c(const void *data, size_t len);
/* Continues: crc32c_extend(crc32c(a), b) == crc32c(a then b); crc32c_extend(0, x) == crc32c(x). */
uint32_t crc32c_extend(uint32_t crc, const void *data, size_t len);
uint32_t crc32c_iov(const struct iovec *iov, int iovcnt);
/* CRC32C of UNIT_BYTES zero bytes. */
uint32_t crc32c_zero_unit(void);
/* crc of (A then B) from crc(A), crc(B) and the length of B in bytes. */
uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b);

#endif
