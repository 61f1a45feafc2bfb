/*
 * cistern.c: an external I/O engine for fio, on libcistern: fio's requests go to the cluster with nothing in
 * between. Built by build.py against the headers of the very fio that loads it; not part of the normal build.
 *
 * fio --ioengine=external:.../fio-cistern.so --volume=NAME [--config=FILE] [--spin=NANOSECONDS] ...
 *
 * Each job is a process with a connection and an open volume of its own, and runs libcistern's loop itself
 * (own_loop): requests go out in queue, answers come in getevents. Several jobs on one volume need --shared.
 * Every write that fio sees completed is durable, so a sync has nothing left to do; it still asks.
 */
#include <errno.h>
#include <stdlib.h>

#include "fio.h"
#include "optgroup.h"

#include "services/vbs/cistern.h"

struct engine_options {
    void *pad; /* fio takes offset 0 for "no such option" */
    char *volume, *config;
    unsigned spin_ns, shared;
};

static struct fio_option options[] = {
    {.name = "volume",
     .lname = "Cistern volume",
     .type = FIO_OPT_STR_STORE,
     .off1 = offsetof(struct engine_options, volume),
     .help = "name of the volume",
     .category = FIO_OPT_C_ENGINE,
     .group = FIO_OPT_G_INVALID},
    {.name = "config",
     .lname = "Cistern client.conf",
     .type = FIO_OPT_STR_STORE,
     .off1 = offsetof(struct engine_options, config),
     .help = "file that says where the cluster is (default: $CISTERN_CONFIG, /etc/cistern/client.conf)",
     .category = FIO_OPT_C_ENGINE,
     .group = FIO_OPT_G_INVALID},
    {.name = "spin",
     .lname = "Cistern spin",
     .type = FIO_OPT_INT,
     .off1 = offsetof(struct engine_options, spin_ns),
     .def = "0",
     .help = "poll for so many nanoseconds before sleeping",
     .category = FIO_OPT_C_ENGINE,
     .group = FIO_OPT_G_INVALID},
    {.name = "shared",
     .lname = "Cistern shared",
     .type = FIO_OPT_STR_SET,
     .off1 = offsetof(struct engine_options, shared),
     .help = "other processes may have the volume open too",
     .category = FIO_OPT_C_ENGINE,
     .group = FIO_OPT_G_INVALID},
    {.name = NULL},
};

/* Of a job; td->io_ops_data. */
struct engine {
    struct cistern *connection;
    struct cistern_volume *volume;
    struct io_u **done; /* answered and not yet given to fio */
    unsigned done_count;
    size_t memory_bytes; /* of td->orig_buffer, from cistern_alloc; 0: from malloc */
};

static int engine_open(struct thread_data *td, struct engine *e)
{
    const struct engine_options *o = td->eo;
    struct cistern_options c;
    if (o->volume == NULL) {
        log_err("fio: cistern: --volume is missing\n");
        return 1;
    }
    cistern_options_init(&c);
    int rc = cistern_options_load(&c, o->config);
    c.own_loop = 1;
    c.spin_ns = o->spin_ns;
    if (rc == 0)
        rc = cistern_connect(&c, &e->connection);
    if (rc == 0)
        rc = cistern_open(e->connection, o->volume, o->shared ? CISTERN_SHARED : 0, &e->volume);
    if (rc == 0)
        return 0;
    log_err("fio: cistern: volume %s: %s\n", o->volume, cistern_error());
    return 1;
}

static void engine_close(struct engine *e)
{
    if (e->volume != NULL)
        cistern_close(e->volume);
    if (e->connection != NULL)
        cistern_disconnect(e->connection);
    e->volume = NULL;
    e->connection = NULL;
}

/* In fio's first process, before the job has one of its own: finds the size, and leaves nothing open. */
static int engine_setup(struct thread_data *td)
{
    struct engine e = {0};
    if (td->o.nr_files == 0 || td->files_index == 0) {
        add_file(td, "cistern", 0, 0);
        td->o.nr_files = td->o.nr_files ? td->o.nr_files : 1;
        td->o.open_files++;
    }
    const int rc = engine_open(td, &e);
    if (rc == 0)
        td->files[0]->real_file_size = cistern_size(e.volume);
    engine_close(&e);
    return rc;
}

static int engine_init(struct thread_data *td)
{
    struct engine *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return 1;
    td->io_ops_data = e;
    e->done = calloc(td->o.iodepth, sizeof(struct io_u *));
    return e->done == NULL ? 1 : engine_open(td, e);
}

static void engine_cleanup(struct thread_data *td)
{
    struct engine *e = td->io_ops_data;
    if (e == NULL)
        return;
    engine_close(e);
    free(e->done);
    free(e);
}

static void on_answer(void *arg, int rc)
{
    struct io_u *io_u = arg;
    struct engine *e = io_u->engine_data;
    io_u->error = (unsigned)-rc;
    e->done[e->done_count++] = io_u;
}

static enum fio_q_status engine_queue(struct thread_data *td, struct io_u *io_u)
{
    struct engine *e = td->io_ops_data;
    const struct iovec iov = {.iov_base = io_u->xfer_buf, .iov_len = io_u->xfer_buflen};
    int rc;
    fio_ro_check(td, io_u);
    io_u->engine_data = e;
    switch (io_u->ddir) {
    case DDIR_READ:
        rc = cistern_readv(e->volume, &iov, 1, io_u->offset, on_answer, io_u);
        break;
    case DDIR_WRITE:
        rc = cistern_writev(e->volume, &iov, 1, io_u->offset, on_answer, io_u);
        break;
    case DDIR_TRIM:
        rc = cistern_discard(e->volume, io_u->offset, io_u->xfer_buflen, on_answer, io_u);
        break;
    case DDIR_SYNC:
    case DDIR_DATASYNC:
        rc = cistern_flush(e->volume, on_answer, io_u);
        break;
    default:
        rc = -EINVAL;
    }
    if (rc == 0)
        return FIO_Q_QUEUED;
    io_u->error = (unsigned)-rc;
    return FIO_Q_COMPLETED;
}

static int engine_getevents(struct thread_data *td, unsigned int min, unsigned int max,
                            const struct timespec *limit)
{
    struct engine *e = td->io_ops_data;
    const int timeout_ms = limit == NULL ? -1 : (int)(limit->tv_sec * 1000 + limit->tv_nsec / 1000000);
    (void)max; /* no more than iodepth can be under way, and fio asks for all of them */
    if (e->done_count == 0 && min == 0)
        cistern_process(e->connection, 0);
    while (e->done_count < min) {
        const int rc = cistern_process(e->connection, timeout_ms);
        if (rc < 0 || (limit != NULL && e->done_count < min))
            break;
    }
    return (int)e->done_count;
}

/* fio asks for as many as getevents has told, each once. */
static struct io_u *engine_event(struct thread_data *td, int event)
{
    struct engine *e = td->io_ops_data;
    (void)event;
    return e->done_count > 0 ? e->done[--e->done_count] : NULL;
}

/* Memory that the fabric has registered: over RDMA nothing is copied or registered for a request. */
static int engine_memory_alloc(struct thread_data *td, size_t bytes)
{
    struct engine *e = td->io_ops_data;
    td->orig_buffer = cistern_alloc(e->connection, bytes);
    e->memory_bytes = td->orig_buffer != NULL ? bytes : 0;
    if (td->orig_buffer == NULL)
        td->orig_buffer = malloc(bytes);
    return td->orig_buffer == NULL;
}

static void engine_memory_free(struct thread_data *td)
{
    struct engine *e = td->io_ops_data;
    if (e->memory_bytes > 0)
        cistern_free(e->connection, td->orig_buffer, e->memory_bytes);
    else
        free(td->orig_buffer);
    td->orig_buffer = NULL;
}

static int engine_file(struct thread_data *td, struct fio_file *f)
{
    (void)td;
    (void)f;
    return 0;
}

struct ioengine_ops ioengine = {
    .name = "cistern",
    .version = FIO_IOOPS_VERSION,
    .flags = FIO_DISKLESSIO | FIO_NOEXTEND | FIO_NODISKUTIL,
    .setup = engine_setup,
    .init = engine_init,
    .cleanup = engine_cleanup,
    .queue = engine_queue,
    .getevents = engine_getevents,
    .event = engine_event,
    .open_file = engine_file,
    .close_file = engine_file,
    .invalidate = engine_file,
    .iomem_alloc = engine_memory_alloc,
    .iomem_free = engine_memory_free,
    .options = options,
    .option_struct_size = sizeof(struct engine_options),
};
