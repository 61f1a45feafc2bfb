#!/usr/bin/env bash
# Bytes of a disk are flipped beneath a running module, and beneath a stopped one: with two copies nobody reads anything but what was
# written, and after a scrub every block of every module is whole.
. "$(dirname "$0")/lib.sh"
need fio nbdkit nbdcopy bc python3

CLUSTER_SAN=
cluster_define_all 256M
cluster_start_all
cistern pool create main --copies 2 --partitions 8
cistern volume create data 48M
cluster_nbd data data
uri=$(cluster_nbd_uri data)
# Each 4 KiB unit says which one it is: what lies where on the disks can be found without knowing the format.
python3 -c '
import sys
for n in range(48 << 8):
    sys.stdout.buffer.write((b"unit %08d of the volume " % n).ljust(64, b".") * 64)' > want
nbdcopy want "$uri"
in_sync() {
    local i
    for i in $(seq 0 7); do
        cistern --json partition show "main/$i" | grep -Eq '"in_sync": *\[[0-9]+, *[0-9]+\]' || return 1
    done
}
wait_until 30 in_sync || fail "the new pool's copies are not in sync"

rot() { # FILE EVERY: one byte of every so many units of the volume that lie in it
    python3 - "$1" "$2" <<'EOF'
import mmap, re, sys
with open(sys.argv[1], "r+b") as f:
    m = mmap.mmap(f.fileno(), 0)
    n = done = 0
    at = 16 << 20 # behind the journal
    while at + 4096 <= len(m):
        if re.match(rb"unit \d{8} of the volume ", m[at:at + 32]):
            n += 1
            if n % int(sys.argv[2]) == 0:
                m[at + 1000] ^= 0x40
                done += 1
        at += 4096
    m.flush()
    print(done)
EOF
}
whole() {
    rm -f got
    nbdcopy "$uri" got || fail "an error was read $1: $(tail -n 3 "$CLUSTER_DIR"/osd*.log)"
    cmp want got || fail "other data was read $1"
}
sum() { cistern --json module list | grep -oE "\"$1\": *[0-9]+" | grep -oE '[0-9]+$' | paste -sd+ | bc; }
at_least() { [ "$(sum "$1")" -ge "$2" ]; }

flipped=$(rot "$CLUSTER_DIR/osd1.img" 5)
[ "$flipped" -gt 50 ] || fail "only $flipped units were found on osd1"
whole "with $flipped rotten units beneath a running module"
wait_until 10 at_least repaired_units 1 || fail "nothing was repaired by reads: $(cistern --json module list)"
echo "$flipped units of osd1 flipped: the volume reads as it should, $(sum repaired_units) were repaired by that"

# What only a copy has that nobody reads, the scrub finds.
scrub_done() { ! cistern scrub status | grep -q running && [ "$(sum repaired_units)" -ge "$flipped" ]; }
cistern scrub start
wait_until 90 scrub_done || fail "the scrub did not repair all $flipped: $(cistern scrub status)"
cistern scrub status
[ "$(sum lost_units)" = 0 ] || fail "data was lost: $(cistern module list)"
[ "$(sum differing_blocks)" = 0 ] || fail "copies differ: $(cistern module list)"
whole "after the scrub"

# Beneath a module that is not there.
cluster_stop osd2
flipped=$(rot "$CLUSTER_DIR/osd2.img" 3)
# What the others repaired so far; osd2 counts from nothing. From its start on the first scrub may already go on with partitions that
# have changed hands.
before=$(cistern --json module list | python3 -c '
import json, sys
print(sum(m["repaired_units"] for m in json.load(sys.stdin) if m["name"] != "osd2"))')
cluster_start osd2
wait_until 60 in_sync || fail "the copies on osd2 did not come in sync"
whole "with $flipped rotten units in a module that was away"
scrub_done() { ! cistern scrub status | grep -q running && [ "$(sum repaired_units)" -ge $((before + flipped)) ]; }
cistern scrub start
wait_until 90 scrub_done || fail "the second scrub did not repair all $flipped: $(cistern scrub status)"
whole "after the second scrub"
echo "$flipped units of osd2 flipped while it was away, repaired"

cluster_stop data
for s in osd1 osd2 osd3; do
    cluster_stop $s
    "$CISTERN_BIN/cistern-osd" --check --check-data --data "$CLUSTER_DIR/$s.img" >"check-$s.out" 2>&1 ||
        fail "the check of $s: $(tail -n 12 "check-$s.out")"
done
echo "rot: ok"
