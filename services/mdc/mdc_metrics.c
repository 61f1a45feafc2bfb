/* mdc_metrics.c: see mdc_metrics.h. Walks over modules, pools and partitions: a millisecond at most, when
 * somebody asks. */
#include "services/mdc/mdc_metrics.h"

#include <string.h>

#include "services/mdc/mdc_internal.h"

#define POOLS_MAX 64u /* of which there are figures of their own */

#define METRICS_STRUCT mdc_figures
static const struct metric mdc_table_[] = {
#define METRIC METRICS_ENTRY
#include "services/mdc/mdc_metrics.def"
#undef METRIC
};
const struct metrics_group mdc_metrics_group = METRICS_GROUP("the metadata controller", mdc_table_);
#undef METRICS_STRUCT

#define METRICS_STRUCT mdc_pool_figures
static const struct metric pool_table[] = {
#define METRIC METRICS_ENTRY
#include "services/mdc/pool_metrics.def"
#undef METRIC
};
const struct metrics_group mdc_pool_group = METRICS_GROUP("a pool", pool_table);
#undef METRICS_STRUCT

#define METRICS_STRUCT mdc_requests
static const struct metric requests_table[] = {
#define MDC_METHOD(number, name, handler, request, reply)                                                    \
    METRICS_ENTRY(COUNTER, name, "cistern_mdc_requests_total", "method=\"" #name "\"",                       \
                  "Requests that were answered, refusals included.")
#define MDC_NOTIFY(number, name, message)
#include "common/wire/mdc.def"
#undef MDC_METHOD
#undef MDC_NOTIFY
};
const struct metrics_group mdc_requests_group =
    METRICS_GROUP("requests of the metadata controller", requests_table);
#undef METRICS_STRUCT

#define METRICS_STRUCT mdc_refusals
static const struct metric refusals_table[] = {
#define STATUS(number, name, error, text)                                                                    \
    METRICS_ENTRY(COUNTER, name, "cistern_mdc_refused_total", METRICS_STATUS_LABEL(number, name),            \
                  "Requests that were refused or failed, by the status that was told.")
#include "common/status.def"
#undef STATUS
};
const struct metrics_group mdc_refusals_group = METRICS_GROUP("its refusals", refusals_table);
#undef METRICS_STRUCT

void mdc_count_job(struct mdc *m, const struct mdc_job *job)
{
    const size_t method = (size_t)(job->method - mdc_methods);
    MUST(method < ARRAY_LEN(m->counts.requests));
    m->counts.requests[method]++;
    if (job->status != STATUS_OK)
        m->counts.refused[job->status < MDC_STATUS_MAX ? job->status : 0]++;
}

void mdc_count_commit(struct mdc *m)
{
    m->counts.commits++;
    m->counts.commit_records += m->item_count;
    metrics_hist_add(&m->counts.commit, loop_now_ns(m->env->loop) - m->counts.commit_begun_ns);
}

/* ---- copying out ---- */

static void count_modules(const struct mdc_state *s, struct mdc_figures *f)
{
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        const struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0)
            continue;
        f->modules_damaged += m->damaged;
        f->modules_up += mdc_module_serves(m);
        f->modules_down += !m->damaged && !mdc_module_serves(m);
    }
}

static void count_partition(struct mdc_state *s, const struct record_pool *pool,
                            const struct record_partition *p, struct mdc_figures *f)
{
    const struct mdc_module *m = mdc_module_by_id(s, mdc_partition_primary(p));
    unsigned in_sync = 0;
    bool leaving = false;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX && p->members[k] != 0; k++) {
        in_sync += (p->members[k] & TABLE_MEMBER_IN_SYNC) != 0;
        leaving |= (p->members[k] & TABLE_MEMBER_LEAVING) != 0;
    }
    f->partitions_moving += leaving;
    if (m == NULL || !mdc_module_answers(m))
        f->partitions_unserved++;
    else if (in_sync < pool->copies)
        f->partitions_degraded++;
    else
        f->partitions_whole++;
}

static void count_partitions(struct mdc_state *s, struct mdc_figures *f)
{
    for (uint32_t i = 0; i < s->limits.pools; i++) {
        const struct record_pool *pool = &s->pools[i].rec;
        if (pool->id == 0)
            continue;
        f->pools++;
        for (uint32_t k = 0; k < pool->partitions; k++)
            count_partition(s, pool, &s->partitions[pool->first_partition + k], f);
    }
}

static uint64_t list_length(const struct list *l)
{
    uint64_t n = 0;
    list_for_each(i, l) n++;
    return n;
}

static void fill(struct mdc *m, struct mdc_figures *f)
{
    struct mdc_state *s = m->state;
    f->serving = m->started && !m->failed;
    f->term = s->term;
    f->version = s->version;
    count_modules(s, f);
    count_partitions(s, f);
    f->volumes = s->volume_count;
    f->volumes_pending = s->volumes_pending;
    f->attachments = s->attachment_count;
    f->sessions = s->session_count;
    list_for_each(n, &s->sessions)
    {
        f->gateways += list_entry(n, struct mdc_session, link)->gateway;
    }
    f->queued = list_length(&m->queue) + list_length(&m->batch);
    f->awaiting = list_length(&m->waiting);
    f->commits = m->counts.commits;
    f->commit_records = m->counts.commit_records;
    f->commit_ns = m->counts.commit;
    meta_usage(m->config.meta, &f->meta_bytes, &f->meta_limit_bytes);
}

static void add_pools(struct mdc_state *s, struct metrics_snapshot *out)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < s->limits.pools && count < POOLS_MAX; i++) {
        struct mdc_pool_info info;
        char labels[METRICS_LABELS_MAX] = "";
        if (s->pools[i].rec.id == 0)
            continue;
        mdc_pool_describe(s, &s->pools[i], &info);
        (void)metrics_label(labels, sizeof(labels), "pool", info.name);
        struct mdc_pool_figures *f = metrics_snapshot_add(out, &mdc_pool_group, labels);
        if (f == NULL)
            return;
        count++;
        *f = (struct mdc_pool_figures){.modules = info.modules,
                                       .capacity_bytes = info.capacity_bytes,
                                       .used_bytes = info.used_bytes,
                                       .provisioned_bytes = info.provisioned_bytes,
                                       .volumes = info.volumes,
                                       .copies = info.copies,
                                       .partitions = info.partitions,
                                       .partitions_served = info.partitions_served};
    }
}

static void add_counts(const struct mdc *m, struct metrics_snapshot *out)
{
    struct mdc_requests *q = metrics_snapshot_add(out, &mdc_requests_group, NULL);
    struct mdc_refusals *r = metrics_snapshot_add(out, &mdc_refusals_group, NULL);
    _Static_assert(sizeof(*q) == sizeof(m->counts.requests), "in the order of mdc_methods");
    if (q != NULL)
        memcpy(q, m->counts.requests, sizeof(*q));
    if (r == NULL)
        return;
#define STATUS(number, name, error, text)                                                                    \
    _Static_assert(number < MDC_STATUS_MAX, "refusals are counted by status");                               \
    r->name = m->counts.refused[number];
#include "common/status.def"
#undef STATUS
}

void mdc_metrics(struct mdc *m, struct metrics_snapshot *out)
{
    struct mdc_figures *f = metrics_snapshot_add(out, &mdc_metrics_group, NULL);
    if (f != NULL)
        fill(m, f);
    add_pools(m->state, out);
    add_counts(m, out);
}

void mdc_collect(struct mdc *m, struct metrics_snapshot *out)
{
    mdc_metrics(m, out);
    fabric_metrics(m->env->fabric, m->env->loop, out);
    if (m->failed)
        metrics_snapshot_not_ready(out, "the metadata store failed: this process is to start again");
    else if (!m->started)
        metrics_snapshot_not_ready(out, "the metadata store has not taken this start's first commit yet");
}
