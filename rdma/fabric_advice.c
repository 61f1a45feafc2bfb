/* fabric_advice.c: what is wrong with a host's RDMA, and what mends it. Pure. */
#include "rdma/fabric_info.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/config.h"

/* Below this a service cannot register its buffers (their defaults are 64 MiB and more) and its queues. */
#define MEMLOCK_LEAST  (256 * MIB)
#define READS_WANTED   16u  /* RDMA READs under way, as the verbs provider asks for */
#define INLINE_WANTED  128u /* a data-path request is 32 + 112 bytes of header and body */
#define LARGE_MEMORY   (8 * GIB)
#define COUNTERS_NAMED 4u

struct advice {
    struct fabric_advice *out;
    unsigned count, max;
    enum fabric_advice_level level; /* that is being collected */
};

static void say_about(struct advice *a, enum fabric_advice_level level, const char *about, const char *fix,
                      const char *fmt, va_list args)
{
    if (level != a->level || a->count == a->max)
        return;
    struct fabric_advice *o = &a->out[a->count++];
    memset(o, 0, sizeof(*o));
    o->level = level;
    snprintf(o->about, sizeof(o->about), "%s", about);
    vsnprintf(o->what, sizeof(o->what), fmt, args);
    snprintf(o->fix, sizeof(o->fix), "%s", fix);
}

static void say(struct advice *a, enum fabric_advice_level level, const char *about, const char *fix,
                const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static void say(struct advice *a, enum fabric_advice_level level, const char *about, const char *fix,
                const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say_about(a, level, about, fix, fmt, args);
    va_end(args);
}

/* ---- the host ---- */

static void no_device(struct advice *a, const struct fabric_info *info)
{
    say(a, FABRIC_ADVICE_NOTE, "host",
        "with an RDMA card: install its driver (rdma-core, and the kernel's mlx5_ib, irdma, bnxt_re ...); without: "
        "modprobe rdma_rxe; rdma link add rxe0 type rxe netdev NETDEV, for trying out",
        "%s: addresses of the kind rdma: do not work here, tcp: is used",
        info->subsystem ? "the kernel has RDMA, but there is no device" : "no RDMA device");
}

static void nodes(struct advice *a, const struct fabric_info *info)
{
    if (!info->verbs_node)
        say(a, FABRIC_ADVICE_PROBLEM, "host", "modprobe ib_uverbs (in a container: --device=/dev/infiniband)",
            "no /dev/infiniband/uverbs*: programs cannot use the RDMA devices");
    if (!info->rdmacm_node)
        say(a, FABRIC_ADVICE_PROBLEM, "host",
            "modprobe rdma_ucm (in a container: --device=/dev/infiniband/rdma_cm)",
            "no /dev/infiniband/rdma_cm: no connection can be made");
}

static void memory(struct advice *a, const struct fabric_info *info)
{
    char text[24];
    if (info->memlock_bytes < MEMLOCK_LEAST)
        say(a, FABRIC_ADVICE_PROBLEM, "host",
            "services: LimitMEMLOCK=infinity in the unit; shells: \"* - memlock unlimited\" in "
            "/etc/security/limits.d/cistern.conf, then log in again; containers: --ulimit memlock=-1",
            "only %s of memory may be locked: registered memory is, and a service needs some hundred MiB",
            format_size(info->memlock_bytes, text));
    if (info->huge_total == 0 && info->huge_bytes > 0 && info->memory_bytes >= LARGE_MEMORY)
        say(a, FABRIC_ADVICE_NOTE, "host", "sysctl -w vm.nr_hugepages=512, and in /etc/sysctl.d to keep it",
            "no huge pages are set aside: large registered areas take more of the card's translation cache");
    else if (info->huge_total > 0 && info->huge_free == 0)
        say(a, FABRIC_ADVICE_NOTE, "host", "sysctl -w vm.nr_hugepages=N with a higher N",
            "all %" PRIu64 " huge pages are in use", info->huge_total);
}

/* ---- devices ---- */

static void device_opens(struct advice *a, const struct fabric_info_device *d)
{
    if (d->open_errno == ENODEV)
        say(a, FABRIC_ADVICE_PROBLEM, d->name,
            "install the user-space driver (package ibverbs-providers); modprobe ib_uverbs",
            "libibverbs does not know how to use it");
    else if (d->open_errno == EACCES || d->open_errno == EPERM)
        say(a, FABRIC_ADVICE_PROBLEM, d->name,
            "let the service's user use /dev/infiniband/uverbs*: a udev rule with MODE=\"0666\", or its group",
            "it cannot be opened: permission denied");
    else if (d->open_errno != 0)
        say(a, FABRIC_ADVICE_PROBLEM, d->name, "see what the kernel says: dmesg", "it cannot be opened: %s",
            strerror(d->open_errno));
}

static void device_limits(struct advice *a, const struct fabric_info_device *d)
{
    const struct fabric_info_limits *l = &d->limits;
    const uint32_t reads = (uint32_t)min_u64(l->max_rd_atom, l->max_init_rd_atom);
    if (!l->known)
        return;
    if (l->max_srq == 0)
        say(a, FABRIC_ADVICE_NOTE, d->name, "none: a property of the device, firmware may change it",
            "no shared receive queues: each connection has receive buffers of its own");
    if (l->max_mw == 0)
        say(a, FABRIC_ADVICE_SLOW, d->name, "none: a property of the device, firmware may change it",
            "no memory windows: memory that is shown to a peer is registered for each request");
    if (reads < READS_WANTED)
        say(a, FABRIC_ADVICE_SLOW, d->name, "none: a property of the device, firmware may change it",
            "only %u RDMA reads of a connection may be under way: writes of a client are fetched by them",
            reads);
    if (l->max_inline < INLINE_WANTED)
        say(a, FABRIC_ADVICE_NOTE, d->name, "none: a property of the device",
            "messages above %u bytes are not sent inline: the card reads each from memory first",
            l->max_inline);
}

/* ---- ports ---- */

static const struct fabric_info_net *net_of(const struct fabric_info *info, const char *name)
{
    for (unsigned i = 0; i < info->net_count; i++)
        if (name[0] != '\0' && strcmp(info->nets[i].name, name) == 0)
            return &info->nets[i];
    return NULL;
}

static void port_down(struct advice *a, const struct fabric_info *info, const struct fabric_info_port *p,
                      const char *about)
{
    const struct fabric_info_net *n = net_of(info, p->netdev);
    char fix[160];
    if (p->link == FABRIC_LINK_INFINIBAND && strcmp(p->physical, "LinkUp") == 0) {
        say(a, FABRIC_ADVICE_PROBLEM, about, "run a subnet manager: opensm, or the switch's own",
            "the port is %s: nobody has configured this InfiniBand network", p->state);
        return;
    }
    snprintf(fix, sizeof(fix), "ip link set %s up; if it is: cable, transceiver, switch port",
             p->netdev[0] != '\0' ? p->netdev : "NETDEV");
    say(a, FABRIC_ADVICE_PROBLEM, about, fix, "the port is %s (%s)%s",
        p->state[0] != '\0' ? p->state : "down", p->physical[0] != '\0' ? p->physical : "no word of the link",
        n != NULL && !n->up ? ", its network device is down" : "");
}

static void port_mtu(struct advice *a, const struct fabric_info *info, const struct fabric_info_port *p,
                     const char *about)
{
    const struct fabric_info_net *n = net_of(info, p->netdev);
    char fix[200], now[40] = "";
    if (p->link != FABRIC_LINK_ROCE || (p->active_mtu != 0 && p->active_mtu >= 4096) || n == NULL ||
        n->mtu >= FABRIC_INFO_ROCE_MTU)
        return;
    snprintf(fix, sizeof(fix),
             "ip link set %s mtu %u (9000 where the switches pass it), on every host of this network",
             n->name, FABRIC_INFO_ROCE_MTU);
    if (p->active_mtu != 0)
        snprintf(now, sizeof(now), " (now %u)", p->active_mtu);
    say(a, FABRIC_ADVICE_SLOW, about, fix,
        "MTU %u of %s is too small for RDMA packets of 4096 bytes%s: more packets, more work for both cards",
        n->mtu, n->name, now);
}

static void port_gids(struct advice *a, const struct fabric_info *info, uint32_t port, const char *about)
{
    const struct fabric_info_port *p = &info->ports[port];
    bool ip = false, any = false, v2 = false;
    char fix[160];
    for (unsigned i = 0; i < info->gid_count; i++) {
        const struct fabric_info_gid *g = &info->gids[i];
        any |= g->port == port;
        ip |= g->port == port && g->ip[0] != '\0';
        v2 |= g->port == port && g->type == FABRIC_GID_ROCE2;
    }
    if (p->link != FABRIC_LINK_ROCE) { /* the network device's own addresses count */
        for (unsigned i = 0; i < info->net_count; i++)
            ip |= p->netdev[0] != '\0' && strcmp(info->nets[i].name, p->netdev) == 0 &&
                  info->nets[i].ip[0] != '\0';
    }
    snprintf(fix, sizeof(fix), "ip addr add ADDRESS/BITS dev %s%s",
             p->netdev[0] != '\0' ? p->netdev : "NETDEV",
             p->link == FABRIC_LINK_INFINIBAND ? " (modprobe ib_ipoib makes the network device)" : "");
    if (!ip)
        say(a, FABRIC_ADVICE_PROBLEM, about, fix,
            "no IP address: connections are made to the addresses of the port's network device");
    if (p->link == FABRIC_LINK_ROCE && any && !v2)
        say(a, FABRIC_ADVICE_PROBLEM, about,
            "a newer driver or firmware; cma_roce_mode -d DEVICE -p PORT -m 2 makes version 2 the default",
            "RoCE version 1 only: it does not pass routers, and hosts with version 2 do not answer it");
}

/* ---- counters ---- */

static void counters_of(struct advice *a, const struct fabric_info *info, uint32_t port, const char *about,
                        enum fabric_counter_kind kind, enum fabric_advice_level level, const char *fix,
                        const char *what)
{
    char named[160] = "";
    size_t at = 0;
    unsigned count = 0;
    for (unsigned i = 0; i < info->counter_count; i++) {
        const struct fabric_info_counter *c = &info->counters[i];
        if (c->port != port || c->kind != kind || c->value == 0)
            continue;
        if (count++ >= COUNTERS_NAMED || at >= sizeof(named) - 1)
            continue;
        const int n =
            snprintf(named + at, sizeof(named) - at, "%s%s=%" PRIu64, at > 0 ? ", " : "", c->name, c->value);
        at = n < 0 ? at : min_u64(at + (size_t)n, sizeof(named) - 1);
    }
    if (count > 0)
        say(a, level, about, fix, "%s: %s%s", what, named, count > COUNTERS_NAMED ? ", ..." : "");
}

static void port_counters(struct advice *a, const struct fabric_info *info, uint32_t port, const char *about)
{
    const bool roce = info->ports[port].link == FABRIC_LINK_ROCE;
    counters_of(
        a, info, port, about, FABRIC_COUNTER_LOSS, FABRIC_ADVICE_SLOW,
        roce ? "if they rise: make the network lossless for RDMA on every hop: dcb pfc show dev NETDEV, "
               "the switches' PFC and ECN"
             : "if they rise: cables and switch ports on the way (ibdiagnet, ibqueryerrors)",
        "packets were lost, or came again");
    counters_of(a, info, port, about, FABRIC_COUNTER_RECEIVER, FABRIC_ADVICE_SLOW,
                "if they rise: a service does not keep up; see its CPU, and cistern fabric counters ADDRESS",
                "receivers had no buffer ready");
    counters_of(a, info, port, about, FABRIC_COUNTER_BROKEN, FABRIC_ADVICE_SLOW,
                "if they rise: hosts that died, links that went; cistern fabric ping ADDRESS shows which",
                "connections were given up");
    counters_of(a, info, port, about, FABRIC_COUNTER_CABLE, FABRIC_ADVICE_SLOW,
                "if they rise: clean or replace cable and transceiver", "bits went wrong on the wire");
    counters_of(a, info, port, about, FABRIC_COUNTER_CONGESTION, FABRIC_ADVICE_NOTE,
                "normal under load; if they rise all the time: more bandwidth, or fewer senders to one port",
                "somebody was asked to wait");
}

/* ---- all ---- */

static void port_about(const struct fabric_info *info, uint32_t port, char out[FABRIC_INFO_NAME + 8])
{
    const struct fabric_info_port *p = &info->ports[port];
    snprintf(out, FABRIC_INFO_NAME + 8, "%.*s/%u", FABRIC_INFO_NAME - 1, info->devices[p->device].name,
             p->number % 1000);
}

static void collect(struct advice *a, const struct fabric_info *info)
{
    char about[FABRIC_INFO_NAME + 8];
    if (info->device_count == 0) {
        no_device(a, info);
        return;
    }
    nodes(a, info);
    memory(a, info);
    for (unsigned i = 0; i < info->device_count; i++) {
        device_opens(a, &info->devices[i]);
        device_limits(a, &info->devices[i]);
    }
    for (uint32_t i = 0; i < info->port_count; i++) {
        port_about(info, i, about);
        if (!info->ports[i].active) {
            port_down(a, info, &info->ports[i], about);
        } else {
            port_mtu(a, info, &info->ports[i], about);
            port_gids(a, info, i, about);
        }
        port_counters(a, info, i, about);
    }
}

unsigned fabric_info_advise(const struct fabric_info *info, struct fabric_advice *out, unsigned max)
{
    struct advice a = {.out = out, .max = max};
    for (int level = FABRIC_ADVICE_PROBLEM; level <= FABRIC_ADVICE_NOTE; level++) {
        a.level = (enum fabric_advice_level)level;
        collect(&a, info);
    }
    return a.count;
}
