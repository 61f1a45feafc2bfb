/*
 * placement_optimum.h: the least number of copies that must move, for small cases, by a general minimum-cost
 * flow (successive shortest paths, Bellman-Ford) over a graph written down edge by edge.
 */
#ifndef CISTERN_TESTS_UNIT_PLACEMENT_OPTIMUM_H
#define CISTERN_TESTS_UNIT_PLACEMENT_OPTIMUM_H

#include "placement_cases.h"

#define OPT_PARTITIONS 32
#define OPT_MODULES    24
#define OPT_NODES      (2 + OPT_PARTITIONS * (1 + 2 * OPT_MODULES) + OPT_MODULES)
#define OPT_EDGES      (2 * (OPT_PARTITIONS * (1 + 3 * OPT_MODULES) + 2 * OPT_MODULES))

struct opt_edge {
    int to, room, cost, next;
};
struct opt_graph {
    struct opt_edge e[OPT_EDGES];
    int first[OPT_NODES], nodes, edges;
};

static inline int opt_node(struct opt_graph *g)
{
    assert_true(g->nodes < OPT_NODES);
    g->first[g->nodes] = -1;
    return g->nodes++;
}

static inline void opt_edge(struct opt_graph *g, int from, int to, int room, int cost)
{
    assert_true(g->edges + 2 <= OPT_EDGES);
    g->e[g->edges] = (struct opt_edge){to, room, cost, g->first[from]};
    g->first[from] = g->edges++;
    g->e[g->edges] = (struct opt_edge){from, 0, -cost, g->first[to]};
    g->first[to] = g->edges++;
}

/* One unit along a cheapest path; false when there is none. */
static inline bool opt_augment(struct opt_graph *g, int source, int sink, int *cost)
{
    static int dist[OPT_NODES], by[OPT_NODES];
    for (int i = 0; i < g->nodes; i++)
        dist[i] = 1 << 28;
    dist[source] = 0;
    for (bool again = true; again;) {
        again = false;
        for (int u = 0; u < g->nodes; u++) {
            for (int i = g->first[u]; i >= 0 && dist[u] < 1 << 28; i = g->e[i].next) {
                if (g->e[i].room > 0 && dist[u] + g->e[i].cost < dist[g->e[i].to]) {
                    dist[g->e[i].to] = dist[u] + g->e[i].cost;
                    by[g->e[i].to] = i;
                    again = true;
                }
            }
        }
    }
    if (dist[sink] == 1 << 28)
        return false;
    for (int v = sink; v != source; v = g->e[by[v] ^ 1].to) {
        g->e[by[v]].room--;
        g->e[by[v] ^ 1].room++;
    }
    *cost += dist[sink];
    return true;
}

static inline int opt_first(const struct topology *t, uint32_t i, bool by_rack)
{
    uint32_t k = 0;
    while (!can_take(&t->m[k]) || (by_rack ? t->m[k].rack != t->m[i].rack : t->m[k].host != t->m[i].host))
        k++;
    return (int)k;
}

static inline void opt_partition(struct opt_graph *g, const struct topology *t, const struct limits *l,
                                 const struct placement_set *old, int from, const int *module)
{
    int rack[OPT_MODULES], host[OPT_MODULES];
    for (uint32_t i = 0; i < t->count; i++) {
        if (!can_take(&t->m[i]))
            continue;
        const int r = opt_first(t, i, true), h = opt_first(t, i, false);
        if (r == (int)i) {
            rack[r] = opt_node(g);
            opt_edge(g, from, rack[r], (int)l->per_rack, 0);
        }
        if (h == (int)i) {
            host[h] = opt_node(g);
            opt_edge(g, rack[r], host[h], (int)l->per_host, 0);
        }
        opt_edge(g, host[h], module[i], 1, placement_set_has(old, t->m[i].id) ? 0 : 1);
    }
}

/* Least moves to any assignment that keeps to the rule and gives each module its share rounded up or down. */
static inline uint32_t least_by_flow(const struct topology *t, const struct placement_set *old)
{
    static struct opt_graph g;
    const int must = -1000; /* what a module has to have at least is worth more than any move */
    double share[CASE_MODULES];
    int module[OPT_MODULES], cost = 0;
    uint32_t units = 0, floors = 0;
    const struct limits l = limits_of(t);
    assert_true(t->count <= OPT_MODULES && t->partitions <= OPT_PARTITIONS);
    g.nodes = g.edges = 0;
    oracle_shares(t, share);
    const int source = opt_node(&g), sink = opt_node(&g);
    for (uint32_t i = 0; i < t->count; i++) {
        module[i] = opt_node(&g);
        opt_edge(&g, module[i], sink, (int)floor_of(share[i]), must);
        opt_edge(&g, module[i], sink, (int)(ceil_of(share[i]) - floor_of(share[i])), 0);
        floors += floor_of(share[i]);
    }
    for (uint32_t p = 0; p < t->partitions; p++) {
        const int node = opt_node(&g);
        opt_edge(&g, source, node, (int)l.copies, 0);
        opt_partition(&g, t, &l, &old[p], node, module);
    }
    while (opt_augment(&g, source, sink, &cost))
        units++;
    assert_int_equal(units, l.copies * t->partitions); /* the shares can be given */
    return (uint32_t)(cost - must * (int)floors);
}

#endif
