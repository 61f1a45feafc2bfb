/* placement_tree.c: modules as a tree, what the rule comes to with them, shares and quotas. */
#include "services/mdc/placement_work.h"

#include <stdlib.h>
#include <string.h>

/* A share this near to a whole number is that number: rounding errors of the sums are far smaller, and the
 * errors of all modules together stay below one copy. */
#define NEAR (PW_COPY >> 14)
_Static_assert((uint64_t)PLACEMENT_MODULES_MAX *NEAR <= PW_COPY, "errors stay below one copy");

/* ---- memory ---- */

static void *carve(uint8_t **at, size_t bytes)
{
    uint8_t *p = *at;
    if (*at != NULL)
        *at += round_up(bytes, 16);
    return p;
}

/* Lays the arrays out from base; base NULL: only counts. Returns the bytes. */
static size_t lay_out(struct pw *w, uint8_t *base, uint32_t count)
{
    const size_t slots = (size_t)w->partitions * w->copies, olds = (size_t)w->partitions * TABLE_MEMBERS_MAX;
    const size_t lists = (size_t)PW_LEVEL * count;
    const size_t bytes[] = {
        count * sizeof(*w->m),
        count * sizeof(*w->host),
        count * sizeof(*w->rack),
        count * sizeof(*w->by_id),
        slots * sizeof(*w->slot),
        olds * sizeof(*w->old),
        (count + 1) * sizeof(uint64_t),
        count * sizeof(*w->order),
        count * sizeof(*w->position),
        w->partitions,
        w->partitions * sizeof(*w->busy),
        (count + 1) * sizeof(*w->queue),
        count * sizeof(*w->stack),
        count * sizeof(*w->stack_slot),
        lists * sizeof(uint32_t),
        lists * sizeof(uint32_t),
        lists * sizeof(uint32_t),
        PW_LEVEL * sizeof(uint32_t),
    };
    void **const to[] = {
        (void **)&w->m,         (void **)&w->host,        (void **)&w->rack,      (void **)&w->by_id,
        (void **)&w->slot,      (void **)&w->old,         (void **)&w->fenwick,   (void **)&w->order,
        (void **)&w->position,  (void **)&w->root_level,  (void **)&w->busy,      (void **)&w->queue,
        (void **)&w->stack,     (void **)&w->stack_slot,  (void **)&w->list_head, (void **)&w->rack_next,
        (void **)&w->rack_prev, (void **)&w->level_first,
    };
    _Static_assert(ARRAY_LEN(bytes) == ARRAY_LEN(to), "each array has its place");
    size_t sum = 0;
    for (size_t i = 0; i < ARRAY_LEN(bytes); i++) {
        if (base != NULL)
            *to[i] = carve(&base, bytes[i]);
        sum += round_up(bytes[i], 16);
    }
    return sum;
}

void pw_destroy(struct pw *w)
{
    free(w->memory);
    memset(w, 0, sizeof(*w));
}

/* ---- the tree ---- */

static int cmp_u32(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static int cmp_host(const void *a, const void *b)
{
    const struct pw_module *x = a, *y = b;
    if (x->host != y->host)
        return x->host < y->host ? -1 : 1;
    return cmp_u32(&x->id, &y->id);
}

static int cmp_tree(const void *a, const void *b)
{
    const struct pw_module *x = a, *y = b;
    if (x->rack != y->rack)
        return x->rack < y->rack ? -1 : 1;
    return cmp_host(a, b);
}

static bool takes_copies(const struct placement_module *m)
{
    return m->state == PLACEMENT_UP && m->weight != 0;
}

/* ids: scratch of count. */
static int check_input(const struct placement_rule *rule, const struct placement_module *modules,
                       uint32_t count, uint32_t partitions, uint32_t *eligible)
{
    if (rule->copies == 0 || rule->copies > PLACEMENT_COPIES_MAX || rule->domain > PLACEMENT_RACK ||
        count > PLACEMENT_MODULES_MAX || partitions == 0 || partitions > PLACEMENT_PARTITIONS_MAX)
        return -EINVAL;
    *eligible = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (modules[i].id == 0 || modules[i].id != TABLE_MEMBER_ID(modules[i].id) ||
            modules[i].state > PLACEMENT_AWAY)
            return -EINVAL;
        *eligible += takes_copies(&modules[i]);
    }
    return *eligible != 0 ? 0 : -EINVAL;
}

static int check_twice(const struct placement_module *modules, uint32_t count)
{
    uint32_t *ids = malloc(count * sizeof(*ids));
    int rc = 0;
    if (ids == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        ids[i] = modules[i].id;
    qsort(ids, count, sizeof(*ids), cmp_u32);
    for (uint32_t i = 1; i < count; i++) {
        if (ids[i] == ids[i - 1])
            rc = -EINVAL;
    }
    free(ids);
    return rc;
}

static uint32_t scaled(uint64_t weight, uint64_t heaviest)
{
    const int shift = __builtin_clzll(heaviest);
    const uint64_t s = (weight << shift) >> 32; /* the heaviest is in 2^31 .. 2^32 - 1 */
    return s != 0 ? (uint32_t)s : 1;
}

static void take_modules(struct pw *w, const struct placement_module *modules, uint32_t count)
{
    uint64_t heaviest = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (takes_copies(&modules[i]))
            heaviest = max_u64(heaviest, modules[i].weight);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (takes_copies(&modules[i]))
            w->m[n++] = (struct pw_module){.id = modules[i].id,
                                           .rack = modules[i].rack,
                                           .host = modules[i].host,
                                           .weight = scaled(modules[i].weight, heaviest),
                                           .head = PW_NONE};
    }
    w->count = n;
    qsort(w->m, n, sizeof(*w->m), cmp_host);
    for (uint32_t i = 1; i < n; i++) {
        if (w->m[i].host == w->m[i - 1].host)
            w->m[i].rack = w->m[i - 1].rack;
    }
    qsort(w->m, n, sizeof(*w->m), cmp_tree);
}

/* Dense numbers instead of those given. */
static void grow_tree(struct pw *w)
{
    uint32_t rack = 0, host = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        const struct pw_module given = w->m[i];
        const bool new_rack = i == 0 || given.rack != rack, new_host = new_rack || given.host != host;
        rack = given.rack;
        host = given.host;
        if (new_host)
            w->host[w->hosts++] = (struct pw_run){.first = i};
        if (new_rack)
            w->rack[w->racks++] = (struct pw_run){.first = w->hosts - 1};
        w->rack[w->racks - 1].count += new_host;
        w->host[w->hosts - 1].count++;
        w->m[i].rack = w->racks - 1;
        w->m[i].host = w->hosts - 1;
    }
}

static int cmp_id(const void *a, const void *b, void *modules)
{
    const struct pw_module *m = modules;
    return cmp_u32(&m[*(const uint32_t *)a].id, &m[*(const uint32_t *)b].id);
}

uint32_t pw_find(const struct pw *w, uint32_t id)
{
    uint32_t low = 0, high = w->count;
    while (low < high) {
        const uint32_t mid = (low + high) / 2;
        if (w->m[w->by_id[mid]].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < w->count && w->m[w->by_id[low]].id == id ? w->by_id[low] : PW_NONE;
}

/* The least number of copies a host, then a rack, has to be allowed so that all copies have a place. */
static void find_caps(struct pw *w)
{
    const uint32_t copies = w->copies;
    uint32_t cap = w->rule.domain >= PLACEMENT_HOST ? 0 : copies - 1, room = 0;
    while (room < copies) {
        cap++;
        room = 0;
        for (uint32_t h = 0; h < w->hosts; h++) {
            w->host[h].cap = (uint32_t)min_u64(cap, w->host[h].count);
            room += w->host[h].cap;
        }
    }
    cap = w->rule.domain >= PLACEMENT_RACK ? 0 : copies - 1;
    for (room = 0; room < copies;) {
        cap++;
        room = 0;
        for (uint32_t r = 0; r < w->racks; r++) {
            uint32_t hosts_room = 0;
            for (uint32_t h = 0; h < w->rack[r].count; h++)
                hosts_room += w->host[w->rack[r].first + h].cap;
            w->rack[r].cap = (uint32_t)min_u64(cap, hosts_room);
            room += w->rack[r].cap;
        }
    }
    for (uint32_t h = 0; h < w->hosts; h++)
        w->host[h].total_cap = w->host[h].cap * w->partitions;
    for (uint32_t r = 0; r < w->racks; r++)
        w->rack[r].total_cap = w->rack[r].cap * w->partitions;
}

int pw_create(const struct placement_rule *rule, const struct placement_module *modules, uint32_t count,
              uint32_t partitions, struct pw *w)
{
    memset(w, 0, sizeof(*w));
    uint32_t eligible;
    int rc = check_input(rule, modules, count, partitions, &eligible);
    if (rc == 0)
        rc = check_twice(modules, count);
    if (rc != 0)
        return rc;
    w->rule = *rule;
    w->partitions = partitions;
    w->copies = (uint32_t)min_u64(rule->copies, eligible);
    w->memory = calloc(1, lay_out(w, NULL, eligible));
    if (w->memory == NULL)
        return -ENOMEM;
    lay_out(w, w->memory, eligible);
    take_modules(w, modules, count);
    grow_tree(w);
    for (uint32_t i = 0; i < w->count; i++)
        w->by_id[i] = i;
    qsort_r(w->by_id, w->count, sizeof(*w->by_id), cmp_id, w->m);
    for (size_t i = 0; i < (size_t)partitions * w->copies; i++)
        w->slot[i].module = PW_NONE;
    for (size_t i = 0; i < (size_t)partitions * TABLE_MEMBERS_MAX; i++)
        w->old[i] = PW_NONE;
    find_caps(w);
    w->random = 0x9e3779b97f4a7c15ull;
    return 0;
}

void pw_describe(const struct pw *w, struct placement_result *out)
{
    memset(out, 0, sizeof(*out));
    out->copies = (uint8_t)w->copies;
    for (uint32_t r = 0; r < w->racks; r++)
        out->per_rack = (uint8_t)max_u64(out->per_rack, w->rack[r].cap);
    for (uint32_t h = 0; h < w->hosts; h++)
        out->per_host = (uint8_t)max_u64(out->per_host, w->host[h].cap);
    out->domain = PLACEMENT_MODULE;
    if (out->per_host == 1)
        out->domain = out->per_rack == 1 ? PLACEMENT_RACK : PLACEMENT_HOST;
    out->degraded = w->copies < w->rule.copies || out->domain < w->rule.domain;
    out->racks = w->racks;
    out->hosts = w->hosts;
    out->modules = w->count;
}

/* ---- shares: water is poured into all modules at a rate by weight; who is full takes no more ---- */

typedef unsigned __int128 u128;

struct pour {
    u128 level;   /* copies (in 1 / PW_COPY) for each unit of weight, 32 bits behind the point */
    u128 weight;  /* of the modules that still rise */
    uint64_t sum; /* what all have */
};

static void pour_module(const struct pw *w, uint32_t i, struct pour *p)
{
    const uint64_t cap = (uint64_t)w->partitions << PW_FRAC;
    const u128 have = (w->m[i].weight * p->level) >> 32;
    if (have >= cap) {
        p->sum += cap;
    } else {
        p->sum += (uint64_t)have;
        p->weight += w->m[i].weight;
    }
}

static void pour_capped(struct pour *p, const struct pour *inner, uint32_t total_cap)
{
    const uint64_t cap = (uint64_t)total_cap << PW_FRAC;
    if (inner->sum >= cap) {
        p->sum += cap;
    } else {
        p->sum += inner->sum;
        p->weight += inner->weight;
    }
}

static void pour_host(const struct pw *w, uint32_t h, struct pour *p)
{
    for (uint32_t i = 0; i < w->host[h].count; i++)
        pour_module(w, w->host[h].first + i, p);
}

static void pour_rack(const struct pw *w, uint32_t r, struct pour *p)
{
    for (uint32_t i = 0; i < w->rack[r].count; i++) {
        const uint32_t h = w->rack[r].first + i;
        struct pour inner = {.level = p->level};
        pour_host(w, h, &inner);
        pour_capped(p, &inner, w->host[h].total_cap);
    }
}

static void pour_all(const struct pw *w, uint32_t unused, struct pour *p)
{
    (void)unused;
    for (uint32_t r = 0; r < w->racks; r++) {
        struct pour inner = {.level = p->level};
        pour_rack(w, r, &inner);
        pour_capped(p, &inner, w->rack[r].total_cap);
    }
}

/* The level at which node has `total` in all. The sum is a concave function of the level, so steps along its
 * slope come from below, and each but the last fills somebody up. */
static struct pour pour_until(const struct pw *w, void (*pour)(const struct pw *, uint32_t, struct pour *),
                              uint32_t node, uint64_t total)
{
    struct pour p = {.level = 0};
    for (;;) {
        const u128 level = p.level;
        p = (struct pour){.level = level};
        pour(w, node, &p);
        if (p.sum >= total || p.weight == 0)
            return p;
        const u128 step = (((u128)(total - p.sum)) << 32) / p.weight;
        if (step == 0)
            return p;
        p.level += step;
    }
}

static void share_host(struct pw *w, uint32_t h, uint64_t total)
{
    const struct pour p = pour_until(w, pour_host, h, total);
    for (uint32_t i = 0; i < w->host[h].count; i++) {
        struct pw_module *m = &w->m[w->host[h].first + i];
        struct pour one = {.level = p.level};
        pour_module(w, w->host[h].first + i, &one);
        m->share = one.sum;
        m->floor = (uint32_t)((m->share + NEAR) >> PW_FRAC);
        m->ceil = m->floor + (m->share > ((uint64_t)m->floor << PW_FRAC) + NEAR);
    }
}

static void share_rack(struct pw *w, uint32_t r, uint64_t total)
{
    const struct pour p = pour_until(w, pour_rack, r, total);
    for (uint32_t i = 0; i < w->rack[r].count; i++) {
        const uint32_t h = w->rack[r].first + i;
        struct pour inner = {.level = p.level};
        pour_host(w, h, &inner);
        share_host(w, h, min_u64(inner.sum, (uint64_t)w->host[h].total_cap << PW_FRAC));
    }
}

void pw_shares(struct pw *w)
{
    const uint64_t total = ((uint64_t)w->partitions * w->copies) << PW_FRAC;
    const struct pour p = pour_until(w, pour_all, 0, total);
    for (uint32_t r = 0; r < w->racks; r++) {
        struct pour inner = {.level = p.level};
        pour_rack(w, r, &inner);
        share_rack(w, r, min_u64(inner.sum, (uint64_t)w->rack[r].total_cap << PW_FRAC));
    }
    w->extra = w->partitions * w->copies;
    for (uint32_t i = 0; i < w->count; i++)
        w->extra -= w->m[i].floor;
}

/* ---- quotas ---- */

static uint64_t fraction(const struct pw_module *m)
{
    return m->ceil > m->floor ? m->share - ((uint64_t)m->floor << PW_FRAC) : 0;
}

/* Who is rounded up first: who has that copy already, then the larger fraction, then who has more, then the
 * lower id. */
static int cmp_round_up(const void *a, const void *b, void *modules)
{
    const struct pw_module *all = modules, *x = &all[*(const uint32_t *)a], *y = &all[*(const uint32_t *)b];
    const uint64_t fx = fraction(x), fy = fraction(y);
    if ((x->load > x->floor) != (y->load > y->floor))
        return x->load > x->floor ? -1 : 1;
    if (fx != fy)
        return fx > fy ? -1 : 1;
    if (x->load != y->load)
        return x->load > y->load ? -1 : 1;
    return cmp_u32(&x->id, &y->id);
}

static bool round_up_one(struct pw *w, struct pw_module *m)
{
    struct pw_run *h = &w->host[m->host], *r = &w->rack[m->rack];
    if (m->quota >= w->partitions || h->used >= h->total_cap || r->used >= r->total_cap)
        return false;
    m->quota++;
    h->used++;
    r->used++;
    return true;
}

/* The copies that floors leave over: within the limits of hosts and racks, which are inside one another, who
 * comes first in order gets one, and no other choice is better. */
void pw_quotas(struct pw *w)
{
    uint32_t left = w->extra;
    for (uint32_t i = 0; i < w->count; i++) {
        struct pw_module *m = &w->m[i];
        m->quota = m->floor;
        w->host[m->host].used += m->floor;
        w->rack[m->rack].used += m->floor;
        w->order[i] = i;
    }
    qsort_r(w->order, w->count, sizeof(*w->order), cmp_round_up, w->m);
    for (uint32_t i = 0; left > 0 && i < w->count; i++) {
        if (fraction(&w->m[w->order[i]]) != 0)
            left -= round_up_one(w, &w->m[w->order[i]]);
    }
    /* Only fractions that were taken for none can be left, and there is room for all. */
    for (uint32_t i = 0, before = left; left > 0; i++) {
        if (i == w->count) {
            MUST(left < before);
            before = left;
            i = 0;
        }
        left -= round_up_one(w, &w->m[w->order[i]]);
    }
}

/* ---- slots ---- */

uint64_t pw_random(struct pw *w, uint64_t bound)
{
    uint64_t z = (w->random += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return (uint64_t)(((u128)z * bound) >> 64);
}

bool pw_fits(const struct pw *w, uint32_t p, uint32_t without, uint32_t u)
{
    const struct pw_module *m = &w->m[u];
    uint32_t in_rack = 0, on_host = 0;
    for (uint32_t s = p * w->copies; s < (p + 1) * w->copies; s++) {
        const uint32_t o = w->slot[s].module;
        if (o == u)
            return false;
        if (s == without || o == PW_NONE)
            continue;
        in_rack += w->m[o].rack == m->rack;
        on_host += w->m[o].host == m->host;
    }
    return in_rack < w->rack[m->rack].cap && on_host < w->host[m->host].cap;
}

bool pw_is_old(const struct pw *w, uint32_t p, uint32_t u)
{
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        if (w->old[p * TABLE_MEMBERS_MAX + k] == u)
            return true;
    }
    return false;
}

bool pw_gives(const struct pw *w, const struct pw_module *m)
{
    return m->load > m->ceil || (m->load > m->floor && w->extra_used > w->extra);
}

bool pw_takes(const struct pw *w, const struct pw_module *m)
{
    return m->load < m->floor || (m->load < m->ceil && w->extra_used < w->extra);
}

void pw_set(struct pw *w, uint32_t slot, uint32_t u)
{
    struct pw_slot *s = &w->slot[slot];
    if (s->module != PW_NONE) {
        struct pw_module *m = &w->m[s->module];
        if (s->prev != PW_NONE)
            w->slot[s->prev].next = s->next;
        else
            m->head = s->next;
        if (s->next != PW_NONE)
            w->slot[s->next].prev = s->prev;
        w->extra_used -= m->load > m->floor && m->load <= m->ceil;
        m->load--;
    }
    s->module = u;
    s->prev = s->next = PW_NONE;
    if (u != PW_NONE) {
        struct pw_module *m = &w->m[u];
        s->next = m->head;
        if (s->next != PW_NONE)
            w->slot[s->next].prev = slot;
        m->head = slot;
        w->extra_used += m->load >= m->floor && m->load < m->ceil;
        m->load++;
    }
}
