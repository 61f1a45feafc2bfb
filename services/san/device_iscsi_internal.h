/*
 * device_iscsi_internal.h: between the data path (device_iscsi.c), the session (device_iscsi_session.c) and
 * the reservations (device_iscsi_fence.c).
 *
 * libiscsi calls back from inside iscsi_service, where its context must not be destroyed: callbacks only note
 * what happened. Owners' callbacks and the end of a lost session come afterwards, from the device's task.
 *
 * Connecting, acquiring and releasing are scripts: one SCSI command (or task management function) at a time,
 * each with a function that says what follows from its answer.
 */
#ifndef CISTERN_SERVICES_SAN_DEVICE_ISCSI_INTERNAL_H
#define CISTERN_SERVICES_SAN_DEVICE_ISCSI_INTERNAL_H

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "common/loop.h"
#include "services/san/device_iscsi.h"
#include "services/san/scsi_data.h"

struct device_iscsi;

/* One request of the owner. */
struct iscsi_op {
    struct list link; /* in free_ops, again or busy */
    struct device_iscsi *device;
    struct device_io *io;
    struct scsi_task *task; /* under way; NULL: not */
    struct scsi_iovec iov[DEVICE_IOV_MAX];
    uint64_t transferred, part; /* of the io: finished, and under way */
    unsigned retries;
    struct unmap_list unmap;
};

/* The answer to a script's command. */
struct iscsi_answer {
    int status; /* enum scsi_status */
    int sense_key, ascq;
    const uint8_t *data;
    size_t len;
};
/* What a script does with an answer: starts the next command, or ends the script. */
typedef void iscsi_step(struct device_iscsi *d, const struct iscsi_answer *answer);

/* A second session from another initiator port, for one question: does the array refuse strangers? */
enum iscsi_probe_result { ISCSI_PROBE_UNKNOWN, ISCSI_PROBE_REFUSED, ISCSI_PROBE_LET_IN };
struct iscsi_probe {
    struct iscsi_context *context; /* NULL: idle */
    struct loop_fd fd;
    bool fd_added, ended;
    unsigned tries;
    enum iscsi_probe_result result;
    struct scsi_task *command;
    struct loop_timer timer;
    struct loop_task task;
};

struct device_iscsi {
    struct device dev;
    struct env *env;
    struct iscsi_lun_url url;
    char *initiator;
    char secret[256];
    uint32_t isid; /* the same for every session: one initiator port */
    uint64_t io_timeout_ns;
    /* session */
    struct iscsi_context *context;
    struct loop_fd fd;
    bool fd_added;
    bool lost; /* the session is to be given up by the task */
    const char *lost_why;
    unsigned quiet_ticks;
    struct loop_timer tick, retry_timer, again_timer;
    unsigned connect_tries;
    uint32_t identity; /* CRC of the device identification page; 0 = not known yet */
    bool unmap_possible;
    struct scsi_limits limits;
    struct scsi_capacity capacity;
    bool sync10; /* SYNCHRONIZE CACHE(16) is not known there */
    bool no_sync;
    bool known;    /* connected once */
    bool dropping; /* the context is being destroyed: callbacks have nothing to say */
    /* requests */
    unsigned depth;
    struct iscsi_op *ops;
    struct list free_ops, again, busy; /* of iscsi_op */
    struct list queue, completed;      /* of device_io; completed: the rc in priv2 */
    struct loop_task task;             /* delivers, gives up lost sessions */
    struct loop_poller poller;
    bool changed;
    bool *destroyed;
    /* script */
    struct device_fence_request *req;
    bool req_finished;
    int req_rc;
    iscsi_step *step;
    struct scsi_task *script_task;
    unsigned step_retries;
    void (*step_again)(struct device_iscsi *d); /* issues the current command once more */
    int script_goal;                            /* enum iscsi_goal */
    /* fence */
    uint64_t key; /* wanted or held */
    uint64_t victim;
    unsigned fence_tries;
    uint8_t type; /* of the reservation */
    bool aptpl, no_abort;
    struct scsi_keys keys;
    struct scsi_reservation reservation;
    struct iscsi_probe probe;
    int fence_rc; /* to be told when our registration has been withdrawn */
};
enum iscsi_goal { ISCSI_GOAL_NONE, ISCSI_GOAL_CONNECT, ISCSI_GOAL_ACQUIRE, ISCSI_GOAL_RELEASE };

/* ---- device_iscsi.c ---- */
/* Starts what waits, as far as the link is up. */
void iscsi_start_waiting(struct device_iscsi *d);
/* Ends every request under way with rc (their tasks have been cancelled). */
void iscsi_end_all(struct device_iscsi *d, int rc);
void iscsi_set_changed(struct device_iscsi *d);

/* ---- device_iscsi_session.c ---- */
/* The session is not to be trusted any more: the task gives it up. why: a literal. */
void iscsi_lose(struct device_iscsi *d, const char *why);
/* Called by the task when lost: cancels, destroys the context; fence and link states follow. */
void iscsi_give_up(struct device_iscsi *d);
/* link GONE: no way back. */
void iscsi_gone(struct device_iscsi *d, const char *why);
void iscsi_drop_context(struct device_iscsi *d);
int iscsi_connect_start(struct device_iscsi *d);
void iscsi_session_init(struct device_iscsi *d);
void iscsi_session_fini(struct device_iscsi *d);
/* Asks epoll for what libiscsi waits for. */
void iscsi_update_events(struct device_iscsi *d);
/* Writes what was issued, as far as the socket takes it. Not from libiscsi's callbacks. */
void iscsi_push(struct device_iscsi *d);
/* After the proof that the fence holds, or where none was asked for: the end of connecting. */
void iscsi_connected(struct device_iscsi *d);
/* Sets a new context up for the LUN; qualifier tells initiator ports apart. 0 or -EIO. */
int iscsi_configure(struct device_iscsi *d, struct iscsi_context *c, uint32_t qualifier);

/* ---- scripts ---- */
/* Issues a command: again must issue it (it is called now, and once more after a unit attention or BUSY);
 * step gets the answer. */
void iscsi_script(struct device_iscsi *d, void (*again)(struct device_iscsi *), iscsi_step *step);
/* For `again` functions: the task that they made (NULL: out of memory, the session is lost). */
void iscsi_script_issued(struct device_iscsi *d, struct scsi_task *task);
/* The callback of every command of a script. */
void iscsi_script_cb(struct iscsi_context *context, int status, void *data, void *arg);
/* Ends the script; the owner's done follows from the task. */
void iscsi_finish(struct device_iscsi *d, int rc);
static inline bool iscsi_good(const struct iscsi_answer *a)
{
    return a->status == SCSI_STATUS_GOOD;
}
/* The array does not have this command, or not with these fields. */
static inline bool iscsi_unknown_command(const struct iscsi_answer *a)
{
    return a->status == SCSI_STATUS_CHECK_CONDITION && a->sense_key == SCSI_SENSE_ILLEGAL_REQUEST;
}

/* ---- device_iscsi_fence.c ---- */
extern const struct device_fence_ops iscsi_fence_ops;
/* The proof, while connecting; goes on with iscsi_connected. */
void iscsi_fence_confirm(struct device_iscsi *d);

/* Called with the probe's result, from the loop. */
void iscsi_fence_probed(struct device_iscsi *d, enum iscsi_probe_result result);

/* ---- device_iscsi_probe.c ---- */
void iscsi_probe_init(struct device_iscsi *d);
void iscsi_probe_start(struct device_iscsi *d);
/* Safe in any state, but not from libiscsi's callbacks. */
void iscsi_probe_cancel(struct device_iscsi *d);

#endif
