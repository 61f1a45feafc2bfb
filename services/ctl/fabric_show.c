/* fabric_show.c: `cistern fabric info`: what this host offers to the fabric, and what is wrong with it. */
#include "services/ctl/fabric_tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tables ---- */

static const struct sheet_column host_columns[] = {
    {"rdma_subsystem", NULL, SHEET_BOOL},
    {"uverbs_node", NULL, SHEET_BOOL},
    {"rdma_cm_node", NULL, SHEET_BOOL},
    {"memlock_bytes", NULL, SHEET_NUMBER}, /* 2^64 - 1: unlimited */
    {"memlock", "memory a process may lock", SHEET_TEXT},
    {"memlock_hard", "  at most, if it asks for more", SHEET_TEXT},
    {"locked_bytes", "memory locked on this host", SHEET_BYTES},
    {"memory_bytes", "memory of this host", SHEET_BYTES},
    {"huge_page_bytes", "huge page", SHEET_BYTES},
    {"huge_pages", "huge pages", SHEET_NUMBER},
    {"huge_pages_free", "huge pages free", SHEET_NUMBER},
};
static const struct sheet_column device_columns[] = {
    {"device", "DEVICE", SHEET_TEXT},
    {"firmware", "FIRMWARE", SHEET_TEXT},
    {"board", NULL, SHEET_TEXT},
    {"usable", "USABLE", SHEET_BOOL},
    {"max_qp", "QPS", SHEET_NUMBER},
    {"max_qp_wr", "WRS", SHEET_NUMBER},
    {"max_sge", "SGES", SHEET_NUMBER},
    {"max_cq", "CQS", SHEET_NUMBER},
    {"max_cqe", "CQES", SHEET_NUMBER},
    {"max_srq", "SRQS", SHEET_NUMBER},
    {"max_srq_wr", "SRQ-WRS", SHEET_NUMBER},
    {"max_mr", "MRS", SHEET_NUMBER},
    {"max_mr_bytes", NULL, SHEET_BYTES},
    {"max_mw", "MWS", SHEET_NUMBER},
    {"max_rd_atom", "READS-IN", SHEET_NUMBER},
    {"max_init_rd_atom", "READS-OUT", SHEET_NUMBER},
    {"max_inline", "INLINE", SHEET_NUMBER},
};
static const struct sheet_column port_columns[] = {
    {"device", "DEVICE", SHEET_TEXT},
    {"port", "PORT", SHEET_NUMBER},
    {"link", "LINK", SHEET_TEXT},
    {"state", "STATE", SHEET_TEXT},
    {"physical", "PHYSICAL", SHEET_TEXT},
    {"rate", "RATE", SHEET_TEXT},
    {"megabits", NULL, SHEET_NUMBER},
    {"active_mtu", "MTU", SHEET_NUMBER},
    {"max_mtu", "MAX-MTU", SHEET_NUMBER},
    {"netdev", "NETDEV", SHEET_TEXT},
    {"netdev_mtu", "NETDEV-MTU", SHEET_NUMBER},
};
static const struct sheet_column gid_columns[] = {
    {"device", "DEVICE", SHEET_TEXT}, {"port", "PORT", SHEET_NUMBER}, {"index", "INDEX", SHEET_NUMBER},
    {"type", "TYPE", SHEET_TEXT},     {"ip", "IP", SHEET_TEXT},       {"gid", "GID", SHEET_TEXT},
    {"netdev", "NETDEV", SHEET_TEXT},
};
static const struct sheet_column counter_columns[] = {
    {"device", "DEVICE", SHEET_TEXT}, {"port", "PORT", SHEET_NUMBER},   {"counter", "COUNTER", SHEET_TEXT},
    {"kind", "MEANS", SHEET_TEXT},    {"netdev", "NETDEV", SHEET_BOOL}, {"value", "VALUE", SHEET_NUMBER},
};
static const struct sheet_column net_columns[] = {
    {"netdev", "NETDEV", SHEET_TEXT},
    {"up", "UP", SHEET_BOOL},
    {"mtu", "MTU", SHEET_NUMBER},
    {"ip", "IP", SHEET_TEXT},
};

/* ---- words ---- */

static const char *link_word(enum fabric_link link)
{
    static const char *const words[] = {[FABRIC_LINK_UNKNOWN] = "unknown",
                                        [FABRIC_LINK_INFINIBAND] = "InfiniBand",
                                        [FABRIC_LINK_ROCE] = "RoCE",
                                        [FABRIC_LINK_IWARP] = "iWARP"};
    return words[link];
}

static const char *gid_word(enum fabric_gid_type type)
{
    static const char *const words[] = {[FABRIC_GID_UNKNOWN] = "unknown",
                                        [FABRIC_GID_INFINIBAND] = "InfiniBand",
                                        [FABRIC_GID_ROCE1] = "RoCEv1",
                                        [FABRIC_GID_ROCE2] = "RoCEv2"};
    return words[type];
}

static const char *kind_word(enum fabric_counter_kind kind)
{
    static const char *const words[] = {
        [FABRIC_COUNTER_OTHER] = "",
        [FABRIC_COUNTER_CONGESTION] = "congestion",
        [FABRIC_COUNTER_LOSS] = "loss",
        [FABRIC_COUNTER_RECEIVER] = "receiver not ready",
        [FABRIC_COUNTER_BROKEN] = "connection given up",
        [FABRIC_COUNTER_CABLE] = "bits went wrong",
    };
    return words[kind];
}

static void add_limit(struct sheet *s, uint64_t bytes)
{
    char text[24];
    sheet_add_text(s, bytes == UINT64_MAX ? "unlimited" : format_size(bytes, text));
}

/* ---- rows ---- */

static void add_host(struct sheet *s, const struct fabric_info *info)
{
    sheet_init(s, host_columns, ARRAY_LEN(host_columns));
    sheet_add_bool(s, info->subsystem);
    sheet_add_bool(s, info->verbs_node);
    sheet_add_bool(s, info->rdmacm_node);
    sheet_add_number(s, info->memlock_bytes);
    add_limit(s, info->memlock_bytes);
    add_limit(s, info->memlock_hard_bytes);
    sheet_add_number(s, info->locked_bytes);
    sheet_add_number(s, info->memory_bytes);
    sheet_add_number(s, info->huge_bytes);
    sheet_add_number(s, info->huge_total);
    sheet_add_number(s, info->huge_free);
}

static void add_devices(struct sheet *s, const struct fabric_info *info)
{
    sheet_init(s, device_columns, ARRAY_LEN(device_columns));
    for (unsigned i = 0; i < info->device_count; i++) {
        const struct fabric_info_device *d = &info->devices[i];
        const struct fabric_info_limits *l = &d->limits;
        sheet_add_text(s, d->name);
        sheet_add_text(s, d->firmware);
        sheet_add_text(s, d->board);
        sheet_add_bool(s, l->known);
        const uint64_t numbers[] = {l->max_qp,       l->max_qp_wr, l->max_sge,     l->max_cq,
                                    l->max_cqe,      l->max_srq,   l->max_srq_wr,  l->max_mr,
                                    l->max_mr_bytes, l->max_mw,    l->max_rd_atom, l->max_init_rd_atom,
                                    l->max_inline};
        for (size_t k = 0; k < ARRAY_LEN(numbers); k++)
            sheet_add_number(s, numbers[k]);
    }
}

static void add_port_name(struct sheet *s, const struct fabric_info *info, uint32_t port)
{
    const struct fabric_info_port *p = &info->ports[port];
    sheet_add_text(s, info->devices[p->device].name);
    sheet_add_number(s, p->number);
}

static void add_ports(struct sheet *s, const struct fabric_info *info)
{
    sheet_init(s, port_columns, ARRAY_LEN(port_columns));
    for (uint32_t i = 0; i < info->port_count; i++) {
        const struct fabric_info_port *p = &info->ports[i];
        uint32_t netdev_mtu = 0;
        for (unsigned k = 0; k < info->net_count; k++)
            if (p->netdev[0] != '\0' && strcmp(info->nets[k].name, p->netdev) == 0)
                netdev_mtu = info->nets[k].mtu;
        add_port_name(s, info, i);
        sheet_add_text(s, link_word(p->link));
        sheet_add_text(s, p->state);
        sheet_add_text(s, p->physical);
        sheet_add_text(s, p->rate);
        sheet_add_number(s, p->megabits);
        sheet_add_number(s, p->active_mtu);
        sheet_add_number(s, p->max_mtu);
        sheet_add_text(s, p->netdev);
        sheet_add_number(s, netdev_mtu);
    }
}

static void add_gids(struct sheet *s, const struct fabric_info *info)
{
    sheet_init(s, gid_columns, ARRAY_LEN(gid_columns));
    for (unsigned i = 0; i < info->gid_count; i++) {
        const struct fabric_info_gid *g = &info->gids[i];
        add_port_name(s, info, g->port);
        sheet_add_number(s, g->index);
        sheet_add_text(s, gid_word(g->type));
        sheet_add_text(s, g->ip);
        sheet_add_text(s, g->gid);
        sheet_add_text(s, g->netdev);
    }
}

/* For people only those that tell of trouble, and are not zero. */
static void add_counters(struct sheet *s, const struct fabric_info *info, bool all)
{
    sheet_init(s, counter_columns, ARRAY_LEN(counter_columns));
    for (unsigned i = 0; i < info->counter_count; i++) {
        const struct fabric_info_counter *c = &info->counters[i];
        if (!all && (c->value == 0 || c->kind == FABRIC_COUNTER_OTHER))
            continue;
        add_port_name(s, info, c->port);
        sheet_add_text(s, c->name);
        sheet_add_text(s, kind_word(c->kind));
        sheet_add_bool(s, c->netdev);
        sheet_add_number(s, c->value);
    }
}

static void add_nets(struct sheet *s, const struct fabric_info *info)
{
    sheet_init(s, net_columns, ARRAY_LEN(net_columns));
    for (unsigned i = 0; i < info->net_count; i++) {
        sheet_add_text(s, info->nets[i].name);
        sheet_add_bool(s, info->nets[i].up);
        sheet_add_number(s, info->nets[i].mtu);
        sheet_add_text(s, info->nets[i].ip);
    }
}

/* ---- printing ---- */

static void print_part(const char *title, struct sheet *s, enum sheet_form form, int *rc)
{
    const bool empty = s->cell_count == 0 && !s->out_of_memory;
    if (!empty && *rc == 0) {
        printf("%s\n", title);
        *rc = sheet_print(s, form, stdout);
        fputs("\n", stdout);
    }
    sheet_free(s);
}

static int print_people(const struct fabric_info *info, const struct fabric_advice *advice, unsigned count)
{
    struct sheet s;
    int rc = 0;
    add_devices(&s, info);
    print_part("RDMA devices, and how much of each they allow", &s, SHEET_TABLE, &rc);
    add_ports(&s, info);
    print_part("Ports", &s, SHEET_TABLE, &rc);
    add_gids(&s, info);
    print_part("Addresses of ports (GIDs)", &s, SHEET_TABLE, &rc);
    add_counters(&s, info, false);
    print_part("Counters that tell of trouble, since the device was started", &s, SHEET_TABLE, &rc);
    add_nets(&s, info);
    print_part("Network devices", &s, SHEET_TABLE, &rc);
    add_host(&s, info);
    print_part("Memory", &s, SHEET_RECORD, &rc);
    if (rc == 0)
        fabric_tool_advice_print(advice, count, stdout);
    return rc;
}

static int print_json(const struct fabric_info *info, const struct fabric_advice *advice, unsigned count)
{
    struct sheet s;
    add_host(&s, info);
    int rc = fabric_tool_json_part("{", "host", &s, SHEET_OBJECT);
    add_devices(&s, info);
    rc |= fabric_tool_json_part(", ", "devices", &s, SHEET_ARRAY);
    add_ports(&s, info);
    rc |= fabric_tool_json_part(", ", "ports", &s, SHEET_ARRAY);
    add_gids(&s, info);
    rc |= fabric_tool_json_part(", ", "gids", &s, SHEET_ARRAY);
    add_counters(&s, info, true);
    rc |= fabric_tool_json_part(", ", "counters", &s, SHEET_ARRAY);
    add_nets(&s, info);
    rc |= fabric_tool_json_part(", ", "netdevs", &s, SHEET_ARRAY);
    sheet_init(&s, fabric_tool_advice_columns, ARRAY_LEN(fabric_tool_advice_columns));
    fabric_tool_advice_add(&s, advice, count);
    rc |= fabric_tool_json_part(", ", "advice", &s, SHEET_ARRAY);
    fputs("}\n", stdout);
    return rc;
}

enum ctl_exit fabric_show(struct ctl *ctl, const struct fabric_info *info)
{
    struct fabric_advice *advice = calloc(FABRIC_ADVICE_MAX, sizeof(*advice));
    if (advice == NULL) {
        ctl_say(ctl, "out of memory");
        return CTL_FAILED;
    }
    const unsigned count = fabric_info_advise(info, advice, FABRIC_ADVICE_MAX);
    const int rc = ctl->options->json ? print_json(info, advice, count) : print_people(info, advice, count);
    free(advice);
    if (rc == 0)
        return CTL_DONE;
    ctl_say(ctl, "cannot print the result");
    return CTL_FAILED;
}

enum ctl_exit ctl_fabric_info(struct ctl *ctl, char *const *args)
{
    struct fabric_info *info;
    const char *device = ctl->options->fabric.device;
    (void)args;
    if (fabric_info_read("", device, &info) != 0) {
        ctl_say(ctl, "out of memory");
        return CTL_FAILED;
    }
    enum ctl_exit rc = CTL_FAILED;
    if (device != NULL && info->device_count == 0) {
        ctl_say(ctl, "there is no RDMA device \"%s\"; cistern fabric info lists them", device);
    } else {
        fabric_info_ask(info);
        rc = fabric_show(ctl, info);
    }
    free(info);
    return rc;
}
