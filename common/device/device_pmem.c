/*
 * device_pmem.c: a file on persistent memory (DAX), through libpmem; or, where there is none, any file.
 *
 * On pmem a request is a copy by the CPU, served on the loop in bounded bursts. On another file durability
 * takes an fdatasync: one thread serves requests in groups, so that the loop does not wait. Either way a
 * completed write is durable. Reads go by pread: a bad spot of the medium is then an error number, not a
 * signal. A store can still meet one, or a file that was cut: the SIGBUS is caught and ends this device
 * alone.
 *
 * The mapping is for stores only, and nobody else sees it: no network card is ever told of it. What a killed
 * process had stored but not flushed is in the CPU's cache or the kernel's: opening makes that durable before
 * anybody reads it.
 */
#include "common/device/device_file.h"

#include <fcntl.h>
#include <libpmem.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

enum {
    PMEM_IO_BYTES = 64,
    PMEM_ATOM_BYTES = 8,
    BURST_REQUESTS = 32,
    BURST_BYTES = 1 << 20,
    MAPS_MAX = 64,
    PAGE = 4096
};

struct device_pmem {
    struct device dev;
    struct env *env;
    int fd;
    char *map;
    size_t map_bytes;
    bool is_pmem;
    bool gone;         /* SIGBUS: -ENODEV from now on */
    int sync_error;    /* thread only: nobody knows what is durable, every later write fails */
    struct list queue; /* of device_io: is_pmem: waiting for the task */
    struct loop_task task;
    bool *destroyed;
    /* without pmem */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct list work;   /* of device_io, waiting for the thread */
    struct list served; /* of device_io, their result in priv2; the task takes them */
    int sync_result;    /* sync_error, for the loop */
    bool stop, posted, sync_told;
};

/* ---- SIGBUS ---- */

/* The mapping that this thread is storing into, while it is. */
static _Thread_local struct {
    sigjmp_buf jump;
    const char *base;
    size_t bytes;
    volatile sig_atomic_t active;
} guard;
static struct sigaction previous_action;
/* All mappings, for the handler: base 0 is a free place. */
static struct {
    atomic_uintptr_t base;
    atomic_size_t bytes;
} maps[MAPS_MAX];

static void map_note(const char *base, size_t bytes)
{
    for (unsigned i = 0; i < MAPS_MAX; i++) {
        uintptr_t none = 0;
        if (!atomic_compare_exchange_strong(&maps[i].base, &none, (uintptr_t)base))
            continue;
        atomic_store(&maps[i].bytes, bytes);
        return;
    }
}

static void map_forget(const char *base)
{
    for (unsigned i = 0; i < MAPS_MAX; i++) {
        if (atomic_load(&maps[i].base) != (uintptr_t)base)
            continue;
        atomic_store(&maps[i].bytes, 0);
        atomic_store(&maps[i].base, 0);
    }
}

static bool map_known(const char *at)
{
    for (unsigned i = 0; i < MAPS_MAX; i++) {
        uintptr_t base = atomic_load(&maps[i].base);
        if (base && (uintptr_t)at >= base && (uintptr_t)at - base < atomic_load(&maps[i].bytes))
            return true;
    }
    return false;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    const char *at = info->si_addr;
    /* "Action optional": the machine has found a bad spot that nobody touches right now. Who does will know.
     */
    if (info->si_code == BUS_MCEERR_AO && map_known(at))
        return;
    if (guard.active && at >= guard.base && at < guard.base + guard.bytes) {
        guard.active = 0;
        siglongjmp(guard.jump, 1);
    }
    if (previous_action.sa_flags & SA_SIGINFO)
        previous_action.sa_sigaction(sig, info, context);
    else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN)
        previous_action.sa_handler(sig);
    else
        signal(SIGBUS,
               SIG_DFL); /* the access is repeated, and ends the process as it would have without us */
}

/* At each open: something else in the process may have taken the signal since. */
static void install_handler(void)
{
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER}, current;
    sigemptyset(&action.sa_mask);
    pthread_mutex_lock(&once);
    MUST(sigaction(SIGBUS, NULL, &current) == 0);
    if (!(current.sa_flags & SA_SIGINFO) || current.sa_sigaction != on_sigbus) {
        previous_action = current;
        MUST(sigaction(SIGBUS, &action, NULL) == 0);
    }
    pthread_mutex_unlock(&once);
}

/* Copies into the mapping. -ENODEV: SIGBUS on the way. */
static int store(struct device_pmem *p, const struct device_io *io)
{
    guard.base = p->map;
    guard.bytes = p->map_bytes;
    if (sigsetjmp(guard.jump, 0)) /* no mask to restore: SA_NODEFER */
        return -ENODEV;
    guard.active = 1;
    char *at = p->map + io->offset;
    for (int i = 0; i < io->iovcnt; i++) {
        if (p->is_pmem)
            pmem_memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len, PMEM_F_MEM_NODRAIN);
        else
            memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
        at += io->iov[i].iov_len;
    }
    if (p->is_pmem)
        pmem_drain();
    guard.active = 0;
    return 0;
}

/* What a killed process left in the CPU's cache: every line of the mapping is flushed. A page that can not be
 * reached keeps its old content, and reading it will say so. */
static void flush_leftovers(const struct device_pmem *p)
{
    volatile size_t at = 0;
    volatile unsigned bad = 0;
    guard.base = p->map;
    guard.bytes = p->map_bytes;
    if (sigsetjmp(guard.jump, 0)) {
        bad++;
        at += PAGE;
    }
    guard.active = 1;
    for (; at < p->map_bytes; at += PAGE)
        pmem_flush(p->map + at, min_u64(PAGE, p->map_bytes - at));
    pmem_drain();
    guard.active = 0;
    if (bad)
        log_warn(p->env, "journal medium has pages that can not be reached", "device=%s pages=%u",
                 p->dev.name, bad);
}

static int load(const struct device_pmem *p, const struct device_io *io)
{
    uint64_t offset = io->offset;
    for (int i = 0; i < io->iovcnt; i++) {
        char *to = io->iov[i].iov_base;
        size_t left = io->iov[i].iov_len;
        while (left) {
            ssize_t n = pread(p->fd, to, left, (off_t)offset);
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                return -EIO;
            to += n;
            offset += (uint64_t)n;
            left -= (size_t)n;
        }
    }
    return 0;
}

static int serve(struct device_pmem *p, const struct device_io *io)
{
    switch (io->op) {
    case DEVICE_READ:
        return load(p, io);
    case DEVICE_WRITE:
        return store(p, io);
    case DEVICE_FLUSH: /* writes are durable when they complete; what others left, since the opening */
    case DEVICE_DISCARD:
        return 0;
    }
    return -EINVAL;
}

/* Counts and answers one request; false: the device is gone since. */
static bool finish(struct device_pmem *p, struct device_io *io, int rc)
{
    bool destroyed = false;
    if (rc == -ENODEV && !p->gone) {
        p->gone = true;
        log_error(p->env, "persistent memory failed (SIGBUS), the device is given up",
                  "device=%s offset=%llu", p->dev.name, (unsigned long long)io->offset);
    }
    device_io_count(&p->dev, io, rc);
    p->destroyed = &destroyed;
    io->done(io, rc);
    if (destroyed)
        return false;
    p->destroyed = NULL;
    return true;
}

/* ---- on pmem: in the loop ---- */

static void on_task(struct loop_task *task)
{
    struct device_pmem *p = container_of(task, struct device_pmem, task);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < BURST_REQUESTS && bytes < BURST_BYTES && !list_empty(&p->queue); i++) {
        struct device_io *io = list_entry(list_pop_front(&p->queue), struct device_io, link);
        bytes += io->op == DEVICE_FLUSH ? 0 : io->length;
        if (!finish(p, io, p->gone ? -ENODEV : serve(p, io)))
            return;
    }
    if (!list_empty(&p->queue))
        loop_defer(p->env->loop, &p->task);
}

/* ---- on other files: in a thread ---- */

static void serve_group(struct device_pmem *p, struct list *group)
{
    bool sync = false;
    list_for_each(n, group)
    {
        struct device_io *io = list_entry(n, struct device_io, link);
        int rc = serve(p, io);
        sync |= io->op != DEVICE_READ;
        io->priv2 = (uint64_t)(int64_t)rc;
    }
    if (!sync)
        return;
    if (p->sync_error == 0 && fdatasync(p->fd))
        p->sync_error = -errno; /* the kernel says so only once */
    list_for_each(n, group)
    {
        struct device_io *io = list_entry(n, struct device_io, link);
        if (p->sync_error && io->op != DEVICE_READ && io->priv2 == 0)
            io->priv2 = (uint64_t)(int64_t)-EIO;
    }
}

static void *thread_main(void *arg)
{
    struct device_pmem *p = arg;
    struct list group;
    list_init(&group);
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && list_empty(&p->work))
            pthread_cond_wait(&p->more, &p->lock);
        if (p->stop)
            break;
        list_splice(&group, &p->work);
        pthread_mutex_unlock(&p->lock);
        serve_group(p, &group);
        pthread_mutex_lock(&p->lock);
        list_splice(&p->served, &group);
        p->sync_result = p->sync_error;
        if (!p->posted)
            MUST(loop_post(p->env->loop, &p->task) == 0);
        p->posted = true;
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void on_served(struct loop_task *task)
{
    struct device_pmem *p = container_of(task, struct device_pmem, task);
    struct list served;
    list_init(&served);
    pthread_mutex_lock(&p->lock);
    list_splice(&served, &p->served);
    p->posted = false;
    int sync_error = p->sync_result;
    pthread_mutex_unlock(&p->lock);
    if (sync_error && !p->sync_told)
        log_error(p->env, "journal file can not be made durable, no write counts any more",
                  "device=%s error=%s", p->dev.name, strerrorname_np(-sync_error));
    p->sync_told |= sync_error != 0;
    struct list *n;
    while ((n = list_pop_front(&served))) {
        struct device_io *io = list_entry(n, struct device_io, link);
        int rc = (int)(int64_t)io->priv2;
        if (!finish(p, io, p->gone ? -ENODEV : rc))
            return;
    }
}

/* ---- the device ---- */

static int pmem_submit(struct device *dev, struct device_io *io)
{
    struct device_pmem *p = container_of(dev, struct device_pmem, dev);
    if (p->gone)
        return -ENODEV;
    int rc = device_io_check(dev, io);
    if (rc)
        return rc;
    if (p->is_pmem) {
        list_push_back(&p->queue, &io->link);
        loop_defer(p->env->loop, &p->task);
        return 0;
    }
    pthread_mutex_lock(&p->lock);
    list_push_back(&p->work, &io->link);
    pthread_cond_signal(&p->more);
    pthread_mutex_unlock(&p->lock);
    return 0;
}

static void pmem_free(struct device_pmem *p)
{
    if (p->map) {
        map_forget(p->map);
        pmem_unmap(p->map, p->map_bytes);
    }
    if (p->fd >= 0)
        close(p->fd);
    free(p);
}

static void pmem_destroy(struct device *dev)
{
    struct device_pmem *p = container_of(dev, struct device_pmem, dev);
    if (!p->is_pmem) {
        pthread_mutex_lock(&p->lock);
        p->stop = true;
        pthread_cond_signal(&p->more);
        pthread_mutex_unlock(&p->lock);
        pthread_join(p->thread, NULL);
        pthread_cond_destroy(&p->more);
        pthread_mutex_destroy(&p->lock);
    }
    loop_task_cancel(p->env->loop, &p->task);
    if (p->destroyed)
        *p->destroyed = true;
    pmem_free(p);
}

static const struct device_ops pmem_ops = {.submit = pmem_submit, .destroy = pmem_destroy};

static int start_thread(struct device_pmem *p)
{
    sigset_t all, old;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->more, NULL);
    sigfillset(&all);
    sigdelset(&all, SIGBUS); /* a blocked SIGBUS of our own making would end the process */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = -pthread_create(&p->thread, NULL, thread_main, p);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc) {
        pthread_cond_destroy(&p->more);
        pthread_mutex_destroy(&p->lock);
    }
    return rc;
}

/* Every byte allocated: a store into a hole on a full file system would be a SIGBUS. */
static int allocate(const struct device_pmem *p, const struct file_params *params)
{
    struct stat st;
    if (fstat(p->fd, &st))
        return -errno;
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < PMEM_IO_BYTES) {
        log_error(p->env,
                  S_ISCHR(st.st_mode) ? "a journal needs a file: not devdax, but fsdax, a file system, and "
                                        "mount -o dax"
                                      : "not a file with a size",
                  "device=%s bytes=%lld", params->path, (long long)st.st_size);
        return -EINVAL;
    }
    return params->read_only ? 0 : -posix_fallocate(p->fd, 0, st.st_size);
}

/* By the descriptor's own name: it is the locked file that is mapped, whatever happens to the path. */
static int map(struct device_pmem *p, const struct file_params *params)
{
    char path[64];
    int is_pmem = 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", p->fd);
    if (params->read_only)
        return 0; /* reads do not need the mapping */
    p->map = pmem_map_file(path, 0, 0, 0, &p->map_bytes, &is_pmem);
    if (!p->map) {
        int rc = errno ? -errno : -EIO;
        log_error(p->env, "can not map the journal file", "device=%s error=\"%s\"", params->path,
                  pmem_errormsg());
        return rc;
    }
    p->is_pmem = is_pmem != 0;
    map_note(p->map, p->map_bytes);
    if (p->is_pmem)
        flush_leftovers(p);
    return 0;
}

/* libpmem believes PMEM_IS_PMEM_FORCE; the kernel gives this kind of mapping for DAX files only. */
static bool is_dax(const struct device_pmem *p)
{
    void *page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, p->fd, 0);
    if (page == MAP_FAILED)
        return false;
    munmap(page, PAGE);
    return true;
}

static void tell_what_it_is(const struct device_pmem *p)
{
    unsigned long long bytes = p->dev.size;
    if (p->dev.read_only)
        return;
    if (!p->is_pmem)
        log_warn(p->env, "journal medium is not persistent memory, each write waits for the disk",
                 "device=%s bytes=%llu", p->dev.name, bytes);
    else if (is_dax(p))
        log_info(p->env, "journal medium is persistent memory", "device=%s bytes=%llu", p->dev.name, bytes);
    else
        log_warn(p->env,
                 "journal medium is not persistent memory, but PMEM_IS_PMEM_FORCE says so: a loss of power "
                 "loses acknowledged writes",
                 "device=%s bytes=%llu", p->dev.name, bytes);
}

static int set_up(struct device_pmem *p, struct file_params *params, const struct device_open_options *o)
{
    struct device_open_options full = *o;
    struct stat st;
    full.preallocate = true;
    int flags = O_CLOEXEC | (o->read_only ? O_RDONLY : O_RDWR);
    if (o->create && o->create_size && !o->read_only)
        flags |= O_CREAT;
    p->fd = params->fd = open(params->path, flags, 0600);
    if (p->fd < 0)
        return -errno;
    int rc = file_lock(params);
    if (rc == 0)
        rc = file_fill(params, &full);
    if (rc == 0)
        rc = allocate(p, params);
    if (rc == 0)
        rc = map(p, params);
    if (rc == 0 && fstat(p->fd, &st))
        rc = -errno;
    if (rc)
        return rc;
    p->dev.size = round_down((uint64_t)st.st_size, PMEM_IO_BYTES);
    if (p->map && p->map_bytes < p->dev.size)
        return -EIO;
    return 0;
}

int device_open_pmem(struct env *env, const char *path, const struct device_open_options *options,
                     struct device **out)
{
    static const struct device_open_options defaults;
    const struct device_open_options *o = options ? options : &defaults;
    struct file_params params = {.env = env, .path = path, .fd = -1, .read_only = o->read_only};
    struct device_pmem *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    install_handler();
    p->env = env;
    list_init(&p->queue);
    list_init(&p->work);
    list_init(&p->served);
    p->dev.ops = &pmem_ops;
    p->dev.io_bytes = PMEM_IO_BYTES;
    p->dev.io_align = 1;
    p->dev.atom_bytes = PMEM_ATOM_BYTES;
    p->dev.durable_writes = true;
    p->dev.first_write_slow = true;
    p->dev.read_only = o->read_only;
    snprintf(p->dev.name, sizeof p->dev.name, "%s", path);
    int rc = set_up(p, &params, o);
    loop_task_init(&p->task, p->is_pmem ? on_task : on_served);
    if (rc == 0 && !p->is_pmem)
        rc = start_thread(p);
    if (rc) {
        log_error(env, "can not open journal medium", "device=%s error=%s", path, strerrorname_np(-rc));
        pmem_free(p);
        return rc;
    }
    tell_what_it_is(p);
    *out = &p->dev;
    return 0;
}
