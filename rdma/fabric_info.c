/*
 * fabric_info.c: what files tell of this host's RDMA: /sys/class/infiniband (Documentation/ABI/stable/
 * sysfs-class-infiniband of the kernel), /proc/meminfo, /proc/self/limits (proc(5)), /dev/infiniband.
 */
#include "rdma/fabric_info.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- files ---- */

static bool path_format(char out[PATH_MAX], const char *root, const char *fmt, va_list args)
{
    const int a = snprintf(out, PATH_MAX, "%s/", root);
    if (a < 0 || a >= PATH_MAX)
        return false;
    const int b = vsnprintf(out + a, (size_t)(PATH_MAX - a), fmt, args);
    return b >= 0 && b < PATH_MAX - a;
}

static bool exists(const char *root, const char *fmt, ...)
{
    char path[PATH_MAX];
    struct stat st;
    va_list args;
    va_start(args, fmt);
    const bool ok = path_format(path, root, fmt, args);
    va_end(args);
    return ok && stat(path, &st) == 0;
}

/* The first line of a file, without blanks at its ends; "" when there is none. False: no such file. */
static bool line_read(char *out, size_t room, const char *root, const char *fmt, ...)
{
    char path[PATH_MAX];
    va_list args;
    va_start(args, fmt);
    const bool ok = path_format(path, root, fmt, args);
    va_end(args);
    out[0] = '\0';
    FILE *f = ok ? fopen(path, "re") : NULL;
    if (f == NULL)
        return false;
    /* Some files of sysfs answer a read with an error: an empty slot of a table. */
    const bool read = fgets(out, (int)room, f) != NULL;
    fclose(f);
    if (!read) {
        out[0] = '\0';
        return false;
    }
    size_t n = strlen(out);
    while (n > 0 && isspace((unsigned char)out[n - 1]))
        out[--n] = '\0';
    return true;
}

/* The entries of a directory, sorted by number where they have one: the order of readdir is anybody's. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strverscmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static int dir_read(struct dirent ***out, const char *root, const char *fmt, ...)
{
    char path[PATH_MAX];
    va_list args;
    va_start(args, fmt);
    const bool ok = path_format(path, root, fmt, args);
    va_end(args);
    const int n = ok ? scandir(path, out, visible, by_name) : -1;
    if (n < 0)
        *out = NULL;
    return n < 0 ? 0 : n;
}

static void dir_free(struct dirent **entries, int count)
{
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
}

/* A decimal number at the beginning of text; false when there is none. */
static bool number_at(const char *text, uint64_t *out)
{
    char *end;
    while (*text == ' ')
        text++;
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    const unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0)
        return false;
    *out = v;
    return true;
}

static void text_copy(char *out, size_t room, const char *text)
{
    const size_t n = strnlen(text, room - 1);
    memmove(out, text, n);
    out[n] = '\0';
}

/* ---- GIDs ---- */

void fabric_info_gid_ip(const char *gid, char *out)
{
    struct in6_addr a;
    out[0] = '\0';
    if (inet_pton(AF_INET6, gid, &a) != 1 || IN6_IS_ADDR_UNSPECIFIED(&a) || IN6_IS_ADDR_LINKLOCAL(&a))
        return;
    if (IN6_IS_ADDR_V4MAPPED(&a))
        inet_ntop(AF_INET, a.s6_addr + 12, out, FABRIC_INFO_ADDRESS);
    else
        inet_ntop(AF_INET6, &a, out, FABRIC_INFO_ADDRESS);
}

static enum fabric_gid_type gid_type(enum fabric_link link, const char *type)
{
    if (strcmp(type, "RoCE v2") == 0)
        return FABRIC_GID_ROCE2;
    if (link == FABRIC_LINK_INFINIBAND)
        return FABRIC_GID_INFINIBAND;
    if (strcmp(type, "IB/RoCE v1") == 0)
        return FABRIC_GID_ROCE1;
    return FABRIC_GID_UNKNOWN;
}

static bool gid_is_empty(const char *gid)
{
    struct in6_addr a;
    static const uint8_t interface_id[8];
    if (inet_pton(AF_INET6, gid, &a) != 1)
        return true;
    /* An empty slot is all zero, or a prefix alone. */
    return memcmp(a.s6_addr + 8, interface_id, sizeof(interface_id)) == 0;
}

static void gids_read(struct fabric_info *info, const char *root, const char *device, uint32_t port_index)
{
    struct dirent **entries;
    struct fabric_info_port *port = &info->ports[port_index];
    const int count = dir_read(&entries, root, "sys/class/infiniband/%s/ports/%u/gids", device, port->number);
    for (int i = 0; i < count && info->gid_count < FABRIC_INFO_GIDS; i++) {
        struct fabric_info_gid *g = &info->gids[info->gid_count];
        char type[FABRIC_INFO_TEXT];
        uint64_t index;
        const char *name = entries[i]->d_name;
        *g = (struct fabric_info_gid){.port = port_index};
        if (!number_at(name, &index) ||
            !line_read(g->gid, sizeof(g->gid), root, "sys/class/infiniband/%s/ports/%u/gids/%s", device,
                       port->number, name) ||
            gid_is_empty(g->gid))
            continue;
        g->index = (uint32_t)index;
        line_read(type, sizeof(type), root, "sys/class/infiniband/%s/ports/%u/gid_attrs/types/%s", device,
                  port->number, name);
        line_read(g->netdev, sizeof(g->netdev), root, "sys/class/infiniband/%s/ports/%u/gid_attrs/ndevs/%s",
                  device, port->number, name);
        g->type = gid_type(port->link, type);
        if (port->link != FABRIC_LINK_INFINIBAND)
            fabric_info_gid_ip(g->gid, g->ip);
        if (port->netdev[0] == '\0')
            text_copy(port->netdev, sizeof(port->netdev), g->netdev);
        info->gid_count++;
    }
    dir_free(entries, count);
}

/* ---- counters ---- */

enum fabric_counter_kind fabric_counter_kind_of(const char *name)
{
    /* Names of the IB specification's PortCounters as sysfs has them, of mlx5, irdma, bnxt_re, qedr, efa and
     * rxe drivers. Parts of names, the first that fits. */
    static const struct {
        const char *part;
        enum fabric_counter_kind kind;
    } kinds[] = {
        {"xmit_wait", FABRIC_COUNTER_CONGESTION},
        {"cnp", FABRIC_COUNTER_CONGESTION},
        {"ecn", FABRIC_COUNTER_CONGESTION},
        {"pause", FABRIC_COUNTER_CONGESTION},
        {"pfc", FABRIC_COUNTER_CONGESTION},
        {"adp_retrans", FABRIC_COUNTER_LOSS},
        {"out_of_seq", FABRIC_COUNTER_LOSS},
        {"seq_err", FABRIC_COUNTER_LOSS},
        {"seq_naks", FABRIC_COUNTER_LOSS},
        {"duplicate_request", FABRIC_COUNTER_LOSS},
        {"xmit_discards", FABRIC_COUNTER_LOSS},
        {"retrans", FABRIC_COUNTER_LOSS},
        {"completer_retry", FABRIC_COUNTER_LOSS},
        {"timeout_err", FABRIC_COUNTER_LOSS},
        {"rnr", FABRIC_COUNTER_RECEIVER},
        {"rnr_retry_exceeded", FABRIC_COUNTER_BROKEN},
        {"out_of_buffer", FABRIC_COUNTER_RECEIVER},
        {"retry_exceeded", FABRIC_COUNTER_BROKEN},
        {"retry_rnr_exceeded", FABRIC_COUNTER_BROKEN},
        {"link_downed", FABRIC_COUNTER_BROKEN},
        {"symbol_error", FABRIC_COUNTER_CABLE},
        {"link_integrity", FABRIC_COUNTER_CABLE},
        {"link_error_recovery", FABRIC_COUNTER_CABLE},
        {"port_rcv_errors", FABRIC_COUNTER_CABLE},
        {"crc_err", FABRIC_COUNTER_CABLE},
        {"icrc", FABRIC_COUNTER_CABLE},
        {"remote_physical", FABRIC_COUNTER_CABLE},
        {"discard", FABRIC_COUNTER_LOSS},
    };
    enum fabric_counter_kind found = FABRIC_COUNTER_OTHER;
    size_t length = 0;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strstr(name, kinds[i].part) != NULL && strlen(kinds[i].part) > length) {
            length = strlen(kinds[i].part);
            found = kinds[i].kind;
        }
    }
    return found;
}

static void counters_read(struct fabric_info *info, const char *root, const char *device, uint32_t port_index,
                          const char *folder)
{
    struct dirent **entries;
    const unsigned number = info->ports[port_index].number;
    const int count = dir_read(&entries, root, "sys/class/infiniband/%s/ports/%u/%s", device, number, folder);
    for (int i = 0; i < count && info->counter_count < FABRIC_INFO_COUNTERS; i++) {
        const char *name = entries[i]->d_name;
        struct fabric_info_counter *c = &info->counters[info->counter_count];
        char text[FABRIC_INFO_TEXT];
        uint64_t value;
        if (strcmp(name, "lifespan") == 0 || /* a setting, not a counter */
            !line_read(text, sizeof(text), root, "sys/class/infiniband/%s/ports/%u/%s/%s", device, number,
                       folder, name) ||
            !number_at(text, &value))
            continue;
        *c = (struct fabric_info_counter){
            .port = port_index, .kind = fabric_counter_kind_of(name), .value = value};
        text_copy(c->name, sizeof(c->name), name);
        info->counter_count++;
    }
    dir_free(entries, count);
}

/* ---- ports and devices ---- */

/* "4: ACTIVE" -> "ACTIVE" */
static void state_copy(char *out, size_t room, const char *text)
{
    const char *colon = strchr(text, ':');
    text = colon != NULL ? colon + 1 : text;
    while (*text == ' ')
        text++;
    text_copy(out, room, text);
}

/* "100 Gb/sec (4X EDR)", "2.5 Gb/sec (1X SDR)" in megabits a second; 0: not like that. */
static uint64_t rate_megabits(const char *text)
{
    char *end;
    const double rate = strtod(text, &end);
    if (end == text || !(rate > 0 && rate < 1e6) || strncmp(end, " Gb/sec", 7) != 0)
        return 0;
    return (uint64_t)(rate * 1000 + 0.5);
}

static void port_read(struct fabric_info *info, const char *root, uint32_t device, uint64_t number)
{
    const struct fabric_info_device *d = &info->devices[device];
    const uint32_t index = info->port_count;
    struct fabric_info_port *p = &info->ports[index];
    char text[FABRIC_INFO_TEXT];
    const unsigned n = (unsigned)number;
    *p = (struct fabric_info_port){.device = device, .number = n};
    line_read(text, sizeof(text), root, "sys/class/infiniband/%s/ports/%u/link_layer", d->name, n);
    p->link = d->iwarp                          ? FABRIC_LINK_IWARP
              : strcmp(text, "InfiniBand") == 0 ? FABRIC_LINK_INFINIBAND
              : strcmp(text, "Ethernet") == 0   ? FABRIC_LINK_ROCE
                                                : FABRIC_LINK_UNKNOWN;
    line_read(text, sizeof(text), root, "sys/class/infiniband/%s/ports/%u/state", d->name, n);
    state_copy(p->state, sizeof(p->state), text);
    p->active = strcmp(p->state, "ACTIVE") == 0;
    line_read(text, sizeof(text), root, "sys/class/infiniband/%s/ports/%u/phys_state", d->name, n);
    state_copy(p->physical, sizeof(p->physical), text);
    line_read(p->rate, sizeof(p->rate), root, "sys/class/infiniband/%s/ports/%u/rate", d->name, n);
    p->megabits = rate_megabits(p->rate);
    info->port_count++;
    gids_read(info, root, d->name, index);
    counters_read(info, root, d->name, index, "counters");
    counters_read(info, root, d->name, index, "hw_counters");
}

/* The network device of a port without GIDs that tell: InfiniBand, whose IP addresses are at one, and what is
 * down. */
static void netdev_find(struct fabric_info *info, const char *root, uint32_t device)
{
    struct dirent **entries;
    char name[FABRIC_INFO_NAME];
    const struct fabric_info_device *d = &info->devices[device];
    const int count = dir_read(&entries, root, "sys/class/infiniband/%s/device/net", d->name);
    int next = 0;
    if (line_read(name, sizeof(name), root, "sys/class/infiniband/%s/parent", d->name) && count == 0)
        next = -1; /* a software device names its network device here */
    for (unsigned i = 0; i < info->port_count; i++) {
        struct fabric_info_port *p = &info->ports[i];
        if (p->device != device || p->netdev[0] != '\0')
            continue;
        if (next < 0)
            text_copy(p->netdev, sizeof(p->netdev), name);
        else if (next < count)
            text_copy(p->netdev, sizeof(p->netdev), entries[next++]->d_name);
    }
    dir_free(entries, count);
}

static void device_read(struct fabric_info *info, const char *root, const char *name)
{
    const uint32_t index = info->device_count;
    struct fabric_info_device *d = &info->devices[index];
    struct dirent **ports;
    char type[FABRIC_INFO_TEXT];
    uint64_t number;
    *d = (struct fabric_info_device){.open_errno = 0};
    text_copy(d->name, sizeof(d->name), name);
    line_read(d->firmware, sizeof(d->firmware), root, "sys/class/infiniband/%s/fw_ver", name);
    line_read(d->board, sizeof(d->board), root, "sys/class/infiniband/%s/board_id", name);
    line_read(type, sizeof(type), root, "sys/class/infiniband/%s/node_type", name);
    d->iwarp = strstr(type, "RNIC") != NULL;
    info->device_count++;
    const int count = dir_read(&ports, root, "sys/class/infiniband/%s/ports", name);
    for (int i = 0; i < count && info->port_count < FABRIC_INFO_PORTS; i++)
        if (number_at(ports[i]->d_name, &number) && number <= 255)
            port_read(info, root, index, number);
    dir_free(ports, count);
    netdev_find(info, root, index);
}

static void devices_read(struct fabric_info *info, const char *root, const char *only)
{
    struct dirent **entries;
    const int count = dir_read(&entries, root, "sys/class/infiniband");
    for (int i = 0; i < count && info->device_count < FABRIC_INFO_DEVICES; i++)
        if (only == NULL || strcmp(only, entries[i]->d_name) == 0)
            device_read(info, root, entries[i]->d_name);
    dir_free(entries, count);
}

/* ---- the host ---- */

static FILE *file_open(const char *root, const char *name)
{
    char path[PATH_MAX];
    const int n = snprintf(path, sizeof(path), "%s/%s", root, name);
    return n > 0 && (size_t)n < sizeof(path) ? fopen(path, "re") : NULL;
}

static void memory_read(struct fabric_info *info, const char *root)
{
    char line[256];
    FILE *f = file_open(root, "proc/meminfo");
    const struct {
        const char *name;
        uint64_t *value;
        uint64_t unit;
    } wanted[] = {
        {"MemTotal:", &info->memory_bytes, KIB},    {"Mlocked:", &info->locked_bytes, KIB},
        {"HugePages_Total:", &info->huge_total, 1}, {"HugePages_Free:", &info->huge_free, 1},
        {"Hugepagesize:", &info->huge_bytes, KIB},
    };
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
            const size_t n = strlen(wanted[i].name);
            uint64_t v;
            if (strncmp(line, wanted[i].name, n) == 0 && number_at(line + n, &v) &&
                v <= UINT64_MAX / wanted[i].unit)
                *wanted[i].value = v * wanted[i].unit;
        }
    }
    if (f != NULL)
        fclose(f);
}

static const char *limit_at(const char *text, uint64_t *out)
{
    while (*text == ' ')
        text++;
    if (strncmp(text, "unlimited", 9) == 0)
        *out = UINT64_MAX;
    else if (!number_at(text, out))
        *out = 0;
    return text + strcspn(text, " ");
}

static void memlock_read(struct fabric_info *info, const char *root)
{
    static const char name[] = "Max locked memory";
    char line[256];
    FILE *f = file_open(root, "proc/self/limits");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, name, sizeof(name) - 1) != 0)
            continue;
        const char *rest = limit_at(line + sizeof(name) - 1, &info->memlock_bytes);
        limit_at(rest, &info->memlock_hard_bytes);
    }
    if (f != NULL)
        fclose(f);
}

static bool has_verbs_node(const char *root)
{
    struct dirent **entries;
    bool found = false;
    const int count = dir_read(&entries, root, "dev/infiniband");
    for (int i = 0; i < count; i++)
        found |= strncmp(entries[i]->d_name, "uverbs", 6) == 0;
    dir_free(entries, count);
    return found;
}

static void nets_read(struct fabric_info *info, const char *root)
{
    struct dirent **entries;
    const int count = dir_read(&entries, root, "sys/class/net");
    for (int i = 0; i < count && info->net_count < FABRIC_INFO_NETS; i++) {
        struct fabric_info_net *n = &info->nets[info->net_count];
        char text[FABRIC_INFO_TEXT];
        uint64_t mtu;
        *n = (struct fabric_info_net){.up = false};
        if (!line_read(text, sizeof(text), root, "sys/class/net/%s/mtu", entries[i]->d_name) ||
            !number_at(text, &mtu) || mtu > UINT32_MAX)
            continue;
        n->mtu = (uint32_t)mtu;
        text_copy(n->name, sizeof(n->name), entries[i]->d_name);
        line_read(text, sizeof(text), root, "sys/class/net/%s/operstate", n->name);
        n->up = strcmp(text, "down") != 0 && strcmp(text, "lowerlayerdown") != 0;
        info->net_count++;
    }
    dir_free(entries, count);
}

int fabric_info_read(const char *root, const char *device, struct fabric_info **out)
{
    struct fabric_info *info = calloc(1, sizeof(*info));
    if (info == NULL)
        return -ENOMEM;
    info->subsystem = exists(root, "sys/class/infiniband");
    info->verbs_node = has_verbs_node(root);
    info->rdmacm_node = exists(root, "dev/infiniband/rdma_cm");
    memory_read(info, root);
    memlock_read(info, root);
    nets_read(info, root);
    devices_read(info, root, device);
    *out = info;
    return 0;
}
