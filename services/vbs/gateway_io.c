/*
 * Requests of clients. Each is an object of the pool from its arrival to its reply:
 *   waiting for buffers (gw->waiting, in order; an association that has its share lets others pass) -> a
 * write's payload is fetched and its CRC checked -> volume_submit -> reply; a read's buffers are free when
 * the fabric has pushed them.
 */
#include <string.h>

#include "common/crc.h"
#include "services/vbs/gateway_internal.h"

static void request_start(struct gateway_request *gr);

uint32_t gateway_status(int rc)
{
    switch (rc) {
    case -ESTALE: /* this association is over: open again */
        return STATUS_STALE_TURN;
    case -EIO:
        return STATUS_IO;
    case -ECANCELED:
        return STATUS_CANCELED;
    default:
        return status_from_errno(rc);
    }
}

/* ---- buffers ---- */

static bool request_may_start(const struct gateway_request *gr)
{
    struct gateway *gw = gr->gw;
    return pool_free_count(gw->chunks) >= gr->chunks_wanted &&
           gr->open->chunks + gr->chunks_wanted <= gw->chunks_per_open;
}

static void chunks_take(struct gateway_request *gr)
{
    uint32_t left = gr->length;
    gr->chunk_count = gr->chunks_wanted;
    gr->open->chunks += gr->chunk_count;
    for (unsigned i = 0; i < gr->chunk_count; i++) {
        uint32_t len = (uint32_t)min_u64(left, GATEWAY_CHUNK_BYTES);
        gr->sge[i] = (struct fabric_sge){.base = pool_get(gr->gw->chunks), .len = len, .mem = gr->gw->mem};
        MUST(gr->sge[i].base != NULL);
        left -= len;
    }
}

static void requests_pump_once(struct gateway *gw)
{
    list_for_each_safe(n, &gw->waiting)
    {
        struct gateway_request *gr = list_entry(n, struct gateway_request, link);
        if (pool_free_count(gw->chunks) == 0)
            return;
        if (!request_may_start(gr))
            continue;
        list_remove(&gr->link);
        request_start(gr);
    }
}

/* A request that starts may end at once and free buffers: that asks for another pass, never for one inside
 * this. */
static void requests_pump_waiting(struct gateway *gw)
{
    gw->pump_again = true;
    if (gw->pumping)
        return;
    gw->pumping = true;
    while (gw->pump_again) {
        gw->pump_again = false;
        requests_pump_once(gw);
    }
    gw->pumping = false;
}

/* The request is over and replied to. */
static void request_free(struct gateway_request *gr)
{
    struct gateway *gw = gr->gw;
    struct gateway_open *open = gr->open;
    for (unsigned i = 0; i < gr->chunk_count; i++)
        pool_put(gw->chunks, gr->sge[i].base);
    open->chunks -= gr->chunk_count;
    open->requests--;
    gr->chunk_count = 0;
    pool_put(gw->requests, gr);
    gateway_open_rest(open);
    requests_pump_waiting(gw);
}

/* ---- ends ---- */

static struct vbs_io_reply reply_body(const struct gateway_request *gr)
{
    struct volume_info info;
    volume_info_get(gr->open->volume, &info);
    return (struct vbs_io_reply){.size_bytes = info.size_bytes};
}

static void request_refuse(struct gateway_request *gr, int rc)
{
    struct vbs_io_reply reply = reply_body(gr);
    const uint32_t status = rc == -EBADMSG && gr->vr.op != VOLUME_WRITE ? STATUS_IO : gateway_status(rc);
    if (rc == -EBADMSG)
        gr->gw->stats.crc_errors++;
    else if (rc != -ECANCELED)
        gr->gw->stats.errors++;
    gateway_count_refused(gr->gw, status);
    rpc_reply(gr->rpc, status, &reply, sizeof reply);
    request_free(gr);
}

static void on_payload_sent(void *arg)
{
    request_free(arg);
}

static void reply_read(struct gateway_request *gr)
{
    struct vbs_io_reply reply = reply_body(gr);
    if (gr->vr.holes) {
        reply.holes = 1;
        rpc_reply(gr->rpc, STATUS_OK, &reply, sizeof reply);
        request_free(gr);
        return;
    }
    uint32_t crc = 0;
    for (unsigned i = 0; i < gr->chunk_count; i++)
        crc = crc32c_extend(crc, gr->sge[i].base, gr->sge[i].len);
    rpc_reply_payload(gr->rpc, STATUS_OK, &reply, sizeof reply, gr->sge, gr->chunk_count, crc,
                      on_payload_sent, gr);
}

/* The chunk holds the reply's head, then the bitmap. */
static void reply_extents(struct gateway_request *gr)
{
    struct vbs_io_reply reply = reply_body(gr);
    memcpy(gr->sge[0].base, &reply, sizeof reply);
    uint64_t first = gr->vr.offset / UNIT_BYTES,
             end = (gr->vr.offset + gr->vr.length + UNIT_BYTES - 1) / UNIT_BYTES;
    rpc_reply(gr->rpc, STATUS_OK, gr->sge[0].base, (uint32_t)(sizeof reply + (end - first + 7) / 8));
    request_free(gr);
}

static void on_volume_done(struct volume_request *vr, int rc)
{
    struct gateway_request *gr = container_of(vr, struct gateway_request, vr);
    if (rc != 0) {
        request_refuse(gr, rc);
        return;
    }
    gateway_count_done(gr);
    if (vr->op == VOLUME_READ) {
        reply_read(gr);
        return;
    }
    if (vr->op == VOLUME_EXTENTS) {
        reply_extents(gr);
        return;
    }
    struct vbs_io_reply reply = reply_body(gr);
    rpc_reply(gr->rpc, STATUS_OK, &reply, sizeof reply);
    request_free(gr);
}

/* ---- beginnings ---- */

static void request_submit(struct gateway_request *gr)
{
    struct volume_request *vr = &gr->vr;
    vr->sge = gr->sge;
    vr->sge_count = gr->chunk_count;
    vr->timeout_ns = 0;
    vr->done = on_volume_done;
    if (vr->op == VOLUME_EXTENTS)
        vr->bitmap = (uint8_t *)gr->sge[0].base + sizeof(struct vbs_io_reply);
    int rc = gr->open->ending ? -ECANCELED : volume_submit(gr->open->volume, vr);
    if (rc != 0)
        request_refuse(gr, rc);
}

static void on_fetched(void *arg, int rc)
{
    struct gateway_request *gr = arg;
    if (rc != 0)
        request_refuse(gr, rc);
    else
        request_submit(gr);
}

static void request_start(struct gateway_request *gr)
{
    chunks_take(gr);
    if (gr->vr.op != VOLUME_WRITE) {
        request_submit(gr);
        return;
    }
    int rc = rpc_request_fetch(gr->rpc, gr->sge, gr->chunk_count, on_fetched, gr);
    if (rc != 0)
        request_refuse(gr, rc);
}

void gateway_drop_waiting(struct gateway_open *open)
{
    struct gateway *gw = open->client->gw;
    struct list mine;
    list_init(&mine);
    list_for_each_safe(n, &gw->waiting)
    {
        struct gateway_request *gr = list_entry(n, struct gateway_request, link);
        if (gr->open != open)
            continue;
        list_remove(n);
        list_push_back(&mine, n);
    }
    for (struct list *n; (n = list_pop_front(&mine)) != NULL;)
        request_refuse(list_entry(n, struct gateway_request, link), -ECANCELED);
}

/* 0 or -errno: what a request asks for can be served at all. */
static int request_check(enum volume_op op, const struct vbs_io *io, const struct rpc_request *rpc)
{
    uint32_t max = op == VOLUME_READ || op == VOLUME_WRITE ? VBS_IO_MAX : VBS_RANGE_MAX;
    if (op == VOLUME_FLUSH)
        return 0;
    if (io->length == 0 || io->length > max || io->length % SECTOR_BYTES != 0 ||
        io->offset % SECTOR_BYTES != 0)
        return -EINVAL;
    if (op == VOLUME_READ && rpc_request_sink_len(rpc) < io->length)
        return -EINVAL;
    if (op == VOLUME_WRITE && rpc_request_payload_len(rpc) != io->length)
        return -EINVAL;
    return 0;
}

static unsigned chunks_for(enum volume_op op, uint32_t length)
{
    if (op == VOLUME_READ || op == VOLUME_WRITE)
        return (length + GATEWAY_CHUNK_BYTES - 1) / GATEWAY_CHUNK_BYTES;
    return op == VOLUME_EXTENTS ? 1 : 0;
}

static void request_arrived(struct gateway *gw, enum volume_op op, struct rpc_request *rpc, const void *body)
{
    struct gateway_client *client = rpc_peer_user(rpc_request_peer(rpc));
    struct vbs_io io;
    memcpy(&io, body, sizeof io);
    struct gateway_open *open = client != NULL ? gateway_find_open(client, io.handle) : NULL;
    int rc = open != NULL ? request_check(op, &io, rpc) : -ESTALE;
    struct gateway_request *gr = rc == 0 ? pool_get(gw->requests) : NULL;
    if (gr == NULL) {
        const uint32_t status = rc == 0 ? STATUS_AGAIN : gateway_status(rc);
        gateway_count_refused(gw, status);
        rpc_reply(rpc, status, NULL, 0);
        return;
    }
    memset(&gr->vr, 0, sizeof gr->vr);
    list_init(&gr->link);
    gr->gw = gw;
    gr->open = open;
    gr->rpc = rpc;
    gr->arrived_ns = loop_now_ns(gw->env->loop);
    gr->vr.op = op;
    gr->vr.offset = io.offset;
    gr->vr.length = op == VOLUME_FLUSH ? 0 : io.length;
    gr->length = io.length;
    gr->chunks_wanted = chunks_for(op, io.length);
    gr->chunk_count = 0;
    open->requests++;
    if (gr->chunks_wanted != 0 && (!list_empty(&gw->waiting) || !request_may_start(gr)))
        list_push_back(&gw->waiting, &gr->link);
    else
        request_start(gr);
}

void gateway_handle_read(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)
{
    (void)body_len;
    request_arrived(service, VOLUME_READ, rpc, body);
}
void gateway_handle_write(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)
{
    (void)body_len;
    request_arrived(service, VOLUME_WRITE, rpc, body);
}
void gateway_handle_discard(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)
{
    (void)body_len;
    request_arrived(service, VOLUME_DISCARD, rpc, body);
}
void gateway_handle_zero(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)
{
    (void)body_len;
    request_arrived(service, VOLUME_ZERO, rpc, body);
}
void gateway_handle_flush(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)
{
    (void)body_len;
    request_arrived(service, VOLUME_FLUSH, rpc, body);
}
void gateway_handle_extents(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)
{
    (void)body_len;
    request_arrived(service, VOLUME_EXTENTS, rpc, body);
}
