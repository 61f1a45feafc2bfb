/* test_mdc_meta.c: both meta stores under one contract, then what only one of them has: files, locks, kills,
 * damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/rng.h"
#include "services/mdc/mdc.h"
#include "services/mdc/meta.h"
#include "services/mdc/records.h"

struct bench {
    struct loop *loop;
    struct rng rng;
    struct env env;
    struct meta_sim *sim; /* NULL: LMDB in dir */
    char dir[64];
    struct meta_store *store;
    bool done;
    int rc;
    struct meta_commit commit;
    char seen[1024]; /* "key=value;" in order */
};

static int try_open(struct bench *b, struct meta_store **out)
{
    struct meta_lmdb_config c = {.dir = b->dir, .map_bytes = 16 * MIB};
    return b->sim != NULL ? meta_sim_open(b->sim, &b->env, out) : meta_lmdb_open(&b->env, &c, out);
}

static struct bench *bench_new(bool sim)
{
    struct bench *b = calloc(1, sizeof(*b));
    assert_non_null(b);
    assert_int_equal(loop_create_real(NULL, &b->loop), 0);
    rng_seed(&b->rng, 3);
    b->env = (struct env){.loop = b->loop, .rng = &b->rng, .name = "meta"};
    snprintf(b->dir, sizeof(b->dir), "/tmp/cistern-meta-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    if (sim)
        assert_int_equal(meta_sim_create(1, 1000, &b->sim), 0);
    assert_int_equal(try_open(b, &b->store), 0);
    return b;
}

static void file_of(const struct bench *b, const char *name, char *out)
{
    snprintf(out, 128, "%s/%s", b->dir, name);
}

static void bench_free(struct bench *b)
{
    static const char *const names[] = {"meta.lmdb", "meta.lmdb-lock", "lock"};
    char path[128];
    if (b->store != NULL)
        meta_close(b->store);
    if (b->sim != NULL)
        meta_sim_destroy(b->sim);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        file_of(b, names[i], path);
        unlink(path);
    }
    rmdir(b->dir);
    loop_destroy(b->loop);
    free(b);
}

static void reopen(struct bench *b)
{
    meta_close(b->store);
    b->store = NULL;
    assert_int_equal(try_open(b, &b->store), 0);
}

static void on_done(struct meta_commit *c, int rc)
{
    struct bench *b = container_of(c, struct bench, commit);
    b->done = true;
    b->rc = rc;
}

static void put(struct meta_item *item, const char *key, const char *value)
{
    memset(item, 0, sizeof(*item));
    snprintf(item->key, sizeof(item->key), "%s", key);
    item->value = (void *)(uintptr_t)value;
    item->len = value != NULL ? (uint32_t)strlen(value) : 0;
}

static int commit(struct bench *b, const struct meta_item *items, size_t count)
{
    b->commit = (struct meta_commit){.items = items, .count = count, .done = on_done};
    b->done = false;
    int rc = meta_commit_start(b->store, &b->commit);
    if (rc != 0)
        return rc;
    assert_false(b->done); /* never inline */
    for (unsigned i = 0; !b->done; i++) {
        assert_true(i < 100000);
        loop_run_once(b->loop, 10 * NS_PER_MS);
    }
    return b->rc;
}

static int see(void *arg, const char *key, const void *value, size_t len)
{
    struct bench *b = arg;
    size_t at = strlen(b->seen);
    snprintf(b->seen + at, sizeof(b->seen) - at, "%s=%.*s;", key, (int)len, (const char *)value);
    return 0;
}

static const char *all(struct bench *b)
{
    b->seen[0] = 0;
    assert_int_equal(meta_load(b->store, see, b), 0);
    return b->seen;
}

static int stop_at_second(void *arg, const char *key, const void *value, size_t len)
{
    (void)key;
    (void)value;
    (void)len;
    return ++*(int *)arg == 2 ? 42 : 0;
}

/* ---- the contract ---- */

static void contract(bool sim)
{
    struct bench *b = bench_new(sim);
    struct meta_item items[4];
    assert_string_equal(all(b), "");
    put(&items[0], "b", "2");
    put(&items[1], "a", "1");
    put(&items[2], "c", "");
    put(&items[3], "b", "two");
    assert_int_equal(commit(b, items, 4), 0);
    assert_string_equal(all(b), "a=1;b=two;c=;");
    reopen(b);
    assert_string_equal(all(b), "a=1;b=two;c=;");
    put(&items[0], "a", NULL);
    put(&items[1], "nosuch", NULL);
    put(&items[2], "d", "4");
    assert_int_equal(commit(b, items, 3), 0);
    assert_string_equal(all(b), "b=two;c=;d=4;");
    int n = 0;
    assert_int_equal(meta_load(b->store, stop_at_second, &n), 42);
    assert_int_equal(commit(b, items, 0), 0);
    /* one at a time */
    b->commit = (struct meta_commit){.items = items, .count = 3, .done = on_done};
    b->done = false;
    assert_int_equal(meta_commit_start(b->store, &b->commit), 0);
    struct meta_commit second = {.items = items, .count = 1, .done = on_done};
    assert_int_equal(meta_commit_start(b->store, &second), -EBUSY);
    /* closed with one in flight: no callback, and it is whole or absent */
    meta_close(b->store);
    b->store = NULL;
    loop_run_once(b->loop, 0);
    assert_false(b->done);
    assert_int_equal(try_open(b, &b->store), 0);
    assert_string_equal(all(b), "b=two;c=;d=4;");
    /* one process */
    struct meta_store *other;
    log_set_level(LOG_ERROR_ + 1);
    assert_int_equal(try_open(b, &other), -EWOULDBLOCK);
    log_set_level(LOG_ERROR_);
    bench_free(b);
}

static void test_contract_sim(void **state)
{
    (void)state;
    contract(true);
}

static void test_contract_lmdb(void **state)
{
    (void)state;
    contract(false);
}

/* ---- simulated ---- */

static void test_sim_crash_decides_by_seed(void **state)
{
    (void)state;
    struct bench *b = bench_new(true);
    unsigned happened = 0;
    for (unsigned i = 0; i < 64; i++) {
        struct meta_item items[2];
        char key[16];
        snprintf(key, sizeof(key), "k%02u", i);
        put(&items[0], key, "x");
        snprintf(key, sizeof(key), "l%02u", i);
        put(&items[1], key, "x");
        b->commit = (struct meta_commit){.items = items, .count = 2, .done = on_done};
        assert_int_equal(meta_commit_start(b->store, &b->commit), 0);
        size_t before = meta_sim_keys(b->sim);
        reopen(b);
        size_t more = meta_sim_keys(b->sim) - before;
        assert_true(more == 0 || more == 2);
        happened += more != 0;
    }
    assert_true(happened > 10 && happened < 54);
    bench_free(b);
}

static void test_sim_snapshot(void **state)
{
    (void)state;
    struct bench *b = bench_new(true);
    struct meta_item item;
    struct meta_sim *copy;
    put(&item, "a", "1");
    assert_int_equal(commit(b, &item, 1), 0);
    assert_int_equal(meta_sim_snapshot(b->sim, &copy), 0);
    put(&item, "a", "2");
    assert_int_equal(commit(b, &item, 1), 0);
    meta_close(b->store);
    assert_int_equal(meta_sim_restore(b->sim, copy), 0);
    assert_int_equal(try_open(b, &b->store), 0);
    assert_string_equal(all(b), "a=1;");
    meta_sim_destroy(copy);
    bench_free(b);
}

static void test_sim_failure_is_final(void **state)
{
    (void)state;
    struct bench *b = bench_new(true);
    struct meta_item item;
    put(&item, "a", "1");
    meta_sim_fail_at(b->sim, 2, -ENOSPC);
    assert_int_equal(commit(b, &item, 1), 0);
    assert_int_equal(commit(b, &item, 1), -ENOSPC);
    assert_int_equal(commit(b, &item, 1), -EIO);
    reopen(b);
    assert_int_equal(commit(b, &item, 1), 0);
    bench_free(b);
}

/* ---- LMDB ---- */

/* Commits pairs n, n until killed; each n that is durable is told through fd. */
static void commit_until_killed(struct bench *b, int fd)
{
    for (uint32_t n = 1;; n++) {
        struct meta_item items[2];
        char text[16];
        snprintf(text, sizeof(text), "%u", n);
        put(&items[0], "left", text);
        put(&items[1], "right", text);
        if (commit(b, items, 2) != 0 || write(fd, &n, sizeof(n)) != (ssize_t)sizeof(n))
            _exit(1);
    }
}

/* Killed at any moment: what was told to be durable is there, and each transaction is whole. */
static void test_lmdb_killed(void **state)
{
    (void)state;
    struct bench *b = bench_new(false);
    unsigned last = 0;
    for (unsigned round = 0; round < 6; round++) {
        int fds[2];
        meta_close(b->store);
        b->store = NULL;
        assert_int_equal(pipe(fds), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            close(fds[0]);
            if (try_open(b, &b->store) != 0)
                _exit(1);
            commit_until_killed(b, fds[1]);
        }
        close(fds[1]);
        uint32_t n = 0, told;
        while (n < 20 + round * 7 && read(fds[0], &told, sizeof(told)) == (ssize_t)sizeof(told))
            n = told;
        kill(child, SIGKILL);
        while (read(fds[0], &told, sizeof(told)) == (ssize_t)sizeof(told))
            n = told;
        close(fds[0]);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(try_open(b, &b->store), 0);
        unsigned left = 0, right = 0;
        assert_int_equal(sscanf(all(b), "left=%u;right=%u;", &left, &right), 2);
        assert_int_equal(left, right);
        assert_true(left == n || left == n + 1);
        last = left;
    }
    assert_true(last >= 20);
    bench_free(b);
}

static void write_file(const char *path, const void *data, size_t len, off_t at, int flags)
{
    int fd = open(path, O_WRONLY | flags, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, len, at), (ssize_t)len);
    close(fd);
}

static void test_lmdb_foreign_file(void **state)
{
    (void)state;
    struct bench *b = bench_new(false);
    char path[128];
    uint8_t junk[16384];
    memset(junk, 0x5a, sizeof(junk));
    meta_close(b->store);
    b->store = NULL;
    file_of(b, "meta.lmdb", path);
    log_set_level(LOG_ERROR_ + 1);
    write_file(path, junk, 100, 0, O_TRUNC);
    assert_int_equal(try_open(b, &b->store), -EMEDIUMTYPE);
    write_file(path, junk, sizeof(junk), 0, O_TRUNC);
    assert_int_equal(try_open(b, &b->store), -EMEDIUMTYPE);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(try_open(b, &b->store), -EMEDIUMTYPE);
    rmdir(path);
    log_set_level(LOG_ERROR_);
    assert_int_equal(try_open(b, &b->store), 0);
    assert_string_equal(all(b), "");
    bench_free(b);
}

/* A store full of somebody else's keys, and one of a later format. */
static void test_foreign_content(void **state)
{
    (void)state;
    struct bench *b = bench_new(false);
    struct meta_item item;
    struct uuid id = {{1}}, found;
    assert_int_equal(mdc_store_cluster(b->store, &found), -ENOENT);
    put(&item, "hello", "world");
    assert_int_equal(commit(b, &item, 1), 0);
    assert_int_equal(mdc_store_cluster(b->store, &found), -EMEDIUMTYPE);
    put(&item, "hello", NULL);
    assert_int_equal(commit(b, &item, 1), 0);
    struct record_format f = {.magic = RECORD_MAGIC, .format = RECORD_FORMAT + 1, .cluster = id};
    record_seal(RECORD_FORMAT_ID, &f);
    put(&item, RECORD_KEY_FORMAT, "");
    item.value = &f;
    item.len = sizeof(f);
    assert_int_equal(commit(b, &item, 1), 0);
    assert_int_equal(mdc_store_cluster(b->store, &found), -EPROTONOSUPPORT);
    f.format = RECORD_FORMAT;
    record_seal(RECORD_FORMAT_ID, &f);
    assert_int_equal(commit(b, &item, 1), 0);
    assert_int_equal(mdc_store_cluster(b->store, &found), 0);
    assert_true(uuid_eq(&found, &id));
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contract_sim),
        cmocka_unit_test(test_contract_lmdb),
        cmocka_unit_test(test_sim_crash_decides_by_seed),
        cmocka_unit_test(test_sim_snapshot),
        cmocka_unit_test(test_sim_failure_is_final),
        cmocka_unit_test(test_lmdb_killed),
        cmocka_unit_test(test_lmdb_foreign_file),
        cmocka_unit_test(test_foreign_content),
    };
    log_set_level(LOG_ERROR_);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
