/* The volume core of a shard: see volume.h. This file: its life, the cluster's events, refreshes of the
 * table. */
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"
#include "services/vbs/volume_internal.h"

enum { PARTS_DEFAULT = 4096, PARTS_MIN = 16 };
/* Parts of many requests learn of a change at the same moment; the MDC should not. */
#define REFRESH_JITTER_NS (2 * NS_PER_MS)

void volume_core_config_default(struct volume_core_config *config)
{
    memset(config, 0, sizeof *config);
    config->parts_max = PARTS_DEFAULT;
    config->verify_reads = true;
}

uint64_t core_jitter(struct volume_core *core, uint64_t ns)
{
    return ns - rng_below(core->env->rng, ns / 2 + 1);
}

static void on_refresh_timer(struct loop_timer *t)
{
    struct volume_core *core = container_of(t, struct volume_core, refresh_timer);
    core->counters.refreshes++;
    cluster_refresh(core->cluster);
}

void core_refresh(struct volume_core *core)
{
    if (!loop_timer_armed(&core->refresh_timer))
        loop_timer_arm(core->env->loop, &core->refresh_timer, rng_below(core->env->rng, REFRESH_JITTER_NS));
}

static void on_session_up(void *user, const struct mdc_session_reply *session)
{
    struct volume_core *core = user;
    (void)session;
    /* The new session knows nothing of what is open here. */
    list_for_each(n, &core->volumes)
    {
        struct volume *v = list_entry(n, struct volume, all);
        if (v->state == VOLUME_READY)
            volume_open_again(v);
    }
}

static void on_table_changed(void *user, const struct table *table)
{
    struct volume_core *core = user;
    list_for_each(n, &core->volumes) volume_check_table(list_entry(n, struct volume, all), table);
    links_check_table(core, table);
    parts_check_table(core);
}

static const struct cluster_events core_cluster_events = {
    .session_up = on_session_up,
    .table_changed = on_table_changed,
};

int volume_core_create(struct env *env, const struct volume_core_config *config, struct volume_core **out)
{
    struct volume_core *core = calloc(1, sizeof *core);
    if (core == NULL)
        return -ENOMEM;
    core->env = env;
    core->config = *config;
    if (core->config.parts_max == 0)
        core->config.parts_max = PARTS_DEFAULT;
    if (core->config.parts_max < PARTS_MIN)
        core->config.parts_max = PARTS_MIN;
    core->volume_parts_max = core->config.parts_max / 4;
    core->log.interval_ns = NS_PER_S;
    core->hello_sequence = loop_now_ns(env->loop); /* above those of an earlier core of this instance */
    core->open_serial = core->hello_sequence;
    list_init(&core->volumes);
    list_init(&core->links);
    list_init(&core->hungry);
    list_init(&core->parked);
    list_init(&core->backoff);
    loop_timer_init(&core->refresh_timer, on_refresh_timer);
    int rc = pool_create(NULL, "volume parts", sizeof(struct part), 64, core->config.parts_max, &core->parts);
    if (rc == 0)
        rc = cluster_create(env, &core->config.cluster, &core_cluster_events, core, &core->cluster);
    if (rc != 0) {
        if (core->parts != NULL)
            pool_destroy(core->parts, false);
        free(core);
        return rc;
    }
    *out = core;
    return 0;
}

void volume_core_destroy(struct volume_core *core)
{
    if (core == NULL)
        return;
    while (!list_empty(&core->volumes))
        volume_abandon(list_entry(core->volumes.next, struct volume, all));
    links_destroy(core);
    cluster_destroy(core->cluster);
    loop_timer_cancel(core->env->loop, &core->refresh_timer);
    pool_destroy(core->parts, true);
    free(core);
}

struct cluster *volume_core_cluster(struct volume_core *core)
{
    return core->cluster;
}

static uint64_t list_length(const struct list *l)
{
    uint64_t length = 0;
    for (const struct list *n = l->next; n != l; n = n->next)
        length++;
    return length;
}

void volume_core_counters_get(const struct volume_core *core, struct volume_core_counters *out)
{
    *out = core->counters;
    out->parts_waiting = list_length(&core->parked) + list_length(&core->backoff);
    for (const struct list *n = core->links.next; n != &core->links; n = n->next)
        out->parts_waiting +=
            list_length(&container_of((struct list *)(uintptr_t)n, struct module_link, all)->waiting);
}
