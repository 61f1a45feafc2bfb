/* status.c: the cluster at a glance, and the words for the numbers in messages. */
#include "services/ctl/ctl.h"

#include <stdio.h>
#include <string.h>

#include "common/table/table.h"

static const char *word(const char *const *words, size_t count, unsigned number)
{
    return number < count && words[number] != NULL ? words[number] : "unknown";
}

const char *ctl_module_kind_name(unsigned kind)
{
    static const char *const words[] = {[TABLE_MODULE_OSD] = "osd", [TABLE_MODULE_SAN] = "san"};
    return word(words, ARRAY_LEN(words), kind);
}

const char *ctl_media_name(unsigned media)
{
    static const char *const words[] = {[TABLE_MEDIA_SSD] = "ssd",
                                        [TABLE_MEDIA_HDD] = "hdd",
                                        [TABLE_MEDIA_PMEM] = "pmem",
                                        [TABLE_MEDIA_SAN] = "san"};
    return word(words, ARRAY_LEN(words), media);
}

const char *ctl_module_state_name(unsigned state)
{
    static const char *const words[] = {
        [TABLE_MODULE_UP] = "up", [TABLE_MODULE_DOWN] = "down", [TABLE_MODULE_DAMAGED] = "damaged"};
    return word(words, ARRAY_LEN(words), state);
}

const char *ctl_volume_state_name(unsigned state)
{
    static const char *const words[] = {[TABLE_VOLUME_READY] = "ready",
                                        [TABLE_VOLUME_SHRINKING] = "shrinking",
                                        [TABLE_VOLUME_DELETING] = "deleting"};
    return word(words, ARRAY_LEN(words), state);
}

const char *ctl_addr_format(const uint8_t addr[MDC_ADDR_LEN], char *out)
{
    struct fabric_addr a;
    _Static_assert(sizeof(a) == MDC_ADDR_LEN, "an address in a message");
    memcpy(&a, addr, sizeof(a));
    if (a.provider == FABRIC_PROVIDER_NONE)
        out[0] = '\0';
    else
        fabric_addr_format(&a, out);
    return out;
}

static const struct sheet_column columns[] = {
    {"health", "health", SHEET_TEXT},
    {"problems", "problems", SHEET_LINES},
    {"cluster", "cluster", SHEET_TEXT},
    {"meta_store", "metadata store", SHEET_TEXT},
    {"uptime_ms", NULL, SHEET_NUMBER},
    {"term", "term", SHEET_NUMBER},
    {"version", "table version", SHEET_NUMBER},
    {"nodes", "nodes", SHEET_NUMBER},
    {"modules", "modules", SHEET_NUMBER},
    {"modules_up", "modules up", SHEET_NUMBER},
    {"gateways", "gateways", SHEET_NUMBER},
    {"sessions", "sessions", SHEET_NUMBER},
    {"pools", "pools", SHEET_NUMBER},
    {"partitions", "partitions", SHEET_NUMBER},
    {"partitions_served", "partitions served", SHEET_NUMBER},
    {"moves", "copies to move", SHEET_NUMBER},
    {"volumes", "volumes", SHEET_NUMBER},
    {"attachments", "attachments", SHEET_NUMBER},
    {"used_bytes", "used", SHEET_BYTES},
    {"capacity_bytes", "capacity", SHEET_BYTES},
};

static void find_problems(const struct mdc_cluster_status_reply *r, char *out, size_t room)
{
    int n = 0;
    out[0] = '\0';
    if (r->modules_up < r->modules)
        n = snprintf(out, room, "%u of %u modules are not up (cistern module list)",
                     r->modules - r->modules_up, r->modules);
    if (r->partitions_served < r->partitions)
        n += snprintf(out + n, room - (size_t)n,
                      "%s%u of %u partitions are not served: their I/O waits (cistern partition list)",
                      n > 0 ? "\n" : "", r->partitions - r->partitions_served, r->partitions);
    if (r->partitions_unsettled > 0)
        snprintf(out + n, room - (size_t)n,
                 "%snothing is decided about %u of %u partitions; one of them %s (cistern partition show)",
                 n > 0 ? "\n" : "", r->partitions_unsettled, r->partitions, r->waits);
}

enum ctl_exit ctl_status(struct ctl *ctl, char *const *args)
{
    static struct mdc_cluster_status_reply r;
    const struct mdc_empty nothing = {0};
    char cluster[33], problems[640];
    (void)args;
    const enum ctl_exit rc =
        ctl_call(ctl, MDC_METHOD_CLUSTER_STATUS, &nothing, &r, "read the cluster's status");
    if (rc != CTL_DONE)
        return rc;
    struct sheet s;
    sheet_init(&s, columns, ARRAY_LEN(columns));
    find_problems(&r, problems, sizeof(problems));
    sheet_add_text(&s, r.partitions_served < r.partitions ? "unserved"
                       : r.modules_up < r.modules         ? "degraded"
                                                          : "ok");
    sheet_add_text(&s, problems);
    uuid_format(&r.cluster, cluster);
    sheet_add_text(&s, cluster);
    sheet_add_text(&s, r.meta_store);
    const uint64_t numbers[] = {r.uptime_ms, r.term,        r.version,           r.nodes,
                                r.modules,   r.modules_up,  r.gateways,          r.sessions,
                                r.pools,     r.partitions,  r.partitions_served, r.moves,
                                r.volumes,   r.attachments, r.used_bytes,        r.capacity_bytes};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        sheet_add_number(&s, numbers[i]);
    return ctl_print_record(ctl, &s);
}
