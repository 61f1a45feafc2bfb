/* placement_primary.c: spreads primaries over the modules; see placement.h. */
#include "services/mdc/placement.h"

#include <stdlib.h>
#include <string.h>

#define NONE  UINT32_MAX
#define WHOLE 840u /* divided by any number of members without a rest */
_Static_assert(WHOLE % 1 == 0 && WHOLE % 2 == 0 && WHOLE % 3 == 0 && WHOLE % 5 == 0 && WHOLE % 7 == 0 &&
                   WHOLE % 8 == 0 && TABLE_MEMBERS_MAX == 8,
               "parts of a partition are whole numbers");

struct module {
    uint32_t id;
    uint8_t state;
    uint64_t share; /* in 1 / WHOLE partitions */
    uint32_t load;  /* partitions it is primary of */
    uint32_t head;  /* first of these */
    uint32_t by;    /* the search: partition through which it was reached */
    bool seen;
};
struct partition {
    uint32_t module[TABLE_MEMBERS_MAX]; /* that may be primary: indexes, or NONE; places as in its set */
    uint32_t count, place;              /* place of the primary, if count != 0 */
    uint32_t next, prev;                /* of the same primary */
};
struct spread {
    struct module *m;
    struct partition *p;
    uint32_t count, partitions, *queue;
};

static int by_id(const void *a, const void *b)
{
    const struct module *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static uint32_t module_at(const struct spread *s, uint32_t id)
{
    const struct module key = {.id = id};
    const struct module *m = bsearch(&key, s->m, s->count, sizeof(*s->m), by_id);
    return m != NULL ? (uint32_t)(m - s->m) : NONE;
}

static void set_primary(struct spread *s, uint32_t p, uint32_t place)
{
    struct partition *x = &s->p[p];
    struct module *from = &s->m[x->module[x->place]], *to = &s->m[x->module[place]];
    if (x->prev != NONE)
        s->p[x->prev].next = x->next;
    else
        from->head = x->next;
    if (x->next != NONE)
        s->p[x->next].prev = x->prev;
    from->load--;
    x->place = place;
    x->prev = NONE;
    x->next = to->head;
    if (to->head != NONE)
        s->p[to->head].prev = p;
    to->head = p;
    to->load++;
}

/* ---- who may be primary ---- */

/* Better is lower: 0 = as wanted, 1 = on its way out, 2 = not at all. */
static int reserve_of(const struct spread *s, uint32_t member, uint32_t u)
{
    if (u == NONE || !(member & TABLE_MEMBER_IN_SYNC) || s->m[u].state == PLACEMENT_AWAY)
        return 2;
    return (member & TABLE_MEMBER_LEAVING) || s->m[u].state == PLACEMENT_DRAINING ? 1 : 0;
}

static void take_partition(struct spread *s, uint32_t p, const struct placement_set *set)
{
    struct partition *x = &s->p[p];
    int reserve[TABLE_MEMBERS_MAX], best = 2;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t id = TABLE_MEMBER_ID(set->members[k]);
        x->module[k] = id != 0 ? module_at(s, id) : NONE;
        reserve[k] = reserve_of(s, set->members[k], x->module[k]);
        best = reserve[k] < best ? reserve[k] : best;
    }
    x->count = 0;
    for (unsigned k = TABLE_MEMBERS_MAX; k-- > 0;) {
        if (best == 2 || reserve[k] != best) {
            x->module[k] = NONE;
            continue;
        }
        x->count++;
        x->place = k; /* ends at the first */
    }
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        if (x->module[k] != NONE)
            s->m[x->module[k]].share += WHOLE / x->count;
    }
    if (x->count == 0)
        return;
    struct module *m = &s->m[x->module[x->place]];
    x->prev = NONE;
    x->next = m->head;
    if (m->head != NONE)
        s->p[m->head].prev = p;
    m->head = p;
    m->load++;
}

/* ---- paths from who has too many to who has too few ---- */

static uint32_t low_of(const struct module *m)
{
    return (uint32_t)(m->share / WHOLE);
}

static uint32_t high_of(const struct module *m)
{
    return (uint32_t)((m->share + WHOLE - 1) / WHOLE);
}

/* First those above their share rounded up go down, to whoever has room; then those below it rounded down are
 * filled, by whoever can spare one. */
static bool has_too_many(const struct module *m, bool filling)
{
    return filling ? m->load > low_of(m) : m->load > high_of(m);
}

static bool has_too_few(const struct module *m, bool filling)
{
    return filling ? m->load < low_of(m) : m->load < high_of(m);
}

static void follow(struct spread *s, uint32_t u)
{
    while (s->m[u].by != NONE) {
        const uint32_t p = s->m[u].by, from = s->p[p].module[s->p[p].place];
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
            if (s->p[p].module[k] == u) {
                set_primary(s, p, k);
                break;
            }
        }
        u = from;
    }
}

/* One shortest path, breadth first. */
static bool shift_one(struct spread *s, bool filling)
{
    uint32_t head = 0, tail = 0;
    for (uint32_t u = 0; u < s->count; u++) {
        s->m[u].seen = has_too_many(&s->m[u], filling);
        s->m[u].by = NONE;
        if (s->m[u].seen)
            s->queue[tail++] = u;
    }
    while (head < tail) {
        const uint32_t u = s->queue[head++];
        for (uint32_t p = s->m[u].head; p != NONE; p = s->p[p].next) {
            for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
                const uint32_t to = s->p[p].module[k];
                if (to == NONE || s->m[to].seen)
                    continue;
                s->m[to].seen = true;
                s->m[to].by = p;
                if (has_too_few(&s->m[to], filling)) {
                    follow(s, to);
                    return true;
                }
                s->queue[tail++] = to;
            }
        }
    }
    return false;
}

/* What goes in one step. */
static void shift_direct(struct spread *s)
{
    for (uint32_t p = 0; p < s->partitions; p++) {
        const struct partition *x = &s->p[p];
        if (x->count < 2 || !has_too_many(&s->m[x->module[x->place]], false))
            continue;
        for (uint32_t k = 0; k < TABLE_MEMBERS_MAX; k++) {
            if (x->module[k] != NONE && has_too_few(&s->m[x->module[k]], true)) {
                set_primary(s, p, k);
                break;
            }
        }
    }
}

/* ---- the answer ---- */

static uint32_t put_first(struct placement_set *set, const struct partition *x)
{
    if (x->count == 0 || x->place == 0)
        return 0;
    const bool other = placement_set_primary(set) != TABLE_MEMBER_ID(set->members[x->place]);
    const uint32_t first = set->members[x->place];
    memmove(&set->members[1], &set->members[0], x->place * sizeof(set->members[0]));
    set->members[0] = first;
    return other;
}

static int check(const struct spread *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->m[i].id == 0 || s->m[i].id != TABLE_MEMBER_ID(s->m[i].id) ||
            (i > 0 && s->m[i].id == s->m[i - 1].id))
            return -EINVAL;
    }
    return 0;
}

int placement_primaries(const struct placement_module *modules, uint32_t count, uint32_t partitions,
                        struct placement_set *sets, uint32_t *changed)
{
    struct spread s = {.count = count, .partitions = partitions};
    if (count == 0 || count > PLACEMENT_MODULES_MAX || partitions > PLACEMENT_PARTITIONS_MAX)
        return -EINVAL;
    s.m = calloc(count, sizeof(*s.m) + sizeof(*s.queue));
    s.p = calloc(partitions, sizeof(*s.p));
    int rc = s.m != NULL && (s.p != NULL || partitions == 0) ? 0 : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        s.m[i] = (struct module){.id = modules[i].id, .state = modules[i].state, .head = NONE};
    if (rc == 0) {
        s.queue = (uint32_t *)(void *)(s.m + count);
        qsort(s.m, count, sizeof(*s.m), by_id);
        rc = check(&s);
    }
    if (rc == 0) {
        uint32_t n = 0;
        for (uint32_t p = 0; p < partitions; p++)
            take_partition(&s, p, &sets[p]);
        shift_direct(&s);
        while (shift_one(&s, false) || shift_one(&s, true))
            ;
        for (uint32_t p = 0; p < partitions; p++)
            n += put_first(&sets[p], &s.p[p]);
        if (changed != NULL)
            *changed = n;
    }
    free(s.m);
    free(s.p);
    return rc;
}
