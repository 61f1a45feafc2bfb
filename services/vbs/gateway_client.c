/* The connection to a gateway and the associations on it. See gateway_client.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"
#include "services/vbs/gateway_client_internal.h"

#define BACKOFF_MIN_NS   (10 * NS_PER_MS)
#define BACKOFF_MAX_NS   (500 * NS_PER_MS)
#define SUPERSEDED_NS    (4 * NS_PER_MS)
#define REOPEN_NS        (100 * NS_PER_MS)
#define OPEN_TIMEOUT_NS  (5 * NS_PER_S)
#define CLOSE_TIMEOUT_NS (1 * NS_PER_S)
enum { PARTS_DEFAULT = 256 };

static void client_open_volume(struct vbs_client_volume *v);

static uint64_t client_jitter(struct vbs_client *c, uint64_t ns)
{
    return ns - rng_below(c->env->rng, ns / 2 + 1);
}

/* ---- the connection ---- */

static void client_rest(struct vbs_client *c)
{
    c->state = CLIENT_IDLE;
    c->old_peer = NULL;
    loop_timer_arm(c->env->loop, &c->timer, client_jitter(c, c->backoff_ns));
    c->backoff_ns = min_u64(c->backoff_ns * 2, BACKOFF_MAX_NS);
}

void client_call_ended(struct vbs_client *c)
{
    MUST(c->calls > 0);
    c->calls--;
    if (c->state == CLIENT_DRAINING && c->calls == 0)
        client_rest(c);
}

/* Next time the next gateway of the list is tried. */
static void client_drain(struct vbs_client *c)
{
    c->old_peer = c->calls != 0 ? c->peer : NULL;
    c->peer = NULL;
    c->next_gateway = (c->next_gateway + 1) % c->config.gateway_count;
    list_for_each(n, &c->volumes)
    {
        struct vbs_client_volume *v = list_entry(n, struct vbs_client_volume, all);
        if (v->assoc == ASSOC_OPEN)
            v->assoc = ASSOC_NONE;
    }
    c->state = CLIENT_DRAINING;
    if (c->calls == 0)
        client_rest(c);
}

static void on_up(void *service, struct rpc_peer *peer)
{
    struct vbs_client *c = service;
    if (peer != c->peer)
        return;
    c->state = CLIENT_READY;
    list_for_each(n, &c->volumes)
    {
        struct vbs_client_volume *v = list_entry(n, struct vbs_client_volume, all);
        if (v->assoc == ASSOC_NONE)
            client_open_volume(v);
    }
}

static void on_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct vbs_client *c = service;
    if (peer != c->peer)
        return;
    if (log_allow(c->env, &c->log)) {
        char text[64];
        log_info(c->env, "connection to a gateway ended", "gateway=%s reason=\"%s\"",
                 fabric_addr_format(&c->config.gateways[c->next_gateway], text), fabric_down_text(reason));
    }
    client_drain(c);
}

static void on_notify(void *service, struct rpc_peer *peer, uint16_t method, const void *body,
                      uint32_t body_len)
{
    struct vbs_client *c = service;
    struct vbs_resized msg;
    if (peer != c->peer || method != VBS_METHOD_RESIZED || body_len < sizeof msg)
        return;
    memcpy(&msg, body, sizeof msg);
    list_for_each(n, &c->volumes)
    {
        struct vbs_client_volume *v = list_entry(n, struct vbs_client_volume, all);
        if (v->assoc == ASSOC_OPEN && v->handle == msg.handle)
            client_set_size(v, msg.size_bytes);
    }
}

static const struct rpc_events client_events = {.up = on_up, .down = on_down, .notify = on_notify};

static void client_try_next(struct vbs_client *c)
{
    c->peer = NULL;
    c->next_gateway = (c->next_gateway + 1) % c->config.gateway_count;
    client_rest(c);
}

static void client_connect(struct vbs_client *c)
{
    const struct fabric_addr *addr = &c->config.gateways[c->next_gateway];
    if (rpc_connect(c->env, addr, FABRIC_DOMAIN_HOST, &c->service, &c->peer) == 0) {
        c->state = CLIENT_CONNECTING;
        return;
    }
    client_try_next(c);
}

static void client_lookup_failed(struct vbs_client *c, int rc)
{
    if (log_allow(c->env, &c->log))
        log_info(c->env, "no address of a gateway", "gateway=%s reason=\"%s\"",
                 c->config.gateway_hosts[c->next_gateway], resolve_error(rc));
    client_try_next(c);
}

static void resolved(struct resolve_request *req, int rc, const struct resolve_addr *addrs, unsigned count)
{
    struct vbs_client *c = container_of(req, struct vbs_client, lookup);
    struct fabric_addr *addr = &c->config.gateways[c->next_gateway];
    if (rc != 0) {
        client_lookup_failed(c, rc);
        return;
    }
    if (c->lookups == 0) /* or all clients would crowd at the first */
        c->lookups = (unsigned)rng_below(c->env->rng, RESOLVE_ADDRS_MAX) + RESOLVE_ADDRS_MAX;
    *addr = fabric_target_with(addr, &addrs[c->lookups++ % count]);
    client_connect(c);
}

static void on_timer(struct loop_timer *t)
{
    struct vbs_client *c = container_of(t, struct vbs_client, timer);
    const char *host = c->config.gateway_hosts[c->next_gateway];
    if (host[0] == 0) {
        client_connect(c);
        return;
    }
    const int rc = resolve_start(c->env, &c->lookup, host);
    if (rc != 0)
        client_lookup_failed(c, rc);
}

static void client_close_peer(struct vbs_client *c)
{
    if (c->peer == NULL)
        return;
    rpc_close(c->peer);
    client_drain(c);
}

int vbs_client_create(struct env *env, const struct gateway_client_config *config, struct vbs_client **out)
{
    if (config->gateway_count == 0 || config->gateway_count > GATEWAY_CLIENT_ADDRS_MAX)
        return -EINVAL;
    struct vbs_client *c = calloc(1, sizeof *c);
    if (c == NULL)
        return -ENOMEM;
    c->env = env;
    c->config = *config;
    c->backoff_ns = BACKOFF_MIN_NS;
    c->open_serial = loop_now_ns(env->loop); /* above those of an earlier client of this instance */
    c->log.interval_ns = NS_PER_S;
    c->service.events = &client_events;
    c->service.service = c;
    list_init(&c->volumes);
    list_init(&c->hungry);
    list_init(&c->copies);
    loop_timer_init(&c->timer, on_timer);
    c->lookup.done = resolved;
    size_t parts = config->parts_max != 0 ? config->parts_max : PARTS_DEFAULT;
    int rc = pool_create(NULL, "gateway parts", sizeof(struct client_part), 64, parts, &c->parts);
    if (rc != 0) {
        free(c);
        return rc;
    }
    loop_timer_arm(env->loop, &c->timer, 0);
    *out = c;
    return 0;
}

static void client_volume_free(struct vbs_client_volume *v)
{
    struct loop *loop = v->client->env->loop;
    list_remove(&v->all);
    list_remove(&v->hungry);
    loop_timer_cancel(loop, &v->retry);
    loop_task_cancel(loop, &v->notify);
    free(v);
}

static void client_volume_closed(struct vbs_client_volume *v)
{
    void (*done)(void *) = v->close_done;
    void *arg = v->close_arg;
    client_volume_free(v);
    if (done != NULL)
        done(arg);
}

void vbs_client_destroy(struct vbs_client *c)
{
    if (c == NULL)
        return;
    if (c->peer != NULL)
        rpc_abandon(c->peer);
    if (c->old_peer != NULL)
        rpc_abandon(c->old_peer);
    loop_timer_cancel(c->env->loop, &c->timer);
    resolve_cancel(c->env, &c->lookup);
    for (struct list *n; (n = list_pop_front(&c->volumes)) != NULL;) {
        struct vbs_client_volume *v = list_entry(n, struct vbs_client_volume, all);
        client_volume_free(v);
    }
    while (!list_empty(&c->copies))
        client_part_drop_copy(list_entry(c->copies.next, struct client_part, copy_link));
    pool_destroy(c->parts, true);
    free(c);
}

bool vbs_client_is_up(const struct vbs_client *c)
{
    return c->state == CLIENT_READY;
}

/* ---- associations ---- */

static void on_changed_task(struct loop_task *t)
{
    struct vbs_client_volume *v = container_of(t, struct vbs_client_volume, notify);
    if (v->changed != NULL)
        v->changed(v->changed_arg, v->lost_rc);
}

void client_set_size(struct vbs_client_volume *v, uint64_t size_bytes)
{
    if (v->info.size_bytes == size_bytes)
        return;
    v->info.size_bytes = size_bytes;
    loop_defer(v->client->env->loop, &v->notify);
}

void client_volume_call_ended(struct vbs_client_volume *v)
{
    MUST(v->calls > 0);
    v->calls--;
    if (v->closed && v->calls == 0)
        client_volume_closed(v);
}

static void client_lose(struct vbs_client_volume *v, int rc)
{
    v->assoc = ASSOC_LOST;
    v->lost_rc = rc;
    loop_timer_cancel(v->client->env->loop, &v->retry);
    loop_defer(v->client->env->loop, &v->notify);
    client_end_all(v, rc);
}

static void on_retry(struct loop_timer *t)
{
    struct vbs_client_volume *v = container_of(t, struct vbs_client_volume, retry);
    if (v->assoc == ASSOC_NONE)
        client_open_volume(v);
    else
        client_send_waiting(v);
}

void client_reopen(struct vbs_client_volume *v)
{
    if (v->assoc != ASSOC_OPEN)
        return;
    v->assoc = ASSOC_NONE;
    /* Two that share a volume on one host take the turn from each other: not as fast as they can. */
    loop_timer_arm(v->client->env->loop, &v->retry, client_jitter(v->client, SUPERSEDED_NS));
}

/* The gateway could not, now; anything else is the answer. */
static bool open_may_pass(const struct rpc_result *result)
{
    if (result->rc != 0)
        return true;
    switch (result->status) {
    case STATUS_AGAIN:
    case STATUS_NOT_LEADER:
    case STATUS_TIMEOUT:
    case STATUS_DISCONNECTED:
    case STATUS_CANCELED:
    case STATUS_NO_MEMORY:
        return true;
    default:
        return false;
    }
}

static void open_refused(struct vbs_client_volume *v, const struct rpc_result *result)
{
    struct mdc_error error = {0};
    int rc = status_to_errno(result->status);
    if (wire_decode(&mdc_error_type, result->body, result->body_len, &error, NULL) != 0 || error.text[0] == 0)
        snprintf(error.text, sizeof error.text, "the gateway refused: %s", status_text(result->status));
    if (v->open_done == NULL) {
        client_lose(v, rc == -ENOENT ? -ENOENT : -ESTALE);
        return;
    }
    void (*done)(void *, struct vbs_client_volume *, int, const char *) = v->open_done;
    void *arg = v->open_arg;
    client_volume_free(v);
    done(arg, NULL, rc, error.text);
}

static void open_accepted(struct vbs_client_volume *v, const struct vbs_open_reply *reply)
{
    if (v->open_done == NULL && !uuid_eq(&reply->volume, &v->info.id)) {
        client_lose(v, -ENOENT); /* another volume has the name now */
        return;
    }
    v->assoc = ASSOC_OPEN;
    v->client->backoff_ns = BACKOFF_MIN_NS;
    v->handle = reply->handle;
    v->info.id = reply->volume;
    v->info.generation = max_u64(v->info.generation, reply->generation);
    v->info.block_bytes = reply->block_bytes;
    v->info.stripe_bytes = reply->stripe_bytes;
    if (v->open_done != NULL) {
        void (*done)(void *, struct vbs_client_volume *, int, const char *) = v->open_done;
        v->info.size_bytes = reply->size_bytes;
        v->open_done = NULL;
        v->options.take_over = false; /* only the user takes over, never a reconnect */
        done(v->open_arg, v, 0, "");
        return;
    }
    client_set_size(v, reply->size_bytes);
    client_send_waiting(v);
}

static void on_open_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct vbs_client_volume *v = container_of(call, struct vbs_client_volume, open_call);
    struct vbs_client *c = v->client;
    struct vbs_open_reply reply;
    v->assoc = ASSOC_NONE;
    v->calls--;
    if (v->closed) {
        if (v->calls == 0)
            client_volume_closed(v);
    } else if (open_may_pass(result)) {
        if (result->rc == -ETIMEDOUT) /* it has no metadata controller, perhaps another one has */
            client_close_peer(c);
        loop_timer_arm(c->env->loop, &v->retry, client_jitter(c, REOPEN_NS));
    } else if (result->status != STATUS_OK) {
        open_refused(v, result);
    } else if (wire_decode(&vbs_open_reply_type, result->body, result->body_len, &reply, NULL) != 0) {
        client_close_peer(c);
        loop_timer_arm(c->env->loop, &v->retry, client_jitter(c, REOPEN_NS));
    } else {
        open_accepted(v, &reply);
    }
    client_call_ended(c);
}

static void client_open_volume(struct vbs_client_volume *v)
{
    struct vbs_client *c = v->client;
    if (c->state != CLIENT_READY || v->closed)
        return;
    struct vbs_open_request r = {
        .instance = v->options.instance,
        .read_only = v->options.read_only,
        .shared = v->options.shared,
        .take_over = v->options.take_over,
        .serial = ++c->open_serial,
    };
    if (v->open_done == NULL) {
        r.id = v->info.id;
        r.held = v->info.generation;
    }
    size_t len;
    memcpy(r.volume, v->options.name, sizeof r.volume);
    memcpy(r.host, v->options.host, sizeof r.host);
    MUST(wire_encode(&vbs_open_request_type, &r, v->open_body, sizeof v->open_body, &len) == 0);
    memset(&v->open_call, 0, sizeof v->open_call);
    v->open_call.method = VBS_METHOD_OPEN;
    v->open_call.body = v->open_body;
    v->open_call.body_len = (uint32_t)len;
    v->open_call.timeout_ns = OPEN_TIMEOUT_NS;
    v->open_call.done = on_open_done;
    if (rpc_call_start(c->peer, &v->open_call) != 0) {
        loop_timer_arm(c->env->loop, &v->retry, client_jitter(c, REOPEN_NS));
        return;
    }
    v->assoc = ASSOC_OPENING;
    v->calls++;
    c->calls++;
}

int vbs_client_open(struct vbs_client *c, const struct volume_open_options *options,
                    void (*done)(void *arg, struct vbs_client_volume *volume, int rc, const char *text),
                    void *arg)
{
    if (!mdc_name_valid(options->name) || !mdc_name_valid(options->host))
        return -EINVAL;
    struct vbs_client_volume *v = calloc(1, sizeof *v);
    if (v == NULL)
        return -ENOMEM;
    v->client = c;
    v->options = *options;
    v->open_done = done;
    v->open_arg = arg;
    list_init(&v->all);
    list_init(&v->hungry);
    list_init(&v->queue);
    list_init(&v->requests);
    list_init(&v->waiting);
    loop_task_init(&v->notify, on_changed_task);
    loop_timer_init(&v->retry, on_retry);
    list_push_back(&c->volumes, &v->all);
    client_open_volume(v);
    return 0;
}

static void on_close_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct vbs_client_volume *v = container_of(call, struct vbs_client_volume, open_call);
    struct vbs_client *c = v->client;
    (void)result;
    client_volume_call_ended(v);
    client_call_ended(c);
}

static void on_close_task(struct loop_task *t)
{
    client_volume_closed(container_of(t, struct vbs_client_volume, notify));
}

void vbs_client_close(struct vbs_client_volume *v, void (*done)(void *arg), void *arg)
{
    struct vbs_client *c = v->client;
    MUST(list_empty(&v->queue) && list_empty(&v->requests));
    loop_timer_cancel(c->env->loop, &v->retry);
    loop_task_cancel(c->env->loop, &v->notify);
    v->open_done = NULL;
    v->changed = NULL;
    v->closed = true;
    v->close_done = done;
    v->close_arg = arg;
    if (v->assoc == ASSOC_OPEN && c->peer != NULL) {
        struct vbs_io io = {.handle = v->handle};
        memset(&v->open_call, 0, sizeof v->open_call);
        v->open_call.method = VBS_METHOD_CLOSE;
        v->open_call.body = &io;
        v->open_call.body_len = sizeof io;
        v->open_call.timeout_ns = CLOSE_TIMEOUT_NS;
        v->open_call.done = on_close_done;
        if (rpc_call_start(c->peer, &v->open_call) == 0) {
            v->calls++;
            c->calls++;
        }
    }
    v->assoc = ASSOC_LOST;
    v->lost_rc = -ECANCELED;
    if (v->calls == 0) {
        loop_task_init(&v->notify, on_close_task);
        loop_defer(c->env->loop, &v->notify);
    }
}

void vbs_client_info_get(const struct vbs_client_volume *v, struct volume_info *out)
{
    *out = v->info;
}

void vbs_client_set_changed(struct vbs_client_volume *v, void (*changed)(void *arg, int rc), void *arg)
{
    v->changed = changed;
    v->changed_arg = arg;
}
