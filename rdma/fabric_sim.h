/*
 * fabric_sim.h: the simulated network: hosts by number, connections between the fabrics on them, and faults.
 *
 * It models what reliable-connected RDMA allows, not more: messages in order after a random latency; a
 * one-sided write or a push lands in pieces at different times; a fetch or read takes the bytes as they are
 * when it executes; one-sided operations are answered while the target process is paused, and may land after
 * their requester gave up, until the target's side of the connection is down; a disconnect leaves the outcome
 * of what was under way unknown; a wrong key ends the connection.
 *
 * All functions are called from outside of the loops' handlers (the test or the world), but for
 * fabric_create_sim.
 */
#ifndef CISTERN_RDMA_FABRIC_SIM_H
#define CISTERN_RDMA_FABRIC_SIM_H

#include "common/sim.h"
#include "rdma/fabric.h"

struct sim_net;

/* To kill a process: sim_loop_kill, destroy its services, then fabric_destroy: that is when its kernel tells
 * the peers. */
struct sim_net_options {
    uint64_t latency_min_ns, latency_max_ns; /* of one packet, one way; uniform */
    uint64_t spike_ns;                       /* at most so much more ... */
    uint32_t spike_num, spike_den;           /* ... for so many of all packets */
    uint64_t ack_timeout_ns;                 /* no answer from the peer's host for so long: down (TIMEOUT) */
    uint64_t notice_min_ns, notice_max_ns;   /* from a process' death to its peers' down, if its host lives */
    /* A connection breaks at a packet with this chance (both sides see it at different times); 0 = never. */
    uint32_t break_num, break_den;
    uint32_t pieces_max; /* one-sided data moves in at most so many pieces, each at its own time */
};

/* 0 or -ENOMEM. Destroy it after all its fabrics, before the world. */
int sim_net_create(struct sim_world *world, struct sim_net **out);
void sim_net_destroy(struct sim_net *net);
/* In force for what is sent from now on. */
void sim_net_get_options(const struct sim_net *net, struct sim_net_options *out);
void sim_net_set_options(struct sim_net *net, const struct sim_net_options *options);
/* Nothing of host from reaches host to any more (what is under way is held up too), or in both directions.
 * Connections that need an answer for longer than ack_timeout_ns go down; if healed earlier all goes on. */
void sim_net_cut(struct sim_net *net, uint32_t from, uint32_t to, bool both);
void sim_net_heal(struct sim_net *net, uint32_t from, uint32_t to, bool both);
void sim_net_heal_all(struct sim_net *net);
/* The host vanishes (power, panic): nothing in or out, nobody is told. To be followed by killing its
 * processes' loops and destroying their fabrics. Comes back with sim_net_host_up; connections of before are
 * dead then. */
void sim_net_host_down(struct sim_net *net, uint32_t host);
void sim_net_host_up(struct sim_net *net, uint32_t host);
/* Breaks all connections of a host (0: of all hosts); outcomes of what was under way are unknown. */
void sim_net_break(struct sim_net *net, uint32_t host);
/* Those between two hosts. */
void sim_net_break_pair(struct sim_net *net, uint32_t a, uint32_t b);
/* The host's ends of all its connections are lost now, and its processes are told; nobody else is: the other
 * ends find out by a probe that is not answered. What is under way to them still arrives. */
void sim_net_lose(struct sim_net *net, uint32_t host);
/* What the connections of this moment carry from host from to host to arrives no earlier than until_ns (of
 * true time); the way of connections made later is free. A stuck queue of one path of several. */
void sim_net_delay(struct sim_net *net, uint32_t from, uint32_t to, uint64_t until_ns);

/* The endpoint of a process on a host; its loop is one of the same world's (loop_create_sim). host >= 1. */
int fabric_create_sim(struct env *env, struct sim_net *net, uint32_t host, const struct fabric_config *config,
                      struct fabric **out);

#endif
