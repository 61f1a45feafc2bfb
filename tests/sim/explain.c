#include "tests/sim/explain.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "services/rwm/rwm_copies.h"
#include "tests/sim/client.h"

struct text {
    char *out;
    size_t n, cap;
};

static void __attribute__((format(printf, 2, 3))) say(struct text *t, const char *fmt, ...)
{
    va_list ap;
    if (t->n >= t->cap)
        return;
    va_start(ap, fmt);
    int n = vsnprintf(t->out + t->n, t->cap - t->n, fmt, ap);
    va_end(ap);
    t->n += n > 0 ? (size_t)n : 0;
}

static const char *name_of(const struct sim_cluster *c, uint32_t module)
{
    for (unsigned i = 0; i < SIM_PROCS; i++)
        if (c->procs[i].rwm && c->procs[i].rwm->id == module)
            return c->procs[i].name;
    return "one that is gone";
}

static const char *waits_for(enum rwm_request_state state)
{
    switch (state) {
    case RWM_REQUEST_HELD:
        return "a newer table";
    case RWM_REQUEST_QUEUED:
        return "memory";
    case RWM_REQUEST_FETCH:
        return "its payload";
    case RWM_REQUEST_RUNNING:
        return "the store or other members";
    case RWM_REQUEST_FETCHED:
        return "promises";
    default:
        return "the primary to serve";
    }
}

static void say_requests(struct text *t, const struct sim_cluster *c, const struct rwm *m)
{
    unsigned shown = 0;
    list_for_each(n, &m->area->requests)
    {
        const struct rwm_request *r = list_entry(n, struct rwm_request, all);
        if (shown++ == 6) {
            say(t, " ...");
            break;
        }
        say(t, " request %u of partition %u epoch %" PRIu64 " from %s waits for %s;", r->method,
            r->r.partition, r->r.epoch, r->from_module ? name_of(c, r->from_module) : "a client",
            waits_for(r->state));
    }
}

static void say_promises(struct text *t, const struct sim_cluster *c, const struct rwm *m)
{
    uint64_t clock = loop_clock_ns(m->env->loop);
    list_for_each(n, &m->peers)
    {
        const struct rwm_peer *p = list_entry(n, struct rwm_peer, link);
        if (p->state != PEER_UP)
            say(t, " not connected to %s (%d, %u calls);", name_of(c, p->module), (int)p->state, p->calls);
        else if (p->promise_until_ns > clock)
            say(t, " holds a promise of %s for %" PRIu64 " ms;", name_of(c, p->module),
                (uint64_t)((p->promise_until_ns - clock) / NS_PER_MS));
    }
    list_for_each(n, &m->grants)
    {
        const struct rwm_grant *g = list_entry(n, struct rwm_grant, link);
        if (g->until_ns > clock)
            say(t, " promised %s for %" PRIu64 " ms;", name_of(c, g->module),
                (uint64_t)((g->until_ns - clock) / NS_PER_MS));
    }
}

static void say_module(struct text *t, const struct sim_cluster *c, const struct sim_proc *p)
{
    struct rwm_stats stats;
    rwm_stats_get(p->rwm, &stats);
    say(t, "%s (module %u) serving=%d active=%" PRIu64 " table=%" PRIu64 " scrub=%u of %u;", p->name,
        p->rwm->id, stats.serving, stats.requests_active, stats.table_version, stats.scrub.parts_left,
        stats.scrub.running ? stats.scrub.parts : 0);
    say_requests(t, c, p->rwm);
    say_promises(t, c, p->rwm);
    say(t, " ");
    if (t->n < t->cap) {
        (void)rwm_explain(p->rwm, t->out + t->n, t->cap - t->n);
        t->n += strlen(t->out + t->n);
    }
}

void sim_explain_stuck(struct sim_cluster *c, const char *when, char *out, size_t cap)
{
    struct text t = {.out = out, .cap = cap};
    say(&t, "%s: ", when);
    for (unsigned i = 0; i < SIM_PROCS && t.n < cap; i++) {
        const struct sim_proc *p = &c->procs[i];
        if (!p->alive) {
            say(&t, "%s is dead; ", p->name);
        } else if (p->client && !sim_client_idle(p->client)) {
            sim_client_explain(p->client, out + t.n, cap - t.n);
            t.n += strlen(out + t.n);
            say(&t, " ");
        } else if (p->rwm) {
            say_module(&t, c, p);
        }
        if (p->failure[0])
            say(&t, "%s once failed: %s; ", p->name, p->failure);
    }
}
