/* rwm_member.c: the module's part in the cluster: session, registration, identity, heartbeats. Only this
 * start's registration makes it serve; a session that is lost later changes nothing but that it registers
 * again. */
#include "services/rwm/rwm_scrub.h"

#include <string.h>

#define REGISTER_TIMEOUT_NS  (10u * NS_PER_S)
#define HEARTBEAT_TIMEOUT_NS (5u * NS_PER_S)
#define HEARTBEAT_DEFAULT_NS NS_PER_S

static void member_register(struct rwm *m);

/* ---- heartbeats ---- */
static void heartbeat_done(struct cluster_call *call, int rc)
{
    struct rwm *m = container_of(call, struct rwm, member.heartbeat_call);
    struct rwm_member *b = &m->member;
    b->heartbeat_busy = false;
    if (rc == 0) {
        const struct table *t = cluster_table(m->cluster);
        const struct mdc_module_heartbeat_reply *r = &b->heartbeat_reply;
        if (r->tell)
            rwm_tell_want(m, r->term);
        rwm_scrub_order(m, r->scrub);
        if (r->register_again)
            member_register(m);
        if (t && (r->term > table_head(t)->term ||
                  (r->term == table_head(t)->term && r->version > table_head(t)->version)))
            cluster_refresh(m->cluster);
    }
    if (b->heartbeat_again)
        rwm_member_heartbeat(m);
}

/* Said once in the log when a threshold is passed; what lies a percent below it is not news. */
static uint8_t full_level(struct rwm *m, const struct store_stats *st)
{
    uint64_t warn = m->config.warn_full ? m->config.warn_full : 85,
             alarm = m->config.alarm_full ? m->config.alarm_full : 95;
    uint64_t percent = st->capacity_bytes ? st->used_bytes * 100 / st->capacity_bytes : 0;
    uint8_t was = m->full_level;
    uint8_t now = percent + (was >= 2) >= alarm ? 2 : percent + (was >= 1) >= warn ? 1 : 0;
    if (now > was)
        log_warn(m->env, now == 2 ? "the module is all but full" : "the module is nearly full",
                 "module=%u device=%s percent=%lu used=%lu capacity=%lu", m->id, m->data->name,
                 (unsigned long)percent, (unsigned long)st->used_bytes, (unsigned long)st->capacity_bytes);
    else if (now < was)
        log_info(m->env, "the module has room again", "module=%u percent=%lu", m->id, (unsigned long)percent);
    m->full_level = now;
    return now;
}

static struct mdc_care care_of(struct rwm *m)
{
    struct rwm_stats st;
    rwm_stats_get(m, &st);
    if (st.copies_missing == 0)
        m->recovery.before = st.recovered_blocks;
    return (struct mdc_care){.repaired = st.repaired_units,
                             .lost = st.unrepairable_units,
                             .differing = st.differing_blocks,
                             .copies_missing = st.copies_missing,
                             .recover_blocks = st.recover_blocks,
                             .recover_rate = st.recover_rate,
                             .recovered_bytes = st.recovered_bytes,
                             .recover_done = st.recovered_blocks - m->recovery.before,
                             .scrub_running = st.scrub.running,
                             .scrub_parts = st.scrub.parts,
                             .scrub_left = st.scrub.parts_left,
                             .scrub_blocks = st.scrub.checked_blocks,
                             .scrub_rotten = st.scrub.rotten,
                             .scrub_repaired = st.scrub.repaired,
                             .scrub_lost = st.scrub.lost,
                             .scrub_differing = st.scrub.differing,
                             .scrub_ended_ns = st.scrub.ended_ns,
                             .full = full_level(m, &st.store)};
}

void rwm_member_heartbeat(struct rwm *m)
{
    struct rwm_member *b = &m->member;
    struct store_stats stats;
    b->heartbeat_again = false;
    if (!b->registered || !m->cluster || !cluster_session_is_up(m->cluster) || m->state != RWM_RUNNING)
        return;
    if (b->heartbeat_busy) {
        b->heartbeat_again = true;
        return;
    }
    store_stats_get(m->store, &stats);
    b->heartbeat_request =
        (struct mdc_module_heartbeat_request){.module = m->id,
                                              .incarnation = m->config.incarnation,
                                              .applied_term = m->applied_term,
                                              .applied_version = m->applied_version,
                                              .capacity_bytes = stats.capacity_bytes,
                                              .used_bytes = stats.used_bytes,
                                              .removing_blocks = rwm_remove_pending(m),
                                              .leaving_blocks = rwm_leave_pending(m),
                                              .damaged = m->damaged || store_is_damaged(m->store),
                                              .reads = m->stats.reads,
                                              .writes = m->stats.writes,
                                              .read_bytes = m->stats.read_bytes,
                                              .write_bytes = m->stats.write_bytes,
                                              .errors = m->stats.errors,
                                              .highest_epoch = m->highest_epoch,
                                              .highest_layer = m->highest_layer,
                                              .highest_generation = m->highest_generation,
                                              .highest_turn = m->highest_turn,
                                              .ahead_count = b->ahead_count,
                                              .care = care_of(m)};
    memcpy(b->heartbeat_request.ahead, b->ahead, sizeof(b->ahead));
    b->heartbeat_request.recovery_count =
        rwm_catchup_list(m, b->heartbeat_request.recoveries, MDC_RECOVERIES);
    b->heartbeat_call = (struct cluster_call){.method = MDC_METHOD_MODULE_HEARTBEAT,
                                              .request_type = &mdc_module_heartbeat_request_type,
                                              .reply_type = &mdc_module_heartbeat_reply_type,
                                              .request = &b->heartbeat_request,
                                              .reply = &b->heartbeat_reply,
                                              .timeout_ns = HEARTBEAT_TIMEOUT_NS,
                                              .done = heartbeat_done};
    b->heartbeat_busy = cluster_call_start(m->cluster, &b->heartbeat_call) == 0;
}

/* Heartbeats, and registrations that failed, on one timer. */
static void member_tick(struct loop_timer *timer)
{
    struct rwm *m = container_of(timer, struct rwm, member.timer);
    loop_timer_arm(m->env->loop, timer, m->member.heartbeat_ns);
    if (!m->member.registered)
        member_register(m);
    else
        rwm_member_heartbeat(m);
}

/* ---- registration ---- */
static void first_table(struct cluster_wait *w)
{
    struct rwm *m = container_of(w, struct rwm, member.first_table);
    const struct table *t = cluster_table(m->cluster);
    m->member.waiting_table = false;
    /* Of a controller that came since, and has not heard of this start: nobody would tell it before
     * heartbeats begin. */
    if (t && table_head(t)->term > m->member.known_term) {
        member_register(m);
        return;
    }
    m->member.registered = true;
    rwm_apply_kick(m);
}

static void register_accepted(struct rwm *m)
{
    struct rwm_member *b = &m->member;
    if (b->register_reply.tell)
        rwm_tell_want(m, b->register_reply.term);
    b->known_term = b->register_reply.term;
    b->known_version = b->register_reply.version;
    if (b->registered)
        rwm_apply_kick(m);
    if (b->registered || b->waiting_table)
        return;
    log_info(m->env, "registered", "module=%u pool=%u table_version=%lu", m->id, b->register_reply.pool,
             (unsigned long)b->register_reply.version);
    b->waiting_table = true;
    memset(&b->first_table, 0, sizeof(b->first_table));
    list_init(&b->first_table.link);
    b->first_table.term = b->register_reply.term;
    b->first_table.version = b->register_reply.version;
    b->first_table.fn = first_table;
    cluster_wait_table(m->cluster, &b->first_table);
    cluster_refresh(m->cluster);
}

static bool identity_written(struct rwm *m, int rc)
{
    m->identity_busy = false;
    if (rc) {
        rwm_store_error(m, rc, "identity");
        if (!m->broken)
            rwm_fail(m, rc, "the store's identity could not be written (%s)", strerror(-rc));
        return false;
    }
    rwm_shutdown_step(m);
    return m->cluster != NULL; /* else the module stopped, or failed, while this was written */
}

static void accepted_done(void *arg, int rc)
{
    struct rwm *m = arg;
    if (identity_written(m, rc))
        member_register(m);
}

/*
 * Twice: the medium notes durably that this start was accepted, then the controller hears that it has. Only
 * then is anything served; so a copy of the medium made before can be told from it for ever, however often it
 * is started.
 */
static void register_note(struct rwm *m)
{
    if (store_identity(m->store)->accepted_incarnation == m->config.incarnation) {
        register_accepted(m);
        return;
    }
    int rc = store_set_accepted(m->store, m->config.incarnation, accepted_done, m);
    if (rc == 0)
        m->identity_busy = true;
    else if (rc != -EAGAIN) /* busy: the timer registers again */
        rwm_fail(m, rc, "the store's identity could not be written (%s)", strerror(-rc));
}

static void identity_done(void *arg, int rc)
{
    struct rwm *m = arg;
    if (!identity_written(m, rc))
        return;
    m->id = m->member.register_reply.module;
    register_note(m);
}

static void register_identity(struct rwm *m)
{
    const struct store_identity *id = store_identity(m->store);
    uint32_t module = m->member.register_reply.module;
    if (module == 0 || (id->module != 0 && id->module != module)) {
        rwm_fail(m, -EPROTO,
                 "the metadata controller answered with module %u, but this store belongs to module %u",
                 module, id->module);
        return;
    }
    if (id->module == module && uuid_eq(&id->cluster, &m->member.cluster)) {
        m->id = module;
        register_note(m);
        return;
    }
    if (m->identity_busy)
        return;
    int rc = store_set_identity(m->store, &m->member.cluster, module, id->partition_bits, identity_done, m);
    if (rc)
        rwm_fail(m, rc, "the store's identity could not be written (%s)", strerror(-rc));
    else
        m->identity_busy = true;
}

static void register_done(struct cluster_call *call, int rc)
{
    struct rwm *m = container_of(call, struct rwm, member.register_call);
    m->member.registering = false;
    if (rc == 0) {
        register_identity(m);
        return;
    }
    switch (call->status) {
    case STATUS_OLD_MEDIA:
    case STATUS_FOREIGN_MEDIA:
    case STATUS_WRONG_CLUSTER:
        rwm_fail(m, -EPERM, "the metadata controller refused this module's medium (%s): %s",
                 status_name(call->status), call->error_text);
        return;
    default:
        if (log_allow(m->env, &m->log_limit))
            log_warn(m->env, "not registered yet, trying again", "rc=%d status=%s why=\"%s\"", rc,
                     status_name(call->status), call->error_text);
        m->member.registered = false; /* the timer tries again; what is served goes on being served */
        return;
    }
}

static void register_fill(struct rwm *m)
{
    const struct store_identity *id = store_identity(m->store);
    struct mdc_module_register_request *r = &m->member.register_request;
    struct fabric_addr addr = {0};
    struct store_stats stats;
    store_stats_get(m->store, &stats);
    if (m->host)
        rwm_host_addr(m->host, &addr);
    memset(r, 0, sizeof(*r));
    r->store = id->store;
    r->start_counter = id->start_counter;
    r->incarnation = m->config.incarnation;
    r->accepted_start = id->accepted_start;
    r->accepted_incarnation = id->accepted_incarnation;
    r->module = id->module;
    r->kind = (uint8_t)m->config.kind;
    r->media = (uint8_t)m->config.media;
    memcpy(r->host, m->config.host, sizeof(r->host));
    memcpy(r->rack, m->config.rack, sizeof(r->rack));
    memcpy(r->name, m->config.name, sizeof(r->name));
    memcpy(r->addr, &addr, sizeof(r->addr));
    r->capacity_bytes = stats.capacity_bytes;
    r->used_bytes = stats.used_bytes;
    r->highest_epoch = m->highest_epoch;
    r->highest_layer = m->highest_layer;
    r->highest_generation = m->highest_generation;
    r->highest_turn = m->highest_turn;
    r->damaged = m->damaged || store_is_damaged(m->store);
}

static void member_register(struct rwm *m)
{
    struct rwm_member *b = &m->member;
    if (b->registering || b->waiting_table || m->identity_busy || !cluster_session_is_up(m->cluster))
        return;
    register_fill(m);
    b->register_call = (struct cluster_call){.method = MDC_METHOD_MODULE_REGISTER,
                                             .request_type = &mdc_module_register_request_type,
                                             .reply_type = &mdc_module_register_reply_type,
                                             .request = &b->register_request,
                                             .reply = &b->register_reply,
                                             .timeout_ns = REGISTER_TIMEOUT_NS,
                                             .done = register_done};
    b->registering = cluster_call_start(m->cluster, &b->register_call) == 0;
}

/* ---- session ---- */
static void session_up(void *user, const struct mdc_session_reply *session)
{
    struct rwm *m = user;
    const struct store_identity *id = store_identity(m->store);
    if (!uuid_is_zero(&id->cluster) && !uuid_eq(&id->cluster, &session->cluster)) {
        char ours[33], theirs[33];
        uuid_format(&id->cluster, ours);
        uuid_format(&session->cluster, theirs);
        rwm_fail(
            m, -EPERM,
            "this store belongs to cluster %s, the metadata controller to cluster %s: check --mdc and the data path",
            ours, theirs);
        return;
    }
    m->member.cluster = session->cluster;
    if (session->heartbeat_ms > 0)
        m->member.heartbeat_ns = session->heartbeat_ms * NS_PER_MS;
    loop_timer_arm(m->env->loop, &m->member.timer, m->member.heartbeat_ns);
    member_register(m);
}

static void table_changed(void *user, const struct table *table)
{
    (void)table;
    rwm_apply_kick(user);
}

int rwm_member_start(struct rwm *m)
{
    static const struct cluster_events events = {.session_up = session_up, .table_changed = table_changed};
    struct cluster_config config = {
        .mdc_count = m->config.mdc_count, .role = FABRIC_ROLE_MODULE, .instance = m->config.incarnation};
    memcpy(config.mdc, m->config.mdc, sizeof(config.mdc));
    memcpy(config.mdc_host, m->config.mdc_host, sizeof(config.mdc_host));
    memcpy(config.host, m->config.host, sizeof(config.host));
    memcpy(config.name, m->config.name, sizeof(config.name));
    m->member.heartbeat_ns = HEARTBEAT_DEFAULT_NS;
    loop_timer_init(&m->member.timer, member_tick);
    return cluster_create(m->env, &config, &events, m, &m->cluster);
}

void rwm_member_stop(struct rwm *m)
{
    loop_timer_cancel(m->env->loop, &m->member.timer);
    rwm_apply_stop(m);
    loop_timer_cancel(m->env->loop, &m->held_timer);
    loop_task_cancel(m->env->loop, &m->held_task);
    if (m->cluster)
        cluster_destroy(m->cluster);
    m->cluster = NULL;
}
