#!/usr/bin/env bash
# failover.sh [ROUNDS [KIND...]]: how long I/O stands still when a primary goes: from kill -9 of an OSD (KIND kill), and from a cut of its
# host's cable (cut), to the next completed read and the next completed write on partitions whose primary it was; both are
# submitted after the event. Prints median and worst. Hosts are network namespaces; needs root. CISTERN_BIN: a release build's programs.
: "${CISTERN_BIN:=$(cd "$(dirname "$0")/.." && pwd)/build-release/bin}"
export CISTERN_BIN
. "$(dirname "$0")/../tests/system/lib.sh"
. "$here/hosts.sh"
need nbdkit python3
rounds=${1:-50}
kinds=("${@:2}")
[ ${#kinds[@]} -gt 0 ] || kinds=(kill cut)
export FAILOVER_PARTITIONS=16 FAILOVER_COPIES=2 FAILOVER_MIB=64
hosts_cluster 3 256M
[ -z "${FAILOVER_HEARTBEAT:-}" ] || printf "%s\n" --heartbeat "$FAILOVER_HEARTBEAT" >>"$CLUSTER_DIR/mdc.args"
export FAILOVER_HOSTS=$hosts_prefix FAILOVER_CTL="ip netns exec $hosts_prefix-client $CISTERN_BIN/cistern"
cluster_start_all
cistern pool create main --copies $FAILOVER_COPIES --partitions $FAILOVER_PARTITIONS >&2
cistern volume create data ${FAILOVER_MIB}M >&2
hosts_nbd data data
echo "| event | next completed | median, ms | worst, ms | of |"
echo "| --- | --- | ---: | ---: | ---: |"
for kind in "${kinds[@]}"; do "$here/../../bench/failover.py" "$rounds" "$kind"; done
cluster_stop data
