/*
 * meta_lmdb.c: the meta store in one LMDB file. LMDB's commit blocks in fsync, so write transactions run, one
 * at a time, on a helper thread; the completion is posted to the loop. Reading is done once, at start, on the
 * caller's thread, with no commit in flight.
 *
 * After a failed commit the state of the file is not known before it is opened again, so nothing more is
 * taken.
 */
#include "services/mdc/meta.h"

#include "common/log.h"

#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LMDB_MAP_DEFAULT GIB

struct meta_lmdb {
    struct meta_store store;
    struct env *env;
    MDB_env *mdb;
    MDB_dbi dbi;
    int lock_fd;
    pthread_t thread;
    bool thread_runs;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct meta_commit *todo;    /* handed to the thread; under lock */
    bool stop;                   /* under lock */
    struct meta_commit *current; /* the loop's view: in flight until its done runs */
    bool failed;
    struct loop_task done_task;
};

static struct meta_lmdb *lmdb_of(struct meta_store *s)
{
    return container_of(s, struct meta_lmdb, store);
}

static int errno_from_lmdb(int rc)
{
    if (rc == 0)
        return 0;
    if (rc > 0)
        return -rc;
    switch (rc) {
    case MDB_MAP_FULL:
        return -ENOSPC;
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return -EMEDIUMTYPE;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
        return -EBADMSG;
    default:
        return -EIO;
    }
}

/* ---- reading ---- */

static int lmdb_walk(MDB_cursor *cursor, int (*fn)(void *, const char *, const void *, size_t), void *arg)
{
    MDB_val k, v;
    int rc;
    while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        char key[META_KEY_MAX];
        if (k.mv_size == 0 || k.mv_size >= sizeof(key) || v.mv_size > META_VALUE_MAX ||
            memchr(k.mv_data, 0, k.mv_size) != NULL)
            return -EBADMSG;
        memcpy(key, k.mv_data, k.mv_size);
        key[k.mv_size] = 0;
        rc = fn(arg, key, v.mv_data, v.mv_size);
        if (rc != 0)
            return rc;
    }
    return rc == MDB_NOTFOUND ? 0 : errno_from_lmdb(rc);
}

static int lmdb_load(struct meta_store *s, int (*fn)(void *, const char *, const void *, size_t), void *arg)
{
    struct meta_lmdb *l = lmdb_of(s);
    MDB_txn *txn;
    MDB_cursor *cursor;
    MUST(l->current == NULL);
    int rc = mdb_txn_begin(l->mdb, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return errno_from_lmdb(rc);
    rc = mdb_cursor_open(txn, l->dbi, &cursor);
    if (rc == 0) {
        rc = lmdb_walk(cursor, fn, arg);
        mdb_cursor_close(cursor);
    } else {
        rc = errno_from_lmdb(rc);
    }
    mdb_txn_abort(txn);
    return rc;
}

/* ---- committing: on the helper thread ---- */

static int lmdb_apply(struct meta_lmdb *l, const struct meta_commit *c)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(l->mdb, NULL, 0, &txn);
    if (rc != 0)
        return errno_from_lmdb(rc);
    for (size_t i = 0; i < c->count && rc == 0; i++) {
        const struct meta_item *item = &c->items[i];
        MDB_val k = {.mv_size = strlen(item->key), .mv_data = (void *)(uintptr_t)item->key};
        MDB_val v = {.mv_size = item->len, .mv_data = item->value};
        if (item->value != NULL) {
            rc = mdb_put(txn, l->dbi, &k, &v, 0);
        } else {
            rc = mdb_del(txn, l->dbi, &k, NULL);
            rc = rc == MDB_NOTFOUND ? 0 : rc;
        }
    }
    if (rc != 0) {
        mdb_txn_abort(txn);
        return errno_from_lmdb(rc);
    }
    return errno_from_lmdb(mdb_txn_commit(txn));
}

static void *lmdb_thread(void *arg)
{
    struct meta_lmdb *l = arg;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (l->todo == NULL && !l->stop)
            pthread_cond_wait(&l->wake, &l->lock);
        struct meta_commit *c = l->todo;
        if (c == NULL)
            break;
        l->todo = NULL;
        pthread_mutex_unlock(&l->lock);
        c->rc = lmdb_apply(l, c);
        MUST(loop_post(l->env->loop, &l->done_task) == 0);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static void lmdb_done(struct loop_task *t)
{
    struct meta_lmdb *l = container_of(t, struct meta_lmdb, done_task);
    struct meta_commit *c = l->current;
    l->current = NULL;
    if (c->rc != 0) {
        l->failed = true;
        log_error(l->env, "the metadata store could not commit", "error=%d (%s)", c->rc, strerror(-c->rc));
    }
    c->done(c, c->rc);
}

static int lmdb_commit(struct meta_store *s, struct meta_commit *c)
{
    struct meta_lmdb *l = lmdb_of(s);
    if (l->failed)
        return -EIO;
    if (l->current != NULL)
        return -EBUSY;
    l->current = c;
    c->rc = 0;
    pthread_mutex_lock(&l->lock);
    l->todo = c;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    return 0;
}

/* ---- opening and closing ---- */

static void lmdb_close(struct meta_store *s)
{
    struct meta_lmdb *l = lmdb_of(s);
    if (l->thread_runs) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_signal(&l->wake);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
        loop_task_cancel(l->env->loop, &l->done_task);
    }
    if (l->mdb != NULL)
        mdb_env_close(l->mdb);
    if (l->lock_fd >= 0)
        close(l->lock_fd);
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* Of the last commit: pages in use end there, and are used again before the file grows. */
static void lmdb_usage(struct meta_store *s, uint64_t *bytes, uint64_t *limit_bytes)
{
    const struct meta_lmdb *l = lmdb_of(s);
    MDB_envinfo info;
    MDB_stat stat;
    if (mdb_env_info(l->mdb, &info) != 0 || mdb_env_stat(l->mdb, &stat) != 0)
        return;
    *bytes = (info.me_last_pgno + 1) * stat.ms_psize;
    *limit_bytes = info.me_mapsize;
}

static const struct meta_ops lmdb_ops = {
    .name = "lmdb", .load = lmdb_load, .commit = lmdb_commit, .close = lmdb_close, .usage = lmdb_usage};

static int lmdb_lock_dir(struct meta_lmdb *l, const char *dir)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof(path), "%s/lock", dir) >= sizeof(path))
        return -ENAMETOOLONG;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return -errno;
    l->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (l->lock_fd < 0)
        return -errno;
    return flock(l->lock_fd, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno;
}

/* LMDB trusts an existing file's first page; a short or foreign one is refused here with a clear error. */
static int lmdb_check_file(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISREG(st.st_mode) || (st.st_size != 0 && st.st_size < 8192))
        return -EMEDIUMTYPE;
    return 0;
}

static int lmdb_open_env(struct meta_lmdb *l, const struct meta_lmdb_config *config)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof(path), "%s/meta.lmdb", config->dir) >= sizeof(path))
        return -ENAMETOOLONG;
    int rc = lmdb_check_file(path);
    if (rc != 0)
        return rc;
    rc = mdb_env_create(&l->mdb);
    if (rc != 0)
        return errno_from_lmdb(rc);
    rc = mdb_env_set_mapsize(l->mdb, config->map_bytes != 0 ? config->map_bytes : LMDB_MAP_DEFAULT);
    if (rc == 0)
        rc = mdb_env_open(l->mdb, path, MDB_NOSUBDIR | MDB_NOTLS, 0600);
    if (rc != 0)
        return errno_from_lmdb(rc);
    MDB_txn *txn;
    rc = mdb_txn_begin(l->mdb, NULL, 0, &txn);
    if (rc != 0)
        return errno_from_lmdb(rc);
    rc = mdb_dbi_open(txn, NULL, 0, &l->dbi);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return errno_from_lmdb(rc);
    }
    return errno_from_lmdb(mdb_txn_commit(txn));
}

static const char *open_error_text(int rc)
{
    switch (rc) {
    case -ENOENT:
        return "No such file or directory; the directory is made, but not what it is in";
    case -EWOULDBLOCK:
        return "another process uses this directory";
    case -EMEDIUMTYPE:
        return "meta.lmdb is not a store of this program: give another directory, or restore a backup";
    default:
        return strerror(-rc);
    }
}

int meta_lmdb_open(struct env *env, const struct meta_lmdb_config *config, struct meta_store **out)
{
    struct meta_lmdb *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return -ENOMEM;
    l->store.ops = &lmdb_ops;
    l->env = env;
    l->lock_fd = -1;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->wake, NULL);
    loop_task_init(&l->done_task, lmdb_done);
    int rc = lmdb_lock_dir(l, config->dir);
    if (rc == 0)
        rc = lmdb_open_env(l, config);
    if (rc == 0) {
        rc = -pthread_create(&l->thread, NULL, lmdb_thread, l);
        l->thread_runs = rc == 0;
    }
    if (rc != 0) {
        log_error(env, "cannot start: the metadata store cannot be opened", "data-dir=%s why=\"%s\"",
                  config->dir, open_error_text(rc));
        lmdb_close(&l->store);
        return rc;
    }
    *out = &l->store;
    return 0;
}
