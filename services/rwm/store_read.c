/*
 * store_read.c: reads and stats of the durable image.
 *
 * One device request a read, from its first to its last unit that lies in the slot; what lies between and
 * comes from elsewhere (overlay, holes) goes to a sink. CRCs are those of the image at the start: units that
 * change meanwhile change in memory first, and their slot stays as it was until this reader has left.
 *
 * What a LUN's index and overlay say is true only for as long as the LUN is ours, and that the array alone
 * knows: another agent may have taken it while this process stood still. So what was found in memory is told
 * only after the array has served one more read.
 */
#include "services/rwm/store_internal.h"

static uint8_t *op_unit(const struct store_op *op, uint32_t n)
{
    uint64_t at = (uint64_t)n * UNIT_BYTES;
    for (int i = 0;; i++) {
        MUST(i < op->iovcnt);
        if (at < op->iov[i].iov_len)
            return (uint8_t *)op->iov[i].iov_base + at;
        at -= op->iov[i].iov_len;
    }
}

static void read_done(struct sio *sio, int rc)
{
    struct req *r = container_of(sio, struct req, sio);
    struct store *s = r->s;
    struct blk *b = r->b;
    const struct store_op *op = r->op;
    for (uint32_t i = 0; i < op->unit_count && rc == 0; i++) {
        uint32_t u = op->first_unit + i;
        if ((r->mask & (1u << u)) && crc32c(op_unit(op, i), UNIT_BYTES) != op->found_crcs[u]) {
            s->stats.bad_units++;
            rc = -EBADMSG;
        }
    }
    unsigned generation = r->generation;
    r->b = NULL;
    req_finish(r, rc);
    blk_reader_leave(s, b, generation);
}

/* Fills what needs no device; r->mask = what does. */
static void fill_memory(struct req *r, const struct disk_entry *e)
{
    struct store *s = r->s;
    struct store_op *op = r->op;
    uint32_t written = e ? e->written : 0;
    r->mask = 0;
    for (uint32_t i = 0; i < op->unit_count; i++) {
        uint32_t u = op->first_unit + i, bit = 1u << u;
        if (!(written & bit)) {
            memset(op_unit(op, i), 0, UNIT_BYTES);
            continue;
        }
        op->found_crcs[u] = e->crc[u];
        if (r->b->overlay_mask & bit)
            memcpy(op_unit(op, i), slab_at(&s->units, r->b->overlay[u]), UNIT_BYTES);
        else
            r->mask |= bit;
    }
}

static void read_device(struct req *r)
{
    struct store *s = r->s;
    const struct store_op *op = r->op;
    uint32_t first = (uint32_t)__builtin_ctz(r->mask), last = 31u - (uint32_t)__builtin_clz(r->mask);
    int n = 0;
    for (uint32_t u = first; u <= last; u++) {
        uint8_t *at = r->mask & (1u << u) ? op_unit(op, u - op->first_unit) : s->sink;
        struct iovec *prev = n ? &r->iov[n - 1] : NULL;
        if (prev && at != s->sink && (uint8_t *)prev->iov_base + prev->iov_len == at)
            prev->iov_len += UNIT_BYTES;
        else
            r->iov[n++] = (struct iovec){.iov_base = at, .iov_len = UNIT_BYTES};
    }
    r->generation = (uint8_t)blk_reader_enter(r->b);
    sio_init(&r->sio, s, read_done);
    sio_submit(&r->sio, s->data, DEVICE_READ, slot_offset(s, r->b->entry) + (uint64_t)first * UNIT_BYTES,
               r->iov, n, (uint64_t)(last - first + 1) * UNIT_BYTES);
}

bool store_may_be_taken(const struct store *s)
{
    enum device_fence_state state = s->data->fence_state;
    return state == DEVICE_FENCE_HELD || state == DEVICE_FENCE_UNCERTAIN || state == DEVICE_FENCE_LOST;
}

void store_prove(struct req *r, void (*done)(struct sio *sio, int rc))
{
    struct store *s = r->s;
    sio_init(&r->sio, s, done);
    sio_rw(&r->sio, s->data, DEVICE_READ, STORE_SUPER_0, s->sink, UNIT_BYTES);
}

static void read_proof(struct req *r)
{
    r->mask = 0;
    r->generation = (uint8_t)blk_reader_enter(r->b);
    store_prove(r, read_done);
}

void read_start(struct req *r)
{
    struct store *s = r->s;
    struct blk *b = r->b;
    struct store_op *op = r->op;
    int rc = s->broken ? s->broken : b->load_rc;
    const struct disk_entry *e = rc ? NULL : blk_durable(b);
    if (!rc && r->kind != REQ_PROBE && entry_suspect(s, e))
        rc = -EBADMSG;
    if (rc) {
        req_finish(r, rc);
        return;
    }
    op->written = e ? e->written : 0;
    op->found = e ? (struct version){e->epoch, e->counter} : (struct version){0, 0};
    if (r->kind == REQ_READ)
        fill_memory(r, e);
    bool memory = r->kind != REQ_READ || r->mask == 0;
    if (memory && !store_may_be_taken(s)) {
        req_finish(r, 0);
        return;
    }
    /* The page is not needed any more; the block stays in core through its reader. */
    if (memory)
        read_proof(r);
    else
        read_device(r);
    MUST(b->active);
    b->active--;
    blk_release(s, b);
}
