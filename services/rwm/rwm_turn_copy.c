/*
 * rwm_turn_copy.c: a member that is filled gets the write turns, too. Who becomes the primary has to refuse
 * the writes of a gateway that a host has left, also where the host's first write with its new turn went to
 * an earlier primary. In sync, it hears of turns with the writes; those of before come here, at the end of
 * catch-up.
 *
 * One pass over all records to a peer, whichever partitions are filled there; m->turn_serial tells whether
 * anything has changed since. A turn that is accepted after the member joined comes with its write.
 */
#include "services/rwm/rwm_copies.h"

#include <stdlib.h>
#include <string.h>

struct rwm_turn_pass {
    struct rwm_peer *peer;
    struct rpc_call call;
    uint32_t next, volume; /* records looked at: turns, then floors of volumes */
    uint64_t serial;       /* when it began */
    struct {
        struct copy_turns head;
        struct copy_turn item[COPY_TURNS_MAX];
    } body;
};

/* ---- the primary ---- */

static void pass_add(struct rwm_turn_pass *t, const struct uuid *volume, uint64_t host, uint64_t turn)
{
    t->body.item[t->body.head.count++] = (struct copy_turn){.volume = *volume, .host = host, .turn = turn};
}

static void pass_fill(struct rwm_turn_pass *t)
{
    const struct rwm *m = t->peer->m;
    t->body.head.count = 0;
    for (; t->next < m->turn_capacity && t->body.head.count < COPY_TURNS_MAX; t->next++) {
        const struct store_turn_record *rec = rwm_record(m, STORE_TURN, t->next);
        if (!uuid_is_zero(&rec->volume))
            pass_add(t, &rec->volume, rec->host, rec->turn);
    }
    for (;
         t->next == m->turn_capacity && t->volume < m->volume_capacity && t->body.head.count < COPY_TURNS_MAX;
         t->volume++) {
        const struct rwm_volume *v = &m->volumes[t->volume];
        if (!uuid_is_zero(&v->id) && v->turn_floor != 0)
            pass_add(t, &v->id, 0, v->turn_floor);
    }
}

static void pass_end(struct rwm_turn_pass *t)
{
    t->peer->turns = NULL;
    rwm_tick_soon(t->peer->m);
    free(t);
}

static void pass_next(struct rwm_turn_pass *t);

static void pass_told(struct rpc_call *call, const struct rpc_result *result)
{
    struct rwm_turn_pass *t = container_of(call, struct rwm_turn_pass, call);
    rwm_peer_call_ended(t->peer);
    if (result->rc != 0 || result->status != STATUS_OK)
        pass_end(t); /* begun anew when somebody asks again */
    else
        pass_next(t);
}

static void pass_next(struct rwm_turn_pass *t)
{
    pass_fill(t);
    if (t->body.head.count == 0) {
        t->peer->turns_told = t->serial;
        pass_end(t);
        return;
    }
    t->call = (struct rpc_call){
        .method = COPY_METHOD_TURNS,
        .body = &t->body,
        .body_len = (uint32_t)(sizeof(t->body.head) + t->body.head.count * sizeof(t->body.item[0])),
        .done = pass_told};
    if (rwm_peer_call(t->peer, &t->call) != 0)
        pass_end(t);
}

bool rwm_turns_told(struct rwm_copy *k)
{
    struct rwm *m = k->c->m;
    struct rwm_peer *peer = k->peer;
    if (k->turn_serial == 0)
        k->turn_serial = m->turn_serial;
    if (peer->turns_told >= k->turn_serial)
        return true;
    if (peer->turns || peer->state != PEER_UP)
        return false;
    struct rwm_turn_pass *t = calloc(1, sizeof(*t));
    if (!t)
        return false;
    t->peer = peer;
    t->serial = m->turn_serial;
    t->body.head.head = rwm_copies_head(k->c);
    peer->turns = t;
    pass_next(t);
    return false;
}

/* ---- the member ---- */

static void turns_durable(struct store_record_op *op, int rc)
{
    struct rwm_request *req = container_of(op, struct rwm_request, copy.turns);
    struct rpc_request *rpc = req->rpc;
    rwm_request_free(req);
    if (rpc)
        rpc_reply(rpc, rc == 0 ? STATUS_OK : STATUS_IO, NULL, 0);
}

static int take_one(struct rwm *m, const struct copy_turn *t)
{
    if (t->host != 0)
        return rwm_turn_accept(m, &t->volume, t->host, t->turn);
    struct rwm_volume *v = rwm_volume_find(m, &t->volume);
    return v ? rwm_volume_set_turn_floor(m, v, t->turn) : 0;
}

/* 0, -EINVAL, -EAGAIN, or of the store. */
static int take_all(struct rwm *m, const uint8_t *items, uint32_t count)
{
    int rc = 0;
    for (uint32_t i = 0; i < count && rc == 0; i++) {
        struct copy_turn t;
        memcpy(&t, items + i * sizeof(t), sizeof(t));
        rc = uuid_is_zero(&t.volume) || t.turn >= BLOCK_TURN_MAX ? -EINVAL : take_one(m, &t);
    }
    return rc;
}

void rwm_turns_serve(struct rwm *m, struct rwm_request *req, const struct copy_turns *rq,
                     const uint8_t *items, uint32_t bytes)
{
    struct rpc_request *rpc = req->rpc;
    int rc = rq->count == 0 || rq->count > COPY_TURNS_MAX || bytes != rq->count * sizeof(struct copy_turn)
                 ? -EINVAL
                 : take_all(m, items, rq->count);
    if (rc == 0) {
        /* What was set before any record is durable before it: any will do. */
        const uint32_t last = m->turn_capacity - 1;
        struct store_turn_record rec;
        memcpy(&rec, rwm_record(m, STORE_TURN, last), sizeof(rec));
        req->state = RWM_REQUEST_RUNNING;
        memset(&req->copy.turns, 0, sizeof(req->copy.turns));
        list_init(&req->copy.turns.link);
        req->copy.turns.done = turns_durable;
        rc = store_record_set(m->store, &req->copy.turns, STORE_TURN, last, &rec);
        if (rc == 0)
            return;
    }
    uint32_t status = rc == -EINVAL   ? STATUS_INVALID
                      : rc == -EAGAIN ? STATUS_AGAIN
                                      : rwm_status_of_store(m, rc, "record a write turn");
    rwm_request_free(req);
    if (rpc)
        rpc_reply(rpc, status, NULL, 0);
}
