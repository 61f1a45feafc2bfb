/*
 * device.h: a block medium: a disk, a file, a LUN, a pmem or DAX file, or a simulated one.
 *
 * Contract of every provider:
 *  - Requests may complete and land in any order; a write is durable only when a FLUSH that was submitted
 * after the write completed has itself completed (pmem: durable_writes is true, then completion of the write
 * is enough). A killed process's writes that had not completed may be there, and may yet vanish, until the
 * first FLUSH of the next process: with durable_writes too.
 *  - After a crash an unflushed write may have landed whole, in part (any subset of atom_bytes pieces), or
 * not at all.
 *  - Buffers, offsets and lengths are multiples of io_bytes and buffers are aligned to io_align.
 *  - Read errors and rot are per request: -EIO; a short transfer is completed or turned into -EIO by the
 * provider.
 *  - After a DISCARD the range reads as anything (zeroes, or what was there) until it is written again.
 *  - After a FLUSH has failed nobody knows what is durable of all that it should have covered: file devices
 * fail every later FLUSH with -EIO, and the owner must treat what it wrote as lost until it has read it back
 * from a new start.
 *  - A device that is gone (LUN vanished, reservation lost, SIGBUS) answers -ENODEV from then on.
 * Thread: the loop's. done never runs inside device_submit; it may submit and it may destroy the device.
 */
#ifndef CISTERN_COMMON_DEVICE_DEVICE_H
#define CISTERN_COMMON_DEVICE_DEVICE_H

#include "common/base.h"
#include "common/env.h"
#include "common/list.h"

enum device_op { DEVICE_READ, DEVICE_WRITE, DEVICE_FLUSH, DEVICE_DISCARD };
#define DEVICE_IOV_MAX 64

struct device;
/* Embedded in the caller's object; the device's from submit until done. */
struct device_io {
    enum device_op op;
    uint64_t offset, length; /* bytes; length = sum of iov for READ and WRITE; FLUSH ignores both */
    const struct iovec *iov; /* the array and what it points to stay valid until done */
    int iovcnt;
    void (*done)(struct device_io *io, int rc); /* 0 or -errno */
    /* the provider's */
    struct list link;
    void *priv;
    uint64_t priv2;
};
/* See fence.h. */
enum device_fence_state {
    DEVICE_FENCE_NONE = 0,    /* no reservation was asked for */
    DEVICE_FENCE_HELD,        /* ours: the medium refuses everybody else */
    DEVICE_FENCE_UNCERTAIN,   /* was ours; nothing is submitted until it has been confirmed */
    DEVICE_FENCE_LOST,        /* another one has it: -ENODEV for good */
    DEVICE_FENCE_UNSUPPORTED, /* asked for, and the array does not enforce it */
};
enum device_link_state {
    DEVICE_LINK_UP = 0,
    DEVICE_LINK_DOWN,  /* submit answers -ENOTCONN until device_fence_reconnect has succeeded */
    DEVICE_LINK_GONE,  /* -ENODEV for good */
    DEVICE_LINK_STUCK, /* files: a request has been under way for longer than timeout_ns, and may end yet */
};
struct device_fence_ops;
struct device_ops {
    int (*submit)(struct device *, struct device_io *);
    /* Frees at once, in any state, runs no callbacks. Waits (bounded) for the kernel to let go of buffers in
     * flight. */
    void (*destroy)(struct device *);
};
struct device {
    const struct device_ops *ops;
    uint64_t size;       /* bytes */
    uint32_t io_bytes;   /* granularity of offset and length: 512 or 4096; pmem 64 */
    uint32_t io_align;   /* of buffers */
    uint32_t atom_bytes; /* what can not tear: 512 or 4096 on disks, 8 on pmem */
    bool durable_writes; /* true: a completed write is durable */
    bool can_discard;
    bool rotational;
    bool first_write_slow; /* a first write to a range may have to find space for it, and the flush behind it
                              has to make that durable too: files. Whoever needs short flushes fills it first.
                            */
    bool read_only;
    char name[128]; /* for messages: path or LUN */
    /* Media that others can reach too (LUNs), see fence.h; fence is NULL where the medium is this process's
     * alone. */
    const struct device_fence_ops *fence;
    enum device_fence_state fence_state;
    enum device_link_state link_state; /* other than UP on LUNs, and on files with a timeout_ns */
    uint64_t fence_key;
    /* Set by the owner, may be NULL: fence_state or link_state has become another, or the medium has shrunk.
     * On the loop, never inside a call of the owner; it may destroy the device. */
    void (*changed)(struct device *, void *arg);
    void *changed_arg;
    uint64_t reads, writes, flushes, read_bytes, write_bytes, errors; /* counters */
};
/* 0: done runs once, later. -EINVAL: empty, not aligned or out of range; -EROFS: write on a read-only device;
 * -ENOTSUP: discard without can_discard; -ENODEV: gone; -ENOTCONN (LUNs): link down. */
static inline int device_submit(struct device *d, struct device_io *io)
{
    return d->ops->submit(d, io);
}
static inline void device_destroy(struct device *d)
{
    d->ops->destroy(d);
}
/* For providers: what every submit checks first. 0, -EINVAL, -EROFS or -ENOTSUP. */
int device_io_check(const struct device *d, const struct device_io *io);
/* For providers: counts a completed request in d's counters. */
void device_io_count(struct device *d, const struct device_io *io, int rc);

struct device_open_options {
    bool create; /* make the file if missing, of create_size bytes, fully allocated when preallocate */
    bool preallocate;
    uint64_t create_size; /* 0 with create: must exist */
    bool no_direct;       /* do not try O_DIRECT */
    bool no_uring;        /* do not try io_uring */
    bool read_only;       /* shares the lock with other readers */
    unsigned depth;       /* requests in flight, 0 = 128; more wait inside */
    uint64_t timeout_ns;  /* device_open_file: the link is STUCK, and changed is called, when a request takes
                             longer  (seen a little later); 0 = never. Nothing else happens to requests: the
                             kernel has  their buffers. */
};
/*
 * A file or local block device through io_uring (device_uring.c). O_DIRECT where the file system has it, else
 * through the page cache (said in the log). Where io_uring is forbidden or missing a thread pool serves
 * instead (device_threads.c), said in the log too. The open file that all I/O uses is locked exclusively (OFD
 * lock, fcntl(2)): it is let go only when the last request in flight has ended, even when the process was
 * killed. A file that preallocate made fully allocated is never discarded (can_discard is false). 0; -EBUSY:
 * another open file holds the lock (or the kernel uses the block device); -ENOENT, -EACCES, ... of open(2);
 * -ENOTBLK: neither file nor block device; -EINVAL: smaller than one io_bytes; -ENOSPC; -ENOMEM; -ENOTSUP:
 * not on this loop, or sectors above 4096 bytes. Blocks for as long as open(2) and, with create, fallocate(2)
 * do: for starts.
 */
int device_open_file(struct env *env, const char *path, const struct device_open_options *options,
                     struct device **out);
/* As device_open_file, but while that says -EBUSY tries again for timeout_ns: a process that was killed holds
 * the lock until the kernel has ended its requests. Blocks: for starts, before the loop runs. */
int device_open_file_wait(struct env *env, const char *path, const struct device_open_options *options,
                          uint64_t timeout_ns, struct device **out);
/* A pmem or DAX file through libpmem (device_pmem.c); works on any file, and says in the log when it is not
 * real pmem. On a file that is not pmem durable_writes stays true: completion follows pmem_msync. */
int device_open_pmem(struct env *env, const char *path, const struct device_open_options *options,
                     struct device **out);

#endif
