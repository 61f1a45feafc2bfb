#!/usr/bin/env bash
# In the guest: two copies on three OSDs, over RDMA; each OSD in turn is killed under verified load, missed, and brought up again.
CLUSTER_OSDS=3
. "$(dirname "$0")/guest_lib.sh"
need fio nbdkit
guest_ports
cluster_define_all 192M
cluster_start_all
cistern pool create main --copies 2 --partitions 8
cistern volume create data 16M
guest_nbd data data

in_sync() {
    local i
    for i in $(seq 0 7); do
        cistern --json partition show "main/$i" | grep -E '"in_sync": *\[[0-9]+, *[0-9]+\]' >/dev/null || return 1
    done
}
wait_until 120 in_sync || fail "the new pool's copies are not in sync"
for victim in osd1 osd2 osd3; do
    guest_fio data randwrite 4k 8 2M --size=16M --randseed=1 &
    job=$!
    sleep 3
    cluster_kill9 "$victim"
    wait $job || fail "the load saw an error while $victim was killed"
    # It is still dead: nothing of this can have come from it.
    guest_fio data write 128k 4 16M --size=16M
    say "$victim is dead: written and read all the same"
    guest_fio data randrw 4k 8 1M --size=16M --randseed=2 &
    job=$!
    cluster_start "$victim"
    wait $job || fail "the load saw an error while $victim came back"
    wait_until 120 in_sync || fail "the copies on $victim did not come in sync: $(cistern partition show main/0)"
    say "$victim is back, and in sync"
done
cluster_stop data
cistern status
say "copies over RDMA: ok"
