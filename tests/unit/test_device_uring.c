/* Files as devices, through io_uring and through threads: data, order of flushes, refusals, locks, geometry.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/device/device.h"
#include "common/device/device_file.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/rng.h"
#include "common/sim.h"

enum { IO = 4096, FILE_BYTES = 4 * 1024 * 1024 };

struct fixture {
    struct loop *loop;
    struct env env;
    char dir[64], path[96];
    bool threads, no_direct;
};
/* One fixture for each way to serve a file. */
static struct fixture uring = {.threads = false}, threads = {.threads = true}, buffered = {.no_direct = true};

static int setup(struct fixture *f)
{
    snprintf(f->dir, sizeof f->dir, "/tmp/cistern-device.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/disk", f->dir);
    assert_int_equal(loop_create_real(NULL, &f->loop), 0);
    f->env = (struct env){.loop = f->loop, .name = "test"};
    return 0;
}

/* The tests of errors would fill the output. */
static void quiet(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static int setup_all(void **state)
{
    (void)state;
    log_set_sink(quiet, NULL);
    return setup(&uring) || setup(&threads) || setup(&buffered);
}

static int teardown_all(void **state)
{
    (void)state;
    struct fixture *all[] = {&uring, &threads, &buffered};
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        loop_destroy(all[i]->loop);
        rmdir(all[i]->dir);
    }
    return 0;
}

static struct device_open_options options_of(const struct fixture *f)
{
    return (struct device_open_options){
        .create = true, .create_size = FILE_BYTES, .no_uring = f->threads, .no_direct = f->no_direct};
}

static struct device *open_device(struct fixture *f)
{
    struct device_open_options o = options_of(f);
    struct device *dev = NULL;
    assert_int_equal(device_open_file(&f->env, f->path, &o, &dev), 0);
    return dev;
}

struct request {
    struct device_io io;
    struct iovec iov;
    uint8_t *buffer;
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
    assert_int_equal(posix_memalign((void **)&r->buffer, IO, length ? length : IO), 0);
    memset(r->buffer, fill, length);
    r->iov = (struct iovec){r->buffer, length};
    r->io = (struct device_io){
        .op = op, .offset = offset, .length = length, .iov = &r->iov, .iovcnt = 1, .done = request_done};
}

static void wait_for(struct fixture *f, const struct request *r)
{
    while (!r->calls)
        loop_run_once(f->loop, NS_PER_S);
}

static int run(struct fixture *f, struct device *dev, enum device_op op, uint64_t offset, uint64_t length,
               int fill)
{
    struct request r;
    request_init(&r, op, offset, length, fill);
    assert_int_equal(device_submit(dev, &r.io), 0);
    assert_int_equal(r.calls, 0);
    wait_for(f, &r);
    assert_int_equal(r.calls, 1);
    if (op == DEVICE_READ && r.rc == 0) {
        for (uint64_t i = 0; i < length; i++)
            assert_int_equal(r.buffer[i], (uint8_t)fill);
    }
    free(r.buffer);
    return r.rc;
}

/* Reads must see `fill`: the buffer starts as something else. */
static void expect(struct fixture *f, struct device *dev, uint64_t offset, uint64_t length, int fill)
{
    struct request r;
    request_init(&r, DEVICE_READ, offset, length, fill ^ 0xff);
    assert_int_equal(device_submit(dev, &r.io), 0);
    wait_for(f, &r);
    assert_int_equal(r.rc, 0);
    for (uint64_t i = 0; i < length; i++)
        assert_int_equal(r.buffer[i], (uint8_t)fill);
    free(r.buffer);
}

static void writes_come_back(void **state)
{
    struct fixture *f = *state;
    struct device *dev = open_device(f);
    assert_int_equal(dev->size, FILE_BYTES);
    assert_int_equal(run(f, dev, DEVICE_WRITE, IO, 16 * IO, 0x5a), 0);
    assert_int_equal(run(f, dev, DEVICE_FLUSH, 0, 0, 0), 0);
    expect(f, dev, 0, IO, 0);
    expect(f, dev, IO, 16 * IO, 0x5a);
    expect(f, dev, 17 * IO, IO, 0);
    device_destroy(dev);
    dev = open_device(f); /* it is in the file, and the file kept its size */
    expect(f, dev, IO, 16 * IO, 0x5a);
    assert_int_equal(dev->reads, 1);
    assert_int_equal(dev->read_bytes, 16 * IO);
    device_destroy(dev);
    unlink(f->path);
}

static void pieces_go_where_they_belong(void **state)
{
    struct fixture *f = *state;
    struct device *dev = open_device(f);
    struct request w;
    request_init(&w, DEVICE_WRITE, 8 * IO, DEVICE_IOV_MAX * IO, 0);
    struct iovec iov[DEVICE_IOV_MAX];
    for (unsigned i = 0; i < DEVICE_IOV_MAX; i++) {
        /* in the buffer from the end to the beginning */
        iov[i] = (struct iovec){w.buffer + (DEVICE_IOV_MAX - 1 - i) * IO, IO};
        memset(iov[i].iov_base, (int)i + 1, IO);
    }
    w.io.iov = iov;
    w.io.iovcnt = DEVICE_IOV_MAX;
    assert_int_equal(device_submit(dev, &w.io), 0);
    wait_for(f, &w);
    assert_int_equal(w.rc, 0);
    for (unsigned i = 0; i < DEVICE_IOV_MAX; i++)
        expect(f, dev, (8 + i) * IO, IO, (int)i + 1);
    free(w.buffer);
    device_destroy(dev);
    unlink(f->path);
}

static void more_than_its_depth(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 200 };
    struct device_open_options o = options_of(f);
    o.depth = 4;
    struct device *dev = NULL;
    assert_int_equal(device_open_file(&f->env, f->path, &o, &dev), 0);
    struct request r[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        request_init(&r[i], DEVICE_WRITE, i * IO, IO, (int)i);
        assert_int_equal(device_submit(dev, &r[i].io), 0);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        wait_for(f, &r[i]);
        assert_int_equal(r[i].rc, 0);
        free(r[i].buffer);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(r[i].calls, 1);
        expect(f, dev, i * IO, IO, (int)i);
    }
    device_destroy(dev);
    unlink(f->path);
}

static void discards_give_space_back(void **state)
{
    struct fixture *f = *state;
    struct device *dev = open_device(f);
    struct stat before, after;
    assert_true(dev->can_discard);
    assert_int_equal(run(f, dev, DEVICE_WRITE, 0, 64 * IO, 1), 0);
    assert_int_equal(run(f, dev, DEVICE_FLUSH, 0, 0, 0), 0);
    assert_int_equal(stat(f->path, &before), 0);
    assert_int_equal(run(f, dev, DEVICE_DISCARD, 16 * IO, 32 * IO, 0), 0);
    assert_int_equal(run(f, dev, DEVICE_FLUSH, 0, 0, 0), 0);
    assert_int_equal(stat(f->path, &after), 0);
    assert_true(after.st_blocks < before.st_blocks);
    assert_int_equal(after.st_size, FILE_BYTES);
    expect(f, dev, 0, 16 * IO, 1);
    expect(f, dev, 48 * IO, 16 * IO, 1);
    device_destroy(dev);
    unlink(f->path);
}

static void preallocated_stays_allocated(void **state)
{
    struct fixture *f = *state;
    struct device_open_options o = options_of(f);
    o.preallocate = true;
    struct device *dev = NULL;
    struct stat st;
    assert_int_equal(device_open_file(&f->env, f->path, &o, &dev), 0);
    assert_int_equal(stat(f->path, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 >= FILE_BYTES);
    assert_false(dev->can_discard);
    device_destroy(dev);
    unlink(f->path);
}

static void refuses_misaligned_and_outside(void **state)
{
    struct fixture *f = *state;
    struct device *dev = open_device(f);
    struct request r;
    request_init(&r, DEVICE_READ, 0, 2 * IO, 0);
    r.io.offset = 100;
    assert_int_equal(device_submit(dev, &r.io), -EINVAL);
    r.io.offset = FILE_BYTES - IO;
    assert_int_equal(device_submit(dev, &r.io), -EINVAL);
    r.io.offset = 0;
    if (!f->no_direct) {
        r.iov.iov_base = r.buffer + 8;
        assert_int_equal(device_submit(dev, &r.io), -EINVAL);
    } else {
        assert_int_equal(dev->io_align, 1);
    }
    assert_true(dev->io_bytes == 512 || dev->io_bytes == 4096);
    assert_true(dev->atom_bytes <= dev->io_bytes || dev->atom_bytes == 512);
    free(r.buffer);
    device_destroy(dev);
    unlink(f->path);
}

/* The smallest request that the device says it takes really works. */
static void smallest_request(void **state)
{
    struct fixture *f = *state;
    struct device *dev = open_device(f);
    struct request r;
    request_init(&r, DEVICE_WRITE, dev->io_bytes, 2 * dev->io_bytes, 0x77);
    struct iovec v = {r.buffer + dev->io_align % IO, dev->io_bytes};
    r.io.iov = &v;
    r.io.length = dev->io_bytes;
    assert_int_equal(device_submit(dev, &r.io), 0);
    wait_for(f, &r);
    assert_int_equal(r.rc, 0);
    expect(f, dev, dev->io_bytes, dev->io_bytes, 0x77);
    expect(f, dev, 0, dev->io_bytes, 0);
    free(r.buffer);
    device_destroy(dev);
    unlink(f->path);
}

static void a_shorter_file_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct device *dev = open_device(f);
    assert_int_equal(run(f, dev, DEVICE_WRITE, 0, 8 * IO, 1), 0);
    assert_int_equal(truncate(f->path, 4 * IO), 0);
    assert_int_equal(run(f, dev, DEVICE_READ, 0, 8 * IO, 0), -EIO);
    assert_int_equal(run(f, dev, DEVICE_READ, 0, 4 * IO, 1), 0);
    assert_int_equal(dev->errors, 1);
    device_destroy(dev);
    unlink(f->path);
}

static void locked_against_a_second_one(void **state)
{
    struct fixture *f = *state;
    struct device *dev = open_device(f), *second = NULL;
    struct device_open_options o = options_of(f);
    assert_int_equal(device_open_file(&f->env, f->path, &o, &second), -EBUSY);
    o.read_only = true;
    assert_int_equal(device_open_file(&f->env, f->path, &o, &second), -EBUSY);
    assert_int_equal(device_open_file_wait(&f->env, f->path, &o, 50 * NS_PER_MS, &second), -EBUSY);
    assert_null(second);
    device_destroy(dev);
    assert_int_equal(device_open_file_wait(&f->env, f->path, &o, 0, &second), 0);
    assert_int_equal(device_open_file(&f->env, f->path, &o, &dev), 0); /* readers share */
    struct request r;
    request_init(&r, DEVICE_WRITE, 0, IO, 0);
    assert_int_equal(device_submit(dev, &r.io), -EROFS);
    free(r.buffer);
    device_destroy(dev);
    device_destroy(second);
    unlink(f->path);
}

/* Another process holds the file with writes in flight and is killed: the successor waits, then gets it. */
static void waits_for_a_killed_process(void **state)
{
    struct fixture *f = *state;
    int pipe_fd[2];
    char c;
    assert_int_equal(pipe(pipe_fd), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct env env = {.name = "child"};
        struct device *dev;
        struct device_open_options o = options_of(f);
        if (loop_create_real(NULL, &env.loop) || device_open_file(&env, f->path, &o, &dev))
            _exit(1);
        static struct request r[64];
        for (unsigned i = 0; i < 64; i++) {
            request_init(&r[i], DEVICE_WRITE, i * IO, IO, 9);
            if (device_submit(dev, &r[i].io))
                _exit(2);
        }
        loop_run_once(env.loop, 0);
        if (write(pipe_fd[1], "x", 1) != 1)
            _exit(3);
        for (;;)
            pause();
    }
    assert_int_equal(read(pipe_fd[0], &c, 1), 1);
    struct device_open_options o = options_of(f);
    struct device *dev = NULL;
    assert_int_equal(device_open_file(&f->env, f->path, &o, &dev), -EBUSY);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(device_open_file_wait(&f->env, f->path, &o, 20 * NS_PER_S, &dev), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
    device_destroy(dev);
    unlink(f->path);
}

static void destroyed_with_requests_in_flight(void **state)
{
    struct fixture *f = *state;
    for (unsigned rounds = 0; rounds < 4; rounds++) {
        struct device *dev = open_device(f);
        struct request r[100];
        for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
            request_init(&r[i], i % 10 == 9 ? DEVICE_FLUSH : DEVICE_WRITE, i * IO, IO, 3);
            assert_int_equal(device_submit(dev, &r[i].io), 0);
        }
        for (unsigned i = 0; i < rounds; i++)
            loop_run_once(f->loop, 0);
        device_destroy(dev);
        int called = 0;
        for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
            called += r[i].calls;
            free(r[i].buffer);
        }
        loop_run_once(f->loop, 0);
        assert_true(rounds > 0 || called == 0);
    }
    unlink(f->path);
}

static struct device *doomed;
static void destroying_done(struct device_io *io, int rc)
{
    request_done(io, rc);
    device_destroy(doomed);
}

static void destroyed_in_a_callback(void **state)
{
    struct fixture *f = *state;
    doomed = open_device(f);
    struct request r[8];
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        request_init(&r[i], DEVICE_WRITE, i * IO, IO, 3);
        r[i].io.done = destroying_done;
        assert_int_equal(device_submit(doomed, &r[i].io), 0);
    }
    int called = 0;
    while (called == 0) {
        loop_run_once(f->loop, NS_PER_S);
        for (unsigned i = 0; i < ARRAY_LEN(r); i++)
            called += r[i].calls;
    }
    assert_int_equal(called, 1);
    loop_run_once(f->loop, 0);
    for (unsigned i = 0; i < ARRAY_LEN(r); i++)
        free(r[i].buffer);
    unlink(f->path);
}

static void open_errors(void **state)
{
    struct fixture *f = *state;
    struct device_open_options o = options_of(f);
    struct device *dev = NULL;
    o.create = false;
    assert_int_equal(device_open_file(&f->env, f->path, &o, &dev), -ENOENT);
    assert_int_equal(device_open_file(&f->env, f->dir, &o, &dev), -ENOTBLK);
    assert_int_equal(device_open_file(&f->env, "/dev/null", &o, &dev), -ENOTBLK);
    int fd = open(f->path, O_CREAT | O_RDWR, 0600);
    assert_true(fd >= 0);
    assert_int_equal(device_open_file(&f->env, f->path, &o, &dev), -EINVAL); /* empty */
    o.create = o.preallocate = true;
    o.create_size = 1ull << 60;
    assert_true(device_open_file(&f->env, f->path, &o, &dev) < 0);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(ftruncate(fd, 100 * IO + 17), 0);
    o.create_size = FILE_BYTES; /* an existing file keeps its size */
    assert_int_equal(device_open_file(&f->env, f->path, &o, &dev), 0);
    assert_int_equal(dev->size, round_down(100 * IO + 17, dev->io_bytes));
    close(fd);
    device_destroy(dev);
    unlink(f->path);
}

static int next_result(struct file_op *op, int result, int *rc)
{
    *rc = 12345;
    return file_op_advance(op, result, rc);
}

/* Results that a disk gives seldom: short transfers, interrupted calls, refused discards, failed flushes. */
static void odd_results(void **state)
{
    struct fixture *f = *state;
    struct device_file file;
    memset(&file, 0, sizeof file);
    int fd = open(f->dir, O_RDONLY | O_DIRECTORY);
    static const struct device_ops none;
    struct file_params p = {.env = &f->env,
                            .path = "odd",
                            .fd = fd,
                            .size = FILE_BYTES,
                            .io_bytes = 512,
                            .io_align = 1,
                            .atom_bytes = 512,
                            .depth = 1,
                            .block = true};
    assert_int_equal(file_init(&file, &p, &none), 0);
    struct request r, next;
    request_init(&r, DEVICE_READ, 0, 4 * IO, 0);
    request_init(&next, DEVICE_FLUSH, 0, IO, 0);
    struct iovec iov[2] = {{r.buffer, IO}, {r.buffer + IO, 3 * IO}};
    r.io.iov = iov;
    r.io.iovcnt = 2;
    assert_int_equal(file_enqueue(&file, &r.io), 0);
    assert_int_equal(file_enqueue(&file, &next.io), 0);
    struct file_op *op = file_op_start(&file);
    assert_null(file_op_start(&file)); /* depth 1 */
    int rc;
    assert_false(next_result(op, -EINTR, &rc));
    assert_false(next_result(op, 512, &rc));
    assert_int_equal(op->iov_at, 0);
    assert_ptr_equal(op->iov[0].iov_base, r.buffer + 512);
    assert_int_equal(op->iov[0].iov_len, IO - 512);
    assert_false(next_result(op, IO, &rc));
    assert_int_equal(op->iov_at, 1);
    assert_ptr_equal(op->iov[1].iov_base, r.buffer + IO + 512);
    assert_int_equal(op->transferred, IO + 512);
    assert_true(next_result(op, 3 * IO - 512, &rc));
    assert_int_equal(rc, 0);
    file_op_finish(op, rc);
    assert_int_equal(r.calls, 1);
    op = file_op_start(&file);
    assert_true(next_result(op, -EIO, &rc));
    file_op_finish(op, rc);
    assert_int_equal(next.rc, -EIO);
    assert_int_equal(file_enqueue(&file, &next.io), 0);
    op = file_op_start(&file);
    assert_true(next_result(op, 0, &rc)); /* the kernel forgets; we do not */
    file_op_finish(op, rc);
    assert_int_equal(next.rc, -EIO);
    file.dev.can_discard = true;
    next.io.op = DEVICE_DISCARD;
    assert_int_equal(file_enqueue(&file, &next.io), 0);
    op = file_op_start(&file);
    int flags = op->discard_flags;
    assert_false(next_result(op, -EOPNOTSUPP, &rc));
    assert_int_not_equal(op->discard_flags, flags);
    assert_true(next_result(op, -EOPNOTSUPP, &rc));
    assert_int_equal(rc, 0);
    assert_false(file.dev.can_discard);
    file_op_finish(op, rc);
    assert_int_equal(file_enqueue(&file, &r.io), 0);
    op = file_op_start(&file);
    assert_true(next_result(op, -ENXIO, &rc));
    file_op_finish(op, rc);
    assert_int_equal(r.rc, -ENODEV);
    assert_int_equal(file_enqueue(&file, &r.io), -ENODEV);
    free(r.buffer);
    free(next.buffer);
    file_fini(&file);
}

/* A device without a kernel behind it, on a virtual clock: requests end when the test says so. */
struct stuck {
    struct sim_world *world;
    struct env env;
    struct device_file file;
    struct request r[3];
    unsigned told;
};

static void told_stuck(struct device *dev, void *arg)
{
    struct stuck *s = arg;
    assert_int_equal(dev->link_state, DEVICE_LINK_STUCK);
    s->told++;
}

static void stuck_setup(struct stuck *s, uint64_t timeout_ns)
{
    static const struct device_ops none;
    memset(s, 0, sizeof *s);
    s->env.name = "test";
    assert_int_equal(sim_world_create(1, &s->world), 0);
    assert_int_equal(loop_create_sim(s->world, "test", 0, &s->env.loop), 0);
    struct file_params p = {.env = &s->env,
                            .path = "stuck",
                            .fd = open("/dev/null", O_RDONLY),
                            .size = FILE_BYTES,
                            .io_bytes = 512,
                            .io_align = 1,
                            .atom_bytes = 512,
                            .depth = ARRAY_LEN(s->r),
                            .timeout_ns = timeout_ns};
    assert_int_equal(file_init(&s->file, &p, &none), 0);
    s->file.dev.changed = told_stuck;
    s->file.dev.changed_arg = s;
    for (unsigned i = 0; i < ARRAY_LEN(s->r); i++)
        request_init(&s->r[i], DEVICE_WRITE, i * IO, IO, 1);
}

static void stuck_teardown(struct stuck *s)
{
    file_unwatch(&s->file);
    file_fini(&s->file);
    loop_destroy(s->env.loop);
    sim_world_destroy(s->world);
    for (unsigned i = 0; i < ARRAY_LEN(s->r); i++)
        free(s->r[i].buffer);
}

static struct file_op *stuck_start(struct stuck *s, unsigned i)
{
    assert_int_equal(file_enqueue(&s->file, &s->r[i].io), 0);
    return file_op_start(&s->file);
}

static void told_of_a_request_that_does_not_end(void **state)
{
    (void)state;
    struct stuck s;
    stuck_setup(&s, 10 * NS_PER_S);
    /* What ends in time, however late, is no reason, nor is rest. */
    struct file_op *op = stuck_start(&s, 0);
    sim_world_run_until(s.world, 9 * NS_PER_S);
    file_op_finish(op, 0);
    sim_world_run_until(s.world, 100 * NS_PER_S);
    /* One that ends between the two looks. */
    op = stuck_start(&s, 0);
    sim_world_run_until(s.world, 110 * NS_PER_S + NS_PER_S / 2);
    file_op_finish(op, 0);
    sim_world_run_until(s.world, 200 * NS_PER_S);
    assert_int_equal(s.told, 0);
    assert_int_equal(s.file.dev.link_state, DEVICE_LINK_UP);
    /* One does not end, though others do. */
    op = stuck_start(&s, 0);
    for (unsigned second = 0; second < 9; second++) {
        sim_world_run_until(s.world, (200 + second) * NS_PER_S);
        file_op_finish(stuck_start(&s, 1), 0);
    }
    assert_int_equal(s.told, 0);
    sim_world_run_until(s.world, 212 * NS_PER_S);
    assert_int_equal(s.told, 1);
    /* Once; and the request may end after all. */
    struct file_op *next = stuck_start(&s, 2);
    sim_world_run_until(s.world, 300 * NS_PER_S);
    assert_int_equal(s.told, 1);
    file_op_finish(op, 0);
    file_op_finish(next, 0);
    assert_int_equal(s.r[0].calls, 3);
    stuck_teardown(&s);
}

static void nobody_is_told_without_a_timeout(void **state)
{
    (void)state;
    struct stuck s;
    stuck_setup(&s, 0);
    struct file_op *op = stuck_start(&s, 0);
    sim_world_run_until(s.world, 1000000 * NS_PER_S);
    assert_int_equal(s.told, 0);
    assert_int_equal(s.file.dev.link_state, DEVICE_LINK_UP);
    file_op_finish(op, 0);
    stuck_teardown(&s);
}

/* What a container's seccomp profile does. */
static int forbid_uring(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = ARRAY_LEN(code), .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) ? -errno : 0;
}

static void threads_where_uring_is_forbidden(void **state)
{
    struct fixture *f = *state;
    struct device *dev = open_device(f);
    assert_int_equal(run(f, dev, DEVICE_WRITE, 0, IO, 0x33), 0);
    device_destroy(dev);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (forbid_uring())
            _exit(77);
        dev = open_device(f);
        expect(f, dev, 0, IO, 0x33);
        device_destroy(dev);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
    unlink(f->path);
}

#define EACH_WAY(test)                                                                                       \
    {#test " (io_uring)", test, NULL, NULL, &uring}, {#test " (threads)", test, NULL, NULL, &threads},       \
    {                                                                                                        \
#test " (page cache)", test, NULL, NULL, &buffered                                                   \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_WAY(writes_come_back),
        EACH_WAY(pieces_go_where_they_belong),
        EACH_WAY(more_than_its_depth),
        EACH_WAY(discards_give_space_back),
        EACH_WAY(preallocated_stays_allocated),
        EACH_WAY(refuses_misaligned_and_outside),
        EACH_WAY(smallest_request),
        EACH_WAY(a_shorter_file_is_an_error),
        EACH_WAY(locked_against_a_second_one),
        EACH_WAY(waits_for_a_killed_process),
        EACH_WAY(destroyed_with_requests_in_flight),
        EACH_WAY(destroyed_in_a_callback),
        EACH_WAY(open_errors),
        {"threads_where_uring_is_forbidden", threads_where_uring_is_forbidden, NULL, NULL, &uring},
        {"odd_results", odd_results, NULL, NULL, &uring},
        cmocka_unit_test(told_of_a_request_that_does_not_end),
        cmocka_unit_test(nobody_is_told_without_a_timeout),
    };
    return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
