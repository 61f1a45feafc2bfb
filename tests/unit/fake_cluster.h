/*
 * fake_cluster.h: the functions of cluster.h with a metadata controller that the test plays: it owns a table,
 * answers registrations and heartbeats, and does with the table what the test wants.
 */
#ifndef CISTERN_TESTS_FAKE_CLUSTER_H
#define CISTERN_TESTS_FAKE_CLUSTER_H

#include "services/cluster/cluster.h"

struct fake_mdc {
    struct uuid cluster;
    struct table table; /* the truth */
    uint64_t next_epoch;
    bool up;           /* answers; a module that loses it keeps its copy */
    bool no_new_epoch; /* a registration does not raise the epochs */
    uint32_t refuse;   /* registrations are refused with this status */
    struct cluster *session;
    struct mdc_module_register_request registered; /* the latest */
    struct mdc_module_heartbeat_request heartbeat; /* the latest */
    struct mdc_module_report_request report;       /* the latest */
    unsigned registrations, heartbeats, refreshes, reports;
    bool register_again; /* told in the next heartbeat's reply */
    uint64_t scrub;      /* in all of them */
};
/* The one that cluster_create finds; one pool of 4 partitions and 1 MiB stripes, of module 1. */
struct fake_mdc *fake_mdc_create(uint64_t term);
void fake_mdc_destroy(struct fake_mdc *mdc);
/* Publishes the record. */
void fake_mdc_volume(struct fake_mdc *mdc, uint32_t index, uint8_t id, uint64_t generation, uint64_t size,
                     uint8_t state);
void fake_mdc_no_volume(struct fake_mdc *mdc, uint32_t index);
void fake_mdc_partition(struct fake_mdc *mdc, uint32_t index, uint64_t epoch, uint32_t member);
/* Another module, and who is a member: ids with their flags, 0 at the end. */
void fake_mdc_module(struct fake_mdc *mdc, uint32_t id, uint64_t incarnation, const struct fabric_addr *addr);
void fake_mdc_members(struct fake_mdc *mdc, uint32_t index, uint64_t epoch, const uint32_t *members);
void fake_mdc_min_copies(struct fake_mdc *mdc, uint8_t min_copies);
/* Gives the pool another number of them, a power of two up to 16; records that are new are module 1's. */
void fake_mdc_set_partitions(struct fake_mdc *mdc, uint32_t partitions);
uint32_t fake_mdc_partitions(const struct fake_mdc *mdc);
uint64_t fake_mdc_epoch(const struct fake_mdc *mdc, uint32_t index);
/* Another controller's process, with a store in which an earlier start of module 1 stands: a new term. */
void fake_mdc_older_store(struct fake_mdc *mdc, uint64_t incarnation);
/* The session ends; with up = true a new one begins soon. */
void fake_mdc_break(struct fake_mdc *mdc);
static inline struct uuid fake_uuid(uint8_t id)
{
    struct uuid u = {{id, id, id, id}};
    return u;
}
#define FAKE_POOL_PARTITIONS 4u
#define FAKE_STRIPE          (1024u * 1024u)

#endif
