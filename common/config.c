/* config.c: fills an options struct from a described table, a file and the command line. */
#include "common/config.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where a value came from; a higher one replaces a lower one, strings of the same one are joined. */
enum source { FROM_DEFAULT, FROM_FILE, FROM_FLAG };

struct parse {
    const struct config_spec *spec;
    void *opts;
    enum source *set_by; /* by option */
    const char *path;    /* of --config */
    bool help, version;
};

static void complain(const struct parse *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void complain(const struct parse *p, const char *fmt, ...)
{
    va_list args;
    fprintf(stderr, "%s: ", p->spec->program);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

static void *field(void *opts, const struct config_option *o)
{
    return (char *)opts + o->offset;
}

/* ---- values ---- */

static int parse_bool(const char *text, bool *out)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(text, words[i]) == 0) {
            *out = i % 2 != 0;
            return 0;
        }
    return -EINVAL;
}

static int parse_number(const struct config_option *o, const char *text, uint64_t *out)
{
    uint64_t v = 0;
    int rc = o->kind == CONFIG_SIZE       ? config_parse_size(text, &v)
             : o->kind == CONFIG_DURATION ? config_parse_duration(text, &v)
                                          : config_parse_uint(text, &v);
    if (rc != 0)
        return rc;
    if (v < o->min || (o->max != 0 && v > o->max))
        return -ERANGE;
    *out = v;
    return 0;
}

static int set_string(char **slot, const char *text, bool join)
{
    char *s = NULL;
    if (join && *slot != NULL) {
        if (asprintf(&s, "%s,%s", *slot, text) < 0)
            return -ENOMEM;
    } else if ((s = strdup(text)) == NULL) {
        return -ENOMEM;
    }
    free(*slot);
    *slot = s;
    return 0;
}

static int store(struct parse *p, const struct config_option *o, const char *text, enum source source)
{
    enum source *set_by = &p->set_by[o - p->spec->options];
    int rc;
    if (o->kind == CONFIG_STRING)
        rc = set_string(field(p->opts, o), text, *set_by == source && source != FROM_DEFAULT);
    else if (o->kind == CONFIG_BOOL)
        rc = parse_bool(text, field(p->opts, o));
    else
        rc = parse_number(o, text, field(p->opts, o));
    if (rc == 0)
        *set_by = source;
    return rc;
}

static const char *expected(enum config_kind kind)
{
    switch (kind) {
    case CONFIG_BOOL:
        return "true or false";
    case CONFIG_UINT:
        return "a number";
    case CONFIG_SIZE:
        return "a size such as 4k, 1M or 2T";
    case CONFIG_DURATION:
        return "a duration such as 200ms, 5s or 3m";
    case CONFIG_STRING:
        break;
    }
    return "text";
}

/* Bounds and defaults are printed in the unit that the user writes. */
static const char *format_value(enum config_kind kind, uint64_t v, char *out)
{
    if (kind == CONFIG_SIZE)
        return format_size(v, out);
    if (kind == CONFIG_DURATION)
        return format_duration(v, out);
    snprintf(out, 24, "%llu", (unsigned long long)v);
    return out;
}

static void explain(const struct parse *p, const char *where, const struct config_option *o, const char *text,
                    int rc)
{
    char low[24], high[24];
    if (rc == -ERANGE && o->max != 0)
        complain(p, "%s%s: \"%s\" is out of range: from %s to %s", where, o->name, text,
                 format_value(o->kind, o->min, low), format_value(o->kind, o->max, high));
    else if (rc == -ERANGE)
        complain(p, "%s%s: \"%s\" is out of range: at least %s, and less than 2^64", where, o->name, text,
                 format_value(o->kind, o->min, low));
    else if (rc == -ENOMEM)
        complain(p, "out of memory");
    else
        complain(p, "%s%s: \"%s\" is not %s", where, o->name, text, expected(o->kind));
}

static const struct config_option *find(const struct config_spec *spec, const char *name, size_t len)
{
    for (const struct config_option *o = spec->options; o->name != NULL; o++)
        if (strlen(o->name) == len && strncmp(o->name, name, len) == 0)
            return o;
    return NULL;
}

static int set(struct parse *p, const char *where, const struct config_option *o, const char *text,
               enum source source)
{
    int rc = store(p, o, text, source);
    if (rc == 0)
        return 0;
    explain(p, where, o, text, rc);
    return -EINVAL;
}

/* ---- the file ---- */

static char *trim(char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    size_t n = strlen(s);
    while (n > 0 && isspace((unsigned char)s[n - 1]))
        n--;
    s[n] = '\0';
    return s;
}

/* A comment begins the line or follows a space, so that "a#b" may be a value. */
static void cut_comment(char *line)
{
    for (char *p = line; *p != '\0'; p++)
        if (*p == '#' && (p == line || isspace((unsigned char)p[-1]))) {
            *p = '\0';
            return;
        }
}

static int read_line(struct parse *p, char *line, unsigned number)
{
    char where[300];
    snprintf(where, sizeof where, "%.256s:%u: ", p->path, number);
    cut_comment(line);
    char *name = trim(line);
    if (*name == '\0')
        return 0;
    char *equals = strchr(name, '=');
    if (equals == NULL) {
        complain(p, "%sexpected \"name = value\"", where);
        return -EINVAL;
    }
    *equals = '\0';
    char *value = trim(equals + 1);
    name = trim(name);
    const struct config_option *o = find(p->spec, name, strlen(name));
    if (o == NULL) {
        complain(p, "%sunknown option \"%s\"; --help lists them", where, name);
        return -EINVAL;
    }
    return set(p, where, o, value, FROM_FILE);
}

static int read_config(struct parse *p)
{
    FILE *f = fopen(p->path, "re");
    if (f == NULL) {
        complain(p, "cannot open %s: %s", p->path, strerror(errno));
        return -EINVAL;
    }
    char *line = NULL;
    size_t room = 0;
    int rc = 0;
    for (unsigned number = 1; rc == 0 && getline(&line, &room, f) >= 0; number++)
        rc = read_line(p, line, number);
    if (rc == 0 && ferror(f)) {
        complain(p, "cannot read %s: %s", p->path, strerror(errno));
        rc = -EINVAL;
    }
    free(line);
    fclose(f);
    return rc;
}

/* ---- the command line ---- */

static bool named(const char *name, size_t len, const char *what)
{
    return strlen(what) == len && strncmp(name, what, len) == 0;
}

/* One argument at argv[*i], and its value behind it. The first pass (set_options false) looks for --help,
 * --version and
 * --config only, because the file is read before any flag counts. */
static int read_flag(struct parse *p, char **argv, int argc, int *i, bool set_options)
{
    const char *arg = argv[*i];
    if (strcmp(arg, "-h") == 0)
        arg = "--help";
    if (strncmp(arg, "--", 2) != 0 || arg[2] == '\0') {
        complain(p, "unexpected argument \"%s\"; options begin with --, see --help", arg);
        return -EINVAL;
    }
    const char *name = arg + 2;
    size_t len = strcspn(name, "=");
    const char *value = name[len] == '=' ? name + len + 1 : NULL;
    p->help |= named(name, len, "help");
    p->version |= named(name, len, "version");
    if (named(name, len, "help") || named(name, len, "version"))
        return 0;
    const struct config_option *o = find(p->spec, name, len);
    bool is_config = named(name, len, "config");
    if (o == NULL && !is_config) {
        complain(p, "unknown option --%.*s; --help lists them", (int)len, name);
        return -EINVAL;
    }
    if (value == NULL && o != NULL && o->kind == CONFIG_BOOL)
        value = "true";
    if (value == NULL && *i + 1 < argc)
        value = argv[++*i];
    if (value == NULL) {
        complain(p, "--%.*s needs a value", (int)len, name);
        return -EINVAL;
    }
    if (is_config)
        p->path = value;
    else if (set_options)
        return set(p, "--", o, value, FROM_FLAG);
    return 0;
}

static int read_flags(struct parse *p, int argc, char **argv, bool set_options)
{
    int rc = 0;
    for (int i = 1; rc == 0 && i < argc && !p->help && !p->version; i++)
        rc = read_flag(p, argv, argc, &i, set_options);
    return rc;
}

/* ---- help ---- */

static void print_option(const char *name, const char *value_name, const char *help)
{
    char left[64];
    snprintf(left, sizeof left, "--%s%s%s", name, value_name != NULL ? " " : "",
             value_name != NULL ? value_name : "");
    printf("  %-30s %s", left, help);
}

static const char *default_value_name(enum config_kind kind)
{
    static const char *const names[] = {
        [CONFIG_STRING] = "TEXT", [CONFIG_BOOL] = NULL,           [CONFIG_UINT] = "N",
        [CONFIG_SIZE] = "SIZE",   [CONFIG_DURATION] = "DURATION",
    };
    return names[kind];
}

static void print_help(const struct config_spec *spec)
{
    printf("Usage: %s [--config FILE] [--OPTION VALUE]...\n%s\n\nOptions:\n", spec->program, spec->summary);
    for (const struct config_option *o = spec->options; o->name != NULL; o++) {
        print_option(o->name, o->value_name != NULL ? o->value_name : default_value_name(o->kind), o->help);
        if (o->required)
            printf(" (required)");
        else if (o->def != NULL)
            printf(" (default %s)", o->def);
        putchar('\n');
    }
    print_option("config", "FILE", "read options from FILE, lines of \"name = value\"; flags win over it\n");
    print_option("help", NULL, "print this and exit\n");
    print_option("version", NULL, "print the version and exit\n");
    printf("\nSizes: 4k, 1M, 1G, 2T (powers of 1024). Durations: 10us, 200ms, 5s, 3m.\n");
}

/* ---- all of it ---- */

static bool is_empty(const struct parse *p, const struct config_option *o)
{
    char *const *text = field(p->opts, o);
    return o->kind == CONFIG_STRING && (*text == NULL || (*text)[0] == 0);
}

static void clear_fields(const struct config_spec *spec, void *opts)
{
    for (const struct config_option *o = spec->options; o->name != NULL; o++) {
        if (o->kind == CONFIG_STRING)
            *(char **)field(opts, o) = NULL;
        else if (o->kind == CONFIG_BOOL)
            *(bool *)field(opts, o) = false;
        else
            *(uint64_t *)field(opts, o) = 0;
    }
}

static int fill(struct parse *p, int argc, char **argv)
{
    const struct config_option *options = p->spec->options;
    for (const struct config_option *o = options; o->name != NULL; o++)
        if (o->def != NULL && store(p, o, o->def, FROM_DEFAULT) != 0) {
            complain(p, "the default of --%s is not valid", o->name);
            return -EINVAL;
        }
    int rc = p->path != NULL ? read_config(p) : 0;
    if (rc == 0)
        rc = read_flags(p, argc, argv, true);
    for (const struct config_option *o = options; rc == 0 && o->name != NULL; o++)
        if (o->required && (p->set_by[o - options] == FROM_DEFAULT || is_empty(p, o))) {
            complain(p, "--%s is required: %s", o->name, o->help);
            rc = -EINVAL;
        }
    return rc;
}

int config_parse(const struct config_spec *spec, int argc, char **argv, void *opts)
{
    struct parse p = {.spec = spec, .opts = opts};
    size_t count = 0;
    while (spec->options[count].name != NULL)
        count++;
    clear_fields(spec, opts);
    int rc = read_flags(&p, argc, argv, false);
    if (rc != 0)
        return rc;
    if (p.help)
        print_help(spec);
    else if (p.version)
        printf("%s %s\n", spec->program, CISTERN_VERSION);
    if (p.help || p.version)
        return 1;
    p.set_by = calloc(count + 1, sizeof p.set_by[0]);
    rc = p.set_by != NULL ? fill(&p, argc, argv) : -EINVAL;
    free(p.set_by);
    if (rc != 0)
        config_free(spec, opts);
    return rc;
}

void config_free(const struct config_spec *spec, void *opts)
{
    for (const struct config_option *o = spec->options; o->name != NULL; o++) {
        if (o->kind != CONFIG_STRING)
            continue;
        char **slot = field(opts, o);
        free(*slot);
        *slot = NULL;
    }
}
