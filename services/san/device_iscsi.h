/*
 * device_iscsi.h: a LUN of an array as a block device, through libiscsi on the loop, with its fence
 * (common/device/fence.h).
 *
 * One session; libiscsi's own reconnecting is off, because it sends unanswered writes again, which a fence
 * can not stop. When the session is lost (closed, silent for too long, a request unanswered for too long), or
 * the array tells of a reset or of changed reservations (unit attention 29h, 2Ah), everything under way ends
 * with -EIO, the link is DOWN, and device->changed runs; device_fence_reconnect brings it back and proves
 * that the LUN and the reservation are still ours. A session that comes back is the same initiator port, so
 * that its registration holds where the array keeps it.
 *
 * Reservation conflict, or another's key: -ENODEV for good (fence LOST). The LUN vanished, or is another one
 * than it was: -ENODEV for good. LUNs of 512 and 4096 byte blocks. Requests beyond the array's largest
 * transfer are split.
 */
#ifndef CISTERN_SERVICES_SAN_DEVICE_ISCSI_H
#define CISTERN_SERVICES_SAN_DEVICE_ISCSI_H

#include "common/device/device.h"
#include "common/device/fence.h"

struct iscsi_lun_url {
    char portal[272]; /* "host:port", IPv6 in [] */
    char target[224];
    char user[128]; /* "" = no CHAP */
    int lun;
};
/* "iscsi://[user@]host[:port]/target/lun". -EINVAL with *why set; a password in it is refused (it would be
 * seen in ps). */
int iscsi_url_parse(const char *url, struct iscsi_lun_url *out, const char **why);

struct device_iscsi_options {
    const char *url;
    const char *initiator;   /* our iqn; required */
    const char *secret_file; /* CHAP secret; NULL = none */
    unsigned depth;          /* requests under way, 0 = 64 */
    uint64_t io_timeout_ns;  /* a request unanswered for so long ends the session, 0 = 15 s */
};
/*
 * Makes the device, not connected: link_state DOWN, size 0. device_fence_reconnect connects; when it is done
 * with 0, size, io_bytes and the rest are known. Resolves the host's name (may block: for starts). 0;
 * -EINVAL: url, initiator or secret, said in the log; -EHOSTUNREACH: the name is not known; -ENOMEM;
 * -ENOTSUP: not on this loop. device_destroy drops the session at once, without a log-out; the reservation
 * stays.
 */
int device_open_iscsi(struct env *env, const struct device_iscsi_options *options, struct device **out);

#endif
