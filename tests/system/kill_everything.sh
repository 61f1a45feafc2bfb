#!/usr/bin/env bash
# kill -9 of OSDs, SAN agent, MDC and gateway in any order under a verified load: no error, and every acknowledged write is there.
. "$(dirname "$0")/lib.sh"
need fio nbdkit tgtd

cluster_define_all 384M
cluster_start_all vbs2
cistern pool create main
cistern volume create direct 128M
cistern volume create gated 128M
cluster_nbd direct direct
CISTERN_CONFIG=$CLUSTER_DIR/gateway.conf cluster_nbd gated gated

load() { # NAME
    fio --name="$1" --ioengine=nbd --uri="$(cluster_nbd_uri "$1")" --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --blockalign=512 --iodepth=16 --size=128M \
        --time_based --runtime="${LOAD_SECONDS:-25}" --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 --randseed="$RANDOM" \
        --norandommap=0 --output="$CLUSTER_DIR/fio-$1.out"
}
load direct &
first=$!
load gated &
second=$!
sleep 1
victims=(osd1 vbs1 mdc san1 osd2 mdc osd3 vbs2 san1 osd1)
for victim in $(shuf -e "${victims[@]}" --random-source=<(yes)); do
    cluster_kill9 "$victim"
    sleep "0.$((RANDOM % 8))"
    cluster_start "$victim" || fail "$victim did not come back"
    sleep 1
done
wait $first || fail "the direct load saw an error: $(tail -n 20 "$CLUSTER_DIR/fio-direct.out")"
wait $second || fail "the load through the gateways saw an error: $(tail -n 20 "$CLUSTER_DIR/fio-gated.out")"
cluster_stop direct
cluster_stop gated
cistern status
echo "kill everything: ok"
