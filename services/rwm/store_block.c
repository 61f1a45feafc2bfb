/*
 * store_block.c: blocks in core. A block is in core while requests, readers or an overlay need it.
 *
 * Readers are counted in two generations. Who needs those readers gone that came before a certain moment (a
 * freed slot, a write-back) waits for the generation of that moment to empty, while new readers enter the
 * other: a block that is read without a pause holds nobody up.
 */
#include "services/rwm/store_internal.h"

static struct list *bucket(struct store *s, const struct store_key *key)
{
    return &s->blk_hash[blk_hash(key) & s->blk_mask];
}

struct blk *blk_find(struct store *s, const struct store_key *key)
{
    list_for_each(n, bucket(s, key))
    {
        struct blk *b = list_entry(n, struct blk, hash_link);
        if (key_eq(&b->key, key))
            return b;
    }
    return NULL;
}

struct blk *blk_get(struct store *s, const struct store_key *key)
{
    struct blk *b = blk_find(s, key);
    if (b)
        return b;
    uint32_t id = slab_get(&s->blks);
    if (id == SLAB_NONE) {
        checkpoint_want(s);
        return NULL;
    }
    b = slab_at(&s->blks, id);
    memset(b, 0, sizeof *b);
    b->key = *key;
    b->entry = index_find(&s->index, key);
    b->pend_entry = STORE_NONE;
    list_init(&b->waiting);
    list_init(&b->overlay_link);
    list_init(&b->hash_link);
    list_init(&b->wait.link);
    list_push_back(bucket(s, key), &b->hash_link);
    return b;
}

void blk_release(struct store *s, struct blk *b)
{
    if (b->active == 0 && b->frame) {
        frame_unpin(s, b->frame);
        b->frame = NULL;
    }
    if (b->active == 0)
        b->loaded = false;
    if (b->active || b->loading || b->overlay_mask || b->wb != WB_NONE || b->readers[0] || b->readers[1] ||
        b->zombies_next || b->zombies_current)
        return;
    MUST(list_empty(&b->waiting) && b->pending == 0 && list_unlinked(&b->overlay_link));
    list_remove(&b->hash_link);
    slab_put(&s->blks, slab_id(&s->blks, b));
    if (!list_empty(&s->waiters))
        store_kick(s);
}

static void page_loaded(struct frame_wait *w, struct frame *f, int rc)
{
    struct blk *b = container_of(w, struct blk, wait);
    b->loading = false;
    b->loaded = true;
    b->load_rc = rc;
    b->frame = f;
    blk_ready(w->s, b);
}

void blk_activate(struct store *s, struct blk *b)
{
    if (b->loaded || b->loading)
        return;
    b->load_rc = 0;
    if (b->entry == STORE_NONE) {
        b->loaded = true;
        return;
    }
    struct frame *f = NULL;
    b->wait.fn = page_loaded;
    if (frame_get(s, s->meta.record_pages + entry_page(b->entry), &b->wait, &f) == -EAGAIN) {
        b->loading = true;
        return;
    }
    b->loaded = true;
    b->frame = f;
}

const struct disk_entry *blk_durable(const struct blk *b)
{
    return b->entry == STORE_NONE ? NULL : frame_entry(b->frame, b->entry);
}

/* ---- overlay ---- */
static void overlay_forget(struct store *s, struct blk *b, uint32_t mask)
{
    mask &= b->overlay_mask;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (!(mask & (1u << u)))
            continue;
        /* The write-back under way lets go of its own units. */
        bool busy = b->wb == WB_ACTIVE && (b->wb_mask & (1u << u)) && b->wb_units[u] == b->overlay[u];
        if (!busy)
            slab_put(&s->units, b->overlay[u]);
    }
    b->overlay_mask &= ~mask;
}

void blk_overlay_drop(struct store *s, struct blk *b, uint32_t mask)
{
    overlay_forget(s, b, mask);
    if (!b->overlay_mask)
        list_remove(&b->overlay_link);
    /* Should such a unit get an overlay again before the write-back begins, there may be readers of the slot
     * by then. */
    if (b->wb != WB_ACTIVE)
        b->wb_mask &= ~mask;
}

void blk_overlay_set(struct store *s, struct blk *b, uint32_t unit, uint32_t id)
{
    overlay_forget(s, b, 1u << unit);
    b->overlay[unit] = id;
    b->overlay_mask |= 1u << unit;
    if (list_unlinked(&b->overlay_link) && (b->wb == WB_NONE))
        list_push_back(&s->overlays, &b->overlay_link);
}

/* ---- readers ---- */
unsigned blk_reader_enter(struct blk *b)
{
    b->readers[b->generation]++;
    return b->generation;
}

static void free_zombies(struct store *s, struct blk *b)
{
    while (b->zombies_current) {
        uint32_t entry = b->zombies_current - 1;
        struct node *n = &s->index.nodes[entry];
        b->zombies_current = n->bucket_next;
        n->bucket_next = 0;
        alloc_mark(s, entry, true);
    }
}

/* Goes through the generations as far as readers let it. */
static void generations_step(struct store *s, struct blk *b)
{
    for (;;) {
        if (b->flipped) {
            if (b->readers[b->generation ^ 1])
                return;
            b->flipped = false;
            free_zombies(s, b);
            if (b->wb == WB_CURRENT) {
                b->wb = WB_READY;
                checkpoint_wb_ready(s, b);
            }
        }
        if (!b->zombies_next && b->wb != WB_NEXT)
            return;
        b->zombies_current = b->zombies_next;
        b->zombies_next = 0;
        if (b->wb == WB_NEXT)
            b->wb = WB_CURRENT;
        b->generation ^= 1;
        b->flipped = true;
    }
}

void blk_reader_leave(struct store *s, struct blk *b, unsigned generation)
{
    MUST(b->readers[generation]);
    b->readers[generation]--;
    generations_step(s, b);
    blk_release(s, b);
}

void blk_free_entry(struct store *s, struct blk *b, uint32_t entry)
{
    struct node *n = &s->index.nodes[entry];
    MUST(!n->live);
    n->bucket_next = b->zombies_next;
    b->zombies_next = entry + 1;
    generations_step(s, b);
    store_kick(s);
}

void blk_quiesce(struct store *s, struct blk *b)
{
    MUST(b->wb == WB_NEXT);
    generations_step(s, b);
}
