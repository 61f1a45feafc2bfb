/* partitions.c: who serves what, as the controller says (list), and why (show); and as a client sees it in
 * its table (locate). */
#include "services/ctl/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/table/table.h"

/* ---- partition list ---- */

static const struct sheet_column list_columns[] = {
    {"pool", NULL, SHEET_NUMBER},
    {"pool_name", "POOL", SHEET_TEXT},
    {"index", "INDEX", SHEET_NUMBER},
    {"epoch", "EPOCH", SHEET_NUMBER},
    {"primary", "PRIMARY", SHEET_NUMBER},
    {"members", "MEMBERS", SHEET_NUMBERS},
    {"in_sync", "IN SYNC", SHEET_NUMBERS},
    {"served", "SERVED", SHEET_BOOL},
    {"sent_percent", "SENT %", SHEET_NUMBER},
    {"blocks_left", "LEFT", SHEET_NUMBER},
    {"seconds_left", "SECONDS", SHEET_NUMBER},
};
struct listing {
    struct sheet sheet;
    struct mdc_pool_info pools[256]; /* the first ones; those of others are told by number */
    uint32_t pool_count;
};

static void add_pools(void *arg, const void *reply)
{
    const struct mdc_pool_list_reply *r = reply;
    struct listing *l = arg;
    for (uint32_t i = 0; i < r->count && l->pool_count < ARRAY_LEN(l->pools); i++)
        l->pools[l->pool_count++] = r->items[i];
}

static void add_pool_name(struct listing *l, uint32_t pool)
{
    char number[16];
    snprintf(number, sizeof(number), "%u", pool);
    const char *name = number;
    for (uint32_t i = 0; i < l->pool_count; i++)
        if (l->pools[i].id == pool)
            name = l->pools[i].name;
    sheet_add_text(&l->sheet, name);
}

/* Of what one that is not in sync lacks; 0 too while nobody knows yet how much that is. */
static uint32_t sent_percent(uint64_t left, uint64_t done, bool in_sync)
{
    return in_sync ? 100 : left + done == 0 ? 0 : ctl_percent(left, done);
}

static void add_partitions(void *arg, const void *reply)
{
    const struct mdc_partition_list_reply *r = reply;
    struct listing *l = arg;
    struct sheet *s = &l->sheet;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct mdc_partition_info *p = &r->items[i];
        sheet_add_number(s, p->pool);
        add_pool_name(l, p->pool);
        sheet_add_number(s, p->index);
        sheet_add_number(s, p->epoch);
        sheet_add_number(s, p->primary);
        uint32_t in_sync[ARRAY_LEN(p->members)], count = 0;
        for (uint32_t k = 0; k < p->member_count; k++)
            if (p->in_sync >> k & 1u)
                in_sync[count++] = p->members[k];
        sheet_add_numbers(s, p->members, p->member_count);
        sheet_add_numbers(s, in_sync, count);
        sheet_add_bool(s, p->served);
        sheet_add_number(s, sent_percent(p->recover_left, p->recover_done, count == p->member_count));
        sheet_add_number(s, p->recover_left);
        sheet_add_number(s, p->recover_s);
    }
}

enum ctl_exit ctl_partition_list(struct ctl *ctl, char *const *args)
{
    static struct mdc_partition_list_reply reply;
    static struct mdc_pool_list_reply pools;
    static struct listing l;
    (void)args;
    const enum ctl_exit rc =
        ctl_pages_read(ctl, &(struct ctl_pages){.method = MDC_METHOD_POOL_LIST,
                                                .what = "list the pools",
                                                .reply = &pools,
                                                .next_offset = offsetof(struct mdc_pool_list_reply, next),
                                                .add = add_pools,
                                                .arg = &l});
    if (rc != CTL_DONE)
        return rc;
    sheet_init(&l.sheet, list_columns, ARRAY_LEN(list_columns));
    return ctl_list(ctl, &l.sheet,
                    &(struct ctl_pages){.method = MDC_METHOD_PARTITION_LIST,
                                        .filter = ctl->options->pool,
                                        .what = "list the partitions",
                                        .reply = &reply,
                                        .next_offset = offsetof(struct mdc_partition_list_reply, next),
                                        .add = add_partitions,
                                        .arg = &l});
}

/* ---- partition locate ---- */

static const struct sheet_column locate_columns[] = {
    {"volume", "volume", SHEET_TEXT},
    {"offset", "offset", SHEET_NUMBER},
    {"stripe", "stripe", SHEET_NUMBER},
    {"stripe_bytes", "stripe size", SHEET_BYTES},
    {"pool", "pool", SHEET_TEXT},
    {"partition", "partition", SHEET_NUMBER},
    {"epoch", "epoch", SHEET_NUMBER},
    {"members", "members", SHEET_NUMBERS},
    {"primary", "primary module", SHEET_NUMBER},
    {"primary_address", "its address", SHEET_TEXT},
    {"primary_state", "its state", SHEET_TEXT},
    {"table_term", NULL, SHEET_NUMBER},
    {"table_version", "table version", SHEET_NUMBER},
};

static void add_place(struct sheet *s, const struct table *t, const struct table_pool *pool,
                      const struct table_volume *v, uint64_t offset)
{
    const struct table_partition *p;
    const struct table_module *m = table_route(t, v, offset, &p);
    uint32_t members[TABLE_MEMBERS_MAX];
    size_t count = 0;
    char addr[64];
    for (size_t i = 0; p != NULL && i < TABLE_MEMBERS_MAX; i++)
        if (p->members[i] != 0)
            members[count++] = TABLE_MEMBER_ID(p->members[i]);
    sheet_add_number(s, pool->stripe_bytes != 0 ? offset / pool->stripe_bytes : 0);
    sheet_add_number(s, pool->stripe_bytes);
    sheet_add_text(s, pool->name);
    sheet_add_number(s, p != NULL ? p->index : 0);
    sheet_add_number(s, p != NULL ? p->epoch : 0);
    sheet_add_numbers(s, members, count);
    sheet_add_number(s, m != NULL ? m->id : 0);
    sheet_add_text(s, m != NULL ? ctl_addr_format(m->addr, addr) : "");
    sheet_add_text(s, m != NULL ? ctl_module_state_name(m->state) : "no primary");
    sheet_add_number(s, table_head(t)->term);
    sheet_add_number(s, table_head(t)->version);
}

static enum ctl_exit locate(struct ctl *ctl, const struct mdc_volume_info *info, uint64_t offset)
{
    struct sheet s;
    const struct table *t = ctl_table(ctl);
    if (t == NULL)
        return CTL_UNREACHABLE;
    const struct table_volume *v = table_volume_by_id(t, &info->id);
    const struct table_pool *pool = v != NULL ? table_pool_by_id(t, v->pool) : NULL;
    if (pool == NULL) {
        ctl_say(ctl, "cannot locate in volume \"%s\": it is not in the partition table (yet, or any more)",
                info->name);
        return CTL_FAILED;
    }
    if (offset >= v->size_bytes) {
        ctl_say(ctl,
                "cannot locate in volume \"%s\": offset %" PRIu64 " is beyond its size, %" PRIu64 " bytes",
                info->name, offset, v->size_bytes);
        return CTL_FAILED;
    }
    sheet_init(&s, locate_columns, ARRAY_LEN(locate_columns));
    sheet_add_text(&s, info->name);
    sheet_add_number(&s, offset);
    add_place(&s, t, pool, v, offset);
    return ctl_print_record(ctl, &s);
}

enum ctl_exit ctl_partition_locate(struct ctl *ctl, char *const *args)
{
    struct mdc_name_request rq;
    static struct mdc_volume_reply reply;
    uint64_t offset;
    if (!ctl_name(ctl, rq.name, args[0]))
        return CTL_USAGE;
    if (config_parse_size(args[1], &offset) != 0) {
        ctl_say(ctl, "\"%s\" is not an offset: bytes, or a size such as 4k, 1M, 2T", args[1]);
        return CTL_USAGE;
    }
    enum ctl_exit rc = ctl_open(ctl, true);
    if (rc == CTL_DONE)
        rc = ctl_call(ctl, MDC_METHOD_VOLUME_GET, &rq, &reply, "find volume \"%s\"", rq.name);
    return rc == CTL_DONE ? locate(ctl, &reply.volume, offset) : rc;
}

/* ---- partition show ---- */

static const struct sheet_column show_columns[] = {
    {"pool", "pool", SHEET_TEXT},          {"partition", "partition", SHEET_NUMBER},
    {"epoch", "epoch", SHEET_NUMBER},      {"served", "served", SHEET_BOOL},
    {"rule", "rule", SHEET_TEXT},          {"members", "members", SHEET_NUMBERS},
    {"in_sync", "in sync", SHEET_NUMBERS}, {"primary", "primary", SHEET_NUMBER},
    {"why", "why", SHEET_LINES},           {"moves", "moves", SHEET_LINES},
    {"waits", "waits", SHEET_TEXT},        {"catch_up", "catch-up", SHEET_LINES},
    {"sent_percent", NULL, SHEET_NUMBER},  {"blocks_left", NULL, SHEET_NUMBER},
    {"seconds_left", NULL, SHEET_NUMBER},
};

/* A line for each member that is not in sync. */
static void tell_catch_up(const struct mdc_partition_show_reply *r, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < r->member_count && n < cap; i++) {
        const struct mdc_partition_member *m = &r->members[i];
        if (m->in_sync)
            continue;
        n += (size_t)snprintf(out + n, cap - n, "%smodule %u is not in sync: ", n > 0 ? "\n" : "", m->module);
        if (n >= cap)
            return;
        if (m->recover_left + m->recover_done == 0)
            n += (size_t)snprintf(out + n, cap - n, "it waits, or is being compared");
        else if (m->recover_s == 0)
            n += (size_t)snprintf(out + n, cap - n, "%u %% sent, %" PRIu64 " blocks left",
                                  ctl_percent(m->recover_left, m->recover_done), m->recover_left);
        else
            n += (size_t)snprintf(
                out + n, cap - n, "%u %% sent, %" PRIu64 " blocks left, about %" PRIu64 " s",
                ctl_percent(m->recover_left, m->recover_done), m->recover_left, m->recover_s);
    }
}

static enum ctl_exit print_partition(struct ctl *ctl, const struct mdc_partition_show_reply *r)
{
    struct sheet s;
    uint32_t ids[ARRAY_LEN(r->members)], in_sync[ARRAY_LEN(r->members)], synced = 0, primary = 0;
    char why[4096] = "", catch_up[1024];
    uint64_t left = 0, done = 0, seconds = 0;
    size_t len = 0;
    for (uint32_t i = 0; i < r->member_count; i++) {
        const struct mdc_partition_member *m = &r->members[i];
        ids[i] = m->module;
        if (m->in_sync)
            in_sync[synced++] = m->module;
        primary = m->primary ? m->module : primary;
        left += m->recover_left;
        done += m->recover_done;
        seconds = max_u64(seconds, m->recover_s);
        const int n = snprintf(why + len, sizeof(why) - len, "%s%u (%s of %s%s%s, %s): %s", i > 0 ? "\n" : "",
                               m->module, m->name, m->host, m->rack[0] != '\0' ? " in rack " : "", m->rack,
                               ctl_module_state_name(m->state), m->why);
        len = min_u64(len + (size_t)(n > 0 ? n : 0), sizeof(why) - 1);
    }
    sheet_init(&s, show_columns, ARRAY_LEN(show_columns));
    sheet_add_text(&s, r->pool);
    sheet_add_number(&s, r->index);
    sheet_add_number(&s, r->epoch);
    sheet_add_bool(&s, r->served);
    sheet_add_text(&s, r->rule);
    sheet_add_numbers(&s, ids, r->member_count);
    sheet_add_numbers(&s, in_sync, synced);
    sheet_add_number(&s, primary);
    sheet_add_text(&s, why);
    sheet_add_text(&s, r->moves[0] != '\0' ? r->moves : "none");
    sheet_add_text(&s, r->waits);
    tell_catch_up(r, catch_up, sizeof(catch_up));
    sheet_add_text(&s, catch_up);
    sheet_add_number(&s, sent_percent(left, done, synced == r->member_count));
    sheet_add_number(&s, left);
    sheet_add_number(&s, seconds);
    return ctl_print_record(ctl, &s);
}

/* "17" or "main/17" */
static bool read_partition(struct ctl *ctl, const char *text, struct mdc_partition_show_request *rq)
{
    const char *slash = strchr(text, '/');
    const char *number = slash != NULL ? slash + 1 : text;
    char pool[128] = "";
    uint64_t index;
    if (slash != NULL)
        snprintf(pool, sizeof(pool), "%.*s", (int)min_u64((size_t)(slash - text), sizeof(pool) - 1), text);
    if (config_parse_uint(number, &index) != 0 || index > UINT32_MAX) {
        ctl_say(ctl,
                "\"%s\" is not a partition: its number, or POOL/NUMBER; a place of a volume needs an OFFSET",
                text);
        return false;
    }
    rq->index = (uint32_t)index;
    return ctl_name(ctl, rq->pool, pool);
}

enum ctl_exit ctl_partition_show(struct ctl *ctl, char *const *args)
{
    struct mdc_partition_show_request rq;
    static struct mdc_partition_show_reply reply;
    memset(&rq, 0, sizeof(rq));
    if (args[1] != NULL) {
        if (!ctl_name(ctl, rq.volume, args[0]))
            return CTL_USAGE;
        if (config_parse_size(args[1], &rq.offset) != 0) {
            ctl_say(ctl, "\"%s\" is not an offset: bytes, or a size such as 4k, 1M, 2T", args[1]);
            return CTL_USAGE;
        }
    } else if (!read_partition(ctl, args[0], &rq)) {
        return CTL_USAGE;
    }
    const enum ctl_exit rc =
        ctl_call(ctl, MDC_METHOD_PARTITION_SHOW, &rq, &reply, "show a partition of \"%s\"", args[0]);
    return rc == CTL_DONE ? print_partition(ctl, &reply) : rc;
}
