#include "rdma/fabric_sim.h"
int sim_net_create(struct sim_world *world, struct sim_net **out)
{
    (void)world;
    (void)out;
    return -ENOSYS;
}
void sim_net_destroy(struct sim_net *net)
{
    (void)net;
}
int fabric_create_sim(struct env *env, struct sim_net *net, uint32_t host, const struct fabric_config *config,
                      struct fabric **out)
{
    (void)env;
    (void)net;
    (void)host;
    (void)config;
    (void)out;
    return -ENOSYS;
}
