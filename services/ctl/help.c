/* help.c: help texts and shell completion, from the table of commands. */
#include "services/ctl/ctl.h"

#include <ctype.h>
#include <string.h>

static const char *value_name(const struct config_option *o)
{
    if (o->value_name != NULL)
        return o->value_name;
    switch (o->kind) {
    case CONFIG_BOOL:
        return NULL;
    case CONFIG_UINT:
        return "N";
    case CONFIG_SIZE:
        return "SIZE";
    case CONFIG_DURATION:
        return "TIME";
    case CONFIG_STRING:
        break;
    }
    return "TEXT";
}

static void print_options(const struct config_option *options, FILE *out)
{
    for (const struct config_option *o = options; o->name != NULL; o++) {
        char left[64];
        const char *value = value_name(o);
        snprintf(left, sizeof(left), "--%s%s%s", o->name, value != NULL ? " " : "",
                 value != NULL ? value : "");
        fprintf(out, "  %-22s %s", left, o->help);
        if (o->def != NULL)
            fprintf(out, " (default %s)", o->def);
        fputc('\n', out);
    }
}

static void print_common(FILE *out)
{
    fputs("\nOptions of all commands:\n", out);
    print_options(ctl_common_options, out);
    fputs(
        "  --config FILE          read mdc, gateway, secret-file and host from it, lines of \"name = value\"\n"
        "                         (default $CISTERN_CONFIG, then /etc/cistern/client.conf)\n"
        "  --help, --version\n"
        "\nSizes: 4k, 1M, 1G, 2T (powers of 1024). Times: 10us, 200ms, 5s, 3m.\n"
        "Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no metadata controller answers.\n",
        out);
}

/* Of a command with its arguments; out holds 64 bytes. */
static const char *command_line(const struct ctl_command *c, char *out)
{
    snprintf(out, 64, "%s%s%s%s%s", c->group != NULL ? c->group : "", c->group != NULL ? " " : "", c->name,
             c->args[0] != '\0' ? " " : "", c->args);
    return out;
}

static void print_commands(const char *group, FILE *out)
{
    fprintf(out, "Usage: cistern [OPTION]... %s%sCOMMAND [ARGUMENT]... [OPTION]...\n\nCommands:\n",
            group != NULL ? group : "", group != NULL ? " " : "");
    char line[64];
    size_t width = 0;
    for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++)
        width = max_u64(width, strlen(command_line(c, line)));
    for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++)
        if (group == NULL || (c->group != NULL && strcmp(c->group, group) == 0))
            fprintf(out, "  %-*s  %s\n", (int)width, command_line(c, line), c->help);
}

void ctl_help_commands(FILE *out)
{
    print_commands(NULL, out);
    fputs("\ncistern --help tells the options, cistern COMMAND --help those of a command.\n", out);
}

void ctl_help_print(const char *group, const struct ctl_command *command, FILE *out)
{
    if (command != NULL) {
        fprintf(out, "Usage: cistern %s%s%s%s%s%s\n%c%s.\n", group != NULL ? group : "",
                group != NULL ? " " : "", command->name, command->args[0] != '\0' ? " " : "", command->args,
                command->options != NULL ? " [OPTION]..." : "", toupper((unsigned char)command->help[0]),
                command->help + 1);
        if (command->options != NULL) {
            fputs("\nOptions:\n", out);
            print_options(command->options, out);
        }
        print_common(out);
        return;
    }
    print_commands(group, out);
    fputs("\nA command with --help tells its own options.\n", out);
    print_common(out);
}

/* ---- completion ---- */

static void print_words_of(const char *group, FILE *out)
{
    const char *before = NULL;
    for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++) {
        const char *word = group == NULL && c->group != NULL ? c->group : c->name;
        if (group != NULL && (c->group == NULL || strcmp(c->group, group) != 0))
            continue;
        if (before == NULL || strcmp(before, word) != 0) /* a group's commands stand together */
            fprintf(out, "%s%s", before != NULL ? " " : "", word);
        before = word;
    }
}

static void print_option_words(const struct config_option *options, FILE *out)
{
    for (const struct config_option *o = options; o != NULL && o->name != NULL; o++)
        fprintf(out, " --%s", o->name);
}

static void print_takers_of(const struct config_option *options, FILE *out)
{
    for (const struct config_option *o = options; o != NULL && o->name != NULL; o++)
        if (o->kind != CONFIG_BOOL)
            fprintf(out, "|--%s", o->name);
}

/* Which options take a value: their values are no words of the command. */
static void print_takers(FILE *out)
{
    fputs("        --config", out);
    print_takers_of(ctl_common_options, out);
    for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++)
        print_takers_of(c->options, out);
    fputs(") ((i++)) ;;\n", out);
}

static void print_case_of(const struct ctl_command *c, FILE *out)
{
    fprintf(out, "    \"%s%s%s \"*) options=\"", c->group != NULL ? c->group : "",
            c->group != NULL ? " " : "", c->name);
    print_option_words(c->options, out);
    fprintf(out, "\"; names=%s; at=%d ;;\n", c->complete != NULL ? c->complete : "none",
            c->group != NULL ? 2 : 1);
}

static void print_groups(FILE *out)
{
    const char *before = "";
    for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++) {
        if (c->group == NULL || strcmp(before, c->group) == 0)
            continue;
        before = c->group;
        fprintf(out, "    \"%s \") words=\"", c->group);
        print_words_of(c->group, out);
        fputs("\" ;;\n", out);
    }
}

void ctl_completion_print(FILE *out)
{
    fputs("# bash completion of cistern: . <(cistern completion bash)\n"
          "_cistern() {\n"
          "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
          "    local i line='' count=0 words='' options='' names=none at=9\n"
          "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
          "        case ${COMP_WORDS[i]} in\n",
          out);
    print_takers(out);
    fputs("        -*) ;;\n"
          "        *) line+=\"${COMP_WORDS[i]} \"; ((count++)) ;;\n"
          "        esac\n"
          "    done\n"
          "    case $before in\n"
          "    --config|--secret-file) COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n"
          "    --pool) COMPREPLY=($(compgen -W \"$(_cistern_names pool)\" -- \"$current\")); return ;;\n"
          "    --volume) COMPREPLY=($(compgen -W \"$(_cistern_names volume)\" -- \"$current\")); return ;;\n"
          "    esac\n"
          "    case $line in\n"
          "    '') words=\"",
          out);
    print_words_of(NULL, out);
    fputs("\" ;;\n", out);
    print_groups(out);
    for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++)
        print_case_of(c, out);
    fputs("    esac\n"
          "    if [[ $current == -* ]]; then words=\"$options",
          out);
    print_option_words(ctl_common_options, out);
    fputs(" --config --help --version\"\n"
          "    elif ((count == at)); then words=$(_cistern_names \"$names\"); fi\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
          "}\n"
          "_cistern_names() {\n"
          "    case $1 in\n"
          "    shell) echo bash ;;\n"
          "    address) cistern --timeout 2s --json module list 2>/dev/null |\n"
          "        sed -n 's/.*\"address\": \"\\([^\"]*\\)\".*/\\1/p' ;;\n"
          "    volume|pool) cistern --timeout 2s \"$1\" list 2>/dev/null | awk 'NR > 1 { print $1 }' ;;\n"
          "    esac\n"
          "}\n"
          "complete -F _cistern cistern\n",
          out);
}

enum ctl_exit ctl_completion(struct ctl *ctl, char *const *args)
{
    if (strcmp(args[0], "bash") != 0) {
        ctl_say(ctl, "there is completion for bash only, not for \"%s\"", args[0]);
        return CTL_USAGE;
    }
    ctl_completion_print(stdout);
    return CTL_DONE;
}
