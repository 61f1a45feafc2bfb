/* tx.c: what a batch of decisions changes, and how it becomes one commit; see state.h. */
#include "services/mdc/state.h"

#include <stdlib.h>
#include <string.h>

enum { MARK_PUBLISH = 1, MARK_STORE = 2 };

int mdc_tx_create(const struct mdc_state *s, struct mdc_tx *tx)
{
    memset(tx, 0, sizeof(*tx));
    tx->mark_count[TABLE_POOL] = s->limits.pools;
    tx->mark_count[TABLE_MODULE] = s->limits.modules;
    tx->mark_count[TABLE_PARTITION] = s->limits.partitions;
    tx->mark_count[TABLE_VOLUME] = s->limits.volumes;
    for (unsigned k = 0; k < TABLE_KINDS; k++) {
        tx->marks[k] = calloc(tx->mark_count[k], 1);
        if (tx->marks[k] == NULL) {
            mdc_tx_destroy(tx);
            return -ENOMEM;
        }
    }
    return 0;
}

void mdc_tx_reset(struct mdc_tx *tx)
{
    for (size_t i = 0; i < tx->count; i++) {
        const struct tx_change *c = &tx->changes[i];
        if (c->what == TX_PUBLISH || c->what == TX_STORE)
            tx->marks[c->kind][c->index] = 0;
        free(c->key);
    }
    tx->count = 0;
    tx->stores = 0;
    tx->counters = false;
    tx->no_memory = false;
}

void mdc_tx_destroy(struct mdc_tx *tx)
{
    for (size_t i = 0; i < tx->count; i++)
        free(tx->changes[i].key);
    free(tx->changes);
    for (unsigned k = 0; k < TABLE_KINDS; k++)
        free(tx->marks[k]);
    memset(tx, 0, sizeof(*tx));
}

static bool note(struct mdc_tx *tx, struct tx_change change)
{
    if (tx->count == tx->capacity) {
        size_t capacity = tx->capacity != 0 ? tx->capacity * 2 : 256;
        struct tx_change *more = realloc(tx->changes, capacity * sizeof(*more));
        if (more == NULL) {
            tx->no_memory = true;
            return false;
        }
        tx->changes = more;
        tx->capacity = capacity;
    }
    tx->changes[tx->count++] = change;
    tx->stores += change.what != TX_PUBLISH;
    return true;
}

static void note_record(struct mdc_tx *tx, enum tx_kind what, uint8_t mark, enum table_kind kind,
                        uint32_t index)
{
    MUST(index < tx->mark_count[kind]);
    if (tx->marks[kind][index] & mark)
        return;
    if (note(tx, (struct tx_change){.what = (uint8_t)what, .kind = (uint8_t)kind, .index = index}))
        tx->marks[kind][index] |= mark;
}

void mdc_tx_publish(struct mdc_tx *tx, enum table_kind kind, uint32_t index)
{
    note_record(tx, TX_PUBLISH, MARK_PUBLISH, kind, index);
}

bool mdc_tx_publishes(const struct mdc_tx *tx)
{
    for (size_t i = 0; i < tx->count; i++)
        if (tx->changes[i].what == TX_PUBLISH)
            return true;
    return false;
}

void mdc_tx_record(struct mdc_tx *tx, enum table_kind kind, uint32_t index)
{
    note_record(tx, TX_STORE, MARK_STORE, kind, index);
    note_record(tx, TX_PUBLISH, MARK_PUBLISH, kind, index);
}

void mdc_tx_forget(struct mdc_tx *tx, enum table_kind kind, uint32_t index)
{
    tx->marks[kind][index] &= (uint8_t)~MARK_STORE;
}

void mdc_tx_counters(struct mdc_tx *tx)
{
    if (!tx->counters)
        tx->counters = note(tx, (struct tx_change){.what = TX_COUNTERS});
}

void mdc_tx_format(struct mdc_tx *tx)
{
    note(tx, (struct tx_change){.what = TX_FORMAT});
}

void mdc_tx_key(struct mdc_tx *tx, enum tx_kind what, const char *key)
{
    char *copy = strdup(key);
    if (copy == NULL || !note(tx, (struct tx_change){.what = (uint8_t)what, .key = copy})) {
        free(copy);
        tx->no_memory = true;
    }
}

/* ---- sealing ---- */

/* Puts a copy of the record under item->key. */
static int put_record(struct meta_item *item, enum record_kind kind, const void *record)
{
    item->len = (uint32_t)record_bytes(kind);
    item->value = malloc(item->len);
    if (item->value == NULL)
        return -ENOMEM;
    memcpy(item->value, record, item->len);
    record_seal(kind, item->value);
    return 0;
}

static int put_format(const struct mdc_state *s, struct meta_item *item)
{
    struct record_format f = {.magic = RECORD_MAGIC, .format = RECORD_FORMAT, .cluster = s->cluster};
    memcpy(item->key, RECORD_KEY_FORMAT, sizeof(RECORD_KEY_FORMAT));
    return put_record(item, RECORD_FORMAT_ID, &f);
}

static int put_partitions(struct mdc_state *s, uint32_t index, struct meta_item *item)
{
    const struct mdc_pool *pool = mdc_pool_by_id(s, s->partition_pool[index]);
    if (pool == NULL)
        return 1; /* deleted later in the batch: its keys are deleted by name */
    struct record_partitions *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return -ENOMEM;
    r->pool = pool->rec.id;
    r->chunk = (index - pool->rec.first_partition) / PARTITION_CHUNK;
    uint32_t first = r->chunk * PARTITION_CHUNK;
    r->count = (uint32_t)min_u64(PARTITION_CHUNK, pool->rec.partitions - first);
    memcpy(r->items, &s->partitions[pool->rec.first_partition + first], r->count * sizeof(r->items[0]));
    record_key_partitions(item->key, r->pool, r->chunk);
    int rc = put_record(item, RECORD_PARTITIONS, r);
    free(r);
    return rc;
}

/* 0; 1: nothing to store (the record went in the same batch); -ENOMEM. */
static int put_table_record(struct mdc_state *s, const struct tx_change *c, struct meta_item *item)
{
    switch ((enum table_kind)c->kind) {
    case TABLE_POOL:
        if (s->pools[c->index].rec.id == 0)
            return 1;
        record_key_pool(item->key, s->pools[c->index].rec.id);
        return put_record(item, RECORD_POOL, &s->pools[c->index].rec);
    case TABLE_MODULE:
        if (s->modules[c->index].rec.id == 0)
            return 1;
        record_key_module(item->key, s->modules[c->index].rec.id);
        return put_record(item, RECORD_MODULE, &s->modules[c->index].rec);
    case TABLE_PARTITION:
        return put_partitions(s, c->index, item);
    case TABLE_VOLUME:
        if (uuid_is_zero(&s->volumes[c->index].rec.id))
            return 1;
        record_key_volume(item->key, &s->volumes[c->index].rec.id);
        return put_record(item, RECORD_VOLUME, &s->volumes[c->index].rec);
    case TABLE_KINDS:
        break;
    }
    MUST(false);
    return 1;
}

static int put_attachment(struct mdc_state *s, const struct tx_change *c, struct meta_item *item)
{
    struct uuid id;
    char hex[33] = {0};
    size_t prefix = strlen("6/attachment/");
    memcpy(hex, c->key + prefix, 32);
    MUST(uuid_parse(hex, &id) == 0);
    struct mdc_volume *v = mdc_volume_by_id(s, &id);
    struct mdc_attachment *a = v != NULL ? mdc_attachment_find(v, c->key + prefix + 33) : NULL;
    if (a == NULL)
        return 1;
    record_key_attachment(item->key, &a->rec.volume, a->rec.host);
    return put_record(item, RECORD_ATTACHMENT, &a->rec);
}

static int put_change(struct mdc_state *s, const struct tx_change *c, struct meta_item *item)
{
    switch ((enum tx_kind)c->what) {
    case TX_PUBLISH:
        return 1;
    case TX_STORE:
        return put_table_record(s, c, item);
    case TX_COUNTERS:
        memcpy(item->key, RECORD_KEY_COUNTERS, sizeof(RECORD_KEY_COUNTERS));
        return put_record(item, RECORD_COUNTERS, &s->counters);
    case TX_FORMAT:
        return put_format(s, item);
    case TX_ATTACHMENT:
        return put_attachment(s, c, item);
    case TX_DELETE:
        memcpy(item->key, c->key, strlen(c->key) + 1);
        return 0;
    }
    MUST(false);
    return 1;
}

/* Neighbouring partitions share a record: true when the one before wrote it. */
static bool same_chunk(const struct meta_item *items, size_t n)
{
    return n > 0 && items[n - 1].value != NULL && strcmp(items[n].key, items[n - 1].key) == 0;
}

int mdc_tx_seal(struct mdc_state *s, const struct mdc_tx *tx, struct meta_item **items, size_t *count)
{
    if (tx->no_memory)
        return -ENOMEM;
    struct meta_item *list = calloc(tx->stores + 1, sizeof(*list));
    if (list == NULL)
        return -ENOMEM;
    size_t n = 0;
    for (size_t i = 0; i < tx->count; i++) {
        int rc = put_change(s, &tx->changes[i], &list[n]);
        if (rc < 0) {
            mdc_items_free(list, n);
            return rc;
        }
        if (rc == 0 && same_chunk(list, n)) {
            free(list[n].value);
            list[n].value = NULL;
            rc = 1;
        }
        n += rc == 0;
    }
    *items = list;
    *count = n;
    return 0;
}

void mdc_items_free(struct meta_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(items[i].value);
    free(items);
}
