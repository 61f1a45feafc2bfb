/*
 * One connection to each module that has work. Its first message is HELLO with the process's instance and a
 * sequence that grows with every connection of this core: the module ends the older connection of that
 * instance before it serves the newer one, and so a write whose outcome got lost may be repeated. On this
 * side a new connection is begun only when every call of the old one has ended.
 */
#include <stdlib.h>
#include <string.h>

#include "services/vbs/volume_internal.h"

#define BACKOFF_MIN_NS   (10 * NS_PER_MS)
#define BACKOFF_MAX_NS   (500 * NS_PER_MS)
#define HELLO_TIMEOUT_NS (5 * NS_PER_S)
/* A module that lives answers for what is not its own any more much sooner. */
#define LEAVE_NS (200 * NS_PER_MS)

static void link_connect(struct module_link *ml);

static void link_trace(struct module_link *ml, const char *what)
{
    struct env *env = ml->core->env;
    trace_point(env->trace, loop_now_ns(env->loop), what, ml->module, ml->state, ml->calls);
}

/* Without a connection and without calls: makes the next attempt after the back-off, if anyone waits for it.
 */
static void link_rest(struct module_link *ml)
{
    ml->state = LINK_IDLE;
    link_trace(ml, "link idle");
    if (list_empty(&ml->waiting) || loop_timer_armed(&ml->timer))
        return;
    loop_timer_arm(ml->core->env->loop, &ml->timer, core_jitter(ml->core, ml->backoff_ns));
    ml->backoff_ns = min_u64(ml->backoff_ns * 2, BACKOFF_MAX_NS);
}

/* The peer lives until its calls have ended: until then it can be abandoned. */
static void link_drain(struct module_link *ml)
{
    ml->old_peer = ml->calls != 0 ? ml->peer : NULL;
    ml->peer = NULL;
    ml->state = LINK_DRAINING;
    if (ml->calls == 0)
        link_rest(ml);
}

void link_close(struct module_link *ml)
{
    if (ml->peer == NULL)
        return;
    rpc_close(ml->peer);
    link_drain(ml);
}

void link_call_ended(struct module_link *ml)
{
    MUST(ml->calls > 0);
    ml->calls--;
    if (ml->state == LINK_DRAINING && ml->calls == 0) {
        ml->old_peer = NULL;
        link_rest(ml);
    }
}

static void link_ready(struct module_link *ml)
{
    ml->state = LINK_READY;
    ml->was_ready = true;
    ml->backoff_ns = BACKOFF_MIN_NS;
    link_trace(ml, "link ready");
    struct list go;
    list_init(&go);
    list_splice(&go, &ml->waiting);
    for (struct list *n; (n = list_pop_front(&go)) != NULL;)
        part_go(list_entry(n, struct part, link));
}

static void on_hello_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct module_link *ml = container_of(call, struct module_link, hello);
    bool current = ml->state == LINK_HELLO;
    if (current && result->rc == 0 && result->status == STATUS_OK) {
        link_call_ended(ml);
        link_ready(ml);
        return;
    }
    if (current && result->rc == 0 && log_allow(ml->core->env, &ml->log))
        log_warn(ml->core->env, "a module refused the connection", "module=%u status=%s", ml->module,
                 status_name(result->status));
    if (current && ml->peer != NULL && result->rc != -ENOTCONN) {
        core_refresh(ml->core);
        link_close(ml);
    }
    link_call_ended(ml);
}

static void on_up(void *service, struct rpc_peer *peer)
{
    struct module_link *ml = service;
    if (peer != ml->peer)
        return;
    ml->hello_body = (struct block_hello){
        .module = ml->module,
        .instance = ml->core->config.cluster.instance,
        .sequence = ++ml->core->hello_sequence,
    };
    memset(&ml->hello, 0, sizeof ml->hello);
    ml->hello.method = BLOCK_METHOD_HELLO;
    ml->hello.body = &ml->hello_body;
    ml->hello.body_len = sizeof ml->hello_body;
    ml->hello.timeout_ns = HELLO_TIMEOUT_NS;
    ml->hello.done = on_hello_done;
    if (rpc_call_start(peer, &ml->hello) != 0) {
        link_close(ml);
        return;
    }
    ml->calls++;
    ml->state = LINK_HELLO;
}

static void on_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct module_link *ml = service;
    if (peer != ml->peer)
        return;
    if (log_allow(ml->core->env, &ml->log))
        log_info(ml->core->env, "connection to a module ended", "module=%u reason=\"%s\"", ml->module,
                 fabric_down_text(reason));
    core_refresh(ml->core);
    link_drain(ml);
}

static const struct rpc_events link_events = {.up = on_up, .down = on_down};

static void link_connect(struct module_link *ml)
{
    struct volume_core *core = ml->core;
    const struct table *table = cluster_table(core->cluster);
    const struct table_module *m = table != NULL ? table_module_by_id(table, ml->module) : NULL;
    if (m == NULL)
        return; /* what waits here is sent elsewhere with the next table */
    memcpy(&ml->addr, m->addr, sizeof ml->addr);
    ml->incarnation = m->incarnation;
    if (ml->was_ready)
        core->counters.reconnects++;
    ml->was_ready = false;
    int rc = rpc_connect(core->env, &ml->addr, FABRIC_DOMAIN_HOST, &ml->service, &ml->peer);
    if (rc == 0) {
        ml->state = LINK_CONNECTING;
        link_trace(ml, "link connecting");
        return;
    }
    ml->peer = NULL;
    char addr[64];
    if (log_allow(core->env, &ml->log))
        log_warn(core->env, "cannot connect to a module", "module=%u addr=%s errno=%d", ml->module,
                 fabric_addr_format(&ml->addr, addr), -rc);
    link_rest(ml);
}

static void on_timer(struct loop_timer *t)
{
    struct module_link *ml = container_of(t, struct module_link, timer);
    if (ml->state == LINK_IDLE && !list_empty(&ml->waiting))
        link_connect(ml);
}

static void on_leave(struct loop_timer *t)
{
    struct module_link *ml = container_of(t, struct module_link, leave);
    if (ml->peer == NULL || !parts_moved_from(ml))
        return;
    if (log_allow(ml->core->env, &ml->log))
        log_info(ml->core->env,
                 "a module does not answer, and another one serves now: its connection is given up",
                 "module=%u", ml->module);
    link_close(ml);
}

void link_check_moved(struct module_link *ml)
{
    struct loop *loop = ml->core->env->loop;
    if (ml->peer == NULL || !parts_moved_from(ml))
        loop_timer_cancel(loop, &ml->leave);
    else if (!loop_timer_armed(&ml->leave))
        loop_timer_arm(loop, &ml->leave, LEAVE_NS);
}

void link_want(struct module_link *ml)
{
    if (ml->state == LINK_IDLE && !loop_timer_armed(&ml->timer))
        link_connect(ml);
}

static int links_grow(struct volume_core *core, uint32_t module)
{
    uint32_t room = core->link_room != 0 ? core->link_room : 64;
    while (room <= module)
        room *= 2;
    struct module_link **grown = realloc(core->link_by_id, room * sizeof *grown);
    if (grown == NULL)
        return -ENOMEM;
    memset(grown + core->link_room, 0, (room - core->link_room) * sizeof *grown);
    core->link_by_id = grown;
    core->link_room = room;
    return 0;
}

struct module_link *link_get(struct volume_core *core, uint32_t module)
{
    if (module < core->link_room && core->link_by_id[module] != NULL)
        return core->link_by_id[module];
    if (module > TABLE_MEMBER_ID(UINT32_MAX) || (module >= core->link_room && links_grow(core, module) != 0))
        return NULL;
    struct module_link *ml = calloc(1, sizeof *ml);
    if (ml == NULL)
        return NULL;
    ml->core = core;
    ml->module = module;
    ml->backoff_ns = BACKOFF_MIN_NS;
    ml->log.interval_ns = NS_PER_S;
    ml->service.events = &link_events;
    ml->service.service = ml;
    list_init(&ml->waiting);
    list_init(&ml->sent);
    list_init(&ml->all);
    loop_timer_init(&ml->timer, on_timer);
    loop_timer_init(&ml->leave, on_leave);
    core->link_by_id[module] = ml;
    list_push_back(&core->links, &ml->all);
    return ml;
}

void links_check_table(struct volume_core *core, const struct table *table)
{
    list_for_each(n, &core->links)
    {
        struct module_link *ml = list_entry(n, struct module_link, all);
        const struct table_module *m = table_module_by_id(table, ml->module);
        bool same = m != NULL && m->incarnation == ml->incarnation &&
                    memcmp(m->addr, &ml->addr, sizeof ml->addr) == 0;
        if (same)
            continue;
        /* What was true of the old one (how often it failed) is not true of the new one. */
        ml->backoff_ns = BACKOFF_MIN_NS;
        loop_timer_cancel(core->env->loop, &ml->timer);
        link_close(ml);
        if (m != NULL && !list_empty(&ml->waiting))
            link_want(ml);
    }
}

static void link_abandon_peers(struct module_link *ml)
{
    if (ml->peer != NULL)
        rpc_abandon(ml->peer);
    if (ml->old_peer != NULL)
        rpc_abandon(ml->old_peer);
    ml->peer = ml->old_peer = NULL;
    ml->calls = 0;
}

void link_abandon(struct module_link *ml, struct list *orphans)
{
    link_abandon_peers(ml);
    list_splice(orphans, &ml->sent);
    link_rest(ml);
}

void links_destroy(struct volume_core *core)
{
    for (struct list *n; (n = list_pop_front(&core->links)) != NULL;) {
        struct module_link *ml = list_entry(n, struct module_link, all);
        link_abandon_peers(ml);
        loop_timer_cancel(core->env->loop, &ml->timer);
        loop_timer_cancel(core->env->loop, &ml->leave);
        free(ml);
    }
    free(core->link_by_id);
    core->link_by_id = NULL;
    core->link_room = 0;
}
