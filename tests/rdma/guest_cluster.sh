#!/usr/bin/env bash
# In the guest: a whole cluster over RDMA, a LUN of a real iSCSI target among its modules (commands to the array by tcp, data to
# and from clients by RDMA). fio writes and verifies in several shapes, directly and through the gateways; then each service is
# killed and comes back under verified load, and what both ways read is the same to the byte.
CLUSTER_SAN=san1
. "$(dirname "$0")/guest_lib.sh"
need fio nbdkit nbdcopy tgtd

guest_ports
cluster_define_all 96M
cluster_start_array 96M
cluster_start_all vbs2
say "services are up"
cistern pool create main --stripe 1M
cistern volume create direct 16M
cistern volume create gated 16M
cistern module list
guest_nbd direct direct
CISTERN_CONFIG=$CLUSTER_DIR/gateway.conf guest_nbd gated gated
for way in direct gated; do
    guest_fio $way randwrite 4k 16 1M --size=16M
    guest_fio $way write 128k 4 16M --size=16M
    guest_fio $way randwrite 1536 4 192k --size=16M
    guest_fio $way randwrite 1M 2 4M --size=16M
    guest_fio $way randrw 8k 8 512k --size=16M
done
for s in osd1 osd2 san1; do
    [ "$(guest_counter $s fetches)" -gt 0 ] && [ "$(guest_counter $s pushes)" -gt 0 ] || fail "$s moved no payload"
done
say "each module, the LUN's too, fetched and pushed payloads"

load() { # WAY: until the last victim is back
    until [ -e "$CLUSTER_DIR/enough" ]; do
        guest_fio "$1" randwrite 4k 8 200M --size=16M --bsrange=512-16k --blockalign=512 --time_based --runtime=6
    done
}
load direct &
direct=$!
load gated &
gated=$!
sleep 1
for victim in osd1 vbs1 san1 mdc osd2; do
    cluster_kill9 $victim
    cluster_start $victim || fail "$victim did not come back"
    say "$victim was killed and came back"
done
touch "$CLUSTER_DIR/enough"
wait $direct || fail "the direct load saw an error"
wait $gated || fail "the load through the gateways saw an error"
nbdcopy "$(cluster_nbd_uri direct)" direct.img
nbdcopy "$(cluster_nbd_uri gated)" gated.img
cluster_stop direct
cluster_stop gated
# The same volumes the other way round: from another process, and by the other way.
cistern detach direct client1
cistern detach gated client1
CISTERN_CONFIG=$CLUSTER_DIR/gateway.conf guest_nbd direct direct
guest_nbd gated gated
nbdcopy "$(cluster_nbd_uri direct)" direct2.img
nbdcopy "$(cluster_nbd_uri gated)" gated2.img
cmp direct.img direct2.img
cmp gated.img gated2.img
cluster_stop direct
cluster_stop gated
say "cluster over rdma: ok"
