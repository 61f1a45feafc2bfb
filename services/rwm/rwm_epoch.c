/*
 * rwm_epoch.c: a new epoch of a partition. A primary that goes on as one keeps what is under way; a new one
 * joins the in-sync members, waits out what it promised itself, makes them equal, and then serves.
 */
#include "services/rwm/rwm_copies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN_TIMEOUT_NS (4u * NS_PER_S)

struct rwm_copies *rwm_copies_of(const struct rwm *m, uint32_t partition)
{
    return partition < m->part_count ? m->parts[partition].copies : NULL;
}

/* ---- requests of clients ---- */
uint32_t rwm_copies_gate(const struct rwm_copies *c, bool write)
{
    if (c->state != COPIES_SERVING)
        return STATUS_AGAIN;
    return write && c->in_sync + 1 < c->m->min_copies ? STATUS_AGAIN : STATUS_OK;
}

bool rwm_copies_may_answer(const struct rwm_copies *c)
{
    uint64_t clock = loop_clock_ns(c->m->env->loop);
    if (c->state != COPIES_SERVING)
        return false;
    for (unsigned i = 0; i < RWM_COPY_SLOTS; i++) {
        const struct rwm_copy *k = &c->copy[i];
        /* One that was reported as equal may be in sync, and another one's primary, by an epoch not heard of.
         */
        if (k->member && (k->in_sync || k->claimed) && (!k->joined || !rwm_peer_promised(k->peer, clock)))
            return false;
    }
    return true;
}

void rwm_copies_wake(struct rwm_copies *c)
{
    rwm_requests_again(c->m, &c->waiting);
}

/* ---- joining ---- */
static void join_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct rwm_copy *k = container_of(call, struct rwm_copy, join_call);
    struct rwm_copies *c = k->c;
    struct rwm *m = c->m;
    struct copy_join_reply reply;
    rwm_peer_call_ended(k->peer);
    rwm_copies_due(c);
    k->joining = false;
    uint64_t epoch = m->parts[c->partition].epoch;
    bool current = c->state != COPIES_MEMBER && k->join.head.epoch == epoch && k->member;
    if (result->rc != 0 || !current || k->peer->state != PEER_UP)
        return; /* the tick goes on */
    if (result->status != STATUS_OK || result->body_len < sizeof(reply)) {
        if (result->status == STATUS_STALE_EPOCH && m->cluster)
            cluster_refresh(m->cluster);
        return;
    }
    memcpy(&reply, result->body, sizeof(reply));
    k->peer->joined += !k->joined;
    k->joined = true;
    m->stats.joins++;
    k->whole = reply.flags & COPY_JOINED_WHOLE;
    if (c->state == COPIES_SERVING) {
        /* What it took of the writes under way, and has forgotten with its start, comes again. */
        k->owed = k->in_sync;
        k->owed_at = k->whole ? (struct version){0, 0} : c->given;
        rwm_forward_again(k);
    }
    rwm_tick_soon(m);
}

static void join_send(struct rwm_copy *k)
{
    struct rwm_copies *c = k->c;
    k->join = (struct copy_join){.head = rwm_copies_head(c)};
    k->join_call = (struct rpc_call){.method = COPY_METHOD_JOIN,
                                     .body = &k->join,
                                     .body_len = sizeof(k->join),
                                     .timeout_ns = JOIN_TIMEOUT_NS,
                                     .done = join_done};
    k->joining = rwm_peer_call(k->peer, &k->join_call) == 0;
}

void rwm_epoch_unjoin(struct rwm_copy *k)
{
    if (k->joined)
        k->peer->joined--;
    k->joined = k->lockstep = false;
    rwm_copies_due(k->c);
    rwm_catchup_stop(k);
    if (k->in_sync && k->c->state == COPIES_RECONCILE) {
        rwm_reconcile_stop(k->c);
        k->c->state = COPIES_JOINING;
    }
    if (k->c->state == COPIES_SERVING)
        rwm_forward_recheck(k->c); /* one in lockstep counts no more */
    rwm_tick_soon(k->c->m);
}

void rwm_epoch_peer_up(struct rwm_peer *peer)
{
    list_for_each(n, &peer->m->copies)
    {
        struct rwm_copies *c = list_entry(n, struct rwm_copies, link);
        bool here = false;
        rwm_each_copy(k, c) here |= k->peer == peer;
        if (here && c->state != COPIES_MEMBER)
            rwm_copies_due(c);
    }
    rwm_tick_soon(peer->m);
}

void rwm_epoch_peer_down(struct rwm_peer *peer)
{
    list_for_each(n, &peer->m->copies)
    {
        struct rwm_copies *c = list_entry(n, struct rwm_copies, link);
        rwm_each_copy(k, c)
        {
            if (k->peer == peer)
                rwm_epoch_unjoin(k);
        }
    }
}

/* ---- serving ---- */
void rwm_epoch_serving(struct rwm_copies *c)
{
    struct rwm *m = c->m;
    c->state = COPIES_SERVING;
    c->whole = true;
    c->given =
        (struct version){.epoch = m->parts[c->partition].epoch, .counter = m->parts[c->partition].counter};
    rwm_recent_commit(c, c->given);
    rwm_recent_clear(c);
    rwm_each_copy(k, c)
    {
        k->owed = k->in_sync && k->joined;
        k->owed_at = (struct version){0, 0};
    }
    rwm_forward_tell(c);
    rwm_copies_wake(c);
    rwm_tick_soon(m);
}

static bool all_joined(const struct rwm_copies *c)
{
    for (unsigned i = 0; i < RWM_COPY_SLOTS; i++)
        if (c->copy[i].member && c->copy[i].in_sync && !c->copy[i].joined)
            return false;
    return true;
}

/*
 * Writes that were begun while this module was the only member: nobody else has them, nor are they in a list.
 * Nothing is compared before the store has them, or a comparison that came too early would miss them.
 */
static bool alone_writes(const struct rwm *m, uint32_t partition)
{
    list_for_each(n, &m->versioned)
    {
        const struct rwm_piece *p = list_entry(n, struct rwm_piece, versioned_link);
        if (p->partition == partition && !p->copied)
            return true;
    }
    return false;
}

bool rwm_leave_writes(const struct rwm *m, uint32_t partition)
{
    const struct rwm_copies *c = rwm_copies_of(m, partition);
    return alone_writes(m, partition) || (c && (c->storing != 0 || !list_empty(&c->flight)));
}

static bool own_store_ready(const struct rwm_copies *c)
{
    return c->storing == 0 && !alone_writes(c->m, c->partition) && !rwm_leave_busy(c->m, c->partition);
}

void rwm_epoch_step(struct rwm_copies *c)
{
    struct rwm *m = c->m;
    if (c->state == COPIES_MEMBER || (m->state != RWM_RUNNING && m->state != RWM_STOPPING))
        return;
    rwm_each_copy(k, c)
    {
        if (!k->peer)
            k->peer = rwm_peer_get(m, k->module);
        if (k->peer && k->peer->state == PEER_UP && !k->joined && !k->joining)
            join_send(k);
    }
    if (c->state == COPIES_JOINING && own_store_ready(c) && all_joined(c) &&
        loop_clock_ns(m->env->loop) >= rwm_copies_wait_until(c)) {
        if (c->in_sync == 0) {
            rwm_epoch_serving(c);
        } else if (m->reconciles < RWM_RECONCILES_MAX && rwm_reconcile_start(c) == 0) {
            c->state = COPIES_RECONCILE;
        }
    }
    if (c->state == COPIES_RECONCILE)
        rwm_reconcile_step(c);
    if (c->state == COPIES_SERVING) {
        rwm_forward_step(c);
        rwm_catchup_step(c);
        rwm_forward_tell(c);
    }
}

/* Nothing to be done before something happens. */
bool rwm_epoch_quiet(const struct rwm_copies *c)
{
    if (c->state == COPIES_MEMBER)
        return true;
    if (c->state != COPIES_SERVING || c->starved || !list_empty(&c->waiting))
        return false;
    struct version committed = rwm_forward_committed(c);
    for (unsigned i = 0; i < RWM_COPY_SLOTS; i++) {
        const struct rwm_copy *k = &c->copy[i];
        if (!k->member)
            continue;
        bool up = k->peer && k->peer->state == PEER_UP;
        bool rests = k->joined && k->in_sync && !k->owed && !k->unfit && version_cmp(k->told, committed) >= 0;
        if (!k->peer || (up ? !rests : k->in_sync || k->claimed))
            return false;
    }
    return true;
}

/* ---- a new epoch ---- */
static struct rwm_copies *copies_make(struct rwm *m, uint32_t partition)
{
    struct rwm_copies *c = rwm_recent_create(m) == 0 ? calloc(1, sizeof(*c)) : NULL;
    if (!c)
        return NULL;
    c->m = m;
    c->partition = partition;
    list_init(&c->flight);
    list_init(&c->waiting);
    list_init(&c->due_link);
    list_init(&c->recent);
    list_init(&c->changed);
    list_push_back(&m->copies, &c->link);
    m->parts[partition].copies = c;
    c->wait_until_ns = m->promise_grace_ns;
    return c;
}

/* A place stays its module's while calls of it are under way. */
static struct rwm_copy *copy_place(struct rwm_copies *c, uint32_t module)
{
    struct rwm_copy *spare = NULL;
    for (unsigned i = 0; i < RWM_COPY_SLOTS; i++) {
        struct rwm_copy *k = &c->copy[i];
        if (k->module == module)
            return k;
        if (!spare && !k->member && !k->joining && k->forwards == 0 && k->copying == 0 && k->held == 0)
            spare = k;
    }
    if (spare) {
        rwm_forward_forget(c, (unsigned)(spare - c->copy));
        *spare = (struct rwm_copy){.c = c, .module = module};
    }
    return spare;
}

static void members_set(struct rwm_copies *c, const uint32_t *members)
{
    for (unsigned i = 0; i < RWM_COPY_SLOTS; i++) {
        struct rwm_copy *k = &c->copy[i];
        rwm_catchup_stop(k);
        if (k->joined)
            k->peer->joined--;
        k->member = k->in_sync = k->lockstep = k->claimed = k->joined = k->whole = k->unfit = k->owed = false;
        k->reported_ns = 0;
        k->told = (struct version){0, 0};
    }
    c->count = c->in_sync = 0;
    c->unfit = false;
    c->unfit_reported_ns = 0;
    for (unsigned i = 0; i < TABLE_MEMBERS_MAX && members[i] != 0; i++) {
        uint32_t id = TABLE_MEMBER_ID(members[i]);
        struct rwm_copy *k = id == c->m->id ? NULL : copy_place(c, id);
        if (!k && id != c->m->id)
            rwm_fail(c->m, -EMFILE, "too many members of partition %u have calls under way: starting again",
                     c->partition);
        if (!k)
            continue;
        k->member = true;
        k->in_sync = members[i] & TABLE_MEMBER_IN_SYNC;
        c->count++;
        c->in_sync += k->in_sync;
    }
}

void rwm_epoch_resign(struct rwm_copies *c)
{
    if (c->state == COPIES_RECONCILE)
        rwm_reconcile_stop(c);
    bool served = c->state == COPIES_SERVING;
    c->state = COPIES_MEMBER;
    rwm_changed_clear(c);
    if (served)
        rwm_forward_give_up(c);
    rwm_copies_wake(c); /* to be refused */
}

/*
 * From here on nothing is answered under an earlier epoch (request_finish looks), so nobody has to wait until
 * what was promised for these runs out. A message that is lost costs time only.
 */
static void release_tell(struct rwm_copies *c)
{
    const struct copy_release body = {.head = rwm_copies_head(c)};
    rwm_each_copy(k, c)
    {
        if (k->peer && k->peer->state == PEER_UP)
            (void)rpc_notify(k->peer->rpc, COPY_METHOD_RELEASE, &body, sizeof(body));
    }
}

void rwm_epoch_force(struct rwm *m, uint32_t i)
{
    const struct store_partition_record *rec = rwm_record(m, STORE_PARTITION, i);
    struct rwm_copies *c = m->parts[i].copies;
    uint32_t primary = 0;
    bool self = false, self_in_sync = false, others = false;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX && rec->members[k] != 0; k++) {
        bool in_sync = rec->members[k] & TABLE_MEMBER_IN_SYNC;
        uint32_t id = TABLE_MEMBER_ID(rec->members[k]);
        self |= id == m->id;
        self_in_sync |= id == m->id && in_sync;
        others |= id != m->id;
        if (primary == 0 && in_sync)
            primary = id;
    }
    if (!c && !(self && others))
        return;
    c = c ? c : copies_make(m, i);
    if (!c) {
        rwm_fail(m, -ENOMEM, "no memory for the copies of a partition");
        return;
    }
    bool mine = self && primary == m->id, was_mine = c->state != COPIES_MEMBER;
    if (c->primary != 0 && c->primary != m->id && c->primary != primary)
        rwm_copies_wait_for(c, c->primary);
    if (c->joined_by != 0 && c->joined_by != primary)
        rwm_grant_outdated(m, c->joined_by);
    if (was_mine && !mine) {
        rwm_epoch_resign(c);
        release_tell(c); /* those of before */
    }
    if (c->state == COPIES_RECONCILE) {
        rwm_reconcile_stop(c);
        c->state = COPIES_JOINING;
    }
    members_set(c, rec->members);
    c->primary = primary;
    if (!self_in_sync)
        c->whole = false;
    if (mine && !was_mine)
        c->state = COPIES_JOINING;
    if (c->in_sync == c->count)
        rwm_changed_clear(c);
    if (c->state == COPIES_SERVING) {
        rwm_forward_recheck(c);
        rwm_copies_wake(c); /* whose promise a read waits for may not be asked any more */
    }
    rwm_serve_joins(m);
    rwm_copies_due(c);
    rwm_tick_soon(m);
}

void rwm_epoch_free(struct rwm_copies *c)
{
    if (c->state == COPIES_RECONCILE)
        rwm_reconcile_stop(c);
    for (unsigned i = 0; i < RWM_COPY_SLOTS; i++)
        rwm_catchup_stop(&c->copy[i]);
    rwm_recent_clear(c);
    rwm_changed_clear(c);
    while (list_pop_front(&c->waiting) != NULL) {
    }
    while (list_pop_front(&c->flight) != NULL) {
    }
    list_remove(&c->link);
    list_remove(&c->due_link);
    free(c);
}

static size_t explain_member(const struct rwm_copy *k, char *out, size_t cap)
{
    const char *what = "is behind";
    if (!k->peer || k->peer->state != PEER_UP)
        what = "cannot be reached";
    else if (!k->joined)
        what = "has not joined";
    else if (k->unfit)
        what = "could not apply a write";
    else if (k->in_sync)
        what = "is in sync";
    else if (k->lockstep)
        what = "is equal";
    return (size_t)snprintf(out, cap, ", module %u %s", k->module, what);
}

size_t rwm_explain(const struct rwm *m, char *out, size_t cap)
{
    static const char *const states[] = {"a member", "joining", "reconciling", "serving"};
    size_t n = 0;
    if (cap > 0)
        out[0] = 0;
    list_for_each(l, &m->copies)
    {
        struct rwm_copies *c = list_entry(l, struct rwm_copies, link);
        if (c->state == COPIES_MEMBER || (c->state == COPIES_SERVING && c->count == c->in_sync))
            continue;
        n += (size_t)snprintf(n < cap ? out + n : NULL, n < cap ? cap - n : 0, "partition %u is %s",
                              c->partition, states[c->state]);
        rwm_each_copy(k, c) n += explain_member(k, n < cap ? out + n : NULL, n < cap ? cap - n : 0);
        n += (size_t)snprintf(n < cap ? out + n : NULL, n < cap ? cap - n : 0, "; ");
    }
    return n;
}
