/* A simulated client: random reads, writes, zeroes and discards on shared volumes, all of it recorded. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc.h"
#include "common/log.h"
#include "tests/sim/backend.h"
#include "tests/sim/client.h"

#define DEPTH_MAX     4u
#define SMALL_STRIPES 16u
#define SMALL_SECTORS 16u
#define BIG_BLOCKS    8u
#define BIG_SECTORS   (BLOCK_BYTES / SECTOR_BYTES)
#define SMALL_GROUPS  (4u * SMALL_STRIPES)
#define INNER_GROUPS  (SMALL_GROUPS + BIG_BLOCKS)
#define EXTRA_GROUPS  2u /* beyond the first size of the volume */
#define GROUPS        (INNER_GROUPS + EXTRA_GROUPS)

#define TAIL_BLOCKS_MOST 64u

_Static_assert(SMALL_GROUPS == SIM_SMALL_GROUPS && BIG_BLOCKS == SIM_BIG_GROUPS, "as client.h says");
_Static_assert(SMALL_GROUPS *SMALL_SECTORS + BIG_BLOCKS * BIG_SECTORS + EXTRA_GROUPS * SMALL_SECTORS ==
                   SIM_SECTORS,
               "the groups are all sectors");

struct slot {
    struct sim_client *client;
    /* tail: of the part that is always zero; whole: a discard of the volume, when all is over */
    bool busy, read_all, redo, tail, whole;
    unsigned part;           /* whole: 0 = the first size, else that much beyond it */
    uint64_t opened, fenced; /* ticks: of the open that it uses; of the end of that, 0 = none */
    int rc;                  /* of the last one that ended here */
    enum volume_op op;
    unsigned volume, group, first, count; /* sectors in the group */
    uint64_t begin, value; /* the value of the first sector; the next sectors have the next values */
    uint64_t second; /* the value that its buffer gets while the write is under way; 0 = it keeps still */
    struct loop_timer scribble;
    struct sim_io io;
    uint8_t *data;
    struct fabric_sge sge;
};

struct sim_client {
    struct sim_proc *proc;
    struct sim_backend *backend;
    struct slot slots[DEPTH_MAX];
    struct loop_timer timer;
    unsigned depth, issued, busy;
    bool open[SIM_VOLUMES], opening[SIM_VOLUMES];
    uint64_t opened[SIM_VOLUMES];
    struct {
        uint64_t asked, done;
    } fence[SIM_VOLUMES]; /* the last detach of its host */
    bool draining, reading_all, clearing;
    bool reader; /* does little else: so it goes on where writes stand still */
    unsigned read_volume, read_group;
    struct slot_place {
        unsigned volume, group, first, count;
    } last; /* that it wrote; count 0 = nowhere yet */
};

/* Where a group lies in its volume: small ones at the start of a stripe, over two block edges, and over the
 * stripe's end. */
static uint64_t group_offset(unsigned group)
{
    static const uint64_t small[4] = {16 * KIB, 124 * KIB, 252 * KIB, 1020 * KIB};
    if (group < SMALL_GROUPS)
        return (group / 4) * MIB + small[group % 4];
    if (group >= INNER_GROUPS)
        return SIM_VOLUME_BYTES + (group - INNER_GROUPS) * SIM_EXTRA_BYTES + MIB + 124 * KIB;
    return (SMALL_STRIPES + 2 + group - SMALL_GROUPS) * MIB + BLOCK_BYTES;
}

static unsigned group_sectors(unsigned group)
{
    return group < SMALL_GROUPS || group >= INNER_GROUPS ? SMALL_SECTORS : BIG_SECTORS;
}

static uint32_t history_sector(unsigned volume, unsigned group, unsigned sector)
{
    unsigned base = group < SMALL_GROUPS
                        ? group * SMALL_SECTORS
                        : SMALL_GROUPS * SMALL_SECTORS + (group - SMALL_GROUPS) * BIG_SECTORS;
    if (group >= INNER_GROUPS)
        base =
            SMALL_GROUPS * SMALL_SECTORS + BIG_BLOCKS * BIG_SECTORS + (group - INNER_GROUPS) * SMALL_SECTORS;
    return volume * SIM_SECTORS + base + sector;
}

unsigned sim_client_extra(unsigned volume, unsigned part, uint32_t *first)
{
    if (part >= EXTRA_GROUPS)
        return 0;
    *first = history_sector(volume, INNER_GROUPS + part, 0);
    return SMALL_SECTORS;
}

/* A sector's content follows from its value, so that a mixture of two shows. */
static void sector_fill(uint8_t *p, uint64_t value)
{
    uint64_t x = value;
    for (unsigned i = 0; i < SECTOR_BYTES / 8; i++) {
        memcpy(p + i * 8, &x, 8);
        if (value)
            x = x * 6364136223846793005ull + 1442695040888963407ull;
    }
}

static bool sector_is(const uint8_t *p, uint64_t value)
{
    uint8_t want[SECTOR_BYTES];
    sector_fill(want, value);
    return memcmp(p, want, SECTOR_BYTES) == 0;
}

static void record_read(struct slot *s)
{
    struct sim_cluster *sc = s->client->proc->cluster;
    uint64_t end = sim_tick(sc);
    for (unsigned i = 0; i < s->count; i++) {
        const uint8_t *p = s->data + i * SECTOR_BYTES;
        uint64_t value;
        memcpy(&value, p, 8);
        if (!sector_is(p, value) && !sc->error[0])
            snprintf(sc->error, sizeof(sc->error),
                     "%s read a sector that is a mixture: volume %u offset %" PRIu64, s->client->proc->name,
                     s->volume, group_offset(s->group) + (s->first + i) * SECTOR_BYTES);
        history_add(sc->history, history_sector(s->volume, s->group, s->first + i), HISTORY_READ, value,
                    s->begin, end, s->client->proc->number);
    }
}

static void record_write(struct slot *s, bool acknowledged)
{
    struct sim_cluster *sc = s->client->proc->cluster;
    uint64_t end = acknowledged ? sim_tick(sc) : HISTORY_OPEN;
    enum history_kind kind = HISTORY_WRITE;
    if (s->fenced) {
        end = min_u64(end, s->fenced);
        kind = acknowledged ? HISTORY_WRITE : HISTORY_MAYBE;
    }
    if (s->second && acknowledged) /* one of the two took effect */
        kind = HISTORY_MAYBE;
    for (unsigned i = 0; i < s->count; i++) {
        uint32_t sector = history_sector(s->volume, s->group, s->first + i);
        history_add(sc->history, sector, kind, s->op == VOLUME_WRITE ? s->value + i : 0, s->begin, end,
                    s->client->proc->number);
        if (s->second)
            history_add(sc->history, sector, kind, s->second + i, s->begin, end, s->client->proc->number);
    }
}

/* A program that goes on writing to its memory while it is on its way: each sector is then of before or of
 * after, never a mixture. */
static void scribble(struct loop_timer *t)
{
    struct slot *s = container_of(t, struct slot, scribble);
    for (unsigned i = 0; i < s->count; i++)
        sector_fill(s->data + i * SECTOR_BYTES, s->second + i);
}

static void scribble_plan(struct slot *s)
{
    struct sim_proc *p = s->client->proc;
    s->second = p->cluster->next_value;
    p->cluster->next_value += s->count;
    loop_timer_init(&s->scribble, scribble);
    loop_timer_arm(p->env.loop, &s->scribble, 1 + rng_below(&p->rng, 100 * NS_PER_US));
}

static struct sim_claim *slot_claims(const struct slot *s)
{
    return &s->client->proc->cluster->claims[history_sector(s->volume, s->group, s->first)];
}

/* False: another write of one of the sectors is under way, or its outcome is another host's secret. */
static bool claim(struct slot *s)
{
    struct sim_claim *c = slot_claims(s);
    uint16_t me = (uint16_t)s->client->proc->number;
    for (unsigned i = 0; i < s->count; i++)
        if (c[i].client && (c[i].under_way || c[i].client != me))
            return false;
    for (unsigned i = 0; i < s->count; i++)
        c[i] = (struct sim_claim){.client = me, .under_way = true};
    return true;
}

static void unclaim(struct slot *s, bool acknowledged)
{
    struct sim_claim *c = slot_claims(s);
    for (unsigned i = 0; i < s->count; i++) {
        c[i].under_way = false;
        if (acknowledged)
            c[i].client = 0;
    }
}

static void client_kick(struct sim_client *c, uint64_t delay_ns)
{
    if (!loop_timer_armed(&c->timer))
        loop_timer_arm(c->proc->env.loop, &c->timer, delay_ns);
}

static uint64_t slot_offset(const struct slot *s)
{
    if (s->whole)
        return s->part ? SIM_VOLUME_BYTES + (s->part - 1) * SIM_EXTRA_BYTES : 0;
    if (s->tail)
        return SIM_HEAD_BYTES + (uint64_t)s->first * BLOCK_BYTES;
    return group_offset(s->group) + (uint64_t)s->first * SECTOR_BYTES;
}

/* That part may not be there. */
static bool slot_beyond(const struct slot *s)
{
    return s->whole ? s->part > 0 : !s->tail && s->group >= INNER_GROUPS;
}

static void tail_check(struct slot *s, int rc)
{
    struct sim_cluster *sc = s->client->proc->cluster;
    if (rc || s->op != VOLUME_READ)
        return;
    for (unsigned i = 0; i < BLOCK_BYTES && !sc->error[0]; i++)
        if (s->data[i])
            snprintf(sc->error, sizeof(sc->error),
                     "%s read what nobody wrote: volume %u offset %" PRIu64 " (%02x)", s->client->proc->name,
                     s->volume, slot_offset(s) + i, s->data[i]);
}

static void log_debug_io(const struct slot *s, int rc)
{
    const struct sim_cluster *sc = s->client->proc->cluster;
    if (sc->options.verbose)
        log_info(&s->client->proc->env, "operation ended",
                 "op=%d volume=%u offset=%" PRIu64 " sectors=%u begin=%" PRIu64 " tick=%" PRIu64 " rc=%d",
                 (int)s->op, s->volume, slot_offset(s), s->count, s->begin, sc->tick, rc);
}

static void io_done(struct sim_io *io, int rc)
{
    struct slot *s = container_of(io, struct slot, io);
    struct sim_client *c = s->client;
    struct sim_cluster *sc = c->proc->cluster;
    trace_point(sc->trace, sim_world_now(sc->world), "client", c->proc->number,
                (uint64_t)s->op << 32 | s->group, (uint64_t)rc);
    if (rc == 0)
        sc->completed++;
    else
        sc->failed_ops++;
    if (rc == 0 && s->op != VOLUME_READ && s->opened < c->fence[s->volume].asked &&
        s->begin > c->fence[s->volume].done && !sc->error[0])
        snprintf(sc->error, sizeof(sc->error), "%s wrote to volume %u after its host had been detached",
                 c->proc->name, s->volume);
    if (rc == -ENOSPC)
        sc->no_space++;
    if (rc == -ENOSPC && !sc->shape.tight && !sc->error[0])
        snprintf(sc->error, sizeof(sc->error), "%s was told that there is no space, and there is plenty",
                 c->proc->name);
    if ((rc == -EIO || rc == -EBADMSG) && sc->rots == 0 && !sc->error[0])
        snprintf(sc->error, sizeof(sc->error),
                 "%s was told %s, and nothing rots: op %d volume %u offset %" PRIu64, c->proc->name,
                 strerror(-rc), (int)s->op, s->volume, slot_offset(s));
    if ((rc == -EIO || rc == -EBADMSG) && sc->options.rot && sc->options.copies > 1 && !sc->shape.tight &&
        !sc->error[0]) /* where media are full the others may be out of sync for it */
        snprintf(sc->error, sizeof(sc->error),
                 "%s saw rot that another copy could have cured: op %d volume %u offset %" PRIu64,
                 c->proc->name, (int)s->op, s->volume, slot_offset(s));
    if (s->tail && !s->whole) {
        tail_check(s, rc);
    } else if (!s->whole && s->op != VOLUME_READ) {
        record_write(s, rc == 0);
        unclaim(s, rc == 0);
    } else if (rc == 0 && !s->whole)
        record_read(s);
    else if (rc && s->read_all && rc == -ESTALE)
        s->redo = true; /* its host was detached: it opens again */
    else if ((rc == -EIO || rc == -EBADMSG) && sc->rots)
        sc->damaged++; /* that data is lost, and it says so */
    else if (rc && s->read_all && !sc->error[0] && !slot_beyond(s))
        snprintf(sc->error, sizeof(sc->error),
                 "%s could not read volume %u offset %" PRIu64 " at the end: %s", c->proc->name, s->volume,
                 group_offset(s->group), strerror(-rc));
    log_debug_io(s, rc);
    s->rc = rc;
    if (s->second)
        loop_timer_cancel(c->proc->env.loop, &s->scribble);
    s->busy = false;
    c->busy--;
    if (rc == -ESTALE || rc == -ENOENT)
        c->open[s->volume] = false;
    client_kick(c, rng_below(&c->proc->rng, sc->shape.think_ns));
}

static void slot_submit(struct sim_client *c, struct slot *s)
{
    struct sim_cluster *sc = c->proc->cluster;
    if (!s->tail && s->op != VOLUME_READ && !claim(s))
        s->op = VOLUME_READ;
    s->begin = sim_tick(sc);
    s->opened = c->opened[s->volume];
    s->fenced = s->second = 0;
    if (s->op == VOLUME_WRITE) {
        s->value = sc->next_value;
        sc->next_value += s->count;
        for (unsigned i = 0; i < s->count; i++)
            sector_fill(s->data + i * SECTOR_BYTES, s->value + i);
    } else {
        memset(s->data, 0xee, BLOCK_BYTES);
    }
    uint32_t bytes = s->whole  ? (s->part ? SIM_EXTRA_BYTES : SIM_VOLUME_BYTES)
                     : s->tail ? s->count * BLOCK_BYTES
                               : s->count * SECTOR_BYTES;
    s->sge = (struct fabric_sge){.base = s->data, .len = bytes};
    s->io = (struct sim_io){
        .op = s->op, .offset = slot_offset(s), .length = bytes, .sge = &s->sge, .done = io_done};
    int rc = sim_backend_submit(c->backend, s->volume, &s->io);
    if (!s->tail && s->op != VOLUME_READ)
        c->last = (struct slot_place){s->volume, s->group, s->first, s->count};
    if (rc == 0 && s->op == VOLUME_WRITE && !sc->quiet && rng_chance(&c->proc->rng, 1, 16))
        scribble_plan(s);
    if (rc == 0) {
        s->busy = true;
        c->busy++;
        c->issued++;
    } else if (!s->tail && s->op != VOLUME_READ) {
        unclaim(s, true);
    }
    if (rc == -ESTALE || rc == -ENOENT)
        c->open[s->volume] = false;
    if (rc)
        s->redo = s->read_all && !(slot_beyond(s) && rc != -ESTALE && rc != -ENOENT);
}

/* Clears of long ranges leave holes: many entries of metadata. */
static void choose_tail(struct slot *s, struct rng *r)
{
    s->tail = true;
    s->op = rng_chance(r, 1, 3) ? VOLUME_READ : rng_chance(r, 1, 2) ? VOLUME_ZERO : VOLUME_DISCARD;
    s->count = s->op == VOLUME_READ ? 1 : 1 + (unsigned)rng_below(r, TAIL_BLOCKS_MOST);
    s->first = (unsigned)rng_below(r, (SIM_VOLUME_BYTES - SIM_HEAD_BYTES) / BLOCK_BYTES - s->count);
}

/* What it wrote last: written again, cleared, or read. */
static bool choose_last(struct sim_client *c, struct slot *s)
{
    if (!c->proc->cluster->shape.rewrite || c->last.count == 0 || !rng_chance(&c->proc->rng, 3, 4))
        return false;
    s->volume = c->last.volume;
    s->group = c->last.group;
    s->first = c->last.first;
    s->count = c->last.count;
    return true;
}

/* A whole block where nothing is, or nothing where there was one. */
static bool choose_fresh(struct sim_client *c, struct slot *s)
{
    struct rng *r = &c->proc->rng;
    if (!c->proc->cluster->shape.fresh || c->reader || rng_chance(r, 1, 16))
        return false;
    s->group = SMALL_GROUPS + (unsigned)rng_below(r, BIG_BLOCKS);
    s->first = 0;
    s->count = BIG_SECTORS;
    s->op = rng_chance(r, 1, 4) ? VOLUME_READ : rng_chance(r, 1, 2) ? VOLUME_WRITE : VOLUME_DISCARD;
    return true;
}

static void slot_choose(struct sim_client *c, struct slot *s)
{
    struct rng *r = &c->proc->rng;
    unsigned dice = (unsigned)rng_below(r, 100);
    if (c->reader && !rng_chance(r, 1, 50))
        dice = 45;
    s->read_all = s->tail = s->whole = false;
    s->volume = (unsigned)rng_below(r, SIM_VOLUMES);
    s->op = dice < 45 ? VOLUME_WRITE : dice < 88 ? VOLUME_READ : dice < 94 ? VOLUME_ZERO : VOLUME_DISCARD;
    if (rng_chance(r, 1, 16) && !c->reader) {
        choose_tail(s, r);
        return;
    }
    if (choose_fresh(c, s))
        return;
    if (choose_last(c, s)) {
        if (s->op == VOLUME_DISCARD)
            s->op = VOLUME_ZERO;
        return;
    }
    unsigned focus = c->proc->cluster->shape.focus;
    if (c->proc->cluster->shape.resizes && rng_chance(r, 1, 3))
        s->group = INNER_GROUPS + (unsigned)rng_below(r, EXTRA_GROUPS);
    else if (focus &&
             (c->reader || rng_chance(r, 7, 8))) { /* what a reader waits for elsewhere would stop it */
        s->volume = 0;
        s->group = (unsigned)rng_below(r, focus);
    } else if (rng_chance(r, 1, 8))
        s->group = SMALL_GROUPS +
                   (unsigned)rng_below(r, BIG_BLOCKS + (c->proc->cluster->shape.restores ? 0 : EXTRA_GROUPS));
    else
        s->group = (unsigned)(rng_chance(r, 3, 4) ? rng_below(r, 8) : rng_below(r, SMALL_GROUPS));
    unsigned sectors = group_sectors(s->group);
    s->first = (unsigned)rng_below(r, sectors);
    s->count = 1 + (unsigned)rng_below(r, sectors - s->first);
    if (rng_chance(r, 1, 3)) {
        s->first = 0;
        s->count = sectors;
    }
    if (s->op == VOLUME_DISCARD) { /* whole units only: the edges of a discard may stay */
        s->first &= ~7u;
        s->count = (s->count + 7u) & ~7u;
        if (s->first + s->count > sectors)
            s->count = sectors - s->first;
    }
}

static bool choose_read_all(struct sim_client *c, struct slot *s)
{
    if (s->redo) {
        s->redo = false;
        return true;
    }
    if (c->read_volume == SIM_VOLUMES)
        return false;
    *s = (struct slot){.client = c, .data = s->data, .read_all = true, .op = VOLUME_READ};
    if (c->clearing) {
        s->tail = s->whole = true;
        s->op = VOLUME_DISCARD;
        s->volume = c->read_volume;
        s->part = c->read_group++;
        if (c->read_group > SIM_EXTRA_MOST) {
            c->read_group = 0;
            c->read_volume++;
        }
        return true;
    }
    s->volume = c->read_volume;
    s->group = c->read_group;
    s->count = group_sectors(s->group);
    if (++c->read_group == GROUPS) {
        c->read_group = 0;
        c->read_volume++;
    }
    return true;
}

static void open_done(void *arg, unsigned volume, int rc)
{
    struct sim_client *c = arg;
    c->opening[volume] = false;
    c->open[volume] = rc == 0;
    c->opened[volume] = sim_tick(c->proc->cluster);
    client_kick(c, rng_below(&c->proc->rng, 100 * NS_PER_MS));
}

/* What an open that was lost still has at a module must end before it can be closed. */
static bool volume_busy(const struct sim_client *c, unsigned volume)
{
    for (unsigned i = 0; i < c->depth; i++)
        if (c->slots[i].busy && c->slots[i].volume == volume)
            return true;
    return false;
}

static void client_step(struct loop_timer *t)
{
    struct sim_client *c = container_of(t, struct sim_client, timer);
    struct sim_cluster *sc = c->proc->cluster;
    for (unsigned v = 0; v < SIM_VOLUMES; v++)
        if (!c->open[v] && !c->opening[v] && sc->volumes_ready && !volume_busy(c, v)) {
            c->opening[v] = true;
            if (sim_backend_open(c->backend, v, open_done, c))
                c->opening[v] = false;
        }
    bool all_open = true;
    for (unsigned v = 0; v < SIM_VOLUMES; v++)
        all_open = all_open && c->open[v];
    for (unsigned i = 0; all_open && i < c->depth; i++) {
        struct slot *s = &c->slots[i];
        if (s->busy)
            continue;
        if (c->reading_all) {
            if (!choose_read_all(c, s))
                break;
        } else if (!c->draining && !sc->quiet && c->issued < sc->options.operations) {
            slot_choose(c, s);
        } else {
            break;
        }
        slot_submit(c, s);
    }
    client_kick(c, 1 + rng_below(&c->proc->rng, 20 * NS_PER_MS));
}

int sim_client_create(struct sim_proc *p, struct sim_client **out)
{
    struct sim_client *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->proc = p;
    c->depth = 1 + (unsigned)rng_below(&p->rng, DEPTH_MAX);
    if (p->cluster->quiet)
        c->depth = DEPTH_MAX;
    c->draining = p->cluster->faults_over;
    c->reader = rng_chance(&p->rng, 1, 3) && !(p->cluster->shape.busy_gateways && p->number % 2 == 1);
    for (unsigned i = 0; i < DEPTH_MAX; i++) {
        c->slots[i].client = c;
        c->slots[i].data = aligned_alloc(UNIT_BYTES, BLOCK_BYTES);
        MUST(c->slots[i].data);
    }
    int rc = sim_backend_create(p, &c->backend);
    MUST(rc == 0);
    loop_timer_init(&c->timer, client_step);
    loop_timer_arm(p->env.loop, &c->timer, 1);
    *out = c;
    return 0;
}

void sim_client_destroy(struct sim_client *c)
{
    for (unsigned i = 0; i < DEPTH_MAX; i++) {
        struct slot *s = &c->slots[i];
        if (s->busy && s->second)
            loop_timer_cancel(c->proc->env.loop, &s->scribble);
        if (s->busy && !s->tail && s->op != VOLUME_READ) {
            record_write(s, false);
            unclaim(s, false);
        }
    }
    loop_timer_cancel(c->proc->env.loop, &c->timer);
    sim_backend_destroy(c->backend);
    for (unsigned i = 0; i < DEPTH_MAX; i++)
        free(c->slots[i].data);
    free(c);
}

struct sim_backend *sim_client_backend(struct sim_client *c)
{
    return c->backend;
}

void sim_client_fenced(struct sim_client *c, unsigned volume, uint64_t asked, uint64_t fenced)
{
    c->fence[volume].asked = asked;
    c->fence[volume].done = fenced;
    for (unsigned i = 0; i < DEPTH_MAX; i++) {
        struct slot *s = &c->slots[i];
        if (s->busy && !s->tail && s->volume == volume && s->opened < asked && !s->fenced)
            s->fenced = fenced;
    }
}

bool sim_client_reads(const struct sim_client *c)
{
    return c->reader;
}

int sim_client_do(struct sim_client *c, enum volume_op op, unsigned volume, unsigned group)
{
    for (unsigned i = 0; i < DEPTH_MAX && c->open[volume]; i++) {
        struct slot *s = &c->slots[i];
        if (s->busy)
            continue;
        s->read_all = s->tail = s->whole = s->redo = false;
        s->op = op;
        s->volume = volume;
        s->group = group;
        s->first = 0;
        s->count = group_sectors(group);
        slot_submit(c, s);
        return s->busy ? (int)i : -EAGAIN;
    }
    return -EAGAIN;
}

int sim_client_result(const struct sim_client *c, int number)
{
    return c->slots[number].busy ? -EINPROGRESS : c->slots[number].rc;
}

bool sim_client_is_open(const struct sim_client *c)
{
    for (unsigned v = 0; v < SIM_VOLUMES; v++)
        if (!c->open[v])
            return false;
    return true;
}

uint64_t sim_client_stripe(unsigned group)
{
    return group_offset(group) / MIB;
}

void sim_client_drain(struct sim_client *c)
{
    c->draining = true;
}

bool sim_client_idle(const struct sim_client *c)
{
    for (unsigned i = 0; i < c->depth; i++)
        if (c->slots[i].redo)
            return false;
    return c->busy == 0 && (!c->reading_all || c->read_volume == SIM_VOLUMES);
}

void sim_client_read_all(struct sim_client *c)
{
    c->reading_all = true;
    c->draining = true;
}

void sim_client_clear_all(struct sim_client *c)
{
    c->clearing = true;
    c->read_volume = c->read_group = 0;
}

void sim_client_explain(const struct sim_client *c, char *out, size_t cap)
{
    size_t n = 0;
    n += (size_t)snprintf(out, cap, "%s:", c->proc->name);
    for (unsigned v = 0; v < SIM_VOLUMES && n < cap; v++)
        if (!c->open[v])
            n += (size_t)snprintf(out + n, cap - n, " volume %u is not open;", v);
    for (unsigned i = 0; i < c->depth && n < cap; i++)
        if (c->slots[i].busy)
            n += (size_t)snprintf(
                out + n, cap - n, " op %d on volume %u offset %" PRIu64 " since tick %" PRIu64 ";",
                (int)c->slots[i].op, c->slots[i].volume, c->slots[i].io.offset, c->slots[i].begin);
}
