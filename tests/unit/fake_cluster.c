/* fake_cluster.c: see fake_cluster.h. */
#include "tests/unit/fake_cluster.h"

#include "common/loop.h"

#include <stdlib.h>
#include <string.h>

#define STEP_NS (200 * NS_PER_US)

struct cluster {
    struct env *env;
    struct fake_mdc *mdc;
    struct cluster_events events;
    void *user;
    struct table copy;
    bool up, refresh;
    uint64_t begun; /* number of the refresh under way or next */
    struct list waits, calls;
    struct loop_timer timer; /* one step: session, calls, refresh, waits */
};

static struct fake_mdc *the_mdc;

/* ---- the table ---- */
struct fake_mdc *fake_mdc_create(uint64_t term)
{
    struct table_limits limits = {.pools = 2, .modules = 32, .partitions = 16, .volumes = 32};
    struct fake_mdc *mdc = calloc(1, sizeof(*mdc));
    MUST(mdc != NULL);
    mdc->cluster = fake_uuid(0xcc);
    mdc->up = true;
    mdc->next_epoch = 10;
    mdc->table.bytes = table_region_bytes(&limits);
    mdc->table.region = aligned_alloc(4096, round_up(mdc->table.bytes, 4096));
    MUST(mdc->table.region != NULL);
    table_format(mdc->table.region, &limits, &mdc->cluster, term, 1);
    struct table_pool pool = {.id = 1,
                              .partitions = FAKE_POOL_PARTITIONS,
                              .stripe_bytes = FAKE_STRIPE,
                              .block_bytes = BLOCK_BYTES,
                              .copies = 1,
                              .name = "p"};
    table_publish(&mdc->table, TABLE_POOL, 0, &pool);
    for (uint32_t i = 0; i < FAKE_POOL_PARTITIONS; i++)
        fake_mdc_partition(mdc, i, 1, 1);
    the_mdc = mdc;
    return mdc;
}

void fake_mdc_destroy(struct fake_mdc *mdc)
{
    table_index_free(&mdc->table);
    free(mdc->table.region);
    free(mdc);
    the_mdc = NULL;
}

static void changed(struct fake_mdc *mdc)
{
    if (mdc->session)
        cluster_refresh(mdc->session); /* the hint */
}

void fake_mdc_volume(struct fake_mdc *mdc, uint32_t index, uint8_t id, uint64_t generation, uint64_t size,
                     uint8_t state)
{
    const struct table_volume *old = table_record(&mdc->table, TABLE_VOLUME, index);
    struct table_volume v = {.id = fake_uuid(id),
                             .family = id,
                             .layer = 100u + id,
                             .generation = generation,
                             .size_bytes = size,
                             .pool = 1,
                             .state = state};
    v.resized_generation = old->size_bytes > size ? generation : old->resized_generation;
    table_publish(&mdc->table, TABLE_VOLUME, index, &v);
    changed(mdc);
}

void fake_mdc_no_volume(struct fake_mdc *mdc, uint32_t index)
{
    struct table_volume v = {.family = 0};
    table_publish(&mdc->table, TABLE_VOLUME, index, &v);
    changed(mdc);
}

void fake_mdc_partition(struct fake_mdc *mdc, uint32_t index, uint64_t epoch, uint32_t member)
{
    struct table_partition p = {.pool = 1, .index = index, .epoch = epoch};
    p.members[0] = member | TABLE_MEMBER_IN_SYNC;
    table_publish(&mdc->table, TABLE_PARTITION, index, &p);
    changed(mdc);
}

void fake_mdc_module(struct fake_mdc *mdc, uint32_t id, uint64_t incarnation, const struct fabric_addr *addr)
{
    struct table_module m = {
        .id = id, .pool = 1, .incarnation = incarnation, .kind = TABLE_MODULE_OSD, .state = TABLE_MODULE_UP};
    memcpy(m.addr, addr, sizeof(m.addr));
    table_publish(&mdc->table, TABLE_MODULE, id - 1, &m);
    changed(mdc);
}

void fake_mdc_members(struct fake_mdc *mdc, uint32_t index, uint64_t epoch, const uint32_t *members)
{
    struct table_partition p = {.pool = 1, .index = index, .epoch = epoch};
    for (unsigned i = 0; i < TABLE_MEMBERS_MAX && members[i] != 0; i++)
        p.members[i] = members[i];
    table_publish(&mdc->table, TABLE_PARTITION, index, &p);
    changed(mdc);
}

void fake_mdc_min_copies(struct fake_mdc *mdc, uint8_t min_copies)
{
    struct table_pool pool = *(const struct table_pool *)table_record(&mdc->table, TABLE_POOL, 0);
    pool.min_copies = min_copies;
    table_publish(&mdc->table, TABLE_POOL, 0, &pool);
    changed(mdc);
}

uint32_t fake_mdc_partitions(const struct fake_mdc *mdc)
{
    const struct table_pool *pool = table_record(&mdc->table, TABLE_POOL, 0);
    return pool->partitions;
}

void fake_mdc_set_partitions(struct fake_mdc *mdc, uint32_t partitions)
{
    struct table_pool pool = *(const struct table_pool *)table_record(&mdc->table, TABLE_POOL, 0);
    for (uint32_t i = pool.partitions; i < partitions; i++)
        fake_mdc_partition(mdc, i, mdc->next_epoch++, 1);
    pool.partitions = partitions;
    table_publish(&mdc->table, TABLE_POOL, 0, &pool);
    changed(mdc);
}

uint64_t fake_mdc_epoch(const struct fake_mdc *mdc, uint32_t index)
{
    const struct table_partition *p = table_record(&mdc->table, TABLE_PARTITION, index);
    return p->epoch;
}

/* ---- calls ---- */
static uint32_t op_register(struct fake_mdc *mdc, const struct mdc_module_register_request *rq,
                            struct mdc_module_register_reply *rep)
{
    const struct table_module *old = table_record(&mdc->table, TABLE_MODULE, 0);
    bool fresh = old->incarnation != rq->incarnation;
    mdc->registered = *rq;
    mdc->registrations++;
    if (mdc->refuse)
        return mdc->refuse;
    struct table_module m = {.id = 1,
                             .pool = 1,
                             .incarnation = rq->incarnation,
                             .kind = rq->kind,
                             .state = TABLE_MODULE_UP,
                             .media = rq->media,
                             .store = rq->store,
                             .start_counter = rq->start_counter};
    memcpy(m.addr, rq->addr, sizeof(m.addr));
    table_publish(&mdc->table, TABLE_MODULE, 0, &m);
    for (uint32_t i = 0; fresh && !mdc->no_new_epoch && i < fake_mdc_partitions(mdc); i++) {
        const struct table_partition *p = table_record(&mdc->table, TABLE_PARTITION, i);
        if (TABLE_MEMBER_ID(p->members[0]) == 1)
            fake_mdc_partition(mdc, i, mdc->next_epoch++, 1);
    }
    *rep = (struct mdc_module_register_reply){.module = 1,
                                              .pool = 1,
                                              .term = table_head(&mdc->table)->term,
                                              .version = table_head(&mdc->table)->version};
    return 0;
}

static void call_answer(struct cluster *c, struct cluster_call *call)
{
    struct fake_mdc *mdc = c->mdc;
    uint32_t status = 0;
    if (call->method == MDC_METHOD_MODULE_REGISTER) {
        struct mdc_module_register_reply rep;
        status = op_register(mdc, call->request, &rep);
        if (status == 0)
            memcpy(call->reply, &rep, sizeof(rep));
    } else if (call->method == MDC_METHOD_MODULE_REPORT) {
        mdc->reports++;
        memcpy(&mdc->report, call->request, sizeof(mdc->report));
    } else {
        MUST(call->method == MDC_METHOD_MODULE_HEARTBEAT);
        mdc->heartbeats++;
        memcpy(&mdc->heartbeat, call->request, sizeof(mdc->heartbeat));
        struct mdc_module_heartbeat_reply rep = {.term = table_head(&mdc->table)->term,
                                                 .version = table_head(&mdc->table)->version,
                                                 .scrub = mdc->scrub,
                                                 .register_again = mdc->register_again};
        mdc->register_again = false;
        memcpy(call->reply, &rep, sizeof(rep));
    }
    call->status = status;
    call->done(call, status ? status_to_errno(status) : 0);
}

/* ---- the copy ---- */
static void copy_table(struct cluster *c)
{
    bool news = c->copy.region == NULL;
    if (!c->copy.region) {
        c->copy.bytes = c->mdc->table.bytes;
        c->copy.region = aligned_alloc(4096, round_up(c->copy.bytes, 4096));
        MUST(c->copy.region != NULL);
        memset(c->copy.region, 0, c->copy.bytes);
    }
    const struct table_header *from = table_head(&c->mdc->table), *to = table_head(&c->copy);
    if (!news && (from->term < to->term || (from->term == to->term && from->version <= to->version)))
        return;
    memcpy(c->copy.region, c->mdc->table.region, c->copy.bytes);
    MUST(table_index(&c->copy) == 0);
    c->events.table_changed(c->user, &c->copy);
}

static void waits_run(struct cluster *c)
{
    struct list batch;
    list_init(&batch);
    list_splice(&batch, &c->waits);
    const struct table_header *h = c->copy.region ? table_head(&c->copy) : NULL;
    uint64_t now = loop_now_ns(c->env->loop);
    for (struct list *n = list_pop_front(&batch); n; n = list_pop_front(&batch)) {
        struct cluster_wait *w = list_entry(n, struct cluster_wait, link);
        bool ready = w->version ? h && (h->term > w->term || (h->term == w->term && h->version >= w->version))
                                : c->begun > w->started || now >= w->deadline_ns;
        if (ready)
            w->fn(w);
        else
            list_push_back(&c->waits, &w->link);
    }
}

static void cluster_step(struct loop_timer *t)
{
    struct cluster *c = container_of(t, struct cluster, timer);
    loop_timer_arm(c->env->loop, t, STEP_NS);
    if (c->mdc->up && !c->up) {
        struct mdc_session_reply session = {.cluster = c->mdc->cluster, .heartbeat_ms = 10};
        c->up = true;
        c->refresh = true;
        c->events.session_up(c->user, &session);
    }
    if (c->up && c->mdc->up && c->refresh) {
        c->refresh = false;
        c->begun++;
        c->mdc->refreshes++;
        copy_table(c);
    }
    waits_run(c);
    if (!c->up || !c->mdc->up)
        return;
    struct list *n = list_pop_front(&c->calls);
    if (n)
        call_answer(c, list_entry(n, struct cluster_call, link));
}

void fake_mdc_break(struct fake_mdc *mdc)
{
    if (mdc->session)
        mdc->session->up = false;
}

void fake_mdc_older_store(struct fake_mdc *mdc, uint64_t incarnation)
{
    struct table_module m = *(const struct table_module *)table_record(&mdc->table, TABLE_MODULE, 0);
    ((struct table_header *)mdc->table.region)->term++;
    m.incarnation = incarnation;
    table_publish(&mdc->table, TABLE_MODULE, 0, &m);
    fake_mdc_break(mdc);
}

/* ---- cluster.h ---- */
int cluster_create(struct env *env, const struct cluster_config *config, const struct cluster_events *events,
                   void *user, struct cluster **out)
{
    struct cluster *c = calloc(1, sizeof(*c));
    MUST(c != NULL && config->mdc_count > 0 && the_mdc != NULL);
    c->env = env;
    c->mdc = the_mdc;
    c->mdc->session = c;
    c->events = *events;
    c->user = user;
    list_init(&c->waits);
    list_init(&c->calls);
    loop_timer_init(&c->timer, cluster_step);
    loop_timer_arm(env->loop, &c->timer, STEP_NS);
    *out = c;
    return 0;
}

void cluster_destroy(struct cluster *c)
{
    loop_timer_cancel(c->env->loop, &c->timer);
    if (c->mdc->session == c)
        c->mdc->session = NULL;
    while (list_pop_front(&c->waits) || list_pop_front(&c->calls)) {
    }
    table_index_free(&c->copy);
    free(c->copy.region);
    free(c);
}

bool cluster_session_is_up(const struct cluster *c)
{
    return c->up && c->mdc->up;
}
const struct table *cluster_table(const struct cluster *c)
{
    return c->copy.region ? &c->copy : NULL;
}
void cluster_refresh(struct cluster *c)
{
    c->refresh = true;
}
void cluster_wait_table(struct cluster *c, struct cluster_wait *w)
{
    list_init(&w->link);
    w->started = c->begun;
    w->deadline_ns = loop_now_ns(c->env->loop) + NS_PER_S;
    list_push_back(&c->waits, &w->link);
    c->refresh = true;
}
void cluster_wait_cancel(struct cluster *c, struct cluster_wait *w)
{
    (void)c;
    list_remove(&w->link);
}
int cluster_call_start(struct cluster *c, struct cluster_call *call)
{
    list_push_back(&c->calls, &call->link);
    return 0;
}
void cluster_call_cancel(struct cluster_call *call)
{
    list_remove(&call->link);
}
void cluster_counters_get(const struct cluster *c, struct cluster_counters *out)
{
    (void)c;
    memset(out, 0, sizeof(*out));
}
