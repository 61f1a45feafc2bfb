/* attachments.c: which hosts may use which volumes. */
#include "services/ctl/ctl.h"

#include <stdio.h>

static bool read_request(struct ctl *ctl, char *const *args, struct mdc_attach_request *rq)
{
    *rq = (struct mdc_attach_request){.read_only = ctl->options->read_only, .shared = ctl->options->shared};
    return ctl_name(ctl, rq->volume, args[0]) && ctl_name(ctl, rq->host, args[1]);
}

enum ctl_exit ctl_volume_attach(struct ctl *ctl, char *const *args)
{
    struct mdc_attach_request rq;
    if (!read_request(ctl, args, &rq))
        return CTL_USAGE;
    const enum ctl_exit rc = ctl_call(ctl, MDC_METHOD_ATTACH, &rq, NULL,
                                      "attach volume \"%s\" to host \"%s\"", rq.volume, rq.host);
    if (rc != CTL_DONE)
        return rc;
    return ctl_done(ctl, "volume %s attached to host %s%s%s", rq.volume, rq.host,
                    rq.read_only ? ", read-only" : "", rq.shared ? ", shared" : "");
}

enum ctl_exit ctl_volume_detach(struct ctl *ctl, char *const *args)
{
    struct mdc_attach_request rq;
    if (!read_request(ctl, args, &rq))
        return CTL_USAGE;
    const enum ctl_exit rc = ctl_call(ctl, MDC_METHOD_DETACH, &rq, NULL,
                                      "detach volume \"%s\" from host \"%s\"", rq.volume, rq.host);
    if (rc != CTL_DONE)
        return rc;
    return ctl_done(ctl, "volume %s detached from host %s: it can write no more", rq.volume, rq.host);
}

static const struct sheet_column columns[] = {
    {"volume", "VOLUME", SHEET_TEXT}, {"host", "HOST", SHEET_TEXT},    {"read_only", "READ-ONLY", SHEET_BOOL},
    {"shared", "SHARED", SHEET_BOOL}, {"opens", "OPEN", SHEET_NUMBER},
};

static void add_attachments(void *arg, const void *reply)
{
    const struct mdc_attachment_list_reply *r = reply;
    struct sheet *s = arg;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct mdc_attachment_info *a = &r->items[i];
        sheet_add_text(s, a->volume);
        sheet_add_text(s, a->host);
        sheet_add_bool(s, a->read_only);
        sheet_add_bool(s, a->shared);
        sheet_add_number(s, a->opens);
    }
}

enum ctl_exit ctl_attachment_list(struct ctl *ctl, char *const *args)
{
    static struct mdc_attachment_list_reply reply;
    struct sheet s;
    (void)args;
    sheet_init(&s, columns, ARRAY_LEN(columns));
    return ctl_list(ctl, &s,
                    &(struct ctl_pages){.method = MDC_METHOD_ATTACHMENT_LIST,
                                        .filter = ctl->options->volume,
                                        .what = "list the attachments",
                                        .reply = &reply,
                                        .next_offset = offsetof(struct mdc_attachment_list_reply, next),
                                        .add = add_attachments,
                                        .arg = &s});
}
