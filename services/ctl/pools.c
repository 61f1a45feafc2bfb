/* pools.c: sets of modules that volumes are placed on. */
#include "services/ctl/ctl.h"

#include <inttypes.h>
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
    {"moves_joining", NULL, SHEET_NUMBER},
    {"moves_waiting", NULL, SHEET_NUMBER},
    {"moves_leaving", NULL, SHEET_NUMBER},
    {"moves_stuck", NULL, SHEET_NUMBER},
    {"moves_missing", NULL, SHEET_NUMBER},
    {"modules_away", NULL, SHEET_NUMBER},
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
    sheet_add_number(s, p->moves_joining);
    sheet_add_number(s, p->moves_waiting);
    sheet_add_number(s, p->moves_leaving);
    sheet_add_number(s, p->moves_stuck);
    sheet_add_number(s, p->moves_missing);
    sheet_add_number(s, p->modules_away);
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

/* ---- status ---- */

static const struct sheet_column status_columns[] = {
    {"name", "name", SHEET_TEXT},
    {"moves", "moves", SHEET_LINES},
    {"catch_up", "copies", SHEET_TEXT},
    {"modules", "modules", SHEET_NUMBER},
    {"modules_away", "modules replaced", SHEET_NUMBER},
    {"copies", "copies kept", SHEET_NUMBER},
    {"min_copies", "copies needed to write", SHEET_NUMBER},
    {"partitions", "partitions", SHEET_NUMBER},
    {"partitions_served", "partitions served", SHEET_NUMBER},
    {"moves_joining", "copies being filled", SHEET_NUMBER},
    {"moves_waiting", "copies waiting for it", SHEET_NUMBER},
    {"moves_leaving", "copies to go", SHEET_NUMBER},
    {"moves_stuck", "partitions stuck", SHEET_NUMBER},
    {"moves_missing", "copies without a module", SHEET_NUMBER},
    {"used_bytes", "used", SHEET_BYTES},
    {"capacity_bytes", "capacity", SHEET_BYTES},
    {"copies_missing", "copies not in sync", SHEET_NUMBER},
    {"sent_percent", NULL, SHEET_NUMBER},
    {"blocks_left", NULL, SHEET_NUMBER},
    {"bytes_s", NULL, SHEET_NUMBER},
    {"seconds_left", NULL, SHEET_NUMBER},
};

static uint64_t seconds_left(const struct mdc_pool_info *p)
{
    return p->recover_rate != 0 && p->recover_blocks != 0
               ? p->recover_blocks * BLOCK_BYTES / p->recover_rate + 1
               : 0;
}

/* How much differs is known of those that have been compared. */
static void tell_catch_up(const struct mdc_pool_info *p, char *out, size_t cap)
{
    char rate[24];
    if (p->copies_missing == 0)
        snprintf(out, cap, "all are in sync");
    else if (p->recover_blocks == 0)
        snprintf(out, cap, "%u are not in sync: they wait, or are being compared", p->copies_missing);
    else if (p->recover_rate == 0)
        snprintf(out, cap, "%u are not in sync: %u %% sent, %" PRIu64 " blocks left so far",
                 p->copies_missing, ctl_percent(p->recover_blocks, p->recover_done), p->recover_blocks);
    else
        snprintf(out, cap,
                 "%u are not in sync: %u %% sent, %" PRIu64 " blocks left so far, %s/s, about %" PRIu64 " s",
                 p->copies_missing, ctl_percent(p->recover_blocks, p->recover_done), p->recover_blocks,
                 format_size(p->recover_rate, rate), seconds_left(p));
}

static void tell_moves(const struct mdc_pool_info *p, char *out, size_t cap)
{
    const uint32_t filled = p->moves_joining + p->moves_waiting;
    const uint64_t copies = (uint64_t)p->partitions * (p->copies != 0 ? p->copies : 1);
    char bytes[24];
    format_size(copies != 0 ? p->used_bytes / copies * filled : 0, bytes);
    size_t n = 0;
    if (filled + p->moves_leaving == 0)
        n = (size_t)snprintf(out, cap, "nothing moves");
    else
        n = (size_t)snprintf(out, cap, "%u copies to be filled (about %s), then %u to go", filled, bytes,
                             p->moves_leaving);
    if (p->moves_stuck != 0 && n < cap)
        n += (size_t)snprintf(
            out + n, cap - n,
            "\n%u partitions stay as they are: no module that is up and well has their data", p->moves_stuck);
    if (p->moves_missing != 0 && n < cap)
        snprintf(out + n, cap - n, "\ntoo few modules: %u of %u copies have no place", p->moves_missing,
                 p->copies);
}

static void add_status(void *arg, const void *reply)
{
    const struct mdc_pool_list_reply *r = reply;
    struct mdc_pool_info *p = arg;
    for (uint32_t i = 0; i < r->count; i++) {
        if (p->name[0] == '\0' || strcmp(p->name, r->items[i].name) == 0)
            *p = r->items[i];
    }
}

enum ctl_exit ctl_pool_status(struct ctl *ctl, char *const *args)
{
    static struct mdc_pool_list_reply reply;
    struct mdc_pool_info p = {.id = 0};
    struct sheet s;
    char moves[256], catch_up[256];
    if (args[0] != NULL && !ctl_name(ctl, p.name, args[0]))
        return CTL_USAGE;
    const enum ctl_exit rc =
        ctl_pages_read(ctl, &(struct ctl_pages){.method = MDC_METHOD_POOL_LIST,
                                                .what = "list the pools",
                                                .reply = &reply,
                                                .next_offset = offsetof(struct mdc_pool_list_reply, next),
                                                .add = add_status,
                                                .arg = &p});
    if (rc != CTL_DONE)
        return rc;
    if (p.id == 0 || (args[0] == NULL && reply.count > 1)) {
        ctl_say(ctl, "cannot tell a pool's status: %s",
                p.id == 0 ? "there is no such pool" : "there is more than one pool; name it");
        return CTL_FAILED;
    }
    tell_moves(&p, moves, sizeof(moves));
    sheet_init(&s, status_columns, ARRAY_LEN(status_columns));
    sheet_add_text(&s, p.name);
    sheet_add_text(&s, moves);
    tell_catch_up(&p, catch_up, sizeof(catch_up));
    sheet_add_text(&s, catch_up);
    const uint64_t numbers[] = {p.modules,
                                p.modules_away,
                                p.copies,
                                p.min_copies,
                                p.partitions,
                                p.partitions_served,
                                p.moves_joining,
                                p.moves_waiting,
                                p.moves_leaving,
                                p.moves_stuck,
                                p.moves_missing,
                                p.used_bytes,
                                p.capacity_bytes,
                                p.copies_missing,
                                p.copies_missing == 0 ? 100
                                : p.recover_blocks + p.recover_done == 0
                                    ? 0
                                    : ctl_percent(p.recover_blocks, p.recover_done),
                                p.recover_blocks,
                                p.recover_rate,
                                seconds_left(&p)};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        sheet_add_number(&s, numbers[i]);
    return ctl_print_record(ctl, &s);
}

/* ---- create ---- */

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
    if (reply.pool.modules < reply.pool.copies)
        ctl_say(
            ctl,
            "warning: %u copies are asked for, and %u module%s can hold no more than as many: add modules "
            "(cistern module add)",
            reply.pool.copies, reply.pool.modules, reply.pool.modules == 1 ? "" : "s");
    if (!ctl->options->json) {
        printf("pool %s created: %u modules, %u partitions, stripes of %s, %u %s\n", reply.pool.name,
               reply.pool.modules, reply.pool.partitions, format_size(reply.pool.stripe_bytes, stripe),
               reply.pool.copies, reply.pool.copies == 1 ? "copy" : "copies");
        return CTL_DONE;
    }
    sheet_init(&s, columns, ARRAY_LEN(columns));
    add_pool(&s, &reply.pool);
    return ctl_print_record(ctl, &s);
}

/* It is refused while copies move: with --wait, as often as they begin to. */
static enum ctl_exit grow(struct ctl *ctl, const struct mdc_pool_grow_request *rq,
                          struct mdc_pool_reply *reply)
{
    char what[48 + MDC_NAME_MAX];
    uint32_t status = STATUS_OK;
    snprintf(what, sizeof(what), "give pool \"%s\" more partitions", rq->name);
    if (!ctl->options->wait)
        return ctl_call(ctl, MDC_METHOD_POOL_GROW, rq, reply, "%s", what);
    enum ctl_exit rc;
    do {
        rc = ctl_wait_moves(ctl, rq->name, 0, false);
        if (rc == CTL_DONE)
            rc = ctl_call_expecting(ctl, MDC_METHOD_POOL_GROW, rq, reply, STATUS_AGAIN, &status, what);
    } while (rc == CTL_DONE && status == STATUS_AGAIN);
    return rc;
}

enum ctl_exit ctl_pool_grow(struct ctl *ctl, char *const *args)
{
    struct mdc_pool_grow_request rq = {.partitions = 0};
    static struct mdc_pool_reply reply;
    struct sheet s;
    uint64_t n = 0;
    if (!ctl_name(ctl, rq.name, args[0]))
        return CTL_USAGE;
    if (args[1] != NULL && (config_parse_uint(args[1], &n) != 0 || n == 0 || n > 65536)) {
        ctl_say(ctl, "\"%s\" is not a number of partitions: a power of two, at most 65536", args[1]);
        return CTL_USAGE;
    }
    rq.partitions = (uint32_t)n;
    enum ctl_exit rc = ctl->options->wait ? ctl_open(ctl, false) : CTL_DONE;
    if (rc == CTL_DONE)
        rc = grow(ctl, &rq, &reply);
    if (rc == CTL_DONE && ctl->options->wait)
        rc = ctl_wait_moves(ctl, rq.name, 0, false);
    if (rc != CTL_DONE)
        return rc;
    if (!ctl->options->json) {
        printf("pool %s has %u partitions now\n", reply.pool.name, reply.pool.partitions);
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
    return rc == CTL_DONE ? ctl_done(ctl, "pool %s deleted", rq.name) : rc;
}
