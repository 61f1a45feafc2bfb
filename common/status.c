/* status.c: the table of status.def. */
#include "common/status.h"

struct status_entry {
    uint32_t status;
    int err;
    const char *name;
    const char *text;
};

static const struct status_entry table[] = {
#define STATUS(num, name, err, text) {num, err, #name, text},
#include "common/status.def"
#undef STATUS
};

static const struct status_entry *status_find(uint32_t status)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (table[i].status == status)
            return &table[i];
    return NULL;
}

const char *status_name(uint32_t status)
{
    const struct status_entry *e = status_find(status);
    return e != NULL ? e->name : "UNKNOWN";
}

const char *status_text(uint32_t status)
{
    const struct status_entry *e = status_find(status);
    return e != NULL ? e->text : "a status that this build does not know";
}

int status_to_errno(uint32_t status)
{
    const struct status_entry *e = status_find(status);
    return e != NULL ? -e->err : -EIO;
}

uint32_t status_from_errno(int rc)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (table[i].err == -rc)
            return table[i].status;
    return STATUS_IO;
}
