#!/usr/bin/env bash
# In the guest: a metadata controller, two OSDs, a gateway and a client over RDMA; fio writes and verifies, directly and
# through the gateway; the data is still there after an OSD was killed and came back.
export CLUSTER_NET=rdma:10.0.0.1 CLUSTER_SAN="" CLUSTER_OSDS=2
. "$(dirname "$0")/../system/lib.sh"
need fio nbdkit nbdcopy

mkdir -p "$CLUSTER_DIR/ports"
port=7100
for name in mdc osd1 osd2 san1 tgt vbs1 vbs2; do
    echo $((port++)) >"$CLUSTER_DIR/ports/$name"
done
say() { echo "[$SECONDS s] $*"; }
cluster_define_all 128M
cluster_start_all
say "services are up"
cistern pool create main
cistern volume create data 16M
say "volume made"

check() { # IMAGE: writes and verifies through nbdkit, then copies the volume to IMAGE
    local uri shape rw bs depth bytes
    cluster_nbd nbd data
    uri=$(cluster_nbd_uri nbd)
    for shape in "randwrite 4k 16 1M" "write 128k 4 4M" "randwrite 1536 4 192k"; do
        read -r rw bs depth bytes <<<"$shape"
        fio --name="$rw-$bs" --ioengine=nbd --uri="$uri" --rw="$rw" --bs="$bs" --iodepth="$depth" --size=16M --io_size="$bytes" \
            --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 --output-format=terse --terse-version=3 \
            >"$CLUSTER_DIR/fio.out" || fail "fio $shape: $(cat "$CLUSTER_DIR/fio.out")"
        say "fio $shape: verified"
    done
    nbdcopy "$uri" "$CLUSTER_DIR/$1"
    cluster_stop nbd
}
check direct.img
cluster_kill9 osd2
cluster_start osd2
cluster_nbd nbd data
nbdcopy "$(cluster_nbd_uri nbd)" "$CLUSTER_DIR/again.img"
cluster_stop nbd
cmp "$CLUSTER_DIR/direct.img" "$CLUSTER_DIR/again.img"
say "an OSD was killed and came back: same data"
CISTERN_CONFIG=$CLUSTER_DIR/gateway.conf check gateway.img
say "cluster over rdma: ok"
