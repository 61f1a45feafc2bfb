/* nodes.c: what the cluster runs on: hosts, modules, gateways. */
#include "services/ctl/ctl.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/table/table.h"

/* ---- node list ---- */

static const struct sheet_column node_columns[] = {
    {"host", "HOST", SHEET_TEXT},
    {"rack", "RACK", SHEET_TEXT},
    {"osds", "OSDS", SHEET_NUMBER},
    {"san_modules", "SAN", SHEET_NUMBER},
    {"modules_up", "UP", SHEET_NUMBER},
    {"gateways", "GATEWAYS", SHEET_NUMBER},
    {"clients", "CLIENTS", SHEET_NUMBER},
    {"used_bytes", "USED", SHEET_BYTES},
    {"capacity_bytes", "CAPACITY", SHEET_BYTES},
};

static void add_nodes(void *arg, const void *reply)
{
    const struct mdc_node_list_reply *r = reply;
    struct sheet *s = arg;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct mdc_node_info *n = &r->items[i];
        sheet_add_text(s, n->host);
        sheet_add_text(s, n->rack);
        sheet_add_number(s, n->osds);
        sheet_add_number(s, n->san_modules);
        sheet_add_number(s, n->modules_up);
        sheet_add_number(s, n->gateways);
        sheet_add_number(s, n->clients);
        sheet_add_number(s, n->used_bytes);
        sheet_add_number(s, n->capacity_bytes);
    }
}

enum ctl_exit ctl_node_list(struct ctl *ctl, char *const *args)
{
    static struct mdc_node_list_reply reply;
    struct sheet s;
    (void)args;
    sheet_init(&s, node_columns, ARRAY_LEN(node_columns));
    return ctl_list(ctl, &s,
                    &(struct ctl_pages){.method = MDC_METHOD_NODE_LIST,
                                        .what = "list the nodes",
                                        .reply = &reply,
                                        .next_offset = offsetof(struct mdc_node_list_reply, next),
                                        .add = add_nodes,
                                        .arg = &s});
}

/* ---- module list ---- */

static const struct sheet_column module_columns[] = {
    {"id", "ID", SHEET_NUMBER},
    {"name", "NAME", SHEET_TEXT},
    {"kind", "KIND", SHEET_TEXT},
    {"media", "MEDIA", SHEET_TEXT},
    {"host", "HOST", SHEET_TEXT},
    {"rack", NULL, SHEET_TEXT},
    {"state", "STATE", SHEET_TEXT},
    {"pool", "POOL", SHEET_TEXT},
    {"partitions", "PARTITIONS", SHEET_NUMBER},
    {"used_bytes", "USED", SHEET_BYTES},
    {"capacity_bytes", "CAPACITY", SHEET_BYTES},
    {"address", "ADDRESS", SHEET_TEXT},
    {"silent_ms", NULL, SHEET_NUMBER},
    {"incarnation", NULL, SHEET_TEXT},
    {"start_counter", NULL, SHEET_NUMBER},
    {"reads", NULL, SHEET_NUMBER},
    {"writes", NULL, SHEET_NUMBER},
    {"read_bytes", NULL, SHEET_BYTES},
    {"write_bytes", NULL, SHEET_BYTES},
    {"errors", "ERRORS", SHEET_NUMBER},
    {"weight_bytes", NULL, SHEET_BYTES},
    {"weight_set", NULL, SHEET_BOOL},
    {"draining", NULL, SHEET_BOOL},
    {"removing", NULL, SHEET_BOOL},
    {"away", NULL, SHEET_BOOL},
    {"joining", NULL, SHEET_NUMBER},
    {"leaving_blocks", NULL, SHEET_NUMBER},
    {"repaired_units", "REPAIRED", SHEET_NUMBER},
    {"lost_units", "LOST", SHEET_NUMBER},
    {"differing_blocks", NULL, SHEET_NUMBER},
    {"copies_missing", NULL, SHEET_NUMBER},
    {"recover_blocks", NULL, SHEET_NUMBER},
    {"recover_bytes_s", NULL, SHEET_BYTES},
    {"recovered_bytes", NULL, SHEET_BYTES},
};

static const char *state_of(const struct mdc_module_info *m)
{
    if (m->damaged)
        return "damaged";
    if (m->away)
        return "replaced";
    if (m->removing && m->state == TABLE_MODULE_UP)
        return "removing";
    return m->draining && m->state == TABLE_MODULE_UP ? "draining" : ctl_module_state_name(m->state);
}

static void add_modules(void *arg, const void *reply)
{
    const struct mdc_module_list_reply *r = reply;
    struct sheet *s = arg;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct mdc_module_info *m = &r->items[i];
        char addr[64], incarnation[20];
        sheet_add_number(s, m->id);
        sheet_add_text(s, m->name);
        sheet_add_text(s, ctl_module_kind_name(m->kind));
        sheet_add_text(s, ctl_media_name(m->media));
        sheet_add_text(s, m->host);
        sheet_add_text(s, m->rack);
        sheet_add_text(s, state_of(m));
        sheet_add_text(s, m->pool_name);
        sheet_add_number(s, m->partitions);
        sheet_add_number(s, m->used_bytes);
        sheet_add_number(s, m->capacity_bytes);
        sheet_add_text(s, ctl_addr_format(m->addr, addr));
        sheet_add_number(s, m->silent_ms);
        snprintf(incarnation, sizeof(incarnation), "%016" PRIx64, m->incarnation);
        sheet_add_text(s, incarnation);
        sheet_add_number(s, m->start_counter);
        sheet_add_number(s, m->reads);
        sheet_add_number(s, m->writes);
        sheet_add_number(s, m->read_bytes);
        sheet_add_number(s, m->write_bytes);
        sheet_add_number(s, m->errors);
        sheet_add_number(s, m->weight_bytes);
        sheet_add_bool(s, m->weight_set);
        sheet_add_bool(s, m->draining);
        sheet_add_bool(s, m->removing);
        sheet_add_bool(s, m->away);
        sheet_add_number(s, m->joining);
        sheet_add_number(s, m->leaving_blocks);
        sheet_add_number(s, m->care.repaired);
        sheet_add_number(s, m->care.lost);
        sheet_add_number(s, m->care.differing);
        sheet_add_number(s, m->care.copies_missing);
        sheet_add_number(s, m->care.recover_blocks);
        sheet_add_number(s, m->care.recover_rate);
        sheet_add_number(s, m->care.recovered_bytes);
    }
}

enum ctl_exit ctl_module_list(struct ctl *ctl, char *const *args)
{
    static struct mdc_module_list_reply reply;
    struct sheet s;
    (void)args;
    sheet_init(&s, module_columns, ARRAY_LEN(module_columns));
    return ctl_list(ctl, &s,
                    &(struct ctl_pages){.method = MDC_METHOD_MODULE_LIST,
                                        .filter = ctl->options->pool,
                                        .what = "list the modules",
                                        .reply = &reply,
                                        .next_offset = offsetof(struct mdc_module_list_reply, next),
                                        .add = add_modules,
                                        .arg = &s});
}

/* ---- gateway list ---- */

static const struct sheet_column gateway_columns[] = {
    {"name", "NAME", SHEET_TEXT},
    {"host", "HOST", SHEET_TEXT},
    {"address", "ADDRESS", SHEET_TEXT},
    {"clients", "CLIENTS", SHEET_NUMBER},
    {"volumes", "VOLUMES", SHEET_NUMBER},
    {"reads", "READS", SHEET_NUMBER},
    {"writes", "WRITES", SHEET_NUMBER},
    {"read_bytes", "READ", SHEET_BYTES},
    {"write_bytes", "WRITTEN", SHEET_BYTES},
    {"table_version", "TABLE", SHEET_NUMBER},
    {"silent_ms", NULL, SHEET_NUMBER},
};

static void add_gateways(void *arg, const void *reply)
{
    const struct mdc_gateway_list_reply *r = reply;
    struct sheet *s = arg;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct mdc_gateway_info *g = &r->items[i];
        char addr[64];
        sheet_add_text(s, g->name);
        sheet_add_text(s, g->host);
        sheet_add_text(s, ctl_addr_format(g->addr, addr));
        sheet_add_number(s, g->clients);
        sheet_add_number(s, g->volumes);
        sheet_add_number(s, g->reads);
        sheet_add_number(s, g->writes);
        sheet_add_number(s, g->read_bytes);
        sheet_add_number(s, g->write_bytes);
        sheet_add_number(s, g->table_version);
        sheet_add_number(s, g->silent_ms);
    }
}

enum ctl_exit ctl_gateway_list(struct ctl *ctl, char *const *args)
{
    static struct mdc_gateway_list_reply reply;
    struct sheet s;
    (void)args;
    sheet_init(&s, gateway_columns, ARRAY_LEN(gateway_columns));
    return ctl_list(ctl, &s,
                    &(struct ctl_pages){.method = MDC_METHOD_GATEWAY_LIST,
                                        .what = "list the gateways",
                                        .reply = &reply,
                                        .next_offset = offsetof(struct mdc_gateway_list_reply, next),
                                        .add = add_gateways,
                                        .arg = &s});
}
