#!/usr/bin/env bash
# The metadata controller's store is lost and put back from older copies, while OSDs come and go and two loads run on two copies: no client
# sees an error, no data is other than what was written, and the cluster is whole again afterwards.
. "$(dirname "$0")/lib.sh"
need fio nbdkit

CLUSTER_SAN=
CLUSTER_OSDS=4
cluster_define_all 256M
cluster_define mdc $(tr '\n' ' ' <"$CLUSTER_DIR/mdc.args") --rest-before-spread 1s --moves-per-module 4
cluster_start_all
id_of() { cistern --json module list | python3 -c 'import json, sys
print(*[m["id"] for m in json.load(sys.stdin) if m["name"] == sys.argv[1]])' "$1"; }
cistern pool create main --copies 2 --partitions 8 --modules "$(id_of osd1),$(id_of osd2),$(id_of osd3)"
for v in direct mirror gone; do cistern volume create $v 32M; done
cluster_nbd direct direct
cluster_nbd mirror mirror

in_sync() {
    local i
    for i in $(seq 0 7); do
        cistern --json partition show "main/$i" 2>/dev/null | grep -E '"in_sync": *\[[0-9]+, *[0-9]+\]' >/dev/null || return 1
    done
}
load() {
    local n=0
    while [ ! -e "$CLUSTER_DIR/enough" ]; do
        n=$((n + 1))
        fio --name=direct --ioengine=nbd --uri="$(cluster_nbd_uri direct)" --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --blockalign=512 \
            --iodepth=8 --size=32M --io_size=8M --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 --randseed=$n \
            --output="$CLUSTER_DIR/fio-direct.out" || return 1
    done
    echo "direct: $n times 8 MiB written and verified"
}
mirror() { "$here/../nbd/mirror.py" "$CLUSTER_DIR/mirror" "$1" "$CLUSTER_DIR/mirror.sock" 0 "${@:2}"; }
loads_live() { # WHEN
    local job
    for job in $direct $mirrored; do
        kill -0 "$job" 2>/dev/null || fail "$1: a client saw an error: $(tail -n 5 "$CLUSTER_DIR"/fio-*.out "$CLUSTER_DIR/mirror.out")"
    done
}
store_keep() { # NAME: a copy of the store as it is
    cluster_kill9 mdc
    rm -rf "$CLUSTER_DIR/store.$1"
    cp -r "$CLUSTER_DIR/mdc" "$CLUSTER_DIR/store.$1"
    cluster_start mdc
}
cp "$CLUSTER_DIR/mdc.args" "$CLUSTER_DIR/mdc.plain"
store_put_back() { # NAME [OPTION...]: as an operator who lost the disk does it
    cluster_kill9 mdc
    rm -rf "$CLUSTER_DIR/mdc"
    cp -r "$CLUSTER_DIR/store.$1" "$CLUSTER_DIR/mdc"
    {
        cat "$CLUSTER_DIR/mdc.plain"
        shift
        [ $# -eq 0 ] || printf '%s\n' "$@"
    } >"$CLUSTER_DIR/mdc.args"
    cluster_start mdc || fail "the controller does not start with the store put back"
    cp "$CLUSTER_DIR/mdc.plain" "$CLUSTER_DIR/mdc.args"
}
away_for() { # OSD SECONDS: others go on without it, under new epochs
    cluster_kill9 "$1"
    sleep "$2"
    cluster_start "$1" || fail "$1 did not come back"
    wait_until 120 in_sync || fail "after $1 was away a copy does not come in sync: $(cistern partition list)"
}
names() { cistern volume list | awk 'NR > 1 { print $1 }' | sort | paste -sd' '; }

wait_until 60 in_sync || fail "the new pool's copies are not in sync"
load &
direct=$!
mirror load 3600 7 >"$CLUSTER_DIR/mirror.out" &
mirrored=$!

store_keep old
away_for osd1 2
away_for osd2 2
cistern volume delete gone
cistern volume create late 16M
loads_live "before anything was put back"

store_put_back old --restored-store
wait_until 120 in_sync || fail "the store of before was put back: a copy does not come in sync: $(cistern status)"
loads_live "the store of before was put back"
[ "$(names)" = "direct gone mirror" ] || fail "not the volumes of the copy: $(names)"
echo "[$SECONDS s] put back with all modules there: in sync"
away_for osd3 1
cistern volume delete gone || fail "a volume that came back by the copy can not be deleted"
cistern volume create later 16M
loads_live "osd3 was away after the store was put back"

# A member that knows more is down, and only the operator knows that the store is old.
store_keep older
cistern module add "$(id_of osd4)" main --wait
away_for osd1 1
cluster_kill9 osd2
sleep 2
store_put_back older --restored-store
named() { cistern status | grep -q 'waited for\|osd2\|module 2'; }
wait_until 30 named || fail "nobody says that a module is waited for: $(cistern status)"
sleep 3
cluster_start osd2 || fail "osd2 did not come back"
wait_until 120 in_sync || fail "put back without osd2: a copy does not come in sync: $(cistern status)"
loads_live "put back while osd2 was down"
echo "[$SECONDS s] put back from before a module was added, while another was down: in sync"

# And an operator who forgets to say so, with all modules there; of one that was emptied since nothing is known.
store_keep last
cistern module drain "$(id_of osd3)" --wait
away_for osd3 1
away_for osd1 1
store_put_back last
wait_until 120 in_sync || fail "put back and not said so: a copy does not come in sync: $(cistern status)"
loads_live "put back and not said so"
away_for osd2 1
echo "[$SECONDS s] put back and not said so: in sync"

touch "$CLUSTER_DIR/enough" "$CLUSTER_DIR/mirror.stop"
wait $direct || fail "the load saw an error: $(tail -n 20 "$CLUSTER_DIR/fio-direct.out")"
wait $mirrored || fail "the mirror: $(cat "$CLUSTER_DIR/mirror.out")"
cat "$CLUSTER_DIR/mirror.out"
mirror check || fail "the volume is not what was written"
for v in direct mirror; do cluster_stop $v; done
[ "$(cistern --json status | grep -oE '"copies_missing": *[0-9]+' | grep -oE '[0-9]+$')" = 0 ] || fail "copies are missing: $(cistern status)"
cistern status
echo "restored store: ok"
