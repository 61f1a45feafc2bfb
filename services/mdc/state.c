/* state.c: the objects of the state: lookup, adding, removing; see state.h. */
#include "services/mdc/state.h"

#include <stdlib.h>
#include <string.h>

/* ---- life ---- */

static uint32_t or_default(uint32_t v, uint32_t def)
{
    return v != 0 ? v : def;
}

int mdc_state_create(const struct table_limits *limits, uint32_t attachments_max, struct mdc_state **out)
{
    struct mdc_state *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return -ENOMEM;
    s->limits.pools = or_default(limits->pools, 64);
    s->limits.modules = or_default(limits->modules, 1024);
    s->limits.partitions = or_default(limits->partitions, 32768);
    s->limits.volumes = or_default(limits->volumes, 8192);
    s->attachments_max = or_default(attachments_max, 65536);
    uint32_t heads = 64;
    while (heads < s->limits.volumes)
        heads *= 2;
    s->index_mask = heads - 1;
    s->modules = calloc(s->limits.modules, sizeof(*s->modules));
    s->pools = calloc(s->limits.pools, sizeof(*s->pools));
    s->partitions = calloc(s->limits.partitions, sizeof(*s->partitions));
    s->partition_pool = calloc(s->limits.partitions, sizeof(*s->partition_pool));
    s->settling = calloc(s->limits.partitions, sizeof(*s->settling));
    s->heard = calloc(s->limits.partitions, sizeof(*s->heard));
    s->volumes = calloc(s->limits.volumes, sizeof(*s->volumes));
    s->id_heads = calloc(heads, sizeof(uint32_t));
    s->name_heads = calloc(heads, sizeof(uint32_t));
    list_init(&s->attachments);
    list_init(&s->sessions);
    s->counters.next_layer = 1;
    s->counters.highest_generation = 1; /* where volumes begin */
    s->counters.next_pool = s->counters.next_module = 1;
    s->counters.turn_limit = s->turn_next = 1;
    if (!s->modules || !s->pools || !s->partitions || !s->partition_pool || !s->settling || !s->heard ||
        !s->volumes || !s->id_heads || !s->name_heads) {
        mdc_state_destroy(s);
        return -ENOMEM;
    }
    *out = s;
    return 0;
}

void mdc_state_destroy(struct mdc_state *s)
{
    while (!list_empty(&s->sessions))
        mdc_session_remove(s, list_entry(s->sessions.next, struct mdc_session, link));
    list_for_each_safe(n, &s->attachments)
    {
        free(list_entry(n, struct mdc_attachment, all_link));
    }
    free(s->modules);
    free(s->pools);
    free(s->partitions);
    free(s->partition_pool);
    free(s->settling);
    free(s->heard);
    free(s->volumes);
    free(s->id_heads);
    free(s->name_heads);
    free(s);
}

/* ---- modules, pools, partitions ---- */

struct mdc_module *mdc_module_by_id(struct mdc_state *s, uint32_t id)
{
    if (id == 0 || id > s->limits.modules || s->modules[id - 1].rec.id == 0)
        return NULL;
    return &s->modules[id - 1];
}

struct mdc_module *mdc_module_by_store(struct mdc_state *s, const struct uuid *store)
{
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        if (s->modules[i].rec.id != 0 && uuid_eq(&s->modules[i].rec.store, store))
            return &s->modules[i];
    }
    return NULL;
}

struct mdc_pool *mdc_pool_by_id(struct mdc_state *s, uint32_t id)
{
    if (id == 0 || id > s->limits.pools || s->pools[id - 1].rec.id == 0)
        return NULL;
    return &s->pools[id - 1];
}

struct mdc_pool *mdc_pool_by_name(struct mdc_state *s, const char *name)
{
    for (uint32_t i = 0; i < s->limits.pools; i++) {
        if (s->pools[i].rec.id != 0 && strcmp(s->pools[i].rec.name, name) == 0)
            return &s->pools[i];
    }
    return NULL;
}

uint32_t mdc_partition_primary(const struct record_partition *p)
{
    for (unsigned i = 0; i < TABLE_MEMBERS_MAX; i++) {
        if (p->members[i] & TABLE_MEMBER_IN_SYNC)
            return TABLE_MEMBER_ID(p->members[i]);
    }
    return 0;
}

void mdc_pool_count_partitions(struct mdc_state *s, const struct mdc_pool *pool)
{
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        if (s->modules[i].rec.pool == pool->rec.id)
            s->modules[i].partitions = 0;
    }
    for (uint32_t i = 0; i < pool->rec.partitions; i++) {
        const struct record_partition *p = &s->partitions[pool->rec.first_partition + i];
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
            struct mdc_module *m = mdc_module_by_id(s, TABLE_MEMBER_ID(p->members[k]));
            if (m != NULL)
                m->partitions++;
        }
    }
}

/* ---- volumes ---- */

/* FNV-1a, 32 bits: the chains are in memory only, so it may change. */
static uint32_t hash_bytes(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 16777619u;
    return h;
}

static uint32_t *id_head(struct mdc_state *s, const struct uuid *id)
{
    return &s->id_heads[hash_bytes(id->b, 16) & s->index_mask];
}

static uint32_t *name_head(struct mdc_state *s, const char *name)
{
    return &s->name_heads[hash_bytes(name, strlen(name)) & s->index_mask];
}

struct mdc_volume *mdc_volume_by_id(struct mdc_state *s, const struct uuid *id)
{
    for (uint32_t i = *id_head(s, id); i != 0; i = s->volumes[i - 1].id_next) {
        if (uuid_eq(&s->volumes[i - 1].rec.id, id))
            return &s->volumes[i - 1];
    }
    return NULL;
}

struct mdc_volume *mdc_volume_by_name(struct mdc_state *s, const char *name)
{
    for (uint32_t i = *name_head(s, name); i != 0; i = s->volumes[i - 1].name_next) {
        if (strcmp(s->volumes[i - 1].rec.name, name) == 0)
            return &s->volumes[i - 1];
    }
    return NULL;
}

uint32_t mdc_volume_slot(const struct mdc_state *s, const struct mdc_volume *v)
{
    return (uint32_t)(v - s->volumes);
}

struct mdc_volume *mdc_volume_add(struct mdc_state *s, const struct record_volume *rec)
{
    uint32_t slot = 0;
    while (slot < s->volume_top && !uuid_is_zero(&s->volumes[slot].rec.id))
        slot++;
    if (slot == s->limits.volumes)
        return NULL;
    if (slot == s->volume_top)
        s->volume_top++;
    struct mdc_volume *v = &s->volumes[slot];
    memset(v, 0, sizeof(*v));
    v->rec = *rec;
    list_init(&v->attachments);
    list_init(&v->opens);
    uint32_t *head = id_head(s, &rec->id);
    v->id_next = *head;
    *head = slot + 1;
    if (rec->state != TABLE_VOLUME_DELETING) {
        head = name_head(s, rec->name);
        v->name_next = *head;
        *head = slot + 1;
    }
    s->volume_count++;
    return v;
}

void mdc_volume_forget_name(struct mdc_state *s, struct mdc_volume *v)
{
    uint32_t slot = mdc_volume_slot(s, v);
    for (uint32_t *at = name_head(s, v->rec.name); *at != 0; at = &s->volumes[*at - 1].name_next) {
        if (*at == slot + 1) {
            *at = v->name_next;
            v->name_next = 0;
            return;
        }
    }
}

void mdc_volume_remove(struct mdc_state *s, struct mdc_volume *v)
{
    MUST(list_empty(&v->attachments) && list_empty(&v->opens));
    mdc_volume_forget_name(s, v);
    uint32_t slot = mdc_volume_slot(s, v);
    uint32_t *at = id_head(s, &v->rec.id);
    while (*at != slot + 1) {
        MUST(*at != 0);
        at = &s->volumes[*at - 1].id_next;
    }
    *at = v->id_next;
    memset(v, 0, sizeof(*v));
    s->volume_count--;
}

void mdc_volume_raise_generation(struct mdc_state *s, struct mdc_tx *tx, struct mdc_volume *v)
{
    v->rec.generation = max_u64(v->rec.generation, s->counters.highest_generation) + 1;
    v->fence_unpublished = true;
    s->counters.highest_generation = v->rec.generation;
    mdc_tx_counters(tx);
    mdc_tx_record(tx, TABLE_VOLUME, mdc_volume_slot(s, v));
}

/* ---- attachments and opens ---- */

struct mdc_attachment *mdc_attachment_find(struct mdc_volume *v, const char *host)
{
    list_for_each(n, &v->attachments)
    {
        struct mdc_attachment *a = list_entry(n, struct mdc_attachment, link);
        if (strcmp(a->rec.host, host) == 0)
            return a;
    }
    return NULL;
}

static void note_attachment(struct mdc_tx *tx, enum tx_kind what, const struct record_attachment *rec)
{
    char key[META_KEY_MAX];
    record_key_attachment(key, &rec->volume, rec->host);
    mdc_tx_key(tx, what, key);
}

struct mdc_attachment *mdc_attachment_add(struct mdc_state *s, struct mdc_tx *tx, struct mdc_volume *v,
                                          const struct record_attachment *rec)
{
    struct mdc_attachment *a = calloc(1, sizeof(*a));
    if (a == NULL)
        return NULL;
    a->rec = *rec;
    a->volume = mdc_volume_slot(s, v);
    a->serial = ++s->attachment_serial;
    list_push_back(&v->attachments, &a->link);
    list_push_back(&s->attachments, &a->all_link);
    v->attachment_count++;
    s->attachment_count++;
    if (tx != NULL)
        note_attachment(tx, TX_ATTACHMENT, rec);
    return a;
}

void mdc_attachment_changed(struct mdc_state *s, struct mdc_tx *tx, struct mdc_attachment *a)
{
    (void)s;
    note_attachment(tx, TX_ATTACHMENT, &a->rec);
}

void mdc_attachment_remove(struct mdc_state *s, struct mdc_tx *tx, struct mdc_attachment *a)
{
    note_attachment(tx, TX_DELETE, &a->rec);
    list_remove(&a->link);
    list_remove(&a->all_link);
    s->volumes[a->volume].attachment_count--;
    s->attachment_count--;
    free(a);
}

struct mdc_open *mdc_open_find(struct mdc_volume *v, const char *host, uint64_t instance)
{
    list_for_each(n, &v->opens)
    {
        struct mdc_open *o = list_entry(n, struct mdc_open, link);
        if (o->instance == instance && strcmp(o->host, host) == 0)
            return o;
    }
    return NULL;
}

struct mdc_open *mdc_open_add(struct mdc_state *s, struct mdc_volume *v, struct mdc_session *session,
                              const char *host, uint64_t instance)
{
    struct mdc_open *o = calloc(1, sizeof(*o));
    if (o == NULL)
        return NULL;
    o->volume = mdc_volume_slot(s, v);
    o->session = session;
    o->instance = instance;
    memcpy(o->host, host, strlen(host) + 1);
    list_push_back(&v->opens, &o->link);
    list_push_back(&session->opens, &o->session_link);
    v->open_count++;
    return o;
}

void mdc_open_remove(struct mdc_state *s, struct mdc_open *o)
{
    list_remove(&o->link);
    list_remove(&o->session_link);
    s->volumes[o->volume].open_count--;
    free(o);
}

/* ---- sessions ---- */

struct mdc_session *mdc_session_add(struct mdc_state *s, const struct mdc_session_request *rq,
                                    uint64_t now_ns)
{
    struct mdc_session *session = calloc(1, sizeof(*session));
    if (session == NULL)
        return NULL;
    session->serial = ++s->session_serial;
    session->role = rq->role;
    memcpy(session->host, rq->host, sizeof(session->host));
    memcpy(session->name, rq->name, sizeof(session->name));
    session->instance = rq->instance;
    session->heard_ns = now_ns;
    list_init(&session->opens);
    list_push_back(&s->sessions, &session->link);
    s->session_count++;
    return session;
}

void mdc_session_remove(struct mdc_state *s, struct mdc_session *session)
{
    while (!list_empty(&session->opens))
        mdc_open_remove(s, list_entry(session->opens.next, struct mdc_open, session_link));
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        if (s->modules[i].session == session)
            s->modules[i].session = NULL;
    }
    list_remove(&session->link);
    s->session_count--;
    free(session);
}

/* ---- turns ---- */

void mdc_numbers_lift(struct mdc_state *s)
{
    uint64_t count = min_u64(s->counters.term >> 16, TERM_COUNT_MAX);
    s->base.generation = count << GENERATION_BITS;
    s->base.turn = count << TURN_BITS;
    s->counters.highest_generation = max_u64(s->counters.highest_generation, s->base.generation);
    s->turn_next = max_u64(s->turn_next, s->base.turn);
    if (s->turn_next >= s->counters.turn_limit)
        s->counters.turn_limit = s->turn_next + TURN_BATCH;
}

uint64_t mdc_turn_take(struct mdc_state *s, struct mdc_tx *tx)
{
    if (s->turn_next + TURN_BATCH / 2 >= s->counters.turn_limit) {
        s->counters.turn_limit = max_u64(s->counters.turn_limit, s->turn_next) + TURN_BATCH;
        mdc_tx_counters(tx);
    }
    return s->turn_next++;
}

uint64_t mdc_term_above(uint64_t above, uint16_t random)
{
    return ((above >> 16) + 1) << 16 | random;
}

/* ---- confirmation ---- */

/* In sync in a partition of its pool, or that may be: not all partitions are settled. */
static bool may_be_in_sync(const struct mdc_state *s, const struct mdc_pool *pool, uint32_t module)
{
    for (uint32_t i = 0; i < pool->rec.partitions; i++) {
        const uint32_t index = pool->rec.first_partition + i;
        if (s->settling[index] & MDC_UNSETTLED)
            return true;
        for (unsigned k = 0; k < TABLE_MEMBERS_MAX; k++) {
            const uint32_t member = s->partitions[index].members[k];
            if ((member & TABLE_MEMBER_IN_SYNC) && TABLE_MEMBER_ID(member) == module)
                return true;
        }
    }
    return false;
}

static bool has_confirmed(const struct mdc_state *s, const struct mdc_module *m, uint64_t version)
{
    return m->registered && m->applied_term == s->term && m->applied_version >= version;
}

static bool confirmed(struct mdc_state *s, uint32_t pool, uint64_t version, bool in_sync,
                      struct mdc_module **awaited)
{
    const struct mdc_pool *p = mdc_pool_by_id(s, pool);
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0 || m->rec.pool != pool || m->partitions == 0 || has_confirmed(s, m, version) ||
            (in_sync && p != NULL && !may_be_in_sync(s, p, m->rec.id)))
            continue;
        if (awaited != NULL)
            *awaited = m;
        return false;
    }
    return true;
}

bool mdc_pool_confirmed(struct mdc_state *s, uint32_t pool, uint64_t version, struct mdc_module **awaited)
{
    return confirmed(s, pool, version, false, awaited);
}

bool mdc_pool_confirmed_in_sync(struct mdc_state *s, uint32_t pool, uint64_t version,
                                struct mdc_module **awaited)
{
    return confirmed(s, pool, version, true, awaited);
}

/* The table version that is to be confirmed; 0: none, its generation is its first. */
static uint64_t fence_of(const struct mdc_volume *v)
{
    return v->fence_unpublished ? UINT64_MAX : v->fence_version;
}

bool mdc_module_knows(const struct mdc_state *s, const struct mdc_module *m)
{
    for (uint32_t i = 0; i < s->volume_top; i++) {
        const struct mdc_volume *v = &s->volumes[i];
        if (!uuid_is_zero(&v->rec.id) && v->rec.pool == m->rec.pool && fence_of(v) != 0 &&
            !has_confirmed(s, m, fence_of(v)))
            return false;
    }
    return true;
}

bool mdc_volume_fenced(struct mdc_state *s, const struct mdc_volume *v, struct mdc_module **awaited)
{
    return fence_of(v) == 0 || mdc_pool_confirmed(s, v->rec.pool, fence_of(v), awaited);
}

bool mdc_volume_fenced_in_sync(struct mdc_state *s, const struct mdc_volume *v)
{
    return fence_of(v) == 0 || mdc_pool_confirmed_in_sync(s, v->rec.pool, fence_of(v), NULL);
}
