/* problems.c: see problems.h. */
#include "services/ctl/problems.h"

#include "common/table/table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void problem(struct problems *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct problems *p, const char *fmt, ...)
{
    const size_t room = sizeof(p->text);
    va_list args;
    size_t n = strlen(p->text);
    if (n > 0)
        n += (size_t)snprintf(p->text + n, room - n, "\n");
    if (n >= room)
        return;
    va_start(args, fmt);
    vsnprintf(p->text + n, room - n, fmt, args);
    va_end(args);
}

/* "1 partition", "12 partitions"; out holds 32 bytes. */
static const char *count(char *out, uint64_t n, const char *what)
{
    snprintf(out, 32, "%" PRIu64 " %s%s", n, what, n == 1 ? "" : "s");
    return out;
}

/* "40 s", "12 min", "3 h", "5 days"; out holds 32 bytes. */
static const char *span(char *out, uint64_t ms)
{
    const uint64_t s = ms / 1000;
    if (s < 120)
        snprintf(out, 32, "%" PRIu64 " s", s);
    else if (s < 7200)
        snprintf(out, 32, "%" PRIu64 " min", s / 60);
    else if (s < 172800)
        snprintf(out, 32, "%" PRIu64 " h", s / 3600);
    else
        snprintf(out, 32, "%" PRIu64 " days", s / 86400);
    return out;
}

static uint64_t left(uint64_t limit, uint64_t gone)
{
    return limit > gone ? limit - gone : 0;
}

/* ---- modules ---- */

static void say_down(struct problems *p, const struct mdc_module_info *m, const char *who,
                     uint64_t replace_ms)
{
    char since[32], parts[32], soon[32];
    span(since, m->silent_ms);
    count(parts, m->partitions, "partition");
    if (m->pool == 0)
        problem(
            p,
            "%s has been down for %s, and is in no pool: start it, or have it forgotten (cistern module remove "
            "%u)",
            who, since, m->id);
    else if (m->partitions == 0)
        problem(
            p,
            "%s has been down for %s; pool %s has nothing there: start it, or take it out (cistern module "
            "remove %u)",
            who, since, m->pool_name, m->id);
    else if (m->copies < 2)
        problem(
            p,
            "%s has been down for %s: I/O to its %s waits, nobody else has their data. Start it; its log says why "
            "it does not run",
            who, since, parts);
    else if (m->away)
        problem(p,
                "%s has been down for %s: its copies are made elsewhere, %s to go (cistern pool status %s)",
                who, since, parts, m->pool_name);
    else
        problem(
            p,
            "%s has been down for %s: %s lack a copy. Start it; its log says why it does not run. In %s copies "
            "are made elsewhere",
            who, since, parts, span(soon, left(replace_ms, m->silent_ms)));
}

static void say_damaged(struct problems *p, const struct mdc_module_info *m, const char *who,
                        uint64_t replace_ms)
{
    char parts[32], soon[32];
    count(parts, m->partitions, "partition");
    if (m->pool == 0 || (m->partitions == 0 && m->copies != 1))
        problem(
            p,
            "%s is damaged, and has nothing that is needed: stop it, wipe its disk and start it; it comes as a "
            "new module (cistern module add). Then have this one forgotten (cistern module remove %u)",
            who, m->id);
    else if (m->copies < 2)
        problem(
            p,
            "%s is damaged, and nobody else has the data of its %s: what it lost answers with an input/output "
            "error. Copy off what can be read, then replace the disk",
            who, parts);
    else if (m->away || m->draining)
        problem(p, "%s is damaged: its copies are made elsewhere, %s to go (cistern pool status %s)", who,
                parts, m->pool_name);
    else
        problem(
            p,
            "%s is damaged: what it has of %s does not count. In %s copies are made elsewhere; at once with "
            "cistern module drain %u",
            who, parts, span(soon, left(replace_ms, m->damaged_ms)), m->id);
}

void problems_of_module(struct problems *p, const struct mdc_module_info *m, uint64_t replace_ms)
{
    char who[3 * MDC_NAME_MAX];
    if (m->state == TABLE_MODULE_UP)
        return;
    if (!m->down && !m->damaged) { /* only an MDC that has just started does not know */
        p->unheard++;
        return;
    }
    if (p->modules++ >= PROBLEMS_MODULES)
        return;
    snprintf(who, sizeof(who), "module %u (%s of %s)", m->id, m->name, m->host);
    if (m->down)
        say_down(p, m, who, replace_ms);
    else
        say_damaged(p, m, who, replace_ms);
}

void problems_modules_end(struct problems *p)
{
    if (p->modules > PROBLEMS_MODULES)
        problem(p, "%u more modules are not up (cistern module list)", p->modules - PROBLEMS_MODULES);
    if (p->unheard > 0)
        problem(
            p,
            "the metadata controller has just started: %u modules were not heard yet. I/O goes on where they run; "
            "changes and opens wait for them",
            p->unheard);
}

/* ---- pools, all ---- */

void problems_of_pool(struct problems *p, const struct mdc_pool_info *pool)
{
    if (pool->moves_missing > 0)
        problem(
            p,
            "pool %s: %u of %u copies have no module to be on: add modules (cistern module add), on hosts of "
            "their own",
            pool->name, pool->moves_missing, pool->copies);
    if (pool->moves_stuck > 0 && pool->copies > 1) /* with one copy the lines of its modules say it */
        problem(
            p,
            "pool %s: %u partitions are to have copies made, and no module that is up and well has their data "
            "(cistern partition list)",
            pool->name, pool->moves_stuck);
}

static void say_recovery(struct problems *p, const struct mdc_cluster_status_reply *r)
{
    char copies[32];
    if (r->copies_missing == 0)
        return;
    snprintf(copies, sizeof(copies), r->copies_missing == 1 ? "1 copy is" : "%u copies are",
             r->copies_missing);
    if (r->recover_blocks == 0)
        problem(p, "%s not in sync", copies);
    else if (r->recover_rate == 0)
        problem(p, "%s not in sync: %" PRIu64 " blocks to go", copies, r->recover_blocks);
    else
        problem(p, "%s not in sync: %" PRIu64 " blocks to go, %" PRIu64 " MiB/s, %" PRIu64 " s left at most",
                copies, r->recover_blocks, r->recover_rate / (uint64_t)MIB,
                (uint64_t)(r->recover_blocks * BLOCK_BYTES / r->recover_rate + 1));
}

static void say_space_and_rot(struct problems *p, const struct mdc_cluster_status_reply *r)
{
    char n[32];
    if (r->modules_full > 0)
        problem(p, "%s all but full: writes will end in \"no space\" (cistern module list)",
                r->modules_full == 1 ? "1 module is"
                                     : (snprintf(n, sizeof(n), "%u modules are", r->modules_full), n));
    if (r->modules_near_full > 0)
        problem(p, "%s nearly full (cistern module list)",
                r->modules_near_full == 1
                    ? "1 module is"
                    : (snprintf(n, sizeof(n), "%u modules are", r->modules_near_full), n));
    if (r->lost > 0)
        problem(p, "%s of 4 KiB could be read in no copy (the modules' logs, cistern scrub status)",
                count(n, r->lost, "unit"));
    if (r->differing > 0)
        problem(p, "%s differed between copies in sync (the modules' logs)", count(n, r->differing, "block"));
}

void problems_of_cluster(struct problems *p, const struct mdc_cluster_status_reply *r)
{
    if (r->partitions_served < r->partitions && p->unheard == 0)
        problem(p, "%u of %u partitions are not served: their I/O waits (cistern partition list)",
                r->partitions - r->partitions_served, r->partitions);
    if (r->partitions_single > 0)
        problem(
            p,
            "%u of %u partitions have one good copy left: lose that module, and what was written last there is "
            "lost with it",
            r->partitions_single, r->partitions);
    if (r->partitions_unsettled > 0 && p->unheard == 0)
        problem(p, "nothing is decided about %u of %u partitions; one of them %s (cistern partition show)",
                r->partitions_unsettled, r->partitions, r->waits);
    say_recovery(p, r);
    say_space_and_rot(p, r);
}
