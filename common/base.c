/* base.c: must_fail and identifiers. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/trace.h"

#define MUST_FAIL_TRACE_ENTRIES 64

void must_fail(const char *file, int line, const char *func, const char *cond)
{
    char text[512];
    int n = snprintf(text, sizeof text, "MUST failed: %s at %s:%d in %s\n", cond, file, line, func);
    if (n > 0) {
        size_t len = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
        ssize_t rc = write(STDERR_FILENO, text, len);
        (void)rc;
    }
    trace_dump_current(STDERR_FILENO, MUST_FAIL_TRACE_ENTRIES);
    abort();
}

void uuid_format(const struct uuid *u, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof u->b; i++) {
        out[2 * i] = digits[u->b[i] >> 4];
        out[2 * i + 1] = digits[u->b[i] & 15];
    }
    out[2 * sizeof u->b] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int uuid_parse(const char *text, struct uuid *out)
{
    struct uuid u = {{0}};
    size_t n = 0;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '-')
            continue;
        int d = hex_digit(*p);
        if (d < 0 || n == 2 * sizeof u.b)
            return -EINVAL;
        u.b[n / 2] = (uint8_t)(u.b[n / 2] << 4 | d);
        n++;
    }
    if (n != 2 * sizeof u.b)
        return -EINVAL;
    *out = u;
    return 0;
}
