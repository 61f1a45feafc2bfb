#!/usr/bin/env bash
# A volume over three OSDs and an array's LUN: fio verifies it in every shape, an ext4 on it holds a tree of real files.
. "$(dirname "$0")/lib.sh"
need fio nbdkit nbdfuse tgtd mke2fs e2fsck debugfs nbdcopy qemu-img

cluster_define_all 384M
cluster_start_all
cistern pool create main
cistern volume create data 256M
cistern module list
cluster_nbd nbd data
uri=$(cluster_nbd_uri nbd)

for shape in "randwrite 512 1" "randwrite 4k 32" "write 64k 8" "randwrite 1536 64" "write 1m 4" "randwrite 128k 16"; do
    read -r rw bs depth <<<"$shape"
    fio --name="$rw-$bs-$depth" --ioengine=nbd --uri="$uri" --rw="$rw" --bs="$bs" --iodepth="$depth" --size=256M --io_size=24M \
        --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 --randseed=7 --output-format=terse --terse-version=3 >"$CLUSTER_DIR/fio.out" ||
        fail "fio $shape: $(cat "$CLUSTER_DIR/fio.out")"
done

# Every module of the pool holds some of it, the LUN too.
cistern --json module list | python3 -c '
import json, sys
modules = json.load(sys.stdin)
assert len(modules) == 4, modules
for m in modules:
    assert m["used_bytes"] > 0 and m["state"] == "up", m'

# Real files: a filesystem made from a tree, copied in, checked, and compared after another process opened the volume.
mkdir "$CLUSTER_DIR/tree"
cp -r /usr/share/common-licenses /usr/share/perl5 "$CLUSTER_DIR/tree/" 2>/dev/null || cp -r /etc "$CLUSTER_DIR/tree/"
mke2fs -q -t ext4 -d "$CLUSTER_DIR/tree" "$CLUSTER_DIR/fs.img" 200M
nbdcopy "$CLUSTER_DIR/fs.img" "$uri"
cluster_stop nbd
cluster_nbd nbd data
nbdcopy "$uri" "$CLUSTER_DIR/back.img"
cmp -n $((200 * 1024 * 1024)) "$CLUSTER_DIR/fs.img" "$CLUSTER_DIR/back.img"
e2fsck -fn "$CLUSTER_DIR/back.img" >/dev/null
# Thin: what was never written is a hole that clients see.
cistern volume create thin 1G
cluster_nbd thin thin
[ "$(nbdinfo --map --totals "$(cluster_nbd_uri thin)" | awk '$3 == 0 { print $1 }')" = "" ] || fail "a new volume is not a hole"
qemu-img info "$(cluster_nbd_uri thin)" | grep '1 GiB' >/dev/null
cluster_stop thin
cluster_stop nbd
echo "first light: ok"
