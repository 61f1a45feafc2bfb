/*
 * store.c: the block store's front: submits, the one task that moves everything on, callbacks, close and
 * destroy.
 */
#include "services/rwm/store_internal.h"

#include "common/log.h"

/* ---- device requests ---- */
static void sio_done(struct device_io *io, int rc)
{
    struct sio *sio = container_of(io, struct sio, io);
    sio->s->ios--;
    metrics_hist_add(&sio->s->times.op[io->op], loop_now_ns(sio->s->env->loop) - sio->begun_ns);
    if (sio->s->closing || sio->s->opening)
        store_kick(sio->s);
    sio->fn(sio, rc);
}

void sio_init(struct sio *sio, struct store *s, void (*fn)(struct sio *, int))
{
    memset(sio, 0, sizeof *sio);
    sio->s = s;
    sio->fn = fn;
    list_init(&sio->failed);
}

void sio_submit(struct sio *sio, struct device *d, enum device_op op, uint64_t offset,
                const struct iovec *iov, int iovcnt, uint64_t length)
{
    struct store *s = sio->s;
    sio->io = (struct device_io){
        .op = op, .offset = offset, .length = length, .iov = iov, .iovcnt = iovcnt, .done = sio_done};
    if (op == DEVICE_WRITE)
        s->stats.device_write_bytes += length;
    s->ios++;
    sio->begun_ns = loop_now_ns(s->env->loop);
    int rc = device_submit(d, &sio->io);
    if (rc == 0)
        return;
    sio->failed_rc = rc;
    list_push_back(&s->failed, &sio->failed);
    store_kick(s);
}

void sio_rw(struct sio *sio, struct device *d, enum device_op op, uint64_t offset, void *buf, uint64_t length)
{
    sio->one = (struct iovec){.iov_base = buf, .iov_len = length};
    sio_submit(sio, d, op, offset, &sio->one, 1, length);
}

static void tell_failed(struct store *s)
{
    struct list failed;
    list_init(&failed);
    list_splice(&failed, &s->failed);
    while (!list_empty(&failed)) {
        struct sio *sio = list_entry(list_pop_front(&failed), struct sio, failed);
        sio_done(&sio->io, sio->failed_rc);
    }
}

/* ---- flushes ---- */
static void flush_start(struct flusher *f);

static void flush_done(struct sio *sio, int rc)
{
    struct flusher *f = container_of(sio, struct flusher, sio);
    struct list served;
    list_init(&served);
    list_splice(&served, &f->current);
    f->active = false;
    while (!list_empty(&served)) {
        struct flush_wait *w = list_entry(list_pop_front(&served), struct flush_wait, link);
        w->fn(w, rc);
    }
    if (!f->active && !list_empty(&f->next))
        flush_start(f);
}

static void flush_start(struct flusher *f)
{
    struct store *s = f->sio.s;
    f->active = true;
    list_splice(&f->current, &f->next);
    s->stats.flushes++;
    sio_submit(&f->sio, f->device, DEVICE_FLUSH, 0, NULL, 0, 0);
}

void flush_request(struct store *s, struct flusher *f, struct flush_wait *w)
{
    if (f->device->durable_writes)
        w->fn(w, 0);
    else
        flush_device(s, f, w);
}

void flush_device(struct store *s, struct flusher *f, struct flush_wait *w)
{
    if (!f->sio.s)
        sio_init(&f->sio, s, flush_done);
    list_push_back(&f->next, &w->link);
    if (!f->active)
        flush_start(f);
}

/* ---- slabs ---- */
int slab_create(struct slab *slab, size_t stride, size_t align, uint64_t count)
{
    if (count >= SLAB_NONE)
        return -ENOMEM;
    slab->stride = round_up(stride, align);
    slab->count = (uint32_t)count;
    slab->base =
        aligned_alloc(align < 64 ? 64 : align, round_up(slab->stride * count, align < 64 ? 64 : align));
    slab->free_next = malloc(count * sizeof slab->free_next[0]);
    return slab->base && slab->free_next ? 0 : -ENOMEM;
}

void slab_destroy(struct slab *slab)
{
    free(slab->base);
    free(slab->free_next);
}

uint32_t slab_get(struct slab *slab)
{
    uint32_t id;
    if (slab->head) {
        id = slab->head - 1;
        slab->head = slab->free_next[id];
    } else if (slab->high < slab->count) {
        id = slab->high++;
    } else {
        return SLAB_NONE;
    }
    slab->used++;
    return id;
}

void slab_put(struct slab *slab, uint32_t id)
{
    MUST(id < slab->high && slab->used);
    slab->free_next[id] = slab->head;
    slab->head = id + 1;
    slab->used--;
}

/* ---- requests ---- */
struct req *req_get(struct store *s, enum req_kind kind)
{
    uint32_t id = slab_get(&s->reqs);
    if (id == SLAB_NONE)
        return NULL;
    struct req *r = slab_at(&s->reqs, id);
    memset(r, 0, offsetof(struct req, units));
    r->s = s;
    r->kind = kind;
    r->entry = r->freed = STORE_NONE;
    list_init(&r->link);
    return r;
}

static bool is_writer(enum req_kind kind)
{
    return kind == REQ_WRITE || kind == REQ_CLEAR || kind == REQ_REMOVE;
}

void req_finish(struct req *r, int rc)
{
    struct store *s = r->s;
    struct blk *b = r->b;
    r->rc = rc;
    list_remove(&r->link);
    list_push_back(&s->done, &r->link);
    store_kick(s);
    if (!b)
        return;
    r->b = NULL;
    MUST(b->active);
    b->active--;
    if (is_writer(r->kind))
        b->writers--;
    if (r->pin) {
        frame_unpin(s, r->pin);
        r->pin = NULL;
    }
    if (s->broken)
        b->pending = 0;
    blk_release(s, b);
}

void blk_ready(struct store *s, struct blk *b)
{
    b->active++; /* a read may be the last that needs it */
    while (!list_empty(&b->waiting)) {
        struct req *r = list_entry(list_pop_front(&b->waiting), struct req, link);
        if (is_writer(r->kind)) {
            list_push_back(&s->exec, &r->link);
            store_kick(s);
        } else {
            read_start(r);
        }
    }
    b->active--;
    blk_release(s, b);
}

/* ---- submits ---- */
static bool iov_ok(const struct store_op *op)
{
    uint64_t sum = 0;
    if (op->iovcnt < 1 || op->iovcnt > (int)UNITS_PER_BLOCK)
        return false;
    for (int i = 0; i < op->iovcnt; i++) {
        size_t n = op->iov[i].iov_len;
        if (n == 0 || n % UNIT_BYTES || n > BLOCK_BYTES || (uintptr_t)op->iov[i].iov_base % UNIT_BYTES)
            return false;
        sum += n;
    }
    return sum == (uint64_t)op->unit_count * UNIT_BYTES;
}

/* A wrong CRC would look like a torn write after a crash, and cut the journal there. */
static bool crcs_ok(const struct store_op *op)
{
    uint32_t unit = 0;
    for (int i = 0; i < op->iovcnt; i++) {
        const uint8_t *at = op->iov[i].iov_base;
        for (size_t n = 0; n < op->iov[i].iov_len; n += UNIT_BYTES) {
            uint32_t here = unit++;
            if (op->replace && !((op->written & ~op->lost) >> here & 1u))
                continue;
            if (crc32c(at + n, UNIT_BYTES) != op->unit_crcs[here])
                return false;
        }
    }
    return true;
}

static int submit_check(const struct store *s, const struct store_op *op, enum req_kind kind)
{
    if (s->broken)
        return s->broken;
    if (s->closing)
        return -ENODEV;
    if (s->options.read_only && is_writer(kind))
        return -EROFS;
    if (kind == REQ_STAT || kind == REQ_PROBE || kind == REQ_REMOVE)
        return 0;
    if (op->unit_count == 0 || op->unit_count > UNITS_PER_BLOCK ||
        op->first_unit > UNITS_PER_BLOCK - op->unit_count)
        return -EINVAL;
    if (kind == REQ_CLEAR)
        return 0;
    if (op->replace && (kind != REQ_WRITE || op->unit_count != UNITS_PER_BLOCK || op->written == 0))
        return -EINVAL;
    if (!iov_ok(op))
        return -EINVAL;
    return kind == REQ_WRITE && !crcs_ok(op) ? -EINVAL : 0;
}

static bool reserve(struct req *r, enum alloc_kind kind)
{
    struct alloc *a = &r->s->alloc;
    if (!alloc_spare(a, kind))
        return false;
    a->reserved[kind]++;
    r->reserved = (uint8_t)(1u << kind);
    return true;
}

/* Space is promised now, by the worst that the requests before this one may leave. */
static int promise(struct req *r, struct blk *b)
{
    bool slot = b->writers ? b->slot_promised : entry_has_slot(b->entry);
    bool entry = b->writers ? b->slot_promised : b->entry != STORE_NONE;
    switch (r->kind) {
    case REQ_WRITE:
        if (!slot && !reserve(r, ALLOC_SLOT))
            return -ENOSPC;
        b->slot_promised = true;
        return 0;
    case REQ_CLEAR:
        if (!r->op->forget && !entry && !reserve(r, ALLOC_HOLE) && !reserve(r, ALLOC_SLOT))
            return -ENOSPC;
        b->slot_promised = false;
        return 0;
    case REQ_REMOVE:
        b->slot_promised = false;
        return 0;
    default:
        return 0;
    }
}

static void count_op(struct store *s, const struct store_op *op, enum req_kind kind)
{
    if (kind == REQ_WRITE) {
        s->stats.writes++;
        s->stats.client_write_bytes += (uint64_t)op->unit_count * UNIT_BYTES;
    } else if (kind == REQ_READ) {
        s->stats.reads++;
    } else if (kind == REQ_CLEAR) {
        s->stats.clears++;
    } else if (kind == REQ_REMOVE) {
        s->stats.removes++;
    }
}

static int submit(struct store *s, struct store_op *op, enum req_kind kind)
{
    int rc = submit_check(s, op, kind);
    if (rc)
        return rc;
    struct req *r = req_get(s, kind);
    if (!r)
        return -EAGAIN;
    struct blk *b = blk_get(s, &op->key);
    r->op = op;
    rc = b ? promise(r, b) : -EAGAIN;
    if (rc) {
        slab_put(&s->reqs, slab_id(&s->reqs, r));
        if (b)
            blk_release(s, b);
        return rc;
    }
    op->priv = r;
    r->mask = kind == REQ_REMOVE || kind == REQ_STAT || kind == REQ_PROBE
                  ? STORE_ALL_UNITS
                  : bit_range(op->first_unit, op->unit_count);
    r->b = b;
    b->active++;
    b->writers += is_writer(kind);
    count_op(s, op, kind);
    list_push_back(&b->waiting, &r->link);
    blk_activate(s, b);
    if (b->loaded)
        blk_ready(s, b);
    return 0;
}

int store_write(struct store *s, struct store_op *op)
{
    return submit(s, op, REQ_WRITE);
}

int store_clear(struct store *s, struct store_op *op)
{
    return submit(s, op, REQ_CLEAR);
}

int store_read(struct store *s, struct store_op *op)
{
    return submit(s, op, REQ_READ);
}

int store_stat(struct store *s, struct store_op *op)
{
    return submit(s, op, REQ_STAT);
}

int store_probe(struct store *s, struct store_op *op)
{
    op->key = (struct store_key){0}; /* no block has layer 0 */
    return submit(s, op, REQ_PROBE);
}

int store_remove(struct store *s, struct store_op *op)
{
    return submit(s, op, REQ_REMOVE);
}

void store_wait(struct store *s, struct store_waiter *w)
{
    list_push_back(&s->waiters, &w->link);
    store_kick(s);
}

void store_wait_cancel(struct store *s, struct store_waiter *w)
{
    (void)s;
    list_remove(&w->link);
}

unsigned store_list(struct store *s, uint32_t partition, uint64_t *cursor, struct store_key *keys,
                    unsigned max)
{
    return index_list(&s->index, partition, cursor, keys, max);
}

/* ---- records ---- */
uint32_t store_record_capacity(const struct store *s, enum store_record_kind kind)
{
    return s->super.records[kind];
}

const void *store_record_get(const struct store *s, enum store_record_kind kind, uint32_t index)
{
    if ((unsigned)kind > STORE_TURN || index >= s->super.records[kind])
        return NULL;
    if (s->record_lost[kind][index])
        return NULL;
    return s->records[kind] + (size_t)index * s->record_bytes[kind];
}

int store_record_set(struct store *s, struct store_record_op *op, enum store_record_kind kind, uint32_t index,
                     const void *image)
{
    if (s->broken || s->closing)
        return s->broken ? s->broken : -ENODEV;
    if (s->options.read_only)
        return -EROFS;
    if ((unsigned)kind > STORE_TURN || index >= s->super.records[kind])
        return -ERANGE;
    struct req *r = req_get(s, REQ_RECORD);
    if (!r)
        return -EAGAIN;
    if (op) {
        op->kind = kind;
        op->index = index;
    }
    r->record = op;
    r->record_kind = kind;
    r->record_index = index;
    memcpy(r->image, image, s->record_bytes[kind]);
    memcpy(s->records[kind] + (size_t)index * s->record_bytes[kind], image, s->record_bytes[kind]);
    s->record_lost[kind][index] = 0;
    list_push_back(&s->exec, &r->link);
    store_kick(s);
    return 0;
}

/* ---- moving on ---- */
void store_kick(struct store *s)
{
    loop_defer(s->env->loop, &s->task);
}

void store_break(struct store *s, int rc, const char *what)
{
    if (s->broken)
        return;
    s->broken = rc == -ENODEV ? -ENODEV : -EIO;
    log_error(s->env, "block store broken, open it again to go on", "device=%s while=\"%s\" rc=%d",
              s->data->name, what, rc);
    store_kick(s);
}

static void run_exec(struct store *s)
{
    while (!list_empty(&s->exec)) {
        struct req *r = list_entry(list_pop_front(&s->exec), struct req, link);
        if (exec_request(r) == -EAGAIN) {
            list_push_front(&s->exec, &r->link);
            return;
        }
    }
}

static void fail_starved(struct store *s)
{
    struct list starved;
    list_init(&starved);
    list_splice(&starved, &s->meta.starved);
    while (!list_empty(&starved)) {
        struct frame_wait *w = list_entry(list_pop_front(&starved), struct frame_wait, link);
        w->fn(w, NULL, s->broken);
    }
}

bool store_is_idle(const struct store *s)
{
    return s->reqs.used == 0;
}

static void closing_step(struct store *s)
{
    if (!s->closing || s->closed || s->ck.state != CK_IDLE || s->super_update.busy)
        return;
    if (s->broken) {
        s->closed = s->ios == 0;
        return;
    }
    if (!store_is_idle(s) || s->ios)
        return;
    if (checkpoint_clean(s) || s->options.read_only)
        s->closed = true;
    else
        s->ck.wanted = true;
}

static void identity_written(struct store *s, int rc)
{
    s->identity_busy = false;
    s->identity_finished = true;
    s->identity_rc = rc;
    if (rc)
        return;
    s->identity = s->identity_next;
    if (index_set_partition_bits(&s->index, s->identity.partition_bits))
        store_break(s, -EIO, "memory for the partitions' lists");
}

static void identity_step(struct store *s)
{
    if (!s->identity_wanted || s->super_update.busy)
        return;
    s->identity_wanted = false;
    if (s->broken) {
        identity_written(s, s->broken);
        return;
    }
    s->identity_busy = true;
    s->super_update.next.cluster = s->identity_next.cluster;
    s->super_update.next.module = s->identity_next.module;
    s->super_update.next.partition_bits = s->identity_next.partition_bits;
    s->super_update.next.accepted_start = s->identity_next.accepted_start;
    s->super_update.next.accepted_incarnation = s->identity_next.accepted_incarnation;
    super_write(s, identity_written);
}

/* The caller's functions, one by one. Each may destroy the store. */
static void run_callbacks(struct store *s)
{
    bool destroyed = false;
    struct list done;
    s->destroyed = &destroyed;
    list_init(&done);
    list_splice(&done, &s->done);
    while (!list_empty(&done)) {
        struct req *r = list_entry(list_pop_front(&done), struct req, link);
        struct store_op *op = r->op;
        struct store_record_op *record = r->record;
        int rc = r->rc;
        slab_put(&s->reqs, slab_id(&s->reqs, r));
        if (op)
            op->done(op, rc);
        else if (record && record->done)
            record->done(record, rc);
        if (destroyed)
            return;
    }
    if (s->identity_finished) {
        s->identity_finished = false;
        s->identity_done(s->identity_arg, s->identity_rc);
        if (destroyed)
            return;
    }
    uint32_t wake = 0; /* those who wait now, as many as there is room for */
    list_for_each(n, &s->waiters) wake++;
    if (!s->broken && !s->closing)
        wake = (uint32_t)min_u64(wake, slab_left(&s->reqs));
    for (; wake && !list_empty(&s->waiters); wake--) {
        struct store_waiter *w = list_entry(list_pop_front(&s->waiters), struct store_waiter, link);
        w->fn(w);
        if (destroyed)
            return;
    }
    s->destroyed = NULL;
    if (s->closed && s->close_done) {
        void (*fn)(void *, int) = s->close_done;
        s->close_done = NULL;
        fn(s->close_arg, s->broken);
    }
}

static void store_tick(struct loop_task *task)
{
    struct store *s = container_of(task, struct store, task);
    tell_failed(s);
    if (s->broken)
        fail_starved(s);
    else
        meta_retry_starved(s);
    if (s->opening) {
        if (open_tick(s))
            return;
        replay_ready(s);
        checkpoint_step(s);
        return;
    }
    run_exec(s);
    journal_submit(s);
    identity_step(s);
    checkpoint_step(s);
    closing_step(s);
    if (s->ck.wanted)
        checkpoint_step(s);
    run_callbacks(s);
}

void (*store_task_fn(void))(struct loop_task *)
{
    return store_tick;
}

/* ---- identity, state, end ---- */
const struct store_identity *store_identity(const struct store *s)
{
    return &s->identity;
}

static int identity_can_change(const struct store *s)
{
    if (s->broken || s->closing)
        return s->broken ? s->broken : -ENODEV;
    if (s->options.read_only)
        return -EROFS;
    return s->identity_wanted || s->identity_busy || s->identity_finished ? -EAGAIN : 0;
}

static void identity_change(struct store *s, const struct store_identity *next,
                            void (*done)(void *arg, int rc), void *arg)
{
    s->identity_next = *next;
    s->identity_done = done;
    s->identity_arg = arg;
    s->identity_wanted = true;
    store_kick(s);
}

int store_set_accepted(struct store *s, uint64_t incarnation, void (*done)(void *arg, int rc), void *arg)
{
    int rc = identity_can_change(s);
    if (rc)
        return rc;
    struct store_identity next = s->identity;
    next.accepted_start = next.start_counter;
    next.accepted_incarnation = incarnation;
    identity_change(s, &next, done, arg);
    return 0;
}

int store_set_identity(struct store *s, const struct uuid *cluster, uint32_t module, uint32_t partition_bits,
                       void (*done)(void *arg, int rc), void *arg)
{
    const struct store_identity *id = &s->identity;
    int rc = identity_can_change(s);
    if (rc)
        return rc;
    if (partition_bits > 24)
        return -EINVAL;
    if ((!uuid_is_zero(&id->cluster) && !uuid_eq(&id->cluster, cluster)) ||
        (id->module && id->module != module))
        return -EPERM;
    struct store_identity next = *id;
    next.cluster = *cluster;
    next.module = module;
    next.partition_bits = partition_bits;
    identity_change(s, &next, done, arg);
    return 0;
}

void store_close(struct store *s, void (*done)(void *arg, int rc), void *arg)
{
    MUST(!s->closing);
    s->closing = true;
    s->close_done = done;
    s->close_arg = arg;
    store_kick(s);
}

void store_destroy(struct store *s)
{
    if (!s)
        return;
    if (s->destroyed)
        *s->destroyed = true;
    loop_task_cancel(s->env->loop, &s->task);
    while (!list_empty(&s->waiters))
        list_pop_front(&s->waiters);
    open_destroy(s);
    checkpoint_destroy(s);
    witness_destroy(s);
    trim_destroy(s);
    journal_destroy(s);
    meta_destroy(s);
    alloc_destroy(s);
    index_destroy(&s->index);
    slab_destroy(&s->reqs);
    slab_destroy(&s->blks);
    slab_destroy(&s->units);
    for (unsigned k = 0; k < 3; k++) {
        free(s->records[k]);
        free(s->record_lost[k]);
    }
    free(s->super_update.page);
    free(s->sink);
    free(s->blk_hash);
    free(s);
}

const struct store_device_times *store_device_times(const struct store *s)
{
    return &s->times;
}

void store_stats_get(const struct store *s, struct store_stats *out)
{
    const struct alloc *a = &s->alloc;
    const struct journal *j = &s->journal;
    *out = s->stats;
    out->capacity_bytes = a->slot_count * BLOCK_BYTES;
    out->used_bytes = (a->slot_count - a->free[ALLOC_SLOT]) * BLOCK_BYTES;
    out->reserved_bytes = a->reserved[ALLOC_SLOT] * BLOCK_BYTES;
    out->blocks = s->index.count;
    out->journal_bytes = j->bytes;
    out->journal_used_bytes = j->head - j->tail;
    uint64_t entries = s->index.entries;
    out->resident_bytes = entries * sizeof(struct node) +
                          ((uint64_t)s->index.bucket_mask + 1) * sizeof(uint32_t) +
                          (uint64_t)a->pages * sizeof a->page_free[0] * (s->trim.freed ? 2 : 1) +
                          (uint64_t)s->meta.high * STORE_PAGE_BYTES + (uint64_t)s->units.high * UNIT_BYTES +
                          (uint64_t)s->blks.high * sizeof(struct blk);
}

bool store_is_broken(const struct store *s)
{
    return s->broken != 0;
}

bool store_is_damaged(const struct store *s)
{
    return s->damaged;
}
