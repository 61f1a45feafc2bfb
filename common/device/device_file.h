/*
 * device_file.h: what the two ways to serve a file (io_uring, threads) share; for device_*.c only.
 *
 * device_file.c opens, locks and measures; a backend embeds struct device_file. Submitted requests wait in
 * `queue`; a backend starts them while there is a free file_op, feeds each result to file_op_advance until
 * that says it is finished, and then ends it with file_op_finish.
 */
#ifndef CISTERN_COMMON_DEVICE_DEVICE_FILE_H
#define CISTERN_COMMON_DEVICE_DEVICE_FILE_H

#include "common/device/device.h"
#include "common/loop.h"

struct device_file;

/* How discards are asked for; a kind that the kernel refuses is replaced by the next. */
enum file_discard { FILE_DISCARD_PUNCH, FILE_DISCARD_STALE, FILE_DISCARD_NONE };

/* One request in flight. */
struct file_op {
    struct list link; /* in free_ops */
    struct device_file *file;
    struct device_io *io; /* NULL: free */
    uint64_t start_ns;
    struct iovec iov[DEVICE_IOV_MAX]; /* what remains to be transferred */
    int iov_at, iovcnt;
    uint64_t transferred;
    unsigned retries;
    int discard_flags;     /* of fallocate(2) */
    struct list work;      /* threads: waiting for a thread, or being served */
    struct loop_task task; /* threads: the completion */
    int result;            /* threads: as a cqe's */
};

struct device_file {
    struct device dev;
    struct env *env;
    int fd;
    bool block;        /* a block device */
    bool direct;       /* O_DIRECT */
    bool gone;         /* -ENODEV from now on */
    bool flush_failed; /* every later flush fails */
    enum file_discard discard;
    unsigned depth, inflight;
    struct list queue; /* of device_io */
    struct list free_ops;
    struct file_op *ops;
    bool *destroyed; /* set by destroy when it runs inside a callback */
    uint64_t timeout_ns;
    struct loop_timer
        watch; /* with timeout_ns: armed when the oldest request may have been under way for so long */
    uint64_t suspect_ns; /* the start of the one that had; 0: none */
};

/* What an open file is: made by device_file.c, taken over by a backend's create (fd included, on success
 * only). */
struct file_params {
    struct env *env;
    const char *path;
    int fd;
    bool block, direct, read_only, rotational;
    uint64_t size;
    uint32_t io_bytes, io_align, atom_bytes;
    enum file_discard discard;
    unsigned depth;
    uint64_t timeout_ns;
};

/* 0; -EPERM, -ENOSYS: the kernel forbids or lacks io_uring; other -errno. The fd is the device's on success.
 */
int file_uring_create(const struct file_params *params, struct device **out);
int file_threads_create(const struct file_params *params, struct device **out);

/* Gives an empty file its size, when options say create. A failure leaves it empty, so that the next start
 * tries again. */
int file_fill(const struct file_params *p, const struct device_open_options *o);
/* On the open file description, so that I/O in flight holds it (fcntl(2), "open file description locks"). 0
 * or -EBUSY. */
int file_lock(const struct file_params *p);

/* For backends. */
int file_init(struct device_file *f, const struct file_params *params, const struct device_ops *ops);
/* Nobody watches the requests any more: what destroy does first. */
void file_unwatch(struct device_file *f);
/* Frees the ops and closes the file (which gives the lock back). */
void file_fini(struct device_file *f);
/* What submit does first: 0: io is in the queue. */
int file_enqueue(struct device_file *f, struct device_io *io);
/* The next waiting request, made ready; NULL: none, or all ops in use. */
struct file_op *file_op_start(struct device_file *f);
/* result: bytes or -errno of what op->iov, offset io->offset + op->transferred asked for. True: finished, *rc
 * is for file_op_finish; false: the op is to be issued again as it stands. */
bool file_op_advance(struct file_op *op, int result, int *rc);
/* Frees op, counts, and calls done. */
void file_op_finish(struct file_op *op, int rc);

#endif
