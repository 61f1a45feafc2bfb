/* config_values.c: numbers, sizes and durations as people write them, and secret files. */
#include "common/config.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

struct unit {
    const char *name;
    uint64_t factor;
};

/* Digits, then one of the units (NULL-terminated table; the first is used where there is none). */
static int parse_with_unit(const char *text, const struct unit *units, bool unit_needed, uint64_t *out)
{
    uint64_t v = 0;
    const char *p = text;
    if (!isdigit((unsigned char)*p))
        return -EINVAL;
    for (; isdigit((unsigned char)*p); p++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return -ERANGE;
    if (*p == '\0' && unit_needed && v != 0)
        return -EINVAL;
    for (const struct unit *u = units; u->name != NULL; u++) {
        if (strcmp(p, u->name) != 0)
            continue;
        if (__builtin_mul_overflow(v, u->factor, &v))
            return -ERANGE;
        *out = v;
        return 0;
    }
    return -EINVAL;
}

int config_parse_uint(const char *text, uint64_t *value)
{
    static const struct unit none[] = {{"", 1}, {NULL, 0}};
    return parse_with_unit(text, none, false, value);
}

int config_parse_size(const char *text, uint64_t *bytes)
{
    static const struct unit sizes[] = {
        {"", 1},    {"k", KIB},   {"K", KIB},   {"KiB", KIB}, {"m", MIB},
        {"M", MIB}, {"MiB", MIB}, {"g", GIB},   {"G", GIB},   {"GiB", GIB},
        {"t", TIB}, {"T", TIB},   {"TiB", TIB}, {"B", 1},     {NULL, 0},
    };
    return parse_with_unit(text, sizes, false, bytes);
}

int config_parse_duration(const char *text, uint64_t *ns)
{
    static const struct unit durations[] = {
        {"", 1},
        {"ns", 1},
        {"us", NS_PER_US},
        {"ms", NS_PER_MS},
        {"s", NS_PER_S},
        {"m", 60 * NS_PER_S},
        {"h", 3600 * NS_PER_S},
        {NULL, 0},
    };
    return parse_with_unit(text, durations, true, ns);
}

/* At most one decimal, rounded down, none when it is 0. */
static void format_with_unit(uint64_t v, const struct unit *u, const char *space, char *out)
{
    unsigned long long whole = v / u->factor;
    unsigned tenth = (unsigned)(v % u->factor / (u->factor / 10 > 0 ? u->factor / 10 : 1));
    if (u->factor == 1 || tenth == 0)
        snprintf(out, 24, "%llu%s%s", whole, space, u->name);
    else
        snprintf(out, 24, "%llu.%u%s%s", whole, tenth > 9 ? 9 : tenth, space, u->name);
}

const char *format_size(uint64_t bytes, char *out)
{
    static const struct unit units[] = {{"TiB", TIB}, {"GiB", GIB}, {"MiB", MIB}, {"KiB", KIB}, {"B", 1}};
    const struct unit *u = units;
    while (u->factor > 1 && bytes < u->factor)
        u++;
    format_with_unit(bytes, u, " ", out);
    return out;
}

const char *format_duration(uint64_t ns, char *out)
{
    static const struct unit units[] = {{"s", NS_PER_S}, {"ms", NS_PER_MS}, {"us", NS_PER_US}, {"ns", 1}};
    const struct unit *u = units;
    while (u->factor > 1 && ns < u->factor)
        u++;
    format_with_unit(ns, u, "", out);
    return out;
}

/* Up to room bytes; 0 or -errno. */
static int read_whole(int fd, char *buf, size_t room, size_t *len)
{
    *len = 0;
    while (*len < room) {
        ssize_t n = read(fd, buf + *len, room - *len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        *len += (size_t)n;
    }
    return 0;
}

int config_read_secret(const char *path, void *out, size_t max, size_t *len)
{
    char buf[4096];
    struct stat st;
    size_t n = 0, begin = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fstat(fd, &st) == 0 ? read_whole(fd, buf, sizeof buf, &n) : -errno;
    close(fd);
    if (rc != 0)
        return rc;
    if (S_ISREG(st.st_mode) && (st.st_mode & 027) != 0)
        log_warn(NULL,
                 "secret file may be read or written by others than its owner and group; run chmod 600 on it",
                 "file=%s", path);
    while (begin < n && isspace((unsigned char)buf[begin]))
        begin++;
    while (n > begin && isspace((unsigned char)buf[n - 1]))
        n--;
    if (n == begin)
        rc = -EINVAL;
    else if (n - begin > max)
        rc = -E2BIG;
    if (rc == 0) {
        memcpy(out, buf + begin, n - begin);
        *len = n - begin;
    }
    explicit_bzero(buf, sizeof buf);
    return rc;
}

int config_read_cluster_secret(const char *path, void *out, size_t max, size_t *len)
{
    size_t n = 0;
    int rc = config_read_secret(path, out, max, &n);
    if (rc == 0 && n < CONFIG_CLUSTER_SECRET_MIN)
        rc = -EKEYREJECTED;
    if (rc == 0)
        *len = n;
    return rc;
}

const char *config_secret_error(int rc)
{
    switch (rc) {
    case -EINVAL:
        return "it is empty";
    case -EKEYREJECTED:
        return "it is shorter than 16 bytes";
    case -E2BIG:
        return "it is too long";
    default:
        return strerror(-rc);
    }
}
