/*
 * test_mdc_state.c: the decisions alone, without a network or a clock: random runs in which every batch is
 * stored and loaded again, and tables of states times events.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "common/rng.h"
#include "services/mdc/ops.h"

#define KEYS_MAX 256
#define GB       (1ull << 30)

/* ---- a store that is a sorted array ---- */

struct shelf {
    struct meta_store store;
    struct meta_item items[KEYS_MAX];
    size_t count;
};

static int shelf_load(struct meta_store *s, int (*fn)(void *, const char *, const void *, size_t), void *arg)
{
    struct shelf *sh = container_of(s, struct shelf, store);
    for (size_t i = 0; i < sh->count; i++) {
        int rc = fn(arg, sh->items[i].key, sh->items[i].value, sh->items[i].len);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static const struct meta_ops shelf_ops = {.name = "shelf", .load = shelf_load};

static void shelf_apply(struct shelf *sh, const struct meta_item *item)
{
    size_t at = 0;
    while (at < sh->count && strcmp(sh->items[at].key, item->key) < 0)
        at++;
    bool there = at < sh->count && strcmp(sh->items[at].key, item->key) == 0;
    if (there) {
        free(sh->items[at].value);
        sh->count--;
        memmove(&sh->items[at], &sh->items[at + 1], (sh->count - at) * sizeof(*item));
    }
    if (item->value == NULL)
        return;
    assert_true(sh->count < KEYS_MAX);
    memmove(&sh->items[at + 1], &sh->items[at], (sh->count - at) * sizeof(*item));
    sh->items[at] = *item;
    sh->items[at].value = malloc(item->len);
    memcpy(sh->items[at].value, item->value, item->len);
    sh->count++;
}

/* ---- a state with its store ---- */

struct desk {
    struct mdc_state *s;
    struct mdc_tx tx;
    struct shelf shelf;
    struct mdc_error error;
    struct mdc_session *session[2];
    uint64_t now_ns;
    struct rng rng;
};

static const struct table_limits limits = {.pools = 3, .modules = 8, .partitions = 256, .volumes = 16};

static void store_batch(struct desk *k)
{
    struct meta_item *items;
    size_t count;
    assert_int_equal(mdc_tx_seal(k->s, &k->tx, &items, &count), 0);
    for (size_t i = 0; i < count; i++)
        shelf_apply(&k->shelf, &items[i]);
    mdc_items_free(items, count);
    mdc_tx_reset(&k->tx);
    k->s->version++;
    for (uint32_t i = 0; i < k->s->volume_top; i++) {
        struct mdc_volume *v = &k->s->volumes[i];
        if (v->fence_unpublished) {
            v->fence_unpublished = false;
            v->fence_version = k->s->version;
        }
    }
}

static struct desk *desk_new(uint64_t seed)
{
    struct desk *k = calloc(1, sizeof(*k));
    struct mdc_session_request rq = {.host = "h", .name = "n"};
    assert_non_null(k);
    k->shelf.store.ops = &shelf_ops;
    assert_int_equal(mdc_state_create(&limits, 32, &k->s), 0);
    assert_int_equal(mdc_tx_create(k->s, &k->tx), 0);
    rng_seed(&k->rng, seed);
    k->s->cluster = rng_uuid(&k->rng);
    k->s->heartbeat_ms = 100;
    k->s->counters.term = k->s->term = 1;
    k->now_ns = 1000 * NS_PER_S;
    mdc_tx_format(&k->tx);
    mdc_tx_counters(&k->tx);
    store_batch(k);
    for (int i = 0; i < 2; i++)
        k->session[i] = mdc_session_add(k->s, &rq, k->now_ns);
    return k;
}

static void desk_free(struct desk *k)
{
    mdc_state_destroy(k->s);
    mdc_tx_destroy(&k->tx);
    for (size_t i = 0; i < k->shelf.count; i++)
        free(k->shelf.items[i].value);
    free(k);
}

static struct mdc_decision decision(struct desk *k, int session)
{
    memset(&k->error, 0, sizeof(k->error));
    return (struct mdc_decision){.state = k->s,
                                 .tx = &k->tx,
                                 .now_ns = k->now_ns,
                                 .fresh = rng_uuid(&k->rng),
                                 .session = k->session[session],
                                 .error = &k->error};
}

/* A refusal says why and changed nothing that is stored or published. */
static void check_refusal(struct desk *k, uint32_t status)
{
    if (status == STATUS_OK)
        return;
    assert_int_not_equal(k->error.text[0], 0);
    assert_int_equal(k->tx.count, 0);
}

/* Runs one decision and stores it. */
#define DECIDE(k, session, handler, rq, rep)                                                                 \
    ({                                                                                                       \
        struct mdc_decision d_ = decision(k, session);                                                       \
        memset(rep, 0, sizeof(*(rep)));                                                                      \
        uint32_t status_ = mdc_op_##handler(&d_, rq, rep);                                                   \
        check_refusal(k, status_);                                                                           \
        store_batch(k);                                                                                      \
        status_;                                                                                             \
    })

static struct mdc_module_register_request module_of(unsigned n, uint64_t start)
{
    struct mdc_module_register_request rq = {.start_counter = start,
                                             .incarnation = n * 1000 + start,
                                             .kind = TABLE_MODULE_OSD,
                                             .media = TABLE_MEDIA_SSD,
                                             .capacity_bytes = n * 10 * GB};
    memset(rq.store.b, (int)n, sizeof(rq.store.b));
    snprintf(rq.host, sizeof(rq.host), "node%u", n);
    snprintf(rq.name, sizeof(rq.name), "osd%u", n);
    return rq;
}

static void beat(struct desk *k, uint32_t id, uint64_t removing)
{
    const struct mdc_module *m = mdc_module_by_id(k->s, id);
    struct mdc_module_heartbeat_reply rep;
    struct mdc_module_heartbeat_request rq = {.module = id, .removing_blocks = removing};
    if (m == NULL)
        return;
    rq.incarnation = m->rec.incarnation;
    rq.applied_term = k->s->term;
    rq.applied_version = k->s->version;
    rq.capacity_bytes = m->capacity_bytes;
    assert_int_equal(DECIDE(k, 0, module_heartbeat, &rq, &rep), STATUS_OK);
    struct mdc_decision d = decision(k, 0);
    mdc_op_advance(&d);
    store_batch(k);
}

/* ---- old copies of a medium ---- */

/* A medium at its start-th start, which has noted the acceptance of start noted (0 = of none). */
static uint32_t start_of(struct desk *k, uint64_t start, uint64_t noted, uint64_t noted_incarnation)
{
    struct mdc_module_register_request rq = module_of(1, start);
    struct mdc_module_register_reply rep;
    rq.accepted_start = noted;
    rq.accepted_incarnation = noted ? noted_incarnation : 0;
    return DECIDE(k, 0, module_register, &rq, &rep);
}

/* A start that serves: registered, noted, registered again. */
static void serve(struct desk *k, uint64_t start, uint64_t noted)
{
    assert_int_equal(start_of(k, start, noted, 1000 + noted), STATUS_OK);
    assert_int_equal(start_of(k, start, start, 1000 + start), STATUS_OK);
}

/* However often an old copy is started, its counter never makes it the medium that served last. */
static void test_old_copies(void **state)
{
    (void)state;
    struct desk *k = desk_new(1);
    serve(k, 1, 0);
    serve(k, 2, 1);
    serve(k, 3, 2);
    for (uint64_t start = 2; start < 12; start++) /* a copy made while start 1 served */
        assert_int_equal(start_of(k, start, 1, 1001), STATUS_OLD_MEDIA);
    assert_int_equal(start_of(k, 9, 0, 0), STATUS_OLD_MEDIA);  /* one from before all */
    assert_int_equal(start_of(k, 9, 3, 77), STATUS_OLD_MEDIA); /* one that went another way since */
    assert_int_equal(start_of(k, 5, 3, 1003), STATUS_OK);      /* the true one; start 4 never registered */
    assert_int_equal(start_of(k, 6, 3, 1003), STATUS_OK);      /* died before it could note start 5 */
    assert_int_equal(start_of(k, 7, 6, 1006), STATUS_OK); /* noted start 6, died before it could say so */
    assert_int_equal(start_of(k, 7, 7, 1007), STATUS_OK);
    assert_int_equal(start_of(k, 8, 3, 1003), STATUS_OLD_MEDIA); /* a copy from before start 7 */
    serve(k, 20, 12); /* this store was put back from an old copy itself: the medium knows of later starts */
    assert_int_equal(start_of(k, 21, 7, 1007), STATUS_OLD_MEDIA);
    desk_free(k);
}

/* ---- what is stored is what is known ---- */

static void check_volumes(struct mdc_state *a, struct mdc_state *b)
{
    assert_int_equal(a->volume_count, b->volume_count);
    assert_int_equal(a->attachment_count, b->attachment_count);
    assert_int_equal(a->volumes_pending, b->volumes_pending);
    for (uint32_t i = 0; i < a->volume_top; i++) {
        const struct mdc_volume *v = &a->volumes[i];
        if (uuid_is_zero(&v->rec.id))
            continue;
        struct mdc_volume *w = mdc_volume_by_id(b, &v->rec.id);
        assert_non_null(w);
        /* the seal (length, checksum) is only on the stored one */
        assert_memory_equal((const char *)&v->rec + 8, (const char *)&w->rec + 8, sizeof(v->rec) - 16);
        assert_true((mdc_volume_by_name(a, v->rec.name) == v) == (v->rec.state != TABLE_VOLUME_DELETING));
        list_for_each(n, &v->attachments)
        {
            const struct mdc_attachment *x = list_entry(n, struct mdc_attachment, link);
            const struct mdc_attachment *y = mdc_attachment_find(w, x->rec.host);
            assert_non_null(y);
            assert_memory_equal((const char *)&x->rec + 8, (const char *)&y->rec + 8, sizeof(x->rec) - 16);
        }
    }
}

static void check_stored(struct desk *k)
{
    struct mdc_state *b;
    char why[256];
    assert_int_equal(mdc_state_create(&limits, 32, &b), 0);
    int rc = mdc_state_load(b, &k->shelf.store, why);
    if (rc != 0)
        fail_msg("%d: %s", rc, why);
    const struct mdc_state *a = k->s;
    assert_true(uuid_eq(&a->cluster, &b->cluster));
    assert_memory_equal((const char *)&a->counters + 8, (const char *)&b->counters + 8,
                        sizeof(a->counters) - 16);
    assert_memory_equal(a->partition_pool, b->partition_pool, limits.partitions * sizeof(uint32_t));
    assert_memory_equal(a->partitions, b->partitions, limits.partitions * sizeof(struct record_partition));
    for (uint32_t i = 0; i < limits.modules; i++) {
        assert_memory_equal((const char *)&a->modules[i].rec + 8, (const char *)&b->modules[i].rec + 8,
                            sizeof(struct record_module) - 16);
        assert_int_equal(a->modules[i].partitions, b->modules[i].partitions);
    }
    for (uint32_t i = 0; i < limits.pools; i++)
        assert_memory_equal((const char *)&a->pools[i].rec + 8, (const char *)&b->pools[i].rec + 8,
                            sizeof(struct record_pool) - 16);
    check_volumes(k->s, b);
    mdc_state_destroy(b);
}

/* ---- a random run ---- */

struct run {
    struct desk *k;
    uint64_t last_turn, last_layer;
    uint64_t starts[9];
    unsigned done, refused;
};

static void name_of(struct run *r, char *out, const char *prefix, unsigned n)
{
    snprintf(out, MDC_NAME_MAX, "%s%u", prefix, (unsigned)rng_below(&r->k->rng, n));
}

static uint32_t random_module(struct run *r)
{
    unsigned n = 1 + (unsigned)rng_below(&r->k->rng, 8);
    struct mdc_module_register_reply rep;
    r->starts[n] += rng_below(&r->k->rng, 2);
    struct mdc_module_register_request rq = module_of(n, r->starts[n]);
    const struct mdc_module *m = mdc_module_by_store(r->k->s, &rq.store);
    bool renewed = m == NULL || m->rec.incarnation != rq.incarnation;
    uint64_t epochs[256];
    for (uint32_t i = 0; i < limits.partitions; i++)
        epochs[i] = r->k->s->partitions[i].epoch;
    uint32_t status = DECIDE(r->k, 0, module_register, &rq, &rep);
    for (uint32_t i = 0; i < limits.partitions && status == STATUS_OK; i++) {
        const struct record_partition *p = &r->k->s->partitions[i];
        bool mine = p->epoch != 0 && mdc_partition_primary(p) == rep.module;
        assert_true(mine && renewed ? p->epoch > epochs[i] : p->epoch == epochs[i]);
    }
    return status;
}

static uint32_t random_pool(struct run *r)
{
    struct mdc_pool_create_request rq = {.partitions = 1u << rng_below(&r->k->rng, 8)};
    struct mdc_name_request del = {{0}};
    struct mdc_pool_reply rep;
    struct mdc_empty empty;
    name_of(r, rq.name, "p", 3);
    name_of(r, del.name, "p", 3);
    if (rng_chance(&r->k->rng, 1, 2))
        return DECIDE(r->k, 0, pool_delete, &del, &empty);
    rq.module_count = (uint32_t)rng_below(&r->k->rng, 3);
    for (uint32_t i = 0; i < rq.module_count; i++)
        rq.modules[i] = 1 + (uint32_t)rng_below(&r->k->rng, 8);
    uint32_t status = DECIDE(r->k, 0, pool_create, &rq, &rep);
    if (status == STATUS_OK)
        assert_int_equal(rep.pool.partitions_served, rq.partitions);
    return status;
}

/* Adds, drains, reweighs, removes; what is refused changes nothing, pools with volumes keep their members. */
static uint32_t random_place(struct run *r)
{
    struct desk *k = r->k;
    uint32_t id = (uint32_t)rng_below(&k->rng, 9);
    struct mdc_module_add_request add = {.module = id};
    struct mdc_module_drain_request drain = {.module = id, .undo = rng_chance(&k->rng, 2, 3)};
    struct mdc_module_reweight_request weigh = {.module = id, .weight_bytes = rng_below(&k->rng, 40) * GB};
    struct mdc_module_request rm = {.module = id};
    struct mdc_module_reply rep;
    struct mdc_partition_show_request show = {.index = (uint32_t)rng_below(&k->rng, 128)};
    struct mdc_partition_show_reply shown;
    struct record_partition before[256];
    memcpy(before, k->s->partitions, sizeof(before));
    name_of(r, add.pool, "p", 3);
    name_of(r, show.pool, "p", 3);
    uint32_t status = 0;
    switch (rng_below(&k->rng, 5)) {
    case 0:
        status = DECIDE(k, 0, module_add, &add, &rep);
        break;
    case 1:
        status = DECIDE(k, 0, module_drain, &drain, &rep);
        break;
    case 2:
        status = DECIDE(k, 0, module_reweight, &weigh, &rep);
        break;
    case 3:
        status = DECIDE(k, 0, module_remove, &rm, &rep);
        break;
    default:
        status = DECIDE(k, 0, partition_show, &show, &shown);
        assert_true(status != STATUS_OK || (shown.member_count == 1 && shown.members[0].why[0] != 0));
    }
    for (uint32_t i = 0; i < limits.partitions; i++) {
        const struct record_partition *p = &k->s->partitions[i];
        const bool same = memcmp(p->members, before[i].members, sizeof(p->members)) == 0;
        assert_true(same ? p->epoch == before[i].epoch : p->epoch > before[i].epoch);
        for (uint32_t v = 0; v < k->s->volume_top && !same; v++)
            assert_true(uuid_is_zero(&k->s->volumes[v].rec.id) ||
                        k->s->volumes[v].rec.pool != k->s->partition_pool[i]);
    }
    return status;
}

static uint32_t random_volume(struct run *r)
{
    struct desk *k = r->k;
    struct mdc_volume_reply rep;
    struct mdc_empty empty;
    struct mdc_volume_create_request cr = {.size_bytes = (1 + rng_below(&k->rng, 4)) * MIB};
    struct mdc_volume_resize_request rs = {.size_bytes = (1 + rng_below(&k->rng, 4)) * MIB,
                                           .allow_shrink = rng_chance(&k->rng, 1, 2)};
    struct mdc_volume_delete_request del = {.force = rng_chance(&k->rng, 1, 2)};
    name_of(r, cr.name, "v", 5);
    name_of(r, cr.pool, "p", 3);
    name_of(r, rs.name, "v", 5);
    name_of(r, del.name, "v", 5);
    switch (rng_below(&k->rng, 3)) {
    case 0: {
        uint32_t status = DECIDE(k, 0, volume_create, &cr, &rep);
        if (status == STATUS_OK) {
            assert_true(rep.volume.layer > r->last_layer);
            r->last_layer = rep.volume.layer;
        }
        return status;
    }
    case 1: {
        const struct mdc_volume *v = mdc_volume_by_name(k->s, rs.name);
        uint64_t generation = v != NULL ? v->rec.generation : 0, size = v != NULL ? v->rec.size_bytes : 0;
        uint32_t status = DECIDE(k, 0, volume_resize, &rs, &rep);
        if (status == STATUS_OK)
            assert_int_equal(rep.volume.generation > generation, rs.size_bytes < size);
        return status;
    }
    default:
        return DECIDE(k, 0, volume_delete, &del, &empty);
    }
}

static uint32_t random_open(struct run *r)
{
    struct desk *k = r->k;
    struct mdc_volume_open_request rq = {.instance = 1 + rng_below(&k->rng, 3),
                                         .read_only = rng_chance(&k->rng, 1, 4),
                                         .shared = rng_chance(&k->rng, 1, 4),
                                         .take_over = rng_chance(&k->rng, 1, 4),
                                         .again = rng_chance(&k->rng, 1, 4)};
    struct mdc_volume_open_reply rep;
    name_of(r, rq.volume, "v", 5);
    name_of(r, rq.host, "h", 3);
    uint32_t status = DECIDE(k, (int)rng_below(&k->rng, 2), volume_open, &rq, &rep);
    if (status != STATUS_OK)
        return status;
    assert_true((rep.turn == 0) == (rq.read_only || rq.again));
    if (rep.turn != 0) {
        assert_true(rep.turn > r->last_turn && rep.turn < k->s->counters.turn_limit);
        r->last_turn = rep.turn;
    }
    struct mdc_turn_draw_request dr = {.id = rep.volume.id, .instance = rq.instance};
    struct mdc_turn_draw_reply turn;
    memcpy(dr.host, rq.host, sizeof(dr.host));
    uint32_t drawn = DECIDE(k, 0, turn_draw, &dr, &turn);
    if (!rq.read_only) {
        assert_int_equal(drawn, STATUS_OK);
        assert_true(turn.turn > r->last_turn);
        r->last_turn = turn.turn;
    } else if (drawn == STATUS_OK) {
        r->last_turn = turn.turn;
    }
    return STATUS_OK;
}

static uint32_t random_attachment(struct run *r)
{
    struct desk *k = r->k;
    struct mdc_attach_request rq = {.read_only = rng_chance(&k->rng, 1, 3),
                                    .shared = rng_chance(&k->rng, 1, 3)};
    struct mdc_volume_close_request cl = {.instance = 1 + rng_below(&k->rng, 3)};
    struct mdc_empty empty;
    name_of(r, rq.volume, "v", 5);
    name_of(r, rq.host, "h", 3);
    name_of(r, cl.host, "h", 3);
    const struct mdc_volume *v = mdc_volume_by_name(k->s, rq.volume);
    switch (rng_below(&k->rng, 3)) {
    case 0:
        return DECIDE(k, 0, attach, &rq, &empty);
    case 1:
        if (v != NULL)
            cl.id = v->rec.id;
        return DECIDE(k, 0, volume_close, &cl, &empty);
    default: {
        struct mdc_decision d = decision(k, 0);
        uint32_t status = mdc_op_detach(&d, &rq, &empty);
        check_refusal(k, status);
        assert_true((status == STATUS_OK) == (d.await != NULL));
        store_batch(k);
        return status;
    }
    }
}

static void random_session_end(struct run *r)
{
    struct mdc_session_request rq = {.host = "h", .name = "n"};
    int i = (int)rng_below(&r->k->rng, 2);
    mdc_session_remove(r->k->s, r->k->session[i]);
    r->k->session[i] = mdc_session_add(r->k->s, &rq, r->k->now_ns);
}

static void test_random_runs(void **state)
{
    (void)state;
    unsigned done = 0, refused = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct run r = {.k = desk_new(seed)};
        for (unsigned i = 1; i <= 8; i++)
            r.starts[i] = 1;
        for (unsigned step = 0; step < 250; step++) {
            uint32_t status = STATUS_OK;
            r.k->now_ns += rng_below(&r.k->rng, 100) * NS_PER_MS;
            switch (rng_below(&r.k->rng, 18)) {
            case 0:
            case 1:
                status = random_module(&r);
                break;
            case 2:
                status = random_pool(&r);
                break;
            case 3:
            case 4:
            case 5:
            case 6:
                status = random_volume(&r);
                break;
            case 7:
            case 8:
            case 9:
                status = random_open(&r);
                break;
            case 10:
            case 11:
                status = random_attachment(&r);
                break;
            case 12:
                random_session_end(&r);
                break;
            case 16:
            case 17:
                status = random_place(&r);
                break;
            default:
                beat(r.k, 1 + (uint32_t)rng_below(&r.k->rng, 8), rng_below(&r.k->rng, 3) / 2);
            }
            done += status == STATUS_OK;
            refused += status != STATUS_OK;
            check_stored(r.k);
        }
        desk_free(r.k);
    }
    assert_true(done > 3000 && refused > 500); /* both were tried */
}

/* ---- opens: who holds it, times who asks ---- */

enum holder { NOBODY, SELF_READING, SELF_WRITING, OTHER_READING, OTHER_WRITING, HOLDERS };

static struct desk *desk_with_volume(void)
{
    struct desk *k = desk_new(1);
    struct mdc_module_register_request m = module_of(1, 1);
    struct mdc_module_register_reply mr;
    struct mdc_pool_create_request p = {.name = "p", .partitions = 64};
    struct mdc_pool_reply pr;
    struct mdc_volume_create_request v = {.name = "v", .size_bytes = GB};
    struct mdc_volume_reply vr;
    assert_int_equal(DECIDE(k, 0, module_register, &m, &mr), STATUS_OK);
    assert_int_equal(DECIDE(k, 0, pool_create, &p, &pr), STATUS_OK);
    assert_int_equal(DECIDE(k, 0, volume_create, &v, &vr), STATUS_OK);
    return k;
}

static uint32_t open_as(struct desk *k, const char *host, uint64_t instance, unsigned flags)
{
    struct mdc_volume_open_request rq = {.volume = "v",
                                         .instance = instance,
                                         .read_only = (flags & 1) != 0,
                                         .shared = (flags & 2) != 0,
                                         .take_over = (flags & 4) != 0};
    struct mdc_volume_open_reply rep;
    snprintf(rq.host, sizeof(rq.host), "%s", host);
    return DECIDE(k, 0, volume_open, &rq, &rep);
}

static void test_open_matrix(void **state)
{
    (void)state;
    for (unsigned holder = 0; holder < HOLDERS; holder++) {
        for (unsigned flags = 0; flags < 8; flags++) {
            for (unsigned alive = 0; alive < 2; alive++) {
                struct desk *k = desk_with_volume();
                bool other = holder == OTHER_READING || holder == OTHER_WRITING;
                bool reads = holder == SELF_READING || holder == OTHER_READING;
                if (holder != NOBODY)
                    assert_int_equal(open_as(k, other ? "h2" : "h1", 7, reads), STATUS_OK);
                struct mdc_session_request rq = {.host = "h", .name = "n"};
                if (!alive) {
                    mdc_session_remove(k->s, k->session[0]);
                    k->session[0] = mdc_session_add(k->s, &rq, k->now_ns);
                }
                bool read_only = flags & 1, shared = flags & 2, take_over = flags & 4;
                bool instance_busy = (holder == SELF_READING || holder == SELF_WRITING) && alive &&
                                     !take_over && !shared && !(holder == SELF_READING && read_only);
                bool host_busy = holder == OTHER_WRITING && !shared && !read_only;
                assert_int_equal(open_as(k, "h1", 8, flags),
                                 instance_busy || host_busy ? STATUS_BUSY : STATUS_OK);
                desk_free(k);
            }
        }
    }
}

/* Instances are the caller's to choose: there is an end to them. */
static void test_opens_are_limited(void **state)
{
    (void)state;
    struct desk *k = desk_with_volume();
    for (uint64_t i = 1; i <= OPENS_MAX; i++)
        assert_int_equal(open_as(k, "h1", i, 2), STATUS_OK);
    assert_int_equal(open_as(k, "h1", OPENS_MAX + 1, 2), STATUS_NO_SPACE);
    assert_int_equal(open_as(k, "h1", 7, 2), STATUS_OK); /* again */
    desk_free(k);
}

/* ---- a later start of a store whose earlier start may live ---- */

static void test_later_start_waits_for_silence(void **state)
{
    (void)state;
    struct desk *k = desk_with_volume();
    struct mdc_module_register_request rq = module_of(1, 2);
    struct mdc_module_register_reply rep;
    assert_int_equal(DECIDE(k, 1, module_register, &rq, &rep), STATUS_BUSY);
    k->now_ns += 500 * NS_PER_MS;
    assert_int_equal(DECIDE(k, 1, module_register, &rq, &rep), STATUS_BUSY);
    k->now_ns += 1;
    assert_int_equal(DECIDE(k, 1, module_register, &rq, &rep), STATUS_OK);
    rq = module_of(1, 3);
    assert_int_equal(DECIDE(k, 0, module_register, &rq, &rep), STATUS_BUSY);
    mdc_session_remove(k->s, k->session[1]);
    assert_int_equal(DECIDE(k, 0, module_register, &rq, &rep), STATUS_OK);
    rq = module_of(1, 4);
    assert_int_equal(DECIDE(k, 0, module_register, &rq, &rep), STATUS_OK); /* on the same connection */
    desk_free(k);
}

/* ---- failure detection ---- */

static void test_watch(void **state)
{
    (void)state;
    struct desk *k = desk_with_volume();
    struct mdc_module *m = mdc_module_by_id(k->s, 1);
    uint64_t period = 100 * NS_PER_MS;
    assert_false(mdc_op_watch(k->s, k->now_ns + 5 * period, false));
    assert_true(mdc_op_watch(k->s, k->now_ns + 5 * period + 1, false));
    assert_true(m->down && m->publish);
    assert_false(mdc_op_watch(k->s, k->now_ns + 6 * period, false)); /* once */
    k->now_ns += 10 * period;
    beat(k, 1, 0);
    assert_false(m->down);
    /* this process was paused: nobody is dead before a full round */
    assert_false(mdc_op_watch(k->s, k->now_ns + 100 * period, true));
    assert_false(mdc_op_watch(k->s, k->now_ns + 105 * period, false));
    assert_true(mdc_op_watch(k->s, k->now_ns + 106 * period, false));
    desk_free(k);
}

/* ---- what a shrink and a delete wait for ---- */

static void test_removal_needs_confirmation_and_emptiness(void **state)
{
    (void)state;
    struct desk *k = desk_with_volume();
    struct mdc_volume_delete_request del = {.name = "v"};
    struct mdc_empty empty;
    struct uuid id = mdc_volume_by_name(k->s, "v")->rec.id;
    assert_int_equal(DECIDE(k, 0, volume_delete, &del, &empty), STATUS_OK);
    /* a heartbeat of an older version, then of another term, then with blocks left */
    struct mdc_module *m = mdc_module_by_id(k->s, 1);
    struct mdc_module_heartbeat_request rq = {
        .module = 1, .incarnation = m->rec.incarnation, .applied_term = k->s->term};
    struct mdc_module_heartbeat_reply rep;
    rq.applied_version = mdc_volume_by_id(k->s, &id)->fence_version - 1;
    rq.capacity_bytes = m->capacity_bytes;
    struct mdc_decision d;
#define BEAT()                                                                                               \
    do {                                                                                                     \
        assert_int_equal(DECIDE(k, 0, module_heartbeat, &rq, &rep), STATUS_OK);                              \
        d = decision(k, 0);                                                                                  \
        mdc_op_advance(&d);                                                                                  \
        store_batch(k);                                                                                      \
    } while (0)
    BEAT();
    assert_non_null(mdc_volume_by_id(k->s, &id));
    rq.applied_version = k->s->version;
    rq.applied_term = k->s->term - 1;
    BEAT();
    assert_non_null(mdc_volume_by_id(k->s, &id));
    rq.applied_term = k->s->term;
    rq.removing_blocks = 1;
    BEAT();
    assert_non_null(mdc_volume_by_id(k->s, &id));
    rq.removing_blocks = 0;
    BEAT();
    assert_null(mdc_volume_by_id(k->s, &id));
    assert_int_equal(k->s->volumes_pending, 0);
    check_stored(k);
    desk_free(k);
#undef BEAT
}

/* ---- damage of the store: every byte of every record is guarded ---- */

static void test_every_flipped_byte_is_refused(void **state)
{
    (void)state;
    struct desk *k = desk_with_volume();
    char why[256];
    assert_int_equal(open_as(k, "h1", 7, 0), STATUS_OK);
    for (size_t i = 0; i < k->shelf.count; i++) {
        struct meta_item *item = &k->shelf.items[i];
        size_t step = item->len > 1000 ? 37 : 1;
        for (size_t at = 0; at < item->len; at += step) {
            struct mdc_state *b;
            ((uint8_t *)item->value)[at] ^= 0x40;
            assert_int_equal(mdc_state_create(&limits, 32, &b), 0);
            int rc = mdc_state_load(b, &k->shelf.store, why);
            assert_true(rc == -EBADMSG || rc == -EMEDIUMTYPE);
            assert_int_not_equal(why[0], 0);
            mdc_state_destroy(b);
            ((uint8_t *)item->value)[at] ^= 0x40;
        }
    }
    check_stored(k);
    desk_free(k);
}

/* A record that is gone is missed, but for what may be absent (attachments, volumes, modules of no pool). */
static void test_missing_records(void **state)
{
    (void)state;
    static const char *const needed[] = {"0/format", "1/counters", "2/pool/00000001", "3/module/00000001",
                                         "4/partitions/00000001/00000000"};
    for (unsigned i = 0; i < ARRAY_LEN(needed); i++) {
        struct desk *k = desk_with_volume();
        struct meta_item del = {.value = NULL};
        struct mdc_state *b;
        char why[256];
        snprintf(del.key, sizeof(del.key), "%s", needed[i]);
        shelf_apply(&k->shelf, &del);
        assert_int_equal(mdc_state_create(&limits, 32, &b), 0);
        int rc = mdc_state_load(b, &k->shelf.store, why);
        assert_true(rc == -EBADMSG || rc == -EMEDIUMTYPE);
        mdc_state_destroy(b);
        desk_free(k);
    }
}

static void test_limits_below_the_store(void **state)
{
    (void)state;
    struct desk *k = desk_with_volume();
    struct table_limits small = {.pools = 1, .modules = 1, .partitions = 32, .volumes = 1};
    struct mdc_state *b;
    char why[256];
    assert_int_equal(mdc_state_create(&small, 1, &b), 0);
    assert_int_equal(mdc_state_load(b, &k->shelf.store, why), -ENOSPC);
    mdc_state_destroy(b);
    desk_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_runs),
        cmocka_unit_test(test_open_matrix),
        cmocka_unit_test(test_later_start_waits_for_silence),
        cmocka_unit_test(test_opens_are_limited),
        cmocka_unit_test(test_watch),
        cmocka_unit_test(test_old_copies),
        cmocka_unit_test(test_removal_needs_confirmation_and_emptiness),
        cmocka_unit_test(test_every_flipped_byte_is_refused),
        cmocka_unit_test(test_missing_records),
        cmocka_unit_test(test_limits_below_the_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
