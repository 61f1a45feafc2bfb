/*
 * table_lookup.c: nanoseconds of one table_route among 65,536 partitions, at random offsets, the routed
 * request's epoch and incarnation used as a gateway uses them. The thread's own CPU time, best of many short
 * rounds, because other loads only add. Prints one line of JSON.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/rng.h"
#include "common/table/table.h"

enum { PARTITIONS = 65536, MODULES = 64, OFFSETS = 1 << 20, ROUNDS = 64, LOOKUPS = OFFSETS / 8 };

static int build(struct table *t, const struct uuid *id)
{
    const struct table_limits limits = {
        .pools = 16, .modules = 256, .partitions = PARTITIONS, .volumes = 1024};
    t->bytes = table_region_bytes(&limits);
    t->region = aligned_alloc(4096, round_up(t->bytes, 4096));
    if (t->region == NULL)
        return -ENOMEM;
    table_format(t->region, &limits, id, 1, 1);
    struct table_pool pool = {
        .id = 1, .partitions = PARTITIONS, .stripe_bytes = MIB, .block_bytes = BLOCK_BYTES, .copies = 1};
    table_publish(t, TABLE_POOL, 0, &pool);
    for (uint32_t i = 0; i < MODULES; i++) {
        struct table_module m = {.id = i + 1, .pool = 1, .incarnation = i, .state = TABLE_MODULE_UP};
        table_publish(t, TABLE_MODULE, i, &m);
    }
    for (uint32_t i = 0; i < PARTITIONS; i++) {
        struct table_partition p = {
            .pool = 1, .index = i, .epoch = i, .members = {(i % MODULES + 1) | TABLE_MEMBER_IN_SYNC}};
        table_publish(t, TABLE_PARTITION, i, &p);
    }
    struct table_volume v = {
        .id = *id, .family = 1, .layer = 1, .generation = 1, .size_bytes = 64 * TIB, .pool = 1};
    table_publish(t, TABLE_VOLUME, 0, &v);
    return table_index(t);
}

static double measure(const struct table *t, const struct table_volume *v, const uint64_t *offsets,
                      uint64_t *sum)
{
    struct timespec a, b;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    for (unsigned i = 0; i < LOOKUPS; i++) {
        const struct table_partition *p;
        const struct table_module *m = table_route(t, v, offsets[i], &p);
        *sum += m->incarnation + p->epoch;
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    return ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / LOOKUPS;
}

int main(void)
{
    struct table t = {0};
    struct rng rng;
    uint64_t sum = 0;
    double best = 0;
    rng_seed(&rng, 1);
    const struct uuid id = rng_uuid(&rng);
    uint64_t *offsets = malloc(OFFSETS * sizeof(*offsets));
    if (offsets == NULL || build(&t, &id) != 0) {
        fprintf(stderr, "table_lookup: out of memory\n");
        return 1;
    }
    const struct table_volume *v = table_volume_by_id(&t, &id);
    for (unsigned i = 0; i < OFFSETS; i++)
        offsets[i] = rng_below(&rng, v->size_bytes);
    for (unsigned i = 0; i < ROUNDS; i++) {
        const double ns = measure(&t, v, offsets + i % 8 * LOOKUPS, &sum);
        best = i == 0 || ns < best ? ns : best;
    }
    printf("{\"table_route_ns\": %.1f, \"partitions\": %d, \"check\": %lu}\n", best, PARTITIONS,
           (unsigned long)sum);
    table_index_free(&t);
    free(t.region);
    free(offsets);
    return 0;
}
