/*
 * fuzz_table.c: a table region from a peer that is hostile or broken. The input is a whole region; its header
 * gets a good CRC, so that what is behind that check is reached. A region that passes is looked up in all
 * ways.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "common/crc.h"
#include "common/rng.h"
#include "common/table/table.h"

static volatile uint64_t sink;

static void look_up_all(struct table *t)
{
    const struct table_header *h = table_head(t);
    for (uint32_t i = 0; i < h->section[TABLE_VOLUME].used; i++) {
        const struct table_volume *v = table_record(t, TABLE_VOLUME, i);
        const struct table_partition *p;
        for (uint64_t offset = 0; offset < 64 * MIB; offset += 3 * MIB) {
            const struct table_module *m = table_route(t, v, offset, &p);
            sink += (m != NULL ? m->incarnation : 0) + (p != NULL ? p->epoch : 0);
        }
        const struct table_volume *found = table_volume_by_id(t, &v->id);
        MUST(uuid_is_zero(&v->id) ? found == NULL : found != NULL && uuid_eq(&found->id, &v->id));
    }
    for (uint32_t id = 0; id <= h->section[TABLE_POOL].capacity + 1; id++) {
        const struct table_pool *pool = table_pool_by_id(t, id);
        for (uint32_t i = 0; pool != NULL && i < 300; i++) {
            const struct table_partition *p = table_partition_at(t, pool, i * 7);
            sink += p != NULL ? table_partition_primary(p) : 0;
        }
        sink += table_module_by_id(t, id) != NULL;
    }
    for (enum table_kind k = 0; k < TABLE_KINDS; k++)
        for (uint32_t i = 0; i < h->section[k].capacity; i++)
            sink +=
                table_record_check(k, table_record(t, k, i)) + table_record_version(k, table_record(t, k, i));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct table_header h;
    if (size < sizeof(h))
        return 0;
    memcpy(&h, data, sizeof(h));
    h.crc = crc32c(&h, offsetof(struct table_header, crc));
    if (table_header_check(&h, size) != 0)
        return 0;
    struct table t = {.bytes = size, .region = aligned_alloc(64, round_up(size, 64))};
    if (t.region == NULL)
        abort();
    memcpy(t.region, data, size);
    memcpy(t.region, &h, sizeof(h));
    look_up_all(&t);
    if (table_index(&t) == 0)
        look_up_all(&t);
    table_index_free(&t);
    free(t.region);
    return 0;
}

size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    struct rng rng;
    rng_seed(&rng, seed);
    const struct table_limits limits = {.pools = 2, .modules = 3, .partitions = 16, .volumes = 4};
    const struct uuid cluster = rng_uuid(&rng);
    struct table t = {.bytes = table_region_bytes(&limits)};
    MUST(t.bytes <= cap);
    t.region = aligned_alloc(64, round_up(t.bytes, 64));
    if (t.region == NULL)
        abort();
    table_format(t.region, &limits, &cluster, 1, 1);
    struct table_pool pool = {.id = 1,
                              .partitions = 1u << rng_below(&rng, 6),
                              .first_partition = (uint32_t)rng_below(&rng, 8),
                              .stripe_bytes = (uint32_t)(rng_chance(&rng, 1, 4) ? rng_u64(&rng) : MIB)};
    table_publish(&t, TABLE_POOL, 0, &pool);
    for (uint32_t i = 0; i < 3; i++) {
        struct table_module m = {.id = i + (uint32_t)rng_below(&rng, 2), .pool = 1};
        table_publish(&t, TABLE_MODULE, i, &m);
    }
    for (uint32_t i = 0; i < 16; i++) {
        struct table_partition p = {.pool = 1,
                                    .index = i - pool.first_partition,
                                    .members = {(uint32_t)rng_below(&rng, 6) | TABLE_MEMBER_IN_SYNC}};
        table_publish(&t, TABLE_PARTITION, i, &p);
    }
    for (uint32_t i = 0; i < 4; i++) {
        struct table_volume v = {
            .id = rng_uuid(&rng), .pool = (uint32_t)rng_below(&rng, 4), .family = rng_u64(&rng)};
        table_publish(&t, TABLE_VOLUME, i, &v);
    }
    memcpy(out, t.region, t.bytes);
    free(t.region);
    return t.bytes;
}
