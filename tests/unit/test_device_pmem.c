/*
 * The pmem device on an ordinary file: durable by an fdatasync, and (a second run of the program, in which
 * libpmem is told to believe that everything is pmem) by the CPU's own stores.
 *
 * What is durable is watched below the device: libpmem's stores, flushes and drains, and fdatasync, pass
 * through functions of this file, which keep the image that a loss of power would leave.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libpmem.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/device/device.h"
#include "common/log.h"
#include "common/loop.h"

enum { FILE_BYTES = 1024 * 1024, PAGE = 4096 };

static struct loop *loop;
static struct env env;
static char dir[64], path[96], said[4096];

static void sink(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    snprintf(said, sizeof said, "%s", line);
}

/* ---- what a loss of power would leave of the file that was mapped last ---- */
enum { LINE = 64, LINES = FILE_BYTES / LINE };
static uint8_t *mapped, durable[FILE_BYTES],
    cached[FILE_BYTES]; /* cached: of lines on their way since a flush */
static bool on_way[LINES], cut_in_flush;

static void *real(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    assert_non_null(f);
    return f;
}

static bool watched(const void *at)
{
    return mapped && (const uint8_t *)at >= mapped && (const uint8_t *)at < mapped + FILE_BYTES;
}

void *pmem_map_file(const char *name, size_t len, int flags, mode_t mode, size_t *bytes, int *is_pmem)
{
    void *(*map)(const char *, size_t, int, mode_t, size_t *, int *);
    *(void **)&map = real("pmem_map_file");
    mapped = map(name, len, flags, mode, bytes, is_pmem);
    memset(on_way, 0, sizeof on_way);
    return mapped;
}

int pmem_unmap(void *at, size_t bytes)
{
    int (*unmap)(void *, size_t);
    *(void **)&unmap = real("pmem_unmap");
    if (at == mapped)
        mapped = NULL;
    return unmap(at, bytes);
}

void pmem_flush(const void *at, size_t bytes)
{
    if (cut_in_flush)
        assert_int_equal(truncate(path, FILE_BYTES - PAGE), 0);
    cut_in_flush = false;
    size_t from = watched(at) ? (size_t)((const uint8_t *)at - mapped) / LINE : LINES;
    for (size_t line = from; line < LINES && line * LINE < (size_t)((const uint8_t *)at - mapped) + bytes;
         line++) {
        memcpy(cached + line * LINE, mapped + line * LINE, LINE);
        on_way[line] = true;
    }
}

void pmem_drain(void)
{
    for (size_t line = 0; line < LINES; line++) {
        if (on_way[line])
            memcpy(durable + line * LINE, cached + line * LINE, LINE);
        on_way[line] = false;
    }
}

void *pmem_memcpy(void *to, const void *from, size_t bytes, unsigned flags)
{
    memcpy(to, from, bytes);
    if (!(flags & PMEM_F_MEM_NOFLUSH))
        pmem_flush(to, bytes);
    if (!(flags & (PMEM_F_MEM_NOFLUSH | PMEM_F_MEM_NODRAIN)))
        pmem_drain();
    return to;
}

int fdatasync(int fd)
{
    ssize_t n = pread(fd, durable, sizeof durable, 0);
    return n < 0 ? -1 : 0;
}

static bool is_durable(const struct device_io *io)
{
    return memcmp(durable + io->offset, io->iov[0].iov_base, io->length) == 0;
}

static int setup(void **state)
{
    (void)state;
    log_set_sink(sink, NULL);
    snprintf(dir, sizeof dir, "/tmp/cistern-pmem.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/journal", dir);
    assert_int_equal(loop_create_real(NULL, &loop), 0);
    env = (struct env){.loop = loop, .name = "test"};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_destroy(loop);
    rmdir(dir);
    return 0;
}

struct request {
    struct device_io io;
    struct iovec iov;
    uint8_t buffer[4 * PAGE];
    int rc, calls;
};

static void request_done(struct device_io *io, int rc)
{
    struct request *r = container_of(io, struct request, io);
    r->rc = rc;
    r->calls++;
}

static void request_init(struct request *r, enum device_op op, uint64_t offset, uint64_t length, int fill)
{
    memset(r, 0, sizeof *r);
    memset(r->buffer, fill, length);
    r->iov = (struct iovec){r->buffer, length};
    r->io = (struct device_io){
        .op = op, .offset = offset, .length = length, .iov = &r->iov, .iovcnt = 1, .done = request_done};
}

static int wait_for(struct request *r)
{
    while (!r->calls)
        loop_run_once(loop, NS_PER_S);
    assert_int_equal(r->calls, 1);
    return r->rc;
}

static int run(struct device *dev, enum device_op op, uint64_t offset, uint64_t length, int fill)
{
    struct request r;
    request_init(&r, op, offset, length, fill);
    int rc = device_submit(dev, &r.io);
    assert_int_equal(r.calls, 0);
    return rc ? rc : wait_for(&r);
}

static void expect(struct device *dev, uint64_t offset, uint64_t length, int fill)
{
    struct request r;
    request_init(&r, DEVICE_READ, offset, length, fill ^ 0xff);
    assert_int_equal(device_submit(dev, &r.io), 0);
    assert_int_equal(wait_for(&r), 0);
    for (uint64_t i = 0; i < length; i++)
        assert_int_equal(r.buffer[i], (uint8_t)fill);
}

static struct device *open_device(void)
{
    struct device_open_options o = {.create = true, .create_size = FILE_BYTES};
    struct device *dev = NULL;
    assert_int_equal(device_open_pmem(&env, path, &o, &dev), 0);
    return dev;
}

static void writes_come_back(void **state)
{
    (void)state;
    struct stat st;
    struct device *dev = open_device();
    assert_int_equal(dev->size, FILE_BYTES);
    assert_true(dev->durable_writes);
    assert_int_equal(dev->atom_bytes, 8);
    assert_int_equal(stat(path, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 >= FILE_BYTES);
    assert_int_equal(run(dev, DEVICE_WRITE, 64, 3 * 64, 0x21), 0);
    assert_int_equal(run(dev, DEVICE_WRITE, FILE_BYTES - 64, 64, 0x22), 0);
    assert_int_equal(run(dev, DEVICE_FLUSH, 0, 0, 0), 0);
    device_destroy(dev);
    dev = open_device();
    expect(dev, 0, 64, 0);
    expect(dev, 64, 3 * 64, 0x21);
    expect(dev, 256, PAGE, 0);
    expect(dev, FILE_BYTES - 64, 64, 0x22);
    device_destroy(dev);
    unlink(path);
}

static void says_what_it_is_on(void **state)
{
    (void)state;
    struct device *dev = open_device();
    bool forced = getenv("PMEM_IS_PMEM_FORCE") != NULL;
    assert_non_null(strstr(said, "is not persistent memory"));
    assert_int_equal(strstr(said, "PMEM_IS_PMEM_FORCE") != NULL, forced);
    device_destroy(dev);
    unlink(path);
}

static unsigned not_durable;
static void durable_done(struct device_io *io, int rc)
{
    not_durable += !is_durable(io);
    request_done(io, rc);
}

/* An answered write survives a loss of power, whatever its place and length. */
static void answered_is_durable(void **state)
{
    (void)state;
    static struct request r[200];
    struct device *dev = open_device();
    memset(durable, 0, sizeof durable);
    not_durable = 0;
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        request_init(&r[i], DEVICE_WRITE, i * PAGE + i % 7 * LINE, LINE * (1 + i % 50), (int)(i + 1));
        r[i].io.done = durable_done;
        assert_int_equal(device_submit(dev, &r[i].io), 0);
    }
    for (unsigned i = 0; i < ARRAY_LEN(r); i++)
        assert_int_equal(wait_for(&r[i]), 0);
    assert_int_equal(not_durable, 0);
    device_destroy(dev);
    unlink(path);
}

/* A killed process's stores can be read and are in a cache: a flush of its successor makes them durable. */
static void what_a_killed_process_left_is_durable_after_a_flush(void **state)
{
    (void)state;
    struct request left;
    device_destroy(open_device());
    memset(durable, 0, sizeof durable);
    request_init(&left, DEVICE_READ, 5 * PAGE + LINE, PAGE, 0x77);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)left.io.offset, SEEK_SET), 0);
    assert_int_equal(fwrite(left.buffer, PAGE, 1, f), 1);
    assert_int_equal(fclose(f), 0);
    assert_false(is_durable(&left.io));
    struct device *dev = open_device();
    assert_int_equal(run(dev, DEVICE_FLUSH, 0, 0, 0), 0);
    assert_true(is_durable(&left.io));
    device_destroy(dev);
    unlink(path);
}

/* The kernel tells of a bad spot before anybody touches it: only the one who touches it is concerned. */
static void a_warning_of_a_bad_spot_ends_nobody(void **state)
{
    (void)state;
    struct device *dev = open_device();
    siginfo_t info = {.si_signo = SIGBUS, .si_code = BUS_MCEERR_AO};
    info.si_addr = mapped + 3 * PAGE;
    assert_int_equal(syscall(SYS_rt_sigqueueinfo, getpid(), SIGBUS, &info), 0);
    assert_int_equal(run(dev, DEVICE_WRITE, 0, PAGE, 1), 0);
    expect(dev, 0, PAGE, 1);
    device_destroy(dev);
    unlink(path);
}

/* A page that can not be reached while opening is said, and is no reason to give up the others. */
static void opens_with_a_bad_page(void **state)
{
    (void)state;
    if (!getenv("PMEM_IS_PMEM_FORCE"))
        return;
    cut_in_flush = true;
    struct device *dev = open_device();
    assert_int_equal(run(dev, DEVICE_WRITE, FILE_BYTES - 2 * PAGE, PAGE, 1), 0);
    assert_int_equal(run(dev, DEVICE_WRITE, FILE_BYTES - PAGE, PAGE, 1),
                     -EINVAL); /* its size is what it is */
    device_destroy(dev);
    unlink(path);
}

static void many_at_once(void **state)
{
    (void)state;
    static struct request r[300];
    struct device *dev = open_device();
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        request_init(&r[i], i % 7 == 6 ? DEVICE_FLUSH : DEVICE_WRITE, i * 128, 128, (int)i);
        assert_int_equal(device_submit(dev, &r[i].io), 0);
    }
    for (unsigned i = 0; i < ARRAY_LEN(r); i++)
        assert_int_equal(wait_for(&r[i]), 0);
    for (unsigned i = 0; i < ARRAY_LEN(r); i++)
        expect(dev, i * 128, 128, i % 7 == 6 ? 0 : (int)i);
    assert_int_equal(dev->writes + dev->flushes, ARRAY_LEN(r));
    device_destroy(dev);
    unlink(path);
}

static void refusals(void **state)
{
    (void)state;
    struct device *dev = open_device(), *second = NULL;
    struct device_open_options o = {.create = true, .create_size = FILE_BYTES};
    assert_int_equal(run(dev, DEVICE_WRITE, 32, 64, 0), -EINVAL);
    assert_int_equal(run(dev, DEVICE_WRITE, 0, 32, 0), -EINVAL);
    assert_int_equal(run(dev, DEVICE_READ, FILE_BYTES - 64, 128, 0), -EINVAL);
    assert_int_equal(run(dev, DEVICE_DISCARD, 0, 64, 0), -ENOTSUP);
    assert_int_equal(device_open_pmem(&env, path, &o, &second), -EBUSY);
    device_destroy(dev);
    o.create = false;
    o.read_only = true;
    assert_int_equal(device_open_pmem(&env, path, &o, &second), 0);
    assert_int_equal(run(second, DEVICE_WRITE, 0, 64, 0), -EROFS);
    expect(second, 0, 64, 0);
    device_destroy(second);
    unlink(path);
    assert_int_equal(device_open_pmem(&env, path, &o, &second), -ENOENT);
    assert_int_equal(device_open_pmem(&env, dir, &o, &second), -EINVAL);
    assert_int_equal(device_open_pmem(&env, "/dev/null", &o, &second), -EINVAL);
}

/* The medium goes away under the mapping: a signal for this device, and for nobody else. */
static void sigbus_ends_this_device_alone(void **state)
{
    (void)state;
    char other[128];
    struct device_open_options o = {.create = true, .create_size = FILE_BYTES};
    struct device *dev = open_device(), *healthy = NULL;
    snprintf(other, sizeof other, "%s.2", path);
    assert_int_equal(device_open_pmem(&env, other, &o, &healthy), 0);
    assert_int_equal(run(dev, DEVICE_WRITE, 0, PAGE, 1), 0);
    struct request later;
    assert_int_equal(truncate(path, PAGE), 0);
    assert_int_equal(run(dev, DEVICE_READ, 2 * PAGE, PAGE, 0), -EIO); /* a read is an error only */
    assert_int_equal(run(dev, DEVICE_WRITE, 0, PAGE, 2), 0);
    request_init(&later, DEVICE_WRITE, 0, PAGE, 2);
    struct request bad;
    request_init(&bad, DEVICE_WRITE, PAGE, 2 * PAGE, 3);
    assert_int_equal(device_submit(dev, &bad.io), 0);
    assert_int_equal(device_submit(dev, &later.io), 0);
    assert_int_equal(wait_for(&bad), -ENODEV);
    assert_int_equal(wait_for(&later), -ENODEV);
    assert_int_equal(run(dev, DEVICE_WRITE, 0, PAGE, 2), -ENODEV);
    assert_int_equal(run(dev, DEVICE_READ, 0, PAGE, 2), -ENODEV);
    assert_int_equal(run(healthy, DEVICE_WRITE, 0, PAGE, 4), 0);
    expect(healthy, 0, PAGE, 4);
    device_destroy(dev);
    device_destroy(healthy);
    unlink(path);
    unlink(other);
}

static void destroyed_with_requests_waiting(void **state)
{
    (void)state;
    static struct request r[50];
    for (unsigned rounds = 0; rounds < 3; rounds++) {
        struct device *dev = open_device();
        for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
            request_init(&r[i], DEVICE_WRITE, i * 64, 64, 1);
            assert_int_equal(device_submit(dev, &r[i].io), 0);
        }
        for (unsigned i = 0; i < rounds; i++)
            loop_run_once(loop, 0);
        device_destroy(dev);
        memset(r, 0xee, sizeof r);
        loop_run_once(loop, 0);
    }
    unlink(path);
}

static struct device *doomed;
static void destroying_done(struct device_io *io, int rc)
{
    request_done(io, rc);
    device_destroy(doomed);
}

static void destroyed_in_a_callback(void **state)
{
    (void)state;
    static struct request r[3];
    doomed = open_device();
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        request_init(&r[i], DEVICE_WRITE, i * 64, 64, 1);
        r[i].io.done = destroying_done;
        assert_int_equal(device_submit(doomed, &r[i].io), 0);
    }
    while (!r[0].calls)
        loop_run_once(loop, NS_PER_S);
    loop_run_once(loop, 0);
    assert_int_equal(r[1].calls + r[2].calls, 0);
    unlink(path);
}

int main(int argc, char **argv)
{
    (void)argc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_come_back),
        cmocka_unit_test(says_what_it_is_on),
        cmocka_unit_test(answered_is_durable),
        cmocka_unit_test(what_a_killed_process_left_is_durable_after_a_flush),
        cmocka_unit_test(a_warning_of_a_bad_spot_ends_nobody),
        cmocka_unit_test(opens_with_a_bad_page),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(refusals),
        cmocka_unit_test(sigbus_ends_this_device_alone),
        cmocka_unit_test(destroyed_with_requests_waiting),
        cmocka_unit_test(destroyed_in_a_callback),
    };
    int failed = cmocka_run_group_tests(tests, setup, teardown);
    if (failed || getenv("PMEM_IS_PMEM_FORCE"))
        return failed;
    setenv("PMEM_IS_PMEM_FORCE", "1", 1); /* libpmem reads it when it is loaded */
    execv("/proc/self/exe", argv);
    return 1;
}
