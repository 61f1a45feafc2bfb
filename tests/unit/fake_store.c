/* fake_store.c: see fake_store.h. */
#include "tests/unit/fake_store.h"

#include "common/crc.h"
#include "common/loop.h"
#include "common/rng.h"

#include <stdlib.h>
#include <string.h>

struct fake_op {
    struct list link;
    enum fake_kind kind;
    struct store_op *op;
    struct store_record_op *record_op;
    enum store_record_kind record_kind;
    uint32_t index;
    uint8_t image[128];
    void (*call)(void *arg, int rc);
    void *arg;
};
struct store {
    struct env *env;
    struct fake_medium *m;
    struct store_identity identity;
    struct list queue, waiters;
    struct loop_timer timer;
    struct store_partition_record partitions[FAKE_PARTITIONS];
    struct store_volume_record volumes[FAKE_VOLUMES];
    struct store_turn_record turns[FAKE_TURNS];
    bool broken;
    void (*opened)(void *, struct store *, const struct store_open_report *);
    void *opened_arg;
};
struct fake_medium *fake_medium_create(void)
{
    struct fake_medium *m = calloc(1, sizeof(*m));
    MUST(m != NULL);
    strcpy(m->device.name, "fake");
    memset(m->identity.store.b, 0x5a, 16);
    return m;
}

struct fake_block *fake_medium_block(struct fake_medium *m, uint64_t layer, uint64_t block)
{
    for (unsigned i = 0; i < FAKE_BLOCKS; i++)
        if (m->blocks[i].used && m->blocks[i].key.layer == layer && m->blocks[i].key.block == block)
            return &m->blocks[i];
    return NULL;
}

static struct fake_block *block_make(struct fake_medium *m, const struct store_key *key)
{
    struct fake_block *b = fake_medium_block(m, key->layer, key->block);
    for (unsigned i = 0; !b && i < FAKE_BLOCKS; i++) {
        if (m->blocks[i].used)
            continue;
        b = &m->blocks[i];
        memset(b, 0, sizeof(*b));
        b->used = true;
        b->key = *key;
    }
    MUST(b != NULL);
    MUST(b->key.hash == key->hash);
    return b;
}

static void *record_slot(struct store_partition_record *p, struct store_volume_record *v,
                         struct store_turn_record *t, enum store_record_kind kind, uint32_t index,
                         size_t *size)
{
    switch (kind) {
    case STORE_PARTITION:
        *size = sizeof(*p);
        return &p[index];
    case STORE_VOLUME:
        *size = sizeof(*v);
        return &v[index];
    default:
        *size = sizeof(*t);
        return &t[index];
    }
}

/* ---- ops end ---- */
static bool fault_hits(struct fake_fault *f, enum fake_kind kind)
{
    return f->nth > 0 && f->kind == kind && --f->nth == 0;
}

static void apply_replace(struct fake_medium *m, struct store_op *op)
{
    struct fake_block *b = block_make(m, &op->key);
    MUST(op->unit_count == UNITS_PER_BLOCK && op->written != 0 && (op->lost & ~op->written) == 0);
    b->version = op->version;
    b->written = op->written;
    b->rotten = op->lost;
    b->suspect = false;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        const uint8_t *from = (const uint8_t *)op->iov[0].iov_base + (size_t)u * UNIT_BYTES;
        if (!((op->written & ~op->lost) >> u & 1u))
            continue;
        MUST(crc32c(from, UNIT_BYTES) == op->unit_crcs[u]);
        memcpy(b->data + (size_t)u * UNIT_BYTES, from, UNIT_BYTES);
        b->crcs[u] = op->unit_crcs[u];
    }
    m->writes++;
}

static void apply_write(struct fake_medium *m, struct store_op *op)
{
    struct fake_block *b = block_make(m, &op->key);
    MUST(!b->suspect && version_cmp(op->version, b->version) > 0);
    b->version = op->version;
    const uint8_t *from = op->iov[0].iov_base;
    MUST(op->iovcnt == 1 && op->iov[0].iov_len == (size_t)op->unit_count * UNIT_BYTES);
    for (uint32_t i = 0; i < op->unit_count; i++) {
        uint32_t unit = op->first_unit + i;
        MUST(crc32c(from + (size_t)i * UNIT_BYTES, UNIT_BYTES) == op->unit_crcs[i]);
        memcpy(b->data + (size_t)unit * UNIT_BYTES, from + (size_t)i * UNIT_BYTES, UNIT_BYTES);
        b->crcs[unit] = op->unit_crcs[i];
        b->written |= 1u << unit;
        b->rotten &= ~(1u << unit);
    }
    m->writes++;
}

static void apply_clear(struct fake_medium *m, struct store_op *op)
{
    struct fake_block *b = block_make(m, &op->key);
    MUST(version_cmp(op->version, b->version) > 0);
    b->version = op->version;
    for (uint32_t i = 0; i < op->unit_count; i++) {
        uint32_t unit = op->first_unit + i;
        b->written &= ~(1u << unit);
        b->rotten &= ~(1u << unit);
        memset(b->data + (size_t)unit * UNIT_BYTES, 0, UNIT_BYTES);
    }
    b->used = b->written != 0 || !op->forget;
    m->clears++;
}

static int apply_read(struct fake_medium *m, struct store_op *op, bool data)
{
    const struct fake_block *b = fake_medium_block(m, op->key.layer, op->key.block);
    int rc = b && b->suspect ? -EBADMSG : 0;
    op->written = b && !rc ? b->written : 0;
    op->found = b && !rc ? b->version : (struct version){0, 0};
    if (!data || rc)
        return rc;
    m->reads++;
    for (uint32_t i = 0; i < op->unit_count; i++) {
        uint8_t *into = (uint8_t *)op->iov[0].iov_base + (size_t)i * UNIT_BYTES;
        memset(into, 0, UNIT_BYTES);
        if (b && b->written >> (op->first_unit + i) & 1u) {
            memcpy(into, b->data + (size_t)(op->first_unit + i) * UNIT_BYTES, UNIT_BYTES);
            op->found_crcs[op->first_unit + i] = b->crcs[op->first_unit + i];
            if (b->rotten >> (op->first_unit + i) & 1u) {
                memset(into, 0xbd, UNIT_BYTES);
                rc = -EBADMSG;
            }
        }
    }
    return rc;
}

static int op_apply(struct store *s, struct fake_op *f)
{
    struct fake_medium *m = s->m;
    switch (f->kind) {
    case FAKE_READ:
    case FAKE_STAT:
        return apply_read(m, f->op, f->kind == FAKE_READ);
    case FAKE_WRITE:
        if (f->op->replace)
            apply_replace(m, f->op);
        else
            apply_write(m, f->op);
        break;
    case FAKE_CLEAR:
        apply_clear(m, f->op);
        break;
    case FAKE_REMOVE: {
        struct fake_block *b = fake_medium_block(m, f->op->key.layer, f->op->key.block);
        if (b)
            b->used = false;
        m->removes++;
        break;
    }
    case FAKE_RECORD: {
        size_t size;
        void *slot = record_slot(m->partitions, m->volumes, m->turns, f->record_kind, f->index, &size);
        memcpy(slot, f->image, size);
        break;
    }
    case FAKE_CALL:
        m->identity = s->identity;
        break;
    }
    return 0;
}

static void queue_arm(struct store *s)
{
    uint64_t most = s->m->delay_ns ? s->m->delay_ns : 100 * NS_PER_US;
    if (!list_empty(&s->queue) && !loop_timer_armed(&s->timer))
        loop_timer_arm(s->env->loop, &s->timer, rng_below(s->env->rng, most));
}

static void queue_tick(struct loop_timer *t)
{
    struct store *s = container_of(t, struct store, timer);
    struct fake_medium *m = s->m;
    if (m->stand_still) {
        loop_timer_arm(s->env->loop, t, NS_PER_MS);
        return;
    }
    struct fake_op *f = list_entry(list_pop_front(&s->queue), struct fake_op, link);
    int rc = m->broken ? -EIO : m->fail_next;
    m->fail_next = 0;
    if (rc == 0 && fault_hits(&m->fail, f->kind))
        rc = m->fail.rc;
    s->broken = m->broken;
    if (rc == 0)
        rc = op_apply(s, f);
    queue_arm(s);
    struct list woken;
    list_init(&woken);
    list_splice(&woken, &s->waiters);
    struct fake_op end = *f;
    free(f);
    if (end.op)
        end.op->done(end.op, rc);
    else if (end.record_op)
        end.record_op->done(end.record_op, rc);
    else if (end.call)
        end.call(end.arg, rc);
    for (struct list *n = list_pop_front(&woken); n; n = list_pop_front(&woken)) {
        struct store_waiter *w = list_entry(n, struct store_waiter, link);
        w->fn(w);
    }
}

static struct fake_op *op_queue(struct store *s, enum fake_kind kind)
{
    struct fake_op *f = calloc(1, sizeof(*f));
    MUST(f != NULL);
    f->kind = kind;
    list_push_back(&s->queue, &f->link);
    queue_arm(s);
    return f;
}

static int submit_check(struct store *s)
{
    if (s->m->again) {
        s->m->again--;
        return -EAGAIN;
    }
    return s->broken ? -ENODEV : 0;
}

static int op_submit(struct store *s, struct store_op *op, enum fake_kind kind)
{
    int rc = submit_check(s);
    if (rc == 0 && fault_hits(&s->m->refuse, kind))
        rc = s->m->refuse.rc;
    if (rc)
        return rc;
    if (kind == FAKE_WRITE && s->m->full)
        return -ENOSPC;
    MUST(op->unit_count > 0 || kind == FAKE_REMOVE || kind == FAKE_STAT);
    MUST(op->first_unit + op->unit_count <= UNITS_PER_BLOCK);
    op_queue(s, kind)->op = op;
    return 0;
}

int store_write(struct store *s, struct store_op *op)
{
    return op_submit(s, op, FAKE_WRITE);
}
int store_clear(struct store *s, struct store_op *op)
{
    return op_submit(s, op, FAKE_CLEAR);
}
int store_read(struct store *s, struct store_op *op)
{
    MUST((uintptr_t)op->iov[0].iov_base % UNIT_BYTES == 0);
    return op_submit(s, op, FAKE_READ);
}
int store_stat(struct store *s, struct store_op *op)
{
    return op_submit(s, op, FAKE_STAT);
}
int store_probe(struct store *s, struct store_op *op)
{
    op->key = (struct store_key){0};
    return op_submit(s, op, FAKE_STAT);
}
bool store_may_be_taken(const struct store *s)
{
    return s->m->device.fence_state != DEVICE_FENCE_NONE;
}
int store_remove(struct store *s, struct store_op *op)
{
    return op_submit(s, op, FAKE_REMOVE);
}

void store_wait(struct store *s, struct store_waiter *w)
{
    list_push_back(&s->waiters, &w->link);
    struct fake_op *f = op_queue(s, FAKE_CALL); /* something will end */
    f->call = NULL;
}
void store_wait_cancel(struct store *s, struct store_waiter *w)
{
    (void)s;
    list_remove(&w->link);
}

/* ---- open, close ---- */
static void store_opened(struct loop_timer *t)
{
    struct store *s = container_of(t, struct store, timer);
    struct fake_medium *m = s->m;
    struct store_open_report report = {.rc = m->open_rc};
    void (*done)(void *, struct store *, const struct store_open_report *) = s->opened;
    void *arg = s->opened_arg;
    if (m->open_rc) {
        free(s);
        done(arg, NULL, &report);
        return;
    }
    loop_timer_init(&s->timer, queue_tick);
    m->identity.start_counter++;
    s->identity = m->identity;
    memcpy(s->partitions, m->partitions, sizeof(s->partitions));
    memcpy(s->volumes, m->volumes, sizeof(s->volumes));
    memcpy(s->turns, m->turns, sizeof(s->turns));
    done(arg, s, &report);
}

struct store *store_open(struct env *env, struct device *data, struct device *journal,
                         const struct store_options *options,
                         void (*done)(void *, struct store *, const struct store_open_report *), void *arg)
{
    struct store *s = calloc(1, sizeof(*s));
    (void)journal;
    (void)options;
    MUST(s != NULL);
    s->env = env;
    s->m = container_of(data, struct fake_medium, device);
    s->opened = done;
    s->opened_arg = arg;
    list_init(&s->queue);
    list_init(&s->waiters);
    loop_timer_init(&s->timer, store_opened);
    loop_timer_arm(env->loop, &s->timer, NS_PER_MS);
    return s;
}

void store_close(struct store *s, void (*done)(void *, int), void *arg)
{
    struct fake_op *f = op_queue(s, FAKE_CALL);
    f->call = done;
    f->arg = arg;
}

void store_destroy(struct store *s)
{
    loop_timer_cancel(s->env->loop, &s->timer);
    for (struct list *n = list_pop_front(&s->queue); n; n = list_pop_front(&s->queue))
        free(list_entry(n, struct fake_op, link));
    free(s);
}

const struct store_identity *store_identity(const struct store *s)
{
    return &s->identity;
}

int store_set_accepted(struct store *s, uint64_t incarnation, void (*done)(void *, int), void *arg)
{
    s->identity.accepted_start = s->identity.start_counter;
    s->identity.accepted_incarnation = incarnation;
    struct fake_op *f = op_queue(s, FAKE_CALL);
    f->call = done;
    f->arg = arg;
    return 0;
}

int store_set_identity(struct store *s, const struct uuid *cluster, uint32_t module, uint32_t bits,
                       void (*done)(void *, int), void *arg)
{
    if ((s->identity.module && s->identity.module != module) ||
        (!uuid_is_zero(&s->identity.cluster) && !uuid_eq(&s->identity.cluster, cluster)))
        return -EPERM;
    s->identity.cluster = *cluster;
    s->identity.module = module;
    s->identity.partition_bits = bits;
    struct fake_op *f = op_queue(s, FAKE_CALL);
    f->call = done;
    f->arg = arg;
    return 0;
}

/* ---- the rest ---- */
unsigned store_list(struct store *s, uint32_t partition, uint64_t *cursor, struct store_key *keys,
                    unsigned max)
{
    uint64_t mask = (1ull << s->identity.partition_bits) - 1;
    unsigned n = 0;
    uint64_t i = *cursor;
    for (; i < FAKE_BLOCKS && n < max; i++)
        if (s->m->blocks[i].used && (s->m->blocks[i].key.hash & mask) == partition)
            keys[n++] = s->m->blocks[i].key;
    *cursor = i < FAKE_BLOCKS ? i : 0;
    return n;
}

uint32_t store_record_capacity(const struct store *s, enum store_record_kind kind)
{
    (void)s;
    return kind == STORE_PARTITION ? FAKE_PARTITIONS : kind == STORE_VOLUME ? FAKE_VOLUMES : FAKE_TURNS;
}

const void *store_record_get(const struct store *s, enum store_record_kind kind, uint32_t index)
{
    size_t size;
    if (index >= store_record_capacity(s, kind))
        return NULL;
    struct store *w = (struct store *)(uintptr_t)s;
    static const uint8_t never_set[128];
    const void *rec = record_slot(w->partitions, w->volumes, w->turns, kind, index, &size);
    return s->m->lost && memcmp(rec, never_set, size) == 0 ? NULL : rec;
}

int store_record_set(struct store *s, struct store_record_op *op, enum store_record_kind kind, uint32_t index,
                     const void *image)
{
    size_t size;
    int rc = submit_check(s);
    if (rc == 0 && fault_hits(&s->m->refuse, FAKE_RECORD))
        rc = s->m->refuse.rc;
    if (rc)
        return rc;
    MUST(index < store_record_capacity(s, kind));
    void *slot = record_slot(s->partitions, s->volumes, s->turns, kind, index, &size);
    memcpy(slot, image, size);
    struct fake_op *f = op_queue(s, FAKE_RECORD);
    f->record_op = op;
    f->record_kind = kind;
    f->index = index;
    memcpy(f->image, image, size);
    return 0;
}

const struct store_device_times *store_device_times(const struct store *s)
{
    static const struct store_device_times none;
    (void)s;
    return &none;
}

void store_stats_get(const struct store *s, struct store_stats *out)
{
    *out = (struct store_stats){.capacity_bytes = FAKE_BLOCKS * (uint64_t)BLOCK_BYTES};
    for (unsigned i = 0; i < FAKE_BLOCKS; i++)
        out->blocks += s->m->blocks[i].used;
    out->used_bytes = out->blocks * BLOCK_BYTES;
}
bool store_is_broken(const struct store *s)
{
    return s->broken;
}
bool store_is_damaged(const struct store *s)
{
    return s->m->lost;
}
bool store_is_idle(const struct store *s)
{
    return list_empty(&s->queue);
}
