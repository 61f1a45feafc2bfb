/* placement.c: see placement.h. */
#include "services/mdc/placement.h"

#include <stdlib.h>
#include <string.h>

struct share {
    uint32_t id;
    uint64_t weight;
    uint32_t held; /* partitions of old */
    uint32_t quota;
    uint32_t given;
    uint64_t remainder;
};

static int by_id(const void *a, const void *b)
{
    const struct share *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int by_remainder(const void *a, const void *b)
{
    const struct share *x = a, *y = b;
    if (x->remainder != y->remainder)
        return x->remainder > y->remainder ? -1 : 1;
    if (x->held != y->held)
        return x->held > y->held ? -1 : 1;
    return by_id(a, b);
}

static struct share *share_of(struct share *s, uint32_t count, uint32_t id)
{
    struct share key = {.id = id};
    return bsearch(&key, s, count, sizeof(*s), by_id);
}

static int fill_shares(struct share *s, const struct placement_member *members, uint32_t count,
                       unsigned __int128 *sum)
{
    *sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        s[i] = (struct share){.id = members[i].id, .weight = members[i].weight};
        *sum += members[i].weight;
    }
    qsort(s, count, sizeof(*s), by_id);
    for (uint32_t i = 1; i < count; i++) {
        if (s[i].id == s[i - 1].id)
            return -EINVAL;
    }
    return *sum != 0 ? 0 : -EINVAL;
}

/* Largest remainder. A remainder fits 64 bits once it is scaled down by the sum of weights; for the
 * comparison the sum is below 2^72 (256 members of 2^64), so the remainders are shifted until they fit. */
static void set_quotas(struct share *s, uint32_t count, uint32_t partitions, unsigned __int128 sum)
{
    unsigned shift = 0;
    while ((sum >> shift) > UINT64_MAX)
        shift++;
    uint32_t given = 0, eligible = 0;
    for (uint32_t i = 0; i < count; i++) {
        unsigned __int128 share = (unsigned __int128)s[i].weight * partitions;
        s[i].quota = (uint32_t)(share / sum);
        s[i].remainder = (uint64_t)((share % sum) >> shift);
        given += s[i].quota;
        eligible += s[i].weight != 0;
    }
    MUST(partitions - given <= eligible);
    qsort(s, count, sizeof(*s), by_remainder);
    for (uint32_t i = 0; given < partitions; i++) {
        MUST(i < count);
        if (s[i].weight != 0) {
            s[i].quota++;
            given++;
        }
    }
    qsort(s, count, sizeof(*s), by_id);
}

/* The member that lacks the largest part of its quota: neighbours in index go to different members where they
 * can. */
static struct share *neediest(struct share *s, uint32_t count)
{
    struct share *best = NULL;
    for (uint32_t i = 0; i < count; i++) {
        if (s[i].given >= s[i].quota)
            continue;
        if (best == NULL || (uint64_t)(s[i].quota - s[i].given) * best->quota >
                                (uint64_t)(best->quota - best->given) * s[i].quota)
            best = &s[i];
    }
    return best;
}

int placement_assign(const struct placement_member *members, uint32_t count, uint32_t partitions,
                     const uint32_t *old, uint32_t *out)
{
    struct share *s = calloc(count != 0 ? count : 1, sizeof(*s));
    if (s == NULL)
        return -ENOMEM;
    unsigned __int128 sum;
    int rc = fill_shares(s, members, count, &sum);
    if (rc != 0) {
        free(s);
        return rc;
    }
    for (uint32_t p = 0; old != NULL && p < partitions; p++) {
        struct share *h = share_of(s, count, old[p]);
        if (h != NULL)
            h->held++;
    }
    set_quotas(s, count, partitions, sum);
    for (uint32_t p = 0; p < partitions; p++) {
        struct share *h = old != NULL ? share_of(s, count, old[p]) : NULL;
        out[p] = 0;
        if (h != NULL && h->given < h->quota) {
            h->given++;
            out[p] = h->id;
        }
    }
    for (uint32_t p = 0; p < partitions; p++) {
        if (out[p] != 0)
            continue;
        struct share *to = neediest(s, count);
        MUST(to != NULL);
        to->given++;
        out[p] = to->id;
    }
    free(s);
    return 0;
}

uint32_t placement_partitions_default(uint32_t modules)
{
    uint32_t n = 64;
    while (n < 4096 && n < (uint64_t)modules * 32)
        n *= 2;
    return n;
}
