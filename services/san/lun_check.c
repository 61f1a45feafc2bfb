/*
 * lun_check.c: see lun_check.h. No reservation is asked for: taking it would throw out a living agent. The
 * array refuses the reads while an agent holds one; an array that does not enforce reservations does not, so
 * the operator is warned.
 */
#include "services/san/lun_check.h"

#include <stdio.h>
#include <string.h>

#include "common/loop.h"
#include "services/san/device_iscsi.h"

#define CONNECT_NS (30 * NS_PER_S)

struct connecting {
    struct device_fence_request request;
    bool done;
    int rc;
};

static void connected(struct device_fence_request *req, int rc)
{
    struct connecting *c = container_of(req, struct connecting, request);
    c->done = true;
    c->rc = rc;
}

static int open_lun(struct env *env, const struct lun_check *c, const char *url, struct device **out)
{
    struct connecting k = {.request = {.done = connected}};
    struct device *device;
    if (strncmp(url, "iscsi://", 8) != 0) {
        const struct device_open_options local = {.read_only = true};
        return device_open_file(env, url, &local, out);
    }
    const struct device_iscsi_options remote = {
        .url = url,
        .initiator = c->initiator && c->initiator[0] ? c->initiator : "iqn.2026-01.org.cistern:check",
        .secret_file = c->secret_file,
        .io_timeout_ns = c->io_timeout_ns};
    int rc = device_open_iscsi(env, &remote, &device);
    if (rc)
        return rc;
    uint64_t end = loop_clock_ns(env->loop) + CONNECT_NS;
    rc = device_fence_reconnect(device, &k.request);
    while (rc == 0 && !k.done && loop_clock_ns(env->loop) < end)
        loop_run_once(env->loop, 100 * NS_PER_MS);
    if (rc == 0)
        rc = k.done ? k.rc : -ETIMEDOUT;
    if (rc) {
        device_destroy(device);
        return rc;
    }
    device->read_only = true;
    *out = device;
    return 0;
}

static int check_one(struct env *env, const struct lun_check *c, const char *url)
{
    struct device *device;
    char command[700];
    int rc = open_lun(env, c, url, &device);
    if (rc)
        return store_tool_failed(c->tool, url, rc);
    snprintf(command, sizeof(command), "cistern-san --lun %s", url);
    int status = store_tool_run(env, c->tool, command, false, device, NULL);
    if (device->fence_state == DEVICE_FENCE_LOST)
        fprintf(stderr,
                "%s: another one has a reservation on it: stop the agent that serves it, then check again\n",
                url);
    device_destroy(device);
    return status;
}

int lun_check_all(struct env *env, const struct lun_check *c)
{
    int worst = STORE_TOOL_CLEAN;
    fprintf(
        stderr,
        "no reservation is taken: make sure that no agent has the LUN, or errors are found that are not there\n");
    for (const char *at = c->luns; *at;) {
        size_t len = strcspn(at, ",");
        char url[512];
        if (len >= sizeof(url)) {
            fprintf(stderr, "a LUN's name is too long: %s\n", at);
            return STORE_TOOL_REFUSED;
        }
        memcpy(url, at, len);
        url[len] = 0;
        at += len + (at[len] == ',');
        int status = len ? check_one(env, c, url) : STORE_TOOL_CLEAN;
        if (status == STORE_TOOL_STOPPED)
            return status;
        if (status > worst)
            worst = status;
    }
    return worst;
}
