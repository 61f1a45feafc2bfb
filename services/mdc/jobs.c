/*
 * jobs.c: requests are decided in order, in batches; a batch is committed, then published, then answered.
 * While a commit is in flight the queue waits, so what a decision or a query sees is never ahead of the store
 * by more than the batch that its own answer waits for.
 */
#include "services/mdc/mdc_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_MAX 256u /* requests of one transaction */

void mdc_kick(struct mdc *m)
{
    if (m->started && !m->committing && !m->failed)
        loop_defer(m->env->loop, &m->run_task);
}

void mdc_job_submit(struct mdc *m, struct mdc_job *job)
{
    list_push_back(&m->queue, &job->link);
    mdc_kick(m);
}

/* ---- replies ---- */

#define SUBJECT_BYTES (2 * MDC_NAME_MAX + 8)

/* What a request that is worth a line is about, by name or number; NULL for the others. */
static const char *subject_of(const struct mdc_job *job, char text[SUBJECT_BYTES])
{
    switch (job->method->number) {
    case MDC_METHOD_MODULE_REGISTER:
        return ((const struct mdc_module_register_request *)job->request)->name;
    case MDC_METHOD_POOL_CREATE:
        return ((const struct mdc_pool_create_request *)job->request)->name;
    case MDC_METHOD_POOL_GROW:
        return ((const struct mdc_pool_grow_request *)job->request)->name;
    case MDC_METHOD_POOL_DELETE:
        return ((const struct mdc_name_request *)job->request)->name;
    case MDC_METHOD_MODULE_ADD:
    case MDC_METHOD_MODULE_REMOVE:
    case MDC_METHOD_MODULE_DRAIN:
    case MDC_METHOD_MODULE_REWEIGHT: /* each begins with the module's number */
        snprintf(text, SUBJECT_BYTES, "%u", *(const uint32_t *)job->request);
        return text;
    case MDC_METHOD_VOLUME_CREATE:
        return ((const struct mdc_volume_create_request *)job->request)->name;
    case MDC_METHOD_VOLUME_RESIZE:
        return ((const struct mdc_volume_resize_request *)job->request)->name;
    case MDC_METHOD_VOLUME_DELETE:
        return ((const struct mdc_volume_delete_request *)job->request)->name;
    case MDC_METHOD_VOLUME_OPEN: {
        /* After a start of this controller everybody opens again: those that may are no news. */
        const struct mdc_volume_open_request *rq = job->request;
        return rq->again && job->status == STATUS_OK ? NULL : rq->volume;
    }
    case MDC_METHOD_ATTACH:
    case MDC_METHOD_DETACH: {
        const struct mdc_attach_request *rq = job->request;
        snprintf(text, SUBJECT_BYTES, "%s for=%s", rq->volume, rq->host);
        return text;
    }
    default:
        return NULL;
    }
}

static void log_job(struct mdc *m, const struct mdc_job *job, const char *subject)
{
    const struct mdc_session *session =
        rpc_request_alive(job->req) ? rpc_peer_user(rpc_request_peer(job->req)) : NULL;
    const char *name = session != NULL ? session->name : "-";
    const char *host = session != NULL ? session->host : "-";
    if (job->status != STATUS_OK) {
        enum log_level level = job->method->number == MDC_METHOD_MODULE_REGISTER ? LOG_WARN_ : LOG_INFO_;
        log_write(m->env, level, "request refused", "method=%s of=%s host=%s by=%s status=%s why='%s'",
                  job->method->name, subject, host, name, status_name(job->status), job->error.text);
    } else {
        log_info(m->env, "request done", "method=%s of=%s host=%s by=%s version=%lu", job->method->name,
                 subject, host, name, (unsigned long)m->state->version);
    }
}

void mdc_reply_status(struct rpc_request *req, uint32_t status, const char *text)
{
    struct mdc_error error = {0};
    uint8_t body[512];
    size_t len = 0;
    snprintf(error.text, sizeof(error.text), "%s", text);
    if (wire_encode(&mdc_error_type, &error, body, sizeof(body), &len) != 0)
        len = 0;
    rpc_reply(req, status, body, (uint32_t)len);
}

void mdc_job_reply(struct mdc *m, struct mdc_job *job)
{
    uint8_t body[RPC_BODY_MAX];
    size_t len = 0;
    char text[SUBJECT_BYTES];
    const char *subject = subject_of(job, text);
    mdc_count_job(m, job);
    if (subject != NULL)
        log_job(m, job, subject);
    if (job->status == STATUS_OK) {
        int rc = wire_encode(job->method->reply_type, job->reply, body, sizeof(body), &len);
        if (rc == 0)
            rpc_reply(job->req, STATUS_OK, body, (uint32_t)len);
        else
            mdc_reply_status(job->req, STATUS_TOO_LARGE, "the answer does not fit a message; ask for less");
    } else {
        mdc_reply_status(job->req, job->status, job->error.text);
    }
    list_remove(&job->link);
    free(job);
}

void mdc_jobs_abandon(struct list *jobs)
{
    while (!list_empty(jobs))
        free(list_entry(list_pop_front(jobs), struct mdc_job, link));
}

/* ---- deciding ---- */

static struct mdc_session *job_session(struct mdc *m, struct mdc_job *job)
{
    if (!rpc_request_alive(job->req))
        return NULL;
    if (job->method->number == MDC_METHOD_SESSION)
        return mdc_session_begin(m, job->req, job->request);
    return rpc_peer_user(rpc_request_peer(job->req));
}

static void decide(struct mdc *m, struct mdc_job *job)
{
    struct mdc_decision d = {.state = m->state,
                             .tx = &m->tx,
                             .now_ns = loop_now_ns(m->env->loop),
                             .session = job_session(m, job),
                             .error = &job->error};
    if (d.session == NULL) {
        job->status = STATUS_PROTOCOL;
        snprintf(job->error.text, sizeof(job->error.text), "%s: a connection begins with SESSION",
                 job->method->name);
        return;
    }
    if (job->method->number == MDC_METHOD_VOLUME_CREATE)
        d.fresh = rng_uuid(m->env->rng);
    job->status = job->method->decide(&d, job->request, job->reply);
    if (d.await != NULL) {
        job->awaits = true;
        job->volume = d.await->rec.id;
    }
}

static void decide_batch(struct mdc *m)
{
    struct mdc_error unused;
    struct mdc_decision d = {
        .state = m->state, .tx = &m->tx, .now_ns = loop_now_ns(m->env->loop), .error = &unused};
    if (m->state->raise_term != 0)
        d.fresh = rng_uuid(m->env->rng);
    mdc_op_advance(&d);
    for (unsigned i = 0; i < BATCH_MAX && !list_empty(&m->queue); i++) {
        struct mdc_job *job = list_entry(list_pop_front(&m->queue), struct mdc_job, link);
        decide(m, job);
        list_push_back(&m->batch, &job->link);
    }
}

/* ---- the end of a batch ---- */

static void fail(struct mdc *m, int rc)
{
    m->failed = true;
    log_error(m->env, "the metadata store failed: this process must end and start again", "error=%d (%s)", rc,
              strerror(-rc));
    list_splice(&m->batch, &m->queue);
    while (!list_empty(&m->batch)) {
        struct mdc_job *job = list_entry(m->batch.next, struct mdc_job, link);
        job->status = STATUS_IO;
        snprintf(
            job->error.text, sizeof(job->error.text),
            "%s: the metadata store failed, so it is not known whether this was done; start the metadata controller again, "
            "then look",
            job->method->name);
        mdc_job_reply(m, job);
    }
    if (m->config.failed != NULL)
        m->config.failed(m->config.user, rc);
}

static void await_confirmation(struct mdc *m, struct mdc_job *job)
{
    const struct mdc_volume *v = mdc_volume_by_id(m->state, &job->volume);
    job->version = v != NULL ? v->fence_version : 0;
    job->deadline_ns = loop_now_ns(m->env->loop) + m->config.confirm_timeout_ns;
    list_push_back(&m->waiting, &job->link);
}

static void finish_batch(struct mdc *m)
{
    mdc_publish_batch(m);
    /* Not sooner: what one batch changed, reports and restarts of many modules, is looked at once. */
    if (mdc_move_note(m->state, &m->tx) && !loop_timer_armed(&m->move))
        loop_timer_arm(m->env->loop, &m->move, MDC_MOVE_PACE_NS);
    mdc_tx_reset(&m->tx);
    while (!list_empty(&m->batch)) {
        struct mdc_job *job = list_entry(m->batch.next, struct mdc_job, link);
        if (job->status == STATUS_OK && job->awaits) {
            list_remove(&job->link);
            await_confirmation(m, job);
            continue;
        }
        if (job->status == STATUS_OK)
            mdc_reply_complete(m, job->method, job->req, job->reply);
        mdc_job_reply(m, job);
    }
    mdc_check_waiting(m);
    if (!list_empty(&m->queue) || m->state->raise_term != 0)
        mdc_kick(m);
}

static void commit_done(struct meta_commit *c, int rc)
{
    struct mdc *m = container_of(c, struct mdc, commit);
    m->committing = false;
    mdc_count_commit(m);
    mdc_items_free(m->items, m->item_count);
    m->items = NULL;
    m->item_count = 0;
    if (rc != 0) {
        fail(m, rc);
        return;
    }
    if (!m->started) {
        m->started = true;
        log_info(m->env, "metadata controller serves", "term=%lu volumes=%u",
                 (unsigned long)m->state->counters.term, m->state->volume_count);
    }
    finish_batch(m);
    mdc_kick(m); /* what was heard meanwhile */
}

/* Decides a batch and starts its commit; at the very start there is no batch, but the new term to commit. */
void mdc_run(struct loop_task *t)
{
    struct mdc *m = container_of(t, struct mdc, run_task);
    if (m->committing || m->failed)
        return;
    if (m->started)
        decide_batch(m);
    if (m->tx.stores == 0 && !m->tx.no_memory) {
        finish_batch(m);
        return;
    }
    int rc = mdc_tx_seal(m->state, &m->tx, &m->items, &m->item_count);
    if (rc == 0) {
        m->commit = (struct meta_commit){.items = m->items, .count = m->item_count, .done = commit_done};
        m->counts.commit_begun_ns = loop_now_ns(m->env->loop);
        rc = meta_commit_start(m->config.meta, &m->commit);
    }
    if (rc != 0)
        fail(m, rc);
    else
        m->committing = true;
}

/* ---- detaches that wait for the modules ---- */

static bool confirmed(struct mdc *m, const struct mdc_job *job, struct mdc_module **awaited)
{
    const struct mdc_volume *v = mdc_volume_by_id(m->state, &job->volume);
    return v == NULL || mdc_pool_confirmed_in_sync(m->state, v->rec.pool, job->version, awaited);
}

void mdc_check_waiting(struct mdc *m)
{
    uint64_t now_ns = loop_now_ns(m->env->loop);
    list_for_each_safe(n, &m->waiting)
    {
        struct mdc_job *job = list_entry(n, struct mdc_job, link);
        struct mdc_module *awaited = NULL;
        if (confirmed(m, job, &awaited)) {
            mdc_job_reply(m, job);
        } else if (now_ns >= job->deadline_ns) {
            const struct mdc_attach_request *rq = job->request;
            struct mdc_decision d = {.error = &job->error};
            job->status = mdc_refuse(
                &d, STATUS_TIMEOUT,
                "cannot finish detaching volume \"%s\" from host \"%s\": module %u (%s of %s) has not confirmed it; see that it runs, then detach again",
                rq->volume, rq->host, awaited->rec.id, awaited->rec.name, awaited->rec.host);
            mdc_job_reply(m, job);
        }
    }
}
