#!/usr/bin/env bash
# Three copies on hosts of their own: each service in turn is killed, stopped for a while, or loses its cable, again and again, and then
# OSDs lose their disks and get blank ones, under three loads: no client sees an error, and what is there at the end is what was
# written.
. "$(dirname "$0")/lib.sh"
. "$here/hosts.sh"
need fio nbdkit
ROUNDS=${STORM_ROUNDS:-50}
RANDOM=${STORM_SEED:-1}

hosts_cluster 4 192M
cluster_start_all vbs2
cistern pool create main --copies 3 --partitions 8
for v in direct gated mirror; do cistern volume create $v 32M; done
hosts_nbd direct direct
CISTERN_CONFIG=$GATEWAY_CONFIG hosts_nbd gated gated
hosts_nbd mirror mirror

in_sync() {
    local i
    for i in $(seq 0 7); do
        cistern --json partition show "main/$i" | grep -E '"in_sync": *\[[0-9]+, *[0-9]+, *[0-9]+\]' >/dev/null || return 1
    done
}
load() { # NAME: verified, until $CLUSTER_DIR/enough is there
    local n=0
    while [ ! -e "$CLUSTER_DIR/enough" ]; do
        n=$((n + 1))
        fio --name="$1" --ioengine=nbd --uri="$(cluster_nbd_uri "$1")" --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --blockalign=512 \
            --iodepth=8 --size=32M --io_size=8M --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 --randseed=$n \
            --output="$CLUSTER_DIR/fio-$1.out" || return 1
    done
    echo "$1: $n times 8 MiB written and verified"
}
mirror() { "$here/../nbd/mirror.py" "$CLUSTER_DIR/mirror" "$1" "$CLUSTER_DIR/mirror.sock" 0 "${@:2}"; }

wait_until 60 in_sync || fail "the new pool's copies are not in sync"
load direct &
direct=$!
load gated &
gated=$!
mirror load 3600 "$RANDOM" >"$CLUSTER_DIR/mirror.out" &
mirrored=$!

pause() { sleep "$(($1 + RANDOM % $2)).$((RANDOM % 10))"; }
victims=(osd1 osd2 osd3 osd4 vbs1 vbs2 mdc)
for round in $(seq "$ROUNDS"); do
    victim=${victims[RANDOM % ${#victims[@]}]}
    case $((round % 3)) in
        0)
            what="killed"
            cluster_kill9 "$victim"
            pause 0 3
            cluster_start "$victim" || fail "$victim did not come back"
            ;;
        1)
            what="stopped and continued"
            cluster_signal "$victim" STOP
            pause 0 5
            cluster_signal "$victim" CONT
            ;;
        2)
            what="without its cable"
            hosts_link "$victim" down
            pause 0 5
            hosts_link "$victim" up
            ;;
    esac
    # One host at a time: what this one missed has to be there again before another goes.
    wait_until 120 in_sync || fail "round $round: $victim $what: a copy does not come in sync: $(cistern partition list)"
    for job in $direct $gated $mirrored; do
        kill -0 $job 2>/dev/null || fail "round $round: $victim $what: a client saw an error: $(tail -n 5 "$CLUSTER_DIR"/fio-*.out "$CLUSTER_DIR/mirror.out")"
    done
    echo "[$SECONDS s] round $round: $victim $what: in sync again"
done
module() { # NAME STATE: its id
    cistern --json module list | python3 -c 'import json, sys
print(*[m["id"] for m in json.load(sys.stdin) if m["name"] == sys.argv[1] and m["state"] == sys.argv[2]])' "$1" "$2"
}
has_module() { [ -n "$(module "$1" "$2")" ]; }
for victim in osd2 osd4; do
    cluster_kill9 "$victim"
    rm "$CLUSTER_DIR/$victim.img"
    cluster_start "$victim" || fail "$victim does not start with a blank disk"
    wait_until 60 has_module "$victim" up && wait_until 60 has_module "$victim" down || fail "a blank disk is not a new module: $(cistern module list)"
    old=$(module "$victim" down)
    cistern module add "$(module "$victim" up)" main
    timeout 180 ip netns exec "$hosts_prefix-client" "$CISTERN_BIN/cistern" module remove "$old" --wait || fail "module $old, whose disk is gone, can not be removed: $(cistern pool status main)"
    wait_until 120 in_sync || fail "the copies that $victim lost are not made anew: $(cistern pool status main)"
    for job in $direct $gated $mirrored; do
        kill -0 $job 2>/dev/null || fail "$victim with a blank disk: a client saw an error: $(tail -n 5 "$CLUSTER_DIR"/fio-*.out "$CLUSTER_DIR/mirror.out")"
    done
    echo "[$SECONDS s] $victim has a blank disk: all copies are there again"
done
touch "$CLUSTER_DIR/enough" "$CLUSTER_DIR/mirror.stop"
wait $direct || fail "the direct load saw an error: $(tail -n 20 "$CLUSTER_DIR/fio-direct.out")"
wait $gated || fail "the load through the gateways saw an error: $(tail -n 20 "$CLUSTER_DIR/fio-gated.out")"
wait $mirrored || fail "the mirror: $(cat "$CLUSTER_DIR/mirror.out")"
cat "$CLUSTER_DIR/mirror.out"
mirror check || fail "the volume is not what was written"
for v in direct gated mirror; do cluster_stop $v; done
cistern status
echo "storm: ok"
