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

/* ---- waiting until the copies are where they belong ---- */

#define WAIT_POLL_NS (500u * NS_PER_MS)

struct watch {
    uint32_t module; /* to be empty, or out of its pool; 0 = the pool is to come to rest */
    char pool[MDC_NAME_MAX];
    bool removing;
    struct mdc_module_info m;
    struct mdc_pool_info p;
    bool module_found, pool_found;
};

static void watch_modules(void *arg, const void *reply)
{
    const struct mdc_module_list_reply *r = reply;
    struct watch *w = arg;
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->items[i].id != w->module)
            continue;
        w->m = r->items[i];
        w->module_found = true;
    }
}

static void watch_pools(void *arg, const void *reply)
{
    const struct mdc_pool_list_reply *r = reply;
    struct watch *w = arg;
    for (uint32_t i = 0; i < r->count; i++) {
        if (strcmp(r->items[i].name, w->pool) != 0)
            continue;
        w->p = r->items[i];
        w->pool_found = true;
    }
}

static enum ctl_exit watch_read(struct ctl *ctl, struct watch *w)
{
    static struct mdc_module_list_reply modules;
    static struct mdc_pool_list_reply pools;
    w->module_found = w->pool_found = false;
    enum ctl_exit rc =
        ctl_pages_read(ctl, &(struct ctl_pages){.method = MDC_METHOD_MODULE_LIST,
                                                .what = "list the modules",
                                                .reply = &modules,
                                                .next_offset = offsetof(struct mdc_module_list_reply, next),
                                                .add = watch_modules,
                                                .arg = w});
    if (rc == CTL_DONE)
        rc =
            ctl_pages_read(ctl, &(struct ctl_pages){.method = MDC_METHOD_POOL_LIST,
                                                    .what = "list the pools",
                                                    .reply = &pools,
                                                    .next_offset = offsetof(struct mdc_pool_list_reply, next),
                                                    .add = watch_pools,
                                                    .arg = w});
    return rc;
}

/* Copies that are still to move, for what is waited for. */
static uint32_t watch_left(const struct watch *w)
{
    if (w->module != 0)
        return w->module_found ? w->m.partitions : 0;
    return w->pool_found ? w->p.moves_joining + w->p.moves_waiting + w->p.moves_leaving : 0;
}

static bool watch_done(const struct watch *w)
{
    if (w->module == 0)
        return watch_left(w) == 0 && w->p.moves_stuck == 0;
    if (w->removing)
        return !w->module_found || w->m.pool == 0;
    return watch_left(w) == 0 && w->m.leaving_blocks == 0;
}

static void watch_show(struct ctl *ctl, const struct watch *w, uint32_t first, uint64_t ns)
{
    const uint32_t left = watch_left(w), done = first > left ? first - left : 0;
    const uint64_t copies = (uint64_t)w->p.partitions * (w->p.copies != 0 ? w->p.copies : 1);
    char bytes[24], time[48] = "";
    format_size(copies != 0 ? w->p.used_bytes / copies * left : 0, bytes);
    if (done != 0)
        snprintf(time, sizeof(time), ", about %llu s left",
                 (unsigned long long)(ns / done * left / NS_PER_S + 1));
    if (left == 0)
        ctl_progress(ctl, "pool %s: what is left behind is removed (%llu blocks)", w->pool,
                     (unsigned long long)w->m.leaving_blocks);
    else if (w->p.moves_stuck != 0)
        ctl_progress(ctl, "pool %s: %u copies to move; %u wait for a module that is not up", w->pool, left,
                     w->p.moves_stuck);
    else
        ctl_progress(ctl, "pool %s: %u copies to move, about %s%s", w->pool, left, bytes, time);
}

enum ctl_exit ctl_wait_moves(struct ctl *ctl, const char *pool, uint32_t module, bool removing)
{
    struct watch w = {.module = module, .removing = removing};
    uint32_t first = 0, calm = 0;
    snprintf(w.pool, sizeof(w.pool), "%s", pool);
    if (pool[0] == '\0')
        return CTL_DONE;
    const uint64_t start_ns = loop_now_ns(ctl->loop);
    while (calm < 2) { /* the controller looks a moment after a change */
        ctl_pause(ctl, WAIT_POLL_NS);
        const enum ctl_exit rc = watch_read(ctl, &w);
        if (rc != CTL_DONE)
            return rc;
        first = watch_left(&w) > first ? watch_left(&w) : first;
        calm = watch_done(&w) ? calm + 1 : 0;
        watch_show(ctl, &w, first, loop_now_ns(ctl->loop) - start_ns);
    }
    ctl_progress(ctl, "%s", "");
    return CTL_DONE;
}

/* ---- changes ---- */

static void say_done(const struct ctl *ctl, const struct mdc_module_reply *r, const char *done, uint32_t id)
{
    if (r->module.id == 0)
        printf("module %u forgotten\n", id);
    else if (ctl->options->wait)
        printf("module %u %s\n", id, done);
    else if (r->to_move != 0 || r->module.removing)
        printf("module %u %s: %u copies of its pool move in the background (cistern pool status %s)\n", id,
               r->module.removing   ? "is emptied, then leaves its pool"
               : r->module.draining ? "is emptied"
                                    : done,
               r->to_move, r->module.pool_name);
    else
        printf("module %u %s: %u partitions here, %u of its pool moved\n", id, done, r->module.partitions,
               r->moved);
}

/* The call, and what came of it in a line, or as JSON. */
static enum ctl_exit change(struct ctl *ctl, enum mdc_method method, const void *rq, const char *what,
                            const char *done, uint32_t id)
{
    static const struct sheet_column columns[] = {
        {"id", NULL, SHEET_NUMBER},         {"pool", NULL, SHEET_TEXT},
        {"partitions", NULL, SHEET_NUMBER}, {"weight_bytes", NULL, SHEET_NUMBER},
        {"draining", NULL, SHEET_BOOL},     {"moved", NULL, SHEET_NUMBER},
        {"to_move", NULL, SHEET_NUMBER},
    };
    static struct mdc_module_reply reply;
    struct sheet s;
    enum ctl_exit rc = ctl_call(ctl, method, rq, &reply, "%s module %u", what, id);
    const struct mdc_module_info *m = &reply.module;
    if (rc == CTL_DONE && ctl->options->wait)
        rc = ctl_wait_moves(ctl, m->pool_name, m->draining ? id : 0, m->removing);
    if (rc != CTL_DONE)
        return rc;
    if (!ctl->options->json) {
        say_done(ctl, &reply, done, id);
        return CTL_DONE;
    }
    sheet_init(&s, columns, ARRAY_LEN(columns));
    sheet_add_number(&s, m->id);
    sheet_add_text(&s, m->pool_name);
    sheet_add_number(&s, m->partitions);
    sheet_add_number(&s, m->weight_bytes);
    sheet_add_bool(&s, m->draining);
    sheet_add_number(&s, reply.moved);
    sheet_add_number(&s, reply.to_move);
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
