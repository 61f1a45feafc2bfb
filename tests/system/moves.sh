#!/usr/bin/env bash
# Under a verified load modules are added to pools with one and with two copies, emptied, taken out, and kept away until they are replaced; data stays.
. "$(dirname "$0")/lib.sh"
need fio nbdkit nbdcopy

CLUSTER_SAN=
CLUSTER_OSDS=4
cluster_define_all 256M
cluster_define mdc $(tr '\n' ' ' <"$CLUSTER_DIR/mdc.args") --heartbeat 200ms --replace-after 4s --rest-before-spread 1s --moves-per-module 4
cluster_start_all
json() { python3 -c "import json,sys; d=json.load(sys.stdin); print($1)"; }
id_of() { cistern --json module list | json "[m['id'] for m in d if m['name'] == '$1'][0]"; }
module() { cistern --json module list | json "[m['$2'] for m in d if m['id'] == $1][0]"; }
pool() { cistern --json pool status "$1" | json "d['$2']"; }
at_rest() { [ "$(pool "$1" moves_joining)$(pool "$1" moves_waiting)$(pool "$1" moves_leaving)$(pool "$1" moves_stuck)" = 0000 ]; }
one=$(id_of osd1) two=$(id_of osd2) three=$(id_of osd3) four=$(id_of osd4)

load() { # NAME: until it is ended; verified as it goes, and all of it at the end
    fio --name="$1" --ioengine=nbd --uri="$(cluster_nbd_uri "$1")" --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --blockalign=512 \
        --iodepth=8 --size=32M --time_based --runtime="$2" --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 \
        --randseed="$RANDOM" --output="$CLUSTER_DIR/fio-$1.out"
}
on_exit 'kill $(jobs -p) 2>/dev/null'
ended() { wait "$1" || fail "the load on $2 saw an error: $(tail -n 20 "$CLUSTER_DIR/fio-$2.out")"; }

for copies in 1 2; do
    p=pool$copies
    cistern pool create $p --copies $copies --partitions 16 --modules "$one,$two,$three"
    cistern volume create $p 32M --pool $p
    # What was there before anything moved, to be compared at the end.
    cistern volume create kept$p 16M --pool $p
    head -c 16M /dev/urandom >"$CLUSTER_DIR/kept"
    cluster_nbd kept$p kept$p
    nbdcopy "$CLUSTER_DIR/kept" "$(cluster_nbd_uri kept$p)"
    cluster_nbd $p $p
    load $p 45 &
    job=$!
    sleep 1

    cistern module add "$four" $p --wait
    [ "$(module "$four" partitions)" -ge $((copies * 4)) ] || fail "the new module has $(module "$four" partitions) partitions"
    echo "$p: added"
    cistern module drain "$two" --wait
    [ "$(module "$two" partitions)" = 0 ] && [ "$(module "$two" state)" = draining ] || fail "module $two is not empty"
    used=$(module "$two" used_bytes)
    [ "$used" = 0 ] || fail "module $two still has $used bytes"
    cistern partition show $p/3 | grep -q "is to get\|none" || fail "partition show does not tell what moves"
    echo "$p: drained"
    cistern module drain "$two" --undo --wait
    cistern module remove "$one" --wait
    out() { [ "$(module "$one" pool)" = "" ]; }
    wait_until 30 out || fail "module $one is not out of its pool"
    echo "$p: removed"
    if [ $copies = 2 ]; then
        cistern module add "$one" $p --wait
        cluster_kill9 osd3
        replaced() { [ "$(module "$three" state)" = replaced ] && [ "$(module "$three" partitions)" = 0 ] && at_rest $p; }
        wait_until 60 replaced || fail "the copies of a module that stays away were not made elsewhere: $(cistern pool status $p)"
        echo "$p: replaced"
        cluster_start osd3
        back() { [ "$(module "$three" partitions)" -ge 7 ] && at_rest $p; }
        wait_until 60 back || fail "a module that was replaced does not take its share when it is back"
    fi
    cistern pool grow-partitions $p --wait
    [ "$(pool $p partitions)" = 32 ] || fail "the pool has $(pool $p partitions) partitions"
    echo "$p: has more partitions"
    cluster_kill9 mdc
    cluster_start mdc
    ended $job $p
    wait_until 60 at_rest $p || fail "the pool did not come to rest: $(cistern pool status $p)"
    nbdcopy "$(cluster_nbd_uri kept$p)" - | cmp - "$CLUSTER_DIR/kept" || fail "what was written before the moves is not there"
    cluster_stop kept$p
    cluster_stop $p
    cistern volume detach $p client1
    cistern volume detach kept$p client1
    cistern volume delete $p --wait
    cistern volume delete kept$p --wait
    cistern pool delete $p
    all_free() { [ "$(cistern --json module list | json "all(m['pool'] == '' and m['used_bytes'] == 0 and m['state'] == 'up' for m in d)")" = True ]; }
    wait_until 60 all_free || fail "the modules are not empty, up and free of the pool: $(cistern module list)"
done
cistern status
echo "moves: ok"
