#!/usr/bin/env bash
# guest.sh WORK SECONDS SCRIPT [ARGUMENT ...]: runs SCRIPT as root in a guest with a Soft-RoCE device at 10.0.0.1.
#
# The guest is Debian's own kernel (downloaded once into WORK/kernel, not installed) under QEMU without KVM; its root is
# the host's, read-only over 9p, with an overlay in memory.
# Exits with the script's code; 77 with a reason when this machine cannot do it; 1 when the guest gives no answer.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$1 seconds=$2
shift 2
mkdir -p "$work"
work=$(cd "$work" && pwd)

skip() { printf 'SKIPPED: %s\n' "$*" >&2; exit 77; }
for program in qemu-system-x86_64 busybox modprobe depmod cpio dpkg-deb apt-get; do
    command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin:/sbin
    command -v "$program" >/dev/null || skip "$program is not installed (./dev deps installs it)"
done
! ldd "$(command -v busybox)" >/dev/null 2>&1 || skip "busybox is not the static one (package busybox-static)"

# ---- kernel ----
kernel=$work/kernel
exec 9>"$work/lock"
flock 9
if [ ! -f "$kernel/ready" ]; then
    rm -rf "$kernel"
    mkdir -p "$kernel/deb" "$kernel/root"
    newest() { apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }'; }
    package=$(newest)
    if [ -z "$package" ] && [ "$(id -u)" = 0 ]; then # a machine without package lists
        apt-get update -q >/dev/null 2>&1 || true
        package=$(newest)
    fi
    [ -n "$package" ] || skip "no package list names linux-image-amd64 (apt-get update)"
    (cd "$kernel/deb" && apt-get download "$package" >download.log 2>&1) || skip "cannot download $package"
    dpkg-deb -x "$kernel"/deb/*.deb "$kernel/root"
    depmod -b "$kernel/root" "$(ls "$kernel/root/lib/modules")"
    rm -rf "$kernel/deb"
    touch "$kernel/ready"
fi
exec 9>&-
version=$(ls "$kernel/root/lib/modules")

# ---- initramfs: static busybox and the modules, in the order of their needs ----
run=$(mktemp -d "${TMPDIR:-/tmp}/cistern-guest.XXXXXX")
qemu=0
cleanup() {
    [ "$qemu" = 0 ] || kill "$qemu" 2>/dev/null || true
    rm -rf "$run"
}
trap cleanup EXIT
mkdir -p "$run/ram/bin" "$run/ram/modules" "$run/ram/proc" "$run/ram/sys" "$run/ram/dev" "$run/ram/new" "$run/ram/ro" \
    "$run/ram/rw" "$run/out"
cp "$(command -v busybox)" "$run/ram/bin/busybox"
ln -s busybox "$run/ram/bin/sh"
order() { for m in "$@"; do modprobe -d "$kernel/root" -S "$version" --show-depends "$m"; done |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }'; }
copy() { # LIST MODULE ...: several lists number their modules one after the other
    local list=$1 path
    shift
    for path in $(order "$@"); do
        cp "$path" "$run/ram/modules/$(basename "$path")"
        basename "$path"
    done >"$run/ram/$list"
}
copy boot virtio_pci 9p 9pnet_virtio overlay
copy rdma crc32_generic dummy rdma_rxe rdma_ucm ib_uverbs
cat >"$run/ram/init" <<'INIT'
#!/bin/sh
bb=/bin/busybox
$bb mount -t proc proc /proc; $bb mount -t sysfs sys /sys; $bb mount -t devtmpfs dev /dev
load() { while read -r m; do $bb insmod "/modules/$m" 2>/dev/null; done <"/$1"; }
load boot
opts=trans=virtio,version=9p2000.L,msize=512000
$bb mount -t 9p -o "$opts,ro,cache=loose" hostroot /ro || echo "guest: no root"
$bb mount -t tmpfs tmpfs /rw
$bb mkdir /rw/up /rw/work
$bb mount -t overlay -o lowerdir=/ro,upperdir=/rw/up,workdir=/rw/work overlay /new || echo "guest: no overlay"
load rdma
for d in proc sys dev; do $bb mkdir -p /new/$d; $bb mount --move /$d /new/$d; done
$bb mkdir -p /new/dev/shm /new/dev/pts /new/run /new/tmp /new/mnt/out /new/lib/modules
$bb mount -t tmpfs tmpfs /new/dev/shm; $bb mount -t tmpfs tmpfs /new/run; $bb mount -t tmpfs -o mode=1777 tmpfs /new/tmp
$bb mount -t 9p -o "$opts" out /new/mnt/out || echo "guest: no place for results"
$bb chroot /new /bin/bash /mnt/out/script; echo $? >/new/mnt/out/code
$bb sync
$bb poweroff -f
INIT
chmod +x "$run/ram/init"
(cd "$run/ram" && find . | cpio -o -H newc 2>/dev/null) | gzip -1 >"$run/initrd"

# ---- what runs inside ----
{
    cat <<'SCRIPT'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root OUT=/mnt/out
ulimit -l unlimited
ip link set lo up
ip link show dummy0 >/dev/null 2>&1 || ip link add dummy0 type dummy # the module may have made it
ip addr add 10.0.0.1/24 dev dummy0 && ip link set dummy0 mtu 4200 up
rdma link add rxe1 type rxe netdev dummy0 || { echo "guest: no RDMA device"; dmesg | tail -n 20; exit 99; }
SCRIPT
    printf 'ln -s %q /lib/modules/ 2>/dev/null\n' "$kernel/root/lib/modules/$version"
    printf '%q ' "$@"
    printf '\n'
} >"$run/out/script"

timeout --foreground "$seconds" qemu-system-x86_64 -accel tcg,thread=multi -cpu max,la57=off,-erms,-fsrm -smp 2 \
    -m "${CISTERN_GUEST_MEM:-4096}" -kernel "$kernel/root/boot/vmlinuz-$version" -initrd "$run/initrd" \
    -append "console=ttyS0 quiet panic=-1 tsc=reliable clocksource=tsc mitigations=off cryptomgr.notests" \
    -nographic -no-reboot -nodefaults -serial stdio -monitor none \
    -virtfs local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap \
    -virtfs "local,path=$run/out,mount_tag=out,security_model=none" </dev/null &
qemu=$!
wait "$qemu" || true
qemu=0
[ -f "$run/out/code" ] || { echo "guest: no answer within $seconds s" >&2; exit 1; }
exit "$(cat "$run/out/code")"
