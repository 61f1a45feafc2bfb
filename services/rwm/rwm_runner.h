/*
 * rwm_runner.h: keeps one module running over media that may be away: opens them, makes a store on a blank
 * one, runs the engine, and when that fails takes all of it down and tries again, with growing pauses, for as
 * long as it takes. The service stays up meanwhile, and so do its other modules.
 *
 * What opening is, is the owner's business (struct rwm_media): a file, or a LUN with its fence.
 */
#ifndef CISTERN_SERVICES_RWM_RUNNER_H
#define CISTERN_SERVICES_RWM_RUNNER_H

#include "services/rwm/rwm.h"

struct rwm_runner;
struct rwm_media {
    /* Begins to open; ends, inside the call or later, with one rwm_runner_opened. */
    void (*open)(void *user, struct rwm_runner *r);
    /* Gives up an open that has not ended: rwm_runner_opened is not called for it any more. Frees what it
     * made. */
    void (*give_up)(void *user);
    /* Called before the devices are destroyed, in an orderly stop (shut = true; done is to be called, later
     * or inside) or after a failure (shut = false, done NULL). May be NULL. */
    void (*release)(void *user, struct device *data, bool shut, void (*done)(struct rwm_runner *r),
                    struct rwm_runner *r);
};
struct rwm_runner_config {
    struct rwm_config rwm; /* incarnation is drawn anew for each start */
    bool format;           /* make a store on a blank medium */
    struct store_format_options format_options;
    const char *label;           /* for messages; outlives the runner */
    bool media_auto;             /* rwm.media: hdd when the data device is rotational, else ssd */
    void (*serving)(void *user); /* at each start that got so far; may be NULL */
};
/* Starts at once. host must outlive the runner. 0 or -ENOMEM. */
int rwm_runner_create(struct env *env, struct rwm_host *host, const struct rwm_runner_config *config,
                      const struct rwm_media *media, void *user, struct rwm_runner **out);
/* The media are open (rc 0: the devices are the runner's now; journal may be NULL), or could not be opened;
 * text says why and what to do. */
void rwm_runner_opened(struct rwm_runner *r, int rc, struct device *data, struct device *journal,
                       const char *text);
/* The media failed under the module (link lost, reservation lost): all is taken down, soon, and opened again.
 */
void rwm_runner_fail(struct rwm_runner *r, int rc, const char *text);
/* Orderly: stops serving and writes back. done runs once, later; then rwm_runner_destroy. */
void rwm_runner_shutdown(struct rwm_runner *r, void (*done)(void *arg), void *arg);
/* In any state: frees all, no callbacks; no I/O but waiting for the kernel to let go of buffers. */
void rwm_runner_destroy(struct rwm_runner *r);
/* NULL while there is none. */
const struct rwm *rwm_runner_module(const struct rwm_runner *r);

#endif
