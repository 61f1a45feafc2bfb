#!/usr/bin/env bash
# cistern-osd --check and --repair-metadata on the file of a real OSD: rot in each area is said for what it is, a repair heals
# what has a second copy, the OSD starts and the data are what was written; and a check writes not a byte.
. "$(dirname "$0")/lib.sh"

CLUSTER_OSDS=1
osd() { "$CISTERN_BIN/cistern-osd" --data "$img" "$@"; }
# check STATUS PATTERN [OPTIONS...]: the exit status, and a line of the report.
check() {
    local want=$1 pattern=$2 rc=0
    shift 2
    osd "$@" >report 2>&1 || rc=$?
    [ $rc -eq "$want" ] || { cat report; fail "'$*' ended with $rc, not $want"; }
    grep -q -- "$pattern" report || { cat report; fail "'$*' does not say: $pattern"; }
}
field() { python3 -c 'import json,sys; r=json.load(sys.stdin); print(eval("r"+sys.argv[1]))' "$1"; }
rot() { # OFFSET: 64 bytes become something else
    head -c 64 /dev/urandom | dd of="$img" bs=1 seek="$1" conv=notrunc status=none
}

need python3 nbdkit nbdcopy qemu-io
cluster_define_all 96M
img=$CLUSTER_DIR/osd1.img
cluster_start mdc
cluster_start osd1
check 8 'in use' --check
cistern pool create main
cistern volume create v 32M
head -c $((32 << 20)) /dev/urandom >mirror
copy_in() { # copies the mirror into the volume
    cluster_nbd nbd v
    nbdcopy mirror "$(cluster_nbd_uri nbd)"
    cluster_stop nbd
}
compare() {
    cluster_nbd nbd v
    nbdcopy "$(cluster_nbd_uri nbd)" back
    cluster_stop nbd
    cmp mirror back || fail "the volume is not what was written"
}
copy_in
head -c $((1 << 20)) /dev/urandom | dd of=mirror bs=4k seek=3 conv=notrunc status=none
copy_in
cluster_kill9 osd1

# As a killed process left it: a journal to be applied, nothing wrong, nothing written.
before=$(sha256sum <"$img")
check 0 'result: *clean, all data read' --check --check-data
grep -q 'changes are applied at the next start' report || fail "the journal is not mentioned"
check 0 '"result": "clean"' --check --json
[ "$before" = "$(sha256sum <"$img")" ] || fail "a check has written to the device"
cluster_start osd1
compare
cluster_stop osd1
check 0 'result: *clean' --check --check-data
osd --check --json >layout.json
meta_a=$(python3 -c 'print(65536 + int(__import__("json").load(open("layout.json"))["layout"]["journal_bytes"]))')
pages=$(field '["layout"]["metadata_pages"]' <layout.json)
used=$(field '["layout"]["metadata_pages_used"]' <layout.json)
slots=$(field '["layout"]["slots_offset"]' <layout.json)
meta_b=$((meta_a + pages * 4096))
cp --sparse=always "$img" good.img

echo "-- one copy of each area"
for at in 100 $((32768 + 100)) $((meta_a + 100)) $((meta_b + 5000)) $((meta_a + (used - 1) * 4096 + 300)); do
    cp --sparse=always good.img "$img"
    rot "$at"
    before=$(sha256sum <"$img")
    check 4 '  ERROR ' --check
    check 4 'would write' --repair-metadata --dry-run
    [ "$before" = "$(sha256sum <"$img")" ] || fail "a dry run has written to the device"
    check 1 'result: *corrected: 1 copies' --repair-metadata
    cmp good.img "$img" || fail "the repair left something else than was there (rot at $at)"
    check 0 'nothing is to be repaired' --repair-metadata
done

echo "-- many at once"
rot 100
for ((p = 0; p < used; p += 7)); do rot $((meta_a + p * 4096 + 200)); done
for ((p = 3; p < used; p += 7)); do rot $((meta_b + p * 4096 + 200)); done
check 1 'corrected' --repair-metadata
cmp good.img "$img" || fail "the repair of many pages left something else than was there"

echo "-- lost in both copies"
rot $((meta_a + (used - 1) * 4096 + 300))
rot $((meta_b + (used - 1) * 4096 + 300))
before=$(sha256sum <"$img")
check 4 'is damaged in both copies' --check
check 4 'nothing is to be repaired' --repair-metadata
[ "$before" = "$(sha256sum <"$img")" ] || fail "the repair wrote although nothing was to be repaired"
cp --sparse=always good.img "$img"

echo "-- both superblocks"
rot 100
rot $((32768 + 100))
check 4 'both copies of its superblock are damaged' --check
check 4 'both copies' --repair-metadata
cp --sparse=always good.img "$img"

echo "-- healed: it starts, and the data are those of before"
rot $((32768 + 100))
rot $((meta_a + 100))
rot $((meta_b + (used - 1) * 4096 + 300))
check 1 'corrected' --repair-metadata
cluster_start osd1
compare
cluster_stop osd1

echo "-- data"
rot $((slots + 131072 + 8192 + 10))
rot $((slots + 131072 + 16384 + 10))
check 0 'result: *clean' --check
check 4 'bytes [0-9]* to [0-9]* .*wrong checksum' --check --check-data
id=$(cistern --json volume list | field '[0]["id"]')
grep -q "volume:     $id .*DAMAGED: 2 times 4 KiB" report || { cat report; fail "the volume's damage is not told"; }
from=$(sed -n 's/.*volume [0-9a-f]*, bytes \([0-9]*\) to.*/\1/p' report)
check 4 'nothing is to be repaired' --repair-metadata --check-data
cluster_start osd1
cluster_nbd nbd v
uri=$(cluster_nbd_uri nbd)
range() { qemu-io -f raw "$uri" "$@" >qemu-io.out 2>&1; }
range -c "read $((from + 4096)) 4096" || { cat qemu-io.out; fail "a whole unit between two rotten ones can not be read"; }
if range -c "read $from 4096" && ! grep -q 'failed' qemu-io.out; then fail "a rotten unit was read"; fi
dd if=mirror of=part bs=4k skip=$((from / 4096)) count=4 status=none
range -c "write -s part $from 16384" || { cat qemu-io.out; fail "a write does not heal"; }
cluster_stop nbd
compare
cluster_stop osd1
check 0 'result: *clean, all data read' --check --check-data

echo "-- not what it should be"
head -c 1048576 /dev/urandom >noise.img
img=noise.img
check 8 'holds no store of ours' --check
check 8 'nothing was repaired' --repair-metadata
img=$CLUSTER_DIR/nothing.img
check 8 'not there' --check
img=$CLUSTER_DIR
check 8 'neither a file nor a disk' --check
img=$CLUSTER_DIR/osd1.img
check 8 'journal on the same device' --check --journal noise.img
check 2 'belongs to --repair-metadata' --check --dry-run
check 2 'belong to --check' --json
echo "check: ok"
