/*
 * faults.c: one kind of operation, and a device of which one request fails: each in turn, reads, writes,
 * flushes and discards, on either device; alone, or the first of many, or the device is gone from then on.
 * Requests may fail; the process must not. After the process's end, or a loss of power, on healed devices
 * everything acknowledged is there.
 */
#include "tests/torture/torture.h"

enum { REQUESTS_MAX = 2000 };

enum mode { ONCE, FROM_NOW_ON, GONE, FULL, MODES };
static const char *const mode_names[MODES] = {"once", "from then on", "gone", "full"};
static const char *const op_names[] = {"read", "write", "flush", "discard"};

struct plan {
    const struct script *script;
    unsigned device;
    enum device_op op;
    enum mode mode;
};

/* True: the fault was met. */
static bool meet(struct torture *t, const struct plan *p, uint64_t n)
{
    int rc = p->mode == GONE ? -ENODEV : p->mode == FULL ? -ENOSPC : -EIO;
    struct device *d = t->media.dev[p->device];
    uint64_t before = d->errors;
    device_ram_fail_nth(d, p->op, n, rc);
    t->faulty = true;
    t->fault_device = p->mode == ONCE ? NULL : d;
    t->fault_gone = p->mode == GONE;
    t->fault_rc = rc;
    t->fault_errors = before;
    p->script->run(t);
    torture_drain(t);
    if (t->s && p->script->not_open)
        torture_workload(t, 40);
    if (t->s)
        torture_wait(t);
    if (t->s && n % 2)
        torture_close(t); /* its rc is the fault, or not */
    t->fault_device = NULL;
    t->faulty = false;
    torture_abandon(t);
    return d->errors != before;
}

static void judge(struct torture *t, const struct plan *p, uint64_t n)
{
    struct media healed = n % 3 ? media_copy(&t->media, n) : media_crash_image(&t->media, n);
    torture_put_media(t, healed);
    int rc = torture_open(t);
    CHECK(t, rc == 0, "open on healed devices: %d %s", rc, t->report.text);
    CHECK(t, !t->report.damaged, "damage after a mere fault: %s", t->report.text);
    torture_verify(t);
    CHECK(t, torture_close(t) == 0, "close on healed devices");
    rc = torture_open(t);
    CHECK(t, rc == 0, "second open on healed devices: %d %s", rc, t->report.text);
    torture_verify(t);
    torture_abandon(t);
    (void)p;
}

static void run_plan(struct torture *t, const struct media *media, const struct model *m,
                     const struct rng *rng, const struct plan *p)
{
    for (uint64_t n = 1; n < REQUESTS_MAX; n++) {
        torture_where(t, "%s: %s %lu of device %u fails %s", p->script->name, op_names[p->op],
                      (unsigned long)n, p->device, mode_names[p->mode]);
        t->rng = t->env_rng = *rng;
        t->m = *m;
        torture_put_media(t, media_copy(media, 1));
        if (!p->script->not_open)
            CHECK(t, torture_open(t) == 0, "open: %s", t->report.text);
        bool met = meet(t, p, n);
        judge(t, p, n);
        if (!met)
            return;
    }
    TORTURE_FAIL(t, "it goes on and on");
}

void torture_faults(struct torture *t)
{
    /* A format that fails leaves nothing to judge: persist.c has its crashes. */
    const struct script *script;
    uint64_t i = t->seed - 1;
    do {
        script = &torture_scripts[i++ % torture_script_count];
    } while (script->formats);
    uint64_t variant = (t->seed - 1) / torture_script_count;
    torture_where(t, "%s: preparing", script->name);
    torture_prepare(t, script, variant & 1);
    struct media media = t->media;
    struct model *m = malloc(sizeof *m);
    MUST(m);
    *m = t->m;
    struct rng rng = t->rng;
    memset(&t->media, 0, sizeof t->media);
    for (unsigned device = 0; device < (media.dev[1] ? 2u : 1u); device++) {
        for (enum device_op op = DEVICE_READ; op <= DEVICE_DISCARD; op++) {
            enum mode mode = (enum mode)((variant / 2 + op + device) % MODES);
            if (mode == FULL && op != DEVICE_WRITE)
                mode = ONCE;
            struct plan p = {.script = script, .device = device, .op = op, .mode = mode};
            run_plan(t, &media, m, &rng, &p);
        }
    }
    media_destroy(&media);
    free(m);
}
