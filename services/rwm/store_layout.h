/*
 * store_layout.h: the block store's structures as they lie on the media. docs/disk-format.md describes them;
 * change both.
 *
 * All numbers are little-endian. A CRC is CRC32C over the whole structure (page, or batch header with its
 * records) with the CRC field itself zero.
 */
#ifndef CISTERN_SERVICES_RWM_STORE_LAYOUT_H
#define CISTERN_SERVICES_RWM_STORE_LAYOUT_H

#include "common/base.h"
#include "services/rwm/store.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structures go to the media as they are in memory");

#define STORE_FORMAT        1u
#define STORE_PAGE_BYTES    4096u
#define STORE_SUPER_0       0u     /* both copies lie in the first 64 KiB, far enough apart */
#define STORE_SUPER_1       32768u /* not to share a physical sector or a short scratch */
#define STORE_WITNESS_0     16384u /* the witness, two copies, on either device */
#define STORE_WITNESS_1     49152u
#define STORE_HEAD_BYTES    65536u /* what precedes the first area of a device */
#define STORE_JOURNAL_MIN   (1u * 1024u * 1024u)
#define STORE_SUPER_MAGIC   0x3152455055535343ull /* "CSSUPER1" */
#define STORE_JSUPER_MAGIC  0x315055534e4a5343ull /* "CSJNSUP1" */
#define STORE_WITNESS_MAGIC 0x31534e5449575343ull /* "CSWITNS1" */
#define STORE_PAGE_MAGIC    0x47505343u           /* "CSPG" */
#define STORE_BATCH_MAGIC   0x54425343u           /* "CSBT" */
#define STORE_NONE          0xffffffffu           /* no entry */
#define STORE_ALL_UNITS     0xffffffffu
_Static_assert(UNITS_PER_BLOCK == 32, "maps of units are 32 bits");

/* ---- superblock: one page, two copies ---- */
enum {
    SUPER_JOURNAL_DEVICE = 1, /* the journal has a device of its own */
    SUPER_PAGES_LOST = 2,     /* a metadata page was lost: a block that is not found may have been there */
};
struct disk_super {
    uint64_t magic;
    uint32_t crc, format;
    uint64_t sequence; /* +1 with each change; the valid copy with the higher one counts */
    struct uuid store, cluster;
    uint64_t start_counter;
    uint64_t salt; /* drawn at each start; in each batch, so that no payload can pass for a batch */
    uint32_t module, partition_bits;
    uint32_t flags, journal_align;
    uint64_t device_bytes;
    uint64_t journal_offset, journal_bytes; /* the ring */
    uint64_t meta_a, meta_b;                /* the two copies of the metadata pages */
    uint64_t slots_offset, slot_count;
    uint32_t records[3];       /* capacity by kind */
    uint32_t record_pages[3];  /* pages by kind, first in the metadata area */
    uint32_t entry_pages;      /* pages of slot entries, behind the record pages */
    uint32_t entry_pages_used; /* so many were ever written; those behind are empty, whatever they contain */
    uint64_t tail_pos, tail_seq; /* where replay begins, and the seq that the batch there must have */
    uint32_t tail_prev_crc, reserved;
    uint64_t suspect_below; /* entries older than this batch may lack writes that rot took; 0 = none */
    uint64_t accepted_start,
        accepted_incarnation; /* the latest start that the metadata controller accepted */
    uint8_t unused[STORE_PAGE_BYTES - 224];
};
_Static_assert(sizeof(struct disk_super) == STORE_PAGE_BYTES, "one page");
_Static_assert(offsetof(struct disk_super, unused) == 224, "no hidden padding");

/* ---- superblock of a journal device: one page, two copies ---- */
enum { JSUPER_INTENT = 1, JSUPER_SETTLED = 2 };
struct disk_jsuper {
    uint64_t magic;
    uint32_t crc, format;
    uint64_t sequence;       /* of these copies */
    uint64_t super_sequence; /* of the data device's superblock: see phase */
    struct uuid store;
    uint64_t start_counter;
    uint64_t journal_bytes;
    uint32_t phase; /* INTENT: the data device has super_sequence or the one before; SETTLED: exactly that */
    uint32_t journal_align;
    uint8_t unused[STORE_PAGE_BYTES - 72];
};
_Static_assert(sizeof(struct disk_jsuper) == STORE_PAGE_BYTES, "one page");
_Static_assert(offsetof(struct disk_jsuper, unused) == 72, "no hidden padding");

/* ---- the witness: one page, two copies by turns, of which either may be missing ---- */
struct disk_witness {
    uint64_t magic;
    uint32_t crc, format;
    uint64_t seq; /* all batches up to this one were durable when this was written */
    struct uuid store;
    uint64_t start_counter, salt; /* of the start that wrote it */
    uint8_t unused[STORE_PAGE_BYTES - 56];
};
_Static_assert(sizeof(struct disk_witness) == STORE_PAGE_BYTES, "one page");
_Static_assert(offsetof(struct disk_witness, unused) == 56, "no hidden padding");

/* ---- metadata pages ---- */
enum disk_page_kind { PAGE_PARTITIONS = 1, PAGE_VOLUMES = 2, PAGE_TURNS = 3, PAGE_ENTRIES = 4 };
struct disk_page_head {
    uint32_t magic, crc;
    uint32_t kind, number; /* number: in the metadata area */
    uint64_t store_low;    /* first 8 bytes of the store's uuid */
    uint64_t lsn;          /* the latest batch in it */
    uint64_t lost;         /* pages of records: bit i: record i was lost with the page's former content */
    uint8_t reserved[24];
};
_Static_assert(sizeof(struct disk_page_head) == 64, "no hidden padding");

enum { ENTRY_VALID = 1 };
/* One block. Entry i of page p: i below ENTRY_SLOTS is that of data slot p * ENTRY_SLOTS + i; the others have
 * no slot and hold blocks that are all hole. */
struct disk_entry {
    uint64_t layer, block, hash;
    uint64_t epoch, counter;
    uint64_t lsn;     /* the batch that set it */
    uint32_t written; /* one bit a unit */
    uint32_t flags;
    uint32_t crc[UNITS_PER_BLOCK]; /* of written units; 0 for the others */
    uint64_t reserved;
};
_Static_assert(sizeof(struct disk_entry) == 192, "no hidden padding");
#define ENTRIES_PER_PAGE 21u
#define ENTRY_SLOTS      18u
#define ENTRY_SLOT_BITS  ((1u << ENTRY_SLOTS) - 1u)
#define ENTRY_HOLE_BITS  (((1u << ENTRIES_PER_PAGE) - 1u) & ~ENTRY_SLOT_BITS)
struct disk_entry_page {
    struct disk_page_head head;
    struct disk_entry entry[ENTRIES_PER_PAGE];
};
_Static_assert(sizeof(struct disk_entry_page) == STORE_PAGE_BYTES, "one page");
#define RECORDS_PER_PAGE_64  63u
#define RECORDS_PER_PAGE_128 31u

/* ---- journal ---- */
struct disk_batch {
    uint32_t magic, crc; /* over this header and record_bytes behind it; payloads have their units' CRCs */
    struct uuid store;
    uint64_t salt, start_counter;
    uint64_t seq;
    uint64_t mark; /* all batches up to this one were durable when this one was written */
    uint64_t pos;  /* bytes since the life of the ring began: lap * journal_bytes + offset */
    uint32_t prev_crc;
    uint32_t record_bytes, record_count, payload_units;
};
_Static_assert(sizeof(struct disk_batch) == 80, "no hidden padding");
enum disk_record_kind { RECORD_SET_ENTRY = 1, RECORD_FREE_ENTRY = 2, RECORD_SET_RECORD = 3 };
struct disk_record {
    uint16_t kind, bytes; /* bytes: with this header */
    uint32_t entry;       /* SET_RECORD: index */
    uint32_t
        freed; /* SET_ENTRY: the entry that the block leaves, or STORE_NONE; SET_RECORD: kind of record */
    uint32_t inlined; /* units whose payload is in this batch, from payload unit `payload` on */
    uint32_t direct;  /* units written to the slot beside this batch */
    uint32_t payload;
    uint64_t reserved;
};
_Static_assert(sizeof(struct disk_record) == 32, "no hidden padding");
struct disk_set_entry {
    struct disk_record head;
    struct disk_entry image;
};
_Static_assert(sizeof(struct disk_set_entry) == 224, "no hidden padding");
#define BATCH_BUFFER_BYTES 16384u /* header and records */
#define BATCH_UNITS        60u    /* payload units of one batch: one vectored write */
#define BATCH_MAX_BYTES    (BATCH_BUFFER_BYTES + BATCH_UNITS * UNIT_BYTES)
#define BATCHES_IN_FLIGHT  16u
_Static_assert(4 * BATCH_MAX_BYTES <= STORE_JOURNAL_MIN + 65536, "a small ring still holds several batches");

#endif
