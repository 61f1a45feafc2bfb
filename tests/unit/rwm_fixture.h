/*
 * rwm_fixture.h: one module over a fake store and a fake metadata controller, and clients that send it block
 * requests over the simulated network.
 */
#ifndef CISTERN_TESTS_RWM_FIXTURE_H
#define CISTERN_TESTS_RWM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/sim.h"
#include "common/wire/block_proto.h"
#include "rdma/fabric_sim.h"
#include "rdma/rpc.h"
#include "services/rwm/rwm.h"
#include "tests/unit/fake_cluster.h"
#include "tests/unit/fake_store.h"

#define FIX_VOLUME_BYTES (8 * MIB)
struct fix_proc {
    struct loop *loop;
    struct rng rng;
    struct env env;
};
struct fix {
    struct sim_world *world;
    struct sim_net *net;
    struct fake_mdc *mdc;
    struct fake_medium *medium;
    struct fix_proc server, client;
    struct rwm_config config;
    struct rwm_host *host;
    struct rwm *rwm;
    uint64_t incarnation;
    bool serving, shut;
    int failed_rc, shut_rc;
    char failed_text[512];
};
struct fix_conn {
    struct fix *fix;
    struct rpc_peer *peer;
    bool up, down;
};
struct fix_req {
    struct rpc_call call;
    struct block_request body;
    struct fabric_sge sge;
    uint8_t *data;
    bool done;
    int rc;
    uint32_t status, payload_len, payload_crc, extra_len;
    struct block_reply reply;
    uint8_t extra[256];
};

/* A world with a volume 1 of 8 MiB, generation 1, and a module that serves. */
void fix_init(struct fix *f, uint64_t seed);
void fix_end(struct fix *f);
/* The module starts again over what is durable; the world goes on. */
void fix_start_module(struct fix *f);
/* kill -9. */
void fix_kill_module(struct fix *f);
void fix_run(struct fix *f, uint64_t ns);
bool fix_wait_serving(struct fix *f);

void fix_connect(struct fix *f, struct fix_conn *c);
uint32_t fix_hello(struct fix_conn *c, uint32_t module, uint64_t instance, uint64_t sequence);
/* Both, as instance 7 with a growing sequence. */
void fix_open(struct fix *f, struct fix_conn *c);
void fix_close(struct fix_conn *c);

/* Fills a request for volume 1 with what is right now; change what you like before fix_send. */
void fix_request(struct fix *f, struct fix_req *r, uint64_t offset, uint32_t length);
/* data: WRITE's payload, READ's sink. */
void fix_send(struct fix_conn *c, struct fix_req *r, uint16_t method, void *data);
void fix_wait(struct fix *f, struct fix_req *r);
/* Send and wait; the status. */
uint32_t fix_do(struct fix_conn *c, struct fix_req *r, uint16_t method, void *data);
/* fix_request and fix_do. */
uint32_t fix_io(struct fix_conn *c, uint16_t method, uint64_t offset, uint32_t length, void *data);

#endif
