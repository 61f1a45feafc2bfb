/*
 * stuck_disk.c: preloaded into an OSD (stuck_disk.sh): a disk that answers nothing while the file $STUCK_DISK
 * exists, neither data nor an error. io_uring is refused, so that all its requests are made by calls that can
 * be held here.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p)
{
    (void)entries;
    (void)ring;
    (void)p;
    return -EPERM;
}

static void hold(void)
{
    const char *path = getenv("STUCK_DISK");
    while (path && access(path, F_OK) == 0)
        usleep(10000);
}

ssize_t preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
    hold();
    return syscall(SYS_preadv, fd, iov, count, offset, 0);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    hold();
    return syscall(SYS_pwritev, fd, iov, count, offset, 0);
}

int fdatasync(int fd)
{
    hold();
    return (int)syscall(SYS_fdatasync, fd);
}
