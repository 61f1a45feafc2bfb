#!/usr/bin/env bash
# guest_devices.sh DIR: in the guest, gives it a second device (10.0.1.1) and an IPv6 address, and runs some of the
# conformance tests over each: endpoints that were told no device use the one that the route to their peer says.
set -euo pipefail
export CMOCKA_TEST_ABORT=1
ip link add dummy1 type dummy
ip addr add 10.0.1.1/24 dev dummy1
ip link set dummy1 mtu 4200 up
rdma link add rxe2 type rxe netdev dummy1
sysctl -q -w net.ipv6.conf.dummy0.disable_ipv6=0 || true
ip -6 addr add fd00::1/64 dev dummy0 nodad
sleep 1
for CISTERN_TEST_RDMA in 10.0.1.1 '[fd00::1]'; do
    export CISTERN_TEST_RDMA
    echo "over $CISTERN_TEST_RDMA"
    for test in handshake_good handshake_bad fetching arenas; do
        CISTERN_TEST_FILTER="${test}_*" "$1/test_fabric_conformance"
    done
    for test in reading_and_writing access_rights close_is_told at_rest; do
        CISTERN_TEST_FILTER="${test}_*" "$1/test_fabric_conformance_ends"
    done
done
