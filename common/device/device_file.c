/*
 * device_file.c: opening, locking and measuring files and block devices, and the book-keeping of requests
 * that both backends share.
 */
#include "common/device/device_file.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

enum { DEPTH_DEFAULT = 128, DEPTH_MAX = 4096, SECTOR_MAX = 4096, RETRIES_MAX = 1000 };

/* ---- measuring ---- */

/* The number in a file of sysfs' queue directory of a disk or of the disk that a partition is on; -1: not
 * there. */
static int64_t queue_number(dev_t dev, const char *name)
{
    static const char *const shapes[] = {"/sys/dev/block/%u:%u/queue/%s", "/sys/dev/block/%u:%u/../queue/%s"};
    for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
        char path[128], text[32];
        snprintf(path, sizeof path, i == 0 ? shapes[0] : shapes[1], major(dev), minor(dev), name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        if (n <= 0)
            continue;
        text[n] = 0;
        return strtoll(text, NULL, 10);
    }
    return -1;
}

/* The smallest O_DIRECT read that the file system takes at offset 0. 0: none. */
static uint32_t probe_direct(int fd)
{
    void *buffer = NULL;
    if (posix_memalign(&buffer, SECTOR_MAX, SECTOR_MAX))
        return 0;
    uint32_t found = 0;
    for (uint32_t n = SECTOR_BYTES; n <= SECTOR_MAX && !found; n *= 8) {
        if (pread(fd, buffer, n, 0) >= 0)
            found = n;
    }
    free(buffer);
    return found;
}

static int measure_direct_file(struct file_params *p)
{
    uint32_t offset_align = 0, memory_align = 0;
#ifdef STATX_DIOALIGN
    struct statx sx;
    if (statx(p->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 && (sx.stx_mask & STATX_DIOALIGN)) {
        offset_align = sx.stx_dio_offset_align;
        memory_align = sx.stx_dio_mem_align;
    }
#endif
    if (offset_align == 0)
        offset_align = memory_align = probe_direct(p->fd);
    if (!is_pow2(offset_align) || !is_pow2(memory_align) || offset_align > SECTOR_MAX ||
        memory_align > SECTOR_MAX)
        return -ENOTSUP;
    p->io_bytes = offset_align > SECTOR_BYTES ? SECTOR_MAX : SECTOR_BYTES;
    p->io_align = memory_align > SECTOR_BYTES ? SECTOR_MAX : SECTOR_BYTES;
    return 0;
}

static int measure_block(struct file_params *p)
{
    int sector = 0;
    if (ioctl(p->fd, BLKGETSIZE64, &p->size) || ioctl(p->fd, BLKSSZGET, &sector))
        return -errno;
    if (sector != (int)SECTOR_BYTES && sector != SECTOR_MAX) {
        log_error(p->env, "sector size is not supported", "device=%s sector_bytes=%d", p->path, sector);
        return -ENOTSUP;
    }
    p->io_bytes = p->io_align = p->atom_bytes = (uint32_t)sector;
    return 0;
}

static enum file_discard measure_discard(const struct file_params *p, const struct stat *st)
{
    if (p->read_only)
        return FILE_DISCARD_NONE;
    if (p->block)
        return queue_number(st->st_rdev, "discard_max_bytes") > 0 ? FILE_DISCARD_PUNCH : FILE_DISCARD_NONE;
    /* A hole beyond the end changes nothing, and fails where the file system has no holes. */
    int flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return fallocate(p->fd, flags, st->st_size, SECTOR_MAX) == 0 ? FILE_DISCARD_PUNCH : FILE_DISCARD_NONE;
}

static int measure(struct file_params *p)
{
    struct stat st;
    if (fstat(p->fd, &st))
        return -errno;
    p->block = S_ISBLK(st.st_mode);
    p->io_bytes = p->atom_bytes = SECTOR_BYTES;
    p->io_align = 1;
    p->size = (uint64_t)st.st_size;
    p->rotational = queue_number(p->block ? st.st_rdev : st.st_dev, "rotational") == 1;
    int rc = p->block ? measure_block(p) : p->direct ? measure_direct_file(p) : 0;
    if (rc)
        return rc;
    if (!p->direct)
        p->io_align = 1;
    p->size = round_down(p->size, p->io_bytes);
    if (p->size == 0 || p->size > (uint64_t)LLONG_MAX) {
        log_error(p->env, "device has no usable size", "device=%s bytes=%lld", p->path,
                  (long long)st.st_size);
        return -EINVAL;
    }
    p->discard = measure_discard(p, &st);
    return 0;
}

/* ---- opening ---- */

/* The name is durable only when its directory is. */
static int sync_parent(const char *path)
{
    char dir[PATH_MAX];
    if (strlen(path) >= sizeof dir)
        return -ENAMETOOLONG;
    memcpy(dir, path, strlen(path) + 1);
    char *slash = strrchr(dir, '/');
    if (!slash)
        memcpy(dir, ".", 2);
    else
        slash[slash == dir] = 0;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) ? -errno : 0;
    close(fd);
    return rc;
}

int file_fill(const struct file_params *p, const struct device_open_options *o)
{
    struct stat st;
    if (fstat(p->fd, &st))
        return -errno;
    if (!o->create || !S_ISREG(st.st_mode) || st.st_size != 0 || o->create_size == 0)
        return 0;
    int rc = 0;
    if (o->create_size > (uint64_t)LLONG_MAX)
        rc = -EFBIG;
    else if (o->preallocate)
        rc = -posix_fallocate(p->fd, 0, (off_t)o->create_size);
    else if (ftruncate(p->fd, (off_t)o->create_size))
        rc = -errno;
    if (rc == 0 && fsync(p->fd))
        rc = -errno;
    if (rc == 0)
        rc = sync_parent(p->path);
    if (rc) {
        log_error(p->env, "can not make the device's file", "device=%s bytes=%llu error=%s", p->path,
                  (unsigned long long)o->create_size, strerrorname_np(-rc));
        (void)!ftruncate(p->fd, 0);
    }
    return rc;
}

int file_lock(const struct file_params *p)
{
    struct flock fl = {.l_type = p->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(p->fd, F_OFD_SETLK, &fl) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

static int open_flags(const char *path, const struct device_open_options *o)
{
    int flags = O_CLOEXEC | O_NOCTTY | (o->read_only ? O_RDONLY : O_RDWR);
    struct stat st;
    if (stat(path, &st) == 0) {
        /* O_EXCL alone: the kernel refuses a block device that is mounted, part of something, or opened so by
         * another process, were it through another node (in a container), whose lock would not meet ours. */
        if (S_ISBLK(st.st_mode))
            return flags | (o->read_only ? 0 : O_EXCL);
        if (!S_ISREG(st.st_mode))
            return -ENOTBLK;
    }
    if (o->create && o->create_size && !o->read_only)
        flags |= O_CREAT;
    return flags;
}

static int open_fd(struct file_params *p, const struct device_open_options *o)
{
    int flags = open_flags(p->path, o);
    if (flags < 0)
        return flags;
    if (!o->no_direct) {
        p->fd = open(p->path, flags | O_DIRECT, 0600);
        p->direct = p->fd >= 0;
        if (p->fd < 0 && errno != EINVAL)
            return -errno;
    }
    if (p->fd < 0)
        p->fd = open(p->path, flags, 0600);
    return p->fd < 0 ? -errno : 0;
}

/* Some file systems take the flag and then refuse the I/O: measure, and go on without it. */
static int prepare(struct file_params *p, const struct device_open_options *o)
{
    int rc = file_lock(p);
    if (rc == 0)
        rc = file_fill(p, o);
    if (rc == 0)
        rc = measure(p);
    if (rc == -ENOTSUP && p->direct && !p->block) {
        int flags = fcntl(p->fd, F_GETFL);
        if (flags < 0 || fcntl(p->fd, F_SETFL, flags & ~O_DIRECT))
            return -errno;
        p->direct = false;
        rc = measure(p);
    }
    return rc;
}

static int start_backend(const struct file_params *p, const struct device_open_options *o,
                         struct device **out)
{
    int rc = o->no_uring ? -EPERM : file_uring_create(p, out);
    if (rc != -EPERM && rc != -ENOSYS)
        return rc;
    if (!o->no_uring)
        log_warn(p->env, "io_uring is not allowed here, using threads", "device=%s error=%s", p->path,
                 strerrorname_np(-rc));
    return file_threads_create(p, out);
}

int device_open_file(struct env *env, const char *path, const struct device_open_options *options,
                     struct device **out)
{
    static const struct device_open_options defaults;
    const struct device_open_options *o = options ? options : &defaults;
    struct file_params p = {.env = env, .path = path, .fd = -1, .read_only = o->read_only};
    p.timeout_ns = o->timeout_ns;
    p.depth = o->depth ? (unsigned)min_u64(o->depth, DEPTH_MAX) : DEPTH_DEFAULT;
    int rc = open_fd(&p, o);
    if (rc == 0)
        rc = prepare(&p, o);
    if (rc == 0 && o->create && o->preallocate)
        p.discard = FILE_DISCARD_NONE;
    if (rc == 0)
        rc = start_backend(&p, o, out);
    if (rc) {
        if (rc != -EBUSY)
            log_debug(env, "can not open device", "device=%s error=%s", path, strerrorname_np(-rc));
        if (p.fd >= 0)
            close(p.fd);
        return rc;
    }
    log_info(env, "device opened", "device=%s bytes=%llu io_bytes=%u direct=%d discard=%d rotational=%d",
             path, (unsigned long long)p.size, p.io_bytes, p.direct, (*out)->can_discard, p.rotational);
    if (!p.direct && !o->no_direct)
        log_warn(env, "no O_DIRECT on this file system, using the page cache", "device=%s", path);
    return 0;
}

int device_open_file_wait(struct env *env, const char *path, const struct device_open_options *options,
                          uint64_t timeout_ns, struct device **out)
{
    const uint64_t pause_ns = 20 * NS_PER_MS;
    const struct timespec pause = {.tv_nsec = (long)pause_ns};
    for (uint64_t waited_ns = 0;; waited_ns += pause_ns) {
        int rc = device_open_file(env, path, options, out);
        if (rc != -EBUSY)
            return rc;
        if (waited_ns >= timeout_ns) {
            log_error(env, "device is in use by another process", "device=%s", path);
            return rc;
        }
        if (waited_ns == 0)
            log_info(env, "waiting for the device's lock", "device=%s", path);
        nanosleep(&pause, NULL);
    }
}

/* ---- requests that do not end ---- */

static uint64_t oldest_start_ns(const struct device_file *f)
{
    uint64_t oldest = UINT64_MAX;
    for (unsigned i = 0; i < f->depth; i++)
        if (f->ops[i].io)
            oldest = min_u64(oldest, f->ops[i].start_ns);
    return oldest;
}

/* A process that stood still itself finds old requests that have ended long ago: it looks twice, with rounds
 * of the loop in between. */
static void watch_fired(struct loop_timer *t)
{
    struct device_file *f = container_of(t, struct device_file, watch);
    const uint64_t now_ns = loop_now_ns(f->env->loop), oldest = oldest_start_ns(f);
    if (oldest == UINT64_MAX)
        return; /* armed with the next request */
    if (now_ns - oldest < f->timeout_ns) {
        loop_timer_arm(f->env->loop, t, f->timeout_ns - (now_ns - oldest));
    } else if (f->suspect_ns != oldest) {
        f->suspect_ns = oldest;
        loop_timer_arm(f->env->loop, t, min_u64(NS_PER_S, f->timeout_ns));
    } else {
        log_error(f->env, "device does not end a request", "device=%s seconds=%lu inflight=%u", f->dev.name,
                  (unsigned long)((now_ns - oldest) / NS_PER_S), f->inflight);
        f->dev.link_state = DEVICE_LINK_STUCK;
        if (f->dev.changed)
            f->dev.changed(&f->dev, f->dev.changed_arg); /* it may have destroyed f */
    }
}

void file_unwatch(struct device_file *f)
{
    loop_timer_cancel(f->env->loop, &f->watch);
}

/* ---- requests ---- */

int file_init(struct device_file *f, const struct file_params *p, const struct device_ops *ops)
{
    f->ops = calloc(p->depth, sizeof *f->ops);
    if (!f->ops)
        return -ENOMEM;
    f->env = p->env;
    f->fd = p->fd;
    f->block = p->block;
    f->direct = p->direct;
    f->discard = p->discard;
    f->depth = p->depth;
    f->timeout_ns = p->timeout_ns;
    loop_timer_init(&f->watch, watch_fired);
    list_init(&f->queue);
    list_init(&f->free_ops);
    for (unsigned i = 0; i < p->depth; i++) {
        f->ops[i].file = f;
        list_init(&f->ops[i].work);
        list_push_back(&f->free_ops, &f->ops[i].link);
    }
    f->dev.ops = ops;
    f->dev.size = p->size;
    f->dev.io_bytes = p->io_bytes;
    f->dev.io_align = p->io_align;
    f->dev.atom_bytes = p->atom_bytes;
    f->dev.can_discard = p->discard != FILE_DISCARD_NONE;
    f->dev.rotational = p->rotational;
    f->dev.first_write_slow = !p->block;
    f->dev.read_only = p->read_only;
    snprintf(f->dev.name, sizeof f->dev.name, "%s", p->path);
    return 0;
}

void file_fini(struct device_file *f)
{
    if (f->destroyed)
        *f->destroyed = true;
    close(f->fd);
    free(f->ops);
}

int file_enqueue(struct device_file *f, struct device_io *io)
{
    if (f->gone)
        return -ENODEV;
    int rc = device_io_check(&f->dev, io);
    if (rc)
        return rc;
    list_push_back(&f->queue, &io->link);
    return 0;
}

struct file_op *file_op_start(struct device_file *f)
{
    if (list_empty(&f->queue) || list_empty(&f->free_ops))
        return NULL;
    struct file_op *op = list_entry(list_pop_front(&f->free_ops), struct file_op, link);
    struct device_io *io = list_entry(list_pop_front(&f->queue), struct device_io, link);
    op->io = io;
    op->start_ns = loop_now_ns(f->env->loop);
    if (f->timeout_ns && f->dev.link_state == DEVICE_LINK_UP && !loop_timer_armed(&f->watch))
        loop_timer_arm(f->env->loop, &f->watch, f->timeout_ns);
    op->transferred = 0;
    op->retries = 0;
    op->iov_at = 0;
    op->iovcnt = 0;
    op->result = 0;
    if (io->op == DEVICE_READ || io->op == DEVICE_WRITE) {
        op->iovcnt = io->iovcnt;
        memcpy(op->iov, io->iov, (size_t)io->iovcnt * sizeof *io->iov);
    }
    op->discard_flags = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
    if (f->discard == FILE_DISCARD_STALE)
        op->discard_flags |= FALLOC_FL_NO_HIDE_STALE;
    f->inflight++;
    return op;
}

/* A kind of discard that the kernel does not have is replaced by the next; in the end discarding is doing
 * nothing. */
static bool discard_refused(struct file_op *op)
{
    struct device_file *f = op->file;
    if (f->block && !(op->discard_flags & FALLOC_FL_NO_HIDE_STALE)) {
        f->discard = FILE_DISCARD_STALE;
        op->discard_flags |= FALLOC_FL_NO_HIDE_STALE;
        return true;
    }
    if (f->dev.can_discard)
        log_warn(f->env, "device does not discard after all", "device=%s", f->dev.name);
    f->discard = FILE_DISCARD_NONE;
    f->dev.can_discard = false;
    return false;
}

static bool advance_transfer(struct file_op *op, uint64_t n, int *rc)
{
    op->transferred += n;
    if (n == 0 || op->transferred > op->io->length) {
        *rc = -EIO; /* the file has become shorter, or the kernel lies */
        return true;
    }
    while (n) {
        struct iovec *v = &op->iov[op->iov_at];
        uint64_t taken = min_u64(n, v->iov_len);
        v->iov_base = (char *)v->iov_base + taken;
        v->iov_len -= taken;
        n -= taken;
        if (v->iov_len == 0)
            op->iov_at++;
    }
    *rc = 0;
    return op->transferred == op->io->length;
}

bool file_op_advance(struct file_op *op, int result, int *rc)
{
    struct device_file *f = op->file;
    enum device_op kind = op->io->op;
    if ((result == -EAGAIN || result == -EINTR) && op->retries++ < RETRIES_MAX)
        return false;
    if (kind == DEVICE_DISCARD && result == -EOPNOTSUPP) {
        *rc = 0;
        return !discard_refused(op);
    }
    if (result >= 0 && (kind == DEVICE_READ || kind == DEVICE_WRITE))
        return advance_transfer(op, (uint64_t)result, rc);
    *rc = result < 0 ? result : 0;
    if (result == -ENODEV || result == -ENXIO) {
        f->gone = true;
        *rc = -ENODEV;
        log_error(f->env, "device is gone", "device=%s", f->dev.name);
    } else if (result == -EINVAL) {
        *rc = -EIO; /* what we asked for was checked: the kernel's refusal is the medium's failure to the
                       caller */
    }
    return true;
}

void file_op_finish(struct file_op *op, int rc)
{
    struct device_file *f = op->file;
    struct device_io *io = op->io;
    if (io->op == DEVICE_FLUSH) {
        /* The kernel reports a lost write once only: a second flush would say that all is well. */
        if (rc && !f->flush_failed)
            log_error(f->env, "flush failed, nothing on this device counts as durable any more",
                      "device=%s error=%s", f->dev.name, strerrorname_np(-rc));
        f->flush_failed = f->flush_failed || rc;
        if (f->flush_failed && rc == 0)
            rc = -EIO;
    }
    op->io = NULL;
    list_push_back(&f->free_ops, &op->link);
    f->inflight--;
    device_io_count(&f->dev, io, rc);
    io->done(io, rc);
}
