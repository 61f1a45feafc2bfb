#!/usr/bin/env bash
# guest_pmem.sh: in the guest: a metadata controller and an OSD over RDMA, the journal on persistent memory (/dev/pmem0, ext4 with
# DAX), data and metadata on disks whose cache forgets; a volume served over NBD to the host. Until the machine is reset.
export CLUSTER_NET=rdma:10.0.0.1 CLUSTER_SAN="" CLUSTER_OSDS=1
. "$(dirname "$0")/../system/lib.sh"
need ndctl nbdkit mkfs.ext4

mkdir -p /run/pmem /run/meta "$CLUSTER_DIR/ports"
if [ "$GUEST_BOOT" = 0 ]; then
    wait_until 60 test -e /dev/pmem0 || fail "no persistent memory in this guest: $(lsmod)"
    ndctl create-namespace -f -e namespace0.0 --mode=fsdax >"$OUT/namespace"
    mkfs.ext4 -q -b 4096 /dev/pmem0
    mkfs.ext4 -q /dev/vdb
    (umask 077 && head -c 32 /dev/urandom | base64 >"$OUT/secret")
fi
wait_until 60 test -e /dev/pmem0 -a -e /dev/vdb || fail "a device is missing: $(ls /dev)"
mount -o dax /dev/pmem0 /run/pmem
mount /dev/vdb /run/meta
cp "$OUT/secret" "$CLUSTER_DIR/secret"
chmod 600 "$CLUSTER_DIR/secret"
port=7100
for name in mdc osd1 vbs1 vbs2; do echo $((port++)) >"$CLUSTER_DIR/ports/$name"; done
cluster_define_all
sed -i "s|^$CLUSTER_DIR/mdc\$|/run/meta/mdc|" "$CLUSTER_DIR/mdc.args"
sed -i "s|^$CLUSTER_DIR/osd1.img\$|/dev/vda|" "$CLUSTER_DIR/osd1.args"
# A small journal goes round all the time.
printf '%s\n' --journal /run/pmem/osd1 --journal-size 8M --buffer-memory 32M >>"$CLUSTER_DIR/osd1.args"
[ "$GUEST_BOOT" = 0 ] || sed -i 's/^--create$/--format=false/' "$CLUSTER_DIR/osd1.args"
for name in mdc osd1; do
    cluster_launch $name
    wait_until 180 cluster_is_ready $name && cluster_running $name || fail "$name does not get ready"
done
grep -q 'msg="journal medium is persistent memory"' "$CLUSTER_DIR/osd1.log" || fail "the journal is not on persistent memory"
grep -E 'msg="(store opened|serving|journal)' "$CLUSTER_DIR/osd1.log" || true
if [ "$GUEST_BOOT" = 0 ]; then
    cistern pool create main
    cistern volume create v 32M
fi
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
LD_PRELOAD=$(ldd "$CISTERN_PLUGIN" | awk '/libasan/ { print $3 }') \
    nbdkit -f -i 10.0.2.15 -p 10809 "$CISTERN_PLUGIN" volume=v take-over=true "config=$CISTERN_CONFIG" &
echo $! >"$CLUSTER_DIR/nbd.pid"
wait_until 120 bash -c '</dev/tcp/10.0.2.15/10809' 2>/dev/null || fail "the volume is not served"
echo "$GUEST_BOOT" >"$OUT/serving"
while [ ! -e "$OUT/end" ]; do
    cluster_running osd1 && cluster_running mdc && cluster_running nbd || fail "a service has ended"
    sleep 0.5
done
rm "$OUT/serving"
cluster_stop nbd
