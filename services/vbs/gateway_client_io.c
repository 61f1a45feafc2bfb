/* Requests through a gateway: cut into pieces of the protocol's size, repeated until a gateway gives a final
 * answer. */
#include <stdlib.h>
#include <string.h>

#include "common/crc.h"
#include "services/vbs/gateway_client_internal.h"

#define AGAIN_NS         (20 * NS_PER_MS)
#define CRC_FAILURES_MAX 3u

static const uint16_t client_methods[] = {
    [VOLUME_READ] = VBS_METHOD_READ, [VOLUME_WRITE] = VBS_METHOD_WRITE, [VOLUME_DISCARD] = VBS_METHOD_DISCARD,
    [VOLUME_ZERO] = VBS_METHOD_ZERO, [VOLUME_FLUSH] = VBS_METHOD_FLUSH, [VOLUME_EXTENTS] = VBS_METHOD_EXTENTS,
};

static bool op_has_memory(enum volume_op op)
{
    return op == VOLUME_READ || op == VOLUME_WRITE;
}

static uint64_t request_end(const struct volume_request *req)
{
    return req->offset + req->length;
}

/* ---- ends ---- */

void client_part_drop_copy(struct client_part *p)
{
    list_remove(&p->copy_link);
    if (p->copy_mem != NULL)
        fabric_mem_unregister(p->copy_mem);
    free(p->copy);
    p->copy_mem = NULL;
    p->copy = NULL;
}

static void client_part_free(struct client_part *p)
{
    struct vbs_client_volume *v = p->volume;
    list_remove(&p->link);
    list_remove(&p->req_link);
    p->req->parts_open--;
    client_part_drop_copy(p);
    pool_put(v->client->parts, p);
}

static void client_request_finish(struct volume_request *req)
{
    list_remove(&req->link);
    req->done(req, req->rc);
}

/* Nothing more of req is sent; what is at the gateway is waited for. */
static void client_request_begin_end(struct vbs_client_volume *v, struct volume_request *req, int rc)
{
    req->rc = rc;
    if (req->state == REQUEST_SPLITTING) {
        list_remove(&req->link);
        list_push_back(&v->requests, &req->link);
    }
    req->state = REQUEST_ENDING;
    list_for_each_safe(n, &req->parts)
    {
        struct client_part *p = list_entry(n, struct client_part, req_link);
        if (!p->sent)
            client_part_free(p);
    }
}

static void client_pump(struct vbs_client *c);

static void client_part_ended(struct client_part *p, int rc)
{
    struct vbs_client_volume *v = p->volume;
    struct volume_request *req = p->req;
    client_part_free(p);
    if (rc != 0 && req->state != REQUEST_ENDING)
        client_request_begin_end(v, req, rc);
    client_pump(v->client);
    if (req->parts_open == 0 && req->state != REQUEST_SPLITTING)
        client_request_finish(req);
}

void client_end_all(struct vbs_client_volume *v, int rc)
{
    struct list finished, *lists[] = {&v->queue, &v->requests};
    list_init(&finished);
    for (unsigned i = 0; i < ARRAY_LEN(lists); i++) {
        list_for_each_safe(n, lists[i])
        {
            struct volume_request *req = list_entry(n, struct volume_request, link);
            if (req->state != REQUEST_ENDING)
                client_request_begin_end(v, req, rc);
            if (req->parts_open != 0)
                continue;
            list_remove(&req->link);
            list_push_back(&finished, &req->link);
        }
    }
    client_pump(v->client);
    while (!list_empty(&finished))
        client_request_finish(list_entry(finished.next, struct volume_request, link));
}

/* ---- answers ---- */

static void part_again(struct client_part *p, uint64_t delay_ns)
{
    struct vbs_client_volume *v = p->volume;
    list_push_back(&v->waiting, &p->link);
    if (!loop_timer_armed(&v->retry))
        loop_timer_arm(v->client->env->loop, &v->retry, delay_ns);
}

static uint32_t part_crc(const struct client_part *p)
{
    uint32_t crc = 0;
    for (unsigned i = 0; i < p->sge_count; i++)
        crc = crc32c_extend(crc, p->sge[i].base, p->sge[i].len);
    return crc;
}

/* The gateway saw other bytes than were summed up: the user's page changes under way. A copy does not. */
static void part_copy(struct client_part *p)
{
    size_t room = round_up(p->length, UNIT_BYTES), at = 0;
    struct fabric *f = p->volume->client->env->fabric;
    if (p->copy == NULL && posix_memalign(&p->copy, UNIT_BYTES, room) == 0) {
        if (fabric_mem_register(f, FABRIC_DOMAIN_HOST, p->copy, room, FABRIC_ACCESS_LOCAL, &p->copy_mem) ==
            0) {
            for (unsigned i = 0; i < p->sge_count; at += p->sge[i++].len)
                memcpy((char *)p->copy + at, p->sge[i].base, p->sge[i].len);
            p->sge[0] = (struct fabric_sge){.base = p->copy, .len = p->length, .mem = p->copy_mem};
            p->sge_count = 1;
            list_push_back(&p->volume->client->copies, &p->copy_link);
            p->source_crc_known = false;
            part_again(p, 0);
            return;
        }
        free(p->copy);
        p->copy = NULL;
    }
    part_again(p, AGAIN_NS);
}

static void part_read_done(struct client_part *p, const struct rpc_result *result,
                           const struct vbs_io_reply *reply)
{
    if (reply->holes != 0) {
        for (unsigned i = 0; i < p->sge_count; i++)
            memset(p->sge[i].base, 0, p->sge[i].len);
        client_part_ended(p, 0);
        return;
    }
    p->req->holes = false;
    bool good = result->payload_len == p->length &&
                (!p->volume->client->config.verify_reads || part_crc(p) == result->payload_crc);
    if (good)
        client_part_ended(p, 0);
    else if (++p->crc_failures >= CRC_FAILURES_MAX)
        client_part_ended(p, -EIO);
    else
        part_again(p, 0);
}

static void part_extents_done(struct client_part *p, const struct rpc_result *result)
{
    const uint8_t *bits = (const uint8_t *)result->body + sizeof(struct vbs_io_reply);
    uint64_t first = p->offset / UNIT_BYTES, end = (p->offset + p->length + UNIT_BYTES - 1) / UNIT_BYTES;
    uint64_t base = p->req->offset / UNIT_BYTES;
    if (result->body_len < sizeof(struct vbs_io_reply) + (end - first + 7) / 8) {
        client_part_ended(p, -EPROTO);
        return;
    }
    for (uint64_t i = first; i < end; i++) {
        if ((bits[(i - first) / 8] >> ((i - first) % 8) & 1) == 0)
            continue;
        uint8_t *byte = &p->req->bitmap[(i - base) / 8];
        *byte = (uint8_t)(*byte | 1u << ((i - base) % 8));
    }
    client_part_ended(p, 0);
}

static void part_accepted(struct client_part *p, const struct rpc_result *result)
{
    struct vbs_io_reply reply;
    if (result->body_len < sizeof reply) {
        client_part_ended(p, -EPROTO);
        return;
    }
    memcpy(&reply, result->body, sizeof reply);
    client_set_size(p->volume, reply.size_bytes);
    if (p->req->op == VOLUME_READ)
        part_read_done(p, result, &reply);
    else if (p->req->op == VOLUME_EXTENTS)
        part_extents_done(p, result);
    else
        client_part_ended(p, 0);
}

static void part_refused(struct client_part *p, uint32_t status)
{
    struct vbs_client_volume *v = p->volume;
    switch (status) {
    case STATUS_STALE_TURN: /* the association is over; what was not acknowledged goes again in the next one
                             */
        if (p->handle != v->handle && v->assoc == ASSOC_OPEN) {
            part_again(p, 0); /* the next one is open already, and has sent what waited for it */
            return;
        }
        list_push_back(&v->waiting, &p->link);
        if (p->handle == v->handle)
            client_reopen(v);
        return;
    case STATUS_BAD_CRC:
        if (p->req->op == VOLUME_WRITE)
            part_copy(p);
        else
            client_part_ended(p, -EIO);
        return;
    case STATUS_AGAIN:
    case STATUS_BUSY:
    case STATUS_CANCELED:
    case STATUS_DISCONNECTED:
    case STATUS_TIMEOUT:
    case STATUS_NO_MEMORY:
        part_again(p, AGAIN_NS);
        return;
    default:
        client_part_ended(p, status_to_errno(status));
        return;
    }
}

static void on_part_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct client_part *p = container_of(call, struct client_part, call);
    struct vbs_client_volume *v = p->volume;
    struct vbs_client *c = v->client;
    p->sent = false;
    list_remove(&p->link);
    if (p->req->state == REQUEST_ENDING)
        client_part_ended(p, 0);
    else if (result->rc != 0)
        list_push_back(&v->waiting, &p->link); /* for the next association */
    else if (result->status == STATUS_OK)
        part_accepted(p, result);
    else
        part_refused(p, result->status);
    client_volume_call_ended(v);
    client_call_ended(c);
}

/* ---- sending ---- */

static int part_send(struct client_part *p)
{
    struct vbs_client_volume *v = p->volume;
    struct vbs_io io = {.handle = v->handle, .length = p->length, .offset = p->offset};
    struct rpc_call *call = &p->call;
    memset(call, 0, sizeof *call);
    call->method = client_methods[p->req->op];
    call->body = &io;
    call->body_len = sizeof io;
    call->done = on_part_done;
    if (p->req->op == VOLUME_WRITE) {
        if (!p->source_crc_known)
            p->source_crc = part_crc(p);
        p->source_crc_known = true;
        call->source = p->sge;
        call->source_count = p->sge_count;
        call->source_crc = p->source_crc;
    } else if (p->req->op == VOLUME_READ) {
        call->sink = p->sge;
        call->sink_count = p->sge_count;
    }
    int rc = rpc_call_start(v->client->peer, call);
    if (rc != 0)
        return rc;
    p->handle = v->handle;
    p->sent = true;
    v->calls++;
    v->client->calls++;
    return 0;
}

void client_send_waiting(struct vbs_client_volume *v)
{
    struct vbs_client *c = v->client;
    while (v->assoc == ASSOC_OPEN && c->state == CLIENT_READY && !list_empty(&v->waiting)) {
        struct client_part *p = list_entry(v->waiting.next, struct client_part, link);
        if (part_send(p) != 0) {
            loop_timer_arm(c->env->loop, &v->retry, AGAIN_NS);
            return;
        }
        list_remove(&p->link);
    }
}

static bool request_make_part(struct vbs_client_volume *v, struct volume_request *req)
{
    struct client_part *p = pool_get(v->client->parts);
    if (p == NULL)
        return false;
    memset(p, 0, offsetof(struct client_part, sge));
    list_init(&p->link);
    list_init(&p->copy_link);
    list_init(&p->req_link);
    p->volume = v;
    p->req = req;
    p->offset = req->next_offset;
    p->length =
        (uint32_t)min_u64(request_end(req) - p->offset, op_has_memory(req->op) ? VBS_IO_MAX : VBS_RANGE_MAX);
    p->length = request_slice(req, p->length, p->sge, &p->sge_count);
    request_took(req, p->length, &p->req_link, &v->requests);
    list_push_back(&v->waiting, &p->link);
    client_send_waiting(v);
    return true;
}

/* Runs no callbacks. */
static void client_pump(struct vbs_client *c)
{
    for (struct list *n; pool_free_count(c->parts) > 0 && (n = list_pop_front(&c->hungry)) != NULL;) {
        struct vbs_client_volume *v = list_entry(n, struct vbs_client_volume, hungry);
        if (list_empty(&v->queue))
            continue;
        (void)request_make_part(v, list_entry(v->queue.next, struct volume_request, link));
        if (!list_empty(&v->queue))
            list_push_back(&c->hungry, &v->hungry);
    }
}

int vbs_client_submit(struct vbs_client_volume *v, struct volume_request *req)
{
    int rc = v->lost_rc != 0 ? v->lost_rc
             : req->timeout_ns != 0 || v->open_done != NULL
                 ? -EINVAL
                 : request_check(req, v->info.size_bytes, v->options.read_only);
    if (rc != 0)
        return rc;
    struct vbs_client *c = v->client;
    if (req->op == VOLUME_FLUSH)
        req->offset = req->length = 0;
    request_begin(req);
    bool first_in_queue = list_empty(&v->queue);
    list_push_back(&v->queue, &req->link);
    if (first_in_queue && list_empty(&c->hungry)) {
        while (req->state == REQUEST_SPLITTING && request_make_part(v, req))
            continue;
    }
    if (!list_empty(&v->queue) && list_unlinked(&v->hungry))
        list_push_back(&c->hungry, &v->hungry);
    return 0;
}
