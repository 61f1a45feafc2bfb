/*
 * meta.h: the meta store: what the metadata controller must not forget. An ordered map from text keys to byte
 * strings, changed by atomic transactions; a commit is durable when its callback runs. Providers know nothing
 * of what is stored.
 *
 * Thread: the loop's. A provider that blocks (fsync) does so on a thread of its own and completes through
 * loop_post.
 */
#ifndef CISTERN_SERVICES_MDC_META_H
#define CISTERN_SERVICES_MDC_META_H

#include "common/env.h"
#include "common/list.h"
#include "common/loop.h"

#define META_KEY_MAX   128u /* with the final NUL */
#define META_VALUE_MAX 8192u

/* One change; items of one commit are applied in order. */
struct meta_item {
    char key[META_KEY_MAX];
    void *value; /* malloc'ed, NULL = delete the key (which may be absent) */
    uint32_t len;
};
/* Embedded in the caller's object. items stay the caller's, untouched, until done. */
struct meta_commit {
    const struct meta_item *items;
    size_t count;
    /* 0: durable. Anything else: unknown whether it happened; the store takes no more commits (-EIO). */
    void (*done)(struct meta_commit *c, int rc);
    int rc; /* the provider's */
    struct loop_task task;
    struct loop_timer timer;
};
struct meta_store {
    const struct meta_ops *ops;
};
struct meta_ops {
    const char *name; /* "lmdb" */
    int (*load)(struct meta_store *s, int (*fn)(void *arg, const char *key, const void *value, size_t len),
                void *arg);
    int (*commit)(struct meta_store *s, struct meta_commit *c);
    void (*close)(struct meta_store *s);
    /* What it takes, and may take at most. NULL: not known. Also while a commit is in flight. */
    void (*usage)(struct meta_store *s, uint64_t *bytes, uint64_t *limit_bytes);
};
/* Calls fn for each key in order; stops at, and returns, fn's first non-zero answer. 0 or -errno. Not while a
 * commit is in flight. A key or value out of the limits above is -EBADMSG. */
static inline int meta_load(struct meta_store *s,
                            int (*fn)(void *arg, const char *key, const void *value, size_t len), void *arg)
{
    return s->ops->load(s, fn, arg);
}
/* 0: done runs once, later. -EBUSY: one is in flight already; -EIO: an earlier one failed. */
static inline int meta_commit_start(struct meta_store *s, struct meta_commit *c)
{
    return s->ops->commit(s, c);
}
static inline void meta_usage(struct meta_store *s, uint64_t *bytes, uint64_t *limit_bytes)
{
    *bytes = *limit_bytes = 0;
    if (s->ops->usage != NULL)
        s->ops->usage(s, bytes, limit_bytes);
}
/* Any time; a commit in flight may or may not happen, and its done does not run. Frees s. */
static inline void meta_close(struct meta_store *s)
{
    s->ops->close(s);
}

/* ---- LMDB: one file in dir (created with mode 0700), with a lock that keeps a second process out ---- */
struct meta_lmdb_config {
    const char *dir;
    uint64_t map_bytes; /* most bytes of the file; 0 = 1 GiB (sparse) */
};
/* env->loop runs the completions. 0; -EWOULDBLOCK: another process has it open; -EMEDIUMTYPE: not an LMDB
 * file; -errno. The reason is logged. */
int meta_lmdb_open(struct env *env, const struct meta_lmdb_config *config, struct meta_store **out);

/* ---- simulated: a "disk" in memory that outlives processes ---- */
struct meta_sim;
/* commit_ns: how long a commit takes on the process's clock, jittered up to twice that. seed decides what
 * becomes of commits that a crash cuts off. 0 or -ENOMEM. */
int meta_sim_create(uint64_t seed, uint64_t commit_ns, struct meta_sim **out);
/* No store of it may be open. */
void meta_sim_destroy(struct meta_sim *sim);
/* A process opens it. Closing it is also the crash: a commit in flight then has happened or not, as the seed
 * says. 0; -EWOULDBLOCK: open already; -ENOMEM. */
int meta_sim_open(struct meta_sim *sim, struct env *env, struct meta_store **out);
/* The n-th commit from now fails with rc (n = 1: the next); whether it happened is the seed's. 0 = none. */
void meta_sim_fail_at(struct meta_sim *sim, unsigned n, int rc);
/* A copy of what is committed ("a backup"), and putting it back; not while open. 0 or -ENOMEM. */
int meta_sim_snapshot(const struct meta_sim *sim, struct meta_sim **out);
int meta_sim_restore(struct meta_sim *sim, const struct meta_sim *snapshot);
/* Overwrites one committed value's byte, for tests of damage. 0 or -ENOENT. */
int meta_sim_damage(struct meta_sim *sim, const char *key, size_t offset);
/* Number of keys, and of commits done since creation. */
size_t meta_sim_keys(const struct meta_sim *sim);
uint64_t meta_sim_commits(const struct meta_sim *sim);

#endif
