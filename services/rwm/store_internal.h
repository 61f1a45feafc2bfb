/*
 * store_internal.h: what the files of the block store share. Read store.h, then docs/disk-format.md, then
 * this.
 *
 *   store.c            submit, callbacks, waiters, close, destroy      store_block.c       blocks in core,
 * readers, overlay store_super.c      superblocks                                     store_write.c writes,
 * clears, removals store_format.c     a new store                                     store_read.c reads
 *   store_open.c       opening, loading the index                      store_journal.c     batches
 *   store_witness.c    what the journal must hold                     store_trim.c        freed slots
 *   store_replay.c     walking and applying the journal                store_checkpoint.c  write-back,
 * journal space store_meta.c       page cache                                      store_index.c,
 * store_alloc.c
 *
 * Callbacks of the caller run only at the end of store_tick (the store's one loop task), so nothing else in
 * here can find the store destroyed under it.
 */
#ifndef CISTERN_SERVICES_RWM_STORE_INTERNAL_H
#define CISTERN_SERVICES_RWM_STORE_INTERNAL_H

#include <stdlib.h>
#include <string.h>

#include "common/crc.h"
#include "common/loop.h"
#include "common/rng.h"
#include "services/rwm/store.h"
#include "services/rwm/store_layout.h"

struct store;

/* ---- a device request of the store ---- */
struct sio {
    struct device_io io;
    struct store *s;
    void (*fn)(struct sio *sio, int rc);
    struct iovec one;
    struct list failed; /* refused at submit: told in the next round */
    int failed_rc;
    uint64_t begun_ns;
    unsigned priv_generation; /* for its owner */
};
void sio_init(struct sio *sio, struct store *s, void (*fn)(struct sio *, int));
/* fn runs once, later, also when the device refuses. */
void sio_submit(struct sio *sio, struct device *d, enum device_op op, uint64_t offset,
                const struct iovec *iov, int iovcnt, uint64_t length);
void sio_rw(struct sio *sio, struct device *d, enum device_op op, uint64_t offset, void *buf,
            uint64_t length);

/* ---- flushes: one at a time per device, shared by all that wait ---- */
struct flush_wait {
    struct list link;
    void (*fn)(struct flush_wait *w, int rc);
};
struct flusher {
    struct device *device;
    struct sio sio;
    bool active;
    struct list next, current;
};
/* fn runs when all writes completed before this call are durable; at once, inside the call, where they are
 * already. */
void flush_request(struct store *s, struct flusher *f, struct flush_wait *w);
/* As flush_request, but the device is asked also where its writes are durable when they complete: what a
 * process that was killed left there did not complete, can be read, and may yet vanish. fn runs later. */
void flush_device(struct store *s, struct flusher *f, struct flush_wait *w);

/* ---- objects of one size, allocated at start, touched only when used ---- */
struct slab {
    uint8_t *base;
    uint32_t *free_next; /* of id: next free id + 1 */
    size_t stride;
    uint32_t count, used, high, head;
};
#define SLAB_NONE 0xffffffffu
int slab_create(struct slab *slab, size_t stride, size_t align, uint64_t count);
void slab_destroy(struct slab *slab);
uint32_t slab_get(struct slab *slab); /* SLAB_NONE when empty */
void slab_put(struct slab *slab, uint32_t id);
static inline void *slab_at(const struct slab *slab, uint32_t id)
{
    return slab->base + (size_t)id * slab->stride;
}
static inline uint32_t slab_id(const struct slab *slab, const void *p)
{
    return (uint32_t)((size_t)((const uint8_t *)p - slab->base) / slab->stride);
}
static inline uint32_t slab_left(const struct slab *slab)
{
    return slab->count - slab->used;
}

/* ---- index: one node an entry; resident ---- */
struct node {
    uint64_t layer, block, hash;
    uint64_t stamp;       /* order of insertion into the partition's list */
    uint32_t bucket_next; /* id + 1, 0 = end, as the two below */
    uint32_t prev, next;  /* in the partition's list; a dead node keeps prev */
    uint32_t live;
};
_Static_assert(sizeof(struct node) == 48, "what docs/disk-format.md says of memory");
struct partition_list {
    uint32_t head, tail;
};
struct index {
    struct node *nodes;
    uint32_t *buckets;
    uint32_t entries, bucket_mask;
    struct partition_list *lists;
    uint32_t partition_bits;
    uint64_t stamp, count;
};
int index_create(struct index *ix, uint32_t entries, uint32_t partition_bits);
void index_destroy(struct index *ix);
int index_set_partition_bits(struct index *ix, uint32_t bits);
uint32_t index_find(const struct index *ix, const struct store_key *key); /* entry or STORE_NONE */
void index_insert(struct index *ix, uint32_t entry, const struct store_key *key);
void index_remove(struct index *ix, uint32_t entry);
void index_move(struct index *ix, uint32_t from, uint32_t to); /* same key, same place in the list */
unsigned index_list(const struct index *ix, uint32_t partition, uint64_t *cursor, struct store_key *keys,
                    unsigned max);
static inline bool index_live(const struct index *ix, uint32_t entry)
{
    return ix->nodes[entry].live != 0;
}

/* ---- free entries ---- */
enum alloc_kind { ALLOC_SLOT, ALLOC_HOLE };
struct frame;
struct frame_wait {
    struct list link;
    struct store *s;
    uint32_t page;
    void (*fn)(struct frame_wait *w, struct frame *f, int rc); /* rc 0: f is pinned for the waiter */
};
struct bits2 { /* a bitmap with a summary, to find the next set bit in a few steps */
    uint64_t *words, *summary;
    uint32_t bits;
};
struct alloc_cursor {
    uint32_t page;
    struct frame *frame; /* pinned */
    struct frame_wait wait;
    bool waiting;
};
struct alloc {
    uint32_t *page_free;   /* per entry page: free entries */
    struct bits2 avail[2]; /* pages in use with a free entry of the kind */
    uint64_t free[2];      /* entries, those of pages not yet used included */
    uint64_t reserved[2];  /* promised to submitted requests */
    struct alloc_cursor cursor[2];
    uint32_t pages, pages_used;
    uint64_t slot_count;
};
int alloc_create(struct store *s);
void alloc_destroy(struct store *s);
void alloc_page_used(struct store *s, uint32_t entry_page); /* pages up to this one are in use */
void alloc_mark(struct store *s, uint32_t entry, bool is_free);
void alloc_drop_page(struct store *s, uint32_t entry_page); /* unreadable: nothing is taken from it */
/* Free slots that are not given out until they are shown again; they count as free. */
uint32_t alloc_free_slots(const struct store *s, uint32_t entry_page); /* a mask */
void alloc_hide(struct store *s, uint32_t entry_page, uint32_t mask);
void alloc_show(struct store *s, uint32_t entry_page, uint32_t mask);
/* Takes a free entry; its page pinned for the caller. 0; -EAGAIN: a page is awaited, store_tick tries again;
 * -ENOSPC. */
int alloc_take(struct store *s, enum alloc_kind kind, uint32_t *entry, struct frame **frame);
static inline bool alloc_spare(const struct alloc *a, enum alloc_kind kind)
{
    return a->free[kind] > a->reserved[kind];
}
static inline uint32_t entry_page(uint32_t entry)
{
    return entry / ENTRIES_PER_PAGE;
}
static inline bool entry_has_slot(uint32_t entry)
{
    return entry != STORE_NONE && entry % ENTRIES_PER_PAGE < ENTRY_SLOTS;
}

/* ---- page cache ---- */
enum frame_state { FRAME_FREE, FRAME_LOADING, FRAME_READY };
struct frame {
    struct list hash_link, lru, dirty_link, waiters;
    uint32_t page; /* in the metadata area */
    uint32_t pins;
    enum frame_state state;
    bool dirty, in_checkpoint, redirtied, resident;
    uint8_t copy; /* which copy is being read */
    uint8_t *data;
    struct sio sio;
};
struct meta {
    struct frame *frames;
    uint8_t *memory;
    uint32_t count, high;
    struct list *hash;
    uint32_t hash_mask;
    struct list free, lru, dirty, starved;
    uint32_t dirty_count;
    uint32_t record_pages, pages; /* of the metadata area */
};
int meta_create(struct store *s, uint32_t frames);
void meta_destroy(struct store *s);
/* 0: *out is pinned. -EAGAIN: w->fn runs later. A page that cannot be read: -EBADMSG through w->fn. */
int frame_get(struct store *s, uint32_t page, struct frame_wait *w, struct frame **out);
/* A page that needs no read: empty, dirty, pinned. NULL when no frame is free now. */
struct frame *frame_create(struct store *s, uint32_t page);
void frame_wait_cancel(struct frame_wait *w);
void frame_pin(struct frame *f);
void frame_unpin(struct store *s, struct frame *f);
void frame_dirty(struct store *s, struct frame *f, uint64_t lsn);
void meta_retry_starved(struct store *s);
void page_init(const struct store *s, uint32_t page, void *out);
void page_seal(void *page); /* sets the CRC */
bool page_check(const struct store *s, uint32_t page, const void *data);
static inline struct disk_entry *frame_entry(struct frame *f, uint32_t entry)
{
    return &((struct disk_entry_page *)(void *)f->data)->entry[entry % ENTRIES_PER_PAGE];
}

/* ---- blocks in core ---- */
enum wb_state { WB_NONE, WB_NEXT, WB_CURRENT, WB_READY, WB_ACTIVE };
struct blk {
    struct store_key key;
    struct list hash_link;
    struct list waiting;      /* requests that wait for the page */
    struct list overlay_link; /* in store.overlays or store.ck.overlays */
    uint32_t entry;           /* durable, STORE_NONE = absent */
    struct frame *frame;      /* of entry, pinned while active */
    struct frame_wait wait;
    bool loaded, loading;
    int load_rc;
    uint32_t active;    /* requests in any state but device reads */
    uint32_t writers;   /* of them writes, clears, removals */
    bool slot_promised; /* with writers: a slot will be there when the next one starts */
    uint32_t pending;   /* writers in batches */
    uint32_t pend_entry;
    struct disk_entry pend; /* the image after all of them; with pending only */
    uint32_t touched;       /* units that they touch */
    uint32_t readers[2];    /* device reads (and the write-back) by generation */
    uint8_t generation;
    bool flipped;                           /* the other generation is awaited */
    uint32_t zombies_next, zombies_current; /* freed entries with readers: id + 1, through node.bucket_next */
    enum wb_state wb;
    uint32_t wb_mask; /* units being written back */
    uint32_t wb_units[UNITS_PER_BLOCK];
    uint32_t overlay_mask;
    uint32_t overlay[UNITS_PER_BLOCK]; /* ids of overlay units: durable, not yet in the slot */
};
struct blk *blk_find(struct store *s, const struct store_key *key);
struct blk *blk_get(struct store *s, const struct store_key *key); /* found or made; NULL when none is left */
void blk_activate(struct store *s, struct blk *b); /* loads its page; blk_ready follows, maybe inside */
void blk_release(struct store *s, struct blk *b);  /* forgets it when nothing needs it */
void blk_overlay_drop(struct store *s, struct blk *b, uint32_t mask);
void blk_overlay_set(struct store *s, struct blk *b, uint32_t unit, uint32_t id);
unsigned blk_reader_enter(struct blk *b);
void blk_reader_leave(struct store *s, struct blk *b, unsigned generation);
/* The entry's slot may be reused when those who read it now have left. */
void blk_free_entry(struct store *s, struct blk *b, uint32_t entry);
/* WB_NEXT was set: starts waiting; wb becomes WB_READY and checkpoint_wb_ready runs when older readers have
 * left. */
void blk_quiesce(struct store *s, struct blk *b);
uint32_t blk_hash(const struct store_key *key);

/* ---- requests ---- */
enum req_kind { REQ_READ, REQ_STAT, REQ_PROBE, REQ_WRITE, REQ_CLEAR, REQ_REMOVE, REQ_RECORD };
struct batch;
struct req {
    struct store *s;
    struct list link;
    enum req_kind kind;
    struct store_op *op;
    struct store_record_op *record; /* REQ_RECORD; may be NULL */
    struct blk *b;
    struct batch *batch;
    int rc;
    uint8_t reserved; /* bits 1 << enum alloc_kind */
    uint8_t generation;
    uint32_t mask; /* units touched; READ: units read from the device */
    /* what the record says */
    uint32_t entry, freed, inlined, direct;
    uint32_t record_at; /* of the record in the batch's buffer */
    struct frame *pin;  /* page of entry when it is a new one */
    uint32_t units[UNITS_PER_BLOCK];
    enum store_record_kind record_kind;
    uint32_t record_index;
    uint8_t image[128];
    struct sio sio;
    struct iovec iov[UNITS_PER_BLOCK + 1];
};
struct req *req_get(struct store *s, enum req_kind kind);
void req_finish(struct req *r, int rc);         /* to the callbacks; off any list */
void blk_ready(struct store *s, struct blk *b); /* its page is there, or load_rc says why not */
int exec_request(struct req *r);   /* a writer or a record: 0 in a batch or finished; -EAGAIN: later */
void apply_request(struct req *r); /* its batch is durable */
void read_start(struct req *r);
/* done runs with 0 when the medium has served one more read: it was ours until now. */
void store_prove(struct req *r, void (*done)(struct sio *sio, int rc));
const struct disk_entry *blk_durable(const struct blk *b); /* NULL = absent */
bool entry_suspect(const struct store *s, const struct disk_entry *e);
void record_write(struct store *s, enum store_record_kind kind, uint32_t index, const void *image,
                  uint64_t lsn);

/* ---- journal ---- */
enum batch_state { BATCH_FREE, BATCH_OPEN, BATCH_WRITING, BATCH_FLUSHING, BATCH_DONE };
struct batch {
    struct store *s;
    struct list link, requests;
    enum batch_state state;
    uint8_t *buffer;
    uint32_t used, units, records; /* used: bytes of buffer */
    bool data_written;             /* direct writes: the data device needs its flush */
    bool journal_written;
    uint32_t ios, flushes;
    uint64_t seq, pos, end;
    uint32_t crc;
    int rc;
    struct iovec iov[BATCH_UNITS + 1];
    struct sio sio;
    struct flush_wait wait_data, wait_journal;
};
struct journal {
    struct device *device;
    uint64_t offset, bytes;
    uint32_t align;
    uint64_t head, tail; /* pos */
    uint64_t next_seq, durable_seq, durable_pos;
    uint32_t durable_crc, last_crc;
    uint64_t start_counter, salt;
    struct batch *batches;
    uint8_t *buffers;
    struct batch *open;
    struct list flight; /* in order */
};
int journal_create(struct store *s);
void journal_destroy(struct store *s);
/* The open batch with room for a record of bytes and so many payload units; NULL: not now. */
struct batch *journal_room(struct store *s, uint32_t bytes, uint32_t units);
/* Copies the record in and puts r on the batch; units of r->units that r->inlined names are its payload. */
void journal_append(struct batch *b, struct req *r, const void *record, uint32_t bytes);
void journal_submit(struct store *s);          /* closes the open batch, if any */
void journal_step(struct store *s);            /* completes what is durable, in order */
void batch_data_done(struct batch *b, int rc); /* a direct write of one of its requests has ended */
uint64_t journal_place(const struct journal *j, uint64_t head,
                       uint64_t bytes); /* pos where a batch of bytes goes */
uint64_t batch_bytes(const struct journal *j, uint32_t used, uint32_t units);

/* ---- checkpoint ---- */
#define CK_DEPTH     16u /* requests at a time, beside which those of the callers stay quick */
#define CK_DEPTH_MAX 64u /* when callers wait for the journal's space, or will soon */
enum ck_state {
    CK_IDLE,
    CK_OVERLAYS,
    CK_FLUSH,
    CK_PAGES_A,
    CK_FLUSH_A,
    CK_PAGES_B,
    CK_FLUSH_B,
    CK_PAGES_END,
    CK_SUPER
};
struct checkpoint {
    enum ck_state state;
    bool pages_only; /* replay needs frames: neither write-back nor superblock */
    bool wanted;
    uint64_t pos, seq; /* the new tail */
    uint32_t crc;
    uint32_t pages_used;    /* entry pages when copy A began */
    struct list overlays;   /* blocks to write back */
    unsigned active, ready; /* io in use; of them those whose block is WB_READY */
    struct list pages, pages_done;
    struct ck_io {
        struct sio sio;
        struct frame *frame;
        struct blk *b;
        bool busy;
        uint32_t parts, wb_entry;
        struct iovec iov[UNITS_PER_BLOCK];
    } io[CK_DEPTH_MAX];
    uint8_t *bounce;
    struct flush_wait wait;
    void (*done)(struct store *s, int rc); /* opening and closing; may be NULL */
};
int checkpoint_create(struct store *s);
void checkpoint_destroy(struct store *s);
void checkpoint_want(struct store *s);
/* pages_only: see above. done may be NULL. Must be idle. */
void checkpoint_start(struct store *s, bool pages_only, void (*done)(struct store *, int));
void checkpoint_step(struct store *s);
void checkpoint_wb_ready(struct store *s, struct blk *b);
bool checkpoint_clean(const struct store *s); /* nothing to do */

/* ---- superblock ---- */
struct super_update {
    bool busy;
    unsigned step;
    unsigned first, jfirst; /* the copy that is written first: not the one that counts */
    struct disk_super next;
    struct disk_jsuper jsuper;
    uint8_t *page;
    struct sio sio;
    struct flush_wait wait;
    void (*done)(struct store *s, int rc);
};
void super_seal(struct disk_super *sb);
void jsuper_seal(struct disk_jsuper *j);
/* The valid one of two copies with the higher sequence into *out. Which one: 0 or 1; -ENOENT: blank;
 * -EMEDIUMTYPE: foreign; -EBADMSG: both damaged. */
int super_choose(const void *copy0, const void *copy1, struct disk_super *out);
int jsuper_choose(const void *copy0, const void *copy1, struct disk_jsuper *out);
/* Where the areas of a device of that size lie. 0 or -ENOSPC. Input: device_bytes, journal_bytes, flags,
 * records, journal_align. */
int super_layout(struct disk_super *sb);
/* Makes s->super_update.next durable, both copies (and the journal device's), then the one in force. */
void super_write(struct store *s, void (*done)(struct store *s, int rc));

/* Seals and chooses as the superblocks', into *out; 0, 1 or -errno as super_choose. */
void witness_seal(struct disk_witness *w);
int witness_choose(const void *copy0, const void *copy1, struct disk_witness *out);

/* ---- the witness: says outside the ring how far the journal was durable ---- */
struct witness {
    struct loop_timer timer;
    struct sio sio[2]; /* data device; journal device, if there is one */
    struct flush_wait wait[2];
    struct disk_witness *page;
    unsigned busy; /* devices that it is being written to */
    int rc;
    unsigned copy;          /* the one to be written next */
    uint64_t seen, written; /* batches: durable when the timer ran last; said by the latest witness */
    uint64_t written_ns;
};
int witness_create(struct store *s);
void witness_destroy(struct store *s);
void witness_wake(struct store *s); /* a batch has become durable */
/* Of head, the first bytes of either device: 0, *seq = the batch up to which the journal was durable (0 = not
 * known). -ESTALE: the superblocks are older than the witness. */
int witness_read(const struct store *s, const void *head, uint64_t *seq);

/* ---- freed slots are given back to the device ---- */
#define TRIM_DEPTH 4u
struct trim {
    struct loop_timer timer;
    uint32_t *freed; /* by entry page: slots that became free and were not discarded since */
    uint32_t page;   /* where the next one is looked for */
    uint64_t left;   /* slots in freed */
    uint64_t hidden; /* free slots that can not be taken just now: being discarded */
    unsigned active, burst;
    bool off; /* the device can not, or did not want to */
    struct trim_io {
        struct sio sio;
        uint32_t page, mask; /* mask 0: idle */
    } io[TRIM_DEPTH];
};
int trim_create(struct store *s);
void trim_destroy(struct store *s);
/* The slot has become free, or is taken: called by alloc_mark. */
void trim_note(struct store *s, uint32_t entry, bool is_free);
void trim_note_page(struct store *s, uint32_t entry_page); /* all that is free there, at open */
void trim_wake(struct store *s);

/* ---- the store ---- */
struct opening;
struct replay;
struct store {
    struct env *env;
    struct device *data;
    struct store_options options;
    struct disk_super super;
    uint64_t jsuper_sequence;
    struct store_identity identity;
    struct loop_task task;
    bool *destroyed; /* set by store_destroy when it runs inside a callback */
    unsigned ios;    /* device requests under way */
    struct store_device_times times;
    struct list failed;
    struct flusher flush_data, flush_journal;

    struct index index;
    struct alloc alloc;
    struct meta meta;
    struct journal journal;
    struct checkpoint ck;
    struct super_update super_update;
    struct witness witness;
    struct trim trim;

    struct slab reqs, blks, units;
    uint32_t units_limit; /* overlay units that requests may hold */
    uint8_t *sink;        /* where device reads put units that nobody wants */
    struct list *blk_hash;
    uint32_t blk_mask;
    struct list overlays; /* blocks with durable overlay units, oldest first */
    struct list exec;     /* writers and records in order of submission */
    struct list done;     /* finished requests */
    struct list waiters;
    uint8_t *records[3];
    uint8_t *record_lost[3]; /* one byte a record */
    uint32_t record_bytes[3];

    struct opening *opening;
    struct replay *replay;
    int broken; /* 0 or -errno */
    bool damaged, closing, closed;
    void (*close_done)(void *arg, int rc);
    void *close_arg;
    void (*identity_done)(void *arg, int rc);
    void *identity_arg;
    struct store_identity identity_next;
    bool identity_wanted, identity_busy, identity_finished;
    int identity_rc;
    struct store_stats stats;
};
void store_kick(struct store *s);
void (*store_task_fn(void))(struct loop_task *);
void store_break(struct store *s, int rc, const char *what);
uint64_t slot_offset(const struct store *s, uint32_t entry);
static inline struct store_key entry_key(const struct disk_entry *e)
{
    return (struct store_key){.layer = e->layer, .block = e->block, .hash = e->hash};
}
static inline bool key_eq(const struct store_key *a, const struct store_key *b)
{
    return a->layer == b->layer && a->block == b->block;
}
static inline uint32_t bit_range(uint32_t first, uint32_t count)
{
    return count >= 32 ? STORE_ALL_UNITS : ((1u << count) - 1u) << first;
}

/* ---- opening ---- */
int open_tick(struct store *s); /* in store_tick; 1: the store is gone */
void open_destroy(struct store *s);
/* The whole journal: finds its end, then applies. done runs with 0 or -errno. */
void replay_start(struct store *s, void (*done)(struct store *s, int rc));
void replay_destroy(struct store *s);
void replay_ready(struct store *s); /* in store_tick: goes on when it waits for a frame */
bool entry_sane(const struct store *s, uint32_t entry, const struct disk_entry *e);
/* For open: the entry is one of two of one block. */
int open_loser(struct store *s, uint32_t entry);
void open_fail(struct store *s, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
struct store_open_report *open_report(struct store *s);
/* The journal was durable up to this batch at least: so say witness and pages. */
uint64_t open_durable_seq(const struct store *s);
void open_unit_lost(struct store *s); /* a payload that was durable is rotten */

#endif
