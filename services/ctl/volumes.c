/* volumes.c: volumes from birth to death. */
#include "services/ctl/ctl.h"

#include <stdio.h>
#include <string.h>

#include "common/loop.h"
#include "common/table/table.h"

#define POLL_NS (200 * NS_PER_MS)

static const struct sheet_column list_columns[] = {
    {"name", "NAME", SHEET_TEXT},
    {"pool", "POOL", SHEET_TEXT},
    {"size_bytes", "SIZE", SHEET_BYTES},
    {"state", "STATE", SHEET_TEXT},
    {"attachments", "ATTACHED", SHEET_NUMBER},
    {"opens", "OPEN", SHEET_NUMBER},
    {"id", "ID", SHEET_TEXT},
    {"generation", NULL, SHEET_NUMBER},
    {"layer", NULL, SHEET_NUMBER},
    {"family", NULL, SHEET_NUMBER},
};
static const struct sheet_column show_columns[] = {
    {"name", "name", SHEET_TEXT},
    {"pool", "pool", SHEET_TEXT},
    {"size_bytes", "size", SHEET_BYTES},
    {"state", "state", SHEET_TEXT},
    {"attachments", "attached hosts", SHEET_NUMBER},
    {"opens", "open in processes", SHEET_NUMBER},
    {"id", "id", SHEET_TEXT},
    {"generation", "generation", SHEET_NUMBER},
    {"layer", "layer", SHEET_NUMBER},
    {"family", "family", SHEET_NUMBER},
};
_Static_assert(ARRAY_LEN(list_columns) == ARRAY_LEN(show_columns), "add_volume fills both");

static void add_volume(struct sheet *s, const struct mdc_volume_info *v)
{
    char id[33];
    uuid_format(&v->id, id);
    sheet_add_text(s, v->name);
    sheet_add_text(s, v->pool);
    sheet_add_number(s, v->size_bytes);
    sheet_add_text(s, ctl_volume_state_name(v->state));
    sheet_add_number(s, v->attachments);
    sheet_add_number(s, v->opens);
    sheet_add_text(s, id);
    sheet_add_number(s, v->generation);
    sheet_add_number(s, v->layer);
    sheet_add_number(s, v->family);
}

static bool read_size(struct ctl *ctl, const char *text, uint64_t *bytes)
{
    if (config_parse_size(text, bytes) == 0)
        return true;
    ctl_say(ctl, "\"%s\" is not a size: bytes, or a number and k, M, G or T", text);
    return false;
}

/* What became of a volume: its record as JSON, or a sentence. */
static enum ctl_exit print_outcome(struct ctl *ctl, const struct mdc_volume_info *v, const char *outcome)
{
    struct sheet s;
    char size[24];
    if (!ctl->options->json) {
        printf("volume %s %s: %s in pool %s\n", v->name, outcome, format_size(v->size_bytes, size), v->pool);
        return CTL_DONE;
    }
    sheet_init(&s, show_columns, ARRAY_LEN(show_columns));
    add_volume(&s, v);
    return ctl_print_record(ctl, &s);
}

/* ---- list, show ---- */

static void add_volumes(void *arg, const void *reply)
{
    const struct mdc_volume_list_reply *r = reply;
    for (uint32_t i = 0; i < r->count; i++)
        add_volume(arg, &r->items[i]);
}

static struct ctl_pages volume_pages(const struct ctl *ctl, struct mdc_volume_list_reply *reply)
{
    return (struct ctl_pages){.method = MDC_METHOD_VOLUME_LIST,
                              .filter = ctl->options->pool,
                              .what = "list the volumes",
                              .reply = reply,
                              .next_offset = offsetof(struct mdc_volume_list_reply, next)};
}

enum ctl_exit ctl_volume_list(struct ctl *ctl, char *const *args)
{
    static struct mdc_volume_list_reply reply;
    struct sheet s;
    struct ctl_pages pages = volume_pages(ctl, &reply);
    (void)args;
    sheet_init(&s, list_columns, ARRAY_LEN(list_columns));
    pages.add = add_volumes;
    pages.arg = &s;
    return ctl_list(ctl, &s, &pages);
}

enum ctl_exit ctl_volume_show(struct ctl *ctl, char *const *args)
{
    struct mdc_name_request rq;
    static struct mdc_volume_reply reply;
    struct sheet s;
    if (!ctl_name(ctl, rq.name, args[0]))
        return CTL_USAGE;
    const enum ctl_exit rc = ctl_call(ctl, MDC_METHOD_VOLUME_GET, &rq, &reply, "show volume \"%s\"", rq.name);
    if (rc != CTL_DONE)
        return rc;
    sheet_init(&s, show_columns, ARRAY_LEN(show_columns));
    add_volume(&s, &reply.volume);
    return ctl_print_record(ctl, &s);
}

/* ---- create ---- */

enum ctl_exit ctl_volume_create(struct ctl *ctl, char *const *args)
{
    struct mdc_volume_create_request rq = {.size_bytes = 0};
    static struct mdc_volume_reply reply;
    const char *pool = ctl->options->pool != NULL ? ctl->options->pool : "";
    if (!ctl_name(ctl, rq.name, args[0]) || !ctl_name(ctl, rq.pool, pool) ||
        !read_size(ctl, args[1], &rq.size_bytes))
        return CTL_USAGE;
    const enum ctl_exit rc =
        ctl_call(ctl, MDC_METHOD_VOLUME_CREATE, &rq, &reply, "create volume \"%s\"", rq.name);
    return rc == CTL_DONE ? print_outcome(ctl, &reply.volume, "created") : rc;
}

/* ---- resize ---- */

static enum ctl_exit wait_for_shrink(struct ctl *ctl, struct mdc_volume_reply *reply)
{
    struct mdc_name_request rq;
    memcpy(rq.name, reply->volume.name, sizeof(rq.name));
    const uint64_t start_ns = loop_now_ns(ctl->loop);
    while (reply->volume.state == TABLE_VOLUME_SHRINKING) {
        ctl_progress(ctl, "volume %s: the modules remove what was cut off, %llu s", rq.name,
                     (unsigned long long)((loop_now_ns(ctl->loop) - start_ns) / NS_PER_S));
        ctl_pause(ctl, POLL_NS);
        const enum ctl_exit rc =
            ctl_call(ctl, MDC_METHOD_VOLUME_GET, &rq, reply, "see volume \"%s\" shrink", rq.name);
        if (rc != CTL_DONE)
            return rc;
    }
    return CTL_DONE;
}

enum ctl_exit ctl_volume_resize(struct ctl *ctl, char *const *args)
{
    struct mdc_volume_resize_request rq = {.allow_shrink = ctl->options->allow_shrink};
    static struct mdc_volume_reply reply;
    if (!ctl_name(ctl, rq.name, args[0]) || !read_size(ctl, args[1], &rq.size_bytes))
        return CTL_USAGE;
    enum ctl_exit rc = ctl_call(ctl, MDC_METHOD_VOLUME_RESIZE, &rq, &reply, "resize volume \"%s\"", rq.name);
    if (rc == CTL_DONE && ctl->options->wait)
        rc = wait_for_shrink(ctl, &reply);
    return rc == CTL_DONE ? print_outcome(ctl, &reply.volume, "resized") : rc;
}

/* ---- delete ---- */

/* A deleted volume has lost its name, not its record: that goes when the modules have removed the data. */
struct look {
    struct uuid id;
    bool found;
};

static void look_for(void *arg, const void *reply)
{
    const struct mdc_volume_list_reply *r = reply;
    struct look *look = arg;
    for (uint32_t i = 0; i < r->count; i++)
        look->found |= uuid_eq(&r->items[i].id, &look->id);
}

static enum ctl_exit wait_for_delete(struct ctl *ctl, const struct mdc_volume_info *v)
{
    static struct mdc_volume_list_reply reply;
    struct look look = {.id = v->id, .found = true};
    struct ctl_pages pages = volume_pages(ctl, &reply);
    const uint64_t start_ns = loop_now_ns(ctl->loop);
    pages.add = look_for;
    pages.arg = &look;
    for (;;) {
        look.found = false;
        const enum ctl_exit rc = ctl_pages_read(ctl, &pages);
        if (rc != CTL_DONE || !look.found)
            return rc;
        ctl_progress(ctl, "volume %s: the modules remove its data, %llu s", v->name,
                     (unsigned long long)((loop_now_ns(ctl->loop) - start_ns) / NS_PER_S));
        ctl_pause(ctl, POLL_NS);
    }
}

enum ctl_exit ctl_volume_delete(struct ctl *ctl, char *const *args)
{
    struct mdc_volume_delete_request rq = {.force = ctl->options->force};
    struct mdc_name_request name;
    static struct mdc_volume_reply reply;
    enum ctl_exit rc = CTL_DONE;
    if (!ctl_name(ctl, rq.name, args[0]))
        return CTL_USAGE;
    memcpy(name.name, rq.name, sizeof(name.name));
    if (ctl->options->wait)
        rc = ctl_call(ctl, MDC_METHOD_VOLUME_GET, &name, &reply, "delete volume \"%s\"", rq.name);
    if (rc == CTL_DONE)
        rc = ctl_call(ctl, MDC_METHOD_VOLUME_DELETE, &rq, NULL, "delete volume \"%s\"", rq.name);
    if (rc == CTL_DONE && ctl->options->wait)
        rc = wait_for_delete(ctl, &reply.volume);
    if (rc != CTL_DONE)
        return rc;
    return ctl_done(ctl, "volume %s deleted%s", rq.name,
                    ctl->options->wait ? "" : "; its space comes back bit by bit");
}
