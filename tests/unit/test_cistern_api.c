/* libcistern's calls: arguments, options, errors, and both ways to a volume, with the library's thread and on
 * the caller's loop. */
#include "vbs_harness.h"

#include <pthread.h>
#include <unistd.h>

#include "services/vbs/cistern.h"
#include "services/vbs/gateway.h"

/* The cluster runs on a thread of its own: the library's calls block. */
struct fixture {
    struct vbs_world *vw;
    struct gateway *gw;
    pthread_t thread;
    char mdc[64], gateway[64], secret[64];
};

static void *cluster_main(void *arg)
{
    struct fixture *fx = arg;
    loop_run(fx->vw->w->loop);
    return NULL;
}

static void write_file(char *path, const char *text)
{
    snprintf(path, 64, "/tmp/cistern-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static int setup(void **state)
{
    struct fixture *fx = calloc(1, sizeof *fx);
    struct gateway_config config;
    struct fabric_addr addr;
    assert_non_null(fx);
    fx->vw = vbs_world_new(FABRIC_ROLE_VBS);
    gateway_config_default(&config);
    vbs_core_config(fx->vw, &config.core, 500);
    assert_int_equal(fabric_addr_parse("tcp:127.0.0.1:0", &config.listen), 0);
    assert_int_equal(gateway_create(&fx->vw->env, &config, &fx->gw), 0);
    WORLD_UNTIL(fx->vw->w, gateway_is_ready(fx->gw));
    fabric_addr_format(&fx->vw->w->addr, fx->mdc);
    gateway_addr(fx->gw, &addr);
    fabric_addr_format(&addr, fx->gateway);
    write_file(fx->secret, "0123456789abcdef\n");
    assert_int_equal(pthread_create(&fx->thread, NULL, cluster_main, fx), 0);
    *state = fx;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fx = *state;
    loop_stop(fx->vw->w->loop);
    pthread_join(fx->thread, NULL);
    gateway_destroy(fx->gw);
    vbs_world_free(fx->vw);
    unlink(fx->secret);
    free(fx);
    return 0;
}

static struct cistern_options options_of(struct fixture *fx, bool direct, bool own_loop)
{
    struct cistern_options o;
    cistern_options_init(&o);
    o.mdc = direct ? fx->mdc : NULL;
    o.gateway = direct ? NULL : fx->gateway;
    o.secret_file = fx->secret;
    o.host = "h1";
    o.own_loop = own_loop;
    return o;
}

static void on_done(void *arg, int rc)
{
    int *out = arg;
    assert_int_equal(*out, 1);
    *out = rc;
}

/* Until a callback has set *rc. */
static void process_until(struct cistern *c, const int *rc)
{
    while (*rc == 1)
        assert_true(cistern_process(c, 1000) >= 0);
}

/* ---- what is refused ---- */

static void refuse_connect(const struct cistern_options *o, int rc, const char *says)
{
    struct cistern *c = NULL;
    assert_int_equal(cistern_connect(o, &c), rc);
    assert_null(c);
    if (strstr(cistern_error(), says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", cistern_error(), says);
}

static void test_connect_refusals(void **state)
{
    struct fixture *fx = *state;
    struct cistern_options good = options_of(fx, true, false), o = good;
    char wrong[64];
    refuse_connect(NULL, -EINVAL, "cistern_options_init");
    o.struct_size = 8;
    refuse_connect(&o, -EINVAL, "cistern_options_init");
    o = good;
    o.gateway = fx->gateway;
    refuse_connect(&o, -EINVAL, "not both");
    o.gateway = o.mdc = NULL;
    refuse_connect(&o, -EINVAL, "mdc or gateway");
    o = good;
    o.mdc = "tcp:local host:1";
    refuse_connect(&o, -EINVAL, "tcp:local host:1");
    o.mdc = "tcp:nobody.invalid:1"; /* a name may come to be known */
    o.connect_timeout_ms = 300;
    refuse_connect(&o, -ETIMEDOUT, "tcp:nobody.invalid:1");
    o = good;
    o.mdc = "sim:1:7100";
    refuse_connect(&o, -EPROTONOSUPPORT, "sim:1:7100");
    o = good;
    o.secret_file = NULL;
    refuse_connect(&o, -EINVAL, "secret-file");
    o.secret_file = "/nowhere/secret";
    refuse_connect(&o, -ENOENT, "/nowhere/secret");
    o = good;
    o.host = "not a name";
    refuse_connect(&o, -EINVAL, "not a name");
    o = good;
    write_file(wrong, "another secret of sixteen\n");
    o.secret_file = wrong;
    o.connect_timeout_ms = 300;
    refuse_connect(&o, -ETIMEDOUT, fx->mdc);
    o = options_of(fx, false, true);
    o.secret_file = wrong;
    o.connect_timeout_ms = 300;
    refuse_connect(&o, -ETIMEDOUT, fx->gateway);
    unlink(wrong);
}

static void test_options_load(void **state)
{
    struct cistern_options o;
    char path[64];
    (void)state;
    cistern_options_init(&o);
    write_file(path, "# a comment\n\nmdc = tcp:127.0.0.1:1 # the first\n  secret-file=/a/b\nhost\t=\tx1\n");
    assert_int_equal(cistern_options_load(&o, path), 0);
    assert_string_equal(o.mdc, "tcp:127.0.0.1:1");
    assert_string_equal(o.secret_file, "/a/b");
    assert_string_equal(o.host, "x1");
    assert_null(o.gateway);
    setenv("CISTERN_CONFIG", path, 1);
    cistern_options_init(&o);
    assert_int_equal(cistern_options_load(&o, NULL), 0);
    assert_string_equal(o.host, "x1");
    unlink(path);
    assert_int_equal(cistern_options_load(&o, NULL), -ENOENT);
    unsetenv("CISTERN_CONFIG");
    write_file(path, "mdc = tcp:127.0.0.1:1\ncolour = blue\n");
    assert_int_equal(cistern_options_load(&o, path), -EINVAL);
    assert_non_null(strstr(cistern_error(), ":2:"));
    assert_non_null(strstr(cistern_error(), "colour"));
    unlink(path);
    write_file(path, "mdc\n");
    assert_int_equal(cistern_options_load(&o, path), -EINVAL);
    unlink(path);
}

static void refuse_requests(struct cistern_volume *v)
{
    static uint8_t buf[8192];
    int rc = 1;
    struct iovec iov = {buf, 4096};
    assert_int_equal(cistern_readv(v, &iov, 1, 0, NULL, NULL), -EINVAL);
    assert_int_equal(cistern_readv(v, &iov, 0, 0, on_done, &rc), -EINVAL);
    assert_int_equal(cistern_readv(NULL, &iov, 1, 0, on_done, &rc), -EINVAL);
    assert_int_equal(cistern_readv(v, &iov, 1, 100, on_done, &rc), -EINVAL);
    assert_non_null(strstr(cistern_error(), "512"));
    assert_int_equal(cistern_writev(v, &iov, 1, 32 * MIB, on_done, &rc), -ERANGE);
    assert_int_equal(cistern_discard(v, 0, 0, on_done, &rc), -EINVAL);
    assert_int_equal(cistern_discard(v, 512, UINT64_MAX - 511, on_done, &rc), -ERANGE);
    assert_int_equal(cistern_extents(v, 512, 4096, buf, on_done, &rc), -EINVAL);
    assert_int_equal(cistern_extents(v, 0, 4096, NULL, on_done, &rc), -EINVAL);
    iov.iov_len = 0;
    assert_int_equal(cistern_readv(v, &iov, 1, 0, on_done, &rc), -EINVAL);
    iov.iov_len = SIZE_MAX;
    assert_int_equal(cistern_readv(v, &iov, 1, 0, on_done, &rc), -EINVAL);
    assert_int_equal(rc, 1);
}

/* ---- both ways ---- */

static void use_with_thread(struct fixture *fx, bool direct)
{
    struct cistern_options o = options_of(fx, direct, false);
    struct cistern *c;
    struct cistern_volume *v, *w;
    assert_int_equal(cistern_connect(&o, &c), 0);
    assert_int_equal(cistern_open(c, "nothing", 0, &v), -ENOENT);
    const char *named = strstr(cistern_error(), "nothing");
    assert_non_null(named);
    assert_null(strstr(named + 1, "nothing")); /* one sentence, not one inside another */
    assert_int_equal(cistern_open(c, "v", 64, &v), -EINVAL);
    assert_int_equal(cistern_open(c, "not a name", 0, &v), -EINVAL);
    assert_int_equal(cistern_open(c, "v", 0, &v), 0);
    assert_int_equal(cistern_size(v), 32 * MIB);
    assert_int_equal(cistern_block_bytes(v), 4096);
    assert_int_equal(cistern_stripe_bytes(v), MIB);
    refuse_requests(v);
    assert_int_equal(cistern_process(c, 0), -EINVAL);
    uint8_t *out = cistern_alloc(c, 5 * MIB), *in = malloc(5 * MIB);
    assert_non_null(out);
    for (size_t i = 0; i < 5 * MIB; i++)
        out[i] = (uint8_t)(i * 31 >> 3);
    assert_int_equal(cistern_pwrite(v, out, 5 * MIB, MIB - 512), 0);
    assert_int_equal(cistern_pread(v, in, 5 * MIB, MIB - 512), 0);
    assert_memory_equal(in, out, 5 * MIB);
    assert_int_equal(cistern_pread(v, in, 100, 0), -EINVAL);
    assert_int_equal(cistern_open(c, "v", CISTERN_READ_ONLY, &w), 0);
    assert_int_equal(cistern_pread(w, in, 4096, MIB), 0);
    assert_memory_equal(in, out + 512, 4096);
    assert_int_equal(cistern_pwrite(w, in, 4096, MIB), -EROFS);
    assert_int_equal(cistern_close(w), 0);
    assert_int_equal(cistern_close(v), 0);
    cistern_free(c, out, 5 * MIB);
    free(in);
    cistern_disconnect(c);
}

static void use_own_loop(struct fixture *fx, bool direct)
{
    struct cistern_options o = options_of(fx, direct, true);
    struct cistern *c;
    struct cistern_volume *v;
    uint8_t bitmap[16] = {0};
    static uint8_t out[20 * 1024], in[20 * 1024];
    struct iovec iov[20];
    assert_int_equal(cistern_connect(&o, &c), 0);
    assert_int_equal(cistern_open(c, "v", 0, &v), 0);
    refuse_requests(v);
    assert_int_equal(cistern_pread(v, in, 4096, 0), -EINVAL);
    memset(out, 7, sizeof out);
    for (int i = 0; i < 20; i++)
        iov[i] = (struct iovec){out + i * 1024, 1024};
    int rc = 1;
    assert_int_equal(cistern_discard(v, 0, 32 * MIB, on_done, &rc), 0);
    process_until(c, &rc);
    assert_int_equal(rc, 0);
    rc = 1;
    assert_int_equal(cistern_writev(v, iov, 20, 8 * MIB, on_done, &rc), 0);
    assert_int_equal(rc, 1); /* never inside the call */
    process_until(c, &rc);
    assert_int_equal(rc, 0);
    rc = 1;
    for (int i = 0; i < 20; i++)
        iov[i].iov_base = in + i * 1024;
    assert_int_equal(cistern_readv(v, iov, 20, 8 * MIB, on_done, &rc), 0);
    process_until(c, &rc);
    assert_int_equal(rc, 0);
    assert_memory_equal(in, out, sizeof in);
    rc = 1;
    assert_int_equal(cistern_extents(v, 8 * MIB - 8192, 64 * 1024, bitmap, on_done, &rc), 0);
    process_until(c, &rc);
    assert_int_equal(rc, 0);
    assert_int_equal(bitmap[0], 0x7c); /* two holes, five written */
    assert_int_equal(bitmap[1], 0);
    rc = 1;
    assert_int_equal(cistern_write_zeroes(v, 8 * MIB, 1024, on_done, &rc), 0);
    process_until(c, &rc);
    assert_int_equal(rc, 0);
    rc = 1;
    assert_int_equal(cistern_flush(v, on_done, &rc), 0);
    assert_int_equal(cistern_close(v), 0); /* waits for it */
    assert_int_equal(rc, 0);
    cistern_disconnect(c);
}

static void test_direct_thread(void **state)
{
    use_with_thread(*state, true);
}
static void test_gateway_thread(void **state)
{
    use_with_thread(*state, false);
}
static void test_direct_own_loop(void **state)
{
    use_own_loop(*state, true);
}
static void test_gateway_own_loop(void **state)
{
    use_own_loop(*state, false);
}

/* ---- many threads, one volume ---- */

enum { THREADS = 4, ROUNDS = 60 };
struct worker {
    struct cistern_volume *v;
    unsigned number;
    int failed;
};

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    uint8_t out[8192], in[8192];
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t offset = (uint64_t)(w->number * ROUNDS + i) * sizeof out;
        memset(out, (int)(w->number * 50 + i), sizeof out);
        if (cistern_pwrite(w->v, out, sizeof out, offset) != 0 ||
            cistern_pread(w->v, in, sizeof in, offset) != 0 || memcmp(in, out, sizeof in) != 0)
            w->failed++;
        if (cistern_pread(w->v, in, 7, offset) != -EINVAL || strstr(cistern_error(), "length 7") == NULL)
            w->failed++;
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct fixture *fx = *state;
    for (int direct = 0; direct < 2; direct++) {
        struct cistern_options o = options_of(fx, direct != 0, false);
        struct cistern *c;
        struct cistern_volume *v;
        struct worker workers[THREADS];
        pthread_t threads[THREADS];
        assert_int_equal(cistern_connect(&o, &c), 0);
        assert_int_equal(cistern_open(c, "v", 0, &v), 0);
        for (unsigned i = 0; i < THREADS; i++) {
            workers[i] = (struct worker){.v = v, .number = i};
            assert_int_equal(pthread_create(&threads[i], NULL, worker_main, &workers[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(workers[i].failed, 0);
        }
        assert_int_equal(cistern_close(v), 0);
        cistern_disconnect(c);
    }
}

/* ---- one owner ---- */

static void on_change(void *arg, int rc)
{
    *(_Atomic int *)arg = rc;
}

/* With a thread of the library's and without one. */
static void test_counters(void **state)
{
    struct fixture *fx = *state;
    for (int own = 0; own < 2; own++) {
        struct cistern_options o = options_of(fx, true, own != 0);
        struct cistern *c;
        char text[8192], little[20];
        assert_int_equal(cistern_connect(&o, &c), 0);
        const int len = cistern_counters(c, text, sizeof text);
        assert_true(len > 0 && (size_t)len == strlen(text) && text[len - 1] == '\n');
        assert_non_null(strstr(text, "messages_sent "));
        const int cut = cistern_counters(c, little, sizeof little);
        assert_int_equal(cut, strlen(little));
        assert_true(little[0] == '\0' || little[strlen(little) - 1] == '\n'); /* no half line */
        assert_int_equal(cistern_counters(c, little, 0), -EINVAL);
        cistern_disconnect(c);
    }
}

static void test_take_over(void **state)
{
    struct fixture *fx = *state;
    struct cistern_options o = options_of(fx, true, false);
    struct cistern *a, *b;
    struct cistern_volume *va, *vb;
    uint8_t buf[4096] = {1};
    _Atomic int change = 1;
    assert_int_equal(cistern_connect(&o, &a), 0);
    assert_int_equal(cistern_connect(&o, &b), 0);
    assert_int_equal(cistern_open(a, "v", 0, &va), 0);
    assert_int_equal(cistern_on_change(va, on_change, (void *)&change), 0);
    assert_int_equal(cistern_open(b, "v", 0, &vb), -EBUSY);
    assert_int_equal(cistern_open(b, "v", CISTERN_TAKE_OVER, &vb), 0);
    assert_int_equal(cistern_pwrite(vb, buf, sizeof buf, 0), 0);
    for (unsigned i = 0; i < FAKE_MODULES; i++)
        fx->vw->m[i].turn_floor = max_u64(fx->vw->m[0].last_turn, fx->vw->m[1].last_turn);
    assert_int_equal(cistern_pwrite(va, buf, sizeof buf, 0), -ESTALE);
    while (change == 1)
        usleep(1000);
    assert_int_equal(change, -ESTALE);
    assert_int_equal(cistern_pread(va, buf, sizeof buf, 0), -ESTALE);
    assert_int_equal(cistern_pwrite(vb, buf, sizeof buf, 4096), 0);
    assert_int_equal(cistern_close(va), 0);
    assert_int_equal(cistern_close(vb), 0);
    cistern_disconnect(a);
    cistern_disconnect(b);
}

static void test_memory(void **state)
{
    struct fixture *fx = *state;
    struct cistern_options o = options_of(fx, false, false);
    struct cistern *c;
    void *p[65];
    assert_int_equal(cistern_connect(&o, &c), 0);
    assert_null(cistern_alloc(c, 0));
    assert_null(cistern_alloc(c, SIZE_MAX));
    for (unsigned i = 0; i < 64; i++) {
        p[i] = cistern_alloc(c, MIB - 1);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 4096, 0);
        memset(p[i], (int)i, MIB - 1);
    }
    assert_null(cistern_alloc(c, 1));
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(((uint8_t *)p[i])[MIB - 2], i);
    cistern_free(c, p[10], MIB - 1);
    cistern_free(c, p[11], MIB - 1);
    cistern_free(c, NULL, 5);
    assert_ptr_equal(cistern_alloc(c, 2 * MIB), p[10]);
    cistern_disconnect(c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_connect_refusals), cmocka_unit_test(test_options_load),
        TEST(test_direct_thread),    TEST(test_gateway_thread),
        TEST(test_direct_own_loop),  TEST(test_gateway_own_loop),
        TEST(test_threads),          TEST(test_counters),
        TEST(test_take_over),        TEST(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
