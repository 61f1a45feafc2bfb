/* device_iscsi_session.c: connecting, learning what the LUN is, noticing that the session died. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/crc.h"
#include "common/log.h"
#include "services/san/device_iscsi_internal.h"

enum {
    CONNECT_TICKS_MAX = 10,
    NOP_AFTER_TICKS = 5,
    DEAD_AFTER_TICKS = 15,
    STEP_RETRIES_MAX = 20,
    RETRY_MIN_MS = 50,
    RETRY_MAX_MS = 5000
};

/* ---- the descriptor ---- */

void iscsi_update_events(struct device_iscsi *d)
{
    if (!d->fd_added)
        return;
    uint32_t wanted = (uint32_t)iscsi_which_events(d->context) | EPOLLRDHUP;
    if (loop_fd_modify(d->env->loop, &d->fd, wanted))
        iscsi_lose(d, "epoll refused");
}

static void service(struct device_iscsi *d, int events)
{
    if (d->lost)
        return;
    if (iscsi_service(d->context, events) < 0)
        iscsi_lose(d, "connection failed");
    if (!d->lost)
        iscsi_update_events(d);
}

void iscsi_push(struct device_iscsi *d)
{
    service(d, POLLOUT);
}

static void on_fd(struct loop_fd *f, uint32_t events)
{
    struct device_iscsi *d = container_of(f, struct device_iscsi, fd);
    if (d->lost)
        return;
    if (events & EPOLLIN)
        d->quiet_ticks = 0;
    service(d, (int)(events & (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP)));
    if (!d->lost && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        iscsi_lose(d, "connection closed by the array");
}

static void on_nop(struct iscsi_context *context, int status, void *data, void *arg)
{
    (void)context;
    (void)status;
    (void)data;
    (void)arg; /* that something came is noted by on_fd */
}

/* Once a second: libiscsi's timeouts, and whether the array still lives. */
static void on_tick(struct loop_timer *t)
{
    struct device_iscsi *d = container_of(t, struct device_iscsi, tick);
    loop_timer_arm(d->env->loop, t, NS_PER_S);
    if (!d->context || d->lost)
        return;
    d->quiet_ticks++;
    service(d, 0);
    if (d->lost)
        return;
    bool up = d->dev.link_state == DEVICE_LINK_UP;
    if (d->quiet_ticks > (up ? DEAD_AFTER_TICKS : CONNECT_TICKS_MAX)) {
        iscsi_lose(d, "the array is silent");
    } else if (up && d->quiet_ticks % NOP_AFTER_TICKS == 0) {
        (void)iscsi_nop_out_async(d->context, on_nop, NULL, 0, NULL);
        iscsi_update_events(d);
    }
}

/* ---- losing the session ---- */

void iscsi_lose(struct device_iscsi *d, const char *why)
{
    if (d->lost || !d->context)
        return;
    d->lost = true;
    d->lost_why = why;
    loop_defer(d->env->loop, &d->task);
}

void iscsi_gone(struct device_iscsi *d, const char *why)
{
    if (d->dev.link_state == DEVICE_LINK_GONE)
        return;
    log_error(d->env, "LUN is given up", "device=%s reason=\"%s\" fence=%s", d->dev.name, why,
              device_fence_text(d->dev.fence_state));
    d->dev.link_state = DEVICE_LINK_GONE;
    iscsi_set_changed(d);
    iscsi_lose(d, why);
}

void iscsi_drop_context(struct device_iscsi *d)
{
    iscsi_probe_cancel(d);
    if (!d->context)
        return;
    d->dropping = true;
    if (d->fd_added)
        loop_fd_remove(d->env->loop, &d->fd);
    d->fd_added = false;
    iscsi_scsi_cancel_all_tasks(d->context);
    iscsi_destroy_context(d->context);
    d->context = NULL;
    /* Those that libiscsi did not call back for. */
    for (unsigned i = 0; i < d->depth; i++) {
        if (d->ops[i].task)
            scsi_free_scsi_task(d->ops[i].task);
        d->ops[i].task = NULL;
    }
    if (d->script_task)
        scsi_free_scsi_task(d->script_task);
    d->script_task = NULL;
    d->dropping = false;
}

static void retry_later(struct device_iscsi *d)
{
    uint64_t ms = min_u64((uint64_t)RETRY_MIN_MS << min_u64(d->connect_tries++, 10), RETRY_MAX_MS);
    loop_timer_arm(d->env->loop, &d->retry_timer, ms * NS_PER_MS);
}

/* What libiscsi said last, one line of it; not that it does not reconnect by itself, which it is told not to.
 */
static const char *detail_of(const struct device_iscsi *d)
{
    const char *text = iscsi_get_error(d->context);
    return strstr(text, "Can not reconnect") != NULL ? "" : text;
}

static int detail_len(const struct device_iscsi *d)
{
    return (int)min_u64(strcspn(detail_of(d), "\n"), 100);
}

void iscsi_give_up(struct device_iscsi *d)
{
    static struct log_limit limit = {.interval_ns = 10 * NS_PER_S};
    bool was_up = d->dev.link_state == DEVICE_LINK_UP, gone = d->dev.link_state == DEVICE_LINK_GONE;
    if (was_up)
        log_warn(d->env, "session lost", "device=%s reason=\"%s\"", d->dev.name, d->lost_why);
    else if (!gone && log_allow(d->env, &limit))
        log_warn(d->env, "can not connect to the LUN, trying again",
                 "device=%s reason=\"%s\" detail=\"%.*s\"", d->dev.name, d->lost_why, detail_len(d),
                 detail_of(d));
    iscsi_drop_context(d);
    loop_timer_cancel(d->env->loop, &d->retry_timer);
    d->lost = false;
    iscsi_end_all(d, gone ? -ENODEV : -EIO);
    if (was_up) {
        d->dev.link_state = DEVICE_LINK_DOWN;
        if (d->dev.fence_state == DEVICE_FENCE_HELD)
            d->dev.fence_state = DEVICE_FENCE_UNCERTAIN;
        iscsi_set_changed(d);
    }
    if (gone)
        iscsi_finish(d, -ENODEV);
    else if (d->script_goal == ISCSI_GOAL_CONNECT)
        retry_later(d);
    else
        iscsi_finish(d, -ENOTCONN);
}

/* ---- scripts ---- */

void iscsi_finish(struct device_iscsi *d, int rc)
{
    if (d->script_goal == ISCSI_GOAL_NONE)
        return;
    d->script_goal = ISCSI_GOAL_NONE;
    d->step = NULL;
    loop_timer_cancel(d->env->loop, &d->retry_timer);
    if (!d->req)
        return;
    d->req_finished = true;
    d->req_rc = rc;
    loop_defer(d->env->loop, &d->task);
}

void iscsi_script(struct device_iscsi *d, void (*again)(struct device_iscsi *), iscsi_step *step)
{
    d->step = step;
    d->step_again = again;
    d->step_retries = 0;
    again(d);
}

void iscsi_script_issued(struct device_iscsi *d, struct scsi_task *task)
{
    d->script_task = task;
    if (!task)
        iscsi_lose(d, "out of memory");
    else
        iscsi_update_events(d);
}

static void on_retry(struct loop_timer *t)
{
    struct device_iscsi *d = container_of(t, struct device_iscsi, retry_timer);
    if (d->lost)
        return;
    if (d->context)
        d->step_again(d);
    else if (iscsi_connect_start(d))
        retry_later(d);
}

/* True: the command is issued again, or the session is lost: no answer for the script. */
static bool not_an_answer(struct device_iscsi *d, const struct iscsi_answer *a)
{
    switch (a->status) {
    case SCSI_STATUS_CHECK_CONDITION:
        if (a->sense_key != SCSI_SENSE_UNIT_ATTENTION)
            return false;
        /* The array's news since the last session: what holds now is what the script goes on to read. */
        if (++d->step_retries > STEP_RETRIES_MAX)
            iscsi_lose(d, "unit attention without end");
        else
            d->step_again(d);
        return true;
    case SCSI_STATUS_BUSY:
    case SCSI_STATUS_TASK_SET_FULL:
        if (++d->step_retries > STEP_RETRIES_MAX)
            iscsi_lose(d, "the array is busy without end");
        else
            loop_timer_arm(d->env->loop, &d->retry_timer, RETRY_MIN_MS * NS_PER_MS);
        return true;
    case SCSI_STATUS_CANCELLED:
    case SCSI_STATUS_ERROR:
    case SCSI_STATUS_TIMEOUT:
    case SCSI_STATUS_TASK_ABORTED:
        iscsi_lose(d, "a command had no answer");
        return true;
    default:
        return false;
    }
}

void iscsi_script_cb(struct iscsi_context *context, int status, void *data, void *arg)
{
    struct device_iscsi *d = arg;
    struct scsi_task *task = d->script_task;
    struct iscsi_answer a = {.status = status,
                             .sense_key = (int)task->sense.key,
                             .ascq = task->sense.ascq,
                             .data = task->datain.data,
                             .len = task->datain.size > 0 ? (size_t)task->datain.size : 0};
    (void)context;
    (void)data;
    d->script_task = NULL;
    if (!d->dropping && !d->lost && d->step && !not_an_answer(d, &a))
        d->step(d, &a);
    scsi_free_scsi_task(task);
}

/* ---- connecting ---- */

static void inquire(struct device_iscsi *d, int page)
{
    iscsi_script_issued(d, iscsi_inquiry_task(d->context, d->url.lun, 1, page, 255, iscsi_script_cb, d));
}

void iscsi_connected(struct device_iscsi *d)
{
    if (d->known && d->capacity.size < d->dev.size) {
        log_error(d->env, "LUN has become smaller", "device=%s bytes_before=%llu bytes=%llu", d->dev.name,
                  (unsigned long long)d->dev.size, (unsigned long long)d->capacity.size);
        iscsi_set_changed(d);
    }
    if (!d->known || d->capacity.size < d->dev.size)
        d->dev.size = d->capacity.size;
    d->known = true;
    d->connect_tries = 0;
    d->dev.link_state = DEVICE_LINK_UP;
    d->dev.can_discard = d->capacity.provisioned && d->unmap_possible;
    log_info(d->env, "LUN connected", "device=%s bytes=%llu block_bytes=%u discard=%d fence=%s", d->dev.name,
             (unsigned long long)d->dev.size, d->dev.io_bytes, d->dev.can_discard,
             device_fence_text(d->dev.fence_state));
    iscsi_finish(d, 0);
}

static void got_characteristics(struct device_iscsi *d, const struct iscsi_answer *a)
{
    bool rotational;
    if (iscsi_good(a) && scsi_parse_characteristics(a->data, a->len, &rotational) == 0)
        d->dev.rotational = rotational;
    if (d->dev.fence_state == DEVICE_FENCE_UNCERTAIN)
        iscsi_fence_confirm(d);
    else
        iscsi_connected(d);
}

static void ask_characteristics(struct device_iscsi *d)
{
    inquire(d, 0xb1);
}

static void got_provisioning(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (!iscsi_good(a) || scsi_parse_provisioning(a->data, a->len, &d->unmap_possible))
        d->unmap_possible = false;
    iscsi_script(d, ask_characteristics, got_characteristics);
}

static void ask_provisioning(struct device_iscsi *d)
{
    inquire(d, 0xb2);
}

static void got_limits(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (!iscsi_good(a) || scsi_parse_block_limits(a->data, a->len, &d->limits))
        d->limits = (struct scsi_limits){0};
    iscsi_script(d, ask_provisioning, got_provisioning);
}

static void ask_limits(struct device_iscsi *d)
{
    inquire(d, 0xb0);
}

static void got_identity(struct device_iscsi *d, const struct iscsi_answer *a)
{
    uint32_t identity = iscsi_good(a) && a->len > 4 ? crc32c(a->data, a->len) : 1;
    if (d->known && d->identity != identity) {
        iscsi_gone(d, "another LUN answers in its place");
        return;
    }
    d->identity = identity;
    iscsi_script(d, ask_limits, got_limits);
}

static void ask_identity(struct device_iscsi *d)
{
    inquire(d, 0x83);
}

static void no_such_lun(struct device_iscsi *d)
{
    if (d->known)
        iscsi_gone(d, "the LUN has vanished");
    else
        iscsi_lose(d, "the target has no such LUN");
}

static void got_capacity(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (!iscsi_good(a)) {
        if (iscsi_unknown_command(a) && a->ascq == SCSI_SENSE_ASCQ_LOGICAL_UNIT_NOT_SUPPORTED)
            no_such_lun(d);
        else
            iscsi_lose(d, "READ CAPACITY(16) failed");
        return;
    }
    struct scsi_capacity capacity;
    int rc = scsi_parse_capacity16(a->data, a->len, &capacity);
    if (rc) {
        iscsi_lose(d, rc == -ENOTSUP ? "block size is neither 512 nor 4096"
                                     : "READ CAPACITY(16) answers nonsense");
        return;
    }
    if (d->known && capacity.block_bytes != d->dev.io_bytes) {
        iscsi_gone(d, "its block size has changed");
        return;
    }
    d->capacity = capacity;
    d->dev.io_bytes = d->dev.atom_bytes = capacity.block_bytes;
    iscsi_script(d, ask_identity, got_identity);
}

static void ask_capacity(struct device_iscsi *d)
{
    iscsi_script_issued(d, iscsi_readcapacity16_task(d->context, d->url.lun, iscsi_script_cb, d));
}

static void got_ready(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (iscsi_unknown_command(a) && a->ascq == SCSI_SENSE_ASCQ_LOGICAL_UNIT_NOT_SUPPORTED)
        no_such_lun(d);
    else if (a->status == SCSI_STATUS_CHECK_CONDITION)
        iscsi_lose(d, "the LUN is not ready");
    else /* a reservation conflict is nothing against connecting */
        iscsi_script(d, ask_capacity, got_capacity);
}

static void ask_ready(struct device_iscsi *d)
{
    iscsi_script_issued(d, iscsi_testunitready_task(d->context, d->url.lun, iscsi_script_cb, d));
}

static void on_login(struct iscsi_context *context, int status, void *data, void *arg)
{
    struct device_iscsi *d = arg;
    (void)context;
    (void)data;
    if (d->dropping || d->lost)
        return;
    if (status != SCSI_STATUS_GOOD) {
        iscsi_lose(d, "login refused");
        return;
    }
    iscsi_script(d, ask_ready, got_ready);
}

static void on_connect(struct iscsi_context *context, int status, void *data, void *arg)
{
    struct device_iscsi *d = arg;
    (void)data;
    if (d->dropping || d->lost)
        return;
    if (status != SCSI_STATUS_GOOD || iscsi_login_async(context, on_login, d))
        iscsi_lose(d, "no connection");
}

int iscsi_configure(struct device_iscsi *d, struct iscsi_context *c, uint32_t qualifier)
{
    uint64_t timeout_s = (d->io_timeout_ns + NS_PER_S - 1) / NS_PER_S;
    iscsi_set_noautoreconnect(c, 1);
    iscsi_set_timeout(c, (int)min_u64(timeout_s, 3600));
    if (iscsi_set_targetname(c, d->url.target) || iscsi_set_session_type(c, ISCSI_SESSION_NORMAL) ||
        iscsi_set_header_digest(c, ISCSI_HEADER_DIGEST_NONE_CRC32C) ||
        iscsi_set_isid_random(c, d->isid, qualifier))
        return -EIO;
    if (d->url.user[0] && iscsi_set_initiator_username_pwd(c, d->url.user, d->secret))
        return -EIO;
    return 0;
}

int iscsi_connect_start(struct device_iscsi *d)
{
    struct iscsi_context *c = iscsi_create_context(d->initiator);
    if (!c)
        return -ENOMEM;
    int rc = iscsi_configure(d, c, 0);
    if (rc == 0 && iscsi_connect_async(c, d->url.portal, on_connect, d)) {
        static struct log_limit limit = {.interval_ns = 10 * NS_PER_S};
        if (log_allow(d->env, &limit))
            log_warn(d->env, "can not connect to the LUN", "device=%s detail=\"%.100s\"", d->dev.name,
                     iscsi_get_error(c));
        rc = -EIO;
    }
    if (rc) {
        iscsi_destroy_context(c);
        return rc;
    }
    d->context = c;
    d->quiet_ticks = 0;
    rc = loop_fd_add(d->env->loop, &d->fd, iscsi_get_fd(c), (uint32_t)iscsi_which_events(c) | EPOLLRDHUP,
                     on_fd);
    d->fd_added = rc == 0;
    if (rc)
        iscsi_drop_context(d);
    return rc;
}

void iscsi_session_init(struct device_iscsi *d)
{
    iscsi_probe_init(d);
    loop_timer_init(&d->tick, on_tick);
    loop_timer_init(&d->retry_timer, on_retry);
    loop_timer_arm(d->env->loop, &d->tick, NS_PER_S);
}

void iscsi_session_fini(struct device_iscsi *d)
{
    loop_timer_cancel(d->env->loop, &d->tick);
    loop_timer_cancel(d->env->loop, &d->retry_timer);
}
