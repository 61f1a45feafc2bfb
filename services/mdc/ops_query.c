/* ops_query.c: what there is: sessions, and paged lists. A page's cursor is the place of its last item. */
#include "services/mdc/ops.h"

#include "rdma/fabric.h"

#include <stdlib.h>
#include <string.h>

/* ---- sessions ---- */

/* The session itself is made by serve.c, which knows the connection; table fields are filled after
 * publishing. */
uint32_t mdc_op_session(struct mdc_decision *d, const struct mdc_session_request *rq,
                        struct mdc_session_reply *rep)
{
    (void)mdc_op_seen(d->state, rq->term, 0);
    rep->cluster = d->state->cluster;
    rep->heartbeat_ms = d->state->heartbeat_ms;
    return STATUS_OK;
}

uint32_t mdc_op_gateway_heartbeat(struct mdc_decision *d, const struct mdc_gateway_heartbeat_request *rq,
                                  struct mdc_empty *rep)
{
    (void)rep;
    d->session->gateway = true;
    d->session->seen = *rq;
    d->session->heard_ns = d->now_ns;
    return STATUS_OK;
}

/* ---- pools ---- */

void mdc_pool_describe(struct mdc_state *s, const struct mdc_pool *p, struct mdc_pool_info *out)
{
    memset(out, 0, sizeof(*out));
    out->id = p->rec.id;
    memcpy(out->name, p->rec.name, sizeof(out->name));
    out->partitions = p->rec.partitions;
    out->stripe_bytes = p->rec.stripe_bytes;
    out->copies = p->rec.copies;
    out->min_copies = p->rec.min_copies != 0 ? p->rec.min_copies : 1;
    out->moves_joining = p->moving.joining;
    out->moves_waiting = p->moving.waiting;
    out->moves_leaving = p->moving.leaving;
    out->moves_stuck = p->moving.stuck;
    out->moves_missing = p->moving.missing;
    out->modules_away = p->moving.away;
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        const struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0 || m->rec.pool != p->rec.id)
            continue;
        out->modules++;
        out->capacity_bytes += m->capacity_bytes;
        out->used_bytes += m->used_bytes;
        if (!mdc_module_answers(m))
            continue;
        out->copies_missing += m->care.copies_missing;
        out->recover_blocks += m->care.recover_blocks;
        out->recover_done += m->care.recover_done;
        out->recover_rate += m->care.recover_rate;
    }
    for (uint32_t i = 0; i < s->volume_top; i++) {
        const struct record_volume *v = &s->volumes[i].rec;
        if (uuid_is_zero(&v->id) || v->pool != p->rec.id || v->state == TABLE_VOLUME_DELETING)
            continue;
        out->volumes++;
        out->provisioned_bytes += v->size_bytes;
    }
    for (uint32_t i = 0; i < p->rec.partitions; i++) {
        const struct record_partition *part = &s->partitions[p->rec.first_partition + i];
        const struct mdc_module *m = mdc_module_by_id(s, mdc_partition_primary(part));
        out->partitions_served +=
            m != NULL && mdc_module_answers(m) && mdc_settle_serves(s, p->rec.first_partition + i);
    }
}

uint32_t mdc_op_pool_list(struct mdc_decision *d, const struct mdc_list_request *rq,
                          struct mdc_pool_list_reply *rep)
{
    struct mdc_state *s = d->state;
    for (uint64_t i = rq->after; i < s->limits.pools; i++) {
        if (s->pools[i].rec.id == 0)
            continue;
        if (rep->count == ARRAY_LEN(rep->items)) {
            rep->next = rep->items[rep->count - 1].id;
            break;
        }
        mdc_pool_describe(s, &s->pools[i], &rep->items[rep->count++]);
    }
    return STATUS_OK;
}

/* ---- volumes, attachments ---- */

uint32_t mdc_op_volume_list(struct mdc_decision *d, const struct mdc_list_request *rq,
                            struct mdc_volume_list_reply *rep)
{
    struct mdc_state *s = d->state;
    uint64_t last = 0;
    const struct mdc_pool *pool = rq->name[0] != 0 ? mdc_pool_by_name(s, rq->name) : NULL;
    if (rq->name[0] != 0 && pool == NULL)
        return mdc_refuse(d, STATUS_NOT_FOUND,
                          "cannot list the volumes of pool \"%s\": there is no pool of that name", rq->name);
    for (uint64_t i = rq->after; i < s->volume_top; i++) {
        const struct mdc_volume *v = &s->volumes[i];
        if (uuid_is_zero(&v->rec.id) || (pool != NULL && v->rec.pool != pool->rec.id))
            continue;
        if (rep->count == ARRAY_LEN(rep->items)) {
            rep->next = last;
            break;
        }
        mdc_volume_describe(s, v, &rep->items[rep->count++]);
        last = i + 1;
    }
    return STATUS_OK;
}

static void attachment_describe(struct mdc_state *s, const struct mdc_attachment *a,
                                struct mdc_attachment_info *out)
{
    const struct mdc_volume *v = &s->volumes[a->volume];
    memset(out, 0, sizeof(*out));
    memcpy(out->volume, v->rec.name, sizeof(out->volume));
    memcpy(out->host, a->rec.host, sizeof(out->host));
    out->read_only = a->rec.read_only;
    out->shared = a->rec.shared;
    list_for_each(n, &v->opens)
    {
        out->opens += strcmp(list_entry(n, struct mdc_open, link)->host, a->rec.host) == 0;
    }
}

uint32_t mdc_op_attachment_list(struct mdc_decision *d, const struct mdc_list_request *rq,
                                struct mdc_attachment_list_reply *rep)
{
    struct mdc_state *s = d->state;
    uint64_t last = 0;
    const struct mdc_volume *v = rq->name[0] != 0 ? mdc_volume_by_name(s, rq->name) : NULL;
    if (rq->name[0] != 0 && v == NULL)
        return mdc_refuse(d, STATUS_NOT_FOUND,
                          "cannot list the attachments of volume \"%s\": there is no volume of that name",
                          rq->name);
    list_for_each(n, &s->attachments)
    {
        const struct mdc_attachment *a = list_entry(n, struct mdc_attachment, all_link);
        if (a->serial <= rq->after || (v != NULL && &s->volumes[a->volume] != v))
            continue;
        if (rep->count == ARRAY_LEN(rep->items)) {
            rep->next = last;
            break;
        }
        attachment_describe(s, a, &rep->items[rep->count++]);
        last = a->serial;
    }
    return STATUS_OK;
}

/* ---- modules, partitions ---- */

static uint8_t module_state(const struct mdc_module *m)
{
    if (m->damaged)
        return TABLE_MODULE_DAMAGED;
    return m->registered && !m->down ? TABLE_MODULE_UP : TABLE_MODULE_DOWN;
}

/* A member, and not in sync. */
static bool is_joining(const struct record_partition *p, uint32_t module)
{
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        if (TABLE_MEMBER_ID(p->members[k]) == module)
            return !(p->members[k] & TABLE_MEMBER_IN_SYNC);
    }
    return false;
}

void mdc_module_describe(struct mdc_state *s, const struct mdc_module *m, uint64_t now_ns,
                         struct mdc_module_info *out)
{
    memset(out, 0, sizeof(*out));
    out->id = m->rec.id;
    out->pool = m->rec.pool;
    memcpy(out->name, m->rec.name, sizeof(out->name));
    memcpy(out->host, m->rec.host, sizeof(out->host));
    memcpy(out->rack, m->rec.rack, sizeof(out->rack));
    if (m->rec.pool != 0)
        memcpy(out->pool_name, s->pools[m->rec.pool - 1].rec.name, sizeof(out->pool_name));
    out->kind = m->rec.kind;
    out->media = m->rec.media;
    out->state = module_state(m);
    memcpy(out->addr, m->rec.addr, sizeof(out->addr));
    out->incarnation = m->rec.incarnation;
    out->start_counter = m->rec.start_counter;
    out->capacity_bytes = m->capacity_bytes;
    out->used_bytes = m->used_bytes;
    out->partitions = m->partitions;
    out->silent_ms = (now_ns - m->heard_ns) / NS_PER_MS;
    out->damaged = m->damaged;
    out->reads = m->reads;
    out->writes = m->writes;
    out->read_bytes = m->read_bytes;
    out->write_bytes = m->write_bytes;
    out->errors = m->errors;
    out->weight_bytes = mdc_module_weight(m);
    out->weight_set = m->rec.weight_mib != 0;
    out->draining = m->rec.draining != 0;
    out->removing = m->rec.draining == RECORD_REMOVING;
    out->away = mdc_module_away(s, m, now_ns);
    out->leaving_blocks = m->leaving_blocks;
    const struct mdc_pool *pool = mdc_pool_by_id(s, m->rec.pool);
    for (uint32_t i = 0; pool != NULL && i < pool->rec.partitions; i++)
        out->joining += is_joining(&s->partitions[pool->rec.first_partition + i], m->rec.id);
    out->down = m->down;
    out->copies = pool != NULL ? pool->rec.copies : 0;
    out->damaged_ms = m->damaged ? (now_ns - m->damaged_ns) / NS_PER_MS : 0;
    out->care = m->care;
}

uint32_t mdc_op_module_list(struct mdc_decision *d, const struct mdc_list_request *rq,
                            struct mdc_module_list_reply *rep)
{
    struct mdc_state *s = d->state;
    const struct mdc_pool *pool = rq->name[0] != 0 ? mdc_pool_by_name(s, rq->name) : NULL;
    if (rq->name[0] != 0 && pool == NULL)
        return mdc_refuse(d, STATUS_NOT_FOUND,
                          "cannot list the modules of pool \"%s\": there is no pool of that name", rq->name);
    for (uint64_t i = rq->after; i < s->limits.modules; i++) {
        const struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0 || (pool != NULL && m->rec.pool != pool->rec.id))
            continue;
        if (rep->count == ARRAY_LEN(rep->items)) {
            rep->next = rep->items[rep->count - 1].id;
            break;
        }
        mdc_module_describe(s, m, d->now_ns, &rep->items[rep->count++]);
    }
    return STATUS_OK;
}

/* Seconds by the primary's present rate, which all that it brings up share. */
struct mdc_progress mdc_partition_progress(struct mdc_state *s, uint32_t index, uint32_t member)
{
    struct mdc_progress p = {0, 0, 0};
    const struct mdc_pool *pool = mdc_pool_by_id(s, s->partition_pool[index]);
    const struct mdc_module *m = mdc_module_by_id(s, mdc_partition_primary(&s->partitions[index]));
    if (pool == NULL || m == NULL || !mdc_module_answers(m))
        return p;
    for (uint32_t i = 0; i < m->recovery_count; i++) {
        const struct mdc_recovery *r = &m->recoveries[i];
        if (r->partition != index - pool->rec.first_partition || (member != 0 && r->member != member))
            continue;
        p.left += min_u64(r->left, UINT32_MAX);
        p.done += min_u64(r->done, UINT32_MAX);
    }
    if (m->care.recover_rate > 0 && p.left > 0)
        p.seconds = p.left * BLOCK_BYTES / m->care.recover_rate + 1;
    return p;
}

static void partition_describe(struct mdc_state *s, uint32_t index, struct mdc_partition_info *out)
{
    const struct record_partition *p = &s->partitions[index];
    memset(out, 0, sizeof(*out));
    out->pool = s->partition_pool[index];
    out->index = index - s->pools[out->pool - 1].rec.first_partition;
    out->primary = mdc_partition_primary(p);
    out->epoch = p->epoch;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX && p->members[k] != 0; k++) {
        out->in_sync = (uint8_t)(out->in_sync | (p->members[k] & TABLE_MEMBER_IN_SYNC ? 1u : 0u) << k);
        out->members[out->member_count++] = TABLE_MEMBER_ID(p->members[k]);
    }
    const struct mdc_progress progress = mdc_partition_progress(s, index, 0);
    out->recover_left = (uint32_t)min_u64(progress.left, UINT32_MAX);
    out->recover_done = (uint32_t)min_u64(progress.done, UINT32_MAX);
    out->recover_s = (uint32_t)min_u64(progress.seconds, UINT32_MAX);
    const struct mdc_module *m = mdc_module_by_id(s, out->primary);
    out->served = m != NULL && mdc_module_answers(m) && mdc_settle_serves(s, index);
}

uint32_t mdc_op_partition_list(struct mdc_decision *d, const struct mdc_list_request *rq,
                               struct mdc_partition_list_reply *rep)
{
    struct mdc_state *s = d->state;
    uint64_t last = 0;
    const struct mdc_pool *pool = rq->name[0] != 0 ? mdc_pool_by_name(s, rq->name) : NULL;
    if (rq->name[0] != 0 && pool == NULL)
        return mdc_refuse(d, STATUS_NOT_FOUND,
                          "cannot list the partitions of pool \"%s\": there is no pool of that name",
                          rq->name);
    for (uint64_t i = rq->after; i < s->limits.partitions; i++) {
        if (s->partition_pool[i] == 0 || (pool != NULL && s->partition_pool[i] != pool->rec.id))
            continue;
        if (rep->count == ARRAY_LEN(rep->items)) {
            rep->next = last;
            break;
        }
        partition_describe(s, (uint32_t)i, &rep->items[rep->count++]);
        last = i + 1;
    }
    return STATUS_OK;
}

/* ---- nodes: the hosts of modules, then those of gateways that have none ---- */

struct nodes {
    const char **hosts;
    uint32_t count, capacity;
};

static bool nodes_add(struct nodes *n, const char *host)
{
    for (uint32_t i = 0; i < n->count; i++) {
        if (strcmp(n->hosts[i], host) == 0)
            return true;
    }
    if (n->count == n->capacity)
        return false;
    n->hosts[n->count++] = host;
    return true;
}

/* hosts: malloc'ed array of names that live in the state. */
static int nodes_collect(struct mdc_state *s, struct nodes *n)
{
    memset(n, 0, sizeof(*n));
    n->capacity = s->limits.modules + s->session_count;
    n->hosts = calloc(n->capacity, sizeof(*n->hosts));
    if (n->hosts == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        if (s->modules[i].rec.id != 0)
            nodes_add(n, s->modules[i].rec.host);
    }
    list_for_each(l, &s->sessions)
    {
        const struct mdc_session *session = list_entry(l, struct mdc_session, link);
        if (session->gateway)
            nodes_add(n, session->host);
    }
    return 0;
}

static void node_describe(struct mdc_state *s, const char *host, struct mdc_node_info *out)
{
    memset(out, 0, sizeof(*out));
    memcpy(out->host, host, strlen(host) + 1);
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        const struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0 || strcmp(m->rec.host, host) != 0)
            continue;
        memcpy(out->rack, m->rec.rack, sizeof(out->rack));
        out->osds += m->rec.kind == TABLE_MODULE_OSD;
        out->san_modules += m->rec.kind == TABLE_MODULE_SAN;
        out->modules_up += mdc_module_serves(m);
        out->capacity_bytes += m->capacity_bytes;
        out->used_bytes += m->used_bytes;
    }
    list_for_each(l, &s->sessions)
    {
        const struct mdc_session *session = list_entry(l, struct mdc_session, link);
        if (!session->gateway || strcmp(session->host, host) != 0)
            continue;
        out->gateways++;
        out->clients += session->seen.clients;
    }
}

uint32_t mdc_op_node_list(struct mdc_decision *d, const struct mdc_list_request *rq,
                          struct mdc_node_list_reply *rep)
{
    struct nodes n;
    if (nodes_collect(d->state, &n) != 0)
        return mdc_refuse(d, STATUS_NO_MEMORY, "cannot list the nodes: out of memory");
    uint64_t i = rq->after;
    for (; i < n.count && rep->count < ARRAY_LEN(rep->items); i++)
        node_describe(d->state, n.hosts[i], &rep->items[rep->count++]);
    rep->next = i < n.count ? i : 0;
    free(n.hosts);
    return STATUS_OK;
}

/* ---- gateways, the whole ---- */

uint32_t mdc_op_gateway_list(struct mdc_decision *d, const struct mdc_list_request *rq,
                             struct mdc_gateway_list_reply *rep)
{
    uint64_t last = 0;
    list_for_each(l, &d->state->sessions)
    {
        const struct mdc_session *g = list_entry(l, struct mdc_session, link);
        if (!g->gateway || g->serial <= rq->after)
            continue;
        if (rep->count == ARRAY_LEN(rep->items)) {
            rep->next = last;
            break;
        }
        struct mdc_gateway_info *out = &rep->items[rep->count++];
        memcpy(out->name, g->name, sizeof(out->name));
        memcpy(out->host, g->host, sizeof(out->host));
        memcpy(out->addr, g->seen.addr, sizeof(out->addr));
        out->clients = g->seen.clients;
        out->volumes = g->seen.volumes;
        out->reads = g->seen.reads;
        out->writes = g->seen.writes;
        out->read_bytes = g->seen.read_bytes;
        out->write_bytes = g->seen.write_bytes;
        out->table_version = g->seen.table_version;
        out->silent_ms = (d->now_ns - g->heard_ns) / NS_PER_MS;
        last = g->serial;
    }
    return STATUS_OK;
}

/* Would what the partition holds be lost with one module? A damaged module's copy is no second one. */
static bool hangs_on_one(struct mdc_state *s, const struct record_partition *p)
{
    unsigned well = 0, damaged = 0;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX && p->members[k] != 0; k++) {
        const struct mdc_module *m = mdc_module_by_id(s, TABLE_MEMBER_ID(p->members[k]));
        if (m == NULL || !(p->members[k] & TABLE_MEMBER_IN_SYNC) || !mdc_module_answers(m))
            continue;
        well += !m->damaged;
        damaged += m->damaged;
    }
    return well == 1 || (well == 0 && damaged > 0);
}

static uint32_t count_single(struct mdc_state *s, const struct record_pool *pool)
{
    uint32_t n = 0;
    for (uint32_t i = 0; pool->copies > 1 && i < pool->partitions; i++)
        n += hangs_on_one(s, &s->partitions[pool->first_partition + i]);
    return n;
}

static void count_pools(struct mdc_state *s, struct mdc_cluster_status_reply *rep)
{
    for (uint32_t i = 0; i < s->limits.pools; i++) {
        if (s->pools[i].rec.id == 0)
            continue;
        struct mdc_pool_info info;
        mdc_pool_describe(s, &s->pools[i], &info);
        rep->pools++;
        rep->partitions += info.partitions;
        rep->partitions_served += info.partitions_served;
        rep->volumes += info.volumes;
        rep->moves += info.moves_joining + info.moves_waiting + info.moves_leaving;
        rep->partitions_single += count_single(s, &s->pools[i].rec);
    }
}

static void count_care(const struct mdc_care *c, struct mdc_cluster_status_reply *rep)
{
    rep->modules_near_full += c->full == 1;
    rep->modules_full += c->full == 2;
    rep->copies_missing += c->copies_missing;
    rep->recover_blocks += c->recover_blocks;
    rep->recover_rate += c->recover_rate;
    rep->lost += c->lost;
    rep->differing += c->differing;
    rep->scrubs += c->scrub_running;
}

uint32_t mdc_op_cluster_status(struct mdc_decision *d, const struct mdc_empty *rq,
                               struct mdc_cluster_status_reply *rep)
{
    (void)rq;
    struct mdc_state *s = d->state;
    struct nodes n;
    if (nodes_collect(s, &n) != 0)
        return mdc_refuse(d, STATUS_NO_MEMORY, "cannot tell the cluster's status: out of memory");
    rep->nodes = n.count;
    free(n.hosts);
    rep->cluster = s->cluster;
    rep->uptime_ms = (d->now_ns - s->started_ns) / NS_PER_MS;
    rep->replace_ms = s->moves.replace_ns / NS_PER_MS;
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        const struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0)
            continue;
        rep->modules++;
        rep->modules_up += mdc_module_serves(m);
        const bool idle = m->down && m->rec.pool == 0;
        rep->modules_idle += idle;
        rep->idle = idle ? m->rec.id : rep->idle;
        const bool damaged = m->damaged && !idle;
        rep->modules_damaged += damaged;
        rep->damaged = damaged ? m->rec.id : rep->damaged;
        rep->capacity_bytes += m->capacity_bytes;
        rep->used_bytes += m->used_bytes;
        if (mdc_module_answers(m))
            count_care(&m->care, rep);
    }
    count_pools(s, rep);
    rep->attachments = s->attachment_count;
    rep->sessions = s->session_count;
    list_for_each(l, &s->sessions)
    {
        rep->gateways += list_entry(l, struct mdc_session, link)->gateway;
    }
    rep->partitions_unsettled = s->unsettled;
    for (uint32_t i = 0; s->unsettled > 0 && rep->waits[0] == 0 && i < s->limits.partitions; i++)
        (void)mdc_settle_explain(s, i, rep->waits, sizeof(rep->waits));
    memcpy(rep->meta_store, s->meta_name, sizeof(rep->meta_store));
    return STATUS_OK;
}
