/*
 * device_iscsi_fence.c: persistent reservations (SPC-4 5.13) of a LUN.
 *
 * Taking over is a loop: read the keys and the reservation, do the one thing that is still missing (reserve,
 * preempt the holder, preempt another registrant), read again; it ends when what was read is what we want. A
 * command that fails because another initiator was faster is a reason to read again, and a greater key found
 * on the way ends it. PREEMPT names the key that was read, so it never removes somebody who came later.
 */
#include "common/log.h"
#include "services/san/device_iscsi_internal.h"

enum { TRIES_MAX = 100, KEYS_BYTES = 8 + 8 * SCSI_KEYS_MAX, RESERVATION_BYTES = 24, CAPABILITIES_BYTES = 8 };

static void read_again(struct device_iscsi *d);

/* ---- commands ---- */

static void reserve_in(struct device_iscsi *d, int action, uint16_t bytes)
{
    iscsi_script_issued(
        d, iscsi_persistent_reserve_in_task(d->context, d->url.lun, action, bytes, iscsi_script_cb, d));
}

static void reserve_out(struct device_iscsi *d, int action, uint64_t own, uint64_t other)
{
    bool registers = action == SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY;
    struct scsi_persistent_reserve_out_basic params = {
        .reservation_key = own, .service_action_reservation_key = other, .aptpl = registers && d->aptpl};
    iscsi_script_issued(
        d, iscsi_persistent_reserve_out_task(d->context, d->url.lun, action, SCSI_PERSISTENT_RESERVE_SCOPE_LU,
                                             registers ? 0 : d->type, &params, iscsi_script_cb, d));
}

static void ask_keys(struct device_iscsi *d)
{
    reserve_in(d, SCSI_PERSISTENT_RESERVE_READ_KEYS, KEYS_BYTES);
}

static void ask_reservation(struct device_iscsi *d)
{
    reserve_in(d, SCSI_PERSISTENT_RESERVE_READ_RESERVATION, RESERVATION_BYTES);
}

static void ask_capabilities(struct device_iscsi *d)
{
    reserve_in(d, SCSI_PERSISTENT_RESERVE_REPORT_CAPABILITIES, CAPABILITIES_BYTES);
}

static void ask_register(struct device_iscsi *d)
{
    reserve_out(d, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, d->key);
}

static void ask_unregister(struct device_iscsi *d)
{
    reserve_out(d, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, 0);
}

static void ask_reserve(struct device_iscsi *d)
{
    reserve_out(d, SCSI_PERSISTENT_RESERVE_RESERVE, d->key, 0);
}

static void ask_preempt(struct device_iscsi *d)
{
    int action = d->no_abort ? SCSI_PERSISTENT_RESERVE_PREEMPT : SCSI_PERSISTENT_RESERVE_PREEMPT_AND_ABORT;
    reserve_out(d, action, d->key, d->victim);
}

static void ask_release(struct device_iscsi *d)
{
    reserve_out(d, SCSI_PERSISTENT_RESERVE_RELEASE, d->key, 0);
}

/* ---- ends ---- */

static void unsupported(struct device_iscsi *d)
{
    log_error(
        d->env,
        "array does not enforce persistent reservations: nothing keeps another host from writing to this LUN",
        "device=%s", d->dev.name);
    d->dev.fence_state = DEVICE_FENCE_UNSUPPORTED;
    iscsi_set_changed(d);
    iscsi_finish(d, -ENOTSUP);
}

static void withdrawn(struct device_iscsi *d, const struct iscsi_answer *a)
{
    (void)a; /* a registration that stays is no reservation, and the holder removes it */
    iscsi_finish(d, d->fence_rc);
}

static void withdraw(struct device_iscsi *d, int rc)
{
    d->fence_rc = rc;
    iscsi_script(d, ask_unregister, withdrawn);
}

static bool greater_key(const struct device_iscsi *d)
{
    for (unsigned i = 0; i < d->keys.count; i++) {
        if (d->keys.keys[i] > d->key)
            return true;
    }
    return false;
}

static bool has_key(const struct device_iscsi *d, uint64_t key)
{
    for (unsigned i = 0; i < d->keys.count; i++) {
        if (d->keys.keys[i] == key)
            return true;
    }
    return false;
}

static void held(struct device_iscsi *d)
{
    d->dev.fence_state = DEVICE_FENCE_HELD;
    d->dev.fence_key = d->key;
    log_info(d->env, "LUN fenced", "device=%s key=%016llx type=\"%s\" survives_power_loss=%d", d->dev.name,
             (unsigned long long)d->key,
             d->type == SCSI_PERSISTENT_RESERVE_TYPE_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY
                 ? "exclusive access, registrants only"
                 : "write exclusive, registrants only",
             d->aptpl);
    iscsi_set_changed(d);
    iscsi_finish(d, 0);
}

/* ---- acquiring ---- */

static void got_reset(struct device_iscsi *d, const struct iscsi_answer *a)
{
    (void)a;
    read_again(d);
}

static void on_reset(struct iscsi_context *context, int status, void *data, void *arg)
{
    struct device_iscsi *d = arg;
    (void)context;
    if (d->dropping || d->lost)
        return;
    uint32_t response = data ? *(uint32_t *)data : ISCSI_TMR_FUNC_REJECTED;
    if (status != SCSI_STATUS_GOOD || response != ISCSI_TMR_FUNC_COMPLETE) {
        log_error(d->env, "array neither aborts nor resets: a former owner's last writes may still land",
                  "device=%s response=%u", d->dev.name, response);
        withdraw(d, -EIO);
        return;
    }
    got_reset(d, NULL);
}

/* For arrays that can not abort the former owner's commands when they take his key: they are waited out by a
 * reset. */
static void reset_lun(struct device_iscsi *d)
{
    log_info(d->env, "array has no PREEMPT AND ABORT, resetting the LUN", "device=%s", d->dev.name);
    /* Not iscsi_task_mgmt_lun_reset_async: that cancels what is under way, which must not happen inside a
     * callback. */
    if (iscsi_task_mgmt_async(d->context, d->url.lun, ISCSI_TM_LUN_RESET, 0xffffffff, 0, on_reset, d))
        iscsi_lose(d, "out of memory");
    else
        iscsi_update_events(d);
}

static void got_preempted(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (iscsi_unknown_command(a) && !d->no_abort) {
        d->no_abort = true;
        iscsi_script(d, ask_preempt, got_preempted);
    } else if (iscsi_unknown_command(a)) {
        unsupported(d);
    } else if (iscsi_good(a) && d->no_abort) {
        reset_lun(d);
    } else {
        read_again(d); /* a conflict: he has gone, or another one was faster */
    }
}

static void preempt(struct device_iscsi *d, uint64_t victim)
{
    log_info(d->env, "preempting a former owner of the LUN", "device=%s key=%016llx", d->dev.name,
             (unsigned long long)victim);
    d->victim = victim;
    iscsi_script(d, ask_preempt, got_preempted);
}

static void got_reserved(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (!iscsi_unknown_command(a)) {
        read_again(d);
    } else if (d->type == SCSI_PERSISTENT_RESERVE_TYPE_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY) {
        d->type = SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE_REGISTRANTS_ONLY;
        iscsi_script(d, ask_reserve, got_reserved);
    } else {
        unsupported(d);
    }
}

static void got_reservation(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (!iscsi_good(a) || scsi_parse_reservation(a->data, a->len, &d->reservation)) {
        withdraw(d, -EIO);
        return;
    }
    if (!has_key(d, d->key)) { /* somebody took us out between two commands */
        withdraw(d, -EBUSY);
        return;
    }
    if (!d->reservation.held) {
        iscsi_script(d, ask_reserve, got_reserved);
        return;
    }
    if (d->reservation.key != d->key || d->reservation.type != d->type) {
        preempt(d, d->reservation.key);
        return;
    }
    for (unsigned i = 0; i < d->keys.count; i++) {
        if (d->keys.keys[i] != d->key) {
            preempt(d, d->keys.keys[i]);
            return;
        }
    }
    iscsi_probe_start(d); /* goes on in iscsi_fence_probed */
}

void iscsi_fence_probed(struct device_iscsi *d, enum iscsi_probe_result result)
{
    if (d->script_goal != ISCSI_GOAL_ACQUIRE || d->lost)
        return;
    if (result == ISCSI_PROBE_LET_IN) {
        unsupported(d);
        return;
    }
    if (result == ISCSI_PROBE_UNKNOWN)
        log_warn(d->env, "could not check that the array refuses others, its word is taken for it",
                 "device=%s", d->dev.name);
    held(d);
}

static void got_keys(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (!iscsi_good(a) || scsi_parse_keys(a->data, a->len, &d->keys))
        withdraw(d, -EIO);
    else if (greater_key(d))
        withdraw(d, -ESTALE);
    else
        iscsi_script(d, ask_reservation, got_reservation);
}

static void read_again(struct device_iscsi *d)
{
    if (++d->fence_tries > TRIES_MAX)
        withdraw(d, -EBUSY);
    else
        iscsi_script(d, ask_keys, got_keys);
}

static void got_registered(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (iscsi_good(a)) {
        read_again(d);
    } else if (iscsi_unknown_command(a) && d->aptpl) {
        d->aptpl = false;
        iscsi_script(d, ask_register, got_registered);
    } else if (iscsi_unknown_command(a)) {
        unsupported(d);
    } else {
        iscsi_finish(d, -EIO);
    }
}

static void got_capabilities(struct device_iscsi *d, const struct iscsi_answer *a)
{
    d->aptpl = iscsi_good(a) && a->len >= 4 && (a->data[2] & 0x01);
    iscsi_script(d, ask_register, got_registered);
}

/* Before anything is changed there. */
static void got_first_keys(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (iscsi_unknown_command(a))
        unsupported(d);
    else if (!iscsi_good(a) || scsi_parse_keys(a->data, a->len, &d->keys))
        iscsi_finish(d, -EIO);
    else if (greater_key(d))
        iscsi_finish(d, -ESTALE);
    else
        iscsi_script(d, ask_capabilities, got_capabilities);
}

/* ---- confirming, while connecting ---- */

static void fence_lost(struct device_iscsi *d, const char *why)
{
    d->dev.fence_state = DEVICE_FENCE_LOST;
    iscsi_gone(d, why);
}

/* RESERVE by the holder changes nothing and succeeds only for a registered nexus: ours is. */
static void confirm_reserved(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (!iscsi_good(a)) {
        fence_lost(d, "the array does not take this session for the reservation's holder");
        return;
    }
    d->dev.fence_state = DEVICE_FENCE_HELD;
    iscsi_set_changed(d);
    iscsi_connected(d);
}

static void confirm_reservation(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (!iscsi_good(a) || scsi_parse_reservation(a->data, a->len, &d->reservation))
        iscsi_lose(d, "reading the reservation failed");
    else if (!d->reservation.held || d->reservation.key != d->key || d->reservation.type != d->type)
        fence_lost(d, d->reservation.held ? "another one holds the reservation"
                                          : "the array has forgotten the reservation");
    else
        iscsi_script(d, ask_reserve, confirm_reserved);
}

static void confirm_keys(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (!iscsi_good(a) || scsi_parse_keys(a->data, a->len, &d->keys))
        iscsi_lose(d, "reading the keys failed");
    else if (!has_key(d, d->key))
        fence_lost(d, "our key is registered no more");
    else
        iscsi_script(d, ask_reservation, confirm_reservation);
}

void iscsi_fence_confirm(struct device_iscsi *d)
{
    iscsi_script(d, ask_keys, confirm_keys);
}

/* ---- releasing ---- */

static void got_unregistered(struct device_iscsi *d, const struct iscsi_answer *a)
{
    if (iscsi_good(a)) {
        d->dev.fence_state = DEVICE_FENCE_NONE;
        d->dev.fence_key = 0;
        iscsi_set_changed(d);
    }
    iscsi_finish(d, iscsi_good(a) ? 0 : -EIO);
}

static void got_released(struct device_iscsi *d, const struct iscsi_answer *a)
{
    (void)a; /* not the holder: then there is only the key to take back */
    iscsi_script(d, ask_unregister, got_unregistered);
}

/* ---- the requests ---- */

static int start(struct device_iscsi *d, int goal, struct device_fence_request *req)
{
    if (d->dev.link_state == DEVICE_LINK_GONE)
        return -ENODEV;
    if (d->req)
        return -EBUSY;
    if (goal != ISCSI_GOAL_CONNECT && (d->dev.link_state == DEVICE_LINK_DOWN || d->lost))
        return -ENOTCONN;
    d->req = req;
    d->script_goal = goal;
    return 0;
}

static int fence_acquire(struct device *dev, uint64_t key, struct device_fence_request *req)
{
    struct device_iscsi *d = container_of(dev, struct device_iscsi, dev);
    int rc = start(d, ISCSI_GOAL_ACQUIRE, req);
    if (rc)
        return rc;
    d->key = key;
    d->fence_tries = 0;
    d->type = SCSI_PERSISTENT_RESERVE_TYPE_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY;
    iscsi_script(d, ask_keys, got_first_keys);
    return 0;
}

static int fence_reconnect(struct device *dev, struct device_fence_request *req)
{
    struct device_iscsi *d = container_of(dev, struct device_iscsi, dev);
    int rc = start(d, ISCSI_GOAL_CONNECT, req);
    if (rc)
        return rc;
    if (d->dev.link_state == DEVICE_LINK_UP && !d->lost)
        iscsi_finish(d, 0);
    else if (!d->lost) /* else the task gives up what is there, and then tries */
        loop_timer_arm(d->env->loop, &d->retry_timer, 0);
    return 0;
}

static int fence_release(struct device *dev, struct device_fence_request *req)
{
    struct device_iscsi *d = container_of(dev, struct device_iscsi, dev);
    int rc = start(d, ISCSI_GOAL_RELEASE, req);
    if (rc == 0)
        iscsi_script(d, ask_release, got_released);
    return rc;
}

const struct device_fence_ops iscsi_fence_ops = {
    .acquire = fence_acquire, .reconnect = fence_reconnect, .release = fence_release};
