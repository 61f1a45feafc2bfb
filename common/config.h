/*
 * config.h: one small file per service ("name = value" lines, # comments) and flags of the same names (--name
 * value or
 * --name=value, --config FILE first). Flags win over the file. A described table gives parsing, --help and
 * errors. Sizes "4k", "1M", "1G", "2T" (powers of 1024); durations "200ms", "5s", "10us", "3m".
 */
#ifndef CISTERN_COMMON_CONFIG_H
#define CISTERN_COMMON_CONFIG_H

#include "common/base.h"

enum config_kind {
    CONFIG_STRING,   /* char * (malloc'ed, freed by config_free; repeated options are joined with ',') */
    CONFIG_BOOL,     /* bool; flag without a value means true */
    CONFIG_UINT,     /* uint64_t */
    CONFIG_SIZE,     /* uint64_t bytes */
    CONFIG_DURATION, /* uint64_t nanoseconds */
};
struct config_option {
    const char *name; /* "listen"; NULL ends the table */
    enum config_kind kind;
    size_t offset;     /* of the field in the options struct */
    const char *def;   /* default as text, NULL = unset (empty string / 0 / false) */
    uint64_t min, max; /* for numbers; max 0 = no limit */
    bool required;
    const char *value_name; /* "ADDR" for help */
    const char *help;       /* one line */
};
struct config_spec {
    const char *program; /* "cistern-osd" */
    const char *summary; /* one or two lines under the usage line */
    const struct config_option *options;
};
/* Fills opts. 0; 1 when --help or --version was printed (exit 0); -EINVAL after a clear message on stderr. */
int config_parse(const struct config_spec *spec, int argc, char **argv, void *opts);
void config_free(const struct config_spec *spec, void *opts);
/* 0 or -EINVAL / -ERANGE; *out untouched on error. */
int config_parse_size(const char *text, uint64_t *bytes);
int config_parse_duration(const char *text, uint64_t *ns);
int config_parse_uint(const char *text, uint64_t *value);
/* "1.5 GiB"; out holds at least 24 bytes; returns out. */
const char *format_size(uint64_t bytes, char *out);
/* "1.2ms" */
const char *format_duration(uint64_t ns, char *out);
/* Reads a secret file: at most max bytes, surrounding whitespace dropped; refuses an empty file (-EINVAL)
 * and, with a warning, mentions a file that others than its owner and group can read. */
int config_read_secret(const char *path, void *out, size_t max, size_t *len);
/* A cluster's secret is no shorter than this. */
#define CONFIG_CLUSTER_SECRET_MIN 16u
/* config_read_secret for the secret of a cluster: -EKEYREJECTED when it is shorter than that. */
int config_read_cluster_secret(const char *path, void *out, size_t max, size_t *len);
/* What is wrong with a secret file, for the user: rc of one of the two above. */
const char *config_secret_error(int rc);

#endif
