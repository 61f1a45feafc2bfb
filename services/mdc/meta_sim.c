/*
 * meta_sim.c: the meta store in memory, for tests and the simulator. struct meta_sim is the disk, it outlives
 * the processes; struct sim_store is one process's opening of it.
 */
#include "services/mdc/meta.h"

#include "common/rng.h"

#include <stdlib.h>
#include <string.h>

struct sim_entry {
    char key[META_KEY_MAX];
    uint32_t len;
    uint8_t *value;
};
struct sim_store;
struct meta_sim {
    struct sim_entry *entries; /* sorted by key */
    size_t count, capacity;
    struct rng rng;
    uint64_t commit_ns, commits;
    unsigned fail_in;
    int fail_rc;
    struct sim_store *open;
};
struct sim_store {
    struct meta_store store;
    struct meta_sim *sim;
    struct env *env;
    struct meta_commit *current;
    bool failed;
    struct loop_timer timer;
};

static struct sim_store *sim_of(struct meta_store *s)
{
    return container_of(s, struct sim_store, store);
}

/* Index of key, or where it belongs. */
static size_t sim_find(const struct meta_sim *sim, const char *key, bool *found)
{
    size_t lo = 0, hi = sim->count;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = strcmp(sim->entries[mid].key, key);
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = false;
    return lo;
}

static void sim_delete(struct meta_sim *sim, const char *key)
{
    bool found;
    size_t at = sim_find(sim, key, &found);
    if (!found)
        return;
    free(sim->entries[at].value);
    memmove(&sim->entries[at], &sim->entries[at + 1], (sim->count - at - 1) * sizeof(sim->entries[0]));
    sim->count--;
}

static void sim_put(struct meta_sim *sim, const char *key, const void *value, uint32_t len)
{
    bool found;
    size_t at = sim_find(sim, key, &found);
    uint8_t *copy = malloc(len != 0 ? len : 1);
    MUST(copy != NULL); /* a simulated disk has no way to say that the simulator is out of memory */
    memcpy(copy, value, len);
    if (!found) {
        if (sim->count == sim->capacity) {
            sim->capacity = sim->capacity != 0 ? sim->capacity * 2 : 64;
            sim->entries = realloc(sim->entries, sim->capacity * sizeof(sim->entries[0]));
            MUST(sim->entries != NULL);
        }
        memmove(&sim->entries[at + 1], &sim->entries[at], (sim->count - at) * sizeof(sim->entries[0]));
        sim->count++;
        sim->entries[at].value = NULL;
        memset(sim->entries[at].key, 0, META_KEY_MAX);
        memcpy(sim->entries[at].key, key, strlen(key));
    }
    free(sim->entries[at].value);
    sim->entries[at].value = copy;
    sim->entries[at].len = len;
}

static void sim_apply(struct meta_sim *sim, const struct meta_commit *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct meta_item *item = &c->items[i];
        if (item->value != NULL)
            sim_put(sim, item->key, item->value, item->len);
        else
            sim_delete(sim, item->key);
    }
    sim->commits++;
}

static int sim_load(struct meta_store *s, int (*fn)(void *, const char *, const void *, size_t), void *arg)
{
    struct meta_sim *sim = sim_of(s)->sim;
    for (size_t i = 0; i < sim->count; i++) {
        int rc = fn(arg, sim->entries[i].key, sim->entries[i].value, sim->entries[i].len);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static void sim_timer(struct loop_timer *t)
{
    struct sim_store *st = container_of(t, struct sim_store, timer);
    struct meta_sim *sim = st->sim;
    struct meta_commit *c = st->current;
    int rc = 0;
    if (sim->fail_in != 0 && --sim->fail_in == 0)
        rc = sim->fail_rc;
    if (rc == 0 || rng_chance(&sim->rng, 1, 2))
        sim_apply(sim, c);
    st->failed = rc != 0;
    st->current = NULL;
    c->done(c, rc);
}

static int sim_commit(struct meta_store *s, struct meta_commit *c)
{
    struct sim_store *st = sim_of(s);
    if (st->failed)
        return -EIO;
    if (st->current != NULL)
        return -EBUSY;
    st->current = c;
    uint64_t ns = st->sim->commit_ns;
    loop_timer_arm(st->env->loop, &st->timer, ns + (ns != 0 ? rng_below(&st->sim->rng, ns) : 0));
    return 0;
}

static void sim_close(struct meta_store *s)
{
    struct sim_store *st = sim_of(s);
    loop_timer_cancel(st->env->loop, &st->timer);
    if (st->current != NULL && rng_chance(&st->sim->rng, 1, 2))
        sim_apply(st->sim, st->current);
    st->sim->open = NULL;
    free(st);
}

static const struct meta_ops sim_ops = {
    .name = "sim", .load = sim_load, .commit = sim_commit, .close = sim_close};

int meta_sim_create(uint64_t seed, uint64_t commit_ns, struct meta_sim **out)
{
    struct meta_sim *sim = calloc(1, sizeof(*sim));
    if (sim == NULL)
        return -ENOMEM;
    rng_seed(&sim->rng, seed);
    sim->commit_ns = commit_ns;
    *out = sim;
    return 0;
}

static void sim_clear(struct meta_sim *sim)
{
    for (size_t i = 0; i < sim->count; i++)
        free(sim->entries[i].value);
    free(sim->entries);
    sim->entries = NULL;
    sim->count = sim->capacity = 0;
}

void meta_sim_destroy(struct meta_sim *sim)
{
    MUST(sim->open == NULL);
    sim_clear(sim);
    free(sim);
}

int meta_sim_open(struct meta_sim *sim, struct env *env, struct meta_store **out)
{
    if (sim->open != NULL)
        return -EWOULDBLOCK;
    struct sim_store *st = calloc(1, sizeof(*st));
    if (st == NULL)
        return -ENOMEM;
    st->store.ops = &sim_ops;
    st->sim = sim;
    st->env = env;
    loop_timer_init(&st->timer, sim_timer);
    sim->open = st;
    *out = &st->store;
    return 0;
}

void meta_sim_fail_at(struct meta_sim *sim, unsigned n, int rc)
{
    sim->fail_in = n;
    sim->fail_rc = rc;
}

int meta_sim_snapshot(const struct meta_sim *sim, struct meta_sim **out)
{
    struct meta_sim *copy;
    int rc = meta_sim_create(0, sim->commit_ns, &copy);
    if (rc != 0)
        return rc;
    copy->rng = sim->rng;
    for (size_t i = 0; i < sim->count; i++)
        sim_put(copy, sim->entries[i].key, sim->entries[i].value, sim->entries[i].len);
    *out = copy;
    return 0;
}

int meta_sim_restore(struct meta_sim *sim, const struct meta_sim *snapshot)
{
    MUST(sim->open == NULL);
    sim_clear(sim);
    for (size_t i = 0; i < snapshot->count; i++)
        sim_put(sim, snapshot->entries[i].key, snapshot->entries[i].value, snapshot->entries[i].len);
    return 0;
}

int meta_sim_damage(struct meta_sim *sim, const char *key, size_t offset)
{
    bool found;
    size_t at = sim_find(sim, key, &found);
    if (!found || offset >= sim->entries[at].len)
        return -ENOENT;
    sim->entries[at].value[offset] ^= 0x10;
    return 0;
}

size_t meta_sim_keys(const struct meta_sim *sim)
{
    return sim->count;
}

uint64_t meta_sim_commits(const struct meta_sim *sim)
{
    return sim->commits;
}
