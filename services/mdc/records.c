/* records.c: keys, sealing and checking of the durable records; see records.h. */
#include "services/mdc/records.h"

#include "common/crc.h"
#include "rdma/fabric.h"

#include <stdio.h>
#include <string.h>

static void key_set(char *key, int len)
{
    MUST(len > 0 && (size_t)len < META_KEY_MAX);
    memset(key + len, 0, META_KEY_MAX - (size_t)len);
}

void record_key_pool(char *key, uint32_t id)
{
    key_set(key, snprintf(key, META_KEY_MAX, "2/pool/%08x", id));
}

void record_key_module(char *key, uint32_t id)
{
    key_set(key, snprintf(key, META_KEY_MAX, "3/module/%08x", id));
}

void record_key_partitions(char *key, uint32_t pool, uint32_t chunk)
{
    key_set(key, snprintf(key, META_KEY_MAX, "4/partitions/%08x/%08x", pool, chunk));
}

void record_key_volume(char *key, const struct uuid *id)
{
    char hex[33];
    uuid_format(id, hex);
    key_set(key, snprintf(key, META_KEY_MAX, "5/volume/%s", hex));
}

void record_key_attachment(char *key, const struct uuid *volume, const char *host)
{
    char hex[33];
    uuid_format(volume, hex);
    key_set(key, snprintf(key, META_KEY_MAX, "6/attachment/%s/%s", hex, host));
}

size_t record_bytes(enum record_kind kind)
{
    switch (kind) {
    case RECORD_FORMAT_ID:
        return sizeof(struct record_format);
    case RECORD_COUNTERS:
        return sizeof(struct record_counters);
    case RECORD_POOL:
        return sizeof(struct record_pool);
    case RECORD_MODULE:
        return sizeof(struct record_module);
    case RECORD_PARTITIONS:
        return sizeof(struct record_partitions);
    case RECORD_VOLUME:
        return sizeof(struct record_volume);
    case RECORD_ATTACHMENT:
        return sizeof(struct record_attachment);
    }
    return 0;
}

void record_seal(enum record_kind kind, void *record)
{
    size_t bytes = record_bytes(kind);
    struct record_head head = {.kind = kind, .bytes = (uint32_t)bytes};
    memcpy(record, &head, sizeof(head));
    uint32_t crc = crc32c(record, bytes - sizeof(crc));
    memcpy((uint8_t *)record + bytes - sizeof(crc), &crc, sizeof(crc));
}

/* ---- checks of one record alone; NULL = good, else what is wrong ---- */

static bool text_ends(const char *text, size_t size)
{
    return memchr(text, 0, size) != NULL;
}

static bool name_good(const char name[MDC_NAME_MAX])
{
    return text_ends(name, MDC_NAME_MAX) && mdc_name_valid(name);
}

static const char *counters_wrong(const struct record_counters *c)
{
    if (c->term >= NUMBER_MAX || c->next_layer == 0 || c->next_layer >= NUMBER_MAX ||
        c->turn_limit >= NUMBER_MAX || c->highest_epoch >= NUMBER_MAX || c->highest_generation >= NUMBER_MAX)
        return "a counter is out of range";
    return NULL;
}

static const char *pool_wrong(const struct record_pool *p)
{
    if (p->id == 0)
        return "pool id 0";
    if (!is_pow2(p->partitions) || p->stripe_bytes < BLOCK_BYTES || p->stripe_bytes > FABRIC_PAYLOAD_MAX ||
        !is_pow2(p->stripe_bytes))
        return "a pool's number of partitions or stripe size is not a power of two in range";
    if (p->copies == 0 || p->copies > TABLE_MEMBERS_MAX)
        return "a pool with a number of copies that this version cannot keep";
    if (p->min_copies > p->copies)
        return "a pool that needs more copies than it has";
    return name_good(p->name) ? NULL : "a pool's name is not valid";
}

static const char *module_wrong(const struct record_module *m)
{
    if (m->id == 0 || m->id > TABLE_MEMBER_ID(UINT32_MAX) || uuid_is_zero(&m->store))
        return "a module without id or store";
    if ((m->kind != TABLE_MODULE_OSD && m->kind != TABLE_MODULE_SAN) || m->media < TABLE_MEDIA_SSD ||
        m->media > TABLE_MEDIA_SAN)
        return "a module's kind or medium is not known";
    if (m->draining > RECORD_REMOVING)
        return "whether a module is to be emptied is not known";
    if (!name_good(m->host) || !name_good(m->name) || !text_ends(m->rack, sizeof(m->rack)))
        return "a module's host or name is not valid";
    return NULL;
}

static const char *partitions_wrong(const struct record_partitions *p)
{
    if (p->pool == 0 || p->count == 0 || p->count > PARTITION_CHUNK)
        return "a partition record with a wrong pool or count";
    for (uint32_t i = 0; i < p->count; i++) {
        if (p->items[i].epoch == 0 || p->items[i].epoch >= NUMBER_MAX)
            return "a partition's epoch is out of range";
    }
    return NULL;
}

static const char *volume_wrong(const struct record_volume *v)
{
    if (uuid_is_zero(&v->id) || !name_good(v->name))
        return "a volume's id or name is not valid";
    if (v->state < TABLE_VOLUME_READY || v->state > TABLE_VOLUME_DELETING)
        return "a volume's state is not known";
    if (v->size_bytes == 0 || v->size_bytes % UNIT_BYTES != 0 || v->family == 0 || v->layer == 0 ||
        v->generation == 0 || v->generation >= NUMBER_MAX)
        return "a volume's size, layer or generation is out of range";
    return NULL;
}

static const char *attachment_wrong(const struct record_attachment *a)
{
    return !uuid_is_zero(&a->volume) && name_good(a->host) ? NULL
                                                           : "an attachment's volume or host is not valid";
}

/* Also gives the key that the record must have. */
static const char *record_wrong(enum record_kind kind, const void *r, char *key)
{
    const struct record_partitions *p = r;
    const struct record_attachment *a = r;
    const char *why = NULL;
    switch (kind) {
    case RECORD_FORMAT_ID:
        key_set(key, snprintf(key, META_KEY_MAX, RECORD_KEY_FORMAT));
        break;
    case RECORD_COUNTERS:
        key_set(key, snprintf(key, META_KEY_MAX, RECORD_KEY_COUNTERS));
        why = counters_wrong(r);
        break;
    case RECORD_POOL:
        record_key_pool(key, ((const struct record_pool *)r)->id);
        why = pool_wrong(r);
        break;
    case RECORD_MODULE:
        record_key_module(key, ((const struct record_module *)r)->id);
        why = module_wrong(r);
        break;
    case RECORD_PARTITIONS:
        record_key_partitions(key, p->pool, p->chunk);
        why = partitions_wrong(p);
        break;
    case RECORD_VOLUME:
        record_key_volume(key, &((const struct record_volume *)r)->id);
        why = volume_wrong(r);
        break;
    case RECORD_ATTACHMENT:
        why = attachment_wrong(a); /* first: the key is made of its host */
        if (why == NULL)
            record_key_attachment(key, &a->volume, a->host);
        break;
    }
    return why;
}

int record_open(const char *key, const void *value, size_t len, enum record_kind *kind, void *out,
                const char **why)
{
    struct record_head head;
    *why = "not a record of this program";
    if (len < sizeof(head))
        return -EMEDIUMTYPE;
    memcpy(&head, value, sizeof(head));
    size_t bytes = record_bytes((enum record_kind)head.kind);
    if (bytes == 0)
        return -EMEDIUMTYPE;
    *why = "its length is wrong";
    if (bytes != len || head.bytes != len)
        return -EBADMSG;
    uint32_t crc;
    memcpy(&crc, (const uint8_t *)value + len - sizeof(crc), sizeof(crc));
    *why = "its checksum is wrong";
    if (crc != crc32c(value, len - sizeof(crc)))
        return -EBADMSG;
    memcpy(out, value, len);
    const struct record_format *f = out;
    if (head.kind == RECORD_FORMAT_ID && f->magic != RECORD_MAGIC) {
        *why = "not a store of this program";
        return -EMEDIUMTYPE;
    }
    if (head.kind == RECORD_FORMAT_ID && f->format != RECORD_FORMAT) {
        *why = "its format is not known to this version";
        return -EPROTONOSUPPORT;
    }
    char expected[META_KEY_MAX];
    const char *wrong = record_wrong((enum record_kind)head.kind, out, expected);
    if (wrong == NULL && strcmp(expected, key) != 0)
        wrong = "it lies under another record's key";
    if (wrong != NULL) {
        *why = wrong;
        return -EBADMSG;
    }
    *kind = (enum record_kind)head.kind;
    return 0;
}
