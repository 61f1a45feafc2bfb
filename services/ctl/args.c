/*
 * args.c: reads a command line: words and options in any order, but a command's own options behind its name.
 * Words are sorted out here; the options' values, the file and their errors are config.h's.
 */
#include "services/ctl/ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_CONFIG "/etc/cistern/client.conf"

struct scan {
    struct ctl_line *line;
    const char *group; /* a first word that is one */
    char **flags;      /* what config_parse gets: options and their values only */
    int flag_count;
    bool help, version, only_words;
    bool mdc_given, gateway_given;
};

static size_t count_options(const struct config_option *options)
{
    size_t n = 0;
    while (options != NULL && options[n].name != NULL)
        n++;
    return n;
}

static const struct config_option *find_in(const struct config_option *options, const char *name, size_t len)
{
    for (size_t i = 0; i < count_options(options); i++)
        if (strlen(options[i].name) == len && memcmp(options[i].name, name, len) == 0)
            return &options[i];
    return NULL;
}

const struct config_option *ctl_option_find(const struct ctl_command *command, const char *name, size_t len)
{
    const struct config_option *o = find_in(ctl_common_options, name, len);
    return o != NULL || command == NULL ? o : find_in(command->options, name, len);
}

/* ---- words ---- */

static bool is_group(const char *word)
{
    for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++)
        if (c->group != NULL && strcmp(c->group, word) == 0)
            return true;
    return false;
}

static const struct ctl_command *find_command(const char *group, const char *name)
{
    for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++)
        if ((c->group == NULL) == (group == NULL) && strcmp(c->name, name) == 0 &&
            (group == NULL || strcmp(c->group, group) == 0))
            return c;
    return NULL;
}

static void complain_of_group(const char *group, const char *word)
{
    if (word != NULL)
        fprintf(stderr, "cistern: there is no command \"%s %s\"; these are:", group, word);
    else
        fprintf(stderr, "cistern: \"%s\" needs one of these behind it:", group);
    for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++)
        if (c->group != NULL && strcmp(c->group, group) == 0)
            fprintf(stderr, " %s", c->name);
    fputc('\n', stderr);
}

static int read_word(struct scan *s, char *word)
{
    struct ctl_line *line = s->line;
    if (line->command != NULL) {
        if (line->arg_count == line->command->arg_count) {
            fprintf(stderr, "cistern: unexpected argument \"%s\"; see cistern %s%s%s --help\n", word,
                    s->group != NULL ? s->group : "", s->group != NULL ? " " : "", line->command->name);
            return -EINVAL;
        }
        line->args[line->arg_count++] = word;
        return 0;
    }
    if (s->group == NULL && strcmp(word, "help") == 0) {
        s->help = true;
        return 0;
    }
    line->command = find_command(s->group, word);
    if (line->command != NULL)
        return 0;
    if (s->group != NULL) {
        complain_of_group(s->group, word);
        return -EINVAL;
    }
    if (is_group(word)) {
        s->group = word;
        return 0;
    }
    fprintf(stderr, "cistern: there is no command \"%s\"; cistern --help lists them\n", word);
    return -EINVAL;
}

/* ---- options ---- */

static int unknown_option(const struct scan *s, const char *name, size_t len)
{
    const struct ctl_command *taker = NULL;
    for (const struct ctl_command *c = ctl_commands; c->name != NULL && taker == NULL; c++)
        if (find_in(c->options, name, len) != NULL)
            taker = c;
    if (s->line->command == NULL && taker != NULL)
        fprintf(stderr, "cistern: --%.*s belongs behind the command that takes it\n", (int)len, name);
    else
        fprintf(stderr, "cistern: unknown option --%.*s; --help lists them\n", (int)len, name);
    return -EINVAL;
}

static bool is_named(const char *name, size_t len, const char *what)
{
    return strlen(what) == len && memcmp(name, what, len) == 0;
}

/* What fingers know from ping(8), for the command that has these options. */
static char *short_form(const struct ctl_command *command, const char *arg)
{
    static char count[] = "--count", interval[] = "--interval";
    char *full = strcmp(arg, "-c") == 0 ? count : strcmp(arg, "-i") == 0 ? interval : NULL;
    return full != NULL && ctl_option_find(command, full + 2, strlen(full + 2)) != NULL ? full : NULL;
}

/* The option at argv[*i], and its value. */
static int read_option(struct scan *s, int argc, char **argv, int *i)
{
    char *arg = argv[*i];
    const char *name = arg + 2;
    if (strcmp(arg, "-h") == 0)
        name = "help";
    else if (short_form(s->line->command, arg) != NULL)
        name = short_form(s->line->command, arg) + 2;
    else if (arg[1] != '-') {
        fprintf(stderr, "cistern: unknown option %s; options begin with --\n", arg);
        return -EINVAL;
    }
    const size_t len = strcspn(name, "=");
    const bool is_config = is_named(name, len, "config");
    s->help |= is_named(name, len, "help");
    s->version |= is_named(name, len, "version");
    if (is_named(name, len, "help") || is_named(name, len, "version"))
        return 0;
    const struct config_option *o = ctl_option_find(s->line->command, name, len);
    if (o == NULL && !is_config)
        return unknown_option(s, name, len);
    s->mdc_given |= is_named(name, len, "mdc");
    s->gateway_given |= is_named(name, len, "gateway");
    s->flags[s->flag_count++] = arg[1] == '-' ? arg : short_form(s->line->command, arg);
    if (name[len] != '=' && (is_config || o->kind != CONFIG_BOOL) && *i + 1 < argc)
        s->flags[s->flag_count++] = argv[++*i];
    return 0;
}

static int scan_line(struct scan *s, int argc, char **argv)
{
    int rc = 0;
    for (int i = 1; i < argc && rc == 0; i++) {
        char *arg = argv[i];
        if (!s->only_words && strcmp(arg, "--") == 0)
            s->only_words = true;
        else if (!s->only_words && arg[0] == '-' && arg[1] != '\0')
            rc = read_option(s, argc, argv, &i);
        else
            rc = read_word(s, arg);
    }
    return rc;
}

/* ---- all of it ---- */

/* 0 when there is a command with all its arguments. */
static int check_words(const struct scan *s)
{
    const struct ctl_line *line = s->line;
    if (line->command == NULL && s->group != NULL) {
        complain_of_group(s->group, NULL);
        return -EINVAL;
    }
    if (line->command == NULL) {
        fputs("cistern: which command?\n\n", stderr);
        ctl_help_commands(stderr);
        return -EINVAL;
    }
    const unsigned optional = strchr(line->command->args, '[') != NULL;
    if (line->arg_count + optional < line->command->arg_count) {
        fprintf(stderr, "cistern: an argument is missing: cistern %s%s%s %s\n",
                s->group != NULL ? s->group : "", s->group != NULL ? " " : "", line->command->name,
                line->command->args);
        return -EINVAL;
    }
    return 0;
}

static int make_table(struct ctl_line *line)
{
    const size_t common = count_options(ctl_common_options), own = count_options(line->command->options);
    line->table = calloc(common + own + 1, sizeof(*line->table));
    if (line->table == NULL) {
        fprintf(stderr, "cistern: out of memory\n");
        return -ENOMEM;
    }
    memcpy(line->table, ctl_common_options, common * sizeof(*line->table));
    if (own > 0)
        memcpy(line->table + common, line->command->options, own * sizeof(*line->table));
    return 0;
}

static struct config_spec spec_of(const struct ctl_line *line)
{
    return (struct config_spec){.program = "cistern", .summary = "", .options = line->table};
}

static int read_options(struct scan *s)
{
    struct ctl_line *line = s->line;
    int rc = make_table(line);
    if (rc != 0)
        return rc;
    const struct config_spec spec = spec_of(line);
    rc = config_parse(&spec, s->flag_count, s->flags, &line->options);
    if (rc != 0) {
        free(line->table);
        line->table = NULL;
        return -EINVAL;
    }
    struct ctl_options *o = &line->options;
    o->via_gateway = o->gateway != NULL && (o->mdc == NULL || (s->gateway_given && !s->mdc_given));
    return 0;
}

/* The file comes first: a --config behind it replaces it. */
static void begin_flags(struct scan *s)
{
    static char program[] = "cistern", config[] = "--config", standard[] = DEFAULT_CONFIG;
    char *path = getenv("CISTERN_CONFIG");
    if ((path == NULL || path[0] == '\0') && access(DEFAULT_CONFIG, F_OK) == 0)
        path = standard;
    s->flags[s->flag_count++] = program;
    if (path != NULL && path[0] != '\0') {
        s->flags[s->flag_count++] = config;
        s->flags[s->flag_count++] = path;
    }
}

int ctl_line_parse(struct ctl_line *line, int argc, char **argv)
{
    struct scan s = {.line = line};
    memset(line, 0, sizeof(*line));
    s.flags = calloc((size_t)argc + 3, sizeof(*s.flags));
    if (s.flags == NULL) {
        fprintf(stderr, "cistern: out of memory\n");
        return -ENOMEM;
    }
    begin_flags(&s);
    int rc = scan_line(&s, argc, argv);
    if (rc == 0 && s.help)
        ctl_help_print(s.group, line->command, stdout);
    else if (rc == 0 && s.version)
        printf("cistern %s\n", CISTERN_VERSION);
    if (rc == 0 && (s.help || s.version))
        rc = 1;
    if (rc == 0)
        rc = check_words(&s);
    if (rc == 0)
        rc = read_options(&s);
    free(s.flags);
    return rc;
}

void ctl_line_free(struct ctl_line *line)
{
    if (line->table == NULL)
        return;
    const struct config_spec spec = spec_of(line);
    config_free(&spec, &line->options);
    free(line->table);
    line->table = NULL;
}
