/* base.h, rng.h, status.h, trace.h, crc.h: the small ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base.h"
#include "common/crc.h"
#include "common/rng.h"
#include "common/status.h"
#include "common/trace.h"

static void uuid_text(void **state)
{
    (void)state;
    struct uuid u, v = {{1}};
    char text[33];
    assert_int_equal(uuid_parse("00112233-4455-6677-8899-aAbBcCdDeEfF", &u), 0);
    uuid_format(&u, text);
    assert_string_equal(text, "00112233445566778899aabbccddeeff");
    const struct uuid before = v;
    assert_int_equal(uuid_parse("00112233445566778899aabbccddeef", &v), -EINVAL);
    assert_int_equal(uuid_parse("00112233445566778899aabbccddeeff0", &v), -EINVAL);
    assert_int_equal(uuid_parse("00112233445566778899aabbccddeefg", &v), -EINVAL);
    assert_int_equal(uuid_parse("", &v), -EINVAL);
    assert_true(uuid_eq(&v, &before));
    assert_false(uuid_is_zero(&v));
}

static void versions_compare(void **state)
{
    (void)state;
    assert_int_equal(version_cmp((struct version){1, 9}, (struct version){2, 1}), -1);
    assert_int_equal(version_cmp((struct version){2, 1}, (struct version){1, 9}), 1);
    assert_int_equal(version_cmp((struct version){2, 1}, (struct version){2, 2}), -1);
    assert_int_equal(version_cmp((struct version){2, 2}, (struct version){2, 1}), 1);
    assert_int_equal(version_cmp((struct version){2, 2}, (struct version){2, 2}), 0);
}

/* A false MUST ends the process, and says where and what came before. */
static void must_prints_trace(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDERR_FILENO);
        struct trace *t;
        if (trace_create(4, &t) != 0)
            _exit(1);
        trace_set_current(t);
        trace_point(t, 7, "last step", 1, 2, 3);
        MUST(1 + 1 == 3);
        _exit(0);
    }
    close(fds[1]);
    char text[1024] = "";
    size_t len = 0;
    ssize_t n;
    while (len < sizeof text - 1 && (n = read(fds[0], text + len, sizeof text - 1 - len)) > 0)
        len += (size_t)n;
    close(fds[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "1 + 1 == 3"));
    assert_non_null(strstr(text, "last step 1 2 3"));
}

static void rng_is_reproducible(void **state)
{
    (void)state;
    struct rng a, b, c;
    rng_seed(&a, 42);
    rng_seed(&b, 42);
    rng_seed(&c, 43);
    bool differs = false;
    for (int i = 0; i < 100; i++) {
        uint64_t v = rng_u64(&a);
        assert_true(v == rng_u64(&b));
        differs |= v != rng_u64(&c);
    }
    assert_true(differs);
    uint8_t x[13], y[13];
    rng_fill(&a, x, sizeof x);
    rng_fill(&b, y, sizeof y);
    assert_memory_equal(x, y, sizeof x);
    const struct uuid u = rng_uuid(&a), v = rng_uuid(&b);
    assert_true(uuid_eq(&u, &v));
}

/* The first outputs of xoshiro256** from the state {1, 2, 3, 4}, worked out by hand from its definition. */
static void rng_is_xoshiro(void **state)
{
    (void)state;
    struct rng r = {.s = {1, 2, 3, 4}};
    assert_true(rng_u64(&r) == 11520);
    assert_true(rng_u64(&r) == 0);
    assert_true(rng_u64(&r) == 1509978240);
}

static void rng_bounds(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 1);
    unsigned seen[7] = {0}, hits = 0;
    for (int i = 0; i < 7000; i++) {
        uint64_t v = rng_below(&r, 7);
        assert_true(v < 7);
        seen[v]++;
        hits += rng_chance(&r, 1, 4);
        assert_true(rng_chance(&r, 1, 1));
        assert_false(rng_chance(&r, 0, 5));
        assert_int_equal(rng_below(&r, 1), 0);
    }
    for (int i = 0; i < 7; i++)
        assert_in_range(seen[i], 850, 1150);
    assert_in_range(hits, 1550, 1950);
}

static void rng_from_kernel(void **state)
{
    (void)state;
    struct rng r;
    rng_init_system(&r);
    const struct uuid u = rng_uuid(&r), v = rng_uuid(&r);
    assert_false(uuid_eq(&u, &v));
}

static void status_table(void **state)
{
    (void)state;
    assert_string_equal(status_name(STATUS_NO_SPACE), "NO_SPACE");
    assert_string_equal(status_name(31), "UNKNOWN");
    assert_non_null(status_text(31));
    assert_int_equal(status_to_errno(STATUS_OK), 0);
    assert_int_equal(status_to_errno(STATUS_STALE_TURN), -ESTALE);
    assert_int_equal(status_to_errno(31), -EIO);
    assert_int_equal(status_from_errno(0), STATUS_OK);
    assert_int_equal(status_from_errno(-EAGAIN), STATUS_AGAIN);
    assert_int_equal(status_from_errno(-ESTALE), STATUS_STALE_EPOCH);
    assert_int_equal(status_from_errno(-ENOTTY), STATUS_IO);
    /* numbers and names are each used once */
    static const struct {
        uint32_t num;
        const char *name;
    } all[] = {
#define STATUS(num, name, err, text) {num, #name},
#include "common/status.def"
#undef STATUS
    };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (size_t k = 0; k < i; k++) {
            assert_true(all[i].num != all[k].num);
            assert_true(strcmp(all[i].name, all[k].name) != 0);
        }
}

static uint64_t hash_of(const char *what, uint64_t a, int points)
{
    struct trace *t;
    assert_int_equal(trace_create(3, &t), 0);
    for (int i = 0; i < points; i++)
        trace_point(t, (uint64_t)i, what, a, 0, 0);
    uint64_t hash = trace_hash(t);
    trace_destroy(t);
    return hash;
}

static void trace_hashes_content(void **state)
{
    (void)state;
    char copy[] = "write acknowledged";
    assert_true(hash_of("write acknowledged", 1, 9) == hash_of(copy, 1, 9));
    assert_true(hash_of("write acknowledged", 1, 9) != hash_of("write acknowledged", 2, 9));
    assert_true(hash_of("write acknowledged", 1, 9) != hash_of("write acknowledged", 1, 8));
    assert_true(hash_of("write acknowledged", 1, 9) != hash_of("write acknowledgeD", 1, 9));
    assert_true(hash_of("", 1, 9) != hash_of("a", 1, 9));
    trace_point(NULL, 1, "nothing", 0, 0, 0);
}

static void trace_keeps_the_latest(void **state)
{
    (void)state;
    struct trace *t;
    assert_int_equal(trace_create(3, &t), 0);
    for (uint64_t i = 0; i < 5; i++)
        trace_point(t, i, "step", i, 0, 0);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    trace_dump(t, fds[1], 2);
    close(fds[1]);
    char text[512];
    ssize_t n = read(fds[0], text, sizeof text - 1);
    close(fds[0]);
    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(text, "trace 3 0.000000003 step 3 0 0\ntrace 4 0.000000004 step 4 0 0\n");
    trace_destroy(t);
}

/* The definition, bit by bit. */
static uint32_t crc_slow(const uint8_t *p, size_t len)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void crc_values(void **state)
{
    (void)state;
    static const uint8_t zero[UNIT_BYTES];
    assert_int_equal(crc32c("123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c(NULL, 0), 0);
    assert_int_equal(crc32c(zero, sizeof zero), crc32c_zero_unit());
    assert_int_equal(crc_slow(zero, sizeof zero), crc32c_zero_unit());
}

static void crc_in_pieces(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 5);
    uint8_t data[5000];
    rng_fill(&r, data, sizeof data);
    uint32_t whole = crc_slow(data, sizeof data);
    assert_int_equal(crc32c(data, sizeof data), whole);
    for (size_t cut = 0; cut <= sizeof data; cut += 97) {
        uint32_t a = crc32c(data, cut), b = crc32c(data + cut, sizeof data - cut);
        struct iovec iov[3] = {{data, cut}, {NULL, 0}, {data + cut, sizeof data - cut}};
        assert_int_equal(crc32c_extend(a, data + cut, sizeof data - cut), whole);
        assert_int_equal(crc32c_combine(a, b, sizeof data - cut), whole);
        assert_int_equal(crc32c_iov(iov, 3), whole);
    }
}

/* Lengths that no buffer has: combining in one step and in two must agree. */
static void crc_combines_large(void **state)
{
    (void)state;
    uint32_t a = 0x12345678;
    for (unsigned k = 0; k < 63; k++) {
        uint32_t twice = crc32c_combine(crc32c_combine(a, 0, 1ull << k), 0, 1ull << k);
        assert_int_equal(crc32c_combine(a, 0, 1ull << (k + 1)), twice);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uuid_text),
        cmocka_unit_test(versions_compare),
        cmocka_unit_test(must_prints_trace),
        cmocka_unit_test(rng_is_reproducible),
        cmocka_unit_test(rng_is_xoshiro),
        cmocka_unit_test(rng_bounds),
        cmocka_unit_test(rng_from_kernel),
        cmocka_unit_test(status_table),
        cmocka_unit_test(trace_hashes_content),
        cmocka_unit_test(trace_keeps_the_latest),
        cmocka_unit_test(crc_values),
        cmocka_unit_test(crc_in_pieces),
        cmocka_unit_test(crc_combines_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
