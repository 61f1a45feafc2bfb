/* calls.c: control calls to whichever MDC is in charge. */
#include "services/cluster/cluster_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *method_name(uint16_t method)
{
    static const struct {
        uint16_t number;
        const char *name;
    } names[] = {
#define MDC_METHOD(num, name, handler, req, rep) {num, #handler},
#define MDC_NOTIFY(num, name, msg)
#include "common/wire/mdc.def"
#undef MDC_METHOD
#undef MDC_NOTIFY
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (names[i].number == method)
            return names[i].name;
    return "call";
}

/* The call is over. Its slot must be in no list of the rpc's. */
static void finish(struct cluster_call *call, int rc)
{
    free(call->slot);
    call->slot = NULL;
    loop_timer_cancel(call->cluster->env->loop, &call->timer);
    call->done(call, rc);
}

/* Takes the call from its slot, which rpc may still use, or from the queue. */
static void detach(struct cluster_call *call)
{
    if (list_unlinked(&call->slot->link)) {
        list_remove(&call->link);
        return;
    }
    call->slot->call = NULL;
    call->slot = NULL;
}

static void __attribute__((format(printf, 2, 3))) say(struct cluster_call *call, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const int n = snprintf(call->error_text, sizeof(call->error_text), "%s: ", method_name(call->method));
    vsnprintf(call->error_text + n, sizeof(call->error_text) - (size_t)n, fmt, ap);
    va_end(ap);
}

static void lost(struct cluster_call *call)
{
    struct cluster *c = call->cluster;
    if (call->retry) {
        list_push_back(&c->calls.queued, &call->link);
        return;
    }
    char addr[FABRIC_TARGET_BYTES];
    say(call, "the connection to the metadata controller %s was lost; it may or may not have been done",
        session_addr_text(c, addr));
    finish(call, -ENOTCONN);
}

static void refused(struct cluster_call *call, const struct rpc_result *result)
{
    struct mdc_error error;
    call->status = result->status;
    if (wire_decode(&mdc_error_type, result->body, result->body_len, &error, NULL) == 0 && error.text[0] != 0)
        snprintf(call->error_text, sizeof(call->error_text), "%s", error.text);
    else
        say(call, "%s", status_text(result->status));
    const int rc = status_to_errno(result->status);
    finish(call, rc != 0 ? rc : -EPROTO);
}

static void slot_done(struct rpc_call *rpc, const struct rpc_result *result)
{
    struct calls_slot *slot = container_of(rpc, struct calls_slot, rpc);
    struct cluster_call *call = slot->call;
    char why[WIRE_WHY_BYTES];
    list_remove(&slot->link);
    if (call == NULL) {
        free(slot);
        return;
    }
    if (result->rc != 0) {
        lost(call);
    } else if (result->status == STATUS_NOT_LEADER) {
        list_push_front(&call->cluster->calls.queued, &call->link);
        session_leave(call->cluster, status_text(STATUS_NOT_LEADER));
    } else if (result->status != STATUS_OK) {
        refused(call, result);
    } else if (call->reply_type != NULL &&
               wire_decode(call->reply_type, result->body, result->body_len, call->reply, why) != 0) {
        say(call, "the metadata controller's answer is malformed: %s", why);
        finish(call, -EPROTO);
    } else {
        finish(call, 0);
    }
}

void calls_flush(struct cluster *c)
{
    while (c->session.up && !list_empty(&c->calls.queued)) {
        struct cluster_call *call = list_entry(c->calls.queued.next, struct cluster_call, link);
        struct calls_slot *slot = call->slot;
        slot->rpc = (struct rpc_call){
            .method = call->method, .body = slot->body, .body_len = slot->body_len, .done = slot_done};
        const int rc = rpc_call_start(c->session.peer, &slot->rpc);
        if (rc == -ENOTCONN)
            return; /* down follows, then the next session sends it */
        if (rc != 0) {
            loop_timer_arm(c->env->loop, &c->calls.again, 10 * NS_PER_MS);
            return;
        }
        list_remove(&call->link);
        list_push_back(&c->calls.sent, &slot->link);
    }
}

static void flush_again(struct loop_timer *timer)
{
    calls_flush(container_of(timer, struct cluster, calls.again));
}

void calls_lost(struct cluster *c)
{
    struct list was_sent; /* done may start new calls */
    list_init(&was_sent);
    list_splice(&was_sent, &c->calls.sent);
    for (struct list *n = list_pop_front(&was_sent); n != NULL; n = list_pop_front(&was_sent)) {
        struct calls_slot *slot = list_entry(n, struct calls_slot, link);
        if (slot->call == NULL)
            free(slot);
        else
            lost(slot->call);
    }
}

static void timed_out(struct loop_timer *timer)
{
    struct cluster_call *call = container_of(timer, struct cluster_call, timer);
    struct cluster *c = call->cluster;
    char addr[FABRIC_TARGET_BYTES];
    const unsigned long ms = (unsigned long)(call->timeout_ns / NS_PER_MS);
    if (c->session.up)
        say(call, "the metadata controller %s did not answer within %lu ms", session_addr_text(c, addr), ms);
    else
        say(call, "no metadata controller could be reached within %lu ms (%s)", ms, c->session.why);
    detach(call);
    finish(call, -ETIMEDOUT);
}

int cluster_call_start(struct cluster *c, struct cluster_call *call)
{
    uint8_t body[RPC_BODY_MAX];
    size_t len;
    const int rc = wire_encode(call->request_type, call->request, body, sizeof(body), &len);
    if (rc != 0)
        return rc;
    struct calls_slot *slot = malloc(sizeof(*slot) + len);
    if (slot == NULL)
        return -ENOMEM;
    slot->cluster = c;
    slot->call = call;
    slot->body_len = (uint32_t)len;
    list_init(&slot->link);
    memcpy(slot->body, body, len);
    call->slot = slot;
    call->cluster = c;
    call->status = STATUS_OK;
    call->error_text[0] = 0;
    loop_timer_init(&call->timer, timed_out);
    if (call->timeout_ns != 0)
        loop_timer_arm(c->env->loop, &call->timer, call->timeout_ns);
    list_init(&call->link);
    list_push_back(&c->calls.queued, &call->link);
    c->counters.calls++;
    calls_flush(c);
    return 0;
}

void cluster_call_cancel(struct cluster_call *call)
{
    if (call->slot == NULL)
        return;
    loop_timer_cancel(call->cluster->env->loop, &call->timer);
    detach(call);
    free(call->slot);
    call->slot = NULL;
}

void calls_init(struct cluster *c)
{
    list_init(&c->calls.queued);
    list_init(&c->calls.sent);
    loop_timer_init(&c->calls.again, flush_again);
}

void calls_destroy(struct cluster *c)
{
    loop_timer_cancel(c->env->loop, &c->calls.again);
    for (struct list *n = list_pop_front(&c->calls.sent); n != NULL; n = list_pop_front(&c->calls.sent)) {
        struct calls_slot *slot = list_entry(n, struct calls_slot, link);
        if (slot->call != NULL)
            cluster_call_cancel(slot->call);
        else
            free(slot);
    }
    while (!list_empty(&c->calls.queued))
        cluster_call_cancel(list_entry(c->calls.queued.next, struct cluster_call, link));
}
