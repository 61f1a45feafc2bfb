/* fabric_memory.c: registered memory, and what a peer may do with it. */
#include "rdma/fabric_provider.h"

#include "common/rng.h"

#include <stdlib.h>
#include <string.h>

static struct fabric_region *region_find(const struct fabric *f, uint32_t key)
{
    list_for_each(n, &f->mems)
    {
        struct fabric_region *r = list_entry(n, struct fabric_region, link);
        if (r->mem.key == key)
            return r;
    }
    return NULL;
}

int fabric_mem_register(struct fabric *f, enum fabric_domain domain, void *base, size_t len, unsigned access,
                        struct fabric_mem **out)
{
    bool remote = (access & (FABRIC_ACCESS_REMOTE_READ | FABRIC_ACCESS_REMOTE_WRITE)) != 0;
    if (!base || !len || len >= 1ull << 40 ||
        access > (FABRIC_ACCESS_REMOTE_READ | FABRIC_ACCESS_REMOTE_WRITE))
        return -EINVAL;
    /* Hosts never reach memory by themselves; tables are read-only. */
    if (domain < FABRIC_DOMAIN_HOST || domain > FABRIC_DOMAIN_TABLE ||
        (remote && domain == FABRIC_DOMAIN_HOST) ||
        ((access & FABRIC_ACCESS_REMOTE_WRITE) && domain == FABRIC_DOMAIN_TABLE))
        return -EINVAL;
    struct fabric_region *r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->mem.fabric = f;
    r->mem.base = base;
    r->mem.len = len;
    r->mem.access = access;
    r->mem.domain = (uint32_t)domain;
    while (remote && (r->mem.key == 0 || region_find(f, r->mem.key)))
        r->mem.key = (uint32_t)rng_u64(f->env->rng);
    /* Not the address in this process: the same seed must give the same bytes. verbs overwrites it. */
    r->mem.remote_addr = remote ? ++f->mem_serial << 40 : 0;
    int rc = f->ops->mem_register ? f->ops->mem_register(&r->mem) : 0;
    if (rc) {
        free(r);
        return rc;
    }
    list_push_back(&f->mems, &r->link);
    f->counters.mems++;
    *out = &r->mem;
    return 0;
}

void fabric_mem_unregister(struct fabric_mem *mem)
{
    if (!mem)
        return;
    struct fabric *f = mem->fabric;
    struct fabric_region *r = container_of(mem, struct fabric_region, mem);
    list_remove(&r->link); /* first: what fails because of it finds no region */
    if (f->ops->mem_unregister)
        f->ops->mem_unregister(mem);
    f->counters.mems--;
    free(r);
}

uint32_t fabric_mem_key(const struct fabric_mem *mem, const struct fabric_conn *conn)
{
    const struct fabric_ops *ops = mem->fabric->ops;
    return ops->mem_key ? ops->mem_key(mem, conn) : mem->key;
}

struct fabric_mem *fabric_core_mem_check(const struct fabric_conn *conn, uint64_t addr, uint32_t key,
                                         uint32_t len, unsigned access, void **at)
{
    uint32_t domain = (uint32_t)conn->peer.domain;
    if ((conn->state != CONN_UP && !conn->early) || key == 0 || domain == FABRIC_DOMAIN_HOST)
        return NULL;
    struct fabric_region *r = region_find(conn->fabric, key);
    if (!r || r->mem.domain != domain || (r->mem.access & access) != access)
        return NULL;
    if (domain == FABRIC_DOMAIN_TABLE && access != FABRIC_ACCESS_REMOTE_READ)
        return NULL;
    if (addr < r->mem.remote_addr || addr - r->mem.remote_addr > r->mem.len ||
        len > r->mem.len - (addr - r->mem.remote_addr))
        return NULL;
    *at = (char *)r->mem.base + (addr - r->mem.remote_addr);
    return &r->mem;
}

void fabric_copy(void *to, const void *from, size_t len)
{
    if (len == 8 && ((uintptr_t)to & 7) == 0 && ((uintptr_t)from & 7) == 0)
        __atomic_store_n((uint64_t *)to, __atomic_load_n((const uint64_t *)from, __ATOMIC_RELAXED),
                         __ATOMIC_RELAXED);
    else if (len == 4 && ((uintptr_t)to & 3) == 0 && ((uintptr_t)from & 3) == 0)
        __atomic_store_n((uint32_t *)to, __atomic_load_n((const uint32_t *)from, __ATOMIC_RELAXED),
                         __ATOMIC_RELAXED);
    else
        memcpy(to, from, len);
}
