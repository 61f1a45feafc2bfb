/*
 * fabric_verbs_expose.c: what single ops need of memory: local keys, and keys for the peer.
 *
 * Pieces in registered memory cost no registration. An exposed one gets a memory window of type 2: bound to
 * this queue pair, with exact bounds, by a work request before the message, and invalidated by the peer's
 * reply (SEND with invalidate), or else by a work request after the op was retired. Memory of nobody's arena,
 * or a device without windows: a registration for the op. Either way a peer that uses a key too late, or
 * beyond its bounds, kills its connection and nothing else.
 */
#include "rdma/fabric_verbs.h"

#include <stdlib.h>

/* ---- windows ---- */

static struct verbs_window *window_take(struct verbs_dev *dev, unsigned domain)
{
    struct list *n = list_pop_front(&dev->windows_free[domain]);
    if (n) {
        dev->vf->core.counters.windows_out++;
        return list_entry(n, struct verbs_window, link);
    }
    struct verbs_window *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->mw = ibv_alloc_mw(dev->pd[domain], IBV_MW_TYPE_2);
    if (!w->mw) {
        free(w);
        return NULL;
    }
    w->rkey = w->mw->rkey;
    list_init(&w->by_key);
    dev->vf->core.counters.windows++;
    dev->vf->core.counters.windows_out++;
    return w;
}

static void window_free(struct verbs_dev *dev, struct verbs_window *w)
{
    list_remove(&w->by_key);
    (void)ibv_dealloc_mw(w->mw);
    dev->vf->core.counters.windows--;
    free(w);
}

/* Not an operation's any more: kept for the next one. */
static void window_put(struct verbs_dev *dev, unsigned domain, struct verbs_window *w)
{
    dev->vf->core.counters.windows_out--;
    list_push_front(&dev->windows_free[domain], &w->link);
}

/* An operation's, and of no use any more. */
static void window_drop(struct verbs_dev *dev, struct verbs_window *w)
{
    dev->vf->core.counters.windows_out--;
    window_free(dev, w);
}

void verbs_windows_free(struct verbs_dev *dev)
{
    for (unsigned i = 0; i < VERBS_DOMAINS; i++)
        for (struct list *n; (n = list_pop_front(&dev->windows_free[i]));)
            window_free(dev, list_entry(n, struct verbs_window, link));
}

/* The lower 8 bits of a key are those that each bind changes (ibv_inc_rkey(3)). */
static struct list *bucket_of(struct verbs_dev *dev, uint32_t rkey)
{
    return &dev->bound[(rkey >> 8) % VERBS_KEY_BUCKETS];
}

void verbs_window_bind(struct verbs_conn *vc, struct verbs_window *w)
{
    w->rkey = ibv_inc_rkey(w->rkey);
    w->bound = true;
    w->vc = vc;
    list_push_back(bucket_of(vc->dev, w->rkey), &w->by_key);
}

void verbs_window_ended(struct verbs_window *w)
{
    w->bound = false;
    w->vc = NULL;
    w->mw->rkey = w->rkey; /* the next bind tells the device the key that the window has now */
    list_remove(&w->by_key);
}

bool verbs_ended_by_peer(struct verbs_conn *vc, uint32_t rkey)
{
    list_for_each(n, bucket_of(vc->dev, rkey))
    {
        struct verbs_window *w = list_entry(n, struct verbs_window, by_key);
        if (w->rkey != rkey || w->vc != vc)
            continue;
        verbs_window_ended(w);
        vc->dev->vf->core.counters.ended_by_peer++;
        return true;
    }
    return false;
}

/* A bound window cannot be invalidated any more: it goes. */
static void pins_revoke(struct verbs_conn *vc, struct verbs_pins *p)
{
    for (unsigned i = 0; p && i < p->seg_count; i++) {
        if (p->hold[i].window && p->hold[i].window->bound) {
            window_drop(vc->dev, p->hold[i].window);
            p->hold[i].window = NULL;
        }
    }
}

void verbs_windows_revoke(struct verbs_conn *vc)
{
    struct list *lists[] = {&vc->tx, &vc->inv, &vc->core.active};
    for (unsigned i = 0; i < ARRAY_LEN(lists); i++)
        list_for_each(n, lists[i]) pins_revoke(vc, verbs_pins_of(list_entry(n, struct fabric_op, link)));
}

static bool pins_use(const struct verbs_pins *p, const struct fabric_mem *mem)
{
    for (unsigned i = 0; p && i < p->seg_count; i++)
        if (p->hold[i].window && p->hold[i].mem == mem)
            return true;
    return false;
}

bool verbs_exposes(const struct verbs_conn *vc, const struct fabric_mem *mem)
{
    const struct list *lists[] = {&vc->tx, &vc->inv, &vc->core.active};
    for (unsigned i = 0; i < ARRAY_LEN(lists); i++)
        list_for_each(
            n, lists[i]) if (pins_use(verbs_pins_of(list_entry(n, struct fabric_op, link)), mem)) return true;
    return false;
}

/* ---- pins ---- */

static struct verbs_pins *pins_take(struct verbs_fabric *vf)
{
    struct list *n = list_pop_front(&vf->pins_free);
    struct verbs_pins *p = n ? list_entry(n, struct verbs_pins, link) : malloc(sizeof(*p));
    if (!p)
        return NULL;
    list_init(&p->link);
    p->count = p->seg_count = p->bound = p->invalidated = 0;
    p->source_count = 0;
    p->has_slot = p->exposed = false;
    p->slot = 0;
    return p;
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
    bool reads = op->kind == FABRIC_OP_READ || op->kind == FABRIC_OP_FETCH;
    bool own = reads && vc->dev->iwarp; /* the arena has no right that this device wants of a sink */
    int flags = own ? IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE : reads ? IBV_ACCESS_LOCAL_WRITE : 0;
    for (unsigned i = 0; i < op->sge_count; i++) {
        const struct fabric_sge *s = &op->sge[i];
        const struct fabric_mem *mem;
        p->lkey[i] = 0;
        if (s->len == 0)
            continue;
        struct ibv_mr *mr = own ? NULL : verbs_arena_of(vc->dev, verbs_domain(vc), s, &mem);
        if (!mr) {
            mr = verbs_mr_make(vc->dev, verbs_domain(vc), s->base, s->len, flags);
            if (!mr)
                return pin_failed(vc, op);
            p->mr[p->count++] = mr;
        }
        p->lkey[i] = mr->lkey;
    }
    return 0;
}

/* One more segment. */
static bool expose_one(struct verbs_conn *vc, struct verbs_pins *p, const struct fabric_sge *s, int flags)
{
    struct verbs_dev *dev = vc->dev;
    struct verbs_hold *h = &p->hold[p->seg_count];
    struct verbs_seg *seg = &p->seg[p->seg_count];
    *h = (struct verbs_hold){0};
    *seg = (struct verbs_seg){.addr = (uintptr_t)s->base, .len = s->len};
    h->arena = dev->windows ? verbs_arena_of(dev, verbs_domain(vc), s, &h->mem) : NULL;
    if (h->arena && h->mem->access == FABRIC_ACCESS_LOCAL)
        h->window = window_take(dev, verbs_domain(vc));
    if (!h->window) {
        h->mr = verbs_mr_make(dev, verbs_domain(vc), s->base, s->len, flags);
        if (!h->mr)
            return false;
        seg->key = h->mr->rkey;
    }
    p->seg_count++;
    return true;
}

/* Pieces that lie one behind the other in one arena are one segment. */
static bool expose(struct verbs_conn *vc, struct verbs_pins *p, const struct fabric_sge *s, unsigned count,
                   int flags)
{
    struct fabric_sge one = {.len = 0};
    for (unsigned i = 0; i < count; i++) {
        if (s[i].len == 0)
            continue;
        if (one.len && s[i].mem && s[i].mem == one.mem && (char *)one.base + one.len == (char *)s[i].base) {
            one.len += s[i].len;
            continue;
        }
        if (one.len && !expose_one(vc, p, &one, flags))
            return false;
        one = s[i];
    }
    return !one.len || expose_one(vc, p, &one, flags);
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
    struct verbs_fabric *vf = verbs_fabric_of(vc);
    if (!p)
        return;
    op->id = 0;
    for (unsigned i = 0; i < p->count; i++)
        verbs_mr_free(vf, p->mr[i]);
    for (unsigned i = 0; i < p->seg_count; i++) {
        struct verbs_hold *h = &p->hold[i];
        if (h->mr)
            verbs_mr_free(vf, h->mr);
        if (h->window && h->window->bound)
            window_drop(vc->dev, h->window);
        else if (h->window)
            window_put(vc->dev, verbs_domain(vc), h->window);
    }
    if (p->exposed)
        vf->core.counters.exposures--;
    if (p->has_slot)
        vc->slots_free[vc->slots_free_count++] = p->slot;
    list_push_front(&vf->pins_free, &p->link);
}
