/*
 * fuzz_mdc_store.c: a metadata store that is damaged or hostile. The input is a list of records (key, value);
 * every record gets a good checksum, so that what is behind that check is reached. A state that loads is
 * stored again and must load the same.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "common/crc.h"
#include "common/rng.h"
#include "services/mdc/ops.h"

#define RECORDS_MAX 32

/* Input: for each record a kind byte, then its bytes; the key is the one that belongs to it. */
struct input {
    struct meta_store store;
    const uint8_t *data;
    size_t size;
};

static void key_for(enum record_kind kind, const void *r, char *key)
{
    const struct record_partitions *p = r;
    const struct record_attachment *a = r;
    char host[MDC_NAME_MAX];
    memset(key, 0, META_KEY_MAX);
    switch (kind) {
    case RECORD_FORMAT_ID:
        memcpy(key, RECORD_KEY_FORMAT, sizeof(RECORD_KEY_FORMAT));
        return;
    case RECORD_COUNTERS:
        memcpy(key, RECORD_KEY_COUNTERS, sizeof(RECORD_KEY_COUNTERS));
        return;
    case RECORD_POOL:
        record_key_pool(key, ((const struct record_pool *)r)->id);
        return;
    case RECORD_MODULE:
        record_key_module(key, ((const struct record_module *)r)->id);
        return;
    case RECORD_PARTITIONS:
        record_key_partitions(key, p->pool, p->chunk);
        return;
    case RECORD_VOLUME:
        record_key_volume(key, &((const struct record_volume *)r)->id);
        return;
    case RECORD_ATTACHMENT:
        memcpy(host, a->host, sizeof(host));
        host[sizeof(host) - 1] = 0;
        record_key_attachment(key, &a->volume, host);
        return;
    }
}

static int input_load(struct meta_store *s, int (*fn)(void *, const char *, const void *, size_t), void *arg)
{
    struct input *in = container_of(s, struct input, store);
    uint8_t record[META_VALUE_MAX] __attribute__((aligned(8)));
    size_t at = 0;
    while (at < in->size) {
        enum record_kind kind = (enum record_kind)in->data[at++];
        size_t bytes = record_bytes(kind);
        char key[META_KEY_MAX];
        if (bytes == 0 || in->size - at < bytes)
            return 0;
        memcpy(record, in->data + at, bytes);
        at += bytes;
        record_seal(kind, record);
        key_for(kind, record, key);
        int rc = fn(arg, key, record, bytes);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static const struct meta_ops input_ops = {.name = "input", .load = input_load};
static const struct table_limits limits = {.pools = 4, .modules = 8, .partitions = 256, .volumes = 8};

/* What loaded may be looked at in all ways. */
static void look(struct mdc_state *s)
{
    struct mdc_error error;
    struct mdc_tx tx;
    if (mdc_tx_create(s, &tx) != 0)
        abort();
    struct mdc_decision d = {.state = s, .tx = &tx, .error = &error};
    struct mdc_list_request all = {0};
    struct mdc_module_list_reply modules = {0};
    struct mdc_partition_list_reply partitions = {0};
    struct mdc_volume_list_reply volumes = {0};
    struct mdc_attachment_list_reply attachments = {0};
    struct mdc_pool_list_reply pools = {0};
    MUST(mdc_op_module_list(&d, &all, &modules) == STATUS_OK);
    MUST(mdc_op_partition_list(&d, &all, &partitions) == STATUS_OK);
    MUST(mdc_op_volume_list(&d, &all, &volumes) == STATUS_OK);
    MUST(mdc_op_attachment_list(&d, &all, &attachments) == STATUS_OK);
    MUST(mdc_op_pool_list(&d, &all, &pools) == STATUS_OK);
    for (uint32_t i = 0; i < volumes.count; i++) {
        struct mdc_volume_delete_request del = {.force = true};
        struct mdc_empty empty;
        memcpy(del.name, volumes.items[i].name, sizeof(del.name));
        (void)mdc_op_volume_delete(&d, &del, &empty);
    }
    mdc_op_advance(&d);
    for (uint32_t i = 0; i < pools.count; i++) {
        struct mdc_name_request del = {{0}};
        struct mdc_empty empty;
        memcpy(del.name, pools.items[i].name, sizeof(del.name));
        (void)mdc_op_pool_delete(&d, &del, &empty);
    }
    struct meta_item *items;
    size_t count;
    MUST(mdc_tx_seal(s, &tx, &items, &count) == 0);
    mdc_items_free(items, count);
    mdc_tx_destroy(&tx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.store = {.ops = &input_ops}, .data = data, .size = size};
    struct mdc_state *s;
    char why[256];
    if (mdc_state_create(&limits, 16, &s) != 0)
        abort();
    if (mdc_state_load(s, &in.store, why) == 0)
        look(s);
    else
        MUST(why[0] != 0);
    mdc_state_destroy(s);
    return 0;
}

struct seed {
    uint8_t *out;
    size_t len, cap;
};

static void add(struct seed *s, enum record_kind kind, const void *record)
{
    size_t bytes = record_bytes(kind);
    if (s->cap - s->len < bytes + 1)
        return;
    s->out[s->len++] = (uint8_t)kind;
    memcpy(s->out + s->len, record, bytes);
    s->len += bytes;
}

size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    struct seed s = {.out = out, .cap = cap};
    struct rng r;
    rng_seed(&r, seed);
    struct record_format format = {.magic = RECORD_MAGIC, .format = RECORD_FORMAT, .cluster = {{1}}};
    struct record_counters counters = {
        .term = 1, .next_layer = 100, .turn_limit = 5, .next_pool = 2, .next_module = 2};
    struct record_pool pool = {.id = 1,
                               .partitions = 1u << rng_below(&r, 8),
                               .stripe_bytes = (uint32_t)MIB,
                               .copies = 1,
                               .name = "p"};
    struct record_module module = {
        .id = 1, .pool = 1, .store = {{9}}, .kind = 1, .media = 1, .host = "h", .name = "m"};
    struct record_partitions *parts = calloc(1, sizeof(*parts));
    if (parts == NULL)
        abort();
    add(&s, RECORD_FORMAT_ID, &format);
    add(&s, RECORD_COUNTERS, &counters);
    add(&s, RECORD_POOL, &pool);
    add(&s, RECORD_MODULE, &module);
    parts->pool = 1;
    for (uint32_t first = 0; first < pool.partitions; first += PARTITION_CHUNK) {
        parts->chunk = first / PARTITION_CHUNK;
        parts->count = (uint32_t)min_u64(PARTITION_CHUNK, pool.partitions - first);
        for (uint32_t i = 0; i < parts->count; i++)
            parts->items[i] = (struct record_partition){.epoch = 1, .members = {1 | TABLE_MEMBER_IN_SYNC}};
        add(&s, RECORD_PARTITIONS, parts);
    }
    free(parts);
    for (uint8_t i = 1; i <= rng_below(&r, 6); i++) {
        struct record_volume v = {
            .id = {{i}}, .pool = 1, .state = (uint8_t)(1 + rng_below(&r, 3)), .generation = i};
        struct record_attachment a = {.volume = {{i}}, .host = "h1"};
        v.name[0] = (char)('a' + i);
        v.family = v.layer = i;
        v.size_bytes = UNIT_BYTES;
        add(&s, RECORD_VOLUME, &v);
        if (v.state != TABLE_VOLUME_DELETING)
            add(&s, RECORD_ATTACHMENT, &a);
    }
    return s.len;
}
