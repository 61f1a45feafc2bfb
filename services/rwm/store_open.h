/* store_open.h: what the two halves of opening share: store_open.c (the steps), store_load.c (metadata
 * pages). */
#ifndef CISTERN_SERVICES_RWM_STORE_OPEN_H
#define CISTERN_SERVICES_RWM_STORE_OPEN_H

#include "services/rwm/store_replay.h"

#define LOAD_PAGES 64u /* read in one request */
#define LOAD_DEPTH 8u  /* chunks at a time, both copies of each: 4 MiB under way */

enum open_step {
    OPEN_FLUSH_DATA,
    OPEN_FLUSH_JOURNAL,
    OPEN_READ_HEAD,
    OPEN_READ_JOURNAL_HEAD,
    OPEN_LOAD,
    OPEN_FLAG_LOST,
    OPEN_WRITE_LOST,
    OPEN_REPLAY,
    OPEN_LOSERS,
    OPEN_CHECKPOINT,
    OPEN_DONE,
};
struct growing {
    uint32_t *ids;
    size_t count, room;
};
struct load_chunk { /* the same pages of both copies */
    struct load_read {
        struct sio sio;
        struct load_chunk *chunk;
    } read[2];
    uint8_t *data[2];
    uint32_t first, count;
    unsigned reading;
    int rc; /* of either: its pages are read one by one */
};
struct opening {
    enum open_step step;
    void (*done)(void *arg, struct store *store, const struct store_open_report *report);
    void *arg;
    struct store_open_report report;
    bool finished;
    uint8_t *head, *page;
    struct sio sio;
    struct flush_wait wait;
    struct frame_wait frame_wait;
    struct load_chunk chunks[LOAD_DEPTH];
    uint32_t next, total; /* loading: the page to be read next, of so many */
    uint32_t chunk, at;   /* the one being checked, and the page in it */
    unsigned chunks_used, part;
    bool busy;   /* a page is being read alone, or repaired */
    int read_rc; /* of a page that is read alone */
    struct growing lost, losers;
    uint64_t durable_seq; /* the journal was durable up to there: said by the witness, or by a page */
    uint64_t units_lost;  /* payloads in the journal that were durable and have rotted */
    struct frame *frames[2];
};

void open_next_step(struct store *s);
/* Reads all pages in use, both copies; repairs, or notes as lost; then the next step. */
void load_begin(struct store *s);
void load_write_lost(struct store *s); /* o->part counts the writes; called again after each */
void load_free(struct opening *o);

#endif
