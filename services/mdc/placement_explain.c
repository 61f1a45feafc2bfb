/* placement_explain.c: see placement_explain.h. */
#include "services/mdc/placement_explain.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct explain {
    const struct placement_module *modules;
    const struct placement_label *labels;
    uint32_t count, partitions;
    const struct placement_set *sets, *set;
    const struct placement_result *result;
    const uint64_t *share_milli;
};

/* Appends; what does not fit is cut. */
static void say(char *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(char *text, const char *fmt, ...)
{
    const size_t len = strlen(text);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + len, PLACEMENT_WHY_BYTES - len, fmt, ap);
    va_end(ap);
}

static const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

static uint32_t index_of(const struct explain *e, uint32_t id)
{
    uint32_t i = 0;
    while (i < e->count && e->modules[i].id != id)
        i++;
    return i;
}

static void say_rule(const struct placement_rule *rule, const struct placement_result *r, char *text)
{
    static const char *const apart[] = {"no two on one module", "no two on one host", "no two in one rack"};
    if (r->copies == 1) {
        say(text, "1 copy, on any module, by weight");
    } else {
        say(text, "%u copies, %s", r->copies, apart[r->domain]);
    }
    if (r->copies < rule->copies)
        say(text, "; %u were asked for, but only %u module%s can take any", rule->copies, r->modules,
            plural(r->modules));
    if (r->copies > 1 && r->domain < rule->domain)
        say(text, "; %s was asked for, but there %s %u rack%s and %u host%s", apart[rule->domain],
            r->racks == 1 ? "is" : "are", r->racks, plural(r->racks), r->hosts, plural(r->hosts));
}

/* ---- one member ---- */

static void say_role(const struct explain *e, uint32_t member, char *text)
{
    if (placement_set_primary(e->set) == TABLE_MEMBER_ID(member))
        say(text, "primary");
    else
        say(text, member & TABLE_MEMBER_IN_SYNC ? "in sync" : "not in sync yet");
    if (member & TABLE_MEMBER_LEAVING)
        say(text, ", leaves when the others are in sync");
}

/* Another member on the same host, or else in the same rack: who shares its fate. */
static void say_neighbours(const struct explain *e, uint32_t i, char *text)
{
    uint32_t host = 0, rack = 0, others = 0;
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t id = TABLE_MEMBER_ID(e->set->members[k]), o = index_of(e, id);
        if (id == 0 || o == e->count || o == i || (e->set->members[k] & TABLE_MEMBER_LEAVING))
            continue;
        others++;
        if (e->modules[o].host == e->modules[i].host)
            host = id;
        else if (e->modules[o].rack == e->modules[i].rack)
            rack = id;
    }
    if (others == 0)
        return;
    const char *name = e->labels[i].rack;
    if (host != 0)
        say(text, "; host %s also has the copy of module %u", e->labels[i].host, host);
    else if (rack != 0)
        say(text, "; alone on host %s, rack %s also has the copy of module %u", e->labels[i].host,
            name[0] != 0 ? name : "(no name)", rack);
    else
        say(text, "; alone in rack %s", name[0] != 0 ? name : "(no name)");
}

static uint32_t copies_on(const struct explain *e, uint32_t id)
{
    uint32_t n = 0;
    for (uint32_t p = 0; p < e->partitions; p++)
        n += placement_set_has(&e->sets[p], id);
    return n;
}

static void say_share(const struct explain *e, uint32_t i, char *text)
{
    const struct placement_module *m = &e->modules[i];
    const uint32_t have = copies_on(e, m->id);
    if (m->state == PLACEMENT_DRAINING)
        say(text, "; module %u is to be emptied and still holds %u cop%s", m->id, have,
            have == 1 ? "y" : "ies");
    else if (m->state == PLACEMENT_AWAY)
        say(text, "; module %u is away: its %u cop%s to be made elsewhere", m->id, have,
            have == 1 ? "y is" : "ies are");
    else
        say(text, "; module %u holds %u of %u copies, its share by weight is %" PRIu64 ".%" PRIu64, m->id,
            have, e->partitions * e->result->copies, e->share_milli[i] / 1000,
            e->share_milli[i] % 1000 / 100);
}

int placement_explain(const struct placement_rule *rule, const struct placement_module *modules,
                      const struct placement_label *labels, uint32_t count, uint32_t partitions,
                      const struct placement_set *sets, uint32_t p, struct placement_story *out)
{
    struct placement_result result;
    if (p >= partitions || count == 0)
        return -EINVAL;
    uint64_t *share = malloc(count * sizeof(*share));
    if (share == NULL)
        return -ENOMEM;
    int rc = placement_shares(rule, modules, count, partitions, share, &result);
    if (rc != 0) {
        free(share);
        return rc;
    }
    const struct explain e = {.modules = modules,
                              .labels = labels,
                              .count = count,
                              .partitions = partitions,
                              .sets = sets,
                              .set = &sets[p],
                              .result = &result,
                              .share_milli = share};
    memset(out, 0, sizeof(*out));
    say_rule(rule, &result, out->rule);
    for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
        const uint32_t member = sets[p].members[k], i = index_of(&e, TABLE_MEMBER_ID(member));
        if (member == 0)
            continue;
        struct placement_reason *r = &out->member[out->count++];
        r->module = TABLE_MEMBER_ID(member);
        say_role(&e, member, r->why);
        if (i == count) {
            say(r->why, "; module %u is not known", r->module);
            continue;
        }
        say_neighbours(&e, i, r->why);
        say_share(&e, i, r->why);
    }
    free(share);
    return 0;
}
