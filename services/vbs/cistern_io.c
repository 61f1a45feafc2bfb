/* Requests of libcistern: made on any thread, submitted on the loop's. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "services/vbs/cistern_internal.h"

struct op_slab {
    struct list link;
    struct cistern_op ops[CISTERN_OPS_SLAB];
};

/* ---- objects: a free list that grows by slabs while the load does ---- */

static void op_free_locked(struct cistern *c, struct cistern_op *op)
{
    list_push_front(&c->free_ops, &op->link);
}

static struct cistern_op *op_get(struct cistern *c)
{
    pthread_mutex_lock(&c->lock);
    if (list_empty(&c->free_ops) && c->ops < CISTERN_OPS_MAX) {
        struct op_slab *slab = calloc(1, sizeof *slab);
        if (slab != NULL) {
            list_init(&slab->link);
            list_push_back(&c->slabs, &slab->link);
            for (unsigned i = 0; i < CISTERN_OPS_SLAB; i++) {
                list_init(&slab->ops[i].link);
                list_push_back(&c->free_ops, &slab->ops[i].link);
            }
            c->ops += CISTERN_OPS_SLAB;
        }
    }
    struct list *n = list_pop_front(&c->free_ops);
    pthread_mutex_unlock(&c->lock);
    return n != NULL ? list_entry(n, struct cistern_op, link) : NULL;
}

void cistern_ops_free(struct cistern *c)
{
    for (struct list *n; (n = list_pop_front(&c->slabs)) != NULL;)
        free(list_entry(n, struct op_slab, link));
}

static void op_release_pieces(struct cistern_op *op)
{
    if (op->pieces != op->inline_pieces)
        free(op->pieces);
    op->pieces = op->inline_pieces;
}

/* ---- ends ---- */

static void op_done(struct volume_request *vr, int rc)
{
    struct cistern_op *op = container_of(vr, struct cistern_op, vr);
    struct cistern_volume *v = op->v;
    struct cistern *c = v->c;
    cistern_callback *cb = op->cb;
    void *arg = op->arg;
    op_release_pieces(op);
    pthread_mutex_lock(&c->lock);
    op_free_locked(c, op);
    pthread_mutex_unlock(&c->lock);
    cb(arg, rc);
    /* Only now may a waiting close go on: no callback of the volume's runs after it. */
    pthread_mutex_lock(&c->lock);
    if (--v->requests == 0)
        pthread_cond_broadcast(&c->cond);
    pthread_mutex_unlock(&c->lock);
}

static int op_submit(struct cistern_op *op)
{
    struct cistern_volume *v = op->v;
    return v->direct != NULL ? volume_submit(v->direct, &op->vr) : vbs_client_submit(v->through, &op->vr);
}

void cistern_drain(struct loop_task *t)
{
    struct cistern *c = container_of(t, struct cistern, drain);
    struct list ops;
    list_init(&ops);
    pthread_mutex_lock(&c->lock);
    list_splice(&ops, &c->submitted);
    c->posted = false;
    pthread_mutex_unlock(&c->lock);
    for (struct list *n; (n = list_pop_front(&ops)) != NULL;) {
        struct cistern_op *op = list_entry(n, struct cistern_op, link);
        int rc = op_submit(op);
        if (rc != 0)
            op_done(&op->vr, rc);
    }
}

/* ---- beginnings ---- */

static int op_hand_over(struct cistern_op *op)
{
    struct cistern_volume *v = op->v;
    struct cistern *c = v->c;
    int rc = 0;
    bool post = false;
    if (c->own_loop)
        rc = op_submit(op);
    pthread_mutex_lock(&c->lock);
    if (rc == 0)
        v->requests++;
    else
        op_free_locked(c, op);
    if (!c->own_loop) {
        list_push_back(&c->submitted, &op->link);
        post = !c->posted;
        c->posted = true;
    }
    pthread_mutex_unlock(&c->lock);
    if (post)
        MUST(loop_post(c->env.loop, &c->drain) == 0);
    if (rc != 0)
        return cistern_fail(rc, "the request was refused: %s", strerror(-rc));
    return 0;
}

static int op_check(const struct cistern_volume *v, enum volume_op kind, uint64_t offset, uint64_t length,
                    cistern_callback *cb)
{
    int lost_rc = atomic_load_explicit(&v->lost_rc, memory_order_relaxed);
    uint64_t size = cistern_size(v);
    uint64_t unit = kind == VOLUME_EXTENTS ? UNIT_BYTES : SECTOR_BYTES;
    if (cb == NULL)
        return cistern_fail(-EINVAL, "a request needs a callback");
    if (lost_rc != 0)
        return cistern_fail(lost_rc, "%s",
                            lost_rc == -ENOENT
                                ? "the volume was deleted"
                                : "the volume was lost: detached, or taken over by another process");
    if (kind == VOLUME_FLUSH)
        return 0;
    if (length == 0 || offset % unit != 0 || length % SECTOR_BYTES != 0)
        return cistern_fail(-EINVAL, "offset %llu and length %llu are not multiples of %llu bytes",
                            (unsigned long long)offset, (unsigned long long)length, (unsigned long long)unit);
    if (offset > size || length > size - offset)
        return cistern_fail(-ERANGE, "offset %llu and length %llu reach beyond the volume's %llu bytes",
                            (unsigned long long)offset, (unsigned long long)length, (unsigned long long)size);
    if (v->read_only && kind != VOLUME_READ && kind != VOLUME_EXTENTS)
        return cistern_fail(-EROFS, "the volume was opened read-only");
    return 0;
}

static struct cistern_op *op_new(struct cistern_volume *v, enum volume_op kind, uint64_t offset,
                                 uint64_t length, cistern_callback *cb, void *arg)
{
    struct cistern_op *op = op_get(v->c);
    if (op == NULL) {
        cistern_fail(-ENOMEM, "too many requests are under way");
        return NULL;
    }
    memset(&op->vr, 0, sizeof op->vr);
    op->v = v;
    op->cb = cb;
    op->arg = arg;
    op->pieces = op->inline_pieces;
    op->vr.op = kind;
    op->vr.offset = offset;
    op->vr.length = length;
    op->vr.done = op_done;
    return op;
}

static void op_drop(struct cistern_op *op)
{
    struct cistern *c = op->v->c;
    op_release_pieces(op);
    pthread_mutex_lock(&c->lock);
    op_free_locked(c, op);
    pthread_mutex_unlock(&c->lock);
}

static struct fabric_mem *memory_of(const struct cistern *c, const void *base, size_t len)
{
    const uint8_t *p = base;
    return p >= c->arena && p + len <= c->arena + CISTERN_ARENA_BYTES ? c->arena_mem : NULL;
}

static int op_set_pieces(struct cistern_op *op, const struct iovec *iov, int iovcnt)
{
    size_t count = 0, n = 0;
    for (int i = 0; i < iovcnt; i++)
        count += (iov[i].iov_len + CISTERN_PIECE_MAX - 1) / CISTERN_PIECE_MAX;
    if (count > CISTERN_SGE_INLINE) {
        op->pieces = calloc(count, sizeof *op->pieces);
        if (op->pieces == NULL) {
            op->pieces = op->inline_pieces;
            return cistern_fail(-ENOMEM, "out of memory");
        }
    }
    for (int i = 0; i < iovcnt; i++) {
        for (size_t at = 0; at < iov[i].iov_len; at += CISTERN_PIECE_MAX) {
            void *base = (uint8_t *)iov[i].iov_base + at;
            uint32_t len = (uint32_t)min_u64(iov[i].iov_len - at, CISTERN_PIECE_MAX);
            op->pieces[n++] =
                (struct fabric_sge){.base = base, .len = len, .mem = memory_of(op->v->c, base, len)};
        }
    }
    op->vr.sge = op->pieces;
    op->vr.sge_count = (unsigned)n;
    return 0;
}

static int io_begin(struct cistern_volume *v, enum volume_op kind, const struct iovec *iov, int iovcnt,
                    uint64_t offset, cistern_callback *cb, void *arg)
{
    uint64_t length = 0;
    bool sectors = true;
    if (v == NULL || iov == NULL || iovcnt <= 0 || iovcnt > IOV_MAX)
        return cistern_fail(-EINVAL, "a request needs a volume and 1 to %d pieces of memory", IOV_MAX);
    for (int i = 0; i < iovcnt; i++) {
        if (iov[i].iov_len > (uint64_t)INT64_MAX - length)
            return cistern_fail(-EINVAL, "the request is too long");
        length += iov[i].iov_len;
        sectors = sectors && iov[i].iov_len % SECTOR_BYTES == 0;
    }
    if (iovcnt > (int)FABRIC_SGE_MAX && !sectors)
        return cistern_fail(-EINVAL, "with more than %u pieces of memory each must be a multiple of %u bytes",
                            FABRIC_SGE_MAX, SECTOR_BYTES);
    int rc = op_check(v, kind, offset, length, cb);
    if (rc != 0)
        return rc;
    struct cistern_op *op = op_new(v, kind, offset, length, cb, arg);
    if (op == NULL)
        return -ENOMEM;
    rc = op_set_pieces(op, iov, iovcnt);
    if (rc != 0) {
        op_drop(op);
        return rc;
    }
    return op_hand_over(op);
}

static int range_begin(struct cistern_volume *v, enum volume_op kind, uint64_t offset, uint64_t length,
                       uint8_t *bitmap, cistern_callback *cb, void *arg)
{
    if (v == NULL || (kind == VOLUME_EXTENTS && bitmap == NULL))
        return cistern_fail(-EINVAL, "a request needs a volume, and extents a bitmap");
    int rc = op_check(v, kind, offset, length, cb);
    if (rc != 0)
        return rc;
    struct cistern_op *op = op_new(v, kind, offset, length, cb, arg);
    if (op == NULL)
        return -ENOMEM;
    op->vr.bitmap = bitmap;
    return op_hand_over(op);
}

int cistern_readv(struct cistern_volume *v, const struct iovec *iov, int iovcnt, uint64_t offset,
                  cistern_callback *cb, void *arg)
{
    return io_begin(v, VOLUME_READ, iov, iovcnt, offset, cb, arg);
}

int cistern_writev(struct cistern_volume *v, const struct iovec *iov, int iovcnt, uint64_t offset,
                   cistern_callback *cb, void *arg)
{
    return io_begin(v, VOLUME_WRITE, iov, iovcnt, offset, cb, arg);
}

int cistern_flush(struct cistern_volume *v, cistern_callback *cb, void *arg)
{
    return range_begin(v, VOLUME_FLUSH, 0, 0, NULL, cb, arg);
}

int cistern_discard(struct cistern_volume *v, uint64_t offset, uint64_t length, cistern_callback *cb,
                    void *arg)
{
    return range_begin(v, VOLUME_DISCARD, offset, length, NULL, cb, arg);
}

int cistern_write_zeroes(struct cistern_volume *v, uint64_t offset, uint64_t length, cistern_callback *cb,
                         void *arg)
{
    return range_begin(v, VOLUME_ZERO, offset, length, NULL, cb, arg);
}

int cistern_extents(struct cistern_volume *v, uint64_t offset, uint64_t length, uint8_t *bitmap,
                    cistern_callback *cb, void *arg)
{
    return range_begin(v, VOLUME_EXTENTS, offset, length, bitmap, cb, arg);
}

/* ---- blocking forms ---- */

struct blocking {
    sem_t done;
    int rc;
};

static void on_blocking_done(void *arg, int rc)
{
    struct blocking *b = arg;
    b->rc = rc;
    sem_post(&b->done);
}

static int blocking_io(struct cistern_volume *v, enum volume_op kind, void *buf, size_t len, uint64_t offset)
{
    struct blocking b = {.rc = 0};
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    if (v == NULL || v->c->own_loop)
        return cistern_fail(-EINVAL, "the blocking calls need a volume of a connection without own_loop");
    sem_init(&b.done, 0, 0);
    int rc = io_begin(v, kind, &iov, 1, offset, on_blocking_done, &b);
    if (rc == 0) {
        while (sem_wait(&b.done) != 0)
            continue; /* a signal */
        if (b.rc != 0)
            rc = cistern_fail(b.rc, "%s of %zu bytes at offset %llu failed: %s",
                              kind == VOLUME_READ ? "reading" : "writing", len, (unsigned long long)offset,
                              strerror(-b.rc));
    }
    sem_destroy(&b.done);
    return rc;
}

int cistern_pread(struct cistern_volume *v, void *buf, size_t len, uint64_t offset)
{
    return blocking_io(v, VOLUME_READ, buf, len, offset);
}

int cistern_pwrite(struct cistern_volume *v, const void *buf, size_t len, uint64_t offset)
{
    return blocking_io(v, VOLUME_WRITE, (void *)(uintptr_t)buf, len, offset);
}
