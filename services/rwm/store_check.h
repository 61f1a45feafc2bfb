/*
 * store_check.h: looks at a store that nobody has open and says what is wrong with it, without writing a
 * byte; and writes good copies of superblocks and metadata pages over bad ones (store_repair).
 *
 * It reads the media with code of its own, not through store_open: what the store's reader overlooks, or
 * would make of the journal, is what a check is for. docs/disk-format.md says what is there,
 * docs/operations.md what to do about each finding.
 *
 * For tools: it owns the loop while it runs (loop_run_once), so it blocks, and nothing else may live on that
 * loop. It allocates in proportion to the store: about 50 bytes an entry in use, and less than 200 for each
 * block that the journal changes.
 */
#ifndef CISTERN_SERVICES_RWM_STORE_CHECK_H
#define CISTERN_SERVICES_RWM_STORE_CHECK_H

#include "common/base.h"
#include "common/device/device.h"
#include "common/env.h"
#include "services/rwm/store.h"

enum store_finding_kind {
#define FINDING(name, level, words) STORE_FINDING_##name,
#include "services/rwm/store_check.def"
#undef FINDING
    STORE_FINDINGS
};
enum store_finding_level {
    STORE_LEVEL_NOTE,    /* normal; the next start deals with it */
    STORE_LEVEL_WARNING, /* odd, but nothing is lost */
    STORE_LEVEL_ERROR,   /* wrong; nothing is lost yet */
    STORE_LEVEL_DAMAGE,  /* lost */
    STORE_LEVEL_REFUSED, /* can not be checked */
};
struct store_finding {
    enum store_finding_kind kind;
    int copy;             /* 0 (A), 1 (B) where one copy is meant; else -1 */
    uint64_t number;      /* page, entry, record or batch, as the kind goes */
    struct store_key key; /* of a block, when has_key */
    uint32_t units;       /* UNITS_*: which of the block */
    bool has_key, repairable;
    char text[320]; /* a sentence: what, where */
};
const char *store_finding_name(enum store_finding_kind kind);  /* "PAGE_LOST" */
const char *store_finding_words(enum store_finding_kind kind); /* as in store_check.def */
enum store_finding_level store_finding_level(enum store_finding_kind kind);

struct store_check_volume { /* one layer that blocks were found of, or that a record names */
    struct uuid id;         /* all zero: no record names the layer */
    uint64_t layer, size_bytes, blocks, units, bad_units, suspect_blocks;
    uint32_t state;
};
struct store_check_partition {
    bool record;
    uint64_t epoch;
    uint32_t blocks, bad_blocks;
};
/* What is known at the end, as far as the check came. Valid until store_check_free. */
struct store_check_report {
    bool complete;      /* all areas were looked at */
    bool data_complete; /* all data too */
    struct store_identity identity;
    uint64_t device_bytes, journal_bytes, slots_offset, slot_count, sequence;
    bool journal_device;
    uint64_t pages_used, pages, blocks, used_bytes; /* used_bytes: of slots */
    uint64_t batches, records, batches_cut, tail_seq, end_seq;
    uint64_t units_checked, next_entry; /* data: where a check that was stopped goes on */
    uint64_t counts[STORE_FINDINGS];
    enum store_finding_level worst;
    uint64_t repairable;                      /* findings that store_repair can settle */
    const struct store_check_volume *volumes; /* in order of records, then of unknown layers */
    size_t volume_count;
    const struct store_check_partition *partitions; /* by number; NULL when not known */
    uint32_t partition_count;
};
struct store_check_options {
    bool data;                                                     /* read every block too */
    uint64_t from_entry;                                           /* data: begin there */
    void (*found)(void *arg, const struct store_finding *finding); /* may be NULL */
    /* While data are read, about each second: bytes done of all. May be NULL. */
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    bool (*stop)(void *arg); /* asked between requests; true: ends with -EINTR. May be NULL */
    /* Lets requests go on; not 0: they never will (-ECANCELED). NULL: the loop is run. For tests. */
    int (*wait)(void *arg);
    void *arg;
};
struct store_check;
/* Checks. journal: NULL when the store has it on the data device. 0: *out has the report, whatever was found;
 * -EINTR: stopped, the report is as far as it came; -ENOMEM; -ECANCELED. *out is set in every case but
 * -ENOMEM, and must live until the devices are destroyed when rc is -ECANCELED. */
int store_check_run(struct env *env, struct device *data, struct device *journal,
                    const struct store_check_options *options, struct store_check **out);
const struct store_check_report *store_check_report(const struct store_check *check);
/* The volume of a layer, or NULL. */
const struct store_check_volume *store_check_volume(const struct store_check *check, uint64_t layer);
void store_check_free(struct store_check *check);

/*
 * Writes the good copy over each bad one that the check found: superblocks, the journal's superblocks,
 * metadata pages. Nothing else: what is lost in both copies stays as it is. Each write goes over a copy that
 * is worthless already, so it may be cut off at any point and run again. What was written is read back.
 *
 * dry_run: only tells. told: one call for each write, with its text. 0; -errno of the first request that
 * failed. *written: how many.
 */
int store_repair(struct store_check *check, bool dry_run, void (*told)(void *arg, const char *text),
                 void *arg, uint64_t *written);
/* What a killed process left in the devices' caches becomes durable, before a repair builds on it. 0 or
 * -errno. */
int store_repair_flush(struct store_check *check);

#endif
