#!/usr/bin/env bash
# guest.sh RESULT WORK OPTION...: runs the harness's part inside a guest kernel with Soft-RoCE (tests/rdma/guest.sh), and copies what it
# found to RESULT. Called by the harness; the options are its own. Exit code 77: this machine cannot run such a guest.
# CISTERN_BIN: the programs. CISTERN_GUEST_KERNEL: where the guest's kernel is kept (default: WORK/kernel).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
result=$1 work=$2
shift 2
# shellcheck source=tests/rdma/guest.sh
. "$here/../tests/rdma/guest.sh"
guest_init "$work"
rc=0
guest_run "${CISTERN_GUEST_SECONDS:-1500}" env "CISTERN_BIN=$CISTERN_BIN" "CISTERN_BENCH_CACHE=$CISTERN_BENCH_CACHE" PYTHONUNBUFFERED=1 \
    /usr/bin/python3 -B "$here/harness" "$@" --inside /mnt/out/result.json --ram-dir /run || rc=$?
[ ! -s "$(guest_out main)/result.json" ] || cp "$(guest_out main)/result.json" "$result"
exit $rc
