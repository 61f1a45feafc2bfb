#!/usr/bin/env bash
# Bytes that bring a copy up again, against the bytes that changed while it was away: random 4 KiB writes to so many percent of a volume.
#   bench/catchup.sh [PERCENT] [VOLUME_MIB]
. "$(dirname "$0")/../tests/system/lib.sh"
need fio nbdkit bc

percent=${1:-1} size=${2:-256}
CLUSTER_SAN=
cluster_define_all $((size * 2))M
cluster_start_all
cistern pool create main --copies 2 --partitions 16 >/dev/null
cistern volume create data "${size}M" >/dev/null
cluster_nbd data data
uri=$(cluster_nbd_uri data)
fio --name=fill --ioengine=nbd --uri="$uri" --rw=write --bs=256k --iodepth=4 --size="${size}M" --output=/dev/null
sum() { cistern --json module list | grep -oE "\"$1\": *[0-9]+" | grep -oE '[0-9]+$' | paste -sd+ | bc; }
in_sync() {
    local i
    for i in $(seq 0 15); do
        cistern --json partition show "main/$i" | grep -Eq '"in_sync": *\[[0-9]+, *[0-9]+\]' || return 1
    done
}
wait_until 60 in_sync || fail "the copies are not in sync at the beginning"
before=$(sum recovered_bytes)
cluster_stop osd2
writes=$((size * 256 * percent / 100))
fio --name=change --ioengine=nbd --uri="$uri" --rw=randwrite --bs=4k --iodepth=8 --size="${size}M" --number_ios="$writes" --randseed=7 \
    --output=/dev/null
began=$(date +%s.%N)
cluster_start osd2
wait_until 300 in_sync || fail "osd2 did not come in sync"
took=$(echo "$(date +%s.%N) - $began" | bc)
sleep 2 # heartbeats bring the counters
moved=$(($(sum recovered_bytes) - before))
echo "changed in the volume: $((writes * 4)) KiB in $writes writes; sent to the member that came back: $((moved / 1024)) KiB; in $took s with its start"
cluster_stop data
