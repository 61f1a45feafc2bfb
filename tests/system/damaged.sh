#!/usr/bin/env bash
# A module loses metadata in both copies beneath it. With two copies nobody sees it, copies are made elsewhere by themselves, and a new
# disk takes its place; a partition that has nothing else is copied nowhere. `cistern status` says what to do all the time.
. "$(dirname "$0")/lib.sh"
need python3 nbdkit nbdcopy qemu-img

CLUSTER_OSDS=4
CLUSTER_SAN=
cluster_define_all 256M
cluster_define mdc $(tr '\n' ' ' <"$CLUSTER_DIR/mdc.args") --heartbeat 200ms --replace-after 6s
cluster_start_all
cistern pool create main --copies 2 --partitions 16
cistern volume create data 48M
head -c $((48 << 20)) /dev/urandom >want
cluster_nbd data data
uri=$(cluster_nbd_uri data)
nbdcopy want "$uri"

status_says() { cistern status | tee status.out | grep -Eq -- "$1"; }
says() { wait_until "${2:-20}" status_says "$1" || fail "status does not say '$1': $(cat status.out)"; }
module() { # NAME FIELD
    cistern --json module list | python3 -c 'import json, sys
print(*[m[sys.argv[2]] for m in json.load(sys.stdin) if m["name"] == sys.argv[1]])' "$1" "$2"
}
whole() {
    rm -f got
    nbdcopy "$uri" got || fail "an error was read $1"
    cmp want got || fail "other data was read $1"
}
lose_pages() { # FILE EVERY: one of so many pages of metadata in use, in both copies
    "$CISTERN_BIN/cistern-osd" --check --json --data "$1" >layout.json || fail "the check: $(cat layout.json)"
    python3 - "$1" "$2" <<'EOF'
import json, os, sys
l = json.load(open("layout.json"))["layout"]
a = 65536 + l["journal_bytes"]
with open(sys.argv[1], "r+b") as f:
    for p in range(l["metadata_pages_used"] - 1, 0, -int(sys.argv[2])):
        for at in (a, a + l["metadata_pages"] * 4096):
            f.seek(at + p * 4096 + 300)
            f.write(os.urandom(64))
EOF
}
says '^health +ok'

echo "-- one of four"
cluster_stop osd3
says 'module 3 \(osd3 of node3\) has been down for .*lack a copy\. Start it'
says 'have one good copy left'
lose_pages osd3.img 7
cluster_start osd3
says 'module 3 \(osd3 of node3\) is damaged: what it has of .* does not count\. In [0-9]+ s copies are made elsewhere'
whole "with a damaged module"
says 'module 3 .* is damaged, and has nothing that is needed: stop it, wipe its disk' 60
[ "$(module osd3 partitions)" = 0 ] || fail "the damaged module has partitions: $(cistern module list)"
all_in_sync() { [ "$(cistern --json status | python3 -c 'import json, sys; s = json.load(sys.stdin); print(s["copies_missing"] + s["moves"] + s["partitions_single"])')" = 0 ]; }
wait_until 60 all_in_sync || fail "not all copies are in sync: $(cistern status; cistern pool status)"
whole "when all copies are elsewhere"
grep -q 'its store is damaged' mdc.log || fail "the controller's log does not tell of the damage"

echo "-- a new disk"
expect_error "it is in that pool" cistern module add 3
cluster_stop osd3
rm osd3.img
cluster_start osd3
wait_until 20 test -n "$(module osd3 id)" || fail "the new disk is not there: $(cistern module list)"
cistern module add 5 --wait
cistern module remove 3
says 'module 3 .* is in no pool: start it, or have it forgotten \(cistern module remove 3\)'
cistern module remove 3
says '^health +ok' 60
[ "$(module osd3 state)" = up ] && [ "$(module osd3 partitions)" -gt 0 ] || fail "the new disk takes nothing: $(cistern module list)"
whole "with the new disk"

echo "-- the last one that has it"
# osd1 stays away while all is written anew, then the one that shares most partitions with it loses pages: what only that one knew goes
# nowhere, and what osd1 still has of before is not taken for it.
victim=$(cistern --json partition list | python3 -c 'import collections, json, sys
shared = collections.Counter(m for p in json.load(sys.stdin) for m in p["members"] if 1 in p["members"] and m != 1)
print(shared.most_common(1)[0][0])')
disk=osd$([ "$victim" = 5 ] && echo 3 || echo "$victim")
echo "module $victim, $disk"
cluster_stop data
cluster_stop osd1
says 'has been down' # the others go on without it
head -c $((48 << 20)) /dev/urandom >want
cluster_nbd data data
nbdcopy want "$uri"
cluster_stop data
for s in osd2 osd3 osd4; do cluster_stop $s; done
lose_pages "$disk.img" 3
for s in osd1 osd2 osd3 osd4; do cluster_start $s; done
says "module $victim .* is damaged"
cluster_nbd data data
# Either what was written, or an error: never zeroes, never what was there before.
errors=0
for ((i = 0; i < 48; i++)); do
    rm -f part
    if timeout 60 qemu-img dd -f raw -O raw bs=1M skip=$i count=$((i + 1)) "if=$uri" of=part 2>part.err; then
        cmp -i $((i << 20)):0 -n $((1 << 20)) want part || fail "MiB $i is neither what was written nor an error"
    else
        grep -q 'Input/output error' part.err || fail "MiB $i: $(cat part.err)"
        errors=$((errors + 1))
    fi
done
echo "$errors of 48 MiB answered with an error"
[ $errors -gt 0 ] || fail "nothing was lost: this test shows nothing"
# In time the others make copies of all that has another one; the rest stays where it is, and status says that nobody else has it.
settled() {
    cistern --json pool status main | python3 -c 'import json, sys
p = json.load(sys.stdin)
sys.exit(not (p["moves_stuck"] > 0 and max(p["moves_joining"], p["moves_waiting"]) <= p["moves_stuck"]))'
}
wait_until 60 settled || fail "it does not come to rest: $(cistern pool status)"
says 'no module that is up and well has their data'
cistern status
cistern pool status
echo "damaged: ok"
