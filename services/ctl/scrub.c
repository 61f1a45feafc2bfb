/* scrub.c: modules look through their data. */
#include "common/loop.h"
#include "services/ctl/ctl.h"

#include <stdio.h>
#include <string.h>

static enum ctl_exit order(struct ctl *ctl, uint64_t what, const char *verb, const char *done)
{
    struct mdc_scrub_request rq = {.module = (uint32_t)ctl->options->module, .order = what};
    struct mdc_scrub_reply reply;
    if (ctl->options->pool != NULL && !ctl_name(ctl, rq.pool, ctl->options->pool))
        return CTL_USAGE;
    const enum ctl_exit rc = ctl_call(ctl, MDC_METHOD_SCRUB, &rq, &reply, "%s the scrub", verb);
    if (rc != CTL_DONE)
        return rc;
    return ctl_done(
        ctl, "scrub %s on %u module%s with their next heartbeat; cistern scrub status tells how it goes",
        done, reply.modules, reply.modules == 1 ? "" : "s");
}

enum ctl_exit ctl_scrub_start(struct ctl *ctl, char *const *args)
{
    (void)args;
    return order(ctl, loop_wall_ns(ctl->loop), "start", "starts");
}

enum ctl_exit ctl_scrub_stop(struct ctl *ctl, char *const *args)
{
    (void)args;
    return order(ctl, MDC_SCRUB_STOP, "stop", "stops");
}

static const struct sheet_column columns[] = {
    {"id", "ID", SHEET_NUMBER},
    {"name", "NAME", SHEET_TEXT},
    {"pool", "POOL", SHEET_TEXT},
    {"scrub", "SCRUB", SHEET_TEXT},
    {"partitions_left", "LEFT", SHEET_NUMBER},
    {"partitions", "PARTITIONS", SHEET_NUMBER},
    {"checked_blocks", "BLOCKS", SHEET_NUMBER},
    {"rotten_units", "ROTTEN", SHEET_NUMBER},
    {"repaired_units", "REPAIRED", SHEET_NUMBER},
    {"lost_units", "LOST", SHEET_NUMBER},
    {"differing_blocks", "DIFFERING", SHEET_NUMBER},
    {"ended_s", NULL, SHEET_NUMBER},
};

static void add_modules(void *arg, const void *reply)
{
    const struct mdc_module_list_reply *r = reply;
    struct sheet *s = arg;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct mdc_module_info *m = &r->items[i];
        if (m->pool == 0)
            continue;
        sheet_add_number(s, m->id);
        sheet_add_text(s, m->name);
        sheet_add_text(s, m->pool_name);
        sheet_add_text(s, m->care.scrub_running ? "running" : m->care.scrub_ended_ns != 0 ? "done" : "idle");
        sheet_add_number(s, m->care.scrub_left);
        sheet_add_number(s, m->care.scrub_parts);
        sheet_add_number(s, m->care.scrub_blocks);
        sheet_add_number(s, m->care.scrub_rotten);
        sheet_add_number(s, m->care.scrub_repaired);
        sheet_add_number(s, m->care.scrub_lost);
        sheet_add_number(s, m->care.scrub_differing);
        sheet_add_number(s, m->care.scrub_ended_ns / NS_PER_S);
    }
}

enum ctl_exit ctl_scrub_status(struct ctl *ctl, char *const *args)
{
    static struct mdc_module_list_reply reply;
    struct sheet s;
    (void)args;
    sheet_init(&s, columns, ARRAY_LEN(columns));
    return ctl_list(ctl, &s,
                    &(struct ctl_pages){.method = MDC_METHOD_MODULE_LIST,
                                        .filter = ctl->options->pool,
                                        .what = "list the modules",
                                        .reply = &reply,
                                        .next_offset = offsetof(struct mdc_module_list_reply, next),
                                        .add = add_modules,
                                        .arg = &s});
}
