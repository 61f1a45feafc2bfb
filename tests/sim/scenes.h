/*
 * scenes.h: faults that follow one another in the order that hurts. A scene waits for its moment, where it
 * has one (a read that was fetched, a write that only some members have, a join, a member that is about to be
 * taken in), and then lets several things happen at planned times.
 */
#ifndef CISTERN_TESTS_SIM_SCENES_H
#define CISTERN_TESTS_SIM_SCENES_H

#include "common/base.h"
#include "common/list.h"

struct rwm;
struct sim_cluster;
struct sim_directed;
struct medium;

enum sim_deed_kind {
    DEED_RESUME,
    DEED_KILL,
    DEED_START,
    DEED_HEAL,
    DEED_CUT,
    DEED_BREAK,
    DEED_PUT_BACK,
    DEED_CALL
};
struct sim_deed {
    uint64_t at_ns;
    enum sim_deed_kind kind;
    unsigned a, b; /* processes; DEED_KILL: b = so many more ms away */
    bool both;     /* ways; or: with a loss of power */
    void (*call)(struct sim_cluster *c, unsigned a, unsigned b);
};
enum sim_moment {
    MOMENT_NONE,
    MOMENT_READING,
    MOMENT_QUIET,   /* ... and nothing is being written there */
    MOMENT_PULLING, /* a payload is on its way */
    MOMENT_WRITING,
    MOMENT_JOINING,
    MOMENT_EQUAL,
    MOMENT_LOCKSTEP, /* ... and not yet reported */
    MOMENT_COMMIT,
    MOMENT_OWN /* sim_scenes.own says */
};
struct sim_scenes {
    struct sim_deed deeds[64];
    unsigned planned;       /* of them; in the first places */
    uint64_t due_ns;        /* of the next one */
    enum sim_moment moment; /* waited for */
    bool (*own)(const struct sim_cluster *c, const struct rwm *m, unsigned *member);
    void (*begin)(struct sim_cluster *c, unsigned primary, unsigned member);
    uint64_t until_ns;
    uint64_t hold_ns; /* until then something is held up */
    uint64_t away_ns; /* so much longer is the next one that a scene kills away */
    unsigned first;   /* of MOMENT_COMMIT: the primary that the scene began with */
    /* of a disk that is put back from an old copy: as it was then, and as it is */
    struct medium *old_data, *old_log, *data, *log;
    unsigned rolled, old_starts; /* whose; which start of it made the old copy */
    uint64_t played;             /* scenes that began */
};

/* What a scene is made of: an event later on, or now; see scenes.c. */
void sim_deed(struct sim_cluster *c, uint64_t after_ns, enum sim_deed_kind kind, unsigned a, unsigned b,
              bool both);
/* Something else then. */
void sim_deed_call(struct sim_cluster *c, uint64_t after_ns,
                   void (*call)(struct sim_cluster *c, unsigned a, unsigned b), unsigned a, unsigned b);
void sim_scene_cut(struct sim_cluster *c, unsigned a, unsigned b, bool both, uint64_t for_ns);
void sim_scene_stall(struct sim_cluster *c, unsigned a, uint64_t for_ns);
/* The process of a module; SIM_PROCS: none that lives. */
unsigned sim_scene_process(const struct sim_cluster *c, uint32_t module);
/* Clients read at m right now. */
bool sim_scene_reads(const struct rwm *m);
/* Waits for the moment of a directed scene (directed.h), for so long at most. */
void sim_scene_await(struct sim_cluster *c,
                     bool (*own)(const struct sim_cluster *c, const struct rwm *m, unsigned *member),
                     void (*begin)(struct sim_cluster *c, unsigned primary, unsigned member),
                     uint64_t for_ns);
uint64_t sim_scene_within(struct sim_cluster *c, uint64_t least_ms, uint64_t most_ms);
/* Whoever might send a write again dies, too: nothing mends by itself what the modules leave. */
void sim_scene_clients_gone(struct sim_cluster *c, uint64_t after_ns);

/* Begins a scene, or waits for its moment. */
void sim_scene_start(struct sim_cluster *c);
/* Does what is due; called as often as sim_scenes_due says. */
void sim_scenes_step(struct sim_cluster *c);
uint64_t sim_scenes_due(const struct sim_cluster *c);
/* The faults are over. */
void sim_scenes_end(struct sim_cluster *c);
void sim_scenes_free(struct sim_cluster *c);
/* The last scene: writes are under way, some of which no client lives to repeat; nothing is written after it.
 */
void sim_scene_last(struct sim_cluster *c);
/* Nothing else goes wrong, and the controller stands still: nobody may count as dead for that. False:
 * somebody did. */
bool sim_scene_nap(struct sim_cluster *c);

#endif
