/* cluster.c: create and destroy, and waits for the table. */
#include "services/cluster/cluster_private.h"

#include <stdlib.h>

static void waits_run(struct loop_task *task);
static void waits_expired(struct loop_timer *timer);

int cluster_create(struct env *env, const struct cluster_config *config, const struct cluster_events *events,
                   void *user, struct cluster **out)
{
    if (env->fabric == NULL || config->mdc_count == 0 || config->mdc_count > CLUSTER_MDCS_MAX ||
        !mdc_name_valid(config->host))
        return -EINVAL;
    struct cluster *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return -ENOMEM;
    c->env = env;
    c->config = *config;
    if (c->config.refresh_ns == 0)
        c->config.refresh_ns = NS_PER_S;
    if (c->config.table_max_bytes == 0)
        c->config.table_max_bytes = 256 * MIB;
    if (events != NULL)
        c->events = *events;
    c->user = user;
    list_init(&c->waits_version);
    list_init(&c->waits_refresh);
    list_init(&c->waits_ready);
    loop_timer_init(&c->wait_timer, waits_expired);
    loop_task_init(&c->wait_task, waits_run);
    calls_init(c);
    const int rc = replica_init(c);
    if (rc != 0) {
        free(c);
        return rc;
    }
    session_init(c);
    *out = c;
    return 0;
}

void cluster_destroy(struct cluster *c)
{
    if (c == NULL)
        return;
    session_destroy(c);
    calls_destroy(c);
    replica_destroy(c);
    while (list_pop_front(&c->waits_version) != NULL || list_pop_front(&c->waits_refresh) != NULL ||
           list_pop_front(&c->waits_ready) != NULL)
        ;
    loop_timer_cancel(c->env->loop, &c->wait_timer);
    loop_task_cancel(c->env->loop, &c->wait_task);
    free(c);
}

bool cluster_session_is_up(const struct cluster *c)
{
    return c->session.up;
}

const struct table *cluster_table(const struct cluster *c)
{
    return c->replica.table.region != NULL ? &c->replica.table : NULL;
}

const struct table_header *cluster_head(const struct cluster *c)
{
    return c->replica.table.region != NULL ? table_head(&c->replica.table) : NULL;
}

void cluster_refresh(struct cluster *c)
{
    replica_kick(c);
}

void cluster_counters_get(const struct cluster *c, struct cluster_counters *out)
{
    *out = c->counters;
}

uint64_t cluster_backoff_ns(struct cluster *c, unsigned steps)
{
    uint64_t ns = SESSION_BACKOFF_MIN_NS;
    while (steps-- > 0 && ns < SESSION_BACKOFF_MAX_NS)
        ns *= 2;
    ns = min_u64(ns, SESSION_BACKOFF_MAX_NS);
    return ns / 2 + rng_below(c->env->rng, ns / 2 + 1);
}

/* ---- waits ---- */

static void wait_ready(struct cluster *c, struct cluster_wait *w)
{
    list_remove(&w->link);
    list_push_back(&c->waits_ready, &w->link);
    loop_defer(c->env->loop, &c->wait_task);
}

static void wait_timer_arm(struct cluster *c)
{
    const uint64_t now = loop_now_ns(c->env->loop);
    if (list_empty(&c->waits_refresh)) {
        loop_timer_cancel(c->env->loop, &c->wait_timer);
        return;
    }
    const struct cluster_wait *first = list_entry(c->waits_refresh.next, struct cluster_wait, link);
    loop_timer_arm(c->env->loop, &c->wait_timer, first->deadline_ns > now ? first->deadline_ns - now : 0);
}

static bool wait_version_reached(const struct cluster *c, const struct cluster_wait *w)
{
    const struct table_header *h = cluster_head(c);
    return h != NULL && version_pair_cmp(h->term, h->version, w->term, w->version) >= 0;
}

void waits_check(struct cluster *c, uint64_t ended)
{
    list_for_each_safe(n, &c->waits_version)
    {
        struct cluster_wait *w = list_entry(n, struct cluster_wait, link);
        if (wait_version_reached(c, w))
            wait_ready(c, w);
    }
    while (!list_empty(&c->waits_refresh)) { /* in order of their start */
        struct cluster_wait *w = list_entry(c->waits_refresh.next, struct cluster_wait, link);
        if (w->started >= ended)
            break;
        wait_ready(c, w);
    }
    wait_timer_arm(c);
}

bool waits_for_version(const struct cluster *c)
{
    return !list_empty(&c->waits_version);
}

static void waits_expired(struct loop_timer *timer)
{
    struct cluster *c = container_of(timer, struct cluster, wait_timer);
    const uint64_t now = loop_now_ns(c->env->loop);
    while (!list_empty(&c->waits_refresh)) {
        struct cluster_wait *w = list_entry(c->waits_refresh.next, struct cluster_wait, link);
        if (w->deadline_ns > now)
            break;
        wait_ready(c, w);
    }
    wait_timer_arm(c);
}

static void waits_run(struct loop_task *task)
{
    struct cluster *c = container_of(task, struct cluster, wait_task);
    struct list batch; /* what fn adds waits for the next round */
    list_init(&batch);
    list_splice(&batch, &c->waits_ready);
    for (struct list *n = list_pop_front(&batch); n != NULL; n = list_pop_front(&batch)) {
        struct cluster_wait *w = list_entry(n, struct cluster_wait, link);
        w->fn(w);
    }
}

void cluster_wait_table(struct cluster *c, struct cluster_wait *w)
{
    list_init(&w->link);
    w->started = c->replica.begun;
    w->deadline_ns = loop_now_ns(c->env->loop) + WAIT_REFRESH_NS;
    if (w->version == 0) {
        list_push_back(&c->waits_refresh, &w->link);
        wait_timer_arm(c);
        replica_kick(c);
        return;
    }
    list_push_back(&c->waits_version, &w->link);
    if (wait_version_reached(c, w))
        wait_ready(c, w);
    else
        replica_kick(c);
}

void cluster_wait_cancel(struct cluster *c, struct cluster_wait *w)
{
    list_remove(&w->link);
    wait_timer_arm(c);
}
