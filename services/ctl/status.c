/* status.c: the cluster at a glance, and the words for the numbers in messages. */
#include "services/ctl/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/table/table.h"
#include "services/ctl/problems.h"

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

uint32_t ctl_percent(uint64_t left, uint64_t done)
{
    const uint64_t all = left + done;
    return left == 0 ? 100 : (uint32_t)min_u64((uint64_t)((double)done * 100 / (double)all), 99);
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
    {"modules_near_full", NULL, SHEET_NUMBER},
    {"modules_full", NULL, SHEET_NUMBER},
    {"copies_missing", "copies missing", SHEET_NUMBER},
    {"recover_blocks", NULL, SHEET_NUMBER},
    {"recover_bytes_s", NULL, SHEET_NUMBER},
    {"lost_units", NULL, SHEET_NUMBER},
    {"differing_blocks", NULL, SHEET_NUMBER},
    {"scrubs", "scrubs running", SHEET_NUMBER},
    {"modules_idle", NULL, SHEET_NUMBER},
    {"modules_damaged", NULL, SHEET_NUMBER},
    {"partitions_single", NULL, SHEET_NUMBER},
    {"replace_after_ms", NULL, SHEET_NUMBER},
};

struct finding {
    struct problems problems;
    uint64_t replace_ms;
};

static void find_in_modules(void *arg, const void *reply)
{
    const struct mdc_module_list_reply *r = reply;
    struct finding *f = arg;
    for (uint32_t i = 0; i < r->count; i++)
        problems_of_module(&f->problems, &r->items[i], f->replace_ms);
}

static void find_in_pools(void *arg, const void *reply)
{
    const struct mdc_pool_list_reply *r = reply;
    struct finding *f = arg;
    for (uint32_t i = 0; i < r->count; i++)
        problems_of_pool(&f->problems, &r->items[i]);
}

static enum ctl_exit find_problems(struct ctl *ctl, const struct mdc_cluster_status_reply *r,
                                   struct finding *f)
{
    static struct mdc_module_list_reply modules;
    static struct mdc_pool_list_reply pools;
    enum ctl_exit rc = CTL_DONE;
    f->replace_ms = r->replace_ms;
    if (r->modules_up < r->modules)
        rc = ctl_pages_read(ctl,
                            &(struct ctl_pages){.method = MDC_METHOD_MODULE_LIST,
                                                .what = "list the modules",
                                                .reply = &modules,
                                                .next_offset = offsetof(struct mdc_module_list_reply, next),
                                                .add = find_in_modules,
                                                .arg = f});
    problems_modules_end(&f->problems);
    problems_of_cluster(&f->problems, r);
    if (rc == CTL_DONE)
        rc =
            ctl_pages_read(ctl, &(struct ctl_pages){.method = MDC_METHOD_POOL_LIST,
                                                    .what = "list the pools",
                                                    .reply = &pools,
                                                    .next_offset = offsetof(struct mdc_pool_list_reply, next),
                                                    .add = find_in_pools,
                                                    .arg = f});
    return rc;
}

enum ctl_exit ctl_status(struct ctl *ctl, char *const *args)
{
    static struct mdc_cluster_status_reply r;
    const struct mdc_empty nothing = {0};
    static struct finding f;
    char cluster[33];
    (void)args;
    enum ctl_exit rc = ctl_call(ctl, MDC_METHOD_CLUSTER_STATUS, &nothing, &r, "read the cluster's status");
    if (rc == CTL_DONE)
        rc = find_problems(ctl, &r, &f);
    if (rc != CTL_DONE)
        return rc;
    const char *problems = f.problems.text;
    struct sheet s;
    sheet_init(&s, columns, ARRAY_LEN(columns));
    sheet_add_text(&s, f.problems.unheard > 0               ? "starting"
                       : r.partitions_served < r.partitions ? "unserved"
                       : problems[0] != '\0'                ? "degraded"
                                                            : "ok");
    sheet_add_text(&s, problems);
    uuid_format(&r.cluster, cluster);
    sheet_add_text(&s, cluster);
    sheet_add_text(&s, r.meta_store);
    const uint64_t numbers[] = {r.uptime_ms,
                                r.term,
                                r.version,
                                r.nodes,
                                r.modules,
                                r.modules_up,
                                r.gateways,
                                r.sessions,
                                r.pools,
                                r.partitions,
                                r.partitions_served,
                                r.moves,
                                r.volumes,
                                r.attachments,
                                r.used_bytes,
                                r.capacity_bytes,
                                r.modules_near_full,
                                r.modules_full,
                                r.copies_missing,
                                r.recover_blocks,
                                r.recover_rate,
                                r.lost,
                                r.differing,
                                r.scrubs,
                                r.modules_idle,
                                r.modules_damaged,
                                r.partitions_single,
                                r.replace_ms};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        sheet_add_number(&s, numbers[i]);
    return ctl_print_record(ctl, &s);
}
