/* crc.c: CRC32C by ISA-L, and its combination by arithmetic in GF(2)[x] modulo the Castagnoli polynomial. */
#include "common/crc.h"

#include <isa-l/crc.h>

/* The polynomial with its bits reversed: bit 31 is x^0, as in all numbers below. */
#define POLY_REVERSED 0x82f63b78u
/* crc32_iscsi takes an int. */
#define PIECE_BYTES   (1u << 30)
#define CRC_ZERO_UNIT 0x98f94189u

uint32_t crc32c_extend(uint32_t crc, const void *data, size_t len)
{
    /* ISA-L reads only, though it does not say const; it leaves both inversions to the caller. */
    unsigned char *p = (unsigned char *)(uintptr_t)data;
    uint32_t state = ~crc;
    while (len > 0) {
        size_t n = len < PIECE_BYTES ? len : PIECE_BYTES;
        state = crc32_iscsi(p, (int)n, state);
        p += n;
        len -= n;
    }
    return ~state;
}

uint32_t crc32c(const void *data, size_t len)
{
    return crc32c_extend(0, data, len);
}

uint32_t crc32c_iov(const struct iovec *iov, int iovcnt)
{
    uint32_t crc = 0;
    for (int i = 0; i < iovcnt; i++)
        crc = crc32c_extend(crc, iov[i].iov_base, iov[i].iov_len);
    return crc;
}

uint32_t crc32c_zero_unit(void)
{
    return CRC_ZERO_UNIT;
}

/* a * b modulo the polynomial. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = (b >> 1) ^ (b & 1 ? POLY_REVERSED : 0);
    }
    return product;
}

/* shift_by[k] = x^(8 * 2^k): what 2^k bytes behind it multiply a checksum by. Each entry is the square of the
 * one before it (the unit test checks the sums that follow from them). */
static const uint32_t shift_by[64] = {
    0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7,
    0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a, 0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
    0xfe7740e6, 0xf946610b, 0x3c204f8f, 0x538586e3, 0x59726915, 0x734d5309, 0xbc1ac763, 0x7d0722cc,
    0xd289cabe, 0xe94ca9bc, 0x05b74f3f, 0xa51e1f42, 0x40000000, 0x20000000, 0x08000000, 0x00800000,
    0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7, 0x88e56f72,
    0x74c360a4, 0xe4172b16, 0x0d65762a, 0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc, 0xfe7740e6,
    0xf946610b, 0x3c204f8f, 0x538586e3, 0x59726915, 0x734d5309, 0xbc1ac763, 0x7d0722cc, 0xd289cabe,
    0xe94ca9bc, 0x05b74f3f, 0xa51e1f42, 0x40000000, 0x20000000, 0x08000000, 0x00800000, 0x00008000,
};

uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b)
{
    for (unsigned k = 0; len_b != 0; k++, len_b >>= 1)
        if (len_b & 1)
            crc_a = multiply(shift_by[k], crc_a);
    return crc_a ^ crc_b;
}
