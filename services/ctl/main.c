/* main.c: `cistern`: one command line, one command. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "services/ctl/ctl.h"

static bool name_host(struct ctl *ctl)
{
    char own[256] = "";
    if (ctl->options->host != NULL)
        return ctl_name(ctl, ctl->host, ctl->options->host);
    if (gethostname(own, sizeof(own) - 1) != 0 || own[0] == '\0')
        snprintf(own, sizeof(own), "localhost");
    return ctl_name(ctl, ctl->host, own);
}

int main(int argc, char **argv)
{
    struct ctl_line line;
    const int rc = ctl_line_parse(&line, argc, argv);
    if (rc != 0)
        return rc > 0 ? CTL_DONE : CTL_USAGE;
    struct ctl ctl = {.options = &line.options};
    enum ctl_exit status = CTL_USAGE;
    if (name_host(&ctl))
        status = line.command->run(&ctl, line.args);
    ctl_close(&ctl);
    ctl_line_free(&line);
    return status;
}
