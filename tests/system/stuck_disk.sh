#!/usr/bin/env bash
# A disk that answers nothing, no error either: its OSD ends itself, others serve, and it comes back with what it missed.
. "$(dirname "$0")/lib.sh"
need fio nbdkit python3

CLUSTER_SAN=
CLUSTER_OSDS=3
export STUCK_DISK=$CLUSTER_DIR/stuck
cluster_define_all 256M
cluster_define mdc $(tr '\n' ' ' <"$CLUSTER_DIR/mdc.args") --heartbeat 200ms
mapfile -t plain <"$CLUSTER_DIR/osd2.args"
preload=$(ldd "$CISTERN_BIN/cistern-osd" | awk '/libasan/ { print $3 }')
cluster_define osd2 env LD_PRELOAD="${preload:+$preload:}$CISTERN_TESTS/stuck_disk.so" "${plain[@]}" --device-timeout 5s
cluster_start_all
grep -q 'using threads' osd2.log || fail "osd2 does not run with the held calls: $(tail -n 3 osd2.log)"
cistern pool create main --copies 2 --partitions 16
cistern volume create v 32M
cluster_nbd v v
load() {
    fio --name=v --ioengine=nbd --uri="$(cluster_nbd_uri v)" --rw=randwrite --bsrange=4k-64k --blockalign=4k --iodepth=8 --size=32M \
        --time_based --runtime="$1" --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 --randseed="$RANDOM" --output=fio.out
}
all_in_sync() { [ "$(cistern --json status | python3 -c 'import json, sys; s = json.load(sys.stdin); print(s["copies_missing"] + s["moves"])')" = 0 ]; }

for round in 1 2; do
    load 12 &
    job=$!
    sleep 2
    touch "$STUCK_DISK"
    wait_until 60 cluster_gone osd2 || fail "the OSD goes on with a disk that does not answer: $(tail -n 5 osd2.log)"
    grep -q 'the disk does not answer, this process ends: check the disk' osd2.log || fail "the log does not say why it ended"
    # While it still does not answer, a start ends the same way, and nobody is hurt.
    if [ $round = 1 ]; then
        cluster_launch osd2
        wait_until 60 cluster_gone osd2 || fail "the OSD starts on a disk that does not answer"
    fi
    wait "$job" || fail "the load saw an error: $(tail -n 20 fio.out)"
    rm "$STUCK_DISK"
    cluster_start osd2
    wait_until 60 all_in_sync || fail "not all copies are in sync: $(cistern status)"
done

# A process that stood still itself does not take its disk for stuck.
load 14 &
job=$!
sleep 1
cluster_signal osd2 STOP
sleep 8
cluster_signal osd2 CONT
wait "$job" || fail "the load saw an error: $(tail -n 20 fio.out)"
cluster_running osd2 || fail "an OSD that was stopped for a while ended: $(tail -n 5 osd2.log)"
wait_until 60 all_in_sync || fail "not all copies are in sync: $(cistern status)"
echo "stuck_disk: ok"
