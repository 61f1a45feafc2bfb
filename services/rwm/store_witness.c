/*
 * store_witness.c: a page that says how far the journal was durable.
 *
 * Batches say of those before them that they were durable (their mark); of the last ones nobody does, so rot
 * in them looks like a torn write, and a journal device that was put back from a copy looks like one that
 * ends earlier. So a while after the last batch a page outside the ring notes its seq: on the data device,
 * and on the journal's if it has one, because either of them may be put back. It is written to two places by
 * turns, so that a torn one leaves the one before. It is only ever too old, never too new: what it names was
 * durable when it was written, so a journal that ends before it has lost something.
 */
#include "services/rwm/store_internal.h"

#define WITNESS_IDLE_NS (20 * NS_PER_MS) /* nothing became durable for so long */
#define WITNESS_BUSY_NS NS_PER_S         /* while something does all the time */

static void witness_written(struct sio *sio, int rc);

static void witness_begin(struct store *s)
{
    struct witness *w = &s->witness;
    *w->page = (struct disk_witness){.magic = STORE_WITNESS_MAGIC,
                                     .format = STORE_FORMAT,
                                     .seq = s->journal.durable_seq,
                                     .store = s->super.store,
                                     .start_counter = s->super.start_counter,
                                     .salt = s->super.salt};
    witness_seal(w->page);
    w->rc = 0;
    w->busy = s->journal.device == s->data ? 1 : 2;
    for (unsigned i = 0; i < (s->journal.device == s->data ? 1u : 2u); i++) {
        sio_init(&w->sio[i], s, witness_written);
        sio_rw(&w->sio[i], i ? s->journal.device : s->data, DEVICE_WRITE,
               w->copy ? STORE_WITNESS_1 : STORE_WITNESS_0, w->page, STORE_PAGE_BYTES);
    }
    w->copy ^= 1;
}

static void witness_end(struct store *s, int rc)
{
    struct witness *w = &s->witness;
    if (rc)
        w->rc = rc;
    if (--w->busy)
        return;
    if (w->rc) {
        store_break(s, w->rc, "writing the witness");
        return;
    }
    w->written = w->page->seq;
    w->written_ns = loop_now_ns(s->env->loop);
    if (s->journal.durable_seq > w->written)
        witness_wake(s);
    if (s->closing)
        store_kick(s);
}

static void witness_flushed_data(struct flush_wait *wait, int rc)
{
    witness_end(container_of(wait, struct store, witness.wait[0]), rc);
}

static void witness_flushed_journal(struct flush_wait *wait, int rc)
{
    witness_end(container_of(wait, struct store, witness.wait[1]), rc);
}

static void witness_written(struct sio *sio, int rc)
{
    struct store *s = sio->s;
    struct witness *w = &s->witness;
    unsigned i = sio == &w->sio[1];
    if (rc) {
        witness_end(s, rc);
        return;
    }
    w->wait[i].fn = i ? witness_flushed_journal : witness_flushed_data;
    list_init(&w->wait[i].link);
    flush_request(s, i ? &s->flush_journal : &s->flush_data, &w->wait[i]);
}

static void witness_timer(struct loop_timer *timer)
{
    struct witness *w = container_of(timer, struct witness, timer);
    struct store *s = container_of(w, struct store, witness);
    const struct journal *j = &s->journal;
    if (s->broken || s->closing || w->busy || j->tail == j->durable_pos)
        return; /* the last: the superblock says it */
    bool idle = w->seen == j->durable_seq;
    w->seen = j->durable_seq;
    if (idle || loop_now_ns(s->env->loop) - w->written_ns >= WITNESS_BUSY_NS)
        witness_begin(s);
    else
        loop_timer_arm(s->env->loop, timer, WITNESS_IDLE_NS);
}

int witness_create(struct store *s)
{
    struct witness *w = &s->witness;
    loop_timer_init(&w->timer, witness_timer);
    w->page = aligned_alloc(STORE_PAGE_BYTES, STORE_PAGE_BYTES);
    return w->page ? 0 : -ENOMEM;
}

void witness_destroy(struct store *s)
{
    loop_timer_cancel(s->env->loop, &s->witness.timer);
    free(s->witness.page);
}

void witness_wake(struct store *s)
{
    struct witness *w = &s->witness;
    if (w->busy || loop_timer_armed(&w->timer))
        return;
    w->seen = s->journal.durable_seq;
    loop_timer_arm(s->env->loop, &w->timer, WITNESS_IDLE_NS);
}

int witness_read(const struct store *s, const void *head, uint64_t *seq)
{
    const uint8_t *p = head;
    struct disk_witness w;
    *seq = 0;
    if (witness_choose(p + STORE_WITNESS_0, p + STORE_WITNESS_1, &w) < 0 || w.format != STORE_FORMAT ||
        !uuid_eq(&w.store, &s->super.store) || w.start_counter < s->super.start_counter)
        return 0;
    if (w.start_counter > s->super.start_counter || w.salt != s->super.salt)
        return -ESTALE;
    *seq = w.seq;
    return 0;
}
