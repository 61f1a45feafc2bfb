/* moves.c: see moves.h. */
#include "tests/sim/moves.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODULES   (SIM_OSDS + 1u)
#define GROW_MOST 2u /* from 16 partitions to 64 */

struct sim_moves {
    struct sim_cluster *cluster;
    struct cluster_call call;
    bool busy;
    struct mdc_module_reply reply;
    union {
        struct mdc_module_add_request add;
        struct mdc_module_request remove;
        struct mdc_module_drain_request drain;
        struct mdc_module_reweight_request reweight;
        struct mdc_pool_grow_request grow;
    } request;
    struct mdc_pool_reply pool;
    unsigned grown;
};

static void move_done(struct cluster_call *call, int rc)
{
    struct sim_moves *v = container_of(call, struct sim_moves, call);
    trace_point(v->cluster->trace, sim_world_now(v->cluster->world), "move", call->method, (uint64_t)-rc,
                call->status);
    v->busy = false;
    v->cluster->move_calls += rc == 0;
    v->grown += rc == 0 && call->method == MDC_METHOD_POOL_GROW;
}

static void move_call(struct sim_moves *v, uint16_t method, const struct wire_type *type)
{
    struct sim_cluster *c = v->cluster;
    v->call = (struct cluster_call){.method = method,
                                    .request_type = type,
                                    .request = &v->request,
                                    .reply_type = method == MDC_METHOD_POOL_GROW ? &mdc_pool_reply_type
                                                                                 : &mdc_module_reply_type,
                                    .reply = method == MDC_METHOD_POOL_GROW ? (void *)&v->pool : &v->reply,
                                    .timeout_ns = 20 * NS_PER_S,
                                    .done = move_done};
    v->busy = cluster_call_start(sim_cluster_proc(c, SIM_ADMIN, 0)->admin, &v->call) == 0;
}

/* NULL: not in this run, or something is under way. */
static struct sim_moves *moves_idle(struct sim_cluster *c)
{
    if (!c->options.moves)
        return NULL;
    if (!c->moves) {
        c->moves = calloc(1, sizeof(*c->moves));
        MUST(c->moves);
        c->moves->cluster = c;
    }
    if (c->moves->busy)
        return NULL;
    memset(&c->moves->request, 0, sizeof(c->moves->request));
    return c->moves;
}

void sim_moves_drain(struct sim_cluster *c, uint32_t module, bool undo)
{
    struct sim_moves *v = moves_idle(c);
    if (!v)
        return;
    v->request.drain = (struct mdc_module_drain_request){.module = module, .undo = undo};
    move_call(v, MDC_METHOD_MODULE_DRAIN, &mdc_module_drain_request_type);
}

void sim_moves_weigh(struct sim_cluster *c, uint32_t module, uint64_t weight_bytes)
{
    struct sim_moves *v = moves_idle(c);
    if (!v)
        return;
    v->request.reweight =
        (struct mdc_module_reweight_request){.module = module, .weight_bytes = weight_bytes};
    move_call(v, MDC_METHOD_MODULE_REWEIGHT, &mdc_module_reweight_request_type);
}

void sim_moves_step(struct sim_cluster *c)
{
    struct rng *r = &c->rng;
    struct sim_moves *v = moves_idle(c);
    if (!v)
        return;
    /* Mostly refused: it is done only while nothing moves. Not while there is a copy of the metadata store to
     * be put back: the modules would refuse it for good. */
    if (!c->backup && v->grown < GROW_MOST && rng_chance(r, 1, 4)) {
        memset(&v->request, 0, sizeof(v->request));
        snprintf(v->request.grow.name, sizeof(v->request.grow.name), "pool");
        move_call(v, MDC_METHOD_POOL_GROW, &mdc_pool_grow_request_type);
        return;
    }
    if (!rng_chance(r, 1, 6))
        return;
    const uint32_t module = 1 + (uint32_t)rng_below(r, MODULES);
    memset(&v->request, 0, sizeof(v->request));
    switch (rng_below(r, 6)) {
    case 0:
        v->request.drain = (struct mdc_module_drain_request){.module = module};
        move_call(v, MDC_METHOD_MODULE_DRAIN, &mdc_module_drain_request_type);
        break;
    case 1:
        v->request.drain = (struct mdc_module_drain_request){.module = module, .undo = true};
        move_call(v, MDC_METHOD_MODULE_DRAIN, &mdc_module_drain_request_type);
        break;
    case 2:
        v->request.remove.module = module;
        move_call(v, MDC_METHOD_MODULE_REMOVE, &mdc_module_request_type);
        break;
    case 3:
        v->request.reweight = (struct mdc_module_reweight_request){
            .module = module, .weight_bytes = rng_chance(r, 1, 3) ? 0 : (1 + rng_below(r, 8)) * 16 * MIB};
        move_call(v, MDC_METHOD_MODULE_REWEIGHT, &mdc_module_reweight_request_type);
        break;
    default:
        v->request.add.module = module;
        move_call(v, MDC_METHOD_MODULE_ADD, &mdc_module_add_request_type);
        break;
    }
}

bool sim_moves_growing(const struct sim_cluster *c)
{
    return c->moves && c->moves->busy && c->moves->call.method == MDC_METHOD_POOL_GROW;
}
