#!/usr/bin/env bash
# journal_guest.sh [ARGUMENT of journal.sh ...]: journal.sh in a guest, with the journal on emulated persistent memory (ext4 with DAX on
# QEMU's nvdimm) and the data on a virtio disk that is a file of this host, without its page cache. CISTERN_BUILD: an optimised build.
set -euo pipefail
if [ -n "${GUEST_BOOT:-}" ]; then
    until [ -e /dev/pmem0 ] && [ -e /dev/vda ]; do sleep 0.2; done
    ndctl create-namespace -f -e namespace0.0 --mode=fsdax >/dev/null
    mkfs.ext4 -q -b 4096 /dev/pmem0
    mkfs.ext4 -q /dev/vda
    mkdir -p /run/pmem /run/disk
    mount -o dax /dev/pmem0 /run/pmem
    mount /dev/vda /run/disk
    exec "$(dirname "$0")/journal.sh" --disk /run/disk --journal /run/pmem "$@"
fi
. "$(dirname "$(readlink -f "$0")")/../tests/rdma/lib.sh"
truncate -s 128M "$guest_dir/pmem"
disk=$(mktemp "${CISTERN_BENCH_DIR:-${TMPDIR:-/var/tmp}}/cistern-journal.XXXXXX")
trap 'rm -f "$disk"; guest_cleanup' EXIT
truncate -s 3G "$disk"
GUEST_MEMORY=3072,slots=2,maxmem=6G
GUEST_MODULES=(virtio_blk ext4 libnvdimm nfit nd_pmem dax_pmem device_dax)
GUEST_OPTIONS=(-machine "nvdimm=on" -object "memory-backend-file,id=pmem,share=on,mem-path=$guest_dir/pmem,size=128M"
    -device "nvdimm,memdev=pmem,id=nvdimm0"
    -blockdev "driver=file,filename=$disk,node-name=disk,cache.direct=on" -device "virtio-blk-pci,drive=disk")
GUEST_NET=
guest_run 900 env CISTERN_BIN="$CISTERN_BUILD/bin" "$here/../../bench/journal_guest.sh" "$@"
