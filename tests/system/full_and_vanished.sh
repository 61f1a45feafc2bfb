#!/usr/bin/env bash
# A full pool answers ENOSPC and recovers when space comes back; a LUN that vanishes makes its I/O wait, and no more.
. "$(dirname "$0")/lib.sh"
need fio nbdkit tgtd nbdinfo

CLUSTER_OSDS=1
cluster_define_all 192M
cluster_start_all
cistern pool create main
cistern volume create big 2G
cluster_nbd nbd big
uri=$(cluster_nbd_uri nbd)
if fio --name=fill --ioengine=nbd --uri="$uri" --rw=write --bs=1m --size=2G --output="$CLUSTER_DIR/fill.out"; then
    fail "2 GiB fitted into less"
fi
grep -qiE 'no space|error=28|err=28' "$CLUSTER_DIR/fill.out" || fail "filling ended with something else: $(cat "$CLUSTER_DIR/fill.out")"
for s in mdc osd1 san1; do cluster_running $s || fail "$s did not survive a full disk"; done
# What was written is still read, and discards work on a full disk.
fio --name=read --ioengine=nbd --uri="$uri" --rw=read --bs=1m --size=64M --output=/dev/null
fio --name=trim --ioengine=nbd --uri="$uri" --rw=trim --bs=1m --size=2G --output=/dev/null
fio --name=again --ioengine=nbd --uri="$uri" --rw=write --bs=128k --size=64M --verify=crc32c --verify_state_save=0 --do_verify=1 --verify_fatal=1 \
    --output="$CLUSTER_DIR/again.out" || fail "no space after a discard: $(tail -n 5 "$CLUSTER_DIR/again.out")"

# The array goes away under load and comes back: the load waits, and loses nothing.
fio --name=lun --ioengine=nbd --uri="$uri" --rw=randwrite --bs=16k --iodepth=8 --size=64M --time_based --runtime=12 --verify=crc32c --verify_state_save=0 \
    --do_verify=1 --verify_fatal=1 --output="$CLUSTER_DIR/lun.out" &
load=$!
sleep 2
cluster_kill9 tgt
sleep 3
cluster_running san1 || fail "the SAN agent did not survive the loss of its LUN"
cluster_start_array
wait $load || fail "the load saw the loss of the LUN: $(tail -n 20 "$CLUSTER_DIR/lun.out")"
cluster_stop nbd
echo "full and vanished: ok"
