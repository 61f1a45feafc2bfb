/* store_check_print.c: see store_check_print.h. */
#include "services/rwm/store_check_print.h"

#include <string.h>

#include "common/config.h"
#include "services/rwm/store_check_tool.h"

static const char *const level_words[] = {"note", "WARNING", "ERROR", "DAMAGE", "REFUSED"};

void check_print_finding(FILE *out, const struct store_finding *f)
{
    fprintf(out, "  %-8s %s\n", level_words[store_finding_level(f->kind)], f->text);
}

const char *check_result_name(int exit_code)
{
    switch (exit_code) {
    case STORE_TOOL_CLEAN:
        return "clean";
    case STORE_TOOL_CORRECTED:
        return "corrected";
    case STORE_TOOL_ERRORS:
        return "damaged";
    case STORE_TOOL_STOPPED:
        return "stopped";
    default:
        return "refused";
    }
}

/* ---- what to do ---- */
static const struct {
    enum store_finding_kind kinds[6];
    unsigned count;
    const char *text;
} advice[] = {
    {{STORE_FINDING_DEVICE_BLANK, STORE_FINDING_DEVICE_FOREIGN},
     2,
     "Is it the right disk? Compare --data with what the service is started with."},
    {{STORE_FINDING_DEVICE_UNREADABLE, STORE_FINDING_JSUPER_UNREADABLE, STORE_FINDING_JOURNAL_UNREADABLE,
      STORE_FINDING_PAGE_UNREADABLE},
     4,
     "The medium answers with errors: look at the kernel's log, at cable, path and controller, and check again. "
     "Nothing is lost by a path that is down."},
    {{STORE_FINDING_JOURNAL_MISSING, STORE_FINDING_JOURNAL_SURPLUS, STORE_FINDING_JOURNAL_FOREIGN},
     3,
     "Give --journal as the service is started with, or leave it out as there."},
    {{STORE_FINDING_SUPER_FORMAT}, 1, "Use the program of the version that made the store."},
    {{STORE_FINDING_DEVICE_SHORT, STORE_FINDING_JOURNAL_SHORT}, 2, "Give the disk or LUN its size back."},
    {{STORE_FINDING_SUPER_LOST, STORE_FINDING_JSUPER_LOST, STORE_FINDING_SUPER_NONSENSE,
      STORE_FINDING_JOURNAL_GAPS_MANY},
     4,
     "This store can not be opened any more. Keep an image of the disk, replace the module, bring its volumes back from "
     "a backup."},
    {{STORE_FINDING_DATA_ROLLED_BACK, STORE_FINDING_JOURNAL_ROLLED_BACK, STORE_FINDING_SUPER_ROLLED_BACK},
     3,
     "Find the device that was in use last, and put it back. The two must be of one moment."},
    {{STORE_FINDING_SUPER_COPY_STALE, STORE_FINDING_JSUPER_COPY_STALE, STORE_FINDING_PAGE_COPY_STALE},
     3,
     "The device lost writes that it had confirmed. Repair before the next start, which may take the old copy; then "
     "replace the device."},
    {{STORE_FINDING_PAGE_CONFLICT},
     1,
     "A start takes copy A of a page whose copies contradict each other. Keep an image of the disk before it, and compare what "
     "is in the volumes afterwards."},
    {{STORE_FINDING_PAGE_LOST, STORE_FINDING_LOST_BEFORE, STORE_FINDING_RECORDS_LOST},
     3,
     "Start the module: it comes up damaged, answers an error where it does not know, and never wrong data. Copy off what "
     "can be read, then replace it."},
    {{STORE_FINDING_JOURNAL_GAP, STORE_FINDING_JOURNAL_END_LOST, STORE_FINDING_SUSPECT_BEFORE,
      STORE_FINDING_ENTRY_SUSPECT},
     4,
     "Acknowledged writes are gone. Keep an image of the journal's device; start the module, copy off what can be read, "
     "compare it with a backup, replace the module."},
    {{STORE_FINDING_UNITS_BAD, STORE_FINDING_UNITS_UNREADABLE, STORE_FINDING_UNITS_BAD_JOURNAL},
     3,
     "Reading these ranges answers an I/O error, the rest is whole. Write them anew from a backup (a write heals), and watch "
     "the disk: more of it may follow."},
    {{STORE_FINDING_ENTRY_TWICE, STORE_FINDING_ENTRY_NONSENSE, STORE_FINDING_ENTRY_MISPLACED,
      STORE_FINDING_ENTRY_EPOCH, STORE_FINDING_VOLUME_TWICE, STORE_FINDING_RECORD_NONSENSE},
     6,
     "No medium does this: it is an error of the software. Keep an image of the device and report it."},
    {{STORE_FINDING_ENTRY_BEYOND_END, STORE_FINDING_ENTRY_UNKNOWN_LAYER, STORE_FINDING_ENTRY_NO_PARTITION},
     3,
     "Blocks that nobody can reach take space. After a shrink or a delete that is still under way they go by themselves."},
};

static void print_advice(FILE *out, const struct check_outcome *o)
{
    const struct store_check_report *r = o->left ? o->left : o->before;
    bool any = false;
    for (size_t i = 0; i < ARRAY_LEN(advice); i++) {
        uint64_t n = 0;
        for (unsigned k = 0; k < advice[i].count; k++)
            n += r->counts[advice[i].kinds[k]];
        if (n)
            fprintf(out, "%s  - %s\n", any ? "" : "what to do:\n", advice[i].text);
        any = any || n;
    }
    if (r->repairable && r->worst >= STORE_LEVEL_ERROR && r->complete && o->can_repair)
        fprintf(
            out,
            "%s  - What is whole in one copy: %s --repair-metadata writes it over the bad one (first with --dry-run).\n",
            any ? "" : "what to do:\n", o->command);
    if (o->repair && o->dry_run && r->repairable)
        fprintf(out, "  - A backup of all metadata beforehand: dd if=%s of=FILE bs=64K count=%lu\n", o->data,
                (unsigned long)((r->slots_offset + 65535) / 65536));
}

/* ---- text ---- */
static void print_identity(FILE *out, const struct check_outcome *o)
{
    const struct store_check_report *r = o->before;
    char store[33], cluster[33], size[24], journal[24], used[24];
    if (r->slot_count == 0)
        return;
    uuid_format(&r->identity.store, store);
    uuid_format(&r->identity.cluster, cluster);
    if (uuid_is_zero(&r->identity.cluster))
        snprintf(cluster, sizeof cluster, "none yet");
    fprintf(out, "store:      %s on %s, start %lu\n", store, o->data,
            (unsigned long)r->identity.start_counter);
    fprintf(out, "cluster:    %s, module %u\n", cluster, r->identity.module);
    fprintf(out, "capacity:   %s in %lu slots, journal of %s on %s\n",
            format_size(r->slot_count * BLOCK_BYTES, size), (unsigned long)r->slot_count,
            format_size(r->journal_bytes, journal), o->journal ? o->journal : "the same device");
    if (!r->complete)
        return;
    fprintf(out, "in use:     %lu blocks, %s\n", (unsigned long)r->blocks, format_size(r->used_bytes, used));
    uint32_t held = 0;
    uint64_t epoch = 0;
    for (uint32_t i = 0; i < r->partition_count; i++) {
        held += r->partitions[i].record;
        epoch = max_u64(epoch, r->partitions[i].epoch);
    }
    fprintf(out, "partitions: %u of %u, highest epoch %lu\n", held, r->partition_count, (unsigned long)epoch);
}

static void print_volumes(FILE *out, const struct store_check_report *r)
{
    enum { SHOWN = 40 };
    for (size_t i = 0; i < r->volume_count && i < SHOWN; i++) {
        const struct store_check_volume *v = &r->volumes[i];
        char id[33], size[24], damage[80] = "";
        if (!v->blocks && !v->bad_units)
            continue;
        uuid_format(&v->id, id);
        if (v->bad_units || v->suspect_blocks)
            snprintf(damage, sizeof damage, "; DAMAGED: %lu times 4 KiB, %lu blocks in doubt",
                     (unsigned long)v->bad_units, (unsigned long)v->suspect_blocks);
        if (uuid_is_zero(&v->id))
            fprintf(out, "layer:      %lu, of no known volume: %lu blocks%s\n", (unsigned long)v->layer,
                    (unsigned long)v->blocks, damage);
        else
            fprintf(out, "volume:     %s of %s: %lu blocks%s\n", id, format_size(v->size_bytes, size),
                    (unsigned long)v->blocks, damage);
    }
    if (r->volume_count > SHOWN)
        fprintf(out, "            ... and more volumes, %lu in all (--json has them)\n",
                (unsigned long)r->volume_count);
    uint32_t shown = 0;
    for (uint32_t i = 0; i < r->partition_count; i++) {
        if (!r->partitions[i].bad_blocks)
            continue;
        if (shown++ < SHOWN)
            fprintf(out, "partition:  %u has damaged data in %u of %u blocks\n", i,
                    r->partitions[i].bad_blocks, r->partitions[i].blocks);
    }
    if (shown > SHOWN)
        fprintf(out, "            ... and %u partitions more (--json has them)\n", shown - SHOWN);
}

static void print_result(FILE *out, const struct check_outcome *o)
{
    const struct store_check_report *r = o->left ? o->left : o->before;
    uint64_t errors = 0;
    for (unsigned i = 0; i < STORE_FINDINGS; i++)
        errors += store_finding_level(i) >= STORE_LEVEL_ERROR ? r->counts[i] : 0;
    switch (o->exit_code) {
    case STORE_TOOL_CLEAN:
        fprintf(out, "result:     clean%s%s\n", r->data_complete ? ", all data read" : "",
                r->worst == STORE_LEVEL_WARNING ? ", with warnings" : "");
        return;
    case STORE_TOOL_CORRECTED:
        fprintf(out, "result:     corrected: %lu copies written, nothing is left\n",
                (unsigned long)o->written);
        return;
    case STORE_TOOL_ERRORS:
        fprintf(out, "result:     %lu errors%s\n", (unsigned long)errors, o->written ? " left" : "");
        return;
    case STORE_TOOL_STOPPED:
        fprintf(out, "result:     stopped; nothing wrong so far is not the same as clean\n");
        if (r->next_entry)
            fprintf(out, "            to go on: %s --check --check-data --check-from %lu\n", o->command,
                    (unsigned long)r->next_entry);
        return;
    default:
        fprintf(out, "result:     could not be checked%s%s\n", o->rc ? ": " : "",
                o->rc ? strerror(-o->rc) : "");
    }
}

void check_print_text(FILE *out, const struct check_outcome *o)
{
    print_identity(out, o);
    if (o->before->complete)
        print_volumes(out, o->before);
    print_result(out, o);
    print_advice(out, o);
}

/* ---- JSON ---- */
static void json_text(FILE *out, const char *s)
{
    fputc('"', out);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            fprintf(out, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            fprintf(out, "\\u%04x", (unsigned)(unsigned char)*s);
        else
            fputc(*s, out);
    }
    fputc('"', out);
}

void check_print_json_refused(FILE *out, const char *data, const char *why)
{
    fprintf(out, "{\"data\": ");
    json_text(out, data);
    fprintf(out, ", \"result\": \"refused\", \"exit\": %d, \"error\": ", STORE_TOOL_REFUSED);
    json_text(out, why);
    fprintf(out, "}\n");
}

static void json_counts(FILE *out, const char *name, const struct store_check_report *r)
{
    bool any = false;
    fprintf(out, ",\n \"%s\": {", name);
    for (unsigned i = 0; i < STORE_FINDINGS; i++) {
        if (r->counts[i])
            fprintf(out, "%s\"%s\": %lu", any ? ", " : "", store_finding_name(i),
                    (unsigned long)r->counts[i]);
        any = any || r->counts[i];
    }
    fputc('}', out);
}

static void json_finding(FILE *out, const struct store_finding *f)
{
    fprintf(out, "{\"kind\": \"%s\", \"level\": \"%s\", \"number\": %lu", store_finding_name(f->kind),
            level_words[store_finding_level(f->kind)], (unsigned long)f->number);
    if (f->copy >= 0)
        fprintf(out, ", \"copy\": %d", f->copy);
    if (f->has_key)
        fprintf(out, ", \"layer\": %lu, \"block\": %lu, \"hash\": \"%016lx\", \"units\": \"%08x\"",
                (unsigned long)f->key.layer, (unsigned long)f->key.block, (unsigned long)f->key.hash,
                f->units);
    fprintf(out, ", \"repairable\": %s, \"text\": ", f->repairable ? "true" : "false");
    json_text(out, f->text);
    fputc('}', out);
}

static void json_store(FILE *out, const struct store_check_report *r)
{
    char store[33], cluster[33];
    uuid_format(&r->identity.store, store);
    uuid_format(&r->identity.cluster, cluster);
    fprintf(
        out,
        ",\n \"store\": {\"id\": \"%s\", \"cluster\": \"%s\", \"module\": %u, \"start\": %lu, \"sequence\": %lu, "
        "\"partition_bits\": %u}",
        store, cluster, r->identity.module, (unsigned long)r->identity.start_counter,
        (unsigned long)r->sequence, r->identity.partition_bits);
    fprintf(
        out,
        ",\n \"layout\": {\"device_bytes\": %lu, \"journal_bytes\": %lu, \"journal_device\": %s, \"slots_offset\": %lu, "
        "\"slots\": %lu, \"metadata_pages\": %lu, \"metadata_pages_used\": %lu}",
        (unsigned long)r->device_bytes, (unsigned long)r->journal_bytes, r->journal_device ? "true" : "false",
        (unsigned long)r->slots_offset, (unsigned long)r->slot_count, (unsigned long)r->pages,
        (unsigned long)r->pages_used);
    fprintf(
        out,
        ",\n \"journal\": {\"batches\": %lu, \"records\": %lu, \"cut_off\": %lu, \"tail\": %lu, \"end\": %lu}",
        (unsigned long)r->batches, (unsigned long)r->records, (unsigned long)r->batches_cut,
        (unsigned long)r->tail_seq, (unsigned long)r->end_seq);
    fprintf(
        out,
        ",\n \"complete\": %s, \"data_complete\": %s, \"blocks\": %lu, \"used_bytes\": %lu, \"units_checked\": %lu, "
        "\"next_entry\": %lu",
        r->complete ? "true" : "false", r->data_complete ? "true" : "false", (unsigned long)r->blocks,
        (unsigned long)r->used_bytes, (unsigned long)r->units_checked, (unsigned long)r->next_entry);
}

static void json_volumes(FILE *out, const struct store_check_report *r)
{
    fprintf(out, ",\n \"volumes\": [");
    for (size_t i = 0; i < r->volume_count; i++) {
        const struct store_check_volume *v = &r->volumes[i];
        char id[33];
        uuid_format(&v->id, id);
        fprintf(
            out,
            "%s\n  {\"id\": \"%s\", \"layer\": %lu, \"size\": %lu, \"blocks\": %lu, \"units\": %lu, \"bad_units\": %lu, "
            "\"suspect_blocks\": %lu}",
            i ? "," : "", uuid_is_zero(&v->id) ? "" : id, (unsigned long)v->layer,
            (unsigned long)v->size_bytes, (unsigned long)v->blocks, (unsigned long)v->units,
            (unsigned long)v->bad_units, (unsigned long)v->suspect_blocks);
    }
    fprintf(out, "],\n \"partitions\": [");
    bool any = false;
    for (uint32_t i = 0; i < r->partition_count; i++) {
        const struct store_check_partition *p = &r->partitions[i];
        if (!p->record && !p->blocks)
            continue;
        fprintf(out, "%s\n  {\"number\": %u, \"epoch\": %lu, \"blocks\": %u, \"bad_blocks\": %u}",
                any ? "," : "", i, (unsigned long)p->epoch, p->blocks, p->bad_blocks);
        any = true;
    }
    fputc(']', out);
}

void check_print_json(FILE *out, const struct check_outcome *o, const struct store_finding *findings,
                      size_t count, char *const *actions, size_t action_count)
{
    fprintf(out, "{\"data\": ");
    json_text(out, o->data);
    if (o->journal) {
        fprintf(out, ", \"journal_path\": ");
        json_text(out, o->journal);
    }
    fprintf(out, ", \"result\": \"%s\", \"exit\": %d", check_result_name(o->exit_code), o->exit_code);
    if (o->rc) {
        fprintf(out, ", \"error\": ");
        json_text(out, strerror(-o->rc));
    }
    json_store(out, o->before);
    json_counts(out, "counts", o->before);
    fprintf(out, ",\n \"findings\": [");
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%s\n  ", i ? "," : "");
        json_finding(out, &findings[i]);
    }
    fputc(']', out);
    json_volumes(out, o->before);
    if (o->repair) {
        fprintf(out, ",\n \"repair\": {\"dry_run\": %s, \"written\": %lu, \"actions\": [",
                o->dry_run ? "true" : "false", (unsigned long)o->written);
        for (size_t i = 0; i < action_count; i++) {
            fprintf(out, "%s", i ? ", " : "");
            json_text(out, actions[i]);
        }
        fprintf(out, "]}");
        if (o->left)
            json_counts(out, "left", o->left);
    }
    fprintf(out, "}\n");
}
