/*
 * Associations. OPEN draws a turn; CLOSE, the end of the connection or the loss of the volume ends it. An
 * association that ends drops what has not been sent, waits for what a module holds, then closes its volume.
 * It never comes back: the client opens again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/vbs/gateway_internal.h"

void gateway_reply_error(struct rpc_request *rpc, int rc, const char *text)
{
    struct mdc_error error = {0};
    uint8_t body[512];
    size_t len = 0;
    snprintf(error.text, sizeof error.text, "%s", text);
    if (wire_encode(&mdc_error_type, &error, body, sizeof body, &len) != 0)
        len = 0;
    rpc_reply(rpc, rc == -ESTALE ? STATUS_STALE_TURN : status_from_errno(rc), body, (uint32_t)len);
}

static void open_free(struct gateway_open *open)
{
    struct gateway_client *client = open->client;
    client->gw->stats.volumes--;
    client->open_count--;
    list_remove(&open->link);
    free(open);
    gateway_client_rest(client);
}

struct gateway_open *gateway_find_open(struct gateway_client *client, uint32_t handle)
{
    list_for_each(n, &client->opens)
    {
        struct gateway_open *open = list_entry(n, struct gateway_open, link);
        if (open->handle == handle)
            return open->ending || open->volume == NULL ? NULL : open;
    }
    return NULL;
}

static void on_volume_closed(void *arg)
{
    struct gateway_open *open = arg;
    if (open->close_rpc != NULL)
        rpc_reply(open->close_rpc, STATUS_OK, NULL, 0);
    open_free(open);
}

void gateway_open_rest(struct gateway_open *open)
{
    if (!open->ending || open->closing || open->requests != 0 || open->volume == NULL)
        return;
    open->closing = true;
    volume_close(open->volume, on_volume_closed, open);
}

void gateway_open_end(struct gateway_open *open)
{
    if (open->ending)
        return;
    open->ending = true;
    open->requests++; /* it stays until this function is done with it */
    gateway_drop_waiting(open);
    if (open->volume != NULL)
        volume_cancel(open->volume);
    open->requests--;
    gateway_open_rest(open);
}

static void on_volume_changed(void *arg, int rc)
{
    struct gateway_open *open = arg;
    if (rc != 0 || open->client->peer == NULL)
        return; /* lost: the next request is answered with it */
    struct volume_info info;
    volume_info_get(open->volume, &info);
    struct vbs_resized msg = {.handle = open->handle, .size_bytes = info.size_bytes};
    (void)rpc_notify(open->client->peer, VBS_METHOD_RESIZED, &msg, sizeof msg);
}

static void open_reply_ok(struct gateway_open *open)
{
    struct volume_info info;
    volume_info_get(open->volume, &info);
    struct vbs_open_reply reply = {
        .handle = open->handle,
        .size_bytes = info.size_bytes,
        .block_bytes = info.block_bytes,
        .stripe_bytes = info.stripe_bytes,
        .volume = info.id,
        .generation = info.generation,
    };
    uint8_t body[512];
    size_t len = 0;
    MUST(wire_encode(&vbs_open_reply_type, &reply, body, sizeof body, &len) == 0);
    rpc_reply(open->open_rpc, STATUS_OK, body, (uint32_t)len);
    open->open_rpc = NULL;
}

static void on_volume_open(void *arg, struct volume *volume, int rc, const char *text)
{
    struct gateway_open *open = arg;
    if (rc != 0) {
        gateway_reply_error(open->open_rpc, rc, text);
        open_free(open);
        return;
    }
    open->volume = volume;
    if (open->ending) { /* the client has gone meanwhile */
        rpc_reply(open->open_rpc, STATUS_DISCONNECTED, NULL, 0);
        open->open_rpc = NULL;
        gateway_open_rest(open);
        return;
    }
    volume_set_changed(volume, on_volume_changed, open);
    open_reply_ok(open);
}

void gateway_handle_open(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)
{
    struct gateway *gw = service;
    struct gateway_client *client = rpc_peer_user(rpc_request_peer(rpc));
    struct vbs_open_request r;
    if (client == NULL || wire_decode(&vbs_open_request_type, body, body_len, &r, NULL) != 0) {
        gateway_reply_error(rpc, client == NULL ? -ENOTCONN : -EPROTO,
                            "the request to open a volume makes no sense");
        return;
    }
    struct gateway_open *open =
        client->open_count < GATEWAY_OPENS_PER_CLIENT ? calloc(1, sizeof *open) : NULL;
    if (open == NULL) {
        gateway_reply_error(rpc, -ENOMEM,
                            "the gateway cannot hold more open volumes of this client: close some");
        return;
    }
    open->client = client;
    open->open_rpc = rpc;
    open->handle = ++gw->next_handle != 0 ? gw->next_handle : ++gw->next_handle;
    list_init(&open->link);
    struct volume_open_options options = {
        .instance = r.instance,
        .read_only = r.read_only,
        .shared = r.shared,
        .take_over = r.take_over,
        .one_turn = true,
        .id = r.id,
        .held = r.held,
        .serial = r.serial,
    };
    _Static_assert(sizeof options.name == sizeof r.volume && sizeof options.host == sizeof r.host,
                   "names fit");
    memcpy(options.name, r.volume, sizeof options.name);
    memcpy(options.host, r.host, sizeof options.host);
    int rc = volume_open(gw->core, &options, on_volume_open, open);
    if (rc != 0) {
        free(open);
        gateway_reply_error(rpc, rc,
                            rc == -EINVAL ? "that is not a legal name of a volume or a host"
                                          : "the gateway is out of memory");
        return;
    }
    list_push_back(&client->opens, &open->link);
    client->open_count++;
    gw->stats.volumes++;
}

void gateway_handle_close(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)
{
    struct gateway_client *client = rpc_peer_user(rpc_request_peer(rpc));
    struct vbs_io io;
    (void)service;
    (void)body_len;
    memcpy(&io, body, sizeof io);
    struct gateway_open *open = client != NULL ? gateway_find_open(client, io.handle) : NULL;
    if (open == NULL) {
        gateway_reply_error(rpc, -ENOENT, "that volume is not open here");
        return;
    }
    open->close_rpc = rpc;
    gateway_open_end(open);
}
