#!/usr/bin/env bash
# The table is read from a metadata controller that stands still: see guest_table.sh.
. "$(dirname "$0")/lib.sh"
guest_run 1440 env "CISTERN_BIN=$CISTERN_BUILD/bin" CI=1 "$here/guest_table.sh"
