/*
 * One part of a request: it lies inside one stripe, and so goes to one module. States and what ends them:
 * enum part_state. A part ends only with an answer that is final; everything else (old tables, lost
 * connections, modules that do not serve yet) makes it go again, by the table of that moment.
 */
#include <stdlib.h>
#include <string.h>

#include "common/crc.h"
#include "services/vbs/volume_internal.h"

#define BACKOFF_MIN_NS   (1 * NS_PER_MS)
#define BACKOFF_MAX_NS   (500 * NS_PER_MS)
#define CRC_FAILURES_MAX 3u

static const uint16_t part_methods[] = {
    [VOLUME_READ] = BLOCK_METHOD_READ,
    [VOLUME_WRITE] = BLOCK_METHOD_WRITE,
    [VOLUME_DISCARD] = BLOCK_METHOD_DISCARD,
    [VOLUME_ZERO] = BLOCK_METHOD_ZERO,
    [VOLUME_FLUSH] = 0,
    [VOLUME_EXTENTS] = BLOCK_METHOD_EXTENTS,
};

static void on_part_done(struct rpc_call *call, const struct rpc_result *result);

static void part_trace(struct part *p, const char *what, uint64_t a)
{
    struct env *env = p->volume->core->env;
    trace_point(env->trace, loop_now_ns(env->loop), what, p->offset, p->route.module, a);
}

static bool part_changes(const struct part *p)
{
    return p->op == VOLUME_WRITE || p->op == VOLUME_DISCARD || p->op == VOLUME_ZERO;
}

void part_unlink(struct part *p)
{
    MUST(p->state != PART_SENT);
    list_remove(&p->link);
    loop_timer_cancel(p->volume->core->env->loop, &p->timer);
    p->ml = NULL;
}

void part_free(struct volume_core *core, struct part *p)
{
    MUST(list_unlinked(&p->link) && list_unlinked(&p->req_link));
    if (p->copy_mem != NULL)
        fabric_mem_unregister(p->copy_mem);
    free(p->copy);
    p->copy = NULL;
    p->copy_mem = NULL;
    p->state = PART_FREE;
    pool_put(core->parts, p);
}

static void on_backoff(struct loop_timer *t)
{
    struct part *p = container_of(t, struct part, timer);
    list_remove(&p->link);
    if (p->fail_rc != 0)
        request_part_ended(p, p->fail_rc);
    else
        part_go(p);
}

static void part_wait(struct part *p, uint64_t delay_ns)
{
    struct volume_core *core = p->volume->core;
    p->state = PART_BACKOFF;
    p->ml = NULL;
    list_push_back(&core->backoff, &p->link);
    p->timer.fn = on_backoff;
    loop_timer_arm(core->env->loop, &p->timer, delay_ns);
}

/* Again, later: the more attempts the later. */
static void part_backoff(struct part *p)
{
    struct volume_core *core = p->volume->core;
    uint64_t delay_ns = BACKOFF_MAX_NS;
    if (p->attempts < 10)
        delay_ns = min_u64(BACKOFF_MIN_NS << p->attempts, BACKOFF_MAX_NS);
    core->counters.retries++;
    part_wait(p, core_jitter(core, delay_ns));
}

void part_fail_later(struct part *p, int rc)
{
    p->fail_rc = rc;
    part_wait(p, 0);
}

static const struct table_module *part_find(const struct part *p, struct part_route *out,
                                            const struct table_partition **partition)
{
    const struct table *table = cluster_table(p->volume->core->cluster);
    const struct table_volume *record = table != NULL ? table_volume_by_id(table, &p->volume->info.id) : NULL;
    const struct table_module *module =
        record != NULL ? table_route(table, record, p->offset, partition) : NULL;
    if (module == NULL)
        return NULL;
    *out = (struct part_route){
        .module = module->id,
        .pool = (*partition)->pool,
        .partition = (*partition)->index,
        .incarnation = module->incarnation,
        .epoch = (*partition)->epoch,
    };
    return module;
}

static bool route_eq(const struct part_route *a, const struct part_route *b)
{
    return a->module == b->module && a->pool == b->pool && a->partition == b->partition &&
           a->incarnation == b->incarnation && a->epoch == b->epoch;
}

static uint32_t part_crc(const struct part *p)
{
    uint32_t crc = 0;
    for (unsigned i = 0; i < p->sge_count; i++)
        crc = crc32c_extend(crc, p->sge[i].base, p->sge[i].len);
    return crc;
}

static void part_fill_call(struct part *p)
{
    struct rpc_call *call = &p->call;
    memset(call, 0, sizeof *call);
    call->method = part_methods[p->op];
    call->done = on_part_done;
    if (p->op == VOLUME_WRITE) {
        if (!p->source_crc_known)
            p->source_crc = part_crc(p);
        p->source_crc_known = true;
        call->source = p->sge;
        call->source_count = p->sge_count;
        call->source_crc = p->source_crc;
    } else if (p->op == VOLUME_READ) {
        call->sink = p->sge;
        call->sink_count = p->sge_count;
    }
}

static void part_send(struct part *p, struct module_link *ml)
{
    struct volume *v = p->volume;
    struct block_request body = {
        .pool = p->route.pool,
        .partition = p->route.partition,
        .epoch = p->route.epoch,
        .incarnation = p->route.incarnation,
        .volume = v->info.id,
        .generation = v->generation,
        .turn = part_changes(p) ? v->turn : 0,
        .host = v->host_id,
        .offset = p->offset,
        .length = p->length,
    };
    p->generation = v->generation;
    p->turn = v->turn;
    part_fill_call(p);
    p->call.body = &body;
    p->call.body_len = sizeof body;
    int rc = rpc_call_start(ml->peer, &p->call);
    if (rc == -EINVAL) {
        part_fail_later(p, rc);
        return;
    }
    if (rc != 0) {
        part_backoff(p);
        return;
    }
    p->state = PART_SENT;
    p->ml = ml;
    ml->calls++;
    list_push_back(&ml->sent, &p->link);
}

void part_go(struct part *p)
{
    struct volume *v = p->volume;
    struct volume_core *core = v->core;
    const struct table_partition *partition = NULL;
    if (v->lost_rc != 0) {
        part_fail_later(p, v->lost_rc);
        return;
    }
    if (p->offset + p->length > v->info.size_bytes) {
        part_fail_later(p, -ERANGE); /* shrunk meanwhile */
        return;
    }
    const struct table_module *module = part_find(p, &p->route, &partition);
    if (module == NULL) {
        p->state = PART_PARKED;
        list_push_back(&core->parked, &p->link);
        part_trace(p, "part parked", 0);
        return;
    }
    struct module_link *ml = link_get(core, module->id);
    if (ml == NULL) {
        part_backoff(p);
        return;
    }
    if (ml->state == LINK_READY) {
        part_send(p, ml);
        return;
    }
    p->state = PART_LINK;
    p->ml = ml;
    list_push_back(&ml->waiting, &p->link);
    link_want(ml);
}

void part_retry_lost(struct part *p)
{
    struct volume_core *core = p->volume->core;
    core->counters.retries++;
    p->attempts++;
    part_go(p);
}

/* ---- answers ---- */

/* The module saw other bytes than were summed up here: the user's page changes under way. A copy does not. */
static void part_copy(struct part *p)
{
    struct volume_core *core = p->volume->core;
    core->counters.crc_errors++;
    if (p->copy == NULL && posix_memalign(&p->copy, UNIT_BYTES, round_up(p->length, UNIT_BYTES)) == 0) {
        struct fabric *f = core->env->fabric;
        if (fabric_mem_register(f, FABRIC_DOMAIN_HOST, p->copy, round_up(p->length, UNIT_BYTES),
                                FABRIC_ACCESS_LOCAL, &p->copy_mem) != 0) {
            free(p->copy);
            p->copy = NULL;
        }
    } else if (p->copy != NULL) {
        part_backoff(p); /* the copy was refused too: not the page, then */
        return;
    }
    if (p->copy == NULL) {
        part_backoff(p);
        return;
    }
    size_t at = 0;
    for (unsigned i = 0; i < p->sge_count; i++) {
        memcpy((char *)p->copy + at, p->sge[i].base, p->sge[i].len);
        at += p->sge[i].len;
    }
    p->sge[0] = (struct fabric_sge){.base = p->copy, .len = p->length, .mem = p->copy_mem};
    p->sge_count = 1;
    p->source_crc_known = false;
    part_go(p);
}

static void part_read_done(struct part *p, const struct rpc_result *result, const struct block_reply *reply)
{
    struct volume_core *core = p->volume->core;
    if (reply->holes != 0) {
        for (unsigned i = 0; i < p->sge_count; i++)
            memset(p->sge[i].base, 0, p->sge[i].len);
        request_part_ended(p, 0);
        return;
    }
    p->req->holes = false;
    if (result->payload_len == p->length &&
        (!core->config.verify_reads || part_crc(p) == result->payload_crc)) {
        request_part_ended(p, 0);
        return;
    }
    core->counters.crc_errors++;
    if (log_allow(core->env, &core->log))
        log_warn(core->env, "a read's payload does not match its checksum", "module=%u offset=%lu length=%u",
                 p->route.module, (unsigned long)p->offset, p->length);
    if (++p->crc_failures >= CRC_FAILURES_MAX)
        request_part_ended(p, -EIO);
    else
        part_go(p);
}

static void part_extents_done(struct part *p, const struct rpc_result *result)
{
    const uint8_t *bits = (const uint8_t *)result->body + sizeof(struct block_reply);
    uint64_t first = p->offset / UNIT_BYTES, end = (p->offset + p->length + UNIT_BYTES - 1) / UNIT_BYTES;
    uint64_t base = p->req->offset / UNIT_BYTES;
    if (result->body_len < sizeof(struct block_reply) + (end - first + 7) / 8) {
        link_close(p->ml);
        part_backoff(p);
        return;
    }
    for (uint64_t i = first; i < end; i++) {
        if ((bits[(i - first) / 8] >> ((i - first) % 8) & 1) == 0)
            continue;
        uint8_t *byte = &p->req->bitmap[(i - base) / 8];
        *byte = (uint8_t)(*byte | 1u << ((i - base) % 8));
    }
    request_part_ended(p, 0);
}

static void part_answered(struct part *p, struct module_link *ml, const struct rpc_result *result)
{
    struct block_reply reply;
    if (result->body_len < sizeof reply) {
        if (log_allow(ml->core->env, &ml->log))
            log_warn(ml->core->env, "a module's reply is too short", "module=%u length=%u", ml->module,
                     result->body_len);
        link_close(ml);
        part_backoff(p);
        return;
    }
    memcpy(&reply, result->body, sizeof reply);
    if (p->op == VOLUME_READ)
        part_read_done(p, result, &reply);
    else if (p->op == VOLUME_EXTENTS)
        part_extents_done(p, result);
    else
        request_part_ended(p, 0);
}

/* Another generation than the one sent, or a volume that the module does not know: only the MDC's answer
 * counts. */
static void part_generation_stale(struct part *p)
{
    if (p->generation == p->volume->generation)
        volume_open_again(p->volume);
    part_backoff(p);
}

static void part_turn_stale(struct part *p)
{
    struct volume *v = p->volume;
    bool current = p->turn == v->turn;
    part_backoff(p);
    if (current)
        volume_turn_stale(v);
}

static void part_refused(struct part *p, uint32_t status)
{
    part_trace(p, "part refused", status);
    p->attempts++;
    switch (status) {
    case STATUS_STALE_EPOCH:
    case STATUS_NOT_SERVING:
    case STATUS_WRONG_INCARNATION:
        core_refresh(p->volume->core);
        part_backoff(p);
        return;
    case STATUS_RANGE: /* its table may be older than ours (a grow) or newer (a shrink); part_go looks at the
                          size again */
        core_refresh(p->volume->core);
        part_backoff(p);
        return;
    case STATUS_STALE_GENERATION:
    case STATUS_NOT_FOUND:
        part_generation_stale(p);
        return;
    case STATUS_STALE_TURN:
        part_turn_stale(p);
        return;
    case STATUS_BAD_CRC:
        if (p->op == VOLUME_WRITE)
            part_copy(p);
        else
            request_part_ended(p, -EIO);
        return;
    case STATUS_AGAIN:
    case STATUS_BUSY:
    case STATUS_NO_MEMORY:
    case STATUS_TIMEOUT:
    case STATUS_DISCONNECTED:
    case STATUS_CANCELED:
    case STATUS_NOT_LEADER:
        part_backoff(p);
        return;
    default:
        request_part_ended(p, status_to_errno(status));
        return;
    }
}

static void on_part_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct part *p = container_of(call, struct part, call);
    struct module_link *ml = p->ml;
    struct volume_core *core = ml->core;
    list_remove(&p->link);
    if (p->req == NULL) { /* given up: the answer is nobody's */
        part_free(core, p);
        link_call_ended(ml);
        requests_pump(core);
        return;
    }
    /* The call counts until the part has been dealt with: closing inside must not find the link idle already.
     */
    if (p->req->state == REQUEST_ENDING)
        request_part_ended(p, 0);
    else if (result->rc != 0)
        part_retry_lost(p);
    else if (result->status != STATUS_OK)
        part_refused(p, result->status);
    else
        part_answered(p, ml, result);
    link_call_ended(ml);
}

/* ---- changes of the world ---- */

static void parts_go(struct list *l)
{
    struct list go;
    list_init(&go);
    list_splice(&go, l);
    for (struct list *n; (n = list_pop_front(&go)) != NULL;)
        part_go(list_entry(n, struct part, link));
}

/* Moves parts of l with another route now to moved. */
static void parts_take_moved(struct list *l, struct list *moved)
{
    list_for_each_safe(n, l)
    {
        struct part *p = list_entry(n, struct part, link);
        struct part_route route;
        const struct table_partition *partition;
        if (p->fail_rc != 0)
            continue;
        if (part_find(p, &route, &partition) != NULL && route_eq(&route, &p->route))
            continue;
        part_unlink(p);
        list_push_back(moved, &p->link);
    }
}

bool parts_moved_from(const struct module_link *ml)
{
    list_for_each(n, &ml->sent)
    {
        const struct part *p = list_entry(n, struct part, link);
        struct part_route route;
        const struct table_partition *partition;
        if (p->req != NULL && part_find(p, &route, &partition) != NULL && route.module != ml->module)
            return true;
    }
    return false;
}

void parts_check_table(struct volume_core *core)
{
    struct list moved;
    list_init(&moved);
    list_for_each(n, &core->links) link_check_moved(list_entry(n, struct module_link, all));
    parts_take_moved(&core->backoff, &moved);
    list_for_each(n, &core->links) parts_take_moved(&list_entry(n, struct module_link, all)->waiting, &moved);
    list_splice(&moved, &core->parked);
    parts_go(&moved);
}

void parts_kick_volume(struct volume *v)
{
    struct list again;
    list_init(&again);
    list_for_each_safe(n, &v->core->backoff)
    {
        struct part *p = list_entry(n, struct part, link);
        if (p->volume != v || p->fail_rc != 0 || (p->generation == v->generation && p->turn == v->turn))
            continue;
        part_unlink(p);
        list_push_back(&again, &p->link);
    }
    parts_go(&again);
}
