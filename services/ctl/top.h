/*
 * top.h: `cistern top`. Every interval: lists of modules and gateways from the metadata controller (top.c),
 * their figures from each service itself (top_ask.c), rates out of two of them (top_rates.c), tables (top.c).
 */
#ifndef CISTERN_SERVICES_CTL_TOP_H
#define CISTERN_SERVICES_CTL_TOP_H

#include "common/metrics.h"
#include "rdma/rpc.h"
#include "services/ctl/ctl.h"

/* What a module or gateway told at one moment; of a gateway the first part only. */
struct top_figures {
    uint64_t at_ns; /* 0: it did not answer */
    uint64_t reads, writes, clears, read_bytes, write_bytes, refused, active;
    struct metric_hist read_ns, write_ns;
    uint64_t used_bytes, capacity_bytes, recovery_blocks, recovered_bytes, copies_missing;
};
/* A module (id not 0) or a gateway. */
struct top_row {
    uint32_t id;
    char name[MDC_NAME_MAX], host[MDC_NAME_MAX], pool[MDC_NAME_MAX];
    uint8_t state; /* enum table_module_state */
    uint32_t clients, volumes;
    uint64_t used_bytes, capacity_bytes; /* as the metadata controller knows */
    struct fabric_addr addr;
    struct top_figures now, before;
};
struct top_rates {
    bool known; /* two answers of the service */
    uint64_t reads, writes, clears, read_bytes, write_bytes, recovered_bytes, refused; /* a second */
    uint64_t read_p50_ns, read_p99_ns, write_p50_ns, write_p99_ns;
};
struct top_service; /* a connection */
struct top {
    struct ctl *ctl;
    struct top_row *rows; /* modules, then gateways */
    size_t count, modules, room;
    struct list services;
    struct mdc_cluster_status_reply cluster;
    uint64_t listed_ns; /* when the lists were read; 0 = never */
};

/* ---- top_ask.c ---- */
/* Asks every row's service for its figures, which become `now` (and what was now, before); waits until
 * end_ns at most. */
void top_ask(struct top *t, uint64_t end_ns);
void top_hang_up(struct top *t);
/* Takes one line of a service into those of the rows that it is about. For top_ask, and tests. */
void top_take_line(struct top *t, const struct fabric_addr *addr, char *line, uint64_t now_ns);

/* ---- top_rates.c ---- */
void top_rates_of(const struct top_row *row, struct top_rates *out);

#endif
