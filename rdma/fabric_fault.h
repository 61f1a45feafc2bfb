/*
 * fabric_fault.h: a layer of faults over any fabric, for tests. It sits between the core and the provider of
 * one endpoint; what no rule matches goes straight to the layer below. All that is random comes from its
 * seed.
 */
#ifndef CISTERN_RDMA_FABRIC_FAULT_H
#define CISTERN_RDMA_FABRIC_FAULT_H

#include "rdma/fabric.h"

/* Calls that a rule may name, as bits. */
enum {
    FABRIC_FAULT_CONNECT = 1,
    FABRIC_FAULT_LISTEN = 2,
    FABRIC_FAULT_MEM_REGISTER = 4,
    FABRIC_FAULT_POST = 8, /* when the op goes to the provider: a queued one is reached later */
};
enum fabric_fault_action {
    FABRIC_FAULT_FAIL,  /* the call answers rc (an op that waited for credits: its connection goes down
                           instead) */
    FABRIC_FAULT_DELAY, /* POST: the op starts later, and all ordered ops of its connection posted meanwhile
                           after it */
    /* The call succeeds and its connection goes down (PEER_DIED) after the delay; a posted op is lost or not,
       by chance. */
    FABRIC_FAULT_DISCONNECT,
};
struct fabric_fault_rule {
    unsigned calls; /* FABRIC_FAULT_* */
    unsigned kinds; /* POST: bits 1 << enum fabric_op_kind; 0 = all */
    enum fabric_fault_action action;
    int rc;                /* FAIL: -errno */
    uint32_t num, den;     /* chance; den 0 = always */
    uint64_t skip;         /* that many matching calls go well first */
    uint64_t times;        /* then so many at most are hit; 0 = no limit */
    uint64_t delay_min_ns; /* DELAY, DISCONNECT */
    uint64_t delay_max_ns;
};

/* Puts the layer on f; it goes with f. Once per fabric. 0 or -ENOMEM. */
int fabric_fault_attach(struct fabric *f, uint64_t seed);
/* f must have the layer in all that follows. The rule is copied; the first that hits counts. -ENOSPC after 16
 * rules. */
int fabric_fault_add(struct fabric *f, const struct fabric_fault_rule *rule);
/* Forgets all rules and fail_at; what is delayed stays delayed. */
void fabric_fault_clear(struct fabric *f);
/* The n-th call from now on (1 = the next; of any kind that can fail) fails with -ENOMEM; 0 = none. */
void fabric_fault_fail_at(struct fabric *f, uint64_t n);
/* Whether that has happened. */
bool fabric_fault_fired(const struct fabric *f);
/* Faults since the layer was put on. */
uint64_t fabric_fault_count(const struct fabric *f);
/* Objects of the fabric that are alive: connections, listeners, registered memory, ops pending. Needs no
 * layer. */
uint64_t fabric_fault_live(const struct fabric *f);

#endif
