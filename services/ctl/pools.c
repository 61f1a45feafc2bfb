/* pools.c: sets of modules that volumes are placed on. */
#include "services/ctl/ctl.h"

#include <stdio.h>
#include <string.h>

static const struct sheet_column columns[] = {
    {"name", "NAME", SHEET_TEXT},
    {"id", "ID", SHEET_NUMBER},
    {"modules", "MODULES", SHEET_NUMBER},
    {"partitions", "PARTITIONS", SHEET_NUMBER},
    {"partitions_served", "SERVED", SHEET_NUMBER},
    {"stripe_bytes", "STRIPE", SHEET_BYTES},
    {"copies", "COPIES", SHEET_NUMBER},
    {"volumes", "VOLUMES", SHEET_NUMBER},
    {"provisioned_bytes", "PROVISIONED", SHEET_BYTES},
    {"used_bytes", "USED", SHEET_BYTES},
    {"capacity_bytes", "CAPACITY", SHEET_BYTES},
    {"min_copies", NULL, SHEET_NUMBER},
};

static void add_pool(struct sheet *s, const struct mdc_pool_info *p)
{
    sheet_add_text(s, p->name);
    sheet_add_number(s, p->id);
    sheet_add_number(s, p->modules);
    sheet_add_number(s, p->partitions);
    sheet_add_number(s, p->partitions_served);
    sheet_add_number(s, p->stripe_bytes);
    sheet_add_number(s, p->copies);
    sheet_add_number(s, p->volumes);
    sheet_add_number(s, p->provisioned_bytes);
    sheet_add_number(s, p->used_bytes);
    sheet_add_number(s, p->capacity_bytes);
    sheet_add_number(s, p->min_copies);
}

static void add_pools(void *arg, const void *reply)
{
    const struct mdc_pool_list_reply *r = reply;
    for (uint32_t i = 0; i < r->count; i++)
        add_pool(arg, &r->items[i]);
}

enum ctl_exit ctl_pool_list(struct ctl *ctl, char *const *args)
{
    static struct mdc_pool_list_reply reply;
    struct sheet s;
    (void)args;
    sheet_init(&s, columns, ARRAY_LEN(columns));
    return ctl_list(ctl, &s,
                    &(struct ctl_pages){.method = MDC_METHOD_POOL_LIST,
                                        .what = "list the pools",
                                        .reply = &reply,
                                        .next_offset = offsetof(struct mdc_pool_list_reply, next),
                                        .add = add_pools,
                                        .arg = &s});
}

/* "1,2,3" */
static bool read_modules(struct ctl *ctl, struct mdc_pool_create_request *rq)
{
    const char *p = ctl->options->modules;
    while (p != NULL && *p != '\0') {
        char text[24];
        uint64_t id;
        const size_t len = strcspn(p, ",");
        snprintf(text, sizeof(text), "%.*s", (int)min_u64(len, sizeof(text) - 1), p);
        if (config_parse_uint(text, &id) != 0 || id == 0 || id > UINT32_MAX) {
            ctl_say(ctl, "--modules: \"%s\" is not the number of a module; cistern module list tells them",
                    text);
            return false;
        }
        if (rq->module_count == ARRAY_LEN(rq->modules)) {
            ctl_say(ctl, "--modules: more than %zu modules", ARRAY_LEN(rq->modules));
            return false;
        }
        rq->modules[rq->module_count++] = (uint32_t)id;
        p += len + (p[len] == ',');
    }
    return true;
}

enum ctl_exit ctl_pool_create(struct ctl *ctl, char *const *args)
{
    static struct mdc_pool_create_request rq;
    static struct mdc_pool_reply reply;
    struct sheet s;
    char stripe[24];
    if (!ctl_name(ctl, rq.name, args[0]) || !read_modules(ctl, &rq))
        return CTL_USAGE;
    rq.partitions = (uint32_t)ctl->options->partitions;
    rq.stripe_bytes = (uint32_t)ctl->options->stripe_bytes;
    rq.copies = (uint8_t)ctl->options->copies;
    rq.min_copies = (uint8_t)ctl->options->min_copies;
    const enum ctl_exit rc =
        ctl_call(ctl, MDC_METHOD_POOL_CREATE, &rq, &reply, "create pool \"%s\"", rq.name);
    if (rc != CTL_DONE)
        return rc;
    if (!ctl->options->json) {
        printf("pool %s created: %u modules, %u partitions, stripes of %s\n", reply.pool.name,
               reply.pool.modules, reply.pool.partitions, format_size(reply.pool.stripe_bytes, stripe));
        return CTL_DONE;
    }
    sheet_init(&s, columns, ARRAY_LEN(columns));
    add_pool(&s, &reply.pool);
    return ctl_print_record(ctl, &s);
}

enum ctl_exit ctl_pool_delete(struct ctl *ctl, char *const *args)
{
    struct mdc_name_request rq;
    if (!ctl_name(ctl, rq.name, args[0]))
        return CTL_USAGE;
    const enum ctl_exit rc = ctl_call(ctl, MDC_METHOD_POOL_DELETE, &rq, NULL, "delete pool \"%s\"", rq.name);
    if (rc == CTL_DONE && !ctl->options->json)
        printf("pool %s deleted\n", rq.name);
    return rc;
}
