/*
 * fabric_tool.h: what the commands `cistern fabric ...` share. They talk to any service, or to each other,
 * without the metadata controller: fabric_show.c (info), fabric_ping.c (ping, counters), fabric_bench.c with
 * fabric_bench_serve.c and fabric_bench_load.c (bench).
 */
#ifndef CISTERN_SERVICES_CTL_FABRIC_TOOL_H
#define CISTERN_SERVICES_CTL_FABRIC_TOOL_H

#include "rdma/fabric_info.h"
#include "rdma/rpc.h"
#include "services/ctl/ctl.h"

/* ---- fabric_tool.c ---- */
/*
 * Reads address and the secret, and makes ctl's loop and an endpoint of that address's kind, which ctl_close
 * frees. listens: address is one of this host, that is listened on. After a message when not CTL_DONE.
 */
enum ctl_exit fabric_tool_open(struct ctl *ctl, const char *address, bool listens, struct fabric_addr *out);
const char *fabric_tool_role(enum fabric_role role);
/* Until fabric_tool_interrupted_end a ^C is only remembered; a second one ends the process. */
void fabric_tool_interrupted_begin(void);
bool fabric_tool_interrupted(void);
void fabric_tool_interrupted_end(void);
/* Appends the advice: columns are those of fabric_tool_advice_columns. */
extern const struct sheet_column fabric_tool_advice_columns[4];
void fabric_tool_advice_add(struct sheet *s, const struct fabric_advice *advice, unsigned count);
/* For people: "problem mlx5_0/1: what" and "        fix: ...", or that all is well. */
void fabric_tool_advice_print(const struct fabric_advice *advice, unsigned count, FILE *out);
/* One of several parts of a JSON object: ", \"key\": " and the sheet, freed. 0 or -errno of sheet_print. */
int fabric_tool_json_part(const char *before, const char *key, struct sheet *s, enum sheet_form form);

/* A connection that is being made, or was. */
struct fabric_tool_link {
    struct rpc_peer *peer; /* NULL once down */
    bool up;
    enum fabric_down reason; /* 0 while it is not down */
    struct fabric_peer info; /* once up */
    uint64_t connect_ns;     /* how long that took */
};
/* Connects and waits until it is up or has failed: 0, or -ENOTCONN (reason tells), or -errno of the system.
 * link stays in place until fabric_tool_unlink. */
int fabric_tool_connect(struct ctl *ctl, const struct fabric_addr *addr, enum fabric_domain domain,
                        struct fabric_tool_link *link);
void fabric_tool_unlink(struct fabric_tool_link *link);
/* Says why there is no connection to address. */
enum ctl_exit fabric_tool_unreachable(struct ctl *ctl, const char *address,
                                      const struct fabric_tool_link *link, int rc);

/* ---- fabric_show.c ---- */
/* What `cistern fabric info` prints about info. */
enum ctl_exit fabric_show(struct ctl *ctl, const struct fabric_info *info);

/* ---- fabric_bench_serve.c ---- */
/*
 * The protocol between the two ends of a bench: rpc methods, little-endian bodies. One client at a time;
 * others are told BUSY. The numbers are no service's, so that one that is asked by mistake says so.
 */
#define FABRIC_BENCH_VERSION 1u
enum {
    FABRIC_BENCH_HELLO = 0xb001, /* reply: struct fabric_bench_hello */
    FABRIC_BENCH_TAKE = 0xb002,  /* struct fabric_bench_place; the source is fetched to there */
    FABRIC_BENCH_GIVE = 0xb003,  /* struct fabric_bench_place; the sink is filled from there */
};
struct fabric_bench_hello {
    uint32_t version;
    uint32_t key;  /* of the area, for one-sided operations on a connection of the domain CLUSTER */
    uint64_t addr; /* of the area */
    uint64_t bytes;
    uint64_t spin_ns; /* how long the server polls before it sleeps */
};
struct fabric_bench_place {
    uint64_t offset; /* in the area */
};
_Static_assert(sizeof(struct fabric_bench_hello) == 32, "on the wire");
enum ctl_exit fabric_bench_serve(struct ctl *ctl, const char *address);

/* ---- fabric_bench_load.c ---- */
enum fabric_bench_kind {
    FABRIC_BENCH_MESSAGE, /* there and back in the message itself */
    FABRIC_BENCH_FETCH,   /* a payload that the server fetches: a client's write */
    FABRIC_BENCH_PUSH,    /* a payload that the server pushes: a client's read */
    FABRIC_BENCH_READ,    /* one-sided */
    FABRIC_BENCH_WRITE,
};
struct fabric_bench_case {
    enum fabric_bench_kind kind;
    uint32_t bytes;
    unsigned depth;
};
#define FABRIC_BENCH_DEPTH_MAX  128u
#define FABRIC_BENCH_ROUNDS_MAX 32u
struct fabric_bench_round {
    uint64_t ops, measured_ns, p50_ns, p99_ns, cpu_ns; /* cpu: of this process */
};
/* Medians over the rounds; spread: of the rates, (highest - lowest) / median, in percent. */
struct fabric_bench_figures {
    uint64_t ops_per_s, bytes_per_s, p50_ns, p99_ns, cpu_ns_per_op, spread_percent;
};
struct fabric_bench_load; /* the client's end */
/* server: what HELLO said. Registers memory for every case. 0; -ENOMEM: it cannot be registered, or there is
 * too little at the server. */
int fabric_bench_load_create(struct ctl *ctl, struct fabric_tool_link *link,
                             const struct fabric_bench_hello *server, const struct fabric_bench_case *cases,
                             unsigned count, struct fabric_bench_load **out);
void fabric_bench_load_destroy(struct fabric_bench_load *l);
/* One round of one case. 0, -ENOTCONN, -EINTR (^C), -EBADMSG (wrong bytes), or -EIO (refused). */
int fabric_bench_load_run(struct fabric_bench_load *l, const struct fabric_bench_case *c, uint64_t warmup_ns,
                          uint64_t runtime_ns, struct fabric_bench_round *out);
void fabric_bench_figures_of(const struct fabric_bench_case *c, const struct fabric_bench_round *rounds,
                             unsigned count, struct fabric_bench_figures *out);

/* ---- fabric_bench.c ---- */
/* What its advice looks at. */
struct fabric_bench_view {
    struct fabric_params params;
    uint64_t spin_ns, peer_spin_ns;
    uint64_t port_megabits; /* of the port in use; 0 = not known */
    uint64_t best_megabits; /* of all cases */
    bool rdma_here;         /* this host has an active RDMA port */
    uint64_t memlock_bytes;
};
unsigned fabric_bench_advise(const struct fabric_bench_view *v, struct fabric_advice *out, unsigned max);

/* ---- fabric_ping.c ---- */
struct fabric_ping_tally {
    uint64_t sent, answered;
    struct bench_hist times;
};
/* "10 sent, 9 answered, 10% lost; min 30us median 35us p99 70us max 70us"; room for 160 bytes. Returns out.
 */
const char *fabric_ping_summary(const struct fabric_ping_tally *t, char *out);

#endif
