/* rwm_read.c: reads and extents. The store hands out only durable data and has checked it; its checksums go
 * on to the reader. */
#include "services/rwm/rwm_copies.h"

#include "common/crc.h"

#include <endian.h>
#include <string.h>

static void read_done(struct store_op *op, int rc)
{
    struct rwm_piece *p = container_of(op, struct rwm_piece, op);
    if (rc == 0 && !rwm_forward_readable(p->m, p))
        return;
    if (rc && rwm_rot_read(p->m, p, rc))
        return;
    rwm_request_piece_done(p->req, rwm_status_of_store(p->m, rc, "read"));
}

void rwm_read_start(struct rwm *m, struct rwm_piece *p)
{
    p->op.first_unit = p->start / UNIT_BYTES;
    p->op.unit_count = rwm_range_units(p->start, p->bytes);
    p->op.done = read_done;
    int rc;
    if (p->kind == RWM_PIECE_STAT) {
        rc = store_stat(m->store, &p->op);
    } else {
        p->iov = (struct iovec){.iov_base = p->chunk, .iov_len = (size_t)p->op.unit_count * UNIT_BYTES};
        p->op.iov = &p->iov;
        p->op.iovcnt = 1;
        rc = store_read(m->store, &p->op);
    }
    if (rc == -EAGAIN)
        rwm_stall(m, p);
    else if (rc)
        rwm_request_piece_done(p->req, rwm_status_of_store(m, rc, "read"));
}

/* Appends the checksum of p's bytes; *all_holes turns false when one of its units is written. */
static uint32_t read_crc(const struct rwm_piece *p, uint32_t crc, bool first, bool *all_holes)
{
    const struct store_op *op = &p->op;
    uint32_t end = p->start + p->bytes;
    for (uint32_t i = 0; i < op->unit_count; i++) {
        uint32_t unit = op->first_unit + i;
        uint32_t from = unit * UNIT_BYTES, to = from + UNIT_BYTES;
        bool written = op->written >> unit & 1u;
        uint32_t part;
        if (written)
            *all_holes = false;
        if (p->start > from)
            from = p->start;
        if (end < to)
            to = end;
        if (to - from == UNIT_BYTES)
            part = written ? op->found_crcs[unit] : crc32c_zero_unit();
        else
            part = crc32c(p->chunk + (from - op->first_unit * UNIT_BYTES), to - from);
        crc = first ? part : crc32c_combine(crc, part, to - from);
        first = false;
    }
    return crc;
}

/* arg: a piece, in a ring with the others of its request. */
static void read_sent(void *arg)
{
    struct rwm_piece *p = arg;
    struct rwm_area *area = p->area;
    while (!list_unlinked(&p->link))
        rwm_piece_put(area, list_entry(p->link.next, struct rwm_piece, link));
    rwm_piece_put(area, p);
    area->sending--;
    if (area->m)
        loop_defer(area->m->env->loop, &area->m->queue_task);
    else
        rwm_area_release(area);
}

void rwm_read_reply(struct rwm_request *req)
{
    struct rwm_area *area = req->area;
    struct fabric_sge sge[RWM_REQUEST_BLOCKS_MAX];
    struct block_reply reply;
    unsigned count = 0;
    uint32_t crc = 0;
    bool all_holes = true;
    list_for_each(n, &req->pieces)
    {
        struct rwm_piece *p = list_entry(n, struct rwm_piece, link);
        crc = read_crc(p, crc, count == 0, &all_holes);
        sge[count++] = (struct fabric_sge){
            .base = p->chunk + p->start % UNIT_BYTES, .len = p->bytes, .mem = rwm_piece_mem(area, p)};
    }
    rwm_reply_fill(area->m, req->r.partition, &reply);
    reply.length = htole32(req->r.length);
    reply.holes = htole32(all_holes ? 1 : 0);
    struct rpc_request *rpc = req->rpc;
    if (!rpc || all_holes) {
        rwm_request_free(req);
        if (rpc)
            rpc_reply(rpc, STATUS_OK, &reply, sizeof(reply));
        return;
    }
    struct rwm_piece *ring = list_entry(req->pieces.next, struct rwm_piece, link);
    list_remove(&req->pieces);
    area->sending++;
    rwm_request_free(req);
    rpc_reply_payload(rpc, STATUS_OK, &reply, sizeof(reply), sge, count, crc, read_sent, ring);
}

void rwm_extents_reply(struct rwm_request *req)
{
    uint8_t body[RPC_BODY_MAX], *bitmap = body + sizeof(struct block_reply);
    struct block_reply reply;
    uint64_t first = req->r.offset / UNIT_BYTES;
    uint64_t bits = round_up(req->r.offset + req->r.length, UNIT_BYTES) / UNIT_BYTES - first;
    uint32_t bytes = (uint32_t)((bits + 7) / 8);
    MUST(sizeof(reply) + bytes <= sizeof(body)); /* the number of pieces bounds it */
    memset(body, 0, sizeof(reply) + bytes);
    list_for_each(n, &req->pieces)
    {
        const struct rwm_piece *p = list_entry(n, struct rwm_piece, link);
        for (uint32_t i = 0; i < p->op.unit_count; i++) {
            uint64_t bit = p->op.key.block * UNITS_PER_BLOCK + p->op.first_unit + i - first;
            if (p->op.written >> (p->op.first_unit + i) & 1u)
                bitmap[bit / 8] = (uint8_t)(bitmap[bit / 8] | 1u << (bit % 8));
        }
    }
    rwm_reply_fill(req->area->m, req->r.partition, &reply);
    reply.length = htole32(req->r.length);
    memcpy(body, &reply, sizeof(reply));
    struct rpc_request *rpc = req->rpc;
    rwm_request_free(req);
    if (rpc)
        rpc_reply(rpc, STATUS_OK, body, (uint32_t)sizeof(reply) + bytes);
}
