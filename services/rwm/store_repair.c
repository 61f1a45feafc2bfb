/*
 * store_repair.c: good copies over bad ones.
 *
 * Safe at any point: what is written over is a copy that does not count (damaged, unreadable, or older than
 * it may be), the one that counts is not touched, and every write brings the two nearer to being equal. Cut
 * off anywhere, the next run finds the rest to do. Both copies of what is repaired are read again here, so
 * that nothing is built on an old look.
 */
#include <stdio.h>

#include "services/rwm/store_check_internal.h"

/* Is what is about to be copied what the check took for good? */
static bool source_good(const struct store_check *c, const struct check_repair_action *a, const void *page)
{
    uint32_t crc;
    if (a->page != STORE_NONE)
        return check_page_good(c, a->page, page);
    memcpy(&crc, (const uint8_t *)page + 8, sizeof crc);
    uint64_t magic = a->journal ? STORE_JSUPER_MAGIC : STORE_SUPER_MAGIC;
    return memcmp(page, &magic, sizeof magic) == 0 && crc == check_super_crc(page);
}

static int repair_one(struct store_check *c, const struct check_repair_action *a)
{
    struct device *d = a->journal ? c->journal_device : c->data;
    int rc = check_read(c, d, a->from, c->buf_a, STORE_PAGE_BYTES);
    if (rc)
        return rc;
    if (!source_good(c, a, c->buf_a))
        return -EBADMSG;
    rc = check_write(c, d, a->to, c->buf_a, STORE_PAGE_BYTES);
    if (rc == 0)
        rc = check_flush(c, d);
    if (rc == 0)
        rc = check_read(c, d, a->to, c->buf_b, STORE_PAGE_BYTES);
    if (rc == 0 && memcmp(c->buf_a, c->buf_b, STORE_PAGE_BYTES) != 0)
        rc = -EIO;
    return rc;
}

int store_repair(struct store_check *c, bool dry_run, void (*told)(void *arg, const char *text), void *arg,
                 uint64_t *written)
{
    const struct check_repair_action *actions = c->repairs.items;
    uint64_t count = 0;
    int rc = 0;
    if (!c->report.complete) {
        *written = 0;
        return -EPERM;
    }
    for (size_t i = 0; i < c->repairs.count && rc == 0; i++) {
        if (!dry_run)
            rc = repair_one(c, &actions[i]);
        if (rc == 0) {
            count++;
            if (told)
                told(arg, actions[i].text);
        }
    }
    *written = count;
    return rc;
}

int store_repair_flush(struct store_check *c)
{
    int rc = check_flush(c, c->data);
    if (rc == 0 && c->journal_device != c->data)
        rc = check_flush(c, c->journal_device);
    return rc;
}
