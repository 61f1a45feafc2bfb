/*
 * cistern.h: libcistern, the public client library of Cistern block volumes. C99, thread-safe unless said
 * otherwise.
 *
 * Two ways to a volume, the same calls: direct (mdc set: this process keeps the tables and speaks to the
 * modules itself) and through a gateway (gateway set: any cistern-vbs; it is all that the host needs to
 * reach).
 *
 * Two ways to run: with a thread of the library's (default: callbacks run on it), or on the caller's thread
 * (own_loop = 1: nothing runs but inside cistern_process; callbacks run there; then all calls must come from
 * that thread).
 *
 * Every function returns 0 or a count on success, -errno on failure; cistern_error gives a sentence for the
 * user.
 */
#ifndef CISTERN_H
#define CISTERN_H

#include <stdint.h>
#include <stddef.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CISTERN_API_VERSION 1

struct cistern;        /* a connection to a cluster */
struct cistern_volume; /* an open volume */

struct cistern_options {
    size_t struct_size;      /* sizeof(struct cistern_options), set by cistern_options_init */
    const char *mdc;         /* "tcp:127.0.0.1:7100,tcp:127.0.0.1:7101": direct */
    const char *gateway;     /* "tcp:127.0.0.1:7200": through gateways (several: failover in order) */
    const char *secret_file; /* the cluster's shared secret */
    const char *host;        /* name of this host; NULL = gethostname(2) */
    int own_loop;
    uint64_t spin_ns;            /* busy-poll this long before sleeping; 0 = never */
    unsigned connect_timeout_ms; /* of cistern_connect and cistern_open; 0 = 10 s */
};
void cistern_options_init(struct cistern_options *options);
/* Reads name = value lines (mdc, gateway, secret-file, host) from path, or from $CISTERN_CONFIG, or
 * /etc/cistern/client.conf when path is NULL. Strings live as long as the process. */
int cistern_options_load(struct cistern_options *options, const char *path);

/* Waits until a metadata controller has given its tables, or a gateway has answered; -ETIMEDOUT otherwise.
 * With own_loop this and cistern_open and cistern_close run the loop meanwhile. Threads do not survive
 * fork(2): connect after it. */
int cistern_connect(const struct cistern_options *options, struct cistern **out);
/* Volumes must be closed. Not from a callback. */
void cistern_disconnect(struct cistern *c);
/* The latest error of the calling thread, as a sentence; never NULL. */
const char *cistern_error(void);

enum {
    CISTERN_READ_ONLY = 1,
    CISTERN_SHARED = 2,    /* other hosts or processes may have it open read-write too */
    CISTERN_TAKE_OVER = 4, /* another process of this host has it: it loses it */
};
/* -EBUSY: another process or host has it open (error says which flag would help); -ENOENT: there is no such
 * volume. Not from a callback, like cistern_close. */
int cistern_open(struct cistern *c, const char *volume, unsigned flags, struct cistern_volume **out);
/* Waits for requests under way. */
int cistern_close(struct cistern_volume *v);
uint64_t cistern_size(const struct cistern_volume *v);         /* bytes, now */
uint32_t cistern_block_bytes(const struct cistern_volume *v);  /* best small I/O: 4096 */
uint32_t cistern_stripe_bytes(const struct cistern_volume *v); /* best large I/O */

/* rc: 0 or -errno. */
typedef void cistern_callback(void *arg, int rc);
/*
 * Asynchronous. offset and total length are multiples of 512 bytes, inside the volume. 0: callback will run
 * once, later; -errno: never. The iovec array is copied; the memory stays the library's until the callback.
 * Order between requests that are under way together is not defined. Every acknowledged write is durable.
 */
int cistern_readv(struct cistern_volume *v, const struct iovec *iov, int iovcnt, uint64_t offset,
                  cistern_callback *cb, void *arg);
int cistern_writev(struct cistern_volume *v, const struct iovec *iov, int iovcnt, uint64_t offset,
                   cistern_callback *cb, void *arg);
/* Done when every request acknowledged before it is durable. */
int cistern_flush(struct cistern_volume *v, cistern_callback *cb, void *arg);
int cistern_discard(struct cistern_volume *v, uint64_t offset, uint64_t length, cistern_callback *cb,
                    void *arg);
int cistern_write_zeroes(struct cistern_volume *v, uint64_t offset, uint64_t length, cistern_callback *cb,
                         void *arg);
/* bitmap: one bit per 4 KiB from offset (a multiple of 4096) on, least significant bit first, 1 = allocated;
 * (length / 4096 + 7) / 8 bytes of the caller's. */
int cistern_extents(struct cistern_volume *v, uint64_t offset, uint64_t length, uint8_t *bitmap,
                    cistern_callback *cb, void *arg);
/* Called on the library's thread (own_loop: in cistern_process) when the size changed (rc 0) or the volume
 * was lost (rc < 0). */
int cistern_on_change(struct cistern_volume *v, cistern_callback *cb, void *arg);

/* Blocking forms for simple programs; not with own_loop, and not from a callback. 0 or -errno. */
int cistern_pread(struct cistern_volume *v, void *buf, size_t len, uint64_t offset);
int cistern_pwrite(struct cistern_volume *v, const void *buf, size_t len, uint64_t offset);

/* own_loop only: runs what is ready, waits up to timeout_ms (-1 = until something happened). Returns how much
 * was handled. */
int cistern_process(struct cistern *c, int timeout_ms);

/* What this connection has sent, received and done on the fabric since its start, as lines of "name value":
 * as many whole lines as fit room (above 0), NUL-terminated. Returns the length. Not from a callback. */
int cistern_counters(struct cistern *c, char *out, size_t room);

/* Memory that the fabric has registered once: I/O from it needs no copy. NULL when there is none left. */
void *cistern_alloc(struct cistern *c, size_t bytes);
void cistern_free(struct cistern *c, void *p, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
