#!/usr/bin/env bash
# Pools with two copies that fill up, one member alone before the others: "no space" comes before any harm, discards and deletes make
# room, and what was written is what is read.
. "$(dirname "$0")/lib.sh"
need fio nbdkit nbdcopy

CLUSTER_SAN=
cluster_define_all 96M
# The third one is smaller, and is said to be as large as the others: it is full while they have room.
cluster_define osd3 "$CISTERN_BIN/cistern-osd" --name osd3 --host node3 --data "$CLUSTER_DIR/osd3.img" --create --data-size 64M \
    --listen "$CLUSTER_NET:$(cluster_port osd3)" --mdc "$CLUSTER_NET:$(cluster_port mdc)" --media ssd \
    --secret-file "$CLUSTER_DIR/secret" --ready-file "$CLUSTER_DIR/osd3.ready"
cluster_start_all
cistern pool create main --copies 2 --partitions 16
id=$(cistern --json module list | tr -d '\n' | grep -oE '"id": *[0-9]+, *"name": *"osd3"' | grep -oE '[0-9]+' | head -1)
cistern module reweight "$id" 96M >/dev/null
in_sync() {
    local i
    for i in $(seq 0 15); do
        cistern --json partition show "main/$i" | grep -Eq '"in_sync": *\[[0-9]+, *[0-9]+\]' || return 1
    done
}
wait_until 60 in_sync || fail "the new pool's copies are not in sync"
cistern volume create keep 16M
cistern volume create big 1G
cluster_nbd keep keep
cluster_nbd big big
head -c 16777216 /dev/urandom >want
nbdcopy want "$(cluster_nbd_uri keep)"

fill() { # writes until there is no room
    if fio --name=fill --ioengine=nbd --uri="$(cluster_nbd_uri big)" --rw=write --bs=256k --iodepth=4 --size=512M --output=fill.out; then
        fail "512 MiB fitted into less"
    fi
    grep -qiE 'no space|error=28|err=28' fill.out || fail "filling ended with something else: $(tail -n 20 fill.out)"
}
kept() {
    rm -f got
    nbdcopy "$(cluster_nbd_uri keep)" got || fail "cannot be read $1"
    cmp want got || fail "other data $1"
}
full_is_said() { [ "$(cistern --json status | grep -oE '"modules_(near_)?full": *[0-9]+' | grep -oE '[0-9]+$' | awk '{ n += $1 } END { print n + 0 }')" -ge 1 ]; }
nothing_is_said() { ! full_is_said; }
verified() {
    fio --name=again --ioengine=nbd --uri="$(cluster_nbd_uri big)" --rw=write --bs=64k --size=24M --verify=crc32c --verify_state_save=0 \
        --do_verify=1 --verify_fatal=1 --output=again.out || fail "no space $1: $(tail -n 5 again.out)"
}
for round in 1 2; do
    fill
    wait_until 10 full_is_said || fail "nobody says that a module is full: $(cistern status)"
    cistern status | grep -i full
    for s in mdc osd1 osd2 osd3; do cluster_running $s || fail "$s did not survive"; done
    kept "while the pool is full"
    # An overwrite needs no room; a discard makes some.
    nbdcopy want "$(cluster_nbd_uri keep)" || fail "what is there could not be written again on full modules"
    fio --name=trim --ioengine=nbd --uri="$(cluster_nbd_uri big)" --rw=trim --bs=1m --size=512M --output=/dev/null
    wait_until 20 nothing_is_said || fail "still full after a discard of everything: $(cistern module list)"
    verified "after a discard"
    wait_until 60 in_sync || fail "the copies are not in sync after all"
    kept "after the discard"
    echo "round $round: full, and room again"
done

# A delete makes room, too; and a member that was away while the others filled up comes back.
cluster_stop osd2
fill
cluster_start osd2
cluster_stop big
cistern volume delete big --force --wait >/dev/null
cistern volume create big 1G
cluster_nbd big big
wait_until 60 in_sync || fail "the copies on osd2 did not come in sync: $(cistern status)"
verified "after a delete"
kept "at the end"
cistern scrub start
scrubbed() { ! cistern scrub status | grep -qE 'running|idle'; }
wait_until 60 scrubbed || fail "the scrub did not end: $(cistern scrub status)"
[ "$(cistern --json scrub status | grep -oE '"(differing_blocks|lost_units)": *[0-9]+' | grep -oE '[0-9]+$' | paste -sd+ | bc)" = 0 ] ||
    fail "copies differ: $(cistern scrub status)"
cluster_stop big
cluster_stop keep
echo "full copies: ok"
