/*
 * placement_flow.c: brings every module to its share with the fewest copies moved: a minimum-cost flow, by
 * shortest paths, many of one length at a time.
 *
 * A path begins at a module that has too much, or at a free slot; it gives a copy of some partition to
 * another module, which gives a copy of another partition to a third, and ends at a module that has too
 * little. A copy that comes to a module which did not hold it at first costs 1; one that comes back costs
 * nothing; one that leaves a module where it was new gives 1 back. As long as only shortest paths are used
 * there is never a circle that gains anything, so what is reached at the end is the least (successive
 * shortest paths).
 *
 * Shares are rounded up or down, and only how many are rounded up is fixed: so a module that has its floor
 * can take one more if one that has its ceiling gives one away instead. On a path this is a step over the
 * hub: from the first to the second at no cost.
 *
 * level of a module: the cost of the way to it. The search spreads levels (they can sink again, by what is
 * given back); then paths are looked for along which levels fit exactly, depth first, each copy tried
 * once a round; then levels are spread anew.
 */
#include "services/mdc/placement_work.h"

#include <string.h>

#define LEVEL_LOW  (-4)
#define LEVEL_HIGH 10
#define LEVEL_NONE 11 /* not reached */
_Static_assert(LEVEL_NONE - LEVEL_LOW + 1 == PW_LEVEL, "levels");

/* ---- modules by level and rack, so that those of a full rack, or of a higher level, are not looked at ----
 */

static uint32_t list_of(const struct pw *w, int level, uint32_t rack)
{
    return (uint32_t)(level - LEVEL_LOW) * w->count + rack;
}

static void list_add(struct pw *w, uint32_t u)
{
    struct pw_module *m = &w->m[u];
    const uint32_t l = list_of(w, m->level, m->rack);
    m->listed = true;
    m->level_prev = PW_NONE;
    m->level_next = w->list_head[l];
    if (m->level_next != PW_NONE) {
        w->m[m->level_next].level_prev = u;
    } else {
        uint32_t *first = &w->level_first[m->level - LEVEL_LOW];
        w->rack_prev[l] = PW_NONE;
        w->rack_next[l] = *first;
        if (*first != PW_NONE)
            w->rack_prev[list_of(w, m->level, *first)] = m->rack;
        *first = m->rack;
    }
    w->list_head[l] = u;
}

static void list_drop(struct pw *w, uint32_t u)
{
    struct pw_module *m = &w->m[u];
    const uint32_t l = list_of(w, m->level, m->rack);
    m->listed = false;
    if (m->level_next != PW_NONE)
        w->m[m->level_next].level_prev = m->level_prev;
    if (m->level_prev != PW_NONE) {
        w->m[m->level_prev].level_next = m->level_next;
        return;
    }
    w->list_head[l] = m->level_next;
    if (m->level_next != PW_NONE)
        return;
    if (w->rack_next[l] != PW_NONE)
        w->rack_prev[list_of(w, m->level, w->rack_next[l])] = w->rack_prev[l];
    if (w->rack_prev[l] != PW_NONE)
        w->rack_next[list_of(w, m->level, w->rack_prev[l])] = w->rack_next[l];
    else
        w->level_first[m->level - LEVEL_LOW] = w->rack_next[l];
}

/* ---- the search ---- */

struct spread {
    struct pw *w;
    uint32_t head, tail; /* of the queue */
    int hub;             /* level of the hub */
};

static void relabel(struct spread *s, uint32_t u, int level)
{
    struct pw *w = s->w;
    struct pw_module *m = &w->m[u];
    if (level < LEVEL_LOW || level > LEVEL_HIGH)
        return;
    list_drop(w, u);
    m->level = (int8_t)level;
    list_add(w, u);
    if (m->queued)
        return;
    m->queued = true;
    w->queue[s->tail] = u;
    s->tail = s->tail == w->count ? 0 : s->tail + 1;
}

static bool rack_full(const struct pw *w, uint32_t p, uint32_t without, uint32_t rack)
{
    uint32_t n = 0;
    for (uint32_t s = p * w->copies; s < (p + 1) * w->copies; s++)
        n += s != without && w->slot[s].module != PW_NONE && w->m[w->slot[s].module].rack == rack;
    return n >= w->rack[rack].cap;
}

/* Those of one list that partition p could take newly instead of what is in the slot `without`. */
static void spread_list(struct spread *s, uint32_t p, uint32_t without, int level, int to, uint32_t rack)
{
    struct pw *w = s->w;
    for (uint32_t u = w->list_head[list_of(w, level, rack)], next; u != PW_NONE; u = next) {
        next = w->m[u].level_next;
        if (pw_fits(w, p, without, u))
            relabel(s, u, to);
    }
}

/* A copy of p can be given away at cost `at`, that in the slot `without` (PW_NONE: the partition lacks one).
 */
static void spread_partition(struct spread *s, uint32_t p, uint32_t without, int at)
{
    struct pw *w = s->w;
    const bool all = w->root_level[p] > at;
    const uint32_t own = without != PW_NONE ? w->m[w->slot[without].module].rack : PW_NONE;
    if (all)
        w->root_level[p] = (int8_t)at;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t o = w->old[p * TABLE_MEMBERS_MAX + k];
        if (o != PW_NONE && w->m[o].level > at && pw_fits(w, p, without, o))
            relabel(s, o, at);
    }
    for (int level = at + 2; level <= LEVEL_NONE; level++) {
        if (!all) { /* the other racks were reached from another of its slots */
            spread_list(s, p, without, level, at + 1, own);
            continue;
        }
        for (uint32_t r = w->level_first[level - LEVEL_LOW], next; r != PW_NONE; r = next) {
            next = w->rack_next[list_of(w, level, r)];
            if (!rack_full(w, p, without, r))
                spread_list(s, p, without, level, at + 1, r);
        }
    }
}

static bool at_floor(const struct pw_module *m)
{
    return m->load >= m->floor && m->load < m->ceil;
}

static bool at_ceiling(const struct pw_module *m)
{
    return m->load > m->floor && m->load <= m->ceil;
}

static void spread_hub(struct spread *s, int level)
{
    struct pw *w = s->w;
    if (s->hub <= level)
        return;
    s->hub = level;
    for (uint32_t u = 0; u < w->count; u++) {
        if (at_ceiling(&w->m[u]) && w->m[u].level > level)
            relabel(s, u, level);
    }
}

static void spread_module(struct spread *s, uint32_t u)
{
    struct pw *w = s->w;
    if (at_floor(&w->m[u]))
        spread_hub(s, w->m[u].level);
    for (uint32_t i = w->m[u].head; i != PW_NONE; i = w->slot[i].next) {
        const uint32_t p = i / w->copies;
        const int at = w->m[u].level - (pw_is_old(w, p, u) ? 0 : 1);
        if (at >= LEVEL_LOW)
            spread_partition(s, p, i, at);
    }
}

/* Spreads the levels; returns the lowest of a module that is to get copies. */
static int spread(struct pw *w)
{
    struct spread s = {.w = w, .hub = LEVEL_NONE};
    memset(w->root_level, LEVEL_NONE, w->partitions);
    memset(w->list_head, 0xff, (size_t)PW_LEVEL * w->count * sizeof(*w->list_head));
    memset(w->level_first, 0xff, PW_LEVEL * sizeof(*w->level_first));
    for (uint32_t u = 0; u < w->count; u++) {
        w->m[u].level = LEVEL_NONE;
        w->m[u].queued = false;
        list_add(w, u);
    }
    for (uint32_t u = 0; u < w->count; u++) {
        if (pw_gives(w, &w->m[u]))
            relabel(&s, u, 0);
    }
    for (uint32_t i = 0; i < w->partitions * w->copies; i++) {
        if (w->slot[i].module == PW_NONE && w->root_level[i / w->copies] > 0)
            spread_partition(&s, i / w->copies, PW_NONE, 0);
    }
    while (s.head != s.tail) {
        const uint32_t u = w->queue[s.head];
        s.head = s.head == w->count ? 0 : s.head + 1;
        w->m[u].queued = false;
        spread_module(&s, u);
    }
    int lowest = LEVEL_NONE;
    for (uint32_t u = 0; u < w->count; u++) {
        if (pw_takes(w, &w->m[u]) && w->m[u].level < lowest)
            lowest = w->m[u].level;
    }
    return lowest;
}

/* ---- paths ---- */

/* The next module of a path that gives partition p's copy in the slot away at cost `at`, or PW_NONE. Only
 * modules that are listed: not on the path, not known to lead nowhere. */
static uint32_t step_from(const struct pw *w, uint32_t p, uint32_t slot, int at)
{
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t o = w->old[p * TABLE_MEMBERS_MAX + k];
        if (o != PW_NONE && w->m[o].listed && w->m[o].level == at && pw_fits(w, p, slot, o))
            return o;
    }
    const int level = at + 1;
    for (uint32_t r = w->level_first[level - LEVEL_LOW]; r != PW_NONE;
         r = w->rack_next[list_of(w, level, r)]) {
        if (rack_full(w, p, slot, r))
            continue;
        for (uint32_t u = w->list_head[list_of(w, level, r)]; u != PW_NONE; u = w->m[u].level_next) {
            if (pw_fits(w, p, slot, u))
                return u;
        }
    }
    return PW_NONE;
}

/* A module that could give its copy above the floor, at this level. */
static uint32_t step_over_hub(const struct pw *w, int level)
{
    for (uint32_t r = w->level_first[level - LEVEL_LOW]; r != PW_NONE;
         r = w->rack_next[list_of(w, level, r)]) {
        for (uint32_t u = w->list_head[list_of(w, level, r)]; u != PW_NONE; u = w->m[u].level_next) {
            if (at_ceiling(&w->m[u]))
                return u;
        }
    }
    return PW_NONE;
}

/* Moves along the path: the copy in each slot to the module of the next, the last to `end`. */
static void path_apply(struct pw *w, uint32_t depth, uint32_t end)
{
    for (uint32_t i = depth; i-- > 0;) {
        const uint32_t slot = w->stack_slot[i], from = w->stack[i];
        if (from != PW_NONE)
            list_add(w, from);
        if (slot != PW_HUB) {
            w->busy[slot / w->copies] = false;
            pw_set(w, slot, end);
        }
        end = from;
    }
}

/* Goes on to the module's next slot, of a partition that is not on the path; each is tried once a round. */
static uint32_t next_slot(struct pw *w, uint32_t u)
{
    for (uint32_t s = w->m[u].cursor; s != PW_NONE; s = w->slot[s].next) {
        if (w->busy[s / w->copies])
            continue;
        w->busy[s / w->copies] = true;
        w->m[u].cursor = w->slot[s].next;
        return s;
    }
    w->m[u].cursor = PW_NONE;
    return PW_NONE;
}

/* Where the path could go on from its last step: slot PW_HUB over the hub, else by the copy in the slot. */
static uint32_t step(const struct pw *w, uint32_t u, uint32_t slot, int lowest)
{
    if (slot == PW_HUB)
        return step_over_hub(w, w->m[u].level);
    const uint32_t p = slot / w->copies;
    const int at = u == PW_NONE ? 0 : w->m[u].level - (pw_is_old(w, p, u) ? 0 : 1);
    if (at < LEVEL_LOW || at > lowest)
        return PW_NONE;
    const uint32_t to = step_from(w, p, slot, at);
    return to != PW_NONE && w->m[to].level <= lowest ? to : PW_NONE;
}

/* The next way out of the module at the end of the path, PW_NONE when all were tried. */
static uint32_t next_way(struct pw *w, uint32_t u, uint32_t slot)
{
    if (slot != PW_NONE && slot != PW_HUB)
        w->busy[slot / w->copies] = false;
    return u != PW_NONE ? next_slot(w, u) : PW_NONE;
}

/*
 * Depth first from what lies in stack[0] (PW_NONE: the free slot stack_slot[0]), over modules of a level up
 * to `lowest`, to one that is to get a copy. The modules of the path are not listed meanwhile; those that led
 * nowhere stay so for the round.
 */
static bool path_find(struct pw *w, int lowest)
{
    uint32_t depth = 1;
    while (depth > 0) {
        const uint32_t u = w->stack[depth - 1], slot = w->stack_slot[depth - 1];
        const uint32_t to = slot != PW_NONE ? step(w, u, slot, lowest) : PW_NONE;
        if (to == PW_NONE) {
            w->stack_slot[depth - 1] = next_way(w, u, slot);
            depth -= w->stack_slot[depth - 1] == PW_NONE;
        } else if (slot != PW_HUB && pw_takes(w, &w->m[to])) {
            path_apply(w, depth, to);
            return true;
        } else {
            list_drop(w, to);
            w->stack[depth] = to;
            w->stack_slot[depth] = slot != PW_HUB && at_floor(&w->m[to]) ? PW_HUB : next_slot(w, to);
            depth++;
        }
    }
    return false;
}

/* As many paths of this cost as one pass finds. */
static uint32_t paths(struct pw *w, int lowest)
{
    uint32_t found = 0;
    for (uint32_t u = 0; u < w->count; u++)
        w->m[u].cursor = w->m[u].head;
    for (uint32_t i = 0; i < w->partitions * w->copies; i++) {
        if (w->slot[i].module != PW_NONE)
            continue;
        w->busy[i / w->copies] = true;
        w->stack[0] = PW_NONE;
        w->stack_slot[0] = i;
        found += path_find(w, lowest);
    }
    for (uint32_t u = 0; u < w->count; u++) {
        while (pw_gives(w, &w->m[u]) && w->m[u].listed) {
            list_drop(w, u);
            w->stack[0] = u;
            w->stack_slot[0] = next_slot(w, u);
            found += path_find(w, lowest);
        }
    }
    return found;
}

void pw_balance(struct pw *w, bool zero_only)
{
    int lowest;
    do {
        lowest = spread(w);
        if (lowest == LEVEL_NONE || (zero_only && lowest > 0))
            return;
    } while (paths(w, lowest) != 0);
}
