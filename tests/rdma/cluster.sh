#!/usr/bin/env bash
# A small cluster of real services over RDMA, in a guest with Soft-RoCE: see guest_cluster.sh.
. "$(dirname "$0")/lib.sh"
guest_run 1440 env "CISTERN_BIN=$CISTERN_BUILD/bin" CI=1 "$here/guest_cluster.sh"
