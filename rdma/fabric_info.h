/*
 * fabric_info.h: what this host offers to the fabric, for operators: RDMA devices, ports, addresses, limits,
 * counters, memory; what is wrong with it; and what a connection has negotiated.
 *
 * fabric_info_read looks at files only, below a directory of the caller's choice, so that tests (and copies
 * of another host's /sys and /proc) can be looked at; fabric_info_ask adds what only this host's system calls
 * tell; fabric_info_advise is pure. Blocking, without a loop: for tools, never for services.
 */
#ifndef CISTERN_RDMA_FABRIC_INFO_H
#define CISTERN_RDMA_FABRIC_INFO_H

#include "rdma/fabric.h"

#define FABRIC_INFO_NAME     64
#define FABRIC_INFO_TEXT     64
#define FABRIC_INFO_ADDRESS  48 /* an IP address as text */
#define FABRIC_INFO_DEVICES  16
#define FABRIC_INFO_PORTS    32
#define FABRIC_INFO_GIDS     256
#define FABRIC_INFO_COUNTERS 4096
#define FABRIC_INFO_NETS     64
/* A RoCE packet of 4096 bytes of payload needs a network device with this MTU; with the usual 1500 it is 1024
 * (the next power of two below what is left of it behind the headers). */
#define FABRIC_INFO_ROCE_MTU 4200u

enum fabric_link {
    FABRIC_LINK_UNKNOWN = 0,
    FABRIC_LINK_INFINIBAND,
    FABRIC_LINK_ROCE,
    FABRIC_LINK_IWARP,
};
enum fabric_gid_type { FABRIC_GID_UNKNOWN = 0, FABRIC_GID_INFINIBAND, FABRIC_GID_ROCE1, FABRIC_GID_ROCE2 };

/* What the device allows; max_inline is what it gives when a connection asks for Cistern's. */
struct fabric_info_limits {
    bool known;
    uint64_t max_mr_bytes;
    uint32_t max_qp, max_qp_wr, max_sge, max_cq, max_cqe, max_srq, max_srq_wr, max_mr, max_mw, max_rd_atom,
        max_init_rd_atom, max_inline;
};
struct fabric_info_device {
    char name[FABRIC_INFO_NAME];
    char firmware[FABRIC_INFO_TEXT], board[FABRIC_INFO_TEXT];
    bool iwarp;
    struct fabric_info_limits limits;
    int open_errno; /* why it could not be asked; 0 = it was, or nobody tried */
};
struct fabric_info_port {
    uint32_t device; /* index */
    uint32_t number; /* from 1 */
    enum fabric_link link;
    bool active;
    char state[FABRIC_INFO_TEXT], physical[FABRIC_INFO_TEXT]; /* "ACTIVE", "LinkUp" */
    char rate[FABRIC_INFO_TEXT];                              /* "100 Gb/sec (4X EDR)" */
    uint64_t megabits;                                        /* a second; 0 = not told */
    uint32_t active_mtu, max_mtu;                             /* bytes of payload; 0 = not known */
    char netdev[FABRIC_INFO_NAME];                            /* "" = none */
};
struct fabric_info_gid {
    uint32_t port;  /* index */
    uint32_t index; /* at the port */
    enum fabric_gid_type type;
    char gid[FABRIC_INFO_ADDRESS];
    char ip[FABRIC_INFO_ADDRESS]; /* "" when it is no IP address that somebody gave */
    char netdev[FABRIC_INFO_NAME];
};
enum fabric_counter_kind {
    FABRIC_COUNTER_OTHER = 0,  /* traffic and what is not known here */
    FABRIC_COUNTER_CONGESTION, /* somebody was asked to wait, or to slow down */
    FABRIC_COUNTER_LOSS,       /* packets were lost, or came again */
    FABRIC_COUNTER_RECEIVER,   /* a receiver had no buffer ready */
    FABRIC_COUNTER_BROKEN,     /* a connection was given up */
    FABRIC_COUNTER_CABLE,      /* bits went wrong */
};
struct fabric_info_counter {
    uint32_t port; /* index */
    enum fabric_counter_kind kind;
    bool netdev; /* of the port's network device (ethtool -S), not of the RDMA port */
    char name[FABRIC_INFO_NAME];
    uint64_t value;
};
/* A network device, with one of its IP addresses; a device with several has several of these. */
struct fabric_info_net {
    char name[FABRIC_INFO_NAME];
    char ip[FABRIC_INFO_ADDRESS]; /* "" = none */
    uint32_t mtu;
    bool up;
};
struct fabric_info {
    bool subsystem;                             /* the kernel has RDMA: /sys/class/infiniband */
    bool verbs_node, rdmacm_node;               /* /dev/infiniband/uverbs*, rdma_cm */
    uint64_t memlock_bytes, memlock_hard_bytes; /* UINT64_MAX = unlimited */
    uint64_t memory_bytes, locked_bytes;        /* of the host: all, and locked */
    uint64_t huge_bytes, huge_total, huge_free; /* size of a huge page, and how many */
    unsigned device_count, port_count, gid_count, counter_count, net_count;
    struct fabric_info_device devices[FABRIC_INFO_DEVICES];
    struct fabric_info_port ports[FABRIC_INFO_PORTS];
    struct fabric_info_gid gids[FABRIC_INFO_GIDS];
    struct fabric_info_net nets[FABRIC_INFO_NETS];
    struct fabric_info_counter counters[FABRIC_INFO_COUNTERS];
};

/*
 * Reads ROOT/sys, ROOT/proc and ROOT/dev ("" = this host's); what is missing there stays 0 or "", what is too
 * much for the tables is left out. device: only that one; NULL = all. *out is free'd by the caller. 0 or
 * -ENOMEM.
 */
int fabric_info_read(const char *root, const char *device, struct fabric_info **out);
/* Adds the devices' limits, the ports' MTUs, the network devices and their addresses, and their counters. */
void fabric_info_ask(struct fabric_info *info);
/* The kind of a counter of that name, which is the driver's or the kernel's. */
enum fabric_counter_kind fabric_counter_kind_of(const char *name);
/* The IP address that a GID (as sysfs writes it) stands for, as text: IPv4 (RFC 4291, 2.5.5.2) or IPv6; ""
 * for an empty, link-local or malformed one. out holds FABRIC_INFO_ADDRESS bytes. */
void fabric_info_gid_ip(const char *gid, char *out);

/* ---- advice ---- */
enum fabric_advice_level {
    FABRIC_ADVICE_PROBLEM = 1, /* RDMA does not work, or not everywhere */
    FABRIC_ADVICE_SLOW,        /* it works, slower than it could */
    FABRIC_ADVICE_NOTE,        /* good to know */
};
struct fabric_advice {
    enum fabric_advice_level level;
    char about[FABRIC_INFO_NAME + 8]; /* "mlx5_0/1", "host" */
    char what[240];                   /* what is wrong */
    char fix[240];                    /* a command or a setting */
};
#define FABRIC_ADVICE_MAX 64
/* Fills at most max, problems first; returns how many. */
unsigned fabric_info_advise(const struct fabric_info *info, struct fabric_advice *out, unsigned max);

/* ---- a connection ---- */
struct fabric_params {
    enum fabric_provider_kind provider;
    char device[FABRIC_INFO_NAME]; /* verbs */
    uint32_t port;
    uint32_t mtu;            /* verbs: payload of a packet; tcp: maximum segment; 0 = not known */
    uint32_t send_queue;     /* verbs: work requests */
    uint32_t recv_queue;     /* verbs: 0 when it is shared */
    uint32_t send_sge;       /* verbs */
    uint32_t inline_bytes;   /* verbs: messages that go without a look into memory */
    uint32_t reads_out;      /* verbs: one-sided READs under way from here, from there */
    uint32_t reads_in;       /*        (max_rd_atomic, max_dest_rd_atomic) */
    uint32_t ack_timeout_us; /* verbs */
    uint32_t retries;        /* verbs */
    uint32_t credits;        /* messages lent by the peer at the moment; 0 on tcp, which counts none */
    uint32_t lent;           /* to the peer */
    uint32_t round_trip_us;  /* tcp: as the kernel sees it */
    uint32_t send_buffer_bytes, recv_buffer_bytes; /* tcp */
};
/* Of a connection that is up. 0, -ENOTCONN, -ENOTSUP (sim), or of the system. */
int fabric_conn_params(const struct fabric_conn *conn, struct fabric_params *out);

#endif
