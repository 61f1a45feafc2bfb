/* world.c: the torture's devices, time and store. */
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/torture/torture.h"

enum { STUCK_STEPS = 4000000 };
static const struct torture *current;

static void quiet(void *arg, enum log_level level, const char *line)
{
    (void)level;
    const struct torture *t = arg;
    if (t->verbose)
        fprintf(stderr, "    %s\n", line);
}

void torture_say(const struct torture *t)
{
    fflush(stdout);
    fprintf(stderr, "FAILED --only %s --seed %lu %s: ", t->kind, (unsigned long)t->seed, t->where);
}

void torture_die(void)
{
    fprintf(stderr, "\n");
    fflush(stderr);
    _exit(99);
}

void torture_where(struct torture *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(t->where, sizeof t->where, fmt, ap);
    va_end(ap);
    if (t->verbose)
        fprintf(stderr, "  %s\n", t->where);
}

/* An assertion in the store has failed: say where. */
static void aborted(int sig)
{
    (void)sig;
    if (current)
        torture_say(current);
    torture_die();
}

void torture_init(struct torture *t, const char *kind, uint64_t seed)
{
    bool verbose = t->verbose;
    memset(t, 0, sizeof *t);
    t->verbose = verbose;
    t->kind = kind;
    t->seed = seed;
    current = t;
    log_set_sink(quiet, t);
    MUST(sim_world_create(seed, &t->sim) == 0);
    MUST(loop_create_sim(t->sim, "store", 0, &t->loop) == 0);
    sim_loop_set_interrupts(t->loop, 0, 1);
    rng_seed(&t->rng, seed * 0x9e3779b97f4a7c15ull + 1);
    rng_seed(&t->env_rng, seed ^ 0x776f726c64ull);
    t->env = (struct env){.loop = t->loop, .rng = &t->env_rng, .name = "torture"};
    t->options = (struct store_options){.cache_bytes = 1, .requests_max = rng_chance(&t->rng, 1, 2) ? 8 : 64};
    for (unsigned i = 0; i < REQUESTS; i++)
        t->requests[i].data = aligned_alloc(UNIT_BYTES, BLOCK_BYTES);
    t->judge.data = aligned_alloc(UNIT_BYTES, BLOCK_BYTES);
    signal(SIGABRT, aborted);
}

void torture_end(struct torture *t)
{
    torture_abandon(t);
    media_destroy(&t->media);
    for (unsigned i = 0; i < REQUESTS; i++)
        free(t->requests[i].data);
    free(t->judge.data);
    loop_destroy(t->loop);
    sim_world_destroy(t->sim);
    current = NULL;
}

/* ---- media ---- */
void torture_make_media(struct torture *t, bool pmem)
{
    /* Small enough that slots are reused all the time, and the journal goes round. */
    t->size = (4 + rng_below(&t->rng, 3)) * MIB;
    struct media m = {0};
    uint32_t atom = rng_chance(&t->rng, 1, 4) ? 8 : 512; /* 8: a disk on pmem, or one that promises nothing */
    m.dev[0] = device_ram_create(t->size, rng_chance(&t->rng, 1, 2) ? 512 : 4096, atom, rng_u64(&t->rng) | 1);
    m.dev[0]->first_write_slow = rng_chance(&t->rng, 1, 4);
    m.dev[0]->can_discard = rng_chance(&t->rng, 2, 3);
    if (pmem) {
        m.dev[1] = device_ram_create(MIB + 65536, 64, 8, rng_u64(&t->rng) | 1);
        m.dev[1]->durable_writes = rng_chance(&t->rng, 4, 5); /* else a disk of its own */
    }
    torture_put_media(t, m);
}

static void copy_kind(struct device *to, const struct device *from)
{
    to->io_align = from->io_align;
    to->durable_writes = from->durable_writes;
    to->can_discard = from->can_discard;
    to->rotational = from->rotational;
    to->first_write_slow = from->first_write_slow;
}

struct device *device_copy(const struct device *dev, uint64_t seed)
{
    struct device *d = device_ram_create(dev->size, dev->io_bytes, dev->atom_bytes, seed | 1);
    medium_restore(device_ram_medium(d), device_ram_medium((struct device *)dev));
    copy_kind(d, dev);
    return d;
}

struct media media_copy(const struct media *m, uint64_t seed)
{
    struct media c = {0};
    for (unsigned i = 0; i < 2; i++)
        c.dev[i] = m->dev[i] ? device_copy(m->dev[i], seed + i) : NULL;
    return c;
}

struct media media_crash_image(const struct media *m, uint64_t seed)
{
    struct media c = {0};
    for (unsigned i = 0; i < 2; i++) {
        c.dev[i] = m->dev[i] ? device_ram_crash_image(m->dev[i], seed + i + 1) : NULL;
        if (c.dev[i])
            copy_kind(c.dev[i], m->dev[i]);
    }
    return c;
}

void media_destroy(struct media *m)
{
    for (unsigned i = 0; i < 2; i++) {
        if (m->dev[i])
            device_destroy(m->dev[i]);
        m->dev[i] = NULL;
    }
}

void torture_put_media(struct torture *t, struct media m)
{
    media_destroy(&t->media);
    t->media = m;
}

void torture_power_cut(struct torture *t)
{
    torture_put_media(t, media_crash_image(&t->media, rng_u64(&t->rng)));
    t->crashes++;
}

void torture_kill(struct torture *t)
{
    uint64_t seed = rng_u64(&t->rng);
    for (unsigned i = 0; i < 2; i++) {
        if (t->media.dev[i])
            device_ram_kill(t->media.dev[i], seed + i);
    }
    t->crashes++;
}

bool torture_crashed(const struct torture *t)
{
    return device_ram_crashed(t->media.dev[0]) || (t->media.dev[1] && device_ram_crashed(t->media.dev[1]));
}

void torture_crash_after(struct torture *t, unsigned device, uint64_t persists)
{
    device_ram_crash_after(t->media.dev[device], persists);
}

/* ---- time ---- */
static void worsen(struct torture *t)
{
    struct device *d = t->fault_device;
    if (!d || d->errors == t->fault_errors)
        return;
    t->fault_device = NULL;
    if (t->fault_gone)
        device_ram_vanish(d);
    else
        medium_fail_range(device_ram_medium(d), t->fault_rc == -ENOSPC ? 1u << DEVICE_WRITE : 0xfu, 0,
                          UINT64_MAX, t->fault_rc);
}

bool torture_step(struct torture *t)
{
    unsigned n = 0;
    worsen(t);
    if (sim_world_next_ns(t->sim) <= sim_world_now(t->sim) + 100 * NS_PER_US)
        n += sim_world_step(t->sim);
    for (unsigned i = 0; i < 2; i++) {
        if (t->front[i].inner && !list_empty(&t->front[i].held)) {
            slow_release(&t->front[i], 100);
            n++;
        }
        if (t->media.dev[i])
            n += device_ram_pump(t->media.dev[i], 1 + (unsigned)rng_below(&t->rng, 4));
    }
    return n != 0;
}

bool torture_run(struct torture *t, const bool *until)
{
    unsigned steps = 0;
    for (unsigned idle = 0; idle < 3 && !*until && !torture_crashed(t); steps++) {
        idle = torture_step(t) ? 0 : idle + 1;
        CHECK(t, steps < STUCK_STEPS, "it never comes to rest");
    }
    return *until;
}

void torture_drain(struct torture *t)
{
    bool never = false;
    torture_run(t, &never);
}

void torture_pass(struct torture *t, uint64_t ns)
{
    uint64_t end = sim_world_now(t->sim) + ns;
    torture_drain(t);
    while (!torture_crashed(t) && sim_world_next_ns(t->sim) <= end) {
        sim_world_step(t->sim);
        torture_drain(t);
    }
    if (!torture_crashed(t) && sim_world_now(t->sim) < end)
        sim_world_run_until(t->sim, end);
}

/* ---- the store ---- */
/* The devices as the store shall see them, anew after each change of them. */
static void front(struct torture *t)
{
    for (unsigned i = 0; i < 2; i++) {
        memset(&t->front[i], 0, sizeof t->front[i]);
        if (t->media.dev[i])
            slow_init(&t->front[i], t->media.dev[i], rng_u64(&t->rng), t->hold);
    }
}

static struct device *journal(struct torture *t)
{
    return t->media.dev[1] ? &t->front[1].dev : NULL;
}

static void on_done(void *arg, int rc)
{
    struct torture *t = arg;
    CHECK(t, !t->done && !t->down, "done runs twice, or after the end");
    t->done = true;
    t->rc = rc;
}

static void on_open(void *arg, struct store *s, const struct store_open_report *report)
{
    struct torture *t = arg;
    CHECK(t, !t->done && !t->down, "done of open runs twice, or after the end");
    CHECK(t, (s == NULL) == (report->rc != 0), "open: store and rc %d contradict each other", report->rc);
    t->done = true;
    t->s = s;
    t->opening = NULL;
    t->report = *report;
}

int torture_format(struct torture *t, bool force)
{
    struct store_format_options o = {
        .journal_bytes = MIB, .max_partitions = 100, .max_volumes = 40, .max_turns = 70, .force = force};
    t->done = t->down = false;
    front(t);
    struct store_format_job *job = store_format(&t->env, &t->front[0].dev, journal(t), &o, on_done, t);
    if (torture_run(t, &t->done))
        return t->rc;
    CHECK(t, torture_crashed(t), "format never ends");
    store_format_cancel(job);
    return -ECANCELED;
}

int torture_open(struct torture *t)
{
    t->done = t->down = false;
    t->s = NULL;
    t->opens++;
    front(t);
    t->opening = store_open(&t->env, &t->front[0].dev, journal(t), &t->options, on_open, t);
    if (!torture_run(t, &t->done)) {
        CHECK(t, torture_crashed(t), "open never ends");
        torture_abandon(t);
        return -ECANCELED;
    }
    if (t->report.rc == 0 && torture_crashed(t)) {
        torture_abandon(t);
        return -ECANCELED;
    }
    if (t->report.rc == 0) {
        uint64_t start = store_identity(t->s)->start_counter;
        CHECK(t, start > t->m.start_counter || t->options.read_only, "start counter %lu comes again",
              (unsigned long)start);
        t->m.start_counter = start;
    }
    return t->report.rc;
}

int torture_close(struct torture *t)
{
    t->done = false;
    store_close(t->s, on_done, t);
    if (!torture_run(t, &t->done)) {
        CHECK(t, torture_crashed(t), "close never ends");
        return -ECANCELED;
    }
    torture_abandon(t);
    return t->rc;
}

void torture_abandon(struct torture *t)
{
    t->down = true;
    store_destroy(t->s);
    store_destroy(t->opening);
    t->s = t->opening = NULL;
    for (unsigned i = 0; i < REQUESTS; i++)
        t->requests[i].busy = false;
    t->live = 0;
}

void torture_format_and_open(struct torture *t)
{
    int rc = torture_format(t, false);
    CHECK(t, rc == 0, "format of a blank device: %d", rc);
    rc = torture_open(t);
    CHECK(t, rc == 0, "open of a new store: %d %s", rc, t->report.text);
}
