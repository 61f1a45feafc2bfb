/*
 * rwm_scrub.c: looks after what nobody reads. The primary of a partition reads each of its blocks, in the
 * order of the block's writes, and has the members in sync read theirs: rot is repaired here (rwm_rot.c), and
 * a member that cannot read its block, or has another one under the same version, is sent the block. Slowly:
 * so many bytes a second.
 *
 * When a partition has been looked through is noted in its record, so that a start goes on where the one
 * before was.
 */
#include "services/rwm/rwm_scrub.h"

#include <endian.h>
#include <string.h>

#define TICK_NS      (50u * NS_PER_MS)
#define IDLE_TICK_NS (1u * NS_PER_S)
#define RETRY_NS     (1u * NS_PER_S)
#define BUSY         8u /* requests of clients under way: then a quarter of the rate is enough */
#define DOUBT_NS                                                                                             \
    (3u *                                                                                                    \
     NS_PER_S) /* what differs is looked at again: a volume may be on its way out, here later than there */

/* ---- the stamp of a partition ---- */
static uint64_t stamp_get(const struct rwm *m, uint32_t partition)
{
    const struct store_partition_record *rec = rwm_record(m, STORE_PARTITION, partition);
    uint64_t v;
    memcpy(&v, rec->reserved, sizeof(v));
    return le64toh(v);
}

/* What cannot be noted now is scrubbed again. */
static void stamp_set(struct rwm *m, uint32_t partition, uint64_t wall_ns)
{
    struct store_partition_record rec =
        *(const struct store_partition_record *)rwm_record(m, STORE_PARTITION, partition);
    uint64_t v = htole64(wall_ns);
    if (rec.pool != m->pool_id || rec.partition != partition)
        return;
    memcpy(rec.reserved, &v, sizeof(v));
    (void)store_record_set(m->store, NULL, STORE_PARTITION, partition, &rec);
}

/* Everything from before that is to be looked at; 0: nothing. */
static uint64_t due_before(const struct rwm *m)
{
    const struct rwm_scrub *s = &m->scrub;
    uint64_t now = loop_wall_ns(m->env->loop);
    uint64_t by_time = m->config.scrub_interval_ns != 0 && now > m->config.scrub_interval_ns
                           ? now - m->config.scrub_interval_ns
                           : 0;
    return s->stopped ? 0 : max_u64(s->since_ns, by_time);
}

static bool part_due(struct rwm *m, uint32_t i, uint64_t before)
{
    const struct rwm_copies *c = m->parts[i].copies;
    if (!m->parts[i].primary || (c && c->state != COPIES_SERVING))
        return false;
    uint64_t stamp = stamp_get(m, i);
    if (stamp == 0 && m->scrub.since_ns == 0) {
        if (m->config.scrub_interval_ns == 0)
            return false;
        stamp_set(m, i, loop_wall_ns(m->env->loop)); /* new here */
        return false;
    }
    return stamp < before;
}

/* ---- one block ---- */
static void job_end(struct rwm_scrub_job *j, bool ok)
{
    struct rwm *m = j->m;
    if (j->piece)
        rwm_piece_put(m->area, j->piece);
    j->piece = NULL;
    j->busy = false;
    m->scrub.failed |= !ok;
    loop_timer_arm(m->env->loop, &m->scrub.timer, 0);
}

static void job_healed(struct rwm_send *send, uint32_t status)
{
    struct rwm_scrub_job *j = send->owner;
    if (status == STATUS_OK) {
        j->m->scrub.now.repaired += j->bad_units;
        j->m->stats.repaired_units += j->bad_units;
    }
    if (--j->out == 0)
        job_end(j, true);
}

/* The block was read once more, in its order: for the members that lack it. */
static void job_resend(struct rwm_piece *p, uint32_t status)
{
    struct rwm_scrub_job *j = p->owner;
    struct rwm_copies *c = rwm_copies_of(j->m, p->partition);
    struct copy_replace body = {.key = {p->op.key.layer, p->op.key.block, p->op.key.hash},
                                .version = p->op.found,
                                .written = p->op.written,
                                .lost = p->rotten};
    j->out = 1;
    if (status == STATUS_OK && c->state == COPIES_SERVING) {
        body.head = rwm_copies_head(c);
        body.committed = rwm_forward_committed(c);
        rwm_each_copy(k, c)
        {
            bool ill = false;
            for (unsigned i = 0; i < j->ill_count; i++)
                ill |= j->ill[i] == k->module;
            if (ill && k->in_sync && k->joined &&
                rwm_send_block(k->peer, &body, p, p->op.found_crcs, job_healed, j) == 0)
                j->out++;
        }
    }
    if (--j->out == 0)
        job_end(j, status == STATUS_OK);
}

static bool job_read_piece(struct rwm_scrub_job *j, void (*done)(struct rwm_piece *p, uint32_t status))
{
    struct rwm *m = j->m;
    struct rwm_piece *p = rwm_piece_get_repair(m);
    if (!p)
        return false;
    j->piece = p;
    p->kind = RWM_PIECE_COPY;
    p->heals = true;
    p->partition = m->scrub.partition;
    p->op.key = j->key;
    p->owner = j;
    p->done = done;
    rwm_block_add(m, p);
    return true;
}

/* True: k has another block than this module has. */
static bool differs(struct rwm_scrub_job *j, const struct copy_check_reply *r)
{
    int cmp = version_cmp(r->version, j->version);
    if (cmp == 0 && r->written == j->written) {
        bool other = false;
        uint32_t both = j->written & ~(j->rotten | r->rotten);
        for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++)
            other |= (both >> u & 1u) && r->crc[u] != j->crc[u];
        if (!other)
            return false;
    }
    return true;
}

static void check_take(struct rwm_scrub_job *j, const struct rwm_copy *k, const struct copy_check_reply *r)
{
    struct rwm *m = j->m;
    unsigned rotten = (unsigned)__builtin_popcount(r->rotten & r->written);
    bool other = differs(j, r);
    if (other && !j->doubted) {
        j->doubted = j->again = true;
        j->after_ns = loop_now_ns(m->env->loop) + DOUBT_NS;
        return;
    }
    m->scrub.now.rotten += rotten;
    j->bad_units += rotten;
    if (other) {
        m->scrub.now.differing++;
        m->stats.differing_blocks++;
        if (log_allow(m->env, &m->log_limit))
            log_error(m->env, "copies in sync differ",
                      "module=%u peer=%u partition=%u layer=%lu block=%lu version=%lu.%lu there=%lu.%lu",
                      m->id, k->module, m->scrub.partition, (unsigned long)j->key.layer,
                      (unsigned long)j->key.block, (unsigned long)j->version.epoch,
                      (unsigned long)j->version.counter, (unsigned long)r->version.epoch,
                      (unsigned long)r->version.counter);
    }
    /* A later version there than the committed one here: nobody but an operator can tell what that is. */
    if ((other && (j->version.epoch == 0 || version_cmp(r->version, j->version) <= 0)) ||
        (!other && rotten > 0))
        j->ill[j->ill_count++] = k->module;
}

static void check_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct rwm_scrub_check *q = container_of(call, struct rwm_scrub_check, call);
    struct rwm_scrub_job *j = q->job;
    struct rwm *m = j->m;
    struct rwm_copy *k = q->copy;
    struct copy_check_reply reply;
    k->held--;
    rwm_peer_call_ended(k->peer);
    if (result->rc == 0 && result->status == STATUS_OK && result->body_len >= sizeof(reply)) {
        memcpy(&reply, result->body, sizeof(reply));
        check_take(j, k, &reply);
    } else if (result->rc == 0 && result->status == STATUS_DAMAGED) {
        m->scrub.now.rotten += (unsigned)__builtin_popcount(j->written);
        j->ill[j->ill_count++] = k->module;
    } else {
        m->scrub.failed = true;
    }
    if (--j->out > 0)
        return;
    if (j->ill_count == 0 || j->again)
        job_end(j, true);
    else if (!job_read_piece(j, job_resend))
        job_end(j, false);
}

static void job_check(struct rwm_scrub_job *j, struct rwm_copies *c)
{
    j->out = 1;
    j->ill_count = 0;
    unsigned n = 0;
    rwm_each_copy(k, c)
    {
        if (!k->in_sync || n == TABLE_MEMBERS_MAX)
            continue;
        struct rwm_scrub_check *q = &j->check[n++];
        q->job = j;
        q->copy = k;
        q->body =
            (struct copy_fetch){.head = rwm_copies_head(c), .key = {j->key.layer, j->key.block, j->key.hash}};
        q->call = (struct rpc_call){
            .method = COPY_METHOD_CHECK, .body = &q->body, .body_len = sizeof(q->body), .done = check_done};
        if (k->joined && rwm_peer_call(k->peer, &q->call) == 0) {
            j->out++;
            k->held++;
        } else {
            j->m->scrub.failed = true;
        }
    }
    if (--j->out == 0)
        job_end(j, true);
}

/* The members are asked before anything later is sent to them, so they answer for this version; but one that
 * is under way may not have been sent to all. */
static void job_read(struct rwm_piece *p, uint32_t status)
{
    struct rwm_scrub_job *j = p->owner;
    struct rwm *m = j->m;
    struct rwm_scrub *s = &m->scrub;
    struct rwm_copies *c = rwm_copies_of(m, p->partition);
    bool moving = !list_empty(&p->block->flight);
    if (status != STATUS_OK && status != STATUS_DAMAGED) {
        job_end(j, false);
        return;
    }
    if (moving) {
        j->again = true;
        j->after_ns = loop_now_ns(m->env->loop) + TICK_NS;
        job_end(j, true);
        return;
    }
    unsigned bad = (unsigned)__builtin_popcount(p->bad), lost = (unsigned)__builtin_popcount(p->rotten);
    unsigned units = (unsigned)__builtin_popcount(p->op.written);
    s->now.checked_blocks++;
    s->now.checked_bytes += (uint64_t)units * UNIT_BYTES;
    s->tokens -= (int64_t)(max_u64(units, 1) * UNIT_BYTES);
    s->now.rotten += bad;
    s->now.repaired += bad - lost;
    s->now.lost += lost + (status == STATUS_DAMAGED);
    if (status != STATUS_OK || !c || c->in_sync == 0) {
        job_end(j, true);
        return;
    }
    j->version = p->op.found;
    j->written = p->op.written;
    j->rotten = p->rotten;
    j->bad_units = 0;
    memcpy(j->crc, p->op.found_crcs, sizeof(j->crc));
    rwm_piece_put(m->area, p);
    j->piece = NULL;
    job_check(j, c);
}

/* ---- the blocks of a partition ---- */
static void walked(struct rwm_walk *w)
{
    struct rwm *m = w->m;
    m->scrub.walked = true;
    loop_timer_arm(m->env->loop, &m->scrub.timer, 0);
}

/* False: not now. */
static bool part_begin(struct rwm *m, uint32_t i)
{
    struct rwm_scrub *s = &m->scrub;
    struct rwm_copies *c = m->parts[i].copies;
    struct rwm_copy *who[RWM_WALK_MEMBERS];
    unsigned count = 0;
    s->walk = NULL;
    s->cursor = 0;
    s->key_count = s->key_next = 0;
    s->listed = s->walked = s->failed = false;
    if (c) {
        rwm_each_copy(k, c)
        {
            if (!k->in_sync)
                continue;
            if (!k->joined || !k->peer || k->peer->state != PEER_UP || count + 1 == RWM_WALK_MEMBERS)
                return false;
            who[count++] = k;
        }
        s->walk = rwm_walk_start(c, who, count, true, walked, NULL);
        if (!s->walk)
            return false;
    }
    s->partition = i;
    s->active = true;
    return true;
}

/* Nothing there, and not of a volume that is: it is being removed, here sooner than there. */
static bool going(const struct rwm *m, const struct store_key *key)
{
    if (rwm_remove_matches(m, key))
        return true;
    for (uint32_t i = 0; i < m->volume_capacity; i++) {
        const struct rwm_volume *v = &m->volumes[i];
        if (!uuid_is_zero(&v->id) && v->in_force && v->layer == key->layer)
            return v->state == TABLE_VOLUME_DELETING ||
                   key->block >= (v->size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
    }
    return true;
}

/* False: no more. */
static bool next_key(struct rwm *m, struct store_key *out)
{
    struct rwm_scrub *s = &m->scrub;
    while (s->walk) {
        if (s->walk->next == s->walk->items)
            return false;
        const struct copy_key *k = &s->walk->item[s->walk->next++].key;
        *out = (struct store_key){k->layer, k->block, k->hash};
        if (!going(m, out))
            return true;
    }
    if (s->key_next == s->key_count) {
        if (s->listed)
            return false;
        s->key_count = store_list(m->store, s->partition, &s->cursor, s->keys, RWM_SCRUB_KEYS);
        s->key_next = 0;
        s->listed = s->cursor == 0;
    }
    if (s->key_next == s->key_count)
        return false;
    *out = s->keys[s->key_next++];
    return true;
}

static bool jobs_busy(const struct rwm_scrub *s)
{
    for (unsigned i = 0; i < RWM_SCRUB_JOBS; i++)
        if (s->job[i].busy)
            return true;
    return false;
}

static void part_end(struct rwm *m, bool well)
{
    struct rwm_scrub *s = &m->scrub;
    if (s->walk)
        rwm_walk_stop(s->walk);
    s->walk = NULL;
    s->active = false;
    if (well)
        stamp_set(m, s->partition, max_u64(loop_wall_ns(m->env->loop), s->since_ns));
    else
        s->retry_ns = loop_now_ns(m->env->loop) + RETRY_NS;
    s->partition++;
}

static void part_step(struct rwm *m)
{
    struct rwm_scrub *s = &m->scrub;
    const struct rwm_copies *c = rwm_copies_of(m, s->partition);
    bool serves =
        s->partition < m->part_count && m->parts[s->partition].primary && (!c || c->state == COPIES_SERVING);
    bool over = !serves || s->stopped || s->failed || (s->walk && s->walk->failed);
    if (s->walk && !s->walked && !over)
        return;
    bool more = !over;
    for (unsigned i = 0; i < RWM_SCRUB_JOBS && !over && s->tokens > 0; i++) {
        struct rwm_scrub_job *j = &s->job[i];
        if (j->busy || (j->again && loop_now_ns(m->env->loop) < j->after_ns))
            continue;
        if (!j->again) {
            more = more && next_key(m, &j->key);
            j->doubted = false;
            if (!more)
                continue;
        }
        j->m = m;
        j->busy = job_read_piece(j, job_read);
        j->again = !j->busy;
    }
    bool again = false;
    for (unsigned i = 0; i < RWM_SCRUB_JOBS; i++)
        again |= s->job[i].again;
    if (jobs_busy(s) || (!over && (more || again)))
        return;
    for (unsigned i = 0; i < RWM_SCRUB_JOBS; i++)
        s->job[i].again = false;
    part_end(m, !over);
}

/* ---- the pass ---- */
static void pass_count(struct rwm *m, uint64_t before)
{
    struct rwm_scrub *s = &m->scrub;
    s->now.parts_left = 0;
    for (uint32_t i = 0; i < m->part_count; i++)
        s->now.parts_left += part_due(m, i, before);
    if (s->now.parts_left == 0 && s->now.running) {
        s->now.running = false;
        s->now.ended_ns = loop_wall_ns(m->env->loop);
        log_info(m->env, "scrub ended",
                 "module=%u blocks=%lu bytes=%lu rotten_units=%lu repaired=%lu lost=%lu differing=%lu", m->id,
                 (unsigned long)s->now.checked_blocks, (unsigned long)s->now.checked_bytes,
                 (unsigned long)s->now.rotten, (unsigned long)s->now.repaired, (unsigned long)s->now.lost,
                 (unsigned long)s->now.differing);
    } else if (s->now.parts_left > 0 && !s->now.running) {
        s->now = (struct rwm_scrub_stats){.running = true,
                                          .parts_left = s->now.parts_left,
                                          .parts = s->now.parts_left,
                                          .began_ns = loop_wall_ns(m->env->loop)};
        s->tokens = 0;
        log_info(m->env, "scrub begins", "module=%u partitions=%u", m->id, s->now.parts);
    }
    s->now.parts = s->now.parts < s->now.parts_left ? s->now.parts_left : s->now.parts;
}

static void scrub_step(struct rwm *m)
{
    struct rwm_scrub *s = &m->scrub;
    if (s->active) {
        part_step(m);
        return;
    }
    uint64_t before = due_before(m);
    pass_count(m, before);
    if (!s->now.running || loop_now_ns(m->env->loop) < s->retry_ns)
        return;
    for (uint32_t n = 0; n < m->part_count; n++) {
        uint32_t i = (s->partition + n) % m->part_count;
        if (part_due(m, i, before) && part_begin(m, i)) {
            part_step(m);
            return;
        }
    }
    s->retry_ns = loop_now_ns(m->env->loop) + RETRY_NS;
}

static void scrub_tick(struct loop_timer *timer)
{
    struct rwm *m = container_of(timer, struct rwm, scrub.timer);
    struct rwm_scrub *s = &m->scrub;
    uint64_t now = loop_now_ns(m->env->loop),
             rate = m->config.scrub_rate ? m->config.scrub_rate : RWM_SCRUB_RATE;
    if (m->state != RWM_RUNNING || m->broken)
        return;
    if (m->active > BUSY)
        rate /= 4;
    uint64_t us = min_u64(now - s->filled_ns, NS_PER_S) / NS_PER_US;
    int64_t most = (int64_t)max_u64(rate / 4, BLOCK_BYTES);
    s->tokens += (int64_t)(rate * us / 1000000u);
    s->tokens = s->tokens > most ? most : s->tokens;
    s->filled_ns = now;
    rwm_rot_step(m); /* without other members nothing else does */
    scrub_step(m);
    if (!loop_timer_armed(timer))
        loop_timer_arm(m->env->loop, timer, s->now.running ? TICK_NS : IDLE_TICK_NS);
}

/* ---- life ---- */
void rwm_scrub_init(struct rwm *m)
{
    loop_timer_init(&m->scrub.timer, scrub_tick);
}

void rwm_scrub_start(struct rwm *m)
{
    loop_timer_arm(m->env->loop, &m->scrub.timer, IDLE_TICK_NS);
}

void rwm_scrub_order(struct rwm *m, uint64_t order)
{
    struct rwm_scrub *s = &m->scrub;
    if (order == 0)
        return;
    s->stopped = order == MDC_SCRUB_STOP;
    s->since_ns = s->stopped ? 0 : max_u64(s->since_ns, order);
}

void rwm_scrub_stop(struct rwm *m)
{
    loop_timer_cancel(m->env->loop, &m->scrub.timer);
}
