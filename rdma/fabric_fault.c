/* fabric_fault.c: see the header. The layer is a copy of the provider's table with some functions of its own.
 */
#include "rdma/fabric_fault.h"
#include "rdma/fabric_provider.h"

#include "common/rng.h"

#include <stdlib.h>
#include <string.h>

#define RULES_MAX 16

struct fault_rule {
    struct fabric_fault_rule rule;
    uint64_t matched, hits;
};
/* An op that starts later, or never (its connection is doomed); or a connection that will end. */
struct fault_event {
    struct list link; /* in fault->events, by time */
    uint64_t at_ns;
    struct fabric_op *op;
    uint64_t conn_serial; /* to end; 0 = none */
    bool lost;
};
struct fault {
    struct fabric_ops ops;          /* what the core sees */
    const struct fabric_ops *below; /* the layer below */
    struct fabric *fabric;
    struct rng rng;
    struct fault_rule rules[RULES_MAX];
    unsigned rule_count;
    uint64_t fail_in, count;
    bool fired;
    struct list events;
    struct loop_timer timer;
};

static struct fault *fault_of(const struct fabric *f)
{
    MUST(f->layer != NULL);
    return f->layer;
}

/* ---- rules ---- */

static bool rule_hits(struct fault *x, struct fault_rule *r, unsigned call, unsigned kind)
{
    const struct fabric_fault_rule *u = &r->rule;
    if (!(u->calls & call) || (call == FABRIC_FAULT_POST && u->kinds && !(u->kinds & 1u << kind)))
        return false;
    if (r->matched++ < u->skip || (u->times && r->hits >= u->times))
        return false;
    if (u->den && !rng_chance(&x->rng, u->num, u->den))
        return false;
    r->hits++;
    return true;
}

/* The rule for this call, or NULL; *rc is set when fail_at hits. */
static const struct fabric_fault_rule *decide(struct fault *x, unsigned call, unsigned kind, int *rc)
{
    if (x->fail_in && --x->fail_in == 0) {
        x->fired = true;
        x->count++;
        *rc = -ENOMEM;
        return NULL;
    }
    for (unsigned i = 0; i < x->rule_count; i++) {
        if (!rule_hits(x, &x->rules[i], call, kind))
            continue;
        x->count++;
        if (x->rules[i].rule.action == FABRIC_FAULT_FAIL)
            *rc = x->rules[i].rule.rc;
        return &x->rules[i].rule;
    }
    return NULL;
}

static uint64_t delay_of(struct fault *x, const struct fabric_fault_rule *r)
{
    uint64_t span = r->delay_max_ns > r->delay_min_ns ? r->delay_max_ns - r->delay_min_ns : 0;
    return r->delay_min_ns + (span ? rng_below(&x->rng, span + 1) : 0);
}

/* ---- what happens later ---- */

static void timer_set(struct fault *x)
{
    struct loop *loop = x->fabric->env->loop;
    if (list_empty(&x->events)) {
        loop_timer_cancel(loop, &x->timer);
        return;
    }
    uint64_t at = list_entry(x->events.next, struct fault_event, link)->at_ns;
    uint64_t now = loop_now_ns(loop);
    loop_timer_arm(loop, &x->timer, at > now ? at - now : 0);
}

static int event_add(struct fault *x, uint64_t at_ns, struct fabric_op *op, uint64_t conn_serial, bool lost)
{
    struct fault_event *e = calloc(1, sizeof(*e));
    if (!e)
        return -ENOMEM;
    e->at_ns = at_ns;
    e->op = op;
    e->conn_serial = conn_serial;
    e->lost = lost;
    struct list *pos = x->events.next;
    while (pos != &x->events && list_entry(pos, struct fault_event, link)->at_ns <= at_ns)
        pos = pos->next;
    list_insert_before(pos, &e->link);
    if (op)
        op->state |= OP_HELD;
    timer_set(x);
    return 0;
}

static void conn_end(struct fault *x, uint64_t serial)
{
    list_for_each_safe(n, &x->fabric->conns)
    {
        struct fabric_conn *conn = list_entry(n, struct fabric_conn, link);
        if (conn->serial == serial)
            fabric_core_fail(conn, FABRIC_DOWN_PEER_DIED);
    }
}

static void op_start(struct fault *x, struct fabric_op *op)
{
    struct fabric_conn *conn = op->conn;
    op->state &= ~(uint32_t)OP_HELD;
    if (x->below->post(conn, op) == 0)
        return;
    fabric_core_op_done(op, -ENOTCONN);
    fabric_core_fail(conn, FABRIC_DOWN_PEER_DIED);
}

static void timer_fired(struct loop_timer *t)
{
    struct fault *x = container_of(t, struct fault, timer);
    uint64_t now = loop_now_ns(x->fabric->env->loop);
    while (!list_empty(&x->events)) {
        struct fault_event *e = list_entry(x->events.next, struct fault_event, link);
        if (e->at_ns > now)
            break;
        struct fabric_op *op = e->op;
        uint64_t serial = e->conn_serial;
        list_remove(&e->link);
        free(e);
        if (op)
            op_start(x, op);
        if (serial)
            conn_end(x, serial);
    }
    timer_set(x);
}

/* When the last op of conn that is held starts; 0 = none is held. */
static uint64_t held_until(const struct fault *x, const struct fabric_conn *conn)
{
    uint64_t until = 0;
    list_for_each(n, &x->events)
    {
        const struct fault_event *e = list_entry(n, struct fault_event, link);
        if (e->op && e->op->conn == conn)
            until = e->at_ns;
    }
    return until;
}

/* ---- the methods ---- */

static int fault_post(struct fabric_conn *conn, struct fabric_op *op)
{
    struct fault *x = fault_of(conn->fabric);
    uint64_t now = loop_now_ns(conn->fabric->env->loop), behind = held_until(x, conn);
    bool ordered = op->kind == FABRIC_OP_SEND || op->kind == FABRIC_OP_PUSH || op->kind == FABRIC_OP_WRITE;
    int rc = 0;
    const struct fabric_fault_rule *r = decide(x, FABRIC_FAULT_POST, op->kind, &rc);
    if (rc)
        return rc;
    uint64_t delay = r ? delay_of(x, r) : 0;
    if (r && r->action == FABRIC_FAULT_DISCONNECT) {
        rc = event_add(x, now + delay, NULL, conn->serial, false);
        if (rc)
            return rc;
        if (rng_chance(&x->rng, 1, 2)) /* lost: waits until the connection is down */
            return event_add(x, UINT64_MAX, op, 0, true);
        delay = 0;
    }
    if (delay || (ordered && behind))
        return event_add(x, ordered ? max_u64(now + delay, behind) : now + delay, op, 0, false);
    return x->below->post(conn, op);
}

static int fault_connect(struct fabric_conn *conn, const struct fabric_addr *addr)
{
    struct fault *x = fault_of(conn->fabric);
    int rc = 0;
    const struct fabric_fault_rule *r = decide(x, FABRIC_FAULT_CONNECT, 0, &rc);
    if (!rc)
        rc = x->below->connect(conn, addr);
    if (rc || !r || r->action != FABRIC_FAULT_DISCONNECT)
        return rc;
    /* Out of memory: then it just does not go down. */
    (void)event_add(x, loop_now_ns(conn->fabric->env->loop) + delay_of(x, r), NULL, conn->serial, false);
    return 0;
}

static int fault_listen(struct fabric_listener *l, const struct fabric_addr *addr)
{
    struct fault *x = fault_of(l->fabric);
    int rc = 0;
    decide(x, FABRIC_FAULT_LISTEN, 0, &rc);
    return rc ? rc : x->below->listen(l, addr);
}

static int fault_mem_register(struct fabric_mem *mem)
{
    struct fault *x = fault_of(mem->fabric);
    int rc = 0;
    decide(x, FABRIC_FAULT_MEM_REGISTER, 0, &rc);
    if (rc || !x->below->mem_register)
        return rc;
    return x->below->mem_register(mem);
}

static void fault_shut(struct fabric_conn *conn, bool polite)
{
    struct fault *x = fault_of(conn->fabric);
    list_for_each_safe(n, &x->events)
    {
        struct fault_event *e = list_entry(n, struct fault_event, link);
        if (!e->op || e->op->conn != conn)
            continue;
        list_push_back(&conn->active, &e->op->link);
        list_remove(&e->link);
        free(e);
    }
    timer_set(x);
    x->below->shut(conn, polite);
}

static void fault_destroy(struct fabric *f)
{
    struct fault *x = fault_of(f);
    loop_timer_cancel(f->env->loop, &x->timer);
    for (struct list *n; (n = list_pop_front(&x->events));)
        free(list_entry(n, struct fault_event, link));
    f->layer = NULL;
    f->ops = x->below;
    free(x);
    f->ops->destroy(f);
}

int fabric_fault_attach(struct fabric *f, uint64_t seed)
{
    MUST(f->layer == NULL);
    struct fault *x = calloc(1, sizeof(*x));
    if (!x)
        return -ENOMEM;
    x->below = f->ops;
    x->ops = *f->ops;
    x->ops.post = fault_post;
    x->ops.connect = fault_connect;
    x->ops.listen = fault_listen;
    x->ops.mem_register = fault_mem_register;
    x->ops.shut = fault_shut;
    x->ops.destroy = fault_destroy;
    x->fabric = f;
    rng_seed(&x->rng, seed);
    list_init(&x->events);
    loop_timer_init(&x->timer, timer_fired);
    f->layer = x;
    f->ops = &x->ops;
    return 0;
}

/* ---- control ---- */

int fabric_fault_add(struct fabric *f, const struct fabric_fault_rule *rule)
{
    struct fault *x = fault_of(f);
    if (x->rule_count == RULES_MAX)
        return -ENOSPC;
    x->rules[x->rule_count++] = (struct fault_rule){.rule = *rule};
    return 0;
}

void fabric_fault_clear(struct fabric *f)
{
    struct fault *x = fault_of(f);
    x->rule_count = 0;
    x->fail_in = 0;
}

void fabric_fault_fail_at(struct fabric *f, uint64_t n)
{
    struct fault *x = fault_of(f);
    x->fail_in = n;
    x->fired = false;
}

bool fabric_fault_fired(const struct fabric *f)
{
    return fault_of(f)->fired;
}

uint64_t fabric_fault_count(const struct fabric *f)
{
    return fault_of(f)->count;
}

uint64_t fabric_fault_live(const struct fabric *f)
{
    uint64_t listeners = 0;
    list_for_each(n, &f->listeners) listeners++;
    return f->counters.conns_open + f->counters.mems + f->counters.ops_pending + listeners;
}
