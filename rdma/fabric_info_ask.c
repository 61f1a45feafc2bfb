/*
 * fabric_info_ask.c: what only system calls tell: a device's limits and its ports' MTUs (ibv_query_device(3),
 * ibv_query_port(3)), network devices' addresses (getifaddrs(3)) and their drivers' counters (SIOCETHTOOL).
 */
#include "rdma/fabric_info.h"
#include "rdma/fabric_verbs.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define STRINGS_MAX 8192u /* counters of one network device; drivers have up to some thousands */

/* ---- devices ---- */

static uint32_t positive(int v)
{
    return v > 0 ? (uint32_t)v : 0;
}

/* How much a queue pair gives that asks for what Cistern asks for. */
static uint32_t inline_ask(struct ibv_context *ctx)
{
    struct ibv_pd *pd = ibv_alloc_pd(ctx);
    struct ibv_cq *cq = ibv_create_cq(ctx, 4, NULL, NULL, 0);
    uint32_t given = 0;
    for (uint32_t wanted = VERBS_INLINE; pd != NULL && cq != NULL && given == 0 && wanted > 0;
         wanted = wanted > 64 ? wanted / 2 : 0) {
        struct ibv_qp_init_attr attr = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC};
        attr.cap = (struct ibv_qp_cap){.max_send_wr = 1,
                                       .max_recv_wr = 1,
                                       .max_send_sge = 1,
                                       .max_recv_sge = 1,
                                       .max_inline_data = wanted};
        struct ibv_qp *qp = ibv_create_qp(pd, &attr);
        if (qp == NULL)
            continue;
        given = attr.cap.max_inline_data;
        (void)ibv_destroy_qp(qp);
    }
    if (cq != NULL)
        (void)ibv_destroy_cq(cq);
    if (pd != NULL)
        (void)ibv_dealloc_pd(pd);
    return given;
}

static void limits_ask(struct ibv_context *ctx, struct fabric_info_device *d)
{
    struct ibv_device_attr a;
    const int rc = ibv_query_device(ctx, &a);
    if (rc != 0) {
        d->open_errno = rc > 0 ? rc : EIO;
        return;
    }
    d->limits = (struct fabric_info_limits){.known = true,
                                            .max_mr_bytes = a.max_mr_size,
                                            .max_qp = positive(a.max_qp),
                                            .max_qp_wr = positive(a.max_qp_wr),
                                            .max_sge = positive(a.max_sge),
                                            .max_cq = positive(a.max_cq),
                                            .max_cqe = positive(a.max_cqe),
                                            .max_srq = positive(a.max_srq),
                                            .max_srq_wr = positive(a.max_srq_wr),
                                            .max_mr = positive(a.max_mr),
                                            .max_mw = positive(a.max_mw),
                                            .max_rd_atom = positive(a.max_qp_rd_atom),
                                            .max_init_rd_atom = positive(a.max_qp_init_rd_atom),
                                            .max_inline = inline_ask(ctx)};
}

static uint32_t mtu_bytes(enum ibv_mtu mtu)
{
    return mtu >= IBV_MTU_256 && mtu <= IBV_MTU_4096 ? 128u << mtu : 0;
}

static void device_ask(struct ibv_device *device, struct fabric_info *info, uint32_t index)
{
    struct fabric_info_device *d = &info->devices[index];
    struct ibv_context *ctx = ibv_open_device(device);
    if (ctx == NULL) {
        d->open_errno = errno != 0 ? errno : ENODEV;
        return;
    }
    limits_ask(ctx, d);
    for (unsigned i = 0; i < info->port_count; i++) {
        struct fabric_info_port *p = &info->ports[i];
        struct ibv_port_attr a;
        if (p->device != index || ibv_query_port(ctx, (uint8_t)p->number, &a) != 0)
            continue;
        p->active_mtu = p->active ? mtu_bytes(a.active_mtu) : 0;
        p->max_mtu = mtu_bytes(a.max_mtu);
    }
    (void)ibv_close_device(ctx);
}

static void devices_ask(struct fabric_info *info)
{
    int count = 0;
    struct ibv_device **list = info->device_count > 0 ? ibv_get_device_list(&count) : NULL;
    for (unsigned i = 0; i < info->device_count; i++) {
        bool found = false;
        for (int k = 0; list != NULL && k < count && !found; k++) {
            found = strcmp(ibv_get_device_name(list[k]), info->devices[i].name) == 0;
            if (found)
                device_ask(list[k], info, i);
        }
        if (!found) /* libibverbs has no driver for it, or there is no node in /dev */
            info->devices[i].open_errno = ENODEV;
    }
    if (list != NULL)
        ibv_free_device_list(list);
}

/* ---- network devices ---- */

static struct fabric_info_net *net_find(struct fabric_info *info, const char *name)
{
    for (unsigned i = 0; i < info->net_count; i++)
        if (strcmp(info->nets[i].name, name) == 0)
            return &info->nets[i];
    return NULL;
}

static void address_add(struct fabric_info *info, const char *name, const char *ip)
{
    struct fabric_info_net *n = net_find(info, name);
    if (n == NULL)
        return;
    if (n->ip[0] != '\0') { /* one more of it */
        if (info->net_count == FABRIC_INFO_NETS)
            return;
        info->nets[info->net_count] = *n;
        n = &info->nets[info->net_count++];
    }
    snprintf(n->ip, sizeof(n->ip), "%s", ip);
}

static void addresses_ask(struct fabric_info *info)
{
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *a = all; a != NULL; a = a->ifa_next) {
        char ip[INET6_ADDRSTRLEN] = "";
        if (a->ifa_addr == NULL)
            continue;
        if (a->ifa_addr->sa_family == AF_INET) {
            struct sockaddr_in in;
            memcpy(&in, a->ifa_addr, sizeof(in));
            inet_ntop(AF_INET, &in.sin_addr, ip, sizeof(ip));
        } else if (a->ifa_addr->sa_family == AF_INET6) {
            struct sockaddr_in6 in6;
            memcpy(&in6, a->ifa_addr, sizeof(in6));
            if (!IN6_IS_ADDR_LINKLOCAL(&in6.sin6_addr))
                inet_ntop(AF_INET6, &in6.sin6_addr, ip, sizeof(ip));
        }
        if (ip[0] != '\0')
            address_add(info, a->ifa_name, ip);
    }
    freeifaddrs(all);
}

/* ---- their counters ---- */

static int ethtool(int fd, const char *name, void *command)
{
    struct ifreq r;
    memset(&r, 0, sizeof(r));
    snprintf(r.ifr_name, sizeof(r.ifr_name), "%.*s", (int)sizeof(r.ifr_name) - 1, name);
    r.ifr_data = command;
    return ioctl(fd, SIOCETHTOOL, &r) == 0 ? 0 : -errno;
}

/* How many counters; 0 when it has none. */
static uint32_t stats_count(int fd, const char *name)
{
    union { /* the counts lie behind the head */
        struct ethtool_sset_info head;
        uint8_t bytes[sizeof(struct ethtool_sset_info) + sizeof(uint32_t)];
    } info = {.head = {.cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ull << ETH_SS_STATS}};
    uint32_t count;
    if (ethtool(fd, name, &info) != 0 || info.head.sset_mask == 0)
        return 0;
    memcpy(&count, info.bytes + sizeof(info.head), sizeof(count));
    return count <= STRINGS_MAX ? count : 0;
}

/* Only what tells of pauses and losses: drivers have hundreds. */
static void stats_take(struct fabric_info *info, uint32_t port, const char *names, const uint64_t *values,
                       uint32_t count)
{
    for (uint32_t i = 0; i < count && info->counter_count < FABRIC_INFO_COUNTERS; i++) {
        char name[ETH_GSTRING_LEN + 1] = "";
        memcpy(name, names + (size_t)i * ETH_GSTRING_LEN, ETH_GSTRING_LEN);
        const enum fabric_counter_kind kind = fabric_counter_kind_of(name);
        if (kind == FABRIC_COUNTER_OTHER)
            continue;
        struct fabric_info_counter *c = &info->counters[info->counter_count++];
        *c = (struct fabric_info_counter){.port = port, .kind = kind, .netdev = true, .value = values[i]};
        snprintf(c->name, sizeof(c->name), "%s", name);
    }
}

static void stats_ask(int fd, struct fabric_info *info, uint32_t port)
{
    const char *name = info->ports[port].netdev;
    const uint32_t count = stats_count(fd, name);
    struct ethtool_gstrings *strings = calloc(1, sizeof(*strings) + (size_t)count * ETH_GSTRING_LEN);
    struct ethtool_stats *stats = calloc(1, sizeof(*stats) + count * sizeof(uint64_t));
    if (count > 0 && strings != NULL && stats != NULL) {
        strings->cmd = ETHTOOL_GSTRINGS;
        strings->string_set = ETH_SS_STATS;
        strings->len = count;
        stats->cmd = ETHTOOL_GSTATS;
        stats->n_stats = count;
        if (ethtool(fd, name, strings) == 0 && ethtool(fd, name, stats) == 0 && strings->len == count &&
            stats->n_stats == count)
            stats_take(info, port, (const char *)(strings + 1), (const uint64_t *)(stats + 1), count);
    }
    free(strings);
    free(stats);
}

void fabric_info_ask(struct fabric_info *info)
{
    devices_ask(info);
    addresses_ask(info);
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    for (uint32_t i = 0; i < info->port_count; i++)
        if (info->ports[i].netdev[0] != '\0')
            stats_ask(fd, info, i);
    close(fd);
}
