/* rwm_check.c: what a request must meet before anything is done, and again before its version is given or its
 * data sent: in between an epoch, a generation or a turn may have been raised. */
#include "services/rwm/rwm_internal.h"

#include <endian.h>
#include <string.h>

uint32_t rwm_decode(const void *body, uint16_t method, const struct rpc_request *rpc,
                    struct block_request *out)
{
    struct block_request r;
    memcpy(&r, body, sizeof(r));
    r.pool = le32toh(r.pool);
    r.partition = le32toh(r.partition);
    r.epoch = le64toh(r.epoch);
    r.incarnation = le64toh(r.incarnation);
    r.generation = le64toh(r.generation);
    r.turn = le64toh(r.turn);
    r.host = le64toh(r.host);
    r.offset = le64toh(r.offset);
    r.length = le32toh(r.length);
    r.flags = le16toh(r.flags);
    *out = r;
    if (r.length == 0 || r.length % SECTOR_BYTES != 0 || r.offset % SECTOR_BYTES != 0 ||
        r.offset + r.length < r.offset)
        return STATUS_INVALID;
    if (rwm_method_writes(method) && (r.turn == 0 || r.turn >= BLOCK_TURN_MAX))
        return STATUS_INVALID;
    bool moves = method == BLOCK_METHOD_READ || method == BLOCK_METHOD_WRITE;
    if (moves && r.length > FABRIC_PAYLOAD_MAX)
        return STATUS_INVALID;
    if (method == BLOCK_METHOD_READ && rpc_request_sink_len(rpc) < r.length)
        return STATUS_INVALID;
    if (rpc_request_payload_len(rpc) != (method == BLOCK_METHOD_WRITE ? r.length : 0))
        return STATUS_INVALID;
    return STATUS_OK;
}

static uint32_t check_partition(const struct rwm *m, const struct block_request *r, bool *newer)
{
    if (r->incarnation != m->config.incarnation)
        return STATUS_WRONG_INCARNATION;
    if (m->pool_id == 0 || r->pool != m->pool_id || r->partition >= m->part_count) {
        /* The sender may know of a pool that this copy has not seen. */
        *newer = true;
        return STATUS_NOT_SERVING;
    }
    const struct rwm_part *part = &m->parts[r->partition];
    if (r->epoch > part->epoch) {
        *newer = true;
        return STATUS_NOT_SERVING;
    }
    if (!part->primary)
        return STATUS_NOT_SERVING;
    return r->epoch < part->epoch ? STATUS_STALE_EPOCH : STATUS_OK;
}

/* A sender may know the partition's new epoch, and not yet that the pool has more partitions. */
static uint32_t check_place(const struct rwm *m, const struct block_request *r, uint64_t hash)
{
    if (placement_partition(hash, m->part_count) == r->partition)
        return STATUS_OK;
    for (uint32_t fewer = m->part_count / 2; fewer > r->partition; fewer /= 2) {
        if (placement_partition(hash, fewer) == r->partition)
            return STATUS_STALE_EPOCH;
    }
    return STATUS_INVALID;
}

static uint32_t check_volume(const struct rwm *m, const struct block_request *r, bool *newer)
{
    const struct rwm_volume *v = rwm_volume_find(m, &r->volume);
    if (!v || !v->in_force) {
        *newer = true;
        return STATUS_NOT_FOUND;
    }
    if (v->state == TABLE_VOLUME_DELETING)
        return STATUS_NOT_FOUND;
    if (r->generation > v->generation) {
        *newer = true;
        return STATUS_NOT_SERVING;
    }
    if (r->generation < v->generation)
        return STATUS_STALE_GENERATION;
    if (r->offset + r->length > v->size_bytes) {
        *newer = true;
        return STATUS_RANGE;
    }
    /* Reading through to a parent layer is not there yet; serving its holes as zeroes would be wrong. */
    if (v->parent_layer != 0)
        return STATUS_NOT_SUPPORTED;
    uint64_t stripe = r->offset / m->stripe_bytes;
    if ((r->offset + r->length - 1) / m->stripe_bytes != stripe)
        return STATUS_INVALID;
    return check_place(m, r, placement_hash(v->family, stripe));
}

uint32_t rwm_check(const struct rwm *m, const struct block_request *r, bool write, bool *newer)
{
    *newer = false;
    uint32_t status = check_partition(m, r, newer);
    if (status == STATUS_OK)
        status = check_volume(m, r, newer);
    if (status == STATUS_OK && write && r->turn < rwm_turn_get(m, &r->volume, r->host))
        status = STATUS_STALE_TURN;
    return status;
}
