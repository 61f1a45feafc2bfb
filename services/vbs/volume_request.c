/*
 * Requests: cut into parts at stripe borders (and where a part would have too many pieces or too many bytes),
 * as many at once as the core's and the volume's limits allow; the rest waits in the volume's queue. A
 * request ends when its last part has; after an error, a time limit or the loss of the volume no further part
 * is sent, and those at a module are waited for, because their memory is the module's until then.
 */
#include <string.h>

#include "services/vbs/volume_internal.h"

uint32_t sge_slice(const struct fabric_sge *sge, unsigned count, uint64_t skip, uint32_t len,
                   struct fabric_sge *out, unsigned max, unsigned *out_count)
{
    unsigned i = 0, n = 0;
    while (i < count && skip >= sge[i].len)
        skip -= sge[i++].len;
    uint32_t covered = 0;
    while (covered < len && n < max) {
        MUST(i < count);
        uint32_t bytes = (uint32_t)min_u64(sge[i].len - skip, len - covered);
        if (bytes != 0)
            out[n++] =
                (struct fabric_sge){.base = (char *)sge[i].base + skip, .len = bytes, .mem = sge[i].mem};
        covered += bytes;
        skip = 0;
        i++;
    }
    uint32_t surplus = covered % SECTOR_BYTES;
    covered -= surplus;
    while (surplus != 0) {
        uint32_t cut = (uint32_t)min_u64(out[n - 1].len, surplus);
        out[n - 1].len -= cut;
        surplus -= cut;
        if (out[n - 1].len == 0)
            n--;
    }
    *out_count = n;
    return covered;
}

int sge_check(const struct fabric_sge *sge, unsigned count, uint64_t length)
{
    uint64_t total = 0;
    bool sectors = true;
    for (unsigned i = 0; i < count; i++) {
        total += sge[i].len;
        if (sge[i].len % SECTOR_BYTES != 0)
            sectors = false;
    }
    /* So many pieces may need a cut between any two: then each must end at a sector. */
    if (total != length || (count > FABRIC_SGE_MAX && !sectors))
        return -EINVAL;
    return 0;
}

static bool op_has_memory(enum volume_op op)
{
    return op == VOLUME_READ || op == VOLUME_WRITE;
}

static uint64_t request_end(const struct volume_request *req)
{
    return req->offset + req->length;
}

/* ---- ends ---- */

static void request_finish(struct volume_request *req)
{
    struct volume *v = req->volume;
    list_remove(&req->link);
    loop_timer_cancel(v->core->env->loop, &req->timer);
    trace_point(v->core->env->trace, loop_now_ns(v->core->env->loop), "request done", req->op, req->offset,
                (uint64_t)-req->rc);
    req->done(req, req->rc);
}

void part_give_up(struct part *p)
{
    struct volume *v = p->volume;
    v->parts--;
    if (!list_empty(&v->queue) && list_unlinked(&v->hungry))
        list_push_back(&v->core->hungry, &v->hungry);
    list_remove(&p->req_link);
    p->req->parts_open--;
    p->req = NULL;
    p->volume = NULL;
}

static void part_drop(struct part *p)
{
    struct volume_core *core = p->volume->core;
    part_give_up(p);
    part_free(core, p);
}

/* Nothing more of req is sent; what is at a module with its memory is waited for. */
static void request_begin_end(struct volume_request *req, int rc)
{
    if (req->rc == 0)
        req->rc = rc;
    if (req->state == REQUEST_SPLITTING) {
        list_remove(&req->link);
        list_push_back(&req->volume->requests, &req->link);
    }
    req->state = REQUEST_ENDING;
    list_for_each_safe(n, &req->parts)
    {
        struct part *p = list_entry(n, struct part, req_link);
        if (p->state != PART_SENT) {
            part_unlink(p);
            part_drop(p);
        } else if (!op_has_memory(req->op)) {
            part_give_up(p); /* the answer will be nobody's */
        }
    }
}

void request_part_ended(struct part *p, int rc)
{
    struct volume_request *req = p->req;
    struct volume_core *core = p->volume->core;
    part_drop(p);
    if (rc != 0 && req->state != REQUEST_ENDING)
        request_begin_end(req, rc);
    requests_pump(core);
    if (req->parts_open == 0 && req->state != REQUEST_SPLITTING)
        request_finish(req);
}

static void requests_end_list(struct list *l, int rc, struct list *finished)
{
    list_for_each_safe(n, l)
    {
        struct volume_request *req = list_entry(n, struct volume_request, link);
        if (req->state != REQUEST_ENDING)
            request_begin_end(req, rc);
        if (req->parts_open != 0)
            continue;
        list_remove(&req->link);
        list_push_back(finished, &req->link);
    }
}

void requests_end_all(struct volume *v, int rc)
{
    struct list finished;
    list_init(&finished);
    requests_end_list(&v->queue, rc, &finished);
    requests_end_list(&v->requests, rc, &finished);
    list_remove(&v->hungry);
    requests_pump(v->core);
    while (!list_empty(&finished))
        request_finish(list_entry(finished.next, struct volume_request, link));
}

static void on_timeout(struct loop_timer *t)
{
    struct volume_request *req = container_of(t, struct volume_request, timer);
    struct volume_core *core = req->volume->core;
    if (req->state != REQUEST_ENDING)
        request_begin_end(req, -ETIMEDOUT);
    requests_pump(core);
    if (req->parts_open == 0)
        request_finish(req);
}

static void on_flush(struct loop_timer *t)
{
    request_finish(container_of(t, struct volume_request, timer));
}

/* ---- splitting ---- */

static uint32_t part_length(const struct volume *v, const struct volume_request *req)
{
    uint64_t at = req->next_offset;
    uint64_t stripe_end = round_down(at, v->info.stripe_bytes) + v->info.stripe_bytes;
    uint64_t length = min_u64(min_u64(stripe_end, request_end(req)) - at, FABRIC_PAYLOAD_MAX);
    return (uint32_t)length;
}

/* Makes the next part of req and sends it on its way; false when the limits forbid it now. */
static bool request_make_part(struct volume *v, struct volume_request *req)
{
    struct volume_core *core = v->core;
    if (v->parts >= core->volume_parts_max)
        return false;
    struct part *p = pool_get(core->parts);
    if (p == NULL)
        return false;
    list_init(&p->link);
    list_init(&p->req_link);
    p->timer = (struct loop_timer){0};
    p->req = req;
    p->volume = v;
    p->ml = NULL;
    p->op = req->op;
    p->offset = req->next_offset;
    p->length = part_length(v, req);
    p->attempts = p->crc_failures = 0;
    p->fail_rc = 0;
    p->source_crc_known = false;
    p->copy = NULL;
    p->copy_mem = NULL;
    p->sge_count = 0;
    p->length = request_slice(req, p->length, p->sge, &p->sge_count);
    request_took(req, p->length, &p->req_link, &v->requests);
    v->parts++;
    core->counters.parts++;
    part_go(p);
    return true;
}

void requests_pump(struct volume_core *core)
{
    /* A volume at its own limit leaves the list; the end of one of its parts brings it back. */
    for (struct list *n; pool_free_count(core->parts) > 0 && (n = list_pop_front(&core->hungry)) != NULL;) {
        struct volume *v = list_entry(n, struct volume, hungry);
        if (list_empty(&v->queue))
            continue;
        struct volume_request *req = list_entry(v->queue.next, struct volume_request, link);
        if (request_make_part(v, req) && !list_empty(&v->queue))
            list_push_back(&core->hungry, &v->hungry);
    }
}

int request_check(const struct volume_request *req, uint64_t size_bytes, bool read_only)
{
    if (req->op == VOLUME_FLUSH)
        return 0;
    if (req->op > VOLUME_EXTENTS || req->length == 0 || req->offset % SECTOR_BYTES != 0 ||
        req->length % SECTOR_BYTES != 0)
        return -EINVAL;
    if (req->offset > size_bytes || req->length > size_bytes - req->offset)
        return -ERANGE;
    if (read_only && req->op != VOLUME_READ && req->op != VOLUME_EXTENTS)
        return -EROFS;
    if (op_has_memory(req->op))
        return sge_check(req->sge, req->sge_count, req->length);
    if (req->op == VOLUME_EXTENTS && req->bitmap == NULL)
        return -EINVAL;
    return 0;
}

void request_begin(struct volume_request *req)
{
    req->rc = 0;
    req->parts_open = 0;
    req->next_offset = req->offset;
    req->holes = req->op == VOLUME_READ;
    req->state = REQUEST_SPLITTING;
    list_init(&req->link);
    list_init(&req->parts);
    if (req->op == VOLUME_EXTENTS) {
        uint64_t first = req->offset / UNIT_BYTES, end = (request_end(req) + UNIT_BYTES - 1) / UNIT_BYTES;
        memset(req->bitmap, 0, (end - first + 7) / 8);
    }
}

uint32_t request_slice(const struct volume_request *req, uint32_t length, struct fabric_sge *out,
                       unsigned *count)
{
    *count = 0;
    if (!op_has_memory(req->op))
        return length;
    length = sge_slice(req->sge, req->sge_count, req->next_offset - req->offset, length, out, FABRIC_SGE_MAX,
                       count);
    MUST(length != 0);
    return length;
}

void request_took(struct volume_request *req, uint32_t length, struct list *part_link, struct list *whole)
{
    req->next_offset += length;
    req->parts_open++;
    list_push_back(&req->parts, part_link);
    if (req->next_offset != request_end(req))
        return;
    req->state = REQUEST_WHOLE;
    list_remove(&req->link);
    list_push_back(whole, &req->link);
}

int volume_submit(struct volume *v, struct volume_request *req)
{
    int rc = v->lost_rc != 0            ? v->lost_rc
             : v->state != VOLUME_READY ? -EINVAL
                                        : request_check(req, v->info.size_bytes, v->options.read_only);
    if (rc != 0)
        return rc;
    struct volume_core *core = v->core;
    core->counters.requests++;
    req->volume = v;
    request_begin(req);
    if (req->op == VOLUME_FLUSH) { /* what was acknowledged is durable */
        req->state = REQUEST_WHOLE;
        list_push_back(&v->requests, &req->link);
        loop_timer_init(&req->timer, on_flush);
        loop_timer_arm(core->env->loop, &req->timer, 0);
        return 0;
    }
    loop_timer_init(&req->timer, on_timeout);
    if (req->timeout_ns != 0)
        loop_timer_arm(core->env->loop, &req->timer, req->timeout_ns);
    bool first_in_queue = list_empty(&v->queue);
    list_push_back(&v->queue, &req->link);
    if (first_in_queue && list_empty(&core->hungry)) {
        while (req->state == REQUEST_SPLITTING && request_make_part(v, req))
            continue;
    }
    if (!list_empty(&v->queue) && list_unlinked(&v->hungry))
        list_push_back(&core->hungry, &v->hungry);
    return 0;
}
