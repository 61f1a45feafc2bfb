/*
 * rwm_other.h: the other module (number 2) of a partition with two copies, played by the test: it has blocks,
 * and answers as told. For tests over rwm_fixture.h.
 */
#ifndef CISTERN_TESTS_RWM_OTHER_H
#define CISTERN_TESTS_RWM_OTHER_H

#include "common/wire/copy_proto.h"
#include "tests/unit/rwm_fixture.h"

#define OTHER_BLOCKS 16u
#define OTHER_INC    900u
#define OTHER_KEPT   64u
#define OTHER_SYNC   TABLE_MEMBER_IN_SYNC

struct other {
    struct fix *f;
    struct fix_proc proc;
    struct rpc_listener *listener;
    struct fake_block *blocks; /* OTHER_BLOCKS */
    struct other_act {
        uint32_t status; /* 0: it does what it is asked for */
        bool silent;     /* the request is kept */
        bool closes;     /* ends the connection instead of answering, once */
        bool bad_crc;
    } act[32]; /* by method */
    struct rpc_request *kept[OTHER_KEPT];
    uint16_t kept_method[OTHER_KEPT];
    bool forgetful; /* does not know what is recent: everything is compared */
    unsigned kept_count, asked[32];
    struct copy_forward forward; /* the latest */
    struct copy_replace replace;
    struct copy_release release;
    struct list taking; /* payloads on their way */
};

/* The module under test serves partitions with both in sync, and a client is connected. */
void other_begin(struct fix *f, struct other *o, struct fix_conn *c, uint64_t seed);
void other_end(struct fix *f, struct other *o, struct fix_conn *c);
/* All partitions: members with flags, 0 for none; in an epoch above all before. */
void other_members(struct other *o, uint32_t first, uint32_t second);
/* It has what the module's medium has now. */
void other_mirror(struct other *o);
struct fake_block *other_block(struct other *o, uint64_t layer, uint64_t block);
/* Answers what was kept: with a status, or (0) by doing it. */
void other_release(struct other *o, uint32_t status);

#endif
