/* store_check_io.c: requests of a check, one after the other, and a few in the background. */
#include "services/rwm/store_check_internal.h"

static void io_done(struct device_io *io, int rc)
{
    struct check_io *mine = container_of(io, struct check_io, io);
    mine->rc = rc;
    mine->done = true;
}

static void begin(struct check_io *io, struct device *d, enum device_op op, uint64_t offset, void *buf,
                  uint64_t length)
{
    io->iov = (struct iovec){.iov_base = buf, .iov_len = length};
    io->io = (struct device_io){
        .op = op, .offset = offset, .length = length, .iov = &io->iov, .iovcnt = 1, .done = io_done};
    if (op == DEVICE_FLUSH)
        io->io.iovcnt = 0;
    io->done = false;
    int rc = device_submit(d, &io->io);
    if (rc) {
        io->rc = rc;
        io->done = true;
    }
}

static int wait(struct store_check *c, struct check_io *io)
{
    while (!io->done) {
        if (!c->options.wait)
            loop_run_once(c->env->loop, NS_PER_S);
        else if (c->options.wait(c->options.arg))
            return -ECANCELED;
    }
    /* What a device answers must not be taken for our own reasons to give up. */
    return check_over(io->rc) ? -EIO : io->rc;
}

static int one(struct store_check *c, struct device *d, enum device_op op, uint64_t offset, void *buf,
               uint64_t length)
{
    if (c->options.stop && c->options.stop(c->options.arg))
        return -EINTR;
    begin(&c->io[0], d, op, offset, buf, length);
    return wait(c, &c->io[0]);
}

int check_read(struct store_check *c, struct device *d, uint64_t offset, void *buf, uint64_t length)
{
    return one(c, d, DEVICE_READ, offset, buf, length);
}

int check_write(struct store_check *c, struct device *d, uint64_t offset, const void *buf, uint64_t length)
{
    return one(c, d, DEVICE_WRITE, offset, (void *)(uintptr_t)buf, length);
}

int check_flush(struct store_check *c, struct device *d)
{
    return one(c, d, DEVICE_FLUSH, 0, NULL, 0);
}

void check_read_begin(struct store_check *c, unsigned n, uint64_t offset, void *buf, uint64_t length)
{
    begin(&c->io[n], c->data, DEVICE_READ, offset, buf, length);
}

int check_read_wait(struct store_check *c, unsigned n)
{
    return wait(c, &c->io[n]);
}

int check_list_add(struct check_list *l, size_t item_bytes, const void *item)
{
    if (l->count == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        void *items = realloc(l->items, room * item_bytes);
        if (!items)
            return -ENOMEM;
        l->items = items;
        l->room = room;
    }
    memcpy((uint8_t *)l->items + l->count++ * item_bytes, item, item_bytes);
    return 0;
}
