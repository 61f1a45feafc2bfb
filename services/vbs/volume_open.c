/*
 * The life of an open volume: the MDC's leave to open it, write turns, asking again, close, loss.
 *
 * A generation is taken only from the MDC's answer to this host, never from the table: a host that was
 * detached sees the new generation there like everyone else, and must not write with it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/vbs/volume_internal.h"

#define AGAIN_RETRY_NS   (200 * NS_PER_MS)
#define CLOSE_TIMEOUT_NS (1 * NS_PER_S)

static void on_notify(struct loop_task *t)
{
    struct volume *v = container_of(t, struct volume, notify);
    if (v->changed != NULL)
        v->changed(v->changed_arg, v->lost_rc);
}

static void volume_free(struct volume *v)
{
    struct loop *loop = v->core->env->loop;
    list_remove(&v->all);
    list_remove(&v->hungry);
    loop_timer_cancel(loop, &v->again_timer);
    loop_task_cancel(loop, &v->notify);
    if (v->open_busy)
        cluster_call_cancel(&v->open_call);
    if (v->turn_busy)
        cluster_call_cancel(&v->turn_call);
    if (v->state == VOLUME_TABLE)
        cluster_wait_cancel(v->core->cluster, &v->wait);
    free(v);
}

static int call_begin(struct volume *v, struct cluster_call *call, bool *busy)
{
    int rc = cluster_call_start(v->core->cluster, call);
    *busy = rc == 0;
    return rc;
}

static void open_failed(struct volume *v, int rc, const char *text)
{
    void (*done)(void *, struct volume *, int, const char *) = v->open_done;
    void *arg = v->open_arg;
    char copy[sizeof v->open_call.error_text];
    snprintf(copy, sizeof copy, "%s", text);
    volume_free(v);
    done(arg, NULL, rc, copy);
}

/* Numbers that the cutting relies on; the table came from outside. */
static bool pool_sane(const struct table_pool *pool)
{
    return pool != NULL && is_pow2(pool->stripe_bytes) && pool->stripe_bytes >= BLOCK_BYTES &&
           is_pow2(pool->partitions);
}

static void on_table_has_it(struct cluster_wait *w)
{
    struct volume *v = container_of(w, struct volume, wait);
    struct cluster *c = v->core->cluster;
    v->state = VOLUME_OPENING;
    const struct table *table = cluster_table(c);
    const struct table_volume *record = table != NULL ? table_volume_by_id(table, &v->info.id) : NULL;
    const struct table_pool *pool = record != NULL ? table_pool_by_id(table, record->pool) : NULL;
    if (record == NULL) {
        open_failed(v, -ENOENT, "the volume was deleted while it was being opened");
        return;
    }
    if (!pool_sane(pool)) {
        open_failed(v, -EPROTO, "the published record of the volume's pool makes no sense");
        return;
    }
    v->info.pool = record->pool;
    v->info.size_bytes = record->size_bytes;
    v->info.block_bytes = UNIT_BYTES;
    v->info.stripe_bytes = pool->stripe_bytes;
    v->state = VOLUME_READY;
    v->open_done(v->open_arg, v, 0, "");
}

static void on_open_done(struct cluster_call *call, int rc)
{
    struct volume *v = container_of(call, struct volume, open_call);
    v->open_busy = false;
    /* The MDC waits for its modules itself. A gateway's client asks again, here or elsewhere. */
    if (rc != 0 && call->status == STATUS_AGAIN && !v->options.one_turn) {
        loop_timer_arm(v->core->env->loop, &v->again_timer, core_jitter(v->core, AGAIN_RETRY_NS));
        return;
    }
    if (rc != 0) {
        open_failed(v, rc, call->error_text);
        return;
    }
    v->info.id = v->open_reply.volume.id;
    v->generation = v->open_reply.volume.generation;
    v->turn = v->open_reply.turn;
    v->state = VOLUME_TABLE;
    v->wait.term = v->open_reply.term;
    v->wait.version = v->open_reply.version;
    v->wait.fn = on_table_has_it;
    cluster_wait_table(v->core->cluster, &v->wait);
}

static void open_call_fill(struct volume *v, void (*done)(struct cluster_call *, int))
{
    memset(&v->open_call, 0, sizeof v->open_call);
    v->open_call.method = MDC_METHOD_VOLUME_OPEN;
    v->open_call.request_type = &mdc_volume_open_request_type;
    v->open_call.reply_type = &mdc_volume_open_reply_type;
    v->open_call.request = &v->open_request;
    v->open_call.reply = &v->open_reply;
    v->open_call.retry = true;
    v->open_call.done = done;
}

static void on_again_timer(struct loop_timer *t)
{
    struct volume *v = container_of(t, struct volume, again_timer);
    if (v->state != VOLUME_OPENING) {
        volume_open_again(v);
        return;
    }
    open_call_fill(v, on_open_done);
    if (call_begin(v, &v->open_call, &v->open_busy) != 0)
        loop_timer_arm(v->core->env->loop, t, core_jitter(v->core, AGAIN_RETRY_NS));
}

int volume_open(struct volume_core *core, const struct volume_open_options *options,
                void (*done)(void *arg, struct volume *volume, int rc, const char *text), void *arg)
{
    if (!mdc_name_valid(options->name) || !mdc_name_valid(options->host))
        return -EINVAL;
    struct volume *v = calloc(1, sizeof *v);
    if (v == NULL)
        return -ENOMEM;
    v->core = core;
    v->options = *options;
    v->host_id = host_id_from_name(options->host);
    v->open_done = done;
    v->open_arg = arg;
    v->state = VOLUME_OPENING;
    list_init(&v->all);
    list_init(&v->hungry);
    list_init(&v->queue);
    list_init(&v->requests);
    loop_task_init(&v->notify, on_notify);
    loop_timer_init(&v->again_timer, on_again_timer);
    struct mdc_volume_open_request *r = &v->open_request;
    memcpy(r->volume, options->name, sizeof r->volume);
    memcpy(r->host, options->host, sizeof r->host);
    r->instance = options->instance;
    r->read_only = options->read_only;
    r->shared = options->shared;
    r->take_over = options->take_over;
    r->id = options->id;
    r->held = options->held;
    /* A gateway has no number for a client that tells none: its own would not compare with another's. */
    r->serial = options->serial != 0 || options->one_turn ? options->serial : ++core->open_serial;
    open_call_fill(v, on_open_done);
    int rc = call_begin(v, &v->open_call, &v->open_busy);
    if (rc != 0) {
        free(v);
        return rc;
    }
    list_push_back(&core->volumes, &v->all);
    return 0;
}

/* ---- while it is open ---- */

void volume_lose(struct volume *v, int rc)
{
    if (v->lost_rc != 0)
        return;
    char id[33];
    uuid_format(&v->info.id, id);
    log_warn(v->core->env, "an open volume was lost", "volume=%s id=%s errno=%d", v->options.name, id, -rc);
    v->lost_rc = rc;
    v->state = VOLUME_LOST;
    loop_timer_cancel(v->core->env->loop, &v->again_timer);
    loop_defer(v->core->env->loop, &v->notify);
    requests_end_all(v, rc);
}

/* The MDC could not answer now; anything else that it refuses with is for good. */
static bool refusal_is_passing(uint32_t status)
{
    switch (status) {
    case STATUS_OK: /* no answer of the MDC at all */
    case STATUS_AGAIN:
    case STATUS_NOT_LEADER:
    case STATUS_NO_MEMORY:
    case STATUS_TIMEOUT:
    case STATUS_DISCONNECTED:
    case STATUS_IO:
        return true;
    default:
        return false;
    }
}

static void set_size(struct volume *v, uint64_t size_bytes)
{
    if (v->info.size_bytes == size_bytes)
        return;
    v->info.size_bytes = size_bytes;
    loop_defer(v->core->env->loop, &v->notify);
}

static void on_again_done(struct cluster_call *call, int rc)
{
    struct volume *v = container_of(call, struct volume, open_call);
    v->open_busy = false;
    if (v->state != VOLUME_READY)
        return;
    if (rc != 0 && refusal_is_passing(call->status)) {
        loop_timer_arm(v->core->env->loop, &v->again_timer, core_jitter(v->core, AGAIN_RETRY_NS));
        return;
    }
    if (rc != 0) {
        volume_lose(v, call->status == STATUS_NOT_FOUND ? -ENOENT : -ESTALE);
        return;
    }
    if (!uuid_eq(&v->open_reply.volume.id, &v->info.id)) {
        volume_lose(v, -ENOENT);
        return;
    }
    if (v->open_reply.volume.generation > v->generation) {
        v->generation = v->open_reply.volume.generation;
        trace_point(v->core->env->trace, loop_now_ns(v->core->env->loop), "volume generation", v->generation,
                    v->turn, 0);
        parts_kick_volume(v);
    }
}

void volume_open_again(struct volume *v)
{
    if (v->state != VOLUME_READY || v->open_busy)
        return;
    loop_timer_cancel(v->core->env->loop, &v->again_timer);
    v->open_request.id = v->info.id;
    v->open_request.again = true;
    v->open_request.held = v->generation;
    v->open_request.take_over = false;
    open_call_fill(v, on_again_done);
    if (call_begin(v, &v->open_call, &v->open_busy) != 0)
        loop_timer_arm(v->core->env->loop, &v->again_timer, core_jitter(v->core, AGAIN_RETRY_NS));
}

static void on_turn_done(struct cluster_call *call, int rc)
{
    struct volume *v = container_of(call, struct volume, turn_call);
    v->turn_busy = false;
    if (v->state != VOLUME_READY)
        return;
    if (rc != 0) {
        /* Parts that were refused are repeated after their back-off and ask again. */
        if (!refusal_is_passing(call->status))
            volume_lose(v, call->status == STATUS_NOT_FOUND ? -ENOENT : -ESTALE);
        return;
    }
    v->turn = max_u64(v->turn, v->turn_reply.turn);
    trace_point(v->core->env->trace, loop_now_ns(v->core->env->loop), "volume turn", v->generation, v->turn,
                0);
    parts_kick_volume(v);
}

void volume_turn_stale(struct volume *v)
{
    if (v->state != VOLUME_READY || v->turn_busy)
        return;
    if (v->options.one_turn) {
        volume_lose(v, -ESTALE);
        return;
    }
    v->turn_request.id = v->info.id;
    memcpy(v->turn_request.host, v->options.host, sizeof v->turn_request.host);
    v->turn_request.instance = v->options.instance;
    memset(&v->turn_call, 0, sizeof v->turn_call);
    v->turn_call.method = MDC_METHOD_TURN_DRAW;
    v->turn_call.request_type = &mdc_turn_draw_request_type;
    v->turn_call.reply_type = &mdc_turn_draw_reply_type;
    v->turn_call.request = &v->turn_request;
    v->turn_call.reply = &v->turn_reply;
    v->turn_call.retry = true;
    v->turn_call.done = on_turn_done;
    (void)call_begin(v, &v->turn_call, &v->turn_busy);
}

void volume_check_table(struct volume *v, const struct table *table)
{
    if (v->state != VOLUME_READY)
        return;
    const struct table_volume *record = table_volume_by_id(table, &v->info.id);
    if (record == NULL || record->state == TABLE_VOLUME_DELETING || record->generation > v->generation)
        volume_open_again(v);
    if (record != NULL)
        set_size(v, record->size_bytes);
}

void volume_info_get(const struct volume *v, struct volume_info *out)
{
    *out = v->info;
    out->generation = v->generation;
}

void volume_set_changed(struct volume *v, void (*changed)(void *arg, int rc), void *arg)
{
    v->changed = changed;
    v->changed_arg = arg;
}

/* ---- ends ---- */

void volume_cancel(struct volume *v)
{
    if (v->lost_rc == 0)
        v->lost_rc = -ECANCELED;
    if (v->state == VOLUME_READY)
        v->state = VOLUME_LOST;
    requests_end_all(v, -ECANCELED);
}

static void close_finish(struct volume *v)
{
    void (*done)(void *) = v->close_done;
    void *arg = v->close_arg;
    volume_free(v);
    if (done != NULL)
        done(arg);
}

static void on_close_done(struct cluster_call *call, int rc)
{
    struct volume *v = container_of(call, struct volume, open_call);
    (void)rc;
    v->open_busy = false;
    close_finish(v);
}

static void on_close_task(struct loop_task *t)
{
    close_finish(container_of(t, struct volume, notify));
}

/* Another open of the same client: the MDC keeps one record for both, so only the last one ends it. */
static bool opened_again(const struct volume *v)
{
    list_for_each(n, &v->core->volumes)
    {
        const struct volume *other = list_entry(n, struct volume, all);
        if (other != v && other->state != VOLUME_CLOSING && other->options.instance == v->options.instance &&
            strcmp(other->options.host, v->options.host) == 0 &&
            strcmp(other->options.name, v->options.name) == 0)
            return true;
    }
    return false;
}

void volume_close(struct volume *v, void (*done)(void *arg), void *arg)
{
    MUST(list_empty(&v->queue) && list_empty(&v->requests) && v->parts == 0);
    MUST(v->state == VOLUME_READY || v->state == VOLUME_LOST);
    struct loop *loop = v->core->env->loop;
    v->state = VOLUME_CLOSING;
    v->lost_rc = -ECANCELED;
    v->close_done = done;
    v->close_arg = arg;
    v->changed = NULL;
    loop_timer_cancel(loop, &v->again_timer);
    loop_task_cancel(loop, &v->notify);
    if (v->open_busy)
        cluster_call_cancel(&v->open_call);
    if (v->turn_busy)
        cluster_call_cancel(&v->turn_call);
    v->open_busy = v->turn_busy = false;
    v->close_request.id = v->info.id;
    memcpy(v->close_request.host, v->options.host, sizeof v->close_request.host);
    v->close_request.instance = v->options.instance;
    v->close_request.serial = v->open_request.serial;
    memset(&v->open_call, 0, sizeof v->open_call);
    v->open_call.method = MDC_METHOD_VOLUME_CLOSE;
    v->open_call.request_type = &mdc_volume_close_request_type;
    v->open_call.reply_type = &mdc_empty_type;
    v->open_call.request = &v->close_request;
    v->open_call.reply = &v->close_reply;
    v->open_call.timeout_ns = CLOSE_TIMEOUT_NS;
    v->open_call.done = on_close_done;
    if (!opened_again(v) && cluster_session_is_up(v->core->cluster) &&
        call_begin(v, &v->open_call, &v->open_busy) == 0)
        return;
    loop_task_init(&v->notify, on_close_task);
    loop_defer(loop, &v->notify);
}

/* Parts of v that are at a module: the connection has to go, so that nobody touches their memory any more. */
static void abandon_sent(struct volume *v)
{
    struct volume_core *core = v->core;
    struct list orphans;
    list_init(&orphans);
    list_for_each(n, &core->links)
    {
        struct module_link *ml = list_entry(n, struct module_link, all);
        bool mine = false;
        list_for_each(m, &ml->sent) mine = mine || list_entry(m, struct part, link)->volume == v;
        if (mine && ml->peer != NULL)
            link_abandon(ml, &orphans);
        if (!mine)
            continue;
        /* One that is closed already has let go of the memory: what is left to come are the ends of its
         * calls. */
        list_for_each(m, &ml->sent)
        {
            struct part *p = list_entry(m, struct part, link);
            if (p->volume == v)
                part_give_up(p);
        }
    }
    for (struct list *n; (n = list_pop_front(&orphans)) != NULL;) {
        struct part *p = list_entry(n, struct part, link);
        p->state = PART_BACKOFF;
        p->ml = NULL;
        if (p->req == NULL)
            part_free(core, p);
        else if (p->volume == v)
            continue; /* freed with its request */
        else if (p->req->state == REQUEST_ENDING)
            part_fail_later(p, -ECANCELED);
        else
            part_retry_lost(p);
    }
}

static void abandon_requests(struct volume_core *core, struct list *requests)
{
    for (struct list *n; (n = list_pop_front(requests)) != NULL;) {
        struct volume_request *req = list_entry(n, struct volume_request, link);
        loop_timer_cancel(core->env->loop, &req->timer);
        for (struct list *m; (m = list_pop_front(&req->parts)) != NULL;) {
            struct part *p = list_entry(m, struct part, req_link);
            part_unlink(p);
            part_free(core, p);
        }
    }
}

void volume_abandon(struct volume *v)
{
    struct volume_core *core = v->core;
    abandon_sent(v);
    abandon_requests(core, &v->queue);
    abandon_requests(core, &v->requests);
    volume_free(v);
    requests_pump(core);
}
