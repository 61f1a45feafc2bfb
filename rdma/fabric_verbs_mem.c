/*
 * fabric_verbs_mem.c: registered memory on verbs: arenas and message buffers.
 *
 * Arenas are registered without any right for peers; what a peer may reach of them is the business of
 * fabric_verbs_expose.c.
 */
#include "rdma/fabric_verbs.h"

#include "common/arena.h"
#include "common/log.h"

#include <stdlib.h>

struct ibv_mr *verbs_mr_make(struct verbs_dev *dev, unsigned domain, void *base, size_t len, int flags)
{
    struct ibv_mr *mr = ibv_reg_mr(dev->pd[domain], base, len, flags);
    if (mr) {
        dev->vf->core.counters.mrs++;
        dev->vf->core.counters.registrations++;
    }
    return mr;
}

void verbs_mr_free(struct verbs_fabric *vf, struct ibv_mr *mr)
{
    (void)ibv_dereg_mr(mr);
    vf->core.counters.mrs--;
}

/* ---- arenas ---- */

static int access_flags(const struct verbs_dev *dev, unsigned access)
{
    int flags = IBV_ACCESS_LOCAL_WRITE;
    if (access & FABRIC_ACCESS_REMOTE_READ)
        flags |= IBV_ACCESS_REMOTE_READ;
    if (access & FABRIC_ACCESS_REMOTE_WRITE)
        flags |= IBV_ACCESS_REMOTE_WRITE;
    if (access == FABRIC_ACCESS_LOCAL && dev->windows)
        flags |= IBV_ACCESS_MW_BIND;
    return flags;
}

static int mem_add(struct verbs_dev *dev, struct fabric_mem *mem, unsigned domain)
{
    struct verbs_mem *vm = mem->priv;
    errno = 0;
    struct ibv_mr *mr = verbs_mr_make(dev, domain, mem->base, mem->len,
                                      access_flags(dev, domain == mem->domain - 1 ? mem->access : 0));
    if (!mr)
        return errno ? -errno : -ENOMEM;
    vm->mr[dev->index][domain] = mr;
    if (mem->access != FABRIC_ACCESS_LOCAL && mem->remote_addr != (uintptr_t)mem->base) {
        mem->key = mr->rkey; /* of the first device; fabric_mem_key tells the others' */
        mem->remote_addr = (uintptr_t)mem->base;
    }
    return 0;
}

int verbs_mem_register(struct fabric_mem *mem)
{
    struct verbs_fabric *vf = verbs_of(mem->fabric);
    mem->priv = calloc(1, sizeof(struct verbs_mem));
    if (!mem->priv)
        return -ENOMEM;
    list_for_each(n, &vf->devs)
    {
        struct verbs_dev *dev = list_entry(n, struct verbs_dev, link);
        int rc = dev->dead ? 0 : mem_add(dev, mem, mem->domain - 1);
        if (rc) {
            verbs_mem_unregister(mem);
            return rc;
        }
        if (mem->access == FABRIC_ACCESS_LOCAL)
            break; /* the others when they use it */
    }
    return 0;
}

void verbs_mem_unregister(struct fabric_mem *mem)
{
    struct verbs_mem *vm = mem->priv;
    list_for_each_safe(n, &mem->fabric->conns)
    {
        struct verbs_conn *vc = verbs_conn_of(list_entry(n, struct fabric_conn, link));
        if (!vc->has_qp || !verbs_exposes(vc, mem))
            continue;
        fabric_core_fail(&vc->core, FABRIC_DOWN_ACCESS);
        verbs_qp_break(vc);
    }
    for (unsigned i = 0; i < VERBS_DEVS; i++)
        for (unsigned d = 0; d < VERBS_DOMAINS; d++)
            if (vm->mr[i][d])
                verbs_mr_free(verbs_of(mem->fabric), vm->mr[i][d]);
    free(vm);
    mem->priv = NULL;
}

uint32_t verbs_mem_key(const struct fabric_mem *mem, const struct fabric_conn *conn)
{
    const struct verbs_dev *dev = container_of(conn, struct verbs_conn, core)->dev;
    const struct verbs_mem *vm = mem->priv;
    const struct ibv_mr *mr = dev ? vm->mr[dev->index][mem->domain - 1] : NULL;
    return mem->access != FABRIC_ACCESS_LOCAL && mr ? mr->rkey : mem->key;
}

int verbs_mem_join(struct verbs_dev *dev)
{
    list_for_each(n, &dev->vf->core.mems)
    {
        struct fabric_mem *mem = &list_entry(n, struct fabric_region, link)->mem;
        int rc = mem->access == FABRIC_ACCESS_LOCAL ? 0 : mem_add(dev, mem, mem->domain - 1);
        if (rc)
            return rc;
    }
    return 0;
}

void verbs_mem_leave(struct verbs_dev *dev)
{
    list_for_each(n, &dev->vf->core.mems)
    {
        struct verbs_mem *vm = list_entry(n, struct fabric_region, link)->mem.priv;
        for (unsigned d = 0; d < VERBS_DOMAINS; d++) {
            if (vm->mr[dev->index][d])
                verbs_mr_free(dev->vf, vm->mr[dev->index][d]);
            vm->mr[dev->index][d] = NULL;
        }
    }
}

static bool mem_holds(const struct fabric_mem *mem, const struct fabric_sge *s)
{
    uintptr_t at = (uintptr_t)s->base, base = (uintptr_t)mem->base;
    return at >= base && at - base <= mem->len && s->len <= mem->len - (at - base);
}

struct ibv_mr *verbs_arena_of(struct verbs_dev *dev, unsigned domain, const struct fabric_sge *s,
                              const struct fabric_mem **out)
{
    struct fabric *f = &dev->vf->core;
    struct fabric_mem *mem = s->mem;
    if (!mem || mem->fabric != f || !mem_holds(mem, s)) {
        mem = NULL;
        list_for_each(n, &f->mems)
        {
            struct fabric_region *r = list_entry(n, struct fabric_region, link);
            if (mem_holds(&r->mem, s)) {
                mem = &r->mem;
                break;
            }
        }
    }
    if (!mem)
        return NULL;
    struct verbs_mem *vm = mem->priv;
    if (!vm->mr[dev->index][domain] && mem_add(dev, mem, domain) != 0)
        return NULL;
    *out = mem;
    return vm->mr[dev->index][domain];
}

/* ---- message buffers ---- */

/* Says once a process what its arenas are made of. */
static void *chunk_map(struct verbs_fabric *vf, size_t bytes)
{
    static bool said;
    bool huge;
    void *at = arena_map(bytes, &huge);
    if (at && !said)
        log_info(vf->core.env, "memory for RDMA", "pages=%s",
                 huge ? "huge" : "\"normal (no huge pages reserved: vm.nr_hugepages)\"");
    said |= at != NULL;
    return at;
}

static int chunk_add(struct verbs_dev *dev, unsigned domain)
{
    struct verbs_fabric *vf = dev->vf;
    size_t step = round_up(VERBS_BUF_BYTES, 64);
    uint32_t count = (uint32_t)(VERBS_ARENA_BYTES / step);
    struct verbs_buf **bufs = realloc(vf->bufs, (vf->buf_count + count) * sizeof(struct verbs_buf *));
    if (!bufs)
        return -ENOMEM;
    vf->bufs = bufs;
    struct verbs_chunk *c = calloc(1, sizeof(*c));
    if (c) {
        c->bytes = VERBS_ARENA_BYTES;
        c->buf = calloc(count, sizeof(*c->buf));
        c->base = c->buf ? chunk_map(vf, c->bytes) : NULL;
        c->mr = c->base ? verbs_mr_make(dev, domain, c->base, c->bytes, IBV_ACCESS_LOCAL_WRITE) : NULL;
    }
    if (!c || !c->mr) {
        if (c)
            arena_unmap(c->base, c->bytes);
        if (c)
            free(c->buf);
        free(c);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct verbs_buf *b = &c->buf[i];
        b->index = vf->buf_count;
        b->lkey = c->mr->lkey;
        b->domain = domain;
        b->dev = dev;
        b->data = (uint8_t *)c->base + i * step;
        vf->bufs[vf->buf_count++] = b;
        list_push_back(&dev->bufs_free[domain], &b->link);
    }
    list_push_back(&vf->chunks, &c->link);
    vf->core.counters.chunks++;
    return 0;
}

struct verbs_buf *verbs_buf_take(struct verbs_dev *dev, unsigned domain)
{
    if (list_empty(&dev->bufs_free[domain]) && chunk_add(dev, domain) != 0)
        return NULL;
    struct list *n = list_pop_front(&dev->bufs_free[domain]);
    dev->vf->core.counters.buffers_out++;
    return list_entry(n, struct verbs_buf, link);
}

void verbs_buf_put(struct verbs_buf *buf)
{
    list_remove(&buf->link);
    buf->dev->vf->core.counters.buffers_out--;
    list_push_front(&buf->dev->bufs_free[buf->domain], &buf->link);
}

void verbs_mem_free(struct verbs_fabric *vf)
{
    for (struct list *n; (n = list_pop_front(&vf->chunks));) {
        struct verbs_chunk *c = list_entry(n, struct verbs_chunk, link);
        verbs_mr_free(vf, c->mr);
        vf->core.counters.chunks--;
        arena_unmap(c->base, c->bytes);
        free(c->buf);
        free(c);
    }
    for (struct list *n; (n = list_pop_front(&vf->pins_free));)
        free(list_entry(n, struct verbs_pins, link));
    free(vf->bufs);
    vf->bufs = NULL;
}
