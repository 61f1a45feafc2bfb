/*
 * store_image.h: a small formatted image that holds blocks, records and a journal to replay, and patches over
 * it: {kind, offset (4 bytes), length, bytes}. CRCs of what was patched are set right again, or nothing
 * behind them would ever be reached; so are the links of the journal's chain. For the fuzz targets of the
 * store; one of them a program.
 */
#ifndef CISTERN_TESTS_FUZZ_STORE_IMAGE_H
#define CISTERN_TESTS_FUZZ_STORE_IMAGE_H

#include <stdlib.h>
#include <string.h>

#include "common/crc.h"
#include "common/device/device_ram.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/rng.h"
#include "services/rwm/store.h"
#include "services/rwm/store_layout.h"

#define IMAGE_BYTES (4u * 1024u * 1024u)

static struct loop *loop;
static struct rng rng;
static struct env env;
static uint8_t *image, *patched;
static struct medium *pristine;
static struct disk_super super;
static struct store *opened;
static bool done;

static void no_log(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static void on_done(void *arg, int rc)
{
    (void)arg;
    (void)rc;
    done = true;
}

static void on_open(void *arg, struct store *s, const struct store_open_report *report)
{
    (void)arg;
    (void)report;
    opened = s;
    done = true;
}

static void on_op(struct store_op *op, int rc)
{
    (void)op;
    (void)rc;
    done = true;
}

static void run(struct device *dev)
{
    for (unsigned idle = 0; !done && idle < 4;) {
        unsigned n = loop_run_once(loop, 0) + device_ram_pump(dev, 64);
        idle = n ? 0 : idle + 1;
    }
    MUST(done);
}

static void request(struct device *dev, int (*fn)(struct store *, struct store_op *), struct store_key key,
                    uint32_t first, uint32_t count)
{
    static _Alignas(UNIT_BYTES) uint8_t buf[BLOCK_BYTES];
    uint32_t crcs[UNITS_PER_BLOCK];
    struct iovec iov = {.iov_base = buf, .iov_len = (size_t)count * UNIT_BYTES};
    struct store_op op = {.key = key,
                          .first_unit = first,
                          .unit_count = count,
                          .version = {1, 9},
                          .iov = &iov,
                          .iovcnt = 1,
                          .unit_crcs = crcs,
                          .done = on_op};
    memset(buf, (int)key.block, sizeof buf);
    for (uint32_t i = 0; i < count; i++)
        crcs[i] = crc32c(buf, UNIT_BYTES);
    done = false;
    if (fn(opened, &op) == 0)
        run(dev);
}

static void make_image(void)
{
    const struct store_format_options o = {
        .journal_bytes = MIB, .max_partitions = 4, .max_volumes = 4, .max_turns = 4};
    log_set_sink(no_log, NULL);
    MUST(loop_create_real(NULL, &loop) == 0);
    rng_seed(&rng, 1);
    env = (struct env){.loop = loop, .rng = &rng, .name = "fuzz"};
    image = malloc(IMAGE_BYTES);
    struct device *dev = device_ram_create(IMAGE_BYTES, 4096, 512, 0);
    store_format(&env, dev, NULL, &o, on_done, NULL);
    run(dev);
    for (unsigned round = 0; round < 2; round++) {
        done = false;
        store_open(&env, dev, NULL, NULL, on_open, NULL);
        run(dev);
        for (uint64_t b = 0; b < 8; b++) {
            struct store_key key = {.layer = 1, .block = b, .hash = b};
            request(dev, store_write, key, 0, b % 2 ? 32 : 2);
            request(dev, store_write, key, 1, 2);
        }
        request(dev, store_clear, (struct store_key){.layer = 1, .block = 3, .hash = 3}, 0, 32);
        request(dev, store_remove, (struct store_key){.layer = 1, .block = 4, .hash = 4}, 0, 1);
        if (round == 0) {
            done = false;
            store_close(opened, on_done, NULL);
            run(dev);
        }
        device_ram_kill(dev, 1);
        store_destroy(opened);
    }
    medium_read(device_ram_medium(dev), 0, image, IMAGE_BYTES);
    memcpy(&super, image, sizeof super);
    pristine = medium_clone(device_ram_medium(dev));
    patched = malloc(IMAGE_BYTES);
    MUST(patched);
    device_destroy(dev);
}

/* Pages: CRC behind the magic in superblocks (byte 8), at byte 4 in metadata. */
static void reseal_page(uint8_t *page, size_t crc_at)
{
    memset(page + crc_at, 0, 4);
    uint32_t crc = crc32c(page, STORE_PAGE_BYTES);
    memcpy(page + crc_at, &crc, sizeof crc);
}

static void reseal_batches(uint8_t *m)
{
    uint64_t align = super.journal_align;
    for (uint64_t at = super.journal_offset; at < super.journal_offset + super.journal_bytes; at += align) {
        struct disk_batch h;
        memcpy(&h, m + at, sizeof h);
        if (h.magic != STORE_BATCH_MAGIC || h.record_bytes > BATCH_BUFFER_BYTES)
            continue;
        h.crc = 0;
        memcpy(m + at, &h, sizeof h);
        h.crc = crc32c(m + at, sizeof h + h.record_bytes);
        memcpy(m + at, &h, sizeof h);
    }
}

/* From the tail on, as far as it looks like one: each batch names the CRC of the one before. */
static void reseal_chain(uint8_t *m)
{
    uint64_t pos = super.tail_pos % super.journal_bytes, seq = super.tail_seq;
    uint32_t prev = super.tail_prev_crc;
    for (;; seq++) {
        struct disk_batch h;
        uint8_t *at = m + super.journal_offset + pos;
        if (pos + BATCH_MAX_BYTES > super.journal_bytes)
            return;
        memcpy(&h, at, sizeof h);
        if (h.magic != STORE_BATCH_MAGIC || h.seq != seq || h.record_bytes > BATCH_BUFFER_BYTES - sizeof h ||
            h.payload_units > BATCH_UNITS)
            return;
        h.prev_crc = prev;
        h.crc = 0;
        memcpy(at, &h, sizeof h);
        prev = h.crc = crc32c(at, sizeof h + h.record_bytes);
        memcpy(at, &h, sizeof h);
        pos +=
            round_up(sizeof h + h.record_bytes, super.journal_align) + (uint64_t)h.payload_units * UNIT_BYTES;
    }
}

static size_t patch(uint8_t *m, const uint8_t *data, size_t size)
{
    uint64_t pages = (super.meta_b - super.meta_a) / STORE_PAGE_BYTES;
    uint32_t where;
    memcpy(&where, data + 1, sizeof where);
    uint64_t base, span;
    switch (data[0] % 4) {
    case 0:
        base = STORE_SUPER_0;
        span = 256;
        break;
    case 1:
        base = super.meta_a;
        span = 2 * pages * STORE_PAGE_BYTES;
        break;
    case 2:
        base = super.journal_offset + super.tail_pos % super.journal_bytes;
        span = 128 * KIB;
        break;
    default:
        base = 0;
        span = IMAGE_BYTES;
        break;
    }
    uint64_t at = base + where % span;
    size_t n = min_u64(min_u64(data[5], size - 6), IMAGE_BYTES - min_u64(at, IMAGE_BYTES));
    memcpy(m + at, data + 6, n);
    return 6 + min_u64(data[5], size - 6);
}

static void reseal(uint8_t *m)
{
    uint64_t pages = 2 * (super.meta_b - super.meta_a) / STORE_PAGE_BYTES;
    for (uint64_t p = 0; p < pages; p++)
        reseal_page(m + super.meta_a + p * STORE_PAGE_BYTES, 4);
    reseal_page(m + STORE_SUPER_0, 8);
    reseal_page(m + STORE_SUPER_1, 8);
    reseal_batches(m);
    reseal_chain(m);
}

/* A device with the image as the input has it; NULL: the input is too short. */
static struct device *image_device(const uint8_t *data, size_t size)
{
    if (!image)
        make_image();
    if (size < 7)
        return NULL;
    uint8_t *m = patched;
    memcpy(m, image, IMAGE_BYTES);
    bool seal = data[0] & 1;
    data++;
    size--;
    while (size >= 6) {
        size_t used = patch(m, data, size);
        data += used;
        size -= used;
    }
    if (seal)
        reseal(m);
    struct device *dev = device_ram_create(IMAGE_BYTES, 4096, 512, 0);
    medium_restore(device_ram_medium(dev), pristine);
    for (size_t at = 0; at < IMAGE_BYTES; at += STORE_PAGE_BYTES) {
        if (memcmp(m + at, image + at, STORE_PAGE_BYTES) != 0)
            MUST(medium_write(device_ram_medium(dev), at, m + at, STORE_PAGE_BYTES, true) == 0);
    }
    return dev;
}

/* A few patches: small numbers and single bits, mostly resealed. */
static size_t image_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    struct rng r;
    rng_seed(&r, seed);
    size_t at = 0;
    out[at++] = rng_chance(&r, 7, 8);
    for (uint64_t n = 1 + rng_below(&r, 6); n && at + 6 + 32 <= cap; n--) {
        uint8_t length = (uint8_t)(1 + rng_below(&r, 12));
        uint32_t where = (uint32_t)rng_u64(&r);
        out[at] = (uint8_t)rng_below(&r, 4);
        memcpy(out + at + 1, &where, sizeof where);
        out[at + 5] = length;
        for (unsigned i = 0; i < length; i++)
            out[at + 6 + i] = rng_chance(&r, 1, 2) ? (uint8_t)rng_below(&r, 4) : (uint8_t)rng_u64(&r);
        at += 6u + length;
    }
    return at;
}

#endif
