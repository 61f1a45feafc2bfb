/* store_check_internal.h: what the files of the check share. Read store_check.h first.
 *
 *   store_check.c          the order of things, findings     store_check_journal.c  the chain of batches
 *   store_check_io.c       requests, one after the other     store_check_pages.c    both copies of the
 * metadata store_check_super.c    superblocks                       store_check_model.c    entries and
 * records after replay store_check_data.c     the blocks' data                  store_repair.c         good
 * copies over bad ones
 */
#ifndef CISTERN_SERVICES_RWM_STORE_CHECK_INTERNAL_H
#define CISTERN_SERVICES_RWM_STORE_CHECK_INTERNAL_H

#include <stdlib.h>
#include <string.h>

#include "common/crc.h"
#include "common/loop.h"
#include "services/rwm/store_check.h"
#include "services/rwm/store_layout.h"

#define CHECK_WINDOW_BYTES (1024u * 1024u)
#define CHECK_GAPS_MAX     64u /* store_open gives up beyond it */

/* One request. In the check, so that it outlives a wait that was given up. */
struct check_io {
    struct device_io io;
    struct iovec iov;
    bool done;
    int rc;
};

/* Anything that grows. */
struct check_list {
    void *items;
    size_t count, room;
};
int check_list_add(struct check_list *l, size_t item_bytes, const void *item);

/* ---- the journal ---- */
struct check_batch {
    uint64_t pos, seq;
    uint32_t bytes, gap_before; /* gap_before: batches before this one are gone */
};
/* A batch in memory. */
struct check_found {
    struct disk_batch head;
    const uint8_t *records, *payload; /* in the window: until the next read of the journal */
    uint64_t end;
};
struct check_journal {
    uint8_t *window;
    uint64_t window_offset, window_length;
    struct check_list batches; /* in order, all of the chain; those from applied on were cut off */
    size_t applied;
    uint64_t mark, end_seq, suspect_below; /* mark: all batches up to it were durable */
    bool readable;
};

/* ---- metadata ---- */
enum check_page_state {
    PAGE_TAKE_B = 1,  /* what counts is in copy B */
    PAGE_GONE = 2,    /* in neither */
    PAGE_TOUCHED = 4, /* a batch that the next start applies changes it */
};
struct check_node { /* an entry, after replay */
    uint64_t layer, block, hash, epoch;
    uint32_t written;
    bool valid, suspect;
};
/* Of an entry that the journal changes. */
struct check_override {
    uint32_t entry, used;
    uint32_t written;
    uint32_t overlay, overlay_bad; /* units whose data are in the journal; of them those that are rotten */
    uint32_t crc[UNITS_PER_BLOCK];
};
struct check_repair_action {
    bool journal;
    uint64_t from, to; /* offsets on that device */
    uint32_t page;     /* STORE_NONE: a superblock */
    char text[160];
};

struct store_check {
    struct env *env;
    struct device *data, *journal_device; /* journal_device: the data device when it has none of its own */
    bool journal_given;
    struct store_check_options options;
    struct store_check_report report;
    struct check_io io[4];
    uint8_t *buf_a, *buf_b; /* CHECK_WINDOW_BYTES each */
    struct disk_super super;
    struct check_list repairs;

    struct check_journal journal;
    uint8_t *pages; /* enum check_page_state, one a page */
    uint32_t page_count, record_pages,
        entry_count; /* page_count: those that may hold something after replay */
    uint64_t pages_behind, torn_pages, rotten_payloads;
    bool pages_lost, volumes_lost;
    struct check_node *nodes; /* entry_count */
    struct check_override *overrides;
    uint32_t override_mask, override_count;
    uint8_t *records[3], *record_lost[3];
    uint32_t record_bytes[3];
    uint32_t *key_buckets; /* entry + 1 */
    uint32_t key_mask;
    struct check_list volumes; /* of store_check_volume */
    uint32_t *layer_buckets;   /* index + 1 of volumes */
    uint32_t layer_mask, layer_room;
    struct store_check_partition *partitions;
    uint64_t progress_ns;
};

/* ---- store_check_io.c ---- */
/* Reads, and comes back when it is done. 0; -EINTR, -ECANCELED: give up; else what the device said. */
int check_read(struct store_check *c, struct device *d, uint64_t offset, void *buf, uint64_t length);
int check_write(struct store_check *c, struct device *d, uint64_t offset, const void *buf, uint64_t length);
int check_flush(struct store_check *c, struct device *d);
/* Reads in the background: begin, then wait for the same number (below 4). */
void check_read_begin(struct store_check *c, unsigned n, uint64_t offset, void *buf, uint64_t length);
int check_read_wait(struct store_check *c, unsigned n);
static inline bool check_over(int rc)
{
    return rc == -EINTR || rc == -ECANCELED || rc == -ENOMEM;
}

/* ---- store_check.c ---- */
void check_find(struct store_check *c, const struct store_finding *f);
/* A finding without a block; number and copy as in store_finding. */
void check_found(struct store_check *c, enum store_finding_kind kind, int copy, uint64_t number,
                 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
int check_repairable(struct store_check *c, enum store_finding_kind kind, int bad_copy, bool journal,
                     uint32_t page, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* "volume ..., bytes a to b": where a block, or some units of it, is seen by its user. */
void check_block_text(const struct store_check *c, const struct store_key *key, uint32_t units, char *out,
                      size_t size);

/* ---- the steps: 0 = go on; 1 = nothing more can be checked; -errno as store_check_run ---- */
int check_supers(struct store_check *c);
int check_journal_walk(struct store_check *c); /* finds its end, marks the pages that it touches */
int check_pages(struct store_check *c);        /* compares the copies, fills nodes and records */
int check_model(struct store_check *c);        /* applies the journal, then looks at what is there */
int check_data(struct store_check *c);

/* ---- shared pieces ---- */
uint32_t check_super_crc(const void *page);
bool check_page_good(const struct store_check *c, uint32_t page, const void *data);
uint32_t check_page_kind(const struct store_check *c, uint32_t page);
void check_page_text(const struct store_check *c, uint32_t page, char *out, size_t size);
static inline uint64_t check_page_offset(const struct store_check *c, uint32_t page, unsigned copy)
{
    return (copy ? c->super.meta_b : c->super.meta_a) + (uint64_t)page * STORE_PAGE_BYTES;
}
bool check_entry_sane(const struct store_check *c, uint32_t entry, const struct disk_entry *e);
static inline bool check_has_slot(uint32_t entry)
{
    return entry % ENTRIES_PER_PAGE < ENTRY_SLOTS;
}
static inline uint64_t check_slot(uint32_t entry)
{
    return (uint64_t)(entry / ENTRIES_PER_PAGE) * ENTRY_SLOTS + entry % ENTRIES_PER_PAGE;
}
/* Reads batch n again: 0 with found, or -errno. */
int check_batch_read(struct store_check *c, size_t n, struct check_found *found);
struct check_override *check_override_find(const struct store_check *c, uint32_t entry);

#endif
