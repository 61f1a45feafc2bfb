/* sim_world.c: virtual time and the queue of events. */
#include "common/sim_internal.h"

#include <stdlib.h>
#include <string.h>

int sim_world_create(uint64_t seed, struct sim_world **out)
{
    struct sim_world *world = calloc(1, sizeof *world);
    if (world == NULL)
        return -ENOMEM;
    int rc = timer_heap_init(&world->events);
    if (rc != 0) {
        free(world);
        return rc;
    }
    world->seed = seed;
    rng_seed(&world->rng, seed);
    *out = world;
    return 0;
}

void sim_world_destroy(struct sim_world *world)
{
    if (world == NULL)
        return;
    MUST(world->loops == 0 && !world->stepping);
    timer_heap_fini(&world->events);
    free(world);
}

uint64_t sim_world_now(const struct sim_world *world)
{
    return world->now_ns;
}

uint64_t sim_world_seed(const struct sim_world *world)
{
    return world->seed;
}

uint64_t sim_world_steps(const struct sim_world *world)
{
    return world->steps;
}

struct rng *sim_world_rng(struct sim_world *world)
{
    return &world->rng;
}

void sim_world_fork_rng(struct sim_world *world, const char *label, struct rng *out)
{
    /* FNV-1a over the label; rng_seed mixes well enough for neighbouring seeds. */
    uint64_t hash = 0xcbf29ce484222325ull;
    for (const char *p = label; *p != '\0'; p++)
        hash = (hash ^ (uint8_t)*p) * 0x100000001b3ull;
    rng_seed(out, (world->seed ^ hash) + 0x9e3779b97f4a7c15ull * ++world->forks);
}

uint64_t sim_world_next_ns(const struct sim_world *world)
{
    const struct loop_timer *t = timer_heap_first(&world->events);
    return t != NULL ? t->deadline_ns : UINT64_MAX;
}

bool sim_world_step(struct sim_world *world)
{
    MUST(!world->stepping);
    struct loop_timer *t = timer_heap_first(&world->events);
    if (t == NULL)
        return false;
    struct sim_event *ev = container_of(t, struct sim_event, node);
    MUST(t->deadline_ns >= world->now_ns);
    world->now_ns = t->deadline_ns;
    world->steps++;
    timer_heap_remove(&world->events, t);
    world->stepping = true;
    ev->fn(ev);
    world->stepping = false;
    return true;
}

void sim_world_run_until(struct sim_world *world, uint64_t time_ns)
{
    while (world->events.count > 0 && sim_world_next_ns(world) <= time_ns)
        sim_world_step(world);
    world->now_ns = max_u64(world->now_ns, time_ns);
}

void sim_event_init(struct sim_event *ev, void (*fn)(struct sim_event *))
{
    memset(ev, 0, sizeof *ev);
    ev->fn = fn;
}

void sim_event_schedule(struct sim_world *world, struct sim_event *ev, uint64_t at_ns)
{
    MUST(ev->fn != NULL);
    timer_heap_put(&world->events, &ev->node, max_u64(at_ns, world->now_ns));
}

void sim_event_cancel(struct sim_world *world, struct sim_event *ev)
{
    timer_heap_remove(&world->events, &ev->node);
}
