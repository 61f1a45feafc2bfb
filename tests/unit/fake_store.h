/*
 * fake_store.h: the functions of store.h on plain memory, for tests of the engine: ops end in order of
 * submission, each after a random while, and only then are they durable and seen by reads. What is durable
 * outlives store_destroy, in the fake_medium.
 *
 * It checks what the engine promises: versions of a block only grow, checksums fit the data.
 */
#ifndef CISTERN_TESTS_FAKE_STORE_H
#define CISTERN_TESTS_FAKE_STORE_H

#include "services/rwm/store.h"

#define FAKE_BLOCKS     512
#define FAKE_PARTITIONS 64
#define FAKE_VOLUMES    16
#define FAKE_TURNS      8

struct fake_block {
    bool used;
    struct store_key key;
    struct version version;
    uint32_t written;
    uint32_t crcs[UNITS_PER_BLOCK];
    uint32_t rotten; /* units that read as -EBADMSG until they are written again */
    bool suspect;    /* nothing is known of it: looking it up is -EBADMSG, too */
    uint8_t data[BLOCK_BYTES];
};
enum fake_kind { FAKE_READ, FAKE_STAT, FAKE_WRITE, FAKE_CLEAR, FAKE_REMOVE, FAKE_RECORD, FAKE_CALL };
/* The nth op of that kind from now (1 = the next) ends with rc, or is refused with it. nth 0 = none. */
struct fake_fault {
    enum fake_kind kind;
    unsigned nth;
    int rc;
};
struct fake_medium {
    struct device device; /* give its address to rwm_create */
    struct store_identity identity;
    struct fake_block blocks[FAKE_BLOCKS];
    struct store_partition_record partitions[FAKE_PARTITIONS];
    struct store_volume_record volumes[FAKE_VOLUMES];
    struct store_turn_record turns[FAKE_TURNS];
    /* faults */
    int open_rc;                    /* the next opens fail */
    bool full;                      /* writes answer -ENOSPC at submit */
    unsigned again;                 /* so many submits answer -EAGAIN */
    int fail_next;                  /* the next op's done gets it */
    struct fake_fault fail, refuse; /* in done; at submit */
    bool lost;                      /* rot has taken the records that were never set */
    bool broken;                    /* everything fails with -EIO from now on */
    bool stand_still;               /* nothing ends */
    uint64_t delay_ns;              /* longest time of an op; 0 = 100 us */
    uint64_t writes, clears, removes, reads;
};
struct fake_medium *fake_medium_create(void);
/* NULL when absent. */
struct fake_block *fake_medium_block(struct fake_medium *m, uint64_t layer, uint64_t block);

#endif
