/* rwm_fixture.c: see rwm_fixture.h. */
#include "tests/unit/rwm_fixture.h"

#include "common/crc.h"

#include <stdio.h>
#include <stdlib.h>

#define SERVER_HOST 1u
#define CLIENT_HOST 2u
#define PORT        7200u

static struct fabric_addr server_addr(void)
{
    struct fabric_addr a = {.provider = FABRIC_PROVIDER_SIM, .port = PORT, .ip = {SERVER_HOST}};
    return a;
}

static void proc_start(struct fix *f, struct fix_proc *p, const char *name, uint32_t host,
                       enum fabric_role role, uint64_t incarnation)
{
    assert_int_equal(loop_create_sim(f->world, name, 0, &p->loop), 0);
    sim_world_fork_rng(f->world, name, &p->rng);
    p->env = (struct env){.loop = p->loop, .rng = &p->rng, .name = name};
    struct fabric_config config = {.cluster = fake_uuid(0xcc),
                                   .secret = "a secret of a test",
                                   .secret_len = 18,
                                   .role = role,
                                   .incarnation = incarnation};
    assert_int_equal(fabric_create_sim(&p->env, f->net, host, &config, &p->env.fabric), 0);
}

static void proc_end(struct fix_proc *p)
{
    sim_loop_kill(p->loop);
    fabric_destroy(p->env.fabric);
    loop_destroy(p->loop);
    p->loop = NULL;
}

static void module_failed(void *user, int rc, const char *text)
{
    struct fix *f = user;
    f->failed_rc = rc;
    snprintf(f->failed_text, sizeof(f->failed_text), "%s", text);
}

static void module_serving(void *user)
{
    struct fix *f = user;
    assert_false(f->serving);
    f->serving = true;
}

void fix_start_module(struct fix *f)
{
    static const struct rwm_events events = {.failed = module_failed, .serving = module_serving};
    struct fabric_addr listen = server_addr();
    f->incarnation++;
    f->serving = f->shut = false;
    f->failed_rc = 0;
    proc_start(f, &f->server, "osd", SERVER_HOST, FABRIC_ROLE_MODULE, f->incarnation);
    f->config.incarnation = f->incarnation;
    assert_int_equal(rwm_host_create(&f->server.env, &listen, &f->host), 0);
    assert_int_equal(
        rwm_create(&f->server.env, f->host, &f->medium->device, NULL, &f->config, &events, f, &f->rwm), 0);
}

void fix_kill_module(struct fix *f)
{
    sim_loop_kill(f->server.loop);
    if (f->rwm)
        rwm_destroy(f->rwm);
    if (f->host)
        rwm_host_destroy(f->host);
    f->rwm = NULL;
    f->host = NULL;
    proc_end(&f->server);
}

void fix_run(struct fix *f, uint64_t ns)
{
    sim_world_run_until(f->world, sim_world_now(f->world) + ns);
}

bool fix_wait_serving(struct fix *f)
{
    for (unsigned i = 0; i < 200 && !f->serving; i++)
        fix_run(f, NS_PER_MS);
    return f->serving;
}

void fix_init(struct fix *f, uint64_t seed)
{
    memset(f, 0, sizeof(*f));
    assert_int_equal(sim_world_create(seed, &f->world), 0);
    assert_int_equal(sim_net_create(f->world, &f->net), 0);
    f->mdc = fake_mdc_create(1);
    f->medium = fake_medium_create();
    fake_mdc_volume(f->mdc, 0, 1, 1, FIX_VOLUME_BYTES, TABLE_VOLUME_READY);
    f->config = (struct rwm_config){.name = "osd1",
                                    .host = "h1",
                                    .kind = TABLE_MODULE_OSD,
                                    .media = TABLE_MEDIA_SSD,
                                    .mdc_count = 1,
                                    .buffer_bytes = 1,
                                    .requests_max = 8};
    f->incarnation = 100;
    proc_start(f, &f->client, "client", CLIENT_HOST, FABRIC_ROLE_VBS, 5);
    fix_start_module(f);
    assert_true(fix_wait_serving(f));
}

void fix_end(struct fix *f)
{
    if (f->server.loop)
        fix_kill_module(f);
    proc_end(&f->client);
    sim_net_destroy(f->net);
    sim_world_destroy(f->world);
    fake_mdc_destroy(f->mdc);
    free(f->medium);
}

/* ---- connections ---- */
static void conn_up(void *service, struct rpc_peer *peer)
{
    struct fix_conn *c = service;
    (void)peer;
    c->up = true;
}

static void conn_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct fix_conn *c = service;
    (void)peer;
    (void)reason;
    c->up = false;
    c->down = true;
    c->peer = NULL;
}

void fix_connect(struct fix *f, struct fix_conn *c)
{
    static const struct rpc_events events = {.up = conn_up, .down = conn_down};
    struct fabric_addr addr = server_addr();
    *c = (struct fix_conn){.fix = f};
    struct rpc_service service = {.events = &events, .service = c};
    assert_int_equal(rpc_connect(&f->client.env, &addr, FABRIC_DOMAIN_HOST, &service, &c->peer), 0);
    for (unsigned i = 0; i < 1000 && !c->up; i++)
        fix_run(f, NS_PER_MS);
    assert_true(c->up);
}

void fix_close(struct fix_conn *c)
{
    if (c->peer)
        rpc_abandon(c->peer);
    c->peer = NULL;
    c->up = false;
}

static void req_done(struct rpc_call *call, const struct rpc_result *result)
{
    struct fix_req *r = container_of(call, struct fix_req, call);
    r->done = true;
    r->rc = result->rc;
    r->status = result->rc ? STATUS_DISCONNECTED : result->status;
    r->payload_len = result->payload_len;
    r->payload_crc = result->payload_crc;
    if (result->rc == 0 && result->body_len >= sizeof(r->reply)) {
        memcpy(&r->reply, result->body, sizeof(r->reply));
        r->extra_len = result->body_len - (uint32_t)sizeof(r->reply);
        assert_true(r->extra_len <= sizeof(r->extra));
        memcpy(r->extra, (const uint8_t *)result->body + sizeof(r->reply), r->extra_len);
    }
}

uint32_t fix_hello(struct fix_conn *c, uint32_t module, uint64_t instance, uint64_t sequence)
{
    struct block_hello hello = {.module = module, .instance = instance, .sequence = sequence};
    struct fix_req r = {0};
    r.call = (struct rpc_call){
        .method = BLOCK_METHOD_HELLO, .body = &hello, .body_len = sizeof(hello), .done = req_done};
    assert_int_equal(rpc_call_start(c->peer, &r.call), 0);
    fix_wait(c->fix, &r);
    return r.status;
}

void fix_open(struct fix *f, struct fix_conn *c)
{
    static uint64_t sequence;
    fix_connect(f, c);
    assert_int_equal(fix_hello(c, 1, 7, ++sequence), STATUS_OK);
}

/* ---- requests ---- */
void fix_request(struct fix *f, struct fix_req *r, uint64_t offset, uint32_t length)
{
    memset(r, 0, sizeof(*r));
    uint32_t partition =
        placement_partition(placement_hash(1, offset / FAKE_STRIPE), fake_mdc_partitions(f->mdc));
    r->body = (struct block_request){.pool = 1,
                                     .partition = partition,
                                     .epoch = fake_mdc_epoch(f->mdc, partition),
                                     .incarnation = f->incarnation,
                                     .volume = fake_uuid(1),
                                     .generation = 1,
                                     .turn = 1,
                                     .host = 33,
                                     .offset = offset,
                                     .length = length};
}

void fix_send(struct fix_conn *c, struct fix_req *r, uint16_t method, void *data)
{
    r->call =
        (struct rpc_call){.method = method, .body = &r->body, .body_len = sizeof(r->body), .done = req_done};
    r->sge = (struct fabric_sge){.base = data, .len = r->body.length};
    if (method == BLOCK_METHOD_WRITE) {
        r->call.source = &r->sge;
        r->call.source_count = 1;
        r->call.source_crc = r->payload_crc ? r->payload_crc : crc32c(data, r->body.length);
    } else if (method == BLOCK_METHOD_READ) {
        r->call.sink = &r->sge;
        r->call.sink_count = 1;
    }
    r->data = data;
    r->done = false;
    assert_int_equal(rpc_call_start(c->peer, &r->call), 0);
}

void fix_wait(struct fix *f, struct fix_req *r)
{
    for (unsigned i = 0; i < 100000 && !r->done; i++)
        fix_run(f, 100 * NS_PER_US);
    assert_true(r->done);
}

uint32_t fix_do(struct fix_conn *c, struct fix_req *r, uint16_t method, void *data)
{
    fix_send(c, r, method, data);
    fix_wait(c->fix, r);
    if (method == BLOCK_METHOD_READ && r->status == STATUS_OK) {
        assert_int_equal(r->reply.length, r->body.length);
        if (r->reply.holes) {
            assert_int_equal(r->payload_len, 0);
            memset(data, 0, r->body.length);
        } else {
            assert_int_equal(r->payload_len, r->body.length);
            assert_int_equal(r->payload_crc, crc32c(data, r->body.length));
        }
    }
    return r->status;
}

uint32_t fix_io(struct fix_conn *c, uint16_t method, uint64_t offset, uint32_t length, void *data)
{
    struct fix_req r;
    fix_request(c->fix, &r, offset, length);
    return fix_do(c, &r, method, data);
}
