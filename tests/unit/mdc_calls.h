/* mdc_calls.h: the calls that tests of the metadata controller make often. */
#ifndef CISTERN_TESTS_UNIT_MDC_CALLS_H
#define CISTERN_TESTS_UNIT_MDC_CALLS_H

#include "mdc_harness.h"

#define GB (1ull << 30)

/* ---- what tests say often ---- */

static inline struct mdc_module_register_request module_of(unsigned n, uint64_t start)
{
    struct mdc_module_register_request rq = {.start_counter = start,
                                             .incarnation = n * 1000 + start,
                                             .kind = TABLE_MODULE_OSD,
                                             .media = TABLE_MEDIA_SSD,
                                             .capacity_bytes = 10 * GB};
    memset(rq.store.b, (int)n, sizeof(rq.store.b));
    snprintf(rq.host, sizeof(rq.host), "node%u", n);
    snprintf(rq.name, sizeof(rq.name), "osd%u", n);
    rq.addr[0] = FABRIC_PROVIDER_TCP;
    return rq;
}

static inline uint32_t put_module(struct client *c, const struct mdc_module_register_request *rq,
                                  struct mdc_module_register_reply *rep)
{
    return CALL(c, MODULE_REGISTER, mdc_module_register_request, rq, mdc_module_register_reply, rep);
}

static inline struct mdc_module_register_reply good_module(struct client *c, unsigned n, uint64_t start)
{
    struct mdc_module_register_request rq = module_of(n, start);
    struct mdc_module_register_reply rep;
    assert_int_equal(put_module(c, &rq, &rep), STATUS_OK);
    return rep;
}

/* The module confirms everything that is published; removing as told. */
static inline void beat(struct client *c, unsigned n, uint64_t start, uint32_t id, uint64_t removing)
{
    struct mdc_module_heartbeat_request rq = {.module = id,
                                              .incarnation = n * 1000 + start,
                                              .applied_term = table_head(mdc_table(c->w->mdc))->term,
                                              .applied_version = table_head(mdc_table(c->w->mdc))->version,
                                              .capacity_bytes = 10 * GB,
                                              .removing_blocks = removing};
    struct mdc_module_heartbeat_reply rep;
    assert_int_equal(
        CALL(c, MODULE_HEARTBEAT, mdc_module_heartbeat_request, &rq, mdc_module_heartbeat_reply, &rep),
        STATUS_OK);
    assert_false(rep.register_again);
}

static inline uint32_t pool_create(struct client *c, const char *name, struct mdc_pool_reply *rep)
{
    struct mdc_pool_create_request rq = {.partitions = 64};
    snprintf(rq.name, sizeof(rq.name), "%s", name);
    return CALL(c, POOL_CREATE, mdc_pool_create_request, &rq, mdc_pool_reply, rep);
}

static inline uint32_t volume_create(struct client *c, const char *name, uint64_t bytes,
                                     struct mdc_volume_reply *rep)
{
    struct mdc_volume_create_request rq = {.size_bytes = bytes};
    snprintf(rq.name, sizeof(rq.name), "%s", name);
    return CALL(c, VOLUME_CREATE, mdc_volume_create_request, &rq, mdc_volume_reply, rep);
}

static inline struct mdc_volume_open_request open_of(const char *volume, const char *host, uint64_t instance)
{
    struct mdc_volume_open_request rq = {.instance = instance};
    snprintf(rq.volume, sizeof(rq.volume), "%s", volume);
    snprintf(rq.host, sizeof(rq.host), "%s", host);
    return rq;
}

static inline uint32_t volume_open(struct client *c, const struct mdc_volume_open_request *rq,
                                   struct mdc_volume_open_reply *rep)
{
    return CALL(c, VOLUME_OPEN, mdc_volume_open_request, rq, mdc_volume_open_reply, rep);
}

static inline uint32_t draw(struct client *c, const struct uuid *id, const char *host, uint64_t instance,
                            uint64_t *turn)
{
    struct mdc_turn_draw_request rq = {.id = *id, .instance = instance};
    struct mdc_turn_draw_reply rep;
    snprintf(rq.host, sizeof(rq.host), "%s", host);
    uint32_t status = CALL(c, TURN_DRAW, mdc_turn_draw_request, &rq, mdc_turn_draw_reply, &rep);
    if (status == STATUS_OK)
        *turn = rep.turn;
    return status;
}

static inline uint32_t volume_get(struct client *c, const char *name, struct mdc_volume_info *out)
{
    struct mdc_name_request rq = {{0}};
    struct mdc_volume_reply rep;
    snprintf(rq.name, sizeof(rq.name), "%s", name);
    uint32_t status = CALL(c, VOLUME_GET, mdc_name_request, &rq, mdc_volume_reply, &rep);
    if (status == STATUS_OK)
        *out = rep.volume;
    return status;
}

/* Two modules, a pool of them, volume "v" of 1 GiB. */
static inline struct mdc_volume_info small_cluster(struct client *c)
{
    struct mdc_pool_reply pool;
    struct mdc_volume_reply vol;
    good_module(c, 1, 1);
    good_module(c, 2, 1);
    assert_int_equal(pool_create(c, "p", &pool), STATUS_OK);
    assert_int_equal(volume_create(c, "v", GB, &vol), STATUS_OK);
    return vol.volume;
}

static inline const struct table *table_of(struct world *w)
{
    return mdc_table(w->mdc);
}

/* Takes the ring's word for it: the table as published is whole. */
static inline void check_table(struct world *w)
{
    const struct table *t = table_of(w);
    assert_int_equal(table_header_check(table_head(t), t->bytes), 0);
    for (int k = 0; k < TABLE_KINDS; k++) {
        for (uint32_t i = 0; i < table_head(t)->section[k].used; i++)
            assert_true(table_record_check((enum table_kind)k, table_record(t, (enum table_kind)k, i)));
    }
}

#endif
