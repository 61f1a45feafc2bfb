/* wire_utf8.h: what both halves of the codec need to know of UTF-8 (RFC 3629). */
#ifndef CISTERN_COMMON_WIRE_WIRE_UTF8_H
#define CISTERN_COMMON_WIRE_WIRE_UTF8_H

#include "common/base.h"

/* Length of the well-formed character at p (1 to 4), 0 when there is none within n bytes: broken, cut,
 * overlong, a surrogate, or above U+10FFFF. NUL counts as a character of one byte. */
static inline size_t wire_utf8_char(const uint8_t *p, size_t n)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (n == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    const size_t len = (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;
    if (len == 0 || len > n)
        return 0;
    uint32_t code = p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = (code << 6) | (p[i] & 0x3fu);
    }
    if (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    return len;
}

#endif
