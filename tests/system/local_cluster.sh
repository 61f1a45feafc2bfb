#!/usr/bin/env bash
# local_cluster.sh up|down|status: the cluster of ./dev up: every service on loopback, a volume, a filesystem with real files.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
CLUSTER_DIR=${CISTERN_DIR:-$top/.run}
MOUNT=$CLUSTER_DIR/mnt
CLUSTER_METRICS=yes
export CLUSTER_DIR
# shellcheck source=tests/system/cluster.sh
. "$here/cluster.sh"

step() { if [ -t 1 ]; then printf '\033[1m==> %s\033[0m\n' "$*"; else printf '==> %s\n' "$*"; fi; }

unmount() {
    local loop
    if mountpoint -q "$MOUNT" 2>/dev/null; then umount "$MOUNT"; fi
    loop=$(losetup -j "$CLUSTER_DIR/nbd/volume" 2>/dev/null | cut -d: -f1 || true)
    [ -z "$loop" ] || losetup -d "$loop"
    # The loop device goes when its last user does: a mount namespace that was made meanwhile may be one.
    if mountpoint -q "$CLUSTER_DIR/nbd" 2>/dev/null &&
        ! wait_until 3 fusermount3 -q -u "$CLUSTER_DIR/nbd" 2>/dev/null; then
        fusermount3 -u -z "$CLUSTER_DIR/nbd"
    fi
    [ ! -e "$CLUSTER_DIR/nbdfuse.pid" ] || { wait_until 5 cluster_gone nbdfuse || cluster_kill9 nbdfuse; rm -f "$CLUSTER_DIR/nbdfuse.pid"; }
}

# Mounts the volume: nbdkit (libcistern) -> nbdfuse -> loop device -> ext4.
mount_volume() { # [mkfs]
    local loop
    mkdir -p "$CLUSTER_DIR/nbd" "$MOUNT"
    cluster_nbd nbd demo
    setsid nbdfuse "$CLUSTER_DIR/nbd/volume" "$(cluster_nbd_uri nbd)" >>"$CLUSTER_DIR/nbdfuse.log" 2>&1 </dev/null &
    echo $! >"$CLUSTER_DIR/nbdfuse.pid"
    wait_until 10 test -f "$CLUSTER_DIR/nbd/volume" || { cat "$CLUSTER_DIR/nbdfuse.log" >&2; return 1; }
    loop=$(losetup -f --show "$CLUSTER_DIR/nbd/volume")
    [ "${1:-}" != mkfs ] || mkfs.ext4 -q "$loop"
    mount "$loop" "$MOUNT"
}

down() {
    [ -d "$CLUSTER_DIR" ] || { echo "there is no cluster in $CLUSTER_DIR"; return 0; }
    unmount
    cluster_stop_all
    if [ "${1:-}" = --wipe ]; then
        rm -rf "$CLUSTER_DIR"
        echo "stopped, data removed"
    else
        echo "stopped; the data is kept in $CLUSTER_DIR (./dev up goes on with it, ./dev down --wipe removes it)"
    fi
}

can_mount() {
    [ "$(id -u)" = 0 ] && [ -e /dev/fuse ] && [ -e /dev/loop-control ]
}

# The fallback where this machine cannot mount: the same files in an ext4 image, through the same volume.
copy_image() {
    local uri back=$CLUSTER_DIR/back.img
    mke2fs -q -t ext4 -d "$source" "$CLUSTER_DIR/fs.img" 200M
    cluster_nbd nbd demo
    uri=$(cluster_nbd_uri nbd)
    nbdcopy "$CLUSTER_DIR/fs.img" "$uri"
    cluster_stop nbd
    cluster_nbd nbd demo
    nbdcopy "$uri" "$back"
    e2fsck -fn "$back"
    cmp -n "$(stat -c %s "$CLUSTER_DIR/fs.img")" "$CLUSTER_DIR/fs.img" "$back"
    echo "an ext4 image with these files went in and came back equal (this machine has no FUSE or loop device to mount it)"
}

store_files() {
    local files
    step "an ext4 on the volume, with the files of $source"
    mount_volume mkfs
    cp -a "$source" "$MOUNT/files"
    sync -f "$MOUNT"
    step "unmounted, checked, mounted again, compared"
    umount "$MOUNT"
    e2fsck -fp "$(losetup -j "$CLUSTER_DIR/nbd/volume" | cut -d: -f1)" || { echo "e2fsck found errors" >&2; return 1; }
    unmount
    cluster_stop nbd
    mount_volume
    diff -r --no-dereference "$source" "$MOUNT/files"
    files=$(find "$MOUNT/files" -type f | wc -l)
    echo "$files files ($(du -sh "$MOUNT/files" | cut -f1)) are equal to their originals after a remount through a new client process"
}

up() {
    local fresh=no
    source=${CISTERN_FILES:-/usr/share/doc}
    [ -d "$source" ] && [ -n "$(ls -A "$source")" ] || source=/usr/share/common-licenses
    [ -d "$CLUSTER_DIR/mdc" ] || fresh=yes
    step "starting: an array (tgt, iSCSI), mdc, $CLUSTER_OSDS OSDs, a SAN agent, a gateway"
    cluster_define_all 1G
    cluster_start_all
    if [ $fresh = yes ]; then
        step "a pool over the OSDs' disks and the array's LUN, and a volume in it"
        cistern pool create main
        cistern volume create demo 1G
        if can_mount; then store_files; else copy_image; fi
    elif can_mount && ! mountpoint -q "$MOUNT"; then
        mount_volume
    fi
    step "the cluster"
    cistern status
    echo
    cistern module list
    echo
    cistern volume list
    cat <<TEXT

Running; logs, data and sockets are in $CLUSTER_DIR
$(can_mount && echo "The volume is mounted at $MOUNT")
What to try next:
  export CISTERN_CONFIG=$CISTERN_CONFIG PATH=$CISTERN_BIN:\$PATH
  cistern status                                        # health; also: module, pool, partition, volume, node, gateway list
  cistern top                                           # what all of them do, live
  curl -s 127.0.0.1:$(cluster_port osd1.metrics)/metrics            # for Prometheus; also /healthz, /readyz; ports are in $CLUSTER_DIR/ports
  cistern volume create db 2G && cistern bench db       # another volume, and how fast it is
  kill -9 \$(cat $CLUSTER_DIR/osd1.pid)                  # then ./dev up brings it back: I/O waits, nothing is lost
  nbdkit -f -U /tmp/db.sock $CISTERN_PLUGIN volume=db &   # a volume for fio, qemu, kernels
  ./dev down                                            # stop; the data is kept
TEXT
}

case ${1:-} in
up) up ;;
down) down "${2:-}" ;;
status)
    cluster_define_all 1G
    for s in tgt $(cluster_services) nbd; do
        if cluster_running "$s"; then echo "$s: running, pid $(cat "$CLUSTER_DIR/$s.pid")"; else echo "$s: not running"; fi
    done
    cistern --timeout 3s status
    ;;
*) echo "usage: local_cluster.sh up|down|status" >&2; exit 2 ;;
esac
