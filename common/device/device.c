#include "common/device/device.h"

static bool range_ok(const struct device *d, const struct device_io *io)
{
    return io->length != 0 && io->offset % d->io_bytes == 0 && io->length % d->io_bytes == 0 &&
           io->offset <= d->size && io->length <= d->size - io->offset;
}

static bool buffers_ok(const struct device *d, const struct device_io *io)
{
    if (io->iovcnt < 1 || io->iovcnt > DEVICE_IOV_MAX)
        return false;
    uint64_t sum = 0;
    for (int i = 0; i < io->iovcnt; i++) {
        uint64_t n = io->iov[i].iov_len;
        if ((uintptr_t)io->iov[i].iov_base % d->io_align || n == 0 || n % d->io_bytes || n > io->length)
            return false;
        sum += n;
    }
    return sum == io->length;
}

int device_io_check(const struct device *d, const struct device_io *io)
{
    switch (io->op) {
    case DEVICE_FLUSH:
        return 0;
    case DEVICE_READ:
        return range_ok(d, io) && buffers_ok(d, io) ? 0 : -EINVAL;
    case DEVICE_WRITE:
        if (d->read_only)
            return -EROFS;
        return range_ok(d, io) && buffers_ok(d, io) ? 0 : -EINVAL;
    case DEVICE_DISCARD:
        if (d->read_only)
            return -EROFS;
        if (!d->can_discard)
            return -ENOTSUP;
        return range_ok(d, io) ? 0 : -EINVAL;
    }
    return -EINVAL;
}

void device_io_count(struct device *d, const struct device_io *io, int rc)
{
    if (rc)
        d->errors++;
    if (io->op == DEVICE_FLUSH) {
        d->flushes++;
    } else if (io->op == DEVICE_READ) {
        d->reads++;
        d->read_bytes += io->length;
    } else if (io->op == DEVICE_WRITE) {
        d->writes++;
        d->write_bytes += io->length;
    }
}
