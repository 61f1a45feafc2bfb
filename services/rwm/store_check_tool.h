/*
 * store_check_tool.h: --check and --repair-metadata of the programs that have modules: options, and all that
 * happens between open devices and an exit status.
 */
#ifndef CISTERN_SERVICES_RWM_STORE_CHECK_TOOL_H
#define CISTERN_SERVICES_RWM_STORE_CHECK_TOOL_H

#include "common/config.h"
#include "common/device/device.h"
#include "common/env.h"

/* Exit status: fsck's words for it. */
enum {
    STORE_TOOL_CLEAN = 0,     /* nothing is wrong */
    STORE_TOOL_CORRECTED = 1, /* something was, and has been repaired */
    STORE_TOOL_ERRORS = 4,    /* something is wrong, and still is */
    STORE_TOOL_REFUSED = 8,   /* could not be checked */
    STORE_TOOL_STOPPED = 32,  /* by the user */
};
struct store_tool_options {
    bool check, repair, dry_run, json, read_data;
    uint64_t from;
};
/* clang-format off */
#define STORE_CHECK_OPTIONS(type, f)                                                                                       \
    {"check", CONFIG_BOOL, offsetof(type, f.check), NULL, 0, 0, false, "BOOL",                                             \
     "serve nothing: look at the store, say what is wrong, write nothing. Exit status 0 clean, 4 errors, 8 could not check, 32 stopped"}, \
    {"check-data", CONFIG_BOOL, offsetof(type, f.read_data), NULL, 0, 0, false, "BOOL",                                    \
     "with --check: read all data too and compare the checksums"},                                                         \
    {"check-from", CONFIG_UINT, offsetof(type, f.from), NULL, 0, 0, false, "N",                                            \
     "with --check-data: begin where a check that was stopped said"},                                                      \
    {"json", CONFIG_BOOL, offsetof(type, f.json), NULL, 0, 0, false, "BOOL",                                               \
     "with --check: the report as one JSON object"}
#define STORE_REPAIR_OPTIONS(type, f)                                                                                      \
    {"repair-metadata", CONFIG_BOOL, offsetof(type, f.repair), NULL, 0, 0, false, "BOOL",                                  \
     "serve nothing: check, then write good copies of superblocks and metadata over bad ones, nothing else. Exit status 1: all corrected"}, \
    {"dry-run", CONFIG_BOOL, offsetof(type, f.dry_run), NULL, 0, 0, false, "BOOL",                                         \
     "with --repair-metadata: only say what would be written"}
/* clang-format on */

/* Does the command line ask for a check or a repair? Then the options that only a service needs are not
 * required: out (as large as table, its end included) is table with none required but the one named keep. */
bool store_tool_wanted(int argc, char **argv);
void store_tool_table(const struct config_option *table, size_t count, const char *keep,
                      struct config_option *out);
/* 0, or -EINVAL after a message on stderr: options that do not go together. */
int store_tool_sane(const struct store_tool_options *o);
static inline bool store_tool_read_only(const struct store_tool_options *o)
{
    return !o->repair || o->dry_run;
}
/* text: of --log-level. Warnings and errors only, unless another level was asked for. */
void store_tool_log(const char *text);
/* Says on stderr, or as JSON, that a device could not be opened. Returns the exit status. */
int store_tool_failed(const struct store_tool_options *o, const char *path, int rc);
/* Checks, and repairs when asked to; prints to stdout. command: the program with the options that name the
 * devices. can_repair: the program has --repair-metadata. Returns the exit status. Takes SIGINT and SIGTERM
 * meanwhile. */
int store_tool_run(struct env *env, const struct store_tool_options *o, const char *command, bool can_repair,
                   struct device *data, struct device *journal);

#endif
