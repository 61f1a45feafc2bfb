#!/usr/bin/env bash
# soak.sh [SECONDS]: verified load on a cluster over RDMA in a guest for that long (an hour), with everything that comes and goes
# while a cluster lives; at the end each service must hold exactly what it held at the start: see guest_soak.sh. Exit status 0:
# no error, nothing leaked. Not a ctest. Needs $CISTERN_BUILD (a build with sanitizers); works on a copy of its programs.
: "${CISTERN_BUILD:=$(cd "$(dirname "$0")/../.." && pwd)/build}"
. "$(dirname "$0")/lib.sh"
seconds=${1:-3600}
copy=$guest_work/soak.$$ # the build may go on meanwhile; not in /tmp, of which the guest has its own
trap 'rm -rf "$copy"; guest_cleanup' EXIT
mkdir -p "$copy/tests"
cp -r "$CISTERN_BUILD/bin" "$CISTERN_BUILD/bin-tests" "$CISTERN_BUILD/lib" "$copy/"
cp -r "$here" "$here/../system" "$copy/tests/"
guest_run $((seconds + 900)) env "CISTERN_BIN=$copy/bin" CI=1 "SOAK_SECONDS=$seconds" "$copy/tests/rdma/guest_soak.sh"
