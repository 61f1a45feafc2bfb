/* rwm_host.c: one listener for the modules of a process. HELLO binds a connection to a module, and ends the
 * older connection of the same client: what that one still had in hand and unversioned can do nothing any
 * more. */
#include "services/rwm/rwm_copies.h"
#include "services/rwm/rwm_metrics.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

static struct rwm_conn *conn_of(struct rpc_request *rpc)
{
    return rpc_peer_user(rpc_request_peer(rpc));
}

/* Requests of a connection that is gone get no version any more. */
static void conn_forget(struct rwm_conn *conn)
{
    while (!list_empty(&conn->requests)) {
        struct rwm_request *req = list_entry(list_pop_front(&conn->requests), struct rwm_request, conn_link);
        req->dropped = true;
        req->conn = NULL;
    }
    if (conn->instance)
        conn->instance->conn = NULL;
    list_remove(&conn->link);
    free(conn);
}

static void host_up(void *service, struct rpc_peer *peer)
{
    struct rwm_host *h = service;
    struct rwm_conn *conn = calloc(1, sizeof(*conn));
    if (!conn)
        return; /* its requests are refused */
    list_init(&conn->requests);
    conn->host = h;
    conn->peer = peer;
    list_push_back(&h->conns, &conn->link);
    rpc_peer_set_user(peer, conn);
}

static void host_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct rwm_conn *conn = rpc_peer_user(peer);
    (void)service;
    rpc_peer_set_user(peer, NULL);
    if (conn && conn->from_module != 0)
        rwm_grant_conn_lost(conn, reason);
    if (conn)
        conn_forget(conn);
}

static struct rwm *host_module(const struct rwm_host *h, uint32_t id)
{
    list_for_each(n, &h->modules)
    {
        struct rwm *m = list_entry(n, struct rwm, host_link);
        if (id != 0 && m->id == id)
            return m;
    }
    return NULL;
}

/* The memory of an instance; the longest unused one without a connection makes room. NULL: all have one. */
static struct rwm_instance *instance_get(struct rwm *m, uint64_t instance)
{
    list_for_each(n, &m->instances)
    {
        struct rwm_instance *i = list_entry(n, struct rwm_instance, link);
        if (i->instance == instance)
            return i;
    }
    struct list *free_one = list_pop_front(&m->instances_free);
    if (!free_one) {
        list_for_each(n, &m->instances)
        {
            if (list_entry(n, struct rwm_instance, link)->conn == NULL) {
                free_one = n;
                break;
            }
        }
        if (!free_one)
            return NULL;
        list_remove(free_one);
    }
    struct rwm_instance *i = list_entry(free_one, struct rwm_instance, link);
    i->instance = instance;
    i->sequence = 0;
    i->conn = NULL;
    list_push_back(&m->instances, &i->link);
    return i;
}

static uint32_t conn_bind(struct rwm_conn *conn, struct rwm *m, uint64_t instance, uint64_t sequence)
{
    struct rwm_instance *i = instance_get(m, instance);
    if (!i)
        return STATUS_BUSY;
    if (sequence <= i->sequence)
        return STATUS_BUSY; /* a newer connection of that client was here already */
    struct rwm_conn *older = i->conn;
    if (older) {
        struct rpc_peer *peer = older->peer;
        rpc_peer_set_user(peer, NULL);
        conn_forget(older);
        rpc_close(peer);
    }
    list_remove(&i->link);
    list_push_back(&m->instances, &i->link);
    i->sequence = sequence;
    i->conn = conn;
    conn->instance = i;
    conn->m = m;
    return STATUS_OK;
}

static void handle_hello(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)
{
    struct rwm_host *h = service;
    struct rwm_conn *conn = conn_of(rpc);
    struct block_hello hello;
    (void)body_len;
    memcpy(&hello, body, sizeof(hello));
    struct rwm *m = host_module(h, le32toh(hello.module));
    uint32_t status = STATUS_OK;
    if (!conn || conn->m)
        status = STATUS_PROTOCOL;
    else if (!m || conn->lost)
        status = STATUS_NOT_SERVING;
    else
        status = conn_bind(conn, m, le64toh(hello.instance), le64toh(hello.sequence));
    struct block_reply reply;
    rwm_reply_fill(m, UINT32_MAX, &reply);
    rpc_reply(rpc, status, &reply, sizeof(reply));
}

/* Another module: its older connection ends before this one is served, like any client's. */
static void handle_peer_hello(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)
{
    struct rwm_host *h = service;
    struct rwm_conn *conn = conn_of(rpc);
    struct copy_peer_hello hello;
    (void)body_len;
    memcpy(&hello, body, sizeof(hello));
    struct rwm *m = host_module(h, hello.to_module);
    uint32_t status = STATUS_OK;
    const struct fabric_peer *info = conn ? rpc_peer_info(conn->peer) : NULL;
    if (!conn || conn->m || hello.from_module == 0 || !info || info->role != FABRIC_ROLE_MODULE)
        status = STATUS_PROTOCOL;
    else if (!m || conn->lost)
        status = STATUS_NOT_SERVING;
    else if (hello.to_incarnation != m->config.incarnation)
        status = STATUS_WRONG_INCARNATION;
    else
        status = conn_bind(conn, m, hello.from_incarnation, hello.sequence);
    if (status == STATUS_OK) {
        conn->from_module = hello.from_module;
        conn->from_incarnation = hello.from_incarnation;
    }
    rpc_reply(rpc, status, NULL, 0);
}

static void host_notify(void *service, struct rpc_peer *peer, uint16_t method, const void *body,
                        uint32_t body_len)
{
    struct rwm_conn *conn = rpc_peer_user(peer);
    (void)service;
    if (conn)
        rwm_serve_notify(conn, method, body, body_len);
}

static void host_copy(struct rpc_request *rpc, uint16_t method, const void *body, uint32_t body_len)
{
    struct rwm_conn *conn = conn_of(rpc);
    if (conn)
        rwm_serve_request(conn, rpc, method, body, body_len);
    else
        rwm_refuse(NULL, rpc, STATUS_NOT_SERVING);
}

static void host_request(struct rpc_request *rpc, uint16_t method, const void *body)
{
    struct rwm_conn *conn = conn_of(rpc);
    if (conn)
        rwm_request_arrived(conn, rpc, method, body);
    else
        rwm_refuse(NULL, rpc, STATUS_NOT_SERVING);
}

#define HANDLER(name, NAME)                                                                                  \
    static void handle_##name(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)   \
    {                                                                                                        \
        (void)service;                                                                                       \
        (void)body_len;                                                                                      \
        host_request(rpc, BLOCK_METHOD_##NAME, body);                                                        \
    }
HANDLER(read, READ)
HANDLER(write, WRITE)
HANDLER(discard, DISCARD)
HANDLER(zero, ZERO)
HANDLER(extents, EXTENTS)

#define COPY_HANDLER(name, NAME)                                                                             \
    static void handle_##name(void *service, struct rpc_request *rpc, const void *body, uint32_t body_len)   \
    {                                                                                                        \
        (void)service;                                                                                       \
        host_copy(rpc, COPY_METHOD_##NAME, body, body_len);                                                  \
    }
COPY_HANDLER(promise, PROMISE)
COPY_HANDLER(join, JOIN)
COPY_HANDLER(commit, COMMIT)
COPY_HANDLER(versions, VERSIONS)
COPY_HANDLER(forward, FORWARD)
COPY_HANDLER(replace, REPLACE)
COPY_HANDLER(fetch, FETCH)
COPY_HANDLER(turns, TURNS)
COPY_HANDLER(check, CHECK)
COPY_HANDLER(release, RELEASE)

static const struct rpc_method host_methods[] = {
#define BLOCK_METHOD(num, name_, handler_)                                                                   \
    {.number = num,                                                                                          \
     .name = #name_,                                                                                         \
     .handler = handle_##handler_,                                                                           \
     .body_min = (num) == BLOCK_METHOD_HELLO ? sizeof(struct block_hello) : sizeof(struct block_request)},
#include "common/wire/block.def"
#undef BLOCK_METHOD
#define COPY_METHOD(num, name_, handler_, request_)                                                          \
    {.number = num, .name = #name_, .handler = handle_##handler_, .body_min = sizeof(struct request_)},
#include "common/wire/copy.def"
#undef COPY_METHOD
};
static const struct rpc_events host_events = {.up = host_up, .down = host_down, .notify = host_notify};

static void host_figures(void *service, struct metrics_snapshot *out)
{
    rwm_host_metrics(service, out);
}

/* What destroyed modules left: their connections are closed, their requests answered. */
static void host_orphans(struct loop_task *task)
{
    struct rwm_host *h = container_of(task, struct rwm_host, orphan_task);
    list_for_each_safe(n, &h->conns)
    {
        struct rwm_conn *conn = list_entry(n, struct rwm_conn, link);
        if (!conn->lost)
            continue;
        struct rpc_peer *peer = conn->peer;
        rpc_peer_set_user(peer, NULL);
        conn_forget(conn);
        rpc_close(peer);
    }
    list_for_each_safe(n, &h->areas)
    {
        struct rwm_area *area = list_entry(n, struct rwm_area, link);
        if (area->m)
            continue;
        list_for_each_safe(r, &area->requests) rwm_request_orphaned(list_entry(r, struct rwm_request, all));
        rwm_area_release(area);
    }
}

int rwm_host_create(struct env *env, const struct fabric_addr *listen, struct rwm_host **out)
{
    struct rwm_host *h = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    h->env = env;
    list_init(&h->conns);
    list_init(&h->modules);
    list_init(&h->areas);
    loop_task_init(&h->orphan_task, host_orphans);
    struct rpc_service service = {.methods = host_methods,
                                  .method_count = ARRAY_LEN(host_methods),
                                  .events = &host_events,
                                  .service = h,
                                  .max_requests = RWM_HOST_REQUESTS,
                                  .figures = host_figures};
    uint32_t roles = 1u << FABRIC_ROLE_VBS | 1u << FABRIC_ROLE_CLIENT | 1u << FABRIC_ROLE_MODULE;
    int rc = rpc_listen(env, listen, &service, roles, &h->listener);
    if (rc) {
        free(h);
        return rc;
    }
    *out = h;
    return 0;
}

void rwm_host_addr(const struct rwm_host *h, struct fabric_addr *out)
{
    rpc_listener_addr(h->listener, out);
}

void rwm_host_destroy(struct rwm_host *h)
{
    rpc_listener_destroy(h->listener, true);
    loop_task_cancel(h->env->loop, &h->orphan_task);
    while (!list_empty(&h->conns))
        conn_forget(list_entry(h->conns.next, struct rwm_conn, link));
    while (!list_empty(&h->areas)) {
        struct rwm_area *area = list_entry(list_pop_front(&h->areas), struct rwm_area, link);
        area->host = NULL;
        list_for_each(n, &area->requests) list_entry(n, struct rwm_request, all)->rpc = NULL;
        if (!area->m)
            rwm_area_free(area);
    }
    while (!list_empty(&h->modules))
        list_entry(list_pop_front(&h->modules), struct rwm, host_link)->host = NULL;
    free(h);
}

void rwm_host_add(struct rwm_host *h, struct rwm *m)
{
    list_push_back(&h->modules, &m->host_link);
}

void rwm_host_remove(struct rwm_host *h, struct rwm *m)
{
    list_remove(&m->host_link);
    list_for_each(n, &h->conns)
    {
        struct rwm_conn *conn = list_entry(n, struct rwm_conn, link);
        if (conn->m != m)
            continue;
        conn->m = NULL;
        conn->instance = NULL;
        conn->lost = true;
        loop_defer(h->env->loop, &h->orphan_task);
    }
}
