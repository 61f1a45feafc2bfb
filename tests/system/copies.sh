#!/usr/bin/env bash
# A pool with two copies: I/O goes on while a module is dead, the module is brought up again when it is back, and then the next one may die.
. "$(dirname "$0")/lib.sh"
need fio nbdkit

CLUSTER_SAN=
cluster_define_all 256M
cluster_start_all
cistern pool create main --copies 2 --partitions 8
cistern volume create data 64M
cluster_nbd data data

load() { # SECONDS: verified
    fio --name=load --ioengine=nbd --uri="$(cluster_nbd_uri data)" --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --blockalign=512 \
        --iodepth=8 --size=64M --time_based --runtime="$1" --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 \
        --randseed="$RANDOM" --output="$CLUSTER_DIR/fio-load.out"
}
# Every block once, and read back: needs every partition.
whole() {
    fio --name=whole --ioengine=nbd --uri="$(cluster_nbd_uri data)" --rw=write --bs=128k --iodepth=4 --size=64M --verify=crc32c \
        --verify_fatal=1 --verify_state_save=0 --do_verify=1 --output="$CLUSTER_DIR/fio-whole.out"
}
in_sync() { # every copy of every partition
    local i
    for i in $(seq 0 7); do
        cistern --json partition show "main/$i" | grep -Eq '"in_sync": *\[[0-9]+, *[0-9]+\]' || return 1
    done
}
wait_until 30 in_sync || fail "the new pool's copies are not in sync"
cistern --json partition list | python3 -c 'import json,sys; l=json.load(sys.stdin); assert len(l) == 8 and all(sorted(p["in_sync"]) == sorted(p["members"]) and p["sent_percent"] == 100 for p in l), l' ||
    fail "partition list does not show what is in sync: $(cistern partition list)"
for victim in osd1 osd2 osd3; do
    load 6 &
    job=$!
    sleep 1
    cluster_kill9 "$victim"
    wait $job || fail "the load saw an error while $victim was killed: $(tail -n 20 "$CLUSTER_DIR/fio-load.out")"
    # It is still dead: nothing of this can have come from it.
    whole || fail "the volume could not be written and read without $victim: $(tail -n 20 "$CLUSTER_DIR/fio-whole.out")"
    echo "$victim is dead: written and read all the same"
    load 4 &
    job=$!
    cluster_start "$victim"
    wait $job || fail "the load saw an error while $victim came back: $(tail -n 20 "$CLUSTER_DIR/fio-load.out")"
    wait_until 60 in_sync || fail "the copies on $victim did not come in sync: $(cistern partition show main/0)"
    echo "$victim is back, and in sync"
done
cluster_stop data
cistern status
echo "copies: ok"
