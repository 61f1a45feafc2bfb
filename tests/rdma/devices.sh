#!/usr/bin/env bash
# The fabric on the second RDMA device of a host, and over IPv6: see guest_devices.sh.
. "$(dirname "$0")/lib.sh"
guest_run 300 "$here/guest_devices.sh" "${CISTERN_BUILD:?}/tests/unit"
