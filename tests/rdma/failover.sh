#!/usr/bin/env bash
# failover.sh [ROUNDS]: bench/failover.sh's kills, over RDMA in a guest: how long I/O stands still when a primary is killed. The guest
# is emulated, so its times are upper bounds. Not a ctest: no test asserts a time. CISTERN_BUILD: a release build.
: "${CISTERN_BUILD:=$(cd "$(dirname "$0")/../.." && pwd)/build-release}"
. "$(dirname "$0")/lib.sh"
guest_run 3000 env "CISTERN_BIN=$CISTERN_BUILD/bin" "GUEST_PROVIDER=${GUEST_PROVIDER:-rdma}" CI=1 "$here/guest_failover.sh" "${1:-50}"
