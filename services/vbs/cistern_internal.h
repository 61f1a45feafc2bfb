/*
 * cistern_internal.h: what the files of libcistern share.
 *
 *   cistern_connect.c  connections: loop, thread, waiting for jobs
 *   cistern_volume.c   open, close, changes
 *   cistern_io.c       requests
 *   cistern_memory.c   registered memory
 *   cistern_options.c  options, errors
 *
 * Calls come from any thread; what they want done is handed to the loop's thread as a job or an op. All that
 * is not marked otherwise is the loop's thread's.
 */
#ifndef CISTERN_SERVICES_VBS_CISTERN_INTERNAL_H
#define CISTERN_SERVICES_VBS_CISTERN_INTERNAL_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "common/env.h"
#include "common/rng.h"
#include "services/vbs/cistern.h"
#include "services/vbs/gateway_client.h"
#include "services/vbs/volume.h"

#define CISTERN_ARENA_BYTES (64 * MIB)
enum { CISTERN_SGE_INLINE = 16, CISTERN_OPS_SLAB = 128, CISTERN_OPS_MAX = 65536 };
#define CISTERN_PIECE_MAX (1u << 30) /* of one struct fabric_sge; a multiple of SECTOR_BYTES */

struct cistern_op {
    struct list link; /* c->submitted or c->free_ops */
    struct cistern_volume *v;
    struct volume_request vr;
    cistern_callback *cb;
    void *arg;
    struct fabric_sge *pieces; /* inline_pieces, or from the heap */
    struct fabric_sge inline_pieces[CISTERN_SGE_INLINE];
};
struct cistern {
    struct env env;
    struct rng rng;
    struct fabric_config fabric_config;
    struct volume_core *core;  /* direct */
    struct vbs_client *client; /* through a gateway */
    char host[MDC_NAME_MAX];
    char *where; /* the addresses, for errors */
    uint64_t instance;
    unsigned connect_timeout_ms;
    bool own_loop, thread_runs;
    pthread_t thread;
    struct loop_task drain;
    pthread_mutex_t lock; /* of the rest of this struct */
    pthread_cond_t cond;  /* a job is done; a volume has no requests left */
    struct list submitted, free_ops, slabs;
    struct list late; /* opens whose callers have gone, until they are answered */
    unsigned ops;
    bool posted; /* drain is on its way */
    uint8_t *arena;
    struct fabric_mem *arena_mem;
    uint64_t *arena_map; /* one bit a page, 1 = taken */
    size_t arena_next;
};
struct cistern_volume {
    struct cistern *c;
    struct volume *direct;
    struct vbs_client_volume *through;
    struct volume_info info; /* but for the size */
    bool read_only;
    _Atomic uint64_t size_bytes;
    _Atomic int lost_rc;
    unsigned requests; /* c->lock */
    cistern_callback *changed;
    void *changed_arg;
};

/* ---- jobs: something done on the loop's thread that a caller waits for ---- */
struct cistern_job {
    struct loop_task task;
    struct cistern *c;
    void (*fn)(struct cistern_job *job); /* begins it; some time later job_finish */
    struct loop_timer timer;
    unsigned timeout_ms;
    bool done;      /* c->lock */
    bool abandoned; /* c->lock: the caller has gone; who finishes it cleans up */
    int rc;
    char text[256];
};
/* Runs fn on the loop's thread and waits until job_finish, at most timeout_ms (0 = for ever). False: not
 * finished, and now abandoned. */
bool cistern_job_run(struct cistern *c, struct cistern_job *job, void (*fn)(struct cistern_job *),
                     unsigned timeout_ms);
/* True when the caller still waits; false: it has gone, the job is the callee's to free. */
bool cistern_job_finish(struct cistern_job *job, int rc, const char *text);

/* Sets the calling thread's error and returns rc. */
int cistern_fail(int rc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Requests handed over by other threads. */
void cistern_drain(struct loop_task *t);
void cistern_ops_free(struct cistern *c);
/* Opens that nobody waits for and nobody will answer. */
void cistern_late_free(struct cistern *c);

/* 0 or -errno. */
int cistern_arena_create(struct cistern *c);
void cistern_arena_destroy(struct cistern *c);

#endif
