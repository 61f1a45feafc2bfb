/*
 * torture.h: the torture of the block store. One store on RAM devices in virtual time, a model of what it has
 * promised, and ways to be cruel to it:
 *
 *   seeds.c    a random workload; the power goes, or the process dies, again and again, also in the recovery
 *   persist.c  each kind of operation; a crash after every single persist of it
 *   faults.c   each kind of operation; every single request of the device fails, once or from then on
 *   rot.c      flipped bits in any page, while the store runs or while it is down
 *   media.c    media that were put back from copies, swapped, cut off, blank or foreign
 *
 * world.c drives the store, model.c judges it, main.c runs seeds in processes of their own. Every run follows
 * from (kind, seed) alone. Who finds a fault says so and ends the process: TORTURE_FAIL.
 */
#ifndef CISTERN_TESTS_TORTURE_H
#define CISTERN_TESTS_TORTURE_H

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/device/device_ram.h"
#include "common/rng.h"
#include "common/sim.h"
#include "services/rwm/store.h"
#include "services/rwm/store_layout.h"
#include "tests/torture/slow_device.h"

enum { BLOCKS = 24, RECORDS = 9, REQUESTS = 24, KEPT = 48 };

/* ---- the model ---- */
/* One state that a block had or may have. */
struct image {
    uint64_t version;
    uint64_t units[UNITS_PER_BLOCK]; /* version of the content, 0 = hole */
    bool present;
};
/* Images have numbers; kept[number % KEPT]. The one acked is durable, those up to last were asked for. */
struct block {
    struct image kept[KEPT];
    uint64_t acked, last;
    bool vague; /* a request in the middle was refused: only whose the units are is known */
};
struct record {
    uint64_t values[KEPT];
    uint64_t acked, last;
};
struct model {
    struct block blocks[BLOCKS];
    struct record records[RECORDS];
    uint64_t next_version;
    uint64_t incarnation, incarnation_next; /* of store_set_accepted: acknowledged; asked for */
    uint64_t start_counter;                 /* at least */
};

enum request_kind { DO_WRITE, DO_CLEAR, DO_READ, DO_STAT, DO_REMOVE, DO_RECORD };
struct torture;
struct request {
    struct torture *t;
    struct store_op op;
    struct store_record_op record_op;
    struct iovec iov[2];
    uint32_t crcs[UNITS_PER_BLOCK];
    uint8_t *data;
    enum request_kind kind;
    unsigned block;  /* or record */
    uint64_t number; /* of the image that it leads to; reads: of the one acknowledged when they began */
    bool busy;
    int rc;
};

/* ---- the world ---- */
struct media {
    struct device *dev[2]; /* data; journal or NULL */
};
struct torture {
    const char *kind;
    uint64_t seed;
    bool verbose;
    char where[160]; /* for messages */
    struct rng rng;
    struct sim_world *sim;
    struct loop *loop;
    struct rng env_rng;
    struct env env;
    struct media media;
    struct slow_device front[2];
    uint64_t hold; /* one in so many requests is slow; 0 = none */
    struct store_options options;
    struct store *s, *opening;
    struct store_open_report report;
    bool done;
    int rc;
    struct model m;
    struct request requests[REQUESTS];
    struct request judge; /* the judge's own */
    unsigned live;
    bool down;   /* no callback may come */
    bool narrow; /* the workload is: the same few units all the time */
    bool faulty; /* the device fails: requests may */
    bool rotten; /* something rotted: requests may answer -EBADMSG */
    bool lossy;  /* what was written last may be gone, unsaid: the rot can not be told from a tear */
    /* After its first error this device goes on failing, or is gone; NULL: none. */
    struct device *fault_device;
    bool fault_gone;
    int fault_rc;
    uint64_t fault_errors;
    uint64_t size; /* of the data device */
    uint64_t crashes, opens, acknowledged;
};

#define TORTURE_FAIL(t, ...)                                                                                 \
    do {                                                                                                     \
        torture_say(t);                                                                                      \
        fprintf(stderr, __VA_ARGS__);                                                                        \
        torture_die();                                                                                       \
    } while (0)
#define CHECK(t, cond, ...)                                                                                  \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            TORTURE_FAIL(t, __VA_ARGS__);                                                                    \
    } while (0)
void torture_say(const struct torture *t);
void torture_die(void) __attribute__((noreturn));
/* Where we are, for the message of a failure, also of an assertion in the store. */
void torture_where(struct torture *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* world.c */
void torture_init(struct torture *t, const char *kind, uint64_t seed);
void torture_end(struct torture *t);
/* New, blank devices; which sizes and kinds follows from the random numbers. */
void torture_make_media(struct torture *t, bool pmem);
bool torture_step(struct torture *t);                   /* false: nothing is left to happen now */
bool torture_run(struct torture *t, const bool *until); /* until *until, a crash, or nothing happens */
void torture_drain(struct torture *t);
void torture_pass(struct torture *t, uint64_t ns); /* time, with all that happens in it */
bool torture_crashed(const struct torture *t);
void torture_crash_after(struct torture *t, unsigned device, uint64_t persists); /* 0: never */
int torture_format(struct torture *t, bool force);                               /* -ECANCELED: crashed */
int torture_open(struct torture *t);     /* as well; t->s is there when 0 */
int torture_close(struct torture *t);    /* as well; destroys the store unless crashed */
void torture_abandon(struct torture *t); /* the process is dead: the store and all requests are gone */
void torture_format_and_open(struct torture *t);

struct device *device_copy(const struct device *dev,
                           uint64_t seed); /* same content, unflushed writes included */
struct media media_copy(const struct media *m, uint64_t seed);
/* What a loss of power leaves (whole, torn, dropped: by seed). */
struct media media_crash_image(const struct media *m, uint64_t seed);
void media_destroy(struct media *m);
void torture_put_media(struct torture *t, struct media m); /* in place of those there, which are destroyed */
void torture_power_cut(struct torture *t);
void torture_kill(struct torture *t); /* the process alone */

/* model.c, judge.c */
/* Submits, and notes it in the model. NULL: not now (too many, or no space). */
struct request *torture_submit(struct torture *t, enum request_kind kind, unsigned block, uint32_t first,
                               uint32_t count, bool forget);
struct request *torture_submit_record(struct torture *t, unsigned record);
void torture_submit_random(struct torture *t);
bool torture_wait(struct torture *t); /* until no request is under way; false: crashed */
void torture_workload(struct torture *t, unsigned steps);
/* Everything is read: it must be what was acknowledged, or what was asked for later; from then on it is that.
 */
void torture_verify(struct torture *t);
/* Content of one block as the store has it: the number of the image, or -EBADMSG; anything else fails. */
int64_t torture_verify_block(struct torture *t, unsigned block);
/* After t->rotten: what is readable must be right; the rest says so, also after another start, and can be
 * written anew. Returns how many blocks are not readable. */
unsigned torture_verify_rotten(struct torture *t);

/* scripts.c: one kind of operation each */
struct script {
    const char *name;
    void (*before)(struct torture *t); /* with no store open, on media as a kill left them; may be NULL */
    void (*run)(struct torture *t);    /* ends when all is quiet, or with the crash */
    bool not_open;                     /* run opens the store itself, or needs none */
    bool formats;                      /* what was there may be gone, in favour of an empty store */
};
extern const struct script torture_scripts[];
extern const unsigned torture_script_count;
/* Media with a store in many states, as a kill left them, and the model. */
void torture_prepare(struct torture *t, const struct script *script, bool pmem);

/* kinds */
void torture_seeds(struct torture *t);
void torture_persist(struct torture *t);
void torture_faults(struct torture *t);
void torture_rot(struct torture *t);
void torture_media(struct torture *t);

#endif
