/*
 * placement_fill.c: the greedy part of the placement. What it does is never wrong: each copy that moves goes
 * from a module that has too much (or from a free slot) straight to one that has too little, which is the
 * cheapest way there is, so placement_flow.c can begin from there and solve what is left over.
 */
#include "services/mdc/placement_work.h"

#define BATCH 16u /* partitions filled from one order of the modules */
#define TRIES 8u

/* ---- drawing a module by what it lacks ---- */

static void fenwick_add(struct pw *w, uint32_t at, int64_t d)
{
    for (uint32_t i = at + 1; i <= w->count; i += i & -i)
        w->fenwick[i] += (uint64_t)d;
}

/* The place that x falls on when each place is as wide as what it lacks. */
static uint32_t fenwick_find(const struct pw *w, uint64_t x)
{
    uint32_t at = 0, bit = 1;
    while (bit * 2 <= w->count)
        bit *= 2;
    for (; bit != 0; bit /= 2) {
        if (at + bit <= w->count && w->fenwick[at + bit] <= x) {
            at += bit;
            x -= w->fenwick[at];
        }
    }
    return at;
}

static uint32_t lack_of(const struct pw_module *m)
{
    return m->load < m->quota ? m->quota - m->load : 0;
}

static uint64_t fenwick_build(struct pw *w)
{
    uint64_t sum = 0;
    for (uint32_t i = 1; i <= w->count; i++)
        w->fenwick[i] = 0;
    for (uint32_t i = 1; i <= w->count; i++) {
        const uint32_t lack = lack_of(&w->m[w->order[i - 1]]);
        const uint32_t up = i + (i & -i);
        w->fenwick[i] += lack;
        if (up <= w->count)
            w->fenwick[up] += w->fenwick[i];
        w->position[w->order[i - 1]] = i - 1;
        sum += lack;
    }
    return sum;
}

/* ---- from nothing ---- */

static void shuffle(struct pw *w, uint32_t *a, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) {
        const uint32_t k = (uint32_t)pw_random(w, i), t = a[i - 1];
        a[i - 1] = a[k];
        a[k] = t;
    }
}

/* A random order of the modules in which those of a rack, and in it those of a host, stay together. stack and
 * stack_slot serve as scratch. */
static void shuffle_tree(struct pw *w)
{
    uint32_t n = 0, *racks = w->stack, *hosts = w->stack_slot;
    for (uint32_t r = 0; r < w->racks; r++)
        racks[r] = r;
    shuffle(w, racks, w->racks);
    for (uint32_t r = 0; r < w->racks; r++) {
        const struct pw_run *rack = &w->rack[racks[r]];
        for (uint32_t h = 0; h < rack->count; h++)
            hosts[h] = rack->first + h;
        shuffle(w, hosts, rack->count);
        for (uint32_t h = 0; h < rack->count; h++) {
            const struct pw_run *host = &w->host[hosts[h]];
            for (uint32_t i = 0; i < host->count; i++)
                w->order[n + i] = host->first + i;
            shuffle(w, w->order + n, host->count);
            n += host->count;
        }
    }
}

/*
 * The modules lie in a row, each as wide as what it lacks, together copies * left wide; partitions take what
 * lies at x, x + left, x + 2 left ... What may have c copies of each of the partitions left is at most
 * c * left wide, and lies in one piece: so it gets at most c of them, and afterwards this is true again. So
 * nothing is ever left over, and what is full to its limit is in every partition. The order changes from
 * batch to batch so that the copies of what one module holds lie on many others.
 */
static void fill_partition(struct pw *w, uint32_t p, uint32_t left)
{
    uint32_t got[PLACEMENT_COPIES_MAX];
    const uint64_t x = pw_random(w, left);
    for (uint32_t k = 0; k < w->copies; k++)
        got[k] = w->order[fenwick_find(w, x + (uint64_t)k * left)];
    /* Not always the same rack first. */
    shuffle(w, got, w->copies);
    for (uint32_t k = 0; k < w->copies; k++) {
        pw_set(w, p * w->copies + k, got[k]);
        fenwick_add(w, w->position[got[k]], -1);
    }
}

void pw_fill_empty(struct pw *w)
{
    for (uint32_t p = 0; p < w->partitions; p++) {
        if (p % BATCH == 0) {
            shuffle_tree(w);
            MUST(fenwick_build(w) == (uint64_t)(w->partitions - p) * w->copies);
        }
        fill_partition(w, p, w->partitions - p);
    }
}

/* ---- what is there stays ---- */

/* Puts a copy of the slot's partition on a module that lacks some, drawn by how many. *lacking = how many all
 * lack. */
static bool draw(struct pw *w, uint32_t slot, uint64_t *lacking)
{
    const uint32_t p = slot / w->copies;
    for (unsigned i = 0; i < TRIES && *lacking != 0; i++) {
        const uint32_t u = w->order[fenwick_find(w, pw_random(w, *lacking))];
        if (!pw_takes(w, &w->m[u]) || !pw_fits(w, p, slot, u))
            continue;
        pw_set(w, slot, u);
        fenwick_add(w, w->position[u], -1);
        --*lacking;
        return true;
    }
    return false;
}

void pw_fill_greedy(struct pw *w)
{
    for (uint32_t i = 0; i < w->count; i++)
        w->order[i] = i;
    uint64_t lacking = fenwick_build(w);
    const uint32_t slots = w->partitions * w->copies;
    for (uint32_t s = 0; s < slots && lacking != 0; s++) {
        if (w->slot[s].module == PW_NONE)
            draw(w, s, &lacking);
    }
    for (uint32_t i = 0; i < w->count && lacking != 0; i++) {
        struct pw_module *m = &w->m[i];
        for (uint32_t s = m->head, next; s != PW_NONE && pw_gives(w, m); s = next) {
            next = w->slot[s].next;
            draw(w, s, &lacking);
        }
    }
}

void pw_fill_rest(struct pw *w)
{
    const uint32_t slots = w->partitions * w->copies;
    for (uint32_t s = 0; s < slots; s++) {
        if (w->slot[s].module != PW_NONE)
            continue;
        uint32_t best = PW_NONE;
        for (uint32_t u = 0; u < w->count; u++) {
            if (!pw_fits(w, s / w->copies, s, u))
                continue;
            if (best == PW_NONE ||
                (int64_t)w->m[u].load - w->m[u].ceil < (int64_t)w->m[best].load - w->m[best].ceil)
                best = u;
        }
        MUST(best != PW_NONE); /* the limits of racks and hosts leave room for all copies */
        pw_set(w, s, best);
    }
}
