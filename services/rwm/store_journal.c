/*
 * store_journal.c: batches: what was submitted within one round of the loop goes to the journal in one write.
 *
 * Several batches are under way at once, each write beside its requests' direct writes; one flush serves all
 * that were written before it began. They become durable, and their requests are answered, strictly in order.
 */
#include "services/rwm/store_internal.h"

static void batch_step(struct batch *b);

int journal_create(struct store *s)
{
    struct journal *j = &s->journal;
    list_init(&j->flight);
    j->batches = calloc(BATCHES_IN_FLIGHT, sizeof j->batches[0]);
    j->buffers = aligned_alloc(4096, (size_t)BATCHES_IN_FLIGHT * BATCH_BUFFER_BYTES);
    if (!j->batches || !j->buffers)
        return -ENOMEM;
    for (unsigned i = 0; i < BATCHES_IN_FLIGHT; i++) {
        j->batches[i].s = s;
        j->batches[i].buffer = j->buffers + (size_t)i * BATCH_BUFFER_BYTES;
        list_init(&j->batches[i].link);
        list_init(&j->batches[i].requests);
    }
    return 0;
}

void journal_destroy(struct store *s)
{
    free(s->journal.batches);
    free(s->journal.buffers);
}

uint64_t batch_bytes(const struct journal *j, uint32_t used, uint32_t units)
{
    return round_up(used, j->align) + (uint64_t)units * UNIT_BYTES;
}

uint64_t journal_place(const struct journal *j, uint64_t head, uint64_t bytes)
{
    uint64_t at = head % j->bytes;
    return at + bytes > j->bytes ? head - at + j->bytes : head;
}

static bool fits(const struct journal *j, uint64_t bytes)
{
    return journal_place(j, j->head, bytes) + bytes - j->tail <= j->bytes;
}

static struct batch *batch_begin(struct store *s)
{
    struct journal *j = &s->journal;
    for (unsigned i = 0; i < BATCHES_IN_FLIGHT; i++) {
        struct batch *b = &j->batches[i];
        if (b->state != BATCH_FREE)
            continue;
        b->state = BATCH_OPEN;
        b->used = sizeof(struct disk_batch);
        b->units = b->records = b->ios = b->flushes = 0;
        b->data_written = b->journal_written = false;
        b->rc = 0;
        b->seq = j->next_seq;
        j->open = b;
        return b;
    }
    return NULL;
}

struct batch *journal_room(struct store *s, uint32_t bytes, uint32_t units)
{
    struct journal *j = &s->journal;
    struct batch *b = j->open;
    if (b && (b->used + bytes > BATCH_BUFFER_BYTES || b->units + units > BATCH_UNITS)) {
        journal_submit(s);
        b = NULL;
    }
    uint32_t used = b ? b->used : (uint32_t)sizeof(struct disk_batch);
    if (!fits(j, batch_bytes(j, used + bytes, (b ? b->units : 0) + units))) {
        checkpoint_want(s);
        return NULL;
    }
    return b ? b : batch_begin(s);
}

void journal_append(struct batch *b, struct req *r, const void *record, uint32_t bytes)
{
    struct store *s = b->s;
    r->record_at = b->used;
    memcpy(b->buffer + b->used, record, bytes);
    b->used += bytes;
    b->records++;
    for (uint32_t u = 0; u < UNITS_PER_BLOCK; u++) {
        if (r->inlined & (1u << u))
            b->iov[1 + b->units++] =
                (struct iovec){.iov_base = slab_at(&s->units, r->units[u]), .iov_len = UNIT_BYTES};
    }
    r->batch = b;
    list_push_back(&b->requests, &r->link);
}

static void batch_seal(struct store *s, struct batch *b)
{
    struct journal *j = &s->journal;
    uint32_t padded = (uint32_t)round_up(b->used, j->align);
    struct disk_batch *h = (struct disk_batch *)(void *)b->buffer;
    memset(b->buffer + b->used, 0, padded - b->used);
    *h = (struct disk_batch){.magic = STORE_BATCH_MAGIC,
                             .store = s->super.store,
                             .salt = j->salt,
                             .start_counter = j->start_counter,
                             .seq = b->seq,
                             .mark = j->durable_seq,
                             .pos = b->pos,
                             .prev_crc = j->last_crc,
                             .record_bytes = b->used - (uint32_t)sizeof *h,
                             .record_count = b->records,
                             .payload_units = b->units};
    h->crc = b->crc = crc32c(b->buffer, b->used);
    b->iov[0] = (struct iovec){.iov_base = b->buffer, .iov_len = padded};
}

static void batch_written(struct sio *sio, int rc)
{
    struct batch *b = container_of(sio, struct batch, sio);
    b->ios--;
    b->journal_written = true;
    if (rc && !b->rc)
        b->rc = rc;
    batch_step(b);
}

void batch_data_done(struct batch *b, int rc)
{
    b->ios--;
    if (rc && !b->rc)
        b->rc = rc;
    if (b->state != BATCH_OPEN)
        batch_step(b);
    else if (rc)
        store_break(b->s, rc, "writing data");
}

void journal_submit(struct store *s)
{
    struct journal *j = &s->journal;
    struct batch *b = j->open;
    if (!b || b->records == 0)
        return;
    j->open = NULL;
    list_push_back(&j->flight, &b->link);
    b->state = BATCH_WRITING;
    if (s->broken) {
        batch_step(b);
        return;
    }
    uint64_t bytes = batch_bytes(j, b->used, b->units);
    b->pos = journal_place(j, j->head, bytes);
    b->end = b->pos + bytes;
    MUST(b->end - j->tail <= j->bytes);
    batch_seal(s, b);
    j->head = b->end;
    j->last_crc = b->crc;
    j->next_seq = b->seq + 1;
    s->stats.batches++;
    b->ios++;
    sio_init(&b->sio, s, batch_written);
    sio_submit(&b->sio, j->device, DEVICE_WRITE, j->offset + b->pos % j->bytes, b->iov, 1 + (int)b->units,
               bytes);
    if (j->head - j->tail > j->bytes / 2)
        checkpoint_want(s);
}

static void batch_flushed(struct batch *b, int rc)
{
    b->flushes--;
    if (rc && !b->rc)
        b->rc = rc;
    batch_step(b);
}

static void data_flushed(struct flush_wait *w, int rc)
{
    batch_flushed(container_of(w, struct batch, wait_data), rc);
}

static void journal_flushed(struct flush_wait *w, int rc)
{
    batch_flushed(container_of(w, struct batch, wait_journal), rc);
}

static void batch_flush(struct batch *b)
{
    struct store *s = b->s;
    b->state = BATCH_FLUSHING;
    b->flushes = 1; /* held until both are asked for */
    b->wait_data.fn = data_flushed;
    b->wait_journal.fn = journal_flushed;
    list_init(&b->wait_data.link);
    list_init(&b->wait_journal.link);
    if (b->data_written && s->data != s->journal.device) {
        b->flushes++;
        flush_request(s, &s->flush_data, &b->wait_data);
    }
    b->flushes++;
    flush_request(s, &s->flush_journal, &b->wait_journal);
    batch_flushed(b, 0);
}

static void batch_step(struct batch *b)
{
    if (b->ios || b->flushes)
        return;
    if (b->rc)
        store_break(b->s, b->rc, "writing the journal");
    if (b->state == BATCH_WRITING && !b->s->broken) {
        batch_flush(b);
        return;
    }
    b->state = BATCH_DONE;
    journal_step(b->s);
}

static void batch_finish(struct store *s, struct batch *b)
{
    struct journal *j = &s->journal;
    int rc = s->broken;
    if (!rc) {
        j->durable_seq = b->seq;
        j->durable_pos = b->end;
        j->durable_crc = b->crc;
        witness_wake(s);
    }
    list_remove(&b->link);
    while (!list_empty(&b->requests)) {
        struct req *r = list_entry(list_pop_front(&b->requests), struct req, link);
        if (rc == 0)
            apply_request(r);
        req_finish(r, rc);
    }
    b->state = BATCH_FREE;
    store_kick(s);
}

void journal_step(struct store *s)
{
    struct list *flight = &s->journal.flight;
    while (!list_empty(flight)) {
        struct batch *b = list_entry(flight->next, struct batch, link);
        if (b->state != BATCH_DONE)
            return;
        batch_finish(s, b);
    }
}
