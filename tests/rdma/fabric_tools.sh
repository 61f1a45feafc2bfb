#!/usr/bin/env bash
# cistern fabric info, ping and bench over verbs, in a guest with Soft-RoCE: see guest_fabric_tools.sh.
. "$(dirname "$0")/lib.sh"
guest_run 300 env "CISTERN_BIN=$CISTERN_BUILD/bin" "$here/guest_fabric_tools.sh"
