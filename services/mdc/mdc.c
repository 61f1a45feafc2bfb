/* mdc.c: the metadata controller's life: load, first commit, failure detection's clock, destruction; see
 * mdc.h. */
#include "services/mdc/mdc_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the clock of failure detection ---- */

static uint64_t period_ns(const struct mdc *m)
{
    return (uint64_t)m->state->heartbeat_ms * NS_PER_MS;
}

/* True: it is news, either way. */
static bool is_news(struct mdc_module *mod, uint8_t what, bool now)
{
    const bool said = mod->said & what;
    mod->said = (uint8_t)(now ? mod->said | what : mod->said & ~what);
    return said != now;
}

/* What an operator should know of modules, once. */
static void log_modules(struct mdc *m)
{
    const uint64_t now_ns = loop_now_ns(m->env->loop);
    for (uint32_t i = 0; i < m->state->limits.modules; i++) {
        struct mdc_module *mod = &m->state->modules[i];
        char which[2 * MDC_NAME_MAX + 40];
        if (mod->rec.id == 0)
            continue;
        snprintf(which, sizeof(which), "module=%u name=%s host=%s", mod->rec.id, mod->rec.name,
                 mod->rec.host);
        if (is_news(mod, MDC_SAID_DOWN, mod->down))
            log_write(m->env, mod->down ? LOG_WARN_ : LOG_INFO_,
                      mod->down ? "module is silent: down" : "module is heard again", "%s", which);
        if (is_news(mod, MDC_SAID_DAMAGED, mod->damaged) && mod->damaged)
            log_warn(m->env, "module tells that its store is damaged: its copies do not count",
                     "%s partitions=%u", which, mod->partitions);
        const bool away = mod->partitions != 0 && mdc_module_away(m->state, mod, now_ns);
        if (is_news(mod, MDC_SAID_AWAY, away) && away)
            log_warn(m->env, "module is away or damaged for too long: its copies are made elsewhere",
                     "%s partitions=%u", which, mod->partitions);
    }
}

static void tick(struct loop_timer *t)
{
    struct mdc *m = container_of(t, struct mdc, tick);
    uint64_t now_ns = loop_now_ns(m->env->loop);
    /* Whoever was not answered meanwhile needs a whole round to be heard again. */
    if (now_ns - m->last_tick_ns > 2 * period_ns(m))
        m->judge_ns = now_ns + SILENT_PERIODS * period_ns(m);
    bool late = now_ns < m->judge_ns;
    m->last_tick_ns = now_ns;
    loop_timer_arm(m->env->loop, &m->tick, period_ns(m));
    if (!m->started || m->failed)
        return;
    table_heartbeat(&m->table);
    const bool silent = mdc_op_watch(m->state, now_ns, late);
    log_modules(m);
    if (silent) {
        mdc_kick(m);
    } else if (m->state->unsettled > 0) {
        mdc_kick(m); /* the time for those who are silent may be over */
    }
    if (mdc_move_is_due(m->state, now_ns))
        mdc_kick(m);
    mdc_check_waiting(m);
}

static void move(struct loop_timer *t)
{
    struct mdc *m = container_of(t, struct mdc, move);
    if (m->started && !m->failed && mdc_move_is_due(m->state, loop_now_ns(m->env->loop)))
        mdc_kick(m);
}

static void lost(struct loop_timer *t)
{
    struct mdc *m = container_of(t, struct mdc, lost);
    uint64_t now_ns = loop_now_ns(m->env->loop);
    /* One that was paused itself lets the tick judge, when everybody had time to be heard. */
    if (m->started && !m->failed && now_ns >= m->judge_ns && now_ns - m->last_tick_ns <= 2 * period_ns(m) &&
        mdc_op_watch(m->state, now_ns, false)) {
        log_modules(m);
        mdc_kick(m);
    }
}

/* ---- creation ---- */

static int load(struct mdc *m)
{
    char why[256];
    int rc = mdc_state_load(m->state, m->config.meta, why);
    if (rc != 0) {
        log_error(
            m->env,
            "cannot start: the metadata store is damaged; restore it from a backup, or give another directory",
            "error=%d why='%s'", rc, why);
        return rc;
    }
    if (uuid_is_zero(&m->state->cluster)) {
        m->state->cluster = uuid_is_zero(&m->config.cluster) ? rng_uuid(m->env->rng) : m->config.cluster;
        mdc_tx_format(&m->tx);
        char id[33];
        uuid_format(&m->state->cluster, id);
        log_info(m->env, "new cluster", "cluster=%s", id);
    } else if (!uuid_is_zero(&m->config.cluster) && !uuid_eq(&m->config.cluster, &m->state->cluster)) {
        log_error(m->env, "cannot start: the metadata store belongs to another cluster", "error=%d",
                  -EMEDIUMTYPE);
        return -EMEDIUMTYPE;
    }
    return 0;
}

/* A new term, and turns above all that earlier processes may have given. */
static void begin_term(struct mdc *m)
{
    struct mdc_state *s = m->state;
    uint64_t now_ns = loop_now_ns(m->env->loop);
    s->counters.term = mdc_term_above(s->counters.term, (uint16_t)rng_u64(m->env->rng));
    s->turn_next = s->counters.turn_limit;
    mdc_numbers_lift(s);
    mdc_tx_counters(&m->tx);
    s->started_ns = now_ns;
    m->last_tick_ns = now_ns;
    for (uint32_t i = 0; i < s->limits.modules; i++)
        s->modules[i].heard_ns = now_ns;
    if (m->config.restored_store)
        mdc_note_restored(s, &m->tx);
    snprintf(s->meta_name, sizeof(s->meta_name), "%s", m->config.meta->ops->name);
    m->start = rng_u64(m->env->rng);
}

static int build(struct mdc *m)
{
    int rc = mdc_state_create(&m->config.limits, m->config.attachments, &m->state);
    if (rc == 0)
        rc = mdc_tx_create(m->state, &m->tx);
    if (rc != 0)
        return rc;
    m->state->heartbeat_ms = m->config.heartbeat_ms;
    m->state->trusted = m->config.trust_store;
    m->state->moves = (struct mdc_move_limits){.per_module = m->config.moves_per_module,
                                               .total = m->config.moves_total,
                                               .replace_ns = m->config.replace_after_ns,
                                               .rest_ns = m->config.rest_ns};
    rc = load(m);
    if (rc != 0)
        return rc;
    begin_term(m);
    mdc_publish_all(m);
    rc = m->tx.no_memory ? -ENOMEM : mdc_publish_init(m);
    if (rc != 0)
        return rc;
    rc = mdc_serve(m);
    if (rc != 0) {
        char addr[64];
        log_error(m->env, "cannot start: cannot listen", "listen=%s error=\"%s\"",
                  fabric_addr_format(&m->config.listen, addr), strerror(-rc));
    }
    return rc;
}

int mdc_create(struct env *env, const struct mdc_config *config, struct mdc **out)
{
    struct mdc *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return -ENOMEM;
    m->env = env;
    m->config = *config;
    if (m->config.heartbeat_ms == 0)
        m->config.heartbeat_ms = 1000;
    if (m->config.moves_per_module == 0)
        m->config.moves_per_module = 2;
    if (m->config.moves_total == 0)
        m->config.moves_total = 16;
    if (m->config.replace_after_ns == 0)
        m->config.replace_after_ns = 600 * NS_PER_S;
    if (m->config.rest_ns == 0)
        m->config.rest_ns = 10 * NS_PER_S;
    if (m->config.confirm_timeout_ns == 0)
        m->config.confirm_timeout_ns = 8 * NS_PER_S; /* below what callers wait for */
    list_init(&m->queue);
    list_init(&m->batch);
    list_init(&m->waiting);
    loop_task_init(&m->run_task, mdc_run);
    loop_task_init(&m->hint_task, mdc_send_hint);
    loop_timer_init(&m->tick, tick);
    loop_timer_init(&m->lost, lost);
    loop_timer_init(&m->move, move);
    int rc = build(m);
    if (rc != 0) {
        m->config.meta = NULL; /* stays the caller's */
        mdc_destroy(m);
        return rc;
    }
    loop_timer_arm(env->loop, &m->tick, period_ns(m));
    loop_defer(env->loop, &m->run_task);
    *out = m;
    return 0;
}

void mdc_destroy(struct mdc *m)
{
    loop_timer_cancel(m->env->loop, &m->tick);
    loop_timer_cancel(m->env->loop, &m->lost);
    loop_timer_cancel(m->env->loop, &m->move);
    loop_task_cancel(m->env->loop, &m->run_task);
    loop_task_cancel(m->env->loop, &m->hint_task);
    if (m->config.meta != NULL)
        meta_close(m->config.meta); /* first: it may still read the items of a commit in flight */
    if (m->listener != NULL)
        rpc_listener_destroy(m->listener, true);
    mdc_jobs_abandon(&m->queue);
    mdc_jobs_abandon(&m->batch);
    mdc_jobs_abandon(&m->waiting);
    mdc_items_free(m->items, m->item_count);
    if (m->mem != NULL)
        fabric_mem_unregister(m->mem);
    table_index_free(&m->table);
    free(m->table.region);
    mdc_tx_destroy(&m->tx);
    if (m->state != NULL)
        mdc_state_destroy(m->state);
    free(m);
}

void mdc_addr(const struct mdc *m, struct fabric_addr *out)
{
    rpc_listener_addr(m->listener, out);
}

struct uuid mdc_cluster(const struct mdc *m)
{
    return m->state->cluster;
}

const struct table *mdc_table(const struct mdc *m)
{
    return &m->table;
}

/* ---- a look into a store ---- */

static int look(void *arg, const char *key, const void *value, size_t len)
{
    uint8_t record[META_VALUE_MAX] __attribute__((aligned(8)));
    enum record_kind kind;
    const char *why;
    int rc = len <= sizeof(record) ? record_open(key, value, len, &kind, record, &why) : -EMEDIUMTYPE;
    if (rc == -EBADMSG && strcmp(key, RECORD_KEY_FORMAT) != 0)
        rc = -EMEDIUMTYPE;
    if (rc != 0)
        return rc;
    if (kind != RECORD_FORMAT_ID)
        return -EMEDIUMTYPE;
    memcpy(arg, &((const struct record_format *)(const void *)record)->cluster, sizeof(struct uuid));
    return 1; /* the first record is enough */
}

int mdc_store_cluster(struct meta_store *meta, struct uuid *out)
{
    struct uuid found;
    int rc = meta_load(meta, look, &found);
    if (rc == 0)
        return -ENOENT;
    if (rc < 0)
        return rc;
    *out = found;
    return 0;
}
