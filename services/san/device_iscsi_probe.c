/*
 * device_iscsi_probe.c: whether the array means its reservations.
 *
 * Some arrays accept every command of persistent reservations and then enforce nothing. So, once we hold the
 * reservation, a second session from an initiator port that has no registration reads one block: exclusive
 * access means that it must be refused. An array that cannot be asked (no second session, no answer in time)
 * is not held to be lying.
 */
#include <sys/epoll.h>

#include "services/san/device_iscsi_internal.h"

enum { PROBE_TIMEOUT_S = 5, PROBE_TRIES_MAX = 10, PROBE_QUALIFIER = 1 };

static void end(struct device_iscsi *d, enum iscsi_probe_result result)
{
    struct iscsi_probe *p = &d->probe;
    if (p->ended)
        return;
    p->ended = true;
    p->result = result;
    loop_defer(d->env->loop, &p->task); /* not here: we may be inside libiscsi */
}

static void on_task(struct loop_task *task)
{
    struct device_iscsi *d = container_of(task, struct device_iscsi, probe.task);
    enum iscsi_probe_result result = d->probe.result;
    iscsi_probe_cancel(d);
    iscsi_fence_probed(d, result);
}

static void on_timer(struct loop_timer *t)
{
    end(container_of(t, struct device_iscsi, probe.timer), ISCSI_PROBE_UNKNOWN);
}

static void ask(struct device_iscsi *d);

static void on_read(struct iscsi_context *context, int status, void *data, void *arg)
{
    struct device_iscsi *d = arg;
    struct scsi_task *command = d->probe.command;
    bool attention = status == SCSI_STATUS_CHECK_CONDITION && command->sense.key == SCSI_SENSE_UNIT_ATTENTION;
    (void)context;
    (void)data;
    d->probe.command = NULL;
    scsi_free_scsi_task(command);
    if (d->probe.ended)
        return;
    if (status == SCSI_STATUS_GOOD)
        end(d, ISCSI_PROBE_LET_IN);
    else if (status == SCSI_STATUS_RESERVATION_CONFLICT)
        end(d, ISCSI_PROBE_REFUSED);
    else if (attention && ++d->probe.tries < PROBE_TRIES_MAX)
        ask(d);
    else
        end(d, ISCSI_PROBE_UNKNOWN);
}

static void ask(struct device_iscsi *d)
{
    d->probe.command = iscsi_read16_task(d->probe.context, d->url.lun, 0, d->dev.io_bytes,
                                         (int)d->dev.io_bytes, 0, 0, 0, 0, 0, on_read, d);
    if (!d->probe.command)
        end(d, ISCSI_PROBE_UNKNOWN);
}

static void on_login(struct iscsi_context *context, int status, void *data, void *arg)
{
    struct device_iscsi *d = arg;
    (void)context;
    (void)data;
    if (d->probe.ended)
        return;
    if (status == SCSI_STATUS_GOOD)
        ask(d);
    else
        end(d, ISCSI_PROBE_UNKNOWN);
}

static void on_connect(struct iscsi_context *context, int status, void *data, void *arg)
{
    struct device_iscsi *d = arg;
    (void)data;
    if (d->probe.ended)
        return;
    if (status != SCSI_STATUS_GOOD || iscsi_login_async(context, on_login, d))
        end(d, ISCSI_PROBE_UNKNOWN);
}

static void on_fd(struct loop_fd *f, uint32_t events)
{
    struct device_iscsi *d = container_of(f, struct device_iscsi, probe.fd);
    if (d->probe.ended)
        return;
    if (iscsi_service(d->probe.context, (int)(events & (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP))) < 0 ||
        (events & EPOLLRDHUP) ||
        loop_fd_modify(d->env->loop, f, (uint32_t)iscsi_which_events(d->probe.context) | EPOLLRDHUP))
        end(d, ISCSI_PROBE_UNKNOWN);
}

void iscsi_probe_init(struct device_iscsi *d)
{
    loop_timer_init(&d->probe.timer, on_timer);
    loop_task_init(&d->probe.task, on_task);
}

void iscsi_probe_start(struct device_iscsi *d)
{
    struct iscsi_probe *p = &d->probe;
    p->ended = false;
    p->tries = 0;
    if (d->type != SCSI_PERSISTENT_RESERVE_TYPE_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY) {
        end(d, ISCSI_PROBE_UNKNOWN); /* reading is everybody's then, and we do not write to find out */
        return;
    }
    p->context = iscsi_create_context(d->initiator);
    if (!p->context || iscsi_configure(d, p->context, PROBE_QUALIFIER) ||
        iscsi_connect_async(p->context, d->url.portal, on_connect, d)) {
        end(d, ISCSI_PROBE_UNKNOWN);
        return;
    }
    loop_timer_arm(d->env->loop, &p->timer, PROBE_TIMEOUT_S * NS_PER_S);
    uint32_t events = (uint32_t)iscsi_which_events(p->context) | EPOLLRDHUP;
    p->fd_added = loop_fd_add(d->env->loop, &p->fd, iscsi_get_fd(p->context), events, on_fd) == 0;
    if (!p->fd_added)
        end(d, ISCSI_PROBE_UNKNOWN);
}

void iscsi_probe_cancel(struct device_iscsi *d)
{
    struct iscsi_probe *p = &d->probe;
    loop_timer_cancel(d->env->loop, &p->timer);
    loop_task_cancel(d->env->loop, &p->task);
    p->ended = true;
    if (p->fd_added)
        loop_fd_remove(d->env->loop, &p->fd);
    p->fd_added = false;
    if (!p->context)
        return;
    iscsi_scsi_cancel_all_tasks(p->context);
    iscsi_destroy_context(p->context);
    p->context = NULL;
    if (p->command)
        scsi_free_scsi_task(p->command);
    p->command = NULL;
}
