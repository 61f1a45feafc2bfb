/* rwm_metrics.c: see rwm_metrics.h. Copies out what the module counts anyway; asked a few times a second at
 * most. */
#include "services/rwm/rwm_metrics.h"

#include <stdio.h>

#include "services/cluster/cluster_metrics.h"
#include "services/rwm/rwm_copies.h"

#define METRICS_STRUCT rwm_figures
static const struct metric module_table[] = {
#define METRIC METRICS_ENTRY
#include "services/rwm/rwm_metrics.def"
#undef METRIC
};
const struct metrics_group rwm_metrics_group = METRICS_GROUP("a module", module_table);
#undef METRICS_STRUCT

#define METRICS_STRUCT rwm_refusals
static const struct metric refusals_table[] = {
#define STATUS(number, name, error, text)                                                                    \
    METRICS_ENTRY(COUNTER, name, "cistern_module_refused_total", METRICS_STATUS_LABEL(number, name),         \
                  "Requests of clients that were refused or failed, by the status that they were told.")
#include "common/status.def"
#undef STATUS
};
const struct metrics_group rwm_refusals_group = METRICS_GROUP("a module's refusals", refusals_table);
#undef METRICS_STRUCT

struct rwm_info {
    uint64_t info;
};
#define METRICS_STRUCT rwm_info
static const struct metric info_table[] = {METRICS_ENTRY(
    GAUGE, info, "cistern_module_info", NULL,
    "Always 1: the labels are the module's number in lists, its pool's, its kind, media and host.")};
const struct metrics_group rwm_info_group = METRICS_GROUP("which module it is", info_table);
#undef METRICS_STRUCT

static unsigned list_length(const struct list *l)
{
    unsigned n = 0;
    list_for_each(i, l) n++;
    return n;
}

static void fill_stats(const struct rwm *m, struct rwm_figures *f)
{
    struct rwm_stats s;
    rwm_stats_get(m, &s);
    f->serving = s.serving;
    f->damaged = s.damaged;
    f->reads = s.reads;
    f->writes = s.writes;
    f->clears = s.discards;
    f->extents = s.extents;
    f->read_bytes = s.read_bytes;
    f->write_bytes = s.write_bytes;
    f->clear_bytes = s.discard_bytes;
    f->active = s.requests_active;
    f->partitions = s.partitions;
    f->partitions_waiting = s.partitions_waiting;
    f->copies_missing = s.copies_missing;
    f->reconciles = s.reconciles;
    f->recovered_blocks = s.recovered_blocks;
    f->recovered_bytes = s.recovered_bytes;
    f->epochs = s.epochs;
    f->joins = s.joins;
    f->reads_unpromised = s.reads_unpromised;
    f->rotten_units = s.rotten_units;
    f->repaired_units = s.repaired_units;
    f->unrepairable_units = s.unrepairable_units;
    f->differing_blocks = s.differing_blocks;
    f->copying = s.recover_blocks;
    f->leaving_blocks = s.leaving_blocks;
    f->scrub_running = s.scrub.running;
    f->scrub_parts = s.scrub.parts;
    f->scrub_parts_left = s.scrub.parts_left;
    f->scrub_checked_blocks = s.scrub.checked_blocks;
    f->scrub_began_ns = s.scrub.began_ns;
    f->scrub_ended_ns = s.scrub.ended_ns;
    f->removing_blocks = s.removing_blocks;
    f->table_version = s.table_version;
    f->applied_version = s.applied_version;
}

static void fill_store(const struct store *store, struct rwm_figures *f)
{
    struct store_stats s;
    store_stats_get(store, &s);
    const uint64_t taken = s.used_bytes + s.reserved_bytes;
    f->capacity_bytes = s.capacity_bytes;
    f->used_bytes = s.used_bytes;
    f->reserved_bytes = s.reserved_bytes;
    f->free_bytes = s.capacity_bytes > taken ? s.capacity_bytes - taken : 0;
    f->near_full = s.capacity_bytes > 0 && taken >= s.capacity_bytes - s.capacity_bytes / 10;
    f->blocks = s.blocks;
    f->journal_bytes = s.journal_bytes;
    f->journal_used_bytes = s.journal_used_bytes;
    f->resident_bytes = s.resident_bytes;
    f->store_reads = s.reads;
    f->store_writes = s.writes;
    f->store_clears = s.clears;
    f->store_removes = s.removes;
    f->direct_writes = s.direct_writes;
    f->redirected_writes = s.redirected_writes;
    f->journaled_writes = s.journaled_writes;
    f->client_write_bytes = s.client_write_bytes;
    f->device_write_bytes = s.device_write_bytes;
    f->flushes = s.flushes;
    const struct store_device_times *times = store_device_times(store);
    f->device_read_ns = times->op[DEVICE_READ];
    f->device_write_ns = times->op[DEVICE_WRITE];
    f->device_flush_ns = times->op[DEVICE_FLUSH];
    f->device_discard_ns = times->op[DEVICE_DISCARD];
    f->batches = s.batches;
    f->checkpoints = s.checkpoints;
    f->cache_hits = s.cache_hits;
    f->cache_misses = s.cache_misses;
    f->bad_units = s.bad_units;
    f->bad_pages = s.bad_pages;
}

static void fill_copies(const struct rwm *m, struct rwm_figures *f)
{
    const uint64_t clock_ns = loop_now_ns(m->env->loop);
    f->reconciling = m->reconciles;
    f->catching_up = m->catchups;
    list_for_each(n, &m->copies)
    {
        const struct rwm_copies *c = list_entry(n, struct rwm_copies, link);
        f->apart += list_length(&c->waiting);
    }
    list_for_each(n, &m->peers)
    {
        f->promises_held += rwm_peer_promised(list_entry(n, struct rwm_peer, link), clock_ns);
    }
    list_for_each(n, &m->grants)
    {
        f->promises_granted += list_entry(n, struct rwm_grant, link)->until_ns > clock_ns;
    }
}

static void add_info(const struct rwm *m, const char *module, struct metrics_snapshot *out)
{
    static const char *const media[] = {[TABLE_MEDIA_SSD] = "ssd",
                                        [TABLE_MEDIA_HDD] = "hdd",
                                        [TABLE_MEDIA_PMEM] = "pmem",
                                        [TABLE_MEDIA_SAN] = "san"};
    char labels[METRICS_LABELS_MAX], id[16], pool[16];
    snprintf(labels, sizeof(labels), "%s", module);
    snprintf(id, sizeof(id), "%u", m->id);
    snprintf(pool, sizeof(pool), "%u", m->pool_id);
    (void)metrics_label(labels, sizeof(labels), "id", id);
    (void)metrics_label(labels, sizeof(labels), "pool", pool);
    (void)metrics_label(labels, sizeof(labels), "kind", m->config.kind == TABLE_MODULE_SAN ? "san" : "osd");
    const unsigned kind = m->config.media;
    (void)metrics_label(labels, sizeof(labels), "media",
                        kind < ARRAY_LEN(media) && media[kind] ? media[kind] : "unknown");
    (void)metrics_label(labels, sizeof(labels), "host", m->config.host);
    struct rwm_info *info = metrics_snapshot_add(out, &rwm_info_group, labels);
    if (info)
        info->info = 1;
}

static void add_refusals(const struct rwm *m, const char *labels, struct metrics_snapshot *out)
{
    struct rwm_refusals *r = metrics_snapshot_add(out, &rwm_refusals_group, labels);
    if (!r)
        return;
#define STATUS(number, name, error, text)                                                                    \
    _Static_assert(number < RWM_STATUS_MAX, "refusals are counted by status");                               \
    r->name = m->stats.refused[number];
#include "common/status.def"
#undef STATUS
}

static void module_metrics(const struct rwm *m, struct metrics_snapshot *out)
{
    char labels[METRICS_LABELS_MAX] = "";
    (void)metrics_label(labels, sizeof(labels), "module", m->config.name);
    struct rwm_figures *f = metrics_snapshot_add(out, &rwm_metrics_group, labels);
    if (!f)
        return;
    fill_stats(m, f);
    f->link_up = m->data->link_state == DEVICE_LINK_UP && !m->broken;
    f->reserved = m->data->fence_state == DEVICE_FENCE_HELD;
    f->read_ns = m->latency.read;
    f->write_ns = m->latency.write;
    f->clear_ns = m->latency.clear;
    f->queued = list_length(&m->queued);
    f->held = list_length(&m->held);
    if (m->store)
        fill_store(m->store, f);
    fill_copies(m, f);
    add_refusals(m, labels, out);
    add_info(m, labels, out);
    if (m->cluster)
        cluster_metrics(m->cluster, labels, out);
}

void rwm_host_metrics(const struct rwm_host *h, struct metrics_snapshot *out)
{
    list_for_each(n, &h->modules) module_metrics(list_entry(n, struct rwm, host_link), out);
}

void rwm_host_collect(const struct rwm_host *h, struct metrics_snapshot *out)
{
    rwm_host_metrics(h, out);
    fabric_metrics(h->env->fabric, h->env->loop, out);
}

void rwm_readiness(const struct rwm *m, struct metrics_snapshot *out)
{
    char who[MDC_NAME_MAX + 16];
    struct rwm_stats s;
    snprintf(who, sizeof(who), "module %s", m->config.name);
    if (m->state == RWM_OPENING)
        metrics_snapshot_not_ready(out, "%s: its store is being opened", who);
    else if (m->state == RWM_FAILED)
        metrics_snapshot_not_ready(out, "%s: %s", who, m->fail_text);
    else if (m->state == RWM_JOINING)
        metrics_snapshot_not_ready(out, "%s: not registered with a metadata controller yet", who);
    else if (m->state != RWM_RUNNING)
        metrics_snapshot_not_ready(out, "%s: it is being stopped", who);
    if (m->cluster && m->state != RWM_FAILED)
        cluster_readiness(m->cluster, who, out);
    if (m->data->link_state != DEVICE_LINK_UP)
        metrics_snapshot_not_ready(out, "%s: the connection to %s is down", who, m->data->name);
    if (m->data->fence_state == DEVICE_FENCE_UNCERTAIN || m->data->fence_state == DEVICE_FENCE_LOST)
        metrics_snapshot_not_ready(out, "%s: the reservation of %s is %s", who, m->data->name,
                                   m->data->fence_state == DEVICE_FENCE_LOST ? "lost" : "in doubt");
    if (m->state != RWM_RUNNING)
        return;
    rwm_stats_get(m, &s);
    if (s.partitions_waiting > 0)
        metrics_snapshot_not_ready(out, "%s: %u of its %u partitions wait for other members", who,
                                   s.partitions_waiting, s.partitions);
}
