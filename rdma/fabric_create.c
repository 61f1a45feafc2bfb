/* fabric_create.c: the endpoint that suits an address. */
#include "rdma/fabric.h"

int fabric_create(struct env *env, enum fabric_provider_kind kind, const struct fabric_config *config,
                  struct fabric **out)
{
    switch (kind) {
    case FABRIC_PROVIDER_TCP:
        return fabric_create_tcp(env, config, out);
    case FABRIC_PROVIDER_VERBS:
        return fabric_create_verbs(env, config, out);
    case FABRIC_PROVIDER_SIM:
    case FABRIC_PROVIDER_NONE:
        break;
    }
    return -EPROTONOSUPPORT;
}
