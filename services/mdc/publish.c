/* publish.c: the state becomes the table that everybody reads. */
#include "services/mdc/mdc_internal.h"

#include "common/crc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

int mdc_publish_init(struct mdc *m)
{
    struct mdc_state *s = m->state;
    m->table.bytes = round_up(table_region_bytes(&s->limits), UNIT_BYTES);
    m->table.region = aligned_alloc(UNIT_BYTES, m->table.bytes);
    if (m->table.region == NULL)
        return -ENOMEM;
    memset(m->table.region, 0, m->table.bytes);
    table_format(m->table.region, &s->limits, &s->cluster, s->counters.term, m->start);
    int rc = table_index(&m->table);
    if (rc != 0)
        return rc;
    return fabric_mem_register(m->env->fabric, FABRIC_DOMAIN_TABLE, m->table.region, m->table.bytes,
                               FABRIC_ACCESS_REMOTE_READ, &m->mem);
}

void mdc_publish_all(struct mdc *m)
{
    struct mdc_state *s = m->state;
    for (uint32_t i = 0; i < s->limits.partitions; i++) {
        if (s->partition_pool[i] != 0)
            mdc_tx_publish(&m->tx, TABLE_PARTITION, i);
    }
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        if (s->modules[i].rec.id != 0)
            mdc_tx_publish(&m->tx, TABLE_MODULE, i);
    }
    for (uint32_t i = 0; i < s->limits.pools; i++) {
        if (s->pools[i].rec.id != 0)
            mdc_tx_publish(&m->tx, TABLE_POOL, i);
    }
    for (uint32_t i = 0; i < s->volume_top; i++) {
        if (!uuid_is_zero(&s->volumes[i].rec.id))
            mdc_tx_publish(&m->tx, TABLE_VOLUME, i);
    }
}

/* ---- one record ---- */

static uint64_t publish_pool(struct mdc *m, uint32_t index)
{
    const struct record_pool *p = &m->state->pools[index].rec;
    struct table_pool out = {.id = p->id};
    if (p->id != 0) {
        out.partitions = p->partitions;
        out.first_partition = p->first_partition;
        out.stripe_bytes = p->stripe_bytes;
        out.block_bytes = BLOCK_BYTES;
        out.copies = p->copies;
        out.min_copies = p->min_copies != 0 ? p->min_copies : 1;
        out.media = p->media;
        memcpy(out.name, p->name, sizeof(out.name));
    }
    return table_publish(&m->table, TABLE_POOL, index, &out);
}

static uint64_t publish_module(struct mdc *m, uint32_t index)
{
    const struct mdc_module *mod = &m->state->modules[index];
    struct table_module out = {.id = mod->rec.id, .pool = mod->rec.pool, .incarnation = mod->rec.incarnation};
    memcpy(out.addr, mod->rec.addr, sizeof(out.addr));
    out.kind = mod->rec.kind;
    out.media = mod->rec.media;
    if (mod->rec.id == 0)
        return table_publish(&m->table, TABLE_MODULE, index, &out);
    /* After a restart of the MDC a module counts as up until it has been silent for a whole round. */
    out.state = TABLE_MODULE_UP;
    if (mod->damaged)
        out.state = TABLE_MODULE_DAMAGED;
    else if (mod->down)
        out.state = TABLE_MODULE_DOWN;
    out.flags = mod->gone && mod->reset ? TABLE_MODULE_GONE : 0;
    out.host = (uint32_t)host_id_from_name(mod->rec.host);
    out.store = mod->rec.store;
    out.capacity_bytes = mod->rec.capacity_bytes;
    out.start_counter = mod->rec.start_counter;
    return table_publish(&m->table, TABLE_MODULE, index, &out);
}

static uint64_t publish_partition(struct mdc *m, uint32_t index)
{
    const struct mdc_state *s = m->state;
    const struct record_partition *p = &s->partitions[index];
    struct table_partition out = {.pool = s->partition_pool[index]};
    if (out.pool != 0) {
        out.index = index - s->pools[out.pool - 1].rec.first_partition;
        out.epoch = p->epoch;
        memcpy(out.members, p->members, sizeof(out.members));
    }
    return table_publish(&m->table, TABLE_PARTITION, index, &out);
}

static uint64_t publish_volume(struct mdc *m, uint32_t slot)
{
    struct mdc_volume *v = &m->state->volumes[slot];
    struct table_volume out = {.id = v->rec.id};
    if (!uuid_is_zero(&v->rec.id)) {
        out.family = v->rec.family;
        out.layer = v->rec.layer;
        out.parent_layer = v->rec.parent_layer;
        out.generation = v->rec.generation;
        out.size_bytes = v->rec.size_bytes;
        out.pool = v->rec.pool;
        out.state = v->rec.state;
        out.resized_generation = v->rec.resized_generation;
    }
    uint64_t version = table_publish(&m->table, TABLE_VOLUME, slot, &out);
    if (v->fence_unpublished) {
        v->fence_unpublished = false;
        v->fence_version = version;
    }
    return version;
}

/* The header under a higher term: readers that saw a later table of a lost store take this one. */
static void publish_term(struct mdc *m)
{
    struct mdc_state *s = m->state;
    struct table_header h = *table_head(&m->table);
    if (h.term == s->counters.term)
        return;
    log_warn(m->env, "term raised", "from=%lu to=%lu", (unsigned long)h.term,
             (unsigned long)s->counters.term);
    h.term = s->counters.term;
    h.crc = crc32c(&h, offsetof(struct table_header, crc));
    atomic_thread_fence(memory_order_release);
    memcpy(m->table.region, &h, sizeof(h));
    atomic_thread_fence(memory_order_release);
    m->hinted_version = 0;
}

void mdc_publish_batch(struct mdc *m)
{
    publish_term(m);
    for (size_t i = 0; i < m->tx.count; i++) {
        const struct tx_change *c = &m->tx.changes[i];
        if (c->what != TX_PUBLISH)
            continue;
        switch ((enum table_kind)c->kind) {
        case TABLE_POOL:
            publish_pool(m, c->index);
            break;
        case TABLE_MODULE:
            publish_module(m, c->index);
            break;
        case TABLE_PARTITION:
            publish_partition(m, c->index);
            break;
        case TABLE_VOLUME:
            publish_volume(m, c->index);
            break;
        case TABLE_KINDS:
            MUST(!"a kind");
        }
    }
    m->state->term = table_head(&m->table)->term;
    m->state->version = table_head(&m->table)->version;
    if (m->state->version != m->hinted_version)
        loop_defer(m->env->loop, &m->hint_task);
}
