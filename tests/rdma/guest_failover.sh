#!/usr/bin/env bash
# In the guest: see failover.sh.
CLUSTER_OSDS=3
. "$(dirname "$0")/guest_lib.sh"
need nbdkit python3
export FAILOVER_PARTITIONS=16 FAILOVER_COPIES=2 FAILOVER_MIB=32 FAILOVER_HOSTS=none FAILOVER_CTL="$CISTERN_BIN/cistern --timeout 120s"
CLUSTER_SAN=
guest_ports
cluster_define_all 192M
cluster_start_all
cistern pool create main --copies $FAILOVER_COPIES --partitions $FAILOVER_PARTITIONS
cistern volume create data ${FAILOVER_MIB}M
guest_nbd data data
"$(dirname "$0")/../../bench/failover.py" "$1" kill
cluster_stop data
