/* modules.c: what the placement goes by: which modules a pool has, and how much they take. */
#include "services/ctl/ctl.h"

#include <stdio.h>
#include <string.h>

static bool read_module(struct ctl *ctl, const char *text, uint32_t *id)
{
    uint64_t n;
    if (config_parse_uint(text, &n) != 0 || n == 0 || n > UINT32_MAX) {
        ctl_say(ctl, "\"%s\" is not the number of a module; cistern module list tells them", text);
        return false;
    }
    *id = (uint32_t)n;
    return true;
}

/* The call, and what came of it in a line, or as JSON. */
static enum ctl_exit change(struct ctl *ctl, enum mdc_method method, const void *rq, const char *what,
                            const char *done, uint32_t id)
{
    static const struct sheet_column columns[] = {
        {"id", NULL, SHEET_NUMBER},         {"pool", NULL, SHEET_TEXT},
        {"partitions", NULL, SHEET_NUMBER}, {"weight_bytes", NULL, SHEET_NUMBER},
        {"draining", NULL, SHEET_BOOL},     {"moved", NULL, SHEET_NUMBER},
    };
    static struct mdc_module_reply reply;
    struct sheet s;
    const enum ctl_exit rc = ctl_call(ctl, method, rq, &reply, "%s module %u", what, id);
    if (rc != CTL_DONE)
        return rc;
    const struct mdc_module_info *m = &reply.module;
    if (!ctl->options->json) {
        if (m->id == 0)
            printf("module %u forgotten\n", id);
        else
            printf("module %u %s: %u partitions here, %u of its pool moved\n", id, done, m->partitions,
                   reply.moved);
        return CTL_DONE;
    }
    sheet_init(&s, columns, ARRAY_LEN(columns));
    sheet_add_number(&s, m->id);
    sheet_add_text(&s, m->pool_name);
    sheet_add_number(&s, m->partitions);
    sheet_add_number(&s, m->weight_bytes);
    sheet_add_bool(&s, m->draining);
    sheet_add_number(&s, reply.moved);
    return ctl_print_record(ctl, &s);
}

enum ctl_exit ctl_module_add(struct ctl *ctl, char *const *args)
{
    struct mdc_module_add_request rq;
    memset(&rq, 0, sizeof(rq));
    if (!read_module(ctl, args[0], &rq.module) || (args[1] != NULL && !ctl_name(ctl, rq.pool, args[1])))
        return CTL_USAGE;
    return change(ctl, MDC_METHOD_MODULE_ADD, &rq, "add", "added", rq.module);
}

enum ctl_exit ctl_module_drain(struct ctl *ctl, char *const *args)
{
    struct mdc_module_drain_request rq = {.undo = ctl->options->undo};
    if (!read_module(ctl, args[0], &rq.module))
        return CTL_USAGE;
    return change(ctl, MDC_METHOD_MODULE_DRAIN, &rq, rq.undo ? "undo the draining of" : "drain",
                  rq.undo ? "takes partitions again" : "drained", rq.module);
}

enum ctl_exit ctl_module_remove(struct ctl *ctl, char *const *args)
{
    struct mdc_module_request rq;
    if (!read_module(ctl, args[0], &rq.module))
        return CTL_USAGE;
    return change(ctl, MDC_METHOD_MODULE_REMOVE, &rq, "remove", "removed from its pool", rq.module);
}

enum ctl_exit ctl_module_reweight(struct ctl *ctl, char *const *args)
{
    struct mdc_module_reweight_request rq = {.weight_bytes = 0};
    if (!read_module(ctl, args[0], &rq.module))
        return CTL_USAGE;
    if (strcmp(args[1], "auto") != 0 &&
        (config_parse_size(args[1], &rq.weight_bytes) != 0 || rq.weight_bytes == 0)) {
        ctl_say(ctl, "\"%s\" is not a weight: a size such as 500G, or auto; to give it nothing, drain it",
                args[1]);
        return CTL_USAGE;
    }
    return change(ctl, MDC_METHOD_MODULE_REWEIGHT, &rq, "reweight", "reweighted", rq.module);
}
