/* Options of libcistern and the calling thread's latest error. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/vbs/cistern_internal.h"

#define DEFAULT_CONFIG "/etc/cistern/client.conf"

static _Thread_local char last_error[512] = "no error";

const char *cistern_error(void)
{
    return last_error;
}

int cistern_fail(int rc, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(last_error, sizeof last_error, fmt, ap);
    va_end(ap);
    return rc;
}

void cistern_options_init(struct cistern_options *options)
{
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
}

/* Strings of loaded files live as long as the process: here they stay reachable. */
struct kept {
    struct kept *next;
    char text[];
};
static struct kept *kept_strings;
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

static const char *keep(const char *text)
{
    size_t len = strlen(text) + 1;
    struct kept *k = malloc(sizeof *k + len);
    if (k == NULL)
        return NULL;
    memcpy(k->text, text, len);
    pthread_mutex_lock(&kept_lock);
    k->next = kept_strings;
    kept_strings = k;
    pthread_mutex_unlock(&kept_lock);
    return k->text;
}

static char *trim(char *text)
{
    while (*text == ' ' || *text == '\t')
        text++;
    size_t len = strlen(text);
    while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL)
        text[--len] = 0;
    return text;
}

static int load_line(struct cistern_options *options, char *line, const char *path, unsigned number)
{
    char *comment = strchr(line, '#');
    if (comment != NULL)
        *comment = 0;
    char *name = trim(line);
    if (*name == 0)
        return 0;
    char *equals = strchr(name, '=');
    if (equals == NULL)
        return cistern_fail(-EINVAL, "%s:%u: expected 'name = value'", path, number);
    *equals = 0;
    char *value = trim(equals + 1);
    name = trim(name);
    const char **field = strcmp(name, "mdc") == 0           ? &options->mdc
                         : strcmp(name, "gateway") == 0     ? &options->gateway
                         : strcmp(name, "secret-file") == 0 ? &options->secret_file
                         : strcmp(name, "host") == 0        ? &options->host
                                                            : NULL;
    if (field == NULL)
        return cistern_fail(-EINVAL,
                            "%s:%u: no option is named '%s' (there are mdc, gateway, secret-file and host)",
                            path, number, name);
    const char *kept = keep(value);
    if (kept == NULL)
        return cistern_fail(-ENOMEM, "out of memory");
    *field = kept;
    return 0;
}

int cistern_options_load(struct cistern_options *options, const char *path)
{
    bool by_default = false;
    if (path == NULL)
        path = getenv("CISTERN_CONFIG");
    if (path == NULL) {
        path = DEFAULT_CONFIG;
        by_default = true;
    }
    FILE *file = fopen(path, "re");
    if (file == NULL && by_default && errno == ENOENT)
        return 0;
    if (file == NULL) {
        int rc = -errno;
        return cistern_fail(rc, "cannot read %s: %s", path, strerror(-rc));
    }
    char line[1024];
    int rc = 0;
    for (unsigned number = 1; rc == 0 && fgets(line, sizeof line, file) != NULL; number++) {
        if (strchr(line, '\n') == NULL && strlen(line) == sizeof line - 1)
            rc = cistern_fail(-EINVAL, "%s:%u: the line is too long", path, number);
        else
            rc = load_line(options, line, path, number);
    }
    if (rc == 0 && ferror(file))
        rc = cistern_fail(-EIO, "cannot read %s", path);
    fclose(file);
    return rc;
}
