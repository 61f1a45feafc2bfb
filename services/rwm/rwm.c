/* rwm.c: the life of a module. */
#include "services/rwm/rwm_scrub.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- failing ---- */
static void fail_tell(struct loop_task *task)
{
    struct rwm *m = container_of(task, struct rwm, fail_task);
    rwm_scrub_stop(m);
    rwm_copies_stop(m);
    rwm_member_stop(m);
    rwm_remove_stop(m);
    rwm_leave_stop(m);
    rwm_requests_refuse(m, STATUS_NOT_SERVING);
    if (m->shutdown_done) {
        /* The shutdown is over, too: nothing more can be written back. */
        m->shutdown_rc = m->fail_rc;
        loop_defer(m->env->loop, &m->shutdown_task);
        return;
    }
    if (m->events.failed)
        m->events.failed(m->user, m->fail_rc, m->fail_text); /* the last thing: it may destroy the module */
}

void rwm_fail(struct rwm *m, int rc, const char *fmt, ...)
{
    if (m->state == RWM_FAILED)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(m->fail_text, sizeof(m->fail_text), fmt, args);
    va_end(args);
    m->state = RWM_FAILED;
    m->fail_rc = rc;
    log_debug(m->env, "the module stops", "module=%u rc=%d why=\"%s\"", m->id, rc, m->fail_text);
    loop_defer(m->env->loop, &m->fail_task);
}

void rwm_store_error(struct rwm *m, int rc, const char *what)
{
    if (rc == 0 || rc == -EAGAIN || m->broken)
        return;
    /* -EIO of a LUN whose session was lost is no verdict on the data: the request waits for the LUN. */
    if (rc == -ENODEV || rc == -ENOTCONN || m->data->link_state != DEVICE_LINK_UP ||
        store_is_broken(m->store)) {
        m->broken = true;
        rwm_fail(
            m, rc,
            "the device %s failed at a %s (%s): check the device; the module starts again when it is back",
            m->data->name, what, strerror(-rc));
        return;
    }
    if (log_allow(m->env, &m->log_limit))
        log_warn(m->env, "the store reported an error", "module=%u device=%s op=\"%s\" rc=%d", m->id,
                 m->data->name, what, rc);
}

/* ---- opening ---- */
static int opened_load(struct rwm *m)
{
    uint32_t partitions = store_record_capacity(m->store, STORE_PARTITION);
    for (uint32_t i = 0; i < partitions; i++) {
        const struct store_partition_record *rec = rwm_record(m, STORE_PARTITION, i);
        if (rec->pool != 0)
            m->highest_epoch = max_u64(m->highest_epoch, rec->epoch);
    }
    int rc = rwm_volumes_load(m);
    if (rc == 0)
        rc = rwm_turns_load(m);
    if (rc == 0)
        rc = rwm_member_start(m);
    return rc;
}

static void opened(void *arg, struct store *store, const struct store_open_report *report)
{
    struct rwm *m = arg;
    m->opening = NULL;
    if (report->rc) {
        rwm_fail(m, report->rc, "the store on %s could not be opened: %s", m->data->name,
                 report->text[0] ? report->text : strerror(-report->rc));
        return;
    }
    m->store = store;
    m->damaged = report->damaged;
    const struct store_identity *id = store_identity(store);
    m->id = id->module;
    log_info(m->env, "store opened",
             "device=%s module=%u start=%lu blocks=%lu replayed=%lu damaged=%d report=\"%s\"", m->data->name,
             m->id, (unsigned long)id->start_counter, (unsigned long)report->blocks,
             (unsigned long)report->replayed_records, report->damaged, report->text);
    if (m->state == RWM_FAILED)
        return;
    int rc = opened_load(m);
    if (rc) {
        rwm_fail(m, rc, "the module could not start on %s (%s)", m->data->name, strerror(-rc));
        return;
    }
    if (m->state == RWM_OPENING)
        m->state = RWM_JOINING;
    else
        rwm_shutdown_step(m);
}

static void held_timer_fired(struct loop_timer *t)
{
    struct rwm *m = container_of(t, struct rwm, held_timer);
    if (rwm_accepts(m))
        rwm_held_recheck(m);
}

static void held_task_run(struct loop_task *t)
{
    struct rwm *m = container_of(t, struct rwm, held_task);
    if (rwm_accepts(m))
        rwm_held_recheck(m);
}

static void queue_task_run(struct loop_task *t)
{
    struct rwm *m = container_of(t, struct rwm, queue_task);
    rwm_serve_pump(m);
    rwm_queue_pump(m);
}

/* ---- shutting down ---- */
static void shutdown_tell(struct loop_task *task)
{
    struct rwm *m = container_of(task, struct rwm, shutdown_task);
    void (*done)(void *, int) = m->shutdown_done;
    m->shutdown_done = NULL;
    if (done)                                  /* the device may fail while the store closes: told once */
        done(m->shutdown_arg, m->shutdown_rc); /* the last thing: it may destroy the module */
}

static void closed(void *arg, int rc)
{
    struct rwm *m = arg;
    m->shutdown_rc = rc;
    loop_defer(m->env->loop, &m->shutdown_task);
}

void rwm_shutdown_step(struct rwm *m)
{
    if (m->state != RWM_STOPPING || m->opening)
        return;
    if (m->active > 0 || m->remove.out > 0 || m->leave.out > 0 || m->remove.cutting || m->identity_busy)
        return;
    m->state = RWM_CLOSING;
    if (m->store)
        store_close(m->store, closed, m);
    else
        loop_defer(m->env->loop, &m->shutdown_task);
}

static void shutdown_kick(struct loop_task *task)
{
    struct rwm *m = container_of(task, struct rwm, held_task);
    rwm_shutdown_step(m);
}

void rwm_shutdown(struct rwm *m, void (*done)(void *arg, int rc), void *arg)
{
    MUST(!m->shutdown_done && m->state != RWM_CLOSING);
    m->shutdown_done = done;
    m->shutdown_arg = arg;
    rwm_scrub_stop(m);
    rwm_copies_shutdown(m);
    rwm_member_stop(m);
    rwm_remove_stop(m);
    rwm_leave_stop(m);
    if (m->state == RWM_FAILED) {
        m->shutdown_rc = m->fail_rc;
        loop_task_cancel(m->env->loop, &m->fail_task);
        loop_defer(m->env->loop, &m->shutdown_task);
        return;
    }
    m->state = RWM_STOPPING;
    rwm_requests_refuse(m, STATUS_NOT_SERVING);
    loop_task_init(&m->held_task, shutdown_kick);
    loop_defer(m->env->loop, &m->held_task);
}

/* ---- create and destroy ---- */
static int instances_create(struct rwm *m)
{
    m->instance_memory = calloc(RWM_INSTANCES_MAX, sizeof(*m->instance_memory));
    if (!m->instance_memory)
        return -ENOMEM;
    for (unsigned i = 0; i < RWM_INSTANCES_MAX; i++)
        list_push_back(&m->instances_free, &m->instance_memory[i].link);
    return 0;
}

static void rwm_init(struct rwm *m)
{
    struct list *lists[] = {&m->host_link, &m->held,      &m->queued,
                            &m->stalled,   &m->instances, &m->instances_free};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    loop_timer_init(&m->held_timer, held_timer_fired);
    loop_task_init(&m->held_task, held_task_run);
    loop_task_init(&m->queue_task, queue_task_run);
    loop_task_init(&m->fail_task, fail_tell);
    loop_task_init(&m->shutdown_task, shutdown_tell);
    m->log_limit.interval_ns = NS_PER_S;
    rwm_apply_init(m);
    rwm_remove_init(m);
    rwm_leave_init(m);
    rwm_copies_init(m);
    rwm_scrub_init(m);
}

int rwm_create(struct env *env, struct rwm_host *host, struct device *data, struct device *journal,
               const struct rwm_config *config, const struct rwm_events *events, void *user, struct rwm **out)
{
    struct rwm *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->env = env;
    m->host = host;
    m->data = data;
    m->journal = journal;
    m->config = *config;
    m->events = *events;
    m->user = user;
    if (m->config.requests_max == 0)
        m->config.requests_max = RWM_REQUESTS_DEFAULT;
    if (m->config.buffer_bytes == 0)
        m->config.buffer_bytes = RWM_BUFFER_DEFAULT;
    rwm_init(m);
    int rc = rwm_area_create(m, &m->area);
    if (rc == 0)
        rc = rwm_blocks_create(m);
    if (rc == 0)
        rc = rwm_forward_create(m);
    if (rc == 0)
        rc = rwm_rot_create(m);
    if (rc == 0)
        rc = instances_create(m);
    if (rc == 0) {
        m->opening = store_open(env, data, journal, &m->config.store, opened, m);
        rc = m->opening ? 0 : -ENOMEM;
    }
    if (rc) {
        rwm_destroy(m);
        return rc;
    }
    rwm_host_add(host, m);
    *out = m;
    return 0;
}

static void pieces_unlink(struct rwm *m)
{
    while (list_pop_front(&m->stalled) != NULL) {
    }
    while (list_pop_front(&m->held) != NULL) {
    }
    while (list_pop_front(&m->queued) != NULL) {
    }
    rwm_blocks_destroy(m);
}

void rwm_destroy(struct rwm *m)
{
    struct loop *loop = m->env->loop;
    rwm_scrub_stop(m);
    rwm_copies_destroy(m);
    rwm_member_stop(m);
    rwm_remove_stop(m);
    rwm_leave_stop(m);
    struct loop_task *tasks[] = {&m->queue_task, &m->fail_task, &m->shutdown_task};
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++)
        loop_task_cancel(loop, tasks[i]);
    if (m->opening)
        store_destroy(m->opening);
    if (m->store)
        store_destroy(m->store);
    pieces_unlink(m);
    if (m->host)
        rwm_host_remove(m->host, m);
    if (m->area)
        rwm_area_orphan(m->area);
    free(m->instance_memory);
    free(m->parts);
    free(m->volumes);
    free(m->volume_buckets);
    free(m->layer_buckets);
    free(m->turn_buckets);
    free(m->turn_next);
    free(m);
}

void rwm_stats_get(const struct rwm *m, struct rwm_stats *out)
{
    *out = m->stats;
    out->requests_active = m->active;
    out->removing_blocks = rwm_remove_pending(m);
    out->leaving_blocks = rwm_leave_pending(m);
    out->table_version = m->force_version;
    out->applied_version = m->applied_version;
    out->module = m->id;
    out->pool = m->pool_id;
    out->serving = rwm_accepts(m);
    out->scrub = m->scrub.now;
    out->recover_rate = out->copies_missing > 0 ? m->recovery.rate : 0;
    out->damaged = m->damaged || (m->store && store_is_damaged(m->store));
    out->partitions = out->partitions_waiting = out->copies_missing = 0;
    out->recover_blocks = 0;
    for (uint32_t i = 0; i < m->part_count; i++) {
        const struct rwm_copies *c = m->parts[i].copies;
        out->partitions += m->parts[i].primary;
        if (!c || !m->parts[i].primary)
            continue;
        out->partitions_waiting += c->state != COPIES_SERVING;
        out->copies_missing += c->count - c->in_sync;
        for (unsigned k = 0; k < RWM_COPY_SLOTS; k++)
            out->recover_blocks += rwm_catchup_to_go(&c->copy[k]);
    }
    if (m->store)
        store_stats_get(m->store, &out->store);
}
