/* status.c: the cluster at a glance, and the words for the numbers in messages. */
#include "services/ctl/ctl.h"

#include <inttypes.h>
#include <stdarg.h>
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
};

static void problem(char *out, size_t room, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void problem(char *out, size_t room, const char *fmt, ...)
{
    va_list args;
    size_t n = strlen(out);
    if (n > 0)
        n += (size_t)snprintf(out + n, room - n, "\n");
    va_start(args, fmt);
    vsnprintf(out + n, room - n, fmt, args);
    va_end(args);
}

static void find_problems(const struct mdc_cluster_status_reply *r, char *out, size_t room)
{
    out[0] = '\0';
    const uint32_t known = r->modules_idle + r->modules_damaged; /* there is more to say of these */
    if (r->modules_up + known < r->modules)
        problem(out, room, "%u of %u modules are not up (cistern module list)",
                r->modules - r->modules_up - known, r->modules);
    if (r->modules_idle > 0)
        problem(
            out, room,
            "%u modules are down and in no pool; one of them is module %u: start it, or have it forgotten "
            "(cistern module remove %u)",
            r->modules_idle, r->idle, r->idle);
    if (r->modules_damaged > 0)
        problem(
            out, room,
            "%u modules are damaged; one of them is module %u: what it lost is not made anew by itself. With "
            "several copies empty it (cistern module drain %u), then wipe its disk and add it again",
            r->modules_damaged, r->damaged, r->damaged);
    if (r->partitions_served < r->partitions)
        problem(out, room, "%u of %u partitions are not served: their I/O waits (cistern partition list)",
                r->partitions - r->partitions_served, r->partitions);
    if (r->partitions_unsettled > 0)
        problem(out, room,
                "nothing is decided about %u of %u partitions; one of them %s (cistern partition show)",
                r->partitions_unsettled, r->partitions, r->waits);
    if (r->copies_missing > 0 && r->recover_blocks == 0)
        problem(out, room, "%u copies are not in sync", r->copies_missing);
    else if (r->copies_missing > 0 && r->recover_rate == 0)
        problem(out, room, "%u copies are not in sync: %" PRIu64 " blocks to go", r->copies_missing,
                r->recover_blocks);
    else if (r->copies_missing > 0)
        problem(out, room,
                "%u copies are not in sync: %" PRIu64 " blocks to go, %" PRIu64 " MiB/s, %" PRIu64
                " s left at most",
                r->copies_missing, r->recover_blocks, r->recover_rate / (uint64_t)MIB,
                (uint64_t)(r->recover_blocks * BLOCK_BYTES / r->recover_rate + 1));
    if (r->modules_full > 0)
        problem(out, room,
                "%u modules are all but full: writes will end in \"no space\" (cistern module list)",
                r->modules_full);
    if (r->modules_near_full > 0)
        problem(out, room, "%u modules are nearly full (cistern module list)", r->modules_near_full);
    if (r->lost > 0)
        problem(out, room,
                "%" PRIu64
                " units of 4 KiB could be read in no copy (the modules' logs, cistern scrub status)",
                r->lost);
    if (r->differing > 0)
        problem(out, room, "%" PRIu64 " blocks differed between copies in sync (the modules' logs)",
                r->differing);
}

enum ctl_exit ctl_status(struct ctl *ctl, char *const *args)
{
    static struct mdc_cluster_status_reply r;
    const struct mdc_empty nothing = {0};
    char cluster[33], problems[2048];
    (void)args;
    const enum ctl_exit rc =
        ctl_call(ctl, MDC_METHOD_CLUSTER_STATUS, &nothing, &r, "read the cluster's status");
    if (rc != CTL_DONE)
        return rc;
    struct sheet s;
    sheet_init(&s, columns, ARRAY_LEN(columns));
    find_problems(&r, problems, sizeof(problems));
    sheet_add_text(&s, r.partitions_served < r.partitions ? "unserved"
                       : problems[0] != '\0'              ? "degraded"
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
                                r.modules_damaged};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        sheet_add_number(&s, numbers[i]);
    return ctl_print_record(ctl, &s);
}
