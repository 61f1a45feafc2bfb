/*
 * fence.h: the right to use a medium that several processes can reach: a LUN.
 *
 * The array holds a reservation for a key (SCSI persistent reservations, exclusive access, registrants only)
 * and refuses everybody else's requests, those too that were on their way when the key changed hands. Keys
 * are the caller's, never 0, and compare as numbers: a greater key is a later owner (epoch in the upper
 * bits), and acquire never takes the medium from a greater one.
 *
 * A link that was lost, or an array that was reset, makes the fence uncertain: requests that were under way
 * end with -EIO (they may have happened, and may happen yet), submit answers -ENOTCONN, device->changed runs;
 * the owner then calls device_fence_reconnect, which finds out whether the key still holds. Nothing reaches
 * the medium before that.
 *
 * Thread: the loop's. One request at a time per device (-EBUSY). 0 from a start: done runs once, later,
 * unless the device is destroyed before.
 */
#ifndef CISTERN_COMMON_DEVICE_FENCE_H
#define CISTERN_COMMON_DEVICE_FENCE_H

#include "common/device/device.h"

/* Embedded in the caller's object. */
struct device_fence_request {
    void (*done)(struct device_fence_request *, int rc);
};
struct device_fence_ops {
    int (*acquire)(struct device *, uint64_t key, struct device_fence_request *);
    int (*reconnect)(struct device *, struct device_fence_request *);
    int (*release)(struct device *, struct device_fence_request *);
};

/*
 * Makes key the holder; whoever held it before is out, his requests under way included. done: 0: fence_state
 * is HELD; -ESTALE: a greater key is registered, nothing was taken; -ENOTSUP: the array does not enforce
 * reservations (fence_state UNSUPPORTED; the device can be used, on the operator's word that nobody else
 * does); -EBUSY: lost too many races; -ENOTCONN, -EIO, -ENODEV: the link. Start: -EINVAL: key 0; -ENOTSUP:
 * this device has no fence at all (dev->fence is NULL).
 */
int device_fence_acquire(struct device *dev, uint64_t key, struct device_fence_request *req);
/*
 * A new link where it is down (tried again with growing pauses for as long as it takes), then, when a key was
 * acquired, the proof that it still holds. done: 0: submit works again; -ENODEV: another key holds, or ours
 * is forgotten, or the medium is gone or another: link_state GONE.
 */
int device_fence_reconnect(struct device *dev, struct device_fence_request *req);
/* Gives the reservation and the key back, for an orderly stop. done: 0 or -errno; afterwards fence_state is
 * NONE. */
int device_fence_release(struct device *dev, struct device_fence_request *req);
/* "held" ..., for messages. */
const char *device_fence_text(enum device_fence_state state);

#endif
