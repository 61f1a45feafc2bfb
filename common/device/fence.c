#include "common/device/fence.h"

int device_fence_acquire(struct device *dev, uint64_t key, struct device_fence_request *req)
{
    if (!dev->fence)
        return -ENOTSUP;
    return key == 0 ? -EINVAL : dev->fence->acquire(dev, key, req);
}

int device_fence_reconnect(struct device *dev, struct device_fence_request *req)
{
    return dev->fence ? dev->fence->reconnect(dev, req) : -ENOTSUP;
}

int device_fence_release(struct device *dev, struct device_fence_request *req)
{
    return dev->fence ? dev->fence->release(dev, req) : -ENOTSUP;
}

const char *device_fence_text(enum device_fence_state state)
{
    switch (state) {
    case DEVICE_FENCE_NONE:
        return "none";
    case DEVICE_FENCE_HELD:
        return "held";
    case DEVICE_FENCE_UNCERTAIN:
        return "uncertain";
    case DEVICE_FENCE_LOST:
        return "lost";
    case DEVICE_FENCE_UNSUPPORTED:
        return "unsupported";
    }
    return "unknown";
}
