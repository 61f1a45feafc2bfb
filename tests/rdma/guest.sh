#!/usr/bin/env bash
# guest.sh: guests with real RDMA: Debian's own kernel with Soft-RoCE, under QEMU without KVM. Sourced by tests; or run:
#   guest.sh WORK SECONDS SCRIPT [ARGUMENT ...]
# which runs SCRIPT as root in one guest and exits with its code; 77, with a reason, when this machine cannot.
#
# A guest's root is the host's, read-only over 9p, with an overlay in memory; /mnt/out ($OUT) is a directory of the host that
# it may write. A test reads: guest_init WORK; settings (below); guest_run SECONDS SCRIPT..., or guest_start NAME SCRIPT...,
# guest_wait NAME SECONDS for several guests. Starting a NAME again keeps its $OUT: that is a reset ($GUEST_BOOT counts).

# ---- settings: read by guest_start ----
GUEST_MEMORY=${CISTERN_GUEST_MEM:-4096} # QEMU's -m: MiB, or "4096,slots=2,maxmem=8G"
GUEST_CPUS=2
GUEST_MODULES=()        # kernel modules to load besides those of RDMA; what they need is loaded before them
GUEST_OPTIONS=()        # more options for QEMU
GUEST_APPEND=           # more of the kernel's command line
GUEST_NET=dummy0        # the interface that rxe1 sits on: dummy0 or a virtio-net card (eth0); empty: no RDMA device
GUEST_ADDRESS=10.0.0.1  # of that interface, /24
GUEST_RESETS=0          # guest_run starts the guest again so often when it ended without an answer (reset, power cut)
GUEST_LABEL=            # not empty: lines of the console begin with it

guest_skip() { printf 'SKIPPED: %s\n' "$*" >&2; exit 77; }

# guest_init WORK: once; exits with 77 when guests cannot run here. Sets a trap on EXIT (guest_cleanup).
# The kernel is downloaded once into $CISTERN_GUEST_KERNEL (default WORK/kernel); it is not installed.
guest_init() {
    local program
    mkdir -p "$1"
    guest_work=$(cd "$1" && pwd)
    for program in qemu-system-x86_64 busybox modprobe depmod cpio dpkg-deb apt-get; do
        command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin:/sbin
        command -v "$program" >/dev/null || guest_skip "$program is not installed (./dev deps installs it)"
    done
    ! ldd "$(command -v busybox)" >/dev/null 2>&1 || guest_skip "busybox is not the static one (package busybox-static)"
    guest_kernel_get "${CISTERN_GUEST_KERNEL:-$guest_work/kernel}"
    guest_tsc=$(guest_tsc_khz)
    guest_dir=$(mktemp -d "${TMPDIR:-/tmp}/cistern-guest.XXXXXX")
    declare -gA guest_pid=()
    trap guest_cleanup EXIT
}

guest_cleanup() {
    local name
    for name in "${!guest_pid[@]}"; do kill -9 "${guest_pid[$name]}" 2>/dev/null || true; done
    rm -rf "$guest_dir"
}

guest_kernel_get() { # DIR
    local dir=$1 package lock
    mkdir -p "$dir"
    exec {lock}>"$dir/lock"
    flock "$lock"
    if [ ! -f "$dir/ready" ]; then
        rm -rf "$dir/deb" "$dir/root"
        mkdir -p "$dir/deb" "$dir/root"
        package=$(guest_kernel_package)
        if [ -z "$package" ] && [ "$(id -u)" = 0 ]; then # a machine without package lists
            apt-get update -q >/dev/null 2>&1 || true
            package=$(guest_kernel_package)
        fi
        [ -n "$package" ] || guest_skip "no package list names linux-image-amd64 (apt-get update)"
        (cd "$dir/deb" && apt-get download "$package" >download.log 2>&1) || guest_skip "cannot download $package"
        dpkg-deb -x "$dir"/deb/*.deb "$dir/root"
        depmod -b "$dir/root" "$(ls "$dir/root/lib/modules")"
        rm -rf "$dir/deb"
        touch "$dir/ready"
    fi
    exec {lock}>&-
    guest_root=$(cd "$dir/root" && pwd)
    guest_version=$(ls "$guest_root/lib/modules")
}

# The guest's clock is the host's time stamp counter. A busy host makes the guest measure its speed wrongly, by a factor even;
# so it is told.
guest_tsc_khz() {
    python3 - <<'PY'
import ctypes, mmap, time
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("0f3148c1e2204809d0c3"))  # rdtsc; shl rdx, 32; or rax, rdx; ret
rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

def sample():  # both clocks at the same instant: of some pairs the one that took least
    best = None
    for _ in range(50):
        t0 = time.monotonic_ns()
        c = rdtsc()
        t1 = time.monotonic_ns()
        if best is None or t1 - t0 < best[0]:
            best = (t1 - t0, (t0 + t1) // 2, c)
    return best[1:]

t0, c0 = sample()
time.sleep(0.5)
t1, c1 = sample()
print(round((c1 - c0) * 1e6 / (t1 - t0)))
PY
}

guest_kernel_package() {
    apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }'
}

# ---- initramfs: static busybox and the modules, in the order of their needs ----
guest_initrd() { # DIR
    local ram=$1/ram
    mkdir -p "$ram"/{bin,modules,proc,sys,dev,new,ro,rw}
    cp "$(command -v busybox)" "$ram/bin/busybox"
    ln -s busybox "$ram/bin/sh"
    guest_modules "$ram" boot virtio_pci 9p 9pnet_virtio overlay
    guest_modules "$ram" more crc32_generic dummy virtio_net rdma_rxe rdma_ucm ib_uverbs "${GUEST_MODULES[@]}"
    cat >"$ram/init" <<'INIT'
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
load more
visible() { # what a guest needs to see of the host below a directory that is the guest's own
    while read -r d; do $bb mkdir -p "/new$d"; $bb mount --bind "/ro$d" "/new$d" || echo "guest: no $d"; done </visible
}
for d in proc sys dev; do $bb mkdir -p /new/$d; $bb mount --move /$d /new/$d; done
$bb mkdir -p /new/dev/shm /new/dev/pts /new/run /new/tmp /new/mnt/out /new/lib/modules
$bb mount -t tmpfs tmpfs /new/dev/shm; $bb mount -t tmpfs tmpfs /new/run; $bb mount -t tmpfs -o mode=1777 tmpfs /new/tmp
visible
$bb mount -t 9p -o "$opts" out /new/mnt/out || echo "guest: no place for results"
$bb chroot /new /bin/bash /mnt/out/.script; echo $? >/new/mnt/out/.code
$bb sync
$bb poweroff -f
INIT
    chmod +x "$ram/init"
    guest_visible >"$ram/visible"
    (cd "$ram" && find . | cpio -o -H newc 2>/dev/null) | gzip -1 >"$1/initrd"
    rm -rf "$ram"
}

# The tree, its programs and the kernel, where they lie in a directory that the guest has of its own.
guest_visible() {
    local d
    for d in "$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)" "${CISTERN_BUILD:-}" "${CISTERN_BIN:-}" "$guest_work" "$guest_root"; do
        case $d in /tmp/* | /run/* | /dev/shm/*) echo "$d" ;; esac
    done | sort -u
}

guest_modules() { # RAM LIST MODULE...: several lists have their modules in one directory
    local ram=$1 list=$2 path m
    shift 2
    for path in $(for m in "$@"; do modprobe -C /dev/null -d "$guest_root" -S "$guest_version" --show-depends "$m"; done |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }'); do
        cp "$path" "$ram/modules/$(basename "$path")"
        basename "$path"
    done >"$ram/$list"
}

# ---- what runs inside, before the test's script ----
guest_script() { # BOOT SCRIPT...
    cat <<'SCRIPT'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root OUT=/mnt/out
ulimit -l unlimited
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
ip link set lo up
rxe() { # INTERFACE ADDRESS
    [ "$1" != dummy0 ] || ip link show dummy0 >/dev/null 2>&1 || ip link add dummy0 type dummy # the module may have made it
    ip addr add "$2/24" dev "$1" && ip link set "$1" mtu 4200 up && rdma link add rxe1 type rxe netdev "$1" && return
    echo "guest: no RDMA device"
    dmesg | tail -n 20
    exit 99
}
SCRIPT
    printf 'ln -s %q /lib/modules/ 2>/dev/null\n' "$guest_root/lib/modules/$guest_version"
    printf 'export GUEST_BOOT=%q GUEST_ADDRESS=%q\n' "$1" "$GUEST_ADDRESS"
    [ -z "$GUEST_NET" ] || printf 'rxe %q %q\n' "$GUEST_NET" "$GUEST_ADDRESS"
    shift
    printf '%q ' "$@"
    printf '\n'
}

# guest_out NAME: the directory that is its $OUT, to put something in before it starts.
guest_out() {
    mkdir -p "$guest_dir/$1/out"
    echo "$guest_dir/$1/out"
}

# guest_start NAME SCRIPT [ARGUMENT...]: boots a guest that runs it. Again with the same NAME: the same modules, the same $OUT.
guest_start() {
    local name=$1 dir=$guest_dir/$1 out boot
    shift
    out=$(guest_out "$name")
    [ -f "$dir/initrd" ] || guest_initrd "$dir"
    boot=$(cat "$dir/boots" 2>/dev/null || echo 0)
    echo $((boot + 1)) >"$dir/boots"
    rm -f "$out/.code"
    guest_script "$boot" "$@" >"$out/.script"
    qemu-system-x86_64 -accel tcg,thread=multi -cpu max,la57=off,-erms,-fsrm -smp "$GUEST_CPUS" -m "$GUEST_MEMORY" \
        -kernel "$guest_root/boot/vmlinuz-$guest_version" -initrd "$dir/initrd" \
        -append "console=ttyS0 quiet panic=-1 tsc=reliable clocksource=tsc tsc_early_khz=$guest_tsc mitigations=off no_timer_check \
cryptomgr.notests $GUEST_APPEND" \
        -nographic -no-reboot -nodefaults -serial stdio -monitor "unix:$dir/monitor,server=on,wait=off" \
        -virtfs local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap \
        -virtfs "local,path=$out,mount_tag=out,security_model=none" "${GUEST_OPTIONS[@]}" \
        </dev/null > >(if [ -n "$GUEST_LABEL" ]; then sed -u "s/^/$GUEST_LABEL/"; else cat; fi) &
    guest_pid[$name]=$!
}

# guest_wait NAME SECONDS: waits for its end. The script's code; 124: not within that time, killed; 125: it ended without
# an answer (a reset or a power cut).
guest_wait() {
    local pid=${guest_pid[$1]:-0} out=$guest_dir/$1/out end=$((SECONDS + $2))
    while [ "$pid" != 0 ] && kill -0 "$pid" 2>/dev/null; do
        if [ $SECONDS -ge $end ]; then
            echo "guest '$1' gives no answer within $2 s" >&2
            guest_cut "$1"
            return 124
        fi
        sleep 0.2
    done
    unset "guest_pid[$1]"
    [ -s "$out/.code" ] || return 125
    return "$(cat "$out/.code")"
}

# guest_cut NAME: the machine loses power.
guest_cut() {
    local pid=${guest_pid[$1]:-0}
    unset "guest_pid[$1]"
    [ "$pid" = 0 ] || kill -9 "$pid" 2>/dev/null || return 0
    wait "$pid" 2>/dev/null || true
}

# guest_monitor NAME COMMAND: says it to QEMU's monitor ("set_link n0 off").
guest_monitor() {
    python3 - "$guest_dir/$1/monitor" "$2" <<'PY'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect(sys.argv[1])
answer = b""
for command in (None, sys.argv[2]):
    if command:
        answer = b""
        s.sendall(command.encode() + b"\n")
    while not answer.endswith(b"(qemu) "):
        piece = s.recv(4096)
        if not piece:
            break
        answer += piece
PY
}

# guest_run SECONDS SCRIPT [ARGUMENT...]: one guest, at most GUEST_RESETS + 1 times; SECONDS for each. The script's code.
guest_run() {
    local seconds=$1 rc left=$GUEST_RESETS
    shift
    while :; do
        guest_start main "$@"
        rc=0
        guest_wait main "$seconds" || rc=$?
        [ $rc = 125 ] && [ "$left" -gt 0 ] || return $rc
        left=$((left - 1))
    done
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    guest_init "$1"
    shift
    guest_run "$@"
fi
