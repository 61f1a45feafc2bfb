/*
 * fabric_verbs_mem.c: registered memory on verbs: arenas, message buffers, and what single ops register.
 *
 * Local pieces inside registered memory cost nothing. Others, and everything that is exposed to a peer, get a
 * registration of their own with exact bounds, which ends with the op: a peer that uses a key too late, or
 * beyond its bounds, kills the connection.
 */
#include "rdma/fabric_verbs.h"

#include <stdlib.h>
#include <string.h>

static struct ibv_mr *mr_make(struct verbs_fabric *vf, unsigned domain, void *base, size_t len, int flags)
{
    struct ibv_mr *mr = ibv_reg_mr(vf->pd[domain], base, len, flags);
    if (mr) {
        vf->core.counters.mrs++;
        vf->core.counters.registrations++;
    }
    return mr;
}

static void mr_free(struct verbs_fabric *vf, struct ibv_mr *mr)
{
    (void)ibv_dereg_mr(mr);
    vf->core.counters.mrs--;
}

/* ---- arenas ---- */

static int access_flags(unsigned access)
{
    int flags = IBV_ACCESS_LOCAL_WRITE;
    if (access & FABRIC_ACCESS_REMOTE_READ)
        flags |= IBV_ACCESS_REMOTE_READ;
    if (access & FABRIC_ACCESS_REMOTE_WRITE)
        flags |= IBV_ACCESS_REMOTE_WRITE;
    return flags;
}

int verbs_mem_register(struct fabric_mem *mem)
{
    struct verbs_fabric *vf = verbs_of(mem->fabric);
    struct verbs_mem *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return -ENOMEM;
    struct ibv_mr *mr = mr_make(vf, mem->domain - 1, mem->base, mem->len, access_flags(mem->access));
    if (!mr) {
        int rc = errno ? -errno : -ENOMEM;
        free(vm);
        return rc;
    }
    vm->mr[mem->domain - 1] = mr;
    mem->priv = vm;
    if (mem->access != FABRIC_ACCESS_LOCAL) {
        mem->key = mr->rkey;
        mem->remote_addr = (uintptr_t)mem->base;
    }
    return 0;
}

void verbs_mem_unregister(struct fabric_mem *mem)
{
    struct verbs_mem *vm = mem->priv;
    for (unsigned i = 0; i < VERBS_DOMAINS; i++)
        if (vm->mr[i])
            mr_free(verbs_of(mem->fabric), vm->mr[i]);
    free(vm);
    mem->priv = NULL;
}

static bool mem_holds(const struct fabric_mem *mem, const struct fabric_sge *s)
{
    uintptr_t at = (uintptr_t)s->base, base = (uintptr_t)mem->base;
    return at >= base && at - base <= mem->len && s->len <= mem->len - (at - base);
}

/* The local key of a piece that lies in registered memory; false when it does not. */
static bool arena_key(struct verbs_conn *vc, const struct fabric_sge *s, uint32_t *lkey)
{
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    unsigned domain = verbs_domain(vc);
    struct fabric_mem *mem = s->mem;
    if (!mem || mem->fabric != &vf->core || !mem_holds(mem, s)) {
        mem = NULL;
        list_for_each(n, &vf->core.mems)
        {
            struct fabric_region *r = list_entry(n, struct fabric_region, link);
            if (mem_holds(&r->mem, s)) {
                mem = &r->mem;
                break;
            }
        }
    }
    if (!mem)
        return false;
    struct verbs_mem *vm = mem->priv;
    if (!vm->mr[domain])
        vm->mr[domain] = mr_make(vf, domain, mem->base, mem->len, IBV_ACCESS_LOCAL_WRITE);
    if (!vm->mr[domain])
        return false;
    *lkey = vm->mr[domain]->lkey;
    return true;
}

/* ---- message buffers ---- */

static int chunk_add(struct verbs_fabric *vf, unsigned domain)
{
    struct verbs_buf **bufs =
        realloc(vf->bufs, (vf->buf_count + VERBS_CHUNK_BUFS) * sizeof(struct verbs_buf *));
    if (!bufs)
        return -ENOMEM;
    vf->bufs = bufs;
    struct verbs_chunk *c = calloc(1, sizeof(*c));
    size_t step = round_up(VERBS_BUF_BYTES, 64), bytes = step * VERBS_CHUNK_BUFS;
    if (c && posix_memalign(&c->base, 4096, bytes) == 0)
        c->mr = mr_make(vf, domain, c->base, bytes, IBV_ACCESS_LOCAL_WRITE);
    if (!c || !c->mr) {
        if (c)
            free(c->base);
        free(c);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < VERBS_CHUNK_BUFS; i++) {
        struct verbs_buf *b = &c->buf[i];
        b->index = vf->buf_count;
        b->lkey = c->mr->lkey;
        b->domain = domain;
        b->data = (uint8_t *)c->base + i * step;
        vf->bufs[vf->buf_count++] = b;
        list_push_back(&vf->bufs_free[domain], &b->link);
    }
    list_push_back(&vf->chunks, &c->link);
    return 0;
}

struct verbs_buf *verbs_buf_take(struct verbs_fabric *vf, unsigned domain)
{
    if (list_empty(&vf->bufs_free[domain]) && chunk_add(vf, domain) != 0)
        return NULL;
    struct list *n = list_pop_front(&vf->bufs_free[domain]);
    vf->core.counters.buffers_out++;
    return list_entry(n, struct verbs_buf, link);
}

void verbs_buf_put(struct verbs_fabric *vf, struct verbs_buf *buf)
{
    list_remove(&buf->link);
    vf->core.counters.buffers_out--;
    list_push_front(&vf->bufs_free[buf->domain], &buf->link);
}

/* ---- what one op needs ---- */

static struct verbs_pins *pins_take(struct verbs_fabric *vf)
{
    struct list *n = list_pop_front(&vf->pins_free);
    struct verbs_pins *p = n ? list_entry(n, struct verbs_pins, link) : malloc(sizeof(*p));
    if (!p)
        return NULL;
    list_init(&p->link);
    p->count = p->seg_count = 0;
    p->source_count = 0;
    p->has_slot = p->exposed = false;
    p->slot = 0;
    return p;
}

static struct ibv_mr *pin(struct verbs_conn *vc, struct verbs_pins *p, const struct fabric_sge *s, int flags)
{
    struct ibv_mr *mr = mr_make(verbs_fabric_of(vc), verbs_domain(vc), s->base, s->len, flags);
    if (mr)
        p->mr[p->count++] = mr;
    return mr;
}

static int pin_failed(struct verbs_conn *vc, struct fabric_op *op)
{
    int rc = errno == EFAULT ? -EFAULT : -ENOMEM;
    verbs_unpin(vc, op);
    return rc;
}

int verbs_pin_local(struct verbs_conn *vc, struct fabric_op *op)
{
    struct verbs_pins *p = pins_take(verbs_fabric_of(vc));
    if (!p)
        return -ENOMEM;
    op->id = (uintptr_t)p;
    for (unsigned i = 0; i < op->sge_count; i++) {
        const struct fabric_sge *s = &op->sge[i];
        p->lkey[i] = 0;
        if (s->len == 0 || arena_key(vc, s, &p->lkey[i]))
            continue;
        bool reads = op->kind == FABRIC_OP_READ || op->kind == FABRIC_OP_FETCH;
        struct ibv_mr *mr = pin(vc, p, s, reads ? IBV_ACCESS_LOCAL_WRITE : 0);
        if (!mr)
            return pin_failed(vc, op);
        p->lkey[i] = mr->lkey;
    }
    return 0;
}

static bool expose(struct verbs_conn *vc, struct verbs_pins *p, const struct fabric_sge *s, unsigned count,
                   int flags)
{
    for (unsigned i = 0; i < count; i++) {
        if (s[i].len == 0)
            continue;
        struct ibv_mr *mr = pin(vc, p, &s[i], flags);
        if (!mr)
            return false;
        p->seg[p->seg_count++] =
            (struct verbs_seg){.addr = (uintptr_t)s[i].base, .len = s[i].len, .key = mr->rkey};
    }
    return true;
}

/* A number for segments that do not fit struct fabric_remote. */
static bool slot_take(struct verbs_conn *vc, struct verbs_pins *p)
{
    if (!vc->slots_free) {
        vc->slots_free = calloc(VERBS_IMPORTS, sizeof(*vc->slots_free));
        if (!vc->slots_free)
            return false;
        for (uint32_t i = 0; i < VERBS_IMPORTS; i++)
            vc->slots_free[i] = (uint16_t)(VERBS_IMPORTS - 1 - i);
        vc->slots_free_count = VERBS_IMPORTS;
    }
    if (vc->slots_free_count == 0)
        return false;
    p->slot = vc->slots_free[--vc->slots_free_count];
    p->has_slot = true;
    return true;
}

int verbs_pin_exposed(struct verbs_conn *vc, struct fabric_op *op)
{
    struct verbs_pins *p = pins_take(verbs_fabric_of(vc));
    if (!p)
        return -ENOMEM;
    op->id = (uintptr_t)p;
    p->exposed = true;
    verbs_fabric_of(vc)->core.counters.exposures++;
    if (!expose(vc, p, op->sge, op->sge_count, IBV_ACCESS_REMOTE_READ))
        return pin_failed(vc, op);
    p->source_count = (uint8_t)p->seg_count;
    if (!expose(vc, p, op->sink, op->sink_count, IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE))
        return pin_failed(vc, op);
    if ((p->source_count > 1 || p->seg_count - p->source_count > 1) && !slot_take(vc, p)) {
        verbs_unpin(vc, op);
        return -EAGAIN;
    }
    return 0;
}

void verbs_unpin(struct verbs_conn *vc, struct fabric_op *op)
{
    struct verbs_pins *p = verbs_pins_of(op);
    if (!p)
        return;
    op->id = 0;
    for (unsigned i = 0; i < p->count; i++)
        mr_free(verbs_fabric_of(vc), p->mr[i]);
    if (p->exposed)
        verbs_fabric_of(vc)->core.counters.exposures--;
    if (p->has_slot)
        vc->slots_free[vc->slots_free_count++] = p->slot;
    list_push_front(&verbs_fabric_of(vc)->pins_free, &p->link);
}

void verbs_mem_free(struct verbs_fabric *vf)
{
    for (struct list *n; (n = list_pop_front(&vf->chunks));) {
        struct verbs_chunk *c = list_entry(n, struct verbs_chunk, link);
        mr_free(vf, c->mr);
        free(c->base);
        free(c);
    }
    for (struct list *n; (n = list_pop_front(&vf->pins_free));)
        free(list_entry(n, struct verbs_pins, link));
    free(vf->bufs);
}
