/* rwm_send.c: a whole block to another member. */
#include "services/rwm/rwm_copies.h"

#include "common/crc.h"

void rwm_piece_unref(struct rwm_piece *p)
{
    MUST(p->refs > 0);
    p->refs--;
    if (p->refs == 0 && p->orphan) {
        struct rwm *m = p->m;
        p->orphan = false;
        rwm_piece_put(p->area, p);
        loop_defer(m->env->loop, &m->queue_task);
    }
}

static void send_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct rwm_send *s = container_of(call, struct rwm_send, call);
    struct rwm *m = s->m;
    uint32_t status = result->rc == 0 ? result->status : STATUS_DISCONNECTED;
    rwm_peer_call_ended(s->peer);
    s->done(s, status);
    if (s->piece)
        rwm_piece_unref(s->piece);
    list_remove(&s->link);
    pool_put(m->send_pool, s);
}

/* Runs of written units become pieces of the payload; returns its checksum. */
static uint32_t send_payload(struct rwm_send *s, const uint32_t *crcs)
{
    uint32_t crc = 0;
    unsigned count = 0;
    bool first = true;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (!((s->body.written & ~s->body.lost) >> u & 1u))
            continue;
        uint8_t *at = s->piece->chunk + (size_t)u * UNIT_BYTES;
        struct fabric_sge *last = count ? &s->sge[count - 1] : NULL;
        if (last && (uint8_t *)last->base + last->len == at)
            last->len += UNIT_BYTES;
        else
            s->sge[count++] = (struct fabric_sge){
                .base = at, .len = UNIT_BYTES, .mem = rwm_piece_mem(s->piece->area, s->piece)};
        crc = first ? crcs[u] : crc32c_combine(crc, crcs[u], UNIT_BYTES);
        first = false;
    }
    s->call.source = s->sge;
    s->call.source_count = count;
    return crc;
}

static struct rwm_send *send_make(struct rwm_peer *peer, void (*done)(struct rwm_send *s, uint32_t status),
                                  void *owner)
{
    struct rwm_send *s = pool_get(peer->m->send_pool);
    if (!s)
        return NULL;
    *s = (struct rwm_send){0};
    s->m = peer->m;
    s->peer = peer;
    s->done = done;
    s->owner = owner;
    s->call.done = send_done;
    return s;
}

static int send_begin(struct rwm_send *s)
{
    int rc = rwm_peer_call(s->peer, &s->call);
    if (rc) {
        pool_put(s->m->send_pool, s);
        return rc;
    }
    if (s->piece)
        s->piece->refs++;
    list_push_back(&s->m->senders, &s->link);
    return 0;
}

int rwm_send_block(struct rwm_peer *peer, const struct copy_replace *body, struct rwm_piece *piece,
                   const uint32_t *crcs, void (*done)(struct rwm_send *s, uint32_t status), void *owner)
{
    struct rwm_send *s = send_make(peer, done, owner);
    if (!s)
        return -ENOMEM;
    s->body = *body;
    s->body.cuts = rwm_volume_cuts(s->m, body->key.layer);
    s->call.method = COPY_METHOD_REPLACE;
    s->call.body = &s->body;
    s->call.body_len = sizeof(s->body);
    if ((body->written & ~body->lost) != 0) {
        s->piece = piece;
        s->call.source_crc = send_payload(s, crcs);
    }
    return send_begin(s);
}

int rwm_send_units(struct rwm_peer *peer, const struct copy_forward *body, struct rwm_piece *piece,
                   const uint32_t *crcs, void (*done)(struct rwm_send *s, uint32_t status), void *owner)
{
    struct rwm_send *s = send_make(peer, done, owner);
    if (!s)
        return -ENOMEM;
    s->units = *body;
    s->units.cuts = rwm_volume_cuts(s->m, body->key.layer);
    s->piece = piece;
    s->sge[0] = (struct fabric_sge){.base = piece->chunk + (size_t)body->first_unit * UNIT_BYTES,
                                    .len = body->unit_count * UNIT_BYTES,
                                    .mem = rwm_piece_mem(piece->area, piece)};
    uint32_t crc = crcs[body->first_unit];
    for (uint32_t i = 1; i < body->unit_count; i++)
        crc = crc32c_combine(crc, crcs[body->first_unit + i], UNIT_BYTES);
    s->call.method = COPY_METHOD_FORWARD;
    s->call.body = &s->units;
    s->call.body_len = sizeof(s->units);
    s->call.source = s->sge;
    s->call.source_count = 1;
    s->call.source_crc = crc;
    return send_begin(s);
}
