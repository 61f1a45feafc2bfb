#!/usr/bin/env bash
# guest_run.sh PROGRAM ...: in the guest, runs each program; stops at the first that fails.
set -euo pipefail
export CISTERN_TEST_RDMA=10.0.0.1 CMOCKA_TEST_ABORT=1
for program in "$@"; do
    "$program"
done
