/* store_replay.h: what the two halves of replay share: store_replay.c (finding), store_apply.c (checking
 * data, applying). */
#ifndef CISTERN_SERVICES_RWM_STORE_REPLAY_H
#define CISTERN_SERVICES_RWM_STORE_REPLAY_H

#include "services/rwm/store_internal.h"

#define WINDOW_BYTES      (1024u * 1024u)
#define RECENT_BATCHES    32u
#define RECORDS_PER_BATCH (BATCH_BUFFER_BYTES / 32u)
#define SEGMENTS_MAX      64u
#define SEQ_STEP                                                                                             \
    (1ull << 20) /* between two lives: seqs of batches that were cut off are never used again                \
                  */
_Static_assert(RECENT_BATCHES > BATCHES_IN_FLIGHT + 1, "all batches beyond a mark are kept");
_Static_assert(WINDOW_BYTES >= BATCH_MAX_BYTES + STORE_PAGE_BYTES, "a batch fits");

enum replay_phase { REPLAY_WALK, REPLAY_SCAN, REPLAY_VERIFY, REPLAY_APPLY, REPLAY_DONE };
struct segment { /* a run of the chain without a gap */
    uint64_t pos, seq, last_seq;
    uint32_t crc;
};
struct recent { /* one of the last batches: its header and records */
    uint64_t seq, start;
    uint32_t records;
    bool payload_ok;
    uint8_t *bytes;
    uint32_t bad[RECORDS_PER_BATCH]; /* by record: direct units whose data are not there */
};
struct replay {
    enum replay_phase phase;
    void (*done)(struct store *s, int rc);
    struct sio sio;
    bool reading;
    uint8_t *window;
    uint64_t window_offset, window_length;
    struct {
        struct disk_batch head;
        const uint8_t *bytes, *payload; /* in the window */
        uint64_t end;                   /* pos */
    } found;
    /* walking */
    uint64_t pos, seq, mark, seen_seq, suspect_below;
    uint32_t crc;
    bool trace;                      /* where the chain ends lies what rot left of a batch */
    bool any_crc;                    /* behind a gap: the CRC of the batch before is not known */
    uint64_t absent_pos, absent_seq; /* this batch is not at this position */
    struct segment segments[SEGMENTS_MAX];
    uint32_t segment_count;
    struct recent recent[RECENT_BATCHES];
    uint8_t *recent_bytes;
    uint64_t recent_count;
    /* scanning */
    uint64_t scan, scan_seq, scan_pos, scan_mark;
    /* verifying */
    uint8_t *verify_buf;
    uint64_t verify_batch; /* number in recent */
    uint32_t verify_record, verify_at, verify_first;
    /* applying */
    uint64_t end_seq, end_pos, applied;
    uint32_t segment, record, record_at;
    bool in_batch, no_frame, waiting, spilling;
    struct frame_wait frame_wait;
    struct frame *frames[3];
    uint32_t entries[3];
};

bool window_have(struct store *s, uint64_t offset, uint64_t length, const uint8_t **out);
void replay_go_on(struct store *s);
bool open_finished(const struct store *s);
/* Is the record (rec copied from at) one that a batch may hold? */
bool record_sane(const struct store *s, const struct disk_batch *h, const struct disk_record *rec,
                 const uint8_t *at);
void verify_begin(struct store *s);
bool verify(struct store *s); /* false: waits for a read */
void replay_verified(struct store *s, uint64_t end_seq, uint64_t end_pos);
/* False: waits for a page, or failed; call again with the same record. */
bool replay_apply(struct store *s, const struct disk_record *rec, const uint8_t *at, const uint8_t *payload,
                  uint64_t seq);

#endif
