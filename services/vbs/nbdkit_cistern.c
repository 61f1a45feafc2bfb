/*
 * The nbdkit plugin: one Cistern volume as an NBD export (nbdkit-plugin(3), API version 2).
 *
 * One connection to the cluster and one open volume for the process, shared by all its NBD connections.
 * nbdkit forks before it serves, and threads do not survive that, so the library is started in after_fork.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "services/vbs/cistern.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
/* Of the volume, per answer of extents. */
#define EXTENTS_BYTES (64u * 1024 * 1024)
#define UNIT          4096u
#define SECTOR        512u

static struct {
    char *volume, *config, *mdc, *gateway, *secret_file, *host;
    bool shared, take_over, read_only;
    unsigned connect_timeout_ms; /* 0 = the library's own */
} options;
static struct cistern *cluster;
static struct cistern_volume *volume;

/* ---- options ---- */

static int set_text(char **field, char *value)
{
    if (value == NULL) {
        nbdkit_error("out of memory");
        return -1;
    }
    free(*field);
    *field = value;
    return 0;
}

static int set_bool(bool *field, const char *value)
{
    int parsed = nbdkit_parse_bool(value);
    if (parsed < 0)
        return -1;
    *field = parsed != 0;
    return 0;
}

static int set_seconds(unsigned *ms, const char *value)
{
    unsigned seconds;
    if (nbdkit_parse_unsigned("connect-timeout", value, &seconds) < 0)
        return -1;
    if (seconds == 0 || seconds > 86400) {
        nbdkit_error("connect-timeout=%s: give 1 to 86400 seconds", value);
        return -1;
    }
    *ms = seconds * 1000;
    return 0;
}

static int plugin_config(const char *key, const char *value)
{
    /* nbdkit changes its working directory before it serves: paths are made absolute now. */
    if (strcmp(key, "volume") == 0)
        return set_text(&options.volume, strdup(value));
    if (strcmp(key, "config") == 0)
        return set_text(&options.config, nbdkit_absolute_path(value));
    if (strcmp(key, "secret-file") == 0)
        return set_text(&options.secret_file, nbdkit_absolute_path(value));
    if (strcmp(key, "mdc") == 0)
        return set_text(&options.mdc, strdup(value));
    if (strcmp(key, "gateway") == 0)
        return set_text(&options.gateway, strdup(value));
    if (strcmp(key, "host") == 0)
        return set_text(&options.host, strdup(value));
    if (strcmp(key, "shared") == 0)
        return set_bool(&options.shared, value);
    if (strcmp(key, "take-over") == 0)
        return set_bool(&options.take_over, value);
    if (strcmp(key, "read-only") == 0)
        return set_bool(&options.read_only, value);
    if (strcmp(key, "connect-timeout") == 0)
        return set_seconds(&options.connect_timeout_ms, value);
    nbdkit_error("unknown parameter '%s'", key);
    return -1;
}

static int make_options(struct cistern_options *o)
{
    cistern_options_init(o);
    if (cistern_options_load(o, options.config) != 0) {
        nbdkit_error("%s", cistern_error());
        return -1;
    }
    if (options.mdc != NULL || options.gateway != NULL) {
        o->mdc = options.mdc;
        o->gateway = options.gateway;
    }
    if (options.secret_file != NULL)
        o->secret_file = options.secret_file;
    if (options.host != NULL)
        o->host = options.host;
    o->connect_timeout_ms = options.connect_timeout_ms;
    return 0;
}

static int plugin_config_complete(void)
{
    struct cistern_options o;
    if (options.volume == NULL) {
        nbdkit_error("the parameter volume=NAME is missing");
        return -1;
    }
    if (make_options(&o) != 0)
        return -1;
    if ((o.mdc == NULL) == (o.gateway == NULL)) {
        nbdkit_error(
            "give mdc=ADDRESSES (direct) or gateway=ADDRESSES, not both; or config=FILE that names one");
        return -1;
    }
    if (o.secret_file == NULL) {
        nbdkit_error("the parameter secret-file=FILE is missing: the cluster's shared secret");
        return -1;
    }
    return 0;
}

#define PLUGIN_HELP                                                                                          \
    "volume=NAME          (required) the volume to serve\n"                                                  \
    "config=FILE          mdc, gateway, secret-file and host as name = value lines\n"                        \
    "mdc=ADDR,...         metadata controllers: this process speaks to the modules itself\n"                 \
    "gateway=ADDR,...     gateways instead, in order of preference\n"                                        \
    "secret-file=FILE     the cluster's shared secret\n"                                                     \
    "host=NAME            name of this host (default: its own)\n"                                            \
    "shared=true          others may have the volume open for writing too\n"                                 \
    "take-over=true       take it from another process of this host\n"                                       \
    "read-only=true       open it for reading only\n"                                                        \
    "connect-timeout=N    seconds until it gives up reaching the cluster at start (default: 10)"

/* ---- life ---- */

static void plugin_cleanup(void)
{
    if (volume != NULL)
        cistern_close(volume);
    volume = NULL;
    cistern_disconnect(cluster);
    cluster = NULL;
}

static int open_volume(void)
{
    struct cistern_options o;
    unsigned flags = (options.shared ? CISTERN_SHARED : 0u) | (options.take_over ? CISTERN_TAKE_OVER : 0u) |
                     (options.read_only ? CISTERN_READ_ONLY : 0u);
    if (make_options(&o) != 0)
        return -1;
    if (cistern_connect(&o, &cluster) == 0 && cistern_open(cluster, options.volume, flags, &volume) == 0)
        return 0;
    nbdkit_error("%s", cistern_error());
    plugin_cleanup();
    return -1;
}

/* A trial, while whoever started nbdkit still sees its errors: after the fork they go to the system's log.
 * Its thread has ended when this returns. */
static int plugin_get_ready(void)
{
    int rc = open_volume();
    plugin_cleanup();
    return rc;
}

static int plugin_after_fork(void)
{
    return open_volume();
}

static void plugin_unload(void)
{
    plugin_cleanup();
    free(options.volume);
    free(options.config);
    free(options.mdc);
    free(options.gateway);
    free(options.secret_file);
    free(options.host);
}

static void *plugin_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t plugin_get_size(void *handle)
{
    (void)handle;
    return (int64_t)cistern_size(volume);
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    (void)handle;
    *minimum = SECTOR;
    *preferred = cistern_block_bytes(volume);
    *maximum = 32u * 1024 * 1024;
    return 0;
}

static int answer_yes(void *handle)
{
    (void)handle;
    return 1;
}

static int answer_no(void *handle)
{
    (void)handle;
    return 0;
}

static int plugin_can_write(void *handle)
{
    (void)handle;
    return !options.read_only;
}

static int plugin_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE; /* every acknowledged write is durable */
}

static int plugin_can_cache(void *handle)
{
    (void)handle;
    return NBDKIT_CACHE_NONE;
}

/* ---- requests ---- */

struct wait {
    sem_t done;
    int rc;
};

static void on_done(void *arg, int rc)
{
    struct wait *w = arg;
    w->rc = rc;
    sem_post(&w->done);
}

/* NBD has few errors, and what it has not is sent as "invalid argument": that would be the client's fault. */
static int nbd_error(int rc)
{
    switch (-rc) {
    case EPERM:
    case EROFS:
    case EACCES:
        return EPERM;
    case ENOSPC:
    case ENOMEM:
    case EINVAL:
    case ENOTSUP:
    case EOVERFLOW:
        return -rc;
    case ERANGE: /* beyond the end */
        return EINVAL;
    case ESTALE: /* detached, or taken over */
    case ENOENT: /* deleted */
        return ESHUTDOWN;
    default:
        return EIO;
    }
}

static int fail(int rc, const char *what, uint64_t offset, uint64_t length, const char *why)
{
    nbdkit_error("%s of %llu bytes at offset %llu: %s", what, (unsigned long long)length,
                 (unsigned long long)offset, why);
    nbdkit_set_error(nbd_error(rc));
    return -1;
}

static int check(int rc)
{
    if (rc == 0)
        return 0;
    nbdkit_error("%s", cistern_error());
    nbdkit_set_error(nbd_error(rc));
    return -1;
}

static int wait_end(struct wait *w, int submit_rc, const char *what, uint64_t offset, uint64_t length)
{
    int rc = submit_rc;
    while (submit_rc == 0 && sem_wait(&w->done) != 0)
        continue;
    sem_destroy(&w->done);
    if (submit_rc != 0)
        return check(submit_rc);
    rc = w->rc;
    return rc == 0 ? 0 : fail(rc, what, offset, length, strerror(-rc));
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    return check(cistern_pread(volume, buf, count, offset));
}

static int plugin_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    return check(cistern_pwrite(volume, buf, count, offset));
}

static int plugin_flush(void *handle, uint32_t flags)
{
    struct wait w = {.rc = 0};
    (void)handle;
    (void)flags;
    sem_init(&w.done, 0, 0);
    return wait_end(&w, cistern_flush(volume, on_done, &w), "flush", 0, 0);
}

static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct wait w = {.rc = 0};
    (void)handle;
    (void)flags;
    sem_init(&w.done, 0, 0);
    return wait_end(&w, cistern_discard(volume, offset, count, on_done, &w), "trim", offset, count);
}

/* A discarded unit reads as zeroes, and is given back; without leave to trim the zeroes are written. Either
 * is as fast as it gets here. */
static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct wait w = {.rc = 0};
    bool trim = (flags & NBDKIT_FLAG_MAY_TRIM) != 0 && offset % UNIT == 0 && count % UNIT == 0;
    (void)handle;
    sem_init(&w.done, 0, 0);
    int rc = trim ? cistern_discard(volume, offset, count, on_done, &w)
                  : cistern_write_zeroes(volume, offset, count, on_done, &w);
    return wait_end(&w, rc, "zero", offset, count);
}

static int add_runs(struct nbdkit_extents *extents, const uint8_t *bitmap, uint64_t offset, uint64_t end,
                    bool one)
{
    uint64_t units = (end - offset + UNIT - 1) / UNIT;
    for (uint64_t first = 0, next; first < units; first = next) {
        bool written = (bitmap[first / 8] >> (first % 8) & 1) != 0;
        for (next = first + 1; next < units; next++)
            if (((bitmap[next / 8] >> (next % 8) & 1) != 0) != written)
                break;
        uint64_t from = offset + first * UNIT, to = offset + next * UNIT < end ? offset + next * UNIT : end;
        if (nbdkit_add_extent(extents, from, to - from,
                              written ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO) != 0)
            return -1;
        if (one)
            break;
    }
    return 0;
}

static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                          struct nbdkit_extents *extents)
{
    struct wait w = {.rc = 0};
    uint64_t first = offset - offset % UNIT, end = offset + count;
    (void)handle;
    if (end - first > EXTENTS_BYTES)
        end = first + EXTENTS_BYTES;
    uint8_t *bitmap = calloc(1, EXTENTS_BYTES / UNIT / 8);
    if (bitmap == NULL) {
        nbdkit_error("out of memory");
        nbdkit_set_error(ENOMEM);
        return -1;
    }
    uint64_t asked = (end - first + SECTOR - 1) / SECTOR * SECTOR;
    sem_init(&w.done, 0, 0);
    int rc =
        wait_end(&w, cistern_extents(volume, first, asked, bitmap, on_done, &w), "extents", first, asked);
    if (rc == 0)
        rc = add_runs(extents, bitmap, first, end, (flags & NBDKIT_FLAG_REQ_ONE) != 0);
    free(bitmap);
    return rc;
}

static struct nbdkit_plugin plugin = {
    .name = "cistern",
    .longname = "Cistern block volumes",
    .version = CISTERN_VERSION,
    .description = "Serves a volume of a Cistern cluster",
    .unload = plugin_unload,
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help = PLUGIN_HELP,
    .magic_config_key = "volume",
    .get_ready = plugin_get_ready,
    .after_fork = plugin_after_fork,
    .cleanup = plugin_cleanup,
    .open = plugin_open,
    .get_size = plugin_get_size,
    .block_size = plugin_block_size,
    .can_write = plugin_can_write,
    .can_flush = answer_yes,
    .is_rotational = answer_no,
    .can_trim = answer_yes,
    .can_zero = answer_yes,
    .can_fast_zero = answer_yes,
    .can_fua = plugin_can_fua,
    .can_extents = answer_yes,
    .can_multi_conn = answer_yes,
    .can_cache = plugin_can_cache,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .flush = plugin_flush,
    .trim = plugin_trim,
    .zero = plugin_zero,
    .extents = plugin_extents,
};

NBDKIT_REGISTER_PLUGIN(plugin)
