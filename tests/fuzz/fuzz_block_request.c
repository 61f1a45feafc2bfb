/*
 * fuzz_block_request.c: block requests of any content to a module that serves. The input is a list of
 * requests {method, place, length of the body, patches, {offset, value}...}: a right request whose bytes were
 * changed, cut off or padded, its payload as the body says, shorter, or with a wrong CRC. The module answers
 * each or ends the connection, and serves on; what it answers OK must be what a module may do; nothing
 * outside of the volume is ever written.
 */
#include "tests/unit/rwm_fixture.h"

#include <stdlib.h>

#include "common/crc.h"
#include "common/log.h"
#include "common/rng.h"
#include "tests/fuzz/fuzz.h"

enum { REQUESTS_MAX = 10, PAYLOAD_MAX = 1 << 20, LAYER = 1 };

static _Alignas(4096) uint8_t payload[PAYLOAD_MAX];
static struct asked {
    struct rpc_call call;
    struct fabric_sge sge;
    uint8_t body[256];
    bool done;
    uint32_t status;
} asked;

static void no_log(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static void on_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct asked *a = container_of(call, struct asked, call);
    a->done = true;
    a->status = result->rc ? STATUS_DISCONNECTED : result->status;
    MUST(result->rc == 0 || result->rc == -ENOTCONN);
}

/* What an OK means. */
static void judge(struct fix *f, uint16_t method, const struct block_request *b, uint32_t body_len)
{
    if (asked.status != STATUS_OK || method < BLOCK_METHOD_READ || method > BLOCK_METHOD_EXTENTS)
        return;
    MUST(body_len >= sizeof(*b)); /* a later version may have more to say */
    MUST(b->pool == 1 && b->incarnation == f->incarnation && b->generation == 1);
    const struct uuid volume = fake_uuid(1);
    MUST(uuid_eq(&b->volume, &volume));
    MUST(b->length > 0 && b->offset % SECTOR_BYTES == 0 && b->length % SECTOR_BYTES == 0);
    MUST(b->offset < FIX_VOLUME_BYTES && b->length <= FIX_VOLUME_BYTES - b->offset);
    MUST(b->offset / FAKE_STRIPE == (b->offset + b->length - 1) / FAKE_STRIPE);
    MUST(b->partition ==
         placement_partition(placement_hash(1, b->offset / FAKE_STRIPE), FAKE_POOL_PARTITIONS));
    MUST(b->epoch == fake_mdc_epoch(f->mdc, b->partition));
    MUST(method == BLOCK_METHOD_READ || method == BLOCK_METHOD_EXTENTS || b->turn < BLOCK_TURN_MAX);
}

static void ask(struct fix *f, struct fix_conn *c, uint16_t method, uint32_t body_len, unsigned how)
{
    struct block_request b;
    memcpy(&b, asked.body, sizeof(b));
    uint32_t bytes = b.length <= PAYLOAD_MAX && b.length ? b.length : 4096;
    if (how & 1)
        bytes = bytes > 512 ? bytes - 512 : bytes + 512;
    asked.call =
        (struct rpc_call){.method = method, .body = asked.body, .body_len = body_len, .done = on_done};
    asked.sge = (struct fabric_sge){.base = payload, .len = bytes};
    asked.done = false;
    if ((method == BLOCK_METHOD_WRITE) != ((how & 2) != 0)) {
        asked.call.source = &asked.sge;
        asked.call.source_count = 1;
        asked.call.source_crc = crc32c(payload, bytes) + ((how & 4) != 0);
    } else if ((method == BLOCK_METHOD_READ) != ((how & 2) != 0)) {
        asked.call.sink = &asked.sge;
        asked.call.sink_count = 1;
    }
    if (rpc_call_start(c->peer, &asked.call))
        return;
    /* A request that knows a later table waits for it, for ever: its connection's end ends it. */
    for (unsigned i = 0; i < 300 && !asked.done; i++)
        fix_run(f, NS_PER_MS);
    if (!asked.done) {
        fix_close(c);
        fix_run(f, 10 * NS_PER_MS);
        return;
    }
    judge(f, method, &b, body_len);
}

static void serves_on(struct fix *f)
{
    struct fix_conn c;
    MUST(f->failed_rc == 0);
    fix_open(f, &c);
    struct fix_req r;
    memset(payload, 7, 8192);
    fix_request(f, &r, 12288, 8192);
    r.body.turn = BLOCK_TURN_MAX - 1;
    MUST(fix_do(&c, &r, BLOCK_METHOD_WRITE, payload) == STATUS_OK);
    memset(payload, 0, 8192);
    MUST(fix_io(&c, BLOCK_METHOD_READ, 12288, 8192, payload) == STATUS_OK && payload[8191] == 7);
    fix_close(&c);
    for (unsigned i = 0; i < FAKE_BLOCKS; i++) {
        const struct fake_block *b = &f->medium->blocks[i];
        MUST(!b->used || b->key.block < FIX_VOLUME_BYTES / BLOCK_BYTES);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fix f;
    struct fix_conn c = {.peer = NULL};
    if (size < 5)
        return 0;
    log_set_sink(no_log, NULL);
    memset(payload, (int)size, sizeof(payload));
    fix_init(&f, 1);
    for (unsigned n = 0; n < REQUESTS_MAX && size >= 5; n++) {
        uint16_t method = (uint16_t)(data[0] < 0xf0 ? data[0] % 8 : data[0] << 8);
        uint32_t body_len = data[2] < 0xc0 ? (uint32_t)sizeof(struct block_request) : data[2];
        unsigned patches = data[3] % 8, how = data[4];
        struct fix_req r;
        if (!c.up)
            fix_open(&f, &c);
        fix_request(&f, &r, (data[1] >> 2) * 32768ull, (1u + (data[1] & 3)) * 8192);
        memset(asked.body, 0, sizeof(asked.body));
        memcpy(asked.body, &r.body, sizeof(r.body));
        data += 5;
        size -= 5;
        for (; patches && size >= 2; patches--, data += 2, size -= 2)
            asked.body[data[0] % sizeof(asked.body)] = data[1];
        ask(&f, &c, method, body_len, how < 0xc0 ? 0 : how);
    }
    if (c.peer)
        fix_close(&c);
    serves_on(&f);
    fix_end(&f);
    return 0;
}

size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    struct rng rng;
    rng_seed(&rng, seed);
    size_t at = 0;
    for (uint64_t n = 1 + rng_below(&rng, REQUESTS_MAX); n && at + 5 + 16 <= cap; n--) {
        uint8_t patches = rng_chance(&rng, 1, 2) ? 0 : (uint8_t)rng_below(&rng, 8);
        rng_fill(&rng, out + at, 5);
        out[at] = (uint8_t)(1 + rng_below(&rng, 6));
        out[at + 3] = patches;
        at += 5;
        for (; patches; patches--, at += 2) {
            out[at] = (uint8_t)rng_below(&rng, sizeof(struct block_request));
            out[at + 1] = rng_chance(&rng, 1, 2) ? (uint8_t)rng_u64(&rng) : (uint8_t)rng_below(&rng, 3);
        }
    }
    return at;
}
